/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_build.h - what the files that make a .sqw share: one build, the scales folded into its tensors, and
 * one matrix on its way through.
 *
 *   forge_build.c    layout, sections, order of tensors, publication
 *   forge_matrix.c   one matrix: row tiles in parallel, compared and written
 *   forge_whole.c    codes that are found with the whole matrix in memory; ranks of compensators
 *   forge_fold.c     scales by activation and where they are folded in
 *   forge_wide.c     matrices beyond f16 scales
 *   forge_report.c   what the report says of a tensor */
#ifndef SQ_FORGE_BUILD_H
#define SQ_FORGE_BUILD_H

#include "forge/forge_calibration.h"
#include "forge/forge_int.h"
#include "kernels/kernels.h"

#include <stdatomic.h>

/* What a tensor is changed by before it is encoded: row r is divided by rows[r], column c multiplied by
 * cols[c]. NULL: not at all. Of a vector only rows count. */
typedef struct {
    const float *rows, *cols;
} sq_fold;
static inline bool sq_fold_is(const sq_fold *f) { return f->rows || f->cols; }

/* What one thread does while the others make tiles: tensors that are complete are read back, noted in the
 * journal and, now and then, waited for until they are on the disk; the source of the next matrix is summed,
 * which also brings it into memory. */
enum { SQ_BUILD_OPEN_MAX = 16 };
typedef struct {
    struct {
        size_t index;
        json_t *line;
        bool noted;
    } open[SQ_BUILD_OPEN_MAX]; /* [n_open] complete, but not all noted; in order */
    size_t n_open;
    size_t next;               /* tensor to sum; SIZE_MAX: none */
    size_t summed;             /* tensor whose sum is known; SIZE_MAX: none */
    uint64_t sum;
    squish_error err;          /* of noting */
} sq_build_aside;

typedef struct {
    sq_forge_job *j;
    sq_sqw_writer *w;
    sq_kernels kernels;
    sq_calibration *calibration; /* what the method or the caller wants to be weighed by; NULL: nothing */
    sq_recipe *recipes; /* [n] */
    sq_fold *folds;     /* [n] */
    float *scales;      /* [n_scales], what the folds point into */
    size_t n_scales;
    float *widest;      /* [n] largest |w| of matrices that are too wide for f16 scales, else 0 */
    size_t n;
    bool again;         /* widest has changed: the layout is no longer right */
    json_t *report;     /* per tensor */
    double cos_sum;
    sq_build_aside aside;
} sq_build;

/* ---- rows of the source (forge_matrix.c) ------------------------------------------------------- */

/* Row r of wanted tensor `index`, folds applied: out [cols]. */
void sq_build_row(const sq_build *b, size_t index, const sq_weight *src, int32_t r, float *out);
/* Largest |w|; NaN counts as larger than everything. */
float sq_build_largest(const float *w, int32_t n);
/* Mean squares of the inputs of w's columns as weights of errors, folds applied: out [cols], all > 0. False:
 * nothing is known of them. */
bool sq_build_importance(const sq_build *b, const sq_want *w, size_t index, float *out);
/* Make, compare and write matrix `index`; sets b->again if it asks for another layout. */
squish_status sq_build_matrix(sq_build *b, const sq_want *w, size_t index, squish_error *err);
/* Bytes of codes, and where the factors of a compensator lie behind them. */
typedef struct {
    uint64_t codes, v, u, end;
} sq_build_parts;
bool sq_build_parts_of(const sq_recipe *r, int32_t rows, int32_t cols, sq_build_parts *p);

/* ---- whole matrices (forge_whole.c) ------------------------------------------------------------ */

/* A matrix in memory. */
typedef struct {
    float *w; /* [rows][cols] */
    int32_t rows, cols;
    float peak;           /* largest |w| */
    uint64_t n_nonfinite;
    double energy;        /* sum of importance * w^2 */
} sq_whole;
/* importance [cols] or NULL: all 1. NO_MEMORY. */
squish_status sq_whole_load(sq_build *b, const sq_want *w, size_t index, const float *importance,
                            sq_whole *out, squish_error *err);
void sq_whole_free(sq_build *b, sq_whole *x);
/* Codes of a matrix by the recipe's method (r->by is not PLAIN). A method that cannot do it leaves *out
 * zeroed and says so in why [n]: the tiles are then made plainly. */
squish_status sq_whole_encode(sq_build *b, const sq_want *w, const sq_recipe *r, const sq_whole *x,
                              const float *importance, sq_coded *out, char *why, size_t n,
                              squish_error *err);
/* Settle the ranks of all compensators; those of rank 0 become PLAIN. */
squish_status sq_build_ranks(sq_build *b, squish_error *err);

/* ---- folding (forge_fold.c) -------------------------------------------------------------------- */

/* Find the scales of every layer and fill in b->folds. */
squish_status sq_build_folds(sq_build *b, squish_error *err);

/* ---- scales that f16 cannot hold (forge_wide.c) ------------------------------------------------ */

/* Largest |w| that type and scale of r can hold whatever the group's other weights are. */
float sq_build_reach(const sq_recipe *r);
/* Find every matrix from `first` on that is too wide for its recipe, so that one more layout is enough. */
squish_status sq_build_find_wide(sq_build *b, size_t first, squish_error *err);
/* The recipe of a tensor whose largest |w| is widest (0: not too wide). */
sq_recipe sq_build_wide_recipe(sq_recipe r, float widest);

/* ---- report (forge_report.c) ------------------------------------------------------------------- */

enum { SQ_BUILD_NOTE_MAX = 512 };

/* How a matrix was made in the end. */
typedef struct {
    const char *method;   /* "rtn", "lsq", "lsq-imp", "gptq", "milo" */
    const char *fallback; /* why it is not what was asked for; "" */
    bool folded;          /* the measures are against the scaled matrix */
} sq_build_made;
json_t *sq_build_quantised_line(const sq_want *w, const sq_recipe *r, const sq_build_made *made,
                                const sq_fidelity *f);
json_t *sq_build_kept_line(const sq_want *w, const sq_recipe *r, bool folded);
/* Tensor `index` is complete: its line (taken over, NULL: out of memory) goes to journal and report, at the
 * latest when sq_build_settle is called. */
squish_status sq_build_close(sq_build *b, size_t index, json_t *line, squish_error *err);
/* The work aside: on one thread while tiles are made on others. */
void sq_build_work_aside(sq_build *b);
/* Everything that is complete is noted; what went wrong aside is told here. */
squish_status sq_build_settle(sq_build *b, squish_error *err);
/* After an error: lines that were never noted. */
void sq_build_aside_clear(sq_build *b);
/* The line of a tensor that an earlier run had finished. */
squish_status sq_build_reopen(sq_build *b, size_t index, squish_error *err);

#endif
