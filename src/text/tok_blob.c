/* SPDX-License-Identifier: Apache-2.0
 *
 * tok_blob.c - opening a compiled tokenizer and asking it about tokens.
 *
 * Opening walks every table once and checks every offset, count and id, so that encoding and decoding need no
 * checks of their own. A blob made by somebody hostile may encode nonsense, but cannot make us read or write
 * outside it, loop without end or hand out an id that does not exist. */
#include "text/tok_int.h"

#include "format/limits.h"

#include <xxhash.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tokenizer blobs are read in place and are little-endian"
#endif

/* ---- checks ---------------------------------------------------------------------------------- */

typedef struct {
    sq_span blob;
    const tok_header *h;
    squish_error *err;
} opening;

static const char *const section_names[TOK_SEC_COUNT] = {
    "offsets", "bytes", "attributes", "strings", "merges", "results", "joins",
    "raw added tokens", "normalised added tokens", "ops", "ranges", "pool", "id lists",
};

static squish_status bad(const opening *o, const char *what, uint64_t found, uint64_t wanted) {
    return sq_fail(o->err, SQUISH_CORRUPT, "compiled tokenizer: %s is %llu, wanted %llu", what,
                   (unsigned long long)found, (unsigned long long)wanted);
}

static squish_status bad_entry(const opening *o, tok_sec sec, uint64_t index, const char *why) {
    return sq_fail(o->err, SQUISH_CORRUPT, "compiled tokenizer: %s, entry %llu: %s", section_names[sec],
                   (unsigned long long)index, why);
}

/* The section's bytes, after its place and size were checked. */
static const void *at(const opening *o, tok_sec sec) {
    return o->blob.p + o->h->sec[sec].offset;
}
static uint64_t count(const opening *o, tok_sec sec, size_t size) {
    return o->h->sec[sec].bytes / size;
}

static bool is_table_size(uint64_t n) {
    return n >= 8 && n <= (1ull << 32) && (n & (n - 1)) == 0;
}

static squish_status check_header(const opening *o) {
    if (o->blob.n < sizeof(tok_header)) return bad(o, "its size in bytes", o->blob.n, sizeof(tok_header));
    if ((uintptr_t)o->blob.p % 8 != 0)
        return sq_fail(o->err, SQUISH_INVALID, "compiled tokenizer: not 8-byte aligned in memory");
    const tok_header *h = o->h;
    if (h->magic != TOK_MAGIC) return bad(o, "the magic number", h->magic, TOK_MAGIC);
    if (h->version != TOK_VERSION) return bad(o, "the version", h->version, TOK_VERSION);
    if (h->bytes != o->blob.n) return bad(o, "the size it states", h->bytes, o->blob.n);
    uint64_t sum = XXH3_64bits(o->blob.p + TOK_HASHED_FROM, o->blob.n - TOK_HASHED_FROM);
    if (h->hash != sum)
        return sq_fail(o->err, SQUISH_CORRUPT, "compiled tokenizer: its checksum does not match");
    if (h->flags & ~(uint32_t)TOK_FLAGS_ALL) return bad(o, "the flag word", h->flags, TOK_FLAGS_ALL);
    if (h->n_tokens < 1 || h->n_tokens > SQ_MAX_VOCAB)
        return bad(o, "the number of tokens", (uint32_t)h->n_tokens, SQ_MAX_VOCAB);
    if (h->id_bits < 1 || h->id_bits > 24 || (uint64_t)h->n_tokens >= 1ull << h->id_bits)
        return bad(o, "bits of an id", h->id_bits, 24);
    return SQUISH_OK;
}

