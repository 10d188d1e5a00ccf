/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_format.c - "%s is %5.2f" % (name, x): Python's printf-style formatting.
 *
 * Conversions s r d i u x X o e E f F g G c %, flags # 0 - + space, width and precision (also *), and %(key)s
 * from an object. Numbers go through snprintf with a format of our own making, never the template's. */
#include "text/tmpl_int.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH_MAX = 10000, PRECISION_MAX = 300 };

typedef struct {
    const char *s, *end;
    const sq_tval *args; /* one value or a tuple of them */
    uint32_t used;
} fmt_state;

typedef struct {
    bool alt, zero, left, plus, space;
    int64_t width, precision; /* -1: none */
    sq_tval arg;
} fmt_spec;

static squish_status next_arg(sq_trun *r, fmt_state *f, sq_tval *out) {
    bool tuple = f->args->type == SQ_TV_TUPLE;
    if (f->used >= (tuple ? f->args->u.seq->n : 1u))
        return sq_tmpl_fail(r, "not enough arguments for format string");
    *out = tuple ? f->args->u.seq->items[f->used] : *f->args;
    f->used++;
    return SQUISH_OK;
}

/* %(key): the value under key. */
static squish_status keyed_arg(sq_trun *r, fmt_state *f, sq_tval *out) {
    const char *close = memchr(f->s, ')', (size_t)(f->end - f->s));
    if (!close) return sq_tmpl_fail(r, "incomplete format key");
    if (f->args->type != SQ_TV_DICT) return sq_tmpl_fail(r, "format requires a mapping");
    const sq_tval *found = sq_tmpl_dict_find_str(f->args->u.dict, f->s + 1, (size_t)(close - f->s - 1));
    if (!found) return sq_tmpl_fail(r, "no key '%.*s' to format", (int)(close - f->s - 1), f->s + 1);
    *out = *found;
    f->s = close + 1;
    f->used = 1;
    return SQUISH_OK;
}

static squish_status parse_count(sq_trun *r, fmt_state *f, int64_t max, int64_t *out) {
    *out = 0;
    bool star = f->s < f->end && *f->s == '*';
    if (star) {
        sq_tval v;
        f->s++;
        SQ_TRY(next_arg(r, f, &v));
        if (v.type != SQ_TV_INT) return sq_tmpl_fail(r, "* wants int");
        *out = v.u.i;
    }
    for (; !star && f->s < f->end && *f->s >= '0' && *f->s <= '9' && *out <= max; f->s++)
        *out = *out * 10 + (*f->s - '0');
    if (*out > max || *out < -max) return sq_tmpl_over(r, "a format width of more than %lld", (long long)max);
    return SQUISH_OK;
}

static squish_status parse_spec(sq_trun *r, fmt_state *f, fmt_spec *spec) {
    *spec = (fmt_spec){.precision = -1};
    if (f->s < f->end && *f->s == '(') SQ_TRY(keyed_arg(r, f, &spec->arg));
    for (bool more = true; more && f->s < f->end;) {
        switch (*f->s) {
            case '#': spec->alt = true; break;
            case '0': spec->zero = true; break;
            case '-': spec->left = true; break;
            case '+': spec->plus = true; break;
            case ' ': spec->space = true; break;
            default: more = false; break;
        }
        if (more) f->s++;
    }
    SQ_TRY(parse_count(r, f, WIDTH_MAX, &spec->width));
    if (spec->width < 0) spec->left = true, spec->width = -spec->width;
    if (f->s < f->end && *f->s == '.') {
        f->s++;
        SQ_TRY(parse_count(r, f, WIDTH_MAX, &spec->precision));
        if (spec->precision < 0) spec->precision = 0;
    }
    while (f->s < f->end && (*f->s == 'l' || *f->s == 'h' || *f->s == 'L')) f->s++;
    return f->s < f->end ? SQUISH_OK : sq_tmpl_fail(r, "incomplete format");
}

static squish_status put_many(sq_trun *r, char c, int64_t n) {
    for (; n > 0; n--) SQ_TRY(sq_tmpl_put(r, &r->scratch, &c, 1));
    return SQUISH_OK;
}

