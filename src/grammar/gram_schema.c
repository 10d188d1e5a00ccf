/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema.c - a JSON Schema (drafts 4 to 2020-12) to the language of the texts that are valid for it.
 *
 * Keywords that say how a schema is composed go first (gram_merge.c), then what is left is a union over
 * types. A schema that refers to itself becomes a nonterminal; all others are regular and stay terms. */
#include "grammar/gram_json_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 160 };

/* ---- words ------------------------------------------------------------------------------------ */

/* What this reader takes into account, and what says nothing about validity. */
static const char *const known[] = {"$ref",
                                    "allOf",
                                    "anyOf",
                                    "oneOf",
                                    "const",
                                    "enum",
                                    "type",
                                    "properties",
                                    "required",
                                    "additionalProperties",
                                    "minProperties",
                                    "maxProperties",
                                    "items",
                                    "prefixItems",
                                    "additionalItems",
                                    "minItems",
                                    "maxItems",
                                    "minLength",
                                    "maxLength",
                                    "pattern",
                                    "format",
                                    "minimum",
                                    "maximum",
                                    "exclusiveMinimum",
                                    "exclusiveMaximum",
                                    NULL};
static const char *const silent[] = {"$schema",         "$id",           "id",          "$comment",
                                     "$defs",           "definitions",   "title",       "description",
                                     "default",         "examples",      "example",     "deprecated",
                                     "readOnly",        "writeOnly",     "$vocabulary", "contentMediaType",
                                     "contentEncoding", "contentSchema", NULL};

static bool is_in(const char *const *list, const char *word) {
    for (; *list; list++)
        if (strcmp(*list, word) == 0) return true;
    return false;
}

/* Keywords whose value makes them say nothing. */
static bool says_nothing(const char *key, const json_t *v) {
    if (strcmp(key, "uniqueItems") == 0) return json_is_false(v);
    if (strcmp(key, "patternProperties") == 0) return json_is_object(v) && json_object_size(v) == 0;
    return strncmp(key, "x-", 2) == 0 || is_in(silent, key);
}

void gram_schema_refuse(gram_schema *c, const char *keyword, const char *why) {
    gram_fail(c->p, SQUISH_UNSUPPORTED, "schema: '%.60s' %s, at '#%s'", keyword, why, c->path);
}

static bool check_words(gram_schema *c, const json_t *schema) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)schema, key, v) {
        if (is_in(known, key) || says_nothing(key, v)) continue;
        gram_schema_refuse(c, key, "is not supported");
        return false;
    }
    return true;
}

bool gram_schema_count(gram_schema *c, const json_t *schema, const char *keyword, uint32_t initial,
                       uint32_t *out) {
    const json_t *v = json_object_get(schema, keyword);
    *out = initial;
    if (!v) return true;
    const double d = json_is_number(v) ? json_number_value(v) : -1;
    if (d < 0 || d != floor(d)) return gram_schema_refuse(c, keyword, "is no count"), false;
    if (d > SQ_GRAM_REPEAT_MAX) {
        if (initial == GRAM_INF) return true; /* no text is that long */
        return gram_schema_refuse(c, keyword, "is over the limit of 16777216"), false;
    }
    *out = (uint32_t)d;
    return true;
}

gram_sym gram_schema_child(gram_schema *c, const char *step, const json_t *schema) {
    const size_t n = strlen(c->path);
    if (n + 2 < sizeof c->path) snprintf(c->path + n, sizeof c->path - n, "/%s", step);
    const gram_sym s = gram_schema_value(c, schema);
    if (!gram_failed(c->p)) c->path[n] = 0;
    return s;
}

/* ---- references ------------------------------------------------------------------------------- */

