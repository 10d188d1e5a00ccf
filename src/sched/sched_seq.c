/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_seq.c - a timeline of tokens: the caller states the whole wish, the shared prefix is kept, the rest
 * is evaluated.
 *
 * Prompts run in chunks. Where a chunk ends never shows in the results (kernels.h), so a prompt may be cut
 * anywhere: by the chunk size, by a cancellation, by what was already there.
 *
 *   tokens   | timeline, n of them | guesses |        guesses are in the cache too, until the next step or
 *                                                     truncate forgets them, or one is confirmed
 *                                    | branch |         on a sequence of its own (sched_sides.c) */
#include "sched/sched.h"

#include <string.h>

squish_status sq_seq_new(sq_seq **out, sq_engine *e, squish_error *err) {
    *out = NULL;
    sq_seq *s = sq_alloc_zero(&e->alloc, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "sequence: out of memory");
    s->e = e;
    atomic_init(&s->cancel, 0);
    squish_status st = SQUISH_OK;
    s->tokens = sq_alloc_new(&e->alloc, (size_t)e->ctx * sizeof *s->tokens);
    if (!s->tokens) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "sequence: out of memory for %d tokens", e->ctx);
        goto fail;
    }
    SQ_GUARD(sq_kv_seq_new(&s->kv, e->kv, e->ctx, err));
    *out = s;
    return SQUISH_OK;
fail:
    sq_seq_free(s);
    return st;
}

static void end_sides(sq_seq *s) {
    if (s->e->sides_of == s) sq_sides_end(s->e);
    s->sides.n = 0;
}

void sq_seq_free(sq_seq *s) {
    if (!s) return;
    sq_engine *e = s->e;
    if (e->logits_of == s) e->logits_of = NULL;
    end_sides(s);
    sq_kv_seq_free(s->kv);
    sq_alloc_free(&e->alloc, s->tokens, (size_t)e->ctx * sizeof *s->tokens);
    sq_alloc_free(&e->alloc, s, sizeof *s);
}

static void forget_guesses(sq_seq *s) {
    if (s->n_guesses > 0) s->n = sq_kv_seq_truncate(s->kv, s->n);
    end_sides(s);
    s->n_guesses = 0;
}

void sq_seq_truncate(sq_seq *s, int32_t n) {
    if (n < 0) n = 0;
    if (n >= s->n) return;
    forget_guesses(s);
    if (s->e->logits_of == s) s->e->logits_of = NULL;
    s->n = sq_kv_seq_truncate(s->kv, n);
}

static squish_status check_tokens(const sq_seq *s, const int32_t *tokens, size_t n, squish_error *err) {
    if (n == 0) return sq_fail(err, SQUISH_INVALID, "no tokens to evaluate");
    if (n > (size_t)s->e->ctx)
        return sq_fail(err, SQUISH_INVALID,
                       "context_length_exceeded: %zu tokens, the context holds %d (raise it with --ctx)", n,
                       s->e->ctx);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->e->m->cfg.n_vocab)
            return sq_fail(err, SQUISH_INVALID, "token %zu is %d, wanted 0 to %d", i, tokens[i],
                           s->e->m->cfg.n_vocab - 1);
    return SQUISH_OK;
}

static squish_status check_cancel(const sq_seq *s, squish_error *err) {
    if (!atomic_load_explicit(&s->cancel, memory_order_relaxed)) return SQUISH_OK;
    return sq_fail(err, SQUISH_CANCELLED, "stopped at %d tokens", s->n);
}

/* Evaluate n <= chunk tokens at the end of the timeline, all of its prompt or none; the last n_guesses of
 * them are no part of it. */
static squish_status run_rows(sq_seq *s, const int32_t *tokens, int32_t n, int32_t n_guesses, sq_sides *sides,
                              squish_error *err) {
    int32_t ids[SQ_JUMP_MAX + SQ_GUESS_MAX], m = n, n_segs = 1;
    SQ_TRY(check_cancel(s, err));
    forget_guesses(s);
    sq_sides_end(s->e); /* another timeline's: its logits are about to go */
    SQ_TRY(sq_votes_run(s->e, s->kv, err));
    SQ_TRY(sq_votes_room(s->e, s->kv, s->n + n, err));
    SQ_TRY(sq_kv_seq_reserve(s->kv, s->n + n, err));
    sq_step_seg segs[1 + SQ_BRANCHES_MAX] = {
        {.kv = s->kv, .n_rows = n, .pos0 = s->n, .prompt = s->n + n <= s->n_prompt}};
    segs->observe = sq_votes_observe(s->e, s->n, n, s->n_prompt, &segs->observe_from);
    if (sides && sides->n > 0) {
        const int32_t certain = s->n + n - n_guesses;
        sq_sides_begin(sides, s->e, s->kv, s->n, certain);
        s->sides = *sides;
        s->e->sides_of = s;
        memcpy(ids, tokens, (size_t)n * sizeof *ids);
        sq_sides_add(sides, segs, certain, ids, &m, segs, &n_segs);
    }
    s->e->logits_of = NULL;
    const squish_status st = sq_forward_run(s->e->f, m > n ? ids : tokens, m, segs, n_segs, err);
    if (st != SQUISH_OK) { /* votes have seen a part of these rows */
        s->n = sq_kv_seq_truncate(s->kv, sq_kv_pool_policy(s->e->kv)->votes ? 0 : s->n);
        return st;
    }
    memmove(s->tokens + s->n, tokens, (size_t)n * sizeof *tokens);
    s->n += n - n_guesses;
    s->n_guesses = n_guesses;
    return SQUISH_OK;
}

