/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_words.c - what the keywords of a schema say, as cases: that it holds, and that it does not.
 *
 * A keyword that is not known says nothing, as JSON Schema has it. One that is known and cannot be said
 * exactly is refused by name. */
#include "grammar/gram_json_int.h"

#include <math.h>
#include <string.h>

/* What a schema in the making has said so far: atoms of the one case that needs no multiplying. */
typedef struct {
    gram_schema *c;
    const json_t *schema;
    bool holds;
    gram_vec atoms;   /* gram_atom, if it is to hold */
    uint32_t types;   /* that are left */
    gram_cases cases; /* holds: the product of the others; else: the sum of the ways not to hold */
} saying;

static void say(saying *s, gram_atom x) {
    x.schema = s->schema;
    if (!s->holds) {
        const gram_cases one = gram_cases_one(s->c, gram_atom_types(x.kind), &x, 1);
        s->cases = gram_cases_either(s->c, s->cases, one);
        return;
    }
    gram_atom *to = gram_vec_room(s->c->p, &s->atoms, 1, sizeof *to);
    if (!to) return;
    *to = x;
    s->atoms.n++;
}

/* One way not to hold that needs more than one atom. */
static void fail_by(saying *s, uint32_t type, const gram_atom *atoms, size_t n) {
    s->cases = gram_cases_either(s->c, s->cases, gram_cases_one(s->c, type, atoms, n));
}

static void invalid(saying *s, const char *key, const char *why) {
    gram_schema_invalid(s->c, s->schema, key, why);
}

/* ---- type ------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint32_t types;
} type_names[] = {{"null", TYPE_NULL},     {"boolean", TYPE_TRUE | TYPE_FALSE},
                  {"integer", TYPE_WHOLE}, {"number", TYPE_NUMBER},
                  {"string", TYPE_STRING}, {"array", TYPE_ARRAY},
                  {"object", TYPE_OBJECT}, {"any", TYPE_ALL}};

static uint32_t type_of(saying *s, const json_t *name) {
    for (size_t i = 0; i < SQ_COUNT(type_names) && json_is_string(name); i++)
        if (strcmp(type_names[i].name, json_string_value(name)) == 0) return type_names[i].types;
    invalid(s, "type", "is no type");
    return 0;
}

static void say_type(saying *s, const char *key, const json_t *v) {
    (void)key;
    uint32_t types = 0;
    const json_t *x;
    size_t i;
    if (!json_is_array(v))
        types = type_of(s, v);
    else
        json_array_foreach((json_t *)v, i, x) types |= type_of(s, x);
    if (s->holds)
        s->types &= types;
    else
        fail_by(s, TYPE_ALL & ~types, NULL, 0);
}

/* ---- counts, bounds and texts ----------------------------------------------------------------- */

static bool count_of(saying *s, const char *key, const json_t *v, uint32_t *out) {
    const double d = json_is_number(v) ? json_number_value(v) : -1;
    if (d < 0 || d != floor(d)) return invalid(s, key, "is no count"), false;
    *out = d > SQ_GRAM_REPEAT_MAX ? SQ_GRAM_REPEAT_MAX + 1 : (uint32_t)d;
    return true;
}

/* No text is as long as the limit: as an upper end it says nothing; as a lower one it cannot be met. */
static void say_count(saying *s, gram_atom_kind low, gram_atom_kind high, bool is_low, const char *key,
                      const json_t *v) {
    uint32_t n;
    if (!count_of(s, key, v, &n)) return;
    const bool beyond = n > SQ_GRAM_REPEAT_MAX;
    if (beyond && is_low) {
        gram_schema_refuse(s->c, s->schema, key, "is over the limit of 16777216");
        return;
    }
    if (s->holds && !beyond && !(is_low && n == 0))
        say(s, (gram_atom){.kind = is_low ? low : high, .lo = n});
    else if (!s->holds && is_low && n > 0)
        say(s, (gram_atom){.kind = high, .lo = n - 1});
    else if (!s->holds && !is_low && !beyond)
        say(s, (gram_atom){.kind = low, .lo = n + 1});
}

