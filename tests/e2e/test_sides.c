/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sides.c - side branches of guesses change nothing but the number of steps: an answer with them is the
 * answer without, whatever is guessed, and the cache is as large afterwards as before. */
#include "support/batch_run.h"

#include <stdio.h>

enum { CTX = 512 };

/* Texts in which the same words go on in several ways, so that there is something beside the chain. */
static const char *const texts[] = {
    ("<|im_start|>user\nRepeat: the red fox, the grey wolf, the red hen, the grey cat, the red fox."
     "<|im_end|>\n<|im_start|>assistant\nThe red fox, the grey wolf, the red hen, the grey cat, the red"),
    "a1 b2 a3 b1 a2 b3 a1 b1 a3 b2 a2 b1 a1 b3 a3 b1 a2 b2 a1",
    "One day a cat saw a dog. One day a dog saw a cat. One day a cat saw a bird. One day a",
};

static answer off, on;

/* Every guess and every branch there is, whether or not it pays. */
static const squish_spec none = {.mode = SQUISH_SPEC_OFF},
                         one = {.mode = SQUISH_SPEC_NGRAM, .guesses = 1, .branches = 3},
                         some = {.mode = SQUISH_SPEC_NGRAM, .guesses = 6, .branches = 3},
                         most = {.mode = SQUISH_SPEC_NGRAM, .guesses = 25, .branches = 2},
                         heads = {.mode = SQUISH_SPEC_HEADS, .guesses = 3, .branches = 1},
                         skip = {.mode = SQUISH_SPEC_SKIP, .guesses = 2, .branches = 3},
                         as_pays = {.mode = SQUISH_SPEC_AUTO, .branches = -1};

static squish_gen_options options(float temperature, squish_spec spec) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.seed = 5;
    o.max_tokens = 40;
    o.ignore_eos = true;
    o.spec = spec;
    return o;
}

static squish_tokens tokens_of(const squish_model *m, const char *text) {
    squish_tokens t = {0};
    squish_error err = {0};
    assert_ok(squish_tokenize(m, text, strlen(text), SQUISH_TOK_SPECIAL, &t, &err), &err);
    return t;
}

/* Tokens that came from branches, of all answers of a model. */
static int32_t assert_same_with(run *x, const squish_spec *specs, size_t n_specs) {
    static const float temperatures[] = {0, 0.7f, 1};
    int32_t aside = 0;
    for (size_t i = 0; i < SQ_COUNT(texts); i++) {
        squish_tokens p = tokens_of(x->m, texts[i]);
        for (size_t t = 0; t < SQ_COUNT(temperatures); t++) {
            if (t != i && t != 0 && !run_long()) continue;
            squish_gen_options o = options(temperatures[t], none);
            o.logprobs = t == i ? 2 : -1;
            answer_alone(x->s, p.ids, p.count, &o, &off);
            assert_int_equal(off.stats.gen.aside_tokens, 0);
            for (size_t k = 0; k < n_specs; k++) {
                o.spec = specs[k];
                answer_alone(x->s, p.ids, p.count, &o, &on);
                assert_same_answer(&off, &on);
                aside += on.stats.gen.aside_tokens;
                assert_true(on.stats.gen.right_tokens >= on.stats.gen.aside_tokens);
            }
        }
        squish_tokens_free(&p);
    }
    squish_engine_info info;
    squish_seq_truncate(x->s, 0);
    squish_engine_get_info(x->e, &info);
    assert_int_equal(info.kv_bytes_now, 0);
    return aside;
}

static void branches_are_entered_and_change_nothing(void **state) {
    (void)state;
    const squish_spec specs[] = {one, some, most, heads, as_pays};
    squish_engine_options o = squish_engine_options_default();
    o.ctx_tokens = CTX;
    run x = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &o);
    assert_true(assert_same_with(&x, specs, SQ_COUNT(specs)) > 10);
    run_close(&x);
}

static void likewise_of_few_bits_and_of_own_layers(void **state) {
    (void)state;
    const squish_spec specs[] = {one, most, skip};
    squish_engine_options o = squish_engine_options_default();
    o.ctx_tokens = CTX;
    o.chunk_tokens = 40; /* hardly more than a step of guesses has */
    o.threads = 2;
    run x = run_shallow("models/squish-tiny", 2, SQUISH_METHOD_RTN);
    squish_seq_free(x.s);
    squish_engine_free(x.e);
    squish_error err = {0};
    assert_ok(squish_engine_new(&x.e, x.m, &o, &err), &err);
    assert_ok(squish_seq_new(&x.s, x.e, &err), &err);
    assert_same_with(&x, specs, SQ_COUNT(specs)); /* what it says repeats itself too rarely to count */
    run_close(&x);
}

