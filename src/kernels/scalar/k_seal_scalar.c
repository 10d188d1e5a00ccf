/* SPDX-License-Identifier: Apache-2.0
 *
 * k_seal_scalar.c - an open f16 tile becomes a sealed one (R6; the formats are told in quant_kv.h). */
#include "kernels/scalar/k_scalar.h"

#include <math.h>
#include <string.h>

/* Middle and half width of a range, +0 rather than -0: which zero is the smaller one is nobody's business. */
typedef struct {
    float lo, hi;
} range;

static range range_of(const uint16_t *x, int32_t n, size_t stride) {
    range r = {INFINITY, -INFINITY};
    for (int32_t i = 0; i < n; i++) {
        const float v = sq_f16_to_f32(x[(size_t)i * stride]);
        r.lo = fminf(r.lo, v);
        r.hi = fmaxf(r.hi, v);
    }
    return r;
}

static uint16_t middle(range r) { return sq_f32_to_f16((r.lo + r.hi) * 0.5f + 0.0f); }

/* The step that covers the range from z on both sides with codes up to 2 c. */
static float step_of(range r, float z, float c) {
    const float up = r.hi - z, down = z - r.lo;
    return (up > down ? up : down) / c + 0.0f;
}

static uint16_t f16_up(float s) {
    const uint16_t h = sq_f32_to_f16(s);
    return (uint16_t)(h + (sq_f16_to_f32(h) < s));
}

static uint8_t code_of(float x, float z, float inv, float c) {
    const float u = rintf(fmaf(x - z, inv, c)), most = 2.0f * c;
    return (uint8_t)(u < 0.0f ? 0.0f : u > most ? most : u);
}

static void put_code(uint8_t *tile, sq_kv_place p, uint8_t u) {
    tile[p.at] = (uint8_t)(tile[p.at] | u << p.shift);
}

static float centre(sq_kv_format f) { return (float)((1 << sq_kv_bits(f)) - 1) * 0.5f; }

static void seal_k(const uint16_t *k, int32_t d, sq_kv_format f, uint8_t *out) {
    const size_t codes = sq_kv_code_bytes(f, d);
    const float c0 = centre(f);
    memset(out, 0, sq_kv_k_bytes(f, d));
    for (int32_t c = 0; c < d; c++) {
        const uint16_t *x = k + (size_t)c * SQ_KV_TILE;
        const range r = range_of(x, SQ_KV_TILE, 1);
        const uint16_t zh = middle(r);
        const float z = sq_f16_to_f32(zh);
        const uint8_t code = sq_kv_scale_code(step_of(r, z, c0));
        const float inv = 1.0f / sq_kv_scale(code);
        out[codes + (size_t)c] = code;
        memcpy(out + codes + sq_kv_k_z(d) + (size_t)c * 2, &zh, 2);
        for (int32_t t = 0; t < SQ_KV_TILE; t++)
            put_code(out, sq_kv_k_place(f, c, t), code_of(sq_f16_to_f32(x[t]), z, inv, c0));
    }
}

static void seal_v_group(const uint16_t *v, int32_t d, sq_kv_format f, int32_t t, int32_t g, uint8_t *out) {
    const int32_t first = g * SQ_KV_GROUP, n = d - first < SQ_KV_GROUP ? d - first : SQ_KV_GROUP;
    const uint16_t *x = v + (size_t)t * (size_t)d + (size_t)first;
    uint8_t *params = out + sq_kv_code_bytes(f, d) + (size_t)(g * SQ_KV_TILE + t) * 2;
    const float c0 = centre(f);
    const range r = range_of(x, n, 1);
    const uint16_t zh = middle(r);
    const float z = sq_f16_to_f32(zh);
    const uint16_t sh = f16_up(step_of(r, z, c0));
    const float inv = sh ? 1.0f / sq_f16_to_f32(sh) : 0.0f;
    memcpy(params, &sh, 2);
    memcpy(params + sq_kv_v_z(d), &zh, 2);
    for (int32_t c = 0; c < n; c++)
        put_code(out, sq_kv_v_place(f, d, first + c, t), code_of(sq_f16_to_f32(x[c]), z, inv, c0));
}

void sq_kv_seal__scalar(const sq_kv_seal_args *a) {
    seal_k(a->k, a->d, a->k_fmt, a->k_out);
    memset(a->v_out, 0, sq_kv_v_bytes(a->v_fmt, a->d));
    for (int32_t t = 0; t < SQ_KV_TILE; t++)
        for (int32_t g = 0; g < sq_kv_groups(a->d); g++) seal_v_group(a->v, a->d, a->v_fmt, t, g, a->v_out);
}
