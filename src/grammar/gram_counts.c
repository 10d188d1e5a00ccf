/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_counts.c - counts that run: the number of a large repetition lies beside a place, not in it.
 *
 *   x{10000,} behind 40 x  =  x{9960,}  =  x{256,} and 9704 beside it
 *
 * With its number in the term each x leads to a place that was never seen, so nothing that was learned at the
 * one before is of use, masks least of all. But as long as many are left, it is all the same how many. So the
 * first large repetition of a place (the one that runs) is marked and its number is shifted to RUN; what was
 * taken off is kept by the matcher. A marked number becomes one less by each x, as any other; where it has
 * become less than RUN it is shifted back, and near its end it is a plain number again. The automata that
 * count by registers (Gange et al., 2016; Turonova et al., 2020) have this for texts of any length between
 * two steps; here a step is at most GRAM_COUNT_STEP bytes, which cannot take more than so many off.
 *
 * Marks stand only where numbers do not matter for whether there is a way on: not in intersections,
 * complements, and what is repeated itself. */
#include "grammar/gram_int.h"

enum { RUN = GRAM_COUNT_RUN, WIDTH = RUN / 8, WIDTH_MAX = RUN / 4 };

static const gram_node *node(const gram_pool *p, gram_term t) { return &GRAM_AT(p->nodes, gram_node, t); }
static uint32_t number_of(const gram_node *x) { return x->lo ? x->lo : x->hi; }

/* ---- which numbers ---------------------------------------------------------------------------- */

/* Repetitions of one term, all with a least number or all without, and the range of their numbers. */
typedef struct {
    bool running; /* those that are marked; else the first of those that could be */
    bool any, least, mixed;
    gram_term of;
    uint32_t lo, hi;
} counts;

static bool is_among(const counts *c, const gram_node *x) {
    return c->running ? x->running : x->counts && x->a == c->of && (x->lo > 0) == c->least;
}

static void look_at(counts *c, const gram_node *x) {
    const uint32_t n = number_of(x);
    if (!c->any) *c = (counts){c->running, true, x->lo > 0, false, x->a, n, n};
    if (!is_among(c, x)) return;
    c->mixed |= (x->lo > 0) != c->least;
    if (n < c->lo) c->lo = n;
    if (n > c->hi) c->hi = n;
}

static bool has_some(const counts *c, const gram_node *x) { return c->running ? x->running : x->counts; }

static void collect(const gram_pool *p, gram_term t, counts *c) {
    for (; has_some(c, node(p, t)) && node(p, t)->kind == TERM_CAT; t = node(p, t)->b) {
        const gram_node *first = node(p, node(p, t)->a);
        if (!has_some(c, first)) continue;
        collect(p, node(p, t)->a, c);
        if (!c->running) return; /* what is behind it does not run yet */
    }
    const gram_node *x = node(p, t);
    if (!has_some(c, x)) return;
    if (x->kind == TERM_REP) look_at(c, x);
    for (uint32_t i = 0; x->kind == TERM_ALT && i < x->b; i++)
        collect(p, GRAM_AT(p->kids, uint32_t, x->a + i), c);
}

static counts counts_of(const sq_gram *g, const gram_place *x, bool running) {
    counts c = {.running = running};
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_lex_state *s =
            &GRAM_AT(g->lex, gram_lex_state, GRAM_AT(g->pairs, gram_pair, x->off + i).lex);
        for (uint32_t k = 0; k < s->n; k++)
            collect(&g->pool, GRAM_AT(g->lex_items, gram_lex_item, s->off + k).left, &c);
    }
    return c;
}

/* ---- shifting them ---------------------------------------------------------------------------- */

typedef struct {
    const counts *which;
    int64_t by;
    bool mark;
} shift;

