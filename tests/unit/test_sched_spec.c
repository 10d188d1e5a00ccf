/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sched_spec.c - what is guessed, and when it pays, without a model. */
#include "sched/sched_spec.h"
#include "support/faults.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

static const squish_alloc *alloc(void) {
    static squish_alloc a;
    a = sq_alloc_default();
    return &a;
}

static sq_ngram *ngram(int32_t max, const char *text) {
    sq_ngram *g;
    squish_error err = {0};
    assert_ok(sq_ngram_new(&g, max, alloc(), &err), &err);
    for (; *text; text++) sq_ngram_accept(g, *text);
    return g;
}

/* What is guessed behind a text, one token a byte. */
static void assert_guess(const char *text, int32_t want_length, const char *want) {
    int32_t ids[8], length;
    sq_ngram *g = ngram(64, text);
    const int32_t n = sq_ngram_find(g, ids, 8, &length);
    assert_int_equal(n, *want ? 8 : 0);
    for (int32_t i = 0; i < n; i++) assert_int_equal(ids[i], want[i]);
    if (n) assert_int_equal(length, want_length);
    sq_ngram_free(g);
}

static void the_longest_earlier_place_is_followed_and_of_several_the_latest(void **state) {
    (void)state;
    assert_guess("", 0, "");
    assert_guess("a", 0, "");
    assert_guess("abcdefgh", 0, "");
    assert_guess("one two 12345678, a two 9 two", 4, " 9 two 9"); /* " two" came twice: the latest */
    assert_guess("the cat sat; the dog ran off; the cat", 7,
                 " sat; the");             /* "the cat" is longer than " cat" */
    assert_guess("xyxyxy", 4, "xyxyxyxy"); /* a period goes on */
    assert_guess("aaa", 2, "aaaaaaaa");
}

static void tokens_past_the_longest_timeline_are_not_recorded(void **state) {
    (void)state;
    int32_t ids[4], length;
    sq_ngram *g = ngram(6, "abcabc");
    sq_ngram_accept(g, 'z');
    assert_int_equal(sq_ngram_find(g, ids, 4, &length), 4);
    assert_int_equal(ids[0], 'a');
    sq_ngram_free(g);
}

/* "<at><first tokens>" of each branch beside n guesses, by spaces. */
static void assert_others(const char *text, int32_t n, const char *want) {
    int32_t ids[8], length;
    char found[64] = "";
    sq_branch b[SQ_BRANCHES_MAX];
    sq_ngram *g = ngram(128, text);
    sq_ngram_find(g, ids, n, &length);
    const int32_t k = sq_ngram_others(g, ids, n, b);
    for (int32_t i = 0; i < k; i++) {
        const size_t at = strlen(found);
        assert_int_equal(b[i].n, SQ_BRANCH_TOKENS);
        assert_true(i == 0 || b[i].length <= b[i - 1].length);
        snprintf(found + at, sizeof found - at, "%d%c%c ", b[i].at, (char)b[i].ids[0], (char)b[i].ids[1]);
    }
    assert_string_equal(found, want);
    sq_ngram_free(g);
}

static void other_places_branch_off_where_they_leave_the_chain(void **state) {
    (void)state;
    assert_others("", 4, "");
    assert_others("abcd, abce, ab", 4, "1d, ");  /* chain: "ce, ", other: "cd, " */
    assert_others("abcd, abce, abc", 4, "0d, "); /* chain: "e, a" */
    assert_others("abxyz. abxqr. ab", 1, "");    /* the chain, "x", is left behind its end */
    assert_others("xabc1 xabd2 yab3 xab", 4, "0c1 03  ");       /* chain: "d2 y"; then the longest */
    assert_others("ab1 ab2 ab3 ab4 ab5 ab", 4, "04  03  02  "); /* the latest three, each once */
    assert_others("ab1 ab2 ab1 ab2 ab5 ab", 4, "02  01  ");
    assert_others("zzzz", 4, "");
}

/* ---- what pays ------------------------------------------------------------------------------- */

static sq_guess_rates rates;

