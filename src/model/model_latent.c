/* SPDX-License-Identifier: Apache-2.0
 *
 * model_latent.c - latent attention of a layer (DeepSeek-V2, arXiv:2405.04434).
 *
 *   q  = Wq h, or Wq_b norm(Wq_a h)          [heads][nope | rope]
 *   kv = Wkv_a h -> norm(first kv_rank) | rotated rest: the row that is cached
 *   a  = attention of q over cached rows, by Wkv_b (be_mla.h) */
#include "model/model_forward_int.h"

static sq_mla_shape shape_of(const sq_forward *f) {
    const sq_config *c = &f->m->cfg;
    const sq_layer *l = f->layer;
    return (sq_mla_shape){.n_heads = c->n_heads,
                          .nope = c->mla.nope,
                          .rope = c->mla.rope,
                          .v = c->mla.v,
                          .rank = c->mla.kv_rank,
                          .scale = c->softmax_scale,
                          .kv_f32 = f->kv.open == SQ_KV_F32,
                          .norm = l->vec[SQ_ROLE_KV_A_NORM],
                          .norm_eps = c->norm_eps,
                          .cos = f->cos[0],
                          .sin = f->sin[0],
                          .k_off = sq_kv_geometry_of(&f->kv_shape, f->kv.open).k_off,
                          .k_b = &l->mat[SQ_ROLE_K_B],
                          .kv_b = &l->mat[SQ_ROLE_KV_B]};
}

size_t sq_latent_plan(const sq_forward *f, sq_latent_rows *r, char *memory) {
    const sq_mla_config *m = &f->m->cfg.mla;
    size_t at = 0;
    if (m->kv_rank == 0) return 0;
    if (m->q_rank > 0) {
        if (memory) sq_rows_carve(&r->q_a, f->m_max, m->q_rank, true, memory);
        at += sq_rows_bytes(f->m_max, m->q_rank, true);
    }
    if (memory) sq_rows_carve(&r->kv_a, f->m_max, m->kv_rank + m->rope, false, memory + at);
    at += sq_rows_bytes(f->m_max, m->kv_rank + m->rope, false);
    const sq_mla_shape s = {.n_heads = f->m->cfg.n_heads,
                            .nope = m->nope,
                            .rope = m->rope,
                            .v = m->v,
                            .rank = m->kv_rank,
                            .kv_f32 = true}; /* the larger */
    if (memory) sq_mla_rows_carve(&r->rows, &s, f->m_max, memory + at);
    return at + sq_mla_rows_bytes(&s, f->m_max);
}

/* Queries and latent rows of h, on their way to the cache. */
static void project(sq_forward *f, const sq_layer *l) {
    sq_latent_rows *r = &f->latent;
    const sq_weight *q_b = &l->mat[SQ_ROLE_Q_B];
    const bool ranked = q_b->rows > 0;
    const sq_linear first[] = {
        {&l->mat[SQ_ROLE_KV_A], NULL, &r->kv_a, false},
        {&l->mat[ranked ? SQ_ROLE_Q_A : SQ_ROLE_Q], NULL, ranked ? &r->q_a : &f->q, false}};
    sq_be_linear(f->b, &f->h, first, 2);
    if (!ranked) return;
    sq_be_rmsnorm(f->b, &r->q_a, NULL, r->q_a.m, l->vec[SQ_ROLE_Q_A_NORM], f->m->cfg.norm_eps,
                  sq_forward_wants_q8(q_b), &r->q_a);
    const sq_linear second = {q_b, NULL, &f->q, false};
    sq_be_linear(f->b, &r->q_a, &second, 1);
}

void sq_latent_attention(sq_forward *f, int32_t i_layer, int32_t n_segs) {
    const sq_layer *l = f->layer;
    const sq_weight *q = &l->mat[l->mat[SQ_ROLE_Q].rows > 0 ? SQ_ROLE_Q : SQ_ROLE_Q_A];
    const bool quant = f->look || sq_forward_wants_q8(q) || sq_forward_wants_q8(&l->mat[SQ_ROLE_KV_A]);
    sq_be_rmsnorm(f->b, &f->x, NULL, f->x.m, l->vec[SQ_ROLE_ATTN_NORM], f->m->cfg.norm_eps, quant, &f->h);
    sq_forward_show(f, i_layer, SQ_TAP_ATTN_IN, &f->h);
    if (f->look) sq_look_attention(f->look, i_layer, &f->h);
    project(f, l);
    const sq_mla_shape s = shape_of(f);
    sq_be_mla_prepare(f->b, &s, f->segs, n_segs, &f->q, &f->latent.kv_a);
    sq_be_mla_attend(f->b, &s, f->segs, n_segs, &f->q, sq_forward_wants_q8(&l->mat[SQ_ROLE_O]),
                     &f->latent.rows, &f->a);
    sq_forward_show(f, i_layer, SQ_TAP_ATTN_OUT, &f->a);
}
