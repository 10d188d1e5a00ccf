/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kv_quality.c - how far a cache in fewer bits is from f16: both read the same text, and from position
 * 1536 on the next token of one is held against that of the other.
 *
 * A row whose tokens were mostly read in f16 would say nothing: the shares of attended tokens that were read
 * in 16, 8, 4 and 2 bits are printed with every figure. Features that work behind a prompt get the first 1536
 * tokens of a window as one; the rest follows as an answer would. */
#include "bench/bench_int.h"

#include "kv/kv_private.h"
#include "sample/sample.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIRST = 1536, WINDOW = 4096, STRIP = SQ_LOGIT_ROWS, CELL = 512, CELLS = WINDOW / CELL };

typedef struct {
    squish_model *m;
    sq_engine *e[2]; /* f16, the other */
    sq_seq *s[2];
    float *strip; /* [STRIP][n_vocab] of f16 */
    int32_t kept, at;
    const int32_t *next;
    bool votes;
    sq_kv_census now; /* of the other, while a strip is compared */
    double kl, nats[2], read[SQ_RUNGS], dropped, attended, bytes[2];
    int64_t n, same;
    double cell_kl[CELLS]; /* of positions [512 i, 512 (i + 1)) */
    int64_t cell_n[CELLS];
} quality;

static bool keep(void *user, int32_t pos, const float *logits) {
    quality *q = user;
    const size_t n = (size_t)q->m->cfg.n_vocab;
    if (pos >= FIRST) memcpy(q->strip + (size_t)q->kept++ * n, logits, n * sizeof *logits);
    return true;
}

static bool compare(void *user, int32_t pos, const float *b) {
    quality *q = user;
    if (pos < FIRST) return true;
    const int32_t n = q->m->info.n_vocab_tokens, next = q->next[pos];
    const float *a = q->strip + (size_t)q->at++ * (size_t)q->m->cfg.n_vocab;
    const double za = sq_logsumexp(a, n), zb = sq_logsumexp(b, n);
    double kl = 0;
    for (int32_t i = 0; i < n; i++) {
        const double la = (double)a[i] - za;
        kl += exp(la) * (la - ((double)b[i] - zb));
    }
    q->kl += kl;
    q->cell_kl[pos / CELL] += kl;
    q->cell_n[pos / CELL]++;
    q->nats[0] += za - (double)a[next];
    q->nats[1] += zb - (double)b[next];
    q->same += bench_likeliest(a, n) == bench_likeliest(b, n);
    q->attended += pos + 1;
    for (int r = SQ_RUNG_Q2; r < SQ_RUNG_F16; r++) q->read[r] += q->now.tokens[r];
    q->dropped += q->now.dropped;
    q->n++;
    return true;
}

static void add_bytes(quality *q) {
    sq_kv_seq_census(q->s[1]->kv, &q->now);
    for (int r = 0; r < SQ_RUNGS; r++) q->bytes[1] += (double)q->now.bytes[r];
    q->bytes[0] += (double)q->now.bytes_f16;
}

/* How the tokens before a strip will be read. */
static void look(quality *q, int32_t at) {
    if (q->votes) {
        sq_votes_run(q->e[1], q->s[1]->kv, NULL);
        sq_kv_seq_census(q->s[1]->kv, &q->now);
        return;
    }
    const sq_kv_policy *p = sq_kv_pool_policy(q->e[1]->kv);
    const sq_rung r = p->k == SQ_KV_Q8 ? SQ_RUNG_Q8 : p->k == SQ_KV_Q4 ? SQ_RUNG_Q4 : SQ_RUNG_Q2;
    q->now = (sq_kv_census){0};
    q->now.tokens[r] = (sq_kv_sealed_tiles(p->window, at) - p->window.sink) * SQ_KV_TILE;
}

