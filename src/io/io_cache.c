/* SPDX-License-Identifier: Apache-2.0
 *
 * io_cache.c - the cache: life, get and put, sequence and hints, statistics.
 *
 * A unit's word `held` is READY | holders. get adds one to it if READY is there; whoever wants the slot swaps
 * READY | 0 for 0, which fails while anybody holds it. The pointer is written before READY and not after. */
#include "io/io_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 20, URING_DEPTH = 16 };

/* ---- life ------------------------------------------------------------------------------------ */

static squish_status check_units(const sq_io_unit *u, size_t n, squish_error *err) {
    uint64_t after = 0;
    for (size_t i = 0; i < n; i++) {
        if (u[i].offset % SQ_DIRECT_ALIGN || u[i].offset < after || u[i].bytes == 0 ||
            u[i].bytes > ((uint64_t)1 << 62) - u[i].offset)
            return sq_fail(err, SQUISH_INVALID,
                           "unit %zu takes %llu bytes at byte %llu, wanted a multiple of %d from %llu on", i,
                           (unsigned long long)u[i].bytes, (unsigned long long)u[i].offset, SQ_DIRECT_ALIGN,
                           (unsigned long long)after);
        after = u[i].offset + u[i].bytes;
    }
    return n > 0 && n <= INT32_MAX ? SQUISH_OK : sq_fail(err, SQUISH_INVALID, "%zu units", n);
}

static int64_t read_file(void *user, uint64_t offset, void *p, size_t n) {
    return sq_os_direct_read(user, offset, p, n);
}

static squish_status open_file(sq_io *io, const char *path, squish_error *err) {
    const char *slash = strrchr(path, '/');
    snprintf(io->name, sizeof io->name, "%s", slash ? slash + 1 : path);
    if (io->opt.source) {
        io->source = *io->opt.source;
        return SQUISH_OK;
    }
    SQ_TRY(sq_os_direct_open(&io->file, path, io->opt.buffered, err));
    io->source = (sq_io_source){read_file, &io->file};
    if (io->opt.inode && (io->opt.inode != io->file.inode || io->opt.mtime_ns != io->file.mtime_ns))
        return sq_fail(err, SQUISH_CORRUPT, "%s: another file than the one that was opened", io->name);
    return SQUISH_OK;
}

static uint8_t *room_init(sq_io_room *r, uint8_t *base, uint64_t slot_bytes, int32_t n, int32_t *slots) {
    *r = (sq_io_room){base, slot_bytes, n, slots};
    for (int32_t i = 0; i < n; i++) slots[i] = -1;
    return base + slot_bytes * (uint64_t)n;
}

/* One block: places of those that stay, then ring and pool. */
static squish_status share_out(sq_io *io, const sq_io_unit *units, const uint8_t *stays, squish_error *err) {
    const sq_io_plan *p = &io->plan;
    io->memory = sq_os_reserve(p->bytes);
    io->slots =
        sq_alloc_new(&io->alloc, ((size_t)p->ring_slots + (size_t)p->pool_slots + 1) * sizeof *io->slots);
    if (!io->memory || !io->slots)
        return sq_fail(err, SQUISH_NO_MEMORY, "cannot reserve %llu bytes for weights",
                       (unsigned long long)p->bytes);
    sq_os_huge_pages(io->memory, p->bytes);
    uint8_t *at = io->memory;
    for (size_t i = 0; i < io->n; i++) {
        sq_io_entry *u = &io->units[i];
        u->at = units[i];
        u->slot = -1;
        u->own = u->at.use == SQ_IO_PIN || (u->at.use == SQ_IO_CYCLE && stays[i]);
        if (!u->own) continue;
        u->p = at;
        at += sq_align_up((size_t)u->at.bytes, SQ_DIRECT_ALIGN);
    }
    at = room_init(&io->ring, at, p->ring_slot_bytes, p->ring_slots, io->slots);
    room_init(&io->pool, at, p->pool_slot_bytes, p->pool_slots, io->slots + p->ring_slots);
    return SQUISH_OK;
}

