/* SPDX-License-Identifier: Apache-2.0
 *
 * api_serve.c - the life of the server: listeners, routes, timers, drain, reload.
 *
 *   new: keys, log, listeners       run: loads models, serves        SIGTERM: drains, then run returns
 *
 * Threads. sq_api_run's thread is the loop of http; all state of sq_api belongs to it. Workers of http open
 * models and read, render and print requests; each batch has its own thread. No locks: other threads post. */
#include "api/api_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* For a reader who takes nothing there are at most 256 kB: OUTPUT_MAX, 32 kB with the kernel (http_conn.c)
 * and 96 kB of events (sched_int.h). */
enum {
    WORKERS = 3,
    OUTPUT_MAX = 128 << 10,
    KEYS_MAX = 10000,
    KEY_FILE_MAX = 1 << 20,
    STALLED_S = 60,
    AFTER_CANCEL_S = 2
};

static const sq_api_routes *const route_sets[] = {
    &sq_api_routes_ops,           &sq_api_routes_openai,       &sq_api_routes_chat,
    &sq_api_routes_completions,   &sq_api_routes_embeddings,   &sq_api_routes_tokens,
    &sq_api_routes_page,          &sq_api_routes_ollama,       &sq_api_routes_ollama_embed,
    &sq_api_routes_ollama_models, &sq_api_routes_ollama_store, &sq_api_routes_blobs,
    &sq_api_routes_anthropic,     &sq_api_routes_responses,    &sq_api_routes_pull,
};

const sq_http_route *sq_api_route(size_t i) {
    for (size_t k = 0; k < SQ_COUNT(route_sets); i -= route_sets[k++]->n)
        if (i < route_sets[k]->n) return &route_sets[k]->routes[i];
    return NULL;
}

sq_api_options sq_api_options_default(void) {
    return (sq_api_options){.host = "127.0.0.1",
                            .port = 11435,
                            .ollama_port = -1,
                            .parallel = 8,
                            .keep_alive_s = 300,
                            .queue_max = 256,
                            .request_timeout_s = 600,
                            .drain_timeout_s = 30,
                            .kv_options = squish_kv_options_default(),
                            .handle_signals = true};
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* One key a line; blank lines and lines that begin with # are nothing. keys [KEYS_MAX], their text in ar. */
static squish_status read_key_file(const char *path, sq_arena *ar, const char **keys, size_t *n,
                                   squish_error *err) {
    struct stat s;
    sq_span text;
    if (stat(path, &s) != 0) return sq_fail_errno(err, errno, "%s", path);
    if (!S_ISREG(s.st_mode) || (s.st_mode & 077))
        return sq_fail(err, SQUISH_INVALID,
                       "%s: mode %04o, wanted a file that only its owner may read (chmod 600)", path,
                       (unsigned)s.st_mode & 07777);
    SQ_TRY(sq_os_read_file(path, KEY_FILE_MAX, ar, &text, err));
    const char *p = (const char *)text.p, *end = p + text.n;
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        const char *a = p, *b = stop;
        while (a < b && strchr(" \t\r", *a)) a++;
        while (b > a && strchr(" \t\r", b[-1])) b--;
        p = stop + 1;
        if (a == b || *a == '#') continue;
        if (*n == KEYS_MAX) return sq_fail(err, SQUISH_INVALID, "%s: more than %d keys", path, KEYS_MAX);
        keys[*n] = sq_arena_strndup(ar, a, (size_t)(b - a));
        if (!keys[(*n)++]) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", path);
    }
    return SQUISH_OK;
}

/* Keys of the options and of their file; the list lies in ar, as those of the file do. */
static squish_status collect_keys(const sq_api_options *o, sq_arena *ar, const char ***out, size_t *n,
                                  squish_error *err) {
    const char **keys = SQ_ARENA_ARRAY(ar, const char *, KEYS_MAX);
    *n = 0;
    if (!keys) return sq_fail(err, SQUISH_NO_MEMORY, "keys: out of memory");
    for (int32_t i = 0; i < o->n_keys && *n < KEYS_MAX; i++) keys[(*n)++] = o->keys[i];
    if (o->key_file) SQ_TRY(read_key_file(o->key_file, ar, keys, n, err));
    if (o->key_file && *n == 0) return sq_fail(err, SQUISH_INVALID, "%s: no key in it", o->key_file);
    *out = keys;
    return SQUISH_OK;
}

