/* SPDX-License-Identifier: Apache-2.0
 *
 * api_call.c - one request in the making, from bytes to the last byte.
 *
 *   READ -> MODEL -> PREPARE -> ANSWERS -> (FORM) -> OVER
 *
 * Threads. READ, PREPARE and FORM run on a worker of http and own the call meanwhile; the loop thread owns it
 * otherwise. A batch's thread only calls wake(): it sets a flag and posts, so that many tokens make one
 * visit.
 *
 * Lifetime. `holds` counts who will still come back on the loop thread: the request (until http says it is
 * done), a worker, a wait for a model. A wake that was posted holds by `woken`. The last one frees. */
#include "api/api_int.h"

#include "format/json.h"

#include <stdio.h>
#include <string.h>

typedef enum { READ, MODEL, PREPARE, ANSWERS, FORM, OVER } stage;

struct sq_api_call_core {
    sq_api_call *prev, *next;
    stage stage;
    int32_t holds;
    bool gone;              /* the client left */
    bool waits;             /* for sq_api_call_resume */
    sq_api_error cancelled; /* why it shall end, while a worker owns `error` */
    atomic_bool woken;       /* the note is on its way */
    sq_http_note note;
    size_t first, submitted; /* answers [first, submitted) may be at work */
    int32_t in_flight, n_ended;
    uint64_t client;
    sq_buf out; /* FORM: the reply as bytes */
};

enum { ARENA_BLOCK = 4 << 10 };
#define ARENA_MAX ((size_t)1 << 30)

sq_api_call *sq_api_call_next(const sq_api_call *c) { return c->core->next; }

/* ---- beginning and end ----------------------------------------------------------------------- */

static void link_call(sq_api_call *c) {
    sq_api *api = c->api;
    c->core->next = api->calls;
    if (api->calls) api->calls->core->prev = c;
    api->calls = c;
    api->n_calls++;
}

static void unlink_call(sq_api_call *c) {
    struct sq_api_call_core *k = c->core;
    if (k->prev)
        k->prev->core->next = k->next;
    else
        c->api->calls = k->next;
    if (k->next) k->next->core->prev = k->prev;
    c->api->n_calls--;
}

static void destroy(sq_api_call *c) {
    sq_api *api = c->api;
    json_decref(c->body);
    json_decref(c->result);
    json_decref(c->made);
    json_decref(c->wish.messages);
    json_decref(c->wish.template_vars);
    json_decref(c->wish.tools);
    json_decref(c->wish.allowed);
    for (size_t i = 0; i < c->n_answers; i++) {
        squish_job_free(c->answers[i].job);
        sq_buf_deinit(&c->answers[i].text);
        sq_api_free_parts(&c->answers[i]);
    }
    sq_buf_deinit(&c->core->out);
    sq_arena_deinit(&c->arena);
    sq_alloc_free(&api->alloc, c, sizeof *c);
}

/* One hold less; the last one frees. */
static void let_go(sq_api_call *c) {
    if (--c->core->holds == 0 && !atomic_load(&c->core->woken)) destroy(c);
}

void sq_api_call_free(sq_api_call *c) { let_go(c); }

/* Over, whatever it came to: no job is left, no wake will come but one that was posted. */
static void close_call(sq_api_call *c) {
    for (size_t i = c->core->first; i < c->core->submitted; i++) {
        squish_job_free(c->answers[i].job);
        c->answers[i].job = NULL;
    }
    c->core->stage = OVER;
    if (c->dialect->leave) c->dialect->leave(c);
    sq_api_count_call(c->api, c);
    unlink_call(c);
    if (c->model) {
        sq_api_grammar_release(c->model->grammars, c->grammar);
        sq_api_grammar_release(c->model->grammars, c->behind);
        c->grammar = c->behind = NULL;
        c->relaxed = NULL; /* it was the grammar's */
        if (c->wish.keep_alive_set) sq_api_model_keep(c->model, c->wish.keep_alive_s);
        sq_api_model_release(c->model);
        c->model = NULL;
    }
}

