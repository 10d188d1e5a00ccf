/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_parse.c - what the compiler accepts and how it says no. */
#include "support/tmpl_run.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static void errors_name_the_line_and_the_construct(void **state) {
    (void)state;
    assert_refused("a\n{{ x|nosuch }}", NULL, SQUISH_UNSUPPORTED, "template line 2: unknown filter 'nosuch'");
    assert_refused("\n\n{% if x is nosuch %}{% endif %}", NULL, SQUISH_UNSUPPORTED,
                   "template line 3: unknown test 'nosuch'");
    assert_refused("{% include 'x' %}", NULL, SQUISH_UNSUPPORTED,
                   "template line 1: unsupported statement 'include'");
    assert_refused("{% for i of x %}", NULL, SQUISH_CORRUPT, "template line 1: expected 'in', found 'of'");
    assert_refused("{{ 1 +\n}}", NULL, SQUISH_CORRUPT, "template line 2: expected an expression, found '}}'");
    assert_refused("{% if x %}\n", NULL, SQUISH_CORRUPT,
                   "template line 1: the block opened here has no 'endif'");
    assert_refused("{% endfor %}", NULL, SQUISH_CORRUPT, "template line 1: nothing is open for 'endfor'");
    assert_refused("{{ (1] }}", NULL, SQUISH_CORRUPT, "template line 1: unexpected ']'");
    assert_refused("{{ 'a }}", NULL, SQUISH_CORRUPT, "template line 1: this string has no end");
    assert_refused("{% break %}", NULL, SQUISH_CORRUPT, "template line 1: break or continue outside a loop");
    assert_refused("{% for i in x %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}", NULL,
                   SQUISH_CORRUPT, "template line 1: break or continue outside a loop");
}

static void numbers_and_escapes_beyond_the_machine_are_refused(void **state) {
    (void)state;
    assert_renders("{{ 9223372036854775807 }}", NULL, "9223372036854775807");
    assert_refused("{{ 9223372036854775808 }}", NULL, SQUISH_UNSUPPORTED,
                   "template line 1: an integer of more than 63 bits");
    assert_refused("{{ 012 }}", NULL, SQUISH_CORRUPT,
                   "template line 1: a decimal number with a leading zero");
    const char *escape =
        "template line 1: a string escape that is malformed, named, NUL or half a surrogate pair";
    assert_refused("{{ '\\ud83d' }}", NULL, SQUISH_UNSUPPORTED, escape);
    assert_refused("{{ '\\x4' }}", NULL, SQUISH_UNSUPPORTED, escape);
    assert_refused("{{ '\\N{BULLET}' }}", NULL, SQUISH_UNSUPPORTED, escape);
    assert_refused("{{ '\\0' }}", NULL, SQUISH_UNSUPPORTED, escape);
}

/* `depth` opening marks around x, then as many closing ones. */
static squish_status compile_nested(const char *open, const char *close, int depth) {
    sq_buf source;
    sq_buf_init(&source, NULL, 1 << 20);
    bool expression = open[0] != '{' || open[1] != '%';
    if (expression) sq_buf_puts(&source, "{{ ");
    for (int i = 0; i < depth; i++) sq_buf_puts(&source, open);
    sq_buf_puts(&source, "x");
    for (int i = 0; i < depth; i++) sq_buf_puts(&source, close);
    if (expression) sq_buf_puts(&source, " }}");
    sq_test_tmpl t = sq_test_render_json(source.data, source.len, NULL, NULL, NULL);
    squish_status st = t.st;
    sq_test_tmpl_free(&t);
    sq_buf_deinit(&source);
    return st;
}

static void nesting_is_allowed_to_a_depth_and_refused_beyond(void **state) {
    (void)state;
    static const char *const marks[][2] = {{"(", ")"},
                                           {"[", "]"},
                                           {"not ", ""},
                                           {"- ", ""},
                                           {"1 if x else ", ""},
                                           {"f(", ")"},
                                           {"{'a': ", "}"},
                                           {"{% if x %}", "{% endif %}"},
                                           {"{% for i in [1] %}", "{% endfor %}"},
                                           {"{% set y %}", "{% endset %}"},
                                           {"{% macro m() %}", "{% endmacro %}"}};
    for (size_t i = 0; i < SQ_COUNT(marks); i++) {
        squish_status inside = compile_nested(marks[i][0], marks[i][1], 50);
        assert_true(inside == SQUISH_OK ||
                    inside == SQUISH_INVALID); /* compiled; x is undefined when it runs */
        assert_int_equal(compile_nested(marks[i][0], marks[i][1], 70), SQUISH_UNSUPPORTED);
        assert_int_not_equal(compile_nested(marks[i][0], marks[i][1], 20000), SQUISH_OK);
    }
    assert_int_equal(compile_nested("{{", "}}", 100000), SQUISH_UNSUPPORTED);
}

