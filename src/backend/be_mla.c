/* SPDX-License-Identifier: Apache-2.0
 *
 * be_mla.c - latent attention on the CPU: storing tokens, and the absorbed way. The expanded one is in
 * be_mla_expand.c.
 *
 *   q [heads][nope | rope] --K_b of the head--> [rank | rope] . latent rows --> y [rank] --V_b of the head-->
 * out [v]
 *
 * A query row's result is the left-to-right fold of chunk results, as in be_attn.c, however heads and chunks
 * are spread over threads. */
#include "backend/be_mla_int.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { HEADS = 16 }; /* of an item */

/* ---- scratch --------------------------------------------------------------------------------- */

static size_t tile_elements(const sq_mla_shape *s) { return (size_t)SQ_KV_TILE * (size_t)sq_mla_head_dim(s); }

typedef struct {
    size_t qa, tiles, run;
} sizes;

static sizes sizes_of(const sq_mla_shape *s, int32_t m_max) {
    const size_t heads = (size_t)s->n_heads, m = (size_t)m_max, d = (size_t)sq_mla_head_dim(s);
    const size_t element = s->kv_f32 ? sizeof(float) : sizeof(uint16_t);
    return (sizes){sq_align_up(heads * m * (size_t)sq_mla_width(s->rank, s->rope) * sizeof(float), 64),
                   sq_align_up(heads * SQ_ATTN_TILES * 2 * tile_elements(s) * element, 64),
                   sq_align_up(m * heads * (d + 16) * sizeof(float), 64)};
}

/* Rows by head, and rows of a chunk. */
static size_t rows_of(sq_mla_rows *r, const sq_mla_shape *s, int32_t m_max, char *memory) {
    const int32_t by_head = m_max * s->n_heads;
    const struct {
        sq_rows *r;
        int32_t m, cols;
        bool q;
    } rows[] = {{&r->qn, by_head, s->nope, true},
                {&r->y, by_head, s->rank, true},
                {&r->latent, SQ_ATTN_CHUNK, s->rank, true},
                {&r->kv, SQ_ATTN_CHUNK, s->n_heads * (s->nope + s->v), false}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (memory) sq_rows_carve(rows[i].r, rows[i].m, rows[i].cols, rows[i].q, memory + at);
        at += sq_rows_bytes(rows[i].m, rows[i].cols, rows[i].q);
    }
    return at;
}

size_t sq_mla_rows_bytes(const sq_mla_shape *s, int32_t m_max) {
    sq_mla_rows none;
    const sizes z = sizes_of(s, m_max);
    return rows_of(&none, s, m_max, NULL) + z.qa + z.tiles + z.run;
}

void sq_mla_rows_carve(sq_mla_rows *r, const sq_mla_shape *s, int32_t m_max, void *memory) {
    const sizes z = sizes_of(s, m_max);
    char *p = memory;
    p += rows_of(r, s, m_max, p);
    r->m_max = m_max;
    r->qa = (float *)(void *)p, p += z.qa;
    r->tiles = (uint16_t *)(void *)p, p += z.tiles;
    r->run = (float *)(void *)p;
}

/* ---- rotate and store ------------------------------------------------------------------------ */

typedef struct {
    sq_backend *b;
    const sq_mla_shape *s;
    const sq_attn_seg *segs;
    int32_t n_segs;
    sq_rows *q;
    const sq_rows *kva;
    bool leads; /* some segment has rows of another */
} prepare_ctx;

/* One number for the cache: within its format's range, NaN as 0: a page outlives what is in it. */
static float held(float x, float limit) {
    return x > limit ? limit : x < -limit ? -limit : x == x ? x : 0.0f;
}

static void store(const sq_mla_shape *s, const float *row, int32_t width, int32_t slot, uint8_t *tile) {
    const size_t at = (size_t)slot * (size_t)width;
    if (s->kv_f32) {
        float *to = (float *)(void *)tile + at;
        for (int32_t c = 0; c < width; c++) to[c] = held(row[c], FLT_MAX);
        return;
    }
    uint16_t *to = (uint16_t *)(void *)tile + at;
    for (int32_t c = 0; c < width; c++) to[c] = sq_f32_to_f16(held(row[c], 65504.0f));
}

