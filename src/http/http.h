/* SPDX-License-Identifier: Apache-2.0
 *
 * http.h - an HTTP/1.1 server for APIs: libevent's evhttp, with a strict gate in front of it.
 *
 * The room knows nothing about language models. It owns connections, limits, routing by method and path,
 * bodies, streams, and the rules that keep web pages and strangers out; what a request means is its handler's
 * business.
 *
 *   bytes -> gate -> rules (Host, Origin, key, route, media type) -> body -> evhttp -> handler -> answer
 *
 * The gate reads the connection; evhttp, which frames answers and keeps or closes connections, is given a
 * head of the gate's own making (method, target, version, Connection) and never sees a byte of the client's.
 *
 * Threads. One *loop* thread runs sq_http_run, every handler, every callback and every function on a request.
 * Other threads reach it by sq_http_post. Long work (parsing, rendering, opening models) goes to the room's
 * few workers by sq_http_work and comes back on the loop thread. So handlers need no locks, and must not
 * block.
 *
 * Gate, before anything is parsed by others (RFC 9112; each refusal closes the connection with one status):
 * request line and headers within 16 kB and 100 fields, all of it within 10 s; a known method in capitals; a
 * target of visible ASCII that begins with '/' (or '*' for OPTIONS); HTTP/1.0 or 1.1; lines end in CRLF; no
 * folded lines; field names are tokens without space before the colon; no control bytes in values; exactly
 * one Host (1.1); at most one Content-Length, digits only; Transfer-Encoding only "chunked", never together
 * with a length; chunk sizes in plain hex without extensions; body within its limit (413) and moving (60 s).
 * Requests on one connection one after the other: bytes behind a request wait in the kernel until it is
 * answered. */
#ifndef SQ_HTTP_H
#define SQ_HTTP_H

#include "base/base.h"

typedef struct sq_http sq_http;
typedef struct sq_http_req sq_http_req;

typedef enum {
    SQ_HTTP_GET = 1,
    SQ_HTTP_POST = 2,
    SQ_HTTP_DELETE = 4,
    SQ_HTTP_HEAD = 8,
    SQ_HTTP_OPTIONS = 16,
    SQ_HTTP_PUT = 32
} sq_http_method;

/* ---- routes ---------------------------------------------------------------------------------- */

enum {
    SQ_HTTP_OPEN = 1,    /* answers without a key */
    SQ_HTTP_JSON = 2,    /* a body must say application/json (415); without a body it need not */
    /* with JSON: who is no web page (neither Origin nor Sec-Fetch-Site) need not say so, as some do not */
    SQ_HTTP_JSON_LOOSE = 8,
    SQ_HTTP_RAW_BODY = 4 /* body of any type, up to body_max of the route; written to a file beyond 1 MiB */
};
typedef struct {
    unsigned methods; /* HEAD is answered as GET without a body wherever GET is there */
    const char *path; /* "/v1/models", or with a last segment that takes the rest: "/v1/models/" + '*' */
    unsigned flags;
    uint64_t body_max; /* 0: the server's */
    void (*handler)(void *user, sq_http_req *r);
} sq_http_route;

/* ---- the server ------------------------------------------------------------------------------ */

