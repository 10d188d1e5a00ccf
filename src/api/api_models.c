/* SPDX-License-Identifier: Apache-2.0
 *
 * api_models.c - names -> model, engine and batch: opened on demand, shared, closed when idle.
 *
 *   (absent) -- want --> LOADING --> READY -- idle, or room is needed --> UNLOADING --> (absent)
 *                           |                                               |
 *                           +--> FAILED: told to all who wait               +--> LOADING, if wanted
 *
 * Threads. The table belongs to the loop thread. Opening and closing take a worker, one at a time over all
 * models: memory is then decided by one who knows what the others hold. A model that is READY does not
 * change.
 *
 * A name is looked up in this table and in the list of the store, by comparison. Nothing a client says is
 * ever joined to a path. A link in the store that leads out of it is not followed (name it on the command
 * line). */
#include "api/api_int.h"

#include "base/base_heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct waiter {
    struct waiter *next;
    void (*done)(void *user, sq_api_model *m, const sq_api_error *e);
    void *user;
} waiter;

struct sq_api_load {
    waiter *waiters;
    bool queued;     /* LOADING, its turn has not come */
    uint64_t budget; /* bytes it may take; 0: as the machine has */
    uint64_t t0;
    bool no_room; /* it would fit if others left */
    /* what UNLOADING gives back */
    squish_model *model;
    squish_engine *engine;
    squish_batch *batch;
    sq_arena arena; /* path, controls */
};

enum { CONTROLS_MAX = 4096 };

/* ---- names ----------------------------------------------------------------------------------- */

static bool same_name(const sq_api_model *m, const char *name) {
    const size_t n = sq_store_bare_length(name);
    return strlen(m->name) == n && memcmp(m->name, name, n) == 0;
}

sq_api_model *sq_api_model_find(sq_api *api, const char *name) {
    for (sq_api_model *m = api->models; m; m = m->next)
        if (same_name(m, name)) return m;
    return NULL;
}

sq_api_model *sq_api_model_first(sq_api *api) { return api->models; }

/* The folder that a model's path must not leave: the one that lists it. Files in a snapshot of Hugging Face's
 * cache are links to blobs of the same repository, two folders up. "": none. */
static void folder_of(const char *path, char out[4096]) {
    char key[4096], *slash;
    out[0] = 0;
    if (snprintf(out, 4096, "%s", path) >= 4096 || !(slash = strrchr(out, '/'))) {
        out[0] = 0;
        return;
    }
    *slash = 0;
    if (sq_os_is_dir(path) || !sq_store_found_key(path, key, sizeof key) || strncmp(key, "hf--", 4) != 0)
        return;
    char *snapshots = strstr(out, "/snapshots/");
    if (snapshots && !strchr(snapshots + 11, '/')) *snapshots = 0;
}

/* Does path, links followed, lie where it may? */
static bool stays_inside(const char *path) {
    char *real = realpath(path, NULL);
    char folder[4096];
    folder_of(path, folder);
    if (!strchr(path, '/')) {
        free(real);
        return false;
    }
    char *root = realpath(*folder ? folder : "/", NULL);
    const size_t n = root ? strlen(root) : 0;
    const bool ok = real && root && strncmp(real, root, n) == 0 && (real[n] == '/' || n == 1);
    free(real);
    free(root);
    return ok;
}

typedef struct {
    const sq_api *api;
    squish_list_fn fn;
    void *user;
    bool sized, more;
} inside;

static bool keep_more(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    inside *in = user;
    in->more = in->fn(in->user, name, path, bytes, tiers);
    return in->more;
}

/* What a link leads to outside is not opened, not even to see how large it is. */
static bool list_inside(void *user, const char *name, const char *path) {
    inside *in = user;
    if (strlen(name) > SQ_API_NAME_MAX || !stays_inside(path)) return true;
    if (in->sized)
        squish_list_model(in->api->opt.home, name, path, keep_more, in);
    else
        keep_more(in, name, path, 0, "");
    return in->more;
}

static squish_status each(const sq_api *api, squish_list_fn fn, void *user, bool sized, squish_error *err) {
    inside in = {api, fn, user, sized, true};
    return sq_store_list(api->opt.home, list_inside, &in, err);
}

squish_status sq_api_store_each(sq_api *api, squish_list_fn fn, void *user, squish_error *err) {
    return each(api, fn, user, true, err);
}

typedef struct {
    const char *name;
    size_t n;
    sq_arena *ar;
    const char *path;
} search;

