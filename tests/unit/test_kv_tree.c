/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_tree.c - prefixes found again: what is found, who may write where, what goes first, and random
 * operations against a list of everything that should be there. Every row of a page carries a number made of
 * all tokens up to it, so that a page in the wrong place is seen at once. */
#include "kv/kv.h"
#include "support/faults.h"
#include "support/model_run.h"

static const sq_kv_shape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 16};

typedef struct {
    sq_kv_pool *p;
    sq_kv_tree *t;
} store;

static store store_of(int32_t columns) {
    store k = {0};
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    assert_ok(sq_kv_pool_new(&k.p, &shape, &(sq_kv_policy){.open = SQ_KV_F16},
                             sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, columns * 32), &a, &err),
              &err);
    assert_ok(sq_kv_tree_new(&k.t, k.p, &err), &err);
    return k;
}

static void store_free(store *k) {
    sq_kv_tree_free(k->t);
    assert_int_equal(sq_kv_pool_bytes_used(k->p), 0);
    sq_kv_pool_free(k->p);
}

static sq_kv_seq *seq_of(store *k, int32_t tokens_max) {
    sq_kv_seq *s = NULL;
    squish_error err = {0};
    assert_ok(sq_kv_seq_new(&s, k->p, tokens_max, &err), &err);
    return s;
}

/* The number of row i: of the salt and all tokens up to it. */
static uint32_t mix(uint32_t h, uint32_t v) { return (h ^ v) * 2654435761u + 12345u; }

static uint32_t *row_of(const sq_kv_seq *s, int32_t layer, int32_t i) {
    const sq_kv_geometry g = sq_kv_geometry_of(&shape, SQ_KV_F16);
    return (uint32_t *)(void *)(sq_kv_seq_pages(s, layer)[i / 32] + g.v_off + (size_t)(i % 32) * 32);
}

static void compute(sq_kv_seq *s, uint64_t salt, const int32_t *ids, int32_t from, int32_t n) {
    uint32_t h = (uint32_t)salt;
    for (int32_t i = 0; i < n; i++) {
        h = mix(h, (uint32_t)ids[i]);
        for (int32_t l = 0; i >= from && l < shape.n_layers; l++) *row_of(s, l, i) = h + (uint32_t)l;
    }
}

static void check_rows(const sq_kv_seq *s, uint64_t salt, const int32_t *ids, int32_t n) {
    uint32_t h = (uint32_t)salt;
    for (int32_t i = 0; i < n; i++) {
        h = mix(h, (uint32_t)ids[i]);
        for (int32_t l = 0; l < shape.n_layers; l++) {
            sq_kv_page_header header;
            memcpy(&header, sq_kv_seq_pages(s, l)[i / 32], sizeof header);
            assert_int_equal(*row_of(s, l, i), h + (uint32_t)l);
            assert_int_equal(header.layer, l);
            assert_int_equal(header.pos0, i / 32 * 32);
        }
    }
}

/* What a scheduler does: find, take, compute the rest, add. Returns the tokens found. */
static int32_t serve(store *k, sq_kv_seq *s, uint64_t salt, const int32_t *ids, int32_t n) {
    squish_error err = {0};
    const sq_kv_match m = sq_kv_tree_match(k->t, salt, ids, n - 1);
    const int32_t found = sq_kv_tree_acquire(k->t, &m, s);
    assert_true(found <= m.tokens);
    check_rows(s, salt, ids, found);
    assert_ok(sq_kv_seq_reserve(s, n, &err), &err);
    compute(s, salt, ids, found, n);
    sq_kv_tree_insert(k->t, salt, s, ids, n);
    check_rows(s, salt, ids, n);
    return found;
}

static void count_up(int32_t *ids, int32_t n, int32_t first) {
    for (int32_t i = 0; i < n; i++) ids[i] = first + i;
}

static void shared_lengths_are_found_to_the_token(void **state) {
    (void)state;
    static const int32_t shared[] = {0, 1, 31, 32, 33, 63, 64, 100, 512, 549, 599};
    store k = store_of(200);
    sq_kv_seq *a = seq_of(&k, 640), *b = seq_of(&k, 640);
    int32_t ids[640], other[640];
    count_up(ids, 640, 0);
    assert_int_equal(serve(&k, a, 0, ids, 640), 0);
    for (size_t i = 0; i < SQ_COUNT(shared); i++) {
        memcpy(other, ids, sizeof ids);
        count_up(other + shared[i], 600 - shared[i], 10000 * ((int32_t)i + 1));
        assert_int_equal(serve(&k, b, 0, other, 600), shared[i]);
        sq_kv_seq_truncate(b, 0);
        check_rows(a, 0, ids, 640);
    }
    assert_int_equal(serve(&k, b, 0, ids, 640), 639); /* one is left to give logits */
    sq_kv_seq_free(a);
    sq_kv_seq_free(b);
    store_free(&k);
}

