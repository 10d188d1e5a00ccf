/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_decode.c - number formats, and stored weights back to f32.
 *
 * This is the reference: every kernel is tested against sq_weight_row, so it reads like the layout in quant.h
 * and nothing here depends on the CPU, the rounding of a fused multiply-add or flush-to-zero switches of an
 * ISA file. */
#include "quant/quant_compare.h"
#include "quant/quant_int.h"

#include <assert.h>

/* ---- number formats -------------------------------------------------------------------------- */

float sq_f16_to_f32(uint16_t h) { return half_to_float(h); }
uint16_t sq_f32_to_f16(float f) { return float_to_half(f); }
uint16_t sq_f32_to_bf16(float f) { return float_to_bf16(f); }

float sq_scale_to_f32(sq_scale_type t, uint16_t bits) {
    assert(t == SQ_SCALE_F16 || t == SQ_SCALE_BF16);
    return scale_value(t, bits);
}

uint16_t sq_scale_from_f32(sq_scale_type t, float f) {
    assert(t == SQ_SCALE_F16 || t == SQ_SCALE_BF16);
    return scale_round(t, f);
}

void sq_row_to_f32(sq_wtype t, const uint8_t *p, int32_t n, float *out) {
    assert(t == SQ_W_F32 || t == SQ_W_F16 || t == SQ_W_BF16);
    elements_to_f32(t, p, n, out);
}

/* ---- rows of any type ------------------------------------------------------------------------ */

void sq_weight_row(const sq_weight *w, int32_t r, float *out) {
    assert(r >= 0 && r < w->rows);
    const uint8_t *tile = w->data + (size_t)(r / SQ_TILE_ROWS) * w->tile_bytes;
    const int32_t lane = r % SQ_TILE_ROWS;
    switch (sq_wtype_get(w->wtype)->layout) {
    case SQ_LAYOUT_T16X4: packed_row(w, tile, lane, out); break;
    case SQ_LAYOUT_FOREIGN: sq_foreign_row(w, r, out); break;
    default: sq_row_to_f32(w->wtype, tile + (size_t)lane * (w->tile_bytes / SQ_TILE_ROWS), w->cols, out);
    }
}

/* ---- low-rank terms ---------------------------------------------------------------------------- */

/* n elements of a row-major matrix from [r][k] on. */
static void elements(const sq_weight *w, int32_t r, int32_t k, int32_t n, float *out) {
    const size_t row_bytes = w->tile_bytes / SQ_TILE_ROWS, bytes = (size_t)(sq_wtype_get(w->wtype)->bits / 8);
    sq_row_to_f32(w->wtype, w->data + (size_t)r * row_bytes + (size_t)k * bytes, n, out);
}

/* Columns [k0, k0 + n) of row r of scale * U V are added to sum. */
static void add_low_rank(const sq_lowrank *l, int32_t r, int32_t k0, int32_t n, double *sum) {
    for (int32_t j = 0; j < l->v.rows; j++) {
        float u, v[SQ_GROUP];
        elements(&l->u, r, j, 1, &u);
        elements(&l->v, j, k0, n, v);
        const double f = (double)l->scale * (double)u;
        for (int32_t k = 0; k < n; k++) sum[k] += f * (double)v[k];
    }
}

void sq_weight_row_whole(const sq_weight *w, int32_t r, float *out) {
    sq_weight_row(w, r, out);
    for (int32_t k0 = 0; w->low && k0 < w->cols; k0 += SQ_GROUP) {
        double sum[SQ_GROUP];
        const int32_t n = w->cols - k0 < SQ_GROUP ? w->cols - k0 : SQ_GROUP;
        for (int32_t k = 0; k < n; k++) sum[k] = (double)out[k0 + k];
        for (const sq_lowrank *l = w->low; l; l = l->next) add_low_rank(l, r, k0, n, sum);
        for (int32_t k = 0; k < n; k++) out[k0 + k] = (float)sum[k];
    }
}
