/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_neon.c - attention over one chunk of 256 cached tokens, folding of chunks, storing of a token (R4).
 *
 * Both halves are the same loop: 32 lanes (tokens for scores, channels for values) by up to three query rows,
 * 24 accumulators, and every f16 line is converted once for the rows that share it. A row sees a range of
 * tokens; tiles are walked over the union of the ranges, a score outside a row's own range is replaced by
 * -inf before the maximum and its probability by +0, which by R4 changes no bit. */
#include "k_math_neon.h"

enum { R_MAX = 3 }; /* query rows at a time: 3 x 8 accumulators */

/* s[r][t] = q[r] . k[.][t] for the 32 tokens of a tile. q: n_r rows, ldq apart; k: [d][32]; s: rows 256
 * apart. */
SQ_INLINE void tile_scores(int n_r, const float *q, size_t ldq, int32_t d, const uint16_t *k, float *s) {
    float32x4_t acc[R_MAX][8];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 8; j++) acc[r][j] = vdupq_n_f32(0.0f);
    for (int32_t c = 0; c < d; c++)
        for (int j = 0; j < 8; j++) {
            const float32x4_t kv = load4_f16(k + (size_t)c * SQ_KV_TILE + 4 * j);
            for (int r = 0; r < n_r; r++)
                acc[r][j] = vfmaq_n_f32(acc[r][j], kv, q[(size_t)r * ldq + (size_t)c]);
        }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 8; j++) vst1q_f32(s + r * SQ_ATTN_CHUNK + 4 * j, acc[r][j]);
}

/* o[r][0 .. 4 n_v) += sum over tokens [t0, t1) of p[r][t] * v[t][.]. v: first channel of the block, rows d
 * apart. */
SQ_INLINE void tile_values(int n_r, int n_v, const float *p, const uint16_t *v, int32_t d, int32_t t0,
                           int32_t t1, float *o, size_t ldo) {
    float32x4_t acc[R_MAX][8];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < n_v; j++) acc[r][j] = vld1q_f32(o + (size_t)r * ldo + 4 * j);
    for (int32_t t = t0; t < t1; t++)
        for (int j = 0; j < n_v; j++) {
            const float32x4_t vv = load4_f16(v + (size_t)t * (size_t)d + 4 * j);
            for (int r = 0; r < n_r; r++) acc[r][j] = vfmaq_n_f32(acc[r][j], vv, p[r * SQ_ATTN_CHUNK + t]);
        }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < n_v; j++) vst1q_f32(o + (size_t)r * ldo + 4 * j, acc[r][j]);
}

/* Lanes of the four tokens from t on that lie in [lo, hi). */
SQ_INLINE uint32x4_t seen4(int32_t t, int32_t lo, int32_t hi) {
    static const int32_t lanes[4] = {0, 1, 2, 3};
    const int32x4_t i = vaddq_s32(vdupq_n_s32(t), vld1q_s32(lanes));
    return vandq_u32(vcgeq_s32(i, vdupq_n_s32(lo)), vcltq_s32(i, vdupq_n_s32(hi)));
}

/* Largest of s[lo..hi), never -0. [t0, t1) covers the range, in steps of 16. */
static float row_max(const float *s, int32_t lo, int32_t hi, int32_t t0, int32_t t1) {
    const float32x4_t none = vdupq_n_f32(-__builtin_inff());
    float32x4_t most = none;
    for (int32_t t = t0; t < t1; t += 4)
        most = vmaxq_f32(most, vbslq_f32(seen4(t, lo, hi), vld1q_f32(s + t), none));
    return vmaxvq_f32(most) + 0.0f;
}

/* s[t] becomes exp(s[t] - m) inside [lo, hi) and +0 in the rest of [t0, t1). Returns the sum; t0 is a
 * multiple of 16. */