/* One step of a JSON pointer, unescaped (RFC 6901, and % of a URI fragment). */
static size_t take_step(const char **at, char *out, size_t n) {
    size_t m = 0;
    const char *s = *at;
    while (*s && *s != '/' && m + 1 < n) {
        unsigned v;
        if (*s == '~' && (s[1] == '0' || s[1] == '1')) {
            out[m++] = s[1] == '0' ? '~' : '/';
            s += 2;
        } else if (*s == '%' && sscanf(s + 1, "%2x", &v) == 1 && s[1] && s[2]) {
            out[m++] = (char)v;
            s += 3;
        } else {
            out[m++] = *s++;
        }
    }
    out[m] = 0;
    *at = s;
    return m;
}

static json_t *resolve(gram_schema *c, const json_t *ref) {
    const char *s = json_string_value(ref);
    char step[256];
    json_t *at = c->root;
    if (!s) return gram_schema_refuse(c, "$ref", "is no string"), NULL;
    if (*s != '#' || (s[1] && s[1] != '/')) {
        gram_fail(c->p, SQUISH_UNSUPPORTED,
                  "schema: '$ref' to '%.60s' is not supported (only #/...), at '#%s'", s, c->path);
        return NULL;
    }
    for (const char *p = s + 1; *p == '/' && at;) {
        p++;
        take_step(&p, step, sizeof step);
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(step, NULL, 10))
                               : json_object_get(at, step);
    }
    if (!at) gram_fail(c->p, SQUISH_INVALID, "schema: '$ref' to '%.60s' leads nowhere, at '#%s'", s, c->path);
    return at;
}

static gram_ref *find_ref(gram_schema *c, const json_t *schema) {
    for (size_t i = 0; i < c->refs.n; i++)
        if (GRAM_AT(c->refs, gram_ref, i).schema == schema) return &GRAM_AT(c->refs, gram_ref, i);
    return NULL;
}

static gram_sym referred(gram_schema *c, const json_t *schema) {
    gram_ref *x = find_ref(c, schema);
    if (x && x->state == REF_DONE) return x->result;
    if (x) {
        if (!x->has_nt) x->nt = gram_nt_new(c->r);
        x->has_nt = true;
        return x->nt | GRAM_NT;
    }
    if (!(x = gram_vec_room(c->p, &c->refs, 1, sizeof *x))) return GRAM_EMPTY;
    *x = (gram_ref){.schema = schema};
    const size_t i = c->refs.n++;
    const gram_sym body = gram_schema_value(c, schema);
    x = &GRAM_AT(c->refs, gram_ref, i); /* the list may have moved */
    x->state = REF_DONE;
    x->result = body;
    if (x->has_nt) {
        gram_nt_define(c->r, x->nt, body);
        x->result = x->nt | GRAM_NT;
    }
    return x->result;
}

/* ---- composition ------------------------------------------------------------------------------ */

static json_t *without(gram_schema *c, const json_t *schema, const char *keyword) {
    json_t *copy = json_copy((json_t *)schema);
    if (!copy || json_array_append_new(c->made, copy) != 0) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
        return NULL;
    }
    json_object_del(copy, keyword);
    return copy;
}

/* Does a schema, apart from one keyword, say anything? */
static bool says_more(const json_t *schema, const char *keyword) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)schema, key,
                        v) if (strcmp(key, keyword) != 0 && !says_nothing(key, v)) return true;
    return false;
}

static json_t *target_of(gram_schema *c, json_t *schema) {
    for (int i = 0; i < DEPTH_MAX && schema && json_object_get(schema, "$ref"); i++) {
        if (says_more(schema, "$ref")) break;
        schema = resolve(c, json_object_get(schema, "$ref"));
    }
    return schema;
}

static gram_sym all_of(gram_schema *c, const json_t *schema) {
    const json_t *list = json_object_get(schema, "allOf");
    const json_t *at = without(c, schema, "allOf");
    if (!json_is_array(list)) return gram_schema_refuse(c, "allOf", "is no array"), GRAM_EMPTY;
    for (size_t i = 0; i < json_array_size(list) && at; i++) {
        json_t *x = target_of(c, json_array_get(list, i));
        at = x ? gram_schema_merge(c, at, x) : NULL;
    }
    return at ? gram_schema_value(c, at) : GRAM_EMPTY;
}

