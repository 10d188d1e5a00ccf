/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_codec.c - codebooks of a model's keys and values: a text through the model, its cache read as it fills,
 * books trained on it, what they cost measured on the end of the text, which they have not seen.
 *
 * Vectors wait in f16 as they lie in the cache. Where those of all layers do not fit a quarter of the memory
 * that is free, the text runs several times, for some layers each. */
#include "lib/lib_calib_text.h"
#include "lib/lib_codec.h"
#include "sched/sched.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { TRAIN_MIN = 1024, STRETCHES_MAX = 4, WINDOW = 1024, STEP = 256, TOKENS_DEFAULT = 65536 };

typedef struct {
    const squish_model *m;
    squish_calibrate_options o;
    squish_tokens t;
    int32_t train, prefix, stretches, window;
    sq_codec *c;
    sq_engine *e;
    sq_seq *s;
    sq_pool *pool;
    sq_kernels k;
    uint16_t *x; /* [parts of the layers at hand][train][d] */
    float *work, *rows; /* of coding; [WINDOW][d] */
    size_t x_bytes, work_bytes, rows_bytes;
    int32_t layers_at_once, done;
} job;

/* ---- what there is to do --------------------------------------------------------------------- */

static squish_status measure_text(job *j, squish_error *err) {
    const int32_t n = (int32_t)j->t.count, one = j->prefix + SQ_CODEC_CONTINUED;
    j->stretches = n / 4 / one;
    if (j->stretches < 1) j->stretches = 1;
    if (j->stretches > STRETCHES_MAX) j->stretches = STRETCHES_MAX;
    j->train = n - j->stretches * one - 1;
    if (j->train < TRAIN_MIN)
        return sq_fail(err, SQUISH_INVALID,
                       "the text has %d tokens, codebooks want %d to be made and %d to be measured (--text)",
                       n, TRAIN_MIN, one + 1);
    if (j->train > j->o.tokens_max) j->train = j->o.tokens_max;
    return SQUISH_OK;
}

static squish_status open_job(job *j, squish_error *err) {
    const squish_model *m = j->m;
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    if (!m->has_weights || !m->tok)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no %s to calibrate with", m->info.path,
                       m->has_weights ? "tokenizer" : "weights");
    if (j->o.tokens_max == 0) j->o.tokens_max = TOKENS_DEFAULT;
    if (j->o.tokens_max < TRAIN_MIN)
        return sq_fail(err, SQUISH_INVALID, "tokens is %d, codebooks want at least %d", j->o.tokens_max,
                       TRAIN_MIN);
    j->prefix = sq_codec_prefix(m->cfg.ctx);
    if (j->prefix < 4 * SQ_KV_CELL)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "a context of %d tokens is too short for prefixes that are worth coding", m->cfg.ctx);
    j->window = j->prefix < WINDOW ? j->prefix : WINDOW;
    if (!j->o.text) {
        j->o.text = sq_calib_text;
        j->o.text_bytes = strlen(sq_calib_text);
    }
    SQ_TRY(sq_codec_new(&j->c, &shape, &m->alloc, err));
    sq_model_codec_turns(m, &j->c->turns);
    SQ_TRY(sq_model_fingerprint(m, &m->alloc, &j->c->info.identity, err));
    SQ_TRY(squish_tokenize(m, j->o.text, j->o.text_bytes, SQUISH_TOK_BOS_EOS, &j->t, err));
    return measure_text(j, err);
}

/* ---- vectors --------------------------------------------------------------------------------- */

static squish_status prepare(job *j, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    const sq_kv_shape *s = &j->c->info.shape;
    const size_t d = (size_t)s->head_dim, layer = 2 * (size_t)s->n_kv_heads * (size_t)j->train * d * 2;
    eo.threads = j->o.threads;
    eo.chunk_tokens = STEP;
    eo.ctx_tokens = j->window;
    SQ_TRY(sq_engine_new(&j->e, j->m, &eo, err));
    SQ_TRY(sq_seq_new(&j->s, j->e, err));
    SQ_TRY(sq_pool_new(&j->pool, &j->m->alloc, j->e->threads, err));
    sq_kernels_select(&j->k, sq_cpu_features(), SQ_ISA_COUNT);
    const uint64_t fit = sq_os_memory_available() / 4 / layer;
    j->layers_at_once = fit < 1 ? 1 : fit > (uint64_t)s->n_layers ? s->n_layers : (int32_t)fit;
    j->x_bytes = (size_t)j->layers_at_once * layer;
    j->work_bytes = sq_codec_work_floats(j->c, j->window / SQ_KV_TILE_TOKENS) * sizeof *j->work;
    j->rows_bytes = (size_t)j->window * d * sizeof *j->rows;
    j->x = sq_alloc_new(&j->m->alloc, j->x_bytes);
    j->work = sq_alloc_new(&j->m->alloc, j->work_bytes);
    j->rows = sq_alloc_new(&j->m->alloc, j->rows_bytes);
    if (j->x && j->work && j->rows) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY, "codebooks: no memory for %.2f GB of keys and values",
                   (double)j->x_bytes / 1e9);
}

