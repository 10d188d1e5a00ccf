/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_term.c - regular expressions as hash-consed terms, and their derivatives.
 *
 * The derivative of a term by a byte matches what the term matches after that byte (Brzozowski, 1964). Equal
 * terms are one term; alternatives are flat, sorted sets, so only finitely many derivatives differ and each
 * becomes one state of a DFA. Counts stay counts: r{m,n} by a byte is d(r) r{m-1,n-1}.
 *
 * Recursion follows the nesting of the source (SQ_GRAM_NESTING_MAX), not its length: right spines of CAT are
 * loops. */
#include "grammar/gram_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIVE_SEARCH_MAX = 512, DERIVED_MAX = 1 << 21, GROW_FAST = 1 << 14, FEW = 32 };

/* ---- growing ---------------------------------------------------------------------------------- */

void gram_fail(gram_pool *p, squish_status st, const char *fmt, ...) {
    char text[sizeof p->err.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sq_fail(&p->err, st, "%s", text);
}

void *gram_vec_room(gram_pool *g, gram_vec *v, size_t more, size_t size) {
    if (v->cap && v->n + more <= v->cap) return (char *)v->p + v->n * size;
    size_t cap = v->cap ? v->cap * 2 : 16;
    while (cap < v->n + more) cap *= 2;
    const size_t grown = (cap - v->cap) * size;
    if (g->bytes + grown > g->bytes_max) {
        gram_fail(g, SQUISH_NO_MEMORY, "grammar: over the limit of %zu MiB", g->bytes_max >> 20);
        return NULL;
    }
    void *p = sq_alloc_resize(&g->alloc, v->p, v->cap * size, cap * size);
    if (!p) {
        gram_fail(g, SQUISH_NO_MEMORY, "grammar: out of memory");
        return NULL;
    }
    g->bytes += grown;
    v->p = p;
    v->cap = cap;
    return (char *)p + v->n * size;
}

bool gram_vec_push_u32(gram_pool *g, gram_vec *v, uint32_t x) {
    uint32_t *at = gram_vec_room(g, v, 1, sizeof x);
    if (!at) return false;
    *at = x;
    v->n++;
    return true;
}

void gram_vec_free(gram_pool *g, gram_vec *v, size_t size) {
    sq_alloc_free(&g->alloc, v->p, v->cap * size);
    g->bytes -= v->cap * size;
    *v = (gram_vec){0};
}

bool gram_index_reserve(gram_pool *g, gram_index *x, uint64_t (*hash_of)(void *owner, uint32_t i),
                        void *owner) {
    if ((x->n + 1) * 2 <= x->cap) return true;
    const size_t cap = x->cap == 0 ? 64 : x->cap < GROW_FAST ? x->cap * 4 : x->cap * 2;
    gram_vec fresh = {0};
    if (!gram_vec_room(g, &fresh, cap, sizeof(uint32_t))) return false;
    memset(fresh.p, 0, cap * sizeof(uint32_t));
    uint32_t *slots = fresh.p;
    for (size_t i = 0; i < x->cap; i++) {
        if (!x->slots[i]) continue;
        size_t at = hash_of(owner, x->slots[i] - 1) & (cap - 1);
        while (slots[at]) at = (at + 1) & (cap - 1);
        slots[at] = x->slots[i];
    }
    const size_t n = x->n;
    gram_index_free(g, x);
    *x = (gram_index){slots, n, cap};
    return true;
}

void gram_index_free(gram_pool *g, gram_index *x) {
    sq_alloc_free(&g->alloc, x->slots, x->cap * sizeof *x->slots);
    g->bytes -= x->cap * sizeof *x->slots;
    *x = (gram_index){0};
}

void gram_forget_derived(gram_pool *p) {
    gram_vec_free(p, &p->derived, sizeof(gram_term));
    gram_vec_free(p, &p->derived_row, sizeof(uint32_t));
}

/* ---- interning -------------------------------------------------------------------------------- */

static bool has_kids(uint8_t kind) { return kind == TERM_ALT || kind == TERM_AND || kind == TERM_ALL; }
static gram_node *node(const gram_pool *p, gram_term t) { return &GRAM_AT(p->nodes, gram_node, t); }
/* NULL for a node without any. */
static const uint32_t *kids(const gram_pool *p, const gram_node *n) {
    return has_kids(n->kind) ? &GRAM_AT(p->kids, uint32_t, n->a) : NULL;
}

static uint64_t hash_node(const gram_node *n, const uint32_t *k) {
    uint64_t h = gram_mix(n->kind, n->lo) ^ gram_mix(0x51, n->hi);
    if (!has_kids(n->kind)) return gram_mix(gram_mix(h, n->a), n->b);
    for (uint32_t i = 0; i < n->b; i++) h = gram_mix(h, k[i]);
    return h;
}

static uint64_t node_hash(void *owner, uint32_t i) {
    const gram_pool *p = owner;
    const gram_node *n = node(p, i);
    return hash_node(n, kids(p, n));
}

static bool same_node(const gram_pool *p, const gram_node *x, const gram_node *n, const uint32_t *k) {
    if (x->kind != n->kind || x->b != n->b || x->lo != n->lo || x->hi != n->hi) return false;
    if (!has_kids(n->kind)) return x->a == n->a;
    return memcmp(kids(p, x), k, n->b * sizeof *k) == 0;
}

/* What is said of a node by its parts (gram_counts.c). */
static void note_counts(const gram_pool *p, gram_node *n, const uint32_t *k) {
    const uint32_t number = n->lo || n->hi == GRAM_INF ? n->lo : n->hi;
    if (n->kind == TERM_REP) {
        n->running = n->b == 1;
        n->counts = !n->running && number >= GRAM_COUNT_FROM;
    } else if (n->kind == TERM_CAT) {
        n->running = node(p, n->a)->running || node(p, n->b)->running;
        n->counts = node(p, n->a)->counts || node(p, n->b)->counts;
    }
    for (uint32_t i = 0; n->kind == TERM_ALT && i < n->b; i++) {
        n->running |= node(p, k[i])->running;
        n->counts |= node(p, k[i])->counts;
    }
}

/* k may lie in scratch. */
gram_term gram_intern(gram_pool *p, gram_node n, const uint32_t *k) {
    if (gram_failed(p) || !gram_index_reserve(p, &p->node_index, node_hash, p)) return GRAM_EMPTY;
    gram_index *x = &p->node_index;
    size_t at = hash_node(&n, k) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1))
        if (same_node(p, node(p, x->slots[at] - 1), &n, k)) return x->slots[at] - 1;
    if (p->nodes.n >= SQ_GRAM_TERMS_MAX) {
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: over the limit of %d regular terms", SQ_GRAM_TERMS_MAX);
        return GRAM_EMPTY;
    }
    if (has_kids(n.kind)) {
        uint32_t *to = gram_vec_room(p, &p->kids, n.b, sizeof *to);
        if (!to) return GRAM_EMPTY;
        memcpy(to, k, n.b * sizeof *k);
        n.a = (uint32_t)p->kids.n;
        p->kids.n += n.b;
    }
    gram_node *to = gram_vec_room(p, &p->nodes, 1, sizeof *to);
    if (!to) return GRAM_EMPTY;
    *to = n;
    note_counts(p, to, has_kids(n.kind) ? &GRAM_AT(p->kids, uint32_t, n.a) : NULL);
    x->slots[at] = (uint32_t)++p->nodes.n;
    x->n++;
    return (gram_term)(p->nodes.n - 1);
}

