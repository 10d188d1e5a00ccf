/* SPDX-License-Identifier: Apache-2.0
 *
 * model_rope.c - rotary frequencies of the known scaling rules, in double.
 *
 * f_i = theta^(-2i/d) for i < d/2. linear divides by the factor; llama3 divides long wavelengths, keeps short
 * ones and interpolates between; YaRN (Peng et al., arXiv:2309.00071) ramps by dimension between two rotation
 * counts and scales cos and sin, which scales the logits by the square. */
#include "model/model.h"

#include <math.h>

static const double TWO_PI = 6.283185307179586476925286766559;

static double llama3(const sq_rope_params *p, double f) {
    const double wavelength = TWO_PI / f;
    const double low = p->original_ctx / p->low_freq, high = p->original_ctx / p->high_freq;
    if (wavelength < high) return f;
    if (wavelength > low) return f / p->factor;
    const double s = (p->original_ctx / wavelength - p->low_freq) / (p->high_freq - p->low_freq);
    return (1.0 - s) * f / p->factor + s * f;
}

/* Dimension whose wavelength makes n rotations in the original context. */
static double yarn_dim(const sq_rope_params *p, double d, double n) {
    return d * log(p->original_ctx / (TWO_PI * n)) / (2.0 * log(p->theta));
}

static double yarn_mscale(double factor, double k) {
    return factor > 1.0 ? 0.1 * k * log(factor) + 1.0 : 1.0;
}

static double yarn_attention_factor(const sq_rope_params *p) {
    if (p->attention_factor > 0) return p->attention_factor;
    if (p->mscale > 0 && p->mscale_all_dim > 0)
        return yarn_mscale(p->factor, p->mscale) / yarn_mscale(p->factor, p->mscale_all_dim);
    return yarn_mscale(p->factor, 1.0);
}

static void yarn(const sq_rope_params *p, int32_t half, double *f) {
    const double d = 2.0 * half;
    double lo = yarn_dim(p, d, p->beta_fast), hi = yarn_dim(p, d, p->beta_slow);
    if (p->truncate) lo = floor(lo), hi = ceil(hi);
    lo = fmax(lo, 0.0);
    hi = fmin(hi, d - 1.0);
    const double width = fmax(hi - lo, 0.001);
    for (int32_t i = 0; i < half; i++) {
        const double ramp = fmin(fmax((i - lo) / width, 0.0), 1.0); /* 0: extrapolate, 1: interpolate */
        f[i] = f[i] * (1.0 - ramp) + f[i] / p->factor * ramp;
    }
}

void sq_rope_frequencies(const sq_rope_params *p, int32_t half, double *inv_freq, double *attention_factor) {
    *attention_factor = 1.0;
    for (int32_t i = 0; i < half; i++) inv_freq[i] = pow(p->theta, -(double)i / half);
    switch (p->type) {
    case SQ_ROPE_LINEAR:
        for (int32_t i = 0; i < half; i++) inv_freq[i] /= p->factor;
        break;
    case SQ_ROPE_LLAMA3:
        for (int32_t i = 0; i < half; i++) inv_freq[i] = llama3(p, inv_freq[i]);
        break;
    case SQ_ROPE_YARN:
        yarn(p, half, inv_freq);
        *attention_factor = yarn_attention_factor(p);
        break;
    default: break;
    }
}
