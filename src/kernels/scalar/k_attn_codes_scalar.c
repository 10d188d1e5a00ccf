/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_codes_scalar.c - attention over sealed tiles without decoding them (R5): the scales of K go into q,
 * those of V into the probabilities, and what is left are exact dot products of integers. */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* R5: n weights as integers of 15 bits and a step; the sum of the integers. */
typedef struct {
    float step;
    int32_t sum;
} planes;

static planes to_planes(const float *w, int32_t n, int32_t *out) {
    float most = 0.0f;
    planes p = {0};
    for (int32_t i = 0; i < n; i++) most = fmaxf(most, fabsf(w[i]));
    if (!(most >= 0x1p-100f && most < INFINITY)) {
        for (int32_t i = 0; i < n; i++) out[i] = 0;
        return p;
    }
    p.step = most / SQ_KV_PLANES;
    const float inv = SQ_KV_PLANES / most;
    for (int32_t i = 0; i < n; i++) {
        const float x = w[i] * inv;
        out[i] = isnan(x) ? 0 : (int32_t)rintf(x);
        p.sum += out[i];
    }
    return p;
}

static float centre(sq_kv_format f) { return (float)((1 << sq_kv_bits(f)) - 1) * 0.5f; }

static int32_t code(const uint8_t *tile, sq_kv_place p, sq_kv_format f) {
    return tile[p.at] >> p.shift & ((1 << sq_kv_bits(f)) - 1);
}

static float f16_at(const uint8_t *p, int32_t i) {
    uint16_t h;
    memcpy(&h, p + (size_t)i * 2, sizeof h);
    return sq_f16_to_f32(h);
}

/* Scores of q [d] against the 32 tokens of a tile. */
static void tile_scores(const float *q, int32_t d, const uint8_t *k, sq_kv_format f, float *s) {
    const uint8_t *scales = k + sq_kv_code_bytes(f, d), *zs = scales + sq_kv_k_z(d);
    float w[SQ_ATTN_D_MAX], lanes[16] = {0};
    int32_t W[SQ_ATTN_D_MAX];
    for (int32_t c = 0; c < d; c++) {
        w[c] = q[c] * sq_kv_scale(scales[c]);
        lanes[c % 16] = fmaf(q[c], f16_at(zs, c), lanes[c % 16]);
    }
    const planes p = to_planes(w, d, W);
    const float base = fmaf(-(p.step * centre(f)), (float)p.sum, lane_tree(lanes));
    for (int32_t t = 0; t < SQ_KV_TILE; t++) {
        int32_t dot = 0;
        for (int32_t c = 0; c < d; c++) dot += W[c] * code(k, sq_kv_k_place(f, c, t), f);
        s[t] = fmaf(p.step, (float)dot, base);
    }
}

/* o[c] of the channels of group g: what the tokens of tiles [tile0, tile1) with probabilities p add up to. */
static void values(const sq_attn_args *a, const float *p, int32_t tile0, int32_t tile1, int32_t g, float *o) {
    const size_t params = sq_kv_code_bytes(a->v_fmt, a->d);
    const int32_t n = (tile1 - tile0) * SQ_KV_TILE;
    const int32_t end = (g + 1) * SQ_KV_GROUP < a->d ? (g + 1) * SQ_KV_GROUP : a->d;
    float w[SQ_ATTN_CHUNK], lanes[16] = {0};
    int32_t P[SQ_ATTN_CHUNK];
    for (int32_t i = 0; i < n; i++) {
        const uint8_t *s = (const uint8_t *)a->v[tile0 + i / SQ_KV_TILE] + params;
        const int32_t t = g * SQ_KV_TILE + i % SQ_KV_TILE;
        w[i] = p[tile0 * SQ_KV_TILE + i] * f16_at(s, t);
        lanes[i % 16] = fmaf(p[tile0 * SQ_KV_TILE + i], f16_at(s + sq_kv_v_z(a->d), t), lanes[i % 16]);
    }
    const planes W = to_planes(w, n, P);
    const float base = fmaf(-(W.step * centre(a->v_fmt)), (float)W.sum, lane_tree(lanes));
    for (int32_t c = g * SQ_KV_GROUP; c < end; c++) {
        int32_t dot = 0;
        for (int32_t i = 0; i < n; i++)
            dot += P[i] * code((const uint8_t *)a->v[tile0 + i / SQ_KV_TILE],
                               sq_kv_v_place(a->v_fmt, a->d, c, i % SQ_KV_TILE), a->v_fmt);
        o[c] = fmaf(W.step, (float)dot, base) + 0.0f;
    }
}

static void attn_row(const sq_attn_args *a, int32_t i) {
    const bool any = a->lo[i] < a->hi[i];
    const int32_t lo = a->lo[i], hi = a->hi[i];
    const int32_t tile0 = any ? lo / SQ_KV_TILE : 0, tile1 = any ? sq_div_up(hi, SQ_KV_TILE) : 0;
    float s[SQ_ATTN_CHUNK], sum[16] = {0}, m = -INFINITY;
    for (int32_t j = tile0; j < tile1; j++)
        tile_scores(a->q + (size_t)i * a->ldq, a->d, (const uint8_t *)a->k[j], a->k_fmt, s + j * SQ_KV_TILE);
    for (int32_t t = lo; t < hi; t++) m = fmaxf(m, s[t]);
    m += 0.0f; /* -0 becomes +0 */
    for (int32_t t = tile0 * SQ_KV_TILE; t < tile1 * SQ_KV_TILE; t++) {
        s[t] = t >= lo && t < hi ? sq_exp(s[t] - m) : 0.0f;
        sum[t % 16] += s[t];
    }
    for (int32_t g = 0; g < sq_kv_groups(a->d); g++) values(a, s, tile0, tile1, g, a->o + (size_t)i * a->ldo);
    a->m[i] = m;
    a->l[i] = lane_tree(sum);
}

void sq_attn_codes__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) attn_row(a, i);
}
