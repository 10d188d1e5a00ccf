/* SPDX-License-Identifier: Apache-2.0
 *
 * api_tokens.c - the tokenizer from outside: tokenizer_info, tokenize, detokenize, apply-template.
 *
 * With these lm-evaluation-harness needs no tokenizer of its own. Field names are vLLM's and llama.cpp's;
 * token_ids and token_count are those of the original Squish. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

/* ---- tokenizer_info -------------------------------------------------------------------------- */

static json_t *token_name(const squish_model *m, int32_t id) {
    return id < 0 ? json_null() : sq_api_token_text(m, id);
}

static int32_t id_of(const char *config, const char *key) {
    json_t *o = config ? json_loads(config, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *v = json_object_get(o, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    const int32_t id = json_is_integer(v) ? (int32_t)json_integer_value(v) : -1;
    json_decref(o);
    return id;
}

static int32_t end_token(const squish_model *m, int32_t n_vocab) {
    int32_t id = id_of(squish_model_generation_json(m), "eos_token_id");
    if (id < 0) id = id_of(squish_model_config_json(m), "eos_token_id");
    for (int32_t i = 0; id < 0 && i < n_vocab; i++)
        if (squish_token_is_eos(m, i)) id = i;
    return id;
}

static bool read_nothing(sq_api_call *c, json_t *body) {
    (void)body;
    return c->error.status == 0;
}

static bool work_info(sq_api_call *c) {
    const squish_model *m = c->model->model;
    const squish_model_info *i = &c->model->info;
    c->result = json_pack("{s:o, s:o, s:o, s:s?, s:i, s:i, s:s}", "eos_token",
                          token_name(m, end_token(m, i->n_vocab_tokens)), "bos_token",
                          token_name(m, squish_token_bos(m)), "pad_token",
                          token_name(m, id_of(squish_model_generation_json(m), "pad_token_id")),
                          "chat_template", squish_model_template(m), "vocab_size", i->n_vocab_tokens,
                          "max_model_len", c->model->engine_info.ctx_tokens, "model", c->model->name);
    return true;
}

/* ---- tokenize -------------------------------------------------------------------------------- */

typedef struct {
    const char *text;
    bool special, pieces;
} tokens_state;

static bool read_tokenize(sq_api_call *c, json_t *body) {
    tokens_state *s = c->state;
    static const char *const names[] = {"prompt", "content", "text"};
    s->special = true;
    if (!sq_api_get_text(&c->error, body, "", "model", &c->wish.model) ||
        !sq_api_get_bool(&c->error, body, "", "add_special_tokens", &s->special) ||
        !sq_api_get_bool(&c->error, body, "", "add_special", &s->special) ||
        !sq_api_get_bool(&c->error, body, "", "with_pieces", &s->pieces))
        return false;
    if (json_object_get(body, "messages")) return sq_api_read_chat(c, body);
    for (size_t i = 0; i < SQ_COUNT(names) && !s->text; i++)
        if (!sq_api_get_text(&c->error, body, "", names[i], &s->text)) return false;
    return s->text || sq_api_refuse(&c->error, 400, "missing_required_parameter", "prompt",
                                    "'prompt' (or content, text, messages) is missing");
}

/* {id, piece}: piece is text, or bytes where it is no text by itself. */
static json_t *with_piece(const squish_model *m, int32_t id) {
    const char *bytes = "";
    size_t n = 0;
    squish_token_bytes(m, id, &bytes, &n);
    json_t *piece = sq_utf8_valid(bytes, n) ? json_stringn(bytes, n) : json_array();
    for (size_t i = 0; json_is_array(piece) && i < n; i++)
        json_array_append_new(piece, json_integer((unsigned char)bytes[i]));
    return json_pack("{s:i, s:o}", "id", id, "piece", piece);
}

static bool work_tokenize(sq_api_call *c) {
    const tokens_state *s = c->state;
    const squish_model *m = c->model->model;
    squish_tokens made = {0}, t = {0};
    squish_error err = {0};
    if (c->wish.messages) {
        if (!sq_api_render(c, &t)) return false;
    } else {
        const unsigned flags = SQUISH_TOK_SPECIAL | (s->special ? SQUISH_TOK_BOS_EOS : 0);
        if (squish_tokenize(m, s->text, strlen(s->text), flags, &made, &err) != SQUISH_OK)
            return sq_api_refuse_lib(&c->error, &err);
        t = made;
    }
    json_t *ids = json_array(), *tokens = s->pieces ? json_array() : NULL;
    for (size_t i = 0; i < t.count; i++) {
        sq_api_add(c, ids, json_integer(t.ids[i]));
        if (tokens) sq_api_add(c, tokens, with_piece(m, t.ids[i]));
    }
    c->result = json_pack("{s:o, s:I, s:i, s:O, s:I}", "tokens", tokens ? tokens : json_incref(ids), "count",
                          (json_int_t)t.count, "max_model_len", c->model->engine_info.ctx_tokens, "token_ids",
                          ids, "token_count", (json_int_t)t.count);
    json_decref(ids);
    squish_tokens_free(&made);
    return c->error.status == 0;
}

/* ---- detokenize ------------------------------------------------------------------------------ */

static bool read_detokenize(sq_api_call *c, json_t *body) {
    const json_t *v = json_object_get(body, "tokens");
    if (!sq_api_get_text(&c->error, body, "", "model", &c->wish.model)) return false;
    if (!json_is_array(v))
        return sq_api_refuse(&c->error, 400, v ? "invalid_type" : "missing_required_parameter", "tokens",
                             "'tokens' is %s, wanted an array of token ids", v ? "no array" : "missing");
    if (json_array_size(v) == 0) return true;
    if (!json_is_number(json_array_get(v, 0)))
        return sq_api_refuse(&c->error, 400, "invalid_type", "tokens[0]", "'tokens[0]' is no token id");
    return sq_api_get_inputs(c, body, "tokens");
}

static bool work_detokenize(sq_api_call *c) {
    squish_text t = {0};
    squish_error err = {0};
    const sq_api_input *in = c->wish.n_inputs ? &c->wish.inputs[0] : &(sq_api_input){0};
    if (in->n_ids && squish_detokenize(c->model->model, in->ids, in->n_ids, true, &t, &err) != SQUISH_OK) {
        sq_api_refuse_lib(&c->error, &err);
        snprintf(c->error.param, sizeof c->error.param, "tokens");
        return false;
    }
    const char *text = t.data ? t.data : "";
    c->result = json_pack("{s:s%, s:s%, s:s%}", "prompt", text, t.bytes, "content", text, t.bytes, "text",
                          text, t.bytes);
    squish_text_free(&t);
    return true;
}

/* ---- apply-template -------------------------------------------------------------------------- */

static bool read_template(sq_api_call *c, json_t *body) {
    return sq_api_get_text(&c->error, body, "", "model", &c->wish.model) && sq_api_read_chat(c, body);
}

static bool work_template(sq_api_call *c) {
    if (!sq_api_render(c, NULL)) return false;
    c->result = json_pack("{s:s}", "prompt", c->rendered);
    return true;
}

#define DIALECT(word, read_fn, work_fn)                                                                      \
    {                                                                                                        \
        .name = word, .state_bytes = sizeof(tokens_state), .elements_max = SQ_API_JSON_IDS, .read = read_fn, \
        .work = work_fn, .error = sq_api_error_openai                                                        \
    }
static const sq_api_dialect info = DIALECT("tokenizer-info", read_nothing, work_info);
const sq_api_dialect sq_api_tokenize = DIALECT("tokenize", read_tokenize, work_tokenize);
const sq_api_dialect sq_api_detokenize = DIALECT("detokenize", read_detokenize, work_detokenize);
static const sq_api_dialect apply = DIALECT("apply-template", read_template, work_template);

static void get_info(void *user, sq_http_req *r) { sq_api_call_new(user, r, &info); }
static void post_tokenize(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_tokenize); }
static void post_detokenize(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_detokenize); }
static void post_template(void *user, sq_http_req *r) { sq_api_call_new(user, r, &apply); }

static const sq_http_route routes[] = {
    {SQ_HTTP_GET, "/tokenizer_info", 0, 0, get_info},
    {SQ_HTTP_GET, "/v1/tokenizer_info", 0, 0, get_info},
    {SQ_HTTP_POST, "/tokenize", SQ_HTTP_JSON, 0, post_tokenize},
    {SQ_HTTP_POST, "/v1/tokenize", SQ_HTTP_JSON, 0, post_tokenize},
    {SQ_HTTP_POST, "/detokenize", SQ_HTTP_JSON, 0, post_detokenize},
    {SQ_HTTP_POST, "/v1/detokenize", SQ_HTTP_JSON, 0, post_detokenize},
    {SQ_HTTP_POST, "/apply-template", SQ_HTTP_JSON, 0, post_template},
    {SQ_HTTP_POST, "/v1/apply-template", SQ_HTTP_JSON, 0, post_template},
};
const sq_api_routes sq_api_routes_tokens = {routes, SQ_COUNT(routes)};
