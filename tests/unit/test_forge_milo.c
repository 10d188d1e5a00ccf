/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_milo.c - decibels on Gaussian matrices, threads, and ranks. */
#include "forge/forge_methods.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static double uniform(uint64_t *s) { return (double)((sq_splitmix64(s) >> 11) + 1) * 0x1p-53; }
static float gauss(uint64_t *s) {
    const double a = uniform(s);
    return (float)(sqrt(-2 * log(a)) * cos(6.283185307179586 * uniform(s)));
}

static double snr_of(int32_t rows, int32_t cols, sq_pool *pool, sq_coded *c) {
    const size_t n = (size_t)rows * (size_t)cols;
    float *w = malloc(n * sizeof *w), *d = malloc((size_t)cols * sizeof *d);
    uint64_t seed = 7;
    double ww = 0, ee = 0, claimed;
    for (size_t i = 0; i < n; i++) w[i] = 0.02f * gauss(&seed);
    sq_milo_options o = sq_milo_options_default();
    o.rank = 8;
    assert_int_equal(sq_milo_make(c, NULL, pool, w, rows, cols, &o, &claimed, NULL), SQUISH_OK);
    for (size_t i = 0; i < n; i++) {
        const size_t k = i % (size_t)cols;
        if (k == 0) sq_coded_row(c, (int32_t)(i / (size_t)cols), d);
        const double e = (double)d[k] - (double)w[i];
        ww += (double)w[i] * (double)w[i];
        ee += e * e;
    }
    free(d);
    free(w);
    assert_true(fabs(claimed / ee - 1) < 1e-3);
    return 10 * log10(ww / ee);
}

static void gaussian_matrices_reach_their_bars(void **state) {
    (void)state;
    static const struct { int32_t rows, cols; double db; } bars[] = {{64, 128, 18.0}, {128, 256, 17.0},
                                                                     {256, 512, 16.5}};
    for (size_t i = 0; i < SQ_COUNT(bars); i++) {
        sq_coded c;
        assert_true(snr_of(bars[i].rows, bars[i].cols, NULL, &c) >= bars[i].db);
        sq_coded_free(&c);
    }
}

static void threads_do_not_change_a_byte(void **state) {
    (void)state;
    sq_coded a, b;
    sq_pool *pool;
    assert_int_equal(sq_pool_new(&pool, NULL, 3, NULL), SQUISH_OK);
    snr_of(67, 133, NULL, &a);
    snr_of(67, 133, pool, &b);
    assert_memory_equal(a.codes, b.codes, 67 * 133);
    assert_memory_equal(a.u, b.u, 67 * 8 * 2);
    assert_memory_equal(a.v, b.v, 133 * 8 * 2);
    sq_coded_free(&a);
    sq_coded_free(&b);
    sq_pool_free(pool);
}

static void ranks_go_where_a_byte_gains_most(void **state) {
    (void)state;
    const float a[] = {9, 1}, b[] = {8, 7};
    sq_rank_request r[] = {{a, 2, 10, 10, 1, 0}, {b, 2, 10, 10, 1, 0}};
    assert_int_equal(sq_rank_allocate(r, 2, 125), 120);
    assert_int_equal(r[0].rank, 1);
    assert_int_equal(r[1].rank, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gaussian_matrices_reach_their_bars),
                                       cmocka_unit_test(threads_do_not_change_a_byte),
                                       cmocka_unit_test(ranks_go_where_a_byte_gains_most)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
