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

/* The scores of the 32 tokens from t on become exp(s - m) where the row sees, +0 elsewhere; added to sum. */
SQ_INLINE void tile_exp(float *p, int32_t t, int32_t lo, int32_t hi, float m, __m256 sum[2]) {
    for (int i = 0; i < 4; i++) {
        float *at = p + t + 8 * i;
        const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(at), _mm256_set1_ps(m)));
        const __m256 prob = _mm256_and_ps(e, seen8(t + 8 * i, lo, hi));
        _mm256_storeu_ps(at, prob);
        sum[i % 2] = _mm256_add_ps(sum[i % 2], prob);
    }
}

/* Row i of the call: p holds scores at tiles [tile0, tile1) and gets probabilities, +0 where the row does not
 * see; m and l of the row are written. Returns a bit for each tile where it sees something and did not drop
 * it. */
static inline uint32_t softmax_row(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1, float *p) {
    const int32_t lo = a->lo[i], hi = a->hi[i];
    const __m256 none = _mm256_set1_ps(-__builtin_inff());
    __m256 most = none, top[SQ_ATTN_TILES], sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    uint32_t live = 0;
    for (int32_t j = tile0; j < tile1; j++) {
        top[j] = none;
        for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t += 8)
            top[j] = _mm256_max_ps(_mm256_blendv_ps(none, _mm256_loadu_ps(p + t), seen8(t, lo, hi)), top[j]);
        most = _mm256_max_ps(top[j], most);
    }
    const float m = lanes_max(most) + 0.0f;
    const float run = a->m_run && a->m_run[i] > m ? a->m_run[i] : m;
    const float least = a->m_run && run > -FLT_MAX ? run - a->skip : -FLT_MAX;
    for (int32_t j = tile0; j < tile1; j++) {
        const __m256 in = _mm256_cmp_ps(top[j], _mm256_set1_ps(least), _CMP_GE_OQ);
        if (_mm256_movemask_ps(in)) {
            live |= 1u << j;
            tile_exp(p, SQ_KV_TILE * j, lo, hi, m, sum);
        } else {
            memset(p + SQ_KV_TILE * j, 0, SQ_KV_TILE * sizeof *p);
        }
    }
    a->m[i] = m;
    a->l[i] = lane_tree(sum[0], sum[1]);
    return live;
}

#endif
