/* SPDX-License-Identifier: Apache-2.0
 *
 * test_forge_verdict.c - who is measured, what becomes of the answer, and what is kept out of it.
 *
 * The measures are made up: what models really give is the matter of e2e/test_collapse.c. */
#include "forge/forge_int.h"
#include "forge/forge_methods.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A made-up measure: what it gives back, and what it was asked. */
typedef struct {
    sq_quality_measure m;
    squish_status st;
    int32_t calls;
    char file[32];
    const sq_model *source;
} fake;

static squish_status answer(void *user, const char *file, const sq_model *source, sq_quality_measure *m,
                            squish_error *err) {
    fake *f = user;
    f->calls++;
    f->source = source;
    snprintf(f->file, sizeof f->file, "%s", file);
    *m = f->m;
    return f->st == SQUISH_OK ? SQUISH_OK : sq_fail(err, f->st, "the measure failed");
}

/* Times the reference's perplexity of 10, and the rest as in a sound model. */
static sq_quality_measure measured(double ratio) {
    return (sq_quality_measure){
        .ppl = 10 * ratio, .ppl_reference = 10, .agreement = 0.9, .kl = 0.02, .texts = 5, .distinct2 = 0.9,
        .distinct2_reference = 0.9};
}

/* A job of 4 bits with everything that a verdict looks at. */
typedef struct {
    fake f;
    sq_model m;
    squish_compress_options o;
    squish_compress_result out;
    sq_forge_job j;
    sq_quality_flag flag;
    squish_error err;
} bench;

static void set_up(bench *b, sq_quality_measure m) {
    static char path[] = "some/model";
    memset(b, 0, sizeof *b);
    b->f.m = m;
    b->m.info.path = path;
    b->m.tok = (void *)path; /* only whether there is one is asked */
    b->o = squish_compress_options_default();
    b->o.tier = SQUISH_TIER_0;
    b->o.bits = 4;
    b->j = (sq_forge_job){.o = &b->o, .m = &b->m, .out = &b->out, .measure = answer, .measure_user = &b->f};
    b->flag = SQ_QUALITY_COLLAPSED;
}

static squish_status judge(bench *b) { return sq_forge_verdict(&b->j, "sealed.sqw", &b->flag, &b->err); }

static void a_sound_build_is_ok_and_its_figures_are_kept(void **state) {
    (void)state;
    bench b;
    set_up(&b, measured(1.05));
    assert_int_equal(judge(&b), SQUISH_OK);
    assert_int_equal(b.flag, SQ_QUALITY_OK);
    assert_int_equal(b.out.quality, SQUISH_QUALITY_OK);
    assert_float_equal(b.out.ppl_ratio, 1.05, 1e-12);
    assert_float_equal(b.out.agreement, 0.9, 0);
    assert_float_equal(b.out.kl, 0.02, 0);
    assert_true(b.out.check_seconds >= 0);
    assert_string_not_equal(b.out.verdict, "");
    assert_int_equal(b.f.calls, 1);
    assert_string_equal(b.f.file, "sealed.sqw");
    assert_ptr_equal(b.f.source, &b.m);
}

static void a_poorer_build_is_published_as_degraded(void **state) {
    (void)state;
    bench b;
    set_up(&b, measured(1.5));
    assert_int_equal(judge(&b), SQUISH_OK);
    assert_int_equal(b.flag, SQ_QUALITY_DEGRADED);
    assert_int_equal(b.out.quality, SQUISH_QUALITY_DEGRADED);
}

static void a_collapsed_build_fails_with_its_figure_and_a_way_out(void **state) {
    (void)state;
    bench b;
    set_up(&b, measured(31));
    assert_int_equal(judge(&b), SQUISH_QUALITY);
    assert_int_equal(b.err.code, SQUISH_QUALITY);
    assert_non_null(strstr(b.err.text, "some/model"));
    assert_non_null(strstr(b.err.text, "31 times"));
    assert_non_null(strstr(b.err.text, "--method milo"));
    assert_non_null(strstr(b.err.text, "--allow-collapsed"));
    assert_int_equal(b.out.quality, SQUISH_QUALITY_COLLAPSED);
    assert_float_equal(b.out.ppl_ratio, 31, 1e-9);
}

static void a_collapsed_build_may_be_asked_for_and_keeps_its_mark(void **state) {
    (void)state;
    bench b;
    set_up(&b, measured(31));
    b.o.allow_collapsed = true;
    assert_int_equal(judge(&b), SQUISH_OK);
    assert_int_equal(b.flag, SQ_QUALITY_COLLAPSED);
    assert_int_equal(b.out.quality, SQUISH_QUALITY_COLLAPSED);
    assert_string_equal(b.err.text, "");
}

