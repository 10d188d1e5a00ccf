/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_pack.c - plain codes and scales into row tiles: every code at the byte and bit quant.h names,
 * out again unchanged, padding as promised, nothing written outside. */
#include "quant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOAT = 64, COLS_MAX = 300 };

static const sq_wtype types[] = {SQ_W_I8_ROW, SQ_W_I8_G64, SQ_W_I8_G32, SQ_W_I4_G64,
                                 SQ_W_I4_G32, SQ_W_I3_G64, SQ_W_I2_G64, SQ_W_T2_ROW};

/* Code of row r, column k of a record, spelt as in the header. */
static int code_in(sq_wtype t, const uint8_t *rec, int r, int k) {
    const int b = k & 3;
    switch (t) {
    case SQ_W_I4_G64:
    case SQ_W_I4_G32: {
        const int byte = rec[64 * (k % 32 / 4) + 4 * r + b];
        return k < 32 ? byte & 15 : byte >> 4;
    }
    case SQ_W_I3_G64:
    case SQ_W_I2_G64:
    case SQ_W_T2_ROW: {
        const int low = rec[64 * (k % 16 / 4) + 4 * r + b] >> 2 * (k / 16) & 3;
        if (t != SQ_W_I3_G64) return low;
        return low + 4 * (rec[256 + 64 * (k / 32) + 4 * r + b] >> k % 32 / 4 & 1);
    }
    default: return rec[64 * (k / 4) + 4 * r + b];
    }
}

/* Byte of scale j of row r in a tile; biases follow 32 bytes per run later. */
static size_t scale_of(sq_wtype t, int groups, int j, int r) {
    switch (t) {
    case SQ_W_I4_G64: return 576 * (size_t)j + 512 + 2 * (size_t)r;
    case SQ_W_I4_G32: return 640 * (size_t)(j / 2) + 512 + 32 * (size_t)(j % 2) + 2 * (size_t)r;
    case SQ_W_I3_G64: return 448 * (size_t)j + 384 + 2 * (size_t)r;
    case SQ_W_I2_G64: return 320 * (size_t)j + 256 + 2 * (size_t)r;
    case SQ_W_I8_G64:
    case SQ_W_I8_G32: return 1024 * (size_t)groups + 32 * (size_t)j + 2 * (size_t)r;
    case SQ_W_T2_ROW: return 256 * (size_t)groups + 4 * (size_t)r;
    default: return 1024 * (size_t)groups + 4 * (size_t)r;
    }
}

typedef struct {
    int n_rows, cols, runs;
    uint8_t codes[16 * COLS_MAX];
    uint16_t scale[16 * 10], bias[16 * 10];
    float row_scale[16];
} plain;

static void fill(plain *p, sq_wtype t, int n_rows, int cols, uint64_t seed) {
    const sq_wtype_info *info = sq_wtype_get(t);
    memset(p, 0, sizeof *p);
    p->n_rows = n_rows;
    p->cols = cols;
    p->runs = info->sub ? (cols + info->sub - 1) / info->sub : 1;
    for (int i = 0; i < n_rows * cols; i++) {
        const uint32_t x = (uint32_t)(sq_splitmix64(&seed) >> 32);
        p->codes[i] = (uint8_t)(t == SQ_W_T2_ROW ? x % 3 : x & ((1u << info->bits) - 1));
    }
    for (int i = 0; i < n_rows * p->runs; i++) {
        p->scale[i] = (uint16_t)(sq_splitmix64(&seed) % 0x7C00);
        p->bias[i] = (uint16_t)(sq_splitmix64(&seed) % 0x7C00);
    }
    for (int r = 0; r < n_rows; r++) p->row_scale[r] = (float)(r + 1) * 0.25f;
}

static void check_codes(const plain *p, sq_wtype t, const uint8_t *tile, int groups) {
    for (int r = 0; r < 16; r++) {
        for (int k = 0; k < 64 * groups; k++) {
            const int got = code_in(t, tile + (size_t)(k / 64 * sq_wtype_get(t)->record_bytes), r, k % 64);
            const int padding = t == SQ_W_T2_ROW;
            assert_int_equal(got, r < p->n_rows && k < p->cols ? p->codes[r * p->cols + k] : padding);
        }
    }
}

