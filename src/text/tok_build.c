/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_build.c - from the intermediate tokenizer to the blob: layout, hash tables, joins, whole tokens.
 *
 * The blob is zeroed, its sections are placed one after the other, each is filled in place; then it is
 * opened like any other blob, so that what the compiler writes has passed the checks of the reader, and
 * the merges of every token are run to find the tokens that they yield. */
#include "text/tok_int.h"

#include "format/limits.h"

typedef struct {
    tok_ir *ir;
    uint8_t *blob;
    tok_header *h;
    uint64_t end; /* bytes laid out so far */
} build;

static void *section(const build *b, tok_sec sec) {
    return b->blob + b->h->sec[sec].offset;
}

/* ---- layout ---------------------------------------------------------------------------------- */

static void place(build *b, tok_header *h, tok_sec sec, uint64_t bytes) {
    h->sec[sec] = (tok_section){b->end, bytes};
    b->end += (bytes + 7) / 8 * 8;
}

/* Slots of an open table for n entries: at most two of three are used. */
static uint64_t table_size(uint64_t n) {
    uint64_t size = 8;
    while (size * 2 / 3 <= n) size *= 2;
    return size;
}

static uint32_t bits_for(uint64_t n) {
    uint32_t bits = 1;
    while (1ull << bits <= n) bits++;
    return bits;
}

static size_t count_added(const tok_ir *ir, bool norm) {
    size_t n = 0;
    for (size_t i = 0; i < ir->n_added; i++) n += !(ir->added[i].flags & TOK_ADD_NORM) == !norm;
    return n;
}

/* Place the sections. Added tokens still have to go into the pool, so its room is reckoned here. */
static squish_status lay_out(build *b, tok_header *h) {
    const tok_ir *ir = b->ir;
    uint64_t n = (uint64_t)ir->n_tokens, bytes = 0, pool = ir->pool.len;
    for (uint64_t i = 0; i < n; i++) bytes += ir->items[i].bytes.n;
    for (size_t i = 0; i < ir->n_added; i++) pool += ir->added[i].text.n;
    if (bytes > UINT32_MAX || pool > UINT32_MAX)
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "tokenizer: %llu bytes of token strings, at most 4 GiB",
                       (unsigned long long)(bytes + pool));
    h->id_bits = bits_for(n);
    if (ir->n_merges >= 1ull << (64 - 2 * h->id_bits) || ir->n_merges >= UINT32_MAX)
        return sq_fail(ir->err, SQUISH_UNSUPPORTED, "tokenizer: %zu merges for %lld tokens", ir->n_merges,
                       (long long)n);
    b->end = sizeof *h;
    place(b, h, TOK_SEC_OFFSETS, 4 * (n + 1));
    place(b, h, TOK_SEC_BYTES, bytes);
    place(b, h, TOK_SEC_ATTRS, n);
    place(b, h, TOK_SEC_STRINGS, 8 * table_size(n));
    place(b, h, TOK_SEC_MERGES, 8 * table_size(ir->n_merges));
    place(b, h, TOK_SEC_RESULTS, sizeof(tok_result) * ir->n_merges);
    place(b, h, TOK_SEC_JOINS, TOK_JOIN_BYTES);
    place(b, h, TOK_SEC_ADDED_RAW, sizeof(tok_added) * count_added(ir, false));
    place(b, h, TOK_SEC_ADDED_NORM, sizeof(tok_added) * count_added(ir, true));
    place(b, h, TOK_SEC_OPS, sizeof(tok_op) * (ir->n_norm + ir->n_pre));
    place(b, h, TOK_SEC_RANGES, ir->ranges.len);
    place(b, h, TOK_SEC_POOL, pool);
    place(b, h, TOK_SEC_IDS, 4 * (ir->n_eos + ir->n_prefix + ir->n_suffix));
    h->bytes = b->end;
    return SQUISH_OK;
}

/* ---- sections -------------------------------------------------------------------------------- */

