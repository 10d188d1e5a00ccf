/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_cost.c - how many rows of prompts a step may have beside answers that stream, and what rows of
 * answers cost.
 *
 *   step of n rows of answers     alone_ms[n]                measured whenever no prompt is there, and
 *   the same with r prompt rows   alone_ms[n] + r * row_ms   once in a while for that alone
 *
 * Several answers with a row each, and one with guesses behind its last token, are n rows alike: weights are
 * read once for all of them.
 *
 * Both are measured, nothing is fitted: what a row costs depends on how many there are (rows are nearly free
 * while weights are read from memory, then they are not), on how far into its prompt it is, on caches and on
 * who else uses the cores. A line through all that was right on average and wrong where it mattered. Two
 * rates follow dear rows quickly and cheap ones slowly, so that row_ms is an expectile above the mean (Newey
 * and Powell, 1987) and the target holds for most steps, not for half of them; rows grow by half a step,
 * since how dear more of them are is known only once they have run.
 *
 * Steps without prompts are followed the other way, down quickly and up slowly. What disturbs a step only
 * adds to its time, and a number of rows that once seemed dear is hardly run again: one disturbed step must
 * not condemn it, and one good one has to be enough to put it right. The first step of a number is held
 * against what its neighbours let expect, for the same reason. */
#include "sched/sched_cost.h"

enum {
    ROWS_FIRST = 8,  /* of the first step with prompts after steps without */
    ALONE_EVERY = 32 /* steps with prompts, then one without: their time is worth knowing */
};

/* The usual step with prompts, over one without. The slowest of a hundred takes 1.4 times the usual one where
 * we have measured, and should stay within 2.5. */
static const double TARGET = 1.75;

/* Prompts always go on. */
static const double ROWS_MIN = 1e-3;

/* How far one step without prompts moves what is expected of the next. */
static const double DEARER = 1.0 / 8, CHEAPER = 1.0 / 2;

/* What a row of an answer adds to a step of one, before any was seen. */
static const double SLOPE = 0.3;

void sq_step_cost_add(sq_step_cost *c, int32_t n, double rows, double ms) {
    if (n == 0 || n > SQ_COST_ROWS_MAX) return;
    const double alone = sq_step_cost_alone(c, n), expected = alone + rows * c->row_ms;
    c->rows = rows;
    if (alone > 0 && ms > 2 * expected) ms = 2 * expected; /* somebody else had the cores */
    if (rows == 0) {
        c->alone_ms[n] = alone > 0 ? alone + (ms - alone) * (ms > alone ? DEARER : CHEAPER) : ms;
        c->since_alone = 0;
        return;
    }
    c->since_alone++;
    const double each = ms > alone ? (ms - alone) / rows : 0;
    c->row_ms += (each - c->row_ms) / (each > c->row_ms ? 2 : 8);
}

/* Of a row beyond the n that are the most that were seen: as those before it, on average. */
static double more_ms(const sq_step_cost *c, int32_t n) {
    int32_t first = 1;
    if (c->row_ms > 0) return c->row_ms;
    while (c->alone_ms[first] <= 0) first++;
    if (first == n) return SLOPE * c->alone_ms[n] / n;
    const double ms = (c->alone_ms[n] - c->alone_ms[first]) / (n - first);
    return ms > 0 ? ms : 0;
}

double sq_step_cost_alone(const sq_step_cost *c, int32_t n) {
    int32_t below = n < SQ_COST_ROWS_MAX ? n : SQ_COST_ROWS_MAX, above = below;
    while (below > 0 && c->alone_ms[below] <= 0) below--;
    while (above < SQ_COST_ROWS_MAX && c->alone_ms[above] <= 0) above++;
    const double low = c->alone_ms[below], high = c->alone_ms[above];
    if (below == 0) return high;
    if (below == n) return low;
    if (high > low) return low + (high - low) * (n - below) / (above - below);
    if (high > 0) return low;
    return low + (n - below) * more_ms(c, below);
}

int32_t sq_step_cost_seen(const sq_step_cost *c) {
    int32_t n = SQ_COST_ROWS_MAX;
    while (n > 0 && c->alone_ms[n] <= 0) n--;
    return n;
}

double sq_step_cost_rows(const sq_step_cost *c, int32_t n, double target_ms) {
    const double alone = sq_step_cost_alone(c, n);
    if (alone <= 0 || c->since_alone >= ALONE_EVERY) return 0;
    const double most = c->rows > 0 ? 1.5 * c->rows : ROWS_FIRST;
    const double left = (target_ms > 0 ? target_ms : TARGET * alone) - alone;
    const double fits = c->row_ms > 0 ? left / c->row_ms : most;
    if (fits >= most) return most;
    return fits > ROWS_MIN ? fits : ROWS_MIN;
}