/* text padded to the width; `sign_bytes` of it stand before padding zeros. */
static squish_status put_padded(sq_trun *r, const fmt_spec *spec, const char *text, size_t n,
                                size_t sign_bytes) {
    int64_t pad = spec->width - (int64_t)sq_utf8_count(text, n);
    bool zeros = spec->zero && !spec->left && sign_bytes != SIZE_MAX;
    if (sign_bytes == SIZE_MAX || !zeros) sign_bytes = 0;
    if (!spec->left && !zeros) SQ_TRY(put_many(r, ' ', pad));
    SQ_TRY(sq_tmpl_put(r, &r->scratch, text, sign_bytes));
    if (zeros) SQ_TRY(put_many(r, '0', pad));
    SQ_TRY(sq_tmpl_put(r, &r->scratch, text + sign_bytes, n - sign_bytes));
    return spec->left ? put_many(r, ' ', pad) : SQUISH_OK;
}

static squish_status put_text(sq_trun *r, const fmt_spec *spec, char conversion) {
    sq_tval text;
    size_t mark = r->scratch.len;
    if (conversion == 's') {
        SQ_TRY(sq_tmpl_to_str(r, &spec->arg, &text));
    } else {
        SQ_TRY(sq_tmpl_repr(r, &r->scratch, &spec->arg, 0));
        SQ_TRY(sq_tmpl_take(r, mark, &text));
    }
    size_t n = spec->precision >= 0 ? sq_tmpl_offset(text.u.s, text.n, (uint64_t)spec->precision) : text.n;
    return put_padded(r, spec, text.u.s, n, SIZE_MAX);
}

/* The sign (and 0x) in front of a number; returns its bytes. */
static size_t put_sign(const fmt_spec *spec, bool negative, const char *prefix, char out[4]) {
    size_t n = 0;
    if (negative || spec->plus || spec->space) out[n++] = negative ? '-' : spec->plus ? '+' : ' ';
    for (; *prefix; prefix++) out[n++] = *prefix;
    return n;
}

static squish_status want_number(sq_trun *r, const sq_tval *v, char conversion) {
    if (v->type == SQ_TV_BOOL || v->type == SQ_TV_INT || v->type == SQ_TV_FLOAT) return SQUISH_OK;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    return sq_tmpl_fail(r, "%%%c format: a real number is required, not %s", conversion,
                        sq_tmpl_type_name(v));
}

static squish_status put_integer(sq_trun *r, const fmt_spec *spec, char conversion) {
    int64_t v = 0;
    bool decimal = strchr("diu", conversion) != NULL;
    SQ_TRY(want_number(r, &spec->arg, conversion));
    if (spec->arg.type == SQ_TV_FLOAT) {
        if (!decimal || !(fabs(spec->arg.u.f) < 9.2e18))
            return sq_tmpl_fail(r, "%%%c format: an integer is required, not float", conversion);
        v = (int64_t)spec->arg.u.f;
    } else {
        sq_tmpl_as_int(&spec->arg, &v);
    }
    unsigned long long u = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;
    static const struct {
        char conversion;
        const char *prefix, *fmt;
    } rows[] = {{'x', "0x", "%llx"}, {'X', "0X", "%llX"}, {'o', "0o", "%llo"}, {0, "", "%llu"}};
    size_t row = 0; /* the last one serves d, i and u */
    while (rows[row].conversion && rows[row].conversion != conversion) row++;
    char digits[32], text[PRECISION_MAX + 64];
    snprintf(digits, sizeof digits, rows[row].fmt, u);
    if (spec->precision > PRECISION_MAX) return sq_tmpl_over(r, "a precision of more than %d", PRECISION_MAX);
    size_t sign = put_sign(spec, v < 0, spec->alt ? rows[row].prefix : "", text);
    int zeros = (int)(spec->precision - (int64_t)strlen(digits));
    if (zeros < 0) zeros = 0;
    memset(text + sign, '0', (size_t)zeros);
    memcpy(text + sign + zeros, digits, strlen(digits));
    return put_padded(r, spec, text, sign + (size_t)zeros + strlen(digits), sign);
}

