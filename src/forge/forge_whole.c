/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_whole.c - methods that need all of a matrix: one is held in f32 at a time, besides what the method
 * itself takes (forge_methods.h).
 *
 * Ranks of compensators are settled before the layout, for they are part of it. They are stored nowhere: a
 * resumed build finds the same ones again, because the same numbers come out for any number of threads. */
#include "forge/forge_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- a matrix in memory ---------------------------------------------------------------------- */

typedef struct {
    float peak;
    uint64_t bad;
    double energy;
} tile_facts;

typedef struct {
    const sq_build *b;
    size_t index;
    const sq_weight *src;
    const float *importance;
    float *w;
    tile_facts *facts; /* [tiles] */
} load_job;

static void load_item(void *ctx, int32_t tile, int32_t thread) {
    const load_job *k = ctx;
    const int32_t cols = k->src->cols;
    const int32_t end = (tile + 1) * SQ_TILE_ROWS < k->src->rows ? (tile + 1) * SQ_TILE_ROWS : k->src->rows;
    tile_facts *f = &k->facts[tile];
    (void)thread;
    for (int32_t r = tile * SQ_TILE_ROWS; r < end; r++) {
        float *row = k->w + (size_t)r * (size_t)cols;
        sq_build_row(k->b, k->index, k->src, r, row);
        for (int32_t c = 0; c < cols; c++) {
            const double x = (double)row[c];
            if (!isfinite(row[c]))
                f->bad++;
            else
                f->energy += (k->importance ? (double)k->importance[c] : 1) * x * x;
        }
        f->peak = fmaxf(f->peak, sq_build_largest(row, cols));
    }
}

squish_status sq_whole_load(sq_build *b, const sq_want *w, size_t index, const float *importance,
                            sq_whole *out, squish_error *err) {
    const squish_alloc *a = &b->j->alloc;
    load_job k = {.b = b, .index = index, .src = sq_model_matrix(b->j->m, w), .importance = importance};
    const int32_t tiles = sq_weight_tiles(k.src);
    *out = (sq_whole){.rows = w->rows, .cols = w->cols};
    out->w = k.w = sq_alloc_new(a, (size_t)w->rows * (size_t)w->cols * sizeof *k.w);
    k.facts = sq_alloc_zero(a, (size_t)tiles * sizeof *k.facts);
    const bool ok = k.w && k.facts;
    if (ok) sq_pool_run(b->j->pool, load_item, &k, tiles);
    for (int32_t t = 0; ok && t < tiles; t++) {
        out->peak = fmaxf(out->peak, k.facts[t].peak);
        out->n_nonfinite += k.facts[t].bad;
        out->energy += k.facts[t].energy;
    }
    sq_alloc_free(a, k.facts, (size_t)tiles * sizeof *k.facts);
    if (ok) return SQUISH_OK;
    sq_whole_free(b, out);
    return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': no memory for %d x %d weights", w->name, w->rows,
                   w->cols);
}

void sq_whole_free(sq_build *b, sq_whole *x) {
    sq_alloc_free(&b->j->alloc, x->w, (size_t)x->rows * (size_t)x->cols * sizeof *x->w);
    *x = (sq_whole){0};
}

/* ---- codes ----------------------------------------------------------------------------------- */

static sq_milo_options milo_options(const sq_recipe *r, const float *importance) {
    sq_milo_options o = sq_milo_options_default();
    o.bits = sq_wtype_get(r->type)->bits;
    o.rank = r->rank;
    o.scale_type = r->scale;
    o.importance = importance;
    return o;
}

