/* SPDX-License-Identifier: Apache-2.0
 *
 * api_completions.c - POST /v1/completions, the route that scores.
 *
 * lm-evaluation-harness sends prompts of ids with echo, logprobs and max_tokens 1, and adds up token_logprobs
 * between the context's length and the last element. So the four arrays have one entry for every prompt token
 * and every generated one, the end token included, whose text is empty; the first entry of a prompt has no
 * probability; every map holds the token that is there; and a number is printed the same wherever it stands.
 *
 * c->result is the reply in the making; in a stream, an array with one object {"logprobs", "text"} per answer
 * that waits to be sent. Answers point into it. */
#include "api/api_int.h"

#include <string.h>

enum { MAX_TOKENS_DEFAULT = 16 };

typedef struct {
    bool echo, include_usage;
    size_t n_ended;
} text_state;

typedef struct {
    json_t *choice; /* whole: this answer's; borrowed */
    json_t *lp;     /* {tokens, token_logprobs, top_logprobs, text_offset}, or NULL; borrowed */
    int64_t offset; /* code points of text before the next token */
    bool echoed;
} text_answer;

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_logprobs(sq_api_call *c, const json_t *body) {
    const json_t *v = json_object_get(body, "logprobs");
    int64_t n = -1;
    if (json_is_false(v)) return true; /* what chat clients say */
    if (!sq_api_get_int(&c->error, body, "", "logprobs", 0, 20, &n)) return false;
    c->wish.gen.logprobs = (int32_t)n;
    const text_state *s = c->state;
    if (s->echo) c->wish.prompt_logprobs = (int32_t)n;
    return true;
}

static bool read_best_of(sq_api_call *c, const json_t *body) {
    int64_t best = c->wish.n;
    if (!sq_api_get_int(&c->error, body, "", "best_of", 1, SQ_API_CHOICES_MAX, &best)) return false;
    return best == c->wish.n || sq_api_refuse(&c->error, 400, "unsupported_parameter", "best_of",
                                              "'best_of' is %d, wanted n, which is %d", (int)best, c->wish.n);
}

static bool read_suffix(sq_api_call *c, const json_t *body) {
    const text_state *s = c->state;
    const char *suffix = NULL;
    if (!sq_api_get_text(&c->error, body, "", "suffix", &suffix)) return false;
    if (!suffix || !*suffix) return true;
    if (s->echo)
        return sq_api_refuse(&c->error, 400, "invalid_value", "suffix", "'suffix' does not go with 'echo'");
    c->wish.suffix = suffix;
    return true;
}

