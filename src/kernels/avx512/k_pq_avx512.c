/* SPDX-License-Identifier: Apache-2.0
 *
 * k_pq_avx512.c - nearest rows of codebooks (R10). Lanes are rows: a lane remembers the least it saw and
 * where, so the loop has no branch, and one look over the lanes ends it. */
#include "kernels/avx512/k_avx512.h"

/* Among equal ones the first row: a lane keeps its first, and of lanes the lowest row is taken. */
static uint8_t first_least(__m512 least, __m512i at) {
    const __m512 all = _mm512_set1_ps(_mm512_reduce_min_ps(least));
    const __mmask16 those = _mm512_cmp_ps_mask(least, all, _CMP_EQ_OQ);
    return (uint8_t)_mm512_mask_reduce_min_epu32(those, at);
}

static uint8_t nearest(const float *x, const float *book) {
    __m512 v[SQ_PQ_DIMS], least = _mm512_set1_ps(__builtin_inff());
    __m512i at = _mm512_setzero_si512();
    __m512i here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int32_t k = 0; k < SQ_PQ_DIMS; k++) v[k] = _mm512_set1_ps(x[k]);
    for (int32_t c = 0; c < SQ_PQ_ROWS; c += 16) {
        __m512 s = _mm512_loadu_ps(book + SQ_PQ_DIMS * SQ_PQ_ROWS + c);
        for (int32_t k = 0; k < SQ_PQ_DIMS; k++)
            s = _mm512_fnmadd_ps(v[k], _mm512_loadu_ps(book + k * SQ_PQ_ROWS + c), s);
        const __mmask16 less = _mm512_cmp_ps_mask(s, least, _CMP_LT_OQ);
        least = _mm512_mask_mov_ps(least, less, s);
        at = _mm512_mask_mov_epi32(at, less, here);
        here = _mm512_add_epi32(here, _mm512_set1_epi32(16));
    }
    return first_least(least, at);
}

void sq_pq_nearest__avx512(const float *x, size_t stride, int32_t n, const float *book, uint8_t *code) {
    for (int32_t i = 0; i < n; i++) code[i] = nearest(x + (size_t)i * stride, book);
}