static sq_spec *spec_of(squish_spec_mode mode, int32_t guesses) {
    sq_spec *s;
    squish_error err = {0};
    const squish_spec o = {.mode = mode, .guesses = guesses};
    sq_guess_rates_init(&rates);
    assert_ok(sq_spec_new(&s, &o, 4096, 0, alloc(), &err), &err);
    for (int i = 0; i < 6; i++)
        for (const char *t = "It was a bright cold day in April."; *t; t++) sq_spec_accept(s, *t);
    return s;
}

/* Guesses in a step of one answer that costs 1 and slope more for each row. */
static int32_t guesses_at(sq_spec *s, double slope, int32_t seen) {
    int32_t ids[SQ_GUESS_MAX];
    sq_step_cost c = {.row_ms = 0};
    for (int32_t n = 1; n <= seen; n++) c.alone_ms[n] = 1 + slope * (n - 1);
    sq_spec_step at = {.cost = &c, .rates = &rates, .rows = 1, .tokens = 1};
    const int32_t n = sq_spec_guess(s, &at, 0, 31, ids);
    assert_int_equal(at.rows, 1 + n);
    assert_true(at.tokens >= 1);
    return n;
}

static void cheap_rows_get_many_guesses_and_dear_ones_none(void **state) {
    (void)state;
    sq_spec *s = spec_of(SQUISH_SPEC_AUTO, 0);
    assert_int_equal(guesses_at(s, 0, 0), 0); /* nothing was measured */
    assert_true(guesses_at(s, 0.02, 32) > 10);
    const int32_t some = guesses_at(s, 0.3, 32);
    assert_true(some > 0 && some <= guesses_at(s, 0.1, 32));
    for (int i = 0; i < 64; i++) guesses_at(s, 0.02, 32), sq_spec_result(s, 0, &rates); /* all wrong */
    assert_int_equal(guesses_at(s, 0.3, 32), 0);
    sq_spec_free(s);
}

/* Others get one token a step whoever guesses, so the step may not grow. */
static void in_company_guesses_take_only_what_is_free(void **state) {
    (void)state;
    sq_spec *s = spec_of(SQUISH_SPEC_AUTO, 0);
    int32_t ids[SQ_GUESS_MAX];
    sq_step_cost c = {.row_ms = 0};
    for (int32_t n = 1; n <= 32; n++) c.alone_ms[n] = n <= 8 ? 1 : 1 + 0.03 * (n - 8);
    sq_spec_step at = {.cost = &c, .rates = &rates, .rows = 4, .tokens = 4, .ms_max = 1.02};
    assert_int_equal(sq_spec_guess(s, &at, 0, 31, ids), 4);
    at = (sq_spec_step){.cost = &c, .rates = &rates, .rows = 4, .tokens = 4};
    assert_true(sq_spec_guess(s, &at, 0, 31, ids) > 4);
    sq_spec_free(s);
}

static void rows_that_were_never_run_are_tried_by_and_by(void **state) {
    (void)state;
    sq_spec *s = spec_of(SQUISH_SPEC_NGRAM, 0);
    int32_t ids[SQ_GUESS_MAX], last = 0;
    sq_step_cost c = {.row_ms = 0};
    sq_step_cost_add(&c, 1, 0, 1);
    for (int i = 0; i < 6; i++) {
        sq_spec_step at = {.cost = &c, .rates = &rates, .rows = 1, .tokens = 1};
        const int32_t n = sq_spec_guess(s, &at, 0, 31, ids);
        assert_true(n <= 2 * (last + 1) + 1);
        sq_step_cost_add(&c, n + 1, 0, 1 + 0.01 * n);
        sq_spec_result(s, n, &rates);
        last = n;
    }
    assert_true(last > 16);
    sq_spec_free(s);
}

static void what_no_longer_pays_is_tried_again_after_a_while(void **state) {
    (void)state;
    sq_spec *s = spec_of(SQUISH_SPEC_AUTO, 0);
    int32_t tried = 0, steps = 0;
    for (int i = 0; i < 64; i++) guesses_at(s, 0.02, 32), sq_spec_result(s, 0, &rates);
    for (; steps < 640; steps++) {
        tried += guesses_at(s, 0.5, 32);
        sq_spec_result(s, 0, &rates);
        sq_spec_accept(s, "It was a bright cold day in April."[steps % 34]);
    }
    assert_true(tried >= 5 && tried <= 11);
    const sq_spec_count n = sq_spec_counts(s);
    assert_true(n.guessed > tried && n.right == 0);
    sq_spec_free(s);
}

