/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_gguf.c - the compiler's front end for the vocabulary of a GGUF file.
 *
 * "gpt2" is byte-level BPE with merges; `pre` names its pre-tokenizer, and an unknown name is refused,
 * since a wrong split gives wrong ids without a sign. "llama" is SentencePiece BPE: it has scores and no
 * merges. There a pair merges whenever its text is a token, best score first; so every split of every
 * token into two tokens becomes a merge whose priority is the rank of the score, and equal scores share
 * one, which leaves the choice to position: leftmost. */
#include "text/tok_int.h"

#include "format/limits.h"

#include <math.h>
#include <stdio.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static squish_status no_memory(tok_ir *ir) {
    return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory to compile a tokenizer");
}

/* ---- a map from strings to ids, for the time of compiling ------------------------------------ */

typedef struct {
    const sq_span *keys;
    int32_t *slots;
    uint64_t mask;
} map;

static bool map_init(map *m, sq_arena *ar, const sq_span *keys, int32_t n) {
    uint64_t size = 8;
    while (size < 2 * (uint64_t)n) size *= 2;
    *m = (map){keys, SQ_ARENA_ARRAY(ar, int32_t, size), size - 1};
    if (!m->slots) return false;
    memset(m->slots, 0xFF, size * sizeof *m->slots);
    return true;
}

/* The slot of s: taken by it, or free. */
static int32_t *map_slot(const map *m, sq_span s) {
    uint64_t i = tok_hash(s.p, s.n) & m->mask;
    for (; m->slots[i] >= 0; i = (i + 1) & m->mask) {
        sq_span key = m->keys[m->slots[i]];
        if (key.n == s.n && memcmp(key.p, s.p, s.n) == 0) break;
    }
    return &m->slots[i];
}

static void map_put(map *m, int32_t id) {
    if (m->keys[id].n == 0) return;
    int32_t *slot = map_slot(m, m->keys[id]);
    if (*slot < 0) *slot = id; /* of equal texts the first */
}

static int32_t map_find(const map *m, sq_span s) {
    return s.n ? *map_slot(m, s) : -1;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static squish_status fill_normal(tok_ir *ir, sq_span s, tok_item *it) {
    size_t n;
    uint8_t *out = sq_arena_alloc(&ir->ar, s.n, 1);
    if (!out) return no_memory(ir);
    it->attr = TOK_PRESENT | TOK_MODEL;
    it->bytes = s;
    if (!(ir->flags & TOK_BYTE_LEVEL)) {
        it->bytes.p = tok_unmark(&ir->ar, s, &n);
        it->bytes.n = n;
        return it->bytes.p ? SQUISH_OK : no_memory(ir);
    }
    if (tok_byte_chars(s, out, &n))
        it->bytes = (sq_span){out, n};
    else
        it->attr = TOK_PRESENT; /* no text can become it */
    return SQUISH_OK;
}

static squish_status fill_byte(tok_ir *ir, sq_span s, int32_t id, tok_item *it) {
    int byte = tok_byte_token(s);
    tok_shown shown;
    if (byte < 0)
        return sq_fail(ir->err, SQUISH_CORRUPT,
                       "tokenizer.ggml.tokens[%d]: '%s' is of type byte, wanted <0xHH>", (int)id,
                       tok_show(&shown, s.p, s.n));
    uint8_t *out = sq_arena_alloc(&ir->ar, 1, 1);
    if (!out) return no_memory(ir);
    *out = (uint8_t)byte;
    it->attr = TOK_PRESENT | TOK_BYTE;
    it->bytes = (sq_span){out, 1};
    ir->fallback[byte] = id;
    return SQUISH_OK;
}

static squish_status fill_item(tok_ir *ir, sq_span s, int32_t type, int32_t id) {
    tok_item *it = &ir->items[id];
    bool control = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
    switch (type) {
    case TYPE_NORMAL: return fill_normal(ir, s, it);
    case TYPE_BYTE: return fill_byte(ir, s, id, it);
    case TYPE_UNUSED: it->attr = TOK_PRESENT; break;
    case TYPE_UNKNOWN:
    case TYPE_CONTROL:
    case TYPE_USER:
        it->attr = (uint8_t)(TOK_PRESENT | TOK_ADDED | (control ? TOK_CONTROL : 0));
        if (s.n > TOK_ADDED_BYTES_MAX)
            return sq_fail(ir->err, SQUISH_UNSUPPORTED, "tokenizer.ggml.tokens[%d]: %zu bytes, at most %d",
                           (int)id, s.n, TOK_ADDED_BYTES_MAX);
        if (s.n) ir->added[ir->n_added++] = (tok_added_item){s, id, control ? TOK_ADD_SPECIAL : 0};
        break;
    default:
        return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.token_type[%d] is %d, wanted 1 to 6", (int)id,
                       (int)type);
    }
    it->bytes = s;
    return SQUISH_OK;
}

