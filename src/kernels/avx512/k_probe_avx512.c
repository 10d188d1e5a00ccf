/* SPDX-License-Identifier: Apache-2.0
 *
 * k_probe_avx512.c - reads, dot products without VNNI and multiply-adds at the rate the core issues them. The
 * empty asm keeps the compiler from seeing that the accumulators are equal. */
#include "kernels/avx512/k_avx512.h"

enum { CHAINS = 16, AHEAD = 4096 };

uint64_t sq_probe_read__avx512(const void *p, size_t bytes) {
    const char *at = p;
    __m512i x[8] = {0};
    for (size_t done = 0; done < bytes; done += 512, at += 512) {
        UNROLL
        for (size_t i = 0; i < 8; i++) {
            fetch(at, AHEAD + 64 * i);
            x[i] = _mm512_xor_si512(x[i], _mm512_loadu_si512(at + 64 * i));
        }
    }
    for (size_t i = 1; i < 8; i++) x[0] = _mm512_xor_si512(x[0], x[i]);
    uint64_t word[8], all = 0;
    _mm512_storeu_si512(word, x[0]);
    for (size_t i = 0; i < 8; i++) all ^= word[i];
    return all;
}

uint64_t sq_probe_dots__avx512bw(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum) {
    const __m512i b = _mm512_loadu_si512(x), one = _mm512_set1_epi16(1);
    __m512i a = _mm512_loadu_si512(w), acc[CHAINS] = {0};
    for (int32_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            __asm__ volatile("" : "+v"(a));
            acc[i] = _mm512_add_epi32(acc[i], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), one));
            __asm__ volatile("" : "+v"(acc[i]));
        }
    }
    *sum = _mm512_reduce_add_epi32(acc[0]);
    return (uint64_t)rounds * CHAINS * 64 * 2;
}

uint64_t sq_probe_fma__avx512(int32_t rounds, float a, float b, float *sum) {
    const __m512 av = _mm512_set1_ps(a), bv = _mm512_set1_ps(b);
    __m512 acc[CHAINS] = {0};
    for (int32_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_fmadd_ps(acc[i], av, bv);
            __asm__ volatile("" : "+v"(acc[i]));
        }
    }
    *sum = _mm512_cvtss_f32(acc[0]);
    return (uint64_t)rounds * CHAINS * 16 * 2;
}