static squish_status start(sq_io *io, squish_error *err) {
    const sq_io_driver *uring = io->opt.source ? NULL : sq_io_driver_uring();
    io->driver = io->opt.backend == SQ_IO_THREADS || !uring ? &sq_io_driver_threads : uring;
    if (io->driver == uring) {
        squish_error why = {0};
        if (uring->start(io, &why) == SQUISH_OK) return SQUISH_OK;
        if (io->opt.backend == SQ_IO_URING) return sq_fail(err, why.code, "%s", why.text);
        io->driver = &sq_io_driver_threads; /* not allowed here, or too old a kernel */
    } else if (io->opt.backend == SQ_IO_URING) {
        return sq_fail(err, SQUISH_UNSUPPORTED, "built without io_uring");
    }
    return io->driver->start(io, err);
}

static squish_status check_options(const sq_io_options *o, squish_error *err) {
    if (o->chunk_bytes % SQ_DIRECT_ALIGN || o->chunk_bytes > 64 << 20)
        return sq_fail(err, SQUISH_INVALID, "reads of %u bytes, wanted a multiple of %d", o->chunk_bytes,
                       SQ_DIRECT_ALIGN);
    if (o->depth < 0 || o->depth > SQ_IO_DEPTH_MAX)
        return sq_fail(err, SQUISH_INVALID, "%d reads in flight, wanted 0 (by itself) to %d", o->depth,
                       SQ_IO_DEPTH_MAX);
    return SQUISH_OK;
}

squish_status sq_io_new(sq_io **out, const char *path, const sq_io_unit *units, size_t n,
                        const sq_io_options *o, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    SQ_TRY(check_options(o, err));
    SQ_TRY(check_units(units, n, err));
    squish_status st = SQUISH_OK;
    sq_io *io = sq_alloc_zero(a, sizeof *io);
    uint8_t *stays = sq_alloc_zero(a, n);
    if (!io || !stays) {
        sq_alloc_free(a, io, sizeof *io);
        sq_alloc_free(a, stays, n);
        return sq_fail(err, SQUISH_NO_MEMORY, "weights: out of memory");
    }
    io->alloc = *a;
    io->opt = *o;
    io->n = n;
    io->file.fd = -1;
    io->demand_first = io->demand_last = -1;
    io->generation = 1;
    io->hint_call = SQ_IO_HINTS_KEPT + 1;
    if (!io->opt.chunk_bytes) io->opt.chunk_bytes = CHUNK;
    for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++) io->active[i].unit = -1;
    pthread_mutex_init(&io->lock, NULL); /* cannot fail without attributes, nor can the others */
    pthread_cond_init(&io->work, NULL);
    pthread_cond_init(&io->moved, NULL);
    io->units = sq_alloc_zero(a, n * sizeof *io->units);
    io->sequence = sq_alloc_new(a, SQ_IO_SEQUENCE_MAX * sizeof *io->sequence);
    if (!io->units || !io->sequence) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "weights: out of memory for %zu units", n);
        goto fail;
    }
    SQ_GUARD(open_file(io, path, err));
    SQ_GUARD(sq_io_plan_make(units, n, o->budget_bytes, &io->plan, stays, err));
    SQ_GUARD(share_out(io, units, stays, err));
    SQ_GUARD(start(io, err));
    sq_alloc_free(a, stays, n);
    *out = io;
    return SQUISH_OK;
fail:
    sq_alloc_free(a, stays, n);
    io->driver = NULL;
    sq_io_free(io);
    return st;
}

void sq_io_free(sq_io *io) {
    if (!io) return;
    const squish_alloc a = io->alloc;
    pthread_mutex_lock(&io->lock);
    io->stopping = true;
    pthread_mutex_unlock(&io->lock);
    if (io->driver) io->driver->stop(io);
    sq_os_direct_close(&io->file);
    if (io->memory) sq_os_release(io->memory, io->plan.bytes);
    const size_t slots = (size_t)io->plan.ring_slots + (size_t)io->plan.pool_slots + 1;
    sq_alloc_free(&a, io->slots, slots * sizeof *io->slots);
    sq_alloc_free(&a, io->sequence, SQ_IO_SEQUENCE_MAX * sizeof *io->sequence);
    sq_alloc_free(&a, io->units, io->n * sizeof *io->units);
    sq_alloc_free(&a, io->warm, io->n * sizeof *io->warm);
    pthread_cond_destroy(&io->moved);
    pthread_cond_destroy(&io->work);
    pthread_mutex_destroy(&io->lock);
    sq_alloc_free(&a, io, sizeof *io);
}

