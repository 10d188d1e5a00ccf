/* SPDX-License-Identifier: Apache-2.0
 *
 * http_conn.c - connections: the gate on the bufferevent, the hand-over to evhttp, time limits, the last
 * close.
 *
 * evhttp never sees what a client sent. While a request is read our callbacks are on the bufferevent; when it
 * is whole and the rules are content, evhttp gets a head of our own making (method, target, version,
 * Connection) and its callbacks back, parses that in the same breath and calls sq_http_on_request. Bodies
 * stay with us. So none of evhttp's own ideas about lengths, chunks, Expect and timeouts are ever asked for.
 *
 * While a request is answered the bufferevent does not read: bytes behind the request stay in the kernel,
 * except for those that came in the same read (`held`, at most one read of 16 kB). The client's leave is seen
 * by an event of our own on the socket: readable and nothing to read means it is gone. Once there are bytes
 * behind, the socket stays readable, so the tick asks poll() instead, four times a second. */
#include "http/http_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINGER_S = 2, BODY_STEP_BYTES = 16384, UNSENT_MAX = 32 << 10 };

uint64_t sq_http_deadline(double seconds) { return sq_os_now_ns() + (uint64_t)(seconds * 1e9); }

/* ---- birth and death ------------------------------------------------------------------------- */

static void on_kick(evutil_socket_t fd, short what, void *user);
static void on_watch(evutil_socket_t fd, short what, void *user);

static bool enlist(sq_http *h, sq_http_conn *c) {
    if (h->n_conns == h->cap_conns) {
        const size_t cap = h->cap_conns ? 2 * h->cap_conns : 64;
        sq_http_conn **grown =
            sq_alloc_resize(&h->alloc, h->conns, h->cap_conns * sizeof *grown, cap * sizeof *grown);
        if (!grown) return false;
        h->conns = grown;
        h->cap_conns = cap;
    }
    c->slot = (uint32_t)h->n_conns;
    h->conns[h->n_conns++] = c;
    return true;
}

/* evhttp has accepted a connection and asks for its bufferevent; the socket is put into it after our return.
 */
struct bufferevent *sq_http_conn_new(struct event_base *base, void *user) {
    sq_http_listener *l = user;
    sq_http *h = l->h;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    sq_http_conn *c = sq_alloc_zero(&h->alloc, sizeof *c);
    if (!bev || !c || !enlist(h, c)) {
        sq_alloc_free(&h->alloc, c, sizeof *c);
        if (bev) bufferevent_free(bev);
        /* evhttp then makes a bufferevent of its own. What comes through that has passed no gate, so
         * sq_http_on_request, which knows of no hand-over, answers 500 and closes. */
        return NULL;
    }
    c->h = h;
    c->listener = l;
    c->bev = bev;
    sq_gate_init(&c->gate, &h->alloc, h->opt.header_bytes_max, h->opt.body_max);
    event_assign(&c->kick, base, -1, 0, on_kick, c);
    event_active(&c->kick, EV_WRITE, 0);
    h->stats.accepted++;
    h->warned_of_files = false;
    sq_http_set_accepting(h);
    return bev;
}

/* The conn alone; its bufferevent is evhttp's to free. */
static void conn_free(sq_http_conn *c) {
    sq_http *h = c->h;
    event_del(&c->kick);
    if (event_initialized(&c->watch)) event_del(&c->watch);
    if (c->held) evbuffer_free(c->held);
    sq_gate_deinit(&c->gate);
    h->conns[c->slot] = h->conns[--h->n_conns];
    h->conns[c->slot]->slot = c->slot;
    if (h->handing == c) h->handing = NULL;
    sq_alloc_free(&h->alloc, c, sizeof *c);
    sq_http_set_accepting(h);
}

/* evhttp is about to free the connection. */
static void on_closed(struct evhttp_connection *evcon, void *user) {
    (void)evcon;
    sq_http_conn *c = user;
    sq_http_req *r = c->req;
    conn_free(c);
    if (r) sq_http_req_left(r);
}

