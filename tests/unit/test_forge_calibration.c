/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_calibration.c - what is recorded equals a second, naive computation in double; what is written
 * is read again; what is damaged is refused by name; no fault leaves half a file.
 *
 * The oracle runs every token as a sequence of its own: attention over one position is that position's value,
 * so all four inputs of every layer follow from a few sums that share nothing with the engine. This program
 * has its own pwrite, fsync and rename, which the library links against. */
#include "forge/forge_calibration.h"
#include "sched/sched.h"
#include "support/faults.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { N_IDS = 40, BLOCK = 64, WIDE = 160 };

static int writes, fail_write; /* fail_write: the n-th change to the disk is refused; 0: none */
static bool renamed;           /* a file got its name */

static bool refused(void) {
    if (++writes != fail_write) return false;
    errno = ENOSPC;
    return true;
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    return refused() ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);
}
int fsync(int fd) { return refused() ? -1 : (int)syscall(SYS_fsync, fd); }
int rename(const char *a, const char *b) {
    if (refused()) return -1;
    renamed = true;
    return (int)syscall(SYS_renameat, -100, a, -100, b); /* AT_FDCWD */
}

/* ---- a model and a recording of it ----------------------------------------------------------- */

typedef struct {
    char dir[64], file[96];
    sq_config cfg;
} place;

static void make_ids(int32_t *ids, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)((uint32_t)(i + 5) * 2654435761u >> 9) % n_vocab;
}

/* Every `window` tokens are a sequence; pool and engine have the threads that are asked for. */
static void record(const place *p, const char *file, int32_t block, int32_t window, int32_t chunk,
                   int32_t threads) {
    squish_engine_options o = squish_engine_options_default();
    squish_error err = {0};
    int32_t ids[N_IDS];
    sq_pool *pool = NULL;
    sq_calibrator *k = NULL;
    o.kv = SQUISH_KV_F32;
    o.threads = threads;
    o.chunk_tokens = chunk;
    run x = run_open(p->dir, SQUISH_TIER_SOURCE, &o);
    make_ids(ids, N_IDS, x.m->cfg.n_vocab);
    if (threads > 1) assert_ok(sq_pool_new(&pool, &x.m->alloc, threads, &err), &err);
    assert_ok(sq_calibrator_new(&k, &x.m->cfg, block, pool, &x.m->alloc, &err), &err);
    sq_forward_set_tap(x.e->f, sq_calibrator_take, k);
    for (int32_t at = 0; at < N_IDS; at += window) {
        squish_seq_truncate(x.s, 0);
        assert_ok(squish_seq_sync(x.s, ids + at, (size_t)window, &err), &err);
    }
    sq_forward_set_tap(x.e->f, NULL, NULL);
    squish_seq_truncate(x.s, 0);
    assert_ok(squish_seq_sync(x.s, ids, 1, &err), &err); /* nobody listens any more */
    assert_ok(sq_calibrator_write(k, file, N_IDS, window, 77, &err), &err);
    sq_calibrator_free(k);
    sq_pool_free(pool);
    run_close(&x);
}

