/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_json.c - strict JSON: a pre-scan bounds the depth, then jansson does the work.
 *
 * jansson parses by recursion. The pre-scan follows only brackets and strings, needs no stack and refuses
 * what is nested too deeply before jansson sees it. Everything else (duplicate keys, UTF-8, NUL escapes,
 * numbers that do not fit, trailing bytes) is jansson's own strictness, asked for by its flags. No threads
 * run here. */
#include "format/json.h"

#include "format/fmt_int.h"
#include "format/limits.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Refuse input nested deeper than depth_max. Brackets inside strings do not count. */
static squish_status check_depth(const char *p, size_t n, int depth_max, const char *what,
                                 squish_error *err) {
    int depth = 0;
    size_t line = 1, line_start = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > depth_max) {
                return sq_fail(err, SQUISH_CORRUPT, "%s: line %zu, column %zu: nested deeper than %d levels",
                               what, line, i - line_start + 1, depth_max);
            }
        } else if (c == ']' || c == '}') {
            depth--;
        } else if (c == '\n') {
            line++;
            line_start = i + 1;
        }
    }
    return SQUISH_OK;
}

squish_status sq_json_parse(const char *bytes, size_t n, int depth_max, const char *what, json_t **out,
                            squish_error *err) {
    *out = NULL;
    if (n > SQ_MAX_JSON) {
        return sq_fail(err, SQUISH_CORRUPT, "%s: %zu bytes of JSON, at most %d are read", what, n,
                       SQ_MAX_JSON);
    }
    SQ_TRY(check_depth(bytes, n, depth_max, what, err));
    json_error_t je;
    json_t *j = json_loadb(n ? bytes : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (!j) {
        /* where jansson finds no memory for what is not text of a token it says nothing at all */
        if (json_error_code(&je) == json_error_out_of_memory || !je.text[0]) {
            return sq_fail(err, SQUISH_NO_MEMORY, "%s: no memory for %zu bytes of JSON", what, n);
        }
        sq_shown shown;
        return sq_fail(err, SQUISH_CORRUPT, "%s: line %d, column %d: %s", what, je.line, je.column,
                       sq_fmt_show(&shown, je.text, strnlen(je.text, sizeof je.text)));
    }
    *out = j;
    return SQUISH_OK;
}

char *sq_json_dump(const json_t *o, size_t flags) {
    const squish_alloc a = sq_alloc_default();
    const size_t n = o ? json_dumpb(o, NULL, 0, flags) : 0;
    char *text = n ? sq_alloc_new(&a, n + 1) : NULL;
    if (!text) return NULL;
    if (json_dumpb(o, text, n, flags) == n) {
        text[n] = 0;
        return text;
    }
    sq_alloc_free(&a, text, n + 1);
    return NULL;
}

/* ---- typed getters --------------------------------------------------------------------------- */

/* "the string 'abc'", "4097", "an array": the value found, for a message. */
static const char *describe(const json_t *v, char *out, size_t n) {
    sq_shown shown;
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING:
        snprintf(out, n, "the string '%s'", sq_fmt_show(&shown, json_string_value(v), json_string_length(v)));
        return out;
    case JSON_INTEGER: snprintf(out, n, "%lld", (long long)json_integer_value(v)); return out;
    case JSON_REAL: snprintf(out, n, "%.17g", json_real_value(v)); return out;
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_NULL: return "null";
    }
    return "?";
}

/* The value of key, or NULL in *v when it is absent (or null) and need not be there. */
static squish_status lookup(const json_t *o, const char *key, bool required, const char *wanted,
                            const json_t **v, const char *what, squish_error *err) {
    *v = NULL;
    if (o && !json_is_object(o)) {
        char buf[160];
        return sq_fail(err, SQUISH_CORRUPT, "%s: found %s, wanted an object with '%s'", what,
                       describe(o, buf, sizeof buf), key);
    }
    const json_t *found = json_object_get(o, key);
    if (found && !json_is_null(found)) {
        *v = found;
        return SQUISH_OK;
    }
    if (!required) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is %s, wanted %s", what, key, found ? "null" : "missing",
                   wanted);
}

static squish_status wrong(const json_t *v, const char *key, const char *wanted, const char *what,
                           squish_error *err) {
    char buf[160];
    return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is %s, wanted %s", what, key, describe(v, buf, sizeof buf),
                   wanted);
}

squish_status sq_json_i64(const json_t *o, const char *key, bool required, int64_t lo, int64_t hi,
                          int64_t *out, const char *what, squish_error *err) {
    char wanted[96];
    snprintf(wanted, sizeof wanted, "an integer in [%lld, %lld]", (long long)lo, (long long)hi);
    const json_t *v;
    SQ_TRY(lookup(o, key, required, wanted, &v, what, err));
    if (!v) return SQUISH_OK;
    int64_t i;
    if (json_is_integer(v)) {
        i = json_integer_value(v);
    } else if (json_is_real(v)) {
        double d = json_real_value(v);
        /* 2^63 itself does not fit; every double below it does. */
        if (d != floor(d) || d < -0x1p63 || d >= 0x1p63) return wrong(v, key, wanted, what, err);
        i = (int64_t)d;
    } else {
        return wrong(v, key, wanted, what, err);
    }
    if (i < lo || i > hi) return wrong(v, key, wanted, what, err);
    *out = i;
    return SQUISH_OK;
}

squish_status sq_json_f64(const json_t *o, const char *key, bool required, double lo, double hi, double *out,
                          const char *what, squish_error *err) {
    char wanted[96];
    snprintf(wanted, sizeof wanted, "a number in [%g, %g]", lo, hi);
    const json_t *v;
    SQ_TRY(lookup(o, key, required, wanted, &v, what, err));
    if (!v) return SQUISH_OK;
    if (!json_is_number(v)) return wrong(v, key, wanted, what, err);
    double d = json_number_value(v);
    if (!(d >= lo && d <= hi)) return wrong(v, key, wanted, what, err);
    *out = d;
    return SQUISH_OK;
}

squish_status sq_json_bool(const json_t *o, const char *key, bool required, bool *out, const char *what,
                           squish_error *err) {
    const json_t *v;
    SQ_TRY(lookup(o, key, required, "true or false", &v, what, err));
    if (!v) return SQUISH_OK;
    if (!json_is_boolean(v)) return wrong(v, key, "true or false", what, err);
    *out = json_is_true(v);
    return SQUISH_OK;
}

squish_status sq_json_str(const json_t *o, const char *key, bool required, const char **out, const char *what,
                          squish_error *err) {
    const json_t *v;
    SQ_TRY(lookup(o, key, required, "a string", &v, what, err));
    if (!v) return SQUISH_OK;
    if (!json_is_string(v)) return wrong(v, key, "a string", what, err);
    *out = json_string_value(v);
    return SQUISH_OK;
}
