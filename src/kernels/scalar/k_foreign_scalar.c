/* SPDX-License-Identifier: Apache-2.0
 *
 * k_foreign_scalar.c - weights of others (GGUF blocks, AFFINE) times activations: R2 of kernels.h on what
 * sq_row_unpack says, 256 columns at a time. */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* One panel of one row times token i: acc goes on. */
static float panel(const sq_wtype_info *t, const int8_t *codes, const float *scale, const float *bias,
                   const sq_act *x, int32_t i, int32_t k0, float acc) {
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    for (int32_t s = 0; s < SQ_PANEL / t->sub && k0 + s * t->sub < (int32_t)ld; s++) {
        const int32_t k = k0 + s * t->sub;
        const float sx = x->scale[(size_t)i * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
        int32_t dot = 0, sum = 0;
        for (int32_t j = 0; j < t->sub; j++)
            dot += codes[s * t->sub + j] * x->q[(size_t)i * ld + (size_t)(k + j)];
        for (int32_t j = 0; j < t->sub / 16; j++)
            sum += x->isum16[(size_t)i * (ld / 16) + (size_t)(k / 16 + j)];
        const float f = scale[s] * sx;
        acc = fmaf(f, (float)dot, acc);
        if (t->bias) acc = fmaf(bias[s], sx * (float)sum, acc);
    }
    return acc;
}

void sq_gemm_foreign__scalar(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                             size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const int32_t end = tile1 * SQ_TILE_ROWS < w->rows ? tile1 * SQ_TILE_ROWS : w->rows;
    for (int32_t r = tile0 * SQ_TILE_ROWS; r < end; r++)
        for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
            int8_t codes[SQ_PANEL];
            float scale[16], bias[16];
            sq_row_unpack(w, r, k0, codes, scale, bias);
            for (int32_t i = 0; i < x->m; i++) {
                float *out = &y[(size_t)i * ldy + (size_t)r];
                *out = panel(t, codes, scale, bias, x, i, k0, k0 == 0 ? 0.0f : *out);
            }
        }
}
