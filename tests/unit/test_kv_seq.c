/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_seq.c - sequences whose old tiles are sealed: which forms are there when, what they take, going
 * back, and random operations beside a prefix tree: whatever a query would read is there, with the number
 * that was written into it. Sealing is played: the number of a tile is copied into its sealed form. */
#include "kv/kv.h"
#include "support/faults.h"
#include "support/model_run.h"

enum { TILE = SQ_KV_TILE, STEP = 256 };

static const sq_kv_shape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 16};

static sq_kv_window window = {1, 4};

static sq_kv_policy policy_of(void) {
    sq_kv_policy p = sq_kv_policy_of(SQUISH_KV_Q4);
    p.step_tokens = STEP;
    p.window = window;
    return p;
}

typedef struct {
    sq_kv_pool *p;
    sq_kv_tree *t; /* may be NULL */
} store;

static store store_of(int32_t tokens, bool tree) {
    store k = {0};
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    const sq_kv_policy policy = policy_of();
    assert_ok(sq_kv_pool_new(&k.p, &shape, &policy, sq_kv_bytes(&shape, &policy, tokens), &a, &err), &err);
    if (tree) assert_ok(sq_kv_tree_new(&k.t, k.p, &err), &err);
    return k;
}

static void store_free(store *k) {
    sq_kv_tree_free(k->t);
    assert_int_equal(sq_kv_pool_bytes_used(k->p), 0);
    assert_int_equal(sq_kv_pool_bytes_evictable(k->p), 0);
    sq_kv_pool_free(k->p);
}

static sq_kv_seq *seq_of(store *k, int32_t tokens_max) {
    sq_kv_seq *s = NULL;
    squish_error err = {0};
    assert_ok(sq_kv_seq_new(&s, k->p, tokens_max, &err), &err);
    return s;
}

static uint32_t mix(uint32_t h, uint32_t v) { return (h ^ v) * 2654435761u + 12345u; }

/* The number of a row, in the first bytes of its value in layer l; of a sealed tile: that of its last row. */
static uint32_t *row_at(const sq_kv_seq *s, int32_t l, int32_t i) {
    const sq_kv_geometry g = sq_kv_geometry_of(&shape, SQ_KV_F16);
    return (uint32_t *)(void *)(sq_kv_seq_pages(s, l)[i / TILE] + g.v_off + (size_t)(i % TILE) * 32);
}

static uint32_t *sealed_at(const sq_kv_seq *s, int32_t l, int32_t tile) {
    return (uint32_t *)(void *)(sq_kv_seq_sealed_pages(s, l)[tile] + sizeof(sq_kv_page_header));
}

/* A step: rows [from, n) are written, then what must be sealed is. Returns false if there was no room. */
static bool step(store *k, sq_kv_seq *s, const int32_t *ids, int32_t from, int32_t n) {
    if (!sq_kv_pool_make_room(k->p, sq_kv_seq_missing(s, n))) return false;
    if (sq_kv_seq_reserve(s, n, NULL) != SQUISH_OK) return false;
    uint32_t h = 0;
    int32_t sealed = 0;
    for (int32_t i = 0; i < n; i++) {
        h = mix(h, (uint32_t)ids[i]);
        for (int32_t l = 0; i >= from && l < 2; l++) *row_at(s, l, i) = h + (uint32_t)l;
    }
    for (int32_t t; (t = sq_kv_seq_seal_next(s, n - 1)) >= 0; sealed++)
        for (int32_t l = 0; l < 2; l++) *sealed_at(s, l, t) = *row_at(s, l, t * TILE + TILE - 1);
    assert_true(sealed <= SQ_KV_SEAL_MAX + (n - from) / TILE);
    return true;
}

/* What a query at position q = n - 1, which has just read, finds; or one at q = n, which is to come: before
 * that some tiles are still to be sealed. */
static void check(const store *k, const sq_kv_seq *s, const int32_t *ids, int32_t n, int32_t q) {
    uint32_t h = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t tile = i / TILE, column = sq_kv_seq_column(s, tile);
        h = mix(h, (uint32_t)ids[i]);
        const bool old = tile >= window.sink && tile < sq_kv_sealed_tiles(window, q);
        const bool sealed = old && sq_kv_column_is_sealed(k->p, column);
        if (q < n) assert_true(sealed == old);
        for (int32_t l = 0; l < 2; l++) {
            sq_kv_page_header p;
            memcpy(&p, sealed ? sq_kv_seq_sealed_pages(s, l)[tile] : sq_kv_seq_pages(s, l)[tile], sizeof p);
            assert_int_equal(p.pos0, tile * TILE);
            assert_int_equal(p.layer, l);
            assert_int_equal(p.k_fmt, sealed ? SQ_KV_Q4 : SQ_KV_F16);
            if (sealed && i % TILE == TILE - 1) assert_int_equal(*sealed_at(s, l, tile), h + (uint32_t)l);
            if (!sealed) assert_int_equal(*row_at(s, l, i), h + (uint32_t)l);
        }
        assert_true(sealed || sq_kv_column_is_open(k->p, column));
    }
}

