/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_neon.c - a sealed tile in fewer bits, made from its codes (R9). As in k_seal_neon.c the codes
 * of four channels (K) or four tokens (V) are the bytes of a lane: a byte is taken out of all lanes, becomes
 * four floats, and goes back to where it was. */
#include "k_math_neon.h"

typedef struct {
    float c0, c1;         /* centres of the codes */
    int32_t most0, most1; /* largest codes */
    float ratio;          /* of the steps, if both could be had exactly */
} change;

static change change_of(sq_kv_format from, sq_kv_format to) {
    const int32_t m0 = (1 << sq_kv_bits(from)) - 1, m1 = (1 << sq_kv_bits(to)) - 1;
    return (change){(float)m0 * 0.5f, (float)m1 * 0.5f, m0, m1, (float)m0 / (float)m1};
}

/* A line of bytes from bit a.shift on into one of fewer bits, a quarter at a time; r: ratios of the four
 * bytes of a lane. Lines are begun at bit 0. */
SQ_INLINE void change_line(const change *q, const uint8_t *in, sq_kv_place a, const float r[4], uint8_t *out,
                           sq_kv_place b) {
    for (int i = 0; i < 64; i += 16) {
        const uint32x4_t line = vreinterpretq_u32_u8(vld1q_u8(in + a.at + i));
        uint32x4_t made = b.shift ? vreinterpretq_u32_u8(vld1q_u8(out + b.at + i)) : vdupq_n_u32(0);
        for (int e = 0; e < 4; e++) {
            const uint32x4_t u =
                vandq_u32(vshlq_u32(line, vdupq_n_s32(-(8 * e + a.shift))), vdupq_n_u32((uint32_t)q->most0));
            const float32x4_t off = vsubq_f32(vcvtq_f32_u32(u), vdupq_n_f32(q->c0));
            const int32x4_t n = vcvtnq_s32_f32(vfmaq_n_f32(vdupq_n_f32(q->c1), off, r[e]));
            const int32x4_t held = vminq_s32(vmaxq_s32(n, vdupq_n_s32(0)), vdupq_n_s32(q->most1));
            made = vorrq_u32(made, vshlq_u32(vreinterpretq_u32_s32(held), vdupq_n_s32(8 * e + b.shift)));
        }
        vst1q_u8(out + b.at + i, vreinterpretq_u8_u32(made));
    }
}

#include "kernels/k_shrink.h"

void sq_kv_shrink__neon(const sq_kv_shrink_args *a) { shrink_tile(a); }
