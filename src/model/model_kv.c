/* SPDX-License-Identifier: Apache-2.0
 *
 * model_kv.c - which format the cache of a model has: what was asked for, and what its keys allow.
 *
 * A bias of the key projection is rotated with the key. In channels that turn far within a tile of 32 tokens
 * it sweeps a range of twice its size, and the step of the tile grows with it. Qwen2 and 2.5 have layers
 * where it is 30 times that of the others; at 4 bits they fall apart. Such layers keep keys in 8 bits. */
#include "model/model.h"

#include <math.h>

enum { RATIO = 4 }; /* of a layer's largest fast bias to the median of all layers */

/* The largest bias among channels that turn by more than a quarter within a tile. */
static float fast_bias(const sq_model *m, int32_t layer) {
    const sq_config *c = &m->cfg;
    const float *bias = m->layers[layer].vec[SQ_ROLE_K_BIAS];
    const int32_t half = c->head_dim / 2;
    double freq[SQ_ATTN_D_MAX / 2], factor;
    float most = 0;
    if (!bias || half > SQ_ATTN_D_MAX / 2) return 0;
    sq_rope_frequencies(&c->rope[m->layers[layer].rope], half, freq, &factor);
    for (int32_t i = 0; i < c->n_kv_heads * c->head_dim; i++) {
        const int32_t at = i % c->head_dim, pair = c->rope_pairs ? at / 2 : at % half;
        if (SQ_KV_TILE * freq[pair] > 1.5707963267948966) most = fmaxf(most, fabsf(bias[i]));
    }
    return most;
}

/* How many layers have a smaller one, or the same and come before: its rank. */
static int32_t rank_of(const float *x, int32_t n, int32_t i) {
    int32_t rank = 0;
    for (int32_t j = 0; j < n; j++) rank += x[j] < x[i] || (x[j] == x[i] && j < i);
    return rank;
}

static void add_floors(const sq_model *m, uint64_t *flagged) {
    float most[SQ_KV_LAYERS_MAX], median = 0;
    const int32_t n = m->cfg.n_layers;
    for (int32_t l = 0; l < n; l++) most[l] = fast_bias(m, l);
    for (int32_t l = 0; l < n; l++)
        if (rank_of(most, n, l) == n / 2) median = most[l];
    for (int32_t l = 0; l < n; l++)
        if (most[l] > RATIO * median) flagged[l / 64] |= (uint64_t)1 << (l % 64);
}

sq_kv_shape sq_model_kv_shape(const sq_config *c) {
    if (c->mla.kv_rank == 0) return (sq_kv_shape){c->n_layers, c->n_kv_heads, c->head_dim, false};
    return (sq_kv_shape){c->n_layers, 1, sq_mla_width(c->mla.kv_rank, c->mla.rope), true};
}

squish_status sq_model_kv_check(const sq_model *m, const squish_engine_options *o, squish_error *err) {
    uint64_t flagged[SQ_KV_LAYERS_MAX / 64] = {0};
    sq_kv_wish w = {.kv = o->kv,
                    .options = &o->kv_options,
                    .attention = &o->attention,
                    .n_layers = m->cfg.n_layers,
                    .head_dim = m->cfg.head_dim,
                    .latent = m->cfg.mla.kv_rank > 0,
                    .flagged = flagged};
    for (int32_t l = 0; l < m->cfg.n_layers; l++) w.windowed += m->layers[l].windowed;
    if (o->kv_options.floors && m->cfg.n_layers <= SQ_KV_LAYERS_MAX) add_floors(m, flagged);
    return sq_kv_rules_check(&w, err);
}

void sq_model_kv_policy(const sq_model *m, const squish_engine_options *o, int32_t step_tokens,
                        sq_kv_policy *out) {
    const int32_t d = m->cfg.head_dim;
    *out = sq_kv_policy_of(o->kv);
    const bool below = out->seals && out->k != SQ_KV_Q8;
    sq_kv_policy_add(out, o->kv, &o->kv_options);
    out->step_tokens = step_tokens;
    if (d & (d - 1)) out->rotate_v = false; /* such a basis there is for powers of two */
    if ((below || out->votes) && m->cfg.n_layers <= SQ_KV_LAYERS_MAX) add_floors(m, out->k_floor);
}
