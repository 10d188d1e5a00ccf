/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_neon.c - a sealed tile in fewer bits, made from its codes (R9). As in k_seal_neon.c the codes
 * of four channels (K) or four tokens (V) are the bytes of a lane: a byte is taken out of all lanes, becomes
 * four floats, and goes back to where it was. */
#include "k_math_neon.h"

typedef struct {
    float c0, c1;         /* centres of the codes */
    int32_t most0, most1; /* largest codes */
    float ratio;          /* of the steps, if both could be had exactly */
} change;

static change change_of(sq_kv_format from, sq_kv_format to) {
    const int32_t m0 = (1 << sq_kv_bits(from)) - 1, m1 = (1 << sq_kv_bits(to)) - 1;
    return (change){(float)m0 * 0.5f, (float)m1 * 0.5f, m0, m1, (float)m0 / (float)m1};
}

/* A line of bytes from bit a.shift on into one of fewer bits, a quarter at a time; r: ratios of the four
 * bytes of a lane. Lines are begun at bit 0. */
SQ_INLINE void change_line(const change *q, const uint8_t *in, sq_kv_place a, const float r[4], uint8_t *out,
                           sq_kv_place b) {
    for (int i = 0; i < 64; i += 16) {
        const uint32x4_t line = vreinterpretq_u32_u8(vld1q_u8(in + a.at + i));
        uint32x4_t made = b.shift ? vreinterpretq_u32_u8(vld1q_u8(out + b.at + i)) : vdupq_n_u32(0);
        for (int e = 0; e < 4; e++) {
            const uint32x4_t u =
                vandq_u32(vshlq_u32(line, vdupq_n_s32(-(8 * e + a.shift))), vdupq_n_u32((uint32_t)q->most0));
            const float32x4_t off = vsubq_f32(vcvtq_f32_u32(u), vdupq_n_f32(q->c0));
            const int32x4_t n = vcvtnq_s32_f32(vfmaq_n_f32(vdupq_n_f32(q->c1), off, r[e]));
            const int32x4_t held = vminq_s32(vmaxq_s32(n, vdupq_n_s32(0)), vdupq_n_s32(q->most1));
            made = vorrq_u32(made, vshlq_u32(vreinterpretq_u32_s32(held), vdupq_n_s32(8 * e + b.shift)));
        }
        vst1q_u8(out + b.at + i, vreinterpretq_u8_u32(made));
    }
}

static void shrink_k(const uint8_t *k, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = k + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memset(params, 0, sq_kv_k_bytes(to, d) - sq_kv_code_bytes(to, d));
    memcpy(params + sq_kv_k_z(d), in + sq_kv_k_z(d), (size_t)d * 2);
    for (int32_t c = 0; c < d; c += 4) {
        float r[4];
        for (int e = 0; e < 4; e++) {
            const float s = sq_kv_scale(in[c + e]);
            params[c + e] = sq_kv_scale_code(s * q.ratio);
            r[e] = s / sq_kv_scale(params[c + e]);
        }
        for (int32_t t = 0; t < SQ_KV_TILE; t += 16)
            change_line(&q, k, sq_kv_k_place(from, c, t), r, out, sq_kv_k_place(to, c, t));
    }
}

/* Token i % 32 of group i / 32: the wider step into params, and the ratio of both. */
static float widen_step(const uint8_t *in, uint8_t *params, int32_t i, float ratio) {
    uint16_t narrow, wide;
    memcpy(&narrow, in + (size_t)i * 2, sizeof narrow);
    const float s = sq_f16_to_f32(narrow);
    wide = sq_f32_to_f16(s * ratio);
    wide = (uint16_t)(wide + (sq_f16_to_f32(wide) < s * ratio));
    memcpy(params + (size_t)i * 2, &wide, sizeof wide);
    return wide ? s / sq_f16_to_f32(wide) : 0.0f;
}

static void shrink_v(const uint8_t *v, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const change q = change_of(from, to);
    const uint8_t *in = v + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    float r[4];
    memcpy(params + sq_kv_v_z(d), in + sq_kv_v_z(d), sq_kv_v_z(d));
    for (int32_t t = 0; t < SQ_KV_TILE; t += 4)
        for (int32_t c = 0; c < d; c += 16) {
            for (int e = 0; e < 4 && c % SQ_KV_GROUP == 0; e++)
                r[e] = widen_step(in, params, c / SQ_KV_GROUP * SQ_KV_TILE + t + e, q.ratio);
            change_line(&q, v, sq_kv_v_place(from, d, c, t), r, out, sq_kv_v_place(to, d, c, t));
        }
}

void sq_kv_shrink__neon(const sq_kv_shrink_args *a) {
    if (a->k_from == a->k_to)
        memcpy(a->k_out, a->k, sq_kv_k_bytes(a->k_to, a->d));
    else
        shrink_k(a->k, a->d, a->k_from, a->k_to, a->k_out);
    if (a->v_from == a->v_to)
        memcpy(a->v_out, a->v, sq_kv_v_bytes(a->v_to, a->d));
    else
        shrink_v(a->v, a->d, a->v_from, a->v_to, a->v_out);
}
