/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_plan.c - the choice of a tier on twenty machines. */
#include "forge/forge_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Weights of a model of n billion parameters: 4.5, 8.25 and 16 bits. */
static sq_plan_input host(double params_b, double available_gb, double read_gb_s) {
    sq_plan_input in = {.available = (uint64_t)(available_gb * 1e9),
                        .kv_bytes = 500000000,
                        .scratch_bytes = 50000000,
                        .read_gb_s = read_gb_s,
                        .n = 3};
    static const struct {
        squish_tier tier;
        const char *name;
        double bits;
    } t[] = {{SQUISH_TIER_0, "0", 4.5}, {SQUISH_TIER_Q8, "q8", 8.25}, {SQUISH_TIER_1, "1", 16}};
    for (int i = 0; i < 3; i++) {
        const uint64_t bytes = (uint64_t)(params_b * 1e9 * t[i].bits / 8);
        in.tiers[i] = (sq_plan_tier){t[i].tier, t[i].name, true, bytes, bytes, i};
    }
    return in;
}

static const struct {
    double params_b, available_gb, read_gb_s;
    sq_plan_policy policy;
    int index;
} table[] = {
    {1.5, 4, 30, SQ_PLAN_BALANCED, 1}, /* bf16 is 3.1 GB and does not fit */
    {1.5, 8, 29, SQ_PLAN_BALANCED, 1}, /* bf16 would give 7.7 tok/s, below 8 */
    {1.5, 8, 60, SQ_PLAN_BALANCED, 2},    {1.5, 2, 30, SQ_PLAN_BALANCED, 0},
    {1.5, 1.5, 30, SQ_PLAN_BALANCED, -1}, /* 0.84 + 0.5 + 0.05 + 0.06 + 0.26 GB of 1.35 */
    {1.5, 8, 30, SQ_PLAN_QUALITY, 2},     {1.5, 64, 200, SQ_PLAN_SMALL, 0},
    {7.6, 4, 30, SQ_PLAN_BALANCED, -1},   {7.6, 8, 30, SQ_PLAN_BALANCED, 0},
    {7.6, 16, 30, SQ_PLAN_BALANCED, 0}, /* q8: 3.1 tok/s, tier 0: 5.6: none reaches 8, the fastest wins */
    {7.6, 16, 100, SQ_PLAN_BALANCED, 1},  {7.6, 32, 100, SQ_PLAN_BALANCED, 1},
    {7.6, 32, 200, SQ_PLAN_BALANCED, 2},  {7.6, 32, 50, SQ_PLAN_QUALITY, 2},
    {14.8, 8, 50, SQ_PLAN_BALANCED, -1},  {14.8, 16, 50, SQ_PLAN_BALANCED, 0},
    {14.8, 16, 50, SQ_PLAN_QUALITY, 0},   {14.8, 32, 150, SQ_PLAN_QUALITY, 1},
    {14.8, 64, 400, SQ_PLAN_BALANCED, 2}, {14.8, 256, 400, SQ_PLAN_SMALL, 0},
};

static void each_machine_gets_its_tier(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(table); i++) {
        sq_plan_input in = host(table[i].params_b, table[i].available_gb, table[i].read_gb_s);
        in.policy = table[i].policy;
        sq_plan p;
        sq_plan_decide(&in, &p);
        if (p.index != table[i].index)
            fail_msg("machine %zu: tier %d, wanted %d: %s", i, p.index, table[i].index, p.line);
        if (p.index >= 0) assert_true(p.need <= p.usable);
    }
}

static void the_line_names_every_term(void **state) {
    (void)state;
    sq_plan_input in = host(7.6, 16, 100);
    sq_plan p;
    sq_plan_decide(&in, &p);
    assert_string_equal(p.line,
                        "tier q8: needs 8.84 GB (weights 7.84, cache 0.50, scratch 0.05), may use 14.40 of "
                        "16.00 GB; about 10.2 tok/s at 100 GB/s; balanced");
}

static void tiers_that_are_not_ready_do_not_count(void **state) {
    (void)state;
    sq_plan_input in = host(1.5, 64, 400);
    sq_plan p;
    in.tiers[2].ready = false;
    sq_plan_decide(&in, &p);
    assert_int_equal(p.index, 1);
    in.tiers[0].ready = in.tiers[1].ready = false;
    sq_plan_decide(&in, &p);
    assert_int_equal(p.index, -1);
    assert_string_equal(p.line, "no tier is ready");
}

static void what_does_not_fit_says_what_it_needs(void **state) {
    (void)state;
    sq_plan_input in = host(14.8, 8, 50);
    sq_plan p;
    sq_plan_decide(&in, &p);
    assert_int_equal(p.index, -1);
    assert_non_null(strstr(p.line, "tier 0 does not fit: needs 9.36 GB"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_machine_gets_its_tier),
        cmocka_unit_test(the_line_names_every_term),
        cmocka_unit_test(tiers_that_are_not_ready_do_not_count),
        cmocka_unit_test(what_does_not_fit_says_what_it_needs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
