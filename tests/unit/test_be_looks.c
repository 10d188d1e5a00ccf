/* SPDX-License-Identifier: Apache-2.0
 *
 * test_be_looks.c - how much queries look at each token, against the formula in double; and tokens that are
 * copied out of open and sealed tiles. */
#include "backend/backend.h"
#include "kernels/kernels.h"
#include "support/model_run.h"

#include <math.h>

enum { D = 32, HEADS = 4, KV = 2, GROUP = HEADS / KV, TILES = 4, ROWS = 21, POS = 75, LOOKED = 2, LD = 160 };

static sq_backend *backend;
static uint8_t *open_pages[TILES], *sealed_pages[TILES];
static const uint8_t all_open[TILES] = {1, 1, 1, 1},
                     mixed[TILES] = {SQ_KV_READ_OPEN, SQ_KV_READ_SEALED, SQ_KV_READ_SEALED, SQ_KV_READ_OPEN};
static sq_attn_shape shape = {
    .n_heads = HEADS, .n_kv_heads = KV, .head_dim = D, .scale = 1, .open = {64, 64 + D * 64, 2 * D * 64}};
static float keys[KV][TILES * 32][D], values[KV][TILES * 32][D];

static float some(uint64_t *rng) { return (float)(int32_t)(sq_splitmix64(rng) & 0xffff) / 32768.0f - 1.0f; }

static uint16_t *tile_of(int32_t t, int32_t h, bool v) {
    return (uint16_t *)(void *)(open_pages[t] + 64 + (size_t)h * 2 * D * 64 + (v ? D * 64 : 0));
}

/* Tiles of random rows, open and sealed: keys in 8 bits, values in 4. */
static int make(void **state) {
    (void)state;
    uint64_t rng = 1;
    sq_kernels k;
    sq_kernels_select(&k, 0, SQ_ISA_COUNT);
    const size_t kb = sq_align_up(sq_kv_k_bytes(SQ_KV_Q8, D), 64),
                 vb = sq_align_up(sq_kv_v_bytes(SQ_KV_Q4, D), 64);
    for (int32_t t = 0; t < TILES; t++) {
        open_pages[t] = aligned_alloc(64, 64 + 2 * KV * D * 64);
        sealed_pages[t] = aligned_alloc(64, 64 + KV * (kb + vb));
        const sq_kv_page_header h = {.k_fmt = SQ_KV_Q8, .v_fmt = SQ_KV_Q4, .d = D};
        memcpy(sealed_pages[t], &h, sizeof h);
        for (int32_t head = 0; head < KV; head++) {
            for (int32_t i = 0; i < 32; i++)
                for (int32_t c = 0; c < D; c++) {
                    const uint16_t a = sq_f32_to_f16(some(&rng) + (c == 3 ? 5 : 0)),
                                   b = sq_f32_to_f16(some(&rng));
                    tile_of(t, head, false)[c * 32 + i] = a, tile_of(t, head, true)[i * D + c] = b;
                    keys[head][t * 32 + i][c] = sq_f16_to_f32(a),
                                        values[head][t * 32 + i][c] = sq_f16_to_f32(b);
                }
            uint8_t *out = sealed_pages[t] + 64 + (size_t)head * (kb + vb);
            const sq_kv_seal_args a = {
                D, SQ_KV_Q8, SQ_KV_Q4, tile_of(t, head, false), tile_of(t, head, true), out, out + kb};
            k.kv_seal(&a);
        }
    }
    const squish_alloc alloc = sq_alloc_default();
    const sq_backend_options o = {.threads = 2,
                                  .isa_max = SQ_ISA_COUNT,
                                  .m_max = 64,
                                  .heads_max = HEADS,
                                  .kv_heads_max = KV,
                                  .head_dim_max = D,
                                  .ctx_max = TILES * 32};
    squish_error err = {0};
    assert_ok(sq_backend_cpu_new(&backend, &o, &alloc, &err), &err);
    return 0;
}

static int unmake(void **state) {
    (void)state;
    for (int32_t t = 0; t < TILES; t++) free(open_pages[t]), free(sealed_pages[t]);
    sq_backend_free(backend);
    return 0;
}

/* Rows POS.. of queries. */
static void *queries(sq_rows *q) {
    uint64_t rng = 7;
    void *memory = sq_backend_alloc(backend, sq_rows_bytes(ROWS, HEADS * D, false));
    sq_rows_carve(q, ROWS, HEADS * D, false, memory);
    q->m = ROWS;
    for (size_t i = 0; i < (size_t)ROWS; i++)
        for (size_t c = 0; c < HEADS * D; c++) q->f[i * sq_rows_ld(q) + c] = some(&rng);
    return memory;
}

