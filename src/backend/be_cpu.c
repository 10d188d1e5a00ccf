/* SPDX-License-Identifier: Apache-2.0
 *
 * be_cpu.c - the CPU backend: life, rows of activations, and the operations that work row by row.
 *
 * Threads: the owner calls operations; each spreads its items over the pool and returns when all are done. An
 * output element is always made whole by one item in the order kernels.h fixes, so the split never shows in
 * results. */
#include "backend/be_int.h"

#include <math.h>

/* ---- life ------------------------------------------------------------------------------------ */

static size_t mixed_bytes(const sq_backend_options *o) {
    const int32_t d = (int32_t)sq_align_up((size_t)o->head_dim_max, 16);
    return SQ_ATTN_TILES * sq_align_up(sq_kv_k_bytes(SQ_KV_Q8, d), 64);
}

static size_t scratch_per_thread(const sq_backend_options *o) {
    size_t tile = (size_t)o->m_max * SQ_GROUP * sizeof(float);
    size_t attn = (size_t)SQ_BE_ATTN_ROWS * (size_t)sq_align_up((size_t)o->head_dim_max, 16) * sizeof(float);
    const size_t tiles = o->rank_max ? 3 : 2;
    return sq_align_up(tiles * tile + 4 * attn + 8 * SQ_BE_ATTN_ROWS * sizeof(float) +
                           sq_be_pooled_floats(o) * sizeof(float) +
                           sq_align_up(sq_be_keep_bytes(o), 64) + mixed_bytes(o) + 64,
                       64);
}

static size_t partial_bytes(const sq_backend_options *o) {
    size_t chunks = (size_t)sq_div_up(o->ctx_max, SQ_ATTN_CHUNK);
    return chunks * (size_t)o->heads_max * ((size_t)sq_align_up((size_t)o->head_dim_max, 16) + 16) *
           sizeof(float);
}

static size_t low_bytes(const sq_backend_options *o) {
    return (size_t)o->m_max * (size_t)o->rank_max * sizeof(float);
}

uint64_t sq_backend_scratch_bytes(const sq_backend_options *o) {
    return (uint64_t)o->threads * scratch_per_thread(o) + partial_bytes(o) + low_bytes(o) +
           sq_be_past_bytes(o);
}

static void scratch_carve(sq_backend *b) {
    const sq_backend_options *o = &b->opt;
    const size_t tile = (size_t)o->m_max * SQ_GROUP, d = sq_align_up((size_t)o->head_dim_max, 16);
    for (int32_t t = 0; t < o->threads; t++) {
        float *p = (float *)((char *)b->scratch_mem + (size_t)t * scratch_per_thread(o));
        sq_be_scratch *s = &b->scratch[t];
        s->tile = p, p += tile;
        s->tile2 = p, p += tile;
        if (o->rank_max) s->tile3 = p, p += tile;
        s->q = p, p += SQ_BE_ATTN_ROWS * d;
        s->o = p, p += SQ_BE_ATTN_ROWS * d;
        s->oc = p, p += SQ_BE_ATTN_ROWS * d;
        s->run_o = p, p += SQ_BE_ATTN_ROWS * d;
        s->run_m = p, p += SQ_BE_ATTN_ROWS;
        s->run_l = p, p += SQ_BE_ATTN_ROWS;
        s->m = p, p += SQ_BE_ATTN_ROWS;
        s->l = p, p += SQ_BE_ATTN_ROWS;
        s->mc = p, p += SQ_BE_ATTN_ROWS;
        s->lc = p, p += SQ_BE_ATTN_ROWS;
        s->lo = (int32_t *)p, p += SQ_BE_ATTN_ROWS;
        s->hi = (int32_t *)p, p += SQ_BE_ATTN_ROWS;
        s->pooled = p, p += sq_be_pooled_floats(o);
        s->keep = (uint8_t *)p;
        s->mixed = s->keep + sq_be_keep_bytes(o);
        s->mixed += sq_align_up((uintptr_t)s->mixed, 64) - (uintptr_t)s->mixed;
    }
}

squish_status sq_backend_cpu_new(sq_backend **out, const sq_backend_options *opt, const squish_alloc *a,
                                 squish_error *err) {
    *out = NULL;
    sq_backend *b = sq_alloc_zero(a, sizeof *b);
    if (!b) return sq_fail(err, SQUISH_NO_MEMORY, "backend: out of memory");
    b->alloc = *a;
    b->opt = *opt;
    sq_kernels_select(&b->k, sq_cpu_features(), opt->isa_max);
    squish_status st = SQUISH_OK;
    b->scratch_bytes = (size_t)opt->threads * scratch_per_thread(opt);
    b->partial_bytes = partial_bytes(opt);
    b->scratch = sq_alloc_zero(a, (size_t)opt->threads * sizeof *b->scratch);
    b->scratch_mem = sq_os_reserve(b->scratch_bytes);
    b->partial = sq_os_reserve(b->partial_bytes);
    b->low_bytes = low_bytes(opt);
    if (opt->rank_max) b->low = sq_os_reserve(b->low_bytes);
    b->past.bytes = sq_be_past_bytes(opt);
    if (b->past.bytes) b->past.memory = sq_os_reserve(b->past.bytes);
    if (!b->scratch || !b->scratch_mem || !b->partial || (opt->rank_max && !b->low) ||
        (b->past.bytes && !b->past.memory)) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "backend: cannot reserve %zu bytes of scratch",
                     b->scratch_bytes + b->partial_bytes + b->low_bytes + b->past.bytes);
        goto fail;
    }
    scratch_carve(b);
    sq_be_past_carve(b);
    SQ_GUARD(sq_pool_new(&b->pool, a, opt->threads, err));
    *out = b;
    return SQUISH_OK;
