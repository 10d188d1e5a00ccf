/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_ebnf.c - EBNF in the two forms that standards use, told apart by the first rule.
 *
 *   W3C (XML 1.0, section 6)   Name ::= "a" 'b' #x41 [a-z#x30-#x39] [^<&] Other ( ... ) | ...   ? * +   A - B
 *   ISO/IEC 14977              name = "a", 'b', other, [ optional ], { repeated }, ( ... ) | ..., 3 * "x", a
 * - b;
 *
 * Comments are slash-star or (* *). No notation has escapes in literals. The comma of ISO may be left out,
 * its names have no blanks. An exception A - B needs both sides to be regular. The text starts at the rule
 * `root`, or at the first if there is none. */
#include "grammar/gram_source.h"

#include <string.h>

enum { RANGES_MAX = 1024 };

typedef struct {
    gram_source src; /* first, so that one is the other */
    bool iso;
} reader;

static bool is_iso(const gram_source *c) { return ((const reader *)c)->iso; }

static gram_sym alternatives(gram_source *c);

static void skip_comment(gram_source *c, const char *end) {
    while (c->at < c->n && !gram_take(c, end)) c->at++;
}

static void skip_space(gram_source *c) {
    for (;;) {
        if (c->at < c->n && strchr(" \t\r\n", c->s[c->at]) && c->s[c->at])
            c->at++;
        else if (gram_take(c, "/*"))
            skip_comment(c, "*/");
        else if (gram_take(c, "(*"))
            skip_comment(c, "*)");
        else
            return;
    }
}

/* ---- elements --------------------------------------------------------------------------------- */

static gram_sym literal(gram_source *c, char quote) {
    const size_t from = c->at;
    while (c->at < c->n && c->s[c->at] != quote && c->s[c->at] != '\n') c->at++;
    const size_t n = c->at - from;
    if (!gram_next_is(c, quote)) return gram_source_refuse(c, SQUISH_INVALID, "a literal without its end");
    c->at++;
    return c->dry ? GRAM_EPS : gram_literal(c->p, c->s + from, n);
}

/* A character of a class: as it is, or #xN. */
static uint32_t class_char(gram_source *c) {
    uint32_t x = 0;
    if (!gram_take(c, "#x")) return gram_take_char(c);
    return gram_take_hex(c, 1, 8, &x) ? x : 0;
}

/* Kept out of what recurses: ranges are 8 KiB of stack. */
static __attribute__((noinline)) gram_sym char_class(gram_source *c) {
    gram_range l[RANGES_MAX];
    size_t n = 0;
    const bool negated = gram_take(c, "^");
    while (!gram_take(c, "]")) {
        if (c->at >= c->n) return gram_source_refuse(c, SQUISH_INVALID, "a class without its ]");
        if (n == RANGES_MAX)
            return gram_source_refuse(c, SQUISH_UNSUPPORTED, "more than 1024 ranges in a class");
        const uint32_t lo = class_char(c);
        uint32_t hi = lo;
        if (c->at + 1 < c->n && gram_next_is(c, '-') && c->s[c->at + 1] != ']') {
            c->at++;
            hi = class_char(c);
        }
        if (gram_failed(c->p)) return GRAM_EMPTY;
        if (hi < lo) return gram_source_refuse(c, SQUISH_INVALID, "a range of a class runs backwards");
        l[n++] = (gram_range){lo, hi};
    }
    if (c->dry) return GRAM_EPS;
    return negated ? gram_chars_except(c->p, l, n) : gram_chars(c->p, l, n, GRAM_PLAIN);
}

static gram_sym code_point(gram_source *c) {
    gram_range r;
    if (!gram_take_hex(c, 1, 8, &r.lo)) return GRAM_EMPTY;
    r.hi = r.lo;
    return c->dry ? GRAM_EPS : gram_chars(c->p, &r, 1, GRAM_PLAIN);
}

/* What stands in brackets of any kind. */
static gram_sym group(gram_source *c, const char *close, uint32_t lo, uint32_t hi) {
    if (!gram_enter(c)) return GRAM_EMPTY;
    const gram_sym s = alternatives(c);
    gram_leave(c);
    if (!gram_take(c, close)) return gram_source_refuse(c, SQUISH_INVALID, "a group without its end");
    return c->dry ? GRAM_EPS : gram_repeat(c->r, s, lo, hi);
}

static gram_sym reference(gram_source *c) {
    const char *name;
    const size_t n = gram_take_name(c, "_-", &name);
    if (n == 0) return gram_source_refuse(c, SQUISH_INVALID, "neither literal, class, rule nor group");
    return gram_source_reference(c, name, n);
}

