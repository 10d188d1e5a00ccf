/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_scalar.c - matrix times activations, one output element at a time: the formulas R1 and R2 of
 * kernels.h.
 *
 * These are the fall-back of every machine and the oracle of every other folder, so nothing here is clever.
 * One dot product is a pure function of a weight row and an activation row; tiles and tokens are only loops
 * around it. */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* ---- R1: rows of floats ---------------------------------------------------------------------- */

/* Row w [n] of a row-major type, maybe unaligned, times x [n]. Missing elements of the last 16 are zeros. */
static float dot_row(sq_wtype t, const uint8_t *w, const float *x, int32_t n) {
    const size_t elem = t == SQ_W_F32 ? 4 : 2;
    float acc[16] = {0};
    for (int32_t i = 0; i < n; i += 16) {
        const int32_t have = n - i < 16 ? n - i : 16;
        float a[16] = {0}, b[16] = {0};
        sq_row_to_f32(t, w + (size_t)i * elem, have, a);
        memcpy(b, x + i, (size_t)have * sizeof *b);
        for (int l = 0; l < 16; l++) acc[l] = fmaf(a[l], b[l], acc[l]);
    }
    return lane_tree(acc);
}

static void gemm_rows(sq_wtype t, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                      size_t ldy) {
    const size_t ld = (size_t)x->groups * SQ_GROUP, row_bytes = w->tile_bytes / SQ_TILE_ROWS;
    const int32_t end = tile1 * SQ_TILE_ROWS < w->rows ? tile1 * SQ_TILE_ROWS : w->rows;
    for (int32_t r = tile0 * SQ_TILE_ROWS; r < end; r++)
        for (int32_t i = 0; i < x->m; i++)
            y[(size_t)i * ldy + (size_t)r] =
                dot_row(t, w->data + (size_t)r * row_bytes, x->f + (size_t)i * ld, w->cols);
}

void sq_gemm_f32__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm_rows(SQ_W_F32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_f16__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm_rows(SQ_W_F16, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_bf16__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                          size_t ldy) {
    gemm_rows(SQ_W_BF16, w, tile0, tile1, x, y, ldy);
}

/* ---- R2: packed integer tiles ---------------------------------------------------------------- */

static uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static float load_f32(const uint8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Exact dot of row r of an I8 record (16 lines) with 64 activation codes. */
static int32_t idot_i8(const uint8_t *record, int32_t r, const int8_t *q) {
    int32_t sum = 0;
    for (int32_t k = 0; k < SQ_GROUP; k++) sum += (int8_t)record[64 * (k / 4) + 4 * r + k % 4] * q[k];
    return sum;
}

/* The same for an I4 record: 8 lines, columns 0..31 in the low nibbles and 32..63 in the high ones. */
static int32_t idot_i4(const uint8_t *record, int32_t r, const int8_t *q) {
    int32_t sum = 0;
    for (int32_t k = 0; k < SQ_GROUP / 2; k++) {
        const uint8_t byte = record[64 * (k / 4) + 4 * r + k % 4];
        sum += (byte & 15) * q[k] + (byte >> 4) * q[k + 32];
    }
    return sum;
}

/* Row r of a row tile times token i. */
static float dot_i8row(const sq_weight *w, const uint8_t *tile, int32_t r, const sq_act *x, int32_t i) {
    const size_t i_group0 = (size_t)i * (size_t)x->groups;
    float acc = 0.0f;
    for (int32_t g = 0; g < w->groups; g++) {
        const size_t ig = i_group0 + (size_t)g;
        const int32_t dot = idot_i8(tile + (size_t)g * SQ_I8_RECORD, r, x->q + ig * SQ_GROUP);
        acc = fmaf(x->scale[ig], (float)dot, acc);
    }
    return acc * load_f32(tile + (size_t)w->groups * SQ_I8_RECORD + (size_t)r * 4);
}

static float dot_i8g64(const sq_weight *w, const uint8_t *tile, int32_t r, const sq_act *x, int32_t i) {
    const size_t i_group0 = (size_t)i * (size_t)x->groups;
    const uint8_t *scales = tile + (size_t)w->groups * SQ_I8_RECORD; /* u16 [groups][16] */
    float acc = 0.0f;
    for (int32_t g = 0; g < w->groups; g++) {
        const size_t ig = i_group0 + (size_t)g;
        const int32_t dot = idot_i8(tile + (size_t)g * SQ_I8_RECORD, r, x->q + ig * SQ_GROUP);
        const float sw = sq_scale_to_f32(w->scale_type, load_u16(scales + ((size_t)g * 16 + (size_t)r) * 2));
        const float t = sw * x->scale[ig];
        acc = fmaf(t, (float)dot, acc);
    }
    return acc;
}

static float dot_i4g64(const sq_weight *w, const uint8_t *tile, int32_t r, const sq_act *x, int32_t i) {
    const size_t i_group0 = (size_t)i * (size_t)x->groups;
    float acc = 0.0f;
    for (int32_t g = 0; g < w->groups; g++) {
        const size_t ig = i_group0 + (size_t)g;
        const uint8_t *record = tile + (size_t)g * SQ_I4_RECORD;
        const int32_t dot = idot_i4(record, r, x->q + ig * SQ_GROUP);
        const float sw = sq_scale_to_f32(w->scale_type, load_u16(record + 512 + 2 * r));
        const float bw = sq_scale_to_f32(w->scale_type, load_u16(record + 544 + 2 * r));
        const float t = sw * x->scale[ig];
        acc = fmaf(t, (float)dot, acc);
        acc = fmaf(bw, x->xsum[ig], acc);
    }
    return acc;
}

typedef float dot_packed_fn(const sq_weight *w, const uint8_t *tile, int32_t r, const sq_act *x, int32_t i);

static void gemm_tiles(dot_packed_fn *dot, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
                       float *y, size_t ldy) {
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const uint8_t *p = w->data + (size_t)tile * w->tile_bytes;
        const int32_t row0 = tile * SQ_TILE_ROWS;
        const int32_t n_rows = w->rows - row0 < SQ_TILE_ROWS ? w->rows - row0 : SQ_TILE_ROWS;
        for (int32_t i = 0; i < x->m; i++)
            for (int32_t r = 0; r < n_rows; r++) y[(size_t)i * ldy + (size_t)(row0 + r)] = dot(w, p, r, x, i);
    }
}

void sq_gemm_i8row__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(dot_i8row, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g64__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(dot_i8g64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g64__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(dot_i4g64, w, tile0, tile1, x, y, ldy);
}
