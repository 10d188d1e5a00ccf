/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_tools.c - calls of tools over a socket, in every dialect, whole and streamed, with the shipped
 * model, which was taught to call tools. */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;

#define WEATHER_SCHEMA                                                                                       \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"unit\":{\"type\":\"string\"}},"   \
    "\"required\":[\"city\"]}"
#define SUM_SCHEMA                                                                                           \
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"number\"}},"         \
    "\"required\":[\"a\"]}"
#define WEATHER_TEXT "\"name\":\"get_weather\",\"description\":\"Get the current weather for a city.\""
#define SUM_TEXT "\"name\":\"add_numbers\",\"description\":\"Add two numbers.\""
#define WRAPPED(text, schema) "{\"type\":\"function\",\"function\":{" text ",\"parameters\":" schema "}}"
#define TOOLS "\"tools\":[" WRAPPED(WEATHER_TEXT, WEATHER_SCHEMA) "," WRAPPED(SUM_TEXT, SUM_SCHEMA) "]"
#define FLAT_TOOLS                                                                                           \
    "\"tools\":[{\"type\":\"function\"," WEATHER_TEXT ",\"parameters\":" WEATHER_SCHEMA                      \
    "},{\"type\":\"function\"," SUM_TEXT ",\"parameters\":" SUM_SCHEMA "}]"
#define INPUT_TOOLS                                                                                          \
    "\"tools\":[{" WEATHER_TEXT ",\"input_schema\":" WEATHER_SCHEMA "},{" SUM_TEXT                           \
    ",\"input_schema\":" SUM_SCHEMA "}]"
#define SAY(text) "\"messages\":[{\"role\":\"user\",\"content\":\"" text "\"}]"
#define PARIS "What is the weather in Paris?"
#define ADD "Please add 12 and 30 with the tool."

/* Calls of one answer, as text: "name {arguments};" with the arguments as compact JSON, then the reason. */
typedef struct {
    char calls[8192], text[8192], reason[32];
    int n;
} outcome;

static void add_call(outcome *o, const char *name, json_t *arguments) {
    assert_non_null(name);
    assert_true(json_is_object(arguments));
    char *text = json_dumps(arguments, JSON_COMPACT | JSON_SORT_KEYS);
    const size_t n = strlen(o->calls);
    snprintf(o->calls + n, sizeof o->calls - n, "%s %s;", name, text);
    o->n++;
    free(text);
    json_decref(arguments);
}

static void add_text(outcome *o, const char *text) {
    if (text) strncat(o->text, text, sizeof o->text - strlen(o->text) - 1);
}

static void put_reason(outcome *o, const char *reason) {
    if (reason) snprintf(o->reason, sizeof o->reason, "%s", reason);
}

static void read_whole(const api_reply *reply, outcome *o) {
    json_t *r = json_loadb(reply->body, reply->n, JSON_ALLOW_NUL, NULL);
    if (reply->status != 200 || !r) fail_msg("%d %s", reply->status, reply->body);
    const json_t *calls = at(r, "choices[0].message.tool_calls"), *call;
    size_t i;
    json_array_foreach((json_t *)calls, i, call) {
        assert_string_equal(text_at(call, "type"), "function");
        assert_memory_equal(text_at(call, "id"), "call_", 5);
        add_call(o, text_at(call, "function.name"), json_loads(text_at(call, "function.arguments"), 0, NULL));
    }
    add_text(o, text_at(r, "choices[0].message.content"));
    put_reason(o, text_at(r, "choices[0].finish_reason"));
    json_decref(r);
}

/* Indexes count up from 0, the first frame of each says id, type and name, later ones only pieces. */
static void read_streamed(const api_reply *reply, outcome *o) {
    json_t *frames = api_frames(reply), *f, *call;
    char names[8][64] = {""}, ids[8][64] = {""}, arguments[8][2048] = {""};
    size_t i, k, n = 0;
    json_array_foreach(frames, i, f) {
        json_array_foreach((json_t *)at(f, "choices[0].delta.tool_calls"), k, call) {
            const size_t index = (size_t)int_at(call, "index");
            if (text_at(call, "id")) {
                assert_int_equal(index, n++);
                assert_string_equal(text_at(call, "type"), "function");
                snprintf(names[index], 64, "%s", text_at(call, "function.name"));
                snprintf(ids[index], 64, "%s", text_at(call, "id"));
            }
            assert_true(index < n && n <= 8);
            strncat(arguments[index], text_at(call, "function.arguments"), 2047 - strlen(arguments[index]));
        }
        add_text(o, text_at(f, "choices[0].delta.content"));
        put_reason(o, text_at(f, "choices[0].finish_reason"));
    }
    for (k = 0; k < n; k++) {
        if (k + 1 == n && strcmp(o->reason, "length") == 0) break; /* the last one was cut */
        for (i = 0; i < k; i++) assert_string_not_equal(ids[i], ids[k]);
        add_call(o, names[k], json_loads(arguments[k], 0, NULL));
    }
    json_decref(frames);
}

