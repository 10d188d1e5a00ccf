/* SPDX-License-Identifier: Apache-2.0
 *
 * base_pool.c - one run at a time over items, a range of them for each thread.
 *
 *     items   0 ......... | ......... | ......... n
 *             caller ->   | 1 ->    <- thief
 *
 * A thread takes the items of its own range from the front, then those of others, from the back: each walks
 * through its part of a matrix without a gap, so that what it fetches ahead is what it needs next, and a
 * thread whose core is busy is helped. (Work stealing: Blumofe and Leiserson 1999, here with ranges instead
 * of queues, since all items are known at the start.)
 *
 * Threads. The caller of sq_pool_run is thread 0; workers 1..T-1 live from new to free. The caller owns fn,
 * ctx and n_items; a worker reads them only between claiming an item and reporting it done, and the caller
 * changes them only when all items are done. So a worker that wakes late finds nothing left, or helps with
 * the next run; nobody waits for it.
 *
 *   caller:  fn, ctx, n -> ranges -> round++ -> wake sleepers -> work -> wait until done == n
 *   worker:  see round change -> work: (an item of its range, or of another : stop) ... -> done += its items
 *
 * Ordering. A range is stored with release and an item claimed with acquire (claims keep the release
 * sequence), so a claim sees fn, ctx and n. A claim that was begun in one run and succeeds in the next,
 * because the range has the same value again, is one of the next run. done is added with release and read
 * with acquire, so a run happens-before its return. The two sleeps (worker on round, caller on done) each
 * pair a flag with the word, both sequentially consistent: either the sleeper sees the new value or the waker
 * sees the flag. */
#include "base/os_int.h"

#include <assert.h>
#include <signal.h>

enum { THREADS_MAX = 1024, SPIN_NS = 20000, LINE = 64 };

typedef struct {
    sq_pool *pool;
    pthread_t handle; /* not of the caller */
    int32_t index;
    char pad0[LINE];
    _Atomic uint64_t range; /* items not claimed: first in the high half, end in the low one */
    char pad1[LINE];
} worker;

