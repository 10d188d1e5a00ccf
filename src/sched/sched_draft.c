/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_draft.c - another model, or the first layers of the same one, as a drafter.
 *
 *   line   tokens a b c d e          what the other model has read, in a cache of its own
 *   wish   tokens a b c x y          keep a b c, read x y, guess
 *
 * Of its own layers a model has read everything but the last tokens, and stores guesses behind them in the
 * timeline's cache: room for all is reserved at once, so that one truncate undoes it. Tiles are sealed
 * where a position passes a multiple of 128; no guess is made across one. */
#include "sched/sched_draft.h"
#include "sched/sched.h"

#include <string.h>

/* What the other model has read of a timeline. */
typedef struct {
    sq_kv_seq *kv;
    int32_t *tokens; /* [ctx] */
    int32_t n;
    uint64_t salt, used; /* used: draft.turns when it was last */
} line;

struct sq_draft {
    sq_drafter d;
    squish_alloc alloc;
    sq_engine *e;
    const sq_model *m;
    sq_forward *f;
    int32_t layers, ctx, chunk, n_ids;
    sq_kv_pool *pool; /* of the other model; NULL: these are layers of e's own */
    line lines[SQ_DRAFT_LINES];
    uint64_t turns;
    /* The guess under way. */
    line *at;      /* NULL: own layers */
    sq_kv_seq *kv;
    const void *answer;
    int32_t n, keep, pending; /* tokens run; own layers: those of the timeline; one guessed, to be run; -1 */
    const float *logits;
};

enum { RECENT = 16 }; /* turns after which a line is likely to be nobody's */

/* ---- is it one? ------------------------------------------------------------------------------ */

static int32_t n_tokens(const sq_model *m) { return m->info.n_vocab_tokens; }

static squish_status differ(const sq_model *draft, int32_t id, sq_span a, sq_span b, squish_error *err) {
    return sq_fail(err, SQUISH_INVALID,
                   "draft %.100s has another vocabulary: token %d is '%.*s', wanted '%.*s' as the model has",
                   draft->info.path, id, b.n < 20 ? (int)b.n : 20, (const char *)b.p,
                   a.n < 20 ? (int)a.n : 20, (const char *)a.p);
}

squish_status sq_draft_check(const sq_model *m, const sq_model *draft, squish_error *err) {
    if (!draft->has_weights)
        return sq_fail(err, SQUISH_UNSUPPORTED, "draft %.100s was opened for its text only",
                       draft->info.path);
    if (n_tokens(m) != n_tokens(draft) || !m->tok != !draft->tok)
        return sq_fail(err, SQUISH_INVALID,
                       "draft %.100s has another vocabulary: %d tokens, wanted %d as the model has",
                       draft->info.path, n_tokens(draft), n_tokens(m));
    for (int32_t id = 0; m->tok && id < n_tokens(m); id++) {
        sq_span a = {0}, b = {0};
        const bool has_a = sq_tok_bytes(m->tok, id, &a), has_b = sq_tok_bytes(draft->tok, id, &b);
        if (has_a != has_b || a.n != b.n || (a.n > 0 && memcmp(a.p, b.p, a.n) != 0))
            return differ(draft, id, a, b, err);
    }
    return SQUISH_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

/* Options of its cache: the engine's format, where it can have it. What is said of single layers, and what
 * loses bits by age, is about the model that answers. */
static squish_engine_options options_of(const sq_model *draft, const squish_engine_options *o) {
    squish_engine_options d = {.chunk_tokens = o->chunk_tokens,
                               .ctx_tokens = o->ctx_tokens,
                               .kv = o->kv,
                               .kv_options = {.residual = o->kv_options.residual,
                                              .sink = o->kv_options.sink,
                                              .rotate = o->kv_options.rotate}};
    if (d.ctx_tokens > draft->cfg.ctx) d.ctx_tokens = draft->cfg.ctx;
    if (draft->cfg.mla.kv_rank || sq_model_kv_check(draft, &d, NULL) != SQUISH_OK) d.kv = SQUISH_KV_F16;
    return d;
}

static uint64_t cache_bytes(const sq_model *draft, const squish_engine_options *d, sq_kv_shape *shape,
                            sq_kv_policy *policy) {
    *shape = sq_model_kv_shape(&draft->cfg);
    sq_model_kv_policy(draft, d, d->chunk_tokens, policy);
    return sq_kv_bytes(shape, policy, d->ctx_tokens);
}

uint64_t sq_draft_bytes(const sq_model *draft, const squish_engine_options *o) {
    sq_kv_shape shape;
    sq_kv_policy policy;
    if (!draft) return 0;
    const squish_engine_options d = options_of(draft, o);
    return draft->info.weight_bytes + sq_forward_bytes(draft, d.chunk_tokens, 1) +
           cache_bytes(draft, &d, &shape, &policy) +
           SQ_DRAFT_LINES * (uint64_t)d.ctx_tokens * sizeof(int32_t);
}

static squish_status make_lines(sq_draft *d, squish_error *err) {
    for (int32_t i = 0; i < SQ_DRAFT_LINES; i++) {
        d->lines[i].tokens = sq_alloc_new(&d->alloc, (size_t)d->ctx * sizeof(int32_t));
        if (!d->lines[i].tokens) return sq_fail(err, SQUISH_NO_MEMORY, "draft: out of memory");
        SQ_TRY(sq_kv_seq_new(&d->lines[i].kv, d->pool, d->ctx, err));
    }
    return SQUISH_OK;
}

static int32_t lag(sq_drafter *x, const sq_draft_from *from);
static bool begin(sq_drafter *x, const sq_draft_from *from);
static int32_t next(sq_drafter *x, int64_t position, float *sure);
static void end(sq_drafter *x);

static squish_status make(sq_draft **out, sq_engine *e, const sq_model *m, squish_spec_mode mode,
                          squish_error *err) {
    sq_draft *d = *out = sq_alloc_zero(&e->alloc, sizeof *d);
    if (!d) return sq_fail(err, SQUISH_NO_MEMORY, "draft: out of memory");
    *d = (sq_draft){.alloc = e->alloc, .e = e, .m = m, .chunk = e->chunk, .ctx = e->ctx};
    d->d = (sq_drafter){
        .mode = mode, .most = SQ_DRAFT_MOST, .lag = lag, .begin = begin, .next = next, .end = end};
    d->n_ids = n_tokens(m) < SQ_DRAFT_IDS ? n_tokens(m) : SQ_DRAFT_IDS;
    return SQUISH_OK;
}

squish_status sq_draft_new(sq_draft **out, sq_engine *e, const sq_model *draft,
                           const squish_engine_options *o, squish_error *err) {
    const squish_engine_options own = options_of(draft, o);
    sq_kv_shape shape;
    sq_kv_policy policy;
    sq_draft *d;
    const uint64_t bytes = cache_bytes(draft, &own, &shape, &policy);
    *out = NULL;
    SQ_TRY(make(&d, e, draft, SQUISH_SPEC_DRAFT, err));
    d->ctx = own.ctx_tokens;
    d->layers = draft->cfg.n_layers;
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_kv_pool_new(&d->pool, &shape, &policy, bytes, &d->alloc, err));
    SQ_GUARD(sq_forward_new(&d->f, draft, e->b, d->pool, d->chunk, 1, 1, &d->alloc, err));
    SQ_GUARD(make_lines(d, err));
    *out = d;
    return SQUISH_OK;
fail:
    sq_draft_free(d);
    return st;
}

