/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_coded.c - a matrix as codes, scales and factors in plain order: what every method of the forge hands
 * back, the plain way to make one, and how wrong one is. */
#include "forge/forge_methods.h"

#include <string.h>

static squish_status check(int32_t bits, int32_t rows, int32_t cols, int32_t rank, squish_error *err) {
    const int32_t shorter = rows < cols ? rows : cols;
    if (bits < 2 || bits > 4) return sq_fail(err, SQUISH_INVALID, "bits: %d, wanted 2, 3 or 4", bits);
    if (rows < 1 || cols < 1) return sq_fail(err, SQUISH_INVALID, "matrix: %d rows, %d columns", rows, cols);
    if (rank < 0 || rank > shorter || rank > SQ_MILO_RANK_MAX)
        return sq_fail(err, SQUISH_INVALID, "rank: %d, of a matrix of %d x %d", rank, rows, cols);
    return SQUISH_OK;
}

squish_status sq_coded_new(sq_coded *c, const squish_alloc *a, int32_t bits, int32_t rows, int32_t cols,
                           int32_t rank, sq_scale_type st, squish_error *err) {
    *c = (sq_coded){.bits = bits, .rows = rows, .cols = cols, .rank = rank, .scale_type = st};
    SQ_TRY(check(bits, rows, cols, rank, err));
    c->alloc = a ? *a : sq_alloc_default();
    c->groups = sq_div_up(cols, SQ_GROUP);
    const size_t n = (size_t)rows * (size_t)cols, side = (size_t)rows * (size_t)c->groups * sizeof(uint16_t);
    c->codes = sq_alloc_zero(&c->alloc, n);
    c->scale = sq_alloc_zero(&c->alloc, side);
    c->bias = sq_alloc_zero(&c->alloc, side);
    if (rank > 0) {
        c->v = sq_alloc_zero(&c->alloc, (size_t)rank * (size_t)cols * sizeof *c->v);
        c->u = sq_alloc_zero(&c->alloc, (size_t)rank * (size_t)rows * sizeof *c->u);
    }
    if (c->codes && c->scale && c->bias && (rank == 0 || (c->v && c->u))) return SQUISH_OK;
    sq_coded_free(c);
    return sq_fail(err, SQUISH_NO_MEMORY, "matrix of %d x %d: out of memory", rows, cols);
}

void sq_coded_free(sq_coded *c) {
    const size_t side = (size_t)c->rows * (size_t)c->groups * sizeof(uint16_t);
    sq_alloc_free(&c->alloc, c->u, (size_t)c->rank * (size_t)c->rows * sizeof *c->u);
    sq_alloc_free(&c->alloc, c->v, (size_t)c->rank * (size_t)c->cols * sizeof *c->v);
    sq_alloc_free(&c->alloc, c->bias, side);
    sq_alloc_free(&c->alloc, c->scale, side);
    sq_alloc_free(&c->alloc, c->codes, (size_t)c->rows * (size_t)c->cols);
    *c = (sq_coded){0};
}

void sq_coded_row(const sq_coded *c, int32_t r, float *out) {
    const uint8_t *codes = c->codes + (size_t)r * (size_t)c->cols;
    for (int32_t k = 0; k < c->cols; k++) {
        const size_t g = (size_t)r * (size_t)c->groups + (size_t)(k / SQ_GROUP);
        out[k] = sq_scale_to_f32(c->scale_type, c->scale[g]) * (float)codes[k] +
                 sq_scale_to_f32(c->scale_type, c->bias[g]);
    }
    for (int32_t j = 0; j < c->rank; j++) {
        const float u = sq_f16_to_f32(c->u[(size_t)r * (size_t)c->rank + (size_t)j]);
        const uint16_t *v = c->v + (size_t)j * (size_t)c->cols;
        for (int32_t k = 0; k < c->cols; k++) out[k] += u * sq_f16_to_f32(v[k]);
    }
}

double sq_coded_bpw(const sq_coded *c) {
    const double rows = c->rows, cols = c->cols, n = rows * cols;
    return (n * c->bits + rows * c->groups * 32 + (rows + cols) * c->rank * 16) / n;
}

/* ---- plain quantisation ---------------------------------------------------------------------- */

typedef struct {
    sq_coded *c;
    const float *w, *importance;
    sq_quant_method method;
} plain_ctx;

static void plain_row(void *ctx, int32_t r, int32_t thread) {
    const plain_ctx *p = ctx;
    sq_coded *c = p->c;
    (void)thread;
    for (int32_t g = 0; g < c->groups; g++) {
        const int32_t k = g * SQ_GROUP, n = c->cols - k < SQ_GROUP ? c->cols - k : SQ_GROUP;
        const size_t at = (size_t)r * (size_t)c->cols + (size_t)k,
        side = (size_t)r * (size_t)c->groups + (size_t)g;
        sq_quant_affine(c->bits, p->method, p->w + at, p->importance ? p->importance + k : NULL, n,
                        c->scale_type,
                        c->codes + at, &c->scale[side], &c->bias[side]);
    }
}

squish_status sq_plain_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                            int32_t cols, int32_t bits, sq_quant_method m, sq_scale_type st,
                            const float *importance, squish_error *err) {
    SQ_TRY(sq_coded_new(out, a, bits, rows, cols, 0, st, err));
    plain_ctx p = {out, w, importance, m};
    sq_each(pool, plain_row, &p, rows);
    return SQUISH_OK;
}

/* ---- error of the output --------------------------------------------------------------------- */

typedef struct {
    const sq_coded *c;
    const float *w;
    const sq_hessian *h;
    float *scratch; /* per thread: one row */
    double *rows;
} output_ctx;

static void output_row(void *ctx, int32_t r, int32_t thread) {
    const output_ctx *o = ctx;
    const int32_t cols = o->c->cols;
    float *e = o->scratch + (size_t)thread * (size_t)cols;
    sq_coded_row(o->c, r, e);
    for (int32_t k = 0; k < cols; k++) e[k] -= o->w[(size_t)r * (size_t)cols + (size_t)k];
    o->rows[r] = sq_hessian_error(o->h, e);
}

double sq_coded_output_error(const sq_coded *c, const squish_alloc *a, sq_pool *pool, const float *w,
                             const sq_hessian *h) {
    const size_t threads = pool ? (size_t)sq_pool_threads(pool) : 1;
    const size_t scratch = threads * (size_t)c->cols * sizeof(float), rows = (size_t)c->rows * sizeof(double);
    output_ctx o = {c, w, h, sq_alloc_new(a, scratch), sq_alloc_new(a, rows)};
    double sum = -1;
    if (o.scratch && o.rows) {
        sq_each(pool, output_row, &o, c->rows);
        sum = 0;
        for (int32_t r = 0; r < c->rows; r++) sum += o.rows[r];
    }
    sq_alloc_free(a, o.rows, rows);
    sq_alloc_free(a, o.scratch, scratch);
    return sum;
}
