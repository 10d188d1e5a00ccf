/* SPDX-License-Identifier: Apache-2.0
 *
 * calls.c - the parser: where thoughts, text and calls begin and end. What stands in a call is its style's.
 *
 *   START --think_open--> THOUGHT --think_close--> START
 *     |                                              |
 *     +---- a call that begins bare ----> CALL <-----+
 *     +----------------> TEXT --mark--> CALL --> TEXT ...
 *
 * Blanks between these are of nobody: they are held until something follows that they belong to. Every byte
 * is looked at a bounded number of times, however small the pieces are. */
#include "calls/calls_int.h"

enum { TEXT_MAX = 64 << 20, COMPACT = 4096 };

static const calls_style *const styles[SQ_CALLS_STYLES] = {
    [SQ_CALLS_HERMES] = &calls_hermes,     [SQ_CALLS_XML] = &calls_xml,
    [SQ_CALLS_LLAMA] = &calls_llama,       [SQ_CALLS_MISTRAL] = &calls_mistral,
    [SQ_CALLS_DEEPSEEK] = &calls_deepseek, [SQ_CALLS_PYTHON] = &calls_python,
    [SQ_CALLS_HARMONY] = &calls_harmony};

const char *sq_calls_style_name(sq_calls_style s) {
    return (size_t)s < SQ_CALLS_STYLES && styles[s] ? styles[s]->name : "none";
}

/* ---- beginning and end ----------------------------------------------------------------------- */

sq_calls *sq_calls_new(const sq_calls_options *o, sq_calls_fn fn, void *user, const squish_alloc *a) {
    sq_calls *p = sq_alloc_zero(a, sizeof *p);
    if (!p) return NULL;
    *p = (sq_calls){.alloc = *a, .o = *o, .fn = fn, .user = user, .style = styles[o->manner.style]};
    p->thought = !o->manner.think_open || o->start == SQ_CALLS_THOUGHT_DONE;
    if (o->manner.think_open && o->start == SQ_CALLS_THINKS) p->state = CALLS_THOUGHT;
    sq_buf *bufs[] = {&p->in, &p->raw, &p->name, &p->arguments};
    for (size_t i = 0; i < SQ_COUNT(bufs); i++) sq_buf_init(bufs[i], a, TEXT_MAX);
    return p;
}

void sq_calls_free(sq_calls *p) {
    if (!p) return;
    sq_buf *bufs[] = {&p->in, &p->raw, &p->name, &p->arguments};
    for (size_t i = 0; i < SQ_COUNT(bufs); i++) sq_buf_deinit(bufs[i]);
    const squish_alloc a = p->alloc;
    sq_alloc_free(&a, p, sizeof *p);
}

/* ---- telling --------------------------------------------------------------------------------- */

void calls_tell(sq_calls *p, sq_calls_kind kind, const char *text, size_t n) {
    if (n == 0 && kind != SQ_CALLS_TELL_END) return;
    p->fn(p->user, &(sq_calls_event){.kind = kind, .i_call = p->n_calls, .text = text, .bytes = n});
}

static const json_t *function_of(const sq_calls *p, const char *name, size_t n) {
    for (size_t i = 0; i < json_array_size(p->o.tools); i++) {
        const json_t *f = json_object_get(json_array_get(p->o.tools, i), "function");
        const json_t *known = json_object_get(f, "name");
        if (json_string_length(known) == n && n && memcmp(json_string_value(known), name, n) == 0) return f;
    }
    return NULL;
}

const json_t *calls_properties(const sq_calls *p, const char *name, size_t n) {
    return json_object_get(json_object_get(function_of(p, name, n), "parameters"), "properties");
}

bool calls_begin(sq_calls *p, const char *name, size_t n) {
    if (n == 0 || (p->o.tools && !function_of(p, name, n))) return false;
    p->begun = true;
    if (p->o.whole)
        sq_buf_append(&p->name, name, n);
    else
        calls_tell(p, SQ_CALLS_TELL_BEGIN, name, n);
    return true;
}

void calls_arguments(sq_calls *p, const char *text, size_t n) {
    if (p->o.whole)
        sq_buf_append(&p->arguments, text, n);
    else
        calls_tell(p, SQ_CALLS_TELL_ARGUMENTS, text, n);
}

/* The call is over, or dropped; what comes is the next one's. */
static void forget(sq_calls *p) {
    p->raw.len = p->name.len = p->arguments.len = 0;
    p->begun = false;
    p->part = 0;
}

void calls_end(sq_calls *p) {
    if (p->o.whole) {
        calls_tell(p, SQ_CALLS_TELL_BEGIN, p->name.data, p->name.len);
        calls_tell(p, SQ_CALLS_TELL_ARGUMENTS, p->arguments.data, p->arguments.len);
    }
    calls_tell(p, SQ_CALLS_TELL_END, "", 0);
    p->n_calls++;
    p->any = true;
    forget(p);
}

void calls_consume(sq_calls *p, size_t n) {
    if (p->state == CALLS_CALL) sq_buf_append(&p->raw, calls_here(p), n);
    p->at += n;
    if (p->scan < p->at) p->scan = p->at;
    if (p->solid < p->at) p->solid = p->at;
}

void calls_flush(sq_calls *p, sq_calls_kind kind) {
    if (p->solid <= p->at) return;
    calls_tell(p, kind, calls_here(p), p->solid - p->at);
    p->at = p->solid;
}

/* ---- looking for marks ----------------------------------------------------------------------- */

/* Which mark begins at s[0..n), or could? */
static calls_answer mark_at(const char *s, size_t n, const char *const *marks, int32_t *which) {
    calls_answer found = CALLS_NO;
    for (int32_t i = 0; i < CALLS_MARKS && marks[i]; i++) {
        const size_t len = strlen(marks[i]), k = n < len ? n : len;
        if (memcmp(s, marks[i], k) != 0) continue;
        *which = i;
        if (k == len) return CALLS_YES;
        found = CALLS_MORE;
    }
    return found;
}

