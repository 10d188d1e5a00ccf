/* SPDX-License-Identifier: Apache-2.0
 *
 * test_maskbench.c - real schemas and instances (MaskBench) against the engine, token by token in a
 * vocabulary of 151k, where $SQUISH_TESTDATA has them.
 *
 * A schema is right if its valid instances are read to their end, each token in the mask of the place before
 * it, and its invalid ones are not. The instances were written by others, so white space and the order of
 * members are theirs. What comes out otherwise stands in schema/maskbench-exceptions.txt with its reason. The
 * times are printed, and judged by nobody here. */
#include "grammar/grammar.h"
#include "model/model.h"
#include "support/json_suite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TIMES_MAX = 1 << 20 };

static sq_arena arena;
static sq_ratchet ratchet;
static const sq_tok *tok;
static sq_gram_trie *trie;
static uint64_t *mask;
static int n_schemas, n_right, n_wrong, n_refused;
static double *mask_us, *compile_us;
static size_t n_masks, n_compiled;

static double since(uint64_t begin) { return (double)(sq_os_now_ns() - begin) / 1e3; }

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_times(const char *what, double *us, size_t n) {
    if (n == 0) return;
    qsort(us, n, sizeof *us, by_value);
    print_message("%s, us: p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f (%zu)\n", what, us[n / 2],
                  us[n * 9 / 10], us[n * 99 / 100], us[n * 999 / 1000], us[n - 1], n);
}

/* Is the text read to its end, each token allowed by the mask before it? timed: the masks are. */
static bool reads(sq_gram *g, const char *text, size_t n, bool timed) {
    int32_t *ids;
    size_t n_ids;
    sq_matcher *m;
    squish_error err = {0};
    bool ok = true;
    if (sq_tok_encode(tok, text, n, 0, &arena, &ids, &n_ids, &err) != SQUISH_OK) fail_msg("%s", err.text);
    assert_int_equal(sq_matcher_new(&m, g, trie, NULL, &err), SQUISH_OK);
    for (size_t i = 0; i < n_ids && ok; i++) {
        const uint64_t begin = sq_os_now_ns();
        if (sq_matcher_mask(m, mask, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
        if (timed && n_masks < TIMES_MAX) mask_us[n_masks++] = since(begin);
        const bool allowed = mask[ids[i] / 64] >> ids[i] % 64 & 1;
        if (sq_matcher_token(m, ids[i], &ok, &err) != SQUISH_OK) fail_msg("%s", err.text);
        assert_int_equal(ok, allowed);
    }
    ok = ok && sq_matcher_may_end(m);
    sq_matcher_free(m);
    return ok;
}

/* Grammars for answers, as far as they take the instances: they have one order of members. */
static void time_answers(const char *schema, size_t bytes, const gs_value *tests) {
    sq_gram *g;
    size_t n;
    const uint64_t begin = sq_os_now_ns();
    const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA, schema, bytes, NULL, NULL);
    compile_us[n_compiled++] = since(begin);
    if (st != SQUISH_OK) return;
    for (uint32_t t = 0; t < tests->n; t++) {
        const char *data = sq_suite_text(&arena, gs_value_find(&tests->u.items[t], "data"), &n);
        reads(g, data, n, true);
    }
    sq_gram_free(g);
}

/* Every third schema; SQUISH_SAMPLE=N: every Nth (under sanitizers); SQUISH_LONG=1: all. */
static int sample_every(void) {
    const char *n = getenv("SQUISH_SAMPLE");
    return n ? (int)strtol(n, NULL, 10) : getenv("SQUISH_LONG") ? 1 : 3;
}

static void run_schema(const char *path, const char *rel) {
    static int seen;
    if (seen++ % sample_every()) return;
    sq_span bytes;
    gs_value *file;
    size_t n;
    char why[256] = "";
    assert_int_equal(sq_os_read_file(path, 1 << 23, &arena, &bytes, NULL), SQUISH_OK);
    assert_int_equal(gs_value_read(&arena, (const char *)bytes.p, bytes.n, rel, &file, NULL), SQUISH_OK);
    const char *schema = sq_suite_text(&arena, gs_value_find(file, "schema"), &n);
    const gs_value *tests = gs_value_find(file, "tests");
    sq_gram *g;
    squish_error err = {0};
    const squish_status st = sq_gram_new(&g, SQ_GRAM_SCHEMA_LOOSE, schema, n, NULL, &err);
    time_answers(schema, n, tests);
    bool right = st == SQUISH_OK;
    for (uint32_t t = 0; t < tests->n && right; t++) {
        const gs_value *test = &tests->u.items[t];
        const char *data = sq_suite_text(&arena, gs_value_find(test, "data"), &n);
        const bool wanted = gs_value_find(test, "valid")->yes;
        right = reads(g, data, n, false) == wanted;
        if (!right) snprintf(why, sizeof why, "test %u is %s", t, wanted ? "rejected" : "accepted");
    }
    n_schemas++;
    n_right += right;
    n_refused += st != SQUISH_OK;
    n_wrong += st == SQUISH_OK && !right;
    sq_ratchet_judge(&ratchet, rel + 1, right, st == SQUISH_OK ? why : err.text);
    if (st == SQUISH_OK) sq_gram_free(g);
    sq_arena_reset(&arena);
}

static void every_schema_reads_its_instances_or_is_a_listed_exception(void **state) {
    (void)state;
    static const char *const none[] = {NULL};
    char root[600], vocabulary[640];
    if (!sq_suite_find("maskbench", root, sizeof root)) {
        print_message("skipped: no MaskBench under SQUISH_TESTDATA\n");
        skip();
    }
    snprintf(vocabulary, sizeof vocabulary, "%s/../tokenizers/ggml-vocab-qwen2.gguf", root);
    squish_model *m;
    squish_error err = {0};
    squish_model_options o = squish_model_options_default();
    o.text_only = true;
    if (squish_model_open(&m, vocabulary, &o, &err) != SQUISH_OK) fail_msg("%s", err.text);
    tok = m->tok;
    const int32_t n_vocab = sq_tok_count(tok);
    assert_int_equal(sq_gram_trie_new(&trie, tok, n_vocab, NULL, NULL), SQUISH_OK);
    sq_arena listed;
    sq_arena_init(&listed, NULL, 1 << 20, 0);
    sq_arena_init(&arena, NULL, 1 << 20, 0);
    sq_ratchet_read(&ratchet, &listed, "tests/golden/schema/maskbench-exceptions.txt");
    mask = malloc(((size_t)n_vocab + 63) / 64 * sizeof *mask);
    mask_us = malloc(TIMES_MAX * sizeof *mask_us);
    compile_us = malloc(4096 * sizeof *compile_us);
    sq_suite_each_file(&listed, root, "", none, run_schema);
    print_message("%d schemas: %d right, %d wrong, %d refused\n", n_schemas, n_right, n_wrong, n_refused);
    print_times("compile", compile_us, n_compiled);
    print_times("mask, cold", mask_us, n_masks);
    assert_true(n_right >= n_schemas * 88 / 100);
    assert_true(n_wrong * 500 <= n_schemas);
    assert_int_equal(sample_every() > 1 ? ratchet.unexpected : sq_ratchet_end(&ratchet), 0);
    free(compile_us), free(mask_us), free(mask);
    sq_arena_deinit(&arena);
    sq_arena_deinit(&listed);
    sq_gram_trie_free(trie);
    squish_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_schema_reads_its_instances_or_is_a_listed_exception),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