/* A window of n tokens through both caches, strip by strip. */
static squish_status window(quality *q, const int32_t *ids, int32_t n, squish_error *err) {
    const int32_t first = q->votes ? FIRST : 0;
    for (int i = 0; i < 2; i++) {
        sq_seq_truncate(q->s[i], 0);
        if (first) SQ_TRY(sq_seq_sync(q->s[i], ids, (size_t)first, err));
    }
    q->next = ids + 1;
    for (int32_t at = first, rows; at + 1 < n; at += rows) {
        rows = n - 1 - at < STRIP ? n - 1 - at : STRIP;
        q->kept = q->at = 0;
        look(q, at);
        SQ_TRY(sq_seq_extend(q->s[0], ids + at, (size_t)rows, keep, q, err));
        SQ_TRY(sq_seq_extend(q->s[1], ids + at, (size_t)rows, compare, q, err));
    }
    add_bytes(q);
    return SQUISH_OK;
}

static const struct {
    const char *name;
    squish_kv kv;
    bool pm, cocktail, embed;
    int32_t floor;
    bool mix;
    int32_t snap; /* tokens of the first 1536 that stay */
    bool report;
} kinds[] = {{.name = "q8", .kv = SQUISH_KV_Q8},
             {.name = "k8v4", .kv = SQUISH_KV_K8V4},
             {.name = "q4", .kv = SQUISH_KV_Q4},
             {.name = "k4v2", .kv = SQUISH_KV_K4V2},
             {.name = "q2", .kv = SQUISH_KV_Q2},
             {.name = "pm", .pm = true},
             {.name = "pm floor 4", .pm = true, .floor = 4},
             {.name = "cocktail", .cocktail = true},
             {.name = "cocktail embeddings", .cocktail = true, .embed = true},
             {.name = "pm + cocktail", .pm = true, .cocktail = true},
             {.name = "mix beside q4", .kv = SQUISH_KV_Q4, .mix = true},
             {.name = "mix beside q2", .kv = SQUISH_KV_Q2, .mix = true},
             {.name = "pm + mix", .pm = true, .mix = true},
             {.name = "pm + mix + cocktail", .pm = true, .cocktail = true, .mix = true},
             {.name = "the report's flags", .report = true},
             {.name = "snap 512", .kv = SQUISH_KV_F16, .snap = 512},
             {.name = "snap 1024", .kv = SQUISH_KV_F16, .snap = 1024},
             {.name = "snap 512 in q4", .kv = SQUISH_KV_Q4, .snap = 512}};

void bench_report_flags(const bench_options *o, squish_engine_options *eo) {
    eo->kv = SQUISH_KV_F16;
    eo->kv_options.pm = eo->kv_options.mix = eo->kv_options.cocktail = true;
    eo->attention = o->attention;
    eo->attention.sage = eo->attention.sparge = true;
}

