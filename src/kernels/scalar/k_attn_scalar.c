/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_scalar.c - attention over one chunk of 256 cached tokens (R4, R7), and the folding of chunks.
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

/* Scores s[0..256) of query row i; only those of tiles that are there. */
typedef void scores_fn(const sq_attn_args *a, int32_t i, float *s);

static void scores_of(const sq_attn_args *a, bool f32, int32_t i, float *s) {
    const float *q = a->q + (size_t)i * a->ldq;
    for (int32_t t = a->lo[i]; t < a->hi[i]; t++) {
        const uint16_t *k = a->k[t / SQ_KV_TILE]; /* channel-major: channel c of token t at 32 c + t */
        const size_t slot = (size_t)(t % SQ_KV_TILE);
        float acc = 0.0f;
        for (int32_t c = 0; k && c < a->d; c++)
            acc = fmaf(q[c], element(k, (size_t)c * SQ_KV_TILE + slot, f32), acc);
        s[t] = acc;
    }
}

static void scores_f16(const sq_attn_args *a, int32_t i, float *s) { scores_of(a, false, i, s); }
static void scores_f32(const sq_attn_args *a, int32_t i, float *s) { scores_of(a, true, i, s); }

/* The largest of s over what row i sees of tile j; -inf: nothing. */
static float tile_max(const sq_attn_args *a, int32_t i, int32_t j, const float *s) {
    float m = -INFINITY;
    for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t++)
        if (t >= a->lo[i] && t < a->hi[i]) m = fmaxf(m, s[t]);
    return m;
}

/* o += the tokens of tile j that row i sees; their probabilities into the lanes of sum. */
static void tile_values(const sq_attn_args *a, bool f32, int32_t i, int32_t j, const float *s, float m,
                        float sum[16]) {
    float *o = a->o + (size_t)i * a->ldo;
    for (int32_t t = SQ_KV_TILE * j; t < SQ_KV_TILE * (j + 1); t++) {
        if (t < a->lo[i] || t >= a->hi[i]) continue;
        const float p = sq_exp(s[t] - m);
        const size_t row = (size_t)(t % SQ_KV_TILE) * (size_t)a->d; /* token-major: channel c at t d + c */
        sum[t % 16] += p;
        for (int32_t c = 0; c < a->d; c++) o[c] = fmaf(p, element(a->v[j], row + (size_t)c, f32), o[c]);
    }
}

/* m of row i, and for each tile whether the row reads it: it sees something there and does not drop it. */
static float row_max(const sq_attn_args *a, int32_t i, const float *s, bool reads[SQ_ATTN_TILES]) {
    float top[SQ_ATTN_TILES], m = -INFINITY;
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++) m = fmaxf(m, top[j] = tile_max(a, i, j, s));
    m += 0.0f; /* -0 becomes +0 */
    const float least = a->m_run ? fmaxf(a->m_run[i], m) - a->skip : -INFINITY;
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++) reads[j] = top[j] > -INFINITY && top[j] >= least;
    return m;
}

static void attn_row(const sq_attn_args *a, scores_fn *scores, bool f32, int32_t i) {
    float *o = a->o + (size_t)i * a->ldo;
    float s[SQ_ATTN_CHUNK], sum[16] = {0};
    bool reads[SQ_ATTN_TILES];
    for (int32_t c = 0; c < a->d; c++) o[c] = 0.0f;
    scores(a, i, s);
    const float m = row_max(a, i, s, reads);
    for (int32_t j = 0; j < SQ_ATTN_TILES; j++)
        if (reads[j]) tile_values(a, f32, i, j, s, m, sum);
    for (int32_t c = 0; c < a->d; c++) o[c] += 0.0f;
    a->m[i] = m;
    a->l[i] = lane_tree(sum);
}

void sq_attn_f16__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) attn_row(a, scores_f16, false, i);
}

void sq_attn_f32__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) attn_row(a, scores_f32, true, i);
}

/* ---- keys and values in 8 bits (R7) ---------------------------------------------------------- */

/* A query row with the steps of a chunk in it; returns the scale of the integers. */
static float row_codes(const float *w, int32_t d, int32_t *W) {
    float most = 0.0f;
    bool number = true;
    for (int32_t c = 0; c < d; c++) {
        most = fmaxf(most, fabsf(w[c]));
        number &= !isnan(w[c]);
    }
    const bool usable = number && most >= 0x1p-100f && most < INFINITY;
    const float inv = 127.0f / most;
    for (int32_t c = 0; c < d; c++) W[c] = usable ? (int32_t)rintf(w[c] * inv) : 0;
    return usable ? most / 127.0f : 0.0f;
}

static void scores_sage(const sq_attn_args *a, int32_t i, float *s) {
    const float *q = a->q + (size_t)i * a->ldq;
    const sq_sealed *k = &a->sealed_k;
    float w[SQ_ATTN_D_MAX], zdot[16] = {0};
    int32_t W[SQ_ATTN_D_MAX], sum = 0;
    for (int32_t c = 0; c < a->d; c++) w[c] = q[c] * k->step[c];
    const float scale = row_codes(w, a->d, W);
    for (int32_t c = 0; c < a->d; c++) {
        zdot[c % 16] = fmaf(q[c], k->z[c], zdot[c % 16]);
        sum += W[c];
    }
    const float base = fmaf(-(scale * 127.5f), (float)sum, lane_tree(zdot));
    for (int32_t t = a->lo[i]; t < a->hi[i]; t++) {
        const uint8_t *u = k->codes + (size_t)(t / SQ_KV_TILE) * SQ_KV_TILE * (size_t)a->d +
                           4 * (size_t)(t % SQ_KV_TILE);
        int32_t dot = 0;
        for (int32_t c = 0; c < a->d; c++) dot += W[c] * u[(size_t)(c / 4) * 128 + (size_t)(c % 4)];
        s[t] = fmaf(scale, (float)dot, base);
    }
}

static void sage_row(const sq_attn_args *a, int32_t i) {
    const sq_sealed *v = &a->sealed_v;
    const float k = 1.0f / SQ_SAGE_ONE;
    float s[SQ_ATTN_CHUNK] = {0}, *o = a->o + (size_t)i * a->ldo;
    int32_t dot[SQ_ATTN_D_MAX] = {0}, L = 0;
    bool reads[SQ_ATTN_TILES];
    scores_sage(a, i, s);
    const float m = row_max(a, i, s, reads);
    for (int32_t t = a->lo[i]; t < a->hi[i]; t++) {
        if (!reads[t / SQ_KV_TILE]) continue;
        const int32_t P = (int32_t)rintf(sq_exp(s[t] - m) * (float)SQ_SAGE_ONE);
        const uint8_t *four = v->codes + (size_t)(t / 4 * 4) * (size_t)a->d; /* codes of four tokens */
        L += P;
        for (int32_t c = 0; c < a->d; c++) dot[c] += P * four[(size_t)c * 4 + (size_t)(t % 4)];
    }
    a->m[i] = m;
    a->l[i] = (float)L * k;
    for (int32_t c = 0; c < a->d; c++) {
        const float centred = fmaf((float)L, -127.5f, (float)dot[c]);
        o[c] = fmaf(v->step[c] * k, centred, v->z[c] * a->l[i]) + 0.0f;
    }
}

void sq_attn_sage__scalar(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i++) sage_row(a, i);
}

/* ---- folding chunks, storing tokens ---------------------------------------------------------- */

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
