/* SPDX-License-Identifier: Apache-2.0
 *
 * k_gemm_q_avx2.c - packed matrices (T16x4) in INT4 and INT8 times quantised activations (R2).
 *
 * Lanes are rows: half a line is 8 rows by 4 columns, maddubs against four broadcast codes, then madd with
 * ones. No horizontal sums; scales and biases are used once in 64 columns, and floats begin there.
 *
 * The ladder. One thread of an EPYC of family 26 that reads 39.5 GB/s in a plain loop; 8960 x 1536 from
 * memory; share of that loop for I4 (0.5625 bytes per weight) / I8_G64 (1.03) / I8_ROW (1.0):
 *   1. half by half inside a group                  76 % / 34 % / 76 %   spilled broadcasts
 *   2. whole lines for M <= 2, else two passes      80 % / 53 % / 83 %
 *   3. + prefetch of the codes 9 KiB ahead          92 % / 69 % / 99 %   the scales of I8_G64 come late: they
 *                                                                        lie a tile away from their codes
 *   4. + prefetch spread evenly over all bytes of
 *      a tile, 24 KiB ahead                         94 % / 96 % / 96 %
 *   5. ... into the second level (here). One thread of an EPYC of family 25 model 17: I4 from 72 to 80 %,
 *      I8_G64 from 61 to 84 %, I4 with M = 8 from 55 to 80 GMAC/s
 * M = 2 makes 105 / 70 / 75 GMAC/s from memory and M = 256 120 / 92 / 95; a loop over M = 1 would make 65 /
 * 37 / 38. Unrolling four I4 lines by hand lost 15 % with gcc (it hoists the broadcasts and spills them), so
 * that loop is left to the compiler.
 *
 * Many rows of 3-bit codes, which take seven instructions to unpack: once for 32 of them in place of once for
 * 4. One thread of a Xeon of family 6 model 85, M = 64, Gop/s: 3 bits 44 to 67, 2 bits 65 to 71, ternary 64
 * to 70; below 24 rows it does not pay. */
#include "k_math_avx2.h"

enum {
    C_MAX = 4,              /* rows of activations that share one pass over a tile */
    MANY = 32,              /* that share operands once unpacked, */
    MANY_FROM = 24,         /* where there are so many */
    FETCH_BYTES = 24 * 1024 /* how far ahead of its use a line is asked for */
};

/* Four codes of one row of x to every row of the tile. */
SQ_INLINE __m256i four_codes(const int8_t *q) {
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

/* 64 columns of n_h * 8 rows (half lines, 64 bytes apart) by n_c rows of codes, exact. maddubs gives sums of
 * two products of at most 15 * 127 each; eight such sums fit 16 bits (8 * 3810 = 30480), so four lines go by
 * before widening. */
SQ_INLINE void idot_i4(int n_h, int n_c, const uint8_t *lines, const int8_t *q, size_t ldq,
                       __m256i dot[2][C_MAX]) {
    const __m256i low = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);
    for (int part = 0; part < 2; part++) {
        __m256i s[2][C_MAX];
        for (int h = 0; h < n_h; h++)
            for (int c = 0; c < n_c; c++) s[h][c] = _mm256_setzero_si256();
        for (int l = 4 * part; l < 4 * part + 4; l++)
            for (int h = 0; h < n_h; h++) {
                const __m256i v = _mm256_loadu_si256((const __m256i *)(lines + 64 * l + 32 * h));
                const __m256i lo = _mm256_and_si256(v, low),
                              hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
                for (int c = 0; c < n_c; c++) {
                    const __m256i a = _mm256_maddubs_epi16(lo, four_codes(q + (size_t)c * ldq + 4 * l));
                    const __m256i b = _mm256_maddubs_epi16(hi, four_codes(q + (size_t)c * ldq + 32 + 4 * l));
                    s[h][c] = _mm256_add_epi16(_mm256_add_epi16(s[h][c], a), b);
                }
            }
        for (int h = 0; h < n_h; h++)
            for (int c = 0; c < n_c; c++)
                dot[h][c] = _mm256_add_epi32(dot[h][c], _mm256_madd_epi16(s[h][c], one));
    }
}

/* The same for 8-bit codes: |w| is the unsigned operand and x takes the sign of w. A sum of two products
 * takes all 16 bits (2 * 127 * 128 = 32512), so every line is widened at once. */
