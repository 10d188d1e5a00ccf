/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_compile.c - from a schema's members to a list of rules, checked and with its references bound.
 *
 * The table below is the language: one row per keyword and draft range, in the order in which rules run
 * (unevaluated* last, they ask what the others saw). Compiling goes by a waiting list, not by recursion, and
 * only what is reachable is compiled: a broken entry of $defs that nobody uses hurts nobody. */
#include "grammar/gram_schema_int.h"

#include <stdio.h>
#include <xxhash.h>

#define ALL (GS_D4 | GS_D6 | GS_D7 | GS_D2019 | GS_D2020)
#define FROM6 (ALL & ~GS_D4)
#define FROM7 (FROM6 & ~GS_D6)
#define FROM2019 (GS_D2019 | GS_D2020)
#define TO2019 (ALL & ~GS_D2020)
#define ANY_VOCABULARY 255

const gs_keyword gs_keywords[] = {
    {"$ref", ALL, GS_CORE, GS_SUB_NONE, GS_ARG_STRING, 0, gs_rule_ref},
    {"$dynamicRef", GS_D2020, GS_CORE, GS_SUB_NONE, GS_ARG_STRING, 0, gs_rule_dynamic_ref},
    {"$recursiveRef", GS_D2019, GS_CORE, GS_SUB_NONE, GS_ARG_STRING, 0, gs_rule_recursive_ref},
    {"$defs", FROM2019, GS_CORE, GS_SUB_DEFS, GS_ARG_ANY, 0, NULL},
    {"definitions", ALL, GS_CORE, GS_SUB_DEFS, GS_ARG_ANY, 0, NULL},
    {"type", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_TYPES, 0, gs_rule_type},
    {"enum", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_ARRAY, 0, gs_rule_enum},
    {"const", FROM6, GS_VALIDATION, GS_SUB_NONE, GS_ARG_ANY, 0, gs_rule_const},
    {"multipleOf", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_POSITIVE, 0, gs_rule_multiple},
    {"exclusiveMaximum", GS_D4, GS_VALIDATION, GS_SUB_NONE, GS_ARG_BOOLEAN, GS_ROLE_STRICT_MAX, NULL},
    {"exclusiveMinimum", GS_D4, GS_VALIDATION, GS_SUB_NONE, GS_ARG_BOOLEAN, GS_ROLE_STRICT_MIN, NULL},
    {"maximum", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_NUMBER, 0, gs_rule_maximum},
    {"minimum", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_NUMBER, 0, gs_rule_minimum},
    {"exclusiveMaximum", FROM6, GS_VALIDATION, GS_SUB_NONE, GS_ARG_NUMBER, 0, gs_rule_strict_maximum},
    {"exclusiveMinimum", FROM6, GS_VALIDATION, GS_SUB_NONE, GS_ARG_NUMBER, 0, gs_rule_strict_minimum},
    {"maxLength", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_max_length},
    {"minLength", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_min_length},
    {"pattern", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_STRING, 0, gs_rule_pattern},
    {"format", ALL, GS_FORMAT, GS_SUB_NONE, GS_ARG_STRING, 0, gs_rule_format},
    {"maxItems", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_max_items},
    {"minItems", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_min_items},
    {"uniqueItems", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_BOOLEAN, 0, gs_rule_unique},
    {"maxProperties", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_max_members},
    {"minProperties", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, 0, gs_rule_min_members},
    {"required", ALL, GS_VALIDATION, GS_SUB_NONE, GS_ARG_STRINGS, 0, gs_rule_required},
    {"dependentRequired", FROM2019, GS_VALIDATION, GS_SUB_NONE, GS_ARG_NAMES, 0, gs_rule_dependent_required},
    {"minContains", FROM2019, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, GS_ROLE_MIN_CONTAINS, NULL},
    {"maxContains", FROM2019, GS_VALIDATION, GS_SUB_NONE, GS_ARG_COUNT, GS_ROLE_MAX_CONTAINS, NULL},
    {"properties", ALL, GS_APPLICATOR, GS_SUB_MAP, GS_ARG_SHAPE, GS_ROLE_PROPERTIES, gs_rule_properties},
    {"patternProperties", ALL, GS_APPLICATOR, GS_SUB_MAP, GS_ARG_SHAPE, GS_ROLE_PATTERNS, gs_rule_patterns},
    {"additionalProperties", ALL, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_additional},
    {"propertyNames", FROM6, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_names},
    {"dependencies", ALL, GS_APPLICATOR, GS_SUB_MAP, GS_ARG_ANY, 0, gs_rule_dependencies},
    {"dependentSchemas", FROM2019, GS_APPLICATOR, GS_SUB_MAP, GS_ARG_SHAPE, 0, gs_rule_dependencies},
    {"prefixItems", GS_D2020, GS_APPLICATOR, GS_SUB_LIST, GS_ARG_SHAPE, GS_ROLE_PREFIX, gs_rule_prefix},
    {"items", GS_D2020, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_items},
    {"items", TO2019, GS_APPLICATOR, GS_SUB_ONE_OR_LIST, GS_ARG_SHAPE, GS_ROLE_PREFIX, gs_rule_old_items},
    {"additionalItems", TO2019, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_additional_items},
    {"contains", FROM6, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_contains},
    {"allOf", ALL, GS_APPLICATOR, GS_SUB_LIST, GS_ARG_SHAPE, 0, gs_rule_all_of},
    {"anyOf", ALL, GS_APPLICATOR, GS_SUB_LIST, GS_ARG_SHAPE, 0, gs_rule_any_of},
    {"oneOf", ALL, GS_APPLICATOR, GS_SUB_LIST, GS_ARG_SHAPE, 0, gs_rule_one_of},
    {"not", ALL, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_not},
    {"then", FROM7, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, GS_ROLE_THEN, NULL},
    {"else", FROM7, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, GS_ROLE_ELSE, NULL},
    {"if", FROM7, GS_APPLICATOR, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_if},
    {"unevaluatedItems", FROM2019, GS_UNEVALUATED, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_unevaluated},
    {"unevaluatedProperties", FROM2019, GS_UNEVALUATED, GS_SUB_ONE, GS_ARG_SHAPE, 0, gs_rule_unevaluated},
};
const size_t gs_n_keywords = SQ_COUNT(gs_keywords);

