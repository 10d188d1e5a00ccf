/* SPDX-License-Identifier: Apache-2.0
 *
 * test_eval_reference.c - the benchmark tasks on squish-tiny against models/squish-tiny/eval-reference.json
 * (transformers, float32, the rules of lm-evaluation-harness), item by item, where $SQUISH_TESTDATA has the
 * task files. The first 12 items of each task; SQUISH_LONG=1: all 500. */
#include "eval/eval.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FEW = 12, ALL = 500 };

typedef struct {
    json_t *tasks;
    squish_model *m;
    squish_engine *e;
    squish_batch *b;
    char data[512];
} place;

static int setup(void **state) {
    static place p;
    const char *dir = getenv("SQUISH_TESTDATA");
    squish_error err = {0};
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    if (!dir) return 0;
    snprintf(p.data, sizeof p.data, "%s/data/eval", dir);
    if (!sq_os_is_dir(p.data)) return 0;
    json_t *all = json_load_file("models/squish-tiny/eval-reference.json", 0, NULL);
    p.tasks = json_incref(json_object_get(all, "tasks"));
    json_decref(all);
    mo.tier = SQUISH_TIER_SOURCE;
    eo.ctx_tokens = 1024;
    eo.kv_bytes_max = 256 << 20;
    if (squish_model_open(&p.m, "models/squish-tiny", &mo, &err) != SQUISH_OK ||
        squish_engine_new(&p.e, p.m, &eo, &err) != SQUISH_OK ||
        squish_batch_new(&p.b, p.e, NULL, &err) != SQUISH_OK) {
        printf("%s\n", err.text);
        return -1;
    }
    *state = &p;
    return 0;
}

static int teardown(void **state) {
    place *p = *state;
    if (!p) return 0;
    squish_batch_free(p->b);
    squish_engine_free(p->e);
    squish_model_close(p->m);
    json_decref(p->tasks);
    return 0;
}

static double ll_of(const json_t *item, int64_t k) {
    return json_number_value(json_array_get(json_object_get(item, "ll"), (size_t)k));
}

/* Does the reference's choice win by so little that rounding may decide? */
static bool near_tie(const json_t *item, const eval_item *ours, int64_t a, int64_t b, bool norm) {
    const double x = norm ? ll_of(item, a) / ours->choices[a].chars : ll_of(item, a);
    const double y = norm ? ll_of(item, b) / ours->choices[b].chars : ll_of(item, b);
    return fabs(x - y) < 0.01;
}

static void compare_task(const place *p, const eval_task *t) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    eval_set s;
    const json_t *ref = json_object_get(p->tasks, t->name), *items = json_object_get(ref, "items");
    assert_ok(eval_set_load(&s, t, p->data, getenv("SQUISH_LONG") ? ALL : FEW, &a, &err), &err);
    assert_true(json_array_size(items) >= s.n);
    eval_result *r = SQ_ARENA_ARRAY(&s.arena, eval_result, s.n);
    const eval_run_options o = {.model = p->m, .batch = p->b, .ctx_tokens = 1024};
    assert_ok(eval_run(&o, &s, r, &err), &err);
    double worst = 0;
    int ties = 0;
    for (size_t i = 0; i < s.n; i++) {
        const json_t *item = json_array_get(items, i);
        const int64_t acc = json_integer_value(json_object_get(item, "acc"));
        const json_t *norm = json_object_get(item, "acc_norm");
        assert_int_equal(r[i].gold, json_integer_value(json_object_get(item, "gold")));
        for (int32_t k = 0; k < r[i].n; k++) {
            const double d = fabs(r[i].choices[k].ll - ll_of(item, k));
            worst = d > worst ? d : worst;
            assert_int_equal(r[i].choices[k].tokens,
                             json_integer_value(json_array_get(json_object_get(item, "tokens"), (size_t)k)));
        }
        if (r[i].acc != acc) {
            if (!near_tie(item, &s.items[i], r[i].acc, acc, false)) fail_msg("%s %zu: acc", t->name, i);
            ties++;
        }
        if (t->norm && r[i].acc_norm != json_integer_value(norm)) {
            if (!near_tie(item, &s.items[i], r[i].acc_norm, json_integer_value(norm), true))
                fail_msg("%s %zu: acc_norm", t->name, i);
            ties++;
        }
    }
    const eval_sum sum = eval_sum_of(r, s.n);
    printf("%s: %zu items, predictions equal but for %d near-ties, largest difference of log-likelihoods "
           "%.2g, acc "
           "%.4f acc_norm %.4f\n",
           t->name, s.n, ties, worst, sum.acc, sum.acc_norm);
    assert_true(worst < 0.1); /* sums of up to 60 tokens */
    if (s.n == ALL) {
        assert_true(fabs(sum.acc - json_number_value(json_object_get(ref, "acc"))) <= 0.003);
        if (t->norm)
            assert_true(fabs(sum.acc_norm - json_number_value(json_object_get(ref, "acc_norm"))) <= 0.003);
    }
    eval_set_free(&s);
}

static void predictions_are_the_references_item_by_item(void **state) {
    const place *p = *state;
    if (!p) {
        print_message("skipped: no task files under SQUISH_TESTDATA\n");
        skip();
    }
    for (size_t i = 0; i < EVAL_TASKS; i++) compare_task(p, &eval_tasks[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(predictions_are_the_references_item_by_item, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
