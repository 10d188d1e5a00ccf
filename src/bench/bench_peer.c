/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_peer.c - another server, asked as its clients ask it: time to the first token, the first time and
 * later, and tokens a second.
 *
 * A server that answers /api/version speaks Ollama's: keep_alive 0 puts the model out before a run. Others
 * are asked for completions as OpenAI's, and keep what they have. Prompts differ from run to run, so that
 * nobody answers from a cache of prompts. */
#include "bench/bench.h"
#include "fetch/fetch.h"
#include "format/json.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 32, LINE_MAX_BYTES = 1 << 20, TIMEOUT_S = 600 };

typedef struct {
    const bench_options *o;
    const char *name, *url;
    bool ollama;
    char model[256];
    /* One run. */
    uint64_t begin, first, last;
    int32_t tokens;
    sq_buf line;
    double t_first[2][BENCH_RUNS_MAX], rate[BENCH_RUNS_MAX]; /* first token: put out before, still loaded */
    json_t *rows;
} peer;

static squish_status ask(const peer *p, const char *path, const char *json, json_t **out, squish_error *err) {
    char url[1024];
    squish_text text = {0};
    snprintf(url, sizeof url, "%s%s", p->url, path);
    SQ_TRY(fetch_text(url, json, TIMEOUT_S, &text, err));
    const squish_status st = sq_json_parse(text.data, text.bytes, SQ_JSON_DEPTH, url, out, err);
    squish_text_free(&text);
    return st;
}

/* The first of a list, by its key; a name behind # in the address wins. */
static squish_status find_model(peer *p, squish_error *err) {
    json_t *o = NULL;
    if (*p->model) return SQUISH_OK;
    SQ_TRY(ask(p, p->ollama ? "/api/tags" : "/v1/models", NULL, &o, err));
    const json_t *list = json_object_get(o, p->ollama ? "models" : "data");
    const char *name = json_string_value(json_object_get(json_array_get(list, 0), p->ollama ? "name" : "id"));
    snprintf(p->model, sizeof p->model, "%s", name ? name : "");
    json_decref(o);
    return *p->model ? SQUISH_OK : sq_fail(err, SQUISH_NOT_FOUND, "%s: the server names no model", p->url);
}

/* ---- a stream -------------------------------------------------------------------------------- */

static const char *text_of(const peer *p, const json_t *o) {
    if (p->ollama) return json_string_value(json_object_get(o, "response"));
    return json_string_value(json_object_get(json_array_get(json_object_get(o, "choices"), 0), "text"));
}

static void take_line(peer *p, const char *s, size_t n) {
    json_t *o = NULL;
    if (n > 6 && memcmp(s, "data: ", 6) == 0) s += 6, n -= 6;
    if (n == 0 || *s != '{' || sq_json_parse(s, n, SQ_JSON_DEPTH, "stream", &o, NULL) != SQUISH_OK) return;
    const char *text = text_of(p, o);
    if (text && *text) {
        p->last = sq_os_now_ns();
        if (p->tokens++ == 0) p->first = p->last;
    }
    json_decref(o);
}

static bool take(void *user, const char *bytes, size_t n) {
    peer *p = user;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n') {
            if (!sq_buf_putc(&p->line, bytes[i])) return false;
            continue;
        }
        if (p->line.len) take_line(p, p->line.data, p->line.len);
        p->line.len = 0;
    }
    return true;
}

static json_t *request_of(const peer *p, int32_t run) {
    char prompt[160];
    snprintf(prompt, sizeof prompt, "Note %d of %llu. The old harbour is quiet in the morning, and", run,
             (unsigned long long)(p->begin % 1000000));
    if (p->ollama)
        return json_pack("{s:s, s:s, s:b, s:b, s:{s:i, s:i}}", "model", p->model, "prompt", prompt, "stream",
                         1, "raw", 1, "options", "num_predict", TOKENS, "temperature", 0);
    return json_pack("{s:s, s:s, s:b, s:i, s:i}", "model", p->model, "prompt", prompt, "stream", 1,
                     "max_tokens", TOKENS, "temperature", 0);
}

