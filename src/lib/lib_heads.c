/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_heads.c - training heads: the base writes text, and heads learn what it says of it.
 *
 * SQ_SEQS_MAX sequences grow side by side, a token of each in a step. A sequence begins with a line of the
 * caller's text, or with what the base says to an empty page, and goes on at temperature 0, 0.7 or 1.
 * What is kept: tokens, the likeliest token and the hidden state behind each, in memory. Threads: the
 * caller's and the engine's pool, then one for training; never both at work. */
#include "forge/forge_heads.h"
#include "lib/lib_heads.h"
#include "sched/sched.h"
#include "store/store.h"
#include "squish_build.h"

#include <stdio.h>
#include <string.h>

enum { SEQUENCE = 256, LEAD = 12, LEAD_TEXT = 32, LEAD_BYTES = 400, SIDE = SQ_SEQS_MAX, HELD = 16 };

squish_heads_options squish_heads_options_default(void) {
    return (squish_heads_options){
        .heads = 4, .ids = 2048, .tokens = 131072, .steps = 600, .bits = 4, .seed = 1};
}

/* One of those that grow. */
typedef struct {
    sq_kv_seq *kv;
    sq_sampler *lead, *go_on;
    int32_t lead_ids[LEAD_TEXT], n_lead; /* one: up to LEAD tokens are drawn at temperature 1 */
} line;

typedef struct {
    const squish_model *m;
    squish_heads_options o;
    sq_engine *e;
    sq_pool *pool;
    line lines[SIDE];
    int32_t length; /* tokens of a sequence */
    sq_heads_text got;
    int32_t *tokens, *top;
    uint16_t *hidden;
    int64_t *first;
} job;

static squish_status resolve(const squish_model *m, squish_heads_options *o, squish_error *err) {
    const squish_heads_options d = squish_heads_options_default();
    if (o->heads == 0) o->heads = d.heads;
    if (o->ids == 0) o->ids = d.ids;
    if (o->tokens == 0) o->tokens = d.tokens;
    if (o->steps == 0) o->steps = d.steps;
    if (o->bits == 0) o->bits = d.bits;
    if (o->ids > m->cfg.n_vocab) o->ids = m->cfg.n_vocab / SQ_GROUP * SQ_GROUP;
    if (!m->has_weights)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no weights to train heads for", m->info.path);
    if (o->heads < 1 || o->heads > SQ_HEADS_MAX)
        return sq_fail(err, SQUISH_INVALID, "heads is %d, wanted 1 to %d", o->heads, SQ_HEADS_MAX);
    if (o->ids < SQ_GROUP || o->ids > SQ_HEADS_IDS_MAX || o->ids % SQ_GROUP)
        return sq_fail(err, SQUISH_INVALID, "ids is %d, wanted a multiple of %d up to %d", o->ids, SQ_GROUP,
                       SQ_HEADS_IDS_MAX);
    if (o->tokens < SIDE * SEQUENCE || o->tokens > 1 << 24)
        return sq_fail(err, SQUISH_INVALID, "tokens is %d, wanted %d to %d", o->tokens, SIDE * SEQUENCE,
                       1 << 24);
    if (o->steps < 1 || o->steps > 1000000)
        return sq_fail(err, SQUISH_INVALID, "steps is %d, wanted 1 to 1000000", o->steps);
    if (o->bits != 4 && o->bits != 8)
        return sq_fail(err, SQUISH_INVALID, "bits is %d, wanted 4 or 8", o->bits);
    if (m->cfg.hidden % SQ_GROUP || m->cfg.ctx < SEQUENCE)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: hidden size %d, context %d: heads want a multiple of %d, and %d", m->info.path,
                       m->cfg.hidden, m->cfg.ctx, SQ_GROUP, SEQUENCE);
    return SQUISH_OK;
}

/* ---- the base writes ------------------------------------------------------------------------- */

