/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_calibrate.c - calibration: a text through the model, a tap in the forward pass, sums in a file.
 *
 * The text runs in windows that know nothing of each other, in small steps, so that the caller can stop soon
 * and memory is bounded: the sums, one engine with the context of a window, nothing per token. Threads: the
 * caller's, the engine's pool and one for the sums, which never run at the same time. */
#include "forge/forge_calibration.h"
#include "lib/lib_calib_text.h"
#include "sched/sched.h"
#include "store/store.h"
#include "squish_build.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { TOKENS_DEFAULT = 16384, TOKENS_MIN = 64, WINDOW_DEFAULT = 512, WINDOW_MIN = 16, STEP = 128 };
enum { BLOCK_DEFAULT = 1024 };

squish_calibrate_options squish_calibrate_options_default(void) {
    return (squish_calibrate_options){
        .tokens_max = TOKENS_DEFAULT, .window = WINDOW_DEFAULT, .block = BLOCK_DEFAULT};
}

typedef struct {
    const squish_model *m;
    squish_calibrate_options o;
    int32_t tokens;        /* to run */
    sq_pool *pool;
    sq_calibrator *sums;
    sq_engine *e;
    sq_seq *s;
} job;

static squish_status resolve(const squish_model *m, squish_calibrate_options *o, squish_error *err) {
    const int32_t ctx = m->cfg.ctx;
    if (o->tokens_max == 0) o->tokens_max = TOKENS_DEFAULT;
    if (o->window == 0) o->window = ctx < WINDOW_DEFAULT ? ctx : WINDOW_DEFAULT;
    if (o->window > ctx && o->window == WINDOW_DEFAULT) o->window = ctx;
    if (o->block == 0) o->block = BLOCK_DEFAULT;
    if (o->tokens_max < TOKENS_MIN)
        return sq_fail(err, SQUISH_INVALID, "tokens is %d, wanted at least %d", o->tokens_max, TOKENS_MIN);
    if (o->window < WINDOW_MIN || o->window > ctx)
        return sq_fail(err, SQUISH_INVALID, "window is %d tokens, wanted %d to the model's %d", o->window,
                       WINDOW_MIN, ctx);
    if (o->block < 1 || o->block > SQ_CALIBRATION_BLOCK_MAX || (o->block > 1 && o->block % SQ_GROUP != 0))
        return sq_fail(err, SQUISH_INVALID, "block is %d columns, wanted 1 or a multiple of %d up to %d",
                       o->block, SQ_GROUP, SQ_CALIBRATION_BLOCK_MAX);
    if (!m->has_weights || !m->tok)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no %s to calibrate with", m->info.path,
                       m->has_weights ? "tokenizer" : "weights");
    if (!o->text) {
        o->text = sq_calib_text;
        o->text_bytes = strlen(sq_calib_text);
    }
    return SQUISH_OK;
}

static squish_engine_options engine_options(const job *j) {
    squish_engine_options eo = squish_engine_options_default();
    eo.threads = j->o.threads;
    eo.ctx_tokens = j->o.window;
    eo.chunk_tokens = STEP;
    return eo;
}

/* Sums and engine together must fit what is free, by the arithmetic of the engine, before either is made. */
static squish_status check_memory(const job *j, squish_error *err) {
    const squish_engine_options eo = engine_options(j);
    squish_engine_options resolved;
    squish_mem_estimate est;
    SQ_TRY(sq_engine_plan(j->m, &eo, &resolved, &est, err));
    const uint64_t usable = est.available_bytes / 10 * 9, sums = sq_calibrator_bytes(&j->m->cfg, j->o.block);
    if (sums <= usable && est.total_bytes <= usable - sums) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY,
                   "calibration with blocks of %d columns needs %.2f GB (%.2f GB of them sums), %.2f GB "
                   "may be used: %s",
                   j->o.block, (double)(sums + est.total_bytes) / 1e9, (double)sums / 1e9,
                   (double)usable / 1e9,
                   j->o.block > 1 ? "a smaller block takes less, 1 least" : "there is no smaller form");
}

