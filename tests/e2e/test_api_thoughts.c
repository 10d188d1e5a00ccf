/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_thoughts.c - models that think before they answer, in every dialect.
 *
 * The shipped model does not think; models made of it here have templates that open its thoughts for it, one
 * of our own and, where SQUISH_TESTDATA has them, those of SmolLM3 and Qwen3. What it then thinks is of no
 * worth, but it stands where thoughts stand. */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;
static char home[64];

#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"}]"
#define CHAT "/v1/chat/completions"

/* Opens thoughts unless it is told not to; writes calls of tools as the model was taught to. */
static const char thinking[] =
    "{%- if tools %}<|im_start|>system\nYou can call these tools:\n<tools>{%- for t in tools %}\n{{ t | "
    "tojson }}"
    "{%- endfor %}\n</tools>\nTo call a tool, answer with its name and arguments as "
    "JSON:\n<tool_call>\n{\"name\": "
    "NAME, \"arguments\": OBJECT}\n</tool_call><|im_end|>\n{% endif -%}"
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor -%}"
    "<|im_start|>assistant\n{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}"
    "{#- </think> #}";

static bool make_model(const char *name, const char *source) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:b}", "model", name, "from", "squish-tiny", "template", source,
                          "stream", 0);
    char *body = json_dumps(o, 0);
    json_t *r = ask_json(&server, "POST", "/api/create", body, 200);
    free(body);
    json_decref(o);
    json_decref(r);
    return r != NULL;
}

static json_t *say(const char *route, const char *body) {
    json_t *o = ask_json(&server, "POST", route, body, 200);
    assert_non_null(o);
    return o;
}

static void thoughts_stand_apart_in_every_dialect(void **state) {
    (void)state;
    json_t *o = say(CHAT, "{\"model\":\"thinker\",\"temperature\":0,\"max_tokens\":5," ASK "}");
    assert_true(strlen(text_at(o, "choices[0].message.reasoning_content")) > 0);
    assert_string_equal(text_at(o, "choices[0].message.content"), "");
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "length");
    assert_int_equal(int_at(o, "usage.completion_tokens_details.reasoning_tokens"), 5);
    json_decref(o);
    o = say("/v1/responses",
            "{\"model\":\"thinker\",\"temperature\":0,\"max_output_tokens\":5,\"input\":\"Hi\"}");
    assert_string_equal(text_at(o, "output[0].type"), "reasoning");
    assert_true(strlen(text_at(o, "output[0].content[0].text")) > 0);
    json_decref(o);
    o = say(
        "/v1/messages",
        "{\"model\":\"thinker\",\"temperature\":0,\"max_tokens\":5,\"thinking\":{\"type\":\"enabled\"}," ASK
        "}");
    assert_string_equal(text_at(o, "content[0].type"), "thinking");
    assert_true(strlen(text_at(o, "content[0].thinking")) > 0);
    json_decref(o);
    o = say("/api/chat", "{\"model\":\"thinker\",\"stream\":false,\"options\":{\"num_predict\":5}," ASK
                         ",\"think\":true}");
    assert_true(strlen(text_at(o, "message.thinking")) > 0);
    json_decref(o);
    o = say("/api/generate",
            "{\"model\":\"thinker\",\"stream\":false,\"options\":{\"num_predict\":5},\"prompt\":\"Hi\"}");
    assert_true(strlen(text_at(o, "thinking")) > 0);
    json_decref(o);
}

