/* SPDX-License-Identifier: Apache-2.0
 *
 * api_ops.c - for those who run the server: health, liveness, what is at work, cancelling, the API's
 * description.
 *
 * All of it answers from the loop thread without waiting for anything, so that it answers under load. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

/* ---- health ---------------------------------------------------------------------------------- */

static const char *health_word(const sq_api *api) {
    if (api->draining) return "draining";
    if (api->failed) return "failed";
    if (!api->ready) return "loading";
    return api->stalled ? "stalled" : "ok";
}

static double load_progress(const sq_api *api) {
    int n = 0, done = 0;
    for (const sq_api_model *m = api->models; m; m = m->next)
        if (m->pinned) n++, done += m->state == SQ_API_READY;
    return n ? (double)done / n : 1;
}

static void add_model(sq_api *api, json_t *o) {
    int32_t queued = 0, n_running = 0;
    json_int_t total = 0, unused = 0, cached = 0;
    const sq_api_model *first = NULL;
    json_t *loaded = json_array();
    for (sq_api_model *m = sq_api_model_first(api); m; m = m->next) {
        if (m->state != SQ_API_READY) continue;
        if (!first) first = m;
        squish_batch_stats s;
        squish_batch_get_stats(m->batch, &s);
        queued += s.queued;
        n_running += s.running;
        total += s.tiles;
        unused += s.tiles_free;
        cached += s.tiles_cached;
        json_array_append_new(loaded, json_string(m->name));
    }
    json_object_set_new(o, "model", first ? json_string(first->name) : json_null());
    json_object_set_new(o, "models", loaded);
    json_object_set_new(o, "loaded", json_boolean(first != NULL));
    json_object_set_new(o, "loader", first ? json_string(first->info.tier) : json_null());
    json_object_set_new(o, "load_time_s", json_real(first ? first->load_ms / 1e3 : 0));
    json_object_set_new(o, "queued", json_integer(queued));
    json_object_set_new(o, "running", json_integer(n_running));
    json_object_set_new(o, "kv_blocks",
                        json_pack("{s:I, s:I, s:I}", "total", total, "free", unused, "cached", cached));
}

static void get_health(void *user, sq_http_req *r) {
    sq_api *api = user;
    const char *word = health_word(api);
    json_t *o = json_pack("{s:s}", "status", word);
    if (sq_http_has_key(r)) {
        if (!api->ready) json_object_set_new(o, "progress", json_real(load_progress(api)));
        add_model(api, o);
        json_object_set_new(o, "requests", json_integer((json_int_t)api->count.requests));
        json_object_set_new(o, "tokens_gen", json_integer((json_int_t)api->count.tokens_generated));
        json_object_set_new(o, "inflight", json_integer(api->n_calls));
        json_object_set_new(o, "avg_tps", json_real(sq_api_mean_tps(api)));
        json_object_set_new(o, "avg_ttft_s", json_real(sq_api_mean_ttft_s(api)));
        json_object_set_new(o, "uptime_s", json_real((double)(sq_os_now_ns() - api->t_start_ns) / 1e9));
        json_object_set_new(o, "mem_available_gb", json_real((double)sq_os_memory_available() / 1e9));
        /* nothing that changes answers is on unless asked for: see docs/api.md */
        json_object_set_new(o, "features",
                            json_pack("{s:s, s:s, s:b, s:b, s:b, s:i, s:b, s:b}", "spec",
                                      squish_spec_name(api->opt.spec.mode), "kv", squish_kv_name(api->opt.kv),
                                      "pm_kvq", (int)api->opt.kv_options.pm, "mix_kvq",
                                      (int)api->opt.kv_options.mix, "cocktail_kv",
                                      (int)api->opt.kv_options.cocktail, "snap_kv",
                                      (int)api->opt.kv_options.snap, "sage_attention",
                                      (int)api->opt.attention.sage, "sparge_attn",
                                      (int)api->opt.attention.sparge));
        json_object_set_new(o, "version", json_string(squish_version()));
    }
    sq_api_reply_json(r, strcmp(word, "ok") == 0 ? 200 : 503, o);
}

