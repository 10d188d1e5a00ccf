/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_class.c - letters, numbers, white space, word characters, classes. */
#include "text/tok_int.h"

#include <setjmp.h>

#include <cmocka.h>

static void ascii_kinds_agree_with_the_definition(void **state) {
    (void)state;
    for (uint32_t c = 0; c < 128; c++) {
        uint32_t want = 0;
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) want = TOK_L;
        if (c >= '0' && c <= '9') want = TOK_N;
        if ((c >= 9 && c <= 13) || c == ' ') want = TOK_S;
        if (c == '\r' || c == '\n') want |= TOK_NL;
        assert_int_equal(tok_ascii_kind[c], want);
    }
}

static void wide_kinds_are_those_of_unicode(void **state) {
    (void)state;
    static const struct {
        uint32_t cp, kind;
    } want[] = {
        {0xE9, TOK_L}, {0x4E2D, TOK_L}, {0x1D504, TOK_L}, {0x2B0, TOK_L},  {0x661, TOK_N},  {0x2160, TOK_N},
        {0xBD, TOK_N}, {0xA0, TOK_S},   {0x85, TOK_S},    {0x3000, TOK_S}, {0x2028, TOK_S}, {0x200B, 0},
        {0xFEFF, 0},   {0x301, 0},      {0x1F600, 0},     {0x2014, 0},     {0x180E, 0},     {0x10FFFF, 0},
    };
    for (size_t i = 0; i < SQ_COUNT(want); i++) assert_int_equal(tok_kind_wide(want[i].cp), want[i].kind);
}

static void white_space_has_25_code_points(void **state) {
    (void)state;
    int n = 0;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) n += tok_is_space(cp);
    assert_int_equal(n, 25);
}

static void word_characters_are_letters_marks_digits_joiners_and_low_lines(void **state) {
    (void)state;
    static const uint32_t in[] = {'a', 'Z', '0', '_', 0xE9, 0x301, 0x200D, 0x203F, 0x2160, 0x24B6, 0x1F170};
    static const uint32_t out[] = {' ', '-', '\'', 0xBD, 0x2014, 0x200B, 0x1F600, 0x24B5};
    for (size_t i = 0; i < SQ_COUNT(in); i++) assert_true(tok_is_word(in[i]));
    for (size_t i = 0; i < SQ_COUNT(out); i++) assert_false(tok_is_word(out[i]));
}

static void a_class_joins_categories_space_and_ranges_and_may_be_complemented(void **state) {
    (void)state;
    static const tok_range ranges[] = {{0, 1}, {'x', 'z'}, {0x4E00, 0x4EFF}, {0x1F600, 0x1F64F}};
    tok_class c = {.categories = 1u << 1 /* Lu */, .first_range = 1, .n_ranges = 3, .space = 1};
    for (int negate = 0; negate < 2; negate++) {
        c.negate = (uint8_t)negate;
        tok_class_fill_ascii(&c, ranges);
        static const uint32_t in[] = {'A', 'x', 'y', 'z', ' ', 0xA0, 0x4E00, 0x4E80, 0x4EFF, 0x1F64F, 0xC9};
        static const uint32_t out[] = {0, 1, 'a', 'w', '{', '0', 0x4DFF, 0x4F00, 0xE9, 0x1F650};
        for (size_t i = 0; i < SQ_COUNT(in); i++) assert_int_equal(tok_class_has(&c, ranges, in[i]), !negate);
        for (size_t i = 0; i < SQ_COUNT(out); i++)
            assert_int_equal(tok_class_has(&c, ranges, out[i]), negate);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ascii_kinds_agree_with_the_definition),
        cmocka_unit_test(wide_kinds_are_those_of_unicode),
        cmocka_unit_test(white_space_has_25_code_points),
        cmocka_unit_test(word_characters_are_letters_marks_digits_joiners_and_low_lines),
        cmocka_unit_test(a_class_joins_categories_space_and_ranges_and_may_be_complemented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
