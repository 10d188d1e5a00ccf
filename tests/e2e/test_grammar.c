/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grammar.c - answers under a grammar, and squish grammar --check, end to end. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

static void put(const char *name, const char *text) { cli_write(name, text, strlen(text)); }

static void an_answer_follows_a_regex(void **state) {
    (void)state;
    for (int seed = 1; seed <= 3; seed++) {
        const cli_result *r =
            sh("$S run --seed %d --temp 1 --regex '[A-Z][a-z]{2,6} (is|are) [0-9]{2}' Japan", seed);
        assert_int_equal(r->status, 0);
        put("answer", r->out);
        assert_int_equal(sh("grep -Exq '[A-Z][a-z]{2,6} (is|are) [0-9]{2}' $T/answer")->status, 0);
    }
}

static void an_answer_is_valid_for_a_schema(void **state) {
    (void)state;
    put("schema", "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":20},"
                  "\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":99}},\"required\":[\"city\",\"n\"],"
                  "\"additionalProperties\":false}");
    for (int seed = 1; seed <= 3; seed++) {
        json_t *o = cli_json(sh("$S run --json --seed %d --temp 1.5 --schema $T/schema Japan", seed));
        assert_non_null(o);
        assert_string_equal(json_string_value(json_object_get(o, "finish_reason")), "stop");
        json_t *v = json_loads(json_string_value(json_object_get(o, "text")), JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(v);
        const json_int_t n = json_integer_value(json_object_get(v, "n"));
        assert_true(json_is_string(json_object_get(v, "city")) && n >= 1 && n <= 99);
        assert_int_equal(json_object_size(v), 2);
        json_decref(v);
        json_decref(o);
    }
}

static void a_file_is_in_a_language_or_not(void **state) {
    (void)state;
    put("schema", "{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}");
    put("good", "[1, 2,\n 3]\n");
    put("bad", "[1, x]");
    put("short", "[1, 2");
    put("gbnf", "root ::= \"[\" [0-9]+ (\", \" [0-9]+)* \"]\"\n");
    json_t *o = cli_json(sh("$S grammar --json --check $T/good --schema $T/schema --bench --runs 3"));
    assert_true(json_is_true(json_object_get(o, "accepted")));
    assert_true(json_number_value(json_object_get(o, "compile_ms")) > 0);
    assert_true(json_number_value(json_object_get(json_object_get(o, "mask_us"), "p50")) > 0);
    assert_true(json_number_value(json_object_get(json_object_get(o, "advance_us"), "max")) > 0);
    json_decref(o);
    o = cli_json(sh("$S grammar --json --check $T/bad --schema $T/schema"));
    assert_true(json_is_false(json_object_get(o, "accepted")));
    assert_true(json_integer_value(json_object_get(o, "valid_bytes")) <= 4);
    json_decref(o);
    assert_int_equal(sh("$S grammar --check $T/bad --schema $T/schema")->status, 1);
    const cli_result *r = sh("$S grammar --check $T/short --gbnf $T/gbnf");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->out, "ends too early"));
    assert_int_equal(sh("printf '[1, 2]' | { $S grammar --check - --gbnf $T/gbnf; }")->status, 0);
}

static void what_is_not_supported_is_said_and_nothing_is_answered(void **state) {
    (void)state;
    put("schema", "{\"properties\":{\"a\":{\"uniqueItems\":true}}}");
    const cli_result *r = sh("$S run --schema $T/schema Japan");
    assert_int_equal(r->status, 1);
    assert_string_equal(r->out, "");
    assert_non_null(strstr(r->err, "'uniqueItems' of items that cannot be listed is not supported"));
    assert_non_null(strstr(r->err, "at '#/properties/a'"));
    assert_int_equal(sh("$S run --regex 'a(' Japan")->status, 1);
    assert_int_equal(sh("$S run --regex a --schema $T/schema Japan")->status, 2);
    assert_int_equal(sh("$S run --ignore-eos --regex a Japan")->status, 1);
    assert_int_equal(sh("$S grammar --regex a")->status, 2);
    assert_int_equal(sh("$S grammar --check $T/schema")->status, 2);
    assert_int_equal(sh("$S grammar --check $T/none --regex a")->status, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_follows_a_regex),
        cmocka_unit_test(an_answer_is_valid_for_a_schema),
        cmocka_unit_test(a_file_is_in_a_language_or_not),
        cmocka_unit_test(what_is_not_supported_is_said_and_nothing_is_answered),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
