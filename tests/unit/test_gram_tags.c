/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_tags.c - structural tags: free text up to the first trigger, what tags hold, and compositions of
 * reasoning, text and calls; control tokens, which only grammars that name them reach. */
#include "grammar/grammar.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sq_gram *compile(const char *source, const sq_tok *tok) {
    sq_gram *g;
    squish_error err = {0};
    if (sq_gram_new_for(&g, SQ_GRAM_TAGS, source, strlen(source), tok, NULL, &err) != SQUISH_OK)
        fail_msg("%s: %s", source, err.text);
    return g;
}

/* 2: a word; 1: the beginning of one; 0: neither. */
static int reads(sq_gram *g, const char *text) {
    sq_matcher *m;
    bool ok;
    squish_error err = {0};
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, &err), SQUISH_OK);
    if (sq_matcher_bytes(m, text, strlen(text), &ok, &err) != SQUISH_OK) fail_msg("%s", err.text);
    const int r = !ok ? 0 : sq_matcher_may_end(m) ? 2 : 1;
    sq_matcher_free(m);
    return r;
}

#define SUM                                                                                                  \
    "{\"begin\":\"<call>{\\\"name\\\": \\\"sum\\\", \\\"arguments\\\": \",\"content\":{\"type\":"            \
    "\"json_schema\",\"json_schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},"    \
    "\"required\":[\"a\"],\"additionalProperties\":false}},\"end\":\"}</call>\"}"
#define NOW                                                                                                  \
    "{\"begin\":\"<call>{\\\"name\\\": "                                                                     \
    "\\\"now\\\"\",\"content\":{\"type\":\"const_string\",\"value\":\"\"},\"end\":\"}</call>\"}"
#define CALLS(more)                                                                                          \
    "{\"type\":\"triggered_tags\",\"triggers\":[\"<call>\"],\"tags\":[" SUM "," NOW "]" more "}"
#define THINK                                                                                                \
    "{\"type\":\"tag\",\"begin\":\"<think>\",\"content\":{\"type\":\"any_text\"},\"end\":\"</think>\"}"
#define ONE "<call>{\"name\": \"sum\", \"arguments\": {\"a\": 3}}</call>"

