/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_rows.c - what the rows of a step become: tokens, log-probabilities of a prompt, embeddings.
 *
 * A row with the last token of its job gives the next one; these rows of all jobs share one pass over the
 * head. Rows of a prompt that is scored go through the head in blocks, each giving the log-probability of the
 * token behind it. */
#include "kv/kv_private.h"
#include "sched/sched_int.h"

#include <math.h>
#include <string.h>

static void fail_job(sq_batch *b, sq_job *j, squish_status st, const squish_error *err) {
    sq_slots_leave(b, j);
    sq_batch_end(b, j, SQUISH_FINISH_NONE, NULL, st, err);
}

static void out_of_memory(sq_batch *b, sq_job *j) {
    squish_error err = {0};
    sq_fail(&err, SQUISH_NO_MEMORY, "job: no memory for its events");
    fail_job(b, j, SQUISH_NO_MEMORY, &err);
}

/* ---- log-probabilities of the prompt --------------------------------------------------------- */

typedef struct {
    int32_t n, ids[20];
    float logits[20];
} best;

/* The most likely ids, best first, ties by lower id: as the sampler lists them. */
static void find_best(best *t, const float *logits, int32_t n_ids, int32_t want) {
    t->n = 0;
    for (int32_t id = 0; id < n_ids && want > 0; id++) {
        if (t->n == want && !(logits[id] > t->logits[want - 1])) continue;
        int32_t at = t->n < want ? t->n++ : want - 1;
        for (; at > 0 && logits[id] > t->logits[at - 1]; at--)
            t->ids[at] = t->ids[at - 1], t->logits[at] = t->logits[at - 1];
        t->ids[at] = id;
        t->logits[at] = logits[id];
    }
}

/* The event of prompt token i, from the logits of the position before. */
static squish_status push_score(const sq_batch *b, sq_job *j, int32_t i, const float *logits,
                                squish_error *err) {
    const sq_model *m = b->e->m;
    squish_job_event ev = {
        .kind = SQUISH_JOB_PROMPT, .id = j->tokens[i], .n_top = -1, .t_ns = sq_os_now_ns()};
    best t;
    if (logits) {
        const double norm = sq_logsumexp(logits, m->cfg.n_vocab);
        if (!isfinite(norm))
            return sq_fail(err, SQUISH_NUMERIC, "logits of position %d are not numbers", i - 1);
        find_best(&t, logits, m->info.n_vocab_tokens, j->prompt_logprobs);
        ev.logprob = (float)((double)logits[ev.id] - norm);
        for (int32_t k = 0; k < t.n; k++) t.logits[k] = (float)((double)t.logits[k] - norm);
        ev.n_top = t.n;
        ev.top_ids = t.ids;
        ev.top_logprobs = t.logits;
    }
    if (!sq_job_push(j, &ev)) return sq_fail(err, SQUISH_NO_MEMORY, "job: no memory for its events");
    j->scored = i + 1;
    return SQUISH_OK;
}

/* Rows [row0, row0 + n) of the step are positions pos0.. of j. */
static squish_status score(sq_batch *b, sq_job *j, int32_t row0, int32_t pos0, int32_t n, squish_error *err) {
    if (j->scored == 0) SQ_TRY(push_score(b, j, 0, NULL, err));
    const size_t ld = sq_forward_logits_ld(b->e->f);
    const int32_t end = pos0 + n < j->n_prompt - 1 ? pos0 + n : j->n_prompt - 1;
    for (int32_t at = j->scored - 1; at < end;) {
        int32_t rows[SQ_LOGIT_ROWS], k = 0;
        while (k < SQ_LOGIT_ROWS && at + k < end) rows[k] = row0 + at + k - pos0, k++;
        const float *logits = sq_forward_logits(b->e->f, rows, k);
        for (int32_t i = 0; i < k; i++) SQ_TRY(push_score(b, j, at + i + 1, logits + (size_t)i * ld, err));
        at += k;
    }
    return SQUISH_OK;
}

/* ---- embeddings ------------------------------------------------------------------------------ */