static void put_tokens(build *b) {
    const tok_ir *ir = b->ir;
    uint32_t *offsets = section(b, TOK_SEC_OFFSETS), at = 0;
    uint8_t *bytes = section(b, TOK_SEC_BYTES), *attrs = section(b, TOK_SEC_ATTRS);
    for (int32_t i = 0; i < ir->n_tokens; i++) {
        const tok_item *it = &ir->items[i];
        offsets[i] = at;
        attrs[i] = it->attr;
        if (it->bytes.n) memcpy(bytes + at, it->bytes.p, it->bytes.n);
        at += (uint32_t)it->bytes.n;
    }
    offsets[ir->n_tokens] = at;
    for (uint32_t i = 0; i < ir->n_eos; i++) attrs[ir->eos[i]] |= TOK_EOS;
}

/* Enter a token unless its bytes are there already. */
static void put_string(const tok_ir *ir, uint64_t *slots, uint64_t mask, int32_t id) {
    sq_span s = ir->items[id].bytes;
    if (s.n == 0) return;
    uint64_t h = tok_hash(s.p, s.n), i = h & mask;
    for (; slots[i] != TOK_EMPTY; i = (i + 1) & mask) {
        if (slots[i] >> 32 != h >> 32) continue;
        sq_span other = ir->items[(uint32_t)slots[i]].bytes;
        if (other.n == s.n && memcmp(other.p, s.p, s.n) == 0) return;
    }
    slots[i] = (h >> 32) << 32 | (uint32_t)id;
}

/* Model tokens first: where a control token is spelled like one of them, text means the model's. */
static void put_strings(build *b) {
    const tok_ir *ir = b->ir;
    uint64_t *slots = section(b, TOK_SEC_STRINGS), mask = b->h->sec[TOK_SEC_STRINGS].bytes / 8 - 1;
    memset(slots, 0xFF, (size_t)b->h->sec[TOK_SEC_STRINGS].bytes);
    for (int32_t i = 0; i < ir->n_tokens; i++)
        if (ir->items[i].attr & TOK_MODEL) put_string(ir, slots, mask, i);
    for (int32_t i = 0; i < ir->n_tokens; i++)
        if (!(ir->items[i].attr & TOK_MODEL)) put_string(ir, slots, mask, i);
}

static void put_merges(build *b) {
    const tok_ir *ir = b->ir;
    uint64_t *slots = section(b, TOK_SEC_MERGES), size = b->h->sec[TOK_SEC_MERGES].bytes / 8;
    tok_result *results = section(b, TOK_SEC_RESULTS);
    uint32_t id_bits = b->h->id_bits, index_bits = 64 - 2 * id_bits;
    uint32_t shift = 64 - (uint32_t)__builtin_ctzll(size);
    memset(slots, 0xFF, (size_t)size * 8);
    for (size_t m = 0; m < ir->n_merges; m++) {
        const tok_merge *g = &ir->merges[m];
        results[m] = (tok_result){g->prio, g->id};
        if (ir->items[g->id].attr & TOK_CONTROL) continue; /* plain text never becomes a control token */
        uint64_t key = tok_pair_key(g->left, g->right, id_bits), i = tok_pair_hash(key) >> shift;
        /* A pair that is listed twice has its last place, as in the reference. */
        while (slots[i] != TOK_EMPTY && slots[i] >> index_bits != key >> index_bits) i = (i + 1) & (size - 1);
        slots[i] = key | m;
    }
}

static void put_joins(build *b) {
    uint8_t *joins = section(b, TOK_SEC_JOINS);
    for (int32_t i = 0; i < b->ir->n_tokens; i++) {
        const tok_item *it = &b->ir->items[i];
        for (size_t k = 1; (it->attr & TOK_MODEL) && k < it->bytes.n; k++) {
            unsigned pair = (unsigned)it->bytes.p[k - 1] << 8 | it->bytes.p[k];
            joins[pair >> 3] |= (uint8_t)(1u << (pair & 7));
        }
    }
}

