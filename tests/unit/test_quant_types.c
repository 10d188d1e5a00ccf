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
        const char *name;
        int32_t bits, record, block_bytes, sub;
        bool packed, bias, halves;
    } want[] = {
        {"f32", 32, 0, 0, 0, false, false, false},
        {"f16", 16, 0, 0, 0, false, false, false},
        {"bf16", 16, 0, 0, 0, false, false, false},
        {"int8-row", 8, 1024, 0, 0, true, false, false},
        {"int8-g64", 8, 1024, 0, 64, true, false, true},
        {"int4-g64", 4, 576, 0, 64, true, true, true},
        {"int4-g32", 4, 640, 0, 32, true, true, true},
        {"int8-g32", 8, 1024, 0, 32, true, false, true},
        {"int3-g64", 3, 448, 0, 64, true, true, true},
        {"int2-g64", 2, 320, 0, 64, true, true, true},
        {"ternary", 2, 256, 0, 0, true, false, false},
        {"q4_0", 4, 0, 18, 32, false, false, false},
        {"q4_1", 4, 0, 20, 32, false, true, false},
        {"q5_0", 5, 0, 22, 32, false, false, false},
        {"q5_1", 5, 0, 24, 32, false, true, false},
        {"q8_0", 8, 0, 34, 32, false, false, false},
        {"q2_k", 2, 0, 84, 16, false, true, false},
        {"q3_k", 3, 0, 110, 16, false, false, false},
        {"q4_k", 4, 0, 144, 32, false, true, false},
        {"q5_k", 5, 0, 176, 32, false, true, false},
        {"q6_k", 6, 0, 210, 16, false, false, false},
        {"tq1_0", 2, 0, 54, 32, false, false, false},
        {"tq2_0", 2, 0, 66, 32, false, false, false},
        {"affine", 0, 0, 0, 32, false, true, false},
    };
    assert_int_equal(SQ_COUNT(want), SQ_W_COUNT);
    for (int t = 0; t < SQ_W_COUNT; t++) {
        const sq_wtype_info *info = sq_wtype_get(t);
        assert_string_equal(info->name, want[t].name);
        assert_int_equal(info->bits, want[t].bits);
        assert_int_equal(sq_wtype_packed(t), want[t].packed);
        assert_int_equal(info->layout == SQ_LAYOUT_FOREIGN, t >= SQ_W_Q4_0);
        assert_int_equal(info->record_bytes, want[t].record);
        assert_int_equal(info->block_bytes, want[t].block_bytes);
        assert_int_equal(info->block, !want[t].block_bytes ? 0 : t <= SQ_W_Q8_0 ? 32 : 256);
        assert_int_equal(info->sub, want[t].sub);
        assert_int_equal(info->bias, want[t].bias);
        assert_int_equal(info->halves, want[t].halves);
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
    assert_int_equal(bytes_of(SQ_W_I4_G32, 512, 1536) * 8, 512 * 1536 * 5);
    assert_int_equal(bytes_of(SQ_W_I3_G64, 512, 1536) * 8 * 2, 512 * 1536 * 7);
    assert_int_equal(bytes_of(SQ_W_I2_G64, 512, 1536) * 8 * 2, 512 * 1536 * 5);
    assert_int_equal(bytes_of(SQ_W_I8_G32, 17, 65), 2 * (2 * 1024 + 4 * 32));
    assert_int_equal(bytes_of(SQ_W_T2_ROW, 16, 65), 2 * 256 + 64);
    assert_int_equal(bytes_of(SQ_W_Q4_0, 3, 64), 3 * 2 * 18); /* rows of blocks have no padding */
    assert_int_equal(bytes_of(SQ_W_Q6_K, 17, 512), 17 * 2 * 210);
}

