/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_q_neon.c - packed matrices (T16x4) in INT4 and INT8 times quantised activations (R2), for CPUs with
 * the dot-product instructions (Armv8.2 FEAT_DotProd). Only files named gemm of this folder may use them.
 *
 * Lanes are rows: a quarter of a line is 4 rows by 4 columns, one sdot against four codes of x picked by
 * lane; 16 codes of x are loaded for four lines. Nibbles fit signed bytes as they are. 0.5625 bytes per
 * weight for I4, 1.03 for I8_G64, 1.0 for I8_ROW, each read once for four tokens: 16 integer accumulators,
 * eight registers of codes of x, the rest for weights. The f32 sums live on the stack and are touched once in
 * 64 columns. Built by the cross compiler and compared bit by bit under qemu; no rate is claimed. */
#include "k_math_neon.h"

enum { C_MAX = 4 }; /* rows of activations that share one pass over a tile */

/* acc[row] += four columns of w[row] * codes 4 lane .. 4 lane + 3 of x. The lane must be a constant in the
 * end. */
SQ_INLINE int32x4_t dot_lane(int32x4_t acc, int8x16_t w, int8x16_t x, int lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(acc, w, x, 0);
    case 1: return vdotq_laneq_s32(acc, w, x, 1);
    case 2: return vdotq_laneq_s32(acc, w, x, 2);
    default: return vdotq_laneq_s32(acc, w, x, 3);
    }
}

/* One line: four columns (I4: twice four) of 16 rows by n_c rows of codes. dot[c][j] holds rows 4j..4j+3. */
SQ_INLINE void line_i4(int n_c, const uint8_t *line, int lane, const int8x16_t x_lo[C_MAX],
                       const int8x16_t x_hi[C_MAX], int32x4_t dot[C_MAX][4]) {
    for (int j = 0; j < 4; j++) {
        const uint8x16_t v = vld1q_u8(line + 16 * j);
        const int8x16_t lo = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
        const int8x16_t hi = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
        for (int c = 0; c < n_c; c++)
            dot[c][j] = dot_lane(dot_lane(dot[c][j], lo, x_lo[c], lane), hi, x_hi[c], lane);
    }
}

SQ_INLINE void line_i8(int n_c, const uint8_t *line, int lane, const int8x16_t xv[C_MAX],
                       int32x4_t dot[C_MAX][4]) {
    for (int j = 0; j < 4; j++) {
        const int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(line + 16 * j));
        for (int c = 0; c < n_c; c++) dot[c][j] = dot_lane(dot[c][j], v, xv[c], lane);
    }
}

/* 64 columns of 16 rows by n_c rows of codes, exact. Sixteen codes of x serve four lines, which are spelled
 * out: the lane of an instruction is part of its encoding, and a loop might stay one. */
SQ_INLINE void idot_i4(int n_c, const uint8_t *lines, const int8_t *q, size_t ldq, int32x4_t dot[C_MAX][4]) {
    for (int part = 0; part < 2; part++) {
        const uint8_t *p = lines + 256 * part;
        int8x16_t x_lo[C_MAX], x_hi[C_MAX];
        for (int c = 0; c < n_c; c++) {
            x_lo[c] = vld1q_s8(q + (size_t)c * ldq + 16 * part);
            x_hi[c] = vld1q_s8(q + (size_t)c * ldq + 32 + 16 * part);
        }
        line_i4(n_c, p, 0, x_lo, x_hi, dot);
        line_i4(n_c, p + 64, 1, x_lo, x_hi, dot);
        line_i4(n_c, p + 128, 2, x_lo, x_hi, dot);
        line_i4(n_c, p + 192, 3, x_lo, x_hi, dot);
    }
}

