/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_moe.c - guesses of experts: how often they are right on a text, and what they cost.
 *
 * Maps are fitted to the first half of the text, and everything is measured on the second, which they have
 * not seen. Cost is taken in steps of one token; it does not depend on what a map holds, so there the model's
 * routers stand in for fitted maps. */
#include "bench/bench_int.h"
#include "sched/sched_look.h"
#include "squish_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { AT_ONCE = 8, COST_TOKENS = 64, COST_WINDOW = 32, ALL_TOKENS = 1 << 24 };

/* ---- how often ------------------------------------------------------------------------------- */

typedef struct {
    json_t *rows;
    const char *kind;
    squish_status st;
    squish_error *err;
} share_ctx;

/* "router, layer 3 early" with the share of chosen experts that were guessed, of as many guesses. */
static void share_row(void *user, const squish_lookahead_row *r) {
    share_ctx *c = user;
    char name[64];
    double strict = r->strict;
    if (c->st != SQUISH_OK) return;
    if (r->layer < 0)
        snprintf(name, sizeof name, "%s, mean", c->kind);
    else
        snprintf(name, sizeof name, "%s, layer %d %s", c->kind, r->layer, r->moment ? "late" : "early");
    c->st = bench_row(c->rows, name, "share", &strict, 1, NAN, BENCH_LARGE_IS_GOOD, c->err);
    if (c->st != SQUISH_OK) return;
    json_t *more = json_pack("{s:s, s:s, s:i, s:i, s:f, s:I}", "bench", "moe recall", "kind", c->kind,
                             "layer", (int)r->layer, "moment", (int)r->moment, "covered", r->covered,
                             "tokens", (json_int_t)r->tokens);
    if (!more || json_object_update_new(json_array_get(c->rows, json_array_size(c->rows) - 1), more) != 0)
        c->st = sq_fail(c->err, SQUISH_NO_MEMORY, "bench: out of memory");
}

static squish_status recall(const squish_model *m, const bench_options *o, const char *file, json_t *rows,
                            squish_error *err) {
    static const squish_lookahead kinds[] = {SQUISH_LOOKAHEAD_T0, SQUISH_LOOKAHEAD_ROUTER,
                                             SQUISH_LOOKAHEAD_CALIBRATED};
    size_t half = o->text_bytes / 2;
    while (half < o->text_bytes && o->text[half] != '\n') half++;
    squish_calibrate_options c = {.text = o->text,
                                  .text_bytes = half,
                                  .tokens_max = ALL_TOKENS,
                                  .threads = o->threads,
                                  .progress = o->progress,
                                  .progress_user = o->progress_user};
    squish_calibrate_result fitted;
    squish_lookahead_result result;
    SQ_TRY(squish_calibrate_lookahead(m, file, &c, &fitted, err));
    c.text = o->text + half;
    c.text_bytes = o->text_bytes - half;
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        const squish_lookahead_options l = {.kind = kinds[k], .file = file, .extra = -1, .at_once = AT_ONCE};
        share_ctx ctx = {rows, squish_lookahead_name(kinds[k]), SQUISH_OK, err};
        SQ_TRY(squish_lookahead_measure(m, &l, &c, share_row, &ctx, &result, err));
        SQ_TRY(ctx.st);
    }
    return SQUISH_OK;
}

static squish_status recall_rows(const squish_model *m, const bench_options *o, json_t *rows,
                                 squish_error *err) {
    char file[] = "/tmp/squish-lookahead-XXXXXX";
    const int fd = mkstemp(file);
    if (fd < 0) return sq_fail(err, SQUISH_IO, "%s: no file can be made there", file);
    close(fd);
    const squish_status st = recall(m, o, file, rows, err);
    unlink(file);
    return st;
}

/* ---- what they cost -------------------------------------------------------------------------- */

enum { COPIES = 4 };

typedef struct {
    sq_engine *e;
    bench_limits *limits;
    sq_look_maps *t0, *router[COPIES], *fitted;
    float *bias; /* [2][n] */
    size_t bias_bytes;
} costs;

static const sq_weight *router_of(const sq_look_maps *k, int32_t t) {
    const sq_look_map *early = &k->map[t][SQ_LOOK_EARLY];
    return early->now.rows > 0 ? &early->now : &k->map[t][SQ_LOOK_LATE].now;
}

/* Maps in the shape of fitted ones, all of them routers: views, each into a copy of its own. */
static void fill(costs *k, const sq_model *m) {
    for (int32_t t = 0; t < k->fitted->n_layers; t++) {
        for (int32_t i = t > 0 ? 0 : 1; m->layers[t].experts && i < SQ_LOOK_MOMENTS; i++)
            k->fitted->map[t][i] =
                (sq_look_map){*router_of(k->router[2 * i], t), *router_of(k->router[2 * i + 1], t), k->bias};
    }
}

