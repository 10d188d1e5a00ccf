/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_avx512.c - a sealed tile in fewer bits, made from its codes (R9). As in k_seal_avx512.c the codes
 * of four channels (K) or four tokens (V) are the bytes of a lane: a byte is taken out of all lanes, becomes
 * 16 floats, and goes back to where it was. */
#include "kernels/avx512/k_avx512.h"

typedef struct {
    __m512 c0, c1;        /* centres of the codes */
    __m512i most0, most1; /* largest codes */
    float ratio;          /* of the steps, if both could be had exactly */
} change;

static change change_of(sq_kv_format from, sq_kv_format to) {
    const int32_t m0 = (1 << sq_kv_bits(from)) - 1, m1 = (1 << sq_kv_bits(to)) - 1;
    return (change){_mm512_set1_ps((float)m0 * 0.5f), _mm512_set1_ps((float)m1 * 0.5f), _mm512_set1_epi32(m0),
                    _mm512_set1_epi32(m1), (float)m0 / (float)m1};
}

BLOCK void change_line(const change *q, const uint8_t *in, sq_kv_place a, const float r[4], uint8_t *out,
                       sq_kv_place b) {
    const __m512i line = _mm512_load_si512(in + a.at);
    __m512i made = b.shift ? _mm512_load_si512(out + b.at) : _mm512_setzero_si512();
    for (int e = 0; e < 4; e++) {
        const __m512i u =
            _mm512_and_si512(_mm512_srlv_epi32(line, _mm512_set1_epi32(8 * e + a.shift)), q->most0);
        const __m512 x =
            _mm512_fmadd_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(u), q->c0), _mm512_set1_ps(r[e]), q->c1);
        const __m512i n =
            _mm512_min_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(x), _mm512_setzero_si512()), q->most1);
        made = _mm512_or_si512(made, _mm512_sllv_epi32(n, _mm512_set1_epi32(8 * e + b.shift)));
    }
    _mm512_store_si512(out + b.at, made);
}

#include "kernels/k_shrink.h"

void sq_kv_shrink__avx512(const sq_kv_shrink_args *a) { shrink_tile(a); }
