/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_avx2.c - attention over one chunk of 256 cached tokens, folding of chunks, storing of a token (R4).
 *
 * Both halves are the same loop: 32 lanes (tokens for scores, channels for values) by up to three query rows,
 * 12 accumulators, and every f16 line is converted once for the rows that share it. A row sees a range of
 * tokens; tiles are walked over the union of the ranges, a score outside a row's own range is replaced by
 * -inf before the maximum and its probability by +0, which by R4 changes no bit.
 *
 * The ladder, microseconds a chunk (d = 128: 128 KiB) for 1 / 6 / 48 query rows; one thread of an EPYC of
 * family 26 that reads 39.5 GB/s (3.3 us):
 *   1. as above, chunks from memory                      7.0 / 18.1 / 85
 *   2. + the first rows fetch the next tile of keys and
 *      the tile of values, a line per channel (here)     5.9 / 10.7 / 60     (from the cache 1.9 / 7.2 / 57)
 * So 48 rows make 55 GMAC/s of the 64 that two FMA units have at 4 GHz. */
#include "k_softmax_avx2.h"

enum { R_MAX = 3 }; /* query rows at a time: 3 x 4 accumulators, one line, three broadcasts */

/* s[r][t] = q[r] . k[.][t] for the 32 tokens of a tile. q: n_r rows, ldq apart; k: [d][32]; s: rows 256
 * apart. A tile is d lines: with `fetch`, one line of two other tiles is asked for per channel. */
SQ_INLINE void tile_scores(int n_r, bool fetch, const float *q, size_t ldq, int32_t d, const uint16_t *k,
                           const uint16_t *other1, const uint16_t *other2, float *s) {
    __m256 acc[R_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = _mm256_setzero_ps();
    for (int32_t c = 0; c < d; c++) {
        if (fetch) {
            fetch_ahead(other1, (size_t)c * 64);
            fetch_ahead(other2, (size_t)c * 64);
        }
        for (int j = 0; j < 4; j++) {
            const __m256 kv = load8_f16(k + (size_t)c * SQ_KV_TILE + 8 * j);
            for (int r = 0; r < n_r; r++)
                acc[r][j] = _mm256_fmadd_ps(_mm256_broadcast_ss(q + (size_t)r * ldq + c), kv, acc[r][j]);
        }
    }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++) _mm256_storeu_ps(s + r * SQ_ATTN_CHUNK + 8 * j, acc[r][j]);
}

/* o[r][0 .. 8 n_v) += sum over tokens [t0, t1) of p[r][t] * v[t][.]. v: first channel of the block, rows d
 * apart. */
