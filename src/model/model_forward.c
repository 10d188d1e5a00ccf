/* SPDX-License-Identifier: Apache-2.0
 *
 * model_forward.c - the transformer: one step of tokens through all layers.
 *
 * Every buffer is planned when the forward pass is made; a step allocates nothing. Rows of a step may belong
 * to several sequences; only attention knows.
 *
 *   x [m][hidden]  residual stream        q [m][heads*d]  k, v [m][kv_heads*d]
 *   h [m][hidden]  normalised             a [m][heads*d]  attention output
 *   f [m][ffn]     gated                  y [m][hidden]   a block's output where a norm comes before the sum
 *
 * Experts: model_moe.c. */
#include "kv/kv_private.h"
#include "kv/kv_snap.h"
#include "model/model_forward_int.h"

#include <assert.h>
#include <string.h>

enum {
    OBSERVE_ROWS = 32, /* last tokens of a prompt whose attention is looked at */
    OBSERVE_FROM = 2   /* layer */
};

/* ---- planning -------------------------------------------------------------------------------- */

/* Carve everything on the device from memory, or only count if it is NULL. */
static size_t plan_device(sq_forward *f, char *memory) {
    const sq_config *c = &f->m->cfg;
    const int32_t wide_q = c->n_heads * c->head_dim, wide_kv = c->n_kv_heads * c->head_dim;
    const int32_t wide_a = c->mla.kv_rank ? c->n_heads * c->mla.v : wide_q;
    const int32_t m_kv = c->mla.kv_rank ? 1 : f->m_max; /* latent rows have a place of their own */
    const int32_t m_part = f->m_max < SQ_PART_ROWS ? f->m_max : SQ_PART_ROWS;
    const struct {
        sq_rows *r;
        int32_t m, cols;
        bool q;
    } rows[] = {{&f->x, f->m_max, c->hidden, false},    {&f->h, f->m_max, c->hidden, true},
                {&f->q, f->m_max, wide_q, false},       {&f->k, m_kv, wide_kv, false},
                {&f->v, m_kv, wide_kv, false},          {&f->a, f->m_max, wide_a, true},
                {&f->y, f->m_max, c->hidden, false},    {&f->f, f->m_max, c->ffn, true},
                {&f->out, f->out_max, c->hidden, true}, {&f->logits, f->out_max, c->n_vocab, false},
                {&f->part, m_part, c->hidden, false}};
    size_t at = 0;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        if (memory) sq_rows_carve(rows[i].r, rows[i].m, rows[i].cols, rows[i].q, memory + at);
        at += sq_rows_bytes(rows[i].m, rows[i].cols, rows[i].q);
    }
    at += sq_latent_plan(f, &f->latent, memory ? memory + at : NULL);
    at += sq_moe_plan_device(c, f->m_max, &f->moe, memory ? memory + at : NULL);
    const size_t table =
        sq_align_up((size_t)f->m_max * (size_t)(sq_config_rotated(c) / 2) * sizeof(float), 64);
    for (int32_t i = 0; i < c->n_rope; i++) {
        if (memory) {
            f->cos[i] = (float *)(memory + at);
            f->sin[i] = (float *)(memory + at + table);
        }
        at += 2 * table;
    }
    return at;
}

uint64_t sq_forward_bytes(const sq_model *m, int32_t m_max, int32_t out_max) {
    sq_forward f = {.m = m, .m_max = m_max, .out_max = out_max};
    return plan_device(&f, NULL);
}

static size_t seals_max(const sq_forward *f) {
    if (!f->kv.seals) return 0;
    return (size_t)(f->m_max / SQ_KV_TILE) + (size_t)f->n_seg_max * SQ_KV_SEAL_MAX;
}

