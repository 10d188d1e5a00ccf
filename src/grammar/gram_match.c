/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_match.c - matchers: a list of places, one per step.
 *
 * Because places are numbers that never change, undoing a step is forgetting the last number. Beside a place
 * lies what is left of a large count (gram_counts.c). */
#include "grammar/gram_int.h"

#include <string.h>

typedef struct {
    uint32_t place, beside;
} stand;

struct sq_matcher {
    squish_alloc alloc;
    sq_gram *g;
    sq_gram_trie *trie;
    stand *at; /* [n]: where the text began, then after each step */
    size_t n, cap;
    bool counts; /* beside the places: no token is longer than a step may be */
};

static void settle(const sq_matcher *m, stand *s) {
    if (m->counts && s->place) s->place = gram_place_settle(m->g, s->place, &s->beside);
}

squish_status sq_matcher_new(sq_matcher **out, sq_gram *g, sq_gram_trie *trie, const squish_alloc *a,
                             squish_error *err) {
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    *out = NULL;
    sq_matcher *m = sq_alloc_zero(&alloc, sizeof *m);
    enum { FIRST = 64 };
    stand *at = m ? sq_alloc_new(&alloc, FIRST * sizeof *at) : NULL;
    if (!at) {
        sq_alloc_free(&alloc, m, sizeof *m);
        return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory for a matcher");
    }
    gram_lock(g);
    gram_settle(g);
    g->n_matchers++;
    g->refs++;
    *m = (sq_matcher){alloc, g, trie ? sq_gram_trie_share(trie) : NULL, at, 1, FIRST, true};
    m->counts = !trie || trie->depth_max <= GRAM_COUNT_STEP;
    at[0] = (stand){g->start, 0};
    settle(m, &at[0]);
    pthread_mutex_unlock(&g->lock);
    *out = m;
    return SQUISH_OK;
}

void sq_matcher_free(sq_matcher *m) {
    if (!m) return;
    const squish_alloc a = m->alloc;
    gram_lock(m->g);
    m->g->n_matchers--;
    pthread_mutex_unlock(&m->g->lock);
    sq_gram_free(m->g);
    sq_gram_trie_free(m->trie);
    sq_alloc_free(&a, m->at, m->cap * sizeof *m->at);
    sq_alloc_free(&a, m, sizeof *m);
}

/* The grammar's own failure, under its lock. */
static squish_status failure(const sq_gram *g, squish_error *err) {
    if (!gram_failed(&g->pool)) return SQUISH_OK;
    return sq_fail(err, g->pool.err.code, "%s", g->pool.err.text);
}

static squish_status make_room(sq_matcher *m, squish_error *err) {
    if (m->n < m->cap) return SQUISH_OK;
    stand *p = sq_alloc_resize(&m->alloc, m->at, m->cap * sizeof *p, m->cap * 2 * sizeof *p);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "grammar: out of memory after %zu steps", m->n);
    m->at = p;
    m->cap *= 2;
    return SQUISH_OK;
}

squish_status sq_matcher_bytes(sq_matcher *m, const void *bytes, size_t n, bool *ok, squish_error *err) {
    const uint8_t *b = bytes;
    sq_gram *g = m->g;
    *ok = false;
    SQ_TRY(make_room(m, err));
    stand at = m->at[m->n - 1];
    gram_lock(g);
    for (size_t i = 0; i < n && at.place; i++) {
        if (i > 0 && i % GRAM_COUNT_STEP == 0) settle(m, &at);
        at.place = gram_place_step(g, at.place, g->pool.class_of[b[i]]);
    }
    settle(m, &at);
    const squish_status st = failure(g, err);
    pthread_mutex_unlock(&g->lock);
    if (st != SQUISH_OK) return st;
    *ok = at.place != 0;
    if (*ok) m->at[m->n++] = at;
    return SQUISH_OK;
}

