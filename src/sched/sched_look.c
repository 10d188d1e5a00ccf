/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_look.c - who guesses experts in an engine, and texts for whoever counts guesses.
 *
 * A text runs in windows beside each other, a token of each in a step: as many rows as a batch of answers
 * has, so that the guesses of a whole text are counted in minutes. */
#include "sched/sched_look.h"

#include <stdio.h>

/* ---- of an engine ---------------------------------------------------------------------------- */

/* Where all of them are in memory there is nothing to say, and no lock is taken. */
static void hint(void *user, int32_t layer, const int32_t *experts, const float *weights, int32_t n) {
    sq_expert_hint h[SQ_IO_HINTS_MAX];
    bool missing = false;
    if (n > SQ_IO_HINTS_MAX) n = SQ_IO_HINTS_MAX;
    for (int32_t i = 0; i < n; i++) {
        h[i] = (sq_expert_hint){layer, experts[i], weights[i]};
        missing |= !sq_stream_has_expert(user, layer, experts[i]);
    }
    if (missing) sq_stream_hint(user, h, n);
}

static bool has(void *user, int32_t layer, int32_t expert) {
    return sq_stream_has_expert(user, layer, expert);
}

/* Fitted maps if they are wanted, are there and are whole. */
static squish_status open_maps(sq_engine *e, squish_lookahead kind, squish_error *err) {
    char path[1100];
    squish_error why = {0};
    const sq_look_kind other = kind == SQUISH_LOOKAHEAD_T0 ? SQ_LOOK_T0 : SQ_LOOK_ROUTER;
    squish_status st = SQUISH_NOT_FOUND;
    if (kind == SQUISH_LOOKAHEAD_AUTO || kind == SQUISH_LOOKAHEAD_CALIBRATED) {
        st = sq_look_path(e->m, path, sizeof path, &why);
        if (st == SQUISH_OK) st = sq_look_maps_open(&e->look_maps, path, e->m, &e->alloc, &why);
        if (st == SQUISH_OK) return st;
        if (st == SQUISH_NO_MEMORY) return sq_fail(err, st, "%s", why.text);
        if (st != SQUISH_NOT_FOUND || kind == SQUISH_LOOKAHEAD_CALIBRATED)
            snprintf(e->look_why, sizeof e->look_why, "routers guess the experts: %.200s", why.text);
    }
    return sq_look_maps_new(&e->look_maps, e->m, other, &e->alloc, err);
}

squish_status sq_engine_make_look(sq_engine *e, const squish_engine_options *o, squish_error *err) {
    const squish_lookahead kind = o->agile.lookahead;
    if (!squish_lookahead_name(kind))
        return sq_fail(err, SQUISH_INVALID, "lookahead is %d, wanted %d (auto) to %d (calibrated)", (int)kind,
                       SQUISH_LOOKAHEAD_AUTO, SQUISH_LOOKAHEAD_CALIBRATED);
    if (!e->stream || e->m->cfg.moe.n == 0 || o->agile.on_demand || kind == SQUISH_LOOKAHEAD_OFF)
        return SQUISH_OK;
    SQ_TRY(open_maps(e, kind, err));
    const sq_look_options lo = {.extra = -1, .hint = hint, .has = has, .user = e->stream};
    SQ_TRY(sq_look_new(&e->look, e->m, e->b, e->look_maps, SQ_SEQS_MAX, &lo, &e->alloc, err));
    sq_forward_set_look(e->f, e->look);
    return SQUISH_OK;
}

static double share(uint64_t part, uint64_t all) { return all ? (double)part / (double)all : 0; }

void sq_engine_look_info(const sq_engine *e, squish_lookahead_info *out) {
    static const squish_lookahead kinds[] = {[SQ_LOOK_T0] = SQUISH_LOOKAHEAD_T0,
                                             [SQ_LOOK_ROUTER] = SQUISH_LOOKAHEAD_ROUTER,
                                             [SQ_LOOK_CALIBRATED] = SQUISH_LOOKAHEAD_CALIBRATED};
    sq_look_stats s;
    sq_io_stats io;
    *out = (squish_lookahead_info){.kind = SQUISH_LOOKAHEAD_OFF, .why = ""};
    if (!e->look) return;
    sq_look_get_totals(e->look, &s);
    sq_stream_get_stats(e->stream, &io);
    const uint64_t each = sq_stream_expert_bytes(e->stream), all = s.all.tokens * (uint64_t)s.used;
    *out = (squish_lookahead_info){.kind = kinds[e->look_maps->kind],
                                   .why = e->look_why,
                                   .used = s.used,
                                   .extra = s.extra,
                                   .tokens = s.all.tokens,
                                   .strict = share(s.all.strict, all),
                                   .covered = share(s.all.covered, all),
                                   .resident = share(s.resident, s.needed),
                                   .hit_bytes = s.resident * each,
                                   .miss_bytes = (s.needed - s.resident) * each,
                                   .predicted_bytes = io.hinted * each,
                                   .wasted_bytes = io.wasted_bytes,
                                   .us_layer = share(s.ns, s.layers) / 1e3};
}

/* ---- of a text ------------------------------------------------------------------------------- */

typedef struct {
    sq_engine *e;
    sq_kv_seq *seqs[SQ_SEQS_MAX];
    int32_t at_once;
} lanes;

/* Token i of all windows that begin at ids[0], ids[window], ... */
static squish_status step(lanes *k, const int32_t *ids, int32_t n, int32_t window, int32_t i,
                          squish_error *err) {
    sq_step_seg segs[SQ_SEQS_MAX];
    int32_t row[SQ_SEQS_MAX], m = 0;
    for (int32_t w = 0; w < k->at_once && w * window + i < n; w++, m++) {
        SQ_TRY(sq_kv_seq_reserve(k->seqs[w], i + 1, err));
        segs[m] = (sq_step_seg){.kv = k->seqs[w], .row0 = m, .n_rows = 1, .pos0 = i};
        row[m] = ids[w * window + i];
    }
    return sq_forward_run(k->e->f, row, m, segs, m, err);
}

static squish_status run_all(lanes *k, const int32_t *ids, int32_t n, int32_t window,
                             squish_progress_fn progress, void *user, squish_error *err) {
    const int32_t round = k->at_once * window;
    for (int32_t at = 0; at < n; at += round) {
        const int32_t here = n - at < round ? n - at : round;
        for (int32_t w = 0; w < k->at_once; w++) sq_kv_seq_truncate(k->seqs[w], 0);
        for (int32_t i = 0; i < window && i < here; i++) SQ_TRY(step(k, ids + at, here, window, i, err));
        if (progress && !progress(user, "looking ahead", (uint64_t)(at + here), (uint64_t)n))
            return sq_fail(err, SQUISH_CANCELLED, "stopped after %d of %d tokens", at + here, n);
    }
    return SQUISH_OK;
}

squish_status sq_look_run(sq_engine *e, sq_look *l, const int32_t *ids, int32_t n, int32_t window,
                          int32_t at_once, squish_progress_fn progress, void *user, squish_error *err) {
    lanes k = {.e = e, .at_once = at_once};
    squish_status st = SQUISH_OK;
    for (int32_t w = 0; w < at_once && st == SQUISH_OK; w++)
        st = sq_kv_seq_new(&k.seqs[w], e->kv, window, err);
    e->logits_of = NULL;
    sq_forward_set_look(e->f, l);
    if (st == SQUISH_OK) st = run_all(&k, ids, n, window, progress, user, err);
    sq_forward_set_look(e->f, e->look);
    for (int32_t w = 0; w < at_once; w++) sq_kv_seq_free(k.seqs[w]);
    return st;
}
