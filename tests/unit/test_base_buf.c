/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_buf.c - the growing buffer: content, maximum, sticky failure, handing over. */
#include "base/base.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void appends_follow_each_other(void **state) {
    (void)state;
    sq_buf b;
    sq_buf_init(&b, NULL, 1000);
    assert_true(sq_buf_append(&b, NULL, 0));
    assert_true(sq_buf_puts(&b, "abc"));
    assert_true(sq_buf_putc(&b, '-'));
    assert_true(sq_buf_printf(&b, "%05d|%s", 42, "tail"));
    assert_true(sq_buf_append(&b, "\0x", 2));
    assert_int_equal(b.len, 16);
    assert_memory_equal(b.data, "abc-00042|tail\0x", 17); /* the NUL behind it included */
    sq_buf_deinit(&b);
    assert_null(b.data);
    sq_buf_deinit(&b);
}

static void it_grows_to_its_maximum_and_not_beyond(void **state) {
    (void)state;
    for (size_t max = 0; max < 200; max++) {
        struct sq_test_alloc_state s = {0};
        squish_alloc a = sq_test_alloc(&s);
        sq_buf b;
        sq_buf_init(&b, &a, max);
        for (size_t i = 0; i < max; i++) assert_true(sq_buf_putc(&b, (char)('a' + i % 26)));
        assert_false(b.failed);
        assert_false(sq_buf_putc(&b, '!'));
        assert_true(b.failed);
        assert_int_equal(b.len, max);
        for (size_t i = 0; i < max; i++) assert_int_equal(b.data[i], 'a' + i % 26);
        assert_true(b.cap <= max + 1);
        sq_buf_deinit(&b);
        assert_int_equal(s.live_blocks, 0);
        assert_int_equal(s.wrong_sizes, 0);
    }
}

static void a_failure_sticks_so_that_no_hole_appears(void **state) {
    (void)state;
    sq_buf b;
    sq_buf_init(&b, NULL, 8);
    assert_true(sq_buf_puts(&b, "12345"));
    assert_false(sq_buf_puts(&b, "6789"));
    assert_false(sq_buf_puts(&b, "6"));
    assert_false(sq_buf_printf(&b, "6"));
    assert_false(sq_buf_reserve(&b, 0));
    assert_string_equal(b.data, "12345");
    squish_text t;
    squish_error err = {0};
    assert_int_equal(sq_buf_take(&b, &t, &err), SQUISH_NO_MEMORY);
    assert_null(t.data);
    assert_non_null(strstr(err.text, "limit 8"));
    sq_buf_deinit(&b);
}

static void absurd_requests_are_refused(void **state) {
    (void)state;
    sq_buf b;
    sq_buf_init(&b, NULL, SIZE_MAX);
    assert_true(sq_buf_puts(&b, "x"));
    assert_false(sq_buf_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    sq_buf_deinit(&b);
}

static void taking_hands_over_an_exact_block(void **state) {
    (void)state;
    struct sq_test_alloc_state s = {0};
    squish_alloc a = sq_test_alloc(&s);
    const char *texts[] = {"", "x",
                           "a longer text that is more than sixty-four bytes long, to be moved once"};
    for (size_t i = 0; i < SQ_COUNT(texts); i++) {
        sq_buf b;
        sq_buf_init(&b, &a, 1000);
        if (i > 0) assert_true(sq_buf_puts(&b, texts[i]));
        squish_text t;
        assert_int_equal(sq_buf_take(&b, &t, NULL), SQUISH_OK);
        assert_string_equal(t.data, texts[i]);
        assert_int_equal(t.bytes, strlen(texts[i]));
        assert_int_equal(s.live_bytes, (int64_t)t.bytes + 1);
        assert_null(b.data);
        sq_buf_deinit(&b);
        sq_alloc_free(&t.alloc, t.data, t.bytes + 1);
    }
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.wrong_sizes, 0);
}

static void every_failing_allocation_is_reported_and_leaks_nothing(void **state) {
    (void)state;
    for (int persistent = 0; persistent < 2; persistent++) {
        squish_status st = SQUISH_NO_MEMORY;
        for (int64_t n = 1; st != SQUISH_OK; n++) {
            assert_true(n < 50);
            struct sq_test_alloc_state s = {.fail_at = n, .persistent = persistent};
            squish_alloc a = sq_test_alloc(&s);
            sq_buf b;
            sq_buf_init(&b, &a, 10000);
            for (int i = 0; i < 100; i++) sq_buf_printf(&b, "line %d\n", i);
            squish_text t;
            squish_error err = {0};
            st = sq_buf_take(&b, &t, &err);
            if (st == SQUISH_OK) {
                assert_int_equal(t.bytes, 10 * 7 + 90 * 8);
                sq_alloc_free(&t.alloc, t.data, t.bytes + 1);
            } else {
                assert_int_equal(st, SQUISH_NO_MEMORY);
                assert_int_equal(err.code, SQUISH_NO_MEMORY);
            }
            sq_buf_deinit(&b);
            assert_int_equal(s.live_blocks, 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_follow_each_other),
        cmocka_unit_test(it_grows_to_its_maximum_and_not_beyond),
        cmocka_unit_test(a_failure_sticks_so_that_no_hole_appears),
        cmocka_unit_test(absurd_requests_are_refused),
        cmocka_unit_test(taking_hands_over_an_exact_block),
        cmocka_unit_test(every_failing_allocation_is_reported_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
