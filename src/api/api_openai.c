/* SPDX-License-Identifier: Apache-2.0
 *
 * api_openai.c - what the OpenAI routes share, and GET /v1/models.
 *
 * Shapes follow the published API of OpenAI; fields beyond it are named as llama.cpp and vLLM name theirs
 * (timings, stop_reason), or x_squish_... */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

/* ---- parts of answers ------------------------------------------------------------------------ */

json_t *sq_api_openai_head(const sq_api_call *c, const char *prefix, const char *object) {
    char id[64];
    snprintf(id, sizeof id, "%s%s", prefix, c->id);
    return json_pack("{s:s, s:s, s:I, s:s, s:s}", "id", id, "object", object, "created",
                     (json_int_t)c->created, "model", c->model_name, "system_fingerprint", c->fingerprint);
}

json_t *sq_api_openai_usage(const sq_api_call *c) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    json_t *o =
        json_pack("{s:I, s:I, s:I, s:{s:I}, s:{s:i, s:i, s:i}}", "prompt_tokens",
                  (json_int_t)t.prompt_tokens, "completion_tokens", (json_int_t)t.completion_tokens,
                  "total_tokens", (json_int_t)(t.prompt_tokens + t.completion_tokens),
                  "prompt_tokens_details", "cached_tokens", (json_int_t)t.cached_tokens,
                  "completion_tokens_details", "reasoning_tokens", (int)t.thought_tokens,
                  "accepted_prediction_tokens", (int)t.right_tokens, "rejected_prediction_tokens",
                  (int)(t.guessed_tokens - t.right_tokens));
    /* The beginning was restored from codes (--snapshot-codec): said where it is so. */
    if (o && t.behind_codes) json_object_set_new(o, "x_squish_behind_codes", json_true());
    return o;
}

static double rate(int64_t n, double ms) { return ms > 0 ? (double)n * 1e3 / ms : 0; }

json_t *sq_api_openai_timings(const sq_api_call *c) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    const int64_t evaluated = t.prompt_tokens - t.cached_tokens;
    return json_pack("{s:I, s:I, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I}", "cache_n",
                     (json_int_t)t.cached_tokens, "prompt_n", (json_int_t)evaluated, "prompt_ms", t.prompt_ms,
                     "predicted_n", (json_int_t)t.completion_tokens, "predicted_ms", t.predicted_ms,
                     "prompt_per_second", rate(evaluated, t.prompt_ms), "predicted_per_second",
                     rate(t.completion_tokens > 0 ? t.completion_tokens - 1 : 0, t.predicted_ms), "ttft_ms",
                     t.ttft_ms, "queue_ms", t.queue_ms, "load_ms", c->load_ms, "draft_n",
                     (json_int_t)t.guessed_tokens, "draft_n_accepted", (json_int_t)t.right_tokens);
}

void sq_api_openai_finish(sq_api_call *c, const char *prefix, const char *object, bool include_usage) {
    if (!c->streaming) {
        sq_api_put(c, c->result, "usage", sq_api_openai_usage(c));
        sq_api_put(c, c->result, "timings", sq_api_openai_timings(c));
        sq_api_put(c, c->result, "x_squish_seed", json_integer((json_int_t)c->seed));
        return;
    }
    if (include_usage) {
        json_t *o = sq_api_openai_head(c, prefix, object);
        sq_api_put(c, o, "choices", json_array());
        sq_api_put(c, o, "usage", sq_api_openai_usage(c));
        sq_api_put(c, o, "timings", sq_api_openai_timings(c));
        sq_api_sse(c, NULL, o);
    }
    sq_api_send(c, "data: [DONE]\n\n");
}

const char *sq_api_finish_word(const sq_api_answer *a) {
    if (a->finish == SQUISH_FINISH_LENGTH) return "length";
    return a->n_whole ? "tool_calls" : "stop";
}

/* ---- fields of every route that generates ---------------------------------------------------- */

/* What would change the answer and cannot be done here is refused, never ignored. */
static bool refuse_missing(sq_api_call *c, const json_t *body) {
    static const char *const never[] = {"stop_token_ids",  "samplers", "token_healing",
                                        "use_beam_search", "audio",    "functions"};
    for (size_t i = 0; i < SQ_COUNT(never); i++) {
        const json_t *v = json_object_get(body, never[i]);
        if (!v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0))
            continue;
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", never[i], "'%s' is not offered here",
                             never[i]);
    }
    return true;
}

void sq_api_openai_token_time(sq_api_call *c, json_t *frame, const squish_job_event *ev) {
    if (!c->wish.token_times || ev->kind != SQUISH_JOB_TOKEN) return;
    sq_api_put(c, frame, "x_squish_t_ns", json_integer((json_int_t)ev->t_ns));
}

bool sq_api_openai_common(sq_api_call *c, const json_t *body, bool *include_usage) {
    int64_t n = 1;
    const json_t *options = json_object_get(body, "stream_options");
    *include_usage = false;
    if (options && !json_is_null(options) && !json_is_object(options))
        return sq_api_refuse(&c->error, 400, "invalid_type", "stream_options",
                             "'stream_options' is no object");
    if (!sq_api_get_text(&c->error, body, "", "model", &c->wish.model) ||
        !sq_api_get_bool(&c->error, body, "", "stream", &c->wish.stream) ||
        !sq_api_get_bool(&c->error, body, "", "x_squish_token_times", &c->wish.token_times) ||
        !sq_api_get_bool(&c->error, options, "stream_options.", "include_usage", include_usage) ||
        !sq_api_get_int(&c->error, body, "", "n", 1, SQ_API_CHOICES_MAX, &n) || !refuse_missing(c, body))
        return false;
    c->wish.n = (int32_t)n;
    return sq_api_get_shape(c, body) && sq_api_get_sampling(c, body);
}

