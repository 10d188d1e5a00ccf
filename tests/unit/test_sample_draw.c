/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_draw.c - the token that is drawn: exact against brute force, right in distribution, a
 * pure function of its place, and refused where the logits are not numbers. */
#include "sample/sample_int.h"
#include "support/faults.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LARGE = 151936, SMALL = 64 };

static sq_sampler *make(const squish_sampling *p, int32_t n) {
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, p, n, n, 1000, NULL, 0, NULL, NULL), SQUISH_OK);
    return s;
}

static int32_t draw(sq_sampler *s, const float *logits, int64_t position) {
    sq_sample_result r;
    squish_error err = {0};
    if (sq_sampler_draw(s, logits, NULL, position, -1, &r, &err) != SQUISH_OK) fail_msg("%s", err.text);
    return r.id;
}

/* ---- exactness ------------------------------------------------------------------------------- */

/* The definition: argmax over the kept ids of l / T - ln(-ln u), u from Philox keyed by
 * splitmix64(seed) and counted by {position, id >> 2, choice, 1}, lane id & 3, 23 bits. */
static int32_t brute_force(const squish_sampling *p, const float *l, const bool *keep, int32_t n,
                           int64_t position) {
    uint64_t state = (uint64_t)p->seed, key64 = sq_splitmix64(&state);
    uint32_t key[2] = {(uint32_t)key64, (uint32_t)(key64 >> 32)}, words[4];
    double best_score = -INFINITY;
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++) {
        uint32_t counter[4] = {(uint32_t)position, (uint32_t)i >> 2, (uint32_t)p->choice, 1};
        if (i % 4 == 0) sq_philox(counter, key, words);
        if (!keep[i] || l[i] == -INFINITY) continue;
        double u = ((words[i & 3] >> 9) + 0.5) / 8388608;
        double score = (double)l[i] / p->temperature - log(-log(u));
        if (!(score > best_score)) continue;
        best_score = score;
        best = i;
    }
    return best;
}

static void pruning_never_changes_the_token(void **state) {
    (void)state;
    static float l[LARGE];
    static bool keep[LARGE];
    oracle_rng g = {41};
    for (int round = 0; round < 48; round++) {
        const float temperatures[] = {0.3f, 0.7f, 1, 5};
        const double spreads[] = {0, 0.01, 2.5, 30};
        squish_sampling p = oracle_all_off();
        p.temperature = temperatures[round % 4];
        p.seed = (int64_t)oracle_next(&g);
        p.choice = oracle_below(&g, 5);
        if (round % 3 == 1) p.top_p = 0.95f;
        if (round % 3 == 2) p.min_p = 0.02f;
        for (int32_t i = 0; i < LARGE; i++) l[i] = (float)(spreads[round / 4 % 4] * oracle_normal(&g));
        oracle_filter(&p, l, LARGE, false, keep);
        sq_sampler *s = make(&p, LARGE);
        for (int64_t position = round; position < round + 3; position++)
            assert_int_equal(draw(s, l, position), brute_force(&p, l, keep, LARGE, position));
        sq_sampler_free(s);
    }
}

static void changed_logits_enter_the_same_race(void **state) {
    (void)state;
    enum { N = 500 };
    float l[N], changed[N];
    bool keep[N];
    oracle_rng g = {42};
    for (int round = 0; round < 300; round++) {
        int32_t ids[8];
        float values[8];
        squish_sampling p = oracle_all_off();
        p.seed = round + 1;
        p.bias_ids = ids;
        p.bias_values = values;
        p.n_bias = 8;
        for (int32_t i = 0; i < N; i++) changed[i] = l[i] = (float)(2 * oracle_normal(&g));
        for (int32_t i = 0; i < 8; i++) {
            ids[i] = i * 60 + oracle_below(&g, 60);
            values[i] = (float)(10 * oracle_normal(&g));
            changed[ids[i]] += values[i];
        }
        memset(keep, true, sizeof keep);
        sq_sampler *s = make(&p, N);
        assert_int_equal(draw(s, l, 9), brute_force(&p, changed, keep, N, 9));
        sq_sampler_free(s);
    }
}