static squish_status plan_host(sq_forward *f, squish_error *err) {
    const size_t half = (size_t)(sq_config_rotated(&f->m->cfg) / 2);
    const size_t freq = 2 * half * sizeof(double), segs = (size_t)f->n_seg_max * sizeof *f->segs;
    const size_t seals = seals_max(f) * sizeof *f->seals;
    const size_t seen_at = freq + segs + seals + (size_t)f->m_max * sizeof *f->pos;
    const size_t seen = 2 * OBSERVE_ROWS * (size_t)f->m->cfg.n_heads * sizeof *f->seen;
    const size_t routes = sq_align_up(seen_at + (f->kv.cocktail.on || f->kv.snap.tiles ? seen : 0), 64);
    f->host_bytes = routes + sq_moe_plan_host(&f->m->cfg, f->m_max, &f->moe, NULL);
    f->host = sq_alloc_zero(&f->alloc, f->host_bytes);
    if (!f->host) return sq_fail(err, SQUISH_NO_MEMORY, "forward pass: out of memory");
    char *p = f->host;
    f->inv_freq[0] = (double *)p;
    f->inv_freq[1] = f->inv_freq[0] + half;
    f->segs = (sq_attn_seg *)(p + freq);
    f->seals = (sq_attn_seal *)(p + freq + segs);
    f->pos = (int32_t *)(p + freq + segs + seals);
    f->seen = (float *)(p + seen_at);
    sq_moe_plan_host(&f->m->cfg, f->m_max, &f->moe, p + routes);
    for (int32_t i = 0; i < f->m->cfg.n_rope; i++)
        sq_rope_frequencies(&f->m->cfg.rope[i], (int32_t)half, f->inv_freq[i], &f->rope_factor[i]);
    if (f->m->rope_factors)
        for (size_t i = 0; i < half; i++) f->inv_freq[0][i] /= (double)f->m->rope_factors[i];
    return SQUISH_OK;
}

squish_status sq_forward_new(sq_forward **out, const sq_model *m, sq_backend *b, const sq_kv_pool *kv,
                             int32_t m_max, int32_t n_seg_max, int32_t out_max, const squish_alloc *a,
                             squish_error *err) {
    *out = NULL;
    sq_forward *f = sq_alloc_zero(a, sizeof *f);
    if (!f) return sq_fail(err, SQUISH_NO_MEMORY, "forward pass: out of memory");
    *f = (sq_forward){.alloc = *a,
                      .m = m,
                      .b = b,
                      .kv = *sq_kv_pool_policy(kv),
                      .m_max = m_max,
                      .n_seg_max = n_seg_max,
                      .out_max = out_max};
    squish_status st = SQUISH_OK;
    sq_kv_pool_shape(kv, &f->kv_shape);
    f->device_bytes = plan_device(f, NULL);
    f->device = sq_backend_alloc(b, f->device_bytes);
    if (!f->device) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "forward pass: cannot reserve %zu bytes", f->device_bytes);
        goto fail;
    }
    plan_device(f, f->device);
    SQ_GUARD(plan_host(f, err));
    *out = f;
    return SQUISH_OK;
fail:
    sq_forward_free(f);
    return st;
}

void sq_forward_free(sq_forward *f) {
    if (!f) return;
    squish_alloc a = f->alloc;
    sq_backend_release(f->b, f->device, f->device_bytes);
    sq_alloc_free(&a, f->host, f->host_bytes);
    sq_alloc_free(&a, f, sizeof *f);
}

/* ---- a step ---------------------------------------------------------------------------------- */

void sq_forward_set_tap(sq_forward *f, sq_tap_fn fn, void *user) {
    f->tap = fn;
    f->tap_user = user;
}

/* Rows keep their f32 form when they are quantised too. */
void sq_forward_show(sq_forward *f, int32_t i_layer, sq_tap tap, const sq_rows *r) {
    if (f->tap) f->tap(f->tap_user, i_layer, tap, sq_be_host(f->b, r), sq_rows_ld(r), r->m);
}

static sq_attn_page page_of(const sq_kv_geometry *g) {
    return (sq_attn_page){g->k_off, g->v_off, g->head_stride};
}

