/* SPDX-License-Identifier: Apache-2.0
 *
 * k_shrink_scalar.c - a sealed tile in fewer bits, made from its codes (R9). */
#include "kernels/scalar/k_scalar.h"

#include <math.h>
#include <string.h>

static float most_of(sq_kv_format f) { return (float)((1 << sq_kv_bits(f)) - 1); }

static uint16_t f16_up(float s) {
    const uint16_t h = sq_f32_to_f16(s);
    return (uint16_t)(h + (sq_f16_to_f32(h) < s));
}

static uint8_t code(const uint8_t *tile, sq_kv_place p, sq_kv_format f) {
    return (uint8_t)(tile[p.at] >> p.shift & ((1 << sq_kv_bits(f)) - 1));
}

/* u of `from` as one of `to`, r their steps' ratio. */
static uint8_t fewer(uint8_t u, float r, sq_kv_format from, sq_kv_format to) {
    const float x = rintf(fmaf((float)u - most_of(from) * 0.5f, r, most_of(to) * 0.5f));
    return (uint8_t)(x < 0.0f ? 0.0f : x > most_of(to) ? most_of(to) : x);
}

static void put_code(uint8_t *tile, sq_kv_place p, uint8_t u) {
    tile[p.at] = (uint8_t)(tile[p.at] | u << p.shift);
}

static void shrink_k(const uint8_t *k, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const uint8_t *in = k + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memset(out, 0, sq_kv_k_bytes(to, d));
    memcpy(params + sq_kv_k_z(d), in + sq_kv_k_z(d), (size_t)d * 2);
    for (int32_t c = 0; c < d; c++) {
        const float s = sq_kv_scale(in[c]);
        params[c] = sq_kv_scale_code(s * (most_of(from) / most_of(to)));
        const float r = s / sq_kv_scale(params[c]);
        for (int32_t t = 0; t < SQ_KV_TILE; t++)
            put_code(out, sq_kv_k_place(to, c, t),
                     fewer(code(k, sq_kv_k_place(from, c, t), from), r, from, to));
    }
}

static void shrink_v(const uint8_t *v, int32_t d, sq_kv_format from, sq_kv_format to, uint8_t *out) {
    const uint8_t *in = v + sq_kv_code_bytes(from, d);
    uint8_t *params = out + sq_kv_code_bytes(to, d);
    memset(out, 0, sq_kv_v_bytes(to, d));
    memcpy(params + sq_kv_v_z(d), in + sq_kv_v_z(d), sq_kv_v_z(d));
    for (int32_t i = 0; i < sq_kv_groups(d) * SQ_KV_TILE; i++) {
        const int32_t t = i % SQ_KV_TILE, first = i / SQ_KV_TILE * SQ_KV_GROUP;
        uint16_t sh;
        memcpy(&sh, in + (size_t)i * 2, sizeof sh);
        const float s = sq_f16_to_f32(sh);
        const uint16_t wider = f16_up(s * (most_of(from) / most_of(to)));
        const float r = wider ? s / sq_f16_to_f32(wider) : 0.0f;
        memcpy(params + (size_t)i * 2, &wider, sizeof wider);
        for (int32_t c = first; c < d && c < first + SQ_KV_GROUP; c++)
            put_code(out, sq_kv_v_place(to, d, c, t),
                     fewer(code(v, sq_kv_v_place(from, d, c, t), from), r, from, to));
    }
}

void sq_kv_shrink__scalar(const sq_kv_shrink_args *a) {
    if (a->k_from == a->k_to)
        memcpy(a->k_out, a->k, sq_kv_k_bytes(a->k_to, a->d));
    else
        shrink_k(a->k, a->d, a->k_from, a->k_to, a->k_out);
    if (a->v_from == a->v_to)
        memcpy(a->v_out, a->v, sq_kv_v_bytes(a->v_to, a->d));
    else
        shrink_v(a->v, a->d, a->v_from, a->v_to, a->v_out);
}
