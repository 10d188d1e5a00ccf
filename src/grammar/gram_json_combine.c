/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_combine.c - keywords that combine schemas, as products and sums of their cases; and what is left
 * unevaluated by them. */
#include "grammar/gram_json_int.h"

#include <string.h>

enum { EXPANDED_MAX = 6, BRANCHES_MAX = 1000 };

static gram_cases claimed(gram_schema *c, const json_t *schema, bool holds) {
    return gram_claim_cases(c, gram_claim_schema(c, schema) ^ !holds);
}

static gram_cases both(gram_schema *c, gram_cases a, gram_cases b) { return gram_cases_both(c, a, b); }
static gram_cases either(gram_schema *c, gram_cases a, gram_cases b) { return gram_cases_either(c, a, b); }

/* All of a list, or at least one of it. */
static gram_cases every(gram_schema *c, const json_t *list, bool holds) {
    gram_cases all = gram_cases_all(c);
    for (size_t i = 0; i < json_array_size(list); i++)
        all = both(c, all, claimed(c, json_array_get(list, i), holds));
    return all;
}

static gram_cases some(gram_schema *c, const json_t *list, bool holds) {
    gram_cases any = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        any = either(c, any, claimed(c, json_array_get(list, i), holds));
    return any;
}

/* anyOf where annotations count: every set of branches that hold together, for what they evaluate together.
 */
static gram_cases some_together(gram_schema *c, const json_t *schema, const json_t *list) {
    const size_t n = json_array_size(list);
    gram_cases any = {0};
    if (n > EXPANDED_MAX) {
        gram_schema_refuse(c, schema, "anyOf",
                           "of more than 6 branches beside unevaluated... is not supported");
        return any;
    }
    for (uint32_t set = 1; set < 1u << n; set++) {
        gram_cases together = gram_cases_all(c);
        for (size_t i = 0; i < n; i++)
            if (set >> i & 1) together = both(c, together, claimed(c, json_array_get(list, i), true));
        any = either(c, any, together);
    }
    return any;
}

/* Each case of a branch, and not the branches that it has something in common with. */
static gram_cases one_only(gram_schema *c, const json_t *list) {
    const size_t n = json_array_size(list);
    gram_cases any = {0};
    for (size_t i = 0; i < n && !gram_failed(c->p); i++) {
        const gram_cases branch = claimed(c, json_array_get(list, i), true);
        for (size_t k = 0; k < branch.n; k++) {
            gram_cases x = {&branch.list[k], 1};
            for (size_t j = 0; j < n && x.n; j++) {
                const json_t *other = json_array_get(list, j);
                if (j == i || both(c, x, claimed(c, other, true)).n == 0) continue;
                x = both(c, x, claimed(c, other, false));
            }
            any = either(c, any, x);
        }
    }
    return any;
}

/* None, or two. */
static gram_cases not_one(gram_schema *c, const json_t *list) {
    gram_cases any = every(c, list, false);
    for (size_t i = 0; i < json_array_size(list); i++)
        for (size_t k = i + 1; k < json_array_size(list); k++)
            any = either(c, any,
                         both(c, claimed(c, json_array_get(list, i), true),
                              claimed(c, json_array_get(list, k), true)));
    return any;
}

/* What was said under a `not` evaluates nothing. */
static gram_cases silenced(gram_schema *c, gram_cases x) {
    if (!c->evaluates) return x;
    gram_cases out = {0};
    for (size_t i = 0; i < x.n && !gram_failed(c->p); i++) {
        gram_case *y = gram_schema_alloc(c, sizeof *y);
        uint32_t *l = gram_schema_alloc(c, (x.list[i].n + 1) * sizeof *l);
        if (!y || !l) break;
        for (uint32_t k = 0; k < x.list[i].n; k++) {
            gram_atom a = *gram_atom_at(c, x.list[i].atoms[k]);
            a.silent = true;
            l[k] = gram_atom_of(c, &a);
        }
        *y = (gram_case){x.list[i].types, x.list[i].n, l};
        out = either(c, out, (gram_cases){y, 1});
    }
    return out;
}

static gram_cases conditional(gram_schema *c, const json_t *schema, const json_t *test, bool holds) {
    const json_t *yes = json_object_get(schema, "then"), *no = json_object_get(schema, "else");
    const gram_cases all = gram_cases_all(c), none = {0};
    if (!yes && !no && !(holds && c->evaluates)) return holds ? all : none;
    const gram_cases a = yes ? claimed(c, yes, holds) : holds ? all : none;
    const gram_cases b = no ? claimed(c, no, holds) : holds ? all : none;
    gram_cases x = a.n ? both(c, claimed(c, test, true), a) : none;
    return b.n ? either(c, x, both(c, claimed(c, test, false), b)) : x;
}

