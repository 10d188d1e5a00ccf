/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_run.c - see batch_run.h. */
#include "support/batch_run.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

static void mix(uint64_t *h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) *h = (*h ^ ((const unsigned char *)p)[i]) * 1099511628211u;
}

static void add_text(answer *a, const char *text, size_t n) {
    assert_true(text != NULL && strlen(text) == n && a->bytes + n < ANSWER_TEXT);
    memcpy(a->text + a->bytes, text, n + 1);
    a->bytes += n;
}

static void add_token(answer *a, int32_t id, float logprob, int32_t n_top, const int32_t *ids,
                      const float *logprobs) {
    assert_true(a->n < ANSWER_IDS);
    a->logprobs[a->n] = logprob;
    a->ids[a->n++] = id;
    if (n_top > 0) mix(&a->tops, ids, (size_t)n_top * sizeof *ids);
    if (n_top > 0) mix(&a->tops, logprobs, (size_t)n_top * sizeof *logprobs);
}

void answer_alone(squish_seq *s, const int32_t *prompt, size_t n, const squish_gen_options *o, answer *out) {
    squish_gen *g = NULL;
    squish_gen_event ev;
    squish_error err = {0};
    memset(out, 0, sizeof *out);
    squish_seq_truncate(s, 0);
    assert_ok(squish_gen_new(&g, s, prompt, n, o, &err), &err);
    do {
        out->status = squish_gen_next(g, &ev, &err);
        if (out->status != SQUISH_OK) break;
        if (ev.id >= 0) add_token(out, ev.id, ev.logprob, ev.n_top, ev.top_ids, ev.top_logprobs);
        add_text(out, ev.text, ev.text_bytes);
        if (ev.stop_reason) snprintf(out->reason, sizeof out->reason, "%s", ev.stop_reason);
        out->finish = ev.finish;
    } while (ev.finish == SQUISH_FINISH_NONE);
    squish_gen_get_stats(g, &out->stats.gen);
    squish_gen_free(g);
}

/* ---- bells ------------------------------------------------------------------------------------ */

struct bell {
    pthread_mutex_t lock;
    pthread_cond_t rung;
    bool ringing;
};

bell *bell_new(void) {
    bell *b = calloc(1, sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->rung, NULL);
    return b;
}

void bell_free(bell *b) {
    pthread_cond_destroy(&b->rung);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void bell_ring(void *user) {
    bell *b = user;
    pthread_mutex_lock(&b->lock);
    b->ringing = true;
    pthread_cond_signal(&b->rung);
    pthread_mutex_unlock(&b->lock);
}

struct gate {
    bell *behind;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open;
};

gate *gate_new(bell *b) {
    gate *g = calloc(1, sizeof *g);
    g->behind = b;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->opened, NULL);
    return g;
}

void gate_free(gate *g) {
    pthread_cond_destroy(&g->opened);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void gate_wait(void *user) {
    gate *g = user;
    pthread_mutex_lock(&g->lock);
    while (!g->open) pthread_cond_wait(&g->opened, &g->lock);
    pthread_mutex_unlock(&g->lock);
    bell_ring(g->behind);
}

void gate_open(gate *g) {
    pthread_mutex_lock(&g->lock);
    g->open = true;
    pthread_cond_signal(&g->opened);
    pthread_mutex_unlock(&g->lock);
}

static bool bell_wait(bell *b, const struct timespec *until) {
    int rc = 0;
    pthread_mutex_lock(&b->lock);
    while (!b->ringing && rc == 0) rc = pthread_cond_timedwait(&b->rung, &b->lock, until);
    b->ringing = false;
    pthread_mutex_unlock(&b->lock);
    return rc == 0;
}

/* ---- reading ---------------------------------------------------------------------------------- */

static void take(answer *a, const squish_job_event *ev) {
    switch (ev->kind) {
    case SQUISH_JOB_STARTED:
        assert_false(a->started);
        a->started = true;
        break;
    case SQUISH_JOB_PROMPT:
        assert_true(a->n == 0 && a->n_prompt_events < ANSWER_IDS);
        assert_true(ev->n_top >= 0 || a->n_prompt_events == 0);
        a->prompt_first_untold |= ev->n_top < 0;
        if (ev->n_top > 0) mix(&a->prompt_tops, ev->top_ids, (size_t)ev->n_top * sizeof *ev->top_ids);
        if (ev->n_top > 0) mix(&a->prompt_tops, ev->top_logprobs, (size_t)ev->n_top * sizeof(float));
        a->prompt_logprobs[a->n_prompt_events++] = ev->logprob;
        break;
    case SQUISH_JOB_TOKEN:
        add_token(a, ev->id, ev->logprob, ev->n_top, ev->top_ids, ev->top_logprobs);
        add_text(a, ev->text, ev->text_bytes);
        break;
    case SQUISH_JOB_EMBEDDING:
        assert_true(ev->n_embedding <= 2048);
        a->n_embedding = ev->n_embedding;
        memcpy(a->embedding, ev->embedding, (size_t)ev->n_embedding * sizeof *a->embedding);
        break;
    case SQUISH_JOB_END:
        add_text(a, ev->text, ev->text_bytes);
        a->finish = ev->finish;
        a->status = ev->status;
        snprintf(a->error, sizeof a->error, "%s", ev->error);
        if (ev->stop_reason) snprintf(a->reason, sizeof a->reason, "%s", ev->stop_reason);
        break;
    }
}

bool answer_read(squish_job *j, answer *out) {
    squish_job_event ev;
    while (squish_job_next(j, &ev)) {
        take(out, &ev);
        if (ev.kind != SQUISH_JOB_END) continue;
        squish_job_get_stats(j, &out->stats);
        assert_false(squish_job_next(j, &ev)); /* it was the last */
        return true;
    }
    return false;
}

void answers_wait(bell *b, squish_job *const *j, answer *out, int32_t n) {
    bool done[64] = {false};
    int32_t left = n;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    memset(out, 0, (size_t)n * sizeof *out);
    for (;;) {
        for (int32_t i = 0; i < n; i++)
            if (!done[i] && answer_read(j[i], &out[i])) done[i] = true, left--;
        if (left == 0) return;
        if (!bell_wait(b, &until)) fail_msg("%d of %d jobs did not end within a minute", left, n);
    }
}

void assert_same_answer(const answer *a, const answer *b) {
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof *a->ids);
    assert_string_equal(a->text, b->text);
    assert_int_equal(a->bytes, b->bytes);
    assert_int_equal(a->finish, b->finish);
    assert_string_equal(a->reason, b->reason);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof *a->logprobs);
    assert_int_equal(a->tops, b->tops);
}
