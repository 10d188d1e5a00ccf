/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json.c - JSON itself, white space, strings and arrays of a schema.
 *
 * White space is bounded where a model writes: after a comma or a colon one blank, or a new line with at most
 * 40 blanks, and the same new line inside of brackets; else a model that likes blanks never comes to an end.
 */
#include "grammar/gram_json_int.h"

#include <string.h>

enum { INDENT_MAX = 40 };

static gram_term lit(gram_pool *p, const char *s) { return gram_literal(p, s, strlen(s)); }

static gram_term any_space(gram_pool *p) {
    gram_term t = lit(p, " ");
    for (const char *c = "\t\n\r"; *c; c++) t = gram_alt(p, t, gram_literal(p, c, 1));
    return gram_rep(p, t, 0, GRAM_INF);
}

static gram_term new_line(gram_pool *p) {
    return gram_cat(p, lit(p, "\n"), gram_rep(p, lit(p, " "), 0, INDENT_MAX));
}

gram_term gram_space_inside(gram_pool *p, bool loose) {
    return loose ? any_space(p) : gram_opt(p, gram_alt(p, lit(p, " "), new_line(p)));
}

gram_term gram_comma(gram_pool *p, bool loose) {
    if (loose) return gram_cat(p, any_space(p), gram_cat(p, lit(p, ","), any_space(p)));
    return gram_cat(p, lit(p, ","), gram_opt(p, gram_alt(p, lit(p, " "), new_line(p))));
}

gram_term gram_colon(gram_pool *p, bool loose) {
    if (loose) return gram_cat(p, any_space(p), gram_cat(p, lit(p, ":"), any_space(p)));
    return gram_cat(p, lit(p, ":"), gram_opt(p, lit(p, " ")));
}

gram_term gram_quoted(gram_pool *p, gram_term inside) {
    return gram_cat(p, lit(p, "\""), gram_cat(p, inside, lit(p, "\"")));
}

gram_term gram_json_string(gram_pool *p) {
    return gram_quoted(p, gram_rep(p, gram_any_char(p, GRAM_IN_JSON), 0, GRAM_INF));
}

/* open (item (, item)*)? close */
static gram_term bracketed(gram_pool *p, const char *open, gram_term item, const char *close, bool loose) {
    const gram_term space = gram_space_inside(p, loose);
    const gram_term more = gram_rep(p, gram_cat(p, gram_comma(p, loose), item), 0, GRAM_INF);
    const gram_term items = gram_opt(p, gram_cat(p, item, gram_cat(p, more, space)));
    return gram_cat(p, lit(p, open), gram_cat(p, space, gram_cat(p, items, lit(p, close))));
}

/* Level by level: a value of depth d is made of values of depth d - 1, each one term. */
gram_term gram_any_json(gram_pool *p, bool loose, bool object) {
    const gram_term key = gram_cat(p, gram_json_string(p), gram_colon(p, loose));
    const size_t base = p->scratch.n;
    gram_vec_push_u32(p, &p->scratch, gram_json_string(p));
    gram_vec_push_u32(p, &p->scratch, gram_json_number(p));
    for (const char *const *w = (const char *const[]){"true", "false", "null", NULL}; *w; w++)
        gram_vec_push_u32(p, &p->scratch, lit(p, *w));
    const gram_term scalar = gram_alt_list(p, base);
    gram_term value = scalar, o = GRAM_EMPTY;
    for (int d = 0; d < GRAM_JSON_DEPTH && !gram_failed(p); d++) {
        o = bracketed(p, "{", gram_cat(p, key, value), "}", loose);
        const gram_term a = bracketed(p, "[", value, "]", loose);
        value = gram_alt(p, scalar, gram_alt(p, o, a));
    }
    return object ? o : value;
}

/* ---- strings ---------------------------------------------------------------------------------- */