static void a_model_that_shall_not_think_answers_at_once(void **state) {
    (void)state;
    static const struct {
        const char *route, *body, *path, *none;
    } rows[] = {
        {CHAT, "{\"model\":\"thinker\",\"temperature\":0,\"reasoning_effort\":\"none\"," ASK "}",
         "choices[0].message.content", "choices[0].message.reasoning_content"},
        {CHAT,
         "{\"model\":\"thinker\",\"temperature\":0,\"chat_template_kwargs\":{\"enable_thinking\":false}," ASK
         "}",
         "choices[0].message.content", "choices[0].message.reasoning_content"},
        {"/api/chat",
         "{\"model\":\"thinker\",\"stream\":false,\"options\":{\"temperature\":0,\"repeat_penalty\":1}," ASK
         ",\"think\":false}",
         "message.content", "message.thinking"},
        {"/v1/messages", "{\"model\":\"thinker\",\"temperature\":0,\"max_tokens\":40," ASK "}",
         "content[0].text", "content[1]"},
        {"/v1/responses",
         "{\"model\":\"thinker\",\"temperature\":0,\"reasoning\":{\"effort\":\"none\"},\"input\":"
         "\"What is the capital of Japan?\"}",
         "output[0].content[0].text", "output[1]"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        json_t *o = say(rows[i].route, rows[i].body);
        if (!text_at(o, rows[i].path) || !strstr(text_at(o, rows[i].path), "Tokyo"))
            fail_msg("%s: %s", rows[i].body, json_dumps(o, 0));
        assert_null(at(o, rows[i].none));
        json_decref(o);
    }
}

/* Thoughts end where their budget does; the answer goes on behind them. */
static void a_budget_ends_thoughts(void **state) {
    (void)state;
    json_t *o = say(
        CHAT, "{\"model\":\"thinker\",\"temperature\":0,\"thinking_budget\":3,\"max_tokens\":40," ASK "}");
    assert_int_equal(int_at(o, "usage.completion_tokens_details.reasoning_tokens"), 3);
    assert_true(strlen(text_at(o, "choices[0].message.content")) > 0);
    assert_null(strstr(text_at(o, "choices[0].message.content"), "</think>"));
    assert_true(int_at(o, "usage.completion_tokens") > 3);
    char whole[4096];
    snprintf(whole, sizeof whole, "[%s]%s", text_at(o, "choices[0].message.reasoning_content"),
             text_at(o, "choices[0].message.content"));
    json_decref(o);

    json_t *frames =
               api_frames(ask(&server, "POST", CHAT,
                              "{\"model\":\"thinker\",\"temperature\":0,\"thinking_budget\":3,\"max_tokens\":"
                              "40,\"stream\":true," ASK "}")),
           *f;
    char thought[2048] = "", text[2048] = "", streamed[4100];
    size_t i;
    json_array_foreach(frames, i, f) {
        const char *t = text_at(f, "choices[0].delta.reasoning_content"),
                   *x = text_at(f, "choices[0].delta.content");
        if (t) strncat(thought, t, sizeof thought - strlen(thought) - 1);
        if (x) strncat(text, x, sizeof text - strlen(text) - 1);
    }
    json_decref(frames);
    snprintf(streamed, sizeof streamed, "[%s]%s", thought, text);
    assert_string_equal(streamed, whole);

    o = say("/v1/messages",
            "{\"model\":\"thinker\",\"temperature\":0,\"max_tokens\":40,\"thinking\":{\"type\":\"enabled\","
            "\"budget_tokens\":3}," ASK "}");
    assert_string_equal(text_at(o, "content[0].type"), "thinking");
    assert_string_equal(text_at(o, "content[1].type"), "text");
    json_decref(o);
}

/* What the answer must look like begins to count behind the thoughts. */
static void shapes_and_tools_begin_behind_the_thoughts(void **state) {
    (void)state;
    json_t *o = say(
        CHAT, "{\"model\":\"thinker\",\"temperature\":1,\"seed\":5,\"thinking_budget\":4,\"guided_regex\":"
              "\"[0-9]{4}\"," ASK "}");
    const char *text = text_at(o, "choices[0].message.content");
    assert_true(strlen(text) == 4 && strspn(text, "0123456789") == 4);
    assert_true(strlen(text_at(o, "choices[0].message.reasoning_content")) > 0);
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "stop");
    json_decref(o);
    o = say(
        CHAT,
        "{\"model\":\"thinker\",\"temperature\":0,\"thinking_budget\":4,\"tool_choice\":\"required\","
        "\"tools\":[{"
        "\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\","
        "\"properties\":{\"city\":{\"enum\":[\"Oslo\",\"Rome\"]}},\"required\":[\"city\"],"
        "\"additionalProperties\":false}}}],\"parallel_tool_calls\":false," ASK "}");
    assert_string_equal(text_at(o, "choices[0].message.tool_calls[0].function.name"), "get_weather");
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "tool_calls");
    assert_true(strlen(text_at(o, "choices[0].message.reasoning_content")) > 0);
    json_decref(o);
}

#define TOOL                                                                                                 \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":"     \
    "\"object\",\"properties\":{\"city\":{\"enum\":[\"Oslo\",\"Rome\"]}},\"required\":[\"city\"],"           \
    "\"additionalProperties\":false}}}],\"parallel_tool_calls\":false,"

