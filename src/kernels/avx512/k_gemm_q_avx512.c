/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_q_avx512.c - packed integer matrices with VNNI. One 64-byte line of T16x4 is one register: 16
 * rows by 4 columns, the unsigned operand of vpdpbusd; 4 activation codes, broadcast, are the signed one.
 * Lanes are rows, so there are no horizontal sums. I8 weights become unsigned by flipping the sign bit (w
 * + 128), which is taken back by starting the sum at -128 * isum.
 *
 * Ladder. One thread of an AMD EPYC, family 26, near 4 GHz: plain read loop 35 to 41 GB/s, vpdpbusd 1013 to
 * 1078 Gop/s. 8960 x 1536 out of cache, gcc 12. 1 token as a share of the read loop, 256 tokens (the last
 * rung: 512) as a share of the peak:
 *
 *     rung                                              int4-g64, 0.563 B    int8-g64, 1.031 B
 *     12 tokens a tile, line by line                    91 %, 63 %           88 %, 47 %
 *     ... each tile fetched 6 kB ahead, 8 tokens        95 %, 70 %           86 %, 48 %
 *     8 operands held while 8 tokens pass               97 %, 70 %           87 %, 64 %
 *     operands unpacked once for many tokens            -, 75 %              -, 69 %
 *
 * One thread of an AMD EPYC, family 25 model 17, 3.7 GHz: read loop 20 to 27 GB/s, vpdpbusd 472 Gop/s. Shares
 * as above, then Gop/s of 8 and 16 tokens of int4 and 8 of int8:
 *
 *     all of the above                                  96 %, 78 %, 269, 262    86 %, 79 %, 136
 *     fetched to the second level, scales too           100 %, 78 %, 317, 262   104 %, 79 %, 220 to 275
 *     ... and unpacked to memory past 32 tokens only    -, -, -, 303            -
 *
 * A line fetched to the first level holds one of its miss buffers all the way from memory, and what hits
 * waits behind it: hence the second level, and no line of a record left to chance. The ceiling of many tokens
 * is 84 %: for 16 dot products there are a multiplication and two multiply-adds on the same two pipes (int8:
 * 89 %, one multiply-add). Conversions, shifts and vpmaddubsw were measured: the first two are free beside
 * dot products, the last takes the same pipes. */
#include "kernels/avx512/k_avx512.h"

enum {
    N_MAX = 8,              /* tokens of a block: 8 integer and 8 float accumulators */
    AHEAD = 6144,           /* bytes a tile is fetched ahead of its use */
    PAIRS_PAST = 32,        /* tokens that repay unpacking operands to memory */
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

/* The sum of the codes of token i is isum[i * groups]. */
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

/* ---- many tokens: R2 over operands that are unpacked once ---------------------------------------- */

/* Pairs of row tiles, CHUNK groups of columns at a time: their operands are written out as bytes, 16 KiB that
 * stay in the first cache while all tokens pass, PAIR_MAX at a time. A quad of codes is fetched once for both
 * tiles; sums wait in y between chunks. What is left beside the dot products is the folding of scales: four
 * instructions for 16 dot products, two of them for the same pipes. */
enum { CHUNK = 8, PAIR_MAX = 6, FETCHERS = 4, GROUP_BYTES = 16 * SQ_GROUP };
_Static_assert(PAIRS_PAST / (PAIRS_PAST / PAIR_MAX + 1) >= PAIR_MAX - 1, "blocks are of 5 or 6 tokens");

/* How scales lie, and all that is left of the type. */
typedef enum { BY_ROW, BY_64, BY_64_BIAS, BY_32, BY_32_BIAS } folding;

typedef struct {
    const sq_act *x;
    size_t tile_bytes;
    const uint8_t *scales; /* of group 0 in the first tile; */
    size_t scales_step;    /* and from group to group */
    uint8_t scale_type;
    __m128i zero;            /* operands are 2 to this above their codes */
    const uint8_t *operands; /* [CHUNK][2][GROUP_BYTES] */
    const uint8_t *next;     /* what will be unpacked after this chunk */
    size_t record;
    size_t fetch_from, fetch_step; /* lines of it that this block of tokens fetches */
    int32_t g0, g1;
    bool last;
    __mmask16 rows[2];
} pair;

BLOCK void pair_fold(folding by, int N, const pair *p, int32_t g, int32_t i0, int half,
                     __m512i dot[2][PAIR_MAX], __m512 acc[2][PAIR_MAX]) {
    const sq_act *x = p->x;
    const size_t groups = (size_t)x->groups, at = (size_t)i0 * groups + (size_t)g;
    const bool two = by == BY_32 || by == BY_32_BIAS, bias = by == BY_64_BIAS || by == BY_32_BIAS;
    const uint8_t *scales = p->scales + (size_t)g * p->scales_step + (two ? 32 * half : 0);
    __m512 sw[2], bw[2];
    for (int t = 0; t < 2; t++, scales += p->tile_bytes) {
        sw[t] = by == BY_ROW ? _mm512_setzero_ps() : scales16(p->scale_type, scales);
        bw[t] = bias ? scales16(p->scale_type, scales + (two ? 64 : 32)) : _mm512_setzero_ps();
    }
    for (int i = 0; i < N; i++) {
        const size_t ig = at + (size_t)i * groups;
        const __m512 sx = _mm512_set1_ps(x->scale[ig]);
        const float xsum = two ? x->scale[ig] * (float)half_sum(x, ig, half) : x->xsum[ig];
        for (int t = 0; t < 2; t++) {
            const __m512 s = by == BY_ROW ? sx : _mm512_mul_ps(sw[t], sx);
            acc[t][i] = _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(dot[t][i]), acc[t][i]);
            if (bias) acc[t][i] = _mm512_fmadd_ps(bw[t], _mm512_set1_ps(xsum), acc[t][i]);
        }
    }
}