static void prepare_item(void *ctx, int32_t row, int32_t thread) {
    (void)thread;
    const prepare_ctx *c = ctx;
    const sq_mla_shape *s = c->s;
    const int32_t half = s->rope / 2, d = s->nope + s->rope, width = sq_mla_width(s->rank, s->rope);
    const float *cs = s->cos + (size_t)row * (size_t)half, *sn = s->sin + (size_t)row * (size_t)half;
    float *q = c->q->f + (size_t)row * sq_rows_ld(c->q), latent[SQ_LATENT_D_MAX] = {0};
    for (int32_t h = 0; h < s->n_heads; h++, q += d) {
        c->b->k.rope_pairs(q + s->nope, cs, sn, half);
        for (int32_t i = 0; i < d; i++) q[i] *= s->scale;
    }
    const float *kva = c->kva->f + (size_t)row * sq_rows_ld(c->kva);
    c->b->k.rmsnorm(kva, s->norm, s->rank, s->norm_eps, latent);
    memcpy(latent + s->rank, kva + s->rank, (size_t)s->rope * sizeof *latent);
    c->b->k.rope_pairs(latent + s->rank, cs, sn, half);
    const sq_attn_seg *seg = c->segs;
    while (seg + 1 < c->segs + c->n_segs && row >= seg[1].row0) seg++;
    int32_t pos = seg->pos0 + row - seg->row0;
    store(s, latent, width, pos % SQ_KV_TILE, seg->pages[pos / SQ_KV_TILE] + s->k_off);
    for (int32_t i = 0; c->leads && i < c->n_segs; i++)
        if (sq_be_leads(&c->segs[i], row, &pos))
            store(s, latent, width, pos % SQ_KV_TILE, c->segs[i].pages[pos / SQ_KV_TILE] + s->k_off);
}

void sq_be_mla_prepare(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                       sq_rows *q, const sq_rows *kva) {
    prepare_ctx c = {b, s, segs, n_segs, q, kva, sq_be_any_leads(segs, n_segs)};
    sq_be_run(b, prepare_item, &c, q->m, q->m > 1 ? (int64_t)q->m * (q->cols + kva->cols) * 8 : 0);
}

/* ---- the absorbed way ------------------------------------------------------------------------ */

typedef struct {
    sq_backend *b;
    const sq_mla_shape *s;
    const sq_attn_seg *seg;
    const sq_rows *q;
    sq_mla_rows *r;
    sq_rows *out;
    int32_t m;                     /* rows of the step */
    int32_t blocks;                /* of heads */
    int32_t first_chunk, n_chunks; /* of a long row that is shared out */
} absorb_ctx;

/* Rows [row0, row0 + n) of head h as the kernels take them. */
static sq_act head_act(const sq_rows *x, int32_t m, int32_t h, int32_t row0, int32_t n) {
    const size_t i = (size_t)h * (size_t)m + (size_t)row0, ld = sq_rows_ld(x), g = (size_t)x->groups;
    sq_act a = {.m = n, .cols = x->cols, .groups = x->groups, .f = x->f + i * ld};
    if (!x->quantised) return a;
    a.q = x->q + i * ld, a.scale = x->scale + i * g, a.xsum = x->xsum + i * g, a.isum = x->isum + i * g;
    a.isum16 = x->isum16 + 4 * i * g;
    return a;
}

static void quantise_head(const sq_backend *b, sq_rows *x, size_t i) {
    const size_t g = i * (size_t)x->groups;
    b->k.quant_q8g64(x->f + i * sq_rows_ld(x), 0, x->groups, x->q + i * sq_rows_ld(x), x->scale + g,
                     x->xsum + g, x->isum + g, x->isum16 + 4 * g);
}

/* Queries of one head, into the space of latent rows. */
static void query_item(void *ctx, int32_t h, int32_t thread) {
    (void)thread;
    const absorb_ctx *c = ctx;
    const sq_mla_shape *s = c->s;
    const size_t d = (size_t)(s->nope + s->rope), width = (size_t)sq_mla_width(s->rank, s->rope);
    const size_t m = (size_t)c->m, row0 = (size_t)c->seg->row0, n = (size_t)c->seg->n_rows;
    const size_t first = (size_t)h * m + row0;
    sq_rows *qn = &c->r->qn;
    for (size_t i = 0; i < n; i++) {
        const float *q = c->q->f + (row0 + i) * sq_rows_ld(c->q) + (size_t)h * d;
        float *to = c->r->qa + (first + i) * width;
        memcpy(qn->f + (first + i) * sq_rows_ld(qn), q, (size_t)s->nope * sizeof *q);
        memset(to + s->rank, 0, (width - (size_t)s->rank) * sizeof *to);
        memcpy(to + s->rank, q + s->nope, (size_t)s->rope * sizeof *q);
        if (qn->quantised) quantise_head(c->b, qn, first + i);
    }
    const int32_t tiles = s->rank / SQ_TILE_ROWS;
    const sq_weight w = sq_weight_slice(s->k_b, h * tiles, tiles);
    const sq_act x = head_act(qn, c->m, h, (int32_t)row0, (int32_t)n);
    sq_kernels_gemm(&c->b->k, (sq_wtype)w.wtype)(&w, 0, tiles, &x, c->r->qa + first * width, width);
}

