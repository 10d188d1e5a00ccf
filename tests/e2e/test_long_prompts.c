/* SPDX-License-Identifier: Apache-2.0
 *
 * test_long_prompts.c - approximate attention of prompts, end to end, on models made here: the same bits for
 * any number of threads and every instruction set; under sage also for any chunking, any prefix reused and
 * any company in a batch, preempted answers included; near exact attention, and not the same; refused where
 * it cannot be. */
#include "base/base.h"
#include "support/batch_run.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

enum { N_PROMPT = 700, VOCAB = 96 };

static char folder[2][32]; /* of models: heads of 20 channels that are padded, three of them to one of keys;
                              and with windows */
static int32_t prompt[N_PROMPT];

static squish_engine_options with(bool sage, bool sparge) {
    squish_engine_options o = squish_engine_options_default();
    o.threads = 2;
    o.attention.sage = sage;
    o.attention.sparge = sparge;
    o.attention.sparge_min = 128;
    o.attention.sparge_mass = 0.3f;
    return o;
}

typedef struct {
    float logits[VOCAB], after[VOCAB]; /* of the prompt's end, and behind eight greedy tokens */
    int32_t greedy[8];
    double density;
    char isa[32]; /* kernels that made it */
} outcome;

static outcome outcome_of(run *x, size_t n) {
    outcome r;
    squish_error err = {0};
    squish_engine_info info;
    assert_ok(squish_seq_sync(x->s, prompt, n, &err), &err);
    memcpy(r.logits, squish_seq_logits(x->s), sizeof r.logits);
    run_greedy(x, prompt, n, r.greedy, 8);
    memcpy(r.after, squish_seq_logits(x->s), sizeof r.after);
    squish_engine_get_info(x->e, &info);
    r.density = info.attn_density;
    snprintf(r.isa, sizeof r.isa, "%s", info.isa);
    return r;
}

static outcome run_with(int model, const squish_engine_options *o) {
    run x = run_open(folder[model], SQUISH_TIER_SOURCE, o);
    const outcome r = outcome_of(&x, N_PROMPT);
    run_close(&x);
    return r;
}

static void assert_same_outcome(const outcome *a, const outcome *b) {
    assert_memory_equal(a->logits, b->logits, sizeof a->logits);
    assert_memory_equal(a->greedy, b->greedy, sizeof a->greedy);
    assert_memory_equal(a->after, b->after, sizeof a->after);
}

static double distance(const outcome *a, const outcome *b) {
    double sum = 0, all = 0;
    for (int i = 0; i < VOCAB; i++) {
        const double d = (double)a->logits[i] - (double)b->logits[i];
        sum += d * d;
        all += (double)b->logits[i] * (double)b->logits[i];
    }
    return sqrt(sum / all);
}

/* ---- the same bits --------------------------------------------------------------------------- */

/* Whether an engine that is held to this instruction set has kernels of it: else it uses what is below. */
static bool has_isa(const char *isa) {
    squish_engine_options o = with(false, false);
    squish_engine_info info;
    o.isa_max = isa;
    run x = run_open(folder[0], SQUISH_TIER_SOURCE, &o);
    squish_engine_get_info(x.e, &info);
    const bool has = strncmp(info.isa, isa, strlen(isa)) == 0;
    run_close(&x);
    return has;
}

static void check_isas_and_threads(int model, bool sage, bool sparge) {
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon"};
    squish_engine_options o = with(sage, sparge);
    const outcome want = run_with(model, &o);
    for (size_t i = 0; i < SQ_COUNT(isas); i++) {
        if (!has_isa(isas[i]) || strcmp(want.isa, isas[i]) == 0) continue;
        o.isa_max = isas[i];
        const outcome got = run_with(model, &o);
        assert_same_outcome(&want, &got);
        assert_true(want.density == got.density);
    }
    o = with(sage, sparge);
    for (o.threads = 1; o.threads <= 4; o.threads += 3) {
        const outcome got = run_with(model, &o);
        assert_same_outcome(&want, &got);
        assert_true(want.density == got.density);
    }
}

static void every_machine_gives_the_same_bits(void **state) {
    (void)state;
    for (int model = 0; model < 2; model++)
        for (int how = 1; how < 4; how++) {
            if (model == 1 && how < 3 && !run_long()) continue; /* windows: with both at once */
            check_isas_and_threads(model, how & 1, how & 2);
        }
}

