/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_decode.c - number formats against their definitions, and tiles packed by hand, byte by byte,
 * against the layout written in quant.h. */
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* The value of an f16 by its definition. */
static double f16_defined(uint32_t h) {
    int exp = (int)(h >> 10 & 31), man = (int)(h & 1023);
    double v = exp == 0 ? ldexp(man, -24) : exp == 31 ? (man ? NAN : INFINITY) : ldexp(1024 + man, exp - 25);
    return h & 0x8000 ? -v : v;
}

static void every_f16_decodes_to_its_definition_and_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sq_f16_to_f32((uint16_t)h);
        if (isnan(f16_defined(h))) {
            assert_true(isnan(f));
            assert_int_equal(bits_of(f) >> 31, h >> 15);
            assert_int_equal(sq_f32_to_f16(f), h | 0x200); /* payload kept, made quiet */
        } else {
            assert_true((double)f == f16_defined(h));
            assert_int_equal(bits_of(f) >> 31, h >> 15);
            assert_int_equal(sq_f32_to_f16(f), h);
        }
    }
}

static void every_bf16_is_the_upper_half_of_a_float(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = sq_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), h << 16);
        assert_int_equal(sq_f32_to_bf16(f), isnan(f) ? (h | 0x40) : h);
    }
}

/* Between every two neighbours: just below the middle goes down, just above goes up, the middle goes to even.
 * Both signs; the last interval ends where infinity begins. */
static void f16_rounds_to_nearest_even_everywhere(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7C00; h++) {
        double up = h + 1 == 0x7C00 ? 65536 : f16_defined(h + 1);
        float mid = (float)((f16_defined(h) + up) / 2); /* exact: one bit more than an f16 */
        uint32_t even = h & 1 ? h + 1 : h;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            uint32_t s = sign << 16;
            assert_int_equal(sq_f32_to_f16(float_of(bits_of(mid) | s)), even | sign);
            assert_int_equal(sq_f32_to_f16(float_of((bits_of(mid) - 1) | s)), h | sign);
            assert_int_equal(sq_f32_to_f16(float_of((bits_of(mid) + 1) | s)), (h + 1) | sign);
        }
    }
    assert_int_equal(sq_f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(sq_f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(sq_f32_to_f16(float_of(1)), 0); /* the smallest float */
    assert_int_equal(sq_f32_to_f16(-0.0f), 0x8000);
}

static void bf16_rounds_to_nearest_even_everywhere(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7F80; h++) {
        uint32_t mid = h << 16 | 0x8000, even = h & 1 ? h + 1 : h;
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            assert_int_equal(sq_f32_to_bf16(float_of(mid | sign << 16)), even | sign);
            assert_int_equal(sq_f32_to_bf16(float_of((mid - 1) | sign << 16)), h | sign);
            assert_int_equal(sq_f32_to_bf16(float_of((mid + 1) | sign << 16)), (h + 1) | sign);
        }
    }
    assert_int_equal(sq_f32_to_bf16(float_of(0x7F800001)), 0x7FC0); /* a NaN whose payload lies below bf16 */
    assert_int_equal(sq_f32_to_bf16(float_of(0xFFFFFFFF)), 0xFFFF);
}

static void scales_follow_their_type(void **state) {
    (void)state;
    assert_int_equal(sq_scale_from_f32(SQ_SCALE_F16, 1.5f), 0x3E00);
    assert_int_equal(sq_scale_from_f32(SQ_SCALE_BF16, 1.5f), 0x3FC0);
    assert_true(sq_scale_to_f32(SQ_SCALE_F16, 0x3E00) == 1.5f);
    assert_true(sq_scale_to_f32(SQ_SCALE_BF16, 0x3FC0) == 1.5f);
}

static void source_elements_may_lie_unaligned(void **state) {
    (void)state;
    uint8_t raw[1 + 4 * 3];
    float out[3];
    const float f[3] = {1.5f, -2.25f, 1e-40f};
    memcpy(raw + 1, f, sizeof f);
    sq_row_to_f32(SQ_W_F32, raw + 1, 3, out);
    assert_memory_equal(out, f, sizeof f);
    const uint16_t half[3] = {0x3C00, 0x8001, 0x7BFF}, brain[3] = {0x3F80, 0x8001, 0x4049};
    memcpy(raw + 1, half, sizeof half);
    sq_row_to_f32(SQ_W_F16, raw + 1, 3, out);
    assert_true(out[0] == 1.0f && out[1] == -0x1p-24f && out[2] == 65504.0f);
    memcpy(raw + 1, brain, sizeof brain);
    sq_row_to_f32(SQ_W_BF16, raw + 1, 3, out);
    assert_true(out[0] == 1.0f && bits_of(out[1]) == 0x80010000 && out[2] == 3.140625f);
}

