/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_int4.c - affine 4-bit groups: value = scale * code + bias, code 0..15, at most 64 weights.
 *
 * rtn repeats MLX's affine quantiser bit by bit, odd corners included: a model squish makes this way equals
 * the one its users already have.
 *
 * lsq looks for the least squared error. With codes fixed, the best scale and bias are a straight-line fit;
 * with scale and bias fixed, the best codes are the nearest ones. Doing the two in turn (Lloyd, 1982, on a
 * uniform grid) can only go down, but it stops in the local minimum beside its start. So the search begins
 * from several ranges, shrunk about their middle, because clipping one outlier a little is often worth a
 * finer grid for the other 63; the best is refined, nudged aside and refined again. On Gaussian groups with
 * bf16 scales four starts and four nudges, about 17 passes, reach 21.79 dB; refining three of six starts
 * takes 14 passes to 21.67 dB, and 36 starts refined to the end reach 21.84 dB at twenty times the cost. Zero
 * kept on a code in every start: +0.03 dB on half-empty matrices, -0.06 dB else.
 *
 * Every scale and bias is rounded to its 16 stored bits before codes are chosen for it, so the error that is
 * compared is the one a reader gets. The order of every sum is fixed by the source: the same file comes out
 * on every machine. */
#include "quant/quant_int.h"
#include "quant/quant_vec.h"

#include <assert.h>
#include <math.h>

enum { CODE_MAX = 15, VECS = SQ_GROUP / 4 };

/* The nearest code. Clamping first gives the same as clamping last, since 0 and 15 are integers, and keeps
 * the numbers small enough for f4_round. NaN becomes 0. */
static inline f4 f4_code(f4 x) {
    x = (f4)((i4)x & (x > f4_all(0)));
    return f4_round(f4_min(x, f4_all((float)CODE_MAX)));
}

/* ---- a group --------------------------------------------------------------------------------- */

typedef struct {
    f4 w[VECS]; /* a group shorter than 64 is padded with whatever leaves no trace in the result */
    int32_t n;
    sq_scale_type st;
    float lo, hi;
    double sum; /* of the n weights */
} group;

static void pad(group *g, float x) {
    for (int32_t i = g->n; i < SQ_GROUP; i++) g->w[i / 4][i % 4] = x;
}

static void group_init(group *g, const float *w, int32_t n, sq_scale_type st) {
    assert(n > 0 && n <= SQ_GROUP && st != SQ_SCALE_F32);
    memcpy(g->w, w, (size_t)n * sizeof *w);
    g->n = n;
    g->st = st;
    pad(g, w[0]);
    f4 lo = f4_all(HUGE_VALF), hi = -lo;
    for (int32_t i = 0; i < VECS; i++) { /* comparisons with NaN are false: NaN is passed over */
        lo = f4_min(g->w[i], lo);
        hi = f4_max(g->w[i], hi);
    }
    d2 sum = {0};
    for (int32_t i = 0; i < VECS; i++) sum += d2_low(g->w[i]) + d2_high(g->w[i]);
    g->sum = sum[0] + sum[1] - (double)(SQ_GROUP - n) * (double)w[0];
    g->lo = lo[0];
    g->hi = hi[0];
    for (int32_t l = 1; l < 4; l++) {
        g->lo = lo[l] < g->lo ? lo[l] : g->lo;
        g->hi = hi[l] > g->hi ? hi[l] : g->hi;
    }
}

/* ---- round to nearest, as MLX does it -------------------------------------------------------- */

/* Codes come from scale and bias before they are rounded; (w - b) / s is a division. */
static void round_to_nearest(const group *g, uint8_t codes[SQ_GROUP], uint16_t *scale, uint16_t *bias) {
    float s = (g->hi - g->lo) / (float)CODE_MAX, b = 0;
    s = s > 1e-7f ? s : 1e-7f;
    bool low_edge = fabsf(g->lo) > fabsf(g->hi); /* the edge farther from 0 is hit, and 0 by a whole code */
    if (!low_edge) s = -s;
    float edge = low_edge ? g->lo : g->hi, steps = rintf(edge / s);
    if (steps != 0) {
        s = edge / steps;
        b = edge;
    }
    int32_t whole[SQ_GROUP];
    for (int32_t i = 0; i < VECS; i++) put_whole(f4_code((g->w[i] - f4_all(b)) / f4_all(s)), whole + 4 * i);
    narrow_64(whole, codes);
    *scale = scale_store(g->st, s);
    *bias = scale_store(g->st, b);
}

void sq_quant_i4_rtn(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias) {
    group g;
    uint8_t all[SQ_GROUP];
    group_init(&g, w, n, st);
    round_to_nearest(&g, all, scale, bias);
    memcpy(codes, all, (size_t)n);
}

/* ---- least squares --------------------------------------------------------------------------- */

typedef struct {
    uint16_t scale, bias; /* stored bits, */
    float s, b;           /* and their values */
    float error;          /* sum over the group of (weight - value)^2 */
    float q, qq, qd;      /* sums of code, code^2 and code * d, d = weight - bias: what the next fit needs */
} grid;

static void set_scale(grid *r, sq_scale_type st, float scale) {
    r->scale = scale_store(st, scale);
    r->s = sq_scale_to_f32(st, r->scale);
}

static void set_bias(grid *r, sq_scale_type st, float bias) {
    r->bias = scale_store(st, bias);
    r->b = sq_scale_to_f32(st, r->bias);
}

static inline float inverse_of(float s) { return s != 0 ? 1.0f / s : 0; }

