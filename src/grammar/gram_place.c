/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_place.c - places: all that a matcher knows at a point of a text, interned.
 *
 * A place is a set of pairs: a lexer state, and the row in which its terminals began. More than one pair
 * means that the bytes can be split into terminals in more than one way (after "12" the number may be over,
 * or go on). Places have numbers, so a step that was made once is a table look-up. */
#include "grammar/gram_int.h"

#include <stdlib.h>
#include <string.h>

enum { PAIRS_MAX = 4096 };

static gram_place *place(const sq_gram *g, uint32_t i) { return &GRAM_AT(g->places, gram_place, i); }

static int by_pair(const void *a, const void *b) {
    const gram_pair *x = a, *y = b;
    if (x->row != y->row) return x->row < y->row ? -1 : 1;
    return x->lex < y->lex ? -1 : x->lex > y->lex;
}

static uint64_t place_hash(void *owner, uint32_t i) { return place(owner, i)->hash; }

static bool fill_place(sq_gram *g, gram_place *x, const gram_pair *pairs, size_t n) {
    gram_pool *p = &g->pool;
    gram_pair *to = gram_vec_room(p, &g->pairs, n, sizeof *to);
    uint32_t *steps = gram_vec_room(p, &g->place_to, p->n_classes, sizeof *steps);
    if (!to || !steps) return false;
    if (n) memcpy(to, pairs, n * sizeof *to);
    /* From a place without pairs nothing goes on. */
    memset(steps, n ? 0xFF : 0, p->n_classes * sizeof *steps);
    x->off = (uint32_t)g->pairs.n;
    x->n = (uint32_t)n;
    g->pairs.n += n;
    g->place_to.n += p->n_classes;
    return true;
}

uint32_t gram_place_of(sq_gram *g, gram_pair *pairs, size_t n, bool accept) {
    gram_pool *p = &g->pool;
    if (gram_failed(p) || !gram_index_reserve(p, &g->place_index, place_hash, g)) return 0;
    if (n > 1) qsort(pairs, n, sizeof *pairs, by_pair);
    uint64_t h = gram_mix(13, accept);
    for (size_t i = 0; i < n; i++) h = gram_mix(gram_mix(h, pairs[i].row), pairs[i].lex);
    gram_index *x = &g->place_index;
    size_t at = h & (x->cap - 1);
    for (; x->slots[at]; at = (at + 1) & (x->cap - 1)) {
        const gram_place *y = place(g, x->slots[at] - 1);
        if (y->hash == h && y->n == n && y->accept == accept &&
            (n == 0 || memcmp(&GRAM_AT(g->pairs, gram_pair, y->off), pairs, n * sizeof *pairs) == 0))
            return x->slots[at] - 1;
    }
    gram_place *y = gram_vec_room(p, &g->places, 1, sizeof *y);
    if (!y) return 0;
    *y = (gram_place){.accept = accept, .hash = h};
    if (!fill_place(g, y, pairs, n)) return 0;
    x->slots[at] = (uint32_t)++g->places.n;
    x->n++;
    return (uint32_t)g->places.n - 1;
}

static void push_pair(sq_gram *g, gram_vec *v, uint32_t lex, uint32_t in_row) {
    gram_pair *to = gram_vec_room(&g->pool, v, 1, sizeof *to);
    if (!to) return;
    *to = (gram_pair){lex, in_row};
    v->n++;
}

uint32_t gram_place_step_slow(sq_gram *g, uint32_t from, uint32_t cls) {
    gram_pool *p = &g->pool;
    if (gram_failed(p)) return 0;
    const gram_place x = *place(g, from);
    g->ends.n = g->next_pairs.n = 0;
    for (uint32_t i = 0; i < x.n; i++) {
        const gram_pair pair = GRAM_AT(g->pairs, gram_pair, x.off + i);
        const uint32_t q = gram_lex_step(g, pair.lex, cls);
        if (q == 0) continue;
        const gram_lex_state s = GRAM_AT(g->lex, gram_lex_state, q);
        for (uint32_t k = 0; k < s.n_done; k++)
            push_pair(g, &g->ends, GRAM_AT(g->lex_done, uint32_t, s.done_off + k), pair.row);
        if (s.live) push_pair(g, &g->next_pairs, q, pair.row);
    }
    bool accept = false;
    if (g->ends.n) {
        const uint32_t r = gram_row_after(g, g->ends.p, g->ends.n);
        if (r != GRAM_NONE) {
            const gram_row *to = &GRAM_AT(g->rows, gram_row, r);
            accept = to->accept;
            if (to->lex) push_pair(g, &g->next_pairs, to->lex, r);
        }
    }
    if (g->next_pairs.n > PAIRS_MAX)
        gram_fail(p, SQUISH_NO_MEMORY, "grammar: over the limit of %d ways to read a text", PAIRS_MAX);
    const uint32_t to = gram_place_of(g, g->next_pairs.p, g->next_pairs.n, accept);
    if (!gram_failed(p)) GRAM_AT(g->place_to, uint32_t, (size_t)from * p->n_classes + cls) = to;
    return to;
}
