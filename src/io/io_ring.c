/* SPDX-License-Identifier: Apache-2.0
 *
 * io_ring.c - reading with io_uring (Axboe, 2019), through liburing.
 *
 * One thread owns the ring: it fills it with the reads that matter most, hands them in, and sleeps until one
 * is done. An eventfd that is always being read wakes it when there is something new to read. */
#include "io/io_int.h"

#ifndef SQ_HAVE_URING

const sq_io_driver *sq_io_driver_uring(void) { return NULL; }

#else

#include <errno.h>
#include <liburing.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DEPTH = 16 };

typedef struct {
    sq_io_chunk c;
    uint32_t got;
} ring_read;

typedef struct {
    struct io_uring ring;
    int event;      /* kicked */
    uint64_t kicks; /* what was read from it */
    int32_t depth, n_free;
    ring_read reads[SQ_IO_DEPTH_MAX], *free[SQ_IO_DEPTH_MAX];
} ring_state;

static void ask_event(ring_state *r) {
    struct io_uring_sqe *e = io_uring_get_sqe(&r->ring); /* the ring has room for all reads and this one */
    io_uring_prep_read(e, r->event, &r->kicks, sizeof r->kicks, 0);
    io_uring_sqe_set_data(e, NULL);
}

static void ask(sq_io *io, ring_state *r, ring_read *x) {
    struct io_uring_sqe *e = io_uring_get_sqe(&r->ring);
    io_uring_prep_read(e, io->file.fd, x->c.p + x->got, x->c.n - x->got, x->c.offset + x->got);
    io_uring_sqe_set_data(e, x);
}

/* Under the lock. */
static void fill(sq_io *io, ring_state *r) {
    while (r->n_free > 0) {
        ring_read *x = r->free[r->n_free - 1];
        if (!sq_io_next(io, &x->c)) return;
        r->n_free--;
        x->got = 0;
        ask(io, r, x);
    }
}

/* A read has ended, or goes on where it stopped. */
static void take(sq_io *io, ring_state *r, ring_read *x, int res) {
    if (res == -EINTR || res == -EAGAIN) {
        ask(io, r, x);
        return;
    }
    if (res > 0) {
        sq_os_direct_forget(&io->file, x->c.offset + x->got, (size_t)res);
        x->got += (uint32_t)res;
        if (x->got < x->c.needed && x->got % SQ_DIRECT_ALIGN == 0) {
            ask(io, r, x);
            return;
        }
    }
    const sq_io_chunk c = x->c;
    const int64_t got = res < 0 ? res : (int64_t)x->got;
    r->free[r->n_free++] = x;
    /* The others are on their way while this unit may be compared. */
    fill(io, r);
    io_uring_submit(&r->ring);
    sq_io_done(io, &c, got);
}

static void *thread_main(void *arg) {
    sq_io *io = arg;
    ring_state *r = io->ring_state;
    sq_os_wake_first(); /* or reads are begun when those that compute have stopped */
    ask_event(r);
    pthread_mutex_lock(&io->lock);
    for (;;) {
        fill(io, r);
        const bool over = io->stopping && r->n_free == r->depth;
        pthread_mutex_unlock(&io->lock);
        if (over) return NULL;
        struct io_uring_cqe *e;
        io_uring_submit_and_wait(&r->ring, 1);
        pthread_mutex_lock(&io->lock);
        while (io_uring_peek_cqe(&r->ring, &e) == 0) {
            ring_read *x = io_uring_cqe_get_data(e);
            const int res = e->res;
            io_uring_cqe_seen(&r->ring, e);
            if (x)
                take(io, r, x, res);
            else
                ask_event(r);
        }
    }
}

static void kick(sq_io *io) {
    const ring_state *r = io->ring_state;
    const uint64_t one = 1;
    ssize_t n;
    do n = write(r->event, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

static void release(sq_io *io) {
    ring_state *r = io->ring_state;
    io_uring_queue_exit(&r->ring);
    close(r->event);
    sq_alloc_free(&io->alloc, r, sizeof *r);
    io->ring_state = NULL;
}

static void stop(sq_io *io) {
    pthread_mutex_lock(&io->lock);
    kick(io);
    pthread_mutex_unlock(&io->lock);
    pthread_join(io->threads[0], NULL);
    io->n_threads = 0;
    release(io);
}

/* What is left of a start that failed: refused by a sysctl or a filter, an old kernel, too little memory that
 * may be locked. */
static squish_status start(sq_io *io, squish_error *err) {
    ring_state *r = sq_alloc_zero(&io->alloc, sizeof *r);
    sigset_t all, old;
    if (!r) return sq_fail(err, SQUISH_NO_MEMORY, "weights: out of memory");
    r->depth = io->opt.depth ? io->opt.depth : DEPTH;
    for (int32_t i = 0; i < r->depth; i++) r->free[r->n_free++] = &r->reads[i];
    r->event = eventfd(0, EFD_CLOEXEC);
    int cause = r->event < 0 ? errno : 0;
    if (cause == 0) cause = -io_uring_queue_init(2 * SQ_IO_DEPTH_MAX, &r->ring, 0);
    if (cause) {
        if (r->event >= 0) close(r->event);
        sq_alloc_free(&io->alloc, r, sizeof *r);
        return sq_fail_errno(err, cause, "no io_uring");
    }
    io->ring_state = r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    cause = pthread_create(&io->threads[0], NULL, thread_main, io);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    io->n_threads = cause == 0;
    if (cause == 0) return SQUISH_OK;
    release(io);
    return sq_fail_errno(err, cause, "cannot start a thread that reads weights");
}

static const sq_io_driver driver = {"io_uring", start, kick, stop};

const sq_io_driver *sq_io_driver_uring(void) { return &driver; }

#endif
