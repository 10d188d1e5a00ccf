/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_cases.c - claims, goals, and the cases in which a goal is met.
 *
 * All of them are interned: a goal that comes back while it is read has the same number, so schemas that
 * refer to themselves end, whatever `allOf` and `not` lie on the way. Cases that cannot hold are dropped when
 * two are put together; so most of what `oneOf` multiplies is gone before it grows. */
#include "grammar/gram_json_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    const json_t *what;
    bool is_value;
    enum { FRESH, OPEN, DONE } state[2]; /* [1]: of its opposite */
    gram_cases cases[2];
} claim;
typedef struct {
    uint32_t off, n; /* claims */
    enum { GOAL_FRESH, GOAL_OPEN, GOAL_DONE } state;
    bool doubtful; /* asked whether it is empty while something in it was open */
    gram_cases cases;
} goal;

static claim *claim_at(const gram_schema *c, gram_claim x) { return &GRAM_AT(c->claims, claim, x >> 1); }
static goal *goal_at(const gram_schema *c, gram_goal g) { return &GRAM_AT(c->goals, goal, g); }

/* ---- claims ----------------------------------------------------------------------------------- */

static uint64_t hash_claim(const json_t *what, bool is_value) { return gram_mix(is_value, (uintptr_t)what); }
static uint64_t claim_hash(void *owner, uint32_t i) {
    const claim *x = &GRAM_AT(((gram_schema *)owner)->claims, claim, i);
    return hash_claim(x->what, x->is_value);
}

gram_claim gram_claim_of(gram_schema *c, const json_t *what, bool is_value) {
    gram_index *x = &c->claim_index;
    if (gram_failed(c->p) || !gram_index_reserve(c->p, x, claim_hash, c)) return 0;
    size_t at = hash_claim(what, is_value) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        const claim *y = &GRAM_AT(c->claims, claim, x->slots[at] - 1);
        if (y->what == what && y->is_value == is_value) return (x->slots[at] - 1) * 2;
    }
    claim *to = gram_vec_room(c->p, &c->claims, 1, sizeof *to);
    if (!to) return 0;
    *to = (claim){.what = what, .is_value = is_value};
    x->slots[at] = (uint32_t)++c->claims.n;
    x->n++;
    return ((uint32_t)c->claims.n - 1) * 2;
}

gram_claim gram_claim_schema(gram_schema *c, const json_t *schema) { return gram_claim_of(c, schema, false); }
gram_claim gram_claim_never(gram_schema *c) { return gram_claim_of(c, json_false(), false); }

/* ---- goals ------------------------------------------------------------------------------------ */

static uint64_t hash_goal(const gram_claim *l, size_t n) {
    uint64_t h = gram_mix(21, n);
    for (size_t i = 0; i < n; i++) h = gram_mix(h, l[i]);
    return h;
}
static const gram_claim *claims_of(const gram_schema *c, const goal *g) {
    return g->n ? &GRAM_AT(c->goal_claims, gram_claim, g->off) : NULL;
}
static uint64_t goal_hash(void *owner, uint32_t i) {
    const goal *g = goal_at(owner, i);
    return hash_goal(claims_of(owner, g), g->n);
}

static int by_u32(const void *a, const void *b) {
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* What says nothing goes; a claim and its opposite are never. */
static size_t tidy(gram_schema *c, gram_claim *l, size_t n) {
    size_t m = 0;
    if (n > 1) qsort(l, n, sizeof *l, by_u32);
    for (size_t i = 0; i < n; i++) {
        const json_t *what = claim_at(c, l[i])->what;
        const bool schema = !claim_at(c, l[i])->is_value;
        const bool always =
            schema && (l[i] & 1 ? json_is_false(what)
                                : json_is_true(what) || (json_is_object(what) && !json_object_size(what)));
        if (always || (m && l[m - 1] == l[i])) continue;
        if (m && l[m - 1] == gram_claim_not(l[i])) {
            l[0] = gram_claim_never(c);
            return 1;
        }
        l[m++] = l[i];
    }
    return m;
}

gram_goal gram_goal_of(gram_schema *c, gram_claim *claims, size_t n) {
    gram_index *x = &c->goal_index;
    if (gram_failed(c->p)) return GRAM_ANYTHING;
    n = tidy(c, claims, n);
    if (gram_failed(c->p) || !gram_index_reserve(c->p, x, goal_hash, c)) return GRAM_ANYTHING;
    size_t at = hash_goal(claims, n) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        const goal *g = goal_at(c, x->slots[at] - 1);
        if (g->n == n && (n == 0 || memcmp(claims_of(c, g), claims, n * sizeof *claims) == 0))
            return x->slots[at] - 1;
    }
    gram_claim *l = gram_vec_room(c->p, &c->goal_claims, n, sizeof *l);
    goal *to = gram_vec_room(c->p, &c->goals, 1, sizeof *to);
    if (!l || !to) return GRAM_ANYTHING;
    if (n) memcpy(l, claims, n * sizeof *l);
    *to = (goal){.off = (uint32_t)c->goal_claims.n, .n = (uint32_t)n};
    c->goal_claims.n += n;
    x->slots[at] = (uint32_t)++c->goals.n;
    x->n++;
    return (gram_goal)c->goals.n - 1;
}

