/* SPDX-License-Identifier: Apache-2.0
 *
 * test_calls.c - what a parser tells of answers in every style, and that the pieces do not matter. */
#include "support/calls_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define BAR "\xEF\xBD\x9C"
#define DOT "\xE2\x96\x81"
#define DS(word) "<" BAR "tool" DOT word BAR ">"

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{"
    "\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"number\"},\"note\":{\"type\":\"string\"},\"list\":{"
    "\"type\":"
    "\"array\"}}}}},{\"type\":\"function\",\"function\":{\"name\":\"get.weather-1\",\"parameters\":{}}}]";

typedef struct {
    sq_calls_style style;
    const char *text, *told, *streamed; /* streamed: where it differs, since something was told already */
} row;

static const row rows[] = {
    /* no calls at all */
    {SQ_CALLS_NONE, "Hello.\n", "Hello.\n", NULL},
    {SQ_CALLS_NONE, "<tool_call>{}</tool_call>", "<tool_call>{}</tool_call>", NULL},
    {SQ_CALLS_HERMES, "", "", NULL},
    {SQ_CALLS_HERMES, " \n ", " \n ", NULL},
    {SQ_CALLS_HERMES, "a < b <tool b <<tool_cal", "a < b <tool b <<tool_cal", NULL},

    /* hermes */
    {SQ_CALLS_HERMES, "<tool_call>\n{\"name\": \"sum\", \"arguments\": {\"a\": 1, \"b\": 2}}\n</tool_call>",
     "{{sum {\"a\": 1, \"b\": 2}}}", NULL},
    {SQ_CALLS_HERMES,
     "I "
     "add.\n<tool_call>{\"name\":\"sum\",\"arguments\":{}}</"
     "tool_call>\n<tool_call>{\"name\":\"get.weather-1\","
     "\"arguments\":{\"x\":[\"}\",{}]}}</tool_call> \n",
     "I add.{{sum {}}}{{get.weather-1 {\"x\":[\"}\",{}]}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"arguments\":{}}</tool_call>\nDone.",
     "{{sum {}}}\nDone.", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"arguments\":{\"a\":1},\"name\":\"sum\"}</tool_call>",
     "{{sum {\"a\":1}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"arguments\":\"{\\\"a\\\": 1}\"}</tool_call>",
     "{{sum {\"a\":1}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"parameters\":{\"a\":1},\"id\":\"x\"}</tool_call>",
     "{{sum {\"a\":1}}}", NULL},
    {SQ_CALLS_HERMES,
     "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"sum\",\"arguments\":{}}}</tool_call>",
     "{{sum {}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\"}</tool_call>", "{{sum {}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"s\\u0075m\",\"arguments\":{}}", "{{sum {}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":1}",
     "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":1}", "{{sum {\"a\":1}"},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":",
     "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":", "{{sum {\"a\":"},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"su", "<tool_call>{\"name\":\"su", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"other\",\"arguments\":{}}</tool_call>",
     "<tool_call>{\"name\":\"other\",\"arguments\":{}}</tool_call>", NULL},
    {SQ_CALLS_HERMES, "<tool_call>sum(1)</tool_call>", "<tool_call>sum(1)</tool_call>", NULL},
    {SQ_CALLS_HERMES, "<tool_call><tool_call>{\"name\":\"sum\",\"arguments\":{}}</tool_call>",
     "<tool_call>{{sum {}}}", NULL},
    {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":01}}</tool_call>!",
     "<tool_call>{\"name\":\"sum\",\"arguments\":{\"a\":01}}</tool_call>!", "{{sum {\"a\":01}}</tool_call>!"},

    /* xml */
    {SQ_CALLS_XML,
     "<tool_call>\n<function=sum>\n<parameter=a>\n2\n</parameter>\n<parameter=note>\n1 < 2 "
     "\"x\"\n</parameter>\n"
     "<parameter=list>\n[1, {\"k\": null}]\n</parameter>\n</function>\n</tool_call>",
     "{{sum {\"a\":2,\"note\":\"1 < 2 \\\"x\\\"\",\"list\":[1,{\"k\":null}]}}}", NULL},
    {SQ_CALLS_XML, "<tool_call><function=sum></function></tool_call>", "{{sum {}}}", NULL},
    {SQ_CALLS_XML, "<tool_call><function=sum><parameter=a>two</parameter></function>",
     "{{sum {\"a\":\"two\"}}}", NULL},
    {SQ_CALLS_XML, "<tool_call><function=other></function></tool_call>",
     "<tool_call><function=other></function></tool_call>", NULL},
    {SQ_CALLS_XML, "<tool_call><function=sum><parameter=a>1", "<tool_call><function=sum><parameter=a>1",
     "{{sum {\"a\":1"},

    /* llama */
    {SQ_CALLS_LLAMA, "{\"name\": \"sum\", \"parameters\": {\"a\": 1}}", "{{sum {\"a\": 1}}}", NULL},
    {SQ_CALLS_LLAMA, "{\"type\": \"function\", \"name\": \"sum\", \"parameters\": {}}", "{{sum {}}}", NULL},
    {SQ_CALLS_LLAMA,
     "<|python_tag|>{\"name\": \"sum\", \"parameters\": {}}; {\"name\": \"sum\", \"parameters\": {\"a\":2}}",
     "{{sum {}}}{{sum {\"a\":2}}}", NULL},
    {SQ_CALLS_LLAMA, "<|python_tag|>sum.call(a=\"x\")", "{{sum {\"a\":\"x\"}}}", NULL},
    {SQ_CALLS_LLAMA, "{\"answer\": 42}", "{\"answer\": 42}", NULL},
    {SQ_CALLS_LLAMA, "{\"name\": \"Anna\", \"age\": 3} is she.", "{\"name\": \"Anna\", \"age\": 3} is she.",
     NULL},
    {SQ_CALLS_LLAMA, "See {\"name\": \"sum\", \"parameters\": {}}",
     "See {\"name\": \"sum\", \"parameters\": {}}", NULL},

    /* mistral */
    {SQ_CALLS_MISTRAL, "[TOOL_CALLS][{\"name\": \"sum\", \"arguments\": {\"a\": 1}, \"id\": \"abcdefghi\"}]",
     "{{sum {\"a\": 1}}}", NULL},
    {SQ_CALLS_MISTRAL,
     "[TOOL_CALLS] [{\"name\":\"sum\",\"arguments\":{}},{\"arguments\":{},\"name\":\"sum\"}]",
     "{{sum {}}}{{sum {}}}", NULL},
    {SQ_CALLS_MISTRAL, "Well.[TOOL_CALLS]sum[ARGS]{\"a\": 1}[TOOL_CALLS]sum[CALL_ID]123456789[ARGS]{}",
     "Well.{{sum {\"a\": 1}}}{{sum {}}}", NULL},
    {SQ_CALLS_MISTRAL, "[TOOL_CALLS]sum{\"a\":1}", "{{sum {\"a\":1}}}", NULL},
    {SQ_CALLS_MISTRAL, "[TOOL_CALLS][{\"name\":\"other\",\"arguments\":{}}]",
     "[TOOL_CALLS][{\"name\":\"other\",\"arguments\":{}}]", NULL},
    {SQ_CALLS_MISTRAL, "[TOOL_CALLS]", "[TOOL_CALLS]", NULL},

    /* deepseek */
    {SQ_CALLS_DEEPSEEK,
     "Let me." DS("calls" DOT "begin")
         DS("call" DOT "begin") "sum" DS("sep") "{\"a\": 1}" DS("call" DOT "end")
             DS("call" DOT "begin") "sum" DS("sep") "{}" DS("call" DOT "end") DS("calls" DOT "end"),
     "Let me.{{sum {\"a\": 1}}}{{sum {}}}", NULL},
    {SQ_CALLS_DEEPSEEK,
     DS("calls" DOT "begin") DS("call" DOT "begin") "function" DS("sep") "sum\n```json\n{\"a\": 1}\n```" DS(
         "call" DOT "end") DS("calls" DOT "end"),
     "{{sum {\"a\": 1}}}", NULL},
    {SQ_CALLS_DEEPSEEK, DS("calls" DOT "begin") "nothing", DS("calls" DOT "begin") "nothing", NULL},

    /* python */
    {SQ_CALLS_PYTHON, "[sum(a=1, note='it\\'s', list=[True, None, (1.5, {'k': -2e3})]), sum()]",
     "{{sum {\"a\":1,\"note\":\"it's\",\"list\":[true,null,[1.5,{\"k\":-2e3}]]}}}{{sum {}}}", NULL},
    {SQ_CALLS_PYTHON, "Yes: <|tool_call_start|>[sum(note=\")]\\u00e9\\x41\")]<|tool_call_end|> Done.",
     "Yes:{{sum {\"note\":\")]\xC3\xA9"
     "A\"}}} Done.",
     NULL},
    {SQ_CALLS_PYTHON, "[1, 2] are numbers", "[1, 2] are numbers", NULL},
    {SQ_CALLS_PYTHON, "[sum(1)]", "[sum(1)]", NULL},
    {SQ_CALLS_PYTHON, "[sum(a=x)]", "[sum(a=x)]", NULL},
    {SQ_CALLS_PYTHON, "[sum(a=1)", "{{sum {\"a\":1}}}", NULL},
    {SQ_CALLS_PYTHON, "[sum(a=1", "[sum(a=1", NULL},

    /* harmony */
    {SQ_CALLS_HARMONY,
     "<|channel|>analysis<|message|>Add? <|end|><|start|>assistant<|channel|>commentary to=functions.sum "
     "<|constrain|>json<|message|>{\"a\": 1}<|call|>",
     "[Add? ]{{sum {\"a\": 1}}}", NULL},
    {SQ_CALLS_HARMONY, "<|channel|>final<|message|>Two.", "Two.", NULL},
    {SQ_CALLS_HARMONY,
     "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary<|message|>First.<|end|>"
     "<|start|>assistant to=functions.sum<|channel|>commentary json<|message|>{}",
     "[Hm]First.{{sum {}}}", NULL},
    {SQ_CALLS_HARMONY, "Just text < and more.", "Just text < and more.", NULL},
};

static char *run(const row *r, const json_t *tools, bool whole, size_t first, size_t piece) {
    sq_calls_options o = {.manner = {.style = r->style}, .tools = tools, .whole = whole};
    return calls_tell_pieces(&o, r->text, strlen(r->text), first, piece);
}

static void expect(const row *r, const json_t *tools, bool whole, size_t first, size_t piece) {
    const char *wanted = !whole && r->streamed ? r->streamed : r->told;
    char *got = run(r, tools, whole, first, piece);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s, %s, pieces of %zu and %zu:\n  text   %s\n  told   %s\n  wanted %s",
                 sq_calls_style_name(r->style), whole ? "whole" : "streamed", first, piece, r->text, got,
                 wanted);
    free(got);
}

/* As one piece, byte by byte, and in two pieces at every place. */
static void answers_are_told_the_same_however_they_are_cut(void **state) {
    (void)state;
    json_t *tools = json_loads(tools_text, 0, NULL);
    assert_non_null(tools);
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        const size_t n = strlen(rows[i].text);
        for (int whole = 0; whole < 2; whole++) {
            expect(&rows[i], tools, whole, 0, n + 1);
            expect(&rows[i], tools, whole, 0, 1);
            for (size_t k = 1; k < n; k++) expect(&rows[i], tools, whole, k, n);
        }
    }
    json_decref(tools);
}

/* ---- thoughts --------------------------------------------------------------------------------- */

static void thoughts_stand_apart(void **state) {
    (void)state;
    static const struct {
        sq_calls_start start;
        const char *text, *told;
    } cases[] = {
        {SQ_CALLS_MAY_THINK, "<think>\nHm.\n\nYes.\n</think>\n\nTwo.\n", "[Hm.\n\nYes.]Two.\n"},
        {SQ_CALLS_MAY_THINK, "\n<think>Hm</think>", "[Hm]"},
        {SQ_CALLS_MAY_THINK, "<think>\n\n</think>\n\nTwo.", "Two."},
        {SQ_CALLS_MAY_THINK, "Two <think>x</think>", "Two <think>x</think>"},
        {SQ_CALLS_MAY_THINK, "<thin", "<thin"},
        {SQ_CALLS_MAY_THINK, "<think>Hm", "[Hm]"},
        {SQ_CALLS_THINKS, "\nHm.</think>Two.", "[Hm.]Two."},
        {SQ_CALLS_THINKS, "Hm. </thin", "[Hm. </thin]"},
        {SQ_CALLS_THOUGHT_DONE, "<think>x</think>", "<think>x</think>"},
        {SQ_CALLS_MAY_THINK, "<think>a</think><think>b</think>", "[a]<think>b</think>"},
        {SQ_CALLS_MAY_THINK, "<think>add</think>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
         "[add]{{f {}}}"},
        {SQ_CALLS_THINKS, "<tool_call></think>x", "[<tool_call>]x"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        const sq_calls_options o = {.manner = {SQ_CALLS_HERMES, true, false, "<think>", "</think>"},
                                    .start = cases[i].start};
        const size_t n = strlen(cases[i].text);
        for (size_t k = 0; k < n; k++) {
            char *got = calls_tell_pieces(&o, cases[i].text, n, k, k ? n : 1);
            assert_string_equal(got, cases[i].told);
            free(got);
        }
    }
}

/* ---- detection -------------------------------------------------------------------------------- */

static void a_style_is_known_by_the_marks_of_the_template(void **state) {
    (void)state;
    static const struct {
        const char *source;
        sq_calls_style style;
        bool tools, thinks;
    } cases[] = {
        {"{{ messages }}", SQ_CALLS_NONE, false, false},
        {"{% if tools %}<tool_call>{\"name\"", SQ_CALLS_HERMES, true, false},
        {"{% if tools %}<tool_call> {{ '<think>\\n\\n</think>' }}", SQ_CALLS_HERMES, true, true},
        {"tools <tool_call> <function=x> <parameter=y>", SQ_CALLS_XML, true, false},
        {"tools {{ '[TOOL_CALLS][' }}", SQ_CALLS_MISTRAL, true, false},
        {"tools <|python_tag|>", SQ_CALLS_LLAMA, true, false},
        {"<" BAR "tool" DOT "calls" DOT "begin" BAR "> </think>", SQ_CALLS_DEEPSEEK, false, true},
        {"tools <|channel|> <|message|>", SQ_CALLS_HARMONY, true, false},
        {"tools [func_name1(params_name1=x)]", SQ_CALLS_PYTHON, true, false},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_calls_manner m;
        sq_calls_detect(cases[i].source, &m);
        assert_int_equal(m.style, cases[i].style);
        assert_int_equal(m.tools, cases[i].tools);
        assert_int_equal(m.think_open != NULL, cases[i].thinks);
    }
    sq_calls_manner m;
    sq_calls_detect(NULL, &m);
    assert_int_equal(m.style, SQ_CALLS_NONE);
}

static void the_end_of_a_prompt_says_whether_there_will_be_thoughts(void **state) {
    (void)state;
    const sq_calls_manner m = {SQ_CALLS_HERMES, true, false, "<think>", "</think>"},
                          none = {.style = SQ_CALLS_NONE};
#define START_OF(m, s) sq_calls_start_of(&(m), s, strlen(s))
    assert_int_equal(START_OF(m, "<|im_start|>assistant\n"), SQ_CALLS_MAY_THINK);
    assert_int_equal(START_OF(m, "<|im_start|>assistant\n<think>\n"), SQ_CALLS_THINKS);
    assert_int_equal(START_OF(m, "<|im_start|>assistant\n<think>\n\n</think>\n\n"), SQ_CALLS_THOUGHT_DONE);
    assert_int_equal(START_OF(m, ""), SQ_CALLS_MAY_THINK);
    assert_int_equal(START_OF(none, "<think>"), SQ_CALLS_MAY_THINK);
}

/* ---- size ------------------------------------------------------------------------------------- */

/* Long runs, one byte at a time, where each style could be tempted to look at all of them again: this test
 * would then not end in time. */
static void long_answers_take_time_in_proportion(void **state) {
    (void)state;
    static const struct {
        sq_calls_style style;
        const char *before, *piece;
    } cases[] = {
        {SQ_CALLS_HERMES, "", " "},
        {SQ_CALLS_HERMES, "", "<tool_call>"},
        {SQ_CALLS_HERMES, "<tool_call>", "{"},
        {SQ_CALLS_HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"", "\\\\"},
        {SQ_CALLS_HERMES, "<tool_call>{\"arguments\":{\"a\":\"", "x"},
        {SQ_CALLS_XML, "<tool_call><function=f><parameter=a>", "</para"},
        {SQ_CALLS_LLAMA, "{\"a\":[", "[],"},
        {SQ_CALLS_MISTRAL, "[TOOL_CALLS][", "{\"name\":\"f\",\"arguments\":{}},"},
        {SQ_CALLS_PYTHON, "[f(a='", "x"},
        {SQ_CALLS_PYTHON, "[f(a=", "["},
        {SQ_CALLS_HARMONY, "<|channel|>final<|message|>", "<|e"},
    };
    enum { N = 1 << 19 };
    char *text = malloc(N);
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        const size_t head = strlen(cases[i].before), len = strlen(cases[i].piece);
        memcpy(text, cases[i].before, head);
        for (size_t at = head; at < N; at++) text[at] = cases[i].piece[(at - head) % len];
        const sq_calls_options o = {.manner = {.style = cases[i].style}, .whole = i % 2};
        char *told = calls_tell_pieces(&o, text, N, 0, 1), *at_once = calls_tell_pieces(&o, text, N, 0, N);
        assert_string_equal(told, at_once);
        free(told);
        free(at_once);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_told_the_same_however_they_are_cut),
        cmocka_unit_test(thoughts_stand_apart),
        cmocka_unit_test(a_style_is_known_by_the_marks_of_the_template),
        cmocka_unit_test(the_end_of_a_prompt_says_whether_there_will_be_thoughts),
        cmocka_unit_test(long_answers_take_time_in_proportion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
