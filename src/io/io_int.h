/* SPDX-License-Identifier: Apache-2.0
 *
 * io_int.h - the inside of the cache, shared by its files.
 *
 *   io_plan.c     how a budget is shared out
 *   io_cache.c    life, get and put, sequence and hints, statistics
 *   io_queue.c    what is read next, into which slot, and whose it was
 *   io_read.c     chunks of a unit: begun, done, repeated, given up
 *   io_threads.c  reading with pread
 *   io_ring.c     reading with io_uring
 *   io_sqw.c      sums of a container's units
 *   io_heat.c     counts of gets as a file
 *
 * Locks. io->lock is the only one; everything below is under it but what says otherwise. It is never held
 * while bytes are read or compared. */
#ifndef SQ_IO_INT_H
#define SQ_IO_INT_H

#include "io/io.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    SQ_IO_ACTIVE_MAX = 16, /* units on their way at once */
    SQ_IO_THREADS_MAX = 16,
    SQ_IO_DEPTH_MAX = 64
};

/* Who wants a unit read. */
typedef enum { SQ_IO_IDLE, SQ_IO_WARM, SQ_IO_HINT, SQ_IO_SEQUENCE, SQ_IO_DEMAND } sq_io_rank;

#define SQ_IO_READY ((uint32_t)1 << 31) /* of held: in memory; below it, how many hold it */

typedef struct {
    sq_io_unit at;
    _Atomic uint32_t held; /* no lock */
    _Atomic uint32_t used; /* gets, halved now and then; no lock */
    _Atomic uint64_t last; /* io->clock at the last get; no lock */
    _Atomic bool fresh;    /* read ahead, and nobody asked yet; no lock */
    _Atomic bool due;      /* in the sequence, and nobody asked yet; no lock */
    uint8_t *p;            /* constant while READY: read without lock by who holds it */
    int32_t slot;          /* of its room; -1: none, or a place of its own */
    int32_t waiters;       /* gets: it does not go before they have it */
    int32_t position;      /* in the sequence of this generation */
    uint32_t sequence;
    uint32_t hint_call; /* of the last hint that named it */
    float hint_weight;
    bool own; /* has a place of its own and never goes */
    bool reading, hinted, warmed, checked, queued;
    int32_t next; /* in the queue of demands, if it is queued */
    uint32_t failures;
    squish_error error; /* of the last failure */
} sq_io_entry;

/* A unit on its way. */
typedef struct {
    int32_t unit; /* -1: free */
    sq_io_rank rank;
    uint32_t pending;   /* chunks in flight */
    uint64_t at, bytes; /* next byte to ask for, of how many (a multiple of SQ_DIRECT_ALIGN) */
    int32_t attempt;
    int64_t fault;     /* errno value below 0, or 1: the file ends early; 0: none yet */
    uint64_t fault_at; /* in the file */
} sq_io_active;

/* One read. */
typedef struct {
    sq_io_active *of;
    uint64_t offset; /* in the file */
    uint8_t *p;
    uint32_t n, needed; /* bytes asked for, and those that must come */
} sq_io_chunk;

/* A unit of the pool that runs before this one asked for. */
typedef struct {
    uint32_t used;
    int32_t unit;
} sq_io_warm;

/* Slots of one size. */
typedef struct {
    uint8_t *base;
    uint64_t slot_bytes;
    int32_t n;
    int32_t *unit; /* [n]: whose it is, -1: free */
} sq_io_room;

typedef struct {
    const char *name;
    squish_status (*start)(sq_io *io, squish_error *err);
    void (*kick)(sq_io *io); /* under the lock: there may be something to read */
    void (*stop)(sq_io *io); /* not under the lock; io->stopping is set */
} sq_io_driver;

struct sq_io {
    squish_alloc alloc;
    sq_direct file;
    sq_io_source source;
    sq_io_options opt;
    char name[96];      /* of the file, for messages */
    sq_io_entry *units; /* [n] */
    size_t n;
    sq_io_plan plan;
    uint8_t *memory; /* [plan.bytes] */
    sq_io_room ring, pool;
    int32_t *slots; /* of both rooms */
    /* Gets, those that found it there, and the first ones of units read for a hint, or warmed; no lock. */
    _Atomic uint64_t clock, hits, hint_hits, warm_hits;
    _Atomic bool starved; /* somebody waits for a slot that is held; no lock */
    uint64_t faded_at;    /* clock when counts of gets were last halved */
    pthread_mutex_t lock;
    pthread_cond_t work, moved; /* for threads that read; for gets that wait */
    const sq_io_driver *driver;
    pthread_t threads[SQ_IO_THREADS_MAX];
    int32_t n_threads;
    void *ring_state; /* io_ring.c */
    bool stopping;
    bool rounds; /* the pool is asked for in rounds */
    sq_io_active active[SQ_IO_ACTIVE_MAX];
    int32_t demand_first, demand_last; /* queue through sq_io_entry.next; -1: empty */
    int32_t *sequence, n_sequence, sequence_at, n_near; /* behind n_near: only where there is room */
    uint32_t generation;
    int32_t hints[SQ_IO_HINTS_MAX], n_hints, hints_at;
    uint32_t hint_call;
    sq_io_warm *warm; /* [n], hottest first, of which n_warm count; NULL: no counts were loaded */
    int32_t n_warm, warm_at;
    uint64_t busy_since, held_bytes;
    uint32_t in_flight;
    sq_io_stats stats;
};

/* ---- io_queue.c: under the lock -------------------------------------------------------------- */

/* The next read, of the unit that matters most; false: there is none now. */
bool sq_io_next(sq_io *io, sq_io_chunk *out);
uint64_t sq_io_fade_gets(const sq_io *io);  /* gets until counts are halved */
void sq_io_demand(sq_io *io, int32_t unit); /* read it before all else; nothing if it is queued already */
/* The same of units that somebody waits for: whoever waits reads, too, and the cache's threads help. */
bool sq_io_next_demand(sq_io *io, sq_io_chunk *out);
/* A unit on its way is there, or has failed: its place is free again. */
void sq_io_retire(sq_io *io, sq_io_active *a, bool ready);

/* ---- io_read.c ------------------------------------------------------------------------------- */

/* What came of a read: bytes, 0 at the end of the file, or an errno value below 0. Under the lock, which is
 * let go of while a whole unit is compared. */
void sq_io_done(sq_io *io, const sq_io_chunk *c, int64_t got);
/* Not under the lock: the bytes of a chunk from the source. A read may bring less than was asked for, which
 * is no end of the file. */
int64_t sq_io_read_chunk(sq_io *io, const sq_io_chunk *c);

extern const sq_io_driver sq_io_driver_threads;
/* NULL where squish was built without liburing. */
const sq_io_driver *sq_io_driver_uring(void);

#endif
