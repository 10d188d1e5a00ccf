/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sameness.c - the promise of kernels.h, end to end: the same bits for any number of threads, any
 * chunking of the prompt, every instruction set, prefixes reused or not, and timelines taking turns on one
 * engine. */
#include "kernels/kernels.h"
#include "support/model_run.h"

#include <stdio.h>

/* Long enough to cross a chunk of attention (256); the scalar kernels get a shorter prompt, they are slow. */
enum { N_PROMPT = 300, N_SHORT = 40, N_ROWS = 3 };

typedef struct {
    float *rows;
    int32_t n_vocab, first;
} kept;

static bool keep(void *user, int32_t pos, const float *logits) {
    kept *k = user;
    memcpy(k->rows + (size_t)(pos - k->first) * (size_t)k->n_vocab, logits,
           (size_t)k->n_vocab * sizeof *logits);
    return true;
}

static void prompt(int32_t *ids, int32_t n, int32_t n_vocab) {
    for (int32_t i = 0; i < n; i++) ids[i] = (int32_t)((uint32_t)i * 2654435761u >> 7) % n_vocab;
}

/* Logits of the last rows of a long prompt plus a short decode, as one block of bytes. */
static float *fingerprint(const char *file, squish_tier tier, const squish_engine_options *o,
                          int32_t n_prompt, size_t *n) {
    run x = run_open(file, tier, o);
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    int32_t ids[N_PROMPT], greedy[8];
    prompt(ids, n_prompt, info.n_vocab);
    *n = (size_t)(N_ROWS + 1) * (size_t)info.n_vocab;
    float *out = calloc(*n, sizeof *out);
    kept k = {out, info.n_vocab, n_prompt - N_ROWS};
    squish_error err = {0};
    assert_ok(squish_seq_score(x.s, ids, (size_t)n_prompt, k.first, keep, &k, &err), &err);
    run_greedy(&x, ids, (size_t)n_prompt / 2, greedy, 8);
    memcpy(out + (size_t)N_ROWS * (size_t)info.n_vocab, greedy, sizeof greedy);
    const float *decode = squish_seq_logits(x.s);
    assert_non_null(decode);
    memcpy(out + (size_t)N_ROWS * (size_t)info.n_vocab + 8, decode, ((size_t)info.n_vocab - 8) * sizeof *out);
    run_close(&x);
    return out;
}

static void check_all_ways(const char *file, squish_tier tier) {
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon"};
    static const int32_t threads[] = {1, 2, 4}, chunks[] = {1, 7, 64, 512};
    const bool all = run_long(); /* else every number and every chunk, in pairs */
    squish_engine_options o = squish_engine_options_default();
    size_t n = 0, m = 0;
    o.threads = 1;
    float *want = fingerprint(file, tier, &o, N_SHORT, &n);
    for (size_t i = 0; i < SQ_COUNT(isas); i++) {
        o = squish_engine_options_default();
        o.isa_max = isas[i];
        o.threads = 2;
        float *got = fingerprint(file, tier, &o, N_SHORT, &m);
        assert_int_equal(n, m);
        assert_memory_equal(got, want, n * sizeof *got);
        free(got);
    }
    free(want);
    o = squish_engine_options_default();
    o.threads = 1;
    want = fingerprint(file, tier, &o, N_PROMPT, &n);
    for (size_t t = 0; t < SQ_COUNT(threads); t++)
        for (size_t c = all ? 0 : t % 2; c < SQ_COUNT(chunks); c += all ? 1 : 2) {
            o = squish_engine_options_default();
            o.threads = threads[t];
            o.chunk_tokens = chunks[c];
            float *got = fingerprint(file, tier, &o, N_PROMPT, &m);
            assert_memory_equal(got, want, n * sizeof *got);
            free(got);
        }
    free(want);
}

/* The first layers of squish-tiny; SQUISH_LONG=1: all of them. */
static char dir[] = "/tmp/squish-test-XXXXXX";
static int make_model(void **state) {
    (void)state;
    assert_non_null(mkdtemp(dir));
    make_shallow("models/squish-tiny", run_long() ? 8 : 2, dir);
    return 0;
}

