/* SPDX-License-Identifier: Apache-2.0
 *
 * be_linear.c - matrices on the CPU: weights are streamed once, all rows of the step meet each tile while it
 * is in cache.
 *
 * An item is a run of row tiles of one matrix for all M rows, so one kernel serves decode (M = 1, bound by
 * memory) and prefill (M large, bound by arithmetic): there is no second path that could differ. */
#include "backend/be_int.h"

#include <string.h>

enum {
    MATRICES_MAX = 4,
    GROUP_TILES = SQ_GROUP / SQ_TILE_ROWS,
    FEW = 16,             /* rows up to which weights stream from memory faster than they are used */
    FEW_BYTES = 64 << 10, /* of weights in an item then: whoever ends first waits for the rest of one */
    ITEM_TILES = 128, /* tiles times rows of an item: 8 KiB of outputs, which stay in the first cache level */
    GATED_STEP = 4 /* groups of an item of a gate then: its two streams take turns, and a turn must be long */
};

/* Tiles of an item of matrix w, which is part of an operation on `tiles`, for m rows. Neighbouring items are
 * mostly one thread's (sq_pool_run), which streams on from one into the next: few rows need no long ones. */
static int32_t item_tiles(const sq_backend *b, const sq_weight *w, int32_t tiles, int32_t m) {
    const int32_t few = (int32_t)(FEW_BYTES / w->tile_bytes), many = ITEM_TILES / m > 4 ? ITEM_TILES / m : 4;
    const int32_t fit = b->opt.m_max * SQ_GROUP / m / SQ_TILE_ROWS; /* a thread's scratch holds the outputs */
    int32_t step = sq_div_up(tiles, b->opt.threads * 8);
    if (step > (m <= FEW ? few : many)) step = m <= FEW ? few : many;
    return step < fit ? step : fit;
}

typedef struct {
    sq_backend *b;
    sq_act x;
    const sq_linear *l;
    int32_t n;
    sq_be_split split[MATRICES_MAX]; /* of the matrix's tiles */
    int32_t first_item[MATRICES_MAX + 1];
    const float *low[MATRICES_MAX]; /* V x of the matrix's low-rank terms */
} linear_ctx;

static void add_bias(float *y, size_t ldy, int32_t m, const float *bias, int32_t rows) {
    for (int32_t i = 0; i < m; i++)
        for (int32_t r = 0; r < rows; r++) y[(size_t)i * ldy + (size_t)r] += bias[r];
}

static void linear_item(void *ctx, int32_t item, int32_t thread) {
    const linear_ctx *c = ctx;
    int32_t k = 0;
    while (item >= c->first_item[k + 1]) k++;
    const sq_linear *l = &c->l[k];
    int32_t tiles;
    const int32_t tile0 = sq_be_split_at(&c->split[k], item - c->first_item[k], &tiles),
                  row0 = tile0 * SQ_TILE_ROWS;
    const sq_weight w = sq_weight_slice(l->w, tile0, tiles);
    sq_gemm_fn *gemm = sq_kernels_gemm(&c->b->k, (sq_wtype)w.wtype);
    const size_t ld_out = sq_rows_ld(l->y);
    float *out = l->y->f + row0;
    float *y = out;
    size_t ldy = ld_out;
    if (l->accumulate) {
        y = c->b->scratch[thread].tile;
        ldy = (size_t)tiles * SQ_TILE_ROWS;
    }
    gemm(&w, 0, tiles, &c->x, y, ldy);
    if (l->w->low)
        sq_be_lowrank_up(c->b, l->w, tile0, tiles, c->x.m, c->low[k], c->b->scratch[thread].tile3, y, ldy);
    if (l->bias) add_bias(y, ldy, c->x.m, l->bias + row0, w.rows);
    if (l->accumulate)
        for (int32_t i = 0; i < c->x.m; i++)
            c->b->k.add(out + (size_t)i * ld_out, y + (size_t)i * ldy, w.rows);
}

void sq_be_linear(sq_backend *b, const sq_rows *x, const sq_linear *l, int32_t n) {
    linear_ctx c = {.b = b, .x = sq_be_act(x), .l = l, .n = n};
    int32_t tiles = 0;
    int64_t work = 0;
    float *low = b->low;
    for (int32_t k = 0; k < n; k++) {
        if (l[k].w->low) {
            c.low[k] = low;
            sq_be_lowrank_down(b, l[k].w, &c.x, low);
            low += sq_be_lowrank_floats(l[k].w, x->m);
        }
        tiles += sq_weight_tiles(l[k].w);
        work += (int64_t)l[k].w->rows * l[k].w->cols * x->m;
    }
    for (int32_t k = 0; k < n; k++) {
        c.split[k] = sq_be_split_of(sq_weight_tiles(l[k].w), item_tiles(b, l[k].w, tiles, x->m));
        c.first_item[k + 1] = c.first_item[k] + c.split[k].items;
    }
    sq_be_run(b, linear_item, &c, c.first_item[n], work);
    for (int32_t k = 0; k < n; k++) {
        l[k].y->m = x->m;
        l[k].y->quantised = false;
    }
}

