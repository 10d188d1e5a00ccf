/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_gbnf.c - GBNF, as llama.cpp reads it.
 *
 *   name ::= "literal" [class] [^class] . other-rule ( group ) | alternative     * + ? {m} {m,} {m,n}
 *   <token> <[id]>   a token of the vocabulary
 *
 * A rule ends at the end of a line outside of parentheses, unless | stands there. */
#include "grammar/gram_source.h"

#include <string.h>

enum { RANGES_MAX = 1024, CODE_POINT_MAX = 0x10FFFF };

static gram_sym alternatives(gram_source *r, bool nested);

static void skip_space(gram_source *r, bool newlines) {
    for (; r->at < r->n; r->at++) {
        const char c = r->s[r->at];
        if (c == '#') {
            while (r->at < r->n && r->s[r->at] != '\n') r->at++;
            r->at--;
        } else if (c != ' ' && c != '\t' && !(newlines && (c == '\n' || c == '\r'))) {
            return;
        }
    }
}

static uint32_t take_char(gram_source *r) {
    uint32_t c = 0;
    if (!gram_take(r, "\\")) return gram_take_char(r);
    if (r->at == r->n) return gram_source_refuse(r, SQUISH_INVALID, "a backslash ends the source");
    const char e = r->s[r->at++];
    const char *const escapes = "n\nr\rt\t\"\"\\\\[[]]--^^";
    for (const char *x = escapes; *x; x += 2)
        if (e == x[0]) return (uint32_t)x[1];
    const int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    if (!digits) return gram_source_refuse(r, SQUISH_INVALID, "unknown escape");
    return gram_take_hex(r, digits, digits, &c) ? c : GRAM_EMPTY;
}

/* ---- elements --------------------------------------------------------------------------------- */

static gram_sym literal(gram_source *r) {
    sq_buf b;
    sq_buf_init(&b, &r->p->alloc, SQ_GRAM_SOURCE_MAX);
    bool closed;
    while (!(closed = gram_take(r, "\"")) && r->at < r->n && r->s[r->at] != '\n' && !gram_failed(r->p)) {
        char bytes[4];
        const size_t n = sq_utf8_encode(take_char(r), bytes);
        sq_buf_append(&b, bytes, n);
    }
    gram_sym t = GRAM_EPS;
    if (b.failed) gram_fail(r->p, SQUISH_NO_MEMORY, "gbnf: out of memory");
    if (!closed)
        t = gram_source_refuse(r, SQUISH_INVALID, "a literal without its end");
    else if (!r->dry)
        t = gram_literal(r->p, b.data, b.len);
    sq_buf_deinit(&b);
    return t;
}

/* Kept out of what recurses: ranges are 16 KiB of stack. */
static __attribute__((noinline)) gram_sym char_class(gram_source *r) {
    gram_range in[RANGES_MAX];
    size_t n = 0;
    const bool negated = gram_take(r, "^");
    while (!gram_take(r, "]")) {
        if (r->at >= r->n) return gram_source_refuse(r, SQUISH_INVALID, "a class without its ]");
        if (n == RANGES_MAX)
            return gram_source_refuse(r, SQUISH_UNSUPPORTED, "more than 1024 ranges in a class");
        uint32_t lo = take_char(r), hi = lo;
        if (r->at + 1 < r->n && gram_next_is(r, '-') && r->s[r->at + 1] != ']') {
            r->at++;
            hi = take_char(r);
        }
        if (gram_failed(r->p)) return GRAM_EMPTY;
        if (hi < lo) return gram_source_refuse(r, SQUISH_INVALID, "a range of a class runs backwards");
        in[n++] = (gram_range){lo, hi};
    }
    if (r->dry) return GRAM_EPS;
    return negated ? gram_chars_except(r->p, in, n) : gram_chars(r->p, in, n, GRAM_PLAIN);
}

static gram_sym reference(gram_source *r) {
    const char *name;
    const size_t n = gram_take_name(r, "-_", &name);
    if (n == 0) return gram_source_refuse(r, SQUISH_INVALID, "neither literal, class, rule nor group");
    return gram_source_reference(r, name, n);
}

