/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_types.c - the table of weight types and the sizes of matrices. */
#include "quant/quant.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint64_t bytes_of(sq_wtype t, int64_t rows, int64_t cols) {
    uint64_t n = 0;
    assert_true(sq_weight_bytes(t, rows, cols, &n));
    return n;
}

static void types_have_names_and_widths(void **state) {
    (void)state;
    static const struct {
        sq_wtype t;
        const char *name;
        int32_t bits, record;
        bool packed;
    } want[] = {
        {SQ_W_F32, "f32", 32, 0, false},          {SQ_W_F16, "f16", 16, 0, false},
        {SQ_W_BF16, "bf16", 16, 0, false},        {SQ_W_I8_ROW, "int8-row", 8, 1024, true},
        {SQ_W_I8_G64, "int8-g64", 8, 1024, true}, {SQ_W_I4_G64, "int4-g64", 4, 576, true},
    };
    assert_int_equal(SQ_COUNT(want), SQ_W_COUNT);
    for (size_t i = 0; i < SQ_COUNT(want); i++) {
        const sq_wtype_info *info = sq_wtype_get(want[i].t);
        assert_string_equal(info->name, want[i].name);
        assert_int_equal(info->bits, want[i].bits);
        assert_int_equal(info->packed, want[i].packed);
        assert_int_equal(info->record_bytes, want[i].record);
    }
}

static void a_matrix_knows_its_groups_and_tiles(void **state) {
    (void)state;
    uint8_t byte = 0;
    sq_weight w = sq_weight_make(SQ_W_I4_G64, SQ_SCALE_BF16, 17, 100, &byte);
    assert_ptr_equal(w.data, &byte);
    assert_int_equal(w.rows, 17);
    assert_int_equal(w.cols, 100);
    assert_int_equal(w.groups, 2);
    assert_int_equal(w.wtype, SQ_W_I4_G64);
    assert_int_equal(w.scale_type, SQ_SCALE_BF16);
    assert_int_equal(w.tile_bytes, 2 * 576);
    assert_int_equal(sq_weight_tiles(&w), 2);
    assert_int_equal(sq_weight_make(SQ_W_F16, SQ_SCALE_F16, 1, 100, &byte).tile_bytes, 16 * 200);
    assert_int_equal(sq_weight_make(SQ_W_I8_ROW, SQ_SCALE_F32, 1, INT32_MAX, &byte).groups, 1 << 25);
}

static void sizes_count_padding_and_scales(void **state) {
    (void)state;
    assert_int_equal(bytes_of(SQ_W_F32, 3, 5), 60);
    assert_int_equal(bytes_of(SQ_W_BF16, 3, 5), 30);
    assert_int_equal(bytes_of(SQ_W_I4_G64, 16, 64), 576);
    assert_int_equal(bytes_of(SQ_W_I4_G64, 17, 65), 4 * 576);
    assert_int_equal(bytes_of(SQ_W_I8_G64, 16, 128), 2 * 1024 + 64);
    assert_int_equal(bytes_of(SQ_W_I8_G64, 16, 64), 1024 + 64); /* 32 bytes of scales and 32 of padding */
    assert_int_equal(bytes_of(SQ_W_I8_G64, 16, 192), 3 * 1024 + 128);
    assert_int_equal(bytes_of(SQ_W_I8_ROW, 1, 1), 1024 + 64);
    assert_int_equal(bytes_of(SQ_W_I4_G64, 512, 1536) * 8 * 2, 512 * 1536 * 9); /* 4.5 bits per weight */
}

static void sizes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    uint64_t n = 7;
    for (int t = 0; t < SQ_W_COUNT; t++) {
        assert_false(sq_weight_bytes(t, 0, 64, &n));
        assert_false(sq_weight_bytes(t, 16, 0, &n));
        assert_false(sq_weight_bytes(t, -1, 64, &n));
        assert_false(sq_weight_bytes(t, 16, (int64_t)INT32_MAX + 1, &n));
        assert_false(sq_weight_bytes(t, (int64_t)INT32_MAX + 1, 16, &n));
        assert_false(sq_weight_bytes(t, INT64_MAX, INT64_MAX, &n));
    }
    assert_false(sq_weight_bytes(SQ_W_COUNT, 16, 64, &n));
    assert_true(sq_weight_bytes(SQ_W_F32, INT32_MAX, INT32_MAX, &n)); /* 2^64 - 2^34 + 4 fits */
    assert_true(n == UINT64_C(4) * INT32_MAX * INT32_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_names_and_widths),
        cmocka_unit_test(a_matrix_knows_its_groups_and_tiles),
        cmocka_unit_test(sizes_count_padding_and_scales),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests_name("quant_types", tests, NULL, NULL);
}
