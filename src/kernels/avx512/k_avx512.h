/* SPDX-License-Identifier: Apache-2.0
 *
 * k_avx512.h - declares the kernels of the AVX-512 folder, sq_<field>__avx512, from the one list, and
 * holds the few helpers its files share. */
#ifndef SQ_K_AVX512_H
#define SQ_K_AVX512_H

#include "kernels/kernels.h"

#include <immintrin.h>
#include <string.h>

#define SQ_KERNEL(field, fn) fn sq_##field##__avx512;
#include "kernels/kernels.def"
#undef SQ_KERNEL

/* What is made twice: sq_<field>__avx512 needs VNNI; without it sq_<field>__avx512bw stands in its place. */
#define SQ_TWICE(X)                                                                                          \
    X(gemm_i8row, sq_gemm_q_fn)                                                                              \
    X(gemm_i8g64, sq_gemm_q_fn)                                                                              \
    X(gemm_i4g64, sq_gemm_q_fn)                                                                              \
    X(gemm_i4g32, sq_gemm_q_fn)                                                                              \
    X(gemm_i8g32, sq_gemm_q_fn)                                                                              \
    X(gemm_i3g64, sq_gemm_q_fn)                                                                              \
    X(gemm_i2g64, sq_gemm_q_fn)                                                                              \
    X(gemm_t2row, sq_gemm_q_fn)                                                                              \
    X(gemm_foreign, sq_gemm_q_fn)                                                                            \
    X(attn_codes, sq_attn_fn)                                                                                \
    X(probe_dots, sq_probe_dots_fn)
#define SQ_BW(field, fn) fn sq_##field##__avx512bw;
SQ_TWICE(SQ_BW)
#undef SQ_BW

/* A helper with compile-time block sizes: only when inlined do its arrays become registers. */
#define BLOCK static inline __attribute__((always_inline))

/* Before a loop whose trip count is known: left rolled, it would need a moving pointer for each token. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The first n of 16 lanes; n may be past both ends. */
BLOCK __mmask16 first_lanes(int32_t n) {
    return n >= 16 ? (__mmask16)0xffff : n <= 0 ? (__mmask16)0 : (__mmask16)((1u << n) - 1u);
}

/* Ask for the line `ahead` bytes past p. Beyond the end of a matrix it does nothing, hence no pointer
 * arithmetic. */
BLOCK void fetch(const void *p, size_t ahead) {
    _mm_prefetch((const char *)((uintptr_t)p + ahead), _MM_HINT_T0);
}

/* The same into the second level: for streams from memory. Lines wanted in the first level take one of its
 * few miss buffers for all the way, and loads that hit wait behind them. */
BLOCK void fetch_far(const void *p, size_t ahead) {
    _mm_prefetch((const char *)((uintptr_t)p + ahead), _MM_HINT_T1);
}

/* A tile that will be read soon: a few lines of it are asked for with every step of a loop, so that memory
 * works while the core does. Into the second level: they may wait there for a while. No branch stands between
 * the steps of a loop whose sums are in registers, so where there is no tile, `idle` is asked for. */
typedef struct {
    const uint8_t *at;
    size_t step;
} stream;

BLOCK stream stream_of(const void *tile, size_t step, const void *idle) {
    return (stream){tile ? tile : idle, tile ? step : 0};
}

BLOCK void ask(stream *s, int lines) {
    for (int i = 0; i < lines; i++) fetch_far(s->at, 64 * (size_t)i);
    s->at += s->step;
}

/* Four activation codes in every lane. */
BLOCK __m512i quad(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm512_set1_epi32(v);
}

BLOCK __m512 f16_load(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

BLOCK __m512 bf16_widen(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* The tree of R1 for four accumulators at once: element i of the result is the sum of ai. Each level adds the
 * same pairs as the scalar tree; a + b and b + a have the same bits. */
BLOCK __m128 lane_tree4(__m512 a0, __m512 a1, __m512 a2, __m512 a3) {
    const __m512 b01 = _mm512_add_ps(_mm512_shuffle_f32x4(a0, a1, 0x44), _mm512_shuffle_f32x4(a0, a1, 0xee));
    const __m512 b23 = _mm512_add_ps(_mm512_shuffle_f32x4(a2, a3, 0x44), _mm512_shuffle_f32x4(a2, a3, 0xee));
    const __m512 c =
        _mm512_add_ps(_mm512_shuffle_f32x4(b01, b23, 0x88), _mm512_shuffle_f32x4(b01, b23, 0xdd));
    const __m512 d = _mm512_add_ps(c, _mm512_permute_ps(c, 0x4e)); /* l + (l + 2) */
    const __m512 e = _mm512_add_ps(d, _mm512_permute_ps(d, 0xb1)); /* l + (l + 1) */
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(first, e));
}

BLOCK float lane_tree(__m512 a) { return _mm_cvtss_f32(lane_tree4(a, a, a, a)); }

/* The contract's exp, 16 at a time. */
BLOCK __m512 exp16(__m512 x) {
    const __mmask16 tiny = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_LT_OQ);
    x = _mm512_min_ps(_mm512_set1_ps(88.0f), x); /* the second operand wins if it is NaN */
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.62e4p-1f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(0x1.6850e4p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123bccp-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555b98p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55548ep-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffff8p-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    const __m512i bits =
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23));
    return _mm512_mask_mov_ps(_mm512_castsi512_ps(bits), tiny, _mm512_setzero_ps());
}

BLOCK float exp1(float x) { return _mm512_cvtss_f32(exp16(_mm512_set1_ps(x))); }

#endif
