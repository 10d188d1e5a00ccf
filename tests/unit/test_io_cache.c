/* SPDX-License-Identifier: Apache-2.0
 *
 * test_io_cache.c - the cache of units: what is there, what is read next, what goes, and what a device that
 * fails does to whoever waits. The file is memory whose bytes tell their offset, read by a device that can be
 * told to fail, to be slow, to end early, or to wait for a word. */
#include "io/io.h"
#include "support/faults.h"
#include "support/io_run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { UNIT = 3 * SQ_DIRECT_ALIGN, PAYLOAD = UNIT - 100, UNITS_MAX = 64 };

/* ---- a device -------------------------------------------------------------------------------- */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool closed;                     /* reads wait */
    int32_t order[4 * UNITS_MAX], n; /* units in the order they were first touched by a read */
    _Atomic int32_t fail_unit, fail_times, fail_how; /* an errno value */
    _Atomic uint64_t end;                            /* of the file */
    _Atomic int32_t slow_us;
} device;

static uint8_t byte_at(uint64_t off) { return (uint8_t)((off * 2654435761u) >> 13); }

static int64_t device_read(void *user, uint64_t off, void *p, size_t n) {
    device *d = user;
    const int32_t unit = (int32_t)(off / UNIT);
    pthread_mutex_lock(&d->lock);
    if (off % UNIT == 0 && d->n < (int32_t)SQ_COUNT(d->order)) d->order[d->n++] = unit;
    while (d->closed) pthread_cond_wait(&d->moved, &d->lock);
    pthread_mutex_unlock(&d->lock);
    if (d->slow_us) usleep((useconds_t)d->slow_us);
    if (unit == d->fail_unit && atomic_fetch_sub(&d->fail_times, 1) > 0) return -d->fail_how;
    if (off >= d->end) return 0;
    if (off + n > d->end) n = (size_t)(d->end - off);
    for (size_t i = 0; i < n; i++) ((uint8_t *)p)[i] = byte_at(off + i);
    return (int64_t)n;
}

static void open_device(device *d, bool open) {
    pthread_mutex_lock(&d->lock);
    d->closed = !open;
    pthread_cond_broadcast(&d->moved);
    pthread_mutex_unlock(&d->lock);
}

typedef struct {
    device d;
    sq_io_source source;
    sq_io_unit units[UNITS_MAX];
    sq_io *io;
} rig;

static void rig_open_with(rig *r, int32_t n, sq_io_use use, uint64_t budget, sq_io_options o) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    pthread_mutex_init(&r->d.lock, NULL);
    pthread_cond_init(&r->d.moved, NULL);
    r->d.fail_unit = -1;
    r->d.end = UINT64_MAX;
    r->source = (sq_io_source){device_read, &r->d};
    for (int32_t i = 0; i < n; i++) r->units[i] = (sq_io_unit){(uint64_t)i * UNIT, PAYLOAD, use};
    o.budget_bytes = budget;
    o.source = &r->source;
    if (!o.chunk_bytes) o.chunk_bytes = SQ_DIRECT_ALIGN;
    assert_ok(sq_io_new(&r->io, "fake", r->units, (size_t)n, &o, &a, &err), &err);
}

static void rig_open(rig *r, int32_t n, sq_io_use use, uint64_t budget) {
    rig_open_with(r, n, use, budget, (sq_io_options){.depth = 2});
}

static void fail_reads(rig *r, int32_t unit, int32_t times) {
    r->d.fail_unit = unit;
    r->d.fail_how = EIO;
    r->d.fail_times = times;
}

static void rig_close(rig *r) {
    sq_io_free(r->io);
    pthread_cond_destroy(&r->d.moved);
    pthread_mutex_destroy(&r->d.lock);
}

static void assert_bytes(const uint8_t *p, int32_t unit) {
    for (uint64_t i = 0; i < PAYLOAD; i++)
        if (p[i] != byte_at((uint64_t)unit * UNIT + i)) fail_msg("unit %d: byte %d is wrong", unit, (int)i);
}

/* Get, look at every byte, put. */
static void use_unit(rig *r, int32_t unit) {
    squish_error err = {0};
    const uint8_t *p;
    assert_ok(sq_io_get(r->io, unit, &p, &err), &err);
    assert_bytes(p, unit);
    sq_io_put(r->io, unit);
}

/* ---- plans ----------------------------------------------------------------------------------- */