static squish_status by_gptq(sq_build *b, const sq_want *w, const sq_recipe *r, const sq_whole *x,
                             sq_coded *out, char *why, size_t n, squish_error *err) {
    sq_hessian h;
    const float *mean_abs;
    squish_error cause = {0};
    sq_gptq_options o = sq_gptq_options_default();
    o.bits = sq_wtype_get(r->type)->bits;
    o.scale_type = r->scale;
    if (!sq_calibration_input(b->calibration, w->layer, w->role, &h, &mean_abs)) {
        snprintf(why, n, "not in the calibration");
        return SQUISH_OK;
    }
    const squish_status st =
        sq_gptq_make(out, &b->j->alloc, b->j->pool, x->w, x->rows, x->cols, &h, &o, &cause);
    if (st == SQUISH_OK) return st;
    *out = (sq_coded){0};
    if (st != SQUISH_NUMERIC) return sq_fail(err, st, "tensor '%s': %s", w->name, cause.text);
    snprintf(why, n, "%s", cause.text);
    return SQUISH_OK;
}

squish_status sq_whole_encode(sq_build *b, const sq_want *w, const sq_recipe *r, const sq_whole *x,
                              const float *importance, sq_coded *out, char *why, size_t n,
                              squish_error *err) {
    *out = (sq_coded){0};
    if (r->by == SQ_BY_GPTQ) return by_gptq(b, w, r, x, out, why, n, err);
    const sq_milo_options o = milo_options(r, importance);
    const squish_status st =
        sq_milo_make(out, &b->j->alloc, b->j->pool, x->w, x->rows, x->cols, &o, NULL, err);
    if (st != SQUISH_OK) sq_err_prefix(err, "tensor '%s'", w->name);
    return st;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static int32_t shorter_side(const sq_want *w) { return w->rows < w->cols ? w->rows : w->cols; }

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

static void fixed_ranks(sq_build *b) {
    sq_want w;
    for (size_t i = 0; sq_config_want(&b->j->m->cfg, i, &w); i++)
        if (b->recipes[i].by == SQ_BY_MILO) b->recipes[i].rank = least(b->j->o->rank, shorter_side(&w));
}

/* The alternation takes more out than one decomposition of what the codes leave over: of a share c of the
 * error it makes about c (1 + 1.65 e^-5c). Measured at 3 bits for 48 x 96 to 512 x 512, with and without
 * columns of different size, to within 0.07 c. Without it small matrices would be given too many ranks, for
 * the surplus is in the first ones. gains [n], falling; before: the error without a compensator. */
static void expect_alternation(float *gains, int32_t n, double before) {
    double single = 0, whole = 0;
    for (int32_t i = 0; i < n; i++) {
        single += (double)gains[i];
        const double c = single < before ? single / before : 1;
        const double now = before * c * (1 + 1.65 * exp(-5 * c)), gain = now > whole ? now - whole : 0;
        gains[i] = i > 0 && gain > (double)gains[i - 1] ? gains[i - 1] : (float)gain;
        whole = now;
    }
}

/* What rank 1, 2 ... of a compensator are worth. */
static squish_status find_gains_of(sq_build *b, const sq_whole *x, const sq_milo_options *wish,
                                   int32_t rank_max, float *gains, squish_error *err) {
    sq_milo_options o = *wish;
    sq_coded plain;
    double before = 0;
    o.rank = 0;
    SQ_TRY(sq_milo_make(&plain, &b->j->alloc, b->j->pool, x->w, x->rows, x->cols, &o, &before, err));
    sq_coded_free(&plain);
    SQ_TRY(sq_milo_spectrum(&b->j->alloc, b->j->pool, x->w, x->rows, x->cols, &o, rank_max, gains, err));
    if (before > 0) expect_alternation(gains, rank_max, before);
    return SQUISH_OK;
}

/* One matrix' gains, and what makes them relative to its own size. A matrix that has to become 8-bit gets
 * none. */
static squish_status find_gains(sq_build *b, const sq_want *w, size_t index, sq_rank_request *q, float *gains,
                                squish_error *err) {
    const squish_alloc *a = &b->j->alloc;
    const size_t line = (size_t)w->cols * sizeof(float);
    float *importance = b->calibration ? sq_alloc_new(a, line) : NULL;
    const bool known = importance && sq_build_importance(b, w, index, importance);
    sq_whole x = {0};
    squish_status st = SQUISH_OK;
    if (b->calibration && !importance)
        st = sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    if (st == SQUISH_OK) st = sq_whole_load(b, w, index, known ? importance : NULL, &x, err);
    if (st == SQUISH_OK && x.n_nonfinite)
        st = sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': %llu of %llu weights are not finite numbers",
                     b->j->m->info.path, w->hf_name, (unsigned long long)x.n_nonfinite,
                     (unsigned long long)w->rows * (unsigned long long)w->cols);
    if (st == SQUISH_OK && x.energy > 0 && !(x.peak > sq_build_reach(&b->recipes[index]))) {
        const sq_milo_options o = milo_options(&b->recipes[index], known ? importance : NULL);
        q->weight = 1 / x.energy;
        st = find_gains_of(b, &x, &o, q->rank_max, gains, err);
    }
    sq_whole_free(b, &x);
    sq_alloc_free(a, importance, line);
    return st;
}

