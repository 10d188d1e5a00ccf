/* SPDX-License-Identifier: Apache-2.0
 *
 * k_unpack_avx512.h - the unpackers of k_unpack.h with 16 rows in a register. SQ_ZERO8 comes first. */
#ifndef SQ_K_UNPACK_AVX512_H
#define SQ_K_UNPACK_AVX512_H

#include "kernels/avx512/k_avx512.h"

#define SQ_LANES 16
typedef uint32_t sq_u32 __attribute__((vector_size(64)));
typedef int32_t sq_i32 __attribute__((vector_size(64)));
typedef float sq_f32 __attribute__((vector_size(64)));

/* Rows i, i + 4, i + 8 and i + 12 share a register, so that rows become lanes without a step across 16
 * bytes. */
BLOCK void sq_quads(const uint8_t *const p[4], size_t ld, size_t at, sq_u32 out[4]) {
    __m512i r[4];
    UNROLL
    for (size_t i = 0; i < 4; i++) {
        r[i] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(p[0] + i * ld + at)));
        r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p[1] + i * ld + at)), 1);
        r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p[2] + i * ld + at)), 2);
        r[i] = _mm512_inserti32x4(r[i], _mm_loadu_si128((const __m128i *)(p[3] + i * ld + at)), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpacklo_epi32(r[2], r[3]),
                  c = _mm512_unpackhi_epi32(r[0], r[1]), d = _mm512_unpackhi_epi32(r[2], r[3]);
    out[0] = (sq_u32)_mm512_unpacklo_epi64(a, b);
    out[1] = (sq_u32)_mm512_unpackhi_epi64(a, b);
    out[2] = (sq_u32)_mm512_unpacklo_epi64(c, d);
    out[3] = (sq_u32)_mm512_unpackhi_epi64(c, d);
}

BLOCK sq_f32 sq_halves(sq_u32 v) { return (sq_f32)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)v)); }

#include "kernels/k_unpack.h"

#endif
