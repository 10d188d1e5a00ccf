/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_look.c - least squares against elimination in long double, fitted maps against a second fit made
 * from the same rows, the file there and back, and what is damaged or of another model refused by name.
 *
 * This program has its own pwrite, fsync and rename, which the library links against. */
#include "forge/forge_look.h"
#include "sched/sched.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { N_IDS = 420, WINDOW = 60, HIDDEN = 64, EXPERTS = 8, WIDE = 2 * HIDDEN + 1 };

static const char model_dir[] = "tests/fixtures/architectures/qwen3-moe";

static int writes, fail_write; /* fail_write: the n-th change to the disk is refused; 0: none */

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
    return refused() ? -1 : (int)syscall(SYS_renameat, -100, a, -100, b); /* AT_FDCWD */
}

/* ---- least squares ---------------------------------------------------------------------------- */

/* a [n][n] x = b, with the largest pivot of each column; a and b are destroyed. */
static void eliminate(long double *a, int32_t n, long double *b) {
    for (int32_t c = 0; c < n; c++) {
        int32_t p = c;
        for (int32_t r = c + 1; r < n; r++)
            if (fabsl(a[r * n + c]) > fabsl(a[p * n + c])) p = r;
        for (int32_t k = 0; k < n; k++) {
            const long double x = a[c * n + k];
            a[c * n + k] = a[p * n + k], a[p * n + k] = x;
        }
        const long double y = b[c];
        b[c] = b[p], b[p] = y;
        for (int32_t r = c + 1; r < n; r++) {
            const long double f = a[r * n + c] / a[c * n + c];
            for (int32_t k = c; k < n; k++) a[r * n + k] -= f * a[c * n + k];
            b[r] -= f * b[c];
        }
    }
    for (int32_t c = n - 1; c >= 0; c--) {
        for (int32_t k = c + 1; k < n; k++) b[c] -= a[c * n + k] * b[k];
        b[c] /= a[c * n + c];
    }
}

static double uniform(uint64_t *state) { return (double)(sq_splitmix64(state) >> 11) / (1ll << 52) - 1; }

static void ridge_solves_as_elimination_does(void **state) {
    (void)state;
    static const int32_t sizes[] = {2, 3, 17, 47, 48, 49, 97, 150};
    enum { K = 3, MOST = 150 };
    static double g[MOST * MOST], full[MOST * MOST], b[K * MOST], right[K * MOST];
    static long double a[MOST * MOST], y[MOST];
    uint64_t seed = 7;
    for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
        const int32_t n = sizes[i], rows = n + 5;
        double x[MOST], trace = 0;
        sq_pool *pool = NULL;
        squish_error err = {0};
        const squish_alloc alloc = sq_alloc_default();
        memset(full, 0, sizeof full);
        for (int32_t r = 0; r < rows; r++) {
            for (int32_t k = 0; k < n; k++) x[k] = uniform(&seed) * (1 + k % 5);
            for (int32_t k = 0; k < n; k++)
                for (int32_t j = 0; j < n; j++) full[k * n + j] += x[k] * x[j];
        }
        for (int32_t k = 0; k < K * n; k++) right[k] = uniform(&seed) * n;
        for (int32_t k = 0; k < n - 1; k++) trace += full[k * n + k];
        if (i % 2) assert_ok(sq_pool_new(&pool, &alloc, 2, &err), &err);
        memcpy(g, full, sizeof g);
        memcpy(b, right, sizeof b);
        /* What lies above the diagonal is not read. */
        for (int32_t k = 0; k < n; k++)
            for (int32_t j = k + 1; j < n; j++) g[k * n + j] = NAN;
        assert_true(sq_ridge_solve(pool, g, n, 1, 0.01, b, K));
        for (int32_t s = 0; s < K; s++) {
            double most = 0;
            for (int32_t k = 0; k < n * n; k++) a[k] = full[k];
            for (int32_t k = 0; k < n - 1; k++) a[k * n + k] += 0.01L * trace / (n - 1);
            for (int32_t k = 0; k < n; k++) y[k] = right[s * n + k];
            eliminate(a, n, y);
            for (int32_t k = 0; k < n; k++) most = fmax(most, fabs((double)y[k]));
            for (int32_t k = 0; k < n; k++) assert_true(fabs(b[s * n + k] - (double)y[k]) <= 1e-9 * most);
        }
        sq_pool_free(pool);
    }
}