sq_attn_shape sq_forward_attn_shape(const sq_forward *f, int32_t i_layer) {
    const sq_config *c = &f->m->cfg;
    const sq_layer *l = f->layer ? f->layer : &f->m->layers[i_layer];
    const sq_kv_geometry open = sq_kv_geometry_of(&f->kv_shape, f->kv.open);
    sq_attn_shape s = {.n_heads = c->n_heads,
                       .n_kv_heads = c->n_kv_heads,
                       .head_dim = c->head_dim,
                       .scale = c->softmax_scale,
                       .window = l->windowed ? c->window : 0,
                       .q_norm = l->vec[SQ_ROLE_Q_NORM],
                       .k_norm = l->vec[SQ_ROLE_K_NORM],
                       .norm_eps = c->norm_eps,
                       .pairs = c->rope_pairs,
                       .cos = f->cos[l->rope],
                       .sin = f->sin[l->rope],
                       .open = page_of(&open),
                       .kv_f32 = f->kv.open == SQ_KV_F32,
                       .rotate_v = f->kv.rotate_v,
                       .kept_open = f->kv.window,
                       .seals = f->kv.seals};
    if (!f->kv.seals) return s;
    const sq_kv_geometry sealed = sq_kv_geometry_sealed(&f->kv_shape, &f->kv, i_layer);
    s.k_fmt = sq_kv_policy_k(&f->kv, i_layer);
    s.v_fmt = sq_kv_policy_v(&f->kv, i_layer);
    s.sealed = page_of(&sealed);
    return s;
}

/* What queries weigh by channel: the last ones of a step stand for it. */
static void weigh(sq_forward *f, int32_t i_layer, const sq_attn_shape *shape, const sq_step_seg *segs,
                  int32_t n_segs) {
    for (int32_t i = 0; f->kv.mix && i < n_segs; i++) {
        const int32_t rows = segs[i].n_rows < OBSERVE_ROWS ? segs[i].n_rows : OBSERVE_ROWS;
        sq_be_attn_weigh(shape, &f->segs[i], segs[i].n_rows - rows, rows, &f->q,
                         sq_kv_seq_weight(segs[i].kv, i_layer));
    }
}

/* What the last tokens of a prompt look at, for whoever decides by that. The first layers look at everything.
 */
static void observe(sq_forward *f, int32_t i_layer, const sq_attn_shape *shape, const sq_step_seg *segs,
                    int32_t n_segs) {
    const int32_t layers = f->m->cfg.n_layers, first = layers > OBSERVE_FROM ? OBSERVE_FROM : 0;
    for (int32_t i = 0; i < n_segs; i++) {
        float *mass = segs[i].observe ? sq_kv_seq_mass(segs[i].kv) : NULL;
        const int32_t rows = segs[i].observe;
        if (!mass || i_layer < first) continue;
        const int32_t tiles = (f->segs[i].pos0 + segs[i].n_rows - 1) / SQ_KV_TILE + 1;
        if (i_layer == first) memset(mass, 0, (size_t)tiles * sizeof *mass);
        sq_be_attn_mass(f->b, shape, &f->segs[i], segs[i].n_rows - rows, rows, &f->q, f->seen, mass);
    }
}

/* Likewise at each token and in every layer, for who chooses tokens. */
static void look(sq_forward *f, int32_t i_layer, const sq_attn_shape *shape, const sq_step_seg *segs,
                 int32_t n_segs) {
    for (int32_t i = 0; f->kv.snap.tiles && i < n_segs; i++) {
        const sq_step_seg *g = &segs[i];
        const int32_t first = g->n_rows - g->observe;
        if (g->observe == 0) continue;
        if (i_layer == 0) sq_kv_seq_look(g->kv, g->pos0 + first, g->observe, g->observe_from);
        size_t ld;
        int32_t tiles;
        float *looks = sq_kv_seq_looks(g->kv, i_layer, &ld, &tiles);
        for (int32_t at = first, n; looks && at < g->n_rows; at += n) {
            n = g->n_rows - at < OBSERVE_ROWS ? g->n_rows - at : OBSERVE_ROWS;
            sq_be_attn_looks(f->b, shape, &f->segs[i], at, n, &f->q, tiles, f->seen, looks, ld);
        }
    }
}

static sq_attn_seg seg_of(const sq_step_seg *s, int32_t i_layer) {
    return (sq_attn_seg){s->row0,
                         s->n_rows,
                         sq_kv_seq_slot(s->kv, s->pos0),
                         s->prompt,
                         sq_kv_seq_pages(s->kv, i_layer),
                         sq_kv_seq_sealed_pages(s->kv, i_layer),
                         sq_kv_seq_reads(s->kv),
                         s->lead,
                         s->lead_row0};
}

