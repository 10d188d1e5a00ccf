/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_gptq.c - error propagation and activation-aware scales against plain quantisation. */
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

enum { ROWS = 37, COLS = 192, INPUTS = 600 };
static float w[ROWS * COLS], h[COLS * COLS], mean_abs[COLS];

/* Neighbouring inputs look alike, and some are loud. */
static int setup(void **state) {
    (void)state;
    uint64_t seed = 5;
    float x[COLS];
    for (int32_t i = 0; i < ROWS * COLS; i++) w[i] = 0.02f * gauss(&seed);
    for (int32_t t = 0; t < INPUTS; t++) {
        float level = 0;
        for (int32_t k = 0; k < COLS; k++) {
            level = 0.9f * level + 0.4f * gauss(&seed);
            x[k] = level * (k % 16 == 3 ? 12.0f : 1.0f);
            mean_abs[k] += fabsf(x[k]) / INPUTS;
        }
        sq_hessian_add(NULL, h, COLS, COLS, x, COLS, 1);
    }
    return 0;
}

static void errors_are_repaired_by_later_columns(void **state) {
    (void)state;
    const sq_hessian m = {h, COLS, COLS};
    float diagonal[COLS];
    sq_hessian_diagonal(&m, diagonal);
    sq_gptq_options o = sq_gptq_options_default();
    sq_coded a, b;
    assert_int_equal(sq_gptq_make(&a, NULL, NULL, w, ROWS, COLS, &m, &o, NULL), SQUISH_OK);
    assert_int_equal(sq_plain_make(&b, NULL, NULL, w, ROWS, COLS, 4, SQ_QUANT_LSQ, SQ_SCALE_F16, diagonal,
                                   NULL),
                     SQUISH_OK);
    const double gptq = sq_coded_output_error(&a, NULL, NULL, w, &m);
    const double lsq = sq_coded_output_error(&b, NULL, NULL, w, &m);
    print_message("output error: gptq %g, lsq with importance %g\n", gptq, lsq);
    assert_true(gptq > 0 && gptq < 0.8 * lsq);
    sq_coded_free(&a);
    sq_coded_free(&b);
}

static void scales_lower_the_error_and_never_raise_it(void **state) {
    (void)state;
    const sq_hessian m = {h, COLS, COLS};
    const sq_awq_matrix matrix = {w, ROWS};
    const sq_awq_options o = sq_awq_options_default();
    float s[COLS], alpha;
    double error, plain;
    assert_int_equal(sq_awq_scales(NULL, NULL, &matrix, 1, COLS, &m, mean_abs, &o, s, &alpha, &error,
                                   &plain, NULL),
                     SQUISH_OK);
    print_message("alpha %g: %g, without scales %g\n", (double)alpha, error, plain);
    assert_true(error < plain && alpha > 0);
}

static void a_text_that_repeats_is_a_loop(void **state) {
    (void)state;
    int32_t t[20], period;
    for (int32_t i = 0; i < 20; i++) t[i] = i < 8 ? 100 + i : i % 3;
    assert_true(sq_quality_loops(t, 20, &period));
    assert_int_equal(period, 3);
    t[19] = 77;
    assert_false(sq_quality_loops(t, 20, NULL));
}

static void the_verdict_follows_the_measures(void **state) {
    (void)state;
    char why[128];
    sq_quality_measure m = {.ppl = 11, .ppl_reference = 10, .agreement = 0.9, .texts = 5};
    assert_int_equal(sq_quality_judge(&m, why, sizeof why), SQ_QUALITY_OK);
    m.ppl = 15;
    assert_int_equal(sq_quality_judge(&m, why, sizeof why), SQ_QUALITY_DEGRADED);
    m.loops = 3;
    m.loops_reference = 1;
    assert_int_equal(sq_quality_judge(&m, why, sizeof why), SQ_QUALITY_COLLAPSED);
    m.loops = 2;
    m.ppl = NAN;
    assert_int_equal(sq_quality_judge(&m, why, sizeof why), SQ_QUALITY_COLLAPSED);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(errors_are_repaired_by_later_columns),
                                       cmocka_unit_test(scales_lower_the_error_and_never_raise_it),
                                       cmocka_unit_test(a_text_that_repeats_is_a_loop),
                                       cmocka_unit_test(the_verdict_follows_the_measures)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
