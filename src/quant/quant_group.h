/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_group.h - quantisers of one group or row, inline, so that the folders of kernels/ can compile the
 * very same lines under their own flags. Nothing here depends on the width of a register: sums have eight
 * lanes and no product is fused with an addition, so the same bytes come out everywhere.
 *
 * ## Affine groups: value = scale * code + bias, at most 64 weights, codes 0 .. 2^bits - 1
 *
 * rtn repeats MLX's affine quantiser bit by bit, odd corners included: a model squish makes this way equals
 * the one its users already have.
 *
 * lsq looks for the least squared error. With codes fixed, the best scale and bias are a straight-line fit;
 * with scale and bias fixed, the best codes are the nearest ones. Doing the two in turn (Lloyd, 1982, on a
 * uniform grid) can only go down, but it stops in the local minimum beside its start. So the search begins
 * from several ranges, shrunk about their middle, because clipping one outlier a little is often worth a
 * finer grid for the other 63; the best is refined, nudged aside and refined again. On Gaussian groups with
 * bf16 scales and 4 bits four starts and four nudges, about 17 passes, reach 21.79 dB; refining three of six
 * starts takes 14 passes to 21.67 dB, and 36 starts refined to the end reach 21.84 dB at twenty times the
 * cost. Zero kept on a code in every start: +0.03 dB on half-empty matrices, -0.06 dB else.
 *
 * Every scale and bias is rounded to its 16 stored bits before codes are chosen for it, so the error that is
 * compared is the one a reader gets. With importance the same sums are weighted, and the fit with them.
 *
 * ## Symmetric 8-bit codes: value = scale * code, scale = max|w| / 127
 *
 * Codes are computed from the scale as it is stored, so |w - value| <= scale / 2 holds for what a reader
 * sees, and never use -128: kernels may negate a code, and 127 * 127 * 2 fits the 16-bit sums of a byte dot
 * product. Ties go to even, w / scale is a true division: the same codes as a vectorised array program gives,
 * on every machine. */
#ifndef SQ_QUANT_GROUP_H
#define SQ_QUANT_GROUP_H

#include "quant/quant_num.h"
#include "quant/quant_vec.h"

#include <assert.h>
#include <math.h>

enum { GROUP_VECS = SQ_GROUP / 8 };

typedef struct {
    f8 w[GROUP_VECS];          /* a group shorter than 64 is padded with what leaves no trace */
    f8 h[GROUP_VECS];          /* importance, largest 1, padded with 0; unset where not weighted */
    int32_t n, vecs;           /* weights, and vectors in use: 4 or 8 */
    sq_scale_type st;
    bool weighted;
    float top;                 /* the largest code */
    float lo, hi;
    double sum, mass;          /* of the weights times importance, and of the importance: n if not weighted */
} affine_group;

/* The nearest code. Clamping first gives the same as clamping last, since the ends are integers, and keeps
 * the numbers small enough for f8_round. NaN becomes 0. */
SQ_VEC_INLINE f8 nearest_code(f8 x, f8 top) { return f8_round(f8_min(f8_max(x, f8_all(0)), top)); }

static inline void group_pad(affine_group *g, float x) {
    for (int32_t i = g->n; i < 8 * g->vecs; i++) g->w[i / 8][i % 8] = x;
}

static inline void group_range(affine_group *g) {
    f8 lo = f8_all(HUGE_VALF), hi = -lo;
    for (int32_t i = 0; i < g->vecs; i++) { /* comparisons with NaN are false: NaN is passed over */
        lo = f8_min(g->w[i], lo);
        hi = f8_max(g->w[i], hi);
    }
    g->lo = -f8_largest(-lo);
    g->hi = f8_largest(hi);
}

static inline void group_init(affine_group *g, int32_t bits, const float *w, int32_t n, sq_scale_type st) {
    assert(n > 0 && n <= SQ_GROUP && st != SQ_SCALE_F32 && bits >= 2 && bits <= 4);
    memcpy(g->w, w, (size_t)n * sizeof *w);
    g->n = n;
    g->vecs = n <= SQ_GROUP / 2 ? GROUP_VECS / 2 : GROUP_VECS;
    g->st = st;
    g->weighted = false;
    g->top = (float)((1 << bits) - 1);
    group_pad(g, w[0]);
    group_range(g);
}

