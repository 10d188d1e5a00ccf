/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_int.h - what the files of this room share: unaligned 16-bit access, bit views of floats, offsets in a
 * tile. */
#ifndef SQ_QUANT_INT_H
#define SQ_QUANT_INT_H

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

/* Largest finite number of a scale type, as bits. */
static inline uint16_t scale_max(sq_scale_type st) { return st == SQ_SCALE_F16 ? 0x7BFFu : 0x7F7Fu; }

/* A scale or bias as it is stored: rounded, and held at the largest finite number where it would become
 * infinite, since infinity times code 0 is NaN and one such group poisons a dot product. NaN stays NaN. */
static inline uint16_t scale_store(sq_scale_type st, float f) {
    uint16_t bits = sq_scale_from_f32(st, f), sign = bits & 0x8000u;
    bool infinite = (bits & 0x7FFFu) == scale_max(st) + 1u;
    return infinite ? (uint16_t)(sign | scale_max(st)) : bits;
}

/* Offsets inside a record or a row tile, for lane r = row % 16. */
enum {
    I4_SCALES = 512,                /* scale[16] u16 behind 8 lines of codes */
    I4_BIASES = I4_SCALES + 32      /* bias[16] u16 */
};
static inline size_t i8_scales(int32_t groups) { return (size_t)groups * SQ_I8_RECORD; }

/* sq_quant_i8_row in two steps, so that a tile needs no buffer for a row of codes: the scale of n weights,
 * and codes under a given scale (0: all codes 0). */
float sq_quant_i8_scale(const float *w, int32_t n);
void sq_quant_i8_encode(const float *w, int32_t n, float scale, int8_t *codes);

#endif