void gram_pool_init(gram_pool *p, const squish_alloc *a, size_t bytes_max) {
    *p = (gram_pool){.alloc = a ? *a : sq_alloc_default(), .bytes_max = bytes_max};
    gram_intern(p, (gram_node){.kind = TERM_EMPTY}, NULL);
    gram_intern(p, (gram_node){.kind = TERM_EPS, .nullable = true}, NULL);
}

void gram_pool_deinit(gram_pool *p) {
    gram_vec_free(p, &p->nodes, sizeof(gram_node));
    gram_vec_free(p, &p->sets, sizeof(gram_set));
    gram_vec_free(p, &p->kids, sizeof(uint32_t));
    gram_forget_derived(p);
    gram_vec_free(p, &p->scratch, sizeof(uint32_t));
    gram_vec_free(p, &p->alive, 1);
    gram_index_free(p, &p->node_index);
    gram_index_free(p, &p->set_index);
}

bool gram_nullable(const gram_pool *p, gram_term t) { return node(p, t)->nullable; }

/* ---- sets and literals ------------------------------------------------------------------------ */

static uint64_t hash_set(const gram_set *s) {
    return gram_mix(gram_mix(gram_mix(gram_mix(7, s->w[0]), s->w[1]), s->w[2]), s->w[3]);
}
static uint64_t set_hash(void *owner, uint32_t i) {
    return hash_set(&GRAM_AT(((gram_pool *)owner)->sets, gram_set, i));
}

