/* SPDX-License-Identifier: Apache-2.0
 *
 * test_collapse.c - the collapse detector on the shipped model: what became useless is refused, what works is
 * not, and neither verdict asks how it was made. */
#include "lib/lib_quality.h"
#include "support/model_run.h"

#include <stdio.h>
#include <sys/stat.h>

static const char model[] = "models/squish-tiny";

static char dir[64], few_layers[] = "/tmp/squish-test-XXXXXX"; /* of the shipped model */
static char *fresh_dir(void) {
    snprintf(dir, sizeof dir, "/tmp/squish-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static int make_few(void **state) {
    (void)state;
    assert_non_null(mkdtemp(few_layers));
    make_shallow(model, 2, few_layers);
    return 0;
}

static int remove_few(void **state) {
    (void)state;
    remove_tree(few_layers);
    return 0;
}

static squish_compress_options options(int32_t bits) {
    squish_compress_options o = squish_compress_options_default();
    o.out_dir = dir;
    o.tier = bits == 8 ? SQUISH_TIER_Q8 : SQUISH_TIER_0;
    o.bits = bits;
    return o;
}

static void two_bits_of_the_shipped_model_are_refused_with_the_measure(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(2);
    squish_compress_result r;
    squish_error err = {0};
    assert_int_equal(squish_compress(model, &o, &r, &err), SQUISH_QUALITY);
    assert_non_null(strstr(err.text, "times the reference's"));
    assert_true(r.ppl_ratio > 2);
    squish_text file = {0};
    bool ready = true;
    assert_ok(squish_tier_path(model, &o, &file, &ready, &err), &err);
    assert_false(ready);
    struct stat st;
    assert_int_not_equal(stat(file.data, &st), 0);
    squish_text_free(&file);
    remove_tree(dir);
}

static void what_is_kept_all_the_same_does_not_run_unasked(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(2);
    squish_compress_result r;
    squish_error err = {0};
    o.allow_collapsed = true;
    assert_ok(squish_compress(model, &o, &r, &err), &err);
    assert_int_equal(r.quality, SQUISH_QUALITY_COLLAPSED);
    squish_model *m = NULL;
    squish_model_options mo = squish_model_options_default();
    assert_int_equal(squish_model_open(&m, r.file, &mo, &err), SQUISH_QUALITY);
    mo.allow_collapsed = true;
    memset(&err, 0, sizeof err);
    assert_ok(squish_model_open(&m, r.file, &mo, &err), &err);
    squish_model_info info;
    squish_model_get_info(m, &info);
    assert_int_equal(info.quality, SQUISH_QUALITY_COLLAPSED);
    squish_model_close(m);

    /* Nor is it the answer to the same wish without the permission. */
    o.allow_collapsed = false;
    assert_int_equal(squish_compress(model, &o, &r, &err), SQUISH_QUALITY);
    o.allow_collapsed = true;
    memset(&err, 0, sizeof err);
    assert_ok(squish_compress(model, &o, &r, &err), &err);
    assert_true(r.reused);
    assert_int_equal(r.quality, SQUISH_QUALITY_COLLAPSED);
    remove_tree(dir);
}

/* Stopped while it is measured, a whole file waits: going on measures it, and makes nothing again. */
static bool stop_at_check(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)user, (void)total;
    return strcmp(what, "check") != 0 || done == 0;
}
static void a_check_that_was_stopped_is_made_up_for(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(4);
    squish_compress_result r;
    squish_error err = {0};
    o.progress = stop_at_check;
    assert_int_equal(squish_compress(few_layers, &o, &r, &err), SQUISH_CANCELLED);
    o.progress = NULL;
    o.resume = true;
    memset(&err, 0, sizeof err);
    assert_ok(squish_compress(few_layers, &o, &r, &err), &err);
    assert_true(r.resumed_bytes > r.bytes / 2);
    assert_int_equal(r.quality, SQUISH_QUALITY_OK);
    remove_tree(dir);
}

