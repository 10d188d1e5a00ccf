/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_tile.c - row tiles: every byte where quant.h says, padding zero, nothing written outside. */
#include "quant/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOAT = 64, LD = 300 };

static float *make_rows(uint64_t seed) {
    float *w = malloc(sizeof(float) * 16 * LD);
    for (int i = 0; i < 16 * LD; i++) {
        w[i] = (float)((int32_t)(sq_splitmix64(&seed) >> 40) - (1 << 23)) * 0x1p-28f;
    }
    return w;
}

typedef struct {
    uint8_t *block, *tile; /* tile lies at an odd address between two moats */
    sq_weight w;
} packed;

static packed pack(sq_wtype t, sq_scale_type st, sq_quant_method m, const float *w, int n_rows, int cols) {
    packed p = {0};
    p.w = sq_weight_make(t, st, n_rows, cols, NULL);
    p.block = malloc(p.w.tile_bytes + 2 * MOAT + 1);
    memset(p.block, 0xA5, p.w.tile_bytes + 2 * MOAT + 1);
    p.tile = p.block + MOAT + 1;
    const sq_encoding e = {.type = t, .scale = st, .method = m};
    sq_quant_tile(&e, w, LD, n_rows, cols, p.tile);
    p.w.data = p.tile;
    for (int i = 0; i < MOAT; i++) {
        assert_int_equal(p.block[i], 0xA5);
        assert_int_equal(p.tile[p.w.tile_bytes + (size_t)i], 0xA5);
    }
    return p;
}

static uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static void check_int4(sq_quant_method m, sq_scale_type st, const float *w, int n_rows, int cols) {
    packed p = pack(SQ_W_I4_G64, st, m, w, n_rows, cols);
    int groups = (cols + 63) / 64;
    for (int r = 0; r < 16; r++) {
        for (int g = 0; g < groups; g++) {
            const uint8_t *rec = p.tile + 576 * (size_t)g;
            uint8_t codes[64] = {0};
            uint16_t scale = 0, bias = 0;
            int n = cols - 64 * g < 64 ? cols - 64 * g : 64;
            const float *from = w + LD * r + 64 * g;
            if (r < n_rows && m == SQ_QUANT_RTN) sq_quant_i4_rtn(from, n, st, codes, &scale, &bias);
            if (r < n_rows && m == SQ_QUANT_LSQ) sq_quant_i4_lsq(from, n, st, codes, &scale, &bias);
            for (int c = 0; c < 8; c++) {
                for (int b = 0; b < 4; b++) {
                    int byte = codes[4 * c + b] | codes[32 + 4 * c + b] << 4;
                    assert_int_equal(rec[64 * c + 4 * r + b], byte);
                }
            }
            assert_int_equal(u16_at(rec + 512 + 2 * r), scale);
            assert_int_equal(u16_at(rec + 544 + 2 * r), bias);
        }
    }
    free(p.block);
}

static void int4_tiles_have_every_byte_in_its_place(void **state) {
    (void)state;
    static const int rows[] = {1, 15, 16}, cols[] = {1, 31, 32, 33, 63, 64, 65, 100, 128, 300};
    float *w = make_rows(3);
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(cols); k++) {
            check_int4(SQ_QUANT_RTN, SQ_SCALE_BF16, w, rows[i], cols[k]);
            check_int4(SQ_QUANT_LSQ, SQ_SCALE_F16, w, rows[i], cols[k]);
        }
    }
    free(w);
}

static void check_int8(sq_wtype t, sq_scale_type st, const float *w, int n_rows, int cols) {
    packed p = pack(t, st, SQ_QUANT_RTN, w, n_rows, cols);
    int groups = (cols + 63) / 64;
    const uint8_t *scales = p.tile + 1024 * (size_t)groups;
    for (int r = 0; r < 16; r++) {
        int8_t row[LD + 64] = {0};
        float row_scale = 0, stored;
        if (r < n_rows && t == SQ_W_I8_ROW) sq_quant_i8_row(w + LD * r, cols, row, &row_scale);
        if (t == SQ_W_I8_ROW) {
            memcpy(&stored, scales + 4 * r, 4);
            assert_true(stored == row_scale);
        }
        for (int g = 0; g < groups; g++) {
            int n = cols - 64 * g < 64 ? cols - 64 * g : 64;
            if (t == SQ_W_I8_G64) {
                uint16_t scale = 0;
                if (r < n_rows) sq_quant_i8_g64(w + LD * r + 64 * g, n, st, row + 64 * g, &scale);
                assert_int_equal(u16_at(scales + 32 * g + 2 * r), scale);
            }
            for (int k = 0; k < 64; k++) {
                int byte = p.tile[1024 * g + 64 * (k / 4) + 4 * r + k % 4];
                assert_int_equal((int8_t)byte, row[64 * g + k]);
            }
        }
    }
    if (t == SQ_W_I8_G64 && groups % 2) { /* an odd number of groups leaves half a line */
        for (int i = 0; i < 32; i++) assert_int_equal(scales[32 * groups + i], 0);
    }
    free(p.block);
}

static void int8_tiles_have_every_byte_in_its_place(void **state) {
    (void)state;
    static const int rows[] = {1, 15, 16}, cols[] = {1, 3, 63, 64, 65, 100, 128, 192, 300};
    float *w = make_rows(4);
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        for (size_t k = 0; k < SQ_COUNT(cols); k++) {
            check_int8(SQ_W_I8_ROW, SQ_SCALE_F32, w, rows[i], cols[k]);
            check_int8(SQ_W_I8_G64, SQ_SCALE_F16, w, rows[i], cols[k]);
            check_int8(SQ_W_I8_G64, SQ_SCALE_BF16, w, rows[i], cols[k]);
        }
    }
    free(w);
}

