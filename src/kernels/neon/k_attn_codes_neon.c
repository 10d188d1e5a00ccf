/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_neon.c - attention over sealed tiles on their codes (R5).
 *
 * Codes are widened to 16 bits and multiplied with the weights as they are, all 15 bits at once (smlal): that
 * every aarch64 has. A load of four-element structures takes a line apart into its four channels or tokens.
 * Scores and values are the same loop: 16 lanes, tokens or channels, over quads of the other. */
#include "k_softmax_neon.h"

enum { ROWS = 3 }; /* 3 x 4 accumulators */

typedef struct {
    int16_t w[SQ_ATTN_D_MAX]; /* the integers of R5: of channels, or of tokens of the chunk */
    float step, base;
} weights;

typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1; /* first row; tiles seen by one row or more */
    float s[ROWS][SQ_ATTN_CHUNK];
    weights w[ROWS];
} block;

/* Integers, step and base of n weights v (n a multiple of 16), whose largest magnitude is `most`. */
SQ_INLINE void set_weights(weights *out, const float *v, int32_t n, float most, float zdot, sq_kv_format f) {
    const bool any = most >= 0x1p-100f && most < __builtin_inff();
    const float inv = any ? SQ_KV_PLANES / most : 0.0f;
    const float c0 = (float)((1 << sq_kv_bits(f)) - 1) * 0.5f;
    int32x4_t sum = vdupq_n_s32(0);
    for (int32_t i = 0; i < n; i += 8) {
        const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(v + i), inv));
        const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(v + i + 4), inv));
        sum = vaddq_s32(sum, vaddq_s32(a, b));
        vst1q_s16(out->w + i, vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)));
    }
    out->step = any ? most / SQ_KV_PLANES : 0.0f;
    out->base = __builtin_fmaf(-(out->step * c0), (float)vaddvq_s32(sum), zdot);
}

/* dot[r][lane] gains the products of codes and weights, from weight w0 on, over quads. K: lanes are the
 * tokens of half `x`; V: the channels of block `x`. */
SQ_INLINE void dots(int n_r, bool keys, sq_kv_format f, const uint8_t *tile, int32_t d, int32_t x,
                    int32_t quads, const weights *w, int32_t w0, int32x4_t dot[ROWS][4]) {
    const uint8x16_t mask = vdupq_n_u8((uint8_t)((1 << sq_kv_bits(f)) - 1));
    for (int32_t quad = 0; quad < quads; quad++) {
        const sq_kv_place p =
            keys ? sq_kv_k_place(f, 4 * quad, 16 * x) : sq_kv_v_place(f, d, 16 * x, 4 * quad);
        const uint8x16x4_t line = vld4q_u8(tile + p.at);
        for (int e = 0; e < 4; e++) {
            uint8x16_t u = line.val[e];
            if (f != SQ_KV_Q8) u = vandq_u8(vshlq_u8(u, vdupq_n_s8((int8_t)-p.shift)), mask);
            const int16x8_t u0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(u)));
            const int16x8_t u1 = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(u)));
            for (int r = 0; r < n_r; r++) {
                const int16_t q = w[r].w[w0 + 4 * quad + e];
                dot[r][0] = vmlal_n_s16(dot[r][0], vget_low_s16(u0), q);
                dot[r][1] = vmlal_n_s16(dot[r][1], vget_high_s16(u0), q);
                dot[r][2] = vmlal_n_s16(dot[r][2], vget_low_s16(u1), q);
                dot[r][3] = vmlal_n_s16(dot[r][3], vget_high_s16(u1), q);
            }
        }
    }
}

SQ_INLINE void no_dots(int n_r, int32x4_t dot[ROWS][4]) {
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 4; j++) dot[r][j] = vdupq_n_s32(0);
}

/* ---- scores ---------------------------------------------------------------------------------- */

SQ_INLINE void key_weights(const float *q, int32_t d, const uint8_t *params, sq_kv_format f, weights *out) {
    const uint8_t *z = params + sq_kv_k_z(d);
    float v[SQ_ATTN_D_MAX];
    float32x4_t most = vdupq_n_f32(0.0f), zdot[4];
    for (int j = 0; j < 4; j++) zdot[j] = vdupq_n_f32(0.0f);
    for (int32_t c = 0; c < d; c += 16) {
        const uint8x16_t codes = vld1q_u8(params + c);
        const uint16x8_t wide[2] = {vmovl_u8(vget_low_u8(codes)), vmovl_u8(vget_high_u8(codes))};
        for (int j = 0; j < 4; j++) {
            const uint16x8_t eight = wide[j / 2];
            const uint32x4_t bits = vmovl_u16(j % 2 ? vget_high_u16(eight) : vget_low_u16(eight));
            const uint32x4_t scale = vaddq_u32(vshlq_n_u32(bits, 20), vdupq_n_u32(112u << 23));
            const float32x4_t qc = vld1q_f32(q + c + 4 * j), wc = vmulq_f32(qc, vreinterpretq_f32_u32(scale));
            most = vmaxq_f32(most, vabsq_f32(wc));
            zdot[j] = vfmaq_f32(zdot[j], qc, load4_f16(z + 2 * (c + 4 * j)));
            vst1q_f32(v + c + 4 * j, wc);
        }
    }
    set_weights(out, v, d, vmaxvq_f32(most), lane_tree(zdot), f);
}

