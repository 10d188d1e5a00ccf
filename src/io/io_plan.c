/* SPDX-License-Identifier: Apache-2.0
 *
 * io_plan.c - how a budget is shared out between what stays and what passes through.
 *
 * Cyclic units come in kinds of very different sizes (attention, feed-forward). The small ones stay first:
 * they leave the ring with few, large reads. Which of the others stay is spread over the cycle by carrying
 * the rest, as a line is drawn on a grid (Bresenham, 1965). */
#include "io/io_int.h"

enum { RING_MAX = 8 }; /* slots: more of them hide no more, and take from what stays */

static uint64_t whole(uint64_t n) { return sq_align_up((size_t)n, SQ_DIRECT_ALIGN); }

typedef struct {
    uint64_t pinned, cycle, cycle_small, largest_cycle, largest_pool, pool;
    int32_t n_cycle, n_pool;
} sums;

/* Half of the largest or less: small. */
static bool is_small(uint64_t bytes, uint64_t largest) { return bytes * 2 <= largest; }

static sums sum_up(const sq_io_unit *u, size_t n) {
    sums s = {0};
    for (size_t i = 0; i < n; i++) {
        const uint64_t b = whole(u[i].bytes);
        if (u[i].use == SQ_IO_PIN) s.pinned += b;
        if (u[i].use == SQ_IO_CYCLE) s.cycle += b, s.n_cycle++;
        if (u[i].use == SQ_IO_CYCLE && b > s.largest_cycle) s.largest_cycle = b;
        if (u[i].use == SQ_IO_POOL) s.pool += b, s.n_pool++;
        if (u[i].use == SQ_IO_POOL && b > s.largest_pool) s.largest_pool = b;
    }
    for (size_t i = 0; i < n; i++)
        if (u[i].use == SQ_IO_CYCLE && is_small(whole(u[i].bytes), s.largest_cycle))
            s.cycle_small += whole(u[i].bytes);
    return s;
}

static uint64_t least(uint64_t all, uint64_t largest) {
    const uint64_t some = SQ_IO_SLOTS_MIN * largest;
    return all < some ? all : some;
}

uint64_t sq_io_bytes_min(const sq_io_unit *units, size_t n) {
    const sums s = sum_up(units, n);
    return s.pinned + least(s.cycle, s.largest_cycle) + least(s.pool, s.largest_pool);
}

/* Cyclic units that stay in `room` bytes beside a ring. */
static void choose(const sq_io_unit *u, size_t n, const sums *s, uint64_t room, sq_io_plan *p,
                   uint8_t *stays) {
    const bool all = s->cycle <= room, small = !all && s->cycle_small <= room;
    const uint64_t rest = s->cycle - (small ? s->cycle_small : 0);
    const double share = all ? 1.0 : (double)(room - (small ? s->cycle_small : 0)) / (double)rest;
    double carried = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t b = whole(u[i].bytes);
        if (stays) stays[i] = 0;
        if (u[i].use != SQ_IO_CYCLE) continue;
        bool stay = all || (small && is_small(b, s->largest_cycle));
        if (!stay) {
            carried += (double)b * share;
            stay = carried >= (double)b;
            if (stay) carried -= (double)b;
        }
        if (stay)
            p->pinned_bytes += b, p->n_stay++;
        else
            p->streamed_bytes += b;
        if (!stay && b > p->ring_slot_bytes) p->ring_slot_bytes = b;
        if (stays) stays[i] = stay;
    }
}

squish_status sq_io_plan_make(const sq_io_unit *units, size_t n, uint64_t budget, sq_io_plan *out,
                              uint8_t *stays, squish_error *err) {
    const sums s = sum_up(units, n);
    const uint64_t need = s.pinned + least(s.cycle, s.largest_cycle) + least(s.pool, s.largest_pool);
    sq_io_plan p = {.pinned_bytes = s.pinned, .n_cycle = s.n_cycle};
    if (need > budget)
        return sq_fail(err, SQUISH_NO_MEMORY,
                       "%.1f MB for weights, reading them in units takes %.1f MB at least",
                       (double)budget / 1e6, (double)need / 1e6);
    const uint64_t pool_least = least(s.pool, s.largest_pool), room = budget - s.pinned - pool_least;
    const uint64_t ring = s.cycle <= room ? 0 : SQ_IO_SLOTS_MIN * s.largest_cycle;
    choose(units, n, &s, room - ring, &p, stays);
    uint64_t left = budget - p.pinned_bytes;
    if (p.ring_slot_bytes) {
        const uint64_t fit = (left - pool_least) / p.ring_slot_bytes;
        const int32_t streamed = p.n_cycle - p.n_stay;
        p.ring_slots = fit < RING_MAX ? (int32_t)fit : RING_MAX;
        if (p.ring_slots > streamed) p.ring_slots = streamed;
        left -= (uint64_t)p.ring_slots * p.ring_slot_bytes;
    }
    if (s.n_pool) {
        const uint64_t fit = left / s.largest_pool;
        p.pool_slot_bytes = s.largest_pool;
        p.pool_slots = fit < (uint64_t)s.n_pool ? (int32_t)fit : s.n_pool;
    }
    p.bytes = p.pinned_bytes + (uint64_t)p.ring_slots * p.ring_slot_bytes +
              (uint64_t)p.pool_slots * p.pool_slot_bytes;
    *out = p;
    return SQUISH_OK;
}
