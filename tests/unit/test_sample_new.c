/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_new.c - a sampler is one block, planned from its options; if it cannot be made nothing is
 * owed. */
#include "sample/sample_int.h"
#include "support/faults.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static squish_sampling everything(void) {
    squish_sampling p = oracle_all_off();
    p.top_p = 0.9f;
    p.repetition_penalty = 1.1f;
    p.dry_multiplier = 0.8f;
    return p;
}

static squish_status make(int32_t n_vocab, int32_t n_ids, int32_t history, const int32_t *breakers, int32_t n,
                          squish_error *err) {
    sq_sampler *s = (sq_sampler *)1;
    squish_sampling p = everything();
    squish_status st = sq_sampler_new(&s, &p, n_vocab, n_ids, history, breakers, n, NULL, err);
    if (st != SQUISH_OK) assert_null(s);
    sq_sampler_free(s);
    return st;
}

static void a_size_out_of_range_is_named(void **state) {
    (void)state;
    const struct {
        int32_t n_vocab, n_ids, history;
        const char *text;
    } cases[] = {
        {0, 1, 1, "n_vocab: 0 is outside 1..16777216"},
        {1 << 25, 1, 1, "n_vocab: 33554432 is outside 1..16777216"},
        {10, 0, 1, "n_ids: 0 is outside 1..10"},
        {10, 11, 1, "n_ids: 11 is outside 1..10"},
        {10, 10, -1, "history_max: -1 is outside 0..268435456"},
        {10, 10, INT32_MAX, "history_max: 2147483647 is outside 0..268435456"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        squish_error err = {0};
        assert_int_equal(make(cases[i].n_vocab, cases[i].n_ids, cases[i].history, NULL, 0, &err),
                         SQUISH_INVALID);
        assert_string_equal(err.text, cases[i].text);
    }
    assert_int_equal(make(1, 1, 0, NULL, 0, NULL), SQUISH_OK);
}

static void a_breaker_outside_the_vocabulary_is_named(void **state) {
    (void)state;
    int32_t breakers[] = {0, 9, 10};
    squish_error err = {0};
    assert_int_equal(make(10, 10, 5, breakers, 2, NULL), SQUISH_OK);
    assert_int_equal(make(10, 10, 5, breakers, 3, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "breakers[2]: 10 is outside 0..9");
    assert_int_equal(make(10, 10, 5, NULL, 1, NULL), SQUISH_INVALID);
    assert_int_equal(make(10, 10, 5, NULL, -1, NULL), SQUISH_INVALID);
}

static void a_bad_option_stops_the_making(void **state) {
    (void)state;
    squish_sampling p = everything();
    p.temperature = 6;
    squish_error err = {0};
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, 10, 10, 5, NULL, 0, NULL, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "temperature: 6 is outside 0..5");
    assert_null(s);
}

static void a_failed_allocation_leaves_nothing(void **state) {
    (void)state;
    squish_sampling p = everything();
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state mem = {.fail_at = n};
        squish_alloc a = sq_test_alloc(&mem);
        sq_sampler *s;
        squish_error err = {0};
        squish_status st = sq_sampler_new(&s, &p, 1000, 1000, 100, NULL, 0, &a, &err);
        if (st != SQUISH_OK) assert_null(s);
        sq_sampler_free(s);
        assert_int_equal(mem.live_blocks, 0);
        assert_int_equal(mem.live_bytes, 0);
        assert_int_equal(mem.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_int_equal(err.code, SQUISH_NO_MEMORY);
        assert_true(n < 10);
    }
}

static int64_t bytes_of(squish_sampling p) {
    struct sq_test_alloc_state mem = {0};
    squish_alloc a = sq_test_alloc(&mem);
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, 151936, 151665, 32768, NULL, 0, &a, NULL), SQUISH_OK);
    assert_int_equal(mem.count, 1);
    int64_t bytes = mem.live_bytes;
    sq_sampler_free(s);
    return bytes;
}

static void memory_is_one_block_sized_by_what_the_options_use(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    assert_true(bytes_of(p) < 40000); /* plain temperature: block maxima, bits, bans */
    p.top_k = 40;
    p.top_p = 0.9f;
    assert_true(bytes_of(p) < 41000); /* forty candidates */
    p.top_k = 0;
    assert_true(bytes_of(p) > 151665 * 16); /* any number of candidates */
    p.temperature = 0;
    assert_true(bytes_of(p) < 40000); /* greedy filters nothing */
    p.repetition_penalty = 1.1f;
    p.repeat_last_n = 0;
    assert_true(bytes_of(p) < 40000); /* a penalty that looks back on nothing is off */
}

static void the_seed_is_kept_or_drawn_and_never_negative_when_drawn(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    const int64_t given[] = {0, 1, 42, INT64_MAX, INT64_MIN, -2};
    sq_sampler *s;
    for (size_t i = 0; i < SQ_COUNT(given); i++) {
        p.seed = given[i];
        assert_int_equal(sq_sampler_new(&s, &p, 10, 10, 0, NULL, 0, NULL, NULL), SQUISH_OK);
        assert_true(sq_sampler_seed(s) == given[i]);
        sq_sampler_free(s);
    }
    int64_t last = -1;
    p.seed = -1;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(sq_sampler_new(&s, &p, 10, 10, 0, NULL, 0, NULL, NULL), SQUISH_OK);
        assert_true(sq_sampler_seed(s) >= 0);
        assert_true(sq_sampler_seed(s) != last);
        last = sq_sampler_seed(s);
        sq_sampler_free(s);
    }
}

static void the_options_are_copied(void **state) {
    (void)state;
    int32_t ids[] = {3, 3};
    float values[] = {2, 0.5f}, logits[5] = {0, 1, 2, 0, 0};
    squish_sampling p = oracle_all_off();
    p.temperature = 0;
    p.bias_ids = ids;
    p.bias_values = values;
    p.n_bias = 2;
    sq_sampler *s;
    sq_sample_result r;
    assert_int_equal(sq_sampler_new(&s, &p, 5, 5, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    ids[0] = ids[1] = 1;
    values[0] = values[1] = 100;
    p.temperature = 3;
    assert_int_equal(sq_sampler_draw(s, logits, NULL, 0, -1, &r, NULL), SQUISH_OK);
    assert_int_equal(r.id, 3); /* 0 + 2 + 0.5: pairs with one id add up */
    sq_sampler_free(s);
    sq_sampler_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_size_out_of_range_is_named),
        cmocka_unit_test(a_breaker_outside_the_vocabulary_is_named),
        cmocka_unit_test(a_bad_option_stops_the_making),
        cmocka_unit_test(a_failed_allocation_leaves_nothing),
        cmocka_unit_test(memory_is_one_block_sized_by_what_the_options_use),
        cmocka_unit_test(the_seed_is_kept_or_drawn_and_never_negative_when_drawn),
        cmocka_unit_test(the_options_are_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
