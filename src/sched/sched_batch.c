/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_batch.c - many answers at once: the thread that makes steps, its life, and the way in.
 *
 *   submit -> inbox -> waiting -> slot -> steps -> END
 *                         ^--------- gives way
 *
 * One turn of the thread: take what came in, end what was cancelled or is late, give free slots away, plan,
 * reserve columns, run, use the rows. So cancellations and deadlines are seen before every step, and no
 * step is longer than the engine's chunk. With nothing to do the thread sleeps on a condition; nothing spins.
 *
 * Locks are told in sched_int.h. */
#include "kv/kv_private.h"
#include "sched/sched_int.h"

#include <signal.h>
#include <string.h>
#include <time.h>

enum { IDLE_S_MAX = 3600 };

/* ---- the way in ------------------------------------------------------------------------------ */

void sq_batch_poke(sq_batch *b) {
    pthread_mutex_lock(&b->lock);
    b->poked = true;
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->lock);
}

squish_status sq_batch_submit(sq_job **out, sq_batch *b, const squish_job_options *o, squish_error *err) {
    sq_job *j;
    *out = NULL;
    SQ_TRY(sq_job_new(&j, b->e, o, err));
    j->batch = b;
    j->owners = 2;
    pthread_mutex_lock(&b->lock);
    const int32_t queued = b->n_queued;
    const bool open = !atomic_load(&b->stop) && !b->draining, room = queued < b->opt.queue_max;
    if (open && room) {
        *b->inbox_end = j;
        b->inbox_end = &j->next;
        b->n_jobs++;
        b->n_queued++;
        b->poked = true;
        pthread_cond_signal(&b->moved);
    }
    pthread_mutex_unlock(&b->lock);
    if (open && room) {
        *out = j;
        return SQUISH_OK;
    }
    j->owners = 1;
    sq_job_release(j);
    return open ? sq_fail(err, SQUISH_BUSY, "the queue is full: %d jobs wait, at most %d do", queued,
                          b->opt.queue_max)
                : sq_fail(err, SQUISH_BUSY, "the engine is draining and takes no more jobs");
}

static void take_inbox(sq_batch *b) {
    pthread_mutex_lock(&b->lock);
    sq_job *in = b->inbox;
    b->inbox = NULL;
    b->inbox_end = &b->inbox;
    b->poked = false;
    pthread_mutex_unlock(&b->lock);
    sq_job **end = &b->waiting;
    while (*end) end = &(*end)->next;
    for (sq_job *j = *end = in; j; j = j->next) {
        j->arrival = ++b->arrivals;
        j->client = sq_plan_client(b, j->client_id);
        j->client->jobs++;
        b->stats.jobs++;
    }
}

/* ---- the way out ----------------------------------------------------------------------------- */

void sq_batch_end(sq_batch *b, sq_job *j, squish_finish finish, const char *stop_reason, squish_status status,
                  const squish_error *err) {
    b->stats.finished += status == SQUISH_OK;
    b->stats.cancelled += status == SQUISH_CANCELLED;
    b->stats.failed += status != SQUISH_OK && status != SQUISH_CANCELLED;
    j->client->jobs--;
    if (j->answer) sq_answer_settle(j->answer); /* the reader may keep it longer than the engine lives */
    sq_job_end(j, finish, stop_reason, status, err);
    pthread_mutex_lock(&b->lock);
    b->n_jobs--;
    pthread_mutex_unlock(&b->lock);
}

/* Should it go? *err says why. */
static bool is_over(const sq_batch *b, const sq_job *j, uint64_t now, squish_error *err) {
    if (atomic_load(&b->stop))
        sq_fail(err, SQUISH_CANCELLED, "the engine closes");
    else if (atomic_load(&j->cancelled))
        sq_fail(err, SQUISH_CANCELLED, "stopped at %d tokens", j->n);
    else if (j->deadline_ns && now >= j->deadline_ns)
        sq_fail(err, SQUISH_TIMEOUT, "the deadline passed after %.1f s, with %d tokens",
                (double)(now - j->t_submit) / 1e9, j->n);
    else if (j->paused && now - j->t_paused > (uint64_t)SQ_JOB_STALL_S * 1000000000)
        sq_fail(err, SQUISH_CANCELLED, "nobody read its answer for %d s", SQ_JOB_STALL_S);
    return err->code != SQUISH_OK;
}

