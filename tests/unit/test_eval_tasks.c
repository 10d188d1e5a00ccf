/* SPDX-License-Identifier: Apache-2.0
 *
 * test_eval_tasks.c - task files to items: how each task reads, both dresses of each file, limits, and what
 * is refused. */
#include "eval/eval.h"
#include "support/model_run.h"

#include <string.h>

static const char own[] = "tests/fixtures/eval";

static eval_set load(const char *task, double limit) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    eval_set s;
    assert_ok(eval_set_load(&s, eval_task_find(task, strlen(task)), own, limit, &a, &err), &err);
    return s;
}

static squish_status parse(const char *task, const char *records, const char *labels, eval_set *s,
                           squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    *err = (squish_error){0};
    const sq_span r = {(const uint8_t *)records, strlen(records)};
    const sq_span l = {(const uint8_t *)labels, labels ? strlen(labels) : 0};
    return eval_set_parse(s, eval_task_find(task, strlen(task)), r, l, "file", 0, &a, err);
}

static void arc_reads_as_the_harness_writes_it(void **state) {
    (void)state;
    eval_set s = load("arc_easy", 0);
    assert_int_equal(s.n, 8);
    assert_string_equal(s.items[0].choices[0].context,
                        "Question: Which of these do plants need to make sugar?\nAnswer:");
    assert_string_equal(s.items[0].choices[0].rest, " Light");
    assert_int_equal(s.items[0].choices[0].chars, 5);
    assert_int_equal(s.items[1].n, 3);
    assert_int_equal(s.items[1].gold, 1); /* labels are digits */
    assert_int_equal(s.items[2].n, 5);
    assert_int_equal(s.items[2].gold, 2);
    assert_int_equal(s.items[4].choices[3].chars, 12); /* a cafe with its accent: code points, not bytes */
    assert_string_equal(s.items[4].choices[0].context,
                        "Question: Which tool would you use to cut a board in two? \nAnswer:");
    eval_set_free(&s);
}

static void arc_reads_what_was_exported_from_parquet(void **state) {
    (void)state;
    eval_set s = load("arc_challenge", 0);
    assert_int_equal(s.n, 6);
    assert_string_equal(s.items[1].choices[2].rest, " burning a match");
    assert_int_equal(s.items[1].gold, 2);
    assert_int_equal(s.items[2].gold, 0);
    eval_set_free(&s);
}

static void hellaswag_is_cleaned_and_its_second_half_lowered(void **state) {
    (void)state;
    eval_set s = load("hellaswag", 0);
    assert_string_equal(s.items[0].choices[0].context, "Making tea: A woman fills a kettle. she");
    assert_string_equal(s.items[1].choices[0].context,
                        "Cleaning windows: A man stands on a ladder with a wet cloth. The man");
    assert_string_equal(
        s.items[2].choices[0].context,
        "Home and Garden: How to water a plant. Look at the soil. Put a finger into it. If it is dry, "
        "give water.");
    assert_string_equal(s.items[2].choices[0].rest, "  Pour slowly. Stop when water comes out below.");
    assert_string_equal(s.items[2].choices[2].rest, " Buy a ship.. Sail it.");
    assert_string_equal(s.items[3].choices[0].context,
                        "Washing a dog: A dog stands in a tub. A girl with a brush");
    assert_int_equal(s.items[1].gold, 2); /* a label that is text */
    assert_int_equal(s.items[0].gold, 1);
    eval_set_free(&s);
}

static void piqa_has_its_labels_beside_it_or_inside(void **state) {
    (void)state;
    squish_error err;
    eval_set s = load("piqa", 0);
    assert_string_equal(s.items[0].choices[0].context, "Question: To keep bread fresh,\nAnswer:");
    assert_string_equal(s.items[1].choices[0].rest, " fill them with water "); /* as it stands */
    assert_int_equal(s.items[1].gold, 1);
    eval_set_free(&s);
    assert_ok(parse("piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":1}\r\n", NULL, &s, &err),
              &err);
    assert_int_equal(s.items[0].gold, 1);
    eval_set_free(&s);
}