static void what_stays_of_a_cycle_is_spread_over_it(void **state) {
    (void)state;
    sq_io_unit u[20];
    uint8_t stays[20];
    sq_io_plan p;
    squish_error err = {0};
    for (int i = 0; i < 20; i++) u[i] = (sq_io_unit){(uint64_t)i << 20, 1 << 20, SQ_IO_CYCLE};
    assert_ok(sq_io_plan_make(u, 20, 13 << 20, &p, stays, &err), &err);
    assert_int_equal(p.ring_slots, 3);
    assert_int_equal(p.n_stay, 10);
    for (int i = 0; i + 1 < 20; i++) assert_int_not_equal(stays[i], stays[i + 1]);
    assert_int_equal(p.streamed_bytes, 10 << 20);
    assert_true(p.bytes <= 13 << 20);
}

static void small_units_of_a_cycle_stay_before_large_ones(void **state) {
    (void)state;
    sq_io_unit u[10];
    uint8_t stays[10];
    sq_io_plan p;
    squish_error err = {0};
    for (int i = 0; i < 10; i++)
        u[i] = (sq_io_unit){(uint64_t)i << 24, i % 2 ? 8 << 20 : 1 << 20, SQ_IO_CYCLE};
    assert_ok(sq_io_plan_make(u, 10, (3 * 8 + 5 + 8) << 20, &p, stays, &err), &err);
    for (int i = 0; i < 10; i += 2) assert_int_equal(stays[i], 1);
    assert_int_equal(p.n_stay, 6);
}

static void a_budget_below_the_least_is_refused_with_the_number(void **state) {
    (void)state;
    const sq_io_unit u[] = {{0, 5 << 20, SQ_IO_PIN},          {8 << 20, 4 << 20, SQ_IO_CYCLE},
                            {16 << 20, 4 << 20, SQ_IO_CYCLE}, {24 << 20, 4 << 20, SQ_IO_CYCLE},
                            {32 << 20, 4 << 20, SQ_IO_CYCLE}, {40 << 20, 1 << 20, SQ_IO_POOL}};
    sq_io_plan p;
    squish_error err = {0};
    const uint64_t least = sq_io_bytes_min(u, 6);
    assert_int_equal(least, (5 + 12 + 1) << 20);
    assert_int_equal(sq_io_plan_make(u, 6, least - 1, &p, NULL, &err), SQUISH_NO_MEMORY);
    assert_non_null(strstr(err.text, "18.9 MB"));
    assert_int_equal(sq_io_plan_make(u, 6, least, &p, NULL, &err), SQUISH_OK);
    assert_int_equal(p.bytes, least);
}

static void whatever_the_budget_a_plan_keeps_to_it(void **state) {
    (void)state;
    uint64_t rng = 5;
    for (int round = 0; round < 2000; round++) {
        sq_io_unit u[24];
        const size_t n = 1 + sq_splitmix64(&rng) % 24;
        uint64_t all = 0;
        for (size_t i = 0; i < n; i++) {
            u[i] = (sq_io_unit){(uint64_t)i << 30, 1 + sq_splitmix64(&rng) % (1 << 20),
                                (sq_io_use)(sq_splitmix64(&rng) % 4)};
            if (u[i].use != SQ_IO_NONE) all += sq_align_up(u[i].bytes, SQ_DIRECT_ALIGN);
        }
        const uint64_t least = sq_io_bytes_min(u, n),
                       budget = least + sq_splitmix64(&rng) % (all - least + 1);
        sq_io_plan p;
        uint8_t stays[24];
        squish_error err = {0};
        assert_ok(sq_io_plan_make(u, n, budget, &p, stays, &err), &err);
        assert_true(p.bytes <= budget);
        assert_true(p.n_stay == p.n_cycle || p.ring_slots > 0);
        assert_true(p.n_stay == p.n_cycle || p.ring_slots == p.n_cycle - p.n_stay ||
                    p.ring_slots >= SQ_IO_SLOTS_MIN);
        for (size_t i = 0; i < n; i++)
            if (u[i].use == SQ_IO_CYCLE && !stays[i]) assert_true(u[i].bytes <= p.ring_slot_bytes);
    }
}

/* ---- get and put ----------------------------------------------------------------------------- */

