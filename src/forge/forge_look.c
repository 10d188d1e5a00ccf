/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_look.c - from rows of the forward pass to sums, and from sums to maps.
 *
 * Rows are gathered into z until there are SLICE of them; then panels of columns of C and B, each one
 * thread's, take the product of the slice in f32 and add it in f64. */
#include "forge/forge_look.h"

#include <math.h>
#include <string.h>

enum { SLICE = 128, PANEL = 64, TOKENS_MIN = 64 };
static const double RIDGE = 1e-3;

/* Of one layer. */
typedef struct {
    int32_t layer;  /* with experts */
    int32_t filled; /* rows of z */
    float *z;       /* [SLICE][width]: a | h' | p | 1 | y */
    float *before;  /* [hidden]: p of the next row */
    double *c;      /* [width_x][width]: C | B, of which C above its diagonal */
    float *router;  /* [n][hidden] */
} layer_sums;

struct sq_look_sums {
    squish_alloc alloc;
    const sq_model *m;
    sq_pool *pool;
    int32_t from, to, n_layers, rows_max;
    int32_t hidden, n, x, width; /* x: columns of a | h' | p | 1; width: and of y */
    bool fresh;                  /* no token stands before the next row */
    int64_t tokens;
    float *a, *h; /* [rows_max][hidden] of this step: before attention; behind the one of the layer before */
    float *tmp;   /* [threads][x][PANEL] */
    void *memory;
    size_t bytes;
    layer_sums *layers; /* [n_layers] */
};

static size_t layer_floats(const sq_config *c) {
    const size_t h = (size_t)c->hidden, n = (size_t)c->moe.n, x = 3 * h + 1, w = x + n;
    return SLICE * w + h + n * h + 2 * x * w + 64;
}

uint64_t sq_look_sums_bytes(const sq_config *c) { return layer_floats(c) * sizeof(float); }

squish_status sq_look_sums_new(sq_look_sums **out, const sq_model *m, int32_t from, int32_t to,
                               int32_t rows_max, sq_pool *pool, const squish_alloc *a, squish_error *err) {
    const sq_config *c = &m->cfg;
    *out = NULL;
    sq_look_sums *s = sq_alloc_zero(a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    *s = (sq_look_sums){.alloc = *a,
                        .m = m,
                        .pool = pool,
                        .from = from,
                        .to = to,
                        .rows_max = rows_max,
                        .hidden = c->hidden,
                        .n = c->moe.n,
                        .x = 3 * c->hidden + 1,
                        .fresh = true};
    s->width = s->x + s->n;
    for (int32_t t = from; t < to; t++) s->n_layers += m->layers[t].experts != NULL;
    const size_t h = (size_t)s->hidden, x = (size_t)s->x, w = (size_t)s->width, n = (size_t)s->n;
    const size_t threads = (size_t)(pool ? sq_pool_threads(pool) : 1);
    const size_t floats =
        (size_t)s->n_layers * layer_floats(c) + 2 * (size_t)rows_max * h + threads * x * PANEL;
    const size_t doubles_at = sq_align_up((size_t)s->n_layers * sizeof *s->layers, 64);
    s->bytes = doubles_at + floats * sizeof(float);
    s->memory = sq_alloc_zero(a, s->bytes);
    if (!s->memory) {
        const double gb = (double)s->bytes / 1e9;
        sq_look_sums_free(s);
        return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: no memory for sums of %.2f GB", gb);
    }
    s->layers = s->memory;
    double *d = (double *)(void *)((char *)s->memory + doubles_at);
    float *f = (float *)(d + (size_t)s->n_layers * x * w);
    for (int32_t t = from, i = 0; t < to; t++) {
        if (!m->layers[t].experts) continue;
        layer_sums *l = &s->layers[i++];
        *l = (layer_sums){.layer = t, .c = d, .z = f, .before = f + SLICE * w, .router = f + SLICE * w + h};
        d += x * w;
        f += SLICE * w + h + n * h;
        for (int32_t r = 0; r < s->n; r++)
            sq_weight_row(&m->layers[t].mat[SQ_ROLE_ROUTER], r, l->router + (size_t)r * h);
    }
    s->a = f, f += (size_t)rows_max * h;
    s->h = f, f += (size_t)rows_max * h;
    s->tmp = f;
    *out = s;
    return SQUISH_OK;
}

void sq_look_sums_free(sq_look_sums *s) {
    if (!s) return;
    squish_alloc a = s->alloc;
    sq_alloc_free(&a, s->memory, s->bytes);
    sq_alloc_free(&a, s, sizeof *s);
}

void sq_look_sums_window(sq_look_sums *s) { s->fresh = true; }

/* ---- adding up ------------------------------------------------------------------------------- */

typedef struct {
    const sq_look_sums *s;
    layer_sums *l;
} add_ctx;

static void add_item(void *ctx, int32_t item, int32_t thread) {
    const add_ctx *c = ctx;
    const sq_look_sums *s = c->s;
    const int32_t first = item * PANEL, left = s->width - first, cols = left < PANEL ? left : PANEL;
    const int32_t rows = first + cols < s->x ? first + cols : s->x;
    const size_t w = (size_t)s->width;
    float *p = s->tmp + (size_t)thread * (size_t)s->x * PANEL;
    sq_la_tall(NULL, c->l->z, w, rows, c->l->z + first, w, c->l->filled, cols, p, PANEL);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < cols; j++)
            c->l->c[(size_t)i * w + (size_t)(first + j)] += (double)p[(size_t)i * PANEL + (size_t)j];
}

