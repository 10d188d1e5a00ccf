/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_speed.c - tokens per second of one timeline: one after another, and as a prompt.
 *
 * Works on the engine from inside, since a batch and the bytes of a step have no public face. The machine's
 * limits are measured before and after each run, so that a machine whose memory others use is not blamed on
 * the engine. */
#include "bench/bench_int.h"
#include "sample/sample.h"

#include <math.h>
#include <stdio.h>

/* ---- one measurement ------------------------------------------------------------------------- */

static bench_rates limits_now(bench_speed *b) {
    return (bench_rates){bench_limits_read(b->limits), bench_limits_dots(b->limits),
                         bench_limits_fma(b->limits)};
}

static squish_status told(bench_speed *b, squish_error *err) {
    b->done++;
    if (!b->o->progress || b->o->progress(b->o->progress_user, "bench", (uint64_t)b->done, (uint64_t)b->all))
        return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

squish_status bench_take(bench_speed *b, int32_t at, bench_run_fn fn, void *user, squish_error *err) {
    b->now[0] = limits_now(b);
    for (int32_t r = 0; r < b->o->runs; r++) {
        SQ_TRY(fn(b, at, &b->v[r], user, err));
        b->now[r + 1] = limits_now(b);
        SQ_TRY(told(b, err));
    }
    return SQUISH_OK;
}

static bench_rates between(bench_rates a, bench_rates b) {
    return (bench_rates){(a.read + b.read) / 2, (a.dots + b.dots) / 2, (a.fma + b.fma) / 2};
}

/* Medians over the runs: of the limits' rates, of the limit, and of the shares. */
typedef struct {
    bench_rates rates;
    double limit_s, share;
} held_against;

static held_against limits_of(bench_speed *b, bench_step s) {
    double read[BENCH_RUNS_MAX], dots[BENCH_RUNS_MAX], fma[BENCH_RUNS_MAX], limit[BENCH_RUNS_MAX],
        share[BENCH_RUNS_MAX];
    const int32_t n = b->o->runs;
    for (int32_t r = 0; r < n; r++) {
        const bench_rates now = between(b->now[r], b->now[r + 1]);
        read[r] = now.read, dots[r] = now.dots, fma[r] = now.fma;
        limit[r] = bench_limit_seconds(&b->cost, s, now);
        share[r] = limit[r] / b->v[r];
    }
    return (held_against){{bench_median(read, n), bench_median(dots, n), bench_median(fma, n)},
                          bench_median(limit, n),
                          bench_median(share, n)};
}

squish_status bench_speed_row(bench_speed *b, const char *name, const char *bench, int32_t at, double tokens,
                              bench_step s, squish_error *err) {
    double v[BENCH_RUNS_MAX], seconds[BENCH_RUNS_MAX];
    const int32_t n = b->o->runs;
    const held_against h = limits_of(b, s);
    for (int32_t r = 0; r < n; r++) {
        seconds[r] = b->v[r];
        v[r] = tokens > 0 ? tokens / b->v[r] : b->v[r] * 1e3;
    }
    const double limit = tokens > 0 ? tokens / h.limit_s : h.limit_s * 1e3;
    SQ_TRY(bench_row(b->rows, name, tokens > 0 ? "tok/s" : "ms", v, n, limit,
                     tokens > 0 ? BENCH_LARGE_IS_GOOD : BENCH_SMALL_IS_GOOD, err));
    const double ops = bench_step_ops(&b->cost, s);
    json_t *more =
        json_pack("{s:f, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "share", h.share, "bench", bench, "at",
                  (int)at, "threads", (int)b->e->threads, "ops_per_byte", ops / bench_step_bytes(&b->cost, s),
                  "gop_s", ops / bench_median(seconds, n) / 1e9, "read_gb_s", h.rates.read, "dots_gop_s",
                  h.rates.dots, "fma_gop_s", h.rates.fma);
    const int failed = json_object_update(json_array_get(b->rows, json_array_size(b->rows) - 1), more);
    json_decref(more);
    return failed ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory") : SQUISH_OK;
}

int32_t bench_likeliest(const float *logits, int32_t n) {
    const int32_t id = sq_argmax(logits, n);
    return id < 0 ? 0 : id;
}

/* ---- the points ------------------------------------------------------------------------------ */

squish_status bench_points_of(const bench_options *o, const int32_t *usual, size_t n_usual, int32_t most,
                              bench_points *out, squish_error *err) {
    out->count = 0;
    for (int32_t i = 0; i < o->n_at && i < BENCH_POINTS_MAX; i++) {
        if (o->at[i] < 1 || o->at[i] > most)
            return sq_fail(err, SQUISH_INVALID, "bench: cannot measure at %d, from 1 to %d", o->at[i], most);
        out->n[out->count++] = o->at[i];
    }
    for (size_t i = 0; o->n_at == 0 && i < n_usual && out->count < BENCH_POINTS_MAX; i++)
        if (usual[i] <= most) out->n[out->count++] = usual[i];
    return SQUISH_OK;
}

static int32_t largest(const bench_points *p) {
    int32_t most = 1;
    for (int32_t i = 0; i < p->count; i++) most = p->n[i] > most ? p->n[i] : most;
    return most;
}

/* A point that was asked for does not fit the model: said; a usual one: left out. */
static squish_status fits(const bench_speed *b, int32_t tokens, bool *yes, squish_error *err) {
    *yes = tokens <= b->ctx;
    if (*yes || b->o->n_at == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "bench: %d tokens, the model's context is %d", tokens, b->ctx);
}

/* ---- decode ---------------------------------------------------------------------------------- */

squish_status bench_decode_run(bench_speed *b, int32_t depth, double *seconds, void *user,
                               squish_error *err) {
    (void)user;
    sq_seq_truncate(b->s, depth);
    SQ_TRY(sq_seq_sync(b->s, b->prompt, (size_t)depth, err));
    const uint64_t begin = sq_os_now_ns();
    for (int32_t i = 0; i < BENCH_STEPS; i++) {
        const int32_t id = bench_likeliest(sq_seq_logits(b->s), b->m->cfg.n_vocab);
        SQ_TRY(sq_seq_append(b->s, &id, 1, err));
    }
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9 / BENCH_STEPS;
    return SQUISH_OK;
}

bench_step bench_decode_step(int32_t depth) {
    const double middle = depth + BENCH_STEPS / 2;
    return (bench_step){.tokens = 1, .heads = 1, .seen = middle, .cached = middle};
}

static squish_status decode_rows(bench_speed *b, const bench_points *p, squish_error *err) {
    for (int32_t k = 0; k < p->count; k++) {
        char name[32];
        bool yes;
        SQ_TRY(fits(b, p->n[k] + BENCH_STEPS, &yes, err));
        if (!yes) continue;
        SQ_TRY(bench_take(b, p->n[k], bench_decode_run, NULL, err));
        snprintf(name, sizeof name, "decode at %d", p->n[k]);
        SQ_TRY(bench_speed_row(b, name, "decode", p->n[k], 1, bench_decode_step(p->n[k]), err));
    }
    return SQUISH_OK;
}

squish_status bench_decode(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {16, 64, 256, 1024, 4096, 16384, 65536};
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), o->n_at ? SQ_MAX_CTX - BENCH_STEPS : o->ctx, &p, err));
    return bench_measure(o, largest(&p) + BENCH_STEPS, 0, p.count, decode_rows, &p, rows, err);
}

