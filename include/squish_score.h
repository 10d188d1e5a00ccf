/* SPDX-License-Identifier: Apache-2.0
 *
 * squish_score.h - scoring parts of prompts, for evaluation: what is chosen among answers to one question.
 * It belongs to squish.h, which has the length a header may have here. */
#ifndef SQUISH_SCORE_H
#define SQUISH_SCORE_H

#include "squish.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* squish_job_submit for a job with prompt_logprobs, of prompt tokens `from` (0 .. n_prompt - 1) and later
 * only: those before may then come from the cache, and go through no head. The first token of all has no
 * log-probability, as ever. The log-probabilities are the same bits. Errors: as squish_job_submit. */
squish_status squish_job_submit_from(squish_job **out, squish_batch *b, const squish_job_options *opt,
                                     int32_t from, squish_error *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
