/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_gbnf.c - GBNF, as llama.cpp reads it.
 *
 *   name ::= "literal" [class] [^class] . other-rule ( group ) | alternative     * + ? {m} {m,} {m,n}
 *
 * The source is read twice: once to find the rules and every error of syntax, once to build them, a rule when
 * it is first referred to, so that a rule which is not recursive can be part of a regular expression. A rule
 * ends at the end of a line outside of parentheses, unless | stands there. */
#include "grammar/gram_int.h"

#include <string.h>

enum { NAME_MAX_BYTES = 255, CHAIN_MAX = 128, RANGES_MAX = 1024, CODE_POINT_MAX = 0x10FFFF };

typedef struct {
    const char *name;
    size_t n, body; /* where its alternatives begin */
    enum { RULE_NEW, RULE_OPEN, RULE_DONE } state;
    bool has_nt;
    uint32_t nt;
    gram_sym result;
} rule;

typedef struct {
    gram_rules *r;
    gram_pool *p;
    const char *s;
    size_t n, at;
    int depth, total; /* groups in each other in this rule; groups and rules in each other in all */
    bool dry;
    gram_vec rules;
} reader;

static gram_sym alternatives(reader *r, bool nested);

static gram_sym refuse(reader *r, squish_status st, const char *why) {
    size_t line = 1;
    for (size_t i = 0; i < r->at && i < r->n; i++) line += r->s[i] == '\n';
    gram_fail(r->p, st, "gbnf: %s in line %zu", why, line);
    r->at = r->n;
    return GRAM_EMPTY;
}

static bool next_is(const reader *r, char c) { return r->at < r->n && r->s[r->at] == c; }
static bool take(reader *r, const char *token) {
    const size_t n = strlen(token);
    if (r->n - r->at < n || memcmp(r->s + r->at, token, n) != 0) return false;
    r->at += n;
    return true;
}

