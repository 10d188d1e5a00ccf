/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_match.c - front ends and matchers: what is in a language, what begins a word of it, what is
 * refused, and that undoing steps is as if they had not been. */
#include "grammar/grammar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static sq_gram *compile(sq_gram_kind kind, const char *source) {
    sq_gram *g;
    squish_error err = {0};
    if (sq_gram_new(&g, kind, source, strlen(source), NULL, &err) != SQUISH_OK)
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

typedef struct {
    sq_gram_kind kind;
    const char *source;
    const char *words[6], *beginnings[6], *others[8];
} language;

static const language languages[] = {
    {SQ_GRAM_REGEX, "(a|b)*c{2,3}d?", {"cc", "abccc", "ccd"}, {"", "a", "c"}, {"d", "cccc", "ccdd"}},
    {SQ_GRAM_REGEX,
     "\\d{2}-\\w+ [^a-z]",
     {"12-x A", "00-__ \xC3\xA9"},
     {"12-", "12-x \xC3"},
     {"1-", "12-x a"}},
    {SQ_GRAM_REGEX, "^(?:x|(?<n>y))$", {"x", "y"}, {""}, {"xy", "z"}},
    {SQ_GRAM_REGEX,
     "\\u00e9\\x41.",
     {"\xC3\xA9"
      "Az",
      "\xC3\xA9"
      "A\xF0\x9F\x98\x80"},
     {"\xC3"},
     {"\xC3\xA9"
      "A\n"}},
    {SQ_GRAM_REGEX, "((a{2,}){2,}){2,}", {"aaaaaaaa", "aaaaaaaaa"}, {"", "aaaaaaa"}, {"b"}},
    {SQ_GRAM_REGEX, "((a+)*b+)+", {"b", "aabb", "aaabab"}, {"", "aa", "ba"}, {"c"}},
    {SQ_GRAM_REGEX, "((a{0,5000}){0,5000}){0,5000}b", {"b", "aaab"}, {"", "aaa"}, {"ba"}},
    {SQ_GRAM_REGEX, "(([(^]|^a|b\\))(c$|d))", {"ac", "b)d", "^c"}, {"b)", "("}, {"ab", "dc"}},
    {SQ_GRAM_GBNF,
     "root ::= e\ne ::= t ([-+*/] t)*\nt ::= [0-9]+ | \"(\" e \")\" # nested",
     {"1", "1+2*(3-4)", "((7))"},
     {"", "(", "1+", "(1"},
     {")", "1+)", "()"}},
    {SQ_GRAM_GBNF, "root ::= \"a\" root | \"b\"", {"b", "aaab"}, {"aaa"}, {"ba", "c"}},
    {SQ_GRAM_GBNF, "root ::= root \"a\" | \"b\"", {"b", "baaa"}, {""}, {"ab"}},
    {SQ_GRAM_GBNF,
     "root ::= s s\ns ::= \"a\" s \"b\" | \"\"",
     {"", "ab", "abab", "aabbab"},
     {"aab", "aba"},
     {"b", "abb", "ababa b", "ababab"}},
    {SQ_GRAM_GBNF,
     "root ::= p{2,3}\np ::= \"(\" p? \")\"",
     {"()()", "(())()", "()()()"},
     {"()", "(("},
     {"()()()()", ")"}},
    {SQ_GRAM_GBNF, "root ::= [^\\n\"]* \"\\n\" .", {"ab\n\xE2\x82\xAC"}, {"x\n\xE2"}, {"\"", "\n\n\n"}},
    {SQ_GRAM_JSON,
     "",
     {"{}", "{\"a\": [1, 2.5e-3, \"\\u00e9\\ud83d\\ude00\", null]}"},
     {"{", "{\"a\": {\n   "},
     {"[]", "{1", "{\"a\":  1", "{\"\\ud83dx", "{\"\x01", "{\"a\":01"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\\n\xC3\xA9z\""},
     {"\""},
     {"\"a\"", "\"abcd"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"^a\\\\d+$|zz\",\"maxLength\":5}",
     {"\"a12\"", "\"xzzx\"", "\"zz\""},
     {"\"q"},
     {"\"a12345", "\"qqqqq\""}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"^$|(^(?:\\\\S+ ){0,1}[^ ^$]+$)\"}",
     {"\"\"", "\"a\"", "\"a b\""},
     {"\"a ", "\"a b"},
     {"\" ", "\"a  ", "\"a b "}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"string\",\"pattern\":\"(^|x)y($|,)\",\"maxLength\":3}",
     {"\"y\"", "\"y,a\"", "\"axy\""},
     {"\"x", "\"y", "\"ax"},
     {"\"yab", "\"xya"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":130}",
     {"0", "-12", "129", "99", "-1"},
     {"-", ""},
     {"130", "-13", "-0", "01", "1.0"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"number\",\"exclusiveMinimum\":1,\"maximum\":12}",
     {"1.01", "12", "12.00", "11.9"},
     {"1", "1.0"},
     {"0", "12.01", "13", "-1"}},
    {SQ_GRAM_SCHEMA,
     "{\"enum\":[\"a\",\"ab\",1,null,{\"x\":[1]}]}",
     {"\"a\"", "\"ab\"", "1", "{\"x\": [1]}"},
     {"\"", "n"},
     {"\"abc", "2"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{}},\"required\":[\"b\",\"c\"],"
     "\"additionalProperties\":{\"type\":\"null\"}}",
     {"{\"a\":true,\"b\":1,\"c\":null}", "{\"b\":[],\"c\":null,\"d\":null}"},
     {"{\"b\":1", "{"},
     {"{}", "{\"b\":1}", "{\"b\":1,\"c\":null,\"a\":", "{\"b\":1,\"c\":null,\"\\u0061", "{\"a\":1"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}],\"items\":{\"type\":"
     "\"integer\"},"
     "\"minItems\":1,\"maxItems\":4}",
     {"[null]", "[null, true,\n  1,2]"},
     {"[", "[null,"},
     {"[]", "[true", "[null,true,1,2,3"}},
    {SQ_GRAM_SCHEMA,
     "{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"$ref\":\"#/"
     "$defs/l\"}},"
     "\"additionalProperties\":false},\"l\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/n\"}]}}}",
     {"{}", "{\"v\":{\"v\":{\"v\":null}}}"},
     {"{\"v\":{\"v\":{}}"},
     {"{\"w", "{\"v\":{}}}"}},
    {SQ_GRAM_SCHEMA,
     "{\"allOf\":[{\"type\":[\"number\",\"string\"],\"minimum\":3},{\"type\":\"integer\",\"maximum\":5}]}",
     {"3", "5"},
     {""},
     {"2", "6", "\"", "3.0"}},
    {SQ_GRAM_SCHEMA,
     "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":[\"k\"]},"
     "{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"b\"},\"n\":{\"type\":\"integer\"}},"
     "\"required\":[\"k\",\"n\"]}]}",
     {"{\"k\":\"a\"}", "{\"k\":\"b\",\"n\":1}"},
     {"{\"k\":\"b\"", "{"},
     {"{\"k\":\"b\"}", "{\"k\":\"c"}},
    {SQ_GRAM_SCHEMA_LOOSE, "{\"type\":\"array\"}", {" [ \n\n 1 , 2\t]\r\n"}, {"   "}, {"{"}},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-29\""},
     {"\"2024-1"},
     {"\"2024-13", "\"x"}},
};

static void words_beginnings_and_others_are_told_apart(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(languages); i++) {
        const language *l = &languages[i];
        if (!l->words[0]) continue;
        sq_gram *g = compile(l->kind, l->source);
        for (int round = 0; round < 2; round++) { /* cold, then from what was learned */
            for (int k = 0; k < 6 && l->words[k]; k++)
                if (reads(g, l->words[k]) != 2) fail_msg("%s: %s is a word", l->source, l->words[k]);
            for (int k = 0; k < 6 && l->beginnings[k]; k++)
                if (reads(g, l->beginnings[k]) != 1 && !(*l->beginnings[k] == 0))
                    fail_msg("%s: %s begins a word", l->source, l->beginnings[k]);
            for (int k = 0; k < 8 && l->others[k]; k++)
                if (reads(g, l->others[k]) != 0) fail_msg("%s: %s begins no word", l->source, l->others[k]);
        }
        sq_gram_free(g);
    }
}