static void what_is_not_positive_definite_is_refused(void **state) {
    (void)state;
    double g[] = {1, 0, 0, 2, 1, 0, 0, 0, 1}, b[3] = {1, 1, 1}; /* [[1 2 .] [2 1 .] ...] */
    assert_false(sq_ridge_solve(NULL, g, 3, 1, 0, b, 1));
    double nan[] = {NAN}, one[] = {1};
    assert_false(sq_ridge_solve(NULL, nan, 1, 0, 0, one, 1));
}

/* ---- fitting ---------------------------------------------------------------------------------- */

static void make_ids(int32_t *ids, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)((uint32_t)(i + 5) * 2654435761u >> 9) % n_vocab;
}

/* All rows of a run as they came by: [N_IDS][HIDDEN] of each layer. */
typedef struct {
    float a[3][N_IDS][HIDDEN], h[3][N_IDS][HIDDEN];
    int32_t at[2][3];
    sq_look_sums *sums;
} recorder;

static void record(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m) {
    recorder *k = user;
    if (k->sums) sq_look_sums_take(k->sums, layer, tap, x, ld, m);
    if (tap != SQ_TAP_ATTN_IN && tap != SQ_TAP_FFN_IN) return;
    for (int32_t i = 0; i < m; i++)
        memcpy(tap == SQ_TAP_ATTN_IN ? k->a[layer][k->at[0][layer]++] : k->h[layer][k->at[1][layer]++],
               x + (size_t)i * ld, HIDDEN * sizeof *x);
}

/* Windows of the ids through the model, in steps of `chunk`; the fit of all layers from two halves of them.
 */
static sq_look_fit *fit(int32_t chunk, int32_t threads, recorder *k, run *x) {
    squish_engine_options o = squish_engine_options_default();
    squish_error err = {0};
    int32_t ids[N_IDS];
    sq_look_fit *f;
    sq_pool *pool = NULL;
    o.threads = threads;
    o.ctx_tokens = WINDOW;
    o.chunk_tokens = chunk;
    *x = run_open(model_dir, SQUISH_TIER_SOURCE, &o);
    make_ids(ids, N_IDS, x->m->cfg.n_vocab);
    if (threads > 1) assert_ok(sq_pool_new(&pool, &x->m->alloc, threads, &err), &err);
    assert_ok(sq_look_fit_new(&f, x->m, &x->m->alloc, &err), &err);
    for (int32_t from = 0; from < 3; from += 2) {
        const int32_t to = from + 2 < 3 ? from + 2 : 3;
        memset(k, 0, sizeof *k);
        assert_ok(sq_look_sums_new(&k->sums, x->m, from, to, chunk, pool, &x->m->alloc, &err), &err);
        sq_forward_set_tap(x->e->f, record, k);
        for (int32_t at = 0; at < N_IDS; at += WINDOW) {
            squish_seq_truncate(x->s, 0);
            sq_look_sums_window(k->sums);
            assert_ok(squish_seq_sync(x->s, ids + at, WINDOW, &err), &err);
        }
        sq_forward_set_tap(x->e->f, NULL, NULL);
        assert_ok(sq_look_sums_solve(k->sums, f, &err), &err);
        sq_look_sums_free(k->sums);
        k->sums = NULL;
    }
    sq_pool_free(pool);
    return f;
}

/* The same regression for one layer and moment, from the rows. */
static void naive_fit(const recorder *k, const sq_model *m, int32_t layer, int32_t moment,
                      long double w[EXPERTS][WIDE]) {
    static long double g[WIDE * WIDE], a[WIDE * WIDE], y[EXPERTS][WIDE];
    long double trace = 0;
    memset(g, 0, sizeof g);
    memset(y, 0, sizeof y);
    for (int32_t t = 0; t < N_IDS; t++) {
        if (t % WINDOW == 0) continue;
        long double z[WIDE];
        for (int32_t i = 0; i < HIDDEN; i++) {
            z[i] = moment == SQ_LOOK_LATE ? k->a[layer][t][i] : k->h[layer - 1][t][i];
            z[HIDDEN + i] = k->h[layer][t - 1][i];
        }
        z[WIDE - 1] = 1;
        for (int32_t i = 0; i < WIDE; i++)
            for (int32_t j = 0; j < WIDE; j++) g[i * WIDE + j] += z[i] * z[j];
        for (int32_t e = 0; e < EXPERTS; e++) {
            float row[HIDDEN];
            long double score = 0;
            sq_weight_row(&m->layers[layer].mat[SQ_ROLE_ROUTER], e, row);
            for (int32_t i = 0; i < HIDDEN; i++) score += (long double)row[i] * k->h[layer][t][i];
            for (int32_t i = 0; i < WIDE; i++) y[e][i] += z[i] * score;
        }
    }
    for (int32_t i = 0; i < WIDE - 1; i++) trace += g[i * WIDE + i];
    for (int32_t i = 0; i < WIDE - 1; i++) g[i * WIDE + i] += 1e-3L * trace / (WIDE - 1);
    for (int32_t e = 0; e < EXPERTS; e++) {
        memcpy(a, g, sizeof a);
        memcpy(w[e], y[e], sizeof w[e]);
        eliminate(a, WIDE, w[e]);
    }
}

