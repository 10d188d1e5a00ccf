/* SPDX-License-Identifier: Apache-2.0
 *
 * test_schema_suite.c - the JSON-Schema-Test-Suite, where $SQUISH_TESTDATA has it.
 *
 * Every case of 2020-12 and draft 7, required and optional (formats with format as a demand), each with the
 * suite's remotes registered. What we judge otherwise stands in schema/expected-failures.txt with its reason:
 * path, group, case and reason between tabs. A case that begins to fail and one that begins to pass both fail
 * the test, so the list is always the truth. */
#include "grammar/gram_schema_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FILES_MAX = 400, KNOWN_MAX = 1000 };

static sq_arena arena;
static squish_schema_document remotes[FILES_MAX];
static size_t n_remotes;
static char *known[KNOWN_MAX];
static bool met[KNOWN_MAX];
static size_t n_known;
static int passed, failed, refused, unexpected;

/* ---- values back to text, numbers as they were written ---------------------------------------- */

static void put_string(sq_buf *b, const char *s, size_t n) {
    sq_buf_putc(b, '"');
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)s[i];
        if (c < 0x20 || c == '"' || c == '\\')
            sq_buf_printf(b, "\\u%04x", c);
        else
            sq_buf_putc(b, (char)c);
    }
    sq_buf_putc(b, '"');
}

static void put_value(sq_buf *b, const gs_value *v) {
    const bool object = v->type == GS_OBJECT;
    switch (v->type) {
    case GS_NULL: sq_buf_puts(b, "null"); return;
    case GS_BOOLEAN: sq_buf_puts(b, v->yes ? "true" : "false"); return;
    case GS_NUMBER: sq_buf_append(b, v->u.number.text, v->u.number.text_bytes); return;
    case GS_STRING: put_string(b, v->u.text, v->n); return;
    default: break;
    }
    sq_buf_putc(b, object ? '{' : '[');
    for (uint32_t i = 0; i < v->n; i++) {
        if (i) sq_buf_putc(b, ',');
        if (object)
            put_string(b, v->u.object.members[i].name, v->u.object.members[i].bytes), sq_buf_putc(b, ':');
        put_value(b, object ? &v->u.object.members[i].value : &v->u.items[i]);
    }
    sq_buf_putc(b, object ? '}' : ']');
}

static char *text_of(const gs_value *v, size_t *n) {
    sq_buf b;
    sq_buf_init(&b, NULL, 1 << 22);
    put_value(&b, v);
    assert_false(b.failed);
    *n = b.len;
    char *s = sq_arena_strndup(&arena, b.data, b.len);
    sq_buf_deinit(&b);
    return s;
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *tail) {
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && strcmp(s + n - k, tail) == 0;
}

