/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_bpe.c - merging against a slow and plain form of it, at lengths on both sides of every border. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

/* Join the pair of least priority, leftmost first, until none is left. */
static size_t merge_slowly(const sq_tok *t, uint32_t *sym, size_t n) {
    for (;;) {
        size_t best = n;
        uint32_t prio = UINT32_MAX, id = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const tok_result *r = tok_merge_of(t, sym[i], sym[i + 1]);
            if (r && r->prio < prio) {
                prio = r->prio;
                id = r->id;
                best = i;
            }
        }
        if (best == n) return n;
        sym[best] = id;
        memmove(sym + best + 1, sym + best + 2, (n - best - 2) * sizeof *sym);
        n--;
    }
}

static void compare(const sq_tok *t, const char *text, size_t n) {
    uint32_t *sym = malloc((n + 1) * sizeof *sym);
    for (size_t i = 0; i < n; i++) sym[i] = (uint32_t)t->h->unit[(uint8_t)text[i]];
    size_t want = merge_slowly(t, sym, n), got;
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    int32_t *ids;
    assert_int_equal(sq_tok_encode(t, text, n, 0, &ar, &ids, &got, NULL), SQUISH_OK);
    assert_int_equal(got, want);
    for (size_t i = 0; i < got; i++) assert_int_equal(ids[i], sym[i]);
    sq_arena_deinit(&ar);
    free(sym);
}

/* The whole text is one piece, so all lengths reach the merge loops. */
#define ONE_PIECE                                                                                            \
    "{\"added_tokens\":[],\"post_processor\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_"   \
    "space\":false,"                                                                                         \
    "\"use_regex\":false}"

static void every_length_merges_as_the_slow_form_does(void **state) {
    (void)state;
    sq_test_tok t;
    /* The base lets a whole piece be a token without merges; such a text would not compare. */
    assert_int_equal(sq_test_tok_base(&t, "byte", ONE_PIECE "}"), SQUISH_OK);
    static const char *const alphabets[] = {"the ", "ab", "ins", "= -", "a"};
    uint64_t seed = 3;
    for (size_t k = 0; k < SQ_COUNT(alphabets); k++) {
        for (size_t n = 5; n < 420; n = n < 110 ? n + 1 : n + 31) {
            char text[512];
            for (size_t i = 0; i < n; i++)
                text[i] = alphabets[k][sq_splitmix64(&seed) % strlen(alphabets[k])];
            text[0] = '\x01'; /* no token spans this, so the piece as a whole is none */
            compare(t.tok, text, n);
        }
    }
    sq_test_tok_free(&t);
}

static void prose_as_one_piece_merges_as_the_slow_form_does(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", ONE_PIECE "}"), SQUISH_OK);
    size_t n;
    char *prose = sq_test_slurp("tests/fixtures/own-prose.txt", &n);
    assert_non_null(prose);
    compare(t.tok, prose, 6000);
    free(prose);
    sq_test_tok_free(&t);
}

static void equal_scores_merge_leftmost_first_and_better_ones_before(void **state) {
    (void)state;
    static const sq_span tokens[] = {{(const uint8_t *)"a", 1},  {(const uint8_t *)"b", 1},
                                     {(const uint8_t *)"c", 1},  {(const uint8_t *)"ab", 2},
                                     {(const uint8_t *)"bc", 2}, {(const uint8_t *)"aa", 2}};
    sq_tok_gguf_source src = {.model = "llama",
                              .n_tokens = 6,
                              .tokens = tokens,
                              .bos = -1,
                              .eos = -1,
                              .eot = -1,
                              .unk = -1,
                              .pad = -1,
                              .add_bos = 0,
                              .add_eos = 0,
                              .add_space_prefix = 0};
    char out[64];
    sq_test_tok t;
    src.scores = (const float[]){0, 0, 0, -1, -1, -2};
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "abc", 3, 0, out, sizeof out), "3 2");
    assert_string_equal(sq_test_tok_ids(t.tok, "aaa", 3, 0, out, sizeof out), "5 0");
    assert_string_equal(sq_test_tok_ids(t.tok, "aabc", 4, 0, out, sizeof out), "0 3 2");
    sq_test_tok_free(&t);
    src.scores = (const float[]){0, 0, 0, -1, -0.5f, -2};
    assert_int_equal(sq_test_tok_gguf(&t, &src), SQUISH_OK);
    assert_string_equal(sq_test_tok_ids(t.tok, "abc", 3, 0, out, sizeof out), "0 4");
    sq_test_tok_free(&t);
}

