/* SPDX-License-Identifier: Apache-2.0
 *
 * http_req.c - what a handler may ask of a request and do with its answer.
 *
 * evhttp frames answers (length or chunks) and keeps the connection or closes it. What it gets wrong is made
 * right here: a HEAD answer is given its length and no body, an HTTP/1.0 stream always ends with the
 * connection, and its reading, which every write switches on again, is switched off. */
#include "http/http_int.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- asking ---------------------------------------------------------------------------------- */

sq_http_method sq_http_method_of(const sq_http_req *r) { return (sq_http_method)r->method; }
const char *sq_http_path(const sq_http_req *r) { return r->path; }
const char *sq_http_rest(const sq_http_req *r) { return r->rest; }
const char *sq_http_peer(const sq_http_req *r) { return r->peer; }
uint64_t sq_http_client(const sq_http_req *r) { return r->client; }
bool sq_http_has_key(const sq_http_req *r) { return r->key_is_right; }
int sq_http_tag(const sq_http_req *r) { return r->tag; }
const char *sq_http_id(const sq_http_req *r) { return r->id; }
void *sq_http_user(const sq_http_req *r) { return r->user; }
void sq_http_set_user(sq_http_req *r, void *user) { r->user = user; }
const char *sq_http_body_file(const sq_http_req *r) { return r->body_path; }

const char *sq_http_query(const sq_http_req *r, const char *name) {
    for (size_t i = 0; i < r->n_queries; i++)
        if (strcmp(r->queries[i].name, name) == 0) return r->queries[i].value;
    return NULL;
}

const char *sq_http_header(const sq_http_req *r, const char *name) {
    for (size_t i = 0; i < r->n_fields; i++)
        if (strcasecmp(r->fields[i].name, name) == 0) return r->fields[i].value;
    return NULL;
}

sq_span sq_http_body(const sq_http_req *r) {
    return (sq_span){(const uint8_t *)(r->body.data ? r->body.data : ""), r->body.len};
}

void sq_http_on_gone(sq_http_req *r, void (*gone)(void *user, sq_http_req *r), void *user) {
    r->on_gone = gone;
    r->on_gone_user = user;
}

void sq_http_on_drained(sq_http_req *r, void (*drained)(void *user, sq_http_req *r), void *user) {
    r->on_drained = drained;
    r->on_drained_user = user;
}

/* ---- the end of a request -------------------------------------------------------------------- */

void sq_http_req_free(sq_http_req *r) {
    if (!r) return;
    sq_http *h = r->h;
    if (r->prev)
        r->prev->next = r->next;
    else
        h->reqs = r->next;
    if (r->next) r->next->prev = r->prev;
    h->n_reqs--;
    if (r->body_fd >= 0) {
        close(r->body_fd);
        unlink(r->body_path);
    }
    sq_alloc_free(&h->alloc, r->ping, r->ping ? strlen(r->ping) + 1 : 0);
    sq_buf_deinit(&r->body);
    sq_arena_deinit(&r->arena);
    sq_alloc_free(&h->alloc, r, sizeof *r);
}

void sq_http_req_done(sq_http_req *r) {
    sq_http *h = r->h;
    if (h->opt.done && r->path)
        h->opt.done(h->opt.user, r, r->route ? r->route->path : "", r->status, r->bytes_out,
                    (double)(sq_os_now_ns() - r->begun_ns) * 1e-9);
    sq_http_req_free(r);
}

/* A request whose client has left is ended. */
static void end_gone(sq_http_req *r) {
    struct evhttp_request *ev = r->ev;
    r->ev = NULL;
    if (ev) evhttp_request_free(ev);
    sq_http_req_done(r);
}

void sq_http_req_left(sq_http_req *r) {
    r->conn = NULL;
    r->gone = true;
    r->h->stats.gone++;
    if (r->phase == SQ_REQ_ENDED) {
        if (r->given_back) r->ev = NULL; /* it goes with the connection */
        end_gone(r);
        return;
    }
    if (r->on_gone) r->on_gone(r->on_gone_user, r);
}

/* ---- headers of the answer ------------------------------------------------------------------- */

