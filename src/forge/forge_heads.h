/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_heads.h - training heads that guess (model_heads.h): the base is frozen, and what it says of its own
 * text is what heads learn.
 *
 *   loss of head i at position t    KL( base at t + i  ||  head i on h_t, x_t+1 .. x_t+i )
 *
 * both over the ids that heads can name. Heads begin where least squares puts them, W [h; x] nearest to the
 * hidden state of t + i (which the base's head would turn into just that distribution): that takes a fiftieth
 * of the time and most of the way. Then AdamW (Loshchilov and Hutter, arXiv:1711.05101) with a warm-up and a
 * cosine. All large products are the f32 kernel's, whose bits depend on neither threads nor instruction set,
 * sums over rows have one order, and rows are chosen by a counter: a seed gives one file on every machine
 * whose C library rounds exp and cos alike. */
#ifndef SQ_FORGE_HEADS_H
#define SQ_FORGE_HEADS_H

#include "kernels/kernels.h"
#include "model/model_heads.h"

/* Text of the base, sequence behind sequence. */
typedef struct {
    int64_t n;
    const int32_t *tokens;  /* [n] */
    const int32_t *top;     /* [n] the base's likeliest token behind this one */
    const uint16_t *hidden; /* [n][hidden] f16: behind the final norm, after this token */
    const int64_t *first;   /* [n_seqs + 1]: sequence s is [first[s], first[s + 1]) */
    int32_t n_seqs, n_held; /* the last n_held of them are measured, never learned */
} sq_heads_text;

typedef struct {
    int32_t heads, n_ids, steps;
    float rate; /* largest */
    uint64_t seed;
    sq_wtype type;
    squish_progress_fn progress;
    void *progress_user;
} sq_heads_wish;

typedef struct {
    float agreement[SQ_HEADS_MAX]; /* on what was held back, weights as in the file: head i, given right
                                      tokens before, names the base's likeliest */
    float coverage;                /* share of likeliest tokens that heads can name */
    float loss_first, loss_last;   /* KL in nats, mean over heads, of the first and last hundredth of steps */
} sq_heads_outcome;

/* Train, measure, and give the whole file (model_heads.h) in *out [*bytes], freed with a. CANCELLED,
 * NO_MEMORY, INVALID (too little text, sizes). */
squish_status sq_heads_train(const sq_model *m, const sq_heads_text *t, const sq_heads_wish *w, sq_pool *pool,
                             const squish_alloc *a, uint8_t **out, size_t *bytes, sq_heads_outcome *got,
                             squish_error *err);

/* ---- its arithmetic (forge_heads_math.c) ------------------------------------------------------- */

typedef struct {
    sq_kernels k;
    sq_pool *pool;
} sq_hm;
/* y[i][r] = W[r] . x[i]: W [rows][cols], x [m][cols], y [m][ldy]; cols a multiple of 64. */
void sq_hm_product(const sq_hm *h, const float *w, int32_t rows, int32_t cols, const float *x, int32_t m,
                   float *y, size_t ldy);
/* out [cols][rows] = transposed in [rows][cols]. */
void sq_hm_transpose(const sq_hm *h, const float *in, int32_t rows, int32_t cols, float *out);
/* Rows to probabilities, in place. */
void sq_hm_softmax(const sq_hm *h, float *x, int32_t m, int32_t cols);
/* x [m][cols] += b [cols]. */
void sq_hm_bias(const sq_hm *h, float *x, int32_t m, int32_t cols, const float *b);
/* z = u + silu(s), element by element; and ds = dz * silu'(s). */
void sq_hm_silu(const sq_hm *h, const float *u, const float *s, size_t n, float *z);
void sq_hm_silu_back(const sq_hm *h, const float *dz, const float *s, size_t n, float *ds);
/* g [cols] = sum of the rows of x [m][cols]. */
void sq_hm_sum_rows(const sq_hm *h, const float *x, int32_t m, int32_t cols, float *g);
void sq_hm_add(const sq_hm *h, float *x, const float *y, size_t n);
/* a [n][n] symmetric, its lower half given: becomes L with L L^T = a in place. False: it is not positive. */
bool sq_hm_cholesky(const sq_hm *h, double *a, int32_t n);
/* w [rows][n] = c [rows][n] (L L^T)^-1, of the leading n rows of L [ld][ld]. */
void sq_hm_solve(const sq_hm *h, const double *l, int32_t ld, const double *c, int32_t rows, int32_t n,
                 float *w);
/* One step of AdamW; step counts from 1. */
typedef struct {
    float rate, decay;
    int32_t step;
} sq_hm_adam;
void sq_hm_adam_step(const sq_hm *h, const sq_hm_adam *a, float *w, const float *g, float *m, float *v,
                     size_t n);

#endif