static void under_sage_a_prompt_may_be_cut_anywhere(void **state) {
    (void)state;
    static const int32_t chunks[] = {1, 7, 64, 300, 2048};
    for (int model = 0; model < 2; model++) {
        squish_engine_options o = with(true, false);
        const outcome want = run_with(model, &o);
        for (size_t i = 0; i < SQ_COUNT(chunks); i++) {
            o.chunk_tokens = chunks[i];
            const outcome got = run_with(model, &o);
            assert_same_outcome(&want, &got);
        }
    }
}

static void under_sparge_chunks_of_whole_blocks_do_not_show(void **state) {
    (void)state;
    squish_engine_options o = with(true, true);
    const outcome want = run_with(0, &o);
    for (o.chunk_tokens = 64; o.chunk_tokens < 700; o.chunk_tokens *= 2) {
        const outcome got = run_with(0, &o);
        assert_same_outcome(&want, &got);
    }
}

static void under_sage_a_reused_prefix_gives_the_bits_of_a_cold_run(void **state) {
    (void)state;
    const squish_engine_options o = with(true, false);
    run x = run_open(folder[0], SQUISH_TIER_SOURCE, &o);
    squish_error err = {0};
    const outcome cold = outcome_of(&x, N_PROMPT);
    for (int32_t n = 100; n < N_PROMPT; n += 211) {
        squish_seq_truncate(x.s, 0);
        assert_ok(squish_seq_sync(x.s, prompt, (size_t)n, &err), &err);
        assert_ok(squish_seq_sync(x.s, prompt, N_PROMPT, &err), &err);
        assert_int_equal(squish_seq_reused(x.s), n);
        const outcome warm = outcome_of(&x, N_PROMPT);
        assert_same_outcome(&cold, &warm);
    }
    run_close(&x);
}

/* ---- in company ------------------------------------------------------------------------------ */

static squish_job_options job_of(int32_t i, bell *ring) {
    squish_job_options o = squish_job_options_default();
    o.prompt = prompt + 20 * i;
    o.n_prompt = 300;
    o.gen.max_tokens = 300;
    o.gen.sampling.temperature = 0;
    o.gen.ignore_eos = true;
    o.wake = bell_ring;
    o.wake_user = ring;
    return o;
}

/* A pool for three prompts and not for their answers, and four of them: some give way, and what they had
 * drawn is computed again, exactly, as it was drawn. */
static void under_sage_answers_survive_their_company(void **state) {
    (void)state;
    enum { JOBS = 4 };
    static answer want[JOBS], got[JOBS];
    squish_engine_options o = with(true, false);
    run alone = run_open(folder[0], SQUISH_TIER_SOURCE, &o);
    bell *ring = bell_new();
    squish_job *j[JOBS];
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    for (int32_t i = 0; i < JOBS; i++) {
        const squish_job_options jo = job_of(i, ring);
        answer_alone(alone.s, jo.prompt, jo.n_prompt, &jo.gen, &want[i]);
    }
    squish_mem_estimate mem;
    o.ctx_tokens = 1024;
    assert_ok(squish_engine_estimate(alone.m, &o, &mem, &err), &err);
    o.kv_bytes_max = mem.kv_bytes; /* 1024 tokens */
    assert_ok(squish_engine_new(&e, alone.m, &o, &err), &err);
    assert_ok(squish_batch_new(&b, e, NULL, &err), &err);
    for (int32_t i = 0; i < JOBS; i++) {
        const squish_job_options jo = job_of(i, ring);
        assert_ok(squish_job_submit(&j[i], b, &jo, &err), &err);
    }
    answers_wait(ring, j, got, JOBS);
    int32_t preempted = 0;
    for (int32_t i = 0; i < JOBS; i++) {
        assert_same_answer(&want[i], &got[i]);
        preempted += got[i].stats.preemptions;
        squish_job_free(j[i]);
    }
    assert_true(preempted > 0);
    squish_batch_free(b);
    squish_engine_free(e);
    bell_free(ring);
    run_close(&alone);
}

/* ---- near exact attention -------------------------------------------------------------------- */

