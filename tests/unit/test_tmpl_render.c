/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_render.c - the border of the renderer: variables, buffers, errors, and where it leaves Jinja's
 * path. */
#include "support/tmpl_run.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static void output_is_appended_and_a_failure_leaves_the_buffer_as_it_was(void **state) {
    (void)state;
    const char *sources[] = {"a{{ x }}", "a{{ x.y.z }}"};
    for (int i = 0; i < 2; i++) {
        sq_buf blob, out;
        sq_tmpl_view view;
        const sq_tmpl *t;
        squish_error err = {0};
        sq_buf_init(&blob, NULL, 1 << 20);
        sq_buf_init(&out, NULL, 1 << 20);
        sq_buf_puts(&out, "before ");
        assert_int_equal(sq_tmpl_compile(sources[i], strlen(sources[i]), NULL, &blob, &err), SQUISH_OK);
        assert_int_equal(sq_tmpl_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, &t, &err),
                         SQUISH_OK);
        json_t *vars = json_pack("{s:i}", "x", 5);
        squish_status st = sq_tmpl_render(t, vars, NULL, NULL, &out, &err);
        assert_int_equal(st, i == 0 ? SQUISH_OK : SQUISH_INVALID);
        assert_string_equal(out.data, i == 0 ? "before a5" : "before ");
        assert_string_equal(err.text, i == 0 ? "" : "template line 1: 'int object' has no attribute 'y'");
        json_decref(vars);
        sq_buf_deinit(&blob);
        sq_buf_deinit(&out);
    }
}

static void errors_carry_the_line_and_the_words_of_the_template(void **state) {
    (void)state;
    assert_refused("a\n{{ raise_exception('Only one system message!') }}", NULL, SQUISH_INVALID,
                   "template line 2: Only one system message!");
    assert_refused("{% macro m(x) %}\n{{ x.y }}\n{% endmacro %}\n{{ m(nothing) }}", NULL, SQUISH_INVALID,
                   "template line 2: 'nothing' is undefined");
    assert_refused("{{ messages[0]['content']['text'].upper() }}", "{\"messages\": [{\"content\": null}]}",
                   SQUISH_INVALID, "template line 1: 'None' has no attribute 'text'");
    assert_refused("{{ [1][3].x }}", NULL, SQUISH_INVALID, "template line 1: list object has no element 3");
}

/* A long message of a template ends at a whole character. */
static void a_long_error_is_cut_between_characters(void **state) {
    (void)state;
    sq_test_tmpl t = sq_test_render("{{ raise_exception('é' * 1000) }}", NULL);
    assert_int_equal(t.st, SQUISH_INVALID);
    assert_true(strlen(t.err.text) > 300);
    assert_true(sq_utf8_valid(t.err.text, strlen(t.err.text)));
    sq_test_tmpl_free(&t);
}

static void variables_must_be_an_object(void **state) {
    (void)state;
    assert_renders("{{ x is defined }}", NULL, "False");
    assert_refused("x", "[1]", SQUISH_INVALID, "template variables: an object is wanted");
}

/* Python prints long integers; here they end. */
static void integers_beyond_64_bits_are_an_error(void **state) {
    (void)state;
    const char *words = "template line 1: an integer of more than 64 bits";
    static const char *const sources[] = {"{{ x + 1 }}",
                                          "{{ -x - 2 }}",
                                          "{{ x * 2 }}",
                                          "{{ 2 ** 63 }}",
                                          "{{ (-x - 1) // -1 }}",
                                          "{{ -(-x - 1) }}",
                                          "{{ '9223372036854775808'|int }}",
                                          "{{ 1e19|int }}",
                                          "{{ (-x - 1)|abs }}"};
    for (size_t i = 0; i < SQ_COUNT(sources); i++)
        assert_refused(sources[i], "{\"x\": 9223372036854775807}", SQUISH_INVALID, words);
    assert_renders("{{ (-x - 1) % -1 }} {{ 2 ** 62 }} {{ '-9223372036854775808'|int }}",
                   "{\"x\": 9223372036854775807}", "0 4611686018427387904 -9223372036854775808");
}

/* The one departure from Jinja's immutable sandbox: lists take append. Other changes in place stay forbidden.
 */