static void flush(const sq_look_sums *s, layer_sums *l) {
    if (l->filled == 0) return;
    add_ctx c = {s, l};
    sq_each(s->pool, add_item, &c, sq_div_up(s->width, PANEL));
    l->filled = 0;
}

static void add_row(const sq_look_sums *s, layer_sums *l, int32_t i, const float *now) {
    const size_t h = (size_t)s->hidden, bytes = h * sizeof(float);
    float *z = l->z + (size_t)l->filled * (size_t)s->width;
    memcpy(z, s->a + (size_t)i * h, bytes);
    memcpy(z + h, s->h + (size_t)i * h, bytes);
    memcpy(z + 2 * h, l->before, bytes);
    z[3 * h] = 1.0f;
    sq_la_dots(NULL, l->router, h, s->n, now, h, 1, s->hidden, z + 3 * h + 1, 1);
    if (++l->filled == SLICE) flush(s, l);
}

static void keep(float *to, const sq_look_sums *s, const float *x, size_t ld, int32_t m) {
    const size_t h = (size_t)s->hidden;
    for (int32_t i = 0; i < m; i++) memcpy(to + (size_t)i * h, x + (size_t)i * ld, h * sizeof *to);
}

void sq_look_sums_take(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m) {
    sq_look_sums *s = user;
    const size_t bytes = (size_t)s->hidden * sizeof(float);
    if (tap == SQ_TAP_ATTN_IN && layer >= s->from && layer < s->to) keep(s->a, s, x, ld, m);
    if (tap != SQ_TAP_FFN_IN) return;
    for (int32_t k = 0; k < s->n_layers; k++) {
        layer_sums *l = &s->layers[k];
        if (l->layer != layer) continue;
        for (int32_t i = 0; i < m; i++) {
            const float *now = x + (size_t)i * ld;
            if (i > 0 || !s->fresh) add_row(s, l, i, now);
            memcpy(l->before, now, bytes);
        }
    }
    keep(s->h, s, x, ld, m);
    if (layer + 1 < s->m->cfg.n_layers) return;
    s->tokens += m - s->fresh;
    s->fresh = false;
}

/* ---- solving --------------------------------------------------------------------------------- */

/* Maps of a layer on the rows that begin at column `first` of z, and on p. */
static squish_status solve_map(const sq_look_sums *s, const layer_sums *l, int32_t first,
                               sq_look_fit_map *out, double *g, double *b, squish_error *err) {
    const int32_t h = s->hidden, n_x = 2 * h + 1;
    const size_t w = (size_t)s->width, n = (size_t)n_x;
    const double *ones = l->c + 3 * (size_t)h; /* column of 1: sums of z */
    for (int32_t i = 0; i < n_x; i++) {
        const int32_t at_i = i < h ? first + i : h + i; /* behind h: p and the constant */
        for (int32_t j = 0; j <= i; j++) {
            const int32_t at_j = j < h ? first + j : h + j;
            g[(size_t)i * n + (size_t)j] = l->c[(size_t)at_j * w + (size_t)at_i];
        }
        for (int32_t e = 0; e < s->n; e++)
            b[(size_t)e * n + (size_t)i] = l->c[(size_t)at_i * w + (size_t)(s->x + e)];
    }
    const double count = g[n * n - 1];
    if (!sq_ridge_solve(s->pool, g, n_x, 1, RIDGE, b, s->n))
        return sq_fail(err, SQUISH_NUMERIC, "lookahead: layer %d: what its router sees gives no map",
                       l->layer);
    for (int32_t e = 0; e < s->n; e++) {
        const double *x = b + (size_t)e * n;
        double rest = 0; /* what p gives in the mean */
        for (int32_t i = 0; i < h; i++) {
            const double mean = ones[(size_t)(2 * h + i) * w] / count;
            out->now[(size_t)e * (size_t)h + (size_t)i] = (float)x[i];
            out->prev[(size_t)e * (size_t)h + (size_t)i] = (float)x[h + i];
            rest += x[h + i] * mean;
        }
        out->bias[e] = (float)x[2 * h];
        out->bias[s->n + e] = (float)(x[2 * h] + rest);
        if (!isfinite(rest) || !isfinite(x[2 * h]))
            return sq_fail(err, SQUISH_NUMERIC, "lookahead: layer %d: its map is not finite", l->layer);
    }
    return SQUISH_OK;
}

squish_status sq_look_sums_solve(const sq_look_sums *s, sq_look_fit *f, squish_error *err) {
    const size_t n = 2 * (size_t)s->hidden + 1, doubles = n * n + (size_t)s->n * n;
    squish_status st = SQUISH_OK;
    if (s->tokens < TOKENS_MIN)
        return sq_fail(err, SQUISH_INVALID, "lookahead: fitted to %lld tokens, wanted at least %d",
                       (long long)s->tokens, TOKENS_MIN);
    double *g = sq_alloc_new(&s->alloc, doubles * sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    for (int32_t k = 0; k < s->n_layers && st == SQUISH_OK; k++) {
        layer_sums *l = &s->layers[k];
        flush(s, l);
        st = solve_map(s, l, 0, &f->map[l->layer][SQ_LOOK_LATE], g, g + n * n, err);
        if (st == SQUISH_OK && l->layer > 0)
            st = solve_map(s, l, s->hidden, &f->map[l->layer][SQ_LOOK_EARLY], g, g + n * n, err);
    }
    sq_alloc_free(&s->alloc, g, doubles * sizeof *g);
    f->tokens = s->tokens;
    return st;
}
