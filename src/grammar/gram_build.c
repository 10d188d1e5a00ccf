/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_build.c - from expressions to rules.
 *
 * A symbol is a term as long as it can be: sequences, alternatives and repetitions of terms are terms. Only
 * what refers to a rule that is still open (recursion), or contains such a thing, becomes a nonterminal. So
 * most schemas are one regular expression, and the parser sees the rest. A repetition of a nonterminal is one
 * rule that counts, whatever the count. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

static gram_nt *nt_of(const gram_rules *r, gram_sym s) { return &GRAM_AT(r->nts, gram_nt, s & ~GRAM_NT); }

uint32_t gram_nt_new(gram_rules *r) {
    if (r->nts.n >= SQ_GRAM_RULES_MAX)
        gram_fail(r->p, SQUISH_NO_MEMORY, "grammar: over the limit of %d rules", SQ_GRAM_RULES_MAX);
    gram_nt *nt = gram_failed(r->p) ? NULL : gram_vec_room(r->p, &r->nts, 1, sizeof *nt);
    if (!nt) return 0;
    *nt = (gram_nt){0};
    return (uint32_t)r->nts.n++;
}

static uint64_t terminal_hash(void *owner, uint32_t i) {
    return gram_mix(11, GRAM_AT(((gram_rules *)owner)->terminals, gram_term, i));
}

static uint32_t terminal_of(gram_rules *r, gram_term t) {
    gram_index *x = &r->terminal_index;
    if (!gram_index_reserve(r->p, x, terminal_hash, r)) return 0;
    size_t at = gram_mix(11, t) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1))
        if (GRAM_AT(r->terminals, gram_term, x->slots[at] - 1) == t) return x->slots[at] - 1;
    if (!gram_vec_push_u32(r->p, &r->terminals, t)) return 0;
    x->slots[at] = (uint32_t)r->terminals.n;
    x->n++;
    return (uint32_t)r->terminals.n - 1;
}

static void add_rule(gram_rules *r, gram_rule rule) {
    if (r->rules.n >= SQ_GRAM_RULES_MAX)
        gram_fail(r->p, SQUISH_NO_MEMORY, "grammar: over the limit of %d rules", SQ_GRAM_RULES_MAX);
    gram_rule *to = gram_failed(r->p) ? NULL : gram_vec_room(r->p, &r->rules, 1, sizeof *to);
    if (!to) return;
    *to = rule;
    r->rules.n++;
}

/* A symbol as it stands in a rule. A term that may be empty is a nonterminal of two rules: the lexer only
 * ends a terminal after a byte. */
static gram_sym in_rule(gram_rules *r, gram_sym s) {
    if (s & GRAM_NT) return s;
    if (!gram_nullable(r->p, s)) return terminal_of(r, s);
    const uint32_t nt = gram_nt_new(r);
    if (gram_failed(r->p)) return 0;
    add_rule(r, (gram_rule){.lhs = nt});
    const uint32_t off = (uint32_t)r->syms.n;
    gram_vec_push_u32(r->p, &r->syms, terminal_of(r, s));
    add_rule(r, (gram_rule){.lhs = nt, .off = off, .n = 1});
    nt_of(r, nt)->defined = true;
    return nt | GRAM_NT;
}

static void add_sequence(gram_rules *r, uint32_t nt, const gram_sym *s, size_t n) {
    const size_t base = r->p->scratch.n;
    for (size_t i = 0; i < n; i++) {
        const gram_sym x = s[i] == GRAM_EPS ? GRAM_EPS : in_rule(r, s[i]);
        if (s[i] != GRAM_EPS) gram_vec_push_u32(r->p, &r->p->scratch, x);
    }
    if (gram_failed(r->p)) return;
    const size_t m = r->p->scratch.n - base;
    const uint32_t off = (uint32_t)r->syms.n;
    uint32_t *to = gram_vec_room(r->p, &r->syms, m, sizeof *to);
    if (to && m) memcpy(to, (uint32_t *)r->p->scratch.p + base, m * sizeof *to), r->syms.n += m;
    r->p->scratch.n = base;
    add_rule(r, (gram_rule){.lhs = nt, .off = off, .n = (uint32_t)m});
}

