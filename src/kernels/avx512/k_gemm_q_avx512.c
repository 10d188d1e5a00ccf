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

/* ---- types of 2 and 3 bits, and those with a scale per 32 columns ---------------------------- */

/* Each byte of v >> n, or << -n, where the caller masks what crosses from the neighbouring byte. n is a
 * constant once loops are unrolled; the switch keeps it one for the compiler that did not. */
BLOCK __m512i shifted(__m512i v, int n) {
    switch (n) {
    case -2: return _mm512_slli_epi16(v, 2);
    case -1: return _mm512_slli_epi16(v, 1);
    case 1: return _mm512_srli_epi16(v, 1);
    case 2: return _mm512_srli_epi16(v, 2);
    case 3: return _mm512_srli_epi16(v, 3);
    case 4: return _mm512_srli_epi16(v, 4);
    case 5: return _mm512_srli_epi16(v, 5);
    case 6: return _mm512_srli_epi16(v, 6);
    default: return v;
    }
}

/* Columns 16 part + 4 c .. +4 of 16 rows, as unsigned bytes. */
BLOCK __m512i operand(sq_wtype type, const uint8_t *record, int part, int c) {
    if (type == SQ_W_I8_G32)
        return _mm512_xor_si512(_mm512_loadu_si512(record + 64 * (4 * part + c)), _mm512_set1_epi8(-128));
    if (type == SQ_W_I4_G32) {
        const __m512i line = _mm512_loadu_si512(record + 64 * (4 * (part & 1) + c));
        return _mm512_and_si512(shifted(line, 4 * (part >> 1)), _mm512_set1_epi8(15));
    }
    const __m512i low =
        _mm512_and_si512(shifted(_mm512_loadu_si512(record + 64 * c), 2 * part), _mm512_set1_epi8(3));
    if (type != SQ_W_I3_G64) return low;
    const __m512i high = _mm512_loadu_si512(record + 256 + 64 * (part >> 1));
    return _mm512_ternarylogic_epi32(low, shifted(high, 4 * (part & 1) + c - 2), _mm512_set1_epi8(4),
                                     0xf8); /* low | (high & 4) */
}

/* dot[i] += operands of columns 32 half .. +32 times token i. */
BLOCK void dots_half(sq_wtype type, int N, const uint8_t *record, int half, const int8_t *q, size_t ld,
                     __m512i *dot) {
    __m512i v[8];
    UNROLL
    for (int c = 0; c < 8; c++) v[c] = operand(type, record, 2 * half + c / 4, c % 4);
    for (int i = 0; i < N; i++) {
        const int8_t *qi = q + (size_t)i * ld + 32 * half;
        UNROLL
        for (int c = 0; c < 8; c++) dot[i] = _mm512_dpbusd_epi32(dot[i], v[c], quad(qi + 4 * c));
    }
}

/* Sum of the codes of columns 32 half .. +32 of group ig. */
BLOCK int32_t half_sum(const sq_act *x, size_t ig, int half) {
    return x->isum16[4 * ig + 2 * (size_t)half] + x->isum16[4 * ig + 2 * (size_t)half + 1];
}

/* What a sum starts at: operands of I8 are 128 above their codes, those of T2 1. */
BLOCK __m512i dot_start(sq_wtype type, const sq_act *x, size_t ig, int half) {
    if (type == SQ_W_I8_G32) return _mm512_set1_epi32(-128 * half_sum(x, ig, half));
    if (type == SQ_W_T2_ROW) return _mm512_set1_epi32(-x->isum[ig]);
    return _mm512_setzero_si512();
}

/* Bytes of a record. */
BLOCK size_t record_of(sq_wtype type) {
    switch (type) {
    case SQ_W_I4_G64: return SQ_I4_RECORD;
    case SQ_W_I4_G32: return SQ_I4_G32_RECORD;
    case SQ_W_I3_G64: return SQ_I3_RECORD;
    case SQ_W_I2_G64: return SQ_I2_RECORD;
    case SQ_W_T2_ROW: return SQ_T2_RECORD;
    default: return SQ_I8_RECORD;
    }
}

/* R2 for one run of columns. at: group of the first token. scales: 16 of them; biases follow them, or follow
 * the scales of both halves. */
