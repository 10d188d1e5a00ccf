/* SPDX-License-Identifier: Apache-2.0
 *
 * calls_detect.c - how a template has its model write, by the marks that stand in its source.
 *
 * The template is the one place where a model's makers say it: it writes earlier calls and thoughts back into
 * the prompt in the manner in which the model wrote them. */
#include "calls/calls_int.h"

/* The first row whose marks all stand in the source. */
static const struct {
    sq_calls_style style;
    const char *marks[2];
} rows[] = {
    {SQ_CALLS_HARMONY, {"<|channel|>", "<|message|>"}},
    {SQ_CALLS_DEEPSEEK,
     {"<\xEF\xBD\x9Ctool\xE2\x96\x81"
      "calls\xE2\x96\x81"
      "begin\xEF\xBD\x9C>"}},
    {SQ_CALLS_MISTRAL, {"[TOOL_CALLS]"}},
    {SQ_CALLS_XML, {"<function=", "<parameter="}},
    {SQ_CALLS_HERMES, {"<tool_call>"}},
    {SQ_CALLS_PYTHON, {"<|tool_call_start|>"}},
    {SQ_CALLS_PYTHON, {"func_name1(params_name1="}},
    {SQ_CALLS_LLAMA, {"<|python_tag|>"}},
    {SQ_CALLS_LLAMA, {"\"parameters\": ", "function name"}},
};
static const char *const thoughts[][2] = {{"<think>", "</think>"}, {"[THINK]", "[/THINK]"}};

static bool has(const char *source, const char *mark) { return !mark || strstr(source, mark); }

void sq_calls_detect(const char *source, sq_calls_manner *out) {
    *out = (sq_calls_manner){.style = SQ_CALLS_NONE};
    if (!source) return;
    out->tools = strstr(source, "tools") != NULL;
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        if (has(source, rows[i].marks[0]) && has(source, rows[i].marks[1])) {
            out->style = rows[i].style;
            break;
        }
    out->named = out->style == SQ_CALLS_MISTRAL    ? strstr(source, "[ARGS]") != NULL
                 : out->style == SQ_CALLS_DEEPSEEK ? !strstr(source, "```json")
                                                   : strstr(source, "<|tool_call_start|>") != NULL;
    for (size_t i = 0; i < SQ_COUNT(thoughts) && out->style != SQ_CALLS_HARMONY; i++)
        if (strstr(source, thoughts[i][1])) {
            out->think_open = thoughts[i][0];
            out->think_close = thoughts[i][1];
            break;
        }
}

static bool ends_with(const char *s, size_t n, const char *word) {
    const size_t w = strlen(word);
    return n >= w && memcmp(s + n - w, word, w) == 0;
}

sq_calls_start sq_calls_start_of(const sq_calls_manner *m, const char *prompt, size_t n) {
    while (n && calls_is_blank(prompt[n - 1])) n--;
    if (!m->think_open) return SQ_CALLS_MAY_THINK;
    if (ends_with(prompt, n, m->think_close)) return SQ_CALLS_THOUGHT_DONE;
    return ends_with(prompt, n, m->think_open) ? SQ_CALLS_THINKS : SQ_CALLS_MAY_THINK;
}
