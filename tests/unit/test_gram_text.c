/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_text.c - EBNF and Lark: what is in a language and what is not, what is refused and where; token
 * literals. */
#include "grammar/grammar.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

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

static const struct {
    sq_gram_kind kind;
    const char *source;
    const char *words[8], *beginnings[6], *others[8];
} languages[] = {
    {SQ_GRAM_EBNF,
     "Element ::= '<' Name '>' (Element | Text)* \"</>\"  /* a comment */\n"
     "Name    ::= [a-z#x41-#x43]+ - 'xml'\nText ::= [^<&]+ | #x26",
     {"<a></>", "<xmls>b&c<B>d</></>", "<A></>"},
     {"<xml", "<a>b", "<a><b>"},
     {"<xml>", "<D", "a", "<a></><", "<>"}},
    {SQ_GRAM_EBNF,
     "(* first rule first *) list = \"(\", [ item, { ',', item } ], ')' ;\n"
     "item = list | 3 * \"x\" | letter - 'b' ;\nletter = 'a' | 'b' / \"c\" ! 'd' .",
     {"()", "(xxx)", "(a,(c,d),xxx)"},
     {"(", "(xx", "(a,"},
     {"(b)", "(xx)", "(a,)", "a"}},
    {SQ_GRAM_EBNF, "a ::= 'x' root?\nroot ::= '[' a ']'", {"[x]", "[x[x]]"}, {"[", "[x"}, {"x", "[]"}},
    {SQ_GRAM_EBNF, "s ::= '\\n' \"'\" '#'", {"\\n'#"}, {"\\"}, {"\n"}},
    {SQ_GRAM_LARK, "start: \"a\" b \"c\"\nb: | \"b\" b", {"ac", "abbc"}, {"a", "ab"}, {"b", "abca"}},
    {SQ_GRAM_LARK,
     "// numbers\n?start: sum\nsum: product | sum \"+\" product -> add\n    | sum \"-\" product -> sub\n"
     "product.2: atom (\"*\" atom)*\n!atom: NUMBER | \"-\" atom | \"(\" sum \")\"\n"
     "%import common.NUMBER\n%import common.WS_INLINE -> SPACE\n%ignore SPACE\n",
     {"1", "1.5+ 2e3 *(3 - -4)", " 7 ", "( 1)"},
     {"", "1 +", "(1"},
     {"+", "1)", "1\n", "()"}},
    {SQ_GRAM_LARK,
     "start: (KEY \"=\" value \";\")~1..3\nvalue: ESCAPED_STRING | \"on\"i | [INT] | /[x-z]+(a|.)/i\n"
     "KEY: LETTER (\"a\"..\"f\" | \"\\u00e9\" | \"_\")*\n%import common (ESCAPED_STRING, INT, LETTER)",
     {"k=\"a\\\"b\";", "K_a=On;b=;c=12;", "k\xC3\xA9=XzA;", "k=x\r;"},
     {"k", "k=o", "k=\"\\\"", "a=;b"},
     {"g h", "kg", "a=;b=;c=;d", "=", "k=x\n"}},
    {SQ_GRAM_LARK,
     "start: \"call\" %json {\"type\": \"object\", \"properties\": {\"}\": {\"type\": \"null\"}},"
     "\"required\": [\"}\"], \"additionalProperties\": false} end?\nend: /;/ // a comment\n"
     "%ignore / +/",
     {"call {\"}\": null}", "  call{\"}\": null} ; "},
     {"call", "call {\"}\": n"},
     {"call {}", "call;", "{"}},
    /* Told apart: Lark, ISO, W3C by a quote, a code point, a comment; GBNF by its comment, or by nothing. */
    {SQ_GRAM_TEXT, "// x\n?start: \"a\" B\nB.2: \"b\"i", {"ab", "aB"}, {"a"}, {"b"}},
    {SQ_GRAM_TEXT, "%ignore \" \"\nstart: \"a\"", {"a", " a "}, {""}, {"b"}},
    {SQ_GRAM_TEXT, "(* list *) list =\n 'a', {','} ;", {"a", "a,,"}, {""}, {","}},
    {SQ_GRAM_TEXT, "s ::= \"\\n\" 'x'", {"\\nx"}, {"\\n"}, {"\n"}},
    {SQ_GRAM_TEXT, "s ::= [#x41-#x43] \"#\"", {"B#"}, {"C"}, {"x"}},
    {SQ_GRAM_TEXT, "s ::= \"a\" /* one */ \"b\"", {"ab"}, {"a"}, {"b"}},
    {SQ_GRAM_TEXT, "root ::= \"\\n\" b # it's a comment\nb ::= [']", {"\n'"}, {"\n"}, {"\\"}},
    {SQ_GRAM_TEXT, "root ::= \"it's\\\"\" [/*\"'] [a-f]{2}", {"it's\"'ab"}, {"it's\"*"}, {"it's'"}},
    {SQ_GRAM_LARK, "start: A{2,} # at least two\nA: \"\\x41\" | \"\\\\\"", {"AA", "A\\A"}, {"A"}, {"a"}},
};

