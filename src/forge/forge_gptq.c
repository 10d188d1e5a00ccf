/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_gptq.c - quantise column after column and let the columns still to come repair each error, as far as
 * the inputs' second moments say they can (Frantar et al., 2022, arXiv:2210.17323).
 *
 * Rows do not know each other once H is factored, so 16 of them at a time are an item of the pool. Within a
 * run of 128 columns errors are passed on at once; to the columns behind it by one product per run. */
#include "forge/forge_methods.h"

#include <math.h>
#include <string.h>

enum { LAZY = 128, ITEM_ROWS = 16, TRIES = 4 };

sq_gptq_options sq_gptq_options_default(void) {
    return (sq_gptq_options){.bits = 4, .scale_type = SQ_SCALE_F16, .damping = 0.01};
}

typedef struct {
    sq_coded *c;
    const float *w, *importance, *h, *u; /* h, u: of this block, [n][n] */
    int32_t first, n;                    /* columns of this block */
    float *scratch;                      /* per thread: [ITEM_ROWS][n] weights, [LAZY][ITEM_ROWS] errors, and
                                            [ITEM_ROWS][n] what they send on */
} gptq_ctx;

static size_t scratch_floats(int32_t n) { return 2 * ITEM_ROWS * (size_t)n + ITEM_ROWS * LAZY; }

static float code_one(const sq_coded *c, float w, float scale, float bias, uint8_t *code) {
    const float top = (float)((1 << c->bits) - 1), x = scale != 0 ? (w - bias) / scale : 0;
    const float q = rintf(x < 0 ? 0 : x > top ? top : x);
    *code = (uint8_t)q;
    return scale * q + bias;
}

/* Columns [i0, i1) of one row; e [column * ITEM_ROWS]: errors over U_ii. */
static void code_run(const gptq_ctx *g, int32_t row, float *w, int32_t i0, int32_t i1, float *e) {
    sq_coded *c = g->c;
    float scale = 0, bias = 0;
    uint8_t *codes = c->codes + (size_t)row * (size_t)c->cols + g->first, unused[SQ_GROUP];
    for (int32_t i = i0; i < i1; i++) {
        const float *u = g->u + (size_t)i * (size_t)g->n;
        if (i % SQ_GROUP == 0) {
            const int32_t at = (g->first + i) / SQ_GROUP, n = g->n - i < SQ_GROUP ? g->n - i : SQ_GROUP;
            const size_t side = (size_t)row * (size_t)c->groups + (size_t)at;
            sq_quant_affine(c->bits, SQ_QUANT_LSQ, w + i, g->importance + g->first + i, n, c->scale_type,
                            unused,
                            &c->scale[side], &c->bias[side]);
            scale = sq_scale_to_f32(c->scale_type, c->scale[side]);
            bias = sq_scale_to_f32(c->scale_type, c->bias[side]);
        }
        const float lost = (w[i] - code_one(c, w[i], scale, bias, &codes[i])) / u[i];
        for (int32_t j = i + 1; j < i1; j++) w[j] -= lost * u[j];
        e[(size_t)(i - i0) * ITEM_ROWS] = lost;
    }
}

static void gptq_item(void *ctx, int32_t item, int32_t thread) {
    const gptq_ctx *g = ctx;
    const size_t n = (size_t)g->n;
    const int32_t r0 = item * ITEM_ROWS, rows = g->c->rows - r0 < ITEM_ROWS ? g->c->rows - r0 : ITEM_ROWS;
    float *w = g->scratch + (size_t)thread * scratch_floats(g->n), *e = w + ITEM_ROWS * n,
          *sent = e + ITEM_ROWS * LAZY;
    for (int32_t r = 0; r < rows; r++) {
        const float *from = g->w + (size_t)(r0 + r) * (size_t)g->c->cols + g->first;
        for (size_t k = 0; k < n; k++) w[(size_t)r * n + k] = g->h[k * n + k] > 0 ? from[k] : 0;
    }
    memset(e, 0, ITEM_ROWS * LAZY * sizeof *e);
    for (int32_t i0 = 0; i0 < g->n; i0 += LAZY) {
        const int32_t i1 = g->n - i0 < LAZY ? g->n : i0 + LAZY, rest = g->n - i1;
        for (int32_t r = 0; r < rows; r++) code_run(g, r0 + r, w + (size_t)r * n, i0, i1, e + r);
        if (rest == 0) break;
        sq_la_tall(NULL, e, ITEM_ROWS, rows, g->u + (size_t)i0 * n + i1, n, i1 - i0, rest, sent,
                   (size_t)rest);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t k = 0; k < rest; k++)
                w[(size_t)r * n + (size_t)(i1 + k)] -= sent[(size_t)r * (size_t)rest + (size_t)k];
    }
}