/* Any code for row r, column k: neighbours differ in every direction. */
static int code_at(int r, int k) { return (r * 7 + k * 3 + k / 32 + r * k) % 251; }

static void put_u16(uint8_t *p, float f, sq_scale_type st) {
    uint16_t bits = sq_scale_from_f32(st, f);
    p[0] = (uint8_t)(bits & 255);
    p[1] = (uint8_t)(bits >> 8);
}

enum { ROWS = 33, COLS = 100, TILES = 3, GROUPS = 2 };

static void a_hand_packed_int4_matrix_decodes(void **state) {
    (void)state;
    static uint8_t data[TILES * GROUPS * 576 + 1];
    for (int st = SQ_SCALE_F16; st <= SQ_SCALE_BF16; st++) {
        uint8_t *base = data + 1; /* mappings are aligned, this reader does not ask for it */
        for (int r = 0; r < TILES * 16; r++) {
            for (int g = 0; g < GROUPS; g++) {
                uint8_t *rec = base + ((size_t)(r / 16) * GROUPS + (size_t)g) * 576;
                for (int c = 0; c < 8; c++) {
                    for (int b = 0; b < 4; b++) {
                        int low = code_at(r, 64 * g + 4 * c + b) % 16;
                        int high = code_at(r, 64 * g + 32 + 4 * c + b) % 16;
                        rec[64 * c + 4 * (r % 16) + b] = (uint8_t)(low | high << 4);
                    }
                }
                put_u16(rec + 512 + 2 * (r % 16), 0.5f + (float)r, st);
                put_u16(rec + 544 + 2 * (r % 16), -3.0f * (float)(g + 1), st);
            }
        }
        sq_weight w = sq_weight_make(SQ_W_I4_G64, st, ROWS, COLS, base);
        assert_int_equal(w.tile_bytes, GROUPS * 576);
        for (int r = 0; r < ROWS; r++) {
            float out[COLS + 1];
            out[COLS] = 42;
            sq_weight_row(&w, r, out);
            for (int k = 0; k < COLS; k++) {
                float want = (0.5f + (float)r) * (float)(code_at(r, k) % 16) - 3.0f * (float)(k / 64 + 1);
                assert_true(out[k] == want);
            }
            assert_true(out[COLS] == 42);
        }
    }
}

static void a_hand_packed_int8_matrix_decodes(void **state) {
    (void)state;
    static uint8_t data[TILES * (GROUPS * 1024 + 64)];
    for (int t = SQ_W_I8_ROW; t <= SQ_W_I8_G64; t++) {
        for (int r = 0; r < TILES * 16; r++) {
            uint8_t *tile = data + (size_t)(r / 16) * (GROUPS * 1024 + 64);
            for (int k = 0; k < GROUPS * 64; k++) {
                int code = code_at(r, k) % 255 - 127;
                tile[1024 * (k / 64) + 64 * (k % 64 / 4) + 4 * (r % 16) + k % 4] = (uint8_t)code;
            }
            float scale = 0.25f * (float)(r + 1);
            if (t == SQ_W_I8_ROW) memcpy(tile + GROUPS * 1024 + 4 * (r % 16), &scale, 4);
            for (int g = 0; g < GROUPS && t == SQ_W_I8_G64; g++) {
                put_u16(tile + GROUPS * 1024 + 32 * g + 2 * (r % 16), scale * (float)(g + 1), SQ_SCALE_F16);
            }
        }
        sq_weight w = sq_weight_make(t, t == SQ_W_I8_ROW ? SQ_SCALE_F32 : SQ_SCALE_F16, ROWS, COLS, data);
        assert_int_equal(w.tile_bytes, GROUPS * 1024 + 64);
        for (int r = 0; r < ROWS; r++) {
            float out[COLS];
            sq_weight_row(&w, r, out);
            for (int k = 0; k < COLS; k++) {
                float scale = 0.25f * (float)(r + 1) * (float)(t == SQ_W_I8_G64 ? k / 64 + 1 : 1);
                assert_true(out[k] == scale * (float)(code_at(r, k) % 255 - 127));
            }
        }
    }
}