static void salts_share_nothing(void **state) {
    (void)state;
    store k = store_of(40);
    sq_kv_seq *a = seq_of(&k, 200), *b = seq_of(&k, 200);
    int32_t ids[200];
    count_up(ids, 200, 0);
    assert_int_equal(serve(&k, a, 1, ids, 200), 0);
    assert_int_equal(serve(&k, b, 2, ids, 200), 0);
    sq_kv_seq_truncate(b, 0);
    assert_int_equal(serve(&k, b, 1, ids, 200), 192); /* tiles that were full */
    sq_kv_seq_free(a);
    sq_kv_seq_free(b);
    store_free(&k);
}

static void equal_work_done_twice_is_kept_once(void **state) {
    (void)state;
    store k = store_of(40);
    sq_kv_seq *a = seq_of(&k, 128), *b = seq_of(&k, 128);
    int32_t ids[128];
    squish_error err = {0};
    count_up(ids, 128, 0);
    assert_ok(sq_kv_seq_reserve(b, 128, &err), &err); /* computed side by side, before anything was added */
    compute(b, 0, ids, 0, 128);
    serve(&k, a, 0, ids, 128);
    assert_int_equal(sq_kv_pool_columns_free(k.p), 32);
    sq_kv_tree_insert(k.t, 0, b, ids, 128);
    assert_int_equal(sq_kv_pool_columns_free(k.p), 36);
    for (int32_t t = 0; t < 4; t++) assert_int_equal(sq_kv_seq_column(a, t), sq_kv_seq_column(b, t));
    check_rows(b, 0, ids, 128);
    sq_kv_seq_free(a);
    sq_kv_seq_free(b);
    assert_int_equal(sq_kv_tree_idle(k.t), 4);
    store_free(&k);
}

static void writing_behind_a_shared_place_copies_first(void **state) {
    (void)state;
    store k = store_of(6);
    sq_kv_seq *a = seq_of(&k, 128), *b = seq_of(&k, 128);
    int32_t ids[128];
    squish_error err = {0};
    count_up(ids, 128, 0);
    serve(&k, a, 0, ids, 64);
    const sq_kv_match m = sq_kv_tree_match(k.t, 0, ids, 64);
    assert_int_equal(sq_kv_tree_acquire(k.t, &m, b), 64);
    const uint64_t column = sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 32);
    sq_kv_seq_truncate(b, 40);
    ids[40] = 7777;
    assert_int_equal(sq_kv_seq_missing(b, 50), column);
    assert_ok(sq_kv_seq_reserve(b, 50, &err), &err);
    compute(b, 0, ids, 40, 50);
    check_rows(b, 0, ids, 50);
    ids[40] = 40;
    check_rows(a, 0, ids, 64);
    assert_int_equal(sq_kv_seq_missing(b, 60), 0); /* now it is its own */
    assert_int_equal(sq_kv_seq_missing(b, 97), 2 * column);
    sq_kv_seq_truncate(b, 32);
    assert_ok(sq_kv_seq_reserve(b, 128, &err), &err); /* at a border nothing is copied */
    assert_int_equal(sq_kv_pool_columns_free(k.p), 1);
    sq_kv_seq_truncate(b, 10);
    sq_kv_seq *c = seq_of(&k, 128);
    assert_ok(sq_kv_seq_reserve(c, 128, &err), &err);
    assert_int_equal(sq_kv_seq_reserve(b, 11, &err), SQUISH_NO_MEMORY); /* no room for the copy */
    assert_int_equal(sq_kv_seq_length(b), 10);
    assert_int_equal(sq_kv_seq_column(b, 0), sq_kv_seq_column(a, 0));
    sq_kv_seq_free(a);
    sq_kv_seq_free(b);
    sq_kv_seq_free(c);
    store_free(&k);
}

