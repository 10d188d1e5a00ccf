/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_gen.c - one answer on a timeline of its own.
 *
 * A drawn token is evaluated at the start of the next call, so the first token leaves as soon as the prompt
 * is done and the last one is never evaluated at all. Behind it go guesses; as long as tokens are drawn that
 * were guessed, the next calls find their logits there. After sq_gen_new nothing allocates. */
#include "sched/sched.h"

#include <string.h>

struct squish_gen {
    sq_seq *s;
    squish_alloc alloc;
    sq_answer *answer;
    int32_t pending[SQ_JUMP_MAX], n_pending; /* not evaluated yet: one that was drawn, then forced ones */
    uint64_t t_begin, t_prefilled, t_first, t_last;
    int32_t n_prompt, n_reused;
    sq_spec *spec;                    /* NULL: no guesses */
    int32_t n_guesses, n_right;       /* in the last step: tried, and right so far */
    sq_sides sides;                   /* branches beside them, of it */
    int32_t n_aside, aside;           /* tokens right of one that was entered; 0: none was. Its first */
};

squish_status sq_gen_new(sq_gen **out, sq_seq *s, const int32_t *prompt, size_t n,
                         const squish_gen_options *o, squish_error *err) {
    *out = NULL;
    const squish_alloc *a = &s->e->alloc;
    sq_gen *g = sq_alloc_zero(a, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "answer: out of memory");
    *g = (sq_gen){.s = s, .alloc = *a, .t_begin = sq_os_now_ns(), .n_prompt = (int32_t)n};
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_answer_new(&g->answer, s->e->m, s->e->ctx, o, a, err));
    SQ_GUARD(sq_engine_spec(s->e, &g->spec, &o->spec, s->e->ctx, a, err));
    sq_answer_prepare(g->answer, s->e->masks);
    SQ_GUARD(sq_seq_sync(s, prompt, n, err));
    sq_answer_prompt(g->answer, prompt, n);
    for (size_t i = 0; g->spec && i < n; i++) sq_spec_accept(g->spec, prompt[i]);
    g->n_reused = s->reused;
    g->t_prefilled = g->t_last = sq_os_now_ns();
    *out = g;
    return SQUISH_OK;
fail:
    sq_gen_free(g);
    return st;
}

void sq_gen_free(sq_gen *g) {
    if (!g) return;
    sq_answer_free(g->answer);
    sq_spec_free(g->spec);
    squish_alloc a = g->alloc;
    sq_alloc_free(&a, g, sizeof *g);
}

/* Tokens may wait as long as they fit one step. */
static bool may_wait(const sq_gen *g) { return g->n_pending < SQ_JUMP_MAX && g->n_pending < g->s->e->chunk; }

/* ---- guesses --------------------------------------------------------------------------------- */

/* Side branches of n guesses, as far as the grammar allows. */
static void guess_aside(sq_gen *g, sq_spec_step *at, const int32_t *ids, int32_t n, int32_t room) {
    const sq_engine *e = g->s->e;
    int32_t rows = e->chunk - g->n_pending - n, kept = 0;
    g->sides.n = g->sides.rows = 0;
    if (!sq_sides_can(e)) return;
    if (rows > SQ_GUESS_MAX - n) rows = SQ_GUESS_MAX - n;
    const int32_t found = sq_spec_branches(g->spec, at, ids, n, room, rows, g->sides.b);
    for (int32_t i = 0; i < found; i++) {
        sq_branch b = g->sides.b[i];
        sq_answer_allows_aside(g->answer, ids, &b);
        if (b.n > 0) g->sides.b[kept++] = b;
    }
    g->sides.n = kept;
}

/* Guesses behind the tokens that wait, into ids: as many as there is room for and the grammar allows. */
static int32_t guess(sq_gen *g, int32_t *ids) {
    sq_engine *e = g->s->e;
    int32_t room = e->ctx - g->s->n - g->n_pending;
    if (!g->spec) return 0;
    if (room > e->chunk - g->n_pending) room = e->chunk - g->n_pending;
    if (room > sq_answer_left(g->answer) - 1) room = sq_answer_left(g->answer) - 1;
    sq_spec_step at = {.cost = &e->cost,
                       .rates = &e->rates,
                       .rows = g->n_pending,
                       .tokens = 1,
                       .drafter = sq_engine_drafter(e, sq_spec_wish(g->spec)),
                       .left = sq_answer_left(g->answer)};
    if (at.drafter) {
        at.from = sq_seq_draft_from(g->s, g->pending, g->n_pending);
        at.from.answer = g->answer;
    }
    const int32_t made = sq_spec_guess(g->spec, &at, g->s->n + g->n_pending, room, ids);
    const int32_t n = sq_spec_tried(g->spec, made, sq_answer_allows(g->answer, ids, made));
    sq_spec_cut(g->spec, n);
    guess_aside(g, &at, ids, n, room);
    return n;
}

