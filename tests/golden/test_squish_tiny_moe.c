/* SPDX-License-Identifier: Apache-2.0
 *
 * test_squish_tiny_moe.c - the shipped model with experts and latent attention against its references
 * (transformers, float32): answers token by token and perplexity, as the 8-bit container that is shipped and,
 * where the test data are, as the checkpoint it was made from; its cache; what it refuses. */
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const char model[] = "models/squish-tiny-moe";

enum { FEW_WINDOWS = 3, LAYERS = 7, HEADS = 6, NOPE = 64, ROPE = 32, V = 64 };

static json_t *reference(void) {
    json_t *o = json_load_file("models/squish-tiny-moe/reference.json", 0, NULL);
    assert_non_null(o);
    return o;
}

/* Greedy answers to the five prompts; returns how many tokens of all are equal, up to the first that is not.
 */
static int32_t equal_tokens(run *x, int32_t *all) {
    json_t *ref = reference(), *p;
    size_t i;
    int32_t equal = 0;
    *all = 0;
    assert_int_equal(json_array_size(json_object_get(ref, "prompts")), 5);
    json_array_foreach(json_object_get(ref, "prompts"), i, p) {
        const char *text = json_string_value(json_object_get(p, "prompt"));
        const json_t *ids = json_object_get(p, "ids"), *next = json_object_get(p, "next12");
        squish_tokens t;
        squish_error err = {0};
        int32_t out[16], same = 0;
        const int32_t n = (int32_t)json_array_size(next);
        assert_ok(squish_tokenize(x->m, text, strlen(text), 0, &t, &err), &err);
        assert_int_equal(t.count, json_array_size(ids));
        run_greedy(x, t.ids, t.count, out, n);
        assert_int_equal(out[0], json_integer_value(json_array_get(next, 0)));
        while (same < n && out[same] == json_integer_value(json_array_get(next, (size_t)same))) same++;
        equal += same;
        *all += n;
        squish_tokens_free(&t);
    }
    json_decref(ref);
    return equal;
}

static double reference_nats(const char *text, int32_t windows) {
    json_t *ref = reference();
    const json_t *t = json_object_get(json_object_get(ref, "texts"), text);
    const json_t *each = json_object_get(t, "nats_per_window");
    double v = json_real_value(json_object_get(t, "nats_per_token"));
    if (windows < (int32_t)json_array_size(each)) {
        v = 0;
        for (int32_t i = 0; i < windows; i++) v += json_real_value(json_array_get(each, (size_t)i)) / windows;
    }
    json_decref(ref);
    assert_true(v > 0);
    return v;
}

static void perplexity(run *x, const char *what, const char *path, const char *text, double bar) {
    const int32_t windows = getenv("SQUISH_LONG") ? INT32_MAX : FEW_WINDOWS;
    squish_tokens t = run_tokens(x, path);
    const double got = run_nats(x, &t, 1024, windows), want = reference_nats(text, windows);
    squish_tokens_free(&t);
    print_message("%s, %s: perplexity %.5f, reference %.5f (%+.3f %%)\n", what, text, exp(got), exp(want),
                  100 * (exp(got - want) - 1));
    assert_true(fabs(exp(got - want) - 1) <= bar);
}

static void the_shipped_container_answers_as_its_reference(void **state) {
    (void)state;
    int32_t all;
    run x = run_open(model, SQUISH_TIER_AUTO, NULL);
    const int32_t equal = equal_tokens(&x, &all);
    print_message("%d of %d tokens equal\n", equal, all);
    assert_true(equal >= all * 9 / 10);
    perplexity(&x, "8 bits", "tests/fixtures/own-prose.txt", "data/own-prose.txt", 1e-3);
    run_close(&x);
}

static bool data_path(char *path, size_t n, const char *name) {
    const char *dir = getenv("SQUISH_TESTDATA");
    if (dir) snprintf(path, n, "%s/%s", dir, name);
    return dir != NULL;
}

static void heldout_prose_is_as_likely_as_its_reference_has_it(void **state) {
    (void)state;
    char text[512], source[512];
    if (!data_path(text, sizeof text, "data/heldout-prose.txt")) skip();
    run x = run_open(model, SQUISH_TIER_AUTO, NULL);
    perplexity(&x, "8 bits", text, "data/heldout-prose.txt",
               getenv("SQUISH_LONG") ? 1e-3 : 2e-3);
    run_close(&x);
    data_path(source, sizeof source, "models/squish-tiny-moe");
    if (!sq_os_exists(source)) return;
    x = run_open(source, SQUISH_TIER_SOURCE, NULL);
    perplexity(&x, "bf16", text, "data/heldout-prose.txt", 1e-3);
    int32_t all;
    const int32_t equal = equal_tokens(&x, &all);
    assert_int_equal(equal, all);
    run_close(&x);
}

/* Pages of this process in memory. */
static double resident(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

/* Growth of the process from 1,000 to 4,000 cached tokens, beside what keys and values of all heads would
 * take. */
static void the_cache_is_a_fraction_of_keys_and_values(void **state) {
    (void)state;
    enum { FROM = 1000, TO = 4000 };
    const double whole = (double)(TO - FROM) * LAYERS * HEADS * (NOPE + ROPE + V) * 2;
    static int32_t ids[TO];
    squish_error err = {0};
    for (int32_t i = 0; i < TO; i++) ids[i] = 300 + i * 7919 % 10000;
    run x = run_open(model, SQUISH_TIER_AUTO, NULL);
    assert_ok(squish_seq_sync(x.s, ids, FROM, &err), &err);
    const double before = resident();
    assert_ok(squish_seq_sync(x.s, ids, TO, &err), &err);
    const double grown = resident() - before;
    squish_engine_info info;
    squish_engine_get_info(x.e, &info);
    print_message("3,000 tokens: %.2f MB more in memory, keys and values would be %.2f MB: %.2f times\n",
                  grown / 1e6, whole / 1e6, whole / grown);
    assert_true((double)info.kv_bytes_now <= (double)TO * LAYERS * 325);
    if (before > 0) assert_true(whole / grown >= 4.5);
    run_close(&x);
}

static void what_latent_rows_cannot_do_is_refused_by_both_names(void **state) {
    (void)state;
    squish_model *m;
    squish_engine *e = NULL;
    squish_error err = {0};
    assert_ok(squish_model_open(&m, model, NULL, &err), &err);
    squish_engine_options o = squish_engine_options_default();
    o.kv = SQUISH_KV_Q4;
    assert_int_equal(squish_engine_new(&e, m, &o, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--kv q4 beside the latent attention of deepseek_v2"));
    o = squish_engine_options_default();
    o.attention.sage = true;
    err = (squish_error){0};
    assert_int_equal(squish_engine_new(&e, m, &o, &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--sage-attention beside the latent attention of deepseek_v2"));
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shipped_container_answers_as_its_reference),
        cmocka_unit_test(heldout_prose_is_as_likely_as_its_reference_has_it),
        cmocka_unit_test(the_cache_is_a_fraction_of_keys_and_values),
        cmocka_unit_test(what_latent_rows_cannot_do_is_refused_by_both_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
