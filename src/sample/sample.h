/* SPDX-License-Identifier: Apache-2.0
 *
 * sample.h - from logits to a token, and from tokens to text that may be shown.
 *
 * One rule: the token at position t is a pure function of (processed logits at t, seed, choice, t).
 * Noise is counter based (Philox, Salmon et al. 2011) and keyed by token id, so batching, chunking,
 * preemption, prefix reuse and speculation cannot change an answer. Logits are processed and compared
 * in f32; what is derived from them (probabilities, sums, noise) is f64, so that temperature cannot tie
 * two logits that differ.
 *
 * A sampler belongs to one sequence and one thread. After sq_sampler_new nothing allocates. */
#ifndef SQ_SAMPLE_H
#define SQ_SAMPLE_H

#include "base/base.h"

typedef struct sq_sampler sq_sampler;

/* Check every field of p against its range; INVALID names field, value and range. */
squish_status sq_sampling_check(const squish_sampling *p, int32_t n_vocab, squish_error *err);

/* n_vocab: logits per row; n_ids: ids that exist (ids >= n_ids are never sampled). history_max: longest
 * timeline, for the penalty tables. breakers: token ids at which DRY matches stop (may be NULL). seed
 * -1 draws one from the system. p is copied. Memory comes from a in one piece, a few tens of kB unless
 * penalties or top-p need more. Errors: INVALID (a field out of range, named), NO_MEMORY, IO (no seed
 * to be had). */
squish_status sq_sampler_new(sq_sampler **out, const squish_sampling *p, int32_t n_vocab, int32_t n_ids,
                             int32_t history_max, const int32_t *breakers, int32_t n_breakers,
                             const squish_alloc *a, squish_error *err);
void sq_sampler_free(sq_sampler *s);
int64_t sq_sampler_seed(const sq_sampler *s); /* the one given, or the one drawn (never negative) */
/* A token joins the history (prompt tokens with generated = false first, then each accepted token). Ids
 * outside the vocabulary and tokens past history_max are not recorded. */
void sq_sampler_accept(sq_sampler *s, int32_t id, bool generated);
/* Ban or allow one id from the next draw on (end tokens before min_tokens). False, and nothing done, if
 * the id is outside the vocabulary or would be the 65th different one in the sampler's life. */
bool sq_sampler_ban(sq_sampler *s, int32_t id, bool banned);

typedef struct {
    int32_t id;
    float logprob;          /* raw, before any processing, over all n_vocab logits; 0 unless n_top >= 0 */
    int32_t n_top;          /* best first, ties by lower id, only ids < n_ids */
    int32_t top_ids[20];
    float top_logprobs[20];
} sq_sample_result;
/* Draw the token of absolute position `position`. logits [n_vocab] f32, not changed. mask: bitset of
 * allowed ids (n_vocab bits, 64 per word) or NULL. n_top: -1 no log-probabilities, else 0..20
 * alternatives, else INVALID. NUMERIC if a logit is NaN or +inf, or if nothing is allowed. The history
 * is only read: drawing twice gives the same token twice. */
squish_status sq_sampler_draw(sq_sampler *s, const float *logits, const uint64_t *mask, int64_t position,
                              int32_t n_top, sq_sample_result *out, squish_error *err);

/* What a guesser that gives ids [n] these logits [n] would draw at `position`, with the noise that
 * sq_sampler_draw has there and without its filters and penalties: the more alike the two rows are, the more
 * often both name one token. ids NULL: logit i is of id i. Returns an index into logits, -1 if there is no
 * number among them; *sure: how probable it is at temperature 1. What is less likely than the best by a
 * factor of some hundreds is left out. but: an index that is not to be had, as what would be drawn in its
 * place is asked for; -1: none. */
int32_t sq_sampler_guess(const sq_sampler *s, const float *logits, const int32_t *ids, int32_t n,
                         int32_t but, int64_t position, float *sure);

/* ---- acceptance by ratio (sample_ratio.c) ------------------------------------------------------ */

/* The law that a guess was drawn from; ids that are not named have no chance. */
enum { SQ_PROPOSAL_MAX = 64 };
typedef struct {
    int32_t n, ids[SQ_PROPOSAL_MAX];
    double p[SQ_PROPOSAL_MAX];
} sq_proposal;
/* A guess from the softmax of these logits at the sampler's temperature, cut to its SQ_PROPOSAL_MAX likeliest
 * ids and those within a factor of some hundreds of the best; *q becomes that law. ids, n and the index that
 * is returned: as in sq_sampler_guess. The noise is that of `turn`, a number that no other guess of the
 * sampler has. *sure: how probable the likeliest is at temperature 1, whichever was drawn: who decides by it
 * learns nothing of the guess. */
int32_t sq_sampler_propose(const sq_sampler *s, const float *logits, const int32_t *ids, int32_t n,
                           int64_t turn, sq_proposal *q, float *sure);
/* sq_sampler_draw of a position for which `guess` was drawn from q (NULL: it is the only one q has). The
 * guess itself, or another token: together they have the law that sq_sampler_draw draws from. Greedy: what
 * sq_sampler_draw gives. */
squish_status sq_sampler_draw_by_ratio(sq_sampler *s, const float *logits, const uint64_t *mask,
                                       int64_t position, int32_t n_top, int32_t guess, const sq_proposal *q,
                                       sq_sample_result *out, squish_error *err);

/* Raw log-probability of id: logits[id] minus the normaliser below. logits [n], 0 <= id < n. */
float sq_logprob(const float *logits, int32_t n, int32_t id);
/* Natural-log normaliser of a row: m + log sum exp(l - m), m the largest, f64 sum in index order. n > 0. */
double sq_logsumexp(const float *logits, int32_t n);
/* Lowest index of the largest value; -1 if a NaN is there or n = 0. */
int32_t sq_argmax(const float *logits, int32_t n);

/* ---- stop strings ---------------------------------------------------------------------------- */

/* Aho-Corasick over the bytes of the generated text. Holds back exactly the bytes that could still
 * begin a stop string; no byte handed out is ever taken back. Earliest end wins; of those the longest. */
typedef struct sq_stops sq_stops;
/* n 0..16 strings of 1..256 bytes, copied. Errors: INVALID (the string is named by its index), NO_MEMORY. */
squish_status sq_stops_new(sq_stops **out, const char *const *strings, int32_t n, const squish_alloc *a,
                           squish_error *err);
void sq_stops_free(sq_stops *s);
/* Feed text[0..n); what became certain is appended to out (whose `failed` tells a full buffer). Returns
 * the index of the stop string that fired, or -1. On a hit the text before its first byte has been
 * handed out (and the string itself if `include`), the rest of text is dropped, and the automaton is as
 * new. */
int32_t sq_stops_push(sq_stops *s, const char *text, size_t n, bool include, sq_buf *out);
/* The text is over: hand out what is held. False if out could not take it. */
bool sq_stops_finish(sq_stops *s, sq_buf *out);

#endif
