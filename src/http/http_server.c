/* SPDX-License-Identifier: Apache-2.0
 *
 * http_server.c - the server: options, listeners, keys, timers, signals, the loop.
 *
 * Threads: the loop thread owns everything but the two lists of http_post.c. evhttp instances are one per
 * listener, since evhttp says of a new connection only which instance took it. */
#include "http/http_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

sq_http_options sq_http_options_default(void) {
    return (sq_http_options){.body_max = 32u << 20,
                             .header_bytes_max = 16384,
                             .connections_max = 12000,
                             .connections_per_address = 1024,
                             .header_s = 10,
                             .body_s = 60,
                             .idle_s = 75,
                             .output_max = 256 << 10,
                             .stalled_s = 60,
                             .workers = 1};
}

/* ---- accepting ------------------------------------------------------------------------------- */

void sq_http_set_accepting(sq_http *h) {
    const bool wanted =
        !h->listening_ended && !h->out_of_files && h->n_conns < (size_t)h->opt.connections_max;
    if (wanted == h->accepting) return;
    h->accepting = wanted;
    for (sq_http_listener *l = h->listeners; l; l = l->next) {
        if (!l->lev) continue;
        if (wanted)
            evconnlistener_enable(l->lev);
        else
            evconnlistener_disable(l->lev);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *user);

static int find_server(const struct event_base *base, const struct event *ev, void *out) {
    (void)base;
    if (event_get_callback(ev) != on_wake) return 0;
    *(sq_http **)out = event_get_callback_arg(ev);
    return 1;
}

/* Out of file descriptors or memory: asking again at once would spin, so the door stays shut for a moment. A
 * listener's user pointer is evhttp's since evhttp took the listener, so the server is found by its event. */
static void on_accept_error(struct evconnlistener *lev, void *user) {
    (void)user;
    const int e = errno;
    sq_http *h = NULL;
    if (event_base_foreach_event(evconnlistener_get_base(lev), find_server, &h) != 1 || !h) return;
    if (!h->warned_of_files && h->opt.warn) { /* once, until a connection came in again */
        char line[160];
        snprintf(line, sizeof line, "http: cannot accept connections (%s); trying again every 200 ms",
                 strerror(e));
        h->opt.warn(h->opt.warn_user, line);
    }
    h->out_of_files = h->warned_of_files = true;
    sq_http_set_accepting(h);
    event_add(&h->reopen, &(struct timeval){0, 200000});
}

static void on_reopen(evutil_socket_t fd, short what, void *user) {
    (void)fd;
    (void)what;
    sq_http *h = user;
    h->out_of_files = false;
    sq_http_set_accepting(h);
}

static void on_tick(evutil_socket_t fd, short what, void *user) {
    (void)fd;
    (void)what;
    sq_http_conns_tick(user);
}

static void on_wake(evutil_socket_t fd, short what, void *user) {
    (void)fd;
    (void)what;
    sq_http *h = user;
    sq_http_run_posted(h);
    if (atomic_load(&h->stopping)) event_base_loopbreak(h->base);
}

/* ---- new and free ---------------------------------------------------------------------------- */

static double least(double a, double b) { return a < b ? a : b; }

/* Four looks within the shortest limit, at least four a second. */
static struct timeval tick_of(const sq_http_options *o) {
    double s = least(least(o->header_s, o->body_s), least(o->idle_s, o->stalled_s)) / 4;
    s = s > 0.25 ? 0.25 : s < 0.01 ? 0.01 : s;
    return (struct timeval){0, (suseconds_t)(s * 1e6)};
}

static squish_status begin_events(sq_http *h, squish_error *err) {
    struct event_config *cfg = event_config_new();
    /* The loop thread alone touches the base: no locks. */
    if (cfg) event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    h->base = cfg ? event_base_new_with_config(cfg) : NULL;
    if (cfg) event_config_free(cfg);
    if (!h->base) return sq_fail(err, SQUISH_NO_MEMORY, "http: cannot make an event loop");
    if (pipe(h->wake_fd) != 0) {
        h->wake_fd[0] = h->wake_fd[1] = -1;
        return sq_fail_errno(err, errno, "http: cannot make a pipe");
    }
    for (int i = 0; i < 2; i++) {
        evutil_make_socket_nonblocking(h->wake_fd[i]);
        evutil_make_socket_closeonexec(h->wake_fd[i]);
    }
    event_assign(&h->wake, h->base, h->wake_fd[0], EV_READ | EV_PERSIST, on_wake, h);
    event_assign(&h->tick, h->base, -1, EV_PERSIST, on_tick, h);
    event_assign(&h->reopen, h->base, -1, 0, on_reopen, h);
    const struct timeval every = tick_of(&h->opt);
    if (event_add(&h->wake, NULL) != 0 || event_add(&h->tick, &every) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "http: no memory for events");
    return SQUISH_OK;
}

squish_status sq_http_new(sq_http **out, const sq_http_options *opt, squish_error *err) {
    *out = NULL;
    sq_http *h = sq_alloc_zero(opt->alloc, sizeof *h);
    if (!h) return sq_fail(err, SQUISH_NO_MEMORY, "http: no memory for a server");
    h->alloc = opt->alloc && opt->alloc->resize ? *opt->alloc : sq_alloc_default();
    h->opt = *opt;
    if (!h->opt.spool_dir) h->opt.spool_dir = "/tmp";
    if (h->opt.workers < 1) h->opt.workers = 1;
    h->wake_fd[0] = h->wake_fd[1] = -1;
    h->posted.last = &h->posted.first;
    h->queued.last = &h->queued.first;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more_work, NULL);
    if (!sq_os_random(&h->id_state, sizeof h->id_state)) h->id_state = sq_os_now_ns();
    squish_status st;
    SQ_GUARD(begin_events(h, err));
    SQ_GUARD(sq_http_threads_begin(h, err));
    h->accepting = true;
    *out = h;
    return SQUISH_OK;
fail:
    sq_http_free(h);
    return st;
}