/* One chunk for some heads of a row, gathered in scratch->q; into scratch->mc, lc, oc. */
static void chunk_of(const absorb_ctx *c, int32_t pos, int32_t heads, int32_t chunk, sq_be_scratch *t) {
    const sq_mla_shape *s = c->s;
    const uint16_t *k[SQ_ATTN_TILES] = {0};
    const int32_t start = chunk * SQ_ATTN_CHUNK, width = sq_mla_width(s->rank, s->rope);
    const int32_t hi = pos + 1 - start < SQ_ATTN_CHUNK ? pos + 1 - start : SQ_ATTN_CHUNK;
    for (int32_t j = 0; j * SQ_KV_TILE < hi; j++)
        k[j] = (const uint16_t *)(const void *)(c->seg->pages[chunk * SQ_ATTN_TILES + j] + s->k_off);
    for (int32_t h = 0; h < heads; h++) t->lo[h] = 0, t->hi[h] = hi;
    const sq_attn_args a = {.q = t->q,
                            .ldq = (size_t)width,
                            .n_q = heads,
                            .d = width,
                            .k = k,
                            .lo = t->lo,
                            .hi = t->hi,
                            .m = t->mc,
                            .l = t->lc,
                            .o = t->oc,
                            .ldo = (size_t)s->rank,
                            .d_out = s->rank};
    (s->kv_f32 ? c->b->k.attn_latent_f32 : c->b->k.attn_latent)(&a);
}

static int32_t gather(const absorb_ctx *c, int32_t row, int32_t block, float *to) {
    const size_t width = (size_t)sq_mla_width(c->s->rank, c->s->rope);
    const int32_t h0 = block * HEADS, n = c->s->n_heads - h0 < HEADS ? c->s->n_heads - h0 : HEADS;
    for (int32_t h = 0; h < n; h++)
        memcpy(to + (size_t)h * width, c->r->qa + ((size_t)(h0 + h) * (size_t)c->m + (size_t)row) * width,
               width * sizeof *to);
    return n;
}

/* o / l into the row of y. */
static void finish(const absorb_ctx *c, int32_t row, int32_t h, float l, const float *o) {
    sq_rows *y = &c->r->y;
    const size_t at = (size_t)h * (size_t)c->m + (size_t)row;
    float *to = y->f + at * sq_rows_ld(y);
    const float inv = 1.0f / l;
    for (int32_t i = 0; i < c->s->rank; i++) to[i] = o[i] * inv;
    if (y->quantised) quantise_head(c->b, y, at);
}

static void row_item(void *ctx, int32_t item, int32_t thread) {
    const absorb_ctx *c = ctx;
    sq_be_scratch *t = &c->b->scratch[thread];
    const int32_t row = c->seg->row0 + item / c->blocks, block = item % c->blocks, rank = c->s->rank;
    const int32_t pos = c->seg->pos0 + item / c->blocks, n = gather(c, row, block, t->q);
    for (int32_t h = 0; h < n; h++) t->m[h] = -INFINITY, t->l[h] = 0.0f;
    memset(t->o, 0, (size_t)n * (size_t)rank * sizeof *t->o);
    for (int32_t chunk = 0; chunk * SQ_ATTN_CHUNK <= pos; chunk++) {
        chunk_of(c, pos, n, chunk, t);
        for (int32_t h = 0; h < n; h++)
            c->b->k.attn_merge(&t->m[h], &t->l[h], t->o + (size_t)h * (size_t)rank, t->mc[h], t->lc[h],
                               t->oc + (size_t)h * (size_t)rank, rank);
    }
    for (int32_t h = 0; h < n; h++)
        finish(c, row, block * HEADS + h, t->l[h], t->o + (size_t)h * (size_t)rank);
}

/* ---- one long row: the chunks are shared out ------------------------------------------------- */

