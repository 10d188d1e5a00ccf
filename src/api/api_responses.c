/* SPDX-License-Identifier: Apache-2.0
 *
 * api_responses.c - POST /v1/responses, its count of input tokens, and answers that were kept.
 *
 * Every frame of a stream has its type as event and in the data, and a number that counts up. The answer is
 * items: thoughts, a message with one part of text, calls of tools. Nothing is kept unless the request says
 * "store": true (OpenAI keeps by default; a server on one's own machine should not). "truncation": "auto"
 * would cut prompts and is refused. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

typedef enum { OPEN_NONE, OPEN_THOUGHT, OPEN_TEXT, OPEN_CALL } open_kind; /* item of a stream */

typedef struct {
    bool store, logprobs;
    open_kind open;
    int index; /* of the open item, or of the next one */
    const char *instructions, *previous;
    json_t *waiting; /* log-probabilities of tokens whose text is still held; borrowed from c->result */
    json_t *all;     /* of the whole answer; borrowed from c->result */
    json_int_t sequence;
    char id[64];
} responses_state;

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A call of a tool and its result, as items; each becomes a message that templates know. */
static json_t *call_message(sq_api_call *c, const json_t *item, const char *at) {
    const char *id = json_string_value(json_object_get(item, "call_id"));
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *arguments = json_object_get(item, "arguments");
    if (!name || !json_is_string(arguments)) {
        sq_api_refuse(&c->error, 400, "invalid_value", at, "'%s': wanted 'name' and 'arguments' (a string)",
                      at);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:[{s:s, s:s, s:{s:s, s:O}}]}", "role", "assistant", "content", "",
                     "tool_calls", "id", id ? id : "", "type", "function", "function", "name", name,
                     "arguments", arguments);
}

static json_t *result_message(sq_api_call *c, const json_t *item, const char *at) {
    const char *id = json_string_value(json_object_get(item, "call_id"));
    const json_t *output = json_object_get(item, "output");
    if (!json_is_string(output) && !json_is_array(output)) {
        sq_api_refuse(&c->error, 400, "invalid_value", at, "'%s': wanted 'output', a string or parts of text",
                      at);
        return NULL;
    }
    return json_pack("{s:s, s:s, s:O}", "role", "tool", "tool_call_id", id ? id : "", "content", output);
}

/* Appends to list what one item says. */
static bool take_item(sq_api_call *c, json_t *item, size_t i, json_t *list) {
    char at[48];
    snprintf(at, sizeof at, "input[%zu]", i);
    const char *type = json_string_value(json_object_get(item, "type"));
    json_t *m = NULL;
    if (!json_is_object(item))
        return sq_api_refuse(&c->error, 400, "invalid_type", at, "'%s' is no object", at);
    if (!type || strcmp(type, "message") == 0)
        m = json_incref(item);
    else if (strcmp(type, "reasoning") == 0)
        return true; /* templates drop what was thought before */
    else if (strcmp(type, "function_call") == 0)
        m = call_message(c, item, at);
    else if (strcmp(type, "function_call_output") == 0)
        m = result_message(c, item, at);
    else
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", at,
                             "'%s' is an item of type '%.40s': wanted "
                             "message, function_call, function_call_output or reasoning",
                             at, type);
    return (m && json_array_append_new(list, m) == 0) || no_memory(c);
}

/* input -> a list of messages as clients write them, a new reference. */
static json_t *read_items(sq_api_call *c, json_t *input) {
    json_t *list = json_array();
    if (json_is_string(input)) {
        if (json_array_append_new(list, json_pack("{s:s, s:O}", "role", "user", "content", input)) != 0)
            no_memory(c);
        return list;
    }
    if (!json_is_array(input) || json_array_size(input) == 0)
        sq_api_refuse(&c->error, 400, input ? "invalid_value" : "missing_required_parameter", "input",
                      "'input' is %s, wanted a string or an array of items",
                      !input                 ? "missing"
                      : json_is_array(input) ? "empty"
                                             : "something else");
    for (size_t i = 0; !c->error.status && i < json_array_size(input); i++)
        take_item(c, json_array_get(input, i), i, list);
    return list;
}

