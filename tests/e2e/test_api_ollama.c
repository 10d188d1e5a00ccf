/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_ollama.c - Ollama's routes over a socket, with the shipped model and a store of the test's own.
 *
 * The store holds `tiny`, a copy of the shipped model that may be loaded, let go and deleted; squish-tiny
 * itself belongs to the command line and stays. */
#include "support/api_run.h"
#include "squish_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <sys/stat.h>

static api_server server;
static int ollama_port;
static char home[64];

#define JAPAN "\"messages\":[{\"role\":\"user\",\"content\":\"What is the capital of Japan?\"}]"
#define PLAIN "\"options\":{\"temperature\":0,\"repeat_penalty\":1}"
#define TOKYO "The capital of Japan is Tokyo."
#define SAY(model, more) "{\"model\":\"" model "\"," PLAIN "," JAPAN more "}"

/* The lines of an answer, in an array; NULL: one is no object. Owned by the caller. */
static json_t *lines_of(const api_reply *r) {
    json_t *list = json_array();
    for (char *p = r->body; *p;) {
        char *end = strchr(p, '\n');
        json_t *o = end ? json_loadb(p, (size_t)(end - p), 0, NULL) : NULL;
        if (!json_is_object(o)) {
            printf("no line of JSON: %.200s\n", p);
            json_decref(o);
            json_decref(list);
            return NULL;
        }
        json_array_append_new(list, o);
        p = end + 1;
    }
    return list;
}

static json_t *ask_lines(const char *path, const char *body, int status) {
    const api_reply *r = ask(&server, "POST", path, body);
    if (r->status != status) printf("%s: %d, wanted %d: %.300s\n", path, r->status, status, r->body);
    assert_int_equal(r->status, status);
    assert_non_null(strcasestr(r->head, "content-type: application/x-ndjson"));
    json_t *list = lines_of(r);
    assert_non_null(list);
    return list;
}

/* The text of {"error": ...}, which is all there is. Valid until the next call. */
static const char *refused(const char *method, const char *path, const char *body, int status) {
    static char text[600];
    json_t *o = ask_json(&server, method, path, body, status);
    assert_non_null(o);
    assert_int_equal(json_object_size(o), 1);
    assert_true(json_is_string(at(o, "error")));
    snprintf(text, sizeof text, "%s", text_at(o, "error"));
    json_decref(o);
    return text;
}

static void done_well(const char *method, const char *path, const char *body) {
    json_t *o = ask_json(&server, method, path, body, 200);
    assert_non_null(o);
    json_decref(o);
}

static void check_stamp(const char *s) { /* 2026-11-28T22:30:00.123456789Z */
    assert_non_null(s);
    assert_int_equal(strlen(s), 30);
    assert_true(s[4] == '-' && s[10] == 'T' && s[19] == '.' && s[29] == 'Z');
}

/* ---- answers --------------------------------------------------------------------------------- */

static void check_durations(const json_t *o) {
    const json_int_t load = int_at(o, "load_duration"), prompt = int_at(o, "prompt_eval_duration"),
                     eval = int_at(o, "eval_duration"), total = int_at(o, "total_duration");
    assert_true(load >= 0 && prompt > 0 && eval >= 0);
    assert_true(total + 3 >= load + prompt + eval); /* each is cut to whole nanoseconds */
    assert_int_equal(int_at(o, "prompt_eval_count"), 15);
    assert_int_equal(int_at(o, "eval_count"), 8);
}

static void a_chat_answer_has_text_reason_and_durations(void **state) {
    (void)state;
    json_t *o =
        ask_json(&server, "POST", "/api/chat", SAY("squish-tiny", ",\"stream\":false,\"tools\":[]"), 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "model"), "squish-tiny");
    assert_string_equal(text_at(o, "message.role"), "assistant");
    assert_string_equal(text_at(o, "message.content"), TOKYO);
    assert_true(json_is_true(at(o, "done")));
    assert_string_equal(text_at(o, "done_reason"), "stop");
    check_stamp(text_at(o, "created_at"));
    check_durations(o);
    json_decref(o);
}

static void a_chat_streams_unless_told_otherwise_and_says_the_same(void **state) {
    (void)state;
    json_t *list = ask_lines("/api/chat",
                             SAY("squish-tiny:latest", ",\"tools\":[],\"format\":\"\",\"think\":false"), 200);
    char text[256] = "";
    const size_t n = json_array_size(list);
    assert_true(n >= 3);
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(list, i);
        assert_string_equal(text_at(o, "model"), "squish-tiny:latest");
        assert_string_equal(text_at(o, "message.role"), "assistant");
        check_stamp(text_at(o, "created_at"));
        assert_int_equal(json_is_true(at(o, "done")), i + 1 == n);
        assert_int_equal(at(o, "done_reason") != NULL, i + 1 == n);
        strncat(text, text_at(o, "message.content"), sizeof text - strlen(text) - 1);
    }
    assert_string_equal(text, TOKYO);
    const json_t *last = json_array_get(list, n - 1);
    assert_string_equal(text_at(last, "message.content"), "");
    check_durations(last);
    json_decref(list);
}

