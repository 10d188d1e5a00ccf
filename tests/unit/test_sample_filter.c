/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sample_filter.c - every combination of filters keeps exactly the set that a full sort in double
 * keeps; what is said of single ids without a list, and drawn without one, agrees with it. */
#include "sample/sample_int.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N_FILTERS = 6, LARGE = 151936 };

/* Shapes of rows: a bell, a few peaks over a bell, all equal, few levels (ties everywhere), a ramp, one
 * giant. */
enum { BELL, PEAKS, EQUAL, LEVELS, RAMP, GIANT, N_SHAPES };

static void fill(oracle_rng *g, int shape, float *l, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        switch (shape) {
        case BELL: l[i] = (float)(2.5 * oracle_normal(g)); break;
        case PEAKS: l[i] = (float)(oracle_below(g, 40) ? oracle_normal(g) : 12 + 3 * oracle_normal(g)); break;
        case EQUAL: l[i] = 0.75f; break;
        case LEVELS: l[i] = (float)oracle_below(g, 9) * 0.37f; break;
        case RAMP: l[i] = (float)i * 1e-3f; break;
        default: l[i] = (float)(oracle_normal(g) * 0.3 + (i == n / 2 ? 80 : 0)); break;
        }
        if (oracle_below(g, 50) == 0) l[i] = -INFINITY;
    }
    l[n / 3] = 1;
}

/* Options with the filters of `set` (one bit each) at random strengths. */
static squish_sampling options(oracle_rng *g, unsigned set, int32_t n) {
    squish_sampling p = oracle_all_off();
    const float temperatures[] = {0.2f, 0.7f, 1, 1.3f, 5};
    p.temperature = temperatures[oracle_below(g, 5)];
    if (set & 1) p.top_k = 1 + oracle_below(g, oracle_below(g, 2) ? 50 : n);
    if (set & 2) p.typical_p = (float)oracle_unit(g);
    if (set & 4) p.top_p = (float)(oracle_below(g, 2) ? oracle_unit(g) : 1 - 0.1 * oracle_unit(g));
    if (set & 8) p.min_p = (float)(oracle_unit(g) * oracle_unit(g) * oracle_unit(g));
    if (set & 16) p.top_n_sigma = (float)(3 * oracle_unit(g));
    if (set & 32) {
        p.xtc_probability = 1;
        p.xtc_threshold = (float)(0.3 * oracle_unit(g));
    }
    return p;
}

/* What the sampler keeps, as a set over ids; returns how many. */
static int32_t survivors_of(sq_sampler *s, const float *logits, const uint64_t *mask, bool *keep,
                            float *processed) {
    assert_int_equal(sq_sample_scan(logits, s->n_vocab, s->block_max), -1);
    sq_sample_row r = {.s = s, .logits = logits, .mask = mask, .position = 3};
    sq_sample_process(&r);
    sq_sample_find_top(&r);
    for (int32_t i = 0; i < s->n_ids; i++)
        processed[i] = !mask || sq_sample_has_bit(mask, i) ? logits[i] : -INFINITY;
    for (int32_t i = 0; i < s->n_entries; i++)
        if (s->entries[i].id < s->n_ids) processed[s->entries[i].id] = s->entries[i].l;
    sq_sample_survivors v = sq_sample_filter(&r);
    memset(keep, 0, (size_t)s->n_ids * sizeof *keep);
    int32_t n = 0;
    for (int32_t i = 0; v.listed && i < v.n; i++) {
        assert_in_range(s->cands[i].id, 0, s->n_ids - 1);
        assert_false(keep[s->cands[i].id]);
        assert_true(s->cands[i].l == processed[s->cands[i].id]);
        keep[s->cands[i].id] = true;
        n++;
    }
    for (int32_t i = 0; !v.listed && i < s->n_ids; i++)
        if (processed[i] > -INFINITY && processed[i] >= v.cut) n += keep[i] = true;
    return n;
}

/* ---- top-p without a list -------------------------------------------------------------------- */