static int set_up(void **state) {
    place *p = calloc(1, sizeof *p);
    const tiny_spec s = tiny_default();
    snprintf(p->dir, sizeof p->dir, "/tmp/squish-calib-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    tiny_write(&s, p->dir);
    run x = run_open(p->dir, SQUISH_TIER_SOURCE, NULL);
    p->cfg = x.m->cfg;
    run_close(&x);
    /* Outside the folder of the checkpoint, which may hold one safetensors file only. */
    snprintf(p->file, sizeof p->file, "%s.safetensors", p->dir);
    record(p, p->file, BLOCK, 1, 8, 1);
    *state = p;
    return 0;
}

static int tear_down(void **state) {
    place *p = *state;
    remove_tree(p->dir);
    remove(p->file);
    free(p);
    return 0;
}

static uint8_t *slurp(const char *path, size_t *n) {
    *n = (size_t)sq_os_file_bytes(path);
    FILE *f = fopen(path, "rb");
    uint8_t *p = malloc(*n + 1);
    assert_non_null(f);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void assert_same_files(const char *a, const char *b) {
    size_t na, nb;
    uint8_t *pa = slurp(a, &na), *pb = slurp(b, &nb);
    assert_int_equal(na, nb);
    assert_memory_equal(pa, pb, na);
    free(pa), free(pb);
}

/* ---- the oracle ------------------------------------------------------------------------------ */

typedef struct {
    double sum[SQ_TAP_COUNT][WIDE][WIDE], mean_abs[SQ_TAP_COUNT][WIDE];
} moments;

static const float *weight(const sq_safetensors *st, int32_t layer, const char *name) {
    char full[128];
    if (layer < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "model.layers.%d.%s.weight", layer, name);
    const sq_ftensor *t = sq_st_find(st, full);
    assert_non_null(t);
    return (const float *)(const void *)t->data;
}

static void apply(const float *w, const double *x, int32_t rows, int32_t cols, double *y) {
    for (int32_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (int32_t c = 0; c < cols; c++) y[r] += (double)w[r * cols + c] * x[c];
    }
}

static void normalise(const double *x, const float *w, int32_t n, double *y) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += x[i] * x[i];
    for (int32_t i = 0; i < n; i++) y[i] = x[i] / sqrt(sum / n + 1e-5) * (double)w[i];
}

static void note(moments *m, int32_t tap, const double *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        m->mean_abs[tap][i] += fabs(x[i]) / N_IDS;
        for (int32_t j = 0; j < n; j++) m->sum[tap][i][j] += x[i] * x[j];
    }
}

/* One token through all layers: every query head reads the value of its key head. */
static void run_token(const sq_safetensors *st, const sq_config *c, int32_t id, moments *m) {
    double x[WIDE], h[WIDE], v[WIDE], a[WIDE], g[WIDE], u[WIDE], y[WIDE];
    const int32_t wide = c->n_heads * c->head_dim, group = c->n_heads / c->n_kv_heads;
    for (int32_t i = 0; i < c->hidden; i++)
        x[i] = (double)weight(st, -1, "model.embed_tokens.weight")[id * c->hidden + i];
    for (int32_t l = 0; l < c->n_layers; l++, m++) {
        normalise(x, weight(st, l, "input_layernorm"), c->hidden, h);
        note(m, SQ_TAP_ATTN_IN, h, c->hidden);
        apply(weight(st, l, "self_attn.v_proj"), h, c->n_kv_heads * c->head_dim, c->hidden, v);
        for (int32_t i = 0; i < wide; i++)
            a[i] = v[i / c->head_dim / group * c->head_dim + i % c->head_dim];
        note(m, SQ_TAP_ATTN_OUT, a, wide);
        apply(weight(st, l, "self_attn.o_proj"), a, c->hidden, wide, y);
        for (int32_t i = 0; i < c->hidden; i++) x[i] += y[i];
        normalise(x, weight(st, l, "post_attention_layernorm"), c->hidden, h);
        note(m, SQ_TAP_FFN_IN, h, c->hidden);
        apply(weight(st, l, "mlp.gate_proj"), h, c->ffn, c->hidden, g);
        apply(weight(st, l, "mlp.up_proj"), h, c->ffn, c->hidden, u);
        for (int32_t i = 0; i < c->ffn; i++) u[i] *= g[i] / (1 + exp(-g[i]));
        note(m, SQ_TAP_FFN_MID, u, c->ffn);
        apply(weight(st, l, "mlp.down_proj"), u, c->hidden, c->ffn, y);
        for (int32_t i = 0; i < c->hidden; i++) x[i] += y[i];
    }
}

static moments *naive_moments(const place *p) {
    squish_error err = {0};
    sq_safetensors *st = NULL;
    int32_t ids[N_IDS];
    moments *m = calloc((size_t)p->cfg.n_layers, sizeof *m);
    assert_non_null(m);
    assert_ok(sq_st_open(&st, p->dir, NULL, NULL, NULL, &err), &err);
    make_ids(ids, N_IDS, p->cfg.n_vocab);
    for (int32_t i = 0; i < N_IDS; i++) run_token(st, &p->cfg, ids[i], m);
    sq_st_close(st);
    return m;
}

static double largest(const moments *m, int32_t tap, int32_t cols) {
    double top = 0;
    for (int32_t i = 0; i < cols; i++) top = fmax(top, m->sum[tap][i][i]);
    return top;
}

