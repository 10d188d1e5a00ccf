/* SPDX-License-Identifier: Apache-2.0
 *
 * model_moe.c - the feed-forward block of layers with experts.
 *
 *   h = norm(x)   scores = router h -> choice -> gather -> experts -> sum into x
 *                 shared block of h ------------------------------^   (times a sigmoid of its own: Qwen2)
 *
 * The router's scores are made from f32 rows by the same kernels for any number of rows, so whom a token
 * chooses depends on the token alone. */
#include "model/model_forward_int.h"

static sq_route_rule rule_of(const sq_moe_config *m) {
    return (sq_route_rule){.n = m->n,
                           .used = m->used,
                           .n_group = m->n_group,
                           .topk_group = m->topk_group,
                           .norm = m->norm_topk,
                           .scale = m->scale};
}

size_t sq_moe_plan_device(const sq_config *c, int32_t m_max, sq_moe_rows *r, char *memory) {
    const sq_moe_config *m = &c->moe;
    if (m->n == 0) return 0;
    const int32_t slots = m_max * m->used, shared = m->shared_ffn ? m_max : 0;
    const struct {
        sq_rows *r;
        int32_t m, cols;
        bool q;
    } rows[] = {{&r->scores, m_max, m->n, false},
                {&r->gate, shared, 1, false},
                {&r->shared_mid, shared, m->shared_ffn, true},
                {&r->shared, shared, c->hidden, false},
                {&r->e.in, slots, c->hidden, true},
                {&r->e.mid, slots, m->ffn, true},
                {&r->e.out, slots, c->hidden, false}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (rows[i].m == 0) continue;
        if (memory) sq_rows_carve(rows[i].r, rows[i].m, rows[i].cols, rows[i].q, memory + at);
        at += sq_rows_bytes(rows[i].m, rows[i].cols, rows[i].q);
    }
    return at;
}

size_t sq_moe_plan_host(const sq_config *c, int32_t m_max, sq_moe_rows *r, char *memory) {
    if (c->moe.n == 0) return 0;
    const sq_route_rule rule = rule_of(&c->moe);
    if (memory) sq_routes_carve(&r->routes, &rule, m_max, memory);
    return sq_routes_bytes(&rule, m_max);
}

/* The block that every token takes, into shared; false: there is none. */
static bool shared_block(sq_forward *f, const sq_layer *l, bool *switched) {
    sq_moe_rows *r = &f->moe;
    const sq_weight *down = &l->mat[SQ_ROLE_SHARED_DOWN], *sw = &l->mat[SQ_ROLE_SHARED_SWITCH];
    *switched = sw->rows > 0;
    if (down->rows == 0) return false;
    sq_be_gated(f->b, &f->h, &l->mat[SQ_ROLE_SHARED_GATE], NULL, &l->mat[SQ_ROLE_SHARED_UP], NULL,
                (sq_activation)f->m->cfg.activation, sq_forward_wants_q8(down), &r->shared_mid);
    const sq_linear lin = {down, NULL, &r->shared, false}, open = {sw, NULL, &r->gate, false};
    sq_be_linear(f->b, &r->shared_mid, &lin, 1);
    if (*switched) sq_be_linear(f->b, &f->h, &open, 1);
    return true;
}

/* The experts that rows chose, of weights that lie there or come as they are read. */
static squish_status run_experts(sq_forward *f, int32_t i_layer) {
    const sq_config *c = &f->m->cfg;
    sq_moe_rows *r = &f->moe;
    const sq_activation act = (sq_activation)c->activation;
    if (f->stream) return sq_stream_experts_run(f->stream, f->b, i_layer, &r->routes, act, &r->e, &f->error);
    sq_be_experts_run(f->b, &r->routes, f->layer->experts, 0, c->moe.n, act, &r->e);
    return SQUISH_OK;
}

squish_status sq_moe_block(sq_forward *f, int32_t i_layer) {
    const sq_config *c = &f->m->cfg;
    const sq_layer *l = f->layer;
    sq_moe_rows *r = &f->moe;
    const sq_linear router = {&l->mat[SQ_ROLE_ROUTER], NULL, &r->scores, false};
    /* Whoever has codes reads the integer form; that it is there does not disturb who reads floats. */
    const bool quant = f->look || sq_forward_wants_q8(router.w) || sq_forward_wants_q8(&l->experts[0].gate) ||
                       sq_forward_wants_q8(&l->mat[SQ_ROLE_SHARED_GATE]);
    bool switched;
    sq_be_rmsnorm(f->b, &f->x, NULL, f->x.m, l->vec[SQ_ROLE_FFN_NORM], c->norm_eps, quant, &f->h);
    sq_forward_show(f, i_layer, SQ_TAP_FFN_IN, &f->h);
    sq_be_linear(f->b, &f->h, &router, 1);
    sq_be_route(f->b, &r->scores, &r->routes);
    if (f->look) sq_look_routed(f->look, i_layer, &r->routes);
    if (f->stream) sq_stream_experts_want(f->stream, i_layer, &r->routes);
    if (f->look) sq_look_block(f->look, i_layer, &f->h, &r->routes);
    sq_be_experts_gather(f->b, &f->h, &r->routes, &r->e);
    const bool shared = shared_block(f, l, &switched);
    SQ_TRY(run_experts(f, i_layer));
    sq_be_experts_sum(f->b, &r->routes, &r->e, shared ? &r->shared : NULL, switched ? &r->gate : NULL, &f->x);
    return SQUISH_OK;
}