static void a_unit_is_read_once_and_kept(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 4, SQ_IO_PIN, 4 * UNIT);
    for (int32_t i = 0; i < 8; i++) use_unit(&r, i % 4);
    const sq_io_stats s = io_stats(r.io);
    assert_int_equal(s.misses, 4);
    assert_int_equal(s.hits, 4);
    assert_int_equal(s.bytes_read, 4 * UNIT);
    assert_int_equal(s.held_bytes_max, 4 * PAYLOAD);
    rig_close(&r);
}

static void try_get_reads_nothing(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 2, SQ_IO_POOL, 2 * UNIT);
    assert_null(sq_io_try_get(r.io, 1));
    use_unit(&r, 1);
    const uint8_t *p = sq_io_try_get(r.io, 1);
    assert_non_null(p);
    assert_bytes(p, 1);
    sq_io_put(r.io, 1);
    assert_int_equal(io_stats(r.io).bytes_read, UNIT);
    rig_close(&r);
}

static void a_cycle_through_a_ring_never_passes_the_budget(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 10, SQ_IO_CYCLE, 5 * UNIT);
    for (int32_t pass = 0; pass < 5; pass++)
        for (int32_t i = 0; i < 10; i++) {
            int32_t next[6];
            for (int32_t k = 0; k < 6; k++) next[k] = (i + k) % 10;
            sq_io_prefetch_sequence(r.io, next, 6);
            use_unit(&r, i);
        }
    const sq_io_stats s = io_stats(r.io);
    assert_true(s.plan.n_stay >= 1);
    assert_true(s.held_bytes_max <= s.plan.bytes && s.plan.bytes <= 5 * UNIT);
    assert_int_equal(s.wasted_bytes, 0); /* what is next is never given up for what is after it */
    rig_close(&r);
}

static void whoever_holds_all_slots_lets_others_in_by_put(void **state) {
    (void)state;
    rig r = {0};
    squish_error err = {0};
    const uint8_t *p;
    rig_open(&r, 6, SQ_IO_POOL, 3 * UNIT);
    for (int32_t i = 0; i < 3; i++) assert_ok(sq_io_get(r.io, i, &p, &err), &err);
    const int32_t want[] = {4};
    sq_io_prefetch_sequence(r.io, want, 1);
    usleep(20000);
    assert_false(sq_io_has(r.io, 4)); /* no place */
    sq_io_put(r.io, 1);
    io_wait_until_there(r.io, 4, 2);
    assert_false(sq_io_has(r.io, 1));
    sq_io_put(r.io, 0);
    sq_io_put(r.io, 2);
    rig_close(&r);
}

static void a_get_joins_a_read_on_its_way(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 4, SQ_IO_POOL, 4 * UNIT);
    r.d.slow_us = 20000;
    const int32_t want[] = {2};
    sq_io_prefetch_sequence(r.io, want, 1);
    usleep(5000);
    use_unit(&r, 2);
    const sq_io_stats s = io_stats(r.io);
    assert_int_equal(s.bytes_read, UNIT);
    assert_int_equal(s.late_hits, 1);
    assert_int_equal(s.misses, 0);
    assert_true(s.stall_ns > 1000000);
    rig_close(&r);
}

/* ---- order ----------------------------------------------------------------------------------- */

static void *demand_three(void *arg) {
    use_unit(arg, 3);
    return NULL;
}

static void a_get_goes_before_a_sequence_and_that_before_hints(void **state) {
    (void)state;
    rig r = {0};
    pthread_t t;
    rig_open_with(&r, 12, SQ_IO_POOL, 12 * UNIT, (sq_io_options){.depth = 1});
    open_device(&r.d, false);
    const int32_t hint[] = {8, 9}, sequence[] = {5, 6};
    const float weight[] = {0.1f, 0.9f};
    sq_io_hint(r.io, hint, weight, 2); /* the heavier one begins at once, and waits */
    usleep(10000);
    sq_io_prefetch_sequence(r.io, sequence, 2);
    assert_int_equal(pthread_create(&t, NULL, demand_three, &r), 0);
    usleep(20000);
    open_device(&r.d, true);
    pthread_join(t, NULL);
    for (int32_t i = 0; i < 2; i++) {
        io_wait_until_there(r.io, hint[i], 2);
        io_wait_until_there(r.io, sequence[i], 2);
    }
    const int32_t wanted[] = {9, 3, 5, 6, 8};
    assert_int_equal(r.d.n, 5);
    assert_memory_equal(r.d.order, wanted, sizeof wanted);
    rig_close(&r);
}