/* What was said before, if the request goes on with it: messages without instructions. */
static bool go_on(sq_api_call *c, json_t **messages) {
    const responses_state *s = c->state;
    *messages = json_array();
    if (!s->previous || !*s->previous) return *messages || no_memory(c);
    json_decref(*messages);
    *messages = NULL;
    return (c->api->kept && sq_api_kept_get(c->api, sq_api_call_client(c), s->previous, NULL, messages)) ||
           sq_api_refuse(&c->error, 400, "previous_response_not_found", "previous_response_id",
                         "no answer '%.60s' is kept here (the last %d with \"store\": true are)", s->previous,
                         SQ_API_KEPT_MAX);
}

/* c->made is not touched; c->body["input"] is what the client wrote. c->wish.messages: all of it,
 * instructions first. */
static bool read_input(sq_api_call *c, json_t *body) {
    const responses_state *s = c->state;
    json_t *before = NULL, *list = NULL, *now = NULL;
    bool ok = go_on(c, &before);
    if (ok) list = read_items(c, json_object_get(body, "input"));
    ok = ok && list && !c->error.status && sq_api_read_messages(c, list, "input", &now);
    if (ok) ok = json_array_extend(before, now) == 0 || no_memory(c);
    if (ok && s->instructions && *s->instructions)
        ok = json_array_insert_new(
                 before, 0, json_pack("{s:s, s:s}", "role", "system", "content", s->instructions)) == 0 ||
             no_memory(c);
    json_decref(list);
    json_decref(now);
    if (ok)
        c->wish.messages = before;
    else
        json_decref(before);
    return ok;
}

static bool refuse_missing(sq_api_call *c, const json_t *body) {
    static const char *const never[][2] = {{"background", "answers are made while one waits"},
                                           {"conversation", "previous_response_id goes on with an answer"},
                                           {"prompt", "prompts are not kept here"},
                                           {"context_management", "nothing is cut or summed up here"}};
    const char *truncation = NULL;
    if (!sq_api_get_tools(c, body, false, "parameters") || !sq_api_get_tool_choice(c, body) ||
        !sq_api_get_format(c, json_object_get(body, "text"), "format", "text.format") ||
        !sq_api_get_text(&c->error, body, "", "truncation", &truncation))
        return false;
    if (truncation && strcmp(truncation, "disabled") != 0)
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", "truncation",
                             "'truncation' is '%.40s', wanted disabled: prompts are never cut", truncation);
    for (size_t i = 0; i < SQ_COUNT(never); i++) {
        const json_t *v = json_object_get(body, never[i][0]);
        if (v && !json_is_null(v) && !json_is_false(v))
            return sq_api_refuse(&c->error, 400, "unsupported_parameter", never[i][0],
                                 "'%s' is not offered: %s", never[i][0], never[i][1]);
    }
    return true;
}

static bool read_logprobs(sq_api_call *c, const json_t *body) {
    responses_state *s = c->state;
    const json_t *include = json_object_get(body, "include"), *v;
    int64_t top = 0;
    size_t i;
    if (!sq_api_get_int(&c->error, body, "", "top_logprobs", 0, 20, &top)) return false;
    json_array_foreach((json_t *)include, i, v) {
        const char *what = json_string_value(v);
        if (what && strcmp(what, "message.output_text.logprobs") == 0) s->logprobs = true;
    }
    if (top > 0) s->logprobs = true;
    c->wish.gen.logprobs = s->logprobs ? (int32_t)top : -1;
    return true;
}

static bool read_reasoning(sq_api_call *c, const json_t *body) {
    const char *effort = NULL;
    const json_t *o = json_object_get(body, "reasoning");
    if (!sq_api_get_text(&c->error, o, "reasoning.", "effort", &effort)) return false;
    if (!effort) return true;
    return sq_api_set_effort(c, effort);
}

/* What its input alone needs; input_tokens asks for no more. */
static bool read_counted(sq_api_call *c, json_t *body) {
    responses_state *s = c->state;
    return sq_api_get_text(&c->error, body, "", "model", &c->wish.model) &&
           sq_api_get_text(&c->error, body, "", "instructions", &s->instructions) &&
           sq_api_get_text(&c->error, body, "", "previous_response_id", &s->previous) &&
           refuse_missing(c, body) && read_reasoning(c, body) && read_input(c, body);
}

