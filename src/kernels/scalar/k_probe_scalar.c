/* SPDX-License-Identifier: Apache-2.0
 *
 * k_probe_scalar.c - reads, dot products and multiply-adds in plain C: what the others must return. */
#include "kernels/scalar/k_scalar.h"

#include <math.h>
#include <string.h>

uint64_t sq_probe_read__scalar(const void *p, size_t bytes) {
    const char *at = p;
    uint64_t x[4] = {0};
    for (size_t done = 0; done < bytes; done += sizeof x, at += sizeof x) {
        uint64_t word[4];
        memcpy(word, at, sizeof word);
        for (int i = 0; i < 4; i++) x[i] ^= word[i];
    }
    return x[0] ^ x[1] ^ x[2] ^ x[3];
}

uint64_t sq_probe_dots__scalar(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum) {
    uint32_t all = 0;
    for (int32_t r = 0; r < rounds; r++) {
        int32_t dot = 0;
        for (int k = 0; k < 64; k++) dot += w[k] * x[k];
        __asm__ volatile("" : "+r"(dot) : : "memory"); /* every round anew */
        all += (uint32_t)dot;
    }
    *sum = (int32_t)all;
    return (uint64_t)rounds * 64 * 2;
}

uint64_t sq_probe_fma__scalar(int32_t rounds, float a, float b, float *sum) {
    float acc = 0;
    for (int32_t r = 0; r < rounds; r++) acc = fmaf(acc, a, b);
    *sum = acc;
    return (uint64_t)rounds * 2;
}
