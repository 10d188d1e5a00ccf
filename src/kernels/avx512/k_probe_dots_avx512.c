/* SPDX-License-Identifier: Apache-2.0
 *
 * k_probe_dots_avx512.c - vpdpbusd at the rate the core issues it (k_probe_avx512.c has the other probes). */
#include "kernels/avx512/k_avx512.h"

enum { CHAINS = 16 };

uint64_t sq_probe_dots__avx512(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum) {
    const __m512i a = _mm512_loadu_si512(w), b = _mm512_loadu_si512(x);
    __m512i acc[CHAINS] = {0};
    for (int32_t r = 0; r < rounds; r++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
            __asm__ volatile("" : "+v"(acc[i]));
        }
    }
    *sum = _mm512_reduce_add_epi32(acc[0]);
    return (uint64_t)rounds * CHAINS * 64 * 2;
}
