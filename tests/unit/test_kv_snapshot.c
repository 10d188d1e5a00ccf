/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_snapshot.c - prefixes written and read back by another tree, files that are cut or changed at every
 * place, and allocations that fail. SQ_SNAPSHOT_SEED=path writes the file it made there: a seed to fuzz. */
#include "kv/kv_snapshot_int.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <stdio.h>
#include <time.h>

static const sq_kv_shape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = 16};

typedef struct {
    sq_kv_pool *p;
    sq_kv_tree *t;
    sq_snapshots *s;
} store;

static bool archive; /* of what is written */

static squish_status store_new(store *k, const squish_alloc *a, const char *dir, uint64_t identity) {
    const sq_snapshots_options o = {
        .dir = dir, .bytes_max = 64 << 20, .identity = identity, .tokens_max = 3200, .archive = archive};
    *k = (store){0};
    SQ_TRY(sq_kv_pool_new(&k->p, &shape, &(sq_kv_policy){.open = SQ_KV_F16},
                          sq_kv_bytes(&shape, &(sq_kv_policy){.open = SQ_KV_F16}, 3200), a, NULL));
    SQ_TRY(sq_kv_tree_new(&k->t, k->p, NULL));
    return sq_snapshots_new(&k->s, k->p, k->t, &o, NULL);
}

static void store_free(store *k) {
    sq_snapshots_free(k->s);
    sq_kv_tree_free(k->t);
    if (k->p) assert_int_equal(sq_kv_pool_bytes_used(k->p), 0);
    sq_kv_pool_free(k->p);
}

static uint16_t *row_of(const sq_kv_seq *s, int32_t layer, int32_t i) {
    const sq_kv_geometry g = sq_kv_geometry_of(&shape, SQ_KV_F16);
    return (uint16_t *)(void *)(sq_kv_seq_pages(s, layer)[i / 32] + g.v_off + (size_t)(i % 32) * 32);
}

/* Compute ids[0..n), where row i of layer l holds a number of both, and leave it in the tree. */
static void fill(store *k, uint64_t salt, const int32_t *ids, int32_t n) {
    sq_kv_seq *s = NULL;
    assert_int_equal(sq_kv_seq_new(&s, k->p, 3200, NULL), SQUISH_OK);
    assert_int_equal(sq_kv_seq_reserve(s, n, NULL), SQUISH_OK);
    for (int32_t i = 0; i < n; i++)
        for (int32_t l = 0; l < 2; l++) *row_of(s, l, i) = (uint16_t)((ids[i] * 2 + l) % 0x7000);
    sq_kv_tree_insert(k->t, salt, s, ids, n);
    sq_kv_seq_free(s);
}

static void check(store *k, uint64_t salt, const int32_t *ids, int32_t n) {
    sq_kv_seq *s = NULL;
    const sq_kv_match m = sq_kv_tree_match(k->t, salt, ids, n);
    assert_int_equal(m.tokens, n);
    assert_int_equal(sq_kv_seq_new(&s, k->p, 3200, NULL), SQUISH_OK);
    sq_kv_tree_acquire(k->t, &m, s);
    for (int32_t i = 0; i < n; i++)
        for (int32_t l = 0; l < 2; l++) assert_int_equal(*row_of(s, l, i), (ids[i] * 2 + l) % 0x7000);
    sq_kv_seq_free(s);
}

static uint64_t bytes_in(const char *dir) {
    const squish_alloc a = sq_alloc_default();
    sq_arena names;
    char **all, path[300];
    size_t n;
    uint64_t bytes = 0;
    sq_arena_init(&names, &a, 1 << 12, 1 << 20);
    assert_int_equal(sq_os_list_dir(dir, &names, &all, &n, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, all[i]);
        bytes += sq_os_file_bytes(path);
    }
    sq_arena_deinit(&names);
    return bytes;
}

