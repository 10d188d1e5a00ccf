/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_mistral.c - [TOOL_CALLS] and then a list of objects with name, arguments and id (Mistral 7B v0.3,
 * Nemo, Small up to 3.1), or a name, [ARGS] and the arguments, each call with a mark of its own (Small 3.2,
 * Magistral, Devstral). */
#include "calls/calls_int.h"

enum { FIRST, OBJECT, BEHIND, ARGUMENTS };

static calls_answer choose(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_NO : CALLS_MORE;
    if (r.s[r.at] == '[' || r.s[r.at] == '{') {
        calls_consume(p, r.at + (r.s[r.at] == '['));
        p->stage = OBJECT;
        return CALLS_YES;
    }
    const char *word, *id;
    size_t n, n_id;
    calls_answer a = calls_word(&r, &word, &n);
    if (a != CALLS_YES) return a;
    calls_reader ahead = r;
    a = calls_literal(&ahead, "[CALL_ID]");
    if (a == CALLS_YES) a = calls_word(&ahead, &id, &n_id);
    if (a == CALLS_MORE) return a;
    if (a == CALLS_YES) r = ahead;
    a = calls_literal(&r, "[ARGS]");
    if (a == CALLS_MORE) return a;
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_NO : CALLS_MORE;
    if (r.s[r.at] != '{' || !calls_begin(p, word, n)) return CALLS_NO;
    calls_consume(p, r.at);
    calls_json_begin(&p->json);
    p->stage = ARGUMENTS;
    return CALLS_YES;
}

/* Behind an object of the list: the next one, or the end. */
static calls_answer behind(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_YES : CALLS_MORE;
    if (r.s[r.at] != ',' && r.s[r.at] != ']') return CALLS_YES;
    if (r.s[r.at] == ',') p->stage = OBJECT;
    calls_consume(p, r.at + 1);
    return CALLS_YES;
}

static calls_answer read_mistral(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        const int32_t stage = p->stage;
        if (stage == FIRST) a = choose(p);
        if (stage == OBJECT) a = calls_object(p);
        if (stage == BEHIND) a = behind(p);
        if (stage == ARGUMENTS) a = calls_read_arguments(p);
        if (a != CALLS_YES) return a;
        if (stage == ARGUMENTS) return calls_end(p), CALLS_YES;
        if (stage == OBJECT)
            p->stage = BEHIND;
        else if (stage == BEHIND && p->stage == BEHIND)
            return CALLS_YES;
    }
}

const calls_style calls_mistral = {.name = "mistral", .open = {"[TOOL_CALLS]"}, .read = read_mistral};
