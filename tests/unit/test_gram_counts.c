/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gram_counts.c - large counts lie beside a place: along random texts, steps and undone steps a matcher
 * says what the automaton with all numbers in it says, and what it learns does not grow by how much it
 * counts.
 */
#include "grammar/gram_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TEXT_MAX = 4000 };

static uint64_t seed = 20261130;
static unsigned draw(unsigned n) { return (unsigned)((sq_splitmix64(&seed) >> 11) % n); }

/* often: a byte that is taken three times of four where it may be. */
static const struct {
    sq_gram_kind kind;
    const char *source;
    char often;
} languages[] = {
    {SQ_GRAM_REGEX, "(ab?c){1000,1200}x", 'a'},
    {SQ_GRAM_REGEX, "(ab?c){400,}x", 'c'},
    {SQ_GRAM_REGEX, "a[^x]{0,2000}x", 'a'},
    {SQ_GRAM_REGEX, "(a|aa){700}b", 'a'},
    {SQ_GRAM_REGEX, "(a|aa){700,900}b*", 'b'},
    {SQ_GRAM_REGEX, "(a{600}b){500}", 'a'},
    {SQ_GRAM_REGEX, "(a{0,600}b){0,600}c", 'a'},
    {SQ_GRAM_REGEX, "(a{0,600}b?){0,600}c", 'a'},
    {SQ_GRAM_REGEX, "a{500}b{500}a{500}", 'a'},
    {SQ_GRAM_REGEX, "a{0,500}b{0,500}a{0,500}", 'a'},
    {SQ_GRAM_REGEX, "(a{0,900}|(ab){500,})c", 'a'},
    {SQ_GRAM_REGEX, "((a{384}|b){384}c)*", 'b'},
    {SQ_GRAM_REGEX, "(abc){385}", 'a'},
    {SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"minLength\":400,\"maxLength\":1000}", 'e'},
    {SQ_GRAM_SCHEMA, "{\"type\":\"string\",\"maxLength\":1000,\"pattern\":\"ab\"}", 'e'},
    {SQ_GRAM_SCHEMA,
     "{\"type\":\"array\",\"items\":{\"enum\":[1,\"a\",null]},\"minItems\":600,\"maxItems\":700}", ','},
    {SQ_GRAM_GBNF, "root ::= (\"a\" [b]{400} | r){500}\nr ::= \"(\" r? \")\"", 'b'},
};

/* A byte that goes on, or 0 where none does. */
static uint8_t draw_byte(sq_gram *g, uint32_t place, char often) {
    uint8_t may[256];
    unsigned n = 0;
    for (unsigned b = 1; b < 256; b++)
        if (gram_place_step(g, place, g->pool.class_of[b])) may[n++] = (uint8_t)b;
    if (n == 0) return 0;
    if (gram_place_step(g, place, g->pool.class_of[(uint8_t)often]) && draw(4)) return (uint8_t)often;
    return may[draw(n)];
}

static void same(sq_gram *g, sq_matcher *m, uint32_t place, size_t at, const char *source) {
    if (sq_matcher_may_end(m) != GRAM_AT(g->places, gram_place, place).accept)
        fail_msg("%s: at byte %zu the end is another", source, at);
    for (uint32_t c = 0; c < g->pool.n_classes; c++) {
        bool ok;
        assert_int_equal(sq_matcher_bytes(m, &g->pool.byte_of[c], 1, &ok, NULL), SQUISH_OK);
        if (ok != (gram_place_step(g, place, c) != 0))
            fail_msg("%s: byte %02x behind %zu is another", source, g->pool.byte_of[c], at);
        if (ok) sq_matcher_rollback(m, 1);
    }
}

