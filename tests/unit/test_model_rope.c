/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_rope.c - rotary frequencies and the cos and sin made from them, against
 * tests/golden/rope/rope.json: double precision from the published formulas, compared with transformers when
 * the file was made. */
#include "model/model.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

enum { POSITIONS = 5, HALF_MAX = 256 };

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static sq_rope_params params_of(const json_t *c) {
    static const char *const types[] = {"default", "linear", "llama3", "yarn"};
    sq_rope_params p = {.theta = number(c, "theta"),
                        .factor = number(c, "factor"),
                        .low_freq = number(c, "low_freq"),
                        .high_freq = number(c, "high_freq"),
                        .original_ctx = number(c, "original_ctx"),
                        .beta_fast = number(c, "beta_fast"),
                        .beta_slow = number(c, "beta_slow"),
                        .mscale = number(c, "mscale"),
                        .mscale_all_dim = number(c, "mscale_all_dim"),
                        .truncate = 1};
    const char *type = json_string_value(json_object_get(c, "type"));
    while (strcmp(types[p.type], type) != 0) p.type++;
    return p;
}

static void assert_near(double got, double want, double tolerance, const char *what) {
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s: %.12g, wanted %.12g", what, got, want);
}

typedef void (*head_fn)(const json_t *c, const json_t *head, const sq_rope_params *p, int32_t half,
                        const json_t *positions);

static void each_head(head_fn fn) {
    json_t *all = json_load_file("tests/golden/rope/rope.json", 0, NULL), *c, *head;
    assert_non_null(all);
    size_t i, j, n = 0;
    json_array_foreach(json_object_get(all, "cases"), i, c) {
        const sq_rope_params p = params_of(c);
        json_array_foreach(json_object_get(c, "heads"), j, head) {
            fn(c, head, &p, (int32_t)number(head, "head_dim") / 2, json_object_get(all, "positions"));
            n++;
        }
    }
    assert_true(n >= 21);
    json_decref(all);
}

static void check_frequencies(const json_t *c, const json_t *head, const sq_rope_params *p, int32_t half,
                              const json_t *positions) {
    (void)positions;
    double f[HALF_MAX], factor = 0;
    const json_t *want = json_object_get(head, "inv_freq");
    sq_rope_frequencies(p, half, f, &factor);
    assert_int_equal(json_array_size(want), half);
    for (int32_t i = 0; i < half; i++) {
        const double w = json_number_value(json_array_get(want, (size_t)i));
        assert_near(f[i], w, 1e-6 * w, json_string_value(json_object_get(c, "name")));
    }
    assert_near(factor, number(c, "attention_factor"), 1e-12, "attention factor");
}

static void frequencies_of_every_rule_are_the_published_ones(void **state) {
    (void)state;
    each_head(check_frequencies);
}

static void check_table(const json_t *c, const json_t *head, const sq_rope_params *p, int32_t half,
                        const json_t *positions) {
    double f[HALF_MAX], factor = 0;
    int32_t pos[POSITIONS];
    float cs[POSITIONS * HALF_MAX], sn[POSITIONS * HALF_MAX];
    json_t *probe;
    size_t i;
    sq_rope_frequencies(p, half, f, &factor);
    for (size_t k = 0; k < POSITIONS; k++) pos[k] = (int32_t)json_integer_value(json_array_get(positions, k));
    assert_int_equal(pos[POSITIONS - 1], 131071);
    sq_backend *b = NULL;
    squish_error err = {0};
    const squish_alloc a = sq_alloc_default();
    const sq_backend_options o = {.threads = 2,
                                  .isa_max = SQ_ISA_COUNT,
                                  .m_max = 8,
                                  .heads_max = 1,
                                  .head_dim_max = 2 * half,
                                  .ctx_max = 256};
    assert_ok(sq_backend_cpu_new(&b, &o, &a, &err), &err);
    sq_be_rope_table(b, pos, POSITIONS, f, half, factor, cs, sn);
    json_array_foreach(json_object_get(head, "probes"), i, probe) {
        const int32_t j = (int32_t)json_integer_value(json_array_get(probe, 0));
        for (int32_t k = 0; k < POSITIONS; k++) {
            const json_t *pair = json_array_get(probe, (size_t)k + 1);
            const char *name = json_string_value(json_object_get(c, "name"));
            assert_near(cs[k * half + j], factor * json_number_value(json_array_get(pair, 0)), 2e-7 * factor,
                        name);
            assert_near(sn[k * half + j], factor * json_number_value(json_array_get(pair, 1)), 2e-7 * factor,
                        name);
        }
    }
    sq_backend_free(b);
}

static void cos_and_sin_hold_to_position_131071(void **state) {
    (void)state;
    each_head(check_table);
}

static void extreme_parameters_give_finite_frequencies(void **state) {
    (void)state;
    for (int32_t type = SQ_ROPE_DEFAULT; type <= SQ_ROPE_YARN; type++)
        for (int32_t k = 0; k < 8; k++) {
            const sq_rope_params p = {.type = type,
                                      .theta = k & 1 ? 1.0 : 1e12,
                                      .factor = k & 2 ? 1.0 : 1e6,
                                      .low_freq = 1e-3,
                                      .high_freq = 1e6,
                                      .original_ctx = k & 4 ? 1.0 : 1e9,
                                      .beta_fast = 1e6,
                                      .beta_slow = 1e-3,
                                      .truncate = k & 1};
            double f[HALF_MAX], factor = 0;
            sq_rope_frequencies(&p, HALF_MAX, f, &factor);
            for (int32_t i = 0; i < HALF_MAX; i++) assert_true(isfinite(f[i]) && f[i] >= 0.0 && f[i] <= 1.0);
            assert_true(isfinite(factor) && factor > 0.0);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_of_every_rule_are_the_published_ones),
        cmocka_unit_test(cos_and_sin_hold_to_position_131071),
        cmocka_unit_test(extreme_parameters_give_finite_frequencies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
