/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_pool.c - the thread pool: every item once, results visible, quick runs, sleeping workers, faults.
 *
 * Counters are plain integers on purpose: ThreadSanitizer then checks the pool's promises about ordering. */
#include "base/base.h"
#include "support/faults.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ITEMS_MAX = 4096, THREADS_MAX = 16 };

typedef struct {
    int32_t n_items, n_threads;
    int32_t hits[ITEMS_MAX];
    struct {
        int64_t items; /* written by one thread of a run only */
        char pad[56];
    } scratch[THREADS_MAX];
    bool bad_index;
} tally;

static void count_item(void *ctx, int32_t item, int32_t thread) {
    tally *t = ctx;
    if (item < 0 || item >= t->n_items || thread < 0 || thread >= t->n_threads) {
        t->bad_index = true;
        return;
    }
    t->hits[item]++;
    t->scratch[thread].items++;
}

static void every_item_is_done_exactly_once(void **state) {
    (void)state;
    static const int32_t threads[] = {1, 2, 3, 4, 7, 16};
    static const int32_t sizes[] = {-1, 0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 255, 1023, 4096};
    for (size_t i = 0; i < SQ_COUNT(threads); i++) {
        sq_pool *p;
        assert_int_equal(sq_pool_new(&p, NULL, threads[i], NULL), SQUISH_OK);
        assert_int_equal(sq_pool_threads(p), threads[i]);
        for (size_t j = 0; j < SQ_COUNT(sizes); j++) {
            tally *t = calloc(1, sizeof *t);
            t->n_items = sizes[j];
            t->n_threads = threads[i];
            sq_pool_run(p, count_item, t, sizes[j]);
            assert_false(t->bad_index);
            int64_t total = 0;
            for (int32_t k = 0; k < threads[i]; k++) total += t->scratch[k].items;
            assert_int_equal(total, sizes[j] > 0 ? sizes[j] : 0);
            for (int32_t k = 0; k < sizes[j]; k++) assert_int_equal(t->hits[k], 1);
            free(t);
        }
        sq_pool_free(p);
    }
}

typedef struct {
    pthread_t caller;
    int32_t next;
    bool other_thread, out_of_order;
} order;

static void note_order(void *ctx, int32_t item, int32_t thread) {
    order *o = ctx;
    o->other_thread |= thread != 0 || !pthread_equal(pthread_self(), o->caller);
    o->out_of_order |= item != o->next++;
}

static void one_thread_runs_inline_and_in_order(void **state) {
    (void)state;
    sq_pool *p;
    assert_int_equal(sq_pool_new(&p, NULL, 1, NULL), SQUISH_OK);
    order o = {.caller = pthread_self()};
    sq_pool_run(p, note_order, &o, 100);
    assert_int_equal(o.next, 100);
    assert_false(o.other_thread);
    assert_false(o.out_of_order);
    sq_pool_free(p);
}

typedef struct {
    int64_t base;
    int64_t *out;
} step;

static void add_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    step *s = ctx;
    s->out[item] += s->base + item;
}

/* A stale worker that mixed two runs would add with the wrong base. ctx lives on the stack of each run. */
static void quick_runs(int32_t threads, int32_t runs) {
    sq_pool *p;
    assert_int_equal(sq_pool_new(&p, NULL, threads, NULL), SQUISH_OK);
    int64_t even[24] = {0}, odd[24] = {0}, want_even[24] = {0}, want_odd[24] = {0};
    for (int32_t r = 0; r < runs; r++) {
        step s = {r, r % 2 ? odd : even};
        int32_t n = 1 + r % 24;
        sq_pool_run(p, add_item, &s, n);
        for (int32_t i = 0; i < n; i++) (r % 2 ? want_odd : want_even)[i] += r + i;
    }
    assert_memory_equal(even, want_even, sizeof even);
    assert_memory_equal(odd, want_odd, sizeof odd);
    sq_pool_free(p);
}

