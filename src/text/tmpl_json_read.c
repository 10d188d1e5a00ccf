/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_json_read.c - the from_json filter: text inside a message becomes values.
 *
 * Tool calls arrive with their arguments as JSON text now and then. A small reader of strict JSON straight
 * into the arena: rendering must not allocate anywhere else. A key that comes twice keeps its last value, as
 * in Python. */
#include "text/tmpl_int.h"

#include <math.h>

enum { JSON_DEPTH = 64 };

typedef struct {
    sq_trun *r;
    const char *s, *p, *end;
} reader;

static squish_status bad(reader *j, const char *what) {
    return sq_tmpl_fail(j->r, "from_json: %s at byte %zu", what, (size_t)(j->p - j->s));
}

static void skip_space(reader *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t')) j->p++;
}

static bool skip(reader *j, char c) {
    skip_space(j);
    if (j->p == j->end || *j->p != c) return false;
    j->p++;
    return true;
}

static bool hex4(reader *j, uint32_t *out) {
    if (j->end - j->p < 4) return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        int d = sq_tmpl_digit(*j->p++);
        if (d > 15) return false;
        *out = *out * 16 + (uint32_t)d;
    }
    return true;
}

/* Behind "\u"; a pair of surrogates is one character. */
static squish_status read_unicode(reader *j) {
    uint32_t cp, low;
    char utf8[4];
    if (!hex4(j, &cp)) return bad(j, "four hexadecimal digits expected");
    if (cp >= 0xd800 && cp < 0xdc00) {
        bool pair = j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u';
        j->p += pair ? 2 : 0;
        if (!pair || !hex4(j, &low) || low < 0xdc00 || low > 0xdfff) return bad(j, "half a surrogate pair");
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    } else if (cp >= 0xdc00 && cp < 0xe000) {
        return bad(j, "half a surrogate pair");
    }
    return sq_tmpl_put(j->r, &j->r->scratch, utf8, sq_utf8_encode(cp, utf8));
}

static squish_status read_text(reader *j, sq_tval *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    size_t mark = j->r->scratch.len;
    j->p++;
    while (j->p < j->end && *j->p != '"') {
        const char *start = j->p;
        while (j->p < j->end && *j->p != '"' && *j->p != '\\' && (unsigned char)*j->p >= 0x20) j->p++;
        SQ_TRY(sq_tmpl_put(j->r, &j->r->scratch, start, (size_t)(j->p - start)));
        if (j->p == j->end || *j->p == '"') break;
        if (*j->p++ != '\\' || j->p == j->end) return bad(j, "a control character or an open escape");
        char c = *j->p++;
        const char *hit = c ? strchr(from, c) : NULL;
        if (!hit && c != 'u') return bad(j, "an unknown escape");
        SQ_TRY(hit ? sq_tmpl_put(j->r, &j->r->scratch, &to[hit - from], 1) : read_unicode(j));
    }
    if (j->p == j->end) return bad(j, "a string without end");
    j->p++;
    return sq_tmpl_take(j->r, mark, out);
}

static const char *skip_digits(const char *p, const char *end) {
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

static squish_status read_number(reader *j, sq_tval *out) {
    const char *start = j->p, *p = start + (*start == '-'), *digits = p;
    bool is_float = false;
    p = skip_digits(p, j->end);
    if (p == digits || (*digits == '0' && p > digits + 1)) return bad(j, "not a JSON value");
    if (p < j->end && *p == '.') {
        const char *frac = p + 1;
        p = skip_digits(frac, j->end);
        if (p == frac) return bad(j, "a number without digits");
        is_float = true;
    }
    if (p < j->end && (*p | 32) == 'e') {
        const char *exp = p + 1;
        if (exp < j->end && (*exp == '+' || *exp == '-')) exp++;
        p = skip_digits(exp, j->end);
        if (p == exp) return bad(j, "a number without digits");
        is_float = true;
    }
    j->p = p;
    double f;
    if (!sq_tmpl_parse_f64(start, (size_t)(p - start), &f)) return bad(j, "a number that is too long");
    if (!is_float && fabs(f) >= 9.3e18) return bad(j, "an integer of more than 64 bits");
    if (is_float) {
        *out = sq_tv_float(f);
        return SQUISH_OK;
    }
    int64_t v = 0;
    for (const char *d = digits; d < p; d++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *d - '0', &v))
            return bad(j, "an integer of more than 64 bits");
    if (*start != '-' && __builtin_sub_overflow((int64_t)0, v, &v))
        return bad(j, "an integer of more than 64 bits");
    *out = sq_tv_int(v);
    return SQUISH_OK;
}

