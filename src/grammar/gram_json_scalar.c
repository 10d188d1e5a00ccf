/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_scalar.c - the strings and the numbers of a case as terms.
 *
 * What is said with `not`, and what must be told apart from other strings, is said in the canonical spelling,
 * where every string is written in one way: so that an escape hides nothing. Listed values are sifted by all
 * that is said about them. */
#include "grammar/gram_json_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MODULUS_MAX = 10000, FRACTION_MODULUS_MAX = 500, FRACTION_DIGITS_MAX = 12 };

/* ---- listed values ---------------------------------------------------------------------------- */

/* The text of a number in a buffer of jansson's, short where that says the same number. Caller frees. */
static char *number_text(const json_t *v) {
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT;
    char *s = json_dumps(v, flags | JSON_REAL_PRECISION(15));
    if (!s || !json_is_real(v) || strtod(s, NULL) == json_real_value(v)) return s;
    free(s); /* jansson's */
    return json_dumps(v, flags | JSON_REAL_PRECISION(17));
}

static bool read_decimal(gram_schema *c, const gram_atom *a, const json_t *v, gram_decimal *d) {
    char *s = number_text(v);
    const bool ok = s && gram_decimal_read(d, s);
    if (!s)
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
    else if (!ok)
        gram_schema_refuse(c, a->schema, s, "has more than 64 digits, which is not supported");
    free(s); /* jansson's */
    return ok;
}

/* Exact for integers of 64 bits and for doubles. */
static long double number_of(const json_t *v) {
    return json_is_integer(v) ? (long double)json_integer_value(v) : (long double)json_real_value(v);
}

static bool same_scalar(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return number_of(a) == number_of(b);
    return json_equal(a, b);
}

static bool holds_value(const json_t *list, const json_t *v) {
    const json_t *x;
    size_t i;
    json_array_foreach((json_t *)list, i, x) if (same_scalar(x, v)) return true;
    return false;
}

static gram_term multiple_of(gram_schema *c, const gram_atom *a);

static bool is_multiple(gram_schema *c, const gram_atom *a, const json_t *v) {
    gram_decimal d;
    char text[GRAM_DIGITS_MAX + 2];
    if (!read_decimal(c, a, v, &d)) return false;
    memcpy(text, d.digits, d.n_whole);
    text[d.n_whole] = '.';
    memcpy(text + d.n_whole + 1, d.digits + d.n_whole, d.n_fraction);
    return gram_accepts(c->p, multiple_of(c, a), text, d.n_whole + (d.n_fraction ? d.n_fraction + 1 : 0));
}

static gram_term text_term(gram_schema *c, const gram_atom *a, gram_spelling spelling) {
    if (a->kind == ATOM_FORMAT) return gram_format(c->p, a->text, spelling);
    return gram_schema_regex(c, a->schema, "pattern", a->text, a->n, spelling);
}

static bool atom_takes(gram_schema *c, const gram_atom *a, const json_t *v) {
    const size_t length = json_is_string(v) ? sq_utf8_count(json_string_value(v), json_string_length(v)) : 0;
    const long double x = json_is_number(v) ? number_of(v) : 0,
                      bound = json_is_number(a->value) ? number_of(a->value) : 0;
    switch (a->kind) {
    case ATOM_MIN_LENGTH: return length >= a->lo;
    case ATOM_MAX_LENGTH: return length <= a->lo;
    case ATOM_PATTERN:
    case ATOM_FORMAT:
        return gram_accepts(c->p, text_term(c, a, GRAM_PLAIN), json_string_value(v), json_string_length(v)) !=
               a->negative;
    case ATOM_MINIMUM: return x >= bound;
    case ATOM_MAXIMUM: return x <= bound;
    case ATOM_ABOVE: return x > bound;
    case ATOM_BELOW: return x < bound;
    case ATOM_MULTIPLE: return is_multiple(c, a, v) != a->negative;
    default: return holds_value(a->value, v) != a->negative;
    }
}

/* Does a case take a value, that comes from a list (or NULL)? */
static bool case_takes(gram_schema *c, const gram_case *x, const json_t *v, const json_t *list) {
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind == ATOM_VALUES && !a->negative && a->value == list) continue;
        if (gram_atom_types(a->kind) & gram_types_of(v) && !atom_takes(c, a, v)) return false;
    }
    return true;
}

/* A list of which the value must be one, or NULL. */
static const json_t *listed(const gram_schema *c, const gram_case *x) {
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind == ATOM_VALUES && !a->negative) return a->value;
    }
    return NULL;
}

