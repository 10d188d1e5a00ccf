/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_json.c - strict JSON: what is refused, where the message points, and the typed getters. */
#include "format/json.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static json_t *parse(const char *text) {
    json_t *j;
    squish_error err = {0};
    assert_int_equal(sq_json_parse(text, strlen(text), SQ_JSON_DEPTH, "x.json", &j, &err), SQUISH_OK);
    assert_non_null(j);
    return j;
}

static void objects_keep_the_order_of_the_text(void **state) {
    (void)state;
    json_t *j = parse("{\"z\":1,\"a\":2,\"m\":3}"), *v;
    const char *key;
    char order[8] = "";
    json_object_foreach(j, key, v) snprintf(order + strlen(order), sizeof order - strlen(order), "%s", key);
    assert_string_equal(order, "zam");
    json_decref(j);
}

static void any_value_may_stand_alone(void **state) {
    (void)state;
    static const char *const texts[] = {"true", "[]", "\"x\"", " 12 ", "null", "{\"a\":[{\"b\":1.5e3}]}"};
    for (size_t i = 0; i < SQ_COUNT(texts); i++) json_decref(parse(texts[i]));
}

static void bad_text_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t n;
        const char *message; /* part of it */
    } cases[] = {
        {"", 0, "line 1, column 0"},
        {"{\"a\":1,\n \"a\":2}", 16, "line 2, column 4: duplicate object key"},
        {"{\"a\":1} x", 9, "end of file expected"},
        {"{\"a\":1}{}", 9, "end of file expected"},
        {"{\"a\":\"\\u0000\"}", 14, "\\u0000 is not allowed"},
        {"{\"a\\u0000\":1}", 13, "NUL byte in object key not supported"},
        {"{\"a\":\"\xC0\xAF\"}", 10, "unable to decode byte 0xc0"},
        {"{\"a\":\"\xED\xA0\x80\"}", 11, "unable to decode byte 0xed"},
        {"{\"a\":\"\\ud800\"}", 14, "invalid Unicode"},
        {"[1e999]", 7, "real number overflow"},
        {"[9223372036854775808]", 21, "too big integer"},
        {"[-9223372036854775809]", 22, "too big negative integer"},
        {"[01]", 4, "near '0'"},
        {"[1,]", 4, "near ']'"},
        {"{'a':1}", 7, "near '''"},
        {"{\"a\":NaN}", 9, "near 'NaN'"},
        {"[1", 2, "near end of file"},
        {"\"abc", 4, "premature end"},
        {"[\"a\nb\"]", 7, "newline"},
        {"[1]\0", 4, "line 1"},
        {"\xEF\xBB\xBF{}", 5, "line 1"},
        {"]", 1, "line 1"},
        {"// c\n{}", 7, "line 1"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        json_t *j = (json_t *)1;
        squish_error err = {0};
        uint8_t *text = exact(cases[i].text, cases[i].n);
        squish_status st = sq_json_parse((char *)text, cases[i].n, SQ_JSON_DEPTH, "x.json", &j, &err);
        assert_int_equal(st, SQUISH_CORRUPT);
        assert_null(j);
        assert_memory_equal(err.text, "x.json: ", 8);
        if (!strstr(err.text, cases[i].message)) fail_msg("case %zu: '%s'", i, err.text);
        free(text);
    }
}

/* n opening brackets and as many closing ones. */
static char *nested(size_t n, const char *open, const char *close) {
    bytes b = {0};
    for (size_t i = 0; i < n; i++) add(&b, open, strlen(open));
    add(&b, "1", 1);
    for (size_t i = 0; i < n; i++) add(&b, close, strlen(close));
    add_u8(&b, 0);
    return (char *)b.p;
}

static void depth_is_bounded_without_recursion(void **state) {
    (void)state;
    static const struct {
        size_t n;
        const char *open, *close;
        bool ok;
    } cases[] = {{64, "[", "]", true},         {65, "[", "]", false},        {64, "{\"a\":", "}", true},
                 {65, "{\"a\":", "}", false},  {1000000, "[", "]", false},   {1000000, "[", "", false},
                 {32, "[{\"a\":", "}]", true}, {33, "[{\"a\":", "}]", false}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        char *text = nested(cases[i].n, cases[i].open, cases[i].close);
        json_t *j;
        squish_error err = {0};
        squish_status st = sq_json_parse(text, strlen(text), SQ_JSON_DEPTH, "x.json", &j, &err);
        assert_int_equal(st, cases[i].ok ? SQUISH_OK : SQUISH_CORRUPT);
        if (!cases[i].ok) assert_non_null(strstr(err.text, "nested deeper than 64 levels"));
        json_decref(j);
        free(text);
    }
}

