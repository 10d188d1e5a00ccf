/* SPDX-License-Identifier: Apache-2.0
 *
 * k_unpack.h - fills panels (k_foreign.h), many rows at a time: what sq_row_unpack says of one row, bit by
 * bit.
 *
 * A register holds the same place of several rows, one row a lane, from the first load on: 16 bytes of each
 * row are read and turned, and what was a row's stream of bytes becomes a stream of registers, four bytes of
 * every row in each. All that follows is shifts and masks of lanes, without a step across them, and ends as
 * lines of T16x4; scales are unpacked and converted for all rows at once. So one source serves every
 * instruction set. A file that includes this has before:
 *
 *   SQ_LANES                       rows of a register: 16, 8 or 4
 *   SQ_ZERO8                       128 if its dot products want 8-bit codes unsigned, else 0
 *   sq_u32, sq_i32, sq_f32         vectors of that many lanes
 *   sq_quads(p, ld, at, v)         v[j] = bytes at + 4j .. + 3 of row r in lane r, which is at p[r / 4] +
 *                                  r % 4 * ld: so many pointers that a row's address is part of the load
 *   sq_halves(v)                   the low 16 bits of each lane as f16
 *
 * Nothing outside a matrix is read: blocks are longer than 16 bytes, and what lies in smaller pieces is read
 * through windows that end with the row. */
#ifndef SQ_K_UNPACK_H
#define SQ_K_UNPACK_H

#include "kernels/k_foreign.h"

#include <string.h>

#define SQ_LANES_INLINE static inline __attribute__((always_inline))

/* The low bits of every byte. */
#define SQ_ONE_BIT 0x01010101u
#define SQ_TWO_BITS 0x03030303u
#define SQ_FOUR_BITS 0x0f0f0f0fu
#define SQ_SIX_BITS 0x3f3f3f3fu

/* Before loops whose counters must become constants: places of a block are then parts of instructions. */
#if defined(__clang__)
#define SQ_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SQ_UNROLL _Pragma("GCC unroll 16")
#endif

/* SQ_LANES rows of a panel, rows 4i .. 4i + 3 from p[i] on: lanes `lane` .. of its lines. */
typedef struct {
    const uint8_t *p[SQ_LANES / 4];
    size_t ld;
    uintptr_t next; /* what lies here of the row tile to be fetched */
    sq_panel *out;
    int32_t lane;
} sq_part;

SQ_LANES_INLINE void put_line(const sq_part *t, int32_t line, sq_u32 v) {
    memcpy(&t->out->line[line][t->lane], &v, sizeof v);
}
SQ_LANES_INLINE void put_scale(const sq_part *t, int32_t run, sq_f32 v) {
    memcpy(&t->out->scale[run][t->lane], &v, sizeof v);
}
SQ_LANES_INLINE void put_bias(const sq_part *t, int32_t run, sq_f32 v) {
    memcpy(&t->out->bias[run][t->lane], &v, sizeof v);
}

/* Bytes `at` .. + 15 of the rows. */
SQ_LANES_INLINE void quads_again(const sq_part *t, size_t at, sq_u32 v[4]) { sq_quads(t->p, t->ld, at, v); }

/* The same, and as many bytes of a later row tile are fetched into the second cache level. The rows of a
 * panel are short streams, which no prefetcher of a processor follows; all of a tile together is one run of
 * memory, and asked for in small steps it comes while registers are turned. */
SQ_LANES_INLINE void quads_at(const sq_part *t, size_t at, sq_u32 v[4]) {
    SQ_UNROLL
    for (size_t i = 0; i < SQ_LANES / 4; i++)
        __builtin_prefetch((const void *)(t->next + SQ_TILE_ROWS * at + 64 * i), 0, 2);
    quads_again(t, at, v);
}

/* Rows lane .. of the tile whose first row is `first`, from their byte `at` on. ahead: from this tile to the
 * one to be fetched. */