typedef struct {
    sq_schema *s;
    gs_schema *in;
    gs_rule *r;
    squish_error *err;
} compiler;

static squish_status no_memory(squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "no memory for the schema");
}

gs_schema *gs_schema_of(sq_schema *s, gs_value *v, const gs_resource *r) {
    if (v->schema) return v->schema;
    gs_schema *made = SQ_ARENA_NEW(&s->arena, gs_schema);
    if (!made) return NULL;
    made->source = v;
    made->resource = r;
    return v->schema = made;
}

static void enqueue(sq_schema *s, gs_schema *x) {
    if (x->queued) return;
    x->queued = true;
    x->next = s->waiting;
    s->waiting = x;
}

static squish_status wrong(compiler *c, const gs_value *at, const char *wanted) {
    return gs_fail_at(c->s, c->in->resource, at, SQUISH_INVALID, c->err, "found %s, wanted %s",
                      gs_type_name(at), wanted);
}

/* ---- arguments ------------------------------------------------------------------------------- */

static const char *const type_words[] = {"null", "boolean", "number", "string", "array", "object", "integer"};

static uint32_t type_bit(const gs_value *v) {
    for (uint32_t i = 0; v->type == GS_STRING && i < SQ_COUNT(type_words); i++)
        if (v->n == strlen(type_words[i]) && memcmp(v->u.text, type_words[i], v->n) == 0) return 1u << i;
    return 0;
}

static squish_status check_types(compiler *c, const gs_value *v) {
    const char *wanted = "one of the seven types, or a list of them";
    if (v->type != GS_ARRAY) c->r->count = type_bit(v);
    for (uint32_t i = 0; v->type == GS_ARRAY && i < v->n; i++) {
        const uint32_t bit = type_bit(&v->u.items[i]);
        if (!bit) return wrong(c, &v->u.items[i], wanted);
        c->r->count |= bit;
    }
    return c->r->count ? SQUISH_OK : wrong(c, v, wanted);
}

static squish_status check_strings(compiler *c, const gs_value *v) {
    if (v->type != GS_ARRAY) return wrong(c, v, "an array of strings");
    for (uint32_t i = 0; i < v->n; i++)
        if (v->u.items[i].type != GS_STRING) return wrong(c, &v->u.items[i], "a string");
    return SQUISH_OK;
}

static squish_status check_names(compiler *c, const gs_value *v) {
    if (v->type != GS_OBJECT) return wrong(c, v, "an object");
    for (uint32_t i = 0; i < v->n; i++) SQ_TRY(check_strings(c, &v->u.object.members[i].value));
    return SQUISH_OK;
}

