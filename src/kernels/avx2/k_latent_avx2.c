/* SPDX-License-Identifier: Apache-2.0
 *
 * k_latent_avx2.c - attention over a chunk of latent tiles (R9): two query rows by two tokens, sixteen lanes
 * as two registers; values of two rows by 32 channels. */
#include "k_softmax_avx2.h"

enum { ROWS = 2, TOKENS = 2, CHANNELS = 4 };

typedef struct {
    const sq_attn_args *a;
    int32_t row0;
    extent e;
    float p[ROWS][SQ_ATTN_CHUNK];
} block;

SQ_INLINE void scores(int R, block *b, int32_t j, int32_t t) {
    const sq_attn_args *a = b->a;
    const size_t d = (size_t)a->d;
    const uint16_t *k = a->k[j] + (size_t)t * d;
    const float *q = a->q + (size_t)b->row0 * a->ldq;
    __m256 s[ROWS][TOKENS][2];
    for (int r = 0; r < R; r++)
        for (int u = 0; u < TOKENS; u++) s[r][u][0] = s[r][u][1] = _mm256_setzero_ps();
    for (size_t c = 0; c < d; c += 16)
        for (int h = 0; h < 2; h++) {
            __m256 x[TOKENS];
            for (int u = 0; u < TOKENS; u++) x[u] = load8_f16(k + (size_t)u * d + c + 8 * (size_t)h);
            for (int r = 0; r < R; r++) {
                const __m256 qc = load8_f32(q + (size_t)r * a->ldq + c + 8 * (size_t)h);
                for (int u = 0; u < TOKENS; u++) s[r][u][h] = _mm256_fmadd_ps(qc, x[u], s[r][u][h]);
            }
        }
    for (int r = 0; r < R; r++)
        for (int u = 0; u < TOKENS; u++) b->p[r][SQ_KV_TILE * j + t + u] = lane_tree(s[r][u][0], s[r][u][1]);
}

/* o of R rows, channels [c, c + 8 C). */
SQ_INLINE void values(int R, int C, const block *b, uint32_t live, int32_t c) {
    const sq_attn_args *a = b->a;
    __m256 o[ROWS][CHANNELS];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++) o[r][n] = _mm256_setzero_ps();
    for (int32_t j = b->e.tile0; j < b->e.tile1; j++) {
        if (!(live >> j & 1)) continue;
        const uint16_t *v = a->k[j] + c;
        for (int32_t t = 0; t < SQ_KV_TILE; t++, v += a->d) {
            __m256 x[CHANNELS];
            for (int n = 0; n < C; n++) x[n] = load8_f16(v + 8 * n);
            for (int r = 0; r < R; r++) {
                const __m256 p = _mm256_set1_ps(b->p[r][SQ_KV_TILE * j + t]);
                for (int n = 0; n < C; n++) o[r][n] = _mm256_fmadd_ps(p, x[n], o[r][n]);
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < C; n++)
            _mm256_storeu_ps(a->o + (size_t)(b->row0 + r) * a->ldo + c + 8 * n,
                             _mm256_add_ps(o[r][n], _mm256_setzero_ps()));
}

SQ_INLINE void rows_block(int R, block *b) {
    const sq_attn_args *a = b->a;
    uint32_t live = 0;
    b->e = extent_of(a, b->row0, R);
    for (int32_t j = b->e.tile0; j < b->e.tile1; j++)
        for (int32_t t = 0; t < SQ_KV_TILE; t += TOKENS) scores(R, b, j, t);
    for (int r = 0; r < R; r++) live |= softmax_row(a, b->row0 + r, b->e.tile0, b->e.tile1, b->p[r]);
    int32_t c = 0;
    for (; c + 8 * CHANNELS <= a->d_out; c += 8 * CHANNELS) values(R, CHANNELS, b, live, c);
    for (; c < a->d_out; c += 8) values(R, 1, b, live, c);
    b->row0 += R;
}

void sq_attn_latent__avx2(const sq_attn_args *a) {
    block b = {.a = a};
    while (b.row0 < a->n_q) {
        if (a->n_q - b.row0 >= 2)
            rows_block(2, &b);
        else
            rows_block(1, &b);
    }
}
