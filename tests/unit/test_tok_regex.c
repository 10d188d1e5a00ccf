/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_regex.c - which regexes are recognised, that the recognised ones split as PCRE2 splits, and
 * limits. */
#include "support/tok_load.h"

#include "text/tok_int.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

static tok_op op_of(const char *source, sq_buf *ranges) {
    tok_op op = {0};
    sq_buf_init(ranges, NULL, 1 << 16);
    bool known = tok_regex_op(source, strlen(source), &op, ranges);
    assert_int_equal(known, op.kind != TOK_OP_PCRE);
    return op;
}

static void known_sources_and_single_classes_are_recognised(void **state) {
    (void)state;
    static const struct {
        const char *source;
        tok_op_kind kind;
        uint32_t max;
        tok_lead lead;
        bool at_end;
    } cases[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", TOK_OP_KNOWN,
         0, 0, false},
        {"\\p{N}", TOK_OP_CLASS, 1, 0, false},
        {"\\p{N}+", TOK_OP_CLASS, UINT32_MAX, 0, false},
        {"\\p{N}{1,3}", TOK_OP_CLASS, 3, 0, false},
        {"[\r\n]", TOK_OP_CLASS, 1, 0, false},
        {"[\\r\\n]+", TOK_OP_CLASS, UINT32_MAX, 0, false},
        {"\\s+$", TOK_OP_CLASS, UINT32_MAX, 0, true},
        {"\\s?[a-z]+", TOK_OP_CLASS, UINT32_MAX, TOK_LEAD_WHITE, false},
        {" ?[^\\p{Lu}\\-]+", TOK_OP_CLASS, UINT32_MAX, TOK_LEAD_SPACE, false},
        {"[0-9][0-9]", TOK_OP_PCRE, 0, 0, false},
        {"[a-z&&[aeiou]]", TOK_OP_PCRE, 0, 0, false},
        {"[[:alpha:]]", TOK_OP_PCRE, 0, 0, false},
        {"[]a]", TOK_OP_PCRE, 0, 0, false},
        {"[z-a]", TOK_OP_PCRE, 0, 0, false},
        {"[\\w]", TOK_OP_PCRE, 0, 0, false},
        {"\\p{Script=Han}+", TOK_OP_PCRE, 0, 0, false},
        {"[abc", TOK_OP_PCRE, 0, 0, false},
        {"\\p{N}{1,4}", TOK_OP_PCRE, 0, 0, false},
        {"a|b", TOK_OP_PCRE, 0, 0, false},
        {"\\", TOK_OP_PCRE, 0, 0, false},
        {"[\\", TOK_OP_PCRE, 0, 0, false},
        {"\\p", TOK_OP_PCRE, 0, 0, false},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        sq_buf ranges;
        tok_op op = op_of(cases[i].source, &ranges);
        if (op.kind != cases[i].kind) fail_msg("%s: kind %d", cases[i].source, op.kind);
        if (op.kind == TOK_OP_CLASS) {
            assert_int_equal(op.max, cases[i].max);
            assert_int_equal(op.lead, cases[i].lead);
            assert_int_equal(op.at_end, cases[i].at_end);
        }
        if (op.kind == TOK_OP_PCRE) assert_int_equal(ranges.len, 0);
        sq_buf_deinit(&ranges);
    }
}

static void a_class_keeps_its_ranges_sorted_and_joined(void **state) {
    (void)state;
    sq_buf ranges;
    tok_op op = op_of("[x-z\\]a-ce-gd\xE4\xB8\x80-\xE9\xBE\xA5-]+", &ranges);
    const tok_range *r = (const tok_range *)(const void *)ranges.data;
    assert_int_equal(op.kind, TOK_OP_CLASS);
    assert_int_equal(op.cls.n_ranges, 5);
    static const tok_range want[] = {{'-', '-'}, {']', ']'}, {'a', 'g'}, {'x', 'z'}, {0x4E00, 0x9FA5}};
    for (size_t i = 0; i < SQ_COUNT(want); i++) {
        assert_int_equal(r[i].lo, want[i].lo);
        assert_int_equal(r[i].hi, want[i].hi);
    }
    sq_buf_deinit(&ranges);
}

/* A byte-level tokenizer without merges whose splits can be seen: "a" is one token of each byte, so the
 * pieces are read off by splitting with Removed, which drops what the regex matches. */
static void open_split(sq_test_tok *t, const char *regex, const char *behavior, const char *invert) {
    char patch[1024];
    snprintf(patch, sizeof patch,
             "{\"post_processor\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
             "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"%s\",\"invert\":%s},"
             "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}}",
             regex, behavior, invert);
    if (sq_test_tok_base(t, "byte", patch) != SQUISH_OK) fail_msg("%s: %s", regex, t->err.text);
}