static void reply_error(sq_api_call *c) {
    sq_buf b;
    sq_buf_init(&b, &c->api->alloc, 1 << 16);
    c->dialect->error(&c->error, c->request_id, &b);
    if (c->error.retry_after_s) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%d", c->error.retry_after_s);
        sq_http_add_header(c->req, "Retry-After", seconds);
    }
    const int status = c->dialect->status ? c->dialect->status(&c->error) : c->error.status;
    sq_http_reply(c->req, status, NULL, b.data ? b.data : "{}", b.data ? b.len : 2);
    sq_buf_deinit(&b);
}

static void break_stream(sq_api_call *c) {
    if (c->dialect->fail) {
        c->dialect->fail(c, &c->error);
    } else {
        sq_buf b;
        sq_buf_init(&b, &c->api->alloc, 1 << 16);
        sq_buf_puts(&b, "data: ");
        c->dialect->error(&c->error, c->request_id, &b);
        if (sq_buf_puts(&b, "\n\n")) sq_http_send(c->req, b.data, b.len);
        sq_buf_deinit(&b);
    }
    sq_http_end(c->req);
}

/* c->error says why. */
static void fail(sq_api_call *c) {
    c->core->holds++; /* http may be done with the request before these return */
    close_call(c);
    if (c->streaming)
        break_stream(c);
    else
        reply_error(c);
    let_go(c);
}

/* ---- workers --------------------------------------------------------------------------------- */

static void work(sq_api_call *c, stage s, void (*fn)(void *), void (*done)(void *)) {
    c->core->stage = s;
    c->core->holds++;
    if (sq_http_work(c->api->http, fn, done, c) == SQUISH_OK) return;
    c->core->holds--;
    sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    fail(c);
}

/* Back from a worker or a wait: is there a reason to go no further? */
static bool stopped(sq_api_call *c) {
    if (c->core->gone) sq_api_refuse(&c->error, 499, "client_closed", NULL, "the client left");
    if (!c->error.status) c->error = c->core->cancelled;
    if (!c->error.status) return false;
    fail(c);
    return true;
}

/* ---- the last step --------------------------------------------------------------------------- */

static void form_reply(void *user) { /* worker: building and printing a large answer takes a while */
    sq_api_call *c = user;
    if (!c->dialect->work) c->dialect->finish(c);
    if (c->error.status) return;
    json_t *o = c->result;
    c->result = NULL;
    if (!sq_api_dump(o, &c->core->out))
        sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
}

static void reply_formed(void *user) {
    sq_api_call *c = user;
    if (!stopped(c)) {
        close_call(c);
        sq_http_reply(c->req, 200, NULL, c->core->out.data, c->core->out.len);
    }
    let_go(c);
}

static void finish(sq_api_call *c) {
    if (!c->streaming) {
        work(c, FORM, form_reply, reply_formed);
        return;
    }
    c->dialect->finish(c);
    if (c->error.status) {
        fail(c);
        return;
    }
    c->core->holds++;
    close_call(c);
    sq_http_end(c->req);
    let_go(c);
}

/* ---- answers --------------------------------------------------------------------------------- */

static void visit(void *user);

/* The batch's thread, or the one that submits. */
static void wake(void *user) {
    sq_api_call *c = user;
    if (!atomic_exchange(&c->core->woken, true)) sq_http_post_lent(c->api->http, &c->core->note, visit, c);
}

static void job_options(const sq_api_call *c, const sq_api_answer *a, squish_job_options *o) {
    *o = squish_job_options_default();
    const sq_api_wish *w = &c->wish;
    o->prompt = c->prompts[a->i_prompt].ids;
    o->n_prompt = c->prompts[a->i_prompt].n;
    o->gen = w->gen;
    o->gen.sampling.choice = a->i_choice;
    if (w->ctx_max > 0) {
        const int32_t room = w->ctx_max - (int32_t)o->n_prompt;
        if (o->gen.max_tokens < 0 || o->gen.max_tokens > room) o->gen.max_tokens = room > 0 ? room : 0;
    }
    o->prompt_logprobs = w->prompt_logprobs;
    o->pool = w->pool;
    o->client = c->core->client;
    o->priority = w->priority;
    /* Prefixes are not shared between keys: how fast an answer comes would tell what others asked. */
    o->salt = w->salt ^ (c->api->keyed ? c->core->client : 0);
    if (c->api->opt.request_timeout_s > 0) {
        const double spent = (double)(sq_os_now_ns() - c->t_start_ns) / 1e9;
        const double left = c->api->opt.request_timeout_s - spent;
        o->deadline_s = left > 0.001 ? left : 0.001;
    }
    o->wake = wake;
    o->wake_user = (void *)(uintptr_t)c;
}