typedef struct {
    const squish_alloc *alloc;   /* NULL: malloc */
    const sq_http_route *routes; /* [n_routes], stay valid */
    size_t n_routes;
    void *user;                      /* of handlers */
    uint64_t body_max;               /* default 32 MiB */
    uint32_t header_bytes_max;       /* default 16 kB */
    int32_t connections_max;         /* default 12000; further ones wait in the kernel */
    int32_t connections_per_address; /* default 1024; loopback is exempt; further ones get 503 and a close */
    double header_s, body_s, idle_s; /* default 10, 60, 75 */
    size_t output_max;               /* default 256 kB: sq_http_room is 0 beyond */
    double stalled_s;                /* default 60: a reader who takes nothing that long is cut off */
    int32_t workers;                 /* default 1 */
    const char *spool_dir;           /* where large RAW_BODYs are kept; NULL: /tmp */
    const char *const *hosts;        /* names beside loopback that Host may have; a server bound to loopback
                                        only refuses the rest with 403 (DNS rebinding) */
    int32_t n_hosts;
    const char *const *origins; /* beside loopback origins; "*" alone: all, without credentials */
    int32_t n_origins;
    /* Form of the room's own refusals (401, 403, 404, 405, 408, 413, 415, 431, 500, 503): the body for a
     * path. NULL: {"error":{"message":...,"code":...}}. code is a word like "unknown_url". out comes empty,
     * at most 64 kB, and is the room's to free. path is "" where the gate could not read one. */
    void (*error_body)(void *user, const char *path, int status, const char *code, const char *message,
                       sq_buf *out, const char **content_type);
    /* Once a request is over: for logs and counters. route: path of the table, or "". status 0: the client
     * left before its request was whole. Requests that the gate could not read are in the stats alone. */
    void (*done)(void *user, const sq_http_req *r, const char *route, int status, uint64_t bytes_out,
                 double seconds);
    squish_warn_fn warn;
    void *warn_user;
} sq_http_options;
sq_http_options sq_http_options_default(void);

/* Errors: NO_MEMORY, IO. */
squish_status sq_http_new(sq_http **out, const sq_http_options *opt, squish_error *err);
void sq_http_free(sq_http *h);

/* Keys, any of which opens every route (compared as SHA-256, in constant time); n = 0: none is asked for. May
 * be called again while it runs (loop thread), for a reload. Shown as Authorization: Bearer or x-api-key; who
 * shows several must be right with each. Error: INVALID for an empty key, NO_MEMORY. */
squish_status sq_http_set_keys(sq_http *h, const char *const *keys, size_t n, squish_error *err);

/* Listeners, before sq_http_run. port 0: one the system chooses (*port_out). tag comes back with each
 * request. An address that is not loopback is refused with INVALID while there are no keys, unless insecure.
 * Errors: INVALID, IO, NO_MEMORY. */
squish_status sq_http_listen(sq_http *h, const char *address, int port, int tag, bool insecure, int *port_out,
                             squish_error *err);
/* Would that address be refused? keyed: keys will be set. Makes no socket. Errors: INVALID. */
squish_status sq_http_check_address(const char *address, int port, bool keyed, bool insecure,
                                    squish_error *err);
/* A socket file, mode 0600, replaced if nobody answers there. The rules of Host, Origin and key do not apply
 * to it. Errors: INVALID (somebody answers, no socket file), IO, NO_MEMORY. */
squish_status sq_http_listen_unix(sq_http *h, const char *path, int tag, squish_error *err);
/* A stream socket that listens already, of the internet or a socket file, which stays where it is; fd becomes
 * the server's, or is closed. The rules are those above. Writes its URL, or the path of its file, into where
 * [n]. Errors: INVALID (no such socket, an open address without a key), IO, NO_MEMORY. */
squish_status sq_http_listen_inherited(sq_http *h, int fd, int tag, bool insecure, char *where, size_t n,
                                       bool *is_file, squish_error *err);

/* Serve until sq_http_stop. Ignores SIGPIPE for the whole process unless the program handles it: writing to a
 * client that left must be an error. */
squish_status sq_http_run(sq_http *h, squish_error *err);
/* No new connections from now on; those that wait for a request are closed, those at work go on and close
 * with their answer. */
void sq_http_close_listeners(sq_http *h);
int32_t sq_http_requests_open(const sq_http *h);
void sq_http_stop(sq_http *h); /* any thread: sq_http_run returns soon */

/* Any thread: run fn on the loop thread, in order of posting. NO_MEMORY. Posts that never ran because the
 * loop ended are run by sq_http_free. */
squish_status sq_http_post(sq_http *h, void (*fn)(void *user), void *user);
/* A message to the loop: fn runs there. With work, a worker runs that first. */
typedef struct sq_http_note {
    struct sq_http_note *next;
    void (*work)(void *user);
    void (*fn)(void *user);
    void *user;
    bool lent; /* memory of whoever posted it */
} sq_http_note;
/* The same in the caller's memory: cannot fail. The note is in use until fn is called. */
void sq_http_post_lent(sq_http *h, sq_http_note *n, void (*fn)(void *user), void *user);
/* Loop thread: run work on a worker, then done on the loop thread (always, in the end). NO_MEMORY:
 * neither. */
