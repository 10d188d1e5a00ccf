/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_tasks.c - the tasks, where their files lie, and files to items. */
#include "eval/eval_int.h"

#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <string.h>

const eval_task eval_tasks[EVAL_TASKS] = {
    {"arc_easy",
     EVAL_ARC,
     true,
     {"arc_easy/test.jsonl", "ARC-Easy-Test.jsonl", "ARC-Easy/ARC-Easy-Test.jsonl"},
     0},
    {"arc_challenge",
     EVAL_ARC,
     true,
     {"arc_challenge/test.jsonl", "ARC-Challenge-Test.jsonl", "ARC-Challenge/ARC-Challenge-Test.jsonl"},
     0},
    {"hellaswag",
     EVAL_HELLASWAG,
     true,
     {"hellaswag/validation.jsonl", "hellaswag_val.jsonl", "hellaswag/hellaswag_val.jsonl"},
     0},
    {"piqa", EVAL_PIQA, true, {"piqa/validation.jsonl", "valid.jsonl", "piqa/valid.jsonl"}, "-labels.lst"},
    {"winogrande",
     EVAL_WINOGRANDE,
     false,
     {"winogrande/validation.jsonl", "winogrande_1.1/dev.jsonl", "dev.jsonl", "winogrande/dev.jsonl"},
     0},
};

const eval_task *eval_task_find(const char *name, size_t n) {
    for (size_t i = 0; i < EVAL_TASKS; i++)
        if (strlen(eval_tasks[i].name) == n && memcmp(eval_tasks[i].name, name, n) == 0)
            return &eval_tasks[i];
    return NULL;
}

/* ---- lines ----------------------------------------------------------------------------------- */

/* The next line of *rest without its end; false: there is none. */
bool eval_next_line(sq_span *rest, sq_span *line) {
    if (rest->n == 0) return false;
    const uint8_t *end = memchr(rest->p, '\n', rest->n);
    const size_t n = end ? (size_t)(end - rest->p) : rest->n, used = end ? n + 1 : n;
    *line = (sq_span){rest->p, n > 0 && rest->p[n - 1] == '\r' ? n - 1 : n};
    rest->p += used;
    rest->n -= used;
    return true;
}

static bool is_blank(sq_span line) {
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] != ' ' && line.p[i] != '\t') return false;
    return true;
}

static size_t count_records(sq_span text) {
    sq_span line;
    size_t n = 0;
    while (eval_next_line(&text, &line)) n += !is_blank(line);
    return n;
}

/* How many of `all` the limit leaves. */
static size_t limited(size_t all, double limit) {
    if (!(limit > 0)) return all;
    const double n = limit < 1 ? ceil((double)all * limit) : floor(limit);
    return n < (double)all ? (size_t)n : all;
}

static squish_status read_line(eval_set *s, sq_span line, int64_t label, size_t number, const char *name,
                               eval_item *item, squish_error *err) {
    char where[128];
    json_t *doc = NULL;
    snprintf(where, sizeof where, "%.90s:%zu", name, number);
    if (line.n > EVAL_LINE_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "%s: a record of %zu bytes, at most %d (EVAL_LINE_MAX)", where,
                       line.n, EVAL_LINE_MAX);
    SQ_TRY(sq_json_parse((const char *)line.p, line.n, 8, where, &doc, err));
    const squish_status st = eval_item_read(s, doc, label, where, item, err);
    json_decref(doc);
    return st;
}

/* The label of piqa's next item, from its list: -1 where there is no list. */
static squish_status next_label(sq_span *labels, int64_t *label, const char *name, size_t number,
                                squish_error *err) {
    sq_span line;
    *label = -1;
    if (!labels->p) return SQUISH_OK;
    if (!eval_next_line(labels, &line) || line.n != 1 || line.p[0] < '0' || line.p[0] > '9')
        return sq_fail(err, SQUISH_CORRUPT, "%s: label %zu is none (wanted one digit a line)", name, number);
    *label = line.p[0] - '0';
    return SQUISH_OK;
}