static gram_sym group(gram_source *r) {
    if (!gram_enter(r)) return GRAM_EMPTY;
    skip_space(r, true);
    const gram_sym s = alternatives(r, true);
    gram_leave(r);
    if (!gram_take(r, ")")) return gram_source_refuse(r, SQUISH_INVALID, "a group without its )");
    return s;
}

static gram_sym element(gram_source *r) {
    if (gram_take(r, "\"")) return literal(r);
    if (gram_take(r, "[")) return char_class(r);
    if (gram_take(r, "(")) return group(r);
    if (gram_take(r, ".")) return r->dry ? GRAM_EPS : gram_any_char(r->p, GRAM_PLAIN);
    if (gram_next_is(r, '<')) return gram_source_token(r);
    if (gram_next_is(r, '!'))
        return gram_source_refuse(r, SQUISH_UNSUPPORTED,
                                  "'any token but one' is no set of texts; it is not supported");
    return reference(r);
}

/* ---- sequences -------------------------------------------------------------------------------- */

static bool take_count(gram_source *r, uint32_t *lo, uint32_t *hi, bool nested) {
    skip_space(r, nested);
    *lo = 0;
    if (!gram_take_number(r, lo) && !gram_next_is(r, ','))
        return gram_source_refuse(r, SQUISH_INVALID, "a count without a number"), false;
    skip_space(r, nested);
    *hi = *lo;
    if (gram_take(r, ",")) {
        skip_space(r, nested);
        if (!gram_take_number(r, hi)) *hi = GRAM_INF;
    }
    skip_space(r, nested);
    if (!gram_take(r, "}")) return gram_source_refuse(r, SQUISH_INVALID, "a count without its }"), false;
    return gram_check_count(r, *lo, *hi);
}

static gram_sym repeated(gram_source *r, bool nested) {
    gram_sym s = element(r);
    for (;;) {
        uint32_t lo, hi;
        skip_space(r, nested);
        if (gram_take(r, "*"))
            lo = 0, hi = GRAM_INF;
        else if (gram_take(r, "+"))
            lo = 1, hi = GRAM_INF;
        else if (gram_take(r, "?"))
            lo = 0, hi = 1;
        else if (!gram_take(r, "{") || !take_count(r, &lo, &hi, nested))
            return s;
        if (!r->dry) s = gram_repeat(r->r, s, lo, hi);
    }
}

static bool at_end(const gram_source *r) {
    return r->at >= r->n || strchr("|)\r\n", r->s[r->at]) || gram_failed(r->p);
}

static gram_sym sequence(gram_source *r, bool nested) {
    const size_t base = r->p->scratch.n;
    while (!at_end(r)) {
        const gram_sym s = repeated(r, nested);
        gram_vec_push_u32(r->p, &r->p->scratch, s);
    }
    return gram_source_seq(r, base);
}

static gram_sym alternatives(gram_source *r, bool nested) {
    const size_t base = r->p->scratch.n;
    do {
        skip_space(r, true);
        const gram_sym s = sequence(r, nested);
        gram_vec_push_u32(r->p, &r->p->scratch, s);
        skip_space(r, nested);
    } while (gram_take(r, "|") && !gram_failed(r->p));
    return gram_source_either(r, base);
}

static gram_sym body(gram_source *r, const gram_named *rule) {
    (void)rule;
    return alternatives(r, false);
}

static void find_rules(gram_source *r) {
    for (skip_space(r, true); r->at < r->n && !gram_failed(r->p); skip_space(r, true)) {
        const char *name;
        const size_t n = gram_take_name(r, "-_", &name);
        skip_space(r, false);
        if (n == 0 || !gram_take(r, "::=")) {
            gram_source_refuse(r, SQUISH_INVALID, "no 'name ::='");
            return;
        }
        skip_space(r, true);
        gram_source_rule(r, name, n);
        alternatives(r, false);
        if (r->at < r->n && !strchr("\r\n", r->s[r->at]))
            gram_source_refuse(r, SQUISH_INVALID, "more than a rule");
    }
}

gram_sym gram_from_gbnf(gram_rules *rules, const char *s, size_t n) {
    gram_source r = {.r = rules, .p = rules->p, .what = "gbnf", .s = s, .n = n, .dry = true, .body = body};
    find_rules(&r);
    const gram_sym start = gram_source_finish(&r, "root");
    gram_source_free(&r);
    return start;
}
