/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_avx2.c - attention over sealed tiles on their codes (R5).
 *
 * Bytes times bytes (vpmaddubsw) would overflow its 16 bits for codes of 8 bits. So codes are widened to 16
 * bits and multiplied with the weights as they are, all 15 bits at once: vpmaddwd adds two exact products in
 * 32. A line is widened once for the query rows of a block. Scores and values are the same loop: 16 lanes,
 * tokens or channels, over quads of the other. */
#include "k_softmax_avx2.h"

enum { ROWS = 3 }; /* 3 x 4 accumulators, one line, one weight */

typedef struct {
    _Alignas(32) int16_t w[SQ_ATTN_D_MAX]; /* the integers of R5: of channels, or of tokens of the chunk */
    float step, base;
} weights;

typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1; /* first row; tiles seen by one row or more */
    float s[ROWS][SQ_ATTN_CHUNK];
    weights w[ROWS];
} block;

SQ_INLINE int32_t sum8(__m256i x) {
    __m128i v = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

/* Integers, step and base of n weights v (n a multiple of 16), whose largest magnitude is `most`. */
SQ_INLINE void set_weights(weights *out, const float *v, int32_t n, float most, float zdot, sq_kv_format f) {
    const bool any = most >= 0x1p-100f && most < __builtin_inff();
    const __m256 inv = _mm256_set1_ps(any ? SQ_KV_PLANES / most : 0.0f);
    const float c0 = (float)((1 << sq_kv_bits(f)) - 1) * 0.5f;
    __m256i sum = _mm256_setzero_si256();
    for (int32_t i = 0; i < n; i += 16) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i), inv));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(v + i + 8), inv));
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(a, b));
        _mm256_store_si256((__m256i *)(out->w + i), _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8));
    }
    out->step = any ? most / SQ_KV_PLANES : 0.0f;
    out->base = __builtin_fmaf(-(out->step * c0), (float)sum8(sum), zdot);
}

/* acc[r] gains the products of codes and weights, from weight w0 on, over quads: two sums a lane. K: lanes
 * are the tokens of half `x`; V: the channels of block `x`. */
SQ_INLINE void dots(int n_r, bool keys, sq_kv_format f, const uint8_t *tile, int32_t d, int32_t x,
                    int32_t quads, const weights *w, int32_t w0, __m256i acc[ROWS][4]) {
    const __m256i mask = _mm256_set1_epi8((char)((1 << sq_kv_bits(f)) - 1));
    for (int32_t quad = 0; quad < quads; quad++) {
        const sq_kv_place p =
            keys ? sq_kv_k_place(f, 4 * quad, 16 * x) : sq_kv_v_place(f, d, 16 * x, 4 * quad);
        for (int half = 0; half < 2; half++) {
            __m256i line = _mm256_load_si256((const __m256i *)(tile + p.at + 32 * half));
            if (f != SQ_KV_Q8)
                line = _mm256_and_si256(_mm256_srl_epi16(line, _mm_cvtsi32_si128(p.shift)), mask);
            const __m256i u0 = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(line));
            const __m256i u1 = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(line, 1));
            for (int r = 0; r < n_r; r++) {
                int64_t four;
                memcpy(&four, w[r].w + w0 + 4 * quad, sizeof four);
                const __m256i q = _mm256_set1_epi64x(four);
                acc[r][2 * half] = _mm256_add_epi32(acc[r][2 * half], _mm256_madd_epi16(u0, q));
                acc[r][2 * half + 1] = _mm256_add_epi32(acc[r][2 * half + 1], _mm256_madd_epi16(u1, q));
            }
        }
    }
}

SQ_INLINE void no_dots(int n_r, __m256i acc[ROWS][4]) {
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++) acc[r][j] = _mm256_setzero_si256();
}

/* 8 of the lanes, as floats: sums are of channels or tokens 0, 1 and 2, 3 of the quads. */
SQ_INLINE __m256 dot8(const __m256i acc[4], int half) {
    return _mm256_cvtepi32_ps(
        _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[2 * half], acc[2 * half + 1]), 0xd8));
}

/* ---- scores ---------------------------------------------------------------------------------- */

SQ_INLINE __m256 key_scale8(const uint8_t *code) {
    const __m256i c = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)code));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(c, 20), _mm256_set1_epi32(112 << 23)));
}

SQ_INLINE void key_weights(const float *q, int32_t d, const uint8_t *params, sq_kv_format f, weights *out) {
    const uint8_t *z = params + sq_kv_k_z(d);
    float v[SQ_ATTN_D_MAX];
    __m256 most = _mm256_setzero_ps(), zdot[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t c = 0; c < d; c += 16)
        for (int h = 0; h < 2; h++) {
            const int32_t at = c + 8 * h;
            const __m256 qc = _mm256_loadu_ps(q + at), wc = _mm256_mul_ps(qc, key_scale8(params + at));
            most = _mm256_max_ps(most, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), wc));
            zdot[h] = _mm256_fmadd_ps(qc, load8_f16(z + 2 * at), zdot[h]);
            _mm256_storeu_ps(v + at, wc);
        }
    set_weights(out, v, d, lanes_max(most), lane_tree(zdot[0], zdot[1]), f);
}

