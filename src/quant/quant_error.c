/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_error.c - how far decoded weights are from their source.
 *
 * Sums in f64: a tensor of 10^9 elements keeps about seven digits of its error even when the error is 10^-4
 * of the weight. Elements where source or decoded value is not finite are counted and left out, so that one
 * NaN does not hide the rest of a report. */
#include "quant/quant_compare.h"

#include <math.h>

void sq_fidelity_row(sq_fidelity *f, const float *w, const float *v, int32_t n) { fidelity_row(f, w, v, n); }

void sq_fidelity_merge(sq_fidelity *f, const sq_fidelity *g) {
    f->ww += g->ww;
    f->vv += g->vv;
    f->wv += g->wv;
    f->ee += g->ee;
    f->max_abs = larger(f->max_abs, g->max_abs);
    f->worst_row_rel = larger(f->worst_row_rel, g->worst_row_rel);
    f->peak = larger(f->peak, g->peak);
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
