/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_avx512.c - attention over sealed tiles on their codes (R5). Needs VNNI.
 *
 * A weight of 15 bits is two planes of 7 bits and a sign, W = 128 hi + lo, so that vpdpbusd (bytes of codes
 * times signed bytes, four at a time) makes both dot products: for scores 16 tokens x 4 channels a line, for
 * values 16 channels x 4 tokens, and lanes are added nowhere. A line is loaded and unpacked once for the
 * query rows of a block. */
#include "kernels/avx512/k_softmax_avx512.h"

enum { ROWS = 6 }; /* of a block: two planes of two lines take 24 registers of sums */

/* Weights of the rows of a block: four bytes of hi, four of lo, ... ; and what makes floats of the sums. */
typedef struct {
    _Alignas(64) int32_t q[ROWS][SQ_ATTN_D_MAX / 4][2];
    _Alignas(32) float step[8], inv[8], base[8];
} weights;

typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1; /* first row; tiles seen by one row or more */
    _Alignas(64) float p[ROWS][SQ_ATTN_CHUNK];
    weights w;
} block;

BLOCK float centre(sq_kv_format f) { return (float)((1 << sq_kv_bits(f)) - 1) * 0.5f; }

/* ---- weights: what rows have in common is done for all at once ------------------------------- */

/* Lane i: the sum, by the tree of R1, or the maximum of v[i]. So one chain of dependent operations serves all
 * rows of a block. */
BLOCK __m256 trees(int R, const __m512 *v) {
    const __m128 lo = lane_tree4(v[0], v[R > 1 ? 1 : 0], v[R > 2 ? 2 : 0], v[R > 3 ? 3 : 0]);
    const __m128 hi = R > 4 ? lane_tree4(v[4], v[R - 1], v[4], v[4]) : lo;
    return _mm256_set_m128(hi, lo);
}

BLOCK __m128 max4(__m512 a0, __m512 a1, __m512 a2, __m512 a3) {
    const __m512 b01 = _mm512_max_ps(_mm512_shuffle_f32x4(a0, a1, 0x44), _mm512_shuffle_f32x4(a0, a1, 0xee));
    const __m512 b23 = _mm512_max_ps(_mm512_shuffle_f32x4(a2, a3, 0x44), _mm512_shuffle_f32x4(a2, a3, 0xee));
    const __m512 c =
        _mm512_max_ps(_mm512_shuffle_f32x4(b01, b23, 0x88), _mm512_shuffle_f32x4(b01, b23, 0xdd));
    const __m512 d = _mm512_max_ps(c, _mm512_permute_ps(c, 0x4e));
    const __m512 e = _mm512_max_ps(d, _mm512_permute_ps(d, 0xb1));
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(first, e));
}

BLOCK __m256 maxima(int R, const __m512 *v) {
    const __m128 lo = max4(v[0], v[R > 1 ? 1 : 0], v[R > 2 ? 2 : 0], v[R > 3 ? 3 : 0]);
    const __m128 hi = R > 4 ? max4(v[4], v[R - 1], v[4], v[4]) : lo;
    return _mm256_set_m128(hi, lo);
}

/* Steps of rows whose largest magnitudes are given, and their inverses. */
BLOCK void set_steps(weights *w, __m256 most) {
    const __mmask8 any = _mm256_cmp_ps_mask(most, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ) &
                         _mm256_cmp_ps_mask(most, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);
    const __m256 planes = _mm256_set1_ps(SQ_KV_PLANES);
    _mm256_store_ps(w->inv, _mm256_maskz_div_ps(any, planes, most));
    _mm256_store_ps(w->step, _mm256_maskz_div_ps(any, most, planes));
}

/* sum: lanes of a row's integers, exact in any order. */
BLOCK void set_bases(int R, weights *w, sq_kv_format f, const __m512i *sum, __m256 zdot) {
    _Alignas(32) float total[8] = {0};
    for (int r = 0; r < R; r++) total[r] = (float)_mm512_reduce_add_epi32(sum[r]);
    const __m256 c = _mm256_mul_ps(_mm256_load_ps(w->step), _mm256_set1_ps(centre(f)));
    _mm256_store_ps(w->base, _mm256_fnmadd_ps(c, _mm256_load_ps(total), zdot));
}