BLOCK void add_run(sq_wtype type, int N, uint8_t scale_type, const uint8_t *scales, const sq_act *x,
                   size_t at, int half, const __m512i *dot, __m512 *acc) {
    const bool bias = type != SQ_W_I8_G32 && type != SQ_W_T2_ROW;
    const __m512 sw = type == SQ_W_T2_ROW ? _mm512_setzero_ps() : scales16(scale_type, scales);
    const __m512 bw =
        bias ? scales16(scale_type, scales + (type == SQ_W_I4_G32 ? 64 : 32)) : _mm512_setzero_ps();
    for (int i = 0; i < N; i++) {
        const size_t ig = at + (size_t)i * (size_t)x->groups;
        __m512 t = _mm512_set1_ps(x->scale[ig]);
        if (type != SQ_W_T2_ROW) t = _mm512_mul_ps(sw, t);
        acc[i] = _mm512_fmadd_ps(t, _mm512_cvtepi32_ps(dot[i]), acc[i]);
        if (!bias) continue;
        const float xsum = type == SQ_W_I4_G32 ? x->scale[ig] * (float)half_sum(x, ig, half) : x->xsum[ig];
        acc[i] = _mm512_fmadd_ps(bw, _mm512_set1_ps(xsum), acc[i]);
    }
}

/* Group g of one row tile, N tokens from i0 on. */
BLOCK void add_group(sq_wtype type, int N, const sq_weight *w, const uint8_t *tile, const sq_act *x,
                     int32_t i0, size_t g, __m512 *acc) {
    const bool two = type == SQ_W_I4_G32 || type == SQ_W_I8_G32;
    const size_t groups = (size_t)x->groups, at = (size_t)i0 * groups + g, bytes = record_of(type);
    const uint8_t *record = tile + g * bytes;
    const uint8_t *scales = type == SQ_W_I4_G32   ? record + 512
                            : type == SQ_W_I8_G32 ? tile + groups * SQ_I8_RECORD + 64 * g
                            : type == SQ_W_I3_G64 ? record + 384
                                                  : record + 256;
    __m512i dot[N_MAX];
    UNROLL
    for (size_t l = 0; l < bytes; l += 64) fetch(record, AHEAD + l);
    if (type == SQ_W_I8_G32) fetch(scales, w->tile_bytes);
    UNROLL
    for (int half = 0; half < 2; half++) {
        if (half == 0 || two)
            for (int i = 0; i < N; i++) dot[i] = dot_start(type, x, at + (size_t)i * groups, half);
        dots_half(type, N, record, half, x->q + at * SQ_GROUP, groups * SQ_GROUP, dot);
        if (half == 1 || two)
            add_run(type, N, w->scale_type, scales + (two ? 32 * half : 0), x, at, half, dot, acc);
    }
}

/* ---- one row tile, N tokens: R2 -------------------------------------------------------------- */

/* y0: output of the first token, first row of the tile; `rows` lanes of it exist. */
BLOCK void tile_block(sq_wtype type, int N, const sq_weight *w, const uint8_t *tile, const sq_act *x,
                      int32_t i0, float *y0, size_t ldy, __mmask16 rows) {
    const size_t groups = (size_t)x->groups, ld = groups * SQ_GROUP, at = (size_t)i0 * groups;
    const uint8_t *tail =
        tile + groups * record_of(type); /* what follows the codes: scales of I8 and T2 */
    const int8_t *q = x->q + (size_t)i0 * ld;
    const float *sx = x->scale + at, *xsum = x->xsum + at;
    const int32_t *isum = x->isum + at;
    __m512 acc[N_MAX];
    __m512i dot[N_MAX];
    for (int i = 0; i < N; i++) acc[i] = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g++) {
        if (type >= SQ_W_I4_G32) {
            add_group(type, N, w, tile, x, i0, g, acc);
        } else if (type == SQ_W_I4_G64) {
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
        if (type == SQ_W_I8_ROW || type == SQ_W_T2_ROW) acc[i] = _mm512_mul_ps(acc[i], _mm512_loadu_ps(tail));
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

void sq_gemm_i4g32__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I4_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g32__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I8_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i3g64__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I3_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i2g64__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_I2_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_t2row__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    gemm_packed(SQ_W_T2_ROW, w, tile0, tile1, x, y, ldy);
}
