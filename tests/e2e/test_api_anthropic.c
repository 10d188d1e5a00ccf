/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_anthropic.c - POST /v1/messages and its count of tokens over a socket, with the shipped model. */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;

#define MESSAGES "/v1/messages"
#define JAPAN "\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"}]"
#define SAY(more) "{\"model\":\"squish-tiny\",\"max_tokens\":64,\"temperature\":0," JAPAN more "}"
#define TOKYO "The capital of Japan is Tokyo."

static json_t *say(const char *body) {
    json_t *o = ask_json(&server, "POST", MESSAGES, body, 200);
    assert_non_null(o);
    return o;
}

static void an_answer_is_a_message_with_one_block_of_text(void **state) {
    (void)state;
    json_t *o = say(SAY(",\"tools\":[],\"tool_choice\":{\"type\":\"auto\"},\"metadata\":{\"user_id\":\"u\"},"
                        "\"thinking\":{\"type\":\"disabled\"}"));
    assert_memory_equal(text_at(o, "id"), "msg_", 4);
    assert_string_equal(text_at(o, "type"), "message");
    assert_string_equal(text_at(o, "role"), "assistant");
    assert_string_equal(text_at(o, "model"), "squish-tiny");
    assert_int_equal(json_array_size(at(o, "content")), 1);
    assert_string_equal(text_at(o, "content[0].type"), "text");
    assert_string_equal(text_at(o, "content[0].text"), TOKYO);
    assert_string_equal(text_at(o, "stop_reason"), "end_turn");
    assert_true(json_is_null(at(o, "stop_sequence")));
    assert_int_equal(int_at(o, "usage.input_tokens") + int_at(o, "usage.cache_read_input_tokens"), 15);
    assert_int_equal(int_at(o, "usage.output_tokens"), 8);
    assert_int_equal(int_at(o, "usage.cache_creation_input_tokens"), 0);
    json_decref(o);
}

static void the_reason_for_the_end_is_told(void **state) {
    (void)state;
    json_t *o = say("{\"model\":\"squish-tiny\",\"max_tokens\":2,\"temperature\":0," JAPAN "}");
    assert_string_equal(text_at(o, "stop_reason"), "max_tokens");
    assert_int_equal(int_at(o, "usage.output_tokens"), 2);
    json_decref(o);
    o = say(SAY(",\"stop_sequences\":[\" is\"]"));
    assert_string_equal(text_at(o, "content[0].text"), "The capital of Japan");
    assert_string_equal(text_at(o, "stop_reason"), "stop_sequence");
    assert_string_equal(text_at(o, "stop_sequence"), " is");
    json_decref(o);
}

/* Frames of one stream: {"event": NAME, "data": {...}}, owned by the caller. */
static json_t *frames(const char *body) {
    const api_reply *r = ask(&server, "POST", MESSAGES, body);
    assert_int_equal(r->status, 200);
    assert_non_null(strcasestr(r->head, "content-type: text/event-stream"));
    json_t *list = json_array();
    for (char *p = r->body; *p;) {
        char name[64];
        int n = 0;
        assert_int_equal(sscanf(p, "event: %63[a-z_]\ndata: %n", name, &n), 1);
        assert_true(n > 0);
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        json_t *data = json_loadb(p + n, (size_t)(end - p - n), 0, NULL);
        assert_non_null(data);
        assert_string_equal(text_at(data, "type"), name); /* the name is there twice */
        json_array_append_new(list, data);
        p = end + 2;
    }
    return list;
}

static void a_stream_is_start_block_delta_stop_in_this_order(void **state) {
    (void)state;
    json_t *list = frames(SAY(",\"stream\":true"));
    const size_t n = json_array_size(list);
    assert_true(n >= 7);
    assert_string_equal(text_at(list, "[0].type"), "message_start");
    assert_int_equal(int_at(list, "[0].message.usage.input_tokens"), 15);
    assert_int_equal(int_at(list, "[0].message.usage.output_tokens"), 1);
    assert_int_equal(json_array_size(at(list, "[0].message.content")), 0);
    assert_true(json_is_null(at(list, "[0].message.stop_reason")));
    assert_string_equal(text_at(list, "[1].type"), "content_block_start");
    assert_string_equal(text_at(list, "[1].content_block.type"), "text");
    assert_string_equal(text_at(list, "[2].type"), "ping");
    char text[256] = "";
    for (size_t i = 3; i + 3 < n; i++) {
        const json_t *f = json_array_get(list, i);
        assert_string_equal(text_at(f, "type"), "content_block_delta");
        assert_string_equal(text_at(f, "delta.type"), "text_delta");
        assert_int_equal(int_at(f, "index"), 0);
        strncat(text, text_at(f, "delta.text"), sizeof text - strlen(text) - 1);
    }
    assert_string_equal(text, TOKYO);
    assert_string_equal(text_at(json_array_get(list, n - 3), "type"), "content_block_stop");
    const json_t *delta = json_array_get(list, n - 2);
    assert_string_equal(text_at(delta, "type"), "message_delta");
    assert_string_equal(text_at(delta, "delta.stop_reason"), "end_turn");
    assert_int_equal(int_at(delta, "usage.output_tokens"), 8);
    assert_int_equal(int_at(delta, "usage.input_tokens") + int_at(delta, "usage.cache_read_input_tokens"),
                     15);
    assert_string_equal(text_at(json_array_get(list, n - 1), "type"), "message_stop");
    json_decref(list);
}

