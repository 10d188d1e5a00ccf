/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_plan.c - will it run here: facts about tiers and memory for the decision of forge_plan.h, and its
 * answer as JSON. No weight is read. */
#include "forge/forge.h"
#include "forge/forge_plan.h"
#include "sched/sched.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

squish_plan_options squish_plan_options_default(void) { return (squish_plan_options){0}; }

/* ---- how fast memory is read ----------------------------------------------------------------- */

enum { STREAM_MAX = 256 << 20, STREAM_MIN = 16 << 20, STREAM_PARTS = 64, STREAM_ROUNDS = 3 };

typedef struct {
    const uint64_t *p;
    size_t bytes;
    uint64_t sum[STREAM_PARTS];
} stream;

static void stream_item(void *ctx, int32_t part, int32_t thread) {
    (void)thread;
    stream *s = ctx;
    const size_t n = s->bytes / sizeof *s->p / STREAM_PARTS;
    const uint64_t *p = s->p + (size_t)part * n;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < n; i += 4) a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    s->sum[part] += a + b + c + d;
}

/* GB/s of all threads, the best of a few rounds, over an eighth of what is available and at most what no
 * cache holds; 0 where there is no room. */
static double measure_read_rate(uint64_t available) {
    const squish_alloc a = sq_alloc_default();
    const uint64_t room = available / 8;
    stream s = {.bytes = room < STREAM_MAX ? (size_t)room / 4096 * 4096 : STREAM_MAX};
    sq_pool *pool = NULL;
    double best = 0;
    if (s.bytes < STREAM_MIN) return 0;
    void *memory = sq_os_reserve(s.bytes);
    if (memory && sq_pool_new(&pool, &a, sq_os_cores(), NULL) == SQUISH_OK) {
        memset(memory, 1, s.bytes);
        s.p = memory;
        for (int i = 0; i < STREAM_ROUNDS; i++) {
            const uint64_t begin = sq_os_now_ns();
            sq_pool_run(pool, stream_item, &s, STREAM_PARTS);
            const double rate = (double)s.bytes / (double)(sq_os_now_ns() - begin);
            if (rate > best) best = rate;
        }
    }
    sq_pool_free(pool);
    if (memory) sq_os_release(memory, s.bytes);
    return best;
}

/* ---- tiers ----------------------------------------------------------------------------------- */

static const squish_tier candidates[] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1};

/* Bytes a tier that is not there would have. */
static uint64_t would_be(const sq_model *m, squish_tier t) {
    squish_compress_options o = squish_compress_options_default();
    if (t == SQUISH_TIER_1) return m->info.weight_bytes;
    o.tier = t;
    return sq_forge_resolve(&o, &o, NULL) == SQUISH_OK ? sq_forge_size(m, &o) : 0;
}

static void add_tiers(const sq_model *m, const char *compressed, sq_plan_input *in) {
    char path[4600];
    for (size_t i = 0; i < SQ_COUNT(candidates); i++) {
        const bool ready = sq_tier_ready(compressed, candidates[i], path, sizeof path, NULL, 0);
        const uint64_t bytes = ready ? sq_os_file_bytes(path) : m->sqw ? 0 : would_be(m, candidates[i]);
        if (bytes == 0) continue;
        in->tiers[in->n++] =
            (sq_plan_tier){candidates[i], sq_tier_get(candidates[i])->name, ready, bytes, bytes, (int32_t)i};
    }
    if (!m->sqw)
        in->tiers[in->n++] =
            (sq_plan_tier){SQUISH_TIER_SOURCE, "source", true, m->info.weight_bytes, m->info.weight_bytes, 2};
}

/* ---- the answer ------------------------------------------------------------------------------ */

static json_t *tier_json(const sq_plan_input *in, int32_t i, bool chosen, uint64_t kv_token, int32_t ctx) {
    const sq_plan_tier *t = &in->tiers[i];
    const uint64_t need = sq_plan_need(in, t), usable = in->available / 10 * 9;
    const uint64_t rest = need - in->kv_bytes;
    const uint64_t tokens = usable > rest && kv_token ? (usable - rest) / kv_token : 0;
    return json_pack("{s:s, s:b, s:I, s:I, s:b, s:f, s:I, s:b}", "tier", t->name, "ready", t->ready, "bytes",
                     (json_int_t)t->weight_bytes, "need", (json_int_t)need, "fits", need <= usable, "tok_s",
                     sq_plan_tok_s(in, t), "ctx_max",
                     (json_int_t)(tokens < (uint64_t)ctx ? tokens : (uint64_t)ctx), "chosen", chosen);
}

