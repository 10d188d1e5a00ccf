/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_object.c - the objects of a case.
 *
 * Members of an answer come in one order: declared ones as the schemas list them, then those that are only
 * required, then others. A text that is only read (`loose`) has them in any order, as far as their values are
 * regular. A declared key comes at most once, because no other member may have its name: the key of another
 * member is a string and not one of those (intersection with a complement). Others are sorted by the patterns
 * that their names match, one kind for every set of patterns that some name can match together. */
#include "grammar/gram_json_int.h"

#include <string.h>

enum {
    STATES_MAX = 16384,
    KINDS_MAX = 64,
    KIND_TERMS_MAX = 1 << 15,
    PATTERNS_MAX = 32,
    SOME_MAX = 6,
    UNORDERED_MAX = 128,
    SETS_OF_MAX = 8,
    SETS_MAX = 8192
};

typedef struct {
    const char *key;
    size_t n;
    gram_goal goal;
    bool required;
    uint32_t some; /* a bit for each that it could be */
} member;

/* Other members: those whose names are in `key` (with quotes). */
typedef struct {
    gram_term key;
    gram_goal goal;
    uint32_t some;
} kind;

/* A set of names that tells kinds apart. */
typedef struct {
    const char *pattern; /* or NULL: */
    gram_claim claim;    /* names that meet it */
    gram_term names;
} pattern;

typedef struct {
    gram_schema *c;
    const gram_case *x;
    gram_vec members, kinds;
    pattern patterns[PATTERNS_MAX];
    uint32_t n_patterns;
    gram_goal names;                 /* all of them */
    uint32_t lo, hi;                 /* members */
    const gram_atom *some[SOME_MAX]; /* there must be one */
    uint32_t n_some;
    size_t n_terms; /* before kinds were made */
} object;

static const gram_atom *atom(const object *o, uint32_t i) { return gram_atom_at(o->c, o->x->atoms[i]); }
static const json_t *properties_of(const gram_atom *a) { return json_object_get(a->value, "properties"); }
static const json_t *patterns_of(const gram_atom *a) {
    return json_object_get(a->value, "patternProperties");
}

/* ---- what a member must meet ------------------------------------------------------------------ */

/* Which patterns a name matches; a declared name by trying, an undeclared one by its kind. */
typedef struct {
    const char *name; /* or NULL: */
    size_t n;
    const object *o;
    uint32_t in; /* bits of o->patterns */
} subject;

static bool matches(gram_schema *c, const json_t *schema, const subject *s, const char *p) {
    if (s->name) return gram_pattern_matches(c, schema, p, s->name, s->n);
    for (uint32_t i = 0; i < s->o->n_patterns; i++)
        if (s->o->patterns[i].pattern && strcmp(s->o->patterns[i].pattern, p) == 0) return s->in >> i & 1;
    return false;
}

/* Is a member one of those that an atom's properties and patterns speak of? Adds their claims to *goal (may
 * be NULL). */
static bool spoken_of(gram_schema *c, const gram_atom *a, const subject *s, gram_goal *goal) {
    json_t *x = s->name ? json_object_getn(properties_of(a), s->name, s->n) : NULL;
    const char *p;
    bool there = x != NULL;
    if (x && goal) *goal = gram_goal_with(c, *goal, gram_claim_schema(c, x));
    json_object_foreach((json_t *)patterns_of(a), p, x) {
        if (!matches(c, a->value, s, p)) continue;
        there = true;
        if (goal) *goal = gram_goal_with(c, *goal, gram_claim_schema(c, x));
    }
    return there;
}

