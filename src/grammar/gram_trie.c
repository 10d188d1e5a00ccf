/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_trie.c - a vocabulary as a trie of bytes, in depth-first order.
 *
 *   nodes: | a | b | c | d |   a's subtree is what lies before a.end: leaving a branch is one assignment
 *            `-----------^
 *
 * Most tokens are whole characters that a JSON string holds as they are. These are slices with bitsets of
 * their own, and a smaller trie of what is left: where a place takes any such character, or so many of them
 * (gram_mask.c), only that one is walked. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    sq_span bytes;
    uint32_t id;
    uint32_t chars; /* characters, if it is all plain ones; else GRAM_NONE */
} entry;

static int by_bytes(const void *a, const void *b) {
    const entry *x = a, *y = b;
    const size_t n = x->bytes.n < y->bytes.n ? x->bytes.n : y->bytes.n;
    const int c = memcmp(x->bytes.p, y->bytes.p, n);
    if (c) return c;
    if (x->bytes.n != y->bytes.n) return x->bytes.n < y->bytes.n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t plain_chars(sq_span b) {
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] < 0x20 || b.p[i] == '"' || b.p[i] == '\\') return GRAM_NONE;
    if (!sq_utf8_valid((const char *)b.p, b.n)) return GRAM_NONE;
    return (uint32_t)sq_utf8_count((const char *)b.p, b.n);
}

static size_t same_prefix(sq_span a, sq_span b) {
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n]) n++;
    return n;
}

/* Does a trie without the plain tokens of at most so many characters have this one? 0: it has all. */
static const uint32_t ANY_LENGTH = UINT32_MAX - 1;
static bool is_in(const entry *e, uint32_t without_chars) {
    return e->chars == GRAM_NONE || e->chars > without_chars || without_chars == 0;
}

static uint32_t count_nodes(const entry *e, size_t n, uint32_t without_chars) {
    sq_span last = {0};
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_in(&e[i], without_chars)) continue;
        total += e[i].bytes.n - same_prefix(last, e[i].bytes);
        last = e[i].bytes;
    }
    return (uint32_t)total;
}

/* open [depth_max + 1]: the node at each depth of the branch being made. */
static bool build(sq_gram_trie *t, gram_nodes *out, const entry *e, size_t n, uint32_t without_chars,
                  uint32_t *open) {
    const uint32_t total = count_nodes(e, n, without_chars);
    gram_trie_node *nodes = sq_alloc_new(&t->alloc, (total ? total : 1) * sizeof *nodes);
    if (!nodes) return false;
    *out = (gram_nodes){nodes, total};
    uint32_t at = 0;
    const entry *last = NULL;
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_in(&e[i], without_chars)) continue;
        const size_t same = last ? same_prefix(last->bytes, e[i].bytes) : 0;
        while (depth > same) nodes[open[depth--]].end = at;
        while (depth < e[i].bytes.n) {
            nodes[at] = (gram_trie_node){
                .token = GRAM_NONE, .depth = (uint16_t)(depth + 1), .byte = e[i].bytes.p[depth]};
            open[++depth] = at++;
        }
        gram_trie_node *x = &nodes[open[depth]];
        if (x->token == GRAM_NONE) {
            x->token = e[i].id;
        } else {
            x->token |= GRAM_MORE;
            t->same[last->id] = e[i].id;
        }
        last = &e[i];
    }
    while (depth > 0) nodes[open[depth--]].end = at;
    return true;
}

/* names: room for the bytes of control tokens. */
static size_t collect(sq_gram_trie *t, entry *e, uint8_t *names) {
    size_t n = 0;
    const int32_t count = sq_tok_count(t->tok);
    for (int32_t id = 0; id < count && id < t->n_vocab; id++) {
        sq_span b;
        if (sq_tok_is_eos(t->tok, id)) {
            t->ends[id / 64] |= 1ull << id % 64;
            t->n_ends++;
            continue;
        }
        if (!sq_tok_bytes(t->tok, id, &b) || b.n == 0 || b.n > UINT16_MAX) continue;
        if (sq_tok_is_control(t->tok, id)) {
            gram_token_bytes(id, names);
            b = (sq_span){names, GRAM_TOKEN_BYTES};
            names += GRAM_TOKEN_BYTES;
        } else if (!gram_is_text(b)) {
            continue;
        }
        e[n++] = (entry){b, (uint32_t)id, plain_chars(b)};
        if (b.n > t->depth_max) t->depth_max = (uint32_t)b.n;
    }
    return n;
}

static size_t count_control(const sq_gram_trie *t) {
    size_t n = 0;
    for (int32_t id = 0; id < t->n_vocab; id++) n += sq_tok_is_control(t->tok, id);
    return n;
}

static bool make_bitsets(sq_gram_trie *t) {
    bool ok = true;
    for (int i = 0; i <= GRAM_SLICE_CHARS && ok; i++)
        ok = (t->plain[i] = sq_alloc_zero(&t->alloc, t->words * sizeof(uint64_t))) != NULL;
    return ok;
}

static void note_plain(sq_gram_trie *t, const entry *e) {
    const size_t word = e->id / 64;
    const uint64_t bit = 1ull << e->id % 64;
    if (e->chars == GRAM_NONE) return;
    t->plain[0][word] |= bit;
    for (uint32_t k = e->chars; k <= GRAM_SLICE_CHARS; k++) t->plain[k][word] |= bit;
}

static bool fill(sq_gram_trie *t, entry *e) {
    const squish_alloc *a = &t->alloc;
    const size_t vocab = (size_t)t->n_vocab, names_bytes = (count_control(t) + 1) * GRAM_TOKEN_BYTES;
    t->same = sq_alloc_new(a, vocab * sizeof *t->same);
    t->ends = sq_alloc_zero(a, t->words * sizeof *t->ends);
    if (!t->same || !t->ends || !make_bitsets(t)) return false;
    memset(t->same, 0xFF, vocab * sizeof *t->same);
    uint8_t *names = sq_alloc_new(a, names_bytes);
    if (!names) return false;
    const size_t n = collect(t, e, names);
    if (n) qsort(e, n, sizeof *e, by_bytes);
    for (size_t i = 0; i < n; i++) note_plain(t, &e[i]);
    const size_t open_bytes = ((size_t)t->depth_max + 1) * sizeof(uint32_t);
    uint32_t *open = sq_alloc_new(a, open_bytes);
    const bool ok = open && build(t, &t->all, e, n, 0, open) &&
                    build(t, &t->not_plain, e, n, ANY_LENGTH, open) &&
                    build(t, &t->not_short, e, n, GRAM_SLICE_CHARS, open);
    sq_alloc_free(a, open, open_bytes);
    sq_alloc_free(a, names, names_bytes);
    return ok;
}

static uint64_t vocabulary_id(const sq_tok *tok, int32_t n_vocab) {
    return gram_mix(sq_tok_hash(tok), (uint64_t)n_vocab);
}

squish_status sq_gram_trie_new(sq_gram_trie **out, const sq_tok *tok, int32_t n_vocab, const squish_alloc *a,
                               squish_error *err) {
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    *out = NULL;
    if (n_vocab < 1) return sq_fail(err, SQUISH_INVALID, "grammar: a vocabulary of %d tokens", n_vocab);
    sq_gram_trie *t = sq_alloc_zero(&alloc, sizeof *t);
    if (!t) return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory for a vocabulary");
    t->alloc = alloc;
    t->refs = 1;
    t->tok = tok;
    t->n_vocab = n_vocab;
    t->id = vocabulary_id(tok, n_vocab);
    t->words = ((size_t)n_vocab + 63) / 64;
    const size_t bytes = (size_t)n_vocab * sizeof(entry);
    entry *e = sq_alloc_new(&alloc, bytes);
    const bool ok = e && fill(t, e);
    sq_alloc_free(&alloc, e, e ? bytes : 0);
    if (!ok) {
        sq_gram_trie_free(t);
        return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory for a vocabulary of %d tokens",
                       n_vocab);
    }
    *out = t;
    return SQUISH_OK;
}

sq_gram_trie *sq_gram_trie_share(sq_gram_trie *t) {
    t->refs++;
    return t;
}

static void free_nodes(const squish_alloc *a, gram_nodes *n) {
    sq_alloc_free(a, n->nodes, n->nodes ? (n->n ? n->n : 1) * sizeof *n->nodes : 0);
}

static void free_bits(const squish_alloc *a, uint64_t *bits, size_t words) {
    sq_alloc_free(a, bits, bits ? words * sizeof *bits : 0);
}

void sq_gram_trie_free(sq_gram_trie *t) {
    if (!t || --t->refs > 0) return;
    const squish_alloc a = t->alloc;
    free_nodes(&a, &t->all);
    free_nodes(&a, &t->not_plain);
    free_nodes(&a, &t->not_short);
    for (int i = 0; i <= GRAM_SLICE_CHARS; i++) free_bits(&a, t->plain[i], t->words);
    sq_alloc_free(&a, t->same, t->same ? (size_t)t->n_vocab * sizeof *t->same : 0);
    free_bits(&a, t->ends, t->words);
    sq_alloc_free(&a, t, sizeof *t);
}

bool sq_gram_trie_is_for(const sq_gram_trie *t, const sq_tok *tok, int32_t n_vocab) {
    return t->id == vocabulary_id(tok, n_vocab);
}
