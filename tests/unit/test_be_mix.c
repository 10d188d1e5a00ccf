/* SPDX-License-Identifier: Apache-2.0
 *
 * test_be_mix.c - key tiles with bits by channel: classes, what is kept exactly, what within half a step,
 * which channels get the bits, and the way through 8 bits. */
#include "backend/be_int.h"
#include "support/model_run.h"

#include <math.h>

enum { TILE = SQ_KV_TILE };

static const int32_t widths[] = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256};
static uint64_t rng = 99;

static float unit(void) { return (float)(int32_t)(sq_splitmix64(&rng) & 0xffff) / 32768.0f - 1.0f; }

typedef struct {
    sq_attn_shape s;
    _Alignas(64) uint16_t k[SQ_MIX_D_MAX * TILE], back[SQ_MIX_D_MAX * TILE];
    float weight[SQ_MIX_D_MAX];
    _Alignas(64) uint8_t tile[SQ_MIX_D_MAX * TILE * 2], q8[SQ_MIX_D_MAX * TILE * 2];
    sq_kernels kn;
} fixture;
static fixture x;

static void make(int32_t d, int32_t f) {
    x.s = (sq_attn_shape){.n_heads = 2, .n_kv_heads = 1, .head_dim = d};
    sq_kernels_select(&x.kn, sq_cpu_features(), SQ_ISA_COUNT);
    for (int32_t c = 0; c < d; c++) x.weight[c] = fabsf(unit()) + 0.01f;
    for (int32_t i = 0; i < d * TILE; i++) x.k[i] = sq_f32_to_f16(unit() + (i / TILE % 7 == 0 ? 9.0f : 0.0f));
    sq_be_mix_seal(&x.kn, &x.s, x.k, f, x.weight, x.tile);
    sq_be_mix_open(x.tile, f, d, x.back);
}

static float at(const uint16_t *k, int32_t c, int32_t t) { return sq_f16_to_f32(k[c * TILE + t]); }

static void classes_are_the_shares_of_the_table(void **state) {
    (void)state;
    const sq_mix_classes a = sq_mix_classes_of(SQ_KV_MIX, 64), b = sq_mix_classes_of(SQ_KV_MIX, 128);
    const sq_mix_classes lean = sq_mix_classes_of(SQ_KV_LEAN, 128);
    assert_true(a.high == 6 && a.mid == 26 && a.low == 32);
    assert_true(b.high == 12 && b.mid == 52 && b.low == 64);
    assert_true(lean.high == 4 && lean.mid == 12 && lean.low == 112);
    assert_int_equal(sq_kv_key_bytes(SQ_KV_MIX, 128), 128 + 768 + 1024 + 704);
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int32_t f = SQ_KV_MIX; f <= SQ_KV_LEAN; f++) {
            const sq_mix_classes c = sq_mix_classes_of(f, widths[w]);
            assert_true(c.high >= 0 && c.mid >= 0 && c.low >= 8 && c.high + c.mid + c.low == widths[w]);
            assert_true(sq_kv_key_bytes(f, widths[w]) <= sizeof x.tile);
        }
}

/* Each channel once; high ones as they were, the others within half a step of their range. */
static void channels_are_what_their_class_says(void **state) {
    (void)state;
    for (size_t w = 0; w < SQ_COUNT(widths); w++)
        for (int32_t f = SQ_KV_MIX; f <= SQ_KV_LEAN; f++) {
            const int32_t d = widths[w];
            const sq_mix_classes n = sq_mix_classes_of(f, d);
            uint8_t seen[SQ_MIX_D_MAX] = {0};
            make(d, f);
            for (int32_t i = 0; i < d; i++) {
                const int32_t c = x.tile[i], most = i < n.high ? 0 : i < n.high + n.mid ? 15 : 3;
                float lo = 1e9f, hi = -1e9f;
                assert_true(c < d && seen[c]++ == 0);
                for (int32_t t = 0; t < TILE; t++)
                    lo = fminf(lo, at(x.k, c, t)), hi = fmaxf(hi, at(x.k, c, t));
                for (int32_t t = 0; t < TILE; t++) {
                    const float off = fabsf(at(x.back, c, t) - at(x.k, c, t));
                    assert_true(most ? off <= 0.6f * (hi - lo) / (float)most + 0.02f : off == 0.0f);
                }
            }
        }
}

static void bits_go_where_queries_and_ranges_are_large(void **state) {
    (void)state;
    make(64, SQ_KV_MIX);
    for (int32_t c = 0; c < 64; c++) x.weight[c] = c % 32 == 5 ? 50.0f : 1.0f; /* 5 and its mate 37 */
    for (int32_t t = 0; t < TILE; t++) x.k[20 * TILE + t] = sq_f32_to_f16(t % 2 ? 60.0f : -60.0f);
    sq_be_mix_seal(&x.kn, &x.s, x.k, SQ_KV_MIX, x.weight, x.tile);
    bool five = false, mate = false, wide = false;
    for (int32_t i = 0; i < 6; i++) five |= x.tile[i] == 5, mate |= x.tile[i] == 37, wide |= x.tile[i] == 20;
    assert_true(five && mate && wide);
}

static void the_way_through_8_bits_adds_little(void **state) {
    (void)state;
    make(128, SQ_KV_MIX);
    sq_be_mix_to_q8(&x.kn, x.tile, SQ_KV_MIX, 128, x.q8);
    static uint16_t again[SQ_MIX_D_MAX * TILE];
    sq_be_mix_open(x.q8, SQ_KV_Q8, 128, again);
    for (int32_t c = 0; c < 128; c++) {
        float lo = 1e9f, hi = -1e9f;
        for (int32_t t = 0; t < TILE; t++) lo = fminf(lo, at(x.back, c, t)), hi = fmaxf(hi, at(x.back, c, t));
        for (int32_t t = 0; t < TILE; t++)
            assert_true(fabsf(at(again, c, t) - at(x.back, c, t)) <= 0.6f * (hi - lo) / 255.0f + 0.01f);
    }
}

/* The running mean follows a constant query, whatever the heads that share its keys. */
static void weights_are_running_means(void **state) {
    (void)state;
    float memory[2 * 64], weight[64] = {0};
    x.s = (sq_attn_shape){.n_heads = 2, .n_kv_heads = 1, .head_dim = 64};
    for (int32_t c = 0; c < 128; c++) memory[c] = c < 64 ? 3.0f : -1.0f;
    sq_rows q = {.m = 1, .m_max = 1, .cols = 128, .groups = 2, .f = memory};
    const sq_attn_seg seg = {.n_rows = 1};
    for (int i = 0; i < 2000; i++) sq_be_attn_weigh(&x.s, &seg, 0, 1, &q, weight);
    for (int32_t c = 0; c < 64; c++) assert_true(fabsf(weight[c] - 2.0f) < 1e-3f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_the_shares_of_the_table),
        cmocka_unit_test(channels_are_what_their_class_says),
        cmocka_unit_test(bits_go_where_queries_and_ranges_are_large),
        cmocka_unit_test(the_way_through_8_bits_adds_little),
        cmocka_unit_test(weights_are_running_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
