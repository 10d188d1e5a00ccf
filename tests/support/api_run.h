/* SPDX-License-Identifier: Apache-2.0
 *
 * api_run.h - the whole server in a thread, on a port of its own, and a client that speaks HTTP over a
 * socket.
 *
 *     api_server s;  api_start(&s, NULL);
 *     const api_reply *r = ask(&s, "POST", "/v1/chat/completions", "{...}");
 *     ... r->status, r->head, r->body (chunks joined), valid until the next ask
 *     api_end(&s);
 *
 * The model is the shipped squish-tiny, in the tier that needs no building. Everything is static inline. */
#ifndef SQ_TEST_API_RUN_H
#define SQ_TEST_API_RUN_H

#include "api/api.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { API_TIMEOUT_MS = 60000, API_SLICE_MS = 250 };

typedef struct {
    sq_api *api;
    pthread_t thread;
    int port;
    _Atomic bool is_ready;
    squish_status status;
    squish_error err;
    sq_api_named model;
    char path[4096];
    const char *key; /* sent with every ask; NULL: none */
} api_server;

typedef struct {
    int status;
    char *head, *body;
    size_t n;
    bool hung; /* nothing came for API_TIMEOUT_MS */
} api_reply;

static inline void api_is_ready(void *user, const sq_api_ready *r) {
    api_server *s = user;
    s->port = (int)strtol(strrchr(r->url, ':') + 1, NULL, 10);
    s->is_ready = true;
}

static inline void *api_thread(void *user) {
    api_server *s = user;
    s->status = sq_api_run(s->api, &s->err);
    s->is_ready = true; /* or it never will be */
    return NULL;
}

static inline sq_api_options api_options(api_server *s) {
    squish_text path = {0};
    sq_api_options o = sq_api_options_default();
    memset(s, 0, sizeof *s);
    if (squish_locate(NULL, "squish-tiny", &path, NULL) == SQUISH_OK)
        snprintf(s->path, sizeof s->path, "%s", path.data);
    squish_text_free(&path);
    s->model = (sq_api_named){"squish-tiny", s->path};
    o.models = &s->model;
    o.n_models = 1;
    o.port = 0;
    o.tier = SQUISH_TIER_SOURCE;
    o.log_path = "";
    o.handle_signals = false;
    o.ready = api_is_ready;
    o.ready_user = s;
    return o;
}

/* o NULL: api_options(s). Returns 0 once it answers. */
static inline int api_start(api_server *s, const sq_api_options *given) {
    sq_api_options o;
    if (given)
        o = *given;
    else
        o = api_options(s);
    if (sq_api_new(&s->api, &o, &s->err) != SQUISH_OK) {
        printf("server: %s\n", s->err.text);
        return 1;
    }
    pthread_create(&s->thread, NULL, api_thread, s);
    while (!s->is_ready) usleep(500);
    if (s->port == 0) printf("server: %s\n", s->err.text);
    return s->port ? 0 : 1;
}

static inline void api_join(api_server *s) {
    pthread_join(s->thread, NULL);
    sq_api_free(s->api);
}

static inline void api_end(api_server *s) {
    sq_api_stop(s->api);
    api_join(s);
}

/* ---- a client -------------------------------------------------------------------------------- */

