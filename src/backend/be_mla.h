/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mla.h - latent attention (DeepSeek-V2, arXiv:2405.04434): a token is cached as one latent row c [rank]
 * and one rotated key kr [rope] that all heads share. Part of the interface of backend.h.
 *
 * Two ways lead to the same attention, and which a row takes depends on the row alone:
 *
 *   absorbed   q.k = (K_h q) . c: the projection of keys goes into the query, that of values into the output;
 *              all heads read the same latent rows. For tokens that were drawn: little is read.
 *   expanded   keys and values of every head are made from the latent rows, 256 positions at a time, and
 *              attended as usual. For rows of prompts: fewer operations where many rows share them. */
#ifndef SQ_BE_MLA_H
#define SQ_BE_MLA_H

#include "backend/backend.h"

/* Tiles are token-major [32][rank + rope to 16], f16 or f32. rank, nope and v are multiples of 16. */
typedef struct {
    int32_t n_heads, nope, rope, v, rank;
    float scale; /* softmax scale, multiplied into q */
    bool kv_f32;
    const float *norm; /* [rank], of latent rows */
    float norm_eps;
    const float *cos, *sin; /* [m][rope / 2] of the step's rows; neighbours are rotated */
    size_t k_off;           /* of the tile in a page */
    const sq_weight *k_b;   /* [heads * rank, nope]: of each head the projection of keys, transposed */
    const sq_weight *kv_b;  /* [heads * (nope + v), rank]: of each head keys, then values */
} sq_mla_shape;

static inline int32_t sq_mla_width(int32_t rank, int32_t rope) {
    return rank + (int32_t)sq_align_up((size_t)rope, 16);
}

/* Scratch of a step; row h * m + i of by-head rows is row i of head h. */
typedef struct {
    sq_rows qn, y;      /* [heads * m][nope], [heads * m][rank] */
    sq_rows latent, kv; /* [256][rank], [256][heads * (nope + v)]: a chunk of the past */
    float *qa;          /* [heads * m][width]: absorbed queries */
    uint16_t *tiles;    /* [heads][8][2][32 * d] of a chunk, f16 or f32 */
    float *run;         /* [m][heads][d + 16]: o, m, l of rows that go through the chunks */
    int32_t m_max;
} sq_mla_rows;

size_t sq_mla_rows_bytes(const sq_mla_shape *s, int32_t m_max);
void sq_mla_rows_carve(sq_mla_rows *r, const sq_mla_shape *s, int32_t m_max, void *memory);

/* Normalise and rotate: q [m][heads * (nope + rope)] in place, c and kr of kva [m][rank + rope] into the
 * pages of their sequences. */
void sq_be_mla_prepare(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                       sq_rows *q, const sq_rows *kva);
/* out[i] = attention of row i over its sequence's pages [heads * v]; q as prepare left it. Segments of
 * prompts are expanded, others absorbed. Quantised if asked. */
void sq_be_mla_attend(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                      const sq_rows *q, bool quantise, sq_mla_rows *r, sq_rows *out);

#endif
