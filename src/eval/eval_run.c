/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_run.c - items to log-likelihoods: one job of a batch for each choice.
 *
 *   items, in order --encode--> | job | job | ... | job |  window, oldest first --read--> results, in order
 *
 * Choices of an item are neighbours in the window, so what they have in common is computed once (the batch's
 * prefix cache), and jobs of several items share steps. Only positions behind the context go through the
 * head. A sum never depends on who shared the step. */
#include "eval/eval_int.h"

#include <pthread.h>
#include <string.h>

enum { WINDOW = 96 };

/* ---- tokens ---------------------------------------------------------------------------------- */

static squish_status join_ids(const squish_model *m, const char *context, const char *rest, bool bos,
                              squish_tokens *out, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, 4 * EVAL_LINE_MAX);
    sq_buf_puts(&b, context);
    sq_buf_puts(&b, rest);
    squish_status st = b.failed ? sq_fail(err, SQUISH_NO_MEMORY, "eval: out of memory")
                                : squish_tokenize(m, b.data, b.len, SQUISH_TOK_SPECIAL, out, err);
    sq_buf_deinit(&b);
    if (st != SQUISH_OK || !bos) return st;
    int32_t *ids =
        sq_alloc_resize(&out->alloc, out->ids, out->count * sizeof *ids, (out->count + 1) * sizeof *ids);
    if (!ids) {
        squish_tokens_free(out);
        return sq_fail(err, SQUISH_NO_MEMORY, "eval: out of memory");
    }
    memmove(ids + 1, ids, out->count * sizeof *ids);
    ids[0] = squish_token_bos(m);
    out->ids = ids;
    out->count++;
    return SQUISH_OK;
}

/* The token that stands before a text without a context. */
static int32_t first_token(const squish_model *m) {
    squish_model_info info;
    if (squish_token_bos(m) >= 0) return squish_token_bos(m);
    squish_model_get_info(m, &info);
    for (int32_t id = 0; id < info.n_vocab_tokens; id++)
        if (squish_token_is_eos(m, id)) return id;
    return -1;
}

/* The context without its white space at the end, and that white space with the rest behind it. */
static bool move_blanks(sq_arena *ar, const eval_choice *c, const char **context, const char **rest) {
    const sq_span core = eval_stripped(c->context, strlen(c->context));
    const size_t keep = core.n ? (size_t)((const char *)core.p - c->context) + core.n : 0;
    const size_t moved = strlen(c->context) - keep, n = strlen(c->rest);
    char *all = sq_arena_alloc(ar, moved + n + 1, 1);
    *context = sq_arena_strndup(ar, c->context, keep);
    *rest = all;
    if (!all || !*context) return false;
    memcpy(all, c->context + keep, moved);
    memcpy(all + moved, c->rest, n + 1);
    return true;
}

squish_status eval_encode(const squish_model *m, const eval_choice *c, bool bos, squish_tokens *out,
                          size_t *n_context, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    const char *context, *rest;
    squish_tokens before = {0};
    sq_arena ar;
    *out = (squish_tokens){0};
    sq_arena_init(&ar, &a, 4096, 0);
    bos = bos && squish_token_bos(m) >= 0;
    squish_status st = SQUISH_OK;
    if (!move_blanks(&ar, c, &context, &rest))
        SQ_GUARD(sq_fail(err, SQUISH_NO_MEMORY, "eval: out of memory"));
    if (!*context && !bos) {
        SQ_GUARD(join_ids(m, "", rest, false, &before, err));
        const int32_t first = first_token(m);
        if (first < 0)
            SQ_GUARD(sq_fail(err, SQUISH_UNSUPPORTED,
                             "eval: an empty context, and the model has neither BOS nor EOS"));
        int32_t *ids = sq_alloc_new(&before.alloc, (before.count + 1) * sizeof *ids);
        if (!ids) SQ_GUARD(sq_fail(err, SQUISH_NO_MEMORY, "eval: out of memory"));
        ids[0] = first;
        memcpy(ids + 1, before.ids, before.count * sizeof *ids);
        *out = (squish_tokens){ids, before.count + 1, before.alloc};
        *n_context = 1;
    } else {
        SQ_GUARD(join_ids(m, context, rest, bos, out, err));
        SQ_GUARD(join_ids(m, context, "", bos, &before, err));
        *n_context = before.count;
    }
    if (out->count <= *n_context) SQ_GUARD(sq_fail(err, SQUISH_INVALID, "a continuation of no tokens"));
fail:
    if (st != SQUISH_OK) squish_tokens_free(out);
    squish_tokens_free(&before);
    sq_arena_deinit(&ar);
    return st;
}

/* ---- the window ------------------------------------------------------------------------------ */

typedef struct {
    squish_job *job;
    size_t item;
    int32_t choice;
    eval_score score;
} asked;

