/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_error.c - how far decoded weights are from their source.
 *
 * Sums in f64: a tensor of 10^9 elements keeps about seven digits of its error even when the error is 10^-4
 * of the weight. Elements where source or decoded value is not finite are counted and left out, so that one
 * NaN does not hide the rest of a report. */
#include "quant/quant_int.h"
#include "quant/quant_vec.h"

#include <math.h>

typedef struct {
    d2 ww, vv, wv, ee, max;
} sums;

static inline i4 f4_finite(f4 x) { return ((i4)x & 0x7F800000) != 0x7F800000; }

static inline void add_two(sums *s, d2 w, d2 v) {
    typedef int64_t l2 __attribute__((vector_size(16)));
    d2 e = w - v, size = (d2)((l2)e & INT64_MAX);
    l2 larger = size > s->max;
    s->ww += w * w;
    s->vv += v * v;
    s->wv += w * v;
    s->ee += e * e;
    s->max = (d2)(((l2)size & larger) | ((l2)s->max & ~larger));
}

/* Four pairs; a pair that is not finite counts as (0, 0) and as -1 in the result. */
static inline i4 add_four(sums *even, sums *odd, f4 w, f4 v) {
    i4 ok = f4_finite(w) & f4_finite(v);
    w = (f4)((i4)w & ok);
    v = (f4)((i4)v & ok);
    add_two(even, d2_low(w), d2_low(v));
    add_two(odd, d2_high(w), d2_high(v));
    return ~ok;
}

static inline double total(d2 a, d2 b) { return (a[0] + b[0]) + (a[1] + b[1]); }
static inline double larger(double a, double b) { return a > b ? a : b; }

/* |w - v| / |w| of one row: 0 if nothing differs, infinite where something came out of nothing. */
static double relative(double ee, double ww) {
    if (ee == 0) return 0;
    return ww > 0 ? sqrt(ee / ww) : HUGE_VAL;
}

void sq_fidelity_row(sq_fidelity *f, const float *w, const float *v, int32_t n) {
    sums even = {{0}, {0}, {0}, {0}, {0}}, odd = even;
    i4 lost = {0};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) lost += add_four(&even, &odd, f4_load(w + i), f4_load(v + i));
    if (i < n) {
        float a[4] = {0}, b[4] = {0};
        memcpy(a, w + i, (size_t)(n - i) * sizeof *a);
        memcpy(b, v + i, (size_t)(n - i) * sizeof *b);
        lost += add_four(&even, &odd, f4_load(a), f4_load(b));
    }
    double ww = total(even.ww, odd.ww), ee = total(even.ee, odd.ee);
    f->ww += ww;
    f->vv += total(even.vv, odd.vv);
    f->wv += total(even.wv, odd.wv);
    f->ee += ee;
    f->max_abs = larger(f->max_abs, larger(larger(even.max[0], even.max[1]), larger(odd.max[0], odd.max[1])));
    f->worst_row_rel = larger(f->worst_row_rel, relative(ee, ww));
    f->n += (uint64_t)n;
    f->n_nonfinite += (uint64_t)(-(lost[0] + lost[1] + lost[2] + lost[3]));
}

void sq_fidelity_merge(sq_fidelity *f, const sq_fidelity *g) {
    f->ww += g->ww;
    f->vv += g->vv;
    f->wv += g->wv;
    f->ee += g->ee;
    f->max_abs = larger(f->max_abs, g->max_abs);
    f->worst_row_rel = larger(f->worst_row_rel, g->worst_row_rel);
    f->n += g->n;
    f->n_nonfinite += g->n_nonfinite;
}

double sq_fidelity_cos(const sq_fidelity *f) {
    if (f->ww == 0 && f->vv == 0) return 1;
    if (f->ww == 0 || f->vv == 0) return 0;
    return f->wv / (sqrt(f->ww) * sqrt(f->vv));
}

double sq_fidelity_snr_db(const sq_fidelity *f) {
    if (f->ee == 0) return 999;
    if (f->ww == 0) return -999;
    return 10 * log10(f->ww / f->ee);
}
