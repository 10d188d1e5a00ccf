/* SPDX-License-Identifier: Apache-2.0
 *
 * test_io_heat.c - counts of gets over several runs: what was asked for most is there at the next start,
 * behind whatever is asked for now; counts fade; every kind of damage is named and costs nothing but the
 * counts; a file is whole, whatever the disk or another process does.
 *
 * This program has its own pwrite, fsync, ftruncate and rename, which the library links against. */
#include "io/io.h"
#include "support/faults.h"
#include "support/io_run.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

enum { UNIT = SQ_DIRECT_ALIGN, UNITS = 12, HEAD = 32, BYTES = HEAD + 4 * UNITS + 8 };
static const uint64_t ours = 0x1122334455667788u;
static char folder[64], path[96];

/* ---- a disk that fails ----------------------------------------------------------------------- */

static int fail_at, fail_with, calls; /* the n-th change; errno, or 0: the process ends there */

static bool refused(void) {
    if (++calls != fail_at) return false;
    if (fail_with == 0) _exit(77);
    errno = fail_with;
    return true;
}
ssize_t pwrite(int fd, const void *p, size_t n, off_t at) {
    return refused() ? -1 : (ssize_t)syscall(SYS_pwrite64, fd, p, n, at);
}
int fsync(int fd) { return refused() ? -1 : (int)syscall(SYS_fsync, fd); }
int ftruncate(int fd, off_t n) { return refused() ? -1 : (int)syscall(SYS_ftruncate, fd, n); }
int rename(const char *a, const char *b) {
    return refused() ? -1 : (int)syscall(SYS_renameat, -100, a, -100, b); /* AT_FDCWD */
}

static int begin(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/squish-heat-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/model.sqw.heat", folder);
    return 0;
}

static int end(void **state) {
    (void)state;
    remove_tree(folder);
    return 0;
}

/* ---- a cache --------------------------------------------------------------------------------- */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool closed; /* reads wait */
    int32_t order[8 * UNITS], n;
    sq_io_source source;
    sq_io *io;
} rig;

static int64_t device_read(void *user, uint64_t off, void *p, size_t n) {
    rig *r = user;
    pthread_mutex_lock(&r->lock);
    if (r->n < (int32_t)SQ_COUNT(r->order)) r->order[r->n++] = (int32_t)(off / UNIT);
    while (r->closed) pthread_cond_wait(&r->moved, &r->lock);
    pthread_mutex_unlock(&r->lock);
    memset(p, (int)(off / UNIT), n);
    return (int64_t)n;
}

static void open_device(rig *r, bool open) {
    pthread_mutex_lock(&r->lock);
    r->closed = !open;
    pthread_cond_broadcast(&r->moved);
    pthread_mutex_unlock(&r->lock);
}

static squish_status rig_try(rig *r, int32_t slots, const squish_alloc *a, squish_error *err) {
    sq_io_unit u[UNITS];
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->moved, NULL);
    r->source = (sq_io_source){device_read, r};
    /* The last one stays: it has no count. */
    for (int32_t i = 0; i < UNITS; i++)
        u[i] = (sq_io_unit){(uint64_t)i * UNIT, UNIT, i + 1 < UNITS ? SQ_IO_POOL : SQ_IO_PIN};
    const sq_io_options o = {.budget_bytes = (uint64_t)(slots + 1) * UNIT, .depth = 1, .source = &r->source};
    return sq_io_new(&r->io, "fake", u, UNITS, &o, a, err);
}

static void rig_open(rig *r, int32_t slots) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    assert_ok(rig_try(r, slots, &a, &err), &err);
}

static void rig_close(rig *r) {
    sq_io_free(r->io);
    pthread_cond_destroy(&r->moved);
    pthread_mutex_destroy(&r->lock);
}

static void use(rig *r, int32_t unit, int32_t times) {
    squish_error err = {0};
    const uint8_t *p;
    for (int32_t i = 0; i < times; i++) {
        assert_ok(sq_io_get(r->io, unit, &p, &err), &err);
        assert_int_equal(p[UNIT - 1], unit);
        sq_io_put(r->io, unit);
    }
}

static void save(rig *r) {
    squish_error err = {0};
    assert_ok(sq_io_heat_save(r->io, path, ours, &err), &err);
}

static void load(rig *r) {
    squish_error err = {0};
    assert_ok(sq_io_heat_load(r->io, path, ours, &err), &err);
}

/* A run of one get each of these units, n times. */
static void a_run(int32_t slots, const int32_t *times) {
    rig r = {0};
    rig_open(&r, slots);
    if (sq_os_exists(path)) load(&r);
    for (int32_t i = 0; i < UNITS; i++) use(&r, i, times[i]);
    save(&r);
    rig_close(&r);
}

