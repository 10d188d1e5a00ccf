/* SPDX-License-Identifier: Apache-2.0
 *
 * api_anthropic.c - POST /v1/messages and /v1/messages/count_tokens.
 *
 * A stream is message_start, blocks (start, deltas, stop) of thoughts, text and calls of tools, message_delta
 * with the reason and usage, and message_stop; every frame has its name twice, as event and as type.
 * input_tokens counts what was evaluated, as the API has it: what came from the cache is
 * cache_read_input_tokens. When the stream begins nobody knows yet what the cache holds, so message_start
 * counts the whole prompt and message_delta says how it was. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TOKENS_DEFAULT = 4096 };

/* Of a stream: the block at `index`, and what it is of. */
typedef struct {
    bool open;
    sq_calls_kind kind;
    int index;
} messages_state;

/* ---- errors ---------------------------------------------------------------------------------- */

static const char *error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 413: return "request_too_large";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return status >= 500 ? "api_error" : "invalid_request_error";
    }
}

static json_t *error_object(const sq_api_error *e, const char *request_id) {
    return json_pack("{s:s, s:{s:s, s:s}, s:s}", "type", "error", "error", "type", error_type(e->status),
                     "message", e->message, "request_id", request_id);
}

void sq_api_error_anthropic(const sq_api_error *e, const char *request_id, sq_buf *out) {
    sq_api_dump(error_object(e, request_id), out);
}

/* Their clients know 529 for what others call 503. */
static int anthropic_status(const sq_api_error *e) { return e->status == 503 ? 529 : e->status; }

static void fail(sq_api_call *c, const sq_api_error *e) {
    sq_api_sse(c, "error", error_object(e, c->request_id));
}

static bool no_memory(sq_api_call *c) {
    return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

/* ---- blocks of messages ---------------------------------------------------------------------- */

static const char *type_of(const json_t *block) {
    const char *t = json_string_value(json_object_get(block, "type"));
    return t ? t : "";
}

static bool wrong_block(sq_api_call *c, const char *at, size_t i, const json_t *block, const char *why) {
    char where[128];
    snprintf(where, sizeof where, "%.80s[%zu]", at, i);
    return sq_api_refuse(&c->error, 400, "invalid_value", where, "'%s' is a block of type '%.40s': %s", where,
                         type_of(block), why);
}

/* Text of a string or of blocks of text -> out. */
static bool add_text(sq_api_call *c, const json_t *v, const char *at, sq_buf *out) {
    if (json_is_string(v))
        return sq_buf_append(out, json_string_value(v), json_string_length(v)) || no_memory(c);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *block = json_array_get(v, i), *text = json_object_get(block, "text");
        if (strcmp(type_of(block), "text") != 0 || !json_is_string(text))
            return wrong_block(c, at, i, block, "wanted text (this model reads text only)");
        if (!sq_buf_append(out, json_string_value(text), json_string_length(text))) return no_memory(c);
    }
    return true;
}

static json_t *joined(sq_api_call *c, const json_t *v, const char *at) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, 32 << 20);
    json_t *o = add_text(c, v, at, &b) ? json_stringn(b.data ? b.data : "", b.len) : NULL;
    sq_buf_deinit(&b);
    if (!o) no_memory(c);
    return o;
}

/* One message becomes a message with what the blocks of text say, the calls of tools they carry, and before
 * it one message of the role "tool" for each result: the order in which templates know them. */
typedef struct {
    const char *at;
    json_t *list; /* of messages, to be added to */
    json_t *calls;
    sq_buf text;
} gathered;

static bool take_result(sq_api_call *c, gathered *g, size_t i, const json_t *block) {
    char at[128];
    snprintf(at, sizeof at, "%.60s[%zu].content", g->at, i);
    const json_t *content = json_object_get(block, "content");
    const char *id = json_string_value(json_object_get(block, "tool_use_id"));
    if (content && !json_is_null(content) && !json_is_string(content) && !json_is_array(content))
        return wrong_block(c, g->at, i, block, "its content is neither a string nor blocks");
    json_t *text = joined(c, content, at);
    json_t *m =
        text ? json_pack("{s:s, s:s, s:o}", "role", "tool", "tool_call_id", id ? id : "", "content", text)
             : NULL;
    return (m && json_array_append_new(g->list, m) == 0) || no_memory(c);
}

static bool take_use(sq_api_call *c, gathered *g, size_t i, const json_t *block) {
    const char *id = json_string_value(json_object_get(block, "id"));
    const char *name = json_string_value(json_object_get(block, "name"));
    json_t *input = json_object_get(block, "input");
    if (!id || !name || !json_is_object(input))
        return wrong_block(c, g->at, i, block, "wanted id, name and input (an object)");
    json_t *call = json_pack("{s:s, s:s, s:{s:s, s:O}}", "id", id, "type", "function", "function", "name",
                             name, "arguments", input);
    return (call && json_array_append_new(g->calls, call) == 0) || no_memory(c);
}