static void an_answer_that_was_begun_goes_on(void **state) {
    (void)state;
    json_t *o = ask_json(
        &server, "POST", "/api/chat",
        "{\"model\":\"squish-tiny\",\"stream\":false," PLAIN ",\"messages\":[{\"role\":\"user\",\"content\":"
        "\"What is the capital of Japan?\"},{\"role\":\"assistant\",\"content\":\"The capital of Japan\"}]}",
        200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "message.content"), " is Tokyo.");
    json_decref(o);
}

static void generate_answers_and_its_context_goes_on(void **state) {
    (void)state;
    char *body = NULL;
    json_t *o = ask_json(
        &server, "POST", "/api/generate",
        "{\"model\":\"squish-tiny\",\"prompt\":\"What is the capital of Japan?\",\"stream\":false," PLAIN "}",
        200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "response"), TOKYO);
    assert_null(at(o, "message"));
    const json_t *context = at(o, "context");
    assert_int_equal(json_array_size(context), 15 + 8);
    check_durations(o);
    json_t *next = json_pack("{s:s, s:s, s:b, s:O}", "model", "squish-tiny", "prompt", "And of France?",
                             "stream", 0, "context", context);
    body = json_dumps(next, 0);
    json_t *two = ask_json(&server, "POST", "/api/generate", body, 200);
    assert_non_null(two);
    assert_true(int_at(two, "prompt_eval_count") > 15 + 8);
    free(body);
    json_decref(next);
    json_decref(two);
    json_decref(o);
    assert_non_null(
        strstr(refused("POST", "/api/generate",
                       "{\"model\":\"squish-tiny\",\"prompt\":\"x\",\"context\":[99999999]}", 400),
               "99999999"));
}

static void generate_streams_pieces_and_raw_takes_the_prompt_as_it_is(void **state) {
    (void)state;
    json_t *list = ask_lines("/api/generate",
                             "{\"model\":\"squish-tiny\",\"raw\":true," PLAIN
                             ",\"prompt\":\"<|im_start|>user\\nWhat is the "
                             "capital of Japan?<|im_end|>\\n<|im_start|>assistant\\n\"}",
                             200);
    char text[256] = "";
    const size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++)
        strncat(text, text_at(json_array_get(list, i), "response"), sizeof text - strlen(text) - 1);
    assert_string_equal(text, TOKYO);
    assert_null(at(json_array_get(list, n - 1), "context"));
    json_decref(list);
}

static void num_predict_and_stop_end_an_answer(void **state) {
    (void)state;
    json_t *o = ask_json(
        &server, "POST", "/api/chat",
        "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":0,\"repeat_penalty\":1,"
        "\"num_predict\":2,\"num_gpu\":99,\"mirostat\":0}," JAPAN "}",
        200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "done_reason"), "length");
    assert_int_equal(int_at(o, "eval_count"), 2);
    json_decref(o);
    o = ask_json(&server, "POST", "/api/chat",
                 "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":0,\"repeat_"
                 "penalty\":1,\"num_predict\":"
                 "-2,\"stop\":[\" is\"]}," JAPAN "}",
                 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "message.content"), "The capital of Japan");
    assert_string_equal(text_at(o, "done_reason"), "stop");
    json_decref(o);
}

static void log_probabilities_come_with_their_tokens(void **state) {
    (void)state;
    json_t *o = ask_json(&server, "POST", "/api/chat",
                         SAY("squish-tiny", ",\"stream\":false,\"logprobs\":true,\"top_logprobs\":2"), 200);
    assert_non_null(o);
    assert_int_equal(json_array_size(at(o, "logprobs")), 8);
    assert_int_equal(json_array_size(at(o, "logprobs[0].top_logprobs")), 2);
    assert_string_equal(text_at(o, "logprobs[0].token"), "The");
    json_t *list = ask_lines("/api/chat", SAY("squish-tiny", ",\"logprobs\":true"), 200);
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        n += json_array_size(at(json_array_get(list, i), "logprobs"));
    assert_int_equal(n, 8);
    json_decref(list);
    json_decref(o);
}

