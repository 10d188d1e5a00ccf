/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_spec.c - how many guesses pay.
 *
 *   tokens of a step with m guesses   T(m) = T(0) + r1 + r1 r2 + ... + r1 .. rm       r: how often such a
 *   its cost                          C(m) = cost of rows + m rows of answers            guess is right
 *
 * The m with the most tokens a millisecond is taken, and none unless it is 3 % better than without. Guesses
 * are told apart by class (an n-gram's: how many tokens are equal before it), and how often a class is right
 * is learned by each answer for itself, beginning with what other answers of the engine saw. Where nothing
 * pays, once in 64 tokens one guess is tried all the same: a text may begin to repeat itself. */
#include "sched/sched_spec.h"

#include <string.h>

static const double GAIN = 1.03;

/* No row is cheaper than this share of the step it joins: times are noisy, and the luckiest looks free. */
static const double FREE = 0.02;

enum { PROBE_EVERY = 64 };

/* How far one result moves a rate: of an answer, and of the engine. */
static const float LEARN = 1.0f / 12, LEARN_ALL = 1.0f / 24;

struct sq_spec {
    squish_alloc alloc;
    squish_spec opt;
    sq_ngram *ngram;
    sq_guess_rates rates;
    bool began;          /* rates are there */
    squish_spec_mode by; /* whose guesses are being tried */
    uint8_t class_of[SQ_GUESS_MAX];
    int32_t n_tried;
    int32_t since_probe; /* tokens since guesses were tried */
    sq_spec_count count;
};

void sq_guess_rates_init(sq_guess_rates *r) {
    memset(r, 0, sizeof *r);
    for (int32_t c = 0; c < SQ_GUESS_CLASSES; c++) {
        const float seen = c <= SQ_NGRAM_MIN ? 0.05f : 1.0f - 2.0f / (float)c; /* 0.33 at 3, 0.86 at 14 */
        r->right[SQUISH_SPEC_NGRAM][c] = seen;
    }
}

static squish_status check(const squish_spec *o, squish_error *err) {
    if (o->mode < 0 || o->mode >= SQUISH_SPEC_COUNT)
        return sq_fail(err, SQUISH_INVALID, "spec mode is %d, wanted %d (auto) to %d", (int)o->mode,
                       SQUISH_SPEC_AUTO, SQUISH_SPEC_COUNT - 1);
    if (o->guesses < 0 || o->guesses > SQ_GUESS_MAX)
        return sq_fail(err, SQUISH_INVALID, "spec guesses is %d, wanted 0 (as many as pay) to %d", o->guesses,
                       SQ_GUESS_MAX);
    return SQUISH_OK;
}

squish_status sq_spec_new(sq_spec **out, const squish_spec *o, int32_t tokens_max, const squish_alloc *a,
                          squish_error *err) {
    *out = NULL;
    SQ_TRY(check(o, err));
    if (o->mode == SQUISH_SPEC_OFF) return SQUISH_OK;
    sq_spec *s = sq_alloc_zero(a, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory");
    *s = (sq_spec){.alloc = *a, .opt = *o};
    const squish_status st = sq_ngram_new(&s->ngram, tokens_max, a, err);
    if (st != SQUISH_OK) {
        sq_spec_free(s);
        return st;
    }
    *out = s;
    return SQUISH_OK;
}

void sq_spec_free(sq_spec *s) {
    if (!s) return;
    sq_ngram_free(s->ngram);
    const squish_alloc a = s->alloc;
    sq_alloc_free(&a, s, sizeof *s);
}

void sq_spec_accept(sq_spec *s, int32_t id) {
    sq_ngram_accept(s->ngram, id);
    s->since_probe++;
}

/* The number of guesses, of n, with which a step gives the most tokens a millisecond. What more rows cost is
 * known only once they have run, so they double at most. */
static int32_t best_count(const sq_spec *s, const sq_spec_step *at, int32_t n, double *tokens) {
    const double alone = sq_step_cost_alone(at->cost, at->rows), before = at->tokens;
    if (alone <= 0) return 0;
    const int32_t most = 2 * sq_step_cost_seen(at->cost) + 2 - at->rows;
    double best = before / alone * (1 + (GAIN - 1) / before), sum = before, chance = 1;
    int32_t count = 0;
    if (n > most) n = most;
    for (int32_t i = 0; i < n; i++) {
        chance *= (double)s->rates.right[s->by][s->class_of[i]];
        sum += chance;
        const double ms = sq_step_cost_alone(at->cost, at->rows + i + 1);
        if (at->ms_max > 0 && ms > at->ms_max) break;
        const double least = alone * (1 + FREE * (i + 1)), paid = ms > least ? ms : least;
        if (!(sum > best * paid)) continue;
        best = sum / paid;
        count = i + 1;
        *tokens = sum;
    }
    return count;
}

int32_t sq_spec_guess(sq_spec *s, sq_spec_step *at, int32_t max, int32_t *ids) {
    s->n_tried = 0;
    if (!s->began) s->rates = *at->rates;
    s->began = true;
    if (s->opt.guesses > 0 && max > s->opt.guesses) max = s->opt.guesses;
    if (max > SQ_GUESS_MAX) max = SQ_GUESS_MAX;
    if (max > SQ_COST_ROWS_MAX - at->rows) max = SQ_COST_ROWS_MAX - at->rows;
    if (max <= 0) return 0;
    int32_t length;
    s->by = SQUISH_SPEC_NGRAM;
    const int32_t n = sq_ngram_find(s->ngram, ids, max, &length);
    for (int32_t i = 0; i < n; i++)
        s->class_of[i] = (uint8_t)(length + i < SQ_GUESS_CLASSES - 1 ? length + i : SQ_GUESS_CLASSES - 1);
    double tokens = at->tokens;
    int32_t count = s->opt.guesses > 0 ? n : best_count(s, at, n, &tokens);
    if (count == 0 && n > 0 && sq_step_cost_seen(at->cost) > 0 && s->since_probe >= PROBE_EVERY) count = 1;
    if (count > 0) s->since_probe = 0;
    at->rows += count;
    at->tokens = tokens;
    return s->n_tried = count;
}

void sq_spec_cut(sq_spec *s, int32_t n) {
    if (n < s->n_tried) s->n_tried = n;
}

static void learn(float *rate, bool right, float by) { *rate += ((right ? 1.0f : 0.0f) - *rate) * by; }

void sq_spec_result(sq_spec *s, int32_t n_right, sq_guess_rates *rates) {
    for (int32_t i = 0; i < s->n_tried && i <= n_right; i++) {
        const int32_t c = s->class_of[i];
        learn(&s->rates.right[s->by][c], i < n_right, LEARN);
        learn(&rates->right[s->by][c], i < n_right, LEARN_ALL);
    }
    s->count.guessed += s->n_tried;
    s->count.right += n_right;
    s->n_tried = 0;
}

sq_spec_count sq_spec_counts(const sq_spec *s) { return s ? s->count : (sq_spec_count){0}; }