static bool match(void *user, const char *name, const char *path, uint64_t bytes, const char *tiers) {
    (void)bytes;
    (void)tiers;
    search *s = user;
    /* "x" finds x, and x.gguf or x.sqw or x-compressed where there is no x (which is listed first or not at
     * all). */
    static const char *const endings[] = {"", ":latest", ".gguf", ".sqw", "-compressed"};
    for (size_t i = 0; i < SQ_COUNT(endings); i++) {
        const size_t len = strlen(name), e = strlen(endings[i]);
        if (len != s->n + e || memcmp(name, s->name, s->n) != 0 || strcmp(name + s->n, endings[i]) != 0)
            continue;
        if (s->path && i > 0) continue;
        s->path = sq_arena_strndup(s->ar, path, strlen(path));
        return i > 0;
    }
    return true;
}

static squish_status find_path(sq_api *api, const char *name, size_t n, sq_arena *ar, const char **path,
                               squish_error *err) {
    for (int32_t i = 0; i < api->opt.n_models; i++)
        if (strlen(api->opt.models[i].name) == n && memcmp(api->opt.models[i].name, name, n) == 0) {
            *path = api->opt.models[i].path;
            return SQUISH_OK;
        }
    search s = {.name = name, .n = n, .ar = ar};
    SQ_TRY(each(api, match, &s, false, err));
    *path = s.path;
    if (s.path) return SQUISH_OK;
    return sq_fail(err, SQUISH_NOT_FOUND, "no model '%.100s' here (GET /v1/models lists them)", name);
}

squish_status sq_api_store_find(sq_api *api, const char *name, sq_arena *ar, const char **path,
                                squish_error *err) {
    return find_path(api, name, sq_store_bare_length(name), ar, path, err);
}

/* ---- opening (worker) ------------------------------------------------------------------------ */

/* Control tokens whose text somebody could write into a message. */
static squish_status find_controls(sq_api_model *m, squish_error *err) {
    const char **list = SQ_ARENA_ARRAY(&m->load->arena, const char *, CONTROLS_MAX);
    if (!list) return sq_fail(err, SQUISH_NO_MEMORY, "control tokens: out of memory");
    size_t n = 0;
    for (int32_t id = 0; id < m->info.n_vocab_tokens && n < CONTROLS_MAX; id++) {
        const char *bytes;
        size_t len;
        if (!squish_token_is_control(m->model, id) || !squish_token_bytes(m->model, id, &bytes, &len) ||
            len < 2)
            continue;
        list[n] = sq_arena_strndup(&m->load->arena, bytes, len);
        if (list[n]) n++;
    }
    m->controls = list;
    m->n_controls = n;
    return SQUISH_OK;
}

/* What the model's makers advise, where they say something. The values are squish_sampling_for's, which reads
 * them with their ranges; here it only matters which are there. */
static void read_advice(sq_api_model *m) {
    static const struct {
        const char *name;
        sq_api_field field;
    } rows[] = {{"temperature", SQ_API_TEMPERATURE},
                {"top_p", SQ_API_TOP_P},
                {"top_k", SQ_API_TOP_K},
                {"min_p", SQ_API_MIN_P},
                {"typical_p", SQ_API_TYPICAL_P},
                {"repetition_penalty", SQ_API_REPETITION_PENALTY},
                {"do_sample", SQ_API_TEMPERATURE}};
    const char *text = squish_model_generation_json(m->model);
    json_t *o = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    m->gen = squish_gen_options_default();
    m->gen.sampling = squish_sampling_for(m->model);
    m->gen_set = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        const json_t *v = json_object_get(o, rows[i].name);
        if (json_is_number(v) || json_is_false(v)) m->gen_set |= 1u << rows[i].field;
    }
    json_decref(o);
}

/* One cache serves all answers and keeps prefixes: as much as `parallel` windows would take, but of the room
 * that is left at most half, and never less than one window. */