static void what_was_used_again_outlives_what_was_used_once(void **state) {
    (void)state;
    store k = store_of(20);
    sq_kv_seq *s = seq_of(&k, 320);
    int32_t daily[64], flood[64];
    count_up(daily, 64, 0);
    for (int i = 0; i < 2; i++) {
        serve(&k, s, 0, daily, 64);
        sq_kv_seq_truncate(s, 0);
    }
    for (int32_t i = 1; i <= 30; i++) { /* three times what fits */
        count_up(flood, 64, 1000 * i);
        if (sq_kv_pool_columns_free(k.p) < 2) assert_int_equal(sq_kv_tree_evict(k.t, 2), 2);
        serve(&k, s, 0, flood, 64);
        sq_kv_seq_truncate(s, 0);
    }
    assert_int_equal(sq_kv_tree_match(k.t, 0, daily, 64).tokens, 63 + 1);
    assert_int_equal(sq_kv_tree_match(k.t, 0, flood, 64).tokens, 64);
    count_up(flood, 64, 1000);
    assert_int_equal(sq_kv_tree_match(k.t, 0, flood, 64).tokens, 0);
    assert_int_equal(sq_kv_tree_evict(k.t, 100), 20);
    sq_kv_seq_free(s);
    store_free(&k);
}

static void what_is_in_use_never_goes(void **state) {
    (void)state;
    store k = store_of(10);
    sq_kv_seq *a = seq_of(&k, 320), *b = seq_of(&k, 320);
    int32_t ids[320];
    count_up(ids, 320, 0);
    serve(&k, a, 0, ids, 256);
    serve(&k, b, 0, ids, 96);
    sq_kv_seq_free(a);
    assert_int_equal(sq_kv_tree_evict(k.t, 100), 5); /* 8 tiles, of which b holds 3 */
    check_rows(b, 0, ids, 96);
    sq_kv_seq_free(b);
    store_free(&k);
}

/* ---- random operations ------------------------------------------------------------------------ */

enum { SEQS = 5, COLUMNS = 40, TOKENS = 300, PATHS = 4 * COLUMNS };

/* One tile that should be there: the tokens up to its end. */
typedef struct {
    uint64_t salt;
    int32_t n, ids[TOKENS];
} path;
static path *paths;
static int32_t n_paths;

static bool begins(const path *p, const int32_t *ids, int32_t n) {
    return memcmp(p->ids, ids, (size_t)n * sizeof *ids) == 0;
}

static int32_t find_path(uint64_t salt, const int32_t *ids, int32_t n) {
    for (int32_t i = 0; i < n_paths; i++)
        if (paths[i].salt == salt && paths[i].n == n && begins(&paths[i], ids, n)) return i;
    return -1;
}

static void forget_path(void *user, int32_t node) {
    const store *k = user;
    int32_t ids[TOKENS];
    sq_kv_node_info info;
    sq_kv_tree_node(k->t, node, &info);
    const int32_t n = 32 * (info.tile + 1);
    const uint64_t salt = info.salt;
    for (int32_t i = node; i >= 0; i = info.parent) {
        sq_kv_tree_node(k->t, i, &info);
        memcpy(ids + 32 * info.tile, info.ids, 32 * sizeof *ids);
    }
    const int32_t at = find_path(salt, ids, n);
    assert_true(at >= 0);
    for (int32_t i = 0; i < n_paths; i++) /* a leaf: nothing goes on from it */
        assert_false(paths[i].salt == salt && paths[i].n > n && begins(&paths[i], ids, n));
    paths[at] = paths[--n_paths];
}

static int32_t expected(uint64_t salt, const int32_t *ids, int32_t n) {
    int32_t tiles = 0, best = 0;
    while (32 * (tiles + 1) <= n && find_path(salt, ids, 32 * (tiles + 1)) >= 0) tiles++;
    for (int32_t i = 0; i < n_paths; i++) {
        int32_t same = 0;
        if (paths[i].salt != salt || paths[i].n != 32 * (tiles + 1)) continue;
        while (same < n && same < paths[i].n && paths[i].ids[same] == ids[same]) same++;
        if (same >= 32 * tiles && same > best) best = same;
    }
    return best > 32 * tiles ? best : 32 * tiles;
}