/* At this temperature all tokens are about as likely, so the answer is long. */
static void a_stream_that_breaks_ends_with_one_line_that_says_why(void **state) {
    (void)state;
    static const char body[] =
        "{\"model\":\"squish-tiny\",\"options\":{\"temperature\":5,\"top_k\":0,\"top_p\":1,"
        "\"seed\":1,\"num_predict\":3000}," JAPAN "}";
    char first;
    const int fd =
        api_send_n(&server, "POST", "/api/chat", "x-request-id: long-one\r\n", body, sizeof body - 1);
    assert_int_equal(recv(fd, &first, 1, MSG_PEEK), 1); /* it has begun */
    done_well("POST", "/v1/requests/long-one/cancel", "{}");
    const api_reply *r = api_read(fd);
    assert_int_equal(r->status, 200);
    json_t *list = lines_of(r);
    assert_non_null(list);
    const json_t *last = json_array_get(list, json_array_size(list) - 1);
    assert_string_equal(text_at(last, "error"), "the request was cancelled");
    assert_int_equal(json_object_size(last), 1);
    for (size_t i = 0; i + 1 < json_array_size(list); i++)
        assert_true(json_is_false(at(json_array_get(list, i), "done")));
    json_decref(list);
}

/* ---- loading --------------------------------------------------------------------------------- */

static bool runs(const char *name, char stamp[40]) {
    json_t *o = ask_json(&server, "GET", "/api/ps", NULL, 200);
    bool found = false;
    for (size_t i = 0; i < json_array_size(at(o, "models")); i++) {
        const json_t *m = json_array_get(at(o, "models"), i);
        if (strcmp(text_at(m, "name"), name) != 0) continue;
        found = true;
        assert_int_equal(strlen(text_at(m, "digest")), 64);
        assert_true(int_at(m, "size") > 1000000 && int_at(m, "context_length") > 0);
        assert_string_equal(text_at(m, "details.family"), "qwen2");
        check_stamp(text_at(m, "expires_at"));
        snprintf(stamp, 40, "%s", text_at(m, "expires_at"));
    }
    json_decref(o);
    return found;
}

static void wait_until_gone(const char *name) {
    char stamp[40];
    for (int i = 0; i < 2000 && runs(name, stamp); i++) usleep(5000);
    assert_false(runs(name, stamp));
}

static void an_empty_prompt_loads_and_keep_alive_says_how_long(void **state) {
    (void)state;
    char stamp[40];
    json_t *o = ask_json(&server, "POST", "/api/generate",
                         "{\"model\":\"tiny\",\"stream\":false,\"keep_alive\":-1}", 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "done_reason"), "load");
    assert_string_equal(text_at(o, "response"), "");
    json_decref(o);
    assert_true(runs("tiny:latest", stamp));
    assert_true(strncmp(stamp, "2100", 4) > 0); /* for ever */
    done_well("POST", "/api/generate",
              "{\"model\":\"tiny\",\"prompt\":\"\",\"stream\":false,\"keep_alive\":\"10m\"}");
    assert_true(runs("tiny:latest", stamp));
    assert_true(strncmp(stamp, "2100", 4) < 0);
    json_t *list = ask_lines("/api/chat", "{\"model\":\"tiny\",\"messages\":[],\"keep_alive\":0}", 200);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(text_at(list, "[0].done_reason"), "unload");
    assert_string_equal(text_at(list, "[0].message.content"), "");
    json_decref(list);
    wait_until_gone("tiny:latest");
    /* and what is not loaded is not loaded to be let go */
    list = ask_lines("/api/generate", "{\"model\":\"tiny\",\"keep_alive\":\"0\"}", 200);
    assert_string_equal(text_at(list, "[0].done_reason"), "unload");
    json_decref(list);
    assert_false(runs("tiny:latest", stamp));
}

