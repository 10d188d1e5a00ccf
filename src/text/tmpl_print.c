/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_print.c - values as text: Python's str() and repr().
 *
 * Texts in the making live on top of each other in one scratch buffer: remember its length, append, take what
 * was appended. Blocks that are captured use the same stack. */
#include "text/tmpl_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

squish_status sq_tmpl_put(sq_trun *r, sq_buf *o, const char *s, size_t n) {
    SQ_TRY(sq_tmpl_charge(r, n / 64));
    size_t base = o == r->out ? r->out_start : 0;
    if (n > r->output_max || o->len - base > r->output_max - n)
        return sq_tmpl_over(r, "more than %zu bytes of text", r->output_max);
    if (sq_buf_append(o, s, n)) return SQUISH_OK;
    return sq_tmpl_over(r, "out of memory for text");
}

squish_status sq_tmpl_puts(sq_trun *r, sq_buf *o, const char *s) {
    return sq_tmpl_put(r, o, s, strlen(s));
}

squish_status sq_tmpl_take(sq_trun *r, size_t start, sq_tval *out) {
    size_t n = r->scratch.len - start;
    void *copy;
    SQ_TRY(sq_tmpl_alloc(r, n, 1, &copy));
    if (n > 0) memcpy(copy, r->scratch.data + start, n);
    r->scratch.len = start;
    *out = sq_tv_str(copy, n);
    return SQUISH_OK;
}

/* ---- floats ---------------------------------------------------------------------------------- */

/* Does m * 10^exponent read as f? Written without a point, so that no locale matters. */
static bool reads_as(int64_t m, int exponent, double f) {
    char text[48];
    snprintf(text, sizeof text, "%llde%d", (long long)m, exponent);
    return strtod(text, NULL) == f;
}

/* The fewest digits that read back as f > 0 (or 0), as an integer and a power of ten. At a power of two the
 * nearest short number may miss while its neighbour hits, so both neighbours are tried. Returns the digits'
 * text. */
static int shortest_digits(double f, char digits[32], int *exponent) {
    /* 15 digits always survive the way into a normal double and back: anything shorter is those without zeros
     */
    for (int p = f < 2.3e-308 ? 0 : 14; p <= 16; p++) {
        char text[48];
        snprintf(text, sizeof text, "%.*e", p, f);
        const char *e = strchr(text, 'e');
        int64_t m = 0;
        for (const char *c = text; c < e; c++)
            if (*c >= '0' && *c <= '9') m = m * 10 + (*c - '0');
        int scale = (int)strtol(e + 1, NULL, 10) - p, step = 0;
        if (!reads_as(m, scale, f)) step = reads_as(m + 1, scale, f) ? 1 : reads_as(m - 1, scale, f) ? -1 : 2;
        if (step == 2 && p < 16) continue;
        int n = snprintf(digits, 32, "%lld", (long long)(m + (step == 2 ? 0 : step)));
        *exponent = scale + n - 1;
        while (n > 1 && digits[n - 1] == '0') n--;
        return n;
    }
    return 0; /* not reached: the last turn returns */
}

