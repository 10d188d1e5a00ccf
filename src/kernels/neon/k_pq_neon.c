/* SPDX-License-Identifier: Apache-2.0
 *
 * k_pq_neon.c - nearest rows of codebooks (R10). Lanes are rows: a lane remembers the least it saw and where,
 * so the loop has no branch, and one look over the lanes ends it. */
#include "k_math_neon.h"

/* Among equal ones the first row: a lane keeps its first, and of lanes the lowest row is taken. */
static uint8_t first_least(float32x4_t least, uint32x4_t at) {
    const uint32x4_t those = vceqq_f32(least, vdupq_n_f32(vminvq_f32(least)));
    return (uint8_t)vminvq_u32(vbslq_u32(those, at, vdupq_n_u32(UINT32_MAX)));
}

static uint8_t nearest(const float *x, const float *book) {
    static const uint32_t first[4] = {0, 1, 2, 3};
    float32x4_t v[SQ_PQ_DIMS], least = vdupq_n_f32(__builtin_inff());
    uint32x4_t at = vdupq_n_u32(0), here = vld1q_u32(first);
    for (int32_t k = 0; k < SQ_PQ_DIMS; k++) v[k] = vdupq_n_f32(x[k]);
    for (int32_t c = 0; c < SQ_PQ_ROWS; c += 4) {
        float32x4_t s = vld1q_f32(book + SQ_PQ_DIMS * SQ_PQ_ROWS + c);
        for (int32_t k = 0; k < SQ_PQ_DIMS; k++)
            s = vfmsq_f32(s, v[k], vld1q_f32(book + k * SQ_PQ_ROWS + c));
        const uint32x4_t less = vcltq_f32(s, least);
        least = vbslq_f32(less, s, least);
        at = vbslq_u32(less, here, at);
        here = vaddq_u32(here, vdupq_n_u32(4));
    }
    return first_least(least, at);
}

void sq_pq_nearest__neon(const float *x, size_t stride, int32_t n, const float *book, uint8_t *code) {
    for (int32_t i = 0; i < n; i++) code[i] = nearest(x + (size_t)i * stride, book);
}
