/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_masks.c - the masks of answers, made on a thread of their own beside the forward pass.
 *
 *   token drawn -> begin -> [ forward pass .......... ] -> wait -> draw
 *                    `--> [ mask ]
 *
 * What may come after a token is known as soon as the token is, and a forward pass is long beside it. The
 * thread is started by the first mask; where it cannot be had the mask is made at once. It takes a grammar's
 * lock as everybody does; the lock of the queue is never held meanwhile. */
#include "sched/sched_masks.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

struct sq_masks {
    squish_alloc alloc;
    pthread_mutex_t lock;
    pthread_cond_t moved; /* a job came or is done, or the end */
    sq_mask_job *first, **last;
    pthread_t thread;
    bool running, stop;
};

static void make(sq_mask_job *j) {
    j->status = sq_gram_mask_at(j->g, j->trie, j->place, j->mask, &j->n_allowed, &j->err);
}

static void *thread_main(void *arg) {
    sq_masks *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        sq_mask_job *j = w->first;
        if (!j) {
            pthread_cond_wait(&w->moved, &w->lock);
            continue;
        }
        w->first = j->next;
        if (!w->first) w->last = &w->first;
        pthread_mutex_unlock(&w->lock);
        make(j);
        pthread_mutex_lock(&w->lock);
        j->busy = false;
        pthread_cond_broadcast(&w->moved);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

squish_status sq_masks_new(sq_masks **out, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_masks *w = sq_alloc_zero(a, sizeof *w);
    if (!w) return sq_fail(err, SQUISH_NO_MEMORY, "masks: out of memory");
    w->alloc = *a;
    w->last = &w->first;
    if (pthread_mutex_init(&w->lock, NULL) != 0) {
        sq_alloc_free(a, w, sizeof *w);
        return sq_fail(err, SQUISH_NO_MEMORY, "masks: no lock to be had");
    }
    pthread_cond_init(&w->moved, NULL); /* cannot fail without attributes */
    *out = w;
    return SQUISH_OK;
}

void sq_masks_free(sq_masks *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->moved);
    pthread_mutex_unlock(&w->lock);
    if (w->running) pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->moved);
    pthread_mutex_destroy(&w->lock);
    const squish_alloc a = w->alloc;
    sq_alloc_free(&a, w, sizeof *w);
}

/* With the lock held. Signals belong to the program's own threads. */
static bool start(sq_masks *w) {
    sigset_t all, old;
    if (w->running) return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    w->running = pthread_create(&w->thread, NULL, thread_main, w) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return w->running;
}

void sq_masks_begin(sq_masks *w, sq_mask_job *j) {
    j->err = (squish_error){0};
    j->next = NULL;
    pthread_mutex_lock(&w->lock);
    const bool threaded = start(w);
    j->busy = threaded;
    if (threaded) {
        *w->last = j;
        w->last = &j->next;
        pthread_cond_broadcast(&w->moved);
    }
    pthread_mutex_unlock(&w->lock);
    if (!threaded) make(j);
}

bool sq_masks_drop(sq_masks *w, sq_mask_job *j) {
    pthread_mutex_lock(&w->lock);
    sq_mask_job **at = &w->first;
    while (*at && *at != j) at = &(*at)->next;
    if (*at) {
        *at = j->next;
        if (!*at) w->last = at;
        j->busy = false;
    }
    const bool mine = !j->busy;
    pthread_mutex_unlock(&w->lock);
    return mine;
}

bool sq_masks_wait(sq_masks *w, sq_mask_job *j, int64_t us) {
    struct timespec t;
    int late = 0;
    if (us >= 0) {
        clock_gettime(CLOCK_REALTIME, &t);
        const int64_t ns = t.tv_nsec + us * 1000;
        t.tv_sec += (time_t)(ns / 1000000000);
        t.tv_nsec = (long)(ns % 1000000000);
    }
    pthread_mutex_lock(&w->lock);
    while (j->busy && !late)
        late =
            us < 0 ? pthread_cond_wait(&w->moved, &w->lock) : pthread_cond_timedwait(&w->moved, &w->lock, &t);
    const bool done = !j->busy;
    pthread_mutex_unlock(&w->lock);
    return done;
}
