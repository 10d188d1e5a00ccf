/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_roundtrip.c - whole matrices of every type and awkward size: rows in, tiles, rows out, within
 * the error each type promises; row-major types exactly. */
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int all_rows[] = {1, 15, 16, 17, 33}, all_cols[] = {1, 2, 63, 64, 65, 100, 128, 255, 1536};

typedef struct {
    int rows, cols;
    float *w;       /* bf16 numbers, scales differ from row to row */
    uint8_t *data;
    uint64_t bytes;
} matrix;

static matrix make(sq_wtype t, int rows, int cols, uint64_t seed) {
    matrix m = {.rows = rows, .cols = cols};
    assert_true(sq_weight_bytes(t, rows, cols, &m.bytes));
    m.w = malloc(sizeof(float) * (size_t)(rows * cols));
    m.data = malloc(m.bytes + 1);
    m.data[m.bytes] = 0x5A;
    for (int i = 0; i < rows * cols; i++) {
        double u = (double)(sq_splitmix64(&seed) >> 11) * 0x1p-52 - 1;
        m.w[i] = sq_bf16_to_f32(sq_f32_to_bf16((float)ldexp(u, -i / cols % 9)));
    }
    return m;
}

static void done(matrix *m) {
    assert_int_equal(m->data[m->bytes], 0x5A);
    free(m->w);
    free(m->data);
}

static sq_weight quantise(const matrix *m, sq_wtype t, sq_scale_type st, sq_quant_method method) {
    sq_weight w = sq_weight_make(t, st, m->rows, m->cols, m->data);
    assert_int_equal(w.tile_bytes * (size_t)sq_weight_tiles(&w), m->bytes);
    for (int r = 0; r < m->rows; r += 16) {
        int n = m->rows - r < 16 ? m->rows - r : 16;
        sq_quant_tile(t, st, method, m->w + (size_t)(r * m->cols), (size_t)m->cols, n, m->cols,
                      m->data + w.tile_bytes * (size_t)(r / 16));
    }
    return w;
}

/* Half a scale is max / 254; bf16 scales are up to 2^-8 of themselves larger. */
static void check_int8(const matrix *m, const sq_weight *w) {
    float out[1536];
    for (int r = 0; r < m->rows; r++) {
        const float *row = m->w + (size_t)(r * m->cols);
        sq_weight_row(w, r, out);
        int span = w->wtype == SQ_W_I8_ROW ? m->cols : 64;
        for (int g = 0; g < m->cols; g += span) {
            float max = 0;
            int end = g + span < m->cols ? g + span : m->cols;
            for (int k = g; k < end; k++) max = fabsf(row[k]) > max ? fabsf(row[k]) : max;
            for (int k = g; k < end; k++) assert_true(fabsf(row[k] - out[k]) <= max / 254 * 1.0041f);
        }
    }
}

static void int8_matrices_stay_within_half_a_step(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            for (int t = SQ_W_I8_ROW; t <= SQ_W_I8_G64; t++) {
                matrix m = make(t, all_rows[i], all_cols[k], 1000 * i + k);
                sq_weight w = quantise(&m, t, t == SQ_W_I8_ROW ? SQ_SCALE_F32 : SQ_SCALE_BF16, SQ_QUANT_RTN);
                check_int8(&m, &w);
                done(&m);
            }
        }
    }
}

/* rtn: zero is put on a whole code by bending the scale, which may cut up to a step off the far edge;
 * rounding scale and bias to 8 bits may move that edge a little more. */
static void int4_matrices_stay_within_half_a_step_by_rtn(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            matrix m = make(SQ_W_I4_G64, all_rows[i], all_cols[k], 2000 * i + k);
            sq_weight w = quantise(&m, SQ_W_I4_G64, SQ_SCALE_BF16, SQ_QUANT_RTN);
            for (int r = 0; r < m.rows; r++) {
                float out[1536], lo = 0, hi = 0;
                sq_weight_row(&w, r, out);
                const float *row = m.w + (size_t)(r * m.cols);
                for (int c = 0; c < m.cols; c++) {
                    lo = c % 64 == 0 || row[c] < lo ? row[c] : lo;
                    hi = c % 64 == 0 || row[c] > hi ? row[c] : hi;
                    if (c % 64 != 63 && c != m.cols - 1) continue;
                    float step = (hi - lo) / 15, edge = fmaxf(fabsf(lo), fabsf(hi));
                    for (int j = c / 64 * 64; j <= c; j++) {
                        assert_true(fabsf(row[j] - out[j]) <= 1.1f * step + edge * 0x1p-8f * 2);
                    }
                }
            }
            done(&m);
        }
    }
}

static void int4_matrices_are_closer_by_lsq(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            matrix m = make(SQ_W_I4_G64, all_rows[i], all_cols[k], 3000 * i + k);
            sq_fidelity f[2] = {{0}};
            for (int method = SQ_QUANT_RTN; method <= SQ_QUANT_LSQ; method++) {
                sq_weight w = quantise(&m, SQ_W_I4_G64, SQ_SCALE_BF16, method);
                for (int r = 0; r < m.rows; r++) {
                    float out[1536];
                    sq_weight_row(&w, r, out);
                    sq_fidelity_row(&f[method], m.w + (size_t)(r * m.cols), out, m.cols);
                }
            }
            assert_true(f[SQ_QUANT_LSQ].ee <= f[SQ_QUANT_RTN].ee);
            assert_int_equal(f[SQ_QUANT_LSQ].n, m.rows * m.cols);
            done(&m);
        }
    }
}

static void row_major_matrices_come_back_exactly(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            for (int t = SQ_W_F32; t <= SQ_W_BF16; t++) {
                matrix m = make(t, all_rows[i], all_cols[k], 4000 * i + k);
                for (int j = 0; j < m.rows * m.cols; j++) {
                    uint16_t h = t == SQ_W_F16 ? sq_f32_to_f16(m.w[j]) : sq_f32_to_bf16(m.w[j]);
                    if (t == SQ_W_F16) m.w[j] = sq_f16_to_f32(h);
                    if (t == SQ_W_F32) memcpy(m.data + 4 * (size_t)j, &m.w[j], 4);
                    else memcpy(m.data + 2 * (size_t)j, &h, 2);
                }
                sq_weight w = sq_weight_make(t, SQ_SCALE_F16, m.rows, m.cols, m.data);
                for (int r = 0; r < m.rows; r++) {
                    float out[1536];
                    sq_weight_row(&w, r, out);
                    assert_memory_equal(out, m.w + (size_t)(r * m.cols), sizeof(float) * (size_t)m.cols);
                }
                done(&m);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_matrices_stay_within_half_a_step),
        cmocka_unit_test(int4_matrices_stay_within_half_a_step_by_rtn),
        cmocka_unit_test(int4_matrices_are_closer_by_lsq),
        cmocka_unit_test(row_major_matrices_come_back_exactly),
    };
    return cmocka_run_group_tests_name("quant_roundtrip", tests, NULL, NULL);
}