/* That four are good is said below. SQUISH_LONG=1: by themselves too. */
static void four_and_three_bits_pass(void **state) {
    (void)state;
    for (int32_t bits = 3; bits <= (run_long() ? 4 : 3); bits++) {
        fresh_dir();
        squish_compress_options o = options(bits);
        squish_compress_result r;
        squish_error err = {0};
        assert_ok(squish_compress(model, &o, &r, &err), &err);
        print_message("%d bits: %s, %s\n", bits, squish_quality_name(r.quality), r.verdict);
        assert_int_equal(r.quality, bits == 4 ? SQUISH_QUALITY_OK : SQUISH_QUALITY_DEGRADED);
        assert_true(r.ppl_ratio > 1 && r.agreement > 0.5 && r.kl > 0 && r.check_seconds > 0);
        remove_tree(dir);
    }
}

static void unchecked_says_so(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(2);
    squish_compress_result r;
    squish_error err = {0};
    o.unchecked = true;
    assert_ok(squish_compress(model, &o, &r, &err), &err);
    assert_int_equal(r.quality, SQUISH_QUALITY_UNVERIFIED);
    assert_string_equal(r.verdict, "");
    remove_tree(dir);
}

/* ---- made by nobody's method ----------------------------------------------------------------- */

static uint32_t next_random(uint32_t *s) { return *s = *s * 1664525u + 1013904223u; }

/* A .sqw with the tensors of `from`, each packed matrix passed through `change` on its way. */
static void rewrite(const char *from, const char *to, void (*change)(uint8_t *tile, const sq_weight *w)) {
    squish_error err = {0};
    squish_alloc a = sq_alloc_default();
    squish_model *m = NULL;
    assert_ok(squish_model_open(&m, from, NULL, &err), &err);
    sq_sqw_writer *w = NULL;
    char journal[200];
    snprintf(journal, sizeof journal, "%s.journal", to);
    assert_ok(sq_sqw_writer_new(&w, to, journal, &a, &err), &err);
    assert_ok(sq_sqw_writer_section(w, SQ_SEC_NCFG, &m->cfg, sizeof m->cfg, &err), &err);
    const sq_span tok = sq_sqw_section_of(m->sqw, SQ_SEC_TOKZ);
    assert_ok(sq_sqw_writer_section(w, SQ_SEC_TOKZ, tok.p, tok.n, &err), &err);
    size_t n = 0, index;
    const sq_sqw_tensor *t = sq_sqw_tensors(m->sqw, &n);
    for (size_t i = 0; i < n; i++)
        assert_ok(sq_sqw_writer_tensor(w, sq_sqw_name(m->sqw, &t[i]), &t[i], SQ_UNIT_MISC, &index, &err),
                  &err);
    uint64_t file_bytes, resumed;
    const uint8_t id[16] = {1};
    assert_ok(sq_sqw_writer_layout(w, id, false, &file_bytes, &resumed, &err), &err);
    sq_want want;
    for (size_t i = 0; i < n && sq_config_want(&m->cfg, i, &want); i++) {
        uint8_t *copy = malloc(t[i].data_bytes);
        memcpy(copy, sq_sqw_data(m->sqw, &t[i]), t[i].data_bytes);
        const sq_weight *view = want.vector ? NULL : sq_model_matrix(m, &want);
        if (view && view->wtype == SQ_W_I4_G64)
            for (int32_t tile = 0; tile < sq_weight_tiles(view); tile++)
                change(copy + (size_t)tile * view->tile_bytes, view);
        assert_ok(sq_sqw_writer_put(w, i, 0, copy, t[i].data_bytes, &err), &err);
        assert_ok(sq_sqw_writer_tensor_done(w, i, "{}", 2, &err), &err);
        free(copy);
    }
    assert_ok(sq_sqw_writer_seal(w, &err), &err);
    uint64_t sum;
    assert_ok(sq_sqw_writer_publish(w, to, SQ_QUALITY_UNVERIFIED, &sum, &err), &err);
    sq_sqw_writer_free(w, false);
    squish_model_close(m);
}