static uint64_t what_one_wrote_another_reads(bool archived) {
    static int32_t ids[3200];
    char dir[] = "/tmp/squish-test-XXXXXX";
    const squish_alloc a = sq_alloc_default();
    store k;
    assert_non_null(mkdtemp(dir));
    for (int32_t i = 0; i < 3200; i++) ids[i] = i * 7;
    archive = archived;
    assert_int_equal(store_new(&k, &a, dir, 1), SQUISH_OK);
    fill(&k, 5, ids, 2400);              /* 75 tiles: files of 32, 32 and 11 */
    sq_snapshots_keep(k.s, false, true); /* used once: not yet */
    sq_snapshots_keep(k.s, true, true);
    sq_snapshots_keep(k.s, true, true); /* nothing new */
    store_free(&k);
    archive = !archived; /* what is read says for itself */
    assert_int_equal(store_new(&k, &a, dir, 1), SQUISH_OK);
    const uint64_t bytes = bytes_in(dir);
    assert_int_equal(sq_snapshots_restore(k.s, 6, ids, 3000), 0);
    assert_int_equal(sq_snapshots_restore(k.s, 5, ids, 1100), 1024); /* no file ends there */
    assert_int_equal(sq_snapshots_restore(k.s, 5, ids, 3000), 2400 - 1024);
    assert_int_equal(sq_snapshots_restore(k.s, 5, ids, 3000), 0); /* it is all there */
    assert_int_equal(sq_snapshots_count(k.s).hits, 3);
    assert_int_equal(sq_snapshots_count(k.s).written, 0);
    check(&k, 5, ids, 2400);
    store_free(&k);
    assert_int_equal(store_new(&k, &a, dir, 2), SQUISH_OK); /* another model */
    assert_int_equal(sq_snapshots_restore(k.s, 5, ids, 3000), 0);
    store_free(&k);
    remove_tree(dir);
    archive = false;
    return bytes;
}

static void what_one_wrote_another_reads_also_from_an_archive(void **state) {
    (void)state;
    const uint64_t plain = what_one_wrote_another_reads(false), archived = what_one_wrote_another_reads(true);
    assert_true(archived > 0 && archived * 2 < plain); /* most rows are zeros */
}

static void half_a_file_goes_and_strangers_stay(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX", half[100], strange[100];
    const squish_alloc a = sq_alloc_default();
    store k;
    assert_non_null(mkdtemp(dir));
    snprintf(half, sizeof half, "%s/0123456789abcdef.kv.partial", dir);
    snprintf(strange, sizeof strange, "%s/notes.txt", dir);
    for (int i = 0; i < 2; i++) {
        FILE *f = fopen(i ? strange : half, "w");
        assert_non_null(f);
        fclose(f);
    }
    assert_int_equal(store_new(&k, &a, dir, 1), SQUISH_OK);
    assert_false(sq_os_exists(half));
    assert_true(sq_os_exists(strange));
    store_free(&k);
    remove_tree(dir);
}

static void what_is_evicted_comes_back(void **state) {
    (void)state;
    static int32_t ids[1600];
    char dir[] = "/tmp/squish-test-XXXXXX";
    const squish_alloc a = sq_alloc_default();
    store k;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_new(&k, &a, dir, 1), SQUISH_OK);
    for (int32_t i = 0; i < 1600; i++) ids[i] = i * 3;
    fill(&k, 0, ids, 1600);
    assert_int_equal(sq_kv_tree_evict(k.t, 100), 50);
    for (int i = 0; i < 5000 && sq_snapshots_count(k.s).written < 2; i++) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
    }
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 1600), 1600);
    check(&k, 0, ids, 1600);
    store_free(&k);
    remove_tree(dir);
}

/* One file in memory: open tiles, or the first open, the second sealed and the third both. */
static uint8_t *make_file(squish_kv kv, sq_snapshot_view *v, size_t *n) {
    const squish_alloc a = sq_alloc_default();
    sq_kv_pool *p = NULL;
    *v = (sq_snapshot_view){.identity = 1,
                            .salt = 2,
                            .parent = 3,
                            .chain = 4,
                            .n_tiles = 3,
                            .shape = shape,
                            .policy = sq_kv_policy_of(kv),
                            .forms = {1, 1, 1}};
    if (v->policy.seals) v->forms[1] = 2, v->forms[2] = 3;
    assert_int_equal(sq_kv_pool_new(&p, &shape, &v->policy, 1 << 20, &a, NULL), SQUISH_OK);
    int32_t ids[32] = {9, 8, 7};
    *n = (size_t)sq_snapshot_bytes(v);
    uint8_t *file = aligned_alloc(64, sq_align_up(*n, 64));
    sq_snapshot_begin(file, v);
    for (int32_t t = 0; t < 3; t++) {
        const int32_t c = sq_kv_column_new(p, t, v->forms[t]);
        sq_snapshot_put_tile(file, v, p, t, ids, c);
        sq_kv_column_drop(p, c);
    }
    sq_snapshot_seal(file, v);
    sq_kv_pool_free(p);
    const char *seed = getenv("SQ_SNAPSHOT_SEED");
    char path[300];
    snprintf(path, sizeof path, "%s.%s", seed ? seed : "", sq_kv_name(kv));
    FILE *f = seed ? fopen(path, "wb") : NULL;
    if (f) {
        fwrite(file, 1, *n, f);
        fclose(f);
    }
    return file;
}

