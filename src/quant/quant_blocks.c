/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_blocks.c - weights of others, where they lie: GGUF blocks (ggml's quantised types) and SQ_W_AFFINE
 * (MLX directories, npy tiers).
 *
 * Both readers of a row start from the same unpacking: s8 codes, and a scale and a bias for each run of
 * columns. A value is scale * code, then + bias, each rounded once in f32: the arithmetic of the `gguf`
 * package and of MLX, so values are equal to theirs bit by bit. Loops run over whole lanes without a branch,
 * for the vectoriser. */
#include "quant/quant_int.h"

#include <assert.h>
#include <string.h>

static float half_at(const uint8_t *p) { return sq_f16_to_f32(load_u16(p)); }

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* Low nibbles are columns 0..15, high ones 16..31; `less` makes codes signed. */
static void nibbles_32(const uint8_t *qs, int32_t less, int8_t *codes) {
    for (int32_t j = 0; j < 16; j++) {
        codes[j] = (int8_t)((qs[j] & 15) - less);
        codes[j + 16] = (int8_t)((qs[j] >> 4) - less);
    }
}

/* The fifth bit of each column, from the 32 bits at qh. */
static void fifth_bit_32(const uint8_t *qh, int8_t *codes) {
    uint32_t bits;
    memcpy(&bits, qh, sizeof bits);
    for (int32_t j = 0; j < 32; j++) codes[j] = (int8_t)(codes[j] + (int8_t)((bits >> j & 1) << 4));
}

static void block_32(sq_wtype t, const uint8_t *b, int8_t *codes, float *scale, float *bias) {
    *scale = half_at(b);
    switch (t) {
    case SQ_W_Q4_0: nibbles_32(b + 2, 8, codes); return;
    case SQ_W_Q4_1:
        nibbles_32(b + 4, 0, codes);
        *bias = half_at(b + 2);
        return;
    case SQ_W_Q5_0:
        nibbles_32(b + 6, 16, codes);
        fifth_bit_32(b + 2, codes);
        return;
    case SQ_W_Q5_1:
        nibbles_32(b + 8, 0, codes);
        fifth_bit_32(b + 4, codes);
        *bias = half_at(b + 2);
        return;
    default: memcpy(codes, b + 2, 32); /* Q8_0 */
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* Two bits of column 128n + 32t + l are pair t of byte 32n + l. */
static void pairs_256(const uint8_t *qs, int32_t less, int8_t *codes) {
    for (int32_t n = 0; n < 2; n++)
        for (int32_t t = 0; t < 4; t++)
            for (int32_t l = 0; l < 32; l++)
                codes[128 * n + 32 * t + l] = (int8_t)((qs[32 * n + l] >> 2 * t & 3) - less);
}

static void block_q2_k(const uint8_t *b, int8_t *codes, float *scale, float *bias) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    pairs_256(b + 16, 0, codes);
    for (int32_t j = 0; j < 16; j++) {
        scale[j] = d * (float)(b[j] & 15);
        bias[j] = -(dmin * (float)(b[j] >> 4));
    }
}

static void block_q3_k(const uint8_t *b, int8_t *codes, float *scale) {
    const uint8_t *high = b, *sc = b + 96;
    const float d = half_at(b + 108);
    pairs_256(b + 32, 4, codes);
    for (int32_t t = 0; t < 8; t++)
        for (int32_t l = 0; l < 32; l++) {
            int8_t *c = &codes[32 * t + l];
            *c = (int8_t)(*c + (int8_t)((high[l] >> t & 1) << 2));
        }
    for (int32_t j = 0; j < 16; j++) {
        const int32_t low = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, top = sc[8 + (j & 3)] >> 2 * (j >> 2) & 3;
        scale[j] = d * (float)(low + 16 * top - 32);
    }
}

/* Six-bit scale and minimum of run j, as Q4_K and Q5_K share them. */
static void scale_min(const uint8_t *b, int32_t j, float *scale, float *bias) {
    const float d = half_at(b), dmin = half_at(b + 2);
    const uint8_t *sc = b + 4;
    const int32_t s = j < 4 ? sc[j] & 63 : (sc[j + 4] & 15) | sc[j - 4] >> 6 << 4;
    const int32_t m = j < 4 ? sc[j + 4] & 63 : sc[j + 4] >> 4 | sc[j] >> 6 << 4;
    *scale = d * (float)s;
    *bias = -(dmin * (float)m);
}

/* Chunks of 64 columns: low nibbles, then high ones. */
static void nibbles_256(const uint8_t *qs, int8_t *codes) {
    for (int32_t j = 0; j < 4; j++)
        for (int32_t l = 0; l < 32; l++) {
            codes[64 * j + l] = (int8_t)(qs[32 * j + l] & 15);
            codes[64 * j + 32 + l] = (int8_t)(qs[32 * j + l] >> 4);
        }
}

static void block_q45_k(sq_wtype t, const uint8_t *b, int8_t *codes, float *scale, float *bias) {
    for (int32_t j = 0; j < 8; j++) scale_min(b, j, &scale[j], &bias[j]);
    if (t == SQ_W_Q4_K) {
        nibbles_256(b + 16, codes);
        return;
    }
    nibbles_256(b + 48, codes);
    for (int32_t j = 0; j < 8; j++)
        for (int32_t l = 0; l < 32; l++) {
            int8_t *c = &codes[32 * j + l];
            *c = (int8_t)(*c + (int8_t)((b[16 + l] >> j & 1) << 4));
        }
}

static void block_q6_k(const uint8_t *b, int8_t *codes, float *scale) {
    const float d = half_at(b + 208);
    for (int32_t n = 0; n < 2; n++)
        for (int32_t l = 0; l < 64; l++) {
            const uint8_t q = b[64 * n + l], top = b[128 + 32 * n + l % 32];
            const int32_t t = l / 32; /* low nibbles are runs 0 and 1, high ones 2 and 3 */
            codes[128 * n + l] = (int8_t)((q & 15) + (top >> 2 * t & 3) * 16 - 32);
            codes[128 * n + 64 + l] = (int8_t)((q >> 4) + (top >> 2 * (t + 2) & 3) * 16 - 32);
        }
    for (int32_t j = 0; j < 16; j++) scale[j] = d * (float)(int8_t)b[192 + j];
}

/* Digits of base 3: digit n of a byte is its fraction times 3^n, in 256ths. */
static void trits(const uint8_t *bytes, int32_t n_bytes, int32_t n_digits, int8_t *codes) {
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    for (int32_t n = 0; n < n_digits; n++)
        for (int32_t m = 0; m < n_bytes; m++) {
            const uint8_t rest = (uint8_t)(bytes[m] * power[n]);
            codes[n_bytes * n + m] = (int8_t)((rest * 3 >> 8) - 1);
        }
}

static void block_ternary(sq_wtype t, const uint8_t *b, int8_t *codes, float *scale) {
    const float d = half_at(b + (t == SQ_W_TQ1_0 ? 52 : 64));
    for (int32_t j = 0; j < 8; j++) scale[j] = d;
    if (t == SQ_W_TQ2_0) {
        pairs_256(b, 1, codes);
        return;
    }
    trits(b, 32, 5, codes);
    trits(b + 32, 16, 5, codes + 160);
    trits(b + 48, 4, 4, codes + 240);
}

static void block_256(sq_wtype t, const uint8_t *b, int8_t *codes, float *scale, float *bias) {
    switch (t) {
    case SQ_W_Q2_K: block_q2_k(b, codes, scale, bias); return;
    case SQ_W_Q3_K: block_q3_k(b, codes, scale); return;
    case SQ_W_Q4_K:
    case SQ_W_Q5_K: block_q45_k(t, b, codes, scale, bias); return;
    case SQ_W_Q6_K: block_q6_k(b, codes, scale); return;
    default: block_ternary(t, b, codes, scale);
    }
}

/* ---- AFFINE ---------------------------------------------------------------------------------- */

/* n codes of a bit stream from column k0 on, a multiple of 32. */
static void stream_codes(const uint8_t *row, int32_t bits, int32_t k0, int32_t n, uint8_t *out) {
    const uint8_t *p = row + (size_t)k0 / 8 * (size_t)bits;
    if (bits == 8) {
        memcpy(out, p, (size_t)n);
        return;
    }
    uint32_t held = 0, have = 0;
    for (int32_t k = 0; k < n; k++) {
        if (have < (uint32_t)bits) {
            held |= (uint32_t)*p++ << have;
            have += 8;
        }
        out[k] = (uint8_t)(held & ((1u << bits) - 1));
        held >>= bits;
        have -= (uint32_t)bits;
    }
}

static float side_at(const sq_weight *w, const uint8_t *side, int32_t r, int32_t k) {
    const size_t runs = w->group ? (size_t)(w->cols / w->group) : 1;
    const size_t at = (size_t)r * runs + (w->group ? (size_t)(k / w->group) : 0);
    if (w->scale_type != SQ_SCALE_F32)
        return sq_scale_to_f32((sq_scale_type)w->scale_type, load_u16(side + 2 * at));
    float v;
    memcpy(&v, side + 4 * at, sizeof v);
    return v;
}

static void affine_row(const sq_weight *w, int32_t r, float *out) {
    const uint8_t *row = w->data + (size_t)r * (w->tile_bytes / SQ_TILE_ROWS);
    for (int32_t k = 0; k < w->cols; k += 32) {
        uint8_t codes[32];
        const float scale = side_at(w, w->scales, r, k),
                    bias = w->biases ? side_at(w, w->biases, r, k) : 0.0f;
        stream_codes(row, w->bits, k, 32, codes);
        for (int32_t i = 0; i < 32; i++) {
            const int32_t c = w->coding == SQ_CODES_SIGNED   ? (int8_t)codes[i]
                              : w->coding == SQ_CODES_MINUS7 ? codes[i] - 7
                                                             : codes[i];
            out[k + i] = w->biases ? scale * (float)c + bias : scale * (float)c;
        }
    }
}

static void affine_unpack(const sq_weight *w, int32_t r, int32_t k0, int32_t n, int8_t *codes, float *scale,
                          float *bias) {
    const uint8_t *row = w->data + (size_t)r * (w->tile_bytes / SQ_TILE_ROWS);
    const bool shift = w->bits == 8 && w->coding == SQ_CODES_UNSIGNED;
    stream_codes(row, w->bits, k0, n, (uint8_t *)codes);
    if (shift)
        for (int32_t k = 0; k < n; k++) codes[k] = (int8_t)((uint8_t)codes[k] ^ 0x80);
    if (w->coding == SQ_CODES_MINUS7)
        for (int32_t k = 0; k < n; k++) codes[k] = (int8_t)(codes[k] - 7);
    for (int32_t s = 0; s < n / 32; s++) {
        scale[s] = side_at(w, w->scales, r, k0 + 32 * s);
        bias[s] = w->biases ? side_at(w, w->biases, r, k0 + 32 * s) : 0.0f;
        if (shift) bias[s] = bias[s] + 128.0f * scale[s];
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

void sq_row_unpack(const sq_weight *w, int32_t r, int32_t k0, int8_t *codes, float *scale, float *bias) {
    const sq_wtype t = (sq_wtype)w->wtype;
    const sq_wtype_info *info = sq_wtype_get(t);
    const int32_t n = w->cols - k0 < SQ_PANEL ? w->cols - k0 : SQ_PANEL, runs = SQ_PANEL / info->sub;
    assert(r >= 0 && r < w->rows && k0 >= 0 && k0 % SQ_PANEL == 0 && n > 0);
    if (n < SQ_PANEL) {
        memset(codes + n, 0, (size_t)(SQ_PANEL - n));
        for (int32_t s = n / info->sub; s < runs; s++) {
            scale[s] = 0.0f;
            if (info->bias) bias[s] = 0.0f;
        }
    }
    if (t == SQ_W_AFFINE) {
        affine_unpack(w, r, k0, n, codes, scale, bias);
        return;
    }
    const uint8_t *row = w->data + (size_t)r * (w->tile_bytes / SQ_TILE_ROWS);
    const uint8_t *b = row + (size_t)(k0 / info->block) * (size_t)info->block_bytes;
    if (info->block == SQ_PANEL) {
        block_256(t, b, codes, scale, bias);
        return;
    }
    for (int32_t s = 0; s < n / 32; s++, b += info->block_bytes)
        block_32(t, b, codes + 32 * s, scale + s, bias + s);
}

void sq_foreign_row(const sq_weight *w, int32_t r, float *out) {
    const sq_wtype_info *info = sq_wtype_get((sq_wtype)w->wtype);
    if (w->wtype == SQ_W_AFFINE) {
        affine_row(w, r, out);
        return;
    }
    for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
        int8_t codes[SQ_PANEL];
        float scale[16], bias[16];
        const int32_t n = w->cols - k0 < SQ_PANEL ? w->cols - k0 : SQ_PANEL;
        sq_row_unpack(w, r, k0, codes, scale, bias);
        for (int32_t k = 0; k < n; k++) {
            const float v = scale[k / info->sub] * (float)codes[k];
            out[k0 + k] = info->bias ? v + bias[k / info->sub] : v;
        }
    }
}