static void keep_alive_0_lets_go_after_an_answer(void **state) {
    (void)state;
    json_t *o =
        ask_json(&server, "POST", "/api/chat", SAY("tiny", ",\"stream\":false,\"keep_alive\":0"), 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "message.content"), TOKYO);
    assert_true(int_at(o, "load_duration") > 0);
    json_decref(o);
    wait_until_gone("tiny:latest");
    char stamp[40];
    done_well("POST", "/api/generate", "{\"model\":\"squish-tiny\",\"stream\":false,\"keep_alive\":0}");
    assert_true(runs("squish-tiny:latest", stamp)); /* one of the command line stays */
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refusals_are_one_line_that_names_the_thing(void **state) {
    (void)state;
    static const struct {
        const char *path, *body, *says;
        int status;
    } rows[] = {
        {"/api/chat", "{\"model\":\"nobody\"," JAPAN "}", "model not found: no model 'nobody'", 404},
        {"/api/chat", "{" JAPAN "}", "'model' is missing", 400},
        {"/api/chat", "{\"model\":", "body", 400},
        {"/api/chat", SAY("squish-tiny", ",\"tools\":[{\"type\":\"function\"}]"), "'tools[0]' has no name",
         400},
        {"/api/chat", SAY("squish-tiny", ",\"think\":true"), "\"squish-tiny\" does not support thinking",
         400},
        {"/api/chat", SAY("squish-tiny", ",\"think\":\"high\""), "does not support thinking", 400},
        {"/api/chat", SAY("squish-tiny", ",\"stream\":3"), "'stream' is 3, wanted true or false", 400},
        {"/api/chat", SAY("squish-tiny", ",\"keep_alive\":\"soon\""), "'keep_alive'", 400},
        {"/api/chat",
         "{\"model\":\"squish-tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"images\":[\"aGk=\"]"
         "}]}",
         "'messages[0].images'", 400},
        {"/api/chat", "{\"model\":\"squish-tiny\",\"options\":{\"temperature\":\"hot\"}," JAPAN "}",
         "'options.temperature' is the string 'hot', wanted a number from 0 to 5", 400},
        {"/api/chat", "{\"model\":\"squish-tiny\",\"options\":[]," JAPAN "}", "'options' is no object", 400},
        {"/api/chat", "{\"model\":\"squish-tiny\",\"options\":{\"num_ctx\":8}," JAPAN "}",
         "the prompt has 15 tokens, the window of squish-tiny is 8", 400},
        {"/api/generate", "{\"model\":\"squish-tiny\",\"prompt\":\"a\",\"suffix\":\"b\"}", "'suffix'", 400},
        {"/api/generate", "{\"model\":\"squish-tiny\",\"prompt\":\"a\",\"images\":[\"aGk=\"]}", "'images'",
         400},
        {"/api/generate", "{\"model\":\"squish-tiny\",\"prompt\":\"a\",\"raw\":true,\"system\":\"s\"}",
         "'raw'", 400},
        {"/api/generate", "{\"model\":\"squish-tiny\",\"prompt\":\"a\",\"template\":\"{{ .Prompt }}\"}", "",
         400},
        {"/api/embed", "{\"model\":\"squish-tiny\",\"input\":7}", "'input'", 400},
        {"/api/show", "{}", "'model' is missing", 400},
        {"/api/show", "{\"model\":\"nobody\"}", "model not found", 404},
        {"/api/push", "{\"model\":\"squish-tiny\"}", "not pushed", 501},
        {"/api/nothing", "{}", "", 404},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *text = refused("POST", rows[i].path, rows[i].body, rows[i].status);
        if (!strstr(text, rows[i].says))
            fail_msg("%s %s: '%s', wanted '%s'", rows[i].path, rows[i].body, text, rows[i].says);
    }
}

/* ---- what there is --------------------------------------------------------------------------- */

static const json_t *entry(const json_t *tags, const char *name) {
    const json_t *list = at(tags, "models");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(text_at(json_array_get(list, i), "name"), name) == 0) return json_array_get(list, i);
    return NULL;
}

static void tags_and_show_say_what_stands_in_the_files(void **state) {
    (void)state;
    json_t *tags = ask_json(&server, "GET", "/api/tags", NULL, 200);
    const json_t *m = entry(tags, "tiny:latest");
    assert_non_null(m);
    assert_non_null(entry(tags, "squish-tiny:latest"));
    assert_string_equal(text_at(m, "details.format"), "safetensors");
    assert_string_equal(text_at(m, "details.family"), "qwen2");
    assert_int_equal(strlen(text_at(m, "digest")), 64);
    assert_true(int_at(m, "size") > 50000000);
    check_stamp(text_at(m, "modified_at"));
    json_t *ps = ask_json(&server, "GET", "/api/ps", NULL, 200); /* clients tell models by it */
    const json_t *loaded = entry(ps, "squish-tiny:latest");
    assert_non_null(loaded);
    assert_string_equal(text_at(loaded, "digest"), text_at(entry(tags, "squish-tiny:latest"), "digest"));
    json_decref(ps);
    static const char *const asks[] = {"{\"model\":\"squish-tiny\"}",
                                       "{\"name\":\"tiny\"}"}; /* loaded, and not */
    for (size_t i = 0; i < 2; i++) {
        json_t *o = ask_json(&server, "POST", "/api/show", asks[i], 200);
        assert_non_null(o);
        const json_t *info = at(o, "model_info");
        assert_string_equal(json_string_value(json_object_get(info, "general.architecture")), "qwen2");
        assert_int_equal(json_integer_value(json_object_get(info, "qwen2.context_length")), 4096);
        assert_int_equal(json_integer_value(json_object_get(info, "qwen2.embedding_length")), 512);
        assert_int_equal(json_integer_value(json_object_get(info, "qwen2.block_count")), 8);
        assert_int_equal(json_integer_value(json_object_get(info, "qwen2.attention.head_count")), 8);
        assert_int_equal(json_integer_value(json_object_get(info, "qwen2.attention.head_count_kv")), 2);
        assert_true(json_number_value(json_object_get(info, "qwen2.rope.freq_base")) == 100000.0);
        assert_true(json_integer_value(json_object_get(info, "general.parameter_count")) > 20000000);
        assert_string_equal(text_at(o, "capabilities[0]"), "completion");
        assert_non_null(strstr(text_at(o, "template"), "<|im_start|>"));
        assert_non_null(strstr(text_at(o, "modelfile"), "FROM "));
        json_decref(o);
    }
    json_decref(tags);
    json_t *o = ask_json(&server, "GET", "/api/version", NULL, 200);
    assert_string_equal(text_at(o, "version"), "0.13.0");
    json_decref(o);
}

