/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_fork.c - side branches of a sequence: what they share and copy, that they change places with it,
 * and that nothing is left of those that lose. */
#include "kv/kv.h"
#include "support/model_run.h"

enum { TILE = SQ_KV_TILE };

static const sq_kv_shape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 16};

static sq_kv_pool *pool_of(squish_kv kv, int32_t tokens) {
    sq_kv_pool *p;
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    sq_kv_policy policy = sq_kv_policy_of(kv);
    policy.step_tokens = 64;
    assert_ok(sq_kv_pool_new(&p, &shape, &policy, sq_kv_bytes(&shape, &policy, tokens), &a, &err), &err);
    return p;
}

static sq_kv_seq *seq_of(sq_kv_pool *p) {
    sq_kv_seq *s;
    squish_error err = {0};
    assert_ok(sq_kv_seq_new(&s, p, 1024, &err), &err);
    return s;
}

static void reserve(sq_kv_seq *s, int32_t n) {
    squish_error err = {0};
    assert_ok(sq_kv_seq_reserve(s, n, &err), &err);
    while (sq_kv_seq_seal_next(s, n - 1) >= 0) {}
}

/* The place of position i in layer l. */
static uint8_t *at(const sq_kv_seq *s, int32_t l, int32_t i) {
    return sq_kv_seq_pages(s, l)[i / TILE] + sizeof(sq_kv_page_header) + i % TILE;
}

static void put(const sq_kv_seq *s, int32_t from, int32_t n, int32_t mark) {
    for (int32_t l = 0; l < 2; l++)
        for (int32_t i = from; i < n; i++) *at(s, l, i) = (uint8_t)(i + mark + l);
}

static void assert_reads(const sq_kv_seq *s, int32_t from, int32_t n, int32_t mark) {
    for (int32_t l = 0; l < 2; l++)
        for (int32_t i = from; i < n; i++) assert_int_equal(*at(s, l, i), (uint8_t)(i + mark + l));
}

static void a_lead_is_what_is_not_written_of_the_tile(void **state) {
    (void)state;
    assert_int_equal(sq_kv_fork_lead(40, 41), 1);
    assert_int_equal(sq_kv_fork_lead(40, 45), 5);
    assert_int_equal(sq_kv_fork_lead(63, 64), 0); /* the row before is in a tile that is shared */
    assert_int_equal(sq_kv_fork_lead(62, 66), 2);
    assert_int_equal(sq_kv_fork_lead(64, 64), 0);
}

/* Written, where it branches off, and the end of the branch. */
static void a_branch_shares_whole_tiles_and_writes_its_own(void **state) {
    (void)state;
    static const int32_t all[][3] = {{40, 41, 44}, {63, 64, 66}, {62, 66, 70},
                                     {30, 31, 33}, {1, 2, 3},    {95, 97, 99}};
    for (size_t k = 0; k < SQ_COUNT(all); k++) {
        const int32_t written = all[k][0], pos = all[k][1], n = all[k][2];
        sq_kv_pool *p = pool_of(SQUISH_KV_F16, 512);
        sq_kv_seq *main = seq_of(p), *side = seq_of(p);
        reserve(main, written);
        put(main, 0, written, 0);
        reserve(main, n + 3);
        const uint64_t alone = sq_kv_pool_bytes_used(p);
        assert_true(sq_kv_seq_fork(side, main, written, pos, n));
        assert_int_equal(sq_kv_seq_length(side), n);
        /* The step: the timeline's rows, those before pos in both, and the branch's own. */
        put(main, written, n + 3, 100);
        put(side, pos - sq_kv_fork_lead(written, pos), pos, 100);
        put(side, pos, n, 200);
        for (int pass = 0; pass < 2; pass++) {
            assert_reads(pass ? side : main, 0, written, 0);
            assert_reads(pass ? side : main, written, n + 3, 100);
            assert_reads(pass ? main : side, 0, written, 0);
            assert_reads(pass ? main : side, written, pos, 100);
            assert_reads(pass ? main : side, pos, n, 200);
            sq_kv_seq_swap(main, side);
        }
        sq_kv_seq_truncate(side, 0);
        assert_int_equal(sq_kv_pool_bytes_used(p), alone);
        assert_reads(main, 0, written, 0);
        assert_reads(main, written, n + 3, 100);
        sq_kv_seq_free(side);
        sq_kv_seq_free(main);
        assert_int_equal(sq_kv_pool_bytes_used(p), 0);
        sq_kv_pool_free(p);
    }
}