static void chat_whole(const char *body, outcome *o) {
    read_whole(ask(&server, "POST", "/v1/chat/completions", body), o);
}
static void chat_streamed(const char *body, outcome *o) {
    read_streamed(ask(&server, "POST", "/v1/chat/completions", body), o);
}

static void responses_whole(const char *body, outcome *o) {
    json_t *r = ask_json(&server, "POST", "/v1/responses", body, 200), *item;
    size_t i;
    assert_non_null(r);
    json_array_foreach((json_t *)at(r, "output"), i, item) {
        if (strcmp(text_at(item, "type"), "function_call") == 0) {
            assert_memory_equal(text_at(item, "call_id"), "call_", 5);
            add_call(o, text_at(item, "name"), json_loads(text_at(item, "arguments"), 0, NULL));
        } else {
            add_text(o, text_at(item, "content[0].text"));
        }
    }
    put_reason(o, text_at(r, "status"));
    json_decref(r);
}

/* Items open and close one after another; what was streamed is what stands in the last frame. */
static void responses_streamed(const char *body, outcome *o) {
    json_t *frames = api_frames(ask(&server, "POST", "/v1/responses", body)), *f, *item;
    char pieces[8192] = "";
    size_t i;
    json_int_t open = -1;
    json_array_foreach(frames, i, f) {
        const char *type = text_at(f, "type");
        assert_int_equal(int_at(f, "sequence_number"), i);
        if (strcmp(type, "response.output_item.added") == 0) {
            assert_int_equal(int_at(f, "output_index"), ++open);
            *pieces = 0;
        }
        if (strcmp(type, "response.function_call_arguments.delta") == 0) {
            assert_int_equal(int_at(f, "output_index"), open);
            strncat(pieces, text_at(f, "delta"), sizeof pieces - strlen(pieces) - 1);
        }
        if (strcmp(type, "response.function_call_arguments.done") == 0)
            assert_string_equal(text_at(f, "arguments"), pieces);
        if (strcmp(type, "response.completed") != 0) continue;
        put_reason(o, "completed");
        size_t k;
        json_array_foreach((json_t *)at(f, "response.output"), k, item) {
            if (strcmp(text_at(item, "type"), "function_call") == 0)
                add_call(o, text_at(item, "name"), json_loads(text_at(item, "arguments"), 0, NULL));
            else
                add_text(o, text_at(item, "content[0].text"));
        }
        assert_int_equal(open + 1, json_array_size(at(f, "response.output")));
    }
    json_decref(frames);
}

static void messages_whole(const char *body, outcome *o) {
    json_t *r = ask_json(&server, "POST", "/v1/messages", body, 200), *block;
    size_t i;
    assert_non_null(r);
    json_array_foreach((json_t *)at(r, "content"), i, block) {
        if (strcmp(text_at(block, "type"), "tool_use") == 0) {
            assert_memory_equal(text_at(block, "id"), "toolu_", 6);
            add_call(o, text_at(block, "name"), json_incref((json_t *)at(block, "input")));
        } else {
            add_text(o, text_at(block, "text"));
        }
    }
    put_reason(o, text_at(r, "stop_reason"));
    json_decref(r);
}

static void messages_streamed(const char *body, outcome *o) {
    json_t *frames = api_frames(ask(&server, "POST", "/v1/messages", body)), *f;
    char name[64] = "", input[4096] = "";
    size_t i;
    json_int_t open = -1;
    json_array_foreach(frames, i, f) {
        const char *type = text_at(f, "type");
        if (strcmp(type, "content_block_start") == 0) {
            assert_int_equal(int_at(f, "index"), ++open);
            snprintf(name, sizeof name, "%s",
                     text_at(f, "content_block.name") ? text_at(f, "content_block.name") : "");
            *input = 0;
        } else if (strcmp(type, "content_block_delta") == 0) {
            assert_int_equal(int_at(f, "index"), open);
            const char *piece = text_at(f, "delta.partial_json");
            if (piece) strncat(input, piece, sizeof input - strlen(input) - 1);
            add_text(o, text_at(f, "delta.text"));
        } else if (strcmp(type, "content_block_stop") == 0 && *name) {
            add_call(o, name, json_loads(input, 0, NULL));
        }
        put_reason(o, text_at(f, "delta.stop_reason"));
    }
    json_decref(frames);
}

