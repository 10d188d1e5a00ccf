/* SPDX-License-Identifier: Apache-2.0
 *
 * api_emit.c - JSON on its way out, stream frames, and errors in the form that a path's clients read.
 *
 * Everything leaves through sq_api_dump: compact, and with 17 significant digits, so that a f32 that was
 * widened to double comes back bit by bit. lm-evaluation-harness compares such numbers for equality. */
#include "api/api_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OUT_MAX = 1 << 30 }; /* bytes of one answer: 2,048 prompts with alternatives for every token */

/* ---- errors ---------------------------------------------------------------------------------- */

bool sq_api_refuse(sq_api_error *e, int status, const char *code, const char *param, const char *fmt, ...) {
    if (e->status) return false;
    e->status = status;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    /* A message that was cut must not end inside a character. */
    const size_t n = strlen(e->message);
    e->message[n - sq_utf8_pending(e->message, n)] = 0;
    return false;
}

bool sq_api_refuse_lib(sq_api_error *e, const squish_error *err) {
    static const struct {
        squish_status code;
        int status;
        const char *word;
        int retry_after_s;
    } rows[] = {
        {SQUISH_INVALID, 400, "invalid_value", 0},     {SQUISH_UNSUPPORTED, 400, "unsupported", 0},
        {SQUISH_NOT_FOUND, 404, "model_not_found", 0}, {SQUISH_NO_MEMORY, 503, "insufficient_memory", 5},
        {SQUISH_BUSY, 503, "queue_full", 1},           {SQUISH_TIMEOUT, 408, "timeout", 0},
        {SQUISH_CANCELLED, 409, "cancelled", 0},       {SQUISH_NUMERIC, 500, "numerical_error", 0},
        {SQUISH_CORRUPT, 500, "model_damaged", 0},     {SQUISH_QUALITY, 500, "model_collapsed", 0},
    };
    if (e->status) return false;
    int status = 500, retry = 0;
    const char *word = "internal_error";
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (rows[i].code == err->code)
            status = rows[i].status, word = rows[i].word, retry = rows[i].retry_after_s;
    static const char too_long[] = "context_length_exceeded";
    if (strncmp(err->text, too_long, sizeof too_long - 1) == 0) word = too_long;
    sq_api_refuse(e, status, word, "", "%s", err->text[0] ? err->text : squish_status_text(err->code));
    e->retry_after_s = retry;
    return false;
}

const char *sq_api_error_type(int status) {
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    default: return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

void sq_api_error_openai(const sq_api_error *e, const char *request_id, sq_buf *out) {
    (void)request_id; /* it is in a header */
    json_t *inner =
        json_pack("{s:s, s:s, s:s?, s:s?}", "message", e->message, "type", sq_api_error_type(e->status),
                  "param", e->param[0] ? e->param : NULL, "code", e->code);
    if (inner && e->n_ctx) {
        json_object_set_new(inner, "n_prompt", json_integer(e->n_prompt));
        json_object_set_new(inner, "n_ctx", json_integer(e->n_ctx));
    }
    sq_api_dump(json_pack("{s:o}", "error", inner), out);
}

sq_api_error_fn sq_api_error_form(const char *path) {
    static const struct {
        const char *prefix;
        sq_api_error_fn form;
    } forms[] = {
        {"/v1/messages", sq_api_error_anthropic},
        {"/v1/", sq_api_error_openai},
        {"/api/", sq_api_error_ollama},
    };
    for (size_t i = 0; i < SQ_COUNT(forms); i++)
        if (strncmp(path, forms[i].prefix, strlen(forms[i].prefix)) == 0) return forms[i].form;
    return sq_api_error_openai;
}

void sq_api_reply_error(sq_http_req *r, const sq_api_error *e) {
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 16);
    sq_api_error_form(sq_http_path(r))(e, sq_http_id(r), &b);
    if (e->retry_after_s) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", e->retry_after_s);
        sq_http_add_header(r, "Retry-After", seconds);
    }
    sq_http_reply(r, e->status, NULL, b.data ? b.data : "{}", b.data ? b.len : 2);
    sq_buf_deinit(&b);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static int append(const char *p, size_t n, void *user) { return sq_buf_append(user, p, n) ? 0 : -1; }

bool sq_api_dump(json_t *o, sq_buf *out) {
    const bool ok = o && json_dump_callback(o, append, out, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0;
    json_decref(o);
    return ok;
}

void sq_api_reply_json(sq_http_req *r, int status, json_t *o) {
    sq_buf b;
    sq_buf_init(&b, NULL, OUT_MAX);
    if (sq_api_dump(o, &b))
        sq_http_reply(r, status, NULL, b.data, b.len);
    else
        sq_http_refuse(r, 500, "out_of_memory", "the answer found no memory");
    sq_buf_deinit(&b);
}

/* A frame is one send: what lies around the JSON leaves in the same packet. */
static void frame(sq_api_call *c, const char *event, const char *before, json_t *o, const char *after) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, OUT_MAX);
    if (event) sq_buf_printf(&b, "event: %s\n", event);
    sq_buf_puts(&b, before);
    const bool ok = sq_api_dump(o, &b) && sq_buf_puts(&b, after);
    if (ok)
        sq_http_send(c->req, b.data, b.len);
    else
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
    sq_buf_deinit(&b);
}

void sq_api_sse(sq_api_call *c, const char *event, json_t *o) { frame(c, event, "data: ", o, "\n\n"); }
void sq_api_ndjson(sq_api_call *c, json_t *o) { frame(c, NULL, "", o, "\n"); }
void sq_api_send(sq_api_call *c, const char *text) { sq_http_send(c->req, text, strlen(text)); }

void sq_api_put(sq_api_call *c, json_t *o, const char *key, json_t *v) {
    if (json_object_set_new(o, key, v) != 0)
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

void sq_api_add(sq_api_call *c, json_t *array, json_t *v) {
    if (json_array_append_new(array, v) != 0)
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

double sq_api_logprob(float lp) { return isfinite(lp) ? (double)lp : -9999.0; }

void sq_api_base62(char *out, size_t n_chars) {
    static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint64_t word = sq_os_now_ns();
    for (size_t i = 0; i < n_chars; i++) {
        if (i % 10 == 0) sq_os_random(&word, sizeof word);
        out[i] = letters[word % 62];
        word /= 62;
    }
    out[n_chars] = 0;
}

json_t *sq_api_token_text(const squish_model *m, int32_t id) {
    const char *bytes = "";
    size_t n = 0;
    squish_token_bytes(m, id, &bytes, &n);
    if (sq_utf8_valid(bytes, n)) return json_stringn(bytes, n);
    /* Two tokens that are parts of characters would both read U+FFFD, and collide as keys. */
    char name[8 + 4 * 64 + 1] = "bytes:";
    size_t at = strlen(name);
    for (size_t i = 0; i < n && i < 64; i++, at += 4)
        snprintf(name + at, sizeof name - at, "\\x%02X", (unsigned char)bytes[i]);
    return json_string(name);
}
