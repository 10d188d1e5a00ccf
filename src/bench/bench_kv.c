/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kv.c - what a cache in fewer bits costs and gives: memory of a token, attention of a decoded token,
 * and whole tokens, each format beside f16 in the same run.
 *
 * One engine for every format on the same weights. Caches are filled with random rows instead of a prompt's:
 * speed does not depend on what they say, and 16,384 tokens of a large model would take minutes to compute.
 * Formats take turns within a run, so that a machine that slows down slows down all of them. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FORMATS = 6, STEPS = 8, CHUNK = 256, WEIGHINGS = 16 };
static const squish_kv formats[FORMATS] = {SQUISH_KV_F16, SQUISH_KV_Q8,   SQUISH_KV_K8V4,
                                           SQUISH_KV_Q4,  SQUISH_KV_K4V2, SQUISH_KV_Q2};

typedef struct {
    const bench_options *o;
    squish_model *m;
    sq_engine *e[FORMATS];
    sq_kv_seq *kv[FORMATS];
    bench_limits *limits;
    char *memory; /* of q and out */
    size_t memory_bytes;
    sq_rows q, out; /* one row, for attention alone */
    json_t *rows;
    int32_t done, all;
    double attend[FORMATS][BENCH_RUNS_MAX], decode[FORMATS][BENCH_RUNS_MAX], read[BENCH_RUNS_MAX];
} bench_kv_state;

/* ---- a cache full of something --------------------------------------------------------------- */

/* Rows of a tile as keys and values of a layer are: around 0, some channels far from it. */
static void fill_open(const sq_kv_geometry *g, const sq_kv_shape *s, uint8_t *page, uint64_t *rng) {
    const int32_t d = (int32_t)sq_align_up((size_t)s->head_dim, 16);
    for (int32_t h = 0; h < s->n_kv_heads; h++) {
        uint16_t *k = (uint16_t *)(void *)(page + g->k_off + (size_t)h * g->head_stride);
        uint16_t *v = (uint16_t *)(void *)(page + g->v_off + (size_t)h * g->head_stride);
        for (int32_t i = 0; i < d * SQ_KV_TILE; i++) {
            const uint64_t r = sq_splitmix64(rng);
            k[i] =
                sq_f32_to_f16((float)(int32_t)(r & 0xffff) / 32768.0f - 1.0f + (i / SQ_KV_TILE % 16 ? 0 : 4));
            v[i] = sq_f32_to_f16((float)(int32_t)(r >> 16 & 0xffff) / 32768.0f - 1.0f);
        }
    }
}

static void seal_page(const sq_kernels *k, const sq_kv_pool *p, const sq_kv_seq *s, int32_t tile,
                      int32_t layer) {
    sq_kv_shape shape;
    sq_kv_pool_shape(p, &shape);
    const sq_kv_policy *policy = sq_kv_pool_policy(p);
    const sq_kv_geometry *g = sq_kv_pool_geometry(p), z = sq_kv_geometry_sealed(&shape, policy, layer);
    const uint8_t *open = sq_kv_seq_pages(s, layer)[tile];
    uint8_t *sealed = sq_kv_seq_sealed_pages(s, layer)[tile];
    for (int32_t h = 0; h < shape.n_kv_heads; h++) {
        const uint8_t *from = open + (size_t)h * g->head_stride;
        uint8_t *to = sealed + (size_t)h * z.head_stride;
        const sq_kv_seal_args a = {.d = (int32_t)sq_align_up((size_t)shape.head_dim, 16),
                                   .k_fmt = sq_kv_policy_k(policy, layer),
                                   .v_fmt = sq_kv_policy_v(policy, layer),
                                   .k = (const uint16_t *)(const void *)(from + g->k_off),
                                   .v = (const uint16_t *)(const void *)(from + g->v_off),
                                   .k_out = to + z.k_off,
                                   .v_out = to + z.v_off};
        k->kv_seal(&a);
    }
}

