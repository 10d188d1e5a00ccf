/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_speed.c - tokens per second: alone, as a prompt, and in company.
 *
 * Works on the engine from inside, since a batch and the bytes of a step have no public face. Each figure is
 * taken in turn with the limit it is held against, so that a machine whose memory others use is not blamed on
 * the engine. */
#include "bench/bench.h"
#include "sched/sched.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 32, BATCH_CTX = 128, BATCH_MAX = 16 };

/* ---- what a step must cost ------------------------------------------------------------------- */

/* Of one model. Operations of matrices in floats count against the multiply-adds, not the dot products. */
typedef struct {
    double layer_bytes, head_bytes, kv_bytes; /* kv_bytes: of a position */
    double layer_dots, layer_fmas;            /* of a token */
    double head_dots, head_fmas;
    double attn_fmas; /* of a token for each position it sees */
} cost;

static void add_matrix(const sq_weight *w, double *bytes, double *dots, double *fmas) {
    const double ops = 2.0 * w->rows * w->cols;
    *bytes += (double)w->tile_bytes * sq_div_up(w->rows, SQ_TILE_ROWS);
    *(sq_wtype_wants_q8((sq_wtype)w->wtype) ? dots : fmas) += ops;
}

static cost cost_of(const sq_model *m, sq_kv_format f) {
    const sq_config *c = &m->cfg;
    const sq_kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    cost k = {0};
    sq_want w;
    for (size_t i = 0; sq_config_want(c, i, &w); i++)
        if (!w.vector && w.layer >= 0)
            add_matrix(sq_model_matrix(m, &w), &k.layer_bytes, &k.layer_dots, &k.layer_fmas);
    add_matrix(&m->head, &k.head_bytes, &k.head_dots, &k.head_fmas);
    k.kv_bytes = (double)sq_kv_bytes(&shape, f, SQ_KV_TILE) / SQ_KV_TILE;
    k.attn_fmas = 4.0 * c->n_heads * c->head_dim * c->n_layers;
    return k;
}

/* A step of `tokens` rows, `heads` of them with logits. seen: positions seen, summed over the rows; cached:
 * positions read, each once for its timeline. */
typedef struct {
    double tokens, heads, seen, cached;
} step;

typedef struct {
    double read, dots, fma; /* GB/s, Gop/s, Gop/s */
} rates;

static double limit_seconds(const cost *k, step s, rates r) {
    const double bytes = k->layer_bytes + k->head_bytes + k->kv_bytes * s.cached;
    const double dots = k->layer_dots * s.tokens + k->head_dots * s.heads;
    const double fmas = k->layer_fmas * s.tokens + k->head_fmas * s.heads + k->attn_fmas * s.seen;
    const double memory = bytes / r.read, sums = dots / r.dots + fmas / r.fma;
    return (memory > sums ? memory : sums) / 1e9;
}

/* ---- one measurement ------------------------------------------------------------------------- */

typedef struct {
    const bench_options *o;
    squish_model *m;
    sq_engine *e;
    sq_seq *s;
    bench_limits *limits;
    cost cost;
    int32_t *prompt; /* [ctx] */
    int32_t ctx, done, all;
    json_t *rows;
    double v[BENCH_RUNS_MAX], first[BENCH_RUNS_MAX];
    double read[BENCH_RUNS_MAX], dots[BENCH_RUNS_MAX], fma[BENCH_RUNS_MAX];
} speed;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int32_t n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void take_limits(speed *b, int32_t run) {
    b->read[run] = bench_limits_read(b->limits);
    b->dots[run] = bench_limits_dots(b->limits);
    b->fma[run] = bench_limits_fma(b->limits);
}

static double limit_now(speed *b, step s) {
    const int32_t n = b->o->runs;
    const rates r = {median(b->read, n), median(b->dots, n), median(b->fma, n)};
    return limit_seconds(&b->cost, s, r);
}

