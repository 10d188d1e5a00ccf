/* SPDX-License-Identifier: Apache-2.0
 *
 * k_softmax_avx512.h - scores of a row over some tiles to probabilities: the middle of attention, whatever
 * the tiles are made of (R4). */
#ifndef SQ_K_SOFTMAX_AVX512_H
#define SQ_K_SOFTMAX_AVX512_H

#include "kernels/avx512/k_avx512.h"

#include <float.h>
#include <math.h>

/* Lanes of tokens [t, t + 16) that are in [lo, hi). */
BLOCK __mmask16 seen(bool whole, int32_t t, int32_t lo, int32_t hi) {
    return whole ? (__mmask16)0xffff : first_lanes(hi - t) & (__mmask16)~first_lanes(lo - t);
}

/* Of row i over tiles [tile0, tile1): m, and a bit for each tile that it reads: it sees something there and
 * does not drop it. whole: it sees all of them. */
typedef struct {
    float m;
    uint32_t live;
} row_max;

BLOCK row_max row_max_of(bool whole, const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1,
                         const float *p) {
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 most = none, top[SQ_ATTN_TILES];
    row_max r = {0};
    for (int32_t j = tile0; j < tile1; j++) {
        top[j] = none;
        for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t += 16)
            top[j] =
                _mm512_mask_max_ps(top[j], seen(whole, t, a->lo[i], a->hi[i]), top[j], _mm512_load_ps(p + t));
        most = _mm512_max_ps(most, top[j]);
    }
    r.m = _mm512_reduce_max_ps(most) + 0.0f;
    const float run = a->m_run && a->m_run[i] > r.m ? a->m_run[i] : r.m;
    const float least = a->m_run && run > -FLT_MAX ? run - a->skip : -FLT_MAX;
    for (int32_t j = tile0; j < tile1; j++)
        if (_mm512_cmp_ps_mask(top[j], _mm512_set1_ps(least), _CMP_GE_OQ)) r.live |= 1u << j;
    return r;
}

/* exp(s - m) of 16 tokens where the row sees, +0 elsewhere. */
BLOCK __m512 probabilities(bool whole, const float *p, int32_t t, int32_t lo, int32_t hi, float m) {
    const __m512 e = exp16(_mm512_sub_ps(_mm512_load_ps(p + t), _mm512_set1_ps(m)));
    return _mm512_maskz_mov_ps(seen(whole, t, lo, hi), e);
}

BLOCK uint32_t softmax_of(bool whole, const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1,
                          float *p) {
    const row_max r = row_max_of(whole, a, i, tile0, tile1, p);
    __m512 sum = _mm512_setzero_ps();
    for (int32_t t = SQ_KV_TILE * tile0; t < SQ_KV_TILE * tile1; t += 16) {
        __m512 prob = _mm512_setzero_ps();
        if (r.live >> (t / SQ_KV_TILE) & 1) prob = probabilities(whole, p, t, a->lo[i], a->hi[i], r.m);
        _mm512_store_ps(p + t, prob);
        sum = _mm512_add_ps(sum, prob);
    }
    a->m[i] = r.m;
    a->l[i] = lane_tree(sum);
    return r.live;
}

/* Row i of the call: p holds scores at tiles [tile0, tile1) and gets probabilities, +0 where the row does not
 * see; m and l of the row are written. Returns the bits of tiles that it reads. A row in the middle of a long
 * text sees all of its tiles, and needs no masks. */
static inline uint32_t softmax_row(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1, float *p) {
    if (a->lo[i] <= SQ_KV_TILE * tile0 && a->hi[i] >= SQ_KV_TILE * tile1)
        return softmax_of(true, a, i, tile0, tile1, p);
    return softmax_of(false, a, i, tile0, tile1, p);
}

#endif
