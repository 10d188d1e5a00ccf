/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spec.c - guesses change nothing but the number of steps: an answer with them is the answer without,
 * byte for byte, log-probabilities included. */
#include "support/batch_run.h"

#include <stdio.h>
#include <time.h>

enum { CTX = 640 };

/* Texts that repeat themselves, so that there is something to guess; most guesses behind the last are wrong.
 */
static const char *const texts[] = {
    "<|im_start|>user\nRepeat: the red fox, the grey wolf, the red fox, the grey wolf.<|im_end|>\n"
    "<|im_start|>assistant\nThe red fox, the grey wolf, the red",
    "<|im_start|>user\nWhat is the capital of France? What is the capital of Spain?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "a1 b2 a3 b1 a2 b3 a1 b1 a3 b2 a2 b1 a1 b3 a3 b1 a2 b2 a1",
};

static run shared;
static squish_tokens prompts[SQ_COUNT(texts)];
static answer off, on;

static int open_shared(void **state) {
    (void)state;
    squish_engine_options o = squish_engine_options_default();
    squish_error err = {0};
    o.ctx_tokens = CTX;
    shared = run_open("models/squish-tiny", SQUISH_TIER_SOURCE, &o);
    for (size_t i = 0; i < SQ_COUNT(texts); i++)
        assert_ok(
            squish_tokenize(shared.m, texts[i], strlen(texts[i]), SQUISH_TOK_SPECIAL, &prompts[i], &err),
            &err);
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(texts); i++) squish_tokens_free(&prompts[i]);
    run_close(&shared);
    return 0;
}

static squish_gen_options options(float temperature, squish_spec spec) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.top_p = 0.95f;
    o.sampling.seed = 11;
    o.max_tokens = 40;
    o.ignore_eos = true; /* an answer goes on until it repeats itself */
    o.spec = spec;
    return o;
}

static const squish_spec none = {.mode = SQUISH_SPEC_OFF}, as_pays = {.mode = SQUISH_SPEC_AUTO},
                         few = {.mode = SQUISH_SPEC_NGRAM, .guesses = 3},
                         many = {.mode = SQUISH_SPEC_NGRAM, .guesses = 31},
                         drafts = {.mode = SQUISH_SPEC_HEADS, .guesses = 4},
                         sure_drafts = {.mode = SQUISH_SPEC_HEADS};

static void answers_are_the_same_with_guesses_at_every_temperature(void **state) {
    (void)state;
    static const float temperatures[] = {0, 0.7f, 1};
    const squish_spec specs[] = {as_pays, few, many}, by_heads[] = {drafts, sure_drafts};
    int32_t guessed = 0, right = 0;
    for (size_t i = 0; i < SQ_COUNT(texts); i++)
        for (size_t t = 0; t < SQ_COUNT(temperatures); t++) {
            /* Each text, temperature and way of guessing; SQUISH_LONG=1: every text at every temperature. */
            if (t != i && t != i + 1 && !run_long()) continue;
            squish_gen_options o = options(temperatures[t], none);
            o.logprobs = t == 1 ? 2 : -1;
            answer_alone(shared.s, prompts[i].ids, prompts[i].count, &o, &off);
            assert_int_equal(off.stats.gen.guessed_tokens, 0);
            for (int k = 0; k < 2; k++) {
                o.spec = k ? by_heads[(i + t) % 2] : specs[(i + t) % SQ_COUNT(specs)];
                answer_alone(shared.s, prompts[i].ids, prompts[i].count, &o, &on);
                assert_same_answer(&off, &on);
                guessed += on.stats.gen.guessed_tokens;
                right += on.stats.gen.right_tokens;
            }
        }
    assert_true(right > 0 && right < guessed); /* both ways were gone */
}

