/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_job.c - one job of a batch: what was asked, and the events on their way to its reader.
 *
 *   batch's thread --push--> | record | record |  filling        record: event, text, tops, embedding;
 *                              swapped when the other is read             8-byte aligned
 *   reader <-------next----- | record | record |  reading
 *
 * What next() hands out lies in the buffer that is being read and stays until the following call. The last
 * event needs no memory: it is made from fields of the job. A job has two owners, reader and batch; who lets
 * go last releases it. */
#include "sched/sched_int.h"

#include <string.h>

enum { EVENTS_RESERVE = 4096 };

/* ---- what was asked -------------------------------------------------------------------------- */

static squish_status check(const sq_engine *e, const squish_job_options *o, squish_error *err) {
    if (o->n_prompt == 0 || !o->prompt) return sq_fail(err, SQUISH_INVALID, "no tokens to evaluate");
    if (o->n_prompt > (size_t)e->ctx)
        return sq_fail(err, SQUISH_INVALID,
                       "context_length_exceeded: %zu tokens, the context holds %d (raise it with --ctx)",
                       o->n_prompt, e->ctx);
    for (size_t i = 0; i < o->n_prompt; i++)
        if (o->prompt[i] < 0 || o->prompt[i] >= e->m->cfg.n_vocab)
            return sq_fail(err, SQUISH_INVALID, "token %zu is %d, wanted 0 to %d", i, o->prompt[i],
                           e->m->cfg.n_vocab - 1);
    if (o->prompt_logprobs < -1 || o->prompt_logprobs > 20)
        return sq_fail(err, SQUISH_INVALID, "prompt_logprobs is %d, wanted -1 to 20", o->prompt_logprobs);
    if (o->prompt_logprobs_from < 0 || (size_t)o->prompt_logprobs_from >= o->n_prompt)
        return sq_fail(err, SQUISH_INVALID, "prompt_logprobs_from is %d, wanted 0 to %zu",
                       o->prompt_logprobs_from, o->n_prompt - 1);
    if (o->prompt_logprobs >= 0 && e->attention.sparge)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "prompt_logprobs beside --sparge-attn: they would be of approximate attention (start "
                       "without --sparge-attn)");
    if (o->pool < SQUISH_POOL_NONE || o->pool > SQUISH_POOL_FIRST)
        return sq_fail(err, SQUISH_INVALID, "pool is %d, wanted none, mean, last or first", (int)o->pool);
    if (o->pool != SQUISH_POOL_NONE && o->prompt_logprobs >= 0)
        return sq_fail(err, SQUISH_INVALID, "an embedding has no prompt_logprobs");
    if (o->priority < -2 || o->priority > 2)
        return sq_fail(err, SQUISH_INVALID, "priority is %d, wanted -2 to 2", o->priority);
    if (!(o->deadline_s >= 0 && o->deadline_s <= 1e9))
        return sq_fail(err, SQUISH_INVALID, "deadline is %g s, wanted 0 (none) to 1e9", o->deadline_s);
    return SQUISH_OK;
}

static void destroy(sq_job *j) {
    const squish_alloc a = j->alloc;
    sq_answer_free(j->answer);
    sq_spec_free(j->spec);
    sq_alloc_free(&a, j->tokens, j->tokens ? (size_t)j->tokens_max * sizeof *j->tokens : 0);
    sq_alloc_free(&a, j->sum, j->sum ? (size_t)j->hidden * sizeof *j->sum : 0);
    for (int i = 0; i < 2; i++) sq_buf_deinit(&j->events[i]);
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->wake_lock);
    sq_alloc_free(&a, j, sizeof *j);
}

static int32_t tokens_max_of(const sq_engine *e, const squish_job_options *o) {
    const int32_t n = (int32_t)o->n_prompt, more = o->gen.max_tokens;
    return more < 0 || more > e->ctx - n ? e->ctx : n + more;
}

static squish_status fill(sq_job *j, const sq_engine *e, const squish_job_options *o, squish_error *err) {
    if (o->pool == SQUISH_POOL_NONE) {
        SQ_TRY(sq_answer_new(&j->answer, e->m, e->ctx, &o->gen, &j->alloc, err));
        sq_answer_prompt(j->answer, o->prompt, o->n_prompt);
        j->stats.gen.seed = sq_answer_seed(j->answer);
        SQ_TRY(sq_engine_spec(e, &j->spec, &o->gen.spec, j->tokens_max, &j->alloc, err));
        for (size_t i = 0; j->spec && i < o->n_prompt; i++) sq_spec_accept(j->spec, o->prompt[i]);
    } else if (!(j->sum = sq_alloc_zero(&j->alloc, (size_t)j->hidden * sizeof *j->sum))) {
        return sq_fail(err, SQUISH_NO_MEMORY, "job: out of memory");
    }
    j->tokens = sq_alloc_new(&j->alloc, (size_t)j->tokens_max * sizeof *j->tokens);
    if (!j->tokens || !sq_buf_reserve(&j->events[0], EVENTS_RESERVE) ||
        !sq_buf_reserve(&j->events[1], EVENTS_RESERVE))
        return sq_fail(err, SQUISH_NO_MEMORY, "job: out of memory for %d tokens", j->tokens_max);
    memcpy(j->tokens, o->prompt, o->n_prompt * sizeof *j->tokens);
    return SQUISH_OK;
}

