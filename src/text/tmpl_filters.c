/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_filters.c - filters on one value: texts, numbers, defaults, JSON. Those on sequences are in
 * tmpl_seq_filters.c.
 *
 * Where Jinja turns the input into text first (trim, upper, replace, ...) so does this; nothing is marked or
 * escaped for HTML, as chat templates run without autoescape, and `safe` therefore changes nothing. */
#include "text/tmpl_int.h"

#include <math.h>
#include <stdio.h>

static bool given(const sq_tval *v) { return v->type != SQ_TV_UNSET && v->type != SQ_TV_NONE; }
static bool flag(const sq_tval *v) { return v->type != SQ_TV_UNSET && sq_tmpl_truth(v); }

/* A method of texts, called on str(value). */
static squish_status as_method(sq_trun *r, const sq_tval *v, const char *name, const sq_tval *arg, uint32_t n,
                               sq_tval *out) {
    sq_tval text, copies[3];
    for (uint32_t i = 0; i < n; i++) copies[i] = arg[i];
    SQ_TRY(sq_tmpl_to_str(r, v, &text));
    const sq_tmethod method = {.self = text, .name = name};
    const sq_targs args = {.pos = copies, .n_pos = n};
    return sq_tmpl_call_method(r, &method, &args, out);
}

/* ---- texts ----------------------------------------------------------------------------------- */

static squish_status f_string(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_to_str(r, v, out);
}

static squish_status f_lower(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return as_method(r, v, "lower", arg, 0, out);
}

static squish_status f_upper(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return as_method(r, v, "upper", arg, 0, out);
}

static squish_status f_capitalize(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return as_method(r, v, "capitalize", arg, 0, out);
}

static squish_status f_title(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_tval text;
    (void)arg;
    SQ_TRY(sq_tmpl_to_str(r, v, &text));
    return sq_tmpl_recase(r, SQ_TCASE_WORDS, &text, out);
}

static squish_status f_trim(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    return as_method(r, v, "strip", arg, given(&arg[0]), out);
}

static squish_status f_replace(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_tval args[3] = {arg[0], arg[1], arg[2]};
    SQ_TRY(sq_tmpl_to_str(r, &arg[0], &args[0]));
    SQ_TRY(sq_tmpl_to_str(r, &arg[1], &args[1]));
    return as_method(r, v, "replace", args, given(&arg[2]) ? 3 : 2, out);
}

static squish_status f_format(sq_trun *r, const sq_tval *v, const sq_targs *args, sq_tval *out) {
    sq_tval text, operand = sq_tv(SQ_TV_TUPLE);
    sq_tseq seq = {.items = args->pos, .n = args->n_pos, .cap = args->n_pos};
    sq_tdict dict = {.items = args->kw, .n = args->n_kw, .cap = args->n_kw};
    SQ_TRY(sq_tmpl_to_str(r, v, &text));
    if (args->n_pos && args->n_kw)
        return sq_tmpl_fail(r, "can't handle positional and keyword arguments at the same time");
    operand.u.seq = &seq;
    if (args->n_kw) {
        operand.type = SQ_TV_DICT;
        operand.u.dict = &dict;
    }
    return sq_tmpl_percent(r, &text, &operand, out);
}

