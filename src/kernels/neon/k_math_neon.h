/* SPDX-License-Identifier: Apache-2.0
 *
 * k_math_neon.h - what the NEON files share: sixteen f32 lanes as four registers, number formats, exp, loads
 * that stop at the end of an array.
 *
 * The whole folder is built with +dotprod, but only k_gemm_q_neon.c, k_gemm_foreign_neon.c and
 * k_attn_sage_neon.c may contain such instructions: the other files run on every aarch64. They have no loop
 * of int8 products from which a compiler would make an sdot; `make test-arm` looks into the objects and runs
 * the tests on a CPU without it. */
#ifndef SQ_K_MATH_NEON_H
#define SQ_K_MATH_NEON_H

#include "kernels/kernels.h"

#include <arm_neon.h>
#include <string.h>

/* One prototype per line of the list: sq_gemm_f32__neon and so on. */
#define SQ_KERNEL(field, fn) fn sq_##field##__neon;
#include "kernels/kernels.def"
#undef SQ_KERNEL

/* Block functions take their shape as constants and must be specialised by inlining, whatever the compiler
 * thinks. */
#define SQ_INLINE static inline __attribute__((always_inline))

/* The tree of R1 over lanes 0..3, 4..7, 8..11, 12..15. */
SQ_INLINE float lane_tree(const float32x4_t acc[4]) {
    const float32x4_t v = vaddq_f32(vaddq_f32(acc[0], acc[2]), vaddq_f32(acc[1], acc[3]));
    const float32x2_t w = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(w, 0) + vget_lane_f32(w, 1);
}

/* The first n of 4 floats at p, the others +0; memory past them is not touched. */
SQ_INLINE float32x4_t load_n(const float *p, int32_t n) {
    if (n >= 4) return vld1q_f32(p);
    float v[4] = {0};
    if (n > 0) memcpy(v, p, (size_t)n * sizeof *v);
    return vld1q_f32(v);
}

SQ_INLINE void store_n(float *p, int32_t n, float32x4_t x) {
    if (n >= 4) {
        vst1q_f32(p, x);
        return;
    }
    float v[4];
    vst1q_f32(v, x);
    if (n > 0) memcpy(p, v, (size_t)n * sizeof *v);
}

/* Four numbers at any address. */
SQ_INLINE float32x4_t load4_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8(p)); }

SQ_INLINE float32x4_t load4_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

SQ_INLINE float32x4_t load4_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}

/* sq_exp of kernels.h. FMIN keeps a NaN; lanes below -87 are cleared at the end. */
SQ_INLINE float32x4_t exp4(float32x4_t x0) {
    const float32x4_t x = vminq_f32(x0, vdupq_n_f32(88.0f)), one = vdupq_n_f32(1.0f);
    const float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(0x1.715476p+0f)));
    float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-0x1.62e4p-1f));
    r = vfmaq_f32(r, n, vdupq_n_f32(-0x1.7f7d1cp-20f));
    float32x4_t p = vdupq_n_f32(0x1.6850e4p-10f);
    p = vfmaq_f32(vdupq_n_f32(0x1.123bccp-7f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.555b98p-5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.55548ep-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(0x1.fffff8p-2f), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    const uint32x4_t e = vreinterpretq_u32_s32(vshlq_n_s32(vcvtq_s32_f32(n), 23));
    const uint32x4_t bits = vaddq_u32(vreinterpretq_u32_f32(p), e);
    return vreinterpretq_f32_u32(vbicq_u32(bits, vcltq_f32(x0, vdupq_n_f32(-87.0f))));
}

#endif
