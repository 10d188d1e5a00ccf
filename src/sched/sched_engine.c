/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_engine.c - making an engine: how much memory, how many threads, how long a context.
 *
 * Memory is decided once, before anything is allocated, from what the machine has *available* (cgroup and
 * rlimits included), never from what it has in all. Weights are file pages and could be dropped, but a model
 * whose weights do not stay resident crawls, so they are counted in full. */
#include "sched/sched.h"

#include <stdio.h>
#include <string.h>

static int32_t ctx_limit(const sq_config *c) {
    /* YaRN checkpoints often keep the original length in max_position_embeddings. */
    double limit = c->ctx;
    if (c->rope[0].type == SQ_ROPE_YARN && c->rope[0].original_ctx * c->rope[0].factor > limit)
        limit = c->rope[0].original_ctx * c->rope[0].factor;
    return limit > SQ_MAX_CTX ? SQ_MAX_CTX : (int32_t)limit;
}

uint64_t sq_engine_kv_bytes(const sq_model *m, const squish_engine_options *o) {
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    sq_kv_policy policy;
    sq_model_kv_policy(m, o, o->chunk_tokens, &policy);
    const uint64_t all = sq_kv_bytes(&shape, &policy, o->ctx_tokens), budget = o->kv_options.budget;
    return budget && budget < all ? budget : all;
}

static sq_backend_options backend_options(const sq_model *m, const squish_engine_options *o, sq_isa isa) {
    const sq_config *c = &m->cfg;
    const sq_kv_shape shape = sq_model_kv_shape(c);
    /* Latent rows of a whole chunk are expanded at once. */
    const int32_t m_max = shape.latent && o->chunk_tokens < SQ_ATTN_CHUNK ? SQ_ATTN_CHUNK : o->chunk_tokens;
    return (sq_backend_options){.threads = o->threads,
                                .isa_max = isa,
                                .m_max = m_max,
                                .heads_max = c->n_heads,
                                .kv_heads_max = c->n_kv_heads,
                                .head_dim_max = c->head_dim > shape.head_dim ? c->head_dim : shape.head_dim,
                                .ctx_max = o->ctx_tokens,
                                .rank_max = m->rank_max,
                                .prompt = {o->attention.sage, o->attention.sparge, o->attention.sparge_min,
                                           o->attention.sparge_mass}};
}

static int32_t larger(int32_t a, int32_t b) { return a > b ? a : b; }

/* Of an engine: one that serves its draft too. */
static sq_backend_options engine_backend(const sq_model *m, const squish_engine_options *o, sq_isa isa) {
    sq_backend_options b = backend_options(m, o, isa);
    if (!o->draft) return b;
    const sq_backend_options d = backend_options(o->draft, o, isa);
    b.m_max = larger(b.m_max, d.m_max);
    b.heads_max = larger(b.heads_max, d.heads_max);
    b.kv_heads_max = larger(b.kv_heads_max, d.kv_heads_max);
    b.head_dim_max = larger(b.head_dim_max, d.head_dim_max);
    b.rank_max = larger(b.rank_max, d.rank_max);
    return b;
}

uint64_t sq_engine_scratch_bytes(const sq_model *m, const squish_engine_options *o) {
    const sq_backend_options b = engine_backend(m, o, SQ_ISA_COUNT);
    /* And what guesses of an answer come from. */
    return sq_backend_scratch_bytes(&b) + sq_forward_bytes(m, o->chunk_tokens, SQ_LOGIT_ROWS) +
           sq_ngram_bytes(o->ctx_tokens) + sq_heads_run_bytes(m->heads) + sq_draft_bytes(o->draft, o);
}

static squish_status check_attention(const squish_engine_options *o, squish_error *err) {
    const squish_attention *a = &o->attention;
    if (a->sparge && a->sparge_min < 0)
        return sq_fail(err, SQUISH_INVALID, "sparge_min is %d, wanted 0 or more tokens", a->sparge_min);
    if (a->sparge && !(a->sparge_mass > 0 && a->sparge_mass <= 1))
        return sq_fail(err, SQUISH_INVALID, "sparge_mass is %g, wanted more than 0, at most 1",
                       (double)a->sparge_mass);
    return SQUISH_OK;
}