/* What only the search needs. */
static inline void group_sums(affine_group *g, const float *w, const float *importance) {
    float most = 0;
    for (int32_t i = 0; importance && i < g->n; i++) most = importance[i] > most ? importance[i] : most;
    g->weighted = most > 0 && most < HUGE_VALF;
    if (!g->weighted) {
        g->mass = g->n;
        d2 sum = {0};
        for (int32_t i = 0; i < 8 * g->vecs; i += 4) {
            const f4 four = f4_load((const float *)g->w + i);
            sum += d2_low(four) + d2_high(four);
        }
        g->sum = sum[0] + sum[1] - (double)(8 * g->vecs - g->n) * (double)w[0];
        return;
    }
    g->mass = g->sum = 0;
    for (int32_t i = 0; i < 8 * g->vecs; i++) {
        const float h = i < g->n && importance[i] > 0 ? importance[i] / most : 0;
        g->h[i / 8][i % 8] = h;
        g->mass += (double)h;
        g->sum += (double)h * (double)g->w[i / 8][i % 8];
    }
}

/* ---- round to nearest, as MLX does it -------------------------------------------------------- */

/* Codes come from scale and bias before they are rounded; (w - b) / s is a division. */
static inline void round_to_nearest(const affine_group *g, uint8_t codes[SQ_GROUP], uint16_t *scale,
                                    uint16_t *bias) {
    float s = (g->hi - g->lo) / g->top, b = 0;
    s = s > 1e-7f ? s : 1e-7f;
    bool low_edge = fabsf(g->lo) > fabsf(g->hi); /* the edge farther from 0 is hit, and 0 by a whole code */
    if (!low_edge) s = -s;
    float edge = low_edge ? g->lo : g->hi, steps = rintf(edge / s);
    if (steps != 0) {
        s = edge / steps;
        b = edge;
    }
    int32_t whole[SQ_GROUP] = {0};
    for (int32_t i = 0; i < g->vecs; i++)
        put_whole(nearest_code((g->w[i] - f8_all(b)) / f8_all(s), f8_all(g->top)), whole + 8 * i);
    narrow(whole, SQ_GROUP, codes);
    *scale = scale_store(g->st, s);
    *bias = scale_store(g->st, b);
}

/* ---- least squares --------------------------------------------------------------------------- */

typedef struct {
    uint16_t scale, bias; /* stored bits, */
    float s, b;           /* and their values */
    float error;          /* sum over the group of (weight - value)^2 */
    float q, qq, qd;      /* sums of code, code^2 and code * d, d = weight - bias: what the next fit needs */
} affine_grid;

static inline void set_scale(affine_grid *r, sq_scale_type st, float scale) {
    r->scale = scale_store(st, scale);
    r->s = scale_value(st, r->scale);
}

static inline void set_bias(affine_grid *r, sq_scale_type st, float bias) {
    r->bias = scale_store(st, bias);
    r->b = scale_value(st, r->bias);
}

static inline float inverse_of(float s) { return s != 0 ? 1.0f / s : 0; }

/* Choose the codes for scale and bias as stored, and measure. Padding has error 0: at the bias it has code
 * and d 0, and where the group is weighted its importance is 0. */
SQ_VEC_INLINE void measure_as(affine_group *g, affine_grid *r, int32_t vecs, bool weighted) {
    const f8 s = f8_all(r->s), b = f8_all(r->b), inverse = f8_all(inverse_of(r->s)), top = f8_all(g->top);
    f8 error = f8_all(0), q = error, qq = error, qd = error;
    if (!weighted && g->n < 8 * vecs) group_pad(g, r->b);
    for (int32_t i = 0; i < vecs; i++) {
        const f8 d = g->w[i] - b, code = nearest_code(d * inverse, top), e = d - s * code;
        const f8 he = weighted ? g->h[i] * e : e, hq = weighted ? g->h[i] * code : code;
        error += he * e;
        q += hq;
        qq += hq * code;
        qd += hq * d;
    }
    r->error = f8_sum(error);
    r->q = f8_sum(q);
    r->qq = f8_sum(qq);
    r->qd = f8_sum(qd);
}

static inline void measure(affine_group *g, affine_grid *r) {
    if (g->weighted) measure_as(g, r, g->vecs, true);
    else if (g->vecs == GROUP_VECS) measure_as(g, r, GROUP_VECS, false);
    else measure_as(g, r, GROUP_VECS / 2, false);
}

