/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_hf.c - the compiler's front end for Hugging Face: tokenizer.json and the three small files beside it.
 *
 * The vocabulary and merges are turned into text space here (see tok_int.h); the steps around the model
 * are read in tok_hf_steps.c. Every refusal names the field as it stands in the file. */
#include "text/tok_int.h"

#include "format/json.h"
#include "format/limits.h"

#include <stdio.h>

static const char WHAT[] = "tokenizer.json";

static squish_status no_memory(tok_ir *ir) {
    return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory to compile a tokenizer");
}

static sq_span span_of(const json_t *s) {
    return (sq_span){(const uint8_t *)json_string_value(s), json_string_length(s)};
}

/* ---- vocabulary ------------------------------------------------------------------------------ */

/* Text space bytes and attributes of a model token. */
static squish_status fill_item(tok_ir *ir, sq_span s, bool byte_tokens, tok_item *it) {
    it->attr = TOK_PRESENT | TOK_MODEL;
    it->bytes = s;
    if (ir->flags & TOK_BYTE_LEVEL) {
        uint8_t *out = sq_arena_alloc(&ir->ar, s.n, 1);
        size_t n;
        if (!out) return no_memory(ir);
        if (tok_byte_chars(s, out, &n))
            it->bytes = (sq_span){out, n};
        else
            it->attr &= (uint8_t)~TOK_MODEL; /* no text can become it */
        return SQUISH_OK;
    }
    int byte = byte_tokens ? tok_byte_token(s) : -1;
    if (byte >= 0) {
        uint8_t *out = sq_arena_alloc(&ir->ar, 1, 1);
        if (!out) return no_memory(ir);
        *out = (uint8_t)byte;
        it->attr = TOK_PRESENT | TOK_BYTE;
        it->bytes = (sq_span){out, 1};
    } else if (ir->flags & TOK_SPACE_MARK) {
        if (memchr(s.p, ' ', s.n))
            it->attr &= (uint8_t)~TOK_MODEL; /* spaces were made marks before the model */
        size_t n;
        it->bytes.p = tok_unmark(&ir->ar, s, &n);
        if (!it->bytes.p) return no_memory(ir);
        it->bytes.n = n;
    }
    return SQUISH_OK;
}

static squish_status check_id(tok_ir *ir, const char *field, sq_span name, const json_t *id) {
    tok_shown shown;
    if (!json_is_integer(id))
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: %s: the id of '%s' is not an integer", WHAT, field,
                       tok_show(&shown, name.p, name.n));
    if (json_integer_value(id) < 0 || json_integer_value(id) >= SQ_MAX_VOCAB)
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: %s: '%s' has id %lld, wanted 0 to %d", WHAT, field,
                       tok_show(&shown, name.p, name.n), (long long)json_integer_value(id), SQ_MAX_VOCAB - 1);
    return SQUISH_OK;
}

/* Ids of vocabulary and added tokens: check each, and find how many there are. */
static squish_status size_vocab(tok_ir *ir, json_t *vocab, const json_t *added) {
    const char *key;
    json_t *id;
    int64_t top = -1;
    json_object_foreach(vocab, key, id) {
        SQ_TRY(check_id(ir, "model.vocab", (sq_span){(const uint8_t *)key, strlen(key)}, id));
        if (json_integer_value(id) > top) top = json_integer_value(id);
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_array_get(added, i), *content = json_object_get(a, "content");
        if (!json_is_string(content))
            return sq_fail(ir->err, SQUISH_CORRUPT, "%s: added_tokens[%zu]: 'content' is not a string", WHAT,
                           i);
        SQ_TRY(check_id(ir, "added_tokens", span_of(content), json_object_get(a, "id")));
        int64_t v = json_integer_value(json_object_get(a, "id"));
        if (v > top) top = v;
    }
    if (top < 0) return sq_fail(ir->err, SQUISH_CORRUPT, "%s: model.vocab is empty", WHAT);
    ir->n_tokens = (int32_t)top + 1;
    ir->items = SQ_ARENA_ARRAY(&ir->ar, tok_item, (size_t)ir->n_tokens);
    return ir->items ? SQUISH_OK : no_memory(ir);
}