static void random_operations_agree_with_a_plain_list(void **state) {
    (void)state;
    store k = store_of(COLUMNS);
    sq_kv_seq *s[SEQS];
    static int32_t ids[SEQS][TOKENS];
    int32_t n[SEQS] = {0}, evicted = 0, hits = 0;
    uint64_t salt[SEQS] = {0}, rng = 5;
    paths = calloc(PATHS, sizeof *paths);
    sq_kv_tree_on_evict(k.t, forget_path, &k);
    for (int i = 0; i < SEQS; i++) s[i] = seq_of(&k, TOKENS);
    for (int step = 0; step < 3000; step++) {
        const int i = (int)(sq_splitmix64(&rng) % SEQS);
        if (n[i] == 0) { /* begin: often like another, cut and changed somewhere */
            const int from = (int)(sq_splitmix64(&rng) % SEQS);
            int32_t len = 1 + (int32_t)(sq_splitmix64(&rng) % (TOKENS - 40));
            memmove(ids[i], ids[from], sizeof ids[i]);
            for (int32_t c = (int32_t)(sq_splitmix64(&rng) % 400); c < len; c++)
                ids[i][c] = (int32_t)(sq_splitmix64(&rng) % 3);
            salt[i] = sq_splitmix64(&rng) % 8 == 0;
            const int32_t want = expected(salt[i], ids[i], len - 1);
            const sq_kv_match m = sq_kv_tree_match(k.t, salt[i], ids[i], len - 1);
            assert_int_equal(m.tokens, want);
            n[i] = sq_kv_tree_acquire(k.t, &m, s[i]);
            assert_true(n[i] == want || sq_kv_pool_columns_free(k.p) == 0);
            check_rows(s[i], salt[i], ids[i], n[i]);
            hits += n[i] > 0;
            if (n[i] == 0) n[i] = 1, ids[i][0] = 0;
            if (sq_kv_seq_length(s[i]) == 0) {
                if (sq_kv_seq_reserve(s[i], 1, NULL) != SQUISH_OK) n[i] = 0;
                if (n[i]) compute(s[i], salt[i], ids[i], 0, 1);
            }
        } else if (sq_splitmix64(&rng) % 4) { /* go on, add */
            int32_t more = n[i] + 1 + (int32_t)(sq_splitmix64(&rng) % 70);
            if (more > TOKENS) more = TOKENS;
            while (sq_kv_seq_missing(s[i], more) > sq_kv_pool_bytes_free(k.p) && sq_kv_tree_evict(k.t, 1))
                evicted++;
            if (sq_kv_seq_reserve(s[i], more, NULL) != SQUISH_OK) continue;
            compute(s[i], salt[i], ids[i], n[i], more);
            n[i] = more;
            for (int32_t end = 32; end <= more; end += 32)
                if (find_path(salt[i], ids[i], end) < 0) {
                    path *p = &paths[n_paths++];
                    *p = (path){.salt = salt[i], .n = end};
                    memcpy(p->ids, ids[i], (size_t)end * sizeof *p->ids);
                }
            sq_kv_tree_insert(k.t, salt[i], s[i], ids[i], more);
        } else if (sq_splitmix64(&rng) % 3 == 0) { /* cut, and go on differently from there */
            n[i] = 1 + (int32_t)(sq_splitmix64(&rng) % (uint64_t)n[i]);
            sq_kv_seq_truncate(s[i], n[i]);
            for (int32_t c = n[i]; c < TOKENS; c++) ids[i][c] = (int32_t)(sq_splitmix64(&rng) % 3);
        } else {
            sq_kv_seq_truncate(s[i], 0);
            n[i] = 0;
        }
        assert_int_equal(sq_kv_tree_nodes(k.t), n_paths);
        for (int j = 0; j < SEQS; j++) check_rows(s[j], salt[j], ids[j], n[j]);
    }
    assert_true(evicted > 50 && hits > 50);
    for (int i = 0; i < SEQS; i++) sq_kv_seq_free(s[i]);
    assert_int_equal(sq_kv_tree_idle(k.t), n_paths); /* nothing is lost on the way to the lists */
    const int32_t all = n_paths;
    assert_int_equal(sq_kv_tree_evict(k.t, COLUMNS), all);
    assert_int_equal(n_paths, 0);
    free(paths);
    store_free(&k);
}

static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state alloc = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&alloc);
        sq_kv_pool *p = NULL;
        sq_kv_tree *t = NULL;
        squish_status st = sq_kv_pool_new(&p, &shape, &(sq_kv_policy){.open = SQ_KV_F16}, 1 << 20, &a, NULL);
        if (st == SQUISH_OK) st = sq_kv_tree_new(&t, p, NULL);
        sq_kv_tree_free(t);
        sq_kv_pool_free(p);
        assert_int_equal(alloc.live_blocks, 0);
        assert_int_equal(alloc.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_lengths_are_found_to_the_token),
        cmocka_unit_test(salts_share_nothing),
        cmocka_unit_test(equal_work_done_twice_is_kept_once),
        cmocka_unit_test(writing_behind_a_shared_place_copies_first),
        cmocka_unit_test(what_was_used_again_outlives_what_was_used_once),
        cmocka_unit_test(what_is_in_use_never_goes),
        cmocka_unit_test(random_operations_agree_with_a_plain_list),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
