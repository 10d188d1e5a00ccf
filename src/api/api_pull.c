/* SPDX-License-Identifier: Apache-2.0
 *
 * api_pull.c - POST /api/pull: a model of a hub into the store, its progress as lines.
 *
 * One job for each model that is pulled, with a thread of its own; who asks for the same while it runs
 * watches the same job. The job's thread writes what has happened under the lock and posts; the loop thread
 * reads it and tells every watcher what is new to him. When the last of them has left, the job is stopped;
 * what it has fetched stays for the next. A checkpoint is compressed behind it, as squish run would (unless
 * the server runs sources), so that the model answers when the last line says success. Only names are taken,
 * no addresses: a client shall not have the server ask machines of his choice. */
#include "api/api_int.h"
#include "hub/hub.h"
#include "squish_build.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { DIGITS = 12 };

struct sq_api_pull {
    sq_api_pull *next;
    sq_api *api;
    hub_catalog catalog;
    hub_ref ref;
    pthread_t thread;
    sq_http_note note;
    atomic_bool posted, stop;
    sq_api_call *watchers; /* by state->next; loop thread, as the next */
    bool joined;
    pthread_mutex_t lock;
    /* Under the lock: */
    hub_stage stage;
    bool over, was_here, building;
    squish_error err;
    char path[4096];
    uint64_t done, total;
    char digest[80];
};

typedef struct {
    const char *name;  /* as asked for */
    bool here;         /* nothing needs to be pulled */
    sq_api_pull *pull; /* loop thread; NULL: none, or left */
    sq_api_call *next;
    hub_stage told; /* of the lines that went out */
    uint64_t told_done, told_built;
    const char *path; /* of a model that is here and needs to be compressed; NULL */
    hub_ref ref;
} pull_state;

/* ---- the job's thread ------------------------------------------------------------------------- */

static void visit(void *user);

static void post(sq_api_pull *p) {
    if (!atomic_exchange(&p->posted, true)) sq_http_post_lent(p->api->http, &p->note, visit, p);
}

static bool on_news(void *user, const hub_news *n, squish_error *err) {
    sq_api_pull *p = user;
    (void)err;
    pthread_mutex_lock(&p->lock);
    p->stage = n->stage;
    if (n->files) {
        p->done = n->files->bytes_done;
        p->total = n->files->bytes_total;
    }
    if (n->stage >= HUB_WRITING) p->done = p->total;
    if (n->file && n->file->kind == FETCH_SUM_SHA256)
        snprintf(p->digest, sizeof p->digest, "sha256:%s", n->file->sum);
    p->was_here = n->was_here;
    if (n->path) snprintf(p->path, sizeof p->path, "%s", n->path);
    pthread_mutex_unlock(&p->lock);
    post(p);
    return !atomic_load(&p->stop);
}

static bool is_stopped(void *user) { return atomic_load(&((sq_api_pull *)user)->stop); }

static bool on_build(void *user, const char *what, uint64_t done, uint64_t total) {
    sq_api_pull *p = user;
    (void)what;
    pthread_mutex_lock(&p->lock);
    p->building = true;
    p->done = done;
    p->total = total;
    pthread_mutex_unlock(&p->lock);
    post(p);
    return !atomic_load(&p->stop);
}

static bool is_ready(const char *path, const squish_compress_options *o) {
    squish_text file = {0};
    bool ready = false;
    const squish_status st = squish_tier_path(path, o, &file, &ready, NULL);
    squish_text_free(&file);
    return st == SQUISH_OK && ready;
}

/* Is path a checkpoint without the tier that the server runs? o: how to build it. */
static bool needs_build(const sq_api *api, const char *path, squish_compress_options *o) {
    const squish_tier tier = api->opt.tier;
    char config[4096 + 16];
    *o = squish_compress_options_default();
    o->home = api->opt.home;
    snprintf(config, sizeof config, "%s/config.json", path);
    if (tier == SQUISH_TIER_SOURCE || !sq_os_is_dir(path) || !sq_os_exists(config)) return false;
    o->tier = SQUISH_TIER_Q8;
    if (tier == SQUISH_TIER_AUTO && is_ready(path, o)) return false;
    o->tier = tier == SQUISH_TIER_AUTO ? SQUISH_TIER_0 : tier;
    return !is_ready(path, o);
}

/* Where it is being built already (by a program, or by a job that was stopped and has not ended yet) that one
 * is waited for. */
static squish_status build(sq_api_pull *p, squish_error *err) {
    const struct timespec pause = {.tv_nsec = 100000000};
    squish_compress_options o;
    squish_compress_result r;
    while (needs_build(p->api, p->path, &o)) {
        squish_error now = {0};
        o.threads = p->api->opt.threads;
        o.resume = true;
        o.progress = on_build;
        o.progress_user = p;
        const squish_status st = squish_compress(p->path, &o, &r, &now);
        if (st == SQUISH_OK) return st;
        if (st != SQUISH_BUSY) {
            *err = now;
            return st;
        }
        if (is_stopped(p)) return sq_fail(err, SQUISH_CANCELLED, "stopped");
        nanosleep(&pause, NULL);
    }
    return SQUISH_OK;
}