static bool read_responses(sq_api_call *c, json_t *body) {
    responses_state *s = c->state;
    snprintf(s->id, sizeof s->id, "resp_%s", c->id);
    return sq_api_get_bool(&c->error, body, "", "stream", &c->wish.stream) &&
           sq_api_get_bool(&c->error, body, "", "store", &s->store) && sq_api_get_sampling(c, body) &&
           sq_api_get_field(c, body, "", "max_output_tokens", SQ_API_MAX_TOKENS) && read_logprobs(c, body) &&
           read_counted(c, body);
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static json_t *echo(const sq_api_call *c, const char *key, json_t *otherwise) {
    json_t *v = json_object_get(c->body, key);
    if (!v) return otherwise;
    json_decref(otherwise);
    return json_incref(v);
}

static json_t *effort_of(const sq_api_call *c) {
    json_t *v = json_object_get(c->wish.template_vars, "reasoning_effort");
    return v ? json_incref(v) : json_null();
}

static json_t *format_of(const sq_api_call *c) {
    json_t *v = json_object_get(json_object_get(c->body, "text"), "format");
    return json_is_object(v) ? json_incref(v) : json_pack("{s:s}", "type", "text");
}

static json_t *response(const sq_api_call *c, const char *status, json_t *output, json_t *usage) {
    const responses_state *s = c->state;
    const squish_sampling *g = &c->wish.gen.sampling;
    json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:n, s:n, s:o, s:o, s:s, s:o, s:o, s:s?}", "id", s->id,
                          "object", "response", "created_at", (json_int_t)c->created, "status", status,
                          "error", "incomplete_details", "instructions", echo(c, "instructions", json_null()),
                          "max_output_tokens", echo(c, "max_output_tokens", json_null()), "model",
                          c->model_name, "output", output, "parallel_tool_calls",
                          echo(c, "parallel_tool_calls", json_true()), "previous_response_id", s->previous);
    json_t *rest =
        json_pack("{s:{s:o, s:n}, s:b, s:f, s:{s:o}, s:o, s:o, s:f, s:s, s:o, s:n, s:o}", "reasoning",
                  "effort", effort_of(c), "summary", "store", s->store, "temperature", (double)g->temperature,
                  "text", "format", format_of(c), "tool_choice", echo(c, "tool_choice", json_string("auto")),
                  "tools", echo(c, "tools", json_array()), "top_p", (double)g->top_p, "truncation",
                  "disabled", "usage", usage, "user", "metadata", echo(c, "metadata", json_object()));
    json_object_update(o, rest);
    json_decref(rest);
    return o;
}

static json_t *usage_of(const sq_api_call *c) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    return json_pack("{s:I, s:{s:I}, s:I, s:{s:i}, s:I}", "input_tokens", (json_int_t)t.prompt_tokens,
                     "input_tokens_details", "cached_tokens", (json_int_t)t.cached_tokens, "output_tokens",
                     (json_int_t)t.completion_tokens, "output_tokens_details", "reasoning_tokens",
                     (int)t.thought_tokens, "total_tokens",
                     (json_int_t)(t.prompt_tokens + t.completion_tokens));
}

/* ---- items ----------------------------------------------------------------------------------- */

static json_t *text_part(const sq_api_call *c, const char *text, size_t n) {
    const responses_state *s = c->state;
    return json_pack("{s:s, s:s%, s:[], s:o}", "type", "output_text", "text", text, n, "annotations",
                     "logprobs", s->all && n ? json_incref(s->all) : json_array());
}

static json_t *thought_part(const char *text, size_t n) {
    return json_pack("{s:s, s:s%}", "type", "reasoning_text", "text", text, n);
}

static json_t *message_item(const sq_api_call *c, const char *status, json_t *content) {
    return json_pack("{s:s+, s:s, s:s, s:s, s:o}", "id", "msg_", c->id, "type", "message", "status", status,
                     "role", "assistant", "content", content);
}

static json_t *thought_item(const sq_api_call *c, const char *status, json_t *content) {
    return json_pack("{s:s+, s:s, s:s, s:[], s:o}", "id", "rs_", c->id, "type", "reasoning", "status", status,
                     "summary", "content", content);
}

static json_t *call_item(const sq_api_use *u, const char *status, const char *arguments, size_t n) {
    return json_pack("{s:s+, s:s, s:s, s:s+, s:s, s:s%}", "id", "fc_", u->id, "type", "function_call",
                     "status", status, "call_id", "call_", u->id, "name", u->name, "arguments", arguments, n);
}

static json_t *whole_call(const sq_api_use *u) {
    return call_item(u, u->whole ? "completed" : "incomplete", sq_api_text_of(&u->arguments),
                     u->arguments.len);
}

