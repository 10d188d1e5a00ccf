/* SPDX-License-Identifier: Apache-2.0
 *
 * model_look.c - guesses of a forward pass: scores, the list of the likeliest, what is remembered of the
 * token before, and the counts. */
#include "model/model_forward_int.h"
#include "model/model_look.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

static const double SQ_LOOK_UNION = 0.6; /* share of the experts that rows may want in all */

enum { TABLES = 3, SHOWN = 8 };

/* What is known of a sequence. */
typedef struct {
    const sq_kv_seq *kv; /* NULL: free */
    int32_t next;        /* position whose token comes behind the one remembered */
    uint64_t last_step;
} memory;

/* The guess for one layer at one moment, row by row. */
typedef struct {
    int32_t layer; /* -1: none */
    int32_t *list; /* [rows_max][k + extra], likeliest first */
} guess;

typedef struct {
    int32_t tokens, hits; /* since it was looked at last */
    int32_t rest;         /* tokens still to be left out */
} watch;

struct sq_look {
    squish_alloc alloc;
    const sq_model *model;
    sq_backend *b;
    const sq_look_maps *maps;
    sq_look_options o;
    sq_route_rule rule;
    int32_t n_layers, n, want, rows_max, seqs;
    sq_rows y[TABLES]; /* scores on their way: [rows_max][n] */
    void *device;
    size_t device_bytes;
    /* On the host, one block. */
    void *host;
    size_t host_bytes;
    memory *seq;     /* [seqs] */
    float *past;     /* [seqs][n_layers][moments][n]: what `prev` gives. T0: how lately, [n] of each */
    int32_t *of_row; /* [rows_max] sequence whose token before is known; -1: it is not */
    int32_t *keeps;  /* [seqs] row that is the last of the sequence in this step; -1: none */
    guess guess[SQ_LOOK_MOMENTS];
    float *scores;   /* [n] */
    float *weight;   /* [n] of a hint; 0: not in it */
    int32_t *hinted; /* [n] */
    watch *watch;    /* [n_layers] */
    sq_look_count (*count)[SQ_LOOK_MOMENTS];
    sq_look_count all;
    uint64_t steps, layers, ns, rests, needed, resident;
    _Atomic uint64_t shown[SHOWN]; /* totals for others */
    int32_t m;                     /* rows of this step; 0: no guesses */
};

/* ---- life ------------------------------------------------------------------------------------ */

static int32_t rows_of_union(const sq_route_rule *u) {
    const double left = 1.0 - (double)u->used / u->n;
    if (left <= 1.0 - SQ_LOOK_UNION) return 0;
    return (int32_t)(log(1.0 - SQ_LOOK_UNION) / log(left));
}

/* Rows of past: T0 has one row of a layer, maps two. */
static size_t past_floats(const sq_look *l) {
    const size_t each = l->maps->kind == SQ_LOOK_ROUTER ? 0
                        : l->maps->kind == SQ_LOOK_T0   ? 1
                                                        : SQ_LOOK_MOMENTS;
    return (size_t)l->seqs * (size_t)l->n_layers * each * (size_t)l->n;
}

/* Carve the host block, or only count if memory is NULL. */
static size_t plan_host(sq_look *l, char *memory_) {
    const size_t n = (size_t)l->n, rows = (size_t)l->rows_max, layers = (size_t)l->n_layers;
    const struct {
        void **p;
        size_t bytes;
    } parts[] = {{(void **)&l->seq, (size_t)l->seqs * sizeof *l->seq},
                 {(void **)&l->past, past_floats(l) * sizeof *l->past},
                 {(void **)&l->of_row, rows * sizeof *l->of_row},
                 {(void **)&l->keeps, (size_t)l->seqs * sizeof *l->keeps},
                 {(void **)&l->guess[0].list, rows * (size_t)l->want * sizeof(int32_t)},
                 {(void **)&l->guess[1].list, rows * (size_t)l->want * sizeof(int32_t)},
                 {(void **)&l->scores, n * sizeof *l->scores},
                 {(void **)&l->weight, n * sizeof *l->weight},
                 {(void **)&l->hinted, n * sizeof *l->hinted},
                 {(void **)&l->watch, layers * sizeof *l->watch},
                 {(void **)&l->count, layers * sizeof *l->count}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(parts); i++) {
        if (memory_) *parts[i].p = memory_ + at;
        at += sq_align_up(parts[i].bytes, 64);
    }
    return at;
}