/* Every line but the first (unless `first`) and the empty ones (unless `blank`) starts with the indent. */
static squish_status f_indent(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    sq_tval indent = sq_tv_str("    ", 4), lines;
    const sq_tval space = sq_tv_str(" ", 1);
    SQ_TRY(sq_tmpl_want_str(r, v, "the text to indent"));
    if (arg[0].type == SQ_TV_STR) indent = arg[0];
    else if (arg[0].type != SQ_TV_UNSET) SQ_TRY(sq_tmpl_math(r, SQ_TOP_MUL, &space, &arg[0], &indent));
    SQ_TRY(as_method(r, v, "splitlines", arg, 0, &lines));
    /* Jinja splits text + "\n": the empty text has one line, and a line end at the end adds an empty one. */
    size_t mark = r->scratch.len;
    uint32_t n = lines.u.seq->n;
    uint32_t cp = 0;
    if (v->n > 0) {
        size_t last = v->n - 1;
        while (last > 0 && ((unsigned char)v->u.s[last] & 0xc0) == 0x80) last--;
        sq_utf8_decode(v->u.s + last, v->n - last, &cp, NULL);
    }
    bool ends_line = v->n == 0 || (cp >= '\n' && cp <= '\r') || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 ||
                     cp == 0x2028 || cp == 0x2029;
    if (cp == '\r') ends_line = false; /* "\r" + "\n" is one line end */
    uint32_t total = n + (ends_line ? 1 : 0);
    for (uint32_t i = 0; i < total; i++) {
        sq_tval line = i < n ? lines.u.seq->items[i] : sq_tv_str("", 0);
        bool wants = i == 0 ? flag(&arg[1]) : line.n > 0 || flag(&arg[2]);
        if (i > 0) SQ_TRY(sq_tmpl_puts(r, &r->scratch, "\n"));
        if (wants) SQ_TRY(sq_tmpl_put(r, &r->scratch, indent.u.s, indent.n));
        SQ_TRY(sq_tmpl_put(r, &r->scratch, line.u.s, line.n));
    }
    return sq_tmpl_take(r, mark, out);
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* float("..."): blanks around, inf and nan, underscores between digits. */
static bool text_to_float(const sq_tval *v, double *out) {
    static const char allowed[] = "0123456789+-.eE_";
    sq_span s = sq_tmpl_strip(v->u.s, v->n, NULL, true, true);
    const char *p = (const char *)s.p;
    bool negative = s.n > 0 && p[0] == '-';
    size_t sign = s.n > 0 && (p[0] == '-' || p[0] == '+'), n = s.n - sign;
    static const struct {
        const char *word;
        double value;
    } words[] = {{"inf", INFINITY}, {"infinity", INFINITY}, {"nan", NAN}};
    for (size_t i = 0; i < SQ_COUNT(words); i++) {
        size_t k = 0;
        while (k < n && words[i].word[k] && (p[sign + k] | 32) == words[i].word[k]) k++;
        if (k == n && n > 0 && words[i].word[k] == 0) {
            *out = negative ? -words[i].value : words[i].value;
            return true;
        }
    }
    for (size_t i = 0; i < s.n; i++) {
        if (p[i] == 0 || !strchr(allowed, p[i])) return false;
        bool inner =
            i > 0 && i + 1 < s.n && p[i - 1] >= '0' && p[i - 1] <= '9' && p[i + 1] >= '0' && p[i + 1] <= '9';
        if (p[i] == '_' && !inner) return false;
    }
    return sq_tmpl_parse_f64(p, s.n, out);
}

/* int("...", base): sign, prefix, underscores. False: no integer. *over: one, but too long. */
static bool text_to_int(const sq_tval *v, int64_t base, int64_t *out, bool *over) {
    sq_span s = sq_tmpl_strip(v->u.s, v->n, NULL, true, true);
    const char *p = (const char *)s.p, *end = p + s.n;
    bool negative = p < end && *p == '-', digits = false;
    if (p < end && (*p == '-' || *p == '+')) p++;
    int prefix = 0; /* the base that 0x, 0o or 0b announces */
    if (end - p > 2 && p[0] == '0') {
        char kind = (char)(p[1] | 32);
        prefix = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
    }
    if (prefix && (base == 0 || base == prefix)) base = prefix, p += 2;
    if (base == 0) base = 10;
    *out = 0;
    *over = false;
    for (; p < end; p++) {
        if (*p == '_' && digits && p + 1 < end && p[1] != '_') continue;
        int d = sq_tmpl_digit(*p);
        if (d >= base) return false;
        digits = true;
        if (__builtin_mul_overflow(*out, base, out) || __builtin_sub_overflow(*out, d, out)) *over = true;
    }
    if (!negative && __builtin_sub_overflow((int64_t)0, *out, out)) *over = true;
    return digits;
}

static squish_status f_int(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    int64_t base = 10, i;
    double f = NAN;
    bool over = false;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (given(&arg[1])) SQ_TRY(sq_tmpl_want_int(r, &arg[1], &base));
    if (base != 0 && (base < 2 || base > 36))
        return sq_tmpl_fail(r, "int() base must be >= 2 and <= 36, or 0");
    *out = arg[0].type == SQ_TV_UNSET ? sq_tv_int(0) : arg[0];
    bool is_int = v->type == SQ_TV_STR ? text_to_int(v, base, &i, &over) : sq_tmpl_as_int(v, &i);
    if (over) return sq_tmpl_fail(r, "an integer of more than 64 bits");
    if (is_int) {
        *out = sq_tv_int(i);
        return SQUISH_OK;
    }
    bool is_float =
        v->type == SQ_TV_FLOAT ? (f = v->u.f, true) : v->type == SQ_TV_STR && text_to_float(v, &f);
    if (!is_float || !isfinite(f)) return SQUISH_OK;
    if (fabs(f) >= 9223372036854775808.0) return sq_tmpl_fail(r, "an integer of more than 64 bits");
    *out = sq_tv_int((int64_t)f);
    return SQUISH_OK;
}

static squish_status f_float(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    double f = 0;
    int64_t i = 0;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    bool ok = v->type == SQ_TV_STR ? text_to_float(v, &f) : v->type == SQ_TV_FLOAT;
    if (v->type == SQ_TV_FLOAT) f = v->u.f;
    if (!ok && sq_tmpl_as_int(v, &i)) f = (double)i, ok = true;
    *out = ok ? sq_tv_float(f) : arg[0].type == SQ_TV_UNSET ? sq_tv_float(0) : arg[0];
    return SQUISH_OK;
}

static squish_status f_abs(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    int64_t i;
    (void)arg;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (v->type == SQ_TV_FLOAT) {
        *out = sq_tv_float(fabs(v->u.f));
        return SQUISH_OK;
    }
    if (!sq_tmpl_as_int(v, &i))
        return sq_tmpl_fail(r, "bad operand type for abs(): '%s'", sq_tmpl_type_name(v));
    *out = sq_tv_int(i);
    return i < 0 ? sq_tmpl_negate(r, v, out) : SQUISH_OK;
}

/* To `places` decimals, ties to even on the exact binary value, by way of the decimal text. */
static double round_float(double f, int64_t places) {
    char text[400];
    double v = f;
    if (!isfinite(f) || places > 300) return f;
    if (places < 0) {
        double unit = pow(10, (double)-places);
        return rint(f / unit) * unit;
    }
    int n = snprintf(text, sizeof text, "%.*f", (int)places, f);
    for (int i = 0; i < n; i++) /* whatever the locale wrote as its point */
        if (!strchr("0123456789-", text[i])) text[i] = '.';
    return n < (int)sizeof text && sq_tmpl_parse_f64(text, (size_t)n, &v) ? v : f;
}

static squish_status f_round(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    int64_t places = 0, i;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    if (given(&arg[0])) SQ_TRY(sq_tmpl_want_int(r, &arg[0], &places));
    bool is_int = sq_tmpl_as_int(v, &i), common = !given(&arg[1]) || sq_tv_is(&arg[1], "common");
    bool ceiling = sq_tv_is(&arg[1], "ceil");
    if (!common && !ceiling && !sq_tv_is(&arg[1], "floor"))
        return sq_tmpl_fail(r, "method must be common, ceil or floor");
    if (!is_int && v->type != SQ_TV_FLOAT)
        return sq_tmpl_fail(r, "type %s has no rounding", sq_tmpl_type_name(v));
    if (places > 300 || places < -300) return sq_tmpl_over(r, "a precision of more than 300");
    if (common && is_int && places >= 0) {
        *out = sq_tv_int(i);
        return SQUISH_OK;
    }
    double f = is_int ? (double)i : v->u.f, unit = pow(10, (double)places);
    if (common) f = round_float(f, places);
    else f = (ceiling ? ceil(f * unit) : floor(f * unit)) / unit;
    *out = is_int && common ? sq_tv_int((int64_t)f) : sq_tv_float(f);
    return SQUISH_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static squish_status f_default(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)r;
    bool missing = v->type == SQ_TV_UNDEF || (flag(&arg[1]) && !sq_tmpl_truth(v));
    *out = !missing ? *v : arg[0].type == SQ_TV_UNSET ? sq_tv_str("", 0) : arg[0];
    return SQUISH_OK;
}

static squish_status f_length(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    int64_t n;
    (void)arg;
    SQ_TRY(sq_tmpl_len(r, v, &n));
    *out = sq_tv_int(n);
    return SQUISH_OK;
}

static squish_status f_attr(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, &arg[0], "the attribute name"));
    if (v->type != SQ_TV_DICT) return sq_tmpl_getattr(r, v, arg[0].u.s, arg[0].n, out);
    const char *found; /* unlike the dot, this filter does not look among the keys */
    bool forbidden;
    if (sq_tmpl_method(v, arg[0].u.s, arg[0].n, &found, &forbidden))
        return sq_tmpl_getattr(r, v, arg[0].u.s, arg[0].n, out);
    *out = sq_tv_undef(SQ_TU_ATTR, arg[0].u.s, arg[0].n);
    out->owner = v->type;
    return SQUISH_OK;
}