static squish_status read_value(reader *j, int depth, sq_tval *out);

static squish_status read_list(reader *j, int depth, sq_tval *out) {
    sq_tval item;
    SQ_TRY(sq_tmpl_new_seq(j->r, SQ_TV_LIST, 0, out));
    j->p++;
    if (skip(j, ']')) return SQUISH_OK;
    do {
        SQ_TRY(read_value(j, depth + 1, &item));
        SQ_TRY(sq_tmpl_seq_push(j->r, out->u.seq, &item));
    } while (skip(j, ','));
    return skip(j, ']') ? SQUISH_OK : bad(j, "',' or ']' expected");
}

static squish_status read_object(reader *j, int depth, sq_tval *out) {
    sq_tval key, value;
    SQ_TRY(sq_tmpl_new_dict(j->r, SQ_TV_DICT, 0, out));
    j->p++;
    if (skip(j, '}')) return SQUISH_OK;
    do {
        skip_space(j);
        if (j->p == j->end || *j->p != '"') return bad(j, "a key expected");
        SQ_TRY(read_text(j, &key));
        if (!skip(j, ':')) return bad(j, "':' expected");
        SQ_TRY(read_value(j, depth + 1, &value));
        SQ_TRY(sq_tmpl_dict_put(j->r, out->u.dict, &key, &value));
    } while (skip(j, ','));
    return skip(j, '}') ? SQUISH_OK : bad(j, "',' or '}' expected");
}

static squish_status read_value(reader *j, int depth, sq_tval *out) {
    static const struct {
        const char *word;
        sq_tval value;
    } words[] = {{"null", {.type = SQ_TV_NONE}},
                 {"true", {.type = SQ_TV_BOOL, .u.b = true}},
                 {"false", {.type = SQ_TV_BOOL}}};
    SQ_TRY(sq_tmpl_charge(j->r, 1));
    if (depth > JSON_DEPTH) return bad(j, "nested too deeply");
    skip_space(j);
    if (j->p == j->end) return bad(j, "a value expected");
    if (*j->p == '"') return read_text(j, out);
    if (*j->p == '[') return read_list(j, depth, out);
    if (*j->p == '{') return read_object(j, depth, out);
    for (size_t i = 0; i < SQ_COUNT(words); i++) {
        size_t n = strlen(words[i].word);
        if ((size_t)(j->end - j->p) < n || memcmp(j->p, words[i].word, n) != 0) continue;
        j->p += n;
        *out = words[i].value;
        return SQUISH_OK;
    }
    return read_number(j, out);
}

squish_status sq_tmpl_load_json(sq_trun *r, const sq_tval *text, sq_tval *out) {
    SQ_TRY(sq_tmpl_want_str(r, text, "the JSON object"));
    SQ_TRY(sq_tmpl_charge(r, text->n / 16));
    reader j = {.r = r, .s = text->u.s, .p = text->u.s, .end = text->u.s + text->n};
    sq_tval v;
    SQ_TRY(read_value(&j, 0, &v));
    skip_space(&j);
    if (j.p < j.end) return bad(&j, "more text behind the value");
    *out = v;
    return SQUISH_OK;
}