static squish_status plan(sq_api_model *m, squish_engine_options *o, squish_error *err) {
    const sq_api_options *opt = &m->api->opt;
    squish_mem_estimate e;
    o->threads = opt->threads;
    /* --ctx is about the command line's models; one that was made for less comes with its own window */
    o->ctx_tokens = m->pinned || opt->ctx_tokens <= m->info.ctx_train ? opt->ctx_tokens : 0;
    o->kv = opt->kv;
    o->kv_options = opt->kv_options;
    o->attention = opt->attention;
    o->isa_max = opt->isa_max;
    o->draft = opt->n_models && strcmp(m->name, opt->models[0].name) == 0 ? opt->draft : NULL;
    o->skip_layers = opt->skip_layers < m->info.n_layers ? opt->skip_layers : 0;
    o->memory_limit = m->load->budget;
    /* One that would fit alone waits for others to go. */
    o->agile.on = opt->agile || (opt->memory_limit && m->info.weight_bytes >= opt->memory_limit);
    o->agile.lookahead = opt->lookahead;
    SQ_TRY(squish_engine_estimate(m->model, o, &e, err));
    uint64_t usable = e.available_bytes / 10 * 9;
    if (m->load->budget && m->load->budget < usable) usable = m->load->budget;
    const uint64_t fixed = e.weight_bytes + e.scratch_bytes;
    if (fixed + e.kv_bytes > usable && o->ctx_tokens == 0 && usable > fixed) { /* a shorter window may fit */
        o->kv_bytes_max = usable - fixed;
        SQ_TRY(squish_engine_estimate(m->model, o, &e, err));
    }
    if (e.total_bytes > usable)
        return sq_fail(err, SQUISH_NO_MEMORY, "%s needs %.2f GB, %.2f GB may be used", m->name,
                       (double)e.total_bytes / 1e9, (double)usable / 1e9);
    uint64_t kv = e.kv_bytes * (uint64_t)opt->parallel;
    const uint64_t half = (usable - fixed) / 2;
    if (kv > half) kv = half;
    if (kv < e.kv_bytes) kv = e.kv_bytes;
    if (o->kv_options.budget && o->kv_options.budget < kv) kv = o->kv_options.budget;
    o->kv_bytes_max = kv;
    o->ctx_tokens = e.ctx_tokens;
    m->bytes = fixed + kv;
    return SQUISH_OK;
}

/* Weights that are read again and again make answers slow: say so. */
static void say_streamed(const sq_api_model *m) {
    const squish_agile_info *a = &m->engine_info.agile;
    char line[SQ_API_NAME_MAX + 160];
    if (!a->on || !m->api->opt.warn) return;
    snprintf(line, sizeof line,
             "%s: weights of %.2f GB do not fit: %.2f GB of memory for them, the rest is read "
             "again and again (%s)",
             m->name, (double)m->info.weight_bytes / 1e9, (double)a->budget_bytes / 1e9, a->backend);
    m->api->opt.warn(m->api->opt.warn_user, line);
    if (*m->engine_info.lookahead.why) m->api->opt.warn(m->api->opt.warn_user, m->engine_info.lookahead.why);
    if (*a->heat_why) m->api->opt.warn(m->api->opt.warn_user, a->heat_why);
}

static squish_status open_all(sq_api_model *m, squish_error *err) {
    const sq_api_options *opt = &m->api->opt;
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    if (!m->path) {
        const char *path;
        SQ_TRY(find_path(m->api, m->name, strlen(m->name), &m->load->arena, &path, err));
        m->path = sq_arena_strndup(&m->load->arena, path, strlen(path));
        if (!m->path) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", m->name);
    }
    mo.alloc = &m->api->alloc;
    mo.tier = opt->tier;
    mo.warn = bo.warn = opt->warn;
    mo.warn_user = bo.warn_user = opt->warn_user;
    bo.jobs_max = opt->parallel;
    bo.queue_max = opt->queue_max;
    bo.snapshot_dir = opt->snapshot_dir;
    bo.snapshot_archive = opt->snapshot_archive;
    bo.snapshot_codec = opt->snapshot_codec;
    SQ_TRY(squish_model_open(&m->model, m->path, &mo, err));
    squish_model_get_info(m->model, &m->info);
    squish_status st = plan(m, &eo, err);
    m->load->no_room = st == SQUISH_NO_MEMORY;
    SQ_TRY(st);
    SQ_TRY(squish_engine_new(&m->engine, m->model, &eo, err));
    squish_engine_get_info(m->engine, &m->engine_info);
    say_streamed(m);
    SQ_TRY(squish_batch_new(&m->batch, m->engine, &bo, err));
    if (!sq_api_grammars_new(&m->grammars, &m->api->alloc))
        return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", m->name);
    read_advice(m);
    return find_controls(m, err);
}

static void close_all(sq_api_model *m) {
    squish_batch_free(m->batch);
    sq_api_grammars_free(m->grammars);
    squish_engine_free(m->engine);
    squish_model_close(m->model);
    m->batch = NULL;
    m->grammars = NULL;
    m->engine = NULL;
    m->model = NULL;
}