/* Latent rows have no channels of their own for keys and values, which the other formats are about. */
static squish_status check_latent(const squish_engine_options *o, const sq_config *c, squish_error *err) {
    if (c->mla.kv_rank == 0) return SQUISH_OK;
    if (o->attention.sage || o->attention.sparge)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s beside the latent attention of %s: it reads keys and values",
                       o->attention.sage ? "--sage-attention" : "--sparge-attn", c->arch);
    if (o->kv_options.budget)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--kv-budget beside the latent attention of %s: its rows are kept in f16 alone, and "
                       "have no bits to give (use --ctx)",
                       c->arch);
    if (o->kv_options.snap)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--snap-kv beside the latent attention of %s: its heads share one row a token, and "
                       "cannot keep tokens of their own",
                       c->arch);
    if (o->kv_options.pm || o->kv_options.mix || o->kv_options.cocktail)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s beside the latent attention of %s: it is about channels of keys and values",
                       o->kv_options.pm    ? "--pm-kvq"
                       : o->kv_options.mix ? "--mix-kvq"
                                           : "--cocktail-kv",
                       c->arch);
    if (o->kv != SQUISH_KV_F16 && o->kv != SQUISH_KV_F32)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "--kv %s beside the latent attention of %s: its rows are kept in f16 (use --kv f16)",
                       sq_kv_name(o->kv), c->arch);
    return SQUISH_OK;
}

/* A budget holds one step, and a tile on its way to fewer bits. */
static squish_status check_budget(const squish_engine_options *o, const sq_model *m, squish_error *err) {
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    sq_kv_policy policy;
    if (o->kv_options.budget == 0) return SQUISH_OK;
    sq_model_kv_policy(m, o, o->chunk_tokens, &policy);
    const uint64_t least = sq_kv_bytes(&shape, &policy, o->chunk_tokens);
    if (o->kv_options.budget >= least) return SQUISH_OK;
    return sq_fail(
        err, SQUISH_INVALID,
        "--kv-budget of %llu bytes: a step of %d tokens takes %llu (wanted that much, or a smaller "
        "--chunk)",
        (unsigned long long)o->kv_options.budget, o->chunk_tokens, (unsigned long long)least);
}

static squish_status check_drafts(const squish_engine_options *o, const sq_model *m, squish_error *err) {
    const squish_kv_options *k = &o->kv_options;
    const int32_t most = m->cfg.n_layers > 1 ? m->cfg.n_layers - 1 : 0;
    if (o->skip_layers < 0 || o->skip_layers > most)
        return sq_fail(err, SQUISH_INVALID, "skip_layers is %d, wanted 0 (a third of them) to %d",
                       o->skip_layers, most);
    if (!o->draft) return SQUISH_OK;
    if (k->pm || k->mix || k->cocktail || k->snap || k->budget)
        return sq_fail(err, SQUISH_INVALID,
                       "--draft beside --pm-kvq, --mix-kvq, --cocktail-kv, --snap-kv or --kv-budget: guesses "
                       "and tiles that lose bits by age do not go together");
    return sq_draft_check(m, o->draft, err);
}

static squish_status check_options(const squish_engine_options *o, const sq_model *m, squish_error *err) {
    const sq_config *c = &m->cfg;
    if (o->threads < 0 || o->threads > 1024)
        return sq_fail(err, SQUISH_INVALID, "threads is %d, wanted 0 (all) to 1024", o->threads);
    if (o->chunk_tokens < 1 || o->chunk_tokens > SQ_CHUNK_MAX)
        return sq_fail(err, SQUISH_INVALID, "chunk is %d tokens, wanted 1 to %d", o->chunk_tokens,
                       SQ_CHUNK_MAX);
    if (!sq_kv_name(o->kv))
        return sq_fail(err, SQUISH_INVALID, "kv format is %d, wanted %d (f16) to %d (q2)", (int)o->kv,
                       SQUISH_KV_F16, SQUISH_KV_Q2);
    SQ_TRY(check_attention(o, err));
    SQ_TRY(check_latent(o, c, err));
    SQ_TRY(sq_model_kv_check(m, o, err));
    SQ_TRY(check_budget(o, m, err));
    SQ_TRY(check_drafts(o, m, err));
    if (o->ctx_tokens < 0 || o->ctx_tokens > ctx_limit(c))
        return sq_fail(err, SQUISH_INVALID, "ctx is %d tokens, wanted 0 (as much as fits) to the model's %d",
                       o->ctx_tokens, ctx_limit(c));
    return SQUISH_OK;
}

/* Do cache and scratch for o->ctx_tokens fit into `room` bytes, and the cache under its own cap? */
static bool fits_room(const sq_model *m, const squish_engine_options *o, uint64_t room) {
    const uint64_t kv = sq_engine_kv_bytes(m, o);
    return (o->kv_bytes_max == 0 || kv <= o->kv_bytes_max) && kv + sq_engine_scratch_bytes(m, o) <= room;
}

