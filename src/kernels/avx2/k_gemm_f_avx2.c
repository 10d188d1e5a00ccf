/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_f_avx2.c - matrices in F32, F16 and BF16, row-major, times f32 activations (R1: lanes are columns).
 *
 * The ladder, 4 or 2 bytes per weight. One thread of an EPYC of family 26 that reads 39.5 GB/s in a plain
 * loop; 8960 x 1536 from memory; share of that loop for bf16 / f32:
 *   1. four rows at a time, eight chains of additions        45 % / 77 %   short streams: memory waits
 *   2. + prefetch of the same column of the next four        73 % / 82 %
 *   3. one row, prefetch in the order of memory              93 % / 89 %   but 71 % / 75 % at 1536 x 8960:
 *                                                            two chains are slower than memory
 *   4. two rows, prefetch in the order of memory (here)      83 % / 83 %   82 % / 79 % at 1536 x 8960
 * Set aside: rows r and r + 8 as two long streams (85 % / 90 %, but it must fetch 16 rows ahead, which long
 * rows push out of a small second-level cache), prefetch into the second level (78 %), more distance (81 %).
 * M > 1: two rows by three tokens. M = 3 went from 16 to 40 GMAC/s when its first pass began to prefetch;
 * M = 256 makes 45 (bf16) and 42 (f32) of the 64 GMAC/s that two FMA units have at 4 GHz. */
#include "k_math_avx2.h"

/* Rows of W and of x in a block: 12 accumulators, 4 registers left for operands. */
enum { R_MAX = 2, C_MAX = 3 };

typedef enum { ELEM_F32, ELEM_F16, ELEM_BF16 } elem;

SQ_INLINE size_t elem_bytes(elem e) { return e == ELEM_F32 ? 4 : 2; }

SQ_INLINE __m256 load8(elem e, const uint8_t *p) {
    switch (e) {
    case ELEM_F32: return load8_f32(p);
    case ELEM_F16: return load8_f16(p);
    default: return load8_bf16(p);
    }
}

/* One step of 16 columns: acc[r][c] += w[r] * x[c]. Each weight is loaded once, each activation once. */
SQ_INLINE void step16(elem e, int n_r, int n_c, const uint8_t *w, size_t row_bytes, const float *x,
                      size_t ldx, __m256 acc[R_MAX][C_MAX][2]) {
    for (int half = 0; half < 2; half++) {
        __m256 wv[R_MAX];
        for (int r = 0; r < n_r; r++)
            wv[r] = load8(e, w + (size_t)r * row_bytes + (size_t)half * 8 * elem_bytes(e));
        for (int c = 0; c < n_c; c++) {
            __m256 xv = _mm256_loadu_ps(x + (size_t)c * ldx + half * 8);
            for (int r = 0; r < n_r; r++) acc[r][c][half] = _mm256_fmadd_ps(wv[r], xv, acc[r][c][half]);
        }
    }
}

/* n_r rows of W at wp by n_c rows of x over all columns. With `fetch` the lines of the block after the next
 * are asked for on the way, in the order of memory: the rows of a block are n_r streams too short for the
 * hardware prefetcher. The activations are padded with zeros, the last columns of W are copied to a padded
 * line: that makes the step R1 wants. */
SQ_INLINE void block(elem e, int n_r, int n_c, bool fetch, const sq_weight *w, const uint8_t *wp,
                     const float *x, size_t ldx, float *y, size_t ldy) {
    const size_t row_bytes = (size_t)w->cols * elem_bytes(e);
    const int32_t stride = fetch ? 64 / (int32_t)elem_bytes(e) : 16; /* columns: a line, or one step */
    __m256 acc[R_MAX][C_MAX][2];
    for (int r = 0; r < n_r; r++)
        for (int c = 0; c < n_c; c++) acc[r][c][0] = acc[r][c][1] = _mm256_setzero_ps();
    int32_t k = 0;
    for (; k + stride <= w->cols; k += stride) {
        const size_t at = (size_t)k * elem_bytes(e);
        if (fetch)
            for (int r = 0; r < n_r; r++)
                fetch_ahead(wp, 2 * (size_t)n_r * row_bytes + (size_t)n_r * at + (size_t)r * 64);
        for (int32_t j = 0; j < stride; j += 16)
            step16(e, n_r, n_c, wp + at + (size_t)j * elem_bytes(e), row_bytes, x + k + j, ldx, acc);
    }
    if (k + 16 <= w->cols) {
        step16(e, n_r, n_c, wp + (size_t)k * elem_bytes(e), row_bytes, x + k, ldx, acc);
        k += 16;
    }
    if (k < w->cols) {
        uint8_t last[R_MAX][64] = {{0}};
        const size_t at = (size_t)k * elem_bytes(e);
        for (int r = 0; r < n_r; r++) memcpy(last[r], wp + (size_t)r * row_bytes + at, row_bytes - at);
        step16(e, n_r, n_c, last[0], sizeof last[0], x + k, ldx, acc);
    }
    for (int r = 0; r < n_r; r++)
        for (int c = 0; c < n_c; c++) y[(size_t)c * ldy + (size_t)r] = lane_tree(acc[r][c][0], acc[r][c][1]);
}

/* Rows [r0, r1) of W by n_c rows of x. */
SQ_INLINE void rows(elem e, int n_c, bool fetch, const sq_weight *w, int32_t r0, int32_t r1, const float *x,
                    size_t ldx, float *y, size_t ldy) {
    const size_t row_bytes = (size_t)w->cols * elem_bytes(e);
    int32_t r = r0;
    for (; r + 2 <= r1; r += 2)
        block(e, 2, n_c, fetch, w, w->data + (size_t)r * row_bytes, x, ldx, y + r, ldy);
    if (r < r1) block(e, 1, n_c, fetch, w, w->data + (size_t)r * row_bytes, x, ldx, y + r, ldy);
}

/* The first pass over a tile brings it into the cache; further rows of x find it there. */
SQ_INLINE void gemm(elem e, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                    size_t ldy) {
    const size_t ldx = (size_t)x->groups * SQ_GROUP;
    for (int32_t t = tile0; t < tile1; t++) {
        const int32_t r0 = t * SQ_TILE_ROWS, r1 = r0 + SQ_TILE_ROWS < w->rows ? r0 + SQ_TILE_ROWS : w->rows;
        switch (x->m) {
        case 1: rows(e, 1, true, w, r0, r1, x->f, ldx, y, ldy); continue;
        case 2: rows(e, 2, true, w, r0, r1, x->f, ldx, y, ldy); continue;
        default: rows(e, 3, true, w, r0, r1, x->f, ldx, y, ldy); break;
        }
        int32_t i = 3;
        for (; i + 3 <= x->m; i += 3)
            rows(e, 3, false, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
        if (x->m - i == 2)
            rows(e, 2, false, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
        else if (x->m - i == 1)
            rows(e, 1, false, w, r0, r1, x->f + (size_t)i * ldx, ldx, y + (size_t)i * ldy, ldy);
    }
}

void sq_gemm_f32__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                       size_t ldy) {
    gemm(ELEM_F32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_f16__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                       size_t ldy) {
    gemm(ELEM_F16, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_bf16__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                        size_t ldy) {
    gemm(ELEM_BF16, w, tile0, tile1, x, y, ldy);
}
