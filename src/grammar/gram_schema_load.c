/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_schema_load.c - documents and the names in them: $id, $anchor, $dynamicAnchor, and what $ref finds.
 *
 * A document is scanned once, when the first reference asks for it: only places that the draft calls schemas
 * are looked at, so an "$id" inside an enum or an unknown keyword names nothing. Nothing is fetched. */
#include "grammar/gram_schema_int.h"

#include <stdio.h>
#include <xxhash.h>

static squish_status no_memory(squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "no memory for the schema");
}

void gs_place(const gs_resource *r, const gs_value *v, sq_buf *out) {
    if (r && !r->document->is_main) sq_buf_puts(out, r->document->uri);
    sq_buf_putc(out, '#');
    gs_value_pointer(v, out);
}

squish_status gs_fail_at(const sq_schema *s, const gs_resource *r, const gs_value *v, squish_status code,
                         squish_error *err, const char *fmt, ...) {
    char text[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sq_buf place;
    sq_buf_init(&place, &s->alloc, 150);
    gs_place(r, v, &place);
    const squish_status st = sq_fail(err, code, "schema %s: %s", place.data ? place.data : "#", text);
    sq_buf_deinit(&place);
    return st;
}

/* ---- the table of names ---------------------------------------------------------------------- */

static size_t bucket(const gs_resource *r, const char *name) {
    return XXH3_64bits_withSeed(name, strlen(name), (uint64_t)(uintptr_t)r) % GS_BUCKETS;
}

static gs_entry *entry_find(const sq_schema *s, const gs_resource *r, const char *name) {
    for (gs_entry *e = s->entries[bucket(r, name)]; e; e = e->next)
        if (e->resource == r && strcmp(e->name, name) == 0) return e;
    return NULL;
}

/* A name that is there already keeps its meaning; *taken says so. */
static squish_status entry_add(sq_schema *s, const gs_resource *r, const char *name, gs_value *v,
                               bool dynamic, bool *taken, squish_error *err) {
    gs_entry *e = entry_find(s, r, name);
    *taken = e && e->value != v;
    if (e) {
        e->dynamic |= dynamic;
        return SQUISH_OK;
    }
    e = SQ_ARENA_NEW(&s->arena, gs_entry);
    if (!e) return no_memory(err);
    gs_entry **head = &s->entries[bucket(r, name)];
    *e = (gs_entry){*head, r, name, dynamic, v};
    *head = e;
    return SQUISH_OK;
}

gs_value *gs_anchor_find(const sq_schema *s, const gs_resource *r, const char *name, bool *dynamic) {
    const gs_entry *e = entry_find(s, r, name);
    *dynamic = e && e->dynamic;
    return e ? e->value : NULL;
}

const gs_resource *gs_resource_of(const gs_value *v) {
    while (v && !v->schema) v = v->parent;
    return v ? v->schema->resource : NULL;
}

/* ---- dialects -------------------------------------------------------------------------------- */

enum { ALL_VOCABULARIES = GS_CORE | GS_APPLICATOR | GS_UNEVALUATED | GS_VALIDATION | GS_FORMAT | GS_OTHER };

/* "http" or "https", and an empty fragment, make no difference. */
static const char *plain_uri(const char *uri, size_t n, char out[256]) {
    const bool secure = n >= 8 && memcmp(uri, "https://", 8) == 0,
               open = n >= 7 && !memcmp(uri, "http://", 7);
    if (n && uri[n - 1] == '#') n--;
    const size_t skip = secure ? 8 : open ? 7 : 0;
    snprintf(out, 256, "%.*s", (int)(n - skip), uri + skip);
    return out;
}

static bool known_dialect(const sq_schema *s, const char *plain, gs_dialect *out) {
    static const struct {
        const char *uri;
        uint8_t draft;
    } known[] = {{"json-schema.org/draft-04/schema", GS_D4},
                 {"json-schema.org/draft-06/schema", GS_D6},
                 {"json-schema.org/draft-07/schema", GS_D7},
                 {"json-schema.org/draft/2019-09/schema", GS_D2019},
                 {"json-schema.org/draft/2020-12/schema", GS_D2020}};
    for (size_t i = 0; i < SQ_COUNT(known); i++) {
        if (strcmp(known[i].uri, plain)) continue;
        *out = (gs_dialect){known[i].draft, ALL_VOCABULARIES};
        return true;
    }
    *out = s->dialect;
    return strcmp(plain, "json-schema.org/schema") == 0;
}

static uint8_t vocabulary_bit(const char *name) {
    static const struct {
        const char *name;
        uint8_t bits;
    } known[] = {{"core", GS_CORE},
                 {"applicator", GS_APPLICATOR},
                 {"unevaluated", GS_UNEVALUATED},
                 {"validation", GS_VALIDATION},
                 {"format", GS_FORMAT},
                 {"format-annotation", GS_FORMAT},
                 {"format-assertion", GS_FORMAT | GS_FORMAT_ASSERTION},
                 {"meta-data", GS_OTHER},
                 {"content", GS_OTHER}};
    for (size_t i = 0; i < SQ_COUNT(known); i++)
        if (strcmp(known[i].name, name) == 0) return known[i].bits;
    return 0;
}

static squish_status read_vocabularies(const gs_value *list, gs_dialect *d, squish_error *err) {
    d->vocabularies = GS_CORE;
    for (uint32_t i = 0; i < list->n; i++) {
        const gs_member *m = &list->u.object.members[i];
        char plain[256], draft[16], name[64];
        uint8_t bits = 0;
        plain_uri(m->name, m->bytes, plain);
        if (sscanf(plain, "json-schema.org/draft/%15[0-9-]/vocab/%63s", draft, name) == 2)
            bits = vocabulary_bit(name);
        /* 2019-09 keeps unevaluated* with the applicators. */
        if (bits == GS_APPLICATOR && d->draft == GS_D2019) bits |= GS_UNEVALUATED;
        if (!bits && m->value.yes)
            return sq_fail(err, SQUISH_UNSUPPORTED,
                           "the metaschema demands vocabulary '%.150s', which is not known", m->name);
        d->vocabularies |= bits;
    }
    return SQUISH_OK;
}

static squish_status document_read(sq_schema *s, gs_document *d, squish_error *err);

static gs_document *document_find(sq_schema *s, const char *uri) {
    for (gs_document *d = s->documents; d; d = d->next)
        if (strcmp(d->uri, uri) == 0) return d;
    const char *json = gs_metaschema(uri);
    gs_document *d = json ? SQ_ARENA_NEW(&s->arena, gs_document) : NULL;
    if (!d) return NULL;
    *d = (gs_document){.uri = sq_arena_strndup(&s->arena, uri, strlen(uri)),
                       .json = json,
                       .bytes = strlen(json),
                       .next = s->documents};
    if (d->uri) s->documents = d;
    return d->uri ? d : NULL;
}

/* The dialect a $schema names: one we know, or a registered metaschema that says which vocabularies it takes.
 */
static squish_status dialect_of(sq_schema *s, const gs_value *uri, gs_dialect *out, squish_error *err) {
    char plain[256];
    *out = s->dialect;
    for (int hops = 0; uri && hops < 8; hops++) {
        if (uri->type != GS_STRING)
            return sq_fail(err, SQUISH_INVALID, "$schema is %s, wanted a URI", gs_type_name(uri));
        gs_dialect base;
        if (known_dialect(s, plain_uri(uri->u.text, uri->n, plain), &base)) {
            out->draft = base.draft;
            if (hops == 0) out->vocabularies = base.vocabularies;
            return SQUISH_OK;
        }
        char *name = gs_uri_resolve(&s->arena, "", uri->u.text, uri->n);
        if (!name) return no_memory(err);
        if (*name && name[strlen(name) - 1] == '#') name[strlen(name) - 1] = 0;
        gs_document *d = document_find(s, name);
        if (!d)
            return sq_fail(err, SQUISH_UNSUPPORTED,
                           "$schema '%.150s' is neither draft 4, 6, 7, 2019-09 or 2020-12 "
                           "nor a registered document",
                           name);
        SQ_TRY(document_read(s, d, err));
        const gs_value *vocabularies = gs_value_find(d->root, "$vocabulary");
        uri = gs_value_find(d->root, "$schema");
        if (hops == 0) {
            *out = (gs_dialect){s->dialect.draft, ALL_VOCABULARIES};
            if (uri && uri->type == GS_STRING &&
                known_dialect(s, plain_uri(uri->u.text, uri->n, plain), &base))
                out->draft = base.draft;
            if (vocabularies && vocabularies->type == GS_OBJECT)
                SQ_TRY(read_vocabularies(vocabularies, out, err));
        }
    }
    return SQUISH_OK;
}

/* ---- scanning -------------------------------------------------------------------------------- */

static squish_status take_resource(sq_schema *s, const gs_document *d, gs_value *v, const char *id, size_t n,
                                   const gs_resource **r, squish_error *err) {
    gs_resource *made = SQ_ARENA_NEW(&s->arena, gs_resource);
    const gs_resource *outer = *r;
    char *uri = made ? gs_uri_resolve(&s->arena, outer ? outer->uri : d->uri, id, n) : NULL;
    if (!uri) return no_memory(err);
    char *fragment = strchr(uri, '#');
    if (fragment) *fragment = 0;
    *made =
        (gs_resource){.document = d, .uri = uri, .root = v, .dialect = outer ? outer->dialect : s->dialect};
    *r = made;
    const gs_value *schema = gs_value_find(v, "$schema");
    if (schema) {
        const squish_status st = dialect_of(s, schema, &made->dialect, err);
        if (st != SQUISH_OK) return st;
    }
    const gs_value *recursive = gs_value_find(v, "$recursiveAnchor");
    made->recursive_anchor = made->dialect.draft == GS_D2019 && recursive && recursive->yes;
    bool taken;
    SQ_TRY(entry_add(s, NULL, uri, v, false, &taken, err));
    if (taken && entry_find(s, NULL, uri)->value->schema &&
        gs_resource_of(entry_find(s, NULL, uri)->value)->document == d)
        return gs_fail_at(s, made, v, SQUISH_INVALID, err, "a second schema called '%.150s'", uri);
    return SQUISH_OK;
}

static squish_status take_anchor(sq_schema *s, const gs_resource *r, gs_value *v, const char *name, size_t n,
                                 bool dynamic, squish_error *err) {
    bool taken;
    char *copy = sq_arena_strndup(&s->arena, name, n);
    if (!copy) return no_memory(err);
    SQ_TRY(entry_add(s, r, copy, v, dynamic, &taken, err));
    return taken ? gs_fail_at(s, r, v, SQUISH_INVALID, err, "a second anchor '%.100s'", copy) : SQUISH_OK;
}

static squish_status take_anchors(sq_schema *s, const gs_resource *r, gs_value *v, squish_error *err) {
    const gs_value *plain = gs_value_find(v, "$anchor"), *dynamic = gs_value_find(v, "$dynamicAnchor");
    if (r->dialect.draft < GS_D2019) return SQUISH_OK;
    if (plain && plain->type == GS_STRING) SQ_TRY(take_anchor(s, r, v, plain->u.text, plain->n, false, err));
    if (dynamic && dynamic->type == GS_STRING && r->dialect.draft == GS_D2020)
        SQ_TRY(take_anchor(s, r, v, dynamic->u.text, dynamic->n, true, err));
    return SQUISH_OK;
}

static squish_status scan(sq_schema *s, const gs_document *d, gs_value *v, const gs_resource *r,
                          squish_error *err);

static squish_status scan_sub(sq_schema *s, const gs_document *d, gs_shape shape, gs_value *v,
                              const gs_resource *r, squish_error *err) {
    const bool one = shape == GS_SUB_ONE || shape == GS_SUB_ONE_OR_LIST;
    const bool list = shape == GS_SUB_LIST || shape == GS_SUB_ONE_OR_LIST;
    const bool map = shape == GS_SUB_MAP || shape == GS_SUB_DEFS;
    if (one && v->type == GS_OBJECT) return scan(s, d, v, r, err);
    if (list && v->type == GS_ARRAY)
        for (uint32_t i = 0; i < v->n; i++) SQ_TRY(scan(s, d, &v->u.items[i], r, err));
    if (map && v->type == GS_OBJECT)
        for (uint32_t i = 0; i < v->n; i++) SQ_TRY(scan(s, d, &v->u.object.members[i].value, r, err));
    return SQUISH_OK;
}

/* Names of v and of every schema below it. As deep as the text. */
static squish_status scan(sq_schema *s, const gs_document *d, gs_value *v, const gs_resource *r,
                          squish_error *err) {
    if (r && v->type != GS_OBJECT) return SQUISH_OK;
    gs_dialect dialect = r ? r->dialect : s->dialect;
    const gs_value *said = gs_value_find(v, "$schema");
    if (said) SQ_TRY(dialect_of(s, said, &dialect, err));
    const gs_value *id = gs_value_find(v, dialect.draft == GS_D4 ? "id" : "$id");
    const gs_value *ref = gs_value_find(v, "$ref");
    /* Up to draft 7 a $ref hides its siblings. */
    if (id && (id->type != GS_STRING || (dialect.draft < GS_D2019 && ref && ref->type == GS_STRING)))
        id = NULL;
    const char *mark = id ? memchr(id->u.text, '#', id->n) : NULL;
    const bool names_resource = id && mark != id->u.text;
    if (!r || names_resource)
        SQ_TRY(take_resource(s, d, v, names_resource ? id->u.text : "", names_resource ? id->n : 0, &r, err));
    if (!gs_schema_of(s, v, r)) return no_memory(err);
    const size_t behind = mark ? id->n - (size_t)(mark - id->u.text) - 1 : 0;
    if (behind && dialect.draft < GS_D2019)
        SQ_TRY(take_anchor(s, r, v, mark + 1, behind, false, err));
    else if (behind)
        return gs_fail_at(s, r, v, SQUISH_INVALID, err, "$id has a fragment");
    SQ_TRY(take_anchors(s, r, v, err));
    for (size_t i = 0; i < gs_n_keywords; i++) {
        const gs_keyword *k = &gs_keywords[i];
        if (k->shape == GS_SUB_NONE || !(k->drafts & r->dialect.draft)) continue;
        gs_value *arg = gs_value_find(v, k->name);
        if (arg) SQ_TRY(scan_sub(s, d, k->shape, arg, r, err));
    }
    return SQUISH_OK;
}

static squish_status document_read(sq_schema *s, gs_document *d, squish_error *err) {
    if (d->root) return SQUISH_OK;
    if (d->bytes > SQ_SCHEMA_BYTES_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "schema '%.150s': %zu bytes, at most %d are read", d->uri,
                       d->bytes, SQ_SCHEMA_BYTES_MAX);
    char what[200];
    snprintf(what, sizeof what, *d->uri ? "schema '%.150s'" : "schema%s", d->uri);
    const char *own = sq_arena_strndup(&s->arena, d->json, d->bytes); /* numbers point into it */
    if (!own) return no_memory(err);
    return gs_value_read(&s->arena, own, d->bytes, what, &d->root, err);
}

squish_status gs_document_scan(sq_schema *s, gs_document *d, squish_error *err) {
    SQ_TRY(document_read(s, d, err));
    if (d->root->schema) return SQUISH_OK;
    squish_status st = scan(s, d, d->root, NULL, err);
    if (st != SQUISH_OK) return st;
    bool taken; /* by the name it was fetched under, beside its own */
    return *d->uri ? entry_add(s, NULL, d->uri, d->root, false, &taken, err) : SQUISH_OK;
}

squish_status gs_documents_add(sq_schema *s, const squish_schema_options *opt, squish_error *err) {
    for (size_t i = 0; i < opt->n_documents; i++) {
        const squish_schema_document *from = &opt->documents[i];
        gs_document *d = SQ_ARENA_NEW(&s->arena, gs_document);
        if (!d) return no_memory(err);
        *d = (gs_document){.uri = "", .json = from->json, .bytes = from->bytes, .next = s->documents};
        const char *name = from->uri ? from->uri : "";
        if (!from->uri) { /* its own name is the only one: look now */
            SQ_TRY(document_read(s, d, err));
            const gs_value *id = gs_value_find(d->root, "$id");
            if (!id) id = gs_value_find(d->root, "id");
            if (!id || id->type != GS_STRING || id->n == 0)
                return sq_fail(err, SQUISH_INVALID, "registered document %zu has neither a URI nor an $id",
                               i);
            name = id->u.text;
        }
        char *uri = gs_uri_resolve(&s->arena, "", name, strlen(name));
        if (!uri) return no_memory(err);
        if (*uri && uri[strlen(uri) - 1] == '#') uri[strlen(uri) - 1] = 0;
        d->uri = uri;
        s->documents = d;
    }
    return SQUISH_OK;
}

/* ---- references ------------------------------------------------------------------------------ */

/* One step of a JSON pointer; token is unescaped in place. */
static gs_value *step(gs_value *v, char *token, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        const bool escaped = token[i] == '~' && i + 1 < n && (token[i + 1] == '0' || token[i + 1] == '1');
        token[out++] = !escaped ? token[i] : token[i + 1] == '0' ? '~' : '/';
        i += escaped;
    }
    if (v->type == GS_OBJECT) return gs_value_get(v, token, out);
    if (v->type != GS_ARRAY || out == 0 || out > 9 || (out > 1 && token[0] == '0')) return NULL;
    uint32_t index = 0;
    for (size_t i = 0; i < out; i++) {
        if (token[i] < '0' || token[i] > '9') return NULL;
        index = index * 10 + (uint32_t)(token[i] - '0');
    }
    return index < v->n ? &v->u.items[index] : NULL;
}