static void a_number_of_guesses_that_was_asked_for_is_kept_to(void **state) {
    (void)state;
    sq_spec *s = spec_of(SQUISH_SPEC_NGRAM, 5);
    assert_int_equal(guesses_at(s, 10, 32), 5);
    sq_spec_cut(s, 2);
    sq_spec_result(s, 2, &rates);
    assert_int_equal(sq_spec_counts(s).guessed, 2);
    assert_int_equal(sq_spec_counts(s).right, 2);
    sq_spec_free(s);
}

/* Branches beside the guesses of a step in which a row costs slope of a step. Texts go on in two ways. */
static sq_spec *two_ways(int32_t guesses, int32_t branches) {
    sq_spec *s;
    squish_error err = {0};
    const squish_spec o = {.mode = SQUISH_SPEC_NGRAM, .guesses = guesses, .branches = branches};
    sq_guess_rates_init(&rates);
    assert_ok(sq_spec_new(&s, &o, 4096, 0, alloc(), &err), &err);
    for (const char *t = "the red fox, the grey wolf, the red hen, the grey"; *t; t++) sq_spec_accept(s, *t);
    for (const char *t = " cat, the red"; *t; t++) sq_spec_accept(s, *t);
    return s;
}

static int32_t branches_at(sq_spec *s, double slope, int32_t rows, int32_t max, sq_branch *b, int32_t *n) {
    int32_t ids[SQ_GUESS_MAX];
    sq_step_cost c = {.row_ms = 0};
    for (int32_t k = 1; k <= 32; k++) c.alone_ms[k] = 1 + slope * (k - 1);
    sq_spec_step at = {.cost = &c, .rates = &rates, .rows = 1, .tokens = 1};
    *n = sq_spec_guess(s, &at, 0, max, ids);
    const double before = at.tokens;
    const int32_t k = sq_spec_branches(s, &at, ids, *n, max, rows, b);
    int32_t all = 1 + *n;
    for (int32_t i = 0; i < k; i++) all += b[i].n;
    assert_int_equal(at.rows, all);
    assert_true(at.tokens >= before);
    return k;
}

static void branches_are_tried_as_often_as_asked_for_within_the_room(void **state) {
    (void)state;
    sq_branch b[SQ_BRANCHES_MAX];
    int32_t n;
    sq_spec *s = two_ways(4, 3);
    assert_int_equal(branches_at(s, 10, 31, 31, b, &n), 1);
    assert_int_equal(n, 4);
    assert_int_equal(b[0].at, 1); /* " hen", " fox" */
    assert_int_equal(b[0].ids[0], 'f');
    assert_int_equal(b[0].n, SQ_BRANCH_TOKENS);
    assert_int_equal(branches_at(s, 10, 2, 31, b, &n), 1);
    assert_int_equal(b[0].n, 2); /* two rows */
    assert_int_equal(branches_at(s, 10, 0, 31, b, &n), 0);
    assert_int_equal(branches_at(s, 10, 31, 3, b, &n), 1);
    assert_int_equal(b[0].at + b[0].n, 3); /* the context ends */
    sq_spec_free(s);
    s = two_ways(4, 0);
    assert_int_equal(branches_at(s, 0, 31, 31, b, &n), 0);
    sq_spec_free(s);
}

