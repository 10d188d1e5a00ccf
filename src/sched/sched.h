/* SPDX-License-Identifier: Apache-2.0
 *
 * sched.h - engines, timelines and answers: who runs when, on which cache.
 *
 * An engine owns the backend, the KV pool and one forward pass that all its timelines take turns on. A
 * timeline (seq) is a list of tokens and the cache that belongs to it. An answer (gen) draws tokens from a
 * timeline and turns them into text. The public handles are these structs; src/lib only checks arguments in
 * front of them.
 *
 * Threads: an engine and everything on it belong to one thread at a time; only sq_seq_cancel may come from
 * elsewhere. */
#ifndef SQ_SCHED_H
#define SQ_SCHED_H

#include "model/model_heads.h"
#include "model/model_look.h"
#include "model/model_stream.h"
#include "sample/sample.h"
#include "sched/sched_cost.h"
#include "sched/sched_draft.h"
#include "sched/sched_masks.h"
#include "sched/sched_spec.h"

#include <stdatomic.h>

typedef struct squish_engine sq_engine;
typedef struct squish_seq sq_seq;
typedef struct squish_gen sq_gen;

enum {
    SQ_CHUNK_MAX = 2048,
    SQ_LOGIT_ROWS = 32, /* rows of logits computed at once */
    SQ_SEQS_MAX = 32,   /* timelines in one step */
    SQ_JUMP_MAX = 16    /* tokens of one answer that wait to be evaluated: one drawn, others forced */
};

/* A grammar and the vocabulary it is for. */
struct squish_grammar {
    squish_alloc alloc;
    sq_gram *g;
    sq_gram_trie *trie;
    double compile_ms;
    bool canonical; /* forced text is cut as the tokenizer cuts it */
};

struct squish_engine {
    squish_alloc alloc;
    const sq_model *m;
    sq_backend *b;
    sq_kv_pool *kv;
    sq_forward *f;
    sq_stream *stream;       /* NULL: weights are mapped */
    const char *mapped;      /* and why they are; "": nobody asked for anything else */
    sq_look *look;           /* of experts that are streamed; NULL: nobody guesses */
    sq_look_maps *look_maps;
    char look_why[240];      /* why fitted maps are not used; "": they are, or nobody asked */
    sq_masks *masks;
    int32_t threads, ctx, chunk;
    uint64_t scratch_bytes;
    squish_attention attention;
    sq_step_cost cost;       /* of timelines that take turns; a batch has its own */
    sq_guess_rates rates;
    sq_heads_run *heads;     /* that guess; NULL: the model has none */
    sq_drafter drafter;      /* them, as sq_spec_guess asks them */
    const void *drafts_for;  /* the answer they draft for */
    bool heads_tried, heads_ready, heads_told;
    int32_t heads_asked;     /* times that nobody asked for them by name, while they were not ready */
    sq_draft *draft, *skip;  /* another model; NULL: none. First layers; NULL: the model has but one */
    sq_kv_seq *sides[SQ_BRANCHES_MAX]; /* for side branches of a step; NULL: there are none on this engine */
    int32_t n_sides;                   /* of these, in use, */
    const sq_seq *sides_of;            /* by a timeline; NULL: by nobody, or by a batch */
    bool drafts_told;
    const sq_seq *logits_of; /* whose last position the forward pass's logits belong to; NULL: nobody's */
};

/* Side branches that an answer has in the present step (sched_sides.c). */
typedef struct {
    int32_t n, rows;                 /* branches, and the rows of all */
    sq_branch b[SQ_BRANCHES_MAX];
    sq_kv_seq *kv[SQ_BRANCHES_MAX];  /* the engine's */
    int32_t lead[SQ_BRANCHES_MAX];   /* rows before it that its sequence needs too */
} sq_sides;

struct squish_seq {
    sq_engine *e;
    sq_kv_seq *kv;
    int32_t *tokens; /* [ctx] */
    int32_t n, reused;
    int32_t n_prompt;     /* of these, those that were given: tokens behind them were drawn */
    int32_t n_guesses;    /* tokens [n, n + n_guesses) are in the cache and not part of the timeline */
    sq_sides sides;       /* branches beside them */
    int32_t row;          /* whose logits these are, of the rows that have some: */
    const float *logits; /* of position n-1, in the engine's forward pass; valid while e->logits_of is this */
    const float *hidden; /* that they came from, alike */
    atomic_int cancel;
};

