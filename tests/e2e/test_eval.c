/* SPDX-License-Identifier: Apache-2.0
 *
 * test_eval.c - squish eval on a task set of our own: figures and items, batches and limits that change
 * nothing, runs that are stopped and go on, comparisons, and what is refused. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define EVAL "$S eval --data tests/fixtures/eval "

static json_t *eval_json(const char *flags) {
    const cli_result *r = sh(EVAL "--json %s", flags);
    if (r->status != 0 && r->status != 1) fail_msg("%s: %s", flags, r->err);
    json_t *o = cli_json(r);
    assert_non_null(o);
    return o;
}

static const json_t *task(const json_t *o, const char *name) {
    return json_object_get(json_object_get(o, "tasks"), name);
}
static double num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void figures_come_from_the_items(void **state) {
    (void)state;
    static const char *const names[] = {"arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande"};
    static const int counts[] = {8, 6, 5, 6, 5};
    json_t *o = eval_json("");
    for (size_t t = 0; t < 5; t++) {
        const json_t *one = task(o, names[t]), *item;
        size_t i;
        double right = 0;
        assert_int_equal(num(one, "n"), counts[t]);
        assert_int_equal(json_string_length(json_object_get(one, "sha256")), 64);
        json_array_foreach(json_object_get(one, "items"), i, item) {
            size_t k;
            const json_t *ll;
            double best = -1e9;
            int64_t at = -1;
            json_array_foreach(json_object_get(item, "ll"), k, ll) {
                assert_true(json_real_value(ll) < 0);
                if (json_real_value(ll) > best) best = json_real_value(ll), at = (int64_t)k;
            }
            assert_int_equal(at, json_integer_value(json_object_get(item, "acc")));
            right += at == json_integer_value(json_object_get(item, "gold"));
        }
        assert_int_equal(i, counts[t]);
        assert_float_equal(num(one, "acc"), right / counts[t], 1e-12);
    }
    json_decref(o);
}

static void items_do_not_depend_on_company_or_chunks(void **state) {
    (void)state;
    json_t *all = eval_json("--tasks arc_easy,hellaswag"), *one = eval_json("--tasks hellaswag --limit 2");
    json_t *cut = eval_json("--tasks arc_easy --chunk 7 --threads 1");
    const json_t *want = json_object_get(task(all, "hellaswag"), "items");
    for (size_t i = 0; i < 2; i++)
        assert_true(json_equal(json_array_get(want, i),
                               json_array_get(json_object_get(task(one, "hellaswag"), "items"), i)));
    assert_true(json_equal(json_object_get(task(all, "arc_easy"), "items"),
                           json_object_get(task(cut, "arc_easy"), "items")));
    json_decref(all);
    json_decref(one);
    json_decref(cut);
}

static void a_stopped_run_goes_on(void **state) {
    (void)state;
    assert_int_equal(sh(EVAL "--tasks piqa,winogrande --items $T/whole.jsonl")->status, 0);
    /* three lines, and a part of one */
    assert_int_equal(
        sh("head -n 4 $T/whole.jsonl > $T/part.jsonl; printf '{\"task\":\"pi' >> $T/part.jsonl")->status, 0);
    const cli_result *r = sh(EVAL "--tasks piqa,winogrande --items $T/part.jsonl");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "is there already (go on with it: --resume"));
    assert_int_equal(sh(EVAL "--tasks piqa,winogrande --items $T/part.jsonl --resume")->status, 0);
    assert_int_equal(sh("cmp $T/whole.jsonl $T/part.jsonl")->status, 0);
    /* of another cache it is another run; so are other items */
    r = sh(EVAL "--tasks piqa --items $T/part.jsonl --resume --kv q8");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "'kv' is 'f16', this run has 'q8'"));
    r = sh("cp -r tests/fixtures/eval $T/other && sed -i 's/bread/cake/' $T/other/piqa/validation.jsonl && "
           "$S eval --data $T/other --tasks piqa --items $T/part.jsonl --resume");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "item 0 of piqa is not the one of the task file"));
}

