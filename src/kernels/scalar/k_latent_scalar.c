/* SPDX-License-Identifier: Apache-2.0
 *
 * k_latent_scalar.c - attention over a chunk of latent tiles (R9): one row of a tile is a token's key for
 * every head, and its first d_out channels are its value (DeepSeek-V2, arXiv:2405.04434, with the projections
 * of keys and values absorbed into the query and the output). */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

static float element(const uint16_t *tile, size_t i, bool f32) {
    return f32 ? ((const float *)(const void *)tile)[i] : sq_f16_to_f32(tile[i]);
}

static float score(const float *q, const uint16_t *tile, size_t at, int32_t d, bool f32) {
    float acc[16] = {0};
    for (int32_t c = 0; c < d; c++) acc[c % 16] = fmaf(q[c], element(tile, at + (size_t)c, f32), acc[c % 16]);
    return lane_tree(acc);
}

static void latent_row(const sq_attn_args *a, bool f32, int32_t i) {
    float s[SQ_ATTN_CHUNK], sum[16] = {0}, m = -INFINITY, *o = a->o + (size_t)i * a->ldo;
    const size_t d = (size_t)a->d;
    for (int32_t t = a->lo[i]; t < a->hi[i]; t++) {
        s[t] =
            score(a->q + (size_t)i * a->ldq, a->k[t / SQ_KV_TILE], (size_t)(t % SQ_KV_TILE) * d, a->d, f32);
        m = fmaxf(m, s[t]);
    }
    m += 0.0f;
    for (int32_t c = 0; c < a->d_out; c++) o[c] = 0.0f;
    for (int32_t t = a->lo[i]; t < a->hi[i] && m > -INFINITY; t++) {
        const float p = sq_exp(s[t] - m);
        const size_t at = (size_t)(t % SQ_KV_TILE) * d;
        sum[t % 16] += p;
        for (int32_t c = 0; c < a->d_out; c++)
            o[c] = fmaf(p, element(a->k[t / SQ_KV_TILE], at + (size_t)c, f32), o[c]);
    }
    for (int32_t c = 0; c < a->d_out; c++) o[c] += 0.0f;
    a->m[i] = m;
    a->l[i] = lane_tree(sum);
}

void sq_attn_latent__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) latent_row(a, false, i);
}

void sq_attn_latent_f32__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) latent_row(a, true, i);
}