static squish_status set_keys(sq_api *api, squish_error *err) {
    sq_arena ar;
    const char **keys;
    size_t n;
    sq_arena_init(&ar, &api->alloc, 4096, 8 << 20);
    squish_status st = collect_keys(&api->opt, &ar, &keys, &n, err);
    if (st == SQUISH_OK) st = sq_http_set_keys(api->http, keys, n, err);
    if (st == SQUISH_OK) api->keyed = n > 0;
    sq_arena_deinit(&ar);
    return st;
}

squish_status sq_api_check(const sq_api_options *o, squish_error *err) {
    const squish_alloc a = o->alloc ? *o->alloc : sq_alloc_default();
    sq_arena ar;
    const char **keys;
    size_t n;
    sq_arena_init(&ar, &a, 4096, 8 << 20);
    squish_status st = collect_keys(o, &ar, &keys, &n, err);
    for (size_t i = 0; st == SQUISH_OK && i < n; i++)
        if (!keys[i][0]) st = sq_fail(err, SQUISH_INVALID, "key %zu is empty", i + 1);
    if (st == SQUISH_OK) st = sq_http_check_address(o->host, o->port, n > 0, o->insecure, err);
    if (st == SQUISH_OK && o->ollama_port >= 0)
        st = sq_http_check_address(o->host, o->ollama_port, n > 0, o->insecure, err);
    sq_arena_deinit(&ar);
    return st;
}

/* ---- what http asks -------------------------------------------------------------------------- */

static void error_body(void *user, const char *path, int status, const char *code, const char *message,
                       sq_buf *out, const char **content_type) {
    (void)user;
    *content_type = "application/json";
    sq_api_error e = {.status = status, .code = code};
    snprintf(e.message, sizeof e.message, "%s", message);
    sq_api_error_form(path)(&e, "", out);
}

static void request_done(void *user, const sq_http_req *r, const char *route, int status, uint64_t bytes_out,
                         double seconds) {
    sq_api *api = user;
    sq_api_call *c = sq_http_user(r);
    sq_api_count_request(api, route, status, seconds);
    sq_api_log_request(api, r, route, status, bytes_out, seconds, c);
    if (c) sq_api_call_free(c);
}

/* ---- draining -------------------------------------------------------------------------------- */

static void cancel_all(sq_api *api, const char *why) {
    for (sq_api_call *c = api->calls, *next; c; c = next) {
        next = sq_api_call_next(c);
        sq_api_call_cancel(c, 503, "draining", why);
    }
}

static void check_drained(void *user) {
    sq_api *api = user;
    const uint64_t now = sq_os_now_ns();
    const bool idle = api->n_calls == 0 && sq_http_requests_open(api->http) == 0;
    if (now >= api->drain_until_ns && api->n_calls > 0)
        cancel_all(api, "the server is going down and this answer took longer than its drain timeout");
    if (idle || now >= api->drain_until_ns + AFTER_CANCEL_S * (uint64_t)1000000000 ||
        sq_http_after(api->http, 0.02, check_drained, api) != SQUISH_OK)
        sq_http_stop(api->http);
}

void sq_api_drain(sq_api *api) {
    if (api->draining) { /* asked twice: now */
        sq_http_stop(api->http);
        return;
    }
    api->draining = true;
    sq_service_say("STOPPING=1\nSTATUS=finishing answers");
    api->drain_until_ns = sq_os_now_ns() + (uint64_t)(api->opt.drain_timeout_s * 1e9);
    sq_http_close_listeners(api->http);
    check_drained(api);
}

static void drain_posted(void *user) { sq_api_drain(user); }
static void on_stop_signal(void *user, int sig) {
    (void)sig;
    sq_api_drain(user);
}

void sq_api_stop(sq_api *api) {
    if (sq_http_post(api->http, drain_posted, api) != SQUISH_OK) sq_http_stop(api->http);
}

static void warn(const sq_api *api, const char *line) {
    if (api->opt.warn) api->opt.warn(api->opt.warn_user, line);
}