static gram_goal goal_of(gram_schema *c, const gram_case *x, const subject *s) {
    gram_goal g = GRAM_ANYTHING;
    for (uint32_t i = 0; i < x->n && !gram_failed(c->p); i++) {
        const gram_atom a = *gram_atom_at(c, x->atoms[i]);
        if (a.kind == ATOM_MEMBER && s->name && a.n == s->n && memcmp(a.text, s->name, s->n) == 0)
            g = gram_goal_with(c, g, a.claim);
        if (a.kind == ATOM_NAMES && s->name &&
            !gram_goal_takes_name(c, gram_goal_with(c, GRAM_ANYTHING, a.claim), s->name, s->n))
            g = gram_goal_with(c, g, gram_claim_never(c));
        if (a.kind != ATOM_MEMBERS) continue;
        bool spared = spoken_of(c, &a, s, &g);
        for (uint32_t k = 0; k < a.n_spared && !spared; k++) {
            const gram_atom other = *gram_atom_at(c, a.spared[k]);
            spared = spoken_of(c, &other, s, NULL);
        }
        if (!spared && a.rest) g = gram_goal_with(c, g, gram_claim_schema(c, a.rest));
    }
    return g;
}

/* Could a member be what ATOM_SOME_MEMBER asks for, by its name? */
static bool could_be(const object *o, const gram_atom *a, const subject *s) {
    if (a->text) return matches(o->c, a->schema, s, a->text);
    if (!a->has_claim) return !spoken_of(o->c, a, s, NULL);
    if (s->name)
        return gram_goal_takes_name(o->c, gram_goal_with(o->c, GRAM_ANYTHING, a->claim), s->name, s->n);
    for (uint32_t i = 0; i < o->n_patterns; i++)
        if (!o->patterns[i].pattern && o->patterns[i].claim == a->claim) return s->in >> i & 1;
    return false;
}

static uint32_t some_of(const object *o, const subject *s) {
    uint32_t bits = 0;
    for (uint32_t k = 0; k < o->n_some; k++) bits |= (uint32_t)could_be(o, o->some[k], s) << k;
    return bits;
}

bool gram_object_is_empty(gram_schema *c, const gram_case *x) {
    uint32_t lo = 0, hi = GRAM_INF, n = 0;
    bool empty = false;
    for (uint32_t i = 0; i < x->n && !empty && !gram_failed(c->p); i++) {
        const gram_atom a = *gram_atom_at(c, x->atoms[i]);
        if (a.kind == ATOM_MIN_MEMBERS && a.lo > lo) lo = a.lo;
        if (a.kind == ATOM_MAX_MEMBERS && a.lo < hi) hi = a.lo;
        if (a.kind != ATOM_HAS) continue;
        const subject s = {.name = a.text, .n = a.n};
        empty = gram_goal_is_empty(c, goal_of(c, x, &s));
        n++;
    }
    return empty || lo > hi || n > hi;
}

/* ---- declared members ------------------------------------------------------------------------- */

static void declare(object *o, const char *key, size_t n, bool required) {
    for (size_t i = 0; i < o->members.n; i++) {
        member *m = &GRAM_AT(o->members, member, i);
        if (m->n != n || memcmp(m->key, key, n) != 0) continue;
        m->required |= required;
        return;
    }
    member *to = gram_vec_room(o->c->p, &o->members, 1, sizeof *to);
    if (!to) return;
    *to = (member){.key = key, .n = n, .required = required};
    o->members.n++;
}

static void add_pattern(object *o, const json_t *schema, const char *text, gram_claim claim) {
    gram_schema *c = o->c;
    for (uint32_t i = 0; i < o->n_patterns; i++) {
        const char *p = o->patterns[i].pattern;
        if (text ? p && strcmp(p, text) == 0 : !p && o->patterns[i].claim == claim) return;
    }
    if (o->n_patterns == PATTERNS_MAX) {
        gram_schema_refuse(c, o->x->n ? atom(o, 0)->schema : c->root, "patternProperties",
                           "of more than 32 patterns is not supported");
        return;
    }
    const gram_term names =
        text ? gram_schema_regex(c, schema, "patternProperties", text, strlen(text), GRAM_IN_JSON)
             : gram_goal_strings(c, gram_goal_with(c, GRAM_ANYTHING, claim));
    o->patterns[o->n_patterns++] = (pattern){text, claim, names};
}

