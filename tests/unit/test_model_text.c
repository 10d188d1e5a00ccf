/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_text.c - GGUF metadata to a tokenizer: keys found, keys of the wrong type refused by name. */
#include "model/model_text.h"
#include "support/tok_load.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A GGUF file without tensors, written key by key. */
typedef struct {
    sq_buf b;
    uint64_t n_kv;
} writer;

static void put(writer *w, const void *p, size_t n) { assert_true(sq_buf_append(&w->b, p, n)); }
static void put_u32(writer *w, uint32_t v) { put(w, &v, 4); }
static void put_u64(writer *w, uint64_t v) { put(w, &v, 8); }
static void put_str(writer *w, const char *s) {
    put_u64(w, strlen(s));
    put(w, s, strlen(s));
}

static void begin(writer *w) {
    sq_buf_init(&w->b, NULL, 1 << 20);
    w->n_kv = 0;
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, 0);
    put_u64(w, 0);
}

static void key(writer *w, const char *name, uint32_t type) {
    put_str(w, name);
    put_u32(w, type);
    w->n_kv++;
}

static void key_str(writer *w, const char *name, const char *value) {
    key(w, name, 8);
    put_str(w, value);
}

static void key_u32(writer *w, const char *name, uint32_t value) {
    key(w, name, 4);
    put_u32(w, value);
}

static void key_list(writer *w, const char *name, const char *const *values, size_t n) {
    key(w, name, 9);
    put_u32(w, 8);
    put_u64(w, n);
    for (size_t i = 0; i < n; i++) put_str(w, values[i]);
}

static void key_words(writer *w, const char *name, uint32_t type, const void *values, size_t n) {
    key(w, name, 9);
    put_u32(w, type);
    put_u64(w, n);
    put(w, values, 4 * n);
}

static const char *const spm_tokens[] = {"<unk>", "<s>", "\xE2\x96\x81", "a", ("\xE2\x96\x81" "a")};
static const int32_t spm_types[] = {2, 3, 1, 1, 1};
static const float spm_scores[] = {0, 0, -3, -2, -1};

static void spm_keys(writer *w) {
    begin(w);
    key_str(w, "general.architecture", "llama");
    key_str(w, "tokenizer.ggml.model", "llama");
    key_list(w, "tokenizer.ggml.tokens", spm_tokens, 5);
}

/* Compile what was written; err keeps the words. */
static squish_status finish(writer *w, sq_buf *blob, squish_error *err) {
    memcpy(w->b.data + 16, &w->n_kv, 8);
    /* The data section begins aligned, so the file is padded as writers do. */
    while (w->b.len % 32) assert_true(sq_buf_putc(&w->b, '\0'));
    sq_gguf *g;
    *err = (squish_error){0};
    if (sq_gguf_parse(&g, (sq_span){(uint8_t *)w->b.data, w->b.len}, "test.gguf", NULL, err) != SQUISH_OK)
        fail_msg("%s", err->text);
    sq_buf_init(blob, NULL, 1 << 24);
    squish_status st = sq_model_tok_from_gguf(g, NULL, blob, NULL, NULL, err);
    sq_gguf_close(g);
    sq_buf_deinit(&w->b);
    return st;
}

static void a_sentencepiece_vocabulary_is_read_with_all_its_keys(void **state) {
    (void)state;
    writer w;
    sq_buf blob;
    squish_error err;
    spm_keys(&w);
    key_words(&w, "tokenizer.ggml.token_type", 5, spm_types, 5);
    key_words(&w, "tokenizer.ggml.scores", 6, spm_scores, 5);
    key_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    key_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    key(&w, "tokenizer.ggml.add_bos_token", 7);
    put(&w, "\1", 1);
    if (finish(&w, &blob, &err) != SQUISH_OK) fail_msg("%s", err.text);
    sq_tok_view view;
    const sq_tok *t;
    char out[64];
    assert_int_equal(sq_tok_open(&view, (sq_span){(uint8_t *)blob.data, blob.len}, NULL, &t, &err),
                     SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t, "a a?", 4, SQ_TOK_BOS_EOS, out, sizeof out), "1 4 4 0");
    assert_int_equal(sq_tok_bos(t), 1);
    assert_int_equal(sq_tok_eos(t), -1);
    sq_tok_close(t);
    sq_buf_deinit(&blob);
}

static void a_file_without_a_vocabulary_is_not_found(void **state) {
    (void)state;
    writer w;
    sq_buf blob;
    squish_error err;
    begin(&w);
    key_str(&w, "general.architecture", "llama");
    assert_int_equal(finish(&w, &blob, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "tokenizer.ggml.model"));
    sq_buf_deinit(&blob);
}

static void keys_of_the_wrong_type_or_length_are_refused_by_name(void **state) {
    (void)state;
    static const char *const words[] = {"token_type has the wrong type", "token_type has 3 entries",
                                        "scores has the wrong type",     "bos_token_id has the wrong type",
                                        "bos_token_id is 4294967295",    "add_bos_token has the wrong type",
                                        "pre has the wrong type"};
    for (size_t i = 0; i < SQ_COUNT(words); i++) {
        writer w;
        sq_buf blob;
        squish_error err;
        spm_keys(&w);
        if (i == 0) key_words(&w, "tokenizer.ggml.token_type", 6, spm_scores, 5);
        if (i == 1) key_words(&w, "tokenizer.ggml.token_type", 5, spm_types, 3);
        if (i == 2) key_words(&w, "tokenizer.ggml.scores", 5, spm_types, 5);
        if (i == 3) key_str(&w, "tokenizer.ggml.bos_token_id", "1");
        if (i == 4) key_u32(&w, "tokenizer.ggml.bos_token_id", UINT32_MAX);
        if (i == 5) key_u32(&w, "tokenizer.ggml.add_bos_token", 1);
        if (i == 6) key_u32(&w, "tokenizer.ggml.pre", 1);
        assert_int_equal(finish(&w, &blob, &err), SQUISH_CORRUPT);
        if (!strstr(err.text, words[i])) fail_msg("'%s' does not say '%s'", err.text, words[i]);
        sq_buf_deinit(&blob);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sentencepiece_vocabulary_is_read_with_all_its_keys),
        cmocka_unit_test(a_file_without_a_vocabulary_is_not_found),
        cmocka_unit_test(keys_of_the_wrong_type_or_length_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
