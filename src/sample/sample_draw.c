/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_draw.c - one token from a row: argmax of z + g over the survivors (the Gumbel-max trick,
 * Gumbel 1954; Maddison et al., "A* sampling", 2014), which draws from softmax(z) without computing a
 * softmax.
 *
 * g = -ln(-ln u) with u from 23 bits of Philox keyed by the seed and counted by (position, id >> 2,
 * choice), so g lies in [-2.82, 16.64]. These bounds prune exactly: a block of candidates is skipped
 * when even the largest g could not lift its best to the score at hand, and inside a block the two
 * logarithms are taken only for a u that is large enough to win.
 *
 * Top-p, where nothing that looks at masses follows it, needs no list of its survivors either. They are
 * the beginning of an order, so all allowed ids race, and if the winner is one of them it has won among
 * them too; if not, nothing behind it is, and those before it race again. */
#include "sample/sample_int.h"

#include <math.h>
#include <string.h>

static const double gumbel_max = 16.64; /* -ln(-ln(1 - 2^-24)) = 16.6355 */

void sq_sample_noise(const sq_sample_row *r, uint32_t group, uint32_t stream, uint32_t out[4]) {
    uint32_t counter[4] = {(uint32_t)r->position, group, (uint32_t)r->s->p.choice, stream};
    sq_philox(counter, r->s->key, out);
}

/* The best score so far, and the noise words of the group looked at last. Only candidates before `end`
 * race, where there is one (end_id >= 0). */
typedef struct {
    const sq_sample_row *row;
    double score;
    float l, end_l; /* the logit of id; -INFINITY where there is no end */
    int32_t id, end_id;
    uint32_t group, words[4];
} race;

static race race_of(const sq_sample_row *r) {
    return (race){
        .row = r, .score = -INFINITY, .id = -1, .group = UINT32_MAX, .end_l = -INFINITY, .end_id = -1};
}

static double z_of(const race *c, float l) {
    return ((double)l - (double)c->row->top) / (double)c->row->s->p.temperature;
}

static uint32_t word_of(race *c, int32_t id) {
    uint32_t group = (uint32_t)id >> 2;
    if (group != c->group) sq_sample_noise(c->row, group, SQ_NOISE_TOKEN, c->words);
    c->group = group;
    return c->words[id & 3];
}

/* Candidate id with processed logit l and noise word enters the race. */
static void enter_with(race *c, float l, int32_t id, uint32_t word) {
    double score = z_of(c, l) - log(-log(sq_sample_uniform(word)));
    if (score < c->score || (score == c->score && id > c->id)) return;
    c->score = score;
    c->l = l;
    c->id = id;
}

/* A noise word below which a logit l cannot win: u has to reach exp(-e), e = exp(z - score), and that is
 * above 1 - e. An e that is somewhat large will do: in one octave the chord lies above the curve by 6 % at
 * most, and is what the bits of a double say anyway. One step of slack covers what rounds. */
static uint32_t word_needed(const race *c, float l) {
    const double octaves = (z_of(c, l) - c->score) * 0x1.71547652b82fep+0 + 0x1p-30;
    if (octaves >= 0) return 0;
    const uint64_t bits = octaves > -1000 ? (uint64_t)((octaves + 1023) * 0x1p52) : 0;
    double e;
    memcpy(&e, &bits, sizeof e);
    const double k = (1 - e) * 0x1p23 - 2;
    return k > 0 ? (uint32_t)k << 9 : 0;
}

static void enter(race *c, float l, int32_t id) {
    if (l == -INFINITY || z_of(c, l) + gumbel_max < c->score) return;
    const uint32_t word = word_of(c, id);
    if (word >= word_needed(c, l)) enter_with(c, l, id, word);
}

static bool is_late(const race *c, float l, int32_t id) {
    return c->end_id >= 0 && !sq_sample_before(l, id, c->end_l, c->end_id);
}

/* Of 64 logits, or as many as there are, those from `least` on as bits. Without a branch: in a row where many
 * ids are likely half of them would be guessed wrong. */
static uint64_t bits_from(const float *x, int32_t n, float least) {
    uint64_t bits = 0;
    for (int32_t i = 0; i < n && i < SQ_SAMPLE_BLOCK; i++) bits |= (uint64_t)(x[i] >= least) << i;
    return bits;
}

static void enter_block(race *c, double cut, int32_t b) {
    const sq_sample_row *r = c->row;
    const float largest = r->s->block_max[b];
    uint64_t word = sq_sample_plain(r, b);
    if (!word || largest < cut || z_of(c, largest) + gumbel_max < c->score) return;
    uint32_t least = word_needed(c, largest);
    const double reach = (double)r->top + (c->score - gumbel_max) * (double)r->s->p.temperature;
    const int32_t first = b * SQ_SAMPLE_BLOCK;
    const float low = nextafterf((float)fmax(reach, cut), -INFINITY); /* however it was rounded */
    word &= bits_from(r->logits + first, r->s->n_vocab - first, low);
    for (; word; word &= word - 1) {
        const int32_t id = first + __builtin_ctzll(word);
        if (word_of(c, id) < least) continue;
        const float l = r->logits[id];
        if (l < cut || l == -INFINITY || is_late(c, l, id)) continue;
        enter_with(c, l, id, c->words[id & 3]);
    }
}

