/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_grammar.c - what a grammar costs an answer: compiling, masks, advancing, one thread, over documents
 * read token by token as an answer would be made.
 *
 * Three languages: a flat object, a nested one with lists and an enumeration, and any JSON. The first reading
 * of a freshly compiled grammar gives the cold masks, the others the warm ones. */
#include "bench/bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { READINGS = 20 };

typedef struct {
    const char *name;
    squish_grammar_kind kind;
    const char *schema, *text;
} document;

static const document documents[] = {
    {"flat", SQUISH_GRAMMAR_SCHEMA_LOOSE,
     "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"year\":{\"type\":\"integer\"},"
     "\"publisher\":"
     "{\"type\":\"string\"},\"shelves\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},\"lent\":{"
     "\"type\":\"boolean\"}},"
     "\"required\":[\"title\",\"year\",\"publisher\",\"shelves\",\"lent\"],\"additionalProperties\":false}",
     "{\"title\": \"Tides of the northern coast\", \"year\": 1907, \"publisher\": \"Harbour Press\", "
     "\"shelves\": "
     "[\"sea\", \"maps\", \"history\"], \"lent\": true}"},
    {"nested", SQUISH_GRAMMAR_SCHEMA_LOOSE,
     "{\"type\":\"object\",\"properties\":{\"ticket\":{\"type\":\"string\"},\"state\":{\"enum\":[\"open\","
     "\"paid\",\"used\","
     "\"void\"]},\"traveller\":{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"home\":{"
     "\"type\":"
     "\"object\",\"properties\":{\"street\":{\"type\":\"string\"},\"town\":{\"type\":\"string\"},\"code\":{"
     "\"type\":\"string\"}"
     "},\"required\":[\"street\",\"town\",\"code\"],\"additionalProperties\":false}},\"required\":[\"name\","
     "\"home\"],"
     "\"additionalProperties\":false},\"legs\":{\"type\":\"array\",\"items\":{\"type\":\"object\","
     "\"properties\":{\"from\":"
     "{\"type\":\"string\"},\"minutes\":{\"type\":\"integer\"},\"fare\":{\"type\":\"number\"},\"remark\":{"
     "\"anyOf\":[{\"type\":"
     "\"string\"},{\"type\":\"null\"}]}},\"required\":[\"from\",\"minutes\",\"fare\",\"remark\"],"
     "\"additionalProperties\":"
     "false}}},\"required\":[\"ticket\",\"state\",\"traveller\",\"legs\"],\"additionalProperties\":false}",
     "{\"ticket\": \"K-2210-B\", \"state\": \"paid\", \"traveller\": {\"name\": \"Marta Brandt\", \"home\": "
     "{\"street\": "
     "\"3 Ferry Steps\", \"town\": \"Aldersund\", \"code\": \"N417\"}}, \"legs\": [{\"from\": \"pier 2\", "
     "\"minutes\": 95, "
     "\"fare\": 12.4, \"remark\": null}, {\"from\": \"main station\", \"minutes\": 240, \"fare\": 31.75, "
     "\"remark\": \"seat by "
     "the window\"}]}"},
    {"any JSON", SQUISH_GRAMMAR_JSON, "",
     "{\"a\": [3, 0.25, \"two \\\"words\\\" and \\n a line\", null, {\"b\": {\"c\": [false, true, {}]}}], "
     "\"place\": \"K\xC3\xB6ln "
     "\xE6\x9D\xB1\xE4\xBA\xAC\"}"},
};

typedef struct {
    squish_model *m;
    double v[6][BENCH_RUNS_MAX];
} job;

/* Compile and read once more: run r of all figures. */
static squish_status run_once(job *j, const document *d, int32_t r, squish_error *err) {
    squish_grammar *g;
    squish_grammar_report report;
    SQ_TRY(squish_grammar_new(&g, j->m, d->kind, d->schema, strlen(d->schema), err));
    squish_status st = squish_grammar_check(g, j->m, d->text, strlen(d->text), READINGS, &report, err);
    squish_grammar_free(g);
    if (st == SQUISH_OK && !report.accepted)
        st = sq_fail(err, SQUISH_INVALID, "bench grammar: '%s' is not read whole", d->name);
    if (st != SQUISH_OK) return st;
    const double all[] = {report.compile_ms, report.mask_us[0],    report.mask_us[2],
                          report.cold_us[2], report.advance_us[0], report.advance_us[2]};
    for (size_t i = 0; i < SQ_COUNT(all); i++) j->v[i][r] = all[i];
    return SQUISH_OK;
}

static squish_status measure(job *j, const document *d, const bench_options *o, json_t *rows,
                             squish_error *err) {
    static const struct {
        const char *name, *unit;
    } figures[] = {{"compile", "ms"},       {"mask", "us"},    {"mask p99", "us"},
                   {"cold mask p99", "us"}, {"advance", "us"}, {"advance p99", "us"}};
    for (int32_t r = 0; r < o->runs; r++) SQ_TRY(run_once(j, d, r, err));
    for (size_t i = 0; i < SQ_COUNT(figures); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s, %s", figures[i].name, d->name);
        SQ_TRY(bench_row(rows, name, figures[i].unit, j->v[i], o->runs, NAN, BENCH_SMALL_IS_GOOD, err));
    }
    return SQUISH_OK;
}

squish_status bench_grammar(const bench_options *o, json_t *rows, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    squish_model_options mo = squish_model_options_default();
    SQ_TRY(bench_check_runs(o, err));
    job *j = sq_alloc_zero(&a, sizeof *j);
    if (!j) return sq_fail(err, SQUISH_NO_MEMORY, "bench: out of memory");
    squish_status st = SQUISH_OK;
    mo.tier = o->tier;
    mo.text_only = true;
    SQ_GUARD(squish_model_open(&j->m, o->path, &mo, err));
    for (size_t i = 0; i < SQ_COUNT(documents); i++) {
        SQ_GUARD(measure(j, &documents[i], o, rows, err));
        if (o->progress && !o->progress(o->progress_user, "bench", i + 1, SQ_COUNT(documents)))
            SQ_GUARD(sq_fail(err, SQUISH_CANCELLED, "stopped"));
    }
fail:
    squish_model_close(j->m);
    sq_alloc_free(&a, j, sizeof *j);
    return st;
}