/* Enough ranks to look at for any tensor to get four times the average. */
static int32_t ranks_to_try(const sq_build *b, double bpw, uint64_t *budget, size_t *n) {
    sq_want w;
    double weights = 0, per_rank = 0;
    *n = 0;
    for (size_t i = 0; sq_config_want(&b->j->m->cfg, i, &w); i++) {
        if (b->recipes[i].by != SQ_BY_MILO) continue;
        weights += (double)w.rows * (double)w.cols;
        per_rank += 2 * ((double)w.rows + (double)w.cols);
        ++*n;
    }
    *budget = (uint64_t)(bpw / 8 * weights);
    const double most = per_rank > 0 ? 4 * (double)*budget / per_rank : 0;
    return most > SQ_MILO_RANK_MAX ? SQ_MILO_RANK_MAX : most < 16 ? 16 : (int32_t)most;
}

static squish_status gains_of_all(sq_build *b, sq_rank_request *q, float *gains, int32_t rank_max, size_t n,
                                  squish_error *err) {
    const sq_forge_job *j = b->j;
    sq_want w;
    size_t at = 0;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        if (b->recipes[i].by != SQ_BY_MILO) continue;
        float *mine = gains + at * (size_t)rank_max;
        q[at] = (sq_rank_request){.gains = mine,
                                  .rank_max = least(rank_max, shorter_side(&w)),
                                  .rows = w.rows,
                                  .cols = w.cols};
        SQ_TRY(find_gains(b, &w, i, &q[at], mine, err));
        at++;
        if (j->o->progress && !j->o->progress(j->o->progress_user, "ranks", at, n))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    return SQUISH_OK;
}

static squish_status chosen_ranks(sq_build *b, squish_error *err) {
    const squish_alloc *a = &b->j->alloc;
    uint64_t budget;
    size_t n, at = 0;
    const int32_t rank_max = ranks_to_try(b, b->j->o->rank_bpw, &budget, &n);
    if (n == 0) return SQUISH_OK;
    const size_t requests = n * sizeof(sq_rank_request), floats = n * (size_t)rank_max * sizeof(float);
    sq_rank_request *q = sq_alloc_zero(a, requests);
    float *gains = sq_alloc_zero(a, floats);
    squish_status st = q && gains ? gains_of_all(b, q, gains, rank_max, n, err)
                                  : sq_fail(err, SQUISH_NO_MEMORY, "ranks: out of memory");
    if (st == SQUISH_OK) {
        sq_rank_allocate(q, n, budget);
        for (size_t i = 0; i < b->n; i++)
            if (b->recipes[i].by == SQ_BY_MILO) b->recipes[i].rank = q[at++].rank;
    }
    sq_alloc_free(a, gains, floats);
    sq_alloc_free(a, q, requests);
    return st;
}

squish_status sq_build_ranks(sq_build *b, squish_error *err) {
    if (b->j->o->rank > 0)
        fixed_ranks(b);
    else
        SQ_TRY(chosen_ranks(b, err));
    for (size_t i = 0; i < b->n; i++)
        if (b->recipes[i].by == SQ_BY_MILO && b->recipes[i].rank == 0) b->recipes[i].by = SQ_BY_PLAIN;
    return SQUISH_OK;
}
