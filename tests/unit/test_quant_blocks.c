/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_blocks.c - weights of others: GGUF blocks against values of the gguf package, bit by bit, and
 * codes as kernels take them against values. */
#include "quant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { TYPES = SQ_W_TQ2_0 - SQ_W_Q4_0 + 1, COLS = 512 };

static sq_map golden;

static int open_golden(void **state) {
    (void)state;
    return sq_os_map_open(&golden, "tests/golden/quant/gguf_blocks.bin", NULL);
}

static int close_golden(void **state) {
    (void)state;
    sq_os_map_close(&golden);
    return 0;
}

/* Row and values of type i. */
static sq_weight row_of(int i, float values[COLS]) {
    const uint8_t *p = golden.data;
    for (int k = 0;; k++) {
        uint32_t head[3];
        memcpy(head, p, sizeof head);
        assert_int_equal(head[0], k);
        assert_int_equal(head[1], COLS);
        p += sizeof head;
        if (k == i) {
            memcpy(values, p + head[2], COLS * sizeof *values);
            const sq_weight w = sq_weight_make((sq_wtype)(SQ_W_Q4_0 + i), SQ_SCALE_F16, 1, COLS, p);
            assert_int_equal(w.tile_bytes, 16 * head[2]);
            return w;
        }
        p += head[2] + COLS * sizeof(float);
    }
}

static void blocks_have_the_values_of_the_gguf_package(void **state) {
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        float want[COLS], got[COLS];
        const sq_weight w = row_of(i, want);
        sq_weight_row(&w, 0, got);
        if (memcmp(want, got, sizeof want) != 0)
            fail_msg("%s differs", sq_wtype_get((sq_wtype)w.wtype)->name);
    }
}

static void unpacked_codes_times_scales_are_the_values(void **state) {
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        float want[COLS];
        const sq_weight w = row_of(i, want);
        const sq_wtype_info *t = sq_wtype_get((sq_wtype)w.wtype);
        for (int32_t k0 = 0; k0 < COLS; k0 += SQ_PANEL) {
            int8_t codes[SQ_PANEL];
            float scale[16] = {0}, bias[16] = {0};
            sq_row_unpack(&w, 0, k0, codes, scale, bias);
            for (int32_t k = 0; k < SQ_PANEL; k++) {
                const float v = scale[k / t->sub] * (float)codes[k];
                assert_true((t->bias ? v + bias[k / t->sub] : v) == want[k0 + k]);
            }
        }
    }
}

static void affine_codes_are_a_bit_stream(void **state) {
    (void)state;
    static const int32_t bits[] = {2, 3, 4, 5, 6, 8};
    uint8_t stream[64], code[64];
    float got[64];
    const float scales[2] = {0.5f, -0.25f}, biases[2] = {1.0f, 3.0f};
    for (size_t b = 0; b < SQ_COUNT(bits); b++) {
        memset(stream, 0, sizeof stream);
        for (int32_t k = 0; k < 64; k++) {
            code[k] = (uint8_t)((k * 37 + 11) & ((1 << bits[b]) - 1));
            for (int32_t j = 0; j < bits[b]; j++) {
                const int32_t at = k * bits[b] + j;
                stream[at / 8] = (uint8_t)(stream[at / 8] | (code[k] >> j & 1) << at % 8);
            }
        }
        const sq_weight w = sq_weight_affine(SQ_CODES_UNSIGNED, bits[b], 32, SQ_SCALE_F32, 1, 64, stream,
                                             (const uint8_t *)scales, (const uint8_t *)biases);
        sq_weight_row(&w, 0, got);
        for (int32_t k = 0; k < 64; k++)
            assert_true(got[k] == scales[k / 32] * (float)code[k] + biases[k / 32]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_have_the_values_of_the_gguf_package),
        cmocka_unit_test(unpacked_codes_times_scales_are_the_values),
        cmocka_unit_test(affine_codes_are_a_bit_stream),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