gram_term gram_set_term(gram_pool *p, const gram_set *s) {
    if (!(s->w[0] | s->w[1] | s->w[2] | s->w[3])) return GRAM_EMPTY;
    if (gram_failed(p) || !gram_index_reserve(p, &p->set_index, set_hash, p)) return GRAM_EMPTY;
    const gram_set copy = *s; /* s may lie among the sets, which may move */
    gram_index *x = &p->set_index;
    size_t at = hash_set(&copy) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1))
        if (memcmp(&GRAM_AT(p->sets, gram_set, x->slots[at] - 1), &copy, sizeof copy) == 0)
            return gram_intern(p, (gram_node){.kind = TERM_SET, .a = x->slots[at] - 1}, NULL);
    gram_set *to = gram_vec_room(p, &p->sets, 1, sizeof *to);
    if (!to) return GRAM_EMPTY;
    *to = copy;
    x->slots[at] = (uint32_t)++p->sets.n;
    x->n++;
    return gram_intern(p, (gram_node){.kind = TERM_SET, .a = (uint32_t)p->sets.n - 1}, NULL);
}

gram_term gram_byte(gram_pool *p, uint8_t lo, uint8_t hi) {
    gram_set s = {{0}};
    for (unsigned b = lo; b <= hi; b++) s.w[b / 64] |= 1ull << b % 64;
    return gram_set_term(p, &s);
}

gram_term gram_literal(gram_pool *p, const void *bytes, size_t n) {
    const uint8_t *b = bytes;
    gram_term t = GRAM_EPS;
    while (n--) t = gram_cat(p, gram_byte(p, b[n], b[n]), t);
    return t;
}

/* ---- constructors that simplify --------------------------------------------------------------- */

static bool is_marked(const gram_pool *p, gram_term t) {
    return node(p, t)->kind == TERM_REP && node(p, t)->running;
}

/* What a nullable term is at most *n times. */
static gram_term optional_of(const gram_pool *p, gram_term t, uint64_t *n) {
    const gram_node *x = node(p, t);
    const bool counts = x->kind == TERM_REP && x->lo == 0 && x->hi != GRAM_INF;
    *n = counts ? x->hi : 1;
    return counts ? x->a : t;
}

/* x? x? x? ... is x up to so many times: left apart, any of them could be the next. GRAM_NONE: a and the
 * beginning of b are not of that kind. */
static gram_term merge_optional(gram_pool *p, gram_term a, gram_term b) {
    const gram_node y = *node(p, b);
    const gram_term first = y.kind == TERM_CAT ? y.a : b, rest = y.kind == TERM_CAT ? y.b : GRAM_EPS;
    uint64_t m, n;
    if (!gram_nullable(p, a) || !gram_nullable(p, first)) return GRAM_NONE;
    if (is_marked(p, a) || is_marked(p, first)) return GRAM_NONE;
    const gram_term x = optional_of(p, a, &m);
    if (x != optional_of(p, first, &n) || m + n >= GRAM_INF) return GRAM_NONE;
    return gram_cat(p, gram_rep(p, x, 0, (uint32_t)(m + n)), rest);
}