/* Steps of few tokens over many tiles, each with a branch, which wins every third time: in a cache that seals
 * tiles what is read open is there, and going back a step never loses more than asked for. */
static void branches_win_and_lose_over_sealed_tiles(void **state) {
    (void)state;
    static const squish_kv kinds[] = {SQUISH_KV_F16, SQUISH_KV_Q8, SQUISH_KV_Q4};
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        sq_kv_pool *p = pool_of(kinds[k], 700);
        sq_kv_seq *main = seq_of(p), *side = seq_of(p);
        int32_t n = 5, won = 0;
        reserve(main, n);
        put(main, 0, n, 0);
        for (int32_t step = 0; n < 600; step++) {
            const int32_t rows = 2 + step % 7, pos = n + 1 + step % rows, end = pos + 1 + step % 4;
            reserve(main, n + 1 + rows);
            assert_true(sq_kv_seq_fork(side, main, n, pos, end));
            while (sq_kv_seq_seal_next(side, end - 1) >= 0) {}
            put(main, n, n + 1 + rows, 0);
            put(side, pos - sq_kv_fork_lead(n, pos), end, 0);
            if (step % 3 == 0) {
                sq_kv_seq_swap(main, side);
                n = pos + 1, won++;
            } else {
                n++;
            }
            sq_kv_seq_truncate(side, 0);
            assert_int_equal(sq_kv_seq_truncate(main, n), n);
            assert_reads(main, n > 128 ? n - 128 : 0, n, 0);
        }
        assert_true(won > 50);
        sq_kv_seq_free(side);
        sq_kv_seq_free(main);
        assert_int_equal(sq_kv_pool_bytes_used(p), 0);
        sq_kv_pool_free(p);
    }
}

static void where_there_is_no_room_there_is_no_branch_and_nothing_is_taken(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQUISH_KV_F16, 96);
    sq_kv_seq *main = seq_of(p), *side = seq_of(p);
    const int32_t all = sq_kv_pool_columns_free(p) * TILE;
    reserve(main, all - 4);
    const uint64_t used = sq_kv_pool_bytes_used(p);
    assert_false(sq_kv_seq_fork(side, main, all - 8, all - 6, all - 5));
    assert_int_equal(sq_kv_seq_length(side), 0);
    assert_int_equal(sq_kv_pool_bytes_used(p), used);
    for (int32_t t = 0; t < all / TILE; t++)
        assert_int_equal(sq_kv_column_holders(p, sq_kv_seq_column(main, t)), 1);
    sq_kv_seq_free(side);
    sq_kv_seq_free(main);
    sq_kv_pool_free(p);
}

/* What a branch wrote joins the tree as if it had been the timeline from the first. */
static void a_branch_that_won_goes_on_in_the_tree(void **state) {
    (void)state;
    sq_kv_pool *p = pool_of(SQUISH_KV_F16, 512);
    sq_kv_tree *t;
    squish_error err = {0};
    int32_t ids[80];
    for (int32_t i = 0; i < 80; i++) ids[i] = i;
    assert_ok(sq_kv_tree_new(&t, p, &err), &err);
    sq_kv_seq *main = seq_of(p), *side = seq_of(p);
    reserve(main, 62);
    sq_kv_tree_insert(t, 0, main, ids, 62);
    reserve(main, 68);
    assert_true(sq_kv_seq_fork(side, main, 62, 65, 67));
    sq_kv_tree_insert(t, 0, main, ids, 65); /* up to where it branches off */
    sq_kv_seq_swap(main, side);
    sq_kv_tree_insert(t, 0, main, ids, 67);
    sq_kv_seq_truncate(side, 0);
    sq_kv_seq_truncate(main, 67);
    reserve(main, 80);
    sq_kv_tree_insert(t, 0, main, ids, 80);
    assert_int_equal(sq_kv_tree_nodes(t), 2);
    assert_int_equal(sq_kv_tree_match(t, 0, ids, 80).tokens, 64);
    sq_kv_seq_free(side);
    sq_kv_seq_free(main);
    assert_int_equal(sq_kv_tree_idle(t), 2);
    sq_kv_tree_free(t);
    assert_int_equal(sq_kv_pool_bytes_used(p), 0);
    sq_kv_pool_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lead_is_what_is_not_written_of_the_tile),
        cmocka_unit_test(a_branch_shares_whole_tiles_and_writes_its_own),
        cmocka_unit_test(branches_win_and_lose_over_sealed_tiles),
        cmocka_unit_test(where_there_is_no_room_there_is_no_branch_and_nothing_is_taken),
        cmocka_unit_test(a_branch_that_won_goes_on_in_the_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
