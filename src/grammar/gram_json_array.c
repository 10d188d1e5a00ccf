/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_array.c - the arrays of a case.
 *
 * Without `contains` an array is its first items, one by one, and a repetition that counts. With it the
 * reader goes from state to state: how many items there were, and how many of those that are asked for; which
 * item it is that counts is left open where that does no harm, so "at least one" needs no opposite. */
#include "grammar/gram_json_int.h"

#include <string.h>

enum { STATES_MAX = 4096, COUNTS_MAX = 4, UNIQUE_MAX = 64, PAIRS_MAX = 16 };

typedef struct {
    gram_schema *c;
    const gram_case *x;
    uint32_t lo, hi, n_first; /* items; of which the first are said one by one */
    bool unique;
    const json_t *schema;              /* that asks for unique items */
    const gram_atom *some[COUNTS_MAX]; /* what is counted */
    uint32_t n_some;
} array;

/* What item i must meet. */
static gram_goal goal_at(const array *a, uint32_t i) {
    gram_schema *c = a->c;
    gram_goal g = GRAM_ANYTHING;
    for (uint32_t k = 0; k < a->x->n; k++) {
        const gram_atom y = *gram_atom_at(c, a->x->atoms[k]);
        if (y.kind == ATOM_ITEM && y.lo == i) g = gram_goal_with(c, g, y.claim);
        if (y.kind != ATOM_ITEMS) continue;
        if (i < json_array_size(y.value))
            g = gram_goal_with(c, g, gram_claim_schema(c, json_array_get(y.value, i)));
        else if (y.rest && i >= y.lo)
            g = gram_goal_with(c, g, gram_claim_schema(c, y.rest));
    }
    return g;
}

static array read(gram_schema *c, const gram_case *x) {
    array a = {.c = c, .x = x, .hi = GRAM_INF};
    for (uint32_t k = 0; k < x->n; k++) {
        const gram_atom *y = gram_atom_at(c, x->atoms[k]);
        uint32_t first = y->kind == ATOM_ITEMS ? (uint32_t)json_array_size(y->value) : 0;
        if (y->kind == ATOM_ITEMS && y->rest && y->lo > first) first = y->lo;
        if (y->kind == ATOM_ITEM) first = y->lo + 1;
        if (y->kind == ATOM_MIN_ITEMS && y->lo > a.lo) a.lo = y->lo;
        if (y->kind == ATOM_MAX_ITEMS && y->lo < a.hi) a.hi = y->lo;
        if (y->kind == ATOM_UNIQUE) a.unique = true, a.schema = y->schema;
        if (y->kind == ATOM_SOME_ITEMS && (y->lo > 0 || y->hi != GRAM_INF)) {
            if (y->from > first) first = y->from;
            if (a.n_some == COUNTS_MAX)
                gram_schema_refuse(c, y->schema, "contains",
                                   "beside more than three others is not supported");
            else
                a.some[a.n_some++] = y;
        }
        if (first > a.n_first) a.n_first = first;
    }
    return a;
}

/* An item that nothing can be ends the array before it. */
static void cut(array *a) {
    for (uint32_t i = 0; i < a->hi && i <= a->n_first; i++)
        if (gram_goal_is_empty(a->c, goal_at(a, i))) a->hi = i;
    if (a->n_first > a->hi) a->n_first = a->hi;
}

bool gram_array_is_empty(gram_schema *c, const gram_case *x) {
    array a = read(c, x);
    bool said = a.lo > a.hi;
    for (uint32_t i = 0; i < a.lo && i <= a.n_first && !said; i++)
        said = gram_goal_is_empty(c, goal_at(&a, i));
    return said;
}

/* ---- nothing is counted but items -------------------------------------------------------------- */

static gram_sym items(const array *a) {
    gram_schema *c = a->c;
    gram_rules *r = c->r;
    const gram_term comma = gram_comma(c->p, c->loose);
    const uint32_t n = a->n_first, lo = a->lo > n ? a->lo - n : 0, hi = a->hi == GRAM_INF ? a->hi : a->hi - n;
    const gram_sym item = hi ? gram_goal_symbol(c, goal_at(a, n)) : GRAM_EMPTY;
    const gram_sym more = gram_seq(r, (gram_sym[]){comma, item}, 2);
    gram_sym tail = gram_repeat(r, more, lo, hi);
    if (n == 0 && hi > 0) {
        tail = gram_seq(
            r, (gram_sym[]){item, gram_repeat(r, more, lo ? lo - 1 : 0, hi == GRAM_INF ? hi : hi - 1)}, 2);
        if (lo == 0) tail = gram_or(c, tail, GRAM_EPS);
    }
    for (uint32_t i = n; i-- > 0 && !gram_failed(c->p);) {
        const gram_sym here[] = {i ? comma : GRAM_EPS, gram_goal_symbol(c, goal_at(a, i)), tail};
        tail = gram_seq(r, here, 3);
        if (i >= a->lo) tail = gram_or(c, tail, GRAM_EPS);
    }
    return tail;
}

