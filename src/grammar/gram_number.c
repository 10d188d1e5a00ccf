/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_number.c - numbers between bounds, digit by digit. */
#include "grammar/gram_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static gram_term digit(gram_pool *p, char lo, char hi) { return gram_byte(p, (uint8_t)lo, (uint8_t)hi); }
/* Without an end (hi GRAM_INF) they still have one where a model writes, which might go on for ever. */
static gram_term digits(gram_pool *p, uint32_t lo, uint32_t hi) {
    if (hi == GRAM_INF && p->digits_max != GRAM_INF) hi = lo + p->digits_max;
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

/* ---- decimals --------------------------------------------------------------------------------- */

bool gram_decimal_read(gram_decimal *d, const char *text) {
    char all[GRAM_DIGITS_MAX];
    long n = 0, point = -1, exponent = 0;
    *d = (gram_decimal){.negative = *text == '-'};
    for (const char *s = text + d->negative; *s; s++) {
        if (*s == '.') {
            point = n;
        } else if (*s == 'e' || *s == 'E') {
            exponent = strtol(s + 1, NULL, 10);
            break;
        } else if (n == GRAM_DIGITS_MAX) {
            return false;
        } else {
            all[n++] = *s;
        }
    }
    point = (point < 0 ? n : point) + exponent; /* digits before it */
    long from = 0;
    while (from < n && all[from] == '0') from++;
    while (n > from && all[n - 1] == '0') n--;
    if (from == n) return d->digits[0] = '0', d->n_whole = 1, d->negative = false, true;
    const long lead = point > from ? point - from : 1, zeros = point < from ? from - point : 0;
    const long fraction = n > point ? n - (point > from ? point : from) + zeros : 0;
    if (lead + fraction > GRAM_DIGITS_MAX) return false;
    d->n_whole = (uint32_t)lead;
    d->n_fraction = (uint32_t)fraction;
    for (long i = 0; i < lead + fraction; i++) {
        const long at =
            point > from ? from + i : point - 1 + i; /* in all; before its beginning and past its end zeros */
        d->digits[i] = at >= from && at < n ? all[at] : '0';
    }
    return true;
}

static gram_term some_fraction(gram_pool *p) { /* not only zeros, the point is read */
    const gram_term zeros = gram_rep(p, digit(p, '0', '0'), 0, p->digits_max);
    return gram_cat(p, zeros, gram_cat(p, digit(p, '1', '9'), digits(p, 0, GRAM_INF)));
}
static gram_term point_and(gram_pool *p, gram_term t) { return gram_cat(p, digit(p, '.', '.'), t); }
static gram_term any_fraction(gram_pool *p) { return gram_opt(p, point_and(p, digits(p, 1, GRAM_INF))); }
static gram_term whole_part(gram_pool *p) {
    return gram_alt(p, digit(p, '0', '0'), of_length(p, 1, GRAM_INF));
}

static gram_term some_digit(gram_pool *p, int lo, int hi) {
    return lo > hi ? GRAM_EMPTY : digit(p, (char)lo, (char)hi);
}

/* From the last digit to the first: t is what may follow digit i where all up to it were those of d. */
static gram_term at_least(gram_pool *p, const gram_decimal *d, bool open) {
    const uint32_t n = d->n_whole, m = d->n_fraction;
    const char *f = d->digits + n;
    gram_term t = open ? some_fraction(p) : digits(p, 0, GRAM_INF);
    for (uint32_t i = m; i-- > 0;)
        t = gram_alt(p, gram_cat(p, some_digit(p, f[i] + 1, '9'), digits(p, 0, GRAM_INF)),
                     gram_cat(p, digit(p, f[i], f[i]), t));
    t = m ? point_and(p, t) : open ? point_and(p, some_fraction(p)) : any_fraction(p);
    for (uint32_t i = n; i-- > 0;) {
        const gram_term rest = gram_cat(p, digits(p, n - i - 1, n - i - 1), any_fraction(p));
        t = gram_alt(p, gram_cat(p, some_digit(p, d->digits[i] + 1, '9'), rest),
                     gram_cat(p, digit(p, d->digits[i], d->digits[i]), t));
    }
    return gram_alt(p, t, gram_cat(p, of_length(p, n + 1, GRAM_INF), any_fraction(p)));
}

static gram_term at_most(gram_pool *p, const gram_decimal *d, bool open) {
    const uint32_t n = d->n_whole, m = d->n_fraction;
    const char *f = d->digits + n;
    gram_term t = open ? GRAM_EMPTY : gram_rep(p, digit(p, '0', '0'), 0, GRAM_INF);
    for (uint32_t i = m; i-- > 0;) {
        const gram_term same = i + 1 < m ? gram_opt(p, t) : t; /* to end early is to be less */
        t = gram_alt(p, gram_cat(p, some_digit(p, '0', f[i] - 1), digits(p, 0, GRAM_INF)),
                     gram_cat(p, digit(p, f[i], f[i]), same));
    }
    if (m)
        t = gram_opt(p, point_and(p, t));
    else if (!open)
        t = gram_opt(p, point_and(p, gram_rep(p, digit(p, '0', '0'), 1, GRAM_INF)));
    for (uint32_t i = n; i-- > 0;) {
        const gram_term rest = gram_cat(p, digits(p, n - i - 1, n - i - 1), any_fraction(p));
        t = gram_alt(p, gram_cat(p, some_digit(p, i == 0 && n > 1 ? '1' : '0', d->digits[i] - 1), rest),
                     gram_cat(p, digit(p, d->digits[i], d->digits[i]), t));
    }
    if (n == 1) return t;
    const gram_term shorter = gram_alt(p, digit(p, '0', '0'), of_length(p, 1, n - 1));
    return gram_alt(p, t, gram_cat(p, shorter, any_fraction(p)));
}

static bool is_zero(const gram_decimal *d) {
    return d->n_whole == 1 && d->digits[0] == '0' && d->n_fraction == 0;
}

/* Magnitudes between two bounds, none of them below zero. */
static gram_term magnitudes(gram_pool *p, const gram_bound *lo, const gram_bound *hi) {
    const bool low = lo->there && (lo->open || !is_zero(&lo->at));
    if (!low && !hi->there) return gram_cat(p, whole_part(p), any_fraction(p));
    const gram_term a = low ? at_least(p, &lo->at, lo->open) : GRAM_EMPTY;
    const gram_term b = hi->there ? at_most(p, &hi->at, hi->open) : GRAM_EMPTY;
    return !low ? b : !hi->there ? a : gram_and(p, a, b);
}

gram_term gram_number_range(gram_pool *p, const gram_bound *lo, const gram_bound *hi) {
    const gram_bound zero = {.there = true, .at = {.n_whole = 1, .digits = "0"}};
    gram_bound above_zero = zero;
    above_zero.open = true; /* "-0" is written by nobody */
    const bool only_negative = hi->there && (hi->at.negative || (is_zero(&hi->at) && hi->open));
    gram_term t = only_negative ? GRAM_EMPTY : magnitudes(p, lo->there && !lo->at.negative ? lo : &zero, hi);
    if (lo->there && !lo->at.negative) return t;
    const gram_bound *from = hi->there && hi->at.negative ? hi : &above_zero;
    return gram_alt(p, t, gram_cat(p, digit(p, '-', '-'), magnitudes(p, from, lo)));
}

gram_term gram_plain_number(gram_pool *p) {
    return gram_cat(p, gram_opt(p, digit(p, '-', '-')), gram_cat(p, whole_part(p), any_fraction(p)));
}

gram_term gram_whole_number(gram_pool *p, bool zeros) {
    const gram_term fraction =
        zeros ? gram_opt(p, point_and(p, gram_rep(p, digit(p, '0', '0'), 1, GRAM_INF))) : GRAM_EPS;
    return gram_cat(p, gram_opt(p, digit(p, '-', '-')), gram_cat(p, whole_part(p), fraction));
}

gram_term gram_json_number(gram_pool *p, bool loose) {
    const uint32_t e_digits = loose ? GRAM_INF : 2; /* readers have doubles, and a model may run away in it */
    const gram_term fraction = gram_cat(p, digit(p, '.', '.'), digits(p, 1, GRAM_INF));
    const gram_term e = gram_alt(p, digit(p, 'e', 'e'), digit(p, 'E', 'E'));
    const gram_term sign = gram_alt(p, digit(p, '+', '+'), digit(p, '-', '-'));
    const gram_term exponent = gram_cat(p, e, gram_cat(p, gram_opt(p, sign), digits(p, 1, e_digits)));
    return gram_cat(p, gram_opt(p, digit(p, '-', '-')),
                    gram_cat(p, whole_part(p), gram_cat(p, gram_opt(p, fraction), gram_opt(p, exponent))));
}