/* Some line of the text. */
static sq_span lead_of(const job *j, uint32_t index) {
    const uint32_t counter[4] = {index, 0, 0, 1}, key[2] = {(uint32_t)j->o.seed, (uint32_t)(j->o.seed >> 32)};
    uint32_t out[4];
    const char *text = j->o.text;
    sq_philox(counter, key, out);
    size_t from = out[0] % j->o.text_bytes;
    while (from > 0 && text[from - 1] != '\n') from--;
    size_t n = 0;
    while (n < LEAD_BYTES && from + n < j->o.text_bytes && text[from + n] != '\n') n++;
    return (sq_span){(const uint8_t *)text + from, n};
}

static squish_status sampler(const job *j, float temperature, int32_t index, sq_sampler **out,
                             squish_error *err) {
    squish_sampling s = squish_sampling_default();
    s.temperature = temperature;
    s.seed = (int64_t)(j->o.seed % 1000003) * 1000003 + index;
    SQ_TRY(sq_sampler_new(out, &s, j->m->cfg.n_vocab, j->m->info.n_vocab_tokens, SEQUENCE, NULL, 0,
                          &j->m->alloc, err));
    for (int32_t id = 0; j->m->tok && id < sq_tok_count(j->m->tok); id++)
        if (sq_tok_is_eos(j->m->tok, id)) sq_sampler_ban(*out, id, true);
    return SQUISH_OK;
}

/* Sequence `index` begins. Three of four with a line of the text, where there is one. */
static squish_status begin_line(job *j, line *l, int32_t index, squish_error *err) {
    static const float temperatures[] = {0, 0.7f, 1};
    squish_tokens t = {0};
    sq_sampler_free(l->lead);
    sq_sampler_free(l->go_on);
    l->lead = l->go_on = NULL;
    SQ_TRY(sampler(j, 1, index, &l->lead, err));
    SQ_TRY(sampler(j, temperatures[index % 3], index, &l->go_on, err));
    sq_kv_seq_truncate(l->kv, 0);
    const sq_span text = index % 4 && j->o.text_bytes ? lead_of(j, (uint32_t)index) : (sq_span){0};
    if (text.n > 0) SQ_TRY(squish_tokenize(j->m, (const char *)text.p, text.n, SQUISH_TOK_BOS_EOS, &t, err));
    l->n_lead = t.count < LEAD_TEXT ? (int32_t)t.count : LEAD_TEXT;
    for (int32_t i = 0; i < l->n_lead; i++) l->lead_ids[i] = t.ids[i];
    squish_tokens_free(&t);
    const int32_t bos = j->m->tok ? squish_token_bos(j->m) : -1;
    if (l->n_lead == 0) l->lead_ids[l->n_lead++] = bos >= 0 ? bos : 0;
    return SQUISH_OK;
}

/* One token of every sequence: at position pos, into places at + pos. */
static squish_status step(job *j, int64_t at, int32_t pos, squish_error *err) {
    sq_step_seg segs[SIDE];
    int32_t ids[SIDE], rows[SIDE];
    for (int32_t k = 0; k < SIDE; k++) {
        SQ_TRY(sq_kv_seq_reserve(j->lines[k].kv, pos + 1, err));
        ids[k] = j->tokens[at + (int64_t)k * j->length + pos];
        segs[k] = (sq_step_seg){.kv = j->lines[k].kv, .row0 = k, .n_rows = 1, .pos0 = pos};
        rows[k] = k;
    }
    SQ_TRY(sq_forward_run(j->e->f, ids, SIDE, segs, SIDE, err));
    const float *logits = sq_forward_logits(j->e->f, rows, SIDE), *hidden = sq_forward_behind_logits(j->e->f);
    const size_t ld = sq_forward_logits_ld(j->e->f), ldh = sq_forward_hidden_ld(j->e->f);
    for (int32_t k = 0; k < SIDE; k++) {
        const line *l = &j->lines[k];
        const int64_t here = at + (int64_t)k * j->length + pos;
        uint16_t *h = j->hidden + (size_t)here * (size_t)j->m->cfg.hidden;
        for (int32_t c = 0; c < j->m->cfg.hidden; c++)
            h[c] = sq_f32_to_f16(hidden[(size_t)k * ldh + (size_t)c]);
        const int32_t best = sq_argmax(logits + (size_t)k * ld, j->m->info.n_vocab_tokens);
        j->top[here] = best < 0 ? 0 : best;
        if (pos + 1 == j->length) continue;
        sq_sample_result drawn = {.id = 0};
        const bool given = pos + 1 < l->n_lead, free_lead = l->n_lead == 1 && pos + 1 < LEAD;
        if (given)
            drawn.id = l->lead_ids[pos + 1];
        else
            SQ_TRY(sq_sampler_draw(free_lead ? l->lead : l->go_on, logits + (size_t)k * ld, NULL, pos + 1, -1,
                                   &drawn, err));
        j->tokens[here + 1] = drawn.id;
    }
    return SQUISH_OK;
}

