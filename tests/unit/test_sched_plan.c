/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sched_plan.c - what a step costs, and who goes before whom, without a model. */
#include "sched/sched_int.h"
#include "support/model_run.h"

#include <math.h>

enum { LAYERS = 8 };
static const sq_model model = {.cfg = {.n_layers = LAYERS}};

/* A step reads weights for 5 ms, which hides the arithmetic of 8 rows; then each row costs more, and each
 * position it looks back to. */
static double law(int32_t rows, double context) {
    return fmax(5, 5 + 0.5 * (rows - 8)) + 0.0001 * context;
}

static void nothing_is_guessed_before_a_step_without_prompts_was_measured(void **state) {
    (void)state;
    sq_step_cost c = {.since_alone = 0};
    assert_true(sq_step_cost_rows(&c, 2, 0) == 0);
    sq_step_cost_add(&c, 2, 0, 5);
    assert_true(sq_step_cost_alone(&c, 2) == 5);
    assert_true(sq_step_cost_rows(&c, 2, 0) == 8); /* a little, to see what a row costs */
    sq_step_cost_add(&c, 2, 8, 9);
    const double n = sq_step_cost_rows(&c, 2, 0);
    assert_true(n > 7 && n <= 12);
    assert_true(sq_step_cost_rows(&c, 2, 4.9) > 0); /* prompts always go on */
}

static void steps_of_another_number_of_answers_are_guessed_from_the_nearest(void **state) {
    (void)state;
    sq_step_cost c = {.row_ms = 0.5};
    c.alone_ms[2] = 6;
    assert_true(sq_step_cost_alone(&c, 4) == 7);
    assert_true(sq_step_cost_alone(&c, 1) == 6);
}

static void once_in_a_while_a_step_goes_without_prompts(void **state) {
    (void)state;
    sq_step_cost c = {.row_ms = 0};
    int32_t without = 0;
    for (int i = 0; i < 330; i++) {
        const double rows = sq_step_cost_rows(&c, 1, 0);
        without += rows == 0;
        sq_step_cost_add(&c, 1, rows, law(1 + (int32_t)rows, 100));
    }
    assert_int_equal(without, 10);
}

/* Milliseconds of the step that is planned beside a stream of so many tokens, each layer by the law; *rows:
 * of the prompt. Then it has run. */
static double run_planned(sq_batch *b, int32_t stream_n, double *rows) {
    *rows = 0;
    if (b->n_plan < 2) return law(1, stream_n);
    const sq_share s = b->plan[1];
    const double share = (double)(s.to - s.from) / LAYERS;
    const double context = stream_n + s.n_rows * (s.j->computed + 0.5 * s.n_rows);
    *rows = s.n_rows * share;
    b->part = sq_share_ends(b, &s) ? (sq_share){0} : s;
    if (sq_share_ends(b, &s)) s.j->computed += s.n_rows;
    return share * law(1 + s.n_rows, context) + (1 - share) * law(1, stream_n);
}

/* One answer streams, a prompt of 4,000 tokens comes: with costs as law says and every tenth step
 * disturbed. */
static void a_prompt_beside_a_stream_begins_small_and_stays_within_the_target(void **state) {
    (void)state;
    sq_engine e = {.chunk = 512, .m = &model};
    sq_client ann = {0};
    sq_job stream = {.client = &ann, .n = 20, .n_prompt = 16, .computed = 19, .prompt_logprobs = -1};
    sq_job prompt = {.client = &ann, .n = 4000, .n_prompt = 4000, .prompt_logprobs = -1};
    sq_batch b = {.e = &e, .opt = {.jobs_max = 2}, .active = {&stream}, .parts = true};
    int32_t over = 0, steps = 0;
    double rows, rows_before = 6;
    for (int i = 0; i < 100; i++) {
        sq_plan_step(&b, 0);
        assert_true(b.n_plan == 1 && b.plan[0].n_rows == 1);
        sq_step_cost_add(&b.cost, 1, 0, law(1, stream.n) + (i % 2 ? 0.1 : -0.1));
    }
    const double alone = sq_step_cost_alone(&b.cost, 1);
    assert_true(fabs(alone - law(1, stream.n)) < 0.1);
    b.active[1] = &prompt;
    for (; prompt.computed < prompt.n; steps++) {
        sq_plan_step(&b, 0);
        const double ms = run_planned(&b, stream.n, &rows) + (steps % 10 == 0 ? 1 : 0);
        assert_true(rows <= 1.5 * rows_before + 1);
        if (rows > 0) rows_before = rows;
        over += ms > 2.5 * alone;
        sq_step_cost_add(&b.cost, 1, rows, ms);
    }
    assert_true(over == 0 && steps < 450); /* and no slower than it has to be */
}

