/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_draft.h - a model as a drafter (sched_spec.h): another, smaller one, or the first layers of the model
 * that answers.
 *
 *   another one    weights | forward pass | cache, in the format of the engine's: what it has read of up to
 *                  SQ_DRAFT_LINES timelines
 *   first layers   the engine's forward pass and the timeline's own cache: what is stored there for a guess
 *                  is what a step stores, and is forgotten again
 *
 * A guess is drawn from logits of the first ids of the vocabulary, with the noise that the answer's sampler
 * will have at that position. What the other model has read of a timeline goes by tokens alone: a draft
 * begins behind the longest beginning that is there, of whichever answer it was, and reads what is missing,
 * a chunk a step at most. So one that was preempted, cancelled or goes on as the next turn of a chat is
 * nothing special. Where its cache has no room, what was not used longest goes.
 *
 * Leviathan et al., arXiv:2211.17192 (draft models); Zhang et al., arXiv:2309.08168 (the model's own layers).
 *
 * Threads: the engine's. */
#ifndef SQ_SCHED_DRAFT_H
#define SQ_SCHED_DRAFT_H

#include "sched/sched_spec.h"

struct squish_engine;
struct squish_model;

enum {
    SQ_DRAFT_MOST = SQ_DRAFT_PLACES, /* guesses in a row */
    SQ_DRAFT_LINES = 8,              /* timelines that another model remembers */
    SQ_DRAFT_IDS = 32768             /* ids that can be guessed: those merged first, which say nearly all */
};

typedef struct sq_draft sq_draft;

/* Is `draft` one that can guess for m: with weights, and of the same vocabulary? Rows of an embedding that
 * stand for no token may differ. INVALID names the first difference; UNSUPPORTED: it has no weights. */
squish_status sq_draft_check(const struct squish_model *m, const struct squish_model *draft,
                             squish_error *err);
/* What it takes beside an engine of these options, weights included; draft NULL: 0. */
uint64_t sq_draft_bytes(const struct squish_model *draft, const squish_engine_options *o);
/* Another model on e, whose backend is there and wide enough for both; o: the engine's, resolved.
 * NO_MEMORY. */
squish_status sq_draft_new(sq_draft **out, struct squish_engine *e, const struct squish_model *draft,
                           const squish_engine_options *o, squish_error *err);
/* The first `layers` layers of e's own model. NO_MEMORY. */
squish_status sq_draft_skip_new(sq_draft **out, struct squish_engine *e, int32_t layers, squish_error *err);
void sq_draft_free(sq_draft *d);
sq_drafter *sq_draft_drafter(sq_draft *d); /* as an answer asks it */

#endif
