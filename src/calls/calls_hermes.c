/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_hermes.c - <tool_call>{"name": F, "arguments": {..}}</tool_call>, one pair of marks for every call.
 *
 * Hermes 2 and 3, Qwen2.5, Qwen3 and squish-tiny write calls so. A closing mark that is missing where the
 * answer ends, or where the next call begins, is missed by nobody. */
#include "calls/calls_int.h"

enum { OBJECT, CLOSE };

static calls_answer read_hermes(sq_calls *p) {
    if (p->stage == OBJECT) {
        const calls_answer a = calls_object(p);
        if (a != CALLS_YES) return a;
        p->stage = CLOSE;
    }
    calls_reader r = calls_read(p);
    calls_blanks(&r);
    const calls_answer a = calls_literal(&r, "</tool_call>");
    if (a == CALLS_YES) calls_consume(p, r.at);
    return a == CALLS_MORE ? a : CALLS_YES;
}

const calls_style calls_hermes = {.name = "hermes", .open = {"<tool_call>"}, .read = read_hermes};
