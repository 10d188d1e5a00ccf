/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_rows.c - rows of an Earley parser (Earley, 1970), interned.
 *
 * A row is the set of items that wait for something; those that are complete have done their work when the
 * row is made. An item is a rule, how much of it was seen, and the row in which it began; a repetition's
 * `dot` is its count. Rows refer to rows by number, and what a row allows depends on its items alone, so
 * equal sets are one row, wherever in a text they come up. Symbols that may be empty are skipped when they
 * are predicted (Aycock and Horspool, 2002). */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

static gram_row *row(const sq_gram *g, uint32_t i) { return &GRAM_AT(g->rows, gram_row, i); }
static gram_item *items_of(const sq_gram *g, const gram_row *r) {
    return &GRAM_AT(g->row_items, gram_item, r->off);
}
static const gram_rule *rule(const sq_gram *g, uint32_t i) { return &GRAM_AT(g->rules.rules, gram_rule, i); }

/* The work list holds items to look at (next: not known yet); `seen` finds those that are there. */
static uint64_t hash_item(uint32_t r, uint32_t dot, uint32_t origin) {
    return gram_mix(gram_mix(gram_mix(9, r), dot), origin);
}

static void add(sq_gram *g, uint32_t r, uint32_t dot, uint32_t origin) {
    gram_pool *p = &g->pool;
    if (gram_failed(p)) return;
    if (g->work.n >= SQ_GRAM_ROW_ITEMS_MAX) {
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: over the limit of %d items in a row", SQ_GRAM_ROW_ITEMS_MAX);
        return;
    }
    if ((g->work.n + 1) * 2 > g->seen.n) { /* a table of indexes + 1, made anew at twice the size */
        const size_t size = g->seen.n ? g->seen.n * 2 : 64;
        if (!gram_vec_room(p, &g->seen, size - g->seen.n, sizeof(uint32_t))) return;
        g->seen.n = size;
        memset(g->seen.p, 0, size * sizeof(uint32_t));
        for (size_t i = 0; i < g->work.n; i++) {
            const gram_item *x = &GRAM_AT(g->work, gram_item, i);
            size_t at = hash_item(x->rule, x->dot, x->origin) & (size - 1);
            while (GRAM_AT(g->seen, uint32_t, at)) at = (at + 1) & (size - 1);
            GRAM_AT(g->seen, uint32_t, at) = (uint32_t)i + 1;
        }
    }
    size_t at = hash_item(r, dot, origin) & (g->seen.n - 1);
    for (uint32_t k; (k = GRAM_AT(g->seen, uint32_t, at)) != 0; at = (at + 1) & (g->seen.n - 1)) {
        const gram_item *x = &GRAM_AT(g->work, gram_item, k - 1);
        if (x->rule == r && x->dot == dot && x->origin == origin) return;
    }
    gram_item *to = gram_vec_room(p, &g->work, 1, sizeof *to);
    if (!to) return;
    *to = (gram_item){GRAM_UNKNOWN, r, dot, origin};
    GRAM_AT(g->seen, uint32_t, at) = (uint32_t)++g->work.n;
}

/* An item moved over its next symbol. Counts past the least of an endless repetition are all the same. */
static void advance(sq_gram *g, const gram_item *x, uint32_t origin) {
    const gram_rule *r = rule(g, x->rule);
    const uint32_t dot = r->rep && r->hi == GRAM_INF && x->dot >= r->lo ? x->dot : x->dot + 1;
    add(g, x->rule, dot, origin);
}

/* Items of a row that wait for a symbol. */
static const gram_item *waiting(const sq_gram *g, const gram_row *r, uint32_t next, const gram_item **end) {
    const gram_item *l = items_of(g, r);
    size_t lo = 0, hi = r->n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (l[mid].next < next)
            lo = mid + 1;
        else
            hi = mid;
    }
    size_t e = lo;
    while (e < r->n && l[e].next == next) e++;
    *end = l + e;
    return l + lo;
}

/* All items of row `from` that wait for next go on in the row being made. */
static void go_on(sq_gram *g, uint32_t from, uint32_t next) {
    const gram_item *end, *x = waiting(g, row(g, from), next, &end);
    for (; x < end; x++) advance(g, x, x->origin == GRAM_SELF ? from : x->origin);
}

static void predict(sq_gram *g, uint32_t nt) {
    if (g->stamp[nt] == g->stamp_now) return;
    g->stamp[nt] = g->stamp_now;
    const gram_nt *x = &GRAM_AT(g->rules.nts, gram_nt, nt);
    for (uint32_t i = 0; i < x->n; i++) add(g, x->first + i, 0, GRAM_SELF);
}