/* dot += n quads of operands times codes. */
BLOCK void pair_dots(int n, int N, const uint8_t *v, const int8_t *q, size_t ld, __m512i dot[2][PAIR_MAX]) {
    UNROLL
    for (int c = 0; c < n; c++) {
        const __m512i v0 = _mm512_load_si512(v + 64 * c), v1 = _mm512_load_si512(v + GROUP_BYTES + 64 * c);
        for (int i = 0; i < N; i++) {
            const __m512i b = quad(q + (size_t)i * ld + 4 * c);
            dot[0][i] = _mm512_dpbusd_epi32(dot[0][i], v0, b);
            dot[1][i] = _mm512_dpbusd_epi32(dot[1][i], v1, b);
        }
    }
}

/* N tokens from i0 on, groups [g0, g1). */
BLOCK void pair_block(folding by, int N, const pair *p, int32_t i0, float *y, size_t ldy) {
    const sq_act *x = p->x;
    const size_t groups = (size_t)x->groups, ld = groups * SQ_GROUP;
    const bool two = by == BY_32 || by == BY_32_BIAS, zeros = by != BY_64_BIAS && by != BY_32_BIAS;
    __m512 acc[2][PAIR_MAX];
    for (int i = i0 + N; i < i0 + 2 * N; i++) {
        fetch(x->scale, 4 * ((size_t)i * groups + (size_t)p->g0));
        fetch(zeros ? (const void *)x->isum : x->xsum, 4 * ((size_t)i * groups + (size_t)p->g0));
    }
    for (int i = 0; i < N; i++)
        for (int t = 0; t < 2; t++)
            acc[t][i] = p->g0 ? _mm512_maskz_loadu_ps(p->rows[t], y + (size_t)i * ldy + t * SQ_TILE_ROWS)
                              : _mm512_setzero_ps();
    for (int32_t g = p->g0; g < p->g1; g++) {
        const uint8_t *v = p->operands + (size_t)(g - p->g0) * 2 * GROUP_BYTES;
        const int8_t *q = x->q + (size_t)i0 * ld + (size_t)g * SQ_GROUP;
        const size_t at = (size_t)i0 * groups + (size_t)g;
        __m512i dot[2][PAIR_MAX];
        for (int i = N; i < 2 * N; i++) fetch(q, (size_t)i * ld);           /* the next tokens */
        for (size_t l = p->fetch_from; l < p->record; l += p->fetch_step) { /* the next chunk */
            fetch(p->next, (size_t)(g - p->g0) * p->record + l);
            fetch(p->next, (size_t)(g - p->g0) * p->record + l + p->tile_bytes);
        }
        for (int half = 0; half < (two ? 2 : 1); half++) {
            for (int i = 0; i < N; i++) {
                const size_t ig = at + (size_t)i * groups;
                const __m512i sum = _mm512_set1_epi32(two ? half_sum(x, ig, half) : x->isum[ig]);
                dot[0][i] = dot[1][i] =
                    zeros ? _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_sll_epi32(sum, p->zero))
                          : _mm512_setzero_si512();
            }
            pair_dots(two ? 8 : 16, N, v + 512 * half, q + 32 * half, ld, dot);
            pair_fold(by, N, p, g, i0, half, dot, acc);
        }
    }
    for (int t = 0; t < 2; t++)
        for (int i = 0; i < N; i++) {
            if (by == BY_ROW && p->last)
                acc[t][i] = _mm512_mul_ps(acc[t][i], _mm512_loadu_ps(p->scales + (size_t)t * p->tile_bytes));
            _mm512_mask_storeu_ps(y + (size_t)i * ldy + t * SQ_TILE_ROWS, p->rows[t], acc[t][i]);
        }
}

/* All tokens past one chunk, in blocks as equal as can be: 37 tokens are 6, 6 and five times 5. There are
 * more than PAIRS_PAST, so that no block is smaller than 5. */
