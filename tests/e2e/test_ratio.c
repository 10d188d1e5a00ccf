/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ratio.c - guesses that are kept by ratio: the law of answers is that without guesses, whoever guesses,
 * alone and in a batch, under a grammar and filters; a seed and a number of guesses give one text. */
#include "support/batch_run.h"

#include <math.h>
#include <stdio.h>

enum { CTX = 256, SEEDS = 600, OUTCOMES = 9 };

static const char text[] =
    "a b a c b a a c b c a b c c a b b a c. yes no yes yes no yes no no yes yes no yes no yes yes no yes";

static run shared;
static squish_tokens prompt;
static answer one, other;

/* By ratio. */
static const squish_spec none = {.mode = SQUISH_SPEC_OFF},
                         ngrams = {.mode = SQUISH_SPEC_NGRAM, .guesses = 4, .accept = SQUISH_ACCEPT_RATIO},
                         layers = {.mode = SQUISH_SPEC_SKIP, .guesses = 3, .accept = SQUISH_ACCEPT_RATIO},
                         as_pays = {.mode = SQUISH_SPEC_SKIP, .accept = SQUISH_ACCEPT_RATIO};

static int open_shared(void **state) {
    (void)state;
    squish_error err = {0};
    shared = run_shallow("models/squish-tiny", 2, SQUISH_METHOD_RTN);
    assert_ok(squish_tokenize(shared.m, text, strlen(text), SQUISH_TOK_SPECIAL, &prompt, &err), &err);
    return 0;
}

static int close_shared(void **state) {
    (void)state;
    squish_tokens_free(&prompt);
    run_close(&shared);
    return 0;
}

static squish_gen_options options(float temperature, squish_spec spec, int64_t seed) {
    squish_gen_options o = squish_gen_options_default();
    o.sampling.temperature = temperature;
    o.sampling.top_p = 1;
    o.sampling.seed = seed;
    o.max_tokens = 24;
    o.ignore_eos = true;
    o.spec = spec;
    return o;
}

static squish_grammar *grammar_of(const char *re) {
    squish_grammar *g;
    squish_error err = {0};
    assert_ok(squish_grammar_new(&g, shared.m, SQUISH_GRAMMAR_REGEX, re, strlen(re), &err), &err);
    return g;
}

static void a_seed_and_as_many_guesses_give_one_text_and_greedy_is_greedy(void **state) {
    (void)state;
    const squish_spec specs[] = {ngrams, layers};
    int32_t differ = 0, right = 0;
    for (size_t k = 0; k < SQ_COUNT(specs); k++)
        for (int64_t seed = 0; seed < 6; seed++) {
            squish_gen_options o = options(0.9f, specs[k], seed);
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &one);
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &other);
            assert_same_answer(&one, &other);
            assert_true(k == 0 || one.stats.gen.guessed_tokens > 0);
            right += one.stats.gen.right_tokens;
            o.spec = none;
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &other);
            differ += strcmp(one.text, other.text) != 0;
            o = options(0, none, seed);
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &one);
            o.spec = specs[k];
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &other);
            assert_same_answer(&one, &other);
        }
    assert_true(differ > 0 && right > 0);
}

/* The third and fourth token, of three each, in a loop that n-grams foresee and layers guess. */
static void count_outcomes(squish_spec spec, const squish_gen_options *how, int32_t *count, int64_t first,
                           int32_t *guessed) {
    memset(count, 0, OUTCOMES * sizeof *count);
    for (int64_t seed = first; seed < first + SEEDS; seed++) {
        squish_gen_options o = *how;
        o.spec = spec;
        o.sampling.seed = seed;
        squish_gen *g;
        squish_gen_event ev = {0};
        squish_gen_stats st;
        squish_error err = {0};
        int32_t at = 0;
        assert_ok(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, &o, &err), &err);
        char all[64] = "";
        while (ev.finish == SQUISH_FINISH_NONE) {
            assert_ok(squish_gen_next(g, &ev, &err), &err);
            strncat(all, ev.text, sizeof all - strlen(all) - 1);
        }
        squish_gen_get_stats(g, &st);
        *guessed += st.guessed_tokens;
        squish_gen_free(g);
        /* " a b c d": of words a, b, c in any order; the last two count. */
        assert_true(strlen(all) >= 8);
        for (int k = 2; k < 4; k++) at = 3 * at + (all[2 * k + 1] - 'a');
        assert_in_range(at, 0, OUTCOMES - 1);
        count[at]++;
    }
}

static double apart(const int32_t *a, const int32_t *b) {
    double tv = 0;
    for (int32_t i = 0; i < OUTCOMES; i++) tv += fabs((double)(a[i] - b[i])) / SEEDS;
    return tv / 2;
}

