/* SPDX-License-Identifier: Apache-2.0
 *
 * api_made.c - models that are another model with words and numbers of their own.
 *
 *   $SQUISH_HOME/models/NAME.made.json
 *   {"from": "squish-tiny", "system": "You are Mario.", "template": "...", "parameters": {"temperature": 0},
 * "license": ".."}
 *
 * POST /api/create and /api/copy write them; every route resolves them when it reads a request, so a made
 * model shares weights, cache and place in memory with the one it is made from. Made ones are never made from
 * made ones: create copies what it starts from. A name becomes a file name only if it is plain (no '/', no
 * leading dot), and the file is read as strictly as a request: it may have been written by anybody. */
#include "api/api_int.h"
#include "format/json.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, MADE_BYTES_MAX = 4 << 20 };
static const char ending[] = ".made.json";

bool sq_api_name_is_plain(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = strlen(name);
    if (n == 0 || n > SQ_API_NAME_MAX || !strchr(letters, name[0])) return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr(letters, name[i]) && !strchr("._:-", name[i])) return false;
    return true;
}

squish_status sq_api_home(const sq_api *api, const char *what, char *out, size_t n, squish_error *err) {
    char home[PATH_BYTES];
    SQ_TRY(sq_store_home(api->opt.home, home, sizeof home, err));
    if (snprintf(out, n, "%s/%s", home, what) < (int)n) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", home, what);
}

/* A trailing ":latest" says nothing. */
static int bare_length(const char *name) {
    static const char latest[] = ":latest";
    const size_t n = strlen(name), m = sizeof latest - 1;
    return (int)(n > m && strcmp(name + n - m, latest) == 0 ? n - m : n);
}