gram_term gram_cat(gram_pool *p, gram_term a, gram_term b) {
    if (a == GRAM_EMPTY || b == GRAM_EMPTY) return GRAM_EMPTY;
    if (a == GRAM_EPS) return b;
    if (b == GRAM_EPS) return a;
    const gram_term merged = merge_optional(p, a, b);
    if (merged != GRAM_NONE) return merged;
    /* Lean to the right: the parts of a's spine, last first. */
    const size_t base = p->scratch.n;
    while (node(p, a)->kind == TERM_CAT) {
        if (!gram_vec_push_u32(p, &p->scratch, node(p, a)->a)) return GRAM_EMPTY;
        a = node(p, a)->b;
    }
    for (;;) {
        const gram_node x = {.kind = TERM_CAT,
                             .a = a,
                             .b = b,
                             .nullable = gram_nullable(p, a) && gram_nullable(p, b),
                             .logic = node(p, a)->logic || node(p, b)->logic};
        b = gram_intern(p, x, NULL);
        if (p->scratch.n == base) return b;
        a = GRAM_AT(p->scratch, uint32_t, --p->scratch.n);
        if (b == GRAM_EMPTY) {
            p->scratch.n = base;
            return GRAM_EMPTY;
        }
    }
}

/* By their lower half, then, in that order, by the upper one; t [n] to work in. */
static void sort_many(gram_term *l, gram_term *t, size_t n) {
    enum { HALF = 512 };
    _Static_assert(SQ_GRAM_TERMS_MAX <= HALF * HALF, "a term has two halves");
    for (unsigned upper = 0; upper < 2; upper++) {
        const gram_term *from = upper ? t : l;
        gram_term *to = upper ? l : t;
        uint32_t at[HALF] = {0}, before = 0;
        for (size_t i = 0; i < n; i++) at[upper ? from[i] / HALF : from[i] % HALF]++;
        for (size_t d = 0; d < HALF; d++) {
            const uint32_t here = at[d];
            at[d] = before;
            before += here;
        }
        for (size_t i = 0; i < n; i++) to[at[upper ? from[i] / HALF : from[i] % HALF]++] = from[i];
    }
}

static void sort_few(gram_term *l, size_t n) {
    for (size_t i = 1; i < n; i++) {
        const gram_term x = l[i];
        size_t k = i;
        for (; k > 0 && l[k - 1] > x; k--) l[k] = l[k - 1];
        l[k] = x;
    }
}

/* Put t, or its kids if it is of the same kind, on scratch. */
static bool push_flat(gram_pool *p, gram_term t, term_kind kind) {
    if (node(p, t)->kind != kind) return gram_vec_push_u32(p, &p->scratch, t);
    const uint32_t n = node(p, t)->b;
    uint32_t *to = gram_vec_room(p, &p->scratch, n, sizeof *to);
    if (!to) return false;
    memcpy(to, kids(p, node(p, t)), n * sizeof *to);
    p->scratch.n += n;
    return true;
}

/* The terms of scratch from base on, sorted, each once; how many there are (0 after a failure). */
static size_t sort_unique(gram_pool *p, size_t base) {
    const size_t n = p->scratch.n - base;
    size_t m = 0;
    bool sorted = true;
    if (n == 0 || !gram_vec_room(p, &p->scratch, n, sizeof(gram_term))) return 0;
    gram_term *l = &GRAM_AT(p->scratch, gram_term, base);
    for (size_t i = 1; i < n && sorted; i++) sorted = l[i - 1] < l[i];
    if (sorted) return n;
    if (n <= FEW)
        sort_few(l, n);
    else
        sort_many(l, l + n, n);
    for (size_t i = 0; i < n; i++)
        if (m == 0 || l[m - 1] != l[i]) l[m++] = l[i];
    return m;
}

/* Sets of bytes among the alternatives become one. */
static void join_sets(gram_pool *p, size_t base) {
    gram_set all = {{0}};
    size_t m = base, n_sets = 0;
    for (size_t i = base; i < p->scratch.n; i++) {
        const gram_term t = GRAM_AT(p->scratch, uint32_t, i);
        if (node(p, t)->kind != TERM_SET) {
            GRAM_AT(p->scratch, uint32_t, m++) = t;
            continue;
        }
        n_sets++;
        for (int w = 0; w < 4; w++) all.w[w] |= GRAM_AT(p->sets, gram_set, node(p, t)->a).w[w];
    }
    p->scratch.n = m;
    if (n_sets) gram_vec_push_u32(p, &p->scratch, gram_set_term(p, &all));
}

