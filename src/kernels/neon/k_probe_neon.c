/* SPDX-License-Identifier: Apache-2.0
 *
 * k_probe_neon.c - reads, dot products and multiply-adds at the rate the core issues them. sdot takes signed
 * codes on both sides, as the matrices here do. The empty asm keeps the compiler from seeing that the
 * accumulators are equal. */
#include "k_math_neon.h"

enum { CHAINS = 16 };

uint64_t sq_probe_read__neon(const void *p, size_t bytes) {
    const uint8_t *at = p;
    uint8x16_t x[8];
    for (int i = 0; i < 8; i++) x[i] = vdupq_n_u8(0);
    for (size_t done = 0; done < bytes; done += 128, at += 128)
        for (int i = 0; i < 8; i++) x[i] = veorq_u8(x[i], vld1q_u8(at + 16 * i));
    for (int i = 1; i < 8; i++) x[0] = veorq_u8(x[0], x[i]);
    const uint64x2_t w = vreinterpretq_u64_u8(x[0]);
    return vgetq_lane_u64(w, 0) ^ vgetq_lane_u64(w, 1);
}

uint64_t sq_probe_dots__neon(int32_t rounds, const uint8_t *w, const int8_t *x, int32_t *sum) {
    int8x16_t a[4], b[4];
    int32x4_t acc[CHAINS];
    for (int i = 0; i < 4; i++) {
        a[i] = vreinterpretq_s8_u8(vld1q_u8(w + 16 * i));
        b[i] = vld1q_s8(x + 16 * i);
    }
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_s32(0);
    for (int32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = vdotq_s32(acc[i], a[i % 4], b[i % 4]);
            __asm__ volatile("" : "+w"(acc[i]));
        }
    }
    *sum = vaddvq_s32(vaddq_s32(vaddq_s32(acc[0], acc[1]), vaddq_s32(acc[2], acc[3])));
    return (uint64_t)rounds * CHAINS * 16 * 2;
}

uint64_t sq_probe_fma__neon(int32_t rounds, float a, float b, float *sum) {
    const float32x4_t av = vdupq_n_f32(a), bv = vdupq_n_f32(b);
    float32x4_t acc[CHAINS];
    for (int i = 0; i < CHAINS; i++) acc[i] = vdupq_n_f32(0);
    for (int32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < CHAINS; i++) {
            acc[i] = vfmaq_f32(bv, acc[i], av);
            __asm__ volatile("" : "+w"(acc[i]));
        }
    }
    *sum = vgetq_lane_f32(acc[0], 0);
    return (uint64_t)rounds * CHAINS * 4 * 2;
}
