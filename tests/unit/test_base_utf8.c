/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_utf8.c - UTF-8 against table 3-7 of the Unicode Standard and its examples of replacement. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void every_scalar_value_survives_the_round_trip(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char s[4];
        size_t n = sq_utf8_encode(cp, s);
        bool surrogate = cp >= 0xD800 && cp <= 0xDFFF;
        assert_int_equal(n, cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4);
        uint32_t back;
        bool ok;
        assert_int_equal(sq_utf8_decode(s, n, &back, &ok), n);
        assert_true(ok);
        assert_int_equal(back, surrogate ? 0xFFFD : cp);
        assert_true(sq_utf8_valid(s, n));
    }
    char s[4];
    assert_int_equal(sq_utf8_encode(0x110000, s), 3);
    assert_memory_equal(s, "\xEF\xBF\xBD", 3);
    assert_int_equal(sq_utf8_encode(0xFFFFFFFFu, s), 3);
}

/* Table 3-7, row by row: ranges of the first to fourth byte. */
typedef struct {
    size_t n;
    uint8_t low[4], high[4];
} row;
static const row table_3_7[] = {
    {1, {0x00}, {0x7F}},
    {2, {0xC2, 0x80}, {0xDF, 0xBF}},
    {3, {0xE0, 0xA0, 0x80}, {0xE0, 0xBF, 0xBF}},
    {3, {0xE1, 0x80, 0x80}, {0xEC, 0xBF, 0xBF}},
    {3, {0xED, 0x80, 0x80}, {0xED, 0x9F, 0xBF}},
    {3, {0xEE, 0x80, 0x80}, {0xEF, 0xBF, 0xBF}},
    {4, {0xF0, 0x90, 0x80, 0x80}, {0xF0, 0xBF, 0xBF, 0xBF}},
    {4, {0xF1, 0x80, 0x80, 0x80}, {0xF3, 0xBF, 0xBF, 0xBF}},
    {4, {0xF4, 0x80, 0x80, 0x80}, {0xF4, 0x8F, 0xBF, 0xBF}},
};

/* The longest prefix of s[0..n) that fits some row, and whether it is the whole row. */
static size_t fit(const uint8_t *s, size_t n, bool *whole) {
    size_t best = 0;
    *whole = false;
    for (size_t r = 0; r < SQ_COUNT(table_3_7); r++) {
        const row *t = &table_3_7[r];
        size_t k = 0;
        while (k < n && k < t->n && s[k] >= t->low[k] && s[k] <= t->high[k]) k++;
        if (k > best) {
            best = k;
            *whole = k == t->n;
        }
    }
    return best;
}

static void check_against_the_table(const uint8_t *s, size_t n) {
    bool whole, ok;
    uint32_t cp;
    size_t fits = fit(s, n, &whole);
    size_t step = sq_utf8_decode((const char *)s, n, &cp, &ok);
    assert_int_equal(ok, whole);
    assert_int_equal(step, fits ? fits : 1);
    if (!whole) assert_int_equal(cp, 0xFFFD);
    if (whole && fits == n) {
        assert_true(sq_utf8_valid((const char *)s, n));
        char again[4];
        assert_int_equal(sq_utf8_encode(cp, again), n);
        assert_memory_equal(again, s, n);
    }
}

static void all_first_and_second_bytes_follow_the_table(void **state) {
    (void)state;
    static const uint8_t ends[][2] = {{0x7F, 0x80}, {0x80, 0x7F}, {0x80, 0x80}, {0xBF, 0xBF},
                                      {0xC0, 0x80}, {0x80, 0xC0}, {0x00, 0x00}, {0xFF, 0xFF}};
    for (unsigned a = 0; a < 256; a++) {
        uint8_t s[4] = {(uint8_t)a};
        check_against_the_table(s, 1);
        for (unsigned b = 0; b < 256; b++) {
            s[1] = (uint8_t)b;
            check_against_the_table(s, 2);
            for (size_t e = 0; e < SQ_COUNT(ends); e++) {
                memcpy(s + 2, ends[e], 2);
                check_against_the_table(s, 3);
                check_against_the_table(s, 4);
            }
        }
    }
}

