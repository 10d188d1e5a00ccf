/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_ratio.c - accepting a guess by the ratio of two laws (Leviathan et al., arXiv:2211.17192; Chen et
 * al., arXiv:2302.01318).
 *
 *   x ~ q        is kept with chance min(1, p(x) / q(x)); else a token ~ max(p - q, 0), made to sum to 1
 *
 * What comes out has the law p whatever q is, as long as x was drawn from q and from nothing else: the noise
 * of guesses is counted by how many were made, not by positions, so that none is used twice, and whether a
 * guess is tried may not depend on what it is. Each of the three draws has a stream of its own.
 *
 * p: what sq_sampler_draw draws from, after penalties, mask and filters. Where q is certain of x (an n-gram)
 * the rule is: x with chance p(x), else p without it. */
#include "sample/sample_int.h"

#include <math.h>

/* Below the best by so much, in units of temperature, a token is not guessed: q(x) = 0. */
static const float PROPOSAL_REACH = 6;

/* Likewise it has no share in p's sum that a double would show (sample_filter.c). */
static const double DEPTH = 60;

static double gumbel(uint32_t word) { return -log(-log(sq_sample_uniform(word))); }

/* ---- a guess --------------------------------------------------------------------------------- */

/* The SQ_PROPOSAL_MAX largest logits, best first; of equal ones the first. */
static int32_t largest(const float *logits, int32_t n, float least, int32_t *at) {
    int32_t k = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(logits[i] >= least) || (k == SQ_PROPOSAL_MAX && !(logits[i] > logits[at[k - 1]]))) continue;
        int32_t j = k < SQ_PROPOSAL_MAX ? k++ : k - 1;
        for (; j > 0 && logits[i] > logits[at[j - 1]]; j--) at[j] = at[j - 1];
        at[j] = i;
    }
    return k;
}

int32_t sq_sampler_propose(const sq_sampler *s, const float *logits, const int32_t *ids, int32_t n,
                           int64_t turn, sq_proposal *q, float *sure) {
    const bool greedy = sq_sample_is_greedy(&s->p);
    const double temperature = (double)s->p.temperature;
    int32_t at[SQ_PROPOSAL_MAX], best = 0;
    double sum = 0, sum_1 = 0, score = -INFINITY;
    float top = -INFINITY;
    *sure = 0;
    q->n = 0;
    for (int32_t i = 0; i < n; i++)
        if (logits[i] > top) top = logits[i];
    if (!isfinite(top)) return -1;
    q->n = largest(logits, n, greedy ? top : top - PROPOSAL_REACH * s->p.temperature, at);
    if (greedy) q->n = 1;
    const sq_sample_row row = {.s = (sq_sampler *)s, .position = turn};
    for (int32_t i = 0; i < q->n; i++) {
        const double below = (double)logits[at[i]] - (double)top, z = greedy ? 0 : below / temperature;
        uint32_t words[4];
        q->ids[i] = ids ? ids[at[i]] : at[i];
        sum += q->p[i] = exp(z);
        sum_1 += exp(below);
        sq_sample_noise(&row, (uint32_t)i >> 2, SQ_NOISE_PROPOSAL, words);
        const double x = z + gumbel(words[i & 3]);
        if (x > score) score = x, best = i;
    }
    for (int32_t i = 0; i < q->n; i++) q->p[i] /= sum;
    *sure = (float)(1 / sum_1); /* of the best, whichever was drawn */
    return at[best];
}

/* ---- is it kept? ----------------------------------------------------------------------------- */

/* p, and what there is of it beyond q. */
typedef struct {
    const sq_sample_row *row;
    const sq_proposal *q; /* NULL: certain of `guess` */
    int32_t guess;
    double sum, mass; /* of all survivors; of the guess among them */
    double score;     /* of the race for what is beyond */
    int32_t id;
    uint32_t group, words[4];
} law;

static double mass_of(const law *c, float l) {
    return exp(((double)l - (double)c->row->top) / (double)c->row->s->p.temperature);
}

static double q_of(const law *c, int32_t id) {
    if (!c->q) return id == c->guess ? 1 : 0;
    for (int32_t i = 0; i < c->q->n; i++)
        if (c->q->ids[i] == id) return c->q->p[i];
    return 0;
}

static void weigh(law *c, float l, int32_t id) {
    const double m = mass_of(c, l);
    c->sum += m;
    if (id == c->guess) c->mass = m;
}

static void race(law *c, float l, int32_t id) {
    const double beyond = mass_of(c, l) / c->sum - q_of(c, id);
    const uint32_t group = (uint32_t)id >> 2;
    if (!(beyond > 0)) return;
    if (group != c->group) sq_sample_noise(c->row, group, SQ_NOISE_BEYOND, c->words);
    c->group = group;
    const double score = log(beyond) + gumbel(c->words[id & 3]);
    if (score < c->score || (score == c->score && id > c->id)) return;
    c->score = score;
    c->id = id;
}

/* Every survivor that has a share. */
static void each(law *c, const sq_sample_survivors *v, void (*fn)(law *, float, int32_t)) {
    const sq_sample_row *r = c->row;
    const sq_sampler *s = r->s;
    for (int32_t i = 0; v->listed && i < v->n; i++) fn(c, s->cands[i].l, s->cands[i].id);
    if (v->listed) return;
    const double cut = fmax(v->cut, (double)r->top - DEPTH * (double)s->p.temperature);
    for (int32_t i = 0; i < s->n_entries; i++)
        if ((double)s->entries[i].l >= cut) fn(c, s->entries[i].l, s->entries[i].id);
    for (int32_t b = 0; b < s->n_blocks; b++) {
        if ((double)s->block_max[b] < cut) continue;
        for (uint64_t word = sq_sample_plain(r, b); word; word &= word - 1) {
            const int32_t id = b * SQ_SAMPLE_BLOCK + __builtin_ctzll(word);
            if ((double)r->logits[id] >= cut) fn(c, r->logits[id], id);
        }
    }
}

int32_t sq_sample_by_ratio(const sq_sample_row *r, const sq_sample_survivors *v, int32_t guess,
                           const sq_proposal *q) {
    law c = {.row = r, .q = q, .guess = guess, .score = -INFINITY, .id = -1, .group = UINT32_MAX};
    uint32_t words[4];
    each(&c, v, weigh);
    sq_sample_noise(r, 0, SQ_NOISE_KEEP, words);
    if (sq_sample_uniform(words[0]) * q_of(&c, guess) * c.sum < c.mass) return guess;
    each(&c, v, race);
    return c.id >= 0 ? c.id : r->top_id; /* p is q but for rounding, and the guess lost by that */
}
