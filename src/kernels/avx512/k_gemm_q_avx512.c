/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_q_avx512.c - packed integer matrices with VNNI (k_gemm_packed.h).
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

#define VNNI 1
#include "kernels/avx512/k_gemm_packed.h"

enum { PAIRS_PAST = 32 }; /* tokens that repay unpacking operands to memory */

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

BLOCK void gemm_packed(sq_wtype type, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x,
                       float *y, size_t ldy) {
    if (x->m > PAIRS_PAST) {
        const int32_t even = tile0 + (tile1 - tile0) / 2 * 2;
        gemm_pairs(type, w, tile0, even, x, y, ldy);
        tile0 = even;
    }
    gemm_blocks(type, w, tile0, tile1, x, y, ldy);
}

#define NAME(field) sq_##field##__avx512
SQ_PACKED_KERNELS(NAME, gemm_packed)
