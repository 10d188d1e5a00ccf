/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_f_avx512.c - row-major matrices of floats: the 16 lanes of R1 are one register, a block of rows
 * by tokens shares each load.
 *
 * vdpbf16ps is not used: it rounds activations to bf16, treats subnormals as zero and adds in pairs, so no
 * other instruction set could return its bits.
 *
 * Ladder. One thread of an AMD EPYC, family 26: plain read loop 41 GB/s, FMA 251 Gflop/s; out of cache,
 * gcc 12. 1 token as a share of the read loop, 256 tokens as a share of the peak:
 *
 *     rung                                        bf16 8960 x 1536    bf16 1536 x 8960    f32 8960 x 1536
 *     1 token: 8 rows in flight                   66 %, 90 %          70 %, 83 %          88 %, 70 %
 *     ... each row fetched 1 kB ahead             66 %                79 %
 *     4 rows, the next 4 fetched as one stream    88 %, 88 %          72 %, 74 %          86 %, 61 %
 *
 * The last is kept: 8 tokens went from 114 to 163 Gflop/s in bf16. 2 rows reach 96 % on short rows and 69 %
 * on long ones, whose activations (36 kB) share L1 with the stream. Next rung: long rows in blocks of
 * columns.
 *
 * Tokens left behind blocks of six, bf16, 4096 x 1536 / 512 x 4096, one thread of a Skylake server, over the
 * time of one token: in blocks of two and one (before) 3: 1.8 / 1.6, 4: 2.0 / 1.8, 5: 2.5 / 2.3; in one block
 * (now) 1.1 / 1.1, 1.2 / 1.2, 1.3 / 1.2. */
#include "kernels/avx512/k_avx512.h"

enum {
    R_MAX = 4,
    N_MAX = 6,              /* rows and tokens of a block: 24 accumulators, 4 weights, 1 activation */
    PANEL_BYTES = 384 << 10 /* weights that stay in L2 while tokens pass over them */
};

static inline size_t elem_bytes(sq_wtype t) { return t == SQ_W_F32 ? 4 : 2; }

/* 16 weights from element i on; lanes outside `in` are +0 and not read. */
BLOCK __m512 weights16(sq_wtype t, const uint8_t *row, int32_t i, __mmask16 in) {
    if (t == SQ_W_F32) return _mm512_maskz_loadu_ps(in, row + 4 * (size_t)i);
    const __m256i h = _mm256_maskz_loadu_epi16(in, row + 2 * (size_t)i);
    return t == SQ_W_F16 ? _mm512_cvtph_ps(h) : bf16_widen(h);
}

/* One step of 16 columns for R rows and N tokens. While these R rows are used as R streams, the next R, which
 * follow them in memory, are fetched as one. */
BLOCK void step16(sq_wtype t, int R, int N, const uint8_t *w, size_t row_bytes, const float *x, size_t ld,
                  int32_t i, __mmask16 in, __m512 (*acc)[N_MAX]) {
    const size_t step_bytes = (size_t)R * 16 * elem_bytes(t);
    const size_t ahead = (size_t)R * row_bytes + (size_t)(i / 16) * step_bytes;
    for (size_t b = 0; R > 1 && b < step_bytes; b += 64) fetch(w, ahead + b);
    __m512 a[R_MAX];
    for (int r = 0; r < R; r++) a[r] = weights16(t, w + (size_t)r * row_bytes, i, in);
    for (int n = 0; n < N; n++) {
        const __m512 b = _mm512_maskz_loadu_ps(in, x + (size_t)n * ld + i);
        for (int r = 0; r < R; r++) acc[r][n] = _mm512_fmadd_ps(a[r], b, acc[r][n]);
    }
}

/* y[n * ldy + r] for r < R, n < N; y points at the first of them. R is 4 or 1. */
BLOCK void rows_block(sq_wtype t, int R, int N, const uint8_t *w, size_t row_bytes, int32_t cols,
                      const float *x, size_t ld, float *y, size_t ldy) {
    __m512 acc[R_MAX][N_MAX];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) acc[r][n] = _mm512_setzero_ps();
    int32_t i = 0;
    for (; i + 16 <= cols; i += 16) step16(t, R, N, w, row_bytes, x, ld, i, 0xffff, acc);
    if (i < cols) step16(t, R, N, w, row_bytes, x, ld, i, first_lanes(cols - i), acc);
    for (int n = 0; n < N; n++) {
        if (R == 1) y[(size_t)n * ldy] = lane_tree(acc[0][n]);
        else _mm_storeu_ps(y + (size_t)n * ldy, lane_tree4(acc[0][n], acc[1][n], acc[2][n], acc[3][n]));
    }
}

/* Rows [r0, r1) times tokens [i0, i1), at most N_MAX of them. */
BLOCK void rows_tokens(sq_wtype t, const sq_weight *w, int32_t r0, int32_t r1, const sq_act *x, int32_t i0,
                       int32_t i1, float *y, size_t ldy) {
    const size_t ld = (size_t)x->groups * SQ_GROUP, row_bytes = w->tile_bytes / SQ_TILE_ROWS;
    int32_t r = r0;
#define BLOCK_AT(R, N, i)                                                                               \
    rows_block(t, R, N, w->data + (size_t)r * row_bytes, row_bytes, w->cols, x->f + (size_t)(i)*ld, ld, \
               y + (size_t)(i)*ldy + r, ldy)
    for (; r1 - r >= R_MAX; r += R_MAX) {
        switch (i1 - i0) { /* each count in one pass: a second one costs as much as tokens in the first */
        case 1: BLOCK_AT(R_MAX, 1, i0); break;
        case 2: BLOCK_AT(R_MAX, 2, i0); break;
        case 3: BLOCK_AT(R_MAX, 3, i0); break;
        case 4: BLOCK_AT(R_MAX, 4, i0); break;
        case 5: BLOCK_AT(R_MAX, 5, i0); break;
        default: BLOCK_AT(R_MAX, N_MAX, i0); break;
        }
    }
    for (; r < r1; r++)
        for (int32_t i = i0; i < i1; i++) BLOCK_AT(1, 1, i);
#undef BLOCK_AT
}

/* Panels of rows stay in L2 while blocks of tokens, which stay in L1, walk over them. */
BLOCK void gemm_rows(sq_wtype t, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                     size_t ldy) {
    const int32_t end = tile1 * SQ_TILE_ROWS < w->rows ? tile1 * SQ_TILE_ROWS : w->rows;
    const int32_t tiles = (int32_t)(PANEL_BYTES / w->tile_bytes),
                  panel = (tiles < 1 ? 1 : tiles) * SQ_TILE_ROWS;
    for (int32_t r = tile0 * SQ_TILE_ROWS; r < end; r += panel) {
        const int32_t r1 = end - r < panel ? end : r + panel;
        for (int32_t i = 0; i < x->m; i += N_MAX) {
            const int32_t i1 = x->m - i < N_MAX ? x->m : i + N_MAX;
            rows_tokens(t, w, r, r1, x, i, i1, y, ldy);
        }
    }
}

void sq_gemm_f32__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm_rows(SQ_W_F32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_f16__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm_rows(SQ_W_F16, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_bf16__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                          size_t ldy) {
    gemm_rows(SQ_W_BF16, w, tile0, tile1, x, y, ldy);
}
