/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant_error.c - error measures against their formulas, in plain f64 loops. */
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void close_to(double got, double want) { assert_true(fabs(got - want) <= 1e-12 * fabs(want)); }

static void a_row_adds_up_by_the_formulas(void **state) {
    (void)state;
    static const int lengths[] = {1, 2, 3, 4, 5, 63, 64, 1000, 1023};
    uint64_t seed = 8;
    for (size_t k = 0; k < SQ_COUNT(lengths); k++) {
        float w[1023], v[1023];
        double ww = 0, vv = 0, wv = 0, ee = 0, max = 0;
        for (int i = 0; i < lengths[k]; i++) {
            w[i] = (float)((double)(sq_splitmix64(&seed) >> 11) * 0x1p-52 - 1);
            v[i] = w[i] + (float)(i % 7 - 3) * 0.01f;
            ww += (double)w[i] * w[i];
            vv += (double)v[i] * v[i];
            wv += (double)w[i] * v[i];
            double e = (double)w[i] - v[i];
            ee += e * e;
            max = fabs(e) > max ? fabs(e) : max;
        }
        sq_fidelity f = {0};
        sq_fidelity_row(&f, w, v, lengths[k]);
        close_to(f.ww, ww);
        close_to(f.vv, vv);
        close_to(f.wv, wv);
        close_to(f.ee, ee);
        assert_true(f.max_abs == max);
        close_to(f.worst_row_rel, sqrt(ee / ww));
        assert_int_equal(f.n, lengths[k]);
        assert_int_equal(f.n_nonfinite, 0);
        close_to(sq_fidelity_cos(&f), wv / sqrt(ww * vv));
        close_to(sq_fidelity_snr_db(&f), -20 * log10(sqrt(ee / ww)));
    }
}

static void known_numbers_come_out(void **state) {
    (void)state;
    const float w[2] = {3, 4}, v[2] = {4, 3};
    sq_fidelity f = {0};
    sq_fidelity_row(&f, w, v, 2);
    assert_true(f.ww == 25 && f.vv == 25 && f.wv == 24 && f.ee == 2 && f.max_abs == 1);
    close_to(sq_fidelity_cos(&f), 0.96);
    close_to(sq_fidelity_snr_db(&f), 10 * log10(12.5));
    const float big[1] = {3e38f}, bigger[1] = {-3e38f}; /* squares that only fit f64 */
    sq_fidelity g = {0};
    sq_fidelity_row(&g, big, bigger, 1);
    close_to(sq_fidelity_cos(&g), -1);
    assert_true(g.max_abs == 2.0 * big[0]);
}

static void the_worst_row_is_kept(void **state) {
    (void)state;
    const float w[3] = {1, 1, 100}, v[3] = {0.5f, 1, 99};
    sq_fidelity f = {0};
    for (int i = 0; i < 3; i++) sq_fidelity_row(&f, w + i, v + i, 1);
    assert_true(f.worst_row_rel == 0.5);
    assert_true(f.max_abs == 1);
    const float zero = 0, some = 0.1f;
    sq_fidelity_row(&f, &zero, &zero, 1);
    assert_true(f.worst_row_rel == 0.5);
    sq_fidelity_row(&f, &zero, &some, 1);
    assert_true(isinf(f.worst_row_rel));
}

static void parts_merge_to_the_whole(void **state) {
    (void)state;
    float w[40], v[40];
    sq_fidelity whole = {0}, a = {0}, b = {0};
    for (int i = 0; i < 40; i++) {
        w[i] = (float)(i - 20);
        v[i] = (float)(i - 20) * 0.75f;
    }
    w[33] = NAN;
    for (int r = 0; r < 4; r++) {
        sq_fidelity_row(&whole, w + 10 * r, v + 10 * r, 10);
        sq_fidelity_row(r < 2 ? &a : &b, w + 10 * r, v + 10 * r, 10);
    }
    sq_fidelity_merge(&a, &b);
    assert_true(a.ww == whole.ww && a.vv == whole.vv && a.wv == whole.wv && a.ee == whole.ee);
    assert_true(a.max_abs == whole.max_abs && a.worst_row_rel == whole.worst_row_rel);
    assert_int_equal(a.n, 40);
    assert_int_equal(a.n_nonfinite, 1);
}

static void what_is_not_finite_is_counted_and_left_out(void **state) {
    (void)state;
    float w[7] = {1, NAN, 2, INFINITY, 3, 4, 5}, v[7] = {1, 1, 2, 1, 3, -INFINITY, NAN};
    sq_fidelity f = {0};
    sq_fidelity_row(&f, w, v, 7);
    assert_int_equal(f.n, 7);
    assert_int_equal(f.n_nonfinite, 4);
    assert_true(f.ww == 14 && f.vv == 14 && f.wv == 14 && f.ee == 0 && f.max_abs == 0);
    assert_true(sq_fidelity_snr_db(&f) == 999);
}

static void zeros_have_answers_too(void **state) {
    (void)state;
    const float zero[2] = {0, 0}, some[2] = {0, 1};
    sq_fidelity none = {0}, lost = {0}, made = {0};
    assert_true(sq_fidelity_cos(&none) == 1 && sq_fidelity_snr_db(&none) == 999);
    sq_fidelity_row(&lost, some, zero, 2);
    assert_true(sq_fidelity_cos(&lost) == 0 && sq_fidelity_snr_db(&lost) == 0);
    sq_fidelity_row(&made, zero, some, 2);
    assert_true(sq_fidelity_cos(&made) == 0 && sq_fidelity_snr_db(&made) == -999);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_adds_up_by_the_formulas),
        cmocka_unit_test(known_numbers_come_out),
        cmocka_unit_test(the_worst_row_is_kept),
        cmocka_unit_test(parts_merge_to_the_whole),
        cmocka_unit_test(what_is_not_finite_is_counted_and_left_out),
        cmocka_unit_test(zeros_have_answers_too),
    };
    return cmocka_run_group_tests_name("quant_error", tests, NULL, NULL);
}