const char *sq_http_reason(int status) {
    static const struct {
        int status;
        const char *text;
    } reasons[] = {{200, "OK"},
                   {201, "Created"},
                   {202, "Accepted"},
                   {204, "No Content"},
                   {206, "Partial Content"},
                   {301, "Moved Permanently"},
                   {302, "Found"},
                   {304, "Not Modified"},
                   {400, "Bad Request"},
                   {401, "Unauthorized"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {409, "Conflict"},
                   {413, "Content Too Large"},
                   {415, "Unsupported Media Type"},
                   {417, "Expectation Failed"},
                   {422, "Unprocessable Content"},
                   {429, "Too Many Requests"},
                   {431, "Request Header Fields Too Large"},
                   {499, "Client Closed Request"},
                   {500, "Internal Server Error"},
                   {501, "Method or Coding Unknown"},
                   {503, "Service Unavailable"},
                   {504, "Gateway Timeout"},
                   {505, "HTTP Version Not Supported"},
                   {507, "Insufficient Storage"},
                   {529, "Overloaded"}};
    for (size_t i = 0; i < SQ_COUNT(reasons); i++)
        if (reasons[i].status == status) return reasons[i].text;
    return status < 400 ? "OK" : "Error";
}

void sq_http_add_header(sq_http_req *r, const char *name, const char *value) {
    if (r->n_extra == SQ_HTTP_EXTRA_MAX || strpbrk(value, "\r\n")) return;
    sq_http_field f = {sq_arena_strndup(&r->arena, name, strlen(name)),
                       sq_arena_strndup(&r->arena, value, strlen(value))};
    if (f.name && f.value) r->extra[r->n_extra++] = f;
}

/* Headers every answer has, one after the other; false: no more. */
static bool common_header(const sq_http_req *r, int i, const char **name, const char **value) {
    const char *const origin = r->origin ? r->origin : "";
    const bool any = r->h->opt.n_origins == 1 && strcmp(r->h->opt.origins[0], "*") == 0;
    const sq_http_field all[] = {{"x-request-id", r->id},
                                 {"X-Content-Type-Options", "nosniff"},
                                 {"Access-Control-Allow-Origin", any ? "*" : origin},
                                 {"Access-Control-Expose-Headers", "x-request-id"},
                                 {"Vary", "Origin"}};
    if (i >= (r->origin ? 5 : 2)) return false;
    *name = all[i].name;
    *value = all[i].value;
    return true;
}

static void put_headers(sq_http_req *r, const char *content_type) {
    struct evkeyvalq *out = evhttp_request_get_output_headers(r->ev);
    const char *name, *value;
    for (int i = 0; common_header(r, i, &name, &value); i++) evhttp_add_header(out, name, value);
    for (size_t i = 0; i < r->n_extra; i++) evhttp_add_header(out, r->extra[i].name, r->extra[i].value);
    if (content_type) evhttp_add_header(out, "Content-Type", content_type);
    if (r->h->listening_ended) evhttp_add_header(out, "Connection", "close");
}

/* ---- whole answers --------------------------------------------------------------------------- */

static bool has_no_body(int status) { return status == 204 || status == 304 || status < 200; }

void sq_http_reply(sq_http_req *r, int status, const char *content_type, const void *body, size_t n) {
    if (r->phase != SQ_REQ_WAITING) return;
    r->phase = SQ_REQ_ENDED;
    r->status = status;
    if (r->gone || !r->ev) {
        end_gone(r);
        return;
    }
    const bool empty = has_no_body(status);
    put_headers(r, empty ? NULL : content_type ? content_type : "application/json");
    struct evbuffer *out = NULL;
    if (r->method == SQ_HTTP_HEAD && !empty) {
        char length[24];
        snprintf(length, sizeof length, "%zu", n);
        evhttp_add_header(evhttp_request_get_output_headers(r->ev), "Content-Length", length);
    } else if (!empty && n > 0) {
        out = evbuffer_new();
        if (!out ||
            evbuffer_add(out, body, n) != 0) { /* no memory to copy it: the connection says so by closing */
            if (out) evbuffer_free(out);
            sq_http_conn_drop_soon(r->conn);
            return;
        }
        r->bytes_out = n;
    }
    sq_http_conn *c = r->conn;
    r->given_back = true;
    evhttp_send_reply(r->ev, status, sq_http_reason(status), out);
    if (out) evbuffer_free(out);
    sq_http_conn_watch(c);
}

static void default_error_body(const char *code, const char *message, sq_buf *out) {
    json_t *o = json_pack("{s:{s:s,s:s}}", "error", "message", message, "code", code);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    if (text) sq_buf_puts(out, text);
    free(text);
    json_decref(o);
}

static const char *error_body(sq_http *h, const char *path, int status, const char *code, const char *message,
                              sq_buf *out) {
    const char *type = "application/json";
    sq_buf_init(out, &h->alloc, 1 << 16);
    if (h->opt.error_body)
        h->opt.error_body(h->opt.user, path, status, code, message, out, &type);
    else
        default_error_body(code, message, out);
    return type;
}

void sq_http_refuse(sq_http_req *r, int status, const char *code, const char *fmt, ...) {
    char message[480];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (has_no_body(status)) {
        sq_http_reply(r, status, NULL, NULL, 0);
        return;
    }
    sq_buf body;
    const char *type = error_body(r->h, r->path, status, code, message, &body);
    sq_http_reply(r, status, type, body.data, body.len);
    sq_buf_deinit(&body);
}

bool sq_http_refusal_text(sq_http *h, sq_http_req *r, const sq_gate *g, sq_buf *out) {
    const int status = r ? r->refused_status : g->status;
    sq_buf body = {0};
    const char *type = NULL;
    if (!has_no_body(status))
        type = error_body(h, r ? r->path : "", status, r ? r->refused_code : g->code,
                          r ? r->refused_text : g->message, &body);
    char date[64];
    evutil_date_rfc1123(date, sizeof date, NULL);
    sq_buf_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\nConnection: close\r\n", status, sq_http_reason(status),
                  date);
    if (type) sq_buf_printf(out, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, body.len);
    if (r) {
        const char *name, *value;
        for (int i = 0; common_header(r, i, &name, &value); i++)
            sq_buf_printf(out, "%s: %s\r\n", name, value);
        for (size_t i = 0; i < r->n_extra; i++)
            sq_buf_printf(out, "%s: %s\r\n", r->extra[i].name, r->extra[i].value);
    } else {
        sq_buf_printf(out, "x-request-id: req_%016llx\r\nX-Content-Type-Options: nosniff\r\n",
                      (unsigned long long)sq_splitmix64(&h->id_state));
    }
    sq_buf_puts(out, "\r\n");
    if (type && !(r && r->method == SQ_HTTP_HEAD)) sq_buf_append(out, body.data, body.len);
    if (type) sq_buf_deinit(&body);
    return !out->failed;
}