static void compare(const moments *m, int32_t tap, const sq_hessian *h, const float *mean_abs) {
    const double top = largest(m, tap, h->cols);
    const float *p = h->h;
    for (int32_t first = 0; first < h->cols; first += h->block) {
        const int32_t n = h->cols - first < h->block ? h->cols - first : h->block;
        for (int32_t i = 0; i < n; i++)
            for (int32_t j = 0; j < n; j++, p++)
                assert_true(fabs((double)*p - m->sum[tap][first + i][first + j]) < 1e-4 * top);
    }
    assert_int_equal(p - h->h, sq_hessian_floats(h->cols, h->block));
    for (int32_t i = 0; i < h->cols; i++)
        assert_true(fabs((double)mean_abs[i] - m->mean_abs[tap][i]) < 1e-4 * m->mean_abs[tap][i] + 1e-9);
}

/* ---- what is recorded ------------------------------------------------------------------------ */

static const struct {
    sq_role role;
    sq_tap tap;
} matrices[] = {{SQ_ROLE_Q, SQ_TAP_ATTN_IN},  {SQ_ROLE_K, SQ_TAP_ATTN_IN},   {SQ_ROLE_V, SQ_TAP_ATTN_IN},
                {SQ_ROLE_O, SQ_TAP_ATTN_OUT}, {SQ_ROLE_GATE, SQ_TAP_FFN_IN}, {SQ_ROLE_UP, SQ_TAP_FFN_IN},
                {SQ_ROLE_DOWN, SQ_TAP_FFN_MID}};

static void recorded_sums_equal_a_naive_model_in_double(void **state) {
    const place *p = *state;
    moments *m = naive_moments(p);
    sq_calibration *k = NULL;
    squish_error err = {0};
    assert_ok(sq_calibration_open(&k, p->file, &p->cfg, NULL, &err), &err);
    assert_int_equal(sq_calibration_block(k), BLOCK);
    for (int32_t l = 0; l < p->cfg.n_layers; l++)
        for (size_t i = 0; i < SQ_COUNT(matrices); i++) {
            sq_hessian h;
            const float *mean_abs;
            assert_true(sq_calibration_input(k, l, matrices[i].role, &h, &mean_abs));
            assert_int_equal(h.cols, sq_tap_cols(&p->cfg, matrices[i].tap));
            assert_int_equal(h.block, BLOCK);
            compare(&m[l], matrices[i].tap, &h, mean_abs);
        }
    sq_calibration_close(k);
    free(m);
}

static void roles_that_are_no_matrix_of_a_layer_have_no_input(void **state) {
    const place *p = *state;
    static const sq_role none[] = {SQ_ROLE_EMBED, SQ_ROLE_HEAD, SQ_ROLE_ATTN_NORM, SQ_ROLE_Q_BIAS};
    sq_calibration *k = NULL;
    squish_error err = {0};
    sq_hessian h;
    const float *mean_abs;
    assert_ok(sq_calibration_open(&k, p->file, &p->cfg, NULL, &err), &err);
    for (size_t i = 0; i < SQ_COUNT(none); i++) {
        assert_int_equal(sq_tap_of(none[i]), SQ_TAP_COUNT);
        assert_false(sq_calibration_input(k, 0, none[i], &h, &mean_abs));
    }
    assert_false(sq_calibration_input(k, p->cfg.n_layers, SQ_ROLE_Q, &h, &mean_abs));
    assert_false(sq_calibration_input(k, -1, SQ_ROLE_Q, &h, &mean_abs));
    sq_calibration_close(k);
}

static void the_file_is_the_same_for_any_chunk_and_any_number_of_threads(void **state) {
    const place *p = *state;
    char a[128], b[128];
    static const int32_t chunks[] = {1, 7, 64}, threads[] = {1, 2, 5};
    snprintf(a, sizeof a, "%s.a", p->file);
    snprintf(b, sizeof b, "%s.b", p->file);
    record(p, a, BLOCK, 20, 20, 1);
    for (size_t i = 0; i < SQ_COUNT(chunks); i++) {
        record(p, b, BLOCK, 20, chunks[i], threads[i]);
        assert_same_files(a, b);
    }
    remove(a), remove(b);
}

