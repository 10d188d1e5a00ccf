/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_json_ref.c - identifiers, anchors and references inside of one schema document.
 *
 * One walk over the places where schemas can lie finds each resource (a schema with an identifier of its
 * own), its anchors, and the resource that each reference is relative to. Nothing is fetched. */
#include "grammar/gram_json_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *uri; /* absolute where the document says so, without a fragment */
    const json_t *root;
    bool legacy;   /* up to draft 7: $ref hides what stands beside it */
    bool plain_id; /* draft 4: "id" */
} resource;
typedef struct {
    uint32_t resource;
    const char *name;
    const json_t *schema;
    bool dynamic;
} anchor;
typedef struct {
    const json_t *schema;
    uint32_t resource;
} base;

static resource *resource_at(const gram_schema *c, size_t i) { return &GRAM_AT(c->resources, resource, i); }

/* ---- URIs (RFC 3986, 5.2, as far as identifiers of schemas go) -------------------------------- */

static bool has_scheme(const char *s) {
    const size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && s[n] == ':' && !(s[0] >= '0' && s[0] <= '9');
}

/* Bytes of a URI before its path. */
static size_t before_path(const char *s) {
    const char *colon = has_scheme(s) ? strchr(s, ':') + 1 : s;
    if (strncmp(colon, "//", 2) != 0) return (size_t)(colon - s);
    return (size_t)(colon - s) + 2 + strcspn(colon + 2, "/?#");
}

/* Take "." and ".." out of the path behind s[from]. */
static void remove_dots(char *s, size_t from) {
    size_t m = from;
    for (size_t i = from; s[i];) {
        const size_t n = strcspn(s + i + 1, "/") + 1; /* a segment with its leading slash */
        const bool up = n == 3 && memcmp(s + i, "/..", 3) == 0, here = n == 2 && memcmp(s + i, "/.", 2) == 0;
        if (up)
            while (m > from && s[--m] != '/') {}
        if (up || here) {
            if (!s[i + n]) s[m++] = '/';
        } else {
            memmove(s + m, s + i, n);
            m += n;
        }
        i += n;
    }
    s[m] = 0;
}

/* ref[0..n), without a fragment, relative to `against`; in the arena. NULL after a failure. */
static const char *resolve(gram_schema *c, const char *against, const char *ref, size_t n) {
    const size_t stem = before_path(against);
    size_t keep = 0;
    if (n == 0) return against;
    char *out = gram_schema_alloc(c, strlen(against) + n + 2);
    if (!out) return NULL;
    if (!has_scheme(ref) && strncmp(ref, "//", 2) == 0)
        keep = has_scheme(against) ? (size_t)(strchr(against, ':') - against) + 1 : 0;
    else if (!has_scheme(ref) && *ref == '/')
        keep = stem;
    else if (!has_scheme(ref))
        for (keep = strlen(against); keep > stem && against[keep - 1] != '/';) keep--;
    memcpy(out, against, keep);
    const bool slash =
        keep == stem && keep > 0 && *ref != '/' && !has_scheme(ref) && against[keep - 1] != ':';
    if (slash) out[keep++] = '/';
    memcpy(out + keep, ref, n);
    out[keep + n] = 0;
    const size_t path = before_path(out);
    if (out[path] == '/') remove_dots(out, path);
    return out;
}

/* ---- the walk --------------------------------------------------------------------------------- */

static const char *const lists[] = {"allOf", "anyOf", "oneOf", "prefixItems", "items", NULL};
static const char *const singles[] = {"items",
                                      "additionalItems",
                                      "contains",
                                      "additionalProperties",
                                      "propertyNames",
                                      "not",
                                      "if",
                                      "then",
                                      "else",
                                      "unevaluatedItems",
                                      "unevaluatedProperties",
                                      NULL};
static const char *const maps[] = {"properties",       "patternProperties", "$defs", "definitions",
                                   "dependentSchemas", "dependencies",      NULL};

static bool is_in(const char *const *list, const char *word) {
    for (; *list; list++)
        if (strcmp(*list, word) == 0) return true;
    return false;
}