static squish_status check_arg(compiler *c, const gs_value *v) {
    const bool number = v->type == GS_NUMBER;
    switch (c->r->keyword->arg) {
    case GS_ARG_ANY:
    case GS_ARG_SHAPE: return SQUISH_OK;
    case GS_ARG_COUNT:
        return number && gs_number_count(&v->u.number, &c->r->count) ? SQUISH_OK
                                                                     : wrong(c, v, "a count from 0 on");
    case GS_ARG_NUMBER: return number ? SQUISH_OK : wrong(c, v, "a number");
    case GS_ARG_POSITIVE:
        return number && v->u.number.n && !v->u.number.negative ? SQUISH_OK : wrong(c, v, "a number above 0");
    case GS_ARG_BOOLEAN: return v->type == GS_BOOLEAN ? SQUISH_OK : wrong(c, v, "true or false");
    case GS_ARG_STRING: return v->type == GS_STRING ? SQUISH_OK : wrong(c, v, "a string");
    case GS_ARG_STRINGS: return check_strings(c, v);
    case GS_ARG_NAMES: return check_names(c, v);
    case GS_ARG_ARRAY: return v->type == GS_ARRAY ? SQUISH_OK : wrong(c, v, "an array");
    case GS_ARG_TYPES: return check_types(c, v);
    }
    return SQUISH_OK;
}

/* ---- schemas in arguments -------------------------------------------------------------------- */

static squish_status take_sub(compiler *c, gs_value *v, uint32_t i) {
    if (v->type != GS_OBJECT && v->type != GS_BOOLEAN) return wrong(c, v, "a schema");
    gs_schema *sub = gs_schema_of(c->s, v, c->in->resource);
    if (!sub) return no_memory(c->err);
    enqueue(c->s, sub);
    c->r->subs[i] = sub;
    return SQUISH_OK;
}

static squish_status take_subs(compiler *c, gs_value *v) {
    const gs_shape shape = c->r->keyword->shape;
    const bool list = shape == GS_SUB_LIST || (shape == GS_SUB_ONE_OR_LIST && v->type == GS_ARRAY);
    if (shape == GS_SUB_NONE || shape == GS_SUB_DEFS) return SQUISH_OK;
    if (list && v->type != GS_ARRAY) return wrong(c, v, "an array of schemas");
    if (shape == GS_SUB_MAP && v->type != GS_OBJECT) return wrong(c, v, "an object of schemas");
    c->r->n_subs = list || shape == GS_SUB_MAP ? v->n : 1;
    c->r->subs = c->r->n_subs ? SQ_ARENA_ARRAY(&c->s->arena, gs_schema *, c->r->n_subs) : NULL;
    if (c->r->n_subs && !c->r->subs) return no_memory(c->err);
    for (uint32_t i = 0; i < c->r->n_subs; i++) {
        gs_value *sub = list ? &v->u.items[i] : shape == GS_SUB_MAP ? &v->u.object.members[i].value : v;
        if (c->r->keyword->arg == GS_ARG_ANY && sub->type == GS_ARRAY)
            SQ_TRY(check_strings(c, sub));
        else
            SQ_TRY(take_sub(c, sub, i));
    }
    return SQUISH_OK;
}

/* ---- patterns: one regex per source, however often it is written ------------------------------ */

static squish_status take_pattern(compiler *c, const gs_value *at, const char *source, uint32_t n,
                                  gs_regex **out) {
    const uint64_t hash = XXH3_64bits(source, n);
    gs_pattern **head = &c->s->patterns[hash % GS_BUCKETS];
    for (gs_pattern *p = *head; p; p = p->next) {
        const gs_value key = {.type = GS_STRING, .n = n, .hash = hash, .u.text = source};
        int64_t steps = 1;
        if (!gs_value_equal(&key, p->source, &steps)) continue;
        *out = p->regex;
        return SQUISH_OK;
    }
    gs_pattern *made = SQ_ARENA_NEW(&c->s->arena, gs_pattern);
    gs_value *key = made ? SQ_ARENA_NEW(&c->s->arena, gs_value) : NULL;
    if (!key) return no_memory(c->err);
    squish_error why = {0};
    squish_status st = gs_regex_new(&made->regex, &c->s->alloc, source, n, "the pattern", &why);
    if (st == SQUISH_NO_MEMORY) return no_memory(c->err);
    if (st != SQUISH_OK) return gs_fail_at(c->s, c->in->resource, at, st, c->err, "%s", why.text);
    *key = (gs_value){.type = GS_STRING, .n = n, .hash = hash, .u.text = source};
    made->source = key;
    made->next = *head;
    *head = made;
    *out = made->regex;
    return SQUISH_OK;
}

static squish_status take_patterns(compiler *c, const gs_value *v) {
    const bool many = c->r->keyword->eval == gs_rule_patterns;
    if (!many && c->r->keyword->eval != gs_rule_pattern) return SQUISH_OK;
    const uint32_t n = many ? v->n : 1;
    c->r->regexes = n ? SQ_ARENA_ARRAY(&c->s->arena, gs_regex *, n) : NULL;
    if (n && !c->r->regexes) return no_memory(c->err);
    if (!many) return take_pattern(c, v, v->u.text, v->n, c->r->regexes);
    for (uint32_t i = 0; i < n; i++) {
        const gs_member *m = &v->u.object.members[i];
        SQ_TRY(take_pattern(c, &m->value, m->name, m->bytes, &c->r->regexes[i]));
    }
    return SQUISH_OK;
}