static void a_token_no_merge_yields_is_found_only_with_ignore_merges(void **state) {
    (void)state;
    static const char *const json[2] = {"{\"pre_tokenizer\":"
                                        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{"
                                        "\"ignore_merges\":false,"
                                        "\"vocab\":{\"a\":0,\"b\":1,\"abab\":2,\"ab\":3},\"merges\":[\"a "
                                        "b\"]}}",
                                        "{\"pre_tokenizer\":"
                                        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{"
                                        "\"ignore_merges\":true,"
                                        "\"vocab\":{\"a\":0,\"b\":1,\"abab\":2,\"ab\":3},\"merges\":[\"a "
                                        "b\"]}}"};
    static const char *const want[2] = {"3 3", "2"};
    for (int i = 0; i < 2; i++) {
        sq_test_tok t;
        char out[64];
        assert_int_equal(sq_test_tok_json(&t, json[i]), SQUISH_OK);
        assert_string_equal(sq_test_tok_ids(t.tok, "abab", 4, 0, out, sizeof out), want[i]);
        assert_int_equal(t.tok->attrs[2] & TOK_WHOLE, 0);
        assert_int_equal(t.tok->attrs[3] & TOK_WHOLE, TOK_WHOLE);
        sq_test_tok_free(&t);
    }
}

static void unknown_units_are_spelled_fused_or_dropped(void **state) {
    (void)state;
    static const struct {
        const char *model, *ids; /* of "axy\xC3\xA9" "a" */
    } cases[] = {
        {"\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":false", "1 0 1"},
        {"\"unk_token\":\"?\",\"fuse_unk\":false,\"byte_fallback\":false", "1 0 0 0 1"},
        {"\"unk_token\":null,\"fuse_unk\":false,\"byte_fallback\":false",
         "4"}, /* what is dropped lets its neighbours merge */
        {"\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":true", "1 0 2 3 1"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        char json[512], out[64];
        snprintf(json, sizeof json,
                 "{\"model\":{%s,\"vocab\":{\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"aa\":4},\"merges\":["
                 "\"a a\"]}}",
                 cases[i].model);
        sq_test_tok t;
        assert_int_equal(sq_test_tok_json(&t, json), SQUISH_OK);
        assert_string_equal(sq_test_tok_ids(t.tok, "axy\xC3\xA9" "a", 6, 0, out, sizeof out), cases[i].ids);
        sq_test_tok_free(&t);
    }
}

static void a_megabyte_without_a_break_is_merged_in_time(void **state) {
    (void)state;
    sq_test_tok t;
    assert_int_equal(sq_test_tok_base(&t, "byte", ONE_PIECE "}"), SQUISH_OK);
    size_t n = 1 << 20, n_ids;
    char *text = malloc(n);
    memset(text, 'a', n);
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    int32_t *ids;
    clock_t start = clock();
    assert_int_equal(sq_tok_encode(t.tok, text, n, 0, &ar, &ids, &n_ids, NULL), SQUISH_OK);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10);
    assert_true(n_ids > 0 && n_ids <= n);
    sq_arena_deinit(&ar);
    free(text);
    sq_test_tok_free(&t);
}

static void a_run_beyond_the_ceiling_is_refused_and_a_long_text_is_not(void **state) {
    (void)state;
    sq_test_tok t;
    /* "aa" merges, so runs of a stay whole; nothing joins a and b. */
    assert_int_equal(sq_test_tok_json(&t, "{\"model\":{\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":"
                                          "2,\"aa\":3},"
                                          "\"merges\":[\"a a\"]}}"),
                     SQUISH_OK);
    size_t n = TOK_PIECE_UNITS_MAX + 2, n_ids;
    char *text = malloc(n);
    memset(text, 'a', n);
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    int32_t *ids;
    squish_error err = {0};
    assert_int_equal(sq_tok_encode(t.tok, text, n, 0, &ar, &ids, &n_ids, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "at most 4194304"));
    for (size_t i = 64; i < n; i += 65) text[i] = 'b';
    assert_int_equal(sq_tok_encode(t.tok, text, n, 0, &ar, &ids, &n_ids, NULL), SQUISH_OK);
    sq_arena_deinit(&ar);
    free(text);
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_merges_as_the_slow_form_does),
        cmocka_unit_test(prose_as_one_piece_merges_as_the_slow_form_does),
        cmocka_unit_test(equal_scores_merge_leftmost_first_and_better_ones_before),
        cmocka_unit_test(a_token_no_merge_yields_is_found_only_with_ignore_merges),
        cmocka_unit_test(unknown_units_are_spelled_fused_or_dropped),
        cmocka_unit_test(a_megabyte_without_a_break_is_merged_in_time),
        cmocka_unit_test(a_run_beyond_the_ceiling_is_refused_and_a_long_text_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
