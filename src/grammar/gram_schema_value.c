/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_value.c - JSON text to a tree of values that know their parents.
 *
 * jansson does the parsing, but it reads integers as 64 bits and reals as doubles, and a referee must not
 * round. So every number of the text is first replaced by its index in a table of exact decimals: jansson
 * sees only small integers, and the tree takes the decimals back. The same pass bounds the depth, because
 * jansson parses by recursion. */
#include "grammar/gram_schema_int.h"

#include <jansson.h>
#include <stdlib.h>
#include <xxhash.h>

/* ---- numbers to indexes ---------------------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static size_t digits_at(const char *p, size_t n, size_t at) {
    size_t i = at;
    while (i < n && is_digit(p[i])) i++;
    return i - at;
}

/* Length of the number at p[at], 0 if there is none by JSON's grammar. */
static size_t number_at(const char *p, size_t n, size_t at) {
    size_t i = at;
    if (i < n && p[i] == '-') i++;
    const size_t whole = digits_at(p, n, i);
    if (whole == 0 || (whole > 1 && p[i] == '0')) return 0;
    i += whole;
    if (i < n && p[i] == '.') {
        const size_t fraction = digits_at(p, n, i + 1);
        if (fraction == 0) return 0;
        i += 1 + fraction;
    }
    if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        i++;
        if (i < n && (p[i] == '-' || p[i] == '+')) i++;
        const size_t exponent = digits_at(p, n, i);
        if (exponent == 0) return 0;
        i += exponent;
    }
    /* What goes on as a number would must not be taken for two of them. */
    return i < n && (p[i] == '.' || p[i] == '-' || p[i] == '+') ? 0 : i - at;
}

typedef struct {
    const char *p, *what;
    size_t n;
    sq_buf text, numbers; /* rewritten; gs_number after gs_number */
    sq_arena *arena;
    squish_error *err;
} reader;

static size_t string_end(const char *p, size_t n, size_t at) {
    for (at++; at < n && p[at] != '"'; at++)
        if (p[at] == '\\') at++;
    return at < n ? at + 1 : n;
}

static squish_status refuse(reader *r, json_error_t *je) {
    return sq_fail(r->err, SQUISH_CORRUPT, "%s: line %d, column %d: %.160s", r->what, je->line, je->column,
                   je->text);
}

