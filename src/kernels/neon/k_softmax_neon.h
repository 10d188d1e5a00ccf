/* SPDX-License-Identifier: Apache-2.0
 *
 * k_softmax_neon.h - what attention does after scores, whatever keys are made of (R4): scores of a row over
 * some tiles to probabilities, and their sums of values. */
#ifndef SQ_K_SOFTMAX_NEON_H
#define SQ_K_SOFTMAX_NEON_H

#include "k_math_neon.h"

#include <float.h>

/* Lanes of the four tokens from t on that lie in [lo, hi). */
SQ_INLINE uint32x4_t seen4(int32_t t, int32_t lo, int32_t hi) {
    static const int32_t lanes[4] = {0, 1, 2, 3};
    const int32x4_t i = vaddq_s32(vdupq_n_s32(t), vld1q_s32(lanes));
    return vandq_u32(vcgeq_s32(i, vdupq_n_s32(lo)), vcltq_s32(i, vdupq_n_s32(hi)));
}

/* exp(s - m) of the four tokens from t on where the row sees, +0 elsewhere. */
SQ_INLINE float32x4_t probabilities(const float *p, int32_t t, int32_t lo, int32_t hi, float m) {
    const float32x4_t e = exp4(vsubq_f32(vld1q_f32(p + t), vdupq_n_f32(m)));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(e), seen4(t, lo, hi)));
}

/* Of row i over tiles [tile0, tile1): m, and a bit for each tile that it reads: it sees something there and
 * does not drop it. */
typedef struct {
    float m;
    uint32_t live;
} row_max;

static inline row_max row_max_of(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1,
                                 const float *p) {
    const int32_t lo = a->lo[i], hi = a->hi[i];
    const float32x4_t none = vdupq_n_f32(-__builtin_inff());
    float top[SQ_ATTN_TILES];
    row_max r = {.m = -__builtin_inff()};
    for (int32_t j = tile0; j < tile1; j++) {
        float32x4_t most = none;
        for (int32_t t = SQ_KV_TILE * j; a->k[j] && t < SQ_KV_TILE * (j + 1); t += 4)
            most = vmaxq_f32(most, vbslq_f32(seen4(t, lo, hi), vld1q_f32(p + t), none));
        top[j] = vmaxvq_f32(most);
        r.m = top[j] > r.m ? top[j] : r.m;
    }
    r.m += 0.0f;
    const float run = a->m_run && a->m_run[i] > r.m ? a->m_run[i] : r.m;
    const float least = a->m_run && run > -FLT_MAX ? run - a->skip : -FLT_MAX;
    for (int32_t j = tile0; j < tile1; j++)
        if (top[j] >= least) r.live |= 1u << j;
    return r;
}

/* Row i of the call: p holds scores at tiles [tile0, tile1) and gets probabilities, +0 where the row does not
 * see; m and l of the row are written. Returns the bits of tiles that it reads. */
static inline uint32_t softmax_row(const sq_attn_args *a, int32_t i, int32_t tile0, int32_t tile1, float *p) {
    const row_max r = row_max_of(a, i, tile0, tile1, p);
    float32x4_t sum[4];
    for (int j = 0; j < 4; j++) sum[j] = vdupq_n_f32(0.0f);
    for (int32_t t = SQ_KV_TILE * tile0; t < SQ_KV_TILE * tile1; t += 4) {
        float32x4_t prob = vdupq_n_f32(0.0f);
        if (r.live >> (t / SQ_KV_TILE) & 1) prob = probabilities(p, t, a->lo[i], a->hi[i], r.m);
        vst1q_f32(p + t, prob);
        sum[t / 4 % 4] = vaddq_f32(sum[t / 4 % 4], prob);
    }
    a->m[i] = r.m;
    a->l[i] = lane_tree(sum);
    return r.live;
}

/* Query rows at a time: 3 x 8 accumulators. */
enum { R_MAX = 3 };

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

/* What a block of rows sees together: tokens [lo, hi), tiles [tile0, tile1). Empty ranges do not count. */
typedef struct {
    int32_t lo, hi, tile0, tile1;
} extent;

SQ_INLINE extent extent_of(const sq_attn_args *a, int32_t i, int n_r) {
    extent e = {.lo = SQ_ATTN_CHUNK, .hi = 0};
    for (int r = 0; r < n_r; r++) {
        if (a->lo[i + r] >= a->hi[i + r]) continue;
        if (a->lo[i + r] < e.lo) e.lo = a->lo[i + r];
        if (a->hi[i + r] > e.hi) e.hi = a->hi[i + r];
    }
    e.tile0 = e.lo / SQ_KV_TILE;
    e.tile1 = sq_div_up(e.hi, SQ_KV_TILE); /* nothing seen: 8 and 0 */
    return e;
}

/* Scores s [n_r][256] of rows from i on to m, l and o. */
SQ_INLINE void rows_finish(int n_r, const sq_attn_args *a, int32_t i, extent e, float *s) {
    float *o = a->o + (size_t)i * a->ldo;
    const int32_t d = a->d;
    uint32_t live = 0;
    for (int r = 0; r < n_r; r++) {
        live |= softmax_row(a, i + r, e.tile0, e.tile1, s + r * SQ_ATTN_CHUNK);
        memset(o + (size_t)r * a->ldo, 0, (size_t)d * sizeof *o);
    }
    for (int32_t j = e.tile0; j < e.tile1; j++) {
        const int32_t t = SQ_KV_TILE * j;
        const int32_t t0 = e.lo > t ? e.lo - t : 0, t1 = e.hi - t < SQ_KV_TILE ? e.hi - t : SQ_KV_TILE;
        int32_t c = 0;
        if (!(live >> j & 1)) continue;
        for (; c + 32 <= d; c += 32) tile_values(n_r, 8, s + t, a->v[j] + c, d, t0, t1, o + c, a->ldo);
        if (c < d) tile_values(n_r, 4, s + t, a->v[j] + c, d, t0, t1, o + c, a->ldo);
    }
    for (int r = 0; r < n_r; r++)
        for (int32_t c = 0; c < d; c += 4) {
            float *oc = o + (size_t)r * a->ldo + c;
            vst1q_f32(oc, vaddq_f32(vld1q_f32(oc), vdupq_n_f32(0.0f)));
        }
}

/* How many of the rows left make the next block: four are 2 + 2, not 3 + 1. */
SQ_INLINE int32_t rows_next(int32_t left) { return left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3; }

#endif
