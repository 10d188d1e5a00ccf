/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_look.h - a text through an engine, token by token, for whoever counts guesses of experts. */
#ifndef SQ_SCHED_LOOK_H
#define SQ_SCHED_LOOK_H

#include "sched/sched.h"

/* Run ids [n] in windows that know nothing of each other, up to `at_once` (1..SQ_SEQS_MAX) of them in a step,
 * a token of each: with l in the forward pass in place of the engine's own. The engine holds at_once * window
 * tokens and nothing else. CANCELLED, NO_MEMORY. */
squish_status sq_look_run(sq_engine *e, sq_look *l, const int32_t *ids, int32_t n, int32_t window,
                          int32_t at_once, squish_progress_fn progress, void *user, squish_error *err);

#endif