fail:
    sq_backend_free(b);
    return st;
}

void sq_backend_free(sq_backend *b) {
    if (!b) return;
    sq_pool_free(b->pool);
    if (b->past.memory) sq_os_release(b->past.memory, b->past.bytes);
    if (b->low) sq_os_release(b->low, b->low_bytes);
    if (b->partial) sq_os_release(b->partial, b->partial_bytes);
    if (b->scratch_mem) sq_os_release(b->scratch_mem, b->scratch_bytes);
    squish_alloc a = b->alloc;
    sq_alloc_free(&a, b->scratch, (size_t)b->opt.threads * sizeof *b->scratch);
    sq_alloc_free(&a, b, sizeof *b);
}

const char *sq_backend_isa(const sq_backend *b) { return b->k.isa; }

void *sq_backend_alloc(sq_backend *b, size_t bytes) {
    (void)b; /* host memory is device memory here */
    return sq_os_reserve(bytes);
}

void sq_backend_release(sq_backend *b, void *p, size_t bytes) {
    (void)b;
    if (p) sq_os_release(p, bytes);
}

void sq_be_run(sq_backend *b, sq_pool_fn fn, void *ctx, int32_t n_items, int64_t work) {
    if (n_items > 1 && work >= SQ_BE_SMALL) {
        sq_pool_run(b->pool, fn, ctx, n_items);
        return;
    }
    for (int32_t i = 0; i < n_items; i++) fn(ctx, i, 0);
}

/* ---- rows ------------------------------------------------------------------------------------ */

size_t sq_rows_bytes(int32_t m_max, int32_t cols, bool with_q) {
    size_t m = (size_t)m_max, groups = (size_t)sq_div_up(cols, SQ_GROUP), ld = groups * SQ_GROUP;
    size_t f = sq_align_up(m * ld * sizeof(float), 64);
    if (!with_q) return f;
    return f + sq_align_up(m * ld, 64) + 3 * sq_align_up(m * groups * sizeof(float), 64) +
           sq_align_up(m * groups * 4 * sizeof(int16_t), 64);
}

void sq_rows_carve(sq_rows *r, int32_t m_max, int32_t cols, bool with_q, void *memory) {
    char *p = memory;
    *r = (sq_rows){.m_max = m_max, .cols = cols, .groups = sq_div_up(cols, SQ_GROUP)};
    const size_t m = (size_t)m_max, ld = sq_rows_ld(r);
    const size_t side = sq_align_up(m * (size_t)r->groups * sizeof(float), 64);
    r->f = (float *)p, p += sq_align_up(m * ld * sizeof(float), 64);
    if (!with_q) return;
    r->q = (int8_t *)p, p += sq_align_up(m * ld, 64);
    r->scale = (float *)p, p += side;
    r->xsum = (float *)p, p += side;
    r->isum = (int32_t *)p, p += side;
    r->isum16 = (int16_t *)p;
}

sq_act sq_be_act(const sq_rows *r) {
    return (sq_act){.m = r->m,
                    .cols = r->cols,
                    .groups = r->groups,
                    .f = r->f,
                    .q = r->quantised ? r->q : NULL,
                    .scale = r->scale,
                    .xsum = r->xsum,
                    .isum = r->isum,
                    .isum16 = r->isum16};
}

static void quantise_row(const sq_backend *b, sq_rows *r, int32_t i) {
    const size_t at = (size_t)i * sq_rows_ld(r), g = (size_t)i * (size_t)r->groups;
    b->k.quant_q8g64(r->f + at, 0, r->groups, r->q + at, r->scale + g, r->xsum + g, r->isum + g,
                     r->isum16 + 4 * g);
}

typedef struct {
    sq_backend *b;
    sq_rows *r;
} quantise_ctx;

static void quantise_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const quantise_ctx *c = ctx;
    quantise_row(c->b, c->r, item);
}

void sq_be_quantise(sq_backend *b, sq_rows *r) {
    quantise_ctx c = {b, r};
    sq_be_run(b, quantise_item, &c, r->m, r->m > 1 ? (int64_t)r->m * r->cols * 8 : 0);
    r->quantised = true;
}

/* ---- weights --------------------------------------------------------------------------------- */

enum { POPULATE_BYTES = 4 << 20 }; /* of one item */

typedef struct {
    const uint8_t *p;
    size_t bytes;
} populate_ctx;