static void add_anchor(gram_schema *c, uint32_t in, const json_t *name, const json_t *schema, bool dynamic) {
    if (!json_is_string(name)) return;
    anchor *to = gram_vec_room(c->p, &c->anchors, 1, sizeof *to);
    if (!to) return;
    *to = (anchor){in, json_string_value(name), schema, dynamic};
    c->anchors.n++;
}

static void set_draft(resource *r, const json_t *schema) {
    const char *s = json_string_value(json_object_get(schema, "$schema"));
    if (!s) return;
    r->plain_id = strstr(s, "draft-04") || strstr(s, "draft-03");
    r->legacy = r->plain_id || strstr(s, "draft-06") || strstr(s, "draft-07");
}

/* The resource that a schema opens, or the one it is in. */
static uint32_t enter(gram_schema *c, const json_t *schema, uint32_t in) {
    const resource around = *resource_at(c, in);
    const json_t *v = json_object_get(schema, around.plain_id ? "id" : "$id");
    const char *id = json_string_value(v);
    if (!id || schema == c->root || (around.legacy && json_object_get(schema, "$ref"))) return in;
    if (*id == '#') {
        json_t *name = gram_schema_keep(c, json_string(id + 1));
        if (name) add_anchor(c, in, name, schema, false);
        return in;
    }
    resource fresh = around;
    fresh.uri = resolve(c, around.uri, id, strcspn(id, "#"));
    fresh.root = schema;
    set_draft(&fresh, schema);
    resource *to = gram_vec_room(c->p, &c->resources, 1, sizeof *to);
    if (!fresh.uri || !to) return in;
    *to = fresh;
    return (uint32_t)c->resources.n++;
}

static void walk(gram_schema *c, const json_t *schema, uint32_t in) {
    const char *key, *name;
    json_t *v, *x;
    size_t i;
    if (!json_is_object(schema) || gram_failed(c->p)) return;
    in = enter(c, schema, in);
    add_anchor(c, in, json_object_get(schema, "$anchor"), schema, false);
    add_anchor(c, in, json_object_get(schema, "$dynamicAnchor"), schema, true);
    if (json_object_get(schema, "unevaluatedItems") || json_object_get(schema, "unevaluatedProperties"))
        c->evaluates = true;
    base *to = gram_vec_room(c->p, &c->bases, 1, sizeof *to);
    if (!to) return;
    *to = (base){schema, in};
    c->bases.n++;
    json_object_foreach((json_t *)schema, key, v) {
        if (is_in(lists, key)) json_array_foreach(v, i, x) walk(c, x, in);
        if (is_in(singles, key)) walk(c, v, in);
        if (is_in(maps, key)) json_object_foreach(v, name, x) walk(c, x, in);
    }
}

static int by_schema(const void *a, const void *b) {
    const uintptr_t x = (uintptr_t)((const base *)a)->schema, y = (uintptr_t)((const base *)b)->schema;
    return x < y ? -1 : x > y;
}

void gram_refs_read(gram_schema *c) {
    resource *to = gram_vec_room(c->p, &c->resources, 1, sizeof *to);
    if (!to) return;
    *to = (resource){.uri = "", .root = c->root};
    set_draft(to, c->root);
    const char *id = json_string_value(json_object_get(c->root, to->plain_id ? "id" : "$id"));
    if (id && *id != '#') to->uri = resolve(c, "", id, strcspn(id, "#"));
    c->resources.n = 1;
    if (!to->uri) return;
    walk(c, c->root, 0);
    if (c->bases.n) qsort(c->bases.p, c->bases.n, sizeof(base), by_schema);
}

void gram_refs_free(gram_schema *c) {
    gram_vec_free(c->p, &c->resources, sizeof(resource));
    gram_vec_free(c->p, &c->anchors, sizeof(anchor));
    gram_vec_free(c->p, &c->bases, sizeof(base));
}

/* ---- references ------------------------------------------------------------------------------- */

