/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_sage_neon.c - attention over a chunk of 256 tokens with keys and values in 8 bits (R7), for
 * CPUs with the dot-product instructions.
 *
 * sdot takes signed bytes: a code is read as code - 128, and 128 times the sum of the row is added back. A
 * quarter of a line is 4 sums of four products. Probabilities are two planes of 7 bits, P = 128 hi + lo. */
#include "k_softmax_neon.h"

typedef struct {
    int32_t w[SQ_ATTN_D_MAX / 4];        /* a query, four signed bytes each */
    int32_t plane[2][SQ_ATTN_CHUNK / 4]; /* hi and lo of probabilities, likewise */
    int32_t offset, L;                   /* 128 times the sum of w; the sum of probabilities */
    float scale, base;
} codes;

/* Sixteen integers as bytes. */
SQ_INLINE void store_bytes(const int32x4_t v[4], int32_t *out) {
    const int8x8_t a = vmovn_s16(vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1])));
    const int8x8_t b = vmovn_s16(vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3])));
    vst1q_s8((int8_t *)out, vcombine_s8(a, b));
}

static void row_codes(const float *q, int32_t d, const sq_sealed *k, codes *out) {
    float w[SQ_ATTN_D_MAX];
    float32x4_t zdot[4];
    uint32x4_t bits = vdupq_n_u32(0);
    int32x4_t sum = vdupq_n_s32(0);
    for (int i = 0; i < 4; i++) zdot[i] = vdupq_n_f32(0.0f);
    for (int32_t c = 0; c < d; c += 4) {
        const float32x4_t qc = vld1q_f32(q + c), wc = vmulq_f32(qc, vld1q_f32(k->step + c));
        /* magnitudes order like their bits, and NaN is above all */
        bits = vmaxq_u32(bits, vandq_u32(vreinterpretq_u32_f32(wc), vdupq_n_u32(0x7fffffff)));
        zdot[c / 4 % 4] = vfmaq_f32(zdot[c / 4 % 4], qc, vld1q_f32(k->z + c));
        vst1q_f32(w + c, wc);
    }
    const uint32_t top = vmaxvq_u32(bits);
    float most;
    memcpy(&most, &top, sizeof most);
    const bool usable = most >= 0x1p-100f && most < __builtin_inff();
    const int32x4_t all = vdupq_n_s32(usable ? -1 : 0);
    for (int32_t c = 0; c < d; c += 16) {
        int32x4_t W[4];
        for (int i = 0; i < 4; i++) {
            const float32x4_t x = vmulq_f32(vld1q_f32(w + c + 4 * i), vdupq_n_f32(127.0f / most));
            W[i] = vandq_s32(vcvtnq_s32_f32(x), all);
            sum = vaddq_s32(sum, W[i]);
        }
        store_bytes(W, &out->w[c / 4]);
    }
    out->offset = 128 * vaddvq_s32(sum);
    out->scale = usable ? most / 127.0f : 0.0f;
    out->base = __builtin_fmaf(-(out->scale * 127.5f), (float)vaddvq_s32(sum), lane_tree(zdot));
}

/* s[r][t] for the 32 tokens of a tile of codes. */
SQ_INLINE void tile_scores(int n_r, const codes *row, int32_t d, const uint8_t *k, float *s) {
    int32x4_t acc[R_MAX][8];
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 8; j++) acc[r][j] = vdupq_n_s32(row[r].offset);
    for (int32_t quad = 0; quad < d / 4; quad++)
        for (int j = 0; j < 8; j++) {
            const uint8x16_t line = vld1q_u8(k + (size_t)quad * 128 + 16 * j);
            const int8x16_t kv = vreinterpretq_s8_u8(veorq_u8(line, vdupq_n_u8(128)));
            for (int r = 0; r < n_r; r++)
                acc[r][j] = vdotq_s32(acc[r][j], kv, vreinterpretq_s8_s32(vdupq_n_s32(row[r].w[quad])));
        }
    for (int r = 0; r < n_r; r++)
        for (int j = 0; j < 8; j++)
            vst1q_f32(s + r * SQ_ATTN_CHUNK + 4 * j,
                      vfmaq_f32(vdupq_n_f32(row[r].base), vdupq_n_f32(row[r].scale),
                                vcvtq_f32_s32(acc[r][j])));
}