static squish_status read_vocab(tok_ir *ir, json_t *vocab, bool byte_tokens) {
    const char *key;
    json_t *id;
    json_object_foreach(vocab, key, id) {
        tok_item *it = &ir->items[json_integer_value(id)];
        sq_span name = {(const uint8_t *)key, strlen(key)};
        if (it->attr) {
            tok_shown shown;
            return sq_fail(ir->err, SQUISH_CORRUPT,
                           "%s: model.vocab: '%s' has id %lld, which another token has", WHAT,
                           tok_show(&shown, key, name.n), (long long)json_integer_value(id));
        }
        SQ_TRY(fill_item(ir, name, byte_tokens, it));
        if (it->attr & TOK_BYTE) ir->fallback[it->bytes.p[0]] = (int32_t)json_integer_value(id);
    }
    return SQUISH_OK;
}

/* ---- merges ---------------------------------------------------------------------------------- */

static squish_status bad_merge(tok_ir *ir, size_t i, const char *why, sq_span s) {
    tok_shown shown;
    return sq_fail(ir->err, SQUISH_CORRUPT, "%s: model.merges[%zu]: %s '%s'", WHAT, i, why,
                   tok_show(&shown, s.p, s.n));
}

static squish_status merge_part(tok_ir *ir, const json_t *vocab, size_t i, sq_span s, uint32_t *id) {
    const json_t *v = json_object_getn(vocab, (const char *)s.p, s.n);
    if (!v) return bad_merge(ir, i, "the vocabulary has no token", s);
    *id = (uint32_t)json_integer_value(v);
    return SQUISH_OK;
}

/* The two sides of a merge: ["a", "b"], or "a b" with exactly one space. */
static squish_status merge_sides(tok_ir *ir, const json_t *m, size_t i, sq_span side[2]) {
    if (json_is_array(m)) {
        for (size_t k = 0; k < 2; k++) {
            const json_t *s = json_array_get(m, k);
            if (json_array_size(m) != 2 || !json_is_string(s))
                return sq_fail(ir->err, SQUISH_CORRUPT, "%s: model.merges[%zu]: wanted two strings", WHAT, i);
            side[k] = span_of(s);
        }
        return SQUISH_OK;
    }
    if (!json_is_string(m))
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: model.merges[%zu] is neither a string nor a pair", WHAT,
                       i);
    sq_span s = span_of(m);
    const uint8_t *gap = memchr(s.p, ' ', s.n);
    if (!gap || memchr(gap + 1, ' ', s.n - (size_t)(gap + 1 - s.p)))
        return bad_merge(ir, i, "wanted one space in", s);
    side[0] = (sq_span){s.p, (size_t)(gap - s.p)};
    side[1] = (sq_span){gap + 1, s.n - side[0].n - 1};
    return SQUISH_OK;
}

static squish_status read_merges(tok_ir *ir, const json_t *vocab, const json_t *merges) {
    size_t n = json_array_size(merges);
    ir->merges = SQ_ARENA_ARRAY(&ir->ar, tok_merge, n);
    if (!ir->merges) return no_memory(ir);
    sq_buf joined;
    sq_buf_init(&joined, ir->alloc, SIZE_MAX / 4);
    squish_status st = SQUISH_OK;
    for (size_t i = 0; i < n && st == SQUISH_OK; i++) {
        sq_span side[2];
        tok_merge *m = &ir->merges[i];
        SQ_GUARD(merge_sides(ir, json_array_get(merges, i), i, side));
        joined.len = 0;
        if (!sq_buf_append(&joined, side[0].p, side[0].n) || !sq_buf_append(&joined, side[1].p, side[1].n)) {
            st = no_memory(ir);
            break;
        }
        m->prio = (uint32_t)i;
        SQ_GUARD(merge_part(ir, vocab, i, side[0], &m->left));
        SQ_GUARD(merge_part(ir, vocab, i, side[1], &m->right));
        SQ_GUARD(merge_part(ir, vocab, i, (sq_span){(const uint8_t *)joined.data, joined.len}, &m->id));
    }
    ir->n_merges = n;
fail:
    sq_buf_deinit(&joined);
    return st;
}

/* ---- added tokens ---------------------------------------------------------------------------- */

