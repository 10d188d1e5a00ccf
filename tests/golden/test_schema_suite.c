/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schema_suite.c - the JSON-Schema-Test-Suite, where $SQUISH_TESTDATA has it.
 *
 * Every case of 2020-12 and draft 7, required and optional (formats with format as a demand), each with the
 * suite's remotes registered. What we judge otherwise stands in schema/expected-failures.txt with its reason:
 * path, group, case and reason between tabs. */
#include "support/json_suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FILES_MAX = 400 };

static sq_arena arena;
static squish_schema_document remotes[FILES_MAX];
static size_t n_remotes;
static sq_ratchet ratchet;
static int passed, failed, refused;

static void add_remote(const char *path, const char *rel) {
    sq_span bytes;
    char uri[600];
    assert_true(n_remotes < FILES_MAX);
    assert_int_equal(sq_os_read_file(path, 1 << 20, &arena, &bytes, NULL), SQUISH_OK);
    snprintf(uri, sizeof uri, "http://localhost:1234%s", rel);
    remotes[n_remotes++] =
        (squish_schema_document){sq_arena_strndup(&arena, uri, strlen(uri)), (const char *)bytes.p, bytes.n};
}

static void judge_case(const squish_schema *s, const gs_value *test, const char *key, const char *refusal) {
    size_t n;
    const char *data = sq_suite_text(&arena, gs_value_find(test, "data"), &n);
    const bool wanted = gs_value_find(test, "valid")->yes;
    squish_error err = {0};
    bool valid = false;
    const squish_status st =
        s ? squish_schema_validate(s, data, n, NULL, NULL, &valid, &err) : SQUISH_INVALID;
    const bool pass = st == SQUISH_OK && valid == wanted;
    passed += pass;
    failed += st == SQUISH_OK && !pass;
    refused += st != SQUISH_OK;
    sq_ratchet_judge(&ratchet, key, pass,
                     !s                ? refusal
                     : st != SQUISH_OK ? err.text
                     : valid           ? "judged valid"
                                       : "judged invalid");
}

static void run_file(const char *path, const char *rel) {
    sq_span bytes;
    gs_value *groups;
    assert_int_equal(sq_os_read_file(path, 1 << 22, &arena, &bytes, NULL), SQUISH_OK);
    assert_int_equal(gs_value_read(&arena, (const char *)bytes.p, bytes.n, rel, &groups, NULL), SQUISH_OK);
    squish_schema_options opt = squish_schema_options_default();
    opt.documents = remotes;
    opt.n_documents = n_remotes;
    opt.draft = strstr(rel, "draft7") ? 7 : 2020;
    opt.assert_format = strstr(rel, "/format/") != NULL;
    for (uint32_t g = 0; g < groups->n; g++) {
        const gs_value *group = &groups->u.items[g], *tests = gs_value_find(group, "tests");
        size_t n;
        const char *schema = sq_suite_text(&arena, gs_value_find(group, "schema"), &n);
        squish_schema *s = NULL;
        squish_error err = {0};
        squish_schema_new(&s, schema, n, &opt, &err);
        for (uint32_t t = 0; t < tests->n; t++) {
            char key[1024];
            snprintf(key, sizeof key, "%s\t%s\t%s", rel + 1, sq_suite_string(group, "description"),
                     sq_suite_string(&tests->u.items[t], "description"));
            judge_case(s, &tests->u.items[t], key, err.text);
        }
        squish_schema_free(s);
    }
}

static void run_part(const char *root, const char *rel, const char *const *skip) {
    passed = failed = refused = 0;
    sq_suite_each_file(&arena, root, rel, skip, run_file);
    print_message("%s: %d passed, %d wrong, %d refused\n", rel + 1, passed, failed, refused);
    assert_true(passed > 100);
}

static void every_case_is_judged_as_the_suite_says_or_is_a_listed_exception(void **state) {
    (void)state;
    static const char *const none[] = {NULL}, *const required[] = {"optional", NULL},
                             *const not_format[] = {"format", NULL}, *const drafts[] = {"draft3", "v1", NULL};
    char root[600], tests[640], remote[640];
    if (!sq_suite_find("json-schema-test-suite", root, sizeof root)) {
        print_message("skipped: no JSON-Schema-Test-Suite under SQUISH_TESTDATA\n");
        skip();
    }
    snprintf(tests, sizeof tests, "%s/tests", root);
    snprintf(remote, sizeof remote, "%s/remotes", root);
    sq_arena_init(&arena, NULL, 1 << 20, 0);
    sq_ratchet_read(&ratchet, &arena, "tests/golden/schema/expected-failures.txt");
    sq_suite_each_file(&arena, remote, "", drafts, add_remote);
    run_part(tests, "/draft2020-12", required);
    run_part(tests, "/draft2020-12/optional", not_format);
    run_part(tests, "/draft2020-12/optional/format", none);
    run_part(tests, "/draft7", required);
    run_part(tests, "/draft7/optional", not_format);
    run_part(tests, "/draft7/optional/format", none);
    assert_int_equal(sq_ratchet_end(&ratchet), 0);
    sq_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_judged_as_the_suite_says_or_is_a_listed_exception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