static void greedy_takes_the_lowest_of_the_best_allowed_ids(void **state) {
    (void)state;
    enum { N = 333 };
    float l[N];
    uint64_t mask[N / 64 + 1];
    oracle_rng g = {43};
    squish_sampling p = oracle_all_off();
    p.temperature = 9e-6f;
    for (int round = 0; round < 2000; round++) {
        sq_sampler *s;
        int32_t n_ids = 200 + oracle_below(&g, N - 199);
        assert_int_equal(sq_sampler_new(&s, &p, N, n_ids, 0, NULL, 0, NULL, NULL), SQUISH_OK);
        for (int32_t i = 0; i < N; i++) l[i] = (float)oracle_below(&g, 30);
        for (int32_t w = 0; w < N / 64 + 1; w++) mask[w] = oracle_next(&g) & oracle_next(&g);
        mask[0] |= 1;
        int32_t banned = oracle_below(&g, 60) + 1, want = -1;
        sq_sampler_ban(s, banned, true);
        for (int32_t i = 0; i < n_ids; i++)
            if (i != banned && sq_sample_has_bit(mask, i) && (want < 0 || l[i] > l[want])) want = i;
        sq_sample_result r;
        assert_int_equal(sq_sampler_draw(s, l, mask, round, -1, &r, NULL), SQUISH_OK);
        assert_int_equal(r.id, want);
        sq_sampler_free(s);
    }
}

/* ---- guesses --------------------------------------------------------------------------------- */

/* The race of brute_force among those within 6 T of the best; greedy: the first of the best. */
static int32_t guess_by_force(const squish_sampling *p, const float *l, const int32_t *ids, int32_t n,
                              int32_t but, int64_t position) {
    const double temperature = p->temperature < 1e-5f ? 1 : (double)p->temperature;
    uint64_t state = (uint64_t)p->seed, key64 = sq_splitmix64(&state);
    uint32_t key[2] = {(uint32_t)key64, (uint32_t)(key64 >> 32)}, words[4];
    float top = -INFINITY;
    double best_score = -INFINITY;
    int32_t best = -1;
    for (int32_t i = 0; i < n; i++)
        if (i != but && l[i] > top) top = l[i];
    for (int32_t i = 0; i < n; i++) {
        const int32_t id = ids ? ids[i] : i;
        uint32_t counter[4] = {(uint32_t)position, (uint32_t)id >> 2, (uint32_t)p->choice, 1};
        if (i == but || !(l[i] >= top - 6 * p->temperature)) continue;
        sq_philox(counter, key, words);
        const double u = ((words[id & 3] >> 9) + 0.5) / 8388608;
        const double noise = p->temperature < 1e-5f ? 0 : -log(-log(u));
        const double score = ((double)l[i] - (double)top) / temperature + noise;
        if (!(score > best_score)) continue;
        best_score = score;
        best = i;
    }
    return best;
}

static void a_guess_is_the_race_of_what_is_near_the_best(void **state) {
    (void)state;
    enum { N = 700 };
    float l[N], sure;
    int32_t ids[N];
    oracle_rng g = {44};
    for (int round = 0; round < 2000; round++) {
        const float temperatures[] = {0, 0.3f, 0.7f, 1, 5};
        const double spreads[] = {0, 0.01, 2.5, 30};
        const int32_t n = round % 7 ? 1 + oracle_below(&g, N) : N;
        squish_sampling p = oracle_all_off();
        p.temperature = temperatures[oracle_below(&g, 5)];
        p.seed = round;
        for (int32_t i = 0; i < n; i++) {
            l[i] = (float)(spreads[round % 4] * oracle_normal(&g));
            if (i > 0 && oracle_below(&g, 40) == 0) l[i] = -INFINITY;
            if (i > 0 && oracle_below(&g, 200) == 0) l[i] = NAN;
            ids[i] = round % 3 ? 3 * (N - i) : i;
        }
        const int32_t but = n > 1 && round % 2 ? oracle_below(&g, n - 1) + 1 : -1;
        sq_sampler *s = make(&p, 3 * N + 1);
        const int32_t at = sq_sampler_guess(s, l, ids, n, but, round, &sure);
        assert_int_equal(at, guess_by_force(&p, l, ids, n, but, round));
        assert_true(sure > 0 && sure <= 1);
        if (round % 3 == 0) assert_int_equal(sq_sampler_guess(s, l, NULL, n, but, round, &sure), at);
        sq_sampler_free(s);
    }
}

/* ---- distribution ---------------------------------------------------------------------------- */

/* The value that chi-square with k degrees of freedom exceeds once in a thousand (Wilson and Hilferty,
 * 1931). */
static double chi_square_limit(int k) {
    double a = 2.0 / (9.0 * k), cube = 1 - a + 3.0902 * sqrt(a);
    return k * cube * cube * cube;
}