static void look_at_reader(sq_job *j, uint64_t now) {
    const bool behind = sq_job_is_behind(j);
    if (behind && !j->paused) j->t_paused = now;
    j->paused = behind;
}

static void drop_what_is_over(sq_batch *b, uint64_t now) {
    int32_t dropped = 0;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) {
        sq_job *j = b->active[i];
        squish_error err = {0};
        if (!j) continue;
        look_at_reader(j, now);
        if (!is_over(b, j, now, &err)) continue;
        sq_slots_leave(b, j);
        sq_batch_end(b, j, SQUISH_FINISH_NONE, NULL, err.code, &err);
    }
    for (sq_job **at = &b->waiting; *at;) {
        sq_job *j = *at;
        squish_error err = {0};
        look_at_reader(j, now);
        if (!is_over(b, j, now, &err)) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        dropped++;
        sq_batch_end(b, j, SQUISH_FINISH_NONE, NULL, err.code, &err);
    }
    pthread_mutex_lock(&b->lock);
    b->n_queued -= dropped;
    pthread_mutex_unlock(&b->lock);
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Weights could not be read: whoever had rows in the step has no answer. */
static void end_plan(sq_batch *b, const squish_error *err) {
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_job *j = b->plan[i].j;
        sq_slots_leave(b, j);
        sq_batch_end(b, j, SQUISH_FINISH_NONE, NULL, err->code, err);
    }
}

static void run_step(sq_batch *b) {
    sq_step_seg segs[SQ_SEQS_MAX];
    int32_t m = 0, n_streams = 0, n_segs = b->n_plan;
    double n_prompts = 0;
    const sq_share *last = &b->plan[b->n_plan - 1];
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_job *j = b->plan[i].j;
        const int32_t n = b->plan[i].n_rows;
        segs[i] = (sq_step_seg){.kv = j->kv,
                                .row0 = m,
                                .n_rows = n,
                                .pos0 = j->computed,
                                .prompt = j->computed + n <= j->n_prompt};
        segs[i].observe =
            sq_votes_observe(b->e, j->computed, n, j->answer ? j->n_prompt : 0, &segs[i].observe_from);
        memcpy(b->ids + m, j->tokens + j->computed, (size_t)n * sizeof *b->ids);
        if (j->answer && j->computed + n == j->n + j->n_guesses && sq_share_ends(b, &b->plan[i]))
            sq_answer_prepare(j->answer, b->e->masks);
        if (sq_job_streams(j))
            n_streams += n;
        else
            n_prompts += (double)n * (b->plan[i].to - b->plan[i].from) / b->e->m->cfg.n_layers;
        m += n;
    }
    for (int32_t i = 0; i < b->n_plan; i++) {
        sq_job *j = b->plan[i].j;
        j->row_aside = m;
        sq_sides_add(&j->sides, &segs[i], j->n, b->ids, &m, segs, &n_segs);
        n_streams += j->sides.rows;
    }
    const uint64_t begin = sq_os_now_ns();
    atomic_store(&b->step_began, begin);
    b->e->logits_of = NULL;
    squish_error err = {0};
    if (sq_forward_run_part(b->e->f, b->ids, m, segs, n_segs, last->from, last->to, &err) != SQUISH_OK) {
        sq_sides_end(b->e);
        end_plan(b, &err);
        atomic_store(&b->step_began, 0);
        return;
    }
    if (!sq_share_ends(b, last))
        b->part = *last;
    else if (b->part.j == last->j)
        b->part.j = NULL;
    sq_plan_charge(b, begin);
    sq_rows_use(b);
    sq_sides_end(b->e);
    atomic_store(&b->step_began, 0);
    b->stats.steps++;
    const double ms = (double)(sq_os_now_ns() - begin) / 1e6;
    sq_hist_add(&b->stats.step, ms);
    sq_step_cost_add(&b->cost, n_streams, n_prompts, ms);
}

