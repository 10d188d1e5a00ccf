/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_coded.c - prefixes on disk as codes: pages through them and back, keys turned and turned again; a
 * folder of them across a restart; files that are cut or changed at every place, or of other books; memory
 * and disks that fail. SQ_CODED_SEED=path writes the archive it made there, and its image behind .image. */
#include "kv/kv_archive.h"
#include "kv/kv_snapshot_int.h"
#include "support/codec_books.h"
#include "support/faults.h"

#include <stdio.h>
#include <sys/stat.h>

enum { TOKENS = 3200, D = BOOK_D };
static const sq_kv_shape shape = {.n_layers = 2, .n_kv_heads = 1, .head_dim = D};
static const sq_kv_policy policy = {.open = SQ_KV_F16};
static squish_alloc heap;
static sq_kernels kernels;
static sq_codec *books;
static int32_t ids[TOKENS];
static uint16_t *noise; /* [parts][BOOK_N][D]: what books were trained on */

/* ---- pages ----------------------------------------------------------------------------------- */

/* Vector i of a part: keys as if they stood at position 0. */
static const uint16_t *vector(int32_t part, int32_t i) {
    return noise + ((size_t)part * BOOK_N + (size_t)(i % BOOK_N)) * D;
}

/* Channel c of the key of layer l at position i, turned as the layer says, by the definition. */
static double turned(int32_t l, int32_t i, int32_t c) {
    const uint16_t *x = vector(2 * l, i);
    const int32_t half = D / 2, j = c % half, set = books->turns.set[l];
    const double a = (double)sq_f16_to_f32(x[j]), b = (double)sq_f16_to_f32(x[j + half]);
    const double angle = i * books->turns.inv_freq[set][j], f = books->turns.factor[set];
    return f * (c < half ? a * cos(angle) - b * sin(angle) : b * cos(angle) + a * sin(angle));
}

static uint16_t *key_of(uint8_t *page, int32_t slot, int32_t c) {
    const sq_kv_geometry g = sq_kv_geometry_of(&shape, SQ_KV_F16);
    return (uint16_t *)(void *)(page + g.k_off) + c * 32 + slot;
}

static uint16_t *value_of(uint8_t *page, int32_t slot, int32_t c) {
    const sq_kv_geometry g = sq_kv_geometry_of(&shape, SQ_KV_F16);
    return (uint16_t *)(void *)(page + g.v_off) + slot * D + c;
}

static void fill_slot(uint8_t *page, int32_t l, int32_t i) {
    for (int32_t c = 0; c < D; c++) {
        *key_of(page, i % 32, c) = sq_f32_to_f16((float)turned(l, i, c));
        *value_of(page, i % 32, c) = vector(2 * l + 1, i)[c];
    }
}

typedef struct {
    double lost, all;
} distance;

static void add_distance(uint8_t *page, int32_t l, int32_t i, distance *key, distance *value) {
    for (int32_t c = 0; c < D; c++) {
        const double k = turned(l, i, c), v = (double)sq_f16_to_f32(vector(2 * l + 1, i)[c]);
        key->lost += pow((double)sq_f16_to_f32(*key_of(page, i % 32, c)) - k, 2);
        value->lost += pow((double)sq_f16_to_f32(*value_of(page, i % 32, c)) - v, 2);
        key->all += k * k, value->all += v * v;
    }
}

