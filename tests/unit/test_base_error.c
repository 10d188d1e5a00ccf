/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_error.c - recorded failures: first cause, context, mapping of errno, printable text. */
#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void the_first_cause_wins(void **state) {
    (void)state;
    squish_error err = {0};
    assert_int_equal(sq_fail(&err, SQUISH_CORRUPT, "tensor '%s': %d columns", "a", 4097), SQUISH_CORRUPT);
    assert_int_equal(sq_fail(&err, SQUISH_IO, "later"), SQUISH_IO);
    assert_int_equal(err.code, SQUISH_CORRUPT);
    assert_string_equal(err.text, "tensor 'a': 4097 columns");
}

static void the_error_may_be_null(void **state) {
    (void)state;
    assert_int_equal(sq_fail(NULL, SQUISH_INVALID, "x"), SQUISH_INVALID);
    assert_int_equal(sq_fail_errno(NULL, ENOENT, "x"), SQUISH_NOT_FOUND);
    sq_err_prefix(NULL, "x");
}

static void errno_values_map_to_codes_and_text(void **state) {
    (void)state;
    static const struct {
        int value;
        squish_status code;
    } rows[] = {{ENOENT, SQUISH_NOT_FOUND}, {ENOTDIR, SQUISH_NOT_FOUND}, {ENOSPC, SQUISH_NO_SPACE},
                {EDQUOT, SQUISH_NO_SPACE},  {ENOMEM, SQUISH_NO_MEMORY},  {EACCES, SQUISH_IO},
                {EIO, SQUISH_IO},           {EROFS, SQUISH_IO}};
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        squish_error err = {0};
        assert_int_equal(sq_fail_errno(&err, rows[i].value, "cannot open '%s'", "f"), rows[i].code);
        assert_int_equal(err.code, rows[i].code);
        char want[200];
        snprintf(want, sizeof want, "cannot open 'f': %s", strerror(rows[i].value));
        assert_string_equal(err.text, want);
    }
}

static void a_prefix_goes_in_front_and_only_of_a_failure(void **state) {
    (void)state;
    squish_error err = {0};
    sq_err_prefix(&err, "nothing");
    assert_string_equal(err.text, "");
    sq_fail(&err, SQUISH_IO, "inner");
    sq_err_prefix(&err, "layer %d", 3);
    sq_err_prefix(&err, "model");
    assert_string_equal(err.text, "model: layer 3: inner");
    assert_int_equal(err.code, SQUISH_IO);
}

static void a_long_text_is_cut_between_code_points(void **state) {
    (void)state;
    for (size_t pad = 0; pad < 4; pad++) {
        char name[600];
        memset(name, 'x', pad);
        for (size_t i = pad; i + 3 < sizeof name; i += 3) memcpy(name + i, "\xE2\x82\xAC", 4);
        squish_error err = {0};
        sq_fail(&err, SQUISH_CORRUPT, "%s", name);
        size_t n = strlen(err.text);
        assert_true(n < sizeof err.text && n > sizeof err.text - 4);
        assert_true(sq_utf8_valid(err.text, n));
        sq_err_prefix(&err, "in front");
        assert_true(sq_utf8_valid(err.text, strlen(err.text)));
        assert_memory_equal(err.text, "in front: ", 10);
    }
}

static void control_characters_and_broken_utf8_become_question_marks(void **state) {
    (void)state;
    squish_error err = {0};
    sq_fail(&err, SQUISH_CORRUPT, "name '%s'", "a\x1b[2J\nb\xFF\xC2\x9B\x7F\xC3\xA9");
    assert_string_equal(err.text, "name 'a?[2J?b????\xC3\xA9'");
}

static squish_status guarded(squish_status first, bool *cleaned, squish_error *err) {
    squish_status st = SQUISH_OK;
    SQ_GUARD(first);
    SQ_TRY(SQUISH_OK);
    return sq_fail(err, SQUISH_INVALID, "reached the end");
fail:
    *cleaned = true;
    return st;
}

static void guard_jumps_to_the_clean_up_and_try_goes_on(void **state) {
    (void)state;
    bool cleaned = false;
    squish_error err = {0};
    assert_int_equal(guarded(SQUISH_IO, &cleaned, &err), SQUISH_IO);
    assert_true(cleaned);
    cleaned = false;
    assert_int_equal(guarded(SQUISH_OK, &cleaned, &err), SQUISH_INVALID);
    assert_false(cleaned);
}

static void checked_arithmetic_tells_overflow(void **state) {
    (void)state;
    uint64_t r;
    assert_true(sq_add_ok(UINT64_MAX - 1, 1, &r) && r == UINT64_MAX);
    assert_false(sq_add_ok(UINT64_MAX, 1, &r));
    assert_true(sq_mul_ok(1ull << 32, (1ull << 32) - 1, &r) && r == 0xFFFFFFFF00000000u);
    assert_false(sq_mul_ok(1ull << 32, 1ull << 32, &r));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_cause_wins),
        cmocka_unit_test(the_error_may_be_null),
        cmocka_unit_test(errno_values_map_to_codes_and_text),
        cmocka_unit_test(a_prefix_goes_in_front_and_only_of_a_failure),
        cmocka_unit_test(a_long_text_is_cut_between_code_points),
        cmocka_unit_test(control_characters_and_broken_utf8_become_question_marks),
        cmocka_unit_test(guard_jumps_to_the_clean_up_and_try_goes_on),
        cmocka_unit_test(checked_arithmetic_tells_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