static int remove_model(void **state) {
    (void)state;
    remove_tree(dir);
    return 0;
}

static void the_source_gives_the_same_bits_every_way(void **state) {
    (void)state;
    check_all_ways(dir, SQUISH_TIER_SOURCE);
}

static run compressed(const char *model, squish_tier tier) {
    return run_compressed(model, tier, SQUISH_METHOD_RTN, NULL);
}

static void check_tiers(const char *model) {
    static const squish_tier tiers[] = {SQUISH_TIER_0, SQUISH_TIER_Q8};
    for (size_t i = 0; i < SQ_COUNT(tiers); i++) {
        run x = compressed(model, tiers[i]);
        squish_model_info info;
        squish_model_get_info(x.m, &info);
        check_all_ways(info.path, SQUISH_TIER_AUTO);
        run_close(&x);
    }
}

static void tiers_give_the_same_bits_every_way(void **state) {
    (void)state;
    check_tiers(dir);
}

static const char *const with_experts[] = {"qwen2-moe", "qwen3-moe", "deepseek-v2", "deepseek-v2-lite"};

static void experts_give_the_same_bits_every_way(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(with_experts); i++) {
        char path[96];
        snprintf(path, sizeof path, "tests/fixtures/architectures/%s", with_experts[i]);
        check_all_ways(path, SQUISH_TIER_SOURCE);
        check_tiers(path);
    }
}

static void a_reused_prefix_gives_the_bits_of_a_cold_run(void **state) {
    (void)state;
    run x = run_open(dir, SQUISH_TIER_SOURCE, NULL);
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    int32_t a[300], b[300];
    prompt(a, 300, info.n_vocab);
    memcpy(b, a, sizeof b);
    b[170] ^= 1;
    squish_error err = {0};
    const size_t bytes = (size_t)info.n_vocab * sizeof(float);
    float *cold = malloc(bytes);
    assert_ok(squish_seq_sync(x.s, b, 300, &err), &err);
    memcpy(cold, squish_seq_logits(x.s), bytes);
    squish_seq_truncate(x.s, 0);
    assert_ok(squish_seq_sync(x.s, a, 300, &err), &err);
    assert_ok(squish_seq_sync(x.s, b, 300, &err), &err);
    assert_int_equal(squish_seq_reused(x.s), 170);
    assert_memory_equal(cold, squish_seq_logits(x.s), bytes);
    free(cold);
    run_close(&x);
}

static void timelines_taking_turns_do_not_disturb_each_other(void **state) {
    (void)state;
    run x = run_open(dir, SQUISH_TIER_SOURCE, NULL);
    squish_error err = {0};
    squish_seq *other = NULL;
    squish_gen *g[2];
    int32_t ids[50], alone[2][10], mixed[2][10];
    squish_model_info info;
    squish_model_get_info(x.m, &info);
    prompt(ids, 50, info.n_vocab);
    run_greedy(&x, ids, 50, alone[0], 10);
    run_greedy(&x, ids + 10, 40, alone[1], 10);
    squish_seq_truncate(x.s, 0);
    assert_ok(squish_seq_new(&other, x.e, &err), &err);
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = 0;
    o.ignore_eos = true;
    assert_ok(squish_gen_new(&g[0], x.s, ids, 50, &o, &err), &err);
    assert_ok(squish_gen_new(&g[1], other, ids + 10, 40, &o, &err), &err);
    for (int i = 0; i < 10; i++)
        for (int k = 0; k < 2; k++) {
            squish_gen_event ev;
            assert_ok(squish_gen_next(g[k], &ev, &err), &err);
            mixed[k][i] = ev.id;
        }
    assert_memory_equal(alone, mixed, sizeof alone);
    squish_gen_free(g[0]);
    squish_gen_free(g[1]);
    squish_seq_free(other);
    run_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_source_gives_the_same_bits_every_way),
        cmocka_unit_test(tiers_give_the_same_bits_every_way),
        cmocka_unit_test(experts_give_the_same_bits_every_way),
        cmocka_unit_test(a_reused_prefix_gives_the_bits_of_a_cold_run),
        cmocka_unit_test(timelines_taking_turns_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