void sq_http_conn_drop(sq_http_conn *c) {
    struct bufferevent *bev = c->bev;
    const bool known = c->evcon != NULL;
    if (c->req && !c->req->ev) { /* evhttp does not know of it */
        sq_http_req *r = c->req;
        c->req = NULL;
        sq_http_req_done(r);
    }
    if (c->ev_event) bufferevent_setcb(bev, NULL, NULL, c->ev_event, c->ev_arg);
    if (!known) conn_free(c);
    /* evhttp's own way to learn that a client left: it frees its connection, and on_closed frees ours. */
    bufferevent_trigger_event(bev, BEV_EVENT_EOF | BEV_EVENT_READING, 0);
}

/* Later in this turn of the loop: handlers are told that a client is gone while none of them is at work. */
void sq_http_conn_drop_soon(sq_http_conn *c) {
    c->must_drop = true;
    event_active(&c->kick, EV_WRITE, 0);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void gate_read(struct bufferevent *bev, void *user);
static void gate_event(struct bufferevent *bev, short what, void *user);

static void on_refusal_sent(struct bufferevent *bev, void *user) {
    (void)user;
    shutdown(bufferevent_getfd(bev), SHUT_WR);
}

/* Answer and close. What the client still sends is thrown away for a moment: a close with unread bytes would
 * reset the connection and could take the answer with it. */
static void close_with(sq_http_conn *c, sq_http_req *r) {
    sq_http *h = c->h;
    sq_buf text;
    sq_buf_init(&text, &h->alloc, SIZE_MAX / 4);
    const bool ok = sq_http_refusal_text(h, r, &c->gate, &text);
    if (r)
        h->stats.refused_by_rules++;
    else
        h->stats.refused_by_gate++;
    c->phase = SQ_CONN_CLOSING;
    c->deadline_ns = sq_http_deadline(LINGER_S);
    sq_gate_reset(&c->gate);
    if (r) {
        r->status = ok ? r->refused_status : 0;
        r->bytes_out = ok ? text.len : 0;
        c->req = NULL;
        sq_http_req_done(r);
    }
    struct evbuffer *in = bufferevent_get_input(c->bev);
    evbuffer_drain(in, evbuffer_get_length(in));
    bufferevent_setcb(c->bev, gate_read, on_refusal_sent, gate_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    const bool sent = ok && bufferevent_write(c->bev, text.data, text.len) == 0;
    sq_buf_deinit(&text);
    if (!sent) c->deadline_ns = 1; /* no memory for an answer: the next tick closes */
}

static void refuse_request(sq_http_conn *c, int status, const char *code, const char *message) {
    c->gate.status = (int16_t)status;
    c->gate.code = code;
    c->gate.message = message;
    sq_http_req *r = c->req;
    if (r) {
        r->refused_status = status;
        r->refused_code = code;
        snprintf(r->refused_text, sizeof r->refused_text, "%s", message);
    }
    close_with(c, r);
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static int spool(sq_http_req *r, const void *p, size_t n) {
    const uint8_t *at = p;
    while (n > 0) {
        const ssize_t w = write(r->body_fd, at, n);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return 507;
        at += w;
        n -= (size_t)w;
        r->body_file_bytes += (uint64_t)w;
    }
    return 0;
}

/* A RAW_BODY outgrew memory: from now on it goes to a file. */
static int begin_spool(sq_http_req *r) {
    const char *dir = r->h->opt.spool_dir;
    char *path = sq_arena_alloc(&r->arena, strlen(dir) + 32, 1);
    if (!path) return 503;
    snprintf(path, strlen(dir) + 32, "%s/squish-body-XXXXXX", dir);
    r->body_fd = mkostemp(path, O_CLOEXEC);
    if (r->body_fd < 0) return 507;
    r->body_path = path;
    const int status = spool(r, r->body.data, r->body.len);
    sq_buf_deinit(&r->body);
    return status;
}

static int take_body(void *user, const uint8_t *p, size_t n) {
    sq_http_req *r = user;
    const bool raw = r->route && (r->route->flags & SQ_HTTP_RAW_BODY);
    if (raw && r->body_fd < 0 && n > SQ_HTTP_SPOOL_BYTES - r->body.len) {
        const int status = begin_spool(r);
        if (status) return status;
    }
    if (r->body_fd >= 0) return spool(r, p, n);
    return sq_buf_append(&r->body, p, n) ? 0 : 503;
}

/* ---- reading --------------------------------------------------------------------------------- */

static void hand_over(sq_http_conn *c);

static void send_continue(sq_http_conn *c) {
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    bufferevent_enable(c->bev, EV_WRITE);
    bufferevent_write(c->bev, text, sizeof text - 1);
}

/* The head is whole. False: the connection was answered with a refusal. */
static bool head_is_whole(sq_http_conn *c) {
    sq_http_req *r = c->req = sq_http_req_from_head(c);
    if (!r) {
        refuse_request(c, 503, "no_memory", "out of memory");
        return false;
    }
    c->h->stats.requests++;
    const bool body = sq_gate_expects_body(&c->gate);
    if (r->refused_status && body) { /* unread bodies end connections */
        close_with(c, r);
        return false;
    }
    if (body && c->gate.expect_continue && c->gate.minor == 1 &&
        evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)
        send_continue(c);
    c->phase = SQ_CONN_BODY;
    c->body_mark = 0;
    c->deadline_ns = sq_http_deadline(c->h->opt.body_s);
    return true;
}

/* Feed the gate with one contiguous piece of input. False: stop reading. */
static bool feed_piece(sq_http_conn *c, const uint8_t *p, size_t n, struct evbuffer *in) {
    size_t used;
    const sq_gate_verdict v = sq_gate_feed(&c->gate, p, n, &used, take_body, c->req);
    evbuffer_drain(in, used);
    switch (v) {
    case SQ_GATE_MORE:
        if (c->phase == SQ_CONN_IDLE && sq_gate_has_begun(&c->gate)) {
            c->phase = SQ_CONN_HEAD;
            c->deadline_ns = sq_http_deadline(c->h->opt.header_s);
        }
        /* A drop now and then does not count as moving. */
        if (c->phase == SQ_CONN_BODY && c->gate.body_bytes - c->body_mark >= BODY_STEP_BYTES) {
            c->body_mark = c->gate.body_bytes;
            c->deadline_ns = sq_http_deadline(c->h->opt.body_s);
        }
        return true;
    case SQ_GATE_HEAD: return head_is_whole(c) && feed_piece(c, NULL, 0, in);
    case SQ_GATE_DONE: hand_over(c); return false;
    default: refuse_request(c, c->gate.status, c->gate.code, c->gate.message); return false;
    }
}

static void gate_read(struct bufferevent *bev, void *user) {
    sq_http_conn *c = user;
    struct evbuffer *in = bufferevent_get_input(bev);
    if (c->phase == SQ_CONN_CLOSING) {
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    for (size_t n; (n = evbuffer_get_contiguous_space(in)) > 0;)
        if (!feed_piece(c, evbuffer_pullup(in, (ev_ssize_t)n), n, in)) return;
}

static void gate_event(struct bufferevent *bev, short what, void *user) {
    (void)bev;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) sq_http_conn_drop(user);
}

/* ---- hand-over to evhttp --------------------------------------------------------------------- */

static const char *method_name(unsigned method) {
    switch (method) {
    case SQ_HTTP_GET: return "GET";
    case SQ_HTTP_POST: return "POST";
    case SQ_HTTP_DELETE: return "DELETE";
    case SQ_HTTP_HEAD: return "HEAD";
    case SQ_HTTP_PUT: return "PUT";
    default: return "OPTIONS";
    }
}

static bool canonical_head(const sq_http_conn *c, sq_buf *out) {
    const sq_gate *g = &c->gate;
    const char *connection = g->wants_close        ? "Connection: close\r\n"
                             : g->wants_keep_alive ? "Connection: keep-alive\r\n"
                                                   : "";
    return sq_buf_printf(out, "%s ", method_name(g->method)) &&
           sq_buf_append(out, g->head.data + g->target_at, g->target_n) &&
           sq_buf_printf(out, " HTTP/1.%d\r\n%sContent-Length: 0\r\n\r\n", g->minor, connection);
}

static void hand_over(sq_http_conn *c) {
    sq_http *h = c->h;
    struct evbuffer *in = bufferevent_get_input(c->bev);
    sq_buf head;
    sq_buf_init(&head, &h->alloc, h->opt.header_bytes_max + 64u);
    bool ok = canonical_head(c, &head);
    if (ok && evbuffer_get_length(in) > 0) {
        c->held = evbuffer_new();
        ok = c->held && evbuffer_add_buffer(c->held, in) == 0;
    }
    ok = ok && evbuffer_prepend(in, head.data, head.len) == 0;
    sq_buf_deinit(&head);
    if (!ok) {
        refuse_request(c, 503, "no_memory", "out of memory");
        return;
    }
    sq_gate_reset(&c->gate);
    c->phase = SQ_CONN_ANSWER;
    c->deadline_ns = 0;
    /* No write callback: a "100 Continue" may still be on its way, and evhttp would take its end for that of
     * its last answer. It sets its own when it answers. */
    bufferevent_setcb(c->bev, c->ev_read, NULL, c->ev_event, c->ev_arg);
    h->handing = c;
    bufferevent_trigger(c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS);
    if (h->handing != c) return; /* it came to sq_http_on_request, as it should */
    h->handing = NULL;
    sq_http_conn_drop(c);
}

static void on_answered(struct evhttp_request *ev, void *user) {
    (void)ev;
    sq_http_req *r = user;
    sq_http_conn *c = r->conn;
    event_del(&c->watch);
    c->req = NULL;
    c->bytes_behind = c->kick_drained = false;
    r->ev = NULL; /* evhttp frees it after this call */
    sq_http_req_done(r);
    c->phase = SQ_CONN_NEW;
    event_active(&c->kick, EV_WRITE, 0);
}

/* Something left the output, or came in. Handlers are told later: evbuffers do not like to be changed here.
 */
static void on_output(struct evbuffer *out, const struct evbuffer_cb_info *info, void *user) {
    sq_http_conn *c = user;
    if (info->n_deleted > 0 || info->orig_size == 0) c->progress_ns = sq_os_now_ns();
    sq_http_req *r = c->req;
    if (!r || !r->was_full || info->n_deleted == 0) return;
    if (evbuffer_get_length(out) >= c->h->opt.output_max) return;
    r->was_full = false;
    c->kick_drained = true;
    event_active(&c->kick, EV_WRITE, 0);
}

void sq_http_on_request(struct evhttp_request *ev, void *user) {
    sq_http *h = ((sq_http_listener *)user)->h;
    sq_http_conn *c = h->handing;
    if (!c || !c->req) { /* nothing reaches evhttp but through hand_over */
        evhttp_send_error(ev, 500, NULL);
        return;
    }
    h->handing = NULL;
    sq_http_req *r = c->req;
    r->ev = ev;
    c->evcon = evhttp_request_get_connection(ev);
    evhttp_connection_set_closecb(c->evcon, on_closed, c);
    evhttp_request_set_on_complete_cb(ev, on_answered, r);
    if (!c->output_watched) evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    c->output_watched = true;
    event_assign(&c->watch, h->base, bufferevent_getfd(c->bev), EV_READ | EV_PERSIST, on_watch, c);
    event_add(&c->watch, NULL);
    if (r->refused_status) {
        h->stats.refused_by_rules += r->refused_status != 204;
        sq_http_refuse(r, r->refused_status, r->refused_code, "%s", r->refused_text);
    } else {
        r->route->handler(h->opt.user, r);
    }
}

/* ---- the client's leave ---------------------------------------------------------------------- */

void sq_http_conn_watch(sq_http_conn *c) { bufferevent_disable(c->bev, EV_READ); }

static void on_watch(evutil_socket_t fd, short what, void *user) {
    (void)what;
    sq_http_conn *c = user;
    if (c->req &&
        c->req->phase == SQ_REQ_ENDED) { /* the whole answer is written; a half-closed client may read it */
        event_del(&c->watch);
        return;
    }
    char byte;
    const ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0) {
        c->bytes_behind = true;
        event_del(&c->watch);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        sq_http_conn_drop(c);
    }
}

static bool has_left(const sq_http_conn *c) {
    struct pollfd p = {.fd = bufferevent_getfd(c->bev), .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLERR | POLLHUP);
}

/* ---- taking the bufferevent over ------------------------------------------------------------- */

static void name_peer(sq_http_conn *c, evutil_socket_t fd) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    const void *address = NULL;
    snprintf(c->peer, sizeof c->peer, "unix");
    if (!c->listener->unix_socket && getpeername(fd, (struct sockaddr *)&a, &n) == 0) {
        address = a.ss_family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)&a)->sin6_addr
                                          : (const void *)&((struct sockaddr_in *)&a)->sin_addr;
        inet_ntop(a.ss_family, address, c->peer, sizeof c->peer);
    }
    uint8_t sha[SQ_HTTP_SHA_BYTES];
    sq_http_sha256(c->peer, strlen(c->peer), sha);
    memcpy(&c->peer_hash, sha, sizeof c->peer_hash);
}

