/* SPDX-License-Identifier: Apache-2.0
 *
 * model_run.h - a model, an engine and a timeline in one hand, for tests. Everything asserts. */
#ifndef MODEL_RUN_H
#define MODEL_RUN_H

#include "format/format.h"
#include "format/json.h"
#include "squish_build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define assert_ok(expr, err)                                                           \
    do {                                                                               \
        squish_status st_ = (expr);                                                    \
        if (st_ != SQUISH_OK) fail_msg("%s: %s", squish_status_name(st_), (err)->text); \
    } while (0)

/* SQUISH_LONG=1 (make check-long): every case, where a few show the same. */
static inline bool run_long(void) { return getenv("SQUISH_LONG") != NULL; }
/* SQUISH_SAMPLE (under sanitizers): the tests whose names match, where the others only compare numbers. */
static inline void run_sampled(const char *names) {
    if (getenv("SQUISH_SAMPLE")) cmocka_set_test_filter(names);
}

typedef struct {
    squish_model *m;
    squish_engine *e;
    squish_seq *s;
    char dir[64]; /* temporary directory to remove, or "" */
} run;

/* opt may be NULL. */
run run_open(const char *path, squish_tier tier, const squish_engine_options *opt);
/* Compress into a temporary directory first. */
run run_compressed(const char *src, squish_tier tier, squish_method method, const squish_engine_options *opt);
/* Fill a folder with a model of the first n layers of another: links, and a config.json of its own. */
void make_shallow(const char *src, int32_t n, const char *dir);
/* The same of its first n layers, in 4 bits: what it says is nonsense, and it is there in a fraction of the
 * time. For what holds whatever is computed. */
run run_shallow(const char *src, int32_t n, squish_method method);
/* As much memory as o would take with `share` of the weights of a file: they are streamed. */
void run_limit(const char *path, double share, squish_engine_options *o);
squish_agile_info run_agile(const run *x);
void run_close(run *x);
/* n greedy tokens after a prompt, whatever they are (end tokens included). */
void run_greedy(run *x, const int32_t *prompt, size_t n_prompt, int32_t *out, int32_t n);

/* Tokens of a text file through the model's tokenizer. Free with squish_tokens_free. */
squish_tokens run_tokens(const run *x, const char *path);
/* Mean negative log-likelihood over non-overlapping windows, as `squish ppl` defines it, over at most
 * max_windows. */
double run_nats(run *x, const squish_tokens *t, int32_t window, int32_t max_windows);

void remove_tree(const char *dir);

#endif
