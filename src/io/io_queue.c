/* SPDX-License-Identifier: Apache-2.0
 *
 * io_queue.c - what is read next, into which slot, and whose that was.
 *
 * A read is chosen when a thread is free for it, not when it was wished for: so what came later and matters
 * more goes first, chunk by chunk. Everything here is under the lock. */
#include "io/io_int.h"

/* Units on their way at once, by who wants them: the rest of the places is for those that matter more. */
static const int32_t begun_max[] = {[SQ_IO_WARM] = 2,
                                    [SQ_IO_HINT] = SQ_IO_ACTIVE_MAX / 2,
                                    [SQ_IO_SEQUENCE] = SQ_IO_ACTIVE_MAX - 4,
                                    [SQ_IO_DEMAND] = SQ_IO_ACTIVE_MAX};

/* What nobody asked for yet is read with so many in flight at most, as few as keep a device at its rate: a
 * read that somebody waits for is served behind those that went before it, however much it matters. */
enum { GUESSED_READS = 2 };

static const double DUE = 1e9; /* worth of the first of a sequence, more than any score */

/* ---- what a unit is worth -------------------------------------------------------------------- */

uint64_t sq_io_fade_gets(const sq_io *io) { return 16 * (uint64_t)(io->pool.n + 1); }

/* Counts of gets fade, or what was once used often would stay for ever. */
static void fade(sq_io *io) {
    const uint64_t now = atomic_load_explicit(&io->clock, memory_order_relaxed);
    if (now - io->faded_at < sq_io_fade_gets(io)) return;
    io->faded_at = now;
    for (size_t i = 0; i < io->n; i++) {
        const uint32_t used = atomic_load_explicit(&io->units[i].used, memory_order_relaxed);
        atomic_store_explicit(&io->units[i].used, used / 2, memory_order_relaxed);
    }
}

/* By how often it was used, at most 2, how lately, at most 1, and what was predicted, at most 2. */
static double score(const sq_io *io, const sq_io_entry *u) {
    const double used = atomic_load_explicit(&u->used, memory_order_relaxed);
    const double age = (double)(atomic_load_explicit(&io->clock, memory_order_relaxed) -
                                atomic_load_explicit(&u->last, memory_order_relaxed));
    const bool hinted = io->hint_call - u->hint_call < SQ_IO_HINTS_KEPT;
    return 2 * used / (used + 8) + 1 / (1 + age / (io->pool.n + 1)) +
           (hinted ? 2 * (double)u->hint_weight : 0);
}

static double due_worth(int32_t position) { return DUE - position; }