/* The same pattern recognised, and hidden from recognition in a group: one runs here, the other on PCRE2. */
static void recognised_patterns_split_as_pcre2_does(void **state) {
    (void)state;
    static const char *const sources[] = {
        "\\\\s?[a-z]+",
        " ?[^a-m]+",
        "\\\\p{N}{1,3}",
        "\\\\s+$",
        "[\\\\r\\\\n]",
        "\\\\s?[\xE3\x80\x80-\xE3\x80\x82 x]+",
        "[\\\\s\\\\p{Lu}]+",
        ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
         "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*"
         "|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"),
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+",
    };
    static const char *const bits[] = {
        "a",        "m",        "z",       "X",   " ", "  ", "\n",       "\r",           "\t",
        "1",        "23",       "'s",      "'LL", "'", "!",  "\xC3\xA9", "\xE3\x80\x80", "\xE3\x80\x81",
        "\xC2\xA0", "\xCC\x81", "\xD9\xA1"};
    static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                            "Contiguous"};
    uint64_t seed = 11;
    for (size_t i = 0; i < SQ_COUNT(sources); i++) {
        sq_test_tok ours, theirs;
        char grouped[600], text[256], a[2048], b[2048];
        snprintf(grouped, sizeof grouped, "(?:%s)", sources[i]);
        const char *behavior = behaviors[i % SQ_COUNT(behaviors)];
        open_split(&ours, sources[i], behavior, "false");
        open_split(&theirs, grouped, behavior, "false");
        assert_int_equal(ours.n_warnings, 0);
        assert_int_equal(theirs.n_warnings, 1);
        for (int round = 0; round < 1500; round++) {
            size_t n = 0;
            for (uint64_t k = sq_splitmix64(&seed) % 14; k > 0; k--) {
                const char *bit = bits[sq_splitmix64(&seed) % SQ_COUNT(bits)];
                memcpy(text + n, bit, strlen(bit));
                n += strlen(bit);
            }
            sq_test_tok_ids(ours.tok, text, n, 0, a, sizeof a);
            sq_test_tok_ids(theirs.tok, text, n, 0, b, sizeof b);
            if (strcmp(a, b) != 0) fail_msg("%s on '%.*s': %s / %s", sources[i], (int)n, text, a, b);
        }
        sq_test_tok_free(&ours);
        sq_test_tok_free(&theirs);
    }
}

static void an_unknown_regex_is_warned_about_once_by_name(void **state) {
    (void)state;
    sq_test_tok t;
    open_split(&t, "(foo|bar)+", "Isolated", "false");
    assert_int_equal(t.n_warnings, 1);
    assert_non_null(strstr(t.warning, "(foo|bar)+"));
    sq_test_tok_free(&t);
}

static void a_broken_regex_is_refused_with_its_text(void **state) {
    (void)state;
    sq_test_tok t;
    squish_status st = sq_test_tok_base(&t, "byte",
                                        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"("
                                        "a\"},\"behavior\":\"Isolated\",\"invert\":false}}");
    assert_int_equal(st, SQUISH_UNSUPPORTED);
    assert_non_null(strstr(t.err.text, "'(a'"));
    sq_test_tok_free(&t);
}

static void a_regex_that_explodes_ends_in_an_error(void **state) {
    (void)state;
    sq_test_tok t;
    open_split(&t, "(a+)+[0-9]", "Isolated", "false");
    char text[64], out[256];
    memset(text, 'a', sizeof text);
    sq_test_tok_ids(t.tok, text, sizeof text, 0, out, sizeof out);
    assert_non_null(strstr(out, "gave up"));
    assert_string_not_equal(sq_test_tok_ids(t.tok, "a1", 2, 0, out, sizeof out),
                            ""); /* and the tokenizer lives on */
    sq_test_tok_free(&t);
}

static void a_regex_that_matches_nothing_at_all_places_terminates(void **state) {
    (void)state;
    sq_test_tok t;
    open_split(&t, "x*", "Isolated", "false");
    char a[256];
    assert_string_not_equal(sq_test_tok_ids(t.tok, "abxxc\xC3\xA9", 7, 0, a, sizeof a), "");
    sq_test_tok_free(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sources_and_single_classes_are_recognised),
        cmocka_unit_test(a_class_keeps_its_ranges_sorted_and_joined),
        cmocka_unit_test(recognised_patterns_split_as_pcre2_does),
        cmocka_unit_test(an_unknown_regex_is_warned_about_once_by_name),
        cmocka_unit_test(a_broken_regex_is_refused_with_its_text),
        cmocka_unit_test(a_regex_that_explodes_ends_in_an_error),
        cmocka_unit_test(a_regex_that_matches_nothing_at_all_places_terminates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