static void free_keys(sq_http *h) {
    sq_alloc_free(&h->alloc, h->keys, h->n_keys * sizeof *h->keys);
    h->keys = NULL;
    h->n_keys = 0;
}

static void free_listener(sq_http *h, sq_http_listener *l) {
    if (l->ev) evhttp_free(l->ev);
    if (l->path) {
        unlink(l->path);
        sq_alloc_free(&h->alloc, l->path, strlen(l->path) + 1);
    }
    sq_alloc_free(&h->alloc, l, sizeof *l);
}

void sq_http_free(sq_http *h) {
    if (!h) return;
    h->listening_ended = true;
    sq_http_threads_end(h);
    if (h->base) sq_http_set_accepting(h);
    while (h->n_conns) sq_http_conn_drop(h->conns[h->n_conns - 1]);
    if (h->wake_fd[0] >= 0) sq_http_run_rest(h);
    while (h->reqs) { /* what its handler never ended */
        sq_http_req *r = h->reqs;
        struct evhttp_request *ev = r->ev;
        sq_http_req_free(r);
        if (ev) evhttp_request_free(ev);
    }
    for (sq_http_listener *l = h->listeners, *next; l; l = next) {
        next = l->next;
        free_listener(h, l);
    }
    for (sq_http_timer *t = h->timers, *next; t; t = next) {
        next = t->next;
        event_del(&t->ev);
        sq_alloc_free(&h->alloc, t, sizeof *t);
    }
    if (h->wake_fd[0] >= 0) {
        event_del(&h->wake);
        event_del(&h->tick);
        event_del(&h->reopen);
        close(h->wake_fd[0]);
        close(h->wake_fd[1]);
    }
    if (h->base) event_base_free(h->base);
    free_keys(h);
    sq_alloc_free(&h->alloc, h->conns, h->cap_conns * sizeof *h->conns);
    pthread_cond_destroy(&h->more_work);
    pthread_mutex_destroy(&h->lock);
    const squish_alloc a = h->alloc;
    sq_alloc_free(&a, h, sizeof *h);
}

squish_status sq_http_set_keys(sq_http *h, const char *const *keys, size_t n, squish_error *err) {
    uint8_t(*sums)[SQ_HTTP_SHA_BYTES] = n ? sq_alloc_new(&h->alloc, n * sizeof *sums) : NULL;
    if (n && !sums) return sq_fail(err, SQUISH_NO_MEMORY, "http: no memory for %zu keys", n);
    for (size_t i = 0; i < n; i++) {
        if (!keys[i][0]) {
            sq_alloc_free(&h->alloc, sums, n * sizeof *sums);
            return sq_fail(err, SQUISH_INVALID, "key %zu is empty", i + 1);
        }
        sq_http_sha256(keys[i], strlen(keys[i]), sums[i]);
    }
    free_keys(h);
    h->keys = sums;
    h->n_keys = n;
    return SQUISH_OK;
}