static void neither_bits_nor_method_changes_a_verdict(void **state) {
    (void)state;
    static const double ratios[] = {1.0, 1.5, 31};
    static const sq_quality_flag flags[] = {SQ_QUALITY_OK, SQ_QUALITY_DEGRADED, SQ_QUALITY_COLLAPSED};
    for (size_t i = 0; i < SQ_COUNT(ratios); i++)
        for (int32_t bits = 1; bits <= 4; bits++)
            for (int32_t by = SQUISH_METHOD_RTN; by <= (int32_t)SQUISH_METHOD_MILO; by++) {
                bench b;
                set_up(&b, measured(ratios[i]));
                b.o.bits = bits;
                b.o.method = (squish_method)by;
                b.o.allow_collapsed = true;
                assert_int_equal(judge(&b), SQUISH_OK);
                assert_int_equal(b.flag, flags[i]);
                assert_int_equal(b.f.calls, 1);
            }
}

static void what_is_not_measured_is_unverified(void **state) {
    (void)state;
    for (int32_t i = 0; i < 5; i++) {
        bench b;
        set_up(&b, measured(31));
        if (i == 0) b.o.tier = SQUISH_TIER_Q8;
        if (i == 1) b.o.tier = SQUISH_TIER_1;
        if (i == 2) b.o.unchecked = true;
        if (i == 3) b.j.measure = NULL;
        if (i == 4) b.m.tok = NULL;
        assert_int_equal(judge(&b), SQUISH_OK);
        assert_int_equal(b.flag, SQ_QUALITY_UNVERIFIED);
        assert_int_equal(b.out.quality, SQUISH_QUALITY_UNVERIFIED);
        assert_int_equal(b.f.calls, 0);
        assert_true((strstr(b.out.verdict, "no tokenizer") != NULL) == (i == 4));
        assert_float_equal(b.out.ppl_ratio, 0, 0);
    }
}

static void a_measure_that_fails_is_the_builds_failure_and_no_verdict(void **state) {
    (void)state;
    static const squish_status codes[] = {SQUISH_CANCELLED, SQUISH_NO_MEMORY, SQUISH_IO};
    for (size_t i = 0; i < SQ_COUNT(codes); i++) {
        bench b;
        set_up(&b, measured(1));
        b.f.st = codes[i];
        assert_int_equal(judge(&b), codes[i]);
        assert_int_equal(b.flag, SQ_QUALITY_UNVERIFIED);
        assert_int_equal(b.out.quality, SQUISH_QUALITY_UNVERIFIED);
        assert_string_equal(b.err.text, "the measure failed");
        assert_float_equal(b.out.ppl_ratio, 0, 0);
    }
}

static void numbers_that_are_none_collapse(void **state) {
    (void)state;
    bench b;
    set_up(&b, measured(1));
    b.f.m.nonfinite = 7;
    assert_int_equal(judge(&b), SQUISH_QUALITY);
    assert_non_null(strstr(b.err.text, "7 logits are not numbers"));
    set_up(&b, measured(NAN));
    b.f.m.agreement = b.f.m.kl = NAN;
    assert_int_equal(judge(&b), SQUISH_QUALITY);
    assert_true(isfinite(b.out.ppl_ratio) && isfinite(b.out.agreement) && isfinite(b.out.kl)); /* for JSON */
}

static void a_source_that_is_broken_itself_proves_nothing(void **state) {
    (void)state;
    static const double references[] = {NAN, INFINITY, 0};
    for (size_t i = 0; i < SQ_COUNT(references); i++) {
        bench b;
        set_up(&b, measured(1));
        b.f.m.ppl_reference = references[i];
        assert_int_equal(judge(&b), SQUISH_OK);
        assert_int_equal(b.flag, SQ_QUALITY_UNVERIFIED);
        assert_true(isfinite(b.out.ppl_ratio));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_build_is_ok_and_its_figures_are_kept),
        cmocka_unit_test(a_poorer_build_is_published_as_degraded),
        cmocka_unit_test(a_collapsed_build_fails_with_its_figure_and_a_way_out),
        cmocka_unit_test(a_collapsed_build_may_be_asked_for_and_keeps_its_mark),
        cmocka_unit_test(neither_bits_nor_method_changes_a_verdict),
        cmocka_unit_test(what_is_not_measured_is_unverified),
        cmocka_unit_test(a_measure_that_fails_is_the_builds_failure_and_no_verdict),
        cmocka_unit_test(numbers_that_are_none_collapse),
        cmocka_unit_test(a_source_that_is_broken_itself_proves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
