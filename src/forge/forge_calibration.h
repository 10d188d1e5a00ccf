/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_calibration.h - what goes into the matrices of a model: recorded once, read by the methods that
 * weigh errors by it.
 *
 * A safetensors file. Per layer L and shared input T (attn_in, attn_out, ffn_in, ffn_mid):
 *   L.T.mean_abs  f32 [cols]   mean |x| over the tokens
 *   L.T.hessian   f32 [n]      sum x x^T in the block-diagonal order of sq_hessian (block 1: the diagonal)
 * and in __metadata__: squish_calibration "1", architecture, layers, tokens, window, block, text (XXH3-64 of
 * what was run), so that a build can say what it was made with. Files of others are damage, not trust: every
 * shape is checked against the config, every number must be finite and no diagonal negative. */
#ifndef SQ_FORGE_CALIBRATION_H
#define SQ_FORGE_CALIBRATION_H

#include "forge/forge_methods.h"
#include "model/model.h"

/* ---- reading --------------------------------------------------------------------------------- */

enum { SQ_CALIBRATION_BLOCK_MAX = 4096 };
extern const char *const sq_tap_names[SQ_TAP_COUNT]; /* "attn_in", ... as in the names of tensors */

typedef struct sq_calibration sq_calibration;
/* Maps the file. CORRUPT names the tensor; INVALID: it belongs to another architecture or size. */
squish_status sq_calibration_open(sq_calibration **out, const char *path, const sq_config *c,
                                  const squish_alloc *a, squish_error *err);
/* The same of bytes in memory, which must outlive it; name is for messages. */
squish_status sq_calibration_parse(sq_calibration **out, sq_span file, const char *name, const sq_config *c,
                                   const squish_alloc *a, squish_error *err);
void sq_calibration_close(sq_calibration *k);
int32_t sq_calibration_block(const sq_calibration *k);
uint64_t sq_calibration_sum(const sq_calibration *k); /* of the file; goes into recipes */
/* Views into the mapping; false for roles that are no matrix of a layer (tables). */
bool sq_calibration_input(const sq_calibration *k, int32_t layer, sq_role r, sq_hessian *h,
                          const float **mean_abs);

/* ---- recording ------------------------------------------------------------------------------- */

/* (forge_recorder.c) Sums of one run, in memory: 4 bytes per column and block column of every input. Fed by
 * the forward pass's tap, one thread at a time. */
typedef struct sq_calibrator sq_calibrator;
uint64_t sq_calibrator_bytes(const sq_config *c, int32_t block);
squish_status sq_calibrator_new(sq_calibrator **out, const sq_config *c, int32_t block, sq_pool *pool,
                                const squish_alloc *a, squish_error *err);
/* An sq_tap_fn; user is the calibrator. */
void sq_calibrator_take(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m);
/* Write the file under another name, fsync, rename. text_sum identifies what was run; tokens is how many were
 * taken. NUMERIC: a sum overflowed. */
squish_status sq_calibrator_write(const sq_calibrator *k, const char *path, int32_t tokens, int32_t window,
                                  uint64_t text_sum, squish_error *err);
void sq_calibrator_free(sq_calibrator *k);

#endif
