/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_notation.c - which notation a grammar is written in, by what only one of them has.
 *
 *   Lark       a directive (%), ? or ! before a name, `name:` or a priority behind it
 *   ISO 14977  `name =`
 *   GBNF, W3C  `name ::=`; of W3C if '...', a slash-star or #xN stands somewhere outside of literals; a
 *              comment behind # is GBNF's
 *
 * A grammar that both GBNF and W3C could mean is GBNF, which most clients send. */
#include "grammar/gram_source.h"

#include <string.h>

typedef struct {
    const char *s;
    size_t n, at;
} text;

static bool is_here(const text *t, const char *word) {
    const size_t n = strlen(word);
    return t->at < t->n && t->n - t->at >= n && memcmp(t->s + t->at, word, n) == 0;
}

static bool is_one_of(const text *t, const char *chars) {
    return t->at < t->n && t->s[t->at] && strchr(chars, t->s[t->at]);
}

/* Go to `end`, and behind it. */
static void skip_to(text *t, const char *end) {
    while (t->at < t->n && !is_here(t, end)) t->at++;
    t->at += t->at < t->n ? strlen(end) : 0;
}

static void skip_blanks(text *t) {
    for (;;) {
        if (is_one_of(t, " \t\r\n"))
            t->at++;
        else if (is_here(t, "#") || is_here(t, "//"))
            skip_to(t, "\n");
        else if (is_here(t, "/*"))
            skip_to(t, "*/");
        else if (is_here(t, "(*"))
            skip_to(t, "*)");
        else
            return;
    }
}

static bool is_code_point(const text *t) {
    return is_here(t, "#x") && t->n - t->at > 2 && t->s[t->at + 2] &&
           strchr("0123456789abcdefABCDEF", t->s[t->at + 2]);
}

static bool has_marks_of_w3c(text t) {
    for (; t.at < t.n; t.at++) {
        if (is_here(&t, "'") || is_here(&t, "/*") || is_code_point(&t)) return true;
        if (is_here(&t, "#")) return false;
        if (is_here(&t, "[")) /* a quote in a class is one of its characters */
            for (t.at++; t.at < t.n && t.s[t.at] != ']'; t.at++) {
                if (is_code_point(&t)) return true;
                t.at += t.s[t.at] == '\\';
            }
        if (is_here(&t, "\""))
            for (t.at++; t.at < t.n && t.s[t.at] != '"' && t.s[t.at] != '\n'; t.at++)
                t.at += t.s[t.at] == '\\';
    }
    return false;
}

gram_sym gram_from_any_notation(gram_rules *r, const char *s, size_t n) {
    text t = {s, n, 0};
    skip_blanks(&t);
    if (is_one_of(&t, "%?!")) return gram_from_lark(r, s, n);
    while (is_one_of(&t, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")) t.at++;
    if (is_one_of(&t, ".{")) return gram_from_lark(r, s, n);
    skip_blanks(&t);
    if (is_here(&t, "::=")) return has_marks_of_w3c(t) ? gram_from_ebnf(r, s, n) : gram_from_gbnf(r, s, n);
    if (is_here(&t, "=")) return gram_from_ebnf(r, s, n);
    return is_here(&t, ":") ? gram_from_lark(r, s, n) : gram_from_gbnf(r, s, n);
}
