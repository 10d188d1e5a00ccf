/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan_kv.c - the longest context that a plan names for each format of the cache is one that runs: in
 * the bytes it names, by the pool and by what the system says of the process; and a longer one would not fit.
 */
#include "base/base.h"
#include "support/model_run.h"

#include <jansson.h>
#include <stdio.h>

static char dir[] = "/tmp/squish-test-XXXXXX";
static squish_model *model;
static squish_tokens prose;

static json_t *plan(uint64_t memory) {
    squish_plan_options o = squish_plan_options_default();
    squish_text text = {0};
    squish_error err = {0};
    o.memory = memory;
    o.read_gb_s = 10;
    assert_ok(squish_plan(dir, &o, &text, &err), &err);
    json_t *j = json_loads(text.data, 0, NULL);
    squish_text_free(&text);
    assert_non_null(j);
    return j;
}

static int64_t number(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

/* The need of the tier that contexts are named for, without its cache of the model's whole context. */
static int64_t fixed_need(const json_t *j) {
    const char *name = json_string_value(json_object_get(j, "contexts_tier"));
    const json_t *t;
    size_t i;
    json_array_foreach(json_object_get(j, "tiers"), i, t) {
        if (strcmp(json_string_value(json_object_get(t, "tier")), name) == 0)
            return number(t, "need") - number(j, "ctx") * 3 * 2 * 64 * 4;
    }
    fail();
    return 0;
}

static void every_context_runs_in_what_was_planned(void **state) {
    (void)state;
    json_t *all = plan((uint64_t)1 << 33);
    const json_t *t;
    size_t i;
    json_array_foreach(json_object_get(all, "contexts"), i, t) assert_int_equal(number(t, "ctx"), 4096);
    const int64_t fixed = fixed_need(all);
    json_decref(all);

    squish_engine_options o = squish_engine_options_default();
    squish_mem_estimate est;
    squish_error err = {0};
    o.ctx_tokens = 2048;
    assert_ok(squish_engine_estimate(model, &o, &est, &err), &err);
    const uint64_t room = est.kv_bytes + est.scratch_bytes + 100000;
    json_t *j = plan(((uint64_t)fixed + room) / 9 * 10 + 10);
    int64_t before = 0;
    assert_int_equal(json_array_size(json_object_get(j, "contexts")), 6);
    json_array_foreach(json_object_get(j, "contexts"), i, t) {
        const int32_t n = (int32_t)number(t, "ctx");
        squish_engine *e;
        squish_seq *s;
        squish_engine_info info;
        o.ctx_tokens = n;
        assert_true(squish_kv_from_name(json_string_value(json_object_get(t, "kv")), &o.kv));
        assert_true(n >= before && (i > 0 || n == 2048));
        before = n;
        o.kv_bytes_max = (uint64_t)number(t, "kv_bytes");
        assert_ok(squish_engine_estimate(model, &o, &est, &err), &err);
        assert_int_equal(est.kv_bytes, o.kv_bytes_max);
        assert_true(est.kv_bytes + est.scratch_bytes <= room);
        if (n < 4096) { /* a step further there is no room */
            squish_engine_options further = o;
            squish_mem_estimate more;
            further.ctx_tokens = n + 256, further.kv_bytes_max = 0;
            assert_ok(squish_engine_estimate(model, &further, &more, &err), &err);
            assert_true(more.kv_bytes + more.scratch_bytes > room);
        }
        /* The first format and those of the longest context run; SQUISH_LONG=1: all. */
        if (i > 0 && n < 4096 && !run_long()) continue;
        const uint64_t rss = sq_os_rss_anon();
        assert_ok(squish_engine_new(&e, model, &o, &err), &err);
        assert_ok(squish_seq_new(&s, e, &err), &err);
        assert_ok(squish_seq_sync(s, prose.ids, (size_t)n, &err), &err);
        squish_engine_get_info(e, &info);
        assert_true(info.kv_bytes_now <= o.kv_bytes_max);
        const uint64_t now = sq_os_rss_anon(), grown = now > rss ? now - rss : 0;
        printf("%s: %d tokens, %llu bytes of cache used of %llu planned, the process grew by %llu of %llu\n",
               squish_kv_name(o.kv), n, (unsigned long long)info.kv_bytes_now,
               (unsigned long long)o.kv_bytes_max, (unsigned long long)grown, (unsigned long long)room);
        assert_true(grown <= room + (1 << 20)); /* page tables, stacks of threads */
        squish_seq_free(s);
        squish_engine_free(e);
    }
    assert_true(before == 4096); /* fewer bits, longer contexts: with the fewest all of the model's */
    json_decref(j);
}

static int open_all(void **state) {
    (void)state;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    assert_non_null(mkdtemp(dir));
    make_shallow("models/squish-tiny", 3, dir);
    o.tier = SQUISH_TIER_SOURCE;
    assert_ok(squish_model_open(&model, dir, &o, &err), &err);
    const run x = {.m = model};
    prose = run_tokens(&x, "tests/fixtures/own-prose.txt");
    assert_true(prose.count >= 4096);
    return 0;
}

static int close_all(void **state) {
    (void)state;
    squish_tokens_free(&prose);
    squish_model_close(model);
    remove_tree(dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_context_runs_in_what_was_planned)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