/* ---- GET /v1/models, /v1/models/{id} --------------------------------------------------------- */

static json_t *entry(const sq_api *api, const char *name) {
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:[]}", "id", name, "object", "model", "created",
                     (json_int_t)api->started_unix, "owned_by", "squish", "root", name, "parent",
                     "permission");
}

static json_t *loaded_entry(const sq_api_model *m) {
    const squish_model_info *i = &m->info;
    json_t *o = entry(m->api, m->name);
    json_object_set_new(o, "created", json_integer((json_int_t)m->loaded_unix));
    json_object_set_new(o, "max_model_len", json_integer(m->engine_info.ctx_tokens));
    json_object_set_new(o, "meta",
                        json_pack("{s:I, s:I, s:i, s:i, s:i, s:i, s:s}", "n_params", (json_int_t)i->n_params,
                                  "size", (json_int_t)i->weight_bytes, "n_vocab", i->n_vocab, "n_ctx_train",
                                  i->ctx_train, "n_ctx", m->engine_info.ctx_tokens, "n_embd", i->hidden,
                                  "quant", i->weight_types));
    json_object_set_new(o, "squish",
                        json_pack("{s:s, s:s, s:f, s:I, s:I, s:b}", "state", "loaded", "loader", i->tier,
                                  "load_time_s", m->load_ms / 1e3, "requests", (json_int_t)m->requests,
                                  "tokens_gen", (json_int_t)m->tokens_generated, "pinned", m->pinned));
    return o;
}

/* Loop thread: what is loaded, as it is now; the folders are read by a worker. */
static void enter_list(sq_api_call *c) {
    json_t *data = json_array();
    for (sq_api_model *m = sq_api_model_first(c->api); m; m = m->next)
        if (m->state == SQ_API_READY) sq_api_add(c, data, loaded_entry(m));
    c->result = json_pack("{s:s, s:o}", "object", "list", "data", data);
}

static bool read_nothing(sq_api_call *c, json_t *body) {
    (void)body;
    return c->error.status == 0;
}

/* Takes about, whatever becomes of it; a name that is listed already is not listed twice. */
static bool add_entry(sq_api_call *c, const char *name, json_t *about) {
    json_t *data = json_object_get(c->result, "data"), *o;
    size_t i;
    json_array_foreach(data, i, o) {
        if (strcmp(json_string_value(json_object_get(o, "id")), name) != 0) continue;
        json_decref(about);
        return true;
    }
    o = entry(c->api, name);
    sq_api_put(c, o, "squish", about);
    sq_api_add(c, data, o);
    return true;
}

static bool add_stored(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    (void)path;
    return add_entry(user, name,
                     json_pack("{s:s, s:I, s:s}", "state", "stored", "bytes", (json_int_t)bytes, "tiers",
                               tiers ? tiers : ""));
}

static bool add_made(void *user, const char *name, const char *path, const sq_store_made *made) {
    (void)path;
    return add_entry(user, name, json_pack("{s:s, s:s}", "state", "made", "from", made->from));
}

static bool work_list(sq_api_call *c) {
    sq_store_made_each(c->api->opt.home, add_made, c, NULL);
    sq_api_store_each(c->api, add_stored, c, NULL); /* an unreadable folder holds no models */
    return c->error.status == 0;
}

static void enter_one(sq_api_call *c) {
    const char *rest = sq_http_rest(c->req);
    c->wish.model = sq_arena_strndup(&c->arena, rest, strlen(rest));
    const sq_api_model *m = c->wish.model ? sq_api_model_find(c->api, c->wish.model) : NULL;
    if (m && m->state == SQ_API_READY) c->result = loaded_entry(m);
}

static bool work_one(sq_api_call *c) {
    if (c->result) return true;
    const char *path;
    squish_error err = {0};
    sq_store_made made;
    if (c->wish.model && sq_api_made_read(c->api, c->wish.model, &made, NULL) == SQUISH_OK) {
        c->made = made.root;
        c->result = entry(c->api, c->wish.model);
        return true;
    }
    if (!c->wish.model || sq_api_store_find(c->api, c->wish.model, &c->arena, &path, &err) != SQUISH_OK)
        return sq_api_refuse_lib(&c->error, &err);
    c->result = entry(c->api, c->wish.model);
    return true;
}

static const sq_api_dialect list_models = {.name = "openai-models",
                                           .enter = enter_list,
                                           .read = read_nothing,
                                           .work = work_list,
                                           .needs_no_model = true,
                                           .error = sq_api_error_openai};
static const sq_api_dialect one_model = {.name = "openai-model",
                                         .enter = enter_one,
                                         .read = read_nothing,
                                         .work = work_one,
                                         .needs_no_model = true,
                                         .error = sq_api_error_openai};

static void get_models(void *user, sq_http_req *r) { sq_api_call_new(user, r, &list_models); }
static void get_model(void *user, sq_http_req *r) { sq_api_call_new(user, r, &one_model); }

static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/v1/models", 0, 0, get_models},
    {SQ_HTTP_GET, "/v1/models/*", 0, 0, get_model},
};
const sq_api_routes sq_api_routes_openai = {routes, SQ_COUNT(routes)};