static void a_new_sequence_takes_the_place_of_what_had_not_begun(void **state) {
    (void)state;
    rig r = {0};
    rig_open_with(&r, 12, SQ_IO_POOL, 12 * UNIT, (sq_io_options){.depth = 1});
    open_device(&r.d, false);
    const int32_t first[] = {1, 2, 3, 4}, second[] = {1, 7, 7, 8};
    const uint32_t old = sq_io_prefetch_sequence(r.io, first, 4);
    usleep(10000); /* unit 1 has begun */
    const uint32_t now = sq_io_prefetch_sequence(r.io, second, 4);
    assert_true(now != old);
    sq_io_cancel(r.io, old); /* means nothing any more */
    open_device(&r.d, true);
    io_wait_until_there(r.io, 8, 2);
    const int32_t wanted[] = {1, 7, 8};
    assert_int_equal(r.d.n, 3);
    assert_memory_equal(r.d.order, wanted, sizeof wanted);
    rig_close(&r);
}

static void a_cancelled_sequence_is_not_begun(void **state) {
    (void)state;
    rig r = {0};
    rig_open_with(&r, 12, SQ_IO_POOL, 12 * UNIT, (sq_io_options){.depth = 1});
    open_device(&r.d, false);
    const int32_t units[] = {1, 2, 3, 4};
    const uint32_t generation = sq_io_prefetch_sequence(r.io, units, 4);
    usleep(10000);
    sq_io_cancel(r.io, generation);
    open_device(&r.d, true);
    io_wait_until_there(r.io, 1, 2);
    usleep(20000);
    assert_int_equal(r.d.n, 1);
    rig_close(&r);
}

/* ---- what goes ------------------------------------------------------------------------------- */

static void what_is_used_often_outlives_what_was_used_once(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 20, SQ_IO_POOL, 4 * UNIT);
    for (int32_t i = 0; i < 10; i++) use_unit(&r, 0);
    for (int32_t i = 1; i < 20; i++) use_unit(&r, i);
    assert_true(sq_io_has(r.io, 0));
    rig_close(&r);
}

/* Of 12 units in turn, again and again, 6 fit. */
static void rounds_through_a_pool_find_there_what_fits(void **state) {
    (void)state;
    for (int rounds = 0; rounds < 2; rounds++) {
        rig r = {0};
        rig_open(&r, 12, SQ_IO_POOL, 6 * (uint64_t)UNIT);
        sq_io_in_rounds(r.io, rounds);
        for (int pass = 0; pass < 4; pass++)
            for (int32_t i = 0; i < 12; i++) use_unit(&r, i);
        const uint64_t hits = io_stats(r.io).hits;
        assert_true(rounds ? hits >= 3 * 5 : hits == 0); /* one slot at least is passed through */
        sq_io_in_rounds(r.io, false);
        for (int i = 0; i < 3; i++) use_unit(&r, 11), use_unit(&r, 0); /* in any order again */
        assert_true(sq_io_has(r.io, 11) && sq_io_has(r.io, 0));
        rig_close(&r);
    }
}

static void what_was_predicted_outlives_what_was_not(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 20, SQ_IO_POOL, 4 * UNIT);
    for (int32_t i = 0; i < 4; i++) use_unit(&r, i);
    const int32_t hint[] = {0};
    const float weight[] = {0.9f};
    sq_io_hint(r.io, hint, weight, 1);
    for (int32_t i = 4; i < 9; i++) use_unit(&r, i);
    assert_true(sq_io_has(r.io, 0));
    for (int i = 0; i < SQ_IO_HINTS_KEPT; i++) sq_io_hint(r.io, hint, weight, 0); /* nobody says so now */
    for (int32_t i = 9; i < 16; i++) use_unit(&r, i);
    assert_false(sq_io_has(r.io, 0));
    rig_close(&r);
}

/* So many reads of a closed device are asked for, and no more. */
static void assert_asked_for(rig *r, int32_t n) {
    int32_t now = 0;
    for (int ms = 0; ms < 10000 && now < n; ms += 5) {
        usleep(5000);
        pthread_mutex_lock(&r->d.lock);
        now = r->d.n;
        pthread_mutex_unlock(&r->d.lock);
    }
    usleep(50000);
    pthread_mutex_lock(&r->d.lock);
    assert_int_equal(r->d.n, n);
    pthread_mutex_unlock(&r->d.lock);
}

