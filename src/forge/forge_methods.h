/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_methods.h - the expensive ways to make few bits go far, as pure computation on f32 matrices in
 * memory: low-rank compensators, error propagation, activation-aware scales, and the verdict on what came
 * out.
 *
 * Nothing here knows files, tensors' names or models. Every function gives the same bytes for any number of
 * threads (each number is computed whole by one thread, sums are added in a fixed order) and for every run
 * (randomness comes from a seed). pool may be NULL: the caller's thread does all. Matrices are row-major and
 * finite. Quantisation groups are SQ_GROUP columns; the last of a row may be shorter. */
#ifndef SQ_FORGE_METHODS_H
#define SQ_FORGE_METHODS_H

#include "base/base.h"
#include "format/format.h"
#include "quant/quant.h"

/* fn for items [0, n), on the pool if there is one. */
static inline void sq_each(sq_pool *pool, sq_pool_fn fn, void *ctx, int32_t n) {
    if (pool) {
        sq_pool_run(pool, fn, ctx, n);
        return;
    }
    for (int32_t i = 0; i < n; i++) fn(ctx, i, 0);
}

/* ---- linear algebra (forge_linalg.c) --------------------------------------------------------- */

/* out[i * ldo + j] = sum_k a[i * lda + k] * b[j * ldb + k]: products of the rows of A [m][k] and B [n][k]. */
void sq_la_dots(sq_pool *pool, const float *a, size_t lda, int32_t m, const float *b, size_t ldb, int32_t n,
                int32_t k, float *out, size_t ldo);
/* out[j * ldo + c] = sum_i q[i * ldq + j] * a[i * lda + c]: Q^T A for Q [m][l] and A [m][n]. */
void sq_la_tall(sq_pool *pool, const float *q, size_t ldq, int32_t l, const float *a, size_t lda, int32_t m,
                int32_t n, float *out, size_t ldo);
/* Make the l rows of Y [l][n] orthonormal (Gram-Schmidt, twice, f64 sums). Rows that depend on earlier ones
 * become 0. */
void sq_la_orthonormal(float *y, size_t ld, int32_t l, int32_t n);
/* Eigenvalues, largest first, and eigenvectors (row i of `vectors` belongs to values[i]) of the symmetric g
 * [n][n], which is destroyed. Cyclic Jacobi. */
void sq_la_eigen(double *g, int32_t n, double *values, double *vectors);
/* U [n][n], upper triangular, with U^T U = H^-1, for symmetric H [n][n]; work [n][n]. False if H is not
 * positive definite in f32. */
bool sq_la_inverse_factor(sq_pool *pool, const float *h, int32_t n, float *u, float *work);

/* ---- second moments of inputs ---------------------------------------------------------------- */

/* sum x x^T of a layer's inputs, block-diagonal: columns [b * block, ...) make a matrix [n][n], n the
 * smaller of block and what is left of cols; the matrices lie one after another. block is a multiple of
 * SQ_GROUP, or 1: only the diagonal, [cols]. Only ratios matter. */
typedef struct {
    const float *h;
    int32_t cols, block;
} sq_hessian;
/* Floats in all its blocks; 0 if the sizes make no sense. */
size_t sq_hessian_floats(int32_t cols, int32_t block);
/* h += sum over n inputs x [n][ld]. */
void sq_hessian_add(sq_pool *pool, float *h, int32_t cols, int32_t block, const float *x, size_t ld,
                    int32_t n);
void sq_hessian_diagonal(const sq_hessian *h, float *out);
/* e H e^T for one row e [cols]. */
double sq_hessian_error(const sq_hessian *h, const float *e);

/* ---- what the methods make -------------------------------------------------------------------- */

