/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mla_int.h - what the two ways of latent attention share. */
#ifndef SQ_BE_MLA_INT_H
#define SQ_BE_MLA_INT_H

#include "backend/be_int.h"
#include "backend/be_mla.h"

/* Channels of expanded heads: keys and values in tiles of one width. */
static inline int32_t sq_mla_head_dim(const sq_mla_shape *s) {
    const int32_t k = s->nope + s->rope, widest = k > s->v ? k : s->v;
    return (int32_t)sq_align_up((size_t)widest, 16);
}

/* (be_mla_expand.c) Attention of a segment whose rows are of a prompt. */
void sq_mla_expand(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *seg, const sq_rows *q,
                   sq_mla_rows *r, sq_rows *out);

#endif
