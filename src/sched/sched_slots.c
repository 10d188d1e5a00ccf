/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_slots.c - which jobs have a place in the cache: admission, and giving way.
 *
 * A job that leaves its slot loses nothing but time: full tiles stay in the prefix tree while there is room,
 * and what was evicted is computed again with the same bits. The best job of all is never preempted: somebody
 * always gets to the end. */
#include "sched/sched_int.h"

#include <string.h>

/* Log-probabilities need every row from the first wanted on, means need all; the rest may begin behind what
 * is there, and always computes the last token for its logits. */
static int32_t reusable(const sq_batch *b, const sq_job *j) {
    if (!b->tree || j->pool == SQUISH_POOL_MEAN) return 0;
    if (j->prompt_logprobs < 0 || j->scored > j->n - 1)
        return j->answer ? sq_votes_reusable(b->e, j->n_prompt, j->n - 1) : j->n - 1;
    return j->scored > 0 ? j->scored - 1 : 0;
}

static int32_t common_tiles(const sq_job *a, const sq_job *c, int32_t n) {
    int32_t same = 0;
    if (a->n_prompt < n) n = a->n_prompt;
    while (same < n && a->tokens[same] == c->tokens[same]) same++;
    return same / SQ_KV_TILE_TOKENS;
}

/* Somebody else is computing tiles that j begins with. */
static bool worth_waiting(const sq_batch *b, const sq_job *j, const sq_kv_match *m) {
    const int32_t n = reusable(b, j);
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        const sq_job *a = b->active[i];
        if (!a || a->paused || a->salt != j->salt || a->computed >= a->n_prompt) continue;
        if (a->pool == SQUISH_POOL_FIRST) continue; /* it computes no more than its first token */
        const int32_t tiles = common_tiles(a, j, n);
        if (tiles > m->tiles && tiles > a->computed / SQ_KV_TILE_TOKENS) return true;
    }
    return false;
}

static int32_t n_active(const sq_batch *b) {
    int32_t n = 0;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) n += b->active[i] != NULL;
    return n;
}

/* Room for all its tokens and one more column, and one for everybody who runs. */
static bool has_room(const sq_batch *b, const sq_job *j, const sq_kv_match *m) {
    const sq_kv_pool *p = b->e->kv;
    const int32_t running = n_active(b);
    const uint64_t need = sq_kv_pool_needs(p, j->n + SQ_KV_TILE_TOKENS, m->tiles, running);
    return running == 0 || need <= sq_kv_pool_bytes_free(p) + sq_kv_pool_bytes_evictable(p) - m->idle_bytes;
}

static sq_kv_match match(const sq_batch *b, const sq_job *j) {
    const int32_t n = reusable(b, j);
    return n > 0 ? sq_kv_tree_match(b->tree, j->salt, j->tokens, n) : (sq_kv_match){.node = -1, .part = -1};
}

/* ---- in -------------------------------------------------------------------------------------- */

static void unlink_waiting(sq_batch *b, const sq_job *j) {
    sq_job **at = &b->waiting;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    pthread_mutex_lock(&b->lock);
    b->n_queued--;
    pthread_mutex_unlock(&b->lock);
}

/* The first time a job gets a slot. */
static void started(sq_batch *b, sq_job *j, uint64_t now) {
    const squish_job_event ev = {.kind = SQUISH_JOB_STARTED, .id = -1, .n_top = -1, .t_ns = now};
    j->started = true;
    pthread_mutex_lock(&j->lock);
    j->stats.queue_ms = (double)(now - j->t_submit) / 1e6;
    j->stats.gen.reused_tokens = j->computed;
    j->stats.behind_codes = j->behind_codes;
    pthread_mutex_unlock(&j->lock);
    sq_hist_add(&b->stats.queue, j->stats.queue_ms);
    b->stats.prompt_tokens += (uint64_t)j->n_prompt;
    b->stats.cached_tokens += (uint64_t)j->computed;
    b->stats.prefix_hits += j->computed > 0;
    sq_job_push(j, &ev);
}

static void enter(sq_batch *b, sq_job *j, int32_t slot, const sq_kv_match *m, uint64_t now) {
    unlink_waiting(b, j);
    b->active[slot] = j;
    j->kv = b->kv[slot];
    j->t_admit = now;
    j->last_step = 0;
    j->computed = b->tree ? sq_kv_tree_acquire(b->tree, m, j->kv) : 0;
    j->behind_codes |= m->node >= 0 && sq_kv_tree_lossy(b->tree, m->node);
    if (!j->started) started(b, j, now);
}

static sq_job *best_waiting(const sq_batch *b, uint64_t now) {
    sq_job *best = NULL;
    for (sq_job *j = b->waiting; j; j = j->next)
        if (!j->paused && !j->passed && (!best || sq_plan_before(j, best, now))) best = j;
    return best;
}

static int32_t free_slot(const sq_batch *b) {
    for (int32_t i = 0; i < b->opt.jobs_max; i++)
        if (!b->active[i]) return i;
    return -1;
}

static void give_way(sq_batch *b, sq_job *j, uint64_t now);

/* A job whose reader is behind does nothing with its slot. */
static bool free_a_paused_one(sq_batch *b, uint64_t now) {
    for (int32_t i = 0; i < b->opt.jobs_max; i++)
        if (b->active[i] && b->active[i]->paused) {
            give_way(b, b->active[i], now);
            return true;
        }
    return false;
}

