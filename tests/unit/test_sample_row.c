/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_row.c - argmax, normaliser and raw log-probabilities against plain loops. */
#include "sample/sample_int.h"
#include "support/sample_oracle.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const int32_t sizes[] = {1,  2,  3,  7,  8,   15,  16,  17,  31,   32,
                                33, 63, 64, 65, 127, 128, 129, 255, 1023, 5000};

/* An exact heap block with NaN on both sides: a read outside shows in the result, or in ASan. */
static float *moated(int32_t n, float **base) {
    *base = malloc(((size_t)n + 2) * sizeof(float));
    (*base)[0] = (*base)[n + 1] = NAN;
    return *base + 1;
}

static void argmax_is_the_lowest_index_of_the_largest_value(void **state) {
    (void)state;
    oracle_rng g = {11};
    for (size_t k = 0; k < SQ_COUNT(sizes); k++) {
        int32_t n = sizes[k];
        float *base, *x = moated(n, &base);
        for (int round = 0; round < 50; round++) {
            for (int32_t i = 0; i < n; i++)
                x[i] = (float)(oracle_below(&g, round < 25 ? 7 : 100000) - 3); /* ties */
            int32_t want = 0;
            for (int32_t i = 1; i < n; i++)
                if (x[i] > x[want]) want = i;
            assert_int_equal(sq_argmax(x, n), want);
        }
        free(base);
    }
}

static void argmax_knows_infinities_zeros_and_nothing(void **state) {
    (void)state;
    float low[130], zeros[3] = {-0.0f, 0.0f, 0.0f}, high[4] = {1, INFINITY, 2, INFINITY};
    for (int i = 0; i < 130; i++) low[i] = -INFINITY;
    assert_int_equal(sq_argmax(low, 130), 0);
    low[129] = -3e38f;
    assert_int_equal(sq_argmax(low, 130), 129);
    assert_int_equal(sq_argmax(zeros, 3), 0);
    assert_int_equal(sq_argmax(high, 4), 1);
    assert_int_equal(sq_argmax(high, 0), -1);
    assert_int_equal(sq_argmax(NULL, 0), -1);
}

static void a_nan_anywhere_is_found(void **state) {
    (void)state;
    float block_max[20];
    for (size_t k = 0; k < SQ_COUNT(sizes) - 1; k++) {
        int32_t n = sizes[k];
        float *base, *x = moated(n, &base);
        for (int32_t bad = 0; bad < n; bad += n > 200 ? 13 : 1) {
            for (int32_t i = 0; i < n; i++) x[i] = (float)-i;
            x[bad] = NAN;
            assert_int_equal(sq_argmax(x, n), -1);
            assert_int_equal(sq_sample_scan(x, n, block_max), bad);
            x[bad] = INFINITY;
            assert_int_equal(sq_argmax(x, n), bad);
            assert_int_equal(sq_sample_scan(x, n, block_max), bad);
            x[bad] = -INFINITY; /* somebody ruled this token out: that is no fault */
            assert_int_equal(sq_sample_scan(x, n, block_max), -1);
        }
        free(base);
    }
}

/* A sum that says NaN is a suspicion only: here it comes of numbers, large ones and such as are ruled out. */
static void numbers_whose_sum_is_none_are_no_fault(void **state) {
    (void)state;
    enum { N = 640 };
    float x[N], block_max[N / 64];
    oracle_rng g = {12};
    for (int round = 0; round < 2000; round++) {
        const float large[] = {FLT_MAX, -FLT_MAX, -INFINITY, 0};
        int32_t want = 0, bad = oracle_below(&g, 2 * N);
        for (int32_t i = 0; i < N; i++) x[i] = large[oracle_below(&g, 4)];
        for (int32_t i = 1; i < N; i++)
            if (x[i] > x[want]) want = i;
        assert_int_equal(sq_sample_scan(x, N, block_max), -1);
        assert_int_equal(sq_argmax(x, N), want);
        if (bad >= N) continue;
        x[bad] = round % 2 ? NAN : INFINITY;
        assert_int_equal(sq_sample_scan(x, N, block_max), bad);
        if (round % 2) assert_int_equal(sq_argmax(x, N), -1);
    }
}

