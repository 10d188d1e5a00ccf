/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mla_expand.c - latent attention of prompts: 256 positions at a time become keys and values of all heads,
 * and all rows of the segment attend to them.
 *
 *   latent rows [256][rank] --kv_b--> [256][heads][nope | v] --+ kr--> tiles of each head --> (m, l, o) of
 * each row
 *
 * Chunks come in rising order and each row keeps what it folded so far, so where a prompt is cut does not
 * show. */
#include "backend/be_mla_int.h"

#include <math.h>
#include <string.h>

typedef struct {
    sq_backend *b;
    const sq_mla_shape *s;
    const sq_attn_seg *seg;
    const sq_rows *q;
    sq_mla_rows *r;
    sq_rows *out;
    int32_t chunk, n; /* positions of it that are there */
    int32_t d, step;  /* width of expanded heads; tokens of an item */
} expand_ctx;

static size_t element(const expand_ctx *c) { return c->s->kv_f32 ? sizeof(float) : sizeof(uint16_t); }

/* Position t of the chunk, decoded: [width]. */
static void read_row(const expand_ctx *c, int32_t t, float *to) {
    const sq_mla_shape *s = c->s;
    const int32_t width = sq_mla_width(s->rank, s->rope), tile = c->chunk * SQ_ATTN_TILES + t / SQ_KV_TILE;
    const uint8_t *p = c->seg->pages[tile] + s->k_off + (size_t)(t % SQ_KV_TILE) * (size_t)width * element(c);
    sq_row_to_f32(s->kv_f32 ? SQ_W_F32 : SQ_W_F16, p, width, to);
}

static void latent_item(void *ctx, int32_t t, int32_t thread) {
    (void)thread;
    const expand_ctx *c = ctx;
    sq_rows *x = &c->r->latent;
    float row[SQ_LATENT_D_MAX];
    const size_t at = (size_t)t * sq_rows_ld(x), g = (size_t)t * (size_t)x->groups;
    read_row(c, t, row);
    memcpy(x->f + at, row, (size_t)c->s->rank * sizeof *row);
    if (x->quantised)
        c->b->k.quant_q8g64(x->f + at, 0, x->groups, x->q + at, x->scale + g, x->xsum + g, x->isum + g,
                            x->isum16 + 4 * g);
}

/* Tile j of a head: its keys, then its values. */
static uint16_t *tile_of(const expand_ctx *c, int32_t head, int32_t j, bool values) {
    const size_t bytes = (size_t)SQ_KV_TILE * (size_t)c->d * element(c);
    const size_t at = (((size_t)head * SQ_ATTN_TILES + (size_t)j) * 2 + values) * bytes;
    return (uint16_t *)(void *)((char *)c->r->tiles + at);
}

/* One position, all heads. */
static void tile_item(void *ctx, int32_t t, int32_t thread) {
    (void)thread;
    const expand_ctx *c = ctx;
    const sq_mla_shape *s = c->s;
    float row[SQ_LATENT_D_MAX], k[SQ_ATTN_D_MAX] = {0}, v[SQ_ATTN_D_MAX] = {0};
    read_row(c, t, row);
    memcpy(k + s->nope, row + s->rank, (size_t)s->rope * sizeof *k);
    const float *kv = c->r->kv.f + (size_t)t * sq_rows_ld(&c->r->kv);
    for (int32_t h = 0; h < s->n_heads; h++, kv += s->nope + s->v) {
        memcpy(k, kv, (size_t)s->nope * sizeof *k);
        memcpy(v, kv + s->nope, (size_t)s->v * sizeof *v);
        (s->kv_f32 ? c->b->k.kv_put_f32 : c->b->k.kv_put_f16)(k, v, c->d, t % SQ_KV_TILE,
                                                              tile_of(c, h, t / SQ_KV_TILE, false),
                                                              tile_of(c, h, t / SQ_KV_TILE, true));
    }
}

static float *run_of(const expand_ctx *c, int32_t tok, int32_t head) {
    const size_t row = (size_t)(c->seg->row0 + tok) * (size_t)c->s->n_heads + (size_t)head;
    return c->r->run + row * ((size_t)c->d + 16);
}

