/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_item.c - one record of a task file as an item: what is put before the model, and which answer is
 * right.
 *
 * Each task comes in two dresses: as its authors published it, and as exported from parquet; a reader takes
 * both. */
#include "eval/eval_int.h"

#include <string.h>
#include <xxhash.h>

typedef struct {
    eval_set *s;
    const json_t *doc;
    const char *where;
    eval_item *item;
} reading;

static squish_status corrupt(const reading *r, squish_error *err, const char *what) {
    return sq_fail(err, SQUISH_CORRUPT, "%s: %s", r->where, what);
}

static squish_status text_of(const reading *r, const json_t *o, const char *key, const char **out,
                             squish_error *err) {
    return sq_json_str(o, key, true, out, r->where, err);
}

static squish_status no_memory(const reading *r, squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", r->where);
}

static void buf_begin(const reading *r, sq_buf *b) { sq_buf_init(b, &r->s->arena.alloc, 2 * EVAL_LINE_MAX); }

/* What stands in b as text of the set; b is empty afterwards. */
static squish_status keep(const reading *r, sq_buf *b, const char **out, squish_error *err) {
    char *text = b->failed ? NULL : sq_arena_strndup(&r->s->arena, b->data ? b->data : "", b->len);
    sq_buf_deinit(b);
    *out = text;
    return text ? SQUISH_OK : no_memory(r, err);
}

static squish_status choices_new(const reading *r, size_t n, squish_error *err) {
    if (n < 2 || n > EVAL_CHOICES_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "%s: %zu choices, wanted 2 to %d", r->where, n, EVAL_CHOICES_MAX);
    r->item->choices = SQ_ARENA_ARRAY(&r->s->arena, eval_choice, n);
    r->item->n = (int32_t)n;
    return r->item->choices ? SQUISH_OK : no_memory(r, err);
}

/* Choice i: text behind one space. */
static squish_status put_choice(const reading *r, size_t i, const char *context, const char *text, size_t n,
                                squish_error *err) {
    sq_buf b;
    buf_begin(r, &b);
    sq_buf_putc(&b, ' ');
    sq_buf_append(&b, text, n);
    eval_choice *c = &r->item->choices[i];
    c->context = context;
    c->chars = (int32_t)sq_utf8_count(text, n);
    return keep(r, &b, &c->rest, err);
}

static squish_status question(const reading *r, const char *text, const char **out, squish_error *err) {
    sq_buf b;
    buf_begin(r, &b);
    sq_buf_puts(&b, "Question: ");
    sq_buf_puts(&b, text);
    sq_buf_puts(&b, "\nAnswer:");
    return keep(r, &b, out, err);
}

/* An index that comes as a number or as text of one digit. */
static squish_status index_of(const reading *r, const char *key, int64_t first, int64_t *out,
                              squish_error *err) {
    const json_t *v = json_object_get(r->doc, key);
    const char *text = json_string_value(v);
    const int64_t last = first + r->item->n - 1;
    if (json_is_integer(v))
        *out = json_integer_value(v);
    else if (text && text[0] >= '0' && text[0] <= '9' && !text[1])
        *out = text[0] - '0';
    else
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is no number of a choice", r->where, key);
    if (*out < first || *out > last)
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is %lld, wanted %lld to %lld", r->where, key,
                       (long long)*out, (long long)first, (long long)last);
    *out -= first;
    return SQUISH_OK;
}

/* ---- arc ------------------------------------------------------------------------------------- */

/* Text and label of choice i: [{text, label}, ...], or {text: [...], label: [...]}. */
static squish_status arc_choice(const reading *r, const json_t *choices, size_t i, const char **text,
                                const char **label, squish_error *err) {
    if (json_is_array(choices)) {
        const json_t *c = json_array_get(choices, i);
        if (!json_is_object(c)) return corrupt(r, err, "a choice is no object");
        SQ_TRY(text_of(r, c, "text", text, err));
        return text_of(r, c, "label", label, err);
    }
    *text = json_string_value(json_array_get(json_object_get(choices, "text"), i));
    *label = json_string_value(json_array_get(json_object_get(choices, "label"), i));
    return *text && *label ? SQUISH_OK : corrupt(r, err, "a choice has no text or no label");
}