static squish_status read_tokens(tok_ir *ir, const sq_tok_gguf_source *src) {
    if (src->n_tokens < 1 || src->n_tokens > SQ_MAX_VOCAB)
        return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.tokens: %d tokens, wanted 1 to %d",
                       (int)src->n_tokens, SQ_MAX_VOCAB);
    ir->n_tokens = src->n_tokens;
    ir->items = SQ_ARENA_ARRAY(&ir->ar, tok_item, (size_t)ir->n_tokens);
    ir->added = SQ_ARENA_ARRAY(&ir->ar, tok_added_item, (size_t)ir->n_tokens);
    if (!ir->items || !ir->added) return no_memory(ir);
    for (int32_t i = 0; i < ir->n_tokens; i++)
        SQ_TRY(fill_item(ir, src->tokens[i], src->types ? src->types[i] : TYPE_NORMAL, i));
    return SQUISH_OK;
}

/* ---- gpt2: merges and pre-tokenizer ---------------------------------------------------------- */

static squish_status merge_side(tok_ir *ir, const map *m, int32_t i, sq_span s, uint32_t *out) {
    int32_t id = map_find(m, s);
    tok_shown shown;
    if (id < 0)
        return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.merges[%d]: the vocabulary has no token '%s'",
                       (int)i, tok_show(&shown, s.p, s.n));
    *out = (uint32_t)id;
    return SQUISH_OK;
}

static squish_status read_merges(tok_ir *ir, const sq_tok_gguf_source *src) {
    map m;
    if (src->n_merges < 0) return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.merges: negative count");
    ir->merges = SQ_ARENA_ARRAY(&ir->ar, tok_merge, (size_t)src->n_merges);
    if (!ir->merges || !map_init(&m, &ir->ar, src->tokens, src->n_tokens)) return no_memory(ir);
    for (int32_t i = 0; i < src->n_tokens; i++) map_put(&m, i);
    sq_buf joined;
    sq_buf_init(&joined, ir->alloc, SIZE_MAX / 4);
    squish_status st = SQUISH_OK;
    for (int32_t i = 0; i < src->n_merges; i++) {
        sq_span s = src->merges[i];
        const uint8_t *gap = s.n > 2 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
        tok_shown shown;
        if (!gap) {
            st = sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.merges[%d]: no space in '%s'", (int)i,
                         tok_show(&shown, s.p, s.n));
            break;
        }
        sq_span left = {s.p, (size_t)(gap - s.p)}, right = {gap + 1, s.n - left.n - 1};
        tok_merge *g = &ir->merges[ir->n_merges++];
        g->prio = (uint32_t)i;
        joined.len = 0;
        if (!sq_buf_append(&joined, left.p, left.n) || !sq_buf_append(&joined, right.p, right.n)) {
            st = no_memory(ir);
            break;
        }
        SQ_GUARD(merge_side(ir, &m, i, left, &g->left));
        SQ_GUARD(merge_side(ir, &m, i, right, &g->right));
        SQ_GUARD(merge_side(ir, &m, i, (sq_span){(const uint8_t *)joined.data, joined.len}, &g->id));
    }
fail:
    sq_buf_deinit(&joined);
    return st;
}

