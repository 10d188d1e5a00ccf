/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_compare.c - ==, <, in, and sorting, with Python's rules across types.
 *
 * Equality never fails; order fails between kinds that have none. Numbers compare by value, an integer with a
 * float exactly, not after rounding. Recursion goes as deep as the values, which a counter bounds. */
#include "text/tmpl_int.h"

#include <math.h>

static bool is_number(const sq_tval *v) {
    return v->type == SQ_TV_BOOL || v->type == SQ_TV_INT || v->type == SQ_TV_FLOAT;
}

/* -1, 0, 1; 2: not comparable (NaN). */
static int compare_int_float(int64_t i, double f) {
    if (isnan(f)) return 2;
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    int64_t whole = (int64_t)f; /* towards zero; exact where |f| >= 2^53 */
    if (i != whole) return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

static int compare_numbers(const sq_tval *a, const sq_tval *b) {
    int64_t i, j;
    bool a_int = sq_tmpl_as_int(a, &i), b_int = sq_tmpl_as_int(b, &j);
    if (a_int && b_int) return i < j ? -1 : i > j;
    if (a_int) return compare_int_float(i, b->u.f);
    if (b_int) {
        int c = compare_int_float(j, a->u.f);
        return c == 2 ? 2 : -c;
    }
    if (isnan(a->u.f) || isnan(b->u.f)) return 2;
    return a->u.f < b->u.f ? -1 : a->u.f > b->u.f;
}

/* Code point order, which in UTF-8 is byte order. */
static int compare_texts(const sq_tval *a, const sq_tval *b) {
    int c = memcmp(a->u.s, b->u.s, a->n < b->n ? a->n : b->n);
    if (c == 0) return a->n < b->n ? -1 : a->n > b->n;
    return c < 0 ? -1 : 1;
}

static squish_status equal(sq_trun *r, const sq_tval *a, const sq_tval *b, int depth, bool *out);

static squish_status equal_seqs(sq_trun *r, const sq_tseq *a, const sq_tseq *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (uint32_t i = 0; i < a->n && *out; i++) SQ_TRY(equal(r, &a->items[i], &b->items[i], depth + 1, out));
    return SQUISH_OK;
}

static squish_status equal_dicts(sq_trun *r, const sq_tdict *a, const sq_tdict *b, int depth, bool *out) {
    *out = a->n == b->n;
    for (uint32_t i = 0; i < a->n && *out; i++) {
        sq_tval *other;
        SQ_TRY(sq_tmpl_dict_find(r, b, &a->items[i].key, &other));
        *out = other != NULL;
        if (other) SQ_TRY(equal(r, &a->items[i].value, other, depth + 1, out));
    }
    return SQUISH_OK;
}

static bool equal_ranges(const sq_trange *a, const sq_trange *b) {
    return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static squish_status equal(sq_trun *r, const sq_tval *a, const sq_tval *b, int depth, bool *out) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    SQ_TRY(sq_tmpl_charge(r, 1));
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b) == 0;
        return SQUISH_OK;
    }
    *out = false;
    if (a->type != b->type) return SQUISH_OK;
    switch (a->type) {
        case SQ_TV_UNDEF:
        case SQ_TV_NONE: *out = true; return SQUISH_OK;
        case SQ_TV_STR:
            *out = a->n == b->n && memcmp(a->u.s, b->u.s, a->n) == 0;
            return sq_tmpl_charge(r, a->n == b->n ? a->n / 64 : 0);
        case SQ_TV_LIST:
        case SQ_TV_TUPLE: return equal_seqs(r, a->u.seq, b->u.seq, depth, out);
        case SQ_TV_DICT:
        case SQ_TV_NAMESPACE: return equal_dicts(r, a->u.dict, b->u.dict, depth, out);
        case SQ_TV_RANGE: *out = equal_ranges(a->u.range, b->u.range); return SQUISH_OK;
        case SQ_TV_GLOBAL: *out = a->sub == b->sub; return SQUISH_OK;
        default: *out = a->u.seq == b->u.seq; return SQUISH_OK; /* the same object */
    }
}

squish_status sq_tmpl_equal(sq_trun *r, const sq_tval *a, const sq_tval *b, bool *out) {
    return equal(r, a, b, 0, out);
}

static squish_status order(sq_trun *r, const char *op, const sq_tval *a, const sq_tval *b, int depth,
                           int *out);

/* By the first pair that differs, then by length. */
static squish_status order_seqs(sq_trun *r, const char *op, const sq_tseq *a, const sq_tseq *b, int depth,
                                int *out) {
    for (uint32_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        SQ_TRY(equal(r, &a->items[i], &b->items[i], depth + 1, &same));
        if (!same) return order(r, op, &a->items[i], &b->items[i], depth + 1, out);
    }
    *out = a->n < b->n ? -1 : a->n > b->n;
    return SQUISH_OK;
}

static squish_status order(sq_trun *r, const char *op, const sq_tval *a, const sq_tval *b, int depth,
                           int *out) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    SQ_TRY(sq_tmpl_charge(r, 1));
    if (a->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, a);
    if (b->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, b);
    if (is_number(a) && is_number(b)) {
        *out = compare_numbers(a, b);
        return SQUISH_OK;
    }
    if (a->type == SQ_TV_STR && b->type == SQ_TV_STR) {
        *out = compare_texts(a, b);
        return sq_tmpl_charge(r, a->n / 64);
    }
    bool seqs = a->type == b->type && (a->type == SQ_TV_LIST || a->type == SQ_TV_TUPLE);
    if (seqs) return order_seqs(r, op, a->u.seq, b->u.seq, depth, out);
    return sq_tmpl_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, sq_tmpl_type_name(a),
                        sq_tmpl_type_name(b));
}

