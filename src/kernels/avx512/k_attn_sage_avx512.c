/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_sage_avx512.c - attention over a chunk of 256 tokens with keys and values in 8 bits (R7). Needs
 * VNNI.
 *
 * One instruction multiplies a line of codes (16 tokens by 4 channels, or 16 channels by 4 tokens) with four
 * signed bytes of a row and adds up in 16 lanes; nothing is added across lanes. Probabilities are two planes
 * of 7 bits, P = 128 hi + lo. A line is loaded once for the rows of a block. */
#include "kernels/avx512/k_softmax_avx512.h"

enum { ROWS = 6, BLOCKS = 2 }; /* rows times two planes times two lines are 24 registers of sums */

typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1; /* first row; tiles seen by one row or more */
    uint32_t live;              /* bits of tiles that one row or more reads */
    _Alignas(64) float p[ROWS][SQ_ATTN_CHUNK];           /* scores */
    _Alignas(64) int32_t w[ROWS][SQ_ATTN_D_MAX / 4];     /* a query as bytes, four together */
    _Alignas(64) int32_t plane[2][ROWS][SQ_ATTN_CHUNK / 4]; /* hi and lo of probabilities, four together */
    float scale[ROWS], base[ROWS], L[ROWS];
} block;

/* ---- scores ---------------------------------------------------------------------------------- */

/* Query row r of the block, with the steps of the chunk in it, as signed bytes. */
static void row_codes(block *b, int r) {
    const sq_attn_args *a = b->a;
    const float *q = a->q + (size_t)(b->row0 + r) * a->ldq, *z = a->sealed_k.z, *step = a->sealed_k.step;
    _Alignas(64) float w[SQ_ATTN_D_MAX];
    __m512 zdot = _mm512_setzero_ps();
    __m512i bits = _mm512_setzero_si512(), sum = _mm512_setzero_si512();
    for (int32_t c = 0; c < a->d; c += 16) {
        const __m512 qc = _mm512_loadu_ps(q + c), wc = _mm512_mul_ps(qc, _mm512_loadu_ps(step + c));
        /* magnitudes order like their bits, and NaN is above all */
        bits = _mm512_max_epu32(bits, _mm512_castps_si512(_mm512_abs_ps(wc)));
        zdot = _mm512_fmadd_ps(qc, _mm512_loadu_ps(z + c), zdot);
        _mm512_store_ps(w + c, wc);
    }
    const uint32_t top = _mm512_reduce_max_epu32(bits);
    float most;
    memcpy(&most, &top, sizeof most);
    const bool usable = most >= 0x1p-100f && most < INFINITY;
    const __mmask16 all = usable ? 0xffff : 0;
    const __m512 inv = _mm512_set1_ps(127.0f / most);
    for (int32_t c = 0; c < a->d; c += 16) {
        const __m512i W = _mm512_maskz_cvtps_epi32(all, _mm512_mul_ps(_mm512_load_ps(w + c), inv));
        sum = _mm512_add_epi32(sum, W);
        _mm_store_si128((__m128i *)&b->w[r][c / 4], _mm512_cvtepi32_epi8(W));
    }
    b->scale[r] = usable ? most / 127.0f : 0.0f;
    b->base[r] = fmaf(-(b->scale[r] * 127.5f), (float)_mm512_reduce_add_epi32(sum), lane_tree(zdot));
}

/* Scores of R rows against the codes of tile j. */
BLOCK void tile_scores(int R, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *k = a->sealed_k.codes + (size_t)j * SQ_KV_TILE * (size_t)a->d;
    __m512i s[ROWS][2];
    if (!a->k[j]) return;
    for (int r = 0; r < R; r++) s[r][0] = s[r][1] = _mm512_setzero_si512();
    for (int32_t quad = 0; quad < a->d / 4; quad++) {
        const __m512i k0 = _mm512_load_si512(k + (size_t)quad * 128),
                      k1 = _mm512_load_si512(k + (size_t)quad * 128 + 64);
        for (int r = 0; r < R; r++) {
            const __m512i w = _mm512_set1_epi32(b->w[r][quad]);
            s[r][0] = _mm512_dpbusd_epi32(s[r][0], k0, w);
            s[r][1] = _mm512_dpbusd_epi32(s[r][1], k1, w);
        }
    }
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++)
            _mm512_store_ps(b->p[r] + SQ_KV_TILE * j + 16 * h,
                            _mm512_fmadd_ps(_mm512_set1_ps(b->scale[r]), _mm512_cvtepi32_ps(s[r][h]),
                                            _mm512_set1_ps(b->base[r])));
}

/* ---- probabilities --------------------------------------------------------------------------- */