squish_status sq_look_new(sq_look **out, const sq_model *m, sq_backend *b, const sq_look_maps *maps,
                          int32_t seqs, const sq_look_options *o, const squish_alloc *a, squish_error *err) {
    const sq_moe_config *c = &m->cfg.moe;
    *out = NULL;
    if (o->extra < -1 || o->extra > SQ_LOOK_EXTRA_MAX)
        return sq_fail(err, SQUISH_INVALID, "lookahead: %d experts more, wanted 0 to %d", o->extra,
                       SQ_LOOK_EXTRA_MAX);
    sq_look *l = sq_alloc_zero(a, sizeof *l);
    if (!l) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    *l = (sq_look){.alloc = *a,
                   .model = m,
                   .b = b,
                   .maps = maps,
                   .o = *o,
                   .rule = {.n = c->n, .used = c->used, .n_group = c->n_group, .topk_group = c->topk_group},
                   .n_layers = m->cfg.n_layers,
                   .n = c->n,
                   .seqs = seqs};
    if (l->o.extra < 0) l->o.extra = c->used >= 8 ? c->used / 4 : 1;
    if (l->o.extra > SQ_LOOK_EXTRA_MAX) l->o.extra = SQ_LOOK_EXTRA_MAX;
    if (l->o.extra > c->n - c->used) l->o.extra = c->n - c->used;
    l->want = c->used + l->o.extra;
    l->rows_max = o->rows_max ? o->rows_max : rows_of_union(&l->rule);
    if (l->rows_max > seqs) l->rows_max = seqs;
    squish_status st = SQUISH_OK;
    const size_t each = sq_rows_bytes(l->rows_max > 0 ? l->rows_max : 1, l->n, false);
    l->device_bytes = TABLES * each;
    l->device = sq_backend_alloc(b, l->device_bytes);
    l->host_bytes = plan_host(l, NULL);
    l->host = l->device ? sq_alloc_zero(a, l->host_bytes) : NULL;
    if (!l->host) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
        goto fail;
    }
    plan_host(l, l->host);
    for (size_t i = 0; i < TABLES; i++)
        sq_rows_carve(&l->y[i], l->rows_max > 0 ? l->rows_max : 1, l->n, false, (char *)l->device + i * each);
    sq_look_reset(l);
    *out = l;
    return SQUISH_OK;
fail:
    sq_look_free(l);
    return st;
}

void sq_look_free(sq_look *l) {
    if (!l) return;
    squish_alloc a = l->alloc;
    sq_backend_release(l->b, l->device, l->device_bytes);
    sq_alloc_free(&a, l->host, l->host_bytes);
    sq_alloc_free(&a, l, sizeof *l);
}

void sq_look_reset(sq_look *l) {
    memset(l->seq, 0, (size_t)l->seqs * sizeof *l->seq);
    memset(l->watch, 0, (size_t)l->n_layers * sizeof *l->watch);
    memset(l->count, 0, (size_t)l->n_layers * sizeof *l->count);
    l->all = (sq_look_count){0};
    l->layers = l->ns = l->rests = l->needed = l->resident = 0;
    l->m = 0;
}

void sq_look_get_stats(const sq_look *l, sq_look_stats *out) {
    *out = (sq_look_stats){.used = l->rule.used,
                           .extra = l->o.extra,
                           .n_layers = l->n_layers,
                           .count = (const sq_look_count(*)[SQ_LOOK_MOMENTS])l->count,
                           .all = l->all,
                           .layers = l->layers,
                           .ns = l->ns,
                           .rests = l->rests,
                           .needed = l->needed,
                           .resident = l->resident};
}

static void show(sq_look *l) {
    const uint64_t now[SHOWN] = {l->all.tokens, l->all.strict, l->all.covered, l->layers,
                                 l->ns,         l->rests,      l->needed,      l->resident};
    for (int32_t i = 0; i < SHOWN; i++) atomic_store_explicit(&l->shown[i], now[i], memory_order_relaxed);
}