static void block_1_keeps_the_diagonal(void **state) {
    const place *p = *state;
    char file[128];
    sq_calibration *full = NULL, *diagonal = NULL;
    squish_error err = {0};
    snprintf(file, sizeof file, "%s.d", p->file);
    record(p, file, 1, 1, 8, 1);
    assert_ok(sq_calibration_open(&full, p->file, &p->cfg, NULL, &err), &err);
    assert_ok(sq_calibration_open(&diagonal, file, &p->cfg, NULL, &err), &err);
    assert_true(sq_calibration_sum(full) != sq_calibration_sum(diagonal));
    for (size_t i = 0; i < SQ_COUNT(matrices); i++) {
        sq_hessian a, b;
        const float *x, *y;
        float want[WIDE];
        assert_true(sq_calibration_input(full, 1, matrices[i].role, &a, &x));
        assert_true(sq_calibration_input(diagonal, 1, matrices[i].role, &b, &y));
        sq_hessian_diagonal(&a, want);
        assert_int_equal(b.block, 1);
        assert_memory_equal(want, b.h, (size_t)b.cols * sizeof *want);
        assert_memory_equal(x, y, (size_t)b.cols * sizeof *x);
    }
    sq_calibration_close(full);
    sq_calibration_close(diagonal);
    remove(file);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static squish_status parse_and_close(const uint8_t *p, size_t n, const sq_config *c, squish_error *err) {
    sq_calibration *k = NULL;
    *err = (squish_error){0};
    const squish_status st = sq_calibration_parse(&k, (sq_span){p, n}, "c.safetensors", c, NULL, err);
    assert_true((st == SQUISH_OK) == (k != NULL));
    sq_calibration_close(k);
    return st;
}

/* Where the data of a tensor begin in the file. */
static float *data_of(uint8_t *p, size_t n, const char *name) {
    sq_arena ar;
    sq_ftensor *t;
    size_t count;
    float *found = NULL;
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_st_parse((sq_span){p, n}, "c", &ar, &t, &count, NULL), SQUISH_OK);
    for (size_t i = 0; i < count; i++)
        if (strcmp(t[i].name, name) == 0) found = (float *)(void *)(p + (t[i].data - p));
    sq_arena_deinit(&ar);
    assert_non_null(found);
    return found;
}

static void numbers_that_cannot_be_are_refused_by_the_name_of_their_tensor(void **state) {
    const place *p = *state;
    const struct {
        const char *tensor;
        int at;
        float value;
        const char *says;
    } cases[] = {{"1.ffn_mid.hessian", 3, NAN, "'1.ffn_mid.hessian': columns 0 and 3"},
                 {"2.attn_in.hessian", 70, INFINITY, "'2.attn_in.hessian': columns 1 and 6"},
                 {"0.attn_out.hessian", 65, -1, "'0.attn_out.hessian': the diagonal is -1 at column 1"},
                 {"0.ffn_in.mean_abs", 9, -0.5f, "'0.ffn_in.mean_abs': element 9 is -0.5"},
                 {"2.ffn_mid.mean_abs", 0, NAN, "'2.ffn_mid.mean_abs': element 0 is"}};
    squish_error err;
    size_t n;
    uint8_t *bytes = slurp(p->file, &n);
    assert_int_equal(parse_and_close(bytes, n, &p->cfg, &err), SQUISH_OK);
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        float *f = data_of(bytes, n, cases[i].tensor) + cases[i].at;
        const float before = *f;
        *f = cases[i].value;
        assert_int_equal(parse_and_close(bytes, n, &p->cfg, &err), SQUISH_CORRUPT);
        if (!strstr(err.text, cases[i].says)) fail_msg("%s", err.text);
        *f = before;
    }
    free(bytes);
}