static bool disjoint_sets(const json_t *a, const json_t *b) {
    const json_t *x = json_object_get(a, "enum"), *y = json_object_get(b, "enum");
    const json_t *u = json_object_get(a, "const"), *v = json_object_get(b, "const");
    if (!(u || json_array_size(x)) || !(v || json_array_size(y))) return false;
    const size_t n = u ? 1 : json_array_size(x), m = v ? 1 : json_array_size(y);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++)
            if (json_equal(u ? u : json_array_get(x, i), v ? v : json_array_get(y, k))) return false;
    return true;
}

static bool has_type(const json_t *schema, const char *name) {
    const json_t *t = json_object_get(schema, "type"), *x;
    size_t i;
    if (!t) return true;
    if (json_is_string(t)) return strcmp(json_string_value(t), name) == 0;
    json_array_foreach((json_t *)t, i,
                       x) if (json_is_string(x) && strcmp(json_string_value(x), name) == 0) return true;
    return false;
}

static bool takes(const json_t *schema, const char *name) {
    return has_type(schema, name) || ((strcmp(name, "integer") == 0 || strcmp(name, "number") == 0) &&
                                      (has_type(schema, "number") || has_type(schema, "integer")));
}

/* Both are objects only, and a property that both require has values of which none is in both. */
static bool told_apart(const json_t *a, const json_t *b) {
    const json_t *x = json_object_get(a, "properties"), *y = json_object_get(b, "properties");
    const json_t *ra = json_object_get(a, "required"), *rb = json_object_get(b, "required");
    for (size_t i = 0; i < json_array_size(ra); i++)
        for (size_t k = 0; k < json_array_size(rb); k++) {
            const json_t *key = json_array_get(ra, i);
            if (!json_is_string(key) || !json_equal(key, json_array_get(rb, k))) continue;
            if (disjoint_sets(json_object_get(x, json_string_value(key)),
                              json_object_get(y, json_string_value(key))))
                return true;
        }
    return false;
}

static bool disjoint(const json_t *a, const json_t *b) {
    static const char *const types[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    if (json_is_false(a) || json_is_false(b)) return true;
    if (!json_is_object(a) || !json_is_object(b)) return false;
    if (disjoint_sets(a, b)) return true;
    bool common = false, objects = false;
    for (size_t i = 0; i < SQ_COUNT(types); i++) {
        if (!takes(a, types[i]) || !takes(b, types[i])) continue;
        if (i + 1 == SQ_COUNT(types))
            objects = true;
        else
            common = true;
    }
    return !common && (!objects || told_apart(a, b));
}

static bool all_disjoint(gram_schema *c, const json_t *list) {
    const size_t n = json_array_size(list);
    if (n > 1000) return gram_schema_refuse(c, "oneOf", "has over 1000 branches"), false;
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++) {
            const json_t *a = target_of(c, json_array_get(list, i)),
                         *b = target_of(c, json_array_get(list, k));
            if (!a || !b) return false;
            if (!disjoint(a, b))
                return gram_schema_refuse(c, "oneOf", "has branches that are not provably disjoint"), false;
        }
    return true;
}

static gram_sym some_of(gram_schema *c, const json_t *schema, const char *keyword) {
    const json_t *list = json_object_get(schema, keyword);
    if (!json_is_array(list)) return gram_schema_refuse(c, keyword, "is no array"), GRAM_EMPTY;
    if (strcmp(keyword, "oneOf") == 0 && !all_disjoint(c, list)) return GRAM_EMPTY;
    const bool more = says_more(schema, keyword);
    const json_t *rest = more ? without(c, schema, keyword) : NULL;
    gram_vec syms = {0};
    for (size_t i = 0; i < json_array_size(list) && !gram_failed(c->p); i++) {
        json_t *x = json_array_get(list, i);
        if (more) x = target_of(c, x);
        const json_t *branch = !more ? x : x ? gram_schema_merge(c, rest, x) : NULL;
        const gram_sym s = branch ? gram_schema_child(c, keyword, branch) : GRAM_EMPTY;
        gram_vec_push_u32(c->p, &syms, s);
    }
    const gram_sym all = gram_failed(c->p) ? GRAM_EMPTY : gram_either(c->r, syms.p, syms.n);
    gram_vec_free(c->p, &syms, sizeof(gram_sym));
    return all;
}

