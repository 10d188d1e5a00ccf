/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schema_limits.c - where complaints point, what is refused and with which words, and that schemas and
 * instances made to exhaust the referee end in a status. */
#include "grammar/schema.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "at|keyword|text" of each violation, one a line. */
static void write_down(void *user, const squish_schema_violation *v) {
    char *out = user;
    const size_t n = strlen(out);
    snprintf(out + n, 4096 - n, "%s|%s|%s\n", v->at, v->keyword, v->text);
}

static squish_schema *open_schema(const char *json, const squish_schema_options *opt) {
    squish_schema *s = NULL;
    squish_error err = {0};
    if (squish_schema_new(&s, json, strlen(json), opt, &err) != SQUISH_OK) fail_msg("%s: %s", json, err.text);
    return s;
}

static const char *violations(const char *schema, const char *json, const squish_schema_options *opt) {
    static char out[4096];
    squish_schema *s = open_schema(schema, opt);
    bool valid = true;
    *out = 0;
    assert_int_equal(squish_schema_validate(s, json, strlen(json), write_down, out, &valid, NULL), SQUISH_OK);
    assert_int_equal(valid, *out == 0);
    squish_schema_free(s);
    return out;
}

static void complaints_name_both_places(void **state) {
    (void)state;
    assert_string_equal(violations("{\"properties\":{\"a/b\":{\"items\":{\"type\":[\"null\",\"string\"]}}}}",
                                   "{\"a/b\":[null,7]}", NULL),
                        "/a~1b/1|#/properties/a~1b/items/type|found an integer, wanted null or string\n");
    assert_string_equal(
        violations("{\"required\":[\"x\",\"y\"],\"additionalProperties\":false}", "{\"z\":1}", NULL),
        "|#/required|'x' is missing\n|#/required|'y' is missing\n"
        "/z|#/additionalProperties|no value is allowed here\n");
    assert_string_equal(
        violations("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"maximum\":1.50}}}", "1.51", NULL),
        "|#/$defs/a/maximum|1.51 is not at most 1.50\n");
    assert_string_equal(violations("{\"propertyNames\":{\"maxLength\":1}}", "{\"ab\":1}", NULL),
                        "|#/propertyNames/maxLength|2 code points, wanted at most 1\n");
    assert_string_equal(violations("{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}", "1", NULL),
                        "|#/anyOf|none of 2 schemas is satisfied\n");
    assert_string_equal(violations("{\"contains\":true,\"maxContains\":1}", "[1,2]", NULL),
                        "|#/maxContains|2 elements satisfy contains, wanted at most 1\n");
    assert_string_equal(violations("{\"uniqueItems\":true}", "[1,2,1.0]", NULL),
                        "|#/uniqueItems|elements 0 and 2 are equal\n");
}

static void complaints_name_the_other_document(void **state) {
    (void)state;
    static const squish_schema_document other = {"http://h/o", "{\"$defs\":{\"a\":{\"const\":1}}}", 27};
    squish_schema_options opt = squish_schema_options_default();
    opt.documents = &other;
    opt.n_documents = 1;
    assert_string_equal(violations("{\"$ref\":\"http://h/o#/$defs/a\"}", "2", &opt),
                        "|http://h/o#/$defs/a/const|an integer that is not the one value\n");
    opt.errors_max = 1;
    assert_string_equal(violations("{\"required\":[\"x\",\"y\"]}", "{}", &opt),
                        "|#/required|'x' is missing\n");
}

static void what_is_no_schema_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *schema;
        squish_status st;
        const char *message; /* part of it */
    } cases[] = {
        {"{\"type\":5}", SQUISH_INVALID, "schema #/type: found an integer, wanted one of the seven types"},
        {"{\"properties\":{\"a\":{\"minLength\":-1}}}", SQUISH_INVALID,
         "#/properties/a/minLength: found an integer"},
        {"{\"allOf\":[1]}", SQUISH_INVALID, "#/allOf/0: found an integer, wanted a schema"},
        {"{\"multipleOf\":0}", SQUISH_INVALID, "wanted a number above 0"},
        {"{\"pattern\":\"(\"}", SQUISH_INVALID, "#/pattern: the pattern: missing closing parenthesis"},
        {"{\"pattern\":\"\\\\Z\"}", SQUISH_INVALID, "an escaped letter that ECMA-262 does not know"},
        {"{\"patternProperties\":{\"(*LIMIT_MATCH=9)a\":{}}}", SQUISH_INVALID,
         "a group that ECMA-262 does not know"},
        {"{\"$ref\":\"#/$defs/x\"}", SQUISH_INVALID, "#/$ref: '#/$defs/x' leads to nothing"},
        {"{\"$ref\":\"http://h/x\"}", SQUISH_UNSUPPORTED,
         "#/$ref: 'http://h/x' is not among the registered documents, and nothing is fetched"},
        {"{\"$schema\":\"http://h/m\"}", SQUISH_UNSUPPORTED, "$schema 'http://h/m' is neither draft"},
        {"{\"$defs\":{\"a\":{\"$anchor\":\"x\"},\"b\":{\"$anchor\":\"x\"}}}", SQUISH_INVALID,
         "a second anchor 'x'"},
        {"{\"$id\":\"http://h/x#y\"}", SQUISH_INVALID, "$id has a fragment"},
        {"[]", SQUISH_INVALID, "found an array, wanted a schema"},
        {"{\"a\":1,\"a\":2}", SQUISH_CORRUPT, "duplicate object key"},
        {"{\"a\":01}", SQUISH_CORRUPT, "line 1"},
        {"{\"maximum\":1e9999999}", SQUISH_UNSUPPORTED, "its exponent is beyond 1000000"},
        {"", SQUISH_CORRUPT, "schema"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        squish_schema *s;
        squish_error err = {0};
        const squish_status st = squish_schema_new(&s, cases[i].schema, strlen(cases[i].schema), NULL, &err);
        if (st != cases[i].st || !strstr(err.text, cases[i].message))
            fail_msg("%s: %s, wanted %s", cases[i].schema, err.text, cases[i].message);
        assert_null(s);
    }
}