SQ_INLINE void tile_scores(int n_r, sq_kv_format f, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *k = (const uint8_t *)a->k[j], *params = k + sq_kv_code_bytes(f, a->d);
    const size_t all = sq_kv_k_bytes(f, a->d);
    for (size_t at = 0; at < all; at += 64) fetch_ahead(a->v[j], at);
    for (int r = 0; r < n_r; r++)
        key_weights(a->q + (size_t)(b->row0 + r) * a->ldq, a->d, params, f, &b->w[r]);
    for (int h = 0; h < 2; h++) {
        __m256i acc[ROWS][4];
        no_dots(n_r, acc);
        dots(n_r, true, f, k, a->d, h, a->d / 4, b->w, 0, acc);
        for (int r = 0; r < n_r; r++)
            for (int i = 0; i < 2; i++)
                _mm256_storeu_ps(b->s[r] + SQ_KV_TILE * j + 16 * h + 8 * i,
                                 _mm256_fmadd_ps(_mm256_set1_ps(b->w[r].step), dot8(acc[r], i),
                                                 _mm256_set1_ps(b->w[r].base)));
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Probabilities p of the tiles of the block with the scales of group g in them. */
SQ_INLINE void value_weights(const block *b, const float *p, int32_t g, sq_kv_format f, weights *out) {
    const sq_attn_args *a = b->a;
    const size_t at = sq_kv_code_bytes(f, a->d) + (size_t)g * SQ_KV_TILE * 2;
    float v[SQ_ATTN_CHUNK];
    __m256 most = _mm256_setzero_ps(), zdot[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t t = SQ_KV_TILE * b->tile0; t < SQ_KV_TILE * b->tile1; t += 8) {
        const uint8_t *s = (const uint8_t *)a->v[t / SQ_KV_TILE] + at + 2 * (t % SQ_KV_TILE);
        const __m256 pt = _mm256_loadu_ps(p + t), wt = _mm256_mul_ps(pt, load8_f16(s));
        most = _mm256_max_ps(most, wt);
        zdot[t / 8 % 2] = _mm256_fmadd_ps(pt, load8_f16(s + sq_kv_v_z(a->d)), zdot[t / 8 % 2]);
        _mm256_storeu_ps(v + t - SQ_KV_TILE * b->tile0, wt);
    }
    set_weights(out, v, SQ_KV_TILE * (b->tile1 - b->tile0), lanes_max(most), lane_tree(zdot[0], zdot[1]), f);
}

SQ_INLINE void values(int n_r, sq_kv_format f, block *b) {
    const sq_attn_args *a = b->a;
    for (int32_t blk = 0; blk < a->d / 16; blk++) {
        __m256i acc[ROWS][4];
        if (blk % (SQ_KV_GROUP / 16) == 0)
            for (int r = 0; r < n_r; r++) value_weights(b, b->s[r], blk / (SQ_KV_GROUP / 16), f, &b->w[r]);
        no_dots(n_r, acc);
        for (int32_t j = b->tile0; j < b->tile1; j++)
            dots(n_r, false, f, (const uint8_t *)a->v[j], a->d, blk, SQ_KV_TILE / 4, b->w,
                 SQ_KV_TILE * (j - b->tile0), acc);
        for (int r = 0; r < n_r; r++)
            for (int i = 0; i < 2; i++) {
                const __m256 o = _mm256_fmadd_ps(_mm256_set1_ps(b->w[r].step), dot8(acc[r], i),
                                                 _mm256_set1_ps(b->w[r].base));
                _mm256_storeu_ps(a->o + (size_t)(b->row0 + r) * a->ldo + 16 * blk + 8 * i,
                                 _mm256_add_ps(o, _mm256_setzero_ps()));
            }
    }
}

/* ---- a block of rows ------------------------------------------------------------------------- */

SQ_INLINE void row_block(int n_r, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + n_r; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo < hi ? lo / SQ_KV_TILE : 0;
    b->tile1 = lo < hi ? sq_div_up(hi, SQ_KV_TILE) : 0;
    for (int32_t j = b->tile0; j < b->tile1; j++) switch (a->k_fmt) {
        case SQ_KV_Q8: tile_scores(n_r, SQ_KV_Q8, b, j); break;
        case SQ_KV_Q4: tile_scores(n_r, SQ_KV_Q4, b, j); break;
        default: tile_scores(n_r, SQ_KV_Q2, b, j);
        }
    for (int r = 0; r < n_r; r++) softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->s[r]);
    switch (a->v_fmt) {
    case SQ_KV_Q8: values(n_r, SQ_KV_Q8, b); break;
    case SQ_KV_Q4: values(n_r, SQ_KV_Q4, b); break;
    default: values(n_r, SQ_KV_Q2, b);
    }
    b->row0 += n_r;
}

void sq_attn_codes__avx2(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        if (left == 1)
            row_block(1, &b);
        else if (left == 2 || left == 4) /* four rows as 2 + 2, not 3 + 1 */
            row_block(2, &b);
        else
            row_block(3, &b);
    }
}