/* Positions [length, n), n a multiple of 256. */
static squish_status fill(bench_kv_state *b, int32_t f, int32_t n, squish_error *err) {
    const sq_kv_pool *p = b->e[f]->kv;
    sq_kv_shape shape;
    sq_kernels k;
    uint64_t rng = 1;
    sq_kernels_select(&k, sq_cpu_features(), SQ_ISA_COUNT);
    sq_kv_pool_shape(p, &shape);
    for (int32_t at = sq_kv_seq_length(b->kv[f]); at < n; at += CHUNK) {
        SQ_TRY(sq_kv_seq_reserve(b->kv[f], at + CHUNK, err));
        for (int32_t l = 0; l < shape.n_layers; l++)
            for (int32_t t = at / SQ_KV_TILE; t < (at + CHUNK) / SQ_KV_TILE; t++)
                fill_open(sq_kv_pool_geometry(p), &shape, sq_kv_seq_pages(b->kv[f], l)[t], &rng);
        for (int32_t t; (t = sq_kv_seq_seal_next(b->kv[f], at + CHUNK - 1)) >= 0;)
            for (int32_t l = 0; l < shape.n_layers; l++) seal_page(&k, p, b->kv[f], t, l);
    }
    return SQUISH_OK;
}

/* ---- one measurement ------------------------------------------------------------------------- */

/* Attention of all layers for the query at position n - 1, seconds. */
static double attend(bench_kv_state *b, int32_t f, int32_t n) {
    const sq_engine *e = b->e[f];
    const uint64_t begin = sq_os_now_ns();
    for (int32_t l = 0; l < b->m->cfg.n_layers; l++) {
        const sq_attn_shape s = sq_forward_attn_shape(e->f, l);
        const sq_attn_seg seg = {.n_rows = 1,
                                 .pos0 = n - 1,
                                 .pages = sq_kv_seq_pages(b->kv[f], l),
                                 .sealed = sq_kv_seq_sealed_pages(b->kv[f], l)};
        b->q.m = 1;
        sq_be_attend(e->b, &s, &seg, 1, &b->q, false, &b->out);
    }
    return (double)(sq_os_now_ns() - begin) / 1e9;
}

/* Whole tokens from position n on, seconds of one. */
static squish_status decode(bench_kv_state *b, int32_t f, int32_t n, double *seconds, squish_error *err) {
    const sq_engine *e = b->e[f];
    int32_t id = 1;
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < STEPS; i++) {
        const sq_step_seg seg = {.kv = b->kv[f], .n_rows = 1, .pos0 = n + i};
        const int32_t row = 0;
        SQ_TRY(sq_kv_seq_reserve(b->kv[f], n + i + 1, err));
        sq_forward_run(e->f, &id, 1, &seg, 1, NULL);
        id = bench_likeliest(sq_forward_logits(e->f, &row, 1), b->m->info.n_vocab_tokens);
    }
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9 / STEPS;
    sq_kv_seq_truncate(b->kv[f], n);
    return SQUISH_OK;
}