squish_status sq_job_new(sq_job **out, const sq_engine *e, const squish_job_options *o, squish_error *err) {
    *out = NULL;
    SQ_TRY(check(e, o, err));
    sq_job *j = sq_alloc_zero(&e->alloc, sizeof *j);
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "job: out of memory");
    const int32_t n = (int32_t)o->n_prompt;
    *j = (sq_job){.alloc = e->alloc,
                  .m = e->m,
                  .n_prompt = n,
                  .tokens_max = tokens_max_of(e, o),
                  .prompt_logprobs = o->prompt_logprobs,
                  .scored = o->prompt_logprobs_from, /* as if those before had been */
                  .priority = o->priority,
                  .pool = o->pool,
                  .client_id = o->client,
                  .salt = o->salt,
                  .n = o->pool == SQUISH_POOL_FIRST ? 1 : n, /* what comes later does not change it */
                  .hidden = e->m->cfg.hidden,
                  .t_submit = sq_os_now_ns(),
                  .owners = 1,
                  .found_nothing = true,
                  .wake = o->wake,
                  .wake_user = o->wake_user};
    j->t_wait = j->t_submit;
    if (o->deadline_s > 0) j->deadline_ns = j->t_submit + (uint64_t)(o->deadline_s * 1e9);
    j->stats.gen.prompt_tokens = n;
    atomic_init(&j->cancelled, false);
    for (int i = 0; i < 2; i++) sq_buf_init(&j->events[i], &j->alloc, SQ_JOB_EVENTS_MAX);
    const bool locks = pthread_mutex_init(&j->lock, NULL) == 0;
    if (!locks || pthread_mutex_init(&j->wake_lock, NULL) != 0) {
        if (locks) pthread_mutex_destroy(&j->lock);
        sq_alloc_free(&e->alloc, j, sizeof *j);
        return sq_fail(err, SQUISH_NO_MEMORY, "job: no lock to be had");
    }
    const squish_status st = fill(j, e, o, err);
    if (st != SQUISH_OK) {
        destroy(j);
        return st;
    }
    *out = j;
    return SQUISH_OK;
}

void sq_job_release(sq_job *j) {
    pthread_mutex_lock(&j->lock);
    const bool last = --j->owners == 0;
    pthread_mutex_unlock(&j->lock);
    if (last) destroy(j);
}

/* ---- events, written ------------------------------------------------------------------------- */

static size_t padded(size_t n) { return sq_align_up(n, 8); }

/* Bytes of the parts behind the event, in this order. */
typedef struct {
    size_t text, tops, embedding, all;
} parts;

static parts parts_of(const squish_job_event *ev) {
    const size_t n_top = ev->n_top > 0 ? (size_t)ev->n_top : 0;
    parts p = {padded(ev->text_bytes + 1), padded(n_top * (sizeof(int32_t) + sizeof(float))),
               padded((size_t)ev->n_embedding * sizeof(float)), 0};
    p.all = padded(sizeof *ev) + p.text + p.tops + p.embedding;
    return p;
}

static void write_record(sq_buf *b, const squish_job_event *ev, const parts *p) {
    static const char zeros[8] = {0};
    const size_t n_top = ev->n_top > 0 ? (size_t)ev->n_top : 0;
    const struct {
        const void *bytes;
        size_t n, room;
    } all[] = {{ev, sizeof *ev, padded(sizeof *ev)},
               {ev->text, ev->text_bytes, p->text},
               {ev->top_ids, n_top * sizeof(int32_t), n_top * sizeof(int32_t)},
               {ev->top_logprobs, n_top * sizeof(float), p->tops - n_top * sizeof(int32_t)},
               {ev->embedding, (size_t)ev->n_embedding * sizeof(float), p->embedding}};
    for (size_t i = 0; i < SQ_COUNT(all); i++) {
        if (all[i].n) sq_buf_append(b, all[i].bytes, all[i].n);
        sq_buf_append(b, zeros, all[i].room - all[i].n);
    }
}

