/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fmt_cursor.c - the bounded cursor, text for messages and the sort of the format room. */
#include "format/fmt_int.h"
#include "format/format.h"
#include "support/fmt_files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void values_are_little_endian_at_any_address(void **state) {
    (void)state;
    static const uint8_t raw[] = {0xFF, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09,
                                  0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x00, 0x00, 0x80, 0x3F,
                                  0,    0,    0,    0,    0,    0,    0xF0, 0xBF};
    sq_cur c = sq_cur_make((sq_span){raw, sizeof raw});
    assert_int_equal(sq_cur_u8(&c), 0xFF);
    assert_int_equal(sq_cur_u16(&c), 0x0201);
    assert_int_equal(sq_cur_u32(&c), 0x06050403);
    assert_true(sq_cur_u64(&c) == 0x0E0D0C0B0A090807u);
    sq_cur_skip(&c, 1);
    assert_true(sq_cur_f32(&c) == 1.0f);
    assert_true(sq_cur_f64(&c) == -1.0);
    assert_true(sq_cur_ok(&c));
    assert_int_equal(sq_cur_left(&c), 0);
}

static void the_first_fault_stays(void **state) {
    (void)state;
    uint8_t *raw = exact("abcdef", 6);
    sq_cur c = sq_cur_make((sq_span){raw, 6});
    sq_cur_skip(&c, 3);
    assert_int_equal(sq_cur_u32(&c), 0); /* three bytes are left */
    assert_false(sq_cur_ok(&c));
    assert_int_equal(c.fault, 3);
    assert_int_equal(sq_cur_u8(&c), 0); /* there is a byte, but the cursor has stopped */
    assert_null(sq_cur_bytes(&c, 0).p);
    assert_int_equal(sq_cur_left(&c), 0);
    assert_int_equal(c.fault, 3);
    free(raw);
}

static void lengths_near_the_end_of_the_number_range_do_not_wrap(void **state) {
    (void)state;
    static const uint8_t raw[16];
    static const uint64_t lengths[] = {17, UINT32_MAX, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < SQ_COUNT(lengths); i++) {
        sq_cur c = sq_cur_make((sq_span){raw, sizeof raw});
        sq_cur_skip(&c, 8);
        assert_null(sq_cur_bytes(&c, lengths[i]).p);
        assert_int_equal(c.fault, 8);
    }
}

static void an_empty_span_has_nothing_to_read(void **state) {
    (void)state;
    sq_cur c = sq_cur_make((sq_span){NULL, 0});
    assert_int_equal(sq_cur_bytes(&c, 0).n, 0);
    assert_true(sq_cur_ok(&c));
    assert_int_equal(sq_cur_u8(&c), 0);
    assert_int_equal(c.fault, 0);
}

static void shown_text_cannot_steer_a_terminal(void **state) {
    (void)state;
    sq_shown s;
    assert_string_equal(sq_fmt_show(&s, "blk.0.attn_q", 12), "blk.0.attn_q");
    assert_string_equal(sq_fmt_show(&s, "a\x1b[31mb\nc\x7f", 10), "a?[31mb?c?");
    assert_string_equal(sq_fmt_show(&s, "\xC3\xA4\xFF\xE2\x82", 5), "\xC3\xA4??");
    assert_string_equal(sq_fmt_show(&s,
                                    "\xE2\x80\xAE"
                                    "abc\xC2\x85",
                                    8),
                        "?abc?"); /* bidi override, C1 */
    assert_string_equal(sq_fmt_show(&s, "", 0), "");
}

