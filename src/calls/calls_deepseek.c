/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_deepseek.c - calls between marks with full-width bars and low dots:
 *
 *   V3.1       <calls_begin><call_begin>F<sep>{..}<call_end><call_begin>G<sep>{..}<call_end><calls_end>
 *   V3 and R1  <call_begin>function<sep>F\n```json\n{..}\n```<call_end> */
#include "calls/calls_int.h"

#define BAR "\xEF\xBD\x9C"
#define DOT "\xE2\x96\x81"
#define CALLS_BEGIN "<" BAR "tool" DOT "calls" DOT "begin" BAR ">"
#define CALLS_END "<" BAR "tool" DOT "calls" DOT "end" BAR ">"
#define CALL_BEGIN "<" BAR "tool" DOT "call" DOT "begin" BAR ">"
#define CALL_END "<" BAR "tool" DOT "call" DOT "end" BAR ">"
#define SEP "<" BAR "tool" DOT "sep" BAR ">"

enum { NEXT, HEAD, ARGUMENTS, CLOSE };

/* Between calls. */
static calls_answer next(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    calls_reader ahead = r;
    const calls_answer begin = calls_literal(&ahead, CALL_BEGIN);
    if (begin == CALLS_YES) {
        calls_consume(p, ahead.at);
        p->stage = HEAD;
        return begin;
    }
    const calls_answer end = calls_literal(&r, CALLS_END);
    if (end == CALLS_YES) calls_consume(p, r.at);
    return begin == CALLS_MORE || end == CALLS_MORE ? CALLS_MORE : p->any ? CALLS_YES : end;
}

static calls_answer head(sq_calls *p) {
    calls_reader r = calls_read(p);
    const char *word;
    size_t n;
    calls_blanks(&r);
    calls_answer a = calls_word(&r, &word, &n);
    if (a == CALLS_YES) a = calls_literal(&r, SEP);
    if (a != CALLS_YES) return a;
    if (n == 8 && memcmp(word, "function", 8) == 0) {
        a = calls_word(&r, &word, &n);
        calls_blanks(&r);
        if (a == CALLS_YES) a = calls_literal(&r, "```json");
        if (a != CALLS_YES) return a;
    }
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_NO : CALLS_MORE;
    if (r.s[r.at] != '{' || !calls_begin(p, word, n)) return CALLS_NO;
    calls_consume(p, r.at);
    calls_json_begin(&p->json);
    p->stage = ARGUMENTS;
    return CALLS_YES;
}

static calls_answer close_call(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    calls_answer a = calls_literal(&r, "```");
    if (a == CALLS_MORE) return a;
    calls_blanks(&r);
    a = calls_literal(&r, CALL_END);
    if (a == CALLS_MORE) return a;
    if (a == CALLS_NO && !(r.ended && r.at == r.n)) return a;
    calls_consume(p, r.at);
    calls_end(p);
    p->stage = NEXT;
    return CALLS_YES;
}

static calls_answer read_deepseek(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        const int32_t stage = p->stage;
        if (stage == NEXT) a = next(p);
        if (stage == HEAD) a = head(p);
        if (stage == ARGUMENTS) a = calls_read_arguments(p);
        if (stage == CLOSE) a = close_call(p);
        if (a != CALLS_YES) return a;
        if (stage == ARGUMENTS) p->stage = CLOSE;
        if (stage == NEXT && p->stage == NEXT) return a;
    }
}

const calls_style calls_deepseek = {.name = "deepseek", .open = {CALLS_BEGIN}, .read = read_deepseek};
