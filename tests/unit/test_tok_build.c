/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_build.c - the tables of the blob: every token and merge is found, doubles resolve as
 * documented. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static void every_token_is_found_by_its_bytes(void **state) {
    (void)state;
    static const char *const bases[] = {"byte", "spm"};
    for (size_t b = 0; b < SQ_COUNT(bases); b++) {
        sq_test_tok t;
        assert_int_equal(sq_test_tok_base(&t, bases[b], NULL), SQUISH_OK);
        for (int32_t id = 0; id < sq_tok_count(t.tok); id++) {
            sq_span s, found;
            if (!sq_tok_bytes(t.tok, id, &s)) continue;
            int32_t other = tok_find(t.tok, s.p, s.n);
            assert_true(other >= 0 && sq_tok_bytes(t.tok, other, &found));
            assert_true(found.n == s.n && memcmp(found.p, s.p, s.n) == 0);
            if (t.tok->attrs[id] & TOK_MODEL) assert_int_equal(other, id);
        }
        sq_test_tok_free(&t);
    }
}

static void hashing_depends_on_every_byte_and_on_the_length(void **state) {
    (void)state;
    uint8_t text[64];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * 37 + 1);
    for (size_t n = 1; n < sizeof text; n++) {
        uint64_t h = tok_hash(text, n);
        assert_true(h != tok_hash(text, n + 1));
        for (size_t i = 0; i < n; i++) {
            text[i] ^= 0x40;
            assert_true(tok_hash(text, n) != h);
            text[i] ^= 0x40;
        }
    }
}

static void of_two_equal_merges_the_last_counts(void **state) {
    (void)state;
    sq_test_tok t;
    char out[32];
    /* "a b" stands first and last, so "b c" goes before it. */
    assert_int_equal(sq_test_tok_json(&t, "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4},"
                                          "\"merges\":[\"a b\",\"b c\",\"a b\"]}}"), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "abc", 3, 0, out, sizeof out), "0 4");
    sq_test_tok_free(&t);
}

static void of_two_equal_added_tokens_the_first_id_counts(void **state) {
    (void)state;
    static const sq_span tokens[] = {
        {(const uint8_t *)"[A]", 3}, {(const uint8_t *)"[A]", 3}, {(const uint8_t *)"a", 1}};
    sq_tok_gguf_source src = {.model = "gpt2",
                              .pre = "gpt-2",
                              .n_tokens = 3,
                              .tokens = tokens,
                              .types = (int32_t[]){4, 4, 1},
                              .bos = -1,
                              .eos = -1,
                              .eot = -1,
                              .unk = -1,
                              .pad = -1};
    sq_test_tok t;
    char out[32];
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "a[A]", 4, 0, out, sizeof out), "2 0");
    assert_int_equal(sq_tok_find(t.tok, "[A]", 3), 0);
    sq_test_tok_free(&t);
}

static void a_model_token_is_found_before_a_control_token_of_the_same_bytes(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, "{\"decoder\":{\"type\":\"ByteFallback\"},\"model\":{\"vocab\":{\"<"
                                          "0x61>\":0,\"a\":1},"
                                          "\"merges\":[]}}"),
                     SQUISH_OK);
    assert_int_equal(sq_tok_find(t.tok, "a", 1), 1);
    sq_test_tok_free(&t);
}

static void joins_have_the_pairs_inside_tokens_and_no_others(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_json(&t, "{\"model\":{\"unk_token\":\"a\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":"
                                          "2,\"abb\":3},"
                                          "\"merges\":[\"a b\",\"ab b\"]}}"),
                     SQUISH_OK);
    int n = 0;
    for (int i = 0; i < 65536; i++) n += t.tok->joins[i >> 3] >> (i & 7) & 1;
    assert_int_equal(n, 2);
    assert_true(t.tok->joins[('a' << 8 | 'b') >> 3] >> ('b' & 7) & 1);
    assert_true(t.tok->joins[('b' << 8 | 'b') >> 3] >> ('b' & 7) & 1);
    assert_true(t.tok->h->flags & TOK_MAY_CUT);
    sq_test_tok_free(&t);
}

static void a_buffer_in_use_is_refused(void **state) {
    (void)state;
    static const char json[] = "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}";
    sq_tok_hf_source src = {.tokenizer_json = {(const uint8_t *)json, sizeof json - 1}};
    sq_buf out;
    squish_error err = {0};
    sq_buf_init(&out, NULL, 1 << 20);
    sq_buf_puts(&out, "x");
    assert_int_equal(sq_tok_compile_hf(&src, NULL, &out, NULL, NULL, &err), SQUISH_INVALID);
    assert_string_equal(out.data, "x");
    sq_buf_deinit(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_found_by_its_bytes),
        cmocka_unit_test(hashing_depends_on_every_byte_and_on_the_length),
        cmocka_unit_test(of_two_equal_merges_the_last_counts),
        cmocka_unit_test(of_two_equal_added_tokens_the_first_id_counts),
        cmocka_unit_test(a_model_token_is_found_before_a_control_token_of_the_same_bytes),
        cmocka_unit_test(joins_have_the_pairs_inside_tokens_and_no_others),
        cmocka_unit_test(a_buffer_in_use_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