static void branches_pay_where_they_were_right_and_rows_are_cheap(void **state) {
    (void)state;
    sq_branch b[SQ_BRANCHES_MAX];
    int32_t n;
    sq_spec *s = two_ways(4, -1);
    assert_int_equal(branches_at(s, 0.9, 31, 31, b, &n), 0);
    assert_int_equal(branches_at(s, 0.05, 31, 31, b, &n), 0);
    for (int i = 0; i < 100; i++) { /* the chain is wrong behind its first guess, and the branch is right */
        branches_at(s, 0.05, 31, 31, b, &n);
        sq_spec_aside(s, 1, 'f', 0, 0, &rates);
        sq_spec_result(s, 1, &rates);
    }
    assert_int_equal(branches_at(s, 0.05, 31, 31, b, &n), 1);
    assert_true(b[0].n > 1);
    float most = 0; /* that other answers begin with */
    for (int32_t c = 0; c < SQ_GUESS_CLASSES; c++) most = fmaxf(most, rates.aside[SQUISH_SPEC_NGRAM][c]);
    assert_true(most > 0.9f);
    for (int i = 0; i < 200; i++) { /* neither is right */
        branches_at(s, 0.05, 31, 31, b, &n);
        sq_spec_aside(s, 1, 'Z', 0, 0, &rates);
        sq_spec_result(s, 1, &rates);
    }
    assert_int_equal(branches_at(s, 0.05, 31, 31, b, &n), 0);
    sq_spec_free(s);
}

static void tokens_of_branches_count(void **state) {
    (void)state;
    sq_branch b[SQ_BRANCHES_MAX];
    int32_t n;
    sq_spec *s = two_ways(4, 3);
    branches_at(s, 0.1, 31, 31, b, &n);
    sq_spec_aside(s, 1, 'f', 3, 4, &rates);
    sq_spec_result(s, 1, &rates);
    const sq_spec_count c = sq_spec_counts(s);
    assert_int_equal(c.guessed, 8);
    assert_int_equal(c.right, 4);
    assert_int_equal(c.aside, 3);
    sq_spec_free(s);
}

/* ---- drafts ---------------------------------------------------------------------------------- */

/* Guesses 100, 101, ..; the first `sure` of them are sure. */
static struct {
    sq_drafter d;
    int32_t asked, sure, n_since, lag, begun, ended;
    float first;
} fake;

static int32_t fake_lag(sq_drafter *d, const sq_draft_from *from) {
    (void)d;
    return from->n_since < 1 ? -1 : fake.lag;
}

static bool fake_begin(sq_drafter *d, const sq_draft_from *from) {
    (void)d;
    fake.asked = 0;
    fake.n_since = from->n_since;
    fake.first = from->h[0];
    fake.begun++;
    return from->since[from->n_since - 1] == '.';
}

static void fake_end(sq_drafter *d) {
    (void)d;
    fake.ended++;
}

static int32_t fake_next(sq_drafter *d, int64_t position, float *sure) {
    (void)d;
    assert_int_equal(position, 1000 + fake.asked);
    *sure = fake.asked < fake.sure ? 0.95f : 0.1f;
    return 100 + fake.asked++;
}

/* ms: what a draft is said to cost; steps of n rows cost 1 + slope * (n - 1). */
static int32_t drafts_at(sq_spec *s, double ms, double slope, int32_t *ids) {
    sq_step_cost c = {.row_ms = 0};
    for (int32_t n = 1; n <= 32; n++) c.alone_ms[n] = 1 + slope * (n - 1);
    fake.d = (sq_drafter){.mode = SQUISH_SPEC_HEADS,
                          .most = 4,
                          .ms = ms,
                          .row_ms = ms / 4,
                          .credit = fake.d.credit,
                          .shy = fake.d.shy,
                          .lag = fake_lag,
                          .begin = fake_begin,
                          .next = fake_next,
                          .end = fake_end};
    fake.asked = 0;
    sq_spec_step at = {.cost = &c, .rates = &rates, .rows = 1, .tokens = 1, .drafter = &fake.d};
    const int32_t n = sq_spec_guess(s, &at, 1000, 31, ids);
    assert_int_equal(at.rows, 1 + n);
    return n;
}

static sq_spec *drafting(squish_spec_mode mode, int32_t guesses) {
    static const float h[4] = {42};
    sq_spec *s;
    squish_error err = {0};
    const squish_spec o = {.mode = mode, .guesses = guesses};
    sq_guess_rates_init(&rates);
    assert_ok(sq_spec_new(&s, &o, 4096, 4, alloc(), &err), &err);
    for (const char *t = "No letters twice"; *t; t++) sq_spec_accept(s, *t);
    sq_spec_behind(s, h);
    sq_spec_accept(s, '.');
    return s;
}

