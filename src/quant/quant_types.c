/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_types.c - the table of weight types and the sizes that follow from it. */
#include "quant/quant_int.h"

#include <assert.h>

_Static_assert(SQ_I4_RECORD == 512 + SQ_TILE_ROWS * 2 * 2, "codes, scales, biases");
_Static_assert(SQ_I4_G32_RECORD == 512 + SQ_TILE_ROWS * 2 * 4, "codes, two of each");
_Static_assert(SQ_I3_RECORD == 256 + 128 + SQ_TILE_ROWS * 2 * 2, "two planes, scales, biases");
_Static_assert(SQ_I2_RECORD == 256 + SQ_TILE_ROWS * 2 * 2, "one plane, scales, biases");
_Static_assert(SQ_I8_RECORD == SQ_TILE_ROWS * SQ_GROUP && SQ_T2_RECORD == SQ_I8_RECORD / 4, "codes alone");
_Static_assert((SQ_I4_RECORD | SQ_I4_G32_RECORD | SQ_I8_RECORD | SQ_I3_RECORD | SQ_I2_RECORD | SQ_T2_RECORD)
                       % 64 == 0, "records are whole cache lines");

#define ROWS(name, bits) {name, bits, SQ_LAYOUT_ROWS, 0, 0, 0, 0, false, false}
#define T16X4(name, bits, record, sub, bias, halves) \
    {name, bits, SQ_LAYOUT_T16X4, record, 0, 0, sub, bias, halves}
#define BLOCKS(name, bits, block, bytes, sub, bias) \
    {name, bits, SQ_LAYOUT_FOREIGN, 0, block, bytes, sub, bias, false}

static const sq_wtype_info infos[] = {
    [SQ_W_F32] = ROWS("f32", 32),
    [SQ_W_F16] = ROWS("f16", 16),
    [SQ_W_BF16] = ROWS("bf16", 16),
    /*                        bits  record  sub  bias  halves */
    [SQ_W_I8_ROW] = T16X4("int8-row", 8, SQ_I8_RECORD, 0, false, false),
    [SQ_W_I8_G64] = T16X4("int8-g64", 8, SQ_I8_RECORD, 64, false, true),
    [SQ_W_I4_G64] = T16X4("int4-g64", 4, SQ_I4_RECORD, 64, true, true),
    [SQ_W_I4_G32] = T16X4("int4-g32", 4, SQ_I4_G32_RECORD, 32, true, true),
    [SQ_W_I8_G32] = T16X4("int8-g32", 8, SQ_I8_RECORD, 32, false, true),
    [SQ_W_I3_G64] = T16X4("int3-g64", 3, SQ_I3_RECORD, 64, true, true),
    [SQ_W_I2_G64] = T16X4("int2-g64", 2, SQ_I2_RECORD, 64, true, true),
    [SQ_W_T2_ROW] = T16X4("ternary", 2, SQ_T2_RECORD, 0, false, false),
    /*                    bits  block  bytes  sub  bias */
    [SQ_W_Q4_0] = BLOCKS("q4_0", 4, 32, 18, 32, false),
    [SQ_W_Q4_1] = BLOCKS("q4_1", 4, 32, 20, 32, true),
    [SQ_W_Q5_0] = BLOCKS("q5_0", 5, 32, 22, 32, false),
    [SQ_W_Q5_1] = BLOCKS("q5_1", 5, 32, 24, 32, true),
    [SQ_W_Q8_0] = BLOCKS("q8_0", 8, 32, 34, 32, false),
    [SQ_W_Q2_K] = BLOCKS("q2_k", 2, 256, 84, 16, true),
    [SQ_W_Q3_K] = BLOCKS("q3_k", 3, 256, 110, 16, false),
    [SQ_W_Q4_K] = BLOCKS("q4_k", 4, 256, 144, 32, true),
    [SQ_W_Q5_K] = BLOCKS("q5_k", 5, 256, 176, 32, true),
    [SQ_W_Q6_K] = BLOCKS("q6_k", 6, 256, 210, 16, false),
    [SQ_W_TQ1_0] = BLOCKS("tq1_0", 2, 256, 54, 32, false),
    [SQ_W_TQ2_0] = BLOCKS("tq2_0", 2, 256, 66, 32, false),
    [SQ_W_AFFINE] = BLOCKS("affine", 0, 0, 0, 32, true), /* bits: sq_weight.bits */
};
_Static_assert(SQ_COUNT(infos) == SQ_W_COUNT, "one line per type");

const sq_wtype_info *sq_wtype_get(sq_wtype t) {
    assert((unsigned)t < SQ_W_COUNT);
    return &infos[t];
}