static void *run(void *user) {
    sq_api_pull *p = user;
    hub_settings s;
    squish_error err = {0};
    hub_settings_get(&s);
    s.home = p->api->opt.home;
    s.stop = is_stopped;
    s.stop_user = p;
    s.connections = p->api->opt.pull_connections;
    s.rate = p->api->opt.pull_rate;
    squish_status st = SQUISH_OK;
    if (!*p->path) st = hub_pull(&s, &p->ref, on_news, p, &err);
    if (st == SQUISH_OK) build(p, &err);
    pthread_mutex_lock(&p->lock);
    p->over = true;
    p->err = err;
    pthread_mutex_unlock(&p->lock);
    post(p); /* a visit that is on its way already will see it */
    return NULL;
}

/* ---- the loop thread -------------------------------------------------------------------------- */

static void free_pull(sq_api_pull *p) {
    hub_catalog_close(&p->catalog);
    pthread_mutex_destroy(&p->lock);
    sq_alloc_free(&p->api->alloc, p, sizeof *p);
}

static void unlink_pull(sq_api_pull *p) {
    for (sq_api_pull **at = &p->api->pulls; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            return;
        }
}

static void say(sq_api_call *c, const char *status) {
    sq_api_ndjson(c, json_pack("{s:s}", "status", status));
}

/* What has happened since this watcher was last told. */
static void tell(sq_api_call *c, const sq_api_pull *p) {
    pull_state *s = c->state;
    char status[40];
    if (!c->streaming || (!p->over && sq_http_room(c->req) == 0)) return;
    if (!p->building && p->stage >= HUB_FETCHING && p->total && p->done != s->told_done) {
        snprintf(status, sizeof status, "pulling %.*s", DIGITS, *p->digest ? p->digest + 7 : "files");
        json_t *o = json_pack("{s:s, s:I, s:I}", "status", status, "total", (json_int_t)p->total, "completed",
                              (json_int_t)p->done);
        if (o && *p->digest) json_object_set_new(o, "digest", json_string(p->digest));
        sq_api_ndjson(c, o);
        s->told_done = p->done;
    }
    const bool fetched = !p->was_here && (p->stage >= HUB_VERIFYING || (p->over && !p->err.code));
    if (fetched && s->told < HUB_VERIFYING) say(c, "verifying sha256 digest"), s->told = HUB_VERIFYING;
    if (fetched && p->stage >= HUB_WRITING && s->told < HUB_WRITING)
        say(c, "writing manifest"), s->told = HUB_WRITING;
    if (p->building && p->total && p->done != s->told_built) {
        sq_api_ndjson(c, json_pack("{s:s, s:I, s:I}", "status", "compressing", "total", (json_int_t)p->total,
                                   "completed", (json_int_t)p->done));
        s->told_built = p->done;
    }
}

static void finish_all(sq_api_pull *p) {
    while (p->watchers) {
        sq_api_call *c = p->watchers;
        pull_state *s = c->state;
        p->watchers = s->next;
        s->pull = NULL;
        if (p->err.code == SQUISH_NETWORK)
            sq_api_refuse(&c->error, 502, "hub_failed", "model", "%s", p->err.text);
        else if (p->err.code == SQUISH_NO_SPACE)
            sq_api_refuse(&c->error, 507, "no_space", "model", "%s", p->err.text);
        else if (p->err.code != SQUISH_OK)
            sq_api_refuse_lib(&c->error, &p->err);
        sq_api_call_resume(c);
    }
}

static void visit(void *user) {
    sq_api_pull *p = user;
    atomic_store(&p->posted, false);
    pthread_mutex_lock(&p->lock);
    for (sq_api_call *c = p->watchers, *next; c; c = next) {
        next = ((pull_state *)c->state)->next;
        tell(c, p);
    }
    const bool over = p->over;
    pthread_mutex_unlock(&p->lock);
    if (!over) return;
    if (!p->joined) pthread_join(p->thread, NULL); /* it ends with its last post */
    p->joined = true;
    if (atomic_load(&p->posted)) return; /* one more visit is on its way */
    unlink_pull(p);
    finish_all(p);
    free_pull(p);
}

static sq_api_pull *begin_pull(sq_api *api, const hub_ref *ref, const char *here) {
    sq_api_pull *p = sq_alloc_zero(&api->alloc, sizeof *p);
    if (!p) return NULL;
    p->api = api;
    p->ref = *ref;
    p->ref.entry = NULL; /* of a catalogue that is closed */
    if (here) snprintf(p->path, sizeof p->path, "%s", here);
    pthread_mutex_init(&p->lock, NULL);
    if (pthread_create(&p->thread, NULL, run, p) != 0) {
        free_pull(p);
        return NULL;
    }
    p->next = api->pulls;
    api->pulls = p;
    return p;
}

