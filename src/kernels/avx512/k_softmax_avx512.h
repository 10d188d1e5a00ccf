/* SPDX-License-Identifier: Apache-2.0
 *
 * k_softmax_avx512.h - scores of a row over some tiles to probabilities: the middle of attention, whatever
 * the tiles are made of (R4). */
#ifndef SQ_K_SOFTMAX_AVX512_H
#define SQ_K_SOFTMAX_AVX512_H

#include "kernels/avx512/k_avx512.h"

#include <float.h>
#include <math.h>

/* The larger half of a tile's scores, lane by lane; -inf where the row does not see. */
BLOCK __m512 seen_scores(const float *p, int32_t t, int32_t lo, int32_t hi, __m512 most) {
    const __mmask16 seen = first_lanes(hi - t) & (__mmask16)~first_lanes(lo - t);
    return _mm512_mask_max_ps(most, seen, most, _mm512_load_ps(p + t));
}

/* exp(s - m) where the row sees, +0 elsewhere. */
BLOCK __m512 probabilities(float *p, int32_t t, int32_t lo, int32_t hi, float m) {
    const __mmask16 seen = first_lanes(hi - t) & (__mmask16)~first_lanes(lo - t);
    const __m512 e = exp16(_mm512_sub_ps(_mm512_load_ps(p + t), _mm512_set1_ps(m)));
    const __m512 prob = _mm512_maskz_mov_ps(seen, e);
    _mm512_store_ps(p + t, prob);
    return prob;
}

/* Row i of the call: p holds scores at tiles [tile0, tile1) and gets probabilities, +0 where the row does not
 * see; m and l of the row are written. Returns a bit for each tile where it sees something and did not drop
 * it. */
static inline uint32_t softmax_row(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1, float *p) {
    const int32_t lo = a->lo[i], hi = a->hi[i];
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 most = none, sum = _mm512_setzero_ps(), top[SQ_ATTN_TILES];
    uint32_t live = 0;
    for (int32_t j = tile0; j < tile1; j++) {
        top[j] = none;
        for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t += 16)
            top[j] = seen_scores(p, t, lo, hi, top[j]);
        most = _mm512_max_ps(most, top[j]);
    }
    const float m = _mm512_reduce_max_ps(most) + 0.0f;
    const float run = a->m_run && a->m_run[i] > m ? a->m_run[i] : m;
    const float least = a->m_run && run > -FLT_MAX ? run - a->skip : -FLT_MAX;
    for (int32_t j = tile0; j < tile1; j++) {
        const int32_t t = SQ_KV_TILE * j;
        if (!_mm512_cmp_ps_mask(top[j], _mm512_set1_ps(least), _CMP_GE_OQ)) {
            _mm512_store_ps(p + t, _mm512_setzero_ps());
            _mm512_store_ps(p + t + 16, _mm512_setzero_ps());
            continue;
        }
        live |= 1u << j;
        sum = _mm512_add_ps(sum, probabilities(p, t, lo, hi, m));
        sum = _mm512_add_ps(sum, probabilities(p, t + 16, lo, hi, m));
    }
    a->m[i] = m;
    a->l[i] = lane_tree(sum);
    return live;
}

#endif
