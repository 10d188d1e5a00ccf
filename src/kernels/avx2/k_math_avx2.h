/* SPDX-License-Identifier: Apache-2.0
 *
 * k_math_avx2.h - what the AVX2 files share: sixteen f32 lanes as two ymm registers, number formats, exp,
 * loads that stop at the end of an array. Only for this folder: it is built with -mavx2 -mfma -mf16c -mbmi2,
 * so everything is static. */
#ifndef SQ_K_MATH_AVX2_H
#define SQ_K_MATH_AVX2_H

#include "kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

/* One prototype per line of the list: sq_gemm_f32__avx2 and so on. */
#define SQ_KERNEL(field, fn) fn sq_##field##__avx2;
#include "kernels/kernels.def"
#undef SQ_KERNEL

/* Block functions take their shape as constants and must be specialised by inlining, whatever the compiler
 * thinks. */
#define SQ_INLINE static inline __attribute__((always_inline))

/* Before a loop whose trip count is known, where its counter must become a constant. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

/* Ask for the line `bytes` after p, which may lie past the end of everything: a prefetch cannot fault, and
 * the address is made of integers because a pointer outside its array is not C. */
SQ_INLINE void fetch_ahead(const void *p, size_t bytes) {
    _mm_prefetch((const char *)((uintptr_t)p + bytes), _MM_HINT_T0);
}

/* The same into the second level. A line asked for in the first holds one of its few miss buffers for all the
 * way from memory, and what hits waits behind it. */
SQ_INLINE void fetch_far(const void *p, size_t bytes) {
    _mm_prefetch((const char *)((uintptr_t)p + bytes), _MM_HINT_T1);
}

/* The tree of R1 over lanes 0..7 (a) and 8..15 (b). */
SQ_INLINE float lane_tree(__m256 a, __m256 b) {
    a = _mm256_add_ps(a, b);
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}

/* The largest lane; none is NaN. */
SQ_INLINE float lanes_max(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* All ones in the first n lanes, n <= 0: none, n >= 8: all. */
SQ_INLINE __m256i lane_mask(int32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of 8 floats at p, the others +0; memory past them is not touched. */
SQ_INLINE __m256 load_n(const float *p, int32_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lane_mask(n));
}

SQ_INLINE void store_n(float *p, int32_t n, __m256 v) {
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, lane_mask(n), v);
}

SQ_INLINE __m256 load8_f32(const void *p) { return _mm256_loadu_ps(p); }

SQ_INLINE __m256 load8_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }

SQ_INLINE __m256 load8_bf16(const void *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

/* sq_exp of kernels.h. The operand order of min keeps a NaN; lanes below -87 are cleared at the end. */
SQ_INLINE __m256 exp8(__m256 x0) {
    __m256 x = _mm256_min_ps(_mm256_set1_ps(88.0f), x0);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.62e4p-1f), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0x1.7f7d1cp-20f), r);
    __m256 p = _mm256_set1_ps(0x1.6850e4p-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123bccp-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555b98p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55548ep-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffff8p-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
    return _mm256_andnot_ps(_mm256_cmp_ps(x0, _mm256_set1_ps(-87.0f), _CMP_LT_OQ), p);
}

#endif