static void embeddings_have_length_1_or_are_as_the_model_left_them(void **state) {
    (void)state;
    json_t *o = ask_json(
        &server, "POST", "/api/embed",
        "{\"model\":\"squish-tiny\",\"input\":[\"Tokyo\",\"a longer text about something else\"]}", 200);
    assert_non_null(o);
    assert_int_equal(json_array_size(at(o, "embeddings")), 2);
    double sum = 0;
    for (size_t i = 0; i < 512; i++) {
        const double v = json_real_value(json_array_get(at(o, "embeddings[0]"), i));
        sum += v * v;
    }
    assert_true(sum > 0.999 && sum < 1.001);
    assert_true(int_at(o, "prompt_eval_count") > 2 && int_at(o, "total_duration") > 0);
    json_t *old =
        ask_json(&server, "POST", "/api/embeddings", "{\"model\":\"squish-tiny\",\"prompt\":\"Tokyo\"}", 200);
    assert_int_equal(json_array_size(at(old, "embedding")), 512);
    const double ratio = json_real_value(at(old, "embedding[0]")) / json_real_value(at(old, "embedding[1]"));
    const double unit =
        json_real_value(at(o, "embeddings[0][0]")) / json_real_value(at(o, "embeddings[0][1]"));
    assert_true(ratio / unit > 0.999 && ratio / unit < 1.001); /* the same direction */
    json_decref(old);
    json_decref(o);
    o = ask_json(&server, "POST", "/api/embed",
                 "{\"model\":\"squish-tiny\",\"input\":\"Tokyo\",\"dimensions\":3}", 200);
    assert_int_equal(json_array_size(at(o, "embeddings[0]")), 3);
    json_decref(o);
    o = ask_json(&server, "POST", "/api/embed", "{\"model\":\"squish-tiny\",\"input\":[]}", 200);
    assert_int_equal(json_array_size(at(o, "embeddings")), 0);
    json_decref(o);
}

static void a_text_that_is_too_long_is_cut_only_where_asked_for_and_counted(void **state) {
    (void)state;
    static const char body[] =
        "{\"model\":\"squish-tiny\",\"options\":{\"num_ctx\":4},\"input\":\"one two three four five six "
        "seven\"%s}";
    char text[300];
    snprintf(text, sizeof text, body, "");
    assert_non_null(strstr(refused("POST", "/api/embed", text, 400), "the window of squish-tiny is 4"));
    snprintf(text, sizeof text, body, ",\"truncate\":true");
    json_t *o = ask_json(&server, "POST", "/api/embed", text, 200);
    assert_non_null(o);
    assert_int_equal(int_at(o, "prompt_eval_count"), 4);
    assert_true(int_at(o, "truncated_tokens") >= 3);
    json_decref(o);
}

/* ---- the store ------------------------------------------------------------------------------- */

static void a_model_is_made_copied_and_deleted(void **state) {
    (void)state;
    json_t *list = ask_lines(
        "/api/create",
        "{\"model\":\"poet\",\"from\":\"squish-tiny\",\"system\":\"Answer in rhymes.\",\"parameters\":"
        "{\"temperature\":0,\"repeat_penalty\":1,\"num_predict\":3,\"stop\":[\"xyz\"]}}",
        200);
    assert_string_equal(text_at(list, "[0].status"), "writing manifest");
    assert_string_equal(text_at(list, "[1].status"), "success");
    json_decref(list);
    json_t *o =
        ask_json(&server, "POST", "/api/chat", "{\"model\":\"poet\",\"stream\":false," JAPAN "}", 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "model"), "poet");
    assert_int_equal(int_at(o, "eval_count"), 3);     /* its number */
    assert_true(int_at(o, "prompt_eval_count") > 15); /* its words */
    json_decref(o);
    o = ask_json(&server, "POST", "/api/chat",
                 "{\"model\":\"poet\",\"stream\":false,\"options\":{\"num_predict\":2}," JAPAN "}", 200);
    assert_int_equal(int_at(o, "eval_count"), 2); /* the request's own comes first */
    json_decref(o);
    o = ask_json(&server, "POST", "/v1/chat/completions", "{\"model\":\"poet\"," JAPAN "}", 200);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 3); /* every dialect knows it */
    assert_string_equal(text_at(o, "model"), "poet");
    json_decref(o);
    done_well("POST", "/api/copy", "{\"source\":\"poet\",\"destination\":\"bard\"}");
    o = ask_json(&server, "POST", "/api/copy", "{\"source\":\"squish-tiny\",\"destination\":\"bard\"}", 409);
    assert_non_null(strstr(text_at(o, "error"), "delete it first")); /* and bard is what it was: */
    json_decref(o);
    o = ask_json(&server, "POST", "/api/show", "{\"model\":\"bard\"}", 200);
    assert_string_equal(text_at(o, "system"), "Answer in rhymes.");
    assert_non_null(strstr(text_at(o, "parameters"), "num_predict"));
    assert_string_equal(text_at(o, "details.parent_model"), "squish-tiny");
    json_decref(o);
    o = ask_json(&server, "GET", "/api/tags", NULL, 200);
    assert_non_null(entry(o, "bard:latest"));
    json_decref(o);
    o = ask_json(&server, "GET", "/v1/models/poet", NULL, 200);
    assert_string_equal(text_at(o, "id"), "poet");
    json_decref(o);
    done_well("DELETE", "/api/delete", "{\"model\":\"poet\"}");
    assert_non_null(strstr(refused("POST", "/api/show", "{\"model\":\"poet\"}", 404), "poet"));
    done_well("DELETE", "/api/delete", "{\"name\":\"bard\"}");
    refused("DELETE", "/api/delete", "{\"name\":\"bard\"}", 404);
}

