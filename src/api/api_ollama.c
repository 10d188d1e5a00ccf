/* SPDX-License-Identifier: Apache-2.0
 *
 * api_ollama.c - POST /api/chat and /api/generate, and what all of Ollama's routes share.
 *
 * An answer is lines of JSON, one for each piece of text, of thought, each call of a tool, and a last one
 * with done:true, the reason, and durations in nanoseconds; "stream": false gives the last line alone, with
 * all of the text. Lines say when they were made. Nothing said: load the model, or let it go (keep_alive 0).
 * What Ollama does and we do not: cut a prompt to fit, and load a model again because num_ctx differs;
 * num_ctx here only makes the window of this request smaller.
 *
 * c->result is the reply in the making; in a stream, an array whose only element is the log-probabilities
 * that wait. */
#include "api/api_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    bool chat, raw, logprobs, unload, stays;
    int think; /* -1: not said */
    const char *system;
    int32_t *ids; /* generated, for `context` */
    size_t n_ids, cap;
    json_t *waiting; /* log-probabilities of tokens whose text is still held; borrowed from c->result */
} ollama_state;

/* ---- errors and time ------------------------------------------------------------------------- */

void sq_api_error_ollama(const sq_api_error *e, const char *request_id, sq_buf *out) {
    (void)request_id; /* it is in a header */
    char text[600];
    /* Their clients look for "not found" to tell a wrong name from a failure. */
    const bool absent = strcmp(e->code, "model_not_found") == 0;
    snprintf(text, sizeof text, "%s%s", absent ? "model not found: " : "", e->message);
    sq_api_dump(json_pack("{s:s}", "error", text), out);
}

void sq_api_ollama_fail(sq_api_call *c, const sq_api_error *e) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, 1 << 16);
    sq_api_error_ollama(e, c->request_id, &b);
    if (sq_buf_putc(&b, '\n')) sq_http_send(c->req, b.data, b.len);
    sq_buf_deinit(&b);
}

void sq_api_stamp(uint64_t unix_ns, char out[SQ_API_STAMP]) {
    const time_t s = (time_t)(unix_ns / 1000000000u);
    struct tm t;
    char second[32] = "";
    gmtime_r(&s, &t);
    strftime(second, sizeof second, "%Y-%m-%dT%H:%M:%S", &t);
    snprintf(out, SQ_API_STAMP, "%.19s.%09uZ", second, (unsigned)(unix_ns % 1000000000u));
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* The digits and at most one point at s; bytes read, 0: no number. */
static size_t read_number(const char *s, double *v) {
    size_t n = 0;
    double scale = 1;
    bool point = false, digit = false;
    *v = 0;
    for (; (s[n] >= '0' && s[n] <= '9') || (s[n] == '.' && !point); n++) {
        if (s[n] == '.') {
            point = true;
            continue;
        }
        digit = true;
        if (point) scale /= 10;
        *v = point ? *v + scale * (s[n] - '0') : *v * 10 + (s[n] - '0');
    }
    return digit ? n : 0;
}

/* Bytes of the unit at s, 0: none. */
static size_t read_unit(const char *s, double *seconds) {
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"\xC2\xB5s", 1e-6}, {"ms", 1e-3},
                 {"s", 1},     {"m", 60},    {"h", 3600}};
    for (size_t i = 0; i < SQ_COUNT(units); i++) {
        const size_t n = strlen(units[i].name);
        if (strncmp(s, units[i].name, n) == 0) {
            *seconds = units[i].seconds;
            return n;
        }
    }
    return 0;
}

bool sq_api_duration(const char *s, double *seconds) {
    const bool negative = *s == '-';
    double total = 0, v, unit;
    if (*s == '-' || *s == '+') s++;
    for (const char *start = s;;) {
        const size_t n = read_number(s, &v);
        if (n == 0) return false;
        const size_t u = read_unit(s + n, &unit);
        if (u == 0 && (s != start || s[n])) return false; /* a number alone is seconds */
        total += v * (u ? unit : 1);
        s += n + u;
        if (!*s) break;
    }
    if (!(total < 1e15)) return false;
    *seconds = negative ? -total : total;
    return true;
}

static bool read_keep_alive(sq_api_call *c, const json_t *body) {
    const json_t *v = json_object_get(body, "keep_alive");
    double s = 0;
    if (!v || json_is_null(v)) return true;
    const bool ok = json_is_number(v) ? fabs(s = json_number_value(v)) < 1e15
                                      : json_is_string(v) && sq_api_duration(json_string_value(v), &s);
    if (!ok)
        return sq_api_refuse(&c->error, 400, "invalid_value", "keep_alive",
                             "'keep_alive' is neither seconds nor a duration like \"10m\" or \"-1\"");
    c->wish.keep_alive_set = true;
    c->wish.keep_alive_s = s < 0 ? -1 : s;
    return true;
}