/* Submit what fits. false: the call has failed (c->error). */
static bool submit(sq_api_call *c) {
    struct sq_api_call_core *k = c->core;
    while (k->submitted < c->n_answers && k->in_flight < SQ_API_FLIGHT_MAX) {
        sq_api_answer *a = &c->answers[k->submitted];
        squish_job_options o;
        squish_error err = {0};
        job_options(c, a, &o);
        const squish_status st = squish_job_submit(&a->job, c->model->batch, &o, &err);
        if (st == SQUISH_BUSY && k->in_flight > 0) return true; /* again when one of ours has ended */
        if (st != SQUISH_OK) return sq_api_refuse_lib(&c->error, &err);
        k->submitted++;
        k->in_flight++;
    }
    return true;
}

/* ---- thoughts over their budget -------------------------------------------------------------- */

static bool note_id(sq_api_call *c, sq_api_answer *a, int32_t id) {
    const size_t n = (size_t)a->n_tokens;
    if (n > a->ids_cap) {
        const size_t cap = 2 * n + 64;
        int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, cap);
        if (!ids) return sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
        if (a->ids) memcpy(ids, a->ids, a->ids_cap * sizeof *ids);
        a->ids = ids;
        a->ids_cap = cap;
    }
    a->ids[n - 1] = id;
    return true;
}

/* Prompt, what was thought, and the mark that ends thoughts. NULL: no memory. */
static int32_t *closed_prompt(sq_api_call *c, const sq_api_answer *a, const char *mark, size_t *n) {
    const sq_api_prompt *p = &c->prompts[a->i_prompt];
    squish_tokens close = {0};
    if (squish_tokenize(c->model->model, mark, strlen(mark), SQUISH_TOK_SPECIAL, &close, NULL) != SQUISH_OK)
        return NULL;
    const size_t said = (size_t)a->n_tokens;
    int32_t *ids = SQ_ARENA_ARRAY(&c->arena, int32_t, p->n + said + close.count);
    if (ids) {
        memcpy(ids, p->ids, p->n * sizeof *ids);
        memcpy(ids + p->n, a->ids, said * sizeof *ids);
        memcpy(ids + p->n + said, close.ids, close.count * sizeof *ids);
        *n = p->n + said + close.count;
    }
    squish_tokens_free(&close);
    return ids;
}

/* The answer goes on behind its thoughts, as a job of its own; the prefix is in the cache. Where there is no
 * room for one, it thinks on. */
static void cut_thoughts(sq_api_call *c, sq_api_answer *a) {
    char mark[64];
    size_t n = 0;
    snprintf(mark, sizeof mark, "\n%s\n\n", c->manner.think_close);
    const int32_t *ids = closed_prompt(c, a, mark, &n);
    squish_job_options o;
    squish_job *job;
    job_options(c, a, &o);
    a->cut = true;
    if (!ids || (o.gen.max_tokens >= 0 && o.gen.max_tokens <= a->n_tokens)) return;
    if (o.gen.max_tokens >= 0) o.gen.max_tokens -= a->n_tokens;
    o.prompt = ids;
    o.n_prompt = n;
    if (c->behind) o.gen.grammar = sq_api_grammar_of(c->behind);
    if (squish_job_submit(&job, c->model->batch, &o, NULL) != SQUISH_OK) return;
    squish_job_free(a->job);
    a->job = job;
    const squish_job_event ev = {.kind = SQUISH_JOB_STARTED, .text = mark, .text_bytes = strlen(mark)};
    sq_api_take_text(c, a, &ev);
}

static bool is_over_budget(const sq_api_call *c, const sq_api_answer *a) {
    return c->wish.think_tokens > 0 && c->manner.think_close && a->thinks && !a->cut && !a->ended &&
           a->n_thought >= c->wish.think_tokens;
}

static void end_answer(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    a->ended = true;
    a->finish = ev->finish;
    if (ev->stop_reason)
        a->stop_reason = sq_arena_strndup(&c->arena, ev->stop_reason, strlen(ev->stop_reason));
    squish_job_get_stats(a->job, &a->stats);
    c->core->in_flight--;
    c->core->n_ended++;
    if (ev->status == SQUISH_OK) return;
    squish_error err = {.code = ev->status};
    snprintf(err.text, sizeof err.text, "%s", ev->error ? ev->error : "");
    sq_api_refuse_lib(&c->error, &err);
}