static void both_change_results_and_only_a_little(void **state) {
    (void)state;
    squish_engine_options o = with(false, false);
    const outcome exact = run_with(0, &o);
    assert_true(exact.density == 1.0);
    o = with(true, false);
    const outcome sage = run_with(0, &o);
    o = with(false, true);
    const outcome sparge = run_with(0, &o);
    o.attention.sparge_mass = 1;
    const outcome all = run_with(0, &o);
    print_message("relative distance of logits: sage %.2g, sparge %.2g (density %.2f), mass 1 %.2g\n",
                  distance(&sage, &exact), distance(&sparge, &exact), sparge.density,
                  distance(&all, &exact));
    assert_true(distance(&sage, &exact) > 0 && distance(&sage, &exact) < 0.01);
    assert_true(distance(&sparge, &exact) > 0 && distance(&sparge, &exact) < 0.5);
    assert_true(sparge.density < 1.0 && all.density == 1.0);
    assert_true(distance(&all, &exact) < 0.001);
    o.attention.sparge_min = N_PROMPT;
    const outcome off = run_with(0, &o);
    assert_same_outcome(&off, &exact);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(const squish_model *m, const squish_engine_options *o, const char *words) {
    squish_engine *e = NULL;
    squish_error err = {0};
    assert_int_equal(squish_engine_new(&e, m, o, &err), SQUISH_INVALID);
    assert_null(e);
    if (!strstr(err.text, words)) fail_msg("'%s' does not say '%s'", err.text, words);
}

static void what_does_not_go_together_is_refused(void **state) {
    (void)state;
    run x = run_open(folder[0], SQUISH_TIER_SOURCE, NULL);
    squish_engine_options o = with(true, false);
    o.kv = SQUISH_KV_F32;
    refused(x.m, &o, "--sage-attention beside --kv f32");
    o = with(false, true);
    o.kv = SQUISH_KV_F32;
    refused(x.m, &o, "--sparge-attn beside --kv f32");
    o = with(false, true);
    o.attention.sparge_mass = 0;
    refused(x.m, &o, "sparge_mass is 0");
    o.attention.sparge_mass = NAN;
    refused(x.m, &o, "sparge_mass");
    o = with(false, true);
    o.attention.sparge_min = -1;
    refused(x.m, &o, "sparge_min is -1");
    run_close(&x);
}

static void scores_of_a_prompt_are_never_approximate(void **state) {
    (void)state;
    const squish_engine_options o = with(false, true);
    run x = run_open(folder[0], SQUISH_TIER_SOURCE, &o);
    squish_seq_free(x.s);
    x.s = NULL;
    squish_batch *b;
    squish_job *j = NULL;
    squish_error err = {0};
    assert_ok(squish_batch_new(&b, x.e, NULL, &err), &err);
    squish_job_options jo = squish_job_options_default();
    jo.prompt = prompt;
    jo.n_prompt = 20;
    jo.prompt_logprobs = 0;
    assert_int_equal(squish_job_submit(&j, b, &jo, &err), SQUISH_UNSUPPORTED);
    assert_null(j);
    assert_non_null(strstr(err.text, "prompt_logprobs beside --sparge-attn"));
    squish_batch_free(b);
    run_close(&x);
}

static int setup(void **state) {
    (void)state;
    for (int32_t i = 0; i < N_PROMPT; i++)
        prompt[i] = (int32_t)((uint32_t)(i % 331) * 2654435761u >> 9) % VOCAB;
    for (int i = 0; i < 2; i++) {
        tiny_spec spec = tiny_default();
        spec.ctx = 1024;
        spec.heads = 6;
        spec.kv_heads = 2;
        spec.head_dim = 20;
        if (i == 1) spec.model_type = "mistral", spec.window = 400;
        snprintf(folder[i], sizeof folder[i], "/tmp/squish-test-XXXXXX");
        if (!mkdtemp(folder[i])) return -1;
        tiny_write(&spec, folder[i]);
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) remove_tree(folder[i]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_machine_gives_the_same_bits),
        cmocka_unit_test(under_sage_a_prompt_may_be_cut_anywhere),
        cmocka_unit_test(under_sparge_chunks_of_whole_blocks_do_not_show),
        cmocka_unit_test(under_sage_a_reused_prefix_gives_the_bits_of_a_cold_run),
        cmocka_unit_test(under_sage_answers_survive_their_company),
        cmocka_unit_test(both_change_results_and_only_a_little),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(scores_of_a_prompt_are_never_approximate),
    };
    run_sampled("under_sage_*");
    return cmocka_run_group_tests(tests, setup, teardown);
}