static void skip_space(reader *r, bool newlines) {
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

static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static size_t take_name(reader *r, const char **name) {
    *name = r->s + r->at;
    const size_t from = r->at;
    while (r->at < r->n && is_name(r->s[r->at])) r->at++;
    if (r->at - from > NAME_MAX_BYTES) refuse(r, SQUISH_INVALID, "a name of over 255 bytes");
    return r->at - from > NAME_MAX_BYTES ? 0 : r->at - from;
}

static uint32_t take_char(reader *r) {
    uint32_t c = 0;
    bool ok = false;
    if (!take(r, "\\")) {
        const size_t n = sq_utf8_decode(r->s + r->at, r->n - r->at, &c, &ok);
        if (ok)
            r->at += n;
        else
            refuse(r, SQUISH_INVALID, "ill-formed UTF-8");
        return c;
    }
    if (r->at == r->n) return refuse(r, SQUISH_INVALID, "a backslash ends the source");
    const char e = r->s[r->at++];
    const char *const escapes = "n\nr\rt\t\"\"\\\\[[]]--^^";
    for (const char *x = escapes; *x; x += 2)
        if (e == x[0]) return (uint32_t)x[1];
    const int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
    if (!digits) return refuse(r, SQUISH_INVALID, "unknown escape");
    for (int i = 0; i < digits; i++, r->at++) {
        const char d = r->at < r->n ? r->s[r->at] : 0;
        const int v = d >= '0' && d <= '9'   ? d - '0'
                      : d >= 'a' && d <= 'f' ? d - 'a' + 10
                      : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                             : -1;
        if (v < 0) return refuse(r, SQUISH_INVALID, "wrong hexadecimal escape");
        c = c * 16 + (uint32_t)v;
    }
    return c <= CODE_POINT_MAX ? c : refuse(r, SQUISH_INVALID, "no such code point");
}

/* ---- elements --------------------------------------------------------------------------------- */

static gram_sym literal(reader *r) {
    sq_buf b;
    sq_buf_init(&b, &r->p->alloc, SQ_GRAM_SOURCE_MAX);
    bool closed;
    while (!(closed = take(r, "\"")) && r->at < r->n && r->s[r->at] != '\n' && !gram_failed(r->p)) {
        char bytes[4];
        const size_t n = sq_utf8_encode(take_char(r), bytes);
        sq_buf_append(&b, bytes, n);
    }
    gram_sym t = GRAM_EPS;
    if (b.failed) gram_fail(r->p, SQUISH_NO_MEMORY, "gbnf: out of memory");
    if (!closed)
        t = refuse(r, SQUISH_INVALID, "a literal without its end");
    else if (!r->dry)
        t = gram_literal(r->p, b.data, b.len);
    sq_buf_deinit(&b);
    return t;
}

static size_t inverse(const gram_range *in, size_t n, gram_range *out) {
    uint32_t from = 0;
    size_t m = 0;
    while (from <= CODE_POINT_MAX) { /* the next stretch that no range covers */
        uint32_t next = CODE_POINT_MAX + 1;
        bool covered = false;
        for (size_t i = 0; i < n; i++) {
            if (in[i].lo <= from && from <= in[i].hi) {
                from = in[i].hi + 1;
                covered = true;
                break;
            }
            if (in[i].lo > from && in[i].lo < next) next = in[i].lo;
        }
        if (covered) continue;
        out[m++] = (gram_range){from, next - 1};
        from = next;
    }
    return m;
}

/* Kept out of what recurses: ranges are 16 KiB of stack. */
static __attribute__((noinline)) gram_sym char_class(reader *r) {
    gram_range in[RANGES_MAX], out[RANGES_MAX + 1];
    size_t n = 0;
    const bool negated = take(r, "^");
    while (!take(r, "]")) {
        if (r->at >= r->n) return refuse(r, SQUISH_INVALID, "a class without its ]");
        if (n == RANGES_MAX) return refuse(r, SQUISH_UNSUPPORTED, "more than 1024 ranges in a class");
        uint32_t lo = take_char(r), hi = lo;
        if (r->at + 1 < r->n && next_is(r, '-') && r->s[r->at + 1] != ']') {
            r->at++;
            hi = take_char(r);
        }
        if (gram_failed(r->p)) return GRAM_EMPTY;
        if (hi < lo) return refuse(r, SQUISH_INVALID, "a range of a class runs backwards");
        in[n++] = (gram_range){lo, hi};
    }
    if (r->dry) return GRAM_EPS;
    if (!negated) return gram_chars(r->p, in, n, GRAM_PLAIN);
    const size_t m = inverse(in, n, out);
    return gram_chars(r->p, out, m, GRAM_PLAIN);
}

static rule *find(reader *r, const char *name, size_t n) {
    for (size_t i = 0; i < r->rules.n; i++) {
        rule *x = &GRAM_AT(r->rules, rule, i);
        if (x->n == n && memcmp(x->name, name, n) == 0) return x;
    }
    return NULL;
}

/* The rule may be open: then it is recursive, and a nonterminal. */
static gram_sym build(reader *r, rule *x) {
    if (x->state == RULE_DONE) return x->result;
    if (x->state == RULE_OPEN || r->total >= CHAIN_MAX) {
        if (!x->has_nt) x->nt = gram_nt_new(r->r);
        x->has_nt = true;
        return x->nt | GRAM_NT;
    }
    const size_t back = r->at;
    const int depth = r->depth;
    x->state = RULE_OPEN;
    r->at = x->body;
    r->depth = 0;
    r->total++;
    const gram_sym body = alternatives(r, false);
    r->total--;
    r->depth = depth;
    if (!gram_failed(r->p)) r->at = back;
    x->state = RULE_DONE;
    x->result = body;
    if (x->has_nt) {
        gram_nt_define(r->r, x->nt, body);
        x->result = x->nt | GRAM_NT;
    }
    return x->result;
}

static gram_sym reference(reader *r) {
    const char *name;
    const size_t n = take_name(r, &name);
    if (n == 0) return refuse(r, SQUISH_INVALID, "neither literal, class, rule nor group");
    if (r->dry) return GRAM_EPS;
    rule *x = find(r, name, n);
    if (x) return build(r, x);
    gram_fail(r->p, SQUISH_INVALID, "gbnf: rule '%.*s' is not defined", (int)(n < 64 ? n : 64), name);
    return GRAM_EMPTY;
}

static gram_sym group(reader *r) {
    if (++r->depth > SQ_GRAM_NESTING_MAX / 2)
        return refuse(r, SQUISH_NO_MEMORY, "over the limit of 256 groups in each other");
    r->total++;
    skip_space(r, true);
    const gram_sym s = alternatives(r, true);
    r->total--;
    r->depth--;
    if (!take(r, ")")) return refuse(r, SQUISH_INVALID, "a group without its )");
    return s;
}

static gram_sym element(reader *r) {
    if (take(r, "\"")) return literal(r);
    if (take(r, "[")) return char_class(r);
    if (take(r, "(")) return group(r);
    if (take(r, ".")) return r->dry ? GRAM_EPS : gram_any_char(r->p, GRAM_PLAIN);
    if (next_is(r, '<') || next_is(r, '!'))
        return refuse(r, SQUISH_UNSUPPORTED, "a token literal is not supported");
    return reference(r);
}

/* ---- sequences -------------------------------------------------------------------------------- */

static bool take_number(reader *r, uint32_t *out) {
    const size_t from = r->at;
    uint64_t v = 0;
    for (; r->at < r->n && r->s[r->at] >= '0' && r->s[r->at] <= '9'; r->at++)
        if (v <= SQ_GRAM_REPEAT_MAX) v = v * 10 + (uint64_t)(r->s[r->at] - '0');
    *out = v > SQ_GRAM_REPEAT_MAX ? SQ_GRAM_REPEAT_MAX + 1 : (uint32_t)v;
    return r->at > from;
}

static bool take_count(reader *r, uint32_t *lo, uint32_t *hi, bool nested) {
    skip_space(r, nested);
    *lo = 0;
    if (!take_number(r, lo) && !next_is(r, ','))
        return refuse(r, SQUISH_INVALID, "a count without a number"), false;
    skip_space(r, nested);
    *hi = *lo;
    if (take(r, ",")) {
        skip_space(r, nested);
        if (!take_number(r, hi)) *hi = GRAM_INF;
    }
    skip_space(r, nested);
    if (!take(r, "}")) return refuse(r, SQUISH_INVALID, "a count without its }"), false;
    if (*hi < *lo) return refuse(r, SQUISH_INVALID, "a count runs backwards"), false;
    if (*lo > SQ_GRAM_REPEAT_MAX || (*hi > SQ_GRAM_REPEAT_MAX && *hi != GRAM_INF))
        return refuse(r, SQUISH_NO_MEMORY, "a count over the limit of 16777216"), false;
    return true;
}

static gram_sym repeated(reader *r, bool nested) {
    gram_sym s = element(r);
    for (;;) {
        uint32_t lo, hi;
        skip_space(r, nested);
        if (take(r, "*"))
            lo = 0, hi = GRAM_INF;
        else if (take(r, "+"))
            lo = 1, hi = GRAM_INF;
        else if (take(r, "?"))
            lo = 0, hi = 1;
        else if (!take(r, "{") || !take_count(r, &lo, &hi, nested))
            return s;
        if (!r->dry) s = gram_repeat(r->r, s, lo, hi);
    }
}

static bool at_end(const reader *r) {
    return r->at >= r->n || strchr("|)\r\n", r->s[r->at]) || gram_failed(r->p);
}

/* Parts wait on scratch; runs of terms are joined from their ends, so that long ones cost no more. */
static gram_sym sequence(reader *r, bool nested) {
    const size_t base = r->p->scratch.n;
    while (!at_end(r)) gram_vec_push_u32(r->p, &r->p->scratch, repeated(r, nested));
    if (gram_failed(r->p)) return GRAM_EMPTY;
    size_t from = r->p->scratch.n;
    for (size_t i = r->p->scratch.n; i-- > base;) {
        const gram_sym x = GRAM_AT(r->p->scratch, uint32_t, i);
        const bool joins =
            from < r->p->scratch.n && !((x | GRAM_AT(r->p->scratch, uint32_t, from)) & GRAM_NT);
        if (joins) {
            const gram_term t = gram_cat(r->p, x, GRAM_AT(r->p->scratch, uint32_t, from));
            GRAM_AT(r->p->scratch, uint32_t, from) = t;
        } else {
            GRAM_AT(r->p->scratch, uint32_t, --from) = x;
        }
        if (gram_failed(r->p)) return GRAM_EMPTY;
    }
    /* The builder pushes on scratch, so it gets a copy. */
    const size_t n = r->p->scratch.n - from;
    gram_vec copy = {0};
    gram_sym *list = gram_vec_room(r->p, &copy, n, sizeof *list);
    if (!list) return GRAM_EMPTY;
    if (n) memcpy(list, (uint32_t *)r->p->scratch.p + from, n * sizeof *list);
    r->p->scratch.n = base;
    const gram_sym s = gram_seq(r->r, list, n);
    gram_vec_free(r->p, &copy, sizeof *list);
    return s;
}

static gram_sym alternatives(reader *r, bool nested) {
    gram_vec list = {0};
    do {
        skip_space(r, true);
        gram_vec_push_u32(r->p, &list, sequence(r, nested));
        skip_space(r, nested);
    } while (take(r, "|") && !gram_failed(r->p));
    const gram_sym s = gram_failed(r->p) ? GRAM_EMPTY : gram_either(r->r, list.p, list.n);
    gram_vec_free(r->p, &list, sizeof(uint32_t));
    return s;
}

static void find_rules(reader *r) {
    r->dry = true;
    for (skip_space(r, true); r->at < r->n && !gram_failed(r->p); skip_space(r, true)) {
        rule x = {0};
        x.n = take_name(r, &x.name);
        skip_space(r, false);
        if (x.n == 0 || !take(r, "::=")) {
            refuse(r, SQUISH_INVALID, "no 'name ::='");
            return;
        }
        if (find(r, x.name, x.n)) {
            refuse(r, SQUISH_INVALID, "a rule is defined twice");
            return;
        }
        skip_space(r, true);
        x.body = r->at;
        alternatives(r, false);
        if (r->at < r->n && !strchr("\r\n", r->s[r->at])) refuse(r, SQUISH_INVALID, "more than a rule");
        if (r->rules.n >= 4096) refuse(r, SQUISH_NO_MEMORY, "over the limit of 4096 rules");
        rule *to = gram_vec_room(r->p, &r->rules, 1, sizeof *to);
        if (to) *to = x, r->rules.n++;
    }
    r->dry = false;
}

gram_sym gram_from_gbnf(gram_rules *rules, const char *s, size_t n) {
    reader r = {.r = rules, .p = rules->p, .s = s, .n = n};
    gram_sym start = GRAM_EMPTY;
    find_rules(&r);
    rule *root = gram_failed(r.p) ? NULL : find(&r, "root", 4);
    if (root)
        start = build(&r, root);
    else
        gram_fail(r.p, SQUISH_INVALID, "gbnf: no rule 'root'");
    /* Those that were too deep in a chain, and those nobody uses: their references must be there, too. */
    for (size_t i = 0; i < r.rules.n && !gram_failed(r.p); i++) build(&r, &GRAM_AT(r.rules, rule, i));
    gram_vec_free(r.p, &r.rules, sizeof(rule));
    return start;
}
