/* SPDX-License-Identifier: Apache-2.0
 *
 * test_be_lowrank.c - matrices with low-rank terms on the CPU backend, against sums in double. */
#include "backend/be_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 83, COLS = 130, M = 5, RANK0 = 3, RANK1 = 70 };

static float noise(uint32_t *s) {
    *s = *s * 1664525u + 1013904223u;
    return (float)(int32_t)*s / 2147483648.0f;
}

typedef struct {
    float w[ROWS * COLS], v0[RANK0 * COLS], u0[ROWS * RANK0], v1[RANK1 * COLS], u1[ROWS * RANK1];
    float bias[ROWS];
    sq_lowrank low0, low1;
    sq_weight plain, one, two;
} matrices;

static sq_weight f32(int32_t rows, int32_t cols, const float *p) {
    return sq_weight_make(SQ_W_F32, SQ_SCALE_F32, rows, cols, (const uint8_t *)p);
}

static matrices *make(void) {
    matrices *k = calloc(1, sizeof *k);
    uint32_t s = 7;
    float *const all[] = {k->w, k->v0, k->u0, k->v1, k->u1, k->bias};
    const size_t n[] = {SQ_COUNT(k->w),  SQ_COUNT(k->v0), SQ_COUNT(k->u0),
                        SQ_COUNT(k->v1), SQ_COUNT(k->u1), ROWS};
    for (size_t i = 0; i < SQ_COUNT(all); i++)
        for (size_t j = 0; j < n[i]; j++) all[i][j] = noise(&s);
    k->low1 = (sq_lowrank){f32(RANK1, COLS, k->v1), f32(ROWS, RANK1, k->u1), 0.25f, NULL};
    k->low0 = (sq_lowrank){f32(RANK0, COLS, k->v0), f32(ROWS, RANK0, k->u0), -2.0f, &k->low1};
    k->plain = k->one = k->two = f32(ROWS, COLS, k->w);
    k->one.low = &k->low1;
    k->two.low = &k->low0;
    return k;
}

static sq_backend *backend(int32_t threads, sq_isa isa) {
    const sq_backend_options o = {.threads = threads,
                                  .isa_max = isa,
                                  .m_max = M,
                                  .heads_max = 1,
                                  .head_dim_max = 16,
                                  .ctx_max = 32,
                                  .rank_max = 64 * 6};
    const squish_alloc a = sq_alloc_default();
    sq_backend *b = NULL;
    assert_int_equal(sq_backend_cpu_new(&b, &o, &a, NULL), SQUISH_OK);
    return b;
}

static sq_rows rows(int32_t cols) {
    sq_rows r;
    void *memory = aligned_alloc(64, sq_align_up(sq_rows_bytes(M, cols, true), 64));
    memset(memory, 0, sq_rows_bytes(M, cols, true));
    sq_rows_carve(&r, M, cols, true, memory);
    return r;
}

static void fill(sq_rows *x) {
    uint32_t s = 99;
    x->m = M;
    for (int32_t i = 0; i < M; i++)
        for (int32_t c = 0; c < COLS; c++) x->f[(size_t)i * sq_rows_ld(x) + (size_t)c] = noise(&s);
}

/* W x + sum scale U (V x) + bias for one output. */
static double oracle(const matrices *k, const sq_weight *w, const float *x, int32_t r) {
    double y = (double)k->bias[r];
    for (int32_t c = 0; c < COLS; c++) y += (double)k->w[r * COLS + c] * (double)x[c];
    for (const sq_lowrank *l = w->low; l; l = l->next)
        for (int32_t j = 0; j < l->v.rows; j++) {
            const float *v = (const float *)(const void *)l->v.data,
                        *u = (const float *)(const void *)l->u.data;
            double t = 0;
            for (int32_t c = 0; c < COLS; c++) t += (double)v[j * COLS + c] * (double)x[c];
            y += (double)l->scale * (double)u[r * l->v.rows + j] * t;
        }
    return y;
}

static void run_linear(sq_backend *b, const matrices *k, const sq_rows *x, sq_rows y[3], bool accumulate) {
    const sq_linear l[] = {{&k->two, k->bias, &y[0], accumulate},
                           {&k->plain, k->bias, &y[1], accumulate},
                           {&k->one, k->bias, &y[2], accumulate}};
    sq_be_linear(b, x, l, 3);
}

