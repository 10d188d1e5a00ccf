/* SPDX-License-Identifier: Apache-2.0
 *
 * eval.h - the benchmark tasks: public task files to prompts, prompts to log-likelihoods, those to scores.
 *
 * The rules are those of lm-evaluation-harness 0.4 (zero shots): how an item reads, how context and
 * continuation are cut into tokens, acc and acc_norm, the error of a mean. A client of squish.h that prints
 * nothing: the command does.
 *
 *   eval_task    ->  eval_set          ->  eval_run             ->  eval_sum, eval_compare
 *   where it lies    items as text         one job per choice       figures of a task
 *
 * Threads: everything here belongs to one thread at a time. */
#ifndef SQ_EVAL_H
#define SQ_EVAL_H

#include "base/base.h"

#include <stdio.h>

enum {
    EVAL_TASKS = 5,
    EVAL_CHOICES_MAX = 16,
    EVAL_FILE_MAX = 256 << 20, /* bytes of a task file */
    EVAL_LINE_MAX = 1 << 20,   /* of one record */
    EVAL_ITEMS_MAX = 1 << 20
};

/* ---- tasks and items ------------------------------------------------------------------------- */

typedef enum { EVAL_ARC, EVAL_HELLASWAG, EVAL_PIQA, EVAL_WINOGRANDE } eval_form;

enum { EVAL_PLACES = 4 };
typedef struct {
    const char *name;
    eval_form form;
    bool norm;                       /* acc_norm is a figure of it, and the one compared */
    const char *places[EVAL_PLACES]; /* in a data folder; the first is ours */
    const char *labels;              /* of piqa, beside the file: "-labels.lst" for ".jsonl" */
} eval_task;
extern const eval_task eval_tasks[EVAL_TASKS];
/* name[0..n); NULL: none is called so. */
const eval_task *eval_task_find(const char *name, size_t n);

/* One answer to choose: `rest` is scored behind `context`; both as the model reads them, delimiter included.
 * chars: code points of the answer alone, for acc_norm. */
typedef struct {
    const char *context, *rest;
    int32_t chars;
} eval_choice;
typedef struct {
    eval_choice *choices; /* [n] */
    int32_t n, gold;
    uint64_t hash; /* of all text above */
} eval_item;
typedef struct {
    const eval_task *task;
    eval_item *items;            /* [n] */
    size_t n, n_file;            /* n_file: items of the whole file */
    char file[1024], sha256[65]; /* of the file with the records */
    sq_arena arena;              /* owner of items and texts */
} eval_set;

/* Read task from a folder. limit 0: all; below 1: that share, rounded up; else the first so many.
 * Errors name file and line: NOT_FOUND (with the places looked at), CORRUPT, NO_MEMORY. */
squish_status eval_set_load(eval_set *out, const eval_task *task, const char *dir, double limit,
                            const squish_alloc *alloc, squish_error *err);
/* Is its file in one of its places? */
bool eval_task_is_there(const eval_task *task, const char *dir);
/* The same from bytes; labels (piqa only) may be empty where records have a "label". name: for errors. */
squish_status eval_set_parse(eval_set *out, const eval_task *task, sq_span records, sq_span labels,
                             const char *name, double limit, const squish_alloc *alloc, squish_error *err);
/* Put text and an empty line in front of every context; false: no memory. */
bool eval_set_put_in_front(eval_set *s, const char *text, size_t n);
void eval_set_free(eval_set *s);

/* (eval_text.c) Text as the tasks want it, into `out`; false: no memory.
 * hellaswag: stripped, " [title]" to ". ", bracketed text gone, two spaces to one.
 * capitalised: the first character in title case, all others in lower case, as Python's capitalize. */
bool eval_hellaswag_text(sq_buf *out, const char *s, size_t n);
bool eval_capitalised(sq_buf *out, const char *s, size_t n);
/* s[0..n) without white space (that of Unicode) at both ends. */
sq_span eval_stripped(const char *s, size_t n);

/* ---- where the public files are (eval_fetch.c) ------------------------------------------------- */