static void winogrande_scores_what_follows_the_gap(void **state) {
    (void)state;
    eval_set s = load("winogrande", 0);
    assert_string_equal(s.items[0].choices[0].context, "The ball did not fit into the box because the ball");
    assert_string_equal(s.items[0].choices[1].context, "The ball did not fit into the box because the box");
    assert_string_equal(s.items[0].choices[0].rest, " was too big.");
    assert_string_equal(s.items[0].choices[1].rest, " was too big.");
    assert_string_equal(s.items[3].choices[0].rest, " was old."); /* stripped */
    assert_int_equal(s.items[1].gold, 1);
    eval_set_free(&s);
}

static void check_text(bool (*fn)(sq_buf *, const char *, size_t), const char *in, const char *out) {
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, 1000);
    assert_true(fn(&b, in, strlen(in)));
    assert_string_equal(b.data ? b.data : "", out);
    sq_buf_deinit(&b);
}

static void text_is_cleaned_in_the_order_of_the_harness(void **state) {
    (void)state;
    check_text(eval_capitalised, "She PICKS up Bob's hat.", "She picks up bob's hat.");
    check_text(eval_capitalised, "", "");
    check_text(eval_capitalised, "3 Men walk", "3 men walk");
    check_text(eval_capitalised, "\xc3\xa9T\xc3\x89", "\xc3\x89t\xc3\xa9");
    check_text(eval_hellaswag_text, " [header] How to x [title] Do y.  Then z [substeps] ",
               " How to x. Do y. Then z ");
    check_text(eval_hellaswag_text, "a   b", "a  b"); /* one pass */
    check_text(eval_hellaswag_text, "a [b\nc] d [e", "a [b\nc] d [e");
    check_text(eval_hellaswag_text, "\xc2\xa0x\xe3\x80\x80", "x"); /* Unicode's blanks */
}

static void a_limit_is_a_count_or_a_share(void **state) {
    (void)state;
    static const struct {
        double limit;
        size_t n;
    } cases[] = {{3, 3}, {0.5, 4}, {0.01, 1}, {100, 8}, {0, 8}};
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        eval_set s = load("arc_easy", cases[i].limit);
        assert_int_equal(s.n, cases[i].n);
        assert_int_equal(s.n_file, 8);
        eval_set_free(&s);
    }
}

static void what_is_no_item_is_named_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *task, *records, *labels, *says;
    } cases[] = {
        {"piqa", "", NULL, "no records"},
        {"piqa", "[]", NULL, "file:1: a record is no JSON object"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}", NULL, "'label' is no number of a choice"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}", "2\n", "label 2, wanted 0 or 1"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}", "", "label 1 is none"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\"}", "0", "sol2"},
        {"winogrande", "{\"sentence\":\"no gap\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"1\"}", NULL,
         "no _ to fill"},
        {"winogrande", "{\"sentence\":\"a _\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"3\"}", NULL,
         "'answer' is 3, wanted 1 to 2"},
        {"arc_easy",
         "{\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"t\",\"label\":\"A\"}]},\"answerKey\":\"A\"}",
         NULL, "1 choices, wanted 2 to 16"},
        {"arc_easy",
         "\n{\"question\":\"s\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\",\"B\"]},\"answerKey\":"
         "\"Z\"}",
         NULL, "file:2: 'answerKey' is 'Z'"},
        {"arc_easy",
         "{\"question\":\"s\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"A\"]},\"answerKey\":\"B\"}",
         NULL, "no text or no label"},
        {"hellaswag", "{\"activity_label\":\"a\",\"ctx\":\"c\",\"endings\":[\"x\",5],\"label\":0}", NULL,
         "an ending is no text"},
        {"hellaswag", "{\"activity_label\":\"a\",\"ctx_a\":\"c\",\"endings\":[\"x\",\"y\"],\"label\":0}",
         NULL, "ctx_b"},
    };
    for (size_t i = 0; i < SQ_COUNT(cases); i++) {
        eval_set s;
        squish_error err;
        const squish_status st = parse(cases[i].task, cases[i].records, cases[i].labels, &s, &err);
        if (st != SQUISH_CORRUPT || !strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
    }
}

