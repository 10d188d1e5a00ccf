/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_look.h - fitting the maps of lookahead routing (model_look.h) to a text that runs through a model.
 *
 * Of every layer T with experts and every token there are three rows: a (before T's attention), h' (behind
 * the attention of T - 1) and p (what T's router saw of the token before), and what T's router said, y [n].
 * With
 *
 *   z = [a | h' | p | 1]      C = sum z z^T      B = sum z y^T
 *
 * late and early are the ridge regressions (Hoerl and Kennedy, 1970) of y on [a p 1] and [h' p 1]:
 * (C + ridge * mean diagonal * I) w = B in the rows and columns that each has; the constant is not drawn to
 * 0.
 *
 *   new -> window, then the tap's rows, for each window -> solve        for some layers at a time
 *   sq_look_fit of all layers -> sq_look_fit_file -> sq_look_fit_publish
 *
 * Sums are of f64 and made in a fixed order: the same bytes for any number of threads and any cut of the text
 * into steps. */
#ifndef SQ_FORGE_LOOK_H
#define SQ_FORGE_LOOK_H

#include "forge/forge_methods.h"
#include "model/model.h"
#include "model/model_look.h"

/* ---- least squares (forge_ridge.c) ----------------------------------------------------------- */

/* Solve (G + lambda D) X = B for symmetric G [n][n], of which row i up to column i is read and all of it
 * destroyed, and k right sides b [k][n], which become the solutions. D is 1 on the diagonal but for the last
 * `free_` places, where it is 0; lambda = ridge * mean of G's diagonal over the others. False: G + lambda D
 * is not positive definite. */
bool sq_ridge_solve(sq_pool *pool, double *g, int32_t n, int32_t free_, double ridge, double *b, int32_t k);

/* ---- what is fitted -------------------------------------------------------------------------- */

typedef struct {
    float *now, *prev; /* [n][hidden] */
    float *bias;       /* [2][n] */
} sq_look_fit_map;     /* all NULL: there is none */

typedef struct {
    squish_alloc alloc;
    const sq_model *m;
    int64_t tokens; /* that were looked at */
    float *floats;
    size_t bytes;
    sq_look_fit_map map[][SQ_LOOK_MOMENTS]; /* [n_layers] */
} sq_look_fit;
/* NO_MEMORY; UNSUPPORTED: m has no experts. */
squish_status sq_look_fit_new(sq_look_fit **out, const sq_model *m, const squish_alloc *a, squish_error *err);
void sq_look_fit_free(sq_look_fit *f);
/* The bytes of the file (model_look.h). */
squish_status sq_look_fit_file(const sq_look_fit *f, sq_buf *out, squish_error *err);
/* Such bytes under a name: written beside it, synced, renamed. */
squish_status sq_look_fit_publish(const sq_buf *file, const char *path, squish_error *err);

/* ---- sums ------------------------------------------------------------------------------------ */

typedef struct sq_look_sums sq_look_sums;
uint64_t sq_look_sums_bytes(const sq_config *c); /* of one layer, in round numbers */
/* For layers [from, to). rows_max: of one step. NO_MEMORY. */
squish_status sq_look_sums_new(sq_look_sums **out, const sq_model *m, int32_t from, int32_t to,
                               int32_t rows_max, sq_pool *pool, const squish_alloc *a, squish_error *err);
void sq_look_sums_free(sq_look_sums *s);
void sq_look_sums_window(sq_look_sums *s); /* the next row has no token before it */
/* An sq_tap_fn; user is the sums. Rows of a step are of one sequence, in order. */
void sq_look_sums_take(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m);
/* Maps of its layers into f. INVALID: too few tokens; NUMERIC: sums that are no numbers. NO_MEMORY. */
squish_status sq_look_sums_solve(const sq_look_sums *s, sq_look_fit *f, squish_error *err);

#endif