bool sq_api_ollama_head(sq_api_call *c, const json_t *body) {
    const char *model = NULL;
    if (!sq_api_get_text(&c->error, body, "", "name", &model) ||
        !sq_api_get_text(&c->error, body, "", "model", &model))
        return false;
    if (!model || !*model)
        return sq_api_refuse(&c->error, 400, "missing_required_parameter", "model", "'model' is missing");
    c->wish.model = model;
    c->wish.stream = true;
    return sq_api_get_bool(&c->error, body, "", "stream", &c->wish.stream) && read_keep_alive(c, body);
}

/* num_batch, num_gpu, main_gpu, use_mmap, num_thread, num_keep, mirostat*, penalize_newline and tfs_z are
 * read by nobody: they say how to run, not what to answer, or belong to samplers that Ollama has dropped
 * itself. */
bool sq_api_ollama_options(sq_api_call *c, const json_t *o, const char *path) {
    static const struct {
        const char *name;
        sq_api_field field;
    } rows[] = {{"temperature", SQ_API_TEMPERATURE},
                {"top_k", SQ_API_TOP_K},
                {"top_p", SQ_API_TOP_P},
                {"min_p", SQ_API_MIN_P},
                {"typical_p", SQ_API_TYPICAL_P},
                {"repeat_penalty", SQ_API_REPETITION_PENALTY},
                {"repeat_last_n", SQ_API_REPEAT_LAST_N},
                {"presence_penalty", SQ_API_PRESENCE_PENALTY},
                {"frequency_penalty", SQ_API_FREQUENCY_PENALTY},
                {"seed", SQ_API_SEED}};
    if (!o || json_is_null(o)) return true;
    if (!json_is_object(o)) {
        return sq_api_refuse(&c->error, 400, "invalid_type", "options", "'%.*s' is no object",
                             (int)strcspn(path, "."), path);
    }
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (!sq_api_get_field(c, o, path, rows[i].name, rows[i].field)) return false;
    int64_t predict = -1, ctx = 0;
    if (!sq_api_get_int(&c->error, o, path, "num_predict", -2, 1 << 24, &predict) ||
        !sq_api_get_int(&c->error, o, path, "num_ctx", 0, INT32_MAX, &ctx) ||
        !sq_api_get_stops(c, o, path, "stop") || !sq_api_get_spec(c, o, path))
        return false;
    if (json_is_number(json_object_get(o, "num_predict"))) {
        c->wish.gen.max_tokens =
            predict < 0 ? -1 : (int32_t)predict; /* -2, fill the context, is what -1 does */
        c->wish.set |= 1u << SQ_API_MAX_TOKENS;
    }
    if (ctx > 0) c->wish.ctx_max = (int32_t)ctx;
    return true;
}

static void ollama_sampling(squish_sampling *s) {
    s->temperature = 0.8f;
    s->top_k = 40;
    s->top_p = 0.9f;
    s->repetition_penalty = 1.1f;
    s->repeat_last_n = 64;
}

static bool read_think(sq_api_call *c, const json_t *body) {
    ollama_state *s = c->state;
    const json_t *v = json_object_get(body, "think");
    s->think = -1;
    if (!v || json_is_null(v)) return true;
    if (!json_is_boolean(v) && !json_is_string(v))
        return sq_api_refuse(&c->error, 400, "invalid_type", "think",
                             "'think' is neither true nor false nor a level");
    s->think = json_is_true(v) || json_is_string(v);
    const char *level = json_string_value(v);
    return level ? sq_api_set_effort(c, level) : sq_api_set_thinking(c, s->think);
}

static bool read_logprobs(sq_api_call *c, const json_t *body) {
    ollama_state *s = c->state;
    int64_t top = 0;
    if (!sq_api_get_bool(&c->error, body, "", "logprobs", &s->logprobs) ||
        !sq_api_get_int(&c->error, body, "", "top_logprobs", 0, 20, &top))
        return false;
    c->wish.gen.logprobs = s->logprobs ? (int32_t)top : -1;
    return true;
}

static bool read_common(sq_api_call *c, const json_t *body) {
    return sq_api_ollama_head(c, body) && sq_api_get_ollama_format(c, body) && read_think(c, body) &&
           read_logprobs(c, body) && sq_api_ollama_options(c, json_object_get(body, "options"), "options.");
}