static void a_draft_is_asked_where_it_pays_and_goes_on_while_it_is_sure(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX];
    sq_spec *s = drafting(SQUISH_SPEC_AUTO, 0);
    fake.sure = 4;
    assert_int_equal(drafts_at(s, 0.02, 0.1, ids), 4);
    assert_int_equal(ids[3], 103);
    assert_int_equal(fake.n_since, 1);
    assert_true(fake.first == 42);
    sq_spec_cut(s, 0);
    sq_spec_result(s, 0, &rates);
    fake.sure = 2;
    assert_int_equal(drafts_at(s, 0.02, 0.3, ids), 2);
    assert_true(fake.asked < 4); /* what is unsure ends it */
    assert_int_equal(drafts_at(s, 5, 0.1, ids), 0); /* too dear: */
    assert_int_equal(fake.asked, 0);                /* it is not even asked */
    sq_spec_free(s);
}

static void drafts_that_are_wrong_are_no_longer_asked_for(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX], asked = 0;
    sq_spec *s = drafting(SQUISH_SPEC_HEADS, 0);
    fake.sure = 4;
    for (int i = 0; i < 40; i++) {
        fake.d.credit = 0; /* nothing is put aside */
        drafts_at(s, 0.1, 0.1, ids);
        asked = fake.asked;
        sq_spec_result(s, 0, &rates);
    }
    assert_int_equal(asked, 0);
    assert_true(rates.place[SQUISH_SPEC_HEADS][0] < 0.6f);
    sq_spec_free(s);
}

/* Others of the engine do better: what this one lost by bad luck comes back without a single draft. */
static void some_bad_guesses_in_a_row_are_forgotten(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX];
    sq_spec *s = drafting(SQUISH_SPEC_HEADS, 0);
    fake.sure = 4;
    fake.d.credit = 0;
    for (int i = 0; i < 40; i++) { /* nearly free, so it is asked until little is hoped for */
        drafts_at(s, 0.001, 0.02, ids);
        sq_spec_result(s, 0, &rates);
        fake.d.credit = 0;
    }
    sq_guess_rates_init(&rates);
    assert_int_equal(drafts_at(s, 0.02, 0.1, ids), 0);
    int32_t steps = 0;
    for (fake.asked = 0; steps < 200 && fake.asked == 0; steps++) {
        fake.d.credit = 0;
        drafts_at(s, 0.02, 0.1, ids);
    }
    assert_in_range(steps, 4, 60);
    sq_spec_free(s);
}

/* Steps of 1 ms, guesses of 0.1 ms with a row of 0.1: a share of 0.008 pays for one in 25 steps, and after
 * every one that is wrong for half as many. */
static void what_finding_out_costs_is_a_share_of_all_steps_that_shrinks(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX], asked = 0;
    sq_spec *s = drafting(SQUISH_SPEC_HEADS, 0);
    fake.sure = 4;
    for (int i = 0; i < 400; i++) {
        fake.d.credit = 0;
        drafts_at(s, 0.1, 0.1, ids);
        sq_spec_result(s, 0, &rates);
    }
    fake.d.credit = fake.d.shy = 0;
    int32_t at[64];
    for (int i = 0; i < 700; i++) {
        const int32_t n = drafts_at(s, 0.1, 0.1, ids);
        assert_true(n <= 1);
        if (fake.asked) at[asked++] = i;
        sq_spec_result(s, 0, &rates);
    }
    assert_in_range(asked, 7, 9); /* behind 25, 50 and then every 100 steps */
    assert_in_range(at[0], 20, 30);
    assert_in_range(at[asked - 1] - at[asked - 2], 90, 110);
    fake.sure = 4;
    for (int i = 0; i < 200 && fake.d.shy > 0; i++) { /* it is right again */
        fake.d.credit = 1;
        sq_spec_result(s, drafts_at(s, 0.1, 0.1, ids), &rates);
    }
    assert_true(fake.d.shy == 0);
    sq_spec_free(s);
}