SQ_INLINE void idot_i8(int n_lines, int n_h, int n_c, const uint8_t *lines, const int8_t *q, size_t ldq,
                       __m256i dot[2][C_MAX]) {
    const __m256i one = _mm256_set1_epi16(1);
    for (int l = 0; l < n_lines; l++)
        for (int h = 0; h < n_h; h++) {
            const __m256i v = _mm256_loadu_si256((const __m256i *)(lines + 64 * l + 32 * h));
            const __m256i magnitude = _mm256_abs_epi8(v);
            for (int c = 0; c < n_c; c++) {
                const __m256i x = _mm256_sign_epi8(four_codes(q + (size_t)c * ldq + 4 * l), v);
                const __m256i pair = _mm256_maddubs_epi16(magnitude, x);
                dot[h][c] = _mm256_add_epi32(dot[h][c], _mm256_madd_epi16(pair, one));
            }
        }
}

/* Each byte of v >> n, or << -n, where the caller masks what crosses from the neighbouring byte. */
SQ_INLINE __m256i shifted(__m256i v, int n) {
    switch (n) {
    case -2: return _mm256_slli_epi16(v, 2);
    case -1: return _mm256_slli_epi16(v, 1);
    case 1: return _mm256_srli_epi16(v, 1);
    case 2: return _mm256_srli_epi16(v, 2);
    case 3: return _mm256_srli_epi16(v, 3);
    case 4: return _mm256_srli_epi16(v, 4);
    case 5: return _mm256_srli_epi16(v, 5);
    case 6: return _mm256_srli_epi16(v, 6);
    default: return v;
    }
}

SQ_INLINE __m256i load_line(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Columns 16 part + 4 c .. +4 of the 8 rows at `lines`, codes of types below 8 bits. */
SQ_INLINE __m256i operand(sq_wtype t, const uint8_t *lines, int part, int c) {
    if (t == SQ_W_I4_G32) {
        const __m256i line = load_line(lines + 64 * (4 * (part & 1) + c));
        return _mm256_and_si256(shifted(line, 4 * (part >> 1)), _mm256_set1_epi8(15));
    }
    const __m256i low = _mm256_and_si256(shifted(load_line(lines + 64 * c), 2 * part), _mm256_set1_epi8(3));
    if (t != SQ_W_I3_G64) return low;
    const __m256i high = shifted(load_line(lines + 256 + 64 * (part >> 1)), 4 * (part & 1) + c - 2);
    return _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(4)));
}

/* s += columns 16 p + 4 l .. +4. */
SQ_INLINE void add_quad(sq_wtype t, int p, int l, int n_h, int n_c, const uint8_t *lines, const int8_t *q,
                        size_t ldq, __m256i s[2][C_MAX]) {
    for (int h = 0; h < n_h; h++) {
        const __m256i v = operand(t, lines + 32 * h, p, l);
        for (int c = 0; c < n_c; c++)
            s[h][c] = _mm256_add_epi16(
                s[h][c], _mm256_maddubs_epi16(v, four_codes(q + (size_t)c * ldq + 16 * p + 4 * l)));
    }
}

/* Parts [p0, p1) of 16 columns each, exact. Sums stay in 16 bits throughout: two parts of 4-bit codes reach
 * 8 * 3810 as above, four parts of 3-bit codes 16 * 2 * 7 * 127 = 28448. One row of codes wants its shifts
 * known beforehand (3 bits: 9 to 26 GB/s); with more rows gcc then spills the broadcasts (2 bits: 247 to 172
 * Gop/s). */
SQ_INLINE void idot_parts(sq_wtype t, int p0, int p1, int n_h, int n_c, const uint8_t *lines, const int8_t *q,
                          size_t ldq, __m256i dot[2][C_MAX]) {
    __m256i s[2][C_MAX];
    for (int h = 0; h < n_h; h++)
        for (int c = 0; c < n_c; c++) s[h][c] = _mm256_setzero_si256();
    if (n_c == 1) {
        UNROLL
        for (int p = p0; p < p1; p++) {
            UNROLL
            for (int l = 0; l < 4; l++) add_quad(t, p, l, n_h, n_c, lines, q, ldq, s);
        }
    } else {
        for (int p = p0; p < p1; p++)
            for (int l = 0; l < 4; l++) add_quad(t, p, l, n_h, n_c, lines, q, ldq, s);
    }
    for (int h = 0; h < n_h; h++)
        for (int c = 0; c < n_c; c++)
            dot[h][c] = _mm256_add_epi32(dot[h][c], _mm256_madd_epi16(s[h][c], _mm256_set1_epi16(1)));
}