static const struct {
    sq_gram_kind kind;
    const char *source;
    squish_status status;
    const char *says;
} refusals[] = {
    {SQ_GRAM_REGEX, "a(b", SQUISH_INVALID, "regex: a group without its ) at offset 3"},
    {SQ_GRAM_REGEX, "a)b", SQUISH_INVALID, "regex: a ) without its group at offset 1"},
    {SQ_GRAM_REGEX, "[a", SQUISH_INVALID, "without its ]"},
    {SQ_GRAM_REGEX, "[z-a]", SQUISH_INVALID, "backwards"},
    {SQ_GRAM_REGEX, "a{3,2}", SQUISH_INVALID, "backwards"},
    {SQ_GRAM_REGEX, "*a", SQUISH_INVALID, "nothing to repeat"},
    {SQ_GRAM_REGEX, "a\\", SQUISH_INVALID, "backslash"},
    {SQ_GRAM_REGEX, "\\bx", SQUISH_UNSUPPORTED, "\\b"},
    {SQ_GRAM_REGEX, "(?=x)", SQUISH_UNSUPPORTED, "look around"},
    {SQ_GRAM_REGEX, "(a)\\1", SQUISH_UNSUPPORTED, "back reference"},
    {SQ_GRAM_REGEX, "a++", SQUISH_UNSUPPORTED, "possessive"},
    {SQ_GRAM_REGEX, "a{99999999}", SQUISH_NO_MEMORY, "limit"},
    {SQ_GRAM_REGEX, "\xFF", SQUISH_INVALID, "UTF-8"},
    {SQ_GRAM_REGEX, "[]", SQUISH_INVALID, "matches nothing"},
    {SQ_GRAM_GBNF, "x ::= \"a\"", SQUISH_INVALID, "no rule 'root'"},
    {SQ_GRAM_GBNF, "root ::= y", SQUISH_INVALID, "rule 'y' is not defined"},
    {SQ_GRAM_GBNF, "root ::= \"a\n", SQUISH_INVALID, "line 1"},
    {SQ_GRAM_GBNF, "root ::= root \"a\"", SQUISH_INVALID, "matches nothing"},
    {SQ_GRAM_GBNF, "root ::= <[12]>", SQUISH_UNSUPPORTED, "token literal"},
    {SQ_GRAM_GBNF, "root ::= !<[12]>", SQUISH_UNSUPPORTED, "any token but one"},
    {SQ_GRAM_GBNF, "root ::= \"a\"\nroot ::= \"b\"", SQUISH_INVALID, "twice"},
    {SQ_GRAM_SCHEMA, "{", SQUISH_INVALID, "schema"},
    {SQ_GRAM_SCHEMA, "3", SQUISH_INVALID, "neither an object nor a boolean"},
    {SQ_GRAM_SCHEMA, "false", SQUISH_INVALID, "matches nothing"},
    {SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(^a)?b\"}", SQUISH_UNSUPPORTED, "^ is only"},
    {SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"pattern\":\"a$b\"}", SQUISH_UNSUPPORTED, "^ and $ are only"},
    {SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"pattern\":\"(?!a)\"}", SQUISH_UNSUPPORTED, "pattern"},
};