static inline affine_grid try_grid(affine_group *g, float scale, float bias) {
    affine_grid r;
    set_scale(&r, g->st, scale);
    set_bias(&r, g->st, bias);
    measure(g, &r);
    return r;
}

/* The straight line through (code, d). The bias is fitted to the scale as stored, which takes back most of
 * what rounding the scale to 8 or 11 bits costs. False if all codes are alike or the line is the old one.
 * Unweighted, q, qq and det are whole numbers below 2^24: exact. */
static inline bool fit(const affine_group *g, const affine_grid *from, affine_grid *next) {
    const double q = (double)from->q, d = g->sum - g->mass * (double)from->b;
    const double det = g->mass * (double)from->qq - q * q;
    if (!(det > 0)) return false;
    set_scale(next, g->st, (float)((g->mass * (double)from->qd - q * d) / det));
    set_bias(next, g->st, (float)((double)from->b + (d - (double)next->s * q) / g->mass));
    return next->scale != from->scale || next->bias != from->bias;
}

/* Fit and re-code until nothing changes or it stops paying. */
static inline affine_grid refine(affine_group *g, affine_grid best, int32_t steps) {
    affine_grid next;
    while (steps-- > 0 && fit(g, &best, &next)) {
        measure(g, &next);
        if (!(next.error < best.error)) break;
        best = next;
    }
    return best;
}

/* Where to start: rtn's grid, which keeps zero on a code, and the range shrunk about its middle. Where to go
 * from a local minimum: aside by a third of a step, or wider and narrower by 4 %, which moves the ends of 16
 * codes by a third of a step. */
static inline affine_grid search(affine_group *g, affine_grid best) {
    static const float starts[] = {0.95f, 0.86f, 0.77f, 0.68f, 0.59f};
    static const struct {
        float widen, shift; /* in scales */
    } nudges[] = {{0, 0.33f}, {0, -0.33f}, {0.04f, 0}, {-0.04f, 0}};
    const float mid = 0.5f * g->lo + 0.5f * g->hi, half = 0.5f * g->hi - 0.5f * g->lo;
    const size_t n_starts = g->top > 7 ? 3 : SQ_COUNT(starts); /* few codes clip more */
    for (size_t k = 0; k < n_starts; k++) {
        float reach = half * starts[k];
        affine_grid r = try_grid(g, reach * (2.0f / g->top), mid - reach);
        if (r.error < best.error) best = r;
    }
    best = refine(g, best, 2);
    for (size_t k = 0; k < SQ_COUNT(nudges); k++) {
        float wider = best.s * nudges[k].widen;
        float shift = best.s * nudges[k].shift - wider * (0.5f * g->top);
        affine_grid r = refine(g, try_grid(g, best.s + wider, best.b + shift), 2);
        if (r.error < best.error) best = r;
    }
    return refine(g, best, 4);
}

/* The codes measure chose. */
static inline void codes_of(const affine_group *g, const affine_grid *r, uint8_t codes[SQ_GROUP]) {
    int32_t whole[SQ_GROUP] = {0};
    const f8 b = f8_all(r->b), inverse = f8_all(inverse_of(r->s));
    for (int32_t i = 0; i < g->vecs; i++)
        put_whole(nearest_code((g->w[i] - b) * inverse, f8_all(g->top)), whole + 8 * i);
    narrow(whole, SQ_GROUP, codes);
}