/* U of the block, with the damping raised until H has one. damped, work: [n][n]. */
static bool factor(sq_pool *pool, const float *h, int32_t n, double damping, float *damped, float *work,
                   float *u) {
    const size_t ld = (size_t)n;
    double mean = 0;
    for (size_t i = 0; i < ld; i++) mean += (double)h[i * ld + i] / n;
    for (int32_t k = 0; k < TRIES; k++, damping *= 10) {
        memcpy(damped, h, ld * ld * sizeof *h);
        for (size_t i = 0; i < ld; i++) {
            const bool dead = !(h[i * ld + i] > 0);
            damped[i * ld + i] = dead ? (float)(mean > 0 ? mean : 1) : h[i * ld + i] +
                (float)(damping * mean);
        }
        if (sq_la_inverse_factor(pool, damped, n, u, work)) return true;
    }
    return false;
}

typedef struct {
    float *importance, *damped, *work, *u, *scratch;
    size_t n_importance, n_square, n_scratch;
} gptq_memory;

static void release(gptq_memory *m, const squish_alloc *a) {
    sq_alloc_free(a, m->scratch, m->n_scratch);
    sq_alloc_free(a, m->u, m->n_square);
    sq_alloc_free(a, m->work, m->n_square);
    sq_alloc_free(a, m->damped, m->n_square);
    sq_alloc_free(a, m->importance, m->n_importance);
}

static bool reserve(gptq_memory *m, const squish_alloc *a, int32_t cols, int32_t block, int32_t threads) {
    const size_t n = (size_t)(block < cols ? block : cols);
    m->n_importance = (size_t)cols * sizeof(float);
    m->n_square = n * n * sizeof(float);
    m->n_scratch = (size_t)threads * scratch_floats((int32_t)n) * sizeof(float);
    m->importance = sq_alloc_new(a, m->n_importance);
    m->damped = sq_alloc_new(a, m->n_square);
    m->work = sq_alloc_new(a, m->n_square);
    m->u = sq_alloc_new(a, m->n_square);
    m->scratch = sq_alloc_new(a, m->n_scratch);
    return m->importance && m->damped && m->work && m->u && m->scratch;
}

static squish_status blocks(sq_coded *out, sq_pool *pool, const float *w, const sq_hessian *h,
                            const sq_gptq_options *o, gptq_memory *m, squish_error *err) {
    const float *p = h->h;
    sq_hessian_diagonal(h, m->importance);
    for (int32_t first = 0; first < h->cols; first += h->block) {
        const int32_t n = h->cols - first < h->block ? h->cols - first : h->block;
        if (!factor(pool, p, n, o->damping, m->damped, m->work, m->u))
            return sq_fail(err, SQUISH_NUMERIC, "moments of columns %d to %d: not positive definite", first,
                           first + n - 1);
        gptq_ctx g = {out, w, m->importance, p, m->u, first, n, m->scratch};
        sq_each(pool, gptq_item, &g, sq_div_up(out->rows, ITEM_ROWS));
        p += (size_t)n * (size_t)n;
    }
    return SQUISH_OK;
}

squish_status sq_gptq_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                           int32_t cols, const sq_hessian *h, const sq_gptq_options *o, squish_error *err) {
    gptq_memory m = {0};
    *out = (sq_coded){0};
    if (h->cols != cols || h->block <= 1 || sq_hessian_floats(cols, h->block) == 0)
        return sq_fail(err, SQUISH_INVALID, "moments: %d columns in blocks of %d, for a matrix of %d columns",
                       h->cols, h->block, cols);
    SQ_TRY(sq_coded_new(out, a, o->bits, rows, cols, 0, o->scale_type, err));
    squish_status st = SQUISH_OK;
    if (!reserve(&m, a, cols, h->block, pool ? sq_pool_threads(pool) : 1))
        st = sq_fail(err, SQUISH_NO_MEMORY, "moments of %d columns: out of memory", cols);
    if (st == SQUISH_OK) st = blocks(out, pool, w, h, o, &m, err);
    release(&m, a);
    if (st != SQUISH_OK) sq_coded_free(out);
    return st;
}
