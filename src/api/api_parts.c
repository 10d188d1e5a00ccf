/* SPDX-License-Identifier: Apache-2.0
 *
 * api_parts.c - an answer on its way from tokens to its parts: thoughts, text, calls of tools.
 *
 * Every dialect sees the same parts, whole or in a stream, and says them in its own words. Calls in a stream
 * are told while they are written: the grammar that the answer was made with sees to it that they become
 * whole. In a whole answer, and for dialects that know whole calls only, a call that was cut is text. */
#include "api/api_int.h"

#include <string.h>

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

static void begin_use(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev) {
    sq_api_use *u = SQ_ARENA_NEW(&c->arena, sq_api_use);
    char *name = u ? sq_arena_strndup(&c->arena, ev->text, ev->bytes) : NULL;
    if (!name) {
        no_memory(c);
        return;
    }
    *u = (sq_api_use){.name = name, .index = a->n_uses++};
    sq_api_base62(u->id, 24);
    sq_buf_init(&u->arguments, &c->api->alloc, SQ_API_TEXT_MAX);
    if (a->last_use)
        a->last_use->next = u;
    else
        a->uses = u;
    a->last_use = u;
}

/* Into the answer, and to whoever streams it. */
static void take_part(void *user, const sq_calls_event *ev) {
    sq_api_answer *a = user;
    sq_api_call *c = a->call;
    const bool keeps = !c->streaming || c->wish.whole_text;
    bool ok = true;
    if (c->error.status) return;
    switch (ev->kind) {
    case SQ_CALLS_TELL_THOUGHT:
        a->thinks = true;
        ok = !keeps || sq_buf_append(&a->thought, ev->text, ev->bytes);
        break;
    case SQ_CALLS_TELL_TEXT: ok = !keeps || sq_buf_append(&a->text, ev->text, ev->bytes); break;
    case SQ_CALLS_TELL_BEGIN: begin_use(c, a, ev); break;
    case SQ_CALLS_TELL_ARGUMENTS: ok = sq_buf_append(&a->last_use->arguments, ev->text, ev->bytes); break;
    case SQ_CALLS_TELL_END:
        a->last_use->whole = true;
        a->n_whole++;
        break;
    }
    if (ev->kind != SQ_CALLS_TELL_THOUGHT) a->thinks = false;
    if (!ok) no_memory(c);
    if (!c->error.status && c->streaming) c->dialect->part(c, a, ev);
}

bool sq_api_begin_parts(sq_api_call *c, sq_api_answer *a) {
    sq_buf_init(&a->thought, &c->api->alloc, SQ_API_TEXT_MAX);
    const bool calls = c->wish.tools && c->wish.choice != SQ_CALLS_FORBIDDEN;
    if (!c->dialect->part || (!calls && !c->manner.think_open && c->manner.style != SQ_CALLS_HARMONY))
        return true;
    sq_calls_options o = {.manner = c->manner,
                          .start = c->starts,
                          .tools = c->wish.tools,
                          .whole = c->dialect->whole_calls || !c->wish.stream};
    if (!calls && o.manner.style != SQ_CALLS_HARMONY) o.manner.style = SQ_CALLS_NONE;
    a->parts = sq_calls_new(&o, take_part, a, &c->api->alloc);
    return a->parts || no_memory(c);
}

void sq_api_free_parts(sq_api_answer *a) {
    sq_calls_free(a->parts);
    sq_buf_deinit(&a->thought);
    for (sq_api_use *u = a->uses; u; u = u->next) sq_buf_deinit(&u->arguments);
}

void sq_api_take_text(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    a->event = ev;
    if (!a->parts) {
        const sq_calls_event all = {.kind = SQ_CALLS_TELL_TEXT, .text = ev->text, .bytes = ev->text_bytes};
        if (ev->text_bytes) take_part(a, &all);
        return;
    }
    bool ok = sq_calls_push(a->parts, ev->text, ev->text_bytes);
    if (ok && a->thinks) a->n_thought = a->n_tokens;
    if (ok && ev->kind == SQUISH_JOB_END) ok = sq_calls_finish(a->parts);
    if (!ok) no_memory(c);
}

const char *sq_api_text_of(const sq_buf *b) { return b->data ? b->data : ""; }
