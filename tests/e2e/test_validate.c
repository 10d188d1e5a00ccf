/* SPDX-License-Identifier: Apache-2.0
 *
 * test_validate.c - squish validate: what it prints and with which status it ends. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#define WRITE(name, text) cli_write(name, text, strlen(text))

static int files(void **state) {
    const int bad = cli_begin(state);
    WRITE("s.json", "{\"$ref\":\"http://x/item\",\"required\":[\"a\"]}");
    WRITE("item.json", "{\"$id\":\"http://x/item\",\"properties\":{\"a\":{\"type\":\"integer\"},"
                       "\"d\":{\"format\":\"date\"}}}");
    WRITE("good.json", "{\"a\": 12345678901234567890, \"d\": \"tomorrow\"}");
    WRITE("bad.json", "{\"a\": 1.5}");
    WRITE("broken.json", "{\"a\": ");
    WRITE("noschema.json", "{\"type\": \"nul\"}");
    return bad;
}

static void a_valid_file_prints_valid_and_ends_with_0(void **state) {
    (void)state;
    const cli_result *r = sh("cd $T; $S validate good.json --schema s.json --schema-ref item.json");
    assert_int_equal(r->status, 0);
    assert_string_equal(r->out, "valid\n");
    assert_string_equal(r->err, "");
    r = sh("cd $T; $S validate - --schema item.json < good.json");
    assert_int_equal(r->status, 0);
}

static void a_violation_is_a_line_by_pointer_and_ends_with_1(void **state) {
    (void)state;
    const cli_result *r = sh("cd $T; $S validate bad.json --schema s.json --schema-ref item.json");
    assert_int_equal(r->status, 1);
    assert_string_equal(r->out, "/a: found a number, wanted integer (http://x/item#/properties/a/type)\n");
}

static void json_gives_the_verdict_and_the_errors(void **state) {
    (void)state;
    const cli_result *r = sh("cd $T; $S validate --json bad.json --schema item.json");
    assert_int_equal(r->status, 1);
    json_t *o = cli_json(r), *first = json_array_get(json_object_get(o, "errors"), 0);
    assert_true(json_is_false(json_object_get(o, "valid")));
    assert_string_equal(json_string_value(json_object_get(first, "at")), "/a");
    assert_string_equal(json_string_value(json_object_get(first, "keyword")), "#/properties/a/type");
    assert_string_equal(json_string_value(json_object_get(first, "message")),
                        "found a number, wanted integer");
    json_decref(o);
    r = sh("cd $T; $S validate --json good.json --schema item.json");
    assert_int_equal(r->status, 0);
    o = cli_json(r);
    assert_true(json_is_true(json_object_get(o, "valid")));
    assert_int_equal(json_array_size(json_object_get(o, "errors")), 0);
    json_decref(o);
}

static void format_counts_when_asked(void **state) {
    (void)state;
    const cli_result *r = sh("cd $T; $S validate good.json --schema item.json --assert-format");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->out, "/d: a string that is no date"));
}

static void what_cannot_be_judged_says_why(void **state) {
    (void)state;
    static const struct {
        const char *line;
        int status;
        const char *message;
    } cases[] = {
        {"validate good.json", 2, "validate wants --schema FILE"},
        {"validate --schema s.json", 2, "validate takes one file"},
        {"validate none.json --schema item.json", 3, "none.json"},
        {"validate good.json --schema none.json", 3, "none.json"},
        {"validate broken.json --schema item.json", 1, "broken.json: instance: line 1"},
        {"validate good.json --schema noschema.json", 1, "noschema.json: schema #/type: found a string"},
        {"validate good.json --schema s.json", 1, "'http://x/item' is not among the registered documents"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cli_result *r = sh("cd $T; $S %s", cases[i].line);
        assert_int_equal(r->status, cases[i].status);
        if (!strstr(r->err, cases[i].message)) fail_msg("%s: %s", cases[i].line, r->err);
        assert_string_equal(r->out, "");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_file_prints_valid_and_ends_with_0),
        cmocka_unit_test(a_violation_is_a_line_by_pointer_and_ends_with_1),
        cmocka_unit_test(json_gives_the_verdict_and_the_errors),
        cmocka_unit_test(format_counts_when_asked),
        cmocka_unit_test(what_cannot_be_judged_says_why),
    };
    return cmocka_run_group_tests(tests, files, cli_end);
}
