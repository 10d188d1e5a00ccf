/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_kv.h - the tile: 32 consecutive tokens of one KV head in one layer, in one of five formats.
 *
 * Open tiles are being written, a token at a time; sealed ones are made from a full open tile and never
 * change. d: head dimension, padded to 16.
 *
 *   F16, F32   open.    K channel-major [d][32], V token-major [32][d], of f16 or f32
 *   Q8 Q4 Q2   sealed.  x = z + s * (u - c), u the code of b bits, c = (2^b - 1) / 2
 *              K: s and z per channel, over the 32 tokens; V: s and z per token, over groups of 64 channels
 *              (Liu et al., "KIVI", 2024, arXiv:2402.02750: keys have channels that are large in every token)
 *
 *   K tile     codes | s [d] u8, a coarse float | z [d] f16          each part padded to 64 bytes
 *   V tile     codes | s [groups][32] f16 | z [groups][32] f16       groups = ceil(d / 64)
 *
 * Codes lie in the order the dot products of bytes want them. A *line* is 64 bytes:
 *
 *   K: 16 tokens x 4 channels, byte (t % 16) * 4 + c % 4       V: 16 channels x 4 tokens, byte (c % 16) * 4 +
 * t % 4
 *
 * With 4 or 2 bits a line of bytes holds 2 or 4 such lines of codes:
 *
 *        line                                   bits from
 *   K Q8 2 (c / 4) + t / 16                     0
 *     Q4 c / 4                                  4 (t / 16)
 *     Q2 c / 8                                  4 ((c / 4) % 2) + 2 (t / 16)
 *   V Q8 (t / 4) (d / 16) + c / 16              0
 *     Q4 ((t / 4) % 4) (d / 16) + c / 16        4 (t / 16)
 *     Q2 ((t / 4) % 2) (d / 16) + c / 16        2 (t / 8)
 *
 * The scale of a key channel is a float of 5 exponent and 3 mantissa bits, 2^(e - 15) * (1 + m / 8): from
 * 2^-15 to past the largest f16, rounded up so that the range of the channel is covered. */
#ifndef SQ_QUANT_KV_H
#define SQ_QUANT_KV_H

#include "base/base.h"

#include <string.h>

enum {
    SQ_KV_TILE = 32,  /* tokens */
    SQ_KV_GROUP = 64, /* channels that share a scale of V */
    SQ_KV_CELL = 128  /* tokens: the grid on which tiles become sealed */
};

typedef enum { SQ_KV_F16, SQ_KV_F32, SQ_KV_Q8, SQ_KV_Q4, SQ_KV_Q2, SQ_KV_FORMATS } sq_kv_format;

static inline bool sq_kv_is_sealed(sq_kv_format f) { return f >= SQ_KV_Q8; }
/* What is read open, in tiles: the first ones, where attention likes to rest (the sink), and before the cell
 * of a query (the residual window of KIVI). */
typedef struct {
    int32_t sink, residual;
} sq_kv_window;
/* What is read sealed depends on position alone: a query at position p reads tiles [sink, n) sealed, and open
 * the sink, its own cell, and the residual before that. */
static inline int32_t sq_kv_sealed_tiles(sq_kv_window w, int32_t p) {
    const int32_t n = p / SQ_KV_CELL * (SQ_KV_CELL / SQ_KV_TILE) - w.residual;
    return n < w.sink ? w.sink : n;
}
/* Bits of an element, or of a code. */
static inline int32_t sq_kv_bits(sq_kv_format f) {
    static const uint8_t bits[SQ_KV_FORMATS] = {16, 32, 8, 4, 2};
    return bits[f];
}
static inline size_t sq_kv_code_bytes(sq_kv_format f, int32_t d) {
    return (size_t)d * SQ_KV_TILE * (size_t)sq_kv_bits(f) / 8;
}
static inline int32_t sq_kv_groups(int32_t d) { return sq_div_up(d, SQ_KV_GROUP); }
/* Offset of z in the parameters of a tile; s is at 0. */
static inline size_t sq_kv_k_z(int32_t d) { return sq_align_up((size_t)d, 64); }
static inline size_t sq_kv_v_z(int32_t d) { return (size_t)sq_kv_groups(d) * SQ_KV_TILE * 2; }

static inline size_t sq_kv_k_bytes(sq_kv_format f, int32_t d) {
    const size_t params = sq_kv_is_sealed(f) ? sq_kv_k_z(d) + sq_align_up((size_t)d * 2, 64) : 0;
    return sq_kv_code_bytes(f, d) + params;
}
static inline size_t sq_kv_v_bytes(sq_kv_format f, int32_t d) {
    return sq_kv_code_bytes(f, d) + (sq_kv_is_sealed(f) ? 2 * sq_kv_v_z(d) : 0);
}

/* How a sequence reads a tile, where that is not a matter of position. */
enum { SQ_KV_READ_OPEN = 1, SQ_KV_READ_SEALED = 2 };
/* A page holds the tiles of all heads of one layer; before them a line that says what they are. */
typedef struct {
    uint32_t magic;
    uint8_t k_fmt, v_fmt, n_kv_heads, flags;
    uint16_t d, layer;
    uint32_t pos0;        /* true position of slot 0 */
    uint8_t reserved[48];
} sq_kv_page_header;
_Static_assert(sizeof(sq_kv_page_header) == 64, "page header is one line");

/* Where a code lies: byte of the tile, and its lowest bit. */
typedef struct {
    size_t at;
    int32_t shift;
} sq_kv_place;
static inline sq_kv_place sq_kv_k_place(sq_kv_format f, int32_t c, int32_t t) {
    const size_t byte = (size_t)(t % 16 * 4 + c % 4);
    switch (f) {
    case SQ_KV_Q8: return (sq_kv_place){(size_t)(c / 4 * 2 + t / 16) * 64 + byte, 0};
    case SQ_KV_Q4: return (sq_kv_place){(size_t)(c / 4) * 64 + byte, t / 16 * 4};
    default: return (sq_kv_place){(size_t)(c / 8) * 64 + byte, c / 4 % 2 * 4 + t / 16 * 2};
    }
}
static inline sq_kv_place sq_kv_v_place(sq_kv_format f, int32_t d, int32_t c, int32_t t) {
    const size_t byte = (size_t)(c % 16 * 4 + t % 4), block = (size_t)(c / 16);
    const int32_t quads = sq_kv_bits(f); /* lines of a block: 8, 4, 2 quads of tokens */
    const size_t line = (size_t)(t / 4 % quads) * (size_t)(d / 16) + block;
    return (sq_kv_place){line * 64 + byte, t / 4 / quads * sq_kv_bits(f)};
}

/* The scale of a key channel: its code to a float, and the least code that is no smaller than s. */
static inline float sq_kv_scale(uint8_t code) {
    const uint32_t bits = ((uint32_t)code << 20) + (112u << 23);
    float s;
    memcpy(&s, &bits, sizeof s);
    return s;
}
static inline uint8_t sq_kv_scale_code(float s) {
    uint32_t bits;
    memcpy(&bits, &s, sizeof bits);
    const int32_t code = ((int32_t)bits - (112 << 23) + 0xFFFFF) >> 20;
    return (uint8_t)(code < 0 ? 0 : code > 255 ? 255 : code);
}

#endif