static void the_depth_message_names_line_and_column(void **state) {
    (void)state;
    json_t *j;
    squish_error err = {0};
    const char *text = "{\"a\":\n  [ [] ]}";
    assert_int_equal(sq_json_parse(text, strlen(text), 2, "x.json", &j, &err), SQUISH_CORRUPT);
    assert_string_equal(err.text, "x.json: line 2, column 5: nested deeper than 2 levels");
}

static void brackets_in_strings_have_no_depth(void **state) {
    (void)state;
    json_t *j;
    const char *text = "[\"[[[[\\\"[[\\\\\", \"{{{\"]";
    assert_int_equal(sq_json_parse(text, strlen(text), 1, "x.json", &j, NULL), SQUISH_OK);
    assert_string_equal(json_string_value(json_array_get(j, 0)), "[[[[\"[[\\");
    json_decref(j);
}

static void messages_show_no_control_bytes(void **state) {
    (void)state;
    json_t *j;
    squish_error err = {0};
    const char *text = "{\"a\":\x1b[31m}";
    assert_int_equal(sq_json_parse(text, strlen(text), 64, "x.json", &j, &err), SQUISH_CORRUPT);
    assert_null(strchr(err.text, 0x1b));
}

static void integers_are_read_in_both_spellings(void **state) {
    (void)state;
    json_t *j =
        parse("{\"i\":12,\"f\":12.0,\"e\":1e3,\"h\":1.5,\"s\":\"12\",\"n\":null,\"big\":1e300,\"neg\":-3}");
    int64_t v = 7;
    squish_error err = {0};
    assert_int_equal(sq_json_i64(j, "i", true, 1, 100, &v, "c.json", &err), SQUISH_OK);
    assert_int_equal(v, 12);
    v = 7;
    assert_int_equal(sq_json_i64(j, "f", true, 1, 100, &v, "c.json", &err), SQUISH_OK);
    assert_int_equal(v, 12);
    assert_int_equal(sq_json_i64(j, "e", true, 1, 1000, &v, "c.json", &err), SQUISH_OK);
    assert_int_equal(v, 1000);
    assert_int_equal(sq_json_i64(j, "none", false, 1, 100, &v, "c.json", &err), SQUISH_OK);
    assert_int_equal(sq_json_i64(j, "n", false, 1, 100, &v, "c.json", &err), SQUISH_OK);
    assert_int_equal(v, 1000);
    assert_int_equal(err.code, SQUISH_OK);
    json_decref(j);
}