/* Row r of the block: scores to planes, +0 where it does not see or drops a tile; m and l are written. */
static uint32_t row_planes(block *b, int r) {
    const sq_attn_args *a = b->a;
    const int32_t i = b->row0 + r;
    const row_max top = row_max_of(false, a, i, b->tile0, b->tile1, b->p[r]);
    __m512i sum = _mm512_setzero_si512();
    for (int32_t t = SQ_KV_TILE * b->tile0; t < SQ_KV_TILE * b->tile1; t += 16) {
        __m512 prob = _mm512_setzero_ps();
        if (top.live >> (t / SQ_KV_TILE) & 1)
            prob = probabilities(false, b->p[r], t, a->lo[i], a->hi[i], top.m);
        const __m512i P = _mm512_cvtps_epi32(_mm512_mul_ps(prob, _mm512_set1_ps((float)SQ_SAGE_ONE)));
        const __m512i hi = _mm512_srli_epi32(P, 7), lo = _mm512_and_si512(P, _mm512_set1_epi32(127));
        _mm_store_si128((__m128i *)&b->plane[0][r][t / 4], _mm512_cvtepi32_epi8(hi));
        _mm_store_si128((__m128i *)&b->plane[1][r][t / 4], _mm512_cvtepi32_epi8(lo));
        sum = _mm512_add_epi32(sum, P);
    }
    b->L[r] = (float)_mm512_reduce_add_epi32(sum);
    a->m[i] = top.m;
    a->l[i] = b->L[r] * (1.0f / SQ_SAGE_ONE);
    return top.live;
}

/* ---- values, and all of it ------------------------------------------------------------------- */

/* o of R rows, channels [16 blk, 16 (blk + N)). */
BLOCK void values(int R, int N, const block *b, int32_t blk) {
    const sq_attn_args *a = b->a;
    const size_t d = (size_t)a->d;
    const __m512 k = _mm512_set1_ps(1.0f / SQ_SAGE_ONE);
    __m512i hi[ROWS][BLOCKS], lo[ROWS][BLOCKS];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) hi[r][n] = lo[r][n] = _mm512_setzero_si512();
    for (int32_t j = b->tile0; j < b->tile1; j++) {
        if (!(b->live >> j & 1)) continue;
        const uint8_t *line = a->sealed_v.codes + (size_t)j * SQ_KV_TILE * d + (size_t)blk * 64;
        for (int32_t quad = j * (SQ_KV_TILE / 4); quad < (j + 1) * (SQ_KV_TILE / 4); quad++, line += 4 * d)
            for (int n = 0; n < N; n++) {
                const __m512i u = _mm512_load_si512(line + 64 * n);
                for (int r = 0; r < R; r++) {
                    hi[r][n] = _mm512_dpbusd_epi32(hi[r][n], u, _mm512_set1_epi32(b->plane[0][r][quad]));
                    lo[r][n] = _mm512_dpbusd_epi32(lo[r][n], u, _mm512_set1_epi32(b->plane[1][r][quad]));
                }
            }
    }
    for (int n = 0; n < N; n++) {
        const size_t c = 16 * (size_t)(blk + n);
        const __m512 step = _mm512_mul_ps(_mm512_loadu_ps(a->sealed_v.step + c), k);
        const __m512 z = _mm512_loadu_ps(a->sealed_v.z + c);
        for (int r = 0; r < R; r++) {
            const int32_t i = b->row0 + r;
            const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(hi[r][n], 7), lo[r][n]);
            const __m512 centred = _mm512_fmadd_ps(_mm512_set1_ps(b->L[r]), _mm512_set1_ps(-127.5f),
                                                   _mm512_cvtepi32_ps(dot));
            const __m512 o = _mm512_fmadd_ps(step, centred, _mm512_mul_ps(z, _mm512_set1_ps(a->l[i])));
            _mm512_storeu_ps(a->o + (size_t)i * a->ldo + c, _mm512_add_ps(o, _mm512_setzero_ps()));
        }
    }
}

BLOCK void rows_block(int R, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0, blk = 0;
    for (int32_t i = b->row0; i < b->row0 + R; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo / SQ_KV_TILE;
    b->tile1 = sq_div_up(hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    b->live = 0;
    for (int r = 0; r < R; r++) row_codes(b, r);
    for (int32_t j = b->tile0; j < b->tile1; j++) tile_scores(R, b, j);
    for (int r = 0; r < R; r++) b->live |= row_planes(b, r);
    for (; blk + BLOCKS <= a->d / 16; blk += BLOCKS) values(R, BLOCKS, b, blk);
    if (blk < a->d / 16) values(R, 1, b, blk);
    b->row0 += R;
}

void sq_attn_sage__avx512(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        if (left >= 6) rows_block(6, &b);
        else if (left >= 4) rows_block(4, &b);
        else if (left >= 2) rows_block(2, &b);
        else rows_block(1, &b);
    }
}
