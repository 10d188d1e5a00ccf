/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_story.h - what poc and the benches of the first report (wave12, eoe) share: rows of several benches in
 * one list, checks, the table of figures side by side, and the report. */
#ifndef SQ_CLI_STORY_H
#define SQ_CLI_STORY_H

#include "bench/bench.h"
#include "cli/cli.h"

typedef struct {
    cli *c;
    bench_options o; /* path and tier of the model, runs, threads */
    char program[1024];
    squish_text path;
    const char *name;              /* as typed */
    json_t *rows, *checks, *facts; /* facts: what else the report says, by name */
    bool failed;                   /* a check did */
} story;

/* The model's place; builds nothing. runs 0: --runs. 0 or exit status. */
int story_begin(story *s, cli *c, const char *name);
void story_end(story *s);
typedef squish_status (*story_bench)(const bench_options *o, json_t *rows, squish_error *err);
/* Run a bench at one point or two (0: none) and add its rows, prefix in front of their names. */
squish_status story_take(story *s, story_bench bench, int32_t at, int32_t then, const char *prefix,
                         squish_error *err);
/* What is left of the source in the tier, where there is a source: the fact "quality", and a check of the
 * first tokens. */
squish_status story_quality(story *s, squish_error *err);
void story_check(story *s, const char *name, bool ok, const char *fmt, ...) SQ_PRINTF(4, 5);
void story_fact(story *s, const char *name, json_t *value); /* takes the reference */
/* Table or JSON, and with --report the page. what: of the report's "bench". Exit status: 0, or 1 if a check
 * failed. */
int story_tell(story *s, const char *what, const bench_claim *list, size_t n);

/* squish bench wave12 and eoe. */
int cli_bench_wave12(cli *c, const char *model);
int cli_bench_eoe(cli *c, const char *model);

#endif
