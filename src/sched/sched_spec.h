/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_spec.h - guesses: tokens that an answer may go on with, tried in the step that evaluates the last
 * token that is certain.
 *
 *   certain  a b c          step:  | c | d'| e'| f'|      rows: logits behind c, d', e', f'
 *   guessed        d' e' f'          d   e   X            drawn from them, in order: X is not f'
 *   then           d e X                                  three tokens by one step; f' is forgotten
 *
 * A guess never decides: every token is drawn from logits of exactly the tokens before it, with the noise of
 * its position, by the same code as without guesses. So text does not depend on what is guessed, by whom, or
 * whether it is right. What does depend on it is time, and sq_spec_guess weighs that: what a step of so many
 * rows costs (sched_cost.h) against how often guesses of this kind were right.
 *
 * Beside the chain of guesses there may be side branches: other ways to go on, from the first guess or from a
 * later one. Where a drawn token is not the chain's guess and some branch has it, its rows go on.
 *
 *   certain  a b c          step:  | c | d'| e'| f'|  | g'| h'|      the branch begins where d' stands
 *   then     g h X                   g               h   X          three tokens where the chain gives one
 *
 * An sq_spec belongs to one answer, an sq_guess_rates to an engine; both to the thread that makes steps.
 * After sq_spec_new nothing allocates. */
#ifndef SQ_SCHED_SPEC_H
#define SQ_SCHED_SPEC_H

#include "base/base.h"
#include "sample/sample.h"
#include "sched/sched_cost.h"

enum {
    SQ_GUESS_MAX = 31,     /* of one answer in one step: with the token before them 32 rows of logits */
    SQ_GUESS_CLASSES = 16, /* kinds of guesses of a proposer that are right equally often */
    SQ_NGRAM_MIN = 2,      /* tokens that have to be equal before a continuation is looked at */
    SQ_BRANCHES_MAX = 3,   /* beside a chain, */
    SQ_BRANCH_TOKENS = 4   /* of so many tokens each */
};

/* Another way to go on than the chain's, behind `at` of its guesses. */
typedef struct {
    int32_t at, n, ids[SQ_BRANCH_TOKENS];
    int32_t length; /* an n-gram's: tokens that are equal before it */
} sq_branch;

/* ---- n-grams (sched_ngram.c) ----------------------------------------------------------------- */

/* What followed the last time the timeline ended like this. */
typedef struct sq_ngram sq_ngram;
squish_status sq_ngram_new(sq_ngram **out, int32_t tokens_max, const squish_alloc *a, squish_error *err);
void sq_ngram_free(sq_ngram *g);
uint64_t sq_ngram_bytes(int32_t tokens_max); /* what one takes from the allocator */
void sq_ngram_accept(sq_ngram *g,
                     int32_t id); /* the timeline is longer by one; past tokens_max: not recorded */
/* Up to max tokens that followed the longest earlier place that ends as the timeline does (of several the
 * latest); *length: how many tokens are equal there. 0: there is none. */
int32_t sq_ngram_find(const sq_ngram *g, int32_t *ids, int32_t max, int32_t *length);

/* The other ways to go on behind earlier places that end as the timeline does, each where it leaves
 * chain[0..n), what sq_ngram_find gave; the longest match first, of equal ones the latest. Returns how many
 * of SQ_BRANCHES_MAX there are. */
int32_t sq_ngram_others(const sq_ngram *g, const int32_t *chain, int32_t n, sq_branch *out);

/* ---- who drafts ------------------------------------------------------------------------------ */

enum { SQ_SINCE_MAX = 8, SQ_DRAFT_PLACES = 8 };

struct sq_kv_seq;

/* Where a draft begins: behind a timeline whose last tokens were not evaluated yet. */
typedef struct {
    const int32_t *tokens;      /* [n] */
    int32_t n, computed;        /* of these, those in the cache: */
    struct sq_kv_seq *kv;       /* of the timeline */
    uint64_t salt;              /* timelines of different salts share nothing */
    const void *answer;         /* whose sampler draws */
    const float *h;             /* hidden state of the position whose logits gave the first of: */
    const int32_t *since;       /* [n_since]; n_since < 1: it is not there */
    int32_t n_since;
} sq_draft_from;

/* Guesses made one behind the other, each at a price: heads, other models, a model's first layers. An
 * engine's; asked while an answer plans its step, for one answer at a time. */