static squish_status prepare(job *j, squish_error *err) {
    const squish_engine_options eo = engine_options(j);
    SQ_TRY(check_memory(j, err));
    SQ_TRY(sq_engine_new(&j->e, j->m, &eo, err));
    SQ_TRY(sq_seq_new(&j->s, j->e, err));
    SQ_TRY(sq_pool_new(&j->pool, &j->m->alloc, j->e->threads, err));
    SQ_TRY(sq_calibrator_new(&j->sums, &j->m->cfg, j->o.block, j->pool, &j->m->alloc, err));
    sq_forward_set_tap(j->e->f, sq_calibrator_take, j->sums);
    return SQUISH_OK;
}

/* The last window may be shorter. A timeline that grows keeps its front, so every token runs once. */
static squish_status run_windows(job *j, const int32_t *ids, squish_error *err) {
    for (int32_t first = 0; first < j->tokens; first += j->o.window) {
        const int32_t n = j->tokens - first < j->o.window ? j->tokens - first : j->o.window;
        sq_seq_truncate(j->s, 0);
        for (int32_t at = 0; at < n;) {
            at = n - at < STEP ? n : at + STEP;
            SQ_TRY(sq_seq_sync(j->s, ids + first, (size_t)at, err));
            if (j->o.progress && !j->o.progress(j->o.progress_user, "calibrating", (uint64_t)(first + at),
                                                (uint64_t)j->tokens))
                return sq_fail(err, SQUISH_CANCELLED, "stopped after %d of %d tokens", first + at, j->tokens);
        }
    }
    return SQUISH_OK;
}

/* Where the tiers of the model lie, made if need be. */
static squish_status default_path(const job *j, char *out, size_t n, squish_error *err) {
    char dir[4096];
    SQ_TRY(sq_store_compressed_dir(j->m->info.path, NULL, j->o.home, dir, sizeof dir, err));
    SQ_TRY(sq_os_mkdirs(dir, err));
    if (snprintf(out, n, "%s/calibration.safetensors", dir) >= (int)n)
        return sq_fail(err, SQUISH_INVALID, "the path of %s is too long", dir);
    return SQUISH_OK;
}

static squish_status run_and_write(job *j, const squish_tokens *t, const char *path, squish_error *err) {
    if (t->count < TOKENS_MIN)
        return sq_fail(err, SQUISH_INVALID, "the text has %zu tokens, wanted at least %d", t->count,
                       TOKENS_MIN);
    j->tokens = t->count < (size_t)j->o.tokens_max ? (int32_t)t->count : j->o.tokens_max;
    SQ_TRY(prepare(j, err));
    SQ_TRY(run_windows(j, t->ids, err));
    const uint64_t sum = XXH3_64bits(t->ids, (size_t)j->tokens * sizeof *t->ids);
    return sq_calibrator_write(j->sums, path, j->tokens, j->o.window, sum, err);
}

squish_status squish_calibrate(const squish_model *m, const char *out, const squish_calibrate_options *opt,
                               squish_calibrate_result *r, squish_error *err) {
    const uint64_t start = sq_os_now_ns();
    job j = {.m = m, .o = opt ? *opt : squish_calibrate_options_default()};
    squish_tokens t = {0};
    memset(r, 0, sizeof *r);
    SQ_TRY(resolve(m, &j.o, err));
    if (!out) SQ_TRY(default_path(&j, r->file, sizeof r->file, err));
    else if (snprintf(r->file, sizeof r->file, "%s", out) >= (int)sizeof r->file)
        return sq_fail(err, SQUISH_INVALID, "the path '%.80s...' is too long", out);
    squish_status st = squish_tokenize(m, j.o.text, j.o.text_bytes, SQUISH_TOK_BOS_EOS, &t, err);
    if (st == SQUISH_OK) st = run_and_write(&j, &t, r->file, err);
    sq_seq_free(j.s);
    sq_engine_free(j.e);
    sq_calibrator_free(j.sums);
    sq_pool_free(j.pool);
    squish_tokens_free(&t);
    if (st != SQUISH_OK) return st;
    r->bytes = sq_os_file_bytes(r->file);
    r->tokens = j.tokens;
    r->n_inputs = m->cfg.n_layers * SQ_TAP_COUNT;
    r->seconds = (double)(sq_os_now_ns() - start) / 1e9;
    return SQUISH_OK;
}