SQ_INLINE void idot_i8(int n_c, const uint8_t *lines, const int8_t *q, size_t ldq, int32x4_t dot[C_MAX][4]) {
    for (int part = 0; part < 4; part++) {
        const uint8_t *p = lines + 256 * part;
        int8x16_t xv[C_MAX];
        for (int c = 0; c < n_c; c++) xv[c] = vld1q_s8(q + (size_t)c * ldq + 16 * part);
        line_i8(n_c, p, 0, xv, dot);
        line_i8(n_c, p + 64, 1, xv, dot);
        line_i8(n_c, p + 128, 2, xv, dot);
        line_i8(n_c, p + 192, 3, xv, dot);
    }
}

/* Each byte of v >> n, or << -n. */
SQ_INLINE uint8x16_t shifted(uint8x16_t v, int n) { return vshlq_u8(v, vdupq_n_s8((int8_t)-n)); }

/* Columns 16 part + 4 c .. +4 of 4 rows, `record` at the first of them. */
SQ_INLINE int8x16_t operand(sq_wtype t, const uint8_t *record, int part, int c) {
    if (t == SQ_W_I8_G32) return vreinterpretq_s8_u8(vld1q_u8(record + 64 * (4 * part + c)));
    if (t == SQ_W_I4_G32) {
        const uint8x16_t line = vld1q_u8(record + 64 * (4 * (part & 1) + c));
        return vreinterpretq_s8_u8(vandq_u8(shifted(line, 4 * (part >> 1)), vdupq_n_u8(15)));
    }
    uint8x16_t code = vandq_u8(shifted(vld1q_u8(record + 64 * c), 2 * part), vdupq_n_u8(3));
    if (t == SQ_W_I3_G64) {
        const uint8x16_t high = vld1q_u8(record + 256 + 64 * (part >> 1));
        code = vorrq_u8(code, vandq_u8(shifted(high, 4 * (part & 1) + c - 2), vdupq_n_u8(4)));
    }
    return vreinterpretq_s8_u8(code);
}

SQ_INLINE void line_part(sq_wtype t, int n_c, const uint8_t *record, int part, int lane,
                         const int8x16_t xv[C_MAX], int32x4_t dot[C_MAX][4]) {
    for (int j = 0; j < 4; j++) {
        const int8x16_t v = operand(t, record + 16 * j, part, lane);
        for (int c = 0; c < n_c; c++) dot[c][j] = dot_lane(dot[c][j], v, xv[c], lane);
    }
}

/* 16 columns of 16 rows by n_c rows of codes, exact. */
SQ_INLINE void idot_part(sq_wtype t, int n_c, const uint8_t *record, int part, const int8_t *q, size_t ldq,
                         int32x4_t dot[C_MAX][4]) {
    int8x16_t xv[C_MAX];
    for (int c = 0; c < n_c; c++) xv[c] = vld1q_s8(q + (size_t)c * ldq + 16 * part);
    line_part(t, n_c, record, part, 0, xv, dot);
    line_part(t, n_c, record, part, 1, xv, dot);
    line_part(t, n_c, record, part, 2, xv, dot);
    line_part(t, n_c, record, part, 3, xv, dot);
}

/* Four scales or biases as f32. */
SQ_INLINE float32x4_t scale4(uint8_t scale_type, const uint8_t *p) {
    return scale_type == SQ_SCALE_F16 ? load4_f16(p) : load4_bf16(p);
}

/* R2 for group g: the only place where integers meet floats. scales: of 16 rows, then the biases (I4). */
SQ_INLINE void add_group(sq_wtype t, int n_c, uint8_t scale_type, const uint8_t *scales, const sq_act *x,
                         int32_t i, int32_t g, int32x4_t dot[C_MAX][4], float32x4_t acc[C_MAX][4]) {
    for (int j = 0; j < 4; j++) {
        const float32x4_t scale = t == SQ_W_I8_ROW ? vdupq_n_f32(1.0f) : scale4(scale_type, scales + 8 * j);
        const float32x4_t bias =
            t == SQ_W_I4_G64 ? scale4(scale_type, scales + 32 + 8 * j) : vdupq_n_f32(0.0f);
        for (int c = 0; c < n_c; c++) {
            const size_t at = (size_t)(i + c) * (size_t)x->groups + (size_t)g;
            const float32x4_t sx = vdupq_n_f32(x->scale[at]);
            const float32x4_t mul = t == SQ_W_I8_ROW ? sx : vmulq_f32(scale, sx);
            acc[c][j] = vfmaq_f32(acc[c][j], mul, vcvtq_f32_s32(dot[c][j]));
            if (t == SQ_W_I4_G64) acc[c][j] = vfmaq_f32(acc[c][j], bias, vdupq_n_f32(x->xsum[at]));
        }
    }
}

