/* SPDX-License-Identifier: Apache-2.0
 *
 * sched_ngram.c - what followed the last time the timeline ended like this.
 *
 *   tokens   a b c d e ... a b c          ends in "a b c": guess d e ...
 *   head     [hash of two tokens] -> the latest place behind them
 *   prev     [place] -> the place before it with the same hash       chains, as LZ77 keeps them
 *
 * A suffix automaton would find the longest match without a search, at ten times the memory; a chain that is
 * cut after some steps finds the same one unless a text repeats itself very often, and then any will do. */
#include "sched/sched_spec.h"

enum {
    LENGTH_MAX = 32, /* tokens that are compared at most: a longer match is no better */
    LOOKS_MAX = 64   /* places of a chain that are looked at */
};

struct sq_ngram {
    squish_alloc alloc;
    int32_t *tokens; /* [max] */
    int32_t *prev;   /* [max + 1] a place is the number of tokens before it; 0: end of the chain */
    int32_t *head;   /* [mask + 1] */
    int32_t n, max;
    uint32_t mask;
};

static size_t bytes_of(const sq_ngram *g) {
    return (2 * (size_t)g->max + 1 + (size_t)g->mask + 1) * sizeof(int32_t);
}

static uint32_t mask_of(int32_t tokens_max) {
    uint32_t mask = 63;
    while (mask + 1 < (uint32_t)tokens_max && mask < (1u << 20)) mask = 2 * mask + 1;
    return mask;
}

uint64_t sq_ngram_bytes(int32_t tokens_max) {
    const sq_ngram g = {.max = tokens_max, .mask = mask_of(tokens_max)};
    return sizeof g + bytes_of(&g);
}

squish_status sq_ngram_new(sq_ngram **out, int32_t tokens_max, const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_ngram *g = sq_alloc_zero(a, sizeof *g);
    if (!g) return sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory");
    *g = (sq_ngram){.alloc = *a, .max = tokens_max, .mask = mask_of(tokens_max)};
    g->tokens = sq_alloc_zero(a, bytes_of(g));
    if (!g->tokens) {
        sq_alloc_free(a, g, sizeof *g);
        return sq_fail(err, SQUISH_NO_MEMORY, "guesses: out of memory for %d tokens", tokens_max);
    }
    g->prev = g->tokens + tokens_max;
    g->head = g->prev + tokens_max + 1;
    *out = g;
    return SQUISH_OK;
}

void sq_ngram_free(sq_ngram *g) {
    if (!g) return;
    const squish_alloc a = g->alloc;
    sq_alloc_free(&a, g->tokens, bytes_of(g));
    sq_alloc_free(&a, g, sizeof *g);
}

/* The chain of the two tokens before place n >= SQ_NGRAM_MIN. */
static uint32_t hash_at(const sq_ngram *g, int32_t n) {
    const uint32_t a = (uint32_t)g->tokens[n - 2], b = (uint32_t)g->tokens[n - 1];
    return ((a * 0x9e3779b1u) ^ (b * 0x85ebca6bu)) >> 7 & g->mask;
}

void sq_ngram_accept(sq_ngram *g, int32_t id) {
    if (g->n == g->max) return;
    /* A place joins its chain only when something follows it, so that the end never finds itself. */
    if (g->n >= SQ_NGRAM_MIN) {
        const uint32_t h = hash_at(g, g->n);
        g->prev[g->n] = g->head[h];
        g->head[h] = g->n;
    }
    g->tokens[g->n++] = id;
}

static int32_t equal_before(const sq_ngram *g, int32_t place) {
    int32_t k = 0;
    while (k < LENGTH_MAX && k < place && g->tokens[place - 1 - k] == g->tokens[g->n - 1 - k]) k++;
    return k;
}

/* What follows a place, n tokens. A place whose continuation reaches the end of the timeline goes on as a
 * period: what is guessed is read as if it were there. */
static void follow(const sq_ngram *g, int32_t place, int32_t *ids, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        ids[i] = place + i < g->n ? g->tokens[place + i] : ids[place + i - g->n];
}

int32_t sq_ngram_find(const sq_ngram *g, int32_t *ids, int32_t max, int32_t *length) {
    int32_t best = 0;
    *length = SQ_NGRAM_MIN - 1;
    if (g->n < SQ_NGRAM_MIN) return 0;
    int32_t place = g->head[hash_at(g, g->n)];
    for (int32_t looks = 0; place > 0 && looks < LOOKS_MAX && *length < LENGTH_MAX; looks++) {
        const int32_t k = equal_before(g, place);
        if (k > *length) *length = k, best = place;
        place = g->prev[place];
    }
    if (best == 0) return 0;
    follow(g, best, ids, max);
    return max;
}

/* One more branch among n, the longest match first, of equal ones who came first; one for each token at a
 * place. The last gives way. */
static int32_t keep(sq_branch *out, int32_t n, const sq_branch *b) {
    int32_t i = 0;
    while (i < n && (out[i].at != b->at || out[i].ids[0] != b->ids[0])) i++;
    if (i == n && n < SQ_BRANCHES_MAX)
        n++;
    else if (out[i < n ? i : --i].length >= b->length)
        return n;
    for (; i > 0 && out[i - 1].length < b->length; i--) out[i] = out[i - 1];
    out[i] = *b;
    return n;
}

int32_t sq_ngram_others(const sq_ngram *g, const int32_t *chain, int32_t n, sq_branch *out) {
    int32_t found = 0;
    if (g->n < SQ_NGRAM_MIN) return 0;
    int32_t place = g->head[hash_at(g, g->n)];
    for (int32_t looks = 0; place > 0 && looks < LOOKS_MAX; looks++, place = g->prev[place]) {
        int32_t ids[SQ_GUESS_MAX + SQ_BRANCH_TOKENS];
        sq_branch b = {.n = SQ_BRANCH_TOKENS, .length = equal_before(g, place)};
        if (b.length < SQ_NGRAM_MIN) continue; /* the chain is of a hash */
        follow(g, place, ids, n + SQ_BRANCH_TOKENS);
        while (b.at < n && ids[b.at] == chain[b.at]) b.at++;
        if (b.at == n) continue;
        for (int32_t i = 0; i < SQ_BRANCH_TOKENS; i++) b.ids[i] = ids[b.at + i];
        found = keep(out, found, &b);
    }
    return found;
}