/* Every .json below root/rel but the folders called skip1 and skip2, sorted. */
static void each_file(const char *root, const char *rel, const char *const *skip,
                      void (*fn)(const char *path, const char *rel)) {
    char path[1024], sub[512];
    char **names;
    size_t n;
    snprintf(path, sizeof path, "%s%s", root, rel);
    assert_int_equal(sq_os_list_dir(path, &arena, &names, &n, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        bool skipped = false;
        for (const char *const *s = skip; *s; s++) skipped |= strcmp(*s, names[i]) == 0;
        if (skipped) continue;
        snprintf(sub, sizeof sub, "%s/%s", rel, names[i]);
        snprintf(path, sizeof path, "%s%s", root, sub);
        if (sq_os_is_dir(path))
            each_file(root, sub, skip, fn);
        else if (ends_with(sub, ".json"))
            fn(path, sub);
    }
}

static void add_remote(const char *path, const char *rel) {
    sq_span bytes;
    char uri[600];
    assert_true(n_remotes < FILES_MAX);
    assert_int_equal(sq_os_read_file(path, 1 << 20, &arena, &bytes, NULL), SQUISH_OK);
    snprintf(uri, sizeof uri, "http://localhost:1234%s", rel);
    remotes[n_remotes++] =
        (squish_schema_document){sq_arena_strndup(&arena, uri, strlen(uri)), (const char *)bytes.p, bytes.n};
}

static void read_known(void) {
    sq_span bytes;
    assert_int_equal(
        sq_os_read_file("tests/golden/schema/expected-failures.txt", 1 << 20, &arena, &bytes, NULL),
        SQUISH_OK);
    for (char *line = (char *)(uintptr_t)bytes.p, *end; *line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = 0;
        else
            end = line + strlen(line);
        char *reason = strrchr(line, '\t');
        if (*line == '#' || !*line) continue;
        assert_true(reason && reason[1] && n_known < KNOWN_MAX); /* every line says why */
        *reason = 0;
        known[n_known++] = line;
    }
}

/* ---- cases ----------------------------------------------------------------------------------- */

static void count(const char *key, bool pass, const char *why) {
    size_t i = 0;
    while (i < n_known && strcmp(known[i], key)) i++;
    if (i < n_known) met[i] = true;
    if (pass == (i == n_known)) return;
    unexpected++;
    print_message("%s: %s\t%s\n", pass ? "passes now" : "fails now", key, why);
}

static void judge_case(const squish_schema *s, const gs_value *test, const char *key, const char *refusal) {
    size_t n;
    const char *data = text_of(gs_value_find(test, "data"), &n);
    const bool wanted = gs_value_find(test, "valid")->yes;
    squish_error err = {0};
    bool valid = false;
    const squish_status st =
        s ? squish_schema_validate(s, data, n, NULL, NULL, &valid, &err) : SQUISH_INVALID;
    const bool pass = st == SQUISH_OK && valid == wanted;
    passed += pass;
    failed += st == SQUISH_OK && !pass;
    refused += st != SQUISH_OK;
    count(key, pass, !s ? refusal : st != SQUISH_OK ? err.text : valid ? "judged valid" : "judged invalid");
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
        const char *schema = text_of(gs_value_find(group, "schema"), &n);
        squish_schema *s = NULL;
        squish_error err = {0};
        squish_schema_new(&s, schema, n, &opt, &err);
        for (uint32_t t = 0; t < tests->n; t++) {
            char key[1024];
            snprintf(key, sizeof key, "%s\t%s\t%s", rel + 1, gs_value_find(group, "description")->u.text,
                     gs_value_find(&tests->u.items[t], "description")->u.text);
            judge_case(s, &tests->u.items[t], key, err.text);
        }
        squish_schema_free(s);
    }
}

static void run_part(const char *root, const char *rel, const char *const *skip) {
    passed = failed = refused = 0;
    each_file(root, rel, skip, run_file);
    print_message("%s: %d passed, %d wrong, %d refused\n", rel + 1, passed, failed, refused);
    assert_true(passed > 100);
}

static void every_case_is_judged_as_the_suite_says_or_is_a_listed_exception(void **state) {
    (void)state;
    static const char *const none[] = {NULL}, *const required[] = {"optional", NULL},
                             *const not_format[] = {"format", NULL}, *const drafts[] = {"draft3", "v1", NULL};
    const char *data = getenv("SQUISH_TESTDATA");
    char root[600], tests[640], remote[640];
    snprintf(root, sizeof root, "%s/fixtures/json-schema-test-suite", data ? data : "");
    if (!data || !sq_os_is_dir(root)) {
        print_message("skipped: no JSON-Schema-Test-Suite under SQUISH_TESTDATA\n");
        skip();
    }
    snprintf(tests, sizeof tests, "%s/tests", root);
    snprintf(remote, sizeof remote, "%s/remotes", root);
    sq_arena_init(&arena, NULL, 1 << 20, 0);
    read_known();
    each_file(remote, "", drafts, add_remote);
    run_part(tests, "/draft2020-12", required);
    run_part(tests, "/draft2020-12/optional", not_format);
    run_part(tests, "/draft2020-12/optional/format", none);
    run_part(tests, "/draft7", required);
    run_part(tests, "/draft7/optional", not_format);
    run_part(tests, "/draft7/optional/format", none);
    for (size_t i = 0; i < n_known; i++) {
        if (met[i]) continue;
        print_message("no such case: %s\n", known[i]);
        unexpected++;
    }
    sq_arena_deinit(&arena);
    assert_int_equal(unexpected, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_is_judged_as_the_suite_says_or_is_a_listed_exception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