static squish_status read_arc(const reading *r, squish_error *err) {
    const json_t *q = json_object_get(r->doc, "question");
    const json_t *from = json_is_object(q) ? q : r->doc;
    const json_t *choices = json_object_get(from, "choices");
    const char *stem, *context, *key, *text, *label;
    SQ_TRY(text_of(r, from, json_is_object(q) ? "stem" : "question", &stem, err));
    SQ_TRY(text_of(r, r->doc, "answerKey", &key, err));
    SQ_TRY(question(r, stem, &context, err));
    const json_t *counted = json_is_array(choices) ? choices : json_object_get(choices, "text");
    SQ_TRY(choices_new(r, json_array_size(counted), err));
    r->item->gold = -1;
    for (size_t i = 0; i < (size_t)r->item->n; i++) {
        SQ_TRY(arc_choice(r, choices, i, &text, &label, err));
        SQ_TRY(put_choice(r, i, context, text, strlen(text), err));
        if (r->item->gold < 0 && strcmp(label, key) == 0) r->item->gold = (int32_t)i;
    }
    if (r->item->gold >= 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: 'answerKey' is '%.20s', the label of no choice", r->where, key);
}

/* ---- hellaswag ------------------------------------------------------------------------------- */

static squish_status hellaswag_context(const reading *r, const char **out, squish_error *err) {
    const char *activity, *a = NULL, *b = NULL, *ctx = NULL;
    sq_buf raw, text;
    SQ_TRY(text_of(r, r->doc, "activity_label", &activity, err));
    SQ_TRY(sq_json_str(r->doc, "ctx_a", false, &a, r->where, err));
    SQ_TRY(sq_json_str(r->doc, "ctx_b", a != NULL, &b, r->where, err));
    SQ_TRY(sq_json_str(r->doc, "ctx", a == NULL, &ctx, r->where, err));
    buf_begin(r, &raw);
    buf_begin(r, &text);
    sq_buf_puts(&raw, activity);
    sq_buf_puts(&raw, ": ");
    sq_buf_puts(&raw, a ? a : ctx);
    if (a) sq_buf_putc(&raw, ' ');
    if (a) eval_capitalised(&raw, b, strlen(b));
    const bool ok = !raw.failed && eval_hellaswag_text(&text, raw.data, raw.len);
    sq_buf_deinit(&raw);
    if (!ok) text.failed = true;
    return keep(r, &text, out, err);
}

static squish_status read_hellaswag(const reading *r, squish_error *err) {
    const json_t *endings = json_object_get(r->doc, "endings");
    const char *context;
    int64_t gold;
    SQ_TRY(hellaswag_context(r, &context, err));
    SQ_TRY(choices_new(r, json_array_size(endings), err));
    for (size_t i = 0; i < (size_t)r->item->n; i++) {
        const char *ending = json_string_value(json_array_get(endings, i));
        sq_buf b;
        if (!ending) return corrupt(r, err, "an ending is no text");
        buf_begin(r, &b);
        eval_hellaswag_text(&b, ending, strlen(ending));
        const squish_status st =
            b.failed ? no_memory(r, err) : put_choice(r, i, context, b.data ? b.data : "", b.len, err);
        sq_buf_deinit(&b);
        SQ_TRY(st);
    }
    SQ_TRY(index_of(r, "label", 0, &gold, err));
    r->item->gold = (int32_t)gold;
    return SQUISH_OK;
}

/* ---- piqa ------------------------------------------------------------------------------------ */

static squish_status read_piqa(const reading *r, int64_t label, squish_error *err) {
    static const char *const keys[] = {"sol1", "sol2"};
    const char *goal, *context, *text;
    SQ_TRY(text_of(r, r->doc, "goal", &goal, err));
    SQ_TRY(question(r, goal, &context, err));
    SQ_TRY(choices_new(r, SQ_COUNT(keys), err));
    for (size_t i = 0; i < SQ_COUNT(keys); i++) {
        SQ_TRY(text_of(r, r->doc, keys[i], &text, err));
        SQ_TRY(put_choice(r, i, context, text, strlen(text), err));
    }
    if (label < 0) SQ_TRY(index_of(r, "label", 0, &label, err));
    if (label > 1)
        return sq_fail(err, SQUISH_CORRUPT, "%s: label %lld, wanted 0 or 1", r->where, (long long)label);
    r->item->gold = (int32_t)label;
    return SQUISH_OK;
}

/* ---- winogrande ------------------------------------------------------------------------------ */

/* What stands before the gap, with an option in it. */
static squish_status filled(const reading *r, const char *sentence, const char *gap, const char *option,
                            const char **out, squish_error *err) {
    sq_buf b;
    buf_begin(r, &b);
    sq_buf_append(&b, sentence, (size_t)(gap - sentence));
    sq_buf_puts(&b, option);
    return keep(r, &b, out, err);
}

static squish_status read_winogrande(const reading *r, squish_error *err) {
    static const char *const keys[] = {"option1", "option2"};
    const char *sentence, *option, *context;
    int64_t gold;
    SQ_TRY(text_of(r, r->doc, "sentence", &sentence, err));
    const char *gap = strchr(sentence, '_');
    if (!gap) return corrupt(r, err, "'sentence' has no _ to fill");
    const sq_span rest = eval_stripped(gap + 1, strlen(gap + 1));
    SQ_TRY(choices_new(r, SQ_COUNT(keys), err));
    for (size_t i = 0; i < SQ_COUNT(keys); i++) {
        SQ_TRY(text_of(r, r->doc, keys[i], &option, err));
        SQ_TRY(filled(r, sentence, gap, option, &context, err));
        SQ_TRY(put_choice(r, i, context, (const char *)rest.p, rest.n, err));
    }
    SQ_TRY(index_of(r, "answer", 1, &gold, err));
    r->item->gold = (int32_t)gold;
    return SQUISH_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

uint64_t eval_item_hash(const eval_item *item) {
    uint64_t h = (uint64_t)item->gold;
    for (int32_t i = 0; i < item->n; i++) {
        h = XXH3_64bits_withSeed(item->choices[i].context, strlen(item->choices[i].context), h);
        h = XXH3_64bits_withSeed(item->choices[i].rest, strlen(item->choices[i].rest), h);
    }
    return h;
}

squish_status eval_item_read(eval_set *s, const json_t *doc, int64_t label, const char *where,
                             eval_item *item, squish_error *err) {
    const reading r = {s, doc, where, item};
    squish_status st = SQUISH_OK;
    if (!json_is_object(doc)) return corrupt(&r, err, "a record is no JSON object");
    switch (s->task->form) {
    case EVAL_ARC: st = read_arc(&r, err); break;
    case EVAL_HELLASWAG: st = read_hellaswag(&r, err); break;
    case EVAL_PIQA: st = read_piqa(&r, label, err); break;
    case EVAL_WINOGRANDE: st = read_winogrande(&r, err); break;
    }
    if (st == SQUISH_OK) item->hash = eval_item_hash(item);
    return st;
}