/* Bytes of 16 rows of `cols` columns; not for AFFINE. Cannot wrap for cols < 2^48. */
static uint64_t tile_bytes_of(sq_wtype t, uint64_t cols) {
    const sq_wtype_info *info = &infos[t];
    if (info->layout == SQ_LAYOUT_ROWS) return SQ_TILE_ROWS * cols * (uint64_t)(info->bits / 8);
    if (info->layout == SQ_LAYOUT_FOREIGN)
        return SQ_TILE_ROWS * (cols / (uint64_t)info->block) * (uint64_t)info->block_bytes;
    uint64_t groups = (cols + SQ_GROUP - 1) / SQ_GROUP, bytes = groups * (uint64_t)info->record_bytes;
    if (info->bias) return bytes; /* scales and biases are in the records */
    if (info->sub == 0) return bytes + SQ_TILE_ROWS * sizeof(float);
    uint64_t scales = groups * (uint64_t)(SQ_GROUP / info->sub) * SQ_TILE_ROWS * sizeof(uint16_t);
    return bytes + (scales + 63) / 64 * 64;
}

static bool whole_blocks(sq_wtype t, int64_t cols) {
    return infos[t].block == 0 || cols % infos[t].block == 0;
}

sq_weight sq_weight_make(sq_wtype t, sq_scale_type st, int32_t rows, int32_t cols, const uint8_t *data) {
    assert((unsigned)t < SQ_W_COUNT && t != SQ_W_AFFINE && rows > 0 && cols > 0 && whole_blocks(t, cols));
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

static bool affine_bits_ok(sq_coding coding, int32_t bits) {
    if (coding == SQ_CODES_SIGNED) return bits == 8;
    if (coding == SQ_CODES_MINUS7) return bits == 4;
    return bits >= 2 && bits <= 8 && bits != 7;
}

sq_weight sq_weight_affine(sq_coding coding, int32_t bits, int32_t group, sq_scale_type st, int32_t rows,
                           int32_t cols, const uint8_t *codes, const uint8_t *scales, const uint8_t *biases) {
    assert(rows > 0 && cols > 0 && cols % 32 == 0 && affine_bits_ok(coding, bits));
    assert(group == 0 || ((group == 32 || group == 64 || group == 128) && cols % group == 0));
    const size_t scale_bytes = st == SQ_SCALE_F32 ? sizeof(float) : sizeof(uint16_t);
    return (sq_weight){
        .data = codes,
        .rows = rows,
        .cols = cols,
        .groups = (int32_t)(((int64_t)cols + SQ_GROUP - 1) / SQ_GROUP),
        .wtype = SQ_W_AFFINE,
        .scale_type = (uint8_t)st,
        .bits = (uint8_t)bits,
        .coding = (uint8_t)coding,
        .group = group,
        .tile_bytes = SQ_TILE_ROWS * ((size_t)cols / 8 * (size_t)bits),
        .scales = scales,
        .biases = biases,
        .side_bytes = SQ_TILE_ROWS * (group ? (size_t)(cols / group) : 1) * scale_bytes,
    };
}

bool sq_weight_bytes(sq_wtype t, int64_t rows, int64_t cols, uint64_t *out) {
    if ((unsigned)t >= SQ_W_COUNT || t == SQ_W_AFFINE) return false;
    if (rows < 1 || rows > INT32_MAX || cols < 1 || cols > INT32_MAX || !whole_blocks(t, cols)) return false;
    uint64_t tile = tile_bytes_of(t, (uint64_t)cols);
    if (!sq_wtype_packed(t)) return sq_mul_ok((uint64_t)rows, tile / SQ_TILE_ROWS, out);
    return sq_mul_ok(((uint64_t)rows + SQ_TILE_ROWS - 1) / SQ_TILE_ROWS, tile, out);
}

sq_weight sq_weight_slice(const sq_weight *w, int32_t tile0, int32_t n) {
    const int32_t tiles = sq_weight_tiles(w);
    assert(tile0 >= 0 && tile0 < tiles && n > 0);
    sq_weight part = *w;
    const int32_t left = w->rows - tile0 * SQ_TILE_ROWS;
    part.rows = n < tiles - tile0 ? n * SQ_TILE_ROWS : left;
    part.data += (size_t)tile0 * w->tile_bytes;
    if (part.scales) part.scales += (size_t)tile0 * w->side_bytes;
    if (part.biases) part.biases += (size_t)tile0 * w->side_bytes;
    part.low = NULL;
    return part;
}