gram_goal gram_goal_with(gram_schema *c, gram_goal g, gram_claim x) {
    if (gram_failed(c->p)) return GRAM_ANYTHING;
    const uint32_t n = goal_at(c, g)->n;
    const size_t base = c->p->scratch.n;
    gram_claim *l = gram_vec_room(c->p, &c->p->scratch, n + 1, sizeof *l);
    if (!l) return GRAM_ANYTHING;
    if (n) memcpy(l, claims_of(c, goal_at(c, g)), n * sizeof *l);
    l[n] = x;
    /* The list lies above what others keep on scratch, and nothing that is called grows it. */
    const gram_goal with = gram_goal_of(c, l, n + 1);
    c->p->scratch.n = base;
    return with;
}

/* ---- atoms ------------------------------------------------------------------------------------ */

/* They lie in the arena, so that a pointer to one stays good. */
const gram_atom *gram_atom_at(const gram_schema *c, uint32_t i) { return GRAM_AT(c->atoms, gram_atom *, i); }

uint32_t gram_atom_types(gram_atom_kind k) {
    if (k <= ATOM_FORMAT) return TYPE_STRING;
    if (k <= ATOM_MULTIPLE) return TYPE_NUMBER;
    if (k == ATOM_VALUES) return TYPE_STRING | TYPE_NUMBER;
    return k <= ATOM_UNIQUE ? TYPE_ARRAY : TYPE_OBJECT;
}

static uint64_t hash_atom(const gram_atom *x) {
    uint64_t h = gram_mix(x->kind * 4 + x->negative * 2 + x->silent, (uintptr_t)x->value);
    h = gram_mix(gram_mix(h, (uintptr_t)x->rest), x->claim);
    h = gram_mix(gram_mix(gram_mix(h, x->rest_claim), x->lo), gram_mix(x->hi, x->from));
    for (size_t i = 0; i < x->n; i++) h = gram_mix(h, (uint8_t)x->text[i]);
    for (uint32_t i = 0; i < x->n_spared; i++) h = gram_mix(h, x->spared[i]);
    return h;
}
static uint64_t atom_hash(void *owner, uint32_t i) { return hash_atom(gram_atom_at(owner, i)); }

static bool same_atom(const gram_atom *a, const gram_atom *b) {
    return a->kind == b->kind && a->negative == b->negative && a->silent == b->silent &&
           a->value == b->value && a->n == b->n && (a->n == 0 || memcmp(a->text, b->text, a->n) == 0) &&
           a->rest == b->rest && a->claim == b->claim && a->rest_claim == b->rest_claim &&
           a->has_claim == b->has_claim && a->lo == b->lo && a->hi == b->hi && a->from == b->from &&
           a->n_spared == b->n_spared &&
           (a->n_spared == 0 || memcmp(a->spared, b->spared, a->n_spared * sizeof *a->spared) == 0);
}

uint32_t gram_atom_of(gram_schema *c, const gram_atom *atom) {
    gram_index *x = &c->atom_index;
    if (gram_failed(c->p) || !gram_index_reserve(c->p, x, atom_hash, c)) return 0;
    size_t at = hash_atom(atom) & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1))
        if (same_atom(gram_atom_at(c, x->slots[at] - 1), atom)) return x->slots[at] - 1;
    gram_atom **to = gram_vec_room(c->p, &c->atoms, 1, sizeof *to),
              *copy = gram_schema_alloc(c, sizeof *copy);
    if (!to || !copy) return 0;
    *copy = *atom;
    *to = copy;
    x->slots[at] = (uint32_t)++c->atoms.n;
    x->n++;
    return (uint32_t)c->atoms.n - 1;
}

/* ---- cases ------------------------------------------------------------------------------------ */

gram_cases gram_cases_one(gram_schema *c, uint32_t types, const gram_atom *atoms, size_t n) {
    gram_case *x = gram_schema_alloc(c, sizeof *x);
    uint32_t *l = gram_schema_alloc(c, (n ? n : 1) * sizeof *l);
    if (!x || !l) return (gram_cases){0};
    uint32_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (gram_atom_types(atoms[i].kind) & types) l[m++] = gram_atom_of(c, &atoms[i]);
    *x = (gram_case){types, m, l};
    return (gram_cases){x, types != 0};
}

