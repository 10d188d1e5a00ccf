/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_int8.c - symmetric 8-bit codes: value = scale * code, scale = max|w| / 127.
 *
 * Codes are computed from the scale as it is stored, so |w - value| <= scale / 2 holds for what a reader
 * sees, and never use -128: kernels may negate a code, and 127 * 127 * 2 fits the 16-bit sums of a byte dot
 * product. Ties go to even, w / scale is a true division: the same codes as a vectorised array program gives,
 * on every machine.
 */
#include "quant/quant_int.h"
#include "quant/quant_vec.h"

#include <assert.h>

/* max |w[i]|; NaN counts as 0. */
static float max_abs(const float *w, int32_t n) {
    f4 even = f4_all(0), odd = even;
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        even = f4_max(f4_abs(f4_load(w + i)), even);
        odd = f4_max(f4_abs(f4_load(w + i + 4)), odd);
    }
    float tail[8] = {0};
    memcpy(tail, w + i, sizeof *tail * (size_t)(n - i));
    even = f4_max(f4_abs(f4_load(tail)), even);
    odd = f4_max(f4_abs(f4_load(tail + 4)), odd);
    even = f4_max(even, odd);
    float m = 0;
    for (int32_t l = 0; l < 4; l++) m = even[l] > m ? even[l] : m;
    return m;
}

/* 64 codes; NaN ends at -127: never an undefined conversion. */
static void encode_64(const float *w, float scale, int8_t *codes) {
    int32_t whole[SQ_GROUP];
    uint8_t bytes[SQ_GROUP];
    for (int32_t i = 0; i < SQ_GROUP; i += 4) {
        f4 x = f4_load(w + i) / f4_all(scale);
        put_whole(f4_round(f4_min(f4_max(x, f4_all(-127.0f)), f4_all(127.0f))), whole + i);
    }
    narrow_64(whole, bytes);
    memcpy(codes, bytes, sizeof bytes);
}

void sq_quant_i8_encode(const float *w, int32_t n, float scale, int8_t *codes) {
    if (scale == 0) {
        memset(codes, 0, (size_t)n);
        return;
    }
    int32_t i = 0;
    for (; i + SQ_GROUP <= n; i += SQ_GROUP) encode_64(w + i, scale, codes + i);
    if (i < n) {
        float tail[SQ_GROUP] = {0};
        int8_t out[SQ_GROUP];
        memcpy(tail, w + i, sizeof *tail * (size_t)(n - i));
        encode_64(tail, scale, out);
        memcpy(codes + i, out, (size_t)(n - i));
    }
}

/* The largest weight must come out as 127 after rounding: 127.5 scales reach it. Only scales that are
 * subnormal in their stored type round far enough down to miss that; the next larger one is right. */
static bool reaches(float scale, float max) { return (double)scale * 127.5 >= (double)max; }

void sq_quant_i8_g64(const float *w, int32_t n, sq_scale_type st, int8_t *codes, uint16_t *scale) {
    assert(n > 0 && n <= SQ_GROUP && st != SQ_SCALE_F32);
    float max = max_abs(w, n);
    uint16_t bits = scale_store(st, max / 127.0f);
    if (!reaches(sq_scale_to_f32(st, bits), max) && bits < scale_max(st)) bits++;
    *scale = bits;
    sq_quant_i8_encode(w, n, sq_scale_to_f32(st, bits), codes);
}

float sq_quant_i8_scale(const float *w, int32_t n) {
    assert(n > 0);
    float max = max_abs(w, n), s = max / 127.0f;
    return reaches(s, max) ? s : bits_float(float_bits(s) + 1);
}

void sq_quant_i8_row(const float *w, int32_t n, int8_t *codes, float *scale) {
    *scale = sq_quant_i8_scale(w, n);
    sq_quant_i8_encode(w, n, *scale, codes);
}