static bool too_many_of(const sq_http_conn *c) {
    const sq_http *h = c->h;
    if (c->listener->unix_socket || sq_http_is_loopback_address(c->peer)) return false;
    int32_t n = 0;
    for (size_t i = 0; i < h->n_conns; i++) n += h->conns[i]->peer_hash == c->peer_hash;
    return n > h->opt.connections_per_address;
}

static void take_over(sq_http_conn *c) {
    bufferevent_getcb(c->bev, &c->ev_read, NULL, &c->ev_event, &c->ev_arg);
    bufferevent_setcb(c->bev, gate_read, NULL, gate_event, c);
    bufferevent_enable(c->bev, EV_READ);
    c->phase = SQ_CONN_IDLE;
    c->deadline_ns = sq_http_deadline(c->h->opt.idle_s);
}

static bool arrive(sq_http_conn *c) {
    const evutil_socket_t fd = bufferevent_getfd(c->bev);
    const int on = 1, unsent = UNSENT_MAX;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a unix socket refuses both: fine */
    /* Without it the kernel takes up to 4 MB (tcp_wmem) for a reader who takes nothing. */
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    bufferevent_set_timeouts(c->bev, NULL, NULL);             /* the tick keeps time */
    name_peer(c, fd);
    c->arrived = true;
    take_over(c);
    if (!too_many_of(c)) return true;
    c->peer_hash = 0;
    refuse_request(c, 503, "too_many_connections", "too many connections from this address");
    return false;
}

