/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_finish.c - the shortest way to an end, without a search among texts.
 *
 * How many bytes are left at least is known for each part of a place: of a term by what it is made of, and
 * where that does not say (intersections, complements, multiples) by the shortest way over its derivatives
 * (A*, Hart, Nilsson, Raphael, 1968); of a nonterminal by its rules (Knuth, 1977); of a terminal of a row by
 * what waits for it there, and behind that in the rows where that began. So the distance of a place is exact,
 * and some byte leads to one that is nearer by one. */
#include "support/gram_finish.h"

#include <stdlib.h>
#include <string.h>

enum { FAR = 1 << 28, STEPS_MAX = 1 << 20, SEARCH_MAX = 100000, TERMS_MAX = SQ_GRAM_TERMS_MAX * 7 / 8 };

typedef struct {
    uint32_t n;
    struct {
        uint32_t symbol, cost;
    } of[];
} row_costs;

typedef struct {
    sq_gram *g;
    uint32_t *least; /* [n_least] of terms: bytes + 1; 0: not known */
    size_t n_least;
    uint32_t *nt_least; /* [nonterminals] */
    row_costs **rows;   /* [n_rows]; NULL: not known */
    size_t n_rows;
    bool lost; /* a search was given up */
} finisher;

static gram_node node(const finisher *f, gram_term t) { return GRAM_AT(f->g->pool.nodes, gram_node, t); }

static uint32_t capped(uint64_t n) { return n < FAR ? (uint32_t)n : FAR; }

/* ---- terms ---------------------------------------------------------------------------------------- */

static uint32_t *cell(finisher *f, gram_term t) {
    if (t >= f->n_least) {
        const size_t more = f->g->pool.nodes.n + 4096;
        f->least = realloc(f->least, more * sizeof *f->least);
        memset(f->least + f->n_least, 0, (more - f->n_least) * sizeof *f->least);
        f->n_least = more;
    }
    return &f->least[t];
}

static uint32_t least_of(finisher *f, gram_term t);

static bool is_searched(const gram_node *x) {
    return x->kind == TERM_AND || x->kind == TERM_NOT || x->kind == TERM_MOD || x->kind == TERM_ALL;
}

/* Not more than the exact number, and no two neighbours differ by more than a byte. */
static uint32_t bound_of(finisher *f, gram_term t) {
    const gram_node x = node(f, t);
    if (*cell(f, t)) return *cell(f, t) - 1;
    if (t == GRAM_EMPTY) return FAR;
    if (x.nullable) return 0;
    if (x.kind != TERM_AND) return is_searched(&x) ? 1 : least_of(f, t);
    uint32_t n = 1;
    for (uint32_t i = 0; i < x.b; i++) {
        const uint32_t one = least_of(f, GRAM_AT(f->g->pool.kids, uint32_t, x.a + i));
        if (one > n) n = one;
    }
    return n;
}

typedef struct {
    gram_term term;
    uint32_t way, before, all; /* bytes to it; index of where it was found from; bytes in all, at least */
} found;

typedef struct {
    found *list;
    uint32_t n, *heap, n_heap, *seen, n_seen; /* seen: indexes + 1, by term modulo its size */
} search;

static bool is_before(const search *s, uint32_t a, uint32_t b) {
    const found *x = &s->list[a], *y = &s->list[b];
    return x->all != y->all ? x->all < y->all : x->way > y->way;
}

