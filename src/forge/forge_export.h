/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export.h - a model in the form of others.
 *
 * Codes and scales that the other form can hold go over bit by bit; what it cannot is decoded to F16 and
 * counted. Low-rank compensators have no place in the formats of others: a matrix that has one is decoded
 * whole. */
#ifndef SQ_FORGE_EXPORT_H
#define SQ_FORGE_EXPORT_H

#include "model/model.h"

typedef struct {
    uint64_t bytes;
    int32_t n_exact;   /* matrices that went over with their codes, or in their own float type */
    int32_t n_decoded; /* matrices written as F16 */
} sq_export_result;

/* An MLX directory: config.json with `quantization`, model.safetensors, and the tokenizer files found in
 * `assets` (NULL: none). out must not exist or be empty. Errors: INVALID, IO, NO_SPACE, NO_MEMORY, CANCELLED.
 */
squish_status sq_export_mlx(const sq_model *m, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err);

#endif