enum { EVAL_PARTS = 3 };
/* One file of the internet, whole or an archive; parts end with the first without a place. */
typedef struct {
    const char *url, *sha256;
    uint64_t bytes;
    struct {
        const char *name;  /* in the archive; NULL: it is none */
        const char *place; /* in a data folder, the first of its task; labels stand before records */
    } parts[EVAL_PARTS];
} eval_source;
size_t eval_sources(const eval_source **out);
bool eval_source_has(const eval_source *s, const eval_task *t);
/* Fetch it, check the sum of what came, and put the parts into dir, which is made; each appears whole or not
 * at all. Archives are read by libzip, where it is installed. Errors: NETWORK, CORRUPT (another sum; both are
 * named), NO_SPACE, IO, UNSUPPORTED (no libcurl, no libzip), CANCELLED. */
squish_status eval_fetch(const eval_source *s, const char *dir, squish_progress_fn progress, void *user,
                         squish_error *err);

/* ---- scores of items ------------------------------------------------------------------------- */

typedef struct {
    double ll;      /* sum of the log-probabilities, left to right */
    int32_t tokens; /* of the continuation */
    bool greedy;    /* each of them was the likeliest */
} eval_score;
typedef struct {
    eval_score choices[EVAL_CHOICES_MAX];
    int32_t n, gold, acc, acc_norm; /* acc, acc_norm: indexes chosen */
    bool done;
} eval_result;

/* Choose: the largest ll, and the largest ll per code point; the first wins ties. */
void eval_choose(eval_result *r, const eval_item *item);

/* Context and continuation to ids (*n_context of *out belong to the context): trailing white space of the
 * context moves over, both together are tokenised, the context's own length is cut off. An empty context is
 * the first token of a text: BOS, else an end token. Errors: INVALID (a continuation of no tokens). */
squish_status eval_encode(const squish_model *m, const eval_choice *c, bool bos, squish_tokens *out,
                          size_t *n_context, squish_error *err);

typedef struct {
    const squish_model *model;
    squish_batch *batch;
    int32_t ctx_tokens; /* longer prompts lose their beginning, as the harness has it */
    bool bos;           /* put BOS in front */
    /* Called as items are done, in their order; false stops (CANCELLED). */
    bool (*done)(void *user, size_t i, const eval_result *r);
    void *user;
} eval_run_options;
/* Score the items of s that results[i].done says are missing. Errors: of jobs, of done. */
squish_status eval_run(const eval_run_options *o, const eval_set *s, eval_result *results, squish_error *err);

/* ---- figures --------------------------------------------------------------------------------- */

typedef struct {
    int32_t n;
    double acc, acc_err, acc_norm, acc_norm_err; /* err: sqrt(p (1 - p) / (n - 1)) */
} eval_sum;
eval_sum eval_sum_of(const eval_result *r, size_t n);

/* Two runs over the same items. lost: right in the reference only; won: here only. */
typedef struct {
    int32_t n, lost, won;
    double reference, delta; /* shares; delta: ours minus the reference's */
    double low, high;        /* 95 % interval of delta, paired */
    double p;                /* McNemar, exact, two-sided */
    bool pass;               /* delta >= -2 points, and not (p < 0.01 and delta < 0) */
} eval_compared;
eval_compared eval_compare(const eval_result *ours, const eval_result *reference, size_t n, bool norm);

/* ---- items on disk --------------------------------------------------------------------------- */

/* A line of JSON per item, behind one that says whose they are. Readers take nothing on trust. */
typedef struct {
    const char *model, *weights, *kv;
    bool bos;
} eval_header;
bool eval_items_put_header(FILE *f, const eval_header *h);
bool eval_items_put(FILE *f, const char *task, size_t i, const eval_item *item, const eval_result *r);
/* Results of task from bytes written so, into results [s->n]; *found: how many. A last line without an end is
 * left out. whose (may be NULL): the header that must be there. Errors: CORRUPT, INVALID (other items, other
 * header). */
squish_status eval_items_read(sq_span text, const char *name, const eval_header *whose, const eval_set *s,
                              eval_result *results, size_t *found, squish_error *err);

#endif
