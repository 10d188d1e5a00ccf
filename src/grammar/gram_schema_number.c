/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_number.c - JSON numbers as exact decimals.
 *
 * A schema may say 0.01 or 18446744073709551616, and neither a double nor 64 bits hold them. Digits and an
 * exponent do, and every question of JSON Schema (order, equality, integer, multiple) can be answered on them
 * without rounding. */
#include "grammar/gram_schema_int.h"

/* The exponent's digits, stopping above the ceiling. */
static int64_t read_exponent(const char *p, const char *end) {
    const bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    int64_t e = 0;
    for (; p < end; p++)
        if (e <= SQ_SCHEMA_EXPONENT_MAX) e = e * 10 + (*p - '0');
    return negative ? -e : e;
}

squish_status gs_number_read(sq_arena *ar, const char *text, size_t n, gs_number *out, squish_error *err) {
    const char *p = text, *end = text + n, *mark = memchr(text, 'e', n);
    if (!mark) mark = memchr(text, 'E', n);
    *out = (gs_number){.text = text, .text_bytes = (uint32_t)n};
    if (p < end && *p == '-') out->negative = true, p++;
    const char *stop = mark ? mark : end, *dot = memchr(p, '.', (size_t)(stop - p));
    int64_t exp = mark ? read_exponent(mark + 1, end) : 0;
    const char *digits = p;
    size_t count = (size_t)(stop - p);
    if (dot) {
        exp -= stop - dot - 1;
        char *joined = sq_arena_alloc(ar, count, 1);
        if (!joined) return sq_fail(err, SQUISH_NO_MEMORY, "no memory for a number of %zu digits", count);
        memcpy(joined, p, (size_t)(dot - p));
        memcpy(joined + (dot - p), dot + 1, (size_t)(stop - dot - 1));
        digits = joined;
        count--;
    }
    while (count && digits[count - 1] == '0') count--, exp++;
    while (count && *digits == '0') digits++, count--;
    if (count == 0) {
        out->negative = false; /* -0 is 0 */
        return SQUISH_OK;
    }
    if (count > SQ_SCHEMA_DIGITS_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED, "a number of %zu digits, at most %d are read", count,
                       SQ_SCHEMA_DIGITS_MAX);
    if (exp > SQ_SCHEMA_EXPONENT_MAX || exp < -SQ_SCHEMA_EXPONENT_MAX)
        return sq_fail(err, SQUISH_UNSUPPORTED, "number '%.*s': its exponent is beyond %d",
                       (int)(n < 60 ? n : 60), text, SQ_SCHEMA_EXPONENT_MAX);
    out->digits = digits;
    out->n = (uint32_t)count;
    out->exp = (int32_t)exp;
    return SQUISH_OK;
}

static int compare_size(const gs_number *a, const gs_number *b) {
    if (a->n == 0 || b->n == 0) return (a->n > 0) - (b->n > 0);
    const int64_t top_a = (int64_t)a->n + a->exp, top_b = (int64_t)b->n + b->exp;
    if (top_a != top_b) return top_a < top_b ? -1 : 1;
    const int order = memcmp(a->digits, b->digits, a->n < b->n ? a->n : b->n);
    if (order) return order < 0 ? -1 : 1;
    return (a->n > b->n) - (a->n < b->n); /* no trailing zeros: the longer one is larger */
}

int gs_number_compare(const gs_number *a, const gs_number *b) {
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    const int order = compare_size(a, b);
    return a->negative ? -order : order;
}

/* ---- multiples ------------------------------------------------------------------------------- */

enum { LIMB = 1000000000, LIMBS = SQ_SCHEMA_DIGITS_MAX / 9 + 2 };

static int compare_limbs(const uint32_t *a, const uint32_t *b, int n) {
    for (int i = n - 1; i >= 0; i--)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return 0;
}

/* a = (a * 10 + digit) mod b, all of n limbs, lowest first; b has room at its top. */
static void push_digit(uint32_t *a, const uint32_t *b, int n, uint32_t digit) {
    uint64_t carry = digit;
    for (int i = 0; i < n; i++) {
        const uint64_t x = (uint64_t)a[i] * 10 + carry;
        a[i] = (uint32_t)(x % LIMB);
        carry = x / LIMB;
    }
    while (compare_limbs(a, b, n) >= 0) { /* at most nine times */
        int64_t borrow = 0;
        for (int i = 0; i < n; i++) {
            int64_t x = (int64_t)a[i] - b[i] - borrow;
            borrow = x < 0;
            a[i] = (uint32_t)(x < 0 ? x + LIMB : x);
        }
    }
}

bool gs_number_is_multiple(const gs_number *a, const gs_number *b) {
    if (a->n == 0) return true;
    /* a = A 10^ea, b = B 10^eb. A has no factor ten left, so a quotient with ea < eb is no integer. */
    int64_t zeros = (int64_t)a->exp - b->exp;
    if (zeros < 0) return false;
    /* More tens than B has bits bring no factor of B that was not there: 10^k holds 2^k and 5^k. */
    if (zeros > 4 * (int64_t)b->n) zeros = 4 * (int64_t)b->n;
    uint32_t whole[LIMBS] = {0}, rest[LIMBS] = {0};
    const int n = (int)b->n / 9 + 2;
    for (uint32_t i = 0; i < b->n; i++) {
        const uint32_t from_low = b->n - 1 - i;
        whole[from_low / 9] = whole[from_low / 9] * 10 + (uint32_t)(b->digits[i] - '0');
    }
    for (uint32_t i = 0; i < a->n; i++) push_digit(rest, whole, n, (uint32_t)(a->digits[i] - '0'));
    for (int64_t i = 0; i < zeros; i++) push_digit(rest, whole, n, 0);
    for (int i = 0; i < n; i++)
        if (rest[i]) return false;
    return true;
}

bool gs_number_count(const gs_number *a, uint32_t *out) {
    if (a->negative || !gs_number_is_integer(a)) return false;
    uint64_t v = 0;
    for (int64_t i = 0; i < (int64_t)a->n + a->exp && a->n && v <= UINT32_MAX; i++)
        v = v * 10 + (uint64_t)(i < a->n ? a->digits[i] - '0' : 0);
    *out = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
    return true;
}