/* float.__repr__: plain between 1e-4 and 1e16, else with an exponent of two digits or more. */
void sq_tmpl_float_repr(double f, char out[32]) {
    if (isnan(f) || isinf(f)) {
        snprintf(out, 32, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    char digits[32];
    int exp, n = shortest_digits(fabs(f), digits, &exp), at = 0;
    if (signbit(f)) out[at++] = '-';
    if (exp < -4 || exp >= 16) {
        snprintf(out + at, (size_t)(32 - at), n > 1 ? "%.1s.%.*se%c%02d" : "%.1s%.*se%c%02d", digits, n - 1,
                 digits + 1, exp < 0 ? '-' : '+', abs(exp));
        return;
    }
    if (exp < 0) {
        snprintf(out + at, (size_t)(32 - at), "0.%.*s%.*s", -exp - 1, "000", n, digits);
        return;
    }
    for (int i = 0; i <= exp; i++) out[at++] = i < n ? digits[i] : '0';
    out[at++] = '.';
    if (n <= exp + 1) out[at++] = '0';
    for (int i = exp + 1; i < n; i++) out[at++] = digits[i];
    out[at] = 0;
}

/* ---- repr ------------------------------------------------------------------------------------ */

static squish_status repr_char(sq_trun *r, sq_buf *o, const char *s, size_t n, uint32_t cp, char quote) {
    static const char plain[] = "\n\r\t\\", named[] = "nrt\\";
    char text[16];
    const char *hit = cp && cp < 0x80 ? strchr(plain, (int)cp) : NULL;
    if (hit || cp == (uint32_t)(unsigned char)quote) {
        snprintf(text, sizeof text, "\\%c", hit ? named[hit - plain] : quote);
        return sq_tmpl_puts(r, o, text);
    }
    if (sq_tmpl_is_printable(cp)) return sq_tmpl_put(r, o, s, n);
    snprintf(text, sizeof text, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    return sq_tmpl_puts(r, o, text);
}

/* In single quotes, unless that would need an escape and double quotes would not. */
static squish_status repr_text(sq_trun *r, sq_buf *o, const sq_tval *v) {
    bool has_single = v->n > 0 && memchr(v->u.s, '\'', v->n),
         has_double = v->n > 0 && memchr(v->u.s, '"', v->n);
    char quote = has_single && !has_double ? '"' : '\'';
    SQ_TRY(sq_tmpl_charge(r, v->n / 4));
    SQ_TRY(sq_tmpl_put(r, o, &quote, 1));
    for (size_t at = 0; at < v->n;) {
        uint32_t cp;
        size_t n = sq_utf8_decode(v->u.s + at, v->n - at, &cp, NULL);
        SQ_TRY(repr_char(r, o, v->u.s + at, n, cp, quote));
        at += n;
    }
    return sq_tmpl_put(r, o, &quote, 1);
}

static squish_status repr_items(sq_trun *r, sq_buf *o, const sq_tseq *s, const char *brackets, int depth) {
    SQ_TRY(sq_tmpl_put(r, o, brackets, 1));
    for (uint32_t i = 0; i < s->n; i++) {
        if (i > 0) SQ_TRY(sq_tmpl_puts(r, o, ", "));
        SQ_TRY(sq_tmpl_repr(r, o, &s->items[i], depth + 1));
    }
    if (s->n == 1 && brackets[0] == '(') SQ_TRY(sq_tmpl_puts(r, o, ","));
    return sq_tmpl_put(r, o, brackets + 1, 1);
}

/* parts: 0 keys, 1 values, 2 (key, value), 3 key: value. */
static squish_status repr_pairs(sq_trun *r, sq_buf *o, const sq_tdict *d, int parts, int depth) {
    for (uint32_t i = 0; i < d->n; i++) {
        if (i > 0) SQ_TRY(sq_tmpl_puts(r, o, ", "));
        if (parts == 2) SQ_TRY(sq_tmpl_puts(r, o, "("));
        if (parts != 1) SQ_TRY(sq_tmpl_repr(r, o, &d->items[i].key, depth + 1));
        if (parts >= 2) SQ_TRY(sq_tmpl_puts(r, o, parts == 2 ? ", " : ": "));
        if (parts >= 1) SQ_TRY(sq_tmpl_repr(r, o, &d->items[i].value, depth + 1));
        if (parts == 2) SQ_TRY(sq_tmpl_puts(r, o, ")"));
    }
    return SQUISH_OK;
}

static squish_status repr_dict(sq_trun *r, sq_buf *o, const sq_tval *v, int depth) {
    static const char *const open[] = {"dict_keys([", "dict_values([", "dict_items(["};
    bool view = v->type == SQ_TV_VIEW, space = v->type == SQ_TV_NAMESPACE;
    SQ_TRY(sq_tmpl_puts(r, o, view ? open[v->sub] : space ? "<Namespace {" : "{"));
    SQ_TRY(repr_pairs(r, o, v->u.dict, view ? v->sub : 3, depth));
    return sq_tmpl_puts(r, o, view ? "])" : space ? "}>" : "}");
}

static squish_status repr_range(sq_trun *r, sq_buf *o, const sq_trange *g) {
    char text[96];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)g->start, (long long)g->stop);
    if (g->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)g->step);
    SQ_TRY(sq_tmpl_put(r, o, text, (size_t)n));
    return sq_tmpl_puts(r, o, ")");
}