static void formats_take_what_the_tables_say(void **state) {
    (void)state;
    static const struct {
        squish_kv kv;
        int32_t bytes[2]; /* a token of 28 layers, 2 and 4 heads of 128 */
    } want[] = {{SQUISH_KV_F16, {28672, 57344}},  {SQUISH_KV_Q8, {15512, 30968}},
                {SQUISH_KV_K8V4, {11928, 23800}}, {SQUISH_KV_Q4, {8344, 16632}},
                {SQUISH_KV_K4V2, {6552, 13048}},  {SQUISH_KV_Q2, {4760, 9464}}};
    for (size_t i = 0; i < SQ_COUNT(want); i++)
        for (int32_t h = 0; h < 2; h++) {
            const sq_kv_shape s = {28, h ? 4 : 2, 128, false};
            const sq_kv_policy p = sq_kv_policy_of(want[i].kv);
            const size_t column = p.seals ? sq_kv_sealed_bytes(&s, &p) : sq_kv_open_bytes(&s, &p) - 28 * 64;
            assert_int_equal(column / TILE, want[i].bytes[h]);
            squish_kv back;
            assert_true(sq_kv_from_name(sq_kv_name(want[i].kv), &back) && back == want[i].kv);
        }
    squish_kv none;
    assert_false(sq_kv_from_name("q3", &none));
    assert_null(sq_kv_name((squish_kv)99));
}

static void floors_make_layers_larger_and_another_hash(void **state) {
    (void)state;
    sq_kv_policy p = policy_of(), q = p;
    q.k_floor[0] = 2;
    assert_int_equal(sq_kv_policy_k(&q, 0), SQ_KV_Q4);
    assert_int_equal(sq_kv_policy_k(&q, 1), SQ_KV_Q8);
    assert_true(sq_kv_sealed_bytes(&shape, &q) > sq_kv_sealed_bytes(&shape, &p));
    assert_true(sq_kv_policy_hash(&q) != sq_kv_policy_hash(&p));
    p = sq_kv_policy_of(SQUISH_KV_F16), q = sq_kv_policy_of(SQUISH_KV_F32);
    assert_true(sq_kv_policy_hash(&q) != sq_kv_policy_hash(&p));
}

static void position_alone_decides_what_is_sealed(void **state) {
    (void)state;
    assert_int_equal(sq_kv_sealed_tiles(window, 0), 1); /* the first tile stays open, so [1, 1) is nothing */
    assert_int_equal(sq_kv_sealed_tiles(window, 255), 1);
    assert_int_equal(sq_kv_sealed_tiles(window, 256), 4);
    assert_int_equal(sq_kv_sealed_tiles(window, 383), 4);
    assert_int_equal(sq_kv_sealed_tiles(window, 384), 8);
}

/* The pool holds just one sequence of this length: it never needs more, whatever the steps. */
static void a_sequence_stays_within_its_estimate(void **state) {
    (void)state;
    static const int32_t steps[] = {1, 31, 32, 33, 127, 128, 200, STEP};
    static int32_t ids[1500];
    const sq_kv_policy policy = policy_of();
    for (int32_t i = 0; i < 1500; i++) ids[i] = i * 3;
    for (size_t k = 0; k < SQ_COUNT(steps); k++) {
        store x = store_of(1500, false);
        sq_kv_seq *s = seq_of(&x, 1500);
        for (int32_t n = 0, next; n < 1500; n = next) {
            next = n + steps[k] < 1500 ? n + steps[k] : 1500;
            if (!step(&x, s, ids, n, next)) fail_msg("step %d at %d", steps[k], n);
            assert_true(sq_kv_pool_bytes_used(x.p) <= sq_kv_bytes(&shape, &policy, next));
            check(&x, s, ids, next, next - 1);
        }
        sq_kv_seq_free(s);
        store_free(&x);
    }
}

static void going_back_is_to_where_open_tiles_are(void **state) {
    (void)state;
    static int32_t ids[1500];
    store x = store_of(1500, false);
    sq_kv_seq *s = seq_of(&x, 1500);
    for (int32_t i = 0; i < 1500; i++) ids[i] = i;
    assert_true(step(&x, s, ids, 0, 100));
    assert_int_equal(sq_kv_seq_truncate(s, 50), 50); /* everything is open */
    for (int32_t n = 50; n < 1000; n += 25) assert_true(step(&x, s, ids, n, n + 25));
    assert_true(step(&x, s, ids, 1000, 1100));
    assert_int_equal(sq_kv_seq_truncate(s, 1000), 1000); /* the last step */
    check(&x, s, ids, 1000, 1000);
    assert_int_equal(sq_kv_seq_truncate(s, 900), 900); /* the same cell */
    assert_true(step(&x, s, ids, 900, 1000));
    check(&x, s, ids, 1000, 1000);
    assert_int_equal(sq_kv_seq_truncate(s, 300), 0);
    assert_int_equal(sq_kv_pool_bytes_used(x.p), 0);
    assert_true(step(&x, s, ids, 0, 200));
    check(&x, s, ids, 200, 200);
    sq_kv_seq_free(s);
    store_free(&x);
}