/* ---- answers in pieces ----------------------------------------------------------------------- */

void sq_http_begin(sq_http_req *r, int status, const char *content_type, const char *ping, double ping_s) {
    if (r->phase != SQ_REQ_WAITING) return;
    r->phase = SQ_REQ_STREAMING;
    r->status = status;
    if (r->gone || !r->ev) return;
    put_headers(r, content_type ? content_type : "application/json");
    if (r->minor == 0) { /* no chunks: the end of the connection is the end of the answer */
        evhttp_remove_header(evhttp_request_get_input_headers(r->ev), "Connection");
        evhttp_remove_header(evhttp_request_get_output_headers(r->ev), "Connection");
        evhttp_add_header(evhttp_request_get_output_headers(r->ev), "Connection", "close");
    }
    const size_t n = ping ? strlen(ping) + 1 : 0;
    r->ping = n ? sq_alloc_new(&r->h->alloc, n) : NULL; /* without memory it goes without pings */
    if (r->ping) memcpy(r->ping, ping, n);
    r->ping_ns = (uint64_t)(ping_s * 1e9);
    r->sent_ns = sq_os_now_ns();
    evhttp_send_reply_start(r->ev, status, sq_http_reason(status));
    sq_http_conn_watch(r->conn);
}

void sq_http_send(sq_http_req *r, const void *p, size_t n) {
    if (r->phase != SQ_REQ_STREAMING || r->gone || r->conn->must_drop || n == 0) return;
    struct evbuffer *piece = evbuffer_new();
    if (!piece || evbuffer_add(piece, p, n) != 0) {
        if (piece) evbuffer_free(piece);
        sq_http_conn_drop_soon(r->conn); /* an answer with a hole would be worse than none */
        return;
    }
    r->bytes_out += n;
    r->sent_ns = sq_os_now_ns();
    evhttp_send_reply_chunk(r->ev, piece);
    evbuffer_free(piece);
    sq_http_conn_watch(r->conn);
    if (sq_http_room(r) == 0) r->was_full = true;
}

size_t sq_http_room(const sq_http_req *r) {
    if (r->gone || !r->conn) return r->h->opt.output_max;
    const size_t waiting = evbuffer_get_length(bufferevent_get_output(r->conn->bev));
    return waiting < r->h->opt.output_max ? r->h->opt.output_max - waiting : 0;
}

void sq_http_end(sq_http_req *r) {
    if (r->phase != SQ_REQ_STREAMING) return;
    r->phase = SQ_REQ_ENDED;
    if (r->gone || !r->ev) {
        end_gone(r);
        return;
    }
    sq_http_conn_watch(r->conn);
    /* Where nothing waits to be written evhttp is done at once, and r is no more. */
    const bool at_once = r->minor == 0 || r->method == SQ_HTTP_HEAD || has_no_body(r->status);
    sq_http_conn *c = r->conn;
    r->given_back = true;
    evhttp_send_reply_end(r->ev);
    if (!at_once) sq_http_conn_watch(c);
}

void sq_http_req_tick(sq_http_req *r, uint64_t now_ns) {
    if (r->phase != SQ_REQ_STREAMING || !r->ping || now_ns < r->sent_ns + r->ping_ns) return;
    if (evbuffer_get_length(bufferevent_get_output(r->conn->bev)) > 0) return; /* he has enough to read */
    sq_http_send(r, r->ping, strlen(r->ping));
}