/* Expected shares; XTC mixes the distribution with and without its exclusion. */
static void expected_shares(const squish_sampling *p, const float *l, double out[SMALL]) {
    bool keep[SMALL];
    double with[SMALL];
    double xtc = p->xtc_threshold > 0 ? (double)p->xtc_probability : 0;
    oracle_filter(p, l, SMALL, false, keep);
    oracle_softmax(p, l, SMALL, keep, out);
    oracle_filter(p, l, SMALL, true, keep);
    oracle_softmax(p, l, SMALL, keep, with);
    for (int i = 0; xtc > 0 && i < SMALL; i++) out[i] = (1 - xtc) * out[i] + xtc * with[i];
}

static void check_frequencies(const squish_sampling *p, const float *l, int32_t n_draws) {
    double shares[SMALL], chi = 0, rare_want = 0, rare_have = 0;
    int32_t counts[SMALL] = {0}, cells = 0;
    expected_shares(p, l, shares);
    sq_sampler *s = make(p, SMALL);
    for (int32_t i = 0; i < n_draws; i++) counts[draw(s, l, i)]++;
    sq_sampler_free(s);
    for (int i = 0; i < SMALL; i++) {
        double want = shares[i] * n_draws;
        if (shares[i] == 0) assert_int_equal(counts[i], 0);
        if (want < 10) { /* too few for the approximation: one cell together */
            rare_want += want;
            rare_have += counts[i];
            continue;
        }
        chi += (counts[i] - want) * (counts[i] - want) / want;
        cells++;
    }
    if (rare_want >= 10) {
        chi += (rare_have - rare_want) * (rare_have - rare_want) / rare_want;
        cells++;
    }
    if (cells < 2) return;
    if (chi > chi_square_limit(cells - 1)) fail_msg("chi-square %.1f with %d cells", chi, cells);
}

/* Draws with one filter, over four distributions: a quarter of a million, with SQUISH_LONG=1 a million. */
static void frequencies_of(squish_sampling p) {
    oracle_rng g = {51};
    float l[SMALL];
    for (int row = 0; row < 4; row++) {
        const double spreads[] = {0.2, 1, 2, 4};
        for (int i = 0; i < SMALL; i++) l[i] = (float)(spreads[row] * oracle_normal(&g));
        p.seed = 100 + row;
        check_frequencies(&p, l, getenv("SQUISH_LONG") ? 250000 : 62500);
    }
}

static void plain_temperature_draws_from_the_softmax(void **state) {
    (void)state;
    frequencies_of(oracle_all_off());
    squish_sampling p = oracle_all_off();
    p.temperature = 0.6f;
    frequencies_of(p);
}

#define FREQUENCY_TEST(name, field, value)         \
    static void name(void **state) {               \
        (void)state;                               \
        squish_sampling p = oracle_all_off();      \
        p.field = value;                           \
        frequencies_of(p);                         \
    }
FREQUENCY_TEST(top_k_draws_from_its_survivors, top_k, 12)
FREQUENCY_TEST(typical_p_draws_from_its_survivors, typical_p, 0.7f)
FREQUENCY_TEST(top_p_draws_from_its_survivors, top_p, 0.8f)
FREQUENCY_TEST(min_p_draws_from_its_survivors, min_p, 0.1f)
FREQUENCY_TEST(top_n_sigma_draws_from_its_survivors, top_n_sigma, 1.2f)

static void xtc_fires_as_often_as_it_says(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    p.xtc_probability = 0.4f;
    p.xtc_threshold = 0.05f;
    frequencies_of(p);
}

static void all_filters_together_draw_from_their_survivors(void **state) {
    (void)state;
    squish_sampling p = {.temperature = 1.2f,
                         .top_k = 40,
                         .typical_p = 0.95f,
                         .top_p = 0.9f,
                         .min_p = 0.02f,
                         .top_n_sigma = 2,
                         .xtc_probability = 0.3f,
                         .xtc_threshold = 0.1f,
                         .repetition_penalty = 1,
                         .dry_base = 1.75f,
                         .dry_allowed_length = 2};
    frequencies_of(p);
}

