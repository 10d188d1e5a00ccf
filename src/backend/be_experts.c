/* SPDX-License-Identifier: Apache-2.0
 *
 * be_experts.c - a choice among experts: rows are gathered by expert, so that each expert's matrices are read
 * once for all rows that chose it, and what comes out is summed by row.
 *
 *   rows      r0: e1 e5   r1: e1 e2   r2: e5 e7         chosen, in rising order
 *   slots     e1: r0 r1 | e2: r1 | e5: r0 r2 | e7: r2   gathered: one multiplication per expert
 *   sum       r0 = w e1 + w e5, ...                     in the order of the experts
 *
 * A row's result is a sum over its own experts in rising order, each made by kernels that give an output
 * element the same bits whatever rows are beside it: prompts, decoding and batches agree. */
#include "backend/be_int.h"

#include <math.h>
#include <string.h>

enum {
    GROUP_TILES = SQ_GROUP / SQ_TILE_ROWS,
    GATED_STEP = 4,  /* most groups of an item */
    DOWN_STEP = 16,  /* most tiles of an item */
    ITEM_TILES = 128 /* tiles times rows of an item, as in be_linear.c */
};

/* ---- who goes where -------------------------------------------------------------------------- */

static size_t line_up(size_t n) { return sq_align_up(n, 64); }

size_t sq_routes_bytes(const sq_route_rule *rule, int32_t m_max) {
    const size_t chosen = (size_t)m_max * (size_t)rule->used * sizeof(int32_t);
    const size_t experts = ((size_t)rule->n + 1) * sizeof(int32_t);
    return 4 * line_up(chosen) + 3 * line_up(experts);
}

void sq_routes_carve(sq_routes *r, const sq_route_rule *rule, int32_t m_max, void *memory) {
    const size_t chosen = line_up((size_t)m_max * (size_t)rule->used * sizeof(int32_t));
    const size_t experts = line_up(((size_t)rule->n + 1) * sizeof(int32_t));
    char *p = memory;
    *r = (sq_routes){.m_max = m_max, .rule = *rule};
    r->expert = (int32_t *)(void *)p, p += chosen;
    r->weight = (float *)(void *)p, p += chosen;
    r->slot = (int32_t *)(void *)p, p += chosen;
    r->row = (int32_t *)(void *)p, p += chosen;
    r->first = (int32_t *)(void *)p, p += experts;
    r->active = (int32_t *)(void *)p, p += experts;
    r->p = (float *)(void *)p;
}

static void softmax(const float *score, int32_t n, float *p) {
    double sum = 0.0;
    float most = -INFINITY;
    for (int32_t i = 0; i < n; i++) most = score[i] > most ? score[i] : most;
    for (int32_t i = 0; i < n; i++) {
        const double e = exp((double)(score[i] - most));
        sum += e;
        p[i] = (float)e;
    }
    const float inv = (float)(1.0 / sum);
    for (int32_t i = 0; i < n; i++) p[i] *= inv;
}

/* Whatever numbers there are, NaN too, it finds one that is free; -1: none is. */
static int32_t largest(const float *p, int32_t n, const bool *free_) {
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (free_[i] && (best < 0 || p[i] > p[best])) best = i;
    return best;
}

/* Which experts may be chosen: those of the best groups. */
static void open_groups(const sq_route_rule *u, const float *p, bool *open) {
    float best[SQ_EXPERTS_MAX];
    bool free_[SQ_EXPERTS_MAX];
    const int32_t each = u->n / u->n_group;
    for (int32_t g = 0; g < u->n_group; g++) {
        best[g] = p[g * each];
        free_[g] = true;
        for (int32_t i = 1; i < each; i++)
            if (p[g * each + i] > best[g]) best[g] = p[g * each + i];
    }
    memset(open, u->topk_group == u->n_group, (size_t)u->n);
    for (int32_t k = 0; u->topk_group < u->n_group && k < u->topk_group; k++) {
        const int32_t g = largest(best, u->n_group, free_);
        free_[g] = false;
        memset(open + g * each, true, (size_t)each);
    }
}

