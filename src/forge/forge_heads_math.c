/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_heads_math.c - the arithmetic of training heads: each element is made whole by one thread, in one
 * order, so threads cannot change a bit. */
#include "forge/forge_heads.h"

#include <math.h>
#include <string.h>

enum { M_STEP = 128, BLOCK = 32, PIECE = 1 << 14 };

/* ---- products -------------------------------------------------------------------------------- */

typedef struct {
    const sq_hm *h;
    sq_weight w;
    const float *x;
    float *y;
    size_t ldy;
    int32_t m, tiles;
} product;

static void product_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const product *p = ctx;
    const int32_t tile = item % p->tiles, i0 = item / p->tiles * M_STEP;
    const int32_t m = p->m - i0 < M_STEP ? p->m - i0 : M_STEP;
    const sq_weight w = sq_weight_slice(&p->w, tile, 1);
    const sq_act x = {.m = m, .cols = w.cols, .groups = w.groups, .f = p->x + (size_t)i0 * (size_t)w.cols};
    p->h->k.gemm_f32(&w, 0, 1, &x, p->y + (size_t)i0 * p->ldy + (size_t)tile * SQ_TILE_ROWS, p->ldy);
}

void sq_hm_product(const sq_hm *h, const float *w, int32_t rows, int32_t cols, const float *x, int32_t m,
                   float *y, size_t ldy) {
    product p = {.h = h, .x = x, .y = y, .ldy = ldy, .m = m};
    p.w = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, rows, cols, (const uint8_t *)w);
    p.tiles = sq_weight_tiles(&p.w);
    sq_pool_run(h->pool, product_item, &p, p.tiles * sq_div_up(m, M_STEP));
}

typedef struct {
    const float *in;
    float *out;
    int32_t rows, cols;
} turn;

static void turn_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const turn *t = ctx;
    const int32_t c0 = item * BLOCK, c1 = c0 + BLOCK < t->cols ? c0 + BLOCK : t->cols;
    for (int32_t r0 = 0; r0 < t->rows; r0 += BLOCK) {
        const int32_t r1 = r0 + BLOCK < t->rows ? r0 + BLOCK : t->rows;
        for (int32_t c = c0; c < c1; c++)
            for (int32_t r = r0; r < r1; r++)
                t->out[(size_t)c * (size_t)t->rows + (size_t)r] =
                    t->in[(size_t)r * (size_t)t->cols + (size_t)c];
    }
}

void sq_hm_transpose(const sq_hm *h, const float *in, int32_t rows, int32_t cols, float *out) {
    turn t = {in, out, rows, cols};
    sq_pool_run(h->pool, turn_item, &t, sq_div_up(cols, BLOCK));
}

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct {
    const sq_hm *h;
    float *x;
    const float *b;
    int32_t cols, m;
} rows_ctx;

static void softmax_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const rows_ctx *c = ctx;
    float *x = c->x + (size_t)i * (size_t)c->cols, most = x[0], sum = 0;
    for (int32_t j = 1; j < c->cols; j++)
        if (x[j] > most) most = x[j];
    for (int32_t j = 0; j < c->cols; j++) sum += x[j] = expf(x[j] - most);
    const float by = 1 / sum;
    for (int32_t j = 0; j < c->cols; j++) x[j] *= by;
}

void sq_hm_softmax(const sq_hm *h, float *x, int32_t m, int32_t cols) {
    rows_ctx c = {h, x, NULL, cols, m};
    sq_pool_run(h->pool, softmax_item, &c, m);
}

static void bias_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const rows_ctx *c = ctx;
    c->h->k.add(c->x + (size_t)i * (size_t)c->cols, c->b, c->cols);
}

void sq_hm_bias(const sq_hm *h, float *x, int32_t m, int32_t cols, const float *b) {
    rows_ctx c = {h, x, b, cols, m};
    sq_pool_run(h->pool, bias_item, &c, m);
}

static void sum_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const rows_ctx *c = ctx;
    const int32_t from = item * BLOCK, to = from + BLOCK < c->cols ? from + BLOCK : c->cols;
    for (int32_t j = from; j < to; j++) c->x[j] = 0;
    for (int32_t i = 0; i < c->m; i++)
        for (int32_t j = from; j < to; j++) c->x[j] += c->b[(size_t)i * (size_t)c->cols + (size_t)j];
}

void sq_hm_sum_rows(const sq_hm *h, const float *x, int32_t m, int32_t cols, float *g) {
    rows_ctx c = {h, g, x, cols, m};
    sq_pool_run(h->pool, sum_item, &c, sq_div_up(cols, BLOCK));
}

/* ---- elements -------------------------------------------------------------------------------- */

typedef struct {
    const sq_hm *h;
    const sq_hm_adam *adam;
    const float *a, *b;
    float *out, *m, *v;
    size_t n;
} elements;

static size_t piece_of(const elements *e, int32_t item, size_t *from) {
    *from = (size_t)item * PIECE;
    return e->n - *from < PIECE ? e->n - *from : PIECE;
}

static void run(const sq_hm *h, sq_pool_fn fn, elements *e) {
    sq_pool_run(h->pool, fn, e, (int32_t)((e->n + PIECE - 1) / PIECE));
}