/* ---- references ------------------------------------------------------------------------------ */

static squish_status take_reference(compiler *c, const gs_value *v) {
    const gs_keyword *k = c->r->keyword;
    if (k->eval != gs_rule_ref && k->eval != gs_rule_dynamic_ref && k->eval != gs_rule_recursive_ref)
        return SQUISH_OK;
    gs_value *target = NULL;
    const char *fragment = "";
    SQ_TRY(gs_ref_resolve(c->s, c->in->resource, v, &target, &fragment, c->err));
    c->r->n_subs = 1;
    c->r->subs = SQ_ARENA_NEW(&c->s->arena, gs_schema *);
    if (!c->r->subs) return no_memory(c->err);
    const gs_resource *there = gs_resource_of(target);
    if (target->type != GS_OBJECT && target->type != GS_BOOLEAN)
        return gs_fail_at(c->s, c->in->resource, v, SQUISH_INVALID, c->err,
                          "'%.150s' leads to %s, not to a schema", v->u.text, gs_type_name(target));
    gs_schema *sub = gs_schema_of(c->s, target, there);
    if (!sub) return no_memory(c->err);
    enqueue(c->s, sub);
    c->r->subs[0] = sub;
    if (k->eval == gs_rule_ref) return SQUISH_OK;
    c->s->dynamic = true;
    bool dynamic = false;
    if (k->eval == gs_rule_dynamic_ref) gs_anchor_find(c->s, there, fragment, &dynamic);
    c->r->anchor = dynamic ? fragment : NULL;
    return SQUISH_OK;
}

/* ---- schemas --------------------------------------------------------------------------------- */

static bool applies(const sq_schema *s, const gs_schema *in, const gs_keyword *k, bool only_ref) {
    const gs_dialect d = in->resource->dialect;
    if (!(k->drafts & d.draft) || (only_ref && k->eval != gs_rule_ref)) return false;
    if (k->shape == GS_SUB_DEFS) return false;
    if (k->vocabulary == GS_FORMAT) return s->assert_format || (d.vocabularies & GS_FORMAT_ASSERTION);
    return k->vocabulary & d.vocabularies;
}

static squish_status compile_rule(compiler *c, const gs_keyword *k, gs_value *arg) {
    *c->r = (gs_rule){.keyword = k, .arg = arg, .owner = c->in};
    SQ_TRY(check_arg(c, arg));
    SQ_TRY(take_subs(c, arg));
    SQ_TRY(take_patterns(c, arg));
    SQ_TRY(take_reference(c, arg));
    c->s->track |= k->eval == gs_rule_unevaluated;
    if (k->role) c->in->role[k->role] = c->r;
    return SQUISH_OK;
}

static squish_status compile_schema(sq_schema *s, gs_schema *in, squish_error *err) {
    if (in->source->type != GS_OBJECT) return SQUISH_OK;
    gs_value *args[SQ_COUNT(gs_keywords)] = {0};
    const gs_value *ref = gs_value_find(in->source, "$ref");
    const bool only_ref = ref && ref->type == GS_STRING && in->resource->dialect.draft < GS_D2019;
    uint32_t n = 0;
    for (size_t i = 0; i < gs_n_keywords; i++) {
        if (applies(s, in, &gs_keywords[i], only_ref))
            args[i] = gs_value_find(in->source, gs_keywords[i].name);
        n += args[i] != NULL;
    }
    if (n == 0) return SQUISH_OK;
    in->rules = SQ_ARENA_ARRAY(&s->arena, gs_rule, n);
    if (!in->rules) return no_memory(err);
    compiler c = {s, in, in->rules, err};
    for (size_t i = 0; i < gs_n_keywords; i++) {
        if (!args[i]) continue;
        SQ_TRY(compile_rule(&c, &gs_keywords[i], args[i]));
        c.r++;
    }
    in->n_rules = n;
    return SQUISH_OK;
}

/* Dynamic references may lead to any dynamic anchor of a resource that was met: all must be ready. */
static void enqueue_dynamic(sq_schema *s) {
    for (size_t i = 0; i < GS_BUCKETS; i++) {
        for (gs_entry *e = s->entries[i]; e; e = e->next) {
            gs_schema *x = e->value->schema;
            if (x && (e->dynamic || (!e->resource && x->resource->recursive_anchor))) enqueue(s, x);
        }
    }
}

squish_status gs_compile(sq_schema *s, squish_error *err) {
    while (s->waiting) {
        while (s->waiting) {
            gs_schema *in = s->waiting;
            s->waiting = in->next;
            SQ_TRY(compile_schema(s, in, err));
        }
        if (s->dynamic) enqueue_dynamic(s);
    }
    return SQUISH_OK;
}