/* Clients of Ollama call what is theirs USER/NAME:TAG. */
static void a_name_may_have_slashes(void **state) {
    (void)state;
    done_well("POST", "/api/copy", "{\"source\":\"squish-tiny\",\"destination\":\"me/bard\"}");
    done_well("POST", "/api/copy", "{\"source\":\"me/bard\",\"destination\":\"me/bard:v1\"}");
    json_t *o = ask_json(&server, "GET", "/api/tags", NULL, 200);
    assert_non_null(entry(o, "me/bard:latest"));
    assert_non_null(entry(o, "me/bard:v1"));
    json_decref(o);
    static const char *const paths[] = {"/v1/models/me/bard:v1", "/v1/models/me%2Fbard:v1"};
    for (size_t i = 0; i < 2; i++) {
        o = ask_json(&server, "GET", paths[i], NULL, 200);
        assert_string_equal(text_at(o, "id"), "me/bard:v1");
        json_decref(o);
    }
    static const char *const routes[] = {"/api/chat", "/v1/chat/completions"};
    for (size_t i = 0; i < 2; i++) {
        o = ask_json(&server, "POST", routes[i], "{\"model\":\"me/bard:v1\",\"stream\":false," JAPAN "}",
                     200);
        assert_string_equal(text_at(o, "model"), "me/bard:v1");
        json_decref(o);
    }
    done_well("DELETE", "/api/delete", "{\"model\":\"me/bard:latest\"}");
    refused("POST", "/api/show", "{\"model\":\"me/bard\"}", 404);
    done_well("DELETE", "/api/delete", "{\"model\":\"me/bard:v1\"}");
}

static void what_cannot_be_made_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *body, *says;
        int status;
    } rows[] = {
        {"{\"model\":\"../x\",\"from\":\"squish-tiny\"}", "'../x'", 400},
        {"{\"model\":\"a//b\",\"from\":\"squish-tiny\"}", "'a//b'", 400},
        {"{\"model\":\"a/../b\",\"from\":\"squish-tiny\"}", "'a/../b'", 400},
        {"{\"model\":\"hf.co/a/b\",\"from\":\"squish-tiny\"}", "and not hf.co", 400},
        {"{\"model\":\"x\",\"from\":\"nobody\"}", "nobody", 404},
        {"{\"model\":\"x\"}", "'from' is missing", 400},
        {"{\"model\":\"tiny\",\"from\":\"squish-tiny\"}", "'tiny' is a model already", 409},
        {"{\"model\":\"squish-tiny\",\"from\":\"tiny\"}", "is a model already", 409},
        {"{\"model\":\"x\",\"from\":\"tiny\",\"template\":\"{{ .Prompt }}\"}", "'template'", 400},
        {"{\"model\":\"x\",\"from\":\"tiny\",\"parameters\":{\"top_p\":9}}", "'parameters.top_p' is 9", 400},
        {"{\"model\":\"x\",\"from\":\"tiny\",\"quantize\":\"q4_0\"}", "squish compress", 400},
        {"{\"model\":\"x\",\"files\":{\"a.gguf\":\"sha256:12\"}}", "'files'", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *text = refused("POST", "/api/create", rows[i].body, rows[i].status);
        if (!strstr(text, rows[i].says)) fail_msg("%s: '%s', wanted '%s'", rows[i].body, text, rows[i].says);
    }
    refused("POST", "/api/copy", "{\"source\":\"nobody\",\"destination\":\"x\"}", 404);
    refused("POST", "/api/copy", "{\"source\":\"tiny\",\"destination\":\"../../x\"}", 400);
}