/* Of a unit in memory. What was just used of a cycle comes last again, so the latest goes first. */
static double worth(const sq_io *io, const sq_io_entry *u) {
    if (u->sequence == io->generation && atomic_load_explicit(&u->due, memory_order_relaxed))
        return due_worth(u->position);
    if (u->at.use == SQ_IO_CYCLE || io->rounds)
        return -(double)atomic_load_explicit(&u->last, memory_order_relaxed);
    return score(io, u);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static void let_go(sq_io *io, sq_io_entry *u) {
    if (atomic_load_explicit(&u->fresh, memory_order_relaxed)) io->stats.wasted_bytes += u->at.bytes;
    io->held_bytes -= u->at.bytes;
    u->slot = -1;
    u->p = NULL;
}

/* The slot whose unit is worth least, and less than `limit`; -1: none. Its unit has gone then. */
static int32_t evict(sq_io *io, sq_io_room *r, double limit) {
    for (;;) {
        int32_t best = -1;
        double least = limit;
        for (int32_t i = 0; i < r->n; i++) {
            const sq_io_entry *u = &io->units[r->unit[i]];
            if (u->waiters > 0 || atomic_load(&u->held) != SQ_IO_READY) continue;
            const double w = worth(io, u);
            if (w < least) best = i, least = w;
        }
        if (best < 0) return -1;
        sq_io_entry *u = &io->units[r->unit[best]];
        uint32_t free_ = SQ_IO_READY; /* somebody may have taken it meanwhile */
        if (!atomic_compare_exchange_strong(&u->held, &free_, 0)) continue;
        let_go(io, u);
        return best;
    }
}

static int32_t free_slot(const sq_io_room *r) {
    for (int32_t i = 0; i < r->n; i++)
        if (r->unit[i] < 0) return i;
    return -1;
}

static bool take_slot(sq_io *io, sq_io_entry *u, sq_io_rank rank, double limit) {
    if (u->own) return true;
    sq_io_room *r = u->at.use == SQ_IO_CYCLE ? &io->ring : &io->pool;
    int32_t slot = free_slot(r);
    if (slot < 0) slot = evict(io, r, limit);
    if (slot < 0 && rank > SQ_IO_HINT) {
        /* Whoever puts a unit looks at the flag after letting go of it: one of us two sees the other. */
        atomic_store(&io->starved, true);
        slot = evict(io, r, limit);
    }
    if (slot < 0) return false;
    r->unit[slot] = (int32_t)(u - io->units);
    u->slot = slot;
    u->p = r->base + (uint64_t)slot * r->slot_bytes;
    return true;
}

/* ---- begin and end --------------------------------------------------------------------------- */

static bool begin(sq_io *io, int32_t unit, sq_io_rank rank, double limit) {
    sq_io_entry *u = &io->units[unit];
    sq_io_active *a = NULL;
    int32_t busy = 0;
    for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++) {
        if (io->active[i].unit < 0)
            a = &io->active[i];
        else
            busy++;
    }
    if (busy >= begun_max[rank] || !take_slot(io, u, rank, limit)) return false;
    *a = (sq_io_active){
        .unit = unit, .rank = rank, .bytes = sq_align_up((size_t)u->at.bytes, SQ_DIRECT_ALIGN)};
    u->reading = true;
    u->hinted = rank == SQ_IO_HINT;
    u->warmed = rank == SQ_IO_WARM;
    io->stats.hinted += u->hinted;
    io->stats.warmed += u->warmed;
    io->held_bytes += u->at.bytes;
    if (io->held_bytes > io->stats.held_bytes_max) io->stats.held_bytes_max = io->held_bytes;
    return true;
}

void sq_io_retire(sq_io *io, sq_io_active *a, bool ready) {
    sq_io_entry *u = &io->units[a->unit];
    u->reading = false;
    if (ready) {
        atomic_store_explicit(&u->fresh, a->rank != SQ_IO_DEMAND, memory_order_relaxed);
        atomic_store_explicit(&u->held, SQ_IO_READY, memory_order_release);
    } else {
        io->held_bytes -= u->at.bytes;
        if (!u->own) (u->at.use == SQ_IO_CYCLE ? &io->ring : &io->pool)->unit[u->slot] = -1;
        u->slot = -1;
    }
    a->unit = -1;
    pthread_cond_broadcast(&io->moved);
    io->driver->kick(io);
}

static bool is_there(const sq_io_entry *u) {
    return u->reading || (atomic_load_explicit(&u->held, memory_order_relaxed) & SQ_IO_READY);
}

/* ---- what is next ---------------------------------------------------------------------------- */

void sq_io_demand(sq_io *io, int32_t unit) {
    sq_io_entry *u = &io->units[unit];
    if (u->queued) return;
    u->queued = true;
    u->next = -1;
    if (io->demand_last >= 0)
        io->units[io->demand_last].next = unit;
    else
        io->demand_first = unit;
    io->demand_last = unit;
}

/* Each of these begins one unit, or says that there is none to begin. */
static bool begin_demand(sq_io *io) {
    while (io->demand_first >= 0) {
        const int32_t unit = io->demand_first;
        if (!is_there(&io->units[unit]) && !begin(io, unit, SQ_IO_DEMAND, 2 * DUE)) return false;
        io->units[unit].queued = false;
        io->demand_first = io->units[unit].next;
        if (io->demand_first < 0) io->demand_last = -1;
        for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++)
            if (io->active[i].unit == unit && io->active[i].at < io->active[i].bytes) return true;
    }
    return false;
}