static void take_event(sq_api_call *c, sq_api_answer *a, const squish_job_event *ev) {
    if (ev->kind == SQUISH_JOB_STARTED) {
        a->started = true;
        return;
    }
    if (ev->kind == SQUISH_JOB_TOKEN) {
        a->n_tokens++;
        if (c->wish.think_tokens > 0 && !a->cut && !note_id(c, a, ev->id)) return;
    }
    if (ev->kind == SQUISH_JOB_END) end_answer(c, a, ev);
    if (c->dialect->part) {
        squish_job_event bare = *ev;
        bare.text_bytes = 0;
        if (ev->kind != SQUISH_JOB_END) c->dialect->event(c, a, &bare);
        if (!c->error.status) sq_api_take_text(c, a, ev);
        if (ev->kind == SQUISH_JOB_END && !c->error.status) c->dialect->event(c, a, &bare);
    } else {
        if (ev->text_bytes && !c->streaming && !sq_buf_append(&a->text, ev->text, ev->text_bytes))
            sq_api_refuse(&c->error, 500, "out_of_memory", NULL, "the answer found no memory");
        if (!c->error.status) c->dialect->event(c, a, ev);
    }
    if (is_over_budget(c, a) && !c->error.status) cut_thoughts(c, a);
    if (a->ended) { /* the event's texts live in the job */
        squish_job_free(a->job);
        a->job = NULL;
    }
}

static bool slow(const sq_api_call *c) { return c->streaming && sq_http_room(c->req) == 0; }

/* Read what there is. A client that does not take it stops this, and so in the end the job. */
static void read_events(sq_api_call *c) {
    struct sq_api_call_core *k = c->core;
    for (size_t i = k->first; i < k->submitted && !c->error.status; i++) {
        sq_api_answer *a = &c->answers[i];
        squish_job_event ev;
        while (a->job && !c->error.status && !slow(c) && squish_job_next(a->job, &ev)) take_event(c, a, &ev);
    }
    while (k->first < k->submitted && c->answers[k->first].ended) k->first++;
}

static void pump(sq_api_call *c) {
    struct sq_api_call_core *k = c->core;
    if (k->stage != ANSWERS) return;
    if (k->gone) sq_api_refuse(&c->error, 499, "client_closed", NULL, "the client left");
    if (!c->error.status) read_events(c);
    if (!c->error.status) submit(c);
    if (c->error.status)
        fail(c);
    else if ((size_t)k->n_ended == c->n_answers && !k->waits)
        finish(c);
}

static void visit(void *user) {
    sq_api_call *c = user;
    atomic_store(&c->core->woken, false);
    c->core->holds++;
    pump(c);
    let_go(c);
}

static void drained(void *user, sq_http_req *r) {
    (void)r;
    sq_api_call *c = user;
    c->core->holds++;
    pump(c);
    let_go(c);
}

/* ---- from prompts to answers ----------------------------------------------------------------- */

static void openai_sampling(squish_sampling *s) { s->temperature = 1.0f, s->top_p = 1.0f; }

/* Request over model over dialect. */
static void settle_sampling(sq_api_call *c) {
    squish_gen_options g = squish_gen_options_default();
    const squish_gen_options wish = c->wish.gen;
    (c->dialect->sampling ? c->dialect->sampling : openai_sampling)(&g.sampling);
    g.max_tokens = wish.max_tokens; /* the dialect's own, where the request has none */
    sq_api_lay_sampling(&g, &c->model->gen, c->model->gen_set);
    sq_api_lay_sampling(&g, &c->wish.under, c->wish.under_set);
    sq_api_lay_sampling(&g, &wish, c->wish.set);
    g.stop = wish.stop;
    g.n_stop = wish.n_stop;
    g.grammar = wish.grammar;
    g.special_text = wish.special_text;
    g.logprobs = wish.logprobs;
    g.spec = c->api->opt.spec;
    if (c->wish.spec_set) g.spec.mode = wish.spec.mode;
    if (c->wish.accept_set) g.spec.accept = wish.spec.accept;
    g.sampling.bias_ids = wish.sampling.bias_ids;
    g.sampling.bias_values = wish.sampling.bias_values;
    g.sampling.n_bias = wish.sampling.n_bias;
    if (!(c->wish.set >> SQ_API_SEED & 1) || g.sampling.seed == -1) {
        uint64_t seed = c->t_start_ns;
        sq_os_random(&seed, sizeof seed);
        g.sampling.seed = (int64_t)(seed >> 11); /* 53 bits: every client can read it back exactly */
    }
    c->seed = g.sampling.seed;
    c->wish.gen = g;
}

