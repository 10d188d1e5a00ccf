/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_rules.c - what of the cache's options does not go together is refused, by the names of both: the
 * rules of kv_rules.c one by one, each beside the nearest wish that passes. And what votes become. */
#include "kv/kv.h"
#include "support/model_run.h"

static squish_kv_options options;
static squish_attention attention;
static sq_kv_wish wish;

static int anew(void **state) {
    (void)state;
    options = squish_kv_options_default();
    attention = (squish_attention){.sparge_min = 8192, .sparge_mass = 0.95f, .sage_bits = 8};
    wish = (sq_kv_wish){
        .kv = SQUISH_KV_Q8, .options = &options, .attention = &attention, .n_layers = 28, .head_dim = 128};
    return 0;
}

static void passes(void) {
    squish_error err = {0};
    assert_ok(sq_kv_rules_check(&wish, &err), &err);
}

/* Refused, and the text says both. */
static void refused(const char *one, const char *other) {
    squish_error err = {0};
    const squish_status st = sq_kv_rules_check(&wish, &err);
    assert_true(st == SQUISH_INVALID || st == SQUISH_UNSUPPORTED);
    if (!strstr(err.text, one) || !strstr(err.text, other))
        fail_msg("'%s' names not both '%s' and '%s'", err.text, one, other);
}

static void r1_rotated_keys(void **state) {
    (void)state;
    options.rotate = SQUISH_KV_ROTATE_KEYS;
    refused("--kv-rotate keys", "--kv q8");
    wish.kv = SQUISH_KV_F16;
    refused("--kv-rotate keys", "--kv f16");
    wish.kv = SQUISH_KV_Q4, options.mix = true;
    refused("--kv-rotate keys", "--mix-kvq");
    options.rotate = SQUISH_KV_ROTATE_OFF;
    passes();
}

static void r2_nothing_to_mix(void **state) {
    (void)state;
    options.mix = true;
    refused("--mix-kvq", "--kv q8");
    wish.kv = SQUISH_KV_F16;
    refused("--mix-kvq", "--kv f16");
    wish.kv = SQUISH_KV_K8V4;
    refused("--mix-kvq", "--kv k8v4");
    options.pm = true;
    passes();
    options.pm = false, options.cocktail = true;
    passes();
    options.cocktail = false, wish.kv = SQUISH_KV_Q4;
    passes();
}

static void r3_chunks_that_are_no_tiles(void **state) {
    (void)state;
    options.cocktail = true;
    options.cocktail_chunk = 48;
    refused("--cocktail-chunk 48", "32");
    options.cocktail_chunk = 0;
    refused("--cocktail-chunk 0", "32");
    options.cocktail_chunk = 64;
    passes();
}

static void r4_shares_of_more_than_all(void **state) {
    (void)state;
    options.cocktail = true;
    options.cocktail_high = 0.6f, options.cocktail_low = 0.5f;
    refused("--cocktail-high 0.6", "--cocktail-low 0.5");
    options.cocktail_high = -0.1f;
    refused("--cocktail-high -0.1", "--cocktail-low");
    options.cocktail_high = 0.5f;
    passes();
}

static void r5_a_floor_under_what_the_key_bias_asks(void **state) {
    (void)state;
    static const uint64_t flagged[1] = {1};
    wish.flagged = flagged;
    options.floors = "1:q2,0:q4";
    refused("--kv-floor 0:q4", "key bias");
    options.floors = "1:q2,0:q8";
    passes();
    options.floors = "28:q8";
    refused("--kv-floor", "28");
    options.floors = "1:q3";
    refused("--kv-floor", "1:q3");
}

static void r6_latents_that_are_not_there(void **state) {
    (void)state;
    options.flash_mla = true;
    refused("--flash-mla", "latent");
    wish.latent = true;
    passes();
}

static void r7_sage_in_4_bits(void **state) {
    (void)state;
    wish.kv = SQUISH_KV_F16;
    attention.sage = true, attention.sage_bits = 4;
    refused("--sage-bits 4", "--sage-attention");
    attention.sage_bits = 8;
    passes();
    wish.kv = SQUISH_KV_Q4;
    refused("--sage-attention", "--kv q4");
}