static void penalties_stops_and_grammars_see_tokens_not_guesses(void **state) {
    (void)state;
    static const char *const stops[] = {"wolf, the red fox, the grey"};
    squish_grammar *g;
    squish_error err = {0};
    static const char re[] = "( (yes|no), (yes|no);){1,12}";
    assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, re, strlen(re), &err), &err);
    for (int k = 0; k < 3; k++) {
        squish_gen_options o = options(k == 1 ? 0.8f : 0, none);
        if (k == 0) o.stop = stops, o.n_stop = 1, o.max_tokens = 60;
        if (k == 1) o.sampling.repetition_penalty = 1.1f, o.sampling.dry_multiplier = 0.4f;
        if (k == 2) o.grammar = g, o.ignore_eos = false;
        answer_alone(shared.s, prompts[0].ids, prompts[0].count, &o, &off);
        o.spec = many;
        answer_alone(shared.s, prompts[0].ids, prompts[0].count, &o, &on);
        assert_same_answer(&off, &on);
        assert_true(on.stats.gen.guessed_tokens > 0);
        o.spec = drafts;
        answer_alone(shared.s, prompts[0].ids, prompts[0].count, &o, &on);
        assert_same_answer(&off, &on);
    }
    squish_grammar_free(g);
}

/* A prompt that fills the context up to a few tokens, and caches that seal tiles on the way. */
static void caches_in_fewer_bits_forget_what_was_guessed_wrongly(void **state) {
    (void)state;
    static const squish_kv kinds[] = {SQUISH_KV_Q8, SQUISH_KV_Q2};
    int32_t ids[300];
    for (int32_t i = 0; i < 300; i++) ids[i] = prompts[2].ids[(size_t)i % prompts[2].count];
    for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
        squish_engine_options eo = squish_engine_options_default();
        squish_engine *e;
        squish_seq *s;
        squish_error err = {0};
        eo.ctx_tokens = 400;
        eo.kv = kinds[k];
        assert_ok(squish_engine_new(&e, shared.m, &eo, &err), &err);
        assert_ok(squish_seq_new(&s, e, &err), &err);
        squish_gen_options o = options(0.9f, none);
        o.max_tokens = -1;
        answer_alone(s, ids, SQ_COUNT(ids), &o, &off);
        o.spec = k ? few : drafts;
        answer_alone(s, ids, SQ_COUNT(ids), &o, &on);
        assert_same_answer(&off, &on);
        assert_int_equal(on.finish, SQUISH_FINISH_LENGTH);
        assert_true(on.stats.gen.guessed_tokens > on.stats.gen.right_tokens);
        squish_seq_free(s);
        squish_engine_free(e);
    }
}

/* Two timelines of one engine in turns: what one has tried is gone when the other has run. */
static void timelines_in_turns_lose_guesses_and_nothing_else(void **state) {
    (void)state;
    squish_seq *s[2] = {shared.s, NULL};
    squish_gen *g[2];
    squish_error err = {0};
    squish_gen_event ev;
    enum { N = 24 };
    static int32_t ids[2][N], want[2][N];
    assert_ok(squish_seq_new(&s[1], shared.e, &err), &err);
    for (int32_t pass = 0; pass < 2; pass++) {
        for (int k = 0; k < 2; k++) {
            const squish_gen_options o = options(0, !pass ? none : k ? drafts : many);
            assert_ok(squish_gen_new(&g[k], s[k], prompts[k].ids, prompts[k].count, &o, &err), &err);
        }
        for (int32_t at[2] = {0, 0}, i = 0; at[0] < N || at[1] < N; i++) {
            const int k =
                at[1] == N || (at[0] < N && i % 3 < 2) ? 0 : 1; /* two of the first, one of the other */
            assert_ok(squish_gen_next(g[k], &ev, &err), &err);
            (pass ? ids : want)[k][at[k]++] = ev.id;
        }
        for (int k = 0; k < 2; k++) squish_gen_free(g[k]);
    }
    assert_memory_equal(ids, want, sizeof ids);
    squish_seq_free(s[1]);
}

