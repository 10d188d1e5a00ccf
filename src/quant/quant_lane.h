/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_lane.h - the layout T16x4 (drawn in quant.h and docs/quant.md): the 64 codes of one row of a record
 * into their places and back, and where scales lie.
 *
 * A lane owns 4 bytes of every 64-byte line, and 4 bytes of a plain row are 4 neighbouring columns. So a
 * row's 64 codes are eight words of two lines' worth each, and every layout is a handful of shifts and masks
 * on those: a bit of one code never meets a bit of its neighbour. */
#ifndef SQ_QUANT_LANE_H
#define SQ_QUANT_LANE_H

#include "quant/quant.h"

#include <string.h>

enum { LANE_WORDS = SQ_GROUP / 8 };

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte)) /* the same byte eight times */

/* Words of 8 codes of one lane: 4 bytes each of lines c and c + 1. */
static inline void put_lines(uint8_t *rec, int32_t lane, int32_t c, uint64_t pair) {
    uint8_t bytes[8];
    memcpy(bytes, &pair, 8);
    memcpy(rec + 64 * c + 4 * lane, bytes, 4);
    memcpy(rec + 64 * (c + 1) + 4 * lane, bytes + 4, 4);
}

static inline uint64_t get_lines(const uint8_t *rec, int32_t lane, int32_t c) {
    uint8_t bytes[8];
    uint64_t pair;
    memcpy(bytes, rec + 64 * c + 4 * lane, 4);
    memcpy(bytes + 4, rec + 64 * (c + 1) + 4 * lane, 4);
    memcpy(&pair, bytes, 8);
    return pair;
}

static inline void put_8(uint8_t *rec, int32_t lane, const uint64_t *x) {
    for (int32_t i = 0; i < LANE_WORDS; i++) put_lines(rec, lane, 2 * i, x[i]);
}

static inline void get_8(const uint8_t *rec, int32_t lane, uint64_t *x) {
    for (int32_t i = 0; i < LANE_WORDS; i++) x[i] = get_lines(rec, lane, 2 * i);
}

/* Columns k and 32 + k share a byte. */
static inline void put_4(uint8_t *rec, int32_t lane, const uint64_t *x) {
    for (int32_t i = 0; i < 4; i++) put_lines(rec, lane, 2 * i, x[i] | x[i + 4] << 4);
}

static inline void get_4(const uint8_t *rec, int32_t lane, uint64_t *x) {
    for (int32_t i = 0; i < 4; i++) {
        const uint64_t pair = get_lines(rec, lane, 2 * i);
        x[i] = pair & EACH(15);
        x[i + 4] = pair >> 4 & EACH(15);
    }
}

/* The low plane: columns k, 16 + k, 32 + k and 48 + k share a byte. */
static inline void put_low(uint8_t *rec, int32_t lane, const uint64_t *x) {
    for (int32_t i = 0; i < 2; i++) {
        uint64_t all = 0;
        for (int32_t p = 0; p < 4; p++) all |= (x[i + 2 * p] & EACH(3)) << 2 * p;
        put_lines(rec, lane, 2 * i, all);
    }
}

static inline void get_low(const uint8_t *rec, int32_t lane, uint64_t *x) {
    for (int32_t i = 0; i < 2; i++) {
        const uint64_t pair = get_lines(rec, lane, 2 * i);
        for (int32_t p = 0; p < 4; p++) x[i + 2 * p] = pair >> 2 * p & EACH(3);
    }
}

/* The high plane: eight columns 4 apart share a byte. A word holds bits i (its low half) and i + 1. */
static inline uint32_t high_half(const uint64_t *x) {
    uint64_t all = 0;
    for (int32_t i = 0; i < 4; i++) all |= (x[i] >> 2 & EACH(1)) << 2 * i;
    return (uint32_t)all | (uint32_t)(all >> 32) << 1;
}

static inline void put_high(uint8_t *rec, int32_t lane, const uint64_t *x) {
    put_lines(rec, lane, 0, high_half(x) | (uint64_t)high_half(x + 4) << 32);
}

static inline void get_high(const uint8_t *rec, int32_t lane, uint64_t *x) {
    const uint64_t pair = get_lines(rec, lane, 0);
    for (int32_t h = 0; h < 2; h++) {
        const uint64_t line = (uint32_t)(pair >> 32 * h), both = line | line >> 1 << 32;
        for (int32_t i = 0; i < 4; i++) x[4 * h + i] |= (both >> 2 * i & EACH(1)) << 2;
    }
}

/* Codes are in range; 8-bit ones are s8. */
static inline void lane_put(sq_wtype t, uint8_t *rec, int32_t lane, const uint8_t codes[SQ_GROUP]) {
    uint64_t x[LANE_WORDS];
    memcpy(x, codes, sizeof x);
    switch (t) {
    case SQ_W_I4_G64:
    case SQ_W_I4_G32: put_4(rec, lane, x); break;
    case SQ_W_I3_G64: put_high(rec + 256, lane, x); /* fallthrough */
    case SQ_W_I2_G64:
    case SQ_W_T2_ROW: put_low(rec, lane, x); break;
    default: put_8(rec, lane, x);
    }
}

static inline void lane_get(sq_wtype t, const uint8_t *rec, int32_t lane, uint8_t codes[SQ_GROUP]) {
    uint64_t x[LANE_WORDS];
    switch (t) {
    case SQ_W_I4_G64:
    case SQ_W_I4_G32: get_4(rec, lane, x); break;
    case SQ_W_I3_G64:
        get_low(rec, lane, x);
        get_high(rec + 256, lane, x);
        break;
    case SQ_W_I2_G64:
    case SQ_W_T2_ROW: get_low(rec, lane, x); break;
    default: get_8(rec, lane, x);
    }
    memcpy(codes, x, sizeof x);
}

/* Where the scale of lane r = row % 16 and of its j-th run of `sub` columns lies in a row tile of W: inside
 * the record for types with bias, behind the codes for others (one f32 per lane where sub is 0). */
static inline size_t scale_at(const sq_wtype_info *t, int32_t groups, int32_t j, int32_t lane) {
    if (t->bias) {
        const int32_t per = SQ_GROUP / t->sub, codes = SQ_TILE_ROWS * SQ_GROUP / 8 * t->bits;
        return (size_t)(j / per) * (size_t)t->record_bytes + (size_t)(codes + 32 * (j % per) + 2 * lane);
    }
    const size_t at = (size_t)groups * (size_t)t->record_bytes;
    return at + (t->halves ? 32 * (size_t)j + 2 * (size_t)lane : sizeof(float) * (size_t)lane);
}
/* From a scale to its bias. */
static inline size_t bias_behind(const sq_wtype_info *t) { return (size_t)(32 * (SQ_GROUP / t->sub)); }

/* What a row tile holds before its rows come: padding. */
static inline void tile_clear(sq_wtype t, int32_t cols, uint8_t *out) {
    const sq_weight tile = sq_weight_make(t, SQ_SCALE_F32, SQ_TILE_ROWS, cols, out);
    memset(out, 0, tile.tile_bytes);
    if (t == SQ_W_T2_ROW) memset(out, 0x55, (size_t)tile.groups * SQ_T2_RECORD); /* code 1 is the value 0 */
}

#endif
