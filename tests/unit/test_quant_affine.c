/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_affine.c - rtn against files MLX made, lsq against its promises, degenerate groups against both;
 * 2, 3 and 4 bits, importance, ternary codes. */
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void (*quantiser)(const float *, int32_t, sq_scale_type, uint8_t *, uint16_t *, uint16_t *);

/* Sum of squared errors of a decoded group, in f64. */
static double error_of(quantiser fn, const float *w, int32_t n, sq_scale_type st) {
    uint8_t codes[64];
    uint16_t scale, bias;
    double sum = 0;
    fn(w, n, st, codes, &scale, &bias);
    float s = sq_scale_to_f32(st, scale), b = sq_scale_to_f32(st, bias);
    assert_true(isfinite(s) && isfinite(b));
    for (int32_t i = 0; i < n; i++) {
        assert_true(codes[i] <= 15);
        double e = (double)w[i] - (double)(s * (float)codes[i] + b);
        sum += e * e;
    }
    return sum;
}

static double uniform(uint64_t *seed) { return (double)(sq_splitmix64(seed) >> 11) * 0x1p-53; }

static double gaussian(uint64_t *seed) {
    double r = sqrt(-2 * log(1 - uniform(seed)));
    return r * cos(6.283185307179586 * uniform(seed));
}

/* ---- MLX ------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *data;
    size_t bytes, at;
} golden;

static const uint8_t *take(golden *g, size_t n) {
    assert_true(g->at + n <= g->bytes);
    g->at += n;
    return g->data + g->at - n;
}

static golden read_golden(void) {
    golden g = {0};
    FILE *f = fopen("tests/golden/quant/mlx_int4.bin", "rb");
    assert_non_null(f);
    g.data = malloc(200000);
    g.bytes = fread(g.data, 1, 200000, f);
    fclose(f);
    return g;
}

static void check_group(const float *w, const uint8_t *want, sq_scale_type st, uint16_t scale,
                        uint16_t bias) {
    uint8_t codes[64];
    uint16_t s, b;
    sq_quant_i4_rtn(w, 64, st, codes, &s, &b);
    assert_int_equal(s, scale);
    assert_int_equal(b, bias);
    for (int i = 0; i < 64; i++) assert_int_equal(codes[i], want[i / 2] >> 4 * (i % 2) & 15);
}

static void rtn_equals_mlx_bit_by_bit(void **state) {
    (void)state;
    static const sq_wtype types[] = {SQ_W_F32, SQ_W_F16, SQ_W_BF16};
    golden g = read_golden();
    for (int t = 0; t < 3; t++) {
        size_t size = t == 0 ? 4 : 2;
        uint32_t groups;
        memcpy(&groups, take(&g, 4), 4);
        assert_int_equal(groups, 134);
        for (uint32_t k = 0; k < groups; k++) {
            float w[64];
            sq_row_to_f32(types[t], take(&g, 64 * size), 64, w);
            const uint8_t *codes = take(&g, 32), *scale = take(&g, size), *bias = take(&g, size);
            uint16_t s, b;
            if (t == 0) { /* MLX keeps f32 scales here; ours are its numbers rounded once */
                float sf, bf;
                memcpy(&sf, scale, 4);
                memcpy(&bf, bias, 4);
                check_group(w, codes, SQ_SCALE_F16, sq_f32_to_f16(sf), sq_f32_to_f16(bf));
                check_group(w, codes, SQ_SCALE_BF16, sq_f32_to_bf16(sf), sq_f32_to_bf16(bf));
            } else {
                memcpy(&s, scale, 2);
                memcpy(&b, bias, 2);
                check_group(w, codes, t == 1 ? SQ_SCALE_F16 : SQ_SCALE_BF16, s, b);
            }
        }
    }
    assert_int_equal(g.at, g.bytes);
    free(g.data);
}

/* ---- degenerate groups ----------------------------------------------------------------------- */

static void equal_weights_come_back_exactly(void **state) {
    (void)state;
    static const float values[] = {0, 0.5f, -0.5f, 1.0f, -3.25f, 0x1p-14f, 1000, -0x1p10f};
    quantiser both[] = {sq_quant_i4_rtn, sq_quant_i4_lsq};
    for (size_t v = 0; v < SQ_COUNT(values); v++) {
        float w[64];
        for (int i = 0; i < 64; i++) w[i] = values[v];
        for (int n = 1; n <= 64; n += 9) {
            for (int m = 0; m < 2; m++) {
                assert_true(error_of(both[m], w, n, SQ_SCALE_F16) == 0);
                assert_true(error_of(both[m], w, n, SQ_SCALE_BF16) == 0);
            }
        }
    }
}