static void on_reload_signal(void *user, int sig) {
    (void)sig;
    sq_api *api = user;
    squish_error err = {0};
    char line[600];
    if (set_keys(api, &err) == SQUISH_OK)
        snprintf(line, sizeof line, "keys were read again");
    else
        snprintf(line, sizeof line, "keys stay as they were: %s", err.text);
    warn(api, line);
}

/* ---- timers ---------------------------------------------------------------------------------- */

/* A step that never ends means the kernels hang; nothing can be done about it here but to say so. */
static void watch(sq_api *api) {
    bool stalled = false;
    for (sq_api_model *m = sq_api_model_first(api); m; m = m->next) {
        if (m->state != SQ_API_READY) continue;
        squish_batch_stats s;
        squish_batch_get_stats(m->batch, &s);
        if (s.step_age_ns < STALLED_S * (uint64_t)1000000000) continue;
        stalled = true;
        if (api->stalled) continue;
        char line[400];
        snprintf(line, sizeof line, "%s: a step has run for %d s (%d answers run, %d wait)", m->name,
                 STALLED_S, s.running, s.queued);
        warn(api, line);
    }
    api->stalled = stalled;
}

static void tick(void *user) {
    sq_api *api = user;
    sq_api_models_tick(api);
    watch(api);
    const uint64_t now = sq_os_now_ns();
    if (!api->watchdog_ns || now < api->watchdog_next_ns) return;
    api->watchdog_next_ns = now + api->watchdog_ns / 3;
    if (!api->stalled) sq_service_say("WATCHDOG=1");
}

void sq_api_models_changed(sq_api *api) {
    int32_t n = 0;
    double load_ms = 0;
    for (const sq_api_model *m = api->models; m; m = m->next) {
        if (!m->pinned) continue;
        if (m->state != SQ_API_READY) return;
        n++;
        load_ms += m->load_ms;
    }
    if (api->ready) return;
    api->ready = true;
    const sq_api_ready r = {.url = api->url,
                            .ollama_url = api->ollama_url,
                            .socket = api->socket,
                            .keyed = api->keyed,
                            .load_ms = load_ms,
                            .n_models = n};
    sq_service_say("READY=1\nSTATUS=serving");
    if (api->opt.ready) api->opt.ready(api->opt.ready_user, &r);
}

/* ---- beginning ------------------------------------------------------------------------------- */

static squish_status collect_routes(sq_api *api, squish_error *err) {
    while (sq_api_route(api->n_routes)) api->n_routes++;
    api->routes = sq_alloc_new(&api->alloc, api->n_routes * sizeof *api->routes);
    if (!api->routes) return sq_fail(err, SQUISH_NO_MEMORY, "routes: out of memory");
    for (size_t i = 0; i < api->n_routes; i++) api->routes[i] = *sq_api_route(i);
    return SQUISH_OK;
}

static squish_status make_http(sq_api *api, squish_error *err) {
    sq_http_options h = sq_http_options_default();
    h.alloc = &api->alloc;
    h.routes = api->routes;
    h.n_routes = api->n_routes;
    h.user = api;
    h.workers = WORKERS;
    h.output_max = OUTPUT_MAX;
    h.hosts = &api->opt.host;
    h.n_hosts = 1;
    h.origins = api->opt.origins;
    h.n_origins = api->opt.n_origins;
    h.error_body = error_body;
    h.done = request_done;
    h.warn = api->opt.warn;
    h.warn_user = api->opt.warn_user;
    return sq_http_new(&api->http, &h, err);
}

static squish_status listen_on(sq_api *api, int port, int tag, char *url, size_t n, squish_error *err) {
    int got = 0;
    const bool six = strchr(api->opt.host, ':') != NULL;
    SQ_TRY(sq_http_listen(api->http, api->opt.host, port, tag, api->opt.insecure, &got, err));
    snprintf(url, n, six ? "http://[%s]:%d" : "http://%s:%d", api->opt.host, got);
    return SQUISH_OK;
}

