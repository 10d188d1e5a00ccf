/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_foreign.c - weights of others: gemm_foreign of every instruction set present has the bits of
 * the scalar one, and the scalar one agrees with decoded rows in double precision. */
#include "support/kernel_cases.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static sq_test_tables tables;
static uint64_t rng;

/* Where the f16 scales of a block are. */
static const struct {
    sq_wtype type;
    int32_t at[2];
} blocks[] = {{SQ_W_Q4_0, {0, -1}}, {SQ_W_Q4_1, {0, 2}},    {SQ_W_Q5_0, {0, -1}},   {SQ_W_Q5_1, {0, 2}},
              {SQ_W_Q8_0, {0, -1}}, {SQ_W_Q2_K, {80, 82}},  {SQ_W_Q3_K, {108, -1}}, {SQ_W_Q4_K, {0, 2}},
              {SQ_W_Q5_K, {0, 2}},  {SQ_W_Q6_K, {208, -1}}, {SQ_W_TQ1_0, {52, -1}}, {SQ_W_TQ2_0, {64, -1}}};

static void put_scale(uint8_t *p) {
    const uint16_t h = sq_f32_to_f16(0.02f * sq_test_float(&rng));
    memcpy(p, &h, sizeof h);
}

static void fill_random(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)sq_test_u32(&rng);
}

/* A matrix of GGUF blocks in exactly its own bytes. */
static sq_weight block_matrix(size_t i, int32_t rows, int32_t cols, sq_test_moat *moat) {
    const sq_wtype_info *t = sq_wtype_get(blocks[i].type);
    uint64_t bytes = 0;
    assert_true(sq_weight_bytes(blocks[i].type, rows, cols, &bytes));
    uint8_t *p = sq_test_moat_new(moat, (size_t)bytes, (size_t)sq_test_below(&rng, 2) * 2);
    fill_random(p, (size_t)bytes);
    for (uint64_t b = 0; b < bytes; b += (uint64_t)t->block_bytes)
        for (int j = 0; j < 2; j++)
            if (blocks[i].at[j] >= 0) put_scale(p + b + blocks[i].at[j]);
    return sq_weight_make(blocks[i].type, SQ_SCALE_F16, rows, cols, p);
}

typedef struct {
    sq_test_moat moat[6];
    sq_act x;
} acts;

static void make_acts(acts *a, int32_t m, int32_t cols) {
    const int32_t groups = (cols + 63) / 64;
    const size_t ld = (size_t)groups * 64, side = (size_t)m * (size_t)groups;
    float *f = sq_test_moat_new(&a->moat[0], (size_t)m * ld * 4, 0);
    int8_t *q = sq_test_moat_new(&a->moat[1], (size_t)m * ld, 0);
    float *scale = sq_test_moat_new(&a->moat[2], side * 4, 0),
          *xsum = sq_test_moat_new(&a->moat[3], side * 4, 0);
    int32_t *isum = sq_test_moat_new(&a->moat[4], side * 4, 0);
    int16_t *isum16 = sq_test_moat_new(&a->moat[5], side * 8, 0);
    for (int32_t i = 0; i < m; i++) {
        for (size_t c = 0; c < ld; c++)
            f[(size_t)i * ld + c] = (int32_t)c < cols ? sq_test_float(&rng) : 0.0f;
        const size_t at = (size_t)i * (size_t)groups;
        tables.scalar.quant_q8g64(f + (size_t)i * ld, 0, groups, q + (size_t)i * ld, scale + at, xsum + at,
                                  isum + at, isum16 + 4 * at);
    }
    a->x = (sq_act){m, cols, groups, f, q, scale, xsum, isum, isum16};
}

static void free_acts(acts *a) {
    for (size_t i = 0; i < SQ_COUNT(a->moat); i++) sq_test_moat_free(&a->moat[i]);
}

/* The scalar result against decoded weights times decoded activations. */
static void check_scalar(const sq_weight *w, const sq_act *x, const float *y, size_t ldy) {
    float row[1024];
    assert_true(w->cols <= 1024);
    for (int32_t r = 0; r < w->rows; r++) {
        sq_weight_row(w, r, row);
        for (int32_t i = 0; i < x->m; i++) {
            double sum = 0, size = 0;
            for (int32_t c = 0; c < w->cols; c++) {
                const double v = (double)row[c] * (double)x->scale[i * x->groups + c / 64] *
                                 (double)x->q[(size_t)i * (size_t)x->groups * 64 + (size_t)c];
                sum += v, size += fabs(v);
            }
            /* Bias and scale terms cancel within a run, so the sizes of both count. */
            const double error = fabs((double)y[(size_t)i * ldy + (size_t)r] - sum);
            if (error > 1e-4 * size + 1e-6)
                fail_msg("%s %dx%d row %d token %d: %g, wanted %g", sq_wtype_get((sq_wtype)w->wtype)->name,
                         w->rows, w->cols, r, i, (double)y[(size_t)i * ldy + (size_t)r], sum);
        }
    }
}