static squish_status made_path(const sq_api *api, const char *name, char *out, size_t n, squish_error *err) {
    char file[SQ_API_NAME_MAX + 40];
    if (!sq_api_name_is_plain(name))
        return sq_fail(err, SQUISH_INVALID,
                       "'%.100s' is no name for a model: letters, digits and . _ : - make one", name);
    snprintf(file, sizeof file, "models/%.*s%s", bare_length(name), name, ending);
    return sq_api_home(api, file, out, n, err);
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status take_fields(sq_api_made *m, const char *what, squish_error *err) {
    SQ_TRY(sq_json_str(m->root, "from", true, &m->from, what, err));
    SQ_TRY(sq_json_str(m->root, "system", false, &m->system, what, err));
    SQ_TRY(sq_json_str(m->root, "template", false, &m->template_source, what, err));
    SQ_TRY(sq_json_str(m->root, "license", false, &m->license, what, err));
    m->parameters = json_object_get(m->root, "parameters");
    if (!m->parameters || json_is_object(m->parameters)) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: 'parameters' is no object", what);
}

static squish_status read_file(const char *path, sq_api_made *m, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    sq_span text;
    sq_arena_init(&ar, &a, 4096, 0);
    *m = (sq_api_made){.mtime_ns = sq_os_file_mtime_ns(path)};
    squish_status st = sq_os_read_file(path, MADE_BYTES_MAX, &ar, &text, err);
    if (st == SQUISH_OK) st = sq_json_parse((const char *)text.p, text.n, SQ_JSON_DEPTH, path, &m->root, err);
    if (st == SQUISH_OK && !json_is_object(m->root))
        st = sq_fail(err, SQUISH_CORRUPT, "%s: wanted an object", path);
    if (st == SQUISH_OK) st = take_fields(m, path, err);
    sq_arena_deinit(&ar);
    if (st == SQUISH_OK) return st;
    json_decref(m->root);
    *m = (sq_api_made){0};
    return st;
}

static bool is_of_command_line(const sq_api *api, const char *name) {
    const size_t n = (size_t)bare_length(name);
    for (int32_t i = 0; i < api->opt.n_models; i++)
        if (strlen(api->opt.models[i].name) == n && memcmp(api->opt.models[i].name, name, n) == 0)
            return true;
    return false;
}

squish_status sq_api_made_read(sq_api *api, const char *name, sq_api_made *out, squish_error *err) {
    char path[PATH_BYTES];
    *out = (sq_api_made){0};
    if (!sq_api_name_is_plain(name) || is_of_command_line(api, name) ||
        made_path(api, name, path, sizeof path, NULL) != SQUISH_OK || !sq_os_exists(path))
        return sq_fail(err, SQUISH_NOT_FOUND, "no model '%.100s' here", name);
    return read_file(path, out, err);
}

squish_status sq_api_made_each(sq_api *api, bool (*fn)(void *user, const char *name, const sq_api_made *made),
                               void *user, squish_error *err) {
    char dir[PATH_BYTES], path[PATH_BYTES + SQ_API_NAME_MAX + 40];
    SQ_TRY(sq_api_home(api, "models", dir, sizeof dir, err));
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    char **names = NULL;
    size_t n = 0;
    sq_arena_init(&ar, &a, 16 << 10, 0);
    const bool listed = sq_os_list_dir(dir, &ar, &names, &n, NULL) == SQUISH_OK; /* no folder, no models */
    bool more = true;
    for (size_t i = 0; listed && more && i < n; i++) {
        const size_t len = strlen(names[i]), e = sizeof ending - 1;
        if (len <= e || len - e > SQ_API_NAME_MAX || strcmp(names[i] + len - e, ending) != 0) continue;
        sq_api_made made;
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        names[i][len - e] = 0;
        if (!sq_api_name_is_plain(names[i]) || read_file(path, &made, NULL) != SQUISH_OK) continue;
        more = fn(user, names[i], &made);
        json_decref(made.root);
    }
    sq_arena_deinit(&ar);
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *to_json(const sq_api_made *m) {
    json_t *o = json_pack("{s:s, s:s?, s:s?, s:s?}", "from", m->from, "system", m->system, "template",
                          m->template_source, "license", m->license);
    if (o && m->parameters && json_object_set(o, "parameters", m->parameters) != 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

squish_status sq_api_made_write(sq_api *api, const char *name, const sq_api_made *made, squish_error *err) {
    char path[PATH_BYTES], dir[PATH_BYTES];
    sq_newfile f;
    SQ_TRY(made_path(api, name, path, sizeof path, err));
    SQ_TRY(sq_api_home(api, "models", dir, sizeof dir, err));
    SQ_TRY(sq_os_mkdirs(dir, err));
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, MADE_BYTES_MAX);
    squish_status st = SQUISH_OK;
    if (!sq_api_dump(to_json(made), &b) || !sq_buf_putc(&b, '\n'))
        st = sq_fail(err, SQUISH_INVALID, "%s: more than %d bytes of words", name, MADE_BYTES_MAX);
    if (st == SQUISH_OK) st = sq_os_newfile_open(&f, path, b.len, err);
    if (st == SQUISH_OK) {
        st = sq_os_newfile_write_at(&f, 0, b.data, b.len, err);
        if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
        sq_os_newfile_abandon(&f);
    }
    sq_buf_deinit(&b);
    return st;
}

squish_status sq_api_made_remove(sq_api *api, const char *name, squish_error *err) {
    char path[PATH_BYTES];
    SQ_TRY(made_path(api, name, path, sizeof path, err));
    if (unlink(path) == 0) return sq_os_sync_parent(path, err);
    return sq_fail_errno(err, errno, "%s", path);
}

/* ---- in a request ---------------------------------------------------------------------------- */

/* The parameters say what the request does not. They are read by the reader of requests, into a wish of their
 * own. */
static bool lay_parameters(sq_api_call *c, const json_t *parameters) {
    sq_api_wish own = c->wish;
    c->wish.gen = squish_gen_options_default();
    c->wish.set = 0;
    c->wish.ctx_max = 0;
    const bool ok = sq_api_ollama_options(c, parameters, "parameters.");
    own.under = c->wish.gen;
    own.under_set = c->wish.set;
    if (!own.gen.n_stop) own.gen.stop = c->wish.gen.stop, own.gen.n_stop = c->wish.gen.n_stop;
    if (!own.ctx_max) own.ctx_max = c->wish.ctx_max;
    c->wish = own;
    return ok;
}

static bool lay_system(sq_api_call *c, const char *system) {
    const char *role = json_string_value(json_object_get(json_array_get(c->wish.messages, 0), "role"));
    if (!c->wish.messages || (role && strcmp(role, "system") == 0)) return true;
    json_t *m = json_pack("{s:s, s:s}", "role", "system", "content", system);
    return (m && json_array_insert_new(c->wish.messages, 0, m) == 0) ||
           sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

/* What the wish takes from the file lives as long as c->made. */
static bool lay(sq_api_call *c, const sq_api_made *m) {
    c->made = m->root;
    c->model_name = c->wish.model;
    c->wish.model = m->from;
    if (m->template_source && !c->wish.template_source) c->wish.template_source = m->template_source;
    if (m->system && !lay_system(c, m->system)) return false;
    return !m->parameters || lay_parameters(c, m->parameters);
}

bool sq_api_made_apply(sq_api_call *c) {
    sq_api_made m;
    squish_error err = {0};
    const char *name = c->wish.model;
    if (!name || !*name) return true;
    const squish_status st = sq_api_made_read(c->api, name, &m, &err);
    if (st == SQUISH_NOT_FOUND) return true; /* the table of models will say */
    if (st != SQUISH_OK) return sq_api_refuse_lib(&c->error, &err);
    return lay(c, &m);
}