/* Turning back gives what was turned, to what f16 holds of it; and codes of that are near in place. */
static void keys_are_turned_back_and_forth(void **state) {
    (void)state;
    enum { FIRST = 40, TILES = 3 };
    const size_t bytes = sq_kv_geometry_of(&shape, SQ_KV_F16).page_bytes;
    float *work = malloc(sq_codec_work_floats(books, TILES) * sizeof *work), x[TILES * 32 * D];
    for (int pairs = 0; pairs < 2; pairs++)
        for (int32_t l = 0; l < 2; l++) {
            const sq_codec_run r = {books, &kernels, FIRST, TILES, work};
            uint8_t *pages[TILES], code[2 * TILES * 32 * 4];
            uint16_t gain[2 * TILES * 32];
            for (int32_t t = 0; t < TILES; t++) pages[t] = aligned_alloc(64, bytes);
            books->turns.pairs = pairs;
            for (int32_t i = FIRST * 32; i < (FIRST + TILES) * 32; i++) {
                uint8_t *page = pages[i / 32 - FIRST];
                fill_slot(page, l, i);
                for (int32_t c = 0; pairs && c < D; c++) /* halves j and j + D/2 lie side by side */
                    *key_of(page, i % 32, c) = sq_f32_to_f16((float)turned(l, i, c / 2 + c % 2 * (D / 2)));
            }
            sq_codec_begin(&r, true);
            sq_codec_gather(&r, l, 0, false, (const uint8_t *const *)pages, x);
            for (int32_t i = 0; i < TILES * 32; i++)
                for (int32_t c = 0; c < D; c++) {
                    const int32_t from = pairs ? c / 2 + c % 2 * (D / 2) : c;
                    const float want = sq_f16_to_f32(vector(2 * l, FIRST * 32 + i)[from]);
                    assert_true(fabsf(x[i * D + c] - want) <= 0.02f);
                }
            if (!pairs) { /* books are of channels in this order */
                distance key = {0}, value = {0};
                sq_codec_put(&r, l, (const uint8_t *const *)pages, gain, code);
                for (int32_t t = 0; t < TILES; t++) memset(pages[t] + 64, 0, bytes - 64);
                sq_codec_begin(&r, false);
                sq_codec_get(&r, l, gain, code, pages);
                for (int32_t i = FIRST * 32; i < (FIRST + TILES) * 32; i++)
                    add_distance(pages[i / 32 - FIRST], l, i, &key, &value);
                assert_true(key.lost > 0 && key.lost < 0.05 * key.all);
                assert_true(value.lost > 0 && value.lost < 0.05 * value.all);
            }
            for (int32_t t = 0; t < TILES; t++) free(pages[t]);
        }
    books->turns.pairs = false;
    free(work);
}

/* ---- a folder -------------------------------------------------------------------------------- */

typedef struct {
    sq_kv_pool *p;
    sq_kv_tree *t;
    sq_snapshots *s;
} store;

static char warned[2000];
static void warn(void *user, const char *line) {
    (void)user;
    snprintf(warned, sizeof warned, "%s", line);
}

static squish_status store_new(store *k, const squish_alloc *a, const char *dir, const sq_codec *c,
                               squish_error *err) {
    const sq_snapshots_options o = {.dir = dir,
                                    .bytes_max = 64 << 20,
                                    .identity = 1,
                                    .tokens_max = TOKENS,
                                    .codec = c,
                                    .coded_min = 512,
                                    .warn = warn};
    *k = (store){0};
    SQ_TRY(sq_kv_pool_new(&k->p, &shape, &policy, sq_kv_bytes(&shape, &policy, TOKENS), a, err));
    SQ_TRY(sq_kv_tree_new(&k->t, k->p, err));
    return sq_snapshots_new(&k->s, k->p, k->t, &o, err);
}

static void store_free(store *k) {
    sq_snapshots_free(k->s);
    sq_kv_tree_free(k->t);
    if (k->p) assert_int_equal(sq_kv_pool_bytes_used(k->p), 0);
    sq_kv_pool_free(k->p);
}

/* Compute ids[from..n) behind what is in the tree, and leave it there. */
static void compute(store *k, int32_t n) {
    sq_kv_seq *s;
    assert_int_equal(sq_kv_seq_new(&s, k->p, TOKENS, NULL), SQUISH_OK);
    const sq_kv_match m = sq_kv_tree_match(k->t, 0, ids, n);
    const int32_t from = sq_kv_tree_acquire(k->t, &m, s);
    assert_int_equal(sq_kv_seq_reserve(s, n, NULL), SQUISH_OK);
    for (int32_t i = from; i < n; i++)
        for (int32_t l = 0; l < 2; l++) fill_slot(sq_kv_seq_pages(s, l)[i / 32], l, i);
    sq_kv_tree_insert(k->t, 0, s, ids, n);
    sq_kv_seq_free(s);
}

static void check_near(store *k, int32_t n, int32_t lossy) {
    sq_kv_seq *s;
    distance key = {0}, value = {0};
    const sq_kv_match m = sq_kv_tree_match(k->t, 0, ids, n);
    assert_int_equal(m.tokens, n);
    assert_int_equal(sq_kv_tree_lossy(k->t, m.node), lossy);
    assert_int_equal(sq_kv_seq_new(&s, k->p, TOKENS, NULL), SQUISH_OK);
    sq_kv_tree_acquire(k->t, &m, s);
    for (int32_t i = 0; i < n; i++)
        for (int32_t l = 0; l < 2; l++) add_distance(sq_kv_seq_pages(s, l)[i / 32], l, i, &key, &value);
    assert_true(key.lost < 0.05 * key.all && value.lost < 0.05 * value.all);
    assert_true((key.lost > 1e-4 * key.all) == (lossy == SQ_KV_LOSSY_CODED));
    sq_kv_seq_free(s);
}