static int compare_added(const void *a, const void *b) {
    const tok_added_item *x = *(const tok_added_item *const *)a, *y = *(const tok_added_item *const *)b;
    size_t n = x->text.n < y->text.n ? x->text.n : y->text.n;
    int order = memcmp(x->text.p, y->text.p, n);
    if (order) return order;
    if (x->text.n != y->text.n) return x->text.n < y->text.n ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Heap sort: no recursion and no allocation, whatever the C library does. */
static void sort_added(const tok_added_item **a, size_t n) {
    for (size_t start = n / 2, end = n; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            const tok_added_item *top = a[0];
            a[0] = a[--end];
            a[end] = top;
        }
        for (size_t i = start, child; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && compare_added(&a[child], &a[child + 1]) < 0) child++;
            if (compare_added(&a[i], &a[child]) >= 0) break;
            const tok_added_item *moving = a[i];
            a[i] = a[child];
            a[child] = moving;
        }
    }
}

/* One list of added tokens, sorted, its texts at *pool_at. Two tokens with one text: the first id has it. */
static squish_status put_added(build *b, bool norm, uint32_t *pool_at) {
    const tok_ir *ir = b->ir;
    tok_sec sec = norm ? TOK_SEC_ADDED_NORM : TOK_SEC_ADDED_RAW;
    const tok_added_item **sorted = SQ_ARENA_ARRAY(&b->ir->ar, const tok_added_item *, ir->n_added);
    if (!sorted) return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory for %zu added tokens", ir->n_added);
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < ir->n_added; i++)
        if (!(ir->added[i].flags & TOK_ADD_NORM) == !norm) sorted[n++] = &ir->added[i];
    sort_added(sorted, n);
    tok_added *out = section(b, sec);
    uint8_t *pool = section(b, TOK_SEC_POOL);
    for (size_t i = 0; i < n; i++) {
        sq_span s = sorted[i]->text;
        if (i && s.n == sorted[i - 1]->text.n && memcmp(s.p, sorted[i - 1]->text.p, s.n) == 0) continue;
        memcpy(pool + *pool_at, s.p, s.n);
        out[kept++] = (tok_added){*pool_at, (uint32_t)s.n, sorted[i]->id, sorted[i]->flags};
        *pool_at += (uint32_t)s.n;
    }
    b->h->sec[sec].bytes = kept * sizeof *out;
    return SQUISH_OK;
}

static void put_rest(build *b) {
    tok_ir *ir = b->ir;
    memcpy(section(b, TOK_SEC_OPS), ir->ops, (ir->n_norm + ir->n_pre) * sizeof *ir->ops);
    if (ir->ranges.len) memcpy(section(b, TOK_SEC_RANGES), ir->ranges.data, ir->ranges.len);
    if (ir->pool.len) memcpy(section(b, TOK_SEC_POOL), ir->pool.data, ir->pool.len);
    int32_t *ids = section(b, TOK_SEC_IDS);
    memcpy(ids, ir->eos, ir->n_eos * sizeof *ids);
    memcpy(ids + ir->n_eos, ir->prefix, ir->n_prefix * sizeof *ids);
    memcpy(ids + ir->n_eos + ir->n_prefix, ir->suffix, ir->n_suffix * sizeof *ids);
}

/* The model token with exactly these bytes, from the tables already written. */
static int32_t find_model(const build *b, const uint8_t *p, size_t n) {
    const uint64_t *slots = section(b, TOK_SEC_STRINGS);
    uint64_t mask = b->h->sec[TOK_SEC_STRINGS].bytes / 8 - 1, h = tok_hash(p, n);
    for (uint64_t i = h & mask; slots[i] != TOK_EMPTY; i = (i + 1) & mask) {
        const tok_item *it = &b->ir->items[(uint32_t)slots[i]];
        if (slots[i] >> 32 == h >> 32 && it->bytes.n == n && memcmp(it->bytes.p, p, n) == 0)
            return it->attr & TOK_MODEL ? (int32_t)(uint32_t)slots[i] : -1;
    }
    return -1;
}