/* The same by position: [{"position": middle of a cell, "value": nats}]. NULL: no memory. */
static json_t *by_position(const quality *q) {
    json_t *list = json_array();
    for (int32_t i = 0; i < CELLS; i++) {
        if (q->cell_n[i] == 0) continue;
        json_t *cell = json_pack("{s:i, s:f}", "position", CELL * i + CELL / 2, "value",
                                 q->cell_kl[i] / (double)q->cell_n[i]);
        if (json_array_append_new(list, cell) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}

static squish_status quality_row(const quality *q, json_t *rows, size_t kind, squish_error *err) {
    char name[48];
    double kl = q->kl / (double)q->n, share[4], sealed = 0;
    for (int i = 1; i < 4; i++) sealed += share[i] = q->read[SQ_RUNG_F16 - i] / q->attended;
    const double dropped = q->dropped / q->attended;
    share[0] = 1 - sealed - dropped;
    snprintf(name, sizeof name, "KL to f16, %s", kinds[kind].name);
    SQ_TRY(bench_row(rows, name, "nats", &kl, 1, NAN, BENCH_SMALL_IS_GOOD, err));
    json_t *more = json_pack(
        "{s:s, s:s, s:f, s:f, s:[f,f,f,f], s:f, s:f, s:f, s:I, s:o}", "bench", "kv", "kv", kinds[kind].name,
        "read_sealed", sealed, "dropped", dropped, "read", share[0], share[1], share[2], share[3],
        "ppl_ratio", exp((q->nats[1] - q->nats[0]) / (double)q->n), "same_best",
        (double)q->same / (double)q->n, "bytes_ratio", q->bytes[0] / q->bytes[1], "tokens", (json_int_t)q->n,
        "by_position", by_position(q));
    const int failed = json_object_update(json_array_get(rows, json_array_size(rows) - 1), more);
    json_decref(more);
    return failed ? sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory") : SQUISH_OK;
}

static squish_status one_kind(const bench_options *o, squish_model *m, const squish_tokens *t, size_t kind,
                              json_t *rows, squish_error *err) {
    quality q = {.m = m,
                 .votes = kinds[kind].pm || kinds[kind].cocktail || kinds[kind].mix || kinds[kind].snap ||
                          kinds[kind].report};
    squish_engine_options eo = squish_engine_options_default();
    squish_status st = SQUISH_OK;
    const size_t strip = (size_t)STRIP * (size_t)m->cfg.n_vocab * sizeof *q.strip;
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = m->cfg.ctx < WINDOW ? m->cfg.ctx : WINDOW;
    q.strip = sq_alloc_new(&m->alloc, strip);
    if (!q.strip) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    for (int i = 0; i < 2; i++) {
        eo.kv = i ? kinds[kind].kv : SQUISH_KV_F16;
        eo.kv_options.pm = i && kinds[kind].pm;
        eo.kv_options.cocktail = i && kinds[kind].cocktail;
        eo.kv_options.mix = i && kinds[kind].mix;
        eo.kv_options.snap = i ? kinds[kind].snap : 0;
        eo.kv_options.cocktail_embed = i && kinds[kind].embed;
        eo.kv_options.pm_floor = kinds[kind].floor ? kinds[kind].floor : 2;
        if (i && kinds[kind].report) bench_report_flags(o, &eo);
        SQ_GUARD(sq_engine_new(&q.e[i], m, &eo, err));
        SQ_GUARD(sq_seq_new(&q.s[i], q.e[i], err));
    }
    for (size_t at = 0; at + FIRST < t->count; at += (size_t)eo.ctx_tokens) {
        const size_t left = t->count - at, n = left < (size_t)eo.ctx_tokens ? left : (size_t)eo.ctx_tokens;
        SQ_GUARD(window(&q, t->ids + at, (int32_t)n, err));
    }
    if (q.n == 0)
        st = sq_fail(err, SQUISH_INVALID, "bench kv: the text has %zu tokens, more than %d are wanted",
                     t->count, FIRST);
    else
        st = quality_row(&q, rows, kind, err);
fail:
    for (int i = 0; i < 2; i++) {
        sq_seq_free(q.s[i]);
        sq_engine_free(q.e[i]);
    }
    sq_alloc_free(&m->alloc, q.strip, strip);
    return st;
}

/* With --kv NAME only that format, as it is. */
static bool is_wanted(const bench_options *o, size_t kind) {
    return !o->one_kv || strcmp(kinds[kind].name, squish_kv_name(o->kv)) == 0;
}

squish_status bench_kv_quality(const bench_options *o, squish_model *m, json_t *rows, squish_error *err) {
    squish_tokens t = {0};
    SQ_TRY(squish_tokenize(m, o->text, o->text_bytes, SQUISH_TOK_BOS_EOS, &t, err));
    squish_status st = SQUISH_OK;
    for (size_t i = 0; i < SQ_COUNT(kinds) && st == SQUISH_OK; i++)
        if (is_wanted(o, i)) st = one_kind(o, m, &t, i, rows, err);
    squish_tokens_free(&t);
    return st;
}