static int32_t files_in(const char *dir) {
    sq_arena names;
    char **all;
    size_t n;
    sq_arena_init(&names, &heap, 1 << 12, 1 << 20);
    assert_int_equal(sq_os_list_dir(dir, &names, &all, &n, NULL), SQUISH_OK);
    sq_arena_deinit(&names);
    return (int32_t)n;
}

/* Two groups of 32 tiles and eleven tiles more; of a prompt of 2,400 what lies before 2,176 comes back, the
 * cell before its own and its own are computed, and are lossy for what they stand behind. */
static void a_prefix_comes_back_near_but_for_its_end(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    compute(&k, 2400);
    check_near(&k, 2400, 0);
    sq_snapshots_keep(k.s, true, true);
    sq_snapshots_finish(k.s);
    const sq_snapshots_counts n = sq_snapshots_count(k.s);
    assert_int_equal(n.written, 3);
    assert_int_equal(n.coded_tokens, 2400);
    /* 16 channels have 2 and 4 bytes for 32; two ids and a byte of header more for every token. */
    assert_true(n.coded_bytes > 2400 * 12 && n.coded_bytes < 2400 * (4 * 6 + 8));
    store_free(&k);
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 511), 0); /* shorter than what is worth it */
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 2401), 2176);
    check_near(&k, 2176, SQ_KV_LOSSY_CODED);
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 2401), 0);
    assert_int_equal(sq_snapshots_count(k.s).hits, 3);
    compute(&k, 2400 + 64);
    const sq_kv_match m = sq_kv_tree_match(k.t, 0, ids, 2464);
    assert_int_equal(sq_kv_tree_lossy(k.t, m.node), SQ_KV_LOSSY_BEHIND);
    sq_snapshots_keep(k.s, true, true); /* the last group has tiles from codes: not coded again */
    sq_snapshots_finish(k.s);
    assert_int_equal(sq_snapshots_count(k.s).written, 0);
    store_free(&k);
    assert_int_equal(files_in(dir), 3);
    remove_tree(dir);
}

/* Rows of a tile from codes are not copied into a tile of its own kind, which would not know. */
static void a_part_of_a_tile_from_codes_is_computed(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    compute(&k, 1024);
    sq_snapshots_keep(k.s, true, true);
    assert_int_equal(sq_kv_tree_match(k.t, 0, ids, 100).tokens, 100);
    store_free(&k);
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 1024), 896);
    assert_int_equal(sq_kv_tree_match(k.t, 0, ids, 100).tokens, 96);
    store_free(&k);
    remove_tree(dir);
}

static void short_prefixes_are_not_written(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    compute(&k, 500);
    sq_snapshots_keep(k.s, true, true);
    store_free(&k);
    assert_int_equal(files_in(dir), 0);
    remove_tree(dir);
}

/* Who has no books, or others, reads nothing and says why. */
static void files_of_other_books_are_misses(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    for (int other = 0; other < 2; other++) {
        sq_codec changed = *books;
        changed.sum ^= 1;
        assert_ok(store_new(&k, &heap, dir, books, &err), &err);
        compute(&k, 1024);
        sq_snapshots_keep(k.s, true, true);
        store_free(&k);
        warned[0] = 0;
        assert_ok(store_new(&k, &heap, dir, other ? &changed : NULL, &err), &err);
        assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 1100), 0);
        assert_non_null(strstr(warned, "other codebooks"));
        store_free(&k);
    }
    remove_tree(dir);
}

/* ---- one file -------------------------------------------------------------------------------- */

/* A snapshot of three tiles, its image and its archive. */
typedef struct {
    sq_snapshot_view v;
    uint8_t *snapshot, *image, *archive;
    size_t image_bytes, archive_bytes;
} trio;