static void open_work(void *user) {
    sq_api_model *m = user;
    m->load->t0 = sq_os_now_ns();
    m->load->no_room = false;
    m->error = (squish_error){0};
    if (open_all(m, &m->error) != SQUISH_OK) close_all(m);
    m->load_ms = (double)(sq_os_now_ns() - m->load->t0) / 1e6;
}

static void close_work(void *user) {
    close_all(user);
    sq_heap_trim();
}

/* ---- the table (loop thread) ----------------------------------------------------------------- */

static void next_turn(sq_api *api);

static void free_model(sq_api_model *m) {
    sq_api *api = m->api;
    for (sq_api_model **p = &api->models; *p; p = &(*p)->next)
        if (*p == m) {
            *p = m->next;
            break;
        }
    sq_arena_deinit(&m->load->arena);
    sq_alloc_free(&api->alloc, m->load, sizeof *m->load);
    sq_alloc_free(&api->alloc, m, sizeof *m);
}

static sq_api_model *new_model(sq_api *api, const char *name) {
    sq_api_model *m = sq_alloc_zero(&api->alloc, sizeof *m);
    struct sq_api_load *l = sq_alloc_zero(&api->alloc, sizeof *l);
    if (!m || !l) {
        sq_alloc_free(&api->alloc, m, sizeof *m);
        sq_alloc_free(&api->alloc, l, sizeof *l);
        return NULL;
    }
    m->api = api;
    m->load = l;
    sq_arena_init(&l->arena, &api->alloc, 1024, 64 << 20);
    snprintf(m->name, sizeof m->name, "%.*s", (int)sq_store_bare_length(name), name);
    m->state = SQ_API_LOADING;
    m->keep_alive_s = api->opt.keep_alive_s;
    l->queued = true;
    sq_api_model **p = &api->models;
    while (*p) p = &(*p)->next;
    *p = m;
    return m;
}

/* Hand the outcome to all who wait. e NULL: it is ready. */
static void tell(sq_api_model *m, const sq_api_error *e) {
    waiter *w = m->load->waiters;
    m->load->waiters = NULL;
    if (!e)
        for (const waiter *i = w; i; i = i->next) m->users++; /* all of them, before the first can let go */
    while (w) {
        waiter *next = w->next;
        w->done(w->user, e ? NULL : m, e);
        sq_alloc_free(&m->api->alloc, w, sizeof *w);
        w = next;
    }
}

static void closed(void *user) {
    sq_api_model *m = user;
    sq_api *api = m->api;
    api->memory_used -= m->bytes;
    api->loading = false;
    m->bytes = 0;
    if (m->load->waiters) {
        m->state = SQ_API_LOADING;
        m->load->queued = true;
    } else {
        free_model(m);
    }
    next_turn(api);
}

/* false: it could not even be begun; it stays as it was. */
static bool unload(sq_api_model *m) {
    m->state = SQ_API_UNLOADING;
    if (sq_http_work(m->api->http, close_work, closed, m) == SQUISH_OK) {
        m->api->loading = true;
        return true;
    }
    m->state = SQ_API_READY;
    return false;
}

/* The one that nobody uses longest, of those that may go. */
static sq_api_model *idlest(sq_api *api) {
    sq_api_model *best = NULL;
    for (sq_api_model *m = api->models; m; m = m->next)
        if (m->state == SQ_API_READY && m->users == 0 && !m->pinned &&
            (!best || m->idle_since_ns < best->idle_since_ns))
            best = m;
    return best;
}

static void failed(sq_api_model *m) {
    sq_api_error e = {0};
    sq_api_refuse_lib(&e, &m->error);
    if (e.status == 400)
        e.status = 500, e.code = "model_unusable"; /* what the file is, the client cannot mend */
    sq_api *api = m->api;
    m->state = SQ_API_FAILED;
    if (m->pinned) { /* without it the server is not what was asked for */
        api->failed = true;
        if (api->error.code == SQUISH_OK) api->error = m->error;
    }
    tell(m, &e);
    if (m->pinned)
        sq_http_stop(api->http);
    else
        free_model(m);
}

static void opened(void *user) {
    sq_api_model *m = user;
    sq_api *api = m->api;
    api->loading = false;
    sq_api_model *idle = m->error.code != SQUISH_OK && m->load->no_room ? idlest(api) : NULL;
    if (idle && unload(idle)) { /* again when that one has gone */
        m->load->queued = true;
        return;
    }
    if (m->error.code != SQUISH_OK) {
        failed(m);
    } else {
        m->state = SQ_API_READY;
        m->loaded_unix = sq_os_unix_time();
        m->idle_since_ns = sq_os_now_ns();
        api->memory_used += m->bytes;
        tell(m, NULL);
    }
    sq_api_models_changed(api);
    next_turn(api);
}