static void files_that_are_missing_are_named_with_their_places(void **state) {
    (void)state;
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    eval_set s;
    assert_int_equal(eval_set_load(&s, &eval_tasks[0], "tests/golden", 0, &a, &err), SQUISH_NOT_FOUND);
    assert_non_null(strstr(err.text, "arc_easy/test.jsonl, ARC-Easy-Test.jsonl"));
}

/* Two answers of one item: right or wrong in both, or in one of them. */
static void count(eval_result *r, bool here, size_t n, int32_t lost, int32_t won) {
    for (size_t i = 0; i < n; i++) {
        const bool l = (int32_t)i < lost, w = !l && (int32_t)i < lost + won;
        const bool right = here ? w || (!l && i % 2) : l || (!w && i % 2);
        r[i] = (eval_result){.n = 2, .gold = 1, .acc = right, .acc_norm = right, .done = true};
    }
}

static void figures_are_those_of_the_book(void **state) {
    (void)state;
    static eval_result r[200], q[200];
    for (size_t i = 0; i < 200; i++)
        r[i] = (eval_result){.gold = 0, .acc = i >= 147, .acc_norm = i >= 165, .done = true};
    const eval_sum s = eval_sum_of(r, 200);
    assert_int_equal(s.n, 200);
    assert_float_equal(s.acc, 0.735, 1e-12);
    assert_float_equal(s.acc_err, 0.03128, 1e-5);
    assert_float_equal(s.acc_norm_err, 0.02694, 1e-5);
    count(r, true, 200, 9, 6);
    count(q, false, 200, 9, 6);
    eval_compared c = eval_compare(r, q, 200, true);
    assert_int_equal(c.lost, 9);
    assert_int_equal(c.won, 6);
    assert_float_equal(c.delta, -0.015, 1e-12);
    assert_float_equal(c.p, 0.607, 1e-3);
    assert_true(c.pass && c.low < -0.015 && c.high > 0);
    count(r, true, 200, 14, 2);
    count(q, false, 200, 14, 2);
    c = eval_compare(r, q, 200, false);
    assert_float_equal(c.delta, -0.06, 1e-12);
    assert_float_equal(c.p, 0.0042, 1e-4);
    assert_false(c.pass);
    count(r, true, 200, 4, 0); /* two points are allowed */
    count(q, false, 200, 4, 0);
    assert_true(eval_compare(r, q, 200, true).pass);
}

static void the_first_of_equal_choices_wins(void **state) {
    (void)state;
    eval_set s = load("arc_easy", 1);
    eval_result r = {.n = 4, .choices = {{.ll = -6}, {.ll = -3}, {.ll = -3}, {.ll = -9}}};
    eval_choose(&r, &s.items[0]); /* Light 5, Sand 4, Smoke 5, Salt 4 characters */
    assert_int_equal(r.acc, 1);
    assert_int_equal(r.acc_norm, 2);
    assert_int_equal(r.gold, 0);
    eval_set_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arc_reads_as_the_harness_writes_it),
        cmocka_unit_test(arc_reads_what_was_exported_from_parquet),
        cmocka_unit_test(hellaswag_is_cleaned_and_its_second_half_lowered),
        cmocka_unit_test(piqa_has_its_labels_beside_it_or_inside),
        cmocka_unit_test(winogrande_scores_what_follows_the_gap),
        cmocka_unit_test(text_is_cleaned_in_the_order_of_the_harness),
        cmocka_unit_test(a_limit_is_a_count_or_a_share),
        cmocka_unit_test(what_is_no_item_is_named_with_its_line),
        cmocka_unit_test(files_that_are_missing_are_named_with_their_places),
        cmocka_unit_test(figures_are_those_of_the_book),
        cmocka_unit_test(the_first_of_equal_choices_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