static void ten_thousand_quick_runs_do_not_mix(void **state) {
    (void)state;
    quick_runs(2, 10000);
    quick_runs(3, 10000);
    quick_runs(8, 10000);
}

static void sleeping_workers_wake_up_again(void **state) {
    (void)state;
    sq_pool *p;
    assert_int_equal(sq_pool_new(&p, NULL, 4, NULL), SQUISH_OK);
    int64_t out[64] = {0};
    for (int r = 0; r < 100; r++) {
        usleep(300); /* past the spin */
        step s = {1, out};
        sq_pool_run(p, add_item, &s, 64);
    }
    for (int i = 0; i < 64; i++) assert_int_equal(out[i], 100 * (1 + i));
    sq_pool_free(p);
}

typedef struct {
    _Atomic int32_t others_done;
    bool saw_all;
} convoy;

/* Item 0 ends only when all others are done (or after ten seconds, then the test fails). */
static void convoy_item(void *ctx, int32_t item, int32_t thread) {
    (void)thread;
    convoy *c = ctx;
    if (item > 0) {
        atomic_fetch_add(&c->others_done, 1);
        return;
    }
    for (int wait = 0; wait < 10000 && atomic_load(&c->others_done) < 7; wait++) usleep(1000);
    c->saw_all = atomic_load(&c->others_done) == 7;
}

static void a_slow_item_does_not_hold_the_others(void **state) {
    (void)state;
    sq_pool *p;
    assert_int_equal(sq_pool_new(&p, NULL, 2, NULL), SQUISH_OK);
    for (int r = 0; r < 20; r++) {
        convoy c = {0};
        sq_pool_run(p, convoy_item, &c, 8);
        assert_true(c.saw_all);
    }
    sq_pool_free(p);
}

static void pools_come_and_go(void **state) {
    (void)state;
    for (int32_t i = 0; i < 50; i++) {
        sq_pool *p;
        assert_int_equal(sq_pool_new(&p, NULL, 1 + i % 5, NULL), SQUISH_OK);
        if (i % 2) {
            int64_t out[16] = {0};
            step s = {0, out};
            sq_pool_run(p, add_item, &s, 16);
            assert_int_equal(out[15], 15);
        }
        sq_pool_free(p);
    }
    sq_pool_free(NULL);
}

static void thread_counts_out_of_range_are_named(void **state) {
    (void)state;
    static const int32_t bad[] = {-5, 0, 1025, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < SQ_COUNT(bad); i++) {
        sq_pool *p = (sq_pool *)state; /* anything but NULL */
        squish_error err = {0};
        assert_int_equal(sq_pool_new(&p, NULL, bad[i], &err), SQUISH_INVALID);
        assert_null(p);
        assert_non_null(strstr(err.text, "threads, allowed are 1 to"));
    }
}

static void failing_allocations_are_reported_and_leak_nothing(void **state) {
    (void)state;
    squish_status st = SQUISH_NO_MEMORY;
    for (int64_t n = 1; st != SQUISH_OK; n++) {
        assert_true(n < 10);
        struct sq_test_alloc_state s = {.fail_at = n};
        squish_alloc a = sq_test_alloc(&s);
        sq_pool *p;
        st = sq_pool_new(&p, &a, 3, NULL);
        if (st != SQUISH_OK) assert_int_equal(st, SQUISH_NO_MEMORY);
        int64_t count = s.count, out[100] = {0};
        if (p) sq_pool_run(p, add_item, &(step){0, out}, 100);
        assert_int_equal(s.count, count); /* a run never allocates */
        sq_pool_free(p);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_done_exactly_once),
        cmocka_unit_test(one_thread_runs_inline_and_in_order),
        cmocka_unit_test(ten_thousand_quick_runs_do_not_mix),
        cmocka_unit_test(sleeping_workers_wake_up_again),
        cmocka_unit_test(a_slow_item_does_not_hold_the_others),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(thread_counts_out_of_range_are_named),
        cmocka_unit_test(failing_allocations_are_reported_and_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