static void say_length(saying *s, const char *key, const json_t *v) {
    say_count(s, ATOM_MIN_LENGTH, ATOM_MAX_LENGTH, key[1] == 'i', key, v);
}
static void say_n_items(saying *s, const char *key, const json_t *v) {
    say_count(s, ATOM_MIN_ITEMS, ATOM_MAX_ITEMS, key[1] == 'i', key, v);
}
static void say_n_members(saying *s, const char *key, const json_t *v) {
    say_count(s, ATOM_MIN_MEMBERS, ATOM_MAX_MEMBERS, key[1] == 'i', key, v);
}

/* Of draft 4: a boolean beside the bound says that it is open. */
static void say_bound(saying *s, const char *key, const json_t *v) {
    if (strncmp(key, "exclusive", 9) == 0 && json_is_boolean(v)) return;
    if (!json_is_number(v)) return invalid(s, key, "is no number");
    const bool upper = strstr(key, "ax") != NULL;
    const char *other = upper ? "exclusiveMaximum" : "exclusiveMinimum";
    const bool open = key[0] == 'e' || json_is_true(json_object_get(s->schema, other));
    static const gram_atom_kind kinds[2][2] = {{ATOM_MINIMUM, ATOM_ABOVE}, {ATOM_MAXIMUM, ATOM_BELOW}};
    /* The opposite of an open lower bound is a closed upper one. */
    const gram_atom_kind k = s->holds ? kinds[upper][open] : kinds[!upper][!open];
    say(s, (gram_atom){.kind = k, .value = v});
}

static void say_multiple(saying *s, const char *key, const json_t *v) {
    if (!json_is_number(v) || !(json_number_value(v) > 0)) return invalid(s, key, "is no number above 0");
    say(s, (gram_atom){.kind = ATOM_MULTIPLE, .value = v, .negative = !s->holds});
}

static void say_text(saying *s, const char *key, const json_t *v) {
    const bool format = key[0] == 'f';
    if (!json_is_string(v)) return invalid(s, key, "is no string");
    if (format && gram_format_is_beyond(json_string_value(v)))
        return gram_schema_refuse(s->c, s->schema, key, "of this kind is not supported");
    if (format && !gram_format_is_known(json_string_value(v)))
        return; /* JSON Schema: what is not known says nothing */
    say(s, (gram_atom){.kind = format ? ATOM_FORMAT : ATOM_PATTERN,
                       .text = json_string_value(v),
                       .n = json_string_length(v),
                       .negative = !s->holds});
}

/* ---- arrays ----------------------------------------------------------------------------------- */

/* prefixItems and items, or items and additionalItems as they were until 2019-09: said once, by the first. */
static void say_items(saying *s, const char *key, const json_t *v) {
    gram_schema *c = s->c;
    const json_t *prefix = json_object_get(s->schema, "prefixItems"),
                 *rest = json_object_get(s->schema, "items");
    const bool listed = json_is_array(rest);
    if (listed) prefix = rest, rest = json_object_get(s->schema, "additionalItems");
    if (strcmp(key, "additionalItems") == 0) return;
    if (strcmp(key, "items") == 0 && !listed && prefix) return;
    if (prefix && !json_is_array(prefix)) return invalid(s, key, "is no array");
    const uint32_t n = (uint32_t)json_array_size(prefix);
    (void)v;
    if (s->holds) return say(s, (gram_atom){.kind = ATOM_ITEMS, .value = prefix, .rest = rest, .lo = n});
    for (uint32_t i = 0; i < n; i++) {
        const gram_claim x = gram_claim_not(gram_claim_schema(c, json_array_get(prefix, i)));
        const gram_atom atoms[] = {{.kind = ATOM_MIN_ITEMS, .lo = i + 1},
                                   {.kind = ATOM_ITEM, .lo = i, .claim = x}};
        fail_by(s, TYPE_ARRAY, atoms, 2);
    }
    if (rest && !json_is_true(rest))
        say(s, (gram_atom){.kind = ATOM_SOME_ITEMS,
                           .claim = gram_claim_not(gram_claim_schema(c, rest)),
                           .lo = 1,
                           .hi = GRAM_INF,
                           .from = n});
}

