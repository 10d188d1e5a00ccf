/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_limits.c - template bombs end in a clean error, soon. */
#include "support/cpu_clock.h"
#include "support/tmpl_run.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

/* The goal is 200 ms on a quiet machine; sanitizers and busy neighbours get more. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MS_MAX = 8000 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { MS_MAX = 8000 };
#else
enum { MS_MAX = 1000 };
#endif
#else
enum { MS_MAX = 1000 };
#endif

static const char *const bombs[] = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [0] * 10**9 }}",
    "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l "
    "}}",
    "{% set ns = namespace(l=[1]) %}{% for i in range(150) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
    "ns.l == ns.l[:] }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% macro m(n) %}{{ n }}{% if n < 10**6 %}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
    "{% for i in range(99999) %}{% for j in range(99) %}{{ 'abcdefghijklmnopqrstuvwxyz' * 400 }}{% endfor "
    "%}{% endfor %}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{% set x = s|upper %}{% endfor %}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{% if 'ba' * 9 ~ 'x' in s %}y{% endif %}{% endfor "
    "%}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{{ s[::-1]|length }}{% endfor %}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{{ s.split('a')|length }}{% endfor %}",
    "{% set s = 'ab' * 500000 %}{% for i in range(99999) %}{{ s.replace('a', s) }}{% endfor %}",
    "{% set s = ' ' * 1000000 %}{% for i in range(99999) %}{{ s.strip('abcdefghijklmnopqrstuvwxyz ') }}{% "
    "endfor %}",
    "{% set s = 'Σ' * 500000 %}{{ s|lower }}",
    "{% set l = range(99999)|list %}{% for i in range(99999) %}{% if -1 in l %}y{% endif %}{% endfor %}",
    "{% set l = range(99999)|list %}{% for i in range(999) %}{% set x = l|sort(reverse=true) %}{% endfor %}",
    "{% set l = range(99999)|list %}{{ l|unique|list|length }}",
    "{% for i in x recursive %}{{ loop(x) }}{% endfor %}",
    "{% set x = [1] %}{% for i in x %}{% set y = x.append(i) %}{% endfor %}",
    "{{ 2 ** 10 ** 10 }}",
    "{{ '%100000000d' % 5 }}{{ '%.99999999f' % 1.5 }}",
    "{{ 'a'.center(10 ** 12) }}",
    "{% for i in range(99999) %}{% set x = x|default('') ~ 'x' * 99999 %}{{ x|tojson|tojson|tojson }}{% "
    "endfor %}",
    "{% filter indent(100000) %}{{ '\n x' * 100000 }}{% endfilter %}",
};

static void bombs_end_in_a_clean_error(void **state) {
    (void)state;
    double slowest = 0;
    for (size_t i = 0; i < SQ_COUNT(bombs); i++) {
        uint64_t start = sq_test_cpu_ns();
        sq_test_tmpl t = sq_test_render(bombs[i], "{\"x\": [1, 2]}");
        double ms = (double)(sq_test_cpu_ns() - start) / 1e6;
        if (t.st != SQUISH_NO_MEMORY && t.st != SQUISH_INVALID) print_error("%s: %s\n", bombs[i], t.err.text);
        assert_true(t.st == SQUISH_NO_MEMORY || t.st == SQUISH_INVALID);
        assert_true(strncmp(t.err.text, "template line ", 14) == 0);
        assert_int_equal(t.out.len, 0);
        if (ms > MS_MAX) print_error("%s: %.0f ms\n", bombs[i], ms);
        assert_true(ms < MS_MAX);
        if (ms > slowest) slowest = ms;
        sq_test_tmpl_free(&t);
    }
    print_message("slowest bomb: %.0f ms\n", slowest);
}

static void a_million_set_statements_end(void **state) {
    (void)state;
    static const char one[] = "{% set x=1%}";
    sq_buf source;
    sq_buf_init(&source, NULL, 16 << 20);
    while (source.len + sizeof one <= SQ_MAX_TEMPLATE) sq_buf_puts(&source, one);
    uint64_t start = sq_test_cpu_ns();
    sq_test_tmpl t = sq_test_render_json(source.data, source.len, NULL, NULL, NULL);
    double ms = (double)(sq_test_cpu_ns() - start) / 1e6;
    assert_int_equal(t.st, SQUISH_OK); /* as many as fit into the source's ceiling */
    assert_true(ms < MS_MAX);
    sq_test_tmpl_free(&t);
    while (source.len < 12000000) sq_buf_puts(&source, one);
    t = sq_test_render_json(source.data, source.len, NULL, NULL, NULL);
    assert_int_equal(t.st, SQUISH_UNSUPPORTED);
    sq_test_tmpl_free(&t);
    sq_buf_deinit(&source);
    assert_refused(
        "{% for i in range(99999) %}{% for j in range(99) %}{% set x = j %}{% endfor %}{% endfor %}", NULL,
        SQUISH_NO_MEMORY, "template line 1: more than 5000000 steps");
}

