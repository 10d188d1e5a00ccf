/* SPDX-License-Identifier: Apache-2.0
 *
 * k_probe_avx2.c - reads, dot products and multiply-adds at the rate the core issues them. A dot product
 * without VNNI is vpmaddubsw, vpmaddwd and vpaddd. The empty asm keeps the compiler from seeing that the
 * accumulators are equal. */
#include "k_math_avx2.h"

enum { CHAINS = 12, AHEAD = 4096 };

uint64_t sq_probe_read__avx2(const void *p, size_t bytes) {
    const char *at = p;
    __m256i x[8] = {0};
    for (size_t done = 0; done < bytes; done += 256, at += 256) {
        for (size_t i = 0; i < 4; i++) fetch_ahead(at, AHEAD + 64 * i);
        for (size_t i = 0; i < 8; i++)
            x[i] = _mm256_xor_si256(x[i], _mm256_loadu_si256((const __m256i *)(const void *)(at + 32 * i)));
    }
    for (size_t i = 1; i < 8; i++) x[0] = _mm256_xor_si256(x[0], x[i]);
    uint64_t word[4];
    _mm256_storeu_si256((__m256i *)(void *)word, x[0]);
    return word[0] ^ word[1] ^ word[2] ^ word[3];
}

SQ_INLINE int32_t sum8(__m256i v) {
    int32_t part[8], all = 0;
    _mm256_storeu_si256((__m256i *)(void *)part, v);
    for (int i = 0; i < 8; i++) all = (int32_t)((uint32_t)all + (uint32_t)part[i]);
    return all;
}

uint64_t sq_probe_dots__avx2(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum) {
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a[2], b[2], acc[CHAINS] = {0};
    for (int h = 0; h < 2; h++) {
        a[h] = _mm256_loadu_si256((const __m256i *)(const void *)(w + 32 * h));
        b[h] = _mm256_loadu_si256((const __m256i *)(const void *)(x + 32 * h));
    }
    for (int32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+x"(a[i % 2]));
            acc[i] =
                _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a[i % 2], b[i % 2]), one));
            __asm__ volatile("" : "+x"(acc[i]));
        }
    }
    *sum = sum8(_mm256_add_epi32(acc[0], acc[1]));
    return (uint64_t)rounds * CHAINS * 32 * 2;
}

uint64_t sq_probe_fma__avx2(int32_t rounds, float a, float b, float *sum) {
    const __m256 av = _mm256_set1_ps(a), bv = _mm256_set1_ps(b);
    __m256 acc[CHAINS] = {0};
    for (int32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm256_fmadd_ps(acc[i], av, bv);
            __asm__ volatile("" : "+x"(acc[i]));
        }
    }
    *sum = _mm256_cvtss_f32(acc[0]);
    return (uint64_t)rounds * CHAINS * 8 * 2;
}