/* Longest context that fits, in steps of a chunk of attention. */
static int32_t longest_ctx(const sq_model *m, squish_engine_options *o, uint64_t room) {
    int32_t lo = 0, hi = ctx_limit(&m->cfg) / SQ_ATTN_CHUNK + 1;
    while (hi - lo > 1) {
        const int32_t mid = lo + (hi - lo) / 2;
        o->ctx_tokens = mid * SQ_ATTN_CHUNK;
        if (fits_room(m, o, room))
            lo = mid;
        else
            hi = mid;
    }
    return lo * SQ_ATTN_CHUNK;
}

int32_t sq_engine_longest(const sq_model *m, const squish_engine_options *o, uint64_t room, uint64_t *kv) {
    squish_engine_options at = *o;
    at.ctx_tokens = ctx_limit(&m->cfg);
    if (!fits_room(m, &at, room)) at.ctx_tokens = longest_ctx(m, &at, room);
    *kv = at.ctx_tokens > 0 ? sq_engine_kv_bytes(m, &at) : 0;
    return at.ctx_tokens;
}

squish_status sq_engine_plan(const sq_model *m, const squish_engine_options *opt, squish_engine_options *r,
                             squish_mem_estimate *est, squish_error *err) {
    *r = *opt;
    memset(est, 0, sizeof *est);
    if (!m->has_weights)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s was opened for its text only: it has no weights to run",
                       m->info.path);
    SQ_TRY(check_options(opt, m, err));
    if (r->threads == 0) r->threads = sq_os_cores();
    const int32_t limit = ctx_limit(&m->cfg);
    est->available_bytes = sq_os_memory_available();
    est->weight_bytes = m->info.weight_bytes;
    uint64_t usable = est->available_bytes / 10 * 9;
    if (opt->memory_limit && opt->memory_limit < usable) usable = opt->memory_limit;
    const uint64_t room = usable > est->weight_bytes ? usable - est->weight_bytes : 0;
    r->ctx_tokens = opt->ctx_tokens ? opt->ctx_tokens : limit;
    const bool as_wished = fits_room(m, r, room);
    const int32_t most = as_wished ? r->ctx_tokens : longest_ctx(m, r, room);
    r->ctx_tokens = most;
    if (!as_wished && (most == 0 || opt->ctx_tokens) && opt->agile.on)
        return sq_engine_plan_stream(m, opt, usable, r, est, err);
    if (!as_wished && (most == 0 || opt->ctx_tokens)) {
        r->ctx_tokens = opt->ctx_tokens ? opt->ctx_tokens : SQ_ATTN_CHUNK;
        const double need =
            (double)(est->weight_bytes + sq_engine_kv_bytes(m, r) + sq_engine_scratch_bytes(m, r));
        char fits[96] = "a smaller model or tier is needed";
        if (most > 0)
            snprintf(fits, sizeof fits, "--ctx %d fits", most);
        else if (r->kv_bytes_max)
            snprintf(fits, sizeof fits, "a larger cache cap is needed");
        return sq_fail(err, SQUISH_NO_MEMORY,
                       "%s with a context of %d tokens needs %.2f GB, %.2f GB may be used: %s", m->info.path,
                       r->ctx_tokens, need / 1e9, (double)usable / 1e9, fits);
    }
    est->ctx_tokens = r->ctx_tokens;
    est->kv_bytes = sq_engine_kv_bytes(m, r);
    est->scratch_bytes = sq_engine_scratch_bytes(m, r);
    est->total_bytes = est->weight_bytes + est->kv_bytes + est->scratch_bytes;
    return SQUISH_OK;
}

static squish_status make_drafts(sq_engine *e, const squish_engine_options *o, squish_error *err) {
    const int32_t n = e->m->cfg.n_layers, third = n / 3 > 0 ? n / 3 : 1;
    if (n > 1) SQ_TRY(sq_draft_skip_new(&e->skip, e, o->skip_layers ? o->skip_layers : third, err));
    return o->draft ? sq_draft_new(&e->draft, e, o->draft, o, err) : SQUISH_OK;
}