/* Sixteen weights of row r, from number 16 i on, as bytes of both planes; returns them as integers. */
BLOCK __m512i split(weights *w, int r, int32_t i, __m512 x) {
    const __m512i W = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(w->inv[r])));
    const __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(W, _mm512_set1_epi32(64)), 7);
    const __m512i lo = _mm512_sub_epi32(W, _mm512_slli_epi32(hi, 7));
    const __m128i h = _mm512_cvtepi32_epi8(hi), l = _mm512_cvtepi32_epi8(lo);
    _mm_store_si128((__m128i *)w->q[r][4 * i], _mm_unpacklo_epi32(h, l));
    _mm_store_si128((__m128i *)w->q[r][4 * i + 2], _mm_unpackhi_epi32(h, l));
    return W;
}

/* ---- scores ---------------------------------------------------------------------------------- */

BLOCK __m512 key_scale(const uint8_t *code) {
    const __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(c, 20), _mm512_set1_epi32(112 << 23)));
}

/* Query rows with the scales of a tile in them. */
BLOCK void key_weights(int R, block *b, const uint8_t *params, sq_kv_format f) {
    const int32_t d = b->a->d;
    const uint8_t *z = params + sq_kv_k_z(d);
    const float *q = b->a->q + (size_t)b->row0 * b->a->ldq;
    _Alignas(64) float v[ROWS][SQ_ATTN_D_MAX];
    __m512 most[ROWS], zdot[ROWS];
    __m512i sum[ROWS];
    for (int r = 0; r < R; r++) most[r] = zdot[r] = _mm512_setzero_ps(), sum[r] = _mm512_setzero_si512();
    for (int32_t c = 0; c < d; c += 16) {
        const __m512 scale = key_scale(params + c), zc = f16_load(z + 2 * c);
        for (int r = 0; r < R; r++) {
            const __m512 qc = _mm512_loadu_ps(q + (size_t)r * b->a->ldq + (size_t)c);
            const __m512 w = _mm512_mul_ps(qc, scale);
            most[r] = _mm512_max_ps(most[r], _mm512_abs_ps(w));
            zdot[r] = _mm512_fmadd_ps(qc, zc, zdot[r]);
            _mm512_store_ps(v[r] + c, w);
        }
    }
    set_steps(&b->w, maxima(R, most));
    for (int32_t c = 0; c < d; c += 16)
        for (int r = 0; r < R; r++)
            sum[r] = _mm512_add_epi32(sum[r], split(&b->w, r, c / 16, _mm512_load_ps(v[r] + c)));
    set_bases(R, &b->w, f, sum, trees(R, zdot));
}

/* The 16 tokens of half h and 4 channels of quad c / 4 + e; line: what holds the codes of both. */
BLOCK __m512i key_codes(sq_kv_format f, const uint8_t *k, int32_t quad, int h) {
    if (f == SQ_KV_Q8) return _mm512_load_si512(k + (size_t)(2 * quad + h) * 64);
    const __m512i line = _mm512_load_si512(k + (size_t)(f == SQ_KV_Q4 ? quad : quad / 2) * 64);
    const int shift = f == SQ_KV_Q4 ? 4 * h : 4 * (quad % 2) + 2 * h;
    return _mm512_and_si512(_mm512_srli_epi16(line, (unsigned)shift),
                            _mm512_set1_epi8(f == SQ_KV_Q4 ? 15 : 3));
}