BLOCK void pair_tokens(folding by, pair *p, float *y, size_t ldy) {
    const int32_t m = p->x->m, blocks = sq_div_up(m, PAIR_MAX);
    p->fetch_step = 64 * (size_t)(blocks < FETCHERS ? blocks : FETCHERS);
    for (int32_t b = 0, i = 0; b < blocks; b++) {
        const int32_t n = sq_div_up(m - i, blocks - b);
        float *yi = y + (size_t)i * ldy;
        p->fetch_from = b < FETCHERS ? 64 * (size_t)b : p->record;
        if (n == PAIR_MAX)
            pair_block(by, PAIR_MAX, p, i, yi, ldy);
        else
            pair_block(by, PAIR_MAX - 1, p, i, yi, ldy);
        i += n;
    }
}

static void tokens_by_row(pair *p, float *y, size_t ldy) { pair_tokens(BY_ROW, p, y, ldy); }
static void tokens_by_64(pair *p, float *y, size_t ldy) { pair_tokens(BY_64, p, y, ldy); }
static void tokens_by_64_bias(pair *p, float *y, size_t ldy) { pair_tokens(BY_64_BIAS, p, y, ldy); }
static void tokens_by_32(pair *p, float *y, size_t ldy) { pair_tokens(BY_32, p, y, ldy); }
static void tokens_by_32_bias(pair *p, float *y, size_t ldy) { pair_tokens(BY_32_BIAS, p, y, ldy); }

/* The layout a type's operands have in `operand`. */
BLOCK sq_wtype layout_of(sq_wtype type) {
    if (type == SQ_W_I8_ROW || type == SQ_W_I8_G64) return SQ_W_I8_G32;
    return type == SQ_W_I4_G64 ? SQ_W_I4_G32 : type;
}

BLOCK void unpack_pair(sq_wtype type, const uint8_t *first, size_t next, int32_t n_groups, uint8_t *out) {
    for (int32_t g = 0; g < n_groups; g++, first += record_of(type))
        for (int t = 0; t < 2; t++, out += GROUP_BYTES) {
            UNROLL
            for (int c = 0; c < 16; c++)
                _mm512_store_si512(out + 64 * c,
                                   operand(layout_of(type), first + (size_t)t * next, c / 4, c % 4));
        }
}

/* Row tiles [tile0, tile1), an even number of them. A chunk of the activations stays in the second cache
 * while all pairs pass. */
BLOCK void gemm_pairs(sq_wtype type, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
                      float *y, size_t ldy) {
    _Alignas(64) uint8_t operands[CHUNK * 2 * GROUP_BYTES];
    const size_t codes = (size_t)x->groups * record_of(type);
    const bool i8 = layout_of(type) == SQ_W_I8_G32, behind = i8 || type == SQ_W_T2_ROW;
    pair p = {.x = x,
              .tile_bytes = w->tile_bytes,
              .scale_type = w->scale_type,
              .zero = _mm_cvtsi32_si128(i8 ? 7 : 0),
              .operands = operands,
              .record = record_of(type)};
    p.scales_step = type == SQ_W_I8_G64 ? 32 : type == SQ_W_I8_G32 ? 64 : p.record;
    const size_t first_scale = behind ? codes : type == SQ_W_I3_G64 ? 384 : type == SQ_W_I2_G64 ? 256 : 512;
    for (p.g0 = 0; p.g0 < x->groups && tile0 < tile1; p.g0 = p.g1) {
        p.last = x->groups - p.g0 <= CHUNK;
        p.g1 = p.last ? x->groups : p.g0 + CHUNK;
        for (int32_t t = tile0; t < tile1; t += 2) {
            const uint8_t *tile = w->data + (size_t)t * w->tile_bytes;
            const uint8_t *chunk = tile + (size_t)p.g0 * p.record;
            const int32_t left = w->rows - t * SQ_TILE_ROWS;
            float *y0 = y + t * SQ_TILE_ROWS;
            p.rows[0] = first_lanes(left);
            p.rows[1] = first_lanes(left - SQ_TILE_ROWS);
            p.scales = tile + first_scale;
            p.next = t + 2 < tile1 ? chunk + 2 * w->tile_bytes
                                   : w->data + (size_t)tile0 * w->tile_bytes + (size_t)p.g1 * p.record;
            unpack_pair(type, chunk, w->tile_bytes, p.g1 - p.g0, operands);
            switch (type) {
            case SQ_W_I8_ROW:
            case SQ_W_T2_ROW: tokens_by_row(&p, y0, ldy); break;
            case SQ_W_I8_G64: tokens_by_64(&p, y0, ldy); break;
            case SQ_W_I8_G32: tokens_by_32(&p, y0, ldy); break;
            case SQ_W_I4_G32: tokens_by_32_bias(&p, y0, ldy); break;
            default: tokens_by_64_bias(&p, y0, ldy);
            }
        }
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
BLOCK void gemm_packed(sq_wtype type, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
                       float *y, size_t ldy) {
    if (x->m > PAIRS_PAST) {
        const int32_t even = tile0 + (tile1 - tile0) / 2 * 2;
        gemm_pairs(type, w, tile0, even, x, y, ldy);
        tile0 = even;
    }
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
