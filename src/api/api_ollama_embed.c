/* SPDX-License-Identifier: Apache-2.0
 *
 * api_ollama_embed.c - POST /api/embed and the older /api/embeddings.
 *
 * embed answers with vectors of length 1, embeddings with one as the model left it. Ollama cuts what is too
 * long unless told otherwise; here it is cut only where "truncate": true was said, and the reply then counts
 * the tokens that are gone (truncated_tokens). */
#include "api/api_int.h"

#include <string.h>

typedef struct {
    bool old;           /* /api/embeddings */
    int64_t dimensions; /* 0: all */
    json_t *list;       /* borrowed from c->result */
} embed_state;

static bool nothing_said(const json_t *v) {
    return !v || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

static bool read_either(sq_api_call *c, json_t *body, const char *field) {
    if (!sq_api_ollama_head(c, body) ||
        !sq_api_get_bool(&c->error, body, "", "truncate", &c->wish.truncate) ||
        !sq_api_ollama_options(c, json_object_get(body, "options"), "options."))
        return false;
    c->wish.stream = false;
    c->wish.pool = SQUISH_POOL_MEAN; /* the model's own, once it is there */
    c->wish.load_only = nothing_said(json_object_get(body, field));
    return c->wish.load_only || sq_api_get_inputs(c, body, field);
}

static bool read_embed(sq_api_call *c, json_t *body) {
    embed_state *s = c->state;
    return sq_api_get_int(&c->error, body, "", "dimensions", 1, 1 << 20, &s->dimensions) &&
           read_either(c, body, "input");
}

static bool read_old(sq_api_call *c, json_t *body) {
    embed_state *s = c->state;
    const char *prompt = NULL;
    s->old = true;
    return sq_api_get_text(&c->error, body, "", "prompt", &prompt) && read_either(c, body, "prompt");
}

static void begin_result(sq_api_call *c) {
    embed_state *s = c->state;
    s->list = json_array();
    for (size_t i = 0; i < c->n_answers; i++) sq_api_add(c, s->list, json_null());
    c->result = json_pack("{s:s, s:o}", "model", c->model_name, "embeddings", s->list);
    if (c->wish.pool_guessed && c->n_answers)
        sq_http_add_header(c->req, "x-squish-warning", "mean of a chat model: not trained for embeddings");
}

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    const embed_state *s = c->state;
    if (!c->result) begin_result(c);
    if (ev->kind != SQUISH_JOB_EMBEDDING) return;
    int32_t n;
    const float *v = sq_api_embedding(c, ev, s->dimensions, !s->old, &n);
    if (v && json_array_set_new(s->list, (size_t)a->index, sq_api_vector(v, n)) != 0)
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

static void finish(sq_api_call *c) {
    const embed_state *s = c->state;
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    if (s->old) {
        json_t *first = json_array_get(s->list, 0);
        json_t *o = json_pack("{s:o}", "embedding", first ? json_incref(first) : json_array());
        json_decref(c->result);
        c->result = o;
    } else {
        if (!c->result) c->result = json_pack("{s:s, s:[]}", "model", c->model_name, "embeddings");
        const double total_ms = c->load_ms + t.queue_ms + t.prompt_ms;
        sq_api_put(c, c->result, "total_duration", json_integer((json_int_t)(total_ms * 1e6)));
        sq_api_put(c, c->result, "load_duration", json_integer((json_int_t)(c->load_ms * 1e6)));
        sq_api_put(c, c->result, "prompt_eval_count", json_integer((json_int_t)t.prompt_tokens));
    }
    if (c->truncated_tokens)
        sq_api_put(c, c->result, "truncated_tokens", json_integer((json_int_t)c->truncated_tokens));
}

#define EMBED(word, read_fn)                                                                                 \
    {                                                                                                        \
        .name = word, .state_bytes = sizeof(embed_state), .elements_max = SQ_API_JSON_IDS, .read = read_fn,  \
        .event = event, .finish = finish, .error = sq_api_error_ollama                                       \
    }
const sq_api_dialect sq_api_ollama_embed = EMBED("ollama-embed", read_embed);
static const sq_api_dialect embeddings = EMBED("ollama-embeddings", read_old);

static void post_embed(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_ollama_embed); }
static void post_old(void *user, sq_http_req *r) { sq_api_call_new(user, r, &embeddings); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/api/embed", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_embed},
    {SQ_HTTP_POST, "/api/embeddings", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_old},
};
const sq_api_routes sq_api_routes_ollama_embed = {routes, SQ_COUNT(routes)};