BLOCK void tile_scores(int R, sq_kv_format f, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *k = (const uint8_t *)a->k[j];
    const uint8_t *next = j + 1 < b->tile1 ? (const uint8_t *)a->k[j + 1] : (const uint8_t *)a->v[b->tile0];
    const size_t codes = sq_kv_code_bytes(f, a->d), all = sq_kv_k_bytes(f, a->d);
    __m512i hi[ROWS][2], lo[ROWS][2];
    key_weights(R, b, k + codes, f);
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++) hi[r][h] = lo[r][h] = _mm512_setzero_si512();
    for (size_t at = 0; at < all; at += 64) fetch(next, at);
    for (int32_t quad2 = 0; quad2 < a->d / 4; quad2 += 2) UNROLL for (int e = 0; e < 2; e++) {
            const int32_t quad = quad2 + e;
            for (int h = 0; h < 2; h++) {
                const __m512i u = f == SQ_KV_Q2 ? key_codes(f, k + (size_t)(quad2 / 2) * 64, e, h)
                                                : key_codes(f, k, quad, h);
                for (int r = 0; r < R; r++) {
                    hi[r][h] = _mm512_dpbusd_epi32(hi[r][h], u, _mm512_set1_epi32(b->w.q[r][quad][0]));
                    lo[r][h] = _mm512_dpbusd_epi32(lo[r][h], u, _mm512_set1_epi32(b->w.q[r][quad][1]));
                }
            }
        }
    for (int r = 0; r < R; r++)
        for (int h = 0; h < 2; h++) {
            const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(hi[r][h], 7), lo[r][h]);
            _mm512_store_ps(b->p[r] + SQ_KV_TILE * j + 16 * h,
                            _mm512_fmadd_ps(_mm512_set1_ps(b->w.step[r]), _mm512_cvtepi32_ps(dot),
                                            _mm512_set1_ps(b->w.base[r])));
        }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Probabilities of tile j with the scales of group g in them. */
BLOCK void value_weights(int R, block *b, int32_t j, const uint8_t *params, int32_t g, sq_kv_format f) {
    const uint8_t *s = params + (size_t)g * SQ_KV_TILE * 2, *z = s + sq_kv_v_z(b->a->d);
    const __m512 s0 = f16_load(s), s1 = f16_load(s + 32), z0 = f16_load(z), z1 = f16_load(z + 32);
    __m512 most[ROWS], zdot[ROWS];
    __m512i sum[ROWS];
    for (int r = 0; r < R; r++) {
        const __m512 p0 = _mm512_load_ps(b->p[r] + SQ_KV_TILE * j),
                     p1 = _mm512_load_ps(b->p[r] + SQ_KV_TILE * j + 16);
        most[r] = _mm512_max_ps(_mm512_mul_ps(p0, s0), _mm512_mul_ps(p1, s1));
        zdot[r] = _mm512_fmadd_ps(p1, z1, _mm512_fmadd_ps(p0, z0, _mm512_setzero_ps()));
    }
    set_steps(&b->w, maxima(R, most));
    for (int r = 0; r < R; r++) {
        const __m512 p0 = _mm512_load_ps(b->p[r] + SQ_KV_TILE * j),
                     p1 = _mm512_load_ps(b->p[r] + SQ_KV_TILE * j + 16);
        sum[r] = _mm512_add_epi32(split(&b->w, r, 0, _mm512_mul_ps(p0, s0)),
                                  split(&b->w, r, 1, _mm512_mul_ps(p1, s1)));
    }
    set_bases(R, &b->w, f, sum, trees(R, zdot));
}

