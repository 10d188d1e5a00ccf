/* SPDX-License-Identifier: Apache-2.0
 *
 * batch_run.h - an answer collected whole, alone (squish_gen) or from a batch, for tests that compare. */
#ifndef BATCH_RUN_H
#define BATCH_RUN_H

#include "support/model_run.h"

enum { ANSWER_IDS = 2048, ANSWER_TEXT = 16384 };

typedef struct {
    int32_t n, ids[ANSWER_IDS];
    float logprobs[ANSWER_IDS];
    uint64_t tops;              /* hash of all alternatives and their log-probabilities */
    size_t bytes;
    char text[ANSWER_TEXT];
    squish_finish finish;
    char reason[64];
    squish_status status;
    char error[480];
    int32_t n_prompt_events;    /* of a batch: prompt log-probabilities */
    float prompt_logprobs[ANSWER_IDS];
    bool prompt_first_untold; /* the first of them has none: nothing lies before it */
    uint64_t prompt_tops;
    int32_t n_embedding;
    float embedding[2048];
    bool started;
    squish_job_stats stats;
} answer;

/* On a timeline that is emptied first. */
void answer_alone(squish_seq *s, const int32_t *prompt, size_t n, const squish_gen_options *o, answer *out);

/* A job and a bell that its wake rings. */
typedef struct bell bell;
bell *bell_new(void);
void bell_free(bell *b);
void bell_ring(void *b);
/* Read events into out until END (true), or until nothing is there (false). */
bool answer_read(squish_job *j, answer *out);
/* Read n jobs to their ends, sleeping on the bell between; fails the test after a minute. */
void answers_wait(bell *b, squish_job *const *j, answer *out, int32_t n);

/* A wake that holds the batch's thread until all jobs are there: else who is quick may be gone before others
 * come. It is that of the first job that is submitted. */
typedef struct gate gate;
gate *gate_new(bell *b);
void gate_free(gate *g);
void gate_wait(void *g);
void gate_open(gate *g);

/* Everything a reader could see is the same. */
void assert_same_answer(const answer *a, const answer *b);

#endif
