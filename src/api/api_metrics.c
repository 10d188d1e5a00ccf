/* SPDX-License-Identifier: Apache-2.0
 *
 * api_metrics.c - counters, and GET /metrics in the text format of Prometheus (0.0.4).
 *
 * What belongs to a model's batch carries the label model and begins anew when the model is loaded again; the
 * rest is counted here for the life of the server. Labels are bounded: routes come from the table, models
 * from what is loaded. The names of the original Squish are kept. */
#include "api/api_int.h"

#include <stdio.h>
#include <string.h>

enum { ROUTE_COUNTS_MAX = 1024, MODELS_MAX = 32 };

struct sq_api_route_count {
    const char *route; /* of the table, or "" */
    int status;
    uint64_t n;
};

/* ---- counting -------------------------------------------------------------------------------- */

void sq_api_count_request(sq_api *api, const char *route, int status, double seconds) {
    sq_api_counters *k = &api->count;
    k->http_requests++;
    k->http_seconds += seconds;
    for (size_t i = 0; i < k->n_routes; i++)
        if (k->routes[i].status == status && strcmp(k->routes[i].route, route) == 0) {
            k->routes[i].n++;
            return;
        }
    if (!k->routes) k->routes = sq_alloc_zero(&api->alloc, ROUTE_COUNTS_MAX * sizeof *k->routes);
    if (k->routes && k->n_routes < ROUTE_COUNTS_MAX)
        k->routes[k->n_routes++] = (struct sq_api_route_count){route, status, 1};
}

static sq_api_reason reason_of(const sq_api_call *c) {
    if (c->error.status == 0) return SQ_API_DONE_STOP;
    if (c->error.status == 499 || strcmp(c->error.code, "cancelled") == 0) return SQ_API_DONE_CANCELLED;
    return strcmp(c->error.code, "timeout") == 0 ? SQ_API_DONE_TIMEOUT : SQ_API_DONE_ERROR;
}

void sq_api_count_call(sq_api *api, const sq_api_call *c) {
    sq_api_counters *k = &api->count;
    sq_api_totals t;
    sq_api_call_totals(c, &t);
    const sq_api_reason why = reason_of(c);
    k->requests++;
    if (why == SQ_API_DONE_STOP) {
        for (size_t i = 0; i < c->n_answers; i++)
            k->finished[c->answers[i].finish == SQUISH_FINISH_LENGTH ? SQ_API_DONE_LENGTH
                                                                     : SQ_API_DONE_STOP]++;
    } else {
        k->finished[why]++;
    }
    k->prompt_tokens += (uint64_t)t.prompt_tokens;
    k->tokens_generated += (uint64_t)t.completion_tokens;
    k->cached_tokens += (uint64_t)t.cached_tokens;
    if (c->model) c->model->tokens_generated += (uint64_t)t.completion_tokens;
    if (t.ttft_ms > 0) k->ttft_sum_s += t.ttft_ms / 1e3, k->ttft_count++;
    if (t.predicted_ms > 0 && t.completion_tokens > 1)
        k->decode_sum_s += t.predicted_ms / 1e3, k->decode_tokens += (uint64_t)t.completion_tokens - 1;
    for (size_t i = 0; i < c->n_prompts; i++) {
        for (int b = 0; b < SQ_API_PREFILL_BUCKETS; b++) k->prefill[b] += c->prompts[i].n <= (size_t)16 << b;
        k->prefill_count++;
        k->prefill_sum += c->prompts[i].n;
    }
}

void sq_api_metrics_free(sq_api *api) {
    sq_alloc_free(&api->alloc, api->count.routes, ROUTE_COUNTS_MAX * sizeof *api->count.routes);
    api->count.routes = NULL;
}