static trio make_trio(void) {
    trio t = {
        .v = {.identity = 1, .chain = 4, .n_tiles = 3, .shape = shape, .policy = policy, .forms = {1, 1, 1}}};
    const size_t n = (size_t)sq_snapshot_bytes(&t.v), page = sq_kv_geometry_of(&shape, SQ_KV_F16).page_bytes;
    t.snapshot = aligned_alloc(64, sq_align_up(n, 64));
    sq_snapshot_begin(t.snapshot, &t.v);
    for (int32_t i = 0; i < 96; i++)
        for (int32_t l = 0; l < 2; l++) {
            uint8_t *p = t.snapshot + sq_snapshot_tables(3) + (size_t)(i / 32 * 2 + l) * page;
            const sq_kv_page_header h = sq_kv_header_of(&shape, SQ_KV_F16, l, i / 32);
            memcpy(p, &h, sizeof h);
            fill_slot(p, l, i);
        }
    sq_snapshot_seal(t.snapshot, &t.v);
    t.image_bytes = sq_coded_bytes(books, 3);
    t.image = aligned_alloc(64, sq_align_up(t.image_bytes, 64));
    uint8_t *work = aligned_alloc(64, sq_align_up(sq_coded_scratch(books, 3), 64));
    sq_coded_make(books, &kernels, t.snapshot, &t.v, t.image, work);
    free(work);
    t.archive = malloc(sq_archive_bound(t.image_bytes));
    work = malloc(sq_archive_scratch());
    t.archive_bytes = sq_archive_make_coded(t.image, t.image_bytes, books->sum, t.archive, work);
    free(work);
    return t;
}

static void free_trio(trio *t) {
    free(t->snapshot);
    free(t->image);
    free(t->archive);
}

/* From an archive to a snapshot that every check lets pass. */
static bool opens(const uint8_t *p, size_t n, const sq_codec *c) {
    sq_snapshot_view v;
    size_t bytes;
    const sq_span file = {p, n};
    if (sq_archive_header(file, 1 << 20, &bytes, NULL) != SQUISH_OK) return false;
    if (sq_archive_books(file) != c->sum) return false;
    uint8_t *image = aligned_alloc(64, sq_align_up(bytes, 64)), *out = NULL, *work = NULL;
    bool ok = sq_archive_open(file, image, bytes, NULL) == SQUISH_OK &&
              sq_coded_header(c, (sq_span){image, bytes}, &policy, &v, NULL) == SQUISH_OK;
    if (ok) {
        out = aligned_alloc(64, sq_align_up((size_t)v.file_bytes, 64));
        work = aligned_alloc(64, sq_align_up(sq_coded_scratch(c, v.n_tiles), 64));
        sq_coded_open(c, &kernels, (sq_span){image, bytes}, &v, out, work);
        ok = sq_snapshot_parse((sq_span){out, (size_t)v.file_bytes}, &policy, &v, NULL) == SQUISH_OK;
        for (int32_t t = 0; ok && t < v.n_tiles; t++) ok = sq_snapshot_tile(&v, t, NULL) == SQUISH_OK;
    }
    free(work);
    free(out);
    free(image);
    return ok;
}

static void write_seed(const char *suffix, const uint8_t *p, size_t n) {
    const char *seed = getenv("SQ_CODED_SEED");
    char path[300];
    if (!seed) return;
    snprintf(path, sizeof path, "%s%s", seed, suffix);
    FILE *f = fopen(path, "wb");
    fwrite(p, 1, n, f);
    fclose(f);
}

static void every_flipped_bit_and_every_cut_is_found(void **state) {
    (void)state;
    trio t = make_trio();
    write_seed("", t.archive, t.archive_bytes);
    write_seed(".image", t.image, t.image_bytes);
    assert_true(opens(t.archive, t.archive_bytes, books));
    for (size_t i = 0; i < t.archive_bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            t.archive[i] ^= (uint8_t)(1 << bit);
            assert_false(opens(t.archive, t.archive_bytes, books));
            t.archive[i] ^= (uint8_t)(1 << bit);
        }
    for (size_t cut = 0; cut < t.archive_bytes; cut++) assert_false(opens(t.archive, cut, books));
    assert_true(opens(t.archive, t.archive_bytes, books));
    free_trio(&t);
}