static bool take_block(sq_api_call *c, gathered *g, size_t i, const json_t *block) {
    const char *type = type_of(block);
    const json_t *text = json_object_get(block, "text");
    if (strcmp(type, "text") == 0 && json_is_string(text))
        return sq_buf_append(&g->text, json_string_value(text), json_string_length(text)) || no_memory(c);
    if (strcmp(type, "tool_result") == 0) return take_result(c, g, i, block);
    if (strcmp(type, "tool_use") == 0) return take_use(c, g, i, block);
    if (strcmp(type, "thinking") == 0 || strcmp(type, "redacted_thinking") == 0)
        return true; /* said to nobody twice */
    return wrong_block(c, g->at, i, block,
                       "wanted text, tool_use or tool_result (this model reads text only)");
}

static bool add_message(sq_api_call *c, const char *role, const gathered *g) {
    json_t *m =
        json_pack("{s:s, s:s%}", "role", role, "content", g->text.data ? g->text.data : "", g->text.len);
    if (m && json_array_size(g->calls) && json_object_set(m, "tool_calls", g->calls) != 0) {
        json_decref(m);
        m = NULL;
    }
    return (m && json_array_append_new(g->list, m) == 0) || no_memory(c);
}

static bool take_message(sq_api_call *c, const json_t *message, size_t i, json_t *list) {
    char at[64];
    snprintf(at, sizeof at, "messages[%zu].content", i);
    const char *role = json_string_value(json_object_get(message, "role"));
    const json_t *content = json_object_get(message, "content");
    if (!role || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 && strcmp(role, "system") != 0))
        return sq_api_refuse(&c->error, 400, "invalid_value", at,
                             "'messages[%zu].role' is %s%.40s, wanted user or assistant", i,
                             role ? "" : "no string", role ? role : "");
    if (!json_is_string(content) && !json_is_array(content))
        return sq_api_refuse(&c->error, 400, "invalid_type", at,
                             "'%s' is neither a string nor an array of blocks", at);
    const size_t before = json_array_size(list);
    gathered g = {.at = at, .list = list, .calls = json_array()};
    sq_buf_init(&g.text, &c->api->alloc, 32 << 20);
    bool ok = g.calls || no_memory(c);
    if (ok && json_is_string(content))
        ok = sq_buf_append(&g.text, json_string_value(content), json_string_length(content)) || no_memory(c);
    for (size_t k = 0; ok && k < json_array_size(content); k++)
        ok = take_block(c, &g, k, json_array_get(content, k));
    const bool results_alone = g.text.len == 0 && json_array_size(list) > before;
    if (ok && !results_alone) ok = add_message(c, role, &g);
    sq_buf_deinit(&g.text);
    json_decref(g.calls);
    return ok;
}

static bool read_system(sq_api_call *c, const json_t *body) {
    const json_t *v = json_object_get(body, "system");
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(v) && !json_is_array(v))
        return sq_api_refuse(&c->error, 400, "invalid_type", "system",
                             "'system' is neither a string nor blocks of text");
    json_t *text = joined(c, v, "system");
    if (!text) return false;
    if (json_string_length(text) == 0) {
        json_decref(text);
        return true;
    }
    json_t *m = json_pack("{s:s, s:o}", "role", "system", "content", text);
    return (m && json_array_insert_new(c->wish.messages, 0, m) == 0) || no_memory(c);
}

static bool read_messages(sq_api_call *c, const json_t *body) {
    const json_t *list = json_object_get(body, "messages");
    const size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0)
        return sq_api_refuse(&c->error, 400, list ? "invalid_value" : "missing_required_parameter",
                             "messages", "'messages' is %s, wanted an array with at least one message",
                             !list                 ? "missing"
                             : json_is_array(list) ? "empty"
                                                   : "no array");
    c->wish.messages = json_array();
    if (!c->wish.messages) return no_memory(c);
    for (size_t i = 0; i < n; i++)
        if (!take_message(c, json_array_get(list, i), i, c->wish.messages)) return false;
    const char *role = json_string_value(json_object_get(json_array_get(list, n - 1), "role"));
    c->wish.continue_final = role && strcmp(role, "assistant") == 0; /* an answer that was begun goes on */
    return read_system(c, body);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* tools, thinking, and what the answer must look like. Thinking is off unless it is asked for. */
