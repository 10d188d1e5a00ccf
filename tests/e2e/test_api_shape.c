/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_shape.c - answers that must look like something, in every dialect, with the shipped model.
 *
 * The sampling is hot: what keeps the answers in shape is the grammar, not the model. */
#include "support/api_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static api_server server;

#define CHAT "/v1/chat/completions"
#define ASK "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me about Tokyo.\"}]"
#define HOT "\"temperature\":2,\"seed\":11,\"max_tokens\":400"
#define CITY                                                                                                 \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":20},\"people\":{"      \
    "\"type\":\"integer\",\"minimum\":0,\"maximum\":99999999},\"kind\":{\"enum\":[\"city\",\"town\"]}},"     \
    "\"required\":[\"name\",\"people\",\"kind\"],\"additionalProperties\":false}"

static bool is_valid(const char *schema, const char *text) {
    squish_schema *s;
    bool valid = false;
    if (squish_schema_new(&s, schema, strlen(schema), NULL, NULL) != SQUISH_OK) return false;
    squish_schema_validate(s, text, strlen(text), NULL, NULL, &valid, NULL);
    squish_schema_free(s);
    if (!valid) printf("not valid: %s\n", text);
    return valid;
}

/* The text at `path` of an answer, or of frames joined; a copy. */
static char *answer(const char *route, const char *body, const char *path, bool stream) {
    static char text[1 << 16];
    *text = 0;
    if (!stream) {
        json_t *o = ask_json(&server, "POST", route, body, 200);
        snprintf(text, sizeof text, "%s", text_at(o, path) ? text_at(o, path) : "");
        json_decref(o);
        return text;
    }
    json_t *frames = api_frames(ask(&server, "POST", route, body)), *f;
    size_t i;
    json_array_foreach(frames, i, f) {
        const char *piece = text_at(f, path);
        if (piece) strncat(text, piece, sizeof text - strlen(text) - 1);
    }
    json_decref(frames);
    return text;
}

static void every_dialect_keeps_to_a_schema(void **state) {
    (void)state;
    static const struct {
        const char *route, *body, *path;
        bool stream;
    } rows[] = {
        {CHAT,
         "{" HOT ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"city\","
         "\"strict\":true,\"schema\":" CITY "}}," ASK "}",
         "choices[0].message.content", false},
        {CHAT,
         "{" HOT ",\"stream\":true,\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":"
         "\"city\",\"schema\":" CITY "}}," ASK "}",
         "choices[0].delta.content", true},
        {CHAT, "{" HOT ",\"response_format\":{\"type\":\"json_object\",\"schema\":" CITY "}," ASK "}",
         "choices[0].message.content", false},
        {CHAT, "{" HOT ",\"guided_json\":" CITY "," ASK "}", "choices[0].message.content", false},
        {CHAT, "{" HOT ",\"structured_outputs\":{\"json\":" CITY "}," ASK "}", "choices[0].message.content",
         false},
        {"/v1/completions", "{" HOT ",\"prompt\":\"Tokyo:\",\"json_schema\":" CITY "}", "choices[0].text",
         false},
        {"/v1/responses",
         "{\"temperature\":2,\"seed\":3,\"input\":\"Tokyo?\",\"text\":{\"format\":{\"type\":\"json_schema\","
         "\"name\":\"city\",\"schema\":" CITY "}}}",
         "output[0].content[0].text", false},
        {"/v1/messages",
         "{\"temperature\":1,\"max_tokens\":400," ASK
         ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":" CITY "}}}",
         "content[0].text", false},
        {"/api/chat",
         "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":2}," ASK
         ",\"format\":" CITY "}",
         "message.content", false},
        {"/api/generate",
         "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"temperature\":2},\"prompt\":\"Tokyo?\","
         "\"format\":" CITY "}",
         "response", false},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        assert_true(is_valid(CITY, answer(rows[i].route, rows[i].body, rows[i].path, rows[i].stream)));
}

/* The model was taught to answer this in JSON; the object and its keys are its own. */
static void json_mode_answers_an_object(void **state) {
    (void)state;
    static const char person[] = "{\"type\":\"object\",\"required\":[\"name\",\"age\",\"city\"]}";
#define EXTRACT                                                                                              \
    "\"messages\":[{\"role\":\"user\",\"content\":\"Extract the name, age and city as JSON: Anna is 31 "     \
    "years "                                                                                                 \
    "old and lives in Paris.\"}]"
    assert_true(is_valid(
        person, answer(CHAT, "{\"temperature\":0,\"response_format\":{\"type\":\"json_object\"}," EXTRACT "}",
                       "choices[0].message.content", false)));
    assert_true(is_valid(person, answer("/api/chat",
                                        "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{"
                                        "\"temperature\":0},\"format\":\"json\"," EXTRACT "}",
                                        "message.content", false)));
}