static void r8_snap_that_keeps_only_what_stays_anyway(void **state) {
    (void)state;
    options.snap = 64;
    refused("--snap-kv 64", "--snap-window 32");
    options.snap = 96;
    passes();
    options.snap = 100;
    refused("--snap-kv 100", "tiles of 32");
    options.snap = 256, options.snap_window = 40;
    refused("--snap-window 40", "tiles of 32");
    options.snap_window = 192, options.sink = 64;
    refused("--snap-kv 256", "--kv-sink 64");
    options.snap_window = 32, options.cocktail = true;
    refused("--snap-kv", "--cocktail-kv");
    options.cocktail = false, options.pm = options.mix = true;
    passes();
    options.pm = options.mix = false, wish.kv = SQUISH_KV_F32;
    refused("--snap-kv", "--kv f32");
}

static void r10_residuals(void **state) {
    (void)state;
    options.residual = 100;
    refused("--kv-residual 100", "32");
    options.residual = 0;
    passes(); /* q8 */
    wish.kv = SQUISH_KV_K8V4;
    refused("--kv-residual 0", "--kv k8v4");
    wish.kv = SQUISH_KV_Q8, options.pm = true;
    refused("--kv-residual 0", "--pm-kvq");
    options.residual = 32;
    passes();
    options.sink = 33;
    refused("--kv-sink 33", "32");
    options.sink = 0;
    passes();
}

static void r12_kept_sets_per_head_beside_windows(void **state) {
    (void)state;
    options.snap = 512, wish.windowed = 3;
    refused("--snap-kv", "sliding window");
    wish.windowed = 0;
    passes();
}

static void r14_odd_heads_are_padded(void **state) {
    (void)state;
    wish.head_dim = 100;
    passes();
}

/* R17: what snapshots are checked by. That one of another form is a miss: test_kv_snapshot. */
static void r17_every_form_has_a_hash_of_its_own(void **state) {
    (void)state;
    sq_kv_policy p[8];
    for (int i = 0; i < 8; i++) p[i] = sq_kv_policy_of(SQUISH_KV_Q4);
    p[1].k = SQ_KV_Q2;
    p[2].v = SQ_KV_Q2;
    p[3].rotate_v = false;
    p[4].window.sink = 2;
    p[5].window.residual = 8;
    p[6].k_floor[3] = 1;
    p[7].floor[9] = SQ_RUNG_Q8;
    for (int i = 0; i < 8; i++)
        for (int k = 0; k < i; k++) assert_true(sq_kv_policy_hash(&p[i]) != sq_kv_policy_hash(&p[k]));
}

static void f32_is_there_to_verify(void **state) {
    (void)state;
    wish.kv = SQUISH_KV_F32, options.pm = true;
    refused("--pm-kvq", "--kv f32");
    wish.kv = SQUISH_KV_F16;
    passes();
    options.pm_age[1] = 5000;
    refused("--pm-ages", "5000");
}

/* ---- votes ----------------------------------------------------------------------------------- */

static sq_kv_policy policy_with(squish_kv kv) {
    sq_kv_policy p = sq_kv_policy_of(kv);
    sq_kv_policy_add(&p, kv, &options);
    return p;
}

static void the_ladder_goes_by_age(void **state) {
    (void)state;
    static const struct {
        int32_t age;
        sq_rung want;
    } steps[] = {{0, SQ_RUNG_F16},   {255, SQ_RUNG_F16}, {256, SQ_RUNG_Q8}, {1023, SQ_RUNG_Q8},
                 {1024, SQ_RUNG_Q4}, {4095, SQ_RUNG_Q4}, {4096, SQ_RUNG_Q2}};
    options.pm = true;
    const sq_kv_policy p = policy_with(SQUISH_KV_F16);
    assert_false(p.seals); /* prompts stay open to their end */
    for (size_t i = 0; i < SQ_COUNT(steps); i++) {
        const sq_kv_votes v = {.age = steps[i].age};
        assert_int_equal(sq_kv_merge(&p, &v, SQ_RUNG_F16), steps[i].want);
    }
}