gram_term gram_alt_list(gram_pool *p, size_t base) {
    if (gram_failed(p)) {
        p->scratch.n = base < p->scratch.n ? base : p->scratch.n;
        return GRAM_EMPTY;
    }
    bool nested = false, eps = false, nullable = false, logic = false, everything = false;
    for (size_t i = base; i < p->scratch.n; i++)
        nested |= node(p, GRAM_AT(p->scratch, uint32_t, i))->kind == TERM_ALT;
    if (nested) {
        const size_t end = p->scratch.n;
        for (size_t i = base; i < end; i++)
            if (!push_flat(p, GRAM_AT(p->scratch, uint32_t, i), TERM_ALT)) break;
        uint32_t *l = p->scratch.p;
        memmove(l + base, l + end, (p->scratch.n - end) * sizeof *l);
        p->scratch.n -= end - base;
    }
    join_sets(p, base);
    size_t m = base;
    for (size_t i = base; i < p->scratch.n; i++) {
        const gram_term t = GRAM_AT(p->scratch, uint32_t, i);
        if (t == GRAM_EMPTY) continue;
        eps |= t == GRAM_EPS;
        if (t == GRAM_EPS) continue;
        nullable |= node(p, t)->nullable;
        logic |= node(p, t)->logic;
        everything |= node(p, t)->kind == TERM_NOT && node(p, t)->a == GRAM_EMPTY;
        GRAM_AT(p->scratch, uint32_t, m++) = t;
    }
    p->scratch.n = m;
    if (eps && !nullable) gram_vec_push_u32(p, &p->scratch, GRAM_EPS);
    const size_t n = gram_failed(p) ? 0 : sort_unique(p, base);
    const gram_term *l = n ? &GRAM_AT(p->scratch, gram_term, base) : NULL;
    p->scratch.n = base;
    if (everything) return gram_not(p, GRAM_EMPTY);
    if (n == 0) return GRAM_EMPTY;
    if (n == 1) return l[0];
    return gram_intern(
        p, (gram_node){.kind = TERM_ALT, .b = (uint32_t)n, .nullable = nullable || eps, .logic = logic}, l);
}

gram_term gram_alt(gram_pool *p, gram_term a, gram_term b) {
    const size_t base = p->scratch.n;
    gram_vec_push_u32(p, &p->scratch, a);
    gram_vec_push_u32(p, &p->scratch, b);
    return gram_alt_list(p, base);
}

static gram_term and_list(gram_pool *p, size_t base) {
    bool nullable = true, eps = false;
    size_t m = base;
    for (size_t i = base; i < p->scratch.n; i++) {
        const gram_term t = GRAM_AT(p->scratch, uint32_t, i);
        const gram_node *x = node(p, t);
        if (t == GRAM_EMPTY) {
            p->scratch.n = base;
            return GRAM_EMPTY;
        }
        nullable &= x->nullable;
        eps |= t == GRAM_EPS;
        if (x->kind == TERM_NOT && x->a == GRAM_EMPTY) continue;
        GRAM_AT(p->scratch, uint32_t, m++) = t;
    }
    p->scratch.n = m;
    const size_t n = sort_unique(p, base);
    const gram_term *l = n ? &GRAM_AT(p->scratch, gram_term, base) : NULL;
    p->scratch.n = base;
    if (gram_failed(p)) return GRAM_EMPTY;
    if (eps) return nullable ? GRAM_EPS : GRAM_EMPTY;
    if (n == 0) return gram_not(p, GRAM_EMPTY);
    if (n == 1) return l[0];
    const gram_node x = {.kind = TERM_AND, .b = (uint32_t)n, .nullable = nullable, .logic = true};
    return gram_intern(p, x, l);
}

gram_term gram_and(gram_pool *p, gram_term a, gram_term b) {
    const size_t base = p->scratch.n;
    if (!push_flat(p, a, TERM_AND) || !push_flat(p, b, TERM_AND)) return GRAM_EMPTY;
    return and_list(p, base);
}

gram_term gram_not(gram_pool *p, gram_term a) {
    if (node(p, a)->kind == TERM_NOT) return node(p, a)->a;
    const gram_node x = {.kind = TERM_NOT, .a = a, .nullable = !gram_nullable(p, a), .logic = true};
    return gram_intern(p, x, NULL);
}

