/* SPDX-License-Identifier: Apache-2.0
 *
 * api_ollama_store.c - changing what is in the store: POST /api/create, /api/copy, /api/push and DELETE
 * /api/delete. (POST /api/pull: api_pull.c.)
 *
 * All of it happens in $SQUISH_HOME/models and nowhere else. A name becomes a file name by sq_store_key;
 * a folder or file is removed only if the list of the store names it and it lies in that folder itself.
 * create and copy write made models (api_made.c); create with a GGUF file links its blob into the store
 * first. What runs for somebody is not deleted (409). */
#include "api/api_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, NAME_BYTES = SQ_API_NAME_MAX + 1 };

typedef struct {
    const char *name;   /* what is made or deleted */
    const char *status; /* the lines of a stream, up to "success" */
} store_state;

static bool lib_error(sq_api_call *c, const squish_error *err) { return sq_api_refuse_lib(&c->error, err); }

/* "x:latest" is x. */
static const char *bare(sq_api_call *c, const char *name) {
    static const char latest[] = ":latest";
    const size_t n = strlen(name), m = sizeof latest - 1;
    const size_t len = n > m && strcmp(name + n - m, latest) == 0 ? n - m : n;
    const char *copy = sq_arena_strndup(&c->arena, name, len);
    if (!copy) sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    return copy;
}

static bool new_name(sq_api_call *c, const char *name, const char *field) {
    return sq_store_name_is_good(name) ||
           sq_api_refuse(&c->error, 400, "invalid_value", field,
                         "'%s' is '%.100s', no name for a model: " SQ_STORE_NAME_RULE " (at most %d bytes)",
                         field, name, SQ_API_NAME_MAX);
}

/* ---- what is there --------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    bool there;
} listed;

static bool is_name(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    (void)path;
    (void)bytes;
    (void)tiers;
    listed *l = user;
    l->there = strcmp(l->name, name) == 0;
    return !l->there;
}

/* A model of the store or the command line is called exactly so. */
static bool is_taken(sq_api *api, const char *name) {
    for (int32_t i = 0; i < api->opt.n_models; i++)
        if (strcmp(api->opt.models[i].name, name) == 0) return true;
    listed l = {name, false};
    sq_api_store_each(api, is_name, &l, NULL);
    return l.there;
}

static bool free_name(sq_api_call *c, const char *name, const char *field) {
    if (!new_name(c, name, field)) return false;
    return !is_taken(c->api, name) || sq_api_refuse(&c->error, 409, "model_exists", field,
                                                    "'%s' is a model already: delete it first", name);
}

/* A copy never replaces a model, made or not: what it would take away was made on purpose. */
static bool unmade_name(sq_api_call *c, const char *name, const char *field) {
    sq_store_made m;
    if (sq_api_made_read(c->api, name, &m, NULL) != SQUISH_OK) return true;
    json_decref(m.root);
    return sq_api_refuse(&c->error, 409, "model_exists", field,
                         "'%s' is a model already: delete it first", name);
}