squish_status sq_matcher_token(sq_matcher *m, int32_t id, bool *ok, squish_error *err) {
    sq_span b;
    *ok = false;
    if (!m->trie)
        return sq_fail(err, SQUISH_INVALID, "grammar: a matcher without a vocabulary takes no tokens");
    if (id < 0 || id >= m->trie->n_vocab || !sq_tok_bytes(m->trie->tok, id, &b))
        return sq_fail(err, SQUISH_INVALID, "grammar: no token %d", id);
    if (b.n == 0 || sq_tok_is_eos(m->trie->tok, id)) return SQUISH_OK;
    if (sq_tok_is_control(m->trie->tok, id)) {
        uint8_t name[GRAM_TOKEN_BYTES];
        gram_token_bytes(id, name);
        return sq_matcher_bytes(m, name, sizeof name, ok, err);
    }
    if (!gram_is_text(b)) return SQUISH_OK;
    return sq_matcher_bytes(m, b.p, b.n, ok, err);
}

void sq_matcher_rollback(sq_matcher *m, size_t n) { m->n -= n < m->n ? n : m->n - 1; }
size_t sq_matcher_steps(const sq_matcher *m) { return m->n - 1; }

bool sq_matcher_may_end(const sq_matcher *m) {
    gram_lock(m->g);
    const bool may = GRAM_AT(m->g->places, gram_place, sq_matcher_place(m)).accept;
    pthread_mutex_unlock(&m->g->lock);
    return may;
}

bool sq_matcher_must_end(sq_matcher *m) {
    gram_lock(m->g);
    const gram_place *x = &GRAM_AT(m->g->places, gram_place, sq_matcher_place(m));
    const bool must = x->accept && x->n == 0;
    pthread_mutex_unlock(&m->g->lock);
    return must;
}

static void unfold(const gram_mask *m, const sq_gram_trie *t, uint64_t *mask) {
    const uint32_t *ids = m->data;
    const size_t words = t->words;
    if (m->kind == MASK_BITS) {
        memcpy(mask, m->data, words * sizeof *mask);
        return;
    }
    const bool listed = m->kind == MASK_LISTED;
    memset(mask, listed ? 0 : 0xFF, words * sizeof *mask);
    for (uint32_t i = 0; i < m->n_ids; i++) mask[ids[i] / 64] ^= 1ull << ids[i] % 64;
    if (!listed && t->n_vocab % 64) mask[words - 1] &= (1ull << t->n_vocab % 64) - 1;
}

uint32_t sq_matcher_place(const sq_matcher *m) { return m->at[m->n - 1].place; }

squish_status sq_matcher_mask(sq_matcher *m, uint64_t *mask, int32_t *n_allowed, squish_error *err) {
    if (!m->trie) return sq_fail(err, SQUISH_INVALID, "grammar: a mask needs a vocabulary");
    return sq_gram_mask_at(m->g, m->trie, sq_matcher_place(m), mask, n_allowed, err);
}

bool sq_gram_has_mask_at(sq_gram *g, const sq_gram_trie *t, uint32_t place) {
    gram_lock(g);
    const uint32_t at = GRAM_AT(g->places, gram_place, place).mask;
    const bool has = at && GRAM_AT(g->masks, gram_mask, at - 1).trie == t->id;
    pthread_mutex_unlock(&g->lock);
    return has;
}

squish_status sq_gram_mask_at(sq_gram *g, const sq_gram_trie *t, uint32_t place, uint64_t *mask,
                              int32_t *n_allowed, squish_error *err) {
    gram_lock(g);
    squish_status st = failure(g, err);
    const gram_mask *x = st == SQUISH_OK ? gram_mask_of(g, t, place) : NULL;
    if (x) {
        if (mask) unfold(x, t, mask);
        if (n_allowed) *n_allowed = (int32_t)x->n_allowed;
    } else if (st == SQUISH_OK) {
        st = failure(g, err);
    }
    pthread_mutex_unlock(&g->lock);
    return st;
}