static bool accepted(const uint8_t *file, size_t n, const sq_kv_policy *policy) {
    sq_snapshot_view v;
    if (sq_snapshot_parse((sq_span){file, n}, policy, &v, NULL) != SQUISH_OK) return false;
    for (int32_t t = 0; t < v.n_tiles; t++)
        if (sq_snapshot_tile(&v, t, NULL) != SQUISH_OK) return false;
    return true;
}

static const squish_kv formats[] = {SQUISH_KV_F16, SQUISH_KV_K8V4};

static void every_flipped_bit_and_every_cut_is_found(void **state) {
    (void)state;
    for (size_t f = 0; f < SQ_COUNT(formats); f++) {
        size_t n;
        sq_snapshot_view made, v;
        uint8_t *file = make_file(formats[f], &made, &n);
        const sq_kv_policy *policy = &made.policy;
        assert_true(accepted(file, n, policy));
        assert_int_equal(sq_snapshot_parse((sq_span){file, n}, policy, &v, NULL), SQUISH_OK);
        const size_t gap_end = (size_t)(v.pages - file), gap = (size_t)(v.sums - file) + 3 * 8;
        for (size_t i = 0; i < n; i++) {
            if (i >= gap && i < gap_end) continue; /* padding before the pages says nothing */
            file[i] ^= (uint8_t)(1 << i % 8);
            assert_false(accepted(file, n, policy));
            file[i] ^= (uint8_t)(1 << i % 8);
        }
        for (size_t cut = 0; cut < n; cut += 1 + cut / 16) assert_false(accepted(file, cut, policy));
        assert_true(accepted(file, n, policy));
        free(file);
    }
}

static void numbers_that_are_none_never_reach_a_page(void **state) {
    (void)state;
    for (size_t f = 0; f < SQ_COUNT(formats); f++) {
        size_t n;
        sq_snapshot_view v;
        uint8_t *file = make_file(formats[f], &v, &n);
        const uint16_t inf = 0x7C00;
        memcpy(file + n - 64, &inf, sizeof inf); /* of a value, or of the middle of one */
        sq_snapshot_seal(file, &v);              /* all sums are right */
        assert_false(accepted(file, n, &v.policy));
        free(file);
    }
}

static void a_file_of_another_format_is_none(void **state) {
    (void)state;
    size_t n;
    sq_snapshot_view v;
    uint8_t *file = make_file(SQUISH_KV_K8V4, &v, &n);
    sq_kv_policy other = sq_kv_policy_of(SQUISH_KV_Q8);
    assert_false(accepted(file, n, &other));
    other = v.policy;
    other.k_floor[0] = 2; /* one layer's keys have more bits */
    assert_false(accepted(file, n, &other));
    assert_true(accepted(file, n, &v.policy));
    free(file);
}

static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    static int32_t ids[320];
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state t = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&t);
        store k;
        const squish_status st = store_new(&k, &a, dir, (uint64_t)n);
        const bool clean = t.count < n;
        store_free(&k);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
        if (st == SQUISH_OK && clean) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
    struct sq_test_alloc_state t = {0};
    const squish_alloc a = sq_test_alloc(&t);
    store k;
    archive = true;
    assert_int_equal(store_new(&k, &a, dir, 77), SQUISH_OK);
    fill(&k, 0, ids, 320);
    t.fail_at = t.count + 1;
    sq_snapshots_keep(k.s, true, true); /* no memory for the image: left for later */
    t.fail_at = 0;
    sq_snapshots_keep(k.s, true, true);
    store_free(&k);
    assert_int_equal(t.live_blocks, 0);
    assert_int_equal(store_new(&k, &a, dir, 77), SQUISH_OK);
    t.fail_at =
        t.count + 1; /* no memory to open an archive: a miss, and no more; then the file is not tried */
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 320), 0);
    t.fail_at = 0;
    store_free(&k);
    assert_int_equal(t.live_blocks, 0);
    assert_int_equal(store_new(&k, &a, dir, 77), SQUISH_OK);
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 320), 320);
    store_free(&k);
    archive = false;
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_wrote_another_reads_also_from_an_archive),
        cmocka_unit_test(half_a_file_goes_and_strangers_stay),
        cmocka_unit_test(what_is_evicted_comes_back),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_found),
        cmocka_unit_test(numbers_that_are_none_never_reach_a_page),
        cmocka_unit_test(a_file_of_another_format_is_none),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
