/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sched_masks.c - masks that are made on a thread of their own, while several others advance matchers of
 * the same grammars, wait, and do not wait. Under TSan it is the test of a grammar's lock as well. */
#include "sched/sched_masks.h"
#include "support/tok_load.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { THREADS = 4, ANSWERS = 12, TOKENS = 40, GRAMMARS = 3 };

static sq_test_tok vocabulary;
static sq_gram_trie *trie;
static sq_gram *grammars[GRAMMARS];
static sq_masks *masks;
static int32_t n_vocab;
static size_t words;

typedef struct {
    uint64_t seed;
    int n_late, n_wrong, n_failed;
} worker;

static unsigned draw(worker *w, unsigned n) { return (unsigned)((sq_splitmix64(&w->seed) >> 11) % n); }

/* A random id of those allowed that is no end; -1: there is none. */
static int32_t pick(worker *w, const uint64_t *mask) {
    const int32_t from = (int32_t)draw(w, (unsigned)n_vocab);
    for (int32_t i = 0; i < n_vocab; i++) {
        const int32_t id = (from + i) % n_vocab;
        if (mask[id / 64] >> id % 64 & 1 && !sq_tok_is_eos(vocabulary.tok, id)) return id;
    }
    return -1;
}

/* Wait for the mask in one of three ways, and hold it against one that was made at once. */
static void take(worker *w, sq_mask_job *j, sq_matcher *m, uint64_t *own) {
    if (draw(w, 3) == 0) w->n_late += !sq_masks_wait(masks, j, 0);
    if (draw(w, 2)) sq_masks_wait(masks, j, 50);
    int32_t n = 0;
    w->n_failed += sq_matcher_mask(m, own, &n, NULL) != SQUISH_OK;
    sq_masks_wait(masks, j, -1);
    w->n_failed += j->status != SQUISH_OK;
    w->n_wrong += n != j->n_allowed || memcmp(own, j->mask, words * sizeof *own) != 0;
}

static void *run(void *arg) {
    worker *w = arg;
    uint64_t *own = calloc(words, sizeof *own), *made = calloc(words, sizeof *made);
    for (int a = 0; a < ANSWERS; a++) {
        sq_gram *g = grammars[draw(w, GRAMMARS)];
        sq_matcher *m;
        w->n_failed += sq_matcher_new(&m, g, trie, NULL, NULL) != SQUISH_OK;
        for (int i = 0; i < TOKENS; i++) {
            sq_mask_job j = {.g = g, .trie = trie, .place = sq_matcher_place(m), .mask = made};
            sq_mask_job unseen = {.g = g, .trie = trie, .place = sq_matcher_place(m)};
            bool ok;
            if (draw(w, 2)) sq_masks_begin(masks, &unseen);
            sq_masks_begin(masks, &j);
            take(w, &j, m, own);
            if (!sq_masks_drop(masks, &unseen)) sq_masks_wait(masks, &unseen, -1);
            w->n_failed += !sq_masks_drop(masks, &unseen);
            const int32_t id = pick(w, made);
            if (id < 0) break;
            w->n_failed += sq_matcher_token(m, id, &ok, NULL) != SQUISH_OK || !ok;
            if (draw(w, 8) == 0) sq_matcher_rollback(m, draw(w, 4));
        }
        sq_matcher_free(m);
    }
    free(made);
    free(own);
    return NULL;
}

static void masks_of_many_threads_are_those_that_are_made_at_once(void **state) {
    (void)state;
    worker workers[THREADS] = {{.seed = 1}, {.seed = 2}, {.seed = 3}, {.seed = 4}};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(workers[i].n_failed, 0);
        assert_int_equal(workers[i].n_wrong, 0);
    }
}

/* A job that waits is taken out of the queue, wherever it stands; the others are done. */
static void a_job_that_was_dropped_is_the_callers_again(void **state) {
    (void)state;
    enum { JOBS = 6 };
    sq_matcher *m;
    sq_mask_job jobs[JOBS];
    uint64_t *made = calloc(words, sizeof *made);
    assert_int_equal(sq_matcher_new(&m, grammars[0], trie, NULL, NULL), SQUISH_OK);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < JOBS; i++) {
            jobs[i] = (sq_mask_job){.g = grammars[0], .trie = trie, .place = sq_matcher_place(m)};
            if (i == JOBS - 1) jobs[i].mask = made;
            sq_masks_begin(masks, &jobs[i]);
        }
        for (int i = round % 2; i < JOBS - 1; i += 2)
            if (!sq_masks_drop(masks, &jobs[i])) sq_masks_wait(masks, &jobs[i], -1);
        for (int i = 0; i < JOBS; i++) {
            assert_true(sq_masks_wait(masks, &jobs[i], -1));
            assert_true(sq_masks_drop(masks, &jobs[i]));
        }
        assert_int_equal(jobs[JOBS - 1].status, SQUISH_OK);
        assert_true(jobs[JOBS - 1].n_allowed > 0);
    }
    sq_matcher_free(m);
    free(made);
}

/* Nothing was begun, so there is no thread to end. */
static void a_queue_that_was_never_used_goes_away(void **state) {
    (void)state;
    sq_masks *w;
    const squish_alloc a = sq_alloc_default();
    assert_int_equal(sq_masks_new(&w, &a, NULL), SQUISH_OK);
    sq_masks_free(w);
    sq_masks_free(NULL);
}

static int setup(void **state) {
    (void)state;
    static const struct {
        sq_gram_kind kind;
        const char *source;
    } sources[GRAMMARS] = {
        {SQ_GRAM_REGEX, "[^e]{5,400}"},
        {SQ_GRAM_SCHEMA,
         "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":9},\"b\":{"
         "\"type\":\"array\",\"items\":{\"type\":\"number\"}}},\"required\":[\"a\"]}"},
        {SQ_GRAM_TEXT, "root ::= e\ne ::= t ([-+*/] t)*\nt ::= [0-9]+ | \"(\" e \")\""},
    };
    size_t n;
    char *json = sq_test_slurp("models/squish-tiny/tokenizer.json", &n);
    const squish_alloc a = sq_alloc_default();
    if (!json || sq_test_tok_json(&vocabulary, json) != SQUISH_OK) return 1;
    free(json);
    n_vocab = sq_tok_count(vocabulary.tok);
    words = ((size_t)n_vocab + 63) / 64;
    for (int i = 0; i < GRAMMARS; i++)
        if (sq_gram_new(&grammars[i], sources[i].kind, sources[i].source, strlen(sources[i].source), NULL,
                        NULL) != SQUISH_OK)
            return 1;
    return sq_gram_trie_new(&trie, vocabulary.tok, n_vocab, NULL, NULL) != SQUISH_OK ||
           sq_masks_new(&masks, &a, NULL) != SQUISH_OK;
}

static int teardown(void **state) {
    (void)state;
    sq_masks_free(masks);
    for (int i = 0; i < GRAMMARS; i++) sq_gram_free(grammars[i]);
    sq_gram_trie_free(trie);
    sq_test_tok_free(&vocabulary);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_of_many_threads_are_those_that_are_made_at_once),
        cmocka_unit_test(a_job_that_was_dropped_is_the_callers_again),
        cmocka_unit_test(a_queue_that_was_never_used_goes_away),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