/* ---- listeners ------------------------------------------------------------------------------- */

/* fd becomes the listener's, or is closed. unix_path: a socket file, removed at the end; "": one that stays.
 */
static squish_status add_listener(sq_http *h, int fd, int tag, bool loopback, const char *unix_path,
                                  squish_error *err) {
    sq_http_listener *l = sq_alloc_zero(&h->alloc, sizeof *l);
    if (l)
        *l = (sq_http_listener){.h = h, .tag = tag, .loopback = loopback, .unix_socket = unix_path != NULL};
    const size_t path_n = unix_path && *unix_path ? strlen(unix_path) + 1 : 0;
    char *path = l && path_n ? sq_alloc_new(&h->alloc, path_n) : NULL;
    if (path) memcpy(path, unix_path, path_n);
    if (l) l->path = path;
    if (l && (path || !path_n)) l->ev = evhttp_new(h->base);
    if (l && l->ev)
        l->lev =
            evconnlistener_new(h->base, NULL, l, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, fd);
    if (!l || !l->ev || !l->lev) {
        const int e = l && l->ev ? errno : ENOMEM;
        close(fd);
        if (l) free_listener(h, l);
        return sq_fail_errno(err, e, "http: cannot listen");
    }
    evhttp_set_bevcb(l->ev, sq_http_conn_new, l);
    evhttp_set_gencb(l->ev, sq_http_on_request, l);
    evhttp_set_allowed_methods(l->ev, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_DELETE | EVHTTP_REQ_HEAD |
                                          EVHTTP_REQ_PUT | EVHTTP_REQ_OPTIONS);
    evhttp_set_default_content_type(l->ev, NULL);
    evhttp_set_max_headers_size(l->ev, (ev_ssize_t)h->opt.header_bytes_max + 256);
    evhttp_set_max_body_size(l->ev, 0); /* bodies stay with the gate */
    evconnlistener_set_error_cb(l->lev, on_accept_error);
    l->bound = evhttp_bind_listener(l->ev, l->lev);
    if (!l->bound) {
        evconnlistener_free(l->lev);
        l->lev = NULL;
        free_listener(h, l);
        return sq_fail(err, SQUISH_NO_MEMORY, "http: no memory for a listener");
    }
    l->next = h->listeners;
    h->listeners = l;
    if (!h->accepting) evconnlistener_disable(l->lev);
    return SQUISH_OK;
}

static bool is_loopback(const struct sockaddr *a) {
    char text[46];
    const void *p = a->sa_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr
                                             : (const void *)&((const struct sockaddr_in *)a)->sin_addr;
    return inet_ntop(a->sa_family, p, text, sizeof text) && sq_http_is_loopback_address(text);
}

static squish_status bind_to(const struct addrinfo *ai, const char *address, int port, int *fd, int *port_out,
                             squish_error *err) {
    const int on = 1;
    *fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0) return sq_fail_errno(err, errno, "http: cannot make a socket");
    setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ai->ai_family == AF_INET6) setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    struct sockaddr_storage bound;
    socklen_t n = sizeof bound;
    if (bind(*fd, ai->ai_addr, ai->ai_addrlen) != 0 || getsockname(*fd, (struct sockaddr *)&bound, &n) != 0) {
        const int e = errno;
        close(*fd);
        return sq_fail_errno(err, e, "cannot listen on %s port %d", address, port);
    }
    if (port_out)
        *port_out = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                      : ((struct sockaddr_in *)&bound)->sin_port);
    return SQUISH_OK;
}

static squish_status refuse_open(const char *address, squish_error *err) {
    return sq_fail(err, SQUISH_INVALID,
                   "listening on %s, which others can reach, needs an API key (--api-key-file FILE)",
                   address);
}

/* *ai is the caller's to free, unless there was an error. */
static squish_status resolve(const char *address, int port, bool keyed, bool insecure, struct addrinfo **ai,
                             squish_error *err) {
    char service[16];
    if (port < 0 || port > 65535)
        return sq_fail(err, SQUISH_INVALID, "port %d is not within 0 to 65535", port);
    snprintf(service, sizeof service, "%d", port);
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    const int e = getaddrinfo(address, service, &hints, ai);
    if (e) return sq_fail(err, SQUISH_INVALID, "cannot listen on '%s': %s", address, gai_strerror(e));
    if (keyed || insecure || is_loopback((*ai)->ai_addr)) return SQUISH_OK;
    freeaddrinfo(*ai);
    return refuse_open(address, err);
}