static json_int_t count(const char *body) {
    json_t *o = ask_json(&server, "POST", "/v1/messages/count_tokens", body, 200);
    assert_non_null(o);
    const json_int_t n = int_at(o, "input_tokens");
    json_decref(o);
    return n;
}

static void tokens_are_counted_as_the_answer_counts_them(void **state) {
    (void)state;
    assert_int_equal(count("{\"model\":\"squish-tiny\"," JAPAN "}"), 15);
    const json_int_t with_system = count("{\"model\":\"squish-tiny\",\"system\":\"Be brief.\"," JAPAN "}");
    assert_true(with_system > 15);
    assert_int_equal(
        count(
            "{\"model\":\"squish-tiny\",\"system\":[{\"type\":\"text\",\"text\":\"Be \"},{\"type\":\"text\","
            "\"text\":\"brief.\",\"cache_control\":{\"type\":\"ephemeral\"}}]," JAPAN "}"),
        with_system);
    /* blocks are what a string is */
    assert_int_equal(count("{\"model\":\"squish-tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{"
                           "\"type\":\"text\",\"text\":"
                           "\"What is the capital \"},{\"type\":\"text\",\"text\":\"of Japan?\"}]}]}"),
                     15);
}

static void tools_of_earlier_turns_reach_the_template(void **state) {
    (void)state;
    const json_int_t n = count("{\"model\":\"squish-tiny\",\"messages\":[{\"role\":\"user\",\"content\":"
                               "\"Weather?\"},{\"role\":\"assistant\",\"content\":["
                               "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"\"},{\"type\":"
                               "\"tool_use\",\"id\":\"t1\",\"name\":\"weather\","
                               "\"input\":{\"city\":\"Oslo\"}}]},{\"role\":\"user\",\"content\":[{\"type\":"
                               "\"tool_result\",\"tool_use_id\":\"t1\","
                               "\"content\":[{\"type\":\"text\",\"text\":\"rain\"}]}]}]}");
    assert_true(
        n > count("{\"model\":\"squish-tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Weather?\"}]}") +
                10);
}

static void an_answer_that_was_begun_goes_on(void **state) {
    (void)state;
    json_t *o = say(
        "{\"model\":\"squish-tiny\",\"max_tokens\":64,\"temperature\":0,\"messages\":[{\"role\":\"user\","
        "\"content\":"
        "\"What is the capital of Japan?\"},{\"role\":\"assistant\",\"content\":\"The capital of Japan\"}]}");
    assert_string_equal(text_at(o, "content[0].text"), " is Tokyo.");
    json_decref(o);
}

static void refusals_have_type_message_and_request_id(void **state) {
    (void)state;
    static const struct {
        const char *body, *type, *says;
        int status;
    } rows[] = {
        {"{\"model\":\"nobody\",\"max_tokens\":9," JAPAN "}", "not_found_error", "nobody", 404},
        {"{\"model\":\"squish-tiny\"}", "invalid_request_error", "'messages' is missing", 400},
        {"{\"model\":\"squish-tiny\",\"messages\":[]}", "invalid_request_error", "'messages' is empty", 400},
        {SAY(",\"temperature\":3"), "invalid_request_error", "", 400}, /* twice the same key */
        {"{\"model\":\"squish-tiny\",\"temperature\":1.5," JAPAN "}", "invalid_request_error",
         "'temperature' is 1.5, wanted a number from 0 to 1", 400},
        {"{\"model\":\"squish-tiny\",\"max_tokens\":0," JAPAN "}", "invalid_request_error",
         "'max_tokens' is 0", 400},
        {SAY(",\"tools\":[{\"input_schema\":{}}]"), "invalid_request_error", "'tools[0]' has no name", 400},
        {SAY(",\"tool_choice\":{\"type\":\"any\"}"), "invalid_request_error", "'tool_choice'", 400},
        {SAY(",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":-1}"), "invalid_request_error",
         "'thinking.budget_tokens'", 400},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":"
         "\"image\",\"source\":{}}]}]}",
         "invalid_request_error", "'messages[0].content[1]' is a block of type 'image'", 400},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", "invalid_request_error",
         "'messages[0].role' is tool", 400},
        {"{\"messages\":[{\"role\":\"user\",\"content\":7}]}", "invalid_request_error",
         "'messages[0].content'", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *o = ask_json(&server, "POST", MESSAGES, rows[i].body, rows[i].status);
        assert_non_null(o);
        assert_string_equal(text_at(o, "type"), "error");
        assert_string_equal(text_at(o, "error.type"), rows[i].type);
        if (!strstr(text_at(o, "error.message"), rows[i].says))
            fail_msg("%s: '%s', wanted '%s'", rows[i].body, text_at(o, "error.message"), rows[i].says);
        assert_true(strlen(text_at(o, "request_id")) > 0);
        json_decref(o);
    }
    const api_reply *r = ask(&server, "POST", MESSAGES, SAY(""));
    assert_non_null(strcasestr(r->head, "\nrequest-id: "));
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
        cmocka_unit_test(an_answer_is_a_message_with_one_block_of_text),
        cmocka_unit_test(the_reason_for_the_end_is_told),
        cmocka_unit_test(a_stream_is_start_block_delta_stop_in_this_order),
        cmocka_unit_test(tokens_are_counted_as_the_answer_counts_them),
        cmocka_unit_test(tools_of_earlier_turns_reach_the_template),
        cmocka_unit_test(an_answer_that_was_begun_goes_on),
        cmocka_unit_test(refusals_have_type_message_and_request_id),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