static void a_timeline_is_read_first_where_the_rest_of_the_answer_pays_for_it(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX];
    sq_spec *s = drafting(SQUISH_SPEC_HEADS, 0);
    fake.sure = 4;
    fake.d.credit = 0;
    fake.lag = 20; /* 20 * 0.005 ms */
    assert_true(drafts_at(s, 0.02, 0.1, ids) > 0);
    sq_spec_cut(s, 0);
    sq_spec_result(s, 0, &rates);
    fake.lag = 100000; /* 500 ms, for 128 tokens of less than 1 ms */
    fake.begun = fake.ended = 0;
    assert_int_equal(drafts_at(s, 0.02, 0.1, ids), 0);
    assert_int_equal(fake.begun, 0);
    fake.lag = -1;
    assert_int_equal(drafts_at(s, 0.02, 0.1, ids), 0);
    fake.lag = 0;
    assert_true(drafts_at(s, 0.02, 0.1, ids) > 0);
    assert_int_equal(fake.ended, 1);
    sq_spec_free(s);
}

static void a_sure_ngram_goes_before_a_draft_and_other_modes_ask_nobody(void **state) {
    (void)state;
    int32_t ids[SQ_GUESS_MAX];
    sq_spec *s = spec_of(SQUISH_SPEC_AUTO, 0); /* has no hidden state, and a text that repeats itself */
    assert_true(drafts_at(s, 0.02, 0.1, ids) > 4);
    assert_int_equal(fake.asked, 0);
    sq_spec_free(s);
    s = drafting(SQUISH_SPEC_NGRAM, 0);
    assert_int_equal(drafts_at(s, 0.02, 0.1, ids), 0);
    assert_int_equal(fake.asked, 0);
    sq_spec_free(s);
    s = drafting(SQUISH_SPEC_HEADS, 3);
    fake.sure = 0;
    assert_int_equal(drafts_at(s, 5, 5, ids), 3); /* asked for by number */
    for (int i = 0; i <= SQ_SINCE_MAX; i++) sq_spec_accept(s, 'x'); /* too far from its hidden state */
    assert_int_equal(drafts_at(s, 0.01, 0.01, ids), 0);
    sq_spec_free(s);
}

static void options_out_of_range_are_refused_and_off_is_nothing(void **state) {
    (void)state;
    sq_spec *s;
    squish_error err = {0};
    const squish_spec off = {.mode = SQUISH_SPEC_OFF}, odd = {.mode = (squish_spec_mode)99},
                      many = {.guesses = SQ_GUESS_MAX + 1}, wide = {.branches = SQ_BRANCHES_MAX + 1};
    assert_ok(sq_spec_new(&s, &off, 16, 0, alloc(), &err), &err);
    assert_null(s);
    assert_int_equal(sq_spec_counts(s).guessed, 0);
    assert_int_equal(sq_spec_new(&s, &odd, 16, 0, alloc(), &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "mode is 99"));
    err = (squish_error){0};
    assert_int_equal(sq_spec_new(&s, &many, 16, 0, alloc(), &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "guesses is 32"));
    err = (squish_error){0};
    assert_int_equal(sq_spec_new(&s, &wide, 16, 0, alloc(), &err), SQUISH_INVALID);
    assert_non_null(strstr(err.text, "branches is 4"));
}

static void costs_between_two_that_were_seen_lie_between_them(void **state) {
    (void)state;
    sq_step_cost c = {.row_ms = 0};
    assert_int_equal(sq_step_cost_seen(&c), 0);
    sq_step_cost_add(&c, 1, 0, 10);
    assert_true(sq_step_cost_alone(&c, 1) == 10);
    assert_true(sq_step_cost_alone(&c, 2) > 10);
    c.alone_ms[9] = 18;
    assert_int_equal(sq_step_cost_seen(&c), 9);
    assert_true(sq_step_cost_alone(&c, 5) == 14);
    assert_true(sq_step_cost_alone(&c, 10) == 19);
    sq_step_cost_add(&c, 3, 0, 8); /* less than one row takes: noise */
    assert_true(sq_step_cost_alone(&c, 2) >= 9 && sq_step_cost_alone(&c, 2) <= 10);
}