static void a_group_on_a_grid_of_sixteen_comes_back_exactly(void **state) {
    (void)state;
    float w[64];
    for (int i = 0; i < 64; i++) w[i] = 0.125f * (float)(i % 16) - 0.5f;
    for (int n = 16; n <= 64; n += 16) {
        assert_true(error_of(sq_quant_i4_rtn, w, n, SQ_SCALE_BF16) == 0);
        assert_true(error_of(sq_quant_i4_lsq, w, n, SQ_SCALE_BF16) == 0);
    }
}

static void rtn_maps_zero_to_zero(void **state) {
    (void)state;
    uint64_t seed = 5;
    for (int k = 0; k < 200; k++) {
        float w[64];
        for (int i = 0; i < 64; i++) w[i] = (float)(gaussian(&seed) * 0.02);
        w[17] = 0;
        uint8_t codes[64];
        uint16_t scale, bias;
        sq_quant_i4_rtn(w, 64, SQ_SCALE_BF16, codes, &scale, &bias);
        float s = sq_bf16_to_f32(scale), b = sq_bf16_to_f32(bias), v = s * codes[17] + b;
        assert_true(fabsf(v) <= fabsf(b) * 0x1p-7f); /* what rounding to 8 bits leaves */
    }
}

static void edges_are_kept_by_rtn(void **state) {
    (void)state;
    float w[3] = {-0.75f, 0.1f, 0.5f};
    uint8_t codes[3];
    uint16_t scale, bias;
    sq_quant_i4_rtn(w, 3, SQ_SCALE_BF16, codes, &scale, &bias);
    assert_int_equal(bias, sq_f32_to_bf16(-0.75f)); /* the larger edge; the scale points away from it */
    assert_int_equal(codes[0], 0);
    assert_true(sq_bf16_to_f32(scale) > 0);
    w[2] = 2;
    sq_quant_i4_rtn(w, 3, SQ_SCALE_BF16, codes, &scale, &bias);
    assert_int_equal(bias, sq_f32_to_bf16(2));
    assert_int_equal(codes[2], 0);
    assert_true(sq_bf16_to_f32(scale) < 0);
}

static void overflow_of_f16_is_held_finite(void **state) {
    (void)state;
    const float w[4] = {-3e6f, 3e6f, 0, 100}, wide[2] = {-3e38f, 3e38f};
    uint8_t codes[4];
    uint16_t scale, bias;
    sq_quant_i4_rtn(w, 4, SQ_SCALE_F16, codes, &scale, &bias);
    assert_int_equal(scale, 0xFBFF); /* -375000 */
    assert_int_equal(bias, 0x7BFF);
    double rtn = error_of(sq_quant_i4_rtn, w, 4, SQ_SCALE_F16);
    assert_true(error_of(sq_quant_i4_lsq, w, 4, SQ_SCALE_F16) <= rtn);
    assert_true(isfinite(error_of(sq_quant_i4_rtn, wide, 2, SQ_SCALE_BF16)));
    assert_true(isfinite(error_of(sq_quant_i4_lsq, wide, 2, SQ_SCALE_BF16)));
}

static void weights_that_are_not_numbers_give_codes_in_range(void **state) {
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    quantiser both[] = {sq_quant_i4_rtn, sq_quant_i4_lsq};
    for (int k = 0; k < 8; k++) {
        float w[64];
        for (int i = 0; i < 64; i++) w[i] = k == 7 ? NAN : i % 7 <= k ? odd[(i + k) % 3] : 0.01f * (float)i;
        for (int m = 0; m < 2; m++) {
            uint8_t codes[64];
            uint16_t scale, bias;
            both[m](w, 64, SQ_SCALE_BF16, codes, &scale, &bias);
            for (int i = 0; i < 64; i++) assert_true(codes[i] <= 15);
        }
    }
}

/* ---- least squares --------------------------------------------------------------------------- */

