/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_pq.c - nearest rows of codebooks (R10) on every instruction set: the same rows as scalar, and
 * scalar against distances in double precision. */
#include "support/attn_chunk.h"

static sq_test_tables tables;

enum { MOST = 33, STRIDE = 11 };

static void book_of(int kind, float *book) {
    for (int32_t c = 0; c < SQ_PQ_ROWS; c++) {
        float sum = 0;
        for (int32_t k = 0; k < SQ_PQ_DIMS; k++) {
            /* Noise; few different rows, so that most are equal to another; huge ones; all zero. */
            const float v = kind == 0   ? sq_test_float(&rng)
                            : kind == 1 ? (float)(c % 3 - 1)
                            : kind == 2 ? 1e15f * sq_test_float(&rng)
                                        : 0.0f;
            book[k * SQ_PQ_ROWS + c] = v;
            sum += v * v;
        }
        book[SQ_PQ_DIMS * SQ_PQ_ROWS + c] = 0.5f * sum;
    }
}

/* The distance to row c. */
static double away(const float *x, const float *book, int32_t c) {
    double sum = 0;
    for (int32_t k = 0; k < SQ_PQ_DIMS; k++) {
        const double e = (double)x[k] - (double)book[k * SQ_PQ_ROWS + c];
        sum += e * e;
    }
    return sum;
}

/* No row is nearer than the one named, but for rounding; of equal rows the first is named. */
static void check_scalar(const float *x, const float *book, int kind, uint8_t code) {
    double scale = 1e-30;
    for (int32_t k = 0; k < SQ_PQ_DIMS; k++) {
        scale += (double)x[k] * (double)x[k];
        scale += (double)book[k * SQ_PQ_ROWS + code] * (double)book[k * SQ_PQ_ROWS + code];
    }
    for (int32_t c = 0; c < SQ_PQ_ROWS; c++)
        assert_true(away(x, book, code) <= away(x, book, c) + 1e-5 * scale + (kind == 2 ? 1e25 : 0));
    if (kind == 1) assert_true(code < 3);
    if (kind == 3) assert_int_equal(code, 0);
}

static void the_nearest_row_is_the_same_everywhere(void **state) {
    (void)state;
    static const int32_t sizes[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, MOST};
    for (int kind = 0; kind < 4; kind++)
        for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
            const int32_t n = sizes[i];
            sq_test_moat bm, xm, wm, gm;
            float *book = sq_test_moat_new(&bm, SQ_PQ_BOOK * sizeof *book, 4);
            const size_t floats = n ? (size_t)(n - 1) * STRIDE + SQ_PQ_DIMS : 0;
            float *x = sq_test_moat_new(&xm, floats * sizeof *x, 8);
            uint8_t *want = sq_test_moat_new(&wm, (size_t)n, 1);
            book_of(kind, book);
            for (size_t k = 0; k < floats; k++) x[k] = sq_test_float(&rng);
            tables.scalar.pq_nearest(x, STRIDE, n, book, want);
            for (int32_t k = 0; k < n; k++) check_scalar(x + (size_t)k * STRIDE, book, kind, want[k]);
            for (int32_t t = 0; t < tables.n; t++) {
                uint8_t *got = sq_test_moat_new(&gm, (size_t)n, 3);
                tables.isa[t].pq_nearest(x, STRIDE, n, book, got);
                assert_memory_equal(got, want, (size_t)n);
                sq_test_moat_free(&gm);
            }
            sq_test_moat_free(&wm);
            sq_test_moat_free(&xm);
            sq_test_moat_free(&bm);
        }
}

static int setup(void **state) {
    (void)state;
    rng = sq_test_seed();
    tables = sq_test_all_tables();
    for (int32_t i = 0; i < tables.n; i++) print_message("# kernels of %s\n", tables.isa[i].isa);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_nearest_row_is_the_same_everywhere)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