/* The same for types whose scales cover half of the columns, and those of 2 and 3 bits; run: which half.
 * Codes of T2 are 1 above their values. */
SQ_INLINE void add_run(sq_wtype t, int n_c, uint8_t scale_type, const uint8_t *scales, const sq_act *x,
                       int32_t i, int32_t g, int run, int32x4_t dot[C_MAX][4], float32x4_t acc[C_MAX][4]) {
    const bool has_bias = t != SQ_W_I8_G32 && t != SQ_W_T2_ROW;
    for (int c = 0; c < n_c; c++) {
        const size_t at = (size_t)(i + c) * (size_t)x->groups + (size_t)g;
        const int16_t *sums = x->isum16 + 4 * at + 2 * run;
        const float xsum = t == SQ_W_I4_G32 ? x->scale[at] * (float)(sums[0] + sums[1]) : x->xsum[at];
        const float32x4_t sx = vdupq_n_f32(x->scale[at]);
        for (int j = 0; j < 4; j++) {
            if (t == SQ_W_T2_ROW) {
                const int32x4_t values = vsubq_s32(dot[c][j], vdupq_n_s32(x->isum[at]));
                acc[c][j] = vfmaq_f32(acc[c][j], sx, vcvtq_f32_s32(values));
                continue;
            }
            const float32x4_t mul = vmulq_f32(scale4(scale_type, scales + 8 * j), sx);
            acc[c][j] = vfmaq_f32(acc[c][j], mul, vcvtq_f32_s32(dot[c][j]));
            if (!has_bias) continue;
            const float32x4_t bias = scale4(scale_type, scales + (t == SQ_W_I4_G32 ? 64 : 32) + 8 * j);
            acc[c][j] = vfmaq_f32(acc[c][j], bias, vdupq_n_f32(xsum));
        }
    }
}

SQ_INLINE size_t record_of(sq_wtype t) {
    switch (t) {
    case SQ_W_I4_G64: return SQ_I4_RECORD;
    case SQ_W_I4_G32: return SQ_I4_G32_RECORD;
    case SQ_W_I3_G64: return SQ_I3_RECORD;
    case SQ_W_I2_G64: return SQ_I2_RECORD;
    case SQ_W_T2_ROW: return SQ_T2_RECORD;
    default: return SQ_I8_RECORD;
    }
}

/* The scales (F16, BF16) of group g, or the f32 scales of a tile with one per row. */
SQ_INLINE const uint8_t *scales_of(sq_wtype t, const sq_weight *w, const uint8_t *tile, int32_t g) {
    const uint8_t *record = tile + (size_t)g * record_of(t), *tail = tile + (size_t)w->groups * record_of(t);
    switch (t) {
    case SQ_W_I4_G64:
    case SQ_W_I4_G32: return record + 512;
    case SQ_W_I3_G64: return record + 384;
    case SQ_W_I2_G64: return record + 256;
    case SQ_W_I8_G64: return tail + (size_t)g * 32;
    case SQ_W_I8_G32: return tail + (size_t)g * 64;
    default: return tail;
    }
}