void sq_look_get_totals(const sq_look *l, sq_look_stats *out) {
    uint64_t v[SHOWN];
    for (int32_t i = 0; i < SHOWN; i++) v[i] = atomic_load_explicit(&l->shown[i], memory_order_relaxed);
    *out = (sq_look_stats){.used = l->rule.used,
                           .extra = l->o.extra,
                           .n_layers = l->n_layers,
                           .all = {v[0], v[1], v[2]},
                           .layers = v[3],
                           .ns = v[4],
                           .rests = v[5],
                           .needed = v[6],
                           .resident = v[7]};
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* The place of a sequence: its own, a free one, or that of whoever was not here for longest. */
static int32_t seat_of(const sq_look *l, const sq_kv_seq *kv) {
    int32_t best = 0;
    for (int32_t i = 0; i < l->seqs; i++) {
        if (l->seq[i].kv == kv) return i;
        if (l->seq[i].last_step < l->seq[best].last_step) best = i;
    }
    return best;
}

/* Only the first row of a segment has a token before it that was seen whole: those of the others are on their
 * way through the same layers. */
void sq_look_begin(sq_look *l, const sq_step_seg *segs, int32_t n_segs, int32_t m) {
    const bool on = m > 0 && m <= l->rows_max;
    show(l);
    l->steps++;
    l->m = on ? m : 0;
    l->guess[SQ_LOOK_EARLY].layer = l->guess[SQ_LOOK_LATE].layer = -1;
    for (int32_t i = 0; i < l->seqs; i++) l->keeps[i] = -1;
    for (int32_t i = 0; i < n_segs; i++) {
        const sq_step_seg *g = &segs[i];
        const int32_t s = seat_of(l, g->kv);
        memory *k = &l->seq[s];
        const bool known = k->kv == g->kv && k->next == g->pos0;
        *k = (memory){g->kv, on ? g->pos0 + g->n_rows : -1, l->steps};
        if (!on) continue;
        l->keeps[s] = g->row0 + g->n_rows - 1;
        for (int32_t r = 0; r < g->n_rows; r++) l->of_row[g->row0 + r] = r == 0 && known ? s : -1;
    }
}

static float *past_of(const sq_look *l, int32_t seat, int32_t layer, int32_t moment) {
    const size_t at = (size_t)seat * (size_t)l->n_layers + (size_t)layer, n = (size_t)l->n;
    return l->past + (l->maps->kind == SQ_LOOK_T0 ? at : at * SQ_LOOK_MOMENTS + (size_t)moment) * n;
}

static bool any_known(const sq_look *l) {
    for (int32_t r = 0; r < l->m; r++)
        if (l->of_row[r] >= 0) return true;
    return false;
}

/* ---- choosing -------------------------------------------------------------------------------- */

/* Scores of experts in groups that a token would not choose from become the least there is. */
static void close_groups(const sq_route_rule *u, float *s) {
    const int32_t each = u->n / u->n_group;
    float best[SQ_EXPERTS_MAX];
    for (int32_t g = 0; g < u->n_group; g++) {
        best[g] = s[g * each];
        for (int32_t i = 1; i < each; i++)
            if (s[g * each + i] > best[g]) best[g] = s[g * each + i];
    }
    for (int32_t g = 0; g < u->n_group; g++) {
        int32_t better = 0;
        for (int32_t k = 0; k < u->n_group; k++) better += best[k] > best[g] || (best[k] == best[g] && k < g);
        for (int32_t i = 0; better >= u->topk_group && i < each; i++) s[g * each + i] = -INFINITY;
    }
}

/* The `want` largest, largest first, of equal ones the first; whatever the numbers are, each index once. */
static void top(const float *s, int32_t n, int32_t want, int32_t *out) {
    int32_t have = 0;
    for (int32_t i = 0; i < n; i++) {
        if (have == want && !(s[i] > s[out[have - 1]])) continue;
        int32_t at = have < want ? have++ : have - 1;
        for (; at > 0 && s[i] > s[out[at - 1]]; at--) out[at] = out[at - 1];
        out[at] = i;
    }
}

/* Each expert that any row guessed, with its best rank in a row as weight, likeliest first. */
static void hint(sq_look *l, const guess *g) {
    const int32_t named = l->o.hint_extra ? l->want : l->rule.used;
    int32_t n = 0;
    if (!l->o.hint) return;
    for (int32_t k = 0; k < named; k++) {
        for (int32_t r = 0; r < l->m; r++) {
            const int32_t e = g->list[r * l->want + k];
            if (l->weight[e] > 0) continue;
            l->weight[e] = 1.0f - (float)k / (float)l->want;
            l->hinted[n++] = e;
        }
    }
    float *weights = l->scores; /* free between guesses */
    for (int32_t i = 0; i < n; i++) {
        weights[i] = l->weight[l->hinted[i]];
        l->weight[l->hinted[i]] = 0;
    }
    l->o.hint(l->o.user, g->layer, l->hinted, weights, n);
}

/* now: what the map gives for these rows; NULL: only what is remembered counts. */
static void make_guess(sq_look *l, int32_t layer, int32_t moment, const sq_look_map *map,
                       const sq_rows *now) {
    guess *g = &l->guess[moment];
    const size_t n = (size_t)l->n;
    g->layer = layer;
    for (int32_t r = 0; r < l->m; r++) {
        const int32_t seat = l->of_row[r];
        const float *past =
            seat >= 0 && l->maps->kind != SQ_LOOK_ROUTER ? past_of(l, seat, layer, moment) : NULL;
        const float *bias = map && map->bias ? map->bias + (past ? 0 : n) : NULL;
        const float *y = now ? sq_be_host(l->b, now) + (size_t)r * sq_rows_ld(now) : NULL;
        for (size_t i = 0; i < n; i++)
            l->scores[i] = (y ? y[i] : 0.0f) + (past ? past[i] : 0.0f) + (bias ? bias[i] : 0.0f);
        if (l->rule.topk_group < l->rule.n_group) close_groups(&l->rule, l->scores);
        top(l->scores, l->n, l->want, g->list + (size_t)r * (size_t)l->want);
    }
    hint(l, g);
}

static bool rests(const sq_look *l, int32_t layer) { return l->watch[layer].rest > 0; }

/* The first m rows of h. */
static sq_rows rows_of(const sq_look *l, const sq_rows *h) {
    sq_rows r = *h;
    r.m = l->m;
    return r;
}

/* T0: what it guesses is known long before; said a layer ahead, and of the first layer here. */
static void guess_as_before(sq_look *l, int32_t layer, int32_t moment) {
    if (l->model->layers[layer].experts && any_known(l)) make_guess(l, layer, moment, NULL, NULL);
}

void sq_look_attention(sq_look *l, int32_t i_layer, const sq_rows *h) {
    if (l->m > 0 && !l->maps->map && i_layer == 0 && !rests(l, 0)) guess_as_before(l, 0, SQ_LOOK_LATE);
    const sq_look_map *map = l->m > 0 && l->maps->map ? &l->maps->map[i_layer][SQ_LOOK_LATE] : NULL;
    if (!map || map->now.rows == 0 || rests(l, i_layer)) return;
    const uint64_t begin = sq_os_now_ns();
    const sq_rows x = rows_of(l, h);
    const sq_linear lin = {&map->now, NULL, &l->y[0], false};
    sq_be_linear(l->b, &x, &lin, 1);
    make_guess(l, i_layer, SQ_LOOK_LATE, map, &l->y[0]);
    l->ns += sq_os_now_ns() - begin;
}

/* ---- what came of it ------------------------------------------------------------------------- */

static bool has(const int32_t *list, int32_t n, int32_t e) {
    for (int32_t i = 0; i < n; i++)
        if (list[i] == e) return true;
    return false;
}

static sq_look_count count_of(const sq_look *l, const guess *g, const sq_routes *r) {
    const int32_t used = l->rule.used;
    sq_look_count c = {.tokens = (uint64_t)l->m};
    for (int32_t i = 0; i < l->m; i++) {
        const int32_t *list = g->list + (size_t)i * (size_t)l->want;
        for (int32_t k = 0; k < used; k++) {
            const int32_t e = r->expert[(size_t)i * (size_t)used + (size_t)k];
            const bool strict = has(list, used, e);
            c.strict += strict;
            c.covered += strict || has(list + used, l->want - used, e);
        }
    }
    return c;
}

static void add_count(sq_look_count *to, const sq_look_count *c) {
    to->tokens += c->tokens, to->strict += c->strict, to->covered += c->covered;
}

/* A layer whose guesses are mostly wrong reads for nothing. */
static void watch_layer(sq_look *l, int32_t layer, const sq_look_count *c) {
    watch *w = &l->watch[layer];
    if (w->rest > 0) w->rest -= l->m;
    if (!c || l->o.unwatched) return;
    w->tokens += (int32_t)c->tokens;
    w->hits += (int32_t)c->strict;
    if (w->tokens < SQ_LOOK_WATCHED) return;
    if (2 * w->hits < w->tokens * l->rule.used) {
        w->rest = SQ_LOOK_REST;
        l->rests++;
    }
    w->tokens = w->hits = 0;
}

static void count(sq_look *l, int32_t layer, const sq_routes *r) {
    sq_look_count c[SQ_LOOK_MOMENTS];
    const sq_look_count *last = NULL;
    for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
        if (l->guess[k].layer != layer) continue;
        c[k] = count_of(l, &l->guess[k], r);
        add_count(&l->count[layer][k], &c[k]);
        last = &c[k];
        l->guess[k].layer = -1;
    }
    if (last) {
        add_count(&l->all, last);
        l->layers++;
    }
    watch_layer(l, layer, last);
}