/* Chains are loops, not towers: any length passes. */
static void long_chains_are_not_nesting(void **state) {
    (void)state;
    static const char *const links[] = {" + 1", " ~ 'x'", "|string", " and 1", " or 0",
                                        ".a",   " == 1",  "[0]",     " * 2.5"};
    for (size_t i = 0; i < SQ_COUNT(links); i++) {
        sq_buf source;
        sq_buf_init(&source, NULL, 1 << 20);
        sq_buf_puts(&source, "{% if false %}{{ 1");
        for (int k = 0; k < 20000; k++) sq_buf_puts(&source, links[i]);
        sq_buf_puts(&source, " }}{% endif %}ok");
        assert_renders(source.data, NULL, "ok");
        sq_buf_deinit(&source);
    }
    sq_buf source;
    sq_buf_init(&source, NULL, 1 << 20);
    sq_buf_puts(&source, "{% if x == 0 %}0");
    for (int k = 1; k < 5000; k++) sq_buf_printf(&source, "{%% elif x == %d %%}%d", k, k);
    sq_buf_puts(&source, "{% endif %}");
    assert_renders(source.data, "{\"x\": 4711}", "4711");
    sq_buf_deinit(&source);
}

static void source_must_be_text_of_a_sane_size(void **state) {
    (void)state;
    static char big[SQ_MAX_TEMPLATE + 1];
    memset(big, 'x', sizeof big);
    sq_test_tmpl t = sq_test_render_json(big, sizeof big, NULL, NULL, NULL);
    assert_int_equal(t.st, SQUISH_UNSUPPORTED);
    assert_string_equal(t.err.text, "template: 1048577 bytes, more than 1048576");
    sq_test_tmpl_free(&t);
    t = sq_test_render_json(big, sizeof big - 1, NULL, NULL, NULL);
    assert_int_equal(t.st, SQUISH_OK);
    assert_int_equal(t.out.len, SQ_MAX_TEMPLATE);
    sq_test_tmpl_free(&t);
    t = sq_test_render_json("a\0b", 3, NULL, NULL, NULL);
    assert_int_equal(t.st, SQUISH_CORRUPT);
    assert_string_equal(t.err.text, "template: a NUL byte");
    sq_test_tmpl_free(&t);
    assert_refused("a\xff", NULL, SQUISH_CORRUPT, "template: ill-formed UTF-8");
}

static void the_source_is_kept_as_it_was(void **state) {
    (void)state;
    const char *source = "a\r\n{{ x }}\r\n\n";
    sq_test_tmpl t = sq_test_render(source, NULL);
    sq_tmpl_view view;
    const sq_tmpl *tmpl;
    assert_int_equal(sq_tmpl_open(&view, (sq_span){(const uint8_t *)t.blob.data, t.blob.len}, &tmpl, NULL),
                     SQUISH_OK);
    assert_string_equal(sq_tmpl_source(tmpl), source);
    assert_string_equal(sq_test_text(&t), "a\n\n");
    sq_test_tmpl_free(&t);
}

/* A block that sets a name outright owns it from its start: Jinja decides scopes before it runs. */
static void a_name_set_later_is_undefined_in_what_is_nested_before(void **state) {
    (void)state;
    assert_renders("{% for i in [1] %}[{{ x }}]{% endfor %}{% set x = 2 %}{{ x }}", "{\"x\": 1}", "[]2");
    assert_renders("{{ x }}{% for i in [1] %}[{{ x }}]{% endfor %}{% set x = 2 %}", "{\"x\": 1}", "1[1]");
    assert_renders("{% for i in [1] %}[{{ x }}]{% endfor %}{% if 1 %}{% set x = 2 %}{% endif %}{{ x }}",
                   "{\"x\": 1}", "[1]2");
    assert_renders("{% macro m() %}[{{ x }}]{% endmacro %}{{ m() }}{% set x = 2 %}{{ m() }}", "{\"x\": 1}",
                   "[][2]");
    assert_renders(
        "{% for i in [1, 2] %}{% for j in [1] %}{{ x }}{% endfor %}{% set x = i %}{{ x }},{% endfor %}",
        "{\"x\": 7}", "1,2,");
    assert_renders("{{ x }}{% for i in [1, 2] %}{% for j in [1] %}{{ x }}{% endfor %}{% set x = i %}{{ x "
                   "}},{% endfor %}",
                   "{\"x\": 7}", "771,72,");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_name_the_line_and_the_construct),
        cmocka_unit_test(numbers_and_escapes_beyond_the_machine_are_refused),
        cmocka_unit_test(nesting_is_allowed_to_a_depth_and_refused_beyond),
        cmocka_unit_test(long_chains_are_not_nesting),
        cmocka_unit_test(source_must_be_text_of_a_sane_size),
        cmocka_unit_test(the_source_is_kept_as_it_was),
        cmocka_unit_test(a_name_set_later_is_undefined_in_what_is_nested_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