static void publish(sq_batch *b) {
    squish_batch_stats *s = &b->stats;
    s->running = 0;
    for (int32_t i = 0; i < b->opt.jobs_max; i++) s->running += b->active[i] != NULL;
    s->tiles = sq_kv_pool_columns(b->e->kv);
    s->tiles_free = sq_kv_pool_columns_free(b->e->kv);
    s->tiles_cached = b->tree ? sq_kv_tree_idle(b->tree) : 0;
    s->kv_bytes = sq_kv_pool_bytes_used(b->e->kv);
    s->kv_bytes_max = sq_kv_pool_bytes_max(b->e->kv);
    s->solo_step_ms = b->cost.alone_ms[1];
    s->attn_density = sq_be_attn_density(b->e->b);
    s->fairness = sq_plan_fairness(b);
    sq_engine_agile_info(b->e, &s->agile);
    if (b->snapshots) {
        const sq_snapshots_counts n = sq_snapshots_count(b->snapshots);
        s->snapshot_hits = n.hits;
        s->snapshots_written = n.written;
        s->snapshots_dropped = n.dropped;
        s->coded_tokens = n.coded_tokens;
        s->coded_bytes = n.coded_bytes;
    }
    pthread_mutex_lock(&b->lock);
    b->published = *s;
    pthread_mutex_unlock(&b->lock);
}

/* False: there was nothing to run. Where everybody in the plan gave way or ended there was something: the
 * others have the room now, and nobody else would say so. */
static bool turn(sq_batch *b) {
    take_inbox(b);
    const uint64_t now = sq_os_now_ns();
    drop_what_is_over(b, now);
    sq_slots_admit(b, now);
    sq_plan_step(b, now);
    const bool any = b->n_plan > 0;
    sq_slots_reserve(b, now);
    if (b->n_plan > 0) run_step(b);
    publish(b);
    return any;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* Seconds until something happens by itself: a deadline, or a reader that is given up. */
static double idle_seconds(const sq_batch *b) {
    const uint64_t now = sq_os_now_ns();
    double s = IDLE_S_MAX;
    for (int32_t i = -1; i < b->opt.jobs_max; i++) {
        for (const sq_job *j = i < 0 ? b->waiting : b->active[i]; j; j = i < 0 ? j->next : NULL) {
            const double late = j->deadline_ns > now ? (double)(j->deadline_ns - now) / 1e9 : 0;
            if (j->deadline_ns && late < s) s = late;
            if (j->paused && s > 1) s = 1;
        }
    }
    return s;
}

static void sleep_until_poked(sq_batch *b) {
    const double s = idle_seconds(b);
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const int64_t ns = t.tv_nsec + (int64_t)(s * 1e9) + 1000000;
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&b->lock);
    if (!b->poked && !atomic_load(&b->stop)) pthread_cond_timedwait(&b->moved, &b->lock, &t);
    pthread_mutex_unlock(&b->lock);
}