static void precision_only_goes_down(void **state) {
    (void)state;
    options.pm = options.cocktail = true;
    const sq_kv_policy p = policy_with(SQUISH_KV_Q8);
    for (int now = SQ_RUNG_Q2; now <= SQ_RUNG_F16; now++)
        for (int32_t age = 0; age < 6000; age += 500)
            for (int r = -1; r <= 1; r++) {
                const sq_kv_votes v = {.age = age, .judged = true, .relevance = (int8_t)r};
                assert_true(sq_kv_merge(&p, &v, (sq_rung)now) <= (sq_rung)now);
            }
}

static void chunks_shift_the_ladder_or_stand_alone(void **state) {
    (void)state;
    options.cocktail = true;
    sq_kv_policy p = policy_with(SQUISH_KV_F16);
    static const sq_rung alone[] = {SQ_RUNG_Q2, SQ_RUNG_Q4, SQ_RUNG_F16};
    for (int r = -1; r <= 1; r++) {
        const sq_kv_votes v = {.age = 700, .judged = true, .relevance = (int8_t)r};
        assert_int_equal(sq_kv_merge(&p, &v, SQ_RUNG_F16), alone[r + 1]);
    }
    options.pm = true;
    p = policy_with(SQUISH_KV_F16);
    for (int r = -1; r <= 1; r++) {
        const sq_kv_votes v = {.age = 700, .judged = true, .relevance = (int8_t)r};
        assert_int_equal(sq_kv_merge(&p, &v, SQ_RUNG_F16), SQ_RUNG_Q8 + r);
    }
}

static void what_is_pinned_stays(void **state) {
    (void)state;
    options.pm = true;
    const sq_kv_policy p = policy_with(SQUISH_KV_Q8);
    const sq_kv_votes pinned = {.age = 9000, .pinned = true}, other = {.age = 9000};
    assert_int_equal(sq_kv_merge(&p, &pinned, SQ_RUNG_F16), SQ_RUNG_F16);
    assert_int_equal(sq_kv_merge(&p, &other, SQ_RUNG_F16), SQ_RUNG_Q2);
}

static void layers_have_floors_and_values_their_most(void **state) {
    (void)state;
    options.pm = true;
    options.floors = "3:q4";
    sq_kv_policy p = policy_with(SQUISH_KV_K8V4);
    p.k_floor[0] = 1u << 5;
    sq_kv_form f = sq_kv_form_of(&p, SQ_RUNG_Q8, 0);
    assert_true(f.k == SQ_KV_Q8 && f.v == SQ_KV_Q4);
    f = sq_kv_form_of(&p, SQ_RUNG_Q2, 0);
    assert_true(f.k == SQ_KV_Q2 && f.v == SQ_KV_Q2);
    f = sq_kv_form_of(&p, SQ_RUNG_Q2, 3);
    assert_true(f.k == SQ_KV_Q4 && f.v == SQ_KV_Q4);
    f = sq_kv_form_of(&p, SQ_RUNG_Q2, 5); /* flagged: keys alone */
    assert_true(f.k == SQ_KV_Q8 && f.v == SQ_KV_Q2);
}

#define TEST(name) cmocka_unit_test_setup(name, anew)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(r1_rotated_keys),
        TEST(r2_nothing_to_mix),
        TEST(r3_chunks_that_are_no_tiles),
        TEST(r4_shares_of_more_than_all),
        TEST(r5_a_floor_under_what_the_key_bias_asks),
        TEST(r6_latents_that_are_not_there),
        TEST(r7_sage_in_4_bits),
        TEST(r8_snap_that_keeps_only_what_stays_anyway),
        TEST(r10_residuals),
        TEST(r12_kept_sets_per_head_beside_windows),
        TEST(r14_odd_heads_are_padded),
        TEST(r17_every_form_has_a_hash_of_its_own),
        TEST(f32_is_there_to_verify),
        TEST(the_ladder_goes_by_age),
        TEST(precision_only_goes_down),
        TEST(chunks_shift_the_ladder_or_stand_alone),
        TEST(what_is_pinned_stays),
        TEST(layers_have_floors_and_values_their_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
