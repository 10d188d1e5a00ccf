/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_responses.c - POST /v1/responses and what it keeps, over a socket, with the shipped model. */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;

#define RESPONSES "/v1/responses"
#define SAY(more)                                                                                            \
    "{\"model\":\"squish-tiny\",\"temperature\":0,\"input\":\"What is the capital of Japan?\"" more "}"
#define TOKYO "The capital of Japan is Tokyo."

static json_t *say(const char *body) {
    json_t *o = ask_json(&server, "POST", RESPONSES, body, 200);
    assert_non_null(o);
    return o;
}

static void check_whole(const json_t *o) {
    assert_memory_equal(text_at(o, "id"), "resp_", 5);
    assert_string_equal(text_at(o, "object"), "response");
    assert_string_equal(text_at(o, "status"), "completed");
    assert_string_equal(text_at(o, "model"), "squish-tiny");
    assert_int_equal(json_array_size(at(o, "output")), 1);
    assert_string_equal(text_at(o, "output[0].type"), "message");
    assert_string_equal(text_at(o, "output[0].role"), "assistant");
    assert_string_equal(text_at(o, "output[0].status"), "completed");
    assert_string_equal(text_at(o, "output[0].content[0].type"), "output_text");
    assert_string_equal(text_at(o, "output[0].content[0].text"), TOKYO);
    assert_int_equal(json_array_size(at(o, "output[0].content[0].annotations")), 0);
    assert_int_equal(int_at(o, "usage.input_tokens"), 15);
    assert_int_equal(int_at(o, "usage.output_tokens"), 8);
    assert_int_equal(int_at(o, "usage.total_tokens"), 23);
    assert_true(json_is_null(at(o, "error")) && json_is_null(at(o, "incomplete_details")));
    assert_true(json_is_false(at(o, "store")));
    assert_string_equal(text_at(o, "text.format.type"), "text");
}

static void an_answer_is_one_message(void **state) {
    (void)state;
    json_t *o = say(SAY(",\"tools\":[],\"tool_choice\":\"auto\",\"text\":{\"format\":{\"type\":\"text\"}},"
                        "\"truncation\":\"disabled\",\"metadata\":{\"a\":\"b\"}"));
    check_whole(o);
    assert_string_equal(text_at(o, "metadata.a"), "b");
    json_decref(o);
}

static void items_of_all_forms_are_what_a_string_is(void **state) {
    (void)state;
    static const char *const inputs[] = {
        "[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"}]",
        "[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"What is "
        "the capital of "
        "Japan?\"}]}]",
        ("[{\"type\":\"reasoning\",\"summary\":[]},{\"role\":\"user\",\"content\":\"What is the capital of "
         "Japan?\"}]")};
    for (size_t i = 0; i < 3; i++) {
        char body[400];
        snprintf(body, sizeof body, "{\"model\":\"squish-tiny\",\"temperature\":0,\"input\":%s}", inputs[i]);
        json_t *o = say(body);
        check_whole(o);
        json_decref(o);
    }
}

static void an_answer_that_was_cut_is_incomplete(void **state) {
    (void)state;
    json_t *o = say(SAY(",\"max_output_tokens\":2"));
    assert_string_equal(text_at(o, "status"), "incomplete");
    assert_string_equal(text_at(o, "incomplete_details.reason"), "max_output_tokens");
    assert_int_equal(int_at(o, "usage.output_tokens"), 2);
    json_decref(o);
}

