/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_kv_memory.c - what a process holds more once a long prompt has been read, by what the system says and
 * not by arithmetic: a cache in f16, and those from which most of the prompt has gone.
 *
 * An engine reads a chunk first, so that the memory of its steps is there already; what the cache then gives
 * back it gives back, and what a cache in f16 keeps of that chunk counts in favour of f16. */
#include "bench/bench_int.h"

#include <math.h>
#include <stdio.h>

enum { N = 4064, WARM = 256 };

static const struct {
    const char *name;
    squish_kv kv;
    int32_t snap;
} kinds[] = {{"f16", SQUISH_KV_F16, 0},
             {"q4", SQUISH_KV_Q4, 0},
             {"snap 2048", SQUISH_KV_F16, 2048},
             {"snap 2048 in q4", SQUISH_KV_Q4, 2048},
             {"snap 1024 in q4", SQUISH_KV_Q4, 1024}};

static squish_status weigh(const bench_options *o, squish_model *m, const int32_t *ids, size_t kind,
                           double *grown, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    sq_engine *e = NULL;
    sq_seq *s = NULL;
    squish_status st = SQUISH_OK;
    eo.threads = o->threads;
    eo.isa_max = o->isa;
    eo.ctx_tokens = N + SQ_KV_TILE;
    eo.kv = kinds[kind].kv;
    eo.kv_options.snap = kinds[kind].snap;
    SQ_GUARD(sq_engine_new(&e, m, &eo, err));
    SQ_GUARD(sq_seq_new(&s, e, err));
    SQ_GUARD(sq_seq_sync(s, ids, WARM, err));
    sq_seq_truncate(s, 0);
    const uint64_t before = sq_os_rss_anon();
    SQ_GUARD(sq_seq_sync(s, ids, N, err));
    SQ_GUARD(sq_seq_append(s, ids, 1, err)); /* what the last step of the prompt held goes */
    const uint64_t after = sq_os_rss_anon();
    *grown = after > before ? (double)(after - before) : 0;
fail:
    sq_seq_free(s);
    sq_engine_free(e);
    return st;
}

squish_status bench_kv_memory(const bench_options *o, squish_model *m, json_t *rows, squish_error *err) {
    squish_tokens t = {0};
    SQ_TRY(squish_tokenize(m, o->text, o->text_bytes, SQUISH_TOK_BOS_EOS, &t, err));
    squish_status st = SQUISH_OK;
    double f16 = 0;
    if (t.count < N || m->cfg.ctx < N + SQ_KV_TILE) goto fail; /* nothing to weigh */
    for (size_t i = 0; i < SQ_COUNT(kinds); i++) {
        char name[64];
        double grown;
        SQ_GUARD(weigh(o, m, t.ids, i, &grown, err));
        if (i == 0) f16 = grown;
        snprintf(name, sizeof name, "memory of %d tokens, %s", N, kinds[i].name);
        SQ_GUARD(bench_row(rows, name, "B", &grown, 1, NAN, BENCH_SMALL_IS_GOOD, err));
        json_t *more = json_pack("{s:s, s:i, s:s, s:f}", "bench", "kv", "at", (int)N, "kv", kinds[i].name,
                                 "f16_ratio", f16 / grown);
        const int failed = json_object_update(json_array_get(rows, json_array_size(rows) - 1), more);
        json_decref(more);
        if (failed) {
            st = sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
            break;
        }
    }
fail:
    squish_tokens_free(&t);
    return st;
}