/* ---- items that are counted -------------------------------------------------------------------- */

/* Counts of `some` as one number, each up to the last one that matters. */
static uint32_t radix(const gram_atom *y) { return (y->hi == GRAM_INF ? y->lo : y->hi) + 1; }

typedef struct {
    const array *a;
    uint32_t n_counts, n_places; /* states are place * n_counts + counts */
    gram_sym *done;              /* GRAM_NONE: not made yet */
} walk;

static bool may_end(const array *a, uint32_t place, uint32_t counts) {
    bool ok = place >= a->lo;
    for (uint32_t k = 0; k < a->n_some; k++) {
        ok = ok && counts % radix(a->some[k]) >= a->some[k]->lo;
        counts /= radix(a->some[k]);
    }
    return ok;
}

/* The item at a place if those of `chosen` count; false: they cannot. */
static bool choose(const array *a, uint32_t place, uint32_t chosen, uint32_t *counts, gram_goal *goal) {
    gram_schema *c = a->c;
    uint32_t left = *counts, weight = 1, sum = 0;
    *goal = goal_at(a, place);
    for (uint32_t k = 0; k < a->n_some; k++) {
        const gram_atom *y = a->some[k];
        const uint32_t size = radix(y);
        uint32_t n = left % size;
        left /= size;
        const bool counts_here = chosen >> k & 1, bounded = y->hi != GRAM_INF;
        if (counts_here && (place < y->from || n + 1 == size)) return false;
        if (counts_here && y->lo > 0) *goal = gram_goal_with(c, *goal, y->claim);
        if (!counts_here && bounded && place >= y->from)
            *goal = gram_goal_with(c, *goal, gram_claim_not(y->claim));
        sum += (n + counts_here) * weight;
        weight *= size;
    }
    *counts = sum;
    return true;
}

static gram_sym state(walk *w, uint32_t place, uint32_t counts);

/* Places stand still at the last one, where an item may come again and again. */
static gram_sym make_state(walk *w, uint32_t place, uint32_t counts) {
    const array *a = w->a;
    gram_schema *c = a->c;
    const bool last = place + 1 == w->n_places;
    gram_sym all = may_end(a, place, counts) ? GRAM_EPS : GRAM_EMPTY, again = GRAM_EMPTY;
    if (last && a->hi != GRAM_INF) return all;
    for (uint32_t chosen = 0; chosen < 1u << a->n_some && !gram_failed(c->p); chosen++) {
        uint32_t to = counts;
        gram_goal goal;
        if (!choose(a, place, chosen, &to, &goal)) continue;
        const gram_sym item = gram_goal_symbol(c, goal),
                       comma = place ? gram_comma(c->p, c->loose) : GRAM_EPS;
        if (item == GRAM_EMPTY) continue;
        const gram_sym one = gram_seq(c->r, (gram_sym[]){comma, item}, 2);
        if (last && to == counts)
            again = gram_or(c, again, one);
        else
            all =
                gram_or(c, all, gram_seq(c->r, (gram_sym[]){one, state(w, last ? place : place + 1, to)}, 2));
    }
    return again == GRAM_EMPTY ? all
                               : gram_seq(c->r, (gram_sym[]){gram_repeat(c->r, again, 0, GRAM_INF), all}, 2);
}

static gram_sym state(walk *w, uint32_t place, uint32_t counts) {
    gram_sym *s = &w->done[place * w->n_counts + counts];
    if (*s == GRAM_NONE) *s = make_state(w, place, counts);
    return *s;
}

static gram_sym counted(const array *a) {
    gram_schema *c = a->c;
    uint64_t counts = 1, places = (uint64_t)(a->hi != GRAM_INF    ? a->hi
                                             : a->n_first > a->lo ? a->n_first
                                                                  : a->lo) +
                                  1;
    if (places < 2 && a->hi == GRAM_INF) places = 2; /* the first item has no comma */
    for (uint32_t k = 0; k < a->n_some && counts <= STATES_MAX; k++) counts *= radix(a->some[k]);
    if (counts * places > STATES_MAX) {
        gram_schema_refuse(c, a->some[0]->schema, "contains", "counts further than is supported");
        return GRAM_EMPTY;
    }
    walk w = {a, (uint32_t)counts, (uint32_t)places,
              gram_schema_alloc(c, counts * places * sizeof(gram_sym))};
    if (!w.done) return GRAM_EMPTY;
    memset(w.done, 0xFF, counts * places * sizeof *w.done);
    return state(&w, 0, 0);
}

/* ---- unique items ------------------------------------------------------------------------------ */