static void likewise_of_experts_and_latent_attention(void **state) {
    (void)state;
    const squish_spec specs[] = {some};
    squish_engine_options o = squish_engine_options_default();
    o.ctx_tokens = CTX;
    run x = run_open("models/squish-tiny-moe/squish_q8/model.sqw", SQUISH_TIER_AUTO, &o);
    assert_true(assert_same_with(&x, specs, SQ_COUNT(specs)) > 0);
    run_close(&x);
}

/* Answers that pass multiples of 32 and of 128, in caches that seal tiles there; up to the context's end. */
static void tiles_are_sealed_and_turned_back_as_without(void **state) {
    (void)state;
    static const squish_kv kinds[] = {SQUISH_KV_F16, SQUISH_KV_Q8, SQUISH_KV_Q4};
    run x = run_shallow("models/squish-tiny", 2, SQUISH_METHOD_RTN);
    squish_tokens p = tokens_of(x.m, texts[1]);
    int32_t ids[230], aside = 0;
    for (int32_t i = 0; i < 230; i++) ids[i] = p.ids[(size_t)i % p.count];
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        squish_engine_options eo = squish_engine_options_default();
        squish_engine *e;
        squish_seq *s;
        squish_error err = {0};
        eo.ctx_tokens = 416;
        eo.kv = kinds[k];
        assert_ok(squish_engine_new(&e, x.m, &eo, &err), &err);
        assert_ok(squish_seq_new(&s, e, &err), &err);
        for (int t = 0; t < 2; t++) {
            squish_gen_options o = options((float)t, none);
            o.max_tokens = -1;
            answer_alone(s, ids, SQ_COUNT(ids), &o, &off);
            o.spec = t ? one : most;
            answer_alone(s, ids, SQ_COUNT(ids), &o, &on);
            assert_same_answer(&off, &on);
            assert_int_equal(on.finish, SQUISH_FINISH_LENGTH);
            aside += on.stats.gen.aside_tokens;
        }
        squish_seq_free(s);
        squish_engine_info info;
        squish_engine_get_info(e, &info);
        assert_int_equal(info.kv_bytes_now, 0);
        squish_engine_free(e);
    }
    assert_true(aside > 0);
    squish_tokens_free(&p);
    run_close(&x);
}

static void penalties_stops_and_grammars_see_tokens_not_branches(void **state) {
    (void)state;
    static const char *const stops[] = {"wolf, the red hen"};
    static const char re[] = "( (red|grey), (red|grey);){1,12}";
    squish_engine_options eo = squish_engine_options_default();
    squish_grammar *g;
    squish_error err = {0};
    eo.ctx_tokens = CTX;
    run x = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &eo);
    squish_tokens p = tokens_of(x.m, texts[0]);
    assert_ok(squish_grammar_new(&g, x.m, SQUISH_GRAMMAR_REGEX, re, strlen(re), &err), &err);
    for (int k = 0; k < 4; k++) {
        squish_gen_options o = options(k % 2 ? 0.8f : 0, none);
        if (k == 0) o.stop = stops, o.n_stop = 1, o.max_tokens = 60;
        if (k == 1) o.sampling.repetition_penalty = 1.1f, o.sampling.dry_multiplier = 0.4f;
        if (k >= 2) o.grammar = g, o.ignore_eos = false;
        answer_alone(x.s, p.ids, p.count, &o, &off);
        o.spec = some;
        answer_alone(x.s, p.ids, p.count, &o, &on);
        assert_same_answer(&off, &on);
        assert_true(on.stats.gen.guessed_tokens > 0);
    }
    squish_grammar_free(g);
    squish_tokens_free(&p);
    run_close(&x);
}

/* Two timelines in turns: the branches of one are gone when the other runs, or when it is cut or freed. */
static void timelines_in_turns_lose_branches_and_nothing_else(void **state) {
    (void)state;
    enum { N = 30 };
    static int32_t ids[2][N], want[2][N];
    run x = run_shallow("models/squish-tiny", 2, SQUISH_METHOD_RTN);
    squish_seq *s[2] = {x.s, NULL};
    squish_gen *g[2];
    squish_error err = {0};
    squish_gen_event ev;
    assert_ok(squish_seq_new(&s[1], x.e, &err), &err);
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int k = 0; k < 2; k++) {
            squish_tokens p = tokens_of(x.m, texts[k]);
            const squish_gen_options o = options(0, pass ? some : none);
            assert_ok(squish_gen_new(&g[k], s[k], p.ids, p.count, &o, &err), &err);
            squish_tokens_free(&p);
        }
        for (int32_t at[2] = {0, 0}, i = 0; at[0] < N || at[1] < N; i++) {
            const int k = at[1] == N || (at[0] < N && i % 5 < 3) ? 0 : 1;
            assert_ok(squish_gen_next(g[k], &ev, &err), &err);
            (pass ? ids : want)[k][at[k]++] = ev.id;
        }
        for (int k = 0; k < 2; k++) squish_gen_free(g[k]);
    }
    assert_memory_equal(ids, want, sizeof ids);
    squish_seq_truncate(s[1], 3);
    squish_seq_free(s[1]);
    squish_seq_truncate(s[0], 0);
    squish_engine_info info;
    squish_engine_get_info(x.e, &info);
    assert_int_equal(info.kv_bytes_now, 0);
    run_close(&x);
}