gram_cases gram_cases_all(gram_schema *c) { return gram_cases_one(c, TYPE_ALL, NULL, 0); }

/* Something and its opposite. */
static bool contradicts(const gram_atom *a, const gram_atom *b) {
    return a->kind == b->kind && a->negative != b->negative && a->value == b->value && a->n == b->n &&
           (a->n == 0 || memcmp(a->text, b->text, a->n) == 0) && (a->value || a->text);
}

/* Take away the types for which a case cannot hold, and then the atoms that are only about those. */
static gram_case settle(gram_schema *c, gram_case x, uint32_t *l) {
    x.types &= gram_listed_types(c, &x);
    for (uint32_t i = 0; i < x.n; i++)
        for (uint32_t k = i + 1; k < x.n; k++)
            if (contradicts(gram_atom_at(c, l[i]), gram_atom_at(c, l[k])))
                x.types &= ~gram_atom_types(gram_atom_at(c, l[i])->kind);
    uint32_t lo, hi;
    gram_lengths(c, &x, &lo, &hi);
    if (lo > hi) x.types &= ~(uint32_t)TYPE_STRING;
    if (x.types & TYPE_ARRAY && gram_array_is_empty(c, &x)) x.types &= ~(uint32_t)TYPE_ARRAY;
    if (x.types & TYPE_OBJECT && gram_object_is_empty(c, &x)) x.types &= ~(uint32_t)TYPE_OBJECT;
    uint32_t m = 0;
    for (uint32_t i = 0; i < x.n; i++)
        if (gram_atom_types(gram_atom_at(c, l[i])->kind) & x.types) l[m++] = l[i];
    x.n = m;
    return x;
}

static bool has_atom(const gram_case *x, uint32_t atom) {
    for (uint32_t i = 0; i < x->n; i++)
        if (x->atoms[i] == atom) return true;
    return false;
}

static bool both(gram_schema *c, const gram_case *a, const gram_case *b, gram_case *out) {
    const uint32_t types = a->types & b->types;
    if (!types) return false;
    const int64_t n_both = (int64_t)a->n + b->n;
    if ((c->work -= 1 + n_both * n_both / 4) < 0) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: over the limit of %d steps to take schemas together",
                  GRAM_CASE_WORK);
        return false;
    }
    uint32_t *l = gram_schema_alloc(c, (a->n + b->n ? a->n + b->n : 1) * sizeof *l), n = 0;
    if (!l) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (gram_atom_types(gram_atom_at(c, a->atoms[i])->kind) & types) l[n++] = a->atoms[i];
    for (uint32_t i = 0; i < b->n; i++)
        if (gram_atom_types(gram_atom_at(c, b->atoms[i])->kind) & types && !has_atom(a, b->atoms[i]))
            l[n++] = b->atoms[i];
    *out = (gram_case){types, n, l};
    /* Only where both say something can they be at odds. */
    if (n > a->n || n > b->n || types != a->types || types != b->types) *out = settle(c, *out, l);
    return out->types != 0;
}

/* Every value of b is one of a. */
static bool holds(const gram_case *a, const gram_case *b) {
    if (b->types & ~a->types || a->n > b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!has_atom(b, a->atoms[i])) return false;
    return true;
}

/* A list in the making. */
static bool add(gram_schema *c, gram_case *l, size_t *n, const gram_case *x) {
    size_t m = 0;
    if (!c->evaluates) {
        for (size_t i = 0; i < *n; i++)
            if (holds(&l[i], x)) return true;
        for (size_t i = 0; i < *n; i++)
            if (!holds(x, &l[i])) l[m++] = l[i];
        *n = m;
    }
    if (*n >= GRAM_CASES_MAX) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: over the limit of %d cases", GRAM_CASES_MAX);
        return false;
    }
    l[(*n)++] = *x;
    return true;
}

static gram_cases finish(gram_schema *c, const gram_case *l, size_t n) {
    gram_case *to = n && !gram_failed(c->p) ? gram_schema_alloc(c, n * sizeof *to) : NULL;
    if (!to) return (gram_cases){0};
    memcpy(to, l, n * sizeof *to);
    return (gram_cases){to, n};
}

gram_cases gram_cases_both(gram_schema *c, gram_cases a, gram_cases b) {
    size_t n = 0;
    if (gram_failed(c->p) || a.n == 0 || b.n == 0) return (gram_cases){0};
    if (a.n == 1 && a.list->types == TYPE_ALL && a.list->n == 0) return b;
    if (b.n == 1 && b.list->types == TYPE_ALL && b.list->n == 0) return a;
    gram_vec list = {0};
    for (size_t i = 0; i < a.n; i++)
        for (size_t k = 0; k < b.n && !gram_failed(c->p); k++) {
            gram_case x;
            if (!both(c, &a.list[i], &b.list[k], &x) || !gram_vec_room(c->p, &list, 1, sizeof x)) continue;
            add(c, list.p, &n, &x);
            list.n = n;
        }
    const gram_cases out = finish(c, list.p, n);
    gram_vec_free(c->p, &list, sizeof(gram_case));
    return out;
}

