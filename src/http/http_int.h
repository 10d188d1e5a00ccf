/* SPDX-License-Identifier: Apache-2.0
 *
 * http_int.h - what the files of the room share: the server, its listeners, connections and requests.
 *
 * Life of a connection. evhttp accepts it and owns its bufferevent; the room keeps an sq_http_conn beside it:
 *
 *   IDLE -> HEAD -> BODY        our callbacks are on the bufferevent, evhttp's are put aside
 *     |       |       |
 *     |       +-------+-> ANSWER   a canonical head was given to evhttp, evhttp's callbacks are back; reading
 * is |                     |      off and `watch` looks for the client's leave |                     v |
 * answered, connection stays: `kick` takes the bufferevent over again (IDLE)
 *     +-> CLOSING           a refusal of the gate is on its way; what still comes is thrown away, then the
 * close
 *
 * A request belongs to its connection until it was answered or the client left; after that it belongs to its
 * handler until the handler ends it. All of this on the loop thread. */
#ifndef SQ_HTTP_INT_H
#define SQ_HTTP_INT_H

#include "http/http_gate.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SQ_HTTP_SPOOL_BYTES = 1 << 20, SQ_HTTP_SHA_BYTES = 32, SQ_HTTP_EXTRA_MAX = 16 };

typedef struct sq_http_conn sq_http_conn;

typedef struct sq_http_listener {
    sq_http *h;
    struct evhttp *ev;
    struct evconnlistener *lev;
    struct evhttp_bound_socket *bound;
    struct sq_http_listener *next;
    int tag;
    bool loopback, unix_socket;
    char *path; /* of a unix socket, removed at the end */
} sq_http_listener;

typedef enum {
    SQ_CONN_NEW,
    SQ_CONN_IDLE,
    SQ_CONN_HEAD,
    SQ_CONN_BODY,
    SQ_CONN_ANSWER,
    SQ_CONN_CLOSING
} sq_conn_phase;

struct sq_http_conn {
    sq_http *h;
    sq_http_listener *listener;
    struct bufferevent *bev;
    struct evhttp_connection *evcon; /* known from the first request on */
    struct event kick, watch;
    bufferevent_data_cb ev_read; /* evhttp's own callbacks, put aside */
    bufferevent_event_cb ev_event;
    void *ev_arg;
    struct evbuffer *held; /* bytes read behind a request, for later; usually NULL */
    sq_gate gate;
    sq_http_req *req;
    uint64_t deadline_ns; /* 0: none */
    uint64_t progress_ns; /* output last moved, or began to wait */
    uint64_t peer_hash;
    uint64_t body_mark; /* body bytes at the last look */
    uint32_t slot;      /* in h->conns */
    uint8_t phase;
    bool arrived, bytes_behind, kick_drained, output_watched, must_drop;
    char peer[46];
};

typedef struct {
    const char *name, *value;
} sq_http_field;

typedef enum { SQ_REQ_WAITING, SQ_REQ_STREAMING, SQ_REQ_ENDED } sq_req_phase;

struct sq_http_req {
    sq_http *h;
    sq_http_conn *conn;        /* NULL: gone */
    struct evhttp_request *ev; /* NULL: not given to evhttp */
    sq_http_req *prev, *next;
    sq_arena arena;
    const sq_http_route *route;
    const char *path, *rest, *origin; /* origin: to be allowed in the answer */
    sq_http_field *fields, *queries;
    size_t n_fields, n_queries;
    sq_http_field extra[SQ_HTTP_EXTRA_MAX]; /* headers of the answer */
    size_t n_extra;
    sq_buf body;
    char *body_path;
    int body_fd;
    uint64_t body_file_bytes;
    uint64_t client, begun_ns, bytes_out, sent_ns;
    int tag, status;
    int refused_status; /* decided by the rules; 0: let it pass */
    const char *refused_code;
    char refused_text[160];
    uint8_t method, phase, minor;
    bool gone, was_full, key_is_right;
    bool given_back; /* evhttp was told that no more comes: it frees its request */
    char id[72], peer[46];
    void *user;
    void (*on_gone)(void *user, sq_http_req *r);
    void *on_gone_user;
    void (*on_drained)(void *user, sq_http_req *r);
    void *on_drained_user;
    char *ping;
    uint64_t ping_ns;
};