static void row_major_rows_are_the_source_elements(void **state) {
    (void)state;
    uint16_t brain[ROWS * 3];
    float out[3], plain[ROWS * 3];
    for (int i = 0; i < ROWS * 3; i++) {
        brain[i] = (uint16_t)(0x3F80 + i);
        plain[i] = (float)i;
    }
    sq_weight b = sq_weight_make(SQ_W_BF16, SQ_SCALE_BF16, ROWS, 3, (const uint8_t *)brain);
    sq_weight h = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, ROWS, 3, (const uint8_t *)brain);
    sq_weight f = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, ROWS, 3, (const uint8_t *)plain);
    for (int r = 0; r < ROWS; r++) {
        sq_weight_row(&b, r, out);
        for (int k = 0; k < 3; k++) assert_true(out[k] == sq_bf16_to_f32(brain[3 * r + k]));
        sq_weight_row(&h, r, out);
        for (int k = 0; k < 3; k++) assert_true(out[k] == sq_f16_to_f32(brain[3 * r + k]));
        sq_weight_row(&f, r, out);
        for (int k = 0; k < 3; k++) assert_true(out[k] == plain[3 * r + k]);
    }
}

/* ---- low-rank terms ---------------------------------------------------------------------------- */

static void low_rank_terms_are_added_to_a_whole_row(void **state) {
    (void)state;
    enum { N_ROWS = 3, N_COLS = 70, RANK = 2 };
    float base[N_ROWS * N_COLS], v[RANK * N_COLS], u[N_ROWS * RANK], out[N_COLS], plain[N_COLS];
    uint16_t v16[RANK * N_COLS], u16[N_ROWS * RANK];
    for (int i = 0; i < N_ROWS * N_COLS; i++) base[i] = 0.01f * (float)(i % 37 - 18);
    for (int i = 0; i < RANK * N_COLS; i++)
        v[i] = sq_bf16_to_f32(v16[i] = sq_f32_to_bf16((float)(i % 11) - 5));
    for (int i = 0; i < N_ROWS * RANK; i++) u[i] = sq_f16_to_f32(u16[i] = sq_f32_to_f16(0.3f * (float)i - 1));
    sq_weight w = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, N_ROWS, N_COLS, (const uint8_t *)base);
    const sq_lowrank second = {
        .v = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, 1, N_COLS, (const uint8_t *)v),
        .u = sq_weight_make(SQ_W_F32, SQ_SCALE_F16, N_ROWS, 1, (const uint8_t *)u),
        .scale = -2,
    };
    const sq_lowrank first = {
        .v = sq_weight_make(SQ_W_BF16, SQ_SCALE_F16, RANK, N_COLS, (const uint8_t *)v16),
        .u = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, N_ROWS, RANK, (const uint8_t *)u16),
        .scale = 0.5f,
        .next = &second,
    };
    sq_weight_row_whole(&w, 1, out);
    assert_memory_equal(out, base + N_COLS, sizeof out);
    w.low = &first;
    for (int r = 0; r < N_ROWS; r++) {
        sq_weight_row(&w, r, plain);
        assert_memory_equal(plain, base + r * N_COLS, sizeof plain);
        sq_weight_row_whole(&w, r, out);
        for (int k = 0; k < N_COLS; k++) {
            double want = (double)base[r * N_COLS + k] - 2.0 * (double)u[r] * (double)v[k];
            for (int j = 0; j < RANK; j++) want += 0.5 * (double)u[r * RANK + j] * (double)v[j * N_COLS + k];
            assert_true(fabs((double)out[k] - want) <= 1e-6 * (1 + fabs(want)));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_decodes_to_its_definition_and_comes_back),
        cmocka_unit_test(every_bf16_is_the_upper_half_of_a_float),
        cmocka_unit_test(f16_rounds_to_nearest_even_everywhere),
        cmocka_unit_test(bf16_rounds_to_nearest_even_everywhere),
        cmocka_unit_test(scales_follow_their_type),
        cmocka_unit_test(source_elements_may_lie_unaligned),
        cmocka_unit_test(a_hand_packed_int4_matrix_decodes),
        cmocka_unit_test(a_hand_packed_int8_matrix_decodes),
        cmocka_unit_test(row_major_rows_are_the_source_elements),
        cmocka_unit_test(low_rank_terms_are_added_to_a_whole_row),
    };
    return cmocka_run_group_tests_name("quant_decode", tests, NULL, NULL);
}