static gs_value *follow(gs_value *v, char *pointer, size_t n) {
    for (size_t at = 0; v && at < n;) {
        const size_t from = at + 1;
        at = from;
        while (at < n && pointer[at] != '/') at++;
        v = step(v, pointer + from, at - from);
    }
    return v;
}

squish_status gs_ref_resolve(sq_schema *s, const gs_resource *from, const gs_value *ref, gs_value **target,
                             const char **fragment, squish_error *err) {
    char *uri = gs_uri_resolve(&s->arena, from->uri, ref->u.text, ref->n);
    if (!uri) return no_memory(err);
    char *mark = strchr(uri, '#'), *name = mark ? mark + 1 : uri + strlen(uri);
    if (mark) *mark = 0;
    gs_entry *e = entry_find(s, NULL, uri);
    if (!e) {
        gs_document *d = document_find(s, uri);
        if (d) SQ_TRY(gs_document_scan(s, d, err));
        e = entry_find(s, NULL, uri);
    }
    if (!e)
        return gs_fail_at(s, from, ref, SQUISH_UNSUPPORTED, err,
                          "'%.150s' is not among the registered documents, and nothing is fetched", uri);
    const size_t n = gs_uri_decode(name, strlen(name));
    if (n == SIZE_MAX) return gs_fail_at(s, from, ref, SQUISH_INVALID, err, "a %% without two digits");
    *fragment = name;
    bool dynamic;
    if (n == 0)
        *target = e->value;
    else if (*name == '/')
        *target = follow(e->value, name, n);
    else {
        name[n] = 0;
        *target = gs_anchor_find(s, gs_resource_of(e->value), name, &dynamic);
    }
    if (!*target)
        return gs_fail_at(s, from, ref, SQUISH_INVALID, err, "'%.150s' leads to nothing", ref->u.text);
    return SQUISH_OK;
}