static uint32_t resource_of(const gram_schema *c, const json_t *schema) {
    const base key = {schema, 0};
    const base *x = c->bases.n ? bsearch(&key, c->bases.p, c->bases.n, sizeof key, by_schema) : NULL;
    return x ? x->resource : 0;
}

bool gram_refs_draft4(const gram_schema *c) { return c->resources.n && resource_at(c, 0)->plain_id; }

bool gram_refs_legacy(const gram_schema *c, const json_t *schema) {
    return resource_at(c, resource_of(c, schema))->legacy;
}

/* A fragment, %XX taken back, in the arena. */
static char *decoded(gram_schema *c, const char *s) {
    char *out = gram_schema_alloc(c, strlen(s) + 1), *to = out;
    for (unsigned v; out && *s; to++) {
        if (*s == '%' && s[1] && s[2] && sscanf(s + 1, "%2x", &v) == 1)
            *to = (char)v, s += 3;
        else
            *to = *s++;
    }
    if (out) *to = 0;
    return out;
}

/* Along a JSON pointer (RFC 6901), which is taken apart in place. */
static const json_t *follow(const json_t *at, char *pointer) {
    for (char *s = pointer; *s == '/' && at;) {
        char *step = ++s, *to = step;
        for (; *s && *s != '/'; to++) {
            const bool escaped = *s == '~' && (s[1] == '0' || s[1] == '1');
            *to = escaped ? s[1] == '0' ? '~' : '/' : *s;
            s += escaped ? 2 : 1;
        }
        const char end = *s;
        *to = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(step, NULL, 10))
                               : json_object_get(at, step);
        if (!end) break;
        *s = end;
    }
    return at;
}

static const json_t *anchored(const gram_schema *c, uint32_t in, const char *name, bool *dynamic) {
    for (size_t i = 0; i < c->anchors.n; i++) {
        const anchor *a = &GRAM_AT(c->anchors, anchor, i);
        if (a->resource != in || strcmp(a->name, name) != 0) continue;
        *dynamic = a->dynamic;
        return a->schema;
    }
    return NULL;
}

/* Is there another schema to which a dynamic reference may lead? */
static bool is_ambiguous(const gram_schema *c, const char *name) {
    int n = 0;
    for (size_t i = 0; i < c->anchors.n; i++) {
        const anchor *a = &GRAM_AT(c->anchors, anchor, i);
        n += a->dynamic && strcmp(a->name, name) == 0;
    }
    return n > 1;
}

static bool find_resource(gram_schema *c, const char *uri, uint32_t *out) {
    for (uint32_t i = 0; uri && i < c->resources.n; i++) {
        *out = i;
        if (strcmp(resource_at(c, i)->uri, uri) == 0) return true;
    }
    return false;
}

const json_t *gram_refs_find(gram_schema *c, const json_t *schema, const char *keyword) {
    const char *s = json_string_value(json_object_get(schema, keyword));
    bool dynamic = false;
    if (!s) return gram_schema_invalid(c, schema, keyword, "is no string"), NULL;
    uint32_t in = resource_of(c, schema);
    const size_t n = strcspn(s, "#");
    if (n && !find_resource(c, resolve(c, resource_at(c, in)->uri, s, n), &in)) {
        gram_schema_refuse(c, schema, keyword, "leads out of the schema, which is not supported");
        return NULL;
    }
    char *fragment = decoded(c, s[n] ? s + n + 1 : "");
    const json_t *root = resource_at(c, in)->root, *to = root;
    if (!fragment) return NULL;
    if (*fragment == '/')
        to = follow(root, fragment);
    else if (*fragment)
        to = anchored(c, in, fragment, &dynamic);
    if (!to) gram_schema_invalid(c, schema, keyword, "leads nowhere");
    const bool many =
        strcmp(keyword, "$recursiveRef") == 0 ? c->resources.n > 1 : dynamic && is_ambiguous(c, fragment);
    if (strcmp(keyword, "$ref") != 0 && many) {
        gram_schema_refuse(c, schema, keyword, "with more than one target is not supported");
        return NULL;
    }
    return to;
}
