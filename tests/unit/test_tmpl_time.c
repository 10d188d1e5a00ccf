/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_time.c - strftime in UTC, against the C library where it can be asked. */
#include "support/tmpl_run.h"

#include <setjmp.h>
#include <time.h>

#include <cmocka.h>

static void assert_time(int64_t t, const char *fmt, const char *wanted) {
    sq_buf out;
    char bad = 0;
    sq_buf_init(&out, NULL, 4096);
    assert_true(sq_tmpl_strftime(t, fmt, strlen(fmt), &out, &bad));
    assert_string_equal(out.data, wanted);
    sq_buf_deinit(&out);
}

static void known_dates(void **state) {
    (void)state;
    assert_time(0, "%Y-%m-%d %H:%M:%S %A %j", "1970-01-01 00:00:00 Thursday 001");
    assert_time(-1, "%F %T", "1969-12-31 23:59:59");
    assert_time(951782400, "%d %B %Y", "29 February 2000");
    assert_time(1735689599, "%F %T %U %W %V %G %u %w", "2024-12-31 23:59:59 52 53 01 2025 2 2");
    assert_time(SQ_TEST_NOW, "%d %b %Y|%-d/%-m|%_d|%e|%I %p|%y|%%|%s",
                "02 Jan 2026|2/1| 2| 2|03 AM|26|%|1767323045");
    assert_time(253402300799, "%c", "Fri Dec 31 23:59:59 9999");
    assert_time(-62135596800, "%F", "0001-01-01");
}

static void every_directive_agrees_with_the_c_library(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        /* any second between 1583 and 9999 */
        time_t t = (time_t)(sq_splitmix64(&seed) % 265614854400ull) - 12212553600;
        const char *fmt =
            "%a|%A|%b|%B|%C|%d|%D|%e|%F|%g|%G|%H|%I|%j|%k|%l|%m|%M|%p|%P|%R|%r|%S|%T|%u|%U|%V|%w|%W|%y|%Y|%c";
        char wanted[400];
        struct tm tm;
        gmtime_r(&t, &tm);
        assert_true(strftime(wanted, sizeof wanted, fmt, &tm) > 0);
        assert_time(t, fmt, wanted);
    }
}

static void unknown_directives_are_named(void **state) {
    (void)state;
    assert_refused("{{ strftime_now('%Q') }}", NULL, SQUISH_INVALID,
                   "template line 1: strftime_now: unknown directive '%Q'");
    assert_refused("{{ strftime_now('a%') }}", NULL, SQUISH_INVALID,
                   "template line 1: strftime_now: unknown directive '% '");
    assert_renders("[{{ strftime_now('%Z%z') }}] {{ strftime_now('é%Y') }}", NULL, "[] é2026");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_dates),
        cmocka_unit_test(every_directive_agrees_with_the_c_library),
        cmocka_unit_test(unknown_directives_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
