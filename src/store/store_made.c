/* SPDX-License-Identifier: Apache-2.0
 *
 * store_made.c - models that are another model with words and numbers of their own.
 *
 *   $SQUISH_HOME/models/NAME.made.json
 *   {"from": "squish-tiny", "system": "You are Mario.", "template": "...", "parameters": {"temperature": 0},
 *    "license": ".."}
 *
 * The server writes them (/api/create, /api/copy). A name becomes a file name only if its parts are plain (no
 * leading dot), and its slashes are written %2F. The file is read as strictly as a request: it may have been
 * written by anybody. */
#include "format/json.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, FILE_BYTES_MAX = 4 << 20 };
static const char ending[] = ".made.json";

bool sq_store_name_is_plain(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = strlen(name);
    if (n == 0 || n > SQ_STORE_NAME_MAX || !strchr(letters, name[0])) return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr(letters, name[i]) && !strchr("._:-", name[i])) return false;
    return true;
}

size_t sq_store_bare_length(const char *name) {
    static const char latest[] = ":latest";
    const size_t n = strlen(name), m = sizeof latest - 1;
    return n > m && strcmp(name + n - m, latest) == 0 ? n - m : n;
}

static squish_status models_dir(const char *home, char *out, size_t n, squish_error *err) {
    return sq_store_place(home, "models", out, n, err);
}

static squish_status path_of(const char *home, const char *name, char *out, size_t n, squish_error *err) {
    char dir[PATH_BYTES], key[2 * SQ_STORE_NAME_MAX];
    if (!sq_store_name_is_good(name) || !sq_store_key(name, key, sizeof key))
        return sq_fail(err, SQUISH_INVALID, "'%.100s' is no name for a model: " SQ_STORE_NAME_RULE, name);
    SQ_TRY(models_dir(home, dir, sizeof dir, err));
    if (snprintf(out, n, "%s/%.*s%s", dir, (int)sq_store_bare_length(key), key, ending) < (int)n)
        return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", dir, name);
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status take_fields(sq_store_made *m, const char *what, squish_error *err) {
    SQ_TRY(sq_json_str(m->root, "from", true, &m->from, what, err));
    SQ_TRY(sq_json_str(m->root, "system", false, &m->system, what, err));
    SQ_TRY(sq_json_str(m->root, "template", false, &m->template_source, what, err));
    SQ_TRY(sq_json_str(m->root, "license", false, &m->license, what, err));
    m->parameters = json_object_get(m->root, "parameters");
    if (!m->parameters || json_is_object(m->parameters)) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: 'parameters' is no object", what);
}

static squish_status read_file(const char *path, sq_store_made *m, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    sq_span text;
    sq_arena_init(&ar, &a, 4096, 0);
    *m = (sq_store_made){.mtime_ns = sq_os_file_mtime_ns(path)};
    squish_status st = sq_os_read_file(path, FILE_BYTES_MAX, &ar, &text, err);
    if (st == SQUISH_OK) st = sq_json_parse((const char *)text.p, text.n, SQ_JSON_DEPTH, path, &m->root, err);
    if (st == SQUISH_OK && !json_is_object(m->root))
        st = sq_fail(err, SQUISH_CORRUPT, "%s: wanted an object", path);
    if (st == SQUISH_OK) st = take_fields(m, path, err);
    sq_arena_deinit(&ar);
    if (st == SQUISH_OK) return st;
    json_decref(m->root);
    *m = (sq_store_made){0};
    return st;
}

squish_status sq_store_made_read(const char *home, const char *name, sq_store_made *out, squish_error *err) {
    char path[PATH_BYTES];
    *out = (sq_store_made){0};
    if (path_of(home, name, path, sizeof path, NULL) != SQUISH_OK || !sq_os_exists(path))
        return sq_fail(err, SQUISH_NOT_FOUND, "no model '%.100s' here", name);
    return read_file(path, out, err);
}

squish_status sq_store_made_each(const char *home, sq_store_made_fn fn, void *user, squish_error *err) {
    char dir[PATH_BYTES], path[PATH_BYTES + 2 * SQ_STORE_NAME_MAX], name[2 * SQ_STORE_NAME_MAX];
    SQ_TRY(models_dir(home, dir, sizeof dir, err));
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    char **names = NULL;
    size_t n = 0;
    sq_arena_init(&ar, &a, 16 << 10, 0);
    const squish_status listed = sq_os_list_dir(dir, &ar, &names, &n, NULL); /* no folder, no models */
    bool more = true, no_memory = listed == SQUISH_NO_MEMORY;
    for (size_t i = 0; listed == SQUISH_OK && more && !no_memory && i < n; i++) {
        const size_t len = strlen(names[i]), e = sizeof ending - 1;
        if (len <= e || len >= sizeof name || strcmp(names[i] + len - e, ending) != 0) continue;
        sq_store_made made;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        names[i][len - e] = 0;
        sq_store_name_of_key(names[i], name, sizeof name);
        if (!sq_store_name_is_good(name)) continue;
        const squish_status st = read_file(path, &made, NULL);
        no_memory = st == SQUISH_NO_MEMORY;
        if (st != SQUISH_OK) continue;
        more = fn(user, name, path, &made);
        json_decref(made.root);
    }
    sq_arena_deinit(&ar);
    return no_memory ? sq_fail(err, SQUISH_NO_MEMORY, "the list of made models: out of memory") : SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

char *sq_store_made_text(const sq_store_made *m) {
    json_t *o = json_pack("{s:s, s:s?, s:s?, s:s?}", "from", m->from, "system", m->system, "template",
                          m->template_source, "license", m->license);
    const bool ok = o && (!m->parameters || json_object_set(o, "parameters", m->parameters) == 0);
    char *text = ok ? sq_json_dump(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    return text;
}

squish_status sq_store_made_write(const char *home, const char *name, const sq_store_made *made,
                                  squish_error *err) {
    char path[PATH_BYTES], dir[PATH_BYTES];
    SQ_TRY(path_of(home, name, path, sizeof path, err));
    SQ_TRY(models_dir(home, dir, sizeof dir, err));
    SQ_TRY(sq_os_mkdirs(dir, err));
    char *text = sq_store_made_text(made);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    const squish_status st =
        strlen(text) < FILE_BYTES_MAX
            ? sq_os_write_file(path, text, strlen(text), err)
            : sq_fail(err, SQUISH_INVALID, "%s: more than %d bytes of words", name, FILE_BYTES_MAX);
    free(text);
    return st;
}

squish_status sq_store_made_remove(const char *home, const char *name, squish_error *err) {
    char path[PATH_BYTES];
    SQ_TRY(path_of(home, name, path, sizeof path, err));
    if (unlink(path) == 0) return sq_os_sync_parent(path, err);
    return sq_fail_errno(err, errno, "%s", path);
}
