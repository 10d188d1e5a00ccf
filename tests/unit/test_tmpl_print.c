/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_print.c - floats and texts as Python's repr writes them. */
#include "support/tmpl_run.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static void floats_print_as_in_python(void **state) {
    (void)state;
    static const struct {
        double f;
        const char *text;
    } rows[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {100.0, "100.0"},
        {123456789.125, "123456789.125"},
        {1e15, "1000000000000000.0"},
        {9999999999999998.0, "9999999999999998.0"},
        {1e16, "1e+16"},
        {1.5e16, "1.5e+16"},
        {1e22, "1e+22"},
        {1e100, "1e+100"},
        {0.0001, "0.0001"},
        {0.00012345, "0.00012345"},
        {0.00001, "1e-05"},
        {1.25e-7, "1.25e-07"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {2.225073858507201e-308, "2.225073858507201e-308"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {0x1p-44, "5.684341886080802e-14"}, /* the neighbour of the nearest 16 digits */
        {9007199254740993.0, "9007199254740992.0"},
        {0.1 + 0.2, "0.30000000000000004"},
        {2.675, "2.675"},
        {INFINITY, "inf"},
        {-INFINITY, "-inf"},
        {NAN, "nan"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        char text[32];
        sq_tmpl_float_repr(rows[i].f, text);
        assert_string_equal(text, rows[i].text);
    }
}

/* Whatever is printed reads back as the same number, and no shorter text does at fewer digits. */
static void printed_floats_read_back(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = sq_splitmix64(&seed);
        if (i % 4 == 0) bits &= ~0xfffffffffffffull; /* powers of two */
        double f, back;
        memcpy(&f, &bits, sizeof f);
        if (!isfinite(f)) continue;
        char text[32], shorter[40];
        sq_tmpl_float_repr(f, text);
        assert_true(sq_tmpl_parse_f64(text, strlen(text), &back));
        assert_memory_equal(&back, &f, sizeof f);
        int digits = 0;
        for (const char *p = text; *p && *p != 'e'; p++) digits += *p >= '1' && *p <= '9';
        if (digits < 3) continue;
        /* rounding to one digit less than were printed must lose the value */
        int significant = 0;
        bool started = false;
        for (const char *p = text; *p && *p != 'e'; p++) {
            started |= *p >= '1' && *p <= '9';
            significant += started && *p >= '0' && *p <= '9';
        }
        if (strstr(text, ".0") && !strchr(text, 'e'))
            continue; /* zeros in front of the point are no digits to spare */
        snprintf(shorter, sizeof shorter, "%.*e", significant - 2, f);
        assert_true(strtod(shorter, NULL) != f);
    }
}

static void containers_print_their_items_quoted(void **state) {
    (void)state;
    assert_renders("{{ x }}", "{\"x\": [\"a\", \"it's\", \"\\\"\", \"'\\\"\", \"\\n\\u0001\\u00e9\\u200b\"]}",
                   "['a', \"it's\", '\"', '\\'\"', '\\n\\x01é\\u200b']");
    assert_renders("{{ x }}", "{\"x\": {\"a\": null, \"b\": [true, 1.5, {}], \"c\": \"\"}}",
                   "{'a': None, 'b': [True, 1.5, {}], 'c': ''}");
    assert_renders("{{ [x] }}{{ (1,) }}{{ () }}", NULL, "[Undefined](1,)()");
}

static void values_that_hold_themselves_do_not_print_for_ever(void **state) {
    (void)state;
    const char *words = "template line 1: values nested more than 200 deep";
    assert_refused("{% set x = [] %}{% set y = x.append(x) %}{{ x }}", NULL, SQUISH_NO_MEMORY, words);
    assert_refused("{% set x = [] %}{% set y = x.append(x) %}{{ x|tojson }}", NULL, SQUISH_NO_MEMORY, words);
    assert_refused(
        "{% set x = [] %}{% set z = [] %}{% set y = x.append(x) %}{% set y = z.append(z) %}{{ x == z }}",
        NULL, SQUISH_NO_MEMORY, words);
    assert_refused("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", NULL, SQUISH_NO_MEMORY, words);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_print_as_in_python),
        cmocka_unit_test(printed_floats_read_back),
        cmocka_unit_test(containers_print_their_items_quoted),
        cmocka_unit_test(values_that_hold_themselves_do_not_print_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