static void choose(const sq_route_rule *u, const float *p, int32_t *expert, float *weight) {
    bool open[SQ_EXPERTS_MAX];
    float sum = 0.0f;
    open_groups(u, p, open);
    for (int32_t k = 0; k < u->used; k++) {
        const int32_t e = largest(p, u->n, open);
        int32_t at = k; /* in rising order */
        for (; at > 0 && expert[at - 1] > e; at--) expert[at] = expert[at - 1];
        expert[at] = e;
        open[e] = false;
        sum += p[e];
    }
    for (int32_t k = 0; k < u->used; k++) weight[k] = u->norm ? p[expert[k]] / sum : p[expert[k]] * u->scale;
}

/* Slots by expert; rows of one expert in rising order. */
static void place(sq_routes *r) {
    const int32_t n = r->rule.n, all = r->m * r->rule.used;
    memset(r->first, 0, ((size_t)n + 1) * sizeof *r->first);
    for (int32_t i = 0; i < all; i++) r->first[r->expert[i] + 1]++;
    for (int32_t e = 0; e < n; e++) r->first[e + 1] += r->first[e];
    memcpy(r->active, r->first, (size_t)n * sizeof *r->first); /* the next free slot of each */
    for (int32_t i = 0; i < all; i++) {
        r->slot[i] = r->active[r->expert[i]]++;
        r->row[r->slot[i]] = i / r->rule.used;
    }
}

void sq_be_route(sq_backend *b, const sq_rows *scores, sq_routes *r) {
    (void)b;
    r->m = scores->m;
    for (int32_t i = 0; i < r->m; i++) {
        const size_t at = (size_t)i * (size_t)r->rule.used;
        softmax(scores->f + (size_t)i * sq_rows_ld(scores), r->rule.n, r->p);
        choose(&r->rule, r->p, r->expert + at, r->weight + at);
    }
    place(r);
}

/* ---- gather ---------------------------------------------------------------------------------- */

typedef struct {
    const sq_rows *x;
    const sq_routes *r;
    sq_rows *in;
} gather_ctx;

static void gather_item(void *ctx, int32_t slot, int32_t thread) {
    (void)thread;
    const gather_ctx *c = ctx;
    const sq_rows *x = c->x, *in = c->in;
    const size_t ld = sq_rows_ld(x), g = (size_t)x->groups, to = (size_t)slot, from = (size_t)c->r->row[slot];
    memcpy(in->f + to * ld, x->f + from * ld, ld * sizeof *in->f);
    if (!x->quantised) return;
    memcpy(in->q + to * ld, x->q + from * ld, ld);
    memcpy(in->scale + to * g, x->scale + from * g, g * sizeof *in->scale);
    memcpy(in->xsum + to * g, x->xsum + from * g, g * sizeof *in->xsum);
    memcpy(in->isum + to * g, x->isum + from * g, g * sizeof *in->isum);
    memcpy(in->isum16 + 4 * to * g, x->isum16 + 4 * from * g, 4 * g * sizeof *in->isum16);
}

void sq_be_experts_gather(sq_backend *b, const sq_rows *x, const sq_routes *r, sq_expert_rows *e) {
    gather_ctx c = {x, r, &e->in};
    const int32_t slots = r->m * r->rule.used;
    e->in.m = e->mid.m = e->out.m = slots;
    e->in.quantised = x->quantised;
    sq_be_run(b, gather_item, &c, slots, (int64_t)slots * x->cols * 2);
}

/* ---- run ------------------------------------------------------------------------------------- */

typedef struct {
    sq_backend *b;
    const sq_routes *r;
    const sq_expert *experts;
    int32_t from;
    sq_glu_fn *act;
    sq_expert_rows *e;
    int32_t step, per_expert; /* groups or tiles of an item; items of one expert */
} run_ctx;