/* Lines, or the one line. */
static void ollama(const char *body, outcome *o) {
    const api_reply *r = ask(&server, "POST", "/api/chat", body);
    assert_int_equal(r->status, 200);
    for (const char *p = r->body, *end; *p && (end = strchr(p, '\n')) != NULL; p = end + 1) {
        json_t *line = json_loadb(p, (size_t)(end - p), 0, NULL), *call;
        size_t i;
        assert_non_null(line);
        json_array_foreach((json_t *)at(line, "message.tool_calls"), i, call) add_call(
            o, text_at(call, "function.name"), json_incref((json_t *)at(call, "function.arguments")));
        add_text(o, text_at(line, "message.content"));
        put_reason(o, text_at(line, "done_reason"));
        json_decref(line);
    }
}

static void ollama_whole(const char *body, outcome *o) {
    json_t *line = ask_json(&server, "POST", "/api/chat", body, 200), *call;
    size_t i;
    assert_non_null(line);
    json_array_foreach((json_t *)at(line, "message.tool_calls"), i, call)
        add_call(o, text_at(call, "function.name"), json_incref((json_t *)at(call, "function.arguments")));
    add_text(o, text_at(line, "message.content"));
    put_reason(o, text_at(line, "done_reason"));
    json_decref(line);
}

static void the_weather_and_a_sum_are_called_right_in_every_dialect(void **state) {
    (void)state;
#define GREEDY "{\"temperature\":0,"
    static const struct {
        void (*run)(const char *body, outcome *o);
        const char *weather, *sum, *reason;
    } rows[] = {
        {chat_whole, GREEDY TOOLS "," SAY(PARIS) "}", GREEDY TOOLS "," SAY(ADD) "}", "tool_calls"},
        {chat_streamed, GREEDY "\"stream\":true," TOOLS "," SAY(PARIS) "}",
         GREEDY "\"stream\":true," TOOLS "," SAY(ADD) "}", "tool_calls"},
        {responses_whole, GREEDY FLAT_TOOLS ",\"input\":\"" PARIS "\"}",
         GREEDY FLAT_TOOLS ",\"input\":\"" ADD "\"}", "completed"},
        {responses_streamed, GREEDY "\"stream\":true," FLAT_TOOLS ",\"input\":\"" PARIS "\"}",
         GREEDY "\"stream\":true," FLAT_TOOLS ",\"input\":\"" ADD "\"}", "completed"},
        {messages_whole, GREEDY "\"max_tokens\":99," INPUT_TOOLS "," SAY(PARIS) "}",
         GREEDY "\"max_tokens\":99," INPUT_TOOLS "," SAY(ADD) "}", "tool_use"},
        {messages_streamed, GREEDY "\"stream\":true,\"max_tokens\":99," INPUT_TOOLS "," SAY(PARIS) "}",
         GREEDY "\"stream\":true,\"max_tokens\":99," INPUT_TOOLS "," SAY(ADD) "}", "tool_use"},
        {ollama_whole,
         "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":0}," TOOLS
         "," SAY(PARIS) "}",
         "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":0}," TOOLS
         "," SAY(ADD) "}",
         "stop"},
        {ollama, "{\"model\":\"squish-tiny\",\"options\":{\"temperature\":0}," TOOLS "," SAY(PARIS) "}",
         "{\"model\":\"squish-tiny\",\"options\":{\"temperature\":0}," TOOLS "," SAY(ADD) "}", "stop"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        outcome weather = {.n = 0}, sum = {.n = 0};
        rows[i].run(rows[i].weather, &weather);
        rows[i].run(rows[i].sum, &sum);
        if (weather.n != 1 || sum.n != 1)
            fail_msg("row %zu: '%s' '%s' (%s), '%s' '%s' (%s)", i, weather.calls, weather.text,
                     weather.reason, sum.calls, sum.text, sum.reason);
        assert_string_equal(weather.calls, "get_weather {\"city\":\"Paris\"};");
        assert_string_equal(sum.calls, "add_numbers {\"a\":12,\"b\":30};");
        assert_string_equal(weather.text, "");
        assert_string_equal(weather.reason, rows[i].reason);
        assert_string_equal(sum.reason, rows[i].reason);
    }
}

