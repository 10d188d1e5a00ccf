/* SPDX-License-Identifier: Apache-2.0
 *
 * test_grammar_faults.c - the n-th allocation of reading a grammar, and of using it, fails: a status, nothing
 * lost, and whatever is still there can be let go. */
#include "grammar/grammar.h"
#include "model/model.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    sq_gram_kind kind;
    const char *source, *text;
} cases[] = {
    {SQ_GRAM_REGEX, "(a|bc)*[^x]{2,5}\\d+", "abcabc99"},
    {SQ_GRAM_GBNF, "root ::= e\ne ::= t ([-+] t)*\nt ::= [0-9]+ | \"(\" e \")\"", "1+(2-3)"},
    {SQ_GRAM_EBNF, "e = t, { '+', t } ;\nt = 'x' | '(', e, ')' - 'no' ;", "x+"},
    {SQ_GRAM_LARK, "start: (A \"=\" start | /[0-9]+/) ~ 1..2\nA: \"a\"..\"z\"\n%ignore \" \"", "a = 12"},
    {SQ_GRAM_SCHEMA,
     "{\"$ref\":\"#/$defs/"
     "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"enum\":[1,\"a\",null]},\"k\":{"
     "\"type\":"
     "\"array\",\"items\":{\"$ref\":\"#/$defs/"
     "n\"}}},\"required\":[\"v\"],\"additionalProperties\":{\"type\":\"number\"}}}}",
     "{\"v\": 1, \"k\": [{\"v\": \"a\"}]}"},
    {SQ_GRAM_TAGS,
     "{\"type\":\"triggered_tags\",\"triggers\":[\"<|im_start|>\",\"<b\"],"
     "\"tags\":[{\"begin\":\"<|im_start|>\",\"content\":{"
     "\"type\":\"any_text\"},"
     "\"end\":\">\"},{\"begin\":\"<b\",\"content\":{\"type\":\"regex\",\"pattern\":\"x\"},\"end\":\"\"}]}",
     "so <bx"},
};

/* Compile, read a text, make a mask; with a trie of its own, or a given one. */
static squish_status use(size_t i, const sq_tok *tok, sq_gram_trie *given, const squish_alloc *a) {
    sq_gram_trie *trie = given;
    sq_gram *g = NULL;
    sq_matcher *m = NULL;
    squish_error err = {0};
    bool ok;
    uint64_t mask[512];
    const char *s = cases[i].source;
    squish_status st = given ? SQUISH_OK : sq_gram_trie_new(&trie, tok, sq_tok_count(tok), a, &err);
    if (st == SQUISH_OK) st = sq_gram_new_for(&g, cases[i].kind, s, strlen(s), tok, a, &err);
    if (st == SQUISH_OK) st = sq_matcher_new(&m, g, trie, a, &err);
    if (st == SQUISH_OK) st = sq_matcher_mask(m, mask, NULL, &err);
    if (st == SQUISH_OK) st = sq_matcher_bytes(m, cases[i].text, strlen(cases[i].text), &ok, &err);
    if (st == SQUISH_OK) {
        assert_true(ok);
        st = sq_matcher_mask(m, mask, NULL, &err);
    }
    if (st != SQUISH_OK) assert_true(err.text[0] != 0);
    sq_matcher_free(m);
    sq_gram_free(g);
    if (!given) sq_gram_trie_free(trie);
    return st;
}

/* JSON's own memory is jansson's, which has no failures of ours. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, "models/squish-tiny", &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    /* The trie of all the vocabulary takes longer than everything else: the first case makes it each time. */
    sq_gram_trie *trie = NULL;
    assert_int_equal(sq_gram_trie_new(&trie, m->tok, sq_tok_count(m->tok), NULL, &err), SQUISH_OK);
    for (size_t i = 0; i < SQ_COUNT(cases); i++)
        for (int persistent = 0; persistent < 2; persistent++)
            for (int64_t n = 1;; n++) {
                struct sq_test_alloc_state s = {.fail_at = n, .persistent = persistent};
                const squish_alloc a = sq_test_alloc(&s);
                const squish_status st = use(i, m->tok, i ? trie : NULL, &a);
                assert_int_equal(s.live_blocks, 0);
                assert_int_equal(s.wrong_sizes, 0);
                if (st == SQUISH_OK && s.count < n) break;
                if (st != SQUISH_NO_MEMORY)
                    fail_msg("case %zu, allocation %lld: status %d", i, (long long)n, st);
                assert_true(n < 5000);
            }
    sq_gram_trie_free(trie);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
