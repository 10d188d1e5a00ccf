/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_edit.c - distances between short strings. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void distances_are_the_known_ones(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        int want;
    } rows[] = {
        {"", "", 0},
        {"", "abc", 3},
        {"abc", "abc", 0},
        {"abc", "abd", 1},
        {"abc", "ab", 1},
        {"abc", "xabc", 1},
        {"abc", "acb", 1},
        {"kitten", "sitting", 3},
        {"ca", "abc", 3}, /* a swapped pair is not cut open */
        {"--thraeds", "--threads", 1},
        {"ab", "ba", 1},
        {"abcdef", "badcfe", 3},
        {"flaw", "lawn", 2},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        assert_int_equal(sq_edit_distance(rows[i].a, rows[i].b), rows[i].want);
        assert_int_equal(sq_edit_distance(rows[i].b, rows[i].a), rows[i].want);
    }
}

static void lengths_end_at_sixty_three_bytes(void **state) {
    (void)state;
    char a[65], b[65];
    memset(a, 'a', 64);
    memset(b, 'b', 64);
    a[63] = b[63] = '\0';
    assert_int_equal(sq_edit_distance(a, b), 63);
    assert_int_equal(sq_edit_distance(a, ""), 63);
    a[63] = 'a';
    a[64] = '\0';
    assert_int_equal(sq_edit_distance(a, b), 99);
    assert_int_equal(sq_edit_distance("", a), 99);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distances_are_the_known_ones),
        cmocka_unit_test(lengths_end_at_sixty_three_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