static const char *end_word(const sq_api_call *c) {
    return c->answers[0].finish == SQUISH_FINISH_LENGTH ? "incomplete" : "completed";
}

/* Thoughts, text, calls: the order in which they are written. */
static json_t *output_of(sq_api_call *c) {
    const sq_api_answer *a = &c->answers[0];
    json_t *list = json_array();
    if (a->thought.len)
        sq_api_add(c, list,
                   thought_item(c, "completed",
                                json_pack("[o]", thought_part(sq_api_text_of(&a->thought), a->thought.len))));
    if (a->text.len || !a->uses)
        sq_api_add(c, list,
                   message_item(c, end_word(c),
                                json_pack("[o]", text_part(c, sq_api_text_of(&a->text), a->text.len))));
    for (const sq_api_use *u = a->uses; u; u = u->next) sq_api_add(c, list, whole_call(u));
    return list;
}

static json_t *whole(sq_api_call *c) {
    const sq_api_answer *a = &c->answers[0];
    json_t *o = response(c, end_word(c), output_of(c), usage_of(c));
    if (a->finish == SQUISH_FINISH_LENGTH)
        json_object_set_new(o, "incomplete_details", json_pack("{s:s}", "reason", "max_output_tokens"));
    else
        json_object_set_new(o, "completed_at", json_integer((json_int_t)sq_os_unix_time()));
    sq_api_put_verdict(c, a, o);
    return o;
}

/* ---- a stream -------------------------------------------------------------------------------- */

/* Takes o; numbers and sends it. */
static void say(sq_api_call *c, const char *type, json_t *o) {
    responses_state *s = c->state;
    sq_api_put(c, o, "type", json_string(type));
    sq_api_put(c, o, "sequence_number", json_integer(s->sequence++));
    sq_api_sse(c, type, o);
}

static void begin(sq_api_call *c) {
    static const char *const first[] = {"response.created", "response.in_progress"};
    for (size_t i = 0; i < SQ_COUNT(first); i++)
        say(c, first[i],
            json_pack("{s:o}", "response", response(c, "in_progress", json_array(), json_null())));
}

/* Where the open item stands, for its frames. */
static json_t *placed(const sq_api_call *c) {
    static const char *const prefix[] = {[OPEN_THOUGHT] = "rs_", [OPEN_TEXT] = "msg_", [OPEN_CALL] = "fc_"};
    const responses_state *s = c->state;
    const bool call = s->open == OPEN_CALL;
    json_t *o = json_pack("{s:s+, s:i}", "item_id", prefix[s->open],
                          call ? c->answers[0].last_use->id : c->id, "output_index", s->index);
    if (!call) json_object_set_new(o, "content_index", json_integer(0));
    return o;
}

static json_t *open_part(const sq_api_call *c, const char *text, size_t n) {
    const responses_state *s = c->state;
    return s->open == OPEN_THOUGHT ? thought_part(text, n) : text_part(c, text, n);
}

static json_t *open_item(const sq_api_call *c, const char *status, json_t *content) {
    const responses_state *s = c->state;
    return s->open == OPEN_THOUGHT ? thought_item(c, status, content) : message_item(c, status, content);
}

static void open_next(sq_api_call *c, open_kind kind) {
    responses_state *s = c->state;
    s->open = kind;
    json_t *fresh = kind == OPEN_CALL ? call_item(c->answers[0].last_use, "in_progress", "", 0)
                                      : open_item(c, "in_progress", json_array());
    say(c, "response.output_item.added", json_pack("{s:i, s:o}", "output_index", s->index, "item", fresh));
    if (kind == OPEN_CALL) return;
    json_t *o = placed(c);
    sq_api_put(c, o, "part", open_part(c, "", 0));
    say(c, "response.content_part.added", o);
}

static void close_call(sq_api_call *c) {
    const responses_state *s = c->state;
    const sq_api_use *u = c->answers[0].last_use;
    json_t *o = placed(c);
    sq_api_put(c, o, "name", json_string(u->name));
    sq_api_put(c, o, "arguments", json_stringn(sq_api_text_of(&u->arguments), u->arguments.len));
    say(c, "response.function_call_arguments.done", o);
    say(c, "response.output_item.done",
        json_pack("{s:i, s:o}", "output_index", s->index, "item", whole_call(u)));
}