/* What a reader of these codes gets wrong, in f64. A weight that is not finite makes it NaN. */
static inline double true_error(const affine_group *g, const float *w, const uint8_t *codes, uint16_t scale,
                                uint16_t bias) {
    const float s = scale_value(g->st, scale), b = scale_value(g->st, bias);
    double e[SQ_GROUP] = {0}, sums[4] = {0};
    for (int32_t i = 0; i < g->n; i++) e[i] = (double)w[i] - (double)(s * (float)codes[i] + b);
    for (int32_t i = 0; i < 8 * g->vecs; i++)
        sums[i & 3] += (g->weighted ? (double)g->h[i / 8][i % 8] : 1.0) * e[i] * e[i];
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

static inline void group_affine(int32_t bits, sq_quant_method m, const float *w, const float *importance,
                                int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                                uint16_t *bias) {
    affine_group g;
    uint8_t plain[SQ_GROUP], found[SQ_GROUP];
    group_init(&g, bits, w, n, st);
    round_to_nearest(&g, plain, scale, bias);
    memcpy(codes, plain, (size_t)n);
    if (m == SQ_QUANT_RTN) return;
    group_sums(&g, w, importance);
    const affine_grid r = search(&g, try_grid(&g, scale_value(st, *scale), scale_value(st, *bias)));
    codes_of(&g, &r, found);
    if (!(true_error(&g, w, found, r.scale, r.bias) < true_error(&g, w, plain, *scale, *bias))) return;
    memcpy(codes, found, (size_t)n);
    *scale = r.scale;
    *bias = r.bias;
}

/* ---- symmetric 8 bits ------------------------------------------------------------------------ */

/* max |w[i]| and `so_far`; NaN counts as 0. */
static inline float max_abs(const float *w, int32_t n, float so_far) {
    f8 most = f8_all(so_far);
    int32_t i = 0;
    for (; i + 8 <= n; i += 8) most = f8_max(f8_abs(f8_load(w + i)), most);
    if (i < n) {
        float tail[8] = {0};
        memcpy(tail, w + i, sizeof *tail * (size_t)(n - i));
        most = f8_max(f8_abs(f8_load(tail)), most);
    }
    return f8_largest(most);
}

/* 32 or 64 codes; NaN ends at -127: never an undefined conversion. */
SQ_VEC_INLINE void int8_whole(const float *w, int32_t n, float scale, uint8_t *codes) {
    int32_t whole[SQ_GROUP];
    for (int32_t i = 0; i < n; i += 8) {
        f8 x = f8_load(w + i) / f8_all(scale);
        put_whole(f8_round(f8_min(f8_max(x, f8_all(-127.0f)), f8_all(127.0f))), whole + i);
    }
    narrow(whole, n, codes);
}

/* Codes of n <= 64 weights under a given scale (0: all codes 0), as bytes. */
static inline void int8_codes(const float *w, int32_t n, float scale, uint8_t *codes) {
    if (scale == 0) {
        memset(codes, 0, (size_t)n);
    } else if (n == SQ_GROUP) {
        int8_whole(w, SQ_GROUP, scale, codes);
    } else if (n == SQ_GROUP / 2) {
        int8_whole(w, SQ_GROUP / 2, scale, codes);
    } else {
        float tail[SQ_GROUP] = {0};
        uint8_t out[SQ_GROUP];
        memcpy(tail, w, sizeof *tail * (size_t)n);
        int8_whole(tail, SQ_GROUP, scale, out);
        memcpy(codes, out, (size_t)n);
    }
}

/* The largest weight must come out as 127 after rounding: 127.5 scales reach it. Only scales that are
 * subnormal in their stored type round far enough down to miss that; the next larger one is right. */
static inline bool reaches(float scale, float max) { return (double)scale * 127.5 >= (double)max; }

static inline uint16_t int8_group_scale(float max, sq_scale_type st) {
    uint16_t bits = scale_store(st, max / 127.0f);
    if (!reaches(scale_value(st, bits), max) && bits < scale_max(st)) bits++;
    return bits;
}

static inline float int8_row_scale(float max) {
    float s = max / 127.0f;
    return reaches(s, max) ? s : bits_float(float_bits(s) + 1);
}

/* ---- ternary --------------------------------------------------------------------------------- */

/* At most 64 codes 0, 1, 2; gamma 0: all 1, the value 0, and so is NaN. */
static inline void ternary_codes(const float *w, int32_t n, float gamma, uint8_t *codes) {
    float all[SQ_GROUP] = {0};
    int32_t whole[SQ_GROUP];
    uint8_t out[SQ_GROUP];
    memcpy(all, w, sizeof *all * (size_t)n);
    for (int32_t i = 0; i < SQ_GROUP; i += 8) {
        f8 x = gamma != 0 ? f8_load(all + i) / f8_all(gamma) : f8_all(0);
        x = (f8)((i8)x & (x == x));
        x = f8_round(f8_min(f8_max(x, f8_all(-1)), f8_all(1)));
        put_whole(x + f8_all(1), whole + i);
    }
    narrow(whole, SQ_GROUP, out);
    memcpy(codes, out, (size_t)n);
}

#endif
