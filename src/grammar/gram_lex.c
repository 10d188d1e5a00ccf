/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_lex.c - the lexer: a DFA over sets of terminals, built where answers go.
 *
 * A state says, for each terminal that began where its row begins, what of it is left. Rows of the transition
 * table have one entry per class of bytes. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

static gram_lex_state *state(const sq_gram *g, uint32_t i) { return &GRAM_AT(g->lex, gram_lex_state, i); }

static int by_item(const void *a, const void *b) {
    const gram_lex_item *x = a, *y = b;
    if (x->terminal != y->terminal) return x->terminal < y->terminal ? -1 : 1;
    return x->left < y->left ? -1 : x->left > y->left;
}

static uint64_t state_hash(void *owner, uint32_t i) { return state(owner, i)->hash; }

static bool fill_state(sq_gram *g, gram_lex_state *s, const gram_lex_item *items, size_t n) {
    gram_pool *p = &g->pool;
    gram_lex_item *to = gram_vec_room(p, &g->lex_items, n, sizeof *to);
    if (!to) return false;
    if (n) memcpy(to, items, n * sizeof *to);
    s->off = (uint32_t)g->lex_items.n;
    s->n = (uint32_t)n;
    g->lex_items.n += n;
    s->done_off = (uint32_t)g->lex_done.n;
    for (size_t i = 0; i < n; i++) {
        if (gram_nullable(p, items[i].left) && !gram_vec_push_u32(p, &g->lex_done, items[i].terminal))
            return false;
        s->live |= items[i].left != GRAM_EPS;
    }
    s->n_done = (uint32_t)g->lex_done.n - s->done_off;
    const size_t classes = p->n_classes;
    uint32_t *row = gram_vec_room(p, &g->lex_to, classes, sizeof *row);
    if (!row) return false;
    memset(row, 0xFF, classes * sizeof *row);
    g->lex_to.n += classes;
    return true;
}

uint32_t gram_lex_intern(sq_gram *g, gram_lex_item *items, size_t n) {
    gram_pool *p = &g->pool;
    if (n == 0 && g->lex.n > 0) return 0;
    if (gram_failed(p) || !gram_index_reserve(p, &g->lex_index, state_hash, g)) return 0;
    if (n > 1) qsort(items, n, sizeof *items, by_item);
    uint64_t h = gram_mix(5, n);
    for (size_t i = 0; i < n; i++) h = gram_mix(gram_mix(h, items[i].terminal), items[i].left);
    gram_index *x = &g->lex_index;
    size_t at = h & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        const gram_lex_state *s = state(g, x->slots[at] - 1);
        if (s->hash == h && s->n == n &&
            (n == 0 || memcmp(&GRAM_AT(g->lex_items, gram_lex_item, s->off), items, n * sizeof *items) == 0))
            return x->slots[at] - 1;
    }
    if (g->lex.n >= SQ_GRAM_STATES_MAX) {
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: over the limit of %d lexer states", SQ_GRAM_STATES_MAX);
        return 0;
    }
    gram_lex_state *s = gram_vec_room(p, &g->lex, 1, sizeof *s);
    if (!s) return 0;
    *s = (gram_lex_state){.hash = h};
    if (!fill_state(g, s, items, n)) return 0;
    x->slots[at] = (uint32_t)++g->lex.n;
    x->n++;
    return (uint32_t)g->lex.n - 1;
}

uint32_t gram_lex_step(sq_gram *g, uint32_t from, uint32_t cls) {
    gram_pool *p = &g->pool;
    const size_t cell = (size_t)from * p->n_classes + cls;
    uint32_t to = GRAM_AT(g->lex_to, uint32_t, cell);
    if (to != GRAM_UNKNOWN) return to;
    const gram_lex_state s = *state(g, from);
    gram_vec list = {0};
    gram_lex_item *l = gram_vec_room(p, &list, s.n ? s.n : 1, sizeof *l);
    if (!l) return 0;
    size_t n = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        const gram_lex_item it = GRAM_AT(g->lex_items, gram_lex_item, s.off + i);
        const gram_term d = gram_derive(p, it.left, p->byte_of[cls]);
        if (gram_matches_something(p, d)) l[n++] = (gram_lex_item){it.terminal, d};
    }
    to = gram_lex_intern(g, l, n);
    gram_vec_free(p, &list, sizeof *l);
    if (!gram_failed(p)) GRAM_AT(g->lex_to, uint32_t, cell) = to;
    return to;
}
