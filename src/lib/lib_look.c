/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_look.c - maps that guess experts: fitted to a text, and measured on one.
 *
 * Fitting takes sums of the square of three times the hidden size for each layer. Where not all of them fit a
 * quarter of the memory that is free, the text runs several times, for some layers each. */
#include "forge/forge_look.h"
#include "lib/lib_calib_text.h"
#include "sched/sched_look.h"
#include "squish_build.h"

#include <stdio.h>
#include <string.h>

enum { TOKENS_DEFAULT = 16384, TOKENS_MIN = 128, WINDOW_DEFAULT = 512, WINDOW_MIN = 16, STEP = 128 };

static const char *const names[] = {"auto", "off", "t0", "router", "calibrated"};

const char *squish_lookahead_name(squish_lookahead k) {
    return (unsigned)k < SQ_COUNT(names) ? names[k] : NULL;
}

bool squish_lookahead_from_name(const char *name, squish_lookahead *out) {
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (squish_lookahead)i;
        return true;
    }
    return false;
}

typedef struct {
    const squish_model *m;
    squish_calibrate_options o;
    squish_tokens t;
    int32_t n; /* tokens to run */
    sq_engine *e;
} job;

static void close_job(job *j) {
    sq_engine_free(j->e);
    squish_tokens_free(&j->t);
}

/* Checks and tokens. */
static squish_status open_job(job *j, squish_error *err) {
    squish_calibrate_options *o = &j->o;
    const squish_model *m = j->m;
    const int32_t ctx = m->cfg.ctx;
    if (o->tokens_max == 0) o->tokens_max = TOKENS_DEFAULT;
    if (o->window == 0 || (o->window > ctx && o->window == WINDOW_DEFAULT))
        o->window = ctx < WINDOW_DEFAULT ? ctx : WINDOW_DEFAULT;
    if (o->window < WINDOW_MIN || o->window > ctx)
        return sq_fail(err, SQUISH_INVALID, "window is %d tokens, wanted %d to the model's %d", o->window,
                       WINDOW_MIN, ctx);
    if (!m->has_weights || !m->tok)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no %s to calibrate with", m->info.path,
                       m->has_weights ? "tokenizer" : "weights");
    if (m->cfg.moe.n == 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no experts to look ahead for", m->info.path);
    if (!o->text) {
        o->text = sq_calib_text;
        o->text_bytes = strlen(sq_calib_text);
    }
    SQ_TRY(squish_tokenize(m, o->text, o->text_bytes, SQUISH_TOK_BOS_EOS, &j->t, err));
    j->n = j->t.count < (size_t)o->tokens_max ? (int32_t)j->t.count : o->tokens_max;
    if (j->n < TOKENS_MIN)
        return sq_fail(err, SQUISH_INVALID, "the text has %d tokens, wanted at least %d", j->n, TOKENS_MIN);
    return SQUISH_OK;
}

static squish_status open_engine(job *j, int32_t ctx, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    eo.threads = j->o.threads;
    eo.ctx_tokens = ctx;
    eo.chunk_tokens = STEP;
    return sq_engine_new(&j->e, j->m, &eo, err);
}

/* ---- fitting --------------------------------------------------------------------------------- */

typedef struct {
    job *j;
    sq_seq *s;
    sq_pool *pool;
    sq_look_fit *fit;
    int32_t layers_at_once, done; /* done: layers of earlier runs */
} fitting;