static void push(search *s, found x) {
    uint32_t at = x.term % s->n_seen;
    for (; s->seen[at]; at = (at + 1) % s->n_seen)
        if (s->list[s->seen[at] - 1].term == x.term && s->list[s->seen[at] - 1].way <= x.way) return;
    if (s->n == SEARCH_MAX || x.all >= FAR) return;
    s->list[s->n] = x;
    s->seen[at] = s->n + 1;
    for (at = s->n_heap++; at > 0 && is_before(s, s->n, s->heap[(at - 1) / 2]); at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = s->n++;
}

static uint32_t pop(search *s) {
    const uint32_t first = s->heap[0], last = s->heap[--s->n_heap];
    uint32_t at = 0;
    for (uint32_t kid; (kid = 2 * at + 1) < s->n_heap; at = kid) {
        if (kid + 1 < s->n_heap && is_before(s, s->heap[kid + 1], s->heap[kid])) kid++;
        if (!is_before(s, s->heap[kid], last)) break;
        s->heap[at] = s->heap[kid];
    }
    s->heap[at] = last;
    return first;
}

/* The number of a term whose parts do not tell it; those on the way are known with it. */
static uint32_t searched(finisher *f, gram_term t) {
    gram_pool *p = &f->g->pool;
    search s = {.list = malloc(SEARCH_MAX * sizeof *s.list),
                .heap = malloc(SEARCH_MAX * sizeof *s.heap),
                .seen = calloc(2 * SEARCH_MAX, sizeof *s.seen),
                .n_seen = 2 * SEARCH_MAX};
    uint32_t n = FAR;
    push(&s, (found){t, 0, UINT32_MAX, bound_of(f, t)});
    while (s.n_heap > 0) {
        const uint32_t at = pop(&s);
        const found x = s.list[at];
        if (node(f, x.term).nullable || *cell(f, x.term)) {
            n = x.all;
            for (uint32_t i = at; i != UINT32_MAX; i = s.list[i].before)
                *cell(f, s.list[i].term) = n - s.list[i].way + 1;
            break;
        }
        for (uint32_t c = 0; c < p->n_classes; c++) {
            const gram_term d = gram_derive(p, x.term, p->byte_of[c]);
            if (d != GRAM_EMPTY) push(&s, (found){d, x.way + 1, at, x.way + 1 + bound_of(f, d)});
        }
        f->lost |= s.n == SEARCH_MAX || gram_failed(p) || p->nodes.n > TERMS_MAX;
        if (f->lost) break;
    }
    free(s.list);
    free(s.heap);
    free(s.seen);
    return n;
}

static uint32_t find_least(finisher *f, gram_term t) {
    uint64_t n = 0;
    gram_node x = node(f, t);
    for (; x.kind == TERM_CAT && !x.nullable; t = x.b, x = node(f, t)) n += least_of(f, x.a);
    if (t == GRAM_EMPTY) return FAR;
    if (x.nullable) return capped(n);
    switch ((term_kind)x.kind) {
    case TERM_ALT: {
        uint32_t best = FAR;
        for (uint32_t i = 0; i < x.b; i++) {
            const uint32_t one = least_of(f, GRAM_AT(f->g->pool.kids, uint32_t, x.a + i));
            if (one < best) best = one;
        }
        return capped(n + best);
    }
    case TERM_REP: return capped(n + (uint64_t)x.lo * least_of(f, x.a));
    case TERM_SET: return capped(n + 1);
    default: return capped(n + (*cell(f, t) ? *cell(f, t) - 1 : searched(f, t)));
    }
}

static uint32_t least_of(finisher *f, gram_term t) {
    if (*cell(f, t)) return *cell(f, t) - 1;
    const uint32_t n = find_least(f, t);
    if (!f->lost) *cell(f, t) = n + 1;
    return n;
}

/* ---- rules and rows --------------------------------------------------------------------------------- */

static uint32_t least_of_symbol(finisher *f, gram_sym s) {
    return s & GRAM_NT ? f->nt_least[s & ~GRAM_NT]
                       : least_of(f, GRAM_AT(f->g->rules.terminals, gram_term, s));
}

/* What is left of a rule at least, behind its first `dot` symbols. */
static uint32_t rest_of(finisher *f, const gram_rule *r, uint32_t dot) {
    uint64_t n = 0;
    if (r->rep) return dot < r->lo ? capped((uint64_t)(r->lo - dot) * least_of_symbol(f, r->sym)) : 0;
    for (uint32_t i = dot; i < r->n; i++)
        n += least_of_symbol(f, GRAM_AT(f->g->rules.syms, gram_sym, r->off + i));
    return capped(n);
}

static void find_nonterminals(finisher *f) {
    const gram_rules *r = &f->g->rules;
    f->nt_least = malloc(r->nts.n * sizeof *f->nt_least);
    for (size_t i = 0; i < r->nts.n; i++) f->nt_least[i] = FAR;
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < r->rules.n; i++) {
            const gram_rule x = GRAM_AT(r->rules, gram_rule, i);
            const uint32_t n = rest_of(f, &x, 0);
            if (n >= f->nt_least[x.lhs]) continue;
            f->nt_least[x.lhs] = n;
            more = true;
        }
    }
}

static uint32_t behind_symbol(finisher *f, uint32_t row, gram_sym s);

static uint32_t in_row(const row_costs *c, gram_sym s) {
    for (uint32_t i = 0; i < c->n; i++)
        if (c->of[i].symbol == s) return c->of[i].cost;
    return FAR;
}

