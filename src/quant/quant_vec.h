/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_vec.h - four floats, two doubles: the vectors the loops of this room are written in.
 *
 * Left alone, the compilers vectorise clamping and masked sums only now and then, and a factor of three hangs
 * on it. These types are part of gcc's and clang's C on every target and need no instruction set. They also
 * fix the order of a sum - lane by lane, then across - so the same bytes come out on every machine. */
#ifndef SQ_QUANT_VEC_H
#define SQ_QUANT_VEC_H

#include <stdint.h>
#include <string.h>

typedef float f4 __attribute__((vector_size(16)));
typedef int32_t i4 __attribute__((vector_size(16)));
typedef double d2 __attribute__((vector_size(16)));

static inline f4 f4_all(float x) { return (f4){x, x, x, x}; }
static inline f4 f4_load(const float *p) {
    f4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* a where the mask is all ones, b where it is 0. Comparisons make such masks; those with NaN are false. */
static inline f4 f4_pick(i4 mask, f4 a, f4 b) { return (f4)(((i4)a & mask) | ((i4)b & ~mask)); }
static inline f4 f4_min(f4 a, f4 b) { return f4_pick(a < b, a, b); } /* b if either is NaN */
static inline f4 f4_max(f4 a, f4 b) { return f4_pick(a > b, a, b); }
static inline f4 f4_abs(f4 x) { return (f4)((i4)x & 0x7FFFFFFF); }
static inline float f4_sum(f4 a, f4 b) {
    f4 t = a + b;
    return (t[0] + t[2]) + (t[1] + t[3]);
}

/* Round half to even for |x| <= 2^22: at 1.5 * 2^23 floats are exactly one apart. Needs the default rounding
 * mode and no -ffast-math. */
static inline f4 f4_round(f4 x) {
    const f4 magic = f4_all(12582912.0f);
    return (x + magic) - magic;
}

static inline d2 d2_low(f4 x) { return (d2){(double)x[0], (double)x[1]}; }
static inline d2 d2_high(f4 x) { return (d2){(double)x[2], (double)x[3]}; }

/* Whole numbers in [-128, 255] to bytes, in two steps: this split is the one both compilers turn into pack
 * instructions. */
static inline void put_whole(f4 x, int32_t *out) {
    i4 v = __builtin_convertvector(x, i4);
    memcpy(out, &v, sizeof v);
}
static inline void narrow_64(const int32_t *whole, uint8_t *out) {
    for (int32_t i = 0; i < 64; i++) out[i] = (uint8_t)whole[i];
}

#endif
