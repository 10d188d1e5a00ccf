/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_ratio.c - acceptance by ratio: whatever guesses are drawn from, tokens have the law that the
 * sampler draws from. Each law is compared with 100,000 draws; what a law of K ids differs from so many draws
 * of itself is in the mean at most sqrt(K / N) / 2, and more by x with a chance of exp(-2 N x^2). */
#include "sample/sample_int.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { V = 24, N = 100000 };

static double bound(double k) { return sqrt(k / N) / 2 + sqrt(20.7 / (2.0 * N)); /* one in 10^9 */ }

static sq_sampler *make(const squish_sampling *p) {
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, p, V, V, 1000, NULL, 0, NULL, NULL), SQUISH_OK);
    return s;
}

static squish_sampling plain(void) {
    squish_sampling p = oracle_all_off();
    p.temperature = 0.8f;
    p.seed = 77;
    return p;
}

static int32_t by_ratio(sq_sampler *s, const float *l, const uint64_t *mask, int64_t position, int32_t guess,
                        const sq_proposal *q) {
    sq_sample_result r;
    squish_error err = {0};
    if (sq_sampler_draw_by_ratio(s, l, mask, position, -1, guess, q, &r, &err) != SQUISH_OK)
        fail_msg("%s", err.text);
    return r.id;
}

/* What sq_sampler_draw draws from: the softmax of what mask and top-k leave. */
static void law_of(const float *l, float temperature, const uint64_t *mask, int32_t top_k, double *p) {
    double sum = 0;
    for (int32_t i = 0; i < V; i++) {
        int32_t better = 0;
        for (int32_t j = 0; j < V; j++)
            better += (!mask || (*mask >> j & 1)) && (l[j] > l[i] || (l[j] == l[i] && j < i));
        const bool there = (!mask || (*mask >> i & 1)) && (top_k == 0 || better < top_k);
        sum += p[i] = there ? exp((double)l[i] / (double)temperature) : 0;
    }
    for (int32_t i = 0; i < V; i++) p[i] /= sum;
}

static double distance(const int32_t *count, const double *p, int32_t n) {
    double tv = 0;
    for (int32_t i = 0; i < n; i++) tv += fabs((double)count[i] / N - p[i]);
    return tv / 2;
}

static void fill(float *l, double spread, uint64_t seed) {
    oracle_rng g = {seed};
    for (int32_t i = 0; i < V; i++) l[i] = (float)(spread * oracle_normal(&g));
}

/* Distance of drawn tokens from their law, where guesses come from the softmax of `draft`. told: with the law
 * they were drawn from; else as if any id had been as likely, which is wrong. */
static double tried(const squish_sampling *how, const float *l, const float *draft, const uint64_t *mask,
                    bool told, double *kept) {
    sq_sampler *s = make(how);
    int32_t count[V] = {0}, same = 0;
    sq_proposal any = {.n = V};
    double p[V];
    for (int32_t i = 0; i < V; i++) any.ids[i] = i, any.p[i] = 1.0 / V;
    law_of(l, how->temperature, mask, how->top_k, p);
    for (int32_t i = 0; i < N; i++) {
        sq_proposal q;
        float sure;
        const int32_t guess = sq_sampler_propose(s, draft, NULL, V, i, &q, &sure);
        const int32_t id = by_ratio(s, l, mask, i, guess, told ? &q : &any);
        count[id]++;
        same += id == guess;
    }
    sq_sampler_free(s);
    if (kept) *kept = (double)same / N;
    return distance(count, p, V);
}

static void tokens_have_the_law_of_the_sampler_whatever_is_guessed(void **state) {
    (void)state;
    float l[V], draft[V];
    squish_sampling how = plain();
    for (int k = 0; k < 6; k++) {
        double kept;
        uint64_t mask = 0x5b7d3f;
        fill(l, 1.5, 3);
        /* The same; flat; sure and wrong; another. */
        fill(draft, k == 1 ? 0 : k == 2 ? 6 : 1.5, k == 0 ? 3 : 4);
        how.top_k = k == 4 ? 5 : 0;
        const double tv = tried(&how, l, draft, k == 5 ? &mask : NULL, true, &kept);
        if (tv > bound(V)) fail_msg("case %d: distance %g over %g", k, tv, bound(V));
        if (k == 0) assert_true(kept > 0.99); /* p = q but for the tail that is never guessed */
        /* The test sees a rule that does not know q. */
        if (k == 2 || k == 3) assert_true(tried(&how, l, draft, NULL, false, NULL) > 3 * bound(V));
    }
}

static void guesses_are_kept_as_often_as_the_laws_have_in_common(void **state) {
    (void)state;
    float l[V], draft[V];
    double p[V], q[V], common = 0, kept;
    const squish_sampling how = plain();
    fill(l, 1.2, 9);
    fill(draft, 1.2, 10);
    law_of(l, how.temperature, NULL, 0, p);
    law_of(draft, how.temperature, NULL, 0, q);
    for (int32_t i = 0; i < V; i++) common += fmin(p[i], q[i]);
    tried(&how, l, draft, NULL, true, &kept);
    assert_true(fabs(kept - common) < 0.01);
}

