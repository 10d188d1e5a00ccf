/* SPDX-License-Identifier: Apache-2.0
 *
 * tmpl_run.h - a template, its variables as JSON text, and what came of it: for the template tests. */
#ifndef SQ_TEST_TMPL_RUN_H
#define SQ_TEST_TMPL_RUN_H

#include "text/tmpl_int.h"

#include <stdarg.h>
#include <stdlib.h>

typedef struct {
    squish_status st;
    sq_buf blob, out; /* out.data is NUL-terminated, "" when nothing was written */
    squish_error err;
} sq_test_tmpl;

/* 2026-01-02 03:04:05 UTC, the clock of every golden file. */
enum { SQ_TEST_NOW = 1767323045 };

static inline sq_test_tmpl sq_test_render_json(const char *source, size_t n, const json_t *vars,
                                               const squish_alloc *a, const sq_tmpl_limits *limits) {
    sq_test_tmpl t = {0};
    const sq_tmpl_limits standard = {.now_unix = SQ_TEST_NOW};
    sq_tmpl_view view;
    const sq_tmpl *tmpl = NULL;
    sq_buf_init(&t.blob, a, 64 << 20);
    sq_buf_init(&t.out, a, 64 << 20);
    t.st = sq_tmpl_compile(source, n, a, &t.blob, &t.err);
    if (t.st == SQUISH_OK)
        t.st =
            sq_tmpl_open(&view, (sq_span){.p = (const uint8_t *)t.blob.data, .n = t.blob.len}, &tmpl, &t.err);
    if (t.st == SQUISH_OK) t.st = sq_tmpl_render(tmpl, vars, limits ? limits : &standard, a, &t.out, &t.err);
    return t;
}

static inline sq_test_tmpl sq_test_render(const char *source, const char *vars_json) {
    json_t *vars = vars_json ? json_loads(vars_json, 0, NULL) : NULL;
    if (vars_json && !vars) abort(); /* a mistake in the test */
    sq_test_tmpl t = sq_test_render_json(source, strlen(source), vars, NULL, NULL);
    json_decref(vars);
    return t;
}

static inline const char *sq_test_text(const sq_test_tmpl *t) { return t->out.data ? t->out.data : ""; }

static inline void sq_test_tmpl_free(sq_test_tmpl *t) {
    sq_buf_deinit(&t->blob);
    sq_buf_deinit(&t->out);
}

#define assert_renders(source, vars, wanted)                           \
    do {                                                               \
        sq_test_tmpl t_ = sq_test_render(source, vars);                \
        assert_string_equal(t_.err.text, "");                          \
        assert_string_equal(sq_test_text(&t_), wanted);                \
        sq_test_tmpl_free(&t_);                                        \
    } while (0)

#define assert_refused(source, vars, status, words)                    \
    do {                                                               \
        sq_test_tmpl t_ = sq_test_render(source, vars);                \
        assert_int_equal(t_.st, status);                               \
        assert_string_equal(t_.err.text, words);                       \
        assert_string_equal(sq_test_text(&t_), "");                    \
        sq_test_tmpl_free(&t_);                                        \
    } while (0)

#endif
