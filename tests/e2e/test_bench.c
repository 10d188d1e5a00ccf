/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bench.c - the benches of speed give every row they promise, with figures that fit each other. No
 * figure is held against a clock. */
#include "support/cli_sh.h"

#include <math.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

static double number(const json_t *row, const char *key) {
    const json_t *v = json_object_get(row, key);
    assert_true(json_is_number(v) && isfinite(json_number_value(v)));
    return json_number_value(v);
}

/* names: those of the rows, separated by commas. */
static void expect_rows(const char *command, const char *names, bool limited) {
    const cli_result *r =
        sh("$S bench %s --tier source --runs 3 --threads 2 --max-ctx 64 -q --json", command);
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_non_null(o);
    const json_t *row, *rows = json_object_get(o, "rows");
    size_t i;
    char found[1024] = "";
    json_array_foreach(rows, i, row) {
        const size_t at = strlen(found);
        snprintf(found + at, sizeof found - at, "%s%s", i ? "," : "",
                 json_string_value(json_object_get(row, "name")));
        const double value = number(row, "value");
        assert_true(value > 0 && number(row, "min") <= value && value <= number(row, "max"));
        assert_int_equal((int)number(row, "runs"), 3);
        if (!limited) continue;
        const double ratio = value / number(row, "limit"), share = number(row, "share");
        const bool small = strcmp(json_string_value(json_object_get(row, "unit")), "ms") == 0;
        assert_true(fabs(share - (small ? 1 / ratio : ratio)) < 1e-6 * share);
    }
    assert_string_equal(found, names);
    json_decref(o);
}

static void every_row_is_there(void **state) {
    (void)state;
    expect_rows("limits", "read memory,int8 dot products,f32 multiply-adds", false);
    expect_rows("decode squish-tiny", "decode at 16,decode at 64", true);
    expect_rows("batch squish-tiny", "batch 1,batch 2,batch 4,batch 8,batch 16", true);
    const cli_result *r = sh("$S bench prefill squish-tiny --runs 1 -q --json");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->out, "\"prefill 8\""));
    assert_non_null(strstr(r->out, "\"first token after 512\""));
}

static void what_cannot_be_measured_is_said(void **state) {
    (void)state;
    assert_int_equal(sh("$S bench decode squish-tiny --runs 0")->status, 2);
    assert_int_equal(sh("$S bench decode no-such-model")->status, 3);
    assert_int_equal(sh("$S bench limits squish-tiny")->status, 2);
    const cli_result *r = sh("$S bench nonsense");
    assert_int_equal(r->status, 2);
    assert_non_null(strstr(r->err, "prefill"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_there),
        cmocka_unit_test(what_cannot_be_measured_is_said),
    };
    return cmocka_run_group_tests_name("bench", tests, cli_begin, cli_end);
}