static void add_patterns(object *o, const gram_atom *a) {
    const char *p;
    json_t *x;
    json_object_foreach((json_t *)patterns_of(a), p, x) add_pattern(o, a->value, p, 0);
}

static void read_atom(object *o, gram_atom a) {
    gram_schema *c = o->c;
    const char *key;
    json_t *x;
    size_t n;
    if (a.kind == ATOM_MEMBERS) {
        json_object_keylen_foreach((json_t *)properties_of(&a), key, n, x) declare(o, key, n, false);
        add_patterns(o, &a);
        for (uint32_t k = 0; k < a.n_spared; k++) {
            const gram_atom spared = *gram_atom_at(c, a.spared[k]);
            add_patterns(o, &spared);
        }
    }
    if (a.kind == ATOM_SOME_MEMBER) {
        if (a.text || a.has_claim) add_pattern(o, a.schema, a.text, a.claim);
        add_patterns(o, &a);
        json_object_keylen_foreach((json_t *)properties_of(&a), key, n, x) declare(o, key, n, false);
    }
    if (a.kind == ATOM_NAMES) o->names = gram_goal_with(c, o->names, a.claim);
    if (a.kind == ATOM_MIN_MEMBERS && a.lo > o->lo) o->lo = a.lo;
    if (a.kind == ATOM_MAX_MEMBERS && a.lo < o->hi) o->hi = a.lo;
}

static void read_members(object *o) {
    for (uint32_t i = 0; i < o->x->n && !gram_failed(o->c->p); i++) read_atom(o, *atom(o, i));
    for (uint32_t i = 0; i < o->x->n; i++) {
        const gram_atom a = *atom(o, i);
        if (a.kind == ATOM_HAS || a.kind == ATOM_MEMBER) declare(o, a.text, a.n, a.kind == ATOM_HAS);
        if (a.kind != ATOM_SOME_MEMBER) continue;
        if (o->n_some == SOME_MAX)
            gram_schema_refuse(o->c, a.schema, "not", "of more than 6 schemas of members is not supported");
        else
            o->some[o->n_some++] = atom(o, i);
    }
    size_t m = 0;
    for (size_t i = 0; i < o->members.n && !gram_failed(o->c->p); i++) {
        member x = GRAM_AT(o->members, member, i);
        const subject s = {.name = x.key, .n = x.n, .o = o};
        x.goal = goal_of(o->c, o->x, &s);
        x.some = some_of(o, &s);
        GRAM_AT(o->members, member, m++) = x; /* also one that cannot be there: no other may have its name */
    }
}

/* ---- other members ---------------------------------------------------------------------------- */

/* Names without quotes that no declared member has. */
static gram_term other_names(const object *o) {
    gram_pool *p = o->c->p;
    const size_t base = p->scratch.n;
    for (size_t i = 0; i < o->members.n; i++) {
        const member *m = &GRAM_AT(o->members, member, i);
        const gram_term t = gram_text(p, m->key, m->n, GRAM_IN_JSON);
        gram_vec_push_u32(p, &p->scratch, t);
    }
    const gram_term taken = gram_alt_list(p, base);
    if (o->names == GRAM_ANYTHING && taken == GRAM_EMPTY && o->n_patterns == 0)
        return gram_rep(p, gram_any_char(p, GRAM_IN_JSON), 0, GRAM_INF);
    const gram_term all = gram_canonical_strings(p, 0, GRAM_INF);
    const gram_term some = o->names == GRAM_ANYTHING ? all : gram_goal_strings(o->c, o->names);
    return taken == GRAM_EMPTY ? some : gram_and(p, some, gram_not(p, taken));
}

/* The closing quote is part of what is complemented and cut, so that what is left after a key is never in
 * doubt. */
static gram_term closed(gram_pool *p, gram_term names) { return gram_cat(p, names, gram_byte(p, '"', '"')); }