/* Objects without a text of their own; Python prints addresses here, which nobody can want. */
static squish_status repr_object(sq_trun *r, sq_buf *o, const sq_tval *v) {
    if (v->type == SQ_TV_MACRO) {
        const sq_tmpl_node *macro = &r->t->nodes[v->u.macro->node];
        sq_tval name = sq_tv_str(sq_tmpl_str(r, macro->arg[0]), sq_tmpl_str_bytes(r, macro->arg[0]));
        SQ_TRY(sq_tmpl_puts(r, o, "<Macro "));
        SQ_TRY(repr_text(r, o, &name));
        return sq_tmpl_puts(r, o, ">");
    }
    SQ_TRY(sq_tmpl_puts(r, o, "<"));
    SQ_TRY(sq_tmpl_puts(r, o, sq_tmpl_type_name(v)));
    return sq_tmpl_puts(r, o, ">");
}

static squish_status print_number(sq_trun *r, sq_buf *o, const sq_tval *v) {
    char text[32];
    if (v->type == SQ_TV_INT) snprintf(text, sizeof text, "%lld", (long long)v->u.i);
    else sq_tmpl_float_repr(v->u.f, text);
    return sq_tmpl_puts(r, o, text);
}

squish_status sq_tmpl_repr(sq_trun *r, sq_buf *o, const sq_tval *v, int depth) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    SQ_TRY(sq_tmpl_charge(r, 1));
    switch (v->type) {
        case SQ_TV_UNDEF: return sq_tmpl_puts(r, o, "Undefined");
        case SQ_TV_NONE: return sq_tmpl_puts(r, o, "None");
        case SQ_TV_BOOL: return sq_tmpl_puts(r, o, v->u.b ? "True" : "False");
        case SQ_TV_INT:
        case SQ_TV_FLOAT: return print_number(r, o, v);
        case SQ_TV_STR: return repr_text(r, o, v);
        case SQ_TV_LIST: return repr_items(r, o, v->u.seq, "[]", depth);
        case SQ_TV_TUPLE: return repr_items(r, o, v->u.seq, "()", depth);
        case SQ_TV_DICT:
        case SQ_TV_NAMESPACE:
        case SQ_TV_VIEW: return repr_dict(r, o, v, depth);
        case SQ_TV_RANGE: return repr_range(r, o, v->u.range);
        default: return repr_object(r, o, v);
    }
}

/* str(): as repr, but texts bare and the undefined empty. */
squish_status sq_tmpl_print(sq_trun *r, sq_buf *o, const sq_tval *v) {
    if (v->type == SQ_TV_STR) return sq_tmpl_put(r, o, v->u.s, v->n);
    return v->type == SQ_TV_UNDEF ? SQUISH_OK : sq_tmpl_repr(r, o, v, 0);
}

squish_status sq_tmpl_to_str(sq_trun *r, const sq_tval *v, sq_tval *out) {
    if (v->type == SQ_TV_STR) {
        *out = *v;
        return SQUISH_OK;
    }
    size_t mark = r->scratch.len;
    SQ_TRY(sq_tmpl_print(r, &r->scratch, v));
    return sq_tmpl_take(r, mark, out);
}