static void hints_leave_the_device_to_who_waits(void **state) {
    (void)state;
    rig r = {0};
    rig_open_with(&r, 20, SQ_IO_POOL, 12 * (uint64_t)UNIT, (sq_io_options){.depth = 8, .chunk_bytes = UNIT});
    const int32_t hint[] = {8, 9, 10, 11, 12};
    const float weight[] = {1, 0.9f, 0.8f, 0.7f, 0.6f};
    open_device(&r.d, false);
    sq_io_hint(r.io, hint, weight, 5);
    assert_asked_for(&r, 2); /* of depth 8 */
    const int32_t sequence[] = {3, 4, 5};
    sq_io_prefetch_sequence(r.io, sequence, 3);
    assert_asked_for(&r, 5); /* what is due does not wait for them */
    open_device(&r.d, true);
    for (int32_t i = 0; i < 5; i++) io_wait_until_there(r.io, hint[i], 2);
    rig_close(&r);
}

static void hints_do_not_push_out_what_is_due(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 20, SQ_IO_POOL, 3 * UNIT);
    const int32_t due[] = {1, 2, 3}, hint[] = {10, 11, 12};
    const float weight[] = {1, 1, 1};
    sq_io_prefetch_sequence(r.io, due, 3);
    for (int32_t i = 0; i < 3; i++) io_wait_until_there(r.io, due[i], 2);
    sq_io_hint(r.io, hint, weight, 3);
    usleep(20000);
    for (int32_t i = 0; i < 3; i++) assert_true(sq_io_has(r.io, due[i]));
    rig_close(&r);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void one_failure_is_repaired_without_a_word(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 4, SQ_IO_POOL, 4 * UNIT);
    fail_reads(&r, 2, 1);
    use_unit(&r, 2);
    assert_int_equal(io_stats(r.io).retries, 1);
    assert_int_equal(io_stats(r.io).failures, 0);
    rig_close(&r);
}

static void two_failures_are_the_error_of_that_unit_alone(void **state) {
    (void)state;
    rig r = {0};
    squish_error err = {0};
    const uint8_t *p;
    rig_open_with(&r, 4, SQ_IO_POOL, 3 * UNIT, (sq_io_options){.depth = 1});
    fail_reads(&r, 2, 2);
    use_unit(&r, 1);
    assert_int_equal(sq_io_get(r.io, 2, &p, &err), SQUISH_IO);
    assert_non_null(strstr(err.text, "failed twice"));
    assert_null(strchr(err.text, '\n'));
    use_unit(&r, 1);
    use_unit(&r, 3);
    use_unit(&r, 2); /* the device is well again */
    assert_int_equal(io_stats(r.io).failures, 1);
    rig_close(&r);
}

static void a_file_that_ends_early_is_damage(void **state) {
    (void)state;
    rig r = {0};
    squish_error err = {0};
    const uint8_t *p;
    rig_open(&r, 4, SQ_IO_CYCLE, 4 * UNIT);
    use_unit(&r, 3);
    r.d.end = 2 * UNIT + 700;
    use_unit(&r, 1);
    assert_int_equal(sq_io_get(r.io, 2, &p, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "ends at byte"));
    r.d.end = 2 * UNIT + PAYLOAD; /* padding behind the last unit is not missed */
    use_unit(&r, 2);
    rig_close(&r);
}

static void a_failed_prefetch_is_told_to_nobody_and_tried_again(void **state) {
    (void)state;
    rig r = {0};
    rig_open(&r, 4, SQ_IO_POOL, 4 * UNIT);
    fail_reads(&r, 2, 2);
    const int32_t want[] = {2, 3};
    sq_io_prefetch_sequence(r.io, want, 2);
    io_wait_until_there(r.io, 3, 2);
    for (int i = 0; io_stats(r.io).failures == 0 && i < 20000; i++) usleep(100);
    use_unit(&r, 2);
    rig_close(&r);
}

static bool refuse_two(void *user, int32_t unit, const uint8_t *p, char *what, size_t n) {
    (void)p;
    if (unit != 2 || (*(_Atomic int32_t *)user)-- <= 0) return true;
    snprintf(what, n, "tensor 'x': checksum is 1, wanted 2");
    return false;
}