static void words_beginnings_and_others_are_told_apart(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(languages); i++) {
        sq_gram *g;
        squish_error err = {0};
        const char *s = languages[i].source;
        if (sq_gram_new(&g, languages[i].kind, s, strlen(s), NULL, &err) != SQUISH_OK)
            fail_msg("%s: %s", s, err.text);
        for (int k = 0; k < 8 && languages[i].words[k]; k++)
            if (reads(g, languages[i].words[k]) != 2)
                fail_msg("%s: '%s' is no word", s, languages[i].words[k]);
        for (int k = 0; k < 6 && languages[i].beginnings[k]; k++)
            if (reads(g, languages[i].beginnings[k]) != 1)
                fail_msg("%s: '%s' is no mere beginning", s, languages[i].beginnings[k]);
        for (int k = 0; k < 8 && languages[i].others[k]; k++)
            if (reads(g, languages[i].others[k]) != 0)
                fail_msg("%s: '%s' begins a word", s, languages[i].others[k]);
        sq_gram_free(g);
    }
}

static const struct {
    sq_gram_kind kind;
    const char *source;
    squish_status status;
    const char *says;
} refusals[] = {
    {SQ_GRAM_EBNF, "", SQUISH_INVALID, "ebnf: no rule 'root'"},
    {SQ_GRAM_EBNF, "a 'b'", SQUISH_INVALID, "no 'name ::='"},
    {SQ_GRAM_EBNF, "a ::= 'b'\nc = 'd'", SQUISH_INVALID,
     "ebnf: neither literal, class, rule nor group in line 2"},
    {SQ_GRAM_EBNF, "a = 'b'", SQUISH_INVALID, "a rule without its ;"},
    {SQ_GRAM_EBNF, "a ::= ('b'", SQUISH_INVALID, "a group without its end"},
    {SQ_GRAM_EBNF, "a ::= 'b", SQUISH_INVALID, "a literal without its end"},
    {SQ_GRAM_EBNF, "a ::= [b", SQUISH_INVALID, "a class without its ]"},
    {SQ_GRAM_EBNF, "a ::= [z-a]", SQUISH_INVALID, "backwards"},
    {SQ_GRAM_EBNF, "a ::= #xG", SQUISH_INVALID, "hexadecimal"},
    {SQ_GRAM_EBNF, "a ::= b", SQUISH_INVALID, "rule 'b' is not defined"},
    {SQ_GRAM_EBNF, "a ::= 'x' a? - 'y'", SQUISH_UNSUPPORTED, "an exception of or from what is not regular"},
    {SQ_GRAM_EBNF, "a = ? anything ? ;", SQUISH_UNSUPPORTED, "a special sequence"},
    {SQ_GRAM_EBNF, "a = 3 'x' ;", SQUISH_INVALID, "a count without its *"},
    {SQ_GRAM_LARK, "x: \"a\"", SQUISH_INVALID, "lark: no rule 'start'"},
    {SQ_GRAM_TEXT, "x: \"a\"", SQUISH_INVALID, "lark: no rule 'start'"},
    {SQ_GRAM_TEXT, "x ::= \"a\"", SQUISH_INVALID, "gbnf: no rule 'root'"},
    {SQ_GRAM_TEXT, "a = 'b'", SQUISH_INVALID, "ebnf: a rule without its ;"},
    {SQ_GRAM_TEXT, "", SQUISH_INVALID, "gbnf"},
    {SQ_GRAM_TEXT, "root ::= \"a\\", SQUISH_INVALID, "gbnf"},
    {SQ_GRAM_LARK, "start: \"a", SQUISH_INVALID, "lark: a string without its end in line 1"},
    {SQ_GRAM_LARK, "start: /a", SQUISH_INVALID, "an expression without its /"},
    {SQ_GRAM_LARK, "start: /a\\", SQUISH_INVALID, "an expression without its /"},
    {SQ_GRAM_LARK, "start: /(?=a)/", SQUISH_UNSUPPORTED, "look around"},
    {SQ_GRAM_LARK, "start: /a/x", SQUISH_UNSUPPORTED, "a flag"},
    {SQ_GRAM_LARK, "start: b", SQUISH_INVALID, "rule 'b' is not defined"},
    {SQ_GRAM_LARK, "start: A\nA: \"a\" A?", SQUISH_INVALID, "a terminal that refers to itself"},
    {SQ_GRAM_LARK, "start: A\nA: start", SQUISH_INVALID, "a terminal that refers to a rule"},
    {SQ_GRAM_LARK, "start: \"b\"..\"a\"", SQUISH_INVALID, "a range"},
    {SQ_GRAM_LARK, "start: _sep{A}", SQUISH_UNSUPPORTED, "template"},
    {SQ_GRAM_LARK, "start[lazy]: \"a\"", SQUISH_UNSUPPORTED, "attribute"},
    {SQ_GRAM_LARK, "%declare X\nstart: X", SQUISH_UNSUPPORTED, "a directive"},
    {SQ_GRAM_LARK, "%import common.NONE\nstart: NONE", SQUISH_UNSUPPORTED, "what common does not have"},
    {SQ_GRAM_LARK, "%import python.NAME\nstart: NAME", SQUISH_UNSUPPORTED, "elsewhere"},
    {SQ_GRAM_LARK, "start: \"a\"\nstart: \"b\"", SQUISH_INVALID, "defined twice in line 2"},
    {SQ_GRAM_LARK, "start: \"a\" ) \"b\"", SQUISH_INVALID, "more than a rule"},
    {SQ_GRAM_LARK, "start: %json {\"a\"", SQUISH_INVALID, "a %json without its schema"},
    {SQ_GRAM_LARK, "start: %json {\"$ref\": \"http://x\"}", SQUISH_UNSUPPORTED, "'$ref'"},
    {SQ_GRAM_LARK, "start: <[3]>", SQUISH_UNSUPPORTED, "needs a vocabulary"},
};

