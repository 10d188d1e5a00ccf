/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_object.c - objects of a schema.
 *
 * Members come in one order: declared properties as the schema lists them, then required ones it does not
 * declare, then others. Every declared key comes at most once, because no other member may have its name: the
 * key of an additional member is a string and not one of those (intersection with a complement). */
#include "grammar/gram_json_int.h"

#include <string.h>

typedef struct {
    const char *key;
    size_t n;
    gram_sym value;
    bool required;
} member;

static bool is_required(const json_t *required, const char *key, size_t n) {
    size_t i;
    json_t *x;
    json_array_foreach(required, i, x) if (json_string_length(x) == n &&
                                           memcmp(json_string_value(x), key, n) == 0) return true;
    return false;
}

static gram_sym pair_of(gram_schema *c, gram_term key, gram_sym value) {
    const gram_sym all[] = {key, gram_colon(c->p, c->loose), value};
    return gram_seq(c->r, all, 3);
}

/* A key that is none of the members'. Spelled in the canonical way where there are such, so that an escape
 * cannot hide one of them. */
static gram_term other_key(gram_schema *c, const member *m, size_t n) {
    gram_pool *p = c->p;
    if (n == 0) return gram_json_string(p);
    const size_t base = p->scratch.n;
    for (size_t i = 0; i < n; i++) {
        const gram_term t = gram_text(p, m[i].key, m[i].n, GRAM_IN_JSON);
        gram_vec_push_u32(p, &p->scratch, t);
    }
    const gram_term taken = gram_alt_list(p, base);
    static const gram_range raw[] = {{0x20, '!'}, {'#', '['}, {']', 0x10FFFF}};
    const size_t from = p->scratch.n;
    const gram_term plain = gram_chars(p, raw, SQ_COUNT(raw), GRAM_IN_JSON);
    gram_vec_push_u32(p, &p->scratch, plain);
    for (char ch = 0; ch <= '\\'; ch++) {
        if (ch >= 0x20 && ch != '"' && ch != '\\') continue;
        const gram_term t = gram_text(p, &ch, 1, GRAM_IN_JSON);
        gram_vec_push_u32(p, &p->scratch, t);
    }
    const gram_term inside = gram_rep(p, gram_alt_list(p, from), 0, GRAM_INF);
    /* The closing quote is part of both, so that what is left after a key is never in doubt. */
    const gram_term quote = gram_literal(p, "\"", 1);
    const gram_term open = gram_and(p, gram_cat(p, inside, quote), gram_not(p, gram_cat(p, taken, quote)));
    return gram_cat(p, quote, open);
}

static bool add_members(gram_schema *c, const json_t *schema, gram_vec *out) {
    json_t *properties = json_object_get(schema, "properties"),
           *required = json_object_get(schema, "required");
    const json_t *additional = json_object_get(schema, "additionalProperties");
    const char *key;
    json_t *x;
    size_t n, i;
    if (properties && !json_is_object(properties))
        return gram_schema_refuse(c, "properties", "is no object"), false;
    if (required && !json_is_array(required)) return gram_schema_refuse(c, "required", "is no array"), false;
    json_object_keylen_foreach(properties, key, n, x) {
        const bool must = is_required(required, key, n);
        member *to = gram_vec_room(c->p, out, 1, sizeof *to);
        if (!to) return false;
        *to = (member){key, n, GRAM_EMPTY, must};
        const gram_sym value = gram_schema_child(c, key, x);
        GRAM_AT(*out, member, out->n++).value = value;
        if (gram_failed(c->p)) return false;
    }
    json_array_foreach(required, i, x) {
        if (!json_is_string(x))
            return gram_schema_refuse(c, "required", "has an item that is no string"), false;
        bool there = false;
        for (size_t k = 0; k < out->n && !there; k++)
            there = GRAM_AT(*out, member, k).n == json_string_length(x) &&
                    memcmp(GRAM_AT(*out, member, k).key, json_string_value(x), json_string_length(x)) == 0;
        if (there) continue;
        const gram_sym value = additional ? gram_schema_child(c, "additionalProperties", additional)
                                          : gram_any_json(c->p, c->loose, false);
        member *to = gram_vec_room(c->p, out, 1, sizeof *to);
        if (!to) return false;
        *to = (member){json_string_value(x), json_string_length(x), value, true};
        out->n++;
    }
    return true;
}