static void bytes_that_are_not_the_containers_are_refused(void **state) {
    (void)state;
    rig r = {0};
    squish_error err = {0};
    const uint8_t *p;
    _Atomic int32_t times = 2;
    rig_open_with(&r, 4, SQ_IO_POOL, 4 * UNIT, (sq_io_options){.check = refuse_two, .check_user = &times});
    use_unit(&r, 1);
    assert_int_equal(sq_io_get(r.io, 2, &p, &err), SQUISH_CORRUPT);
    assert_string_equal(err.text, "fake: tensor 'x': checksum is 1, wanted 2");
    use_unit(&r, 2);
    rig_close(&r);
}

/* ---- real files ------------------------------------------------------------------------------ */

static const char *write_file(char path[64], int32_t n) {
    memcpy(path, "/tmp/squish-io-XXXXXX", sizeof "/tmp/squish-io-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    static uint8_t block[UNIT];
    for (int32_t u = 0; u < n; u++) {
        for (uint64_t i = 0; i < UNIT; i++) block[i] = byte_at((uint64_t)u * UNIT + i);
        assert_int_equal(write(fd, block, u + 1 < n ? UNIT : PAYLOAD), u + 1 < n ? UNIT : PAYLOAD);
    }
    close(fd);
    return path;
}

static void read_file(sq_io_options o, const char *starts) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    rig r = {0};
    char path[64];
    for (int32_t i = 0; i < 12; i++) r.units[i] = (sq_io_unit){(uint64_t)i * UNIT, PAYLOAD, SQ_IO_CYCLE};
    o.budget_bytes = 6 * UNIT;
    assert_ok(sq_io_new(&r.io, write_file(path, 12), r.units, 12, &o, &a, &err), &err);
    for (int32_t i = 0; i < 36; i++) {
        int32_t next[4];
        for (int32_t k = 0; k < 4; k++) next[k] = (i + k) % 12;
        sq_io_prefetch_sequence(r.io, next, 4);
        use_unit(&r, i % 12);
    }
    sq_io_stats s = io_stats(r.io);
    assert_memory_equal(s.backend, starts, strlen(starts));
    assert_true(s.bytes_read >= 12 * UNIT - 100);
    /* Cut, and written to. */
    const uint8_t *p;
    assert_int_equal(truncate(path, 2 * UNIT + 5), 0);
    squish_status st = SQUISH_OK;
    for (int32_t i = 0; i < 12 && st == SQUISH_OK; i++)
        if ((st = sq_io_get(r.io, i, &p, &err)) == SQUISH_OK) assert_bytes(p, i), sq_io_put(r.io, i);
    assert_int_equal(st, SQUISH_CORRUPT);
    sq_io_free(r.io);
    unlink(path);
}

static void a_real_file_is_read_with_pread(void **state) {
    (void)state;
    read_file((sq_io_options){.backend = SQ_IO_THREADS}, "pread");
    read_file((sq_io_options){.backend = SQ_IO_THREADS, .buffered = true}, "pread, buffered");
}

static void a_real_file_is_read_with_io_uring(void **state) {
    (void)state;
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    char path[64];
    sq_io *io;
    const sq_io_unit u = {0, PAYLOAD, SQ_IO_PIN};
    const sq_io_options o = {.backend = SQ_IO_URING, .budget_bytes = UNIT};
    const squish_status st = sq_io_new(&io, write_file(path, 1), &u, 1, &o, &a, &err);
    unlink(path);
    if (st != SQUISH_OK) {
        assert_null(io);
        skip();
    }
    sq_io_free(io);
    read_file((sq_io_options){.backend = SQ_IO_URING}, "io_uring");
    read_file((sq_io_options){.backend = SQ_IO_URING, .buffered = true, .depth = 2}, "io_uring, buffered");
}

static void another_file_under_the_name_is_refused(void **state) {
    (void)state;
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    char path[64];
    sq_io *io;
    const sq_io_unit u = {0, PAYLOAD, SQ_IO_PIN};
    const sq_io_options o = {.budget_bytes = UNIT, .inode = 1, .mtime_ns = 1};
    assert_int_equal(sq_io_new(&io, write_file(path, 1), &u, 1, &o, &a, &err), SQUISH_CORRUPT);
    assert_null(io);
    unlink(path);
    assert_int_equal(sq_io_new(&io, path, &u, 1, &o, &a, &(squish_error){0}), SQUISH_NOT_FOUND);
}