static squish_status write_all(job *j, squish_error *err) {
    const int32_t rounds = j->got.n_seqs / SIDE;
    for (int32_t r = 0; r < rounds; r++) {
        const int64_t at = (int64_t)r * SIDE * j->length;
        for (int32_t k = 0; k < SIDE; k++) {
            SQ_TRY(begin_line(j, &j->lines[k], r * SIDE + k, err));
            j->tokens[at + (int64_t)k * j->length] = j->lines[k].lead_ids[0];
        }
        for (int32_t pos = 0; pos < j->length; pos++) {
            SQ_TRY(step(j, at, pos, err));
            const uint64_t done = (uint64_t)at + (uint64_t)(pos + 1) * SIDE;
            if (j->o.progress && pos % 16 == 15 &&
                !j->o.progress(j->o.progress_user, "text of the model", done, (uint64_t)j->got.n))
                return sq_fail(err, SQUISH_CANCELLED, "stopped after %llu of %lld tokens",
                               (unsigned long long)done, (long long)j->got.n);
        }
    }
    return SQUISH_OK;
}

static squish_status prepare(job *j, squish_error *err) {
    const squish_alloc *a = &j->m->alloc;
    squish_engine_options eo = squish_engine_options_default();
    const sq_kv_shape shape = sq_model_kv_shape(&j->m->cfg);
    sq_kv_policy policy;
    eo.threads = j->o.threads;
    eo.ctx_tokens = j->length;
    sq_model_kv_policy(j->m, &eo, eo.chunk_tokens, &policy);
    eo.kv_bytes_max = sq_kv_bytes(&shape, &policy, j->length) * (SIDE + 1);
    SQ_TRY(sq_engine_new(&j->e, j->m, &eo, err));
    for (int32_t k = 0; k < SIDE; k++) SQ_TRY(sq_kv_seq_new(&j->lines[k].kv, j->e->kv, j->length, err));
    const size_t n = (size_t)j->got.n;
    j->tokens = sq_alloc_zero(a, n * sizeof *j->tokens);
    j->top = sq_alloc_zero(a, n * sizeof *j->top);
    j->hidden = sq_alloc_new(a, n * (size_t)j->m->cfg.hidden * sizeof *j->hidden);
    j->first = sq_alloc_new(a, (size_t)(j->got.n_seqs + 1) * sizeof *j->first);
    if (!j->tokens || !j->top || !j->hidden || !j->first)
        return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory for %lld tokens",
                       (long long)j->got.n);
    for (int32_t s = 0; s <= j->got.n_seqs; s++) j->first[s] = (int64_t)s * j->length;
    return SQUISH_OK;
}

static void stop_writing(job *j) {
    for (int32_t k = 0; k < SIDE; k++) {
        sq_kv_seq_free(j->lines[k].kv);
        sq_sampler_free(j->lines[k].lead);
        sq_sampler_free(j->lines[k].go_on);
        j->lines[k] = (line){0};
    }
    sq_engine_free(j->e);
    j->e = NULL;
}

static void release(job *j) {
    const squish_alloc *a = &j->m->alloc;
    const size_t n = (size_t)j->got.n;
    stop_writing(j);
    sq_pool_free(j->pool);
    sq_alloc_free(a, j->tokens, j->tokens ? n * sizeof *j->tokens : 0);
    sq_alloc_free(a, j->top, j->top ? n * sizeof *j->top : 0);
    sq_alloc_free(a, j->hidden, j->hidden ? n * (size_t)j->m->cfg.hidden * sizeof *j->hidden : 0);
    sq_alloc_free(a, j->first, j->first ? (size_t)(j->got.n_seqs + 1) * sizeof *j->first : 0);
}

