/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_tile.c - 16 rows of f32 into one row tile of the T16x4 layout (drawn in quant.h and docs/quant.md).
 *
 * A group's codes are made in a plain array first and then dealt out four bytes at a time: a row owns bytes
 * 4r..4r+3 of every 64-byte line. */
#include "quant/quant_int.h"

#include <assert.h>

static int32_t group_cols(int32_t cols, int32_t g) {
    int32_t left = cols - g * SQ_GROUP;
    return left < SQ_GROUP ? left : SQ_GROUP;
}

static void put_i4(uint8_t *rec, int32_t lane, const uint8_t *codes, uint16_t scale, uint16_t bias) {
    uint8_t pairs[SQ_GROUP / 2];
    for (int32_t k = 0; k < SQ_GROUP / 2; k++) {
        pairs[k] = (uint8_t)(codes[k] | (uint8_t)(codes[k + SQ_GROUP / 2] << 4));
    }
    for (int32_t c = 0; c < SQ_GROUP / 8; c++) memcpy(rec + 64 * c + 4 * lane, pairs + 4 * c, 4);
    store_u16(rec + I4_SCALES + 2 * lane, scale);
    store_u16(rec + I4_BIASES + 2 * lane, bias);
}

static void put_i8(uint8_t *rec, int32_t lane, const int8_t *codes) {
    for (int32_t c = 0; c < SQ_GROUP / 4; c++) memcpy(rec + 64 * c + 4 * lane, codes + 4 * c, 4);
}

static void tile_row_i4(const sq_weight *w, sq_quant_method m, const float *row, int32_t lane, uint8_t *out) {
    for (int32_t g = 0; g < w->groups; g++) {
        uint8_t codes[SQ_GROUP] = {0};
        uint16_t scale, bias;
        const float *from = row + (size_t)g * SQ_GROUP;
        int32_t n = group_cols(w->cols, g);
        if (m == SQ_QUANT_LSQ) sq_quant_i4_lsq(from, n, w->scale_type, codes, &scale, &bias);
        else sq_quant_i4_rtn(from, n, w->scale_type, codes, &scale, &bias);
        put_i4(out + (size_t)g * SQ_I4_RECORD, lane, codes, scale, bias);
    }
}

static void tile_row_i8_g64(const sq_weight *w, const float *row, int32_t lane, uint8_t *out) {
    uint8_t *scales = out + i8_scales(w->groups);
    for (int32_t g = 0; g < w->groups; g++) {
        int8_t codes[SQ_GROUP] = {0};
        uint16_t scale;
        sq_quant_i8_g64(row + (size_t)g * SQ_GROUP, group_cols(w->cols, g), w->scale_type, codes, &scale);
        put_i8(out + (size_t)g * SQ_I8_RECORD, lane, codes);
        store_u16(scales + 2 * ((size_t)g * SQ_TILE_ROWS + (size_t)lane), scale);
    }
}

static void tile_row_i8_row(const sq_weight *w, const float *row, int32_t lane, uint8_t *out) {
    float scale = sq_quant_i8_scale(row, w->cols);
    for (int32_t g = 0; g < w->groups; g++) {
        int8_t codes[SQ_GROUP] = {0};
        sq_quant_i8_encode(row + (size_t)g * SQ_GROUP, group_cols(w->cols, g), scale, codes);
        put_i8(out + (size_t)g * SQ_I8_RECORD, lane, codes);
    }
    memcpy(out + i8_scales(w->groups) + sizeof scale * (size_t)lane, &scale, sizeof scale);
}

void sq_quant_tile(sq_wtype t, sq_scale_type st, sq_quant_method m, const float *w, size_t ld, int32_t n_rows,
                   int32_t cols, uint8_t *out) {
    assert(n_rows > 0 && n_rows <= SQ_TILE_ROWS && sq_wtype_get(t)->packed);
    sq_weight tile = sq_weight_make(t, st, n_rows, cols, out);
    memset(out, 0, tile.tile_bytes); /* padding rows and bytes; rows that exist overwrite theirs */
    for (int32_t r = 0; r < n_rows; r++) {
        const float *row = w + (size_t)r * ld;
        switch (t) {
        case SQ_W_I4_G64: tile_row_i4(&tile, m, row, r, out); break;
        case SQ_W_I8_G64: tile_row_i8_g64(&tile, row, r, out); break;
        default: tile_row_i8_row(&tile, row, r, out);
        }
    }
}