static bool read_text(sq_api_call *c, json_t *body) {
    text_state *s = c->state;
    bool special = true;
    c->wish.gen.max_tokens = MAX_TOKENS_DEFAULT;
    if (!sq_api_openai_common(c, body, &s->include_usage) ||
        !sq_api_get_bool(&c->error, body, "", "echo", &s->echo) ||
        !sq_api_get_bool(&c->error, body, "", "add_special_tokens", &special) || !read_logprobs(c, body) ||
        !read_best_of(c, body) || !read_suffix(c, body) || !sq_api_get_inputs(c, body, "prompt"))
        return false;
    if ((size_t)c->wish.n * c->wish.n_inputs > SQ_API_PROMPTS_MAX)
        return sq_api_refuse(&c->error, 400, "invalid_value", "n",
                             "%zu prompts and n = %d make more than %d answers", c->wish.n_inputs, c->wish.n,
                             SQ_API_PROMPTS_MAX);
    c->wish.token_flags = SQUISH_TOK_SPECIAL | (special ? SQUISH_TOK_BOS_EOS : 0);
    return true;
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

static json_t *new_arrays(void) {
    return json_pack("{s:[], s:[], s:[], s:[]}", "tokens", "token_logprobs", "top_logprobs", "text_offset");
}

/* The n likeliest and the token itself. Two tokens of one text: the likelier one stays. */
static json_t *top_map(sq_api_call *c, const squish_job_event *ev, const json_t *own_name) {
    const squish_model *m = c->model->model;
    json_t *map = json_object();
    for (int32_t i = 0; i < ev->n_top; i++) {
        json_t *name = sq_api_token_text(m, ev->top_ids[i]);
        const char *key = json_string_value(name);
        if (!key)
            sq_api_put(c, NULL, "", NULL);
        else if (!json_object_get(map, key))
            sq_api_put(c, map, key, json_real(sq_api_logprob(ev->top_logprobs[i])));
        json_decref(name);
    }
    const char *own = json_string_value(own_name);
    if (own && !json_object_get(map, own)) sq_api_put(c, map, own, json_real(sq_api_logprob(ev->logprob)));
    return map;
}

/* Characters that begin in the token's bytes: what is split over tokens counts where it begins. */
static int64_t characters(const squish_model *m, int32_t id) {
    const char *bytes = "";
    size_t n = 0;
    int64_t count = 0;
    squish_token_bytes(m, id, &bytes, &n);
    for (size_t i = 0; i < n; i++) count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return count;
}

static void add_token(sq_api_call *c, text_answer *s, const squish_job_event *ev) {
    const squish_model *m = c->model->model;
    const bool of_prompt = ev->kind == SQUISH_JOB_PROMPT, known = ev->n_top >= 0;
    json_t *name = sq_api_token_text(m, ev->id);
    sq_api_add(c, json_object_get(s->lp, "token_logprobs"),
               known ? json_real(sq_api_logprob(ev->logprob)) : json_null());
    sq_api_add(c, json_object_get(s->lp, "top_logprobs"), known ? top_map(c, ev, name) : json_null());
    sq_api_add(c, json_object_get(s->lp, "tokens"), name);
    sq_api_add(c, json_object_get(s->lp, "text_offset"), json_integer((json_int_t)s->offset));
    /* Control tokens are part of an echoed prompt, not of an answer. */
    if (of_prompt || !squish_token_is_control(m, ev->id)) s->offset += characters(m, ev->id);
}

/* ---- the prompt, said again ------------------------------------------------------------------ */

static bool append_prompt(sq_api_call *c, const sq_api_answer *a, sq_buf *out) {
    const sq_api_input *in = &c->wish.inputs[a->i_prompt];
    if (in->text) return sq_buf_append(out, in->text, in->bytes);
    squish_text t = {0};
    squish_error err = {0};
    if (squish_detokenize(c->model->model, in->ids, in->n_ids, true, &t, &err) != SQUISH_OK) return false;
    const bool ok = sq_buf_append(out, t.data, t.bytes);
    squish_text_free(&t);
    return ok;
}

/* ---- a whole answer -------------------------------------------------------------------------- */

static void begin_result(sq_api_call *c) {
    json_t *choices = json_array();
    for (size_t i = 0; i < c->n_answers; i++) {
        text_answer *s = c->answers[i].state;
        s->lp = c->wish.gen.logprobs >= 0 ? new_arrays() : NULL;
        s->choice = json_pack("{s:n, s:i, s:o, s:n}", "text", "index", (int)i, "logprobs",
                              s->lp ? s->lp : json_null(), "finish_reason");
        sq_api_add(c, choices, s->choice);
    }
    c->result = sq_api_openai_head(c, "cmpl-", "text_completion");
    sq_api_put(c, c->result, "choices", choices);
}

static void end_choice(sq_api_call *c, const sq_api_answer *a) {
    const text_state *cs = c->state;
    text_answer *s = a->state;
    sq_buf text;
    sq_buf_init(&text, &c->api->alloc, 256 << 20);
    if ((cs->echo && !append_prompt(c, a, &text)) || !sq_buf_append(&text, a->text.data, a->text.len))
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
    sq_api_put(c, s->choice, "text", json_stringn(text.data ? text.data : "", text.len));
    sq_api_put(c, s->choice, "finish_reason", json_string(sq_api_finish_word(a)));
    if (a->stop_reason) sq_api_put(c, s->choice, "stop_reason", json_string(a->stop_reason));
    sq_buf_deinit(&text);
}

/* ---- a stream -------------------------------------------------------------------------------- */

static void begin(sq_api_call *c) {
    if (c->wish.gen.logprobs < 0) return;
    c->result = json_array();
    for (size_t i = 0; i < c->n_answers; i++) {
        text_answer *s = c->answers[i].state;
        json_t *slot = json_pack("{s:o}", "logprobs", new_arrays());
        s->lp = json_object_get(slot, "logprobs");
        sq_api_add(c, c->result, slot);
    }
}

/* What waited leaves; an empty set of arrays takes its place. */
static json_t *take_arrays(sq_api_call *c, const sq_api_answer *a) {
    text_answer *s = a->state;
    if (!s->lp || json_array_size(json_object_get(s->lp, "tokens")) == 0) return json_null();
    json_t *full = json_incref(s->lp), *slot = json_array_get(c->result, (size_t)a->index);
    sq_api_put(c, slot, "logprobs", new_arrays());
    s->lp = json_object_get(slot, "logprobs");
    return full;
}

static json_t *chunk(sq_api_call *c, const sq_api_answer *a, const char *text, size_t n, const char *finish) {
    const text_state *s = c->state;
    json_t *choice = json_pack("{s:s%, s:i, s:o, s:s?}", "text", text, n, "index", a->index, "logprobs",
                               take_arrays(c, a), "finish_reason", finish);
    json_t *o = sq_api_openai_head(c, "cmpl-", "text_completion");
    if (finish && a->stop_reason) sq_api_put(c, choice, "stop_reason", json_string(a->stop_reason));
    sq_api_put(c, o, "choices", json_pack("[o]", choice));
    if (s->include_usage) sq_api_put(c, o, "usage", json_null());
    return o;
}

/* The first frame of an echo: the prompt, with the log-probabilities of its tokens. */
static void send_echo(sq_api_call *c, sq_api_answer *a) {
    text_answer *s = a->state;
    const text_state *cs = c->state;
    if (!cs->echo || s->echoed) return;
    s->echoed = true;
    sq_buf text;
    sq_buf_init(&text, &c->api->alloc, 256 << 20);
    if (append_prompt(c, a, &text))
        sq_api_sse(c, NULL, chunk(c, a, text.data ? text.data : "", text.len, NULL));
    else
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
    sq_buf_deinit(&text);
}

static void send_event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    text_state *s = c->state;
    /* Whoever asks for the times of tokens wants all of them, also those whose text is held back. */
    if ((ev->text_bytes || c->wish.token_times) && ev->kind == SQUISH_JOB_TOKEN) {
        json_t *o = chunk(c, a, ev->text, ev->text_bytes, NULL);
        sq_api_openai_token_time(c, o, ev);
        sq_api_sse(c, NULL, o);
    }
    if (ev->kind != SQUISH_JOB_END) return;
    json_t *last = chunk(c, a, ev->text ? ev->text : "", ev->text_bytes, sq_api_finish_word(a));
    if (++s->n_ended == c->n_answers) {
        sq_api_put(c, last, "x_squish_seed", json_integer((json_int_t)c->seed));
        sq_api_put(c, last, "timings", sq_api_openai_timings(c));
    }
    sq_api_sse(c, NULL, last);
}