/* ---- the gated half of a feed-forward block -------------------------------------------------- */

typedef struct {
    sq_backend *b;
    sq_act x;
    const sq_weight *wg, *wu;
    const float *bg, *bu;
    sq_glu_fn *act;
    bool quantise;
    sq_rows *h;
    const float *low_g, *low_u;
    sq_be_split split; /* of the groups of h */
} gated_ctx;

/* Some groups of 64 outputs: both matrices, the gate, and the groups' quantisation, while everything is in
 * cache. */
static void gated_item(void *ctx, int32_t item, int32_t thread) {
    const gated_ctx *c = ctx;
    sq_rows *h = c->h;
    int32_t n;
    const int32_t group0 = sq_be_split_at(&c->split, item, &n);
    const int32_t tile0 = group0 * GROUP_TILES, tiles = n * GROUP_TILES, m = c->x.m, col0 = group0 * SQ_GROUP;
    const size_t ld = (size_t)n * SQ_GROUP;
    float *g = c->b->scratch[thread].tile, *u = c->b->scratch[thread].tile2;
    const sq_weight wg = sq_weight_slice(c->wg, tile0, tiles), wu = sq_weight_slice(c->wu, tile0, tiles);
    sq_kernels_gemm(&c->b->k, (sq_wtype)wg.wtype)(&wg, 0, sq_weight_tiles(&wg), &c->x, g, ld);
    sq_kernels_gemm(&c->b->k, (sq_wtype)wu.wtype)(&wu, 0, sq_weight_tiles(&wu), &c->x, u, ld);
    float *tmp = c->b->scratch[thread].tile3;
    if (c->wg->low) sq_be_lowrank_up(c->b, c->wg, tile0, tiles, m, c->low_g, tmp, g, ld);
    if (c->wu->low) sq_be_lowrank_up(c->b, c->wu, tile0, tiles, m, c->low_u, tmp, u, ld);
    if (c->bg) add_bias(g, ld, m, c->bg + col0, wg.rows);
    if (c->bu) add_bias(u, ld, m, c->bu + col0, wu.rows);
    for (int32_t i = 0; i < m; i++) {
        const size_t at = (size_t)i * sq_rows_ld(h), side = (size_t)i * (size_t)h->groups + (size_t)group0;
        float *gi = g + (size_t)i * ld;
        c->act(gi, u + (size_t)i * ld, wg.rows, gi);
        memcpy(h->f + at + col0, gi, (size_t)wg.rows * sizeof *gi);
        if (!c->quantise) continue;
        /* From what is still in the first cache: rows of h lie pages apart. */
        memset(gi + wg.rows, 0, (ld - (size_t)wg.rows) * sizeof *gi);
        c->b->k.quant_q8g64(gi, 0, n, h->q + at + col0, h->scale + side, h->xsum + side, h->isum + side,
                            h->isum16 + 4 * side);
    }
}

sq_glu_fn *sq_be_glu(const sq_backend *b, sq_activation act) {
    switch (act) {
    case SQ_ACT_SILU: return b->k.silu_mul;
    case SQ_ACT_RELU2: return b->k.relu2_mul;
    default: return b->k.gelu_mul;
    }
}

void sq_be_gated(sq_backend *b, const sq_rows *x, const sq_weight *wg, const float *gate_bias,
                 const sq_weight *wu, const float *up_bias, sq_activation act, bool quantise, sq_rows *h) {
    float *low_u = b->low ? b->low + sq_be_lowrank_floats(wg, x->m) : NULL;
    gated_ctx c = {b, sq_be_act(x), wg,    wu, gate_bias, up_bias, sq_be_glu(b, act), quantise,
                   h, b->low,       low_u, {0}};
    if (wg->low) sq_be_lowrank_down(b, wg, &c.x, b->low);
    if (wu->low) sq_be_lowrank_down(b, wu, &c.x, low_u);
    h->m = x->m;
    const int32_t most =
        x->m <= FEW ? GATED_STEP : item_tiles(b, wg, sq_weight_tiles(wg), x->m) / GROUP_TILES;
    const int32_t fit = b->opt.m_max / x->m;
    c.split = sq_be_split_of(h->groups, most < fit ? most : fit);
    sq_be_run(b, gated_item, &c, c.split.items, 2 * (int64_t)wg->rows * wg->cols * x->m);
    h->quantised = quantise;
}