/* One weight of many kinds of group, from even to hopeless. */
static double sample(int kind, uint64_t *seed) {
    double g = gaussian(seed), u = uniform(seed);
    switch (kind) {
    case 0: return 0.02 * g;
    case 1: return 0.02 * log(1 - u) * (g < 0 ? -1 : 1);
    case 2: return u < 0.6 ? 0 : 0.02 * g;
    case 3: return u < 0.03 ? g : 0.02 * g;
    case 4: return 5 + 0.001 * g;
    case 5: return -fabs(g);
    case 6: return u;
    case 7: return g < 0 ? -1 : 1;
    case 8: return 1e-6 * g;
    case 9: return 1e-38 * g;
    case 10: return 1e4 * g;
    case 11: return g * pow(10, -8 * u);
    default: return u < 0.02 ? 1 : 0;
    }
}

static void lsq_never_errs_more_than_rtn(void **state) {
    (void)state;
    uint64_t seed = 77;
    static const int32_t lengths[] = {64, 1, 2, 3, 15, 16, 17, 36, 63};
    for (int kind = 0; kind <= 12; kind++) {
        for (int k = 0; k < 180; k++) {
            float w[64];
            int32_t n = lengths[k % SQ_COUNT(lengths)];
            for (int i = 0; i < n; i++) w[i] = (float)sample(kind, &seed);
            for (int st = SQ_SCALE_F16; st <= SQ_SCALE_BF16; st++) {
                assert_true(error_of(sq_quant_i4_lsq, w, n, st) <= error_of(sq_quant_i4_rtn, w, n, st));
            }
        }
    }
}

static double snr_db(quantiser fn, sq_scale_type st) {
    uint64_t seed = 2024;
    double signal = 0, noise = 0;
    for (int g = 0; g < 512 * 1536 / 64; g++) {
        float w[64];
        for (int i = 0; i < 64; i++) {
            w[i] = sq_bf16_to_f32(sq_f32_to_bf16((float)(0.02 * gaussian(&seed))));
            signal += (double)w[i] * w[i];
        }
        noise += error_of(fn, w, 64, st);
    }
    return 10 * log10(signal / noise);
}

/* N(0, 0.02) as 512 x 1536 in bf16: measured 20.81 and 21.79 dB. */
static void lsq_gains_one_decibel_on_gaussian_weights(void **state) {
    (void)state;
    for (int st = SQ_SCALE_F16; st <= SQ_SCALE_BF16; st++) {
        double rtn = snr_db(sq_quant_i4_rtn, st), lsq = snr_db(sq_quant_i4_lsq, st);
        assert_true(rtn > 20.75 && rtn < 20.90);
        assert_true(lsq > 21.70);
        assert_true(lsq - rtn > 0.9);
    }
}

static void lsq_gains_where_one_weight_stands_out(void **state) {
    (void)state;
    uint64_t seed = 9;
    double rtn = 0, lsq = 0;
    for (int g = 0; g < 500; g++) {
        float w[64];
        for (int i = 0; i < 64; i++) w[i] = (float)(0.02 * gaussian(&seed));
        w[g % 64] = 0.09f;
        rtn += error_of(sq_quant_i4_rtn, w, 64, SQ_SCALE_BF16);
        lsq += error_of(sq_quant_i4_lsq, w, 64, SQ_SCALE_BF16);
    }
    assert_true(lsq < 0.85 * rtn);
}

/* The same bytes from every compiler, optimisation level and vector width: a hash of 2000 groups whose
 * weights are made with integers alone. It changes only with the search itself. */
static void lsq_is_the_same_everywhere(void **state) {
    (void)state;
    uint64_t seed = 1, hash = 0xCBF29CE484222325u;
    for (int g = 0; g < 2000; g++) {
        float w[64];
        uint8_t codes[64];
        uint16_t scale, bias;
        int32_t n = g % 5 == 4 ? 1 + g % 64 : 64;
        for (int i = 0; i < n; i++) { /* sum of four uniforms */
            uint64_t x = sq_splitmix64(&seed);
            int32_t sum = (int32_t)(x & 0xFFFF) + (int32_t)(x >> 16 & 0xFFFF) + (int32_t)(x >> 32 & 0xFFFF) +
                          (int32_t)(x >> 48) - 131070;
            w[i] = (float)sum * 0x1p-22f;
        }
        sq_quant_i4_lsq(w, n, g & 1 ? SQ_SCALE_F16 : SQ_SCALE_BF16, codes, &scale, &bias);
        for (int i = 0; i < n; i++) hash = (hash ^ codes[i]) * 0x100000001B3u;
        hash = (hash ^ scale) * 0x100000001B3u;
        hash = (hash ^ bias) * 0x100000001B3u;
    }
    assert_true(hash == 0x82F8E525FFF3C1BCu);
}