/* (forge_coded.c) Codes and side data in the plain order sq_tile_pack takes, 16 rows at a time. */
typedef struct {
    squish_alloc alloc;
    int32_t bits, rows, cols, groups, rank;
    sq_scale_type scale_type;
    uint8_t *codes;            /* [rows][cols] */
    uint16_t *scale, *bias;    /* [rows][groups] */
    uint16_t *v, *u;           /* f16 V [rank][cols], U [rows][rank]; NULL for rank 0 */
} sq_coded;
/* Zeroed. INVALID for bits other than 2, 3, 4 or a rank outside [0, min(rows, cols, SQ_MILO_RANK_MAX)];
 * NO_MEMORY. On failure nothing is held. */
squish_status sq_coded_new(sq_coded *c, const squish_alloc *a, int32_t bits, int32_t rows, int32_t cols,
                           int32_t rank, sq_scale_type st, squish_error *err);
void sq_coded_free(sq_coded *c); /* a zeroed one is fine */
/* Row r as a reader sees it, low-rank term included: out [cols]. */
void sq_coded_row(const sq_coded *c, int32_t r, float *out);
/* All bytes, side data and factors, in bits per weight. */
double sq_coded_bpw(const sq_coded *c);

/* ---- low-rank compensator (forge_milo.c) ------------------------------------------------------ */

enum { SQ_MILO_RANK_MAX = 256, SQ_MILO_EXTRA = 8 };

typedef struct {
    int32_t bits, rank;        /* 2, 3, 4; 0 .. SQ_MILO_RANK_MAX */
    int32_t rounds;            /* at most so many alternations, >= 1 */
    int32_t power_steps;       /* of the first decomposition; later ones start from the one before */
    sq_scale_type scale_type;
    double gain_min;           /* stop when a round lowers the error by less than this share */
    const float *importance;   /* [cols] >= 0, mean x^2, or NULL: minimise sum importance * error^2 */
    uint64_t seed;
} sq_milo_options;
sq_milo_options sq_milo_options_default(void); /* 3 bits, rank 16, 8 rounds, 3 steps, F16, 1e-4 */

/* W [rows][cols] ~ codes + U V. *error: the least sum of (weighted) squared errors, that of the iterate in
 * *out; may be NULL. Memory: about 9 bytes per weight while it runs, besides *out. INVALID, NO_MEMORY. */
squish_status sq_milo_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                           int32_t cols, const sq_milo_options *o, double *error, squish_error *err);
/* Squared (weighted) singular values, largest first, of what o->bits alone leave over: gains [rank_max], by
 * how much each further rank lowers the squared error. 0 past min(rows, cols). o->rank is not read. */
squish_status sq_milo_spectrum(const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                               int32_t cols,
                               const sq_milo_options *o, int32_t rank_max, float *gains, squish_error *err);

typedef struct {
    const float *gains;        /* [rank_max] of sq_milo_spectrum */
    int32_t rank_max, rows, cols;
    double weight;             /* how much a squared error of this tensor counts: an expert's frequency,
                                  1 / |W|^2 for relative errors ... */
    int32_t rank;              /* the answer */
} sq_rank_request;
/* Ranks by greedy gain per byte until `bytes` are spent; a rank costs 2 * (rows + cols) bytes. Ties go to the
 * earlier tensor. Returns the bytes used. */
uint64_t sq_rank_allocate(sq_rank_request *r, size_t n, uint64_t bytes);

/* ---- error propagation (forge_gptq.c; Frantar et al., 2022, arXiv:2210.17323) ------------------- */

typedef struct {
    int32_t bits;
    sq_scale_type scale_type;
    double damping;            /* added to the diagonal, as a share of its mean */
} sq_gptq_options;
sq_gptq_options sq_gptq_options_default(void); /* 4 bits, F16, 0.01 */

/* W [rows][cols] under H (cols alike, block > 1). Columns whose input was always 0 are stored as near 0 as
 * their group allows. NUMERIC: H could not be factored even with the damping raised a thousandfold; take lsq
 * with importance instead. INVALID, NO_MEMORY. */