/* The ids of a large row that are asked for: some, and those next to the cut on both sides. */
static bool is_asked(const sq_sampler *s, const bool *keep, const float *processed, int32_t id) {
    if (s->n_ids <= 1023 || id % 1511 == 0) return true;
    static float edge[2];
    static const float *seen;
    if (seen != processed || id == 0) {
        edge[0] = INFINITY, edge[1] = -INFINITY;
        for (int32_t i = 0; i < s->n_ids; i++)
            if (keep[i])
                edge[0] = fminf(edge[0], processed[i]);
            else
                edge[1] = fmaxf(edge[1], processed[i]);
    }
    seen = processed;
    return processed[id] == edge[0] || processed[id] == edge[1];
}

/* Of each id, in or out as the list has it; unsure rarely, and then next to the cut. */
static void check_places(const sq_sample_row *r, const bool *keep, const float *processed, int shape) {
    const double cut = sq_sample_cut(r, r->top);
    int32_t asked = 0, unsure = 0;
    for (int32_t id = 0; id < r->s->n_ids; id++) {
        if (processed[id] == -INFINITY || !is_asked(r->s, keep, processed, id)) continue;
        const sq_sample_place place = sq_sample_in_top_p(r, processed[id], id);
        asked++;
        unsure += place == SQ_SAMPLE_UNSURE;
        const bool kept = place == SQ_SAMPLE_IN && processed[id] >= cut;
        if (place == SQ_SAMPLE_UNSURE || keep[id] == kept) continue;
        fail_msg("shape %d, id %d of %d, logit %g: place %d, kept %d", shape, id, r->s->n_ids,
                 (double)processed[id], place, keep[id]);
    }
    if (unsure > 2 + asked / 20) fail_msg("shape %d: unsure of %d ids of %d", shape, unsure, asked);
}

/* argmax of z + g over the ids that are kept, the lowest of equal ones. */
static int32_t race_among(const sq_sample_row *r, const bool *keep, const float *processed) {
    double best = -INFINITY;
    int32_t winner = -1;
    for (int32_t id = 0; id < r->s->n_ids; id++) {
        uint32_t words[4];
        if (!keep[id]) continue;
        sq_sample_noise(r, (uint32_t)id >> 2, SQ_NOISE_TOKEN, words);
        const double z = ((double)processed[id] - (double)r->top) / (double)r->s->p.temperature;
        const double score = z - log(-log(sq_sample_uniform(words[id & 3])));
        if (!(score > best)) continue;
        best = score;
        winner = id;
    }
    return winner;
}

static void check_top_p(sq_sampler *s, const float *logits, const uint64_t *mask, const bool *keep,
                        const float *processed, int shape) {
    sq_sample_row r = {.s = s, .logits = logits, .mask = mask, .position = 3};
    sq_sample_find_top(&r);
    check_places(&r, keep, processed, shape);
    for (r.position = 0; r.position < 12; r.position++) {
        sq_sample_result drawn;
        assert_int_equal(sq_sampler_draw(s, logits, mask, r.position, -1, &drawn, NULL), SQUISH_OK);
        assert_int_equal(drawn.id, race_among(&r, keep, processed));
    }
}

static void compare(const squish_sampling *p, sq_sampler *s, const float *logits, const uint64_t *mask,
                    int shape) {
    static bool have[LARGE], want[LARGE];
    static float processed[LARGE];
    int32_t n_have = survivors_of(s, logits, mask, have, processed);
    int32_t n_want = oracle_filter(p, processed, s->n_ids, p->xtc_probability > 0, want);
    float top = processed[sq_argmax(processed, s->n_ids)];
    bool equal = true;
    if (sq_sample_is_top_p(s)) check_top_p(s, logits, mask, have, processed, shape);
    for (int32_t i = 0; i < s->n_ids; i++) {
        /* Where XTC stands alone nothing is cut; the room then lists no token of less than e^-60 of the
         * best. */
        bool unlisted = want[i] && ((double)processed[i] - (double)top) / (double)p->temperature < -60;
        if (have[i] != want[i] && !unlisted) equal = false;
    }
    if (equal) return;
    fail_msg("shape %d, %d ids: T %g top_k %d typical_p %g top_p %g min_p %g top_n_sigma %g xtc %g: %d kept, "
             "wanted %d",
             shape, s->n_ids, (double)p->temperature, p->top_k, (double)p->typical_p, (double)p->top_p,
             (double)p->min_p, (double)p->top_n_sigma, (double)p->xtc_threshold, n_have, n_want);
}