/* Eight scales or biases as f32. */
SQ_INLINE __m256 scale8(uint8_t scale_type, const uint8_t *p) {
    return scale_type == SQ_SCALE_F16 ? load8_f16(p) : load8_bf16(p);
}

/* R2 for the 8 rows of half h, group g: the only place where integers meet floats. */
SQ_INLINE void add_group(sq_wtype t, int n_c, uint8_t scale_type, const uint8_t *scales, const sq_act *x,
                         int32_t i, int32_t g, const __m256i dot[C_MAX], __m256 acc[C_MAX]) {
    __m256 scale = t == SQ_W_I8_ROW ? _mm256_setzero_ps() : scale8(scale_type, scales);
    __m256 bias = t == SQ_W_I4_G64 ? scale8(scale_type, scales + 32) : _mm256_setzero_ps();
    for (int c = 0; c < n_c; c++) {
        size_t at = (size_t)(i + c) * (size_t)x->groups + (size_t)g;
        __m256 sx = _mm256_broadcast_ss(x->scale + at);
        __m256 mul = t == SQ_W_I8_ROW ? sx : _mm256_mul_ps(scale, sx);
        acc[c] = _mm256_fmadd_ps(mul, _mm256_cvtepi32_ps(dot[c]), acc[c]);
        if (t == SQ_W_I4_G64) acc[c] = _mm256_fmadd_ps(bias, _mm256_broadcast_ss(x->xsum + at), acc[c]);
    }
}

/* The same for types whose scales cover half of the columns, and those of 2 and 3 bits; run: which half.
 * Codes of T2 are 1 above their values. */
