/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_words.c - small words of the dialects: durations, dates, names that may become file names. */
#include "api/api_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void a_duration_is_what_go_writes_or_plain_seconds(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } rows[] = {{"5m", 300},    {"1h30m", 5400}, {"500ms", 0.5}, {"-1", -1},       {"0", 0},
                {"300", 300},   {"-1m", -60},    {"1.5h", 5400}, {"1h2m3s", 3723}, {"+2s", 2},
                {"10us", 1e-5}, {"7ns", 7e-9},   {".5s", 0.5}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        double s = -99;
        assert_true(sq_api_duration(rows[i].text, &s));
        assert_true(s - rows[i].seconds < 1e-9 && rows[i].seconds - s < 1e-9);
    }
}

static void what_is_no_duration_is_refused(void **state) {
    (void)state;
    static const char *const rows[] = {"",      "-",    "m",   "5x",  "5m3",
                                       "1..5s", "5 m",  "--5", "1e3", "inf",
                                       "nan",   "5mm3", ".",   "s5",  "99999999999999999999h"};
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        double s;
        if (sq_api_duration(rows[i], &s)) fail_msg("'%s' was read as %g s", rows[i], s);
    }
}

static void a_date_has_nanoseconds_and_is_utc(void **state) {
    (void)state;
    char out[SQ_API_STAMP];
    sq_api_stamp(1764369000u * (uint64_t)1000000000u + 7, out);
    assert_string_equal(out, "2025-11-28T22:30:00.000000007Z");
    sq_api_stamp(0, out);
    assert_string_equal(out, "1970-01-01T00:00:00.000000000Z");
}

static void only_plain_names_become_file_names(void **state) {
    (void)state;
    static const char *const good[] = {"a", "squish-tiny", "qwen2.5:7b", "A_1", "9"};
    static const char *const bad[] = {"",   ".",   "..",  "../x",     "a/b", ".hidden",
                                      "-x", "a b", "a\n", "\xC3\xA4", "a\\b"};
    char long_name[SQ_API_NAME_MAX + 2];
    for (size_t i = 0; i < SQ_COUNT(good); i++) assert_true(sq_store_name_is_plain(good[i]));
    for (size_t i = 0; i < SQ_COUNT(bad); i++) assert_false(sq_store_name_is_plain(bad[i]));
    memset(long_name, 'a', sizeof long_name);
    long_name[SQ_API_NAME_MAX] = 0;
    assert_true(sq_store_name_is_plain(long_name));
    long_name[SQ_API_NAME_MAX] = 'a';
    long_name[SQ_API_NAME_MAX + 1] = 0;
    assert_false(sq_store_name_is_plain(long_name));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_duration_is_what_go_writes_or_plain_seconds),
        cmocka_unit_test(what_is_no_duration_is_refused),
        cmocka_unit_test(a_date_has_nanoseconds_and_is_utc),
        cmocka_unit_test(only_plain_names_become_file_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