static void attention(sq_forward *f, int32_t i_layer, const sq_step_seg *segs, int32_t n_segs) {
    const sq_config *c = &f->m->cfg;
    const sq_layer *l = f->layer;
    for (int32_t i = 0; i < n_segs; i++) f->segs[i] = seg_of(&segs[i], i_layer);
    if (c->mla.kv_rank) {
        sq_latent_attention(f, i_layer, n_segs);
        return;
    }
    const sq_linear qkv[] = {{&l->mat[SQ_ROLE_Q], l->vec[SQ_ROLE_Q_BIAS], &f->q, false},
                             {&l->mat[SQ_ROLE_K], l->vec[SQ_ROLE_K_BIAS], &f->k, false},
                             {&l->mat[SQ_ROLE_V], l->vec[SQ_ROLE_V_BIAS], &f->v, false}};
    const bool quant = f->look || sq_forward_wants_q8(qkv[0].w) || sq_forward_wants_q8(qkv[1].w) ||
                       sq_forward_wants_q8(qkv[2].w);
    sq_be_rmsnorm(f->b, &f->x, NULL, f->x.m, l->vec[SQ_ROLE_ATTN_NORM], c->norm_eps, quant, &f->h);
    sq_forward_show(f, i_layer, SQ_TAP_ATTN_IN, &f->h);
    if (f->look) sq_look_attention(f->look, i_layer, &f->h);
    sq_be_linear(f->b, &f->h, qkv, 3);
    const sq_attn_shape shape = sq_forward_attn_shape(f, i_layer);
    sq_be_attn_prepare(f->b, &shape, f->segs, n_segs, &f->q, &f->k, &f->v);
    if (f->n_seals > 0) sq_be_attn_seal(f->b, &shape, f->segs, f->seals, f->n_seals);
    weigh(f, i_layer, &shape, segs, n_segs);
    observe(f, i_layer, &shape, segs, n_segs);
    look(f, i_layer, &shape, segs, n_segs);
    const float *sub_norm = l->vec[SQ_ROLE_ATTN_SUB_NORM];
    const bool quant_o = sq_forward_wants_q8(&l->mat[SQ_ROLE_O]);
    sq_be_attend(f->b, &shape, f->segs, n_segs, &f->q, quant_o && !sub_norm, &f->a);
    if (sub_norm) sq_be_rmsnorm(f->b, &f->a, NULL, f->a.m, sub_norm, c->norm_eps, quant_o, &f->a);
    sq_forward_show(f, i_layer, SQ_TAP_ATTN_OUT, &f->a);
}

/* x += [post_norm](W in (+ bias)): the end of both blocks. */
static void close_block(sq_forward *f, const sq_layer *l, sq_role w, sq_role bias, sq_role post_norm,
                        const sq_rows *in) {
    const float *norm = l->vec[post_norm];
    const sq_linear lin = {&l->mat[w], l->vec[bias], norm ? &f->y : &f->x, norm == NULL};
    sq_be_linear(f->b, in, &lin, 1);
    if (!norm) return;
    sq_be_rmsnorm(f->b, &f->y, NULL, f->y.m, norm, f->m->cfg.norm_eps, false, &f->y);
    sq_be_add(f->b, &f->x, &f->y);
}

static void feed_forward(sq_forward *f, int32_t i_layer) {
    const sq_config *c = &f->m->cfg;
    const sq_layer *l = f->layer;
    const sq_weight *gate = &l->mat[SQ_ROLE_GATE], *up = &l->mat[SQ_ROLE_UP];
    sq_be_rmsnorm(f->b, &f->x, NULL, f->x.m, l->vec[SQ_ROLE_FFN_NORM], c->norm_eps,
                  f->look || sq_forward_wants_q8(gate) || sq_forward_wants_q8(up), &f->h);
    sq_forward_show(f, i_layer, SQ_TAP_FFN_IN, &f->h);
    if (f->look) sq_look_block(f->look, i_layer, &f->h, NULL);
    const float *sub_norm = l->vec[SQ_ROLE_FFN_SUB_NORM];
    const bool quant_down = sq_forward_wants_q8(&l->mat[SQ_ROLE_DOWN]);
    sq_be_gated(f->b, &f->h, gate, l->vec[SQ_ROLE_GATE_BIAS], up, l->vec[SQ_ROLE_UP_BIAS],
                (sq_activation)c->activation, quant_down && !sub_norm, &f->f);
    if (sub_norm) sq_be_rmsnorm(f->b, &f->f, NULL, f->f.m, sub_norm, c->norm_eps, quant_down, &f->f);
    sq_forward_show(f, i_layer, SQ_TAP_FFN_MID, &f->f);
}