static float *partial_of(const absorb_ctx *c, int32_t chunk, int32_t head) {
    const size_t d = (size_t)c->s->rank + 16;
    return c->b->partial + ((size_t)chunk * (size_t)c->s->n_heads + (size_t)head) * d;
}

static void split_item(void *ctx, int32_t item, int32_t thread) {
    const absorb_ctx *c = ctx;
    sq_be_scratch *t = &c->b->scratch[thread];
    const int32_t block = item % c->blocks, chunk = item / c->blocks, rank = c->s->rank;
    const int32_t n = gather(c, c->seg->row0, block, t->q);
    chunk_of(c, c->seg->pos0, n, chunk, t);
    for (int32_t h = 0; h < n; h++) {
        float *p = partial_of(c, chunk, block * HEADS + h);
        memcpy(p, t->oc + (size_t)h * (size_t)rank, (size_t)rank * sizeof *p);
        p[rank] = t->mc[h];
        p[rank + 1] = t->lc[h];
    }
}

static void fold_item(void *ctx, int32_t head, int32_t thread) {
    const absorb_ctx *c = ctx;
    float *o = c->b->scratch[thread].o, m = -INFINITY, l = 0.0f;
    const int32_t rank = c->s->rank;
    memset(o, 0, (size_t)rank * sizeof *o);
    for (int32_t chunk = 0; chunk < c->n_chunks; chunk++) {
        const float *p = partial_of(c, chunk, head);
        c->b->k.attn_merge(&m, &l, o, p[rank], p[rank + 1], p, rank);
    }
    finish(c, c->seg->row0, head, l, o);
}

/* Outputs of one head. */
static void value_item(void *ctx, int32_t h, int32_t thread) {
    (void)thread;
    const absorb_ctx *c = ctx;
    const sq_mla_shape *s = c->s;
    const int32_t tiles = s->v / SQ_TILE_ROWS, per_head = (s->nope + s->v) / SQ_TILE_ROWS;
    const sq_weight w = sq_weight_slice(s->kv_b, h * per_head + s->nope / SQ_TILE_ROWS, tiles);
    const sq_act y = head_act(&c->r->y, c->m, h, c->seg->row0, c->seg->n_rows);
    const size_t ld = sq_rows_ld(c->out);
    float *to = c->out->f + (size_t)c->seg->row0 * ld + (size_t)(h * s->v);
    sq_kernels_gemm(&c->b->k, (sq_wtype)w.wtype)(&w, 0, tiles, &y, to, ld);
}

static void absorb(absorb_ctx *c) {
    const sq_mla_shape *s = c->s;
    const int64_t rows = c->seg->n_rows, heads = s->n_heads, threads = c->b->opt.threads;
    c->n_chunks = sq_div_up(c->seg->pos0 + c->seg->n_rows, SQ_ATTN_CHUNK);
    sq_be_run(c->b, query_item, c, s->n_heads, rows * heads * s->nope * s->rank);
    if (rows == 1 && c->blocks < 2 * threads && threads > 1 && c->n_chunks >= 2) {
        sq_be_run(c->b, split_item, c, c->n_chunks * c->blocks, INT32_MAX);
        sq_be_run(c->b, fold_item, c, s->n_heads, (int64_t)c->n_chunks * heads * s->rank);
    } else {
        const int64_t past = c->seg->pos0 + c->seg->n_rows;
        sq_be_run(c->b, row_item, c, c->seg->n_rows * c->blocks, rows * heads * past * s->rank * 2);
    }
    sq_be_run(c->b, value_item, c, s->n_heads, rows * heads * s->v * s->rank);
}

void sq_be_mla_attend(sq_backend *b, const sq_mla_shape *s, const sq_attn_seg *segs, int32_t n_segs,
                      const sq_rows *q, bool quantise, sq_mla_rows *r, sq_rows *out) {
    out->m = q->m;
    out->quantised = false;
    r->qn.quantised = sq_wtype_wants_q8((sq_wtype)s->k_b->wtype);
    r->y.quantised = r->latent.quantised = sq_wtype_wants_q8((sq_wtype)s->kv_b->wtype);
    for (int32_t i = 0; i < n_segs; i++) {
        if (segs[i].prompt) {
            sq_mla_expand(b, s, &segs[i], q, r, out);
            continue;
        }
        absorb_ctx c = {b, s, &segs[i], q, r, out, q->m, sq_div_up(s->n_heads, HEADS), 0, 0};
        absorb(&c);
    }
    if (quantise) sq_be_quantise(b, out);
}