SQ_INLINE void code_scores(int n_r, sq_kv_format f, block *b, int32_t j) {
    const sq_attn_args *a = b->a;
    const uint8_t *k = (const uint8_t *)a->k[j], *params = k + sq_kv_code_bytes(f, a->d);
    for (int r = 0; r < n_r; r++)
        key_weights(a->q + (size_t)(b->row0 + r) * a->ldq, a->d, params, f, &b->w[r]);
    for (int h = 0; h < 2; h++) {
        int32x4_t dot[ROWS][4];
        no_dots(n_r, dot);
        dots(n_r, true, f, k, a->d, h, a->d / 4, b->w, 0, dot);
        for (int r = 0; r < n_r; r++)
            for (int i = 0; i < 4; i++)
                vst1q_f32(b->s[r] + SQ_KV_TILE * j + 16 * h + 4 * i,
                          vfmaq_n_f32(vdupq_n_f32(b->w[r].base), vcvtq_f32_s32(dot[r][i]), b->w[r].step));
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Probabilities p of the tiles of the block with the scales of group g in them. */
SQ_INLINE void value_weights(const block *b, const float *p, int32_t g, sq_kv_format f, weights *out) {
    const sq_attn_args *a = b->a;
    const size_t at = sq_kv_code_bytes(f, a->d) + (size_t)g * SQ_KV_TILE * 2;
    float v[SQ_ATTN_CHUNK];
    float32x4_t most = vdupq_n_f32(0.0f), zdot[4];
    for (int j = 0; j < 4; j++) zdot[j] = vdupq_n_f32(0.0f);
    for (int32_t t = SQ_KV_TILE * b->tile0; t < SQ_KV_TILE * b->tile1; t += 4) {
        const uint8_t *s = (const uint8_t *)a->v[t / SQ_KV_TILE] + at + 2 * (t % SQ_KV_TILE);
        const float32x4_t pt = vld1q_f32(p + t), wt = vmulq_f32(pt, load4_f16(s));
        most = vmaxq_f32(most, wt);
        zdot[t / 4 % 4] = vfmaq_f32(zdot[t / 4 % 4], pt, load4_f16(s + sq_kv_v_z(a->d)));
        vst1q_f32(v + t - SQ_KV_TILE * b->tile0, wt);
    }
    set_weights(out, v, SQ_KV_TILE * (b->tile1 - b->tile0), vmaxvq_f32(most), lane_tree(zdot), f);
}

SQ_INLINE void code_values(int n_r, sq_kv_format f, block *b) {
    const sq_attn_args *a = b->a;
    for (int32_t blk = 0; blk < a->d / 16; blk++) {
        int32x4_t dot[ROWS][4];
        if (blk % (SQ_KV_GROUP / 16) == 0)
            for (int r = 0; r < n_r; r++) value_weights(b, b->s[r], blk / (SQ_KV_GROUP / 16), f, &b->w[r]);
        no_dots(n_r, dot);
        for (int32_t j = b->tile0; j < b->tile1; j++)
            dots(n_r, false, f, (const uint8_t *)a->v[j], a->d, blk, SQ_KV_TILE / 4, b->w,
                 SQ_KV_TILE * (j - b->tile0), dot);
        for (int r = 0; r < n_r; r++)
            for (int i = 0; i < 4; i++) {
                const float32x4_t o =
                    vfmaq_n_f32(vdupq_n_f32(b->w[r].base), vcvtq_f32_s32(dot[r][i]), b->w[r].step);
                vst1q_f32(a->o + (size_t)(b->row0 + r) * a->ldo + 16 * blk + 4 * i,
                          vaddq_f32(o, vdupq_n_f32(0.0f)));
            }
    }
}

/* ---- a block of rows ------------------------------------------------------------------------- */

SQ_INLINE void row_block(int n_r, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + n_r; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo < hi ? lo / SQ_KV_TILE : 0;
    b->tile1 = lo < hi ? sq_div_up(hi, SQ_KV_TILE) : 0;
    for (int32_t j = b->tile0; j < b->tile1; j++) switch (a->k_fmt) {
        case SQ_KV_Q8: code_scores(n_r, SQ_KV_Q8, b, j); break;
        case SQ_KV_Q4: code_scores(n_r, SQ_KV_Q4, b, j); break;
        default: code_scores(n_r, SQ_KV_Q2, b, j);
        }
    for (int r = 0; r < n_r; r++) softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->s[r]);
    switch (a->v_fmt) {
    case SQ_KV_Q8: code_values(n_r, SQ_KV_Q8, b); break;
    case SQ_KV_Q4: code_values(n_r, SQ_KV_Q4, b); break;
    default: code_values(n_r, SQ_KV_Q2, b);
    }
    b->row0 += n_r;
}

void sq_attn_codes__neon(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        if (left == 1)
            row_block(1, &b);
        else if (left == 2 || left == 4) /* four rows as 2 + 2, not 3 + 1 */
            row_block(2, &b);
        else
            row_block(3, &b);
    }
}