/* The guesses of the last step are done with. */
static void close_guesses(sq_gen *g) {
    if (!g->spec || g->n_guesses == 0) return;
    const int32_t id = g->n_aside > 0 ? g->aside : g->n_pending > 0 ? g->pending[0] : -1;
    sq_spec_aside(g->spec, g->n_right, id, g->n_aside, g->sides.rows, &g->s->e->rates);
    sq_spec_result(g->spec, g->n_right, &g->s->e->rates);
    g->n_guesses = g->n_right = g->n_aside = g->sides.n = g->sides.rows = 0;
}

static squish_status step(sq_gen *g, squish_error *err) {
    int32_t ids[SQ_JUMP_MAX + SQ_GUESS_MAX];
    const int32_t n = g->n_pending;
    memcpy(ids, g->pending, (size_t)n * sizeof *ids);
    g->n_guesses = guess(g, ids + n);
    sq_answer_prepare(g->answer, g->s->e->masks);
    const uint64_t begin = sq_os_now_ns();
    SQ_TRY(sq_seq_try(g->s, ids, n, g->n_guesses, &g->sides, err));
    sq_step_cost_add(&g->s->e->cost, n + g->n_guesses + g->sides.rows, 0,
                     (double)(sq_os_now_ns() - begin) / 1e6);
    g->n_pending = 0;
    return SQUISH_OK;
}

static squish_status evaluate(sq_gen *g, const float **logits, squish_error *err) {
    bool aside;
    if (g->n_pending == 1 && sq_seq_confirm(g->s, g->pending[0], &aside)) {
        g->n_pending = 0;
        if (aside) g->aside = g->pending[0];
        *(aside || g->n_aside > 0 ? &g->n_aside : &g->n_right) += 1;
    } else {
        close_guesses(g);
        if (g->n_pending) SQ_TRY(step(g, err));
    }
    return sq_seq_logits_now(g->s, logits, err);
}

squish_status sq_gen_next(sq_gen *g, squish_gen_event *ev, squish_error *err) {
    const float *logits = NULL;
    *ev = (squish_gen_event){.id = -1, .text = ""};
    if (sq_answer_wants_token(g->answer) && !(may_wait(g) && sq_answer_is_forced(g->answer)))
        SQ_TRY(evaluate(g, &logits, err));
    const sq_proposal *q;
    if (logits && g->n_right < g->n_guesses && sq_spec_by_ratio(g->spec, g->n_right, &q))
        sq_answer_expect(g->answer, g->s->tokens[g->s->n], q);
    SQ_TRY(sq_answer_next(g->answer, logits, g->s->n + g->n_pending, ev, err));
    if (ev->id >= 0) {
        g->pending[g->n_pending++] = ev->id;
        if (g->spec && logits) sq_spec_behind(g->spec, g->s->hidden);
        if (g->spec) sq_spec_accept(g->spec, ev->id);
        g->t_last = sq_os_now_ns();
        if (sq_answer_tokens(g->answer) == 1) g->t_first = g->t_last;
    }
    return SQUISH_OK;
}

void sq_gen_stats(const sq_gen *g, squish_gen_stats *o) {
    *o = (squish_gen_stats){.prompt_tokens = g->n_prompt,
                            .reused_tokens = g->n_reused,
                            .completion_tokens = sq_answer_tokens(g->answer),
                            .forced_tokens = sq_answer_forced(g->answer),
                            .checked_tokens = sq_answer_unmasked(g->answer) + sq_answer_blind(g->answer),
                            .guessed_tokens =
                                sq_spec_counts(g->spec).guessed + g->n_guesses + g->sides.rows,
                            .right_tokens = sq_spec_counts(g->spec).right + g->n_right + g->n_aside,
                            .aside_tokens = sq_spec_counts(g->spec).aside + g->n_aside,
                            .seed = sq_answer_seed(g->answer)};
    o->prefill_ms = (double)(g->t_prefilled - g->t_begin) / 1e6;
    if (o->completion_tokens > 0) {
        o->ttft_ms = (double)(g->t_first - g->t_begin) / 1e6;
        o->decode_ms = (double)(g->t_last - g->t_first) / 1e6;
    }
    sq_gen_rates(o);
}

void sq_gen_rates(squish_gen_stats *o) {
    if (o->prefill_ms > 0) o->prefill_tok_s = (o->prompt_tokens - o->reused_tokens) / o->prefill_ms * 1e3;
    if (o->decode_ms > 0) o->decode_tok_s = (o->completion_tokens - 1) / o->decode_ms * 1e3;
}
