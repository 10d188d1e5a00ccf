/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tmpl_faults.c - compile and render with the n-th allocation failing: a status, no leak, nothing
 * half-made. */
#include "support/faults.h"
#include "support/tmpl_run.h"

#include <setjmp.h>

#include <cmocka.h>

/* A source that makes every table of the compiler and every kind of value of the renderer grow. */
static void make_source(sq_buf *source) {
    sq_buf_init(source, NULL, 1 << 20);
    sq_buf_puts(source, "{% macro m(a, b=1) %}{{ a ~ b }}{{ varargs }}{{ caller(1) if caller }}{% endmacro %}"
                        "{% set ns = namespace(l=[], s='') %}{% for x in items if x != 3 %}{% set ns.s = "
                        "ns.s + x|string + 'é' * 50 %}"
                        "{% set _ = ns.l.append({'k': x, 'v': [x, (x, 2.5)]}) %}{{ loop.length }}{{ m(x, 2, "
                        "3, *[4]) }}{% endfor %}"
                        "{{ ns.l|tojson(indent=2, sort_keys=true) }}{{ "
                        "ns.l|map(attribute='k')|sort(reverse=true)|join('-') }}"
                        "{{ '{\"a\": [1, \"\\\\u00e9\"]}'|from_json }}{{ ns.s|upper|replace('É', 'e')|length "
                        "}}{{ ns.s.split('é')[0:2] }}"
                        "{% call(v) m(1) %}[{{ v }}]{% endcall %}{% set t | trim %} {{ '%5s|%d' % ('a', 7) "
                        "}} {% endset %}{{ t[::-1] }}");
    for (int i = 0; i < 200; i++) sq_buf_printf(source, "{%% set n%d = 'text %d' %%}{{ n%d }}", i, i, i);
    for (int i = 0; i < 40; i++) sq_buf_puts(source, "{% if true %}");
    for (int i = 0; i < 40; i++) sq_buf_puts(source, "{% endif %}");
    sq_buf_puts(source, "{{ more }}{{ 'a' 'b' \"c\" }}{{ range(3)|list }}{{ strftime_now('%Y') }}{{ [3, 1, "
                        "3]|unique|list }}");
}

static void every_failing_allocation_ends_cleanly(void **state) {
    (void)state;
    sq_buf source;
    make_source(&source);
    json_t *vars =
        json_loads("{\"items\": [1, 2, 3, 4, 5], \"more\": {\"a\": [true, null, \"x\"]}}", 0, NULL);
    for (int persistent = 0; persistent < 2; persistent++) {
        for (int64_t n = 1;; n++) {
            struct sq_test_alloc_state s = {.fail_at = n, .persistent = persistent};
            squish_alloc a = sq_test_alloc(&s);
            sq_test_tmpl t = sq_test_render_json(source.data, source.len, vars, &a, NULL);
            squish_status st = t.st;
            if (st != SQUISH_OK) {
                assert_int_equal(st, SQUISH_NO_MEMORY);
                assert_true(t.err.text[0] != 0);
                assert_int_equal(t.out.len, 0);
            }
            sq_test_tmpl_free(&t);
            assert_int_equal(s.live_blocks, 0);
            assert_int_equal(s.wrong_sizes, 0);
            if (st == SQUISH_OK) {
                assert_true(n > 40); /* the loop did reach every table */
                if (persistent) print_message("%lld allocations made to fail in turn\n", (long long)n - 1);
                break;
            }
        }
    }
    json_decref(vars);
    sq_buf_deinit(&source);
}

static void refused_sources_leak_nothing(void **state) {
    (void)state;
    static const char *const sources[] = {"{% if x %}", "{{ 'a' 'b' c(d=1, 2) }}", "{{ 'abc\\xZZ' }}",
                                          "{% macro m(a=[1, {", "{{ a|b }}"};
    for (size_t i = 0; i < SQ_COUNT(sources); i++) {
        struct sq_test_alloc_state s = {0};
        squish_alloc a = sq_test_alloc(&s);
        sq_test_tmpl t = sq_test_render_json(sources[i], strlen(sources[i]), NULL, &a, NULL);
        assert_int_not_equal(t.st, SQUISH_OK);
        sq_test_tmpl_free(&t);
        assert_int_equal(s.live_blocks, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failing_allocation_ends_cleanly),
        cmocka_unit_test(refused_sources_leak_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
