/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_avx2.c - a sealed tile in fewer bits, made from its codes (R9). As in k_seal_avx2.c the codes
 * of four channels (K) or four tokens (V) are the bytes of a lane: a byte is taken out of all lanes, becomes
 * eight floats, and goes back to where it was. */
#include "k_math_avx2.h"

typedef struct {
    __m256 c0, c1;        /* centres of the codes */
    __m256i most0, most1; /* largest codes */
    float ratio;          /* of the steps, if both could be had exactly */
} change;

static change change_of(sq_kv_format from, sq_kv_format to) {
    const int32_t m0 = (1 << sq_kv_bits(from)) - 1, m1 = (1 << sq_kv_bits(to)) - 1;
    return (change){_mm256_set1_ps((float)m0 * 0.5f), _mm256_set1_ps((float)m1 * 0.5f), _mm256_set1_epi32(m0),
                    _mm256_set1_epi32(m1), (float)m0 / (float)m1};
}

/* Half a line of bytes from `in_shift` on into one of fewer bits; r: ratios of its four bytes. */
SQ_INLINE void change_half(const change *q, const uint8_t *in, int in_shift, const float r[4], uint8_t *out,
                           int out_shift) {
    const __m256i line = _mm256_load_si256((const __m256i *)in);
    __m256i made = out_shift ? _mm256_load_si256((const __m256i *)out) : _mm256_setzero_si256();
    for (int e = 0; e < 4; e++) {
        const __m256i u =
            _mm256_and_si256(_mm256_srl_epi32(line, _mm_cvtsi32_si128(8 * e + in_shift)), q->most0);
        const __m256 x =
            _mm256_fmadd_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(u), q->c0), _mm256_set1_ps(r[e]), q->c1);
        const __m256i n =
            _mm256_min_epi32(_mm256_max_epi32(_mm256_cvtps_epi32(x), _mm256_setzero_si256()), q->most1);
        made = _mm256_or_si256(made, _mm256_sll_epi32(n, _mm_cvtsi32_si128(8 * e + out_shift)));
    }
    _mm256_store_si256((__m256i *)out, made);
}

/* Lines are begun at bit 0. */
SQ_INLINE void change_line(const change *q, const uint8_t *in, sq_kv_place a, const float r[4], uint8_t *out,
                           sq_kv_place b) {
    change_half(q, in + a.at, a.shift, r, out + b.at, b.shift);
    change_half(q, in + a.at + 32, a.shift, r, out + b.at + 32, b.shift);
}

#include "kernels/k_shrink.h"

void sq_kv_shrink__avx2(const sq_kv_shrink_args *a) { shrink_tile(a); }