/* Nothing is said: the model is loaded, or let go. */
static bool load_or_unload(sq_api_call *c) {
    ollama_state *s = c->state;
    c->wish.load_only = true;
    s->unload = c->wish.keep_alive_set && c->wish.keep_alive_s == 0;
    return true;
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool refuse_images(sq_api_call *c, const json_t *o, const char *at) {
    char where[96];
    const json_t *v = json_object_get(o, "images");
    if (!v || json_is_null(v) || (json_is_array(v) && json_array_size(v) == 0)) return true;
    snprintf(where, sizeof where, "%simages", at);
    return sq_api_refuse(&c->error, 400, "unsupported_parameter", where, "'%s': this model reads text only",
                         where);
}

static bool read_chat(sq_api_call *c, json_t *body) {
    ollama_state *s = c->state;
    const json_t *list = json_object_get(body, "messages");
    s->chat = true;
    if (!read_common(c, body) || !sq_api_get_tools(c, body, true, "parameters") ||
        !sq_api_get_tool_choice(c, body))
        return false;
    if (!list || json_is_null(list) || (json_is_array(list) && json_array_size(list) == 0))
        return load_or_unload(c);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char at[48];
        snprintf(at, sizeof at, "messages[%zu].", i);
        if (!refuse_images(c, json_array_get(list, i), at)) return false;
    }
    if (!sq_api_read_messages(c, list, "messages", &c->wish.messages)) return false;
    const json_t *last = json_array_get(c->wish.messages, json_array_size(c->wish.messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    /* An answer that was begun goes on, as Ollama has it. */
    c->wish.continue_final = role && strcmp(role, "assistant") == 0 && !json_object_get(last, "tool_calls");
    return true;
}

static bool read_context(sq_api_call *c, const json_t *body) {
    const json_t *v = json_object_get(body, "context");
    const size_t n = json_array_size(v);
    if (!v || json_is_null(v) || (json_is_array(v) && n == 0)) return true;
    if (!json_is_array(v))
        return sq_api_refuse(&c->error, 400, "invalid_type", "context", "'context' is no array of token ids");
    int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, n);
    if (!ids)
        return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(v, i);
        const json_int_t x = json_is_integer(id) ? json_integer_value(id) : -1;
        if (x < 0 || x > INT32_MAX)
            return sq_api_refuse(&c->error, 400, "invalid_value", "context", "'context[%zu]' is no token id",
                                 i);
        ids[i] = (int32_t)x;
    }
    c->wish.before = ids;
    c->wish.n_before = n;
    return true;
}

static bool take_text(sq_api_call *c, const json_t *prompt) {
    sq_api_input *in = SQ_ARENA_NEW(&c->arena, sq_api_input);
    if (!in) return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    *in = (sq_api_input){.text = json_string_value(prompt), .bytes = json_string_length(prompt)};
    c->wish.inputs = in;
    c->wish.n_inputs = 1;
    c->wish.token_flags = SQUISH_TOK_SPECIAL | SQUISH_TOK_BOS_EOS;
    return true;
}

static bool take_messages(sq_api_call *c, const json_t *prompt) {
    const ollama_state *s = c->state;
    json_t *user = json_pack("{s:s, s:O}", "role", "user", "content", prompt);
    c->wish.messages = s->system ? json_pack("[{s:s, s:s}, o]", "role", "system", "content", s->system, user)
                                 : json_pack("[o]", user);
    return c->wish.messages ||
           sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
}

static bool refuse_raw(sq_api_call *c) {
    const ollama_state *s = c->state;
    if (!s->raw || (!s->system && !c->wish.template_source && !c->wish.n_before)) return true;
    return sq_api_refuse(&c->error, 400, "invalid_value", "raw",
                         "'raw' does not go with 'system', 'template' or 'context'");
}

static bool read_generate(sq_api_call *c, json_t *body) {
    ollama_state *s = c->state;
    const char *prompt = "", *source = NULL;
    if (!read_common(c, body) || !refuse_images(c, body, "") ||
        !sq_api_get_text(&c->error, body, "", "prompt", &prompt) ||
        !sq_api_get_text(&c->error, body, "", "suffix", &c->wish.suffix) ||
        !sq_api_get_text(&c->error, body, "", "system", &s->system) ||
        !sq_api_get_text(&c->error, body, "", "template", &source) ||
        !sq_api_get_bool(&c->error, body, "", "raw", &s->raw) || !read_context(c, body))
        return false;
    if (s->system && !*s->system) s->system = NULL;
    if (source && *source) c->wish.template_source = source;
    if (c->wish.suffix && !*c->wish.suffix) c->wish.suffix = NULL;
    if (!refuse_raw(c)) return false;
    if (!*prompt && !c->wish.suffix) return load_or_unload(c);
    const json_t *text = json_object_get(body, "prompt");
    return s->raw || c->wish.suffix ? take_text(c, text) : take_messages(c, text);
}

