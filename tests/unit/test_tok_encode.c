/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_encode.c - added tokens, flags, affixes, ill-formed text. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

/* a 0, b 1, space 2, < 3, > 4, s 5, A 6, B 7; added from 10 on. */
#define MODEL                                                                                                \
    "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"<\":3,\">\":4,\"s\":5,\"A\":6,\"B\":7},"         \
    "\"merges\":[]}"
#define BYTES "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"

static void check(const char *added, const char *text, unsigned flags, const char *want) {
    char json[2048], got[256];
    snprintf(json, sizeof json, "{" BYTES "," MODEL ",\"added_tokens\":[%s]}", added);
    sq_test_tok t;
    if (sq_test_tok_json(&t, json) != SQUISH_OK) fail_msg("%s", t.err.text);
    sq_test_tok_ids(t.tok, text, strlen(text), flags, got, sizeof got);
    if (strcmp(got, want) != 0) fail_msg("'%s': %s, wanted %s", text, got, want);
    sq_test_tok_free(&t);
}
#define ADDED(id, content, more) "{\"id\":" #id ",\"content\":\"" content "\",\"normalized\":false" more "}"

static void special_tokens_are_recognised_only_on_demand(void **state) {
    (void)state;
    const char *added = ADDED(10, "<s>", ",\"special\":true") "," ADDED(11, "AB", "");
    check(added, "a<s>ABb", 0, "0 3 5 4 11 1");
    check(added, "a<s>ABb", SQ_TOK_SPECIAL, "0 10 11 1");
    check(added, "<s", SQ_TOK_SPECIAL, "3 5");
}

static void the_leftmost_longest_token_wins(void **state) {
    (void)state;
    const char *added =
        ADDED(10, "AB", "") "," ADDED(11, "ABAB", "") "," ADDED(12, "BA", "") "," ADDED(6, "A", "");
    check(added, "ABABA", 0, "11 6");
    check(added, "ABA", 0, "10 6");
    check(added, "BABA", 0, "12 12");
    check(added, "aAa", 0, "0 6 0");
    check(added, "ABAa", 0, "10 6 0");
}

static void strip_flags_take_the_white_space_around(void **state) {
    (void)state;
    const char *added = ADDED(10, "AA", ",\"lstrip\":true") "," ADDED(11, "BB", ",\"rstrip\":true");
    check(added, "a  AA  b", 0, "0 10 2 2 1");
    check(added, "a  BB  b", 0, "0 2 2 11 1");
    check(added, "BB  AA", 0, "11 10");
    check(added, " AA", 0, "10");
    check(added, "a \xC2\xA0\xE3\x80\x80" "AA", 0, "0 10");
}

static void a_single_word_token_stands_alone(void **state) {
    (void)state;
    const char *added = ADDED(10, "AA", ",\"single_word\":true");
    check(added, "AA", 0, "10");
    check(added, "a AA b", 0, "0 2 10 2 1");
    check(added, "aAA", 0, "0 6 6");
    check(added, "AAa", 0, "6 6 0");
    check(added, "<AA>", 0, "3 10 4");
}

static void normalised_tokens_are_matched_in_normalised_text(void **state) {
    (void)state;
    char got[64];
    sq_test_tok t;
    assert_int_equal(
        sq_test_tok_json(&t, "{\"normalizer\":{\"type\":\"NFC\"}," BYTES "," MODEL ",\"added_tokens\":["
                             "{\"id\":10,\"content\":\"e\xCC\x81\",\"normalized\":true},"
                             "{\"id\":11,\"content\":\"o\xCC\x81\",\"normalized\":false}]}"), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "a\xC3\xA9" "b", 4, 0, got, sizeof got), "0 10 1");
    assert_string_equal(sq_test_tok_ids(t.tok, "ae\xCC\x81" "b", 5, 0, got, sizeof got), "0 10 1");
    assert_string_equal(sq_test_tok_ids(t.tok, "o\xCC\x81", 3, 0, got, sizeof got), "11");
    assert_string_equal(sq_test_tok_ids(t.tok, "\xC3\xB3", 2, 0, got, sizeof got),
                        ""); /* no byte tokens here */
    sq_test_tok_free(&t);
}