/* The memory decision: see squish_engine_estimate. Also resolves threads, ctx and chunk into *resolved. */
squish_status sq_engine_plan(const sq_model *m, const squish_engine_options *opt,
                             squish_engine_options *resolved, squish_mem_estimate *est, squish_error *err);
/* (sched_stream.c) Weights that do not fit into `usable` bytes beside cache and scratch, to be streamed: the
 * context, as wished or as much as a quarter of the memory holds, and what is left for weights,
 * into r and est. Refuses as sq_engine_plan does, or says what is the least. */
squish_status sq_engine_plan_stream(const sq_model *m, const squish_engine_options *o, uint64_t usable,
                                    squish_engine_options *r, squish_mem_estimate *est, squish_error *err);
/* The stream of an engine whose estimate says so; else why there is none. */
squish_status sq_engine_make_stream(sq_engine *e, const squish_engine_options *o,
                                    const squish_mem_estimate *est, squish_error *err);
void sq_engine_agile_info(const sq_engine *e, squish_agile_info *out);
/* (sched_look.c) Who guesses experts of an engine that streams them; others have nobody. A file of maps that
 * cannot be used leaves it to the routers, with a word in e->look_why. NO_MEMORY. */
squish_status sq_engine_make_look(sq_engine *e, const squish_engine_options *o, squish_error *err);
void sq_engine_look_info(const sq_engine *e, squish_lookahead_info *out);
/* Bytes of cache and scratch of options with a context. */
uint64_t sq_engine_kv_bytes(const sq_model *m, const squish_engine_options *o);
uint64_t sq_engine_scratch_bytes(const sq_model *m, const squish_engine_options *o);
/* The longest context whose cache and scratch fit into `room` bytes, in steps of 256 tokens or the model's
 * own; 0: none. *kv: bytes of that cache. o has threads and a chunk. */
int32_t sq_engine_longest(const sq_model *m, const squish_engine_options *o, uint64_t room, uint64_t *kv);
squish_status sq_engine_new(sq_engine **out, const sq_model *m, const squish_engine_options *opt,
                            squish_error *err);
void sq_engine_free(sq_engine *e);
/* sq_spec_new for an answer on e. A cache whose tiles go down by age (sq_kv_policy.votes) goes without: a
 * step of guesses would pass ages later than single steps, and text would depend on it. INVALID: guesses were
 * asked for by name beside such a cache. */
squish_status sq_engine_spec(const sq_engine *e, sq_spec **out, const squish_spec *o, int32_t tokens_max,
                             const squish_alloc *a, squish_error *err);

/* The drafter that o may ask, for an answer; asked for each step. NULL: none (yet). Why one that was
 * asked for by name is not there is told the model's warn, once. By the thread the engine belongs to. */
sq_drafter *sq_engine_drafter(sq_engine *e, const squish_spec *o);
/* (sched_heads.c) Likewise the heads; what is wrong with their file is told too. */
sq_drafter *sq_engine_heads(sq_engine *e);
/* The heads of an engine that has some, once it was asked so often that short answers need not wait. */
sq_drafter *sq_engine_heads_later(sq_engine *e);

squish_status sq_seq_new(sq_seq **out, sq_engine *e, squish_error *err);
void sq_seq_free(sq_seq *s);
squish_status sq_seq_sync(sq_seq *s, const int32_t *tokens, size_t n, squish_error *err);
void sq_seq_truncate(sq_seq *s, int32_t n);
/* Logits of the last position, or NULL if another timeline has used the engine since (or none were made). */
const float *sq_seq_logits(const sq_seq *s);
/* The same, made again where they are gone: the last token is evaluated once more, with the same bits.
 * INVALID: the timeline is empty. CANCELLED leaves the timeline as it was. */
squish_status sq_seq_logits_now(sq_seq *s, const float **out, squish_error *err);
/* Append n >= 1 tokens, at most a chunk, and evaluate them in one step; all or none. */
squish_status sq_seq_append(sq_seq *s, const int32_t *ids, int32_t n, squish_error *err);
/* The same, with guesses behind the last of them: ids [n + n_guesses], and side branches of these (NULL:
 * none); all rows at most a chunk, those of guesses and branches at most SQ_GUESS_MAX. They are no part of
 * the timeline; the next call but sq_seq_confirm forgets them. Branches without room leave `sides`. */
squish_status sq_seq_try(sq_seq *s, const int32_t *ids, int32_t n, int32_t n_guesses, sq_sides *sides,
                         squish_error *err);