static void terms_are_added_in_every_matrix_of_a_call(void **state) {
    (void)state;
    matrices *k = make();
    sq_backend *b = backend(2, SQ_ISA_COUNT);
    sq_rows x = rows(COLS), y[3] = {rows(ROWS), rows(ROWS), rows(ROWS)};
    const sq_weight *w[] = {&k->two, &k->plain, &k->one};
    fill(&x);
    for (int pass = 0; pass < 2; pass++) { /* the second adds to what the first left */
        run_linear(b, k, &x, y, pass == 1);
        for (int i = 0; i < 3; i++)
            for (int32_t m = 0; m < M; m++)
                for (int32_t r = 0; r < ROWS; r++) {
                    const double want = (pass + 1) * oracle(k, w[i], x.f + (size_t)m * sq_rows_ld(&x), r);
                    const float got = y[i].f[(size_t)m * sq_rows_ld(&y[i]) + (size_t)r];
                    assert_true(fabs((double)got - want) <= 1e-4 * (1 + fabs(want)));
                }
    }
    for (int i = 0; i < 3; i++) free(y[i].f);
    free(x.f);
    sq_backend_free(b);
    free(k);
}

static void rows_threads_and_isas_do_not_show(void **state) {
    (void)state;
    matrices *k = make();
    sq_rows x = rows(COLS), want[3] = {rows(ROWS), rows(ROWS), rows(ROWS)},
            got[3] = {rows(ROWS), rows(ROWS), rows(ROWS)};
    fill(&x);
    sq_backend *b = backend(1, SQ_ISA_SCALAR);
    run_linear(b, k, &x, want, false);
    sq_backend_free(b);
    b = backend(3, SQ_ISA_COUNT);
    for (int32_t m = 0; m < M; m++) { /* one row at a time */
        sq_rows one = x;
        one.m = 1;
        one.f = x.f + (size_t)m * sq_rows_ld(&x);
        run_linear(b, k, &one, got, false);
        for (int i = 0; i < 3; i++)
            assert_memory_equal(got[i].f, want[i].f + (size_t)m * sq_rows_ld(&want[i]), ROWS * sizeof(float));
    }
    sq_backend_free(b);
    for (int i = 0; i < 3; i++) free(want[i].f), free(got[i].f);
    free(x.f);
    free(k);
}

static void a_gate_has_the_terms_of_both_halves(void **state) {
    (void)state;
    matrices *k = make();
    sq_backend *b = backend(2, SQ_ISA_COUNT);
    sq_rows x = rows(COLS), h = rows(ROWS);
    fill(&x);
    sq_be_gated(b, &x, &k->one, k->bias, &k->two, k->bias, SQ_ACT_RELU2, false, &h);
    for (int32_t m = 0; m < M; m++)
        for (int32_t r = 0; r < ROWS; r++) {
            const float *row = x.f + (size_t)m * sq_rows_ld(&x);
            const double g = fmax(oracle(k, &k->one, row, r), 0), want = g * g * oracle(k, &k->two, row, r);
            const float got = h.f[(size_t)m * sq_rows_ld(&h) + (size_t)r];
            assert_true(fabs((double)got - want) <= 1e-3 * (1 + fabs(want)));
        }
    free(h.f);
    free(x.f);
    sq_backend_free(b);
    free(k);
}

static void rows_of_a_table_have_their_terms(void **state) {
    (void)state;
    matrices *k = make();
    sq_backend *b = backend(1, SQ_ISA_COUNT);
    sq_rows x = rows(COLS);
    const int32_t ids[] = {82, 0};
    sq_be_embed(b, &k->two, ids, 2, 1.0f, &x);
    float want[COLS];
    for (int i = 0; i < 2; i++) {
        sq_weight_row_whole(&k->two, ids[i], want);
        assert_memory_equal(x.f + (size_t)i * sq_rows_ld(&x), want, sizeof want);
    }
    sq_weight_row(&k->two, 0, want);
    assert_memory_not_equal(x.f + sq_rows_ld(&x), want, sizeof want);
    free(x.f);
    sq_backend_free(b);
    free(k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terms_are_added_in_every_matrix_of_a_call),
        cmocka_unit_test(rows_threads_and_isas_do_not_show),
        cmocka_unit_test(a_gate_has_the_terms_of_both_halves),
        cmocka_unit_test(rows_of_a_table_have_their_terms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