/* ---- other widths, importance, ternary ------------------------------------------------------- */

static double affine_error(int bits, sq_quant_method m, const float *w, const float *h, int n,
                           sq_scale_type st, bool weighted) {
    uint8_t codes[64];
    uint16_t scale, bias;
    sq_quant_affine(bits, m, w, h, n, st, codes, &scale, &bias);
    const float s = sq_scale_to_f32(st, scale), b = sq_scale_to_f32(st, bias);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        assert_true(codes[i] < 1 << bits);
        const double e = (double)w[i] - (double)(s * (float)codes[i] + b);
        sum += (weighted ? (double)h[i] : 1) * e * e;
    }
    return sum;
}

static void every_width_keeps_its_grid_and_its_order(void **state) {
    (void)state;
    static const int32_t lengths[] = {64, 1, 2, 3, 15, 16, 31, 32, 33, 63};
    uint64_t seed = 12;
    for (int bits = 2; bits <= 4; bits++) {
        float w[64];
        for (int i = 0; i < 64; i++) w[i] = 0.125f * (float)(i % (1 << bits)) - 0.25f;
        assert_true(affine_error(bits, SQ_QUANT_RTN, w, NULL, 64, SQ_SCALE_BF16, false) == 0);
        assert_true(affine_error(bits, SQ_QUANT_LSQ, w, NULL, 64, SQ_SCALE_BF16, false) == 0);
        for (int k = 0; k < 1300; k++) {
            const int32_t n = lengths[k / 13 % SQ_COUNT(lengths)];
            const sq_scale_type st = k & 1 ? SQ_SCALE_F16 : SQ_SCALE_BF16;
            for (int i = 0; i < n; i++) w[i] = (float)sample(k % 13, &seed);
            assert_true(affine_error(bits, SQ_QUANT_LSQ, w, NULL, n, st, false) <=
                        affine_error(bits, SQ_QUANT_RTN, w, NULL, n, st, false));
        }
    }
}

static void lsq_reaches_its_signal_to_noise_at_every_width(void **state) {
    (void)state;
    static const double want[] = {9.8, 15.6, 21.6};
    for (int bits = 2; bits <= 4; bits++) {
        uint64_t seed = 31;
        double signal = 0, noise = 0;
        for (int g = 0; g < 4000; g++) {
            float w[64];
            for (int i = 0; i < 64; i++) {
                w[i] = sq_bf16_to_f32(sq_f32_to_bf16((float)(0.02 * gaussian(&seed))));
                signal += (double)w[i] * w[i];
            }
            noise += affine_error(bits, SQ_QUANT_LSQ, w, NULL, 64, SQ_SCALE_BF16, false);
        }
        assert_true(10 * log10(signal / noise) >= want[bits - 2]);
    }
}

static void importance_lowers_the_error_that_is_weighted(void **state) {
    (void)state;
    uint64_t seed = 8;
    for (int bits = 2; bits <= 4; bits++) {
        double plain = 0, weighted = 0;
        for (int g = 0; g < 400; g++) {
            float w[64], h[64];
            const int n = g % 4 ? 64 : 1 + g % 63;
            for (int i = 0; i < n; i++) {
                w[i] = (float)(0.02 * gaussian(&seed));
                h[i] = (float)exp(2 * gaussian(&seed));
            }
            const double ours = affine_error(bits, SQ_QUANT_LSQ, w, h, n, SQ_SCALE_BF16, true);
            uint8_t codes[64];
            uint16_t scale, bias;
            sq_quant_affine(bits, SQ_QUANT_RTN, w, NULL, n, SQ_SCALE_BF16, codes, &scale, &bias);
            double rtn = 0, lsq = 0;
            for (int m = 0; m < 2; m++) {
                sq_quant_affine(bits, m, w, NULL, n, SQ_SCALE_BF16, codes, &scale, &bias);
                for (int i = 0; i < n; i++) {
                    const float v = sq_bf16_to_f32(scale) * (float)codes[i] + sq_bf16_to_f32(bias);
                    *(m == SQ_QUANT_RTN ? &rtn : &lsq) += h[i] * ((double)w[i] - v) * ((double)w[i] - v);
                }
            }
            assert_true(ours <= rtn * (1 + 1e-12));
            plain += lsq;
            weighted += ours;
        }
        assert_true(weighted < 0.8 * plain);
    }
}