static float row_exp(float *s, float m, int32_t lo, int32_t hi, int32_t t0, int32_t t1) {
    float32x4_t sum[4];
    for (int j = 0; j < 4; j++) sum[j] = vdupq_n_f32(0.0f);
    for (int32_t t = t0; t < t1; t += 16)
        for (int j = 0; j < 4; j++) {
            const uint32x4_t seen = seen4(t + 4 * j, lo, hi);
            float32x4_t p = exp4(vsubq_f32(vld1q_f32(s + t + 4 * j), vdupq_n_f32(m)));
            p = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(p), seen));
            vst1q_f32(s + t + 4 * j, p);
            sum[j] = vaddq_f32(sum[j], p);
        }
    return lane_tree(sum);
}

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    float *o = a->o + (size_t)i * a->ldo;
    const int32_t d = a->d;
    int32_t lo = SQ_ATTN_CHUNK, hi = 0; /* the union of what the rows see; empty ranges do not count */
    for (int r = 0; r < n_r; r++) {
        if (a->lo[i + r] >= a->hi[i + r]) continue;
        if (a->lo[i + r] < lo) lo = a->lo[i + r];
        if (a->hi[i + r] > hi) hi = a->hi[i + r];
    }
    for (int32_t t = lo & -SQ_KV_TILE; t < hi; t += SQ_KV_TILE)
        if (a->k[t / SQ_KV_TILE])
            tile_scores(n_r, a->q + (size_t)i * a->ldq, a->ldq, d, a->k[t / SQ_KV_TILE], s + t);
    for (int r = 0; r < n_r; r++) {
        float *row = s + r * SQ_ATTN_CHUNK;
        const int32_t t0 = lo & -16, t1 = (hi + 15) & -16;
        a->m[i + r] = row_max(row, a->lo[i + r], a->hi[i + r], t0, t1);
        a->l[i + r] = row_exp(row, a->m[i + r], a->lo[i + r], a->hi[i + r], t0, t1);
        memset(o + (size_t)r * a->ldo, 0, (size_t)d * sizeof *o);
    }
    for (int32_t t = lo & -SQ_KV_TILE; t < hi; t += SQ_KV_TILE) {
        const uint16_t *v = a->v[t / SQ_KV_TILE];
        const int32_t t0 = lo > t ? lo - t : 0, t1 = hi - t < SQ_KV_TILE ? hi - t : SQ_KV_TILE;
        int32_t c = 0;
        if (!v) continue;
        for (; c + 32 <= d; c += 32) tile_values(n_r, 8, s + t, v + c, d, t0, t1, o + c, a->ldo);
        if (c < d) tile_values(n_r, 4, s + t, v + c, d, t0, t1, o + c, a->ldo);
    }
    for (int r = 0; r < n_r; r++)
        for (int32_t c = 0; c < d; c += 4) {
            float *oc = o + (size_t)r * a->ldo + c;
            vst1q_f32(oc, vaddq_f32(vld1q_f32(oc), vdupq_n_f32(0.0f)));
        }
}

void sq_attn_f16__neon(const sq_attn_args *a) {
    int32_t i = 0;
    while (i < a->n_q) {
        const int32_t left = a->n_q - i;
        if (left == 1) {
            row_block(1, a, i);
            i += 1;
        } else if (left == 2 || left == 4) { /* four rows as 2 + 2, not 3 + 1 */
            row_block(2, a, i);
            i += 2;
        } else {
            row_block(3, a, i);
            i += 3;
        }
    }
}

void sq_attn_merge__neon(float *m, float *l, float *o, float mc, float lc, const float *oc, int32_t d) {
    if (mc == -__builtin_inff()) return;
    const float m_new = *m > mc ? *m : mc;
    const float32x4_t a = exp4(vdupq_n_f32(*m - m_new)), b = exp4(vdupq_n_f32(mc - m_new));
    *l = __builtin_fmaf(lc, vgetq_lane_f32(b, 0), *l * vgetq_lane_f32(a, 0));
    for (int32_t c = 0; c < d; c += 4)
        store_n(o + c, d - c, vfmaq_f32(vmulq_f32(load_n(o + c, d - c), a), load_n(oc + c, d - c), b));
    *m = m_new;
}

/* Four values as f16, clamped to its finite range; a NaN stays one. */
SQ_INLINE void f16_saturate4(float32x4_t x, uint16_t out[4]) {
    x = vmaxq_f32(vminq_f32(x, vdupq_n_f32(65504.0f)), vdupq_n_f32(-65504.0f));
    vst1_u16(out, vreinterpret_u16_f16(vcvt_f16_f32(x)));
}

void sq_kv_put_f16__neon(const float *krow, const float *vrow, int32_t d, int32_t t, uint16_t *k,
                         uint16_t *v) {
    for (int32_t c = 0; c < d; c += 4) {
        const int32_t n = d - c < 4 ? d - c : 4;
        uint16_t kh[4], vh[4];
        f16_saturate4(load_n(krow + c, n), kh);
        f16_saturate4(load_n(vrow + c, n), vh);
        for (int32_t j = 0; j < n; j++) k[(size_t)(c + j) * SQ_KV_TILE + (size_t)t] = kh[j];
        memcpy(v + (size_t)t * (size_t)d + c, vh, (size_t)n * sizeof *vh);
    }
}