/* The first n tokens of the timeline become vectors [at, at + n) of the parts at hand. */
static void take(const job *j, int32_t at, int32_t n) {
    const sq_kv_shape *s = &j->c->info.shape;
    const size_t d = (size_t)s->head_dim;
    const int32_t tiles = sq_div_up(n, SQ_KV_TILE_TOKENS);
    const sq_codec_run r = {j->c, &j->k, 0, tiles, j->work};
    const int32_t to = j->done + j->layers_at_once;
    uint16_t *x = j->x + (size_t)at * d;
    sq_codec_begin(&r, true);
    for (int32_t l = j->done; l < to && l < s->n_layers; l++)
        for (int32_t i = 0; i < 2 * s->n_kv_heads; i++, x += (size_t)j->train * d) {
            const uint8_t *const *pages = (const uint8_t *const *)sq_kv_seq_pages(j->s->kv, l);
            sq_codec_gather(&r, l, i / 2, i % 2, pages, j->rows);
            for (size_t k = 0; k < (size_t)n * d; k++) x[k] = sq_f32_to_f16(j->rows[k]);
        }
}

static squish_status tell(const job *j, const char *what, uint64_t done, uint64_t all, squish_error *err) {
    if (!j->o.progress || j->o.progress(j->o.progress_user, what, done, all)) return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

static squish_status run_text(job *j, squish_error *err) {
    for (int32_t at = 0; at < j->train; at += j->window) {
        const int32_t n = j->train - at < j->window ? j->train - at : j->window;
        sq_seq_truncate(j->s, 0);
        SQ_TRY(sq_seq_sync(j->s, j->t.ids + at, (size_t)n, err));
        take(j, at, n);
        SQ_TRY(tell(j, "calibrating", (uint64_t)at, (uint64_t)j->train, err));
    }
    return SQUISH_OK;
}

static bool on_part(void *user, int32_t done) {
    const job *j = user;
    const int32_t before = j->done * 2 * j->c->info.shape.n_kv_heads;
    return tell(j, "training", (uint64_t)(before + done), (uint64_t)j->c->n_parts, NULL) == SQUISH_OK;
}

static squish_status train(job *j, squish_error *err) {
    const sq_kv_shape *s = &j->c->info.shape;
    SQ_TRY(prepare(j, err));
    for (; j->done < s->n_layers; j->done += j->layers_at_once) {
        const int32_t left = s->n_layers - j->done, n = left < j->layers_at_once ? left : j->layers_at_once;
        SQ_TRY(run_text(j, err));
        SQ_TRY(sq_codec_train(j->c, sq_codec_part(j->c, j->done, 0, false), 2 * n * s->n_kv_heads, j->x,
                              j->train, j->pool, &j->k, on_part, j, err));
    }
    j->c->info.tokens = (uint64_t)j->train;
    j->c->info.text = XXH3_64bits(j->t.ids, j->t.count * sizeof *j->t.ids);
    return SQUISH_OK;
}

static void release(job *j) {
    const squish_alloc *a = &j->m->alloc;
    sq_alloc_free(a, j->x, j->x ? j->x_bytes : 0);
    sq_alloc_free(a, j->work, j->work ? j->work_bytes : 0);
    sq_alloc_free(a, j->rows, j->rows ? j->rows_bytes : 0);
    j->x = NULL;
    j->work = j->rows = NULL;
    sq_seq_free(j->s);
    sq_engine_free(j->e);
    sq_pool_free(j->pool);
    j->s = NULL;
    j->e = NULL;
    j->pool = NULL;
}

/* ---- what came of it ------------------------------------------------------------------------- */

/* One thread, the vectors of a part as they were read last, a few times: the least. */
static void time_vectors(const job *j, squish_codec_result *r) {
    enum { N = 512, TIMES = 5 };
    const int32_t d = j->c->info.shape.head_dim, n = j->window < N ? j->window : N;
    uint16_t gain[N];
    uint8_t *code = (uint8_t *)(j->work + SQ_PQ_BOOK + (size_t)n * (size_t)(d + 1));
    r->encode_us = r->decode_us = 1e9;
    for (int32_t i = 0; i < TIMES; i++) {
        for (int32_t k = 0; k < n * d; k++) j->rows[k] = sq_f16_to_f32(j->x[k]);
        const uint64_t t0 = sq_os_now_ns();
        sq_codec_encode(j->c, &j->k, 0, j->rows, n, j->work, j->work + SQ_PQ_BOOK, gain, code);
        const uint64_t t1 = sq_os_now_ns();
        sq_codec_decode(j->c, 0, gain, code, n, j->rows);
        const double e = (double)(t1 - t0) / 1e3 / n, b = (double)(sq_os_now_ns() - t1) / 1e3 / n;
        if (e < r->encode_us) r->encode_us = e;
        if (b < r->decode_us) r->decode_us = b;
    }
}

static squish_status make_and_write(job *j, squish_codec_result *r, squish_error *err) {
    sq_buf file;
    squish_error why = {0};
    SQ_TRY(open_job(j, err));
    SQ_TRY(train(j, err));
    time_vectors(j, r);
    release(j);
    const size_t one = (size_t)j->prefix + SQ_CODEC_CONTINUED;
    const sq_codec_measuring o = {.m = j->m,
                                  .ids = j->t.ids + j->t.count - (size_t)j->stretches * one - 1,
                                  .prefix = j->prefix,
                                  .stretches = j->stretches,
                                  .text = j->o.text,
                                  .text_bytes = j->o.text_bytes,
                                  .threads = j->o.threads,
                                  .progress = j->o.progress,
                                  .progress_user = j->o.progress_user};
    SQ_TRY(sq_codec_measure(&o, j->c, err));
    r->passed = sq_codec_gate_check(&j->c->info.gate, &why) == SQUISH_OK;
    snprintf(r->why, sizeof r->why, "%s", why.text);
    sq_buf_init(&file, &j->m->alloc, (size_t)sq_codec_file_bytes(&j->c->info.shape));
    squish_status st = sq_codec_file(j->c, &file, err);
    if (st == SQUISH_OK) st = sq_codec_publish(&file, r->file.file, err);
    sq_buf_deinit(&file);
    return st;
}

static void fill_result(const job *j, squish_codec_result *r) {
    const sq_codec_gate *g = &j->c->info.gate;
    r->prefix = g->prefix;
    r->continued = g->continued;
    r->stretches = g->stretches;
    r->kl = g->kl;
    r->trials = g->trials;
    r->found_f16 = g->found_f16;
    r->found = g->found;
    r->restore_us = (double)g->decode_us;
    r->prefill_us = (double)g->prefill_us;
    r->bytes_token = (double)j->c->n_parts * (double)sq_codec_vector_bytes(j->c);
    r->bytes_token_f16 = (double)j->c->n_parts * (double)j->c->info.shape.head_dim * 2;
    r->file.bytes = sq_os_file_bytes(r->file.file);
    r->file.tokens = j->train;
    r->file.n_inputs = j->c->n_parts;
}

squish_status squish_calibrate_codec(const squish_model *m, const char *out,
                                     const squish_calibrate_options *opt, squish_codec_result *r,
                                     squish_error *err) {
    const uint64_t start = sq_os_now_ns();
    job j = {.m = m, .o = opt ? *opt : squish_calibrate_options_default()};
    memset(r, 0, sizeof *r);
    if (!out)
        SQ_TRY(sq_model_codec_path(m, r->file.file, sizeof r->file.file, err));
    else if (snprintf(r->file.file, sizeof r->file.file, "%s", out) >= (int)sizeof r->file.file)
        return sq_fail(err, SQUISH_INVALID, "the path '%.80s...' is too long", out);
    const squish_status st = make_and_write(&j, r, err);
    if (st == SQUISH_OK) fill_result(&j, r);
    r->file.seconds = (double)(sq_os_now_ns() - start) / 1e9;
    release(&j);
    sq_codec_free(j.c);
    squish_tokens_free(&j.t);
    return st;
}