static void a_broken_definition_that_nobody_uses_hurts_nobody(void **state) {
    (void)state;
    squish_schema_free(open_schema("{\"$defs\":{\"x\":{\"$ref\":\"http://h/gone\"}}}", NULL));
}

static squish_status verdict(const char *schema, const char *json, size_t n, const char **why) {
    static squish_error err;
    err = (squish_error){0};
    squish_schema *s = open_schema(schema, NULL);
    bool valid;
    const squish_status st = squish_schema_validate(s, json, n, NULL, NULL, &valid, &err);
    squish_schema_free(s);
    *why = err.text;
    return st;
}

static void bombs_end_in_a_status(void **state) {
    (void)state;
    static char nested[600], text[200001];
    const char *why;
    assert_int_equal(verdict("{\"$ref\":\"#\"}", "1", 1, &why), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(why, "does one refer to itself without end?"));
    /* each level asks the next one twice */
    assert_int_equal(
        verdict("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/b\"},"
                "{\"$ref\":\"#/$defs/b\"}]},\"b\":{\"allOf\":[{\"not\":{\"$ref\":\"#/$defs/a\"}},"
                "{\"$ref\":\"#/$defs/a\"}]}}}",
                "1", 1, &why),
        SQUISH_UNSUPPORTED);
    memset(text, 'a', sizeof text - 1);
    text[0] = text[41] = '"';
    text[40] = '!';
    assert_int_equal(verdict("{\"pattern\":\"^(a+)+$\"}", text, 42, &why), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(why, "a pattern gave up on a string of 40 bytes"));
    text[40] = text[41] = 'a';
    text[sizeof text - 2] = '"';
    assert_int_equal(verdict("{\"pattern\":\"a*b\"}", text, sizeof text - 1, &why), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(why, "no verdict after 10000000 steps"));
    memset(nested, '[', 129);
    memset(nested + 129, ']', 129);
    assert_int_equal(verdict("{\"items\":{\"$ref\":\"#\"}}", nested, 258, &why), SQUISH_CORRUPT);
    assert_non_null(strstr(why, "nested deeper than 128 levels"));
    memset(text, '7', 1025);
    assert_int_equal(verdict("true", text, 1025, &why), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(why, "a number of 1025 digits, at most 1024 are read"));
}

static void the_step_limit_is_the_callers(void **state) {
    (void)state;
    squish_schema_options opt = squish_schema_options_default();
    bool valid;
    opt.steps_max = 10;
    squish_schema *s = open_schema("{\"items\":{\"type\":\"integer\"}}", &opt);
    assert_int_equal(squish_schema_validate(s, "[1,2]", 5, NULL, NULL, &valid, NULL), SQUISH_OK);
    assert_true(valid);
    assert_int_equal(squish_schema_validate(s, "[1,2,3,4,5,6]", 13, NULL, NULL, &valid, NULL),
                     SQUISH_UNSUPPORTED);
    squish_schema_free(s);
}

static void bad_options_are_refused(void **state) {
    (void)state;
    squish_schema *s;
    squish_schema_options opt = squish_schema_options_default();
    opt.draft = 3;
    assert_int_equal(squish_schema_new(&s, "true", 4, &opt, NULL), SQUISH_INVALID);
    opt = squish_schema_options_default();
    opt.steps_max = 0;
    assert_int_equal(squish_schema_new(&s, "true", 4, &opt, NULL), SQUISH_INVALID);
    static const squish_schema_document nameless = {NULL, "{}", 2};
    opt = squish_schema_options_default();
    opt.documents = &nameless;
    opt.n_documents = 1;
    assert_int_equal(squish_schema_new(&s, "true", 4, &opt, NULL), SQUISH_INVALID);
}

/* One judgement with the n-th allocation failing. */
static squish_status judge_with(const squish_alloc *a) {
    static const char schema[] =
        "{\"$ref\":\"#/$defs/a\",\"uniqueItems\":true,\"unevaluatedItems\":false,\"$defs\":"
        "{\"a\":{\"items\":{\"pattern\":\"^[a-z]+$\"}}}}";
    squish_schema_options opt = squish_schema_options_default();
    squish_schema *s = NULL;
    bool valid = false;
    opt.alloc = a;
    squish_status st = squish_schema_new(&s, schema, strlen(schema), &opt, NULL);
    if (st == SQUISH_OK) {
        st = squish_schema_validate(s, "[\"a\",\"b\"]", 9, NULL, NULL, &valid, NULL);
        if (st == SQUISH_OK) assert_true(valid);
    }
    squish_schema_free(s);
    return st;
}

static void every_failed_allocation_is_a_status_and_leaks_nothing(void **state) {
    (void)state;
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state a = {.fail_at = n, .persistent = n % 2};
        const squish_alloc table = sq_test_alloc(&a);
        const squish_status st = judge_with(&table);
        assert_int_equal(a.live_blocks, 0);
        assert_int_equal(a.wrong_sizes, 0);
        if (st == SQUISH_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(st, SQUISH_NO_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(complaints_name_both_places),
        cmocka_unit_test(complaints_name_the_other_document),
        cmocka_unit_test(what_is_no_schema_is_refused_by_name),
        cmocka_unit_test(a_broken_definition_that_nobody_uses_hurts_nobody),
        cmocka_unit_test(bombs_end_in_a_status),
        cmocka_unit_test(the_step_limit_is_the_callers),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(every_failed_allocation_is_a_status_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
