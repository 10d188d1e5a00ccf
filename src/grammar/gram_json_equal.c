/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_equal.c - values of `enum` and `const` as cases.
 *
 * Numbers and strings are listed by an atom; an array or object is said by a schema of its own, so that
 * equality can be multiplied and turned round like everything else. */
#include "grammar/gram_json_int.h"

#include <math.h>
#include <string.h>

uint32_t gram_types_of(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_NULL: return TYPE_NULL;
    case JSON_FALSE: return TYPE_FALSE;
    case JSON_TRUE: return TYPE_TRUE;
    case JSON_INTEGER: return TYPE_WHOLE;
    case JSON_REAL: return json_real_value(v) == floor(json_real_value(v)) ? TYPE_WHOLE : TYPE_FRACTION;
    case JSON_STRING: return TYPE_STRING;
    case JSON_ARRAY: return TYPE_ARRAY;
    default: return TYPE_OBJECT;
    }
}

/* A schema that an array or object alone satisfies; NULL without memory. */
static json_t *as_schema(const json_t *v) {
    json_t *parts = json_is_array(v) ? json_array() : json_object(), *names = json_array(), *x;
    const char *name;
    size_t i;
    if (json_is_array(v)) {
        json_array_foreach((json_t *)v, i, x) json_array_append_new(parts, json_pack("{s:O}", "const", x));
        json_decref(names);
        return json_pack("{s:s, s:o, s:b, s:I}", "type", "array", "prefixItems", parts, "items", 0,
                         "minItems", (json_int_t)json_array_size(v));
    }
    json_object_foreach((json_t *)v, name, x) {
        json_object_set_new(parts, name, json_pack("{s:O}", "const", x));
        json_array_append_new(names, json_string(name));
    }
    return json_pack("{s:s, s:o, s:b, s:o}", "type", "object", "properties", parts, "additionalProperties", 0,
                     "required", names);
}

/* The claim of an array or object. Equality evaluates nothing, so it is said under two `not`. */
static gram_claim structure(gram_schema *c, const json_t *v) {
    json_t *s = as_schema(v);
    if (c->evaluates) s = json_pack("{s:{s:o}}", "not", "not", s);
    s = gram_schema_keep(c, s);
    return s ? gram_claim_schema(c, s) : gram_claim_never(c);
}

static uint32_t scalar_types(const json_t *list) {
    const json_t *v;
    uint32_t types = 0;
    size_t i;
    json_array_foreach((json_t *)list, i, v) types |= gram_types_of(v);
    return types & ~(uint32_t)(TYPE_ARRAY | TYPE_OBJECT);
}

gram_cases gram_values_hold(gram_schema *c, const json_t *list) {
    const gram_atom listed = {.kind = ATOM_VALUES, .value = list};
    gram_cases any = gram_cases_one(c, scalar_types(list), &listed, 1);
    const json_t *v;
    size_t i;
    json_array_foreach((json_t *)list, i, v) {
        if (gram_types_of(v) & (TYPE_ARRAY | TYPE_OBJECT))
            any = gram_cases_either(c, any, gram_claim_cases(c, structure(c, v)));
    }
    return any;
}

gram_cases gram_value_fails(gram_schema *c, const json_t *list) {
    const gram_atom listed = {.kind = ATOM_VALUES, .value = list, .negative = true};
    const uint32_t single = scalar_types(list) & (TYPE_NULL | TYPE_FALSE | TYPE_TRUE);
    gram_cases all = gram_cases_one(c, TYPE_ALL & ~single, &listed, 1);
    const json_t *v;
    size_t i;
    json_array_foreach((json_t *)list, i, v) {
        if (gram_types_of(v) & (TYPE_ARRAY | TYPE_OBJECT))
            all = gram_cases_both(c, all, gram_claim_cases(c, gram_claim_not(structure(c, v))));
    }
    return all;
}
