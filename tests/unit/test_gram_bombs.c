/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_bombs.c - sources that end other engines: each is compiled or refused within 64 MB, and says how
 * long it took ("bomb NAME: MS ms, MB MB"). With those that compile a text is read, which counts, too. */
#include "grammar/grammar.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* before, n times open, middle, n times close, after. */
static const struct {
    const char *name;
    sq_gram_kind kind;
    const char *before, *open, *middle, *close, *after;
    size_t n;
} bombs[] = {
    {"maxLength 4000 one level down", SQ_GRAM_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"object\",\"properties\":{\"b\":{\"type\":"
     "\"string\",\"maxLength\":4000}}}}}",
     "", "", "", "", 0},
    {"maxItems of maxItems", SQ_GRAM_SCHEMA, "",
     "{\"maxItems\":2000,\"items\":", "{\"type\":\"string\",\"maxLength\":2000}", "}", "", 12},
    {"no properties", SQ_GRAM_SCHEMA, "{\"type\":\"object\",\"properties\":{}}", "", "", "", "", 0},
    {"60,000 groups", SQ_GRAM_GBNF, "root ::= ", "(", "\"a\"", ")", "", 60000},
    {"60,000 groups, regex", SQ_GRAM_REGEX, "", "(", "a", ")", "", 60000},
    {"60,000 groups, EBNF", SQ_GRAM_EBNF, "root ::= ", "(", "\"a\"", ")", "", 60000},
    {"60,000 groups, Lark", SQ_GRAM_LARK, "start: ", "(", "\"a\"", ")", "", 60000},
    {"tags in tags", SQ_GRAM_TAGS, "", "{\"type\":\"optional\",\"content\":", "{\"type\":\"any_text\"}", "}",
     "", 20000},
    {"\\d and \\b in a pattern", SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"pattern\":\"\\\\b\\\\d+\\\\b\"}", "",
     "", "", "", 0},
    {"(a? a? ...)*", SQ_GRAM_GBNF, "root ::= (", "\"a\"? ", "", "", ")*", 3000},
    {"counts of counts", SQ_GRAM_REGEX, "", "(", "a?", "){1000}", "", 8},
    {"counts of counts of parts", SQ_GRAM_REGEX, "", "(", "a?", "b?){1000}", "", 8},
    {"counts of counts of many ways", SQ_GRAM_REGEX, "", "(", "(a|aa|aaa)", "a?){1,1000}", "", 8},
    {"counts of counts, both ends", SQ_GRAM_REGEX, "", "(", "a{2,3}", "b{0,2}a{1,2}){500,1000}", "", 8},
    {"counts of counts, GBNF", SQ_GRAM_GBNF, "root ::= ", "(", "(\"a\" | root \"b\")", "\"a\"?){1,1000}", "",
     8},
    {"(.*){1,32}", SQ_GRAM_REGEX, "(.*){1,32}", "", "", "", "", 0},
    {"(a+)+", SQ_GRAM_REGEX, "", "(", "a", ")+", "", 400},
    {"10,000 alternatives", SQ_GRAM_REGEX, "x", "|ab", "", "", "", 10000},
    {"4,000 references", SQ_GRAM_GBNF, "a ::= \"x\"\nroot ::= ", "a ", "", "", "", 4000},
    {"schemas in schemas", SQ_GRAM_SCHEMA, "", "{\"items\":", "true", "}", "", 60000},
    {"anyOf of anyOf", SQ_GRAM_SCHEMA, "", "{\"anyOf\":[{\"type\":\"null\"},", "true", "]}", "", 60},
    {"a class of 100,000 ranges", SQ_GRAM_REGEX, "[", "a", "", "", "]", 100000},
    {"many excluded words", SQ_GRAM_TAGS, "{\"type\":\"any_text\",\"excludes\":[", "\"ab\",", "\"b\"", "",
     "]}", 2000},
    {"left and right recursion", SQ_GRAM_GBNF, "root ::= root root | \"a\"", "", "", "", "", 0},
};

static char *source_of(size_t i) {
    const size_t open = strlen(bombs[i].open), close = strlen(bombs[i].close);
    char *s = malloc(strlen(bombs[i].before) + strlen(bombs[i].middle) + strlen(bombs[i].after) +
                     bombs[i].n * (open + close) + 1);
    char *p = stpcpy(s, bombs[i].before);
    for (size_t k = 0; k < bombs[i].n; k++) p = stpcpy(p, bombs[i].open);
    p = stpcpy(p, bombs[i].middle);
    for (size_t k = 0; k < bombs[i].n; k++) p = stpcpy(p, bombs[i].close);
    stpcpy(p, bombs[i].after);
    return s;
}

static void bombs_compile_or_are_refused_within_64_megabytes(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(bombs); i++) {
        struct sq_test_alloc_state count = {.fail_at = 0};
        const squish_alloc a = sq_test_alloc(&count);
        char *source = source_of(i);
        sq_gram *g = NULL;
        squish_error err = {0};
        const uint64_t begin = sq_os_now_ns();
        squish_status st = sq_gram_new(&g, bombs[i].kind, source, strlen(source), &a, &err);
        if (st == SQUISH_OK) {
            sq_matcher *m;
            bool ok;
            assert_int_equal(sq_matcher_new(&m, g, NULL, &a, &err), SQUISH_OK);
            for (int k = 0; k < 40 && st == SQUISH_OK; k++) st = sq_matcher_bytes(m, "a", 1, &ok, &err);
            sq_matcher_free(m);
        }
        if (st != SQUISH_OK && (err.text[0] == 0 || (st != SQUISH_NO_MEMORY && st != SQUISH_INVALID &&
                                                     st != SQUISH_UNSUPPORTED))) {
            fail_msg("%s: status %d, '%s'", bombs[i].name, st, err.text);
        }
        printf("bomb %s: %.2f ms, %.2f MB, %s\n", bombs[i].name, (double)(sq_os_now_ns() - begin) / 1e6,
               (double)count.peak_bytes / 1e6, st == SQUISH_OK ? "read" : err.text);
        sq_gram_free(g);
        free(source);
        assert_int_equal(count.live_blocks, 0);
        assert_true(count.peak_bytes <= 64 << 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bombs_compile_or_are_refused_within_64_megabytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