void sq_slots_admit(sq_batch *b, uint64_t now) {
    for (sq_job *j = b->waiting; j; j = j->next) j->passed = false;
    for (sq_job *j; (j = best_waiting(b, now));) {
        const int32_t slot = free_slot(b);
        if (slot >= 0 && b->snapshots && !j->looked_up && reusable(b, j) > 0)
            sq_snapshots_restore(b->snapshots, j->salt, j->tokens, j->n - 1); /* whole files */
        j->looked_up = true;
        const sq_kv_match m = match(b, j);
        if (slot >= 0 && worth_waiting(b, j, &m)) {
            j->passed = true;
        } else if (slot >= 0 && has_room(b, j, &m)) {
            enter(b, j, slot, &m, now);
        } else if (!free_a_paused_one(b, now)) {
            return; /* nobody overtakes: small ones would keep a large one out for ever */
        }
    }
}

/* ---- out ------------------------------------------------------------------------------------- */

void sq_slots_leave(sq_batch *b, sq_job *j) {
    for (int32_t i = 0; i < b->opt.jobs_max; i++)
        if (b->active[i] == j) b->active[i] = NULL;
    if (b->part.j == j) b->part.j = NULL;
    sq_kv_seq_truncate(j->kv, 0);
    j->kv = NULL;
    j->computed = 0;
    if (j->sum) memset(j->sum, 0, (size_t)j->hidden * sizeof *j->sum);
}

static void give_way(sq_batch *b, sq_job *j, uint64_t now) {
    sq_slots_leave(b, j);
    j->t_wait = now;
    j->next = b->waiting;
    b->waiting = j;
    pthread_mutex_lock(&b->lock);
    b->n_queued++;
    pthread_mutex_unlock(&b->lock);
}

static void preempt(sq_batch *b, sq_job *j, uint64_t now) {
    give_way(b, j, now);
    j->preemptions++;
    b->stats.preemptions++;
    pthread_mutex_lock(&j->lock);
    j->stats.preemptions++;
    pthread_mutex_unlock(&j->lock);
}

/* Does a give way before c? */
static bool yields_before(const sq_job *a, const sq_job *c, uint64_t now) {
    const bool pinned_a = a->preemptions >= SQ_PREEMPTIONS_MAX;
    const bool pinned_c = c->preemptions >= SQ_PREEMPTIONS_MAX;
    if (a->paused != c->paused) return a->paused;
    if (pinned_a != pinned_c) return pinned_c;
    const int32_t class_a = sq_plan_class(a, now), class_c = sq_plan_class(c, now);
    return class_a != class_c ? class_a < class_c : a->arrival > c->arrival;
}

static sq_job *who_yields(const sq_batch *b, uint64_t now) {
    sq_job *worst = NULL;
    if (n_active(b) < 2) return NULL;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        sq_job *j = b->active[i];
        if (j && (!worst || yields_before(j, worst, now))) worst = j;
    }
    return worst;
}

/* Columns for tokens [0, n) of a running job. False: it had to leave, or ended. */
static bool make_room(sq_batch *b, sq_job *j, int32_t n, uint64_t now) {
    squish_error err = {0};
    squish_status st;
    for (;;) {
        err = (squish_error){0};
        st = sq_votes_run(b->e, j->kv, &err);
        if (st == SQUISH_OK) st = sq_votes_room(b->e, j->kv, n, &err);
        if (st == SQUISH_OK) break;
        sq_job *worst = who_yields(b, now);
        if (!worst) break;
        preempt(b, worst, now);
        if (worst == j) return false;
    }
    if (st == SQUISH_OK && sq_kv_seq_reserve(j->kv, n, &err) == SQUISH_OK) return true;
    sq_slots_leave(b, j);
    sq_batch_end(b, j, SQUISH_FINISH_NONE, NULL, err.code, &err);
    return false;
}

/* Nobody gives way to guesses. */
static void drop_guesses_without_room(const sq_batch *b, sq_share *s) {
    sq_job *j = s->j;
    if (j->n_guesses == 0) return;
    if (sq_kv_pool_make_room(b->e->kv, sq_kv_seq_missing(j->kv, j->computed + s->n_rows))) return;
    s->n_rows -= j->n_guesses;
    j->n_guesses = j->sides.n = j->sides.rows = 0;
    sq_spec_cut(j->spec, 0);
}

/* A part that goes on has its columns, and still reads what was open when it began. */
void sq_slots_reserve(sq_batch *b, uint64_t now) {
    int32_t kept = 0;
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_share s = b->plan[i];
        bool there = false; /* it may have given way to one before it, or have ended */
        for (int32_t k = 0; k < b->opt.jobs_max; k++) there |= b->active[k] == s.j;
        if (there) drop_guesses_without_room(b, &s);
        if (there && (s.from > 0 || make_room(b, s.j, s.j->computed + s.n_rows, now))) b->plan[kept++] = s;
    }
    b->n_plan = 0;
    for (int32_t i = 0; i < kept; i++) /* and to one behind it */
        if (b->plan[i].j->kv) b->plan[b->n_plan++] = b->plan[i];
    int32_t segs = b->n_plan;
    for (int32_t i = 0; i < b->n_plan; i++) { /* with what is left when all have their columns */
        sq_job *j = b->plan[i].j;
        if (segs + j->sides.n > SQ_SEQS_MAX) j->sides.n = 0;
        sq_sides_begin(&j->sides, b->e, j->kv, j->computed, j->n);
        segs += j->sides.n;
    }
}
