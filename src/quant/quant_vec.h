/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_vec.h - eight floats, four floats, two and four doubles: the vectors the loops of this room are
 * written in.
 *
 * Left alone, the compilers vectorise clamping and masked sums only now and then, and a factor of three
 * hangs on it. These types are part of gcc's and clang's C on every target and need no instruction set:
 * eight floats are one register where the flags allow it and two where not. They also fix the order of a sum
 * - lane by lane, then across - so the same bytes come out on every machine. */
#ifndef SQ_QUANT_VEC_H
#define SQ_QUANT_VEC_H

#include <stdint.h>
#include <string.h>

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef double d2 __attribute__((vector_size(16)));
typedef int64_t l2 __attribute__((vector_size(16)));
typedef double d4 __attribute__((vector_size(32)));
typedef int64_t l4 __attribute__((vector_size(32)));
typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));

/* Wide vectors never cross a call, since how they would be passed depends on the flags. (gcc tells of that
 * before it has inlined everything: hence -Wno-psabi in the Makefile.) */
#define SQ_VEC_INLINE static inline __attribute__((always_inline, unused))

SQ_VEC_INLINE f4 f4_load(const float *p) {
    f4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

SQ_VEC_INLINE d2 d2_low(f4 x) { return (d2){(double)x[0], (double)x[1]}; }
SQ_VEC_INLINE d2 d2_high(f4 x) { return (d2){(double)x[2], (double)x[3]}; }
SQ_VEC_INLINE i4 f4_finite(f4 x) { return ((i4)x & 0x7F800000) != 0x7F800000; }

SQ_VEC_INLINE d4 d4_abs(d4 x) { return (d4)((l4)x & INT64_MAX); }
#if defined __AVX__
SQ_VEC_INLINE d4 d4_from(f4 x) { return __builtin_convertvector(x, d4); }
SQ_VEC_INLINE d4 d4_max(d4 a, d4 b) { return __builtin_ia32_maxpd256(a, b); } /* of numbers, not NaN */
#else
/* In halves, for the reason f8 has below. */
typedef union {
    d4 all;
    d2 half[2];
} d4_halves;

SQ_VEC_INLINE d4 d4_from(f4 x) {
    const d4_halves d = {.half = {d2_low(x), d2_high(x)}};
    return d.all;
}
SQ_VEC_INLINE d2 d2_max(d2 a, d2 b) {
    const l2 first = a > b;
    return (d2)(((l2)a & first) | ((l2)b & ~first));
}
SQ_VEC_INLINE d4 d4_max(d4 a, d4 b) {
    const d4_halves x = {a}, y = {b};
    const d4_halves z = {.half = {d2_max(x.half[0], y.half[0]), d2_max(x.half[1], y.half[1])}};
    return z.all;
}
#endif

SQ_VEC_INLINE f8 f8_all(float x) { return (f8){x, x, x, x, x, x, x, x}; }
SQ_VEC_INLINE f8 f8_load(const float *p) {
    f8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* b if either is NaN, and of two zeros b: what x86 does, said here because the compilers do not see it. */
#if defined __AVX__
SQ_VEC_INLINE f8 f8_min(f8 a, f8 b) { return __builtin_ia32_minps256(a, b); }
SQ_VEC_INLINE f8 f8_max(f8 a, f8 b) { return __builtin_ia32_maxps256(a, b); }
#else
/* In halves: gcc takes comparisons of vectors it has no register for apart into single floats. */
typedef union {
    f8 all;
    f4 half[2];
} f8_halves;

#if defined __SSE__
SQ_VEC_INLINE f4 f4_min(f4 a, f4 b) { return __builtin_ia32_minps(a, b); }
SQ_VEC_INLINE f4 f4_max(f4 a, f4 b) { return __builtin_ia32_maxps(a, b); }
#else
SQ_VEC_INLINE f4 f4_pick(i4 mask, f4 a, f4 b) { return (f4)(((i4)a & mask) | ((i4)b & ~mask)); }
SQ_VEC_INLINE f4 f4_min(f4 a, f4 b) { return f4_pick(a < b, a, b); }
SQ_VEC_INLINE f4 f4_max(f4 a, f4 b) { return f4_pick(a > b, a, b); }
#endif

SQ_VEC_INLINE f8 f8_min(f8 a, f8 b) {
    const f8_halves x = {a}, y = {b};
    const f8_halves z = {.half = {f4_min(x.half[0], y.half[0]), f4_min(x.half[1], y.half[1])}};
    return z.all;
}
SQ_VEC_INLINE f8 f8_max(f8 a, f8 b) {
    const f8_halves x = {a}, y = {b};
    const f8_halves z = {.half = {f4_max(x.half[0], y.half[0]), f4_max(x.half[1], y.half[1])}};
    return z.all;
}
#endif
SQ_VEC_INLINE f8 f8_abs(f8 x) { return (f8)((i8)x & 0x7FFFFFFF); }
SQ_VEC_INLINE float f8_sum(f8 x) {
    const float a = x[0] + x[4], b = x[1] + x[5], c = x[2] + x[6], d = x[3] + x[7];
    return (a + c) + (b + d);
}
SQ_VEC_INLINE float f8_largest(f8 x) {
    float m = x[0];
    for (int32_t l = 1; l < 8; l++) m = x[l] > m ? x[l] : m;
    return m;
}

/* Round half to even for |x| <= 2^22: at 1.5 * 2^23 floats are exactly one apart. Needs the default rounding
 * mode and no -ffast-math. */
SQ_VEC_INLINE f8 f8_round(f8 x) {
    const f8 magic = f8_all(12582912.0f);
    return (x + magic) - magic;
}

/* Whole numbers in [-128, 255] to bytes, in two steps: this split is the one both compilers turn into pack
 * instructions. */
SQ_VEC_INLINE void put_whole(f8 x, int32_t *out) {
    i8 v = __builtin_convertvector(x, i8);
    memcpy(out, &v, sizeof v);
}
SQ_VEC_INLINE void narrow(const int32_t *whole, int32_t n, uint8_t *out) {
    for (int32_t i = 0; i < n; i++) out[i] = (uint8_t)whole[i];
}

#endif
