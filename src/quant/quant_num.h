/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_num.h - number formats, inline: exact, subnormals honoured, round to nearest even.
 *
 * Bits only and no branches in the common direction, so that nothing depends on the CPU or on flush-to-zero
 * switches and a loop over them becomes vectors. */
#ifndef SQ_QUANT_NUM_H
#define SQ_QUANT_NUM_H

#include "quant/quant.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights are little-endian in files and are used where they lie"
#endif

static inline uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

static inline uint32_t float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = h & 0x7C00u, man = h & 0x03FFu;
    const uint32_t small = float_bits((float)(int32_t)man * 0x1p-24f); /* subnormal: exact in f32 */
    const uint32_t odd = 0x7F800000u | (man << 13) | (man ? 0x400000u : 0);
    const uint32_t usual = ((exp | man) << 13) + (112u << 23);
    return bits_float(sign | (exp == 0 ? small : exp == 0x7C00u ? odd : usual));
}

static inline uint16_t float_to_half(float f) {
    uint32_t u = float_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x3FFu)); /* NaN, made quiet */
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u); /* >= 65520 rounds to infinity */
    if (a < 0x38800000u) {
        /* Below 2^-14. Floats in [0.5, 1) are 2^-24 apart as f16 subnormals are: one addition rounds. */
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - 0x3F000000u));
    }
    return (uint16_t)(sign | ((a - (112u << 23) + 0xFFFu + ((a >> 13) & 1u)) >> 13));
}

static inline uint16_t float_to_bf16(float f) {
    uint32_t u = float_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
}

static inline float scale_value(sq_scale_type st, uint16_t bits) {
    return st == SQ_SCALE_F16 ? half_to_float(bits) : sq_bf16_to_f32(bits);
}

static inline uint16_t scale_round(sq_scale_type st, float f) {
    return st == SQ_SCALE_F16 ? float_to_half(f) : float_to_bf16(f);
}

/* Largest finite number of a scale type, as bits. */
static inline uint16_t scale_max(sq_scale_type st) { return st == SQ_SCALE_F16 ? 0x7BFFu : 0x7F7Fu; }

/* A scale or bias as it is stored: rounded, and held at the largest finite number where it would become
 * infinite, since infinity times code 0 is NaN and one such group poisons a dot product. NaN stays NaN. */
static inline uint16_t scale_store(sq_scale_type st, float f) {
    uint16_t bits = scale_round(st, f), sign = bits & 0x8000u;
    bool infinite = (bits & 0x7FFFu) == scale_max(st) + 1u;
    return infinite ? (uint16_t)(sign | scale_max(st)) : bits;
}

/* n elements of type t at p, possibly unaligned. */
static inline void elements_to_f32(sq_wtype t, const uint8_t *p, int32_t n, float *out) {
    if (t == SQ_W_F32) {
        memcpy(out, p, (size_t)n * sizeof *out);
    } else if (t == SQ_W_F16) {
        for (int32_t i = 0; i < n; i++) out[i] = half_to_float(load_u16(p + 2 * (size_t)i));
    } else {
        for (int32_t i = 0; i < n; i++) out[i] = sq_bf16_to_f32(load_u16(p + 2 * (size_t)i));
    }
}

#endif