static void check_scales(const plain *p, sq_wtype t, const uint8_t *tile, int groups) {
    const sq_wtype_info *info = sq_wtype_get(t);
    for (int r = 0; r < 16; r++) {
        const bool is = r < p->n_rows;
        if (!info->halves) {
            float f;
            memcpy(&f, tile + scale_of(t, groups, 0, r), sizeof f);
            assert_true(f == (is ? p->row_scale[r] : 0));
        }
        for (int j = 0; info->halves && j < groups * (64 / info->sub); j++) {
            uint16_t s, b = 0;
            const uint8_t *at = tile + scale_of(t, groups, j, r);
            memcpy(&s, at, 2);
            if (info->bias) memcpy(&b, at + (t == SQ_W_I4_G32 ? 64 : 32), 2);
            assert_int_equal(s, is && j < p->runs ? p->scale[r * p->runs + j] : 0);
            assert_int_equal(b, is && j < p->runs && info->bias ? p->bias[r * p->runs + j] : 0);
        }
    }
}

static void check(sq_wtype t, int n_rows, int cols) {
    static plain p, q;
    fill(&p, t, n_rows, cols, (uint64_t)(cols * 17 + n_rows));
    const sq_wtype_info *info = sq_wtype_get(t);
    sq_weight w = sq_weight_make(t, SQ_SCALE_F16, n_rows, cols, NULL);
    uint8_t *block = malloc(w.tile_bytes + 2 * MOAT + 1), *tile = block + MOAT + 1;
    memset(block, 0xA5, w.tile_bytes + 2 * MOAT + 1);
    const void *scale = info->halves ? (const void *)p.scale : p.row_scale;
    sq_tile_pack(t, n_rows, cols, p.codes, scale, info->bias ? p.bias : NULL, tile);
    for (int i = 0; i < MOAT; i++) {
        assert_int_equal(block[i], 0xA5);
        assert_int_equal(tile[w.tile_bytes + (size_t)i], 0xA5);
    }
    check_codes(&p, t, tile, w.groups);
    check_scales(&p, t, tile, w.groups);

    w.data = tile;
    memset(&q, 0xEE, sizeof q);
    sq_tile_unpack(&w, 0, q.codes, info->halves ? (void *)q.scale : q.row_scale, info->bias ? q.bias : NULL);
    assert_memory_equal(q.codes, p.codes, (size_t)(n_rows * cols));
    assert_int_equal(q.codes[n_rows * cols], 0xEE);
    if (info->halves) assert_memory_equal(q.scale, p.scale, 2 * (size_t)(n_rows * p.runs));
    else assert_memory_equal(q.row_scale, p.row_scale, 4 * (size_t)n_rows);
    if (info->bias) assert_memory_equal(q.bias, p.bias, 2 * (size_t)(n_rows * p.runs));
    free(block);
}

static void every_code_and_scale_is_where_the_header_says(void **state) {
    (void)state;
    static const int rows[] = {1, 7, 15, 16}, cols[] = {1, 3, 31, 32, 33, 63, 64, 65, 96, 100, 128, 299};
    for (size_t t = 0; t < SQ_COUNT(types); t++) {
        for (size_t i = 0; i < SQ_COUNT(rows); i++) {
            for (size_t k = 0; k < SQ_COUNT(cols); k++) check(types[t], rows[i], cols[k]);
        }
    }
}

static void the_last_tile_of_a_matrix_gives_the_rows_it_has(void **state) {
    (void)state;
    uint8_t data[2 * SQ_I2_RECORD], codes[2][16 * 40], back[16 * 40];
    uint16_t scale[16], bias[16], s[16], b[16];
    for (int i = 0; i < 16 * 40; i++) {
        codes[0][i] = (uint8_t)(i * 7 & 3);
        codes[1][i] = (uint8_t)(i * 5 / 3 & 3);
    }
    for (int i = 0; i < 16; i++) scale[i] = bias[i] = (uint16_t)(100 + i);
    sq_tile_pack(SQ_W_I2_G64, 16, 40, codes[0], scale, bias, data);
    sq_tile_pack(SQ_W_I2_G64, 3, 40, codes[1], scale, bias, data + SQ_I2_RECORD);
    const sq_weight w = sq_weight_make(SQ_W_I2_G64, SQ_SCALE_BF16, 19, 40, data);
    memset(back, 0xEE, sizeof back);
    sq_tile_unpack(&w, 1, back, s, b);
    assert_memory_equal(back, codes[1], 3 * 40);
    assert_int_equal(back[3 * 40], 0xEE);
    assert_memory_equal(s, scale, 6);
    assert_memory_equal(b, bias, 6);
    sq_tile_unpack(&w, 0, back, s, b);
    assert_memory_equal(back, codes[0], 16 * 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_and_scale_is_where_the_header_says),
        cmocka_unit_test(the_last_tile_of_a_matrix_gives_the_rows_it_has),
    };
    return cmocka_run_group_tests_name("quant_pack", tests, NULL, NULL);
}
