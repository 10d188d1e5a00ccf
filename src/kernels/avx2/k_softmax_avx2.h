/* SPDX-License-Identifier: Apache-2.0
 *
 * k_softmax_avx2.h - scores of a row over some tiles to probabilities: the middle of attention, whatever the
 * tiles are made of (R4). */
#ifndef SQ_K_SOFTMAX_AVX2_H
#define SQ_K_SOFTMAX_AVX2_H

#include "k_math_avx2.h"

#include <float.h>

/* Lanes of the eight tokens from t on that lie in [lo, hi). */
SQ_INLINE __m256 seen8(int32_t t, int32_t lo, int32_t hi) {
    return _mm256_castsi256_ps(_mm256_andnot_si256(lane_mask(lo - t), lane_mask(hi - t)));
}

/* exp(s - m) of the eight tokens from t on where the row sees, +0 elsewhere. */
SQ_INLINE __m256 probabilities(const float *p, int32_t t, int32_t lo, int32_t hi, float m) {
    const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(p + t), _mm256_set1_ps(m)));
    return _mm256_and_ps(e, seen8(t, lo, hi));
}

/* Of row i over tiles [tile0, tile1): m, and a bit for each tile that it reads: it sees something there and
 * does not drop it. */
typedef struct {
    float m;
    uint32_t live;
} row_max;

static inline row_max row_max_of(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1,
                                 const float *p) {
    const int32_t lo = a->lo[i], hi = a->hi[i];
    const __m256 none = _mm256_set1_ps(-__builtin_inff());
    __m256 most = none, top[SQ_ATTN_TILES];
    row_max r = {0};
    for (int32_t j = tile0; j < tile1; j++) {
        top[j] = none;
        for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t += 8)
            top[j] = _mm256_max_ps(_mm256_blendv_ps(none, _mm256_loadu_ps(p + t), seen8(t, lo, hi)), top[j]);
        most = _mm256_max_ps(top[j], most);
    }
    r.m = lanes_max(most) + 0.0f;
    const float run = a->m_run && a->m_run[i] > r.m ? a->m_run[i] : r.m;
    const float least = a->m_run && run > -FLT_MAX ? run - a->skip : -FLT_MAX;
    for (int32_t j = tile0; j < tile1; j++)
        if (_mm256_movemask_ps(_mm256_cmp_ps(top[j], _mm256_set1_ps(least), _CMP_GE_OQ))) r.live |= 1u << j;
    return r;
}

/* Row i of the call: p holds scores at tiles [tile0, tile1) and gets probabilities, +0 where the row does not
 * see; m and l of the row are written. Returns the bits of tiles that it reads. */
static inline uint32_t softmax_row(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1, float *p) {
    const row_max r = row_max_of(a, i, tile0, tile1, p);
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t t = SQ_KV_TILE * tile0; t < SQ_KV_TILE * tile1; t += 16)
        for (int h = 0; h < 2; h++) {
            __m256 prob = _mm256_setzero_ps();
            if (r.live >> (t / SQ_KV_TILE) & 1) prob = probabilities(p, t + 8 * h, a->lo[i], a->hi[i], r.m);
            _mm256_storeu_ps(p + t + 8 * h, prob);
            sum[h] = _mm256_add_ps(sum[h], prob);
        }
    a->m[i] = r.m;
    a->l[i] = lane_tree(sum[0], sum[1]);
    return r.live;
}

/* What a block of rows sees together: tokens [lo, hi), tiles [tile0, tile1). Empty ranges do not count. */
typedef struct {
    int32_t lo, hi, tile0, tile1;
} extent;

SQ_INLINE extent extent_of(const sq_attn_args *a, int32_t i, int n_r) {
    extent e = {.lo = SQ_ATTN_CHUNK, .hi = 0};
    for (int r = 0; r < n_r; r++) {
        if (a->lo[i + r] >= a->hi[i + r]) continue;
        if (a->lo[i + r] < e.lo) e.lo = a->lo[i + r];
        if (a->hi[i + r] > e.hi) e.hi = a->hi[i + r];
    }
    e.tile0 = e.lo / SQ_KV_TILE;
    e.tile1 = sq_div_up(e.hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    return e;
}

/* How many of the rows left make the next block, at most three: four are 2 + 2, not 3 + 1. */
SQ_INLINE int32_t rows_next(int32_t left) { return left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3; }

#endif