/* Only ratios count, and what cannot be a weight is as if there were none. */
static void importance_of_any_size_will_do(void **state) {
    (void)state;
    static const float factors[] = {1, 0x1p-120f, 0x1p100f};
    uint64_t seed = 21;
    float w[64], h[64];
    uint8_t first[64], codes[64];
    uint16_t scale, bias, scale0, bias0;
    for (int i = 0; i < 64; i++) w[i] = (float)(0.02 * gaussian(&seed));
    for (size_t f = 0; f < SQ_COUNT(factors); f++) {
        for (int i = 0; i < 64; i++) h[i] = factors[f] * (float)(1 + i % 5);
        sq_quant_affine(3, SQ_QUANT_LSQ, w, h, 64, SQ_SCALE_F16, f ? codes : first, &scale, &bias);
        if (f == 0) scale0 = scale, bias0 = bias;
        else assert_memory_equal(codes, first, 64);
        assert_true(scale == scale0 && bias == bias0);
    }
    sq_quant_affine(3, SQ_QUANT_LSQ, w, NULL, 64, SQ_SCALE_F16, first, &scale0, &bias0);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 64; i++) h[i] = k ? INFINITY : 0;
        sq_quant_affine(3, SQ_QUANT_LSQ, w, h, 64, SQ_SCALE_F16, codes, &scale, &bias);
        assert_memory_equal(codes, first, 64);
        assert_true(scale == scale0 && bias == bias0);
    }
}

static void ternary_codes_are_rounded_and_held(void **state) {
    (void)state;
    const float w[] = {0, 0.5f, 0.51f, 1.5f, 9, -0.5f, -0.51f, -1.5f, -9, NAN, INFINITY, -INFINITY};
    const uint8_t want[] = {1, 1, 2, 2, 2, 1, 0, 0, 0, 1, 2, 0};
    uint8_t codes[200];
    sq_quant_ternary(w, SQ_COUNT(want), 1, codes);
    assert_memory_equal(codes, want, sizeof want);
    sq_quant_ternary(w, SQ_COUNT(want), 0, codes);
    for (size_t i = 0; i < SQ_COUNT(want); i++) assert_int_equal(codes[i], 1);
    float row[200];
    for (int i = 0; i < 200; i++) row[i] = 0.02f * (float)(i % 3 - 1);
    for (int n = 1; n <= 200; n += 33) {
        memset(codes, 9, sizeof codes);
        sq_quant_ternary(row, n, 0.02f, codes);
        for (int i = 0; i < 200; i++) assert_int_equal(codes[i], i < n ? i % 3 : 9);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rtn_equals_mlx_bit_by_bit),
        cmocka_unit_test(equal_weights_come_back_exactly),
        cmocka_unit_test(a_group_on_a_grid_of_sixteen_comes_back_exactly),
        cmocka_unit_test(rtn_maps_zero_to_zero),
        cmocka_unit_test(edges_are_kept_by_rtn),
        cmocka_unit_test(overflow_of_f16_is_held_finite),
        cmocka_unit_test(weights_that_are_not_numbers_give_codes_in_range),
        cmocka_unit_test(lsq_never_errs_more_than_rtn),
        cmocka_unit_test(lsq_gains_one_decibel_on_gaussian_weights),
        cmocka_unit_test(lsq_gains_where_one_weight_stands_out),
        cmocka_unit_test(lsq_is_the_same_everywhere),
        cmocka_unit_test(every_width_keeps_its_grid_and_its_order),
        cmocka_unit_test(lsq_reaches_its_signal_to_noise_at_every_width),
        cmocka_unit_test(importance_lowers_the_error_that_is_weighted),
        cmocka_unit_test(importance_of_any_size_will_do),
        cmocka_unit_test(ternary_codes_are_rounded_and_held),
    };
    return cmocka_run_group_tests_name("quant_affine", tests, NULL, NULL);
}