static inline int api_connect(const api_server *s) {
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)s->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (const struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static inline void api_write(int fd, const void *p, size_t n) {
    for (size_t at = 0; at < n;) {
        const ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
        if (k <= 0) return;
        at += (size_t)k;
    }
}

/* The request; the connection is asked to close behind it. extra: whole header lines, or "". */
static inline int api_send_n(const api_server *s, const char *method, const char *path, const char *extra,
                             const void *body, size_t n) {
    const int fd = api_connect(s);
    if (fd < 0) return -1;
    char key[512] = "", entity[128] = "";
    const size_t cap = strlen(path) + strlen(extra) + 1024;
    char *head = malloc(cap);
    if (s->key) snprintf(key, sizeof key, "Authorization: Bearer %s\r\n", s->key);
    if (body) snprintf(entity, sizeof entity, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
    const int k = snprintf(head, cap, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s%s%s\r\n",
                           method, path, extra, key, entity);
    api_write(fd, head, (size_t)k);
    free(head);
    if (body) api_write(fd, body, n);
    return fd;
}

static inline int api_send(const api_server *s, const char *method, const char *path, const char *body) {
    return api_send_n(s, method, path, "", body, body ? strlen(body) : 0);
}

/* Chunks joined, in place. */
static inline size_t api_unchunk(char *p, size_t n) {
    size_t from = 0, to = 0;
    while (from < n) {
        char *end;
        const size_t size = strtoul(p + from, &end, 16);
        from = (size_t)(end - p) + 2;
        if (size == 0 || from + size > n) break;
        memmove(p + to, p + from, size);
        to += size;
        from += size + 2;
    }
    p[to] = 0;
    return to;
}

/* Until there is something to read. Waits in slices: a process that was stopped for minutes (server and
 * client alike, they are one) has waited one slice meanwhile, not all of them. */
static inline bool api_wait(int fd) {
    struct pollfd p = {fd, POLLIN, 0};
    for (int ms = 0; ms < API_TIMEOUT_MS; ms += API_SLICE_MS)
        if (poll(&p, 1, API_SLICE_MS) > 0) return true;
    return false;
}

/* All there is to read until the server closes. */
static inline const api_reply *api_read(int fd) {
    static api_reply r;
    static char *text;
    size_t n = 0, cap = 1 << 16;
    free(text);
    text = malloc(cap + 1);
    bool hung;
    while (!(hung = !api_wait(fd))) {
        if (n == cap) text = realloc(text, (cap *= 2) + 1);
        const ssize_t k = recv(fd, text + n, cap - n, 0);
        if (k <= 0) break;
        n += (size_t)k;
    }
    close(fd);
    text[n] = 0;
    r = (api_reply){0, text, text + n, 0, hung};
    char *gap = strstr(text, "\r\n\r\n");
    if (!gap || sscanf(text, "HTTP/1.1 %d", &r.status) != 1) return &r;
    gap[2] = 0;
    r.body = gap + 4;
    r.n = n - (size_t)(r.body - text);
    if (strcasestr(text, "transfer-encoding: chunked")) r.n = api_unchunk(r.body, r.n);
    return &r;
}

static inline const api_reply *ask(const api_server *s, const char *method, const char *path,
                                   const char *body) {
    return api_read(api_send(s, method, path, body));
}

/* The answer as JSON, owned by the caller; prints what it is where it is none. */
static inline json_t *ask_json(const api_server *s, const char *method, const char *path, const char *body,
                               int status) {
    const api_reply *r = ask(s, method, path, body);
    json_t *o = json_loadb(r->body, r->n, JSON_ALLOW_NUL, NULL);
    if (r->status != status || !o)
        printf("%s %s: %d, wanted %d: %.600s\n", method, path, r->status, status, r->body);
    if (r->status == status) return o;
    json_decref(o);
    return NULL;
}

/* "choices[0].message.content" of o; borrowed. */
static inline const json_t *at(const json_t *o, const char *path) {
    while (o && *path) {
        char name[64];
        const size_t n = strcspn(path, ".[");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        if (*path == '[') {
            o = json_array_get(o, strtoul(path + 1, NULL, 10));
            path += strcspn(path, "]") + 1;
        } else {
            o = json_object_get(o, name);
            path += n;
        }
        if (*path == '.') path++;
    }
    return o;
}
static inline const char *text_at(const json_t *o, const char *path) {
    return json_string_value(at(o, path));
}
static inline json_int_t int_at(const json_t *o, const char *path) { return json_integer_value(at(o, path)); }

/* The frames of an event stream, in an array; "[DONE]" is a string. Owned by the caller; NULL: one was no
 * JSON. */
static inline json_t *api_frames(const api_reply *r) {
    json_t *list = json_array();
    for (const char *p = r->body; (p = strstr(p, "data: ")); p++) {
        p += 6;
        const char *end = strstr(p, "\n\n");
        if (!end) break;
        json_t *o = strncmp(p, "[DONE]", 6) == 0 ? json_string("[DONE]")
                                                 : json_loadb(p, (size_t)(end - p), JSON_ALLOW_NUL, NULL);
        if (!o) {
            printf("no JSON: %.*s\n", (int)(end - p), p);
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, o);
        p = end;
    }
    return list;
}

#endif