squish_status sq_engine_new(sq_engine **out, const sq_model *m, const squish_engine_options *opt,
                            squish_error *err) {
    *out = NULL;
    squish_engine_options o;
    squish_mem_estimate est;
    sq_isa isa;
    SQ_TRY(sq_engine_plan(m, opt, &o, &est, err));
    if (!sq_isa_from_name(o.isa_max, &isa))
        return sq_fail(err, SQUISH_INVALID, "isa '%.20s' is not one of scalar, avx2, avx512, neon",
                       o.isa_max);
    sq_engine *e = sq_alloc_zero(&m->alloc, sizeof *e);
    if (!e) return sq_fail(err, SQUISH_NO_MEMORY, "engine: out of memory");
    *e = (sq_engine){.alloc = m->alloc,
                     .m = m,
                     .threads = o.threads,
                     .ctx = o.ctx_tokens,
                     .chunk = o.chunk_tokens,
                     .attention = o.attention,
                     .scratch_bytes = est.scratch_bytes};
    sq_guess_rates_init(&e->rates);
    squish_status st = SQUISH_OK;
    const sq_backend_options bo = engine_backend(m, &o, isa);
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    sq_kv_policy policy;
    sq_model_kv_policy(m, &o, o.chunk_tokens, &policy);
    SQ_GUARD(sq_backend_cpu_new(&e->b, &bo, &e->alloc, err));
    uint64_t most = o.kv_bytes_max ? o.kv_bytes_max : est.kv_bytes;
    if (o.kv_options.budget && o.kv_options.budget < most) most = o.kv_options.budget;
    SQ_GUARD(sq_kv_pool_new(&e->kv, &shape, &policy, most, &e->alloc, err));
    SQ_GUARD(
        sq_forward_new(&e->f, m, e->b, e->kv, o.chunk_tokens, SQ_SEQS_MAX, SQ_LOGIT_ROWS, &e->alloc, err));
    SQ_GUARD(sq_engine_make_stream(e, &o, &est, err));
    SQ_GUARD(sq_engine_make_look(e, &o, err));
    if (m->heads && !e->stream) SQ_GUARD(sq_heads_run_new(&e->heads, m->heads, m, e->b, &e->alloc, err));
    SQ_GUARD(make_drafts(e, &o, err));
    SQ_GUARD(sq_sides_new(e, err));
    SQ_GUARD(sq_masks_new(&e->masks, &e->alloc, err));
    *out = e;
    return SQUISH_OK;
fail:
    sq_engine_free(e);
    return st;
}

squish_status sq_engine_spec(const sq_engine *e, sq_spec **out, const squish_spec *o, int32_t tokens_max,
                             const squish_alloc *a, squish_error *err) {
    *out = NULL;
    if (!sq_kv_pool_policy(e->kv)->votes)
        return sq_spec_new(out, o, tokens_max, e->m->heads ? e->m->cfg.hidden : 0, a, err);
    if (o->mode == SQUISH_SPEC_AUTO || o->mode == SQUISH_SPEC_OFF) return SQUISH_OK;
    return sq_fail(
        err, SQUISH_INVALID,
        "--spec %s beside --pm-kvq, --mix-kvq, --cocktail-kv, --snap-kv or --kv-budget: guesses and "
        "tiles that lose bits by age do not go together (wanted auto or off)",
        squish_spec_name(o->mode));
}

/* Why the drafter that was asked for by name guesses nothing. */
static void tell_no_drafts(sq_engine *e, squish_spec_mode mode) {
    char line[160];
    if (!e->drafts_told && e->m->warn) {
        snprintf(line, sizeof line, "--spec %s guesses nothing: %s", squish_spec_name(mode),
                 mode == SQUISH_SPEC_DRAFT ? "there is no other model (--draft names one)"
                 : e->stream               ? "weights stream from disk"
                                           : "the model has one layer");
        e->m->warn(e->m->warn_user, line);
    }
    e->drafts_told = true;
}

sq_drafter *sq_engine_drafter(sq_engine *e, const squish_spec *o) {
    sq_drafter *d = NULL;
    if (o->mode == SQUISH_SPEC_HEADS) return sq_engine_heads(e);
    /* auto asks n-grams, another model that somebody named, and heads; own layers lose (docs/draft.md) */
    if (o->mode == SQUISH_SPEC_DRAFT || o->mode == SQUISH_SPEC_AUTO) d = sq_draft_drafter(e->draft);
    if (!d && o->mode == SQUISH_SPEC_AUTO) d = sq_engine_heads_later(e);
    if (o->mode == SQUISH_SPEC_SKIP && !e->stream) d = sq_draft_drafter(e->skip);
    if (!d && (o->mode == SQUISH_SPEC_DRAFT || o->mode == SQUISH_SPEC_SKIP)) tell_no_drafts(e, o->mode);
    return d;
}

void sq_engine_free(sq_engine *e) {
    if (!e) return;
    sq_masks_free(e->masks);
    sq_draft_free(e->draft);
    sq_draft_free(e->skip);
    sq_heads_run_free(e->heads);
    sq_forward_free(e->f);
    sq_look_free(e->look);
    sq_look_maps_free(e->look_maps);
    sq_stream_free(e->stream);
    for (int32_t i = 0; i < SQ_BRANCHES_MAX; i++) sq_kv_seq_free(e->sides[i]);
    sq_kv_pool_free(e->kv);
    sq_backend_free(e->b);
    squish_alloc a = e->alloc;
    sq_alloc_free(&a, e, sizeof *e);
}