/* ---- with the model -------------------------------------------------------------------------- */

/* Loop thread. A model that is not there need not be loaded to be let go. */
static bool look(sq_api_call *c) {
    ollama_state *s = c->state;
    if (!s->unload) return true;
    sq_api_model *m = c->wish.model ? sq_api_model_find(c->api, c->wish.model) : NULL;
    s->stays = m && m->pinned;
    c->wish.no_model = true;
    if (!m || m->state != SQ_API_READY) return true;
    sq_api_model_keep(m, 0);
    sq_api_models_tick(c->api);
    return true;
}

static bool check(sq_api_call *c) {
    const ollama_state *s = c->state;
    const char *source = squish_model_template(c->model->model);
    sq_calls_manner m;
    sq_calls_detect(c->wish.template_source ? c->wish.template_source : source, &m);
    if (s->think == 1 && !m.think_open && m.style != SQ_CALLS_HARMONY)
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", "think",
                             "\"%s\" does not support thinking", c->model_name);
    /* A model without a template continues what it is given, as with Ollama's "{{ .Prompt }}". */
    if (s->chat || s->raw || source || c->wish.template_source || !c->wish.messages) return true;
    if (s->system || c->wish.n_before)
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", s->system ? "system" : "context",
                             "'%s': %s has no chat template", s->system ? "system" : "context",
                             c->model->name);
    json_decref(c->wish.messages);
    c->wish.messages = NULL;
    return take_text(c, json_object_get(c->body, "prompt"));
}

/* ---- going out ------------------------------------------------------------------------------- */

static json_t *line(sq_api_call *c, const char *text, size_t n, bool done) {
    const ollama_state *s = c->state;
    char stamp[SQ_API_STAMP];
    sq_api_stamp(sq_os_unix_ns(), stamp);
    const char *model = c->model_name ? c->model_name : c->wish.model;
    if (s->chat)
        return json_pack("{s:s, s:s, s:{s:s, s:s%}, s:b}", "model", model, "created_at", stamp, "message",
                         "role", "assistant", "content", text, n, "done", done);
    return json_pack("{s:s, s:s, s:s%, s:b}", "model", model, "created_at", stamp, "response", text, n,
                     "done", done);
}

static void put_logprobs(sq_api_call *c, json_t *o) {
    ollama_state *s = c->state;
    if (!s->logprobs || json_array_size(s->waiting) == 0) return;
    sq_api_put(c, o, "logprobs", json_incref(s->waiting));
    sq_api_put(c, c->result, "waiting", json_array());
    s->waiting = json_object_get(c->result, "waiting");
}

/* Thoughts and calls stand in the message of a chat, thoughts of generate in the line itself. */
static json_t *place_of(const sq_api_call *c, json_t *o) {
    const ollama_state *s = c->state;
    return s->chat ? json_object_get(o, "message") : o;
}

/* Arguments are an object here, not text. */
static json_t *call_record(const sq_api_use *u) {
    json_t *arguments = json_loadb(sq_api_text_of(&u->arguments), u->arguments.len, 0, NULL);
    return json_pack("{s:s+, s:{s:i, s:s, s:o}}", "id", "call_", u->id, "function", "index", u->index, "name",
                     u->name, "arguments", arguments ? arguments : json_object());
}

static void part(sq_api_call *c, sq_api_answer *a, const sq_calls_event *ev) {
    if (ev->kind == SQ_CALLS_TELL_BEGIN || ev->kind == SQ_CALLS_TELL_ARGUMENTS) return; /* whole calls only */
    const bool text = ev->kind == SQ_CALLS_TELL_TEXT;
    json_t *o = line(c, ev->text, text ? ev->bytes : 0, false);
    if (ev->kind == SQ_CALLS_TELL_THOUGHT)
        sq_api_put(c, place_of(c, o), "thinking", json_stringn(ev->text, ev->bytes));
    else if (!text)
        sq_api_put(c, place_of(c, o), "tool_calls", json_pack("[o]", call_record(a->last_use)));
    put_logprobs(c, o);
    sq_api_ndjson(c, o);
}