static void block_maxima_are_the_maxima_of_blocks_of_64(void **state) {
    (void)state;
    oracle_rng g = {12};
    float x[1000], block_max[16];
    for (int i = 0; i < 1000; i++) x[i] = (float)oracle_normal(&g);
    assert_int_equal(sq_sample_scan(x, 1000, block_max), -1);
    for (int b = 0; b < 16; b++) {
        float want = -INFINITY;
        for (int i = b * 64; i < b * 64 + 64 && i < 1000; i++) want = x[i] > want ? x[i] : want;
        assert_true(block_max[b] == want);
    }
}

static void the_normaliser_is_the_logarithm_of_the_sum(void **state) {
    (void)state;
    float two[2] = {0, 0}, one[1] = {-7.5f};
    assert_true(fabs(sq_logsumexp(two, 2) - log(2)) < 1e-15);
    assert_true(sq_logsumexp(one, 1) == -7.5);
    float huge[3] = {3e38f, 3e38f, -3e38f}; /* no overflow on the way */
    assert_true(fabs(sq_logsumexp(huge, 3) - (double)3e38f) < 1e23);
    oracle_rng g = {13};
    static float x[5000];
    long double sum = 0;
    for (int i = 0; i < 5000; i++) sum += expl(x[i] = (float)(3 * oracle_normal(&g)));
    assert_true(fabs(sq_logsumexp(x, 5000) - (double)logl(sum)) < 1e-12);
    assert_true(sq_logprob(x, 5000, 17) == (float)((double)x[17] - sq_logsumexp(x, 5000)));
    x[100] = -INFINITY;
    assert_true(isinf(sq_logprob(x, 5000, 100)));
    x[100] = NAN;
    assert_true(isnan(sq_logsumexp(x, 5000)));
}

static void alternatives_come_best_first_with_lower_ids_first_among_equals(void **state) {
    (void)state;
    enum { N = 300, IDS = 290 };
    oracle_rng g = {14};
    float x[N];
    bool keep[N];
    squish_sampling p = oracle_all_off();
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, N, IDS, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    for (int32_t n_top = 0; n_top <= 20; n_top++) {
        for (int i = 0; i < N; i++) x[i] = (float)oracle_below(&g, 60) / 8;
        x[IDS + 3] = 50; /* an id that does not exist counts in the sum, but is never shown */
        sq_sample_result r;
        assert_int_equal(sq_sampler_draw(s, x, NULL, 0, n_top, &r, NULL), SQUISH_OK);
        assert_int_equal(r.n_top, n_top);
        assert_true(r.logprob == sq_logprob(x, N, r.id));
        memset(keep, 0, sizeof keep);
        for (int32_t i = 0; i < n_top; i++) {
            int32_t want = -1;
            for (int32_t j = 0; j < IDS; j++)
                if (!keep[j] && (want < 0 || x[j] > x[want])) want = j;
            keep[want] = true;
            assert_int_equal(r.top_ids[i], want);
            assert_true(r.top_logprobs[i] == sq_logprob(x, N, want));
        }
    }
    sq_sampler_free(s);
}

static void fewer_ids_than_alternatives_give_fewer_alternatives(void **state) {
    (void)state;
    float x[3] = {1, 2, 3};
    squish_sampling p = oracle_all_off();
    sq_sampler *s;
    sq_sample_result r;
    assert_int_equal(sq_sampler_new(&s, &p, 3, 2, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    assert_int_equal(sq_sampler_draw(s, x, NULL, 0, 20, &r, NULL), SQUISH_OK);
    assert_int_equal(r.n_top, 2);
    assert_int_equal(r.top_ids[0], 1);
    assert_int_equal(r.top_ids[1], 0);
    sq_sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(argmax_is_the_lowest_index_of_the_largest_value),
        cmocka_unit_test(argmax_knows_infinities_zeros_and_nothing),
        cmocka_unit_test(a_nan_anywhere_is_found),
        cmocka_unit_test(numbers_whose_sum_is_none_are_no_fault),
        cmocka_unit_test(block_maxima_are_the_maxima_of_blocks_of_64),
        cmocka_unit_test(the_normaliser_is_the_logarithm_of_the_sum),
        cmocka_unit_test(alternatives_come_best_first_with_lower_ids_first_among_equals),
        cmocka_unit_test(fewer_ids_than_alternatives_give_fewer_alternatives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
