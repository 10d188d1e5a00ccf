/* SPDX-License-Identifier: Apache-2.0
 *
 * k_latent_neon.c - attention over a chunk of latent tiles (R9): scores of one row for two tokens at a time,
 * sixteen lanes as four registers; values as in k_softmax_neon.h. */
#include "k_softmax_neon.h"

enum { TOKENS = 2 };

SQ_INLINE void scores(const float *q, const uint16_t *k, int32_t d, float *out) {
    float32x4_t acc[TOKENS][4];
    for (int u = 0; u < TOKENS; u++)
        for (int l = 0; l < 4; l++) acc[u][l] = vdupq_n_f32(0.0f);
    for (int32_t c = 0; c < d; c += 16)
        for (int l = 0; l < 4; l++) {
            const float32x4_t qc = vld1q_f32(q + c + 4 * l);
            for (int u = 0; u < TOKENS; u++)
                acc[u][l] = vfmaq_f32(acc[u][l], qc, load4_f16(k + (size_t)u * (size_t)d + c + 4 * l));
        }
    for (int u = 0; u < TOKENS; u++) out[u] = lane_tree(acc[u]);
}

/* Values of a tile for one row; o [d_out] goes on from what it holds. */
SQ_INLINE void row_values(const sq_attn_args *a, int32_t j, const float *p, float *o) {
    int32_t c = 0;
    for (; c + 32 <= a->d_out; c += 32) tile_values(1, 8, p, a->k[j] + c, a->d, 0, SQ_KV_TILE, o + c, a->ldo);
    if (c < a->d_out) tile_values(1, 4, p, a->k[j] + c, a->d, 0, SQ_KV_TILE, o + c, a->ldo);
}

void sq_attn_latent__neon(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) {
        float s[SQ_ATTN_CHUNK], *o = a->o + (size_t)i * a->ldo;
        const extent e = extent_of(a, i, 1);
        for (int32_t j = e.tile0; j < e.tile1; j++)
            for (int32_t t = 0; t < SQ_KV_TILE; t += TOKENS)
                scores(a->q + (size_t)i * a->ldq, a->k[j] + (size_t)t * (size_t)a->d, a->d,
                       s + SQ_KV_TILE * j + t);
        const uint32_t live = softmax_row(a, i, e.tile0, e.tile1, s);
        memset(o, 0, (size_t)a->d_out * sizeof *o);
        for (int32_t j = e.tile0; j < e.tile1; j++)
            if (live >> j & 1) row_values(a, j, s + SQ_KV_TILE * j, o);
        for (int32_t c = 0; c < a->d_out; c += 4)
            vst1q_f32(o + c, vaddq_f32(vld1q_f32(o + c), vdupq_n_f32(0.0f)));
    }
}