/* Behind right sums: what an image says of itself is checked, and gains are numbers. */
static void a_wrong_image_is_refused(void **state) {
    (void)state;
    trio t = make_trio();
    sq_snapshot_view v;
    const sq_span whole = {t.image, t.image_bytes};
    const sq_kv_policy f32 = {.open = SQ_KV_F32};
    assert_int_equal(sq_coded_header(books, whole, &policy, &v, NULL), SQUISH_OK);
    assert_int_equal(v.file_bytes, sq_snapshot_bytes(&t.v));
    assert_int_equal(sq_coded_header(books, whole, &f32, &v, NULL), SQUISH_CORRUPT);
    for (size_t cut = 0; cut < t.image_bytes; cut++)
        assert_int_equal(sq_coded_header(books, (sq_span){t.image, cut}, &policy, &v, NULL), SQUISH_CORRUPT);
    const uint16_t inf = 0xfc00;
    uint16_t *gain = (uint16_t *)(void *)(t.image + sq_snapshot_tables(3));
    for (int32_t i = 0; i < 4 * 96; i += 19) {
        const uint16_t was = gain[i];
        gain[i] = inf;
        assert_int_equal(sq_coded_header(books, whole, &policy, &v, NULL), SQUISH_CORRUPT);
        gain[i] = was;
    }
    static const struct {
        size_t at;
        uint32_t value;
    } bad[] = {{52, 4}, {52, 2}, {56, 1}, {60, 2}, {64, 32}, {68, 1}, {88, 1}};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        uint8_t was[4];
        memcpy(was, t.image + bad[i].at, 4);
        memcpy(t.image + bad[i].at, &bad[i].value, 4);
        sq_snapshot_mend(t.image, t.image_bytes);
        assert_int_equal(sq_coded_header(books, whole, &policy, &v, NULL), SQUISH_CORRUPT);
        memcpy(t.image + bad[i].at, was, 4);
    }
    free_trio(&t);
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* No memory to open or decode: a miss. None to code: the file is whole, and exact. */
static void failing_allocations_leave_nothing_behind(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    struct sq_test_alloc_state t = {0};
    const squish_alloc a = sq_test_alloc(&t);
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_ok(store_new(&k, &a, dir, books, &err), &err);
    compute(&k, 1024);
    sq_snapshots_keep(k.s, true, true);
    store_free(&k);
    assert_int_equal(t.live_blocks, 0);
    for (int64_t n = 1; n <= 3; n++) { /* archive, pages; the third is nobody's */
        assert_ok(store_new(&k, &a, dir, books, &err), &err);
        t.fail_at = t.count + n;
        assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 1100), n <= 2 ? 0 : 896);
        t.fail_at = 0;
        store_free(&k);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
    }
    remove_tree(dir);
    assert_ok(store_new(&k, &a, dir, books, &err), &err);
    compute(&k, 1024);
    t.fail_at = t.count + 2; /* behind the image */
    sq_snapshots_keep(k.s, true, true);
    sq_snapshots_finish(k.s);
    t.fail_at = 0;
    assert_int_equal(sq_snapshots_count(k.s).written, 1);
    assert_int_equal(sq_snapshots_count(k.s).coded_tokens, 0);
    store_free(&k);
    assert_ok(store_new(&k, &a, dir, books, &err), &err);
    assert_int_equal(sq_snapshots_restore(k.s, 0, ids, 1100), 896);
    check_near(&k, 896, 0);
    store_free(&k);
    assert_int_equal(t.live_blocks, 0);
    remove_tree(dir);
}

/* A folder that went away: nothing is written, which is said and counted. */
static void a_folder_that_is_gone_is_said(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    store k;
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    assert_ok(store_new(&k, &heap, dir, books, &err), &err);
    compute(&k, 1024);
    remove_tree(dir);
    warned[0] = 0;
    sq_snapshots_keep(k.s, true, true);
    sq_snapshots_finish(k.s);
    assert_int_equal(sq_snapshots_count(k.s).written, 0);
    assert_int_equal(sq_snapshots_count(k.s).dropped, 1);
    assert_int_equal(sq_snapshots_count(k.s).coded_bytes, 0);
    assert_non_null(strstr(warned, dir));
    store_free(&k);
}

static int setup(void **state) {
    (void)state;
    squish_error err = {0};
    heap = sq_alloc_default();
    sq_kernels_select(&kernels, sq_cpu_features(), SQ_ISA_COUNT);
    assert_ok(books_train(&books, &shape, NULL, &heap, &err), &err);
    noise = noise_vectors(books->n_parts, BOOK_N, 5);
    sq_buf b = books_file(books, &heap); /* sets the sum */
    sq_buf_deinit(&b);
    for (int32_t i = 0; i < TOKENS; i++) ids[i] = i * 7 % 1000;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(noise);
    sq_codec_free(books);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_turned_back_and_forth),
        cmocka_unit_test(a_prefix_comes_back_near_but_for_its_end),
        cmocka_unit_test(a_part_of_a_tile_from_codes_is_computed),
        cmocka_unit_test(short_prefixes_are_not_written),
        cmocka_unit_test(files_of_other_books_are_misses),
        cmocka_unit_test(every_flipped_bit_and_every_cut_is_found),
        cmocka_unit_test(a_wrong_image_is_refused),
        cmocka_unit_test(failing_allocations_leave_nothing_behind),
        cmocka_unit_test(a_folder_that_is_gone_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
