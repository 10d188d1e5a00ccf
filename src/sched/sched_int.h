/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_int.h - the inside of a batch, shared by its files.
 *
 *   sched_job.c     a job: what was asked, and the events on their way to its reader
 *   sched_plan.c    who is next, and how many tokens of whom the next step holds
 *   sched_slots.c   which jobs have a place in the cache: admission, preemption
 *   sched_rows.c    what the rows of a step become: tokens, scores, embeddings
 *   sched_batch.c   the thread, its life, submission, statistics
 *
 * Threads and locks. The batch's thread owns everything but three things: the inbox, counters and published
 * statistics are under batch.lock; events, statistics and the way back to the batch of a job are under
 * job.lock, its reader's wake under job.wake_lock; job.cancelled is atomic. Order: job.lock before
 * batch.lock, and the batch's thread never takes job.lock while it holds batch.lock. */
#ifndef SQ_SCHED_INT_H
#define SQ_SCHED_INT_H

#include "kv/kv_snapshot.h"
#include "model/model_codec.h"
#include "sched/sched.h"

#include <pthread.h>

enum {
    SQ_JOB_BEHIND_MAX = 96 * 1024,  /* bytes of events a reader may leave before its job pauses */
    SQ_JOB_EVENTS_MAX = 8 << 20,    /* and what one step may add to them at the very most */
    SQ_JOB_STALL_S = 60,            /* paused so long, a job is cancelled */
    SQ_PREEMPTIONS_MAX = 3,         /* then others give way first */
    SQ_QUEUE_MAX = 1 << 16
};

/* ---- clients and jobs ------------------------------------------------------------------------ */

/* Who waits for a turn. served: tokens, a decoded one counting four; a client that comes back starts from the
 * least served one present, so nobody saves up. */
typedef struct {
    uint64_t id;
    int32_t jobs;        /* 0: the entry is free */
    double served;
    double recent;       /* the same, fading over seconds: for the index of fairness */
} sq_client;

struct squish_job {
    squish_alloc alloc;
    const sq_model *m;
    /* What was asked; constant. */
    int32_t n_prompt, tokens_max, prompt_logprobs, priority, vocab;
    squish_pooling pool;
    uint64_t client_id, salt;
    uint64_t deadline_ns; /* 0: none */
    /* The batch's thread. */
    int32_t *tokens;      /* [tokens_max]: the prompt, then what was drawn */
    int32_t n, computed;  /* tokens there are; those whose keys and values are in the cache */
    int32_t scored;       /* prompt tokens whose log-probabilities went out, or were not wanted */
    sq_spec *spec;        /* NULL: no guesses */
    int32_t n_guesses;    /* tokens [n, n + n_guesses) are rows of the present step too */
    sq_sides sides;       /* and side branches of these, behind the rows of all jobs: */
    int32_t row_aside;    /* the first of theirs */
    sq_answer *answer;    /* NULL: an embedding */
    double *sum;          /* [hidden] of an embedding */
    int32_t hidden;
    sq_client *client;
    sq_kv_seq *kv;        /* of its slot; NULL: it waits */
    sq_job *next;         /* in the inbox or among the waiting */
    uint64_t arrival, t_submit, t_wait, t_admit, t_paused, last_step;
    int32_t preemptions;
    bool started, paused;
    bool passed;          /* not this time, in a round of admission */
    bool looked_up;       /* among the snapshots */
    bool behind_codes;    /* some of what it reads came from codes */
    atomic_bool cancelled;
    /* Under lock. */
    pthread_mutex_t lock;
    sq_batch *batch;      /* NULL: it has ended */
    int32_t owners;       /* reader and batch */
    sq_buf events[2];     /* one is filled, the other read */
    int32_t filling;
    size_t read_at, behind; /* behind: bytes in both that were not read */
    bool found_nothing;   /* the reader did, or never looked: wake it */
    bool ended, end_read;
    squish_finish finish;
    squish_status status;
    const char *stop_reason;
    squish_error error;
    uint64_t t_end, t_prefilled, t_first, t_last;
    squish_job_stats stats;
    pthread_mutex_t wake_lock; /* of what follows; no other is taken with it but by wake */
    void (*wake)(void *user);
    void *wake_user;
};

/* Checks and copies. The job belongs to the caller and has one owner. */
squish_status sq_job_new(sq_job **out, const sq_engine *e, const squish_job_options *o, squish_error *err);
void sq_job_release(sq_job *j);           /* one owner less */