static void looks_of(const sq_rows *q, const uint8_t *reads, int32_t step, float *looks) {
    float scratch[2 * ROWS * HEADS];
    memset(looks, 0, KV * LD * sizeof *looks);
    for (int32_t at = 0; at < ROWS; at += step) { /* steps of rows, as a prompt is cut */
        const int32_t n = ROWS - at < step ? ROWS - at : step;
        const sq_attn_seg seg = {.row0 = at,
                                 .n_rows = n,
                                 .pos0 = POS + at,
                                 .prompt = true,
                                 .pages = open_pages,
                                 .sealed = sealed_pages,
                                 .reads = reads};
        sq_be_attn_looks(backend, &shape, &seg, 0, n, q, LOOKED, scratch, looks, LD);
    }
}

static void looks_are_the_largest_probabilities(void **state) {
    (void)state;
    sq_rows q;
    void *memory = queries(&q);
    float looks[KV * LD], again[KV * LD], coded[KV * LD];
    looks_of(&q, all_open, ROWS, looks);
    looks_of(&q, all_open, 4, again);
    assert_memory_equal(looks, again, sizeof looks);
    looks_of(&q, mixed, ROWS, coded);
    for (int32_t h = 0; h < KV; h++) {
        double want[TILES * 32] = {0};
        for (int32_t i = 0; i < ROWS; i++)
            for (int32_t g = 0; g < GROUP; g++) {
                const float *row = q.f + (size_t)i * sq_rows_ld(&q) + (size_t)(h * GROUP + g) * D;
                double s[TILES * 32], sum = 0;
                for (int32_t t = 0; t <= POS + i; t++) {
                    s[t] = 0;
                    for (int32_t c = 0; c < D; c++) s[t] += (double)row[c] * (double)keys[h][t][c];
                    sum += exp(s[t]);
                }
                for (int32_t t = 0; t < LOOKED * 32; t++) want[t] = fmax(want[t], exp(s[t]) / sum);
            }
        for (int32_t t = 0; t < LOOKED * 32; t++) {
            assert_true(fabs((double)looks[h * LD + t] - want[t]) <= 1e-4 * want[t]);
            assert_true(fabs((double)coded[h * LD + t] - want[t]) <= 0.05 * want[t]);
        }
        for (int32_t t = LOOKED * 32; t < LD; t++) assert_true(looks[h * LD + t] == 0.0f);
    }
    sq_backend_release(backend, memory, sq_rows_bytes(ROWS, HEADS * D, false));
}

/* From open tiles bit by bit; from sealed ones within half a step: of a range of 2 in 8 bits for keys, in 4
 * for values. */
static void what_is_gathered_is_what_stands_there(void **state) {
    (void)state;
    int32_t slots[KV][64];
    uint8_t *to[2];
    for (int i = 0; i < 2; i++) to[i] = aligned_alloc(64, 64 + 2 * KV * D * 64);
    for (int32_t i = 0; i < 64; i++) slots[0][i] = 2 * i, slots[1][i] = i < 40 ? i : i + 64;
    for (int from_sealed = 0; from_sealed < 2; from_sealed++) {
        sq_be_attn_gather(backend, &shape, open_pages, sealed_pages, from_sealed ? mixed : all_open, slots[0],
                          64, to);
        for (int32_t h = 0; h < KV; h++)
            for (int32_t i = 0; i < 64; i++) {
                const uint16_t *k =
                    (const uint16_t *)(const void *)(to[i / 32] + 64 + (size_t)h * 2 * D * 64);
                const int32_t t = slots[h][i];
                const bool coded = from_sealed && mixed[t / 32] == SQ_KV_READ_SEALED;
                for (int32_t c = 0; c < D; c++) {
                    const float dk = sq_f16_to_f32(k[c * 32 + i % 32]) - keys[h][t][c],
                                dv = sq_f16_to_f32(k[D * 32 + i % 32 * D + c]) - values[h][t][c];
                    assert_true(fabsf(dk) <= (coded ? 0.009f : 0.0f) && fabsf(dv) <= (coded ? 0.07f : 0.0f));
                }
            }
    }
    for (int i = 0; i < 2; i++) free(to[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(looks_are_the_largest_probabilities),
                                       cmocka_unit_test(what_is_gathered_is_what_stands_there)};
    return cmocka_run_group_tests(tests, make, unmake);
}