void gram_nt_define(gram_rules *r, uint32_t nt, gram_sym body) {
    if (gram_failed(r->p)) return;
    nt_of(r, nt)->defined = true;
    if (body != GRAM_EMPTY) add_sequence(r, nt, &body, 1);
}

/* s [n] joined where terms meet, from the end, so that a long run costs no more; to lies in it. */
static gram_sym *join_runs(gram_rules *r, gram_sym *s, size_t n) {
    gram_sym *to = s + n;
    for (size_t i = n; i-- > 0;) {
        if (s[i] == GRAM_EPS) continue;
        if (to < s + n && !((s[i] | *to) & GRAM_NT))
            *to = gram_cat(r->p, s[i], *to);
        else
            *--to = s[i];
    }
    return to;
}

gram_sym gram_seq(gram_rules *r, const gram_sym *s, size_t n) {
    gram_vec copy = {0};
    gram_sym *list = gram_vec_room(r->p, &copy, n, sizeof *list), result = GRAM_EPS;
    if (!list) return GRAM_EMPTY;
    if (n) memcpy(list, s, n * sizeof *list);
    const gram_sym *from = join_runs(r, list, n);
    const size_t m = (size_t)(list + n - from);
    bool empty = gram_failed(r->p);
    for (size_t i = 0; i < m; i++) empty |= from[i] == GRAM_EMPTY;
    if (empty) {
        result = GRAM_EMPTY;
    } else if (m == 1) {
        result = *from;
    } else if (m > 1) {
        const uint32_t nt = gram_nt_new(r);
        add_sequence(r, nt, from, m);
        if (!gram_failed(r->p)) nt_of(r, nt)->defined = true;
        result = nt | GRAM_NT;
    }
    gram_vec_free(r->p, &copy, sizeof *list);
    return gram_failed(r->p) ? GRAM_EMPTY : result;
}

gram_sym gram_either(gram_rules *r, const gram_sym *s, size_t n) {
    const size_t base = r->p->scratch.n;
    size_t n_nts = 0;
    gram_sym only = GRAM_EMPTY;
    for (size_t i = 0; i < n; i++) {
        if (s[i] & GRAM_NT)
            only = s[i], n_nts++;
        else
            gram_vec_push_u32(r->p, &r->p->scratch, s[i]);
    }
    const gram_term terms = gram_alt_list(r->p, base);
    if (n_nts == 0) return terms;
    if (n_nts == 1 && terms == GRAM_EMPTY) return only;
    const uint32_t nt = gram_nt_new(r);
    if (gram_failed(r->p)) return GRAM_EMPTY;
    if (terms != GRAM_EMPTY) add_sequence(r, nt, &terms, 1);
    for (size_t i = 0; i < n; i++)
        if (s[i] & GRAM_NT) add_sequence(r, nt, &s[i], 1);
    if (gram_failed(r->p)) return GRAM_EMPTY;
    nt_of(r, nt)->defined = true;
    return nt | GRAM_NT;
}

gram_sym gram_repeat(gram_rules *r, gram_sym s, uint32_t lo, uint32_t hi) {
    if (!(s & GRAM_NT)) return gram_rep(r->p, s, lo, hi);
    if (hi == 0) return GRAM_EPS;
    if (lo == 1 && hi == 1) return s;
    const uint32_t nt = gram_nt_new(r);
    if (gram_failed(r->p)) return GRAM_EMPTY;
    add_rule(r, (gram_rule){.lhs = nt, .rep = true, .sym = s, .lo = lo, .hi = hi});
    if (gram_failed(r->p)) return GRAM_EMPTY;
    nt_of(r, nt)->defined = true;
    return nt | GRAM_NT;
}