static void what_was_sealed_and_is_written_again_is_sealed_again(void **state) {
    (void)state;
    static int32_t ids[1500];
    store x = store_of(1500, false);
    sq_kv_seq *s = seq_of(&x, 1500);
    for (int32_t n = 0; n < 600; n += STEP) assert_true(step(&x, s, ids, n, n + STEP)); /* 768, none aged */
    assert_int_equal(sq_kv_seq_truncate(s, 520), 520);
    for (int32_t i = 520; i < 1500; i++) ids[i] = 9;
    for (int32_t n = 520; n < 1400; n += 110) assert_true(step(&x, s, ids, n, n + 110));
    check(&x, s, ids, 1400, 1400);
    sq_kv_seq_free(s);
    store_free(&x);
}

/* Three sequences over texts that share beginnings, a tree, and a pool too small for all. */
static void random_work_reads_what_was_written(void **state) {
    (void)state;
    enum { SEQS = 3, N = 900, WORK = 6000 };
    static int32_t ids[SEQS][N];
    uint64_t rng = 20240917;
    int32_t n[SEQS] = {0}, found = 0, refused = 0;
    store x = store_of(1400, true);
    sq_kv_seq *s[SEQS];
    for (int32_t i = 0; i < SEQS; i++) s[i] = seq_of(&x, N);
    for (int32_t w = 0; w < WORK; w++) {
        const int32_t i = (int32_t)(sq_splitmix64(&rng) % SEQS);
        const uint64_t what = sq_splitmix64(&rng) % 16;
        if (n[i] == 0) { /* begin somewhere known, or not */
            const int32_t part = (int32_t)(sq_splitmix64(&rng) % N);
            for (int32_t t = 0; t < N; t++)
                ids[i][t] = t < part ? 7 : (int32_t)(sq_splitmix64(&rng) % 3) + (int32_t)(w % 5) * 10;
            const sq_kv_match m = sq_kv_tree_match(x.t, 0, ids[i], N - 1);
            n[i] = sq_kv_tree_acquire(x.t, &m, s[i]);
            found += n[i] > 0;
            if (n[i] > 0) check(&x, s[i], ids[i], n[i], n[i]);
        } else if (what == 0) {
            n[i] = sq_kv_seq_truncate(s[i], 0);
        } else if (what == 1) {
            n[i] = sq_kv_seq_truncate(s[i], n[i] - (int32_t)(sq_splitmix64(&rng) % 300));
            for (int32_t t = n[i]; t < N; t++) ids[i][t] ^= 64;
        }
        const int32_t more = 1 + (int32_t)(sq_splitmix64(&rng) % (what < 8 ? 40 : STEP));
        const int32_t next = n[i] + more < N ? n[i] + more : N;
        if (next == n[i]) continue;
        if (!step(&x, s[i], ids[i], n[i], next)) {
            refused++;
            n[i] = sq_kv_seq_truncate(s[i], 0);
            continue;
        }
        n[i] = next;
        sq_kv_tree_insert(x.t, 0, s[i], ids[i], next);
        check(&x, s[i], ids[i], next, next - 1);
        assert_true(sq_kv_pool_bytes_used(x.p) <= sq_kv_pool_bytes_max(x.p) + 2 * 16384);
    }
    assert_true(found > 50 && refused > 0);
    for (int32_t i = 0; i < SEQS; i++) sq_kv_seq_free(s[i]);
    assert_int_equal(sq_kv_pool_bytes_evictable(x.p), sq_kv_pool_bytes_used(x.p));
    assert_true(sq_kv_pool_make_room(x.p, sq_kv_pool_bytes_max(x.p)));
    store_free(&x);
}

static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    const sq_kv_policy policy = policy_of();
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state t = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&t);
        sq_kv_pool *p = NULL;
        sq_kv_seq *s = NULL;
        squish_status st = sq_kv_pool_new(&p, &shape, &policy, 1 << 20, &a, NULL);
        if (st == SQUISH_OK) st = sq_kv_seq_new(&s, p, 1000, NULL);
        const bool clean = t.count < n;
        sq_kv_seq_free(s);
        sq_kv_pool_free(p);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
        if (st == SQUISH_OK && clean) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

/* Without a sink, with a large one, and with more and less before the cell. */
static void windows_of_other_sizes(void **state) {
    static const sq_kv_window sizes[] = {{0, 4}, {3, 1}, {2, 8}, {0, 0}};
    for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
        window = sizes[i];
        a_sequence_stays_within_its_estimate(state);
        going_back_is_to_where_open_tiles_are(state);
        random_work_reads_what_was_written(state);
    }
    window = (sq_kv_window){1, 4};
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_take_what_the_tables_say),
        cmocka_unit_test(floors_make_layers_larger_and_another_hash),
        cmocka_unit_test(position_alone_decides_what_is_sealed),
        cmocka_unit_test(a_sequence_stays_within_its_estimate),
        cmocka_unit_test(going_back_is_to_where_open_tiles_are),
        cmocka_unit_test(what_was_sealed_and_is_written_again_is_sealed_again),
        cmocka_unit_test(random_work_reads_what_was_written),
        cmocka_unit_test(windows_of_other_sizes),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