static const struct {
    const char *source;
    const char *words[8], *beginnings[8], *others[8];
} languages[] = {
    {"{\"type\":\"structural_tag\",\"format\":" CALLS("") "}",
     {"", "hello <cal l>", ONE, "I add. " ONE "\nand " ONE "!", "<<call>{\"name\": \"now\"}</call>", "<call"},
     {"<call>", "x<call>{\"name\": \"", "<call>{\"name\": \"sum\", \"arguments\": {\"a\": 3}}</call",
      ONE "<call>{"},
     {"<call>x", "<call>{\"name\": \"other\"", "<call>{\"name\": \"sum\", \"arguments\": {}", ONE "<call>x",
      "a\xFF"}},
    {CALLS(",\"at_least_one\":true"),
     {ONE, ONE " so " ONE "."},
     {"", "<", "<call>"},
     {" ", "a", "Well: " ONE}},
    {CALLS(",\"stop_after_first\":true"), {"", "no call", "now " ONE}, {"now <call>"}, {ONE " ", ONE ONE}},
    {CALLS(",\"at_least_one\":true,\"stop_after_first\":true"), {ONE}, {"", "<call>{"}, {"a", ONE "\n"}},
    {CALLS(",\"excludes\":[\"bad\"]"), {"ba d", "b" ONE}, {"ba<call>"}, {"bad", "a bad " ONE}},
    {"{\"type\":\"tags_with_separator\",\"tags\":[" SUM "," NOW "],\"separator\":\",\\n\"}",
     {"", ONE, ONE ",\n<call>{\"name\": \"now\"}</call>"},
     {"<", ONE ",", ONE ",\n"},
     {"a", ONE ONE, ONE ",\n,"}},
    {"{\"type\":\"tags_with_separator\",\"tags\":[" SUM "],\"separator\":\"\",\"at_least_one\":true}",
     {ONE, ONE ONE},
     {""},
     {ONE " "}},
    /* Reasoning that may be there, then text with calls. */
    {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"optional\",\"content\":" THINK "}," CALLS("") "]}",
     {"", "hi", "<think>a <call> in mind</think>" ONE, "<think></think>text " ONE},
     {"<think>a</think><call>", "<call>"},
     {"<call>x", "<think>a</think><call>x"}},
    /* Reasoning that the prompt opened, then JSON. */
    {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"tag\",\"begin\":\"\",\"content\":{\"type\":\"any_"
     "text\"},"
     "\"end\":\"</think>\"},{\"type\":\"regex\",\"pattern\":\"\\\\n{0,2}\"},{\"type\":\"json_object\"}]}",
     {"so be it</think>{}", "</think>\n\n{\"a\": 1}", "</think </think>{}"},
     {"", "so", "so</think>\n", "so</think>{"},
     {"so</think>x", "so</think>\n\n\n", "a</think>{}b"}},
    /* The first end ends, whatever follows. */
    {"{\"type\":\"tag\",\"begin\":\"a\",\"content\":{\"type\":\"any_text\",\"excludes\":[\"no\"]},\"end\":["
     "\"bb\","
     "\"c\"]}",
     {"abb", "ac", "axbxc"},
     {"", "a", "ab", "an", "anxo"},
     {"abbb", "acc", "ano", "anobb", "b"}},
    {"{\"type\":\"or\",\"elements\":[{\"type\":\"const_string\",\"value\":\"yes\"},{\"type\":\"plus\","
     "\"content\":"
     "{\"type\":\"grammar\",\"grammar\":\"root ::= \\\"(\\\" root? "
     "\\\")\\\"\"}},{\"type\":\"star\",\"content\":"
     "{\"type\":\"const_string\",\"value\":\"ab\"}}]}",
     {"", "yes", "()(())", "abab"},
     {"y", "(", "()(", "aba"},
     {"no", "yesyes", "()ab"}},
    {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"grammar\",\"grammar\":\"start: "
     "\\\"a\\\"i\"},{\"type\":"
     "\"grammar\",\"syntax\":\"ebnf\",\"grammar\":\"s ::= \\\"b\\\"\"}]}",
     {"ab", "Ab"},
     {"A"},
     {"b"}},
    /* The older form. */
    {"{\"type\":\"structural_tag\",\"triggers\":[\"<f=\"],\"structures\":[{\"begin\":\"<f=x>\",\"schema\":{"
     "\"type\":"
     "\"boolean\"},\"end\":\"</f>\"}]}",
     {"", "a <f=x>true</f> b"},
     {"<f="},
     {"<f=y", "<f=x>1"}},
    /* Of two triggers the one that is complete first opens its tag. */
    {"{\"type\":\"triggered_tags\",\"triggers\":[\"<a\",\"<ab\",\"x<a\"],\"tags\":[{\"begin\":\"<abc\","
     "\"content\":"
     "{\"type\":\"const_string\",\"value\":\"1\"},\"end\":\"\"},{\"begin\":\"x<ad\",\"content\":{\"type\":"
     "\"const_string\",\"value\":\"2\"},\"end\":\"\"}]}",
     {"<abc1", "x<abc1", "x<ad2y"},
     {"<ab", "x<a"},
     {"<ad", "<abd", "y<ad"}},
};

static void free_text_ends_at_the_first_trigger_and_tags_hold_their_form(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(languages); i++) {
        sq_gram *g = compile(languages[i].source, NULL);
        const char *const *const lists[] = {languages[i].others, languages[i].beginnings, languages[i].words};
        for (int want = 0; want < 3; want++)
            for (int k = 0; k < 8 && lists[want][k]; k++)
                if (reads(g, lists[want][k]) != want)
                    fail_msg("language %zu, '%s': %d, wanted %d", i, lists[want][k], reads(g, lists[want][k]),
                             want);
        sq_gram_free(g);
    }
}