SQ_INLINE void add_run(sq_wtype t, int n_c, uint8_t scale_type, const uint8_t *scales, const sq_act *x,
                       int32_t i, int32_t g, int run, const __m256i dot[C_MAX], __m256 acc[C_MAX]) {
    const bool bias = t != SQ_W_I8_G32 && t != SQ_W_T2_ROW;
    const __m256 scale = t == SQ_W_T2_ROW ? _mm256_setzero_ps() : scale8(scale_type, scales);
    const __m256 bw = bias ? scale8(scale_type, scales + (t == SQ_W_I4_G32 ? 64 : 32)) : _mm256_setzero_ps();
    for (int c = 0; c < n_c; c++) {
        const size_t at = (size_t)(i + c) * (size_t)x->groups + (size_t)g;
        const __m256 sx = _mm256_broadcast_ss(x->scale + at);
        if (t == SQ_W_T2_ROW) {
            const __m256i values = _mm256_sub_epi32(dot[c], _mm256_set1_epi32(x->isum[at]));
            acc[c] = _mm256_fmadd_ps(sx, _mm256_cvtepi32_ps(values), acc[c]);
            continue;
        }
        acc[c] = _mm256_fmadd_ps(_mm256_mul_ps(scale, sx), _mm256_cvtepi32_ps(dot[c]), acc[c]);
        if (!bias) continue;
        const int16_t *sums = x->isum16 + 4 * at + 2 * run;
        const float xsum = t == SQ_W_I4_G32 ? x->scale[at] * (float)(sums[0] + sums[1]) : x->xsum[at];
        acc[c] = _mm256_fmadd_ps(bw, _mm256_set1_ps(xsum), acc[c]);
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
SQ_INLINE void group_runs(sq_wtype t, int n_h, int n_c, const sq_weight *w, const uint8_t *tile, int h0,
                          const sq_act *x, int32_t i, int32_t g, __m256 acc[2][C_MAX]) {
    const int runs = t == SQ_W_I4_G32 || t == SQ_W_I8_G32 ? 2 : 1, parts = 4 / runs;
    const size_t ldq = (size_t)x->groups * SQ_GROUP;
    const int8_t *q = x->q + (size_t)i * ldq + (size_t)g * SQ_GROUP;
    const uint8_t *lines = tile + (size_t)g * record_of(t) + 32 * h0, *scales = scales_of(t, w, tile, g);
    for (int run = 0; run < runs; run++) {
        __m256i dot[2][C_MAX];
        for (int h = 0; h < n_h; h++)
            for (int c = 0; c < n_c; c++) dot[h][c] = _mm256_setzero_si256();
        if (t == SQ_W_I8_G32)
            idot_i8(8, n_h, n_c, lines + 512 * run, q + 32 * run, ldq, dot);
        else
            idot_parts(t, run * parts, (run + 1) * parts, n_h, n_c, lines, q, ldq, dot);
        for (int h = 0; h < n_h; h++)
            add_run(t, n_c, w->scale_type, scales + 32 * run + 16 * (h0 + h), x, i, g, run, dot[h], acc[h]);
    }
}

/* n_h halves (8 rows each, from half h0 on) of a row tile by rows [i, i + n_c) of x. */
SQ_INLINE void tile_block(sq_wtype t, int n_h, int n_c, bool fetch, const sq_weight *w, int32_t i_tile,
                          int h0, const sq_act *x, int32_t i, float *y, size_t ldy) {
    const size_t ldq = (size_t)x->groups * SQ_GROUP, record = record_of(t);
    const uint8_t *tile = w->data + (size_t)i_tile * w->tile_bytes;
    const int8_t *q = x->q + (size_t)i * ldq;
    const size_t stride = w->tile_bytes / (size_t)w->groups; /* bytes to fetch in a group, scales included */
    __m256 acc[2][C_MAX];
    for (int h = 0; h < n_h; h++)
        for (int c = 0; c < n_c; c++) acc[h][c] = _mm256_setzero_ps();
    for (int32_t g = 0; g < w->groups; g++) {
        const uint8_t *lines = tile + (size_t)g * record + 32 * h0;
        __m256i dot[2][C_MAX];
        if (fetch)
            for (size_t l = 0; l < stride; l += 64) fetch_far(tile, FETCH_BYTES + (size_t)g * stride + l);
        if (t >= SQ_W_I4_G32) {
            group_runs(t, n_h, n_c, w, tile, h0, x, i, g, acc);
            continue;
        }
        for (int h = 0; h < n_h; h++)
            for (int c = 0; c < n_c; c++) dot[h][c] = _mm256_setzero_si256();
        if (t == SQ_W_I4_G64)
            idot_i4(n_h, n_c, lines, q + (size_t)g * SQ_GROUP, ldq, dot);
        else
            idot_i8(16, n_h, n_c, lines, q + (size_t)g * SQ_GROUP, ldq, dot);
        for (int h = 0; h < n_h; h++)
            add_group(t, n_c, w->scale_type, scales_of(t, w, tile, g) + 16 * (h0 + h), x, i, g, dot[h],
                      acc[h]);
    }
    for (int h = 0; h < n_h; h++) {
        const int32_t r = i_tile * SQ_TILE_ROWS + 8 * (h0 + h), n = w->rows - r;
        if (n <= 0) break;
        for (int c = 0; c < n_c; c++) {
            __m256 v = acc[h][c];
            if (t == SQ_W_I8_ROW || t == SQ_W_T2_ROW)
                v = _mm256_mul_ps(v, load8_f32(scales_of(t, w, tile, 0) + 32 * (h0 + h)));
            store_n(y + (size_t)(i + c) * ldy + (size_t)r, n, v);
        }
    }
}

/* Rows [i, i + n_c) of x. One or two of them take whole lines; more need the registers of the other half. */
SQ_INLINE void tile_rows(sq_wtype t, int n_c, bool fetch, const sq_weight *w, int32_t i_tile, const sq_act *x,
                         int32_t i, float *y, size_t ldy) {
    if (n_c <= 2) {
        tile_block(t, 2, n_c, fetch, w, i_tile, 0, x, i, y, ldy);
    } else {
        tile_block(t, 1, n_c, fetch, w, i_tile, 0, x, i, y, ldy);
        tile_block(t, 1, n_c, false, w, i_tile, 1, x, i, y, ldy);
    }
}

/* ---- many rows of x: operands of 2 and 3 bits are unpacked once ---------------------------------- */

/* Rows [i, i + n_c) of x by 8 rows of a tile, group g, whose 16 operands are at v. acc: a tile wide. */
SQ_INLINE void many_rows(sq_wtype t, int n_c, const sq_weight *w, const uint8_t *tile, int h,
                         const __m256i *v, const sq_act *x, int32_t i, int32_t g, float *acc) {
    const size_t ldq = (size_t)x->groups * SQ_GROUP;
    const int8_t *q = x->q + (size_t)i * ldq + (size_t)g * SQ_GROUP;
    __m256i s[C_MAX];
    __m256 a[C_MAX];
    for (int c = 0; c < n_c; c++) s[c] = _mm256_setzero_si256();
    for (int l = 0; l < 16; l++)
        for (int c = 0; c < n_c; c++)
            s[c] = _mm256_add_epi16(
                s[c], _mm256_maddubs_epi16(v[l], four_codes(q + (size_t)c * ldq + 4 * (size_t)l)));
    for (int c = 0; c < n_c; c++) {
        s[c] = _mm256_madd_epi16(s[c], _mm256_set1_epi16(1));
        a[c] = _mm256_load_ps(acc + c * SQ_TILE_ROWS);
    }
    add_run(t, n_c, w->scale_type, scales_of(t, w, tile, g) + 16 * h, x, i, g, 0, s, a);
    for (int c = 0; c < n_c; c++) _mm256_store_ps(acc + c * SQ_TILE_ROWS, a[c]);
}

/* Rows [i0, i0 + n) of x, n <= MANY. */
SQ_INLINE void tile_many(sq_wtype t, bool fetch, const sq_weight *w, int32_t i_tile, const sq_act *x,
                         int32_t i0, int32_t n, float *y, size_t ldy) {
    const uint8_t *tile = w->data + (size_t)i_tile * w->tile_bytes;
    const size_t stride = w->tile_bytes / (size_t)w->groups;
    _Alignas(32) float acc[MANY * SQ_TILE_ROWS] = {0};
    for (int32_t g = 0; g < w->groups; g++) {
        const uint8_t *lines = tile + (size_t)g * record_of(t);
        if (fetch)
            for (size_t l = 0; l < stride; l += 64) fetch_far(tile, FETCH_BYTES + (size_t)g * stride + l);
        for (int h = 0; h < 2; h++) {
            __m256i v[16];
            UNROLL
            for (int l = 0; l < 16; l++) v[l] = operand(t, lines + 32 * h, l / 4, l % 4);
            int32_t i = 0;
            for (; i + 4 <= n; i += 4)
                many_rows(t, 4, w, tile, h, v, x, i0 + i, g, acc + i * SQ_TILE_ROWS + 8 * h);
            for (; i < n; i++)
                many_rows(t, 1, w, tile, h, v, x, i0 + i, g, acc + i * SQ_TILE_ROWS + 8 * h);
        }
    }
    for (int h = 0; h < 2; h++) {
        const int32_t r = i_tile * SQ_TILE_ROWS + 8 * h, rows = w->rows - r;
        for (int32_t i = 0; rows > 0 && i < n; i++) {
            __m256 a = _mm256_load_ps(acc + i * SQ_TILE_ROWS + 8 * h);
            if (t == SQ_W_T2_ROW) a = _mm256_mul_ps(a, load8_f32(scales_of(t, w, tile, 0) + 32 * h));
            store_n(y + (size_t)(i0 + i) * ldy + (size_t)r, rows, a);
        }
    }
}

/* The first pass over a tile brings it into the cache; further rows of x find it there. */
SQ_INLINE void gemm(sq_wtype t, const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                    size_t ldy) {
    const bool low = t == SQ_W_I3_G64 || t == SQ_W_I2_G64 || t == SQ_W_T2_ROW;
    for (int32_t j = tile0; j < tile1; j++) {
        if (low && x->m >= MANY_FROM) {
            for (int32_t i = 0; i < x->m; i += MANY)
                tile_many(t, i == 0, w, j, x, i, x->m - i < MANY ? x->m - i : MANY, y, ldy);
            continue;
        }
        switch (x->m) {
        case 1: tile_rows(t, 1, true, w, j, x, 0, y, ldy); continue;
        case 2: tile_rows(t, 2, true, w, j, x, 0, y, ldy); continue;
        case 3: tile_rows(t, 3, true, w, j, x, 0, y, ldy); continue;
        default: tile_rows(t, 4, true, w, j, x, 0, y, ldy); break;
        }
        int32_t i = 4;
        for (; i + 4 <= x->m; i += 4) tile_rows(t, 4, false, w, j, x, i, y, ldy);
        switch (x->m - i) {
        case 3: tile_rows(t, 3, false, w, j, x, i, y, ldy); break;
        case 2: tile_rows(t, 2, false, w, j, x, i, y, ldy); break;
        case 1: tile_rows(t, 1, false, w, j, x, i, y, ldy); break;
        default: break;
        }
    }
}

void sq_gemm_i8row__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_ROW, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g64__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g64__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I4_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i4g32__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I4_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i8g32__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I8_G32, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i3g64__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I3_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_i2g64__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_I2_G64, w, tile0, tile1, x, y, ldy);
}

void sq_gemm_t2row__avx2(const sq_weight *w, int32_t tile0, int32_t tile1, const sq_act *x, float *y,
                         size_t ldy) {
    gemm(SQ_W_T2_ROW, w, tile0, tile1, x, y, ldy);
}
