/* SPDX-License-Identifier: Apache-2.0
 *
 * be_gather.c - tokens that stay, from the tiles they stand in into tiles of their own.
 *
 * Keys come as they were stored, rotated at their true positions, and values in the basis they have: nothing
 * is computed again. From sealed tiles they come as their codes say; values then get the same codes again
 * when they are sealed, since their scale is a token's own. */
#include "backend/be_int.h"

#include <string.h>

typedef struct {
    const sq_attn_shape *s;
    uint8_t *const *pages, *const *sealed;
    const uint8_t *reads;
    const int32_t *slots;
    int32_t n;
    uint8_t *const *to;
} gather_ctx;

static uint16_t half(float x) {
    return sq_f32_to_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

static float half_at(const uint8_t *p, size_t i) {
    uint16_t h;
    memcpy(&h, p + i * sizeof h, sizeof h);
    return sq_f16_to_f32(h);
}

/* Values of token t of a sealed tile, [d]. */
static void open_values(const uint8_t *v, sq_kv_format f, int32_t d, int32_t t, uint16_t *out) {
    const uint8_t *s = v + sq_kv_code_bytes(f, d), *z = s + sq_kv_v_z(d);
    const int32_t mask = (1 << sq_kv_bits(f)) - 1;
    for (int32_t c = 0; c < d; c++) {
        const size_t at = (size_t)(c / SQ_KV_GROUP * SQ_KV_TILE + t);
        const sq_kv_place p = sq_kv_v_place(f, d, c, t);
        const float code = (float)(v[p.at] >> p.shift & mask) - (float)mask * 0.5f;
        out[c] = half(half_at(z, at) + half_at(s, at) * code);
    }
}

/* A tile as it is read: its keys as an open tile (made: room for one), its values as they are. */
typedef struct {
    const uint16_t *k;
    const uint8_t *v;
    sq_kv_format v_fmt; /* F16: open */
} source;

static source source_of(const gather_ctx *c, size_t head, int32_t tile, uint16_t *made) {
    const int32_t d = sq_be_padded(c->s);
    if (c->reads[tile] == SQ_KV_READ_OPEN) {
        const uint8_t *p = c->pages[tile] + head * c->s->open.head_stride;
        return (source){(const uint16_t *)(const void *)(p + c->s->open.k_off), p + c->s->open.v_off,
                        SQ_KV_F16};
    }
    sq_kv_page_header h;
    memcpy(&h, c->sealed[tile], sizeof h);
    const sq_attn_page page = sq_be_sealed_page((sq_kv_format)h.k_fmt, (sq_kv_format)h.v_fmt, d);
    const uint8_t *p = c->sealed[tile] + head * page.head_stride;
    sq_be_mix_open(p + page.k_off, h.k_fmt, d, made);
    return (source){made, p + page.v_off, (sq_kv_format)h.v_fmt};
}

/* One tile of one head. */
static void gather_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    const gather_ctx *c = ctx;
    _Alignas(64) uint16_t made[SQ_ATTN_D_MAX * SQ_KV_TILE];
    const int32_t d = sq_be_padded(c->s), head = item % c->s->n_kv_heads, tile = item / c->s->n_kv_heads;
    const int32_t *slots = c->slots + (size_t)head * (size_t)c->n + (size_t)tile * SQ_KV_TILE;
    uint8_t *out = c->to[tile] + (size_t)head * c->s->open.head_stride;
    uint16_t *k = (uint16_t *)(void *)(out + c->s->open.k_off),
             *v = (uint16_t *)(void *)(out + c->s->open.v_off);
    source from = {NULL, NULL, SQ_KV_F16};
    for (int32_t i = 0; i < SQ_KV_TILE; i++) {
        const int32_t t = slots[i] % SQ_KV_TILE;
        if (i == 0 || slots[i] / SQ_KV_TILE != slots[i - 1] / SQ_KV_TILE)
            from = source_of(c, (size_t)head, slots[i] / SQ_KV_TILE, made);
        for (int32_t j = 0; j < d; j++) k[j * SQ_KV_TILE + i] = from.k[j * SQ_KV_TILE + t];
        if (from.v_fmt == SQ_KV_F16)
            memcpy(v + (size_t)i * (size_t)d, from.v + (size_t)t * (size_t)d * sizeof *v,
                   (size_t)d * sizeof *v);
        else
            open_values(from.v, from.v_fmt, d, t, v + (size_t)i * (size_t)d);
    }
}

void sq_be_attn_gather(sq_backend *b, const sq_attn_shape *s, uint8_t *const *pages, uint8_t *const *sealed,
                       const uint8_t *reads, const int32_t *slots, int32_t n, uint8_t *const *to) {
    gather_ctx c = {s, pages, sealed, reads, slots, n, to};
    sq_be_run(b, gather_item, &c, n / SQ_KV_TILE * s->n_kv_heads,
              (int64_t)n * s->n_kv_heads * s->head_dim * 2);
}