/* Bytes of the maps of one layer, in the mean. */
static double bytes_of(const sq_look_maps *k, const sq_model *m) {
    double bytes = 0, layers = 0;
    for (int32_t t = 0; k->map && t < k->n_layers; t++) {
        layers += m->layers[t].experts != NULL;
        for (int32_t i = 0; i < SQ_LOOK_MOMENTS; i++)
            bytes += (double)k->map[t][i].now.tile_bytes * sq_weight_tiles(&k->map[t][i].now) +
                     (double)k->map[t][i].prev.tile_bytes * sq_weight_tiles(&k->map[t][i].prev);
    }
    return layers > 0 ? bytes / layers : 0;
}

/* The limit: the maps from memory, where the experts of a step have pushed them. */
static squish_status cost_row(const costs *k, const sq_look_maps *maps, const char *name, int32_t runs,
                              json_t *rows, squish_error *err) {
    const sq_look_options lo = {.extra = -1, .rows_max = 1, .unwatched = true};
    sq_engine *e = k->e;
    int32_t ids[COST_TOKENS];
    double us[BENCH_RUNS_MAX], read[BENCH_RUNS_MAX];
    sq_look *l = NULL;
    sq_look_stats s;
    squish_status st = SQUISH_OK;
    const double bytes = bytes_of(maps, e->m);
    for (int32_t i = 0; i < COST_TOKENS; i++) ids[i] = (i * i * 7 + 11 * i + 5) % e->m->cfg.n_vocab;
    SQ_GUARD(sq_look_new(&l, e->m, e->b, maps, SQ_SEQS_MAX, &lo, &e->alloc, err));
    for (int32_t run = 0; run < runs; run++) {
        read[run] = bench_limits_read(k->limits);
        sq_look_reset(l);
        SQ_GUARD(sq_look_run(e, l, ids, COST_TOKENS, COST_WINDOW, 1, NULL, NULL, err));
        sq_look_get_stats(l, &s);
        us[run] = s.layers ? (double)s.ns / 1e3 / (double)s.layers : 0;
    }
    const double limit = bytes > 0 ? bytes / bench_median(read, runs) / 1e3 : NAN;
    SQ_GUARD(bench_row(rows, name, "us", us, runs, limit, BENCH_SMALL_IS_GOOD, err));
    json_t *more =
        json_pack("{s:s, s:i, s:i, s:i, s:f}", "bench", "moe cost", "experts", (int)e->m->cfg.moe.n, "hidden",
                  (int)e->m->cfg.hidden, "threads", (int)e->threads, "map_bytes", bytes);
    if (!more || json_object_update_new(json_array_get(rows, json_array_size(rows) - 1), more) != 0)
        st = sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
fail:
    sq_look_free(l);
    return st;
}

static squish_status prepare(costs *k, const sq_model *m, const bench_options *o, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_engine_options eo = squish_engine_options_default();
    k->bias_bytes = 2 * (size_t)m->cfg.moe.n * sizeof *k->bias;
    k->bias = sq_alloc_zero(&a, k->bias_bytes);
    if (!k->bias) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = 256;
    SQ_TRY(sq_engine_new(&k->e, m, &eo, err));
    SQ_TRY(bench_limits_new(&k->limits, k->e->threads, o->isa, err));
    SQ_TRY(sq_look_maps_new(&k->t0, m, SQ_LOOK_T0, &a, err));
    for (int32_t i = 0; i < COPIES; i++) SQ_TRY(sq_look_maps_new(&k->router[i], m, SQ_LOOK_ROUTER, &a, err));
    SQ_TRY(sq_look_maps_new(&k->fitted, m, SQ_LOOK_CALIBRATED, &a, err));
    fill(k, m);
    return SQUISH_OK;
}

static squish_status cost_rows(const sq_model *m, const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    costs k = {0};
    squish_status st = prepare(&k, m, o, err);
    if (st == SQUISH_OK) st = cost_row(&k, k.t0, "cost of a layer, t0", o->runs, rows, err);
    if (st == SQUISH_OK) st = cost_row(&k, k.router[0], "cost of a layer, router", o->runs, rows, err);
    if (st == SQUISH_OK) st = cost_row(&k, k.fitted, "cost of a layer, calibrated", o->runs, rows, err);
    sq_look_maps_free(k.fitted);
    for (int32_t i = 0; i < COPIES; i++) sq_look_maps_free(k.router[i]);
    sq_look_maps_free(k.t0);
    bench_limits_free(k.limits);
    sq_engine_free(k.e);
    sq_alloc_free(&a, k.bias, k.bias_bytes);
    return st;
}

squish_status bench_moe(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_model_options mo = {.tier = o->tier};
    squish_model *m;
    squish_model_info info;
    SQ_TRY(squish_model_open(&m, o->path, &mo, err));
    squish_model_get_info(m, &info);
    squish_status st = SQUISH_OK;
    if (info.n_experts == 0) st = sq_fail(err, SQUISH_UNSUPPORTED, "bench moe: %s has no experts", info.path);
    if (st == SQUISH_OK && o->text) st = recall_rows(m, o, rows, err);
    if (st == SQUISH_OK) st = cost_rows(m, o, rows, err);
    squish_model_close(m);
    return st;
}