/* The made model of that name, or one that is nothing but `name`. NOT_FOUND: no model is called so. */
static bool start_from(sq_api_call *c, const char *name, sq_store_made *m) {
    squish_error err = {0};
    const char *path;
    squish_status st = sq_api_made_read(c->api, name, m, &err);
    if (st == SQUISH_NOT_FOUND) {
        err = (squish_error){0};
        st = sq_api_store_find(c->api, name, &c->arena, &path, &err);
        *m = (sq_store_made){.from = name};
    }
    return st == SQUISH_OK || lib_error(c, &err);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static void say(sq_api_call *c, const char *status) {
    sq_api_ndjson(c, json_pack("{s:s}", "status", status));
}

/* What was to be done was done when the request was read, so that failures have a status of HTTP. */
static void finish(sq_api_call *c) {
    const store_state *s = c->state;
    if (c->streaming && s->status) say(c, s->status);
    if (c->streaming)
        say(c, "success");
    else
        c->result = json_pack("{s:s}", "status", "success");
}

static bool without_model(sq_api_call *c) {
    c->wish.load_only = c->wish.no_model = true;
    c->wish.keep_alive_set = false;
    return c->error.status == 0;
}

/* ---- create ---------------------------------------------------------------------------------- */

static bool refuse_extras(sq_api_call *c, const json_t *body) {
    static const char *const rows[][2] = {{"adapters", "adapters are given when a model is opened (--lora)"},
                                          {"quantize", "tiers are made by squish compress"},
                                          {"messages", "messages stand in requests"},
                                          {"modelfile", "fields of the request say the same"}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        const json_t *v = json_object_get(body, rows[i][0]);
        const bool empty = !v || json_is_null(v) || (json_is_string(v) && !json_string_length(v)) ||
                           (json_is_array(v) && !json_array_size(v)) ||
                           (json_is_object(v) && !json_object_size(v));
        if (!empty)
            return sq_api_refuse(&c->error, 400, "unsupported_parameter", rows[i][0],
                                 "'%s' is not offered: %s", rows[i][0], rows[i][1]);
    }
    return true;
}

/* {"anything.gguf": "sha256:HEX"} -> path of the blob. */
static bool find_blob(sq_api_call *c, const json_t *files, char *out, size_t n) {
    const char *name = json_object_iter_key(json_object_iter((json_t *)files));
    const char *digest = name ? json_string_value(json_object_get(files, name)) : NULL;
    char what[128];
    squish_error err = {0};
    if (json_object_size(files) != 1 || !digest || strncmp(digest, "sha256:", 7) != 0 ||
        strlen(digest) != 7 + 64 || strspn(digest + 7, "0123456789abcdef") != 64)
        return sq_api_refuse(
            &c->error, 400, "invalid_value", "files",
            "'files' holds %zu entries, wanted one GGUF file as {\"NAME\": \"sha256:64 hex digits\"}",
            json_object_size(files));
    snprintf(what, sizeof what, "blobs/sha256-%s", digest + 7);
    if (sq_api_home(c->api, what, out, n, &err) != SQUISH_OK) return lib_error(c, &err);
    return sq_os_exists(out) ||
           sq_api_refuse(&c->error, 400, "blob_not_found", "files",
                         "'files': no blob %s here (POST /api/blobs/%s)", digest, digest);
}

/* The blob under a name that models have, once it was read as one. */
static bool link_blob(sq_api_call *c, const char *blob, const char *name) {
    char path[PATH_BYTES], tmp[PATH_BYTES + 64], dir[PATH_BYTES], key[2 * NAME_BYTES],
        what[2 * NAME_BYTES + 32];
    squish_error err = {0};
    squish_model *m = NULL;
    if (!sq_store_key(name, key, sizeof key)) return new_name(c, name, "model");
    snprintf(what, sizeof what, "models/%s.gguf", key);
    if (sq_api_home(c->api, what, path, sizeof path, &err) != SQUISH_OK ||
        sq_api_home(c->api, "models", dir, sizeof dir, &err) != SQUISH_OK ||
        sq_os_mkdirs(dir, &err) != SQUISH_OK)
        return lib_error(c, &err);
    snprintf(tmp, sizeof tmp, "%s/.%s.gguf", dir,
             c->id); /* a name of this request alone, which nobody can say */
    if (link(blob, tmp) != 0) {
        sq_fail_errno(&err, errno, "%s", tmp);
        return lib_error(c, &err);
    }
    const squish_status st = squish_model_open(&m, tmp, NULL, &err);
    squish_model_close(m);
    if (st == SQUISH_OK && rename(tmp, path) == 0) return true;
    if (st == SQUISH_OK) sq_fail_errno(&err, errno, "%s", path);
    unlink(tmp);
    if (st == SQUISH_OK) return lib_error(c, &err);
    return sq_api_refuse(&c->error, 400, "invalid_value", "files", "'files': %s", err.text);
}

/* A template is tried before it is kept. It is Jinja, as models bring it. */
static bool try_template(sq_api_call *c, const char *source) {
    squish_template_options o = squish_template_options_default();
    squish_text text = {0};
    squish_error err = {0};
    o.messages_json = "[{\"role\":\"user\",\"content\":\"x\"}]";
    o.template_source = source;
    const squish_status st = squish_template_render(NULL, &o, &text, &err);
    squish_text_free(&text);
    return st == SQUISH_OK || sq_api_refuse(&c->error, 400, "template_error", "template",
                                            "'template' is not the Jinja that is read here: %s", err.text);
}

static bool read_words(sq_api_call *c, const json_t *body, sq_store_made *m) {
    const json_t *license = json_object_get(body, "license");
    json_t *parameters = json_object_get(body, "parameters");
    const char *source = NULL;
    if (json_is_array(license)) license = json_array_get(license, 0);
    if (!sq_api_get_text(&c->error, body, "", "system", &m->system) ||
        !sq_api_get_text(&c->error, body, "", "template", &source) ||
        !sq_api_ollama_options(c, parameters, "parameters."))
        return false;
    if (source && *source) m->template_source = source;
    if (json_is_string(license)) m->license = json_string_value(license);
    if (json_is_object(parameters)) m->parameters = parameters;
    return !source || !*source || try_template(c, source);
}

static bool has_words(const sq_store_made *m) {
    return m->system || m->template_source || m->license || m->parameters;
}

static bool make(sq_api_call *c, const json_t *body, const char *name) {
    const json_t *files = json_object_get(body, "files");
    const char *from = NULL;
    char blob[PATH_BYTES], linked[NAME_BYTES + 8];
    squish_error err = {0};
    sq_store_made m = {0};
    if (!sq_api_get_text(&c->error, body, "", "from", &from)) return false;
    if (json_object_size(files)) {
        if (!find_blob(c, files, blob, sizeof blob) || !read_words(c, body, &m) || !link_blob(c, blob, name))
            return false;
        snprintf(linked, sizeof linked, "%s.gguf", name);
        m.from = linked;
        if (!has_words(&m)) return true; /* the store finds NAME.gguf by NAME */
    } else {
        if (!from || !*from)
            return sq_api_refuse(&c->error, 400, "missing_required_parameter", "from",
                                 "'from' is missing, and so are 'files'");
        if (!start_from(c, bare(c, from), &m)) return false;
        c->made = m.root; /* its words live as long as the call */
        if (!read_words(c, body, &m)) return false;
    }
    return sq_store_made_write(c->api->opt.home, name, &m, &err) == SQUISH_OK || lib_error(c, &err);
}

static bool read_create(sq_api_call *c, json_t *body) {
    store_state *s = c->state;
    if (!sq_api_ollama_head(c, body)) return false;
    s->name = bare(c, c->wish.model);
    s->status = "writing manifest";
    return s->name && free_name(c, s->name, "model") && refuse_extras(c, body) && make(c, body, s->name) &&
           without_model(c);
}

/* ---- copy ------------------------------------------------------------------------------------ */

static bool read_copy(sq_api_call *c, json_t *body) {
    const char *from = NULL, *to = NULL;
    squish_error err = {0};
    sq_store_made m = {0};
    if (!sq_api_get_text(&c->error, body, "", "source", &from) ||
        !sq_api_get_text(&c->error, body, "", "destination", &to))
        return false;
    if (!from || !*from || !to || !*to)
        return sq_api_refuse(&c->error, 400, "missing_required_parameter",
                             from && *from ? "destination" : "source",
                             "'source' and 'destination' are wanted");
    if (!(from = bare(c, from)) || !(to = bare(c, to)) || !free_name(c, to, "destination") ||
        !unmade_name(c, to, "destination") || !start_from(c, from, &m))
        return false;
    c->made = m.root;
    if (sq_store_made_write(c->api->opt.home, to, &m, &err) != SQUISH_OK) return lib_error(c, &err);
    return without_model(c);
}

/* ---- push ------------------------------------------------------------------------------------ */

static bool read_push(sq_api_call *c, json_t *body) {
    return sq_api_ollama_head(c, body) &&
           sq_api_refuse(&c->error, 501, "unsupported", NULL, "models are not pushed anywhere from here");
}

/* ---- delete ---------------------------------------------------------------------------------- */

static bool read_delete(sq_api_call *c, json_t *body) {
    store_state *s = c->state;
    if (!sq_api_ollama_head(c, body)) return false;
    s->name = bare(c, c->wish.model);
    c->wish.keep_alive_set = false;
    return s->name != NULL;
}

static bool in_use(sq_api_call *c, const sq_api_model *m) {
    const char *why = m->pinned ? "belongs to the command line of the server" : "is in use";
    if (!m->pinned && m->users == 0 && m->state == SQ_API_READY) return false;
    sq_api_refuse(&c->error, 409, "model_in_use", "model", "'%s' %s", m->name, why);
    return true;
}

/* Loop thread: nobody's answer is pulled from under him, and one that idles lets go of its files. */
static bool look_delete(sq_api_call *c) {
    const store_state *s = c->state;
    sq_api_model *m = sq_api_model_find(c->api, s->name);
    if (!m) return true;
    if (in_use(c, m)) return false;
    sq_api_model_keep(m, 0);
    sq_api_models_tick(c->api);
    return true;
}

static bool work_delete(sq_api_call *c) {
    const store_state *s = c->state;
    squish_error err = {0};
    sq_store_made m;
    const char *path;
    c->result = json_pack("{s:s}", "status", "success");
    /* What the command line named hides a model of the store of the same name. */
    if (sq_api_made_read(c->api, s->name, &m, NULL) == SQUISH_OK)
        json_decref(m.root);
    else if (sq_api_store_find(c->api, s->name, &c->arena, &path, &err) != SQUISH_OK)
        return lib_error(c, &err);
    const squish_status st = sq_store_remove(c->api->opt.home, s->name, &err);
    if (st == SQUISH_INVALID || st == SQUISH_NOT_FOUND)
        return sq_api_refuse(&c->error, 403, "not_in_store", "model",
                             "'%s' lies outside the store and is not deleted", s->name);
    return st == SQUISH_OK || lib_error(c, &err);
}

/* ---- routes ---------------------------------------------------------------------------------- */

#define LINES(word, read_fn)                                                                                 \
    {                                                                                                        \
        .name = word, .stream_type = "application/x-ndjson", .state_bytes = sizeof(store_state),             \
        .read = read_fn, .finish = finish, .error = sq_api_error_ollama, .fail = sq_api_ollama_fail          \
    }
static const sq_api_dialect create = LINES("ollama-create", read_create);
static const sq_api_dialect copy = LINES("ollama-copy", read_copy);
static const sq_api_dialect push = LINES("ollama-push", read_push);
static const sq_api_dialect delete_model = {.name = "ollama-delete",
                                            .state_bytes = sizeof(store_state),
                                            .read = read_delete,
                                            .look = look_delete,
                                            .work = work_delete,
                                            .needs_no_model = true,
                                            .error = sq_api_error_ollama};

static void post_create(void *user, sq_http_req *r) { sq_api_call_new(user, r, &create); }
static void post_copy(void *user, sq_http_req *r) { sq_api_call_new(user, r, &copy); }
static void post_push(void *user, sq_http_req *r) { sq_api_call_new(user, r, &push); }
static void delete_delete(void *user, sq_http_req *r) { sq_api_call_new(user, r, &delete_model); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/api/create", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_create},
    {SQ_HTTP_POST, "/api/copy", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_copy},
    {SQ_HTTP_POST, "/api/push", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_push},
    {SQ_HTTP_DELETE, "/api/delete", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, delete_delete},
};
const sq_api_routes sq_api_routes_ollama_store = {routes, SQ_COUNT(routes)};