/* ---- prefill --------------------------------------------------------------------------------- */

/* user: double [runs so far ...], or NULL: where the time of the first token goes. */
squish_status bench_prefill_run(bench_speed *b, int32_t n, double *seconds, void *user, squish_error *err) {
    sq_seq_truncate(b->s, 0);
    const uint64_t begin = sq_os_now_ns();
    SQ_TRY(sq_seq_sync(b->s, b->prompt, (size_t)n, err));
    *seconds = (double)(sq_os_now_ns() - begin) / 1e9;
    const volatile int32_t first = bench_likeliest(sq_seq_logits(b->s), b->m->cfg.n_vocab);
    (void)first;
    if (user) ((double *)user)[seconds - b->v] = (double)(sq_os_now_ns() - begin) / 1e9;
    return SQUISH_OK;
}

bench_step bench_prefill_step(int32_t n) {
    return (bench_step){.tokens = n, .heads = 1, .seen = 0.5 * n * (n + 1), .cached = 0};
}

static squish_status prefill_rows(bench_speed *b, const bench_points *p, squish_error *err) {
    double first[BENCH_RUNS_MAX];
    for (int32_t k = 0; k < p->count; k++) {
        const int32_t n = p->n[k];
        char name[32];
        bool yes;
        SQ_TRY(fits(b, n, &yes, err));
        if (!yes) continue;
        SQ_TRY(bench_take(b, n, bench_prefill_run, first, err));
        snprintf(name, sizeof name, "prefill %d", n);
        SQ_TRY(bench_speed_row(b, name, "prefill", n, n, bench_prefill_step(n), err));
        for (int32_t r = 0; r < b->o->runs; r++) b->v[r] = first[r];
        snprintf(name, sizeof name, "first token after %d", n);
        SQ_TRY(bench_speed_row(b, name, "first token", n, 0, bench_prefill_step(n), err));
    }
    return SQUISH_OK;
}