/* Which byte must come next; -1: none must. *next: where it leads. */
static int only_byte(sq_gram *g, uint32_t at, uint32_t *next) {
    gram_pool *p = &g->pool;
    int byte = -1;
    if (GRAM_AT(g->places, gram_place, at).accept) return -1;
    for (int b = 0; b < 256; b++) {
        const uint32_t to = gram_place_step(g, at, p->class_of[b]);
        if (gram_failed(p) || (to && byte >= 0)) return -1;
        if (to) *next = to, byte = b;
    }
    return byte;
}

/* Do two bytes lead on, which is seen without making a step? t matches something; of its parts that is
 * certain where no intersection or complement is in them. */
static bool begins_wide(const gram_pool *p, gram_term t) {
    gram_node x = GRAM_AT(p->nodes, gram_node, t);
    for (; x.kind == TERM_CAT; t = x.b, x = GRAM_AT(p->nodes, gram_node, t)) {
        if (begins_wide(p, x.a)) return true;
        if (!gram_nullable(p, x.a)) return false;
    }
    if (x.kind == TERM_REP) return !GRAM_AT(p->nodes, gram_node, x.a).logic && begins_wide(p, x.a);
    for (uint32_t i = 0; x.kind == TERM_ALT && i < x.b; i++) {
        const gram_term kid = GRAM_AT(p->kids, uint32_t, x.a + i);
        if (!GRAM_AT(p->nodes, gram_node, kid).logic && begins_wide(p, kid)) return true;
    }
    if (x.kind != TERM_SET) return false;
    const gram_set *s = &GRAM_AT(p->sets, gram_set, x.a);
    int n = 0;
    for (int w = 0; w < 4; w++) n += __builtin_popcountll(s->w[w]);
    return n > 1;
}

static bool is_wide(const sq_gram *g, const gram_place *x) {
    for (uint32_t i = 0; i < x->n; i++) {
        const uint32_t lex = GRAM_AT(g->pairs, gram_pair, x->off + i).lex;
        const gram_lex_state *s = &GRAM_AT(g->lex, gram_lex_state, lex);
        for (uint32_t k = 0; k < s->n; k++)
            if (begins_wide(&g->pool, GRAM_AT(g->lex_items, gram_lex_item, s->off + k).left)) return true;
    }
    return false;
}

bool sq_matcher_is_narrow(sq_matcher *m) {
    sq_gram *g = m->g;
    const uint32_t at = sq_matcher_place(m);
    uint32_t next;
    gram_lock(g);
    if (GRAM_AT(g->places, gram_place, at).steps == GRAM_STEPS_UNKNOWN) {
        const bool one = !is_wide(g, &GRAM_AT(g->places, gram_place, at)) && only_byte(g, at, &next) >= 0;
        GRAM_AT(g->places, gram_place, at).steps = one ? GRAM_STEPS_ONE : GRAM_STEPS_MANY;
    }
    const bool narrow = GRAM_AT(g->places, gram_place, at).steps == GRAM_STEPS_ONE;
    pthread_mutex_unlock(&g->lock);
    return narrow;
}

squish_status sq_matcher_forced(sq_matcher *m, size_t max, sq_buf *out, squish_error *err) {
    sq_gram *g = m->g;
    bool room = true;
    gram_lock(g);
    stand at = m->at[m->n - 1];
    for (size_t i = 0; i < max && room; i++) {
        uint32_t next = 0;
        if (i > 0 && i % (GRAM_COUNT_STEP - 1) == 0) settle(m, &at);
        const int byte = only_byte(g, at.place, &next);
        if (byte < 0) break;
        room = sq_buf_putc(out, (char)byte);
        at.place = next;
    }
    squish_status st = failure(g, err);
    pthread_mutex_unlock(&g->lock);
    if (st == SQUISH_OK && !room)
        st = sq_fail(err, SQUISH_NO_MEMORY, "grammar: no room for the forced bytes");
    return st;
}