static const struct {
    const char *source;
    squish_status status;
    const char *says;
} refusals[] = {
    {"[", SQUISH_INVALID, "tags"},
    {"{}", SQUISH_INVALID, "'type' is no string, at '#'"},
    {"{\"type\":\"song\"}", SQUISH_INVALID, "'song' is no type that is known"},
    {"{\"type\":\"regex\",\"pattern\":\"a\",\"flags\":1}", SQUISH_INVALID, "'flags' is not known here"},
    {"{\"type\":\"regex\",\"pattern\":\"(\"}", SQUISH_INVALID, "regex: a group without its )"},
    {"{\"type\":\"grammar\",\"grammar\":\"x\"}", SQUISH_INVALID, "gbnf"},
    {"{\"type\":\"json_schema\",\"json_schema\":{\"disallow\":1}}", SQUISH_UNSUPPORTED, "'disallow'"},
    {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"any_text\"},{\"type\":\"const_string\"}]}",
     SQUISH_INVALID, "'value' is no string, at '#/elements/1'"},
    {"{\"type\":\"sequence\",\"elements\":[]}", SQUISH_INVALID, "'elements' is no list, or empty"},
    {"{\"type\":\"optional\"}", SQUISH_INVALID, "'content' is missing"},
    {"{\"type\":\"json_schema\",\"json_schema\":true,\"relax\":true}", SQUISH_INVALID,
     "'relax' is no string"},
    {"{\"type\":\"grammar\",\"grammar\":\"x\",\"syntax\":\"peg\"}", SQUISH_INVALID, "'syntax' is none of"},
    {"{\"type\":\"tag\",\"begin\":\"a\",\"content\":{\"type\":\"any_text\"}}", SQUISH_INVALID,
     "'end' is missing"},
    {"{\"type\":\"any_text\",\"excludes\":[\"\"]}", SQUISH_INVALID, "'excludes' holds an empty string"},
    {"{\"type\":\"any_text\",\"excludes\":[3]}", SQUISH_INVALID, "'excludes' is neither"},
    {"{\"type\":\"triggered_tags\",\"triggers\":[\"\"],\"tags\":[" SUM "]}", SQUISH_INVALID,
     "'triggers' holds"},
    {"{\"type\":\"triggered_tags\",\"triggers\":[\"<f\"],\"tags\":[" SUM "]}", SQUISH_INVALID,
     "'begin' starts with none"},
    {"{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"tags\":[3]}", SQUISH_INVALID,
     "no object, at '#/tags/0'"},
    {CALLS(",\"at_least_one\":1"), SQUISH_INVALID, "'at_least_one' is no boolean"},
    {"{\"type\":\"structural_tag\"}", SQUISH_INVALID, "'format' is missing"},
};

static void what_cannot_be_compiled_is_refused_with_its_place(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(refusals); i++) {
        sq_gram *g = NULL;
        squish_error err = {0};
        const char *s = refusals[i].source;
        const squish_status st = sq_gram_new(&g, SQ_GRAM_TAGS, s, strlen(s), NULL, &err);
        if (st != refusals[i].status || !strstr(err.text, refusals[i].says) || g)
            fail_msg("%s: status %d, '%s'", s, st, err.text);
    }
}