static gram_sym element(gram_source *c) {
    if (gram_take(c, "\"")) return literal(c, '"');
    if (gram_take(c, "'")) return literal(c, '\'');
    if (gram_take(c, "(")) return group(c, ")", 1, 1);
    if (!is_iso(c)) {
        if (gram_take(c, "#x")) return code_point(c);
        if (gram_take(c, "[")) return char_class(c);
        return reference(c);
    }
    if (gram_take(c, "[")) return group(c, "]", 0, 1);
    if (gram_take(c, "{")) return group(c, "}", 0, GRAM_INF);
    if (gram_next_is(c, '?'))
        return gram_source_refuse(c, SQUISH_UNSUPPORTED, "a special sequence has no meaning that is known");
    return reference(c);
}

/* W3C: A?, A*, A+. ISO: 3 * A. */
static gram_sym counted(gram_source *c) {
    uint32_t n;
    if (is_iso(c) && gram_take_number(c, &n)) {
        skip_space(c);
        if (!gram_take(c, "*")) return gram_source_refuse(c, SQUISH_INVALID, "a count without its *");
        skip_space(c);
        const gram_sym s = element(c);
        if (!gram_check_count(c, n, n)) return GRAM_EMPTY;
        return c->dry ? GRAM_EPS : gram_repeat(c->r, s, n, n);
    }
    gram_sym s = element(c);
    while (!is_iso(c)) {
        const bool star = gram_take(c, "*"), plus = !star && gram_take(c, "+");
        if (!star && !plus && !gram_take(c, "?")) break;
        if (!c->dry) s = gram_repeat(c->r, s, plus, star || plus ? GRAM_INF : 1);
    }
    return s;
}

static gram_sym excepted(gram_source *c) {
    gram_sym s = counted(c);
    for (skip_space(c); gram_take(c, "-"); skip_space(c)) {
        skip_space(c);
        const gram_sym less = counted(c);
        if (c->dry || gram_failed(c->p)) continue;
        if ((s | less) & GRAM_NT)
            return gram_source_refuse(c, SQUISH_UNSUPPORTED, "an exception of or from what is not regular");
        s = gram_and(c->p, s, gram_not(c->p, less));
    }
    return s;
}

/* In W3C a rule has no end of its own: the next one's name and ::= are it. */
static bool next_rule(gram_source *c) {
    const size_t back = c->at;
    const char *name;
    const size_t n = gram_take_name(c, "_-", &name);
    skip_space(c);
    const bool is = n > 0 && gram_take(c, "::=");
    c->at = back;
    return is;
}

static bool at_end(gram_source *c) {
    skip_space(c);
    if (c->at >= c->n || gram_failed(c->p)) return true;
    if (strchr(is_iso(c) ? "|/!)]};." : "|)", c->s[c->at])) return true;
    return !is_iso(c) && next_rule(c);
}

static gram_sym sequence(gram_source *c) {
    const size_t base = c->p->scratch.n;
    while (!at_end(c)) {
        const gram_sym s = excepted(c);
        gram_vec_push_u32(c->p, &c->p->scratch, s);
        skip_space(c);
        if (is_iso(c)) gram_take(c, ",");
    }
    return gram_source_seq(c, base);
}

static gram_sym alternatives(gram_source *c) {
    const size_t base = c->p->scratch.n;
    do {
        const gram_sym s = sequence(c);
        gram_vec_push_u32(c->p, &c->p->scratch, s);
    } while (!gram_failed(c->p) &&
             (gram_take(c, "|") || (is_iso(c) && (gram_take(c, "/") || gram_take(c, "!")))));
    return gram_source_either(c, base);
}

static gram_sym body(gram_source *c, const gram_named *rule) {
    (void)rule;
    return alternatives(c);
}

static void find_rules(reader *r) {
    gram_source *c = &r->src;
    for (skip_space(c); c->at < c->n && !gram_failed(c->p); skip_space(c)) {
        const char *name;
        const size_t n = gram_take_name(c, "_-", &name);
        skip_space(c);
        if (c->rules.n == 0) r->iso = gram_next_is(c, '=');
        if (n == 0 || !gram_take(c, r->iso ? "=" : "::=")) {
            gram_source_refuse(c, SQUISH_INVALID, r->iso ? "no 'name ='" : "no 'name ::='");
            return;
        }
        gram_source_rule(c, name, n);
        alternatives(c);
        if (gram_failed(c->p)) return;
        if (r->iso ? !gram_take(c, ";") && !gram_take(c, ".") : c->at < c->n && !next_rule(c))
            gram_source_refuse(c, SQUISH_INVALID, r->iso ? "a rule without its ;" : "more than a rule");
    }
}

gram_sym gram_from_ebnf(gram_rules *rules, const char *s, size_t n) {
    reader r = {
        .src = {.r = rules, .p = rules->p, .what = "ebnf", .s = s, .n = n, .dry = true, .body = body}};
    gram_source *c = &r.src;
    char first[256] = "root";
    find_rules(&r);
    if (c->rules.n && !gram_source_find(c, "root", 4)) {
        const gram_named *x = &GRAM_AT(c->rules, gram_named, 0);
        memcpy(first, x->name, x->n);
        first[x->n] = 0;
    }
    const gram_sym start = gram_source_finish(c, first);
    gram_source_free(c);
    return start;
}
