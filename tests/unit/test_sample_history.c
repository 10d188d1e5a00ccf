/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_history.c - bias, penalties, DRY and bans against brute force over random timelines. */
#include "sample/sample_int.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { VOCAB_MAX = 70, HISTORY_MAX = 200 };

static float uniform(oracle_rng *g, double lo, double hi) {
    return (float)(lo + (hi - lo) * oracle_unit(g));
}

static squish_sampling random_penalties(oracle_rng *g) {
    squish_sampling p = oracle_all_off();
    const int32_t windows[] = {-1, 0, 1, 2, 5, 64, HISTORY_MAX, 1 << 30};
    if (oracle_below(g, 4)) p.repetition_penalty = uniform(g, 0.5, 2);
    p.repeat_last_n = windows[oracle_below(g, 8)];
    if (oracle_below(g, 2)) p.frequency_penalty = uniform(g, -2, 2);
    if (oracle_below(g, 2)) p.presence_penalty = uniform(g, -2, 2);
    if (oracle_below(g, 4)) p.dry_multiplier = uniform(g, 0.1, 2);
    p.dry_base = oracle_below(g, 4) ? uniform(g, 1.01, 3) : 1;
    p.dry_allowed_length = 1 + oracle_below(g, 7);
    p.dry_last_n = windows[oracle_below(g, 8)];
    return p;
}

/* One timeline: at several lengths every processed logit equals the oracle's, and no other id is marked. */
static void run_timeline(oracle_rng *g) {
    int32_t n_vocab = 1 + oracle_below(g, VOCAB_MAX), letters = 1 + oracle_below(g, n_vocab);
    bool is_break[VOCAB_MAX] = {0};
    int32_t breakers[2], n_breakers = oracle_below(g, 3), h[HISTORY_MAX];
    for (int32_t i = 0; i < n_breakers; i++) {
        breakers[i] = oracle_below(g, n_vocab);
        is_break[breakers[i]] = true;
    }
    int32_t ids[4], n_bias = oracle_below(g, 5);
    float values[4], logits[VOCAB_MAX];
    double bias[VOCAB_MAX] = {0};
    for (int32_t i = 0; i < n_bias; i++) {
        ids[i] = oracle_below(g, n_vocab);
        values[i] = uniform(g, -9, 9);
        bias[ids[i]] += values[i];
    }

    squish_sampling p = random_penalties(g);
    p.bias_ids = ids;
    p.bias_values = values;
    p.n_bias = n_bias;
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, n_vocab, n_vocab, HISTORY_MAX, breakers, n_breakers, NULL, NULL),
                     SQUISH_OK);
    int32_t n_prompt = oracle_below(g, 40), banned = oracle_below(g, n_vocab);
    assert_true(sq_sampler_ban(s, banned, true));
    for (int32_t n = 0; n < HISTORY_MAX; n++) {
        /* often repeat what stood some places earlier, so that long matches come about */
        h[n] = n > 8 && oracle_below(g, 4) ? h[n - 7] : oracle_below(g, letters);
        sq_sampler_accept(s, h[n], n >= n_prompt);
        if (n % 13) continue;
        for (int32_t i = 0; i < n_vocab; i++) logits[i] = uniform(g, -10, 10);
        sq_sample_row r = {.s = s, .logits = logits};
        sq_sample_process(&r);
        for (int32_t x = 0; x < n_vocab; x++) {
            float have = logits[x];
            for (int32_t i = 0; i < s->n_entries; i++)
                if (s->entries[i].id == x) have = s->entries[i].l;
            double want = oracle_processed(&p, logits[x], bias[x], h, n + 1, n_prompt, is_break, x);
            if (x == banned) want = -INFINITY;
            if (have == want) continue;
            if (!(fabs(have - want) <= 2e-6 * (fabs(want) + 10)))
                fail_msg("length %d, id %d: %g, wanted %g", n + 1, x, (double)have, want);
        }
    }
    sq_sampler_free(s);
}

static void processed_logits_are_those_of_the_definition(void **state) {
    (void)state;
    oracle_rng g = {21};
    for (int i = 0; i < 400; i++) run_timeline(&g);
}

static sq_sampler *make(squish_sampling p, const int32_t *breakers, int32_t n) {
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, 100, 100, 50, breakers, n, NULL, NULL), SQUISH_OK);
    return s;
}