/* One random row under one combination; sometimes with padding ids, a mask, bans and biases. */
static void one_case(oracle_rng *g, unsigned set, int shape, int32_t n) {
    static float logits[LARGE];
    static uint64_t mask[LARGE / 64 + 1];
    fill(g, shape, logits, n);
    squish_sampling p = options(g, set, n);
    int32_t ids[3] = {oracle_below(g, n), oracle_below(g, n), n / 3};
    float values[3] = {2.5f, -3.25f, 0.125f};
    p.bias_ids = ids;
    p.bias_values = values;
    p.n_bias = oracle_below(g, 2) ? 3 : 0;
    sq_sampler *s;
    int32_t n_ids = n - oracle_below(g, n - n / 3);
    assert_int_equal(sq_sampler_new(&s, &p, n, n_ids, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    bool masked = oracle_below(g, 3) == 0;
    for (int32_t w = 0; w <= n / 64; w++) mask[w] = oracle_next(g) | oracle_next(g);
    mask[n / 3 / 64] |= (uint64_t)1 << (n / 3 & 63);
    if (oracle_below(g, 3) == 0 && n > 3) sq_sampler_ban(s, n / 3 - 1, true);
    compare(&p, s, logits, masked ? mask : NULL, shape);
    sq_sampler_free(s);
}

static void every_combination_keeps_the_set_of_the_oracle(void **state) {
    (void)state;
    const int32_t sizes[] = {1, 2, 3, 17, 63, 64, 65, 200, 1023};
    oracle_rng g = {31};
    for (unsigned set = 0; set < 1u << N_FILTERS; set++)
        for (int shape = 0; shape < N_SHAPES; shape++)
            for (size_t i = 0; i < SQ_COUNT(sizes); i++)
                for (int round = 0; round < 4; round++) {
                    /* Equal weights put the mass exactly on a multiple: typical-p in logarithms cannot
                     * tell. */
                    if ((set & 2) && (shape == EQUAL || shape == LEVELS)) continue;
                    one_case(&g, set, shape, sizes[i]);
                }
}

static void a_vocabulary_of_151936_is_filtered_as_exactly(void **state) {
    (void)state;
    oracle_rng g = {32};
    const unsigned sets[] = {0, 1, 2, 4, 8, 16, 32, 1 | 4, 4 | 8, 2 | 4, 4 | 32, 63};
    for (size_t i = 0; i < SQ_COUNT(sets); i++)
        for (int shape = 0; shape < N_SHAPES; shape++) {
            if (shape == EQUAL || shape == LEVELS) continue;
            one_case(&g, sets[i], shape, LARGE);
        }
}

/* Where the cut falls exactly on a mass, only the list knows who stays; who is drawn is of it anyway. */
static void a_cut_between_equals_is_left_to_the_list(void **state) {
    (void)state;
    enum { N = 4096, DRAWS = 400 };
    float equal[N] = {0}, processed[N];
    bool keep[N];
    squish_sampling p = oracle_all_off();
    p.top_p = 0.25f;
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, N, N, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    assert_int_equal(survivors_of(s, equal, NULL, keep, processed), N / 4);
    sq_sample_row r = {.s = s, .logits = equal};
    sq_sample_find_top(&r);
    assert_int_equal(sq_sample_in_top_p(&r, 0, N / 4 - 2), SQ_SAMPLE_IN);
    assert_int_equal(sq_sample_in_top_p(&r, 0, N / 4), SQ_SAMPLE_UNSURE);
    assert_int_equal(sq_sample_in_top_p(&r, 0, N / 4 + 2), SQ_SAMPLE_OUT);
    for (r.position = 0; r.position < DRAWS; r.position++) {
        sq_sample_result drawn;
        assert_int_equal(sq_sampler_draw(s, equal, NULL, r.position, -1, &drawn, NULL), SQUISH_OK);
        assert_int_equal(drawn.id, race_among(&r, keep, processed));
    }
    sq_sampler_free(s);
}

static int32_t kept(squish_sampling p, const float *logits, int32_t n, bool *keep) {
    float processed[64];
    sq_sampler *s;
    assert_int_equal(sq_sampler_new(&s, &p, n, n, 0, NULL, 0, NULL, NULL), SQUISH_OK);
    int32_t count = survivors_of(s, logits, NULL, keep, processed);
    sq_sampler_free(s);
    return count;
}

static void among_equals_at_a_boundary_the_lower_ids_stay(void **state) {
    (void)state;
    float equal[64] = {0};
    bool keep[64];
    squish_sampling p = oracle_all_off();
    p.top_k = 10;
    assert_int_equal(kept(p, equal, 64, keep), 10);
    for (int i = 0; i < 64; i++) assert_int_equal(keep[i], i < 10);
    p = oracle_all_off();
    p.top_p = 0.25f; /* the sixteenth token reaches the mass and is the last */
    assert_int_equal(kept(p, equal, 64, keep), 16);
    for (int i = 0; i < 64; i++) assert_int_equal(keep[i], i < 16);
    p.top_p = 1;
    p.typical_p = 0.5f;
    assert_int_equal(kept(p, equal, 64, keep), 32);
    for (int i = 0; i < 64; i++) assert_int_equal(keep[i], i < 32);
    p = oracle_all_off();
    p.xtc_probability = 1;
    p.xtc_threshold = 0.01f;
    assert_int_equal(kept(p, equal, 64, keep), 1);
    assert_true(keep[0]);
}

static void the_strictest_settings_leave_one_token(void **state) {
    (void)state;
    float logits[5] = {0, 3, 2, 3, -1};
    bool keep[5];
    for (int i = 0; i < 4; i++) {
        squish_sampling p = oracle_all_off();
        if (i == 0) p.top_k = 1;
        if (i == 1) p.top_p = 0;
        if (i == 2) p.typical_p = 0;
        if (i == 3) {
            p.top_k = 1;
            p.top_p = 0;
            p.min_p = 1;
            p.typical_p = 0;
            p.top_n_sigma = 1e-6f;
            p.xtc_probability = 1;
            p.xtc_threshold = 1e-30f;
        }
        assert_int_equal(kept(p, logits, 5, keep), 1);
        if (i != 2) assert_true(keep[1]);
    }
}

static void xtc_leaves_the_least_likely_of_the_top_choices(void **state) {
    (void)state;
    /* 0.4 0.3 0.2 0.06 0.04: of the three above 0.15 the least likely stays */
    float logits[5];
    const double shares[5] = {0.4, 0.06, 0.2, 0.3, 0.04};
    for (int i = 0; i < 5; i++) logits[i] = (float)log(shares[i]);
    bool keep[5];
    squish_sampling p = oracle_all_off();
    p.xtc_probability = 1;
    p.xtc_threshold = 0.15f;
    assert_int_equal(kept(p, logits, 5, keep), 3);
    assert_true(keep[1] && keep[2] && keep[4]);
    p.xtc_threshold = 0.35f; /* a single one above is no choice to exclude */
    assert_int_equal(kept(p, logits, 5, keep), 5);
    p.xtc_probability = 0;
    p.xtc_threshold = 0.15f;
    assert_int_equal(kept(p, logits, 5, keep), 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_combination_keeps_the_set_of_the_oracle),
        cmocka_unit_test(a_vocabulary_of_151936_is_filtered_as_exactly),
        cmocka_unit_test(a_cut_between_equals_is_left_to_the_list),
        cmocka_unit_test(among_equals_at_a_boundary_the_lower_ids_stay),
        cmocka_unit_test(the_strictest_settings_leave_one_token),
        cmocka_unit_test(xtc_leaves_the_least_likely_of_the_top_choices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
