/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_cost.h - what a step costs, as measured while steps are made. */
#ifndef SQ_SCHED_COST_H
#define SQ_SCHED_COST_H

#include <stdint.h>

enum {
    SQ_COST_ROWS_MAX = 64
}; /* rows of answers in one step: tokens that were drawn, and guesses behind them */

typedef struct {
    double alone_ms[SQ_COST_ROWS_MAX + 1]; /* [n] of a step with n rows of answers and no prompt that nobody
                                              disturbs; 0: not seen */
    double row_ms;                      /* of one row of a prompt beside them, through all layers */
    double rows;                        /* of prompts, in the last step with answers */
    int32_t since_alone;                /* steps with answers since one was without prompts */
} sq_step_cost;
/* A step of n rows of answers and `rows` rows of prompts took ms; a row through a quarter of the layers is a
 * quarter of a row. */
void sq_step_cost_add(sq_step_cost *c, int32_t n, double rows, double ms);
/* ms of n rows of answers without prompts, or the best guess; 0: nothing is known. */
double sq_step_cost_alone(const sq_step_cost *c, int32_t n);
int32_t sq_step_cost_seen(
    const sq_step_cost *c); /* the most rows of answers of a step without prompts; 0: none */
/* Rows of prompts for the next step beside n > 0 rows of answers, or what there is time for of one; 0: this
 * one without. target_ms 0: 1.75 times what it takes without. */
double sq_step_cost_rows(const sq_step_cost *c, int32_t n, double target_ms);

#endif