static void close_text(sq_api_call *c) {
    const sq_api_answer *a = &c->answers[0];
    const responses_state *s = c->state;
    const bool thought = s->open == OPEN_THOUGHT;
    const sq_buf *b = thought ? &a->thought : &a->text;
    const char *text = sq_api_text_of(b);
    json_t *o = placed(c);
    sq_api_put(c, o, "text", json_stringn(text, b->len));
    if (!thought) sq_api_put(c, o, "logprobs", s->all ? json_incref(s->all) : json_array());
    say(c, thought ? "response.reasoning_text.done" : "response.output_text.done", o);
    o = placed(c);
    sq_api_put(c, o, "part", open_part(c, text, b->len));
    say(c, "response.content_part.done", o);
    json_t *item = open_item(c, thought || !a->ended ? "completed" : end_word(c),
                             json_pack("[o]", open_part(c, text, b->len)));
    say(c, "response.output_item.done", json_pack("{s:i, s:o}", "output_index", s->index, "item", item));
}

static void close_open(sq_api_call *c) {
    responses_state *s = c->state;
    if (s->open == OPEN_NONE) return;
    if (s->open == OPEN_CALL)
        close_call(c);
    else
        close_text(c);
    s->open = OPEN_NONE;
    s->index++;
}

/* What waited leaves; an empty list takes its place. */
static json_t *take_waiting(sq_api_call *c) {
    responses_state *s = c->state;
    if (!s->logprobs) return json_array();
    json_t *list = json_incref(s->waiting);
    sq_api_put(c, c->result, "waiting", json_array());
    s->waiting = json_object_get(c->result, "waiting");
    return list;
}

static void part(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev) {
    static const struct {
        open_kind open;
        const char *delta;
    } rows[] = {[SQ_CALLS_TELL_THOUGHT] = {OPEN_THOUGHT, "response.reasoning_text.delta"},
                [SQ_CALLS_TELL_TEXT] = {OPEN_TEXT, "response.output_text.delta"},
                [SQ_CALLS_TELL_ARGUMENTS] = {OPEN_CALL, "response.function_call_arguments.delta"}};
    responses_state *s = c->state;
    (void)a;
    if (ev->kind == SQ_CALLS_TELL_END) {
        close_open(c);
        return;
    }
    const bool begins = ev->kind == SQ_CALLS_TELL_BEGIN;
    const open_kind wanted = begins ? OPEN_CALL : rows[ev->kind].open;
    if (begins || s->open != wanted) {
        if (begins && s->open == OPEN_CALL)
            s->index++; /* the one before was broken off: it has no end, and is no longer the last */
        else
            close_open(c);
        open_next(c, wanted);
    }
    if (begins) return;
    json_t *o = placed(c);
    sq_api_put(c, o, "delta", json_stringn(ev->text, ev->bytes));
    if (s->open == OPEN_TEXT) sq_api_put(c, o, "logprobs", take_waiting(c));
    say(c, rows[ev->kind].delta, o);
}

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    responses_state *s = c->state;
    (void)a;
    if (s->logprobs && !c->result) {
        c->result = json_pack("{s:[], s:[]}", "all", "waiting");
        s->all = json_object_get(c->result, "all");
        s->waiting = json_object_get(c->result, "waiting");
    }
    if (s->logprobs && ev->kind == SQUISH_JOB_TOKEN) {
        sq_api_add_token(c, s->all, ev);
        const size_t n = json_array_size(s->all);
        sq_api_add(c, s->waiting, n ? json_incref(json_array_get(s->all, n - 1)) : NULL);
    }
}

/* As messages of earlier turns have their calls. */
static void keep_call(json_t *message, const sq_api_use *u) {
    json_t *calls = json_object_get(message, "tool_calls");
    json_t *arguments = json_loadb(sq_api_text_of(&u->arguments), u->arguments.len, 0, NULL);
    if (!calls) {
        calls = json_array();
        json_object_set_new(message, "tool_calls", calls);
    }
    json_array_append_new(calls, json_pack("{s:s+, s:s, s:{s:s, s:o}}", "id", "call_", u->id, "type",
                                           "function", "function", "name", u->name, "arguments",
                                           arguments ? arguments : json_object()));
}