/* Every section lies inside the blob, aligned, and has the size its contents need. */
static squish_status check_sections(const opening *o) {
    const tok_header *h = o->h;
    uint64_t n = (uint64_t)h->n_tokens;
    static const uint8_t unit[TOK_SEC_COUNT] = {4, 1, 1, 8, 8, 8, 1, sizeof(tok_added), sizeof(tok_added),
                                                sizeof(tok_op), 8, 1, 4};
    for (int i = 0; i < TOK_SEC_COUNT; i++) {
        const tok_section *s = &h->sec[i];
        if (s->offset % 8 != 0 || s->offset < sizeof *h || s->offset > o->blob.n ||
            s->bytes > o->blob.n - s->offset || s->bytes % unit[i] != 0)
            return sq_fail(o->err, SQUISH_CORRUPT,
                           "compiled tokenizer: section '%s' at %llu, %llu bytes, does not fit a blob of %zu "
                           "bytes",
                           section_names[i], (unsigned long long)s->offset, (unsigned long long)s->bytes,
                           o->blob.n);
    }
    if (h->sec[TOK_SEC_OFFSETS].bytes != 4 * (n + 1))
        return bad(o, "the size of the offsets", h->sec[TOK_SEC_OFFSETS].bytes, 4 * (n + 1));
    if (h->sec[TOK_SEC_ATTRS].bytes != n)
        return bad(o, "the size of the attributes", h->sec[TOK_SEC_ATTRS].bytes, n);
    if (h->sec[TOK_SEC_JOINS].bytes != TOK_JOIN_BYTES)
        return bad(o, "the size of the joins", h->sec[TOK_SEC_JOINS].bytes, TOK_JOIN_BYTES);
    if (!is_table_size(count(o, TOK_SEC_STRINGS, 8)) || !is_table_size(count(o, TOK_SEC_MERGES, 8)))
        return sq_fail(o->err, SQUISH_CORRUPT,
                       "compiled tokenizer: a hash table's size is not a power of two");
    uint64_t ops = (uint64_t)h->n_norm + h->n_pre;
    if (ops > TOK_OPS_MAX || count(o, TOK_SEC_OPS, sizeof(tok_op)) != ops)
        return bad(o, "the number of ops", ops, count(o, TOK_SEC_OPS, sizeof(tok_op)));
    uint64_t ids = (uint64_t)h->n_eos + h->n_prefix + h->n_suffix;
    if (h->n_eos > TOK_EOS_MAX || h->n_prefix > TOK_AFFIX_MAX || h->n_suffix > TOK_AFFIX_MAX ||
        count(o, TOK_SEC_IDS, 4) != ids)
        return bad(o, "the length of the id lists", ids, count(o, TOK_SEC_IDS, 4));
    return SQUISH_OK;
}

static squish_status check_ids(const opening *o) {
    const tok_header *h = o->h;
    const int32_t *ids = at(o, TOK_SEC_IDS);
    for (uint64_t i = 0; i < count(o, TOK_SEC_IDS, 4); i++)
        if (ids[i] < 0 || ids[i] >= h->n_tokens) return bad_entry(o, TOK_SEC_IDS, i, "no such token");
    if (h->bos < -1 || h->bos >= h->n_tokens || h->unk < -1 || h->unk >= h->n_tokens)
        return sq_fail(o->err, SQUISH_CORRUPT, "compiled tokenizer: bos %d or unk %d is no token",
                       (int)h->bos, (int)h->unk);
    for (int i = 0; i < 256; i++)
        if (h->unit[i] < -1 || h->unit[i] >= h->n_tokens || h->fallback[i] < -1 ||
            h->fallback[i] >= h->n_tokens)
            return sq_fail(o->err, SQUISH_CORRUPT, "compiled tokenizer: byte %d has tokens %d and %d of %d",
                           i, (int)h->unit[i], (int)h->fallback[i], (int)h->n_tokens);
    return SQUISH_OK;
}

