/* SPDX-License-Identifier: Apache-2.0
 *
 * k_math_scalar.h - the two pieces of arithmetic that several scalar kernels share, word for word as
 * kernels.h has them. */
#ifndef SQ_K_MATH_SCALAR_H
#define SQ_K_MATH_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The contract's exp: 1.2 ulp or so between -87 and 88, +0 below, e^88 above. */
static inline float sq_exp(float x) {
    if (isnan(x)) return x;
    if (x < -87.0f) return 0.0f;
    if (x > 88.0f) x = 88.0f;
    const float n = rintf(x * 0x1.715476p+0f);
    float r = fmaf(n, -0x1.62e4p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.6850e4p-10f;
    p = fmaf(p, r, 0x1.123bccp-7f);
    p = fmaf(p, r, 0x1.555b98p-5f);
    p = fmaf(p, r, 0x1.55548ep-3f);
    p = fmaf(p, r, 0x1.fffff8p-2f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits += (uint32_t)(int32_t)n << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

/* The tree of R1: 16 lanes to one sum. Destroys acc. */
static inline float lane_tree(float acc[16]) {
    for (int half = 8; half > 0; half /= 2)
        for (int l = 0; l < half; l++) acc[l] += acc[l + half];
    return acc[0];
}

#endif
