/* SPDX-License-Identifier: Apache-2.0
 *
 * io.h - reading the weights of a container that is larger than the memory given (AgileIO).
 *
 * A file is a table of units: what is read, kept and given up together, a layer's matrices or one expert. A
 * unit is in memory, on its way, or only in the file. Memory is one block, reserved when the cache is made
 * and never more than the budget: what was read ahead is inside it.
 *
 *   | pinned: a place of its own for each | ring: slots that cyclic units take turns in | pool: experts |
 *
 * Uses. PIN stays once it was read. CYCLE is read in the order of the table, over and over, as the layers of
 * a dense model are: of such a cycle least-recently-used order keeps exactly what is needed last, so as many
 * units as fit stay for ever (every choice of them has the hit rate of Belady's rule, 1966) and the others
 * pass through the ring. Those that stay are spread evenly over the cycle: were they its beginning, nothing
 * would be read while they are computed with. POOL is taken in any order: of its units the one that is worth
 * least goes, by how often and how lately it was used and by what was predicted; or in rounds, as a cycle is.
 *
 * Priorities. A get comes first, then the sequence, then hints, then what earlier runs used; whatever has not
 * begun is given up for what matters more, and a unit on its way is joined, not read twice. No wish of a
 * lower kind takes the place of a unit that a higher kind asked for.
 *
 * Threads. All functions but new and free may be called from any thread. get, try_get and put of a unit in
 * memory take no lock: one atomic word a unit holds "is there" and how many hold it. Reading is done by
 * threads of the cache, one with io_uring, else a few with pread, which sleep when there is nothing to read,
 * and by whoever waits in a get.
 *
 * Ownership. What get returns is a view, valid until put. Units held by nobody may go at any time.
 *
 * Errors. A read that fails, ends early, or brings bytes that are not those of the container is repeated
 * once, then the get that waits for it fails with one line; others are not touched, and the next get tries
 * again. A file that somebody wrote to or cut since it was opened gives CORRUPT, never its new bytes. */
#ifndef SQ_IO_H
#define SQ_IO_H

#include "format/format.h"

/* ---- what is kept ---------------------------------------------------------------------------- */

typedef enum { SQ_IO_NONE, SQ_IO_PIN, SQ_IO_CYCLE, SQ_IO_POOL } sq_io_use;

typedef struct {
    uint64_t offset, bytes; /* in the file; offset on a multiple of SQ_DIRECT_ALIGN, units do not overlap */
    sq_io_use use;          /* NONE: never asked for here */
} sq_io_unit;

enum { SQ_IO_SLOTS_MIN = 3 }; /* of a ring or pool: one in use, one that has come, one on its way */

/* How a budget is shared out. */
typedef struct {
    uint64_t pinned_bytes;                     /* units of PIN and cyclic ones that stay */
    uint64_t ring_slot_bytes, pool_slot_bytes; /* 0: there is none */
    int32_t ring_slots, pool_slots;
    int32_t n_cycle, n_stay; /* cyclic units, and those of them that stay */
    uint64_t bytes;          /* of all, at most the budget */
    uint64_t streamed_bytes; /* of cyclic units that do not stay: read in every pass */
} sq_io_plan;

/* Share out budget bytes. stays [n], may be NULL: cyclic units that stay. NO_MEMORY: less than the least that
 * works, which is all PIN and three times the largest unit of the ring, and of the pool; err says how much
 * that is. */
squish_status sq_io_plan_make(const sq_io_unit *units, size_t n, uint64_t budget, sq_io_plan *out,
                              uint8_t *stays, squish_error *err);
uint64_t sq_io_bytes_min(const sq_io_unit *units, size_t n); /* that least */

/* ---- the cache ------------------------------------------------------------------------------- */

typedef struct sq_io sq_io;

typedef enum { SQ_IO_AUTO, SQ_IO_URING, SQ_IO_THREADS } sq_io_backend; /* AUTO: io_uring if there is one */

/* Where bytes come from, for tests and measurements. Reads as sq_os_direct_read does, from any thread. */
typedef struct {
    int64_t (*read)(void *user, uint64_t offset, void *p, size_t n);
    void *user;
} sq_io_source;

typedef struct {
    uint64_t budget_bytes;
    sq_io_backend backend;
    bool buffered;              /* do not try direct reads */
    int32_t depth;              /* reads in flight; 0: 16 with io_uring, 4 threads */
    uint32_t chunk_bytes;       /* of one read, a multiple of SQ_DIRECT_ALIGN; 0: 1 MiB */
    const sq_io_source *source; /* NULL: the file */
    /* Whether the bytes of a unit are those of the container; NULL: not looked at. Called when a unit was
     * read for the first time, from a thread of the cache. what: room for a name of the damage. */
    bool (*check)(void *user, int32_t unit, const uint8_t *p, char *what, size_t n);
    void *check_user;
    uint64_t inode, mtime_ns; /* the file must be this one; 0, 0: any */
} sq_io_options;

/* path: the container. NO_MEMORY, IO, NOT_FOUND; INVALID: units out of order, or of no multiple; CORRUPT: the
 * file is another one than it was. units are copied. */