squish_status sq_draft_skip_new(sq_draft **out, sq_engine *e, int32_t layers, squish_error *err) {
    SQ_TRY(make(out, e, e->m, SQUISH_SPEC_SKIP, err));
    (*out)->f = e->f;
    (*out)->layers = layers;
    return SQUISH_OK;
}

void sq_draft_free(sq_draft *d) {
    if (!d) return;
    const squish_alloc a = d->alloc;
    for (int32_t i = 0; i < SQ_DRAFT_LINES; i++) {
        sq_kv_seq_free(d->lines[i].kv);
        sq_alloc_free(&a, d->lines[i].tokens, d->lines[i].tokens ? (size_t)d->ctx * sizeof(int32_t) : 0);
    }
    if (d->f != d->e->f) sq_forward_free(d->f);
    sq_kv_pool_free(d->pool);
    sq_alloc_free(&a, d, sizeof *d);
}

sq_drafter *sq_draft_drafter(sq_draft *d) { return d ? &d->d : NULL; }

/* ---- lines ----------------------------------------------------------------------------------- */

static int32_t common(const line *l, const sq_draft_from *from) {
    enum { BLOCK = 64 };
    const int32_t n = l->n < from->n ? l->n : from->n;
    int32_t k = 0;
    if (l->salt != from->salt) return 0;
    while (k + BLOCK <= n && memcmp(l->tokens + k, from->tokens + k, BLOCK * sizeof(int32_t)) == 0)
        k += BLOCK;
    while (k < n && l->tokens[k] == from->tokens[k]) k++;
    return k;
}

/* The line that a draft goes on with: it has the most of what is wanted, and costs nobody what was read just
 * now; of equal ones the one not used longest. */
static line *choose(sq_draft *d, const sq_draft_from *from, int32_t *kept) {
    line *best = NULL;
    int32_t most = INT32_MIN;
    *kept = 0;
    for (int32_t i = 0; i < SQ_DRAFT_LINES; i++) {
        line *l = &d->lines[i];
        const int32_t k = common(l, from), lost = d->turns - l->used < RECENT ? l->n - k : 0;
        /* Guesses that turned out wrong are no loss. */
        const int32_t score = k - (lost > SQ_DRAFT_MOST ? lost : 0);
        if (best && (score < most || (score == most && l->used >= best->used))) continue;
        best = l;
        most = score;
        *kept = k;
    }
    return best;
}