static void different_places_are_independent(void **state) {
    (void)state;
    /* Pairs of draws at neighbouring positions, seeds and choices over 8 equal tokens: 64 equal cells. */
    float l[8] = {0};
    for (int kind = 0; kind < 3; kind++) {
        int32_t counts[64] = {0}, n = 64000;
        for (int32_t i = 0; i < n; i++) {
            squish_sampling a = oracle_all_off(), b = oracle_all_off();
            a.seed = b.seed = 5;
            if (kind == 1) {
                a.seed = 2 * i;
                b.seed = 2 * i + 1;
            }
            if (kind == 2) b.choice = 1;
            sq_sampler *sa = make(&a, 8), *sb = make(&b, 8);
            counts[draw(sa, l, 2 * i) * 8 + draw(sb, l, kind == 0 ? 2 * i + 1 : 2 * i)]++;
            sq_sampler_free(sa);
            sq_sampler_free(sb);
        }
        double chi = 0;
        for (int i = 0; i < 64; i++) chi += (counts[i] - n / 64.0) * (counts[i] - n / 64.0) / (n / 64.0);
        assert_true(chi < chi_square_limit(63));
    }
}

/* ---- sameness -------------------------------------------------------------------------------- */

static void a_token_depends_on_seed_choice_and_position_alone(void **state) {
    (void)state;
    enum { N = 700, ROWS = 40 };
    static float l[ROWS][N];
    int32_t first[ROWS];
    oracle_rng g = {61};
    squish_sampling p = oracle_all_off();
    p.temperature = 1.5f;
    p.top_p = 0.97f;
    p.seed = -77;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < N; i++) l[r][i] = (float)(2 * oracle_normal(&g));
    sq_sampler *s = make(&p, N), *other = make(&p, N);
    for (int r = 0; r < ROWS; r++) first[r] = draw(s, l[r], 1000 + r);
    for (int r = ROWS - 1; r >= 0; r--) { /* backwards, twice, between other draws, with log-probabilities */
        draw(other, l[(r * 7) % ROWS], 5);
        assert_int_equal(draw(other, l[r], 1000 + r), first[r]);
        sq_sample_result result;
        assert_int_equal(sq_sampler_draw(other, l[r], NULL, 1000 + r, 5, &result, NULL), SQUISH_OK);
        assert_int_equal(result.id, first[r]);
    }
    sq_sampler_free(s);
    sq_sampler_free(other);
}

