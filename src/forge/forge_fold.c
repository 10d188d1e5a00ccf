/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_fold.c - scales by activation (AWQ: Lin et al., 2023, arXiv:2306.00978) and where they go: columns of
 * the matrices that read an input are multiplied, whatever makes that input is divided, and the network
 * computes what it did before.
 *
 *   input      read by    made by
 *   attn_in    q, k, v    the norm before attention
 *   attn_out   o          v: rows and bias. Heads that share a kv head share its scales
 *   ffn_in     gate, up   the norm before the feed-forward block
 *   ffn_mid    down       up: rows and bias; act(gate) * up is linear in up
 *
 * A norm that stands between v and o or between up and down would undo the scales; those pairs are left
 * alone, and so is every pair with a matrix that keeps its codes. Nothing of this is stored: a resumed build
 * finds the same scales again. */
#include "forge/forge_build.h"

#include <stdio.h>
#include <string.h>

enum { ROWS_JUDGED = 256, READERS_MAX = 3 }; /* rows of all readers together, spread evenly */

typedef struct {
    sq_build *b;
    int32_t layer;
    size_t at[SQ_ROLE_COUNT];      /* index of each tensor of the layer, plus one; 0: absent */
    sq_want want[SQ_ROLE_COUNT];
    size_t used;                   /* of b->scales */
} folder;

typedef struct {
    sq_role readers[READERS_MAX], between, maker, maker_bias; /* SQ_ROLE_COUNT: none */
} pair;

static const pair pairs[] = {
    {{SQ_ROLE_Q, SQ_ROLE_K, SQ_ROLE_V}, SQ_ROLE_COUNT, SQ_ROLE_ATTN_NORM, SQ_ROLE_COUNT},
    {{SQ_ROLE_O, SQ_ROLE_COUNT, SQ_ROLE_COUNT}, SQ_ROLE_ATTN_SUB_NORM, SQ_ROLE_V, SQ_ROLE_V_BIAS},
    {{SQ_ROLE_GATE, SQ_ROLE_UP, SQ_ROLE_COUNT}, SQ_ROLE_COUNT, SQ_ROLE_FFN_NORM, SQ_ROLE_COUNT},
    {{SQ_ROLE_DOWN, SQ_ROLE_COUNT, SQ_ROLE_COUNT}, SQ_ROLE_FFN_SUB_NORM, SQ_ROLE_UP, SQ_ROLE_UP_BIAS}};

/* ---- what can be folded ---------------------------------------------------------------------- */

static bool has(const folder *f, sq_role r) { return r < SQ_ROLE_COUNT && f->at[r] > 0; }

/* New codes are made, and of a kind that takes any values. */
static bool is_free(const folder *f, sq_role r) {
    if (!has(f, r)) return false;
    const sq_recipe *made = &f->b->recipes[f->at[r] - 1];
    return made->make == SQ_MAKE_QUANTISE && made->type != SQ_W_T2_ROW;
}

static bool can_fold(const folder *f, const pair *p) {
    for (int32_t i = 0; i < READERS_MAX; i++)
        if (p->readers[i] < SQ_ROLE_COUNT && !is_free(f, p->readers[i])) return false;
    if (has(f, p->between) || !has(f, p->maker)) return false;
    return f->want[p->maker].vector || is_free(f, p->maker);
}

/* ---- scales ---------------------------------------------------------------------------------- */

/* Heads that read the same kv head get the mean of theirs. */
static void tie_heads(const sq_config *c, const float *from, float *to) {
    const int32_t d = c->head_dim, shared = c->n_heads / c->n_kv_heads;
    for (int32_t kv = 0; kv < c->n_kv_heads; kv++)
        for (int32_t i = 0; i < d; i++) {
            double sum = 0;
            for (int32_t h = 0; h < shared; h++) sum += (double)from[(kv * shared + h) * d + i];
            for (int32_t h = 0; h < shared; h++) to[(kv * shared + h) * d + i] = (float)(sum / shared);
        }
}

/* Rows of the readers to judge by, in proportion to how many they have: f32, one after another at `to`. */
static int32_t sample(const folder *f, const pair *p, sq_awq_matrix *m, float *to) {
    int64_t total = 0;
    int32_t n = 0;
    for (; n < READERS_MAX && p->readers[n] < SQ_ROLE_COUNT; n++) total += f->want[p->readers[n]].rows;
    for (int32_t i = 0; i < n; i++) {
        const sq_want *w = &f->want[p->readers[i]];
        const sq_weight *src = sq_model_matrix(f->b->j->m, w);
        int32_t rows = w->rows;
        if (total > ROWS_JUDGED) rows = (int32_t)((int64_t)w->rows * ROWS_JUDGED / total);
        if (rows < 1) rows = 1;
        m[i] = (sq_awq_matrix){to, rows};
        for (int32_t r = 0; r < rows; r++, to += w->cols)
            sq_weight_row(src, (int32_t)((int64_t)r * w->rows / rows), to);
    }
    return n;
}