static void add_kinds(object *o, gram_term names, uint32_t from, uint32_t in) {
    gram_schema *c = o->c;
    gram_pool *p = c->p;
    if (gram_failed(p) || (o->n_patterns && gram_is_empty(p, names))) return;
    if (p->nodes.n - o->n_terms > KIND_TERMS_MAX)
        return gram_schema_refuse(c, c->root, "patternProperties", "overlap in more ways than are supported");
    if (from < o->n_patterns) {
        const gram_term set = o->patterns[from].names;
        add_kinds(o, gram_and(p, names, set), from + 1, in | 1u << from);
        add_kinds(o, gram_and(p, names, gram_not(p, set)), from + 1, in);
        return;
    }
    const subject s = {.o = o, .in = in};
    const gram_goal goal = goal_of(c, o->x, &s);
    if (gram_goal_is_empty(c, goal)) return;
    if (o->kinds.n == KINDS_MAX)
        gram_schema_refuse(c, c->root, "patternProperties", "overlap in more ways than are supported");
    kind *to = gram_vec_room(p, &o->kinds, 1, sizeof *to);
    if (!to) return;
    const gram_term key = gram_cat(p, gram_byte(p, '"', '"'), closed(p, names));
    *to = (kind){key, goal, some_of(o, &s)};
    o->kinds.n++;
}

/* ---- one after the other ---------------------------------------------------------------------- */

static gram_sym pair_of(gram_schema *c, gram_term key, gram_goal goal) {
    const gram_sym all[] = {key, gram_colon(c->p, c->loose), gram_goal_symbol(c, goal)};
    return gram_seq(c->r, all, 3);
}

/* A goal, and what the chosen ones of `some` ask for. */
static gram_goal chosen_goal(const object *o, gram_goal g, uint32_t chosen) {
    for (uint32_t k = 0; k < o->n_some; k++)
        if (chosen >> k & 1 && !o->some[k]->has_claim) g = gram_goal_with(o->c, g, o->some[k]->rest_claim);
    return g;
}

/* States: members read, up to the last number that matters, and which of `some` were there. */
typedef struct {
    const object *o;
    uint32_t n_counts, n_sets;
    gram_sym *next,
        *here; /* [n_counts * n_sets]: what follows a declared member, and what follows the one before it */
} walk;

static gram_sym *at(const walk *w, gram_sym *l, uint32_t count, uint32_t set) {
    return &l[count * w->n_sets + set];
}
static uint32_t one_more(const walk *w, uint32_t count) {
    return count + 1 < w->n_counts ? count + 1 : count;
}

/* May another member follow `count` of them? */
static bool has_room(const walk *w, uint32_t count) { return w->o->hi == GRAM_INF || count < w->o->hi; }

/* Other members from a state on: the last count comes again and again. */
static gram_sym others(walk *w, uint32_t count, uint32_t set) {
    const object *o = w->o;
    gram_schema *c = o->c;
    const gram_sym comma = count ? gram_comma(c->p, c->loose) : GRAM_EPS;
    gram_sym all = count >= o->lo && set == w->n_sets - 1 ? GRAM_EPS : GRAM_EMPTY, again = GRAM_EMPTY;
    for (size_t i = 0; i < o->kinds.n && has_room(w, count); i++) {
        const kind k = GRAM_AT(o->kinds, kind, i);
        const uint32_t open = k.some & ~set;
        for (uint32_t chosen = open;; chosen = (chosen - 1) & open) {
            const gram_sym one =
                gram_seq(c->r, (gram_sym[]){comma, pair_of(c, k.key, chosen_goal(o, k.goal, chosen))}, 2);
            if (chosen == 0 && one_more(w, count) == count)
                again = gram_or(c, again, one);
            else
                all = gram_or(
                    c, all,
                    gram_seq(c->r, (gram_sym[]){one, *at(w, w->next, one_more(w, count), set | chosen)}, 2));
            if (chosen == 0 || gram_failed(c->p)) break;
        }
    }
    if (again == GRAM_EMPTY) return all;
    return gram_seq(c->r, (gram_sym[]){gram_repeat(c->r, again, 0, GRAM_INF), all}, 2);
}