static void one_text(sq_gram *g, size_t i) {
    static uint8_t text[TEXT_MAX];
    static uint32_t places[TEXT_MAX + 1];
    static size_t steps[TEXT_MAX + 1]; /* bytes before each step */
    size_t n = 0, n_steps = 0;
    sq_matcher *m;
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, NULL), SQUISH_OK);
    places[0] = g->start;
    while (n < TEXT_MAX) {
        const size_t from = n, want = 1 + draw(draw(8) ? 9 : 200);
        for (; n < TEXT_MAX && n - from < want; n++) {
            text[n] = draw_byte(g, places[n], languages[i].often);
            if (text[n] == 0) break;
            places[n + 1] = gram_place_step(g, places[n], g->pool.class_of[text[n]]);
        }
        if (n == from) break;
        bool ok;
        assert_int_equal(sq_matcher_bytes(m, text + from, n - from, &ok, NULL), SQUISH_OK);
        if (!ok) fail_msg("%s: bytes %zu to %zu are refused", languages[i].source, from, n);
        steps[n_steps++] = from;
        if (draw(3) == 0) same(g, m, places[n], n, languages[i].source);
        if (draw(12) == 0) {
            const size_t back = draw(n_steps < 20 ? (unsigned)n_steps + 1 : 20);
            sq_matcher_rollback(m, back);
            n_steps -= back;
            n = back ? steps[n_steps] : n;
            same(g, m, places[n], n, languages[i].source);
        }
    }
    same(g, m, places[n], n, languages[i].source);
    sq_matcher_free(m);
}

static void counts_beside_a_place_are_those_in_it(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(languages); i++) {
        sq_gram *g;
        squish_error err = {0};
        if (sq_gram_new(&g, languages[i].kind, languages[i].source, strlen(languages[i].source), NULL,
                        &err) != SQUISH_OK)
            fail_msg("%s: %s", languages[i].source, err.text);
        for (int k = 0; k < 3; k++) one_text(g, i);
        if (gram_failed(&g->pool)) fail_msg("%s: %s", languages[i].source, g->pool.err.text);
        sq_gram_free(g);
    }
}

static void what_is_learned_does_not_grow_by_counting(void **state) {
    (void)state;
    enum { ITEMS = 150000 };
    static const char schema[] =
        "{\"type\":\"array\",\"minItems\":150000,\"maxItems\":150000,\"items\":{\"type\":\"object\","
        "\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":1000},\"year\":{\"type\":\"integer\"}},"
        "\"required\":[\"name\",\"year\"],\"additionalProperties\":false}}";
    static const char item[] = "{\"name\":\"a river\",\"year\":1907}";
    sq_gram *g;
    sq_matcher *m;
    bool ok;
    squish_error err = {0};
    assert_int_equal(sq_gram_new(&g, SQ_GRAM_SCHEMA, schema, strlen(schema), NULL, &err), SQUISH_OK);
    assert_int_equal(sq_matcher_new(&m, g, NULL, NULL, &err), SQUISH_OK);
    for (int i = 0; i < ITEMS; i++) {
        assert_int_equal(sq_matcher_bytes(m, i ? "," : "[", 1, &ok, &err), SQUISH_OK);
        assert_true(ok);
        assert_int_equal(sq_matcher_bytes(m, item, strlen(item), &ok, &err), SQUISH_OK);
        assert_true(ok);
        if (i % 1000 && i + 3 < ITEMS) continue;
        assert_int_equal(sq_matcher_bytes(m, "]", 1, &ok, &err), SQUISH_OK);
        assert_int_equal(ok, i + 1 == ITEMS);
        if (ok) sq_matcher_rollback(m, 1);
    }
    assert_int_equal(sq_matcher_bytes(m, ",", 1, &ok, &err), SQUISH_OK);
    assert_false(ok);
    sq_gram_stats s;
    sq_gram_get_stats(g, &s);
    print_message("%d items: %zu terms, %zu places, %.1f MB\n", ITEMS, s.terms, s.places,
                  (double)s.bytes / 1e6);
    assert_true(s.terms < 50000 && s.bytes < 32 << 20);
    sq_matcher_free(m);
    sq_gram_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_beside_a_place_are_those_in_it),
                                       cmocka_unit_test(what_is_learned_does_not_grow_by_counting)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
