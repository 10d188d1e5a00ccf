/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_q_avx512.c - packed integer matrices with VNNI. One 64-byte line of T16x4 is one register: 16
 * rows by 4 columns, the unsigned operand of vpdpbusd; 4 activation codes, broadcast, are the signed one.
 * Lanes are rows, so there are no horizontal sums. I8 weights become unsigned by flipping the sign bit (w
 * + 128), which is taken back by starting the sum at -128 * isum.
 *
 * Ladder. One thread of an AMD EPYC, family 26, near 4 GHz: plain read loop 41 GB/s, vpdpbusd 1013 Gop/s.
 * 8960 x 1536 out of cache, gcc 12. 1 token as a share of the read loop, 256 tokens as a share of the peak:
 *
 *     rung                                              int4-g64, 0.563 B    int8-g64, 1.031 B
 *     12 tokens a tile, line by line                    91 %, 63 %           88 %, 47 %
 *     ... each tile fetched 6 kB ahead, 8 tokens        95 %, 70 %           86 %, 48 %
 *     8 operands held while 8 tokens pass               97 %, 70 %           87 %, 64 %
 *
 * int8-row reaches 100 % and 1 token needs no fetching there. What fetching is for is 2 to 32 tokens, too
 * slow for the hardware's stream to run ahead: with 8 tokens int4 went from 9 to 19 GB/s of weights, int8
 * from 11 to 26. Next rung: two tiles by 4 tokens, which halves the broadcasts
 * (clang 14 already finds 74 % and 71 % in this code). */
#include "kernels/avx512/k_avx512.h"

enum {
    N_MAX = 8,              /* tokens of a block: 8 integer and 8 float accumulators */
    AHEAD = 6144,           /* bytes a tile is fetched ahead of its use */
    PANEL_BYTES = 384 << 10 /* weights that stay in L2 while tokens pass over them */
};

/* ---- one record: 16 rows, 64 columns, N tokens ----------------------------------------------- */

BLOCK __m512i quad(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm512_set1_epi32(v);
}

/* Both kinds take 8 operands of weights at a time and let token after token use them: with the tokens inside,
 * each quad would need a pointer of its own, and 8 of those do not fit the integer registers.
 *
 * dot[i] = codes of the record times q[i * ld .. +64), exact. */
BLOCK void dots_i4(int N, const uint8_t *record, const int8_t *q, size_t ld, __m512i *dot) {
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < N; i++) dot[i] = _mm512_setzero_si512();
    UNROLL
    for (int part = 0; part < 2; part++) { /* columns 16 part .. +16 and 32 + 16 part .. +16 */
        __m512i lo[4], hi[4];
        UNROLL
        for (int c = 0; c < 4; c++) {
            const size_t at = 64 * (size_t)(4 * part + c);
            const __m512i line = _mm512_loadu_si512(record + at);
            fetch(record, AHEAD + at);
            lo[c] = _mm512_and_si512(line, nibble);
            hi[c] = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
        }
        for (int i = 0; i < N; i++) {
            const int8_t *qi = q + (size_t)i * ld + 16 * part;
            UNROLL
            for (int c = 0; c < 4; c++) {
                dot[i] = _mm512_dpbusd_epi32(dot[i], lo[c], quad(qi + 4 * c));
                dot[i] = _mm512_dpbusd_epi32(dot[i], hi[c], quad(qi + 32 + 4 * c));
            }
        }
    }
}

/* The sum of the codes of token i is isum[i * groups]. For one token the lines are left to the hardware,
 * whose stream is 6 % faster. */
BLOCK void dots_i8(int N, const uint8_t *record, const int8_t *q, size_t ld, const int32_t *isum,
                   size_t groups, __m512i *dot) {
    const __m512i sign = _mm512_set1_epi8(-128);
    for (int i = 0; i < N; i++) dot[i] = _mm512_set1_epi32(-128 * isum[(size_t)i * groups]);
    UNROLL
    for (int part = 0; part < 2; part++) { /* columns 32 part .. +32 */
        __m512i line[8];
        UNROLL
        for (int c = 0; c < 8; c++) {
            const size_t at = 64 * (size_t)(8 * part + c);
            if (N > 1) fetch(record, AHEAD + at);
            line[c] = _mm512_xor_si512(_mm512_loadu_si512(record + at), sign);
        }
        for (int i = 0; i < N; i++) {
            const int8_t *qi = q + (size_t)i * ld + 32 * part;
            UNROLL
            for (int c = 0; c < 8; c++) dot[i] = _mm512_dpbusd_epi32(dot[i], line[c], quad(qi + 4 * c));
        }
    }
}

/* 16 scales or biases of a group. */
BLOCK __m512 scales16(uint8_t scale_type, const uint8_t *p) {
    const __m256i h = _mm256_loadu_si256((const __m256i *)p);
    return scale_type == SQ_SCALE_F16 ? _mm512_cvtph_ps(h) : bf16_widen(h);
}

