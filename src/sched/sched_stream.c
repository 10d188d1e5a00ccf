/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_stream.c - engines whose weights do not fit: how the memory is shared out, and their stream. */
#include "sched/sched.h"

#include <string.h>

/* Refuse: what would be the least. */
static squish_status too_small(const sq_model *m, const squish_engine_options *o, uint64_t usable,
                               uint64_t weights, squish_error *err) {
    const uint64_t need = weights + sq_engine_kv_bytes(m, o) + sq_engine_scratch_bytes(m, o);
    return sq_fail(
        err, SQUISH_NO_MEMORY,
        "%s with a context of %d tokens needs %.2f GB even when weights are streamed, %.2f GB may be "
        "used",
        m->info.path, o->ctx_tokens, (double)need / 1e9, (double)usable / 1e9);
}

squish_status sq_engine_plan_stream(const sq_model *m, const squish_engine_options *o, uint64_t usable,
                                    squish_engine_options *r, squish_mem_estimate *est, squish_error *err) {
    uint64_t weights = 0, kv = 0;
    SQ_TRY(sq_stream_check(m, &m->alloc, &weights, err));
    const uint64_t room = usable > weights ? usable - weights : 0;
    r->ctx_tokens = o->ctx_tokens;
    if (r->ctx_tokens == 0) {
        /* A longer context would be paid for with weights that are read again for every token. */
        const uint64_t quarter = usable / 4;
        r->ctx_tokens = sq_engine_longest(m, r, quarter < room ? quarter : room, &kv);
        if (r->ctx_tokens == 0) r->ctx_tokens = sq_engine_longest(m, r, room, &kv) ? SQ_ATTN_CHUNK : 0;
    }
    if (r->ctx_tokens == 0) {
        r->ctx_tokens = SQ_ATTN_CHUNK;
        return too_small(m, r, usable, weights, err);
    }
    kv = sq_engine_kv_bytes(m, r);
    if (r->kv_bytes_max > kv) kv = r->kv_bytes_max; /* of several timelines */
    const uint64_t scratch = sq_engine_scratch_bytes(m, r);
    if (kv + scratch > room) return too_small(m, r, usable, weights, err);
    *est = (squish_mem_estimate){.weight_bytes = usable - kv - scratch,
                                 .kv_bytes = kv,
                                 .scratch_bytes = scratch,
                                 .total_bytes = usable,
                                 .ctx_tokens = r->ctx_tokens,
                                 .available_bytes = est->available_bytes,
                                 .streamed = true};
    return SQUISH_OK;
}

squish_status sq_engine_make_stream(sq_engine *e, const squish_engine_options *o,
                                    const squish_mem_estimate *est, squish_error *err) {
    e->mapped = o->agile.on ? "weights fit: mapped" : "";
    if (!est->streamed) return SQUISH_OK;
    sq_stream_options so = {
        .budget_bytes = est->weight_bytes, .on_demand = o->agile.on_demand, .cold = o->agile.cold};
    if (o->agile.backend && strcmp(o->agile.backend, "io_uring") == 0)
        so.backend = SQ_IO_URING;
    else if (o->agile.backend && strcmp(o->agile.backend, "pread") == 0)
        so.backend = SQ_IO_THREADS;
    else if (o->agile.backend)
        return sq_fail(err, SQUISH_INVALID, "backend '%.20s' is none, wanted io_uring or pread",
                       o->agile.backend);
    SQ_TRY(sq_stream_new(&e->stream, e->m, &so, &e->alloc, err));
    sq_forward_set_stream(e->f, e->stream);
    return SQUISH_OK;
}

void sq_engine_agile_info(const sq_engine *e, squish_agile_info *out) {
    sq_io_stats s;
    *out = (squish_agile_info){.why = e->mapped, .backend = "", .heat_why = ""};
    if (!e->stream) return;
    sq_stream_get_stats(e->stream, &s);
    *out = (squish_agile_info){.on = true,
                               .why = "weights do not fit: streamed",
                               .backend = s.backend,
                               .budget_bytes = s.plan.bytes,
                               .pinned_bytes = s.plan.pinned_bytes,
                               .hits = s.hits,
                               .late_hits = s.late_hits,
                               .misses = s.misses,
                               .bytes_read = s.bytes_read,
                               .wasted_bytes = s.wasted_bytes,
                               .hinted = s.hinted,
                               .hint_hits = s.hint_hits,
                               .warmed = s.warmed,
                               .warm_hits = s.warm_hits,
                               .heat_why = sq_stream_heat_why(e->stream),
                               .retries = s.retries,
                               .failures = s.failures,
                               .stall_ms = (double)s.stall_ns / 1e6,
                               .busy_ms = (double)s.busy_ns / 1e6};
}