double sq_api_mean_tps(const sq_api *api) {
    return api->count.decode_sum_s > 0 ? (double)api->count.decode_tokens / api->count.decode_sum_s : 0;
}
double sq_api_mean_ttft_s(const sq_api *api) {
    return api->count.ttft_count ? api->count.ttft_sum_s / (double)api->count.ttft_count : 0;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void head(sq_buf *b, const char *name, const char *type, const char *help) {
    sq_buf_printf(b, "# HELP squish_%s %s\n# TYPE squish_%s %s\n", name, help, name, type);
}

static void one(sq_buf *b, const char *name, const char *type, const char *help, double v) {
    head(b, name, type, help);
    sq_buf_printf(b, "squish_%s %.17g\n", name, v);
}

/* A label's value: names of models may hold anything but what the format cannot. */
static void label(sq_buf *b, const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') sq_buf_putc(b, '\\');
        sq_buf_putc(b, *text == '\n' ? ' ' : *text);
    }
}

typedef struct {
    const sq_api_model *m;
    squish_batch_stats s;
    squish_lookahead_info look;
} model_stats;

typedef struct {
    const char *name, *type, *help;
    double (*value)(const model_stats *x);
} model_row;

static double queued(const model_stats *x) { return x->s.queued; }
static double running(const model_stats *x) { return x->s.running; }
static double prefix_hits(const model_stats *x) { return (double)x->s.prefix_hits; }
static double snapshot_hits(const model_stats *x) { return (double)x->s.snapshot_hits; }
static double tiles_free(const model_stats *x) { return x->s.tiles_free; }
static double tiles_cached(const model_stats *x) { return x->s.tiles_cached; }
static double tiles_used(const model_stats *x) { return x->s.tiles - x->s.tiles_free; }
static double kv_tokens(const model_stats *x) { return 32.0 * (x->s.tiles - x->s.tiles_free); }
static double kv_mb(const model_stats *x) { return (double)x->s.kv_bytes / 1e6; }
static double preemptions(const model_stats *x) { return (double)x->s.preemptions; }
static double cancelled(const model_stats *x) { return (double)x->s.cancelled; }
static double steps(const model_stats *x) { return (double)x->s.steps; }
static double evaluated(const model_stats *x) { return (double)x->s.evaluated_tokens; }
static double guessed(const model_stats *x) { return (double)x->s.guessed_tokens; }
static double right(const model_stats *x) { return (double)x->s.right_tokens; }
static double density(const model_stats *x) { return x->s.attn_density; }
static double fairness(const model_stats *x) { return x->s.fairness; }
static double moe_hit(const model_stats *x) { return (double)x->look.hit_bytes; }
static double moe_miss(const model_stats *x) { return (double)x->look.miss_bytes; }
static double moe_predicted(const model_stats *x) { return (double)x->look.predicted_bytes; }
static double moe_wasted(const model_stats *x) { return (double)x->look.wasted_bytes; }
static double moe_strict(const model_stats *x) { return x->look.strict; }
static double moe_covered(const model_stats *x) { return x->look.covered; }
static double agile_bytes(const model_stats *x) { return (double)x->s.agile.bytes_read; }
static double agile_stall(const model_stats *x) { return x->s.agile.stall_ms / 1e3; }
static double agile_hits(const model_stats *x) { return (double)x->s.agile.hits; }
static double agile_late(const model_stats *x) { return (double)x->s.agile.late_hits; }
static double agile_misses(const model_stats *x) { return (double)x->s.agile.misses; }
static double load_s(const model_stats *x) { return x->m->load_ms / 1e3; }

