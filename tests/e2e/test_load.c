/* SPDX-License-Identifier: Apache-2.0
 *
 * test_load.c - opening a tier is mapping a file: no memory that grows with the model. Time is printed, not
 * judged. */
#include "base/base.h"
#include "support/model_run.h"

#include <stdio.h>

static void a_tier_opens_without_copying_its_weights(void **state) {
    (void)state;
    run x = run_compressed("models/squish-tiny", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    char path[1024];
    snprintf(path, sizeof path, "%s", info.path);
    const uint64_t weights = info.weight_bytes, before = sq_os_rss_anon();
    squish_error err = {0};
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    assert_ok(squish_model_open(&m, path, NULL, &err), &err);
    squish_model_get_info(m, &info);
    const uint64_t opened = sq_os_rss_anon();
    assert_ok(squish_engine_new(&e, m, NULL, &err), &err);
    assert_ok(squish_seq_new(&s, e, &err), &err);
    const uint64_t ready = sq_os_rss_anon();
    print_message("load: %.2f ms, anonymous memory added: %.2f MB open, %.2f MB ready; weights %.1f MB\n",
                  info.load_ms, (double)(opened - before) / 1e6, (double)(ready - before) / 1e6,
                  (double)weights / 1e6);
    assert_true(opened - before <= 1000000);
    assert_true(ready - before <= 8000000);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
    run_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_tier_opens_without_copying_its_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
