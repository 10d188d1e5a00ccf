/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tok_ir.c - the byte alphabet, byte tokens, marks, printable names, end-of-turn names. */
#include "text/tok_int.h"

#include <setjmp.h>

#include <cmocka.h>

static void the_byte_alphabet_is_a_bijection(void **state) {
    (void)state;
    bool seen[256] = {false};
    int n_mapped = 0;
    for (uint32_t cp = 0; cp < 0x250; cp++) {
        char u[4];
        uint8_t byte[4];
        size_t len = sq_utf8_encode(cp, u), n;
        if (!tok_byte_chars((sq_span){(uint8_t *)u, len}, byte, &n)) continue;
        assert_int_equal(n, 1);
        assert_false(seen[byte[0]]);
        seen[byte[0]] = true;
        n_mapped++;
        if (cp < 0x100) assert_int_equal(byte[0], cp);
    }
    assert_int_equal(n_mapped, 256);
    uint8_t out[16];
    size_t n;
    /* space, line feed, DEL, NBSP and soft hyphen are U+0120, U+010A, U+0121, U+0142 and U+0143 */
    assert_true(
        tok_byte_chars((sq_span){(const uint8_t *)"\xC4\xA0\xC4\x8A\xC4\xA1\xC5\x82\xC5\x83", 10}, out, &n));
    assert_int_equal(n, 5);
    assert_memory_equal(out, " \n\x7F\xA0\xAD", 5);
    assert_false(tok_byte_chars((sq_span){(const uint8_t *)"a b", 3}, out, &n));
    assert_false(tok_byte_chars((sq_span){(const uint8_t *)"\xC3", 1}, out, &n));
}

static void byte_tokens_are_read_strictly(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int byte;
    } cases[] = {{"<0x00>", 0},  {"<0xFF>", 255}, {"<0xa9>", 0xA9}, {"<0x-1>", -1},
                 {"<0x 1>", -1}, {"<0x1>", -1},   {"<0x123>", -1},  {"<0X12>", -1},
                 {"<0x12]", -1}, {"", -1},        {"<0xG0>", -1}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++)
        assert_int_equal(tok_byte_token((sq_span){(const uint8_t *)cases[i].text, strlen(cases[i].text)}),
                         cases[i].byte);
}

static void marks_become_spaces(void **state) {
    (void)state;
    sq_arena ar;
    sq_arena_init(&ar, NULL, 256, 0);
    size_t n;
    const uint8_t *p = tok_unmark(&ar,
                                  (sq_span){(const uint8_t *)"\xE2\x96\x81"
                                                             "a\xE2\x96\xE2\x96\x81",
                                            9},
                                  &n);
    assert_int_equal(n, 5);
    assert_memory_equal(p, " a\xE2\x96 ", 5);
    sq_arena_deinit(&ar);
}

static void shown_names_are_printable_and_short(void **state) {
    (void)state;
    tok_shown shown;
    assert_string_equal(tok_show(&shown, "a\n\xFF", 3), "a\\x0A\\xFF");
    char wide[500];
    memset(wide, 1, sizeof wide);
    const char *s = tok_show(&shown, wide, sizeof wide);
    assert_true(strlen(s) < sizeof shown.text);
    assert_string_equal(s + strlen(s) - 3, "...");
    assert_string_equal(tok_show(&shown, "", 0), "");
}

static void known_end_names_count_only_as_control_tokens(void **state) {
    (void)state;
    squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    tok_ir ir;
    tok_ir_init(&ir, &a, NULL, NULL, &err);
    tok_item items[] = {
        {{(const uint8_t *)"<|im_end|>", 10}, TOK_PRESENT | TOK_CONTROL},
        {{(const uint8_t *)"<|eot_id|>", 10}, TOK_PRESENT | TOK_ADDED},
        {{(const uint8_t *)"<end_of_turn>", 13}, TOK_PRESENT | TOK_CONTROL},
        {{(const uint8_t *)"<|other|>", 9}, TOK_PRESENT | TOK_CONTROL},
        {{(const uint8_t *)"<\xEF\xBD\x9C"
                           "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
          27},
         TOK_PRESENT | TOK_CONTROL},
    };
    ir.items = items;
    ir.n_tokens = 5;
    assert_int_equal(tok_ir_known_eos(&ir), SQUISH_OK);
    assert_int_equal(ir.n_eos, 3);
    assert_int_equal(ir.eos[0], 0);
    assert_int_equal(ir.eos[1], 2);
    assert_int_equal(ir.eos[2], 4);
    assert_int_equal(tok_ir_add_eos(&ir, 2, "x"), SQUISH_OK); /* once */
    assert_int_equal(ir.n_eos, 3);
    assert_int_equal(tok_ir_add_eos(&ir, 5, "some file"), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "some file: 5 is no token"));
    tok_ir_deinit(&ir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_byte_alphabet_is_a_bijection),
        cmocka_unit_test(byte_tokens_are_read_strictly),
        cmocka_unit_test(marks_become_spaces),
        cmocka_unit_test(shown_names_are_printable_and_short),
        cmocka_unit_test(known_end_names_count_only_as_control_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