/* Some tokens of one head. */
static void attend_item(void *ctx, int32_t item, int32_t thread) {
    const expand_ctx *c = ctx;
    const sq_mla_shape *s = c->s;
    sq_be_scratch *t = &c->b->scratch[thread];
    const int32_t head = item % s->n_heads, tok0 = item / s->n_heads * c->step;
    const int32_t left = c->seg->n_rows - tok0, n = left < c->step ? left : c->step;
    const int32_t qd = s->nope + s->rope, start = c->chunk * SQ_ATTN_CHUNK;
    const uint16_t *k[SQ_ATTN_TILES] = {0}, *v[SQ_ATTN_TILES] = {0};
    for (int32_t i = 0; i < n; i++) {
        const float *q = c->q->f + (size_t)(c->seg->row0 + tok0 + i) * sq_rows_ld(c->q);
        const int32_t hi = c->seg->pos0 + tok0 + i + 1 - start;
        float *to = t->q + (size_t)i * (size_t)c->d;
        memcpy(to, q + (size_t)head * (size_t)qd, (size_t)qd * sizeof *q);
        memset(to + qd, 0, (size_t)(c->d - qd) * sizeof *to);
        t->lo[i] = 0;
        t->hi[i] = hi < 0 ? 0 : hi > SQ_ATTN_CHUNK ? SQ_ATTN_CHUNK : hi;
    }
    for (int32_t j = 0; j * SQ_KV_TILE < t->hi[n - 1]; j++)
        k[j] = tile_of(c, head, j, false), v[j] = tile_of(c, head, j, true);
    if (t->hi[n - 1] == 0) return;
    const sq_attn_args a = {.q = t->q,
                            .ldq = (size_t)c->d,
                            .n_q = n,
                            .d = c->d,
                            .k = k,
                            .v = v,
                            .lo = t->lo,
                            .hi = t->hi,
                            .m = t->mc,
                            .l = t->lc,
                            .o = t->oc,
                            .ldo = (size_t)c->d};
    (s->kv_f32 ? c->b->k.attn_f32 : c->b->k.attn_f16)(&a);
    for (int32_t i = 0; i < n; i++) {
        float *run = run_of(c, tok0 + i, head);
        c->b->k.attn_merge(&run[c->d], &run[c->d + 1], run, t->mc[i], t->lc[i],
                           t->oc + (size_t)i * (size_t)c->d, c->d);
    }
}

static void begin_item(void *ctx, int32_t tok, int32_t thread) {
    (void)thread;
    const expand_ctx *c = ctx;
    for (int32_t h = 0; h < c->s->n_heads; h++) {
        float *run = run_of(c, tok, h);
        memset(run, 0, ((size_t)c->d + 16) * sizeof *run);
        run[c->d] = -INFINITY;
    }
}

static void end_item(void *ctx, int32_t tok, int32_t thread) {
    (void)thread;
    const expand_ctx *c = ctx;
    float *to = c->out->f + (size_t)(c->seg->row0 + tok) * sq_rows_ld(c->out);
    for (int32_t h = 0; h < c->s->n_heads; h++, to += c->s->v) {
        const float *run = run_of(c, tok, h), inv = 1.0f / run[c->d + 1];
        for (int32_t i = 0; i < c->s->v; i++) to[i] = run[i] * inv;
    }
}

void sq_mla_expand(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *seg, const sq_rows *q,
                   sq_mla_rows *r, sq_rows *out) {
    expand_ctx c = {b, s, seg, q, r, out, 0, 0, sq_mla_head_dim(s), SQ_BE_ATTN_ROWS};
    const int32_t end = seg->pos0 + seg->n_rows, rows = seg->n_rows;
    sq_be_run(b, begin_item, &c, rows, (int64_t)rows * s->n_heads * c.d);
    for (; c.chunk * SQ_ATTN_CHUNK < end; c.chunk++) {
        const int32_t left = end - c.chunk * SQ_ATTN_CHUNK;
        c.n = r->latent.m = left < SQ_ATTN_CHUNK ? left : SQ_ATTN_CHUNK;
        sq_be_run(b, latent_item, &c, c.n, (int64_t)c.n * s->rank * 8);
        const bool coded = r->latent.quantised;
        const sq_linear lin = {s->kv_b, NULL, &r->kv, false};
        sq_be_linear(b, &r->latent, &lin, 1);
        r->latent.quantised = coded;
        sq_be_run(b, tile_item, &c, c.n, (int64_t)c.n * s->n_heads * c.d * 4);
        sq_be_run(b, attend_item, &c, sq_div_up(rows, c.step) * s->n_heads,
                  (int64_t)rows * c.n * s->n_heads * c.d);
    }
    sq_be_run(b, end_item, &c, rows, (int64_t)rows * s->n_heads * s->v);
}
