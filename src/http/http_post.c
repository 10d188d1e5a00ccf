/* SPDX-License-Identifier: Apache-2.0
 *
 * http_post.c - how other threads reach the loop, and the room's workers.
 *
 * libevent's structures are touched by the loop thread alone. A post is a list under a lock and one byte in a
 * pipe; the byte is written only when the list was empty, and the loop empties the pipe before it takes the
 * list, so no wake-up is lost and none piles up. Workers take from a second list under the same lock; a note
 * that was worked on goes to the first list as it is, so that this cannot fail. */
#include "http/http_int.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static void append(sq_http_notes *l, sq_http_note *n) {
    n->next = NULL;
    *l->last = n;
    l->last = &n->next;
}

static sq_http_note *take_all(sq_http_notes *l) {
    sq_http_note *n = l->first;
    l->first = NULL;
    l->last = &l->first;
    return n;
}

static void wake(sq_http *h) {
    while (write(h->wake_fd[1], "", 1) < 0 && errno == EINTR) {} /* a full pipe wakes as well */
}

/* The byte is written without the lock: the loop often runs at once, in the place of who wakes it, and would
 * wait for the lock of a thread that waits for the processor. */
static void post_note(sq_http *h, sq_http_note *n) {
    pthread_mutex_lock(&h->lock);
    append(&h->posted, n);
    const bool sleeps = !h->woken;
    h->woken = true;
    pthread_mutex_unlock(&h->lock);
    if (sleeps) wake(h);
}

squish_status sq_http_post(sq_http *h, void (*fn)(void *user), void *user) {
    sq_http_note *n = sq_alloc_zero(&h->alloc, sizeof *n);
    if (!n) return SQUISH_NO_MEMORY;
    n->fn = fn;
    n->user = user;
    post_note(h, n);
    return SQUISH_OK;
}

void sq_http_post_lent(sq_http *h, sq_http_note *n, void (*fn)(void *user), void *user) {
    *n = (sq_http_note){.fn = fn, .user = user, .lent = true};
    post_note(h, n);
}

squish_status sq_http_work(sq_http *h, void (*work)(void *user), void (*done)(void *user), void *user) {
    sq_http_note *n = sq_alloc_zero(&h->alloc, sizeof *n);
    if (!n) return SQUISH_NO_MEMORY;
    n->work = work;
    n->fn = done;
    n->user = user;
    pthread_mutex_lock(&h->lock);
    append(&h->queued, n);
    pthread_cond_signal(&h->more_work);
    pthread_mutex_unlock(&h->lock);
    return SQUISH_OK;
}

void sq_http_stop(sq_http *h) {
    atomic_store(&h->stopping, true);
    pthread_mutex_lock(&h->lock); /* whoever frees h takes it first */
    wake(h);
    pthread_mutex_unlock(&h->lock);
}

void sq_http_run_posted(sq_http *h) {
    char bytes[64];
    while (read(h->wake_fd[0], bytes, sizeof bytes) > 0) {}
    pthread_mutex_lock(&h->lock);
    h->woken = false;
    sq_http_note *n = take_all(&h->posted);
    pthread_mutex_unlock(&h->lock);
    while (n) {
        sq_http_note *next = n->next;
        void (*fn)(void *) = n->fn;
        void *user = n->user;
        if (!n->lent) sq_alloc_free(&h->alloc, n, sizeof *n);
        fn(user); /* a lent note may be posted again in there, or be gone after it */
        n = next;
    }
}

/* Once the workers are gone: work and the rest of it, here. */
static bool run_queued(sq_http *h) {
    sq_http_note *n = take_all(&h->queued);
    const bool any = n != NULL;
    while (n) {
        sq_http_note *next = n->next;
        n->work(n->user);
        n->fn(n->user);
        sq_alloc_free(&h->alloc, n, sizeof *n);
        n = next;
    }
    return any;
}

void sq_http_run_rest(sq_http *h) {
    do sq_http_run_posted(h);
    while (run_queued(h) || h->posted.first);
}

/* ---- workers --------------------------------------------------------------------------------- */

static void *worker(void *user) {
    sq_http *h = user;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        sq_http_note *n = h->queued.first;
        if (!n) {
            if (h->leaving) break;
            pthread_cond_wait(&h->more_work, &h->lock);
            continue;
        }
        h->queued.first = n->next;
        if (!n->next) h->queued.last = &h->queued.first;
        pthread_mutex_unlock(&h->lock);
        n->work(n->user);
        post_note(h, n);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

squish_status sq_http_threads_begin(sq_http *h, squish_error *err) {
    const int32_t n = h->opt.workers;
    h->threads = sq_alloc_zero(&h->alloc, (size_t)n * sizeof *h->threads);
    if (!h->threads) return sq_fail(err, SQUISH_NO_MEMORY, "http: no memory for %d workers", n);
    for (; h->n_threads < n; h->n_threads++) {
        const int e = pthread_create(&h->threads[h->n_threads], NULL, worker, h);
        if (e) return sq_fail_errno(err, e, "http: cannot start worker %d", h->n_threads);
    }
    return SQUISH_OK;
}

void sq_http_threads_end(sq_http *h) {
    pthread_mutex_lock(&h->lock);
    h->leaving = true;
    pthread_cond_broadcast(&h->more_work);
    pthread_mutex_unlock(&h->lock);
    for (int32_t i = 0; i < h->n_threads; i++) pthread_join(h->threads[i], NULL);
    sq_alloc_free(&h->alloc, h->threads, (size_t)h->opt.workers * sizeof *h->threads);
    h->threads = NULL;
    h->n_threads = 0;
}