static void a_token_without_effect_on_the_row_changes_nothing(void **state) {
    (void)state;
    /* An all-ones mask, a lifted ban and a bias of zero take other paths through the code to the same
     * token. */
    enum { N = 700 };
    float l[N], zero = 0;
    int32_t id = 17;
    uint64_t mask[N / 64 + 1];
    oracle_rng g = {62};
    memset(mask, 0xFF, sizeof mask);
    squish_sampling p = oracle_all_off(), q = p;
    q.bias_ids = &id;
    q.bias_values = &zero;
    q.n_bias = 1;
    sq_sampler *s = make(&p, N), *t = make(&q, N);
    sq_sampler_ban(t, 300, true);
    sq_sampler_ban(t, 300, false);
    for (int round = 0; round < 500; round++) {
        for (int i = 0; i < N; i++) l[i] = (float)oracle_normal(&g);
        sq_sample_result r;
        assert_int_equal(sq_sampler_draw(t, l, mask, round, -1, &r, NULL), SQUISH_OK);
        assert_int_equal(r.id, draw(s, l, round));
    }
    sq_sampler_free(s);
    sq_sampler_free(t);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refuse(sq_sampler *s, const float *l, const uint64_t *mask, int32_t n_top, squish_status st,
                   const char *text) {
    sq_sample_result r;
    squish_error err = {0};
    assert_int_equal(sq_sampler_draw(s, l, mask, 12, n_top, &r, &err), st);
    assert_string_equal(err.text, text);
    assert_int_equal(r.id, -1);
}

static void logits_that_are_not_numbers_are_refused_by_name(void **state) {
    (void)state;
    enum { N = 130 };
    float l[N] = {0};
    uint64_t none[3] = {0};
    for (int greedy = 0; greedy < 2; greedy++) {
        squish_sampling p = oracle_all_off();
        p.temperature = greedy ? 0 : 1;
        sq_sampler *s = make(&p, N);
        l[129] = NAN;
        refuse(s, l, NULL, -1, SQUISH_NUMERIC, "position 12: the logit of token 129 is nan");
        refuse(s, l, none, -1, SQUISH_NUMERIC, "position 12: the logit of token 129 is nan");
        l[129] = 0;
        l[63] = INFINITY;
        refuse(s, l, NULL, -1, SQUISH_NUMERIC, "position 12: the logit of token 63 is inf");
        l[63] = 0;
        refuse(s, l, none, -1, SQUISH_NUMERIC, "position 12: no token is allowed");
        refuse(s, l, NULL, 21, SQUISH_INVALID, "n_top: 21 is outside -1..20");
        refuse(s, l, NULL, -2, SQUISH_INVALID, "n_top: -2 is outside -1..20");
        for (int i = 0; i < N; i++) l[i] = -INFINITY;
        refuse(s, l, NULL, -1, SQUISH_NUMERIC, "position 12: no token is allowed");
        l[77] = -3e38f; /* one way out is enough */
        assert_int_equal(draw(s, l, 12), 77);
        for (int i = 0; i < N; i++) l[i] = 0;
        sq_sampler_free(s);
    }
}

static void a_penalty_that_overflows_is_refused(void **state) {
    (void)state;
    float l[2] = {3e38f, 0};
    squish_sampling p = oracle_all_off();
    p.repetition_penalty = 0.01f;
    sq_sampler *s = make(&p, 2);
    sq_sampler_accept(s, 0, false);
    refuse(s, l, NULL, -1, SQUISH_NUMERIC, "position 12: a penalty made a logit infinite");
    sq_sampler_free(s);
}

static void extreme_but_finite_logits_are_drawn(void **state) {
    (void)state;
    float l[3] = {-3e38f, 3e38f, 2.9e38f};
    for (unsigned set = 0; set < 32; set++) {
        squish_sampling p = oracle_all_off();
        p.temperature = set & 1 ? 1e-5f : 5;
        if (set & 2) p.top_k = 2;
        if (set & 4) p.top_p = 0.9f;
        if (set & 8) p.typical_p = 0.9f;
        if (set & 16) p.min_p = 0.1f;
        sq_sampler *s = make(&p, 3);
        assert_int_equal(draw(s, l, 0), 1);
        sq_sampler_free(s);
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void drawing_and_accepting_allocate_nothing(void **state) {
    (void)state;
    enum { N = 5000 };
    static float l[N];
    oracle_rng g = {71};
    struct sq_test_alloc_state mem = {0};
    squish_alloc a = sq_test_alloc(&mem);
    squish_sampling p = {.temperature = 1.2f,
                         .typical_p = 0.95f,
                         .top_p = 0.9f,
                         .min_p = 0.02f,
                         .top_n_sigma = 2,
                         .xtc_probability = 0.3f,
                         .xtc_threshold = 0.1f,
                         .repetition_penalty = 1.1f,
                         .repeat_last_n = 64,
                         .frequency_penalty = 0.5f,
                         .presence_penalty = 0.5f,
                         .dry_multiplier = 0.8f,
                         .dry_base = 1.75f,
                         .dry_allowed_length = 2,
                         .dry_last_n = -1};
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, N, N, 4096, NULL, 0, &a, NULL), SQUISH_OK);
    assert_int_equal(mem.count, 1);
    for (int32_t t = 0; t < 500; t++) {
        for (int i = 0; i < N; i++) l[i] = (float)(3 * oracle_normal(&g));
        sq_sample_result r;
        sq_sampler_ban(s, t % 50, t & 1);
        assert_int_equal(sq_sampler_draw(s, l, NULL, t, t % 22 - 1, &r, NULL), SQUISH_OK);
        sq_sampler_accept(s, r.id, true);
    }
    assert_int_equal(mem.count, 1);
    sq_sampler_free(s);
    assert_int_equal(mem.live_blocks, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pruning_never_changes_the_token),
        cmocka_unit_test(changed_logits_enter_the_same_race),
        cmocka_unit_test(greedy_takes_the_lowest_of_the_best_allowed_ids),
        cmocka_unit_test(a_guess_is_the_race_of_what_is_near_the_best),
        cmocka_unit_test(plain_temperature_draws_from_the_softmax),
        cmocka_unit_test(top_k_draws_from_its_survivors),
        cmocka_unit_test(typical_p_draws_from_its_survivors),
        cmocka_unit_test(top_p_draws_from_its_survivors),
        cmocka_unit_test(min_p_draws_from_its_survivors),
        cmocka_unit_test(top_n_sigma_draws_from_its_survivors),
        cmocka_unit_test(xtc_fires_as_often_as_it_says),
        cmocka_unit_test(all_filters_together_draw_from_their_survivors),
        cmocka_unit_test(different_places_are_independent),
        cmocka_unit_test(a_token_depends_on_seed_choice_and_position_alone),
        cmocka_unit_test(a_token_without_effect_on_the_row_changes_nothing),
        cmocka_unit_test(logits_that_are_not_numbers_are_refused_by_name),
        cmocka_unit_test(a_penalty_that_overflows_is_refused),
        cmocka_unit_test(extreme_but_finite_logits_are_drawn),
        cmocka_unit_test(drawing_and_accepting_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