static void put_header(build *b) {
    const tok_ir *ir = b->ir;
    tok_header *h = b->h;
    h->magic = TOK_MAGIC;
    h->version = TOK_VERSION;
    h->flags = ir->flags;
    h->n_tokens = ir->n_tokens;
    h->bos = ir->bos;
    h->unk = ir->unk;
    h->n_norm = ir->n_norm;
    h->n_pre = ir->n_pre;
    h->n_eos = ir->n_eos;
    h->n_prefix = ir->n_prefix;
    h->n_suffix = ir->n_suffix;
    memcpy(h->fallback, ir->fallback, sizeof h->fallback);
    bool bytes_covered = true, units_covered = true;
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        h->unit[i] = i < 128 || (ir->flags & TOK_BYTE_LEVEL) ? find_model(b, &byte, 1) : -1;
        units_covered &= h->unit[i] >= 0;
        bytes_covered &= h->fallback[i] >= 0;
    }
    bool own_token = ir->flags & TOK_BYTE_LEVEL ? units_covered : bytes_covered;
    if (own_token || (ir->unk >= 0 && !(ir->flags & TOK_FUSE_UNK))) h->flags |= TOK_MAY_CUT;
}

/* ---- whole tokens ---------------------------------------------------------------------------- */

static squish_status mark_whole(build *b) {
    tok_ir *ir = b->ir;
    sq_tok_view view;
    const sq_tok *t;
    tok_blob_seal(b->blob, (size_t)b->h->bytes);
    SQ_TRY(sq_tok_open(&view, (sq_span){b->blob, (size_t)b->h->bytes}, ir->alloc, &t, ir->err));
    tok_enc e;
    squish_error own = {0};
    tok_enc_init(&e, t, 0, ir->alloc, &own);
    uint8_t *attrs = section(b, TOK_SEC_ATTRS);
    uint32_t longest = 0;
    for (int32_t i = 0; i < ir->n_tokens; i++) {
        sq_span s = ir->items[i].bytes;
        if (!(attrs[i] & TOK_MODEL)) continue;
        if (tok_bpe_is_whole(&e, s.p, s.n, i)) attrs[i] |= TOK_WHOLE;
        if (own.code != SQUISH_OK) break;
        if ((attrs[i] & TOK_WHOLE) || (ir->flags & TOK_IGNORE_MERGES))
            longest = s.n > longest ? (uint32_t)s.n : longest;
    }
    b->h->longest_whole = longest;
    tok_enc_release(&e);
    sq_tok_close(t);
    if (own.code != SQUISH_OK) return sq_fail(ir->err, own.code, "%s", own.text);
    tok_blob_seal(b->blob, (size_t)b->h->bytes);
    return SQUISH_OK;
}

squish_status tok_ir_build(tok_ir *ir, sq_buf *out) {
    build b = {.ir = ir};
    tok_header plan = {0};
    SQ_TRY(lay_out(&b, &plan));
    if (out->len != 0)
        return sq_fail(ir->err, SQUISH_INVALID, "the buffer for a compiled tokenizer is not empty");
    if (!sq_buf_reserve(out, (size_t)b.end))
        return sq_fail(ir->err, SQUISH_NO_MEMORY, "no memory for a compiled tokenizer of %llu bytes",
                       (unsigned long long)b.end);
    memset(out->data, 0, (size_t)b.end);
    b.blob = (uint8_t *)out->data;
    b.h = (tok_header *)(void *)out->data;
    *b.h = plan;
    put_tokens(&b);
    put_strings(&b);
    put_merges(&b);
    put_joins(&b);
    put_rest(&b);
    uint32_t pool_at = (uint32_t)ir->pool.len;
    SQ_TRY(put_added(&b, false, &pool_at));
    SQ_TRY(put_added(&b, true, &pool_at));
    put_header(&b);
    SQ_TRY(mark_whole(&b));
    out->len = (size_t)b.end;
    out->data[out->len] = '\0';
    return SQUISH_OK;
}
