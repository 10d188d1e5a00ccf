/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_foreign_avx2.c - weights of others (GGUF blocks, AFFINE): panels of k_foreign.h times activations.
 * Codes below 64 are the unsigned operand of vpmaddubsw as they are, and few enough products of them fit 16
 * bits together; 8-bit codes go in as |w| times x with the sign of w. Between panels the sums wait in y. */
#include "k_math_avx2.h"

#define SQ_LANES 8
#define SQ_ZERO8 0u
typedef uint32_t sq_u32 __attribute__((vector_size(32)));
typedef int32_t sq_i32 __attribute__((vector_size(32)));
typedef float sq_f32 __attribute__((vector_size(32)));

/* Rows i and i + 4 share a register, so that rows become lanes without a step across 16 bytes. */
SQ_INLINE void sq_quads(const uint8_t *const p[2], size_t ld, size_t at, sq_u32 out[4]) {
    __m256i r[4];
    UNROLL
    for (size_t i = 0; i < 4; i++) {
        r[i] = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p[0] + i * ld + at)));
        r[i] = _mm256_inserti128_si256(r[i], _mm_loadu_si128((const __m128i *)(p[1] + i * ld + at)), 1);
    }
    const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpacklo_epi32(r[2], r[3]),
                  c = _mm256_unpackhi_epi32(r[0], r[1]), d = _mm256_unpackhi_epi32(r[2], r[3]);
    out[0] = (sq_u32)_mm256_unpacklo_epi64(a, b);
    out[1] = (sq_u32)_mm256_unpackhi_epi64(a, b);
    out[2] = (sq_u32)_mm256_unpacklo_epi64(c, d);
    out[3] = (sq_u32)_mm256_unpackhi_epi64(c, d);
}

SQ_INLINE sq_f32 sq_halves(sq_u32 v) {
    const __m256i low = (__m256i)(v & 0xffff), twice = _mm256_packus_epi32(low, low);
    return (sq_f32)_mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(twice, 0x08)));
}

#include "kernels/k_unpack.h"

enum { N_MAX = 4 }; /* tokens of a block: of 16 registers, 8 hold sums */

typedef struct {
    const sq_act *x;
    const sq_panel *p;
    int32_t zero, k0, runs, rows; /* rows: those of the tile that exist */
} panel;

SQ_INLINE __m256i quad(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

/* Four products of each lane, added in pairs. */
SQ_INLINE __m256i pairs(int fit, __m256i w, __m256i x) {
    if (fit == SQ_FIT_8) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* Run s of both halves of the rows, n tokens from i0 on: acc goes on. */
SQ_INLINE void add_run(int sub, bool biased, int fit, int n, const panel *c, int32_t s, int32_t i0,
                       __m256 acc[2][N_MAX]) {
    const __m256i one = _mm256_set1_epi16(1);
    const sq_act *x = c->x;
    const int32_t k = c->k0 + s * sub, lines = sub / 4, step = fit < lines ? fit : lines;
    const size_t ld = (size_t)x->groups * SQ_GROUP;
    for (int h = 0; h < 2; h++) {
        const __m256 scale = _mm256_load_ps(c->p->scale[s] + 8 * h),
                     bias = _mm256_load_ps(c->p->bias[s] + 8 * h);
        __m256i dot[N_MAX];
        for (int i = 0; i < n; i++) dot[i] = _mm256_set1_epi32(-c->zero * sq_panel_sum(x, i0 + i, k, sub));
        for (int l = 0; l < lines; l += step) {
            __m256i sum[N_MAX];
            for (int j = 0; j < step; j++) {
                const uint32_t *line = c->p->line[s * lines + l + j] + 8 * h;
                const __m256i v = _mm256_load_si256((const __m256i *)line);
                for (int i = 0; i < n; i++) {
                    const int8_t *q = x->q + (size_t)(i0 + i) * ld + (size_t)(k + 4 * (l + j));
                    const __m256i two = pairs(fit, v, quad(q));
                    sum[i] = j ? _mm256_add_epi16(sum[i], two) : two;
                }
            }
            for (int i = 0; i < n; i++) dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(sum[i], one));
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

/* The whole panel, n tokens. */
SQ_INLINE void block(int sub, bool biased, int fit, int n, const panel *c, int32_t i0, float *y0,
                     size_t ldy) {
    __m256 acc[2][N_MAX];
    for (int h = 0; h < 2; h++)
        for (int i = 0; i < n; i++)
            acc[h][i] = c->k0 == 0 || c->rows <= 8 * h
                            ? _mm256_setzero_ps()
                            : load_n(y0 + (size_t)i * ldy + 8 * h, c->rows - 8 * h);
    for (int32_t s = 0; s < c->runs; s++) add_run(sub, biased, fit, n, c, s, i0, acc);
    for (int h = 0; h < 2 && c->rows > 8 * h; h++)
        for (int i = 0; i < n; i++) store_n(y0 + (size_t)i * ldy + 8 * h, c->rows - 8 * h, acc[h][i]);
}

SQ_INLINE void tokens(int sub, bool biased, int fit, const panel *c, float *y, size_t ldy) {
    int32_t i = 0;
    for (; i + N_MAX <= c->x->m; i += N_MAX)
        block(sub, biased, fit, N_MAX, c, i, y + (size_t)i * ldy, ldy);
    for (; i < c->x->m; i++) block(sub, biased, fit, 1, c, i, y + (size_t)i * ldy, ldy);
}

SQ_INLINE void tokens_fit(int sub, bool biased, int32_t fit, const panel *c, float *y, size_t ldy) {
    if (fit == SQ_FIT_4)
        tokens(sub, biased, SQ_FIT_4, c, y, ldy);
    else if (fit == SQ_FIT_6)
        tokens(sub, biased, SQ_FIT_6, c, y, ldy);
    else
        tokens(sub, biased, SQ_FIT_8, c, y, ldy);
}

static void tokens_32_bias(int32_t fit, const panel *c, float *y, size_t ldy) {
    tokens_fit(32, true, fit, c, y, ldy);
}
static void tokens_32(int32_t fit, const panel *c, float *y, size_t ldy) {
    tokens_fit(32, false, fit, c, y, ldy);
}
/* Q2_K; and Q3_K and Q6_K. */
static void tokens_16_bias(const panel *c, float *y, size_t ldy) { tokens(16, true, SQ_FIT_4, c, y, ldy); }
static void tokens_16(const panel *c, float *y, size_t ldy) { tokens(16, false, SQ_FIT_6, c, y, ldy); }

void sq_gemm_foreign__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                           size_t ldy) {
    const sq_wtype_info *t = sq_wtype_get((sq_wtype)w->wtype);
    const int32_t fit = sq_panel_fit(w, t);
    sq_panel p;
    panel c = {.x = x, .p = &p, .zero = sq_panel_zero(w, SQ_ZERO8)};
    sq_first_fetch(w, tile0, 0);
    for (int32_t tile = tile0; tile < tile1; tile++) {
        float *y0 = y + (size_t)tile * SQ_TILE_ROWS;
        c.rows = w->rows - tile * SQ_TILE_ROWS;
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