static void sizes_that_make_no_sense_are_refused(void **state) {
    (void)state;
    uint64_t n = 7;
    for (int t = 0; t < SQ_W_COUNT; t++) {
        const int block = sq_wtype_get(t)->block;
        if (block > 0) {
            assert_false(sq_weight_bytes(t, 16, block + 1, &n));
            assert_false(sq_weight_bytes(t, 16, block - 16, &n));
        }
        assert_false(sq_weight_bytes(t, 0, 64, &n));
        assert_false(sq_weight_bytes(t, 16, 0, &n));
        assert_false(sq_weight_bytes(t, -1, 64, &n));
        assert_false(sq_weight_bytes(t, 16, (int64_t)INT32_MAX + 1, &n));
        assert_false(sq_weight_bytes(t, (int64_t)INT32_MAX + 1, 16, &n));
        assert_false(sq_weight_bytes(t, INT64_MAX, INT64_MAX, &n));
    }
    assert_false(sq_weight_bytes(SQ_W_COUNT, 16, 64, &n));
    assert_false(sq_weight_bytes(SQ_W_AFFINE, 16, 256, &n));
    assert_true(sq_weight_bytes(SQ_W_F32, INT32_MAX, INT32_MAX, &n)); /* 2^64 - 2^34 + 4 fits */
    assert_true(n == UINT64_C(4) * INT32_MAX * INT32_MAX);
}

static void an_affine_view_knows_its_strides(void **state) {
    (void)state;
    static uint8_t bytes[3];
    sq_weight w =
        sq_weight_affine(SQ_CODES_UNSIGNED, 3, 64, SQ_SCALE_BF16, 40, 320, bytes, bytes + 1, bytes + 2);
    assert_int_equal(w.wtype, SQ_W_AFFINE);
    assert_int_equal(w.groups, 5);
    assert_int_equal(w.tile_bytes, 16 * 120);
    assert_int_equal(w.side_bytes, 16 * 5 * 2);
    w = sq_weight_affine(SQ_CODES_SIGNED, 8, 0, SQ_SCALE_F32, 40, 96, bytes, bytes + 1, NULL);
    assert_int_equal(w.groups, 2);
    assert_int_equal(w.tile_bytes, 16 * 96);
    assert_int_equal(w.side_bytes, 16 * 4);
}

static void a_slice_is_whole_tiles_of_a_matrix(void **state) {
    (void)state;
    static uint8_t bytes[16 * 4096];
    const sq_lowrank low = {.scale = 1};
    sq_weight w = sq_weight_make(SQ_W_I3_G64, SQ_SCALE_F16, 50, 100, bytes);
    w.low = &low;
    sq_weight part = sq_weight_slice(&w, 1, 2);
    assert_ptr_equal(part.data, bytes + 2 * 448);
    assert_int_equal(part.rows, 32);
    assert_int_equal(part.cols, 100);
    assert_null(part.low);
    assert_int_equal(sq_weight_slice(&w, 2, 2).rows, 18);
    assert_int_equal(sq_weight_slice(&w, 3, 9).rows, 2);
    assert_int_equal(sq_weight_slice(&w, 0, INT32_MAX).rows, 50);
    w = sq_weight_affine(SQ_CODES_UNSIGNED, 4, 32, SQ_SCALE_F16, 33, 64, bytes, bytes + 8192, bytes + 16384);
    part = sq_weight_slice(&w, 2, 1);
    assert_int_equal(part.rows, 1);
    assert_ptr_equal(part.data, bytes + 32 * 32);
    assert_ptr_equal(part.scales, bytes + 8192 + 32 * 4);
    assert_ptr_equal(part.biases, bytes + 16384 + 32 * 4);
    w.biases = NULL;
    assert_null(sq_weight_slice(&w, 1, 1).biases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_names_and_widths),
        cmocka_unit_test(a_matrix_knows_its_groups_and_tiles),
        cmocka_unit_test(sizes_count_padding_and_scales),
        cmocka_unit_test(an_affine_view_knows_its_strides),
        cmocka_unit_test(a_slice_is_whole_tiles_of_a_matrix),
        cmocka_unit_test(sizes_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests_name("quant_types", tests, NULL, NULL);
}