/* ---- the other types: what the quantisers of groups say, packed ------------------------------- */

static void quantise_runs(const sq_encoding *e, const float *row, int cols, uint8_t *codes, uint16_t *scale,
                          uint16_t *bias) {
    const int sub = sq_wtype_get(e->type)->sub, bits = sq_wtype_get(e->type)->bits;
    for (int k = 0, j = 0; k < cols; k += sub, j++) {
        const int n = cols - k < sub ? cols - k : sub;
        const float *h = e->importance ? e->importance + k : NULL;
        if (bits == 8) sq_quant_i8_g64(row + k, n, e->scale, (int8_t *)codes + k, scale + j);
        else sq_quant_affine(bits, e->method, row + k, h, n, e->scale, codes + k, scale + j, bias + j);
    }
}

static void check_against_pack(const sq_encoding *e, const float *w, int n_rows, int cols) {
    static uint8_t codes[16 * LD], want[16 * LD * 4];
    static uint16_t scale[16 * LD], bias[16 * LD];
    const sq_wtype_info *info = sq_wtype_get(e->type);
    const int runs = info->sub ? (cols + info->sub - 1) / info->sub : 1;
    float gamma[16];
    for (int r = 0; r < n_rows; r++) {
        gamma[r] = e->gamma;
        const float *row = w + LD * r;
        if (info->sub) quantise_runs(e, row, cols, codes + r * cols, scale + r * runs, bias + r * runs);
        else sq_quant_ternary(row, cols, e->gamma, codes + r * cols);
    }
    const void *scales = info->halves ? (void *)scale : gamma;
    sq_tile_pack(e->type, n_rows, cols, codes, scales, info->bias ? bias : NULL, want);

    const sq_weight shape = sq_weight_make(e->type, e->scale, n_rows, cols, NULL);
    uint8_t *block = malloc(shape.tile_bytes + 2 * MOAT + 1), *tile = block + MOAT + 1;
    memset(block, 0xA5, shape.tile_bytes + 2 * MOAT + 1);
    sq_quant_tile(e, w, LD, n_rows, cols, tile);
    assert_memory_equal(tile, want, shape.tile_bytes);
    for (int i = 0; i < MOAT; i++) {
        assert_int_equal(block[i], 0xA5);
        assert_int_equal(tile[shape.tile_bytes + (size_t)i], 0xA5);
    }
    free(block);
}

static void tiles_hold_what_the_quantisers_of_groups_say(void **state) {
    (void)state;
    static const sq_wtype types[] = {SQ_W_I4_G64, SQ_W_I4_G32, SQ_W_I8_G64, SQ_W_I8_G32,
                                     SQ_W_I3_G64, SQ_W_I2_G64, SQ_W_T2_ROW};
    static const int rows[] = {1, 15, 16}, cols[] = {1, 31, 32, 33, 64, 65, 96, 97, 128, 300};
    float *w = make_rows(6), importance[LD];
    for (int i = 0; i < LD; i++) importance[i] = 0.1f + (float)(i * 7 % 11);
    for (size_t t = 0; t < SQ_COUNT(types); t++) {
        for (size_t i = 0; i < SQ_COUNT(rows); i++) {
            for (size_t k = 0; k < SQ_COUNT(cols); k++) {
                sq_encoding e = {.type = types[t], .scale = k & 1 ? SQ_SCALE_F16 : SQ_SCALE_BF16};
                if (types[t] == SQ_W_T2_ROW) e.scale = SQ_SCALE_F32, e.gamma = 0.015f;
                check_against_pack(&e, w, rows[i], cols[k]);
                e.method = SQ_QUANT_LSQ;
                e.importance = k % 3 ? importance : NULL;
                check_against_pack(&e, w, rows[i], cols[k]);
            }
        }
    }
    free(w);
}

static void floating_point_rows_are_rounded_once(void **state) {
    (void)state;
    enum { COLS = 100 };
    float *w = make_rows(7);
    uint8_t out[3 * COLS * 4 + 4];
    for (int t = SQ_W_F32; t <= SQ_W_BF16; t++) {
        const sq_encoding e = {.type = t};
        const int unit = t == SQ_W_F32 ? 4 : 2;
        memset(out, 0xA5, sizeof out);
        sq_quant_tile(&e, w, LD, 3, COLS, out);
        for (int r = 0; r < 3; r++) {
            for (int k = 0; k < COLS; k++) {
                const float x = w[LD * r + k];
                const uint8_t *at = out + (r * COLS + k) * unit;
                if (t == SQ_W_F32) assert_memory_equal(at, &x, 4);
                else assert_int_equal(u16_at(at), t == SQ_W_F16 ? sq_f32_to_f16(x) : sq_f32_to_bf16(x));
            }
        }
        assert_int_equal(out[3 * COLS * unit], 0xA5);
    }
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int4_tiles_have_every_byte_in_its_place),
        cmocka_unit_test(int8_tiles_have_every_byte_in_its_place),
        cmocka_unit_test(tiles_hold_what_the_quantisers_of_groups_say),
        cmocka_unit_test(floating_point_rows_are_rounded_once),
    };
    return cmocka_run_group_tests_name("quant_tile", tests, NULL, NULL);
}
