/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_encode.h - 16 rows of floating-point numbers into one row tile, inline: sq_quant_tile and every
 * `encode` kernel are this file, compiled under the flags of their folders. Why the bytes do not differ is
 * said in quant_group.h.
 *
 * Sources are converted 64 columns at a time, so no buffer depends on the length of a row. A record's codes
 * of one row are made in a plain array first and then dealt out four bytes at a time. */
#ifndef SQ_QUANT_ENCODE_H
#define SQ_QUANT_ENCODE_H

#include "quant/quant_group.h"
#include "quant/quant_lane.h"

typedef struct {
    const sq_encoding *e;
    const sq_wtype_info *info;
    sq_wtype src;
    int32_t cols, groups;
    uint8_t *out;
} tile_job;

static inline int32_t tile_group_cols(const tile_job *k, int32_t g) {
    const int32_t left = k->cols - g * SQ_GROUP;
    return left < SQ_GROUP ? left : SQ_GROUP;
}

/* Group g of a row as f32. */
static inline void tile_load(const tile_job *k, const uint8_t *row, int32_t g, int32_t n, float w[SQ_GROUP]) {
    const size_t bytes = k->src == SQ_W_F32 ? 4 : 2;
    const uint8_t *from = row + (size_t)g * SQ_GROUP * bytes;
    if (n == SQ_GROUP) elements_to_f32(k->src, from, SQ_GROUP, w); /* a known length: whole vectors */
    else elements_to_f32(k->src, from, n, w);
}

/* Columns of record g in runs of `sub`, each with a scale of its own. */
static inline void put_runs(const tile_job *k, const uint8_t *row, int32_t lane, int32_t g) {
    const sq_encoding *e = k->e;
    const int32_t sub = k->info->sub, end = tile_group_cols(k, g);
    float w[SQ_GROUP];
    uint8_t codes[SQ_GROUP] = {0};
    tile_load(k, row, g, end, w);
    for (int32_t i = 0; i < end; i += sub) {
        const int32_t n = end - i < sub ? end - i : sub;
        uint8_t *at = k->out + scale_at(k->info, k->groups, (g * SQ_GROUP + i) / sub, lane);
        uint16_t scale, bias;
        if (k->info->bias) {
            const float *importance = e->importance ? e->importance + g * SQ_GROUP + i : NULL;
            group_affine(k->info->bits, e->method, w + i, importance, n, e->scale, codes + i, &scale, &bias);
            store_u16(at + bias_behind(k->info), bias);
        } else {
            scale = int8_group_scale(max_abs(w + i, n, 0), e->scale);
            int8_codes(w + i, n, scale_value(e->scale, scale), codes + i);
        }
        store_u16(at, scale);
    }
    lane_put(e->type, k->out + (size_t)g * (size_t)k->info->record_bytes, lane, codes);
}

static inline float tile_row_scale(const tile_job *k, const uint8_t *row) {
    if (k->e->type == SQ_W_T2_ROW) return k->e->gamma;
    float most = 0;
    for (int32_t g = 0; g < k->groups; g++) {
        float w[SQ_GROUP];
        const int32_t n = tile_group_cols(k, g);
        tile_load(k, row, g, n, w);
        most = n == SQ_GROUP ? max_abs(w, SQ_GROUP, most) : max_abs(w, n, most);
    }
    return int8_row_scale(most);
}

/* Types with one scale per row. */
static inline void put_row(const tile_job *k, const uint8_t *row, int32_t lane) {
    const bool ternary = k->e->type == SQ_W_T2_ROW;
    const float scale = tile_row_scale(k, row);
    for (int32_t g = 0; g < k->groups; g++) {
        float w[SQ_GROUP];
        uint8_t codes[SQ_GROUP];
        const int32_t n = tile_group_cols(k, g);
        memset(codes, ternary, sizeof codes);
        tile_load(k, row, g, n, w);
        if (ternary) ternary_codes(w, n, scale, codes);
        else int8_codes(w, n, scale, codes);
        lane_put(k->e->type, k->out + (size_t)g * (size_t)k->info->record_bytes, lane, codes);
    }
    memcpy(k->out + scale_at(k->info, k->groups, 0, lane), &scale, sizeof scale);
}

/* A row of a floating-point type; the same type is copied bit by bit. */
static inline void put_elements(const tile_job *k, const uint8_t *row, uint8_t *out) {
    const sq_wtype t = k->e->type;
    const size_t unit = t == SQ_W_F32 ? 4 : 2;
    if (t == k->src) {
        memcpy(out, row, (size_t)k->cols * unit);
        return;
    }
    for (int32_t g = 0; g < k->groups; g++) {
        float w[SQ_GROUP];
        const int32_t n = tile_group_cols(k, g);
        uint8_t *to = out + (size_t)g * SQ_GROUP * unit;
        tile_load(k, row, g, n, w);
        if (t == SQ_W_F32) memcpy(to, w, (size_t)n * sizeof *w);
        for (int32_t i = 0; i < n && t == SQ_W_F16; i++) store_u16(to + 2 * i, float_to_half(w[i]));
        for (int32_t i = 0; i < n && t == SQ_W_BF16; i++) store_u16(to + 2 * i, float_to_bf16(w[i]));
    }
}

static inline void encode_tile(const sq_encoding *e, sq_wtype src, const uint8_t *rows, size_t row_bytes,
                               int32_t n_rows, int32_t cols, uint8_t *out) {
    const sq_wtype_info *info = sq_wtype_get(e->type);
    assert(n_rows > 0 && n_rows <= SQ_TILE_ROWS && cols > 0 && info->layout != SQ_LAYOUT_FOREIGN);
    const sq_weight tile = sq_weight_make(e->type, e->scale, n_rows, cols, out);
    const tile_job k = {e, info, src, cols, tile.groups, out};
    if (info->layout == SQ_LAYOUT_T16X4) tile_clear(e->type, cols, out); /* rows overwrite theirs */
    for (int32_t r = 0; r < n_rows; r++) {
        const uint8_t *row = rows + (size_t)r * row_bytes;
        if (info->layout == SQ_LAYOUT_ROWS) {
            put_elements(&k, row, out + (size_t)r * (tile.tile_bytes / SQ_TILE_ROWS));
        } else if (info->sub == 0) {
            put_row(&k, row, r);
        } else {
            for (int32_t g = 0; g < tile.groups; g++) put_runs(&k, row, r, g);
        }
    }
}

#endif