/* What may stand in an object: first: nothing came before; rest: something did, so a comma leads. */
static gram_sym body(gram_schema *c, const member *m, size_t n, gram_sym extra, uint32_t lo, uint32_t hi) {
    gram_rules *r = c->r;
    const gram_term comma = gram_comma(c->p, c->loose);
    const gram_sym further[] = {comma, extra};
    const gram_sym more = gram_seq(r, further, 2);
    const gram_sym some[] = {extra,
                             gram_repeat(r, more, lo ? lo - 1 : 0, hi == GRAM_INF || hi == 0 ? hi : hi - 1)};
    gram_sym rest = gram_repeat(r, more, 0, GRAM_INF);
    gram_sym first = hi == 0 ? GRAM_EPS : gram_seq(r, some, 2);
    if (lo == 0) first = gram_either(r, (gram_sym[]){first, GRAM_EPS}, 2);
    for (size_t i = n; i-- > 0 && !gram_failed(c->p);) {
        const gram_term key = gram_quoted(c->p, gram_text(c->p, m[i].key, m[i].n, GRAM_IN_JSON));
        const gram_sym one = pair_of(c, key, m[i].value);
        const gram_sym begins[] = {one, rest}, follows[] = {comma, one, rest};
        const gram_sym a = gram_seq(r, begins, 2), b = gram_seq(r, follows, 3);
        first = m[i].required ? a : gram_either(r, (gram_sym[]){a, first}, 2);
        rest = m[i].required ? b : gram_either(r, (gram_sym[]){b, rest}, 2);
    }
    return first;
}

/* The counts only where they say something that can be said: of maps, or what `required` says anyway. */
static bool counts(gram_schema *c, const json_t *schema, const gram_vec *members, bool closed, uint32_t *lo,
                   uint32_t *hi) {
    if (!gram_schema_count(c, schema, "minProperties", 0, lo) ||
        !gram_schema_count(c, schema, "maxProperties", GRAM_INF, hi))
        return false;
    if (members->n == 0) return true;
    uint32_t n_required = 0;
    for (size_t i = 0; i < members->n; i++) n_required += GRAM_AT(*members, member, i).required;
    if (*lo > n_required)
        gram_schema_refuse(c, "minProperties", "with declared properties is not supported");
    else if (*hi != GRAM_INF && !(closed && *hi >= members->n))
        gram_schema_refuse(c, "maxProperties", "with declared properties is not supported");
    *lo = 0;
    *hi = GRAM_INF;
    return !gram_failed(c->p);
}

gram_sym gram_schema_object(gram_schema *c, const json_t *schema) {
    gram_pool *p = c->p;
    gram_vec members = {0};
    const json_t *additional = json_object_get(schema, "additionalProperties");
    gram_sym result = GRAM_EMPTY, extra = GRAM_EMPTY;
    uint32_t lo, hi;
    if (add_members(c, schema, &members)) {
        const gram_sym value = additional ? gram_schema_child(c, "additionalProperties", additional)
                                          : gram_any_json(p, c->loose, false);
        if (value != GRAM_EMPTY) extra = pair_of(c, other_key(c, members.p, members.n), value);
        if (counts(c, schema, &members, value == GRAM_EMPTY, &lo, &hi) && lo <= hi) {
            const gram_sym space = gram_space_inside(p, c->loose);
            const gram_sym inside = body(c, members.p, members.n, extra, lo, hi);
            const gram_sym all[] = {gram_literal(p, "{", 1), space, inside, space, gram_literal(p, "}", 1)};
            result = gram_seq(c->r, all, SQ_COUNT(all));
        }
    }
    gram_vec_free(p, &members, sizeof(member));
    return result;
}
