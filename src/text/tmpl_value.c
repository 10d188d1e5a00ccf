/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_value.c - the values a template computes with: Python's, as far as templates see them.
 *
 * A value is 16 bytes; containers lie in the arena of the rendering and are shared by reference. Strings from
 * the caller's JSON and from the blob are viewed, not copied. */
#include "text/tmpl_int.h"

#include <stdio.h>

/* ---- failing, counting, allocating ----------------------------------------------------------- */

static squish_status fail_with(sq_trun *r, squish_status code, const char *fmt, va_list ap) {
    char text[400];
    vsnprintf(text, sizeof text, fmt, ap);
    size_t n = strlen(text);
    text[n - sq_utf8_pending(text, n)] = 0; /* the cut must not split a character */
    return sq_fail(r->err, code, "template line %u: %s", r->line, text);
}

squish_status sq_tmpl_fail(sq_trun *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    squish_status st = fail_with(r, SQUISH_INVALID, fmt, ap);
    va_end(ap);
    return st;
}

squish_status sq_tmpl_over(sq_trun *r, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    squish_status st = fail_with(r, SQUISH_NO_MEMORY, fmt, ap);
    va_end(ap);
    return st;
}

squish_status sq_tmpl_damaged(sq_trun *r) {
    return sq_fail(r->err, SQUISH_CORRUPT, "compiled template: a node in the wrong place, line %u", r->line);
}

squish_status sq_tmpl_charge(sq_trun *r, uint64_t steps) {
    r->steps += steps;
    if (r->steps <= r->steps_max) return SQUISH_OK;
    return sq_tmpl_over(r, "more than %llu steps", (unsigned long long)r->steps_max);
}

squish_status sq_tmpl_alloc(sq_trun *r, size_t n, size_t size, void **out) {
    *out = sq_arena_array(&r->arena, n ? n : 1, size, 8);
    if (*out) return SQUISH_OK;
    const size_t left = r->arena.bytes_max - r->arena.bytes_used; /* a block's head is well below 256 bytes */
    if (left < 256 || (left - 256) / size < n)
        return sq_tmpl_over(r, "values of more than %d MiB", SQ_TMPL_ARENA_MAX >> 20);
    return sq_tmpl_over(r, "out of memory");
}

const char *sq_tmpl_type_name(const sq_tval *v) {
    static const char *const names[] = {"unset",     "Undefined", "NoneType",  "bool",      "int",
                                        "float",     "str",       "list",      "tuple",     "dict",
                                        "Namespace", "range",     "generator", "dict_view", "LoopContext",
                                        "Macro",     "method",    "function"};
    _Static_assert(SQ_COUNT(names) == SQ_TV_GLOBAL + 1, "one name per type");
    return names[v->type];
}

/* The message Jinja gives when something undefined is used. */
squish_status sq_tmpl_undefined(sq_trun *r, const sq_tval *v) {
    if (v->sub == SQ_TU_NAME) return sq_tmpl_fail(r, "'%.*s' is undefined", (int)v->n, v->u.s);
    if (v->sub == SQ_TU_HINT) return sq_tmpl_fail(r, "%.*s", (int)v->n, v->u.s);
    const sq_tval owner = sq_tv((sq_tval_type)v->owner);
    const char *suffix = owner.type == SQ_TV_NONE ? "" : " object";
    const char *name = owner.type == SQ_TV_NONE ? "None" : sq_tmpl_type_name(&owner);
    return sq_tmpl_fail(r, "'%s%s' has no attribute '%.*s'", name, suffix, (int)v->n, v->u.s);
}

/* ---- sequences ------------------------------------------------------------------------------- */

squish_status sq_tmpl_new_seq(sq_trun *r, sq_tval_type type, size_t cap, sq_tval *out) {
    void *seq, *items = NULL;
    SQ_TRY(sq_tmpl_charge(r, cap / 8));
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tseq), &seq));
    if (cap > 0) SQ_TRY(sq_tmpl_alloc(r, cap, sizeof(sq_tval), &items));
    *out = sq_tv(type);
    out->u.seq = seq;
    *out->u.seq = (sq_tseq){.items = items, .cap = (uint32_t)cap};
    return SQUISH_OK;
}

