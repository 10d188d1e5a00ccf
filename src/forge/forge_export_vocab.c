/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_vocab.c - a vocabulary as the tokenizer.* keys of GGUF.
 *
 * A file that came from GGUF hands its keys on. Else tokenizer.json is read once more, for the merges are not
 * in the compiled form: byte-level BPE becomes model "gpt2". A pre-tokenizer is named only where it is known
 * to be the one of that name; another one is refused, since a wrong split gives wrong ids without a sign. */
#include "forge/forge_export_int.h"

#include <stdio.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5, PAD_ROOM = 24 };

static sq_span span_of(const char *s) { return (sq_span){(const uint8_t *)s, strlen(s)}; }

static squish_status no_memory(squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "export: no memory for the vocabulary");
}

/* ---- from GGUF ------------------------------------------------------------------------------- */

static squish_status copy_keys(const sq_gguf *g, sq_gguf_writer *w, bool *found, squish_error *err) {
    for (size_t i = 0; i < sq_gguf_n_kv(g); i++) {
        const sq_gguf_kv *kv = sq_gguf_kv_at(g, i);
        if (kv->key.n < 10 || memcmp(kv->key.p, "tokenizer.", 10) != 0) continue;
        SQ_TRY(sq_gguf_writer_kv(w, kv, err));
        *found = true;
    }
    return SQUISH_OK;
}

static squish_status copy_from_file(const sq_model *m, const char *path, sq_gguf_writer *w, bool *found,
                                    squish_error *err) {
    sq_gguf *g;
    SQ_TRY(sq_gguf_open(&g, path, &m->alloc, err));
    const squish_status st = copy_keys(g, w, found, err);
    sq_gguf_close(g);
    return st;
}

/* ---- from tokenizer.json --------------------------------------------------------------------- */

static bool is_type(const json_t *o, const char *type) {
    const char *t = json_string_value(json_object_get(o, "type"));
    return t && strcmp(t, type) == 0;
}

static bool is_split_of(const json_t *step, const char *regex) {
    const char *r =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    return is_type(step, "Split") && r && strcmp(r, regex) == 0;
}

/* Our name, or NULL. */
static const char *pre_name(const json_t *pre) {
#define HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    static const char qwen2[] = HEAD "\\p{N}" TAIL, llama3[] = HEAD "\\p{N}{1,3}" TAIL;
#undef HEAD
#undef TAIL
    const json_t *steps = json_object_get(pre, "pretokenizers");
    const json_t *first = is_type(pre, "Sequence") ? json_array_get(steps, 0) : pre;
    const json_t *second = is_type(pre, "Sequence") ? json_array_get(steps, 1) : NULL;
    if (json_array_size(steps) > 2) return NULL;
    const json_t *bytes = second ? second : first;
    if (!is_type(bytes, "ByteLevel") || json_is_true(json_object_get(bytes, "add_prefix_space"))) return NULL;
    const bool by_regex = !json_is_false(json_object_get(bytes, "use_regex"));
    if (!second) return by_regex ? "gpt-2" : NULL;
    if (is_type(first, "Digits") && json_is_true(json_object_get(first, "individual_digits")) && by_regex)
        return "smollm";
    if (by_regex) return NULL;
    return is_split_of(first, qwen2) ? "qwen2" : is_split_of(first, llama3) ? "llama-bpe" : NULL;
}

typedef struct {
    const sq_model *m;
    sq_arena *ar;
    sq_gguf_writer *w;
    sq_span *tokens;
    int32_t *types;
    int32_t n;
} vocab;

static squish_status put_token(vocab *v, const char *text, int64_t id, int32_t type, squish_error *err) {
    if (!text || id < 0 || id >= v->n)
        return sq_fail(err, SQUISH_CORRUPT, "tokenizer.json: token '%.40s' has id %lld, wanted 0 to %d",
                       text ? text : "?", (long long)id, v->n - 1);
    v->tokens[id] = span_of(text);
    v->types[id] = type;
    return SQUISH_OK;
}