squish_status bench_prefill(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {8, 32, 128, 512, 2048};
    bench_points p;
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), o->n_at ? SQ_MAX_CTX : 2048, &p, err));
    return bench_measure(o, largest(&p), 0, p.count, prefill_rows, &p, rows, err);
}

/* ---- an engine and its limits ---------------------------------------------------------------- */

static squish_status speed_open(bench_speed *b, int32_t ctx, squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    mo.tier = b->o->tier;
    SQ_TRY(squish_model_open(&b->m, b->o->path, &mo, err));
    b->ctx = ctx < b->m->cfg.ctx ? ctx : b->m->cfg.ctx;
    eo.threads = b->o->threads;
    eo.ctx_tokens = b->ctx;
    eo.attention = b->o->attention;
    eo.draft = b->o->draft;
    eo.isa_max = b->o->isa;
    SQ_TRY(sq_engine_new(&b->e, b->m, &eo, err));
    SQ_TRY(sq_seq_new(&b->s, b->e, err));
    SQ_TRY(bench_limits_new(&b->limits, b->o->threads, b->o->isa, err));
    b->cost = bench_cost_of(b->m, sq_kv_pool_policy(b->e->kv));
    b->prompt = sq_alloc_new(&b->m->alloc, (size_t)b->ctx * sizeof *b->prompt);
    if (!b->prompt) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    uint64_t random = 1;
    for (int32_t i = 0; i < b->ctx; i++)
        b->prompt[i] = (int32_t)(sq_splitmix64(&random) % (uint64_t)b->m->cfg.n_vocab);
    return SQUISH_OK;
}

squish_status bench_measure(const bench_options *o, int32_t ctx, int32_t done, int32_t figures,
                            squish_status (*take)(bench_speed *b, const bench_points *p, squish_error *err),
                            const bench_points *p, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    SQ_TRY(bench_check_runs(o, err));
    bench_speed *b = sq_alloc_zero(&a, sizeof *b);
    if (!b) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    b->o = o;
    b->rows = rows;
    b->done = done * o->runs;
    b->all = figures * o->runs;
    squish_status st = speed_open(b, ctx, err);
    if (st == SQUISH_OK) st = take(b, p, err);
    if (b->prompt) sq_alloc_free(&b->m->alloc, b->prompt, (size_t)b->ctx * sizeof *b->prompt);
    bench_limits_free(b->limits);
    sq_seq_free(b->s);
    sq_engine_free(b->e);
    squish_model_close(b->m);
    sq_alloc_free(&a, b, sizeof *b);
    return st;
}