static void third_and_fourth_bytes_follow_the_table(void **state) {
    (void)state;
    for (size_t r = 0; r < SQ_COUNT(table_3_7); r++)
        for (size_t at = 0; at < table_3_7[r].n; at++)
            for (unsigned byte = 0; byte < 256; byte++) {
                uint8_t s[4];
                memcpy(s, byte & 1 ? table_3_7[r].low : table_3_7[r].high, 4);
                s[at] = (uint8_t)byte;
                check_against_the_table(s, table_3_7[r].n);
            }
}

/* Write s with replacements as code points, 0xFFFD for the ill-formed, and compare. */
static void assert_decodes(const char *s, const uint32_t *want, size_t n_want) {
    size_t n = strlen(s), i = 0, k = 0;
    while (i < n) {
        uint32_t cp;
        i += sq_utf8_decode(s + i, n - i, &cp, NULL);
        assert_true(k < n_want);
        assert_int_equal(cp, want[k++]);
    }
    assert_int_equal(k, n_want);
    assert_int_equal(sq_utf8_count(s, n), n_want);
    assert_false(sq_utf8_valid(s, n));
}

static void ill_formed_parts_are_replaced_as_the_standard_shows(void **state) {
    (void)state;
    enum { R = 0xFFFD };
    const uint32_t overlong[] = {R, R, R, R, R, R, R, R, 0x41};
    assert_decodes("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", overlong, 9);
    const uint32_t surrogates[] = {R, R, R, R, R, R, R, R, 0x41};
    assert_decodes("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", surrogates, 9);
    const uint32_t others[] = {R, R, R, R, R, 0x41, R, R, 0x42};
    assert_decodes("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", others, 9);
    const uint32_t truncated[] = {R, R, R, R, 0x41};
    assert_decodes("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", truncated, 5);
}

static void pending_counts_an_unfinished_code_point_at_the_end(void **state) {
    (void)state;
    static const struct {
        const char *s;
        size_t pending;
    } rows[] = {
        {"", 0},          {"a", 0},           {"\xC3", 1},         {"\xC3\xA9", 0},       {"a\xE2", 1},
        {"\xE2\x82", 2},  {"\xE2\x82\xAC", 0}, {"\xF0\x9F\x98", 3}, {"\xF0\x9F\x98\x80", 0}, {"\xF0\x9F", 2},
        {"\xE0\x80", 0},  {"\xED\xA0", 0},    {"\xF4\x90", 0},     {"\xF5", 0},           {"\xC0", 0},
        {"\x80\x80", 0},  {"\xC3\xA9\x80", 0}, {"\xFF", 0},         {"\xE2\x82\xAC\xE2\x82", 2},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        assert_int_equal(sq_utf8_pending(rows[i].s, strlen(rows[i].s)), rows[i].pending);
}

/* Cutting a text anywhere and holding back the pending bytes never splits a code point. */
static void pending_splits_any_text_cleanly(void **state) {
    (void)state;
    const char *text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z\xF4\x8F\xBF\xBF";
    for (size_t n = 0; n <= strlen(text); n++) {
        size_t held = sq_utf8_pending(text, n);
        assert_true(sq_utf8_valid(text, n - held));
        assert_true(held == 0 || !sq_utf8_valid(text, n));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scalar_value_survives_the_round_trip),
        cmocka_unit_test(all_first_and_second_bytes_follow_the_table),
        cmocka_unit_test(third_and_fourth_bytes_follow_the_table),
        cmocka_unit_test(ill_formed_parts_are_replaced_as_the_standard_shows),
        cmocka_unit_test(pending_counts_an_unfinished_code_point_at_the_end),
        cmocka_unit_test(pending_splits_any_text_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