/* ---- both ------------------------------------------------------------------------------------ */

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    text_answer *s = a->state;
    if (!c->streaming && !c->result) begin_result(c);
    if (c->streaming && ev->kind != SQUISH_JOB_PROMPT) send_echo(c, a);
    if ((ev->kind == SQUISH_JOB_TOKEN || ev->kind == SQUISH_JOB_PROMPT) && s->lp) add_token(c, s, ev);
    if (c->streaming)
        send_event(c, a, ev);
    else if (ev->kind == SQUISH_JOB_END)
        end_choice(c, a);
}

static void finish(sq_api_call *c) {
    const text_state *s = c->state;
    sq_api_openai_finish(c, "cmpl-", "text_completion", s->include_usage);
}

const sq_api_dialect sq_api_text = {.name = "openai-text",
                                    .stream_type = "text/event-stream",
                                    .ping = ": ping\n\n",
                                    .state_bytes = sizeof(text_state),
                                    .answer_bytes = sizeof(text_answer),
                                    .elements_max = SQ_API_JSON_IDS,
                                    .schemas = true,
                                    .read = read_text,
                                    .begin = begin,
                                    .event = event,
                                    .finish = finish,
                                    .error = sq_api_error_openai};

static void post_text(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_text); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/v1/completions", SQ_HTTP_JSON, 0, post_text},
};
const sq_api_routes sq_api_routes_completions = {routes, SQ_COUNT(routes)};
