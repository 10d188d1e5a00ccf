/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_scalar.c - attention over one chunk of 256 cached tokens (R4), and the folding of chunks.
 *
 * Flash attention's online softmax (Milakov and Gimelshein, 2018, arXiv:1805.02867; Dao et al., 2022,
 * arXiv:2205.14135) with one difference: the maximum is taken per chunk of fixed position, never per block
 * of work, so the result depends neither on how queries are grouped nor on how chunks are spread over
 * threads. */
#include "kernels/scalar/k_scalar.h"

#include "kernels/scalar/k_math_scalar.h"

/* Element i of a tile whose elements are f16 or f32. */
static float element(const uint16_t *tile, size_t i, bool f32) {
    return f32 ? ((const float *)(const void *)tile)[i] : sq_f16_to_f32(tile[i]);
}

/* Scores s[lo..hi) of one query row q [d]. */
static void attn_scores(const sq_attn_args *a, bool f32, const float *q, int32_t lo, int32_t hi, float *s) {
    for (int32_t t = lo; t < hi; t++) {
        const uint16_t *k = a->k[t / SQ_KV_TILE]; /* channel-major: channel c of token t at 32 c + t */
        const size_t slot = (size_t)(t % SQ_KV_TILE);
        float acc = 0.0f;
        for (int32_t c = 0; c < a->d; c++)
            acc = fmaf(q[c], element(k, (size_t)c * SQ_KV_TILE + slot, f32), acc);
        s[t] = acc;
    }
}

static void attn_row(const sq_attn_args *a, bool f32, int32_t i) {
    const int32_t lo = a->lo[i], hi = a->hi[i];
    float *o = a->o + (size_t)i * a->ldo;
    float s[SQ_ATTN_CHUNK], sum[16] = {0}, m = -INFINITY;
    for (int32_t c = 0; c < a->d; c++) o[c] = 0.0f;
    attn_scores(a, f32, a->q + (size_t)i * a->ldq, lo, hi, s);
    for (int32_t t = lo; t < hi; t++) m = fmaxf(m, s[t]);
    m += 0.0f; /* -0 becomes +0 */
    for (int32_t t = lo; t < hi; t++) {
        const float p = sq_exp(s[t] - m);
        const uint16_t *v = a->v[t / SQ_KV_TILE]; /* token-major: channel c of token t at t d + c */
        const size_t row = (size_t)(t % SQ_KV_TILE) * (size_t)a->d;
        sum[t % 16] += p;
        for (int32_t c = 0; c < a->d; c++) o[c] = fmaf(p, element(v, row + (size_t)c, f32), o[c]);
    }
    for (int32_t c = 0; c < a->d; c++) o[c] += 0.0f;
    a->m[i] = m;
    a->l[i] = lane_tree(sum);
}

void sq_attn_f16__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) attn_row(a, false, i);
}

void sq_attn_f32__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) attn_row(a, true, i);
}

void sq_attn_merge__scalar(float *m, float *l, float *o, float mc, float lc, const float *oc, int32_t d) {
    if (mc == -INFINITY) return;
    const float m_new = *m > mc ? *m : mc;
    const float a = sq_exp(*m - m_new), b = sq_exp(mc - m_new);
    *l = fmaf(lc, b, *l * a);
    for (int32_t c = 0; c < d; c++) o[c] = fmaf(oc[c], b, o[c] * a);
    *m = m_new;
}

/* f16 with saturation: a cache must never hold an infinity: 0 * inf would poison rows that do not see it. */
static uint16_t f16_saturate(float x) {
    if (x > 65504.0f) x = 65504.0f;
    if (x < -65504.0f) x = -65504.0f;
    return sq_f32_to_f16(x);
}

void sq_kv_put_f16__scalar(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                           uint16_t *v) {
    for (int32_t c = 0; c < d; c++) {
        k[(size_t)c * SQ_KV_TILE + (size_t)t] = f16_saturate(krow[c]);
        v[(size_t)t * (size_t)d + (size_t)c] = f16_saturate(vrow[c]);
    }
}

void sq_kv_put_f32__scalar(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                           uint16_t *v) {
    float *kf = (float *)(void *)k, *vf = (float *)(void *)v;
    for (int32_t c = 0; c < d; c++) {
        kf[(size_t)c * SQ_KV_TILE + (size_t)t] = krow[c];
        vf[(size_t)t * (size_t)d + (size_t)c] = vrow[c];
    }
}
