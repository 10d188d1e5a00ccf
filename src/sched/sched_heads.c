/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_heads.c - heads as a drafter (sched_spec.h): from the hidden state behind an answer's last logits and
 * the tokens since, with the noise that its sampler will have at the places guessed. */
#include "sched/sched.h"

#include <stddef.h>
#include <stdio.h>

/* Reading heads takes some milliseconds, which an answer should be long enough to get back. */
enum { HEADS_AFTER = 16 };

static sq_engine *engine_of(sq_drafter *d) {
    return (sq_engine *)(void *)((char *)d - offsetof(sq_engine, drafter));
}

static int32_t lag(sq_drafter *d, const sq_draft_from *from) {
    return from->n_since > 0 && from->n_since <= engine_of(d)->m->heads->n ? 0 : -1;
}

static bool begin(sq_drafter *d, const sq_draft_from *from) {
    sq_engine *e = engine_of(d);
    if (lag(d, from) < 0) return false;
    e->drafts_for = from->answer;
    sq_heads_begin(e->heads, from->h, from->since, from->n_since);
    return true;
}

static int32_t next(sq_drafter *d, int64_t position, float *sure) {
    const sq_engine *e = engine_of(d);
    const sq_heads *h = e->m->heads;
    const float *logits = sq_heads_logits(e->heads);
    if (!logits) return -1;
    const int32_t at = sq_answer_guess(e->drafts_for, d, logits, h->ids, h->n_ids, position, sure);
    if (at < 0) return -1;
    sq_heads_push(e->heads, h->ids[at]);
    return h->ids[at];
}

static void make(sq_engine *e) {
    squish_error err = {0};
    e->heads_tried = true;
    if (!e->heads) return; /* none, or weights stream from disk, which the base's head is one of */
    if (sq_heads_ready(e->heads, &err) != SQUISH_OK) {
        char line[sizeof err.text + 64];
        snprintf(line, sizeof line, "heads are not used: %s", err.text);
        if (e->m->warn) e->m->warn(e->m->warn_user, line);
        return;
    }
    e->heads_ready = true;
    e->drafter = (sq_drafter){
        .mode = SQUISH_SPEC_HEADS, .most = e->m->heads->n, .lag = lag, .begin = begin, .next = next};
}

/* Asked for by name, and there are none that can be asked. */
static void tell_none(sq_engine *e) {
    const char *why = !e->m->heads ? "the model has no heads (squish train-heads makes them)"
                      : !e->heads  ? "weights stream from disk, which the base's head is one of"
                                   : NULL; /* told already */
    char line[160];
    if (why && !e->heads_told && e->m->warn) {
        snprintf(line, sizeof line, "--spec heads guesses nothing: %s", why);
        e->m->warn(e->m->warn_user, line);
    }
    e->heads_told = true;
}

sq_drafter *sq_engine_heads(sq_engine *e) {
    if (!e->heads_tried) make(e);
    if (!e->heads_ready) tell_none(e);
    return e->heads_ready ? &e->drafter : NULL;
}

sq_drafter *sq_engine_heads_later(sq_engine *e) {
    if (!e->heads) return NULL;
    if (!e->heads_tried && e->heads_asked++ < HEADS_AFTER) return NULL;
    return sq_engine_heads(e);
}
