/* SPDX-License-Identifier: Apache-2.0
 *
 * api_chat.c - POST /v1/chat/completions.
 *
 * A stream says, for each choice: the role with the first token; thoughts, text and calls of tools as they
 * become certain, with the log-probabilities of its tokens; an empty delta with the reason for the end. Then,
 * if asked for, usage; then [DONE]. Log-probabilities of tokens whose text is still held wait for it, so that
 * no frame is empty.
 *
 * c->result is the reply in the making; in a stream, log-probabilities that wait. Answers point into it. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bool include_usage;
    size_t n_ended;
} chat_state;

typedef struct {
    bool role_sent;
    json_t *choice;  /* whole: this answer's; borrowed */
    json_t *waiting; /* array of token records; borrowed */
} chat_answer;

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_logprobs(sq_api_call *c, const json_t *body) {
    bool on = false;
    int64_t top = 0;
    if (!sq_api_get_bool(&c->error, body, "", "logprobs", &on) ||
        !sq_api_get_int(&c->error, body, "", "top_logprobs", 0, 20, &top))
        return false;
    if (top > 0 && !on)
        return sq_api_refuse(&c->error, 400, "invalid_value", "top_logprobs",
                             "'top_logprobs' needs 'logprobs'");
    c->wish.gen.logprobs = on ? (int32_t)top : -1;
    return true;
}

/* chat_template_kwargs, and reasoning_effort by its own name, as templates read it. */
static bool read_vars(sq_api_call *c, const json_t *body) {
    json_t *vars = json_object_get(body, "chat_template_kwargs");
    const char *effort = NULL;
    if (!sq_api_get_text(&c->error, body, "", "reasoning_effort", &effort)) return false;
    if (vars && !json_is_null(vars) && !json_is_object(vars))
        return sq_api_refuse(&c->error, 400, "invalid_type", "chat_template_kwargs",
                             "'chat_template_kwargs' is no object");
    c->wish.template_vars = json_is_object(vars) ? json_copy(vars) : json_object();
    if (effort) sq_api_set_effort(c, effort);
    return c->error.status == 0 && sq_api_get_think_tokens(c, body, "", "thinking_budget");
}

/* What messages mean, for all routes of OpenAI's that take them. */
bool sq_api_read_chat(sq_api_call *c, const json_t *body) {
    return sq_api_read_messages(c, json_object_get(body, "messages"), "messages", &c->wish.messages) &&
           sq_api_get_tools(c, body, true, "parameters") && sq_api_get_tool_choice(c, body) &&
           read_vars(c, body) &&
           sq_api_get_bool(&c->error, body, "", "continue_final_message", &c->wish.continue_final) &&
           sq_api_get_bool(&c->error, body, "", "add_generation_prompt", &c->wish.add_generation_prompt);
}

static bool read_chat(sq_api_call *c, json_t *body) {
    chat_state *s = c->state;
    return sq_api_openai_common(c, body, &s->include_usage) &&
           sq_api_get_field(c, body, "", "max_completion_tokens", SQ_API_MAX_TOKENS) &&
           read_logprobs(c, body) && sq_api_read_chat(c, body);
}

/* ---- log-probabilities ----------------------------------------------------------------------- */