static squish_status take_inherited(sq_api *api, squish_error *err) {
    squish_status st = SQUISH_OK;
    for (int32_t i = 0; i < api->opt.n_inherited; i++) {
        const sq_service_socket *s = &api->opt.inherited[i];
        const int tag = strcmp(s->name, "ollama") == 0 ? SQ_API_TAG_OLLAMA : SQ_API_TAG_MAIN;
        char where[128] = "";
        bool is_file = false;
        if (st != SQUISH_OK) {
            close(s->fd);
            continue;
        }
        st = sq_http_listen_inherited(api->http, s->fd, tag, api->opt.insecure, where, sizeof where, &is_file,
                                      err);
        char *to = is_file ? api->socket : tag == SQ_API_TAG_OLLAMA ? api->ollama_url : api->url;
        if (!*to) snprintf(to, sizeof api->url, "%s", where);
    }
    return st;
}

static squish_status listen_all(sq_api *api, squish_error *err) {
    if (api->opt.n_inherited)
        SQ_TRY(take_inherited(api, err));
    else
        SQ_TRY(listen_on(api, api->opt.port, SQ_API_TAG_MAIN, api->url, sizeof api->url, err));
    if (api->opt.ollama_port >= 0)
        SQ_TRY(listen_on(api, api->opt.ollama_port, SQ_API_TAG_OLLAMA, api->ollama_url,
                         sizeof api->ollama_url, err));
    if (!api->opt.socket) return SQUISH_OK;
    snprintf(api->socket, sizeof api->socket, "%s", api->opt.socket);
    return sq_http_listen_unix(api->http, api->opt.socket, SQ_API_TAG_SOCKET, err);
}

static squish_status set_timers(sq_api *api, squish_error *err) {
    squish_status st = sq_http_every(api->http, 1.0, tick, api);
    if (st == SQUISH_OK && api->opt.handle_signals) {
        st = sq_http_on_signal(api->http, SIGTERM, on_stop_signal, api);
        if (st == SQUISH_OK) st = sq_http_on_signal(api->http, SIGINT, on_stop_signal, api);
        if (st == SQUISH_OK) st = sq_http_on_signal(api->http, SIGHUP, on_reload_signal, api);
    }
    return st == SQUISH_OK ? st : sq_fail(err, st, "timers of the server: %s", squish_status_text(st));
}

squish_status sq_api_new(sq_api **out, const sq_api_options *opt, squish_error *err) {
    *out = NULL;
    const squish_alloc a = opt->alloc ? *opt->alloc : sq_alloc_default();
    if (opt->parallel < 1 || opt->parallel > 32)
        return sq_fail(err, SQUISH_INVALID, "parallel is %d, wanted 1 to 32", opt->parallel);
    sq_api *api = sq_alloc_zero(&a, sizeof *api);
    if (!api) return sq_fail(err, SQUISH_NO_MEMORY, "server: out of memory");
    api->opt = *opt;
    api->alloc = a;
    api->log_fd = -1;
    api->t_start_ns = sq_os_now_ns();
    api->started_unix = sq_os_unix_time();
    api->watchdog_ns = sq_service_watchdog_ns();
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_api_log_open(api, err));
    SQ_GUARD(collect_routes(api, err));
    SQ_GUARD(make_http(api, err));
    SQ_GUARD(set_keys(api, err));
    SQ_GUARD(listen_all(api, err));
    SQ_GUARD(set_timers(api, err));
    *out = api;
    return SQUISH_OK;
fail:
    sq_api_free(api);
    return st;
}

squish_status sq_api_run(sq_api *api, squish_error *err) {
    SQ_TRY(sq_api_models_begin(api, err));
    SQ_TRY(sq_http_run(api->http, err));
    if (!api->failed) return SQUISH_OK;
    return sq_fail(err, api->error.code, "%s", api->error.text);
}

void sq_api_free(sq_api *api) {
    if (!api) return;
    api->ending = true; /* no load begins any more */
    if (api->http) {
        cancel_all(api, "the server is going down");
        sq_api_models_dismiss(api);
    }
    sq_api_pulls_stop(api);
    sq_http_free(api->http); /* runs what was posted and what workers were at */
    sq_api_models_end(api);
    sq_api_kept_free(api);
    sq_api_metrics_free(api);
    sq_api_log_close(api);
    const squish_alloc a = api->alloc;
    sq_alloc_free(&a, api->routes, api->n_routes * sizeof *api->routes);
    sq_alloc_free(&a, api, sizeof *api);
}