/* Loop thread: watch the job of that model, or begin it. */
static void start(sq_api_call *c) {
    pull_state *s = c->state;
    sq_api_pull *p = c->api->pulls;
    if (c->streaming) say(c, "pulling manifest");
    if (s->here && !s->path) {
        sq_api_call_resume(c);
        return;
    }
    /* One that was told to stop is not joined; the new job waits for it by the lock of the store. */
    while (p && (strcmp(p->ref.name, s->ref.name) != 0 || atomic_load(&p->stop))) p = p->next;
    if (!p) p = begin_pull(c->api, &s->ref, s->path);
    if (!p) {
        sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "no memory or thread for the pull");
        sq_api_call_resume(c);
        return;
    }
    s->pull = p;
    s->next = p->watchers;
    p->watchers = c;
}

/* The call ends, whatever came of it. */
static void leave(sq_api_call *c) {
    pull_state *s = c->state;
    sq_api_pull *p = s->pull;
    if (!p) return;
    for (sq_api_call **at = &p->watchers; *at; at = &((pull_state *)(*at)->state)->next)
        if (*at == c) {
            *at = s->next;
            break;
        }
    s->pull = NULL;
    if (!p->watchers) atomic_store(&p->stop, true);
}

void sq_api_pulls_stop(sq_api *api) {
    for (sq_api_pull *p = api->pulls; p; p = p->next) atomic_store(&p->stop, true);
    for (sq_api_pull *p = api->pulls; p; p = p->next) {
        if (!p->joined) pthread_join(p->thread, NULL);
        p->joined = true;
    }
}

/* ---- the request ------------------------------------------------------------------------------ */

static bool find_ref(sq_api_call *c, pull_state *s) {
    hub_catalog k;
    squish_error err = {0};
    if (hub_catalog_open(&k, c->api->opt.home, &err) != SQUISH_OK) return sq_api_refuse_lib(&c->error, &err);
    const squish_status st = hub_name(&k, s->name, true, &s->ref, &err);
    hub_catalog_close(&k);
    s->ref.entry = NULL;
    if (st != SQUISH_OK) return sq_api_refuse_lib(&c->error, &err);
    if (s->ref.kind == HUB_URL)
        return sq_api_refuse(&c->error, 400, "invalid_value", "model",
                             "'model' is an address; names of the catalogue, hf.co/USER/REPO and "
                             "ollama.com/library/NAME are pulled here (squish pull takes addresses)");
    return true;
}

/* What is here answers, or is to be compressed first. */
static bool settle_here(sq_api_call *c, pull_state *s, const char *path) {
    squish_compress_options o;
    /* as the job that pulled it calls it, which may be compressing it just now */
    snprintf(s->ref.name, sizeof s->ref.name, "%.*s", (int)sq_store_bare_length(s->name), s->name);
    if (needs_build(c->api, path, &o)) s->path = path;
    return true;
}

static bool read_pull(sq_api_call *c, json_t *body) {
    pull_state *s = c->state;
    bool insecure = false;
    sq_store_made m;
    const char *path;
    if (!sq_api_ollama_head(c, body) || !sq_api_get_bool(&c->error, body, "", "insecure", &insecure))
        return false;
    if (insecure)
        return sq_api_refuse(&c->error, 400, "unsupported_parameter", "insecure",
                             "'insecure' is true: nothing is fetched over connections nobody vouches for");
    s->name = c->wish.model;
    c->wish.keep_alive_set = false;
    if (sq_api_made_read(c->api, s->name, &m, NULL) == SQUISH_OK) {
        c->made = m.root;
        s->here = true;
    } else {
        s->here = sq_api_store_find(c->api, s->name, &c->arena, &path, NULL) == SQUISH_OK;
        if (s->here) return settle_here(c, s, path);
    }
    if (s->here) return true;
    if (!find_ref(c, s)) return false;
    s->here = sq_api_store_find(c->api, s->ref.name, &c->arena, &path, NULL) == SQUISH_OK;
    if (s->here) s->name = sq_arena_strndup(&c->arena, s->ref.name, strlen(s->ref.name));
    if (s->here) return s->name ? settle_here(c, s, path) : false;
    return c->api->opt.pulls ||
           sq_api_refuse(&c->error, 404, "model_not_found", "model",
                         "'%.100s' is not here, and this server asks no other machine (--offline)", s->name);
}

static void finish(sq_api_call *c) {
    if (c->streaming)
        say(c, "success");
    else
        c->result = json_pack("{s:s}", "status", "success");
}

static const sq_api_dialect pull = {.name = "ollama-pull",
                                    .stream_type = "application/x-ndjson",
                                    .state_bytes = sizeof(pull_state),
                                    .needs_no_model = true,
                                    .read = read_pull,
                                    .start = start,
                                    .leave = leave,
                                    .finish = finish,
                                    .error = sq_api_error_ollama,
                                    .fail = sq_api_ollama_fail};

static void post_pull(void *user, sq_http_req *r) { sq_api_call_new(user, r, &pull); }

static const sq_http_route routes[] = {
    {SQ_HTTP_POST, "/api/pull", SQ_HTTP_JSON | SQ_HTTP_JSON_LOOSE, 0, post_pull},
};
const sq_api_routes sq_api_routes_pull = {routes, SQ_COUNT(routes)};
