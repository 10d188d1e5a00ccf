/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_encode.c - `encode` of every ISA this machine has gives the bytes of sq_row_to_f32 and
 * sq_quant_tile: every type, source and awkward size, rows unaligned and apart, weights from even to
 * hopeless. `compare` reads them back and measures them to the bits of sq_weight_row and sq_fidelity_row. */
#include "kernels/kernels.h"

#include "support/kernel_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOAT = 64, COLS_MAX = 300, ROW_BYTES = COLS_MAX * 4 + 3 };

/* Finite numbers of all kinds: even, spread over many powers of two, mostly 0, on a grid, far from 0, any
 * bits. */
static void fill_rows(uint8_t *rows, sq_wtype src, int kind, uint64_t seed) {
    for (int i = 0; i < 16 * COLS_MAX; i++) {
        const uint64_t x = sq_splitmix64(&seed);
        float f = (float)((int32_t)(x >> 40) - (1 << 23)) * 0x1p-28f;
        if (kind == 1) f *= sq_bf16_to_f32((uint16_t)(0x3000 + (x & 0x1F00))); /* 2^-31 .. 2 */
        if (kind == 2 && (x & 7)) f = 0;
        if (kind == 3) f = 0.125f * (float)(x % 16) - 0.5f;
        if (kind == 4) f = 0.03f + f * 0x1p-6f;
        uint8_t *at = rows + i / COLS_MAX * ROW_BYTES + i % COLS_MAX * (src == SQ_W_F32 ? 4 : 2);
        uint16_t h = src == SQ_W_F16 ? sq_f32_to_f16(f) : sq_f32_to_bf16(f);
        if (kind == 5) h = (uint16_t)((x & 0x7800) == 0x7800 ? x ^ 0x4000 : x);
        if (kind == 5) f = sq_bf16_to_f32(h);
        if (src == SQ_W_F32)
            memcpy(at, &f, 4);
        else
            memcpy(at, &h, 2);
    }
}

/* The tile read back and measured: the bits of sq_weight_row and sq_fidelity_row. */
static void check_compare(const sq_kernels *k, sq_weight made, const uint8_t *tile, const float *w) {
    made.data = tile;
    if (sq_wtype_get(made.wtype)->layout != SQ_LAYOUT_T16X4) return;
    sq_fidelity want = {0}, got = {0};
    for (int r = 0; r < made.rows; r++) {
        float expected[COLS_MAX], back[COLS_MAX + 1];
        back[made.cols] = -7;
        sq_weight_row(&made, r, expected);
        sq_fidelity_row(&want, w + r * made.cols, expected, made.cols);
        k->compare(&made, r, w + r * made.cols, back, &got);
        assert_memory_equal(back, expected, (size_t)made.cols * sizeof *back);
        assert_true(back[made.cols] == -7);
    }
    assert_memory_equal(&got, &want, sizeof got);
}

static void check(const sq_kernels *k, const sq_encoding *e, sq_wtype src, const uint8_t *rows, int n_rows,
                  int cols) {
    static float w[16 * COLS_MAX];
    const sq_weight shape = sq_weight_make(e->type, e->scale, n_rows, cols, NULL);
    uint8_t *want = calloc(1, shape.tile_bytes), *block = malloc(shape.tile_bytes + 2 * MOAT + 1);
    for (int r = 0; r < n_rows; r++) sq_row_to_f32(src, rows + r * ROW_BYTES, cols, w + r * cols);
    sq_quant_tile(e, w, (size_t)cols, n_rows, cols, want);
    memset(block, 0, shape.tile_bytes + 2 * MOAT + 1);
    memset(block, 0xA5, MOAT + 1);
    memset(block + MOAT + 1 + shape.tile_bytes, 0xA5, MOAT);
    k->encode(e, src, rows, ROW_BYTES, n_rows, cols, block + MOAT + 1);
    assert_memory_equal(block + MOAT + 1, want, shape.tile_bytes);
    for (int i = 0; i < MOAT; i++) {
        assert_int_equal(block[i], 0xA5);
        assert_int_equal(block[MOAT + 1 + shape.tile_bytes + (size_t)i], 0xA5);
    }
    check_compare(k, shape, want, w);
    free(want);
    free(block);
}

static sq_encoding encoding_of(sq_wtype t, int i, const float *importance) {
    const sq_wtype_info *info = sq_wtype_get(t);
    sq_encoding e = {.type = t, .scale = i & 1 ? SQ_SCALE_F16 : SQ_SCALE_BF16};
    if (!info->halves) e.scale = SQ_SCALE_F32;
    e.method = i & 2 ? SQ_QUANT_LSQ : SQ_QUANT_RTN;
    if (i % 3 == 0) e.importance = importance;
    if (t == SQ_W_T2_ROW) e.gamma = i % 5 ? 0.012f : 0;
    return e;
}

static void check_table(const sq_kernels *k) {
    static const int cols[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 300};
    static uint8_t block[16 * ROW_BYTES + 1];
    float importance[COLS_MAX];
    for (int i = 0; i < COLS_MAX; i++) importance[i] = 0.5f + (float)(i * 7 % 13);
    int turn = 0;
    for (int src = SQ_W_F32; src <= SQ_W_BF16; src++) {
        for (int kind = 0; kind <= 5; kind++) {
            fill_rows(block + 1, src, kind, (uint64_t)(10 * src + kind));
            for (int t = SQ_W_F32; t <= SQ_W_T2_ROW; t++) {
                for (size_t c = 0; c < SQ_COUNT(cols); c++, turn++) {
                    const sq_encoding e = encoding_of(t, turn, importance);
                    check(k, &e, src, block + 1, turn % 4 == 3 ? 16 : 1 + turn % 5, cols[c]);
                }
            }
        }
    }
}

static void every_isa_makes_the_same_bytes(void **state) {
    (void)state;
    const sq_test_tables t = sq_test_all_tables();
    check_table(&t.scalar);
    for (int32_t i = 0; i < t.n; i++) check_table(&t.isa[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_makes_the_same_bytes),
    };
    return cmocka_run_group_tests_name("kernels_encode", tests, NULL, NULL);
}
