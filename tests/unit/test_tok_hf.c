/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_hf.c - tokenizer.json and the files beside it: what they decide, and what bad ones are told. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define SPAN(s) {(const uint8_t *)(s), sizeof(s) - 1}
#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"

static void bad_input_is_refused_in_one_line_that_names_the_field(void **state) {
    (void)state;
    static const struct {
        const char *json;
        squish_status status;
        const char *words;
    } cases[] = {
        {"", SQUISH_CORRUPT, "tokenizer.json"},
        {"{", SQUISH_CORRUPT, "tokenizer.json"},
        {"[]", SQUISH_CORRUPT, "wanted an object"},
        {"{}", SQUISH_CORRUPT, "model is missing"},
        {"{\"model\":[]}", SQUISH_CORRUPT, "model is of another type"},
        {"{\"model\":{\"type\":\"Unigram\"}}", SQUISH_UNSUPPORTED, "model.type is 'Unigram'"},
        {"{\"model\":{\"type\":5}}", SQUISH_CORRUPT, "'type'"},
        {"{\"model\":{\"merges\":[]}}", SQUISH_CORRUPT, "model.vocab is missing"},
        {"{\"model\":{\"vocab\":[],\"merges\":[]}}", SQUISH_CORRUPT, "model.vocab is of another type"},
        {"{\"model\":{\"vocab\":{},\"merges\":[]}}", SQUISH_CORRUPT, "model.vocab is empty"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", SQUISH_CORRUPT, "model.merges is missing"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", SQUISH_CORRUPT,
         "model.merges is of another type"},
        {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", SQUISH_CORRUPT,
         "the id of 'a' is not an integer"},
        {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", SQUISH_CORRUPT, "'a' has id -1"},
        {"{\"model\":{\"vocab\":{\"a\":4194304},\"merges\":[]}}", SQUISH_CORRUPT, "'a' has id 4194304"},
        {"{\"model\":{\"vocab\":{\"a\":9223372036854775807},\"merges\":[]}}", SQUISH_CORRUPT, "'a' has id"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", SQUISH_CORRUPT,
         "'b' has id 0, which another"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", SQUISH_CORRUPT, "duplicate"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a x\"]}}", SQUISH_CORRUPT,
         "model.merges[0]: the vocabulary has no token 'x'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", SQUISH_CORRUPT, "no token 'aa'"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", SQUISH_CORRUPT,
         "model.merges[0]: wanted one space"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", SQUISH_CORRUPT, "wanted one space"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}}", SQUISH_CORRUPT, "model.merges[0] is neither"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", SQUISH_CORRUPT, "wanted two strings"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",1]]}}", SQUISH_CORRUPT, "wanted two strings"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", SQUISH_UNSUPPORTED,
         "model.dropout"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         SQUISH_UNSUPPORTED, "end_of_word_suffix"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"continuing_subword_prefix\":\"##\"}}",
         SQUISH_UNSUPPORTED, "continuing_subword_prefix"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":1}}", SQUISH_CORRUPT,
         "byte_fallback"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}", SQUISH_CORRUPT,
         "model.unk_token '?'"},
        {"{\"added_tokens\":{}," MODEL "}", SQUISH_CORRUPT, "added_tokens is of another type"},
        {"{\"added_tokens\":[{\"id\":3}]," MODEL "}", SQUISH_CORRUPT, "added_tokens[0]: 'content'"},
        {"{\"added_tokens\":[{\"content\":\"x\"}]," MODEL "}", SQUISH_CORRUPT,
         "the id of 'x' is not an integer"},
        {"{\"added_tokens\":[{\"id\":-3,\"content\":\"x\"}]," MODEL "}", SQUISH_CORRUPT,
         "added_tokens: 'x' has id -3"},
        {"{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]," MODEL "}", SQUISH_CORRUPT,
         "added_tokens[0]: 'x' has id 1, which"},
        {"{\"added_tokens\":[{\"id\":7,\"content\":\"a\"}]," MODEL "}", SQUISH_CORRUPT,
         "'a' has id 7, model.vocab says 0"},
        {"{\"added_tokens\":[{\"id\":7,\"content\":\"x\",\"special\":\"yes\"}]," MODEL "}", SQUISH_CORRUPT,
         "added_tokens[0]: 'special'"},
        {"{\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":7,\"content\":\"y\"}]," MODEL "}",
         SQUISH_CORRUPT, "'y' has id 7"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_test_tok t;
        squish_status st = sq_test_tok_json(&t, cases[i].json);
        if (st != cases[i].status || !strstr(t.err.text, cases[i].words) || strchr(t.err.text, '\n'))
            fail_msg("%s: status %d, '%s', wanted %d, '%s'", cases[i].json, st, t.err.text, cases[i].status,
                     cases[i].words);
        assert_int_equal(t.blob.len, 0);
        sq_test_tok_free(&t);
    }
}

