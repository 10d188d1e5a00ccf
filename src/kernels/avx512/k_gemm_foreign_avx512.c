/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_avx512.c - weights of others (GGUF blocks, AFFINE) with VNNI: panels of k_foreign.h, then as
 * with 8-bit packed matrices. Between panels the sums wait in y, as the rule R2 in one order allows. */
#define SQ_ZERO8 128u
#include "kernels/avx512/k_unpack_avx512.h"

enum { TILES = 2, N_MAX = 6 }; /* row tiles and tokens of a block */

/* A call as its blocks see it. */
typedef struct {
    const sq_act *x;
    const sq_panel *p[TILES];
    int32_t zero, k0, runs;
    __mmask16 rows[TILES];
} panels;

/* Run s of the panels, N tokens from i0 on: acc goes on. */
BLOCK void add_run(int SUB, bool biased, int N, const panels *c, int32_t s, int32_t i0,
                   __m512 acc[TILES][N_MAX]) {
    const sq_act *x = c->x;
    const int32_t k = c->k0 + s * SUB;
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    const int8_t *q = x->q + (size_t)i0 * ld + (size_t)k;
    __m512i dot[TILES][N_MAX];
    int32_t sum[N_MAX];
    for (int i = 0; i < N; i++) {
        sum[i] = sq_panel_sum(x, i0 + i, k, SUB);
        for (int t = 0; t < TILES; t++) dot[t][i] = _mm512_set1_epi32(-c->zero * sum[i]);
    }
    UNROLL
    for (int l = 0; l < SUB / 4; l++) {
        __m512i v[TILES];
        for (int t = 0; t < TILES; t++) v[t] = _mm512_load_si512(c->p[t]->line[s * (SUB / 4) + l]);
        for (int i = 0; i < N; i++) {
            const __m512i b = quad(q + (size_t)i * ld + 4 * l);
            for (int t = 0; t < TILES; t++) dot[t][i] = _mm512_dpbusd_epi32(dot[t][i], v[t], b);
        }
    }
    for (int i = 0; i < N; i++) {
        const float sx = x->scale[(size_t)(i0 + i) * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
        for (int t = 0; t < TILES; t++) {
            const __m512 f = _mm512_mul_ps(_mm512_load_ps(c->p[t]->scale[s]), _mm512_set1_ps(sx));
            acc[t][i] = _mm512_fmadd_ps(f, _mm512_cvtepi32_ps(dot[t][i]), acc[t][i]);
            if (biased)
                acc[t][i] = _mm512_fmadd_ps(_mm512_load_ps(c->p[t]->bias[s]),
                                            _mm512_set1_ps(sx * (float)sum[i]), acc[t][i]);
        }
    }
}

/* The whole panels, N tokens. y: the first token's output of the first tile's first row. */
BLOCK void block(int SUB, bool biased, int N, const panels *c, int32_t i0, float *y, size_t ldy) {
    __m512 acc[TILES][N_MAX];
    for (int i = 0; i < N; i++)
        for (int t = 0; t < TILES; t++)
            acc[t][i] = c->k0 ? _mm512_maskz_loadu_ps(c->rows[t], y + (size_t)i * ldy + t * SQ_TILE_ROWS)
                              : _mm512_setzero_ps();
    for (int32_t s = 0; s < c->runs; s++) add_run(SUB, biased, N, c, s, i0, acc);
    for (int i = 0; i < N; i++)
        for (int t = 0; t < TILES; t++)
            _mm512_mask_storeu_ps(y + (size_t)i * ldy + t * SQ_TILE_ROWS, c->rows[t], acc[t][i]);
}

BLOCK void all_tokens(int SUB, bool biased, const panels *c, float *y, size_t ldy) {
    int32_t i = 0;
    for (; i + N_MAX <= c->x->m; i += N_MAX) block(SUB, biased, N_MAX, c, i, y + (size_t)i * ldy, ldy);
    for (; i + 2 <= c->x->m; i += 2) block(SUB, biased, 2, c, i, y + (size_t)i * ldy, ldy);
    if (i < c->x->m) block(SUB, biased, 1, c, i, y + (size_t)i * ldy, ldy);
}

static void tokens_32_bias(const panels *c, float *y, size_t ldy) { all_tokens(32, true, c, y, ldy); }
static void tokens_32(const panels *c, float *y, size_t ldy) { all_tokens(32, false, c, y, ldy); }
static void tokens_16_bias(const panels *c, float *y, size_t ldy) { all_tokens(16, true, c, y, ldy); }
static void tokens_16(const panels *c, float *y, size_t ldy) { all_tokens(16, false, c, y, ldy); }

void sq_gemm_foreign__avx512(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                             size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    sq_panel p[TILES];
    panels c = {.x = x, .zero = sq_panel_zero(w, SQ_ZERO8)};
    for (int32_t j = tile0; j < tile1 && j < tile0 + TILES; j++) sq_first_fetch(w, j, 0);
    for (int32_t tile = tile0; tile < tile1; tile += TILES) {
        float *y0 = y + (size_t)tile * SQ_TILE_ROWS;
        for (int j = 0; j < TILES; j++) { /* a tile too many is the first once more, and not stored */
            c.p[j] = tile + j < tile1 ? &p[j] : p;
            c.rows[j] = tile + j < tile1 ? first_lanes(w->rows - (tile + j) * SQ_TILE_ROWS) : 0;
        }
        for (c.k0 = 0; c.k0 < w->cols; c.k0 += SQ_PANEL) {
            const int32_t left = x->groups * SQ_GROUP - c.k0;
            c.runs = (left < SQ_PANEL ? left : SQ_PANEL) / t->sub;
            for (int32_t j = tile; j < tile1 && j < tile + TILES; j++) {
                if (tile == tile0) sq_first_fetch(w, j, c.k0 + SQ_PANEL);
                sq_panel_load(w, t, j, j + TILES < tile1 ? TILES : 0, c.k0, &p[j - tile]);
            }
            if (t->sub == 32 && t->bias)
                tokens_32_bias(&c, y0, ldy);
            else if (t->sub == 32)
                tokens_32(&c, y0, ldy);
            else if (t->bias)
                tokens_16_bias(&c, y0, ldy);
            else
                tokens_16(&c, y0, ldy);
        }
    }
}