static squish_status run_text(fitting *k, sq_look_sums *sums, squish_error *err) {
    const job *j = k->j;
    const uint64_t all = (uint64_t)j->n * (uint64_t)j->m->cfg.n_layers;
    for (int32_t first = 0; first < j->n; first += j->o.window) {
        const int32_t n = j->n - first < j->o.window ? j->n - first : j->o.window;
        sq_seq_truncate(k->s, 0);
        sq_look_sums_window(sums);
        for (int32_t at = 0; at < n;) {
            at = n - at < STEP ? n : at + STEP;
            SQ_TRY(sq_seq_sync(k->s, j->t.ids + first, (size_t)at, err));
            const uint64_t done =
                (uint64_t)k->done * (uint64_t)j->n + (uint64_t)(first + at) * (uint64_t)k->layers_at_once;
            if (j->o.progress &&
                !j->o.progress(j->o.progress_user, "calibrating", done < all ? done : all, all))
                return sq_fail(err, SQUISH_CANCELLED, "stopped after %d of %d tokens", first + at, j->n);
        }
    }
    return SQUISH_OK;
}

static squish_status fit_layers(fitting *k, int32_t from, int32_t to, squish_error *err) {
    const sq_model *m = k->j->m;
    sq_look_sums *sums;
    SQ_TRY(sq_look_sums_new(&sums, m, from, to, STEP, k->pool, &m->alloc, err));
    sq_forward_set_tap(k->j->e->f, sq_look_sums_take, sums);
    squish_status st = run_text(k, sums, err);
    sq_forward_set_tap(k->j->e->f, NULL, NULL);
    if (st == SQUISH_OK) st = sq_look_sums_solve(sums, k->fit, err);
    sq_look_sums_free(sums);
    return st;
}

static squish_status fit_all(fitting *k, squish_error *err) {
    const sq_model *m = k->j->m;
    const int32_t layers = m->cfg.n_layers;
    SQ_TRY(open_engine(k->j, k->j->o.window, err));
    SQ_TRY(sq_seq_new(&k->s, k->j->e, err));
    SQ_TRY(sq_pool_new(&k->pool, &m->alloc, k->j->e->threads, err));
    SQ_TRY(sq_look_fit_new(&k->fit, m, &m->alloc, err));
    const uint64_t fit = sq_os_memory_available() / 4 / (sq_look_sums_bytes(&m->cfg) + 1);
    k->layers_at_once = fit < 1 ? 1 : fit > (uint64_t)layers ? layers : (int32_t)fit;
    for (; k->done < layers; k->done += k->layers_at_once) {
        const int32_t to = layers - k->done < k->layers_at_once ? layers : k->done + k->layers_at_once;
        SQ_TRY(fit_layers(k, k->done, to, err));
    }
    return SQUISH_OK;
}

static squish_status fit_and_write(fitting *k, const char *path, squish_error *err) {
    sq_buf file;
    SQ_TRY(fit_all(k, err));
    sq_buf_init(&file, &k->j->m->alloc, (size_t)1 << 34);
    squish_status st = sq_look_fit_file(k->fit, &file, err);
    if (st == SQUISH_OK) st = sq_look_fit_publish(&file, path, err);
    sq_buf_deinit(&file);
    return st;
}

squish_status squish_calibrate_lookahead(const squish_model *m, const char *out,
                                         const squish_calibrate_options *opt, squish_calibrate_result *r,
                                         squish_error *err) {
    const uint64_t start = sq_os_now_ns();
    job j = {.m = m, .o = opt ? *opt : squish_calibrate_options_default()};
    fitting k = {.j = &j};
    memset(r, 0, sizeof *r);
    if (!out)
        SQ_TRY(sq_look_path(m, r->file, sizeof r->file, err));
    else if (snprintf(r->file, sizeof r->file, "%s", out) >= (int)sizeof r->file)
        return sq_fail(err, SQUISH_INVALID, "the path '%.80s...' is too long", out);
    squish_status st = open_job(&j, err);
    if (st == SQUISH_OK) st = fit_and_write(&k, r->file, err);
    sq_look_fit_free(k.fit);
    sq_seq_free(k.s);
    sq_pool_free(k.pool);
    close_job(&j);
    if (st != SQUISH_OK) return st;
    for (int32_t t = 0; t < m->cfg.n_layers; t++) r->n_inputs += sq_config_is_moe(&m->cfg, t);
    r->bytes = sq_os_file_bytes(r->file);
    r->tokens = j.n;
    r->seconds = (double)(sq_os_now_ns() - start) / 1e9;
    return SQUISH_OK;
}