static void what_runs_or_lies_elsewhere_is_not_deleted(void **state) {
    (void)state;
    assert_non_null(
        strstr(refused("DELETE", "/api/delete", "{\"model\":\"squish-tiny\"}", 409), "command line"));
    refused("DELETE", "/api/delete", "{\"model\":\"../models/tiny\"}", 404);
    char command[300], path[200];
    struct stat st;
    snprintf(command, sizeof command,
             "mkdir %s/models/gone && echo '{}' > %s/models/gone/config.json && ln -s /etc/passwd "
             "%s/models/gone/link",
             home, home, home);
    assert_int_equal(system(command), 0);
    done_well("DELETE", "/api/delete", "{\"model\":\"gone\"}");
    snprintf(path, sizeof path, "%s/models/gone", home);
    assert_int_not_equal(stat(path, &st), 0);
    assert_int_equal(stat("/etc/passwd", &st), 0); /* a link is removed, not what it names */
    refused("DELETE", "/api/delete", "{\"model\":\"gone\"}", 404);
}

static void pull_answers_for_what_is_here_and_says_what_is_not(void **state) {
    (void)state;
    json_t *list = ask_lines("/api/pull", "{\"model\":\"tiny\"}", 200);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(text_at(list, "[0].status"), "pulling manifest");
    assert_string_equal(text_at(list, "[1].status"), "success");
    json_decref(list);
    /* this server was not told that it may ask others */
    assert_non_null(
        strstr(refused("POST", "/api/pull", "{\"model\":\"llama3.2\"}", 404), "asks no other machine"));
    refused("POST", "/api/pull", "{\"name\":\"llama3.2\",\"stream\":false}", 404);
    refused("POST", "/api/pull", "{\"model\":\"no such thing\"}", 404);
    refused("POST", "/api/pull", "{\"model\":\"https://example.org/x.gguf\"}", 400);
    json_t *o = ask_json(&server, "POST", "/api/pull", "{\"model\":\"tiny\",\"stream\":false}", 200);
    assert_string_equal(text_at(o, "status"), "success");
    json_decref(o);
    refused("POST", "/api/pull", "{\"model\":\"tiny\",\"insecure\":true}", 400);
}

static int upload(const char *hex, const void *bytes, size_t n) {
    char path[400];
    snprintf(path, sizeof path, "/api/blobs/sha256:%s", hex);
    return api_read(api_send_n(&server, bytes ? "POST" : "HEAD", path, "", bytes, n))->status;
}

