/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_llama.c - {"name": F, "parameters": {..}} as the whole of an answer, or after <|python_tag|>; several
 * are divided by semicolons. Llama 3.1 to 3.3.
 *
 * The built-in tools of Llama 3.1 are written as f.call(k="v") after the tag. */
#include "calls/calls_int.h"

enum { FIRST, OBJECT, BUILT_IN, BEHIND };

/* Behind the tag: an object, or a name. */
static calls_answer choose(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_NO : CALLS_MORE;
    p->stage = r.s[r.at] == '{' ? OBJECT : BUILT_IN;
    return CALLS_YES;
}

static calls_answer built_in(sq_calls *p) {
    calls_reader r = calls_read(p);
    const char *word;
    size_t n;
    static const char ending[] = ".call";
    calls_blanks(&r);
    calls_answer a = calls_word(&r, &word, &n);
    if (a != CALLS_YES) return a;
    const size_t e = sizeof ending - 1;
    if (n <= e || memcmp(word + n - e, ending, e) != 0) return CALLS_NO;
    return calls_python_call(p, word, n - e, r.at);
}

static calls_answer behind(sq_calls *p) {
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    calls_answer a = calls_literal(&r, ";");
    if (a == CALLS_MORE) return a;
    if (a == CALLS_NO) return CALLS_YES;
    calls_blanks(&r);
    if (r.at == r.n) return r.ended ? CALLS_YES : CALLS_MORE;
    if (r.s[r.at] != '{') return CALLS_YES;
    calls_consume(p, r.at);
    p->stage = OBJECT;
    return CALLS_YES;
}

static calls_answer read_llama(sq_calls *p) {
    for (;;) {
        calls_answer a = CALLS_YES;
        const int32_t stage = p->stage;
        if (stage == FIRST) a = choose(p);
        if (stage == OBJECT) a = calls_object(p);
        if (stage == BUILT_IN) a = built_in(p);
        if (stage == BEHIND) a = behind(p);
        if (a != CALLS_YES) return a;
        if (stage == OBJECT || stage == BUILT_IN)
            p->stage = BEHIND;
        else if (stage == BEHIND && p->stage == BEHIND)
            return CALLS_YES;
    }
}

const calls_style calls_llama = {
    .name = "llama", .open = {"<|python_tag|>"}, .bare = '{', .read = read_llama};