/* The text as it is, parsed for the sake of its complaint. */
static squish_status complain(reader *r) {
    json_error_t je;
    json_t *j =
        json_loadb(r->n ? r->p : "", r->n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (j) {
        json_decref(j);
        return sq_fail(r->err, SQUISH_CORRUPT, "%s: a number that JSON does not allow", r->what);
    }
    return refuse(r, &je);
}

static squish_status put_number(reader *r, size_t at, size_t n) {
    gs_number number;
    SQ_TRY(gs_number_read(r->arena, r->p + at, n, &number, r->err));
    const size_t index = r->numbers.len / sizeof number;
    if (sq_buf_append(&r->numbers, &number, sizeof number) && sq_buf_printf(&r->text, "%zu", index))
        return SQUISH_OK;
    return sq_fail(r->err, SQUISH_NO_MEMORY, "%s: no memory for number %zu", r->what, index);
}

static squish_status rewrite(reader *r) {
    const char *p = r->p;
    size_t copied = 0;
    int depth = 0;
    for (size_t i = 0; i < r->n;) {
        if (p[i] == '"') {
            i = string_end(p, r->n, i);
        } else if (p[i] == '-' || is_digit(p[i])) {
            const size_t n = number_at(p, r->n, i);
            if (n == 0) return complain(r);
            sq_buf_append(&r->text, p + copied, i - copied);
            SQ_TRY(put_number(r, i, n));
            copied = i += n;
        } else {
            depth += (p[i] == '[' || p[i] == '{') - (p[i] == ']' || p[i] == '}');
            if (depth > SQ_SCHEMA_NESTING_MAX)
                return sq_fail(r->err, SQUISH_CORRUPT, "%s: byte %zu: nested deeper than %d levels", r->what,
                               i, SQ_SCHEMA_NESTING_MAX);
            i++;
        }
    }
    if (sq_buf_append(&r->text, p + copied, r->n - copied)) return SQUISH_OK;
    return sq_fail(r->err, SQUISH_NO_MEMORY, "%s: no memory for %zu bytes of JSON", r->what, r->n);
}

/* ---- jansson's tree to ours ------------------------------------------------------------------ */

static squish_status no_memory(reader *r) {
    return sq_fail(r->err, SQUISH_NO_MEMORY, "%s: no memory for the values of %zu bytes of JSON", r->what,
                   r->n);
}

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int by_name(const void *a, const void *b, void *user) {
    const gs_member *m = user, *x = m + *(const uint32_t *)a, *y = m + *(const uint32_t *)b;
    const int order = memcmp(x->name, y->name, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static squish_status take(reader *r, json_t *j, gs_value *v);

static squish_status take_object(reader *r, json_t *j, gs_value *v) {
    v->type = GS_OBJECT;
    v->n = (uint32_t)json_object_size(j);
    if (v->n == 0) return SQUISH_OK;
    gs_member *members = SQ_ARENA_ARRAY(r->arena, gs_member, v->n);
    uint32_t *sorted = SQ_ARENA_ARRAY(r->arena, uint32_t, v->n), i = 0;
    if (!members || !sorted) return no_memory(r);
    const char *key;
    json_t *child;
    json_object_foreach(j, key, child) {
        gs_member *m = &members[i];
        m->bytes = (uint32_t)strlen(key);
        m->name = sq_arena_strndup(r->arena, key, m->bytes);
        if (!m->name) return no_memory(r);
        m->value = (gs_value){.parent = v, .index = i};
        sorted[i] = i;
        SQ_TRY(take(r, child, &m->value));
        /* A sum: objects are equal in whatever order. */
        v->hash += mix(XXH3_64bits_withSeed(m->name, m->bytes, m->value.hash));
        i++;
    }
    qsort_r(sorted, v->n, sizeof *sorted, by_name, members);
    v->u.object.members = members;
    v->u.object.sorted = sorted;
    return SQUISH_OK;
}

static squish_status take_array(reader *r, json_t *j, gs_value *v) {
    v->type = GS_ARRAY;
    v->n = (uint32_t)json_array_size(j);
    if (v->n == 0) return SQUISH_OK;
    v->u.items = SQ_ARENA_ARRAY(r->arena, gs_value, v->n);
    if (!v->u.items) return no_memory(r);
    for (uint32_t i = 0; i < v->n; i++) {
        v->u.items[i] = (gs_value){.parent = v, .index = i};
        SQ_TRY(take(r, json_array_get(j, i), &v->u.items[i]));
        v->hash = mix(v->hash * 31 + v->u.items[i].hash);
    }
    return SQUISH_OK;
}

static squish_status take_scalar(reader *r, json_t *j, gs_value *v) {
    if (json_is_string(j)) {
        v->type = GS_STRING;
        v->n = (uint32_t)json_string_length(j);
        v->u.text = sq_arena_strndup(r->arena, json_string_value(j), v->n);
        if (!v->u.text) return no_memory(r);
        v->hash = XXH3_64bits(v->u.text, v->n);
    } else if (json_is_integer(j)) {
        const gs_number *table = (const gs_number *)(const void *)r->numbers.data;
        v->type = GS_NUMBER;
        v->u.number = table[json_integer_value(j)];
        v->hash = XXH3_64bits_withSeed(v->u.number.digits ? v->u.number.digits : "", v->u.number.n,
                                       (uint64_t)(v->u.number.exp * 2 + v->u.number.negative));
    } else if (!json_is_null(j)) {
        v->type = GS_BOOLEAN;
        v->yes = json_is_true(j);
    }
    return SQUISH_OK;
}

/* Recursion is bounded by the depth that rewrite() let through. */
static squish_status take(reader *r, json_t *j, gs_value *v) {
    squish_status st = json_is_object(j)  ? take_object(r, j, v)
                       : json_is_array(j) ? take_array(r, j, v)
                                          : take_scalar(r, j, v);
    v->hash = mix(v->hash + (uint64_t)v->type * 2 + v->yes);
    return st;
}

static squish_status parse(reader *r, gs_value **out) {
    SQ_TRY(rewrite(r));
    json_error_t je;
    json_t *j = json_loadb(r->text.len ? r->text.data : "", r->text.len,
                           JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!j) return json_error_code(&je) == json_error_out_of_memory ? no_memory(r) : complain(r);
    *out = SQ_ARENA_NEW(r->arena, gs_value);
    const squish_status st = *out ? take(r, j, *out) : no_memory(r);
    json_decref(j);
    return st;
}

squish_status gs_value_read(sq_arena *ar, const char *json, size_t bytes, const char *what, gs_value **out,
                            squish_error *err) {
    reader r = {.p = json, .n = bytes, .what = what, .arena = ar, .err = err};
    *out = NULL;
    /* A number takes at least two bytes with what separates it, and its index at most ten. */
    sq_buf_init(&r.text, &ar->alloc, bytes * 6 + 16);
    sq_buf_init(&r.numbers, &ar->alloc, (bytes / 2 + 1) * sizeof(gs_number));
    const squish_status st = parse(&r, out);
    sq_buf_deinit(&r.text);
    sq_buf_deinit(&r.numbers);
    return st;
}

/* ---- looking --------------------------------------------------------------------------------- */

gs_value *gs_value_get(const gs_value *v, const char *name, size_t bytes) {
    if (!v || v->type != GS_OBJECT) return NULL;
    uint32_t lo = 0, hi = v->n;
    while (lo < hi) {
        const uint32_t mid = lo + (hi - lo) / 2;
        gs_member *m = &v->u.object.members[v->u.object.sorted[mid]];
        int order = memcmp(name, m->name, bytes < m->bytes ? bytes : m->bytes);
        if (order == 0) order = (bytes > m->bytes) - (bytes < m->bytes);
        if (order == 0) return &m->value;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static bool equal_members(const gs_value *a, const gs_value *b, int64_t *steps) {
    for (uint32_t i = 0; i < a->n; i++) {
        const gs_member *m = &a->u.object.members[i];
        const gs_value *other = gs_value_get(b, m->name, m->bytes);
        if (!other || !gs_value_equal(&m->value, other, steps)) return false;
    }
    return true;
}

bool gs_value_equal(const gs_value *a, const gs_value *b, int64_t *steps) {
    if (a->type != b->type || a->hash != b->hash) return false;
    if (--*steps < 0) return false;
    switch (a->type) {
    case GS_NULL: return true;
    case GS_BOOLEAN: return a->yes == b->yes;
    case GS_NUMBER: return gs_number_compare(&a->u.number, &b->u.number) == 0;
    case GS_STRING: return a->n == b->n && memcmp(a->u.text, b->u.text, a->n) == 0;
    case GS_ARRAY:
        if (a->n != b->n) return false;
        for (uint32_t i = 0; i < a->n; i++)
            if (!gs_value_equal(&a->u.items[i], &b->u.items[i], steps)) return false;
        return true;
    case GS_OBJECT: return a->n == b->n && equal_members(a, b, steps);
    }
    return false;
}

gs_value gs_value_name(const gs_value *object, uint32_t i) {
    const gs_member *m = &object->u.object.members[i];
    gs_value v = {.type = GS_STRING, .is_name = true, .n = m->bytes, .parent = object, .u.text = m->name};
    v.hash = mix(XXH3_64bits(m->name, m->bytes) + (uint64_t)GS_STRING * 2);
    return v;
}

const char *gs_type_name(const gs_value *v) {
    static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
    return v->type == GS_NUMBER && gs_number_is_integer(&v->u.number) ? "an integer" : names[v->type];
}

void gs_tidy(char *text) {
    for (size_t i = 0, n = strlen(text); i < n;) {
        uint32_t cp;
        bool ok;
        const size_t length = sq_utf8_decode(text + i, n - i, &cp, &ok);
        if (!ok) memset(text + i, '?', length);
        i += length;
    }
}

static void put_token(const gs_value *v, sq_buf *out) {
    if (v->parent->type == GS_ARRAY) {
        sq_buf_printf(out, "/%u", v->index);
        return;
    }
    const gs_member *m = &v->parent->u.object.members[v->index];
    sq_buf_putc(out, '/');
    for (uint32_t i = 0; i < m->bytes; i++) {
        if (m->name[i] == '~')
            sq_buf_puts(out, "~0");
        else if (m->name[i] == '/')
            sq_buf_puts(out, "~1");
        else
            sq_buf_putc(out, m->name[i]);
    }
}

/* As deep as the text, which is bounded. */
void gs_value_pointer(const gs_value *v, sq_buf *out) {
    if (!v->parent) return;
    gs_value_pointer(v->parent, out);
    if (!v->is_name) put_token(v, out);
}