static void say_contains(saying *s, const char *key, const json_t *v) {
    const json_t *min = json_object_get(s->schema, "minContains"),
                 *max = json_object_get(s->schema, "maxContains");
    uint32_t lo = 1, hi = GRAM_INF;
    (void)key;
    if ((min && !count_of(s, "minContains", min, &lo)) || (max && !count_of(s, "maxContains", max, &hi)))
        return;
    const gram_claim x = gram_claim_schema(s->c, v);
    const gram_atom some = {.kind = ATOM_SOME_ITEMS, .rest = v, .claim = x, .lo = lo, .hi = hi};
    /* It says which items are evaluated even where it takes any number of them. */
    if (s->holds) return say(s, some);
    gram_atom fewer = some, more = some;
    fewer.lo = 0, fewer.hi = lo ? lo - 1 : 0;
    more.lo = hi + 1, more.hi = GRAM_INF;
    if (lo > 0) say(s, fewer);
    if (hi != GRAM_INF) say(s, more);
}

static void say_unique(saying *s, const char *key, const json_t *v) {
    if (json_is_false(v)) return;
    if (!json_is_true(v)) return invalid(s, key, "is no boolean");
    if (s->holds) return say(s, (gram_atom){.kind = ATOM_UNIQUE});
    gram_schema_refuse(s->c, s->schema, key, "under 'not' is not supported");
}

/* ---- objects ---------------------------------------------------------------------------------- */

static void fail_member(saying *s, const char *name, size_t n, gram_claim x) {
    const gram_atom atoms[] = {{.kind = ATOM_HAS, .text = name, .n = n},
                               {.kind = ATOM_MEMBER, .text = name, .n = n, .claim = x}};
    fail_by(s, TYPE_OBJECT, atoms, 2);
}

/* properties, patternProperties and additionalProperties are one saying; the first of them says it. */
static void say_members(saying *s, const char *key, const json_t *v) {
    gram_schema *c = s->c;
    const json_t *properties = json_object_get(s->schema, "properties"),
                 *patterns = json_object_get(s->schema, "patternProperties"),
                 *rest = json_object_get(s->schema, "additionalProperties");
    const char *first = properties ? "properties"
                        : patterns ? "patternProperties"
                                   : "additionalProperties",
               *name;
    json_t *x;
    size_t n;
    (void)v;
    if (strcmp(key, first) != 0) return;
    if ((properties && !json_is_object(properties)) || (patterns && !json_is_object(patterns)))
        return invalid(s, key, "is no object");
    if (s->holds) return say(s, (gram_atom){.kind = ATOM_MEMBERS, .value = s->schema, .rest = rest});
    json_object_keylen_foreach((json_t *)properties, name, n, x)
        fail_member(s, name, n, gram_claim_not(gram_claim_schema(c, x)));
    json_object_keylen_foreach((json_t *)patterns, name, n, x)
        say(s, (gram_atom){.kind = ATOM_SOME_MEMBER,
                           .text = name,
                           .n = n,
                           .rest_claim = gram_claim_not(gram_claim_schema(c, x))});
    if (rest && !json_is_true(rest))
        say(s, (gram_atom){.kind = ATOM_SOME_MEMBER,
                           .value = s->schema,
                           .rest_claim = gram_claim_not(gram_claim_schema(c, rest))});
}

static void say_required(saying *s, const char *key, const json_t *v) {
    const json_t *x;
    size_t i;
    if (json_is_boolean(v)) return; /* draft 3: of the member, and known there */
    if (!json_is_array(v)) return invalid(s, key, "is no array");
    json_array_foreach((json_t *)v, i, x) {
        if (!json_is_string(x)) return invalid(s, key, "has an item that is no string");
        gram_atom a = {.kind = ATOM_HAS, .text = json_string_value(x), .n = json_string_length(x)};
        if (!s->holds) a.kind = ATOM_MEMBER, a.claim = gram_claim_never(s->c);
        say(s, a);
    }
}

static void say_names(saying *s, const char *key, const json_t *v) {
    const gram_claim x = gram_claim_schema(s->c, v);
    (void)key;
    if (s->holds) return say(s, (gram_atom){.kind = ATOM_NAMES, .claim = x});
    say(s, (gram_atom){.kind = ATOM_SOME_MEMBER, .has_claim = true, .claim = gram_claim_not(x)});
}

/* ---- the table -------------------------------------------------------------------------------- */