static void *thread_main(void *arg) {
    sq_batch *b = arg;
    /* The first step would do it page by page. */
    for (size_t i = 0; !b->e->stream && !atomic_load(&b->stop) && sq_model_populate(b->e->m, b->e->b, i);
         i++) {}
    while (!atomic_load(&b->stop)) {
        if (turn(b)) continue;
        if (b->snapshots) sq_snapshots_keep(b->snapshots, false, false);
        sleep_until_poked(b);
    }
    take_inbox(b);
    drop_what_is_over(b, sq_os_now_ns());
    if (b->snapshots) sq_snapshots_keep(b->snapshots, true, true);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static squish_status check(const sq_engine *e, const squish_batch_options *o, squish_error *err) {
    if (o->jobs_max < 1 || o->jobs_max > SQ_SEQS_MAX)
        return sq_fail(err, SQUISH_INVALID, "jobs_max is %d, wanted 1 to %d", o->jobs_max, SQ_SEQS_MAX);
    if (o->queue_max < 1 || o->queue_max > SQ_QUEUE_MAX)
        return sq_fail(err, SQUISH_INVALID, "queue_max is %d, wanted 1 to %d", o->queue_max, SQ_QUEUE_MAX);
    if (!(o->itl_target_ms >= 0 && o->itl_target_ms <= 1e6))
        return sq_fail(err, SQUISH_INVALID, "itl_target_ms is %g, wanted 0 (by itself) to 1e6",
                       o->itl_target_ms);
    if (o->snapshot_dir && !o->prefix_cache)
        return sq_fail(err, SQUISH_INVALID, "snapshots need the prefix cache, which is off");
    if (o->snapshot_codec && !o->snapshot_dir)
        return sq_fail(err, SQUISH_INVALID, "snapshot_codec without snapshot_dir: there is nothing to code");
    if (o->snapshot_codec && o->snapshot_archive)
        return sq_fail(err, SQUISH_INVALID,
                       "--snapshot-codec beside --snapshot-archive: the one loses something, the other "
                       "nothing");
    if (sq_kv_pool_bytes_used(e->kv) > 0)
        return sq_fail(err, SQUISH_INVALID, "the engine has timelines or a batch of its own already");
    return SQUISH_OK;
}

/* What was computed approximately is of another kind: 0 for exact attention. */
static uint64_t attention_mark(const squish_attention *a) {
    uint32_t mass;
    memcpy(&mass, &a->sparge_mass, sizeof mass);
    const uint64_t sparge = a->sparge ? ((uint64_t)mass << 32) + (uint32_t)a->sparge_min + 1 : 0;
    return (sparge * 2 + a->sage) * UINT64_C(0x9e3779b97f4a7c15);
}

static void say(const sq_batch *b, const char *line) {
    if (b->opt.warn) b->opt.warn(b->opt.warn_user, line);
}

/* Codebooks, and from how many tokens on a prefix is worth coding. */
static squish_status make_codec(sq_batch *b, sq_snapshots_options *o, squish_error *err) {
    char line[240];
    SQ_TRY(sq_model_codec_rules(b->e->m, sq_kv_pool_policy(b->e->kv), &b->e->attention, err));
    SQ_TRY(sq_model_codec_open(&b->codec, b->e->m, NULL, &b->alloc, err));
    const sq_codec_gate *g = &b->codec->info.gate;
    o->codec = b->codec;
    o->coded_min = sq_codec_worth(g, (uint64_t)b->codec->n_parts * sq_codec_vector_bytes(b->codec));
    /* What was restored is not what was computed: answers of another kind. */
    o->identity ^= b->codec->sum * UINT64_C(0xd6e8feb86659fd93);
    if (o->coded_min <= b->e->ctx)
        snprintf(line, sizeof line,
                 "prefixes of %d tokens and more are kept as codes: answers behind restored ones differ (KL "
                 "%.4f, measured behind %d tokens)",
                 o->coded_min, g->kl, g->prefix);
    else
        snprintf(line, sizeof line,
                 "prefixes are not kept as codes: restoring one would take more than half of the %.0f us a "
                 "token of computing it",
                 (double)g->prefill_us);
    say(b, line);
    return SQUISH_OK;
}

/* What became of all the codes, with the books they need. */
static void say_coded(const sq_batch *b) {
    char line[240];
    if (!b->codec || !b->snapshots) return;
    const sq_snapshots_counts n = sq_snapshots_count(b->snapshots);
    const double books = (double)sq_codec_file_bytes(&b->codec->info.shape);
    const double f16 = (double)n.coded_tokens / SQ_KV_TILE_TOKENS *
                       (double)sq_kv_open_bytes(&b->codec->info.shape, sq_kv_pool_policy(b->e->kv));
    if (n.coded_tokens == 0) return;
    snprintf(line, sizeof line,
             "archived %llu bytes for %llu tokens: %.2fx fewer than f16, %.2fx with the codebooks (%.0f "
             "bytes), KL %.4f",
             (unsigned long long)n.coded_bytes, (unsigned long long)n.coded_tokens,
             f16 / (double)n.coded_bytes, f16 / ((double)n.coded_bytes + books), books,
             b->codec->info.gate.kl);
    say(b, line);
}

static squish_status make_snapshots(sq_batch *b, squish_error *err) {
    sq_snapshots_options o = {.dir = b->opt.snapshot_dir,
                              .bytes_max = b->opt.snapshot_bytes_max,
                              .tokens_max = b->e->ctx,
                              .archive = b->opt.snapshot_archive,
                              .warn = b->opt.warn,
                              .warn_user = b->opt.warn_user};
    SQ_TRY(sq_model_fingerprint(b->e->m, &b->alloc, &o.identity, err));
    o.identity ^= attention_mark(&b->e->attention);
    if (b->opt.snapshot_codec) SQ_TRY(make_codec(b, &o, err));
    return sq_snapshots_new(&b->snapshots, b->e->kv, b->tree, &o, err);
}

static squish_status make_parts(sq_batch *b, squish_error *err) {
    const squish_alloc *a = &b->alloc;
    b->clients = sq_alloc_zero(a, (size_t)b->n_clients * sizeof *b->clients);
    b->ids = sq_alloc_new(a, (size_t)b->e->chunk * sizeof *b->ids);
    if (!b->clients || !b->ids) return sq_fail(err, SQUISH_NO_MEMORY, "batch: out of memory");
    if (b->opt.prefix_cache) SQ_TRY(sq_kv_tree_new(&b->tree, b->e->kv, err));
    for (int32_t i = 0; i < b->opt.jobs_max; i++) SQ_TRY(sq_kv_seq_new(&b->kv[i], b->e->kv, b->e->ctx, err));
    if (b->opt.snapshot_dir) SQ_TRY(make_snapshots(b, err));
    b->opt.snapshot_dir = NULL; /* the caller's memory */
    return SQUISH_OK;
}

/* Signals belong to the program's own threads. */
static squish_status start(sq_batch *b, squish_error *err) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int cause = pthread_create(&b->thread, NULL, thread_main, b);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return cause ? sq_fail_errno(err, cause, "cannot start the thread of a batch") : SQUISH_OK;
}

