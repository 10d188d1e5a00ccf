/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_symbolic.c - terms that stand for automata too large to be written down: multiples of a number, and
 * members in any order. Only the derivatives that a text comes to are made.
 *
 * The derivative of members in any order is a sum: one of them has begun, and the others may follow (as RELAX
 * NG validators interleave, Clark 2002). */
#include "grammar/gram_int.h"

#include <string.h>

/* ---- multiples -------------------------------------------------------------------------------- */

/* a: the modulus. b: what the digits so far leave. lo: digits of the fraction that may still be other than 0.
 * hi: digits that may still come before the point, doubled, and 1 behind the point. A number of fewer digits
 * is one with zeros behind it. */
enum { ENDLESS = INT32_MAX };

/* Is there a multiple with at most so many digits more before and behind the point? As soon as these make
 * more numbers than the modulus, one of them is it. */
static bool can_end(uint32_t modulus, uint32_t residue, uint32_t whole, uint32_t fraction) {
    uint64_t power = 1;
    for (uint32_t i = 0; i < fraction && power < modulus; i++) power *= 10;
    for (uint32_t i = 0; i <= whole && power < modulus; i++, power *= 10)
        if ((modulus - residue * power % modulus) % modulus < power) return true;
    return power >= modulus;
}

static gram_term multiple(gram_pool *p, uint32_t modulus, uint32_t residue, uint32_t whole, uint32_t left,
                          bool fraction) {
    if (!can_end(modulus, residue, fraction ? 0 : whole, left)) return GRAM_EMPTY;
    uint64_t r = residue;
    for (uint32_t i = 0; i < left && r; i++) r = r * 10 % modulus;
    const gram_node x = {.kind = TERM_MOD,
                         .a = modulus,
                         .b = residue,
                         .lo = left,
                         .hi = whole << 1 | fraction,
                         .nullable = r == 0,
                         .logic = true};
    return gram_intern(p, x, NULL);
}

gram_term gram_multiple(gram_pool *p, uint32_t modulus, uint32_t fraction_digits, uint32_t whole_digits) {
    for (uint8_t b = '.'; b <= '9'; b++) gram_byte(p, b, b); /* each digit is a class of its own */
    return multiple(p, modulus, 0, whole_digits < ENDLESS ? whole_digits : ENDLESS, fraction_digits, false);
}

gram_term gram_derive_multiple(gram_pool *p, const gram_node *x, uint8_t byte) {
    const bool fraction = x->hi & 1;
    const uint32_t whole = x->hi >> 1;
    if (byte == '.') return fraction ? GRAM_EMPTY : multiple(p, x->a, x->b, 0, x->lo, true);
    if (byte < '0' || byte > '9' || (!fraction && whole == 0)) return GRAM_EMPTY;
    if (fraction && x->lo == 0) return byte == '0' ? multiple(p, x->a, x->b, 0, 0, true) : GRAM_EMPTY;
    const uint64_t r = ((uint64_t)x->b * 10 + byte - '0') % x->a;
    if (fraction) return multiple(p, x->a, (uint32_t)r, 0, x->lo - 1, true);
    return multiple(p, x->a, (uint32_t)r, whole == ENDLESS ? ENDLESS : whole - 1, x->lo, false);
}

/* ---- members in any order --------------------------------------------------------------------- */

/* Kids: separator, n_required, n_once, then the members. b: how many kids. */
enum { SEPARATOR, N_REQUIRED, N_ONCE, FIRST };

gram_term gram_members(gram_pool *p, gram_term separator, const gram_term *members, uint32_t n_required,
                       uint32_t n_once, uint32_t n, uint32_t lo, uint32_t hi) {
    if (lo < n_required) lo = n_required;
    const bool endless = n > n_once;
    if (!endless && hi >= n) hi = GRAM_INF;
    if (lo > hi || (!endless && lo > n)) return GRAM_EMPTY;
    if (n == 0 || hi == 0) return GRAM_EPS;
    gram_vec list = {0};
    uint32_t *l = gram_vec_room(p, &list, FIRST + n, sizeof *l);
    if (!l) return GRAM_EMPTY;
    l[SEPARATOR] = separator, l[N_REQUIRED] = n_required, l[N_ONCE] = n_once;
    memcpy(l + FIRST, members, n * sizeof *l);
    /* Searched where a member may match nothing, which costs nothing where none does. */
    const gram_node x = {
        .kind = TERM_ALL, .b = FIRST + n, .lo = lo, .hi = hi, .nullable = lo == 0, .logic = true};
    const gram_term t = gram_intern(p, x, l);
    gram_vec_free(p, &list, sizeof *l);
    return t;
}

static const uint32_t *kids_of(const gram_pool *p, const gram_node *x) {
    return &GRAM_AT(p->kids, uint32_t, x->a);
}

/* What may follow member i: the end, or a separator and one of the others. */
static gram_term rest_after(gram_pool *p, const gram_node *x, uint32_t i) {
    const uint32_t *k = kids_of(p, x), n = x->b - FIRST;
    const uint32_t n_required = k[N_REQUIRED], n_once = k[N_ONCE], separator = k[SEPARATOR];
    const uint32_t required = i < n_required, once = i < n_once;
    const uint32_t lo = x->lo ? x->lo - 1 : 0, hi = x->hi == GRAM_INF ? GRAM_INF : x->hi - 1;
    gram_vec list = {0};
    uint32_t *l = gram_vec_room(p, &list, n, sizeof *l);
    if (!l) return GRAM_EMPTY;
    k = kids_of(p, x) + FIRST;
    memcpy(l, k, i * sizeof *l);
    memcpy(l + i, k + i + once, (n - i - once) * sizeof *l);
    const bool may_end = lo == 0 && n_required - required == 0;
    const gram_term more = hi == 0 ? GRAM_EMPTY
                                   : gram_members(p, separator, l, n_required - required, n_once - once,
                                                  n - once, lo ? lo : 1, hi);
    gram_vec_free(p, &list, sizeof *l);
    const gram_term further = more == GRAM_EPS ? GRAM_EMPTY : gram_cat(p, separator, more);
    return may_end ? gram_alt(p, further, GRAM_EPS) : further;
}

gram_term gram_derive_members(gram_pool *p, const gram_node *x, uint8_t byte) {
    const size_t base = p->scratch.n;
    for (uint32_t i = 0; i + FIRST < x->b; i++) {
        const gram_term d = gram_derive(p, kids_of(p, x)[FIRST + i], byte);
        if (d == GRAM_EMPTY) continue;
        const gram_term t = gram_cat(p, d, rest_after(p, x, i));
        gram_vec_push_u32(p, &p->scratch, t);
    }
    return gram_alt_list(p, base);
}

bool gram_members_match(gram_pool *p, const gram_node *x) {
    const uint32_t n = x->b - FIRST, n_required = kids_of(p, x)[N_REQUIRED], n_once = kids_of(p, x)[N_ONCE];
    uint32_t alive = 0;
    bool endless = false;
    for (uint32_t i = 0; i < n; i++) {
        const bool matches = gram_matches_something(p, kids_of(p, x)[FIRST + i]);
        if (i < n_required && !matches) return false;
        alive += matches;
        endless |= matches && i >= n_once;
    }
    return endless || alive >= x->lo;
}