/* The header with one piece of text replaced by another of the same length. */
static void a_header_that_says_something_else_is_refused(void **state) {
    const place *p = *state;
    static const struct {
        const char *was, *is;
        squish_status st;
        const char *says;
    } cases[] = {
        {"\"squish_calibration\":\"1\"", "\"squish_calibration\":\"2\"", SQUISH_UNSUPPORTED, "version '2'"},
        {"\"squish_calibration\"", "\"squish_calibratiom\"", SQUISH_CORRUPT, "not a calibration"},
        {"\"architecture\":\"llama\"", "\"architecture\":\"qwen2\"", SQUISH_INVALID, "architecture 'qwen2'"},
        {"\"layers\":\"3\"", "\"layers\":\"2\"", SQUISH_INVALID, "2 layers, this model has 3"},
        {"\"layers\":\"3\"", "\"layers\":\"x\"", SQUISH_CORRUPT, "'layers' is 'x'"},
        {"\"tokens\":\"40\"", "\"tokens\":\"-1\"", SQUISH_CORRUPT, "'tokens' is '-1'"},
        {"\"block\":\"64\"", "\"block\":\"65\"", SQUISH_CORRUPT, "'block' is 65"},
        {"\"block\":\"64\"", "\"blocc\":\"64\"", SQUISH_CORRUPT, "no 'block'"},
        {"\"2.ffn_in.hessian\"", "\"3.ffn_in.hessian\"", SQUISH_CORRUPT, "'3.ffn_in.hessian' is no part"},
        {"\"2.ffn_in.hessian\"", "\"2.ffn_on.hessian\"", SQUISH_CORRUPT, "'2.ffn_on.hessian' is no part"},
        {"\"2.ffn_in.hessian\"", "\"02ffn_in.hessian\"", SQUISH_CORRUPT, "'02ffn_in.hessian' is no part"},
        {"\"0.attn_in.mean_abs\":{\"dtype\":\"F32\"", "\"0.attn_in.mean_abs\":{\"dtype\":\"I32\"",
         SQUISH_CORRUPT, "'0.attn_in.mean_abs' is I32"},
    };
    squish_error err;
    size_t n;
    uint8_t *bytes = slurp(p->file, &n);
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        const size_t len = strlen(cases[i].was);
        assert_int_equal(len, strlen(cases[i].is));
        uint8_t *at = memmem(bytes, n, cases[i].was, len);
        if (!at) fail_msg("no %s", cases[i].was);
        memcpy(at, cases[i].is, len);
        assert_int_equal(parse_and_close(bytes, n, &p->cfg, &err), cases[i].st);
        if (!strstr(err.text, cases[i].says)) fail_msg("%s", err.text);
        memcpy(at, cases[i].was, len);
    }
    free(bytes);
}

static void a_file_cut_off_anywhere_is_refused(void **state) {
    const place *p = *state;
    squish_error err;
    size_t n;
    uint8_t *bytes = slurp(p->file, &n);
    for (size_t cut = 0; cut < n; cut = cut < 64 ? cut + 1 : cut * 2) {
        uint8_t *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        assert_int_equal(parse_and_close(part, cut, &p->cfg, &err), SQUISH_CORRUPT);
        free(part);
    }
    assert_int_equal(parse_and_close(bytes, n - 4, &p->cfg, &err), SQUISH_CORRUPT);
    free(bytes);
}

static void a_model_of_another_size_is_told_which_tensor_does_not_fit(void **state) {
    const place *p = *state;
    sq_config c = p->cfg;
    squish_error err;
    size_t n;
    uint8_t *bytes = slurp(p->file, &n);
    c.ffn = 192;
    assert_int_equal(parse_and_close(bytes, n, &c, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "'0.ffn_mid.mean_abs' holds 160 numbers, this model wants 192"));
    free(bytes);
}

