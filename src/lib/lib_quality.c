/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_quality.c - see lib_quality.h.
 *
 * The two models take turns on strips of 32 tokens: the source's logits of a strip are kept, the copy's are
 * compared with them as they come. Nothing larger is ever held, whatever the vocabulary. */
#include "lib/lib_quality.h"
#include "sched/sched.h"

#include <math.h>
#include <string.h>

enum { STRIP = SQ_LOGIT_ROWS, PROMPTS = 5, TEXT_MAX = 64 };

/* A verdict on a ratio of 2 needs few tokens where both sides read the same ones; large models get fewer, so
 * that measuring stays shorter than building. */
typedef struct {
    uint64_t params_max;
    int32_t tokens, window, texts, text_tokens;
} budget;
static const budget budgets[] = {
    {500000000, 1024, 256, PROMPTS, TEXT_MAX}, {4000000000, 256, 256, 3, 48}, {UINT64_MAX, 128, 128, 2, 48}};

static const char *const prompts[PROMPTS] = {
    "The old ferry left the harbour a little after six, and", "To make the soup, first",
    "\"I do not think that is true,\" she said,", "The most important thing about a bridge is",
    "In the morning the three of them"};

typedef struct {
    const sq_quality_options *o;
    sq_quality_measure *m;
    sq_engine *e[2]; /* source, copy */
    sq_seq *s[2];
    int32_t n_vocab, n_known; /* logits of a position; those that belong to tokens */
    float *strip;             /* [STRIP][n_vocab] of the source */
    int32_t filled, at;
    const int32_t *next; /* the token after each position of the strip */
    double nats[2], kl;
    uint64_t n, same;
} measuring;

static squish_status tell(measuring *k, uint64_t done, uint64_t total, squish_error *err) {
    if (!k->o->progress || k->o->progress(k->o->progress_user, "check", done, total)) return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped");
}

/* ---- one position ---------------------------------------------------------------------------- */

static int32_t argmax(const float *v, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (v[i] > v[best]) best = i;
    return best;
}

static double log_sum(const float *v, int32_t n) {
    const double top = (double)v[argmax(v, n)];
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)v[i] - top);
    return top + log(sum);
}

static uint64_t not_numbers(const float *v, int32_t n) {
    uint64_t bad = 0;
    for (int32_t i = 0; i < n; i++) bad += !isfinite(v[i]);
    return bad;
}

/* KL(source || copy) in nats. */
static double divergence(const float *p, double zp, const float *q, double zq, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const double lp = (double)p[i] - zp;
        sum += exp(lp) * (lp - ((double)q[i] - zq));
    }
    return sum;
}

static bool keep_source(void *user, int32_t position, const float *logits) {
    (void)position;
    measuring *k = user;
    memcpy(k->strip + (size_t)k->filled * (size_t)k->n_vocab, logits, (size_t)k->n_vocab * sizeof(float));
    k->filled++;
    return true;
}

static bool compare_copy(void *user, int32_t position, const float *q) {
    (void)position;
    measuring *k = user;
    const float *p = k->strip + (size_t)k->at * (size_t)k->n_vocab;
    const int32_t n = k->n_known, next = k->next[k->at++];
    const uint64_t bad = not_numbers(q, n);
    k->m->nonfinite += bad;
    if (bad) return true;
    const double zp = log_sum(p, n), zq = log_sum(q, n);
    k->nats[0] += zp - (double)p[next];
    k->nats[1] += zq - (double)q[next];
    k->kl += divergence(p, zp, q, zq, n);
    k->same += argmax(p, n) == argmax(q, n);
    k->n++;
    return true;
}

/* ---- text ------------------------------------------------------------------------------------ */

static squish_status compare_text(measuring *k, const int32_t *ids, int32_t n, int32_t window,
                                  squish_error *err) {
    for (int32_t at = 0; at + 1 < n;) {
        const int32_t left = window - at % window, rest = n - 1 - at;
        int32_t rows = left < STRIP ? left : STRIP;
        if (rows > rest) rows = rest;
        for (int32_t i = 0; i < 2 && at % window == 0; i++) sq_seq_truncate(k->s[i], 0);
        k->filled = k->at = 0;
        k->next = ids + at + 1;
        SQ_TRY(sq_seq_extend(k->s[0], ids + at, (size_t)rows, keep_source, k, err));
        SQ_TRY(sq_seq_extend(k->s[1], ids + at, (size_t)rows, compare_copy, k, err));
        at += rows;
        SQ_TRY(tell(k, (uint64_t)at, (uint64_t)n - 1, err));
    }
    return SQUISH_OK;
}

/* Greedy continuation of a prompt on timeline i, to the end token or n_max. */
static squish_status continue_prompt(measuring *k, int32_t i, const squish_tokens *prompt, int32_t n_max,
                                     int32_t *out, int32_t *n, squish_error *err) {
    squish_gen_options o = squish_gen_options_default();
    squish_gen *g = NULL;
    squish_gen_event ev = {.finish = SQUISH_FINISH_NONE};
    o.sampling.temperature = 0;
    o.max_tokens = n_max;
    *n = 0;
    SQ_TRY(squish_gen_new(&g, k->s[i], prompt->ids, prompt->count, &o, err));
    squish_status st = SQUISH_OK;
    while (st == SQUISH_OK && ev.finish == SQUISH_FINISH_NONE && *n < n_max) {
        st = squish_gen_next(g, &ev, err);
        if (st == SQUISH_OK && ev.id >= 0) out[(*n)++] = ev.id;
    }
    squish_gen_free(g);
    return st;
}