gram_term gram_rep(gram_pool *p, gram_term a, uint32_t lo, uint32_t hi) {
    if (hi == 0 || a == GRAM_EPS) return GRAM_EPS;
    if (a == GRAM_EMPTY) return lo == 0 ? GRAM_EPS : GRAM_EMPTY;
    if (lo == 1 && hi == 1) return a;
    if (gram_nullable(p, a)) lo = 0;
    const gram_node *x = node(p, a);
    if (x->kind == TERM_REP && x->lo == 0) { /* then lo is 0, too: counts multiply */
        const bool endless = x->hi == GRAM_INF || hi == GRAM_INF;
        const uint64_t most = endless ? GRAM_INF : (uint64_t)x->hi * hi;
        if (x->hi == GRAM_INF) return a;
        return gram_rep(p, x->a, 0, most < GRAM_INF ? (uint32_t)most : GRAM_INF); /* no text has so many */
    }
    if (x->kind == TERM_REP && x->hi == GRAM_INF && hi == GRAM_INF && (lo > 0 || x->lo <= 1) &&
        (uint64_t)x->lo * lo <= SQ_GRAM_REPEAT_MAX) /* and so do those without an end */
        return gram_rep(p, x->a, x->lo * lo, GRAM_INF);
    return gram_intern(
        p, (gram_node){.kind = TERM_REP, .a = a, .lo = lo, .hi = hi, .nullable = lo == 0, .logic = x->logic},
        NULL);
}

gram_term gram_rep_marked(gram_pool *p, gram_term a, uint32_t lo, uint32_t hi) {
    const gram_node x = {.kind = TERM_REP,
                         .a = a,
                         .b = 1,
                         .lo = lo,
                         .hi = hi,
                         .nullable = lo == 0,
                         .logic = node(p, a)->logic};
    return gram_intern(p, x, NULL);
}

/* ---- derivatives ------------------------------------------------------------------------------ */

/* A row of derivatives by class for each term that was derived: those of one term are asked for together. */
static gram_term *derived_cell(gram_pool *p, gram_term t, uint32_t cls) {
    const uint32_t row = t < p->derived_row.n ? GRAM_AT(p->derived_row, uint32_t, t) : 0;
    return row ? &GRAM_AT(p->derived, gram_term, (size_t)(row - 1) * p->n_classes + cls) : NULL;
}

static bool make_derived_row(gram_pool *p, gram_term t) {
    if (p->derived.n >= DERIVED_MAX) gram_forget_derived(p); /* only a memo: begin anew */
    const size_t have = p->derived_row.n, classes = p->n_classes;
    if (t >= have) {
        uint32_t *rows = gram_vec_room(p, &p->derived_row, p->nodes.n - have, sizeof *rows);
        if (!rows) return false;
        memset(rows, 0, (p->nodes.n - have) * sizeof *rows);
        p->derived_row.n = p->nodes.n;
    }
    gram_term *cells = gram_vec_room(p, &p->derived, classes, sizeof *cells);
    if (!cells) return false;
    memset(cells, 0xFF, classes * sizeof *cells);
    GRAM_AT(p->derived_row, uint32_t, t) = (uint32_t)(p->derived.n / classes) + 1;
    p->derived.n += classes;
    return true;
}

static void remember(gram_pool *p, gram_term t, uint32_t cls, gram_term to) {
    if (gram_failed(p) || (!derived_cell(p, t, cls) && !make_derived_row(p, t))) return;
    *derived_cell(p, t, cls) = to;
}

/* d(a b) = d(a) b, and d(b) where a may be empty: along the spine in a loop. */
static gram_term derive_cat(gram_pool *p, gram_term t, uint8_t byte) {
    const size_t base = p->scratch.n;
    for (;;) {
        const gram_node x = *node(p, t);
        if (x.kind != TERM_CAT) {
            gram_vec_push_u32(p, &p->scratch, gram_derive(p, t, byte));
            break;
        }
        const gram_term d = gram_cat(p, gram_derive(p, x.a, byte), x.b);
        gram_vec_push_u32(p, &p->scratch, d);
        if (!gram_nullable(p, x.a)) break;
        t = x.b;
    }
    return gram_alt_list(p, base);
}

