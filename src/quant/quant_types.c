/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_types.c - the table of weight types and the sizes that follow from it. */
#include "quant/quant_int.h"

#include <assert.h>

_Static_assert(SQ_I4_RECORD == SQ_TILE_ROWS * SQ_GROUP / 2 + SQ_TILE_ROWS * 2 * 2, "codes, scales, biases");
_Static_assert(SQ_I8_RECORD == SQ_TILE_ROWS * SQ_GROUP, "codes alone");
_Static_assert(SQ_I4_RECORD % 64 == 0 && SQ_I8_RECORD % 64 == 0, "records are whole cache lines");

static const sq_wtype_info infos[] = {
    [SQ_W_F32] = {"f32", 32, false, 0},
    [SQ_W_F16] = {"f16", 16, false, 0},
    [SQ_W_BF16] = {"bf16", 16, false, 0},
    [SQ_W_I8_ROW] = {"int8-row", 8, true, SQ_I8_RECORD},
    [SQ_W_I8_G64] = {"int8-g64", 8, true, SQ_I8_RECORD},
    [SQ_W_I4_G64] = {"int4-g64", 4, true, SQ_I4_RECORD},
};
_Static_assert(SQ_COUNT(infos) == SQ_W_COUNT, "one line per type");

const sq_wtype_info *sq_wtype_get(sq_wtype t) {
    assert((unsigned)t < SQ_W_COUNT);
    return &infos[t];
}

/* Bytes of 16 rows of `cols` columns. Cannot wrap for cols < 2^48. */
static uint64_t tile_bytes_of(sq_wtype t, uint64_t cols) {
    const sq_wtype_info *info = &infos[t];
    if (!info->packed) return SQ_TILE_ROWS * cols * (uint64_t)(info->bits / 8);
    uint64_t groups = (cols + SQ_GROUP - 1) / SQ_GROUP, bytes = groups * (uint64_t)info->record_bytes;
    if (t == SQ_W_I8_G64) bytes += (groups * SQ_TILE_ROWS * sizeof(uint16_t) + 63) / 64 * 64;
    if (t == SQ_W_I8_ROW) bytes += SQ_TILE_ROWS * sizeof(float);
    return bytes;
}

sq_weight sq_weight_make(sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, const uint8_t *data) {
    assert((unsigned)t < SQ_W_COUNT && rows > 0 && cols > 0);
    return (sq_weight){
        .data = data,
        .rows = rows,
        .cols = cols,
        .groups = (int32_t)(((int64_t)cols + SQ_GROUP - 1) / SQ_GROUP),
        .wtype = (uint8_t)t,
        .scale_type = (uint8_t)st,
        .tile_bytes = (size_t)tile_bytes_of(t, (uint64_t)cols),
    };
}

bool sq_weight_bytes(sq_wtype t, int64_t rows, int64_t cols, uint64_t *out) {
    if ((unsigned)t >= SQ_W_COUNT) return false;
    if (rows < 1 || rows > INT32_MAX || cols < 1 || cols > INT32_MAX) return false;
    uint64_t tile = tile_bytes_of(t, (uint64_t)cols);
    if (!infos[t].packed) return sq_mul_ok((uint64_t)rows, tile / SQ_TILE_ROWS, out);
    return sq_mul_ok(((uint64_t)rows + SQ_TILE_ROWS - 1) / SQ_TILE_ROWS, tile, out);
}