static void leave(uint8_t *tile, const sq_weight *w) { (void)tile, (void)w; }

/* One scale in eight becomes another's: cosines stay high, and so does everything that only looks at sizes.
 */
static void swap_scales(uint8_t *tile, const sq_weight *w) {
    static uint32_t seed = 5;
    for (int32_t g = 0; g < w->groups; g++) {
        uint8_t *scale = tile + (size_t)g * SQ_I4_RECORD + 512;
        for (int32_t r = 0; r < SQ_TILE_ROWS; r++)
            if (next_random(&seed) >> 29 == 0)
                scale[2 * r + 1] = (uint8_t)(scale[2 * r + 1] ^ 0x80); /* sign */
    }
}

static sq_quality_flag judge(const char *file, sq_quality_measure *m) {
    squish_error err = {0};
    squish_model *source = NULL;
    squish_model_options mo = squish_model_options_default();
    sq_quality_options o = {0};
    char why[160];
    mo.tier = SQUISH_TIER_SOURCE;
    assert_ok(squish_model_open(&source, model, &mo, &err), &err);
    assert_ok(sq_quality_measure_file(&o, file, source, m, &err), &err);
    squish_model_close(source);
    const sq_quality_flag flag = sq_quality_judge(m, why, sizeof why);
    print_message("%s\n", why);
    return flag;
}

static void four_bits_with_sabotaged_scales_are_told_from_four_good_bits(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(4);
    squish_compress_result r;
    squish_error err = {0};
    o.unchecked = true;
    assert_ok(squish_compress(model, &o, &r, &err), &err);
    char good[100], bad[100];
    snprintf(good, sizeof good, "%s/good.sqw", dir);
    snprintf(bad, sizeof bad, "%s/bad.sqw", dir);
    rewrite(r.file, good, leave);
    rewrite(r.file, bad, swap_scales);
    sq_quality_measure m = {0}, n = {0};
    assert_int_equal(judge(good, &m), SQ_QUALITY_OK);
    assert_int_equal(judge(bad, &n), SQ_QUALITY_COLLAPSED);
    remove_tree(dir);
}

/* A checkpoint whose weights are two bits exactly (decoded from a tier): building two bits of it loses
 * nothing, so nothing is held against it, poor as the model is. */
static void two_bits_of_a_two_bit_checkpoint_pass(void **state) {
    (void)state;
    fresh_dir();
    squish_compress_options o = options(2);
    squish_compress_result r;
    squish_error err = {0};
    squish_model *m = NULL;
    squish_model_options mo = squish_model_options_default();
    squish_export_options eo = {.assets = few_layers};
    squish_export_result e;
    char source[100], tiers[100];
    snprintf(source, sizeof source, "%s/two", dir);
    snprintf(tiers, sizeof tiers, "%s/two-tiers", dir);
    o.unchecked = true;
    assert_ok(squish_compress(few_layers, &o, &r, &err), &err);
    assert_ok(squish_model_open(&m, r.file, &mo, &err), &err);
    assert_ok(squish_export(m, "safetensors", source, &eo, &e, &err), &err);
    squish_model_close(m);
    o.unchecked = false;
    o.out_dir = tiers;
    assert_ok(squish_compress(source, &o, &r, &err), &err);
    print_message("two bits of two bits: %s, %s\n", squish_quality_name(r.quality), r.verdict);
    assert_int_equal(r.quality, SQUISH_QUALITY_OK);
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_bits_of_the_shipped_model_are_refused_with_the_measure),
        cmocka_unit_test(what_is_kept_all_the_same_does_not_run_unasked),
        cmocka_unit_test(a_check_that_was_stopped_is_made_up_for),
        cmocka_unit_test(four_and_three_bits_pass),
        cmocka_unit_test(unchecked_says_so),
        cmocka_unit_test(two_bits_of_a_two_bit_checkpoint_pass),
        cmocka_unit_test(four_bits_with_sabotaged_scales_are_told_from_four_good_bits),
    };
    return cmocka_run_group_tests(tests, make_few, remove_few);
}