/* (the batch's thread) Hand an event to the reader: ev with its text, tops or embedding. False: no memory. */
bool sq_job_push(sq_job *j, const squish_job_event *ev);
/* The last event; the job leaves the batch. err: its text, if status is not OK. */
void sq_job_end(sq_job *j, squish_finish finish, const char *stop_reason, squish_status status,
                const squish_error *err);
bool sq_job_is_behind(sq_job *j);
/* (sched_plan.c) Its next rows are the last drawn token of an answer and what was forced behind it. */
bool sq_job_streams(const sq_job *j);

/* ---- the batch ------------------------------------------------------------------------------- */

/* Rows of one job in the next step, through layers [from, to); the last n_guesses of the job are guesses.
 * Those of its side branches are not among them. */
typedef struct {
    sq_job *j;
    int32_t n_rows, from, to;
} sq_share;

struct squish_batch {
    squish_alloc alloc;
    sq_engine *e;
    squish_batch_options opt;
    sq_kv_tree *tree;     /* NULL: no prefix cache */
    sq_snapshots *snapshots; /* NULL: none */
    sq_codec *codec;         /* their codebooks; NULL: they are exact */
    pthread_t thread;
    /* Under lock. */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    sq_job *inbox, **inbox_end;
    bool draining, poked;
    atomic_bool stop;     /* set under lock, read anywhere */
    int32_t n_jobs, n_queued;
    squish_batch_stats published;
    _Atomic uint64_t step_began;
    /* The thread's. */
    sq_job *waiting;      /* by arrival, those that were preempted in front */
    sq_job *active[SQ_SEQS_MAX]; /* by slot; NULL: free */
    sq_kv_seq *kv[SQ_SEQS_MAX];  /* of each slot */
    sq_client *clients;   /* [n_clients] */
    int32_t n_clients;
    uint64_t arrivals, step;
    uint64_t t_faded;
    sq_step_cost cost;
    sq_share plan[SQ_SEQS_MAX];
    int32_t n_plan;
    bool parts;    /* prompts may go on by layers; not where tiles are voted on (sq_forward_run_part) */
    sq_share part; /* rows of a prompt that have come as far as layer `to`; j NULL: there are none */
    int32_t *ids;         /* [chunk] of the step */
    squish_batch_stats stats;
};

/* Look again: a job was cancelled, or its reader caught up. Any thread. */
void sq_batch_poke(sq_batch *b);
/* A job that is in no list and holds no slot any more ends. */
void sq_batch_end(sq_batch *b, sq_job *j, squish_finish finish, const char *stop_reason, squish_status status,
                  const squish_error *err);

/* (sched_plan.c) Would a go before c? The class counts the priority, ageing, and what nobody waits for word
 * by word. */
bool sq_plan_before(const sq_job *a, const sq_job *c, uint64_t now);
int32_t sq_plan_class(const sq_job *j, uint64_t now);
/* Fill b->plan for the next step: rows of running jobs, none over the engine's chunk in all. Only the last
 * share may be a part (sq_forward_run_part). */
void sq_plan_step(sq_batch *b, uint64_t now);
static inline bool sq_share_ends(const sq_batch *b, const sq_share *s) {
    return s->to == b->e->m->cfg.n_layers;
}
sq_client *sq_plan_client(sq_batch *b, uint64_t id);
void sq_plan_charge(sq_batch *b, uint64_t now);
double sq_plan_fairness(const sq_batch *b);

/* (sched_slots.c) Give free slots to those who wait, as far as the cache goes. */
void sq_slots_admit(sq_batch *b, uint64_t now);
/* Columns for the rows of the plan; whoever cannot have them leaves the plan, or its slot. */
void sq_slots_reserve(sq_batch *b, uint64_t now);
/* Take a job from its slot; what it computed stays in the tree. */
void sq_slots_leave(sq_batch *b, sq_job *j);

/* (sched_rows.c) After a step: what its rows become. */
void sq_rows_use(sq_batch *b);

/* ---- histograms ------------------------------------------------------------------------------ */

static inline void sq_hist_add(squish_hist *h, double ms) {
    const int32_t last = SQUISH_HIST_BUCKETS - 1;
    for (int32_t i = last; i >= 0 && (i == last || ms <= (double)(1 << i)); i--) h->count[i]++;
    h->sum_s += ms / 1e3;
}

#endif
