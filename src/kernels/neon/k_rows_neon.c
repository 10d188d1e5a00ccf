/* SPDX-License-Identifier: Apache-2.0
 *
 * k_rows_neon.c - what happens to one row of activations between two matrices: rounding to int8, norm,
 * rotation, sums, gates.
 *
 * Everything here lives in the first-level cache, so the only rung is the plain one: four lanes at a time,
 * the last lanes through a padded copy, no scalar tail that would have to repeat the arithmetic. */
#include "k_math_neon.h"

/* max |x| over a group, compared as bits (kernels.h): NaN is above infinity, infinity above all numbers. */
static float group_absmax(const float *x) {
    uint32x4_t most = vdupq_n_u32(0);
    for (int k = 0; k < SQ_GROUP; k += 4) {
        const uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + k));
        most = vmaxq_u32(most, vandq_u32(bits, vdupq_n_u32(0x7fffffffu)));
    }
    return vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32(vmaxvq_u32(most))), 0);
}

/* q[k] = rint(x[k] * inv) for 64 columns; the sum of the codes. |x * inv| <= 127 up to rounding, so narrowing
 * never clips. */
static int32_t round_group(const float *x, float inv, int8_t *q) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int k = 0; k < SQ_GROUP; k += 8) {
        const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k), inv));
        const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + k + 4), inv));
        sum = vaddq_s32(sum, vaddq_s32(a, b));
        vst1_s8(q + k, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
    }
    return vaddvq_s32(sum);
}

void sq_quant_q8g64__neon(const float *x, int32_t g0, int32_t g1, int8_t *q, float *scale, float *xsum,
                          int32_t *isum, int16_t *isum16) {
    for (int32_t g = g0; g < g1; g++) {
        const size_t at = (size_t)g * SQ_GROUP;
        const float a = group_absmax(x + at);
        if (a >= 0x1p-100f && a < __builtin_inff()) {
            scale[g] = a / 127.0f;
            isum[g] = round_group(x + at, 127.0f / a, q + at);
        } else {
            scale[g] = a < 1.0f ? 0.0f : __builtin_nanf("");
            isum[g] = 0;
            memset(q + at, 0, SQ_GROUP);
        }
        sq_isum16(q + at, isum16 + 4 * (size_t)g);
        xsum[g] = scale[g] * (float)isum[g];
    }
}

void sq_rmsnorm__neon(const float *x, const float *w, int32_t n, float eps, float *y) {
    float32x4_t acc[4];
    for (int j = 0; j < 4; j++) acc[j] = vdupq_n_f32(0.0f);
    for (int32_t i = 0; i < n; i += 16)
        for (int j = 0; j < 4; j++) {
            const float32x4_t v = load_n(x + i + 4 * j, n - i - 4 * j);
            acc[j] = vfmaq_f32(acc[j], v, v);
        }
    float v = lane_tree(acc) / (float)n;
    v = v + eps;
    const float r = 1.0f / __builtin_sqrtf(v);
    for (int32_t i = 0; i < n; i += 4)
        store_n(y + i, n - i, vmulq_f32(vmulq_n_f32(load_n(x + i, n - i), r), load_n(w + i, n - i)));
}

void sq_rope__neon(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i += 4) {
        const int32_t n = half - i;
        const float32x4_t a = load_n(x + i, n), b = load_n(x + half + i, n);
        const float32x4_t c = load_n(cos + i, n), s = load_n(sin + i, n);
        store_n(x + i, n, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c));
        store_n(x + half + i, n, vfmaq_f32(vmulq_f32(a, s), b, c));
    }
}

void sq_rope_pairs__neon(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i += 4) {
        const int32_t n = half - i;
        float *p = x + 2 * (size_t)i;
        const float32x4_t lo = load_n(p, 2 * n), hi = n > 2 ? load_n(p + 4, 2 * n - 4) : vdupq_n_f32(0.0f);
        const float32x4_t a = vuzp1q_f32(lo, hi), b = vuzp2q_f32(lo, hi);
        const float32x4_t c = load_n(cos + i, n), s = load_n(sin + i, n);
        const float32x4_t even = vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c);
        const float32x4_t odd = vfmaq_f32(vmulq_f32(a, s), b, c);
        store_n(p, 2 * n, vzip1q_f32(even, odd));
        if (n > 2) store_n(p + 4, 2 * n - 4, vzip2q_f32(even, odd));
    }
}

void sq_add__neon(float *x, const float *y, int32_t n) {
    for (int32_t i = 0; i < n; i += 4)
        store_n(x + i, n - i, vaddq_f32(load_n(x + i, n - i), load_n(y + i, n - i)));
}

/* g / (1 + exp(minus_z)) */
SQ_INLINE float32x4_t gate4(float32x4_t g, float32x4_t minus_z) {
    return vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), exp4(minus_z)));
}

void sq_silu_mul__neon(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 4) {
        const float32x4_t gv = load_n(g + i, n - i);
        store_n(h + i, n - i, vmulq_f32(gate4(gv, vnegq_f32(gv)), load_n(u + i, n - i)));
    }
}

void sq_gelu_mul__neon(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 4) {
        const float32x4_t gv = load_n(g + i, n - i);
        const float32x4_t cubic =
            vfmaq_f32(vdupq_n_f32(1.0f), vmulq_f32(gv, gv), vdupq_n_f32(0x1.6e4e26p-5f));
        const float32x4_t z = vmulq_f32(vmulq_f32(gv, vdupq_n_f32(0x1.988454p-1f)), cubic);
        const float32x4_t minus_2z = vmulq_f32(vdupq_n_f32(-2.0f), z);
        store_n(h + i, n - i, vmulq_f32(gate4(gv, minus_2z), load_n(u + i, n - i)));
    }
}

/* Lanes that are not above zero, NaN among them, become +0. */
void sq_relu2_mul__neon(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 4) {
        const float32x4_t gv = load_n(g + i, n - i);
        const float32x4_t r =
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(gv), vcgtzq_f32(gv)));
        store_n(h + i, n - i, vmulq_f32(vmulq_f32(r, r), load_n(u + i, n - i)));
    }
}
