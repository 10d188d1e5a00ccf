/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_items.c - results on disk, a line of JSON per item:
 *
 *   {"squish_eval": 1, "model": ..., "weights": ..., "kv": ..., "bos": false}
 *   {"task": "piqa", "doc_id": 0, "hash": "...", "ll": [...], "tokens": [...], "greedy": [...],
 *    "acc": 1, "acc_norm": 1, "gold": 1}
 *
 * Numbers have 17 digits, so a double comes back as it went. A run that was stopped leaves whole lines and
 * maybe a part of one; the hash says whether a line is about the item that stands at its place today. */
#include "eval/eval_int.h"

#include <inttypes.h>
#include <string.h>

static bool put_line(FILE *f, json_t *o) {
    if (!o) return false;
    const bool ok = json_dumpf(o, f, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 && fputc('\n', f) != EOF &&
                    fflush(f) == 0;
    json_decref(o);
    return ok;
}

bool eval_items_put_header(FILE *f, const eval_header *h) {
    return put_line(f, json_pack("{s:i, s:s, s:s, s:s, s:b}", "squish_eval", 1, "model", h->model, "weights",
                                 h->weights, "kv", h->kv, "bos", h->bos));
}

bool eval_items_put(FILE *f, const char *task, size_t i, const eval_item *item, const eval_result *r) {
    char hash[17];
    json_t *ll = json_array(), *tokens = json_array(), *greedy = json_array();
    snprintf(hash, sizeof hash, "%016" PRIx64, item->hash);
    for (int32_t k = 0; k < r->n; k++) {
        json_array_append_new(ll, json_real(r->choices[k].ll));
        json_array_append_new(tokens, json_integer(r->choices[k].tokens));
        json_array_append_new(greedy, json_boolean(r->choices[k].greedy));
    }
    return put_line(f, json_pack("{s:s, s:I, s:s, s:o, s:o, s:o, s:i, s:i, s:i}", "task", task, "doc_id",
                                 (json_int_t)i, "hash", hash, "ll", ll, "tokens", tokens, "greedy", greedy,
                                 "acc", r->acc, "acc_norm", r->acc_norm, "gold", r->gold));
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status same_text(const json_t *o, const char *key, const char *wanted, const char *where,
                               squish_error *err) {
    const char *found = NULL;
    SQ_TRY(sq_json_str(o, key, true, &found, where, err));
    if (strcmp(found, wanted) == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "%s: '%s' is '%.80s', this run has '%.80s' (another file, or no --resume)", where, key,
                   found, wanted);
}

static squish_status check_header(const json_t *o, const eval_header *h, const char *where,
                                  squish_error *err) {
    int64_t form = 0;
    bool bos = false;
    SQ_TRY(sq_json_i64(o, "squish_eval", true, 1, 1, &form, where, err));
    if (!h) return SQUISH_OK;
    SQ_TRY(same_text(o, "model", h->model, where, err));
    SQ_TRY(same_text(o, "weights", h->weights, where, err));
    SQ_TRY(same_text(o, "kv", h->kv, where, err));
    SQ_TRY(sq_json_bool(o, "bos", true, &bos, where, err));
    return bos == h->bos ? SQUISH_OK
                         : sq_fail(err, SQUISH_INVALID, "%s: 'bos' differs from this run's", where);
}

static squish_status read_choices(const json_t *o, const eval_item *item, eval_result *r, const char *where,
                                  squish_error *err) {
    const json_t *ll = json_object_get(o, "ll"), *tokens = json_object_get(o, "tokens");
    const json_t *greedy = json_object_get(o, "greedy");
    if (json_array_size(ll) != (size_t)item->n)
        return sq_fail(err, SQUISH_CORRUPT, "%s: %zu log-likelihoods, the item has %d choices", where,
                       json_array_size(ll), item->n);
    *r = (eval_result){.n = item->n};
    for (int32_t k = 0; k < item->n; k++) {
        const json_t *v = json_array_get(ll, (size_t)k);
        const int64_t n = json_integer_value(json_array_get(tokens, (size_t)k));
        if (!json_is_number(v))
            return sq_fail(err, SQUISH_CORRUPT, "%s: 'll' has something else than numbers", where);
        r->choices[k] = (eval_score){json_number_value(v), n > 0 && n < INT32_MAX ? (int32_t)n : 0,
                                     json_is_true(json_array_get(greedy, (size_t)k))};
    }
    eval_choose(r, item);
    r->done = true;
    return SQUISH_OK;
}

static squish_status read_item(const json_t *o, const eval_set *s, eval_result *results, size_t *found,
                               const char *where, squish_error *err) {
    const char *task = NULL, *hash = NULL;
    int64_t i = 0;
    char wanted[17];
    SQ_TRY(sq_json_str(o, "task", true, &task, where, err));
    if (strcmp(task, s->task->name) != 0) return SQUISH_OK;
    SQ_TRY(sq_json_i64(o, "doc_id", true, 0, EVAL_ITEMS_MAX, &i, where, err));
    if ((size_t)i >= s->n) return SQUISH_OK; /* beyond the limit of this run */
    SQ_TRY(sq_json_str(o, "hash", true, &hash, where, err));
    snprintf(wanted, sizeof wanted, "%016" PRIx64, s->items[i].hash);
    if (strcmp(hash, wanted) != 0)
        return sq_fail(err, SQUISH_INVALID, "%s: item %lld of %s is not the one of the task file", where,
                       (long long)i, task);
    *found += !results[i].done;
    return read_choices(o, &s->items[i], &results[i], where, err);
}

squish_status eval_items_read(sq_span text, const char *name, const eval_header *whose, const eval_set *s,
                              eval_result *results, size_t *found, squish_error *err) {
    sq_span line;
    *found = 0;
    for (size_t number = 1; text.n > 0; number++) {
        char where[128];
        json_t *o = NULL;
        const bool whole = memchr(text.p, '\n', text.n) != NULL;
        if (!eval_next_line(&text, &line) || !whole) break;
        snprintf(where, sizeof where, "%.90s:%zu", name, number);
        SQ_TRY(sq_json_parse((const char *)line.p, line.n, 8, where, &o, err));
        const squish_status st = !json_is_object(o)
                                     ? sq_fail(err, SQUISH_CORRUPT, "%s: a line is no JSON object", where)
                                 : number == 1 ? check_header(o, whose, where, err)
                                               : read_item(o, s, results, found, where, err);
        json_decref(o);
        SQ_TRY(st);
    }
    return SQUISH_OK;
}