static void a_stream_counts_its_frames_and_ends_with_the_whole(void **state) {
    (void)state;
    static const char *const begins[] = {"response.created", "response.in_progress",
                                         "response.output_item.added", "response.content_part.added"};
    static const char *const ends[] = {"response.output_text.done", "response.content_part.done",
                                       "response.output_item.done", "response.completed"};
    const api_reply *r = ask(&server, "POST", RESPONSES, SAY(",\"stream\":true"));
    assert_int_equal(r->status, 200);
    assert_null(strstr(r->body, "[DONE]"));
    json_t *list = api_frames(r);
    const size_t n = json_array_size(list);
    assert_true(n > 8);
    char text[256] = "";
    for (size_t i = 0; i < n; i++) {
        const json_t *f = json_array_get(list, i);
        const char *type = text_at(f, "type");
        char event[80];
        snprintf(event, sizeof event, "event: %s\ndata: {", type);
        assert_non_null(strstr(r->body, event)); /* the name is there twice */
        assert_int_equal(int_at(f, "sequence_number"), i);
        if (i < 4)
            assert_string_equal(type, begins[i]);
        else if (i + 4 >= n)
            assert_string_equal(type, ends[i + 4 - n]);
        else {
            assert_string_equal(type, "response.output_text.delta");
            assert_string_equal(text_at(f, "item_id"), text_at(json_array_get(list, 2), "item.id"));
            strncat(text, text_at(f, "delta"), sizeof text - strlen(text) - 1);
        }
    }
    assert_string_equal(text, TOKYO);
    assert_string_equal(text_at(json_array_get(list, n - 4), "text"), TOKYO);
    check_whole(at(json_array_get(list, n - 1), "response"));
    assert_string_equal(text_at(list, "[0].response.status"), "in_progress");
    json_decref(list);
}

static void a_stream_that_breaks_ends_with_a_failed_response(void **state) {
    (void)state;
    static const char body[] = SAY(",\"stream\":true,\"ignore_eos\":true,\"max_output_tokens\":3000");
    char first;
    const int fd =
        api_send_n(&server, "POST", RESPONSES, "x-request-id: long-one\r\n", body, sizeof body - 1);
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1); /* it has begun */
    json_decref(ask_json(&server, "POST", "/v1/requests/long-one/cancel", "{}", 200));
    json_t *list = api_frames(api_read(fd));
    const json_t *last = json_array_get(list, json_array_size(list) - 1);
    assert_string_equal(text_at(last, "type"), "response.failed");
    assert_string_equal(text_at(last, "response.status"), "failed");
    assert_string_equal(text_at(last, "response.error.message"), "the request was cancelled");
    assert_int_equal(int_at(last, "sequence_number"), json_array_size(list) - 1);
    json_decref(list);
}