/* The processed logit of id in a row of ones. */
static float processed_of(sq_sampler *s, int32_t id) {
    float logits[100];
    for (int i = 0; i < 100; i++) logits[i] = 1;
    sq_sample_row r = {.s = s, .logits = logits};
    sq_sample_process(&r);
    return sq_sample_entry_of(s, id)->l;
}

static void dry_counts_the_tokens_that_would_be_repeated(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    p.dry_multiplier = 1;
    p.dry_base = 2;
    p.dry_allowed_length = 2;
    sq_sampler *s = make(p, NULL, 0);
    const int32_t text[] = {10, 11, 12, 13, 14, 10, 11, 12, 13};
    for (int i = 0; i < 8; i++) sq_sampler_accept(s, text[i], true);
    assert_true(processed_of(s, 13) == 1 - 2.0f); /* three tokens repeat: 1 * 2^(3-2) */
    sq_sampler_accept(s, text[8], true);
    assert_true(processed_of(s, 14) == 1 - 4.0f);
    assert_true(processed_of(s, 13) == 1);
    sq_sampler_free(s);
}

static void dry_stops_at_a_breaker(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    p.dry_multiplier = 1;
    p.dry_base = 2;
    const int32_t text[] = {10, 50, 12, 13, 14, 10, 50, 12, 13}, breaker = 50;
    sq_sampler *s = make(p, &breaker, 1);
    for (int i = 0; i < 9; i++) sq_sampler_accept(s, text[i], true);
    assert_true(processed_of(s, 14) == 1 - 1.0f); /* only 12 13 count */
    sq_sampler_free(s);
}

static void the_dry_penalty_stays_below_ten_thousand(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    p.dry_multiplier = 1;
    p.dry_base = 10;
    p.dry_allowed_length = 1;
    sq_sampler *s = make(p, NULL, 0);
    for (int i = 0; i < 50; i++) sq_sampler_accept(s, 7, true);
    assert_true(processed_of(s, 7) == 1 - 1000.0f);
    sq_sampler_free(s);
}

static void a_ban_can_be_lifted_and_sixty_four_are_possible(void **state) {
    (void)state;
    float logits[100] = {0};
    sq_sampler *s = make(oracle_all_off(), NULL, 0);
    s->p.temperature = 0;
    sq_sample_result r;
    for (int32_t id = 0; id < 64; id++) assert_true(sq_sampler_ban(s, id, true));
    assert_false(sq_sampler_ban(s, 64, true));
    assert_false(sq_sampler_ban(s, 65, false));
    assert_false(sq_sampler_ban(s, -1, true));
    assert_false(sq_sampler_ban(s, 100, true));
    assert_int_equal(sq_sampler_draw(s, logits, NULL, 0, -1, &r, NULL), SQUISH_OK);
    assert_int_equal(r.id, 64);
    assert_true(sq_sampler_ban(s, 5, true)); /* again is not one more */
    assert_true(sq_sampler_ban(s, 5, false));
    assert_int_equal(sq_sampler_draw(s, logits, NULL, 0, -1, &r, NULL), SQUISH_OK);
    assert_int_equal(r.id, 5);
    sq_sampler_free(s);
}

static void what_cannot_be_recorded_is_left_out(void **state) {
    (void)state;
    squish_sampling p = oracle_all_off();
    p.presence_penalty = 1;
    sq_sampler *s = make(p, NULL, 0);
    sq_sampler_accept(s, -1, true);
    sq_sampler_accept(s, 100, true);
    assert_int_equal(s->n_history, 0);
    for (int i = 0; i < 60; i++) sq_sampler_accept(s, i, true);
    assert_int_equal(s->n_history, 50); /* history_max */
    assert_int_equal(s->n_entries, 50);
    sq_sampler_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processed_logits_are_those_of_the_definition),
        cmocka_unit_test(dry_counts_the_tokens_that_would_be_repeated),
        cmocka_unit_test(dry_stops_at_a_breaker),
        cmocka_unit_test(the_dry_penalty_stays_below_ten_thousand),
        cmocka_unit_test(a_ban_can_be_lifted_and_sixty_four_are_possible),
        cmocka_unit_test(what_cannot_be_recorded_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
