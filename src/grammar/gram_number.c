/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_number.c - numbers between bounds, digit by digit. */
#include "grammar/gram_int.h"

#include <stdio.h>
#include <string.h>

static gram_term digit(gram_pool *p, char lo, char hi) { return gram_byte(p, (uint8_t)lo, (uint8_t)hi); }
static gram_term digits(gram_pool *p, uint32_t lo, uint32_t hi) {
    return gram_rep(p, digit(p, '0', '9'), lo, hi);
}

/* Numbers of n digits from a to b, both written with n digits, a <= b. */
static gram_term between(gram_pool *p, const char *a, const char *b, uint32_t n) {
    static const char nines[] = "99999999999999999999", zeros[] = "00000000000000000000";
    if (n == 0) return GRAM_EPS;
    if (*a == *b) return gram_cat(p, digit(p, *a, *a), between(p, a + 1, b + 1, n - 1));
    gram_term t = gram_cat(p, digit(p, *a, *a), between(p, a + 1, nines, n - 1));
    t = gram_alt(p, t, gram_cat(p, digit(p, *b, *b), between(p, zeros, b + 1, n - 1)));
    if (*b - *a < 2) return t;
    return gram_alt(p, t, gram_cat(p, digit(p, (char)(*a + 1), (char)(*b - 1)), digits(p, n - 1, n - 1)));
}

static gram_term of_length(gram_pool *p, uint32_t lo, uint32_t hi) {
    return gram_cat(p, digit(p, '1', '9'), digits(p, lo - 1, hi == GRAM_INF ? GRAM_INF : hi - 1));
}

/* lo to hi without a sign; has_hi false: no end. */
static gram_term natural(gram_pool *p, uint64_t lo, bool has_hi, uint64_t hi) {
    char a[24], b[24];
    const uint32_t n = (uint32_t)snprintf(a, sizeof a, "%llu", (unsigned long long)lo);
    static const char nines[] = "99999999999999999999";
    if (has_hi && hi < lo) return GRAM_EMPTY;
    const uint32_t m = (uint32_t)snprintf(b, sizeof b, "%llu", (unsigned long long)hi);
    if (has_hi && m == n) return between(p, a, b, n);
    gram_term t = between(p, a, nines, n);
    if (!has_hi) return gram_alt(p, t, of_length(p, n + 1, GRAM_INF));
    char one[24] = "1";
    memset(one + 1, '0', sizeof one - 2);
    t = gram_alt(p, t, between(p, one, b, m));
    return m > n + 1 ? gram_alt(p, t, of_length(p, n + 1, m - 1)) : t;
}

gram_term gram_integer_range(gram_pool *p, bool has_lo, int64_t lo, bool has_hi, int64_t hi) {
    gram_term t = GRAM_EMPTY;
    if (has_lo && has_hi && hi < lo) return GRAM_EMPTY;
    if (!has_hi || hi >= 0)
        t = natural(p, has_lo && lo > 0 ? (uint64_t)lo : 0, has_hi, has_hi ? (uint64_t)hi : 0);
    if (has_lo && lo >= 0) return t;
    /* Below zero: the mirrored range. "-0" is written by nobody, and left out. */
    const uint64_t from = has_hi && hi < 0 ? (uint64_t)0 - (uint64_t)hi : 1;
    const uint64_t to = has_lo ? (uint64_t)0 - (uint64_t)lo : 0;
    return gram_alt(p, t, gram_cat(p, digit(p, '-', '-'), natural(p, from, has_lo, to)));
}

/* x from lo to hi, both at least 0, with a fraction or without. */
static gram_term positive(gram_pool *p, const gram_bound *lo, const gram_bound *hi) {
    const gram_term dot = digit(p, '.', '.'), zeros = gram_rep(p, digit(p, '0', '0'), 1, GRAM_INF);
    const gram_term none = gram_opt(p, gram_cat(p, dot, zeros));
    const gram_term some = gram_cat(
        p, dot, gram_cat(p, digits(p, 0, GRAM_INF), gram_cat(p, digit(p, '1', '9'), digits(p, 0, GRAM_INF))));
    const uint64_t a = (uint64_t)lo->value, b = hi->there ? (uint64_t)hi->value : 0;
    const gram_term at_lo = natural(p, a, true, a), at_hi = hi->there ? natural(p, b, true, b) : GRAM_EMPTY;
    gram_term t = GRAM_EMPTY;
    if (hi->there && (b < a || (a == b && (lo->open || hi->open)))) return GRAM_EMPTY;
    if (hi->there && a == b) return gram_cat(p, at_lo, none);
    t = gram_cat(p, at_lo, lo->open ? some : gram_alt(p, none, some));
    if (!hi->there || a + 1 < b)
        t = gram_alt(p, t, gram_cat(p, natural(p, a + 1, hi->there, b - 1), gram_alt(p, none, some)));
    return hi->open ? t : gram_alt(p, t, gram_cat(p, at_hi, none));
}

gram_term gram_number_range(gram_pool *p, const gram_bound *lo, const gram_bound *hi) {
    const gram_bound zero = {.there = true}, none = {.there = false};
    gram_term t = GRAM_EMPTY;
    if (!lo->there && !hi->there) return gram_json_number(p);
    if (!hi->there || hi->value >= 0) t = positive(p, lo->there && lo->value >= 0 ? lo : &zero, hi);
    if (lo->there && lo->value >= 0) return t;
    /* Below zero: the mirror image. */
    const gram_bound a = {
        .there = true, .open = hi->open, .value = hi->there && hi->value < 0 ? -hi->value : 0};
    const gram_bound b = {.there = true, .open = lo->open, .value = -lo->value};
    const gram_bound from = hi->there && hi->value <= 0 ? a : zero;
    return gram_alt(p, t, gram_cat(p, digit(p, '-', '-'), positive(p, &from, lo->there ? &b : &none)));
}

gram_term gram_json_number(gram_pool *p) {
    const gram_term whole = gram_alt(p, digit(p, '0', '0'), of_length(p, 1, GRAM_INF));
    const gram_term fraction = gram_cat(p, digit(p, '.', '.'), digits(p, 1, GRAM_INF));
    const gram_term e = gram_alt(p, digit(p, 'e', 'e'), digit(p, 'E', 'E'));
    const gram_term sign = gram_alt(p, digit(p, '+', '+'), digit(p, '-', '-'));
    const gram_term exponent = gram_cat(p, e, gram_cat(p, gram_opt(p, sign), digits(p, 1, GRAM_INF)));
    return gram_cat(p, gram_opt(p, digit(p, '-', '-')),
                    gram_cat(p, whole, gram_cat(p, gram_opt(p, fraction), gram_opt(p, exponent))));
}