squish_status sq_tmpl_seq_push(sq_trun *r, sq_tseq *s, const sq_tval *v) {
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        void *items;
        SQ_TRY(sq_tmpl_alloc(r, cap, sizeof(sq_tval), &items));
        if (s->n > 0) memcpy(items, s->items, s->n * sizeof(sq_tval));
        s->items = items;
        s->cap = cap;
    }
    s->items[s->n++] = *v;
    return SQUISH_OK;
}

squish_status sq_tmpl_pair(sq_trun *r, const sq_tval *a, const sq_tval *b, sq_tval *out) {
    const sq_tval first = *a, second = *b;
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_TUPLE, 2, out));
    out->u.seq->items[0] = first;
    out->u.seq->items[1] = second;
    out->u.seq->n = 2;
    return SQUISH_OK;
}

/* ---- dictionaries ---------------------------------------------------------------------------- */

squish_status sq_tmpl_new_dict(sq_trun *r, sq_tval_type type, size_t cap, sq_tval *out) {
    void *dict, *items = NULL;
    SQ_TRY(sq_tmpl_alloc(r, 1, sizeof(sq_tdict), &dict));
    if (cap > 0) SQ_TRY(sq_tmpl_alloc(r, cap, sizeof(sq_tpair), &items));
    *out = sq_tv(type);
    out->u.dict = dict;
    *out->u.dict = (sq_tdict){.items = items, .cap = (uint32_t)cap};
    return SQUISH_OK;
}

const sq_tval *sq_tmpl_dict_find_str(const sq_tdict *d, const char *key, size_t n) {
    for (uint32_t i = 0; i < d->n; i++) {
        const sq_tval *k = &d->items[i].key;
        if (k->type == SQ_TV_STR && k->n == n && memcmp(k->u.s, key, n) == 0) return &d->items[i].value;
    }
    return NULL;
}

/* The value under key, or NULL. A linear search: templates know small objects, and each look is counted. */
squish_status sq_tmpl_dict_find(sq_trun *r, const sq_tdict *d, const sq_tval *key, sq_tval **out) {
    *out = NULL;
    SQ_TRY(sq_tmpl_charge(r, d->n / 4));
    if (key->type == SQ_TV_STR) {
        *out = (sq_tval *)(uintptr_t)sq_tmpl_dict_find_str(d, key->u.s, key->n);
        return SQUISH_OK;
    }
    for (uint32_t i = 0; i < d->n && !*out; i++) {
        bool same;
        SQ_TRY(sq_tmpl_equal(r, &d->items[i].key, key, &same));
        if (same) *out = &d->items[i].value;
    }
    return SQUISH_OK;
}

squish_status sq_tmpl_dict_put(sq_trun *r, sq_tdict *d, const sq_tval *key, const sq_tval *value) {
    sq_tval *found;
    SQ_TRY(sq_tmpl_hashable(r, key));
    SQ_TRY(sq_tmpl_dict_find(r, d, key, &found));
    if (found) {
        *found = *value;
        return SQUISH_OK;
    }
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap * 2 : 4;
        void *items;
        SQ_TRY(sq_tmpl_alloc(r, cap, sizeof(sq_tpair), &items));
        if (d->n > 0) memcpy(items, d->items, d->n * sizeof(sq_tpair));
        d->items = items;
        d->cap = cap;
    }
    d->items[d->n++] = (sq_tpair){.key = *key, .value = *value};
    return SQUISH_OK;
}

/* ---- from the caller's JSON ------------------------------------------------------------------ */

static squish_status from_array(sq_trun *r, const json_t *j, int depth, sq_tval *out) {
    size_t n = json_array_size(j);
    SQ_TRY(sq_tmpl_new_seq(r, SQ_TV_LIST, n, out));
    sq_tseq *seq = out->u.seq;
    for (size_t i = 0; i < n; i++)
        SQ_TRY(sq_tmpl_from_json(r, json_array_get(j, i), depth + 1, &seq->items[i]));
    seq->n = (uint32_t)n;
    return SQUISH_OK;
}

static squish_status from_object(sq_trun *r, const json_t *j, int depth, sq_tval *out) {
    json_t *object = (json_t *)(uintptr_t)j; /* jansson's iterators read only, but do not say const */
    SQ_TRY(sq_tmpl_new_dict(r, SQ_TV_DICT, json_object_size(j), out));
    sq_tdict *dict = out->u.dict;
    for (void *it = json_object_iter(object); it; it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        sq_tpair *pair = &dict->items[dict->n];
        pair->key = sq_tv_str(key, strlen(key));
        SQ_TRY(sq_tmpl_from_json(r, json_object_iter_value(it), depth + 1, &pair->value));
        dict->n++;
    }
    return SQUISH_OK;
}