static squish_status added_flags(tok_ir *ir, const json_t *a, size_t i, uint32_t *flags) {
    static const struct {
        const char *key;
        uint32_t flag;
    } all[] = {{"special", TOK_ADD_SPECIAL}, {"lstrip", TOK_ADD_LSTRIP}, {"rstrip", TOK_ADD_RSTRIP},
               {"single_word", TOK_ADD_WORD}, {"normalized", TOK_ADD_NORM}};
    char what[64];
    snprintf(what, sizeof what, "%s: added_tokens[%zu]", WHAT, i);
    *flags = 0;
    for (size_t k = 0; k < SQ_COUNT(all); k++) {
        bool v = all[k].flag == TOK_ADD_NORM && !(*flags & TOK_ADD_SPECIAL);
        SQ_TRY(sq_json_bool(a, all[k].key, false, &v, what, ir->err));
        if (v) *flags |= all[k].flag;
    }
    return SQUISH_OK;
}

/* The token an added token names: it is in the model's vocabulary under the same id, or has an id of its
 * own. */
static squish_status place_added(tok_ir *ir, const json_t *vocab, sq_span content, int64_t id, size_t i,
                                 bool special) {
    tok_item *it = &ir->items[id];
    const json_t *in_vocab = json_object_getn(vocab, (const char *)content.p, content.n);
    tok_shown shown;
    if (in_vocab && json_integer_value(in_vocab) != id)
        return sq_fail(ir->err, SQUISH_CORRUPT,
                       "%s: added_tokens[%zu]: '%s' has id %lld, model.vocab says %lld", WHAT, i,
                       tok_show(&shown, content.p, content.n), (long long)id,
                       (long long)json_integer_value(in_vocab));
    if (!in_vocab && it->attr)
        return sq_fail(ir->err, SQUISH_CORRUPT,
                       "%s: added_tokens[%zu]: '%s' has id %lld, which another token has", WHAT, i,
                       tok_show(&shown, content.p, content.n), (long long)id);
    /* A control token never comes out of plain text, not even through merges. */
    if (special) it->attr = (uint8_t)((it->attr & ~TOK_MODEL) | TOK_CONTROL);
    it->attr |= TOK_PRESENT | TOK_ADDED;
    if (in_vocab && !special) return SQUISH_OK;
    it->bytes = content;
    if (!special && (ir->flags & TOK_SPACE_MARK)) {
        size_t n;
        it->bytes.p = tok_unmark(&ir->ar, content, &n);
        if (!it->bytes.p) return no_memory(ir);
        it->bytes.n = n;
    }
    return SQUISH_OK;
}

static squish_status read_added(tok_ir *ir, const json_t *vocab, const json_t *added) {
    size_t n = json_array_size(added);
    ir->added = SQ_ARENA_ARRAY(&ir->ar, tok_added_item, n);
    if (!ir->added) return no_memory(ir);
    for (size_t i = 0; i < n; i++) {
        const json_t *a = json_array_get(added, i);
        sq_span content = span_of(json_object_get(a, "content"));
        int64_t id = json_integer_value(json_object_get(a, "id"));
        uint32_t flags;
        SQ_TRY(added_flags(ir, a, i, &flags));
        if (content.n > TOK_ADDED_BYTES_MAX)
            return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: added_tokens[%zu]: %zu bytes, at most %d", WHAT,
                           i, content.n, TOK_ADDED_BYTES_MAX);
        SQ_TRY(place_added(ir, vocab, content, id, i, flags & TOK_ADD_SPECIAL));
        if (content.n) ir->added[ir->n_added++] = (tok_added_item){content, (int32_t)id, flags};
    }
    return SQUISH_OK;
}

/* Put the text of an added token through the normaliser. Unless it is a control token, which keeps its
 * name, that is also what it stands for in text: with a Prepend step, " word" and not "word". */