/* Rows of slots [first, first + n) as the kernels take them. */
static sq_act act_of(const sq_rows *x, int32_t first, int32_t n) {
    const size_t s = (size_t)first, ld = sq_rows_ld(x), g = (size_t)x->groups;
    sq_act a = {.m = n, .cols = x->cols, .groups = x->groups, .f = x->f + s * ld};
    if (!x->quantised) return a;
    a.q = x->q + s * ld;
    a.scale = x->scale + s * g;
    a.xsum = x->xsum + s * g;
    a.isum = x->isum + s * g;
    a.isum16 = x->isum16 + 4 * s * g;
    return a;
}

static void gated_item(void *ctx, int32_t item, int32_t thread) {
    const run_ctx *c = ctx;
    const int32_t id = c->r->active[item / c->per_expert], group0 = item % c->per_expert * c->step;
    const int32_t first = c->r->first[id], m = c->r->first[id + 1] - first;
    const sq_expert *x = &c->experts[id - c->from];
    sq_rows *h = &c->e->mid;
    const int32_t n = h->groups - group0 < c->step ? h->groups - group0 : c->step;
    const size_t ld = (size_t)n * SQ_GROUP, col0 = (size_t)group0 * SQ_GROUP;
    float *g = c->b->scratch[thread].tile, *u = c->b->scratch[thread].tile2;
    const sq_weight wg = sq_weight_slice(&x->gate, group0 * GROUP_TILES, n * GROUP_TILES);
    const sq_weight wu = sq_weight_slice(&x->up, group0 * GROUP_TILES, n * GROUP_TILES);
    const sq_act a = act_of(&c->e->in, first, m);
    sq_kernels_gemm(&c->b->k, (sq_wtype)wg.wtype)(&wg, 0, sq_weight_tiles(&wg), &a, g, ld);
    sq_kernels_gemm(&c->b->k, (sq_wtype)wu.wtype)(&wu, 0, sq_weight_tiles(&wu), &a, u, ld);
    for (int32_t i = 0; i < m; i++) {
        const size_t row = (size_t)(first + i), at = row * sq_rows_ld(h) + col0;
        const size_t side = row * (size_t)h->groups + (size_t)group0;
        float *gi = g + (size_t)i * ld;
        c->act(gi, u + (size_t)i * ld, wg.rows, gi);
        memcpy(h->f + at, gi, (size_t)wg.rows * sizeof *gi);
        if (!h->quantised) continue;
        memset(gi + wg.rows, 0, (ld - (size_t)wg.rows) * sizeof *gi);
        c->b->k.quant_q8g64(gi, 0, n, h->q + at, h->scale + side, h->xsum + side, h->isum + side,
                            h->isum16 + 4 * side);
    }
}

static void down_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const run_ctx *c = ctx;
    const int32_t id = c->r->active[item / c->per_expert], tile0 = item % c->per_expert * c->step;
    const int32_t first = c->r->first[id], m = c->r->first[id + 1] - first;
    const sq_weight *down = &c->experts[id - c->from].down;
    const int32_t left = sq_weight_tiles(down) - tile0;
    const sq_weight w = sq_weight_slice(down, tile0, left < c->step ? left : c->step);
    const sq_act a = act_of(&c->e->mid, first, m);
    const size_t ld = sq_rows_ld(&c->e->out);
    float *y = c->e->out.f + (size_t)first * ld + (size_t)tile0 * SQ_TILE_ROWS;
    sq_kernels_gemm(&c->b->k, (sq_wtype)w.wtype)(&w, 0, sq_weight_tiles(&w), &a, y, ld);
}

/* How many rows chose expert e. */
static int32_t rows_of(const sq_routes *r, int32_t e) { return r->first[e + 1] - r->first[e]; }

static int32_t at_most(int32_t x, int32_t hi) { return x < 1 ? 1 : x > hi ? hi : x; }