static void hostile_names_are_escaped_in_messages(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, "{\"model\":{\"vocab\":{\"\\u001b[31m\\n\":-1},\"merges\":[]}}"),
                     SQUISH_CORRUPT);
    assert_non_null(strstr(t.err.text, "'\\x1B[31m\\x0A'"));
    sq_test_tok_free(&t);
}

static void every_cut_of_a_file_is_refused(void **state) {
    (void)state;
    static const char json[] = "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}],"
                               "\"normalizer\":{\"type\":\"NFC\"},"
                               "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":true},\"decoder\":{"
                               "\"type\":\"ByteLevel\"}," MODEL "}";
    for (size_t n = 0; n < sizeof json - 1; n++) {
        sq_tok_hf_source src = {.tokenizer_json = {(const uint8_t *)json, n}};
        sq_test_tok t;
        assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_CORRUPT);
        assert_true(t.err.text[0] != '\0');
        sq_test_tok_free(&t);
    }
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, json), SQUISH_OK);
    sq_test_tok_free(&t);
}

static void gaps_between_ids_are_tokens_without_bytes(void **state) {
    (void)state;
    sq_test_tok t;
    sq_span s;
    assert_int_equal(sq_test_tok_json(&t, "{\"model\":{\"vocab\":{\"a\":2,\"b\":9},\"merges\":[]}}"),
                     SQUISH_OK);
    assert_int_equal(sq_tok_count(t.tok), 10);
    for (int32_t id = 0; id < 10; id++) assert_int_equal(sq_tok_bytes(t.tok, id, &s), id == 2 || id == 9);
    sq_test_tok_free(&t);
}

static void merges_come_as_strings_or_as_pairs(void **state) {
    (void)state;
    static const char *const json[] = {"{" MODEL "}", "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"
                                                      "\"merges\":[[\"a\",\"b\"]]}}"};
    for (size_t i = 0; i < SQ_COUNT(json); i++) {
        sq_test_tok t;
        char out[32];
        assert_int_equal(sq_test_tok_json(&t, json[i]), SQUISH_OK);
        assert_string_equal(sq_test_tok_ids(t.tok, "aab", 3, 0, out, sizeof out), "0 2");
        sq_test_tok_free(&t);
    }
}

/* ---- the files beside it --------------------------------------------------------------------- */

#define SPECIALS                                                                                             \
    "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},{\"id\":4,\"content\":\"</"          \
    "x>\",\"special\":true},"                                                                                \
    "{\"id\":5,\"content\":\"<|im_end|>\",\"special\":true},{\"id\":6,\"content\":\"<|end|>\"},"             \
    "{\"id\":7,\"content\":\"stop\"}]," MODEL "}"

static void the_end_set_joins_all_that_ends_a_turn(void **state) {
    (void)state;
    static const char *const extra[] = {"stop", "no such token", NULL};
    sq_tok_hf_source src = {.tokenizer_json = SPAN(SPECIALS),
                            .tokenizer_config_json = SPAN("{\"bos_token\":{\"content\":\"<s>\"},\"eos_"
                                                          "token\":\"</x>\"}"),
                            .generation_config_json = SPAN("{\"eos_token_id\":[1,4],\"bos_token_id\":2}"),
                            .config_json = SPAN("{\"eos_token_id\":0}"),
                            .extra_eos = extra};
    sq_test_tok t;
    assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_OK);
    assert_int_equal(sq_tok_eos(t.tok), 4);
    assert_int_equal(sq_tok_bos(t.tok), 3);
    static const bool ends[] = {false, true, false, false,
                                true,  true, false, true}; /* <|end|> is no control token here */
    for (int32_t id = 0; id < 8; id++) assert_int_equal(sq_tok_is_eos(t.tok, id), ends[id]);
    sq_test_tok_free(&t);
    src.generation_config_json = (sq_span){0}; /* then config.json speaks */
    assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_OK);
    assert_true(sq_tok_is_eos(t.tok, 0));
    assert_false(sq_tok_is_eos(t.tok, 1));
    sq_test_tok_free(&t);
}

static void bos_comes_from_the_first_file_that_says(void **state) {
    (void)state;
    sq_tok_hf_source src = {.tokenizer_json = SPAN(SPECIALS),
                            .generation_config_json = SPAN("{\"bos_token_id\":2}"),
                            .config_json = SPAN("{\"bos_token_id\":1}")};
    sq_test_tok t;
    assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_OK);
    assert_int_equal(sq_tok_bos(t.tok), 2);
    sq_test_tok_free(&t);
    src.tokenizer_config_json = (sq_span)SPAN("{\"bos_token\":null}");
    assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_OK);
    assert_int_equal(sq_tok_bos(t.tok), -1);
    sq_test_tok_free(&t);
}

