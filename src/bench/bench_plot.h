/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_plot.h - line plots and a roofline as inline SVG. Colours are CSS classes of the page: a, b, c for
 * series, limit for what the machine allows. */
#ifndef SQ_BENCH_PLOT_H
#define SQ_BENCH_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { PLOT_POINTS_MAX = 16, PLOT_SERIES_MAX = 6 };

typedef struct {
    const char *name, *style; /* style: CSS class of its line, dots and labels */
    double x[PLOT_POINTS_MAX], y[PLOT_POINTS_MAX], label[PLOT_POINTS_MAX];
    const char *note[PLOT_POINTS_MAX]; /* what hovering over a dot says; NULL: nothing. The caller's. */
    size_t n;
    bool line, dots, labels; /* labels: a number beside each dot */
    bool below;              /* labels under the dots, for two series that meet */
} plot_series;

typedef struct {
    const char *title, *x_name, *y_name;
    plot_series s[PLOT_SERIES_MAX];
    size_t n;
    bool log_x, log_y; /* to base 2 and 10; a linear y begins at 0 */
    bool wide;         /* takes both columns of the page */
} plot;

/* label: the number beside the dot. A full series takes no more. */
void plot_add(plot_series *s, double x, double y, double label, const char *note);
/* The <figure>: title, legend, plot. Nothing if there is no point. */
void plot_write(FILE *f, const plot *p);
/* Text for HTML and attributes. */
void plot_escaped(FILE *f, const char *s);

#endif