static bool make_answers(sq_api_call *c) {
    const size_t n = c->n_prompts * (size_t)c->wish.n, bytes = c->dialect->answer_bytes;
    c->answers = SQ_ARENA_ARRAY(&c->arena, sq_api_answer, n + 1);
    char *states = bytes ? sq_arena_array(&c->arena, n + 1, bytes, _Alignof(max_align_t)) : NULL;
    if (!c->answers || (bytes && !states))
        return sq_api_refuse(&c->error, 503, "insufficient_memory", NULL, "the request found no memory");
    for (size_t i = 0; i < n; i++) {
        c->answers[i] = (sq_api_answer){.call = c,
                                        .index = (int32_t)i,
                                        .i_prompt = (int32_t)(i / (size_t)c->wish.n),
                                        .i_choice = (int32_t)(i % (size_t)c->wish.n),
                                        .state = states ? states + i * bytes : NULL};
        sq_buf_init(&c->answers[i].text, &c->api->alloc, SQ_API_TEXT_MAX);
        c->n_answers = i + 1;
        if (!sq_api_begin_parts(c, &c->answers[i])) return false;
    }
    return true;
}

static void prepare(void *user) { /* worker */
    sq_api_call *c = user;
    if (c->dialect->work) {
        if (c->dialect->work(c)) form_reply(c);
        return;
    }
    if (c->wish.load_only || (c->dialect->check && !c->dialect->check(c)) || !sq_api_make_prompts(c) ||
        !sq_api_make_grammar(c))
        return;
    if (c->wish.pool != SQUISH_POOL_NONE) {
        bool told;
        c->wish.pool = sq_api_pooling(c->model->model, c->model->path, &told);
        c->wish.pool_guessed = !told;
    }
    settle_sampling(c);
    make_answers(c);
}

static void begin_stream(sq_api_call *c) {
    sq_http_begin(c->req, 200, c->dialect->stream_type, c->dialect->ping, 15.0);
    c->streaming = true;
    sq_http_on_drained(c->req, drained, c);
    if (c->dialect->begin) c->dialect->begin(c);
}

static void prepared(void *user) {
    sq_api_call *c = user;
    if (stopped(c)) {
        let_go(c);
        return;
    }
    if (c->dialect->work) {
        reply_formed(c);
        return;
    }
    if (c->relaxed && *c->relaxed) sq_http_add_header(c->req, "X-Squish-Schema-Relaxed", c->relaxed);
    c->core->stage = ANSWERS;
    if (!submit(c)) {
        fail(c);
    } else {
        if (c->wish.stream) begin_stream(c);
        pump(c); /* a prompt that was cached may be answered already; a load has no answers at all */
    }
    let_go(c);
}