/* Thoughts, their budget, tools and shapes together, whole and in a stream, hot. */
static void thoughts_budgets_tools_and_shapes_go_together(void **state) {
    (void)state;
    static const struct {
        const char *wish, *words[3]; /* what stands behind the thoughts: text, then arguments of calls */
    } rows[] = {
        {TOOL "\"tool_choice\":\"required\"", {"{\"city\": \"Oslo\"}", "{\"city\": \"Rome\"}"}},
        {TOOL
         "\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\",\"tools\":[{"
         "\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}]}}",
         {"{\"city\": \"Oslo\"}", "{\"city\": \"Rome\"}"}},
        {"\"response_format\":{\"type\":\"structural_tag\",\"format\":{\"type\":\"or\",\"elements\":[{"
         "\"type\":"
         "\"const_string\",\"value\":\"left\"},{\"type\":\"const_string\",\"value\":\"right\"}]}}",
         {"left", "right"}},
        {"\"grammar\":\"start: \\\"up\\\" | \\\"down\\\"\"", {"up", "down"}},
        {TOOL "\"tool_choice\":\"none\",\"guided_choice\":[\"yes\",\"no\"]", {"yes", "no"}},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        for (int seed = 0; seed < 4; seed++) {
            char body[2048], thought[2048] = "", text[2048] = "";
            snprintf(
                body, sizeof body,
                "{\"model\":\"thinker\",\"temperature\":2,\"seed\":%d,\"thinking_budget\":4,\"stream\":true,"
                "\"max_tokens\":300,%s%s," ASK "}",
                seed, seed % 2 ? "\"jump_forward\":\"canonical\"," : "", rows[i].wish);
            json_t *frames = api_frames(ask(&server, "POST", CHAT, body)), *f;
            size_t k;
            json_array_foreach(frames, k, f) {
                const char *t = text_at(f, "choices[0].delta.reasoning_content"),
                           *x = text_at(f, "choices[0].delta.content"),
                           *y = text_at(f, "choices[0].delta.tool_calls[0].function.arguments");
                if (t) strncat(thought, t, sizeof thought - strlen(thought) - 1);
                if (x) strncat(text, x, sizeof text - strlen(text) - 1);
                if (y) strncat(text, y, sizeof text - strlen(text) - 1);
            }
            json_decref(frames);
            bool known = false;
            json_t *arguments = json_loads(text, 0, NULL);
            char *spelled = arguments ? json_dumps(arguments, 0) : NULL;
            for (int w = 0; w < 3 && rows[i].words[w]; w++)
                known |= strcmp(spelled ? spelled : text, rows[i].words[w]) == 0;
            if (!known || !*thought) fail_msg("%s: [%s] %s", rows[i].wish, thought, text);
            free(spelled);
            json_decref(arguments);
        }
}

static void a_model_without_marks_cannot_be_asked_to_think(void **state) {
    (void)state;
    const api_reply *r =
        ask(&server, "POST", "/api/chat", "{\"model\":\"squish-tiny\"," ASK ",\"think\":true}");
    assert_int_equal(r->status, 400);
    assert_non_null(strstr(r->body, "does not support thinking"));
    json_t *o = say("/api/show", "{\"model\":\"thinker\"}");
    char *text = json_dumps(at(o, "capabilities"), 0);
    assert_true(text && strstr(text, "completion"));
    free(text);
    json_decref(o);
}

/* The templates of others, where they are. */
static void templates_of_smollm3_and_qwen3_think_and_do_not(void **state) {
    (void)state;
    static const char *const names[] = {"HuggingFaceTB-SmolLM3-3B", "Qwen-Qwen3-0.6B"};
    const char *data = getenv("SQUISH_TESTDATA");
    if (!data) skip();
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        char path[512], body[512];
        snprintf(path, sizeof path, "%.300s/fixtures/templates/%s.jinja", data, names[i]);
        FILE *f = fopen(path, "rb");
        if (!f) skip();
        static char source[1 << 16];
        source[fread(source, 1, sizeof source - 1, f)] = 0;
        fclose(f);
        assert_true(make_model("other", source));
        snprintf(body, sizeof body,
                 "{\"model\":\"other\",\"temperature\":0,\"thinking_budget\":4,\"guided_regex\":\"<?[0-9]{3}"
                 "\"," ASK "}");
        json_t *o = say(CHAT, body);
        assert_true(strlen(text_at(o, "choices[0].message.content")) >= 3);
        json_decref(o);
        o = say(CHAT,
                "{\"model\":\"other\",\"temperature\":0,\"max_tokens\":8,\"reasoning_effort\":\"none\"," ASK
                "}");
        assert_null(at(o, "choices[0].message.reasoning_content"));
        json_decref(o);
    }
}

static int setup(void **state) {
    (void)state;
    snprintf(home, sizeof home, "/tmp/squish-thoughts-XXXXXX");
    if (!mkdtemp(home)) return 1;
    sq_api_options o = api_options(&server);
    o.home = home;
    if (api_start(&server, &o) != 0) return 1;
    return make_model("thinker", thinking) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    char command[128];
    api_end(&server);
    snprintf(command, sizeof command, "rm -rf '%s'", home);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thoughts_stand_apart_in_every_dialect),
        cmocka_unit_test(a_model_that_shall_not_think_answers_at_once),
        cmocka_unit_test(a_budget_ends_thoughts),
        cmocka_unit_test(shapes_and_tools_begin_behind_the_thoughts),
        cmocka_unit_test(thoughts_budgets_tools_and_shapes_go_together),
        cmocka_unit_test(a_model_without_marks_cannot_be_asked_to_think),
        cmocka_unit_test(templates_of_smollm3_and_qwen3_think_and_do_not),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
