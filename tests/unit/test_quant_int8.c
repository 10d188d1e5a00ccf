/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_int8.c - symmetric 8-bit codes: the scale, the ties, the error bound, the corners of the
 * formats. */
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void ties_go_to_even_and_the_largest_becomes_127(void **state) {
    (void)state;
    const float w[8] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -126.5f};
    const int8_t want[8] = {127, 0, 2, 2, 0, -2, -2, -126};
    int8_t codes[8];
    uint16_t bits;
    float scale;
    sq_quant_i8_row(w, 8, codes, &scale);
    assert_true(scale == 1.0f);
    assert_memory_equal(codes, want, 8);
    sq_quant_i8_g64(w, 8, SQ_SCALE_BF16, codes, &bits);
    assert_int_equal(bits, 0x3F80);
    assert_memory_equal(codes, want, 8);
    sq_quant_i8_g64(w, 8, SQ_SCALE_F16, codes, &bits);
    assert_int_equal(bits, 0x3C00);
    assert_memory_equal(codes, want, 8);
}

static void a_negative_largest_becomes_minus_127_never_minus_128(void **state) {
    (void)state;
    for (int e = -30; e <= 30; e++) {
        float w[2] = {-ldexpf(1.2345678f, e), ldexpf(0.3f, e)}, scale;
        int8_t codes[2];
        sq_quant_i8_row(w, 2, codes, &scale);
        assert_int_equal(codes[0], -127);
        assert_true(scale == ldexpf(1.2345678f, e) / 127.0f);
    }
}

static void zeros_have_scale_and_codes_zero(void **state) {
    (void)state;
    float w[64] = {0}, scale = 1;
    w[3] = -0.0f;
    int8_t codes[64], zero[64] = {0};
    uint16_t bits = 1;
    memset(codes, 5, sizeof codes);
    sq_quant_i8_row(w, 64, codes, &scale);
    assert_true(scale == 0);
    assert_memory_equal(codes, zero, 64);
    memset(codes, 5, sizeof codes);
    sq_quant_i8_g64(w, 64, SQ_SCALE_F16, codes, &bits);
    assert_int_equal(bits, 0);
    assert_memory_equal(codes, zero, 64);
}

/* Half a scale bounds the error for every size of weight a format's scales can express, down to subnormal
 * scales. The slack is the rounding of w / scale and of scale * code in f32. */
static void half_a_scale_bounds_the_error(void **state) {
    (void)state;
    uint64_t seed = 11;
    for (int e = -140; e <= 100; e++) {
        for (int st = SQ_SCALE_F16; st <= SQ_SCALE_F32; st++) {
            if (st == SQ_SCALE_F16 && (e > 20 || e < -40)) continue;
            for (int n = 1; n <= 64; n += n < 10 ? 1 : 18) {
                float w[64], scale;
                int8_t codes[64];
                uint16_t bits = 0;
                for (int i = 0; i < n; i++) {
                    double u = (double)(sq_splitmix64(&seed) >> 11) * 0x1p-52 - 1;
                    w[i] = (float)ldexp(u, e);
                }
                if (st == SQ_SCALE_F32) sq_quant_i8_row(w, n, codes, &scale);
                else {
                    sq_quant_i8_g64(w, n, st, codes, &bits);
                    scale = sq_scale_to_f32(st, bits);
                }
                for (int i = 0; i < n; i++) {
                    double err = fabs((double)w[i] - (double)scale * codes[i]);
                    assert_true(err <= (double)scale * (0.5 + 127 * 0x1p-23));
                    assert_true(codes[i] >= -127);
                }
            }
        }
    }
}

static void scales_that_round_down_to_nothing_are_raised(void **state) {
    (void)state;
    int8_t codes[2];
    uint16_t bits;
    float scale, tiny[2] = {0x1p-149f, -0x1p-149f * 60}, small[2] = {1e-6f, -3e-7f};
    sq_quant_i8_row(tiny, 2, codes, &scale); /* 60 / 127 of the smallest float rounds to 0 */
    assert_true(scale == 0x1p-149f);
    assert_int_equal(codes[0], 1);
    assert_int_equal(codes[1], -60);
    sq_quant_i8_g64(small, 2, SQ_SCALE_F16, codes, &bits);
    assert_int_equal(bits, 1);
    assert_int_equal(codes[0], 17); /* 1e-6 / 2^-24 = 16.8 */
    assert_int_equal(codes[1], -5);
}

static void scales_beyond_f16_are_held_at_its_end(void **state) {
    (void)state;
    const float w[3] = {3e7f, -1e6f, 65504.0f * 3};
    int8_t codes[3];
    uint16_t bits;
    sq_quant_i8_g64(w, 3, SQ_SCALE_F16, codes, &bits);
    assert_int_equal(bits, 0x7BFF);
    assert_int_equal(codes[0], 127);
    assert_int_equal(codes[1], -15);
    assert_int_equal(codes[2], 3);
}

static void weights_that_are_not_numbers_do_no_harm(void **state) {
    (void)state;
    const float w[6] = {NAN, 1, -INFINITY, INFINITY, -NAN, 0};
    int8_t codes[6];
    uint16_t bits;
    float scale;
    sq_quant_i8_row(w, 6, codes, &scale);
    for (int i = 0; i < 6; i++) assert_true(codes[i] >= -127);
    sq_quant_i8_g64(w, 6, SQ_SCALE_BF16, codes, &bits);
    assert_int_equal(bits, 0x7F7F);
    assert_int_equal(codes[1], 0);
    assert_int_equal(codes[3], 127);
}

static void rows_of_any_length_are_coded_whole(void **state) {
    (void)state;
    static const int lengths[] = {1, 7, 8, 9, 63, 64, 65, 100, 1536};
    static float w[1536];
    for (int i = 0; i < 1536; i++) w[i] = (float)(i % 255 - 127);
    for (size_t k = 0; k < SQ_COUNT(lengths); k++) {
        int n = lengths[k];
        int8_t codes[1537];
        float scale;
        memset(codes, 99, sizeof codes);
        sq_quant_i8_row(w, n, codes, &scale); /* w[0] = -127 is the largest in every prefix */
        assert_true(scale == 1.0f);
        for (int i = 0; i < n; i++) assert_int_equal(codes[i], i % 255 - 127);
        assert_int_equal(codes[n], 99);
    }
    w[1535] = 254; /* the last one counts */
    int8_t codes[1536];
    float scale;
    sq_quant_i8_row(w, 1536, codes, &scale);
    assert_true(scale == 2.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ties_go_to_even_and_the_largest_becomes_127),
        cmocka_unit_test(a_negative_largest_becomes_minus_127_never_minus_128),
        cmocka_unit_test(zeros_have_scale_and_codes_zero),
        cmocka_unit_test(half_a_scale_bounds_the_error),
        cmocka_unit_test(scales_that_round_down_to_nothing_are_raised),
        cmocka_unit_test(scales_beyond_f16_are_held_at_its_end),
        cmocka_unit_test(weights_that_are_not_numbers_do_no_harm),
        cmocka_unit_test(rows_of_any_length_are_coded_whole),
    };
    return cmocka_run_group_tests_name("quant_int8", tests, NULL, NULL);
}