/* Cased letters as DeepSeek's tokenizer lists them: Lu, Ll and Lt of Unicode 11, Georgian small letters
 * left out. */
static const tok_range cased_letters[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},
    {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},
    {0x376, 0x377},     {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},
    {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},     {0x48A, 0x52F},
    {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},   {0x1C90, 0x1CBA},
    {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},
    {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},
    {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},
    {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},
    {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},   {0x2102, 0x2102},   {0x2107, 0x2107},
    {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
    {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},
    {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},
    {0xA771, 0xA787},   {0xA78B, 0xA78E},   {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},
    {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},   {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
    {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
};
static const tok_range wide_punctuation[] = {
    {'!', '/'}, {':', '~'}, {0x2018, 0x201F}, {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E},
};
static const tok_range east_asian[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};

static squish_status class_of_ranges(tok_ir *ir, tok_lead lead, const tok_range *r, uint32_t n) {
    tok_op *op = tok_ir_op(ir, true, TOK_OP_CLASS);
    if (!op) return SQUISH_UNSUPPORTED;
    op->lead = (uint8_t)lead;
    op->max = UINT32_MAX;
    op->cls.first_range = (uint32_t)(ir->ranges.len / sizeof *r);
    op->cls.n_ranges = n;
    if (!sq_buf_append(&ir->ranges, r, n * sizeof *r)) return no_memory(ir);
    tok_class_fill_ascii(&op->cls, (const tok_range *)(const void *)ir->ranges.data);
    return SQUISH_OK;
}

static squish_status by_regex(tok_ir *ir, const char *source) {
    return tok_ir_regex(ir, source, strlen(source), TOK_ISOLATED, false);
}

static squish_status known_split(tok_ir *ir, tok_known known) {
    tok_op *op = tok_ir_op(ir, true, TOK_OP_KNOWN);
    if (!op) return SQUISH_UNSUPPORTED;
    op->variant = (uint8_t)known;
    return SQUISH_OK;
}

static squish_status deepseek_splits(tok_ir *ir) {
    SQ_TRY(by_regex(ir, "[\\r\\n]"));
    SQ_TRY(class_of_ranges(ir, TOK_LEAD_WHITE, cased_letters, SQ_COUNT(cased_letters)));
    SQ_TRY(class_of_ranges(ir, TOK_LEAD_WHITE, wide_punctuation, SQ_COUNT(wide_punctuation)));
    SQ_TRY(by_regex(ir, "\\s+$"));
    SQ_TRY(class_of_ranges(ir, TOK_LEAD_NONE, east_asian, SQ_COUNT(east_asian)));
    return by_regex(ir, "\\p{N}");
}

/* add_bos: what the family does when the file does not say. */
static squish_status pre_steps(tok_ir *ir, const char *pre, bool *add_bos) {
    *add_bos = false;
    if (!pre) {
        if (ir->warn) ir->warn(ir->warn_user, "tokenizer.ggml.pre is missing: splitting as GPT-2 does");
        pre = "default";
    }
    if (strcmp(pre, "default") == 0 || strcmp(pre, "gpt-2") == 0) return known_split(ir, TOK_KNOWN_GPT2);
    if (strcmp(pre, "qwen2") == 0 || strcmp(pre, "deepseek-r1-qwen") == 0) {
        tok_op *nfc = tok_ir_op(ir, false, TOK_OP_FORM);
        if (!nfc) return SQUISH_UNSUPPORTED;
        nfc->variant = TOK_NFC;
        return known_split(ir, TOK_KNOWN_QWEN2);
    }
    if (strcmp(pre, "llama-bpe") == 0 || strcmp(pre, "llama3") == 0 || strcmp(pre, "llama-v3") == 0) {
        *add_bos = true;
        ir->flags |= TOK_IGNORE_MERGES;
        return known_split(ir, TOK_KNOWN_LLAMA3);
    }
    if (strcmp(pre, "smollm") == 0) {
        SQ_TRY(by_regex(ir, "\\p{N}"));
        return known_split(ir, TOK_KNOWN_GPT2);
    }
    if (strcmp(pre, "deepseek-llm") == 0) {
        *add_bos = true;
        return deepseek_splits(ir);
    }
    tok_shown shown;
    return sq_fail(ir->err, SQUISH_UNSUPPORTED,
                   "tokenizer.ggml.pre is '%s'; known are default, gpt-2, llama-bpe, qwen2, deepseek-llm, "
                   "smollm",
                   tok_show(&shown, pre, strlen(pre)));
}

/* ---- llama: merges from scores --------------------------------------------------------------- */

/* (score, id) in a form whose order as an integer is: higher score first, then lower id. */
static uint64_t score_key(float score, int32_t id) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)~rising << 32 | (uint32_t)id;
}