static size_t slurp(uint8_t *out, size_t n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    const size_t got = fread(out, 1, n, f);
    fclose(f);
    return got;
}

static void put(const uint8_t *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static uint32_t count_of(int32_t unit) {
    uint8_t file[BYTES + 1];
    sq_io_heat h;
    squish_error err = {0};
    uint32_t v;
    const size_t n = slurp(file, sizeof file);
    assert_ok(sq_io_heat_parse(&h, (sq_span){file, n}, "f", ours, UNITS, &err), &err);
    memcpy(&v, h.used + 4 * unit, sizeof v);
    return v;
}

static const int32_t some[UNITS] = {1, 0, 9, 0, 0, 2, 0, 7, 0, 5, 3, 4};

/* ---- counts ---------------------------------------------------------------------------------- */

static void what_was_counted_is_read_again(void **state) {
    (void)state;
    unlink(path);
    a_run(UNITS - 1, some);
    for (int32_t i = 0; i < UNITS; i++) assert_int_equal(count_of(i), i + 1 < UNITS ? some[i] : 0);
    uint8_t file[BYTES + 1];
    sq_io_heat h;
    assert_int_equal(slurp(file, sizeof file), BYTES);
    assert_int_equal(sq_io_heat_parse(&h, (sq_span){file, BYTES}, "f", ours, UNITS, NULL), SQUISH_OK);
    assert_int_equal(h.gets, 1 + 9 + 2 + 7 + 5 + 3 + 4);
    a_run(UNITS - 1, some);
    assert_int_equal(count_of(2), 18);
}

static void the_hottest_that_fit_are_there_before_anybody_asks(void **state) {
    (void)state;
    rig r = {0};
    unlink(path);
    a_run(UNITS - 1, some);
    rig_open(&r, 3);
    load(&r);
    io_wait_until_there(r.io, 9, 10);
    const int32_t wanted[] = {2, 7, 9};
    assert_memory_equal(r.order, wanted, sizeof wanted);
    usleep(10000);
    sq_io_stats s = io_stats(r.io);
    assert_int_equal(s.warmed, 3);
    assert_int_equal(s.bytes_read, 3 * UNIT);
    assert_int_equal(s.warm_hits + s.hinted, 0);
    use(&r, 7, 2);
    use(&r, 2, 1);
    use(&r, 5, 1);
    s = io_stats(r.io);
    assert_int_equal(s.hits, 3);
    assert_int_equal(s.misses, 1);
    assert_int_equal(s.warm_hits, 2);
    assert_true(sq_io_has(r.io, 2) && sq_io_has(r.io, 7) && !sq_io_has(r.io, 9)); /* the coldest went */
    assert_int_equal(s.wasted_bytes, UNIT);
    rig_close(&r);
}

static void *demand_three(void *arg) {
    use(arg, 3, 1);
    return NULL;
}

static void whatever_is_wanted_now_is_read_first(void **state) {
    (void)state;
    rig r = {0};
    pthread_t t;
    unlink(path);
    a_run(UNITS - 1, some);
    rig_open(&r, UNITS - 1);
    open_device(&r, false);
    load(&r);
    usleep(20000); /* the hottest has begun */
    const int32_t hint[] = {8}, sequence[] = {6};
    const float weight[] = {0.1f};
    sq_io_hint(r.io, hint, weight, 1);
    sq_io_prefetch_sequence(r.io, sequence, 1);
    assert_int_equal(pthread_create(&t, NULL, demand_three, &r), 0);
    usleep(20000);
    open_device(&r, true);
    pthread_join(t, NULL);
    io_wait_until_there(r.io, 0, 10);
    const int32_t wanted[] = {2, 3, 6, 8, 7, 9, 10, 5, 0};
    assert_int_equal(r.n, SQ_COUNT(wanted));
    assert_memory_equal(r.order, wanted, sizeof wanted);
    rig_close(&r);
}

static void nothing_that_was_asked_for_goes_for_it(void **state) {
    (void)state;
    rig r = {0};
    unlink(path);
    a_run(UNITS - 1, some);
    rig_open(&r, 3);
    for (int32_t i = 0; i < 3; i++) use(&r, i + 3, 1); /* no slot is free */
    load(&r);
    usleep(20000);
    for (int32_t i = 0; i < 3; i++) assert_true(sq_io_has(r.io, i + 3));
    assert_int_equal(io_stats(r.io).warmed, 0);
    rig_close(&r);
}

/* Many short runs are one long one: a unit of long ago loses its place, and no count grows for ever. */
static void counts_fade_over_runs(void **state) {
    (void)state;
    unlink(path);
    const int32_t once[UNITS] = {[0] = 200}, later[UNITS] = {[4] = 10, [5] = 10, [6] = 10, [7] = 10};
    a_run(4, once);
    assert_int_equal(count_of(0), 200);
    for (int i = 0; i < 60; i++) a_run(4, later);
    assert_true(count_of(0) < 4);
    assert_true(count_of(4) >= 5 && count_of(4) < 100);
    rig r = {0};
    rig_open(&r, 4);
    load(&r);
    io_wait_until_there(r.io, 7, 10);
    assert_false(sq_io_has(r.io, 0));
    rig_close(&r);
}

static void nobody_asked_nothing_is_written(void **state) {
    (void)state;
    rig r = {0};
    unlink(path);
    rig_open(&r, 4);
    save(&r);
    assert_false(sq_os_exists(path));
    rig_close(&r);
    a_run(4, some);
    rig_open(&r, 4);
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    load(&r);
    io_wait_until_there(r.io, 2, 10);
    save(&r);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
    rig_close(&r);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void seal(uint8_t *p, size_t n) {
    const uint64_t sum = XXH3_64bits(p, n - 8);
    memcpy(p + n - 8, &sum, sizeof sum);
}

static void damage_is(const uint8_t *p, size_t n, squish_status wanted, const char *word) {
    squish_error err = {0};
    rig r = {0};
    put(p, n);
    rig_open(&r, 4);
    assert_int_equal(sq_io_heat_load(r.io, path, ours, &err), wanted);
    assert_non_null(strstr(err.text, word));
    assert_non_null(strstr(err.text, path));
    assert_null(strchr(err.text, '\n'));
    use(&r, 2, 3); /* as if there was none */
    assert_int_equal(io_stats(r.io).misses, 1);
    assert_int_equal(io_stats(r.io).warmed, 0);
    save(&r);
    rig_close(&r);
    assert_int_equal(count_of(2), 3); /* and it is replaced */
}

static void damage_is_named_and_the_file_replaced(void **state) {
    (void)state;
    uint8_t good[BYTES + 4], bad[BYTES + 4];
    unlink(path);
    a_run(UNITS - 1, some);
    assert_int_equal(slurp(good, BYTES), BYTES);
    sq_io_heat h;
    for (size_t n = 0; n < BYTES; n++) /* cut anywhere; any bit of any byte */
        assert_int_equal(sq_io_heat_parse(&h, (sq_span){good, n}, "f", ours, UNITS, NULL), SQUISH_CORRUPT);
    for (size_t i = 0; i < 8 * BYTES; i++) {
        memcpy(bad, good, BYTES);
        bad[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_not_equal(sq_io_heat_parse(&h, (sq_span){bad, BYTES}, "f", ours, UNITS, NULL), SQUISH_OK);
        assert_null(h.used);
    }
    damage_is(good, 0, SQUISH_CORRUPT, "no counts of squish");
    damage_is((const uint8_t *)"garbage garbage garbage garbage garbage garbage", 47, SQUISH_CORRUPT,
              "no counts of squish");
    damage_is(good, BYTES - 5, SQUISH_CORRUPT, "damaged");
    memset(good + BYTES, 0, 4);
    damage_is(good, BYTES + 4, SQUISH_CORRUPT, "damaged");
    memcpy(bad, good, BYTES);
    bad[HEAD + 1] ^= 1;
    damage_is(bad, BYTES, SQUISH_CORRUPT, "damaged");
    memcpy(bad, good, BYTES);
    bad[8] = 2, seal(bad, BYTES);
    damage_is(bad, BYTES, SQUISH_UNSUPPORTED, "version 2, wanted 1");
    memcpy(bad, good, BYTES);
    bad[16] ^= 1, seal(bad, BYTES);
    damage_is(bad, BYTES, SQUISH_INVALID, "of other weights");
    memcpy(bad, good, BYTES);
    bad[12] = UNITS - 1, seal(bad, BYTES - 4);
    damage_is(bad, BYTES - 4, SQUISH_INVALID, "of other weights");
}

/* Numbers that no run has counted, under a sum that is right. */
static void lies_are_cut_to_what_a_run_could_have_counted(void **state) {
    (void)state;
    uint8_t file[BYTES];
    unlink(path);
    a_run(UNITS - 1, some);
    assert_int_equal(slurp(file, BYTES), BYTES);
    memset(file + 24, 0xff, BYTES - 24);
    seal(file, BYTES);
    put(file, BYTES);
    a_run(4, some);
    for (int32_t i = 0; i + 1 < UNITS; i++) assert_true(count_of(i) > 0 && count_of(i) <= 4096 + 9);
    assert_int_equal(count_of(UNITS - 1), 0);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void without_memory_there_are_no_counts_and_nothing_is_left(void **state) {
    (void)state;
    unlink(path);
    a_run(UNITS - 1, some);
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state state_ = {0};
        const squish_alloc a = sq_test_alloc(&state_);
        squish_error err = {0};
        rig r = {0};
        assert_ok(rig_try(&r, 4, &a, &err), &err);
        use(&r, 0, 1);
        state_.fail_at = state_.count + n;
        const squish_status in = sq_io_heat_load(r.io, path, ours, &err);
        const squish_status out = in == SQUISH_OK ? sq_io_heat_save(r.io, path, ours, &err) : in;
        use(&r, 2, 2);
        rig_close(&r);
        assert_int_equal(state_.live_blocks, 0);
        assert_int_equal(state_.wrong_sizes, 0);
        assert_true(count_of(2) >= 9);
        if (out == SQUISH_OK && state_.count < state_.fail_at) break;
        assert_int_equal(out, SQUISH_NO_MEMORY);
    }
}

static void the_file_is_whole_whatever_the_disk_does(void **state) {
    (void)state;
    static const int32_t more[UNITS] = {[2] = 30};
    static const int causes[] = {EIO, ENOSPC, EROFS};
    for (size_t c = 0; c < SQ_COUNT(causes); c++) {
        unlink(path);
        a_run(UNITS - 1, some);
        rig r = {0};
        rig_open(&r, 4);
        load(&r);
        use(&r, 2, more[2]);
        for (int n = 1;; n++) {
            fail_at = n, fail_with = causes[c], calls = 0;
            squish_error err = {0};
            const squish_status st = sq_io_heat_save(r.io, path, ours, &err);
            const bool reached = calls >= n;
            fail_at = 0;
            const uint32_t now = count_of(2);
            assert_true(now == 9 || now == 39);
            if (!reached) {
                assert_ok(st, &err);
                assert_int_equal(now, 39);
                break;
            }
            assert_int_not_equal(st, SQUISH_OK);
        }
        rig_close(&r);
    }
}

static void a_kill_leaves_the_old_file_or_the_new_one(void **state) {
    (void)state;
    bool ended = true;
    for (int n = 1; ended; n++) {
        unlink(path);
        a_run(UNITS - 1, some);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) { /* no threads here but those of its own */
            static const int32_t more[UNITS] = {[2] = 30};
            calls = 0, fail_at = n, fail_with = 0;
            a_run(UNITS - 1, more);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        ended = WEXITSTATUS(status) == 77;
        const uint32_t now = count_of(2);
        assert_true(now == 39 || (ended && now == 9));
        a_run(UNITS - 1, some); /* what the kill left is taken over */
        assert_int_equal(count_of(2), now + 9);
        char partial[120];
        snprintf(partial, sizeof partial, "%s.partial", path);
        assert_false(sq_os_exists(partial));
    }
}

static void two_that_write_at_once_leave_the_file_of_one(void **state) {
    (void)state;
    char partial[120];
    int fd;
    squish_error err = {0};
    rig r = {0};
    unlink(path);
    a_run(UNITS - 1, some);
    snprintf(partial, sizeof partial, "%s.partial", path);
    assert_ok(sq_os_lock(&fd, partial, &err), &err);
    rig_open(&r, 4);
    use(&r, 2, 1);
    assert_int_equal(sq_io_heat_save(r.io, path, ours, &err), SQUISH_BUSY);
    assert_int_equal(count_of(2), 9);
    unlink(partial);
    sq_os_unlock(fd);
    /* A folder in the way. */
    assert_int_equal(mkdir(partial, 0777), 0);
    err = (squish_error){0};
    assert_int_not_equal(sq_io_heat_save(r.io, path, ours, &err), SQUISH_OK);
    assert_int_equal(rmdir(partial), 0);
    assert_int_equal(count_of(2), 9);
    save(&r);
    assert_int_equal(count_of(2), 1);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_counted_is_read_again),
        cmocka_unit_test(the_hottest_that_fit_are_there_before_anybody_asks),
        cmocka_unit_test(whatever_is_wanted_now_is_read_first),
        cmocka_unit_test(nothing_that_was_asked_for_goes_for_it),
        cmocka_unit_test(counts_fade_over_runs),
        cmocka_unit_test(nobody_asked_nothing_is_written),
        cmocka_unit_test(damage_is_named_and_the_file_replaced),
        cmocka_unit_test(lies_are_cut_to_what_a_run_could_have_counted),
        cmocka_unit_test(without_memory_there_are_no_counts_and_nothing_is_left),
        cmocka_unit_test(the_file_is_whole_whatever_the_disk_does),
        cmocka_unit_test(a_kill_leaves_the_old_file_or_the_new_one),
        cmocka_unit_test(two_that_write_at_once_leave_the_file_of_one),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