squish_status sq_tmpl_less(sq_trun *r, const char *op, const sq_tval *a, const sq_tval *b, bool *out) {
    int c;
    SQ_TRY(order(r, op, a, b, 0, &c));
    *out = c == -1;
    return SQUISH_OK;
}

static squish_status hashable(sq_trun *r, const sq_tval *v, int depth) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    if (v->type == SQ_TV_LIST || v->type == SQ_TV_DICT)
        return sq_tmpl_fail(r, "unhashable type: '%s'", sq_tmpl_type_name(v));
    for (uint32_t i = 0; v->type == SQ_TV_TUPLE && i < v->u.seq->n; i++)
        SQ_TRY(hashable(r, &v->u.seq->items[i], depth + 1));
    return sq_tmpl_charge(r, 1);
}

/* May v be a key? Lists and objects may not, nor tuples that hold one. */
squish_status sq_tmpl_hashable(sq_trun *r, const sq_tval *v) {
    return hashable(r, v, 0);
}

squish_status sq_tmpl_contains(sq_trun *r, const sq_tval *container, const sq_tval *v, bool *out) {
    if (container->type == SQ_TV_STR) {
        if (v->type != SQ_TV_STR)
            return v->type == SQ_TV_UNDEF
                       ? sq_tmpl_fail(r, "'in <string>' requires string as left operand, not Undefined")
                       : sq_tmpl_fail(r, "'in <string>' requires string as left operand, not %s",
                                      sq_tmpl_type_name(v));
        *out = sq_tmpl_find(container->u.s, container->n, v->u.s, v->n) != NULL;
        return sq_tmpl_charge(r, container->n / 16);
    }
    if (container->type == SQ_TV_DICT) {
        sq_tval *found;
        SQ_TRY(sq_tmpl_hashable(r, v));
        SQ_TRY(sq_tmpl_dict_find(r, container->u.dict, v, &found));
        *out = found != NULL;
        return SQUISH_OK;
    }
    if (!sq_tmpl_is_iterable(container))
        return sq_tmpl_fail(r, "argument of type '%s' is not iterable", sq_tmpl_type_name(container));
    sq_titer it;
    sq_tval item;
    *out = false;
    SQ_TRY(sq_tmpl_iter(r, container, &it));
    for (bool has = true; has && !*out;) {
        SQ_TRY(sq_tmpl_next(r, &it, &item, &has));
        if (has) SQ_TRY(sq_tmpl_equal(r, &item, v, out));
    }
    return SQUISH_OK;
}

squish_status sq_tmpl_compare(sq_trun *r, int op, const sq_tval *a, const sq_tval *b, bool *out) {
    static const char *const names[] = {"<", "<=", ">", ">="};
    int c;
    switch (op) {
        case SQ_TOP_EQ: return sq_tmpl_equal(r, a, b, out);
        case SQ_TOP_NE: SQ_TRY(sq_tmpl_equal(r, a, b, out)); break;
        case SQ_TOP_IN: return sq_tmpl_contains(r, b, a, out);
        case SQ_TOP_NOT_IN: SQ_TRY(sq_tmpl_contains(r, b, a, out)); break;
        case SQ_TOP_LT:
        case SQ_TOP_LE:
        case SQ_TOP_GT:
        case SQ_TOP_GE:
            SQ_TRY(order(r, names[op - SQ_TOP_LT], a, b, 0, &c));
            *out = (c == -1 && op <= SQ_TOP_LE) || (c == 1 && op >= SQ_TOP_GT) ||
                   (c == 0 && (op == SQ_TOP_LE || op == SQ_TOP_GE));
            return SQUISH_OK;
        default: return sq_tmpl_damaged(r);
    }
    *out = !*out;
    return SQUISH_OK;
}

/* Bottom-up merge sort on numbers of keys: stable, no recursion. Reversed keeps equals in order too, as
 * Python. */
squish_status sq_tmpl_sort(sq_trun *r, const sq_tval *keys, uint32_t n, bool reverse, uint32_t *perm) {
    void *other;
    SQ_TRY(sq_tmpl_alloc(r, n, sizeof(uint32_t), &other));
    uint32_t *from = perm, *to = other;
    for (uint32_t i = 0; i < n; i++) perm[i] = i;
    for (uint64_t width = 1; width < n; width *= 2) {
        for (uint64_t low = 0; low < n; low += 2 * width) {
            uint64_t mid = low + width < n ? low + width : n,
                     high = low + 2 * width < n ? low + 2 * width : n;
            uint64_t i = low, j = mid;
            for (uint64_t k = low; k < high; k++) {
                bool take_right = i == mid;
                if (i < mid && j < high) {
                    const sq_tval *right = &keys[from[j]], *left = &keys[from[i]];
                    SQ_TRY(reverse ? sq_tmpl_less(r, "<", left, right, &take_right)
                                   : sq_tmpl_less(r, "<", right, left, &take_right));
                }
                to[k] = take_right ? from[j++] : from[i++];
            }
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != perm) memcpy(perm, from, n * sizeof *perm);
    return SQUISH_OK;
}