static void what_cannot_be_compiled_is_refused_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(refusals); i++) {
        sq_gram *g = NULL;
        squish_error err = {0};
        const squish_status st =
            sq_gram_new(&g, refusals[i].kind, refusals[i].source, strlen(refusals[i].source), NULL, &err);
        if (st != refusals[i].status || !strstr(err.text, refusals[i].says) || g)
            fail_msg("%s: status %d, '%s'", refusals[i].source, st, err.text);
    }
}

/* n times open, middle, n times close. */
static char *nested(const char *open, const char *middle, const char *close, size_t n) {
    const size_t a = strlen(open), b = strlen(close), m = strlen(middle);
    char *s = malloc(n * (a + b) + m + 1), *p = s;
    for (size_t i = 0; i < n; i++, p += a) memcpy(p, open, a);
    memcpy(p, middle, m), p += m;
    for (size_t i = 0; i < n; i++, p += b) memcpy(p, close, b);
    *p = 0;
    return s;
}

static void bombs_are_refused_or_read_within_their_limits(void **state) {
    (void)state;
    static const struct {
        sq_gram_kind kind;
        const char *before, *open, *middle, *close;
        size_t n;
        const char *text;
    } bombs[] = {
        {SQ_GRAM_REGEX, "", "(", "a", ")", 60000, NULL},
        {SQ_GRAM_GBNF, "root ::= ", "(", "\"a\"", ")", 60000, NULL},
        {SQ_GRAM_REGEX, "", "a?", "", "a", 300, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
        {SQ_GRAM_REGEX, "", "(", "a?", "){1000}", 5, "aaaaaaaaaaaaaaaaaaaa"},
        {SQ_GRAM_REGEX, "", "(", "a", ")+", 200, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"},
        {SQ_GRAM_REGEX, "", "(a|aa)*", "b", "", 50, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"},
        {SQ_GRAM_GBNF, "root ::= ", "x* ", "\nx ::= \"a\" | \"(\" x \")\"", "", 40, "aaaa(a)aaaaaaaaaaaa"},
        {SQ_GRAM_SCHEMA, "", "{\"items\":", "true", "}", 120, "[[[["},
    };
    for (size_t i = 0; i < SQ_COUNT(bombs); i++) {
        char *body = nested(bombs[i].open, bombs[i].middle, bombs[i].close, bombs[i].n);
        char *source = malloc(strlen(bombs[i].before) + strlen(body) + 1);
        memcpy(source, bombs[i].before, strlen(bombs[i].before));
        memcpy(source + strlen(bombs[i].before), body, strlen(body) + 1);
        sq_gram *g = NULL;
        squish_error err = {0};
        const squish_status st = sq_gram_new(&g, bombs[i].kind, source, strlen(source), NULL, &err);
        if (bombs[i].text) {
            if (st != SQUISH_OK) fail_msg("bomb %zu: %s", i, err.text);
            reads(g, bombs[i].text);
            sq_gram_stats s;
            sq_gram_get_stats(g, &s);
            assert_true(s.bytes < SQ_GRAM_COMPILE_BYTES_MAX);
        } else {
            assert_int_equal(st, SQUISH_NO_MEMORY);
        }
        sq_gram_free(g);
        free(source);
        free(body);
    }
}

static void undoing_steps_is_as_if_they_had_not_been(void **state) {
    (void)state;
    sq_gram *g = compile(SQ_GRAM_JSON, "");
    const char *text = "{\"a\": [1, {\"b\": \"x\\n\"}], \"c\": false}";
    const size_t n = strlen(text);
    sq_matcher *m;
    bool ok;
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    uint64_t seed = 7;
    size_t at = 0;
    for (int i = 0; i < 3000; i++) {
        const uint64_t r = sq_splitmix64(&seed);
        if (r % 3 && at < n) {
            assert_int_equal(sq_matcher_bytes(m, text + at, 1, &ok, NULL), SQUISH_OK);
            assert_true(ok);
            at++;
        } else {
            const size_t back = (r >> 8) % 5;
            sq_matcher_rollback(m, back);
            at -= back < at ? back : at;
        }
        assert_int_equal(sq_matcher_steps(m), at);
        assert_int_equal(sq_matcher_may_end(m), at == n);
        assert_int_equal(sq_matcher_must_end(m), at == n);
        /* What may come next is what a fresh reading allows. */
        const char next = (char)(32 + (r >> 20) % 95);
        assert_int_equal(sq_matcher_bytes(m, &next, 1, &ok, NULL), SQUISH_OK);
        if (ok) sq_matcher_rollback(m, 1);
        char fresh[64];
        memcpy(fresh, text, at);
        fresh[at] = next;
        fresh[at + 1] = 0;
        assert_int_equal(ok, reads(g, fresh) != 0);
    }
    sq_matcher_free(m);
    sq_gram_free(g);
}

static void bytes_that_must_come_are_known(void **state) {
    (void)state;
    sq_gram *g = compile(SQ_GRAM_REGEX, "ab(c|d)ef");
    sq_matcher *m;
    bool ok;
    sq_buf b;
    sq_buf_init(&b, NULL, 100);
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_matcher_forced(m, 100, &b, NULL), SQUISH_OK);
    assert_string_equal(b.data, "ab");
    assert_int_equal(sq_matcher_bytes(m, "abd", 3, &ok, NULL), SQUISH_OK);
    b.len = 0;
    assert_int_equal(sq_matcher_forced(m, 100, &b, NULL), SQUISH_OK);
    assert_string_equal(b.data, "ef");
    sq_buf_deinit(&b);
    sq_matcher_free(m);
    sq_gram_free(g);
}

static void a_grammar_learns_no_more_from_what_it_has_seen(void **state) {
    (void)state;
    sq_gram *g = compile(SQ_GRAM_GBNF, "root ::= v\nv ::= [0-9]+ | \"[\" (v (\",\" v)*)? \"]\"");
    sq_gram_stats a, b;
    assert_int_equal(reads(g, "[1,[2,3,4,5],[],[[]],4,5,6]"), 2);
    sq_gram_get_stats(g, &a);
    assert_int_equal(reads(g, "[9,[8,8,8,8,8,8,8],[],[[]],1,1,1,1]"), 2);
    sq_gram_get_stats(g, &b);
    assert_int_equal(a.rows, b.rows);
    assert_int_equal(a.places, b.places);
    sq_gram_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_beginnings_and_others_are_told_apart),
        cmocka_unit_test(what_cannot_be_compiled_is_refused_by_name),
        cmocka_unit_test(bombs_are_refused_or_read_within_their_limits),
        cmocka_unit_test(undoing_steps_is_as_if_they_had_not_been),
        cmocka_unit_test(bytes_that_must_come_are_known),
        cmocka_unit_test(a_grammar_learns_no_more_from_what_it_has_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
