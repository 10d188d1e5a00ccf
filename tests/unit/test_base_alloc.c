/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_alloc.c - the allocator table and the tests' own counting allocator. */
#include "base/base.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void a_null_or_empty_table_means_malloc(void **state) {
    (void)state;
    squish_alloc empty = {0}, given = sq_alloc_default();
    const squish_alloc *tables[] = {NULL, &empty, &given};
    for (size_t i = 0; i < SQ_COUNT(tables); i++) {
        char *p = sq_alloc_new(tables[i], 10);
        assert_non_null(p);
        memcpy(p, "012345678", 10);
        p = sq_alloc_resize(tables[i], p, 10, 100000);
        assert_string_equal(p, "012345678");
        p = sq_alloc_resize(tables[i], p, 100000, 5);
        assert_memory_equal(p, "01234", 5);
        assert_null(sq_alloc_resize(tables[i], p, 5, 0));
    }
}

static void zero_bytes_give_null_and_zeroed_memory_is_zero(void **state) {
    (void)state;
    struct sq_test_alloc_state s = {0};
    squish_alloc a = sq_test_alloc(&s);
    assert_null(sq_alloc_new(&a, 0));
    assert_null(sq_alloc_zero(&a, 0));
    assert_int_equal(s.count, 0);
    unsigned char *p = sq_alloc_zero(&a, 300);
    for (int i = 0; i < 300; i++) assert_int_equal(p[i], 0);
    sq_alloc_free(&a, p, 300);
    sq_alloc_free(&a, NULL, 0);
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.live_bytes, 0);
}

static void the_counting_allocator_fails_once_or_for_good(void **state) {
    (void)state;
    struct sq_test_alloc_state once = {.fail_at = 2}, ever = {.fail_at = 2, .persistent = true};
    squish_alloc a = sq_test_alloc(&once), b = sq_test_alloc(&ever);
    void *p = sq_alloc_new(&a, 8);
    assert_non_null(p);
    assert_null(sq_alloc_resize(&a, p, 8, 16)); /* the old block stays */
    p = sq_alloc_resize(&a, p, 8, 16);
    assert_non_null(p);
    assert_int_equal(once.live_bytes, 16);
    sq_alloc_free(&a, p, 15);
    assert_int_equal(once.wrong_sizes, 1);
    assert_int_equal(once.live_blocks, 0);
    p = sq_alloc_new(&b, 8);
    assert_null(sq_alloc_new(&b, 8));
    assert_null(sq_alloc_new(&b, 8));
    sq_alloc_free(&b, p, 8);
    assert_int_equal(ever.live_blocks, 0);
    assert_int_equal(ever.wrong_sizes, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_null_or_empty_table_means_malloc),
        cmocka_unit_test(zero_bytes_give_null_and_zeroed_memory_is_zero),
        cmocka_unit_test(the_counting_allocator_fails_once_or_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