/* ---- one row tile, N tokens: R2 -------------------------------------------------------------- */

/* y0: output of the first token, first row of the tile; `rows` lanes of it exist. */
BLOCK void tile_block(sq_wtype type, int N, const sq_weight *w, const uint8_t *tile, const sq_act *x,
                      int32_t i0, float *y0, size_t ldy, __mmask16 rows) {
    const size_t groups = (size_t)x->groups, ld = groups * SQ_GROUP, at = (size_t)i0 * groups;
    const uint8_t *tail =
        tile + groups * (type == SQ_W_I4_G64 ? SQ_I4_RECORD : SQ_I8_RECORD); /* I8: scales */
    const int8_t *q = x->q + (size_t)i0 * ld;
    const float *sx = x->scale + at, *xsum = x->xsum + at;
    const int32_t *isum = x->isum + at;
    __m512 acc[N_MAX];
    __m512i dot[N_MAX];
    for (int i = 0; i < N; i++) acc[i] = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g++) {
        if (type == SQ_W_I4_G64) {
            const uint8_t *record = tile + g * SQ_I4_RECORD;
            dots_i4(N, record, q + g * SQ_GROUP, ld, dot);
            const __m512 sw = scales16(w->scale_type, record + 512),
                         bw = scales16(w->scale_type, record + 544);
            for (int i = 0; i < N; i++) {
                const __m512 t = _mm512_mul_ps(sw, _mm512_set1_ps(sx[(size_t)i * groups + g]));
                acc[i] = _mm512_fmadd_ps(t, _mm512_cvtepi32_ps(dot[i]), acc[i]);
                acc[i] = _mm512_fmadd_ps(bw, _mm512_set1_ps(xsum[(size_t)i * groups + g]), acc[i]);
            }
        } else {
            if (type == SQ_W_I8_G64) fetch(tail, w->tile_bytes + 32 * g);
            dots_i8(N, tile + g * SQ_I8_RECORD, q + g * SQ_GROUP, ld, isum + g, groups, dot);
            const __m512 sw =
                type == SQ_W_I8_G64 ? scales16(w->scale_type, tail + 32 * g) : _mm512_setzero_ps();
            for (int i = 0; i < N; i++) {
                __m512 t = _mm512_set1_ps(sx[(size_t)i * groups + g]);
                if (type == SQ_W_I8_G64) t = _mm512_mul_ps(sw, t);
                acc[i] = _mm512_fmadd_ps(t, _mm512_cvtepi32_ps(dot[i]), acc[i]);
            }
        }
    }
    for (int i = 0; i < N; i++) {
        if (type == SQ_W_I8_ROW) acc[i] = _mm512_mul_ps(acc[i], _mm512_loadu_ps(tail));
        _mm512_mask_storeu_ps(y0 + (size_t)i * ldy, rows, acc[i]);
    }
}

/* ---- blocking -------------------------------------------------------------------------------- */

/* One row tile by n tokens from i0 on: the block of exactly that many, so that each tile is unpacked once. */
BLOCK void tile_tokens(sq_wtype type, const sq_weight *w, int32_t tile, const sq_act *x, int32_t i0,
                       int32_t n, float *y, size_t ldy) {
    const uint8_t *p = w->data + (size_t)tile * w->tile_bytes;
    const int32_t row0 = tile * SQ_TILE_ROWS;
    const __mmask16 rows = first_lanes(w->rows - row0);
    float *y0 = y + (size_t)i0 * ldy + row0;
    switch (n) {
#define CASE(N) \
    case N: tile_block(type, N, w, p, x, i0, y0, ldy, rows); break
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
        CASE(5);
        CASE(6);
        CASE(7);
        CASE(8);
#undef CASE
    }
}

/* Panels of row tiles that stay in L2 while blocks of tokens walk over them: each block of activations is
 * then read once a panel and not once a tile. Blocks are as equal as can be: 17 tokens are 6, 6 and 5. */
BLOCK void gemm_packed(sq_wtype type, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
                       float *y, size_t ldy) {
    const int32_t panel_max = (int32_t)(PANEL_BYTES / w->tile_bytes), panel = panel_max < 1 ? 1 : panel_max;
    const int32_t blocks = sq_div_up(x->m, N_MAX);
    for (int32_t p0 = tile0; p0 < tile1; p0 += panel) {
        const int32_t p1 = tile1 - p0 < panel ? tile1 : p0 + panel;
        for (int32_t b = 0, i = 0; b < blocks; b++) {
            const int32_t n = sq_div_up(x->m - i, blocks - b);
            for (int32_t t = p0; t < p1; t++) tile_tokens(type, w, t, x, i, n, y, ldy);
            i += n;
        }
    }
}

void sq_gemm_i8row__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I8_ROW, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g64__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I8_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g64__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I4_G64, w, tile0, tile1, x, y, ldy);
}