static squish_status run_chunk(sq_seq *s, const int32_t *tokens, int32_t n, squish_error *err) {
    return run_rows(s, tokens, n, 0, NULL, err);
}

/* Logits of n rows from `row` on; those of the first are the timeline's. */
static void make_logits(sq_seq *s, int32_t row, int32_t n) {
    int32_t rows[SQ_LOGIT_ROWS];
    for (int32_t i = 0; i < n; i++) rows[i] = row + i;
    s->logits = sq_forward_logits(s->e->f, rows, n);
    s->hidden = sq_forward_behind_logits(s->e->f);
    s->row = 0;
    s->e->logits_of = s;
}

static void last_logits(sq_seq *s, int32_t row) { make_logits(s, row, 1); }

const float *sq_seq_logits(const sq_seq *s) { return s->n > 0 && s->e->logits_of == s ? s->logits : NULL; }

squish_status sq_seq_logits_now(sq_seq *s, const float **out, squish_error *err) {
    *out = NULL;
    if (s->n == 0) return sq_fail(err, SQUISH_INVALID, "the timeline is empty");
    if (!sq_seq_logits(s)) {
        SQ_TRY(check_cancel(s, err)); /* before the last token is given up */
        const int32_t all = s->n, reused = s->reused, n_prompt = s->n_prompt, last = s->tokens[all - 1];
        sq_seq_truncate(s, all - 1);
        if (s->n == all - 1) {
            SQ_TRY(sq_seq_append(s, &last, 1, err));
        } else { /* what a query there reads is sealed and gone: all of it again */
            SQ_TRY(sq_seq_sync(s, s->tokens, (size_t)all, err));
            s->reused = reused, s->n_prompt = n_prompt;
        }
    }
    *out = sq_seq_logits(s);
    return SQUISH_OK;
}

squish_status sq_seq_sync(sq_seq *s, const int32_t *tokens, size_t n, squish_error *err) {
    SQ_TRY(check_tokens(s, tokens, n, err));
    int32_t shared = 0;
    while (shared < s->n && (size_t)shared < n && s->tokens[shared] == tokens[shared]) shared++;
    /* The last token is evaluated again unless its logits are still there. */
    if ((size_t)shared == n && !(s->n == shared && sq_seq_logits(s))) shared--;
    s->reused = shared;
    if ((size_t)shared == n) return SQUISH_OK;
    forget_guesses(s);
    sq_seq_truncate(s, shared);
    s->reused = s->n;
    s->n_prompt = (int32_t)n;
    int32_t rows = 0;
    for (size_t at = (size_t)s->n; at < n; at += (size_t)rows) {
        rows = n - at < (size_t)s->e->chunk ? (int32_t)(n - at) : s->e->chunk;
        SQ_TRY(run_chunk(s, tokens + at, rows, err));
    }
    last_logits(s, rows - 1);
    sq_votes_prompt_end(s->e, s->kv, s->tokens, s->n);
    return SQUISH_OK;
}

squish_status sq_seq_append(sq_seq *s, const int32_t *ids, int32_t n, squish_error *err) {
    if (n > s->e->ctx - s->n)
        return sq_fail(err, SQUISH_INVALID, "context_length_exceeded: the context of %d tokens is full",
                       s->e->ctx);
    SQ_TRY(run_chunk(s, ids, n, err));
    last_logits(s, n - 1);
    return SQUISH_OK;
}

squish_status sq_seq_try(sq_seq *s, const int32_t *ids, int32_t n, int32_t n_guesses, sq_sides *sides,
                         squish_error *err) {
    if (n + n_guesses > s->e->ctx - s->n)
        return sq_fail(err, SQUISH_INVALID, "context_length_exceeded: the context of %d tokens is full",
                       s->e->ctx);
    SQ_TRY(run_rows(s, ids, n + n_guesses, n_guesses, sides, err));
    make_logits(s, n - 1, n_guesses + 1 + (sides ? sides->rows : 0));
    return SQUISH_OK;
}