static gram_term derive_list(gram_pool *p, const gram_node *x, uint8_t byte) {
    const size_t base = p->scratch.n;
    for (uint32_t i = 0; i < x->b; i++) {
        const gram_term d = gram_derive(p, kids(p, x)[i], byte);
        if (d == GRAM_EMPTY && x->kind == TERM_ALT) continue;
        if (x->kind == TERM_ALT)
            gram_vec_push_u32(p, &p->scratch, d);
        else if (!push_flat(p, d, TERM_AND))
            break;
    }
    if (gram_failed(p)) {
        p->scratch.n = base;
        return GRAM_EMPTY;
    }
    return x->kind == TERM_ALT ? gram_alt_list(p, base) : and_list(p, base);
}

static gram_term derive_repeated(gram_pool *p, const gram_node *x, uint8_t byte) {
    const uint32_t lo = x->lo ? x->lo - 1 : 0, hi = x->hi == GRAM_INF ? GRAM_INF : x->hi - 1;
    const gram_term d = gram_derive(p, x->a, byte);
    if (d == GRAM_EMPTY) return d;
    return gram_cat(p, d, x->running ? gram_rep_marked(p, x->a, lo, hi) : gram_rep(p, x->a, lo, hi));
}

/* Counts of counts have as many ways as there are to share a text out among them; what was written down as
 * alternatives does not get more by a byte. */
static bool is_wider(const gram_pool *p, gram_term d, const gram_node *before) {
    const gram_node *x = node(p, d);
    return x->kind == TERM_ALT && x->b > SQ_GRAM_WAYS_MAX && !(before->kind == TERM_ALT && x->b <= before->b);
}

gram_term gram_derive(gram_pool *p, gram_term t, uint8_t byte) {
    const gram_node x = *node(p, t);
    if (x.kind <= TERM_EPS || gram_failed(p)) return GRAM_EMPTY;
    if (x.kind == TERM_SET)
        return GRAM_AT(p->sets, gram_set, x.a).w[byte / 64] >> byte % 64 & 1 ? GRAM_EPS : GRAM_EMPTY;
    const uint32_t cls = p->class_of[byte];
    const gram_term *known = p->n_classes ? derived_cell(p, t, cls) : NULL;
    if (known && *known != GRAM_NONE) return *known;
    gram_term d;
    switch ((term_kind)x.kind) {
    case TERM_CAT: d = derive_cat(p, t, byte); break;
    case TERM_NOT: d = gram_not(p, gram_derive(p, x.a, byte)); break;
    case TERM_MOD: d = gram_derive_multiple(p, &x, byte); break;
    case TERM_ALL: d = gram_derive_members(p, &x, byte); break;
    case TERM_REP: d = derive_repeated(p, &x, byte); break;
    default: d = derive_list(p, &x, byte); break;
    }
    if (is_wider(p, d, &x)) {
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: over the limit of %d ways to go on in a regular expression",
                  SQ_GRAM_WAYS_MAX);
        return GRAM_EMPTY;
    }
    if (p->n_classes) remember(p, t, cls, d);
    return d;
}

/* Search the derivatives of an intersection or complement for one that is nullable, or known to match. */
static bool search(gram_pool *p, gram_term t) {
    gram_vec list = {0};
    bool found = false;
    gram_vec_push_u32(p, &list, t);
    for (size_t i = 0; i < list.n && list.n < ALIVE_SEARCH_MAX && !found && !gram_failed(p); i++) {
        for (uint32_t c = 0; c < p->n_classes && !found; c++) {
            const gram_term d = gram_derive(p, GRAM_AT(list, uint32_t, i), p->byte_of[c]);
            const uint8_t is = d < p->alive.n ? GRAM_AT(p->alive, uint8_t, d) : 0;
            found = gram_nullable(p, d) || is == 1 || (d != GRAM_EMPTY && !node(p, d)->logic);
            bool known = d == GRAM_EMPTY || is == 2;
            for (size_t k = 0; k < list.n && !known; k++) known = GRAM_AT(list, uint32_t, k) == d;
            if (!known) gram_vec_push_u32(p, &list, d);
        }
    }
    const bool given_up = list.n >= ALIVE_SEARCH_MAX;
    gram_vec_free(p, &list, sizeof(uint32_t));
    return found || given_up;
}

