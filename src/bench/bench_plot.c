/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_plot.c - line plots as inline SVG, drawn for a column 620 units wide, or two of them. */
#include "bench/bench_plot.h"

#include <math.h>

enum {
    COLUMN = 620,
    TWO_COLUMNS = 1250,
    HEIGHT = 340,
    LEFT = 62,
    RIGHT = 22,
    TOP = 22,
    BOTTOM = 48,
    TICKS_MAX = 16
};

void plot_add(plot_series *s, double x, double y, double label, const char *note) {
    if (s->n == PLOT_POINTS_MAX || !isfinite(x) || !isfinite(y)) return;
    s->x[s->n] = x, s->y[s->n] = y, s->label[s->n] = label, s->note[s->n] = note;
    s->n++;
}

void plot_escaped(FILE *f, const char *s) {
    for (; s && *s; s++) {
        if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '>')
            fputs("&gt;", f);
        else if (*s == '&')
            fputs("&amp;", f);
        else if (*s == '"')
            fputs("&quot;", f);
        else
            fputc(*s, f);
    }
}

/* ---- axes ------------------------------------------------------------------------------------ */

typedef struct {
    double lo, hi; /* as drawn: logarithms where log is set */
    double width;  /* of the whole drawing */
    double tick[TICKS_MAX];
    size_t n;
    bool log;
} axis;

static double on_axis(const axis *a, double v) {
    const double u = a->log ? log2(v) : v;
    return (u - a->lo) / (a->hi - a->lo);
}

static void add_tick(axis *a, double v) {
    for (size_t i = 0; i < a->n; i++)
        if (fabs(a->tick[i] - v) < 1e-9 * fabs(v)) return;
    if (a->n < TICKS_MAX) a->tick[a->n++] = v;
}

/* From 0, in steps of 1, 2 or 5 times a power of ten, four to seven of them. */
static void axis_linear(axis *a, double most) {
    const double rough = most / 5, power = pow(10, floor(log10(rough))), r = rough / power;
    const double step = (r < 1.5 ? 1 : r < 3.5 ? 2 : r < 7.5 ? 5 : 10) * power;
    a->lo = 0;
    a->hi = ceil(most * 1.06 / step) * step;
    for (double v = 0; v <= a->hi + step / 2; v += step) add_tick(a, v);
}

static void axis_powers(axis *a, double least, double most, double base) {
    const double lo = floor(log(least) / log(base)), hi = ceil(log(most) / log(base));
    const double every = ceil((hi - lo) / 8);
    for (double k = lo; k <= hi; k += every > 1 ? every : 1) add_tick(a, pow(base, k));
    a->lo = log2(pow(base, lo)), a->hi = log2(pow(base, hi));
}

/* Ticks where the points are; a little air on both sides. */
static void axis_points(axis *a, const plot *p) {
    double lo = INFINITY, hi = -INFINITY;
    for (size_t k = 0; k < p->n; k++)
        for (size_t i = 0; i < p->s[k].n; i++) {
            const double x = p->s[k].x[i], u = a->log ? log2(x) : x;
            lo = fmin(lo, u), hi = fmax(hi, u);
            add_tick(a, x);
        }
    const double air = hi > lo ? (hi - lo) * 0.06 : 0.5;
    a->lo = lo - air, a->hi = hi + air;
}

static bool axes(const plot *p, axis *ax, axis *ay) {
    double x_lo = INFINITY, x_hi = 0, y_lo = INFINITY, y_hi = 0;
    for (size_t k = 0; k < p->n; k++)
        for (size_t i = 0; i < p->s[k].n; i++) {
            x_lo = fmin(x_lo, p->s[k].x[i]), x_hi = fmax(x_hi, p->s[k].x[i]);
            y_lo = fmin(y_lo, p->s[k].y[i]), y_hi = fmax(y_hi, p->s[k].y[i]);
        }
    if (!(y_hi > 0) || !(y_lo > 0) || !(x_lo > 0)) return false;
    *ax = (axis){.log = p->log_x, .width = p->wide ? TWO_COLUMNS : COLUMN};
    *ay = (axis){.log = p->log_y};
    if (p->log_y)
        axis_powers(ay, y_lo, y_hi, 10);
    else
        axis_linear(ay, y_hi);
    if (p->log_y)
        axis_powers(ax, x_lo, x_hi, 2); /* a roofline: its points lie anywhere */
    else
        axis_points(ax, p);
    return true;
}

static double px(const axis *a, double v) { return LEFT + (a->width - LEFT - RIGHT) * on_axis(a, v); }
static double py(const axis *a, double v) {
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * on_axis(a, v);
}