static void answers_have_the_law_of_those_without_guesses(void **state) {
    (void)state;
    /* Two samples of one law are apart by at most sqrt(K / (pi N)) in the mean, and by x more with a chance
     * of exp(-N x^2). The law itself is held to account in test_sample_ratio.c. */
    const double bound = sqrt(OUTCOMES / (3.14159 * SEEDS)) + sqrt(6.0 / SEEDS);
    squish_grammar *g = grammar_of("( (a|b|c)){4}");
    squish_gen_options how = options(1.2f, none, 0);
    int32_t off[OUTCOMES], on[OUTCOMES], guessed = 0;
    how.grammar = g;
    how.ignore_eos = false;
    count_outcomes(none, &how, off, 0, &guessed);
    assert_int_equal(guessed, 0);
    const squish_spec specs[] = {ngrams, layers, as_pays};
    for (size_t k = 0; k < SQ_COUNT(specs); k++) {
        guessed = 0;
        count_outcomes(specs[k], &how, on, 1000000 * (int64_t)(k + 1), &guessed);
        if (apart(off, on) > bound) fail_msg("spec %zu: apart by %g", k, apart(off, on));
        if (k < 2) assert_true(guessed > SEEDS / 4);
    }
    squish_grammar_free(g);
}

static void grammars_penalties_and_stops_are_kept_to(void **state) {
    (void)state;
    static const char *const stops[] = {"no no"};
    squish_grammar *g = grammar_of("( (yes|no)){2,9}");
    const squish_spec specs[] = {ngrams, layers};
    for (size_t k = 0; k < SQ_COUNT(specs); k++)
        for (int64_t seed = 0; seed < 12; seed++) {
            squish_gen_options o = options(1.1f, specs[k], seed);
            o.grammar = g;
            o.ignore_eos = false;
            o.stop = stops, o.n_stop = 1;
            o.sampling.repetition_penalty = 1.05f;
            o.sampling.top_k = 5;
            o.logprobs = seed % 2 ? 1 : -1;
            answer_alone(shared.s, prompt.ids, prompt.count, &o, &one);
            assert_int_equal(one.status, SQUISH_OK);
            for (const char *p = one.text; *p; p += strncmp(p, " yes", 4) == 0 ? 4 : 3)
                if (strncmp(p, " yes", 4) != 0 && strncmp(p, " no", 3) != 0 && strcmp(p, " ") != 0)
                    fail_msg("'%s'", one.text);
                else if (strcmp(p, " ") == 0)
                    break; /* the stop string is cut away */
            assert_null(strstr(one.text, "no no"));
        }
    squish_grammar_free(g);
}

/* A job is the answer alone, if it has as many guesses. */
static void in_a_batch_of_one_it_is_the_answer_alone(void **state) {
    (void)state;
    squish_batch_options bo = squish_batch_options_default();
    squish_engine_options eo = squish_engine_options_default();
    squish_engine *e;
    squish_batch *b;
    squish_error err = {0};
    bell *ring = bell_new();
    eo.ctx_tokens = CTX;
    bo.jobs_max = 1;
    assert_ok(squish_engine_new(&e, shared.m, &eo, &err), &err);
    assert_ok(squish_batch_new(&b, e, &bo, &err), &err);
    for (int k = 0; k < 2; k++) {
        squish_job_options o = squish_job_options_default();
        squish_job *j;
        o.prompt = prompt.ids;
        o.n_prompt = prompt.count;
        o.gen = options(0.9f, k ? layers : ngrams, 3 + k);
        o.wake = bell_ring;
        o.wake_user = ring;
        answer_alone(shared.s, prompt.ids, prompt.count, &o.gen, &one);
        assert_ok(squish_job_submit(&j, b, &o, &err), &err);
        answers_wait(ring, &j, &other, 1);
        assert_same_answer(&one, &other);
        squish_job_free(j);
    }
    squish_batch_free(b);
    squish_engine_free(e);
    bell_free(ring);
}

static void ratio_beside_branches_is_refused_by_both_names(void **state) {
    (void)state;
    squish_gen *g;
    squish_error err = {0};
    squish_spec both = ngrams;
    both.branches = 1;
    const squish_gen_options o = options(1, both, 1);
    assert_int_equal(squish_gen_new(&g, shared.s, prompt.ids, prompt.count, &o, &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "--spec-accept ratio"));
    assert_non_null(strstr(err.text, "--spec-branches"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_and_as_many_guesses_give_one_text_and_greedy_is_greedy),
        cmocka_unit_test(answers_have_the_law_of_those_without_guesses),
        cmocka_unit_test(grammars_penalties_and_stops_are_kept_to),
        cmocka_unit_test(in_a_batch_of_one_it_is_the_answer_alone),
        cmocka_unit_test(ratio_beside_branches_is_refused_by_both_names),
    };
    run_sampled("*a_*");
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
