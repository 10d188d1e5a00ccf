/* SPDX-License-Identifier: Apache-2.0
 *
 * be_move.c - tiles in fewer bits: from open ones they are sealed, from sealed ones their codes are shrunk.
 */
#include "backend/be_int.h"

#include <string.h>

typedef struct {
    const sq_backend *b;
    const sq_attn_shape *s;
    const sq_attn_move *moves;
} move_ctx;

/* Keys into classes of channels, from whatever they are; values as ever. */
static void move_mix(const move_ctx *c, const sq_attn_move *m, sq_kv_format kf, sq_kv_format kt,
                     sq_kv_format vf, sq_kv_format vt, const uint8_t *k, const uint8_t *v, uint8_t *k_out,
                     uint8_t *v_out, const float *weight) {
    _Alignas(64) uint16_t open[SQ_MIX_D_MAX * SQ_KV_TILE];
    _Alignas(64) uint8_t unused[SQ_MIX_D_MAX * SQ_KV_TILE * 2];
    const sq_kernels *kn = &c->b->k;
    const int32_t d = sq_be_padded(c->s);
    if (m->from_open)
        memcpy(open, k, (size_t)d * SQ_KV_TILE * sizeof *open);
    else
        sq_be_mix_open(k, kf, d, open);
    sq_be_mix_seal(kn, c->s, open, kt, weight, k_out);
    if (m->from_open) {
        const sq_kv_seal_args a = {d, SQ_KV_Q2, vt, open, (const uint16_t *)(const void *)v, unused, v_out};
        kn->kv_seal(&a);
    } else {
        const sq_kv_format q2 = SQ_KV_Q2; /* keys of anything, into nowhere */
        const sq_kv_shrink_args a = {d, q2, q2, vf, vt, unused, v, unused + sizeof unused / 2, v_out};
        kn->kv_shrink(&a);
    }
}

static void move_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const move_ctx *c = ctx;
    const sq_attn_move *m = &c->moves[item / c->s->n_kv_heads];
    const size_t head = (size_t)(item % c->s->n_kv_heads);
    const int32_t d = sq_be_padded(c->s);
    sq_kv_page_header from, to;
    memcpy(&from, m->from, sizeof from);
    memcpy(&to, m->to, sizeof to);
    const sq_kv_format kf = (sq_kv_format)from.k_fmt, vf = (sq_kv_format)from.v_fmt;
    const sq_kv_format kt = (sq_kv_format)to.k_fmt, vt = (sq_kv_format)to.v_fmt;
    const sq_attn_page in = m->from_open ? c->s->open : sq_be_sealed_page(kf, vf, d);
    const sq_attn_page out = sq_be_sealed_page(kt, vt, d);
    const uint8_t *src = m->from + head * in.head_stride;
    uint8_t *dst = m->to + head * out.head_stride;
    if (sq_is_mix(kt)) {
        move_mix(c, m, kf, kt, vf, vt, src + in.k_off, src + in.v_off, dst + out.k_off, dst + out.v_off,
                 m->weight + head * (size_t)c->s->head_dim);
    } else if (m->from_open) {
        const sq_kv_seal_args a = {.d = d,
                                   .k_fmt = kt,
                                   .v_fmt = vt,
                                   .k = (const uint16_t *)(const void *)(src + in.k_off),
                                   .v = (const uint16_t *)(const void *)(src + in.v_off),
                                   .k_out = dst + out.k_off,
                                   .v_out = dst + out.v_off};
        c->b->k.kv_seal(&a);
    } else {
        const sq_kv_shrink_args a = {
            d, kf, kt, vf, vt, src + in.k_off, src + in.v_off, dst + out.k_off, dst + out.v_off};
        c->b->k.kv_shrink(&a);
    }
}

void sq_be_attn_move(sq_backend *b, const sq_attn_shape *s, const sq_attn_move *moves, int32_t n) {
    move_ctx c = {b, s, moves};
    sq_be_run(b, move_item, &c, n * s->n_kv_heads, (int64_t)n * s->n_kv_heads * s->head_dim * SQ_KV_TILE);
}
