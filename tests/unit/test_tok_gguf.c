/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_gguf.c - vocabularies as GGUF files carry them: types, pre-tokenizers, scores, bad values. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#define S(s) {(const uint8_t *)(s), sizeof(s) - 1}
#define G "\xC4\xA0" /* a space in the byte-level alphabet */

static const sq_span bpe_tokens[] = {
    S("a"), S("b"),  S("ab"), S(G),   S(G "ab"), S("<|im_end|>"), S("[USER]"),   S("1"),
    S("2"), S("12"), S("'"),  S("B"), S("aab"),  S("\xE4"),       S("\xC2\xB8"), S("\xC5\x83")};
static const sq_span bpe_merges[] = {S("a b"), S(G " ab"), S("1 2")};
static const int32_t bpe_types[] = {1, 1, 1, 1, 1, 3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static sq_tok_gguf_source bpe(const char *pre) {
    return (sq_tok_gguf_source){.model = "gpt2",
                                .pre = pre,
                                .n_tokens = 16,
                                .n_merges = 3,
                                .tokens = bpe_tokens,
                                .merges = bpe_merges,
                                .types = bpe_types,
                                .bos = 5,
                                .eos = 5,
                                .eot = -1,
                                .unk = -1,
                                .pad = -1,
                                .add_bos = -1,
                                .add_eos = -1,
                                .add_space_prefix = -1};
}

static void check(const sq_tok_gguf_source *src, const char *text, unsigned flags, const char *want) {
    sq_test_tok t;
    char got[128];
    if (sq_test_tok_gguf(&t, src) != SQUISH_OK) fail_msg("%s", t.err.text);
    sq_test_tok_ids(t.tok, text, strlen(text), flags, got, sizeof got);
    if (strcmp(got, want) != 0)
        fail_msg("%s, '%s': %s, wanted %s", src->pre ? src->pre : "-", text, got, want);
    sq_test_tok_free(&t);
}

static void token_types_decide_what_text_becomes(void **state) {
    (void)state;
    sq_tok_gguf_source src = bpe("gpt-2");
    check(&src, "ab ab[USER]b", 0, "2 4 6 1");
    check(&src, "<|im_end|>", SQ_TOK_SPECIAL, "5");
    check(&src, "b<|im_end|>", 0, "1"); /* its characters have no tokens here */
    sq_test_tok t;
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    assert_true(sq_tok_is_control(t.tok, 5) && sq_tok_is_eos(t.tok, 5));
    assert_false(sq_tok_is_control(t.tok, 6));
    sq_test_tok_free(&t);
}

static void the_pre_tokenizer_is_chosen_by_name(void **state) {
    (void)state;
    static const struct {
        const char *pre, *text, *ids;
    } cases[] = {
        {"gpt-2", "12 ab", "9 4"}, {"default", "12", "9"}, {"qwen2", "12", "7 8"}, {"llama-bpe", "12", "9"},
        {"llama3", "aab", "12"}, /* ignore_merges: a whole piece */
        {"gpt-2", "aab", "0 2"}, {"smollm", "12 ab", "7 8 4"}, {"deepseek-llm", "12 ab", "7 8 4"},
        {"deepseek-r1-qwen", "12", "7 8"},
        {"qwen2", "b'\x42", "1 10 11"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_tok_gguf_source src = bpe(cases[i].pre);
        check(&src, cases[i].text, 0, cases[i].ids);
    }
}

static void an_unknown_pre_tokenizer_is_refused_and_a_missing_one_warned_about(void **state) {
    (void)state;
    sq_tok_gguf_source src = bpe("zebra");
    sq_test_tok t;
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(t.err.text, "tokenizer.ggml.pre is 'zebra'"));
    sq_test_tok_free(&t);
    src.pre = NULL;
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    assert_int_equal(t.n_warnings, 1);
    sq_test_tok_free(&t);
}

static void bos_and_eos_follow_the_file_or_the_family(void **state) {
    (void)state;
    sq_tok_gguf_source src = bpe("gpt-2");
    check(&src, "a", SQ_TOK_BOS_EOS, "0");
    src.pre = "llama-bpe";
    check(&src, "a", SQ_TOK_BOS_EOS, "5 0");
    src.add_bos = 0;
    check(&src, "a", SQ_TOK_BOS_EOS, "0");
    src.add_bos = src.add_eos = 1;
    src.eos = 6;
    check(&src, "a", SQ_TOK_BOS_EOS, "5 0 6");
}

/* ---- llama ----------------------------------------------------------------------------------- */

#define M "\xE2\x96\x81"
static const sq_span spm_tokens[] = {S("<unk>"), S("<s>"),    S("</s>"), S("<0xC3>"), S("<0xA9>"),
                                     S(M),       S("a"),      S("b"),    S(M "a"),    S("ab"),
                                     S(M "ab"),  S("unused"), S("[U]")};
static const int32_t spm_types[] = {2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 5, 4};
static const float spm_scores[] = {0, 0, 0, 0, 0, -9, -8, -7, -3, -2, -1, 0, 0};

static sq_tok_gguf_source spm(void) {
    return (sq_tok_gguf_source){.model = "llama",
                                .n_tokens = 13,
                                .tokens = spm_tokens,
                                .types = spm_types,
                                .scores = spm_scores,
                                .bos = 1,
                                .eos = 2,
                                .eot = -1,
                                .unk = 0,
                                .pad = -1,
                                .add_bos = -1,
                                .add_eos = -1,
                                .add_space_prefix = -1};
}

static void the_best_score_merges_first(void **state) {
    (void)state;
    sq_tok_gguf_source src = spm();
    check(&src, "ab", 0, "10");
    check(&src, "ab ab", 0, "10 10");
    check(&src, "aab", 0, "8 9");
    check(&src, "\xC3\xA9", 0, "5 3 4");
    check(&src, "?", 0, "5 0"); /* its byte has no token */
    check(&src, "a[U]a", 0, "8 12 8");
    check(&src, "ab", SQ_TOK_BOS_EOS, "1 10");
    check(&src, "</s>", SQ_TOK_SPECIAL, "2");
    check(&src, "", 0, "");
    src.add_space_prefix = 0;
    check(&src, "ab", 0, "9");
    check(&src, " ab", 0, "10");
    check(&src, M "ab", 0, "10");
}

static void decoding_restores_spaces_and_bytes(void **state) {
    (void)state;
    sq_tok_gguf_source src = spm();
    sq_test_tok t;
    char out[64];
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    const int32_t ids[] = {1, 10, 8, 3, 4, 12};
    assert_string_equal(sq_test_tok_text(t.tok, ids, 6, false, out, sizeof out), "ab a\xC3\xA9[U]");
    sq_test_tok_free(&t);
}

/* ---- bad values ------------------------------------------------------------------------------ */

static void refused(const sq_tok_gguf_source *src, squish_status status, const char *words) {
    sq_test_tok t;
    squish_status st = sq_test_tok_gguf(&t, src);
    if (st != status || !strstr(t.err.text, words))
        fail_msg("status %d, '%s', wanted %d, '%s'", st, t.err.text, status, words);
    sq_test_tok_free(&t);
}

static void bad_values_are_refused_by_key(void **state) {
    (void)state;
    sq_tok_gguf_source src = bpe("gpt-2");
    src.model = "bert";
    refused(&src, SQUISH_UNSUPPORTED, "tokenizer.ggml.model is 'bert'");
    src = bpe("gpt-2");
    src.n_tokens = 0;
    refused(&src, SQUISH_CORRUPT, "tokenizer.ggml.tokens: 0");
    src = bpe("gpt-2");
    src.eos = 16;
    refused(&src, SQUISH_CORRUPT, "eos_token_id is 16");
    src = bpe("gpt-2");
    src.bos = -2;
    refused(&src, SQUISH_CORRUPT, "bos_token_id is -2");
    src = bpe("gpt-2");
    src.unk = 99;
    refused(&src, SQUISH_CORRUPT, "unknown_token_id is 99");
    src = bpe("gpt-2");
    src.merges = (const sq_span[]){S("a b"), S("a q"), S("ab")};
    refused(&src, SQUISH_CORRUPT, "merges[1]: the vocabulary has no token 'q'");
    src.merges = (const sq_span[]){S("ab"), S("a b"), S("a b")};
    refused(&src, SQUISH_CORRUPT, "merges[0]: no space in 'ab'");
    src.merges = (const sq_span[]){S("a "), S("a b"), S("a b")};
    refused(&src, SQUISH_CORRUPT, "merges[0]");
    src = bpe("gpt-2");
    src.types = (const int32_t[]){1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    refused(&src, SQUISH_CORRUPT, "token_type[1] is 9");
    src = spm();
    src.scores = NULL;
    refused(&src, SQUISH_CORRUPT, "tokenizer.ggml.scores is missing");
    src = spm();
    src.scores = (const float[]){0, 0, 0, NAN, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    refused(&src, SQUISH_CORRUPT, "tokenizer.ggml.scores[3]");
    src = spm();
    src.tokens = (const sq_span[]){S("<unk>"), S("<s>"), S("</s>"), S("<0x-1>"), S("<0xA9>"), S(M),    S("a"),
                                   S("b"),     S(M "a"), S("ab"),   S(M "ab"),   S("unused"), S("[U]")};
    refused(&src, SQUISH_CORRUPT, "tokens[3]: '<0x-1>' is of type byte");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_types_decide_what_text_becomes),
        cmocka_unit_test(the_pre_tokenizer_is_chosen_by_name),
        cmocka_unit_test(an_unknown_pre_tokenizer_is_refused_and_a_missing_one_warned_about),
        cmocka_unit_test(bos_and_eos_follow_the_file_or_the_family),
        cmocka_unit_test(the_best_score_merges_first),
        cmocka_unit_test(decoding_restores_spaces_and_bytes),
        cmocka_unit_test(bad_values_are_refused_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