static void say_values(saying *s, const char *key, const json_t *v) {
    gram_schema *c = s->c;
    if (strcmp(key, "const") == 0)
        v = gram_schema_keep(c, json_pack("[O]", (json_t *)v));
    else if (!json_is_array(v))
        return invalid(s, key, "is no array");
    const gram_cases x = v ? gram_claim_cases(c, gram_claim_of(c, v, true) ^ !s->holds) : (gram_cases){0};
    s->cases = s->holds ? gram_cases_both(c, s->cases, x) : gram_cases_either(c, s->cases, x);
}

static void refuse(saying *s, const char *key, const json_t *v) {
    (void)v;
    gram_schema_refuse(s->c, s->schema, key, "is not supported");
}

static const struct {
    const char *key;
    void (*say)(saying *s, const char *key, const json_t *v);
} words[] = {{"type", say_type},
             {"enum", say_values},
             {"const", say_values},
             {"minLength", say_length},
             {"maxLength", say_length},
             {"pattern", say_text},
             {"format", say_text},
             {"minimum", say_bound},
             {"maximum", say_bound},
             {"exclusiveMinimum", say_bound},
             {"exclusiveMaximum", say_bound},
             {"multipleOf", say_multiple},
             {"prefixItems", say_items},
             {"items", say_items},
             {"additionalItems", say_items},
             {"minItems", say_n_items},
             {"maxItems", say_n_items},
             {"contains", say_contains},
             {"uniqueItems", say_unique},
             {"properties", say_members},
             {"patternProperties", say_members},
             {"additionalProperties", say_members},
             {"required", say_required},
             {"minProperties", say_n_members},
             {"maxProperties", say_n_members},
             {"propertyNames", say_names},
             {"divisibleBy", refuse},
             {"disallow", refuse},
             {"extends", refuse}};

static void say_word(saying *s, const char *key, const json_t *v) {
    for (size_t i = 0; i < SQ_COUNT(words); i++) {
        if (strcmp(words[i].key, key) != 0) continue;
        words[i].say(s, key, v);
        return;
    }
    gram_cases x;
    if (!gram_combine(s->c, s->schema, key, v, s->holds, &x)) return;
    s->cases = s->holds ? gram_cases_both(s->c, s->cases, x) : gram_cases_either(s->c, s->cases, x);
}

static void say_all(saying *s) {
    gram_schema *c = s->c;
    const char *key;
    json_t *v;
    const json_t *ref = json_object_get(s->schema, "$ref");
    if (ref && gram_refs_legacy(c, s->schema)) {
        say_word(s, "$ref", ref);
        return;
    }
    json_object_foreach((json_t *)s->schema, key, v) {
        if (gram_failed(c->p)) return;
        say_word(s, key, v);
    }
}

static bool is_schema(gram_schema *c, const json_t *schema) {
    if (json_is_object(schema) || json_is_boolean(schema)) return true;
    gram_schema_invalid(c, schema, "schema", "is neither an object nor a boolean");
    return false;
}

gram_cases gram_words_hold(gram_schema *c, const json_t *schema) {
    if (!is_schema(c, schema) || json_is_false(schema)) return (gram_cases){0};
    if (json_is_true(schema)) return gram_cases_all(c);
    saying s = {.c = c, .schema = schema, .holds = true, .types = TYPE_ALL, .cases = gram_cases_all(c)};
    say_all(&s);
    const gram_cases plain = gram_cases_one(c, s.types, s.atoms.p, s.atoms.n);
    gram_vec_free(c->p, &s.atoms, sizeof(gram_atom));
    if (gram_failed(c->p)) return (gram_cases){0};
    return gram_unevaluated(c, schema, gram_cases_both(c, plain, s.cases));
}

gram_cases gram_words_fail(gram_schema *c, const json_t *schema) {
    if (!is_schema(c, schema) || json_is_true(schema)) return (gram_cases){0};
    if (json_is_false(schema)) return gram_cases_all(c);
    for (const char *const *w = (const char *const[]){"unevaluatedItems", "unevaluatedProperties", NULL}; *w;
         w++)
        if (json_object_get(schema, *w)) gram_schema_refuse(c, schema, *w, "under 'not' is not supported");
    saying s = {.c = c, .schema = schema, .holds = false};
    say_all(&s);
    return gram_failed(c->p) ? (gram_cases){0} : s.cases;
}