static void affixes_are_added_once(void **state) {
    (void)state;
    char got[64];
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, "{" BYTES "," MODEL
                                          ",\"added_tokens\":[" ADDED(10, "<s>", ",\"special\":true") "],"
                                                                                                      "\"post"
                                                                                                      "_proce"
                                                                                                      "ssor\""
                                                                                                      ":{"
                                                                                                      "\"type"
                                                                                                      "\":"
                                                                                                      "\"Temp"
                                                                                                      "latePr"
                                                                                                      "ocessi"
                                                                                                      "ng\","
                                                                                                      "\"sing"
                                                                                                      "le\":["
                                                                                                      "{\"Spe"
                                                                                                      "cialTo"
                                                                                                      "ken\":"
                                                                                                      "{\"id"
                                                                                                      "\":\"<"
                                                                                                      "s>\","
                                                                                                      "\"type"
                                                                                                      "_id\":"
                                                                                                      "0}},{"
                                                                                                      "\"Sequ"
                                                                                                      "ence\""
                                                                                                      ":{"
                                                                                                      "\"id\""
                                                                                                      ":\"A\""
                                                                                                      ",\"typ"
                                                                                                      "e_"
                                                                                                      "id\":"
                                                                                                      "0}},{"
                                                                                                      "\"Spec"
                                                                                                      "ialTok"
                                                                                                      "en\":{"
                                                                                                      "\"id\""
                                                                                                      ":\"x\""
                                                                                                      ","
                                                                                                      "\"type"
                                                                                                      "_id\":"
                                                                                                      "0}}],"
                                                                                                      "\"spec"
                                                                                                      "ial_"
                                                                                                      "tokens"
                                                                                                      "\":{"
                                                                                                      "\"<s>"
                                                                                                      "\":{"
                                                                                                      "\"id\""
                                                                                                      ":\"<s>"
                                                                                                      "\","
                                                                                                      "\"ids"
                                                                                                      "\":["
                                                                                                      "10],"
                                                                                                      "\"toke"
                                                                                                      "ns\":["
                                                                                                      "\"<s>"
                                                                                                      "\"]},"
                                                                                                      "\"x\":"
                                                                                                      "{\"id"
                                                                                                      "\":"
                                                                                                      "\"x\","
                                                                                                      "\"ids"
                                                                                                      "\":[7,"
                                                                                                      "6],"
                                                                                                      "\"toke"
                                                                                                      "ns\":["
                                                                                                      "\"B\","
                                                                                                      "\"A\"]"
                                                                                                      "}}}}"),
                     SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "a", 1, 0, got, sizeof got), "0");
    assert_string_equal(sq_test_tok_ids(t.tok, "a", 1, SQ_TOK_BOS_EOS, got, sizeof got), "10 0 7 6");
    assert_string_equal(sq_test_tok_ids(t.tok, "", 0, SQ_TOK_BOS_EOS, got, sizeof got), "10 7 6");
    assert_string_equal(sq_test_tok_ids(t.tok, "<s>a", 4, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, got, sizeof got),
                        "10 0 7 6");
    assert_string_equal(sq_test_tok_ids(t.tok, "aBA", 3, SQ_TOK_BOS_EOS, got, sizeof got), "10 0 7 6");
    sq_test_tok_free(&t);
}

static void ill_formed_text_is_read_as_replacement_characters(void **state) {
    (void)state;
    char a[256], b[256];
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    sq_test_tok_ids(t.tok, "x\xE2\x82(\xFF\xC3", 6, 0, a, sizeof a);
    sq_test_tok_ids(t.tok, "x\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBD", 11, 0, b, sizeof b);
    assert_string_equal(a, b);
    sq_test_tok_free(&t);
}

static void results_live_in_the_arena_and_respect_its_ceiling(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", NULL), SQUISH_OK);
    sq_arena ar;
    sq_arena_init(&ar, NULL, 256, 1024);
    int32_t *ids;
    size_t n_ids;
    char text[4096];
    memset(text, '#', sizeof text);
    for (size_t i = 0; i < sizeof text; i += 2) text[i] = '\x02';
    assert_int_equal(sq_tok_encode(t.tok, text, 16, 0, &ar, &ids, &n_ids, NULL), SQUISH_OK);
    squish_error err = {0};
    assert_int_equal(sq_tok_encode(t.tok, text, sizeof text, 0, &ar, &ids, &n_ids, &err), SQUISH_NO_MEMORY);
    assert_null(ids);
    assert_int_equal(n_ids, 0);
    sq_arena_deinit(&ar);
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_are_recognised_only_on_demand),
        cmocka_unit_test(the_leftmost_longest_token_wins),
        cmocka_unit_test(strip_flags_take_the_white_space_around),
        cmocka_unit_test(a_single_word_token_stands_alone),
        cmocka_unit_test(normalised_tokens_are_matched_in_normalised_text),
        cmocka_unit_test(affixes_are_added_once),
        cmocka_unit_test(ill_formed_text_is_read_as_replacement_characters),
        cmocka_unit_test(results_live_in_the_arena_and_respect_its_ceiling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
