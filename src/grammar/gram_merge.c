/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_merge.c - two schemas that must both hold, as one.
 *
 * Each keyword has its way: sets are cut, counts and bounds take the tighter one, lists of names are joined,
 * schemas of the same place become an allOf that is taken apart when it is read. Where there is no such way
 * the keyword is refused. */
#include "grammar/gram_json_int.h"

#include <string.h>

typedef enum { SAME, TIGHT_LOW, TIGHT_HIGH, BOTH, NAMES, TYPES, VALUES, PROPERTIES, LISTS, FIRST } way;

static const struct {
    const char *keyword;
    way how;
} ways[] = {
    {"type", TYPES},
    {"enum", VALUES},
    {"properties", PROPERTIES},
    {"required", NAMES},
    {"additionalProperties", BOTH},
    {"items", BOTH},
    {"additionalItems", BOTH},
    {"allOf", LISTS},
    {"minLength", TIGHT_LOW},
    {"minItems", TIGHT_LOW},
    {"minProperties", TIGHT_LOW},
    {"minimum", TIGHT_LOW},
    {"exclusiveMinimum", TIGHT_LOW},
    {"maxLength", TIGHT_HIGH},
    {"maxItems", TIGHT_HIGH},
    {"maxProperties", TIGHT_HIGH},
    {"maximum", TIGHT_HIGH},
    {"exclusiveMaximum", TIGHT_HIGH},
    {"title", FIRST},
    {"description", FIRST},
    {"default", FIRST},
    {"examples", FIRST},
    {"$comment", FIRST},
    {"$schema", FIRST},
    {"$id", FIRST},
    {"$defs", FIRST},
    {"definitions", FIRST},
};

static way way_of(const char *keyword) {
    for (size_t i = 0; i < SQ_COUNT(ways); i++)
        if (strcmp(ways[i].keyword, keyword) == 0) return ways[i].how;
    return SAME;
}

static json_t *both(json_t *a, json_t *b) {
    if (json_equal(a, b)) return json_incref(a);
    return json_pack("{s:[O, O]}", "allOf", a, b);
}

static bool holds(const json_t *list, const json_t *x) {
    size_t i;
    json_t *y;
    json_array_foreach((json_t *)list, i, y) if (json_equal(x, y)) return true;
    return false;
}

/* Items of a that are in b, too; with join: a, and what b has besides. */
static json_t *cut(json_t *a, const json_t *b, bool join) {
    json_t *out = join ? json_copy(a) : json_array(), *x;
    size_t i;
    if (join) {
        json_array_foreach((json_t *)b, i, x) if (!holds(a, x)) json_array_append(out, x);
        return out;
    }
    json_array_foreach(a, i, x) if (holds(b, x)) json_array_append(out, x);
    return out;
}

static json_t *as_list(json_t *t) { return json_is_array(t) ? json_incref(t) : json_pack("[O]", t); }

static bool takes_number(const json_t *list) {
    size_t i;
    json_t *x;
    json_array_foreach((json_t *)list, i,
                       x) if (json_is_string(x) && strcmp(json_string_value(x), "number") == 0) return true;
    return false;
}

/* number holds the integers. */
static json_t *common_types(json_t *a, json_t *b) {
    json_t *x = as_list(a), *y = as_list(b), *integer = json_string("integer");
    json_t *out = cut(x, y, false);
    if (!holds(out, integer) && !takes_number(out) &&
        ((holds(x, integer) && takes_number(y)) || (takes_number(x) && holds(y, integer))))
        json_array_append(out, integer);
    json_decref(integer);
    json_decref(x);
    json_decref(y);
    return out;
}

/* What a schema says of the members it does not declare, or NULL. */
static json_t *extra_of(const json_t *schema) { return json_object_get(schema, "additionalProperties"); }

static void add_one_sided(json_t *out, json_t *from, const json_t *others, const json_t *other_schema) {
    const char *key;
    json_t *x;
    json_object_foreach(from, key, x) {
        json_t *y = json_object_get(others, key), *extra = extra_of(other_schema);
        if (json_object_get(out, key)) continue;
        if (y)
            json_object_set_new(out, key, both(x, y));
        else if (extra)
            json_object_set_new(out, key, both(x, extra));
        else
            json_object_set(out, key, x);
    }
}

static json_t *properties(const json_t *a, const json_t *b) {
    json_t *x = json_object_get(a, "properties"), *y = json_object_get(b, "properties"), *out = json_object();
    add_one_sided(out, x, y, b);
    add_one_sided(out, y, x, a);
    return out;
}

static json_t *combine(gram_schema *c, const char *key, json_t *x, json_t *y) {
    if (json_equal(x, y)) return json_incref(x);
    const way how = way_of(key);
    switch (how) {
    case TIGHT_LOW:
    case TIGHT_HIGH:
        if (!json_is_number(x) || !json_is_number(y)) break;
        return json_incref((json_number_value(x) >= json_number_value(y)) == (how == TIGHT_LOW) ? x : y);
    case BOTH:
        if (json_is_array(x) || json_is_array(y)) break;
        return both(x, y);
    case NAMES:
    case LISTS: return json_is_array(x) && json_is_array(y) ? cut(x, y, true) : NULL;
    case VALUES: return json_is_array(x) && json_is_array(y) ? cut(x, y, false) : NULL;
    case TYPES: return common_types(x, y);
    case FIRST: return json_incref(x);
    default: break;
    }
    gram_schema_refuse(c, key, "is said twice and differently, which is not supported");
    return NULL;
}

static void set(gram_schema *c, json_t *o, const char *key, json_t *v) {
    if (!v || json_object_set_new(o, key, v) != 0) gram_fail(c->p, SQUISH_NO_MEMORY, "schema: out of memory");
}

static bool has_prefix(const json_t *schema) {
    return json_object_get(schema, "prefixItems") || json_is_array(json_object_get(schema, "items"));
}

json_t *gram_schema_merge(gram_schema *c, const json_t *a, const json_t *b) {
    const char *key;
    json_t *y;
    if (json_is_true(a)) return (json_t *)b;
    if (json_is_true(b)) return (json_t *)a;
    if (json_is_false(a)) return (json_t *)a;
    if (json_is_false(b)) return (json_t *)b;
    /* A list of items on one side only: what the other says of all items would have to enter it. */
    if (has_prefix(a) != has_prefix(b) && (json_object_get(a, "items") || json_object_get(b, "items"))) {
        gram_schema_refuse(c, "prefixItems", "beside items of another schema is not supported");
        return NULL;
    }
    json_t *out = json_is_object(a) && json_is_object(b) ? json_copy((json_t *)a) : NULL;
    if (!out || json_array_append_new(c->made, out) != 0) {
        gram_fail(c->p, SQUISH_INVALID, "schema: neither an object nor a boolean, at '#%s'", c->path);
        return NULL;
    }
    json_object_foreach((json_t *)b, key, y) {
        json_t *x = json_object_get(a, key);
        if (way_of(key) == PROPERTIES) continue;
        json_t *v = x ? combine(c, key, x, y) : json_incref(y);
        if (gram_failed(c->p)) {
            json_decref(v);
            return NULL;
        }
        set(c, out, key, v);
    }
    /* Also where only one has properties: the other may forbid them. */
    if (json_object_get(a, "properties") || json_object_get(b, "properties"))
        set(c, out, "properties", properties(a, b));
    return gram_failed(c->p) ? NULL : out;
}
