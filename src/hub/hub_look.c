/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_look.c - asking a hub what a name's files are. Small answers, a few tries each. */
#include "fetch/fetch_pool.h"
#include "hub/hub.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TRIES = 4, PAGES_MAX = 64, ANSWER_MAX = 32 << 20 };

static const char *endpoint(const hub_settings *s) {
    return s->endpoint ? s->endpoint : "https://huggingface.co";
}
static const char *registry(const hub_settings *s) {
    return s->registry ? s->registry : "https://registry.ollama.ai";
}

typedef struct {
    sq_buf body;
    fetch_head head;
    squish_status st;
    squish_error err;
    bool again, seen;
} answer;

static bool keep(void *user, const char *bytes, size_t n) {
    return sq_buf_append(&((answer *)user)->body, bytes, n);
}

/* The head is all that was wanted. */
static bool only_head(void *user, const fetch_head *h) {
    answer *a = user;
    (void)h;
    a->seen = true;
    return false;
}

static void done(void *user, const fetch_end *e) {
    answer *a = user;
    a->st = a->seen ? SQUISH_OK : e->st;
    a->err = e->err;
    a->again = e->again;
    a->head = *e->head;
}

static bool is_stopped(const hub_settings *s) { return s->stop && s->stop(s->stop_user); }

