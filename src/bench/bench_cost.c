/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_cost.c - what a step must read and compute at least, from the shapes of a model, and how long the
 * machine needs for that: the slower of the two, since a good engine does both at once (Williams et al.,
 * 2009). */
#include "bench/bench_int.h"

static void add_matrix(const sq_weight *w, double *bytes, double *dots, double *fmas) {
    const double ops = 2.0 * w->rows * w->cols;
    *bytes += (double)w->tile_bytes * sq_div_up(w->rows, SQ_TILE_ROWS);
    *(sq_wtype_wants_q8((sq_wtype)w->wtype) ? dots : fmas) += ops;
}

bench_cost bench_cost_of(const sq_model *m, const sq_kv_policy *kv) {
    const sq_config *c = &m->cfg;
    const sq_kv_shape shape = sq_model_kv_shape(c);
    bench_cost k = {0};
    sq_want w;
    for (size_t i = 0; sq_config_want(c, i, &w); i++)
        if (!w.vector && w.layer >= 0 && w.expert < c->moe.used) /* a token reads so many */
            add_matrix(sq_model_matrix(m, &w), &k.layer_bytes, &k.layer_dots, &k.layer_fmas);
    add_matrix(&m->head, &k.head_bytes, &k.head_dots, &k.head_fmas);
    k.kv_bytes =
        (double)(kv->seals ? sq_kv_sealed_bytes(&shape, kv) : sq_kv_open_bytes(&shape, kv)) / SQ_KV_TILE;
    k.attn_fmas = 4.0 * c->n_heads * c->head_dim * c->n_layers;
    if (shape.latent) k.attn_fmas = 2.0 * c->n_heads * (shape.head_dim + c->mla.kv_rank) * c->n_layers;
    return k;
}

static double step_dots(const bench_cost *k, bench_step s) {
    return k->layer_dots * s.tokens + k->head_dots * s.heads;
}

static double step_fmas(const bench_cost *k, bench_step s) {
    return k->layer_fmas * s.tokens + k->head_fmas * s.heads + k->attn_fmas * s.seen;
}

double bench_step_bytes(const bench_cost *k, bench_step s) {
    return k->layer_bytes + k->head_bytes + k->kv_bytes * s.cached;
}

double bench_step_ops(const bench_cost *k, bench_step s) { return step_dots(k, s) + step_fmas(k, s); }

double bench_limit_seconds(const bench_cost *k, bench_step s, bench_rates r) {
    const double memory = bench_step_bytes(k, s) / r.read;
    const double sums = step_dots(k, s) / r.dots + step_fmas(k, s) / r.fma;
    return (memory > sums ? memory : sums) / 1e9;
}
