/* SPDX-License-Identifier: Apache-2.0
 *
 * k_keys_scalar.c - what a long prompt makes of cached keys before it attends: codes of 8 bits (R7; Zhang et
 * al., "SageAttention", arXiv:2410.02367) and means of blocks (R8; Zhang et al., "SpargeAttn",
 * arXiv:2502.18137). */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* Channel c of token t of tiles k [d][32]. */
static float key(const uint16_t *const *k, int32_t c, int32_t t) {
    return sq_f16_to_f32(k[t / SQ_KV_TILE][(size_t)c * SQ_KV_TILE + (size_t)(t % SQ_KV_TILE)]);
}

void sq_seal_keys__scalar(const uint16_t *const *k, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c++) {
        float lo = INFINITY, hi = -INFINITY;
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            lo = fminf(lo, key(k, c, t));
            hi = fmaxf(hi, key(k, c, t));
        }
        lo += 0.0f, hi += 0.0f;
        const float r = hi - lo, inv = r > 0.0f ? 255.0f / r : 0.0f;
        step[c] = r / 255.0f;
        z[c] = fmaf(step[c], 127.5f, lo);
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            uint8_t *tile = codes + (size_t)(t / SQ_KV_TILE) * SQ_KV_TILE * (size_t)d;
            tile[(size_t)(c / 4) * 128 + (size_t)(t % SQ_KV_TILE * 4 + c % 4)] =
                (uint8_t)rintf((key(k, c, t) - lo) * inv);
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
