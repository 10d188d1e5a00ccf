/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_catalog.c - short names for public models. The bundled list is catalog.json beside this file, embedded
 * by the Makefile; $SQUISH_HOME/catalog.json, of the same form, goes in front of it. */
#include "format/json.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { BYTES_MAX = 4 << 20, PATH_BYTES = 4096 };

extern const unsigned char hub_catalog_json[];
extern const unsigned long hub_catalog_bytes;

static squish_status take(hub_entry *e, const json_t *o, const char *what, squish_error *err) {
    hub_ref r;
    int64_t bytes = 0;
    *e = (hub_entry){.revision = "", .license = "", .about = "", .needs = ""};
    if (!json_is_object(o)) return sq_fail(err, SQUISH_CORRUPT, "%s: a model is no object", what);
    SQ_TRY(sq_json_str(o, "name", true, &e->name, what, err));
    SQ_TRY(sq_json_str(o, "repo", true, &e->repo, what, err));
    SQ_TRY(sq_json_str(o, "revision", false, &e->revision, what, err));
    SQ_TRY(sq_json_str(o, "license", false, &e->license, what, err));
    SQ_TRY(sq_json_str(o, "about", false, &e->about, what, err));
    SQ_TRY(sq_json_str(o, "needs", false, &e->needs, what, err));
    SQ_TRY(sq_json_f64(o, "billions", false, 0, 1e6, &e->billions, what, err));
    SQ_TRY(sq_json_i64(o, "bytes", false, 0, INT64_MAX, &bytes, what, err));
    SQ_TRY(sq_json_bool(o, "verified", false, &e->verified, what, err));
    e->bytes = (uint64_t)bytes;
    if (!sq_store_name_is_plain(e->name) || strchr(e->name, '/'))
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%.80s' is no name for a model", what, e->name);
    const squish_status st = hub_name(NULL, e->repo, true, &r, err);
    if (st == SQUISH_OK && r.kind == HUB_HF) return SQUISH_OK;
    return st == SQUISH_OK ? sq_fail(err, SQUISH_CORRUPT, "%s: '%.80s' is no USER/REPO", what, e->repo)
                           : SQUISH_CORRUPT;
}

squish_status hub_catalog_read(hub_catalog *c, const char *text, size_t n, const char *what, json_t **root,
                               squish_error *err) {
    size_t i;
    const json_t *o;
    *root = NULL;
    SQ_TRY(sq_json_parse(text, n, SQ_JSON_DEPTH, what, root, err));
    json_t *models = json_object_get(*root, "models");
    squish_status st = SQUISH_OK;
    if (!json_is_array(models))
        st = sq_fail(err, SQUISH_CORRUPT, "%s: 'models' is no array", what);
    else if (json_array_size(models) + c->n > HUB_ENTRIES_MAX)
        st = sq_fail(err, SQUISH_CORRUPT, "%s: more than %d models", what, HUB_ENTRIES_MAX);
    const size_t before = c->n;
    json_array_foreach(models, i, o) {
        if (st == SQUISH_OK) st = take(&c->entries[c->n], o, what, err);
        if (st == SQUISH_OK) c->n++;
    }
    if (st == SQUISH_OK) return st;
    c->n = before;
    json_decref(*root);
    *root = NULL;
    return st;
}

squish_status hub_catalog_open(hub_catalog *c, const char *home, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    char path[PATH_BYTES];
    sq_span text;
    squish_status st = SQUISH_OK;
    *c = (hub_catalog){0};
    sq_arena_init(&c->arena, &a, 64 << 10, 0);
    c->entries = SQ_ARENA_ARRAY(&c->arena, hub_entry, HUB_ENTRIES_MAX);
    if (!c->entries) st = sq_fail(err, SQUISH_NO_MEMORY, "catalogue: out of memory");
    if (st == SQUISH_OK && sq_store_place(home, "catalog.json", path, sizeof path, NULL) == SQUISH_OK &&
        sq_os_exists(path)) {
        st = sq_os_read_file(path, BYTES_MAX, &c->arena, &text, err);
        if (st == SQUISH_OK) st = hub_catalog_read(c, (const char *)text.p, text.n, path, &c->roots[0], err);
    }
    if (st == SQUISH_OK)
        st = hub_catalog_read(c, (const char *)hub_catalog_json, hub_catalog_bytes, "the bundled catalogue",
                              &c->roots[1], err);
    if (st != SQUISH_OK) hub_catalog_close(c);
    return st;
}

void hub_catalog_close(hub_catalog *c) {
    json_decref(c->roots[0]);
    json_decref(c->roots[1]);
    sq_arena_deinit(&c->arena);
    *c = (hub_catalog){0};
}

const hub_entry *hub_catalog_find(const hub_catalog *c, const char *name) {
    const size_t n = sq_store_bare_length(name);
    for (size_t i = 0; i < c->n; i++)
        if (strlen(c->entries[i].name) == n && strncasecmp(c->entries[i].name, name, n) == 0)
            return &c->entries[i];
    for (size_t i = 0; i < c->n && !memchr(name, ':', n); i++)
        if (strncasecmp(c->entries[i].name, name, n) == 0 && c->entries[i].name[n] == ':')
            return &c->entries[i];
    return NULL;
}
