/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_repack.c - codes and scales that come quantised, moved into our order: every value stays what it
 * was. */
#include "forge/forge_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { ROWS = 19, COLS = 320 };

static uint64_t rng = 7;
static uint8_t byte(void) { return (uint8_t)(sq_splitmix64(&rng) >> 24); }
static uint16_t half(void) { return sq_f32_to_f16(((float)byte() - 127.5f) / 1000.0f); }

/* Every row of src equals the row made of its codes. */
static void assert_same_values(const sq_weight *src, sq_wtype want) {
    sq_wtype t = SQ_W_F32;
    sq_scale_type st = SQ_SCALE_F32;
    assert_true(sq_repack_type(src, &t, &st));
    assert_int_equal(t, want);
    const sq_weight shape = sq_weight_make(t, st, src->rows, src->cols, NULL);
    uint8_t *tile = sq_alloc_new(NULL, shape.tile_bytes);
    void *scratch = sq_alloc_new(NULL, sq_repack_scratch(src->cols));
    for (int32_t row0 = 0; row0 < src->rows; row0 += SQ_TILE_ROWS) {
        const int32_t n = src->rows - row0 < SQ_TILE_ROWS ? src->rows - row0 : SQ_TILE_ROWS;
        memset(tile, 0xA5, shape.tile_bytes);
        sq_repack_tile(src, row0, n, t, st, scratch, tile);
        const sq_weight made = sq_weight_make(t, st, n, src->cols, tile);
        for (int32_t r = 0; r < n; r++) {
            float a[COLS], b[COLS];
            sq_weight_row(src, row0 + r, a);
            sq_weight_row(&made, r, b);
            for (int32_t c = 0; c < src->cols; c++)
                if (a[c] != b[c])
                    fail_msg("row %d column %d: %.9g became %.9g", row0 + r, c, (double)a[c], (double)b[c]);
        }
    }
    sq_alloc_free(NULL, tile, shape.tile_bytes);
    sq_alloc_free(NULL, scratch, sq_repack_scratch(src->cols));
}

/* Random blocks: a scale, perhaps a minimum, codes. */
static void fill_blocks(sq_wtype t, uint8_t *p) {
    const int32_t step = sq_wtype_get(t)->block_bytes;
    for (int32_t i = 0; i < ROWS * COLS / 32; i++, p += step) {
        for (int32_t k = 0; k < step; k++) p[k] = t == SQ_W_Q8_0 ? (uint8_t)(byte() | 1) : byte();
        const uint16_t d = half(), m = half();
        memcpy(p, &d, 2);
        if (t == SQ_W_Q4_1) memcpy(p + 2, &m, 2);
    }
}

static void gguf_blocks_keep_their_values(void **state) {
    (void)state;
    static const struct {
        sq_wtype from, to;
    } cases[] = {{SQ_W_Q4_0, SQ_W_I4_G32}, {SQ_W_Q4_1, SQ_W_I4_G32}, {SQ_W_Q8_0, SQ_W_I8_G32}};
    static uint8_t data[ROWS * COLS * 2];
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        fill_blocks(cases[i].from, data);
        const sq_weight w = sq_weight_make(cases[i].from, SQ_SCALE_F16, ROWS, COLS, data);
        assert_same_values(&w, cases[i].to);
    }
}

static void blocks_we_cannot_hold_are_left_alone(void **state) {
    (void)state;
    static uint8_t data[ROWS * COLS * 2];
    sq_wtype t;
    sq_scale_type st;
    fill_blocks(SQ_W_Q4_0, data);
    sq_weight w = sq_weight_make(SQ_W_Q4_0, SQ_SCALE_F16, ROWS, COLS, data);
    const uint16_t large = sq_f32_to_f16(9000.0f);
    memcpy(data + 18 * 5, &large, 2); /* 8 * 9000 is no f16 */
    assert_false(sq_repack_type(&w, &t, &st));
    fill_blocks(SQ_W_Q8_0, data);
    w = sq_weight_make(SQ_W_Q8_0, SQ_SCALE_F16, ROWS, COLS, data);
    data[34 * 7 + 2 + 31] = 0x80;
    assert_false(sq_repack_type(&w, &t, &st));
    w = sq_weight_make(SQ_W_Q5_0, SQ_SCALE_F16, ROWS, COLS, data);
    assert_false(sq_repack_type(&w, &t, &st));
}

static void mlx_groups_keep_their_values(void **state) {
    (void)state;
    static const struct {
        int32_t bits, group;
        sq_wtype to;
    } cases[] = {{4, 64, SQ_W_I4_G64}, {4, 32, SQ_W_I4_G32}, {4, 128, SQ_W_I4_G64},
                 {3, 64, SQ_W_I3_G64}, {2, 64, SQ_W_I2_G64}, {2, 128, SQ_W_I2_G64}};
    static uint8_t codes[ROWS * COLS], scales[ROWS * COLS / 16], biases[ROWS * COLS / 16];
    for (size_t i = 0; i < SQ_COUNT(cases) * 2; i++) {
        const int32_t bits = cases[i / 2].bits, group = cases[i / 2].group;
        const sq_scale_type st = i % 2 ? SQ_SCALE_BF16 : SQ_SCALE_F16;
        const int32_t cols = group == 128 ? 256 : COLS;
        for (size_t k = 0; k < sizeof codes; k++) codes[k] = byte();
        for (size_t k = 0; k < sizeof scales / 2; k++) {
            const uint16_t s = sq_scale_from_f32(st, sq_f16_to_f32(half())),
                           b = sq_scale_from_f32(st, sq_f16_to_f32(half()));
            memcpy(scales + 2 * k, &s, 2), memcpy(biases + 2 * k, &b, 2);
        }
        const sq_weight w =
            sq_weight_affine(SQ_CODES_UNSIGNED, bits, group, st, ROWS, cols, codes, scales, biases);
        assert_same_values(&w, cases[i / 2].to);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_blocks_keep_their_values),
        cmocka_unit_test(blocks_we_cannot_hold_are_left_alone),
        cmocka_unit_test(mlx_groups_keep_their_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