static squish_status told(speed *b, squish_error *err) {
    b->done++;
    if (!b->o->progress || b->o->progress(b->o->progress_user, "bench", (uint64_t)b->done, (uint64_t)b->all))
        return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

static int32_t likeliest(const float *logits, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* ---- decode ---------------------------------------------------------------------------------- */

static squish_status decode_run(speed *b, int32_t depth, int32_t run, squish_error *err) {
    sq_seq_truncate(b->s, depth);
    SQ_TRY(sq_seq_sync(b->s, b->prompt, (size_t)depth, err));
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < STEPS; i++)
        SQ_TRY(sq_seq_append(b->s, likeliest(sq_seq_logits(b->s), b->m->cfg.n_vocab), err));
    b->v[run] = STEPS * 1e9 / (double)(sq_os_now_ns() - begin);
    return SQUISH_OK;
}

static squish_status decode_rows(speed *b, squish_error *err) {
    for (int32_t depth = 16; depth + STEPS <= b->ctx && depth <= b->o->ctx; depth *= 4) {
        char name[32];
        for (int32_t r = 0; r < b->o->runs; r++) {
            SQ_TRY(decode_run(b, depth, r, err));
            take_limits(b, r);
            SQ_TRY(told(b, err));
        }
        const double middle = depth + STEPS / 2;
        const double limit = limit_now(b, (step){.tokens = 1, .heads = 1, .seen = middle, .cached = middle});
        snprintf(name, sizeof name, "decode at %d", depth);
        SQ_TRY(bench_row(b->rows, name, "tok/s", b->v, b->o->runs, 1 / limit, BENCH_LARGE_IS_GOOD, err));
    }
    return SQUISH_OK;
}

/* ---- prefill --------------------------------------------------------------------------------- */

static squish_status prefill_run(speed *b, int32_t n, int32_t run, squish_error *err) {
    sq_seq_truncate(b->s, 0);
    const uint64_t begin = sq_os_now_ns();
    SQ_TRY(sq_seq_sync(b->s, b->prompt, (size_t)n, err));
    b->v[run] = n * 1e9 / (double)(sq_os_now_ns() - begin);
    const volatile int32_t first = likeliest(sq_seq_logits(b->s), b->m->cfg.n_vocab);
    (void)first;
    b->first[run] = (double)(sq_os_now_ns() - begin) / 1e6;
    return SQUISH_OK;
}

static squish_status prefill_rows(speed *b, squish_error *err) {
    static const int32_t lengths[] = {8, 32, 128, 512, 2048};
    for (size_t k = 0; k < SQ_COUNT(lengths) && lengths[k] <= b->ctx; k++) {
        const int32_t n = lengths[k];
        char name[32];
        for (int32_t r = 0; r < b->o->runs; r++) {
            SQ_TRY(prefill_run(b, n, r, err));
            take_limits(b, r);
            SQ_TRY(told(b, err));
        }
        const step s = {.tokens = n, .heads = 1, .seen = 0.5 * n * (n + 1), .cached = 0};
        const double limit = limit_now(b, s);
        snprintf(name, sizeof name, "prefill %d", n);
        SQ_TRY(bench_row(b->rows, name, "tok/s", b->v, b->o->runs, n / limit, BENCH_LARGE_IS_GOOD, err));
        snprintf(name, sizeof name, "first token after %d", n);
        SQ_TRY(bench_row(b->rows, name, "ms", b->first, b->o->runs, limit * 1e3, BENCH_SMALL_IS_GOOD, err));
    }
    return SQUISH_OK;
}

/* ---- batch ----------------------------------------------------------------------------------- */

typedef struct {
    sq_kv_seq *kv[BATCH_MAX];
    int32_t n;
} company;

static void company_free(company *c) {
    for (int32_t i = 0; i < c->n; i++) sq_kv_seq_free(c->kv[i]);
}

/* BATCH_MAX timelines with the prompt in each. */
static squish_status company_new(company *c, speed *b, squish_error *err) {
    for (; c->n < BATCH_MAX; c->n++) {
        SQ_TRY(sq_kv_seq_new(&c->kv[c->n], b->e->kv, BATCH_CTX + STEPS, err));
        const squish_status st = sq_kv_seq_reserve(c->kv[c->n], BATCH_CTX + STEPS, err);
        if (st != SQUISH_OK) {
            sq_kv_seq_free(c->kv[c->n]);
            return st;
        }
        const sq_step_seg seg = {c->kv[c->n], 0, BATCH_CTX, 0};
        sq_forward_run(b->e->f, b->prompt, BATCH_CTX, &seg, 1);
    }
    return SQUISH_OK;
}

static double batch_run(speed *b, const company *c, int32_t n) {
    int32_t ids[BATCH_MAX], rows[BATCH_MAX];
    sq_step_seg segs[BATCH_MAX];
    const size_t ld = sq_forward_logits_ld(b->e->f);
    for (int32_t i = 0; i < n; i++) ids[i] = b->prompt[i], rows[i] = i;
    const uint64_t begin = sq_os_now_ns();
    for (int32_t t = 0; t < STEPS; t++) {
        for (int32_t i = 0; i < n; i++) segs[i] = (sq_step_seg){c->kv[i], i, 1, BATCH_CTX + t};
        sq_forward_run(b->e->f, ids, n, segs, n);
        const float *logits = sq_forward_logits(b->e->f, rows, n);
        for (int32_t i = 0; i < n; i++) ids[i] = likeliest(logits + (size_t)i * ld, b->m->cfg.n_vocab);
    }
    return (double)n * STEPS * 1e9 / (double)(sq_os_now_ns() - begin);
}

static squish_status batch_rows(speed *b, squish_error *err) {
    company c = {.n = 0};
    squish_status st = SQUISH_OK;
    SQ_GUARD(company_new(&c, b, err));
    for (int32_t n = 1; n <= BATCH_MAX; n *= 2) {
        char name[32];
        for (int32_t r = 0; r < b->o->runs; r++) {
            b->v[r] = batch_run(b, &c, n);
            take_limits(b, r);
            SQ_GUARD(told(b, err));
        }
        const double seen = (double)n * (BATCH_CTX + STEPS / 2);
        const double limit = limit_now(b, (step){.tokens = n, .heads = n, .seen = seen, .cached = seen});
        snprintf(name, sizeof name, "batch %d", n);
        SQ_GUARD(bench_row(b->rows, name, "tok/s", b->v, b->o->runs, n / limit, BENCH_LARGE_IS_GOOD, err));
    }
fail:
    company_free(&c);
    return st;
}

/* ---- all ------------------------------------------------------------------------------------- */

static squish_status speed_open(speed *b, int32_t ctx, squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    mo.tier = b->o->tier;
    SQ_TRY(squish_model_open(&b->m, b->o->path, &mo, err));
    b->ctx = ctx < b->m->cfg.ctx ? ctx : b->m->cfg.ctx;
    eo.threads = b->o->threads;
    eo.ctx_tokens = b->ctx;
    SQ_TRY(sq_engine_new(&b->e, b->m, &eo, err));
    SQ_TRY(sq_seq_new(&b->s, b->e, err));
    SQ_TRY(bench_limits_new(&b->limits, b->o->threads, err));
    b->cost = cost_of(b->m, sq_kv_pool_format(b->e->kv));
    b->prompt = sq_alloc_new(&b->m->alloc, (size_t)b->ctx * sizeof *b->prompt);
    if (!b->prompt) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    uint64_t random = 1;
    for (int32_t i = 0; i < b->ctx; i++)
        b->prompt[i] = (int32_t)(sq_splitmix64(&random) % (uint64_t)b->m->cfg.n_vocab);
    return SQUISH_OK;
}

/* all: figures to take times runs, for the progress bar. */
static squish_status measure(const bench_options *o, int32_t ctx, int32_t figures,
                             squish_status (*take)(speed *b, squish_error *err), json_t *rows,
                             squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    if (o->runs < 1 || o->runs > BENCH_RUNS_MAX)
        return sq_fail(err, SQUISH_INVALID, "runs is %d, wanted 1 to %d", o->runs, BENCH_RUNS_MAX);
    speed *b = sq_alloc_zero(&a, sizeof *b);
    if (!b) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    b->o = o;
    b->rows = rows;
    b->all = figures * o->runs;
    squish_status st = speed_open(b, ctx, err);
    if (st == SQUISH_OK) st = take(b, err);
    if (b->prompt) sq_alloc_free(&b->m->alloc, b->prompt, (size_t)b->ctx * sizeof *b->prompt);
    bench_limits_free(b->limits);
    sq_seq_free(b->s);
    sq_engine_free(b->e);
    squish_model_close(b->m);
    sq_alloc_free(&a, b, sizeof *b);
    return st;
}

squish_status bench_decode(const bench_options *o, json_t *rows, squish_error *err) {
    int32_t figures = 0;
    for (int32_t depth = 16; depth <= o->ctx; depth *= 4) figures++;
    return measure(o, o->ctx + STEPS, figures, decode_rows, rows, err);
}

squish_status bench_prefill(const bench_options *o, json_t *rows, squish_error *err) {
    return measure(o, 2048, 5, prefill_rows, rows, err);
}

squish_status bench_batch(const bench_options *o, json_t *rows, squish_error *err) {
    return measure(o, BATCH_MAX * (BATCH_CTX + STEPS), 5, batch_rows, rows, err);
}
