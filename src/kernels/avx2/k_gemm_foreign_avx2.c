/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_avx2.c - weights of others (GGUF blocks, AFFINE): panels of k_foreign.h, then |w| times x
 * with the sign of w, as with 8-bit packed matrices. Between panels the sums wait in y. */
#include "k_math_avx2.h"

#include "kernels/k_foreign.h"

enum { N_MAX = 4 }; /* tokens of a block: of 16 registers, 8 hold sums */

SQ_INLINE __m256i quad(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

/* One run of `sub` columns of both halves of the rows, n tokens from i0 on. k: its first column. */
SQ_INLINE void add_run(int sub, bool biased, int n, const sq_panel *p, int32_t s, const sq_act *x, int32_t i0,
                       int32_t k, __m256 acc[2][N_MAX]) {
    const __m256i one = _mm256_set1_epi16(1);
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    for (int h = 0; h < 2; h++) {
        const __m256 scale = _mm256_load_ps(p->scale[s] + 8 * h), bias = _mm256_load_ps(p->bias[s] + 8 * h);
        __m256i dot[N_MAX];
        for (int i = 0; i < n; i++) dot[i] = _mm256_setzero_si256();
        for (int l = 0; l < sub / 4; l++) {
            const int32_t *line = p->line[s * (sub / 4) + l] + 8 * h;
            const __m256i v = _mm256_load_si256((const __m256i *)line), magnitude = _mm256_abs_epi8(v);
            for (int i = 0; i < n; i++) {
                const int8_t *q = x->q + (size_t)(i0 + i) * ld + (size_t)k + 4 * l;
                const __m256i pair = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(quad(q), v));
                dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(pair, one));
            }
        }
        for (int i = 0; i < n; i++) {
            const float sx = x->scale[(size_t)(i0 + i) * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
            const __m256 f = _mm256_mul_ps(scale, _mm256_set1_ps(sx));
            acc[h][i] = _mm256_fmadd_ps(f, _mm256_cvtepi32_ps(dot[i]), acc[h][i]);
            if (!biased) continue;
            const float sum = sx * (float)sq_panel_sum(x, i0 + i, k, sub);
            acc[h][i] = _mm256_fmadd_ps(bias, _mm256_set1_ps(sum), acc[h][i]);
        }
    }
}

/* The whole panel, n tokens; rows: those of the tile that exist. */
SQ_INLINE void panel_block(int sub, bool biased, int n, const sq_panel *p, const sq_act *x, int32_t i0,
                           int32_t k0, float *y0, size_t ldy, int32_t rows) {
    const int32_t left = x->groups * SQ_GROUP - k0, cols = left < SQ_PANEL ? left : SQ_PANEL;
    __m256 acc[2][N_MAX];
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < n; i++)
            acc[h][i] = k0 == 0 || rows <= 8 * h ? _mm256_setzero_ps()
                                                 : load_n(y0 + (size_t)i * ldy + 8 * h, rows - 8 * h);
    for (int32_t s = 0; s < cols / sub; s++) add_run(sub, biased, n, p, s, x, i0, k0 + s * sub, acc);
    for (int h = 0; h < 2 && rows > 8 * h; h++)
        for (int i = 0; i < n; i++) store_n(y0 + (size_t)i * ldy + 8 * h, rows - 8 * h, acc[h][i]);
}

SQ_INLINE void panel_tokens(int sub, bool biased, const sq_panel *p, const sq_act *x, int32_t k0, float *y,
                            size_t ldy, int32_t rows) {
    int32_t i = 0;
    for (; i + N_MAX <= x->m; i += N_MAX)
        panel_block(sub, biased, N_MAX, p, x, i, k0, y + (size_t)i * ldy, ldy, rows);
    for (; i < x->m; i++) panel_block(sub, biased, 1, p, x, i, k0, y + (size_t)i * ldy, ldy, rows);
}

void sq_gemm_foreign__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    sq_panel p;
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const int32_t rows = w->rows - tile * SQ_TILE_ROWS;
        float *y0 = y + (size_t)tile * SQ_TILE_ROWS;
        for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
            sq_panel_load(w, t, tile, k0, &p);
            if (t->sub == 32 && t->bias)
                panel_tokens(32, true, &p, x, k0, y0, ldy, rows);
            else if (t->sub == 32)
                panel_tokens(32, false, &p, x, k0, y0, ldy, rows);
            else if (t->bias)
                panel_tokens(16, true, &p, x, k0, y0, ldy, rows);
            else
                panel_tokens(16, false, &p, x, k0, y0, ldy, rows);
        }
    }
}
