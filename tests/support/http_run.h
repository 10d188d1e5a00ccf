/* SPDX-License-Identifier: Apache-2.0
 *
 * http_run.h - a server of scripted handlers in a thread, and the client's side of a socket, for the tests of
 * http/. Everything is static inline; one server at a time.
 *
 *   GET  /hello           "hello\n", text            any body on it is ignored
 *   GET  /open            the same, without a key
 *   POST /echo            JSON; answers the body
 *   POST /raw             any type; "BYTES memory|file SUM\n"
 *   POST /small           JSON, at most 16 bytes; answers the body
 *   GET  /query           value of ?name=
 *   GET  /rest/...        what the star stood for
 *   GET  /stream          "one", "two", "three" in pieces
 *   GET  /wait            answers nothing until the client leaves or http_release is called
 *   GET  /flood           sends until the room is used up, waits for drained, ends after flood_bytes
 *   GET  /work            answers what a worker has written */
#ifndef SQ_TEST_HTTP_RUN_H
#define SQ_TEST_HTTP_RUN_H

#include "http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HTTP_TIMEOUT_MS = 20000 };

typedef struct {
    sq_http *h;
    pthread_t thread;
    int port;
    sq_http_req *waiting[64]; /* loop thread */
    int n_waiting;
    _Atomic int n_gone, n_done, n_waits, n_floods, n_pauses, last_status;
    _Atomic uint64_t flood_sent, flood_bytes;
    char worked[32];
    squish_status run_status;
} http_server;

static inline void http_on_hello(void *user, sq_http_req *r) {
    (void)user;
    sq_http_reply(r, 200, "text/plain", "hello\n", 6);
}
static inline void http_on_echo(void *user, sq_http_req *r) {
    (void)user;
    const sq_span b = sq_http_body(r);
    sq_http_reply(r, 200, NULL, b.p, b.n);
}
static inline void http_on_raw(void *user, sq_http_req *r) {
    (void)user;
    const char *path = sq_http_body_file(r);
    sq_span b = sq_http_body(r);
    uint64_t bytes = b.n, sum = 0;
    for (size_t i = 0; i < b.n; i++) sum += b.p[i];
    if (path) {
        FILE *f = fopen(path, "rb");
        bytes = 0;
        for (int c; f && (c = fgetc(f)) != EOF; bytes++) sum += (uint64_t)c;
        if (f) fclose(f);
    }
    char text[96];
    const int n = snprintf(text, sizeof text, "%llu %s %llu\n", (unsigned long long)bytes,
                           path ? "file" : "memory", (unsigned long long)sum);
    sq_http_reply(r, 200, "text/plain", text, (size_t)n);
}
static inline void http_on_query(void *user, sq_http_req *r) {
    (void)user;
    const char *v = sq_http_query(r, "name");
    if (v)
        sq_http_reply(r, 200, "text/plain", v, strlen(v));
    else
        sq_http_refuse(r, 404, "no_name", "no name in '%s'", sq_http_path(r));
}
static inline void http_on_rest(void *user, sq_http_req *r) {
    (void)user;
    sq_http_reply(r, 200, "text/plain", sq_http_rest(r), strlen(sq_http_rest(r)));
}
static inline void http_on_stream(void *user, sq_http_req *r) {
    (void)user;
    sq_http_begin(r, 200, "text/event-stream", NULL, 0);
    sq_http_send(r, "one", 3);
    sq_http_send(r, "two", 3);
    sq_http_send(r, "three", 5);
    sq_http_end(r);
}
static inline void http_wait_gone(void *user, sq_http_req *r) {
    http_server *s = user;
    s->n_gone++;
    for (int i = 0; i < s->n_waiting; i++)
        if (s->waiting[i] == r) s->waiting[i] = s->waiting[--s->n_waiting];
    sq_http_reply(r, 200, NULL, "", 0);
}
static inline void http_on_wait(void *user, sq_http_req *r) {
    http_server *s = user;
    sq_http_on_gone(r, http_wait_gone, s);
    if (s->n_waiting < 64) s->waiting[s->n_waiting++] = r;
    s->n_waits++;
}
static inline void http_stream_gone(void *user, sq_http_req *r) {
    ((http_server *)user)->n_gone++;
    sq_http_end(r);
}
static inline void http_flood_more(void *user, sq_http_req *r) {
    static const char block[4096] = {'x'};
    http_server *s = user;
    while (sq_http_room(r) > 0 && s->flood_sent < s->flood_bytes) {
        sq_http_send(r, block, sizeof block);
        s->flood_sent += sizeof block;
    }
    if (s->flood_sent >= s->flood_bytes)
        sq_http_end(r);
    else
        s->n_pauses++;
}
static inline void http_on_flood(void *user, sq_http_req *r) {
    http_server *s = user;
    s->flood_sent = 0;
    s->n_floods++;
    sq_http_on_gone(r, http_stream_gone, s);
    sq_http_on_drained(r, http_flood_more, s);
    sq_http_begin(r, 200, "text/plain", NULL, 0);
    http_flood_more(s, r);
}
static inline void http_on_tick_stream(void *user, sq_http_req *r) {
    sq_http_on_gone(r, http_stream_gone, user);
    sq_http_begin(r, 200, "text/event-stream", ": ping\n\n", 0.1);
    ((http_server *)user)->n_waits++;
}
static inline void http_work_done(void *user) {
    sq_http_req *r = user;
    http_server *s = sq_http_user(r);
    sq_http_reply(r, 200, "text/plain", s->worked, strlen(s->worked));
}
static inline void http_work_do(void *user) {
    http_server *s = sq_http_user(user);
    snprintf(s->worked, sizeof s->worked, "worked\n");
}
static inline void http_on_work(void *user, sq_http_req *r) {
    http_server *s = user;
    sq_http_set_user(r, s);
    if (sq_http_work(s->h, http_work_do, http_work_done, r) != SQUISH_OK)
        sq_http_refuse(r, 503, "no_memory", "out of memory");
}
static inline void http_done(void *user, const sq_http_req *r, const char *route, int status,
                             uint64_t bytes_out, double seconds) {
    (void)r, (void)route, (void)bytes_out, (void)seconds;
    ((http_server *)user)->last_status = status;
    ((http_server *)user)->n_done++;
}

