/* SPDX-License-Identifier: Apache-2.0
 *
 * be_lowrank.c - low-rank terms beside matrices: y += scale * U (V x), for error compensators (MiLo,
 * arXiv:2504.02658) and adapters (LoRA, arXiv:2106.09685).
 *
 *   before the tiles of a call:  t = V x of every term, [m][rank to 64], side by side in one block
 *   in the epilogue of a tile:   y += scale * (U's rows of the tile) t
 *
 * Both halves are the row-major kernels on f32 activations, whose sums have one order, so results do not
 * depend on the number of rows or threads. Matrices without terms never come here. */
#include "backend/be_int.h"

#include <string.h>

static size_t ld_of(const sq_lowrank *l) { return sq_align_up((size_t)l->v.rows, SQ_GROUP); }

size_t sq_be_lowrank_floats(const sq_weight *w, int32_t m) {
    size_t n = 0;
    for (const sq_lowrank *l = w->low; l; l = l->next) n += (size_t)m * ld_of(l);
    return n;
}

typedef struct {
    sq_backend *b;
    const sq_act *x;
    const sq_lowrank *l;
    float *t;
} term_ctx;

static void term_item(void *ctx, int32_t tile, int32_t thread) {
    (void)thread;
    const term_ctx *c = ctx;
    const sq_weight *v = &c->l->v;
    sq_kernels_gemm(&c->b->k, (sq_wtype)v->wtype)(v, tile, tile + 1, c->x, c->t, ld_of(c->l));
}

void sq_be_lowrank_down(sq_backend *b, const sq_weight *w, const sq_act *x, float *t) {
    for (const sq_lowrank *l = w->low; l; l = l->next) {
        const size_t ld = ld_of(l), rank = (size_t)l->v.rows;
        term_ctx c = {b, x, l, t};
        for (int32_t i = 0; i < x->m; i++) memset(t + (size_t)i * ld + rank, 0, (ld - rank) * sizeof(float));
        sq_be_run(b, term_item, &c, sq_weight_tiles(&l->v), (int64_t)l->v.rows * l->v.cols * x->m);
        t += (size_t)x->m * ld;
    }
}

void sq_be_lowrank_up(const sq_backend *b, const sq_weight *w, int32_t tile0, int32_t n_tiles, int32_t m,
                      const float *t, float *tmp, float *y, size_t ldy) {
    for (const sq_lowrank *l = w->low; l; l = l->next) {
        const sq_weight u = sq_weight_slice(&l->u, tile0, n_tiles);
        const sq_act x = {.m = m, .cols = u.cols, .groups = (int32_t)(ld_of(l) / SQ_GROUP), .f = t};
        const size_t ld = (size_t)n_tiles * SQ_TILE_ROWS;
        sq_kernels_gemm(&b->k, (sq_wtype)u.wtype)(&u, 0, sq_weight_tiles(&u), &x, tmp, ld);
        for (int32_t i = 0; i < m; i++)
            for (int32_t r = 0; r < u.rows; r++)
                y[(size_t)i * ldy + (size_t)r] += l->scale * tmp[(size_t)i * ld + (size_t)r];
        t += (size_t)m * ld_of(l);
    }
}