static squish_status put_float(sq_trun *r, const fmt_spec *spec, char conversion) {
    SQ_TRY(want_number(r, &spec->arg, conversion));
    double v = spec->arg.type == SQ_TV_FLOAT ? spec->arg.u.f
               : spec->arg.type == SQ_TV_INT ? (double)spec->arg.u.i
                                             : spec->arg.u.b;
    int precision = spec->precision < 0 ? 6 : (int)spec->precision;
    if (precision > PRECISION_MAX) return sq_tmpl_over(r, "a precision of more than %d", PRECISION_MAX);
    char fmt[8] = "%", text[4 + 320 + PRECISION_MAX + 8];
    snprintf(fmt + 1, sizeof fmt - 1, "%s.*%c", spec->alt ? "#" : "", conversion);
    size_t sign = put_sign(spec, signbit(v) && !isnan(v), "", text);
    int n = snprintf(text + sign, sizeof text - sign, fmt, precision, fabs(v));
    for (char *p = text + sign; p < text + sign + n; p++) /* whatever the locale wrote as its point */
        if (!strchr("0123456789eE+-infaINFA", *p)) *p = '.';
    return put_padded(r, spec, text, sign + (size_t)n, sign);
}

static squish_status put_char(sq_trun *r, const fmt_spec *spec) {
    const sq_tval *v = &spec->arg;
    char utf8[4];
    if (v->type == SQ_TV_STR && sq_utf8_count(v->u.s, v->n) == 1)
        return put_padded(r, spec, v->u.s, v->n, SIZE_MAX);
    if (v->type != SQ_TV_INT || v->u.i < 0 || v->u.i > 0x10ffff || (v->u.i >= 0xd800 && v->u.i < 0xe000))
        return sq_tmpl_fail(r, "%%c requires int or char");
    return put_padded(r, spec, utf8, sq_utf8_encode((uint32_t)v->u.i, utf8), SIZE_MAX);
}

static squish_status put_conversion(sq_trun *r, fmt_state *f) {
    fmt_spec spec;
    SQ_TRY(parse_spec(r, f, &spec));
    char c = *f->s++;
    if (c == '%') return sq_tmpl_put(r, &r->scratch, "%", 1);
    if (!memchr("srdiuxXoeEfFgGc", c, 15))
        return sq_tmpl_fail(r, "unsupported format character 0x%02x", (unsigned)(unsigned char)c);
    if (spec.arg.type == SQ_TV_UNSET) SQ_TRY(next_arg(r, f, &spec.arg));
    if (strchr("sr", c)) return put_text(r, &spec, c);
    if (strchr("diuxXo", c)) return put_integer(r, &spec, c);
    return c == 'c' ? put_char(r, &spec) : put_float(r, &spec, c);
}

squish_status sq_tmpl_percent(sq_trun *r, const sq_tval *fmt, const sq_tval *args, sq_tval *out) {
    fmt_state f = {.s = fmt->u.s, .end = fmt->u.s + fmt->n, .args = args};
    size_t mark = r->scratch.len;
    while (f.s < f.end) {
        const char *percent = memchr(f.s, '%', (size_t)(f.end - f.s));
        size_t n = (size_t)((percent ? percent : f.end) - f.s);
        SQ_TRY(sq_tmpl_put(r, &r->scratch, f.s, n));
        f.s += n;
        if (!percent) break;
        f.s++;
        SQ_TRY(sq_tmpl_charge(r, 1));
        SQ_TRY(put_conversion(r, &f));
    }
    /* A mapping may stay unused; anything else must be used up. */
    bool tuple = args->type == SQ_TV_TUPLE;
    bool loose = args->type == SQ_TV_DICT || args->type == SQ_TV_LIST || args->type == SQ_TV_UNDEF ||
                 args->type == SQ_TV_RANGE;
    if (tuple ? f.used < args->u.seq->n : f.used == 0 && !loose)
        return sq_tmpl_fail(r, "not all arguments converted during string formatting");
    return sq_tmpl_take(r, mark, out);
}