/* Ids that the embedding has and the vocabulary has not still need a name of their own. */
static squish_status fill_gaps(vocab *v, squish_error *err) {
    for (int32_t i = 0; i < v->n; i++) {
        if (v->tokens[i].p) continue;
        char *text = sq_arena_alloc(v->ar, PAD_ROOM, 1);
        if (!text) return no_memory(err);
        snprintf(text, PAD_ROOM, "[PAD%d]", i);
        v->tokens[i] = span_of(text);
        v->types[i] = TYPE_UNUSED;
    }
    return SQUISH_OK;
}

static squish_status collect_tokens(vocab *v, json_t *root, squish_error *err) {
    const char *text;
    json_t *id, *added;
    size_t i;
    v->n = v->m->cfg.n_vocab;
    v->tokens = SQ_ARENA_ARRAY(v->ar, sq_span, (size_t)v->n);
    v->types = SQ_ARENA_ARRAY(v->ar, int32_t, (size_t)v->n);
    if (!v->tokens || !v->types) return no_memory(err);
    memset(v->tokens, 0, (size_t)v->n * sizeof *v->tokens);
    json_object_foreach(json_object_get(json_object_get(root, "model"), "vocab"), text, id)
        SQ_TRY(put_token(v, text, json_is_integer(id) ? json_integer_value(id) : -1, TYPE_NORMAL, err));
    json_array_foreach(json_object_get(root, "added_tokens"), i, added) {
        const json_t *n = json_object_get(added, "id");
        const bool special = json_is_true(json_object_get(added, "special"));
        SQ_TRY(put_token(v, json_string_value(json_object_get(added, "content")),
                         json_is_integer(n) ? json_integer_value(n) : -1, special ? TYPE_CONTROL : TYPE_USER,
                         err));
    }
    return fill_gaps(v, err);
}

/* "a b" as it stands, or ["a", "b"] joined. */
static squish_status merge_of(vocab *v, const json_t *o, sq_span *out, squish_error *err) {
    const char *whole = json_string_value(o);
    const char *a = json_string_value(json_array_get(o, 0)), *b = json_string_value(json_array_get(o, 1));
    if (whole) return *out = span_of(whole), SQUISH_OK;
    if (!a || !b) return sq_fail(err, SQUISH_CORRUPT, "tokenizer.json: a merge is not two strings");
    const size_t n = strlen(a) + strlen(b) + 2;
    char *text = sq_arena_alloc(v->ar, n, 1);
    if (!text) return no_memory(err);
    snprintf(text, n, "%s %s", a, b);
    *out = span_of(text);
    return SQUISH_OK;
}

static squish_status write_merges(vocab *v, const json_t *merges, squish_error *err) {
    const size_t n = json_array_size(merges);
    sq_span *all = SQ_ARENA_ARRAY(v->ar, sq_span, n + 1);
    if (!all) return no_memory(err);
    for (size_t i = 0; i < n; i++) SQ_TRY(merge_of(v, json_array_get(merges, i), &all[i], err));
    return sq_gguf_writer_strings(v->w, "tokenizer.ggml.merges", all, n, err);
}

/* ---- ids and template, as the compiled form knows them --------------------------------------- */

static squish_status write_id(vocab *v, const char *key, int32_t id, squish_error *err) {
    return id < 0 ? SQUISH_OK : sq_gguf_writer_u32(v->w, key, (uint32_t)id, err);
}

/* A number of config.json; -1: none. */
static int32_t config_id(const vocab *v, const json_t *config, const char *key) {
    const json_t *id = json_object_get(config, key);
    const json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
    return n >= 0 && n < v->n ? (int32_t)n : -1;
}