calls_answer calls_find(sq_calls *p, const char *const *marks, int32_t *which) {
    const char *s = p->in.data;
    for (; p->scan < p->in.len; p->scan++) {
        const calls_answer a = mark_at(s + p->scan, p->in.len - p->scan, marks, which);
        if (a == CALLS_YES || (a == CALLS_MORE && !p->ended)) return a;
        if (!calls_is_blank(s[p->scan])) p->solid = p->scan + 1;
    }
    return CALLS_MORE;
}

/* ---- the states ------------------------------------------------------------------------------ */

static void enter_text(sq_calls *p) {
    p->state = CALLS_TEXT;
    p->scan = p->solid = p->at;
}

static void enter_call(sq_calls *p) {
    p->state = CALLS_CALL;
    p->stage = 0;
    forget(p);
}

/* Before anything was said but thoughts. */
static calls_answer at_start(sq_calls *p) {
    if (p->style && p->style->always) return enter_call(p), CALLS_YES;
    const char *s = calls_here(p);
    const size_t n = calls_left(p);
    size_t i = p->scan - p->at; /* blanks that were seen before */
    while (i < n && calls_is_blank(s[i])) i++;
    p->scan = p->at + i;
    if (i == n && !p->ended) return CALLS_MORE;
    if (!p->thought) {
        calls_reader r = {s, n, i, p->ended};
        const calls_answer a = calls_literal(&r, p->o.manner.think_open);
        if (a == CALLS_MORE) return a;
        if (a == CALLS_YES) {
            calls_consume(p, r.at);
            p->state = CALLS_THOUGHT;
            return a;
        }
    }
    if (i < n && p->style && p->style->bare == s[i] && s[i]) {
        enter_call(p);
        return CALLS_YES;
    }
    enter_text(p);
    return CALLS_YES;
}

static void drop_blanks(sq_calls *p) {
    size_t i = 0;
    while (i < calls_left(p) && calls_is_blank(calls_here(p)[i])) i++;
    calls_consume(p, i);
}

/* Blanks at both ends of thoughts are the template's. */
static calls_answer in_thought(sq_calls *p) {
    const char *const close[] = {p->o.manner.think_close, NULL};
    int32_t which;
    if (!p->thought) drop_blanks(p);
    const calls_answer a = calls_find(p, close, &which);
    p->thought |= p->solid > p->at;
    calls_flush(p, SQ_CALLS_TELL_THOUGHT);
    if (a == CALLS_MORE) return a;
    calls_consume(p, p->scan - p->at + strlen(close[0]));
    p->thought = true;
    p->state = CALLS_AFTER_THOUGHT;
    return CALLS_YES;
}

static calls_answer after_thought(sq_calls *p) {
    drop_blanks(p);
    if (calls_left(p) == 0 && !p->ended) return CALLS_MORE;
    p->state = CALLS_START;
    return CALLS_YES;
}

static calls_answer in_text(sq_calls *p) {
    static const char *const none[] = {NULL};
    int32_t which;
    const calls_answer a = calls_find(p, p->style ? p->style->open : none, &which);
    calls_flush(p, SQ_CALLS_TELL_TEXT);
    if (a == CALLS_MORE) return a;
    p->at = p->scan; /* blanks before a call are dropped */
    enter_call(p);
    calls_consume(p, strlen(p->style->open[which]));
    return CALLS_YES;
}

/* It was no call after all. What was told of it stays. */
static void give_up(sq_calls *p) {
    const bool told = p->begun && !p->o.whole;
    if (told) {
        p->n_calls++;
        p->any = true;
    } else {
        calls_tell(p, SQ_CALLS_TELL_TEXT, p->raw.data, p->raw.len);
    }
    forget(p);
    enter_text(p);
}

static calls_answer in_call(sq_calls *p) {
    const calls_answer a = p->style->read(p);
    if (a == CALLS_YES && p->state == CALLS_CALL) {
        forget(p);
        enter_text(p);
    }
    if (a == CALLS_NO) give_up(p);
    return a == CALLS_MORE ? a : CALLS_YES;
}

static calls_answer step(sq_calls *p) {
    switch (p->state) {
    case CALLS_START: return at_start(p);
    case CALLS_THOUGHT: return in_thought(p);
    case CALLS_AFTER_THOUGHT: return after_thought(p);
    case CALLS_CALL: return in_call(p);
    case CALLS_TEXT: break;
    }
    return in_text(p);
}

static bool is_well(const sq_calls *p) {
    return !p->in.failed && !p->raw.failed && !p->name.failed && !p->arguments.failed;
}

static void compact(sq_calls *p) {
    if (p->at < COMPACT && p->at < p->in.len) return;
    if (p->in.len > p->at) memmove(p->in.data, p->in.data + p->at, p->in.len - p->at);
    p->in.len -= p->at;
    p->scan -= p->at;
    p->solid -= p->at;
    p->at = 0;
}

static bool run(sq_calls *p) {
    while (is_well(p) && step(p) != CALLS_MORE) {}
    compact(p);
    return is_well(p);
}

bool sq_calls_push(sq_calls *p, const char *text, size_t n) {
    return n == 0 || (sq_buf_append(&p->in, text, n) && run(p));
}

bool sq_calls_finish(sq_calls *p) {
    p->ended = true;
    if (!run(p)) return false;
    /* Blanks at the end belong to the text, unless calls were made. */
    if (p->state == CALLS_TEXT && !p->any) calls_tell(p, SQ_CALLS_TELL_TEXT, calls_here(p), calls_left(p));
    return true;
}
