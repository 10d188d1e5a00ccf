/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_neon.c - weights of others (GGUF blocks, AFFINE) for CPUs with the dot-product instructions:
 * panels of k_foreign.h, four rows a register. Between panels the sums wait in y. Compared bit by bit under
 * qemu; no rate is claimed. */
#include "k_math_neon.h"

#include "kernels/k_foreign.h"

/* One run of `sub` columns times token i; acc [4] holds rows 4j..4j+3. */
SQ_INLINE void add_run(int sub, bool biased, const sq_panel *p, int32_t s, const sq_act *x, int32_t i,
                       int32_t k, float32x4_t acc[4]) {
    const int8_t *q = x->q + (size_t)i * (size_t)x->groups * SQ_GROUP + (size_t)k;
    const float sx = x->scale[(size_t)i * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
    const float sum = biased ? sx * (float)sq_panel_sum(x, i, k, sub) : 0.0f;
    for (int j = 0; j < 4; j++) {
        int32x4_t dot = vdupq_n_s32(0);
        for (int l = 0; l < sub / 4; l++) {
            int32_t four;
            memcpy(&four, q + 4 * l, sizeof four);
            const int8x16_t w = vreinterpretq_s8_s32(vld1q_s32(p->line[s * (sub / 4) + l] + 4 * j));
            dot = vdotq_s32(dot, w, vreinterpretq_s8_s32(vdupq_n_s32(four)));
        }
        const float32x4_t f = vmulq_n_f32(vld1q_f32(p->scale[s] + 4 * j), sx);
        acc[j] = vfmaq_f32(acc[j], f, vcvtq_f32_s32(dot));
        if (biased) acc[j] = vfmaq_f32(acc[j], vld1q_f32(p->bias[s] + 4 * j), vdupq_n_f32(sum));
    }
}

/* The whole panel times token i; rows: those of the tile that exist. */
SQ_INLINE void panel_token(int sub, bool biased, const sq_panel *p, const sq_act *x, int32_t i, int32_t k0,
                           float *y, int32_t rows) {
    const int32_t left = x->groups * SQ_GROUP - k0, cols = left < SQ_PANEL ? left : SQ_PANEL;
    float32x4_t acc[4];
    for (int j = 0; j < 4; j++)
        acc[j] = k0 == 0 || rows <= 4 * j ? vdupq_n_f32(0.0f) : load_n(y + 4 * j, rows - 4 * j);
    for (int32_t s = 0; s < cols / sub; s++) add_run(sub, biased, p, s, x, i, k0 + s * sub, acc);
    for (int j = 0; j < 4 && rows > 4 * j; j++) store_n(y + 4 * j, rows - 4 * j, acc[j]);
}

void sq_gemm_foreign__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    sq_panel p;
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const int32_t rows = w->rows - tile * SQ_TILE_ROWS;
        for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
            sq_panel_load(w, t, tile, k0, &p);
            for (int32_t i = 0; i < x->m; i++) {
                float *y0 = y + (size_t)i * ldy + (size_t)tile * SQ_TILE_ROWS;
                if (t->sub == 32)
                    panel_token(32, t->bias, &p, x, i, k0, y0, rows);
                else
                    panel_token(16, t->bias, &p, x, i, k0, y0, rows);
            }
        }
    }
}