/* All allowed ids from `cut` on, as far as the race goes. */
static void run(race *c, double cut) {
    const sq_sample_row *r = c->row;
    const sq_sampler *s = r->s;
    cut = fmax(cut, (double)c->end_l);
    enter(c, r->top, r->top_id); /* first, so that the bounds bite from the start */
    for (int32_t i = 0; i < s->n_entries; i++) {
        const sq_sample_entry *e = &s->entries[i];
        if (e->l >= cut && !is_late(c, e->l, e->id)) enter(c, e->l, e->id);
    }
    for (int32_t b = 0; b < s->n_blocks; b++) enter_block(c, cut, b);
}

static int32_t choose(const sq_sample_row *r, const sq_sample_survivors *v) {
    race c = race_of(r);
    for (int32_t i = 0; v->listed && i < v->n; i++) enter(&c, r->s->cands[i].l, r->s->cands[i].id);
    if (!v->listed) run(&c, v->cut);
    return c.id;
}

/* What choose gives behind a top-p that stands alone but for thresholds, without a list; -1 where that
 * cannot be said, or not soon. Every race that is lost leaves less, as the winner is anywhere in the mass. */
static int32_t choose_top_p(const sq_sample_row *r) {
    enum { RACES_MAX = 4 };
    const double cut = sq_sample_cut(r, r->top);
    race c = race_of(r);
    for (int i = 0; i < RACES_MAX; i++) {
        run(&c, cut);
        const sq_sample_place place = sq_sample_in_top_p(r, c.l, c.id);
        if (place == SQ_SAMPLE_IN) return c.id;
        if (place == SQ_SAMPLE_UNSURE) break;
        const float end_l = c.l;
        const int32_t end_id = c.id;
        c = race_of(r);
        c.end_l = end_l;
        c.end_id = end_id;
    }
    return -1;
}

static int32_t draw_id(const sq_sample_row *r, int32_t guess, const sq_proposal *q) {
    if (sq_sample_is_greedy(&r->s->p)) return r->top_id;
    if (guess < 0 && sq_sample_is_top_p(r->s)) {
        const int32_t id = choose_top_p(r);
        if (id >= 0) return id;
    }
    const sq_sample_survivors survivors = sq_sample_filter(r);
    return guess < 0 ? choose(r, &survivors) : sq_sample_by_ratio(r, &survivors, guess, q);
}

squish_status sq_sampler_draw(sq_sampler *s, const float *logits, const uint64_t *mask, int64_t position,
                              int32_t n_top, sq_sample_result *out, squish_error *err) {
    return sq_sampler_draw_by_ratio(s, logits, mask, position, n_top, -1, NULL, out, err);
}

squish_status sq_sampler_draw_by_ratio(sq_sampler *s, const float *logits, const uint64_t *mask,
                                       int64_t position, int32_t n_top, int32_t guess, const sq_proposal *q,
                                       sq_sample_result *out, squish_error *err) {
    memset(out, 0, sizeof *out);
    out->id = -1;
    if (n_top < -1 || n_top > SQ_SAMPLE_TOP_MAX)
        return sq_fail(err, SQUISH_INVALID, "n_top: %d is outside -1..%d", n_top, SQ_SAMPLE_TOP_MAX);
    int32_t bad = sq_sample_scan(logits, s->n_vocab, s->block_max);
    if (bad >= 0)
        return sq_fail(err, SQUISH_NUMERIC, "position %lld: the logit of token %d is %g", (long long)position,
                       bad, (double)logits[bad]);
    sq_sample_row row = {.s = s, .logits = logits, .mask = mask, .position = position};
    sq_sample_process(&row);
    sq_sample_find_top(&row);
    if (row.top_id < 0 || !(row.top < INFINITY))
        return sq_fail(err, SQUISH_NUMERIC, "position %lld: %s", (long long)position,
                       row.top_id < 0 ? "no token is allowed" : "a penalty made a logit infinite");
    out->id = draw_id(&row, guess, q);
    if (n_top < 0) return SQUISH_OK;
    double log_norm = sq_logsumexp(logits, s->n_vocab);
    out->logprob = (float)((double)logits[out->id] - log_norm);
    sq_sample_top_logprobs(&row, log_norm, n_top, out);
    return SQUISH_OK;
}

/* Below the best by so much, in units of temperature, nothing is guessed; and nothing counts in a sum. */
static const float GUESS_REACH = 6, SUM_REACH = 12;

int32_t sq_sampler_guess(const sq_sampler *s, const float *logits, const int32_t *ids, int32_t n,
                         int32_t but, int64_t position, float *sure) {
    const bool greedy = sq_sample_is_greedy(&s->p);
    int32_t best = but == 0 ? 1 : 0;
    float top = best < n ? logits[best] : NAN, sum = 0;
    for (int32_t i = best + 1; i < n; i++)
        if (logits[i] > top && i != but) best = i, top = logits[i];
    *sure = 0;
    if (!isfinite(top)) return -1;
    const float least = top - GUESS_REACH * s->p.temperature;
    sq_sample_row row = {.s = (sq_sampler *)s, .logits = logits, .position = position, .top = top};
    race c = race_of(&row);
    if (!greedy) enter(&c, top, ids ? ids[best] : best);
    uint32_t needed = greedy ? 0 : word_needed(&c, top); /* by any of them */
    for (int32_t i = 0; i < n; i++) {
        if (logits[i] > top - SUM_REACH) sum += expf(logits[i] - top);
        if (greedy || i == but || !(logits[i] >= least)) continue;
        const int32_t id = ids ? ids[i] : i, leader = c.id;
        if (word_of(&c, id) < needed) continue;
        enter(&c, logits[i], id);
        if (c.id == leader) continue;
        best = i;
        needed = word_needed(&c, top);
    }
    *sure = expf(logits[best] - top) / sum;
    return best;
}