/* ---- the finished rules ----------------------------------------------------------------------- */

static int by_lhs(const void *a, const void *b) {
    const gram_rule *x = a, *y = b;
    if (x->lhs != y->lhs) return x->lhs < y->lhs ? -1 : 1;
    return x->off < y->off ? -1 : x->off > y->off;
}

static bool has(const gram_rules *r, gram_sym s, bool nullable) {
    if (!(s & GRAM_NT)) return !nullable && gram_matches_something(r->p, GRAM_AT(r->terminals, gram_term, s));
    return nullable ? nt_of(r, s)->nullable : nt_of(r, s)->productive;
}

static bool rule_has(const gram_rules *r, const gram_rule *x, bool nullable) {
    if (x->rep) return x->lo == 0 || has(r, x->sym, nullable);
    for (uint32_t i = 0; i < x->n; i++)
        if (!has(r, GRAM_AT(r->syms, gram_sym, x->off + i), nullable)) return false;
    return true;
}

/* Rules that use a symbol, by symbol: so that each rule is looked at again only when it may have changed. */
static void spread(gram_rules *r, bool nullable) {
    const size_t n = r->rules.n;
    for (bool more = true; more;) {
        more = false;
        /* Backwards and forwards in turn: definitions mostly lie before or mostly behind their uses. */
        for (size_t pass = 0; pass < 2 * n; pass++) {
            const gram_rule *x = &GRAM_AT(r->rules, gram_rule, pass < n ? pass : 2 * n - 1 - pass);
            gram_nt *nt = nt_of(r, x->lhs);
            bool *flag = nullable ? &nt->nullable : &nt->productive;
            if (!*flag && rule_has(r, x, nullable)) *flag = more = true;
        }
    }
}

/* Drop rules that derive nothing. */
static void prune(gram_rules *r) {
    size_t m = 0;
    for (size_t i = 0; i < r->rules.n; i++) {
        gram_rule x = GRAM_AT(r->rules, gram_rule, i);
        if (x.rep && !has(r, x.sym, false)) x = (gram_rule){.lhs = x.lhs, .off = 0, .n = 0}; /* zero times */
        if (!rule_has(r, &x, false)) continue;
        if (x.rep && has(r, x.sym, true)) x.lo = 0;
        GRAM_AT(r->rules, gram_rule, m++) = x;
    }
    r->rules.n = m;
}

void gram_rules_finish(gram_rules *r, gram_sym start) {
    if (gram_failed(r->p)) return;
    /* One rule above all, so that the start is a nonterminal that nothing else uses. */
    r->start = gram_nt_new(r);
    gram_nt_define(r, r->start, start);
    if (gram_failed(r->p)) return;
    gram_find_classes(r->p);
    spread(r, true);
    spread(r, false);
    if (!gram_failed(r->p) && (start == GRAM_EMPTY || !nt_of(r, r->start)->productive)) {
        gram_fail(r->p, SQUISH_INVALID, "the grammar matches nothing");
        return;
    }
    prune(r);
    if (r->rules.n) qsort(r->rules.p, r->rules.n, sizeof(gram_rule), by_lhs);
    for (size_t i = r->rules.n; i-- > 0;) {
        gram_nt *nt = nt_of(r, GRAM_AT(r->rules, gram_rule, i).lhs);
        nt->first = (uint32_t)i;
        nt->n++;
    }
}

void gram_rules_free(gram_rules *r) {
    gram_vec_free(r->p, &r->rules, sizeof(gram_rule));
    gram_vec_free(r->p, &r->syms, sizeof(uint32_t));
    gram_vec_free(r->p, &r->nts, sizeof(gram_nt));
    gram_vec_free(r->p, &r->terminals, sizeof(uint32_t));
    gram_index_free(r->p, &r->terminal_index);
}
