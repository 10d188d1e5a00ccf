/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_check.c - a sampling request out of range is refused by name, value and range. */
#include "sample/sample.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { VOCAB = 100 };

static void refuse(squish_sampling p, const char *text) {
    squish_error err = {0};
    assert_int_equal(sq_sampling_check(&p, VOCAB, &err), SQUISH_INVALID);
    assert_string_equal(err.text, text);
    assert_int_equal(sq_sampling_check(&p, VOCAB, NULL), SQUISH_INVALID);
}

#define REFUSE(field, value, text)              \
    do {                                        \
        squish_sampling p_ = oracle_all_off();  \
        p_.field = value;                       \
        refuse(p_, text);                       \
    } while (0)
#define ACCEPT(field, value)                                              \
    do {                                                                  \
        squish_sampling p_ = oracle_all_off();                            \
        p_.field = value;                                                 \
        assert_int_equal(sq_sampling_check(&p_, VOCAB, NULL), SQUISH_OK); \
    } while (0)

static void each_field_names_itself_its_value_and_its_range(void **state) {
    (void)state;
    REFUSE(temperature, 5.5f, "temperature: 5.5 is outside 0..5");
    REFUSE(temperature, -0.5f, "temperature: -0.5 is outside 0..5");
    REFUSE(temperature, NAN, "temperature: nan is outside 0..5");
    REFUSE(top_k, -2, "top_k: -2 is outside -1..2147483647");
    REFUSE(top_p, 1.5f, "top_p: 1.5 is outside 0..1");
    REFUSE(min_p, -1, "min_p: -1 is outside 0..1");
    REFUSE(typical_p, INFINITY, "typical_p: inf is outside 0..1");
    REFUSE(top_n_sigma, -1, "top_n_sigma: -1 is outside 0..100");
    REFUSE(xtc_probability, 2, "xtc_probability: 2 is outside 0..1");
    REFUSE(xtc_threshold, 2, "xtc_threshold: 2 is outside 0..1");
    REFUSE(repetition_penalty, 0, "repetition_penalty: 0 is outside 0.01..100");
    REFUSE(repeat_last_n, -2, "repeat_last_n: -2 is outside -1..2147483647");
    REFUSE(frequency_penalty, 2.5f, "frequency_penalty: 2.5 is outside -2..2");
    REFUSE(presence_penalty, -2.5f, "presence_penalty: -2.5 is outside -2..2");
    REFUSE(dry_multiplier, -1, "dry_multiplier: -1 is outside 0..100");
    REFUSE(dry_base, 0.5f, "dry_base: 0.5 is outside 1..100");
    REFUSE(dry_allowed_length, 0, "dry_allowed_length: 0 is outside 1..1048576");
    REFUSE(dry_last_n, -7, "dry_last_n: -7 is outside -1..2147483647");
    REFUSE(n_bias, 1025, "n_bias: 1025 is outside 0..1024");
    REFUSE(n_bias, 1, "n_bias: 1 pairs announced, but no ids or values given");
    REFUSE(choice, -1, "choice: -1 is outside 0..2147483647");
}

static void both_ends_of_each_range_are_accepted(void **state) {
    (void)state;
    ACCEPT(temperature, 0);
    ACCEPT(temperature, 5);
    ACCEPT(top_k, -1);
    ACCEPT(top_k, INT32_MAX);
    ACCEPT(top_p, 0);
    ACCEPT(min_p, 1);
    ACCEPT(typical_p, 0);
    ACCEPT(repetition_penalty, 0.01f);
    ACCEPT(repeat_last_n, -1);
    ACCEPT(frequency_penalty, -2);
    ACCEPT(presence_penalty, 2);
    ACCEPT(dry_base, 1);
    ACCEPT(seed, INT64_MIN);
    ACCEPT(seed, -1);
}

static void a_bias_out_of_range_is_named_by_its_index(void **state) {
    (void)state;
    int32_t ids[] = {0, VOCAB - 1, VOCAB};
    float values[] = {-100, 100, 0};
    squish_sampling p = oracle_all_off();
    p.bias_ids = ids;
    p.bias_values = values;
    p.n_bias = 2;
    assert_int_equal(sq_sampling_check(&p, VOCAB, NULL), SQUISH_OK);
    p.n_bias = 3;
    refuse(p, "bias_ids[2]: 100 is outside 0..99");
    ids[2] = -1;
    refuse(p, "bias_ids[2]: -1 is outside 0..99");
    ids[2] = 5;
    values[2] = 100.5f;
    refuse(p, "bias_values[2]: 100.5 is outside -100..100 (token 5)");
    values[2] = NAN;
    refuse(p, "bias_values[2]: nan is outside -100..100 (token 5)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_names_itself_its_value_and_its_range),
        cmocka_unit_test(both_ends_of_each_range_are_accepted),
        cmocka_unit_test(a_bias_out_of_range_is_named_by_its_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
