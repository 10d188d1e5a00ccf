/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_avx512.c - attention over a chunk of 256 tokens (R4).
 *
 * Scores have tokens as lanes: a tile of K is channel-major, so one channel of 32 tokens is two registers,
 * converted once for a block of query rows. Values have channels as lanes: four registers of V, converted
 * once for the block. A block walks over every tile that one of its rows sees, and over gaps between them
 * (NULL tiles); rows that see less have p = +0 there, which leaves their sums as they are.
 *
 * The rows of a decoded token read their tiles from memory once. While they work on keys, a line of values is
 * asked for with each channel, and while they work on values, a line or two of the next call's keys with each
 * token: so both memory and core are at work all the time. (Asking for a tile ahead within keys only, into
 * the first level, left memory idle half of the time.) */
#include "kernels/avx512/k_softmax_avx512.h"

/* Rows of a block: all query heads of one KV head in most models, so that a decoded token converts and reads
 * its cache once. CHANNELS: registers of 16; the sums of 7 and 8 rows leave room for FEW. */
enum { ROWS = 8, CHANNELS = 4, FEW = 2 };

/* A block of at most ROWS query rows and what it works on. */
typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1;                                /* first row; tiles seen by one row or more */
    uint32_t live;                                             /* bits of tiles with a probability */
    float p[ROWS][SQ_ATTN_CHUNK] __attribute__((aligned(64))); /* scores, then probabilities */
} block;

/* Scores of R rows against the 32 tokens of tile j. */
BLOCK void tile_scores(int R, bool cold, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint16_t *k = a->k[j], *next = !a->asked && j + 1 < b->tile1 && a->k[j + 1] ? a->k[j + 1] : k;
    const float *q = a->q + (size_t)b->row0 * a->ldq;
    __m512 s[ROWS][2];
    if (!k) return;
    for (int r = 0; r < R; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int32_t c = 0; c < a->d; c++) {
        const __m512 k0 = f16_load(k + (size_t)c * SQ_KV_TILE),
                     k1 = f16_load(k + (size_t)c * SQ_KV_TILE + 16);
        if (cold) {
            fetch_far(next, 64 * (size_t)c);
            fetch_far(a->v[j], 64 * (size_t)c);
        }
        for (int r = 0; r < R; r++) {
            const __m512 qc = _mm512_set1_ps(q[(size_t)r * a->ldq + (size_t)c]);
            s[r][0] = _mm512_fmadd_ps(qc, k0, s[r][0]);
            s[r][1] = _mm512_fmadd_ps(qc, k1, s[r][1]);
        }
    }
    for (int r = 0; r < R; r++) {
        _mm512_store_ps(b->p[r] + SQ_KV_TILE * j, s[r][0]);
        _mm512_store_ps(b->p[r] + SQ_KV_TILE * j + 16, s[r][1]);
    }
}

/* o of R rows, channels [c, c + 16 C). If cold, the keys of the next call are asked for meanwhile: a tile has
 * as many lines as channels, and is walked over d / 16 C times, 32 steps each. */
BLOCK void values(int R, int C, bool cold, const block *b, int32_t c) {
    const sq_attn_args *a = b->a;
    const size_t d = (size_t)a->d;
    __m512 o[ROWS][CHANNELS];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) o[r][n] = _mm512_setzero_ps();
    for (int32_t j = b->tile0; j < b->tile1; j++) {
        if (!(b->live >> j & 1)) continue;
        const uint16_t *v = a->v[j] + c,
                       *next = cold && a->next && a->next[j] ? a->next[j] + c * SQ_KV_TILE : v;
        const size_t far = cold && next != v ? 64 : 0;
        for (int32_t t = 0; t < SQ_KV_TILE; t++, v += d) {
            if (cold)
                for (int n = 0; n < (C + 1) / 2; n++) fetch_far(next, far * (size_t)((C + 1) / 2 * t + n));
            __m512 vt[CHANNELS];
            for (int n = 0; n < C; n++) vt[n] = f16_load(v + 16 * n);
            for (int r = 0; r < R; r++) {
                const __m512 p = _mm512_set1_ps(b->p[r][SQ_KV_TILE * j + t]);
                for (int n = 0; n < C; n++) o[r][n] = _mm512_fmadd_ps(p, vt[n], o[r][n]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++)
            _mm512_storeu_ps(a->o + (size_t)(b->row0 + r) * a->ldo + c + 16 * n,
                             _mm512_add_ps(o[r][n], _mm512_setzero_ps()));
}

/* cold: no other block reads these tiles, so they come from memory. */
BLOCK void rows_block(int R, bool cold, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + R; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo / SQ_KV_TILE;
    b->tile1 = sq_div_up(hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    for (int32_t j = b->tile0; j < b->tile1; j++) tile_scores(R, cold, b, j);
    b->live = 0;
    for (int r = 0; r < R; r++) b->live |= softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->p[r]);
    int32_t c = 0;
    const int wide = R > 6 ? FEW : CHANNELS;
    for (; c + 16 * wide <= a->d; c += 16 * wide) values(R, wide, cold, b, c);
    for (; c < a->d; c += 16) values(R, 1, cold, b, c);
}

void sq_attn_f16__avx512(const sq_attn_args *a) {
    block b = {.a = a};
    switch (a->n_q) {
#define CASE(R)                                                                                              \
    case R: rows_block(R, true, &b); return
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
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        if (left >= 6)
            rows_block(6, false, &b), b.row0 += 6;
        else if (left >= 4)
            rows_block(4, false, &b), b.row0 += 4;
        else if (left >= 2)
            rows_block(2, false, &b), b.row0 += 2;
        else
            rows_block(1, false, &b), b.row0 += 1;
    }
}

void sq_attn_merge__avx512(float *m, float *l, float *o, float mc, float lc, const float *oc, int32_t d) {
    if (mc == -INFINITY) return;
    const float m_new = *m > mc ? *m : mc;
    const float a = exp1(*m - m_new), b = exp1(mc - m_new);
    *l = fmaf(lc, b, *l * a);
    for (int32_t c = 0; c < d; c += 16) {
        const __mmask16 in = first_lanes(d - c);
        const __m512 old = _mm512_mul_ps(_mm512_maskz_loadu_ps(in, o + c), _mm512_set1_ps(a));
        const __m512 add = _mm512_maskz_loadu_ps(in, oc + c);
        _mm512_mask_storeu_ps(o + c, in, _mm512_fmadd_ps(add, _mm512_set1_ps(b), old));
    }
    *m = m_new;
}

/* 16 floats to f16, saturated; NaN passes as the second operand. */
BLOCK __m256i f16_saturate(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(65504.0f), x);
    x = _mm512_max_ps(_mm512_set1_ps(-65504.0f), x);
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void sq_kv_put_f16__avx512(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                           uint16_t *v) {
    uint16_t column[16];
    for (int32_t c = 0; c < d; c += 16) {
        const __mmask16 in = first_lanes(d - c);
        _mm256_storeu_si256((__m256i *)column, f16_saturate(_mm512_maskz_loadu_ps(in, krow + c)));
        for (int32_t l = 0; l < 16 && c + l < d; l++) k[(size_t)(c + l) * SQ_KV_TILE + (size_t)t] = column[l];
        _mm256_mask_storeu_epi16(v + (size_t)t * (size_t)d + (size_t)c, in,
                                 f16_saturate(_mm512_maskz_loadu_ps(in, vrow + c)));
    }
}
