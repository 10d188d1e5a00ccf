/* SPDX-License-Identifier: Apache-2.0
 *
 * k_keys_scalar.c - what a long prompt makes of its cache before it attends: codes of 8 bits (R7; Zhang et
 * al., "SageAttention", arXiv:2410.02367) and means of blocks (R8; Zhang et al., "SpargeAttn",
 * arXiv:2502.18137). */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* Channel c of token t of tiles k [d][32]. */
static float key(const uint16_t *const *k, int32_t c, int32_t t) {
    return sq_f16_to_f32(k[t / SQ_KV_TILE][(size_t)c * SQ_KV_TILE + (size_t)(t % SQ_KV_TILE)]);
}

/* What a channel of a chunk is, from its smallest and largest number. */
typedef struct {
    float lo, inv;
} channel;

static channel channel_of(const float x[SQ_ATTN_CHUNK], float *step, float *z) {
    float lo = INFINITY, hi = -INFINITY;
    for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
        lo = fminf(lo, x[t]);
        hi = fmaxf(hi, x[t]);
    }
    lo += 0.0f, hi += 0.0f;
    const float r = hi - lo;
    *step = r / 255.0f;
    *z = fmaf(*step, 127.5f, lo);
    return (channel){lo, r > 0.0f ? 255.0f / r : 0.0f};
}

static uint8_t code_of(channel c, float x) { return (uint8_t)rintf((x - c.lo) * c.inv); }

void sq_seal_keys__scalar(const uint16_t *const *k, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c++) {
        float x[SQ_ATTN_CHUNK];
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) x[t] = key(k, c, t);
        const channel ch = channel_of(x, &step[c], &z[c]);
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            uint8_t *tile = codes + (size_t)(t / SQ_KV_TILE) * SQ_KV_TILE * (size_t)d;
            tile[(size_t)(c / 4) * 128 + (size_t)(t % SQ_KV_TILE * 4 + c % 4)] = code_of(ch, x[t]);
        }
    }
}

void sq_seal_values__scalar(const uint16_t *const *v, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c++) {
        float x[SQ_ATTN_CHUNK];
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++)
            x[t] = sq_f16_to_f32(v[t / SQ_KV_TILE][(size_t)(t % SQ_KV_TILE) * (size_t)d + (size_t)c]);
        const channel ch = channel_of(x, &step[c], &z[c]);
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            uint8_t *tile = codes + (size_t)(t / SQ_KV_TILE) * SQ_KV_TILE * (size_t)d;
            tile[(size_t)(t % SQ_KV_TILE / 4 * (d / 16) + c / 16) * 64 + (size_t)(c % 16 * 4 + t % 4)] =
                code_of(ch, x[t]);
        }
    }
}

float sq_pool_keys__scalar(const uint16_t *const *k, int32_t d, float *mean) {
    float inv[SQ_POOL_KEYS], alike[16] = {0};
    for (int32_t t = 0; t < SQ_POOL_KEYS; t++) {
        float norm = 0.0f;
        for (int32_t c = 0; c < d; c++) norm = fmaf(key(k, c, t), key(k, c, t), norm);
        inv[t] = norm > 0.0f ? 1.0f / sqrtf(norm) : 0.0f;
    }
    for (int32_t c = 0; c < d; c++) {
        float sum[16] = {0}, unit[16] = {0};
        for (int32_t t = 0; t < SQ_POOL_KEYS; t++) {
            sum[t % 16] += key(k, c, t);
            unit[t % 16] += key(k, c, t) * inv[t];
        }
        const float u = lane_tree(unit);
        mean[c] = lane_tree(sum) / (float)SQ_POOL_KEYS;
        alike[c % 16] = fmaf(u, u, alike[c % 16]);
    }
    return lane_tree(alike) / (float)(SQ_POOL_KEYS * SQ_POOL_KEYS);
}
