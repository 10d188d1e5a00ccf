/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_run.h - what a parser of calls told, as one line that can be compared:
 *
 *   [thought]text{{name {"a": 1}}}text      a call that is not whole has no }}} */
#ifndef SQ_TEST_CALLS_RUN_H
#define SQ_TEST_CALLS_RUN_H

#include "calls/calls.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    sq_buf line;
    int kind; /* of the last event; -1: none */
} calls_told;

static inline void calls_told_event(void *user, const sq_calls_event *ev) {
    calls_told *t = user;
    if (t->kind == SQ_CALLS_TELL_THOUGHT && ev->kind != SQ_CALLS_TELL_THOUGHT) sq_buf_puts(&t->line, "]");
    if (ev->kind == SQ_CALLS_TELL_THOUGHT && t->kind != SQ_CALLS_TELL_THOUGHT) sq_buf_puts(&t->line, "[");
    if (ev->kind == SQ_CALLS_TELL_BEGIN) sq_buf_puts(&t->line, "{{");
    sq_buf_append(&t->line, ev->text, ev->bytes);
    if (ev->kind == SQ_CALLS_TELL_BEGIN) sq_buf_puts(&t->line, " ");
    if (ev->kind == SQ_CALLS_TELL_END) sq_buf_puts(&t->line, "}}");
    t->kind = ev->kind;
}

/* Feed text[0..n) in pieces of `piece` bytes, the first one of `first` (0: as the others). Free the line. */
static inline char *calls_tell_pieces(const sq_calls_options *o, const char *text, size_t n, size_t first,
                                      size_t piece) {
    const squish_alloc a = sq_alloc_default();
    calls_told t = {.kind = -1};
    sq_buf_init(&t.line, &a, 1 << 26);
    sq_calls *p = sq_calls_new(o, calls_told_event, &t, &a);
    for (size_t at = 0, k = first ? first : piece; at < n; at += k, k = piece)
        if (!sq_calls_push(p, text + at, at + k < n ? k : n - at)) abort();
    if (!sq_calls_finish(p)) abort();
    if (t.kind == SQ_CALLS_TELL_THOUGHT) sq_buf_puts(&t.line, "]");
    sq_calls_free(p);
    char *out = calloc(t.line.len + 1, 1);
    if (t.line.len) memcpy(out, t.line.data, t.line.len);
    sq_buf_deinit(&t.line);
    return out;
}

#endif