static void a_recording_checks_its_arguments_and_its_sums(void **state) {
    const place *p = *state;
    squish_error err = {0};
    sq_calibrator *k = NULL;
    char file[128];
    float row[WIDE] = {0};
    snprintf(file, sizeof file, "%s.n", p->file);
    assert_int_equal(sq_calibrator_new(&k, &p->cfg, 100, NULL, NULL, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "block is 100 columns"));
    assert_int_equal(sq_calibrator_new(&k, &p->cfg, 8192, NULL, NULL, NULL), SQUISH_INVALID);
    assert_ok(sq_calibrator_new(&k, &p->cfg, BLOCK, NULL, NULL, &err), &err);
    assert_int_equal(sq_calibrator_write(k, file, 1, 1, 0, NULL), SQUISH_INVALID); /* nothing was taken */
    sq_calibrator_take(k, 0, SQ_TAP_ATTN_IN, row, WIDE, 1);
    row[7] = 3e38f; /* its square is no f32 */
    sq_calibrator_take(k, 1, SQ_TAP_FFN_MID, row, WIDE, 1);
    err = (squish_error){0};
    assert_int_equal(sq_calibrator_write(k, file, 1, 1, 0, &err), SQUISH_NUMERIC);
    assert_non_null(strstr(err.text, "layer 1, ffn_mid"));
    assert_false(sq_os_exists(file));
    sq_calibrator_free(k);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void no_allocation_failure_leaks_or_leaves_a_file(void **state) {
    const place *p = *state;
    char file[128];
    const float row[WIDE] = {1, 2, 3};
    snprintf(file, sizeof file, "%s.f", p->file);
    for (int64_t i = 1;; i++) {
        struct sq_test_alloc_state s = {.fail_at = i};
        const squish_alloc a = sq_test_alloc(&s);
        squish_error err = {0};
        sq_calibrator *r = NULL;
        sq_calibration *k = NULL;
        squish_status st = sq_calibrator_new(&r, &p->cfg, BLOCK, NULL, &a, &err);
        if (st == SQUISH_OK) {
            sq_calibrator_take(r, 0, SQ_TAP_ATTN_IN, row, WIDE, 1);
            st = sq_calibrator_write(r, file, 1, 1, 0, &err);
            assert_int_equal(sq_os_exists(file), st == SQUISH_OK);
        }
        if (st == SQUISH_OK) st = sq_calibration_open(&k, file, &p->cfg, &a, &err);
        sq_calibration_close(k);
        sq_calibrator_free(r);
        remove(file);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_int_equal(err.code, SQUISH_NO_MEMORY);
    }
}

/* How many files lie in a folder. */
static size_t count_files(const char *dir) {
    sq_arena ar;
    char **names;
    size_t n = 0;
    sq_arena_init(&ar, NULL, 4096, 0);
    assert_int_equal(sq_os_list_dir(dir, &ar, &names, &n, NULL), SQUISH_OK);
    sq_arena_deinit(&ar);
    return n;
}

static void a_write_that_fails_leaves_the_old_file_and_nothing_else(void **state) {
    const place *p = *state;
    char dir[96], file[128];
    squish_error err = {0};
    sq_calibrator *r = NULL;
    const float row[WIDE] = {1, 2, 3};
    int refusals = 0;
    snprintf(dir, sizeof dir, "%s/written", p->dir);
    snprintf(file, sizeof file, "%s/c", dir);
    assert_ok(sq_os_mkdirs(dir, &err), &err);
    record(p, file, BLOCK, 1, 8, 1);
    assert_ok(sq_calibrator_new(&r, &p->cfg, BLOCK, NULL, NULL, &err), &err);
    sq_calibrator_take(r, 0, SQ_TAP_ATTN_IN, row, WIDE, 1);
    renamed = false;
    for (int n = 1; !renamed; n++) {
        writes = 0, renamed = false, fail_write = n;
        err = (squish_error){0};
        const squish_status st = sq_calibrator_write(r, file, 1, 1, 0, &err);
        fail_write = 0;
        if (renamed) break; /* what fails now comes after the file has its name */
        refusals++;
        assert_true(st == SQUISH_NO_SPACE || st == SQUISH_IO);
        assert_int_equal(err.code, st);
        assert_same_files(file, p->file);
        assert_int_equal(count_files(dir), 1);
    }
    assert_true(refusals > 4);
    sq_calibrator_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_sums_equal_a_naive_model_in_double),
        cmocka_unit_test(roles_that_are_no_matrix_of_a_layer_have_no_input),
        cmocka_unit_test(the_file_is_the_same_for_any_chunk_and_any_number_of_threads),
        cmocka_unit_test(block_1_keeps_the_diagonal),
        cmocka_unit_test(numbers_that_cannot_be_are_refused_by_the_name_of_their_tensor),
        cmocka_unit_test(a_header_that_says_something_else_is_refused),
        cmocka_unit_test(a_file_cut_off_anywhere_is_refused),
        cmocka_unit_test(a_model_of_another_size_is_told_which_tensor_does_not_fit),
        cmocka_unit_test(a_recording_checks_its_arguments_and_its_sums),
        cmocka_unit_test(no_allocation_failure_leaks_or_leaves_a_file),
        cmocka_unit_test(a_write_that_fails_leaves_the_old_file_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