/* Many names, all different: looking them up must not grow with the square. */
static void many_names_end(void **state) {
    (void)state;
    sq_buf source;
    sq_buf_init(&source, NULL, 16 << 20);
    for (int i = 0; source.len + 40 < SQ_MAX_TEMPLATE; i++)
        sq_buf_printf(&source, "{%% set n%d = m%d %%}", i, i);
    uint64_t start = sq_test_cpu_ns();
    sq_test_tmpl t = sq_test_render_json(source.data, source.len, NULL, NULL, NULL);
    assert_int_equal(t.st, SQUISH_NO_MEMORY);
    assert_true((double)(sq_test_cpu_ns() - start) / 1e6 < MS_MAX);
    sq_test_tmpl_free(&t);
    sq_buf_deinit(&source);
}

static void limits_of_the_caller_hold(void **state) {
    (void)state;
    const char *source = "{% for i in range(1000) %}{{ i }}{% endfor %}";
    sq_tmpl_limits limits = {.steps_max = 100};
    sq_test_tmpl t = sq_test_render_json(source, strlen(source), NULL, NULL, &limits);
    assert_int_equal(t.st, SQUISH_NO_MEMORY);
    assert_string_equal(t.err.text, "template line 1: more than 100 steps");
    sq_test_tmpl_free(&t);
    limits = (sq_tmpl_limits){.output_max = 2889}; /* 2890 digits */
    t = sq_test_render_json(source, strlen(source), NULL, NULL, &limits);
    assert_int_equal(t.st, SQUISH_NO_MEMORY);
    assert_string_equal(t.err.text, "template line 1: more than 2889 bytes of text");
    sq_test_tmpl_free(&t);
    limits.output_max = 2890;
    t = sq_test_render_json(source, strlen(source), NULL, NULL, &limits);
    assert_int_equal(t.st, SQUISH_OK);
    assert_int_equal(t.out.len, 2890);
    sq_test_tmpl_free(&t);
}

/* A long conversation must not come near the limits that stop bombs. */
static void a_megabyte_of_conversation_passes(void **state) {
    (void)state;
    const char *source =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + "
        "m.content.split('</think>')[-1].lstrip('\\n')"
        " + '<|im_end|>\\n' }}{% if '</think>' in m.content and m.content|trim|length %}{{ m|tojson }}"
        "{% endif %}{% endfor %}";
    json_t *vars = json_object(), *messages = json_array();
    char *text = malloc(10000);
    memset(text, 'w', 10000);
    for (int i = 0; i < 200; i++)
        json_array_append_new(messages, json_pack("{s:s, s:s%}", "role", i % 2 ? "user" : "assistant",
                                                  "content", text, (size_t)10000));
    json_object_set_new(vars, "messages", messages);
    sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
    assert_string_equal(t.err.text, "");
    assert_true(t.out.len > 2000000);
    sq_test_tmpl_free(&t);
    json_decref(vars);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bombs_end_in_a_clean_error),
        cmocka_unit_test(a_million_set_statements_end),
        cmocka_unit_test(many_names_end),
        cmocka_unit_test(limits_of_the_caller_hold),
        cmocka_unit_test(a_megabyte_of_conversation_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