struct sq_pool {
    squish_alloc alloc;
    int32_t threads, started; /* workers running: 1..started */
    uint64_t spin_ns;
    sq_pool_fn fn;
    void *ctx;
    int32_t n_items;
    bool running; /* the caller's: catches nested runs */
    char pad1[LINE];
    sq_os_gate done; /* items finished in this run */
    _Atomic bool caller_sleeps;
    char pad2[LINE];
    sq_os_gate round; /* changes with every run, and at the end */
    _Atomic int32_t sleepers;
    _Atomic bool stop;
    char pad3[LINE];
    worker workers[]; /* threads; the caller is the first */
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Look at the word for a while before sleeping. True: it changed from seen. */
static bool spin(sq_os_gate *g, uint32_t seen, uint64_t spin_ns) {
    if (spin_ns == 0) return atomic_load(&g->value) != seen;
    uint64_t end = sq_os_now_ns() + spin_ns;
    do {
        for (int i = 0; i < 32; i++) {
            if (atomic_load(&g->value) != seen) return true;
            relax();
        }
    } while (sq_os_now_ns() < end);
    return false;
}

static uint64_t range_of(int32_t first, int32_t end) {
    return (uint64_t)(uint32_t)first << 32 | (uint32_t)end;
}

/* The first item of a range, or its last one. Below zero: there is none. */
static int32_t claim(_Atomic uint64_t *range, bool last) {
    uint64_t r = atomic_load_explicit(range, memory_order_relaxed);
    for (;;) {
        const int32_t first = (int32_t)(r >> 32), end = (int32_t)(uint32_t)r;
        if (first >= end) return -1;
        const uint64_t rest = last ? range_of(first, end - 1) : range_of(first + 1, end);
        if (atomic_compare_exchange_weak_explicit(range, &r, rest, memory_order_acquire,
                                                  memory_order_relaxed))
            return last ? end - 1 : first;
    }
}

/* Do items until none is left. */
static void work(sq_pool *p, int32_t thread) {
    uint32_t count = 0, n = 0;
    for (int32_t i = 0; i < p->threads; i++) {
        const int32_t owner = (thread + i) % p->threads;
        int32_t item;
        while ((item = claim(&p->workers[owner].range, i > 0)) >= 0) {
            n = (uint32_t)p->n_items;
            p->fn(p->ctx, item, thread);
            count++;
        }
    }
    if (count == 0) return;
    uint32_t before = atomic_fetch_add(&p->done.value, count);
    if (before + count == n && atomic_load(&p->caller_sleeps)) sq_os_gate_wake(&p->done, 1);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    sq_pool *p = w->pool;
    uint32_t seen = 0;
    while (!atomic_load(&p->stop)) {
        work(p, w->index);
        if (!spin(&p->round, seen, p->spin_ns)) {
            atomic_fetch_add(&p->sleepers, 1);
            while (atomic_load(&p->round.value) == seen) sq_os_gate_wait(&p->round, seen);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen = atomic_load(&p->round.value);
    }
    return NULL;
}

static void next_round(sq_pool *p, int32_t wake_max) {
    atomic_fetch_add(&p->round.value, 1);
    int32_t sleepers = atomic_load(&p->sleepers);
    if (sleepers > 0 && wake_max > 0) sq_os_gate_wake(&p->round, sleepers < wake_max ? sleepers : wake_max);
}

static void wait_done(sq_pool *p) {
    uint32_t n = (uint32_t)p->n_items, done = atomic_load(&p->done.value);
    while (done != n && spin(&p->done, done, p->spin_ns)) done = atomic_load(&p->done.value);
    if (done == n) return;
    atomic_store(&p->caller_sleeps, true);
    while ((done = atomic_load(&p->done.value)) != n) sq_os_gate_wait(&p->done, done);
    atomic_store(&p->caller_sleeps, false);
}

/* Where the range of a thread begins; the caller's is the last to be empty. */
static int32_t share(const sq_pool *p, int32_t thread) {
    return (int32_t)(((int64_t)p->n_items * thread + p->threads - 1) / p->threads);
}

void sq_pool_run(sq_pool *p, sq_pool_fn fn, void *ctx, int32_t n_items) {
    if (n_items <= 0) return;
    assert(!p->running);
    p->running = true;
    if (p->started == 0 || n_items == 1) {
        for (int32_t i = 0; i < n_items; i++) fn(ctx, i, 0);
    } else {
        p->fn = fn;
        p->ctx = ctx;
        p->n_items = n_items;
        atomic_store(&p->done.value, 0);
        for (int32_t t = 0; t < p->threads; t++)
            atomic_store_explicit(&p->workers[t].range, range_of(share(p, t), share(p, t + 1)),
                                  memory_order_release);
        next_round(p, n_items - 1);
        work(p, 0);
        wait_done(p);
    }
    p->running = false;
}

static size_t pool_bytes(int32_t threads) { return sizeof(sq_pool) + (size_t)threads * sizeof(worker); }

/* Start the workers with all signals blocked: handlers belong to the program's own threads. */
static int start_workers(sq_pool *p) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int cause = 0;
    while (cause == 0 && p->started < p->threads - 1) {
        worker *w = &p->workers[p->started + 1];
        w->pool = p;
        w->index = p->started + 1;
        cause = pthread_create(&w->handle, NULL, worker_main, w);
        if (cause == 0) p->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return cause;
}

squish_status sq_pool_new(sq_pool **out, const squish_alloc *a, int32_t threads, squish_error *err) {
    *out = NULL;
    if (threads < 1 || threads > THREADS_MAX)
        return sq_fail(err, SQUISH_INVALID, "%d threads, allowed are 1 to %d", threads, THREADS_MAX);
    sq_pool *p = sq_alloc_zero(a, pool_bytes(threads));
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "no memory for a pool of %d threads", threads);
    p->alloc = a && a->resize ? *a : sq_alloc_default();
    p->threads = threads;
    /* With more threads than cores a spinning one holds a core that a working one needs. */
    p->spin_ns = threads > 1 && threads <= sq_os_cores() ? SPIN_NS : 0;
    bool done_ok = sq_os_gate_init(&p->done), round_ok = sq_os_gate_init(&p->round);
    int cause = done_ok && round_ok ? start_workers(p) : 0;
    if (done_ok && round_ok && cause == 0) {
        *out = p;
        return SQUISH_OK;
    }
    squish_status st = cause ? sq_fail_errno(err, cause, "cannot start %d threads", threads)
                             : sq_fail(err, SQUISH_NO_MEMORY, "no memory for a pool of %d threads", threads);
    if (done_ok && round_ok) {
        sq_pool_free(p);
        return st;
    }
    if (done_ok) sq_os_gate_deinit(&p->done);
    if (round_ok) sq_os_gate_deinit(&p->round);
    sq_alloc_free(a, p, pool_bytes(threads));
    return st;
}

void sq_pool_free(sq_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    next_round(p, p->threads);
    for (int32_t i = 1; i <= p->started; i++) pthread_join(p->workers[i].handle, NULL);
    sq_os_gate_deinit(&p->done);
    sq_os_gate_deinit(&p->round);
    squish_alloc alloc = p->alloc;
    sq_alloc_free(&alloc, p, pool_bytes(p->threads));
}

int32_t sq_pool_threads(const sq_pool *p) {
    return p->threads;
}
