/* SPDX-License-Identifier: Apache-2.0
 *
 * k_keys_neon.c - cached keys and values as codes of 8 bits (R7), keys as means of blocks (R8). A tile of
 * keys is channel-major, so lanes are tokens; the codes of four channels are the four bytes of a lane, and a
 * line of codes is made without moving bytes between lanes. */
#include "k_math_neon.h"

/* What a channel of a chunk is: smallest key and the inverse of its step. */
typedef struct {
    float32x4_t lo, inv;
} channel;

static channel channel_of(const uint16_t *const *k, int32_t c, float *step, float *z) {
    float32x4_t lo = vdupq_n_f32(__builtin_inff()), hi = vdupq_n_f32(-__builtin_inff());
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
        for (int32_t i = 0; i < 8; i++) {
            const float32x4_t x = load4_f16(k[j] + (size_t)c * SQ_KV_TILE + 4 * i);
            lo = vminq_f32(lo, x);
            hi = vmaxq_f32(hi, x);
        }
    const float low = vminvq_f32(lo) + 0.0f, r = vmaxvq_f32(hi) + 0.0f - low;
    *step = r / 255.0f;
    *z = __builtin_fmaf(*step, 127.5f, low);
    return (channel){vdupq_n_f32(low), vdupq_n_f32(r > 0.0f ? 255.0f / r : 0.0f)};
}

SQ_INLINE uint32x4_t codes4(const uint16_t *x, float32x4_t lo, float32x4_t inv) {
    return vcvtnq_u32_f32(vmulq_f32(vsubq_f32(load4_f16(x), lo), inv));
}

void sq_seal_keys__neon(const uint16_t *const *k, int32_t d, uint8_t *codes, float *step, float *z) {
    for (int32_t c = 0; c < d; c += 4) {
        channel ch[4];
        for (int32_t n = 0; n < 4; n++) ch[n] = channel_of(k, c + n, &step[c + n], &z[c + n]);
        for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
            for (int32_t i = 0; i < 8; i++) {
                const uint16_t *at = k[j] + (size_t)c * SQ_KV_TILE + 4 * i;
                uint32x4_t line = codes4(at, ch[0].lo, ch[0].inv);
                line = vsliq_n_u32(line, codes4(at + SQ_KV_TILE, ch[1].lo, ch[1].inv), 8);
                line = vsliq_n_u32(line, codes4(at + 2 * SQ_KV_TILE, ch[2].lo, ch[2].inv), 16);
                line = vsliq_n_u32(line, codes4(at + 3 * SQ_KV_TILE, ch[3].lo, ch[3].inv), 24);
                uint8_t *to = codes + (size_t)j * SQ_KV_TILE * (size_t)d + (size_t)c * 32 + 16 * i;
                vst1q_u8(to, vreinterpretq_u8_u32(line));
            }
    }
}

/* Lanes are channels here, and the four tokens of a line the bytes of a lane. */
void sq_seal_values__neon(const uint16_t *const *v, int32_t d, uint8_t *codes, float *step, float *z) {
    const float32x4_t zero = vdupq_n_f32(0.0f), most = vdupq_n_f32(255.0f);
    for (int32_t c = 0; c < d; c += 4) {
        float32x4_t lo = vdupq_n_f32(__builtin_inff()), hi = vdupq_n_f32(-__builtin_inff());
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t++) {
            const float32x4_t x = load4_f16(v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c);
            lo = vminq_f32(lo, x);
            hi = vmaxq_f32(hi, x);
        }
        lo = vaddq_f32(lo, zero);
        const float32x4_t r = vsubq_f32(vaddq_f32(hi, zero), lo), s = vdivq_f32(r, most);
        const uint32x4_t wide = vcgtq_f32(r, zero);
        const float32x4_t inv =
            vreinterpretq_f32_u32(vandq_u32(wide, vreinterpretq_u32_f32(vdivq_f32(most, r))));
        vst1q_f32(step + c, s);
        vst1q_f32(z + c, vfmaq_f32(lo, s, vdupq_n_f32(127.5f)));
        for (int32_t t = 0; t < SQ_ATTN_CHUNK; t += 4) {
            const uint16_t *at = v[t / SQ_KV_TILE] + (size_t)(t % SQ_KV_TILE) * (size_t)d + c;
            uint32x4_t line = codes4(at, lo, inv);
            line = vsliq_n_u32(line, codes4(at + d, lo, inv), 8);
            line = vsliq_n_u32(line, codes4(at + 2 * d, lo, inv), 16);
            line = vsliq_n_u32(line, codes4(at + 3 * d, lo, inv), 24);
            vst1q_u8(codes + (size_t)t * (size_t)d + (size_t)c * 4, vreinterpretq_u8_u32(line));
        }
    }
}

/* Four of the 64 keys of a block, channel c. */
SQ_INLINE float32x4_t keys4(const uint16_t *const *k, int32_t c, int32_t i) {
    return load4_f16(k[i / 8] + (size_t)c * SQ_KV_TILE + 4 * (i % 8));
}

float sq_pool_keys__neon(const uint16_t *const *k, int32_t d, float *mean) {
    enum { PARTS = SQ_POOL_KEYS / 4 };
    float32x4_t inv[PARTS], alike[4], zero = vdupq_n_f32(0.0f);
    float units[SQ_ATTN_D_MAX];
    for (int32_t i = 0; i < PARTS; i++) {
        float32x4_t norm = zero;
        for (int32_t c = 0; c < d; c++) norm = vfmaq_f32(norm, keys4(k, c, i), keys4(k, c, i));
        const float32x4_t root = vdivq_f32(vdupq_n_f32(1.0f), vsqrtq_f32(norm));
        inv[i] = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(root), vcgtq_f32(norm, zero)));
    }
    for (int32_t c = 0; c < d; c++) {
        float32x4_t sum[4] = {zero, zero, zero, zero}, unit[4] = {zero, zero, zero, zero};
        for (int32_t i = 0; i < PARTS; i++) {
            const float32x4_t x = keys4(k, c, i);
            sum[i % 4] = vaddq_f32(sum[i % 4], x);
            unit[i % 4] = vaddq_f32(unit[i % 4], vmulq_f32(x, inv[i]));
        }
        mean[c] = lane_tree(sum) / (float)SQ_POOL_KEYS;
        units[c] = lane_tree(unit);
    }
    for (int i = 0; i < 4; i++) alike[i] = zero;
    for (int32_t c = 0; c < d; c += 4) {
        const float32x4_t u = vld1q_f32(units + c);
        alike[c / 4 % 4] = vfmaq_f32(alike[c / 4 % 4], u, u);
    }
    return lane_tree(alike) / (float)(SQ_POOL_KEYS * SQ_POOL_KEYS);
}