static bool read_manner(sq_api_call *c, const json_t *body) {
    const json_t *thinking = json_object_get(body, "thinking");
    const bool on = strcmp(type_of(thinking), "enabled") == 0 || strcmp(type_of(thinking), "adaptive") == 0;
    return sq_api_set_thinking(c, on) &&
           sq_api_get_think_tokens(c, on ? thinking : NULL, "thinking.", "budget_tokens") &&
           sq_api_get_tools(c, body, false, "input_schema") && sq_api_get_tool_choice(c, body) &&
           sq_api_get_format(c, body, "output_format", "output_format") &&
           sq_api_get_format(c, json_object_get(body, "output_config"), "format", "output_config.format") &&
           (c->wish.shape.relaxes = false, true); /* this API knows strict schemas only */
}

static bool read_counted(sq_api_call *c, json_t *body) {
    return sq_api_get_text(&c->error, body, "", "model", &c->wish.model) && read_manner(c, body) &&
           read_messages(c, body);
}

static bool read_message(sq_api_call *c, json_t *body) {
    double t = 0;
    int64_t max = MAX_TOKENS_DEFAULT;
    if (!sq_api_get_bool(&c->error, body, "", "stream", &c->wish.stream) ||
        !sq_api_get_int(&c->error, body, "", "max_tokens", 1, 1 << 24, &max) ||
        !sq_api_get_num(&c->error, body, "", "temperature", 0, 1, &t) ||
        !sq_api_get_field(c, body, "", "temperature", SQ_API_TEMPERATURE) ||
        !sq_api_get_field(c, body, "", "top_p", SQ_API_TOP_P) ||
        !sq_api_get_field(c, body, "", "top_k", SQ_API_TOP_K) ||
        !sq_api_get_stops(c, body, "", "stop_sequences"))
        return false;
    c->wish.gen.max_tokens = (int32_t)max;
    c->wish.set |= 1u << SQ_API_MAX_TOKENS;
    return read_counted(c, body);
}

/* ---- answering ------------------------------------------------------------------------------- */

static json_t *usage(const sq_api_call *c, bool begun) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    if (begun) t.cached_tokens = 0;
    return json_pack("{s:I, s:I, s:I, s:i}", "input_tokens", (json_int_t)(t.prompt_tokens - t.cached_tokens),
                     "output_tokens", begun ? (json_int_t)1 : (json_int_t)t.completion_tokens,
                     "cache_read_input_tokens", (json_int_t)t.cached_tokens, "cache_creation_input_tokens",
                     0);
}

static json_t *message(const sq_api_call *c, bool begun) {
    char id[64];
    snprintf(id, sizeof id, "msg_%s", c->id);
    return json_pack("{s:s, s:s, s:s, s:s, s:[], s:n, s:n, s:o}", "id", id, "type", "message", "role",
                     "assistant", "model", c->model_name, "content", "stop_reason", "stop_sequence", "usage",
                     usage(c, begun));
}

static const char *stop_reason(const sq_api_answer *a) {
    if (a->finish == SQUISH_FINISH_LENGTH) return "max_tokens";
    if (a->n_whole) return "tool_use";
    return a->stop_reason ? "stop_sequence" : "end_turn";
}

static void enter(sq_api_call *c) { sq_http_add_header(c->req, "request-id", c->request_id); }

static void begin(sq_api_call *c) {
    sq_api_sse(c, "message_start",
               json_pack("{s:s, s:o}", "type", "message_start", "message", message(c, true)));
}

/* The three kinds of blocks, empty and as a delta. */
static json_t *empty_block(sq_calls_kind kind, const sq_api_use *u) {
    switch (kind) {
    case SQ_CALLS_TELL_THOUGHT:
        return json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", "");
    case SQ_CALLS_TELL_TEXT: return json_pack("{s:s, s:s}", "type", "text", "text", "");
    default: break;
    }
    return json_pack("{s:s, s:s+, s:s, s:{}}", "type", "tool_use", "id", "toolu_", u->id, "name", u->name,
                     "input");
}

static json_t *delta_of(const sq_calls_event *ev) {
    static const char *const names[][2] = {[SQ_CALLS_TELL_THOUGHT] = {"thinking_delta", "thinking"},
                                           [SQ_CALLS_TELL_TEXT] = {"text_delta", "text"},
                                           [SQ_CALLS_TELL_ARGUMENTS] = {"input_json_delta", "partial_json"}};
    return json_pack("{s:s, s:s%}", "type", names[ev->kind][0], names[ev->kind][1], ev->text, ev->bytes);
}

static void send_delta(sq_api_call *c, json_t *delta) {
    const messages_state *s = c->state;
    sq_api_sse(
        c, "content_block_delta",
        json_pack("{s:s, s:i, s:o}", "type", "content_block_delta", "index", s->index, "delta", delta));
}