static bool begin_sequence(sq_io *io) {
    for (; io->sequence_at < io->n_sequence; io->sequence_at++) {
        const int32_t unit = io->sequence[io->sequence_at];
        if (is_there(&io->units[unit]) || !atomic_load_explicit(&io->units[unit].due, memory_order_relaxed))
            continue;
        const double limit = io->sequence_at < io->n_near ? due_worth(io->sequence_at) : 0;
        if (!begin(io, unit, SQ_IO_SEQUENCE, limit)) return false;
        io->sequence_at++;
        return true;
    }
    return false;
}

static bool begin_hint(sq_io *io) {
    for (; io->hints_at < io->n_hints; io->hints_at++) {
        const int32_t unit = io->hints[io->hints_at];
        if (is_there(&io->units[unit])) continue;
        const double worth_it = score(io, &io->units[unit]);
        if (!begin(io, unit, SQ_IO_HINT, worth_it)) return false;
        io->hints_at++;
        return true;
    }
    return false;
}

/* Into free slots alone: once there is none, all that is kept was asked for, or is hotter. */
static bool begin_warm(sq_io *io) {
    for (; io->warm_at < io->n_warm; io->warm_at++) {
        const int32_t unit = io->warm[io->warm_at].unit;
        if (is_there(&io->units[unit])) continue;
        if (free_slot(&io->pool) < 0) io->n_warm = 0;
        if (io->n_warm == 0 || !begin(io, unit, SQ_IO_WARM, -DUE)) return false;
        io->warm_at++;
        return true;
    }
    return false;
}

static bool cut(sq_io *io, sq_io_rank rank, sq_io_chunk *out) {
    for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++) {
        sq_io_active *a = &io->active[i];
        if (a->unit < 0 || a->rank != rank || a->at >= a->bytes) continue;
        const sq_io_entry *u = &io->units[a->unit];
        const uint64_t left = a->bytes - a->at;
        const uint32_t n = left < io->opt.chunk_bytes ? (uint32_t)left : io->opt.chunk_bytes;
        const uint64_t must = u->at.bytes - a->at; /* what comes behind is padding, which a file may lack */
        *out = (sq_io_chunk){a, u->at.offset + a->at, u->p + a->at, n, must < n ? (uint32_t)must : n};
        a->at += n;
        a->pending++;
        if (io->in_flight++ == 0) io->busy_since = sq_os_now_ns();
        return true;
    }
    return false;
}

static bool more_demanded(const sq_io *io) {
    for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++) {
        const sq_io_active *a = &io->active[i];
        if (a->unit >= 0 && a->rank == SQ_IO_DEMAND && a->at < a->bytes) return true;
    }
    return io->demand_first >= 0;
}

bool sq_io_next_demand(sq_io *io, sq_io_chunk *out) {
    fade(io);
    if (!cut(io, SQ_IO_DEMAND, out) && !(begin_demand(io) && cut(io, SQ_IO_DEMAND, out))) return false;
    if (more_demanded(io)) io->driver->kick(io);
    return true;
}

bool sq_io_next(sq_io *io, sq_io_chunk *out) {
    if (io->stopping) return false;
    fade(io);
    if (cut(io, SQ_IO_DEMAND, out) || (begin_demand(io) && cut(io, SQ_IO_DEMAND, out))) return true;
    if (cut(io, SQ_IO_SEQUENCE, out) || (begin_sequence(io) && cut(io, SQ_IO_SEQUENCE, out))) return true;
    if (io->in_flight >= GUESSED_READS) return false;
    if (cut(io, SQ_IO_HINT, out) || (begin_hint(io) && cut(io, SQ_IO_HINT, out))) return true;
    return cut(io, SQ_IO_WARM, out) || (begin_warm(io) && cut(io, SQ_IO_WARM, out));
}
