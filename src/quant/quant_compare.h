/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_compare.h - a packed row back to f32, and how far it is from its source: inline, so that `compare`
 * kernels compile them under their own flags. No fused multiply-adds and one order of sums: the same bits
 * everywhere. */
#ifndef SQ_QUANT_COMPARE_H
#define SQ_QUANT_COMPARE_H

#include "quant/quant_lane.h"
#include "quant/quant_num.h"
#include "quant/quant_vec.h"

#include <math.h>

/* ---- packed rows ----------------------------------------------------------------------------- */

/* One run of columns that share a scale. */
static inline void decode_run(const sq_wtype_info *info, const uint8_t *codes, float scale, float bias,
                              int32_t n, float *out) {
    if (info->bias) {
        for (int32_t k = 0; k < n; k++) out[k] = scale * (float)codes[k] + bias;
    } else if (info->bits == 8) {
        for (int32_t k = 0; k < n; k++) out[k] = scale * (float)(int8_t)codes[k];
    } else { /* ternary */
        for (int32_t k = 0; k < n; k++) out[k] = scale * (float)(codes[k] - 1);
    }
}

static inline void packed_row(const sq_weight *w, const uint8_t *tile, int32_t lane, float *out) {
    const sq_wtype_info *info = sq_wtype_get(w->wtype);
    const int32_t sub = info->sub ? info->sub : SQ_GROUP;
    float scale = 0, bias = 0;
    if (!info->halves) memcpy(&scale, tile + scale_at(info, w->groups, 0, lane), sizeof scale);
    for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_GROUP) {
        uint8_t codes[SQ_GROUP];
        lane_get(w->wtype, tile + (size_t)(k0 / SQ_GROUP) * (size_t)info->record_bytes, lane, codes);
        const int32_t end = w->cols - k0 < SQ_GROUP ? w->cols - k0 : SQ_GROUP;
        for (int32_t k = 0; k < end; k += sub) {
            const uint8_t *at = tile + scale_at(info, w->groups, (k0 + k) / sub, lane);
            if (info->halves) scale = scale_value((sq_scale_type)w->scale_type, load_u16(at));
            if (info->bias)
                bias = scale_value((sq_scale_type)w->scale_type, load_u16(at + bias_behind(info)));
            decode_run(info, codes + k, scale, bias, end - k < sub ? end - k : sub, out + k0 + k);
        }
    }
}

/* ---- sums over a row, four lanes --------------------------------------------------------------- */

typedef struct {
    d4 ww, vv, wv, ee, max;
    i4 peak; /* largest |w| as bits: without their sign they rise as the floats do */
} distance;

/* Four pairs; a pair that is not finite counts as (0, 0) and as -1 in the result. */
SQ_VEC_INLINE i4 add_four(distance *s, f4 a, f4 b) {
    const i4 ok = f4_finite(a) & f4_finite(b);
    const d4 w = d4_from((f4)((i4)a & ok)), v = d4_from((f4)((i4)b & ok)), e = w - v;
    s->ww += w * w;
    s->vv += v * v;
    s->wv += w * v;
    s->ee += e * e;
    s->max = d4_max(d4_abs(e), s->max);
    const i4 size = (i4)a & ok & INT32_MAX, rises = size > s->peak;
    s->peak = (size & rises) | (s->peak & ~rises);
    return ~ok;
}

static inline double total(d4 x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline double larger(double a, double b) { return a > b ? a : b; }

/* |w - v| / |w| of one row: 0 if nothing differs, infinite where something came out of nothing. */
static inline double relative(double ee, double ww) {
    if (ee == 0) return 0;
    return ww > 0 ? sqrt(ee / ww) : HUGE_VAL;
}

SQ_VEC_INLINE void fidelity_row(sq_fidelity *f, const float *w, const float *v, int32_t n) {
    distance s = {{0}, {0}, {0}, {0}, {0}, {0}};
    i4 lost = {0};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) lost += add_four(&s, f4_load(w + i), f4_load(v + i));
    if (i < n) {
        float a[4] = {0}, b[4] = {0};
        memcpy(a, w + i, (size_t)(n - i) * sizeof *a);
        memcpy(b, v + i, (size_t)(n - i) * sizeof *b);
        lost += add_four(&s, f4_load(a), f4_load(b));
    }
    const double ww = total(s.ww), ee = total(s.ee);
    f->ww += ww;
    f->vv += total(s.vv);
    f->wv += total(s.wv);
    f->ee += ee;
    f->max_abs = larger(f->max_abs, larger(larger(s.max[0], s.max[1]), larger(s.max[2], s.max[3])));
    f->worst_row_rel = larger(f->worst_row_rel, relative(ee, ww));
    const f4 peak = (f4)s.peak;
    for (int k = 0; k < 4; k++) f->peak = larger(f->peak, (double)peak[k]);
    f->n += (uint64_t)n;
    f->n_nonfinite += (uint64_t)(-(lost[0] + lost[1] + lost[2] + lost[3]));
}

/* What a `compare` kernel is: row r of w, of a packed type, into back [cols]; its distance to row into f. */
SQ_VEC_INLINE void compare_row(const sq_weight *w, int32_t r, const float *row, float *back, sq_fidelity *f) {
    packed_row(w, w->data + (size_t)(r / SQ_TILE_ROWS) * w->tile_bytes, r % SQ_TILE_ROWS, back);
    fidelity_row(f, row, back, w->cols);
}

#endif