static void close_block(sq_api_call *c) {
    messages_state *s = c->state;
    if (!s->open) return;
    if (s->kind == SQ_CALLS_TELL_THOUGHT)
        send_delta(c, json_pack("{s:s, s:s}", "type", "signature_delta", "signature", ""));
    sq_api_sse(c, "content_block_stop",
               json_pack("{s:s, s:i}", "type", "content_block_stop", "index", s->index));
    s->open = false;
    s->index++;
}

static void open_block(sq_api_call *c, sq_calls_kind kind) {
    messages_state *s = c->state;
    close_block(c);
    s->open = true;
    s->kind = kind;
    sq_api_sse(c, "content_block_start",
               json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", s->index, "content_block",
                         empty_block(kind, c->answers[0].last_use)));
    if (s->index == 0) sq_api_send(c, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

static void part(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev) {
    const messages_state *s = c->state;
    (void)a;
    if (ev->kind == SQ_CALLS_TELL_END) {
        close_block(c);
        return;
    }
    const sq_calls_kind kind = ev->kind == SQ_CALLS_TELL_ARGUMENTS ? SQ_CALLS_TELL_BEGIN : ev->kind;
    if (ev->kind == SQ_CALLS_TELL_BEGIN || !s->open || s->kind != kind) open_block(c, kind);
    if (ev->kind != SQ_CALLS_TELL_BEGIN) send_delta(c, delta_of(ev));
}

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    (void)c;
    (void)a;
    (void)ev; /* all that is said is in the parts */
}

static void put_blocks(sq_api_call *c, const sq_api_answer *a, json_t *list) {
    if (a->thought.len)
        sq_api_add(c, list,
                   json_pack("{s:s, s:s%, s:s}", "type", "thinking", "thinking", sq_api_text_of(&a->thought),
                             a->thought.len, "signature", ""));
    if (a->text.len || !a->uses)
        sq_api_add(c, list,
                   json_pack("{s:s, s:s%}", "type", "text", "text", sq_api_text_of(&a->text), a->text.len));
    for (const sq_api_use *u = a->uses; u; u = u->next) {
        json_t *block = empty_block(SQ_CALLS_TELL_BEGIN, u);
        json_t *input = json_loadb(sq_api_text_of(&u->arguments), u->arguments.len, 0, NULL);
        if (input) sq_api_put(c, block, "input", input);
        sq_api_add(c, list, block);
    }
}

static void finish(sq_api_call *c) {
    const sq_api_answer *a = &c->answers[0];
    if (!c->streaming) {
        c->result = message(c, false);
        put_blocks(c, a, json_object_get(c->result, "content"));
        sq_api_put(c, c->result, "stop_reason", json_string(stop_reason(a)));
        if (a->stop_reason) sq_api_put(c, c->result, "stop_sequence", json_string(a->stop_reason));
        return;
    }
    const messages_state *s = c->state;
    if (!s->open && s->index == 0) open_block(c, SQ_CALLS_TELL_TEXT); /* it said nothing */
    close_block(c);
    sq_api_sse(c, "message_delta",
               json_pack("{s:s, s:{s:s, s:s?}, s:o}", "type", "message_delta", "delta", "stop_reason",
                         stop_reason(a), "stop_sequence", a->stop_reason, "usage", usage(c, false)));
    sq_api_sse(c, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

static bool work_count(sq_api_call *c) {
    squish_tokens ids = {0};
    if (!sq_api_render(c, &ids)) return false;
    c->result = json_pack("{s:I}", "input_tokens", (json_int_t)ids.count);
    return true;
}

/* ---- routes ---------------------------------------------------------------------------------- */

const sq_api_dialect sq_api_messages = {.name = "anthropic-messages",
                                        .stream_type = "text/event-stream",
                                        .ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                                        .schemas = true,
                                        .enter = enter,
                                        .read = read_message,
                                        .begin = begin,
                                        .event = event,
                                        .part = part,
                                        .state_bytes = sizeof(messages_state),
                                        .finish = finish,
                                        .error = sq_api_error_anthropic,
                                        .status = anthropic_status,
                                        .fail = fail};
static const sq_api_dialect count = {.name = "anthropic-count",
                                     .schemas = true,
                                     .enter = enter,
                                     .read = read_counted,
                                     .work = work_count,
                                     .error = sq_api_error_anthropic,
                                     .status = anthropic_status};

static void post_messages(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_messages); }
static void post_count(void *user, sq_http_req *r) { sq_api_call_new(user, r, &count); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/v1/messages", SQ_HTTP_JSON, 0, post_messages},
    {SQ_HTTP_POST, "/v1/messages/count_tokens", SQ_HTTP_JSON, 0, post_count},
};
const sq_api_routes sq_api_routes_anthropic = {routes, SQ_COUNT(routes)};