static void get_live(void *user, sq_http_req *r) {
    (void)user;
    sq_api_reply_json(r, 200, json_pack("{s:s}", "status", "alive"));
}

/* ---- what is at work ------------------------------------------------------------------------- */

static json_t *slot(const sq_api_call *c) {
    int64_t prompt = 0, made = 0;
    int32_t at_work = 0, ended = 0;
    for (size_t i = 0; i < c->n_prompts; i++) prompt += (int64_t)c->prompts[i].n;
    for (size_t i = 0; i < c->n_answers; i++) {
        made += c->answers[i].n_tokens;
        at_work += c->answers[i].started && !c->answers[i].ended;
        ended += c->answers[i].ended;
    }
    return json_pack("{s:s, s:s, s:s, s:s?, s:b, s:I, s:I, s:I, s:i, s:i, s:f}", "id", c->id, "request_id",
                     c->request_id, "kind", c->dialect->name, "model", c->model ? c->model->name : NULL,
                     "stream", c->wish.stream, "prompt_tokens", (json_int_t)prompt, "completion_tokens",
                     (json_int_t)made, "answers", (json_int_t)c->n_answers, "running", at_work, "ended",
                     ended, "age_s", (double)(sq_os_now_ns() - c->t_start_ns) / 1e9);
}

static void get_slots(void *user, sq_http_req *r) {
    sq_api *api = user;
    json_t *list = json_array();
    for (const sq_api_call *c = api->calls; c; c = sq_api_call_next(c))
        if (!sq_api_call_in_worker(c)) json_array_append_new(list, slot(c));
    sq_api_reply_json(r, 200, list);
}

/* POST /v1/requests/ID/cancel */
static void post_cancel(void *user, sq_http_req *r) {
    sq_api *api = user;
    const char *rest = sq_http_rest(r);
    static const char verb[] = "/cancel";
    const size_t n = strlen(rest), m = sizeof verb - 1;
    char id[128];
    if (n <= m || n - m >= sizeof id || strcmp(rest + n - m, verb) != 0) {
        sq_http_refuse(r, 404, "unknown_url", "wanted /v1/requests/ID/cancel");
        return;
    }
    snprintf(id, sizeof id, "%.*s", (int)(n - m), rest);
    sq_api_call *c = sq_api_call_find(api, id);
    /* a key cancels what came with that key */
    if (!c || (api->keyed && sq_api_call_client(c) != sq_http_client(r))) {
        sq_http_refuse(r, 404, "request_not_found", "no request '%s' is at work", id);
        return;
    }
    sq_api_call_cancel(c, 409, "cancelled", "the request was cancelled");
    sq_api_reply_json(r, 200, json_pack("{s:s, s:b}", "id", id, "cancelled", 1));
}

/* ---- what is not there, and what there is ---------------------------------------------------- */

static void post_rerank(void *user, sq_http_req *r) {
    (void)user;
    sq_http_refuse(r, 501, "unsupported",
                   "reranking needs a model that was trained to rank; none of those that run here is one");
}

static void get_openapi(void *user, sq_http_req *r) {
    (void)user;
    sq_api_page_reply(r, sq_api_page_find("/openapi.json"));
}

static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/health", SQ_HTTP_OPEN, 0, get_health},
    {SQ_HTTP_GET, "/livez", SQ_HTTP_OPEN, 0, get_live},
    {SQ_HTTP_GET, "/metrics", 0, 0, sq_api_get_metrics},
    {SQ_HTTP_GET, "/v1/metrics", 0, 0, sq_api_get_metrics},
    {SQ_HTTP_GET, "/slots", 0, 0, get_slots},
    {SQ_HTTP_POST, "/v1/requests/*", 0, 0, post_cancel},
    {SQ_HTTP_POST, "/v1/rerank", SQ_HTTP_JSON, 0, post_rerank},
    {SQ_HTTP_GET, "/openapi.json", 0, 0, get_openapi},
};
const sq_api_routes sq_api_routes_ops = {routes, SQ_COUNT(routes)};
