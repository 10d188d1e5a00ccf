/* SPDX-License-Identifier: Apache-2.0
 *
 * k_rows_scalar.c - what happens to one row of activations between two matrices: norm, rotation, sums,
 * gates, and the rounding to int8 that the packed weights want. */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* max |x| over a group. Compared as bits, which order like the magnitudes: numbers, then infinity, then NaN.
 */
static float group_absmax(const float *x) {
    uint32_t most = 0;
    for (int32_t k = 0; k < SQ_GROUP; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        bits &= 0x7fffffffu;
        if (bits > most) most = bits;
    }
    float a;
    memcpy(&a, &most, sizeof a);
    return a;
}

void sq_quant_q8g64__scalar(const float *x, int32_t g0, int32_t g1, int8_t *q, float *scale, float *xsum,
                            int32_t *isum, int16_t *isum16) {
    for (int32_t g = g0; g < g1; g++) {
        const float *xg = x + (size_t)g * SQ_GROUP;
        int8_t *qg = q + (size_t)g * SQ_GROUP;
        const float a = group_absmax(xg);
        const bool usable = a >= 0x1p-100f && a < INFINITY;
        const float inv = 127.0f / a;
        int32_t sum = 0;
        for (int32_t k = 0; k < SQ_GROUP; k++) {
            qg[k] = usable ? (int8_t)rintf(xg[k] * inv) : 0;
            sum += qg[k];
        }
        sq_isum16(qg, isum16 + 4 * (size_t)g);
        scale[g] = usable ? a / 127.0f : a < 1.0f ? 0.0f : NAN;
        isum[g] = sum;
        xsum[g] = scale[g] * (float)sum;
    }
}

void sq_rmsnorm__scalar(const float *x, const float *w, int32_t n, float eps, float *y) {
    float acc[16] = {0};
    for (int32_t i = 0; i < n; i += 16)
        for (int32_t l = 0; l < 16; l++) {
            const float a = i + l < n ? x[i + l] : 0.0f;
            acc[l] = fmaf(a, a, acc[l]);
        }
    float v = lane_tree(acc) / (float)n;
    v = v + eps;
    const float r = 1.0f / sqrtf(v);
    for (int32_t i = 0; i < n; i++) y[i] = (x[i] * r) * w[i];
}

void sq_rope__scalar(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

void sq_rope_pairs__scalar(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i] = fmaf(a, cos[i], -(b * sin[i]));
        x[2 * i + 1] = fmaf(b, cos[i], a * sin[i]);
    }
}

void sq_add__scalar(float *x, const float *y, int32_t n) {
    for (int32_t i = 0; i < n; i++) x[i] += y[i];
}

void sq_silu_mul__scalar(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i++) h[i] = (g[i] / (1.0f + sq_exp(-g[i]))) * u[i];
}

void sq_gelu_mul__scalar(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i++) {
        const float z = (g[i] * 0x1.988454p-1f) * fmaf(g[i] * g[i], 0x1.6e4e26p-5f, 1.0f);
        h[i] = (g[i] / (1.0f + sq_exp(-2.0f * z))) * u[i];
    }
}

void sq_relu2_mul__scalar(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i++) {
        const float r = g[i] > 0.0f ? g[i] : 0.0f;
        h[i] = (r * r) * u[i];
    }
}