static squish_status stream_once(peer *p, int32_t run, double *first_ms, double *rate, squish_error *err) {
    char url[1024];
    const squish_alloc a = sq_alloc_default();
    snprintf(url, sizeof url, "%s%s", p->url, p->ollama ? "/api/generate" : "/v1/completions");
    p->begin = sq_os_now_ns();
    json_t *body = request_of(p, run);
    char *json = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!json) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    sq_buf_init(&p->line, &a, LINE_MAX_BYTES);
    p->first = p->last = 0, p->tokens = 0;
    const fetch_request r = {url, json, TIMEOUT_S, 0, take, p, NULL};
    p->begin = sq_os_now_ns();
    squish_status st = fetch_run(&r, NULL, err);
    sq_buf_deinit(&p->line);
    free(json); /* jansson's */
    SQ_TRY(st);
    if (p->tokens < 2)
        return sq_fail(err, SQUISH_NETWORK, "%s: the answer has %d pieces, wanted 2 or more", url, p->tokens);
    *first_ms = (double)(p->first - p->begin) / 1e6;
    *rate = (p->tokens - 1) / ((double)(p->last - p->first) / 1e9);
    return SQUISH_OK;
}

/* Ollama's way to unload: an empty request that keeps the model for no time. */
static squish_status put_out(const peer *p, squish_error *err) {
    json_t *o = json_pack("{s:s, s:i}", "model", p->model, "keep_alive", 0), *answer = NULL;
    char *json = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!json) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    const squish_status st = ask(p, "/api/generate", json, &answer, err);
    free(json); /* jansson's */
    json_decref(answer);
    return st;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static squish_status add(peer *p, const char *what, const char *unit, double *v, int32_t n, bench_sense sense,
                         squish_error *err) {
    char name[192];
    snprintf(name, sizeof name, "%.60s: %s", p->name, what);
    return bench_row(p->rows, name, unit, v, n, NAN, sense, err);
}

static squish_status measure(peer *p, squish_error *err) {
    const int32_t runs = p->o->runs;
    double again;
    for (int32_t i = 0; i < runs; i++) {
        if (p->ollama) SQ_TRY(put_out(p, err));
        SQ_TRY(stream_once(p, 2 * i, &p->t_first[0][i], &again, err));
        SQ_TRY(stream_once(p, 2 * i + 1, &p->t_first[1][i], &p->rate[i], err));
        if (p->o->progress && !p->o->progress(p->o->progress_user, p->name, (uint64_t)i + 1, (uint64_t)runs))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    SQ_TRY(add(p, "first token, first run", "ms", p->t_first[0], 1, BENCH_SMALL_IS_GOOD, err));
    if (runs > 1 && p->ollama)
        SQ_TRY(add(p, "first token, put out before", "ms", p->t_first[0] + 1, runs - 1, BENCH_SMALL_IS_GOOD,
                   err));
    SQ_TRY(add(p, "first token, loaded", "ms", p->t_first[1], runs, BENCH_SMALL_IS_GOOD, err));
    return add(p, "decode", "tok/s", p->rate, runs, BENCH_LARGE_IS_GOOD, err);
}

squish_status bench_peer(const bench_options *o, const char *name, const char *url, json_t *rows,
                         squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    peer *p = sq_alloc_zero(&a, sizeof *p);
    char base[512];
    json_t *version = NULL;
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    snprintf(base, sizeof base, "%s", url);
    char *mark = strchr(base, '#');
    if (mark) *mark = 0, snprintf(p->model, sizeof p->model, "%s", mark + 1);
    for (size_t n = strlen(base); n > 0 && base[n - 1] == '/'; n--) base[n - 1] = 0;
    p->o = o, p->name = name, p->url = base, p->rows = rows;
    p->ollama = ask(p, "/api/version", NULL, &version, NULL) == SQUISH_OK;
    json_decref(version);
    squish_status st = find_model(p, err);
    if (st == SQUISH_OK) st = measure(p, err);
    sq_alloc_free(&a, p, sizeof *p);
    return st;
}
