/* SPDX-License-Identifier: Apache-2.0
 *
 * api_embeddings.c - POST /v1/embeddings, and the vector that all dialects' embeddings share.
 *
 * Hidden states of the last layer become one vector the way the model's makers say (1_Pooling/config.json of
 * sentence-transformers, pooling_type of a GGUF file); a chat model says nothing, then it is their mean, and
 * a header says so. Vectors are cut to `dimensions`, then brought to length 1. */
#include "api/api_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bool base64;
    int64_t dimensions; /* 0: all */
    json_t *data;       /* borrowed from c->result */
} embed_state;

/* ---- how ------------------------------------------------------------------------------------- */

/* Each way, as sentence-transformers say it in 1_Pooling/config.json, and in one word. */
static const struct {
    const char *key, *word;
    squish_pooling pool;
} ways[] = {{"pooling_mode_cls_token", "first", SQUISH_POOL_FIRST},
            {"pooling_mode_lasttoken", "last", SQUISH_POOL_LAST},
            {"pooling_mode_mean_tokens", "mean", SQUISH_POOL_MEAN}};

/* 1_Pooling/config.json beside the weights, or beside what tiers were made from. */
static json_t *pooling_file(const char *model) {
    char path[4200];
    const size_t n = strlen(model);
    static const char made[] = "-compressed";
    const size_t cut =
        n > sizeof made && strcmp(model + n - (sizeof made - 1), made) == 0 ? sizeof made - 1 : 0;
    snprintf(path, sizeof path, "%.*s/1_Pooling/config.json", (int)(n - cut < 4096 ? n - cut : 4096),
             model);
    return json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
}

squish_pooling sq_api_pooling(const squish_model *m, const char *path, bool *told) {
    const char *text = squish_model_config_json(m);
    json_t *file = pooling_file(path), *config = text ? json_loads(text, 0, NULL) : NULL;
    const char *word = json_string_value(json_object_get(json_object_get(config, "squish"), "pooling"));
    squish_pooling pool = SQUISH_POOL_NONE;
    for (size_t i = 0; i < SQ_COUNT(ways) && pool == SQUISH_POOL_NONE; i++)
        if (json_is_true(json_object_get(file, ways[i].key)) || (word && strcmp(word, ways[i].word) == 0))
            pool = ways[i].pool;
    json_decref(file);
    json_decref(config);
    *told = pool != SQUISH_POOL_NONE;
    return *told ? pool : SQUISH_POOL_MEAN;
}

static void make_unit(float *v, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)v[i] * v[i];
    const double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int32_t i = 0; i < n; i++) v[i] = (float)(v[i] * scale);
}

/* ---- printing -------------------------------------------------------------------------------- */

/* RFC 4648, of little-endian f32. */
static json_t *as_base64(const float *v, int32_t n) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    sq_buf b;
    sq_buf_init(&b, NULL, 64 << 20);
    uint32_t held = 0;
    int bits = 0;
    for (int32_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &v[i], sizeof word);
        for (int k = 0; k < 4; k++, word >>= 8) {
            held = held << 8 | (word & 255);
            for (bits += 8; bits >= 6; bits -= 6) sq_buf_putc(&b, letters[held >> (bits - 6) & 63]);
        }
    }
    if (bits > 0) sq_buf_putc(&b, letters[held << (6 - bits) & 63]);
    while (b.len % 4) sq_buf_putc(&b, '=');
    json_t *o = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    sq_buf_deinit(&b);
    return o;
}

json_t *sq_api_vector(const float *v, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; i < n; i++)
        if (json_array_append_new(list, json_real((double)v[i])) != 0) { /* a shorter one would be a lie */
            json_decref(list);
            return NULL;
        }
    return list;
}

/* ---- the route ------------------------------------------------------------------------------- */

static bool read_embed(sq_api_call *c, json_t *body) {
    embed_state *s = c->state;
    const char *format = "float";
    if (!sq_api_get_text(&c->error, body, "", "model", &c->wish.model) ||
        !sq_api_get_text(&c->error, body, "", "encoding_format", &format) ||
        !sq_api_get_int(&c->error, body, "", "dimensions", 1, 1 << 20, &s->dimensions) ||
        !sq_api_get_inputs(c, body, "input"))
        return false;
    s->base64 = strcmp(format, "base64") == 0;
    if (!s->base64 && strcmp(format, "float") != 0)
        return sq_api_refuse(&c->error, 400, "invalid_value", "encoding_format",
                             "'encoding_format' is '%.40s', wanted float or base64", format);
    c->wish.pool = SQUISH_POOL_MEAN; /* the model's own, once it is there */
    return true;
}

float *sq_api_embedding(sq_api_call *c, const squish_job_event *ev, int64_t dimensions, bool unit,
                        int32_t *n) {
    *n = dimensions > 0 ? (int32_t)dimensions : ev->n_embedding;
    if (*n > ev->n_embedding) {
        sq_api_refuse(&c->error, 400, "invalid_value", "dimensions", "'dimensions' is %d, this model has %d",
                      *n, ev->n_embedding);
        return NULL;
    }
    float *v = SQ_ARENA_ARRAY(&c->arena, float, (size_t)*n);
    if (!v) {
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
        return NULL;
    }
    memcpy(v, ev->embedding, (size_t)*n * sizeof *v);
    if (unit) make_unit(v, *n);
    return v;
}

static void add_embedding(sq_api_call *c, const sq_api_answer *a, const squish_job_event *ev) {
    const embed_state *s = c->state;
    int32_t n;
    const float *v = sq_api_embedding(c, ev, s->dimensions, true, &n);
    if (!v) return;
    json_t *o = json_array_get(s->data, (size_t)a->index);
    sq_api_put(c, o, "embedding", s->base64 ? as_base64(v, n) : sq_api_vector(v, n));
}

static void begin_result(sq_api_call *c) {
    embed_state *s = c->state;
    s->data = json_array();
    for (size_t i = 0; i < c->n_answers; i++)
        sq_api_add(c, s->data, json_pack("{s:s, s:i}", "object", "embedding", "index", (int)i));
    c->result = json_pack("{s:s, s:o, s:s}", "object", "list", "data", s->data, "model", c->model_name);
    if (c->wish.pool_guessed)
        sq_http_add_header(c->req, "x-squish-warning", "mean of a chat model: not trained for embeddings");
}

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    if (!c->result) begin_result(c);
    if (ev->kind == SQUISH_JOB_EMBEDDING) add_embedding(c, a, ev);
}

static void finish(sq_api_call *c) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    sq_api_put(c, c->result, "usage",
               json_pack("{s:I, s:I, s:{s:I}}", "prompt_tokens", (json_int_t)t.prompt_tokens, "total_tokens",
                         (json_int_t)t.prompt_tokens, "prompt_tokens_details", "cached_tokens",
                         (json_int_t)t.cached_tokens));
}

const sq_api_dialect sq_api_embed = {.name = "openai-embeddings",
                                     .state_bytes = sizeof(embed_state),
                                     .elements_max = SQ_API_JSON_IDS,
                                     .read = read_embed,
                                     .event = event,
                                     .finish = finish,
                                     .error = sq_api_error_openai};

static void post_embed(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_embed); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/v1/embeddings", SQ_HTTP_JSON, 0, post_embed},
};
const sq_api_routes sq_api_routes_embeddings = {routes, SQ_COUNT(routes)};