gram_cases gram_cases_either(gram_schema *c, gram_cases a, gram_cases b) {
    if (a.n == 0) return b;
    if (b.n == 0) return a;
    gram_vec list = {0};
    size_t n = a.n;
    gram_case *l = gram_vec_room(c->p, &list, a.n + b.n, sizeof *l);
    if (!l) return (gram_cases){0};
    memcpy(l, a.list, a.n * sizeof *l);
    for (size_t i = 0; i < b.n; i++)
        if (!add(c, l, &n, &b.list[i])) break;
    const gram_cases out = finish(c, l, n);
    gram_vec_free(c->p, &list, sizeof *l);
    return out;
}

/* A claim that is reached while it is taken apart: an error, but not where only emptiness was asked for,
 * which looks into members of what is open. */
static gram_cases reached_again(gram_schema *c, const json_t *what) {
    c->unknown = true;
    if (!c->probing) gram_schema_invalid(c, what, "$ref", "leads back to itself and matches nothing");
    return (gram_cases){0};
}

gram_cases gram_claim_cases(gram_schema *c, gram_claim x) {
    const bool not = x & 1;
    if (gram_failed(c->p)) return (gram_cases){0};
    claim *at = claim_at(c, x);
    if (at->state[not ] == DONE) return at->cases[not ];
    if (at->state[not ] == OPEN) return reached_again(c, at->what);
    if (c->depth >= GRAM_SCHEMA_DEPTH) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: over the limit of %d schemas in each other",
                  GRAM_SCHEMA_DEPTH);
        return (gram_cases){0};
    }
    const json_t *what = at->what;
    const bool unknown = c->unknown;
    c->unknown = false;
    at->state[not ] = OPEN;
    c->depth++;
    const gram_cases cases = at->is_value ? not ? gram_value_fails(c, what) : gram_values_hold(c, what)
                             : not ? gram_words_fail(c, what)
                                          : gram_words_hold(c, what);
    c->depth--;
    at = claim_at(c, x); /* the list may have moved */
    at->state[not ] = c->unknown ? FRESH : DONE;
    at->cases[not ] = cases;
    c->unknown |= unknown;
    return cases;
}

gram_cases gram_goal_cases(gram_schema *c, gram_goal g) {
    if (gram_failed(c->p)) return (gram_cases){0};
    if (goal_at(c, g)->state == GOAL_DONE) return goal_at(c, g)->cases;
    const bool unknown = c->unknown;
    c->unknown = false;
    goal_at(c, g)->state = GOAL_OPEN;
    const uint32_t off = goal_at(c, g)->off, n = goal_at(c, g)->n;
    gram_cases all = gram_cases_all(c);
    for (uint32_t i = 0; i < n; i++)
        all = gram_cases_both(c, all, gram_claim_cases(c, GRAM_AT(c->goal_claims, gram_claim, off + i)));
    goal_at(c, g)->state = c->unknown ? GOAL_FRESH : GOAL_DONE;
    goal_at(c, g)->cases = all;
    c->unknown |= unknown;
    return all;
}

bool gram_goal_is_empty(gram_schema *c, gram_goal g) {
    if (gram_failed(c->p)) return false;
    const goal *x = goal_at(c, g);
    if (x->state == GOAL_DONE) return x->cases.n == 0;
    if (x->state == GOAL_OPEN || x->doubtful || c->depth > GRAM_SCHEMA_DEPTH / 2) return false;
    const bool unknown = c->unknown;
    c->unknown = false;
    c->probing++;
    c->depth++;
    const gram_cases cases = gram_goal_cases(c, g);
    c->depth--;
    c->probing--;
    const bool empty = cases.n == 0 && !c->unknown && !gram_failed(c->p);
    goal_at(c, g)->doubtful = c->unknown;
    c->unknown = unknown;
    return empty;
}

void gram_cases_free(gram_schema *c) {
    gram_vec_free(c->p, &c->claims, sizeof(claim));
    gram_vec_free(c->p, &c->atoms, sizeof(gram_atom *));
    gram_vec_free(c->p, &c->goals, sizeof(goal));
    gram_vec_free(c->p, &c->goal_claims, sizeof(gram_claim));
    gram_index_free(c->p, &c->claim_index);
    gram_index_free(c->p, &c->atom_index);
    gram_index_free(c->p, &c->goal_index);
}