static void long_text_is_cut_at_a_character(void **state) {
    (void)state;
    sq_shown s;
    char text[400];
    memset(text, 'x', sizeof text);
    sq_fmt_show(&s, text, SQ_SHOW_BYTES);
    assert_int_equal(strlen(s.text), SQ_SHOW_BYTES);
    sq_fmt_show(&s, text, SQ_SHOW_BYTES + 1);
    assert_string_equal(s.text + SQ_SHOW_BYTES, "...");
    memcpy(text + SQ_SHOW_BYTES - 1, "\xE2\x82\xAC", 3);
    sq_fmt_show(&s, text, sizeof text);
    assert_string_equal(s.text + SQ_SHOW_BYTES - 1, "...");
    assert_true(sq_utf8_valid(s.text, strlen(s.text)));
}

static bool value_less(const void *ctx, uint32_t a, uint32_t b) {
    const uint32_t *v = ctx;
    return v[a] < v[b];
}

static void the_sort_sorts_every_length_and_shape(void **state) {
    (void)state;
    uint32_t value[300], item[300];
    uint64_t seed = 7;
    for (uint32_t n = 0; n < 300; n++) {
        for (int shape = 0; shape < 4; shape++) {
            uint64_t sum = 0;
            for (uint32_t i = 0; i < n; i++) {
                uint32_t shapes[] = {i, n - i, (uint32_t)sq_splitmix64(&seed), i % 3};
                value[i] = shapes[shape];
                item[i] = i;
            }
            sq_fmt_sort(item, n, value_less, value);
            for (uint32_t i = 0; i < n; i++) {
                sum += item[i];
                if (i) assert_true(value[item[i - 1]] <= value[item[i]]);
            }
            assert_int_equal(sum, (uint64_t)n * (n ? n - 1 : 0) / 2); /* still a permutation */
        }
    }
}

static void dtypes_have_names_and_sizes(void **state) {
    (void)state;
    assert_string_equal(sq_dtype_name(SQ_DT_BF16), "BF16");
    assert_int_equal(sq_dtype_bytes(SQ_DT_BF16), 2);
    assert_int_equal(sq_dtype_bytes(SQ_DT_F64), 8);
    assert_int_equal(sq_dtype_bytes(SQ_DT_F8_E5M2), 1);
    assert_string_equal(sq_dtype_name((sq_dtype)(SQ_DT_GGUF + 12)), "Q4_K");
    assert_int_equal(sq_dtype_bytes((sq_dtype)(SQ_DT_GGUF + 12)), 0);
    assert_string_equal(sq_dtype_name((sq_dtype)40), "?");
    assert_string_equal(sq_dtype_name((sq_dtype)5000), "?");
}

static void gguf_blocks_have_the_sizes_of_the_format(void **state) {
    (void)state;
    static const uint32_t rows[][3] = {{0, 1, 4},      {1, 1, 2},      {30, 1, 2},     {2, 32, 18},
                                       {3, 32, 20},    {6, 32, 22},    {7, 32, 24},    {8, 32, 34},
                                       {10, 256, 84},  {11, 256, 110}, {12, 256, 144}, {13, 256, 176},
                                       {14, 256, 210}, {34, 256, 54},  {35, 256, 66}};
    const char *name;
    uint32_t items, size;
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        assert_true(sq_fmt_gguf_type(rows[i][0], &name, &items, &size));
        assert_int_equal(items, rows[i][1]);
        assert_int_equal(size, rows[i][2]);
    }
    assert_false(sq_fmt_gguf_type(20, &name, &items, &size));
    assert_string_equal(name, "IQ4_NL");
    assert_false(sq_fmt_gguf_type(4000000000u, &name, &items, &size));
    assert_string_equal(name, "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_little_endian_at_any_address),
        cmocka_unit_test(the_first_fault_stays),
        cmocka_unit_test(lengths_near_the_end_of_the_number_range_do_not_wrap),
        cmocka_unit_test(an_empty_span_has_nothing_to_read),
        cmocka_unit_test(shown_text_cannot_steer_a_terminal),
        cmocka_unit_test(long_text_is_cut_at_a_character),
        cmocka_unit_test(the_sort_sorts_every_length_and_shape),
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(gguf_blocks_have_the_sizes_of_the_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
