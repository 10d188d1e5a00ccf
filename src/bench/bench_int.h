/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_int.h - what the benches of speed share: the cost of a step, an open engine with its limits, and the
 * row that comes of both. */
#ifndef SQ_BENCH_INT_H
#define SQ_BENCH_INT_H

#include "bench/bench.h"
#include "sched/sched.h"

/* ---- what a step must cost (bench_cost.c) ---------------------------------------------------- */

/* Of one model. Operations of matrices in floats count against the multiply-adds, not the dot products. */
typedef struct {
    double layer_bytes, head_bytes, kv_bytes; /* kv_bytes: of a position */
    double layer_dots, layer_fmas;            /* of a token */
    double head_dots, head_fmas;
    double attn_fmas; /* of a token for each position it sees */
} bench_cost;
bench_cost bench_cost_of(const sq_model *m, const sq_kv_policy *kv);

/* A step of `tokens` rows, `heads` of them with logits. seen: positions seen, summed over the rows; cached:
 * positions read, each once for its timeline. */
typedef struct {
    double tokens, heads, seen, cached;
} bench_step;

typedef struct {
    double read, dots, fma; /* GB/s, Gop/s, Gop/s */
} bench_rates;

double bench_step_bytes(const bench_cost *k, bench_step s);
double bench_step_ops(const bench_cost *k, bench_step s);
double bench_limit_seconds(const bench_cost *k, bench_step s, bench_rates r);

/* ---- one measurement (bench_speed.c) --------------------------------------------------------- */

typedef struct {
    const bench_options *o;
    squish_model *m;
    sq_engine *e;
    sq_seq *s;
    bench_limits *limits;
    bench_cost cost;
    int32_t *prompt; /* [ctx] */
    int32_t ctx, done, all;
    json_t *rows;
    double v[BENCH_RUNS_MAX];            /* seconds of a step, one of a run */
    bench_rates now[BENCH_RUNS_MAX + 1]; /* limits before and after each run */
} bench_speed;

/* The points to measure: o->at, or the usual ones up to `most`. INVALID names one that is out of range. */
typedef struct {
    int32_t n[BENCH_POINTS_MAX], count;
} bench_points;
squish_status bench_points_of(const bench_options *o, const int32_t *usual, size_t n_usual, int32_t most,
                              bench_points *out, squish_error *err);

typedef squish_status (*bench_run_fn)(bench_speed *b, int32_t at, double *seconds, void *user,
                                      squish_error *err);
/* o->runs runs of fn at one point into b->v, limits between them. */
squish_status bench_take(bench_speed *b, int32_t at, bench_run_fn fn, void *user, squish_error *err);
/* The row of what b->v holds: tokens a second of `tokens` a step, or milliseconds where tokens is 0. */
squish_status bench_speed_row(bench_speed *b, const char *name, const char *bench, int32_t at, double tokens,
                              bench_step s, squish_error *err);
/* An engine for `ctx` tokens (fewer if the model has fewer), then take, then all of it closed. figures:
 * points to take, for the progress bar; done: those taken by earlier calls. */
squish_status bench_measure(const bench_options *o, int32_t ctx, int32_t done, int32_t figures,
                            squish_status (*take)(bench_speed *b, const bench_points *p, squish_error *err),
                            const bench_points *p, json_t *rows, squish_error *err);

/* (bench_kv_quality.c) A row per format: KL to f16 over o->text, the share of attended tokens that were read
 * sealed, the ratio of perplexities. */
squish_status bench_kv_quality(const bench_options *o, squish_model *m, json_t *rows, squish_error *err);
/* (bench_kv_quality.c) The flags of the first report's command, on an f16 cache: PM-KVQ, MixKVQ, CocktailKV,
 * Sage and Sparge, the last with o's thresholds. */
void bench_report_flags(const bench_options *o, squish_engine_options *eo);
/* What a greedy answer would go on with, found as the sampler finds it; 0 if a logit is NaN. */
int32_t bench_likeliest(const float *logits, int32_t n);
/* One run of each kind, at a context of depth or a prompt of n tokens. */
squish_status bench_decode_run(bench_speed *b, int32_t depth, double *seconds, void *user, squish_error *err);
squish_status bench_prefill_run(bench_speed *b, int32_t n, double *seconds, void *user, squish_error *err);
bench_step bench_decode_step(int32_t depth);
bench_step bench_prefill_step(int32_t n);

enum { BENCH_STEPS = 32 }; /* tokens of a run */

#endif