static void populate_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const populate_ctx *c = ctx;
    const size_t at = (size_t)i * POPULATE_BYTES, left = c->bytes - at;
    sq_os_populate(c->p + at, left < POPULATE_BYTES ? left : POPULATE_BYTES);
}

void sq_be_populate(sq_backend *b, const void *p, size_t bytes) {
    populate_ctx c = {p, bytes};
    sq_be_run(b, populate_item, &c, (int32_t)((bytes + POPULATE_BYTES - 1) / POPULATE_BYTES), INT32_MAX);
}

/* ---- row operations -------------------------------------------------------------------------- */

typedef struct {
    const sq_weight *table;
    const int32_t *ids;
    float scale;
    sq_rows *x;
} embed_ctx;

static void embed_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const embed_ctx *c = ctx;
    float *row = c->x->f + (size_t)i * sq_rows_ld(c->x);
    sq_weight_row_whole(c->table, c->ids[i], row);
    if (c->scale != 1.0f)
        for (int32_t j = 0; j < c->x->cols; j++) row[j] *= c->scale;
}

void sq_be_embed(sq_backend *b, const sq_weight *table, const int32_t *ids, int32_t m, float scale,
                 sq_rows *x) {
    x->m = m;
    x->quantised = false;
    embed_ctx c = {table, ids, scale, x};
    sq_be_run(b, embed_item, &c, m, (int64_t)m * x->cols * 4);
}

typedef struct {
    sq_backend *b;
    const sq_rows *x;
    const int32_t *pick;
    const float *w;
    float eps;
    bool quantise;
    sq_rows *y;
} norm_ctx;

static void norm_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const norm_ctx *c = ctx;
    const size_t from = (size_t)(c->pick ? c->pick[i] : i);
    c->b->k.rmsnorm(c->x->f + from * sq_rows_ld(c->x), c->w, c->x->cols, c->eps,
                    c->y->f + (size_t)i * sq_rows_ld(c->y));
    if (c->quantise) quantise_row(c->b, c->y, i);
}

void sq_be_rmsnorm(sq_backend *b, const sq_rows *x, const int32_t *pick, int32_t m, const float *w, float eps,
                   bool quantise, sq_rows *y) {
    y->m = m;
    norm_ctx c = {b, x, pick, w, eps, quantise, y};
    sq_be_run(b, norm_item, &c, m, (int64_t)m * x->cols * 4);
    y->quantised = quantise;
}

typedef struct {
    sq_backend *b;
    sq_rows *x;
    const sq_rows *y;
} add_ctx;

static void add_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const add_ctx *c = ctx;
    c->b->k.add(c->x->f + (size_t)i * sq_rows_ld(c->x), c->y->f + (size_t)i * sq_rows_ld(c->y), c->x->cols);
}

void sq_be_add(sq_backend *b, sq_rows *x, const sq_rows *y) {
    add_ctx c = {b, x, y};
    sq_be_run(b, add_item, &c, x->m, (int64_t)x->m * x->cols);
    x->quantised = false;
}

void sq_be_silu_add(sq_backend *b, sq_rows *x, sq_rows *s) {
    float ones[SQ_GROUP];
    for (int32_t i = 0; i < SQ_GROUP; i++) ones[i] = 1;
    for (int32_t i = 0; i < x->m; i++)
        for (int32_t g = 0; g < x->groups; g++) {
            const size_t at = (size_t)i * sq_rows_ld(x) + (size_t)g * SQ_GROUP;
            b->k.silu_mul(s->f + at, ones, SQ_GROUP, s->f + at);
        }
    sq_be_add(b, x, s);
}

void sq_be_copy_rows(sq_backend *b, const sq_rows *x, int32_t from, int32_t n, sq_rows *y, int32_t to) {
    (void)b;
    const size_t ld = sq_rows_ld(x);
    memcpy(y->f + (size_t)to * ld, x->f + (size_t)from * ld, (size_t)n * ld * sizeof *y->f);
    y->m = to + n;
    y->quantised = false;
}

typedef struct {
    const int32_t *pos;
    const double *inv_freq;
    int32_t half;
    double A;
    float *cos, *sin;
} rope_ctx;

static void rope_item(void *ctx, int32_t i, int32_t thread) {
    (void)thread;
    const rope_ctx *c = ctx;
    float *cs = c->cos + (size_t)i * (size_t)c->half, *sn = c->sin + (size_t)i * (size_t)c->half;
    for (int32_t j = 0; j < c->half; j++) {
        const double angle = (double)c->pos[i] * c->inv_freq[j];
        cs[j] = (float)(c->A * cos(angle));
        sn[j] = (float)(c->A * sin(angle));
    }
}

void sq_be_rope_table(sq_backend *b, const int32_t *pos, int32_t m, const double *inv_freq, int32_t half,
                      double A, float *cs, float *sn) {
    rope_ctx c = {pos, inv_freq, half, A, cs, sn};
    sq_be_run(b, rope_item, &c, m, (int64_t)m * half * 64);
}

const float *sq_be_host(sq_backend *b, const sq_rows *r) {
    (void)b;
    return r->f;
}