static const sq_http_route http_routes[] = {
    {SQ_HTTP_GET, "/hello", 0, 0, http_on_hello},
    {SQ_HTTP_GET, "/open", SQ_HTTP_OPEN, 0, http_on_hello},
    {SQ_HTTP_POST, "/echo", SQ_HTTP_JSON, 0, http_on_echo},
    {SQ_HTTP_DELETE, "/echo", SQ_HTTP_JSON, 0, http_on_echo},
    {SQ_HTTP_POST, "/raw", SQ_HTTP_RAW_BODY, 64u << 20, http_on_raw},
    {SQ_HTTP_POST, "/small", SQ_HTTP_JSON, 16, http_on_echo},
    {SQ_HTTP_GET, "/query", 0, 0, http_on_query},
    {SQ_HTTP_GET, "/rest/*", 0, 0, http_on_rest},
    {SQ_HTTP_GET, "/stream", 0, 0, http_on_stream},
    {SQ_HTTP_GET | SQ_HTTP_POST, "/wait", 0, 0, http_on_wait},
    {SQ_HTTP_GET, "/flood", 0, 0, http_on_flood},
    {SQ_HTTP_GET, "/pings", 0, 0, http_on_tick_stream},
    {SQ_HTTP_GET, "/work", 0, 0, http_on_work},
};

static inline sq_http_options http_test_options(http_server *s) {
    sq_http_options o = sq_http_options_default();
    o.routes = http_routes;
    o.n_routes = SQ_COUNT(http_routes);
    o.user = s;
    o.done = http_done;
    return o;
}

static inline void *http_thread(void *user) {
    http_server *s = user;
    s->run_status = sq_http_run(s->h, NULL);
    return NULL;
}

/* Keys may be NULL. False: a reason was printed. */
static inline bool http_start(http_server *s, const sq_http_options *o, const char *const *keys,
                              size_t n_keys) {
    squish_error err = {0};
    if (sq_http_new(&s->h, o, &err) != SQUISH_OK || sq_http_set_keys(s->h, keys, n_keys, &err) != SQUISH_OK ||
        sq_http_listen(s->h, "127.0.0.1", 0, 7, false, &s->port, &err) != SQUISH_OK) {
        printf("http_start: %s\n", err.text);
        sq_http_free(s->h);
        s->h = NULL;
        return false;
    }
    return pthread_create(&s->thread, NULL, http_thread, s) == 0;
}

static inline void http_end(http_server *s) {
    if (!s->h) return;
    sq_http_stop(s->h);
    pthread_join(s->thread, NULL);
    sq_http_free(s->h);
    s->h = NULL;
}

static inline void http_release_fn(void *user) {
    http_server *s = user;
    while (s->n_waiting > 0) sq_http_reply(s->waiting[--s->n_waiting], 200, "text/plain", "released\n", 9);
}
static inline void http_release(http_server *s) { sq_http_post(s->h, http_release_fn, s); }

/* ---- the client's side ----------------------------------------------------------------------- */

static inline int http_connect(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* Send in pieces of at most `piece` bytes. */
static inline bool http_put(int fd, const void *p, size_t n, size_t piece) {
    for (size_t at = 0; at < n;) {
        const size_t want = n - at < piece ? n - at : piece;
        const ssize_t w = send(fd, (const char *)p + at, want, MSG_NOSIGNAL);
        if (w <= 0) return false;
        at += (size_t)w;
    }
    return true;
}

/* Read what comes within ms; 0: the end, -1: nothing came (or a reset). */
static inline ssize_t http_get(int fd, void *p, size_t n, int ms) {
    struct pollfd pf = {.fd = fd, .events = POLLIN};
    if (poll(&pf, 1, ms) <= 0) return -1;
    return recv(fd, p, n, 0);
}

static inline bool http_until(_Atomic int *counter, int wanted) {
    for (int i = 0; i < HTTP_TIMEOUT_MS && *counter < wanted; i++) poll(NULL, 0, 1);
    return *counter >= wanted;
}

#endif
