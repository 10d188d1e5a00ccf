/* SPDX-License-Identifier: Apache-2.0
 *
 * io_heat.c - counts of gets as a file, so that a start finds in memory what runs before it asked for most.
 *
 * The file is a guess about the future and nothing else hangs on it: one that cannot be used is not, and the
 * next run replaces it. It may come from anywhere, so every byte is under the sum and what is read is cut to
 * what a run could have counted. Writers take turns by the lock of sq_os_write_file; of two at once one goes
 * without. */
#include "io/io_int.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    VERSION = 1,
    MORE = 1 << 20,    /* bytes of a file of other weights than these, which is told apart from damage */
    USED_MAX = 1 << 12 /* no count weighs more: what was hot for weeks is forgotten in twelve halvings */
};
static const char magic[8] = {'S', 'Q', 'I', 'O', 'H', 'E', 'A', 'T'};

typedef struct {
    char magic[8];
    uint32_t version, n;
    uint64_t container, gets;
} head; /* behind it n counts, and the sum of all bytes before it */
_Static_assert(sizeof(head) == 32, "a header of 32 bytes");

static size_t file_bytes(size_t n) { return sizeof(head) + n * sizeof(uint32_t) + sizeof(uint64_t); }

/* ---- reading --------------------------------------------------------------------------------- */

squish_status sq_io_heat_parse(sq_io_heat *out, sq_span file, const char *name, uint64_t container, size_t n,
                               squish_error *err) {
    head h;
    uint64_t sum;
    *out = (sq_io_heat){0};
    if (file.n < file_bytes(0) || memcmp(file.p, magic, sizeof magic) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: no counts of squish", name);
    memcpy(&h, file.p, sizeof h);
    if (h.version != VERSION)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: counts of version %u, wanted %d", name, h.version,
                       VERSION);
    memcpy(&sum, file.p + file.n - sizeof sum, sizeof sum);
    if (file.n != file_bytes(h.n) || sum != XXH3_64bits(file.p, file.n - sizeof sum))
        return sq_fail(err, SQUISH_CORRUPT, "%s: damaged (its sum is another)", name);
    if (h.container != container || h.n != n)
        return sq_fail(err, SQUISH_INVALID, "%s: of other weights than these", name);
    *out = (sq_io_heat){h.gets, file.p + sizeof h};
    return SQUISH_OK;
}

static int hottest_first(const void *a, const void *b) {
    const sq_io_warm *x = a, *y = b;
    if (x->used != y->used) return x->used < y->used ? 1 : -1;
    return (x->unit > y->unit) - (x->unit < y->unit);
}

/* Under the lock. What was counted before this run is worth as much as if it had been used just now: it is
 * not to go for the first experts of a prompt before its own turn comes. */
static void take_counts(sq_io *io, const sq_io_heat *h) {
    const uint64_t fades = sq_io_fade_gets(io);
    const uint64_t now = h->gets < fades ? h->gets : fades;
    int32_t n = 0;
    atomic_fetch_add_explicit(&io->clock, now, memory_order_relaxed);
    for (size_t i = 0; i < io->n; i++) {
        uint32_t used;
        memcpy(&used, h->used + i * sizeof used, sizeof used);
        if (io->units[i].at.use != SQ_IO_POOL || used == 0) continue;
        if (used > USED_MAX) used = USED_MAX;
        atomic_fetch_add_explicit(&io->units[i].used, used, memory_order_relaxed);
        atomic_store_explicit(&io->units[i].last, now, memory_order_relaxed);
        io->warm[n++] = (sq_io_warm){used, (int32_t)i};
    }
    qsort(io->warm, (size_t)n, sizeof *io->warm, hottest_first);
    io->n_warm = n < io->pool.n ? n : io->pool.n;
    if (io->n_warm > 0) io->driver->kick(io);
}

squish_status sq_io_heat_load(sq_io *io, const char *path, uint64_t container, squish_error *err) {
    sq_arena ar;
    sq_span file;
    sq_io_heat h;
    sq_arena_init(&ar, &io->alloc, file_bytes(io->n) + 64, 0);
    squish_status st = sq_os_read_file(path, file_bytes(io->n) + MORE, &ar, &file, err);
    if (st == SQUISH_OK) st = sq_io_heat_parse(&h, file, path, container, io->n, err);
    if (st == SQUISH_OK && !io->warm) io->warm = sq_alloc_new(&io->alloc, io->n * sizeof *io->warm);
    if (st == SQUISH_OK && !io->warm)
        st = sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory for %zu counts", path, io->n);
    if (st == SQUISH_OK) {
        pthread_mutex_lock(&io->lock);
        take_counts(io, &h);
        pthread_mutex_unlock(&io->lock);
    }
    sq_arena_deinit(&ar);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------- */

squish_status sq_io_heat_save(sq_io *io, const char *path, uint64_t container, squish_error *err) {
    sq_io_stats s;
    sq_io_get_stats(io, &s);
    if (io->pool.n == 0 || s.hits + s.late_hits + s.misses == 0) return SQUISH_OK;
    const size_t bytes = file_bytes(io->n);
    uint8_t *file = sq_alloc_zero(&io->alloc, bytes);
    if (!file) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory for %zu counts", path, io->n);
    pthread_mutex_lock(&io->lock);
    head h = {.version = VERSION, .n = (uint32_t)io->n, .container = container};
    memcpy(h.magic, magic, sizeof magic);
    h.gets = atomic_load_explicit(&io->clock, memory_order_relaxed) - io->faded_at;
    memcpy(file, &h, sizeof h);
    for (size_t i = 0; i < io->n; i++) {
        const uint32_t used = atomic_load_explicit(&io->units[i].used, memory_order_relaxed);
        if (io->units[i].at.use == SQ_IO_POOL) memcpy(file + sizeof h + i * sizeof used, &used, sizeof used);
    }
    pthread_mutex_unlock(&io->lock);
    const uint64_t sum = XXH3_64bits(file, bytes - sizeof sum);
    memcpy(file + bytes - sizeof sum, &sum, sizeof sum);
    const squish_status st = sq_os_write_file(path, file, bytes, err);
    sq_alloc_free(&io->alloc, file, bytes);
    return st;
}