/* The n experts listed in r->active, each chosen by somebody. */
static void run_active(sq_backend *b, const sq_routes *r, const sq_expert *experts, int32_t from, int32_t n,
                       sq_activation act, sq_expert_rows *e) {
    if (n == 0) return;
    const sq_expert *any = &experts[r->active[0] - from];
    int32_t most = 0;
    int64_t rows = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t m = rows_of(r, r->active[i]);
        rows += m;
        if (m > most) most = m;
    }
    run_ctx c = {b, r, experts, from, sq_be_glu(b, act), e, 0, 0};
    e->mid.quantised = sq_wtype_wants_q8((sq_wtype)any->down.wtype);
    int32_t step = at_most(ITEM_TILES / GROUP_TILES / most, GATED_STEP);
    c.step = at_most(b->opt.m_max / most, step);
    c.per_expert = sq_div_up(e->mid.groups, c.step);
    sq_be_run(b, gated_item, &c, n * c.per_expert, 2 * rows * any->gate.rows * any->gate.cols);
    c.step = at_most(ITEM_TILES / most, DOWN_STEP);
    c.per_expert = sq_div_up(sq_weight_tiles(&any->down), c.step);
    sq_be_run(b, down_item, &c, n * c.per_expert, rows * any->down.rows * any->down.cols);
}

void sq_be_experts_run(sq_backend *b, const sq_routes *r, const sq_expert *experts, int32_t from, int32_t to,
                       sq_activation act, sq_expert_rows *e) {
    int32_t n = 0;
    for (int32_t id = from; id < to; id++)
        if (rows_of(r, id) > 0) r->active[n++] = id;
    run_active(b, r, experts, from, n, act, e);
}

void sq_be_experts_run_some(sq_backend *b, const sq_routes *r, const sq_expert *experts, const int32_t *ids,
                            int32_t n, sq_activation act, sq_expert_rows *e) {
    int32_t chosen = 0;
    for (int32_t i = 0; i < n; i++)
        if (rows_of(r, ids[i]) > 0) r->active[chosen++] = ids[i];
    run_active(b, r, experts, 0, chosen, act, e);
}

/* ---- sum ------------------------------------------------------------------------------------- */

typedef struct {
    const sq_routes *r;
    const sq_expert_rows *e;
    const sq_rows *shared, *gate;
    sq_rows *y;
} sum_ctx;

static void sum_item(void *ctx, int32_t row, int32_t thread) {
    (void)thread;
    const sum_ctx *c = ctx;
    const size_t ld = sq_rows_ld(c->y), i = (size_t)row, used = (size_t)c->r->rule.used;
    float open = 1.0f;
    if (c->gate) open = 1.0f / (1.0f + (float)exp(-(double)c->gate->f[i * sq_rows_ld(c->gate)]));
    for (size_t at = 0; at < ld; at += SQ_GROUP) {
        float *y = c->y->f + i * ld + at, acc[SQ_GROUP] = {0};
        for (size_t k = 0; k < used; k++) {
            const float w = c->r->weight[i * used + k];
            const float *o = c->e->out.f + (size_t)c->r->slot[i * used + k] * ld + at;
            for (int j = 0; j < SQ_GROUP; j++) acc[j] += w * o[j];
        }
        const float *s = c->shared ? c->shared->f + i * ld + at : NULL;
        for (int j = 0; s && j < SQ_GROUP; j++) acc[j] += open * s[j];
        for (int j = 0; j < SQ_GROUP; j++) y[j] += acc[j];
    }
}

void sq_be_experts_sum(sq_backend *b, const sq_routes *r, const sq_expert_rows *e, const sq_rows *shared,
                       const sq_rows *gate, sq_rows *y) {
    sum_ctx c = {r, e, shared, gate, y};
    sq_be_run(b, sum_item, &c, r->m, (int64_t)r->m * r->rule.used * y->cols);
    y->quantised = false;
}