static void fitted_maps_are_the_ridge_regression(void **state) {
    (void)state;
    static recorder k;
    static long double w[EXPERTS][WIDE];
    run x;
    sq_look_fit *f = fit(32, 1, &k, &x);
    int32_t maps = 0;
    for (int32_t t = 0; t < 3; t++) {
        for (int32_t i = 0; i < SQ_LOOK_MOMENTS; i++) {
            const sq_look_fit_map *m = &f->map[t][i];
            assert_true((m->now != NULL) == (x.m->layers[t].experts && (t > 0 || i == SQ_LOOK_LATE)));
            if (!m->now) continue;
            naive_fit(&k, x.m, t, i, w);
            double most = 0;
            for (int32_t e = 0; e < EXPERTS; e++)
                for (int32_t c = 0; c < WIDE - 1; c++) most = fmax(most, fabs((double)w[e][c]));
            for (int32_t e = 0; e < EXPERTS; e++) {
                for (int32_t c = 0; c < HIDDEN; c++) {
                    assert_true(fabs((double)m->now[e * HIDDEN + c] - (double)w[e][c]) < 2e-4 * most);
                    assert_true(fabs((double)m->prev[e * HIDDEN + c] - (double)w[e][HIDDEN + c]) <
                                2e-4 * most);
                }
                assert_true(fabs((double)m->bias[e] - (double)w[e][WIDE - 1]) < 1e-3 * (1 + most));
            }
            maps++;
        }
    }
    assert_int_equal(maps, 3); /* layer 1 is dense */
    sq_look_fit_free(f);
    run_close(&x);
}

static void steps_and_threads_do_not_show(void **state) {
    (void)state;
    static recorder k;
    run x, y;
    squish_error err = {0};
    sq_buf a, b;
    sq_look_fit *f = fit(WINDOW, 1, &k, &x), *g = fit(7, 2, &k, &y);
    sq_buf_init(&a, &x.m->alloc, 1 << 20);
    sq_buf_init(&b, &y.m->alloc, 1 << 20);
    assert_ok(sq_look_fit_file(f, &a, &err), &err);
    assert_ok(sq_look_fit_file(g, &b, &err), &err);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    sq_buf_deinit(&a);
    sq_buf_deinit(&b);
    sq_look_fit_free(f);
    sq_look_fit_free(g);
    run_close(&x);
    run_close(&y);
}

static void too_few_tokens_and_no_experts_are_refused(void **state) {
    (void)state;
    squish_error err = {0};
    sq_look_sums *sums;
    sq_look_fit *f;
    run x = run_open(model_dir, SQUISH_TIER_SOURCE, NULL);
    assert_ok(sq_look_fit_new(&f, x.m, &x.m->alloc, &err), &err);
    assert_ok(sq_look_sums_new(&sums, x.m, 0, 3, 8, NULL, &x.m->alloc, &err), &err);
    assert_int_equal(sq_look_sums_solve(sums, f, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "0 tokens, wanted at least"));
    sq_look_sums_free(sums);
    sq_look_fit_free(f);
    run_close(&x);
    err = (squish_error){0};
    x = run_open("tests/fixtures/architectures/qwen2", SQUISH_TIER_SOURCE, NULL);
    assert_int_equal(sq_look_fit_new(&f, x.m, &x.m->alloc, &err), SQUISH_UNSUPPORTED);
    assert_null(f);
    run_close(&x);
}

/* ---- the file --------------------------------------------------------------------------------- */

typedef struct {
    run x;
    sq_buf file;
} whole;

static int set_up(void **state) {
    static recorder k;
    static whole w;
    squish_error err = {0};
    sq_look_fit *f = fit(WINDOW, 1, &k, &w.x);
    sq_buf_init(&w.file, &w.x.m->alloc, 1 << 20);
    assert_ok(sq_look_fit_file(f, &w.file, &err), &err);
    sq_look_fit_free(f);
    *state = &w;
    return 0;
}