squish_status eval_set_parse(eval_set *out, const eval_task *task, sq_span records, sq_span labels,
                             const char *name, double limit, const squish_alloc *alloc, squish_error *err) {
    *out = (eval_set){.task = task, .n_file = count_records(records)};
    sq_arena_init(&out->arena, alloc, 1 << 16, (size_t)4 * EVAL_FILE_MAX);
    const size_t n = limited(out->n_file, limit);
    squish_status st = SQUISH_OK;
    sq_span line;
    if (n == 0) SQ_GUARD(sq_fail(err, SQUISH_CORRUPT, "%s: no records", name));
    if (n > EVAL_ITEMS_MAX)
        SQ_GUARD(sq_fail(err, SQUISH_CORRUPT, "%s: %zu records, at most %d (EVAL_ITEMS_MAX)", name, n,
                         EVAL_ITEMS_MAX));
    out->items = SQ_ARENA_ARRAY(&out->arena, eval_item, n);
    if (!out->items) SQ_GUARD(sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name));
    for (size_t number = 1; out->n < n && eval_next_line(&records, &line); number++) {
        int64_t label;
        if (is_blank(line)) continue;
        SQ_GUARD(next_label(&labels, &label, name, out->n + 1, err));
        SQ_GUARD(read_line(out, line, label, number, name, &out->items[out->n], err));
        out->n++;
    }
    return SQUISH_OK;
fail:
    eval_set_free(out);
    return st;
}

bool eval_set_put_in_front(eval_set *s, const char *text, size_t n) {
    for (size_t i = 0; i < s->n; i++) {
        const char *before = NULL, *made = NULL;
        for (int32_t k = 0; k < s->items[i].n; k++) {
            eval_choice *c = &s->items[i].choices[k];
            if (c->context != before) { /* choices of an item mostly share theirs */
                const size_t bytes = strlen(c->context);
                char *all = sq_arena_alloc(&s->arena, n + 2 + bytes + 1, 1);
                if (!all) return false;
                memcpy(all, text, n);
                memcpy(all + n, "\n\n", 2);
                memcpy(all + n + 2, c->context, bytes + 1);
                before = c->context;
                made = all;
            }
            c->context = made;
        }
        s->items[i].hash = eval_item_hash(&s->items[i]);
    }
    return true;
}

void eval_set_free(eval_set *s) {
    sq_arena_deinit(&s->arena);
    *s = (eval_set){0};
}

/* ---- files ----------------------------------------------------------------------------------- */

static bool find_file(const eval_task *t, const char *dir, char *out, size_t n) {
    for (size_t i = 0; i < EVAL_PLACES && t->places[i]; i++)
        if (snprintf(out, n, "%s/%s", dir, t->places[i]) < (int)n && sq_os_exists(out)) return true;
    return false;
}

bool eval_task_is_there(const eval_task *task, const char *dir) {
    char path[4096];
    return find_file(task, dir, path, sizeof path);
}

static squish_status not_found(const eval_task *t, const char *dir, squish_error *err) {
    char list[256] = "";
    for (size_t i = 0; i < EVAL_PLACES && t->places[i]; i++) {
        const size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", t->places[i]);
    }
    return sq_fail(err, SQUISH_NOT_FOUND, "no task file of %s in %.200s (looked for: %s)", t->name, dir,
                   list);
}

void eval_sha256(sq_span bytes, char out[65]) {
    uint8_t sum[EVP_MAX_MD_SIZE] = {0};
    unsigned n = 0;
    if (!EVP_Digest(bytes.p, bytes.n, sum, &n, EVP_sha256(), NULL)) memset(sum, 0, sizeof sum);
    for (size_t i = 0; i < 32; i++) snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

/* piqa's labels lie beside the records; where there are none the records have them. */
static squish_status read_labels(const eval_task *t, const char *file, sq_arena *ar, sq_span *out,
                                 squish_error *err) {
    char path[1100];
    *out = (sq_span){NULL, 0};
    const size_t n = strlen(file);
    if (!t->labels || n < 6) return SQUISH_OK;
    snprintf(path, sizeof path, "%.*s%s", (int)(n - 6), file, t->labels);
    return sq_os_exists(path) ? sq_os_read_file(path, EVAL_FILE_MAX, ar, out, err) : SQUISH_OK;
}

squish_status eval_set_load(eval_set *out, const eval_task *task, const char *dir, double limit,
                            const squish_alloc *alloc, squish_error *err) {
    char file[1024], sha[65];
    sq_arena bytes;
    sq_span records, labels;
    *out = (eval_set){0};
    if (!find_file(task, dir, file, sizeof file)) return not_found(task, dir, err);
    sq_arena_init(&bytes, alloc, 4096, 0);
    squish_status st = sq_os_read_file(file, EVAL_FILE_MAX, &bytes, &records, err);
    if (st == SQUISH_OK) st = read_labels(task, file, &bytes, &labels, err);
    if (st == SQUISH_OK) {
        eval_sha256(records, sha);
        st = eval_set_parse(out, task, records, labels, file, limit, alloc, err);
    }
    if (st == SQUISH_OK) {
        snprintf(out->file, sizeof out->file, "%s", file);
        memcpy(out->sha256, sha, sizeof sha);
    }
    sq_arena_deinit(&bytes);
    return st;
}