/* The longest context of a tier by the format of its cache, from the arithmetic that engines use. */
static json_t *contexts_json(const sq_model *m, const sq_plan_input *in, int32_t i) {
    const squish_kv formats[] = {SQUISH_KV_F16, SQUISH_KV_Q8,   SQUISH_KV_K8V4,
                                 SQUISH_KV_Q4,  SQUISH_KV_K4V2, SQUISH_KV_Q2};
    const uint64_t rest = sq_plan_need(in, &in->tiers[i]) - in->kv_bytes, usable = in->available / 10 * 9;
    squish_engine_options o = squish_engine_options_default();
    json_t *all = json_array();
    o.threads = sq_os_cores();
    for (size_t k = 0; k < SQ_COUNT(formats); k++) {
        uint64_t bytes = 0;
        if (m->cfg.mla.kv_rank && formats[k] != SQUISH_KV_F16) break; /* its rows have one format */
        o.kv = formats[k];
        const int32_t n = usable > rest ? sq_engine_longest(m, &o, usable - rest, &bytes) : 0;
        json_array_append_new(all, json_pack("{s:s, s:i, s:I, s:I}", "kv", sq_kv_name(formats[k]), "ctx", n,
                                             "kv_bytes", (json_int_t)bytes, "bytes_token",
                                             (json_int_t)(n > 0 ? bytes / (uint64_t)n : 0)));
    }
    return all;
}

static squish_status decide(const sq_model *m, const char *path, const char *compressed,
                            const squish_plan_options *o, squish_text *json, squish_error *err) {
    const int32_t ctx = o->ctx_tokens ? o->ctx_tokens : m->cfg.ctx;
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    const uint64_t kv_token = (uint64_t)shape.n_layers * (uint64_t)shape.n_kv_heads *
                              (uint64_t)shape.head_dim * (shape.latent ? 2 : 4); /* f16 */
    sq_plan_input in = {.available = o->memory ? o->memory : sq_os_memory_available(),
                        .kv_bytes = kv_token * (uint64_t)ctx,
                        .read_gb_s =
                            o->read_gb_s > 0 ? o->read_gb_s : measure_read_rate(sq_os_memory_available()),
                        .min_tok_s = o->min_tok_s};
    if (o->policy && strcmp(o->policy, "quality") == 0)
        in.policy = SQ_PLAN_QUALITY;
    else if (o->policy && strcmp(o->policy, "small") == 0)
        in.policy = SQ_PLAN_SMALL;
    else if (o->policy && strcmp(o->policy, "balanced") != 0)
        return sq_fail(err, SQUISH_INVALID, "policy '%.20s', wanted balanced, quality or small", o->policy);
    sq_plan p;
    add_tiers(m, compressed, &in);
    sq_plan_decide(&in, &p);
    json_t *tiers = json_array();
    for (int32_t i = 0; i < in.n; i++)
        json_array_append_new(tiers, tier_json(&in, i, i == p.index, kv_token, ctx));
    json_t *contexts = in.n > 0 ? contexts_json(m, &in, p.index >= 0 ? p.index : 0) : json_array();
    json_t *all =
        json_pack("{s:s, s:I, s:I, s:f, s:i, s:s, s:o, s:s, s:o}", "model", path, "available",
                  (json_int_t)in.available, "usable", (json_int_t)(in.available / 10 * 9), "read_gb_s",
                  in.read_gb_s, "ctx", ctx, "line", p.line, "tiers", tiers, "contexts_tier",
                  in.n > 0 ? in.tiers[p.index >= 0 ? p.index : 0].name : "", "contexts", contexts);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "plan: out of memory");
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, 1 << 20);
    sq_buf_puts(&b, text);
    free(text); /* jansson's */
    return sq_buf_take(&b, json, err);
}

squish_status squish_plan(const char *path, const squish_plan_options *opt, squish_text *json,
                          squish_error *err) {
    const squish_plan_options o = opt ? *opt : squish_plan_options_default();
    char compressed[4096], config[4200];
    squish_model *m = NULL;
    *json = (squish_text){0};
    if (!sq_os_exists(path)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", path);
    SQ_TRY(sq_store_compressed_dir(path, sq_tier_is_folder(path) ? path : NULL, o.home, compressed,
                                   sizeof compressed, err));
    const bool has_source = !sq_os_is_dir(path) ||
                            (snprintf(config, sizeof config, "%s/config.json", path) < (int)sizeof config &&
                             sq_os_exists(config));
    const squish_model_options mo = {.tier = has_source ? SQUISH_TIER_SOURCE : SQUISH_TIER_AUTO};
    squish_error no_source = {0};
    squish_status st = squish_model_open(&m, path, &mo, &no_source);
    if (st != SQUISH_OK && has_source && sq_os_is_dir(path)) { /* its weights were dropped: tiers remain */
        const squish_model_options tiers = {.tier = SQUISH_TIER_AUTO};
        st = squish_model_open(&m, path, &tiers, NULL);
    }
    if (st != SQUISH_OK) return sq_fail(err, no_source.code, "%s", no_source.text);
    st = decide(m, path, compressed, &o, json, err);
    squish_model_close(m);
    return st;
}