/* Begin the next load, unless one is at work. */
static void next_turn(sq_api *api) {
    for (sq_api_model *m = api->models; m && !api->loading && !api->ending; m = m->next) {
        if (m->state != SQ_API_LOADING || !m->load->queued) continue;
        const uint64_t limit = api->opt.memory_limit;
        m->load->queued = false;
        /* 1: no byte is left, which the plan refuses by itself */
        m->load->budget = limit ? (limit > api->memory_used ? limit - api->memory_used : 1) : 0;
        if (sq_http_work(api->http, open_work, opened, m) != SQUISH_OK) {
            m->error = (squish_error){.code = SQUISH_NO_MEMORY, .text = "loading found no memory"};
            failed(m);
            return;
        }
        api->loading = true;
    }
}

void sq_api_model_want(sq_api *api, const char *name,
                       void (*done)(void *user, sq_api_model *m, const sq_api_error *e), void *user) {
    sq_api_error e = {0};
    if (!name || !*name) name = api->opt.n_models ? api->opt.models[0].name : "squish-tiny";
    sq_api_model *m = sq_api_model_find(api, name);
    if (m && m->state == SQ_API_READY) {
        m->users++;
        done(user, m, NULL);
        return;
    }
    if (sq_store_bare_length(name) > SQ_API_NAME_MAX) {
        sq_api_refuse(&e, 404, "model_not_found", "model", "no model '%.40s...' here", name);
        done(user, NULL, &e);
        return;
    }
    waiter *w = sq_alloc_zero(&api->alloc, sizeof *w);
    if (w && !m) m = new_model(api, name);
    if (!w || !m) {
        sq_alloc_free(&api->alloc, w, sizeof *w);
        sq_api_refuse(&e, 503, "insufficient_memory", NULL, "loading found no memory");
        done(user, NULL, &e);
        return;
    }
    *w = (waiter){NULL, done, user};
    waiter **p = &m->load->waiters;
    while (*p) p = &(*p)->next;
    *p = w;
    next_turn(api);
}

void sq_api_model_release(sq_api_model *m) {
    if (--m->users > 0) return;
    m->idle_since_ns = sq_os_now_ns();
    sq_api_models_tick(m->api);
}

void sq_api_model_keep(sq_api_model *m, double seconds) { m->keep_alive_s = seconds; }

double sq_api_model_expires_s(const sq_api_model *m) {
    if (m->pinned || m->keep_alive_s < 0) return -1;
    if (m->users > 0) return m->keep_alive_s;
    const double idle = (double)(sq_os_now_ns() - m->idle_since_ns) / 1e9;
    return idle < m->keep_alive_s ? m->keep_alive_s - idle : 0;
}

void sq_api_models_tick(sq_api *api) {
    for (sq_api_model *m = api->models; m && !api->loading && !api->ending; m = m->next)
        if (m->state == SQ_API_READY && m->users == 0 && sq_api_model_expires_s(m) == 0) unload(m);
}

/* ---- beginning and end ----------------------------------------------------------------------- */

squish_status sq_api_models_begin(sq_api *api, squish_error *err) {
    for (int32_t i = 0; i < api->opt.n_models; i++) {
        const sq_api_named *n = &api->opt.models[i];
        if (sq_api_model_find(api, n->name)) continue;
        sq_api_model *m = strlen(n->name) <= SQ_API_NAME_MAX ? new_model(api, n->name) : NULL;
        if (m) m->path = sq_arena_strndup(&m->load->arena, n->path, strlen(n->path));
        if (!m || !m->path)
            return sq_fail(err, m ? SQUISH_NO_MEMORY : SQUISH_INVALID, "model '%.100s': %s", n->name,
                           m ? "out of memory" : "the name is too long, or memory is out");
        m->pinned = true;
    }
    next_turn(api);
    sq_api_models_changed(api);
    return SQUISH_OK;
}

void sq_api_models_dismiss(sq_api *api) {
    const sq_api_error e = {.status = 503, .code = "draining", .message = "the server is going down"};
    for (sq_api_model *m = api->models; m; m = m->next) tell(m, &e);
}

void sq_api_models_end(sq_api *api) {
    while (api->models) {
        close_all(api->models);
        free_model(api->models);
    }
}
