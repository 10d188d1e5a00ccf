/* SPDX-License-Identifier: Apache-2.0
 *
 * k_seal_neon.c - an open f16 tile becomes a sealed one (R6). Codes of four channels (K) or four tokens (V)
 * are the four bytes of a lane, so a line of the sealed tile is made without moving bytes between lanes. */
#include "k_math_neon.h"

typedef struct {
    float c0;
    int bits;
} coding;

static coding coding_of(sq_kv_format f) {
    return (coding){(float)((1 << sq_kv_bits(f)) - 1) * 0.5f, sq_kv_bits(f)};
}

/* z and the step of n numbers, n a multiple of 16. */
SQ_INLINE uint16_t middle(const uint16_t *x, int32_t n, float c0, float *z, float *step) {
    float32x4_t lo = vdupq_n_f32(__builtin_inff()), hi = vnegq_f32(lo);
    for (int32_t i = 0; i < n; i += 4) {
        const float32x4_t v = load4_f16(x + i);
        lo = vminq_f32(lo, v), hi = vmaxq_f32(hi, v);
    }
    const float least = vminvq_f32(lo), most = vmaxvq_f32(hi);
    const uint16_t h = sq_f32_to_f16((least + most) * 0.5f + 0.0f);
    *z = sq_f16_to_f32(h);
    const float up = most - *z, down = *z - least;
    *step = (up > down ? up : down) / c0 + 0.0f;
    return h;
}

SQ_INLINE uint32x4_t codes_of(const uint16_t *x, float z, float inv, coding q) {
    const float32x4_t off = vsubq_f32(load4_f16(x), vdupq_n_f32(z));
    const int32x4_t n = vcvtnq_s32_f32(vfmaq_n_f32(vdupq_n_f32(q.c0), off, inv));
    const int32x4_t held = vminq_s32(vmaxq_s32(n, vdupq_n_s32(0)), vdupq_n_s32((1 << q.bits) - 1));
    return vreinterpretq_u32_s32(held);
}

/* A quarter of a line of codes, a byte each, from bit `shift` of its place on. Lines are begun at bit 0. */
SQ_INLINE void put(uint8_t *at, uint32x4_t codes, int shift) {
    uint8x16_t line = vreinterpretq_u8_u32(vshlq_u32(codes, vdupq_n_s32(shift)));
    if (shift) line = vorrq_u8(line, vld1q_u8(at));
    vst1q_u8(at, line);
}

static void seal_k(const uint16_t *k, int32_t d, sq_kv_format f, uint8_t *out) {
    const coding q = coding_of(f);
    uint8_t *params = out + sq_kv_code_bytes(f, d), *zs = params + sq_kv_k_z(d);
    memset(params, 0, sq_kv_k_bytes(f, d) - sq_kv_code_bytes(f, d));
    for (int32_t c = 0; c < d; c += 4) {
        float z[4], inv[4], step;
        for (int e = 0; e < 4; e++) {
            const uint16_t h = middle(k + (size_t)(c + e) * SQ_KV_TILE, SQ_KV_TILE, q.c0, &z[e], &step);
            params[c + e] = sq_kv_scale_code(step);
            memcpy(zs + (size_t)(c + e) * 2, &h, 2);
            inv[e] = 1.0f / sq_kv_scale(params[c + e]);
        }
        for (int32_t t = 0; t < SQ_KV_TILE; t += 4) {
            uint32x4_t line = vdupq_n_u32(0);
            for (int e = 0; e < 4; e++) {
                const uint32x4_t u = codes_of(k + (size_t)(c + e) * SQ_KV_TILE + (size_t)t, z[e], inv[e], q);
                line = vorrq_u32(line, vshlq_u32(u, vdupq_n_s32(8 * e)));
            }
            const sq_kv_place p = sq_kv_k_place(f, c, t);
            put(out + p.at, line, p.shift);
        }
    }
}

/* z and 1 / s of token t in group g. */
static void value_params(const uint16_t *v, int32_t d, int32_t t, int32_t g, coding q, uint8_t *params,
                         float *z, float *inv) {
    const int32_t first = g * SQ_KV_GROUP, n = d - first < SQ_KV_GROUP ? d - first : SQ_KV_GROUP;
    float step;
    const uint16_t zh = middle(v + (size_t)t * (size_t)d + (size_t)first, n, q.c0, z, &step);
    uint16_t sh = sq_f32_to_f16(step);
    sh = (uint16_t)(sh + (sq_f16_to_f32(sh) < step));
    uint8_t *at = params + (size_t)(g * SQ_KV_TILE + t) * 2;
    memcpy(at, &sh, 2);
    memcpy(at + sq_kv_v_z(d), &zh, 2);
    *inv = sh ? 1.0f / sq_f16_to_f32(sh) : 0.0f;
}

static void seal_v(const uint16_t *v, int32_t d, sq_kv_format f, uint8_t *out) {
    const coding q = coding_of(f);
    uint8_t *params = out + sq_kv_code_bytes(f, d);
    float z[4], inv[4];
    for (int32_t t = 0; t < SQ_KV_TILE; t += 4)
        for (int32_t c = 0; c < d; c += 4) {
            if (c % SQ_KV_GROUP == 0)
                for (int e = 0; e < 4; e++)
                    value_params(v, d, t + e, c / SQ_KV_GROUP, q, params, &z[e], &inv[e]);
            uint32x4_t line = vdupq_n_u32(0);
            for (int e = 0; e < 4; e++) {
                const uint32x4_t u = codes_of(v + (size_t)(t + e) * (size_t)d + (size_t)c, z[e], inv[e], q);
                line = vorrq_u32(line, vshlq_u32(u, vdupq_n_s32(8 * e)));
            }
            const sq_kv_place p = sq_kv_v_place(f, d, c, t);
            put(out + p.at, line, p.shift);
        }
}

void sq_kv_seal__neon(const sq_kv_seal_args *a) {
    seal_k(a->k, a->d, a->k_fmt, a->k_out);
    seal_v(a->v, a->d, a->v_fmt, a->v_out);
}