static int tear_down(void **state) {
    whole *w = *state;
    sq_buf_deinit(&w->file);
    run_close(&w->x);
    return 0;
}

static squish_status parse(const sq_model *m, const void *p, size_t n, squish_error *err) {
    sq_look_maps *k;
    *err = (squish_error){0};
    const squish_status st = sq_look_maps_parse(&k, (sq_span){p, n}, "x.lookahead", m, &m->alloc, err);
    assert_true((st == SQUISH_OK) == (k != NULL));
    sq_look_maps_free(k);
    return st;
}

static void the_file_of_this_model_is_taken(void **state) {
    const whole *w = *state;
    squish_error err;
    assert_ok(parse(w->x.m, w->file.data, w->file.len, &err), &err);
}

/* Whatever byte is another one, the file is refused with a line, or says the same (spaces, order). */
static void every_damage_is_refused(void **state) {
    const whole *w = *state;
    const size_t n = w->file.len,
                 head = 8 + (size_t)(uint8_t)w->file.data[0] + ((size_t)(uint8_t)w->file.data[1] << 8);
    uint8_t *p = malloc(n);
    squish_error err;
    int32_t taken = 0;
    assert_true(head < n);
    for (size_t i = 0; i < n; i += i < head ? 1 : 37) {
        memcpy(p, w->file.data, n);
        p[i] ^= 1 << i % 7;
        const squish_status st = parse(w->x.m, p, n, &err);
        if (st != SQUISH_OK)
            assert_non_null(strstr(err.text, "x.lookahead"));
        else
            taken++;
        assert_true(st != SQUISH_OK || i < head);
    }
    /* Names that are not read: the architecture, the number of tokens, keys of these. */
    assert_true(taken < 80);
    for (size_t i = 0; i < n; i += 1 + n / 60)
        assert_int_not_equal(parse(w->x.m, w->file.data, i, &err), SQUISH_OK);
    free(p);
}

static void a_file_of_another_model_is_refused(void **state) {
    const whole *w = *state;
    squish_error err;
    run y = run_open("tests/fixtures/architectures/qwen2-moe", SQUISH_TIER_SOURCE, NULL);
    assert_int_equal(parse(y.m, w->file.data, w->file.len, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "other routers"));
    assert_non_null(strstr(err.text, "squish calibrate MODEL --moe"));
    run_close(&y);
}

static void memory_that_fails_leaves_nothing(void **state) {
    const whole *w = *state;
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state s = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&s);
        squish_error err = {0};
        sq_look_maps *k;
        const sq_span file = {(const uint8_t *)w->file.data, w->file.len};
        const squish_status st = sq_look_maps_parse(&k, file, "x", w->x.m, &a, &err);
        sq_look_maps_free(k);
        assert_int_equal(s.live_blocks, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_true(n < 1000);
    }
}

static void a_disk_that_fails_leaves_no_file(void **state) {
    const whole *w = *state;
    char dir[] = "/tmp/squish-look-XXXXXX", path[64];
    squish_error err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/m.lookahead", dir);
    for (int n = 1;; n++) {
        writes = 0;
        fail_write = n;
        err = (squish_error){0};
        const squish_status st = sq_look_fit_publish(&w->file, path, &err);
        fail_write = 0;
        if (st == SQUISH_OK) break;
        assert_true(n < 20 && err.text[0]);
        if (sq_os_exists(path)) { /* only the folder was not synced: then it is whole */
            assert_int_equal(sq_os_file_bytes(path), w->file.len);
            unlink(path);
        }
    }
    sq_look_maps *k;
    err = (squish_error){0};
    assert_ok(sq_look_maps_open(&k, path, w->x.m, &w->x.m->alloc, &err), &err);
    sq_look_maps_free(k);
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ridge_solves_as_elimination_does),
        cmocka_unit_test(what_is_not_positive_definite_is_refused),
        cmocka_unit_test(fitted_maps_are_the_ridge_regression),
        cmocka_unit_test(steps_and_threads_do_not_show),
        cmocka_unit_test(too_few_tokens_and_no_experts_are_refused),
        cmocka_unit_test(the_file_of_this_model_is_taken),
        cmocka_unit_test(every_damage_is_refused),
        cmocka_unit_test(a_file_of_another_model_is_refused),
        cmocka_unit_test(memory_that_fails_leaves_nothing),
        cmocka_unit_test(a_disk_that_fails_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