static squish_status normalize_one(tok_ir *ir, tok_enc *e, tok_added_item *a) {
    sq_span out;
    SQ_TRY(tok_normalize(e, a->text, &out));
    const char *kept = sq_arena_strndup(&ir->ar, (const char *)out.p, out.n);
    if (!kept) return no_memory(ir);
    a->text = (sq_span){(const uint8_t *)kept, out.n};
    if (a->flags & TOK_ADD_SPECIAL) return SQUISH_OK;
    tok_item *it = &ir->items[a->id];
    it->bytes = a->text;
    if (!(ir->flags & TOK_SPACE_MARK)) return SQUISH_OK;
    it->bytes.p = tok_unmark(&ir->ar, a->text, &it->bytes.n);
    return it->bytes.p ? SQUISH_OK : no_memory(ir);
}

/* Tokens matched in normalised text are compared in normalised form. */
static squish_status normalize_added(tok_ir *ir) {
    if (ir->n_norm == 0) return SQUISH_OK;
    tok_header h = {.n_norm = ir->n_norm};
    sq_tok t = {.h = &h, .ops = ir->ops, .pool = (const uint8_t *)(ir->pool.data ? ir->pool.data : "")};
    tok_enc e;
    tok_enc_init(&e, &t, 0, ir->alloc, ir->err);
    squish_status st = SQUISH_OK;
    size_t kept = 0;
    for (size_t i = 0; i < ir->n_added && st == SQUISH_OK; i++) {
        tok_added_item *a = &ir->added[i];
        if (a->flags & TOK_ADD_NORM) st = normalize_one(ir, &e, a);
        if (a->text.n) ir->added[kept++] = *a; /* else nothing is left to match */
    }
    ir->n_added = kept;
    tok_enc_release(&e);
    return st;
}

/* ---- the model ------------------------------------------------------------------------------- */

static squish_status must_be_empty(tok_ir *ir, const json_t *model, const char *key) {
    const json_t *v = json_object_get(model, key);
    if (!v || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0) ||
        (json_is_number(v) && json_number_value(v) == 0))
        return SQUISH_OK;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: model.%s is set; only null is supported", WHAT, key);
}

static squish_status model_flags(tok_ir *ir, const json_t *model, bool *byte_fallback) {
    const char *type = "BPE"; /* the oldest files do not say */
    SQ_TRY(sq_json_str(model, "type", false, &type, "tokenizer.json: model", ir->err));
    if (strcmp(type, "BPE") != 0) {
        tok_shown shown;
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "%s: model.type is '%s', only BPE is supported", WHAT,
                       tok_show(&shown, type, strlen(type)));
    }
    SQ_TRY(must_be_empty(ir, model, "dropout"));
    SQ_TRY(must_be_empty(ir, model, "continuing_subword_prefix"));
    SQ_TRY(must_be_empty(ir, model, "end_of_word_suffix"));
    bool ignore = false, fuse = false;
    SQ_TRY(sq_json_bool(model, "ignore_merges", false, &ignore, "tokenizer.json: model", ir->err));
    SQ_TRY(sq_json_bool(model, "fuse_unk", false, &fuse, "tokenizer.json: model", ir->err));
    SQ_TRY(sq_json_bool(model, "byte_fallback", false, byte_fallback, "tokenizer.json: model", ir->err));
    if (ignore) ir->flags |= TOK_IGNORE_MERGES;
    if (fuse) ir->flags |= TOK_FUSE_UNK;
    return SQUISH_OK;
}

static squish_status unknown_token(tok_ir *ir, const json_t *model, const json_t *vocab) {
    const char *unk = NULL;
    SQ_TRY(sq_json_str(model, "unk_token", false, &unk, "tokenizer.json: model", ir->err));
    if (!unk) return SQUISH_OK;
    const json_t *id = json_object_get(vocab, unk);
    tok_shown shown;
    if (!id)
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: model.unk_token '%s' is not in model.vocab", WHAT,
                       tok_show(&shown, unk, strlen(unk)));
    ir->unk = (int32_t)json_integer_value(id);
    return SQUISH_OK;
}

/* "decoder" may ask for byte tokens even where the model does not. */
static bool decodes_bytes(const json_t *decoder) {
    const char *type = json_string_value(json_object_get(decoder, "type"));
    if (type && strcmp(type, "ByteFallback") == 0) return true;
    const json_t *list = json_object_get(decoder, "decoders");
    for (size_t i = 0; i < json_array_size(list); i++) {
        type = json_string_value(json_object_get(json_array_get(list, i), "type"));
        if (type && strcmp(type, "ByteFallback") == 0) return true;
    }
    return false;
}