/* ---- heads learn ----------------------------------------------------------------------------- */

static squish_status train(job *j, squish_heads_result *r, squish_error *err) {
    const sq_heads_wish w = {.heads = j->o.heads,
                             .n_ids = j->o.ids,
                             .steps = j->o.steps,
                             .rate = 1.5e-4f,
                             .seed = j->o.seed,
                             .type = j->o.bits == 4 ? SQ_W_I4_G64 : SQ_W_I8_G64,
                             .progress = j->o.progress,
                             .progress_user = j->o.progress_user};
    sq_heads_outcome got;
    uint8_t *file = NULL;
    size_t bytes = 0;
    j->got.tokens = j->tokens, j->got.top = j->top, j->got.hidden = j->hidden, j->got.first = j->first;
    SQ_TRY(sq_pool_new(&j->pool, &j->m->alloc, j->o.threads ? j->o.threads : sq_os_cores(), err));
    SQ_TRY(sq_heads_train(j->m, &j->got, &w, j->pool, &j->m->alloc, &file, &bytes, &got, err));
    const squish_status st = sq_os_write_file(r->file, file, bytes, err);
    sq_alloc_free(&j->m->alloc, file, bytes);
    memcpy(r->agreement, got.agreement, sizeof r->agreement);
    r->bytes = bytes;
    r->coverage = got.coverage;
    r->loss_first = got.loss_first;
    r->loss_last = got.loss_last;
    return st;
}

/* Where the tiers of the model lie: above the folder of the one that is open, or where they would be made. */
static squish_status default_path(const job *j, char *out, size_t n, squish_error *err) {
    char dir[4096];
    const char *path = j->m->info.path;
    if (!sq_heads_dir_of_tier(path, dir, sizeof dir))
        SQ_TRY(sq_store_compressed_dir(path, NULL, j->o.home, dir, sizeof dir, err));
    SQ_TRY(sq_os_mkdirs(dir, err));
    if (snprintf(out, n, "%s/%s", dir, SQ_HEADS_FILE) >= (int)n)
        return sq_fail(err, SQUISH_INVALID, "the path of %s is too long", dir);
    return SQUISH_OK;
}

squish_status squish_train_heads(const squish_model *m, const char *out, const squish_heads_options *opt,
                                 squish_heads_result *r, squish_error *err) {
    const uint64_t begin = sq_os_now_ns();
    job *j = sq_alloc_zero(&m->alloc, sizeof *j);
    memset(r, 0, sizeof *r);
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "training heads: out of memory");
    *j = (job){.m = m, .o = opt ? *opt : squish_heads_options_default(), .length = SEQUENCE};
    squish_status st = SQUISH_OK;
    SQ_GUARD(resolve(m, &j->o, err));
    if (!out)
        SQ_GUARD(default_path(j, r->file, sizeof r->file, err));
    else if (snprintf(r->file, sizeof r->file, "%s", out) >= (int)sizeof r->file)
        SQ_GUARD(sq_fail(err, SQUISH_INVALID, "the path '%.80s...' is too long", out));
    const int32_t rounds = j->o.tokens / (SIDE * SEQUENCE);
    j->got.n_seqs = rounds * SIDE;
    j->got.n = (int64_t)j->got.n_seqs * SEQUENCE;
    j->got.n_held = j->got.n_seqs / HELD;
    SQ_GUARD(prepare(j, err));
    SQ_GUARD(write_all(j, err));
    stop_writing(j);
    SQ_GUARD(train(j, r, err));
    r->tokens = (int32_t)j->got.n;
    r->steps = j->o.steps;
    r->heads = j->o.heads;
    r->seconds = (double)(sq_os_now_ns() - begin) / 1e9;
fail:
    release(j);
    sq_alloc_free(&m->alloc, j, sizeof *j);
    return st;
}
