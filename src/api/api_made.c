/* SPDX-License-Identifier: Apache-2.0
 *
 * api_made.c - made models (store_made.c) in a request: words and numbers of their own under the request's.
 *
 * POST /api/create and /api/copy write them; every route resolves them when it reads a request, so a made
 * model shares weights, cache and place in memory with the one it is made from. Made ones are never made from
 * made ones: create copies what it starts from. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

squish_status sq_api_home(const sq_api *api, const char *what, char *out, size_t n, squish_error *err) {
    char home[PATH_BYTES];
    SQ_TRY(sq_store_home(api->opt.home, home, sizeof home, err));
    if (snprintf(out, n, "%s/%s", home, what) < (int)n) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", home, what);
}

static bool is_of_command_line(const sq_api *api, const char *name) {
    const size_t n = sq_store_bare_length(name);
    for (int32_t i = 0; i < api->opt.n_models; i++)
        if (strlen(api->opt.models[i].name) == n && memcmp(api->opt.models[i].name, name, n) == 0)
            return true;
    return false;
}

squish_status sq_api_made_read(sq_api *api, const char *name, sq_store_made *out, squish_error *err) {
    *out = (sq_store_made){0};
    if (!is_of_command_line(api, name)) return sq_store_made_read(api->opt.home, name, out, err);
    return sq_fail(err, SQUISH_NOT_FOUND, "'%.100s' is named on the command line", name);
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
static bool lay(sq_api_call *c, const sq_store_made *m) {
    c->made = m->root;
    c->model_name = c->wish.model;
    c->wish.model = m->from;
    if (m->template_source && !c->wish.template_source) c->wish.template_source = m->template_source;
    if (m->system && !lay_system(c, m->system)) return false;
    return !m->parameters || lay_parameters(c, m->parameters);
}

bool sq_api_made_apply(sq_api_call *c) {
    sq_store_made m;
    squish_error err = {0};
    const char *name = c->wish.model;
    if (!name || !*name) return true;
    const squish_status st = sq_api_made_read(c->api, name, &m, &err);
    if (st == SQUISH_NOT_FOUND) return true; /* the table of models will say */
    if (st != SQUISH_OK) return sq_api_refuse_lib(&c->error, &err);
    return lay(c, &m);
}