static void regexes_choices_and_grammars_are_kept_to(void **state) {
    (void)state;
    const char *s = answer(CHAT, "{" HOT ",\"guided_regex\":\"[a-c]{3,5}x\"," ASK "}",
                           "choices[0].message.content", false);
    const size_t n = strspn(s, "abc");
    assert_true(n >= 3 && n <= 5 && strcmp(s + n, "x") == 0);
    s = answer(CHAT, "{" HOT ",\"guided_choice\":[\"a.b\",\"(c)\"]," ASK "}", "choices[0].message.content",
               false);
    assert_true(strcmp(s, "a.b") == 0 || strcmp(s, "(c)") == 0);
    s = answer(CHAT, "{" HOT ",\"grammar\":\"root ::= \\\"yes\\\" | \\\"no\\\"\"," ASK "}",
               "choices[0].message.content", false);
    assert_true(strcmp(s, "yes") == 0 || strcmp(s, "no") == 0);
    s = answer("/v1/completions", "{" HOT ",\"prompt\":\"x\",\"guided_regex\":\"[0-9]{4}\"}",
               "choices[0].text", false);
    assert_true(strlen(s) == 4 && strspn(s, "0123456789") == 4);
}

/* Each is a language of which every word is known. */
static void every_notation_and_structural_tags_are_kept_to(void **state) {
    (void)state;
    static const struct {
        const char *shape, *words[3];
    } rows[] = {
        {"\"grammar\":\"start: \\\"a\\\"~2 B\\nB: \\\"b\\\" | \\\"c\\\"\"", {"aab", "aac"}},
        {"\"guided_grammar\":\"s = 'x', ('y' | 'z') ;\"", {"xy", "xz"}},
        {"\"structured_outputs\":{\"grammar\":\"s ::= 'x' #x79\"}", {"xy"}},
        {"\"grammar\":{\"syntax\":\"ebnf\",\"definition\":\"s ::= \\\"q\\\"\"}", {"q"}},
        {"\"response_format\":{\"type\":\"grammar\",\"syntax\":\"lark\",\"definition\":\"start: \\\"k\\\"\"}",
         {"k"}},
        {"\"response_format\":{\"type\":\"grammar\",\"grammar\":\"root ::= \\\"yes\\\"\"}", {"yes"}},
        {"\"response_format\":{\"type\":\"structural_tag\",\"format\":{\"type\":\"tag\",\"begin\":\"<n>\","
         "\"content\":"
         "{\"type\":\"json_schema\",\"json_schema\":{\"enum\":[1,2]}},\"end\":\"</n>\"}}",
         {"<n>1</n>", "<n>2</n>"}},
        {"\"structured_outputs\":{\"structural_tag\":\"{\\\"type\\\":\\\"const_string\\\",\\\"value\\\":"
         "\\\"<|im_start|>!\\\"}\"}",
         {"<|im_start|>!"}},
        {"\"jump_forward\":\"canonical\",\"guided_regex\":\"the capital is (Rome|Oslo)\"",
         {"the capital is Rome", "the capital is Oslo"}},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        for (int stream = 0; stream < 2; stream++) {
            char body[1024];
            snprintf(body, sizeof body, "{" HOT ",\"stream\":%s,%s," ASK "}", stream ? "true" : "false",
                     rows[i].shape);
            const char *s = answer(
                CHAT, body, stream ? "choices[0].delta.content" : "choices[0].message.content", stream);
            bool known = false;
            for (int k = 0; k < 3 && rows[i].words[k]; k++) known |= strcmp(s, rows[i].words[k]) == 0;
            if (!known) fail_msg("%s: %s", rows[i].shape, s);
        }
}

/* The older form of structural tags: free text, in which nothing but a whole tag follows a trigger. */
static void structures_hold_behind_their_triggers(void **state) {
    (void)state;
    const char *s = answer(
        CHAT,
        "{\"temperature\":2,\"seed\":11,\"max_tokens\":60,\"response_format\":{\"type\":\"structural_tag\","
        "\"triggers\":"
        "[\" \"],\"structures\":[{\"begin\":\" \",\"schema\":{\"type\":\"boolean\"},\"end\":\";\"}]}," ASK
        "}",
        "choices[0].message.content", false);
    for (const char *at = s; (at = strchr(at, ' ')); at++) {
        const char *const ways[] = {" true;", " false;"};
        const size_t n = strlen(at);
        const bool whole =
            strncmp(at, ways[0], n < 6 ? n : 6) == 0 || strncmp(at, ways[1], n < 7 ? n : 7) == 0;
        if (!whole) fail_msg("'%s'", s);
    }
}

#define BEYOND                                                                                               \
    "{\"type\":\"object\",\"properties\":{\"id\":{\"enum\":[%s]},\"n\":{\"type\":\"integer\",\"minimum\":0," \
    "\"maximum\":9}},\"required\":[\"id\",\"n\"],\"additionalProperties\":false,\"propertyNames\":{"         \
    "\"pattern\":"                                                                                           \
    "\"^(?=%s)\"}}"

/* A schema that is not strict: the rest of it holds, the answer says what does not, and whether it did. */
static void what_is_beyond_a_schema_that_is_not_strict_is_named_and_checked(void **state) {
    (void)state;
    static const struct {
        const char *route, *before, *after, *text, *verdict;
    } rows[] = {
        {CHAT,
         "{" HOT "," ASK
         ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":",
         "}}}", "choices[0].message.content", "choices[0].schema_valid"},
        {"/api/chat", "{\"model\":\"squish-tiny\",\"stream\":false," ASK ",\"format\":", "}",
         "message.content", "schema_valid"},
        {"/v1/responses",
         "{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"x\",\"strict\":false,"
         "\"schema\":",
         "}}}", "output[0].content[0].text", "schema_valid"},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++)
        for (int valid = 0; valid < 2; valid++) {
            char body[2048], schema[600];
            snprintf(schema, sizeof schema, BEYOND, "\"a\",\"b\"", valid ? "[a-z]" : "[A-Z]");
            snprintf(body, sizeof body, "%s%s%s", rows[i].before, schema, rows[i].after);
            const api_reply *r = ask(&server, "POST", rows[i].route, body);
            if (r->status != 200) fail_msg("%s: %s", body, r->body);
            assert_non_null(strcasestr(r->head, "x-squish-schema-relaxed: #/propertyNames/pattern"));
            json_t *o = json_loads(r->body, 0, NULL);
            const char *text = text_at(o, rows[i].text);
            assert_true(text && strstr(text, "\"id\":") && strstr(text, "\"n\":"));
            assert_true(valid ? json_is_true(at(o, rows[i].verdict)) : json_is_false(at(o, rows[i].verdict)));
            json_decref(o);
        }
    json_t *frames = api_frames(
               ask(&server, "POST", CHAT,
                   "{" HOT ",\"stream\":true," ASK
                   ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"type\":"
                   "\"string\",\"maxLength\":3,\"not\":{\"pattern\":\"\\\\b\"}}}}}")),
           *f;
    size_t i, n = 0;
    json_array_foreach(frames, i, f) n += at(f, "choices[0].schema_valid") != NULL;
    assert_int_equal(n, 1);
    json_decref(frames);
}

static void an_answer_that_is_cut_says_length_and_one_that_is_whole_stop(void **state) {
    (void)state;
    json_t *o = ask_json(&server, "POST", CHAT,
                         "{\"temperature\":0,\"max_tokens\":3,\"guided_json\":" CITY "," ASK "}", 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "length");
    json_decref(o);
    o = ask_json(&server, "POST", CHAT, "{\"temperature\":0,\"guided_json\":" CITY "," ASK "}", 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "choices[0].finish_reason"), "stop");
    json_decref(o);
    o = ask_json(&server, "POST", "/api/chat",
                 "{\"model\":\"squish-tiny\",\"stream\":false,\"options\":{\"num_predict\":3}," ASK
                 ",\"format\":" CITY "}",
                 200);
    assert_non_null(o);
    assert_string_equal(text_at(o, "done_reason"), "length");
    json_decref(o);
}

