/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_row.c - one measurement with its spread, as JSON. */
#include "bench/bench.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double middle(const double *v, int32_t n) { return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2; }

double bench_median(double *values, int32_t n) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    return middle(values, n);
}

squish_status bench_check_runs(const bench_options *o, squish_error *err) {
    if (o->runs >= 1 && o->runs <= BENCH_RUNS_MAX) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "runs is %d, wanted 1 to %d", o->runs, BENCH_RUNS_MAX);
}

squish_status bench_row(json_t *rows, const char *name, const char *unit, double *values, int32_t n,
                        double limit, bench_sense sense, squish_error *err) {
    double sum = 0, squares = 0;
    if (n < 1) return SQUISH_OK;
    const double median = bench_median(values, n);
    for (int32_t i = 0; i < n; i++) sum += values[i];
    const double mean = sum / n, noise = (values[n - 1 - n / 4] - values[n / 4]) / 2;
    for (int32_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    json_t *row = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:i}", "name", name, "unit", unit,
                            "value", median, "mean", mean, "sd", n > 1 ? sqrt(squares / (n - 1)) : 0.0,
                            "noise", noise, "min", values[0], "max", values[n - 1], "runs", n);
    if (row && !isnan(limit)) {
        const double share = sense == BENCH_SMALL_IS_GOOD ? limit / median : median / limit;
        json_object_set_new(row, "limit", json_real(limit));
        json_object_set_new(row, "share", json_real(share));
    }
    if (!row || json_array_append_new(rows, row) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    return SQUISH_OK;
}