uint32_t gram_listed_types(gram_schema *c, const gram_case *x) {
    const json_t *list = listed(c, x), *v;
    uint32_t types = TYPE_ALL & ~(uint32_t)(TYPE_NUMBER | TYPE_STRING);
    size_t i;
    if (!list) return TYPE_ALL;
    json_array_foreach((json_t *)list, i, v) {
        const uint32_t t = gram_types_of(v);
        if (t & x->types & ~types && case_takes(c, x, v, list)) types |= t;
    }
    return types;
}

/* ---- strings ---------------------------------------------------------------------------------- */

void gram_lengths(const gram_schema *c, const gram_case *x, uint32_t *lo, uint32_t *hi) {
    *lo = 0, *hi = GRAM_INF;
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind == ATOM_MIN_LENGTH && a->lo > *lo) *lo = a->lo;
        if (a->kind == ATOM_MAX_LENGTH && a->lo < *hi) *hi = a->lo;
    }
}

gram_term gram_canonical_strings(gram_pool *p, uint32_t lo, uint32_t hi) {
    static const gram_range raw[] = {{0x20, '!'}, {'#', '['}, {']', 0x10FFFF}};
    const size_t base = p->scratch.n;
    const gram_term plain = gram_chars(p, raw, SQ_COUNT(raw), GRAM_IN_JSON);
    gram_vec_push_u32(p, &p->scratch, plain);
    for (char ch = 0; ch <= '\\'; ch++) {
        if (ch >= 0x20 && ch != '"' && ch != '\\') continue;
        const gram_term t = gram_text(p, &ch, 1, GRAM_IN_JSON);
        gram_vec_push_u32(p, &p->scratch, t);
    }
    return gram_rep(p, gram_alt_list(p, base), lo, hi);
}

/* Strings of a list as they are written, those that a case takes (NULL: all). */
static gram_term listed_strings(gram_schema *c, const json_t *list, const gram_case *x) {
    gram_vec spans = {0};
    sq_span *l = gram_vec_room(c->p, &spans, json_array_size(list), sizeof *l);
    const json_t *v;
    size_t i, n = 0;
    gram_term t = GRAM_EMPTY;
    json_array_foreach((json_t *)list, i, v) {
        if (!l || !json_is_string(v) || (x && !case_takes(c, x, v, list))) continue;
        const char *s = json_string_value(v);
        const size_t bytes = json_string_length(v);
        bool plain = true;
        for (size_t k = 0; k < bytes; k++) plain &= (uint8_t)s[k] >= 0x20 && s[k] != '"' && s[k] != '\\';
        if (plain)
            l[n++] = (sq_span){(const uint8_t *)s, bytes};
        else
            t = gram_alt(c->p, t, gram_text(c->p, s, bytes, GRAM_IN_JSON));
    }
    if (l && n) t = gram_alt(c->p, t, gram_texts(c->p, l, n));
    gram_vec_free(c->p, &spans, sizeof *l);
    return t;
}

static gram_term strings(gram_schema *c, const gram_case *x, bool canonical) {
    gram_pool *p = c->p;
    const json_t *list = listed(c, x);
    if (list) return listed_strings(c, list, x);
    uint32_t lo, hi;
    gram_lengths(c, x, &lo, &hi);
    if (lo > hi) return GRAM_EMPTY;
    gram_term t = GRAM_NONE;
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (!(gram_atom_types(a->kind) & TYPE_STRING) || a->kind <= ATOM_MAX_LENGTH) continue;
        canonical |= a->negative;
        const gram_term one =
            a->kind == ATOM_VALUES ? listed_strings(c, a->value, NULL) : text_term(c, a, GRAM_IN_JSON);
        const gram_term said = a->negative ? gram_not(p, one) : one;
        t = t == GRAM_NONE ? said : gram_and(p, t, said);
    }
    if (!canonical && t != GRAM_NONE && lo == 0 && hi == GRAM_INF) return t;
    const gram_term all =
        canonical ? gram_canonical_strings(p, lo, hi) : gram_rep(p, gram_any_char(p, GRAM_IN_JSON), lo, hi);
    return t == GRAM_NONE ? all : gram_and(p, all, t);
}

gram_term gram_schema_string(gram_schema *c, const gram_case *x) { return strings(c, x, false); }

gram_term gram_goal_strings(gram_schema *c, gram_goal g) {
    const gram_cases cases = gram_goal_cases(c, g);
    gram_term t = GRAM_EMPTY;
    for (size_t i = 0; i < cases.n; i++)
        if (cases.list[i].types & TYPE_STRING) t = gram_alt(c->p, t, strings(c, &cases.list[i], true));
    return t;
}

bool gram_goal_takes_name(gram_schema *c, gram_goal g, const char *name, size_t n) {
    const gram_cases cases = gram_goal_cases(c, g);
    json_t *v = json_stringn(name, n);
    bool takes = false;
    if (!v) gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
    for (size_t i = 0; i < cases.n && v && !takes; i++)
        takes = cases.list[i].types & TYPE_STRING && case_takes(c, &cases.list[i], v, NULL);
    json_decref(v);
    return takes;
}

