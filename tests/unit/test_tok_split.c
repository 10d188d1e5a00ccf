/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_split.c - pieces of pre-tokenizers, seen through a vocabulary without merges.
 *
 * Each test vocabulary joins any two letters of a piece, so ids show where the pieces end: "ab" is one
 * token inside a piece and two across a border. */
#include "support/tok_load.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Byte level: every byte of the alphabet below is a token, and the borders are marked by a token that only
 * a piece of its own can be: with ignore_merges a piece that is a token is that token, so each expected
 * piece is in the vocabulary. */
static void check_pieces(const char *pre_tokenizer, const char *text, const char *const *pieces) {
    char json[4096];
    int n = snprintf(json, sizeof json,
                     "{\"pre_tokenizer\":%s,\"model\":{\"ignore_merges\":true,\"merges\":[],\"vocab\":{",
                     pre_tokenizer);
    for (int i = 0; pieces[i]; i++) {
        bool seen = false; /* a piece that comes twice has one token */
        for (int k = 0; k < i; k++) seen |= strcmp(pieces[k], pieces[i]) == 0;
        if (seen) continue;
        n += snprintf(json + n, sizeof json - (size_t)n, "%s\"", i ? "," : "");
        for (const char *p = pieces[i]; *p; p++) {
            char mapped[4];
            uint32_t byte = (uint8_t)*p;
            size_t len = sq_utf8_encode(byte == ' '    ? 0x120
                                        : byte == '\n' ? 0x10A
                                        : byte == '\r' ? 0x10D
                                                       : byte,
                                        mapped);
            n += snprintf(json + n, sizeof json - (size_t)n, byte == '"' ? "\\\"" : "%.*s", (int)len, mapped);
        }
        n += snprintf(json + n, sizeof json - (size_t)n, "\":%d", i);
    }
    snprintf(json + n, sizeof json - (size_t)n, "}}}");
    sq_test_tok t;
    if (sq_test_tok_json(&t, json) != SQUISH_OK) fail_msg("%s: %s", json, t.err.text);
    char got[512], want[512] = "";
    for (int i = 0; pieces[i]; i++) {
        int first = 0;
        while (strcmp(pieces[first], pieces[i]) != 0) first++;
        snprintf(want + strlen(want), sizeof want - strlen(want), i ? " %d" : "%d", first);
    }
    sq_test_tok_ids(t.tok, text, strlen(text), 0, got, sizeof got);
    if (strcmp(got, want) != 0) fail_msg("'%s' by %s: pieces %s, wanted %s", text, pre_tokenizer, got, want);
    sq_test_tok_free(&t);
}
#define PIECES(...) ((const char *const[]){__VA_ARGS__, NULL})

#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define GPT2 "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define SPLIT(kind, pattern, behavior, invert)                                                               \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"" kind "\":\"" pattern     \
    "\"},"                                                                                                   \
    "\"behavior\":\"" behavior "\",\"invert\":" invert "}," BYTES "]}"