static void on_kick(evutil_socket_t fd, short what, void *user) {
    (void)fd;
    (void)what;
    sq_http_conn *c = user;
    if (c->must_drop) {
        sq_http_conn_drop(c);
        return;
    }
    if (c->kick_drained) {
        c->kick_drained = false;
        sq_http_req *r = c->req;
        if (r && r->phase == SQ_REQ_STREAMING && r->on_drained) r->on_drained(r->on_drained_user, r);
        return;
    }
    if (c->phase != SQ_CONN_NEW) return;
    if (!c->arrived) {
        if (!arrive(c)) return;
    } else {
        take_over(c);
    }
    if (c->h->listening_ended && !c->held) {
        sq_http_conn_drop(c);
        return;
    }
    struct evbuffer *held = c->held;
    if (!held) return;
    c->held = NULL;
    const bool ok = evbuffer_prepend_buffer(bufferevent_get_input(c->bev), held) == 0;
    evbuffer_free(held);
    if (ok)
        gate_read(c->bev, c);
    else
        sq_http_conn_drop(c);
}

/* ---- time ------------------------------------------------------------------------------------ */

static void overdue(sq_http_conn *c) {
    if (c->phase == SQ_CONN_HEAD)
        refuse_request(c, 408, "timeout", "the headers did not come in time");
    else if (c->phase == SQ_CONN_BODY)
        refuse_request(c, 408, "timeout", "the body did not come in time");
    else
        sq_http_conn_drop(c);
}

static void tick_answer(sq_http_conn *c, uint64_t now) {
    const bool waits = evbuffer_get_length(bufferevent_get_output(c->bev)) > 0;
    const bool stalled = waits && now > c->progress_ns + (uint64_t)(c->h->opt.stalled_s * 1e9);
    if (stalled || (c->bytes_behind && c->req && c->req->phase != SQ_REQ_ENDED && has_left(c))) {
        sq_http_conn_drop(c);
        return;
    }
    if (c->req) sq_http_req_tick(c->req, now);
}

void sq_http_conns_tick(sq_http *h) {
    const uint64_t now = sq_os_now_ns();
    for (size_t i = h->n_conns; i-- > 0;) { /* from behind: a drop moves the last one into its place */
        if (i >= h->n_conns) continue;
        sq_http_conn *c = h->conns[i];
        if (c->phase == SQ_CONN_ANSWER)
            tick_answer(c, now);
        else if (c->deadline_ns && now > c->deadline_ns)
            overdue(c);
    }
}
