/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_hf_steps.c - normalizer, pre_tokenizer, decoder and post_processor: refusals by name, and
 * flattening. That the steps do what they should is shown by tests/golden/test_tok_golden.c. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define MODEL "\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}"

static void unsupported_and_broken_steps_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *steps;
        squish_status status;
        const char *words;
    } cases[] = {
        {"\"normalizer\":{\"type\":\"BertNormalizer\"}", SQUISH_UNSUPPORTED,
         "normalizer: type 'BertNormalizer'"},
        {"\"normalizer\":{\"type\":7}", SQUISH_CORRUPT, "normalizer: 'type'"},
        {"\"normalizer\":{}", SQUISH_CORRUPT, "normalizer: 'type' is missing"},
        {"\"normalizer\":[]", SQUISH_CORRUPT, "normalizer"},
        {"\"normalizer\":{\"type\":\"Sequence\"}", SQUISH_CORRUPT, "'normalizers' is not an array"},
        {"\"normalizer\":{\"type\":\"Replace\",\"content\":\"\"}", SQUISH_CORRUPT, "'pattern'"},
        {"\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"}}", SQUISH_CORRUPT, "'content'"},
        {"\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}",
         SQUISH_UNSUPPORTED, "regex"},
        {"\"normalizer\":{\"type\":\"Prepend\"}", SQUISH_CORRUPT, "'prepend'"},
        {"\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}", SQUISH_UNSUPPORTED, "type 'UnicodeScripts'"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"}}", SQUISH_CORRUPT,
         "'behavior'"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\"}",
         SQUISH_CORRUPT, "'pattern'"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Glued\"}",
         SQUISH_UNSUPPORTED, "'Glued'"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":\"a\",\"behavior\":\"Isolated\"}", SQUISH_CORRUPT,
         "'pattern'"},
        {"\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}", SQUISH_UNSUPPORTED, "U+2581"},
        {"\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":"
         "\"last\"}",
         SQUISH_UNSUPPORTED, "'last'"},
        {"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
         "\"Digits\"}]}",
         SQUISH_UNSUPPORTED, "not the last"},
        {"\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\","
         "\"replacement\":\"\xE2\x96\x81\"},{\"type\":\"ByteLevel\"}]}",
         SQUISH_UNSUPPORTED, "ByteLevel together"},
        {"\"decoder\":{\"type\":\"WordPiece\"}", SQUISH_UNSUPPORTED, "decoder: type 'WordPiece'"},
        {"\"decoder\":{\"type\":\"Strip\",\"content\":\"x\",\"start\":1,\"stop\":0}", SQUISH_UNSUPPORTED,
         "Strip"},
        {"\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":2,\"stop\":0}", SQUISH_CORRUPT,
         "'start'"},
        {"\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"b\"}",
         SQUISH_UNSUPPORTED, "Replace"},
        {"\"post_processor\":{\"type\":\"BertProcessing\"}", SQUISH_UNSUPPORTED,
         "post_processor: type 'BertProcessing'"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\"}", SQUISH_CORRUPT, "'single' is not an array"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[5]}", SQUISH_CORRUPT, "single[0]"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
         "}",
         SQUISH_CORRUPT, "special_tokens"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
         "\"special_tokens\":{\"x\":"
         "{\"ids\":[2]}}}",
         SQUISH_CORRUPT, "an id is not 0 to 1"},
        {"\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}],"
         "\"special_tokens\":{\"x\":"
         "{\"ids\":[0,0,0,0,0,0,0,0,0]}}}",
         SQUISH_UNSUPPORTED, "more than 8 tokens"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        char json[1024];
        snprintf(json, sizeof json, "{%s," MODEL "}", cases[i].steps);
        sq_test_tok t;
        squish_status st = sq_test_tok_json(&t, json);
        if (st != cases[i].status || !strstr(t.err.text, cases[i].words))
            fail_msg("%s: status %d, '%s', wanted '%s'", json, st, t.err.text, cases[i].words);
        sq_test_tok_free(&t);
    }
}

static void too_many_and_too_deep_steps_are_refused(void **state) {
    (void)state;
    sq_buf json;
    sq_buf_init(&json, NULL, 1 << 16);
    sq_buf_puts(&json, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 17; i++) sq_buf_puts(&json, i ? ",{\"type\":\"NFC\"}" : "{\"type\":\"NFC\"}");
    sq_buf_puts(&json, "]}," MODEL "}");
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, json.data), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(t.err.text, "more than 16"));
    sq_test_tok_free(&t);
    json.len = 0;
    sq_buf_puts(&json, "{\"normalizer\":");
    for (int i = 0; i < 12; i++) sq_buf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 12; i++) sq_buf_puts(&json, "]}");
    sq_buf_puts(&json, "," MODEL "}");
    assert_int_equal(sq_test_tok_json(&t, json.data), SQUISH_CORRUPT);
    assert_non_null(strstr(t.err.text, "nested deeper than 8"));
    sq_test_tok_free(&t);
    sq_buf_deinit(&json);
}

static void sequences_are_flattened_in_order(void **state) {
    (void)state;
    static const char json[] = "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
                               "\"Sequence\",\"normalizers\":[{\"type\":\"NFKD\"}]},"
                               "{\"type\":\"Prepend\",\"prepend\":\"x\"}]},\"pre_tokenizer\":{\"type\":"
                               "\"Sequence\",\"pretokenizers\":[{\"type\":\"Sequence\","
                               "\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}]},{"
                               "\"type\":\"ByteLevel\"}]}," MODEL "}";
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, json), SQUISH_OK);
    static const tok_op_kind want[] = {TOK_OP_FORM, TOK_OP_PREPEND, TOK_OP_CLASS, TOK_OP_PREFIX,
                                       TOK_OP_KNOWN};
    assert_int_equal(t.tok->h->n_norm, 2);
    assert_int_equal(t.tok->h->n_pre, 3);
    for (size_t i = 0; i < SQ_COUNT(want); i++) assert_int_equal(t.tok->ops[i].kind, want[i]);
    assert_int_equal(t.tok->ops[0].variant, TOK_NFKD);
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsupported_and_broken_steps_are_refused_by_name),
        cmocka_unit_test(too_many_and_too_deep_steps_are_refused),
        cmocka_unit_test(sequences_are_flattened_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
