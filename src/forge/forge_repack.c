/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_repack.c - weights that come quantised: which of our types says exactly the same, and moving codes
 * there.
 *
 *   GGUF Q4_0  d * (q - 8)       I4_G32   scale d, bias -8d    d in f16; -8d must be, too
 *   GGUF Q4_1  d * q + m         I4_G32   scale d, bias m
 *   GGUF Q8_0  d * q             I8_G32   scale d              but -128 has no place in our codes
 *   MLX affine s * q + b         I4_G64, I4_G32, I3_G64, I2_G64 by bits and group; 128 columns are twice 64
 *
 * Scales and biases keep their bits. Nothing is measured here: equality is what the tests show. */
#include "forge/forge_int.h"

#include <math.h>
#include <string.h>

/* ---- may it? --------------------------------------------------------------------------------- */

static uint64_t block_bytes_of(const sq_weight *w, size_t *n_blocks) {
    const sq_wtype_info *info = sq_wtype_get((sq_wtype)w->wtype);
    *n_blocks = (size_t)w->rows * (size_t)(w->cols / info->block);
    return (uint64_t)info->block_bytes;
}

/* Is -8 d of every block finite in f16? */
static bool q4_0_fits(const sq_weight *w) {
    size_t n;
    const uint64_t step = block_bytes_of(w, &n);
    for (size_t i = 0; i < n; i++) {
        uint16_t d;
        memcpy(&d, w->data + i * step, sizeof d);
        if (!(fabsf(sq_f16_to_f32(d)) <= 65504.0f / 8)) return false;
    }
    return true;
}

static bool q8_0_fits(const sq_weight *w) {
    size_t n;
    const uint64_t step = block_bytes_of(w, &n);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *q = w->data + i * step + 2;
        uint32_t lowest = 0;
        for (int32_t k = 0; k < 32; k++) lowest |= q[k] == 0x80;
        if (lowest) return false;
    }
    return true;
}

static bool affine_type(const sq_weight *w, sq_wtype *t) {
    if (w->coding != SQ_CODES_UNSIGNED || !w->biases || w->scale_type == SQ_SCALE_F32) return false;
    const bool wide = w->group == 64 || w->group == 128;
    if (w->bits == 4 && (wide || w->group == 32))
        *t = wide ? SQ_W_I4_G64 : SQ_W_I4_G32;
    else if (w->bits == 3 && wide)
        *t = SQ_W_I3_G64;
    else if (w->bits == 2 && wide)
        *t = SQ_W_I2_G64;
    else
        return false;
    return true;
}

bool sq_repack_type(const sq_weight *src, sq_wtype *t, sq_scale_type *st) {
    *st = SQ_SCALE_F16;
    switch (src->wtype) {
    case SQ_W_Q4_0: *t = SQ_W_I4_G32; return q4_0_fits(src);
    case SQ_W_Q4_1: *t = SQ_W_I4_G32; return true;
    case SQ_W_Q8_0: *t = SQ_W_I8_G32; return q8_0_fits(src);
    case SQ_W_AFFINE: *st = (sq_scale_type)src->scale_type; return affine_type(src, t);
    default: return false;
    }
}

/* ---- moving ---------------------------------------------------------------------------------- */

size_t sq_repack_scratch(int32_t cols) {
    const size_t groups = (size_t)(cols + 31) / 32;
    return sq_align_up((size_t)SQ_TILE_ROWS * (size_t)cols, 64) +
           2 * SQ_TILE_ROWS * groups * sizeof(uint16_t);
}

void sq_repack_tile(const sq_weight *src, int32_t row0, int32_t n_rows, sq_wtype t, sq_scale_type st,
                    void *scratch, uint8_t *out) {
    const sq_wtype_info *from = sq_wtype_get((sq_wtype)src->wtype), *to = sq_wtype_get(t);
    const int32_t cols = src->cols, groups = sq_div_up(cols, to->sub);
    /* Types without a bias have signed codes; ours with one count from 0. */
    const int32_t shift = to->bias && !from->bias ? 8 : 0;
    uint8_t *codes = scratch;
    uint16_t *scale = (uint16_t *)(void *)(codes + sq_align_up((size_t)SQ_TILE_ROWS * (size_t)cols, 64));
    uint16_t *bias = scale + (size_t)SQ_TILE_ROWS * (size_t)groups;
    for (int32_t r = 0; r < n_rows; r++) {
        for (int32_t k0 = 0; k0 < cols; k0 += SQ_PANEL) {
            int8_t q[SQ_PANEL];
            float s[SQ_PANEL / 16] = {0}, b[SQ_PANEL / 16] = {0};
            const int32_t n = cols - k0 < SQ_PANEL ? cols - k0 : SQ_PANEL;
            sq_row_unpack(src, row0 + r, k0, q, s, b);
            for (int32_t k = 0; k < n; k++)
                codes[(size_t)r * (size_t)cols + (size_t)(k0 + k)] = (uint8_t)(q[k] + shift);
            for (int32_t k = 0; k < n; k += to->sub) {
                const size_t g = (size_t)r * (size_t)groups + (size_t)((k0 + k) / to->sub);
                const float of = s[k / from->sub];
                scale[g] = sq_scale_from_f32(st, of);
                bias[g] = sq_scale_from_f32(st, shift ? -(float)shift * of : b[k / from->sub]);
            }
        }
    }
    sq_tile_pack(t, n_rows, cols, codes, scale, to->bias ? bias : NULL, out);
}