static squish_status check_tokens(const opening *o) {
    const uint32_t *offsets = at(o, TOK_SEC_OFFSETS);
    uint64_t n = (uint64_t)o->h->n_tokens, bytes = o->h->sec[TOK_SEC_BYTES].bytes;
    if (offsets[0] != 0 || offsets[n] != bytes)
        return bad(o, "the end of the token bytes", offsets[n], bytes);
    for (uint64_t i = 0; i < n; i++)
        if (offsets[i] > offsets[i + 1]) return bad_entry(o, TOK_SEC_OFFSETS, i, "offsets run backwards");
    const uint64_t *slots = at(o, TOK_SEC_STRINGS);
    uint64_t size = count(o, TOK_SEC_STRINGS, 8), used = 0;
    for (uint64_t i = 0; i < size; i++) {
        if (slots[i] == TOK_EMPTY) continue;
        used++;
        if ((uint32_t)slots[i] >= n) return bad_entry(o, TOK_SEC_STRINGS, i, "no such token");
    }
    if (used == size) return bad_entry(o, TOK_SEC_STRINGS, 0, "no free slot");
    return SQUISH_OK;
}

static squish_status check_merges(const opening *o) {
    uint32_t id_bits = o->h->id_bits, index_bits = 64 - 2 * id_bits, n = (uint32_t)o->h->n_tokens;
    const tok_result *results = at(o, TOK_SEC_RESULTS);
    uint64_t n_results = count(o, TOK_SEC_RESULTS, sizeof *results);
    for (uint64_t i = 0; i < n_results; i++)
        if (results[i].id >= n || results[i].prio == UINT32_MAX)
            return bad_entry(o, TOK_SEC_RESULTS, i, "no such token or priority");
    const uint64_t *slots = at(o, TOK_SEC_MERGES);
    uint64_t size = count(o, TOK_SEC_MERGES, 8), used = 0, index_mask = (1ull << index_bits) - 1;
    for (uint64_t i = 0; i < size; i++) {
        if (slots[i] == TOK_EMPTY) continue;
        used++;
        if ((slots[i] & index_mask) >= n_results) return bad_entry(o, TOK_SEC_MERGES, i, "no such result");
    }
    if (used == size) return bad_entry(o, TOK_SEC_MERGES, 0, "no free slot");
    return SQUISH_OK;
}

static bool in_pool(const opening *o, uint32_t offset, uint32_t bytes) {
    uint64_t n = o->h->sec[TOK_SEC_POOL].bytes;
    return offset <= n && bytes <= n - offset;
}

static squish_status check_added(const opening *o, tok_sec sec) {
    const tok_added *a = at(o, sec);
    const uint8_t *pool = at(o, TOK_SEC_POOL);
    for (uint64_t i = 0; i < count(o, sec, sizeof *a); i++) {
        if (!in_pool(o, a[i].offset, a[i].bytes) || a[i].bytes == 0 || a[i].bytes > 2 * TOK_ADDED_BYTES_MAX)
            return bad_entry(o, sec, i, "its text lies outside the pool");
        if (a[i].id < 0 || a[i].id >= o->h->n_tokens) return bad_entry(o, sec, i, "no such token");
        if (i == 0) continue;
        size_t n = a[i].bytes < a[i - 1].bytes ? a[i].bytes : a[i - 1].bytes;
        int order = memcmp(pool + a[i - 1].offset, pool + a[i].offset, n);
        if (order > 0 || (order == 0 && a[i - 1].bytes >= a[i].bytes))
            return bad_entry(o, sec, i, "not in order");
    }
    return SQUISH_OK;
}

/* The ranges of one class are sorted, which its binary search relies on. */
static bool class_ok(const opening *o, const tok_class *c) {
    const tok_range *r = at(o, TOK_SEC_RANGES);
    uint64_t n = count(o, TOK_SEC_RANGES, sizeof *r);
    if (c->first_range > n || c->n_ranges > n - c->first_range) return false;
    r += c->first_range;
    for (uint32_t i = 0; i < c->n_ranges; i++)
        if (r[i].lo > r[i].hi || r[i].hi > 0x10FFFF || (i && r[i].lo <= r[i - 1].hi)) return false;
    return true;
}