static const model_row model_rows[] = {
    {"queue_depth", "gauge", "answers that wait", queued},
    {"batch_size", "gauge", "answers in the running step", running},
    {"model_load_seconds", "gauge", "open to ready", load_s},
    {"prefix_cache_hits_total", "counter", "prompts that began with something known", prefix_hits},
    {"radix_prefix_hits_total", "counter", "the same, under the name of the prefix tree", prefix_hits},
    {"snapshot_hits_total", "counter", "prefixes read from disk", snapshot_hits},
    {"paged_kv_free_blocks", "gauge", "blocks of 32 tokens that hold nothing", tiles_free},
    {"paged_kv_used_blocks", "gauge", "blocks of 32 tokens in use or kept for prefixes", tiles_used},
    {"paged_kv_cached_blocks", "gauge", "blocks kept for prefixes alone", tiles_cached},
    {"kv_cache_tokens", "gauge", "tokens the used blocks have room for", kv_tokens},
    {"kv_cache_memory_mb", "gauge", "memory of the used blocks", kv_mb},
    {"attention_density", "gauge", "share of their past that prompts read under sparge", density},
    {"preemptions_total", "counter", "answers that made room and began again", preemptions},
    {"cancelled_total", "counter", "answers that were cancelled", cancelled},
    {"steps_total", "counter", "steps of the model", steps},
    {"evaluated_tokens_total", "counter", "tokens that went through the model", evaluated},
    {"spec_guessed_tokens_total", "counter", "tokens that were guessed and tried", guessed},
    {"spec_right_tokens_total", "counter", "and of these, right", right},
    {"moe_hit_bytes_total", "counter", "experts that were in memory when they were asked for", moe_hit},
    {"moe_miss_bytes_total", "counter", "experts that were not", moe_miss},
    {"moe_predicted_bytes_total", "counter", "experts read because they were guessed", moe_predicted},
    {"moe_wasted_bytes_total", "counter", "experts read ahead that nobody asked for", moe_wasted},
    {"moe_strict_recall", "gauge", "share of experts that were among as many guessed ones", moe_strict},
    {"moe_covered_recall", "gauge", "share of experts that were guessed at all", moe_covered},
    {"agile_read_bytes_total", "counter", "bytes of weights read in units", agile_bytes},
    {"agile_stall_seconds_total", "counter", "time steps waited for them", agile_stall},
    {"agile_hits_total", "counter", "units that were in memory", agile_hits},
    {"agile_late_hits_total", "counter", "units that were on their way", agile_late},
    {"agile_misses_total", "counter", "units that were neither", agile_misses},
    {"fairness", "gauge", "Jain's index over clients with work", fairness},
};

static void print_models(sq_buf *b, const model_stats *x, size_t n) {
    for (size_t i = 0; i < SQ_COUNT(model_rows); i++) {
        const model_row *r = &model_rows[i];
        head(b, r->name, r->type, r->help);
        for (size_t k = 0; k < n; k++) {
            sq_buf_printf(b, "squish_%s{model=\"", r->name);
            label(b, x[k].m->name);
            sq_buf_printf(b, "\"} %.17g\n", r->value(&x[k]));
        }
    }
}

static void print_hist(sq_buf *b, const char *name, const char *help, const model_stats *x, size_t n,
                       size_t offset) {
    head(b, name, "histogram", help);
    for (size_t k = 0; k < n; k++) {
        const squish_hist *h = (const squish_hist *)(const void *)((const char *)&x[k].s + offset);
        for (int i = 0; i < SQUISH_HIST_BUCKETS; i++) {
            sq_buf_printf(b, "squish_%s_bucket{model=\"", name);
            label(b, x[k].m->name);
            if (i == SQUISH_HIST_BUCKETS - 1)
                sq_buf_puts(b, "\",le=\"+Inf\"} ");
            else
                sq_buf_printf(b, "\",le=\"%g\"} ", (double)(1 << i) / 1e3);
            sq_buf_printf(b, "%llu\n", (unsigned long long)h->count[i]);
        }
        sq_buf_printf(b, "squish_%s_sum{model=\"", name);
        label(b, x[k].m->name);
        sq_buf_printf(b, "\"} %.9g\nsquish_%s_count{model=\"", h->sum_s, name);
        label(b, x[k].m->name);
        sq_buf_printf(b, "\"} %llu\n", (unsigned long long)h->count[SQUISH_HIST_BUCKETS - 1]);
    }
}

static void print_prefill(sq_buf *b, const sq_api_counters *k) {
    head(b, "prefill_tokens", "histogram", "tokens of prompts");
    for (int i = 0; i < SQ_API_PREFILL_BUCKETS; i++)
        sq_buf_printf(b, "squish_prefill_tokens_bucket{le=\"%d\"} %llu\n", 16 << i,
                      (unsigned long long)k->prefill[i]);
    sq_buf_printf(b,
                  "squish_prefill_tokens_bucket{le=\"+Inf\"} %llu\nsquish_prefill_tokens_sum %llu\n"
                  "squish_prefill_tokens_count %llu\n",
                  (unsigned long long)k->prefill_count, (unsigned long long)k->prefill_sum,
                  (unsigned long long)k->prefill_count);
}