static gram_sym declared(walk *w, const member *m, gram_term key, uint32_t count, uint32_t set) {
    gram_schema *c = w->o->c;
    gram_sym all = m->required ? GRAM_EMPTY : *at(w, w->next, count, set);
    const uint32_t open = m->some & ~set;
    if (!has_room(w, count) || gram_goal_is_empty(c, m->goal)) return all;
    for (uint32_t chosen = open;; chosen = (chosen - 1) & open) {
        const gram_sym follow = *at(w, w->next, one_more(w, count), set | chosen);
        if (follow != GRAM_EMPTY) {
            const gram_sym one[] = {count ? gram_comma(c->p, c->loose) : GRAM_EPS,
                                    pair_of(c, key, chosen_goal(w->o, m->goal, chosen)), follow};
            all = gram_or(c, all, gram_seq(c->r, one, 3));
        }
        if (chosen == 0 || gram_failed(c->p)) return all;
    }
}

/* From the last member to the first; what cannot be reached (more members than there were) is made all the
 * same. */
static gram_sym walk_members(walk *w) {
    const object *o = w->o;
    gram_schema *c = o->c;
    for (uint32_t count = w->n_counts; count-- > 0;)
        for (uint32_t set = w->n_sets; set-- > 0;) *at(w, w->next, count, set) = others(w, count, set);
    for (size_t i = o->members.n; i-- > 0 && !gram_failed(c->p);) {
        const member *m = &GRAM_AT(o->members, member, i);
        const gram_term key = gram_quoted(c->p, gram_text(c->p, m->key, m->n, GRAM_IN_JSON));
        for (uint32_t count = 0; count < w->n_counts && count <= i + 1; count++)
            for (uint32_t set = 0; set < w->n_sets; set++)
                *at(w, w->here, count, set) = declared(w, m, key, count, set);
        gram_sym *swap = w->here;
        w->here = w->next;
        w->next = swap;
    }
    return gram_failed(c->p) ? GRAM_EMPTY : *at(w, w->next, 0, 0);
}

/* A map: one kind of member, as often as is said. */
static gram_sym map(const object *o) {
    gram_schema *c = o->c;
    const kind k = GRAM_AT(o->kinds, kind, 0);
    const gram_sym one = pair_of(c, k.key, k.goal);
    const gram_sym more = gram_seq(c->r, (gram_sym[]){gram_comma(c->p, c->loose), one}, 2);
    const uint32_t lo = o->lo ? o->lo - 1 : 0, hi = o->hi == GRAM_INF ? GRAM_INF : o->hi - 1;
    const gram_sym all = gram_seq(c->r, (gram_sym[]){one, gram_repeat(c->r, more, lo, hi)}, 2);
    return o->lo ? all : gram_or(c, all, GRAM_EPS);
}

static gram_sym inside(object *o) {
    gram_schema *c = o->c;
    uint32_t n_required = 0;
    for (size_t i = 0; i < o->members.n; i++) n_required += GRAM_AT(o->members, member, i).required;
    if (o->lo <= n_required) o->lo = 0;
    if (o->kinds.n == 0 && o->hi >= o->members.n) o->hi = GRAM_INF;
    if (o->members.n == 0 && o->n_some == 0 && o->hi > 0 && o->kinds.n == 1) return map(o);
    /* Counts to 1, for the comma, or as far as is said. */
    const uint64_t n_counts = 1 + (uint64_t)(o->hi != GRAM_INF ? o->hi : o->lo ? o->lo : 1);
    const uint64_t n = n_counts << o->n_some;
    if (n * (o->members.n + 1) > STATES_MAX) {
        gram_schema_refuse(c, o->x->n ? atom(o, 0)->schema : c->root,
                           o->hi != GRAM_INF ? "maxProperties" : "minProperties",
                           "with so many declared properties is not supported");
        return GRAM_EMPTY;
    }
    walk w = {o, (uint32_t)n_counts, 1u << o->n_some, gram_schema_alloc(c, n * sizeof(gram_sym)),
              gram_schema_alloc(c, n * sizeof(gram_sym))};
    return w.next && w.here ? walk_members(&w) : GRAM_EMPTY;
}