static void what_cannot_be_compiled_is_refused_with_its_line(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(refusals); i++) {
        sq_gram *g = NULL;
        squish_error err = {0};
        const char *s = refusals[i].source;
        const squish_status st = sq_gram_new(&g, refusals[i].kind, s, strlen(s), NULL, &err);
        if (st != refusals[i].status || !strstr(err.text, refusals[i].says) || g)
            fail_msg("%s: status %d, '%s'", s, st, err.text);
    }
}

static void a_token_literal_is_that_token(void **state) {
    (void)state;
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, "models/squish-tiny", &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    static const struct {
        sq_gram_kind kind;
        const char *source;
    } forms[] = {{SQ_GRAM_GBNF, "root ::= \"a\" <|im_start|> \"b\""},
                 {SQ_GRAM_GBNF, "root ::= \"a\" <[12280]> \"b\""},
                 {SQ_GRAM_LARK, "start: \"a\" <|im_start|> \"b\""}};
    sq_gram_trie *trie;
    assert_int_equal(sq_gram_trie_new(&trie, m->tok, sq_tok_count(m->tok), NULL, NULL), SQUISH_OK);
    for (size_t i = 0; i < SQ_COUNT(forms); i++) {
        sq_gram *g;
        sq_matcher *y;
        bool ok;
        const char *s = forms[i].source;
        if (sq_gram_new_for(&g, forms[i].kind, s, strlen(s), m->tok, NULL, &err) != SQUISH_OK)
            fail_msg("%s: %s", s, err.text);
        assert_int_equal(sq_matcher_new(&y, g, trie, NULL, NULL), SQUISH_OK);
        assert_int_equal(sq_matcher_bytes(y, "a", 1, &ok, NULL), SQUISH_OK);
        assert_true(ok);
        assert_int_equal(sq_matcher_bytes(y, "<", 1, &ok, NULL), SQUISH_OK);
        assert_false(ok);
        assert_int_equal(sq_matcher_token(y, 12280, &ok, NULL), SQUISH_OK);
        assert_true(ok);
        assert_int_equal(sq_matcher_bytes(y, "b", 1, &ok, NULL), SQUISH_OK);
        assert_true(ok && sq_matcher_must_end(y));
        sq_matcher_free(y);
        sq_gram_free(g);
    }
    sq_gram *g;
    const char *const none = "root ::= <|nobody|>";
    assert_int_equal(sq_gram_new_for(&g, SQ_GRAM_GBNF, none, strlen(none), m->tok, NULL, &err),
                     SQUISH_INVALID);
    assert_non_null(strstr(err.text, "no token '<|nobody|>'"));
    sq_gram_trie_free(trie);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_beginnings_and_others_are_told_apart),
        cmocka_unit_test(what_cannot_be_compiled_is_refused_with_its_line),
        cmocka_unit_test(a_token_literal_is_that_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