/* $T/best.jsonl: $T/ref.jsonl with the gold choice far ahead everywhere. */
static void write_best(void) {
    char path[512], line[4096];
    snprintf(path, sizeof path, "%s/ref.jsonl", cli_folder);
    FILE *in = fopen(path, "rb");
    snprintf(path, sizeof path, "%s/best.jsonl", cli_folder);
    FILE *out = fopen(path, "wb");
    while (fgets(line, sizeof line, in)) {
        json_t *o = json_loads(line, 0, NULL), *ll = json_object_get(o, "ll");
        for (size_t k = 0; k < json_array_size(ll); k++) {
            const bool gold = (json_int_t)k == json_integer_value(json_object_get(o, "gold"));
            json_array_set_new(ll, k, json_real(gold ? -1e-3 : -1e3));
        }
        json_dumpf(o, out, JSON_COMPACT);
        fputc('\n', out);
        json_decref(o);
    }
    fclose(in);
    fclose(out);
}

static void runs_are_compared_item_by_item(void **state) {
    (void)state;
    assert_int_equal(sh(EVAL "--tasks arc_easy --items $T/ref.jsonl")->status, 0);
    json_t *same = eval_json("--tasks arc_easy --reference $T/ref.jsonl"), *tier, *worse;
    const json_t *c = json_object_get(task(same, "arc_easy"), "compared");
    assert_true(json_is_true(json_object_get(same, "pass")));
    assert_float_equal(num(c, "delta"), 0, 0);
    assert_float_equal(num(c, "mcnemar_p"), 1, 0);
    json_decref(same);
    tier = eval_json("--tasks arc_easy --limit 4 --reference 0"); /* a tier of the same model, run now */
    assert_float_equal(num(json_object_get(task(tier, "arc_easy"), "compared"), "delta"), 0, 0);
    json_decref(tier);
    write_best();
    worse = eval_json("--tasks arc_easy --reference $T/best.jsonl");
    c = json_object_get(task(worse, "arc_easy"), "compared");
    assert_float_equal(num(c, "reference"), 1, 0);
    assert_float_equal(num(c, "lost"), -8 * num(c, "delta"), 1e-9);
    assert_true(json_is_false(json_object_get(worse, "pass")) == (num(c, "lost") > 0));
    json_decref(worse);
    const cli_result *r = sh(EVAL "--tasks arc_easy --reference $T/nothing.jsonl");
    assert_int_equal(r->status, 3);
    r = sh(EVAL "--tasks arc_easy,piqa --reference $T/ref.jsonl");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->err, "has 0 of the 6 items of piqa"));
}

static void prefixes_and_caches_of_fewer_bits_go_along(void **state) {
    (void)state;
    sh("head -c 3000 tests/fixtures/own-prose.txt > $T/prefix.txt");
    json_t *o = eval_json("--tasks winogrande --limit 2 --fewshot-file $T/prefix.txt --kv q8");
    assert_true(num(task(o, "winogrande"), "read_sealed") > 0.3);
    json_t *f = eval_json("--tasks winogrande --limit 2 --fewshot-file $T/prefix.txt");
    assert_null(json_object_get(task(f, "winogrande"), "read_sealed"));
    assert_false(json_equal(json_object_get(task(o, "winogrande"), "items"),
                            json_object_get(task(f, "winogrande"), "items")));
    json_decref(o);
    json_decref(f);
}

static void what_cannot_be_run_is_said(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
        int status;
    } cases[] = {
        {"$S eval", "needs --data DIR", 2},
        {EVAL "--tasks arc_hard", "no task 'arc_hard'", 2},
        {EVAL "--tasks piqa,piqa,piqa,piqa,piqa,piqa", "more than 5 tasks", 2},
        {"$S eval --data $T", "no task file of arc_easy", 3},
        {EVAL "nobody", "no model 'nobody'", 3},
        {EVAL "--tasks piqa --ctx 8", "a continuation of", 1},
        {EVAL "--tasks piqa --items $T/no/folder.jsonl", "No such file", 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cli_result *r = sh("%s", cases[i].line);
        if (r->status != cases[i].status || !strstr(r->err, cases[i].says))
            fail_msg("%s: status %d: %s", cases[i].line, r->status, r->err);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_come_from_the_items),
        cmocka_unit_test(items_do_not_depend_on_company_or_chunks),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(runs_are_compared_item_by_item),
        cmocka_unit_test(prefixes_and_caches_of_fewer_bits_go_along),
        cmocka_unit_test(what_cannot_be_run_is_said),
    };
    return cmocka_run_group_tests(tests, cli_begin, cli_end);
}