/* Of T0: an expert is worth what it was worth a token before, less a little, and 1 more if it was taken. */
static void remember_choice(sq_look *l, int32_t layer, const sq_routes *r) {
    const float fades = 0.9f;
    for (int32_t s = 0; s < l->seqs; s++) {
        const int32_t row = l->keeps[s];
        if (row < 0) continue;
        float *past = past_of(l, s, layer, 0);
        const bool known = l->of_row[row] == s;
        for (int32_t e = 0; e < l->n; e++) past[e] = known ? past[e] * fades : 0.0f;
        for (int32_t k = 0; k < r->rule.used; k++)
            past[r->expert[(size_t)row * (size_t)r->rule.used + (size_t)k]] += 1.0f;
    }
}

static void remember(sq_look *l, int32_t layer, int32_t moment, const sq_rows *y) {
    for (int32_t s = 0; s < l->seqs; s++)
        if (l->keeps[s] >= 0)
            memcpy(past_of(l, s, layer, moment), sq_be_host(l->b, y) + (size_t)l->keeps[s] * sq_rows_ld(y),
                   (size_t)l->n * sizeof(float));
}

/* One pass over the maps that read h: of the next layer, and, for the next token, of this one. */
static void pass(sq_look *l, int32_t i_layer, const sq_rows *h, bool own, bool next) {
    const sq_look_map *mine = l->maps->map[i_layer];
    const sq_look_map *then = next ? &l->maps->map[i_layer + 1][SQ_LOOK_EARLY] : NULL;
    const sq_rows x = rows_of(l, h);
    sq_linear lin[TABLES];
    int32_t n = 0, at[SQ_LOOK_MOMENTS] = {-1, -1};
    if (then && then->now.rows > 0)
        lin[n] = (sq_linear){&then->now, NULL, &l->y[n], false}, n++;
    else
        then = NULL;
    for (int32_t k = 0; own && k < SQ_LOOK_MOMENTS; k++) {
        if (mine[k].prev.rows == 0) continue;
        at[k] = n;
        lin[n] = (sq_linear){&mine[k].prev, NULL, &l->y[n], false}, n++;
    }
    if (n == 0) return;
    sq_be_linear(l->b, &x, lin, n);
    for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++)
        if (at[k] >= 0) remember(l, i_layer, k, &l->y[at[k]]);
    if (then) make_guess(l, i_layer + 1, SQ_LOOK_EARLY, then, &l->y[0]);
}

void sq_look_routed(sq_look *l, int32_t i_layer, const sq_routes *r) {
    for (int32_t e = 0; l->o.has && e < l->n; e++) {
        if (r->first[e + 1] == r->first[e]) continue;
        l->needed++;
        l->resident += l->o.has(l->o.user, i_layer, e);
    }
    if (l->m == 0) return;
    const uint64_t begin = sq_os_now_ns();
    count(l, i_layer, r);
    l->ns += sq_os_now_ns() - begin;
}

void sq_look_block(sq_look *l, int32_t i_layer, const sq_rows *h, const sq_routes *r) {
    if (l->m == 0) return;
    const uint64_t begin = sq_os_now_ns();
    const bool next = i_layer + 1 < l->n_layers && !rests(l, i_layer + 1);
    if (l->maps->map) {
        pass(l, i_layer, h, r && !rests(l, i_layer), next);
    } else {
        if (r) remember_choice(l, i_layer, r);
        if (next) guess_as_before(l, i_layer + 1, SQ_LOOK_EARLY);
    }
    l->ns += sq_os_now_ns() - begin;
}

void sq_forward_set_look(sq_forward *f, sq_look *l) { f->look = l; }