squish_status sq_io_new(sq_io **out, const char *path, const sq_io_unit *units, size_t n,
                        const sq_io_options *o, const squish_alloc *a, squish_error *err);
void sq_io_free(sq_io *io); /* nobody holds a unit, or waits for one */

/* The bytes of a unit, read now if they are not there. Every OK wants a put. */
squish_status sq_io_get(sq_io *io, int32_t unit, const uint8_t **out, squish_error *err);
const uint8_t *sq_io_try_get(sq_io *io, int32_t unit); /* NULL, and nothing to put: it is not in memory */
void sq_io_put(sq_io *io, int32_t unit);
bool sq_io_has(const sq_io *io, int32_t unit); /* it is in memory, just now */

/* These units will be asked for, in this order: read ahead, as far as there are slots. What is in memory or
 * on its way is not read again. Takes the place of the sequence before, of which nothing more is begun.
 * Returns its generation, for sq_io_cancel. Units past the first SQ_IO_SEQUENCE_MAX are not read ahead. */
enum { SQ_IO_SEQUENCE_MAX = 4096 };
uint32_t sq_io_prefetch_sequence(sq_io *io, const int32_t *units, int32_t n);
/* And these behind that sequence, as far as what is in memory and not due makes room: none of the sequence
 * goes for them. */
void sq_io_prefetch_behind(sq_io *io, const int32_t *units, int32_t n);
void sq_io_cancel(sq_io *io, uint32_t generation); /* nothing, if that is not the last one */

/* These units of the pool may be asked for soon, each with a weight in (0, 1]: the likelier the larger. They
 * are read when nothing else wants to be, the heaviest first, in place of units worth less, and are worth
 * more themselves for as long as the next SQ_IO_HINTS_KEPT calls. What the call before named and was not
 * begun is dropped. At most SQ_IO_HINTS_MAX count. */
enum { SQ_IO_HINTS_MAX = 256, SQ_IO_HINTS_KEPT = 4 };
void sq_io_hint(sq_io *io, const int32_t *units, const float *weights, int32_t n);

/* Whether units of the pool are asked for in rounds from now on, all of them in turn, as rows of a prompt do:
 * then, as in a cycle, what was used last is needed last and goes first. Nothing else changes. */
void sq_io_in_rounds(sq_io *io, bool on);

typedef struct {
    const char *backend; /* "io_uring", "pread"; ", buffered" behind it where direct reads are refused */
    sq_io_plan plan;
    uint64_t hits, late_hits, misses; /* gets: it was there; it was on its way; it had to be begun */
    uint64_t stall_ns;                /* that gets have waited */
    uint64_t busy_ns;                 /* with a read in flight */
    uint64_t bytes_read;
    uint64_t wasted_bytes;      /* of units read ahead that went before anybody asked for them */
    uint64_t hinted, hint_hits; /* units read for a hint, and those of them that were asked for */
    uint64_t warmed, warm_hits; /* likewise of units read for counts of earlier runs */
    uint64_t retries, failures;
    uint64_t held_bytes_max; /* most bytes of units in memory or on their way at once */
} sq_io_stats;
void sq_io_get_stats(sq_io *io, sq_io_stats *out);

/* ---- counts of earlier runs ------------------------------------------------------------------ */

/* How often units of the pool were asked for, as a small file beside the container (FILE.heat). Runs add to
 * the same counts, which fade over them as over one long run: what was counted last weighs most.
 *
 *   "SQIOHEAT" | u32 version 1 | u32 n | u64 container | u64 gets since counts were halved
 *   | u32 gets [n], 0 of units that are of no pool | u64 XXH3-64 of all bytes before it        little-endian
 *
 * container names the weights, whatever their file is called and wherever it lies: sq_sqw_super_sum. */

/* What a file says; a view into it. */
typedef struct {
    uint64_t gets;
    const uint8_t *used; /* [n] u32, at any address */
} sq_io_heat;
/* name: for messages. CORRUPT: no such file, cut or damaged; UNSUPPORTED: a later version; INVALID: of
 * another container, or of another number of units. */
squish_status sq_io_heat_parse(sq_io_heat *out, sq_span file, const char *name, uint64_t container, size_t n,
                               squish_error *err);
/* Begin with the counts of a file. Units with the largest are read in the background, as many as the pool has
 * free slots: behind everything else that wants to be read, and never in the place of another unit. Once,
 * before the first get. NOT_FOUND: there is none. IO, NO_MEMORY, what parse says: the same as without one. */
squish_status sq_io_heat_load(sq_io *io, const char *path, uint64_t container, squish_error *err);
/* Write the counts as they are now, in place of the file that was there, whole or not at all. Nothing is
 * written without a pool, or where nobody got a unit. IO, NO_SPACE, NO_MEMORY; BUSY: another process writes
 * just now. */
squish_status sq_io_heat_save(sq_io *io, const char *path, uint64_t container, squish_error *err);

/* ---- containers ------------------------------------------------------------------------------ */

/* Compares the tensors of a unit with their sums: sq_io_options.check, for a container's own units. user: the
 * sq_sqw. */
bool sq_io_check_sqw(void *user, int32_t unit, const uint8_t *p, char *what, size_t n);

#endif