static void pause_s(double s) {
    const struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

/* One answer into a->body (to be freed by the caller). */
static squish_status get(const hub_settings *s, const char *url, const char *accept, bool head_only,
                         answer *a, squish_error *err) {
    const squish_alloc alloc = sq_alloc_default();
    fetch_pool *p = NULL;
    squish_status st = fetch_pool_new(&p, s->stall_s > 0 ? s->stall_s : 20, err);
    const int tries = s->retries > 0 && s->retries < TRIES ? s->retries : TRIES;
    for (int i = 0; st == SQUISH_OK && i < tries; i++) {
        *a = (answer){0};
        sq_buf_init(&a->body, &alloc, ANSWER_MAX);
        const fetch_ask q = {.url = url,
                             .token = s->token,
                             .token_origin = endpoint(s),
                             .accept = accept,
                             .unpack = !head_only,
                             .from = 0,
                             .to = head_only ? 1 : 0,
                             .bytes_max = ANSWER_MAX,
                             .begin = head_only ? only_head : NULL,
                             .sink = keep,
                             .done = done,
                             .user = a};
        st = fetch_pool_ask(p, &q, err);
        while (st == SQUISH_OK && fetch_pool_wait(p, 1) > 0) {}
        if (st != SQUISH_OK || a->st == SQUISH_OK || !a->again || i + 1 == tries) break;
        const double pause = a->head.retry_after_s > 0 ? a->head.retry_after_s : 0.3 * (1 << i);
        sq_buf_deinit(&a->body);
        for (double left = pause < 60 ? pause : 60; left > 0 && !is_stopped(s); left -= 0.1)
            pause_s(left < 0.1 ? left : 0.1);
    }
    fetch_pool_free(p);
    if (st == SQUISH_OK && a->st == SQUISH_CANCELLED && a->body.failed) {
        a->err = (squish_error){0};
        a->st = sq_fail(&a->err, SQUISH_NO_MEMORY, "%.160s: no memory for the answer", url);
    }
    if (st != SQUISH_OK) sq_buf_deinit(&a->body);
    if (st == SQUISH_OK && a->st != SQUISH_OK) {
        sq_buf_deinit(&a->body);
        if (err && err->code == SQUISH_OK) *err = a->err;
        return a->st;
    }
    return st;
}

/* ---- Hugging Face ---------------------------------------------------------------------------- */

static squish_status look_hf(const hub_settings *s, const hub_ref *r, hub_listing *l, squish_error *err) {
    char url[FETCH_URL_MAX], branch[400] = "";
    answer a = {0};
    for (size_t i = 0, n = 0; r->revision[i] && n + 4 < sizeof branch; i++) /* a branch's slash is %2F */
        n += (size_t)snprintf(branch + n, sizeof branch - n, r->revision[i] == '/' ? "%%2F" : "%c",
                              r->revision[i]);
    snprintf(l->source, sizeof l->source, "%.290s", endpoint(s));
    snprintf(url, sizeof url, "%.1000s/api/models/%s/revision/%s", endpoint(s), r->repo, branch);
    squish_status st = get(s, url, "application/json", false, &a, err);
    if (st != SQUISH_OK) {
        sq_err_prefix(err, "%.100s", r->repo);
        return st;
    }
    st = hub_read_info(a.body.data ? a.body.data : "", a.body.len, l, err);
    sq_buf_deinit(&a.body);
    if (st != SQUISH_OK) return st;
    snprintf(url, sizeof url, "%.1000s/api/models/%s/tree/%s?recursive=false", endpoint(s), r->repo,
             l->revision);
    for (int page = 0; *url; page++) {
        if (page == PAGES_MAX)
            return sq_fail(err, SQUISH_CORRUPT, "%s: more than %d pages of files", r->repo, page);
        SQ_TRY(get(s, url, "application/json", false, &a, err));
        st = hub_read_tree(a.body.data ? a.body.data : "", a.body.len, l, err);
        snprintf(url, sizeof url, "%s", a.head.next);
        sq_buf_deinit(&a.body);
        if (st != SQUISH_OK) return st;
    }
    SQ_TRY(hub_choose(l, r->quant, r->file, err));
    for (size_t i = 0; i < l->n; i++) {
        hub_file *f = &l->files[i];
        char path[3 * SQ_STORE_NAME_MAX + 4] = "";
        for (size_t k = 0, n = 0; f->path[k]; k++)
            n += (size_t)snprintf(path + n, sizeof path - n, strchr(" +@=", f->path[k]) ? "%%%02X" : "%c",
                                  (unsigned char)f->path[k]);
        if (snprintf(f->url, sizeof f->url, "%.500s/%s/resolve/%s/%s", endpoint(s), r->repo, l->revision,
                     path) >= (int)sizeof f->url)
            return sq_fail(err, SQUISH_INVALID, "%s: address too long", f->path);
    }
    return SQUISH_OK;
}

/* ---- Ollama ---------------------------------------------------------------------------------- */

static squish_status look_ollama(const hub_settings *s, const hub_ref *r, hub_listing *l, squish_error *err) {
    char url[FETCH_URL_MAX];
    answer a = {0};
    snprintf(l->source, sizeof l->source, "%.290s", registry(s));
    snprintf(l->revision, sizeof l->revision, "%s", r->revision);
    snprintf(url, sizeof url, "%.1000s/v2/%s/manifests/%s", registry(s), r->repo, r->revision);
    squish_status st = get(s, url, "application/vnd.docker.distribution.manifest.v2+json", false, &a, err);
    if (st != SQUISH_OK) {
        sq_err_prefix(err, "%.100s:%.40s", r->repo, r->revision);
        return st;
    }
    st = hub_read_oci(a.body.data ? a.body.data : "", a.body.len, l, err);
    sq_buf_deinit(&a.body);
    if (st != SQUISH_OK) return st;
    snprintf(l->license, sizeof l->license, "see ollama.com/%.60s", r->repo);
    hub_file *f = &l->files[0];
    if (snprintf(f->url, sizeof f->url, "%.1000s/v2/%s/blobs/sha256:%s", registry(s), r->repo, f->sum) <
        (int)sizeof f->url)
        return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s: address too long", r->repo);
}

/* ---- one file -------------------------------------------------------------------------------- */

static squish_status look_url(const hub_settings *s, const hub_ref *r, hub_listing *l, squish_error *err) {
    answer a = {0};
    char origin[300] = "";
    SQ_TRY(get(s, r->url, NULL, true, &a, err));
    sq_buf_deinit(&a.body);
    const uint64_t bytes = a.head.has_range ? a.head.total : a.head.has_length ? a.head.length : 0;
    if (!bytes)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%.200s: the server does not say how large it is", r->url);
    fetch_origin(r->url, origin, sizeof origin);
    snprintf(l->source, sizeof l->source, "%.290s", origin);
    snprintf(l->revision, sizeof l->revision, "%.120s", a.head.etag);
    const char *sum = a.head.linked_etag; /* hubs behind an address say it */
    const bool known = strlen(sum) == 64 && strspn(sum, "0123456789abcdef") == 64;
    if (!hub_add_file(l, r->file, bytes, known ? FETCH_SUM_SHA256 : FETCH_SUM_NONE, known ? sum : NULL))
        return sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    snprintf(l->files[0].url, sizeof l->files[0].url, "%s", r->url);
    return hub_choose(l, "", r->file, err);
}

squish_status hub_look(const hub_settings *s, const hub_ref *r, hub_listing *out, squish_error *err) {
    hub_listing_free(out);
    hub_listing_init(out);
    if (s->offline)
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "'%.100s' is not on this machine, and nobody is asked (--offline, HF_HUB_OFFLINE)",
                       r->name);
    snprintf(out->repo, sizeof out->repo, "%s", *r->repo ? r->repo : r->file);
    switch (r->kind) {
    case HUB_OLLAMA: return look_ollama(s, r, out, err);
    case HUB_URL: return look_url(s, r, out, err);
    default: return look_hf(s, r, out, err);
    }
}