static squish_status compare_answers(measuring *k, const sq_model *source, const budget *b,
                                     squish_error *err) {
    double distinct[2] = {0};
    int32_t loops[2] = {0}, out[TEXT_MAX], n;
    for (int32_t p = 0; p < b->texts; p++) {
        squish_tokens t = {0};
        SQ_TRY(squish_tokenize(source, prompts[p], strlen(prompts[p]), SQUISH_TOK_BOS_EOS, &t, err));
        squish_status st = SQUISH_OK;
        for (int32_t i = 0; i < 2 && st == SQUISH_OK; i++) {
            squish_error cause = {0};
            st = continue_prompt(k, i, &t, b->text_tokens, out, &n, &cause);
            /* A copy that breaks only here is broken: that is a measure, not a failure to measure. */
            if (st == SQUISH_NUMERIC && i == 1) k->m->nonfinite++, st = SQUISH_OK;
            if (st != SQUISH_OK) {
                sq_fail(err, st, "%s", cause.text);
                break;
            }
            loops[i] += sq_quality_loops(out, (size_t)n, NULL);
            distinct[i] += sq_quality_distinct2(out, (size_t)n) / b->texts;
        }
        squish_tokens_free(&t);
        SQ_TRY(st);
        SQ_TRY(tell(k, (uint64_t)p + 1, (uint64_t)b->texts, err));
    }
    k->m->texts = b->texts;
    k->m->loops_reference = loops[0], k->m->loops = loops[1];
    k->m->distinct2_reference = distinct[0], k->m->distinct2 = distinct[1];
    return SQUISH_OK;
}

/* ---- both models ----------------------------------------------------------------------------- */

static squish_status open_both(measuring *k, const sq_model *source, const sq_model *copy,
                               squish_error *err) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = k->o->threads;
    o.ctx_tokens = source->cfg.ctx < 512 ? source->cfg.ctx : 512;
    o.chunk_tokens = STRIP;
    for (int32_t i = 0; i < 2; i++) {
        SQ_TRY(squish_engine_new(&k->e[i], i ? copy : source, &o, err));
        SQ_TRY(squish_seq_new(&k->s[i], k->e[i], err));
    }
    k->n_vocab = source->cfg.n_vocab;
    k->n_known = source->info.n_vocab_tokens;
    return SQUISH_OK;
}

static squish_status measure(measuring *k, const sq_model *source, squish_error *err) {
    const budget *b = budgets;
    while (source->info.n_params > b->params_max) b++;
    const int32_t window = b->window < k->e[0]->ctx ? b->window : k->e[0]->ctx;
    squish_tokens t = {0};
    SQ_TRY(squish_tokenize(source, sq_quality_text, strlen(sq_quality_text), SQUISH_TOK_BOS_EOS, &t, err));
    const int32_t n = t.count < (size_t)b->tokens ? (int32_t)t.count : b->tokens;
    squish_status st = n < 2 ? sq_fail(err, SQUISH_INVALID, "the tokenizer makes no tokens of plain text")
                             : compare_text(k, t.ids, n, window, err);
    squish_tokens_free(&t);
    SQ_TRY(st);
    const double tokens = k->n ? (double)k->n : NAN;
    k->m->ppl_reference = exp(k->nats[0] / tokens);
    k->m->ppl = exp(k->nats[1] / tokens);
    k->m->agreement = (double)k->same / tokens;
    k->m->kl = k->kl / tokens;
    /* Broken numbers decide alone, and nothing can be drawn from them. */
    return k->m->nonfinite ? SQUISH_OK : compare_answers(k, source, b, err);
}

squish_status sq_quality_measure_file(void *user, const char *file, const sq_model *source,
                                      sq_quality_measure *m, squish_error *err) {
    measuring k = {.o = user, .m = m};
    const squish_model_options o = {.alloc = &source->alloc, .allow_collapsed = true};
    squish_alloc a = source->alloc;
    sq_model *copy = NULL;
    size_t bytes = 0;
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_model_open_sqw(&copy, file, &o, err));
    SQ_GUARD(open_both(&k, source, copy, err));
    bytes = (size_t)STRIP * (size_t)k.n_vocab * sizeof(float);
    k.strip = sq_alloc_new(&a, bytes);
    if (!k.strip) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "check: out of memory");
        goto fail;
    }
    SQ_GUARD(measure(&k, source, err));
fail:
    sq_alloc_free(&a, k.strip, bytes);
    for (int32_t i = 0; i < 2; i++) {
        squish_seq_free(k.s[i]);
        squish_engine_free(k.e[i]);
    }
    sq_model_close(copy);
    if (st != SQUISH_OK) sq_err_prefix(err, "measuring what came out");
    return st;
}