static void without_memory_there_is_no_cache_and_nothing_is_left(void **state) {
    (void)state;
    char path[64];
    const sq_io_unit u[] = {{0, PAYLOAD, SQ_IO_PIN}, {UNIT, PAYLOAD, SQ_IO_POOL}};
    write_file(path, 2);
    for (int uring = 0; uring < 2; uring++) {
        squish_status st = SQUISH_NO_MEMORY;
        for (int64_t n = 1; st != SQUISH_OK && n < 100; n++) {
            struct sq_test_alloc_state s = {.fail_at = n};
            const squish_alloc a = sq_test_alloc(&s);
            const sq_io_options o = {.backend = uring ? SQ_IO_AUTO : SQ_IO_THREADS, .budget_bytes = 2 * UNIT};
            squish_error err = {0};
            sq_io *io;
            st = sq_io_new(&io, path, u, 2, &o, &a, &err);
            assert_true(st == SQUISH_OK || (st == SQUISH_NO_MEMORY && !io && err.code == st));
            sq_io_free(io);
            assert_int_equal(s.live_blocks, 0);
            assert_int_equal(s.wrong_sizes, 0);
        }
        assert_int_equal(st, SQUISH_OK);
    }
    unlink(path);
}

/* ---- many threads ---------------------------------------------------------------------------- */

typedef struct {
    rig *r;
    uint64_t rng;
} worker;

static void *work(void *arg) {
    worker *w = arg;
    for (int i = 0; i < 400; i++) {
        const int32_t unit = (int32_t)(sq_splitmix64(&w->rng) % 24);
        int32_t some[3] = {(unit + 1) % 24, (unit + 2) % 24, (unit + 5) % 24};
        const float weight[3] = {0.5f, 0.2f, 0.1f};
        switch (sq_splitmix64(&w->rng) % 4) {
        case 0: sq_io_prefetch_sequence(w->r->io, some, 3); break;
        case 1: sq_io_hint(w->r->io, some, weight, 3); break;
        default: use_unit(w->r, unit);
        }
    }
    return NULL;
}

static void many_threads_get_what_they_ask_for(void **state) {
    (void)state;
    rig r = {0};
    pthread_t t[4];
    worker w[4];
    rig_open(&r, 24, SQ_IO_POOL, 6 * UNIT);
    for (int i = 0; i < 4; i++) {
        w[i] = (worker){&r, (uint64_t)i + 1};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    const sq_io_stats s = io_stats(r.io);
    assert_true(s.held_bytes_max <= 6 * UNIT);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stays_of_a_cycle_is_spread_over_it),
        cmocka_unit_test(small_units_of_a_cycle_stay_before_large_ones),
        cmocka_unit_test(a_budget_below_the_least_is_refused_with_the_number),
        cmocka_unit_test(whatever_the_budget_a_plan_keeps_to_it),
        cmocka_unit_test(a_unit_is_read_once_and_kept),
        cmocka_unit_test(try_get_reads_nothing),
        cmocka_unit_test(a_cycle_through_a_ring_never_passes_the_budget),
        cmocka_unit_test(whoever_holds_all_slots_lets_others_in_by_put),
        cmocka_unit_test(a_get_joins_a_read_on_its_way),
        cmocka_unit_test(a_get_goes_before_a_sequence_and_that_before_hints),
        cmocka_unit_test(a_new_sequence_takes_the_place_of_what_had_not_begun),
        cmocka_unit_test(a_cancelled_sequence_is_not_begun),
        cmocka_unit_test(what_is_used_often_outlives_what_was_used_once),
        cmocka_unit_test(rounds_through_a_pool_find_there_what_fits),
        cmocka_unit_test(what_was_predicted_outlives_what_was_not),
        cmocka_unit_test(hints_leave_the_device_to_who_waits),
        cmocka_unit_test(hints_do_not_push_out_what_is_due),
        cmocka_unit_test(one_failure_is_repaired_without_a_word),
        cmocka_unit_test(two_failures_are_the_error_of_that_unit_alone),
        cmocka_unit_test(a_file_that_ends_early_is_damage),
        cmocka_unit_test(a_failed_prefetch_is_told_to_nobody_and_tried_again),
        cmocka_unit_test(bytes_that_are_not_the_containers_are_refused),
        cmocka_unit_test(a_real_file_is_read_with_pread),
        cmocka_unit_test(a_real_file_is_read_with_io_uring),
        cmocka_unit_test(another_file_under_the_name_is_refused),
        cmocka_unit_test(without_memory_there_is_no_cache_and_nothing_is_left),
        cmocka_unit_test(many_threads_get_what_they_ask_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
