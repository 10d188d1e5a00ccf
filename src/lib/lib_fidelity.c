/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_fidelity.c - a model against its source: the forge compares the weights, here both answer the same
 * prompts. */
#include "forge/forge_fidelity.h"
#include "squish_build.h"

#include <stdlib.h>
#include <string.h>

static const char *const five_prompts[] = {"The capital of Japan is", "15 multiplied by 8 equals",
                                           "The chemical symbol for water is", "The French word for 'cat' is",
                                           "To get the length of a list in Python use"};

squish_fidelity_options squish_fidelity_options_default(void) {
    return (squish_fidelity_options){.prompts = five_prompts, .n_prompts = SQ_COUNT(five_prompts)};
}

static int32_t argmax(const float *v, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (v[i] > v[best]) best = i;
    return best;
}

/* The likeliest token after each prompt. The tokenizer is the source's for both sides. */
static squish_status first_tokens(const squish_model *source, const squish_model *m,
                                  const squish_fidelity_options *o, int32_t *out, squish_error *err) {
    squish_engine_options eo = squish_engine_options_default();
    squish_engine *e = NULL;
    squish_seq *s = NULL;
    eo.threads = o->threads;
    eo.ctx_tokens = source->info.ctx_train < 1024 ? source->info.ctx_train : 1024;
    squish_status st = squish_engine_new(&e, m, &eo, err);
    if (st == SQUISH_OK) st = squish_seq_new(&s, e, err);
    for (int32_t i = 0; st == SQUISH_OK && i < o->n_prompts; i++) {
        squish_tokens t = {0};
        st = squish_tokenize(source, o->prompts[i], strlen(o->prompts[i]), SQUISH_TOK_BOS_EOS, &t, err);
        if (st == SQUISH_OK && t.count == 0) st = sq_fail(err, SQUISH_INVALID, "prompt %d is empty", i + 1);
        if (st == SQUISH_OK) st = squish_seq_sync(s, t.ids, t.count, err);
        if (st == SQUISH_OK) out[i] = argmax(squish_seq_logits(s), source->info.n_vocab_tokens);
        squish_tokens_free(&t);
    }
    squish_seq_free(s);
    squish_engine_free(e);
    return st;
}

static json_t *token_json(const squish_model *m, int32_t id) {
    squish_text text = {0};
    if (squish_detokenize(m, &id, 1, true, &text, NULL) != SQUISH_OK) return NULL;
    json_t *o = json_pack("{s:i, s:s}", "id", id, "text", text.data);
    squish_text_free(&text);
    return o;
}

static squish_status compare_prompts(const squish_model *source, const squish_model *model,
                                     const squish_fidelity_options *o, json_t *report, squish_error *err) {
    const size_t n = (size_t)o->n_prompts, bytes = 2 * n * sizeof(int32_t);
    squish_alloc alloc = model->alloc;
    int32_t *a = sq_alloc_zero(&alloc, bytes), *b = a + n, same = 0;
    if (!a) return sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    squish_status st = first_tokens(source, source, o, a, err);
    if (st == SQUISH_OK) st = first_tokens(source, model, o, b, err);
    json_t *rows = json_array();
    bool made = rows != NULL;
    for (int32_t i = 0; st == SQUISH_OK && made && i < o->n_prompts; i++) {
        same += a[i] == b[i];
        json_t *row =
            json_pack("{s:s, s:o, s:o, s:b}", "prompt", o->prompts[i], "source", token_json(source, a[i]),
                      "model", token_json(source, b[i]), "same", a[i] == b[i]);
        made = row && json_array_append_new(rows, row) == 0;
    }
    if (st == SQUISH_OK && made)
        made =
            json_object_set(report, "first_tokens", rows) == 0 &&
            json_object_set_new(report, "first_token_agreement", json_real((double)same / o->n_prompts)) == 0;
    json_decref(rows);
    sq_alloc_free(&alloc, a, bytes);
    return st == SQUISH_OK && !made ? sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory") : st;
}

squish_status squish_fidelity(const squish_model *source, const squish_model *model,
                              const squish_fidelity_options *opt, squish_text *json, squish_error *err) {
    squish_fidelity_options o = opt ? *opt : squish_fidelity_options_default();
    *json = (squish_text){0};
    if (!o.prompts) o.prompts = five_prompts, o.n_prompts = SQ_COUNT(five_prompts);
    if (o.n_prompts < 1 || o.n_prompts > 100000)
        return sq_fail(err, SQUISH_INVALID, "n_prompts is %d, wanted 1 to 100000", o.n_prompts);
    json_t *report = NULL;
    squish_status st = sq_forge_fidelity(source, model, o.threads, o.progress, o.progress_user, &report, err);
    if (st == SQUISH_OK && !o.weights_only) {
        if (source->tok)
            st = compare_prompts(source, model, &o, report, err);
        else
            st = sq_fail(err, SQUISH_UNSUPPORTED, "%s has no tokenizer (compare weights only)",
                         source->info.path);
    }
    char *text = st == SQUISH_OK ? json_dumps(report, JSON_COMPACT) : NULL;
    if (text) {
        sq_buf b;
        const squish_alloc a = sq_alloc_default();
        sq_buf_init(&b, &a, (size_t)1 << 30);
        sq_buf_puts(&b, text);
        st = sq_buf_take(&b, json, err);
    } else if (st == SQUISH_OK) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "fidelity: out of memory");
    }
    free(text); /* jansson's */
    json_decref(report);
    return st;
}