bool gram_pattern_matches(gram_schema *c, const json_t *schema, const char *pattern, const char *name,
                          size_t n) {
    const gram_term t =
        gram_schema_regex(c, schema, "patternProperties", pattern, strlen(pattern), GRAM_PLAIN);
    return gram_accepts(c->p, t, name, n);
}

/* ---- numbers ---------------------------------------------------------------------------------- */

/* What multipleOf asks for is a multiple of *modulus / 10^*fraction. False after a refusal. */
static bool read_modulus(gram_schema *c, const gram_atom *a, uint32_t *modulus, uint32_t *fraction) {
    gram_decimal d;
    if (!read_decimal(c, a, a->value, &d)) return false;
    uint64_t m = 0;
    for (uint32_t i = 0; i < d.n_whole + d.n_fraction && m <= MODULUS_MAX; i++)
        m = m * 10 + (uint64_t)(d.digits[i] - '0');
    if (m > MODULUS_MAX || (d.n_fraction && m > FRACTION_MODULUS_MAX) || d.n_fraction > FRACTION_DIGITS_MAX) {
        gram_schema_refuse(c, a->schema, "multipleOf", "has more digits than are supported");
        return false;
    }
    *modulus = (uint32_t)m;
    *fraction = d.n_fraction;
    return true;
}

/* Digits without a sign, as many as there are. */
static gram_term multiple_of(gram_schema *c, const gram_atom *a) {
    uint32_t modulus, fraction;
    return read_modulus(c, a, &modulus, &fraction) ? gram_multiple(c->p, modulus, fraction, GRAM_INF)
                                                   : GRAM_EMPTY;
}

static gram_term minus_and(gram_pool *p, gram_term t) {
    return gram_cat(p, gram_opt(p, gram_byte(p, '-', '-')), t);
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b) {
        const uint64_t r = a % b;
        a = b, b = r;
    }
    return a;
}

/* Numbers that are multiples of all that a case asks for have an end as multiples of one number, which looks
 * to its last digits. False: there is none that is small enough, or simple. *t: those numbers, all if nothing
 * is asked for; none where each of them is a multiple of what they must not be. With digits that are counted
 * there are too many states to find that out. */
static bool ending_multiples(gram_schema *c, const gram_case *x, gram_term *t) {
    uint64_t common = 1;
    uint32_t n[2] = {0}, modulus = 0, fraction = 0, fractions = 0; /* n: asked for, and forbidden */
    for (int forbidden = 0; forbidden < 2; forbidden++)
        for (uint32_t i = 0; i < x->n; i++) {
            const gram_atom *a = gram_atom_at(c, x->atoms[i]);
            if (a->kind != ATOM_MULTIPLE || a->negative != forbidden) continue;
            if (!read_modulus(c, a, &modulus, &fraction)) return false;
            n[forbidden]++;
            fractions |= fraction;
            if ((fractions && n[0] + n[1] > 1) || (common > MODULUS_MAX)) return false;
            if (forbidden && common % modulus == 0) return *t = GRAM_EMPTY, true;
            if (!forbidden) common = common / common_divisor(common, modulus) * modulus;
        }
    *t = gram_not(c->p, GRAM_EMPTY);
    if (n[0] == 0) return true;
    if (common > MODULUS_MAX) return false;
    /* What a bound asks for has at most GRAM_DIGITS_MAX digits. */
    *t = minus_and(c->p, gram_multiple(c->p, (uint32_t)common, fractions, 2 * GRAM_DIGITS_MAX));
    return true;
}

/* A number of a list: as it is, or with zeros behind the point where any spelling counts. */
static gram_term one_number(gram_schema *c, const gram_atom *a, const json_t *v, bool zeros) {
    gram_decimal d;
    gram_pool *p = c->p;
    if (!read_decimal(c, a, v, &d)) return GRAM_EMPTY;
    const gram_term zero = gram_rep(p, gram_byte(p, '0', '0'), d.n_fraction ? 0 : 1, GRAM_INF);
    gram_term tail = d.n_fraction ? gram_literal(p, d.digits + d.n_whole, d.n_fraction) : GRAM_EPS;
    if (zeros) tail = gram_cat(p, tail, zero);
    if (d.n_fraction || zeros) tail = gram_cat(p, gram_byte(p, '.', '.'), tail);
    if (!d.n_fraction && zeros) tail = gram_opt(p, tail);
    const gram_term t = gram_cat(p, gram_literal(p, d.digits, d.n_whole), tail);
    return d.negative ? gram_cat(p, gram_byte(p, '-', '-'), t) : t;
}

