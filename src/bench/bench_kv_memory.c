/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kv_memory.c - what a process holds more once a long prompt has been read, by what the system says and
 * not by arithmetic: a cache in f16, and those from which most of the prompt has gone.
 *
 * An engine reads the prompt once before, so that the memory of its steps is there already (some of it grows
 * with the prompt, is of one layer and serves all sequences), and gives the cache back. A cache in f16 alone
 * keeps what it was given: it reads a chunk before, and what it keeps of that counts in its favour. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>

enum { WARM = 256 };

typedef struct {
    const char *name;
    squish_kv kv;
    int32_t snap;
    bool report; /* the flags of the first report's command, all of them */
} kind;
static const kind kinds[] = {{"f16", SQUISH_KV_F16, 0, false},
                             {"q4", SQUISH_KV_Q4, 0, false},
                             {"snap 2048", SQUISH_KV_F16, 2048, false},
                             {"snap 2048 in q4", SQUISH_KV_Q4, 2048, false},
                             {"snap 1024 in q4", SQUISH_KV_Q4, 1024, false},
                             {"the report's flags", SQUISH_KV_F16, 0, true}};

/* Anonymous memory that a prompt of n tokens leaves behind. */
static squish_status weigh(const bench_options *o, squish_model *m, const int32_t *ids, int32_t n,
                           const kind *k, double *grown, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    sq_engine *e = NULL;
    sq_seq *s = NULL;
    squish_status st = SQUISH_OK;
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = n + SQ_KV_TILE;
    eo.kv = k->kv;
    eo.kv_options.snap = k->snap;
    if (k->report) bench_report_flags(o, &eo);
    SQ_GUARD(sq_engine_new(&e, m, &eo, err));
    SQ_GUARD(sq_seq_new(&s, e, err));
    SQ_GUARD(sq_seq_sync(s, ids, k == kinds ? WARM : (size_t)n, err));
    sq_seq_truncate(s, 0);
    const uint64_t before = sq_os_rss_anon();
    SQ_GUARD(sq_seq_sync(s, ids, (size_t)n, err));
    SQ_GUARD(sq_seq_append(s, ids, 1, err)); /* what the last step of the prompt held goes */
    const uint64_t after = sq_os_rss_anon();
    *grown = after > before ? (double)(after - before) : 0;
fail:
    sq_seq_free(s);
    sq_engine_free(e);
    return st;
}

static squish_status weigh_all(const bench_options *o, squish_model *m, const squish_tokens *t, int32_t n,
                               json_t *rows, squish_error *err) {
    double f16 = 0;
    if (t->count < (size_t)n || m->cfg.ctx < n + SQ_KV_TILE)
        return sq_fail(err, SQUISH_INVALID,
                       "bench kv-memory: %d tokens and a tile; the text has %zu, the context %d", n, t->count,
                       m->cfg.ctx);
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        char name[64];
        double grown;
        if (i > 0 && o->one_kv && o->kv != kinds[i].kv) continue;
        if (o->progress && !o->progress(o->progress_user, "bench", i, SQ_COUNT(kinds)))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
        SQ_TRY(weigh(o, m, t->ids, n, &kinds[i], &grown, err));
        if (i == 0) f16 = grown;
        snprintf(name, sizeof name, "memory of %d tokens, %s", n, kinds[i].name);
        SQ_TRY(bench_row(rows, name, "B", &grown, 1, NAN, BENCH_SMALL_IS_GOOD, err));
        json_t *more = json_pack("{s:s, s:i, s:s, s:f}", "bench", "kv-memory", "at", (int)n, "kv",
                                 kinds[i].name, "f16_ratio", f16 / grown);
        const int failed = json_object_update(json_array_get(rows, json_array_size(rows) - 1), more);
        json_decref(more);
        if (failed) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    }
    return SQUISH_OK;
}

squish_status bench_kv_memory(const bench_options *o, json_t *rows, squish_error *err) {
    static const int32_t usual[] = {4064};
    squish_model_options mo = squish_model_options_default();
    squish_tokens t = {0};
    squish_model *m = NULL;
    squish_status st = SQUISH_OK;
    bench_points p;
    if (!o->text) return sq_fail(err, SQUISH_INVALID, "bench kv-memory: give a text to read (--text)");
    SQ_TRY(bench_points_of(o, usual, SQ_COUNT(usual), SQ_MAX_CTX - SQ_KV_TILE, &p, err));
    mo.tier = o->tier;
    SQ_GUARD(squish_model_open(&m, o->path, &mo, err));
    SQ_GUARD(squish_tokenize(m, o->text, o->text_bytes, SQUISH_TOK_BOS_EOS, &t, err));
    for (int32_t i = 0; i < p.count; i++) SQ_GUARD(weigh_all(o, m, &t, p.n[i], rows, err));
fail:
    squish_tokens_free(&t);
    squish_model_close(m);
    return st;
}
