/* SPDX-License-Identifier: Apache-2.0
 *
 * test_calls_faults.c - a parser of calls whose n-th allocation fails: it says so or goes on, and leaks
 * nothing. */
#include "calls/calls.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void count_events(void *user, const sq_calls_event *ev) {
    (void)ev;
    ++*(int *)user;
}

/* In pieces of three bytes; true: it went through. */
static bool parse(const sq_calls_options *o, const char *text, const squish_alloc *a) {
    int events = 0;
    sq_calls *p = sq_calls_new(o, count_events, &events, a);
    bool ok = p != NULL;
    for (size_t at = 0, n = strlen(text); ok && at < n; at += 3)
        ok = sq_calls_push(p, text + at, n - at < 3 ? n - at : 3);
    ok = ok && sq_calls_finish(p);
    sq_calls_free(p);
    return ok;
}

static void every_failing_allocation_ends_cleanly(void **state) {
    (void)state;
    static const struct {
        sq_calls_style style;
        const char *text;
    } rows[] = {
        {SQ_CALLS_HERMES,
         "<think>Hm.</think> So. <tool_call>{\"name\":\"f\",\"arguments\":{\"a\":[1,2]}}</tool_call>"},
        {SQ_CALLS_HERMES, "<tool_call>{\"arguments\":{\"a\":1},\"name\":\"f\"}</tool_call>"},
        {SQ_CALLS_XML, "<tool_call><function=f><parameter=a>x</parameter></function></tool_call>"},
        {SQ_CALLS_LLAMA, "{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{}}"},
        {SQ_CALLS_MISTRAL, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}}][TOOL_CALLS]f[ARGS]{}"},
        {SQ_CALLS_PYTHON, "[f(a='x', b=[1, {'k': None}])]"},
        {SQ_CALLS_HARMONY,
         "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>y"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int whole = 0; whole < 2; whole++)
            for (int persistent = 0; persistent < 2; persistent++)
                for (int64_t n = 1;; n++) {
                    const sq_calls_options o = {.manner = {rows[i].style, true, false, "<think>", "</think>"},
                                                .whole = whole};
                    struct sq_test_alloc_state s = {.fail_at = n, .persistent = persistent};
                    const squish_alloc a = sq_test_alloc(&s);
                    const bool ok = parse(&o, rows[i].text, &a);
                    assert_int_equal(s.live_blocks, 0);
                    assert_int_equal(s.wrong_sizes, 0);
                    if (s.count < n) { /* it took no more than that */
                        assert_true(ok && n > 2);
                        break;
                    }
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_failing_allocation_ends_cleanly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