static gram_term listed_numbers(gram_schema *c, const gram_atom *a, const gram_case *x, bool zeros) {
    gram_term t = GRAM_EMPTY;
    const json_t *v;
    size_t i;
    json_array_foreach((json_t *)a->value, i, v) {
        if (!json_is_number(v) || (x && !(gram_types_of(v) & x->types && case_takes(c, x, v, a->value))))
            continue;
        t = gram_alt(c->p, t, one_number(c, a, v, zeros));
    }
    return t;
}

static void tighten(gram_schema *c, const gram_atom *a, gram_bound *b, long double *now) {
    const bool upper = a->kind == ATOM_MAXIMUM || a->kind == ATOM_BELOW, open = a->kind >= ATOM_ABOVE;
    const long double x = number_of(a->value);
    if (b->there && (upper ? x > *now : x < *now)) return;
    if (b->there && x == *now) {
        b->open |= open;
        return;
    }
    *now = x;
    *b = (gram_bound){.there = true, .open = open};
    read_decimal(c, a, a->value, &b->at);
}

/* Whole numbers between bounds that fit; a bound with a fraction moves to the next whole number. */
static bool whole_range(gram_schema *c, const gram_bound *lo, long double from, const gram_bound *hi,
                        long double to, gram_term *out) {
    if ((lo->there && fabsl(from) > 9e18L) || (hi->there && fabsl(to) > 9e18L)) return false;
    const int64_t a = lo->there ? (int64_t)ceill(from) : 0, b = hi->there ? (int64_t)floorl(to) : 0;
    const bool skip_a = lo->open && ceill(from) == from, skip_b = hi->open && floorl(to) == to;
    *out = gram_integer_range(c->p, lo->there, a + skip_a, hi->there, b - skip_b);
    return true;
}

static gram_term numbers(gram_schema *c, const gram_case *x) {
    gram_pool *p = c->p;
    const bool whole = x->types & TYPE_WHOLE, fraction = x->types & TYPE_FRACTION;
    gram_bound lo = {0}, hi = {0};
    long double from = 0, to = 0;
    bool said = false;
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind == ATOM_VALUES && !a->negative) return listed_numbers(c, a, x, c->zeros);
        if (a->kind == ATOM_MINIMUM || a->kind == ATOM_ABOVE) tighten(c, a, &lo, &from);
        if (a->kind == ATOM_MAXIMUM || a->kind == ATOM_BELOW) tighten(c, a, &hi, &to);
        said |= a->kind == ATOM_MULTIPLE || (a->kind == ATOM_VALUES && a->negative);
    }
    if (gram_failed(p) || (lo.there && hi.there && (from > to || (from == to && (lo.open || hi.open)))))
        return GRAM_EMPTY;
    gram_term t = GRAM_EMPTY;
    if (whole && fraction && !lo.there && !hi.there && !said) return gram_json_number(p, c->loose);
    if (fraction || c->zeros || !whole_range(c, &lo, from, &hi, to, &t)) {
        t = lo.there || hi.there ? gram_number_range(p, &lo, &hi) : gram_plain_number(p);
        const gram_term form = gram_whole_number(p, fraction || c->zeros);
        if (!fraction) t = lo.there || hi.there ? gram_and(p, t, form) : form;
        if (!whole) t = gram_and(p, t, gram_not(p, form));
    }
    for (uint32_t i = 0; i < x->n && said; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind != ATOM_MULTIPLE && a->kind != ATOM_VALUES) continue;
        const gram_term one =
            a->kind == ATOM_MULTIPLE ? minus_and(p, multiple_of(c, a)) : listed_numbers(c, a, NULL, true);
        t = gram_and(p, t, a->negative ? gram_not(p, one) : one);
    }
    return t;
}

/* Where digits decide whether a number is one of those, the last ones that there is room for might leave no
 * choice. So there is more room than any bound or listed value asks for, and than multiples take, which look
 * to their ends by themselves; or no end at all, where they cannot. Whether there are any such numbers is
 * asked before: digits that are counted make too many states to find that out. */
gram_term gram_schema_number(gram_schema *c, const gram_case *x) {
    gram_pool *p = c->p;
    const uint32_t digits_max = p->digits_max;
    bool decides = false;
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        decides |= a->kind == ATOM_MULTIPLE || (a->kind == ATOM_VALUES && a->negative);
    }
    if (decides) p->digits_max = GRAM_INF;
    gram_term t = numbers(c, x), multiples;
    if (decides && !c->loose && !gram_failed(p)) {
        p->digits_max = 4 * GRAM_DIGITS_MAX;
        if (ending_multiples(c, x, &multiples))
            t = gram_and(p, t, gram_and(p, multiples, gram_plain_number(p)));
    }
    p->digits_max = digits_max;
    return t;
}