/* Room for positions [0, n) of a line; others are forgotten for it. */
static bool reserve(sq_draft *d, line *l, int32_t n) {
    while (sq_kv_seq_reserve(l->kv, n, NULL) != SQUISH_OK) {
        line *old = NULL;
        for (int32_t i = 0; i < SQ_DRAFT_LINES; i++) {
            line *o = &d->lines[i];
            if (o != l && sq_kv_seq_length(o->kv) > 0 && (!old || o->used < old->used)) old = o;
        }
        if (!old) return false;
        sq_kv_seq_truncate(old->kv, 0);
        old->n = 0;
    }
    return true;
}

/* ---- a draft --------------------------------------------------------------------------------- */

/* m tokens behind those that were run; logits of the last. */
static bool run(sq_draft *d, const int32_t *ids, int32_t m) {
    const sq_step_seg seg = {.kv = d->kv, .n_rows = m, .pos0 = d->n};
    if (!d->pool)
        sq_forward_run_first(d->f, ids, m, &seg, d->layers);
    else if (sq_forward_run(d->f, ids, m, &seg, 1, NULL) != SQUISH_OK)
        return false;
    if (d->at) memcpy(d->at->tokens + d->n, ids, (size_t)m * sizeof *ids);
    d->n += m;
    if (d->at) d->at->n = d->n;
    return true;
}

static void make_logits(sq_draft *d, int32_t row) {
    d->logits = sq_forward_logits_first(d->f, row, d->n_ids);
}

static bool own_layers_can(const sq_draft *d, const sq_draft_from *from) {
    const sq_kv_policy *p = sq_kv_pool_policy(d->e->kv);
    enum { CELL = 128 };
    return !d->e->stream && !p->votes && from->n + d->d.most <= d->ctx &&
           (!p->seals || from->computed / CELL == (from->n + d->d.most) / CELL);
}

static int32_t lag(sq_drafter *x, const sq_draft_from *from) {
    sq_draft *d = (sq_draft *)(void *)x;
    int32_t kept;
    if (!d->pool) return own_layers_can(d, from) ? 0 : -1;
    if (from->n + x->most > d->ctx) return -1;
    choose(d, from, &kept);
    for (int32_t i = kept; i < from->n; i++)
        if (from->tokens[i] >= d->m->cfg.n_vocab) return -1; /* a row of the larger table that is no token */
    return from->n > kept ? from->n - kept : 1;
}

static bool begin_own_layers(sq_draft *d, const sq_draft_from *from) {
    sq_kv_pool *p = d->e->kv;
    const int32_t n = from->n + d->d.most, m = from->n - from->computed;
    if (!own_layers_can(d, from)) return false;
    if (!sq_kv_pool_make_room(p, sq_kv_seq_missing(from->kv, n))) return false;
    if (sq_kv_seq_reserve(from->kv, n, NULL) != SQUISH_OK) return false;
    d->at = NULL;
    d->kv = from->kv;
    d->n = d->keep = from->computed;
    d->e->logits_of = NULL; /* its rows are gone */
    run(d, from->tokens + from->computed, m);
    make_logits(d, m - 1);
    return true;
}

/* Read what is missing, a chunk at most; true when that was all. */
static bool begin_line(sq_draft *d, const sq_draft_from *from) {
    int32_t kept;
    line *l = choose(d, from, &kept);
    if (kept == from->n) kept--;
    kept = sq_kv_seq_truncate(l->kv, kept);
    l->n = kept;
    l->salt = from->salt;
    l->used = ++d->turns;
    d->at = l;
    d->kv = l->kv;
    d->n = kept;
    const int32_t left = from->n - kept, m = left < d->chunk ? left : d->chunk;
    if (!reserve(d, l, m < left ? kept + m : from->n + d->d.most)) return false;
    if (!run(d, from->tokens + kept, m) || m < left) return false;
    make_logits(d, m - 1);
    return true;
}

static bool begin(sq_drafter *x, const sq_draft_from *from) {
    sq_draft *d = (sq_draft *)(void *)x;
    d->answer = from->answer;
    d->pending = -1;
    return d->pool ? begin_line(d, from) : begin_own_layers(d, from);
}

static int32_t next(sq_drafter *x, int64_t position, float *sure) {
    sq_draft *d = (sq_draft *)(void *)x;
    if (d->pending >= 0) {
        if (!run(d, &d->pending, 1)) return -1;
        make_logits(d, 0);
    }
    d->pending = sq_answer_guess(d->answer, x, d->logits, NULL, d->n_ids, position, sure);
    return d->pending;
}

static void end(sq_drafter *x) {
    const sq_draft *d = (sq_draft *)(void *)x;
    if (!d->pool) sq_kv_seq_truncate(d->kv, d->keep);
}