static void a_refused_value_is_named_with_what_was_wanted(void **state) {
    (void)state;
    json_t *j =
        parse("{\"i\":0,\"h\":1.5,\"s\":\"12\\u001b\",\"n\":null,\"big\":9.3e18,\"a\":[1],\"t\":true}");
    static const struct {
        const char *key;
        char type;
        const char *message;
    } cases[] = {
        {"i", 'i', "c.json: 'i' is 0, wanted an integer in [1, 100]"},
        {"h", 'i', "c.json: 'h' is 1.5, wanted an integer in [1, 100]"},
        {"s", 'i', "c.json: 's' is the string '12?', wanted an integer in [1, 100]"},
        {"n", 'i', "c.json: 'n' is null, wanted an integer in [1, 100]"},
        {"none", 'i', "c.json: 'none' is missing, wanted an integer in [1, 100]"},
        {"big", 'i', "c.json: 'big' is 9.3e+18, wanted an integer in [1, 100]"},
        {"a", 'i', "c.json: 'a' is an array, wanted an integer in [1, 100]"},
        {"t", 'i', "c.json: 't' is true, wanted an integer in [1, 100]"},
        {"i", 'f', "c.json: 'i' is 0, wanted a number in [0.5, 2]"},
        {"t", 'f', "c.json: 't' is true, wanted a number in [0.5, 2]"},
        {"i", 'b', "c.json: 'i' is 0, wanted true or false"},
        {"none", 'b', "c.json: 'none' is missing, wanted true or false"},
        {"a", 's', "c.json: 'a' is an array, wanted a string"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        int64_t v = 5;
        double d = 5;
        bool b = true;
        const char *s = "5";
        squish_error err = {0};
        squish_status st = SQUISH_OK;
        switch (cases[i].type) {
        case 'i': st = sq_json_i64(j, cases[i].key, true, 1, 100, &v, "c.json", &err); break;
        case 'f': st = sq_json_f64(j, cases[i].key, true, 0.5, 2, &d, "c.json", &err); break;
        case 'b': st = sq_json_bool(j, cases[i].key, true, &b, "c.json", &err); break;
        default: st = sq_json_str(j, cases[i].key, true, &s, "c.json", &err); break;
        }
        assert_int_equal(st, SQUISH_CORRUPT);
        assert_string_equal(err.text, cases[i].message);
        assert_true(v == 5 && d == 5 && b && strcmp(s, "5") == 0); /* untouched */
    }
    json_decref(j);
}

static void other_types_are_read(void **state) {
    (void)state;
    json_t *j = parse("{\"f\":0.25,\"i\":2,\"t\":true,\"no\":false,\"s\":\"text\"}");
    double d = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(sq_json_f64(j, "f", true, 0, 1, &d, "c", NULL), SQUISH_OK);
    assert_true(d == 0.25);
    assert_int_equal(sq_json_f64(j, "i", true, 0, 2, &d, "c", NULL), SQUISH_OK);
    assert_true(d == 2.0);
    assert_int_equal(sq_json_bool(j, "t", true, &b, "c", NULL), SQUISH_OK);
    assert_true(b);
    assert_int_equal(sq_json_bool(j, "no", true, &b, "c", NULL), SQUISH_OK);
    assert_false(b);
    assert_int_equal(sq_json_str(j, "s", true, &s, "c", NULL), SQUISH_OK);
    assert_string_equal(s, "text");
    json_decref(j);
}

static void a_getter_on_something_else_than_an_object_says_so(void **state) {
    (void)state;
    json_t *j = parse("[1]");
    int64_t v = 0;
    squish_error err = {0};
    assert_int_equal(sq_json_i64(j, "k", false, 0, 1, &v, "c.json", &err), SQUISH_CORRUPT);
    assert_string_equal(err.text, "c.json: found an array, wanted an object with 'k'");
    json_decref(j);
    assert_int_equal(sq_json_i64(NULL, "k", false, 0, 1, &v, "c.json", NULL), SQUISH_OK);
}

static void the_extremes_of_int64_survive(void **state) {
    (void)state;
    json_t *j = parse("{\"lo\":-9223372036854775808,\"hi\":9223372036854775807,\"f\":9223372036854775808.0}");
    int64_t v = 0;
    assert_int_equal(sq_json_i64(j, "lo", true, INT64_MIN, INT64_MAX, &v, "c", NULL), SQUISH_OK);
    assert_true(v == INT64_MIN);
    assert_int_equal(sq_json_i64(j, "hi", true, INT64_MIN, INT64_MAX, &v, "c", NULL), SQUISH_OK);
    assert_true(v == INT64_MAX);
    assert_int_equal(sq_json_i64(j, "f", true, INT64_MIN, INT64_MAX, &v, "c", NULL), SQUISH_CORRUPT);
    json_decref(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_keep_the_order_of_the_text),
        cmocka_unit_test(any_value_may_stand_alone),
        cmocka_unit_test(bad_text_is_refused_with_its_place),
        cmocka_unit_test(depth_is_bounded_without_recursion),
        cmocka_unit_test(the_depth_message_names_line_and_column),
        cmocka_unit_test(brackets_in_strings_have_no_depth),
        cmocka_unit_test(messages_show_no_control_bytes),
        cmocka_unit_test(integers_are_read_in_both_spellings),
        cmocka_unit_test(a_refused_value_is_named_with_what_was_wanted),
        cmocka_unit_test(other_types_are_read),
        cmocka_unit_test(a_getter_on_something_else_than_an_object_says_so),
        cmocka_unit_test(the_extremes_of_int64_survive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