SQ_LANES_INLINE sq_part part_at(const uint8_t *first, size_t ld, size_t at, size_t ahead, sq_panel *out,
                                int32_t lane) {
    sq_part t = {.ld = ld, .out = out, .lane = lane};
    t.next = (uintptr_t)first + ahead + SQ_TILE_ROWS * at + (size_t)lane * 16;
    for (size_t i = 0; i < SQ_LANES / 4; i++) t.p[i] = first + ((size_t)lane + 4 * i) * ld + at;
    return t;
}

/* Byte j of each lane as a number. */
SQ_LANES_INLINE sq_f32 byte_float(sq_u32 v, int32_t j) {
    return __builtin_convertvector((sq_i32)(v >> 8 * j & 255), sq_f32);
}
SQ_LANES_INLINE sq_f32 signed_byte_float(sq_u32 v, int32_t j) {
    return __builtin_convertvector((sq_i32)(v << (24 - 8 * j)) >> 24, sq_f32);
}

/* The low four fields of `bits` bits as bytes: as two of two fields, then each of them. */
SQ_LANES_INLINE sq_u32 spread(sq_u32 v, int32_t bits) {
    const uint32_t field = (1u << bits) - 1, two = (1u << 2 * bits) - 1;
    const sq_u32 x = (v & two) | (v << (16 - 2 * bits) & two << 16);
    return (x & field * 0x10001) | (x << (8 - bits) & field * 0x1000100);
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

SQ_LANES_INLINE void unpack_32(sq_wtype type, const sq_part *t, int32_t runs) {
    const bool five = type == SQ_W_Q5_0 || type == SQ_W_Q5_1, biased = type == SQ_W_Q4_1 || type == SQ_W_Q5_1;
    const size_t bytes = 18 + (biased ? 2 : 0) + (five ? 4 : 0);
    for (int32_t s = 0; s < runs; s++) {
        sq_u32 head[4], v[4], fifth = {0};
        quads_again(t, (size_t)s * bytes, head);
        quads_at(t, (size_t)(s + 1) * bytes - 16, v);
        put_scale(t, s, sq_halves(head[0]));
        if (biased) put_bias(t, s, sq_halves(head[0] >> 16));
        if (five) fifth = biased ? head[1] : head[0] >> 16 | head[1] << 16;
        SQ_UNROLL
        for (int32_t c = 0; c < 4; c++) {
            sq_u32 low = v[c] & SQ_FOUR_BITS, high = v[c] >> 4 & SQ_FOUR_BITS;
            if (five) {
                low |= spread(fifth >> 4 * c, 1) << 4;
                high |= spread(fifth >> (16 + 4 * c), 1) << 4;
            }
            put_line(t, 8 * s + c, low);
            put_line(t, 8 * s + 4 + c, high);
        }
    }
}

SQ_LANES_INLINE void unpack_q8_0(const sq_part *t, int32_t runs) {
    for (int32_t s = 0; s < runs; s++) {
        sq_u32 head[4], v[8];
        quads_again(t, 34 * (size_t)s, head);
        quads_at(t, 34 * (size_t)s + 2, v);
        quads_at(t, 34 * (size_t)s + 18, v + 4);
        put_scale(t, s, sq_halves(head[0]));
        SQ_UNROLL
        for (int32_t c = 0; c < 8; c++) put_line(t, 8 * s + c, v[c] ^ SQ_ZERO8 * SQ_ONE_BIT);
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* Line 32n + 8k + c is pair k of what lies in register 8n + c from `at` on. high: [8] registers whose bit
 * 4n + k is the third one of it, or NULL. */
SQ_LANES_INLINE void unpack_pairs(const sq_part *t, size_t at, const sq_u32 *high) {
    SQ_UNROLL
    for (int32_t i = 0; i < 4; i++) {
        sq_u32 v[4];
        quads_at(t, at + 16 * (size_t)i, v);
        SQ_UNROLL
        for (int32_t k = 0; k < 4; k++)
            SQ_UNROLL
            for (int32_t c = 0; c < 4; c++) {
                const int32_t run = 4 * (i / 2) + k, at_run = 4 * (i % 2) + c;
                sq_u32 code = v[c] >> 2 * k & SQ_TWO_BITS;
                if (high) code |= (high[at_run] >> run & SQ_ONE_BIT) << 2;
                put_line(t, 8 * run + at_run, code);
            }
    }
}

SQ_LANES_INLINE void unpack_q2_k(const sq_part *t) {
    sq_u32 sc[4], tail[4];
    quads_at(t, 0, sc);
    quads_again(t, 68, tail);
    const sq_f32 d = sq_halves(tail[3]), dmin = sq_halves(tail[3] >> 16);
    unpack_pairs(t, 16, NULL);
    SQ_UNROLL
    for (int32_t j = 0; j < 16; j++) {
        put_scale(t, j, d * byte_float(sc[j / 4] & SQ_FOUR_BITS, j % 4));
        put_bias(t, j, -(dmin * byte_float(sc[j / 4] >> 4 & SQ_FOUR_BITS, j % 4)));
    }
}

SQ_LANES_INLINE void unpack_q3_k(const sq_part *t) {
    sq_u32 high[8], sc[4], tail[4];
    quads_at(t, 0, high);
    quads_at(t, 16, high + 4);
    quads_at(t, 92, sc); /* 12 bytes of scales are sc[1..3] */
    quads_again(t, 94, tail);
    const sq_f32 d = sq_halves(tail[3] >> 16);
    unpack_pairs(t, 32, high);
    SQ_UNROLL
    for (int32_t i = 0; i < 4; i++) { /* scales 4i .. 4i + 3: a nibble and two bits above it */
        const sq_u32 low = sc[1 + i % 2] >> 4 * (i / 2) & SQ_FOUR_BITS,
                     six = low | (sc[3] >> 2 * i & SQ_TWO_BITS) << 4;
        SQ_UNROLL
        for (int32_t j = 0; j < 4; j++) put_scale(t, 4 * i + j, d * (byte_float(six, j) - 32.0f));
    }
}

/* Six-bit scales and minima of the 8 runs, as Q4_K and Q5_K share them. */
SQ_LANES_INLINE void unpack_scale_min(const sq_part *t) {
    sq_u32 v[4];
    quads_at(t, 0, v);
    const sq_f32 d = sq_halves(v[0]), dmin = sq_halves(v[0] >> 16);
    const sq_u32 scale[2] = {v[1] & SQ_SIX_BITS, (v[3] & SQ_FOUR_BITS) | (v[1] >> 6 & SQ_TWO_BITS) << 4},
                 min[2] = {v[2] & SQ_SIX_BITS, (v[3] >> 4 & SQ_FOUR_BITS) | (v[2] >> 6 & SQ_TWO_BITS) << 4};
    SQ_UNROLL
    for (int32_t j = 0; j < 8; j++) {
        put_scale(t, j, d * byte_float(scale[j / 4], j % 4));
        put_bias(t, j, -(dmin * byte_float(min[j / 4], j % 4)));
    }
}

/* Line 16n + c is low nibbles of register 8n + c from `at` on, line 16n + 8 + c high ones. fifth: [8]
 * registers whose bit j is the fifth one in run j, or NULL. */
SQ_LANES_INLINE void unpack_nibbles(const sq_part *t, size_t at, const sq_u32 *fifth) {
    SQ_UNROLL
    for (int32_t i = 0; i < 8; i++) {
        sq_u32 v[4];
        quads_at(t, at + 16 * (size_t)i, v);
        SQ_UNROLL
        for (int32_t c = 0; c < 4; c++) {
            const int32_t run = i / 2 * 2, at_run = 4 * (i % 2) + c;
            sq_u32 low = v[c] & SQ_FOUR_BITS, high = v[c] >> 4 & SQ_FOUR_BITS;
            if (fifth) {
                low |= (fifth[at_run] >> run & SQ_ONE_BIT) << 4;
                high |= (fifth[at_run] >> (run + 1) & SQ_ONE_BIT) << 4;
            }
            put_line(t, 8 * run + at_run, low);
            put_line(t, 8 * run + 8 + at_run, high);
        }
    }
}

SQ_LANES_INLINE void unpack_q4_k(const sq_part *t) {
    unpack_scale_min(t);
    unpack_nibbles(t, 16, NULL);
}

SQ_LANES_INLINE void unpack_q5_k(const sq_part *t) {
    sq_u32 fifth[8];
    unpack_scale_min(t);
    quads_at(t, 16, fifth);
    quads_at(t, 32, fifth + 4);
    unpack_nibbles(t, 48, fifth);
}

/* Of 128 columns n the nibbles are 64 bytes and the two bits above them 32: low nibbles are the first 64
 * columns, and 32 columns share a place of the pairs. */
SQ_LANES_INLINE void unpack_q6_k(const sq_part *t) {
    SQ_UNROLL
    for (int32_t i = 0; i < 4; i++) { /* 16 bytes of pairs: 2 for each 128 columns */
        const int32_t n = i / 2, line = 32 * n + 4 * (i % 2);
        sq_u32 top[4], v[2][4];
        quads_at(t, 128 + 16 * (size_t)i, top);
        SQ_UNROLL
        for (int32_t h = 0; h < 2; h++) quads_at(t, (size_t)(64 * n + 32 * h + 16 * (i % 2)), v[h]);
        SQ_UNROLL
        for (int32_t h = 0; h < 2; h++)
            SQ_UNROLL
            for (int32_t c = 0; c < 4; c++) {
                put_line(t, line + 8 * h + c,
                         (v[h][c] & SQ_FOUR_BITS) | (top[c] >> 2 * h & SQ_TWO_BITS) << 4);
                put_line(t, line + 16 + 8 * h + c,
                         (v[h][c] >> 4 & SQ_FOUR_BITS) | (top[c] >> (4 + 2 * h) & SQ_TWO_BITS) << 4);
            }
    }
    sq_u32 sc[4], tail[4];
    quads_at(t, 192, sc);
    quads_again(t, 194, tail);
    const sq_f32 d = sq_halves(tail[3] >> 16);
    SQ_UNROLL
    for (int32_t j = 0; j < 16; j++) put_scale(t, j, d * signed_byte_float(sc[j / 4], j % 4));
}

/* Digit n of base 3 in each byte: its fraction times 3^n, in 256ths, times 3. */
SQ_LANES_INLINE sq_u32 trit(sq_u32 v, int32_t n) {
    static const uint32_t power[] = {1, 3, 9, 27, 81};
    const uint32_t apart = 0x00ff00ff;
    const sq_u32 even = (v & apart) * power[n] & apart, odd = (v >> 8 & apart) * power[n] & apart;
    return (even * 3 >> 8 & 0x00030003) | (odd * 3 & 0x03000300);
}

SQ_LANES_INLINE void unpack_tq1_0(const sq_part *t) {
    sq_u32 v[12], rest[4], tail[4];
    SQ_UNROLL
    for (size_t i = 0; i < 3; i++) quads_at(t, 16 * i, v + 4 * i);
    quads_again(t, 36, rest); /* the last 4 bytes are rest[3] */
    quads_again(t, 38, tail);
    SQ_UNROLL
    for (int32_t n = 0; n < 5; n++) {
        SQ_UNROLL
        for (int32_t c = 0; c < 8; c++) put_line(t, 8 * n + c, trit(v[c], n));
        SQ_UNROLL
        for (int32_t c = 0; c < 4; c++) put_line(t, 40 + 4 * n + c, trit(v[8 + c], n));
        if (n < 4) put_line(t, 60 + n, trit(rest[3], n));
    }
    SQ_UNROLL
    for (int32_t j = 0; j < 8; j++) put_scale(t, j, sq_halves(tail[3] >> 16));
}

SQ_LANES_INLINE void unpack_tq2_0(const sq_part *t) {
    sq_u32 tail[4];
    unpack_pairs(t, 0, NULL);
    quads_again(t, 50, tail);
    SQ_UNROLL
    for (int32_t j = 0; j < 8; j++) put_scale(t, j, sq_halves(tail[3] >> 16));
}

/* ---- AFFINE ---------------------------------------------------------------------------------- */

/* 16 bytes at `at` of each row, or as close before as the row's end allows; where they begin. */
SQ_LANES_INLINE size_t window(const sq_part *t, size_t at, sq_u32 v[4]) {
    const size_t from = at < t->ld - 16 ? at : t->ld - 16;
    quads_at(t, from, v);
    return from;
}

/* Run s from the `bits` registers at v. */
SQ_LANES_INLINE void affine_run(int32_t bits, const sq_part *t, int32_t s, const sq_u32 *v) {
    SQ_UNROLL
    for (int32_t c = 0; c < 8; c++) {
        const int32_t bit = 4 * bits * c, from = bit % 32;
        sq_u32 codes = v[bit / 32] >> from;
        if (from + 4 * bits > 32) codes |= v[bit / 32 + 1] << (32 - from);
        put_line(t, 8 * s + c, bits == 8 ? codes : spread(codes, bits));
    }
}

/* `runs` runs of 32 columns from column k0 on; they are whole numbers of 16 bytes. */
SQ_LANES_INLINE void affine_whole(int32_t bits, const sq_part *t, int32_t k0, int32_t runs) {
    for (int32_t s = 0; s < runs; s++) {
        sq_u32 v[8];
        const size_t at = (size_t)((k0 / 32 + s) * 4 * bits);
        quads_at(t, at, v);
        if (bits == 8) quads_at(t, at + 16, v + 4);
        affine_run(bits, t, s, v);
    }
}

/* The same for any number of bits. */
SQ_LANES_INLINE void affine_stream(int32_t bits, const sq_part *t, int32_t k0, int32_t runs) {
    enum { LEAD = 4 }; /* what a window begins early */
    sq_u32 raw[LEAD + SQ_PANEL_LINES];
    const size_t first = (size_t)(k0 / 8 * bits), n = (size_t)(4 * bits * runs);
    for (size_t at = 0; at < n; at += 16) {
        sq_u32 v[4];
        const size_t from = LEAD * 4 + window(t, first + at, v) - first;
        memcpy(&raw[from / 4], v, sizeof v);
    }
    for (int32_t s = 0; s < runs; s++) affine_run(bits, t, s, raw + LEAD + s * bits);
}

SQ_LANES_INLINE sq_f32 side_value(sq_scale_type st, sq_u32 v) {
    if (st == SQ_SCALE_F32) return (sq_f32)v;
    return st == SQ_SCALE_F16 ? sq_halves(v) : (sq_f32)(v << 16);
}

/* Scales or biases of `runs` runs from column k0 on. p: the side data of the tile. */
SQ_LANES_INLINE void affine_side(const sq_weight *w, const uint8_t *p, int32_t lane, size_t ahead, int32_t k0,
                                 int32_t runs, sq_f32 *out) {
    const sq_scale_type st = (sq_scale_type)w->scale_type;
    const size_t each = st == SQ_SCALE_F32 ? 4 : 2;
    const sq_part t = part_at(p, w->side_bytes / SQ_TILE_ROWS, 0, ahead * w->side_bytes, NULL, lane);
    sq_u32 v[4];
    size_t from = 0;
    for (int32_t s = 0; s < runs; s += w->group / 32) {
        const size_t at = (size_t)((k0 + 32 * s) / w->group) * each;
        if (s == 0 || at + each > from + 16) from = window(&t, at, v);
        const sq_f32 value = side_value(st, v[(at - from) / 4] >> 8 * ((at - from) % 4));
        for (int32_t i = s; i < s + w->group / 32 && i < runs; i++) out[i] = value;
    }
}

/* One scale a row. */
SQ_LANES_INLINE void affine_side_of_rows(const sq_weight *w, const uint8_t *p, int32_t runs, sq_f32 *out) {
    const sq_scale_type st = (sq_scale_type)w->scale_type;
    sq_u32 v;
    for (int32_t r = 0; r < SQ_LANES; r++) {
        uint16_t half;
        uint32_t whole;
        if (st == SQ_SCALE_F32)
            memcpy(&whole, p + 4 * r, sizeof whole);
        else
            memcpy(&half, p + 2 * r, sizeof half), whole = half;
        v[r] = whole;
    }
    for (int32_t s = 0; s < runs; s++) out[s] = side_value(st, v);
}

SQ_LANES_INLINE void unpack_side(const sq_weight *w, const uint8_t *side, int32_t tile, int32_t lane,
                                 size_t ahead, int32_t k0, int32_t runs, sq_f32 *out) {
    const uint8_t *p = side + (size_t)tile * w->side_bytes;
    if (w->group)
        affine_side(w, p, lane, ahead, k0, runs, out);
    else
        affine_side_of_rows(w, p + (size_t)lane * (w->side_bytes / SQ_TILE_ROWS), runs, out);
}

/* Whether windows fit the rows. */
static inline bool affine_fits(const sq_weight *w) {
    return w->tile_bytes / SQ_TILE_ROWS >= 16 && (w->group == 0 || w->side_bytes / SQ_TILE_ROWS >= 16);
}

SQ_LANES_INLINE void unpack_affine(const sq_weight *w, const sq_part *t, int32_t tile, size_t ahead,
                                   int32_t k0, int32_t runs) {
    sq_f32 scale[8], bias[8];
    switch (w->bits) {
    case 2: affine_stream(2, t, k0, runs); break;
    case 3: affine_stream(3, t, k0, runs); break;
    case 4: affine_whole(4, t, k0, runs); break;
    case 5: affine_stream(5, t, k0, runs); break;
    case 6: affine_stream(6, t, k0, runs); break;
    default: affine_whole(8, t, k0, runs);
    }
    /* 8 bits: unsigned codes count from 128 below, signed ones are as they are. */
    const bool shift = w->bits == 8 && w->coding == SQ_CODES_UNSIGNED;
    if (w->bits == 8 && shift == (SQ_ZERO8 == 0))
        for (int32_t l = 0; l < 8 * runs; l++) {
            sq_u32 v;
            memcpy(&v, &t->out->line[l][t->lane], sizeof v);
            put_line(t, l, v ^ 128 * SQ_ONE_BIT);
        }
    unpack_side(w, w->scales, tile, t->lane, ahead, k0, runs, scale);
    if (w->biases) unpack_side(w, w->biases, tile, t->lane, ahead, k0, runs, bias);
    for (int32_t s = 0; s < runs; s++) {
        sq_f32 b = w->biases ? bias[s] : (sq_f32){0};
        if (shift) b += 128.0f * scale[s];
        put_scale(t, s, scale[s]);
        put_bias(t, s, b);
    }
}

/* ---- panels ---------------------------------------------------------------------------------- */

/* Row by row: for a tile that is not full, and for rows too short for windows. */
static void panel_rows(const sq_weight *w, const sq_wtype_info *t, int32_t row0, int32_t k0, sq_panel *p) {
    const int32_t n = w->rows - row0 < SQ_TILE_ROWS ? w->rows - row0 : SQ_TILE_ROWS,
                  zero = sq_panel_zero(w, SQ_ZERO8);
    memset(p, 0, sizeof *p);
    for (int32_t r = 0; r < n; r++) {
        int8_t codes[SQ_PANEL];
        float scale[SQ_PANEL_RUNS], bias[SQ_PANEL_RUNS] = {0};
        sq_row_unpack(w, row0 + r, k0, codes, scale, bias);
        for (int32_t s = 0; s < SQ_PANEL / t->sub; s++) p->scale[s][r] = scale[s], p->bias[s][r] = bias[s];
        for (int32_t k = 0; k < SQ_PANEL; k++) codes[k] = (int8_t)(uint8_t)(codes[k] + zero);
        for (int32_t l = 0; l < SQ_PANEL_LINES; l++) memcpy(&p->line[l][r], codes + 4 * l, 4);
    }
}

static void panel_part(const sq_weight *w, const sq_part *t, int32_t tile, size_t ahead, int32_t k0,
                       int32_t runs) {
    switch (w->wtype) {
    case SQ_W_Q4_0: unpack_32(SQ_W_Q4_0, t, runs); break;
    case SQ_W_Q4_1: unpack_32(SQ_W_Q4_1, t, runs); break;
    case SQ_W_Q5_0: unpack_32(SQ_W_Q5_0, t, runs); break;
    case SQ_W_Q5_1: unpack_32(SQ_W_Q5_1, t, runs); break;
    case SQ_W_Q8_0: unpack_q8_0(t, runs); break;
    case SQ_W_Q2_K: unpack_q2_k(t); break;
    case SQ_W_Q3_K: unpack_q3_k(t); break;
    case SQ_W_Q4_K: unpack_q4_k(t); break;
    case SQ_W_Q5_K: unpack_q5_k(t); break;
    case SQ_W_Q6_K: unpack_q6_k(t); break;
    case SQ_W_TQ1_0: unpack_tq1_0(t); break;
    case SQ_W_TQ2_0: unpack_tq2_0(t); break;
    default: unpack_affine(w, t, tile, ahead, k0, runs);
    }
}

/* Beyond the end of a matrix a fetch does nothing, hence no pointer arithmetic. */
static void fetch_bytes(const uint8_t *p, size_t from, size_t n) {
    for (size_t i = 0; p && i < n + 63; i += 64)
        __builtin_prefetch((const void *)((uintptr_t)p + from + i), 0, 2);
}

/* Columns [k0, k0 + 256) of the first tile of a call, which no tile before it fetched; side data whole. */
static void sq_first_fetch(const sq_weight *w, int32_t tile, int32_t k0) {
    const size_t ld = w->tile_bytes / SQ_TILE_ROWS, n = ld * SQ_PANEL / (size_t)w->cols;
    if (k0 >= w->cols) return;
    for (size_t r = 0; r < SQ_TILE_ROWS; r++)
        fetch_bytes(w->data, (size_t)tile * w->tile_bytes + r * ld + (size_t)(k0 / SQ_PANEL) * n, n);
    if (k0 > 0) return;
    fetch_bytes(w->scales, (size_t)tile * w->side_bytes, w->side_bytes);
    fetch_bytes(w->biases, (size_t)tile * w->side_bytes, w->side_bytes);
}

/* Columns [k0, k0 + 256) of a row tile; k0 is a multiple of 256. The same of tile + ahead is fetched. */
static void sq_panel_load(const sq_weight *w, const sq_wtype_info *t, int32_t tile, int32_t ahead, int32_t k0,
                          sq_panel *p) {
    const int32_t row0 = tile * SQ_TILE_ROWS, left = w->cols - k0,
                  runs = left < SQ_PANEL ? left / 32 : SQ_PANEL / 32;
    if (w->rows - row0 < SQ_TILE_ROWS || (w->wtype == SQ_W_AFFINE && !affine_fits(w))) {
        panel_rows(w, t, row0, k0, p);
        return;
    }
    if (left < SQ_PANEL) memset(p, 0, sizeof *p);
    const size_t ld = w->tile_bytes / SQ_TILE_ROWS,
                 at = t->block ? (size_t)(k0 / t->block) * (size_t)t->block_bytes : 0;
    for (int32_t lane = 0; lane < SQ_TILE_ROWS; lane += SQ_LANES) {
        const sq_part part = part_at(w->data + (size_t)tile * w->tile_bytes, ld, at,
                                     (size_t)ahead * w->tile_bytes, p, lane);
        panel_part(w, &part, tile, (size_t)ahead, k0, runs);
    }
}

#endif
