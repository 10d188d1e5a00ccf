/* SPDX-License-Identifier: Apache-2.0
 *
 * api_log.c - one JSON line per request.
 *
 * Who asked what and how it went: route, status, bytes, times, token counts. Never keys; prompts only where
 * the server was told to (--log-prompts). A line is one write, so that lines of processes do not mix. */
#include "api/api_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 64 << 20 };

squish_status sq_api_log_open(sq_api *api, squish_error *err) {
    const char *path = api->opt.log_path;
    if (path && !*path) return SQUISH_OK;
    if (!path) {
        api->log_fd = STDERR_FILENO;
        return SQUISH_OK;
    }
    api->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return api->log_fd >= 0 ? SQUISH_OK : sq_fail_errno(err, errno, "log %s", path);
}

void sq_api_log_close(sq_api *api) {
    if (api->log_fd > STDERR_FILENO) close(api->log_fd);
    api->log_fd = -1;
}

static const char *method_word(sq_http_method m) {
    switch (m) {
    case SQ_HTTP_GET: return "GET";
    case SQ_HTTP_POST: return "POST";
    case SQ_HTTP_DELETE: return "DELETE";
    case SQ_HTTP_HEAD: return "HEAD";
    case SQ_HTTP_OPTIONS: return "OPTIONS";
    case SQ_HTTP_PUT: return "PUT";
    }
    return "?";
}

/* Milliseconds with three digits behind the point, as far as a double can say it. */
static json_t *ms(double v) { return json_real((double)(int64_t)(v * 1e3 + 0.5) / 1e3); }

static void add_call(json_t *o, const sq_api *api, const sq_api_call *c) {
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    json_object_set_new(o, "kind", json_string(c->dialect->name));
    if (c->model_name) json_object_set_new(o, "model", json_string(c->model_name));
    if (c->error.status) {
        json_object_set_new(o, "error", json_string(c->error.code));
        json_object_set_new(o, "message", json_string(c->error.message));
    }
    if (c->n_answers == 0) return;
    json_object_set_new(o, "stream", json_boolean(c->wish.stream));
    json_object_set_new(o, "prompt_tokens", json_integer((json_int_t)t.prompt_tokens));
    json_object_set_new(o, "cached_tokens", json_integer((json_int_t)t.cached_tokens));
    if (t.behind_codes) json_object_set_new(o, "behind_codes", json_true());
    json_object_set_new(o, "completion_tokens", json_integer((json_int_t)t.completion_tokens));
    if (t.guessed_tokens) {
        json_object_set_new(o, "guessed_tokens", json_integer((json_int_t)t.guessed_tokens));
        json_object_set_new(o, "right_tokens", json_integer((json_int_t)t.right_tokens));
    }
    json_object_set_new(o, "queue_ms", ms(t.queue_ms));
    json_object_set_new(o, "prompt_ms", ms(t.prompt_ms));
    json_object_set_new(o, "predicted_ms", ms(t.predicted_ms));
    if (c->answers[0].ended) {
        const char *word = sq_api_finish_word(&c->answers[0]);
        json_object_set_new(o, "finish", json_string(c->error.status ? "error" : word));
    }
    if (api->opt.log_prompts) json_object_set_new(o, "request", json_incref(c->body));
}

void sq_api_log_request(sq_api *api, const sq_http_req *r, const char *route, int status, uint64_t bytes_out,
                        double seconds, const sq_api_call *c) {
    if (api->log_fd < 0) return;
    char stamp[32];
    struct tm tm;
    const time_t now = (time_t)sq_os_unix_time();
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:I, s:o}", "time", stamp, "id", sq_http_id(r),
                          "peer", sq_http_peer(r), "method", method_word(sq_http_method_of(r)), "route",
                          route, "status", status, "bytes", (json_int_t)bytes_out, "ms", ms(seconds * 1e3));
    if (o && c) add_call(o, api, c);
    sq_buf b;
    sq_buf_init(&b, &api->alloc, LINE_MAX_BYTES);
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (text && sq_buf_puts(&b, text) && sq_buf_putc(&b, '\n')) {
        const ssize_t n = write(api->log_fd, b.data, b.len);
        (void)n; /* a full disk or a closed terminal stops no answer */
    }
    free(text);
    sq_buf_deinit(&b);
    json_decref(o);
}