/* Scales [cols] of one input into s. *any: are they not all 1? */
static squish_status find_scales(folder *f, const pair *p, float *s, bool *any, squish_error *err) {
    const sq_forge_job *j = f->b->j;
    const sq_want *first = &f->want[p->readers[0]];
    const size_t cols = (size_t)first->cols;
    const size_t bytes = (cols + (size_t)(ROWS_JUDGED + READERS_MAX) * cols) * sizeof(float);
    sq_awq_options o = sq_awq_options_default();
    sq_awq_matrix m[READERS_MAX];
    sq_hessian h;
    const float *mean_abs;
    float alpha = 0;
    *any = false;
    if (!sq_calibration_input(f->b->calibration, f->layer, first->role, &h, &mean_abs)) return SQUISH_OK;
    float *tied = sq_alloc_new(&j->alloc, bytes);
    if (!tied) return sq_fail(err, SQUISH_NO_MEMORY, "scales of '%s': out of memory", first->name);
    if (p->maker == SQ_ROLE_V)
        tie_heads(&j->m->cfg, mean_abs, tied);
    else
        memcpy(tied, mean_abs, cols * sizeof *tied);
    o.bits = j->o->bits;
    const int32_t n = sample(f, p, m, tied + cols);
    const squish_status st = sq_awq_scales(&j->alloc, j->pool, m, n, first->cols, &h, tied, &o, s, &alpha,
                                           NULL, NULL, err);
    if (st != SQUISH_OK) sq_err_prefix(err, "scales of '%s'", first->name);
    sq_alloc_free(&j->alloc, tied, bytes);
    *any = alpha > 0;
    return st;
}

/* ---- folding --------------------------------------------------------------------------------- */

/* What the maker's rows are divided by: of v one number for all heads that read it. */
static const float *maker_scales(folder *f, const pair *p, const float *s) {
    const sq_config *c = &f->b->j->m->cfg;
    if (p->maker != SQ_ROLE_V) return s;
    const int32_t d = c->head_dim, shared = c->n_heads / c->n_kv_heads;
    float *v = f->b->scales + f->used;
    f->used += (size_t)(c->n_kv_heads * d);
    for (int32_t kv = 0; kv < c->n_kv_heads; kv++)
        memcpy(v + kv * d, s + kv * shared * d, (size_t)d * sizeof *v);
    return v;
}

static squish_status fold_pair(folder *f, const pair *p, squish_error *err) {
    bool any;
    if (!can_fold(f, p)) return SQUISH_OK;
    float *s = f->b->scales + f->used;
    SQ_TRY(find_scales(f, p, s, &any, err));
    if (!any) return SQUISH_OK;
    f->used += (size_t)f->want[p->readers[0]].cols;
    for (int32_t i = 0; i < READERS_MAX && p->readers[i] < SQ_ROLE_COUNT; i++)
        f->b->folds[f->at[p->readers[i]] - 1].cols = s;
    const float *rows = maker_scales(f, p, s);
    f->b->folds[f->at[p->maker] - 1].rows = rows;
    if (has(f, p->maker_bias)) f->b->folds[f->at[p->maker_bias] - 1].rows = rows;
    return SQUISH_OK;
}

static squish_status fold_layer(folder *f, squish_error *err) {
    const sq_forge_job *j = f->b->j;
    for (size_t i = 0; i < SQ_COUNT(pairs); i++) SQ_TRY(fold_pair(f, &pairs[i], err));
    if (j->o->progress && !j->o->progress(j->o->progress_user, "scales", (uint64_t)f->layer + 1,
                                          (uint64_t)j->m->cfg.n_layers))
        return sq_fail(err, SQUISH_CANCELLED, "stopped");
    return SQUISH_OK;
}

squish_status sq_build_folds(sq_build *b, squish_error *err) {
    const sq_config *c = &b->j->m->cfg;
    folder f = {.b = b, .layer = -1};
    sq_want w;
    b->n_scales = (size_t)c->n_layers * (size_t)(2 * c->hidden + (c->n_heads + c->n_kv_heads) * c->head_dim +
                                                 c->ffn);
    b->scales = sq_alloc_new(&b->j->alloc, b->n_scales * sizeof *b->scales);
    if (!b->scales) return sq_fail(err, SQUISH_NO_MEMORY, "scales: out of memory");
    /* Tensors of a layer follow each other. */
    for (size_t i = 0; sq_config_want(c, i, &w); i++) {
        if (w.layer != f.layer) {
            if (f.layer >= 0) SQ_TRY(fold_layer(&f, err));
            memset(f.at, 0, sizeof f.at);
            f.layer = w.layer;
        }
        f.at[w.role] = i + 1;
        f.want[w.role] = w;
    }
    return f.layer >= 0 ? fold_layer(&f, err) : SQUISH_OK;
}