typedef struct {
    f4 error, q, qq, qd;
} sums;

static inline void add_four(sums *t, f4 w, f4 s, f4 b, f4 inverse) {
    f4 d = w - b, code = f4_code(d * inverse), e = d - s * code;
    t->error += e * e;
    t->q += code;
    t->qq += code * code;
    t->qd += code * d;
}

/* Choose the codes for scale and bias as stored, and measure. Padding at the bias has code, d and error 0. */
static void measure(group *g, grid *r) {
    const f4 s = f4_all(r->s), b = f4_all(r->b), inverse = f4_all(inverse_of(r->s));
    sums even = {f4_all(0), f4_all(0), f4_all(0), f4_all(0)}, odd = even;
    pad(g, r->b);
    for (int32_t i = 0; i < VECS; i += 2) {
        add_four(&even, g->w[i], s, b, inverse);
        add_four(&odd, g->w[i + 1], s, b, inverse);
    }
    r->error = f4_sum(even.error, odd.error);
    r->q = f4_sum(even.q, odd.q);
    r->qq = f4_sum(even.qq, odd.qq);
    r->qd = f4_sum(even.qd, odd.qd);
}

static grid try_grid(group *g, float scale, float bias) {
    grid r;
    set_scale(&r, g->st, scale);
    set_bias(&r, g->st, bias);
    measure(g, &r);
    return r;
}

/* The straight line through (code, d). The bias is fitted to the scale as stored, which takes back most of
 * what rounding the scale to 8 or 11 bits costs. False if all codes are alike or the line is the old one. */
static bool fit(const group *g, const grid *from, grid *next) {
    double n = g->n, q = (double)from->q, d = g->sum - n * (double)from->b;
    double det = n * (double)from->qq - q * q; /* whole numbers below 2^24: exact */
    if (!(det > 0)) return false;
    set_scale(next, g->st, (float)((n * (double)from->qd - q * d) / det));
    set_bias(next, g->st, (float)((double)from->b + (d - (double)next->s * q) / n));
    return next->scale != from->scale || next->bias != from->bias;
}

/* Fit and re-code until nothing changes or it stops paying. */
static grid refine(group *g, grid best, int32_t steps) {
    grid next;
    while (steps-- > 0 && fit(g, &best, &next)) {
        measure(g, &next);
        if (!(next.error < best.error)) break;
        best = next;
    }
    return best;
}

/* Where to start: rtn's grid, which keeps zero on a code, and the range shrunk about its middle. Where to go
 * from a local minimum: aside by a third of a step, or wider and narrower by 4 %, which moves the ends by a
 * third of a step. */
static const float starts[] = {0.95f, 0.86f, 0.77f};
static const struct {
    float widen, shift; /* in scales */
} nudges[] = {{0, 0.33f}, {0, -0.33f}, {0.04f, 0}, {-0.04f, 0}};

static grid search(group *g, grid best) {
    float mid = 0.5f * g->lo + 0.5f * g->hi, half = 0.5f * g->hi - 0.5f * g->lo;
    for (size_t k = 0; k < SQ_COUNT(starts); k++) {
        float reach = half * starts[k];
        grid r = try_grid(g, reach * (2.0f / (float)CODE_MAX), mid - reach);
        if (r.error < best.error) best = r;
    }
    best = refine(g, best, 2);
    for (size_t k = 0; k < SQ_COUNT(nudges); k++) {
        float wider = best.s * nudges[k].widen;
        float shift = best.s * nudges[k].shift - wider * (0.5f * (float)CODE_MAX);
        grid r = refine(g, try_grid(g, best.s + wider, best.b + shift), 2);
        if (r.error < best.error) best = r;
    }
    return refine(g, best, 4);
}

/* The codes measure chose. */
static void codes_of(const group *g, const grid *r, uint8_t codes[SQ_GROUP]) {
    int32_t whole[SQ_GROUP];
    f4 b = f4_all(r->b), inverse = f4_all(inverse_of(r->s));
    for (int32_t i = 0; i < VECS; i++) put_whole(f4_code((g->w[i] - b) * inverse), whole + 4 * i);
    narrow_64(whole, codes);
}

/* What a reader of these codes gets wrong, in f64. */
static double true_error(const float *w, int32_t n, sq_scale_type st, const uint8_t *codes, uint16_t scale,
                         uint16_t bias) {
    float s = sq_scale_to_f32(st, scale), b = sq_scale_to_f32(st, bias), v[SQ_GROUP];
    sq_fidelity f = {0};
    for (int32_t i = 0; i < n; i++) v[i] = s * (float)codes[i] + b;
    sq_fidelity_row(&f, w, v, n);
    return f.ee;
}

void sq_quant_i4_lsq(const float *w, int32_t n, sq_scale_type st, uint8_t *codes, uint16_t *scale,
                     uint16_t *bias) {
    group g;
    uint8_t plain[SQ_GROUP], found[SQ_GROUP];
    group_init(&g, w, n, st);
    round_to_nearest(&g, plain, scale, bias);
    grid r = search(&g, try_grid(&g, sq_scale_to_f32(st, *scale), sq_scale_to_f32(st, *bias)));
    codes_of(&g, &r, found);
    bool better = true_error(w, n, st, found, r.scale, r.bias) < true_error(w, n, st, plain, *scale, *bias);
    memcpy(codes, better ? found : plain, (size_t)n);
    if (better) {
        *scale = r.scale;
        *bias = r.bias;
    }
}