static void print_requests(sq_buf *b, const sq_api_counters *k) {
    static const char *const words[SQ_API_REASONS] = {"stop", "length", "cancelled", "timeout", "error"};
    head(b, "requests_finished_total", "counter", "answers by how they ended");
    for (int i = 0; i < SQ_API_REASONS; i++)
        sq_buf_printf(b, "squish_requests_finished_total{reason=\"%s\"} %llu\n", words[i],
                      (unsigned long long)k->finished[i]);
    head(b, "http_requests_total", "counter", "requests by route and status");
    for (size_t i = 0; i < k->n_routes; i++)
        sq_buf_printf(b, "squish_http_requests_total{route=\"%s\",code=\"%d\"} %llu\n", k->routes[i].route,
                      k->routes[i].status, (unsigned long long)k->routes[i].n);
}

static void print_all(sq_api *api, sq_buf *b) {
    const sq_api_counters *k = &api->count;
    sq_http_stats h;
    sq_http_get_stats(api->http, &h);
    one(b, "requests_total", "counter", "requests to routes that work with models", (double)k->requests);
    one(b, "tokens_generated_total", "counter", "tokens generated", (double)k->tokens_generated);
    one(b, "prompt_tokens_total", "counter", "tokens of prompts", (double)k->prompt_tokens);
    one(b, "cached_prompt_tokens_total", "counter", "tokens of prompts that were not evaluated again",
        (double)k->cached_tokens);
    one(b, "inflight_requests", "gauge", "requests at work", api->n_calls);
    one(b, "avg_tokens_per_second", "gauge", "mean over answers, from the first token to the last",
        sq_api_mean_tps(api));
    one(b, "avg_ttft_seconds", "gauge", "mean time to the first token", sq_api_mean_ttft_s(api));
    one(b, "uptime_seconds", "gauge", "since the start", (double)(sq_os_now_ns() - api->t_start_ns) / 1e9);
    one(b, "rss_bytes", "gauge", "anonymous memory of this process", (double)sq_os_rss_anon());
    one(b, "connections", "gauge", "open connections", h.connections);
    one(b, "connections_total", "counter", "connections accepted", (double)h.accepted);
    one(b, "refused_by_gate_total", "counter", "requests that were no HTTP", (double)h.refused_by_gate);
    one(b, "refused_by_rules_total", "counter", "requests refused for host, origin, key or type",
        (double)h.refused_by_rules);
    one(b, "clients_gone_total", "counter", "clients that left before the end", (double)h.gone);
    print_prefill(b, k);
    print_requests(b, k);
    model_stats x[MODELS_MAX];
    size_t n = 0;
    for (sq_api_model *m = sq_api_model_first(api); m && n < MODELS_MAX; m = m->next) {
        if (m->state != SQ_API_READY) continue;
        x[n].m = m;
        squish_engine_get_lookahead(m->engine, &x[n].look);
        squish_batch_get_stats(m->batch, &x[n++].s);
    }
    print_models(b, x, n);
    print_hist(b, "ttft_seconds", "from submission to the first token", x, n,
               offsetof(squish_batch_stats, ttft));
    print_hist(b, "inter_token_seconds", "between tokens", x, n, offsetof(squish_batch_stats, inter_token));
    print_hist(b, "queue_seconds", "in the queue", x, n, offsetof(squish_batch_stats, queue));
    print_hist(b, "step_seconds", "of a step of the model", x, n, offsetof(squish_batch_stats, step));
}

void sq_api_get_metrics(void *user, sq_http_req *r) {
    sq_api *api = user;
    sq_buf b;
    sq_buf_init(&b, &api->alloc, 16 << 20);
    print_all(api, &b);
    if (b.failed)
        sq_http_refuse(r, 500, "out_of_memory", "the metrics found no memory");
    else
        sq_http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.data, b.len);
    sq_buf_deinit(&b);
}
