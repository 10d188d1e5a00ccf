/* SPDX-License-Identifier: Apache-2.0
 *
 * k_attn_sage_neon.c - attention over a chunk of 256 tokens with keys in 8 bits (R7), for CPUs with the
 * dot-product instructions.
 *
 * sdot takes signed bytes: a code is read as code - 128, and 128 times the sum of the row is added back. A
 * quarter of a line is 4 tokens by 4 channels. */
#include "k_softmax_neon.h"

typedef struct {
    int32_t w[SQ_ATTN_D_MAX / 4]; /* four signed bytes each */
    int32_t offset;               /* 128 times the sum of the row */
    float scale, base;
} codes;

static void row_codes(const float *q, int32_t d, const sq_sealed_keys *k, codes *out) {
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
        int16x4_t half[4];
        for (int i = 0; i < 4; i++) {
            const float32x4_t x = vmulq_f32(vld1q_f32(w + c + 4 * i), vdupq_n_f32(127.0f / most));
            const int32x4_t W = vandq_s32(vcvtnq_s32_f32(x), all);
            sum = vaddq_s32(sum, W);
            half[i] = vmovn_s32(W);
        }
        vst1q_s8((int8_t *)&out->w[c / 4], vcombine_s8(vmovn_s16(vcombine_s16(half[0], half[1])),
                                                       vmovn_s16(vcombine_s16(half[2], half[3]))));
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

/* n_r query rows from row i on. */
SQ_INLINE void row_block(int n_r, const sq_attn_args *a, int32_t i) {
    float s[R_MAX * SQ_ATTN_CHUNK];
    codes row[R_MAX];
    const extent e = extent_of(a, i, n_r);
    for (int r = 0; r < n_r; r++) row_codes(a->q + (size_t)(i + r) * a->ldq, a->d, &a->sealed, &row[r]);
    for (int32_t j = e.tile0; j < e.tile1; j++)
        if (a->k[j])
            tile_scores(n_r, row, a->d, a->sealed.codes + (size_t)j * SQ_KV_TILE * (size_t)a->d,
                        s + SQ_KV_TILE * j);
    rows_finish(n_r, a, i, e, s);
}

void sq_attn_sage__neon(const sq_attn_args *a) {
    for (int32_t i = 0; i < a->n_q; i += rows_next(a->n_q - i)) switch (rows_next(a->n_q - i)) {
        case 1: row_block(1, a, i); break;
        case 2: row_block(2, a, i); break;
        default: row_block(3, a, i);
        }
}