static squish_status json_separators(sq_trun *r, const sq_tval *pair, sq_tjson *how) {
    sq_tval seq;
    SQ_TRY(sq_tmpl_to_seq(r, pair, SQ_TV_LIST, &seq));
    if (seq.u.seq->n != 2) return sq_tmpl_fail(r, "separators must be two texts");
    how->item_sep = seq.u.seq->items[0];
    how->key_sep = seq.u.seq->items[1];
    SQ_TRY(sq_tmpl_want_str(r, &how->item_sep, "a separator"));
    return sq_tmpl_want_str(r, &how->key_sep, "a separator");
}

/* The tojson of transformers: (ensure_ascii=false, indent=none, separators=none, sort_keys=false). */
static squish_status f_tojson(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    const sq_tval space = sq_tv_str(" ", 1);
    sq_tjson how = {.ascii = flag(&arg[0]),
                    .sort_keys = flag(&arg[3]),
                    .pretty = given(&arg[1]),
                    .indent = sq_tv_str("", 0),
                    .item_sep = sq_tv_str(", ", 2),
                    .key_sep = sq_tv_str(": ", 2)};
    if (how.pretty) how.item_sep.n = 1;
    if (arg[1].type == SQ_TV_STR) how.indent = arg[1];
    else if (how.pretty) SQ_TRY(sq_tmpl_math(r, SQ_TOP_MUL, &space, &arg[1], &how.indent));
    if (given(&arg[2])) SQ_TRY(json_separators(r, &arg[2], &how));
    return sq_tmpl_dump_json(r, &how, v, out);
}