gram_term gram_schema_string(gram_schema *c, const json_t *schema) {
    gram_pool *p = c->p;
    uint32_t lo, hi;
    if (!gram_schema_count(c, schema, "minLength", 0, &lo) ||
        !gram_schema_count(c, schema, "maxLength", GRAM_INF, &hi))
        return GRAM_EMPTY;
    if (hi < lo) return GRAM_EMPTY;
    gram_term t = gram_rep(p, gram_any_char(p, GRAM_IN_JSON), lo, hi);
    const bool bounded = lo > 0 || hi != GRAM_INF;
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    if (pattern && !json_is_string(pattern))
        return gram_schema_refuse(c, "pattern", "is no string"), GRAM_EMPTY;
    if (format && !json_is_string(format)) return gram_schema_refuse(c, "format", "is no string"), GRAM_EMPTY;
    bool first = !bounded;
    if (pattern) {
        const gram_term x = gram_regex(p, json_string_value(pattern), json_string_length(pattern),
                                       GRAM_IN_JSON, false, "pattern");
        t = first ? x : gram_and(p, t, x);
        first = false;
    }
    if (format) {
        const char *regex = gram_format(json_string_value(format));
        if (!regex) return gram_schema_refuse(c, "format", "is not known"), GRAM_EMPTY;
        const gram_term x = gram_regex(p, regex, strlen(regex), GRAM_IN_JSON, true, "format");
        t = first ? x : gram_and(p, t, x);
    }
    return gram_quoted(p, t);
}

/* ---- arrays ----------------------------------------------------------------------------------- */

/* prefixItems, or items as a list, as they were until 2019-09; the schema of the rest in *rest (NULL: any).
 */
static const json_t *prefix_of(const json_t *schema, const json_t **rest) {
    const json_t *prefix = json_object_get(schema, "prefixItems"), *items = json_object_get(schema, "items");
    *rest = items;
    if (json_is_array(items)) {
        *rest = json_object_get(schema, "additionalItems");
        return items;
    }
    return prefix;
}

/* Items from i on: [i] may be left out once min are there. */
gram_sym gram_schema_array(gram_schema *c, const json_t *schema) {
    gram_pool *p = c->p;
    gram_rules *r = c->r;
    uint32_t lo, hi;
    const json_t *rest, *prefix = prefix_of(schema, &rest);
    if (!gram_schema_count(c, schema, "minItems", 0, &lo) ||
        !gram_schema_count(c, schema, "maxItems", GRAM_INF, &hi))
        return GRAM_EMPTY;
    if (hi < lo) return GRAM_EMPTY;
    if (prefix && !json_is_array(prefix))
        return gram_schema_refuse(c, "prefixItems", "is no array"), GRAM_EMPTY;
    const uint32_t n = (uint32_t)json_array_size(prefix);
    const gram_term comma = gram_comma(p, c->loose), space = gram_space_inside(p, c->loose);
    const gram_sym item = rest ? gram_schema_child(c, "items", rest) : gram_any_json(p, c->loose, false);
    /* tail: what follows item i - 1, from the last one down. */
    const uint32_t left_lo = lo > n ? lo - n : 0, left_hi = hi == GRAM_INF ? GRAM_INF : hi > n ? hi - n : 0;
    const gram_sym further[] = {comma, item};
    gram_sym tail = gram_repeat(r, gram_seq(r, further, 2), left_lo, left_hi);
    if (n == 0) {
        const gram_sym many[] = {item, gram_repeat(r, gram_seq(r, further, 2), lo ? lo - 1 : 0,
                                                   hi == GRAM_INF || hi == 0 ? hi : hi - 1)};
        tail = hi == 0 ? GRAM_EPS : gram_seq(r, many, 2);
        if (lo == 0) tail = gram_either(r, (gram_sym[]){tail, GRAM_EPS}, 2);
    }
    for (uint32_t i = n; i-- > 0 && !gram_failed(p);) {
        const gram_sym x = gram_schema_child(c, "prefixItems", json_array_get(prefix, i));
        const gram_sym here[] = {i ? comma : GRAM_EPS, x, tail};
        tail = i >= hi ? GRAM_EPS : gram_seq(r, here, 3);
        if (i >= lo) tail = gram_either(r, (gram_sym[]){tail, GRAM_EPS}, 2);
    }
    const gram_sym all[] = {lit(p, "["), space, tail, space, lit(p, "]")};
    return gram_seq(r, all, SQ_COUNT(all));
}