/* What is beyond the engine is left out where that is allowed, and nothing else; it is named. */
static const struct {
    const char *schema, *relaxed;
    const char *words[4], *others[4];
} relaxations[] = {
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(?=x)\"},\"n\":{\"type\":"
     "\"integer\"}},\"required\":[\"a\",\"n\"],\"additionalProperties\":false}",
     "tool#/properties/a/pattern",
     {"{\"a\":\"z\",\"n\":1}"},
     {"{\"a\":1", "{\"a\":\"z\",\"n\":\"", "{\"b"}},
    {"{\"properties\":{\"not\":{\"pattern\":\"\\\\b\"},\"a\\n/b,\":{\"format\":\"regex\"}}}",
     "tool#/properties/a%0A~1b%2C/format, tool#/properties/not/pattern",
     {"{\"not\":\"x\"}", "[]"},
     {"x"}},
    {"{\"type\":\"array\",\"not\":{\"items\":{\"uniqueItems\":true}}}",
     "tool#/not",
     {"[[1,1]]", "[]"},
     {"1"}},
    {"{\"oneOf\":[{\"type\":\"string\",\"pattern\":\"\\\\b\"},{\"type\":\"boolean\"}]}",
     "tool#/oneOf, tool#/anyOf/0/pattern",
     {"\"a\"", "true"},
     {"1"}},
    {"{\"if\":{\"pattern\":\"\\\\b\"},\"then\":{\"type\":\"null\"},\"type\":[\"string\",\"null\"]}",
     "tool#/if",
     {"\"a\"", "null"},
     {"1"}},
    {"{\"patternProperties\":{\"^(?!x)\":{\"type\":\"null\"}},\"additionalProperties\":false,\"required\":["
     "\"y\"],"
     "\"type\":\"object\"}",
     "tool#/patternProperties",
     {"{\"y\":1}"},
     {"{}", "["}},
    {"{\"anyOf\":[{\"$ref\":\"http://a.b/c\"},{\"type\":\"null\"}],\"unevaluatedProperties\":false}",
     "tool#/anyOf/0/$ref",
     {"{\"y\":1}", "null"},
     {"x"}},
};

static void what_need_not_be_kept_to_is_left_out_and_named(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(relaxations); i++) {
        char source[1024];
        squish_error err = {0};
        sq_gram *g;
        snprintf(source, sizeof source, "{\"type\":\"json_schema\",\"json_schema\":%s}",
                 relaxations[i].schema);
        assert_int_equal(sq_gram_new(&g, SQ_GRAM_TAGS, source, strlen(source), NULL, &err),
                         SQUISH_UNSUPPORTED);
        snprintf(source, sizeof source, "{\"type\":\"json_schema\",\"json_schema\":%s,\"relax\":\"tool\"}",
                 relaxations[i].schema);
        g = compile(source, NULL);
        assert_string_equal(sq_gram_relaxed(g), relaxations[i].relaxed);
        for (int k = 0; k < 4 && relaxations[i].words[k]; k++)
            if (reads(g, relaxations[i].words[k]) != 2) fail_msg("%s: %s", source, relaxations[i].words[k]);
        for (int k = 0; k < 4 && relaxations[i].others[k]; k++)
            if (reads(g, relaxations[i].others[k]) != 0) fail_msg("%s: %s", source, relaxations[i].others[k]);
        sq_gram_free(g);
    }
    sq_gram *g = compile("{\"type\":\"json_schema\",\"json_schema\":true,\"relax\":\"\"}", NULL);
    assert_string_equal(sq_gram_relaxed(g), "");
    sq_gram_free(g);
}

static void elements_in_each_other_have_a_limit(void **state) {
    (void)state;
    enum { N = 100 };
    static const char open[] = "{\"type\":\"optional\",\"content\":", inner[] = "{\"type\":\"any_text\"}";
    char source[N * (sizeof open + 1) + sizeof inner] = "", *p = source;
    for (int i = 0; i < N; i++) p = stpcpy(p, open);
    p = stpcpy(p, inner);
    for (int i = 0; i < N; i++) p = stpcpy(p, "}");
    sq_gram *g;
    squish_error err = {0};
    assert_int_equal(sq_gram_new(&g, SQ_GRAM_TAGS, source, strlen(source), NULL, &err), SQUISH_NO_MEMORY);
    assert_non_null(strstr(err.text, "64 elements in each other"));
}

/* ---- control tokens --------------------------------------------------------------------------- */

static bool allows(sq_matcher *m, int32_t id) {
    uint64_t mask[512] = {0};
    assert_int_equal(sq_matcher_mask(m, mask, NULL, NULL), SQUISH_OK);
    return mask[id / 64] >> id % 64 & 1;
}

