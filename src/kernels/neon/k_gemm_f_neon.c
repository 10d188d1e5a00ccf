/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_f_neon.c - matrices in F32, F16 and BF16, row-major, times f32 activations (R1: lanes are columns).
 *
 * Two rows of W by up to three rows of x: 24 accumulators of four lanes leave eight registers for operands,
 * and one token still has eight chains of additions in flight, enough for two FMA pipes of latency four. 4 or
 * 2 bytes per weight, each read once for three tokens. Built by the cross compiler and compared bit by bit
 * under qemu; no rate is claimed, and no prefetch is here because none could be measured. */
#include "k_math_neon.h"

/* Rows of W and of x in a block. */
enum { R_MAX = 2, C_MAX = 3 };

typedef enum { ELEM_F32, ELEM_F16, ELEM_BF16 } elem;

SQ_INLINE size_t elem_bytes(elem e) { return e == ELEM_F32 ? 4 : 2; }

SQ_INLINE float32x4_t load4(elem e, const uint8_t *p) {
    switch (e) {
    case ELEM_F32: return load4_f32(p);
    case ELEM_F16: return load4_f16(p);
    default: return load4_bf16(p);
    }
}

/* One step of 16 columns: acc[r][c] += w[r] * x[c]. Each weight is loaded once, each activation once. */
SQ_INLINE void step16(elem e, int n_r, int n_c, const uint8_t *w, size_t row_bytes, const float *x,
                      size_t ldx, float32x4_t acc[R_MAX][C_MAX][4]) {
    for (int j = 0; j < 4; j++) {
        float32x4_t wv[R_MAX];
        for (int r = 0; r < n_r; r++)
            wv[r] = load4(e, w + (size_t)r * row_bytes + (size_t)(4 * j) * elem_bytes(e));
        for (int c = 0; c < n_c; c++) {
            const float32x4_t xv = vld1q_f32(x + (size_t)c * ldx + 4 * j);
            for (int r = 0; r < n_r; r++) acc[r][c][j] = vfmaq_f32(acc[r][c][j], wv[r], xv);
        }
    }
}

/* n_r rows of W at wp by n_c rows of x over all columns. The activations are padded with zeros, the last
 * columns of W are copied to a padded line: that makes the step R1 wants. */
SQ_INLINE void block(elem e, int n_r, int n_c, const sq_weight *w, const uint8_t *wp, const float *x,
                     size_t ldx, float *y, size_t ldy) {
    const size_t row_bytes = (size_t)w->cols * elem_bytes(e);
    float32x4_t acc[R_MAX][C_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int c = 0; c < n_c; c++)
            for (int j = 0; j < 4; j++) acc[r][c][j] = vdupq_n_f32(0.0f);
    int32_t k = 0;
    for (; k + 16 <= w->cols; k += 16)
        step16(e, n_r, n_c, wp + (size_t)k * elem_bytes(e), row_bytes, x + k, ldx, acc);
    if (k < w->cols) {
        uint8_t last[R_MAX][64] = {{0}};
        const size_t at = (size_t)k * elem_bytes(e);
        for (int r = 0; r < n_r; r++) memcpy(last[r], wp + (size_t)r * row_bytes + at, row_bytes - at);
        step16(e, n_r, n_c, last[0], sizeof last[0], x + k, ldx, acc);
    }
    for (int r = 0; r < n_r; r++)
        for (int c = 0; c < n_c; c++) y[(size_t)c * ldy + (size_t)r] = lane_tree(acc[r][c]);
}

/* Rows [r0, r1) of W by n_c rows of x. */
SQ_INLINE void rows(elem e, int n_c, const sq_weight *w, int32_t r0, int32_t r1, const float *x, size_t ldx,
                    float *y, size_t ldy) {
    const size_t row_bytes = (size_t)w->cols * elem_bytes(e);
    int32_t r = r0;
    for (; r + 2 <= r1; r += 2) block(e, 2, n_c, w, w->data + (size_t)r * row_bytes, x, ldx, y + r, ldy);
    if (r < r1) block(e, 1, n_c, w, w->data + (size_t)r * row_bytes, x, ldx, y + r, ldy);
}

SQ_INLINE void gemm(elem e, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                    size_t ldy) {
    const size_t ldx = (size_t)x->groups * SQ_GROUP;
    for (int32_t t = tile0; t < tile1; t++) {
        const int32_t r0 = t * SQ_TILE_ROWS, r1 = r0 + SQ_TILE_ROWS < w->rows ? r0 + SQ_TILE_ROWS : w->rows;
        int32_t i = 0;
        for (; i + 3 <= x->m; i += 3)
            rows(e, 3, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
        if (x->m - i == 2)
            rows(e, 2, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
        else if (x->m - i == 1)
            rows(e, 1, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
    }
}

void sq_gemm_f32__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                       size_t ldy) {
    gemm(ELEM_F32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_f16__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                       size_t ldy) {
    gemm(ELEM_F16, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_bf16__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                        size_t ldy) {
    gemm(ELEM_BF16, w, tile0, tile1, x, y, ldy);
}