/* Group g of a type that add_run knows: one run of 64 columns, or two of 32. */
SQ_INLINE void group_runs(sq_wtype t, int n_c, const sq_weight *w, const uint8_t *tile, const sq_act *x,
                          int32_t i, int32_t g, float32x4_t acc[C_MAX][4]) {
    const int runs = t == SQ_W_I4_G32 || t == SQ_W_I8_G32 ? 2 : 1, parts = 4 / runs;
    const size_t ldq = (size_t)x->groups * SQ_GROUP;
    const int8_t *q = x->q + (size_t)i * ldq + (size_t)g * SQ_GROUP;
    const uint8_t *record = tile + (size_t)g * record_of(t), *scales = scales_of(t, w, tile, g);
    for (int run = 0; run < runs; run++) {
        int32x4_t dot[C_MAX][4];
        for (int c = 0; c < n_c; c++)
            for (int j = 0; j < 4; j++) dot[c][j] = vdupq_n_s32(0);
        for (int p = 0; p < parts; p++) idot_part(t, n_c, record, run * parts + p, q, ldq, dot);
        add_run(t, n_c, w->scale_type, scales + 32 * run, x, i, g, run, dot, acc);
    }
}

/* One row tile by rows [i, i + n_c) of x. */
SQ_INLINE void tile_rows(sq_wtype t, int n_c, const sq_weight *w, int32_t i_tile, const sq_act *x, int32_t i,
                         float *y, size_t ldy) {
    const size_t ldq = (size_t)x->groups * SQ_GROUP, record = record_of(t);
    const uint8_t *tile = w->data + (size_t)i_tile * w->tile_bytes;
    const int8_t *q = x->q + (size_t)i * ldq;
    float32x4_t acc[C_MAX][4];
    for (int c = 0; c < n_c; c++)
        for (int j = 0; j < 4; j++) acc[c][j] = vdupq_n_f32(0.0f);
    for (int32_t g = 0; g < w->groups; g++) {
        const uint8_t *lines = tile + (size_t)g * record;
        if (t >= SQ_W_I4_G32) {
            group_runs(t, n_c, w, tile, x, i, g, acc);
            continue;
        }
        int32x4_t dot[C_MAX][4];
        for (int c = 0; c < n_c; c++)
            for (int j = 0; j < 4; j++) dot[c][j] = vdupq_n_s32(0);
        if (t == SQ_W_I4_G64)
            idot_i4(n_c, lines, q + (size_t)g * SQ_GROUP, ldq, dot);
        else
            idot_i8(n_c, lines, q + (size_t)g * SQ_GROUP, ldq, dot);
        add_group(t, n_c, w->scale_type, scales_of(t, w, tile, g), x, i, g, dot, acc);
    }
    for (int j = 0; j < 4; j++) {
        const int32_t r = i_tile * SQ_TILE_ROWS + 4 * j;
        for (int c = 0; c < n_c && r < w->rows; c++) {
            float32x4_t v = acc[c][j];
            if (t == SQ_W_I8_ROW || t == SQ_W_T2_ROW)
                v = vmulq_f32(v, load4_f32(scales_of(t, w, tile, 0) + 16 * j));
            store_n(y + (size_t)(i + c) * ldy + (size_t)r, w->rows - r, v);
        }
    }
}

SQ_INLINE void gemm(sq_wtype t, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                    size_t ldy) {
    for (int32_t j = tile0; j < tile1; j++) {
        int32_t i = 0;
        for (; i + 4 <= x->m; i += 4) tile_rows(t, 4, w, j, x, i, y, ldy);
        switch (x->m - i) {
        case 3: tile_rows(t, 3, w, j, x, i, y, ldy); break;
        case 2: tile_rows(t, 2, w, j, x, i, y, ldy); break;
        case 1: tile_rows(t, 1, w, j, x, i, y, ldy); break;
        default: break;
        }
    }
}

void sq_gemm_i8row__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_ROW, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g64__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g64__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I4_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g32__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I4_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g32__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i3g64__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I3_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i2g64__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I2_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_t2row__neon(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_T2_ROW, w, tile0, tile1, x, y, ldy);
}
