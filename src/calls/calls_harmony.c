/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_harmony.c - OpenAI's harmony, the manner of gpt-oss: an answer is a row of messages,
 *
 *   <|channel|>analysis<|message|>...<|end|>
 *   <|start|>assistant<|channel|>commentary to=functions.F <|constrain|>json<|message|>{..}<|call|>
 *   <|start|>assistant<|channel|>final<|message|>...<|return|>
 *
 * analysis is thought, a message to functions.F is a call, everything else is text. An answer that has no
 * such marks is text. */
#include "calls/calls_int.h"

enum { HEAD, THOUGHT, TEXT, ARGUMENTS, BEHIND };
enum { HEAD_MAX = 1024 };

static const char *const heads_end[] = {"<|message|>", NULL};
static const char *const bodies_end[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"};
_Static_assert(sizeof bodies_end / sizeof bodies_end[0] == CALLS_MARKS, "calls_find reads that many");

/* Behind the last `word` in s[0..n), up to a blank or a mark; NULL: it is not there. */
static const char *after(const char *s, size_t n, const char *word, size_t *len) {
    const size_t w = strlen(word);
    for (size_t i = 0; i + w <= n; i++) {
        if (memcmp(s + i, word, w) != 0) continue;
        size_t k = i + w;
        while (k < n && !calls_is_blank(s[k]) && s[k] != '<') k++;
        *len = k - (i + w);
        return s + i + w;
    }
    return NULL;
}

/* A header of n bytes is there, the mark behind it too. */
static calls_answer take_head(sq_calls *p, size_t n) {
    const char *s = calls_here(p);
    size_t len, to_len;
    const char *to = after(s, n, "to=functions.", &to_len), *channel = after(s, n, "<|channel|>", &len);
    if (to) {
        if (!calls_begin(p, to, to_len)) return CALLS_NO;
        calls_json_begin(&p->json);
        p->stage = ARGUMENTS;
    } else {
        const bool thought = channel && len == 8 && memcmp(channel, "analysis", 8) == 0;
        p->stage = thought ? THOUGHT : TEXT;
    }
    calls_consume(p, n + strlen(heads_end[0]));
    if (p->stage != ARGUMENTS) p->raw.len = 0;
    return CALLS_YES;
}

/* <|start|>assistant<|channel|>NAME to=... <|constrain|>json<|message|>. The prompt may have begun it. */
static calls_answer head(sq_calls *p) {
    static const char *const begins[] = {"<|start|>", "<|channel|>", "<|message|>", " to=functions."};
    calls_answer begun = CALLS_NO;
    int32_t which;
    for (size_t i = 0; i < SQ_COUNT(begins) && begun != CALLS_YES; i++) {
        calls_reader r = calls_read(p);
        const calls_answer a = calls_literal(&r, begins[i]);
        if (a != CALLS_NO) begun = a;
    }
    if (begun == CALLS_NO) p->stage = TEXT; /* no message: what it says is text all the same */
    if (begun != CALLS_YES) return begun == CALLS_MORE ? begun : CALLS_YES;
    const calls_answer a = calls_find(p, heads_end, &which);
    if (a == CALLS_YES && p->scan - p->at <= HEAD_MAX) return take_head(p, p->scan - p->at);
    return p->ended || p->scan - p->at > HEAD_MAX ? CALLS_NO : a;
}

/* Text up to the mark that ends a message. */
static calls_answer body(sq_calls *p, sq_calls_kind kind) {
    int32_t which;
    const calls_answer a = calls_find(p, bodies_end, &which);
    if (a == CALLS_YES || p->ended) p->solid = p->scan;
    calls_flush(p, kind);
    if (a != CALLS_YES) return a;
    p->stage = BEHIND;
    return a;
}

/* Arguments, and the end of their message. */
static calls_answer arguments(sq_calls *p) {
    const calls_answer a = calls_read_arguments(p);
    if (a != CALLS_YES) return a;
    calls_end(p);
    p->stage = BEHIND;
    return a;
}

/* Between messages: marks that end one are passed over, one that begins one is its header's. */
static calls_answer behind(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    if (r.at == r.n) return CALLS_MORE;
    calls_answer any = CALLS_NO;
    for (int32_t i = 0; i < CALLS_MARKS; i++) {
        calls_reader ahead = r;
        const calls_answer a = calls_literal(&ahead, bodies_end[i]);
        if (a == CALLS_MORE) any = a;
        if (a != CALLS_YES) continue;
        calls_consume(p, i < 3 ? ahead.at : r.at);
        p->raw.len = 0;
        if (i >= 3) p->stage = HEAD;
        return a;
    }
    if (any == CALLS_MORE) return any;
    p->stage = TEXT;
    return CALLS_YES;
}

static calls_answer read_harmony(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        switch (p->stage) {
        case HEAD: a = head(p); break;
        case THOUGHT: a = body(p, SQ_CALLS_TELL_THOUGHT); break;
        case TEXT: a = body(p, SQ_CALLS_TELL_TEXT); break;
        case ARGUMENTS: a = arguments(p); break;
        default: a = behind(p); break;
        }
        if (a != CALLS_YES) return a;
    }
}

const calls_style calls_harmony = {.name = "harmony", .always = true, .read = read_harmony};
