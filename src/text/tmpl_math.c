/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_math.c - + - * / // % ** with Python's meaning.
 *
 * Integers have 64 bits; where Python would go on with a longer number the rendering stops with an error. //
 * rounds down and % takes the sign of the divisor. Texts and lists add and repeat. */
#include "text/tmpl_int.h"

#include <math.h>

static const char *const op_names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

static squish_status overflow(sq_trun *r) {
    return sq_tmpl_fail(r, "an integer of more than 64 bits");
}

static squish_status no_operator(sq_trun *r, int op, const sq_tval *a, const sq_tval *b) {
    if (a->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, a);
    if (b->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, b);
    bool joins =
        op == SQ_TOP_ADD && (a->type == SQ_TV_STR || a->type == SQ_TV_LIST || a->type == SQ_TV_TUPLE);
    if (joins)
        return sq_tmpl_fail(r, "can only concatenate %s (not \"%s\") to %s", sq_tmpl_type_name(a),
                            sq_tmpl_type_name(b), sq_tmpl_type_name(a));
    return sq_tmpl_fail(r, "unsupported operand type(s) for %s: '%s' and '%s'", op_names[op],
                        sq_tmpl_type_name(a), sq_tmpl_type_name(b));
}

/* ---- integers -------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b) {
    int64_t q = a / b;
    return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

static squish_status int_pow(sq_trun *r, int64_t base, int64_t exp, sq_tval *out) {
    int64_t v = 1;
    for (bool more = exp > 0; more;) {
        if ((exp & 1) && __builtin_mul_overflow(v, base, &v)) return overflow(r);
        exp >>= 1;
        more = exp > 0;
        if (more && __builtin_mul_overflow(base, base, &base)) return overflow(r);
    }
    *out = sq_tv_int(v);
    return SQUISH_OK;
}

static squish_status int_math(sq_trun *r, int op, int64_t a, int64_t b, sq_tval *out) {
    int64_t v = 0;
    bool divides = op == SQ_TOP_FLOORDIV || op == SQ_TOP_MOD;
    if (divides && b == 0)
        return sq_tmpl_fail(r, op == SQ_TOP_MOD ? "integer modulo by zero"
                                                : "integer division or modulo by zero");
    if (divides && b == -1 && a == INT64_MIN)
        return op == SQ_TOP_MOD ? (*out = sq_tv_int(0), SQUISH_OK) : overflow(r);
    bool bad = false;
    switch (op) {
        case SQ_TOP_ADD: bad = __builtin_add_overflow(a, b, &v); break;
        case SQ_TOP_SUB: bad = __builtin_sub_overflow(a, b, &v); break;
        case SQ_TOP_MUL: bad = __builtin_mul_overflow(a, b, &v); break;
        case SQ_TOP_FLOORDIV: v = floor_div(a, b); break;
        case SQ_TOP_MOD: v = a - floor_div(a, b) * b; break;
        default: return int_pow(r, a, b, out);
    }
    *out = sq_tv_int(v);
    return bad ? overflow(r) : SQUISH_OK;
}

/* ---- floats ---------------------------------------------------------------------------------- */

/* Quotient rounded down and remainder with the divisor's sign, as CPython computes them. */
static void float_divmod(double a, double b, double *div, double *mod) {
    *mod = fmod(a, b);
    double q = (a - *mod) / b;
    if (*mod != 0) {
        if ((b < 0) != (*mod < 0)) {
            *mod += b;
            q -= 1;
        }
    } else {
        *mod = copysign(0, b);
    }
    *div = q != 0 ? floor(q) : copysign(0, a / b);
    if (q != 0 && q - *div > 0.5) *div += 1;
}

static squish_status float_pow(sq_trun *r, double a, double b, double *out) {
    if (a == 0 && b < 0) return sq_tmpl_fail(r, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(b) && b != floor(b)) return sq_tmpl_fail(r, "the power is a complex number");
    *out = pow(a, b);
    if (isinf(*out) && isfinite(a) && isfinite(b)) return sq_tmpl_fail(r, "a number out of range");
    return SQUISH_OK;
}

static squish_status float_math(sq_trun *r, int op, double a, double b, sq_tval *out) {
    double v = 0, other;
    bool divides = op == SQ_TOP_DIV || op == SQ_TOP_FLOORDIV || op == SQ_TOP_MOD;
    if (divides && b == 0)
        return sq_tmpl_fail(r, op == SQ_TOP_DIV  ? "float division by zero"
                               : op == SQ_TOP_MOD ? "float modulo" : "float floor division by zero");
    switch (op) {
        case SQ_TOP_ADD: v = a + b; break;
        case SQ_TOP_SUB: v = a - b; break;
        case SQ_TOP_MUL: v = a * b; break;
        case SQ_TOP_DIV: v = a / b; break;
        case SQ_TOP_FLOORDIV: float_divmod(a, b, &v, &other); break;
        case SQ_TOP_MOD: float_divmod(a, b, &other, &v); break;
        default: SQ_TRY(float_pow(r, a, b, &v)); break;
    }
    *out = sq_tv_float(v);
    return SQUISH_OK;
}

/* ---- texts and lists ------------------------------------------------------------------------- */

static squish_status add_texts(sq_trun *r, const sq_tval *a, const sq_tval *b, sq_tval *out) {
    size_t mark = r->scratch.len;
    SQ_TRY(sq_tmpl_put(r, &r->scratch, a->u.s, a->n));
    SQ_TRY(sq_tmpl_put(r, &r->scratch, b->u.s, b->n));
    return sq_tmpl_take(r, mark, out);
}