/* Append id, if it is the first guess or that of a branch, and was evaluated: its logits are there. Else
 * false, and all guesses are forgotten. *aside: a branch was entered; what is guessed behind it is the
 * branch's. NULL: nobody asks. */
bool sq_seq_confirm(sq_seq *s, int32_t id, bool *aside);
/* Where a draft begins behind the timeline and n <= ctx - s->n tokens more; forgets all guesses. */
sq_draft_from sq_seq_draft_from(sq_seq *s, const int32_t *ids, int32_t n);
squish_status sq_seq_score(sq_seq *s, const int32_t *tokens, size_t n, int32_t first, squish_logits_fn fn,
                           void *user, squish_error *err);

/* Append n tokens and hand out the logits of each; the timeline stays. */
squish_status sq_seq_extend(sq_seq *s, const int32_t *tokens, size_t n, squish_logits_fn fn, void *user,
                            squish_error *err);

/* ---- side branches (sched_sides.c) ------------------------------------------------------------- */

/* Sequences for branches, as many as an answer may have; none where weights stream or tiles are voted on.
 * NO_MEMORY. */
squish_status sq_sides_new(sq_engine *e, squish_error *err);
static inline bool sq_sides_can(const sq_engine *e) { return e->sides[0] != NULL; }
/* Room for the branches b of kv, which holds `computed` tokens, has reserved for `certain` in all and guesses
 * behind them. Branches that there is no room for are left out: nobody gives way to them. */
void sq_sides_begin(sq_sides *x, sq_engine *e, const sq_kv_seq *kv, int32_t computed, int32_t certain);
/* Their rows and segments behind *m rows and *n segments of the step; main: the segment of the timeline. */
void sq_sides_add(const sq_sides *x, const sq_step_seg *main, int32_t certain, int32_t *ids, int32_t *m,
                  sq_step_seg *segs, int32_t *n);
/* The branch that begins with id behind `at` guesses, -1: none; *row: of its first token, counted from the
 * first branch's. */
int32_t sq_sides_find(const sq_sides *x, int32_t at, int32_t id, int32_t *row);
/* Every branch of the engine is forgotten. */
void sq_sides_end(sq_engine *e);

/* ---- old tiles (sched_votes.c) --------------------------------------------------------------- */

/* Drop what is due to be dropped, and let a sequence's tiles go down as their votes say; before every step.
 * Nearly free where there is nothing. NO_MEMORY: there is no room to drop tokens; the step has to wait. */
squish_status sq_votes_run(sq_engine *e, sq_kv_seq *kv, squish_error *err);
/* Room for positions [0, n): prefixes that nobody uses go, then, under a budget, the oldest tokens lose bits.
 * NO_MEMORY: that was not enough. */
squish_status sq_votes_room(sq_engine *e, sq_kv_seq *kv, int32_t n, squish_error *err);
/* How many of n rows from position pos on, the last ones, have to be observed, of a prompt of n_prompt
 * tokens; *from: the position from which on rows are. */
int32_t sq_votes_observe(const sq_engine *e, int32_t pos, int32_t n, int32_t n_prompt, int32_t *from);
/* Of n tokens of a job that are there already those that need not be computed: its prompt has to end, and
 * rows that judge have to be seen. */
int32_t sq_votes_reusable(const sq_engine *e, int32_t n_prompt, int32_t n);
/* The prompt ids[0..n), all computed, has ended. */
void sq_votes_prompt_end(sq_engine *e, sq_kv_seq *kv, const int32_t *ids, int32_t n);

/* ---- answers --------------------------------------------------------------------------------- */

/* From logits to events (sched_answer.c): draws, detokenises, stops. o is copied. */
typedef struct sq_answer sq_answer;
squish_status sq_answer_new(sq_answer **out, const sq_model *m, int32_t ctx, const squish_gen_options *o,
                            const squish_alloc *alloc, squish_error *err);
void sq_answer_free(sq_answer *a);
void sq_answer_prompt(sq_answer *a, const int32_t *ids, size_t n); /* once, before the first token */
/* How many of n guesses, at most SQ_GUESS_MAX, its grammar lets pass, one behind the other. The masks behind
 * those are made beside the next forward pass. */
int32_t sq_answer_allows(sq_answer *a, const int32_t *ids, int32_t n);
/* Of a branch behind ids[0..b->at), which pass: as many of its tokens as do; b->n is no more afterwards. Of
 * those that share a place with guesses of before masks are not made twice. */