/* ---- choice ----------------------------------------------------------------------------------- */

/* Tools whose calls come to an end whatever is drawn. */
#define CLOSED "],\"additionalProperties\":false}"
#define SHORT_WEATHER                                                                                        \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":24},"                  \
    "\"unit\":{\"enum\":[\"C\",\"F\"]}},\"required\":[\"city\"" CLOSED
#define BELOW_99999 "{\"type\":\"integer\",\"minimum\":-9,\"maximum\":99999}"
#define SHORT_SUM                                                                                            \
    "{\"type\":\"object\",\"properties\":{\"a\":" BELOW_99999 ",\"b\":" BELOW_99999                          \
    "},\"required\":[\"a\"" CLOSED
#define SHORT_TOOLS "\"tools\":[" WRAPPED(WEATHER_TEXT, SHORT_WEATHER) "," WRAPPED(SUM_TEXT, SHORT_SUM) "]"

enum { REQUIRED = 45, OPEN_EVERY = 5 };

static bool is_open(int i) { return i % OPEN_EVERY == 1; }
static bool is_streamed(int i) { return i % OPEN_EVERY == 0; }

static int ask_for_any(int i) {
    static const char *const asks[] = {"Hello!", "Tell me a story.", "What is 7 times 8?", PARIS};
    static const char *const heats[] = {"0.7", "1.5", "5"}; /* at 5 logits are as good as random */
    char body[4096];
    snprintf(body, sizeof body,
             "{\"temperature\":%s,\"seed\":%d,\"max_tokens\":%d,\"tool_choice\":\"required\","
             "\"parallel_tool_calls\":false,%s,\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}",
             heats[i % 3], i, is_open(i) ? 60 : 400, is_open(i) ? TOOLS : SHORT_TOOLS, asks[i % 4],
             is_streamed(i) ? ",\"stream\":true" : "");
    return api_send(&server, "POST", "/v1/chat/completions", body);
}

static void check_any(int i, const api_reply *reply) {
    outcome o = {.n = 0};
    (is_streamed(i) ? read_streamed : read_whole)(reply, &o);
    if (is_open(i) && strcmp(o.reason, "length") == 0) return; /* an endless string is cut */
    assert_int_equal(o.n, 1);
    assert_string_equal(o.text, "");
    assert_string_equal(o.reason, "tool_calls");
    const bool weather = strncmp(o.calls, "get_weather ", 12) == 0;
    squish_schema *s;
    bool valid = false;
    const char *json = strchr(o.calls, ' ') + 1, *schema = weather ? SHORT_WEATHER : SHORT_SUM;
    if (is_open(i)) schema = weather ? WEATHER_SCHEMA : SUM_SCHEMA;
    assert_int_equal(squish_schema_new(&s, schema, strlen(schema), NULL, NULL), SQUISH_OK);
    squish_schema_validate(s, json, strlen(json) - 1, NULL, NULL, &valid, NULL);
    squish_schema_free(s);
    assert_true(valid && (weather || strncmp(o.calls, "add_numbers ", 12) == 0));
}

/* Hot, about anything, and the answer is a call all the same, of a tool that there is, valid for its schema;
 * every fifth time the schemas are open, so that a call may be cut. All at once, as rows of the same steps.
 */
static void required_is_always_a_valid_call(void **state) {
    (void)state;
    int fds[REQUIRED];
    for (int i = 0; i < REQUIRED; i++) fds[i] = ask_for_any(i);
    for (int i = 0; i < REQUIRED; i++) check_any(i, api_read(fds[i]));
}

static void a_named_tool_is_the_one_that_is_called(void **state) {
    (void)state;
    outcome o = {.n = 0};
    chat_whole("{\"temperature\":0,\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"add_"
               "numbers\"}}," TOOLS "," SAY(PARIS) "}",
               &o);
    assert_memory_equal(o.calls, "add_numbers {", 13);
    o = (outcome){.n = 0};
    messages_whole("{\"temperature\":0,\"max_tokens\":99,\"tool_choice\":{\"type\":\"tool\",\"name\":\"add_"
                   "numbers\"}," INPUT_TOOLS "," SAY(PARIS) "}",
                   &o);
    assert_memory_equal(o.calls, "add_numbers {", 13);
    o = (outcome){.n = 0};
    responses_whole(
        "{\"temperature\":0,\"tool_choice\":{\"type\":\"function\",\"name\":\"add_numbers\"}," FLAT_TOOLS
        ",\"input\":\"" PARIS "\"}",
        &o);
    assert_memory_equal(o.calls, "add_numbers {", 13);
}