/* ---- values ----------------------------------------------------------------------------------- */

/* The text of a number, string, true, false or null, in a buffer. */
static bool put_scalar(const json_t *v, sq_buf *b) {
    const size_t flags = JSON_ENCODE_ANY | JSON_COMPACT;
    char *s = json_dumps(v, flags | JSON_REAL_PRECISION(15));
    if (s && json_is_real(v) && strtod(s, NULL) != json_real_value(v)) {
        free(s); /* jansson's */
        s = json_dumps(v, flags | JSON_REAL_PRECISION(17));
    }
    const bool ok = s && sq_buf_puts(b, s);
    free(s); /* jansson's */
    return ok;
}

static gram_term literal_value(gram_schema *c, const json_t *v) {
    gram_pool *p = c->p;
    if (json_is_array(v) || json_is_object(v)) {
        const bool object = json_is_object(v);
        const gram_term space = gram_space_inside(p, c->loose), comma = gram_comma(p, c->loose);
        gram_term t = gram_cat(p, gram_literal(p, object ? "{" : "[", 1), space);
        size_t i, n;
        const char *key;
        json_t *x;
        bool first = true;
        json_array_foreach((json_t *)v, i, x) {
            t = gram_cat(p, t, gram_cat(p, first ? GRAM_EPS : comma, literal_value(c, x)));
            first = false;
        }
        json_object_keylen_foreach((json_t *)v, key, n, x) {
            const gram_term k = gram_quoted(p, gram_text(p, key, n, GRAM_IN_JSON));
            const gram_term one = gram_cat(p, k, gram_cat(p, gram_colon(p, c->loose), literal_value(c, x)));
            t = gram_cat(p, t, gram_cat(p, first ? GRAM_EPS : comma, one));
            first = false;
        }
        return gram_cat(p, t, gram_cat(p, first ? GRAM_EPS : space, gram_literal(p, object ? "}" : "]", 1)));
    }
    sq_buf b;
    sq_buf_init(&b, &p->alloc, SQ_GRAM_SOURCE_MAX * 2);
    if (!put_scalar(v, &b)) gram_fail(p, SQUISH_NO_MEMORY, "schema: out of memory");
    const gram_term t = gram_failed(p) ? GRAM_EMPTY : gram_literal(p, b.data, b.len);
    sq_buf_deinit(&b);
    return t;
}

static const char *type_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "object";
    case JSON_ARRAY: return "array";
    case JSON_STRING: return "string";
    case JSON_INTEGER: return "integer";
    case JSON_REAL: return "number";
    case JSON_NULL: return "null";
    default: return "boolean";
    }
}

static bool is_typed(const json_t *schema, const json_t *v) {
    const char *t = type_of(v);
    return has_type(schema, t) || (strcmp(t, "integer") == 0 && has_type(schema, "number")) ||
           (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)) &&
            has_type(schema, "integer"));
}