/* Add the texts of all values that meet a goal; false if they cannot be listed. */
static bool list_values(gram_schema *c, gram_goal g, gram_vec *out) {
    const gram_cases cases = gram_goal_cases(c, g);
    for (size_t i = 0; i < cases.n; i++) {
        const gram_case *x = &cases.list[i];
        const json_t *list = NULL, *v;
        size_t k;
        for (uint32_t j = 0; j < x->n && !list; j++) {
            const gram_atom *y = gram_atom_at(c, x->atoms[j]);
            if (y->kind == ATOM_VALUES && !y->negative) list = y->value;
        }
        if (x->types & (TYPE_ARRAY | TYPE_OBJECT) || (!list && x->types & (TYPE_NUMBER | TYPE_STRING)))
            return false;
        for (uint32_t t = TYPE_NULL; t <= TYPE_TRUE; t <<= 1)
            if (x->types & t)
                gram_vec_push_u32(c->p, out,
                                  gram_from_literal(c->p, t == TYPE_NULL    ? "null"
                                                          : t == TYPE_FALSE ? "false"
                                                                            : "true"));
        json_array_foreach((json_t *)list, k, v) {
            if (!(gram_types_of(v) & x->types & (TYPE_NUMBER | TYPE_STRING))) continue;
            json_t *alone = gram_schema_keep(c, json_pack("[O]", v));
            if (alone)
                gram_vec_push_u32(c->p, out,
                                  gram_goal_symbol(c, gram_goal_with(c, g, gram_claim_of(c, alone, true))));
        }
    }
    return out->n <= UNIQUE_MAX;
}

/* Cut out the arrays in which a listed value comes twice: x, ..., x with any listed values around. */
static gram_sym no_value_twice(const array *a, gram_term all, const gram_vec *values) {
    gram_schema *c = a->c;
    gram_pool *p = c->p;
    gram_term any = GRAM_EMPTY;
    for (size_t i = 0; i < values->n; i++) any = gram_alt(p, any, GRAM_AT(*values, gram_term, i));
    const gram_term comma = gram_comma(p, c->loose),
                    before = gram_rep(p, gram_cat(p, any, comma), 0, GRAM_INF),
                    after = gram_rep(p, gram_cat(p, comma, any), 0, GRAM_INF);
    for (size_t i = 0; i < values->n; i++) {
        const gram_term v = GRAM_AT(*values, gram_term, i);
        const gram_term twice = gram_cat(
            p, before, gram_cat(p, v, gram_cat(p, comma, gram_cat(p, before, gram_cat(p, v, after)))));
        all = gram_and(p, all, gram_not(p, twice));
    }
    return all;
}

static bool no_pair_can_be_equal(const array *a) {
    if (a->hi > PAIRS_MAX) return false;
    for (uint32_t i = 0; i < a->hi; i++)
        for (uint32_t k = i + 1; k < a->hi; k++) {
            gram_goal g = goal_at(a, i);
            for (uint32_t j = 0; j < a->x->n; j++) { /* and what item k must meet */
                const gram_atom y = *gram_atom_at(a->c, a->x->atoms[j]);
                const json_t *said = y.kind != ATOM_ITEMS           ? NULL
                                     : k < json_array_size(y.value) ? json_array_get(y.value, k)
                                     : k >= y.lo                    ? y.rest
                                                                    : NULL;
                if (said) g = gram_goal_with(a->c, g, gram_claim_schema(a->c, said));
            }
            if (!gram_goal_is_empty(a->c, g)) return false;
        }
    return true;
}

static gram_sym unique(const array *a, gram_sym all) {
    gram_schema *c = a->c;
    if (all == GRAM_EMPTY || gram_failed(c->p) || no_pair_can_be_equal(a)) return all;
    gram_vec values = {0};
    bool listed = !(all & GRAM_NT);
    for (uint32_t i = 0; i <= a->n_first && i < a->hi && listed; i++)
        listed = list_values(c, goal_at(a, i), &values);
    if (listed)
        all = no_value_twice(a, all, &values);
    else
        gram_schema_refuse(c, a->schema, "uniqueItems", "of items that cannot be listed is not supported");
    gram_vec_free(c->p, &values, sizeof(gram_term));
    return all;
}

gram_sym gram_schema_array(gram_schema *c, const gram_case *x) {
    array a = read(c, x);
    if (gram_failed(c->p)) return GRAM_EMPTY;
    cut(&a);
    if (a.lo > a.hi) return GRAM_EMPTY;
    gram_sym inside = a.n_some ? counted(&a) : items(&a);
    if (a.unique && a.hi > 1) inside = unique(&a, inside);
    const gram_term space = gram_space_inside(c->p, c->loose);
    const gram_sym all[] = {gram_from_literal(c->p, "["), space, inside, space, gram_from_literal(c->p, "]")};
    return gram_seq(c->r, all, SQ_COUNT(all));
}