/* Where one row takes longer than a step without, some go through a layer at a time. */
static void where_whole_rows_are_too_dear_rows_go_on_by_layers(void **state) {
    (void)state;
    sq_engine e = {.chunk = 512, .m = &model};
    sq_client ann = {0};
    sq_job stream = {.client = &ann, .n = 20, .n_prompt = 16, .computed = 19, .prompt_logprobs = -1};
    sq_job prompt = {.client = &ann, .n = 400, .n_prompt = 400, .computed = 90, .prompt_logprobs = -1};
    sq_batch b = {.e = &e, .opt = {.jobs_max = 2}, .active = {&stream, &prompt}, .parts = true};
    b.cost = (sq_step_cost){.row_ms = 0.9, .rows = 1};
    b.cost.alone_ms[1] = 1; /* so there is time for 0.75 / 0.9 rows, or 6.7 through a layer */
    double rows;
    sq_plan_step(&b, 0);
    assert_true(b.n_plan == 2 && b.plan[1].j == &prompt &&
                b.plan[1].n_rows == 6); /* to the end of the tile */
    assert_true(b.plan[1].from == 0 && b.plan[1].to == 1);
    run_planned(&b, stream.n, &rows);
    for (int32_t l = 1; l < LAYERS; l++) {
        assert_true(b.part.j == &prompt && prompt.computed == 90);
        sq_plan_step(&b, 0);
        assert_true(b.plan[1].n_rows == 6 && b.plan[1].from == l && b.plan[1].to == l + 1);
        run_planned(&b, stream.n, &rows);
    }
    assert_true(!b.part.j && prompt.computed == 96);
    b.active[0] = NULL;
    sq_plan_step(&b, 0); /* nobody streams */
    assert_true(b.n_plan == 1 && b.plan[0].n_rows == 304 && b.plan[0].to == LAYERS);
    b.active[0] = &stream;
    b.parts = false;
    sq_plan_step(&b, 0);
    assert_true(b.n_plan == 2 && b.plan[1].n_rows == 1 && b.plan[1].to == LAYERS);
}

/* Prompts come one after the other, their answers begin to stream: steps without prompts are seldom seen. */
static void prompts_go_on_among_streams_that_joined_while_others_were_read(void **state) {
    (void)state;
    enum { STREAMS = 7 };
    sq_engine e = {.chunk = 512, .m = &model};
    sq_client ann = {0};
    sq_job streams[STREAMS], prompt = {.client = &ann, .n = 100, .n_prompt = 100, .prompt_logprobs = -1};
    sq_batch b = {.e = &e, .opt = {.jobs_max = STREAMS + 1}, .active = {&prompt}};
    for (int i = 0; i < STREAMS; i++) {
        streams[i] = (sq_job){.client = &ann, .n = 20, .n_prompt = 16, .computed = 19, .prompt_logprobs = -1};
        b.active[i + 1] = &streams[i];
    }
    for (int i = 0; i < 100; i++) {
        sq_step_cost_add(&b.cost, 1, 0, 7);
        sq_step_cost_add(&b.cost, 1, 20, 7 + 2 * 20);
    }
    sq_plan_step(&b, 0);
    const int32_t rows = b.plan[STREAMS].n_rows;
    assert_true(b.n_plan == STREAMS + 1 && rows >= 6 && rows <= 8); /* 19 ms without, 33 with */
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

static void buckets_of_a_histogram_count_all_that_is_not_longer(void **state) {
    (void)state;
    squish_hist h = {.sum_s = 0};
    const double ms[] = {0.5, 1, 3, 1e9};
    for (size_t i = 0; i < SQ_COUNT(ms); i++) sq_hist_add(&h, ms[i]);
    assert_true(h.count[0] == 2 && h.count[1] == 2 && h.count[2] == 3);
    assert_true(h.count[SQUISH_HIST_BUCKETS - 2] == 3 && h.count[SQUISH_HIST_BUCKETS - 1] == 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_guessed_before_a_step_without_prompts_was_measured),
        cmocka_unit_test(steps_of_another_number_of_answers_are_guessed_from_the_nearest),
        cmocka_unit_test(once_in_a_while_a_step_goes_without_prompts),
        cmocka_unit_test(a_prompt_beside_a_stream_begins_small_and_stays_within_the_target),
        cmocka_unit_test(where_whole_rows_are_too_dear_rows_go_on_by_layers),
        cmocka_unit_test(prompts_go_on_among_streams_that_joined_while_others_were_read),
        cmocka_unit_test(order_is_preempted_then_service_then_class_then_arrival),
        cmocka_unit_test(buckets_of_a_histogram_count_all_that_is_not_longer),
        cmocka_unit_test(clients_that_come_back_do_not_save_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