squish_status sq_http_work(sq_http *h, void (*work)(void *user), void (*done)(void *user), void *user);
/* Loop thread: fn every `seconds`, until the server is freed; fn once after them. */
squish_status sq_http_every(sq_http *h, double seconds, void (*fn)(void *user), void *user);
squish_status sq_http_after(sq_http *h, double seconds, void (*fn)(void *user), void *user);
/* Loop thread: fn on a signal (SIGTERM, SIGHUP ...), outside the signal handler. */
squish_status sq_http_on_signal(sq_http *h, int signal, void (*fn)(void *user, int signal), void *user);

/* ---- a request ------------------------------------------------------------------------------- */

/* All on the loop thread. A request lives until it was answered whole and `gone` or the end of its answer was
 * reached; each handler must see to one sq_http_reply, or one sq_http_begin and sq_http_end, sooner or later.
 * Where the client leaves first, `gone` is called once, sends become no-ops, and the end must still come. */
sq_http_method sq_http_method_of(const sq_http_req *r);
const char *sq_http_path(const sq_http_req *r);                     /* decoded, without query */
const char *sq_http_rest(const sq_http_req *r);                     /* what '*' stands for; "" */
const char *sq_http_query(const sq_http_req *r, const char *name);  /* decoded value or NULL; first one */
const char *sq_http_header(const sq_http_req *r, const char *name); /* any case; NULL: absent */
sq_span sq_http_body(const sq_http_req *r);          /* also NUL-terminated; lives as long as r */
const char *sq_http_body_file(const sq_http_req *r); /* RAW_BODY beyond 1 MiB: a temporary file, removed
                                                        with r unless renamed; else NULL */
const char *sq_http_peer(const sq_http_req *r);      /* "127.0.0.1", "unix" */
uint64_t sq_http_client(const sq_http_req *r);       /* hash of the key, else of the address */
bool sq_http_has_key(const sq_http_req *r);          /* shown and right, or none is asked for: what an
                                                        open route may tell in full */
int sq_http_tag(const sq_http_req *r);
const char *sq_http_id(const sq_http_req *r); /* of x-request-id: the client's, if sane, or ours */
void *sq_http_user(const sq_http_req *r);
void sq_http_set_user(sq_http_req *r, void *user);
/* What to do when the client leaves before the end. Noticed at once, also while nothing is read or sent. */
void sq_http_on_gone(sq_http_req *r, void (*gone)(void *user, sq_http_req *r), void *user);

/* A header of the answer, before reply or begin. Ours beside them: Date, x-request-id, CORS, nosniff. */
void sq_http_add_header(sq_http_req *r, const char *name, const char *value);
/* The whole answer. content_type NULL: application/json. Bytes are copied. */
void sq_http_reply(sq_http_req *r, int status, const char *content_type, const void *body, size_t n);
/* The room's own refusal, formed by error_body. */
void sq_http_refuse(sq_http_req *r, int status, const char *code, const char *fmt, ...) SQ_PRINTF(4, 5);

/* An answer in pieces (chunked; to HTTP/1.0 until the connection closes). Each send leaves at once: no delay
 * by Nagle, no waiting for more. ping: this text whenever nothing was sent for ping_s; NULL: none. drained:
 * called when sq_http_room rises above 0 again. */
void sq_http_begin(sq_http_req *r, int status, const char *content_type, const char *ping, double ping_s);
void sq_http_send(sq_http_req *r, const void *p, size_t n);
size_t sq_http_room(const sq_http_req *r); /* bytes until the client counts as slow */
void sq_http_on_drained(sq_http_req *r, void (*drained)(void *user, sq_http_req *r), void *user);
void sq_http_end(sq_http_req *r);

typedef struct {
    int32_t connections, requests_open,
        half_open; /* half_open: a request has begun, its headers are not whole */
    uint64_t accepted, requests, refused_by_gate, refused_by_rules, gone;
} sq_http_stats;
void sq_http_get_stats(const sq_http *h, sq_http_stats *out);

#endif