/* Scores of row i to planes, 0 where it does not see or drops a tile; m and l are written. */
static uint32_t row_planes(const sq_attn_args *a, int32_t i, extent e, const float *s, codes *out) {
    const row_max top = row_max_of(a, i, e.tile0, e.tile1, s);
    int32x4_t sum = vdupq_n_s32(0);
    for (int32_t t = SQ_KV_TILE * e.tile0; t < SQ_KV_TILE * e.tile1; t += 16) {
        int32x4_t hi[4], lo[4];
        for (int k = 0; k < 4; k++) {
            float32x4_t prob = vdupq_n_f32(0.0f);
            if (top.live >> (t / SQ_KV_TILE) & 1)
                prob = probabilities(s, t + 4 * k, a->lo[i], a->hi[i], top.m);
            const int32x4_t P = vcvtnq_s32_f32(vmulq_f32(prob, vdupq_n_f32((float)SQ_SAGE_ONE)));
            hi[k] = vshrq_n_s32(P, 7);
            lo[k] = vandq_s32(P, vdupq_n_s32(127));
            sum = vaddq_s32(sum, P);
        }
        store_bytes(hi, &out->plane[0][t / 4]);
        store_bytes(lo, &out->plane[1][t / 4]);
    }
    out->L = vaddvq_s32(sum);
    a->m[i] = top.m;
    a->l[i] = (float)out->L * (1.0f / SQ_SAGE_ONE);
    return top.live;
}

/* o of n_r rows from row i on, channels [c, c + 16). */
SQ_INLINE void values(int n_r, const sq_attn_args *a, int32_t i, extent e, uint32_t live, const codes *row,
                      int32_t c) {
    int32x4_t hi[R_MAX][4], lo[R_MAX][4];
    for (int r = 0; r < n_r; r++)
        for (int n = 0; n < 4; n++) hi[r][n] = lo[r][n] = vdupq_n_s32(0);
    for (int32_t quad = e.tile0 * (SQ_KV_TILE / 4); quad < e.tile1 * (SQ_KV_TILE / 4); quad++) {
        const uint8_t *at = a->sealed_v.codes + (size_t)quad * 4 * (size_t)a->d + (size_t)c * 4;
        if (!(live >> (quad * 4 / SQ_KV_TILE) & 1)) continue;
        for (int n = 0; n < 4; n++) {
            const int8x16_t v = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at + 16 * n), vdupq_n_u8(128)));
            for (int r = 0; r < n_r; r++) {
                hi[r][n] = vdotq_s32(hi[r][n], v, vreinterpretq_s8_s32(vdupq_n_s32(row[r].plane[0][quad])));
                lo[r][n] = vdotq_s32(lo[r][n], v, vreinterpretq_s8_s32(vdupq_n_s32(row[r].plane[1][quad])));
            }
        }
    }
    for (int n = 0; n < 4; n++) {
        const float32x4_t step =
            vmulq_f32(vld1q_f32(a->sealed_v.step + c + 4 * n), vdupq_n_f32(1.0f / SQ_SAGE_ONE));
        const float32x4_t z = vld1q_f32(a->sealed_v.z + c + 4 * n), half = vdupq_n_f32(-127.5f);
        for (int r = 0; r < n_r; r++) {
            const int32x4_t signed_dot = vaddq_s32(vshlq_n_s32(hi[r][n], 7), lo[r][n]);
            const float32x4_t dot = vcvtq_f32_s32(vaddq_s32(signed_dot, vdupq_n_s32(128 * row[r].L)));
            const float32x4_t centred = vfmaq_f32(dot, vdupq_n_f32((float)row[r].L), half);
            const float32x4_t o = vfmaq_f32(vmulq_f32(z, vdupq_n_f32(a->l[i + r])), step, centred);
            vst1q_f32(a->o + (size_t)(i + r) * a->ldo + c + 4 * n, vaddq_f32(o, vdupq_n_f32(0.0f)));
        }
    }
}

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    codes row[R_MAX];
    const extent e = extent_of(a, i, n_r);
    uint32_t live = 0;
    for (int r = 0; r < n_r; r++) row_codes(a->q + (size_t)(i + r) * a->ldq, a->d, &a->sealed_k, &row[r]);
    for (int32_t j = e.tile0; j < e.tile1; j++)
        if (a->k[j])
            tile_scores(n_r, row, a->d, a->sealed_k.codes + (size_t)j * SQ_KV_TILE * (size_t)a->d,
                        s + SQ_KV_TILE * j);
    for (int r = 0; r < n_r; r++) live |= row_planes(a, i + r, e, s + r * SQ_ATTN_CHUNK, &row[r]);
    for (int32_t c = 0; c < a->d; c += 16) values(n_r, a, i, e, live, row, c);
}

void sq_attn_sage__neon(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i += rows_next(a->n_q - i)) switch (rows_next(a->n_q - i)) {
        case 1: row_block(1, a, i); break;
        case 2: row_block(2, a, i); break;
        default: row_block(3, a, i);
        }
}
