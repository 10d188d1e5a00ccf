/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grammar_suite.c - the JSON-Schema-Test-Suite against the engine, where $SQUISH_TESTDATA has it.
 *
 * Each schema becomes a grammar, and each instance is read by it as a text, byte by byte: the grammar must
 * take it to the end where the suite calls it valid, and not where it does not. What comes out otherwise
 * stands in schema/engine-exceptions.txt with its reason: path, group, case and reason between tabs; the case
 * of a schema that the engine refuses is "*". */
#include "grammar/grammar.h"
#include "support/json_suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct {
    int right, accepted, rejected, refused;
} tally;

static sq_arena arena;
static sq_ratchet ratchet;
static tally now;

static bool reads(sq_gram *g, const char *text, size_t n) {
    sq_matcher *m;
    squish_error err = {0};
    bool ok = true;
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, &err), SQUISH_OK);
    for (size_t i = 0; i < n && ok; i++)
        if (sq_matcher_bytes(m, text + i, 1, &ok, &err) != SQUISH_OK) fail_msg("%s", err.text);
    ok = ok && sq_matcher_may_end(m);
    sq_matcher_free(m);
    return ok;
}

static void judge_case(sq_gram *g, const gs_value *test, const char *group) {
    size_t n;
    char key[2048];
    const char *data = sq_suite_text(&arena, gs_value_find(test, "data"), &n);
    const bool wanted = gs_value_find(test, "valid")->yes, taken = reads(g, data, n);
    now.right += taken == wanted;
    now.accepted += taken && !wanted;
    now.rejected += !taken && wanted;
    snprintf(key, sizeof key, "%s\t%s", group, sq_suite_string(test, "description"));
    sq_ratchet_judge(&ratchet, key, taken == wanted, taken ? "accepted" : "rejected");
}

static void judge_group(const gs_value *group, const char *rel) {
    const gs_value *tests = gs_value_find(group, "tests");
    size_t n;
    char key[1024], refusal[1100];
    const char *schema = sq_suite_text(&arena, gs_value_find(group, "schema"), &n);
    sq_gram *g;
    squish_error err = {0};
    const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA_LOOSE, schema, n, NULL, &err);
    /* A schema that nothing satisfies makes no grammar, and that is right if the suite has no valid instance
     * of it. */
    bool nothing = st == SQUISH_INVALID && strstr(err.text, "matches nothing");
    for (uint32_t t = 0; t < tests->n; t++) nothing &= !gs_value_find(&tests->u.items[t], "valid")->yes;
    snprintf(key, sizeof key, "%s\t%s", rel, sq_suite_string(group, "description"));
    snprintf(refusal, sizeof refusal, "%s\t*", key);
    sq_ratchet_judge(&ratchet, refusal, st == SQUISH_OK || nothing, err.text);
    for (uint32_t t = 0; t < tests->n && st == SQUISH_OK; t++) judge_case(g, &tests->u.items[t], key);
    if (st == SQUISH_OK)
        sq_gram_free(g);
    else if (nothing)
        now.right += (int)tests->n;
    else
        now.refused += (int)tests->n;
}

static void run_file(const char *path, const char *rel) {
    sq_span bytes;
    gs_value *groups;
    assert_int_equal(sq_os_read_file(path, 1 << 22, &arena, &bytes, NULL), SQUISH_OK);
    assert_int_equal(gs_value_read(&arena, (const char *)bytes.p, bytes.n, rel, &groups, NULL), SQUISH_OK);
    for (uint32_t g = 0; g < groups->n; g++) judge_group(&groups->u.items[g], rel + 1);
}

static int run_part(const char *root, const char *rel, const char *const *skip) {
    now = (tally){0};
    sq_suite_each_file(&arena, root, rel, skip, run_file);
    print_message("%s: %d right, %d wrongly accepted, %d wrongly rejected, %d of refused schemas\n", rel + 1,
                  now.right, now.accepted, now.rejected, now.refused);
    assert_true(now.right > 50);
    return now.accepted;
}

static void every_instance_is_read_as_the_suite_says_or_is_a_listed_exception(void **state) {
    (void)state;
    static const char *const none[] = {NULL}, *const required[] = {"optional", NULL},
                             *const not_format[] = {"format", NULL};
    char root[600];
    if (!sq_suite_find("json-schema-test-suite/tests", root, sizeof root)) {
        print_message("skipped: no JSON-Schema-Test-Suite under SQUISH_TESTDATA\n");
        skip();
    }
    sq_arena_init(&arena, NULL, 1 << 20, 0);
    sq_ratchet_read(&ratchet, &arena, "tests/golden/schema/engine-exceptions.txt");
    int accepted = 0;
    accepted += run_part(root, "/draft2020-12", required);
    accepted += run_part(root, "/draft2020-12/optional", not_format);
    accepted += run_part(root, "/draft2020-12/optional/format", none);
    run_part(root, "/draft7", required);
    run_part(root, "/draft7/optional", not_format);
    run_part(root, "/draft7/optional/format", none);
    assert_true(accepted <= 20);
    assert_int_equal(sq_ratchet_end(&ratchet), 0);
    sq_arena_deinit(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_instance_is_read_as_the_suite_says_or_is_a_listed_exception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