static void append_works_and_nothing_else_changes_in_place(void **state) {
    (void)state;
    assert_renders("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}{{ _ }}", NULL, "[1, 2]None");
    assert_renders("{% set ns = namespace(l=[]) %}{% for i in range(3) %}{% set _ = ns.l.append(i) %}{% "
                   "endfor %}{{ ns.l }}",
                   NULL, "[0, 1, 2]");
    assert_renders("{% set _ = x.append(3) %}{{ x }}", "{\"x\": [1]}",
                   "[1, 3]"); /* a copy: the caller's JSON stays */
    assert_refused("{{ [1].pop() }}", NULL, SQUISH_INVALID,
                   "template line 1: access to attribute 'pop' of 'list' object is unsafe.");
    assert_refused("{{ {}.update({}) }}", NULL, SQUISH_INVALID,
                   "template line 1: access to attribute 'update' of 'dict' object is unsafe.");
}

static void the_callers_json_is_not_changed(void **state) {
    (void)state;
    json_t *vars = json_loads("{\"x\": [1, {\"a\": [2]}], \"d\": {\"k\": \"v\"}}", 0, NULL),
           *copy = json_deep_copy(vars);
    const char *source = "{% set _ = x.append(9) %}{% set _ = x[1].a.append(8) %}{{ x }}{{ d }}";
    sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
    assert_string_equal(sq_test_text(&t), "[1, {'a': [2, 8]}, 9]{'k': 'v'}");
    assert_true(json_equal(vars, copy));
    sq_test_tmpl_free(&t);
    json_decref(vars);
    json_decref(copy);
}

static void texts_may_hold_nul_bytes(void **state) {
    (void)state;
    json_t *vars = json_object();
    json_object_set_new(vars, "x", json_stringn("a\0trim", 6));
    const char *source =
        "{{ x|length }}{{ x[2:] }}{{ x|upper|tojson }}{{ x is filter }}{{ [x]|map(x)|list }}";
    sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
    assert_int_equal(t.st, SQUISH_INVALID); /* no filter is called "a\0trim" */
    sq_test_tmpl_free(&t);
    source = "{{ x|length }}{{ x[2:] }}{{ x|upper|tojson }}{{ x is filter }}";
    t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
    assert_string_equal(sq_test_text(&t), "6trim\"A\\u0000TRIM\"False");
    sq_test_tmpl_free(&t);
    json_decref(vars);
}

/* ---- one template, many threads -------------------------------------------------------------- */

typedef struct {
    const sq_tmpl *t;
    int failures;
} job;

static void *render_often(void *p) {
    job *j = p;
    for (int i = 0; i < 200; i++) {
        json_t *vars = json_pack("{s:[i,i,i]}", "x", i, i + 1, i + 2);
        sq_buf out;
        char wanted[64];
        sq_buf_init(&out, NULL, 1 << 16);
        snprintf(wanted, sizeof wanted, "%d,%d,%d", i, i + 1, i + 2);
        j->failures +=
            sq_tmpl_render(j->t, vars, NULL, NULL, &out, NULL) != SQUISH_OK || strcmp(out.data, wanted) != 0;
        sq_buf_deinit(&out);
        json_decref(vars);
    }
    return NULL;
}

static void a_template_serves_several_threads(void **state) {
    (void)state;
    const char *source = "{% set s %}{{ x|join(',') }}{% endset %}{% for c in s %}{{ c }}{% endfor %}";
    sq_buf blob;
    sq_tmpl_view view;
    const sq_tmpl *t;
    sq_buf_init(&blob, NULL, 1 << 20);
    assert_int_equal(sq_tmpl_compile(source, strlen(source), NULL, &blob, NULL), SQUISH_OK);
    assert_int_equal(sq_tmpl_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, &t, NULL),
                     SQUISH_OK);
    pthread_t threads[4];
    job jobs[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (job){.t = t};
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, &jobs[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].failures, 0);
    }
    sq_buf_deinit(&blob);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_is_appended_and_a_failure_leaves_the_buffer_as_it_was),
        cmocka_unit_test(errors_carry_the_line_and_the_words_of_the_template),
        cmocka_unit_test(a_long_error_is_cut_between_characters),
        cmocka_unit_test(variables_must_be_an_object),
        cmocka_unit_test(integers_beyond_64_bits_are_an_error),
        cmocka_unit_test(append_works_and_nothing_else_changes_in_place),
        cmocka_unit_test(the_callers_json_is_not_changed),
        cmocka_unit_test(texts_may_hold_nul_bytes),
        cmocka_unit_test(a_template_serves_several_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