/* To the end of the text, once an item of a row has what it waits for. */
static uint32_t behind_item(finisher *f, uint32_t row, const gram_item *x, const row_costs *now) {
    const gram_rule r = GRAM_AT(f->g->rules.rules, gram_rule, x->rule);
    const uint64_t n = rest_of(f, &r, x->dot + 1);
    if (r.lhs == f->g->rules.start) return capped(n);
    const gram_sym s = r.lhs | GRAM_NT;
    const bool here = x->origin == GRAM_SELF || x->origin == row;
    return capped(n + (here ? in_row(now, s) : behind_symbol(f, x->origin, s)));
}

/* Rows refer to rows that were there before; within one row, until nothing gets less any more. */
static row_costs *make_row(finisher *f, uint32_t row) {
    const gram_row r = GRAM_AT(f->g->rows, gram_row, row);
    row_costs *c = malloc(sizeof *c + r.n * sizeof c->of[0]);
    c->n = 0;
    for (uint32_t i = 0; i < r.n; i++) {
        const uint32_t s = GRAM_AT(f->g->row_items, gram_item, r.off + i).next;
        if (c->n > 0 && c->of[c->n - 1].symbol == s) continue;
        c->of[c->n].symbol = s;
        c->of[c->n++].cost = FAR;
    }
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0, k = 0; i < r.n; i++) {
            const gram_item x = GRAM_AT(f->g->row_items, gram_item, r.off + i);
            while (c->of[k].symbol != x.next) k++;
            const uint32_t n = behind_item(f, row, &x, c);
            if (n >= c->of[k].cost) continue;
            c->of[k].cost = n;
            more = true;
        }
    }
    return c;
}

static uint32_t behind_symbol(finisher *f, uint32_t row, gram_sym s) {
    if (row >= f->n_rows) {
        const size_t more = f->g->rows.n + 256;
        f->rows = realloc(f->rows, more * sizeof *f->rows);
        memset(f->rows + f->n_rows, 0, (more - f->n_rows) * sizeof *f->rows);
        f->n_rows = more;
    }
    if (!f->rows[row]) {
        row_costs *made = make_row(f, row); /* may move the list */
        f->rows[row] = made;
    }
    return in_row(f->rows[row], s);
}

/* ---- places ----------------------------------------------------------------------------------------- */

static uint32_t behind_place(finisher *f, uint32_t place) {
    const gram_place x = GRAM_AT(f->g->places, gram_place, place);
    uint32_t n = x.accept ? 0 : FAR;
    for (uint32_t i = 0; i < x.n && n > 0; i++) {
        const gram_pair pair = GRAM_AT(f->g->pairs, gram_pair, x.off + i);
        const gram_lex_state l = GRAM_AT(f->g->lex, gram_lex_state, pair.lex);
        for (uint32_t k = 0; k < l.n; k++) {
            const gram_lex_item it = GRAM_AT(f->g->lex_items, gram_lex_item, l.off + k);
            const uint32_t one =
                capped((uint64_t)least_of(f, it.left) + behind_symbol(f, pair.row, it.terminal));
            if (one < n) n = one;
        }
    }
    return n;
}

static void release(finisher *f) {
    for (size_t i = 0; i < f->n_rows; i++) free(f->rows[i]);
    free(f->rows);
    free(f->least);
    free(f->nt_least);
}

/* A byte that leads nearer to the end; -1: there is none. */
static int nearer(finisher *f, uint32_t place, uint32_t left) {
    for (uint32_t c = 0; c < f->g->pool.n_classes; c++) {
        const uint32_t to = gram_place_step(f->g, place, c);
        if (to && behind_place(f, to) < left) return f->g->pool.byte_of[c];
    }
    return -1;
}

sq_test_finish_result sq_test_finish_text(sq_gram *g, sq_buf *text) {
    finisher f = {.g = g};
    uint32_t place = g->start;
    for (size_t i = 0; i < text->len; i++)
        place = gram_place_step(g, place, g->pool.class_of[(uint8_t)text->data[i]]);
    find_nonterminals(&f);
    uint32_t left = behind_place(&f, place);
    for (int i = 0; i < STEPS_MAX && left > 0 && left < FAR && !f.lost; i++) {
        const int byte = nearer(&f, place, left);
        if (byte < 0 || !sq_buf_putc(text, (char)byte)) break;
        place = gram_place_step(g, place, g->pool.class_of[byte]);
        left = behind_place(&f, place);
    }
    const bool none = left >= FAR && !f.lost;
    release(&f);
    if (left == 0) return SQ_TEST_FINISHED;
    return none ? SQ_TEST_FINISH_NONE : SQ_TEST_FINISH_LOST;
}
