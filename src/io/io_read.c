/* SPDX-License-Identifier: Apache-2.0
 *
 * io_read.c - what comes of reads: a unit is whole, is read once more, or has failed. */
#include "io/io_int.h"

#include <stdio.h>
#include <string.h>

/* One line into the unit's error. damage: what a check found, or NULL. */
static void note_failure(sq_io *io, const sq_io_active *a, bool changed, const char *damage) {
    sq_io_entry *u = &io->units[a->unit];
    const unsigned long long from = (unsigned long long)u->at.offset, to = from + u->at.bytes,
                             at = (unsigned long long)a->fault_at;
    u->error = (squish_error){0};
    if (changed)
        sq_fail(&u->error, SQUISH_CORRUPT,
                "%s: somebody wrote to it while it was in use: load the model again", io->name);
    else if (damage)
        sq_fail(&u->error, SQUISH_CORRUPT, "%s: %s", io->name, damage);
    else if (a->fault > 0)
        sq_fail(&u->error, SQUISH_CORRUPT, "%s: bytes %llu to %llu are wanted, the file ends at byte %llu",
                io->name, from, to, at);
    else
        sq_fail_errno(&u->error, (int)-a->fault, "%s: reading weights failed twice at byte %llu", io->name,
                      at);
    u->failures++;
    io->stats.failures++;
}

/* All bytes have come, or a read failed. */
static void settle(sq_io *io, sq_io_active *a) {
    sq_io_entry *u = &io->units[a->unit];
    char damage[160] = "";
    bool changed = false, sound = a->fault == 0;
    if (sound) {
        const bool look = !u->checked && io->opt.check;
        pthread_mutex_unlock(&io->lock);
        changed = io->file.fd >= 0 && !sq_os_direct_is_same(&io->file);
        if (look && !changed) sound = io->opt.check(io->opt.check_user, a->unit, u->p, damage, sizeof damage);
        pthread_mutex_lock(&io->lock);
        u->checked = sound && !changed;
    }
    if (sound && !changed) {
        sq_io_retire(io, a, true);
        return;
    }
    if (a->attempt == 0 && !changed && !io->stopping) {
        a->attempt = 1;
        a->at = 0;
        a->fault = 0;
        io->stats.retries++;
        io->driver->kick(io);
        return;
    }
    note_failure(io, a, changed, sound || a->fault != 0 ? NULL : damage);
    sq_io_retire(io, a, false);
}

void sq_io_done(sq_io *io, const sq_io_chunk *c, int64_t got) {
    sq_io_active *a = c->of;
    a->pending--;
    if (--io->in_flight == 0) io->stats.busy_ns += sq_os_now_ns() - io->busy_since;
    if (got > 0) io->stats.bytes_read += (uint64_t)got;
    if (got < (int64_t)c->needed && a->fault == 0) {
        a->fault = got < 0 ? got : 1;
        a->fault_at = c->offset + (got > 0 ? (uint64_t)got : 0);
        a->at = a->bytes; /* nothing more of it */
    }
    if (a->pending == 0 && a->at >= a->bytes) settle(io, a);
}

int64_t sq_io_read_chunk(sq_io *io, const sq_io_chunk *c) {
    uint32_t got = 0;
    while (got < c->needed) {
        const int64_t n = io->source.read(io->source.user, c->offset + got, c->p + got, c->n - got);
        if (n < 0) return n;
        if (n == 0) break;
        got += (uint32_t)n;
        if (got % SQ_DIRECT_ALIGN) break; /* only the end of a file does that */
    }
    return got;
}
