/* SPDX-License-Identifier: Apache-2.0
 *
 * k_rows_avx2.c - what happens to one row of activations between two matrices: rounding to int8, norm,
 * rotation, sums, gates.
 *
 * Everything here lives in the first-level cache and costs a few microseconds a token together, so the only
 * rung is the plain one: eight lanes at a time, the last lanes under a mask, no scalar tail that would have
 * to repeat the arithmetic. */
#include "k_math_avx2.h"

/* max |x| over a group, compared as bits (kernels.h): NaN is above infinity, infinity above all numbers. */
static float group_absmax(const float *x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256();
    for (int k = 0; k < SQ_GROUP; k += 8) {
        const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + k));
        most = _mm256_max_epu32(most, _mm256_and_si256(bits, magnitude));
    }
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

static int32_t sum8(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(s);
}

/* q[k] = rint(x[k] * inv) for 64 columns; the sum of the codes. |x * inv| <= 127 up to rounding, so packing
 * never clips. */
static int32_t round_group(const float *x, float inv, int8_t *q) {
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < SQ_GROUP; k += 32) {
        __m256i v[4];
        for (int j = 0; j < 4; j++) {
            v[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k + 8 * j), _mm256_set1_ps(inv)));
            sum = _mm256_add_epi32(sum, v[j]);
        }
        /* The packs work within 128-bit halves: groups of four codes come out as 0 2 4 6 1 3 5 7. */
        __m256i codes = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
        codes = _mm256_permutevar8x32_epi32(codes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(q + k), codes);
    }
    return sum8(sum);
}

void sq_quant_q8g64__avx2(const float *x, int32_t g0, int32_t g1, int8_t *q, float *scale, float *xsum,
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

void sq_rmsnorm__avx2(const float *x, const float *w, int32_t n, float eps, float *y) {
    __m256 a = _mm256_setzero_ps(), b = a;
    for (int32_t i = 0; i < n; i += 16) {
        __m256 u = load_n(x + i, n - i), v = n - i > 8 ? load_n(x + i + 8, n - i - 8) : _mm256_setzero_ps();
        a = _mm256_fmadd_ps(u, u, a);
        b = _mm256_fmadd_ps(v, v, b);
    }
    float v = lane_tree(a, b) / (float)n;
    v = v + eps;
    const __m256 r = _mm256_set1_ps(1.0f / __builtin_sqrtf(v));
    for (int32_t i = 0; i < n; i += 8)
        store_n(y + i, n - i, _mm256_mul_ps(_mm256_mul_ps(load_n(x + i, n - i), r), load_n(w + i, n - i)));
}

void sq_rope__avx2(float *x, const float *cos, const float *sin, int32_t half) {
    for (int32_t i = 0; i < half; i += 8) {
        const int32_t n = half - i;
        const __m256 a = load_n(x + i, n), b = load_n(x + half + i, n), c = load_n(cos + i, n),
                     s = load_n(sin + i, n);
        store_n(x + i, n, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        store_n(x + half + i, n, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

/* Pairs as they lie: even lanes a c - b s, odd ones b c + a s. */
void sq_rope_pairs__avx2(float *x, const float *cos, const float *sin, int32_t half) {
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (int32_t i = 0; i < half; i += 4) {
        const int32_t n = half - i < 4 ? half - i : 4;
        const __m256 c = _mm256_permutevar8x32_ps(load_n(cos + i, n), twice);
        const __m256 s = _mm256_permutevar8x32_ps(load_n(sin + i, n), twice);
        const __m256 v = load_n(x + 2 * i, 2 * n), other = _mm256_permute_ps(v, 0xb1);
        store_n(x + 2 * i, 2 * n, _mm256_fmaddsub_ps(v, c, _mm256_mul_ps(other, s)));
    }
}

void sq_add__avx2(float *x, const float *y, int32_t n) {
    for (int32_t i = 0; i < n; i += 8)
        store_n(x + i, n - i, _mm256_add_ps(load_n(x + i, n - i), load_n(y + i, n - i)));
}

/* g / (1 + exp(minus_z)) */
SQ_INLINE __m256 gate8(__m256 g, __m256 minus_z) {
    return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(minus_z)));
}

void sq_silu_mul__avx2(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 8) {
        const __m256 gv = load_n(g + i, n - i), minus_g = _mm256_xor_ps(gv, _mm256_set1_ps(-0.0f));
        store_n(h + i, n - i, _mm256_mul_ps(gate8(gv, minus_g), load_n(u + i, n - i)));
    }
}

void sq_gelu_mul__avx2(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 8) {
        const __m256 gv = load_n(g + i, n - i);
        const __m256 cubic =
            _mm256_fmadd_ps(_mm256_mul_ps(gv, gv), _mm256_set1_ps(0x1.6e4e26p-5f), _mm256_set1_ps(1.0f));
        const __m256 z = _mm256_mul_ps(_mm256_mul_ps(gv, _mm256_set1_ps(0x1.988454p-1f)), cubic);
        const __m256 minus_2z = _mm256_mul_ps(_mm256_set1_ps(-2.0f), z);
        store_n(h + i, n - i, _mm256_mul_ps(gate8(gv, minus_2z), load_n(u + i, n - i)));
    }
}

/* max gives its second operand where g is NaN or a zero of either sign, as g > 0 ? g : 0 does. */
void sq_relu2_mul__avx2(const float *g, const float *u, int32_t n, float *h) {
    for (int32_t i = 0; i < n; i += 8) {
        const __m256 r = _mm256_max_ps(load_n(g + i, n - i), _mm256_setzero_ps());
        store_n(h + i, n - i, _mm256_mul_ps(_mm256_mul_ps(r, r), load_n(u + i, n - i)));
    }
}