typedef struct {
    const eval_run_options *o;
    const eval_set *s;
    eval_result *results;
    asked window[WINDOW];
    size_t first, n; /* of the window, a ring */
    size_t item;     /* the next to ask */
    int32_t choice;
    pthread_mutex_t lock;
    pthread_cond_t rang;
    bool rung;
} running;

static void ring(void *user) {
    running *k = user;
    pthread_mutex_lock(&k->lock);
    k->rung = true;
    pthread_cond_signal(&k->rang);
    pthread_mutex_unlock(&k->lock);
}

static void await(running *k) {
    pthread_mutex_lock(&k->lock);
    while (!k->rung) pthread_cond_wait(&k->rang, &k->lock);
    k->rung = false;
    pthread_mutex_unlock(&k->lock);
}

static squish_status submit(running *k, asked *a, squish_error *err) {
    squish_tokens t;
    size_t n_context;
    SQ_TRY(
        eval_encode(k->o->model, &k->s->items[a->item].choices[a->choice], k->o->bos, &t, &n_context, err));
    const size_t most = (size_t)k->o->ctx_tokens, cut = t.count > most ? t.count - most : 0;
    squish_job_options o = squish_job_options_default();
    o.prompt = t.ids + cut;
    o.n_prompt = t.count - cut;
    o.gen.max_tokens = 0;
    o.prompt_logprobs = 1;
    o.wake = ring;
    o.wake_user = k;
    squish_status st;
    if (n_context < cut + 1) {
        st = sq_fail(err, SQUISH_INVALID, "a continuation of %zu tokens, the context holds %zu",
                     t.count - n_context, most);
    } else {
        o.prompt_logprobs_from = (int32_t)(n_context - cut);
        st = squish_job_submit(&a->job, k->o->batch, &o, err);
    }
    squish_tokens_free(&t);
    return st;
}

static squish_status fill_window(running *k, squish_error *err) {
    while (k->n < WINDOW && k->item < k->s->n) {
        if (k->results[k->item].done) {
            k->item++;
            continue;
        }
        asked *a = &k->window[(k->first + k->n) % WINDOW];
        *a = (asked){.item = k->item, .choice = k->choice, .score = {.greedy = true}};
        const squish_status st = submit(k, a, err);
        if (st != SQUISH_OK) {
            sq_err_prefix(err, "%s, item %zu, choice %d: ", k->s->task->name, a->item, (int)a->choice);
            return st;
        }
        k->n++;
        if (++k->choice == k->s->items[k->item].n) k->choice = 0, k->item++;
    }
    return SQUISH_OK;
}

/* Read a job to its end. */
static squish_status read_job(running *k, asked *a, squish_error *err) {
    squish_job_event ev = {.kind = SQUISH_JOB_STARTED};
    while (ev.kind != SQUISH_JOB_END) {
        if (!squish_job_next(a->job, &ev)) {
            await(k);
            continue;
        }
        if (ev.kind != SQUISH_JOB_PROMPT) continue;
        a->score.ll += (double)ev.logprob;
        a->score.tokens++;
        a->score.greedy = a->score.greedy && ev.n_top > 0 && ev.top_ids[0] == ev.id;
    }
    if (ev.status == SQUISH_OK) return SQUISH_OK;
    return sq_fail(err, ev.status, "%s, item %zu: %s", k->s->task->name, a->item, ev.error);
}

static squish_status take_oldest(running *k, squish_error *err) {
    asked *a = &k->window[k->first];
    SQ_TRY(read_job(k, a, err));
    squish_job_free(a->job);
    a->job = NULL;
    k->first = (k->first + 1) % WINDOW;
    k->n--;
    eval_result *r = &k->results[a->item];
    const eval_item *item = &k->s->items[a->item];
    r->choices[a->choice] = a->score;
    r->n = a->choice + 1;
    if (r->n < item->n) return SQUISH_OK;
    eval_choose(r, item);
    r->done = true;
    if (k->o->done && !k->o->done(k->o->user, a->item, r)) return sq_fail(err, SQUISH_CANCELLED, "stopped");
    return SQUISH_OK;
}

squish_status eval_run(const eval_run_options *o, const eval_set *s, eval_result *results,
                       squish_error *err) {
    running k = {.o = o, .s = s, .results = results};
    if (pthread_mutex_init(&k.lock, NULL) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "eval: no lock to be had");
    pthread_cond_init(&k.rang, NULL);
    squish_status st = fill_window(&k, err);
    while (st == SQUISH_OK && k.n > 0) {
        st = take_oldest(&k, err);
        if (st == SQUISH_OK) st = fill_window(&k, err);
    }
    for (size_t i = 0; i < k.n; i++) squish_job_free(k.window[(k.first + i) % WINDOW].job);
    pthread_cond_destroy(&k.rang);
    pthread_mutex_destroy(&k.lock);
    return st;
}
