/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_sub_scalar.c - packed types of 2 and 3 bits, ternary, and those with a scale per 32 columns: R2 of
 * kernels.h, one output element at a time.
 *
 * The code of (row r, column k) is looked up in the record as quant.h draws it; everything else is the rule.
 */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

static uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Column k = 16p + 4c + b of the low plane. */
static int32_t low_code(const uint8_t *record, int32_t r, int32_t k) {
    return record[64 * (k % 16 / 4) + 4 * r + k % 4] >> 2 * (k / 16) & 3;
}

/* Column k = 32h + 4i + b of the high plane. */
static int32_t high_bit(const uint8_t *record, int32_t r, int32_t k) {
    return record[256 + 64 * (k / 32) + 4 * r + k % 4] >> k % 32 / 4 & 1;
}

static int32_t code_of(sq_wtype t, const uint8_t *record, int32_t r, int32_t k) {
    switch (t) {
    case SQ_W_I4_G32: {
        const uint8_t byte = record[64 * (k % 32 / 4) + 4 * r + k % 4];
        return k < 32 ? byte & 15 : byte >> 4;
    }
    case SQ_W_I8_G32: return (int8_t)record[64 * (k / 4) + 4 * r + k % 4];
    case SQ_W_I3_G64: return low_code(record, r, k) + 4 * high_bit(record, r, k);
    case SQ_W_I2_G64: return low_code(record, r, k);
    default: return low_code(record, r, k) - 1;
    }
}

/* Scale s of the record's row; of group g where scales follow the row tile. */
static float scale_of(const sq_weight *w, const uint8_t *tile, int32_t g, int32_t s, int32_t r) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const uint8_t *record = tile + (size_t)g * (size_t)t->record_bytes;
    const uint8_t *p = w->wtype == SQ_W_I4_G32 ? record + 512 + 32 * s
                       : w->wtype == SQ_W_I8_G32
                           ? tile + (size_t)w->groups * SQ_I8_RECORD + 64 * (size_t)g + 32 * s
                       : w->wtype == SQ_W_I3_G64 ? record + 384
                                                 : record + 256;
    return sq_scale_to_f32((sq_scale_type)w->scale_type, load_u16(p + 2 * r));
}

static float bias_of(const sq_weight *w, const uint8_t *record, int32_t s, int32_t r) {
    const uint8_t *p = record + (w->wtype == SQ_W_I4_G32   ? 576 + 32 * s
                                 : w->wtype == SQ_W_I3_G64 ? 416
                                                           : 288);
    return sq_scale_to_f32((sq_scale_type)w->scale_type, load_u16(p + 2 * r));
}

/* Row r of a row tile times token i. */
static float dot_row(const sq_weight *w, const uint8_t *tile, int32_t r, const sq_act *x, int32_t i) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const int32_t sub = t->sub ? t->sub : SQ_GROUP;
    float acc = 0.0f;
    for (int32_t g = 0; g < w->groups; g++) {
        const size_t ig = (size_t)i * (size_t)x->groups + (size_t)g;
        const uint8_t *record = tile + (size_t)g * (size_t)t->record_bytes;
        for (int32_t s = 0; s < SQ_GROUP / sub; s++) {
            int32_t dot = 0, sum = 0;
            for (int32_t k = s * sub; k < (s + 1) * sub; k++)
                dot += code_of((sq_wtype)w->wtype, record, r, k) * x->q[ig * SQ_GROUP + (size_t)k];
            for (int32_t j = s * sub / 16; j < (s + 1) * sub / 16; j++) sum += x->isum16[4 * ig + (size_t)j];
            if (w->wtype == SQ_W_T2_ROW) {
                acc = fmaf(x->scale[ig], (float)dot, acc);
                continue;
            }
            const float f = scale_of(w, tile, g, s, r) * x->scale[ig];
            acc = fmaf(f, (float)dot, acc);
            if (!t->bias) continue;
            const float xsum = sub == SQ_GROUP ? x->xsum[ig] : x->scale[ig] * (float)sum;
            acc = fmaf(bias_of(w, record, s, r), xsum, acc);
        }
    }
    if (w->wtype != SQ_W_T2_ROW) return acc;
    float scale;
    memcpy(&scale, tile + (size_t)w->groups * SQ_T2_RECORD + 4 * (size_t)r, sizeof scale);
    return acc * scale;
}

static void gemm_tiles(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                       size_t ldy) {
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const uint8_t *p = w->data + (size_t)tile * w->tile_bytes;
        const int32_t row0 = tile * SQ_TILE_ROWS;
        const int32_t n_rows = w->rows - row0 < SQ_TILE_ROWS ? w->rows - row0 : SQ_TILE_ROWS;
        for (int32_t i = 0; i < x->m; i++)
            for (int32_t r = 0; r < n_rows; r++)
                y[(size_t)i * ldy + (size_t)(row0 + r)] = dot_row(w, p, r, x, i);
    }
}

void sq_gemm_i4g32__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g32__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i3g64__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i2g64__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(w, tile0, tile1, x, y, ldy);
}

void sq_gemm_t2row__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_tiles(w, tile0, tile1, x, y, ldy);
}