/* An n-gram always guesses the same. */
static void a_certain_guess_is_kept_with_its_own_probability(void **state) {
    (void)state;
    float l[V];
    double p[V];
    const squish_sampling how = plain();
    sq_sampler *s = make(&how);
    fill(l, 1.5, 3);
    law_of(l, how.temperature, NULL, 0, p);
    for (int32_t guess = 0; guess < V; guess += 5) {
        int32_t count[V] = {0};
        for (int32_t i = 0; i < N; i++) count[by_ratio(s, l, NULL, i, guess, NULL)]++;
        assert_true(distance(count, p, V) < bound(V));
    }
    sq_sampler_free(s);
}

/* Two tokens: the law of the second depends on the first, as that of its guess does on the first guess; where
 * the first guess is refused the second token is drawn without one. */
static void two_tokens_have_the_law_of_two(void **state) {
    (void)state;
    enum { K = 6 };
    const squish_sampling how = plain();
    float l[1 + K][V], draft[1 + K][V];
    double p[1 + K][V], both[K * K];
    int32_t count[K * K] = {0}, seconds = 0;
    const uint64_t mask = (1u << K) - 1;
    sq_sampler *s = make(&how);
    for (int32_t k = 0; k <= K; k++) {
        fill(l[k], 1.3, 100 + (uint64_t)k);
        fill(draft[k], 1.3, 200 + (uint64_t)k);
        for (int32_t i = K; i < V; i++) draft[k][i] = -100;
        law_of(l[k], how.temperature, &mask, 0, p[k]);
    }
    for (int32_t a = 0; a < K; a++)
        for (int32_t b = 0; b < K; b++) both[a * K + b] = p[0][a] * p[1 + a][b];
    for (int32_t i = 0; i < N; i++) {
        sq_proposal q[2];
        sq_sample_result r;
        squish_error err = {0};
        float sure;
        int32_t id[2] = {0};
        const int32_t x = sq_sampler_propose(s, draft[0], NULL, V, 2 * i, &q[0], &sure);
        const int32_t y = sq_sampler_propose(s, draft[1 + x], NULL, V, 2 * i + 1, &q[1], &sure);
        id[0] = by_ratio(s, l[0], &mask, 2 * i, x, &q[0]);
        if (id[0] == x)
            id[1] = by_ratio(s, l[1 + x], &mask, 2 * i + 1, y, &q[1]), seconds++;
        else if (sq_sampler_draw(s, l[1 + id[0]], &mask, 2 * i + 1, -1, &r, &err) == SQUISH_OK)
            id[1] = r.id;
        else
            fail_msg("%s", err.text);
        count[id[0] * K + id[1]]++;
    }
    assert_true(seconds > N / 5 && seconds < 4 * (N / 5));
    assert_true(distance(count, both, K * K) < bound(K * K));
    sq_sampler_free(s);
}

static void without_temperature_it_is_the_largest_whatever_is_guessed(void **state) {
    (void)state;
    float l[V];
    squish_sampling how = plain();
    sq_proposal q;
    float sure;
    how.temperature = 0;
    sq_sampler *s = make(&how);
    fill(l, 1.5, 3);
    const int32_t best = sq_argmax(l, V);
    for (int32_t guess = 0; guess < V; guess++) assert_int_equal(by_ratio(s, l, NULL, 1, guess, NULL), best);
    assert_int_equal(sq_sampler_propose(s, l, NULL, V, 1, &q, &sure), best);
    assert_int_equal(q.n, 1);
    assert_true(q.p[0] == 1 && sure > 0);
    l[3] = NAN;
    for (int32_t i = 0; i < V; i++) l[i] = -INFINITY;
    assert_int_equal(sq_sampler_propose(s, l, NULL, V, 1, &q, &sure), -1);
    sq_sampler_free(s);
}

/* A proposal names each id once, sums to 1, and says the same of the same turn. */
static void a_proposal_is_a_law_and_turns_repeat_themselves(void **state) {
    (void)state;
    static float l[1000];
    const squish_sampling how = plain();
    int32_t ids[1000], seen = 0, last = -1;
    sq_sampler *s = make(&how);
    oracle_rng g = {5};
    for (int32_t i = 0; i < 1000; i++) l[i] = (float)(0.5 * oracle_normal(&g)), ids[i] = 3 * i + 1;
    for (int64_t turn = 0; turn < 50; turn++) {
        sq_proposal q, again;
        float sure;
        double sum = 0;
        const int32_t at = sq_sampler_propose(s, l, ids, 1000, turn, &q, &sure);
        bool there = false;
        for (int32_t i = 0; i < q.n; i++) sum += q.p[i], there |= q.ids[i] == ids[at];
        assert_true(there && fabs(sum - 1) < 1e-12 && q.n == SQ_PROPOSAL_MAX);
        for (int32_t i = 1; i < q.n; i++) assert_true(q.p[i] <= q.p[i - 1] && q.ids[i] != q.ids[i - 1]);
        assert_int_equal(sq_sampler_propose(s, l, ids, 1000, turn, &again, &sure), at);
        seen += at != last;
        last = at;
    }
    assert_true(seen > 25);
    sq_sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_have_the_law_of_the_sampler_whatever_is_guessed),
        cmocka_unit_test(guesses_are_kept_as_often_as_the_laws_have_in_common),
        cmocka_unit_test(a_certain_guess_is_kept_with_its_own_probability),
        cmocka_unit_test(two_tokens_have_the_law_of_two),
        cmocka_unit_test(without_temperature_it_is_the_largest_whatever_is_guessed),
        cmocka_unit_test(a_proposal_is_a_law_and_turns_repeat_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
