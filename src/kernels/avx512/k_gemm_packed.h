/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_packed.h - packed integer matrices (T16x4) times quantised activations (R2), for two instruction
 * sets: VNNI 1 makes the kernels of vpdpbusd, VNNI 0 those of AVX-512BW alone. One 64-byte line is one
 * register: 16 rows by 4 columns; 4 activation codes are broadcast. Lanes are rows, so there are no
 * horizontal sums.
 *
 *             codes below 8 bits                    8 bits
 *   VNNI 1    vpdpbusd                              w + 128, unsigned by flipping the sign bit, which is
 *                                                   taken back by starting the sum at -128 * isum
 *   VNNI 0    vpmaddubsw, 8 lines summed in 16      |w| by codes that take the sign of w; 16 bits are
 *             bits, then vpmaddwd with ones         full, so each line is widened at once
 *
 * Sums are exact, so what comes out is the same. How the blocks came to be is told in the files that include
 * this. */
#ifndef VNNI
#error "VNNI is 0 or 1, and said first"
#endif

#include "kernels/avx512/k_avx512.h"

enum {
    N_MAX = 8,              /* tokens of a block: 8 integer and 8 float accumulators */
    AHEAD = 6144,           /* bytes a tile is fetched ahead of its use */
    PANEL_BYTES = 384 << 10 /* weights that stay in L2 while tokens pass over them */
};

/* ---- one record: 16 rows, 64 columns, N tokens ----------------------------------------------- */

/* Codes below 8 bits: lines of them whose products may be summed in 16 bits, 8 * 2 * 15 * 127 = 30480. */
enum { LINES = 8 };

/* One or two tokens leave a dot product waiting for the one before it: their sums are parted, and added. */
enum { FEW = 2, SUMS = 4 };

#if VNNI

BLOCK __m512i operand_i8(const uint8_t *line) {
    return _mm512_xor_si512(_mm512_loadu_si512(line), _mm512_set1_epi8(-128));
}

#else

BLOCK __m512i operand_i8(const uint8_t *line) { return _mm512_loadu_si512(line); }

/* sum += pairs of 16 bits. */
BLOCK __m512i widen(__m512i sum, __m512i pairs) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/* w times x, where |w| and the lanes below zero are known. */
BLOCK __m512i pairs_i8(__m512i magnitude, __mmask64 below, __m512i x) {
    return _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(x, below, _mm512_setzero_si512(), x));
}

#endif

/* add_lines: dot[i] += LINES lines of operands times codes of token i, half of them at q, half at q + gap.
 * Lines are held while token after token uses them: with the tokens inside, each quad would need a pointer of
 * its own, and 8 of those do not fit the integer registers. i8: operands are of 8 bits. */
#if VNNI

BLOCK void add_lines(bool i8, int N, const __m512i v[LINES], const int8_t *q, size_t ld, size_t gap,
                     __m512i *dot) {
    (void)i8;
    for (int i = 0; i < N; i++) {
        const int8_t *qi = q + (size_t)i * ld;
        __m512i sum[SUMS] = {dot[i]};
        const int sums = N <= FEW ? SUMS : 1;
        UNROLL
        for (int k = 1; k < sums; k++) sum[k] = _mm512_setzero_si512();
        UNROLL
        for (int c = 0; c < LINES; c++)
            sum[c % sums] =
                _mm512_dpbusd_epi32(sum[c % sums], v[c], quad(qi + 4 * c + (c < LINES / 2 ? 0 : gap)));
        dot[i] = sum[0];
        UNROLL
        for (int k = 1; k < sums; k++) dot[i] = _mm512_add_epi32(dot[i], sum[k]);
    }
}

#else

BLOCK void add_low(int N, const __m512i v[LINES], const int8_t *q, size_t ld, size_t gap, __m512i *dot) {
    for (int i = 0; i < N; i++) {
        const int8_t *qi = q + (size_t)i * ld;
        __m512i s = _mm512_maddubs_epi16(v[0], quad(qi));
        UNROLL
        for (int c = 1; c < LINES; c++)
            s = _mm512_add_epi16(
                s, _mm512_maddubs_epi16(v[c], quad(qi + 4 * c + (c < LINES / 2 ? 0 : gap))));
        dot[i] = widen(dot[i], s);
    }
}

/* Half of the lines: masks of all are more than there are. */
BLOCK void add_half_i8(int N, const __m512i *v, const int8_t *q, size_t ld, __m512i *dot) {
    __m512i magnitude[LINES / 2];
    __mmask64 below[LINES / 2];
    UNROLL
    for (int c = 0; c < LINES / 2; c++)
        magnitude[c] = _mm512_abs_epi8(v[c]), below[c] = _mm512_movepi8_mask(v[c]);
    for (int i = 0; i < N; i++) {
        const int8_t *qi = q + (size_t)i * ld;
        UNROLL
        for (int c = 0; c < LINES / 2; c++)
            dot[i] = widen(dot[i], pairs_i8(magnitude[c], below[c], quad(qi + 4 * c)));
    }
}