/* The next token of the timeline is that of a row further on. */
static void go_to_row(sq_seq *s, int32_t row) {
    s->logits += (ptrdiff_t)sq_forward_logits_ld(s->e->f) * (row - s->row);
    s->hidden += (ptrdiff_t)sq_forward_hidden_ld(s->e->f) * (row - s->row);
    s->row = row;
    s->n++;
}

/* Rows of a branch stand behind those of the guesses. Those before `at` were confirmed one by one. */
static bool enter_side(sq_seq *s, int32_t id) {
    int32_t row;
    const int32_t i = sq_sides_find(&s->sides, s->row, id, &row);
    if (i < 0) return false;
    const sq_branch b = s->sides.b[i];
    const int32_t first = s->row + s->n_guesses + 1;
    sq_kv_seq_swap(s->kv, s->sides.kv[i]);
    end_sides(s);
    memcpy(s->tokens + s->n, b.ids, (size_t)b.n * sizeof *b.ids);
    s->n_guesses = b.n - 1;
    go_to_row(s, first + row);
    return true;
}

bool sq_seq_confirm(sq_seq *s, int32_t id, bool *aside) {
    const bool there = (s->n_guesses > 0 || s->sides.n > 0) && s->e->logits_of == s;
    if (aside) *aside = false;
    if (there && s->n_guesses > 0 && s->tokens[s->n] == id) {
        s->n_guesses--;
        go_to_row(s, s->row + 1);
        return true;
    }
    if (there && s->sides.n > 0 && enter_side(s, id)) {
        if (aside) *aside = true;
        return true;
    }
    forget_guesses(s);
    return false;
}

sq_draft_from sq_seq_draft_from(sq_seq *s, const int32_t *ids, int32_t n) {
    forget_guesses(s);
    memcpy(s->tokens + s->n, ids, (size_t)n * sizeof *ids);
    return (sq_draft_from){.tokens = s->tokens, .n = s->n + n, .computed = s->n, .kv = s->kv};
}

/* Hand out logits of rows [from, rows) of the chunk that starts at position pos0. */
static squish_status hand_out(sq_seq *s, int32_t pos0, int32_t from, int32_t rows, squish_logits_fn fn,
                              void *user, squish_error *err) {
    int32_t pick[SQ_LOGIT_ROWS];
    const size_t ld = sq_forward_logits_ld(s->e->f);
    for (int32_t at = from; at < rows;) {
        int32_t n = 0;
        while (n < SQ_LOGIT_ROWS && at + n < rows) pick[n] = at + n, n++;
        const float *logits = sq_forward_logits(s->e->f, pick, n);
        for (int32_t i = 0; i < n; i++)
            if (!fn(user, pos0 + at + i, logits + (size_t)i * ld))
                return sq_fail(err, SQUISH_CANCELLED, "stopped on request");
        at += n;
    }
    return SQUISH_OK;
}

/* Append tokens and hand out logits of positions from `first` on. */
static squish_status run_and_hand_out(sq_seq *s, const int32_t *tokens, size_t n, int32_t first,
                                      squish_logits_fn fn, void *user, squish_error *err) {
    int32_t rows = 0;
    s->n_prompt = s->n + (int32_t)n;
    for (size_t at = 0; at < n; at += (size_t)rows) {
        rows = n - at < (size_t)s->e->chunk ? (int32_t)(n - at) : s->e->chunk;
        const int32_t pos0 = s->n;
        SQ_TRY(run_chunk(s, tokens + at, rows, err));
        SQ_TRY(hand_out(s, pos0, first > pos0 ? first - pos0 : 0, rows, fn, user, err));
    }
    return SQUISH_OK;
}

squish_status sq_seq_score(sq_seq *s, const int32_t *tokens, size_t n, int32_t first, squish_logits_fn fn,
                           void *user, squish_error *err) {
    SQ_TRY(check_tokens(s, tokens, n, err));
    sq_seq_truncate(s, 0);
    return run_and_hand_out(s, tokens, n, first, fn, user, err);
}

squish_status sq_seq_extend(sq_seq *s, const int32_t *tokens, size_t n, squish_logits_fn fn, void *user,
                            squish_error *err) {
    SQ_TRY(check_tokens(s, tokens, n, err));
    if (n > (size_t)(s->e->ctx - s->n))
        return sq_fail(err, SQUISH_INVALID,
                       "context_length_exceeded: %d tokens and %zu more, the context holds %d", s->n, n,
                       s->e->ctx);
    return run_and_hand_out(s, tokens, n, s->n, fn, user, err);
}