static void on_model(void *user, sq_api_model *m, const sq_api_error *e) {
    sq_api_call *c = user;
    c->load_ms = (double)(sq_os_now_ns() - c->t_start_ns) / 1e6;
    if (m) {
        c->model = m;
        m->requests++;
        if (!c->model_name) c->model_name = m->name;
        uint32_t h = 2166136261u;
        for (const char *s = squish_build_info(); *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
        for (const char *s = m->info.path; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
        snprintf(c->fingerprint, sizeof c->fingerprint, "sq-%08x", h);
    } else if (!c->error.status) {
        c->error = *e;
    }
    if (!stopped(c)) work(c, PREPARE, prepare, prepared);
    let_go(c);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Keys and elements of JSON text, and its bytes between strings only: commas and colons. */
static size_t count_elements(const char *p, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '"') {
            for (i++; i < n && p[i] != '"'; i++)
                if (p[i] == '\\') i++;
        } else if (p[i] == ',' || p[i] == ':') {
            count++;
        }
    }
    return count;
}

bool sq_api_parse(sq_api_error *e, sq_span body, size_t elements_max, int depth_max, json_t **out) {
    *out = NULL;
    squish_error err = {0};
    const char *p = (const char *)body.p;
    if (body.n == 0) {
        *out = json_object();
        return *out || sq_api_refuse(e, 503, "insufficient_memory", NULL, "the request found no memory");
    }
    if (count_elements(p, body.n) > elements_max)
        return sq_api_refuse(e, 400, "invalid_json", NULL, "body: more than %zu keys and elements",
                             elements_max);
    if (sq_json_parse(p, body.n, depth_max, "body", out, &err) != SQUISH_OK) {
        if (err.code == SQUISH_NO_MEMORY) return sq_api_refuse_lib(e, &err);
        return sq_api_refuse(e, 400, "invalid_json", NULL, "%s", err.text);
    }
    if (json_is_object(*out)) return true;
    json_decref(*out);
    *out = NULL;
    return sq_api_refuse(e, 400, "invalid_json", NULL, "body: wanted a JSON object");
}

static void read_body(void *user) { /* worker */
    sq_api_call *c = user;
    const size_t most = c->dialect->elements_max ? c->dialect->elements_max : SQ_API_JSON_ELEMENTS;
    const int depth = c->dialect->schemas ? SQ_JSON_DEPTH_SCHEMA : SQ_JSON_DEPTH;
    if (!sq_api_parse(&c->error, sq_http_body(c->req), most, depth, &c->body) ||
        !c->dialect->read(c, c->body))
        return;
    if (!c->dialect->needs_no_model && !c->wish.no_model) sq_api_made_apply(c);
}

/* Neither model nor answers: the call waits for something else. */
static void wait_for(sq_api_call *c) {
    c->core->stage = ANSWERS;
    c->core->waits = true;
    c->core->holds++;
    if (c->wish.stream) begin_stream(c);
    c->dialect->start(c);
    let_go(c);
}

void sq_api_call_resume(sq_api_call *c) {
    c->core->waits = false;
    c->core->holds++;
    pump(c);
    let_go(c);
}

static void body_read(void *user) {
    sq_api_call *c = user;
    if (!stopped(c)) {
        if (!c->model_name && c->wish.model && *c->wish.model) c->model_name = c->wish.model;
        if (c->dialect->look && !c->dialect->look(c)) {
            fail(c);
        } else if (c->dialect->start) {
            wait_for(c);
        } else if (c->dialect->needs_no_model || c->wish.no_model) {
            work(c, PREPARE, prepare, prepared);
        } else {
            c->core->stage = MODEL;
            c->core->holds++;
            sq_api_model_want(c->api, c->wish.model, on_model, c);
        }
    }
    let_go(c);
}

/* ---- from outside ---------------------------------------------------------------------------- */

static void on_gone(void *user, sq_http_req *r) {
    (void)r;
    sq_api_call *c = user;
    c->core->gone = true;
    if (c->core->stage == ANSWERS) {
        sq_api_refuse(&c->error, 499, "client_closed", NULL, "the client left");
        fail(c);
    }
}

void sq_api_call_cancel(sq_api_call *c, int status, const char *code, const char *why) {
    sq_api_refuse(&c->core->cancelled, status, code, NULL, "%s", why);
    if (c->core->stage != ANSWERS) return; /* seen when it comes back to the loop */
    c->error = c->core->cancelled;
    fail(c);
}

sq_api_call *sq_api_call_find(sq_api *api, const char *id) {
    const char *dash = strrchr(id, '-');
    if (!dash) dash = strrchr(id, '_');
    for (sq_api_call *c = api->calls; c; c = c->core->next)
        if (strcmp(c->request_id, id) == 0 || strcmp(c->id, id) == 0 ||
            (dash && strcmp(c->id, dash + 1) == 0))
            return c;
    return NULL;
}

bool sq_api_call_in_worker(const sq_api_call *c) {
    return c->core->stage == READ || c->core->stage == PREPARE || c->core->stage == FORM;
}

uint64_t sq_api_call_client(const sq_api_call *c) { return c->core->client; }

static bool admit(sq_api *api, sq_http_req *r, sq_api_error *e) {
    if (api->draining) {
        sq_api_refuse(e, 503, "draining", NULL, "the server is going down");
        e->retry_after_s = 5;
        return false;
    }
    int32_t own = 0;
    const uint64_t client = sq_http_client(r);
    for (const sq_api_call *c = api->calls; c && api->opt.key_limit > 0; c = c->core->next)
        own += c->core->client == client;
    if (api->opt.key_limit > 0 && own >= api->opt.key_limit) {
        sq_api_refuse(e, 429, "rate_limit_exceeded", NULL, "%d requests of this key are at work, at most %d",
                      own, api->opt.key_limit);
        e->retry_after_s = 1;
        return false;
    }
    return true;
}

static sq_api_call *new_call(sq_api *api, sq_http_req *r, const sq_api_dialect *d) {
    sq_api_call *c = sq_alloc_zero(&api->alloc, sizeof *c);
    if (!c) return NULL;
    sq_arena_init(&c->arena, &api->alloc, ARENA_BLOCK, ARENA_MAX);
    c->core = SQ_ARENA_NEW(&c->arena, struct sq_api_call_core);
    c->state = d->state_bytes ? sq_arena_alloc(&c->arena, d->state_bytes, _Alignof(max_align_t)) : NULL;
    if (!c->core || (d->state_bytes && !c->state)) {
        sq_arena_deinit(&c->arena);
        sq_alloc_free(&api->alloc, c, sizeof *c);
        return NULL;
    }
    c->api = api;
    c->dialect = d;
    c->req = r;
    sq_api_base62(c->id, 24);
    snprintf(c->request_id, sizeof c->request_id, "%s", sq_http_id(r));
    c->created = sq_os_unix_time();
    c->t_start_ns = sq_os_now_ns();
    c->wish = (sq_api_wish){.add_generation_prompt = true,
                            .token_flags = SQUISH_TOK_BOS_EOS,
                            .gen = squish_gen_options_default(),
                            .n = 1,
                            .prompt_logprobs = -1};
    c->core->client = sq_http_client(r);
    sq_buf_init(&c->core->out, &api->alloc, (size_t)1 << 30);
    return c;
}

void sq_api_call_new(sq_api *api, sq_http_req *r, const sq_api_dialect *d) {
    sq_api_error e = {0};
    sq_api_call *c = admit(api, r, &e) ? new_call(api, r, d) : NULL;
    if (!c) {
        if (!e.status) sq_api_refuse(&e, 503, "insufficient_memory", NULL, "the request found no memory");
        sq_api_reply_error(r, &e);
        return;
    }
    link_call(c);
    c->core->holds = 2; /* the request's, and this function's */
    sq_http_set_user(r, c);
    sq_http_on_gone(r, on_gone, c);
    const char *model = sq_http_query(r, "model"); /* of routes without a body */
    if (model) c->wish.model = sq_arena_strndup(&c->arena, model, strlen(model));
    if (d->enter) d->enter(c);
    work(c, READ, read_body, body_read);
    let_go(c);
}

/* ---- sums ------------------------------------------------------------------------------------ */

void sq_api_call_totals(const sq_api_call *c, sq_api_totals *t) {
    *t = (sq_api_totals){0};
    /* A prompt counts once however many choices were made of it. */
    for (size_t i = 0; i < c->n_prompts; i++) t->prompt_tokens += (int64_t)c->prompts[i].n;
    for (size_t i = 0; i < c->n_answers; i++) {
        const sq_api_answer *a = &c->answers[i];
        t->completion_tokens += a->n_tokens;
        t->thought_tokens += a->n_thought;
        if (!a->ended) continue;
        if (a->i_choice == 0) t->cached_tokens += a->stats.gen.reused_tokens;
        t->behind_codes |= a->stats.behind_codes;
        t->guessed_tokens += a->stats.gen.guessed_tokens;
        t->right_tokens += a->stats.gen.right_tokens;
        if (a->stats.queue_ms > t->queue_ms) t->queue_ms = a->stats.queue_ms;
        if (a->stats.gen.prefill_ms > t->prompt_ms) t->prompt_ms = a->stats.gen.prefill_ms;
        if (a->stats.gen.decode_ms > t->predicted_ms) t->predicted_ms = a->stats.gen.decode_ms;
        if (t->ttft_ms == 0 || a->stats.gen.ttft_ms < t->ttft_ms) t->ttft_ms = a->stats.gen.ttft_ms;
    }
}