/* Channels [16 blk, 16 (blk + C)) of R rows gain what tile v adds. */
BLOCK void values(int R, int C, sq_kv_format f, const block *b, const uint8_t *v, int32_t blk) {
    const sq_attn_args *a = b->a;
    const int32_t bits = sq_kv_bits(f), blocks = a->d / 16;
    __m512i hi[ROWS][2], lo[ROWS][2];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) hi[r][n] = lo[r][n] = _mm512_setzero_si512();
    UNROLL for (int32_t quad = 0; quad < SQ_KV_TILE / 4; quad++) {
        const uint8_t *line = v + ((size_t)(quad % bits) * (size_t)blocks + (size_t)blk) * 64;
        for (int n = 0; n < C; n++) {
            __m512i u = _mm512_load_si512(line + 64 * n);
            if (f != SQ_KV_Q8)
                u = _mm512_and_si512(_mm512_srli_epi16(u, (unsigned)(quad / bits * bits)),
                                     _mm512_set1_epi8((char)((1 << bits) - 1)));
            for (int r = 0; r < R; r++) {
                hi[r][n] = _mm512_dpbusd_epi32(hi[r][n], u, _mm512_set1_epi32(b->w.q[r][quad][0]));
                lo[r][n] = _mm512_dpbusd_epi32(lo[r][n], u, _mm512_set1_epi32(b->w.q[r][quad][1]));
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) {
            float *o = a->o + (size_t)(b->row0 + r) * a->ldo + 16 * (blk + n);
            const __m512i dot = _mm512_add_epi32(_mm512_slli_epi32(hi[r][n], 7), lo[r][n]);
            const __m512 old = _mm512_add_ps(_mm512_loadu_ps(o), _mm512_set1_ps(b->w.base[r]));
            _mm512_storeu_ps(o, _mm512_fmadd_ps(_mm512_set1_ps(b->w.step[r]), _mm512_cvtepi32_ps(dot), old));
        }
}

BLOCK void tile_values(int R, sq_kv_format f, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *v = (const uint8_t *)a->v[j], *params = v + sq_kv_code_bytes(f, a->d);
    const size_t all = sq_kv_v_bytes(f, a->d);
    if (j + 1 < b->tile1)
        for (size_t at = 0; at < all; at += 64) fetch(a->v[j + 1], at);
    for (int32_t g = 0; g < sq_kv_groups(a->d); g++) {
        const int32_t first = g * (SQ_KV_GROUP / 16), end = a->d / 16;
        value_weights(R, b, j, params, g, f);
        int32_t blk = first;
        for (; blk + 2 <= end && blk + 2 <= first + SQ_KV_GROUP / 16; blk += 2) values(R, 2, f, b, v, blk);
        if (blk < end && blk < first + SQ_KV_GROUP / 16) values(R, 1, f, b, v, blk);
    }
}

/* ---- a block of rows ------------------------------------------------------------------------- */

BLOCK void tiles_scores(int R, block *b) {
    for (int32_t j = b->tile0; j < b->tile1; j++) switch (b->a->k_fmt) {
        case SQ_KV_Q8: tile_scores(R, SQ_KV_Q8, b, j); break;
        case SQ_KV_Q4: tile_scores(R, SQ_KV_Q4, b, j); break;
        default: tile_scores(R, SQ_KV_Q2, b, j);
        }
}

BLOCK void tiles_values(int R, block *b) {
    for (int32_t j = b->tile0; j < b->tile1; j++) switch (b->a->v_fmt) {
        case SQ_KV_Q8: tile_values(R, SQ_KV_Q8, b, j); break;
        case SQ_KV_Q4: tile_values(R, SQ_KV_Q4, b, j); break;
        default: tile_values(R, SQ_KV_Q2, b, j);
        }
}

BLOCK void rows_block(int R, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + R; i++) {
        for (int32_t c = 0; c < a->d; c += 16)
            _mm512_storeu_ps(a->o + (size_t)i * a->ldo + c, _mm512_setzero_ps());
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo / SQ_KV_TILE;
    b->tile1 = sq_div_up(hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    tiles_scores(R, b);
    for (int r = 0; r < R; r++) softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->p[r]);
    tiles_values(R, b);
    for (int32_t i = b->row0; i < b->row0 + R; i++)
        for (int32_t c = 0; c < a->d; c += 16) {
            float *o = a->o + (size_t)i * a->ldo + c;
            _mm512_storeu_ps(o, _mm512_add_ps(_mm512_loadu_ps(o), _mm512_setzero_ps()));
        }
    b->row0 += R;
}

/* Rows of blocks as equal as may be: 7 are 4 and 3. */
void sq_attn_codes__avx512(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        switch (left >= 12 ? 6 : left > 6 ? (left + 1) / 2 : left) {
        case 1: rows_block(1, &b); break;
        case 2: rows_block(2, &b); break;
        case 3: rows_block(3, &b); break;
        case 4: rows_block(4, &b); break;
        case 5: rows_block(5, &b); break;
        default: rows_block(6, &b);
        }
    }
}