/* With the lock held: whether the reader waits to be woken; then it is. */
static bool take_wait(sq_job *j) {
    const bool waits = j->found_nothing;
    j->found_nothing = false;
    return waits;
}

/* Without the lock: a reader who runs at once, in the place of who wakes him, takes it first of all. Under
 * one of its own, so that none comes after the reader's free. */
static void wake(sq_job *j) {
    pthread_mutex_lock(&j->wake_lock);
    if (j->wake) j->wake(j->wake_user);
    pthread_mutex_unlock(&j->wake_lock);
}

bool sq_job_push(sq_job *j, const squish_job_event *ev) {
    const parts p = parts_of(ev);
    pthread_mutex_lock(&j->lock);
    sq_buf *b = &j->events[j->filling];
    const bool ok = sq_buf_reserve(b, p.all);
    if (ok) {
        write_record(b, ev, &p);
        j->behind += p.all;
    }
    const bool waits = ok && take_wait(j);
    pthread_mutex_unlock(&j->lock);
    if (waits) wake(j);
    return ok;
}

void sq_job_end(sq_job *j, squish_finish finish, const char *stop_reason, squish_status status,
                const squish_error *err) {
    pthread_mutex_lock(&j->lock);
    j->ended = true;
    j->finish = status == SQUISH_OK ? finish : SQUISH_FINISH_NONE;
    j->stop_reason = stop_reason;
    j->status = status;
    if (err) j->error = *err;
    j->t_end = sq_os_now_ns();
    j->batch = NULL;
    const bool waits = take_wait(j);
    pthread_mutex_unlock(&j->lock);
    if (waits) wake(j);
    sq_job_release(j);
}

bool sq_job_is_behind(sq_job *j) {
    pthread_mutex_lock(&j->lock);
    const bool behind = j->behind >= SQ_JOB_BEHIND_MAX;
    pthread_mutex_unlock(&j->lock);
    return behind;
}

/* ---- events, read ---------------------------------------------------------------------------- */

static void read_record(sq_job *j, squish_job_event *ev) {
    const sq_buf *b = &j->events[!j->filling];
    const char *at = b->data + j->read_at;
    memcpy(ev, at, sizeof *ev);
    const parts p = parts_of(ev);
    const size_t n_top = ev->n_top > 0 ? (size_t)ev->n_top : 0;
    at += padded(sizeof *ev);
    ev->text = at;
    at += p.text;
    ev->top_ids = (const int32_t *)(const void *)at;
    ev->top_logprobs = (const float *)(const void *)(at + n_top * sizeof(int32_t));
    ev->embedding = ev->n_embedding ? (const float *)(const void *)(at + p.tops) : NULL;
    j->read_at += p.all;
    j->behind -= p.all;
}

static void read_end(sq_job *j, squish_job_event *ev) {
    *ev = (squish_job_event){.kind = SQUISH_JOB_END,
                             .id = -1,
                             .text = "",
                             .t_ns = j->t_end,
                             .finish = j->finish,
                             .stop_reason = j->stop_reason,
                             .status = j->status,
                             .error = j->error.text};
    j->end_read = true;
}

bool sq_job_next(sq_job *j, squish_job_event *ev) {
    pthread_mutex_lock(&j->lock);
    bool got = true;
    if (j->read_at == j->events[!j->filling].len) {
        j->events[!j->filling].len = 0;
        j->read_at = 0;
        j->filling = !j->filling;
    }
    const bool was_behind = j->behind >= SQ_JOB_BEHIND_MAX;
    if (j->read_at < j->events[!j->filling].len)
        read_record(j, ev);
    else if (j->ended && !j->end_read)
        read_end(j, ev);
    else
        j->found_nothing = true, got = false;
    if (was_behind && j->behind < SQ_JOB_BEHIND_MAX && j->batch) sq_batch_poke(j->batch);
    pthread_mutex_unlock(&j->lock);
    return got;
}

void sq_job_cancel(sq_job *j) {
    atomic_store(&j->cancelled, true);
    pthread_mutex_lock(&j->lock);
    if (j->batch) sq_batch_poke(j->batch);
    pthread_mutex_unlock(&j->lock);
}

void sq_job_stats(sq_job *j, squish_job_stats *out) {
    pthread_mutex_lock(&j->lock);
    *out = j->stats;
    pthread_mutex_unlock(&j->lock);
    sq_gen_rates(&out->gen);
}

void sq_job_free(sq_job *j) {
    if (!j) return;
    sq_job_cancel(j);
    pthread_mutex_lock(&j->wake_lock);
    j->wake = NULL;
    pthread_mutex_unlock(&j->wake_lock);
    sq_job_release(j);
}
