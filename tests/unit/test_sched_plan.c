/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sched_plan.c - what a step costs, and who goes before whom, without a model. */
#include "sched/sched_int.h"
#include "support/model_run.h"

#include <math.h>

static double law(double tokens, double context) { return 5 + 0.25 * tokens + 0.0001 * context; }

static void the_cost_of_steps_is_learnt(void **state) {
    (void)state;
    sq_step_cost c = {0};
    uint64_t rng = 1;
    assert_int_equal(sq_step_cost_room(&c, 8, 8000, 0, 10), 32); /* nothing known: a little */
    for (int i = 0; i < 200; i++) {
        const double tokens = 1 + (double)(sq_splitmix64(&rng) % 256);
        const double context = tokens * (double)(sq_splitmix64(&rng) % 4000);
        sq_step_cost_add(&c, tokens, context, law(tokens, context));
    }
    assert_true(fabs(c.k[0] - 5) < 0.05 && fabs(c.k[1] - 0.25) < 0.01 && fabs(c.k[2] - 0.0001) < 1e-5);
    const int32_t n = sq_step_cost_room(&c, 8, 8000, 1000, 40);
    assert_true(law(8 + n, 8000 + n * 1000) <= 41 && law(9 + n, 8000 + (n + 1) * 1000) >= 39);
    assert_int_equal(sq_step_cost_room(&c, 8, 8000, 1000, 1), 16); /* prompts always go on */
}

static void steps_that_are_all_alike_give_no_nonsense(void **state) {
    (void)state;
    sq_step_cost c = {0};
    for (int i = 0; i < 500; i++) sq_step_cost_add(&c, 1, 100, 7 + (i % 2 ? 0.5 : -0.5));
    for (int i = 0; i < 3; i++) assert_true(c.k[i] >= 0 && isfinite(c.k[i]));
    const int32_t n = sq_step_cost_room(&c, 1, 100, 100, 14);
    assert_true(n >= 16 && n <= SQ_CHUNK_MAX);
}

static void order_is_preempted_then_service_then_class_then_arrival(void **state) {
    (void)state;
    sq_client ann = {.served = 10}, bob = {.served = 20};
    sq_job a = {.client = &ann, .arrival = 1, .prompt_logprobs = -1};
    sq_job c = {.client = &bob, .arrival = 2, .prompt_logprobs = -1};
    assert_true(sq_plan_before(&a, &c, 0));
    c.preemptions = 1;
    assert_false(sq_plan_before(&a, &c, 0));
    c.preemptions = 0;
    c.client = &ann;
    assert_true(sq_plan_before(&a, &c, 0));
    c.priority = 1;
    assert_true(sq_plan_before(&c, &a, 0));
    a.t_wait = 0, c.t_wait = 20000000000u; /* a has waited 20 s longer */
    assert_true(sq_plan_before(&a, &c, 20000000000u));
    a.prompt_logprobs = 0; /* scoring is one class lower */
    assert_int_equal(sq_plan_class(&a, 0), -1);
    sq_job e = {.client = &ann, .pool = SQUISH_POOL_MEAN, .prompt_logprobs = -1};
    assert_int_equal(sq_plan_class(&e, 0), -1);
}

static void clients_that_come_back_do_not_save_up(void **state) {
    (void)state;
    sq_client all[3] = {{0}};
    sq_batch b = {.clients = all, .n_clients = 3};
    sq_client *ann = sq_plan_client(&b, 1);
    ann->jobs = 1;
    ann->served = 500;
    sq_client *bob = sq_plan_client(&b, 2);
    bob->jobs = 1;
    assert_true(bob != ann && bob->served == 500);
    bob->served = 900;
    bob->jobs = 0;
    assert_ptr_equal(sq_plan_client(&b, 2), bob); /* nor do they get rid of what they had */
    assert_true(bob->served == 900);
    assert_ptr_equal(sq_plan_client(&b, 1), ann);
    bob->jobs = 1;
    ann->recent = bob->recent = 4;
    assert_true(sq_plan_fairness(&b) == 1);
    bob->recent = 0;
    assert_true(sq_plan_fairness(&b) == 0.5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cost_of_steps_is_learnt),
        cmocka_unit_test(steps_that_are_all_alike_give_no_nonsense),
        cmocka_unit_test(order_is_preempted_then_service_then_class_then_arrival),
        cmocka_unit_test(clients_that_come_back_do_not_save_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