static void add_seals(sq_forward *f, const sq_step_seg *segs, int32_t i) {
    for (int32_t t; (t = sq_kv_seq_seal_next(segs[i].kv, segs[i].pos0 + segs[i].n_rows - 1)) >= 0;)
        f->seals[f->n_seals++] = (sq_attn_seal){i, t};
}

/* All layers at once: whoever else shares these tiles may attend to them before the part has passed its last
 * layer. Rows of one tile have only whole tiles before them to seal. */
static void seal_ahead(sq_forward *f, const sq_step_seg *segs, int32_t i) {
    add_seals(f, segs, i);
    for (int32_t l = 0; f->n_seals > 0 && l < f->m->cfg.n_layers; l++) {
        const sq_attn_shape shape = sq_forward_attn_shape(f, l);
        f->segs[i] = seg_of(&segs[i], l);
        sq_be_attn_seal(f->b, &shape, f->segs, f->seals, f->n_seals);
    }
    f->n_seals = 0;
}

/* Have the weights of a stage at f->layer; false: they cannot be read. */
static bool take_weights(sq_forward *f, int32_t i_layer, sq_stage stage) {
    f->layer = f->stream ? sq_stream_begin(f->stream, i_layer, stage, &f->error) : &f->m->layers[i_layer];
    return f->layer != NULL;
}

/* What a step that could not read its weights leaves undone in a layer: tiles that others read sealed. */
static void seal_only(sq_forward *f, int32_t i_layer, const sq_step_seg *segs, int32_t n_segs) {
    f->layer = NULL;
    if (f->n_seals == 0) return;
    for (int32_t i = 0; i < n_segs; i++) f->segs[i] = seg_of(&segs[i], i_layer);
    const sq_attn_shape shape = sq_forward_attn_shape(f, i_layer);
    sq_be_attn_seal(f->b, &shape, f->segs, f->seals, f->n_seals);
}

/* Layers [from, to) of the first m rows, in n_segs segments. */
static void run_layers(sq_forward *f, int32_t m, const sq_step_seg *segs, int32_t n_segs, int32_t from,
                       int32_t to) {
    f->x.m = m;
    for (int32_t i = from; m > 0 && i < to; i++) {
        if (f->error.code != SQUISH_OK || !take_weights(f, i, SQ_STAGE_ATTN)) {
            seal_only(f, i, segs, n_segs);
            continue;
        }
        attention(f, i, segs, n_segs);
        close_block(f, f->layer, SQ_ROLE_O, SQ_ROLE_O_BIAS, SQ_ROLE_ATTN_POST_NORM, &f->a);
        if (!take_weights(f, i, SQ_STAGE_FFN)) continue;
        if (f->layer->experts) {
            if (sq_moe_block(f, i) != SQUISH_OK) continue;
        } else {
            feed_forward(f, i);
            close_block(f, f->layer, SQ_ROLE_DOWN, SQ_ROLE_DOWN_BIAS, SQ_ROLE_FFN_POST_NORM, &f->f);
        }
    }
    f->layer = NULL;
}

/* The end of a step: what logits will need is there. */
static squish_status end_run(sq_forward *f, squish_error *err) {
    if (!f->stream) return SQUISH_OK;
    sq_stream_end(f->stream);
    if (f->error.code == SQUISH_OK && sq_stream_ends(f->stream, &f->error) == SQUISH_OK) return SQUISH_OK;
    return sq_fail(err, f->error.code, "%s", f->error.text);
}

void sq_forward_set_stream(sq_forward *f, sq_stream *s) { f->stream = s; }

/* Positions and rotations of the rows of a step. */
static void place_rows(sq_forward *f, int32_t m, const sq_step_seg *segs, int32_t n_segs) {
    const sq_config *c = &f->m->cfg;
    for (int32_t i = 0; i < n_segs; i++)
        for (int32_t j = 0; j < segs[i].n_rows; j++) f->pos[segs[i].row0 + j] = segs[i].pos0 + j;
    for (int32_t i = 0; i < c->n_rope; i++)
        sq_be_rope_table(f->b, f->pos, m, f->inv_freq[i], sq_config_rotated(c) / 2, f->rope_factor[i],
                         f->cos[i], f->sin[i]);
}

