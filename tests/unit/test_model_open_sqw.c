/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_open_sqw.c - a file that was measured to be useless is refused before anything else is read, and
 * opened by those who ask for it. */
#include "model/model_int.h"
#include "support/model_run.h"

#include <stdio.h>

/* A container without sections that carries the flag: reading goes no further than the configuration. */
static void write_empty(const char *dir, const char *path, sq_quality_flag quality) {
    static const uint8_t source[16];
    char partial[96], journal[96];
    uint64_t bytes, kept, sum;
    squish_error err = {0};
    sq_sqw_writer *w = NULL;
    snprintf(partial, sizeof partial, "%s/partial", dir);
    snprintf(journal, sizeof journal, "%s/journal", dir);
    assert_ok(sq_sqw_writer_new(&w, partial, journal, NULL, &err), &err);
    assert_ok(sq_sqw_writer_section(w, SQ_SEC_CONF, "{}", 3, &err), &err);
    assert_ok(sq_sqw_writer_layout(w, source, false, &bytes, &kept, &err), &err);
    assert_ok(sq_sqw_writer_seal(w, &err), &err);
    assert_ok(sq_sqw_writer_publish(w, path, quality, &sum, &err), &err);
    sq_sqw_writer_free(w, false);
}

static squish_status open_with(const char *path, bool allow, bool text_only, squish_error *err) {
    squish_model_options o = squish_model_options_default();
    sq_model *m = NULL;
    o.allow_collapsed = allow;
    o.text_only = text_only;
    *err = (squish_error){0};
    const squish_status st = sq_model_open_sqw(&m, path, &o, err);
    sq_model_close(m);
    return st;
}

static void a_collapsed_file_is_refused_unless_it_is_asked_for(void **state) {
    (void)state;
    char dir[] = "/tmp/squish-sqw-XXXXXX", path[64];
    squish_error err;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model.sqw", dir);
    write_empty(dir, path, SQ_QUALITY_COLLAPSED);
    assert_int_equal(open_with(path, false, false, &err), SQUISH_QUALITY);
    assert_non_null(strstr(err.text, "--allow-collapsed"));
    assert_non_null(strstr(err.text, "--method milo"));
    /* Past the flag there is no configuration. */
    assert_int_equal(open_with(path, true, false, &err), SQUISH_CORRUPT);
    assert_non_null(strstr(err.text, "NCFG"));
    assert_int_equal(open_with(path, false, true, &err), SQUISH_CORRUPT);
    write_empty(dir, path, SQ_QUALITY_DEGRADED);
    assert_int_equal(open_with(path, false, false, &err), SQUISH_CORRUPT);
    remove_tree(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_collapsed_file_is_refused_unless_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