squish_status sq_http_check_address(const char *address, int port, bool keyed, bool insecure,
                                    squish_error *err) {
    struct addrinfo *ai;
    SQ_TRY(resolve(address, port, keyed, insecure, &ai, err));
    freeaddrinfo(ai);
    return SQUISH_OK;
}

squish_status sq_http_listen(sq_http *h, const char *address, int port, int tag, bool insecure, int *port_out,
                             squish_error *err) {
    struct addrinfo *ai;
    int fd = -1;
    SQ_TRY(resolve(address, port, h->n_keys > 0, insecure, &ai, err));
    const bool loopback = is_loopback(ai->ai_addr);
    const squish_status st = bind_to(ai, address, port, &fd, port_out, err);
    freeaddrinfo(ai);
    return st == SQUISH_OK ? add_listener(h, fd, tag, loopback, NULL, err) : st;
}

/* Whether somebody serves that socket file. */
static bool is_served(const struct sockaddr_un *a) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

squish_status sq_http_listen_unix(sq_http *h, const char *path, int tag, squish_error *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    const size_t n = strlen(path);
    if (n == 0 || n >= sizeof a.sun_path)
        return sq_fail(err, SQUISH_INVALID, "socket path of %zu bytes, at most %zu", n,
                       sizeof a.sun_path - 1);
    memcpy(a.sun_path, path, n + 1);
    struct stat s;
    if (lstat(path, &s) == 0) {
        if (!S_ISSOCK(s.st_mode)) return sq_fail(err, SQUISH_INVALID, "'%s' is there and is no socket", path);
        if (is_served(&a)) return sq_fail(err, SQUISH_INVALID, "'%s' is held by a server that answers", path);
        unlink(path);
    }
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return sq_fail_errno(err, errno, "http: cannot make a socket");
    const mode_t old = umask(0177);
    const int bound = bind(fd, (struct sockaddr *)&a, sizeof a);
    const int e = errno;
    umask(old);
    if (bound != 0) {
        close(fd);
        return sq_fail_errno(err, e, "cannot listen on '%s'", path);
    }
    return add_listener(h, fd, tag, false, path, err);
}

static void url_of(const struct sockaddr_storage *a, char *address, size_t address_n, char *url, size_t n) {
    const bool six = a->ss_family == AF_INET6;
    const struct sockaddr_in6 *six_a = (const struct sockaddr_in6 *)a;
    const struct sockaddr_in *four_a = (const struct sockaddr_in *)a;
    const void *p = six ? (const void *)&six_a->sin6_addr : (const void *)&four_a->sin_addr;
    if (!inet_ntop(a->ss_family, p, address, (socklen_t)address_n)) snprintf(address, address_n, "?");
    snprintf(url, n, six ? "http://[%s]:%d" : "http://%s:%d", address,
             ntohs(six ? six_a->sin6_port : four_a->sin_port));
}

squish_status sq_http_listen_inherited(sq_http *h, int fd, int tag, bool insecure, char *where, size_t n,
                                       bool *is_file, squish_error *err) {
    struct sockaddr_storage a = {0};
    socklen_t a_n = sizeof a, int_n = sizeof(int);
    int type = 0, listens = 0;
    char address[INET6_ADDRSTRLEN];
    squish_status st = SQUISH_OK;
    if (getsockname(fd, (struct sockaddr *)&a, &a_n) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_n) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_n) != 0)
        st = sq_fail_errno(err, errno, "file %d, handed over as a socket", fd);
    else if (type != SOCK_STREAM || !listens)
        st = sq_fail(err, SQUISH_INVALID, "file %d, handed over, is no listening stream socket (Accept=no)",
                     fd);
    else if (a.ss_family != AF_UNIX && a.ss_family != AF_INET && a.ss_family != AF_INET6)
        st = sq_fail(err, SQUISH_INVALID, "file %d, handed over, is a socket of family %d", fd, a.ss_family);
    *is_file = st == SQUISH_OK && a.ss_family == AF_UNIX;
    bool loopback = false;
    if (*is_file) {
        const size_t path_n =
            a_n > offsetof(struct sockaddr_un, sun_path) ? a_n - offsetof(struct sockaddr_un, sun_path) : 0;
        snprintf(where, n, "%.*s", (int)path_n, ((const struct sockaddr_un *)&a)->sun_path);
    } else if (st == SQUISH_OK) {
        url_of(&a, address, sizeof address, where, n);
        loopback = is_loopback((const struct sockaddr *)&a);
        if (!loopback && !insecure && h->n_keys == 0) st = refuse_open(address, err);
    }
    if (st == SQUISH_OK && evutil_make_socket_nonblocking(fd) != 0)
        st = sq_fail_errno(err, errno, "file %d, handed over as a socket", fd);
    if (st != SQUISH_OK) {
        close(fd);
        return st;
    }
    return add_listener(h, fd, tag, loopback, *is_file ? "" : NULL, err);
}