static bool keep_id(sq_api_call *c, int32_t id) {
    ollama_state *s = c->state;
    if (s->n_ids == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 256;
        int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, cap);
        if (!ids) return sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
        if (s->n_ids) memcpy(ids, s->ids, s->n_ids * sizeof *ids);
        s->ids = ids;
        s->cap = cap;
    }
    s->ids[s->n_ids++] = id;
    return true;
}

static void event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    ollama_state *s = c->state;
    (void)a;
    if (s->logprobs && !c->result) {
        c->result = json_pack("{s:[]}", "waiting");
        s->waiting = json_object_get(c->result, "waiting");
    }
    if (ev->kind == SQUISH_JOB_TOKEN) {
        if (!s->chat && !s->raw && !keep_id(c, ev->id)) return;
        if (s->logprobs) sq_api_add_token(c, s->waiting, ev);
    }
}

static json_t *context_of(sq_api_call *c) {
    const ollama_state *s = c->state;
    const sq_api_prompt *p = &c->prompts[0];
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++) sq_api_add(c, list, json_integer(p->ids[i]));
    for (size_t i = 0; i < s->n_ids; i++) sq_api_add(c, list, json_integer(s->ids[i]));
    return list;
}

static json_t *ns(double ms) { return json_integer((json_int_t)(ms * 1e6)); }

static void put_durations(sq_api_call *c, json_t *o) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    sq_api_put(c, o, "total_duration", ns(c->load_ms + t.queue_ms + t.prompt_ms + t.predicted_ms));
    sq_api_put(c, o, "load_duration", ns(c->load_ms));
    sq_api_put(c, o, "prompt_eval_count", json_integer((json_int_t)t.prompt_tokens));
    sq_api_put(c, o, "prompt_eval_duration", ns(t.prompt_ms));
    sq_api_put(c, o, "eval_count", json_integer((json_int_t)t.completion_tokens));
    sq_api_put(c, o, "eval_duration", ns(t.predicted_ms));
}

static const char *done_reason(const sq_api_call *c) {
    const ollama_state *s = c->state;
    if (c->n_answers) return c->answers[0].finish == SQUISH_FINISH_LENGTH ? "length" : "stop";
    return s->unload && !s->stays ? "unload"
                                  : "load"; /* one of the command line stays, whoever says otherwise */
}

static void put_parts(sq_api_call *c, const sq_api_answer *a, json_t *o) {
    if (a->thought.len)
        sq_api_put(c, o, "thinking", json_stringn(sq_api_text_of(&a->thought), a->thought.len));
    if (!a->uses) return;
    json_t *calls = json_array();
    for (const sq_api_use *u = a->uses; u; u = u->next) sq_api_add(c, calls, call_record(u));
    sq_api_put(c, o, "tool_calls", calls);
}

static void finish(sq_api_call *c) {
    const ollama_state *s = c->state;
    const sq_api_answer *a = c->n_answers ? &c->answers[0] : NULL;
    const bool whole = a && !c->streaming && a->text.data;
    json_t *o = line(c, whole ? a->text.data : "", whole ? a->text.len : 0, true);
    sq_api_put(c, o, "done_reason", json_string(done_reason(c)));
    if (a) sq_api_put_verdict(c, a, o);
    if (a && !c->streaming) put_parts(c, a, place_of(c, o));
    if (a) {
        put_logprobs(c, o);
        if (!s->chat && !s->raw) sq_api_put(c, o, "context", context_of(c));
        put_durations(c, o);
    }
    if (c->streaming) {
        sq_api_ndjson(c, o);
        return;
    }
    json_decref(c->result);
    c->result = o;
}

#define OLLAMA(word, read_fn)                                                                                \
    {                                                                                                        \
        .name = word, .stream_type = "application/x-ndjson", .state_bytes = sizeof(ollama_state),            \
        .sampling = ollama_sampling, .elements_max = SQ_API_JSON_IDS, .schemas = true, .read = read_fn,      \
        .look = look, .check = check, .event = event, .part = part, .whole_calls = true, .finish = finish,   \
        .error = sq_api_error_ollama, .fail = sq_api_ollama_fail                                             \
    }
const sq_api_dialect sq_api_ollama_chat = OLLAMA("ollama-chat", read_chat);
const sq_api_dialect sq_api_ollama_generate = OLLAMA("ollama-generate", read_generate);

static void post_chat(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_ollama_chat); }
static void post_generate(void *user, sq_http_req *r) { sq_api_call_new(user, r, &sq_api_ollama_generate); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/api/chat", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_chat},
    {SQ_HTTP_POST, "/api/generate", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_generate},
};
const sq_api_routes sq_api_routes_ollama = {routes, SQ_COUNT(routes)};
