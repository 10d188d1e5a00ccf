/* SPDX-License-Identifier: Apache-2.0
 *
 * test_open_faults.c - the n-th allocation fails, for every n, while a model is opened, an engine made and an
 * answer begun: NO_MEMORY, nothing leaked, and afterwards everything works. */
#include "support/faults.h"
#include "support/model_run.h"
#include "support/tiny_model.h"

#include <stdio.h>

enum { RUN_MAX = 3000 };

/* Everything from the file to the second token of an answer. */
static squish_status whole_way(const char *path, squish_tier tier, bool text_only, const squish_alloc *a,
                               squish_error *err) {
    squish_model_options mo = squish_model_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_gen_options go = squish_gen_options_default();
    squish_model *m = NULL;
    squish_engine *e = NULL;
    squish_seq *s = NULL;
    squish_gen *g = NULL;
    squish_gen_event ev;
    squish_tokens t = {0};
    static const char *const stops[] = {"never", "said"};
    static const int32_t ids[] = {1, 2, 3, 4, 5};
    mo.alloc = a, mo.tier = tier, mo.text_only = text_only;
    eo.threads = 2, eo.ctx_tokens = 64, eo.chunk_tokens = 16;
    go.sampling.dry_multiplier = 0.8f, go.sampling.repetition_penalty = 1.1f, go.sampling.seed = 1;
    go.stop = stops, go.n_stop = 2, go.logprobs = 3, go.min_tokens = 2;
    squish_status st = squish_model_open(&m, path, &mo, err);
    if (st == SQUISH_OK) {
        squish_tensor_info info;
        for (size_t i = 0; squish_model_tensor(m, i, &info); i++) assert_non_null(info.name);
    }
    if (st == SQUISH_OK && text_only) st = squish_tokenize(m, "Hello there", 11, 0, &t, err);
    if (st == SQUISH_OK && !text_only) {
        st = squish_engine_new(&e, m, &eo, err);
        if (st == SQUISH_OK) st = squish_seq_new(&s, e, err);
        if (st == SQUISH_OK) st = squish_gen_new(&g, s, ids, 5, &go, err);
        for (int i = 0; i < 2 && st == SQUISH_OK; i++) st = squish_gen_next(g, &ev, err);
    }
    squish_tokens_free(&t);
    squish_gen_free(g);
    squish_seq_free(s);
    squish_engine_free(e);
    squish_model_close(m);
    return st;
}

static void fail_each(const char *path, squish_tier tier, bool text_only, bool persistent) {
    for (int64_t n = 1; n < RUN_MAX; n++) {
        struct sq_test_alloc_state state = {.fail_at = n, .persistent = persistent};
        const squish_alloc a = sq_test_alloc(&state);
        squish_error err = {0};
        const squish_status st = whole_way(path, tier, text_only, &a, &err);
        if (state.live_blocks != 0 || state.wrong_sizes != 0)
            fail_msg("request %d of %s: %d blocks leaked, %d wrong sizes (%s)", (int)n, path,
                     (int)state.live_blocks, (int)state.wrong_sizes, err.text);
        if (st == SQUISH_OK && state.count < n) {
            print_message("%s: %d requests, each refused in turn\n", path, (int)state.count);
            return;
        }
        if (st != SQUISH_NO_MEMORY || err.code != SQUISH_NO_MEMORY || !err.text[0] || strchr(err.text, '\n'))
            fail_msg("request %d of %s: %s: %s", (int)n, path, squish_status_name(st), err.text);
    }
    fail_msg("%s: no end", path);
}

static void a_checkpoint_survives_every_failing_allocation(void **state) {
    (void)state;
    static const char *const dirs[] = {"tests/fixtures/architectures/qwen2",
                                       "tests/fixtures/architectures/qwen3",
                                       "tests/fixtures/architectures/gemma3-text"};
    for (size_t i = 0; i < SQ_COUNT(dirs); i++) {
        fail_each(dirs[i], SQUISH_TIER_SOURCE, false, false);
        fail_each(dirs[i], SQUISH_TIER_SOURCE, false, true);
    }
}

static void a_checkpoint_with_many_tensors_survives_too(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-faults-XXXXXX";
    tiny_spec s = tiny_default();
    s.model_type = "qwen2", s.layers = 40, s.hidden = 8, s.ffn = 8, s.heads = 1, s.kv_heads = 1,
    s.head_dim = 8;
    assert_non_null(mkdtemp(dir));
    tiny_write(&s, dir); /* the load arena takes more than one block */
    fail_each(dir, SQUISH_TIER_SOURCE, false, false);
    fail_each(dir, SQUISH_TIER_SOURCE, false, true);
    remove_tree(dir);
}

static void a_container_survives_every_failing_allocation(void **state) {
    (void)state;
    run x = run_compressed("tests/fixtures/architectures/qwen2", SQUISH_TIER_0, SQUISH_METHOD_RTN, NULL);
    squish_model_info info;
    char file[1024];
    squish_model_get_info(x.m, &info);
    snprintf(file, sizeof file, "%s", info.path);
    fail_each(file, SQUISH_TIER_AUTO, false, false);
    fail_each(file, SQUISH_TIER_AUTO, false, true);
    run_close(&x);
}

static void a_tokenizer_survives_every_failing_allocation(void **state) {
    (void)state;
    fail_each("models/squish-tiny", SQUISH_TIER_SOURCE, true, false);
    fail_each("models/squish-tiny", SQUISH_TIER_SOURCE, true, true);
}

static squish_status compress(const char *dir, const squish_alloc *a, squish_error *err) {
    squish_compress_options o = squish_compress_options_default();
    squish_compress_result r;
    o.alloc = a, o.out_dir = dir, o.force = true, o.threads = 2, o.method = SQUISH_METHOD_RTN;
    return squish_compress("tests/fixtures/architectures/qwen2", &o, &r, err);
}

static void compressing_survives_every_failing_allocation(void **state) {
    (void)state;
    char base[] = "/tmp/squish-faults-XXXXXX", dir[64], file[128];
    assert_non_null(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/out", base);
    snprintf(file, sizeof file, "%s/squish_4bit/model.sqw", dir);
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state t = {.fail_at = n};
        const squish_alloc a = sq_test_alloc(&t);
        squish_error err = {0};
        const squish_status st = compress(dir, &a, &err);
        assert_int_equal(t.live_blocks, 0);
        assert_int_equal(t.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        if (st != SQUISH_NO_MEMORY) fail_msg("request %d: %s: %s", (int)n, squish_status_name(st), err.text);
        assert_false(sq_os_exists(dir)); /* nothing appeared */
        assert_true(n < RUN_MAX);
    }
    assert_true(sq_os_exists(file));
    remove_tree(base);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_survives_every_failing_allocation),
        cmocka_unit_test(a_checkpoint_with_many_tensors_survives_too),
        cmocka_unit_test(a_container_survives_every_failing_allocation),
        cmocka_unit_test(a_tokenizer_survives_every_failing_allocation),
        cmocka_unit_test(compressing_survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
