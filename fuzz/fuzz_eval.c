/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_eval.c - task files and files of items from arbitrary bytes. The first byte names the task; behind a
 * byte 1 come labels. What is accepted holds together: every item has its choices, a gold one among them, and
 * texts; results written as a file of items and read again are the same. */
#include "eval/eval.h"
#include "format/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_set(const eval_set *s) {
    for (size_t i = 0; i < s->n; i++) {
        const eval_item *item = &s->items[i];
        if (item->n < 2 || item->n > EVAL_CHOICES_MAX || item->gold < 0 || item->gold >= item->n) abort();
        for (int32_t k = 0; k < item->n; k++)
            if (item->choices[k].rest[0] != ' ' || !item->choices[k].context || item->choices[k].chars < 0)
                abort();
    }
}

static void round_trip(const eval_set *s) {
    char *bytes = NULL;
    size_t n = 0, found;
    FILE *f = open_memstream(&bytes, &n);
    const eval_header h = {"m", "w", "f16", false};
    eval_result *made = calloc(s->n, sizeof *made), *back = calloc(s->n, sizeof *back);
    if (!eval_items_put_header(f, &h)) abort();
    for (size_t i = 0; i < s->n; i++) {
        made[i].n = s->items[i].n;
        for (int32_t k = 0; k < made[i].n; k++)
            made[i].choices[k] = (eval_score){-1.25 * k - 0.1 * (double)i, k, k == 1};
        eval_choose(&made[i], &s->items[i]);
        if (!eval_items_put(f, s->task->name, i, &s->items[i], &made[i])) abort();
    }
    fclose(f);
    if (eval_items_read((sq_span){(const uint8_t *)bytes, n}, "again", &h, s, back, &found, NULL) !=
            SQUISH_OK ||
        found != s->n)
        abort();
    for (size_t i = 0; i < s->n; i++) {
        made[i].done = true;
        if (memcmp(made[i].choices, back[i].choices, sizeof made[i].choices) != 0 ||
            made[i].acc != back[i].acc || made[i].acc_norm != back[i].acc_norm)
            abort();
    }
    free(made);
    free(back);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const eval_task *t = &eval_tasks[data[0] % EVAL_TASKS];
    const squish_alloc a = sq_alloc_default();
    uint8_t *p = malloc(size);
    memcpy(p, data + 1, size - 1);
    const uint8_t *mark = size > 1 ? memchr(p, 1, size - 1) : NULL;
    const size_t n = mark ? (size_t)(mark - p) : size - 1;
    const sq_span labels = {mark ? mark + 1 : NULL, mark ? size - 2 - n : 0};
    eval_set s;
    squish_error err = {0};
    if (eval_set_parse(&s, t, (sq_span){p, n}, labels, "fuzz", 0, &a, &err) == SQUISH_OK) {
        eval_result *r = calloc(s.n, sizeof *r);
        size_t found;
        check_set(&s);
        round_trip(&s);
        eval_items_read((sq_span){p, n}, "items", NULL, &s, r, &found, NULL);
        eval_items_read(labels, "items", NULL, &s, r, &found, NULL);
        free(r);
        eval_set_free(&s);
    } else if (err.code == SQUISH_OK || !err.text[0]) {
        abort();
    }
    free(p);
    return 0;
}
