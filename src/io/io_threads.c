/* SPDX-License-Identifier: Apache-2.0
 *
 * io_threads.c - reading with pread, by a few threads: so many reads are in flight. Each takes the chunk that
 * matters most, reads it, and looks again; with nothing to read it sleeps on a condition. */
#include "io/io_int.h"

#include <signal.h>

static void *thread_main(void *arg) {
    sq_io *io = arg;
    sq_os_wake_first();
    pthread_mutex_lock(&io->lock);
    while (!io->stopping) {
        sq_io_chunk c;
        if (!sq_io_next(io, &c)) {
            pthread_cond_wait(&io->work, &io->lock);
            continue;
        }
        pthread_mutex_unlock(&io->lock);
        const int64_t got = sq_io_read_chunk(io, &c);
        pthread_mutex_lock(&io->lock);
        sq_io_done(io, &c, got);
    }
    pthread_mutex_unlock(&io->lock);
    return NULL;
}

static void kick(sq_io *io) { pthread_cond_broadcast(&io->work); }

static void stop(sq_io *io) {
    pthread_mutex_lock(&io->lock);
    kick(io);
    pthread_mutex_unlock(&io->lock);
    for (int32_t i = 0; i < io->n_threads; i++) pthread_join(io->threads[i], NULL);
    io->n_threads = 0;
}

/* Signals belong to the program's own threads. */
static squish_status start(sq_io *io, squish_error *err) {
    const int32_t wanted = io->opt.depth ? io->opt.depth : 4;
    sigset_t all, old;
    int cause = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (cause == 0 && io->n_threads < wanted && io->n_threads < SQ_IO_THREADS_MAX) {
        cause = pthread_create(&io->threads[io->n_threads], NULL, thread_main, io);
        io->n_threads += cause == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (io->n_threads > 0) return SQUISH_OK; /* fewer read more slowly */
    return sq_fail_errno(err, cause, "cannot start a thread that reads weights");
}

const sq_io_driver sq_io_driver_threads = {"pread", start, kick, stop};