static squish_status add_seqs(sq_trun *r, const sq_tseq *a, const sq_tseq *b, sq_tval_type type,
                              sq_tval *out) {
    SQ_TRY(sq_tmpl_charge(r, ((uint64_t)a->n + b->n) / 4));
    SQ_TRY(sq_tmpl_new_seq(r, type, (size_t)a->n + b->n, out));
    sq_tseq *sum = out->u.seq;
    if (a->n > 0) memcpy(sum->items, a->items, a->n * sizeof(sq_tval));
    if (b->n > 0) memcpy(sum->items + a->n, b->items, b->n * sizeof(sq_tval));
    sum->n = a->n + b->n;
    return SQUISH_OK;
}

static squish_status repeat_text(sq_trun *r, const sq_tval *s, int64_t times, sq_tval *out) {
    size_t mark = r->scratch.len;
    uint64_t bytes;
    if (times < 0) times = 0;
    if (!sq_mul_ok(s->n, (uint64_t)times, &bytes) || bytes > SQ_TMPL_REPEAT_MAX)
        return sq_tmpl_over(r, "a repeated text of more than %d bytes", SQ_TMPL_REPEAT_MAX);
    SQ_TRY(sq_tmpl_charge(r, s->n > 0 ? (uint64_t)times : 0));
    for (int64_t i = 0; i < times && s->n > 0; i++) SQ_TRY(sq_tmpl_put(r, &r->scratch, s->u.s, s->n));
    return sq_tmpl_take(r, mark, out);
}

static squish_status repeat_seq(sq_trun *r, const sq_tval *s, int64_t times, sq_tval *out) {
    const sq_tseq *from = s->u.seq;
    uint64_t n;
    if (times < 0) times = 0;
    if (!sq_mul_ok(from->n, (uint64_t)times, &n) || n > SQ_TMPL_RANGE_MAX)
        return sq_tmpl_over(r, "a repeated list of more than %d items", SQ_TMPL_RANGE_MAX);
    SQ_TRY(sq_tmpl_charge(r, n));
    sq_tval made;
    SQ_TRY(sq_tmpl_new_seq(r, (sq_tval_type)s->type, (size_t)n, &made));
    for (uint64_t i = 0; i < n; i++) made.u.seq->items[i] = from->items[i % from->n];
    made.u.seq->n = (uint32_t)n;
    *out = made;
    return SQUISH_OK;
}

static bool is_seq(const sq_tval *v) {
    return v->type == SQ_TV_LIST || v->type == SQ_TV_TUPLE;
}

/* text * n, n * text, list * n, n * list. *done is false where neither side repeats. */
static squish_status repeat(sq_trun *r, const sq_tval *a, const sq_tval *b, sq_tval *out, bool *done) {
    int64_t times;
    *done = true;
    if ((a->type == SQ_TV_STR) && sq_tmpl_as_int(b, &times)) return repeat_text(r, a, times, out);
    if ((b->type == SQ_TV_STR) && sq_tmpl_as_int(a, &times)) return repeat_text(r, b, times, out);
    if (is_seq(a) && sq_tmpl_as_int(b, &times)) return repeat_seq(r, a, times, out);
    if (is_seq(b) && sq_tmpl_as_int(a, &times)) return repeat_seq(r, b, times, out);
    *done = false;
    return SQUISH_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool as_double(const sq_tval *v, double *out) {
    int64_t i;
    if (v->type == SQ_TV_FLOAT) *out = v->u.f;
    else if (sq_tmpl_as_int(v, &i)) *out = (double)i;
    else return false;
    return true;
}

squish_status sq_tmpl_math(sq_trun *r, int op, const sq_tval *a, const sq_tval *b, sq_tval *out) {
    int64_t i, j;
    double x, y;
    if (op > SQ_TOP_POW) return sq_tmpl_damaged(r);
    if (sq_tmpl_as_int(a, &i) && sq_tmpl_as_int(b, &j)) {
        if (op == SQ_TOP_DIV && j == 0) return sq_tmpl_fail(r, "division by zero");
        bool to_float = op == SQ_TOP_DIV || (op == SQ_TOP_POW && j < 0);
        return to_float ? float_math(r, op, (double)i, (double)j, out) : int_math(r, op, i, j, out);
    }
    if (as_double(a, &x) && as_double(b, &y)) return float_math(r, op, x, y, out);
    if (op == SQ_TOP_MOD && a->type == SQ_TV_STR) return sq_tmpl_percent(r, a, b, out);
    if (op == SQ_TOP_ADD && a->type == SQ_TV_STR && b->type == SQ_TV_STR) return add_texts(r, a, b, out);
    if (op == SQ_TOP_ADD && is_seq(a) && a->type == b->type)
        return add_seqs(r, a->u.seq, b->u.seq, (sq_tval_type)a->type, out);
    bool done = false;
    if (op == SQ_TOP_MUL) SQ_TRY(repeat(r, a, b, out, &done));
    return done ? SQUISH_OK : no_operator(r, op, a, b);
}

squish_status sq_tmpl_negate(sq_trun *r, const sq_tval *a, sq_tval *out) {
    int64_t i;
    if (a->type == SQ_TV_FLOAT) {
        *out = sq_tv_float(-a->u.f);
        return SQUISH_OK;
    }
    if (a->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, a);
    if (!sq_tmpl_as_int(a, &i))
        return sq_tmpl_fail(r, "bad operand type for unary -: '%s'", sq_tmpl_type_name(a));
    return int_math(r, SQ_TOP_SUB, 0, i, out);
}
