/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_fidelity.h - how much of a checkpoint is left in a model: weights, tensor by tensor.
 *
 * This is the slow, independent path: it knows nothing of how the model was made. Both sides are decoded row
 * by row (low-rank terms included) and compared in f64. Where the two files order the rows of q and k
 * differently (neighbouring or half-split rotary pairs), rows are matched by what they mean.
 *
 * Reason codes: Q quantised; P_NORM, P_BIAS vectors kept exactly; P_ROUTER a router; P_POLICY a matrix kept
 * in the source's own type; P_RANGE kept in a wider type because the target could not hold it; ALIAS the head
 * is the embedding; FOLDED scales were folded in (method awq), so that the source's weights are not what it
 * stands for: the measures are those of the build, against the scaled tensor, and count in no mean. */
#ifndef SQ_FORGE_FIDELITY_H
#define SQ_FORGE_FIDELITY_H

#include "model/model.h"

/* Report of model m against source src, both with weights:
 *   {"cos_mean", "cos_min", "max_abs", "snr_db", "worst_tensor",            over all tensors
 *    "quantised": {"n", "cos_mean", "cos_min", "max_abs", "snr_db"},        over those with reason Q
 *    "reasons": {"Q": n, ...},
 *    "tensors": [{"name", "role", "layer", "rows", "cols", "source", "type", "bpw", "rank", "reason",
 *                 "cos", "rel", "snr_db", "max_abs", "worst_row_rel", "nonfinite"}]}
 * snr_db is null for an exact tensor. threads: 0 all. INVALID if the two are not the same architecture and
 * sizes, CANCELLED, NO_MEMORY. The caller owns *out. */
squish_status sq_forge_fidelity(const sq_model *src, const sq_model *m, int32_t threads,
                                squish_progress_fn progress, void *user, json_t **out, squish_error *err);

#endif
