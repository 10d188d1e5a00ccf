/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_fault.c - compiling, opening and encoding with the n-th allocation refused: a status, no leak,
 * and the tokenizer still usable. */
#include "support/faults.h"
#include "support/tok_load.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef squish_status (*operation)(const squish_alloc *a, void *ctx);

static void refuse_each_allocation_in_turn(operation op, void *ctx) {
    for (int persistent = 0; persistent < 2; persistent++) {
        for (int64_t n = 1;; n++) {
            struct sq_test_alloc_state state = {.fail_at = n, .persistent = persistent};
            squish_alloc a = sq_test_alloc(&state);
            squish_status st = op(&a, ctx);
            if (state.live_blocks != 0) fail_msg("allocation %lld refused: a leak", (long long)n);
            assert_int_equal(state.wrong_sizes, 0);
            if (st == SQUISH_OK && state.count < n) break;
            if (st != SQUISH_NO_MEMORY) fail_msg("allocation %lld refused: status %d", (long long)n, st);
        }
    }
}

/* A little of everything: normaliser, added tokens, class and PCRE2 splits, affixes. */
static const char json[] = "{\"added_tokens\":[{\"id\":7,\"content\":\"<s>\",\"special\":true},{\"id\":8,"
                           "\"content\":\"e\xCC\x81\",\"normalized\":true}],"
                           "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{"
                           "\"type\":\"Prepend\",\"prepend\":\" \"},"
                           "{\"type\":\"Replace\",\"pattern\":{\"String\":\"#\"},\"content\":\"a\"}]},"
                           "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                           "\"pattern\":{\"Regex\":\"\\\\s?[a-z]+\"},"
                           "\"behavior\":\"Isolated\"},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:b|c)d?"
                           "\"},\"behavior\":\"Isolated\"},"
                           "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]},"
                           "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                           "\"SpecialToken\":{\"id\":\"s\"}},{\"Sequence\":{}}],"
                           "\"special_tokens\":{\"s\":{\"ids\":[7]}}},"
                           "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xC4\xA0\":3,\"\xC4\xA0"
                           "ab\":4,\"\xC3\x83\":5,\"aa\":6},"
                           "\"merges\":[\"a b\",\"\xC4\xA0 ab\",\"a a\"]}}";

static squish_status compile_and_open(const squish_alloc *a, void *ctx) {
    (void)ctx;
    static const char config[] = "{\"bos_token\":\"<s>\",\"eos_token\":\"<s>\"}";
    sq_tok_hf_source src = {.tokenizer_json = {(const uint8_t *)json, sizeof json - 1},
                            .tokenizer_config_json = {(const uint8_t *)config, sizeof config - 1}};
    sq_buf blob;
    sq_buf_init(&blob, a, 1 << 24);
    squish_error err = {0};
    squish_status st = sq_tok_compile_hf(&src, a, &blob, NULL, NULL, &err);
    assert_int_equal(st, err.code);
    if (st == SQUISH_OK) {
        sq_tok_view view;
        const sq_tok *t;
        st = sq_tok_open(&view, (sq_span){(uint8_t *)blob.data, blob.len}, a, &t, &err);
        sq_tok_close(t);
    }
    sq_buf_deinit(&blob);
    return st;
}

static void compiling_and_opening_survive_every_refused_allocation(void **state) {
    (void)state;
    refuse_each_allocation_in_turn(compile_and_open, NULL);
}

#define S(s) {(const uint8_t *)(s), sizeof(s) - 1}
static squish_status compile_gguf(const squish_alloc *a, void *ctx) {
    (void)ctx;
    static const sq_span tokens[] = {S("<unk>"),
                                     S("<s>"),
                                     S("\xE2\x96\x81"),
                                     S("a"),
                                     S("\xE2\x96\x81"
                                       "a"),
                                     S("[U]")};
    static const sq_span bpe[] = {S("a"), S("b"), S("ab"), S("\xC4\xA0"), S("x"), S("y")},
                         merges[] = {S("a b")};
    sq_tok_gguf_source src = {.model = "llama",
                              .n_tokens = 6,
                              .tokens = tokens,
                              .types = (const int32_t[]){2, 3, 1, 1, 1, 4},
                              .scores = (const float[]){0, 0, -3, -2, -1, 0},
                              .bos = 1,
                              .eos = 1,
                              .eot = -1,
                              .unk = 0,
                              .pad = -1,
                              .add_bos = -1,
                              .add_eos = -1,
                              .add_space_prefix = -1};
    squish_status st = SQUISH_OK;
    for (int i = 0; i < 2 && st == SQUISH_OK; i++) {
        sq_buf blob;
        sq_buf_init(&blob, a, 1 << 24);
        st = sq_tok_compile_gguf(&src, a, &blob, NULL, NULL, NULL);
        sq_buf_deinit(&blob);
        src = (sq_tok_gguf_source){.model = "gpt2",
                                   .pre = "deepseek-llm",
                                   .n_tokens = 6,
                                   .n_merges = 1,
                                   .tokens = bpe,
                                   .merges = merges,
                                   .bos = -1,
                                   .eos = 2,
                                   .eot = -1,
                                   .unk = -1,
                                   .pad = -1};
    }
    return st;
}

static void compiling_gguf_vocabularies_survives_every_refused_allocation(void **state) {
    (void)state;
    refuse_each_allocation_in_turn(compile_gguf, NULL);
}

typedef struct {
    const sq_tok *tok;
    const char *text;
    size_t n;
    char want[512];
} encoding;

static squish_status encode(const squish_alloc *a, void *ctx) {
    const encoding *e = ctx;
    sq_arena ar;
    sq_arena_init(&ar, a, 256, 0);
    int32_t *ids;
    size_t n_ids;
    squish_error err = {0};
    squish_status st =
        sq_tok_encode(e->tok, e->text, e->n, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, &ar, &ids, &n_ids, &err);
    assert_int_equal(st, err.code);
    sq_arena_deinit(&ar);
    char again[512];
    assert_string_equal(
        sq_test_tok_ids(e->tok, e->text, e->n, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, again, sizeof again),
        e->want);
    return st;
}

static void encoding_survives_every_refused_allocation(void **state) {
    (void)state;
    sq_test_tok t;
    if (sq_test_tok_json(&t, json) != SQUISH_OK) fail_msg("%s", t.err.text);
    char text[700] = "ab# e\xCC\x81 <s>cd a\xCC\x81\xCC\x96 \xFF \xE2\x82 b";
    size_t n = strlen(text);
    memset(text + n, 'a', 200); /* long enough for the heap */
    n += 200;
    encoding e = {.tok = t.tok, .text = text, .n = n};
    sq_test_tok_ids(t.tok, text, n, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, e.want, sizeof e.want);
    assert_int_equal(e.want[0], '7');
    refuse_each_allocation_in_turn(encode, &e);
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compiling_and_opening_survive_every_refused_allocation),
        cmocka_unit_test(compiling_gguf_vocabularies_survives_every_refused_allocation),
        cmocka_unit_test(encoding_survives_every_refused_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
