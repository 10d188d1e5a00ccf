/* SPDX-License-Identifier: Apache-2.0
 *
 * test_calls_tags.c - what the structural tags of a style allow is read as calls by its reader: random walks
 * through the grammar, byte by byte, for every style that calls are required in. */
#include "grammar/grammar.h"
#include "support/calls_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static const char tools_text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"parameters\":{"
                                 "\"type\":\"object\",\"properties\":{\"a\":"
                                 "{\"type\":\"integer\",\"minimum\":-99,\"maximum\":99},\"word\":{\"enum\":["
                                 "\"one\",\"two \\\"2\\\"\"]},\"on\":{"
                                 "\"type\":\"boolean\"}},\"required\":[\"a\"],\"additionalProperties\":false}"
                                 "}},{\"type\":\"function\",\"function\":"
                                 "{\"name\":\"get.weather-1\",\"parameters\":{\"type\":\"object\","
                                 "\"properties\":{\"city\":{\"type\":\"string\","
                                 "\"maxLength\":6},\"days\":{\"type\":\"array\",\"items\":{\"type\":"
                                 "\"integer\",\"minimum\":0,\"maximum\":9},"
                                 "\"maxItems\":3}},\"additionalProperties\":false}}}]";

/* A word of the language, or false where the walk took too long. */
static bool walk(sq_gram *g, uint64_t *seed, sq_buf *out) {
    sq_matcher *m;
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    bool whole = false;
    out->len = 0;
    for (int step = 0; !whole && step < 2000; step++) {
        unsigned char next[256];
        size_t n = 0;
        for (int b = 9; b < 256; b++) {
            const unsigned char c = (unsigned char)b;
            bool ok = false;
            if (b >= 127 && n > 0)
                break; /* of marks only: characters beyond ASCII where nothing else can come */
            assert_int_equal(sq_matcher_bytes(m, &c, 1, &ok, NULL), SQUISH_OK);
            if (!ok) continue;
            sq_matcher_rollback(m, 1);
            next[n++] = c;
        }
        whole = sq_matcher_may_end(m) && (n == 0 || sq_splitmix64(seed) % 2);
        if (whole || n == 0) continue;
        const unsigned char c = next[sq_splitmix64(seed) % n];
        bool ok = false;
        sq_matcher_bytes(m, &c, 1, &ok, NULL);
        sq_buf_putc(out, (char)c);
    }
    sq_matcher_free(m);
    return whole;
}

static void what_a_grammar_allows_is_read_as_calls(void **state) {
    (void)state;
    json_t *tools = json_loads(tools_text, 0, NULL);
    uint64_t seed = 20261129;
    sq_buf text;
    sq_buf_init(&text, NULL, 1 << 16);
    for (int style = SQ_CALLS_HERMES; style < SQ_CALLS_STYLES; style++) {
        for (int named = 0; named < 2; named++) {
            const sq_calls_manner manner = {.style = (sq_calls_style)style, .tools = true, .named = named};
            json_t *tags = sq_calls_tags(&manner, SQ_CALLS_MAY_THINK, tools, SQ_CALLS_REQUIRED, true, NULL);
            char *source = json_dumps(tags, JSON_COMPACT);
            sq_gram *g;
            squish_error err = {0};
            if (sq_gram_new(&g, SQ_GRAM_TAGS, source, strlen(source), NULL, &err) != SQUISH_OK)
                fail_msg("%s: %s", sq_calls_style_name(manner.style), err.text);
            int n = 0;
            for (int i = 0; i < 60; i++) {
                if (!walk(g, &seed, &text)) continue;
                const sq_calls_options o = {.manner = manner, .tools = tools, .whole = true};
                char *told = calls_tell_pieces(&o, text.data, text.len, 0, 1 + i % 7);
                const char *first = told;
                if (style == SQ_CALLS_HARMONY && *first == '[') first = strchr(first, ']') + 1;
                if (strncmp(first, "{{", 2) != 0 || strcmp(told + strlen(told) - 2, "}}") != 0)
                    fail_msg("%s: '%s' is told as '%s'", sq_calls_style_name(manner.style), text.data, told);
                free(told);
                n++;
            }
            assert_true(n > 5);
            sq_gram_free(g);
            free(source);
            json_decref(tags);
        }
    }
    sq_buf_deinit(&text);
    json_decref(tools);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_a_grammar_allows_is_read_as_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