typedef struct sq_drafter sq_drafter;
struct sq_drafter {
    squish_spec_mode mode;
    int32_t most;  /* guesses in a row */
    double ms;     /* of one, as measured; 0: none was made yet */
    double row_ms; /* of a token that is read first; 0: none was read yet */
    double credit; /* ms that finding out whether it pays by now may take: a share of all steps' time, */
    double shy;    /* 2 to the power of the times that was for nothing, to a limit; 0: as 1 */
    bool seconds;  /* asked for by the caller: what would be guessed if the guess were not, */
    int32_t second; /* of the last one; -1: nothing */
    sq_proposal *q; /* by ratio: what the next guess is to be drawn from; NULL: by match */
    int64_t turn;   /* and whose noise it takes (sq_sampler_propose) */
    /* Tokens that have to be read before the first guess, beside one or two at the end; -1: it cannot guess
     * from there. NULL: always 0. */
    int32_t (*lag)(sq_drafter *d, const sq_draft_from *from);
    /* Begin. Of a long lag only a part is read: false, and the next call goes on. False too where it cannot
     * guess from there, or there is no room. */
    bool (*begin)(sq_drafter *d, const sq_draft_from *from);
    /* The next guess, of position `position`, and how sure it is, 0 to 1; -1: there is none. */
    int32_t (*next)(sq_drafter *d, int64_t position, float *sure);
    /* After the last guess, where begin said true. NULL: nothing is to be done. */
    void (*end)(sq_drafter *d);
};

/* ---- what pays (sched_spec.c) ---------------------------------------------------------------- */

/* How often guesses of a class were right, and those of a drafter by their place in a row, given that all
 * before were; shared by the answers of an engine as where they begin. */
typedef struct {
    float right[SQUISH_SPEC_COUNT][SQ_GUESS_CLASSES];
    float place[SQUISH_SPEC_COUNT][SQ_DRAFT_PLACES];
    float aside[SQUISH_SPEC_COUNT][SQ_GUESS_CLASSES]; /* of a branch's first token, the chain being wrong */
} sq_guess_rates;
void sq_guess_rates_init(sq_guess_rates *r);

typedef struct sq_spec sq_spec;
/* *out NULL where o asks for no guesses. tokens_max: longest timeline; hidden: numbers of a hidden state.
 * INVALID: o is out of range, by name. */
squish_status sq_spec_new(sq_spec **out, const squish_spec *o, int32_t tokens_max, int32_t hidden,
                          const squish_alloc *a, squish_error *err);
void sq_spec_free(sq_spec *s);
const squish_spec *sq_spec_wish(const sq_spec *s); /* what was asked for */
/* A token of the timeline: given, drawn or forced. Each once, in order. */
void sq_spec_accept(sq_spec *s, int32_t id);
/* The token that is accepted next comes from the logits of hidden state h [hidden]; copied. */
void sq_spec_behind(sq_spec *s, const float *h);

/* The step that guesses would join: rows of answers, and the tokens they are expected to give (a row that was
 * drawn gives one). With company it may take ms_max at most, so that nobody waits for the guesses of others;
 * 0: as long as it pays. An answer begins with the rates of its first step. */
typedef struct {
    const sq_step_cost *cost;
    const sq_guess_rates *rates;
    int32_t rows;
    double tokens, ms_max;
    sq_drafter *drafter; /* NULL: none; else: */
    sq_draft_from from;  /* without what the answer's sq_spec knows: h, since, n_since */
    int32_t left;        /* tokens the answer may still have */
} sq_spec_step;
/* Guesses behind the timeline, whose next token has `position`, at most max, into ids; at is the step with
 * them in it afterwards. */
int32_t sq_spec_guess(sq_spec *s, sq_spec_step *at, int64_t position, int32_t max, int32_t *ids);
/* Fewer of them were tried (a grammar refuses the rest, or there was no room). */
void sq_spec_cut(sq_spec *s, int32_t n);
/* Side branches of the chain ids[0..n), whose n guesses are tried: as many as pay or were asked for, `rows`
 * rows at most, none going further than `max` guesses. Returns how many; at->rows counts theirs. */
int32_t sq_spec_branches(sq_spec *s, sq_spec_step *at, const int32_t *ids, int32_t n, int32_t max,
                         int32_t rows, sq_branch *out);
/* Is guess i of the chain kept by ratio? Then *q is what it was drawn from; NULL: it was certain. */
bool sq_spec_by_ratio(const sq_spec *s, int32_t i, const sq_proposal **q);
/* How many of n guesses are tried, of which a grammar lets the first n_allowed pass. By ratio the first one
 * that it refuses too: leaving out guesses for what they are would change the law of tokens. */
int32_t sq_spec_tried(const sq_spec *s, int32_t n, int32_t n_allowed);
/* Before sq_spec_result: the chain ended behind n_right guesses with token id, or a branch that was tried was
 * entered there and n_aside of its tokens were right; of branches n_tried tokens were tried. */
void sq_spec_aside(sq_spec *s, int32_t n_right, int32_t id, int32_t n_aside, int32_t n_tried,
                   sq_guess_rates *rates);
/* Of those that were tried the first n_right were right. rates learn too. */
void sq_spec_result(sq_spec *s, int32_t n_right, sq_guess_rates *rates);
/* What came of it so far. */
typedef struct {
    int32_t guessed, right, aside; /* aside: of those that were right, those of side branches */
} sq_spec_count;
sq_spec_count sq_spec_counts(const sq_spec *s); /* s may be NULL */

#endif
