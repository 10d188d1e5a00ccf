/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_golden.c - chat templates byte for byte against what Python's Jinja renders.
 *
 * cases.json holds small templates for every rule, squish-tiny.json the shipped model's own template; both
 * come from make_goldens.py beside them. Public templates of other models are test data that does not belong
 * to the project: they are looked for under $SQUISH_TESTDATA. */
#include "support/tmpl_run.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static json_t *load(const char *path) {
    json_error_t e;
    json_t *j = json_load_file(path, 0, &e);
    if (!j) print_error("%s: %s\n", path, e.text);
    return j;
}

/* Errors whose words a template's author sees; those of the Python language itself are worded our own way. */
static bool words_count(const char *error) {
    static const char *const types[] = {"UndefinedError: ", "TemplateError: ", "SecurityError: ",
                                        "TemplateRuntimeError: "};
    for (size_t i = 0; i < SQ_COUNT(types); i++)
        if (strncmp(error, types[i], strlen(types[i])) == 0) return true;
    return false;
}

/* One case: {"text": ...} or {"error": "Type: words"}. Returns 1 and says why if it differs. */
static int differs(const char *name, const char *source, size_t n, const json_t *vars, const json_t *wanted) {
    sq_test_tmpl t = sq_test_render_json(source, n, vars, NULL, NULL);
    const char *text = json_string_value(json_object_get(wanted, "text"));
    const char *error = json_string_value(json_object_get(wanted, "error"));
    size_t text_bytes = json_string_length(json_object_get(wanted, "text"));
    bool same = error ? t.st != SQUISH_OK && t.err.text[0] != 0
                      : t.st == SQUISH_OK && t.out.len == text_bytes &&
                            memcmp(sq_test_text(&t), text, text_bytes) == 0;
    if (error && same && words_count(error)) same = strstr(t.err.text, strstr(error, ": ") + 2) != NULL;
    if (!same)
        print_error("%s\n  template: %.300s\n  wanted: %s\n  got:    %s%s\n", name, source,
                    error ? error : text, sq_test_text(&t), t.err.text);
    sq_test_tmpl_free(&t);
    return !same;
}

static void small_templates_render_as_in_jinja(void **state) {
    (void)state;
    json_t *file = load("tests/golden/tmpl/cases.json");
    const json_t *cases = json_object_get(file, "cases");
    int bad = 0;
    assert_true(json_array_size(cases) >= 400);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *source = json_object_get(c, "template");
        char name[32];
        snprintf(name, sizeof name, "case %zu", i);
        bad += differs(name, json_string_value(source), json_string_length(source),
                       json_object_get(c, "vars"), c);
    }
    json_decref(file);
    assert_int_equal(bad, 0);
}

static void the_shipped_template_renders_as_in_jinja(void **state) {
    (void)state;
    json_t *config = load("models/squish-tiny/tokenizer_config.json");
    json_t *file = load("tests/golden/tmpl/squish-tiny.json");
    const json_t *source = json_object_get(config, "chat_template"), *cases = json_object_get(file, "cases");
    int bad = 0;
    assert_true(json_array_size(cases) >= 32);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        bad += differs(json_string_value(json_object_get(c, "name")), json_string_value(source),
                       json_string_length(source), json_object_get(c, "vars"), c);
    }
    json_decref(file);
    json_decref(config);
    assert_int_equal(bad, 0);
}

/* ---- public templates ------------------------------------------------------------------------ */

/* The standing variables, then those of the conversation. */
static json_t *variables_of(const json_t *conversations, const char *name) {
    static const char *const standing[] = {"bos_token", "eos_token", "date_string"};
    json_t *vars = json_object();
    for (size_t i = 0; i < SQ_COUNT(standing); i++)
        json_object_set(vars, standing[i],
                        json_object_get(json_object_get(conversations, "variables"), standing[i]));
    json_object_set_new(vars, "add_generation_prompt", json_true());
    json_object_update(vars, json_object_get(json_object_get(conversations, "conversations"), name));
    return vars;
}

static int check_template(const char *folder, const char *name, json_t *conversations, int *n_done) {
    char path[1200];
    int bad = 0;
    sq_arena arena;
    sq_span source;
    squish_error err = {0};
    sq_arena_init(&arena, NULL, 1 << 16, 0);
    snprintf(path, sizeof path, "%s/%s.jinja", folder, name);
    assert_int_equal(sq_os_read_file(path, SQ_MAX_TEMPLATE, &arena, &source, &err), SQUISH_OK);
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    json_t *wanted = load(path);
    const char *conversation;
    json_t *rendering;
    json_object_foreach(wanted, conversation, rendering) {
        json_t *vars = variables_of(conversations, conversation);
        bad += differs(conversation, (const char *)source.p, source.n, vars, rendering);
        json_decref(vars);
        ++*n_done;
    }
    json_decref(wanted);
    sq_arena_deinit(&arena);
    return bad;
}

static void public_templates_render_as_in_jinja(void **state) {
    (void)state;
    const char *data = getenv("SQUISH_TESTDATA");
    char folder[1000], path[1200];
    if (!data) {
        print_message("skipped: SQUISH_TESTDATA is not set, public templates are not at hand\n");
        skip();
    }
    snprintf(folder, sizeof folder, "%s/fixtures/templates", data);
    snprintf(path, sizeof path, "%s/conversations.json", folder);
    sq_arena arena;
    char **names;
    size_t n;
    int bad = 0, n_templates = 0, n_done = 0;
    squish_error err = {0};
    sq_arena_init(&arena, NULL, 1 << 16, 0);
    json_t *conversations = load(path);
    assert_int_equal(sq_os_list_dir(folder, &arena, &names, &n, &err), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        char *dot = strstr(names[i], ".jinja");
        if (!dot) continue;
        *dot = 0;
        n_templates++;
        bad += check_template(folder, names[i], conversations, &n_done);
    }
    json_decref(conversations);
    sq_arena_deinit(&arena);
    print_message("%d renderings of %d public templates\n", n_done, n_templates);
    assert_true(n_templates >= 12);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_templates_render_as_in_jinja),
        cmocka_unit_test(the_shipped_template_renders_as_in_jinja),
        cmocka_unit_test(public_templates_render_as_in_jinja),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
