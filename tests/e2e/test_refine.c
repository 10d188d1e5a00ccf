/* SPDX-License-Identifier: Apache-2.0
 *
 * test_refine.c - a tier in two steps: rounding first, least squares after it, before the command ends or in
 * a process of its own. */
#include "support/cli_sh.h"

#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

/* A checkpoint of its own: refining must not meet what other tests build. */
static int setup(void **state) {
    if (cli_begin(state) != 0) return -1;
    return sh("cp -r models/squish-tiny $T/m")->status;
}

/* What the tier was made with; NULL: no JSON. */
static json_t *fidelity(void) { return cli_json(sh("$S fidelity $T/m --tier 0 --json --quiet")); }

static double snr(void) {
    json_t *o = fidelity();
    const double v = json_number_value(json_object_get(json_object_get(o, "quantised"), "snr_db"));
    json_decref(o);
    return v;
}

static void waiting_ends_with_the_better_tier(void **state) {
    (void)state;
    const cli_result *r =
        sh("rm -rf $T/m-compressed; $S compress $T/m --refine off --json --unchecked --method rtn");
    assert_int_equal(r->status, 0);
    const double rounded = snr();
    r = sh("rm -rf $T/m-compressed; $S compress $T/m --refine wait --refine-after 0 --unchecked");
    assert_int_equal(r->status, 0);
    assert_non_null(strstr(r->err, "ready to use, rounded"));
    assert_true(snr() > rounded + 0.5);
}

static void a_process_of_its_own_replaces_the_first(void **state) {
    (void)state;
    json_t *o = cli_json(sh("rm -rf $T/m-compressed; $S compress $T/m --refine-after 0 --unchecked --json"));
    const long long pid = (long long)json_integer_value(json_object_get(o, "refining"));
    json_decref(o);
    assert_true(pid > 1);
    const double first = snr();
    /* It lives until it has published; then its name is gone. */
    assert_int_equal(
        sh("for i in $(seq 600); do kill -0 %lld 2>/dev/null || exit 0; sleep 0.1; done; exit 1", pid)
            ->status,
        0);
    assert_true(snr() >= first);
    const cli_result *r = sh("cat $T/m-compressed/squish_4bit/refine.log; $S compress $T/m --unchecked");
    assert_int_equal(r->status, 0); /* least squares is there: nothing to build, nothing to refuse */
    assert_non_null(strstr(r->out, "is ready"));
}

static void short_builds_take_one_step(void **state) {
    (void)state;
    const cli_result *r = sh("rm -rf $T/m-compressed; $S compress $T/m --refine-after 100000 --unchecked");
    assert_int_equal(r->status, 0);
    assert_null(strstr(r->err, "rounded"));
    r = sh("rm -rf $T/m-compressed; $S compress $T/m --refine off --refine-after 0 --unchecked");
    assert_int_equal(r->status, 0);
    assert_null(strstr(r->err, "rounded"));
}

/* The refinement needs the checkpoint: it ends before that goes. */
static void dropping_the_source_waits_for_the_better_tier(void **state) {
    (void)state;
    const cli_result *r = sh("rm -rf $T/d $T/d-compressed; cp -r models/squish-tiny $T/d && "
                             "$S compress $T/d --refine-after 0 --unchecked --drop-source --json");
    assert_int_equal(r->status, 0);
    json_t *o = cli_json(r);
    assert_null(json_object_get(o, "refining"));
    json_decref(o);
    assert_int_equal(sh("ls $T/d/*.safetensors")->status != 0, 1);
    o = cli_json(sh("$S fidelity models/squish-tiny $T/d-compressed --json --quiet"));
    assert_true(json_number_value(json_object_get(json_object_get(o, "quantised"), "snr_db")) > 21.5);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_ends_with_the_better_tier),
        cmocka_unit_test(a_process_of_its_own_replaces_the_first),
        cmocka_unit_test(short_builds_take_one_step),
        cmocka_unit_test(dropping_the_source_waits_for_the_better_tier),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