static void digest(const void *bytes, size_t n, char hex[65]) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    EVP_Digest(bytes, n, sum, NULL, EVP_sha256(), NULL);
    for (size_t i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

static void *read_whole(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    void *p = malloc(*n);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    return p;
}

static void a_gguf_becomes_a_blob_and_then_a_model(void **state) {
    (void)state;
    char path[200], hex[65], body[300];
    squish_model *m;
    squish_export_result r;
    size_t n;
    snprintf(path, sizeof path, "%s/made.gguf", home);
    squish_model_options o = squish_model_options_default();
    o.tier = SQUISH_TIER_SOURCE;
    assert_int_equal(squish_model_open(&m, server.path, &o, NULL), SQUISH_OK);
    assert_int_equal(squish_export(m, "gguf", path, NULL, &r, NULL), SQUISH_OK);
    squish_model_close(m);
    char *bytes = read_whole(path, &n);
    digest(bytes, n, hex);
    assert_int_equal(upload(hex, NULL, 0), 404);
    assert_int_equal(upload(hex, bytes, n - 1), 400); /* another digest */
    assert_int_equal(upload(hex, NULL, 0), 404);      /* and nothing is left of it */
    assert_int_equal(upload(hex, bytes, n), 201);     /* beyond 1 MiB: through a file */
    assert_int_equal(upload(hex, NULL, 0), 200);
    free(bytes);
    digest("no model", 8, body);
    assert_int_equal(upload(body, "no model", 8), 400);
    assert_int_equal(upload("12", NULL, 0), 400);
    snprintf(
        body, sizeof body,
        "{\"model\":\"ours:1\",\"files\":{\"made.gguf\":\"sha256:%s\"},\"parameters\":{\"temperature\":0,"
        "\"repeat_penalty\":1}}",
        hex);
    json_t *list = ask_lines("/api/create", body, 200);
    json_decref(list);
    json_t *a = ask_json(&server, "POST", "/api/chat",
                         "{\"model\":\"ours:1\",\"stream\":false,\"keep_alive\":0," JAPAN "}", 200);
    assert_non_null(a);
    assert_string_equal(text_at(a, "message.content"), TOKYO);
    json_decref(a);
    wait_until_gone("ours:1.gguf");
    done_well("DELETE", "/api/delete", "{\"model\":\"ours:1\"}");
    refused("POST", "/api/show", "{\"model\":\"ours:1\"}", 404);
    refused("POST", "/api/show", "{\"model\":\"ours:1.gguf\"}", 404);
}

/* ---- media types ----------------------------------------------------------------------------- */

static int post_as(const char *headers) {
    static const char body[] = "{\"name\":\"squish-tiny\"}";
    char text[400];
    const int fd = api_connect(&server);
    const int n = snprintf(text, sizeof text,
                           "POST /api/show HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n%s"
                           "Content-Length: %zu\r\n\r\n%s",
                           headers, sizeof body - 1, body);
    api_write(fd, text, (size_t)n);
    return api_read(fd)->status;
}

static void programs_need_not_name_the_media_type_but_web_pages_must(void **state) {
    (void)state;
    assert_int_equal(post_as(""), 200);                                                    /* litellm */
    assert_int_equal(post_as("Content-Type: application/x-www-form-urlencoded\r\n"), 200); /* curl -d */
    assert_int_equal(post_as("Origin: http://localhost\r\nContent-Type: text/plain\r\n"), 415);
    assert_int_equal(post_as("Sec-Fetch-Site: cross-site\r\n"), 415);
    assert_int_equal(post_as("Origin: http://localhost\r\nContent-Type: application/json\r\n"), 200);
    assert_int_equal(post_as("Origin: http://evil.example\r\nContent-Type: application/json\r\n"), 403);
}

/* ---- the second listener --------------------------------------------------------------------- */

static void the_second_listener_says_that_ollama_is_running(void **state) {
    (void)state;
    api_server second = server;
    second.port = ollama_port;
    const api_reply *r = ask(&second, "GET", "/", NULL);
    assert_int_equal(r->status, 200);
    assert_string_equal(r->body, "Ollama is running");
    r = ask(&second, "HEAD", "/", NULL);
    assert_int_equal(r->status, 200);
    assert_int_equal(r->n, 0);
    json_t *o = ask_json(&second, "POST", "/v1/chat/completions", "{\"temperature\":0," JAPAN "}", 200);
    assert_string_equal(text_at(o, "choices[0].message.content"),
                        TOKYO); /* the others' routes are there as well */
    json_decref(o);
}

static void ready(void *user, const sq_api_ready *r) {
    ollama_port = (int)strtol(strrchr(r->ollama_url, ':') + 1, NULL, 10);
    api_is_ready(user, r);
}

static int setup(void **state) {
    (void)state;
    char command[400];
    snprintf(home, sizeof home, "/tmp/squish-ollama-XXXXXX");
    if (!mkdtemp(home)) return 1;
    sq_api_options o = api_options(&server);
    snprintf(command, sizeof command, "mkdir %s/models && cp -r '%.200s' %s/models/tiny", home, server.path,
             home);
    if (system(command) != 0) return 1;
    o.home = home;
    o.ollama_port = 0;
    o.ready = ready;
    return api_start(&server, &o);
}

static int teardown(void **state) {
    (void)state;
    char command[200];
    api_end(&server);
    snprintf(command, sizeof command, "rm -rf %s", home);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_answer_has_text_reason_and_durations),
        cmocka_unit_test(a_chat_streams_unless_told_otherwise_and_says_the_same),
        cmocka_unit_test(an_answer_that_was_begun_goes_on),
        cmocka_unit_test(generate_answers_and_its_context_goes_on),
        cmocka_unit_test(generate_streams_pieces_and_raw_takes_the_prompt_as_it_is),
        cmocka_unit_test(num_predict_and_stop_end_an_answer),
        cmocka_unit_test(log_probabilities_come_with_their_tokens),
        cmocka_unit_test(a_stream_that_breaks_ends_with_one_line_that_says_why),
        cmocka_unit_test(an_empty_prompt_loads_and_keep_alive_says_how_long),
        cmocka_unit_test(keep_alive_0_lets_go_after_an_answer),
        cmocka_unit_test(refusals_are_one_line_that_names_the_thing),
        cmocka_unit_test(tags_and_show_say_what_stands_in_the_files),
        cmocka_unit_test(embeddings_have_length_1_or_are_as_the_model_left_them),
        cmocka_unit_test(a_text_that_is_too_long_is_cut_only_where_asked_for_and_counted),
        cmocka_unit_test(a_model_is_made_copied_and_deleted),
        cmocka_unit_test(a_name_may_have_slashes),
        cmocka_unit_test(what_cannot_be_made_is_refused),
        cmocka_unit_test(what_runs_or_lies_elsewhere_is_not_deleted),
        cmocka_unit_test(pull_answers_for_what_is_here_and_says_what_is_not),
        cmocka_unit_test(a_gguf_becomes_a_blob_and_then_a_model),
        cmocka_unit_test(programs_need_not_name_the_media_type_but_web_pages_must),
        cmocka_unit_test(the_second_listener_says_that_ollama_is_running),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