static void run_table(const sq_kernels *k, const sq_weight *w, const sq_act *x, float *y, size_t ldy) {
    for (size_t i = 0; i < (size_t)x->m * ldy; i++) y[i] = 77.0f;
    const int32_t tiles = sq_weight_tiles(w), half = tiles / 2;
    k->gemm_foreign(w, 0, half, x, y, ldy); /* in two calls, as threads do */
    k->gemm_foreign(w, half, tiles, x, y, ldy);
}

static void check_matrix(const sq_weight *w, int32_t m) {
    acts a;
    sq_test_moat my, mz;
    const size_t ldy = (size_t)w->rows + 3, bytes = (size_t)m * ldy * sizeof(float);
    float *want = sq_test_moat_new(&my, bytes, 0), *got = sq_test_moat_new(&mz, bytes, 0);
    make_acts(&a, m, w->cols);
    run_table(&tables.scalar, w, &a.x, want, ldy);
    check_scalar(w, &a.x, want, ldy);
    for (int32_t i = 0; i < tables.n; i++) {
        run_table(&tables.isa[i], w, &a.x, got, ldy);
        if (!sq_test_same(sq_wtype_get((sq_wtype)w->wtype)->name, tables.isa[i].isa, want, got,
                          (size_t)m * ldy))
            fail_msg("%d x %d by %d tokens", w->rows, w->cols, m);
    }
    free_acts(&a);
    sq_test_moat_free(&my);
    sq_test_moat_free(&mz);
}

static const int32_t row_counts[] = {1, 15, 16, 17, 33}, token_counts[] = {1, 2, 3, 7, 8, 33};

static void blocks_of_gguf_have_the_scalar_bits(void **state) {
    (void)state;
    static const int32_t narrow[] = {32, 64, 96, 256, 288, 544}, wide[] = {256, 512};
    for (size_t b = 0; b < SQ_COUNT(blocks); b++) {
        const bool small = sq_wtype_get(blocks[b].type)->block == 32;
        for (size_t c = 0; c < (small ? SQ_COUNT(narrow) : SQ_COUNT(wide)); c++)
            for (size_t r = 0; r < SQ_COUNT(row_counts); r++) {
                sq_test_moat moat;
                const sq_weight w = block_matrix(b, row_counts[r], small ? narrow[c] : wide[c], &moat);
                check_matrix(&w, token_counts[(b + c + r) % SQ_COUNT(token_counts)]);
                sq_test_moat_free(&moat);
            }
    }
}

static void one_affine(sq_coding coding, int32_t bits, int32_t group, sq_scale_type st, bool biased,
                       int32_t rows, int32_t cols, int32_t m) {
    const size_t per_row = group ? (size_t)(cols / group) : 1, each = st == SQ_SCALE_F32 ? 4 : 2;
    sq_test_moat mc, ms, mb;
    uint8_t *codes = sq_test_moat_new(&mc, (size_t)rows * (size_t)(cols * bits / 8), 0);
    uint8_t *scales = sq_test_moat_new(&ms, (size_t)rows * per_row * each, 0);
    uint8_t *biases = sq_test_moat_new(&mb, (size_t)rows * per_row * each, 0);
    fill_random(codes, (size_t)rows * (size_t)(cols * bits / 8));
    for (size_t i = 0; i < (size_t)rows * per_row; i++)
        for (int j = 0; j < 2; j++) {
            const float v = 0.02f * sq_test_float(&rng);
            const uint16_t h = st == SQ_SCALE_F32 ? 0 : sq_scale_from_f32(st, v);
            memcpy((j ? biases : scales) + i * each, st == SQ_SCALE_F32 ? (const void *)&v : (const void *)&h,
                   each);
        }
    const sq_weight w =
        sq_weight_affine(coding, bits, group, st, rows, cols, codes, scales, biased ? biases : NULL);
    check_matrix(&w, m);
    sq_test_moat_free(&mc);
    sq_test_moat_free(&ms);
    sq_test_moat_free(&mb);
}

static void affine_codes_have_the_scalar_bits(void **state) {
    (void)state;
    static const int32_t bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    for (size_t b = 0; b < SQ_COUNT(bits); b++)
        for (size_t g = 0; g < SQ_COUNT(groups); g++)
            for (size_t r = 0; r < SQ_COUNT(row_counts); r++)
                one_affine(SQ_CODES_UNSIGNED, bits[b], groups[g], r % 2 ? SQ_SCALE_F16 : SQ_SCALE_BF16, true,
                           row_counts[r], 128 * (1 + (int32_t)(r + g) % 3), token_counts[(b + g + r) % 6]);
    for (size_t r = 0; r < SQ_COUNT(row_counts); r++) {
        one_affine(SQ_CODES_SIGNED, 8, 0, SQ_SCALE_F32, false, row_counts[r], 320, token_counts[r]);
        one_affine(SQ_CODES_MINUS7, 4, 64, SQ_SCALE_F32, false, row_counts[r], 320, token_counts[r]);
    }
}

int main(void) {
    tables = sq_test_all_tables();
    rng = sq_test_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_gguf_have_the_scalar_bits),
        cmocka_unit_test(affine_codes_have_the_scalar_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