void sq_http_close_listeners(sq_http *h) {
    h->listening_ended = true;
    sq_http_set_accepting(h);
    for (sq_http_listener *l = h->listeners; l; l = l->next) {
        struct evhttp_bound_socket *b = l->bound;
        l->bound = NULL;
        l->lev = NULL;
        if (b) evhttp_del_accept_socket(l->ev, b); /* frees the evconnlistener and closes its socket */
    }
    for (size_t i = h->n_conns; i-- > 0;)
        if (i < h->n_conns && h->conns[i]->phase == SQ_CONN_IDLE) sq_http_conn_drop(h->conns[i]);
}

/* ---- running --------------------------------------------------------------------------------- */

squish_status sq_http_run(sq_http *h, squish_error *err) {
    /* A write to a client that left must be an error, not the end of the program. */
    struct sigaction old;
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
    sq_os_thread_is_brief();
    while (!atomic_load(&h->stopping))
        if (event_base_dispatch(h->base) != 0) return sq_fail(err, SQUISH_IO, "http: the event loop failed");
    return SQUISH_OK;
}

static void on_timer(evutil_socket_t fd, short what, void *user) {
    (void)what;
    sq_http_timer *t = user;
    void *const arg = t->user;
    if (t->on_signal) {
        t->on_signal(arg, (int)fd);
        return;
    }
    void (*fn)(void *) = t->fn;
    if (t->once) {
        sq_http_timer **at = &t->h->timers;
        while (*at != t) at = &(*at)->next;
        *at = t->next;
        sq_alloc_free(&t->h->alloc, t, sizeof *t);
    }
    fn(arg);
}

static squish_status add_timer(sq_http *h, int fd, short what, double seconds, const sq_http_timer *of) {
    sq_http_timer *t = sq_alloc_new(&h->alloc, sizeof *t);
    if (!t) return SQUISH_NO_MEMORY;
    *t = *of;
    t->h = h;
    event_assign(&t->ev, h->base, fd, what, on_timer, t);
    const struct timeval tv = {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
    if (event_add(&t->ev, seconds < 0 ? NULL : &tv) != 0) {
        sq_alloc_free(&h->alloc, t, sizeof *t);
        return SQUISH_NO_MEMORY;
    }
    t->next = h->timers;
    h->timers = t;
    return SQUISH_OK;
}

squish_status sq_http_every(sq_http *h, double seconds, void (*fn)(void *user), void *user) {
    return add_timer(h, -1, EV_PERSIST, seconds, &(sq_http_timer){.fn = fn, .user = user});
}

squish_status sq_http_after(sq_http *h, double seconds, void (*fn)(void *user), void *user) {
    return add_timer(h, -1, 0, seconds, &(sq_http_timer){.fn = fn, .user = user, .once = true});
}

squish_status sq_http_on_signal(sq_http *h, int sig, void (*fn)(void *user, int signal), void *user) {
    return add_timer(h, sig, EV_SIGNAL | EV_PERSIST, -1, &(sq_http_timer){.on_signal = fn, .user = user});
}

int32_t sq_http_requests_open(const sq_http *h) { return h->n_reqs; }

void sq_http_get_stats(const sq_http *h, sq_http_stats *out) {
    *out = h->stats;
    out->connections = (int32_t)h->n_conns;
    out->requests_open = h->n_reqs;
    out->half_open = 0;
    for (size_t i = 0; i < h->n_conns; i++) out->half_open += h->conns[i]->phase == SQ_CONN_HEAD;
}