/* Steps that nobody disturbs settle where they are; those that somebody does stay near. */
static void a_disturbed_step_says_little_of_its_rows(void **state) {
    (void)state;
    sq_step_cost c = {.row_ms = 0};
    sq_step_cost_add(&c, 1, 0, 40); /* the first reads weights from the disk */
    for (int i = 0; i < 8; i++) sq_step_cost_add(&c, 1, 0, 10);
    assert_true(sq_step_cost_alone(&c, 1) < 10.2);
    sq_step_cost_add(&c, 3, 0, 30); /* the first of three rows, disturbed */
    assert_true(sq_step_cost_seen(&c) == 3 && sq_step_cost_alone(&c, 3) < 19);
    sq_step_cost_add(&c, 3, 0, 11);
    sq_step_cost_add(&c, 3, 0, 11);
    assert_true(sq_step_cost_alone(&c, 3) > 11 && sq_step_cost_alone(&c, 3) < 13);
    for (int i = 0; i < 100; i++) sq_step_cost_add(&c, 3, 0, i % 8 ? 11 : 22);
    assert_true(sq_step_cost_alone(&c, 3) >= 11 && sq_step_cost_alone(&c, 3) < 12.5);
    for (int i = 0; i < 60; i++) sq_step_cost_add(&c, 3, 0, 22); /* somebody stays */
    assert_true(sq_step_cost_alone(&c, 3) > 21.9 && sq_step_cost_alone(&c, 3) <= 22);
}

static void an_index_takes_what_is_planned_for_it(void **state) {
    (void)state;
    static const int32_t lengths[] = {1, 64, 1000, 40000};
    for (size_t i = 0; i < SQ_COUNT(lengths); i++) {
        struct sq_test_alloc_state count = {0};
        const squish_alloc a = sq_test_alloc(&count);
        sq_ngram *g;
        squish_error err = {0};
        assert_ok(sq_ngram_new(&g, lengths[i], &a, &err), &err);
        assert_int_equal(count.live_bytes, sq_ngram_bytes(lengths[i]));
        sq_ngram_free(g);
        assert_int_equal(count.live_bytes, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_earlier_place_is_followed_and_of_several_the_latest),
        cmocka_unit_test(an_index_takes_what_is_planned_for_it),
        cmocka_unit_test(tokens_past_the_longest_timeline_are_not_recorded),
        cmocka_unit_test(cheap_rows_get_many_guesses_and_dear_ones_none),
        cmocka_unit_test(in_company_guesses_take_only_what_is_free),
        cmocka_unit_test(rows_that_were_never_run_are_tried_by_and_by),
        cmocka_unit_test(what_no_longer_pays_is_tried_again_after_a_while),
        cmocka_unit_test(a_number_of_guesses_that_was_asked_for_is_kept_to),
        cmocka_unit_test(other_places_branch_off_where_they_leave_the_chain),
        cmocka_unit_test(branches_are_tried_as_often_as_asked_for_within_the_room),
        cmocka_unit_test(branches_pay_where_they_were_right_and_rows_are_cheap),
        cmocka_unit_test(tokens_of_branches_count),
        cmocka_unit_test(a_draft_is_asked_where_it_pays_and_goes_on_while_it_is_sure),
        cmocka_unit_test(drafts_that_are_wrong_are_no_longer_asked_for),
        cmocka_unit_test(some_bad_guesses_in_a_row_are_forgotten),
        cmocka_unit_test(what_finding_out_costs_is_a_share_of_all_steps_that_shrinks),
        cmocka_unit_test(a_timeline_is_read_first_where_the_rest_of_the_answer_pays_for_it),
        cmocka_unit_test(a_sure_ngram_goes_before_a_draft_and_other_modes_ask_nobody),
        cmocka_unit_test(options_out_of_range_are_refused_and_off_is_nothing),
        cmocka_unit_test(costs_between_two_that_were_seen_lie_between_them),
        cmocka_unit_test(a_disturbed_step_says_little_of_its_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