/* An answer that is given up leaves a timeline without guesses. */
static void a_timeline_goes_on_where_an_answer_was_left(void **state) {
    (void)state;
    squish_gen *g;
    squish_error err = {0};
    squish_gen_event ev;
    const squish_gen_options o = options(0, many);
    const int32_t vocab = 12288;
    float *want = malloc((size_t)vocab * sizeof *want);
    assert_non_null(want);
    squish_seq_truncate(shared.s, 0);
    assert_ok(squish_seq_sync(shared.s, prompts[1].ids, prompts[1].count, &err), &err);
    memcpy(want, squish_seq_logits(shared.s), (size_t)vocab * sizeof *want);
    assert_ok(squish_gen_new(&g, shared.s, prompts[0].ids, prompts[0].count, &o, &err), &err);
    for (int i = 0; i < 3; i++) assert_ok(squish_gen_next(g, &ev, &err), &err);
    squish_gen_free(g);
    assert_ok(squish_seq_sync(shared.s, prompts[1].ids, prompts[1].count, &err), &err);
    assert_memory_equal(squish_seq_logits(shared.s), want, (size_t)vocab * sizeof *want);
    free(want);
}

/* ---- among others ---------------------------------------------------------------------------- */

static void answers_of_a_batch_are_those_alone_without_guesses(void **state) {
    (void)state;
    enum { JOBS = 9 };
    static answer alone[JOBS], many_on[JOBS];
    const squish_spec specs[] = {many, as_pays, drafts};
    squish_engine_options eo = squish_engine_options_default();
    squish_batch_options bo = squish_batch_options_default();
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    squish_job *jobs[JOBS];
    bell *ring = bell_new();
    eo.ctx_tokens = 256;
    eo.kv_bytes_max = 12u << 20; /* about 3 times 256 tokens: some give way, guesses find no room */
    bo.jobs_max = 5;
    assert_ok(squish_engine_new(&e, shared.m, &eo, &err), &err);
    for (int32_t i = 0; i < JOBS; i++) {
        squish_gen_options o = options(i % 2 ? 0.9f : 0, none);
        o.logprobs = i % 3 == 0 ? 1 : -1;
        answer_alone(shared.s, prompts[i % 3].ids, prompts[i % 3].count, &o, &alone[i]);
    }
    assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
    for (int32_t i = 0; i < JOBS; i++) {
        squish_job_options o = squish_job_options_default();
        o.prompt = prompts[i % 3].ids;
        o.n_prompt = prompts[i % 3].count;
        o.gen = options(i % 2 ? 0.9f : 0, specs[i % 3]);
        o.gen.logprobs = i % 3 == 0 ? 1 : -1;
        o.wake = bell_ring;
        o.wake_user = ring;
        assert_ok(squish_job_submit(&jobs[i], b, &o, &err), &err);
    }
    answers_wait(ring, jobs, many_on, JOBS);
    int32_t guessed = 0, right = 0;
    for (int32_t i = 0; i < JOBS; i++) {
        assert_same_answer(&alone[i], &many_on[i]);
        guessed += many_on[i].stats.gen.guessed_tokens;
        right += many_on[i].stats.gen.right_tokens;
        squish_job_free(jobs[i]);
    }
    squish_batch_stats st;
    squish_batch_get_stats(b, &st);
    for (; st.running > 0; squish_batch_get_stats(b, &st)) /* published behind the last events */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_true(right > 0 && right < guessed);
    assert_int_equal(st.guessed_tokens, guessed);
    assert_int_equal(st.right_tokens, right);
    squish_batch_free(b);
    squish_engine_free(e);
    bell_free(ring);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same_with_guesses_at_every_temperature),
        cmocka_unit_test(penalties_stops_and_grammars_see_tokens_not_guesses),
        cmocka_unit_test(caches_in_fewer_bits_forget_what_was_guessed_wrongly),
        cmocka_unit_test(timelines_in_turns_lose_guesses_and_nothing_else),
        cmocka_unit_test(a_timeline_goes_on_where_an_answer_was_left),
        cmocka_unit_test(answers_of_a_batch_are_those_alone_without_guesses),
    };
    run_sampled("*batch*");
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
