/* SPDX-License-Identifier: Apache-2.0
 *
 * k_rows_avx512.c - row operations between the matrices, 16 elements at a time; tails by masks, so that no
 * element outside a row is read or written. They run on data that are in L1 and take about 1 % of a token;
 * the idea is only to stay in step with the matrices. */
#include "kernels/avx512/k_avx512.h"

#include <math.h>

/* ---- int8 activations ------------------------------------------------------------------------ */

BLOCK void quant_group(const float *x, int8_t *q, float *scale, float *xsum, int32_t *isum,
                       int16_t *isum16) {
    __m512 v[4];
    __m512i most = _mm512_setzero_si512();
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_loadu_ps(x + 16 * j);
        most = _mm512_max_epu32(most,
                                _mm512_and_si512(_mm512_castps_si512(v[j]), _mm512_set1_epi32(0x7fffffff)));
    }
    const float a =
        _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32((int)_mm512_reduce_max_epu32(most))));
    if (!(a >= 0x1p-100f && a < INFINITY)) { /* silence, or a number that is none */
        *scale = *xsum = a < 1.0f ? 0.0f : NAN;
        *isum = 0;
        memset(q, 0, SQ_GROUP);
        memset(isum16, 0, 4 * sizeof *isum16);
        return;
    }
    const __m512 inv = _mm512_set1_ps(127.0f / a);
    __m512i sum = _mm512_setzero_si512();
    for (int j = 0; j < 4; j++) {
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(v[j], inv));
        sum = _mm512_add_epi32(sum, code);
        isum16[j] = (int16_t)_mm512_reduce_add_epi32(code);
        _mm_storeu_si128((__m128i *)(q + 16 * j), _mm512_cvtepi32_epi8(code));
    }
    *scale = a / 127.0f;
    *isum = _mm512_reduce_add_epi32(sum);
    *xsum = *scale * (float)*isum;
}

void sq_quant_q8g64__avx512(const float *x, int32_t g0, int32_t g1, int8_t *q, float *scale, float *xsum,
                            int32_t *isum, int16_t *isum16) {
    for (int32_t g = g0; g < g1; g++)
        quant_group(x + (size_t)g * SQ_GROUP, q + (size_t)g * SQ_GROUP, scale + g, xsum + g, isum + g,
                    isum16 + 4 * (size_t)g);
}

/* ---- norm, rotation, sum --------------------------------------------------------------------- */

void sq_rmsnorm__avx512(const float *x, const float *w, int32_t n, float eps, float *y) {
    __m512 acc = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 16) {
        const __m512 a = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
        acc = _mm512_fmadd_ps(a, a, acc);
    }
    float v = lane_tree(acc) / (float)n;
    v = v + eps;
    const __m512 r = _mm512_set1_ps(1.0f / sqrtf(v));
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 in = first_lanes(n - i);
        const __m512 xr = _mm512_mul_ps(_mm512_maskz_loadu_ps(in, x + i), r);
        _mm512_mask_storeu_ps(y + i, in, _mm512_mul_ps(xr, _mm512_maskz_loadu_ps(in, w + i)));
    }
}

void sq_rope__avx512(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i += 16) {
        const __mmask16 in = first_lanes(half - i);
        const __m512 a = _mm512_maskz_loadu_ps(in, x + i), b = _mm512_maskz_loadu_ps(in, x + half + i);
        const __m512 c = _mm512_maskz_loadu_ps(in, cos + i), s = _mm512_maskz_loadu_ps(in, sin + i);
        _mm512_mask_storeu_ps(x + i, in, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + half + i, in, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/* Pairs as they lie: even lanes a c - b s, odd ones b c + a s. */
void sq_rope_pairs__avx512(float *x, const float *cos, const float *sin, int32_t half) {
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (int32_t i = 0; i < half; i += 8) {
        const int32_t n = half - i < 8 ? half - i : 8;
        const __mmask16 in = first_lanes(n), both = first_lanes(2 * n);
        const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(in, cos + i));
        const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(in, sin + i));
        const __m512 v = _mm512_maskz_loadu_ps(both, x + 2 * i), other = _mm512_permute_ps(v, 0xb1);
        _mm512_mask_storeu_ps(x + 2 * i, both, _mm512_fmaddsub_ps(v, c, _mm512_mul_ps(other, s)));
    }
}

void sq_add__avx512(float *x, const float *y, int32_t n) {
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 in = first_lanes(n - i);
        const __m512 a = _mm512_maskz_loadu_ps(in, x + i), b = _mm512_maskz_loadu_ps(in, y + i);
        _mm512_mask_storeu_ps(x + i, in, _mm512_add_ps(a, b));
    }
}

/* ---- gates ----------------------------------------------------------------------------------- */

/* g / (1 + exp(-z)) */
BLOCK __m512 gate(__m512 g, __m512 minus_z) {
    return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(minus_z)));
}

void sq_silu_mul__avx512(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 in = first_lanes(n - i);
        const __m512 gv = _mm512_maskz_loadu_ps(in, g + i), uv = _mm512_maskz_loadu_ps(in, u + i);
        const __m512 act = gate(gv, _mm512_xor_ps(gv, _mm512_set1_ps(-0.0f)));
        _mm512_mask_storeu_ps(h + i, in, _mm512_mul_ps(act, uv));
    }
}

void sq_gelu_mul__avx512(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 in = first_lanes(n - i);
        const __m512 gv = _mm512_maskz_loadu_ps(in, g + i), uv = _mm512_maskz_loadu_ps(in, u + i);
        const __m512 cubic =
            _mm512_fmadd_ps(_mm512_mul_ps(gv, gv), _mm512_set1_ps(0x1.6e4e26p-5f), _mm512_set1_ps(1.0f));
        const __m512 z = _mm512_mul_ps(_mm512_mul_ps(gv, _mm512_set1_ps(0x1.988454p-1f)), cubic);
        const __m512 act = gate(gv, _mm512_mul_ps(_mm512_set1_ps(-2.0f), z));
        _mm512_mask_storeu_ps(h + i, in, _mm512_mul_ps(act, uv));
    }
}

/* max gives its second operand where g is NaN or a zero of either sign, as g > 0 ? g : 0 does. */
void sq_relu2_mul__avx512(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 in = first_lanes(n - i);
        const __m512 r = _mm512_max_ps(_mm512_maskz_loadu_ps(in, g + i), _mm512_setzero_ps());
        _mm512_mask_storeu_ps(h + i, in,
                              _mm512_mul_ps(_mm512_mul_ps(r, r), _mm512_maskz_loadu_ps(in, u + i)));
    }
}