/* ---- among others ---------------------------------------------------------------------------- */

/* Jobs that give way, find no room, share a prefix or are cancelled between two tokens. */
static void answers_of_a_batch_are_those_alone_without_branches(void **state) {
    (void)state;
    enum { JOBS = 9 };
    static answer alone[JOBS], many[JOBS];
    const squish_spec specs[] = {some, one, as_pays};
    squish_engine_options one_ctx = squish_engine_options_default();
    one_ctx.ctx_tokens = CTX;
    run x = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &one_ctx);
    squish_tokens p[SQ_COUNT(texts)];
    for (size_t i = 0; i < SQ_COUNT(texts); i++) p[i] = tokens_of(x.m, texts[i]);
    for (int32_t i = 0; i < JOBS; i++) {
        squish_gen_options o = options(i % 2 ? 0.9f : 0, none);
        o.logprobs = i % 4 == 0 ? 1 : -1;
        answer_alone(x.s, p[i % 3].ids, p[i % 3].count, &o, &alone[i]);
    }
    int32_t aside = 0, preempted = 0;
    for (int pass = 0; pass < 3; pass++) {
        squish_engine_options eo = squish_engine_options_default();
        squish_batch_options bo = squish_batch_options_default();
        squish_engine *e;
        squish_batch *b;
        squish_error err = {0};
        squish_job *jobs[JOBS + 1];
        bell *ring = bell_new();
        eo.ctx_tokens = 128;
        eo.kv = pass == 2 ? SQUISH_KV_Q8 : SQUISH_KV_F16;
        bo.jobs_max = pass ? 4 : 1; /* alone each has the room it wants */
        bo.prefix_cache = pass != 1;
        assert_ok(squish_engine_new(&e, x.m, &eo, &err), &err);
        if (pass == 1) {
            squish_engine_info info;
            squish_engine_get_info(e, &info);
            squish_engine_free(e);
            eo.kv_bytes_max = info.kv_bytes_max * 3 / 2;
            assert_ok(squish_engine_new(&e, x.m, &eo, &err), &err);
        }
        assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
        for (int32_t i = 0; i <= JOBS; i++) {
            squish_job_options o = squish_job_options_default();
            o.prompt = p[i % 3].ids;
            o.n_prompt = p[i % 3].count;
            o.gen = options(i % 2 ? 0.9f : 0, specs[i % 3]);
            o.gen.logprobs = i % 4 == 0 ? 1 : -1;
            o.wake = bell_ring;
            o.wake_user = ring;
            assert_ok(squish_job_submit(&jobs[i], b, &o, &err), &err);
        }
        squish_job_free(jobs[JOBS]); /* is cancelled, wherever it is */
        answers_wait(ring, jobs, many, JOBS);
        for (int32_t i = 0; i < JOBS; i++) {
            if (pass != 2) assert_same_answer(&alone[i], &many[i]); /* of fewer bits: another cache */
            aside += many[i].stats.gen.aside_tokens;
            squish_job_free(jobs[i]);
        }
        squish_batch_stats st;
        squish_batch_get_stats(b, &st);
        preempted += (int32_t)st.preemptions;
        squish_batch_free(b);
        squish_engine_info info;
        squish_engine_get_info(e, &info);
        assert_int_equal(info.kv_bytes_now, 0);
        squish_engine_free(e);
        bell_free(ring);
    }
    assert_true(aside > 0);
    assert_true(preempted > 0);
    for (size_t i = 0; i < SQ_COUNT(texts); i++) squish_tokens_free(&p[i]);
    run_close(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(branches_are_entered_and_change_nothing),
        cmocka_unit_test(likewise_of_few_bits_and_of_own_layers),
        cmocka_unit_test(likewise_of_experts_and_latent_attention),
        cmocka_unit_test(tiles_are_sealed_and_turned_back_as_without),
        cmocka_unit_test(penalties_stops_and_grammars_see_tokens_not_branches),
        cmocka_unit_test(timelines_in_turns_lose_branches_and_nothing_else),
        cmocka_unit_test(answers_of_a_batch_are_those_alone_without_branches),
    };
    run_sampled("*e_*s*");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