static void log_probabilities_come_where_they_are_included(void **state) {
    (void)state;
    json_t *o = say(SAY(",\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":2"));
    assert_int_equal(json_array_size(at(o, "output[0].content[0].logprobs")), 8);
    assert_string_equal(text_at(o, "output[0].content[0].logprobs[0].token"), "The");
    assert_int_equal(json_array_size(at(o, "output[0].content[0].logprobs[0].top_logprobs")), 2);
    json_decref(o);
}

static void instructions_stand_first_and_input_tokens_counts_them(void **state) {
    (void)state;
    json_t *o = ask_json(&server, "POST", "/v1/responses/input_tokens", SAY(""), 200);
    assert_int_equal(int_at(o, "input_tokens"), 15);
    assert_string_equal(text_at(o, "object"), "response.input_tokens");
    json_decref(o);
    o = ask_json(&server, "POST", "/v1/responses/input_tokens", SAY(",\"instructions\":\"Be brief.\""), 200);
    assert_true(int_at(o, "input_tokens") > 15);
    json_decref(o);
}

static void an_answer_is_kept_where_that_was_asked_for(void **state) {
    (void)state;
    char body[400], path[120];
    json_t *o = say(SAY("")); /* not asked */
    snprintf(path, sizeof path, RESPONSES "/%s", text_at(o, "id"));
    json_decref(o);
    json_decref(ask_json(&server, "GET", path, NULL, 404));
    o = say(SAY(",\"store\":true,\"instructions\":\"Be brief.\""));
    assert_true(json_is_true(at(o, "store")));
    snprintf(path, sizeof path, RESPONSES "/%s", text_at(o, "id"));
    json_t *again = ask_json(&server, "GET", path, NULL, 200);
    assert_true(json_equal(o, again));
    json_decref(again);
    /* it goes on: the question and the answer are there, the instructions are not */
    snprintf(body, sizeof body,
             "{\"model\":\"squish-tiny\",\"input\":\"And of France?\",\"max_output_tokens\":4,"
             "\"previous_response_id\":\"%s\"}",
             text_at(o, "id"));
    json_t *next = say(body);
    json_t *same = ask_json(
        &server, "POST", "/v1/chat/completions",
        "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"},"
        "{\"role\":\"assistant\",\"content\":\"" TOKYO
        "\"},{\"role\":\"user\",\"content\":\"And of France?\"}]}",
        200);
    if (strcmp(text_at(o, "output[0].content[0].text"), TOKYO) == 0)
        assert_int_equal(int_at(next, "usage.input_tokens"), int_at(same, "usage.prompt_tokens"));
    assert_true(int_at(next, "usage.input_tokens") > 25);
    assert_string_equal(text_at(next, "previous_response_id"), text_at(o, "id"));
    json_decref(same);
    json_decref(next);
    json_decref(o);
    o = ask_json(&server, "DELETE", path, NULL, 200);
    assert_true(json_is_true(at(o, "deleted")));
    json_decref(o);
    json_decref(ask_json(&server, "GET", path, NULL, 404));
    json_decref(ask_json(&server, "DELETE", path, NULL, 404));
    json_decref(ask_json(&server, "POST", RESPONSES, body, 400)); /* nothing to go on with */
}

static void what_is_not_offered_is_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *body, *param;
    } rows[] = {
        {SAY(",\"tools\":[{\"type\":\"web_search\"}]"), "tools"},
        {SAY(",\"tool_choice\":\"required\""), "tool_choice"},
        {SAY(",\"truncation\":\"auto\""), "truncation"},
        {SAY(",\"background\":true"), "background"},
        {SAY(",\"previous_response_id\":\"resp_x\""), "previous_response_id"},
        {"{\"model\":\"squish-tiny\"}", "input"},
        {"{\"model\":\"squish-tiny\",\"input\":[]}", "input"},
        {"{\"model\":\"squish-tiny\",\"input\":[{\"type\":\"item_reference\",\"id\":\"x\"}]}", "input[0]"},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\",\"image_url\":\"x\"}]}]}",
         "input[0].content[0]"},
        {SAY(",\"top_p\":7"), "top_p"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *o = ask_json(&server, "POST", RESPONSES, rows[i].body, 400);
        assert_non_null(o);
        assert_string_equal(text_at(o, "error.type"), "invalid_request_error");
        if (!text_at(o, "error.param") || strcmp(text_at(o, "error.param"), rows[i].param) != 0)
            fail_msg("%s: param '%s', wanted '%s'", rows[i].body, text_at(o, "error.param"), rows[i].param);
        json_decref(o);
    }
    json_decref(ask_json(&server, "POST", RESPONSES, "{\"model\":\"nobody\",\"input\":\"x\"}", 404));
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
        cmocka_unit_test(an_answer_is_one_message),
        cmocka_unit_test(items_of_all_forms_are_what_a_string_is),
        cmocka_unit_test(an_answer_that_was_cut_is_incomplete),
        cmocka_unit_test(a_stream_counts_its_frames_and_ends_with_the_whole),
        cmocka_unit_test(a_stream_that_breaks_ends_with_a_failed_response),
        cmocka_unit_test(log_probabilities_come_where_they_are_included),
        cmocka_unit_test(instructions_stand_first_and_input_tokens_counts_them),
        cmocka_unit_test(an_answer_is_kept_where_that_was_asked_for),
        cmocka_unit_test(what_is_not_offered_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