squish_status sq_forward_run_part(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *segs,
                                  int32_t n_segs, int32_t from, int32_t to, squish_error *err) {
    const sq_config *c = &f->m->cfg;
    const int32_t last = n_segs - 1, rest = segs[last].row0, fresh = from == 0 ? m : rest;
    const bool parted = from > 0 || to < c->n_layers;
    place_rows(f, m, segs, n_segs);
    f->n_seals = 0;
    f->error = (squish_error){0};
    if (f->kv.seals && parted && from == 0) seal_ahead(f, segs, last);
    for (int32_t i = 0; f->kv.seals && i < n_segs - parted; i++) add_seals(f, segs, i);
    const sq_weight *embed = f->stream ? sq_stream_embed(f->stream) : &f->m->embed;
    if (fresh > 0) sq_be_embed(f->b, embed, ids, fresh, c->embed_scale, &f->x);
    if (from > 0) sq_be_copy_rows(f->b, &f->part, 0, m - rest, &f->x, rest);
    if (f->look) sq_look_begin(f->look, segs, parted ? last : n_segs, parted ? rest : m);
    run_layers(f, rest, segs, last, 0, from);
    run_layers(f, m, segs, n_segs, from, to);
    if (to == c->n_layers) return end_run(f, err);
    sq_be_copy_rows(f->b, &f->x, rest, m - rest, &f->part, 0);
    run_layers(f, rest, segs, last, to, c->n_layers);
    return end_run(f, err);
}

squish_status sq_forward_run(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *segs,
                             int32_t n_segs, squish_error *err) {
    return sq_forward_run_part(f, ids, m, segs, n_segs, 0, f->m->cfg.n_layers, err);
}

void sq_forward_run_first(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *seg,
                          int32_t layers) {
    assert(!f->stream && seg->row0 == 0 && seg->n_rows == m);
    place_rows(f, m, seg, 1);
    f->n_seals = 0;
    f->error = (squish_error){0};
    if (f->kv.seals) seal_ahead(f, seg, 0);
    sq_be_embed(f->b, &f->m->embed, ids, m, f->m->cfg.embed_scale, &f->x);
    run_layers(f, m, seg, 1, 0, layers);
}

static const float *final_norm(const sq_forward *f) {
    return f->stream ? sq_stream_final_norm(f->stream) : f->m->final_norm;
}

const float *sq_forward_logits(sq_forward *f, const int32_t *rows, int32_t n) {
    const sq_weight *head = f->stream ? sq_stream_head(f->stream) : &f->m->head;
    sq_be_rmsnorm(f->b, &f->x, rows, n, final_norm(f), f->m->cfg.norm_eps, sq_forward_wants_q8(head),
                  &f->out);
    const sq_linear lin = {head, NULL, &f->logits, false};
    sq_be_linear(f->b, &f->out, &lin, 1);
    return sq_be_host(f->b, &f->logits);
}

const float *sq_forward_logits_first(sq_forward *f, int32_t row, int32_t n_ids) {
    const sq_weight *all = &f->m->head;
    const sq_weight head =
        n_ids < all->rows ? sq_weight_slice(all, 0, sq_div_up(n_ids, SQ_TILE_ROWS)) : *all;
    assert(!f->stream);
    sq_be_rmsnorm(f->b, &f->x, &row, 1, final_norm(f), f->m->cfg.norm_eps, sq_forward_wants_q8(&head),
                  &f->out);
    const sq_linear lin = {&head, NULL, &f->logits, false};
    sq_be_linear(f->b, &f->out, &lin, 1);
    return sq_be_host(f->b, &f->logits);
}

const float *sq_forward_hidden(sq_forward *f, const int32_t *rows, int32_t n) {
    sq_be_rmsnorm(f->b, &f->x, rows, n, final_norm(f), f->m->cfg.norm_eps, false, &f->out);
    return sq_be_host(f->b, &f->out);
}

const float *sq_forward_behind_logits(sq_forward *f) { return sq_be_host(f->b, &f->out); }

size_t sq_forward_hidden_ld(const sq_forward *f) { return sq_rows_ld(&f->out); }

size_t sq_forward_logits_ld(const sq_forward *f) { return sq_rows_ld(&f->logits); }