static bool op_ok(const opening *o, const tok_op *op, bool pre) {
    if (op->kind >= TOK_OP_COUNT || (op->kind >= TOK_OP_KNOWN) != pre) return false;
    if (op->behavior >= TOK_BEHAVIOR_COUNT || op->invert > 1 || op->lead >= TOK_LEAD_COUNT || op->at_end > 1)
        return false;
    if (!in_pool(o, op->text, op->text_bytes) || !in_pool(o, op->with, op->with_bytes)) return false;
    switch ((tok_op_kind)op->kind) {
    case TOK_OP_FORM: return op->variant < TOK_FORM_COUNT;
    case TOK_OP_PREPEND:
    case TOK_OP_REPLACE:
        return sq_utf8_valid((const char *)at(o, TOK_SEC_POOL) + op->text, op->text_bytes) &&
               sq_utf8_valid((const char *)at(o, TOK_SEC_POOL) + op->with, op->with_bytes) &&
               op->text_bytes > 0;
    case TOK_OP_LITERAL: return op->text_bytes > 0;
    case TOK_OP_KNOWN: return op->variant < TOK_KNOWN_COUNT;
    case TOK_OP_METASPACE: return op->variant < TOK_SCHEME_COUNT;
    case TOK_OP_CLASS: return op->max > 0 && class_ok(o, &op->cls);
    case TOK_OP_PCRE: return op->text_bytes > 0 && op->text_bytes <= TOK_REGEX_BYTES_MAX;
    default: return true;
    }
}