/* enum or const; what else is said about the values is only their type. */
static gram_sym one_of_values(gram_schema *c, const json_t *schema) {
    static const char *const beside[] = {"enum", "const", "type", NULL};
    const json_t *values = json_object_get(schema, "enum"), *single = json_object_get(schema, "const");
    const char *key;
    json_t *v;
    size_t i;
    json_object_foreach((json_t *)schema, key, v) {
        if (is_in(beside, key) || says_nothing(key, v)) continue;
        return gram_schema_refuse(c, key, "beside enum or const is not supported"), GRAM_EMPTY;
    }
    if (single) {
        bool there = !values;
        json_array_foreach((json_t *)values, i, v) there |= json_equal(v, single);
        return there && is_typed(schema, single) ? literal_value(c, single) : GRAM_EMPTY;
    }
    if (!json_is_array(values)) return gram_schema_refuse(c, "enum", "is no array"), GRAM_EMPTY;
    /* Scalars as texts that share their beginnings, the rest one by one. */
    gram_vec spans = {0}, ends = {0};
    sq_buf b;
    sq_buf_init(&b, &c->p->alloc, SQ_GRAM_SOURCE_MAX * 4);
    gram_term t = GRAM_EMPTY;
    json_array_foreach((json_t *)values, i, v) {
        if (!is_typed(schema, v)) continue;
        if (json_is_array(v) || json_is_object(v))
            t = gram_alt(c->p, t, literal_value(c, v));
        else if (put_scalar(v, &b))
            gram_vec_push_u32(c->p, &ends, (uint32_t)b.len);
        else
            gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
    }
    sq_span *l = gram_vec_room(c->p, &spans, ends.n, sizeof *l);
    for (size_t k = 0; l && k < ends.n; k++) {
        const uint32_t from = k ? GRAM_AT(ends, uint32_t, k - 1) : 0;
        l[k] = (sq_span){(const uint8_t *)b.data + from, GRAM_AT(ends, uint32_t, k) - from};
    }
    if (l && !gram_failed(c->p)) t = gram_alt(c->p, t, gram_texts(c->p, l, ends.n));
    gram_vec_free(c->p, &spans, sizeof *l);
    gram_vec_free(c->p, &ends, sizeof(uint32_t));
    sq_buf_deinit(&b);
    return t;
}

/* minimum and the like, as the tighter of the two forms of a bound; draft 4 has booleans for the open ones.
 */
static bool bound(gram_schema *c, const json_t *schema, bool lower, gram_bound *out) {
    const char *names[] = {lower ? "minimum" : "maximum", lower ? "exclusiveMinimum" : "exclusiveMaximum"};
    *out = (gram_bound){0};
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(schema, names[i]);
        if (!v) continue;
        if (i == 1 && json_is_boolean(v)) {
            out->open |= out->there && json_is_true(v);
            continue;
        }
        const double d = json_is_number(v) ? json_number_value(v) : NAN;
        if (!(d == floor(d)) || fabs(d) >= 9e15)
            return gram_schema_refuse(c, names[i], "is no whole number below 9e15, which is not supported"),
                   false;
        const int64_t x = (int64_t)d;
        if (!out->there || (lower ? x >= out->value : x <= out->value)) *out = (gram_bound){true, i == 1, x};
    }
    return true;
}

static gram_term numbers(gram_schema *c, const json_t *schema, bool integer) {
    gram_bound lo, hi;
    if (!bound(c, schema, true, &lo) || !bound(c, schema, false, &hi)) return GRAM_EMPTY;
    if (!integer) return gram_number_range(c->p, &lo, &hi);
    return gram_integer_range(c->p, lo.there, lo.value + lo.open, hi.there, hi.value - hi.open);
}

