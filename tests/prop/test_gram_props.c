/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_props.c - regular expressions against PCRE2 on random texts; masks against trying every token,
 * along random walks that a mask itself leads, so that every walk stays a beginning of a word. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "grammar/grammar.h"
#include "model/model.h"
#include "support/tok_load.h"

#include <jansson.h>
#include <pcre2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- regular expressions ---------------------------------------------------------------------- */

static uint64_t seed = 20261128;
static unsigned draw(unsigned n) { return (unsigned)(sq_splitmix64(&seed) % n); }

static void put(char *out, size_t cap, const char *s) {
    const size_t n = strlen(out), m = strlen(s);
    if (n + m + 1 <= cap) memcpy(out + n, s, m + 1);
}

static void random_regex(char *out, size_t cap, int depth) {
    static const char *const atoms[] = {"a", "b", "c", "[ab]", "[^a]", ".", "\\d", "ab", "1"};
    static const char *const counts[] = {"", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?"};
    const unsigned parts = 1 + draw(3);
    for (unsigned i = 0; i < parts; i++) {
        const bool group = depth > 0 && draw(3) == 0;
        if (group) {
            put(out, cap, "(?:");
            random_regex(out, cap, depth - 1);
            put(out, cap, "|");
            random_regex(out, cap, depth - 1);
            put(out, cap, ")");
        } else {
            put(out, cap, atoms[draw(SQ_COUNT(atoms))]);
        }
        put(out, cap, group || draw(2) ? counts[draw(SQ_COUNT(counts))] : "");
    }
}

static bool takes(sq_gram *g, const char *text, size_t n) {
    sq_matcher *m;
    bool ok;
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_matcher_bytes(m, text, n, &ok, NULL), SQUISH_OK);
    ok = ok && sq_matcher_may_end(m);
    sq_matcher_free(m);
    return ok;
}

static void regexes_match_what_pcre2_matches(void **state) {
    (void)state;
    for (int i = 0; i < 400; i++) {
        char source[4096] = "";
        random_regex(source, sizeof source, 3);
        int code;
        PCRE2_SIZE at;
        pcre2_code *re = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_DOTALL,
                                       &code, &at, NULL);
        sq_gram *g;
        squish_error err = {0};
        assert_non_null(re);
        if (sq_gram_new(&g, SQ_GRAM_REGEX, source, strlen(source), NULL, &err) != SQUISH_OK)
            fail_msg("%s: %s", source, err.text);
        pcre2_match_data *md = pcre2_match_data_create_from_pattern(re, NULL);
        for (int k = 0; k < 100; k++) {
            char text[16];
            const unsigned n = draw(9);
            for (unsigned j = 0; j < n; j++) text[j] = "aabbc1"[draw(6)];
            text[n] = 0;
            const bool want =
                pcre2_match(re, (PCRE2_SPTR)text, n, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED, md, NULL) >= 0;
            if (takes(g, text, n) != want) fail_msg("%s on '%s': PCRE2 says %d", source, text, want);
        }
        pcre2_match_data_free(md);
        pcre2_code_free(re);
        sq_gram_free(g);
    }
}

/* With ^ and $ at the borders of the text, in groups as well. */
static void random_held(char *out, size_t cap, int depth, bool begin, bool end) {
    if (begin && draw(2)) {
        put(out, cap, "^");
    } else if (begin && depth > 0 && draw(2)) {
        put(out, cap, "(?:");
        random_held(out, cap, depth - 1, true, false);
        put(out, cap, "|");
        random_held(out, cap, depth - 1, true, false);
        put(out, cap, ")");
    }
    random_regex(out, cap, 1);
    if (end && draw(2)) {
        put(out, cap, "$");
    } else if (end && depth > 0 && draw(2)) {
        put(out, cap, "(");
        random_held(out, cap, depth - 1, false, true);
        put(out, cap, "|");
        if (draw(3)) random_held(out, cap, depth - 1, false, true);
        put(out, cap, ")");
    }
}

static void patterns_with_borders_match_what_pcre2_matches(void **state) {
    (void)state;
    for (int i = 0; i < 400; i++) {
        char source[4096] = "";
        if (i % 3 == 0) {
            random_held(source, sizeof source, 2, true, true);
            put(source, sizeof source, "|");
        }
        if (i % 5 == 0) put(source, sizeof source, "(");
        random_held(source, sizeof source, 2, true, true);
        if (i % 5 == 0) put(source, sizeof source, ")");
        int code;
        PCRE2_SIZE at;
        pcre2_code *re = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
        json_t *o = json_pack("{s:s, s:s}", "type", "string", "pattern", source);
        char *schema = json_dumps(o, 0);
        sq_gram *g;
        squish_error err = {0};
        assert_non_null(re);
        if (sq_gram_new(&g, SQ_GRAM_SCHEMA, schema, strlen(schema), NULL, &err) != SQUISH_OK)
            fail_msg("%s: %s", source, err.text);
        pcre2_match_data *md = pcre2_match_data_create_from_pattern(re, NULL);
        for (int k = 0; k < 100; k++) {
            char text[16] = "\"";
            const unsigned n = draw(9);
            for (unsigned j = 0; j < n; j++) text[1 + j] = "aabbc1"[draw(6)];
            text[1 + n] = '"';
            const bool want = pcre2_match(re, (PCRE2_SPTR)text + 1, n, 0, 0, md, NULL) >= 0;
            if (takes(g, text, n + 2) != want)
                fail_msg("%s on %.*s: PCRE2 says %d", source, n + 2, text, want);
        }
        pcre2_match_data_free(md);
        pcre2_code_free(re);
        sq_gram_free(g);
        free(schema);
        json_decref(o);
    }
}

/* ---- masks ------------------------------------------------------------------------------------ */