BLOCK void add_lines(bool i8, int N, const __m512i v[LINES], const int8_t *q, size_t ld, size_t gap,
                     __m512i *dot) {
    if (i8) {
        add_half_i8(N, v, q, ld, dot);
        add_half_i8(N, v + LINES / 2, q + 4 * (LINES / 2) + gap, ld, dot);
    } else {
        add_low(N, v, q, ld, gap, dot);
    }
}

#endif

/* dot[i] = codes of the record times q[i * ld .. +64), exact. */
BLOCK void dots_i4(int N, const uint8_t *record, const int8_t *q, size_t ld, __m512i *dot) {
    const __m512i nibble = _mm512_set1_epi8(15);
    for (int i = 0; i < N; i++) dot[i] = _mm512_setzero_si512();
    UNROLL
    for (int part = 0; part < 2; part++) { /* columns 16 part .. +16 and 32 + 16 part .. +16 */
        __m512i v[LINES];
        UNROLL
        for (int c = 0; c < 4; c++) {
            const size_t at = 64 * (size_t)(4 * part + c);
            const __m512i line = _mm512_loadu_si512(record + at);
            v[c] = _mm512_and_si512(line, nibble);
            v[4 + c] = _mm512_and_si512(_mm512_srli_epi16(line, 4), nibble);
        }
        add_lines(false, N, v, q + 16 * part, ld, 16, dot);
    }
}

/* The sum of the codes of token i is isum[i * groups]. */
BLOCK void dots_i8(int N, const uint8_t *record, const int8_t *q, size_t ld, const int32_t *isum,
                   size_t groups, __m512i *dot) {
    for (int i = 0; i < N; i++)
        dot[i] = VNNI ? _mm512_set1_epi32(-128 * isum[(size_t)i * groups]) : _mm512_setzero_si512();
    UNROLL
    for (int part = 0; part < 2; part++) { /* columns 32 part .. +32 */
        __m512i v[LINES];
        UNROLL
        for (int c = 0; c < LINES; c++) v[c] = operand_i8(record + 64 * (size_t)(8 * part + c));
        add_lines(true, N, v, q + 32 * part, ld, 0, dot);
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
        return operand_i8(record + 64 * (4 * part + c));
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
    __m512i v[LINES];
    UNROLL
    for (int c = 0; c < LINES; c++) v[c] = operand(type, record, 2 * half + c / 4, c % 4);
    add_lines(type == SQ_W_I8_G32, N, v, q + 32 * half, ld, 0, dot);
}

/* Sum of the codes of columns 32 half .. +32 of group ig. */
BLOCK int32_t half_sum(const sq_act *x, size_t ig, int half) {
    return x->isum16[4 * ig + 2 * (size_t)half] + x->isum16[4 * ig + 2 * (size_t)half + 1];
}

/* What a sum starts at: operands of I8 may be 128 above their codes, those of T2 are 1. */
BLOCK __m512i dot_start(sq_wtype type, const sq_act *x, size_t ig, int half) {
    if (type == SQ_W_I8_G32 && VNNI) return _mm512_set1_epi32(-128 * half_sum(x, ig, half));
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
    if (type == SQ_W_I8_G32) fetch_far(scales, w->tile_bytes);
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
    const uint8_t *tail = tile + groups * record_of(type); /* what follows the codes: scales of I8 and T2 */
    const int8_t *q = x->q + (size_t)i0 * ld;
    const float *sx = x->scale + at, *xsum = x->xsum + at;
    const int32_t *isum = x->isum + at;
    __m512 acc[N_MAX];
    __m512i dot[N_MAX];
    for (int i = 0; i < N; i++) acc[i] = _mm512_setzero_ps();
    for (size_t g = 0; g < groups; g++) {
        UNROLL
        for (size_t l = 0; l < record_of(type); l += 64) fetch_far(tile + g * record_of(type), AHEAD + l);
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
            if (type == SQ_W_I8_G64) fetch_far(tail, w->tile_bytes + 32 * g);
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
#define CASE(N)                                                                                              \
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
BLOCK void gemm_blocks(sq_wtype type, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
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

/* The kernel of each type: name(field) calls gemm(type, ...). */
#define SQ_PACKED_KERNEL(name, gemm, field, type)                                                            \
    void name(field)(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,            \
                     size_t ldy) {                                                                           \
        gemm(type, w, tile0, tile1, x, y, ldy);                                                              \
    }
#define SQ_PACKED_KERNELS(name, gemm)                                                                        \
    SQ_PACKED_KERNEL(name, gemm, gemm_i8row, SQ_W_I8_ROW)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i8g64, SQ_W_I8_G64)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i4g64, SQ_W_I4_G64)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i4g32, SQ_W_I4_G32)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i8g32, SQ_W_I8_G32)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i3g64, SQ_W_I3_G64)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_i2g64, SQ_W_I2_G64)                                                    \
    SQ_PACKED_KERNEL(name, gemm, gemm_t2row, SQ_W_T2_ROW)
