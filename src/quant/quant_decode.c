/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_decode.c - number formats, and stored weights back to f32.
 *
 * This is the reference: every kernel is tested against sq_weight_row, so it reads like the layout in quant.h
 * and nothing here depends on the CPU, the rounding of a fused multiply-add or flush-to-zero switches of an
 * ISA file. */
#include "quant/quant_int.h"

#include <assert.h>

/* ---- number formats -------------------------------------------------------------------------- */

float sq_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 31u, man = h & 1023u;
    if (exp == 31) return bits_float(sign | 0x7F800000u | (man << 13) | (man ? 0x400000u : 0));
    if (exp == 0) return bits_float(sign | float_bits((float)man * 0x1p-24f)); /* subnormal: exact in f32 */
    return bits_float(sign | ((exp + 112) << 23) | (man << 13));
}

uint16_t sq_f32_to_f16(float f) {
    uint32_t u = float_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x3FFu)); /* NaN, made quiet */
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* >= 65520 rounds to infinity */
    if (a < 0x38800000u) {
        /* Below 2^-14. Floats in [0.5, 1) are 2^-24 apart as f16 subnormals are: one addition rounds. */
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - 0x3F000000u));
    }
    return (uint16_t)(sign | ((a - (112u << 23) + 0xFFFu + ((a >> 13) & 1u)) >> 13));
}

uint16_t sq_f32_to_bf16(float f) {
    uint32_t u = float_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

float sq_scale_to_f32(sq_scale_type t, uint16_t bits) {
    assert(t == SQ_SCALE_F16 || t == SQ_SCALE_BF16);
    return t == SQ_SCALE_F16 ? sq_f16_to_f32(bits) : sq_bf16_to_f32(bits);
}

uint16_t sq_scale_from_f32(sq_scale_type t, float f) {
    assert(t == SQ_SCALE_F16 || t == SQ_SCALE_BF16);
    return t == SQ_SCALE_F16 ? sq_f32_to_f16(f) : sq_f32_to_bf16(f);
}

void sq_row_to_f32(sq_wtype t, const uint8_t *p, int32_t n, float *out) {
    assert(t == SQ_W_F32 || t == SQ_W_F16 || t == SQ_W_BF16);
    if (t == SQ_W_F32) {
        memcpy(out, p, (size_t)n * sizeof *out);
    } else if (t == SQ_W_F16) {
        for (int32_t i = 0; i < n; i++) out[i] = sq_f16_to_f32(load_u16(p + 2 * (size_t)i));
    } else {
        for (int32_t i = 0; i < n; i++) out[i] = sq_bf16_to_f32(load_u16(p + 2 * (size_t)i));
    }
}

/* ---- packed rows ----------------------------------------------------------------------------- */

/* Columns of group g that exist: 64, or fewer in the last group. */
static int32_t group_cols(const sq_weight *w, int32_t g) {
    int32_t left = w->cols - g * SQ_GROUP;
    return left < SQ_GROUP ? left : SQ_GROUP;
}

static void row_i4_g64(const sq_weight *w, const uint8_t *tile, int32_t lane, float *out) {
    for (int32_t g = 0; g < w->groups; g++) {
        const uint8_t *rec = tile + (size_t)g * SQ_I4_RECORD;
        float scale = sq_scale_to_f32(w->scale_type, load_u16(rec + I4_SCALES + 2 * lane));
        float bias = sq_scale_to_f32(w->scale_type, load_u16(rec + I4_BIASES + 2 * lane));
        int32_t n = group_cols(w, g);
        for (int32_t k = 0; k < n; k++) { /* k = 32 * high + 4c + b */
            uint8_t byte = rec[64 * ((k & 31) >> 2) + 4 * lane + (k & 3)];
            out[g * SQ_GROUP + k] = scale * (float)(k < 32 ? byte & 15 : byte >> 4) + bias;
        }
    }
}

static void row_i8(const sq_weight *w, const uint8_t *tile, int32_t lane, float *out) {
    const uint8_t *scales = tile + i8_scales(w->groups);
    float scale = 0;
    if (w->wtype == SQ_W_I8_ROW) memcpy(&scale, scales + sizeof(float) * (size_t)lane, sizeof scale);
    for (int32_t g = 0; g < w->groups; g++) {
        const uint8_t *rec = tile + (size_t)g * SQ_I8_RECORD;
        if (w->wtype == SQ_W_I8_G64) {
            size_t at = (size_t)g * SQ_TILE_ROWS + (size_t)lane;
            scale = sq_scale_to_f32(w->scale_type, load_u16(scales + 2 * at));
        }
        int32_t n = group_cols(w, g);
        for (int32_t k = 0; k < n; k++) {
            out[g * SQ_GROUP + k] = scale * (float)(int8_t)rec[64 * (k >> 2) + 4 * lane + (k & 3)];
        }
    }
}

void sq_weight_row(const sq_weight *w, int32_t r, float *out) {
    assert(r >= 0 && r < w->rows);
    const uint8_t *tile = w->data + (size_t)(r / SQ_TILE_ROWS) * w->tile_bytes;
    int32_t lane = r % SQ_TILE_ROWS;
    switch (w->wtype) {
    case SQ_W_I4_G64: row_i4_g64(w, tile, lane, out); break;
    case SQ_W_I8_G64:
    case SQ_W_I8_ROW: row_i8(w, tile, lane, out); break;
    default: sq_row_to_f32(w->wtype, tile + (size_t)lane * (w->tile_bytes / SQ_TILE_ROWS), w->cols, out);
    }
}