/* Radix sort, least significant byte first. */
static void sort_keys(uint64_t *a, size_t n, uint64_t *spare) {
    for (int shift = 0; shift < 64; shift += 8) {
        size_t at[256] = {0};
        for (size_t i = 0; i < n; i++) at[a[i] >> shift & 255]++;
        for (size_t d = 0, sum = 0; d < 256; d++) {
            size_t in = at[d];
            at[d] = sum;
            sum += in;
        }
        for (size_t i = 0; i < n; i++) spare[at[a[i] >> shift & 255]++] = a[i];
        memcpy(a, spare, n * sizeof *a);
    }
}

/* prio[id]: rank of the token's score, equal scores equal. */
static squish_status rank_scores(tok_ir *ir, const float *scores, uint32_t **prio) {
    size_t n = (size_t)ir->n_tokens;
    uint64_t *keys = SQ_ARENA_ARRAY(&ir->ar, uint64_t, n), *spare = SQ_ARENA_ARRAY(&ir->ar, uint64_t, n);
    *prio = SQ_ARENA_ARRAY(&ir->ar, uint32_t, n);
    if (!keys || !spare || !*prio) return no_memory(ir);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(scores[i]))
            return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.scores[%zu] is not a finite number", i);
        keys[i] = score_key(scores[i] + 0.0f, (int32_t)i); /* -0 becomes 0 */
    }
    sort_keys(keys, n, spare);
    uint32_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && keys[i] >> 32 != keys[i - 1] >> 32) rank++;
        (*prio)[(uint32_t)keys[i]] = rank;
    }
    return SQUISH_OK;
}

/* Call for every split of every token into two tokens: count them, or write them down when out is not
 * NULL. */
static size_t splits(const tok_ir *ir, const map *m, const uint32_t *prio, tok_merge *out) {
    size_t n = 0;
    for (int32_t id = 0; id < ir->n_tokens; id++) {
        sq_span s = ir->items[id].bytes;
        if (!(ir->items[id].attr & TOK_MODEL) || map_find(m, s) != id) continue;
        for (size_t k = 1; k < s.n; k++) {
            if ((s.p[k] & 0xC0) == 0x80) continue;
            int32_t left = map_find(m, (sq_span){s.p, k});
            int32_t right = left < 0 ? -1 : map_find(m, (sq_span){s.p + k, s.n - k});
            if (right < 0) continue;
            if (out) out[n] = (tok_merge){(uint32_t)left, (uint32_t)right, (uint32_t)id, prio[id]};
            n++;
        }
    }
    return n;
}

static squish_status merges_from_scores(tok_ir *ir, const sq_tok_gguf_source *src) {
    uint32_t *prio;
    if (!src->scores) return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.scores is missing");
    SQ_TRY(rank_scores(ir, src->scores, &prio));
    sq_span *keys = SQ_ARENA_ARRAY(&ir->ar, sq_span, (size_t)ir->n_tokens);
    map m;
    if (!keys || !map_init(&m, &ir->ar, keys, ir->n_tokens)) return no_memory(ir);
    for (int32_t i = 0; i < ir->n_tokens; i++) {
        keys[i] = ir->items[i].bytes;
        if (ir->items[i].attr & TOK_MODEL) map_put(&m, i);
    }
    ir->n_merges = splits(ir, &m, prio, NULL);
    ir->merges = SQ_ARENA_ARRAY(&ir->ar, tok_merge, ir->n_merges);
    if (!ir->merges) return no_memory(ir);
    splits(ir, &m, prio, ir->merges);
    return SQUISH_OK;
}