static bool type_is_known(const json_t *t) {
    static const char *const types[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object",  NULL};
    return json_is_string(t) && is_in(types, json_string_value(t));
}

static gram_sym by_type(gram_schema *c, const json_t *schema) {
    gram_pool *p = c->p;
    const json_t *t = json_object_get(schema, "type"), *x;
    size_t i;
    bool ok = !t || type_is_known(t) || json_is_array(t);
    json_array_foreach((json_t *)t, i, x) ok &= type_is_known(x);
    if (!ok) return gram_schema_refuse(c, "type", "is no type"), GRAM_EMPTY;
    gram_sym s[8];
    size_t n = 0;
    if (has_type(schema, "null")) s[n++] = gram_literal(p, "null", 4);
    if (has_type(schema, "boolean"))
        s[n++] = gram_alt(p, gram_literal(p, "true", 4), gram_literal(p, "false", 5));
    if (has_type(schema, "number"))
        s[n++] = numbers(c, schema, false);
    else if (has_type(schema, "integer"))
        s[n++] = numbers(c, schema, true);
    if (has_type(schema, "string")) s[n++] = gram_schema_string(c, schema);
    if (has_type(schema, "array")) s[n++] = gram_schema_array(c, schema);
    if (has_type(schema, "object")) s[n++] = gram_schema_object(c, schema);
    return gram_failed(p) ? GRAM_EMPTY : gram_either(c->r, s, n);
}

static gram_sym composed(gram_schema *c, const json_t *schema) {
    const json_t *ref = json_object_get(schema, "$ref");
    if (ref) {
        json_t *target = resolve(c, ref);
        if (!target) return GRAM_EMPTY;
        if (!says_more(schema, "$ref")) return referred(c, target);
        const json_t *rest = without(c, schema, "$ref");
        const json_t *both = rest ? gram_schema_merge(c, rest, target) : NULL;
        return both ? gram_schema_value(c, both) : GRAM_EMPTY;
    }
    if (json_object_get(schema, "allOf")) return all_of(c, schema);
    if (json_object_get(schema, "anyOf")) return some_of(c, schema, "anyOf");
    if (json_object_get(schema, "oneOf")) return some_of(c, schema, "oneOf");
    if (json_object_get(schema, "enum") || json_object_get(schema, "const")) return one_of_values(c, schema);
    if (!says_more(schema, "")) return gram_any_json(c->p, c->loose, false);
    return by_type(c, schema);
}

gram_sym gram_schema_value(gram_schema *c, const json_t *schema) {
    if (gram_failed(c->p)) return GRAM_EMPTY;
    if (json_is_true(schema)) return gram_any_json(c->p, c->loose, false);
    if (json_is_false(schema)) return GRAM_EMPTY;
    if (!json_is_object(schema)) {
        gram_fail(c->p, SQUISH_INVALID, "schema: neither an object nor a boolean, at '#%s'", c->path);
        return GRAM_EMPTY;
    }
    if (c->depth >= DEPTH_MAX) {
        gram_fail(c->p, SQUISH_NO_MEMORY, "schema: over the limit of %d schemas in each other, at '#%s'",
                  DEPTH_MAX, c->path);
        return GRAM_EMPTY;
    }
    if (!check_words(c, schema)) return GRAM_EMPTY;
    c->depth++;
    const gram_sym s = composed(c, schema);
    c->depth--;
    return s;
}

gram_sym gram_from_schema_value(gram_rules *r, json_t *root, bool loose) {
    gram_schema c = {.r = r, .p = r->p, .root = root, .loose = loose, .made = json_array()};
    gram_sym start = GRAM_EMPTY;
    if (!c.made)
        gram_fail(r->p, SQUISH_NO_MEMORY, "schema: out of memory");
    else
        start = referred(&c, root);
    if (loose && !gram_failed(r->p)) {
        const gram_term space = gram_space_inside(r->p, true);
        start = gram_seq(r, (gram_sym[]){space, start, space}, 3);
    }
    gram_vec_free(r->p, &c.refs, sizeof(gram_ref));
    json_decref(c.made);
    return start;
}

gram_sym gram_from_schema(gram_rules *r, const char *s, size_t n, bool loose) {
    json_t *root = NULL;
    squish_error err = {0};
    gram_sym start = GRAM_EMPTY;
    if (sq_json_parse(s, n, SQ_JSON_DEPTH_SCHEMA, "schema", &root, &err) != SQUISH_OK)
        gram_fail(r->p, err.code == SQUISH_CORRUPT ? SQUISH_INVALID : err.code, "%s", err.text);
    else
        start = gram_from_schema_value(r, root, loose);
    json_decref(root);
    return start;
}