static void add_bos_token_overrules_the_template(void **state) {
    (void)state;
#define TEMPLATE                                                                                             \
    "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},{"   \
    "\"Sequence\":{}}],"                                                                                     \
    "\"special_tokens\":{\"s\":{\"ids\":[3]}}},\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":" \
    "true}]," MODEL "}"
    static const struct {
        sq_span tokenizer, config;
        const char *ids;
    } cases[] = {
        {SPAN(TEMPLATE), SPAN("{\"bos_token\":\"<s>\"}"), "3 2"},
        {SPAN(TEMPLATE), SPAN("{\"bos_token\":\"<s>\",\"add_bos_token\":false}"), "2"},
        {SPAN(TEMPLATE), SPAN("{\"bos_token\":\"<s>\",\"add_bos_token\":true}"), "3 2"},
        {SPAN(SPECIALS), SPAN("{\"bos_token\":\"<s>\",\"add_bos_token\":true}"), "3 2"},
        {SPAN(SPECIALS), SPAN("{\"bos_token\":\"<s>\",\"eos_token\":\"</x>\",\"add_eos_token\":true}"),
         "2 4"},
        {SPAN(SPECIALS), SPAN("{\"bos_token\":\"<s>\"}"), "2"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_tok_hf_source src = {.tokenizer_json = cases[i].tokenizer,
                                .tokenizer_config_json = cases[i].config};
        sq_test_tok t;
        char out[32];
        assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_OK);
        assert_string_equal(sq_test_tok_ids(t.tok, "ab", 2, SQ_TOK_BOS_EOS, out, sizeof out), cases[i].ids);
        sq_test_tok_free(&t);
    }
}

static void bad_files_beside_it_are_named(void **state) {
    (void)state;
    static const struct {
        sq_span tc, gen, config;
        const char *words;
    } cases[] = {
        {SPAN("["), {0}, {0}, "tokenizer_config.json"},
        {SPAN("[]"), {0}, {0}, "tokenizer_config.json: not an object"},
        {SPAN("{\"add_bos_token\":1}"), {0}, {0}, "'add_bos_token'"},
        {{0}, SPAN("{\"eos_token_id\":\"x\"}"), {0}, "generation_config.json: eos_token_id"},
        {{0}, SPAN("{\"eos_token_id\":[0,8]}"), {0}, "generation_config.json: 8 is no token"},
        {{0}, SPAN("{\"eos_token_id\":-1}"), {0}, "-1 is no token"},
        {{0}, {0}, SPAN("{\"eos_token_id\":4294967296}"), "config.json: 4294967296 is no token"},
        {{0}, {0}, SPAN("{\"bos_token_id\":99}"), "bos_token_id"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_tok_hf_source src = {.tokenizer_json = SPAN(SPECIALS), .tokenizer_config_json = cases[i].tc,
                                .generation_config_json = cases[i].gen, .config_json = cases[i].config};
        sq_test_tok t;
        assert_int_equal(sq_test_tok_hf(&t, &src), SQUISH_CORRUPT);
        if (!strstr(t.err.text, cases[i].words))
            fail_msg("'%s' does not say '%s'", t.err.text, cases[i].words);
        sq_test_tok_free(&t);
    }
}

static void control_tokens_never_come_out_of_plain_text(void **state) {
    (void)state;
    /* The vocabulary has <s> as a token and merges that would yield it. */
    static const char json[] = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_"
                               "regex\":false},\"added_tokens\":[{\"id\":4,"
                               "\"content\":\"<s>\",\"special\":true}],\"model\":{\"ignore_merges\":true,"
                               "\"vocab\":{\"<\":0,\"s\":1,\">\":2,\"<s\":3,"
                               "\"<s>\":4},\"merges\":[\"< s\",\"<s >\"]}}";
    sq_test_tok t;
    char out[32];
    assert_int_equal(sq_test_tok_json(&t, json), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "<s>", 3, 0, out, sizeof out), "3 2");
    assert_string_equal(sq_test_tok_ids(t.tok, "<s>", 3, SQ_TOK_SPECIAL, out, sizeof out), "4");
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_input_is_refused_in_one_line_that_names_the_field),
        cmocka_unit_test(hostile_names_are_escaped_in_messages),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(gaps_between_ids_are_tokens_without_bytes),
        cmocka_unit_test(merges_come_as_strings_or_as_pairs),
        cmocka_unit_test(the_end_set_joins_all_that_ends_a_turn),
        cmocka_unit_test(bos_comes_from_the_first_file_that_says),
        cmocka_unit_test(add_bos_token_overrules_the_template),
        cmocka_unit_test(bad_files_beside_it_are_named),
        cmocka_unit_test(control_tokens_never_come_out_of_plain_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