static squish_status f_from_json(sq_trun *r, const sq_tval *v, const sq_tval *arg, sq_tval *out) {
    (void)arg;
    return sq_tmpl_load_json(r, v, out);
}

static const sq_tmpl_native rows[] = {
    {"tojson", f_tojson, NULL, 0, 4, {"ensure_ascii", "indent", "separators", "sort_keys"}},
    {"trim", f_trim, NULL, 0, 1, {"chars"}},
    {"length", f_length, NULL, 0, 0, {0}},
    {"count", f_length, NULL, 0, 0, {0}},
    {"default", f_default, NULL, 0, 2, {"default_value", "boolean"}},
    {"d", f_default, NULL, 0, 2, {"default_value", "boolean"}},
    {"string", f_string, NULL, 0, 0, {0}},
    {"safe", f_string, NULL, 0, 0, {0}},
    {"upper", f_upper, NULL, 0, 0, {0}},
    {"lower", f_lower, NULL, 0, 0, {0}},
    {"title", f_title, NULL, 0, 0, {0}},
    {"capitalize", f_capitalize, NULL, 0, 0, {0}},
    {"replace", f_replace, NULL, 2, 3, {"old", "new", "count"}},
    {"indent", f_indent, NULL, 0, 3, {"width", "first", "blank"}},
    {"format", NULL, f_format, 0, 0, {0}},
    {"int", f_int, NULL, 0, 2, {"default", "base"}},
    {"float", f_float, NULL, 0, 1, {"default"}},
    {"abs", f_abs, NULL, 0, 0, {0}},
    {"round", f_round, NULL, 0, 2, {"precision", "method"}},
    {"attr", f_attr, NULL, 1, 1, {"name"}},
    {"from_json", f_from_json, NULL, 0, 0, {0}},
};

static const sq_tmpl_native *find(const char *name, size_t n) {
    const sq_tmpl_native *row = sq_tmpl_lookup(rows, SQ_COUNT(rows), name, n);
    return row ? row : sq_tmpl_lookup(sq_tmpl_seq_filters, sq_tmpl_n_seq_filters, name, n);
}

bool sq_tmpl_has_filter(const char *name, size_t n) {
    return find(name, n) != NULL;
}

squish_status sq_tmpl_filter(sq_trun *r, const char *name, size_t n, const sq_tval *v, const sq_targs *args,
                             sq_tval *out) {
    const sq_tmpl_native *row = find(name, n);
    if (!row) return sq_tmpl_fail(r, "No filter named '%.*s'.", (int)n, name);
    return sq_tmpl_invoke(r, row, v, args, out);
}