static squish_status typed(tok_ir *ir, const json_t *v, const char *field, bool is_type, const char *wanted) {
    if (is_type) return SQUISH_OK;
    return sq_fail(ir->err, SQUISH_CORRUPT, "%s: %s is %s, wanted %s", WHAT, field,
                   v ? "of another type" : "missing", wanted);
}

static squish_status read_tokenizer(tok_ir *ir, const json_t *root) {
    SQ_TRY(typed(ir, root, "the file", json_is_object(root), "an object"));
    json_t *model = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    if (json_is_null(added)) added = NULL;
    SQ_TRY(typed(ir, model, "model", json_is_object(model), "an object"));
    if (added) SQ_TRY(typed(ir, added, "added_tokens", json_is_array(added), "an array"));
    bool byte_fallback = false;
    SQ_TRY(model_flags(ir, model, &byte_fallback));
    json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    SQ_TRY(typed(ir, vocab, "model.vocab", json_is_object(vocab), "an object"));
    SQ_TRY(typed(ir, merges, "model.merges", json_is_array(merges), "an array"));

    const json_t *pre = json_object_get(root, "pre_tokenizer"), *decoder = json_object_get(root, "decoder");
    if (tok_hf_is_byte_level(pre)) ir->flags |= TOK_BYTE_LEVEL;
    SQ_TRY(tok_hf_normalizer(ir, json_object_get(root, "normalizer"), 0));
    SQ_TRY(tok_hf_pre_tokenizer(ir, pre, 0));
    SQ_TRY(tok_hf_decoder(ir, decoder, 0));
    if ((ir->flags & TOK_BYTE_LEVEL) && (ir->flags & TOK_SPACE_MARK))
        return sq_fail(ir->err, SQUISH_UNSUPPORTED,
                       "%s: pre_tokenizer: ByteLevel together with U+2581 for spaces", WHAT);
    SQ_TRY(size_vocab(ir, vocab, added));
    SQ_TRY(read_vocab(ir, vocab, byte_fallback || decodes_bytes(decoder)));
    if (!byte_fallback) memset(ir->fallback, 0xFF, sizeof ir->fallback);
    SQ_TRY(unknown_token(ir, model, vocab));
    SQ_TRY(read_merges(ir, vocab, merges));
    SQ_TRY(read_added(ir, vocab, added));
    SQ_TRY(normalize_added(ir));
    return tok_hf_post_processor(ir, json_object_get(root, "post_processor"), 0);
}

/* ---- the files beside it --------------------------------------------------------------------- */

static squish_status parse_beside(tok_ir *ir, sq_span file, const char *what, json_t **out) {
    *out = NULL;
    if (file.n == 0) return SQUISH_OK;
    if (file.n > SQ_MAX_CONFIG_JSON)
        return sq_fail(ir->err, SQUISH_CORRUPT, "%s: %zu bytes, at most %d", what, file.n,
                       SQ_MAX_CONFIG_JSON);
    SQ_TRY(sq_json_parse((const char *)file.p, file.n, SQ_JSON_DEPTH, what, out, ir->err));
    if (json_is_object(*out)) return SQUISH_OK;
    json_decref(*out);
    *out = NULL;
    return sq_fail(ir->err, SQUISH_CORRUPT, "%s: not an object", what);
}

static int32_t find_item(const tok_ir *ir, const char *s, size_t n) {
    for (int32_t i = ir->n_tokens; i-- > 0;) /* named tokens are mostly added ones, at the end */
        if ((ir->items[i].attr & TOK_PRESENT) && ir->items[i].bytes.n == n &&
            memcmp(ir->items[i].bytes.p, s, n) == 0)
            return i;
    return -1;
}

/* The id of "bos_token" and its like: a string, or an object with `content`. *said: the key is there. */
static int32_t named_token(const tok_ir *ir, const json_t *config, const char *key, bool *said) {
    const json_t *v = json_object_get(config, key);
    *said = v != NULL;
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? find_item(ir, json_string_value(v), json_string_length(v)) : -1;
}