static squish_status check_ops(const opening *o) {
    const tok_op *ops = at(o, TOK_SEC_OPS);
    uint32_t n_norm = o->h->n_norm, n = n_norm + o->h->n_pre;
    int prefixes = 0, metaspaces = 0; /* each has one scratch buffer, see tok_split.c */
    for (uint32_t i = 0; i < n; i++) {
        if (!op_ok(o, &ops[i], i >= n_norm)) return bad_entry(o, TOK_SEC_OPS, i, "not a step we know");
        prefixes += ops[i].kind == TOK_OP_PREFIX;
        metaspaces += ops[i].kind == TOK_OP_METASPACE;
    }
    if (prefixes > 1 || metaspaces > 1)
        return bad_entry(o, TOK_SEC_OPS, 0, "a prefix step stands there twice");
    return SQUISH_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

static uint32_t log2_of(uint64_t power) {
    return (uint32_t)__builtin_ctzll(power);
}

static void fill_view(sq_tok *t, const opening *o) {
    t->h = o->h;
    t->offsets = at(o, TOK_SEC_OFFSETS);
    t->bytes = at(o, TOK_SEC_BYTES);
    t->attrs = at(o, TOK_SEC_ATTRS);
    t->strings = at(o, TOK_SEC_STRINGS);
    t->strings_mask = count(o, TOK_SEC_STRINGS, 8) - 1;
    t->merges = at(o, TOK_SEC_MERGES);
    t->merges_mask = count(o, TOK_SEC_MERGES, 8) - 1;
    t->merges_shift = 64 - log2_of(t->merges_mask + 1);
    t->index_bits = 64 - 2 * o->h->id_bits;
    t->results = at(o, TOK_SEC_RESULTS);
    t->joins = at(o, TOK_SEC_JOINS);
    t->ops = at(o, TOK_SEC_OPS);
    t->ranges = at(o, TOK_SEC_RANGES);
    t->pool = at(o, TOK_SEC_POOL);
    t->ids = at(o, TOK_SEC_IDS);
    for (int list = 0; list < 2; list++) {
        tok_sec sec = list ? TOK_SEC_ADDED_NORM : TOK_SEC_ADDED_RAW;
        t->added[list] = at(o, sec);
        t->n_added[list] = (uint32_t)count(o, sec, sizeof(tok_added));
        for (uint32_t i = 0; i < t->n_added[list]; i++) {
            uint8_t first = t->pool[t->added[list][i].offset];
            t->first[list][first >> 6] |= 1ull << (first & 63);
        }
    }
}

static void release_regexes(sq_tok *t) {
    for (int i = 0; i < TOK_OPS_MAX; i++) {
        tok_regex_free(t->regex[i]);
        t->regex[i] = NULL;
    }
}

squish_status sq_tok_open(sq_tok_view *view, sq_span blob, const squish_alloc *a, const sq_tok **out,
                          squish_error *err) {
    *out = NULL;
    opening o = {blob, (const tok_header *)(const void *)blob.p, err};
    SQ_TRY(check_header(&o));
    SQ_TRY(check_sections(&o));
    SQ_TRY(check_ids(&o));
    SQ_TRY(check_tokens(&o));
    SQ_TRY(check_merges(&o));
    SQ_TRY(check_ops(&o));
    SQ_TRY(check_added(&o, TOK_SEC_ADDED_RAW));
    SQ_TRY(check_added(&o, TOK_SEC_ADDED_NORM));
    sq_tok *t = (sq_tok *)(void *)view->bytes;
    memset(view, 0, sizeof *view);
    t->alloc = a && a->resize ? *a : sq_alloc_default();
    fill_view(t, &o);
    for (uint32_t i = 0; i < o.h->n_norm + o.h->n_pre; i++) {
        const tok_op *op = &t->ops[i];
        if (op->kind != TOK_OP_PCRE) continue;
        squish_status st =
            tok_regex_compile(t->pool + op->text, op->text_bytes, &t->alloc, &t->regex[i], err);
        if (st != SQUISH_OK) {
            release_regexes(t);
            return st;
        }
    }
    *out = t;
    return SQUISH_OK;
}

void sq_tok_close(const sq_tok *t) {
    if (t) release_regexes((sq_tok *)t); /* the view is the caller's storage and was never const */
}

void tok_blob_seal(uint8_t *blob, size_t n) {
    uint64_t sum = XXH3_64bits(blob + TOK_HASHED_FROM, n - TOK_HASHED_FROM);
    memcpy(blob + offsetof(tok_header, hash), &sum, sizeof sum);
}

/* ---- questions ------------------------------------------------------------------------------- */

int32_t tok_find(const sq_tok *t, const uint8_t *p, size_t n) {
    if (n == 0) return -1;
    uint64_t h = tok_hash(p, n);
    for (uint64_t i = h & t->strings_mask;; i = (i + 1) & t->strings_mask) {
        uint64_t slot = t->strings[i];
        if (slot == TOK_EMPTY) return -1;
        if (slot >> 32 != h >> 32) continue;
        uint32_t id = (uint32_t)slot, from = t->offsets[id];
        if (t->offsets[id + 1] - from == n && memcmp(t->bytes + from, p, n) == 0) return (int32_t)id;
    }
}

int32_t sq_tok_find(const sq_tok *t, const char *bytes, size_t n) {
    return tok_find(t, (const uint8_t *)bytes, n);
}

int32_t sq_tok_count(const sq_tok *t) {
    return t->h->n_tokens;
}

static uint8_t attr_of(const sq_tok *t, int32_t id) {
    return id >= 0 && id < t->h->n_tokens ? t->attrs[id] : 0;
}

bool sq_tok_bytes(const sq_tok *t, int32_t id, sq_span *out) {
    *out = (sq_span){0};
    if (!(attr_of(t, id) & TOK_PRESENT)) return false;
    *out = (sq_span){t->bytes + t->offsets[id], t->offsets[id + 1] - t->offsets[id]};
    return true;
}

bool sq_tok_is_control(const sq_tok *t, int32_t id) {
    return attr_of(t, id) & TOK_CONTROL;
}

bool sq_tok_is_eos(const sq_tok *t, int32_t id) {
    return attr_of(t, id) & TOK_EOS;
}

int32_t sq_tok_bos(const sq_tok *t) {
    return t->h->bos;
}

int32_t sq_tok_eos(const sq_tok *t) {
    return t->h->n_eos ? t->ids[0] : -1;
}

uint64_t sq_tok_hash(const sq_tok *t) {
    return t->h->hash;
}