/* Look at item i of the work list; sets what it waits for. True if the start is complete by it. */
static bool look(sq_gram *g, size_t i) {
    gram_item x = GRAM_AT(g->work, gram_item, i);
    const gram_rule *r = rule(g, x.rule);
    const bool complete = r->rep ? x.dot >= r->lo : x.dot == r->n;
    const bool more = r->rep ? r->hi == GRAM_INF || x.dot < r->hi : x.dot < r->n;
    bool accept = false;
    if (complete && x.origin != GRAM_SELF) {
        accept = r->lhs == g->rules.start;
        go_on(g, x.origin, r->lhs | GRAM_NT);
    }
    if (!more) return accept;
    const gram_sym next = r->rep ? r->sym : GRAM_AT(g->rules.syms, gram_sym, r->off + x.dot);
    GRAM_AT(g->work, gram_item, i).next = next;
    if (!(next & GRAM_NT)) return accept;
    predict(g, next & ~GRAM_NT);
    if (GRAM_AT(g->rules.nts, gram_nt, next & ~GRAM_NT).nullable && !r->rep) advance(g, &x, x.origin);
    return accept;
}

static int by_next(const void *a, const void *b) {
    const gram_item *x = a, *y = b;
    if (x->next != y->next) return x->next < y->next ? -1 : 1;
    if (x->rule != y->rule) return x->rule < y->rule ? -1 : 1;
    if (x->dot != y->dot) return x->dot < y->dot ? -1 : 1;
    return x->origin < y->origin ? -1 : x->origin > y->origin;
}

/* The lexer state in which the terminals of a sorted list begin. */
static uint32_t first_state(sq_gram *g, const gram_item *l, size_t n) {
    gram_vec list = {0};
    uint32_t s = 0;
    gram_lex_item *to = gram_vec_room(&g->pool, &list, n ? n : 1, sizeof *to);
    size_t m = 0;
    if (!to) return 0;
    for (size_t i = 0; i < n && !(l[i].next & GRAM_NT); i++)
        if (m == 0 || to[m - 1].terminal != l[i].next)
            to[m++] = (gram_lex_item){l[i].next, GRAM_AT(g->rules.terminals, gram_term, l[i].next)};
    if (m) s = gram_lex_intern(g, to, m);
    gram_vec_free(&g->pool, &list, sizeof *to);
    return s;
}

static uint64_t row_hash(void *owner, uint32_t i) { return row(owner, i)->hash; }

static uint32_t intern(sq_gram *g, bool accept) {
    gram_pool *p = &g->pool;
    gram_item *l = g->work.p;
    size_t n = 0;
    for (size_t i = 0; i < g->work.n; i++)
        if (l[i].next != GRAM_UNKNOWN) l[n++] = l[i];
    if (n > 1) qsort(l, n, sizeof *l, by_next);
    uint64_t h = gram_mix(accept, n);
    for (size_t i = 0; i < n; i++) h = gram_mix(h, hash_item(l[i].rule, l[i].dot, l[i].origin));
    if (!gram_index_reserve(p, &g->row_index, row_hash, g)) return GRAM_NONE;
    gram_index *x = &g->row_index;
    size_t at = h & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        const gram_row *r = row(g, x->slots[at] - 1);
        if (r->hash == h && r->n == n && r->accept == accept &&
            (n == 0 || memcmp(items_of(g, r), l, n * sizeof *l) == 0))
            return x->slots[at] - 1;
    }
    const uint32_t lex = first_state(g, l, n);
    gram_item *to = gram_vec_room(p, &g->row_items, n, sizeof *to);
    gram_row *r = to && !gram_failed(p) ? gram_vec_room(p, &g->rows, 1, sizeof *r) : NULL;
    if (!r) return GRAM_NONE;
    if (n) memcpy(to, l, n * sizeof *to);
    *r = (gram_row){(uint32_t)g->row_items.n, (uint32_t)n, lex, accept, h};
    g->row_items.n += n;
    x->slots[at] = (uint32_t)++g->rows.n;
    x->n++;
    return (uint32_t)g->rows.n - 1;
}

static void begin(sq_gram *g) {
    g->work.n = 0;
    if (g->seen.n) memset(g->seen.p, 0, g->seen.n * sizeof(uint32_t));
    if (++g->stamp_now == 0) {
        memset(g->stamp, 0, g->rules.nts.n * sizeof *g->stamp);
        g->stamp_now = 1;
    }
}

static uint32_t finish(sq_gram *g, bool accept) {
    for (size_t i = 0; i < g->work.n && !gram_failed(&g->pool); i++) accept |= look(g, i);
    return gram_failed(&g->pool) ? GRAM_NONE : intern(g, accept);
}

uint32_t gram_row_first(sq_gram *g) {
    begin(g);
    predict(g, g->rules.start);
    return finish(g, GRAM_AT(g->rules.nts, gram_nt, g->rules.start).nullable);
}

uint32_t gram_row_after(sq_gram *g, const gram_pair *ends, size_t n) {
    begin(g);
    for (size_t i = 0; i < n; i++) go_on(g, ends[i].row, ends[i].lex);
    return g->work.n ? finish(g, false) : GRAM_NONE;
}