/* ---- in any order ----------------------------------------------------------------------------- */

/* All pairs as terms, required members first; false: one of them is not regular. Members that cannot be are
 * left out. */
static bool pair_terms(const object *o, gram_vec *out, uint32_t *n_required, uint32_t *n_once) {
    gram_schema *c = o->c;
    *n_required = *n_once = 0;
    for (int required = 1; required >= 0; required--)
        for (size_t i = 0; i < o->members.n; i++) {
            const member *m = &GRAM_AT(o->members, member, i);
            if (m->required != required || gram_goal_is_empty(c, m->goal)) continue;
            const gram_sym s =
                pair_of(c, gram_quoted(c->p, gram_text(c->p, m->key, m->n, GRAM_IN_JSON)), m->goal);
            if (s & GRAM_NT || !gram_vec_push_u32(c->p, out, s)) return false;
            *n_required += (uint32_t)required;
            ++*n_once;
        }
    for (size_t i = 0; i < o->kinds.n; i++) {
        const kind k = GRAM_AT(o->kinds, kind, i);
        const gram_sym s = pair_of(c, k.key, k.goal);
        if (s & GRAM_NT || !gram_vec_push_u32(c->p, out, s)) return false;
    }
    return true;
}

/* A member that is what `some` number k asks for. */
static gram_sym asked_for(const object *o, uint32_t k) {
    gram_schema *c = o->c;
    gram_sym any = GRAM_EMPTY;
    for (size_t i = 0; i < o->members.n; i++) {
        const member *m = &GRAM_AT(o->members, member, i);
        if (!(m->some >> k & 1)) continue;
        const gram_term key = gram_quoted(c->p, gram_text(c->p, m->key, m->n, GRAM_IN_JSON));
        any = gram_or(c, any, pair_of(c, key, chosen_goal(o, m->goal, 1u << k)));
    }
    for (size_t i = 0; i < o->kinds.n; i++) {
        const kind x = GRAM_AT(o->kinds, kind, i);
        if (x.some >> k & 1) any = gram_or(c, any, pair_of(c, x.key, chosen_goal(o, x.goal, 1u << k)));
    }
    return any;
}

/* The members in any order, or GRAM_NONE where that is not regular or too much. */
static gram_sym unordered(const object *o) {
    gram_schema *c = o->c;
    gram_pool *p = c->p;
    gram_vec pairs = {0};
    uint32_t n_required, n_once, n_there = 0;
    gram_sym all = GRAM_NONE;
    for (size_t i = 0; i < o->members.n; i++) n_there += GRAM_AT(o->members, member, i).required;
    if (o->members.n <= UNORDERED_MAX && pair_terms(o, &pairs, &n_required, &n_once)) {
        const gram_term comma = gram_comma(p, true);
        all = n_required < n_there
                  ? GRAM_EMPTY
                  : gram_members(p, comma, pairs.p, n_required, n_once, (uint32_t)pairs.n, o->lo, o->hi);
        gram_term any = GRAM_EMPTY;
        for (size_t i = 0; i < pairs.n && o->n_some; i++)
            any = gram_alt(p, any, GRAM_AT(pairs, gram_term, i));
        for (uint32_t k = 0; k < o->n_some && all != GRAM_NONE; k++) {
            const gram_sym one = asked_for(o, k);
            if (one & GRAM_NT) {
                all = GRAM_NONE;
                break;
            }
            const gram_term before = gram_rep(p, gram_cat(p, any, comma), 0, GRAM_INF),
                            after = gram_rep(p, gram_cat(p, comma, any), 0, GRAM_INF);
            all = gram_and(p, all, gram_cat(p, before, gram_cat(p, one, after)));
        }
    }
    gram_vec_free(p, &pairs, sizeof(gram_term));
    return all;
}