static gram_term shifted(gram_pool *p, gram_term t, const shift *s) {
    const gram_node x = *node(p, t);
    if (!has_some(s->which, &x) || gram_failed(p)) return t;
    const size_t base = p->scratch.n;
    if (x.kind == TERM_REP) {
        if (!is_among(s->which, &x)) return t;
        const uint32_t lo = x.lo ? (uint32_t)(x.lo + s->by) : 0;
        const uint32_t hi = x.hi == GRAM_INF ? GRAM_INF : (uint32_t)(x.hi + s->by);
        return s->mark ? gram_rep_marked(p, x.a, lo, hi) : gram_rep(p, x.a, lo, hi);
    }
    if (x.kind == TERM_ALT) {
        for (uint32_t i = 0; i < x.b; i++)
            gram_vec_push_u32(p, &p->scratch, shifted(p, GRAM_AT(p->kids, uint32_t, x.a + i), s));
        return gram_alt_list(p, base);
    }
    if (x.kind != TERM_CAT) return t;
    bool done = false;
    while (node(p, t)->kind == TERM_CAT && has_some(s->which, node(p, t)) && !done) {
        const gram_term a = node(p, t)->a;
        t = node(p, t)->b;
        done = !s->which->running && has_some(s->which, node(p, a));
        gram_vec_push_u32(p, &p->scratch, shifted(p, a, s));
    }
    if (!done) t = shifted(p, t, s);
    if (p->scratch.n < base) return GRAM_EMPTY; /* after a failure */
    while (p->scratch.n > base) t = gram_cat(p, GRAM_AT(p->scratch, uint32_t, --p->scratch.n), t);
    return t;
}

static uint32_t shift_lex(sq_gram *g, uint32_t lex, const shift *s) {
    const gram_lex_state x = GRAM_AT(g->lex, gram_lex_state, lex);
    gram_vec list = {0};
    gram_lex_item *l = gram_vec_room(&g->pool, &list, x.n ? x.n : 1, sizeof *l);
    if (!l) return 0;
    for (uint32_t i = 0; i < x.n; i++) {
        l[i] = GRAM_AT(g->lex_items, gram_lex_item, x.off + i);
        l[i].left = shifted(&g->pool, l[i].left, s);
    }
    const uint32_t to = gram_lex_intern(g, l, x.n);
    gram_vec_free(&g->pool, &list, sizeof *l);
    return to;
}

static uint32_t shift_place(sq_gram *g, uint32_t place, const counts *c, int64_t by, bool mark) {
    const gram_place x = GRAM_AT(g->places, gram_place, place);
    const shift s = {c, by, mark};
    g->next_pairs.n = 0;
    for (uint32_t i = 0; i < x.n; i++) {
        gram_pair pair = GRAM_AT(g->pairs, gram_pair, x.off + i);
        pair.lex = shift_lex(g, pair.lex, &s);
        gram_pair *to = gram_vec_room(&g->pool, &g->next_pairs, 1, sizeof *to);
        if (!to) return place;
        *to = pair;
        g->next_pairs.n++;
    }
    const uint32_t to = gram_place_of(g, g->next_pairs.p, g->next_pairs.n, x.accept);
    return gram_failed(&g->pool) ? place : to;
}

/* ---- places ----------------------------------------------------------------------------------- */

static void remember(sq_gram *g, uint32_t place, enum gram_counting how, uint32_t to, uint32_t by) {
    gram_place *x = &GRAM_AT(g->places, gram_place, place);
    x->counting = how;
    x->counted = to;
    x->counted_by = by;
}

static void find_out(sq_gram *g, uint32_t place) {
    const gram_place x = GRAM_AT(g->places, gram_place, place);
    counts c = counts_of(g, &x, true);
    if (c.any) {
        if (c.mixed || c.hi - c.lo > WIDTH_MAX || c.hi > RUN)
            remember(g, place, GRAM_COUNT_ENDS, place, 0);
        else
            remember(g, place, GRAM_COUNT_RUNS, shift_place(g, place, &c, (int64_t)RUN - c.hi, true),
                     RUN - c.hi);
        return;
    }
    c = counts_of(g, &x, false);
    if (!c.any || c.hi - c.lo > WIDTH)
        remember(g, place, GRAM_COUNT_NONE, place, 0);
    else
        remember(g, place, GRAM_COUNT_BEGINS, shift_place(g, place, &c, (int64_t)RUN - c.hi, true),
                 c.hi - RUN);
}

uint32_t gram_place_settle(sq_gram *g, uint32_t place, uint32_t *beside) {
    if (GRAM_AT(g->places, gram_place, place).counting == GRAM_COUNT_UNKNOWN) find_out(g, place);
    const gram_place x = GRAM_AT(g->places, gram_place, place);
    if (gram_failed(&g->pool)) return place;
    switch (x.counting) {
    case GRAM_COUNT_BEGINS: *beside = x.counted_by; return x.counted;
    case GRAM_COUNT_RUNS:
        if (*beside < x.counted_by) break;
        *beside -= x.counted_by;
        return x.counted;
    case GRAM_COUNT_ENDS: break;
    default: *beside = 0; return place;
    }
    const counts c = counts_of(g, &x, true);
    const uint32_t to = shift_place(g, place, &c, *beside, false);
    *beside = 0;
    return to;
}