squish_status sq_gptq_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                           int32_t cols, const sq_hessian *h, const sq_gptq_options *o, squish_error *err);
/* (forge_coded.c) The same output by plain quantisation, group by group: the fall-back, and what the others
 * are measured against. */
squish_status sq_plain_make(sq_coded *out, const squish_alloc *a, sq_pool *pool, const float *w, int32_t rows,
                            int32_t cols, int32_t bits, sq_quant_method m, sq_scale_type st,
                            const float *importance, squish_error *err);
/* tr(E H E^T), E = decoded - W. *out is -1 without memory. */
double sq_coded_output_error(const sq_coded *c, const squish_alloc *a, sq_pool *pool, const float *w,
                             const sq_hessian *h);

/* ---- activation-aware scales (forge_awq.c; Lin et al., 2023, arXiv:2306.00978) ------------------ */

typedef struct {
    const float *w;            /* [rows][cols] */
    int32_t rows;
} sq_awq_matrix;
typedef struct {
    int32_t bits;
    sq_quant_method method;    /* of the search; RTN is fast */
    sq_scale_type scale_type;
    int32_t steps;             /* alpha = 0, 1 / steps ... 1 */
    int32_t rows_max;          /* judge by at most so many rows of each matrix, spread evenly; 0: all */
} sq_awq_options;
sq_awq_options sq_awq_options_default(void); /* 4 bits, RTN, F16, 20 steps, all rows */

/* Scales s [cols] for n matrices that share an input with moments H and mean |x| [cols]: least
 * sum of tr(E H E^T), E = Q(W diag s) diag(1 / s) - W, over s = mean^alpha / sqrt(max * min). No scales at
 * all (alpha 0) is the first candidate and wins ties. The caller multiplies columns by s and divides
 * whatever makes x. alpha, error (of the best) and plain (of alpha 0) may be NULL. INVALID, NO_MEMORY. */
squish_status sq_awq_scales(const squish_alloc *a, sq_pool *pool, const sq_awq_matrix *m, int32_t n,
                            int32_t cols,
                            const sq_hessian *h, const float *mean_abs, const sq_awq_options *o, float *s,
                            float *alpha, double *error, double *plain, squish_error *err);
/* Folding: columns of W times s; a vector, or rows of a matrix, divided by s. */
void sq_awq_scale_columns(float *w, int32_t rows, int32_t cols, const float *s);
void sq_awq_divide_rows(float *w, int32_t rows, int32_t cols,
                        const float *s); /* s [rows]; cols 1: a vector */

/* ---- verdict (forge_quality.c) ------------------------------------------------------------------ */

/* What was measured of a made model and of its reference, over the same held-out tokens and prompts. How the
 * model was made is not asked. */
typedef struct sq_quality_measure {
    double ppl, ppl_reference;
    double agreement;          /* share of tokens with the same first choice, 0..1 */
    double kl;                 /* mean, nats */
    int32_t texts, loops, loops_reference; /* greedy texts, and those that repeat themselves */
    double distinct2, distinct2_reference; /* mean sq_quality_distinct2 of the texts */
    uint64_t nonfinite;        /* logits that are no numbers */
} sq_quality_measure;
/* The verdict and, in why [n], what decided it ("perplexity 3.1 times the reference"). Measures that are not
 * numbers, or no reference, count as collapsed and unverified. */
sq_quality_flag sq_quality_judge(const sq_quality_measure *m, char *why, size_t n);
/* Does the text end in a loop: a period of at most 16 tokens that repeats over at least four periods and at
 * least 40 % of the text? *period (may be NULL) is the shortest such; 0: none. */
bool sq_quality_loops(const int32_t *tokens, size_t n, int32_t *period);
/* Different pairs of neighbours among all pairs, 0..1; 1 for fewer than two tokens. O(n^2), for short texts.
 */
double sq_quality_distinct2(const int32_t *tokens, size_t n);

#endif
