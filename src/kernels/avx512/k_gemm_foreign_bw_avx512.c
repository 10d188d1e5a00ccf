/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_bw_avx512.c - weights of others (GGUF blocks, AFFINE) with AVX-512BW and no VNNI: panels of
 * k_foreign.h times activations. Codes below 64 are the unsigned operand of vpmaddubsw as they are, and few
 * enough products of them fit 16 bits together; 8-bit codes go in as |w| times x with the sign of w. Between
 * panels the sums wait in y, as the rule R2 in one order allows. */
#define SQ_ZERO8 0u
#include "kernels/avx512/k_unpack_avx512.h"

enum { N_MAX = 8 }; /* tokens of a block */

typedef struct {
    const sq_act *x;
    const sq_panel *p;
    int32_t zero, k0, runs;
    __mmask16 rows; /* those of the tile that exist */
} panel;

/* Run s, N tokens from i0 on: acc goes on. */
BLOCK void add_run(int SUB, bool biased, int fit, int N, const panel *c, int32_t s, int32_t i0,
                   __m512 acc[N_MAX]) {
    const int LINES = SUB / 4, step = fit < LINES ? fit : LINES;
    const sq_act *x = c->x;
    const int32_t k = c->k0 + s * SUB;
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    __m512i dot[N_MAX];
    int32_t sum[N_MAX];
    for (int i = 0; i < N; i++) {
        sum[i] = sq_panel_sum(x, i0 + i, k, SUB);
        dot[i] = _mm512_set1_epi32(-c->zero * sum[i]);
    }
    UNROLL
    for (int l = 0; l < LINES; l += step) {
        __m512i v[SQ_FIT_4];
        __mmask64 below = 0;
        UNROLL
        for (int j = 0; j < step; j++) v[j] = _mm512_load_si512(c->p->line[s * LINES + l + j]);
        if (fit == SQ_FIT_8) below = _mm512_movepi8_mask(v[0]), v[0] = _mm512_abs_epi8(v[0]);
        for (int i = 0; i < N; i++) {
            const int8_t *q = x->q + (size_t)(i0 + i) * ld + (size_t)k + 4 * l;
            __m512i b = quad(q);
            if (fit == SQ_FIT_8) b = _mm512_mask_sub_epi8(b, below, _mm512_setzero_si512(), b);
            __m512i pairs = _mm512_maddubs_epi16(v[0], b);
            UNROLL
            for (int j = 1; j < step; j++)
                pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(v[j], quad(q + 4 * j)));
            dot[i] = _mm512_add_epi32(dot[i], _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
        }
    }
    const __m512 scale = _mm512_load_ps(c->p->scale[s]), bias = _mm512_load_ps(c->p->bias[s]);
    for (int i = 0; i < N; i++) {
        const float sx = x->scale[(size_t)(i0 + i) * (size_t)x->groups + (size_t)(k / SQ_GROUP)];
        acc[i] =
            _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(sx)), _mm512_cvtepi32_ps(dot[i]), acc[i]);
        if (biased) acc[i] = _mm512_fmadd_ps(bias, _mm512_set1_ps(sx * (float)sum[i]), acc[i]);
    }
}

/* The whole panel, N tokens. y: the first token's output of the tile's first row. */
BLOCK void block(int SUB, bool biased, int fit, int N, const panel *c, int32_t i0, float *y, size_t ldy) {
    __m512 acc[N_MAX];
    for (int i = 0; i < N; i++)
        acc[i] = c->k0 ? _mm512_maskz_loadu_ps(c->rows, y + (size_t)i * ldy) : _mm512_setzero_ps();
    for (int32_t s = 0; s < c->runs; s++) add_run(SUB, biased, fit, N, c, s, i0, acc);
    for (int i = 0; i < N; i++) _mm512_mask_storeu_ps(y + (size_t)i * ldy, c->rows, acc[i]);
}

BLOCK void all_tokens(int SUB, bool biased, int fit, const panel *c, float *y, size_t ldy) {
    int32_t i = 0;
    for (; i + N_MAX <= c->x->m; i += N_MAX) block(SUB, biased, fit, N_MAX, c, i, y + (size_t)i * ldy, ldy);
    for (; i + 2 <= c->x->m; i += 2) block(SUB, biased, fit, 2, c, i, y + (size_t)i * ldy, ldy);
    if (i < c->x->m) block(SUB, biased, fit, 1, c, i, y + (size_t)i * ldy, ldy);
}

BLOCK void tokens_fit(bool biased, int32_t fit, const panel *c, float *y, size_t ldy) {
    if (fit == SQ_FIT_4)
        all_tokens(32, biased, SQ_FIT_4, c, y, ldy);
    else if (fit == SQ_FIT_6)
        all_tokens(32, biased, SQ_FIT_6, c, y, ldy);
    else
        all_tokens(32, biased, SQ_FIT_8, c, y, ldy);
}

static void tokens_32_bias(int32_t fit, const panel *c, float *y, size_t ldy) {
    tokens_fit(true, fit, c, y, ldy);
}
static void tokens_32(int32_t fit, const panel *c, float *y, size_t ldy) {
    tokens_fit(false, fit, c, y, ldy);
}
/* Q2_K; and Q3_K and Q6_K. */
static void tokens_16_bias(const panel *c, float *y, size_t ldy) {
    all_tokens(16, true, SQ_FIT_4, c, y, ldy);
}
static void tokens_16(const panel *c, float *y, size_t ldy) { all_tokens(16, false, SQ_FIT_6, c, y, ldy); }

void sq_gemm_foreign__avx512bw(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                               size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const int32_t fit = sq_panel_fit(w, t);
    sq_panel p;
    panel c = {.x = x, .p = &p, .zero = sq_panel_zero(w, SQ_ZERO8)};
    sq_first_fetch(w, tile0, 0);
    for (int32_t tile = tile0; tile < tile1; tile++) {
        float *y0 = y + (size_t)tile * SQ_TILE_ROWS;
        c.rows = first_lanes(w->rows - tile * SQ_TILE_ROWS);
        for (c.k0 = 0; c.k0 < w->cols; c.k0 += SQ_PANEL) {
            const int32_t left = x->groups * SQ_GROUP - c.k0;
            c.runs = (left < SQ_PANEL ? left : SQ_PANEL) / t->sub;
            if (tile == tile0) sq_first_fetch(w, tile, c.k0 + SQ_PANEL);
            sq_panel_load(w, t, tile, tile + 1 < tile1, c.k0, &p);
            if (t->sub == 32 && t->bias)
                tokens_32_bias(fit, &c, y0, ldy);
            else if (t->sub == 32)
                tokens_32(fit, &c, y0, ldy);
            else if (t->bias)
                tokens_16_bias(&c, y0, ldy);
            else
                tokens_16(&c, y0, ldy);
        }
    }
}
