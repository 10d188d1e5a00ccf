/* SPDX-License-Identifier: Apache-2.0
 *
 * api_grammars.c - compiled grammars, kept by what they were compiled from.
 *
 *   SHA-256 of (kind, canonical, source) -> grammar;   per model, since a grammar knows its vocabulary
 *
 * At most 64 of a model are kept, and 256 MiB of what they have learned; the one that nobody asked for
 * longest goes first. One that is in use stays until its last user lets go of it. A grammar is thousands of
 * small pieces that lie among those of others, so the heap is trimmed once one has gone.
 *
 * Threads. Workers come here, several at once: one mutex guards the list, compiling is done outside of it.
 * Two who compile the same source at the same time keep the one that came first. */
#include "api/api_int.h"

#include "base/base_heap.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>

enum { KEPT_MAX = 64, KEY = 32 };
#define KEPT_BYTES_MAX ((uint64_t)256 << 20)

struct sq_api_grammar {
    sq_api_grammar *next; /* the one that was asked for before */
    squish_grammar *grammar;
    unsigned char key[KEY];
    int32_t users;
    bool listed;
};

struct sq_api_grammars {
    pthread_mutex_t lock;
    sq_api_grammar *first;
    const squish_alloc *alloc;
    atomic_bool gone; /* one has, since the heap was trimmed */
};

bool sq_api_grammars_new(sq_api_grammars **out, const squish_alloc *alloc) {
    sq_api_grammars *l = sq_alloc_zero(alloc, sizeof *l);
    *out = l;
    if (!l) return false;
    l->alloc = alloc;
    if (pthread_mutex_init(&l->lock, NULL) == 0) return true;
    sq_alloc_free(alloc, l, sizeof *l);
    *out = NULL;
    return false;
}

static void drop(sq_api_grammars *l, sq_api_grammar *g) {
    squish_grammar_free(g->grammar);
    sq_alloc_free(l->alloc, g, sizeof *g);
    atomic_store(&l->gone, true);
}

void sq_api_grammars_free(sq_api_grammars *l) {
    if (!l) return;
    while (l->first) {
        sq_api_grammar *g = l->first;
        l->first = g->next;
        drop(l, g);
    }
    pthread_mutex_destroy(&l->lock);
    sq_alloc_free(l->alloc, l, sizeof *l);
}

const squish_grammar *sq_api_grammar_of(const sq_api_grammar *g) { return g->grammar; }

static bool make_key(squish_grammar_kind kind, bool canonical, const char *source, size_t n,
                     unsigned char key[KEY]) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const unsigned char k = (unsigned char)(kind | canonical << 7);
    const bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) && EVP_DigestUpdate(md, &k, 1) &&
                    EVP_DigestUpdate(md, source, n) && EVP_DigestFinal_ex(md, key, NULL);
    EVP_MD_CTX_free(md);
    return ok;
}

/* Under the lock: the one of that key, now the first; NULL: none. */
static sq_api_grammar *find(sq_api_grammars *l, const unsigned char key[KEY]) {
    for (sq_api_grammar **p = &l->first; *p; p = &(*p)->next) {
        sq_api_grammar *g = *p;
        if (memcmp(g->key, key, KEY) != 0) continue;
        *p = g->next;
        g->next = l->first;
        l->first = g;
        g->users++;
        return g;
    }
    return NULL;
}

/* Under the lock: the last ones go while there are too many, or too large. The first one stays. */
static void trim(sq_api_grammars *l) {
    uint64_t bytes = 0;
    int32_t n = 0;
    for (sq_api_grammar **p = &l->first; *p;) {
        sq_api_grammar *g = *p;
        bytes += squish_grammar_bytes(g->grammar);
        if (n == 0 || (n < KEPT_MAX && bytes <= KEPT_BYTES_MAX)) {
            n++;
            p = &g->next;
            continue;
        }
        bytes -= squish_grammar_bytes(g->grammar);
        *p = g->next;
        g->listed = false;
        if (g->users == 0) drop(l, g);
    }
}

/* Keep a fresh grammar, or the one that somebody else made meanwhile. NULL: no memory. */
static sq_api_grammar *keep(sq_api_grammars *l, squish_grammar *fresh, const unsigned char key[KEY]) {
    sq_api_grammar *g = sq_alloc_zero(l->alloc, sizeof *g);
    pthread_mutex_lock(&l->lock);
    sq_api_grammar *there = find(l, key);
    if (!there && g) {
        *g = (sq_api_grammar){.next = l->first, .grammar = fresh, .users = 1, .listed = true};
        memcpy(g->key, key, KEY);
        there = l->first = g;
        trim(l);
    } else {
        squish_grammar_free(fresh);
        sq_alloc_free(l->alloc, g, sizeof *g);
    }
    pthread_mutex_unlock(&l->lock);
    return there;
}

squish_status sq_api_grammar_get(sq_api_grammars *l, const squish_model *m, squish_grammar_kind kind,
                                 bool canonical, const char *source, size_t n, sq_api_grammar **out,
                                 squish_error *err) {
    unsigned char key[KEY];
    squish_grammar *fresh;
    if (!make_key(kind, canonical, source, n, key))
        return sq_fail(err, SQUISH_NO_MEMORY, "out of memory for a grammar");
    pthread_mutex_lock(&l->lock);
    *out = find(l, key);
    pthread_mutex_unlock(&l->lock);
    if (*out) return SQUISH_OK;
    SQ_TRY(squish_grammar_new(&fresh, m, kind, source, n, err));
    if (canonical) squish_grammar_cut_canonically(fresh);
    *out = keep(l, fresh, key);
    if (atomic_exchange(&l->gone, false)) sq_heap_trim();
    return *out ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "out of memory for a grammar");
}

void sq_api_grammar_release(sq_api_grammars *l, sq_api_grammar *g) {
    if (!g) return;
    pthread_mutex_lock(&l->lock);
    const bool last = --g->users == 0 && !g->listed;
    pthread_mutex_unlock(&l->lock);
    if (last) drop(l, g);
}