static void control_tokens_are_reached_by_their_names_alone(void **state) {
    (void)state;
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, "models/squish-tiny", &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    const int32_t start = sq_tok_find(m->tok, "<|im_start|>", 12), x = sq_tok_find(m->tok, "x", 1);
    const int32_t less = sq_tok_find(m->tok, "<", 1);
    assert_true(sq_tok_is_control(m->tok, start) && x >= 0 && less >= 0);
    sq_gram_trie *trie;
    assert_int_equal(sq_gram_trie_new(&trie, m->tok, sq_tok_count(m->tok), NULL, NULL), SQUISH_OK);

    sq_gram *g = compile("{\"type\":\"triggered_tags\",\"triggers\":[\"<|im_start|>\"],\"tags\":[{\"begin\":"
                         "\"<|im_start|>tool\",\"content\":{\"type\":\"regex\",\"pattern\":\"x+\"},\"end\":"
                         "\"<|im_start|>\"}]}",
                         m->tok);
    sq_matcher *y;
    bool ok;
    assert_true(sq_gram_names_tokens(g));
    assert_int_equal(sq_matcher_new(&y, g, trie, NULL, NULL), SQUISH_OK);
    assert_true(allows(y, start) && allows(y, x) && allows(y, less) && sq_matcher_may_end(y));
    assert_int_equal(sq_matcher_bytes(y, "a <|im_start|>x ", 16, &ok, NULL), SQUISH_OK);
    assert_true(ok && sq_matcher_may_end(y)); /* spelled out it is text */
    assert_int_equal(sq_matcher_token(y, start, &ok, NULL), SQUISH_OK);
    assert_true(ok && !allows(y, start) && !allows(y, x) && !sq_matcher_may_end(y));
    assert_int_equal(sq_matcher_bytes(y, "toolx", 5, &ok, NULL), SQUISH_OK);
    assert_true(ok && allows(y, start) && allows(y, x) && !allows(y, less));
    assert_int_equal(sq_matcher_token(y, start, &ok, NULL), SQUISH_OK);
    assert_true(ok && sq_matcher_may_end(y) && allows(y, less));
    sq_matcher_free(y);
    sq_gram_free(g);

    /* Others do not, whatever they take. */
    assert_int_equal(sq_gram_new_for(&g, SQ_GRAM_REGEX, "(.|\\n)*", 7, m->tok, NULL, NULL), SQUISH_OK);
    assert_false(sq_gram_names_tokens(g));
    assert_int_equal(sq_matcher_new(&y, g, trie, NULL, NULL), SQUISH_OK);
    assert_true(allows(y, less) && !allows(y, start));
    sq_matcher_free(y);
    sq_gram_free(g);

    const char *const ends = "{\"type\":\"const_string\",\"value\":\"a<|im_end|>\"}";
    assert_int_equal(sq_gram_new_for(&g, SQ_GRAM_TAGS, ends, strlen(ends), m->tok, NULL, &err),
                     SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'<|im_end|>' ends answers"));
    err = (squish_error){0};
    const char *const inside = "{\"type\":\"triggered_tags\",\"triggers\":[\"<|im\"],\"tags\":[{\"begin\":"
                               "\"<|im_start|>\",\"content\":{\"type\":\"any_text\"},\"end\":\"\"}]}";
    assert_int_equal(sq_gram_new_for(&g, SQ_GRAM_TAGS, inside, strlen(inside), m->tok, NULL, &err),
                     SQUISH_INVALID);
    assert_non_null(strstr(err.text, "ends inside the name of a token"));
    sq_gram_trie_free(trie);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_text_ends_at_the_first_trigger_and_tags_hold_their_form),
        cmocka_unit_test(what_cannot_be_compiled_is_refused_with_its_place),
        cmocka_unit_test(what_need_not_be_kept_to_is_left_out_and_named),
        cmocka_unit_test(elements_in_each_other_have_a_limit),
        cmocka_unit_test(control_tokens_are_reached_by_their_names_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