static void none_means_text_and_auto_may_answer_in_words(void **state) {
    (void)state;
    outcome o = {.n = 0};
    chat_whole("{\"temperature\":0,\"max_tokens\":60,\"tool_choice\":\"none\"," TOOLS "," SAY(PARIS) "}", &o);
    assert_int_equal(o.n, 0);
    assert_true(strlen(o.text) > 0 && !strstr(o.text, "<tool_call>"));
    o = (outcome){.n = 0};
    chat_whole("{\"temperature\":0," TOOLS "," SAY("What is the capital of Japan?") "}", &o);
    assert_int_equal(o.n, 0);
    assert_string_equal(o.reason, "stop");
    assert_non_null(strstr(o.text, "Tokyo"));
}

/* A cut call has no reason of its own, and is text where calls must be whole. */
static void a_call_that_was_cut_says_length(void **state) {
    (void)state;
    json_t *r = ask_json(&server, "POST", "/v1/chat/completions",
                         "{\"temperature\":0,\"max_tokens\":14," TOOLS "," SAY(PARIS) "}", 200);
    assert_non_null(r);
    assert_string_equal(text_at(r, "choices[0].finish_reason"), "length");
    assert_null(at(r, "choices[0].message.tool_calls"));
    assert_non_null(strstr(text_at(r, "choices[0].message.content"), "get_weather"));
    json_decref(r);
}

/* ---- some of the tools --------------------------------------------------------------------------- */

#define ONLY(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"

/* Whatever the model would rather call: nothing else can be. Hot, so that the grammar does it. */
static void allowed_tools_are_the_ones_that_are_called(void **state) {
    (void)state;
    for (int seed = 0; seed < 10; seed++) {
        char body[2048];
        outcome o = {.n = 0}, s = {.n = 0};
        const char *format =
            "{\"temperature\":1,\"seed\":%d,\"max_tokens\":400,\"parallel_tool_calls\":false,\"stream\":%s,"
            "\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\","
            "\"tools\":[" ONLY("add_numbers") "]}}," SHORT_TOOLS "," SAY(PARIS) "}";
        snprintf(body, sizeof body, format, seed, "false");
        chat_whole(body, &o);
        assert_int_equal(o.n, 1);
        assert_memory_equal(o.calls, "add_numbers {", 13);
        snprintf(body, sizeof body, format, seed, "true");
        chat_streamed(body, &s);
        assert_string_equal(s.calls, o.calls);
    }
    outcome o = {.n = 0};
    chat_whole(
        "{\"temperature\":0,\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\","
        "\"tools\":[" ONLY("get_weather") "," ONLY("add_numbers") "]}}," TOOLS "," SAY(PARIS) "}",
        &o);
    assert_string_equal(o.calls, "get_weather {\"city\":\"Paris\"};");
    o = (outcome){.n = 0};
    responses_whole(
        "{\"temperature\":0,\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"required\",\"tools\":[{"
        "\"type\":\"function\",\"name\":\"get_weather\"}]}," FLAT_TOOLS ",\"input\":\"" ADD "\"}",
        &o);
    assert_true(o.n > 0 && strncmp(o.calls, "get_weather {", 13) == 0);
}

/* ---- turns ------------------------------------------------------------------------------------ */