/* What has parts matches something if they do; only intersections and complements are searched. */
bool gram_matches_something(gram_pool *p, gram_term t) {
    for (; node(p, t)->kind == TERM_CAT && node(p, t)->logic; t = node(p, t)->b)
        if (!gram_matches_something(p, node(p, t)->a)) return false;
    const gram_node x = *node(p, t);
    if (!x.logic) return t != GRAM_EMPTY;
    if (x.nullable) return true;
    if (x.kind == TERM_REP) return gram_matches_something(p, x.a);
    if (x.kind == TERM_ALL) return gram_members_match(p, &x);
    if (t < p->alive.n && GRAM_AT(p->alive, uint8_t, t)) return GRAM_AT(p->alive, uint8_t, t) == 1;
    bool alive = false;
    if (x.kind == TERM_ALT)
        for (uint32_t i = 0; i < x.b && !alive; i++) alive = gram_matches_something(p, kids(p, &x)[i]);
    else
        alive = search(p, t);
    const size_t have = p->alive.n;
    if (t >= have && gram_vec_room(p, &p->alive, t + 1 - have, 1)) {
        memset((uint8_t *)p->alive.p + have, 0, t + 1 - have);
        p->alive.n = t + 1;
    }
    if (t < p->alive.n) GRAM_AT(p->alive, uint8_t, t) = alive ? 1 : 2;
    return alive;
}

void gram_find_classes(gram_pool *p) {
    gram_forget_derived(p); /* by classes of before */
    p->n_sets_classed = p->sets.n;
    uint16_t cls[256] = {0}, size[256] = {256};
    uint32_t n = 1;
    for (size_t i = 0; i < p->sets.n && n < 256; i++) {
        const gram_set *s = &GRAM_AT(p->sets, gram_set, i);
        uint8_t bytes[256];
        /* Bytes of a class in s; the class that they become, 0: none. */
        uint16_t inside[256] = {0}, part[256] = {0};
        uint32_t n_bytes = 0;
        for (unsigned w = 0; w < 4; w++)
            for (uint64_t bits = s->w[w]; bits; bits &= bits - 1)
                bytes[n_bytes++] = (uint8_t)(w * 64 + (unsigned)__builtin_ctzll(bits));
        for (uint32_t k = 0; k < n_bytes; k++) inside[cls[bytes[k]]]++;
        for (uint32_t k = 0; k < n_bytes; k++) {
            const uint16_t c = cls[bytes[k]];
            if (inside[c] == size[c]) continue; /* all of it */
            if (part[c] == 0) part[c] = (uint16_t)n++;
            cls[bytes[k]] = part[c];
            size[part[c]]++;
            inside[c]--, size[c]--;
        }
    }
    for (unsigned b = 256; b-- > 0;) {
        p->class_of[b] = (uint8_t)cls[b];
        p->byte_of[cls[b]] = (uint8_t)b;
    }
    p->n_classes = n;
}

/* Any characters, then something: what follows a character has that again as a part. */
bool gram_is_open(gram_pool *p, gram_term t) {
    const gram_node x = *node(p, t);
    if (x.kind == TERM_ALT)
        for (uint32_t i = 0; i < x.b; i++)
            if (gram_is_open(p, kids(p, &x)[i])) return true;
    if (x.kind != TERM_CAT || !p->any_char) return false;
    const gram_node first = *node(p, x.a);
    return first.kind == TERM_REP && first.a == p->any_char && first.lo == 0 && first.hi == GRAM_INF &&
           gram_matches_something(p, t);
}

/* ---- questions while terms are still being made ----------------------------------------------- */

/* Sets that came since the classes were found make new ones. */
static void forget_old_classes(gram_pool *p) {
    if (p->n_sets_classed == p->sets.n) return;
    p->n_classes = 0;
    gram_forget_derived(p);
}

bool gram_accepts(gram_pool *p, gram_term t, const char *s, size_t n) {
    forget_old_classes(p);
    for (size_t i = 0; i < n && t != GRAM_EMPTY; i++) t = gram_derive(p, t, (uint8_t)s[i]);
    return gram_nullable(p, t);
}

bool gram_is_empty(gram_pool *p, gram_term t) {
    if (!node(p, t)->logic || node(p, t)->nullable) return t == GRAM_EMPTY;
    forget_old_classes(p);
    if (!p->n_classes) gram_find_classes(p);
    return !gram_matches_something(p, t);
}