#define CL100K(digits)                                                                                       \
    SPLIT("Regex",                                                                                           \
          "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits "| "                \
                                                                                         "?[^\\\\s\\\\p{L}"  \
                                                                                         "\\\\p{N}]+["       \
                                                                                         "\\\\r\\\\n]*|"     \
                                                                                         "\\\\s*["           \
                                                                                         "\\\\r\\\\n]+|"     \
                                                                                         "\\\\s+(?!\\\\S)|"  \
                                                                                         "\\\\s+",           \
          "Isolated", "false")

static void gpt2_pieces(void **state) {
    (void)state;
    check_pieces(GPT2, "Hello world's 12!!", PIECES("Hello", " world", "'s", " 12", "!!"));
    check_pieces(GPT2, "a  b", PIECES("a", " ", " b"));
    check_pieces(GPT2, "a  ", PIECES("a", "  "));
    check_pieces(GPT2, "a \n b", PIECES("a", " \n", " b"));
    check_pieces(GPT2, "x'S", PIECES("x", "'", "S"));
    check_pieces(GPT2, "'ll'LL", PIECES("'ll", "'", "LL"));
    check_pieces(GPT2, "\n\na", PIECES("\n", "\n", "a"));
}

static void qwen2_and_llama3_pieces_differ_in_digits_only(void **state) {
    (void)state;
    check_pieces(CL100K("\\\\p{N}"), "ab 123", PIECES("ab", " ", "1", "2", "3"));
    check_pieces(CL100K("\\\\p{N}{1,3}"), "ab 12345", PIECES("ab", " ", "123", "45"));
    check_pieces(CL100K("\\\\p{N}"), "x'LL y", PIECES("x", "'LL", " y"));
    check_pieces(CL100K("\\\\p{N}"), "(a) b", PIECES("(a", ")", " b"));
    check_pieces(CL100K("\\\\p{N}"), "a!\n\nb", PIECES("a", "!\n\n", "b"));
    check_pieces(CL100K("\\\\p{N}"), "a \n \n  b", PIECES("a", " \n \n", " ", " b"));
    check_pieces(CL100K("\\\\p{N}"), "a\r\nb", PIECES("a", "\r\n", "b"));
    check_pieces(CL100K("\\\\p{N}"), "  !x", PIECES(" ", " !", "x"));
    check_pieces(CL100K("\\\\p{N}"), "a   ", PIECES("a", "   "));
}

static void the_five_behaviors_join_matches_as_their_names_say(void **state) {
    (void)state;
    check_pieces(SPLIT("String", "-", "Isolated", "false"), "a-b--c", PIECES("a", "-", "b", "-", "-", "c"));
    check_pieces(SPLIT("String", "-", "Removed", "false"), "a-b--c", PIECES("a", "b", "c"));
    check_pieces(SPLIT("String", "-", "MergedWithPrevious", "false"), "a-b--c", PIECES("a-", "b-", "-", "c"));
    check_pieces(SPLIT("String", "-", "MergedWithNext", "false"), "a-b--c", PIECES("a", "-b", "-", "-c"));
    check_pieces(SPLIT("String", "-", "Contiguous", "false"), "a-b--c", PIECES("a", "-", "b", "--", "c"));
    check_pieces(SPLIT("String", "-", "Removed", "true"), "a-b--c", PIECES("-", "-", "-"));
    check_pieces(SPLIT("String", "-", "MergedWithNext", "true"), "a-b-", PIECES("a-", "b-"));
    check_pieces(SPLIT("String", "--", "Isolated", "false"), "---", PIECES("--", "-"));
}

static void runs_of_a_class_respect_lead_limit_and_line_end(void **state) {
    (void)state;
    check_pieces(SPLIT("Regex", "\\\\s?[a-c]+", "Isolated", "false"), "ab  cax",
                 PIECES("ab", " ", " ca", "x"));
    check_pieces(SPLIT("Regex", "\\\\p{N}{1,3}", "Isolated", "false"), "a1234", PIECES("a", "123", "4"));
    check_pieces(SPLIT("Regex", "\\\\s+$", "Isolated", "false"), "a  b  ", PIECES("a  b", "  "));
    check_pieces(SPLIT("Regex", "\\\\s+$", "Isolated", "false"), "a  \n b", PIECES("a", "  ", "\n b"));
    check_pieces(SPLIT("Regex", "\\\\s?[ab ]+", "Isolated", "false"), "x a", PIECES("x", " a"));
}

static void a_prefix_space_is_put_before_each_piece_without_one(void **state) {
    (void)state;
    const char *prefix = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
                         "\"String\":\"|\"},"
                         "\"behavior\":\"Removed\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_"
                         "space\":true,"
                         "\"use_regex\":false}]}";
    check_pieces(prefix, "a| b|c", PIECES(" a", " b", " c"));
}

static void metaspace_schemes_decide_which_piece_gets_a_space(void **state) {
    (void)state;
    static const struct {
        const char *scheme, *text, *ids; /* ids: 0 " ", 1 "a", 2 " a", 3 "b", 4 " b", 9 "<t>" */
    } cases[] = {
        {"always", "a b", "2 4"},
        {"always", " a", "2"},
        {"always",
         "\xE2\x96\x81"
         "a",
         "2"},
        {"always", "a<t>b", "2 5 4"},
        {"first", "a b", "2 4"},
        {"first", "a<t>b", "2 5 3"},
        {"first", "<t>a", "5 1"},
        {"never", "a b", "1 4"},
        {"never", "  a", "0 2"},
        {"never",
         "a\xE2\x96\x81"
         "b",
         "1 4"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        char json[700], got[64];
        snprintf(json, sizeof json,
                 "{\"added_tokens\":[{\"id\":5,\"content\":\"<t>\",\"normalized\":false}],\"pre_tokenizer\":{"
                 "\"type\":"
                 "\"Metaspace\",\"replacement\":\"\xE2\x96\x81\",\"prepend_scheme\":\"%s\",\"split\":true},"
                 "\"model\":{"
                 "\"vocab\":{\"\xE2\x96\x81\":0,\"a\":1,\"\xE2\x96\x81"
                 "a\":2,\"b\":3,\"\xE2\x96\x81"
                 "b\":4},\"merges\":"
                 "[[\"\xE2\x96\x81\",\"a\"],[\"\xE2\x96\x81\",\"b\"]]}}",
                 cases[i].scheme);
        sq_test_tok t;
        if (sq_test_tok_json(&t, json) != SQUISH_OK) fail_msg("%s", t.err.text);
        assert_string_equal(sq_test_tok_ids(t.tok, cases[i].text, strlen(cases[i].text), 0, got, sizeof got),
                            cases[i].ids);
        sq_test_tok_free(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_pieces),
        cmocka_unit_test(qwen2_and_llama3_pieces_differ_in_digits_only),
        cmocka_unit_test(the_five_behaviors_join_matches_as_their_names_say),
        cmocka_unit_test(runs_of_a_class_respect_lead_limit_and_line_end),
        cmocka_unit_test(a_prefix_space_is_put_before_each_piece_without_one),
        cmocka_unit_test(metaspace_schemes_decide_which_piece_gets_a_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