static void a_result_is_told_to_the_model_which_then_answers(void **state) {
    (void)state;
    outcome o = {.n = 0};
    chat_whole(
        "{\"temperature\":0," TOOLS ",\"messages\":[{\"role\":\"user\",\"content\":\"" PARIS
        "\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":"
        "\"function\","
        "\"function\":{\"name\":\"get_weather\",\"arguments\":\"{\\\"city\\\": "
        "\\\"Paris\\\"}\"}}]},{\"role\":"
        "\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"{\\\"temperature\\\": 21, \\\"condition\\\": "
        "\\\"sunny\\\"}\"}]}",
        &o);
    assert_string_equal(o.text, "It is 21 degrees and sunny in Paris.");
    o = (outcome){.n = 0};
    ollama_whole(
        "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":0,\"repeat_penalty\":1}"
        "," TOOLS ",\"messages\":[{\"role\":\"user\",\"content\":\"" PARIS
        "\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"get_"
        "weather\","
        "\"arguments\":{\"city\":\"Paris\"}}}]},{\"role\":\"tool\",\"tool_name\":\"get_weather\",\"content\":"
        "\"{\\\"temperature\\\": 21, \\\"condition\\\": \\\"sunny\\\"}\"}]}",
        &o);
    assert_string_equal(o.text, "It is 21 degrees and sunny in Paris.");
}

static void what_is_no_tool_or_no_call_is_refused_by_name(void **state) {
    (void)state;
#define CHAT "/v1/chat/completions"
    static const struct {
        const char *route, *body, *says;
    } rows[] = {
        {CHAT, "{\"tools\":{}," SAY("x") "}", "'tools' is no array"},
        {CHAT, "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]," SAY("x") "}",
         "tools[0]"},
        {CHAT,
         "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":7}}]," SAY("x") "}",
         "no JSON Schema"},
        {CHAT, "{" TOOLS ",\"tool_choice\":\"always\"," SAY("x") "}", "'always'"},
        {CHAT,
         "{" TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}," SAY("x") "}",
         "none of the 'tools'"},
        {CHAT,
         "{" TOOLS
         ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"none\",\"tools\":[" ONLY(
             "get_weather") "]}}," SAY("x") "}",
         "'none', wanted auto or required"},
        {CHAT, "{" TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\"}," SAY("x") "}",
         "allows no tools"},
        {CHAT,
         "{" TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"tools\":[" ONLY("f") "]}," SAY("x") "}",
         "none of the 'tools'"},
        {CHAT,
         "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\","
         "\"arguments\":\"{\\\"a\\\":\"}}]}]}",
         "messages[0].tool_calls[0]"},
        {CHAT, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\"}]}]}", "no function"},
        {CHAT,
         "{\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{"
         "\"type\":"
         "\"object\",\"properties\":{\"a\":{\"$ref\":\"http://a.b/c\"}}}}}]," SAY("x") "}",
         "$ref"},
        {"/v1/messages", "{\"max_tokens\":9,\"tool_choice\":{\"type\":\"any\"}," SAY("x") "}", "no 'tools'"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        const api_reply *r = ask(&server, "POST", rows[i].route, rows[i].body);
        if (r->status != 400 || !strstr(r->body, rows[i].says))
            fail_msg("%s: %d %s", rows[i].body, r->status, r->body);
    }
}

/* Not strict: what can be kept to is, and the answer says what is not. */
static void a_schema_that_is_not_kept_to_is_named_in_a_header(void **state) {
    (void)state;
#define LOOSE                                                                                                \
    "{\"temperature\":0,\"max_tokens\":300,\"tool_choice\":\"required\",\"tools\":[{\"type\":\"function\","  \
    "\"function\":{\"name\":\"get_weather\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{"  \
    "\"type\":\"string\"}},\"patternProperties\":{\"^(?=x)\":{}},\"unevaluatedItems\":{\"$ref\":"            \
    "\"nowhere\"}}}}]," SAY(PARIS) "}"
    outcome o = {.n = 0};
    chat_whole(LOOSE, &o);
    assert_string_equal(o.calls, "get_weather {\"city\":\"Paris\"};");
    const api_reply *r = ask(&server, "POST", CHAT, LOOSE);
    assert_non_null(strcasestr(r->head, "x-squish-schema-relaxed: get_weather#/patternProperties"));
}

static int setup(void **state) {
    (void)state;
    return api_start(&server, NULL);
}

static int teardown(void **state) {
    (void)state;
    api_end(&server);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_weather_and_a_sum_are_called_right_in_every_dialect),
        cmocka_unit_test(required_is_always_a_valid_call),
        cmocka_unit_test(allowed_tools_are_the_ones_that_are_called),
        cmocka_unit_test(a_named_tool_is_the_one_that_is_called),
        cmocka_unit_test(none_means_text_and_auto_may_answer_in_words),
        cmocka_unit_test(a_call_that_was_cut_says_length),
        cmocka_unit_test(a_result_is_told_to_the_model_which_then_answers),
        cmocka_unit_test(what_is_no_tool_or_no_call_is_refused_by_name),
        cmocka_unit_test(a_schema_that_is_not_kept_to_is_named_in_a_header),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
