/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_norm.c - Unicode forms against utf8proc on whole texts, order of marks, replacements, prefixes. */
#include "text/tok_int.h"

#include <setjmp.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>
#include <utf8proc.h>

/* Run `text` through the given steps; the result, NUL-terminated, in out. */
static const char *normalize(const tok_op *ops, uint32_t n_ops, const char *pool, const char *text, char *out,
                             size_t out_n) {
    tok_header h = {.n_norm = n_ops};
    sq_tok t = {.h = &h, .ops = ops, .pool = (const uint8_t *)pool};
    squish_alloc a = sq_alloc_default();
    tok_enc e;
    tok_enc_init(&e, &t, 0, &a, NULL);
    sq_span s;
    assert_int_equal(tok_normalize(&e, (sq_span){(const uint8_t *)text, strlen(text)}, &s), SQUISH_OK);
    assert_true(s.n < out_n);
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    tok_enc_release(&e);
    return out;
}

static const char *form(tok_form f, const char *text, char *out, size_t out_n) {
    tok_op op = {.kind = TOK_OP_FORM, .variant = (uint8_t)f};
    return normalize(&op, 1, "", text, out, out_n);
}

static void forms_of_known_texts_are_right(void **state) {
    (void)state;
    static const struct {
        const char *text, *nfc, *nfd, *nfkc;
    } cases[] = {
        {"", "", "", ""},
        {"plain", "plain", "plain", "plain"},
        {"e\xCC\x81", "\xC3\xA9", "e\xCC\x81", "\xC3\xA9"},
        {"x\xC3\xA9y", "x\xC3\xA9y", "xe\xCC\x81y", "x\xC3\xA9y"},
        {"s\xCC\x87\xCC\xA3", "\xE1\xB9\xA9", "s\xCC\xA3\xCC\x87", "\xE1\xB9\xA9"},
        {"\xE2\x84\xAB", "\xC3\x85", "A\xCC\x8A", "\xC3\x85"}, /* Angstrom sign */
        {"\xEF\xAC\x81", "\xEF\xAC\x81", "\xEF\xAC\x81", "fi"}, /* ligature */
        {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8",
         "\xEA\xB0\x81"},
        {"\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"},
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC", "\xE0\xA4\x95\xE0\xA4\xBC",
         "\xE0\xA4\x95\xE0\xA4\xBC"}, /* excluded */
        {"\xC2\xA0", "\xC2\xA0", "\xC2\xA0", " "},
    };
    char out[128];
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        assert_string_equal(form(TOK_NFC, cases[i].text, out, sizeof out), cases[i].nfc);
        assert_string_equal(form(TOK_NFD, cases[i].text, out, sizeof out), cases[i].nfd);
        assert_string_equal(form(TOK_NFKC, cases[i].text, out, sizeof out), cases[i].nfkc);
    }
}

static void random_texts_equal_utf8proc_on_the_whole_text(void **state) {
    (void)state;
    static const uint32_t pool[] = {'a',     ' ',     'e',    0xE9,   0x301,  0x302,  0x316,  0x323,  0x327,
                                    0x345,   0x1100,  0x1161, 0x11A8, 0xAC00, 0xAC01, 0x1E69, 0x212B, 0x2126,
                                    0x958,   0x93C,   0xCC6,  0xCC2,  0xCD5,  0x304B, 0x3099, 0xFB01, 0xFDFA,
                                    0x1D15E, 0x1F600, 0x4E2D, 0x344,  0x5AE,  0x315,  0x1EBF};
    static const utf8proc_option_t options[TOK_FORM_COUNT] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    uint64_t seed = 7;
    for (int round = 0; round < 4000; round++) {
        char text[128], out[2048];
        size_t n = 0;
        for (uint64_t k = sq_splitmix64(&seed) % 12 + 1; k > 0; k--)
            n += sq_utf8_encode(pool[sq_splitmix64(&seed) % SQ_COUNT(pool)], text + n);
        text[n] = '\0';
        for (int f = 0; f < TOK_FORM_COUNT; f++) {
            utf8proc_uint8_t *want = NULL;
            assert_true(
                utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &want, options[f]) >= 0);
            assert_string_equal(form((tok_form)f, text, out, sizeof out), (const char *)want);
            free(want);
        }
    }
}

static void a_million_unordered_marks_are_ordered_quickly(void **state) {
    (void)state;
    enum { PAIRS = 250000 };
    size_t n = 1 + 4 * (size_t)PAIRS;
    char *text = malloc(n + 1), *out = malloc(2 * n);
    text[0] = 'b';
    for (size_t i = 0; i < PAIRS; i++) memcpy(text + 1 + 4 * i, "\xCC\x81\xCC\x96", 4); /* above, below */
    text[n] = '\0';
    clock_t start = clock();
    form(TOK_NFC, text, out, 2 * n);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 5);
    assert_memory_equal(out, "b\xCC\x96\xCC\x96", 5); /* class 220 stands before 230 */
    assert_memory_equal(out + n - 4, "\xCC\x81\xCC\x81", 4);
    free(out);
    free(text);
}

static void steps_run_in_order(void **state) {
    (void)state;
    /* pool: "> " | "``" | "\"" */
    static const tok_op ops[] = {
        {.kind = TOK_OP_REPLACE, .text = 2, .text_bytes = 2, .with = 4, .with_bytes = 1},
        {.kind = TOK_OP_PREPEND, .text = 0, .text_bytes = 2},
        {.kind = TOK_OP_MARK},
        {.kind = TOK_OP_REPLACE, .text = 0, .text_bytes = 2, .with = 4, .with_bytes = 0},
    };
    char out[128];
    assert_string_equal(normalize(ops, 1, "> ``\"", "``a`````", out, sizeof out), "\"a\"\"`");
    assert_string_equal(normalize(ops, 2, "> ``\"", "``a", out, sizeof out), "> \"a");
    assert_string_equal(normalize(ops, 3, "> ``\"",
                                  "a\xE2\x96\x81"
                                  "b\xE2\x96\x81",
                                  out, sizeof out),
                        "> a b ");
    assert_string_equal(normalize(ops, 4, "> ``\"", "a> b", out, sizeof out), "ab");
    assert_string_equal(normalize(ops, 4, "> ``\"", "", out, sizeof out), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_known_texts_are_right),
        cmocka_unit_test(random_texts_equal_utf8proc_on_the_whole_text),
        cmocka_unit_test(a_million_unordered_marks_are_ordered_quickly),
        cmocka_unit_test(steps_run_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