static void put_number(FILE *f, double v) {
    if (v >= 10000 && fmod(v, 1024) == 0)
        fprintf(f, "%.0fk", v / 1024);
    else if (v >= 10000)
        fprintf(f, "%gk", v / 1000);
    else if (v == floor(v) || v >= 100)
        fprintf(f, "%.0f", v);
    else
        fprintf(f, v >= 10 ? "%.1f" : "%.2g", v);
}

static void draw_axes(FILE *f, const plot *p, const axis *ax, const axis *ay) {
    const int right = (int)ax->width - RIGHT;
    for (size_t i = 0; i < ay->n; i++) {
        const double y = py(ay, ay->tick[i]);
        fprintf(f, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, right, y, y);
        fprintf(f, "<text class=\"tick\" text-anchor=\"end\" x=\"%d\" y=\"%.1f\">", LEFT - 8, y + 4);
        put_number(f, ay->tick[i]);
        fputs("</text>\n", f);
    }
    for (size_t i = 0; i < ax->n; i++) {
        fprintf(f, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">", px(ax, ax->tick[i]),
                HEIGHT - BOTTOM + 18);
        put_number(f, ax->tick[i]);
        fputs("</text>\n", f);
    }
    fprintf(f, "<line class=\"axis\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>\n", LEFT, right,
            HEIGHT - BOTTOM, HEIGHT - BOTTOM);
    fprintf(f, "<text class=\"name\" text-anchor=\"middle\" x=\"%d\" y=\"%d\">", (LEFT + right) / 2,
            HEIGHT - 8);
    plot_escaped(f, p->x_name);
    fprintf(f, "</text>\n<text class=\"name\" x=\"%d\" y=\"12\">", 4);
    plot_escaped(f, p->y_name);
    fputs("</text>\n", f);
}

/* ---- series ---------------------------------------------------------------------------------- */

static void draw_line(FILE *f, const plot_series *s, const axis *ax, const axis *ay) {
    if (!s->line || s->n < 2) return;
    fprintf(f, "<polyline class=\"line %s\" points=\"", s->style);
    for (size_t i = 0; i < s->n; i++) fprintf(f, "%.1f,%.1f ", px(ax, s->x[i]), py(ay, s->y[i]));
    fputs("\"/>\n", f);
}

static void draw_dots(FILE *f, const plot_series *s, const axis *ax, const axis *ay) {
    for (size_t i = 0; i < s->n && s->dots; i++) {
        const double x = px(ax, s->x[i]), y = py(ay, s->y[i]);
        fprintf(f, "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\">", s->style, x, y);
        if (s->note[i]) {
            fputs("<title>", f);
            plot_escaped(f, s->note[i]);
            fputs("</title>", f);
        }
        fputs("</circle>\n", f);
        if (!s->labels) continue;
        fprintf(f, "<text class=\"label %s\" text-anchor=\"middle\" x=\"%.1f\" y=\"%.1f\">", s->style, x,
                s->below ? y + 18 : y - 9);
        put_number(f, s->label[i]);
        fputs("</text>\n", f);
    }
}

static void draw_legend(FILE *f, const plot *p) {
    fputs("<p class=\"legend\">", f);
    for (size_t k = 0; k < p->n; k++) {
        if (!p->s[k].name || p->s[k].n == 0) continue;
        fprintf(f, "<span class=\"%s%s\"><i></i>", p->s[k].style, p->s[k].dots ? "" : " rule");
        plot_escaped(f, p->s[k].name);
        fputs("</span> ", f);
    }
    fputs("</p>\n", f);
}

void plot_write(FILE *f, const plot *p) {
    axis ax, ay;
    if (!axes(p, &ax, &ay)) return;
    fprintf(f, "<figure%s><figcaption>", p->wide ? " class=\"wide\"" : "");
    plot_escaped(f, p->title);
    fputs("</figcaption>\n", f);
    draw_legend(f, p);
    fprintf(f, "<svg viewBox=\"0 0 %.0f %d\" role=\"img\" aria-label=\"", ax.width, HEIGHT);
    plot_escaped(f, p->title);
    fputs("\">\n", f);
    draw_axes(f, p, &ax, &ay);
    for (size_t k = 0; k < p->n; k++) draw_line(f, &p->s[k], &ax, &ay);
    for (size_t k = 0; k < p->n; k++) draw_dots(f, &p->s[k], &ax, &ay);
    fputs("</svg></figure>\n", f);
}
