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

static sq_weight encode(const matrix *m, const sq_encoding *e) {
    sq_weight w = sq_weight_make(e->type, e->scale, m->rows, m->cols, m->data);
    assert_int_equal(w.tile_bytes * (size_t)sq_weight_tiles(&w), m->bytes);
    for (int r = 0; r < m->rows; r += 16) {
        int n = m->rows - r < 16 ? m->rows - r : 16;
        sq_quant_tile(e, m->w + (size_t)(r * m->cols), (size_t)m->cols, n, m->cols,
                      m->data + w.tile_bytes * (size_t)(r / 16));
    }
    return w;
}

static sq_weight quantise(const matrix *m, sq_wtype t, sq_scale_type st, sq_quant_method method) {
    const sq_encoding e = {.type = t, .scale = st, .method = method};
    return encode(m, &e);
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

/* What a type has said it says again: quantise, decode, quantise, decode. */
static void decoded_matrices_are_kept(void **state) {
    (void)state;
    static const sq_wtype types[] = {SQ_W_I8_G64, SQ_W_I8_G32, SQ_W_I8_ROW};
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            for (size_t t = 0; t < SQ_COUNT(types); t++) {
                const sq_scale_type st = types[t] == SQ_W_I8_ROW ? SQ_SCALE_F32 : SQ_SCALE_BF16;
                matrix m = make(types[t], all_rows[i], all_cols[k], 5000 * i + k);
                sq_weight w = quantise(&m, types[t], st, SQ_QUANT_RTN);
                float *first = malloc(sizeof(float) * (size_t)(m.rows * m.cols)), out[1536];
                for (int r = 0; r < m.rows; r++) sq_weight_row(&w, r, first + (size_t)(r * m.cols));
                memcpy(m.w, first, sizeof(float) * (size_t)(m.rows * m.cols));
                w = quantise(&m, types[t], st, SQ_QUANT_RTN);
                for (int r = 0; r < m.rows; r++) {
                    sq_weight_row(&w, r, out);
                    for (int c = 0; c < m.cols; c++) {
                        const float want = first[r * m.cols + c]; /* the scale may round another way */
                        assert_true(fabsf(out[c] - want) <= fabsf(want) * 0x1p-7f);
                    }
                }
                free(first);
                done(&m);
            }
        }
    }
}

/* Signal over noise of every affine type on awkward sizes: no lane, plane or run is mixed up. */
static void affine_matrices_of_every_width_stay_close(void **state) {
    (void)state;
    static const struct {
        sq_wtype t;
        double snr_db; /* 6 per bit for even weights, less what the sample and bf16 scales take */
    } want[] = {{SQ_W_I4_G32, 22.5}, {SQ_W_I4_G64, 22.5}, {SQ_W_I3_G64, 16.5}, {SQ_W_I2_G64, 10.0}};
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            for (size_t t = 0; t < SQ_COUNT(want); t++) {
                matrix m = make(want[t].t, all_rows[i], all_cols[k], 6000 * i + k);
                sq_weight w = quantise(&m, want[t].t, SQ_SCALE_BF16, SQ_QUANT_LSQ);
                for (int r = 0; r < m.rows; r++) {
                    float out[1536];
                    sq_fidelity f = {0};
                    sq_weight_row(&w, r, out);
                    sq_fidelity_row(&f, m.w + (size_t)(r * m.cols), out, m.cols);
                    assert_true(sq_fidelity_snr_db(&f) > want[t].snr_db);
                }
                done(&m);
            }
        }
    }
}

static void ternary_matrices_come_back_exactly(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(all_rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(all_cols); k++) {
            matrix m = make(SQ_W_T2_ROW, all_rows[i], all_cols[k], 7000 * i + k);
            uint64_t seed = 9 * i + k;
            for (int j = 0; j < m.rows * m.cols; j++)
                m.w[j] = 0.37f * (float)((int)(sq_splitmix64(&seed) >> 40) % 3 - 1);
            const sq_encoding e = {.type = SQ_W_T2_ROW, .scale = SQ_SCALE_F32, .gamma = 0.37f};
            const sq_weight w = encode(&m, &e);
            for (int r = 0; r < m.rows; r++) {
                float out[1536];
                sq_weight_row(&w, r, out);
                for (int c = 0; c < m.cols; c++) assert_true(out[c] == m.w[r * m.cols + c]);
            }
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
        cmocka_unit_test(decoded_matrices_are_kept),
        cmocka_unit_test(affine_matrices_of_every_width_stay_close),
        cmocka_unit_test(ternary_matrices_come_back_exactly),
        cmocka_unit_test(row_major_matrices_come_back_exactly),
    };
    return cmocka_run_group_tests_name("quant_roundtrip", tests, NULL, NULL);
}