static gram_sym pair_at(const object *o, size_t i) {
    const member m = GRAM_AT(o->members, member, i);
    return pair_of(o->c, gram_quoted(o->c->p, gram_text(o->c->p, m.key, m.n, GRAM_IN_JSON)), m.goal);
}

static bool may_end(const object *o, uint32_t set) {
    for (size_t i = 0; i < o->members.n; i++)
        if (GRAM_AT(o->members, member, i).required && !(set >> i & 1)) return false;
    return true;
}

/* What may follow the members of a set, which come before anything else or behind `lead`. made [2^n]. */
static gram_sym after_set(const object *o, gram_sym *made, uint32_t set, gram_term lead) {
    gram_schema *c = o->c;
    const bool first = lead == GRAM_EPS;
    if ((!first && made[set] != GRAM_NONE) || gram_failed(c->p)) return made[set];
    gram_sym all = may_end(o, set) ? GRAM_EPS : GRAM_EMPTY, others = GRAM_EMPTY;
    const gram_term comma = gram_comma(c->p, true);
    for (uint32_t i = 0; i < o->members.n; i++) {
        if (set >> i & 1 || gram_goal_is_empty(c, GRAM_AT(o->members, member, i).goal)) continue;
        const gram_sym next = after_set(o, made, set | 1u << i, comma);
        all = gram_or(c, all, gram_seq(c->r, (gram_sym[]){lead, pair_at(o, i), next}, 3));
    }
    for (size_t i = 0; i < o->kinds.n; i++)
        others =
            gram_or(c, others, pair_of(c, GRAM_AT(o->kinds, kind, i).key, GRAM_AT(o->kinds, kind, i).goal));
    if (first) /* then another member comes first, and what follows it */
        return gram_or(c, all, gram_seq(c->r, (gram_sym[]){others, after_set(o, made, set, comma)}, 2));
    const gram_sym again = gram_repeat(c->r, gram_seq(c->r, (gram_sym[]){lead, others}, 2), 0, GRAM_INF);
    made[set] = gram_seq(c->r, (gram_sym[]){again, all}, 2);
    return made[set];
}

/* Any order set by set, where members are few and some are not regular; GRAM_NONE: it would be too much. */
static gram_sym unordered_sets(const object *o) {
    gram_schema *c = o->c;
    const size_t n = o->members.n, n_sets = n > SETS_OF_MAX ? 0 : (size_t)1 << n;
    if (n_sets == 0 || o->n_some || o->lo || o->hi != GRAM_INF || c->sets + n_sets * n > SETS_MAX)
        return GRAM_NONE;
    c->sets += (uint32_t)(n_sets * n);
    gram_sym *made = gram_schema_alloc(c, n_sets * sizeof *made);
    if (!made) return GRAM_EMPTY;
    memset(made, 0xFF, n_sets * sizeof *made);
    return after_set(o, made, 0, GRAM_EPS);
}

gram_sym gram_schema_object(gram_schema *c, const gram_case *x) {
    gram_pool *p = c->p;
    object o = {.c = c, .x = x, .hi = GRAM_INF};
    gram_sym result = GRAM_EMPTY;
    read_members(&o);
    if (!gram_failed(p)) {
        const gram_term names = other_names(&o);
        o.n_terms = p->nodes.n;
        add_kinds(&o, names, 0, 0);
    }
    if (!gram_failed(p) && o.lo <= o.hi) {
        const gram_term space = gram_space_inside(p, c->loose);
        gram_sym body = c->loose ? unordered(&o) : GRAM_NONE;
        if (c->loose && body == GRAM_NONE) body = unordered_sets(&o);
        if (body == GRAM_NONE) body = inside(&o);
        const gram_sym all[] = {gram_from_literal(p, "{"), space, body, space, gram_from_literal(p, "}")};
        result = gram_seq(c->r, all, SQ_COUNT(all));
    }
    gram_vec_free(p, &o.members, sizeof(member));
    gram_vec_free(p, &o.kinds, sizeof(kind));
    return result;
}