static void pool_rows(sq_batch *b, sq_job *j, int32_t row0, int32_t n) {
    const size_t ld = sq_forward_hidden_ld(b->e->f);
    for (int32_t at = j->pool == SQUISH_POOL_MEAN ? 0 : n - 1; at < n;) {
        int32_t rows[SQ_LOGIT_ROWS], k = 0;
        while (k < SQ_LOGIT_ROWS && at + k < n) rows[k] = row0 + at + k, k++;
        const float *h = sq_forward_hidden(b->e->f, rows, k);
        for (int32_t i = 0; i < k; i++)
            for (int32_t c = 0; c < j->hidden; c++) {
                const double v = (double)h[(size_t)i * ld + (size_t)c];
                j->sum[c] = j->pool == SQUISH_POOL_MEAN ? j->sum[c] + v : v;
            }
        at += k;
    }
}

/* The sums become floats in their own place: a float is written where a double was read already. */
static void push_embedding(sq_batch *b, sq_job *j) {
    float *out = (float *)(void *)j->sum;
    const double over = j->pool == SQUISH_POOL_MEAN ? j->n : 1;
    squish_error err = {0};
    for (int32_t c = 0; c < j->hidden; c++) {
        double v;
        memcpy(&v, (const char *)j->sum + (size_t)c * sizeof v, sizeof v);
        const float f = (float)(v / over);
        if (!isfinite(f)) sq_fail(&err, SQUISH_NUMERIC, "channel %d of the embedding is not a number", c);
        memcpy((char *)out + (size_t)c * sizeof f, &f, sizeof f);
    }
    if (err.code != SQUISH_OK) {
        fail_job(b, j, err.code, &err);
        return;
    }
    const squish_job_event ev = {.kind = SQUISH_JOB_EMBEDDING,
                                 .id = -1,
                                 .n_top = -1,
                                 .embedding = out,
                                 .n_embedding = j->hidden,
                                 .t_ns = sq_os_now_ns()};
    if (!sq_job_push(j, &ev)) {
        out_of_memory(b, j);
        return;
    }
    sq_slots_leave(b, j);
    sq_batch_end(b, j, SQUISH_FINISH_STOP, NULL, SQUISH_OK, NULL);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static void note_token(sq_batch *b, sq_job *j, uint64_t t) {
    pthread_mutex_lock(&j->lock);
    squish_gen_stats *g = &j->stats.gen;
    g->forced_tokens = sq_answer_forced(j->answer);
    g->checked_tokens = sq_answer_unmasked(j->answer) + sq_answer_blind(j->answer);
    const bool first = g->completion_tokens++ == 0;
    if (first)
        j->t_first = t, g->ttft_ms = (double)(t - j->t_submit) / 1e6;
    else
        sq_hist_add(&b->stats.inter_token, (double)(t - j->t_last) / 1e6);
    j->t_last = t;
    g->decode_ms = (double)(t - j->t_first) / 1e6;
    pthread_mutex_unlock(&j->lock);
    if (first) sq_hist_add(&b->stats.ttft, g->ttft_ms);
    b->stats.generated_tokens++;
}

/* One more token from the logits of its last position (NULL: none is wanted, or it is forced) and the hidden
 * state they came from, and the end if it is that; false: the job has left. */
static bool advance_one(sq_batch *b, sq_job *j, const float *logits, const float *hidden) {
    squish_gen_event g;
    squish_error err = {0};
    const squish_status st = sq_answer_next(j->answer, logits, j->n, &g, &err);
    if (st != SQUISH_OK) {
        fail_job(b, j, st, &err);
        return false;
    }
    if (g.id >= 0) {
        const squish_job_event ev = {.kind = SQUISH_JOB_TOKEN,
                                     .id = g.id,
                                     .text = g.text,
                                     .text_bytes = g.text_bytes,
                                     .logprob = g.logprob,
                                     .n_top = g.n_top,
                                     .top_ids = g.top_ids,
                                     .top_logprobs = g.top_logprobs,
                                     .t_ns = sq_os_now_ns()};
        note_token(b, j, ev.t_ns);
        if (!sq_job_push(j, &ev)) {
            out_of_memory(b, j);
            return false;
        }
    }
    if (g.finish == SQUISH_FINISH_NONE) {
        if (j->spec && logits) sq_spec_behind(j->spec, hidden);
        if (j->spec) sq_spec_accept(j->spec, g.id);
        j->tokens[j->n++] = g.id; /* there is room: it ends at the context, and at max_tokens */
        return true;
    }
    sq_slots_leave(b, j);
    sq_batch_end(b, j, g.finish, g.stop_reason, SQUISH_OK, NULL);
    return false;
}

/* What was computed joins what prompts can begin with. */
static void keep(sq_batch *b, sq_job *j) {
    if (b->tree) sq_kv_tree_insert(b->tree, j->salt, j->kv, j->tokens, j->computed);
}

static void count_guesses(sq_batch *b, sq_job *j, int32_t n, int32_t n_right, bool aside) {
    b->stats.guessed_tokens += (uint64_t)n;
    b->stats.right_tokens += (uint64_t)n_right;
    pthread_mutex_lock(&j->lock);
    j->stats.gen.guessed_tokens += n;
    j->stats.gen.right_tokens += n_right;
    j->stats.gen.aside_tokens += aside ? n_right : 0;
    pthread_mutex_unlock(&j->lock);
}

/* Where an answer is among the rows of its guesses. */
typedef struct {
    int32_t row, left, guess;        /* that the next token is drawn from; guesses behind it, and the first */
    int32_t n_right, n_aside, aside; /* of the chain; of a branch that was entered, and its first token */
} walk;

/* The token that was drawn last is a guess, and its row goes on: that of the chain or of a branch. */
static bool walk_on(sq_job *j, walk *w) {
    const int32_t id = j->tokens[j->n - 1];
    int32_t at;
    if (w->left > 0 && w->guess == id) {
        w->row++, w->left--;
        *(w->n_aside > 0 ? &w->n_aside : &w->n_right) += 1;
        return true;
    }
    const int32_t i = w->n_aside > 0 ? -1 : sq_sides_find(&j->sides, w->n_right, id, &at);
    if (i < 0) return false;
    const sq_branch *b = &j->sides.b[i];
    sq_kv_seq_swap(j->kv, j->sides.kv[i]);
    memcpy(j->tokens + j->n, b->ids + 1, (size_t)(b->n - 1) * sizeof *b->ids);
    w->row = 1 + j->n_guesses + at, w->left = b->n - 1;
    w->n_aside = 1, w->aside = id;
    return true;
}

/* A token from each row, as long as it is one that was guessed there: row 0 is of the last token that was
 * certain, rows of n guesses follow, then those of branches. False: the job has left, and may be gone. */
static bool advance_rows(sq_batch *b, sq_job *j, const float *logits, const float *hidden) {
    const size_t ld = sq_forward_logits_ld(b->e->f), ldh = sq_forward_hidden_ld(b->e->f);
    const int32_t n = j->n_guesses;
    walk w = {.left = n};
    if (n > 0) count_guesses(b, j, n + j->sides.rows, 0, false);
    for (;;) {
        const size_t at = (size_t)w.row;
        const sq_proposal *q;
        w.guess = w.left > 0 ? j->tokens[j->n] : -1;
        if (w.guess >= 0 && sq_spec_by_ratio(j->spec, w.n_right, &q)) sq_answer_expect(j->answer, w.guess, q);
        if (!advance_one(b, j, logits ? logits + at * ld : NULL, logits ? hidden + at * ldh : NULL))
            return false;
        if (n == 0 || !walk_on(j, &w)) break;
        count_guesses(b, j, 0, 1, w.n_aside > 0);
        j->computed++;
        keep(b, j);
    }
    if (n == 0) return true;
    const int32_t id = w.n_aside > 0 ? w.aside : j->tokens[j->n - 1];
    sq_spec_aside(j->spec, w.n_right, id, w.n_aside, j->sides.rows, &b->e->rates);
    sq_spec_result(j->spec, w.n_right, &b->e->rates);
    j->computed = sq_kv_seq_truncate(j->kv, j->computed);
    j->n_guesses = j->sides.n = j->sides.rows = 0;
    return true;
}

/* Tokens, and those that are forced behind them: rows of the next step. */
static void advance(sq_batch *b, sq_job *j, const float *logits, const float *hidden) {
    bool more = advance_rows(b, j, logits, hidden);
    while (more && j->n - j->computed < SQ_JUMP_MAX && sq_answer_is_forced(j->answer))
        more = advance_one(b, j, NULL, NULL);
}

static void prompt_done(sq_job *j) {
    pthread_mutex_lock(&j->lock);
    if (j->t_prefilled == 0) {
        j->t_prefilled = sq_os_now_ns();
        j->stats.gen.prefill_ms = (double)(j->t_prefilled - j->t_admit) / 1e6;
    }
    pthread_mutex_unlock(&j->lock);
}

/* Jobs that want a token, and their rows: of the last token that is certain, and of guesses behind it. */
typedef struct {
    sq_job *jobs[SQ_SEQS_MAX];
    int32_t n_jobs, rows[SQ_LOGIT_ROWS], n_rows;
} ready;

static void use_ready(sq_batch *b, ready *r) {
    if (r->n_jobs == 0) return;
    const float *logits = sq_forward_logits(b->e->f, r->rows, r->n_rows);
    const float *hidden = sq_forward_behind_logits(b->e->f);
    const size_t ld = sq_forward_logits_ld(b->e->f), ldh = sq_forward_hidden_ld(b->e->f);
    for (int32_t i = 0, at = 0; i < r->n_jobs; i++) {
        const float *first = logits + (size_t)at * ld, *behind = hidden + (size_t)at * ldh;
        at += 1 + r->jobs[i]->n_guesses + r->jobs[i]->sides.rows;
        advance(b, r->jobs[i], first, behind);
    }
    r->n_jobs = r->n_rows = 0;
}

static void add_ready(sq_batch *b, ready *r, sq_job *j, int32_t row) {
    if (r->n_rows + 1 + j->n_guesses + j->sides.rows > SQ_LOGIT_ROWS) use_ready(b, r);
    r->jobs[r->n_jobs++] = j;
    for (int32_t i = 0; i <= j->n_guesses; i++) r->rows[r->n_rows++] = row + i;
    for (int32_t i = 0; i < j->sides.rows; i++) r->rows[r->n_rows++] = j->row_aside + i;
}

void sq_rows_use(sq_batch *b) {
    ready r = {.n_jobs = 0};
    int32_t row0 = 0;
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_job *j = b->plan[i].j;
        const int32_t n = b->plan[i].n_rows - j->n_guesses, pos0 = j->computed, first = row0;
        squish_error err = {0};
        row0 += b->plan[i].n_rows;
        if (!sq_share_ends(b, &b->plan[i])) continue;
        const bool scores = j->prompt_logprobs >= 0 && j->scored < j->n_prompt;
        if (scores && score(b, j, first, pos0, n, &err) != SQUISH_OK) {
            fail_job(b, j, err.code, &err);
            continue;
        }
        if (j->sum && (j->pool == SQUISH_POOL_MEAN || pos0 + n == j->n)) pool_rows(b, j, first, n);
        j->computed += n;
        b->stats.evaluated_tokens += (uint64_t)(b->plan[i].n_rows + j->sides.rows);
        keep(b, j);
        if (j->answer && j->computed == j->n_prompt) sq_votes_prompt_end(b->e, j->kv, j->tokens, j->computed);
        if (j->computed < j->n) continue;
        prompt_done(j);
        if (j->answer && sq_answer_wants_token(j->answer))
            add_ready(b, &r, j, first + n - 1);
        else if (j->answer)
            advance(b, j, NULL, NULL);
        else
            push_embedding(b, j);
    }
    use_ready(b, &r);
}