static void release(sq_batch *b) {
    const squish_alloc a = b->alloc;
    sq_snapshots_finish(b->snapshots);
    say_coded(b);
    sq_snapshots_free(b->snapshots);
    sq_codec_free(b->codec);
    for (int32_t i = 0; i < SQ_SEQS_MAX; i++) sq_kv_seq_free(b->kv[i]);
    sq_kv_tree_free(b->tree);
    sq_alloc_free(&a, b->clients, b->clients ? (size_t)b->n_clients * sizeof *b->clients : 0);
    sq_alloc_free(&a, b->ids, b->ids ? (size_t)b->e->chunk * sizeof *b->ids : 0);
    pthread_cond_destroy(&b->moved);
    pthread_mutex_destroy(&b->lock);
    sq_alloc_free(&a, b, sizeof *b);
}

squish_status sq_batch_new(sq_batch **out, sq_engine *e, const squish_batch_options *o, squish_error *err) {
    *out = NULL;
    SQ_TRY(check(e, o, err));
    sq_batch *b = sq_alloc_zero(&e->alloc, sizeof *b);
    if (!b) return sq_fail(err, SQUISH_NO_MEMORY, "batch: out of memory");
    *b = (sq_batch){.alloc = e->alloc, .e = e, .opt = *o, .n_clients = o->queue_max + o->jobs_max};
    b->inbox_end = &b->inbox;
    b->parts = !sq_kv_pool_policy(e->kv)->votes;
    b->t_faded = sq_os_now_ns();
    atomic_init(&b->step_began, 0);
    atomic_init(&b->stop, false);
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        sq_alloc_free(&e->alloc, b, sizeof *b);
        return sq_fail(err, SQUISH_NO_MEMORY, "batch: no lock to be had");
    }
    pthread_cond_init(&b->moved, NULL); /* cannot fail without attributes */
    squish_status st = make_parts(b, err);
    if (st == SQUISH_OK) {
        publish(b);
        st = start(b, err);
    }
    if (st != SQUISH_OK) {
        release(b);
        return st;
    }
    *out = b;
    return SQUISH_OK;
}

void sq_batch_free(sq_batch *b) {
    if (!b) return;
    pthread_mutex_lock(&b->lock);
    atomic_store(&b->stop, true);
    pthread_cond_signal(&b->moved);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    release(b);
}

bool sq_batch_drain(sq_batch *b) {
    pthread_mutex_lock(&b->lock);
    b->draining = true;
    const bool empty = b->n_jobs == 0;
    pthread_mutex_unlock(&b->lock);
    return empty;
}

void sq_batch_get_stats(sq_batch *b, squish_batch_stats *out) {
    pthread_mutex_lock(&b->lock);
    *out = b->published;
    out->queued = b->n_queued;
    pthread_mutex_unlock(&b->lock);
    const uint64_t began = atomic_load(&b->step_began), now = sq_os_now_ns();
    out->step_age_ns = began && now > began ? now - began : 0;
}
