/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_masks.h - masks of grammars, made on a thread of their own. */
#ifndef SQ_SCHED_MASKS_H
#define SQ_SCHED_MASKS_H

#include "grammar/grammar.h"

/* One mask to be made. The caller fills the first four and keeps everything until it is done. mask NULL: it
 * is only made, so that the grammar has it. */
typedef struct sq_mask_job {
    sq_gram *g;
    sq_gram_trie *trie;
    uint32_t place;
    uint64_t *mask;    /* [(n_vocab + 63) / 64] */
    int32_t n_allowed; /* these three: results */
    squish_status status;
    squish_error err;
    bool busy; /* the queue's */
    struct sq_mask_job *next;
} sq_mask_job;

typedef struct sq_masks sq_masks;
squish_status sq_masks_new(sq_masks **out, const squish_alloc *a, squish_error *err);
void sq_masks_free(sq_masks *w);                  /* no job may be open */
void sq_masks_begin(sq_masks *w, sq_mask_job *j); /* from any thread */
/* The job need not be done any more. True: nobody is at it, and it is the caller's again. */
bool sq_masks_drop(sq_masks *w, sq_mask_job *j);
/* Wait for a job that was begun, at most us microseconds (below 0: as long as it takes). True: its results
 * are there. */
bool sq_masks_wait(sq_masks *w, sq_mask_job *j, int64_t us);

#endif