static const struct {
    sq_gram_kind kind;
    const char *source;
} grammars[] = {
    {SQ_GRAM_JSON, ""},
    {SQ_GRAM_REGEX, "([a-z]+ ){2,5}[0-9]*(\\.|!)"},
    {SQ_GRAM_REGEX, "[^x]{0,40}x"},
    {SQ_GRAM_GBNF, "root ::= e\ne ::= t ([-+*/ ] t)*\nt ::= [0-9]+ | [a-z]+ | \"(\" e \")\""},
    {SQ_GRAM_GBNF, "root ::= s+\ns ::= \"<\" [a-z]+ \">\" (s | [^<]*) \"</>\""},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":12},"
     "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{\"type\":\"array\",\"items\":"
     "{\"enum\":[\"red\",\"green\"]}}},\"required\":[\"name\"],\"additionalProperties\":{\"type\":"
     "\"boolean\"}}"},
    {SQ_GRAM_SCHEMA,
     "{\"$ref\":\"#/$defs/"
     "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"string\","
     "\"pattern\":\"^[a-z]+$\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/n\"}}},"
     "\"required\":[\"v\"],\"additionalProperties\":false}}}"},
    {SQ_GRAM_TAGS,
     "{\"type\":\"triggered_tags\",\"triggers\":[\"<call>\",\"{\"],\"tags\":[{\"begin\":\"<call>f(\","
     "\"content\":"
     "{\"type\":\"any_text\"},\"end\":\")\"},{\"begin\":\"{\\\"a\\\"\",\"content\":{\"type\":\"regex\","
     "\"pattern\":\": [0-9]+\"},\"end\":\"}\"}]}"},
};

static void check_mask(const sq_tok *tok, int32_t n_vocab, sq_matcher *m, const uint64_t *mask) {
    for (int32_t id = 0; id < n_vocab; id++) {
        sq_span b;
        bool ok = false;
        if (sq_tok_is_eos(tok, id)) {
            ok = sq_matcher_may_end(m);
        } else if (!sq_tok_is_control(tok, id) && sq_tok_bytes(tok, id, &b) && b.n) { /* none is named */
            assert_int_equal(sq_matcher_bytes(m, b.p, b.n, &ok, NULL), SQUISH_OK);
            if (ok) sq_matcher_rollback(m, 1);
        }
        if (ok != (mask[id / 64] >> id % 64 & 1)) fail_msg("token %d: %d by its bytes", id, ok);
    }
}

static int32_t random_allowed(const sq_tok *tok, const uint64_t *mask, int32_t n_vocab) {
    const int32_t from = (int32_t)draw((unsigned)n_vocab);
    for (int32_t i = 0; i < n_vocab; i++) {
        const int32_t id = (from + i) % n_vocab;
        if ((mask[id / 64] >> id % 64 & 1) && !sq_tok_is_eos(tok, id)) return id;
    }
    return -1;
}

/* $SQUISH_GRAMMAR_STATES: states in all, of the grammars together. */
static int states_of(int usual) {
    const char *all = getenv("SQUISH_GRAMMAR_STATES");
    return all ? (int)strtol(all, NULL, 10) / (int)SQ_COUNT(grammars) + 1 : usual;
}

/* `states` states of each grammar, along walks of at most 30 tokens. */
static void walk_all(const sq_tok *tok, int32_t n_vocab, int states) {
    sq_gram_trie *trie;
    assert_int_equal(sq_gram_trie_new(&trie, tok, n_vocab, NULL, NULL), SQUISH_OK);
    uint64_t *mask = malloc(((size_t)n_vocab + 63) / 64 * sizeof *mask);
    for (size_t i = 0; i < SQ_COUNT(grammars); i++) {
        sq_gram *g;
        squish_error err = {0};
        if (sq_gram_new(&g, grammars[i].kind, grammars[i].source, strlen(grammars[i].source), NULL, &err) !=
            SQUISH_OK)
            fail_msg("%s", err.text);
        for (int s = 0; s < states;) {
            sq_matcher *m;
            int32_t n = 0, id = 0;
            assert_int_equal(sq_matcher_new(&m, g, trie, NULL, NULL), SQUISH_OK);
            for (int step = 0; step < 30 && s < states && id >= 0; step++, s++) {
                bool ok;
                assert_int_equal(sq_matcher_mask(m, mask, &n, &err), SQUISH_OK);
                assert_true(n > 0); /* a beginning of a word can always go on, or end */
                check_mask(tok, n_vocab, m, mask);
                id = random_allowed(tok, mask, n_vocab);
                if (id < 0) break;
                assert_int_equal(sq_matcher_token(m, id, &ok, &err), SQUISH_OK);
                assert_true(ok);
            }
            sq_matcher_free(m);
        }
        sq_gram_free(g);
    }
    free(mask);
    sq_gram_trie_free(trie);
}

static void masks_hold_exactly_the_tokens_that_may_come(void **state) {
    (void)state;
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, "models/squish-tiny", &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    walk_all(m->tok, sq_tok_count(m->tok), 300);
    squish_model_close(m);
}

static void masks_of_a_large_vocabulary_hold_them_too(void **state) {
    (void)state;
    const char *data = getenv("SQUISH_TESTDATA");
    char path[512];
    if (!data) skip();
    snprintf(path, sizeof path, "%s/fixtures/tokenizers/ggml-vocab-qwen2.gguf", data);
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, path, &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    walk_all(m->tok, sq_tok_count(m->tok), states_of(8));
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regexes_match_what_pcre2_matches),
        cmocka_unit_test(patterns_with_borders_match_what_pcre2_matches),
        cmocka_unit_test(masks_hold_exactly_the_tokens_that_may_come),
        cmocka_unit_test(masks_of_a_large_vocabulary_hold_them_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