/* ---- get and put ----------------------------------------------------------------------------- */

static bool hold(sq_io_entry *u) {
    uint32_t held = atomic_load_explicit(&u->held, memory_order_relaxed);
    while (held & SQ_IO_READY)
        if (atomic_compare_exchange_weak_explicit(&u->held, &held, held + 1, memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* It was asked for, and is held. */
static void note_use(sq_io *io, sq_io_entry *u) {
    const uint64_t now = atomic_fetch_add_explicit(&io->clock, 1, memory_order_relaxed) + 1;
    atomic_store_explicit(&u->last, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&u->used, 1, memory_order_relaxed);
    if (atomic_load_explicit(&u->due, memory_order_relaxed))
        atomic_store_explicit(&u->due, false, memory_order_relaxed);
    if (!atomic_load_explicit(&u->fresh, memory_order_relaxed)) return;
    atomic_store_explicit(&u->fresh, false, memory_order_relaxed);
    if (u->hinted) atomic_fetch_add_explicit(&io->hint_hits, 1, memory_order_relaxed);
    if (u->warmed) atomic_fetch_add_explicit(&io->warm_hits, 1, memory_order_relaxed);
}

const uint8_t *sq_io_try_get(sq_io *io, int32_t unit) {
    sq_io_entry *u = &io->units[unit];
    if (!hold(u)) return NULL;
    note_use(io, u);
    atomic_fetch_add_explicit(&io->hits, 1, memory_order_relaxed);
    return u->p;
}

static void raise_rank(sq_io *io, int32_t unit) {
    for (int32_t i = 0; i < SQ_IO_ACTIVE_MAX; i++)
        if (io->active[i].unit == unit) io->active[i].rank = SQ_IO_DEMAND;
}

/* Under the lock. Whoever waits reads as well: no other thread has to wake up for a small unit. */
static squish_status wait_for(sq_io *io, int32_t unit, squish_error *err) {
    sq_io_entry *u = &io->units[unit];
    const uint32_t failures = u->failures;
    while (!hold(u)) {
        if (u->failures != failures) return sq_fail(err, u->error.code, "%s", u->error.text);
        if (u->reading)
            raise_rank(io, unit);
        else
            sq_io_demand(io, unit);
        sq_io_chunk c;
        if (!sq_io_next_demand(io, &c)) {
            pthread_cond_wait(&io->moved, &io->lock);
            continue;
        }
        pthread_mutex_unlock(&io->lock);
        const int64_t got = sq_io_read_chunk(io, &c);
        pthread_mutex_lock(&io->lock);
        sq_io_done(io, &c, got);
    }
    return SQUISH_OK;
}

squish_status sq_io_get(sq_io *io, int32_t unit, const uint8_t **out, squish_error *err) {
    *out = sq_io_try_get(io, unit);
    if (*out) return SQUISH_OK;
    sq_io_entry *u = &io->units[unit];
    if (u->at.use == SQ_IO_NONE)
        return sq_fail(err, SQUISH_INVALID, "%s: unit %d is not kept here", io->name, unit);
    const uint64_t begin = sq_os_now_ns();
    pthread_mutex_lock(&io->lock);
    const bool on_its_way = u->reading;
    u->waiters++;
    const squish_status st = wait_for(io, unit, err);
    u->waiters--;
    io->stats.stall_ns += sq_os_now_ns() - begin;
    io->stats.late_hits += st == SQUISH_OK && on_its_way;
    io->stats.misses += st == SQUISH_OK && !on_its_way;
    pthread_mutex_unlock(&io->lock);
    if (st != SQUISH_OK) return st;
    note_use(io, u);
    *out = u->p;
    return SQUISH_OK;
}

void sq_io_put(sq_io *io, int32_t unit) {
    const uint32_t before = atomic_fetch_sub(&io->units[unit].held, 1);
    if (before != (SQ_IO_READY | 1) || !atomic_load(&io->starved)) return;
    pthread_mutex_lock(&io->lock);
    atomic_store(&io->starved, false);
    io->driver->kick(io);
    pthread_mutex_unlock(&io->lock);
}

bool sq_io_has(const sq_io *io, int32_t unit) {
    return atomic_load_explicit(&io->units[unit].held, memory_order_acquire) & SQ_IO_READY;
}

/* ---- what will be asked for ------------------------------------------------------------------ */

/* Under the lock: behind what is named. */
static void name_units(sq_io *io, const int32_t *units, int32_t n) {
    bool any = false;
    for (int32_t i = 0; i < n && io->n_sequence < SQ_IO_SEQUENCE_MAX; i++) {
        sq_io_entry *u = &io->units[units[i]];
        if (u->at.use == SQ_IO_NONE || u->sequence == io->generation) continue; /* named before */
        u->sequence = io->generation;
        u->position = io->n_sequence;
        atomic_store_explicit(&u->due, true, memory_order_relaxed);
        any |= !u->reading && !(atomic_load_explicit(&u->held, memory_order_relaxed) & SQ_IO_READY);
        io->sequence[io->n_sequence++] = units[i];
    }
    if (any) io->driver->kick(io);
}

uint32_t sq_io_prefetch_sequence(sq_io *io, const int32_t *units, int32_t n) {
    pthread_mutex_lock(&io->lock);
    io->generation++;
    io->n_sequence = io->sequence_at = 0;
    name_units(io, units, n);
    io->n_near = io->n_sequence;
    const uint32_t generation = io->generation;
    pthread_mutex_unlock(&io->lock);
    return generation;
}

void sq_io_prefetch_behind(sq_io *io, const int32_t *units, int32_t n) {
    pthread_mutex_lock(&io->lock);
    name_units(io, units, n);
    pthread_mutex_unlock(&io->lock);
}

void sq_io_cancel(sq_io *io, uint32_t generation) {
    pthread_mutex_lock(&io->lock);
    if (generation == io->generation) {
        io->n_sequence = io->sequence_at = 0;
        io->generation++;
    }
    pthread_mutex_unlock(&io->lock);
}

static int by_weight(const void *a, const void *b) {
    const float x = ((const float *)a)[0], y = ((const float *)b)[0];
    return (x < y) - (x > y);
}

void sq_io_hint(sq_io *io, const int32_t *units, const float *weights, int32_t n) {
    struct {
        float weight;
        int32_t unit;
    } h[SQ_IO_HINTS_MAX];
    int32_t kept = 0;
    for (int32_t i = 0; i < n && kept < SQ_IO_HINTS_MAX; i++) {
        const float w = weights[i];
        if (io->units[units[i]].at.use != SQ_IO_POOL || !(w > 0)) continue;
        h[kept].weight = w < 1 ? w : 1;
        h[kept++].unit = units[i];
    }
    qsort(h, (size_t)kept, sizeof h[0], by_weight);
    pthread_mutex_lock(&io->lock);
    io->hint_call++;
    io->hints_at = 0;
    io->n_hints = kept;
    bool any = false;
    for (int32_t i = 0; i < kept; i++) {
        sq_io_entry *u = &io->units[h[i].unit];
        u->hint_call = io->hint_call;
        u->hint_weight = h[i].weight;
        io->hints[i] = h[i].unit;
        any |= !u->reading && !(atomic_load_explicit(&u->held, memory_order_relaxed) & SQ_IO_READY);
    }
    if (any) io->driver->kick(io);
    pthread_mutex_unlock(&io->lock);
}

void sq_io_in_rounds(sq_io *io, bool on) {
    pthread_mutex_lock(&io->lock);
    io->rounds = on;
    pthread_mutex_unlock(&io->lock);
}

/* ---- statistics ------------------------------------------------------------------------------ */

void sq_io_get_stats(sq_io *io, sq_io_stats *out) {
    static const char *const names[2][2] = {{"pread, buffered", "pread"}, {"io_uring, buffered", "io_uring"}};
    pthread_mutex_lock(&io->lock);
    *out = io->stats;
    if (io->in_flight > 0) out->busy_ns += sq_os_now_ns() - io->busy_since;
    pthread_mutex_unlock(&io->lock);
    out->backend = names[io->driver != &sq_io_driver_threads][io->file.direct || io->opt.source];
    out->plan = io->plan;
    out->hits = atomic_load_explicit(&io->hits, memory_order_relaxed);
    out->hint_hits = atomic_load_explicit(&io->hint_hits, memory_order_relaxed);
    out->warm_hits = atomic_load_explicit(&io->warm_hits, memory_order_relaxed);
}