/* dependencies of all drafts: members to names, or to schemas. */
static gram_cases depend(gram_schema *c, const json_t *schema, const char *key, const json_t *v, bool holds) {
    gram_cases all = holds ? gram_cases_all(c) : (gram_cases){0};
    const char *name;
    json_t *x;
    size_t n, i;
    if (!json_is_object(v)) return gram_schema_invalid(c, schema, key, "is no object"), all;
    json_object_keylen_foreach((json_t *)v, name, n, x) {
        const gram_atom has = {.kind = ATOM_HAS, .text = name, .n = n},
                        not = {.kind = ATOM_MEMBER, .text = name, .n = n, .claim = gram_claim_never(c)};
        gram_cases then;
        if (json_is_array(x)) {
            json_t *y;
            then = holds ? gram_cases_all(c) : (gram_cases){0};
            json_array_foreach(x, i, y) {
                gram_atom a = {.kind = ATOM_HAS, .text = json_string_value(y), .n = json_string_length(y)};
                if (!a.text) return gram_schema_invalid(c, schema, key, "has an item that is no string"), all;
                if (!holds) a.kind = ATOM_MEMBER, a.claim = gram_claim_never(c);
                const gram_cases one = gram_cases_one(c, TYPE_OBJECT, &a, 1);
                then = holds ? both(c, then, one) : either(c, then, one);
            }
        } else {
            then = claimed(c, x, holds);
        }
        const gram_cases present = both(c, gram_cases_one(c, TYPE_OBJECT, &has, 1), then);
        all = holds ? both(c, all, either(c, gram_cases_one(c, TYPE_ALL, &not, 1), present))
                    : either(c, all, present);
    }
    return all;
}

bool gram_combine(gram_schema *c, const json_t *schema, const char *key, const json_t *v, bool holds,
                  gram_cases *out) {
    const bool all = strcmp(key, "allOf") == 0, any = strcmp(key, "anyOf") == 0,
               one = strcmp(key, "oneOf") == 0;
    *out = (gram_cases){0};
    if (all || any || one) {
        if (!json_is_array(v))
            gram_schema_invalid(c, schema, key, "is no array");
        else if (json_array_size(v) > BRANCHES_MAX)
            gram_schema_refuse(c, schema, key, "has over 1000 branches");
        else if (one)
            *out = holds ? one_only(c, v) : not_one(c, v);
        else if (all == holds)
            *out = every(c, v, holds);
        else if (any && holds && c->evaluates)
            *out = some_together(c, schema, v);
        else
            *out = some(c, v, holds);
        return true;
    }
    if (strcmp(key, "not") == 0) return *out = silenced(c, claimed(c, v, !holds)), true;
    if (strcmp(key, "if") == 0) return *out = conditional(c, schema, v, holds), true;
    if (strncmp(key, "dependen", 8) == 0 &&
        (strcmp(key + 8, "cies") == 0 || strcmp(key + 8, "tRequired") == 0 ||
         strcmp(key + 8, "tSchemas") == 0))
        return *out = depend(c, schema, key, v, holds), true;
    if (strcmp(key, "$ref") && strcmp(key, "$dynamicRef") && strcmp(key, "$recursiveRef")) return false;
    const json_t *target = gram_refs_find(c, schema, key);
    if (target) *out = claimed(c, target, holds);
    return true;
}

/* ---- what nothing has looked at --------------------------------------------------------------- */

/* The atom for items that no other evaluates, or false if all are. */
static bool items_left(gram_schema *c, const gram_case *x, const json_t *schema, const json_t *rest,
                       gram_atom *out) {
    uint32_t from = 0;
    json_t *matched = json_array();
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->silent) continue;
        if (a->kind == ATOM_SOME_ITEMS && !(a->claim & 1)) json_array_append(matched, (json_t *)a->rest);
        if (a->kind != ATOM_ITEMS) continue;
        if (a->rest) return json_decref(matched), false;
        if (a->lo > from) from = a->lo;
    }
    if (json_array_size(matched)) {
        json_array_append(matched, (json_t *)rest);
        rest = gram_schema_keep(c, json_pack("{s:O}", "anyOf", matched));
    }
    json_decref(matched);
    *out = (gram_atom){.kind = ATOM_ITEMS, .schema = schema, .rest = rest, .lo = from};
    return true;
}

static bool members_left(gram_schema *c, const gram_case *x, const json_t *schema, const json_t *rest,
                         gram_atom *out) {
    uint32_t *spared = gram_schema_alloc(c, (x->n + 1) * sizeof *spared), n = 0;
    if (!spared) return false;
    for (uint32_t i = 0; i < x->n; i++) {
        const gram_atom *a = gram_atom_at(c, x->atoms[i]);
        if (a->kind != ATOM_MEMBERS || a->silent) continue;
        if (a->rest) return false;
        spared[n++] = x->atoms[i];
    }
    *out = (gram_atom){.kind = ATOM_MEMBERS, .schema = schema, .rest = rest, .spared = spared, .n_spared = n};
    return true;
}

gram_cases gram_unevaluated(gram_schema *c, const json_t *schema, gram_cases cases) {
    const json_t *items = json_object_get(schema, "unevaluatedItems"),
                 *members = json_object_get(schema, "unevaluatedProperties");
    if (!items && !members) return cases;
    gram_cases out = {0};
    for (size_t i = 0; i < cases.n && !gram_failed(c->p); i++) {
        gram_atom a;
        gram_cases x = {&cases.list[i], 1};
        if (items && items_left(c, &cases.list[i], schema, items, &a))
            x = both(c, x, gram_cases_one(c, TYPE_ALL, &a, 1));
        if (members && members_left(c, &cases.list[i], schema, members, &a))
            x = both(c, x, gram_cases_one(c, TYPE_ALL, &a, 1));
        out = either(c, out, x);
    }
    return out;
}
