/* SPDX-License-Identifier: Apache-2.0
 *
 * k_latent_avx512.c - attention over a chunk of latent tiles (R9).
 *
 * All heads of a token read the same row, so this is two small matrix products per tile: scores have channels
 * as lanes (8 rows by 2 tokens, or 4 by 4, in registers; four sums go down the tree at once), values too (8
 * rows by 2 registers of channels, or 4 by 4). A tile's f16 numbers are converted once for a block of rows.
 * 576 channels move 1,152 bytes a token, whatever the number of heads. */
#include "kernels/avx512/k_softmax_avx512.h"

enum { ROWS = 8 };

typedef struct {
    const sq_attn_args *a;
    int32_t row0, tile0, tile1;
    float p[ROWS][SQ_ATTN_CHUNK] __attribute__((aligned(64)));
} block;

/* Scores of R rows for T tokens from slot t of tile j; R T is 16 or less and a multiple of 4. */
BLOCK void scores(int R, int T, block *b, int32_t j, int32_t t) {
    const sq_attn_args *a = b->a;
    const size_t d = (size_t)a->d;
    const uint16_t *k = a->k[j] + (size_t)t * d;
    const float *q = a->q + (size_t)b->row0 * a->ldq;
    __m512 s[16];
    for (int i = 0; i < R * T; i++) s[i] = _mm512_setzero_ps();
    for (size_t c = 0; c < d; c += 16) {
        __m512 x[4];
        for (int u = 0; u < T; u++) x[u] = f16_load(k + (size_t)u * d + c);
        for (int r = 0; r < R; r++) {
            const __m512 qc = _mm512_loadu_ps(q + (size_t)r * a->ldq + c);
            for (int u = 0; u < T; u++) s[r * T + u] = _mm512_fmadd_ps(qc, x[u], s[r * T + u]);
        }
    }
    float out[16];
    for (int i = 0; i < R * T; i += 4) _mm_storeu_ps(out + i, lane_tree4(s[i], s[i + 1], s[i + 2], s[i + 3]));
    for (int r = 0; r < R; r++)
        for (int u = 0; u < T; u++) b->p[r][SQ_KV_TILE * j + t + u] = out[r * T + u];
}

/* o of R rows, channels [c, c + 16 C). */
BLOCK void values(int R, int C, const block *b, uint32_t live, int32_t c) {
    const sq_attn_args *a = b->a;
    const size_t d = (size_t)a->d;
    __m512 o[ROWS][4];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) o[r][n] = _mm512_setzero_ps();
    for (int32_t j = b->tile0; j < b->tile1; j++) {
        if (!(live >> j & 1)) continue;
        const uint16_t *v = a->k[j] + c;
        for (int32_t t = 0; t < SQ_KV_TILE; t++, v += d) {
            __m512 x[4];
            for (int n = 0; n < C; n++) x[n] = f16_load(v + 16 * n);
            for (int r = 0; r < R; r++) {
                const __m512 p = _mm512_set1_ps(b->p[r][SQ_KV_TILE * j + t]);
                for (int n = 0; n < C; n++) o[r][n] = _mm512_fmadd_ps(p, x[n], o[r][n]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++)
            _mm512_storeu_ps(a->o + (size_t)(b->row0 + r) * a->ldo + c + 16 * n,
                             _mm512_add_ps(o[r][n], _mm512_setzero_ps()));
}

BLOCK void rows_block(int R, int T, int C, block *b) {
    const sq_attn_args *a = b->a;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0;
    for (int32_t i = b->row0; i < b->row0 + R; i++) {
        if (a->lo[i] >= a->hi[i]) continue;
        if (a->lo[i] < lo) lo = a->lo[i];
        if (a->hi[i] > hi) hi = a->hi[i];
    }
    b->tile0 = lo / SQ_KV_TILE;
    b->tile1 = sq_div_up(hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    for (int32_t j = b->tile0; j < b->tile1; j++)
        for (int32_t t = 0; t < SQ_KV_TILE; t += T) scores(R, T, b, j, t);
    uint32_t live = 0;
    for (int r = 0; r < R; r++) live |= softmax_row(a, b->row0 + r, b->tile0, b->tile1, b->p[r]);
    int32_t c = 0;
    for (; c + 16 * C <= a->d_out; c += 16 * C) values(R, C, b, live, c);
    for (; c < a->d_out; c += 16) values(R, 1, b, live, c);
    b->row0 += R;
}

void sq_attn_latent__avx512(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        const int32_t left = a->n_q - b.row0;
        if (left >= 8)
            rows_block(8, 2, 2, &b);
        else if (left == 6)
            rows_block(6, 2, 4, &b);
        else if (left >= 4)
            rows_block(4, 4, 4, &b);
        else if (left >= 2)
            rows_block(2, 4, 4, &b);
        else
            rows_block(1, 4, 4, &b);
    }
}