static void silu_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const elements *e = ctx;
    size_t at;
    const size_t n = piece_of(e, item, &at);
    for (size_t i = at; i < at + n; i++) e->out[i] = e->a[i] + e->b[i] / (1 + expf(-e->b[i]));
}

void sq_hm_silu(const sq_hm *h, const float *u, const float *s, size_t n, float *z) {
    elements e = {.h = h, .a = u, .b = s, .out = z, .n = n};
    run(h, silu_item, &e);
}

static void silu_back_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const elements *e = ctx;
    size_t at;
    const size_t n = piece_of(e, item, &at);
    for (size_t i = at; i < at + n; i++) {
        const float s = e->b[i], p = 1 / (1 + expf(-s));
        e->out[i] = e->a[i] * p * (1 + s * (1 - p));
    }
}

void sq_hm_silu_back(const sq_hm *h, const float *dz, const float *s, size_t n, float *ds) {
    elements e = {.h = h, .a = dz, .b = s, .out = ds, .n = n};
    run(h, silu_back_item, &e);
}

static void add_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const elements *e = ctx;
    size_t at;
    const size_t n = piece_of(e, item, &at);
    e->h->k.add(e->out + at, e->a + at, (int32_t)n);
}

void sq_hm_add(const sq_hm *h, float *x, const float *y, size_t n) {
    elements e = {.h = h, .a = y, .out = x, .n = n};
    run(h, add_item, &e);
}

static void adam_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    static const float b1 = 0.9f, b2 = 0.98f;
    const elements *e = ctx;
    size_t at;
    const size_t n = piece_of(e, item, &at);
    const float c1 = 1 / (1 - powf(b1, (float)e->adam->step)), c2 = 1 / (1 - powf(b2, (float)e->adam->step));
    const float rate = e->adam->rate, keep = 1 - rate * e->adam->decay;
    float *w = e->out + at, *m = e->m + at, *v = e->v + at;
    const float *g = e->a + at;
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
        w[i] = w[i] * keep - rate * (m[i] * c1) / (sqrtf(v[i] * c2) + 1e-8f);
    }
}

void sq_hm_adam_step(const sq_hm *h, const sq_hm_adam *a, float *w, const float *g, float *m, float *v,
                     size_t n) {
    elements e = {.h = h, .adam = a, .a = g, .out = w, .m = m, .v = v, .n = n};
    run(h, adam_item, &e);
}

/* ---- least squares ---------------------------------------------------------------------------- */

typedef struct {
    double *a;
    const double *c;
    float *w;
    int32_t n, j, ld;
} solve_ctx;

static double dot(const double *x, const double *y, int32_t n) {
    double s[4] = {0};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int32_t k = 0; k < 4; k++) s[k] += x[i + k] * y[i + k];
    for (; i < n; i++) s[0] += x[i] * y[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void column_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const solve_ctx *c = ctx;
    const int32_t from = c->j + 1 + item * BLOCK, to = from + BLOCK < c->n ? from + BLOCK : c->n;
    const double *lj = c->a + (size_t)c->j * (size_t)c->n, by = 1 / lj[c->j];
    for (int32_t i = from; i < to; i++) {
        double *li = c->a + (size_t)i * (size_t)c->n;
        li[c->j] = (li[c->j] - dot(li, lj, c->j)) * by;
    }
}

bool sq_hm_cholesky(const sq_hm *h, double *a, int32_t n) {
    for (int32_t j = 0; j < n; j++) {
        double *lj = a + (size_t)j * (size_t)n;
        const double d = lj[j] - dot(lj, lj, j);
        if (!(d > 0)) return false;
        lj[j] = sqrt(d);
        solve_ctx c = {.a = a, .n = n, .j = j};
        sq_pool_run(h->pool, column_item, &c, sq_div_up(n - j - 1, BLOCK));
    }
    return true;
}

enum { SOLVE_MAX = 16384 }; /* as WIDE_MAX of forge_heads.c */

/* One row: L y = c, then L^T w = y, from the end, a row of L at a time. */
static void solve_item(void *ctx, int32_t r, int32_t thread) {
    (void)thread;
    const solve_ctx *s = ctx;
    double y[SOLVE_MAX];
    const double *c = s->c + (size_t)r * (size_t)s->n;
    for (int32_t i = 0; i < s->n; i++) {
        const double *li = s->a + (size_t)i * (size_t)s->ld;
        y[i] = (c[i] - dot(li, y, i)) / li[i];
    }
    for (int32_t i = s->n - 1; i >= 0; i--) {
        const double *li = s->a + (size_t)i * (size_t)s->ld;
        y[i] /= li[i];
        for (int32_t k = 0; k < i; k++) y[k] -= li[k] * y[i];
    }
    float *w = s->w + (size_t)r * (size_t)s->n;
    for (int32_t i = 0; i < s->n; i++) w[i] = (float)y[i];
}

void sq_hm_solve(const sq_hm *h, const double *l, int32_t ld, const double *c, int32_t rows, int32_t n,
                 float *w) {
    solve_ctx s = {.a = (double *)l, .c = c, .w = w, .n = n, .ld = ld};
    sq_pool_run(h->pool, solve_item, &s, rows);
}
