/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_avx512.c - weights of others (GGUF blocks, AFFINE) with VNNI: panels of k_foreign.h, then as
 * with 8-bit packed matrices. Between panels the sums wait in y, as the rule R2 in one order allows. */
#include "kernels/avx512/k_avx512.h"

#include "kernels/k_foreign.h"

enum { N_MAX = 8 }; /* tokens of a block */

BLOCK __m512i quad(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm512_set1_epi32(v);
}

/* One run of SUB columns, N tokens from i0 on: acc goes on. k: its first column; s: the run of the panel. */
BLOCK void add_run(int SUB, bool biased, int N, const sq_panel *p, int32_t s, const sq_act *x, int32_t i0,
                   int32_t k, __m512 *acc) {
    const __m512i sign = _mm512_set1_epi8(-128);
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    const __m512 scale = _mm512_load_ps(p->scale[s]), bias = _mm512_load_ps(p->bias[s]);
    __m512i line[8];
    UNROLL
    for (int l = 0; l < SUB / 4; l++)
        line[l] = _mm512_xor_si512(_mm512_load_si512(p->line[s * (SUB / 4) + l]), sign);
    for (int i = 0; i < N; i++) {
        const int32_t sum = sq_panel_sum(x, i0 + i, k, SUB);
        const int8_t *q = x->q + (size_t)(i0 + i) * ld + (size_t)k;
        __m512i dot = _mm512_set1_epi32(-128 * sum);
        UNROLL
        for (int l = 0; l < SUB / 4; l++) dot = _mm512_dpbusd_epi32(dot, line[l], quad(q + 4 * l));
        const float sx = x->scale[(size_t)(i0 + i) * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
        acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(sx)), _mm512_cvtepi32_ps(dot), acc[i]);
        if (biased) acc[i] = _mm512_fmadd_ps(bias, _mm512_set1_ps(sx * (float)sum), acc[i]);
    }
}

/* The whole panel, N tokens. y0: the first token's output of the tile's first row. */
BLOCK void panel_block(int SUB, bool biased, int N, const sq_panel *p, const sq_act *x, int32_t i0,
                       int32_t k0, float *y0, size_t ldy, __mmask16 rows) {
    const int32_t left = x->groups * SQ_GROUP - k0, n = left < SQ_PANEL ? left : SQ_PANEL;
    __m512 acc[N_MAX];
    for (int i = 0; i < N; i++)
        acc[i] = k0 == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(rows, y0 + (size_t)i * ldy);
    for (int32_t s = 0; s < n / SUB; s++) add_run(SUB, biased, N, p, s, x, i0, k0 + s * SUB, acc);
    for (int i = 0; i < N; i++) _mm512_mask_storeu_ps(y0 + (size_t)i * ldy, rows, acc[i]);
}

BLOCK void panel_tokens(int SUB, bool biased, const sq_panel *p, const sq_act *x, int32_t k0, float *y,
                        size_t ldy, __mmask16 rows) {
    int32_t i = 0;
    for (; i + N_MAX <= x->m; i += N_MAX)
        panel_block(SUB, biased, N_MAX, p, x, i, k0, y + (size_t)i * ldy, ldy, rows);
    for (; i + 2 <= x->m; i += 2) panel_block(SUB, biased, 2, p, x, i, k0, y + (size_t)i * ldy, ldy, rows);
    if (i < x->m) panel_block(SUB, biased, 1, p, x, i, k0, y + (size_t)i * ldy, ldy, rows);
}

void sq_gemm_foreign__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                             size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    sq_panel p;
    for (int32_t tile = tile0; tile < tile1; tile++) {
        const __mmask16 rows = first_lanes(w->rows - tile * SQ_TILE_ROWS);
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
