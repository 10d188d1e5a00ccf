/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_neon.c - weights of others (GGUF blocks, AFFINE) for CPUs with the dot-product instructions:
 * panels of k_foreign.h, four rows a register. Between panels the sums wait in y. Compared bit by bit under
 * qemu; no rate is claimed. */
#include "k_math_neon.h"

#define SQ_LANES 4
#define SQ_ZERO8 0u
typedef uint32_t sq_u32 __attribute__((vector_size(16)));
typedef int32_t sq_i32 __attribute__((vector_size(16)));
typedef float sq_f32 __attribute__((vector_size(16)));

SQ_INLINE void sq_quads(const uint8_t *const p[1], size_t ld, size_t at, sq_u32 out[4]) {
    const uint8_t *q = p[0] + at;
    const uint32x4_t r0 = vreinterpretq_u32_u8(vld1q_u8(q)), r1 = vreinterpretq_u32_u8(vld1q_u8(q + ld)),
                     r2 = vreinterpretq_u32_u8(vld1q_u8(q + 2 * ld)),
                     r3 = vreinterpretq_u32_u8(vld1q_u8(q + 3 * ld));
    const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(r0, r1)),
                     b = vreinterpretq_u64_u32(vtrn1q_u32(r2, r3)),
                     c = vreinterpretq_u64_u32(vtrn2q_u32(r0, r1)),
                     d = vreinterpretq_u64_u32(vtrn2q_u32(r2, r3));
    out[0] = (sq_u32)vtrn1q_u64(a, b);
    out[1] = (sq_u32)vtrn1q_u64(c, d);
    out[2] = (sq_u32)vtrn2q_u64(a, b);
    out[3] = (sq_u32)vtrn2q_u64(c, d);
}

SQ_INLINE sq_f32 sq_halves(sq_u32 v) {
    return (sq_f32)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)v)));
}

#include "kernels/k_unpack.h"

/* One run of `sub` columns times token i; acc [4] holds rows 4j..4j+3. */
SQ_INLINE void add_run(int sub, bool biased, const sq_panel *p, int32_t zero, int32_t s, const sq_act *x,
                       int32_t i, int32_t k, float32x4_t acc[4]) {
    const int8_t *q = x->q + (size_t)i * (size_t)x->groups * SQ_GROUP + (size_t)k;
    const float sx = x->scale[(size_t)i * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
    const int32_t sum = sq_panel_sum(x, i, k, sub);
    for (int j = 0; j < 4; j++) {
        int32x4_t dot = vdupq_n_s32(-zero * sum);
        for (int l = 0; l < sub / 4; l++) {
            int32_t four;
            memcpy(&four, q + 4 * l, sizeof four);
            const int8x16_t w = vreinterpretq_s8_u32(vld1q_u32(p->line[s * (sub / 4) + l] + 4 * j));
            dot = vdotq_s32(dot, w, vreinterpretq_s8_s32(vdupq_n_s32(four)));
        }
        const float32x4_t f = vmulq_n_f32(vld1q_f32(p->scale[s] + 4 * j), sx);
        acc[j] = vfmaq_f32(acc[j], f, vcvtq_f32_s32(dot));
        if (biased) acc[j] = vfmaq_f32(acc[j], vld1q_f32(p->bias[s] + 4 * j), vdupq_n_f32(sx * (float)sum));
    }
}

/* The whole panel times token i; rows: those of the tile that exist. */
SQ_INLINE void panel_token(int sub, bool biased, const sq_panel *p, int32_t zero, const sq_act *x, int32_t i,
                           int32_t k0, float *y, int32_t rows) {
    const int32_t left = x->groups * SQ_GROUP - k0, cols = left < SQ_PANEL ? left : SQ_PANEL;
    float32x4_t acc[4];
    for (int j = 0; j < 4; j++)
        acc[j] = k0 == 0 || rows <= 4 * j ? vdupq_n_f32(0.0f) : load_n(y + 4 * j, rows - 4 * j);
    for (int32_t s = 0; s < cols / sub; s++) add_run(sub, biased, p, zero, s, x, i, k0 + s * sub, acc);
    for (int j = 0; j < 4 && rows > 4 * j; j++) store_n(y + 4 * j, rows - 4 * j, acc[j]);
}

void sq_gemm_foreign__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const int32_t zero = sq_panel_zero(w, SQ_ZERO8);
    sq_panel p;
    sq_first_fetch(w, tile0, 0);
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const int32_t rows = w->rows - tile * SQ_TILE_ROWS;
        for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
            if (tile == tile0) sq_first_fetch(w, tile, k0 + SQ_PANEL);
            sq_panel_load(w, t, tile, tile + 1 < tile1, k0, &p);
            for (int32_t i = 0; i < x->m; i++) {
                float *y0 = y + (size_t)i * ldy + (size_t)tile * SQ_TILE_ROWS;
                if (t->sub == 32)
                    panel_token(32, t->bias, &p, zero, x, i, k0, y0, rows);
                else
                    panel_token(16, t->bias, &p, zero, x, i, k0, y0, rows);
            }
        }
    }
}
