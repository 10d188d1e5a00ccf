/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_neon.c - attention over one chunk of 256 cached tokens, folding of chunks, storing of a token (R4).
 *
 * Both halves are the same loop: 32 lanes (tokens for scores, channels for values) by up to three query rows,
 * 24 accumulators, and every f16 line is converted once for the rows that share it. A row sees a range of
 * tokens; tiles are walked over the union of the ranges, a score outside a row's own range is replaced by
 * -inf before the maximum and its probability by +0, which by R4 changes no bit. */
#include "k_softmax_neon.h"

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

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    const extent e = extent_of(a, i, n_r);
    for (int32_t j = e.tile0; j < e.tile1; j++)
        if (a->k[j])
            tile_scores(n_r, a->q + (size_t)i * a->ldq, a->ldq, a->d, a->k[j], s + SQ_KV_TILE * j);
    rows_finish(n_r, a, i, e, s);
}

void sq_attn_f16__neon(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i += rows_next(a->n_q - i)) switch (rows_next(a->n_q - i)) {
        case 1: row_block(1, a, i); break;
        case 2: row_block(2, a, i); break;
        default: row_block(3, a, i);
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
