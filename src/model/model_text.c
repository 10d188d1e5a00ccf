/* SPDX-License-Identifier: Apache-2.0
 *
 * model_text.c - GGUF metadata to the tokenizer compiler's source struct.
 *
 * Each key has one type here; a key of another type is refused by name and never reinterpreted. */
#include "model/model_text.h"

#include "format/limits.h"

#include <string.h>

typedef struct {
    const sq_gguf *g;
    sq_arena ar;
    squish_error *err;
} reading;

static squish_status wrong_type(const reading *r, const char *key, const char *wanted) {
    return sq_fail(r->err, SQUISH_CORRUPT, "%s has the wrong type, wanted %s", key, wanted);
}

/* A string as the compiler wants it, NULL if absent. */
static squish_status read_str(reading *r, const char *key, const char **out) {
    *out = NULL;
    if (!sq_gguf_get(r->g, key)) return SQUISH_OK;
    sq_span s;
    if (!sq_gguf_str(r->g, key, &s)) return wrong_type(r, key, "a string");
    *out = sq_arena_strndup(&r->ar, (const char *)s.p, s.n);
    return *out ? SQUISH_OK : sq_fail(r->err, SQUISH_NO_MEMORY, "no memory for %s", key);
}

/* A token id; -1 if absent. Whether it exists is the compiler's question, beyond int32 it cannot. */
static squish_status read_id(reading *r, const char *key, int32_t *out) {
    int64_t v = -1;
    *out = -1;
    if (!sq_gguf_get(r->g, key)) return SQUISH_OK;
    if (!sq_gguf_i64(r->g, key, &v)) return wrong_type(r, key, "an integer");
    if (v < 0 || v >= SQ_MAX_VOCAB)
        return sq_fail(r->err, SQUISH_CORRUPT, "%s is %lld, wanted 0 to %d", key, (long long)v,
                       SQ_MAX_VOCAB - 1);
    *out = (int32_t)v;
    return SQUISH_OK;
}

static squish_status read_flag(reading *r, const char *key, int8_t *out) {
    bool v;
    *out = -1;
    if (!sq_gguf_get(r->g, key)) return SQUISH_OK;
    if (!sq_gguf_bool(r->g, key, &v)) return wrong_type(r, key, "a bool");
    *out = v;
    return SQUISH_OK;
}

static squish_status read_strings(reading *r, const char *key, const sq_span **out, int32_t *n) {
    sq_span *list = NULL;
    size_t count = 0;
    *out = NULL;
    *n = 0;
    if (!sq_gguf_get(r->g, key)) return SQUISH_OK;
    SQ_TRY(sq_gguf_strings(r->g, key, &r->ar, &list, &count, r->err));
    if (count > SQ_MAX_VOCAB)
        return sq_fail(r->err, SQUISH_CORRUPT, "%s has %zu entries, at most %d", key, count, SQ_MAX_VOCAB);
    *out = list;
    *n = (int32_t)count;
    return SQUISH_OK;
}

/* An array of n values of 4 bytes, copied because the file need not align it; NULL if absent. */
static squish_status read_words(reading *r, const char *key, sq_gguf_type type, const char *wanted, int32_t n,
                                const void **out) {
    const sq_gguf_kv *kv = sq_gguf_get(r->g, key);
    *out = NULL;
    if (!kv) return SQUISH_OK;
    bool same_width = kv->item_type == type || (type == SQ_GGUF_I32 && kv->item_type == SQ_GGUF_U32);
    if (kv->type != SQ_GGUF_ARRAY || !same_width) return wrong_type(r, key, wanted);
    if (kv->count != (uint64_t)n)
        return sq_fail(r->err, SQUISH_CORRUPT, "%s has %llu entries, tokenizer.ggml.tokens has %d", key,
                       (unsigned long long)kv->count, (int)n);
    void *copy = sq_arena_array(&r->ar, (size_t)n, 4, 8);
    if (!copy) return sq_fail(r->err, SQUISH_NO_MEMORY, "no memory for %s", key);
    if (n) memcpy(copy, kv->value.p, (size_t)n * 4);
    *out = copy;
    return SQUISH_OK;
}

static squish_status read_source(reading *r, sq_tok_gguf_source *src) {
    SQ_TRY(read_str(r, "tokenizer.ggml.model", &src->model));
    if (!src->model) return sq_fail(r->err, SQUISH_NOT_FOUND, "the GGUF file has no tokenizer.ggml.model");
    SQ_TRY(read_str(r, "tokenizer.ggml.pre", &src->pre));
    SQ_TRY(read_strings(r, "tokenizer.ggml.tokens", &src->tokens, &src->n_tokens));
    SQ_TRY(read_strings(r, "tokenizer.ggml.merges", &src->merges, &src->n_merges));
    const void *types, *scores;
    SQ_TRY(read_words(r, "tokenizer.ggml.token_type", SQ_GGUF_I32, "an array of i32", src->n_tokens, &types));
    SQ_TRY(read_words(r, "tokenizer.ggml.scores", SQ_GGUF_F32, "an array of f32", src->n_tokens, &scores));
    src->types = types;
    src->scores = scores;
    SQ_TRY(read_id(r, "tokenizer.ggml.bos_token_id", &src->bos));
    SQ_TRY(read_id(r, "tokenizer.ggml.eos_token_id", &src->eos));
    SQ_TRY(read_id(r, "tokenizer.ggml.eot_token_id", &src->eot));
    SQ_TRY(read_id(r, "tokenizer.ggml.unknown_token_id", &src->unk));
    SQ_TRY(read_id(r, "tokenizer.ggml.padding_token_id", &src->pad));
    SQ_TRY(read_flag(r, "tokenizer.ggml.add_bos_token", &src->add_bos));
    SQ_TRY(read_flag(r, "tokenizer.ggml.add_eos_token", &src->add_eos));
    return read_flag(r, "tokenizer.ggml.add_space_prefix", &src->add_space_prefix);
}

squish_status sq_model_tok_from_gguf(const sq_gguf *g, const squish_alloc *a, sq_buf *blob,
                                     squish_warn_fn warn, void *warn_user, squish_error *err) {
    reading r = {.g = g, .err = err};
    squish_alloc alloc = a && a->resize ? *a : sq_alloc_default();
    sq_arena_init(&r.ar, &alloc, (size_t)1 << 16, 0);
    sq_tok_gguf_source src = {0};
    squish_status st = read_source(&r, &src);
    if (st == SQUISH_OK) st = sq_tok_compile_gguf(&src, &alloc, blob, warn, warn_user, err);
    sq_arena_deinit(&r.ar);
    return st;
}