/* ---- measuring ------------------------------------------------------------------------------- */

static squish_status open_maps(sq_look_maps **out, const job *j, const squish_lookahead_options *o,
                               squish_error *err) {
    char path[1100];
    const char *file = o->file;
    if (o->kind == SQUISH_LOOKAHEAD_T0) return sq_look_maps_new(out, j->m, SQ_LOOK_T0, &j->m->alloc, err);
    if (o->kind == SQUISH_LOOKAHEAD_ROUTER)
        return sq_look_maps_new(out, j->m, SQ_LOOK_ROUTER, &j->m->alloc, err);
    if (o->kind != SQUISH_LOOKAHEAD_CALIBRATED)
        return sq_fail(err, SQUISH_INVALID,
                       "lookahead %d cannot be measured, wanted t0, router or calibrated", (int)o->kind);
    if (!file) SQ_TRY(sq_look_path(j->m, path, sizeof path, err));
    return sq_look_maps_open(out, file ? file : path, j->m, &j->m->alloc, err);
}

static double share(uint64_t part, const sq_look_count *c, int32_t used) {
    return c->tokens ? (double)part / ((double)c->tokens * used) : 0;
}

static void hand_out(const sq_look_stats *s, squish_lookahead_fn fn, void *user) {
    for (int32_t t = 0; t <= s->n_layers; t++) {
        for (int32_t k = 0; k < (t < s->n_layers ? SQ_LOOK_MOMENTS : 1); k++) {
            const sq_look_count *c = t < s->n_layers ? &s->count[t][k] : &s->all;
            if (c->tokens == 0) continue;
            const squish_lookahead_row row = {t < s->n_layers ? t : -1, k, (int64_t)c->tokens,
                                              share(c->strict, c, s->used), share(c->covered, c, s->used)};
            fn(user, &row);
        }
    }
}

/* Measured alone, so that a clock that is read often does not stand in its way. */
squish_status squish_lookahead_measure(const squish_model *m, const squish_lookahead_options *look,
                                       const squish_calibrate_options *opt, squish_lookahead_fn fn,
                                       void *user, squish_lookahead_result *out, squish_error *err) {
    job j = {.m = m, .o = opt ? *opt : squish_calibrate_options_default()};
    sq_look_maps *maps = NULL;
    sq_look *l = NULL;
    sq_look_stats s;
    squish_status st = SQUISH_OK;
    memset(out, 0, sizeof *out);
    if (look->at_once < 1 || look->at_once > SQ_SEQS_MAX)
        return sq_fail(err, SQUISH_INVALID, "%d windows at once, wanted 1 to %d", look->at_once, SQ_SEQS_MAX);
    SQ_GUARD(open_job(&j, err));
    const int32_t fit = m->cfg.ctx / j.o.window, at_once = look->at_once < fit ? look->at_once : fit;
    const sq_look_options lo = {.extra = look->extra, .rows_max = at_once, .unwatched = true};
    SQ_GUARD(open_engine(&j, at_once * j.o.window, err));
    SQ_GUARD(open_maps(&maps, &j, look, err));
    SQ_GUARD(sq_look_new(&l, m, j.e->b, maps, SQ_SEQS_MAX, &lo, &m->alloc, err));
    SQ_GUARD(sq_look_run(j.e, l, j.t.ids, j.n, j.o.window, at_once, j.o.progress, j.o.progress_user, err));
    sq_look_get_stats(l, &s);
    hand_out(&s, fn, user);
    *out = (squish_lookahead_result){m->cfg.moe.n, s.used, s.extra,
                                     s.layers ? (double)s.ns / 1e3 / (double)s.layers : 0};
fail:
    sq_look_free(l);
    sq_look_maps_free(maps);
    close_job(&j);
    return st;
}