static json_t *token_record(const squish_model *m, int32_t id, float lp) {
    const char *bytes = "";
    size_t n = 0;
    squish_token_bytes(m, id, &bytes, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(list, json_integer((unsigned char)bytes[i]));
    return json_pack("{s:o, s:f, s:o}", "token", sq_api_token_text(m, id), "logprob", sq_api_logprob(lp),
                     "bytes", list);
}

void sq_api_add_token(sq_api_call *c, json_t *list, const squish_job_event *ev) {
    const squish_model *m = c->model->model;
    json_t *record = token_record(m, ev->id, ev->logprob), *top = json_array();
    for (int32_t i = 0; i < ev->n_top; i++)
        sq_api_add(c, top, token_record(m, ev->top_ids[i], ev->top_logprobs[i]));
    sq_api_put(c, record, "top_logprobs", top);
    sq_api_add(c, list, record);
}

/* ---- calls of tools -------------------------------------------------------------------------- */

static json_t *call_record(const sq_api_use *u, const char *arguments, size_t n) {
    char id[48];
    snprintf(id, sizeof id, "call_%s", u->id);
    return json_pack("{s:s, s:s, s:{s:s, s:s%}}", "id", id, "type", "function", "function", "name", u->name,
                     "arguments", arguments, n);
}

/* ---- a whole answer -------------------------------------------------------------------------- */

static json_t *new_choice(const sq_api_call *c, int32_t index) {
    json_t *lp = c->wish.gen.logprobs >= 0 ? json_pack("{s:[], s:n}", "content", "refusal") : json_null();
    return json_pack("{s:i, s:{s:s, s:n, s:n}, s:o, s:n}", "index", index, "message", "role", "assistant",
                     "content", "refusal", "logprobs", lp, "finish_reason");
}

static void begin_result(sq_api_call *c) {
    json_t *choices = json_array();
    for (size_t i = 0; i < c->n_answers; i++) {
        chat_answer *s = c->answers[i].state;
        s->choice = new_choice(c, (int32_t)i);
        s->waiting = json_object_get(json_object_get(s->choice, "logprobs"), "content");
        sq_api_add(c, choices, s->choice);
    }
    c->result = sq_api_openai_head(c, "chatcmpl-", "chat.completion");
    sq_api_put(c, c->result, "choices", choices);
}

static void end_choice(sq_api_call *c, const sq_api_answer *a) {
    chat_answer *s = a->state;
    json_t *message = json_object_get(s->choice, "message");
    /* Calls alone: no text, as OpenAI has it. */
    if (a->text.len || !a->uses)
        sq_api_put(c, message, "content", json_stringn(sq_api_text_of(&a->text), a->text.len));
    if (a->thought.len)
        sq_api_put(c, message, "reasoning_content",
                   json_stringn(sq_api_text_of(&a->thought), a->thought.len));
    if (a->uses) {
        json_t *calls = json_array();
        for (const sq_api_use *u = a->uses; u; u = u->next)
            sq_api_add(c, calls, call_record(u, sq_api_text_of(&u->arguments), u->arguments.len));
        sq_api_put(c, message, "tool_calls", calls);
    }
    sq_api_put(c, s->choice, "finish_reason", json_string(sq_api_finish_word(a)));
    if (a->stop_reason) sq_api_put(c, s->choice, "stop_reason", json_string(a->stop_reason));
    sq_api_put_verdict(c, a, s->choice);
}

/* ---- a stream -------------------------------------------------------------------------------- */

static void begin(sq_api_call *c) {
    if (c->wish.gen.logprobs < 0) return;
    c->result = json_array();
    for (size_t i = 0; i < c->n_answers; i++) {
        chat_answer *s = c->answers[i].state;
        s->waiting = json_array();
        sq_api_add(c, c->result, s->waiting);
    }
}

/* A frame with one choice. finish NULL: there is more to come. */
static json_t *chunk(sq_api_call *c, const sq_api_answer *a, json_t *delta, const char *finish) {
    const chat_state *s = c->state;
    chat_answer *as = a->state;
    json_t *lp = json_null();
    if (as->waiting && json_array_size(as->waiting) > 0) {
        lp = json_pack("{s:o, s:n}", "content", json_copy(as->waiting), "refusal");
        json_array_clear(as->waiting);
    }
    json_t *choice = json_pack("{s:i, s:o, s:o, s:s?}", "index", a->index, "delta", delta, "logprobs", lp,
                               "finish_reason", finish);
    json_t *o = sq_api_openai_head(c, "chatcmpl-", "chat.completion.chunk");
    if (finish && a->stop_reason) sq_api_put(c, choice, "stop_reason", json_string(a->stop_reason));
    if (finish) sq_api_put_verdict(c, a, choice);
    sq_api_put(c, o, "choices", json_pack("[o]", choice));
    if (s->include_usage) sq_api_put(c, o, "usage", json_null());
    return o;
}

static void send_role(sq_api_call *c, sq_api_answer *a) {
    chat_answer *s = a->state;
    if (s->role_sent) return;
    s->role_sent = true;
    json_t *waiting = s->waiting; /* they belong to text, not to this */
    s->waiting = NULL;
    sq_api_sse(c, NULL, chunk(c, a, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL));
    s->waiting = waiting;
}

static void send_event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    chat_state *s = c->state;
    send_role(c, a);
    if (ev->kind != SQUISH_JOB_END) return;
    json_t *last = chunk(c, a, json_object(), sq_api_finish_word(a));
    if (++s->n_ended == c->n_answers) {
        sq_api_put(c, last, "x_squish_seed", json_integer((json_int_t)c->seed));
        sq_api_put(c, last, "timings", sq_api_openai_timings(c));
    }
    sq_api_sse(c, NULL, last);
}

/* The first frame of a call says its id and name, later ones bring pieces of its arguments. */
static json_t *delta_of(const sq_api_answer *a, const sq_calls_event *ev) {
    switch (ev->kind) {
    case SQ_CALLS_TELL_THOUGHT: return json_pack("{s:s%}", "reasoning_content", ev->text, ev->bytes);
    case SQ_CALLS_TELL_TEXT: return json_pack("{s:s%}", "content", ev->text, ev->bytes);
    case SQ_CALLS_TELL_ARGUMENTS:
        return json_pack("{s:[{s:i, s:{s:s%}}]}", "tool_calls", "index", a->last_use->index, "function",
                         "arguments", ev->text, ev->bytes);
    default: break;
    }
    json_t *call = call_record(a->last_use, "", 0);
    json_object_set_new(call, "index", json_integer(a->last_use->index));
    return json_pack("{s:[o]}", "tool_calls", call);
}

static void part(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev) {
    if (ev->kind == SQ_CALLS_TELL_END) return;
    send_role(c, a);
    json_t *o = chunk(c, a, delta_of(a, ev), NULL);
    sq_api_openai_token_time(c, o, a->event);
    sq_api_sse(c, NULL, o);
}

/* ---- both ------------------------------------------------------------------------------------ */

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    chat_answer *s = a->state;
    if (!c->streaming && !c->result) begin_result(c);
    if (ev->kind == SQUISH_JOB_TOKEN && c->wish.gen.logprobs >= 0) sq_api_add_token(c, s->waiting, ev);
    if (c->streaming)
        send_event(c, a, ev);
    else if (ev->kind == SQUISH_JOB_END)
        end_choice(c, a);
}

static void finish(sq_api_call *c) {
    const chat_state *s = c->state;
    sq_api_openai_finish(c, "chatcmpl-", "chat.completion.chunk", s->include_usage);
}

const sq_api_dialect sq_api_chat = {.name = "openai-chat",
                                    .stream_type = "text/event-stream",
                                    .ping = ": ping\n\n",
                                    .state_bytes = sizeof(chat_state),
                                    .answer_bytes = sizeof(chat_answer),
                                    .schemas = true,
                                    .read = read_chat,
                                    .begin = begin,
                                    .event = event,
                                    .part = part,
                                    .finish = finish,
                                    .error = sq_api_error_openai};

static void post_chat(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_chat); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/v1/chat/completions", SQ_HTTP_JSON, 0, post_chat},
};
const sq_api_routes sq_api_routes_chat = {routes, SQ_COUNT(routes)};