/* The conversation as the next request goes on with it: without instructions, with the answer. */
static void keep(sq_api_call *c, const json_t *result) {
    const responses_state *s = c->state;
    const sq_api_answer *a = &c->answers[0];
    json_t *list = json_copy(c->wish.messages);
    if (s->instructions && *s->instructions) json_array_remove(list, 0);
    json_t *message =
        json_pack("{s:s, s:s%}", "role", "assistant", "content", sq_api_text_of(&a->text), a->text.len);
    for (const sq_api_use *u = a->uses; u; u = u->next) keep_call(message, u);
    json_array_append_new(list, message);
    if (!list || !sq_api_kept_put(c->api, sq_api_call_client(c), s->id, result, list))
        sq_api_refuse(&c->error, 500, "out_of_memory", "store", "the answer found no memory to be kept in");
    json_decref(list);
}

static void finish(sq_api_call *c) {
    responses_state *s = c->state;
    json_t *o = whole(c);
    if (s->store) keep(c, o);
    if (!c->streaming) {
        json_decref(c->result);
        c->result = o;
        return;
    }
    if (s->open == OPEN_NONE && s->index == 0) open_next(c, OPEN_TEXT); /* it said nothing */
    close_open(c);
    char type[40];
    snprintf(type, sizeof type, "response.%s", end_word(c));
    say(c, type, json_pack("{s:o}", "response", o));
}

static void fail(sq_api_call *c, const sq_api_error *e) {
    json_t *o = response(c, "failed", json_array(), json_null());
    json_object_set_new(
        o, "error",
        json_pack("{s:s, s:s}", "code", e->status >= 500 ? "server_error" : e->code, "message", e->message));
    say(c, "response.failed", json_pack("{s:o}", "response", o));
}

/* Loop thread, first of all: the table of kept answers is there, and streams collect their text for the last
 * frames. */
static void enter(sq_api_call *c) {
    c->wish.whole_text = true;
    if (!sq_api_kept_begin(c->api)) no_memory(c);
}

static bool work_count(sq_api_call *c) {
    squish_tokens ids = {0};
    if (!sq_api_render(c, &ids)) return false;
    c->result =
        json_pack("{s:s, s:I}", "object", "response.input_tokens", "input_tokens", (json_int_t)ids.count);
    return true;
}

/* ---- kept answers ---------------------------------------------------------------------------- */

static void refuse_unknown(sq_http_req *r) {
    sq_api_error e = {0};
    sq_api_refuse(&e, 404, "response_not_found", NULL, "no answer '%.60s' is kept here", sq_http_rest(r));
    sq_api_reply_error(r, &e);
}

static void kept_route(void *user, sq_http_req *r) {
    sq_api *api = user;
    json_t *o = NULL;
    const char *id = sq_http_rest(r);
    if (sq_http_method_of(r) == SQ_HTTP_DELETE) {
        if (sq_api_kept_remove(api, sq_http_client(r), id))
            sq_api_reply_json(r, 200,
                              json_pack("{s:s, s:s, s:b}", "id", id, "object", "response", "deleted", 1));
        else
            refuse_unknown(r);
    } else if (sq_api_kept_get(api, sq_http_client(r), id, &o, NULL)) {
        sq_api_reply_json(r, 200, o);
    } else {
        refuse_unknown(r);
    }
}

/* ---- routes ---------------------------------------------------------------------------------- */

const sq_api_dialect sq_api_responses = {.name = "openai-responses",
                                         .stream_type = "text/event-stream",
                                         .ping = ": ping\n\n",
                                         .state_bytes = sizeof(responses_state),
                                         .schemas = true,
                                         .enter = enter,
                                         .read = read_responses,
                                         .begin = begin,
                                         .event = event,
                                         .part = part,
                                         .finish = finish,
                                         .error = sq_api_error_openai,
                                         .fail = fail};
static const sq_api_dialect input_tokens = {.name = "openai-input-tokens",
                                            .state_bytes = sizeof(responses_state),
                                            .schemas = true,
                                            .enter = enter,
                                            .read = read_counted,
                                            .work = work_count,
                                            .error = sq_api_error_openai};

static void post_responses(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_responses); }
static void post_count(void *user, sq_http_req *r) { sq_api_call_new(user, r, &input_tokens); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/v1/responses", SQ_HTTP_JSON, 0, post_responses},
    {SQ_HTTP_POST, "/v1/responses/input_tokens", SQ_HTTP_JSON, 0, post_count},
    {SQ_HTTP_GET | SQ_HTTP_DELETE, "/v1/responses/*", 0, 0, kept_route},
};
const sq_api_routes sq_api_routes_responses = {routes, SQ_COUNT(routes)};