static squish_status told(bench_kv_state *b, squish_error *err) {
    b->done++;
    if (!b->o->progress || b->o->progress(b->o->progress_user, "bench", (uint64_t)b->done, (uint64_t)b->all))
        return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

/* Bytes that attention of a token reads behind n positions. */
static double bytes_read(const bench_kv_state *b, int32_t f, int32_t n) {
    sq_kv_shape shape;
    sq_kv_pool_shape(b->e[f]->kv, &shape);
    const sq_kv_policy *p = sq_kv_pool_policy(b->e[f]->kv);
    const double open = (double)sq_kv_open_bytes(&shape, p), sealed = (double)sq_kv_sealed_bytes(&shape, p);
    const int32_t tiles = n / SQ_KV_TILE,
                  old = p->seals ? sq_kv_sealed_tiles(p->window, n - 1) - p->window.sink : 0;
    return old * sealed + (tiles - old) * open;
}

static squish_status add_row(bench_kv_state *b, int32_t f, const char *what, int32_t n, const char *unit,
                             double *v, int32_t count, double limit, double against, squish_error *err) {
    char name[64];
    snprintf(name, sizeof name, "%s at %d, %s", what, n, squish_kv_name(formats[f]));
    SQ_TRY(bench_row(b->rows, name, unit, v, count, limit, BENCH_SMALL_IS_GOOD, err));
    json_t *row = json_array_get(b->rows, json_array_size(b->rows) - 1);
    json_t *more = json_pack("{s:s, s:i, s:s, s:f}", "bench", "kv", "at", (int)n, "kv",
                             squish_kv_name(formats[f]), "f16_ratio", against);
    const int failed = json_object_update(row, more);
    json_decref(more);
    return failed ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory") : SQUISH_OK;
}

/* Attention and whole tokens behind n positions, every format, runs in turns. f16_ratio: how many times
 * faster than f16. */
static squish_status speed_rows(bench_kv_state *b, int32_t n, squish_error *err) {
    const int32_t runs = b->o->runs;
    for (int32_t r = 0; r < runs; r++) {
        b->read[r] = bench_limits_read(b->limits);
        for (int32_t f = 0; f < FORMATS; f++) {
            if (!b->e[f]) continue;
            attend(b, f, n); /* what the formats before left in the caches goes */
            b->attend[f][r] = attend(b, f, n) * 1e3;
            SQ_TRY(decode(b, f, n, &b->decode[f][r], err));
            b->decode[f][r] *= 1e3;
        }
        SQ_TRY(told(b, err));
    }
    const double read = bench_median(b->read, runs);
    for (int32_t f = 0; f < FORMATS; f++)
        if (b->e[f]) bench_median(b->attend[f], runs), bench_median(b->decode[f], runs);
    for (int32_t f = 0; f < FORMATS; f++)
        if (b->e[f])
            SQ_TRY(add_row(b, f, "attention", n, "ms", b->attend[f], runs, bytes_read(b, f, n) / read / 1e6,
                           bench_median(b->attend[0], runs) / bench_median(b->attend[f], runs), err));
    for (int32_t f = 0; f < FORMATS; f++)
        if (b->e[f])
            SQ_TRY(add_row(b, f, "token", n, "ms", b->decode[f], runs, NAN,
                           bench_median(b->decode[0], runs) / bench_median(b->decode[f], runs), err));
    return SQUISH_OK;
}

/* Fill a cache from `from` to n tokens; *grown: bytes of the process a token, the slope of a line through
 * what it held on the way. The system gives memory in large pages: from one point to another the difference
 * is off by up to two of them. */
static squish_status fill_and_weigh(bench_kv_state *b, int32_t f, int32_t from, int32_t n, double *grown,
                                    squish_error *err) {
    const int32_t step = sq_div_up((n - from) / WEIGHINGS, CHUNK) * CHUNK;
    double sx = 0, sy = 0, sxx = 0, sxy = 0, count = 0;
    for (int32_t at = from;; at = at + step < n ? at + step : n) {
        SQ_TRY(fill(b, f, at, err));
        sq_kv_seq_missing(b->kv[f], at + 1); /* as before the next token: what no query reads any more goes */
        const double x = at, y = (double)sq_os_rss_anon();
        sx += x, sy += y, sxx += x * x, sxy += x * y, count++;
        if (at == n) break;
    }
    *grown = (count * sxy - sx * sy) / (count * sxx - sx * sx);
    return SQUISH_OK;
}

/* Fill all caches to n; a row of what the process grew by for each token since `from`. */
static squish_status fill_all(bench_kv_state *b, int32_t from, int32_t n, squish_error *err) {
    double grown[FORMATS];
    for (int32_t f = 0; f < FORMATS; f++)
        if (b->e[f]) SQ_TRY(fill_and_weigh(b, f, from, n, &grown[f], err));
    for (int32_t f = 0; f < FORMATS && from > 0; f++) {
        if (!b->e[f]) continue;
        sq_kv_shape shape;
        sq_kv_pool_shape(b->e[f]->kv, &shape);
        const sq_kv_policy *p = sq_kv_pool_policy(b->e[f]->kv);
        const double formula =
            (double)(p->seals ? sq_kv_sealed_bytes(&shape, p) : sq_kv_open_bytes(&shape, p)) / SQ_KV_TILE;
        SQ_TRY(add_row(b, f, "bytes a token", n, "B", &grown[f], 1, formula, grown[0] / grown[f], err));
    }
    return SQUISH_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

static squish_status open_all(bench_kv_state *b, int32_t ctx, squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    mo.tier = b->o->tier;
    SQ_TRY(squish_model_open(&b->m, b->o->path, &mo, err));
    if (b->m->cfg.mla.kv_rank)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "bench kv: %s has latent attention, whose cache has one format", b->m->cfg.arch);
    if (ctx > b->m->cfg.ctx)
        return sq_fail(err, SQUISH_INVALID, "bench: %d tokens, the model's context is %d", ctx,
                       b->m->cfg.ctx);
    eo.threads = b->o->threads;
    eo.ctx_tokens = ctx;
    eo.isa_max = b->o->isa;
    for (int32_t f = 0; f < FORMATS; f++) {
        if (f > 0 && b->o->one_kv && b->o->kv != formats[f]) continue;
        eo.kv = formats[f];
        SQ_TRY(sq_engine_new(&b->e[f], b->m, &eo, err));
        SQ_TRY(sq_kv_seq_new(&b->kv[f], b->e[f]->kv, ctx, err));
    }
    const int32_t cols = b->m->cfg.n_heads * b->m->cfg.head_dim;
    const size_t one = sq_rows_bytes(1, cols, false);
    b->memory_bytes = 2 * one;
    b->memory = sq_backend_alloc(b->e[0]->b, b->memory_bytes);
    if (!b->memory) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    sq_rows_carve(&b->q, 1, cols, false, b->memory);
    sq_rows_carve(&b->out, 1, cols, false, b->memory + one);
    uint64_t rng = 2;
    for (int32_t i = 0; i < cols; i++)
        b->q.f[i] = ((float)(int32_t)(sq_splitmix64(&rng) & 0xffff) / 32768.0f - 1.0f) /
                    sqrtf((float)b->m->cfg.head_dim);
    return bench_limits_new(&b->limits, b->o->threads, b->o->isa, err);
}

static void close_all(bench_kv_state *b) {
    bench_limits_free(b->limits);
    if (b->memory) sq_backend_release(b->e[0]->b, b->memory, b->memory_bytes);
    for (int32_t f = 0; f < FORMATS; f++) {
        sq_kv_seq_free(b->kv[f]);
        sq_engine_free(b->e[f]);
    }
    squish_model_close(b->m);
}

static squish_status measure(bench_kv_state *b, const bench_points *p, squish_error *err) {
    int32_t before = 0;
    for (int32_t i = 0; i < p->count; i++) {
        if (p->n[i] % CHUNK || p->n[i] <= before)
            return sq_fail(err, SQUISH_INVALID, "bench kv: %d, wanted rising multiples of %d", p->n[i],
                           CHUNK);
        SQ_TRY(fill_all(b, before, p->n[i], err));
        SQ_TRY(speed_rows(b, p->n[i], err));
        before = p->n[i];
    }
    return SQUISH_OK;
}

squish_status bench_kv(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {1024, 2048, 3072};
    const squish_alloc a = sq_alloc_default();
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), SQ_MAX_CTX - CHUNK, &p, err));
    SQ_TRY(bench_check_runs(o, err));
    bench_kv_state *b = sq_alloc_zero(&a, sizeof *b);
    if (!b) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    b->o = o, b->rows = rows, b->all = p.count * o->runs;
    squish_status st = open_all(b, p.n[p.count - 1] + CHUNK, err);
    if (st == SQUISH_OK) st = measure(b, &p, err);
    if (st == SQUISH_OK && o->text) st = bench_kv_quality(o, b->m, rows, err);
    close_all(b);
    sq_alloc_free(&a, b, sizeof *b);
    return st;
}
