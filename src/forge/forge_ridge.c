/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_ridge.c - regularised least squares by Cholesky's factor, in f64.
 *
 * G = L L^T with L in the place of G, made panel by panel; rows of a panel below its square do not know each
 * other and are shared out. Each number is one sum made by one thread in one order. Right sides are rows, so
 * that both substitutions run along rows of L. */
#include "forge/forge_look.h"

#include <math.h>

enum { PANEL = 48 };

static double dot(const double *x, const double *y, int32_t n) {
    double s[4] = {0};
    int32_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int32_t k = 0; k < 4; k++) s[k] += x[i + k] * y[i + k];
    for (; i < n; i++) s[0] += x[i] * y[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

typedef struct {
    double *g, *b;
    int32_t n, j0, j1;
} job;

/* Columns [j0, j1) of one row below. */
static void row_item(void *ctx, int32_t item, int32_t thread) {
    const job *c = ctx;
    const size_t n = (size_t)c->n;
    double *row = c->g + (size_t)(c->j1 + item) * n;
    (void)thread;
    for (int32_t j = c->j0; j < c->j1; j++) {
        const double *rj = c->g + (size_t)j * n;
        row[j] = (row[j] - dot(row, rj, j)) / rj[j];
    }
}

static bool square(const job *c) {
    const size_t n = (size_t)c->n;
    for (int32_t i = c->j0; i < c->j1; i++) {
        double *row = c->g + (size_t)i * n;
        for (int32_t j = c->j0; j < i; j++) {
            const double *rj = c->g + (size_t)j * n;
            row[j] = (row[j] - dot(row, rj, j)) / rj[j];
        }
        const double d = row[i] - dot(row, row, i);
        if (!(d > 0) || !isfinite(d)) return false;
        row[i] = sqrt(d);
    }
    return true;
}

/* L y = b, then L^T x = y, for one right side. */
static void side_item(void *ctx, int32_t item, int32_t thread) {
    const job *c = ctx;
    const size_t n = (size_t)c->n;
    double *x = c->b + (size_t)item * n;
    (void)thread;
    for (int32_t i = 0; i < c->n; i++) {
        const double *row = c->g + (size_t)i * n;
        x[i] = (x[i] - dot(row, x, i)) / row[i];
    }
    for (int32_t i = c->n - 1; i >= 0; i--) {
        const double *row = c->g + (size_t)i * n;
        x[i] /= row[i];
        for (int32_t j = 0; j < i; j++) x[j] -= x[i] * row[j];
    }
}

bool sq_ridge_solve(sq_pool *pool, double *g, int32_t n, int32_t free_, double ridge, double *b, int32_t k) {
    const int32_t held = n - free_;
    double trace = 0;
    for (int32_t i = 0; i < held; i++) trace += g[(size_t)i * (size_t)n + (size_t)i];
    for (int32_t i = 0; i < held; i++) g[(size_t)i * (size_t)n + (size_t)i] += ridge * trace / held;
    job c = {.g = g, .b = b, .n = n};
    for (; c.j0 < n; c.j0 = c.j1) {
        c.j1 = n - c.j0 < PANEL ? n : c.j0 + PANEL;
        if (!square(&c)) return false;
        sq_each(pool, row_item, &c, n - c.j1);
    }
    sq_each(pool, side_item, &c, k);
    return true;
}