static squish_status write_ids(vocab *v, squish_error *err) {
    const sq_tok *t = v->m->tok;
    json_t *config = NULL;
    int32_t *ids = NULL;
    size_t n = 0;
    /* What is put around a text tells what the file has to say about it. */
    SQ_TRY(sq_tok_encode(t, "", 0, SQ_TOK_BOS_EOS, v->ar, &ids, &n, err));
    if (v->m->config_json)
        SQ_TRY(sq_json_parse(v->m->config_json, strlen(v->m->config_json), SQ_JSON_DEPTH, "config.json",
                             &config, err));
    int32_t bos = sq_tok_bos(t);
    const int32_t eos = sq_tok_eos(t);
    int32_t pad = config_id(v, config, "pad_token_id");
    if (bos < 0) bos = config_id(v, config, "bos_token_id");
    if (pad < 0) pad = sq_tok_find(t, "<|endoftext|>", 13);
    json_decref(config);
    SQ_TRY(write_id(v, "tokenizer.ggml.bos_token_id", bos, err));
    SQ_TRY(write_id(v, "tokenizer.ggml.eos_token_id", eos, err));
    SQ_TRY(write_id(v, "tokenizer.ggml.padding_token_id", pad, err));
    SQ_TRY(sq_gguf_writer_bool(v->w, "tokenizer.ggml.add_bos_token",
                               n > 0 && bos >= 0 && ids[0] == bos, err));
    return sq_gguf_writer_bool(v->w, "tokenizer.ggml.add_eos_token", n > 0 && eos >= 0 && ids[n - 1] == eos,
                               err);
}

static squish_status write_vocab(vocab *v, json_t *root, squish_error *err) {
    const json_t *model = json_object_get(root, "model");
    const char *pre = pre_name(json_object_get(root, "pre_tokenizer"));
    if (!is_type(model, "BPE") || json_is_true(json_object_get(model, "byte_fallback")) || !v->m->tok)
        return sq_fail(err, SQUISH_UNSUPPORTED, "tokenizer.json: only byte-level BPE can be written to GGUF");
    if (!pre)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "tokenizer.json: its pre_tokenizer has no name in GGUF (known: gpt-2, qwen2, "
                       "llama-bpe, smollm)");
    SQ_TRY(collect_tokens(v, root, err));
    SQ_TRY(sq_gguf_writer_str(v->w, "tokenizer.ggml.model", span_of("gpt2"), err));
    SQ_TRY(sq_gguf_writer_str(v->w, "tokenizer.ggml.pre", span_of(pre), err));
    SQ_TRY(sq_gguf_writer_strings(v->w, "tokenizer.ggml.tokens", v->tokens, (size_t)v->n, err));
    SQ_TRY(sq_gguf_writer_array(v->w, "tokenizer.ggml.token_type", SQ_GGUF_I32, v->types, (size_t)v->n, err));
    SQ_TRY(write_merges(v, json_object_get(model, "merges"), err));
    SQ_TRY(write_ids(v, err));
    if (!v->m->tmpl) return SQUISH_OK;
    return sq_gguf_writer_str(v->w, "tokenizer.chat_template", span_of(sq_tmpl_source(v->m->tmpl)), err);
}

squish_status sq_export_vocab(const sq_model *m, const char *assets, sq_gguf_writer *w, bool *found,
                              squish_error *err) {
    char path[SQ_EXPORT_PATH];
    *found = false;
    if (m->gguf) return copy_keys(m->gguf, w, found, err);
    if (!assets) return SQUISH_OK;
    if (sq_os_exists(assets) && !sq_os_is_dir(assets)) return copy_from_file(m, assets, w, found, err);
    if (snprintf(path, sizeof path, "%s/tokenizer.json", assets) >= (int)sizeof path || !sq_os_exists(path))
        return SQUISH_OK;
    sq_arena ar;
    sq_span text;
    json_t *root = NULL;
    sq_arena_init(&ar, &m->alloc, 1 << 20, 0);
    vocab v = {.m = m, .ar = &ar, .w = w};
    squish_status st = sq_os_read_file(path, SQ_MAX_JSON, &ar, &text, err);
    if (st == SQUISH_OK)
        st = sq_json_parse((const char *)text.p, text.n, SQ_JSON_DEPTH, "tokenizer.json", &root, err);
    if (st == SQUISH_OK) st = write_vocab(&v, root, err);
    *found = st == SQUISH_OK;
    json_decref(root);
    sq_arena_deinit(&ar);
    return st;
}