void sq_answer_allows_aside(sq_answer *a, const int32_t *ids, sq_branch *b);
bool sq_answer_wants_token(const sq_answer *a); /* the next call needs logits */
/* A forward pass for the next token, and for guesses behind it, begins: their masks are made beside it. */
void sq_answer_prepare(sq_answer *a, sq_masks *w);
void sq_answer_settle(sq_answer *a); /* nothing of it is left with who makes masks */
/* The grammar leaves one token and its log-probability is not asked for: the next call needs no logits. */
bool sq_answer_is_forced(sq_answer *a);
/* The token of position n, from logits [n_vocab] of position n - 1 (NULL if no token is wanted, or it is
 * forced). The event's pointers live until the next call, stop_reason as long as the answer. NUMERIC,
 * NO_MEMORY; INVALID after a finish. */
squish_status sq_answer_next(sq_answer *a, const float *logits, int32_t n, squish_gen_event *ev,
                             squish_error *err);
/* The token of the next call was guessed to be id, and is kept by ratio (sq_sampler_draw_by_ratio); *q lives
 * until then. */
void sq_answer_expect(sq_answer *a, int32_t id, const sq_proposal *q);
int64_t sq_answer_seed(const sq_answer *a);
/* sq_sampler_guess of its sampler, for a drafter that has these logits: d->second too, where it is asked for.
 * By ratio sq_sampler_propose, into d->q. */
int32_t sq_answer_guess(const sq_answer *a, sq_drafter *d, const float *logits, const int32_t *ids, int32_t n,
                        int64_t position, float *sure);
int32_t sq_answer_tokens(const sq_answer *a); /* drawn so far */
int32_t sq_answer_forced(const sq_answer *a); /* of those, without logits */
int32_t sq_answer_left(const sq_answer *a); /* tokens it may still have, by max_tokens */
/* And drawn first, then checked: the mask was late; or none was begun. */
int32_t sq_answer_unmasked(const sq_answer *a);
int32_t sq_answer_blind(const sq_answer *a);

squish_status sq_gen_new(sq_gen **out, sq_seq *s, const int32_t *prompt, size_t n,
                         const squish_gen_options *opt, squish_error *err);
squish_status sq_gen_next(sq_gen *g, squish_gen_event *ev, squish_error *err);
void sq_gen_stats(const sq_gen *g, squish_gen_stats *out);
void sq_gen_rates(squish_gen_stats *s); /* fill the tokens per second from the rest */
void sq_gen_free(sq_gen *g);

/* ---- text that is forced (sched_jump.c) --------------------------------------------------------- */

/* Tokens in the order of the tokenizer for the text that a grammar forces next, taken one by one. */
typedef struct {
    sq_arena arena; /* of the ids; reset for each text */
    sq_buf text;
    int32_t *ids; /* [n], those before `at` are taken */
    size_t n, at;
    bool looked; /* there was a search at the place where the matcher is */
} sq_jump;
void sq_jump_init(sq_jump *j, const squish_alloc *a);
void sq_jump_deinit(sq_jump *j);
/* Find them, unless there was a search already. mask: room for one. The matcher stays. */
squish_status sq_jump_find(sq_jump *j, sq_matcher *x, const sq_tok *tok, uint64_t *mask, size_t words,
                           squish_error *err);
static inline bool sq_jump_is_on(const sq_jump *j) { return j->at < j->n; }

/* ---- many answers at once -------------------------------------------------------------------- */

/* The public section of the same name, with options given (inside: sched_int.h). A batch is the one user of
 * its engine and runs a thread of its own; these functions may be called from any. */
typedef struct squish_batch sq_batch;
typedef struct squish_job sq_job;
squish_status sq_batch_new(sq_batch **out, sq_engine *e, const squish_batch_options *o, squish_error *err);
void sq_batch_free(sq_batch *b);
squish_status sq_batch_submit(sq_job **out, sq_batch *b, const squish_job_options *o, squish_error *err);
bool sq_batch_drain(sq_batch *b);
void sq_batch_get_stats(sq_batch *b, squish_batch_stats *out);
bool sq_job_next(sq_job *j, squish_job_event *ev);
void sq_job_cancel(sq_job *j);
void sq_job_stats(sq_job *j, squish_job_stats *out);
void sq_job_free(sq_job *j);

#endif
