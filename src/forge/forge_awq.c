/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_awq.c - scale the columns that matter up before quantising and whatever makes their input down (Lin
 * et al., 2023, arXiv:2306.00978): the product stays, the error moves to where inputs are small.
 *
 * One number, alpha, is searched. Rows are items of the pool, and their errors are added in order. */
#include "forge/forge_methods.h"

#include <math.h>
#include <string.h>

sq_awq_options sq_awq_options_default(void) {
    return (sq_awq_options){.bits = 4, .method = SQ_QUANT_RTN, .scale_type = SQ_SCALE_F16, .steps = 20};
}

typedef struct {
    const sq_awq_options *o;
    const sq_hessian *h;
    const float *w, *s;
    int32_t cols, rows, used; /* rows judged */
    float *scratch;           /* per thread: [cols] */
    double *errors;           /* [used] */
} awq_ctx;

static void judge_row(void *ctx, int32_t item, int32_t thread) {
    const awq_ctx *c = ctx;
    const int32_t row = (int32_t)((int64_t)item * c->rows / c->used);
    const float *w = c->w + (size_t)row * (size_t)c->cols;
    float *e = c->scratch + (size_t)thread * (size_t)c->cols, scaled[SQ_GROUP];
    for (int32_t k = 0; k < c->cols; k += SQ_GROUP) {
        const int32_t n = c->cols - k < SQ_GROUP ? c->cols - k : SQ_GROUP;
        uint8_t codes[SQ_GROUP];
        uint16_t scale, bias;
        for (int32_t i = 0; i < n; i++) scaled[i] = w[k + i] * c->s[k + i];
        sq_quant_affine(c->o->bits, c->o->method, scaled, NULL, n, c->o->scale_type, codes, &scale, &bias);
        const float step = sq_scale_to_f32(c->o->scale_type, scale), b = sq_scale_to_f32(c->o->scale_type,
                                                                                         bias);
        for (int32_t i = 0; i < n; i++) e[k + i] = (step * (float)codes[i] + b) / c->s[k + i] - w[k + i];
    }
    c->errors[item] = sq_hessian_error(c->h, e);
}

static int32_t rows_used(const sq_awq_options *o, int32_t rows) {
    return o->rows_max > 0 && o->rows_max < rows ? o->rows_max : rows;
}

/* A matrix judged by some of its rows counts as if by all. */
static double judge(awq_ctx *c, sq_pool *pool, const sq_awq_matrix *m, int32_t n, const float *s) {
    double sum = 0;
    c->s = s;
    for (int32_t i = 0; i < n; i++) {
        double part = 0;
        c->w = m[i].w;
        c->rows = m[i].rows;
        c->used = rows_used(c->o, m[i].rows);
        sq_each(pool, judge_row, c, c->used);
        for (int32_t r = 0; r < c->used; r++) part += c->errors[r];
        sum += part * ((double)c->rows / c->used);
    }
    return sum;
}

/* Inputs that are never seen count as the quietest that are, for 0 could not be undone. False if all are 0 or
 * the scales leave what f32 divides well. */
static bool fill_scales(const float *mean_abs, int32_t cols, double alpha, float *s) {
    float least = 0, most = 0;
    for (int32_t k = 0; k < cols; k++) {
        if (!(mean_abs[k] > 0) || !(mean_abs[k] < HUGE_VALF)) continue;
        least = least == 0 || mean_abs[k] < least ? mean_abs[k] : least;
        most = mean_abs[k] > most ? mean_abs[k] : most;
    }
    if (most == 0) return false;
    const double norm = sqrt(pow((double)most, alpha) * pow((double)least, alpha));
    if (!(norm > 0) || pow((double)most / (double)least, alpha) > 1e8) return false;
    for (int32_t k = 0; k < cols; k++) {
        const bool seen = mean_abs[k] > 0 && mean_abs[k] < HUGE_VALF;
        s[k] = (float)(pow((double)(seen ? mean_abs[k] : least), alpha) / norm);
    }
    return true;
}

static void search(awq_ctx *c, sq_pool *pool, const sq_awq_matrix *m, int32_t n, const float *mean_abs,
                   float *candidate, float *s, float *alpha, double *error, double *plain) {
    for (int32_t k = 0; k < c->cols; k++) s[k] = 1;
    double best = judge(c, pool, m, n, s);
    *alpha = 0;
    *plain = best;
    for (int32_t i = 1; i <= c->o->steps; i++) {
        const double a = (double)i / c->o->steps;
        if (!fill_scales(mean_abs, c->cols, a, candidate)) continue;
        const double now = judge(c, pool, m, n, candidate);
        if (!(now < best)) continue;
        best = now;
        *alpha = (float)a;
        memcpy(s, candidate, (size_t)c->cols * sizeof *s);
    }
    *error = best;
}

squish_status sq_awq_scales(const squish_alloc *a, sq_pool *pool, const sq_awq_matrix *m, int32_t n,
                            int32_t cols,
                            const sq_hessian *h, const float *mean_abs, const sq_awq_options *o, float *s,
                            float *alpha, double *error, double *plain, squish_error *err) {
    int32_t rows = 0;
    float alpha_found;
    double error_found, error_plain;
    for (int32_t i = 0; i < n; i++) {
        if (m[i].rows < 1) return sq_fail(err, SQUISH_INVALID, "matrix %d: %d rows", i, m[i].rows);
        rows = rows_used(o, m[i].rows) > rows ? rows_used(o, m[i].rows) : rows;
    }
    if (n < 1 || cols < 1 || o->bits < 2 || o->bits > 4 || o->steps < 0)
        return sq_fail(err, SQUISH_INVALID, "scales: %d matrices of %d columns, %d bits, %d steps", n, cols,
                       o->bits, o->steps);
    if (h->cols != cols || sq_hessian_floats(cols, h->block) == 0)
        return sq_fail(err, SQUISH_INVALID, "moments: %d columns in blocks of %d, for matrices of %d columns",
                       h->cols, h->block, cols);
    const size_t threads = pool ? (size_t)sq_pool_threads(pool) : 1, line = (size_t)cols * sizeof(float);
    awq_ctx c = {.o = o, .h = h, .cols = cols, .scratch = sq_alloc_new(a, (threads + 1) * line),
                 .errors = sq_alloc_new(a, (size_t)rows * sizeof(double))};
    squish_status st = SQUISH_OK;
    if (c.scratch && c.errors) {
        float *candidate = c.scratch + threads * (size_t)cols;
        search(&c, pool, m, n, mean_abs, candidate, s, &alpha_found, &error_found, &error_plain);
        if (alpha) *alpha = alpha_found;
        if (error) *error = error_found;
        if (plain) *plain = error_plain;
    } else {
        st = sq_fail(err, SQUISH_NO_MEMORY, "scales of %d columns: out of memory", cols);
    }
    sq_alloc_free(a, c.errors, (size_t)rows * sizeof(double));
    sq_alloc_free(a, c.scratch, (threads + 1) * line);
    return st;
}

void sq_awq_scale_columns(float *w, int32_t rows, int32_t cols, const float *s) {
    for (int32_t r = 0; r < rows; r++)
        for (int32_t k = 0; k < cols; k++) w[(size_t)r * (size_t)cols + (size_t)k] *= s[k];
}

void sq_awq_divide_rows(float *w, int32_t rows, int32_t cols, const float *s) {
    for (int32_t r = 0; r < rows; r++)
        for (int32_t k = 0; k < cols; k++) w[(size_t)r * (size_t)cols + (size_t)k] /= s[r];
}