/* The second request finds the grammar; so do two choices of one request, and another dialect's. */
static void one_grammar_serves_all_who_ask_for_it(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        json_t *o =
            ask_json(&server, "POST", CHAT, "{" HOT ",\"n\":4,\"guided_json\":" CITY "," ASK "}", 200);
        assert_non_null(o);
        for (size_t k = 0; k < 4; k++) {
            const json_t *choice = json_array_get(at(o, "choices"), k);
            assert_true(is_valid(CITY, text_at(choice, "message.content")));
        }
        json_decref(o);
    }
}

/* More grammars than are kept, each used while others come. */
static void many_grammars_come_and_go(void **state) {
    (void)state;
    for (int i = 0; i < 150; i++) {
        char body[256], wanted[16];
        snprintf(wanted, sizeof wanted, "x%d", i);
        snprintf(body, sizeof body, "{\"temperature\":1,\"prompt\":\"a\",\"guided_regex\":\"%s\"}", wanted);
        assert_string_equal(answer("/v1/completions", body, "choices[0].text", false), wanted);
    }
}

static void what_cannot_be_promised_is_refused_by_keyword(void **state) {
    (void)state;
    static const struct {
        const char *route, *body, *words[2];
    } rows[] = {
        {CHAT, "{" ASK ",\"guided_json\":{\"$ref\":\"http://a.b/c\"}}", {"'$ref'", "'#"}},
        {CHAT,
         "{" ASK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"schema\":{"
         "\"properties\":{\"a\":{\"multipleOf\":\"x\"}}}}}}",
         {"multipleOf", "at '#"}},
        {CHAT,
         "{" ASK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\"}}}",
         {"response_format", "no schema"}},
        {CHAT, "{" ASK ",\"response_format\":{\"type\":\"yaml\"}}", {"'yaml'", "json_schema"}},
        {CHAT, "{" ASK ",\"response_format\":\"json\"}", {"response_format", "wanted an object"}},
        {CHAT, "{" ASK ",\"guided_regex\":\"(\"}", {"regex", ""}},
        {CHAT,
         "{" ASK ",\"guided_regex\":\"a\",\"guided_choice\":[\"b\"]}",
         {"guided_regex", "guided_choice"}},
        {CHAT, "{" ASK ",\"guided_choice\":[1]}", {"guided_choice", "strings"}},
        {CHAT, "{" ASK ",\"grammar\":\"root ::= nowhere\"}", {"nowhere", ""}},
        {CHAT, "{" ASK ",\"guided_regex\":\"a\",\"ignore_eos\":true}", {"ignore_eos", "grammar"}},
        {CHAT, "{" ASK ",\"grammar\":{\"syntax\":\"peg\",\"definition\":\"a\"}}", {"'peg'", "lark"}},
        {CHAT, "{" ASK ",\"grammar\":{\"syntax\":\"lark\"}}", {"'grammar'", "a string"}},
        {CHAT, "{" ASK ",\"grammar\":\"start: other\"}", {"lark", "other"}},
        {CHAT, "{" ASK ",\"jump_forward\":\"far\",\"guided_regex\":\"a\"}", {"'far'", "canonical"}},
        {CHAT, "{" ASK ",\"response_format\":{\"type\":\"structural_tag\"}}", {"'format' is missing", ""}},
        {CHAT, "{" ASK ",\"structured_outputs\":{\"structural_tag\":\"[\"}}", {"tags", ""}},
        {CHAT,
         "{" ASK
         ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"strict\":true,\"schema\":{"
         "\"format\":\"regex\"}}}}",
         {"'format'", "at '#'"}},
        {"/v1/messages",
         "{\"max_tokens\":9," ASK
         ",\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"format\":\"regex\"}}}",
         {"'format'", "at '#'"}},
        {"/api/chat", "{\"model\":\"squish-tiny\"," ASK ",\"format\":\"yaml\"}", {"'format'", "JSON Schema"}},
        {"/api/chat",
         "{\"model\":\"squish-tiny\"," ASK ",\"format\":{\"not\":7}}",
         {"neither an object", "'#/not'"}},
        {"/v1/responses",
         "{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\"}}}",
         {"text.format", "no schema"}},
        {"/v1/messages",
         "{\"max_tokens\":9," ASK
         ",\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"what\"}}}",
         {"'type'", ""}},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        const api_reply *r = ask(&server, "POST", rows[i].route, rows[i].body);
        assert_int_equal(r->status, 400);
        for (int k = 0; k < 2; k++)
            if (!strstr(r->body, rows[i].words[k])) fail_msg("%s: %s", rows[i].body, r->body);
    }
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
        cmocka_unit_test(every_dialect_keeps_to_a_schema),
        cmocka_unit_test(json_mode_answers_an_object),
        cmocka_unit_test(regexes_choices_and_grammars_are_kept_to),
        cmocka_unit_test(every_notation_and_structural_tags_are_kept_to),
        cmocka_unit_test(structures_hold_behind_their_triggers),
        cmocka_unit_test(what_is_beyond_a_schema_that_is_not_strict_is_named_and_checked),
        cmocka_unit_test(an_answer_that_is_cut_says_length_and_one_that_is_whole_stop),
        cmocka_unit_test(one_grammar_serves_all_who_ask_for_it),
        cmocka_unit_test(many_grammars_come_and_go),
        cmocka_unit_test(what_cannot_be_promised_is_refused_by_keyword),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
