/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_policy.c - which tiles are kept in which format, and what that takes. */
#include "kv/kv.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

static const struct {
    const char *name;
    sq_kv_policy policy;
} modes[] = {
    [SQUISH_KV_F16] = {"f16", {.open = SQ_KV_F16}},
    [SQUISH_KV_F32] = {"f32", {.open = SQ_KV_F32}},
    [SQUISH_KV_Q8] = {"q8", {.seals = true, .k = SQ_KV_Q8, .v = SQ_KV_Q8}},
    [SQUISH_KV_K8V4] = {"k8v4", {.seals = true, .k = SQ_KV_Q8, .v = SQ_KV_Q4, .rotate_v = true}},
    [SQUISH_KV_Q4] = {"q4", {.seals = true, .k = SQ_KV_Q4, .v = SQ_KV_Q4, .rotate_v = true}},
    [SQUISH_KV_K4V2] = {"k4v2", {.seals = true, .k = SQ_KV_Q4, .v = SQ_KV_Q2, .rotate_v = true}},
    [SQUISH_KV_Q2] = {"q2", {.seals = true, .k = SQ_KV_Q2, .v = SQ_KV_Q2, .rotate_v = true}},
};

const char *sq_kv_name(squish_kv kv) { return (size_t)kv < SQ_COUNT(modes) ? modes[kv].name : NULL; }

bool sq_kv_from_name(const char *name, squish_kv *out) {
    for (size_t i = 0; i < SQ_COUNT(modes); i++)
        if (strcmp(name, modes[i].name) == 0) {
            *out = (squish_kv)i;
            return true;
        }
    return false;
}

sq_kv_policy sq_kv_policy_of(squish_kv kv) { return modes[kv].policy; }

sq_kv_format sq_kv_policy_k(const sq_kv_policy *p, int32_t layer) {
    return p->k_floor[layer / 64] >> (layer % 64) & 1 ? SQ_KV_Q8 : p->k;
}

uint64_t sq_kv_policy_hash(const sq_kv_policy *p) {
    const uint8_t forms[] = {(uint8_t)p->open, p->seals, (uint8_t)p->k, (uint8_t)p->v, p->rotate_v};
    const bool simple = !p->seals;
    return XXH3_64bits_withSeed(p->k_floor, simple ? 0 : sizeof p->k_floor,
                                XXH3_64bits(forms, simple ? 1 : sizeof forms));
}

static int32_t padded(const sq_kv_shape *s) { return (int32_t)sq_align_up((size_t)s->head_dim, 16); }

static sq_kv_geometry geometry(const sq_kv_shape *s, size_t k_bytes, size_t v_bytes) {
    sq_kv_geometry g = {.k_off = sizeof(sq_kv_page_header)};
    g.v_off = g.k_off + sq_align_up(k_bytes, 64);
    g.head_stride = sq_align_up(k_bytes, 64) + sq_align_up(v_bytes, 64);
    g.page_bytes = g.k_off + (size_t)s->n_kv_heads * g.head_stride;
    return g;
}

sq_kv_geometry sq_kv_geometry_of(const sq_kv_shape *s, sq_kv_format f) {
    return geometry(s, sq_kv_k_bytes(f, padded(s)), sq_kv_v_bytes(f, padded(s)));
}

sq_kv_geometry sq_kv_geometry_sealed(const sq_kv_shape *s, const sq_kv_policy *p, int32_t layer) {
    return geometry(s, sq_kv_k_bytes(sq_kv_policy_k(p, layer), padded(s)), sq_kv_v_bytes(p->v, padded(s)));
}

size_t sq_kv_open_bytes(const sq_kv_shape *s, const sq_kv_policy *p) {
    return (size_t)s->n_layers * sq_kv_geometry_of(s, p->open).page_bytes;
}

size_t sq_kv_sealed_bytes(const sq_kv_shape *s, const sq_kv_policy *p) {
    size_t sum = 0;
    for (int32_t l = 0; p->seals && l < s->n_layers; l++) sum += sq_kv_geometry_sealed(s, p, l).page_bytes;
    return sum;
}

/* Open besides the first tile: those that the step before the last may have left (two cells, and one that a
 * tile of the step begins in), and the step itself. */
uint64_t sq_kv_bytes(const sq_kv_shape *s, const sq_kv_policy *p, int32_t n) {
    const int32_t tiles = sq_div_up(n, SQ_KV_TILE), sealed = n > 0 ? sq_kv_sealed_tiles(n - 1) - 1 : 0;
    int32_t open = tiles;
    if (p->seals) {
        open = 3 + 3 * SQ_KV_CELL / SQ_KV_TILE + sq_div_up(p->step_tokens, SQ_KV_TILE);
        if (open > tiles) open = tiles;
    }
    return (uint64_t)open * sq_kv_open_bytes(s, p) + (uint64_t)sealed * sq_kv_sealed_bytes(s, p);
}