typedef struct {
    sq_http_note *first, **last;
} sq_http_notes;

typedef struct sq_http_timer {
    struct sq_http_timer *next;
    sq_http *h;
    struct event ev;
    void (*fn)(void *user);
    void (*on_signal)(void *user, int signal);
    void *user;
    bool once;
} sq_http_timer;

struct sq_http {
    squish_alloc alloc;
    sq_http_options opt;
    struct event_base *base;
    sq_http_listener *listeners;
    bool listening_ended, accepting, out_of_files, warned_of_files;
    struct event tick, reopen, wake;
    sq_http_conn **conns;
    size_t n_conns, cap_conns;
    sq_http_conn *handing; /* whose request evhttp is parsing just now */
    sq_http_req *reqs;
    int32_t n_reqs;
    uint8_t (*keys)[SQ_HTTP_SHA_BYTES];
    size_t n_keys;
    sq_http_stats stats;
    uint64_t id_state;
    sq_http_timer *timers;

    int wake_fd[2]; /* read end, write end; both never block */
    _Atomic bool stopping;
    pthread_mutex_t lock; /* of posted, woken, queued, leaving */
    pthread_cond_t more_work;
    sq_http_notes posted, queued;
    bool woken, leaving;
    pthread_t *threads;
    int32_t n_threads;
};

/* http_uri.c. Decode the path of a target into the arena: percent-decoded, UTF-8, no NUL or other control
 * bytes, no segments "." and "..". NULL with *why set: bad; with *why NULL: no memory. */
const char *sq_http_decode_path(sq_arena *ar, const uint8_t *p, size_t n, const char **why);
/* name=value pairs of a query; false with *why as above. */
bool sq_http_decode_query(sq_arena *ar, const uint8_t *p, size_t n, sq_http_field **out, size_t *n_out,
                          const char **why);

/* http_rules.c. A request from a whole head, with the rules applied: refused_status says what they found.
 * NULL: no memory. */
sq_http_req *sq_http_req_from_head(sq_http_conn *c);
bool sq_http_is_loopback_host(const char *host, size_t n);
bool sq_http_is_loopback_address(const char *address);
void sq_http_sha256(const void *p, size_t n, uint8_t out[SQ_HTTP_SHA_BYTES]);

/* http_conn.c */
struct bufferevent *sq_http_conn_new(struct event_base *base, void *listener); /* evhttp's bevcb */
void sq_http_on_request(struct evhttp_request *ev, void *listener);            /* evhttp's generic callback */
void sq_http_conn_drop_soon(sq_http_conn *c);
void sq_http_conn_drop(sq_http_conn *c);  /* close now; c is gone afterwards */
void sq_http_conn_watch(sq_http_conn *c); /* reading off, look for the client's leave */
void sq_http_conns_tick(sq_http *h);
uint64_t sq_http_deadline(double seconds);

/* http_req.c */
void sq_http_req_free(sq_http_req *r);
void sq_http_req_done(sq_http_req *r); /* tells `done`, then frees */
void sq_http_req_left(sq_http_req *r); /* the connection went away */
void sq_http_req_tick(sq_http_req *r, uint64_t now_ns);
/* Text of a refusal for requests that evhttp does not answer: status line, headers, body. */
bool sq_http_refusal_text(sq_http *h, sq_http_req *r, const sq_gate *g, sq_buf *out);
const char *sq_http_reason(int status);

/* http_post.c */
squish_status sq_http_threads_begin(sq_http *h, squish_error *err);
void sq_http_threads_end(sq_http *h); /* the workers finish what is queued and are joined */
void sq_http_run_rest(sq_http *h);    /* without workers: whatever was posted or queued */
void sq_http_run_posted(sq_http *h);

/* http_server.c */
void sq_http_set_accepting(sq_http *h); /* listeners on or off, by the number of connections */

#endif