/* eos_token_id: an integer, a list of them, or null. *any: it named one. */
static squish_status eos_ids(tok_ir *ir, const json_t *config, const char *what, bool *any) {
    const json_t *v = json_object_get(config, "eos_token_id");
    *any = false;
    if (!v || json_is_null(v)) return SQUISH_OK;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_integer(id))
            return sq_fail(ir->err, SQUISH_CORRUPT, "%s: eos_token_id: wanted an integer or a list of them",
                           what);
        SQ_TRY(tok_ir_add_eos(ir, json_integer_value(id), what));
        *any = true;
    }
    return SQUISH_OK;
}

static squish_status bos_id(tok_ir *ir, const json_t *config, const char *what) {
    int64_t id = -1;
    SQ_TRY(sq_json_i64(config, "bos_token_id", false, 0, ir->n_tokens - 1, &id, what, ir->err));
    if (ir->bos < 0) ir->bos = (int32_t)id;
    return SQUISH_OK;
}

/* add_bos_token and add_eos_token overrule the post-processor where they are said. */
static squish_status said_affix(tok_ir *ir, const json_t *config, const char *key, int32_t id, int32_t *list,
                                uint32_t *n) {
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v)) return SQUISH_OK;
    if (!json_is_boolean(v))
        return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer_config.json: '%s' is not true or false", key);
    bool there = false;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n; i++) {
        there |= list[i] == id;
        if (json_is_true(v) || list[i] != id) list[kept++] = list[i];
    }
    *n = kept;
    if (json_is_true(v) && !there && id >= 0 && *n < TOK_AFFIX_MAX) list[(*n)++] = id;
    return SQUISH_OK;
}

static squish_status beside(tok_ir *ir, const sq_tok_hf_source *src, const json_t *tc, const json_t *gen,
                            const json_t *config) {
    bool said_bos, said_eos, any;
    ir->bos = named_token(ir, tc, "bos_token", &said_bos);
    int32_t eos = named_token(ir, tc, "eos_token", &said_eos);
    if (eos >= 0) SQ_TRY(tok_ir_add_eos(ir, eos, "tokenizer_config.json: eos_token"));
    SQ_TRY(eos_ids(ir, gen, "generation_config.json", &any));
    if (!any) SQ_TRY(eos_ids(ir, config, "config.json", &any));
    if (!said_bos) {
        SQ_TRY(bos_id(ir, gen, "generation_config.json"));
        SQ_TRY(bos_id(ir, config, "config.json"));
    }
    SQ_TRY(said_affix(ir, tc, "add_bos_token", ir->bos, ir->prefix, &ir->n_prefix));
    SQ_TRY(said_affix(ir, tc, "add_eos_token", eos, ir->suffix, &ir->n_suffix));
    for (const char *const *name = src->extra_eos; name && *name; name++) {
        int32_t id = find_item(ir, *name, strlen(*name));
        if (id >= 0) SQ_TRY(tok_ir_add_eos(ir, id, "extra end tokens"));
    }
    return tok_ir_known_eos(ir);
}

squish_status sq_tok_compile_hf(const sq_tok_hf_source *src, const squish_alloc *a, sq_buf *out,
                                squish_warn_fn warn, void *warn_user, squish_error *err) {
    json_t *root = NULL, *tc = NULL, *gen = NULL, *config = NULL;
    squish_alloc alloc = a && a->resize ? *a : sq_alloc_default();
    tok_ir ir;
    tok_ir_init(&ir, &alloc, warn, warn_user, err);
    squish_status st;
    SQ_GUARD(sq_json_parse((const char *)src->tokenizer_json.p, src->tokenizer_json.n, SQ_JSON_DEPTH, WHAT,
                           &root, err));
    SQ_GUARD(parse_beside(&ir, src->tokenizer_config_json, "tokenizer_config.json", &tc));
    SQ_GUARD(parse_beside(&ir, src->generation_config_json, "generation_config.json", &gen));
    SQ_GUARD(parse_beside(&ir, src->config_json, "config.json", &config));
    SQ_GUARD(read_tokenizer(&ir, root));
    SQ_GUARD(beside(&ir, src, tc, gen, config));
    st = tok_ir_build(&ir, out);
fail:
    tok_ir_deinit(&ir);
    json_decref(config);
    json_decref(gen);
    json_decref(tc);
    json_decref(root);
    return st;
}
