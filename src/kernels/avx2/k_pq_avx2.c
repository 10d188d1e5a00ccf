/* SPDX-License-Identifier: Apache-2.0
 *
 * k_pq_avx2.c - nearest rows of codebooks (R10). Lanes are rows: a lane remembers the least it saw and where,
 * so the loop has no branch, and one look over the lanes ends it. */
#include "k_math_avx2.h"

/* Among equal ones the first row: a lane keeps its first, and of lanes the lowest row is taken. */
static uint8_t first_least(__m256 least, __m256i at) {
    float s[8];
    int32_t c[8], best = 0;
    _mm256_storeu_ps(s, least);
    _mm256_storeu_si256((__m256i *)c, at);
    for (int32_t j = 1; j < 8; j++)
        if (s[j] < s[best] || (s[j] == s[best] && c[j] < c[best])) best = j;
    return (uint8_t)c[best];
}

static uint8_t nearest(const float *x, const float *book) {
    __m256 v[SQ_PQ_DIMS], least = _mm256_set1_ps(__builtin_inff());
    __m256i at = _mm256_setzero_si256(), here = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int32_t k = 0; k < SQ_PQ_DIMS; k++) v[k] = _mm256_set1_ps(x[k]);
    for (int32_t c = 0; c < SQ_PQ_ROWS; c += 8) {
        __m256 s = _mm256_loadu_ps(book + SQ_PQ_DIMS * SQ_PQ_ROWS + c);
        for (int32_t k = 0; k < SQ_PQ_DIMS; k++)
            s = _mm256_fnmadd_ps(v[k], _mm256_loadu_ps(book + k * SQ_PQ_ROWS + c), s);
        const __m256 less = _mm256_cmp_ps(s, least, _CMP_LT_OQ);
        least = _mm256_blendv_ps(least, s, less);
        at = _mm256_blendv_epi8(at, here, _mm256_castps_si256(less));
        here = _mm256_add_epi32(here, _mm256_set1_epi32(8));
    }
    return first_least(least, at);
}

void sq_pq_nearest__avx2(const float *x, size_t stride, int32_t n, const float *book, uint8_t *code) {
    for (int32_t i = 0; i < n; i++) code[i] = nearest(x + (size_t)i * stride, book);
}