SQ_INLINE void tile_values(int n_r, int n_v, const float *p, const uint16_t *v, int32_t d, int32_t t0,
                           int32_t t1, float *o, size_t ldo) {
    __m256 acc[R_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < n_v; j++) acc[r][j] = _mm256_loadu_ps(o + (size_t)r * ldo + 8 * j);
    for (int32_t t = t0; t < t1; t++)
        for (int j = 0; j < n_v; j++) {
            const __m256 vv = load8_f16(v + (size_t)t * (size_t)d + 8 * j);
            for (int r = 0; r < n_r; r++)
                acc[r][j] = _mm256_fmadd_ps(_mm256_broadcast_ss(p + r * SQ_ATTN_CHUNK + t), vv, acc[r][j]);
        }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < n_v; j++) _mm256_storeu_ps(o + (size_t)r * ldo + 8 * j, acc[r][j]);
}

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, bool fetch, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    float *o = a->o + (size_t)i * a->ldo;
    const int32_t d = a->d;
    const extent e = extent_of(a, i, n_r);
    uint32_t live = 0;
    for (int32_t j = e.tile0; j < e.tile1; j++) {
        const uint16_t *next = j + 1 < e.tile1 && a->k[j + 1] ? a->k[j + 1] : a->v[j];
        if (a->k[j])
            tile_scores(n_r, fetch, a->q + (size_t)i * a->ldq, a->ldq, d, a->k[j], next, a->v[j],
                        s + SQ_KV_TILE * j);
    }
    for (int r = 0; r < n_r; r++) {
        live |= softmax_row(a, i + r, e.tile0, e.tile1, s + r * SQ_ATTN_CHUNK);
        memset(o + (size_t)r * a->ldo, 0, (size_t)d * sizeof *o);
    }
    for (int32_t j = e.tile0; j < e.tile1; j++) {
        const int32_t t = SQ_KV_TILE * j;
        const int32_t t0 = e.lo > t ? e.lo - t : 0, t1 = e.hi - t < SQ_KV_TILE ? e.hi - t : SQ_KV_TILE;
        int32_t c = 0;
        if (!(live >> j & 1)) continue;
        for (; c + 32 <= d; c += 32) tile_values(n_r, 4, s + t, a->v[j] + c, d, t0, t1, o + c, a->ldo);
        if (c < d) tile_values(n_r, 2, s + t, a->v[j] + c, d, t0, t1, o + c, a->ldo);
    }
    for (int r = 0; r < n_r; r++)
        for (int32_t c = 0; c < d; c += 8) {
            float *oc = o + (size_t)r * a->ldo + c;
            _mm256_storeu_ps(oc, _mm256_add_ps(_mm256_loadu_ps(oc), _mm256_setzero_ps()));
        }
}

SQ_INLINE int32_t rows(bool fetch, const sq_attn_args *a, int32_t i) {
    const int32_t n = rows_next(a->n_q - i);
    switch (n) {
    case 1: row_block(1, fetch, a, i); break;
    case 2: row_block(2, fetch, a, i); break;
    default: row_block(3, fetch, a, i);
    }
    return n;
}

void sq_attn_f16__avx2(const sq_attn_args *a) {
    if (a->n_q < 1) return;
    int32_t i = rows(true, a, 0);
    while (i < a->n_q) i += rows(false, a, i);
}

void sq_attn_merge__avx2(float *m, float *l, float *o, float mc, float lc, const float *oc, int32_t d) {
    if (mc == -__builtin_inff()) return;
    const float m_new = *m > mc ? *m : mc;
    const __m256 a = exp8(_mm256_set1_ps(*m - m_new)), b = exp8(_mm256_set1_ps(mc - m_new));
    *l = __builtin_fmaf(lc, _mm256_cvtss_f32(b), *l * _mm256_cvtss_f32(a));
    for (int32_t c = 0; c < d; c += 8) {
        const __m256 old = _mm256_mul_ps(load_n(o + c, d - c), a);
        store_n(o + c, d - c, _mm256_fmadd_ps(load_n(oc + c, d - c), b, old));
    }
    *m = m_new;
}

/* Eight values as f16, clamped to its finite range; a NaN stays one. */
SQ_INLINE __m128i f16_saturate8(__m256 x) {
    const __m256 limit = _mm256_set1_ps(65504.0f);
    x = _mm256_max_ps(_mm256_xor_ps(limit, _mm256_set1_ps(-0.0f)), _mm256_min_ps(limit, x));
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
}

void sq_kv_put_f16__avx2(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                         uint16_t *v) {
    for (int32_t c = 0; c < d; c += 8) {
        const int32_t n = d - c < 8 ? d - c : 8;
        uint16_t kh[8], vh[8];
        _mm_storeu_si128((__m128i *)kh, f16_saturate8(load_n(krow + c, n)));
        _mm_storeu_si128((__m128i *)vh, f16_saturate8(load_n(vrow + c, n)));
        for (int32_t j = 0; j < n; j++) k[(size_t)(c + j) * SQ_KV_TILE + (size_t)t] = kh[j];
        memcpy(v + (size_t)t * (size_t)d + c, vh, (size_t)n * sizeof *vh);
    }
}
