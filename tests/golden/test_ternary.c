/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ternary.c - a small BitNet b1.58 that was trained with ternary weights (tests/golden/ternary, with the
 * script that made it): it runs as it is published, and its tier keeps every code. */
#include "support/model_run.h"

#include <math.h>

static const char model[] = "tests/golden/ternary";

static double reference(const char *key) {
    json_t *o = json_load_file("tests/golden/ternary/reference.json", 0, NULL);
    assert_non_null(o);
    const double v = json_number_value(json_object_get(o, key));
    json_decref(o);
    assert_true(v > 0);
    return v;
}

/* Nats per token of the text that training did not see. */
static double held_out_nats(run *x) {
    squish_tokens t = run_tokens(x, "tests/fixtures/own-prose.txt");
    const size_t from = (size_t)reference("held_out_from_token");
    assert_true(t.count > from);
    squish_tokens part = {.ids = t.ids + from, .count = t.count - from};
    assert_int_equal(part.count - 1, (size_t)reference("held_out_tokens"));
    const double nats = run_nats(x, &part, (int32_t)reference("window"), INT32_MAX);
    squish_tokens_free(&t);
    return nats;
}

/* The reference scales activations once a token, we once per 64: 1 % of perplexity covers what that moves. */
static void perplexity_is_that_of_the_training_program(void **state) {
    (void)state;
    run x = run_open(model, SQUISH_TIER_SOURCE, NULL);
    const double got = exp(held_out_nats(&x)), want = reference("held_out_perplexity");
    print_message("ternary: perplexity %.4f, reference %.4f\n", got, want);
    assert_true(fabs(got / want - 1) <= 0.01);
    run_close(&x);
}

static void the_tier_answers_as_the_checkpoint_does(void **state) {
    (void)state;
    run x = run_open(model, SQUISH_TIER_SOURCE, NULL);
    const double source = held_out_nats(&x);
    run_close(&x);
    x = run_compressed(model, SQUISH_TIER_0, SQUISH_METHOD_LSQ, NULL);
    squish_tensor_info t;
    size_t n_ternary = 0;
    for (size_t i = 0; squish_model_tensor(x.m, i, &t); i++) n_ternary += strcmp(t.type, "ternary") == 0;
    assert_int_equal(n_ternary, 4 * 7);
    const double tier = held_out_nats(&x);
    print_message("ternary: perplexity %.4f, tier %.4f\n", exp(source), exp(tier));
    assert_true(fabs(exp(tier - source) - 1) <= 2e-3); /* the embedding goes from f16 to 8 bits */
    run_close(&x);
}

static void the_tier_is_found_good(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    squish_error err = {0};
    o.out_dir = dir;
    assert_ok(squish_compress(model, &o, &r, &err), &err);
    print_message("ternary: %s, %s\n", squish_quality_name(r.quality), r.verdict);
    assert_int_equal(r.quality, SQUISH_QUALITY_OK);
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(perplexity_is_that_of_the_training_program),
        cmocka_unit_test(the_tier_is_found_good),
        cmocka_unit_test(the_tier_answers_as_the_checkpoint_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
