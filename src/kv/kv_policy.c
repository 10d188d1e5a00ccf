/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_policy.c - which tiles are kept in which format, and what that takes. */
#include "kv/kv_int.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FULL = SQ_KV_CELL / SQ_KV_TILE };

/* The sink of a tile, and a residual of a cell. */
#define USUAL .window = {1, FULL}

static const struct {
    const char *name;
    sq_kv_policy policy;
} modes[] = {
    [SQUISH_KV_F16] = {"f16", {.open = SQ_KV_F16, USUAL}},
    [SQUISH_KV_F32] = {"f32", {.open = SQ_KV_F32, USUAL}},
    [SQUISH_KV_Q8] = {"q8", {.seals = true, .k = SQ_KV_Q8, .v = SQ_KV_Q8, USUAL}},
    [SQUISH_KV_K8V4] = {"k8v4", {.seals = true, .k = SQ_KV_Q8, .v = SQ_KV_Q4, .rotate_v = true, USUAL}},
    [SQUISH_KV_Q4] = {"q4", {.seals = true, .k = SQ_KV_Q4, .v = SQ_KV_Q4, .rotate_v = true, USUAL}},
    [SQUISH_KV_K4V2] = {"k4v2", {.seals = true, .k = SQ_KV_Q4, .v = SQ_KV_Q2, .rotate_v = true, USUAL}},
    [SQUISH_KV_Q2] = {"q2", {.seals = true, .k = SQ_KV_Q2, .v = SQ_KV_Q2, .rotate_v = true, USUAL}},
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

uint64_t sq_kv_policy_hash(const sq_kv_policy *p) {
    const uint8_t forms[] = {(uint8_t)p->open,
                             p->seals,
                             (uint8_t)p->k,
                             (uint8_t)p->v,
                             p->rotate_v,
                             (uint8_t)p->window.sink,
                             (uint8_t)(p->window.sink >> 8),
                             (uint8_t)p->window.residual,
                             (uint8_t)(p->window.residual >> 8)};
    const uint8_t open[] = {(uint8_t)p->open, p->rotate_v}; /* all there is to pages that are never sealed */
    if (!p->seals) return XXH3_64bits(open, sizeof open);
    const uint64_t h = XXH3_64bits_withSeed(p->k_floor, sizeof p->k_floor, XXH3_64bits(forms, sizeof forms));
    return XXH3_64bits_withSeed(p->floor, sizeof p->floor, h);
}

/* ---- votes ----------------------------------------------------------------------------------- */

const char *sq_rung_name(sq_rung r) {
    static const char *const names[SQ_RUNGS] = {"none", "q2", "q4", "q8", "f16"};
    return names[r];
}

static sq_rung rung_of(sq_kv_format f) {
    return f == SQ_KV_Q8 ? SQ_RUNG_Q8 : f == SQ_KV_Q4 ? SQ_RUNG_Q4 : f == SQ_KV_Q2 ? SQ_RUNG_Q2 : SQ_RUNG_F16;
}

static sq_kv_format format_of(sq_rung r) {
    return r == SQ_RUNG_Q8 ? SQ_KV_Q8 : r == SQ_RUNG_Q4 ? SQ_KV_Q4 : SQ_KV_Q2;
}

sq_rung sq_kv_canonical_rung(const sq_kv_policy *p) { return p->seals ? rung_of(p->k) : SQ_RUNG_F16; }

sq_rung sq_kv_merge(const sq_kv_policy *p, const sq_kv_votes *v, sq_rung now) {
    if (v->pinned) return now;
    sq_rung r = p->pm.on ? sq_kv_ladder(p, v->age) : p->base;
    if (v->judged && p->pm.on) {
        const int32_t moved = (int32_t)r + v->relevance;
        r = (sq_rung)(moved < SQ_RUNG_Q2 ? SQ_RUNG_Q2 : moved > SQ_RUNG_F16 ? SQ_RUNG_F16 : moved);
    } else if (v->judged) {
        r = v->relevance > 0 ? SQ_RUNG_F16 : v->relevance < 0 ? SQ_RUNG_Q2 : SQ_RUNG_Q4;
    }
    return r < now ? r : now;
}

sq_kv_form sq_kv_form_of(const sq_kv_policy *p, sq_rung r, int32_t layer) {
    if ((sq_rung)p->floor[layer] > r) r = (sq_rung)p->floor[layer];
    const bool flagged = p->k_floor[layer / 64] >> (layer % 64) & 1;
    const sq_rung most = p->v_most ? rung_of(p->v_most) : SQ_RUNG_Q8, v = most < r ? most : r;
    if (flagged) return (sq_kv_form){SQ_KV_Q8, format_of(v)};
    if (p->mix && r < SQ_RUNG_Q8)
        return (sq_kv_form){(sq_kv_format)(r == SQ_RUNG_Q4 ? SQ_KV_MIX : SQ_KV_LEAN), format_of(v)};
    return (sq_kv_form){format_of(r), format_of(v)};
}

sq_kv_format sq_kv_policy_k(const sq_kv_policy *p, int32_t layer) {
    return sq_kv_form_of(p, rung_of(p->k), layer).k;
}

sq_kv_format sq_kv_policy_v(const sq_kv_policy *p, int32_t layer) {
    return p->floor[layer] > rung_of(p->v) ? format_of((sq_rung)p->floor[layer]) : p->v;
}

static void add_floor_options(sq_kv_policy *p, const char *at) {
    int32_t layer;
    sq_rung rung;
    while (at && sq_kv_floor_next(&at, &layer, &rung)) {
        if (rung > (sq_rung)p->floor[layer]) p->floor[layer] = (uint8_t)rung;
        if (rung == SQ_RUNG_Q8) p->k_floor[layer / 64] |= (uint64_t)1 << (layer % 64);
    }
}

void sq_kv_policy_add(sq_kv_policy *p, squish_kv kv, const squish_kv_options *o) {
    p->window = (sq_kv_window){o->sink / SQ_KV_TILE, o->residual / SQ_KV_TILE};
    p->votes = o->pm || o->mix || o->cocktail || o->snap || o->budget;
    p->base = p->seals ? rung_of(p->k) : SQ_RUNG_F16;
    p->v_most = p->seals ? p->v : SQ_KV_F16;
    if (o->rotate == SQUISH_KV_ROTATE_OFF) p->rotate_v = false;
    add_floor_options(p, o->floors);
    if (!p->votes) return;
    p->pm.on = o->pm;
    for (int i = 0; i < 3; i++) p->pm.age[i] = o->pm_age[i];
    p->pm.floor = o->pm_floor == 4 ? SQ_RUNG_Q4 : SQ_RUNG_Q2;
    p->pm.budget = o->pm_budget;
    p->budget = o->budget;
    p->mix = o->mix;
    p->cocktail.on = o->cocktail, p->cocktail.embed = o->cocktail_embed;
    p->cocktail.high = o->cocktail_high, p->cocktail.low = o->cocktail_low;
    p->cocktail.chunk = o->cocktail_chunk / SQ_KV_TILE;
    p->snap.tiles = o->snap / SQ_KV_TILE, p->snap.window = o->snap_window / SQ_KV_TILE;
    /* A prompt waits for its end in 8 bits, or open. */
    if (p->seals) p->k = SQ_KV_Q8;
    const bool below_q8 = kv == SQUISH_KV_F16 ? o->pm || o->cocktail || o->budget : p->v != SQ_KV_Q8;
    if (below_q8) p->rotate_v = o->rotate != SQUISH_KV_ROTATE_OFF;
}

/* ---- what it takes --------------------------------------------------------------------------- */

static int32_t padded(const sq_kv_shape *s) { return (int32_t)sq_align_up((size_t)s->head_dim, 16); }

static sq_kv_geometry geometry(const sq_kv_shape *s, size_t k_bytes, size_t v_bytes) {
    sq_kv_geometry g = {.k_off = sizeof(sq_kv_page_header)};
    if (s->latent) v_bytes = 0;
    g.v_off = g.k_off + sq_align_up(k_bytes, 64);
    g.head_stride = sq_align_up(k_bytes, 64) + sq_align_up(v_bytes, 64);
    g.page_bytes = g.k_off + (size_t)s->n_kv_heads * g.head_stride;
    return g;
}

sq_kv_geometry sq_kv_geometry_of(const sq_kv_shape *s, sq_kv_format f) {
    return geometry(s, sq_kv_k_bytes(f, padded(s)), sq_kv_v_bytes(f, padded(s)));
}

sq_kv_geometry sq_kv_geometry_sealed(const sq_kv_shape *s, const sq_kv_policy *p, int32_t layer) {
    return geometry(s, sq_kv_k_bytes(sq_kv_policy_k(p, layer), padded(s)),
                    sq_kv_v_bytes(sq_kv_policy_v(p, layer), padded(s)));
}

sq_kv_geometry sq_kv_geometry_private(const sq_kv_shape *s, const sq_kv_policy *p, sq_rung r, int32_t layer) {
    const sq_kv_form f = sq_kv_form_of(p, r, layer);
    return geometry(s, sq_kv_key_bytes(f.k, padded(s)), sq_kv_v_bytes(f.v, padded(s)));
}

size_t sq_kv_private_bytes(const sq_kv_shape *s, const sq_kv_policy *p, sq_rung r) {
    size_t sum = 0;
    for (int32_t l = 0; p->votes && l < s->n_layers; l++)
        sum += sq_kv_geometry_private(s, p, r, l).page_bytes;
    return sum;
}

size_t sq_kv_open_bytes(const sq_kv_shape *s, const sq_kv_policy *p) {
    return (size_t)s->n_layers * sq_kv_geometry_of(s, p->open).page_bytes;
}

size_t sq_kv_sealed_bytes(const sq_kv_shape *s, const sq_kv_policy *p) {
    size_t sum = 0;
    for (int32_t l = 0; p->seals && l < s->n_layers; l++) sum += sq_kv_geometry_sealed(s, p, l).page_bytes;
    return sum;
}

/* Open besides the sink: those that the step before the last may have left (the residual, a cell, and one
 * that a tile of the step begins in), and the step itself. */
uint64_t sq_kv_bytes(const sq_kv_shape *s, const sq_kv_policy *p, int32_t n) {
    const sq_kv_window w = p->window;
    const int32_t tiles = sq_div_up(n, SQ_KV_TILE);
    const int32_t sealed = n > 0 ? sq_kv_sealed_tiles(w, n - 1) - w.sink : 0;
    int32_t open = tiles;
    if (p->seals) {
        open = 2 + w.sink + w.residual + 2 * FULL + sq_div_up(p->step_tokens, SQ_KV_TILE);
        if (open > tiles) open = tiles;
    }
    /* What a prompt takes up to its end; what stays of it, which is copied before the rest goes; and a tile
     * more, likewise. */
    if (tiles > p->snap.tiles) open += sq_kv_snap_tiles(p);
    return (uint64_t)open * sq_kv_open_bytes(s, p) + (uint64_t)sealed * sq_kv_sealed_bytes(s, p) +
           (n > 0 ? sq_kv_private_bytes(s, p, SQ_RUNG_Q8) : 0);
}
