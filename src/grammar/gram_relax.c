/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_relax.c - schemas that need not be kept to in full: what is beyond the engine is left out, and named.
 *
 * A schema is refused at one keyword at a time, so tags are compiled until nothing is refused any more, each
 * time without the keyword that was. To leave something out of a schema that must hold makes it wider. Under
 * `not`, `if` and `oneOf` it could make it narrower: there the outermost of these goes (`oneOf` becomes
 * `anyOf`). What nothing else has evaluated is never sure then, so `unevaluated...` goes as well, and what
 * other members must be where the patterns of their names are unknown. */
#include "grammar/gram_json_int.h"

#include <string.h>

enum { ROUNDS_MAX = 64, RELAXED_MAX = 1024, SECONDS_MAX = 1 };

static bool contains(const json_t *v, const json_t *part) {
    const char *key;
    json_t *x;
    size_t i;
    if (v == part) return true;
    json_array_foreach((json_t *)v, i, x) if (contains(x, part)) return true;
    json_object_foreach((json_t *)v, key, x) if (contains(x, part)) return true;
    return false;
}

/* The step of a JSON pointer as a fragment of a URI, so that it may stand in a header. */
static void add_step(sq_buf *b, const char *key) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._$";
    sq_buf_putc(b, '/');
    for (; *key; key++) {
        if (*key == '~' || *key == '/')
            sq_buf_puts(b, *key == '~' ? "~0" : "~1");
        else if (strchr(plain, *key))
            sq_buf_putc(b, *key);
        else
            sq_buf_printf(b, "%%%02X", (unsigned char)*key);
    }
}

/* ---- leaving out ------------------------------------------------------------------------------ */

static bool is_one_of(const char *key, const char *const *list) {
    while (*list && strcmp(*list, key) != 0) list++;
    return *list != NULL;
}

/* Members of such a keyword are names, not keywords. */
static bool holds_names(const char *key) {
    static const char *const list[] = {"properties",       "patternProperties", "$defs", "definitions",
                                       "dependentSchemas", "dependencies",      NULL};
    return is_one_of(key, list);
}

/* Take a keyword out of a schema. Where it is not there (a refusal that several keywords bring about) all but
 * the type goes. False: nothing is left to take. */
static bool take_out(json_t *schema, const char *key) {
    if (strcmp(key, "patternProperties") == 0) json_object_del(schema, "additionalProperties");
    if (json_object_del(schema, key) == 0) return true;
    json_t *type = json_incref(json_object_get(schema, "type"));
    const bool more = json_object_size(schema) > (type ? 1u : 0u);
    json_object_clear(schema);
    if (type) json_object_set_new(schema, "type", type);
    return more;
}

/* One of those under which less may be more, out of the way. */
static void widen(json_t *schema, const char *key) {
    if (strcmp(key, "if") == 0) {
        json_object_del(schema, "then");
        json_object_del(schema, "else");
    }
    if (strcmp(key, "oneOf") == 0 && !json_object_get(schema, "anyOf"))
        json_object_set(schema, "anyOf", json_object_get(schema, key));
    json_object_del(schema, key);
}

/* x->at lies in v. steps: its JSON pointer as it grows. */
static bool leave_out(const gram_relaxing *x, json_t *v, bool is_schema, sq_buf *steps) {
    static const char *const turning[] = {"not", "if", "oneOf", NULL};
    const char *key;
    json_t *inner;
    void *next;
    size_t i;
    if (is_schema && json_is_object(v) && strncmp(x->key, "unevaluated", 11) != 0) {
        json_object_del(v, "unevaluatedProperties");
        json_object_del(v, "unevaluatedItems");
    }
    if (v == x->at) {
        if (json_object_get(v, x->key)) add_step(steps, x->key);
        return take_out(v, x->key);
    }
    json_array_foreach(v, i, inner) {
        if (!contains(inner, x->at)) continue;
        sq_buf_printf(steps, "/%zu", i);
        return leave_out(x, inner, is_schema, steps);
    }
    json_object_foreach_safe(v, next, key, inner) {
        if (!contains(inner, x->at)) continue;
        add_step(steps, key);
        if (is_schema && is_one_of(key, turning)) return widen(v, key), true;
        return leave_out(x, inner, !(is_schema && holds_names(key)), steps);
    }
    return false;
}

/* Leave out what was refused, and say so. False: it may not be, or there is nothing more to leave out. */
static bool relax(gram_relaxing *x, sq_buf *said) {
    if (!x->name || !x->at || !contains(x->document, x->at)) return false;
    if (said->len) sq_buf_puts(said, ", ");
    sq_buf_printf(said, "%s#", x->name);
    return leave_out(x, x->document, true, said);
}

squish_status gram_compile_tags(sq_gram **out, const char *source, size_t n, const sq_tok *tok,
                                const squish_alloc *alloc, squish_error *err) {
    gram_relaxing x = {0};
    sq_buf said;
    squish_error why = {0};
    *out = NULL;
    squish_status st = sq_json_parse(source, n, SQ_JSON_DEPTH_SCHEMA, "tags", &x.root, &why);
    if (st != SQUISH_OK) return sq_fail(err, st == SQUISH_CORRUPT ? SQUISH_INVALID : st, "%s", why.text);
    sq_buf_init(&said, alloc, RELAXED_MAX);
    const uint64_t until = sq_os_now_ns() + SECONDS_MAX * 1000000000ull;
    int rounds = 0;
    do {
        x.at = NULL;
        why = (squish_error){0};
        st = gram_compile(out, SQ_GRAM_TAGS, source, n, tok, &x, alloc, &why);
    } while (st == SQUISH_UNSUPPORTED && ++rounds < ROUNDS_MAX && sq_os_now_ns() < until && relax(&x, &said));
    json_decref(x.root);
    if (st != SQUISH_OK) {
        sq_buf_deinit(&said);
        return sq_fail(err, st, "%s", why.text);
    }
    (*out)->relaxed = said;
    return SQUISH_OK;
}