/* Convert a JSON value once; strings stay where they are. */
squish_status sq_tmpl_from_json(sq_trun *r, const json_t *j, int depth, sq_tval *out) {
    if (depth > SQ_TMPL_VALUE_DEPTH)
        return sq_tmpl_over(r, "values nested more than %d deep", SQ_TMPL_VALUE_DEPTH);
    SQ_TRY(sq_tmpl_charge(r, 1));
    switch (json_typeof(j)) {
        case JSON_NULL: *out = sq_tv(SQ_TV_NONE); return SQUISH_OK;
        case JSON_TRUE:
        case JSON_FALSE: *out = sq_tv_bool(json_is_true(j)); return SQUISH_OK;
        case JSON_INTEGER: *out = sq_tv_int(json_integer_value(j)); return SQUISH_OK;
        case JSON_REAL: *out = sq_tv_float(json_real_value(j)); return SQUISH_OK;
        case JSON_ARRAY: return from_array(r, j, depth, out);
        case JSON_OBJECT: return from_object(r, j, depth, out);
        case JSON_STRING: break;
    }
    size_t n = json_string_length(j);
    if (n > UINT32_MAX) return sq_tmpl_over(r, "a string of %zu bytes", n);
    *out = sq_tv_str(json_string_value(j), n);
    return SQUISH_OK;
}

/* ---- questions ------------------------------------------------------------------------------- */

bool sq_tmpl_truth(const sq_tval *v) {
    switch (v->type) {
        case SQ_TV_UNDEF:
        case SQ_TV_NONE: return false;
        case SQ_TV_BOOL: return v->u.b;
        case SQ_TV_INT: return v->u.i != 0;
        case SQ_TV_FLOAT: return v->u.f != 0;
        case SQ_TV_STR: return v->n > 0;
        case SQ_TV_LIST:
        case SQ_TV_TUPLE: return v->u.seq->n > 0;
        case SQ_TV_DICT:
        case SQ_TV_VIEW: return v->u.dict->n > 0;
        case SQ_TV_RANGE: return v->u.range->n > 0;
        default: return true;
    }
}

squish_status sq_tmpl_len(sq_trun *r, const sq_tval *v, int64_t *out) {
    switch (v->type) {
        case SQ_TV_UNDEF: *out = 0; return SQUISH_OK;
        case SQ_TV_STR:
            *out = (int64_t)sq_utf8_count(v->u.s, v->n);
            return sq_tmpl_charge(r, v->n / 16);
        case SQ_TV_LIST:
        case SQ_TV_TUPLE: *out = v->u.seq->n; return SQUISH_OK;
        case SQ_TV_DICT:
        case SQ_TV_VIEW: *out = v->u.dict->n; return SQUISH_OK;
        case SQ_TV_RANGE: *out = v->u.range->n; return SQUISH_OK;
        case SQ_TV_LOOP: return sq_tmpl_loop_len(r, v->u.loop, out);
        default: return sq_tmpl_fail(r, "object of type '%s' has no len()", sq_tmpl_type_name(v));
    }
}

bool sq_tmpl_as_int(const sq_tval *v, int64_t *out) {
    if (v->type == SQ_TV_INT) *out = v->u.i;
    if (v->type == SQ_TV_BOOL) *out = v->u.b;
    return v->type == SQ_TV_INT || v->type == SQ_TV_BOOL;
}

squish_status sq_tmpl_want_int(sq_trun *r, const sq_tval *v, int64_t *out) {
    if (sq_tmpl_as_int(v, out)) return SQUISH_OK;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    return sq_tmpl_fail(r, "'%s' object cannot be interpreted as an integer", sq_tmpl_type_name(v));
}

squish_status sq_tmpl_want_str(sq_trun *r, const sq_tval *v, const char *what) {
    if (v->type == SQ_TV_STR) return SQUISH_OK;
    if (v->type == SQ_TV_UNDEF) return sq_tmpl_undefined(r, v);
    return sq_tmpl_fail(r, "%s must be str, not %s", what, sq_tmpl_type_name(v));
}
