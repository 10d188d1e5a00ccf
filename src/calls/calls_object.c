/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_object.c - a call as a JSON object: {"name": F, "arguments": {..}}, also {"name": F, "parameters":
 * {..}} and with "type": "function" or an "id" about it.
 *
 * In that order of keys, which is the one models are taught, the arguments are handed on while they are
 * written. Any other order is read as a whole. */
#include "calls/calls_int.h"

#include <stdlib.h>

enum { HEAD, ARGUMENTS, TAIL, ANY_ORDER };
enum { HEAD_MAX = 2048 }; /* bytes up to the arguments */

static calls_answer literal(calls_reader *r, const char *text) {
    calls_blanks(r);
    return calls_literal(r, text);
}

#define WANT(expr)                                                                                           \
    do {                                                                                                     \
        const calls_answer a_ = (expr);                                                                      \
        if (a_ != CALLS_YES) return a_;                                                                      \
    } while (0)

/* One of the words at the reader. */
static calls_answer one_of(calls_reader *r, const char *const *words) {
    calls_answer all = CALLS_NO;
    for (; *words; words++) {
        const calls_answer a = literal(r, *words);
        if (a == CALLS_YES) return a;
        if (a == CALLS_MORE) all = a;
    }
    return all;
}

/* "key": "text" and the comma behind it. */
static calls_answer member(calls_reader *r, const char *key, sq_buf *out) {
    WANT(literal(r, key));
    WANT(literal(r, ":"));
    calls_blanks(r);
    WANT(calls_string(r, out));
    return literal(r, ",");
}

/* {"type": "function", "name": F, "arguments": -- up to the arguments. */
static calls_answer read_head(calls_reader *r, sq_buf *name) {
    static const char *const arguments[] = {"\"arguments\"", "\"parameters\"", NULL};
    WANT(literal(r, "{"));
    sq_buf type;
    sq_buf_init(&type, &name->alloc, 64);
    calls_reader ahead = *r;
    const calls_answer typed = member(&ahead, "\"type\"", &type);
    sq_buf_deinit(&type);
    if (typed == CALLS_MORE) return typed;
    if (typed == CALLS_YES) *r = ahead;
    WANT(member(r, "\"name\"", name));
    WANT(one_of(r, arguments));
    WANT(literal(r, ":"));
    calls_blanks(r);
    if (r->at == r->n) return r->ended ? CALLS_NO : CALLS_MORE;
    return r->s[r->at] == '{' ? CALLS_YES : CALLS_NO;
}

static calls_answer head(sq_calls *p) {
    calls_reader r = calls_read(p);
    sq_buf name;
    sq_buf_init(&name, &p->alloc, HEAD_MAX);
    calls_answer a = read_head(&r, &name);
    if (a == CALLS_MORE && r.n > HEAD_MAX) a = CALLS_NO;
    if (a == CALLS_YES && !name.failed && calls_begin(p, name.data ? name.data : "", name.len)) {
        calls_consume(p, r.at);
        p->part = ARGUMENTS;
    } else if (a != CALLS_MORE) {
        p->part = ANY_ORDER;
        p->depth = 0;
        a = CALLS_YES;
    }
    calls_json_begin(&p->json);
    sq_buf_deinit(&name);
    return a;
}

/* ', "id": "x"}' or '}'. */
static calls_answer tail(sq_calls *p) {
    calls_reader r = calls_read(p), ahead = r;
    sq_buf id;
    sq_buf_init(&id, &p->alloc, 1024);
    calls_answer a = literal(&ahead, ",");
    if (a == CALLS_YES) a = literal(&ahead, "\"id\"");
    if (a == CALLS_YES) a = literal(&ahead, ":");
    if (a == CALLS_YES) calls_blanks(&ahead), a = calls_string(&ahead, &id);
    sq_buf_deinit(&id);
    if (a == CALLS_MORE) return a;
    if (a == CALLS_YES) r = ahead;
    a = literal(&r, "}");
    if (a != CALLS_YES) return a;
    calls_consume(p, r.at);
    calls_end(p);
    return a;
}

static const json_t *first_of(const json_t *o, const char *const *keys) {
    for (; *keys; keys++)
        if (json_object_get(o, *keys)) return json_object_get(o, *keys);
    return NULL;
}

/* The whole object, once it is there. */
static calls_answer take_object(sq_calls *p, const char *s, size_t n) {
    static const char *const names[] = {"name", "function", "tool", NULL};
    static const char *const arguments[] = {"arguments", "parameters", "args", NULL};
    json_t *o = json_loadb(s, n, JSON_REJECT_DUPLICATES, NULL), *parsed = NULL;
    const json_t *call = json_is_object(json_object_get(o, "function")) ? json_object_get(o, "function") : o;
    const json_t *name = first_of(call, names), *args = first_of(call, arguments);
    if (json_is_string(args)) /* an object as text, as the wire of OpenAI has it */
        args = parsed = json_loadb(json_string_value(args), json_string_length(args), 0, NULL);
    char *text = !args ? NULL : json_is_object(args) ? json_dumps(args, JSON_COMPACT) : NULL;
    const bool ok = json_is_string(name) && (text || !args) &&
                    calls_begin(p, json_string_value(name), json_string_length(name));
    if (ok) calls_arguments(p, text ? text : "{}", text ? strlen(text) : 2);
    free(text);
    json_decref(parsed);
    json_decref(o);
    return ok ? CALLS_YES : CALLS_NO;
}

static calls_answer any_order(sq_calls *p) {
    const char *s = calls_here(p);
    const size_t n = calls_left(p);
    size_t from = 0;
    while (from < n && calls_is_blank(s[from])) from++;
    calls_answer a = CALLS_MORE;
    size_t i = from + (size_t)p->depth; /* depth: bytes of it that were read before */
    while (i < n && a == CALLS_MORE) a = calls_json_byte(&p->json, (unsigned char)s[i++]);
    p->depth = (int32_t)(i - from);
    if (a == CALLS_MORE && p->ended) a = CALLS_NO;
    if (a == CALLS_NO) calls_consume(p, p->ended ? n : i - 1); /* that byte may begin something else */
    if (a != CALLS_YES) return a;
    a = take_object(p, s + from, i - from);
    calls_consume(p, i);
    if (a == CALLS_YES) calls_end(p);
    return a;
}

calls_answer calls_object(sq_calls *p) {
    calls_answer a = CALLS_YES;
    if (p->part == HEAD) a = head(p);
    if (p->part == ARGUMENTS && a == CALLS_YES) {
        a = calls_read_arguments(p);
        if (a == CALLS_YES) p->part = TAIL;
    }
    if (p->part == TAIL && a == CALLS_YES)
        a = tail(p);
    else if (p->part == ANY_ORDER && a == CALLS_YES)
        a = any_order(p);
    return a;
}