static squish_status spm_steps(tok_ir *ir, const sq_tok_gguf_source *src) {
    if (src->add_space_prefix != 0) {
        tok_op *op = tok_ir_op(ir, false, TOK_OP_PREPEND);
        if (!op) return SQUISH_UNSUPPORTED;
        SQ_TRY(tok_ir_pool(ir, (sq_span){(const uint8_t *)" ", 1}, &op->text, &op->text_bytes));
        ir->flags |= TOK_STRIP_FIRST;
    }
    return tok_ir_op(ir, false, TOK_OP_MARK) ? SQUISH_OK : SQUISH_UNSUPPORTED;
}

/* ---- ids ------------------------------------------------------------------------------------- */

static squish_status check_id(tok_ir *ir, const char *key, int32_t id) {
    if (id >= -1 && id < ir->n_tokens) return SQUISH_OK;
    return sq_fail(ir->err, SQUISH_CORRUPT, "tokenizer.ggml.%s is %d, the vocabulary has %d tokens", key,
                   (int)id, (int)ir->n_tokens);
}

static squish_status special_ids(tok_ir *ir, const sq_tok_gguf_source *src, bool add_bos) {
    SQ_TRY(check_id(ir, "bos_token_id", src->bos));
    SQ_TRY(check_id(ir, "eos_token_id", src->eos));
    SQ_TRY(check_id(ir, "eot_token_id", src->eot));
    SQ_TRY(check_id(ir, "unknown_token_id", src->unk));
    SQ_TRY(check_id(ir, "padding_token_id", src->pad));
    ir->bos = src->bos;
    ir->unk = src->unk;
    if (src->eos >= 0) SQ_TRY(tok_ir_add_eos(ir, src->eos, "tokenizer.ggml.eos_token_id"));
    if (src->eot >= 0) SQ_TRY(tok_ir_add_eos(ir, src->eot, "tokenizer.ggml.eot_token_id"));
    SQ_TRY(tok_ir_known_eos(ir));
    if (src->add_bos >= 0) add_bos = src->add_bos;
    if (add_bos && src->bos >= 0) ir->prefix[ir->n_prefix++] = src->bos;
    if (src->add_eos > 0 && src->eos >= 0) ir->suffix[ir->n_suffix++] = src->eos;
    return SQUISH_OK;
}

static squish_status read_gguf(tok_ir *ir, const sq_tok_gguf_source *src) {
    bool add_bos = true;
    const char *model = src->model ? src->model : "";
    if (strcmp(model, "gpt2") == 0) {
        ir->flags = TOK_BYTE_LEVEL;
        SQ_TRY(pre_steps(ir, src->pre, &add_bos));
        SQ_TRY(read_tokens(ir, src));
        SQ_TRY(read_merges(ir, src));
    } else if (strcmp(model, "llama") == 0) {
        ir->flags = TOK_SPACE_MARK;
        SQ_TRY(spm_steps(ir, src));
        SQ_TRY(read_tokens(ir, src));
        SQ_TRY(merges_from_scores(ir, src));
    } else {
        tok_shown shown;
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "tokenizer.ggml.model is '%s'; known are gpt2 and llama",
                       tok_show(&shown, model, strlen(model)));
    }
    return special_ids(ir, src, add_bos);
}

squish_status sq_tok_compile_gguf(const sq_tok_gguf_source *src, const squish_alloc *a, sq_buf *out,
                                  squish_warn_fn warn, void *warn_user, squish_error *err) {
    squish_alloc alloc = a && a->resize ? *a : sq_alloc_default();
    tok_ir ir;
    tok_ir_init(&ir, &alloc, warn, warn_user, err);
    squish_status st = read_gguf(&ir, src);
    if (st == SQUISH_OK) st = tok_ir_build(&ir, out);
    tok_ir_deinit(&ir);
    return st;
}
