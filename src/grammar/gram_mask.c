/* SPDX-License-Identifier: Apache-2.0
 *
 * gram_mask.c - the mask of a place: a walk of the trie that leaves a branch at the first byte the language
 * does not know, made once per place and kept.
 *
 * Inside a string the walk would visit nearly every node only to say yes. There all plain characters lead to
 * one and the same place, which is checked on the product with the automaton of well-formed UTF-8; then the
 * slice of plain tokens is taken as a whole, or those of as many characters as are left. Where only some lead
 * elsewhere (a key that must not be one of the declared ones), it is taken, too, and what does not go on is
 * taken away. */
#include "grammar/gram_int.h"

#include <sched.h>
#include <string.h>

enum { FEW = 1500, LOOP_LETTERS = 40, WALK_TURN = 2048 };

/* Do all bytes lo..hi lead from a place to *to (0: to be set by the first)? Then at `levels` - 1 further
 * bytes, 80..BF each. */
static bool all_lead(sq_gram *g, uint32_t from, unsigned lo, unsigned hi, int levels, uint32_t *to) {
    uint64_t seen[4] = {0};
    for (unsigned b = lo; b <= hi; b++) {
        const unsigned c = g->pool.class_of[b];
        if (b == '"' || b == '\\' || seen[c / 64] >> c % 64 & 1) continue;
        seen[c / 64] |= 1ull << c % 64;
        const uint32_t next = gram_place_step(g, from, c);
        if (next == 0) return false;
        if (levels > 1) {
            if (!all_lead(g, next, 0x80, 0xBF, levels - 1, to)) return false;
        } else if (*to == 0) {
            *to = next;
        } else if (*to != next) {
            return false;
        }
    }
    return true;
}

/* First byte, then a bounded second one, then levels - 2 others. */
static bool all_lead_2(sq_gram *g, uint32_t from, unsigned first, unsigned lo, unsigned hi, int levels,
                       uint32_t *to) {
    const uint32_t next = gram_place_step(g, from, g->pool.class_of[first]);
    return next != 0 && all_lead(g, next, lo, hi, levels - 1, to);
}

/* Do all characters of more than one byte lead to *to (Unicode 15, table 3-7)? */
static bool wide_lead(sq_gram *g, uint32_t from, uint32_t *to) {
    return all_lead(g, from, 0xC2, 0xDF, 2, to) && all_lead_2(g, from, 0xE0, 0xA0, 0xBF, 3, to) &&
           all_lead(g, from, 0xE1, 0xEC, 3, to) && all_lead_2(g, from, 0xED, 0x80, 0x9F, 3, to) &&
           all_lead(g, from, 0xEE, 0xEF, 3, to) && all_lead_2(g, from, 0xF0, 0x90, 0xBF, 4, to) &&
           all_lead(g, from, 0xF1, 0xF3, 4, to) && all_lead_2(g, from, 0xF4, 0x80, 0x8F, 4, to);
}

/* Where every plain character leads; 0 if not all lead there. */
static uint32_t plain_successor(sq_gram *g, uint32_t from) {
    uint32_t to = 0;
    /* A class may reach beyond the plain bytes, so a byte of another meaning is never asked for. */
    return all_lead(g, from, 0x20, 0x7F, 1, &to) && wide_lead(g, from, &to) ? to : 0;
}

/* A place to which most plain characters lead, and from which all lead back to it: such as the inside of a
 * key whose first letter no declared key has. 0: there is none. */
static uint32_t plain_loop(sq_gram *g, uint32_t from) {
    uint32_t to[0x80] = {0}, best = 0;
    int n_best = 0;
    for (unsigned b = 0x20; b < 0x7F; b++)
        if (b != '"' && b != '\\') to[b] = gram_place_step(g, from, g->pool.class_of[b]);
    for (unsigned b = 0x20; b < 0x7F && n_best < LOOP_LETTERS; b++) {
        int n = 0;
        for (unsigned k = b; k < 0x7F && to[b]; k++) n += to[k] == to[b];
        if (n > n_best) best = to[b], n_best = n;
    }
    return n_best >= LOOP_LETTERS && plain_successor(g, best) == best ? best : 0;
}

/* Is one of the terminals at a place open for any characters (a pattern that may match further on)? */
static bool is_open(sq_gram *g, uint32_t place) {
    const gram_place x = GRAM_AT(g->places, gram_place, place);
    for (uint32_t i = 0; i < x.n; i++) {
        const uint32_t lex = GRAM_AT(g->pairs, gram_pair, x.off + i).lex;
        const gram_lex_state s = GRAM_AT(g->lex, gram_lex_state, lex);
        for (uint32_t k = 0; k < s.n; k++)
            if (gram_is_open(&g->pool, GRAM_AT(g->lex_items, gram_lex_item, s.off + k).left)) return true;
    }
    return false;
}

static bool any_plain_leads(sq_gram *g, uint32_t from) {
    for (unsigned b = 0x20; b <= 0xF4; b++) {
        const bool begins = b != '"' && b != '\\' && (b < 0x80 || b >= 0xC2);
        if (begins && gram_place_step(g, from, g->pool.class_of[b])) return true;
    }
    return false;
}

/* Tokens that may be taken whole, and the trie of those that have to be walked. */
typedef struct {
    const uint64_t *in; /* NULL: none */
    const gram_nodes *rest;
} slice;

static slice slice_for(sq_gram *g, const sq_gram_trie *t, uint32_t place) {
    const slice all = {t->plain[0], &t->not_plain}, none = {NULL, &t->all};
    if (is_open(g, place)) return all;
    for (uint32_t chars = 0; chars < GRAM_SLICE_CHARS; chars++) {
        const uint32_t next = plain_successor(g, place);
        if (next == place) return all;
        if (next == 0)
            return chars && !any_plain_leads(g, place) ? (slice){t->plain[chars], &t->not_plain} : none;
        place = next;
    }
    return (slice){t->plain[GRAM_SLICE_CHARS], &t->not_short};
}

/* The token of a node, and others of the same bytes, which are rare. */
static inline void put(const sq_gram_trie *t, uint32_t token, bool on, uint64_t *bits) {
    if (token == GRAM_NONE) return;
    const uint32_t more = token & GRAM_MORE;
    for (uint32_t id = token & ~GRAM_MORE; id != GRAM_NONE; id = more ? t->same[id] : GRAM_NONE) {
        const uint64_t bit = 1ull << id % 64;
        bits[id / 64] = on ? bits[id / 64] | bit : bits[id / 64] & ~bit;
    }
}

static void let_in(sq_gram *g) {
    pthread_mutex_unlock(&g->lock);
    sched_yield();
    gram_lock(g);
}

/* path [depth_max + 1]: places along a branch. Lets others have the grammar from time to time, who may add to
 * it but change nothing that is there. */
static void walk(sq_gram *g, const sq_gram_trie *t, const gram_nodes *in, uint32_t place, uint32_t *path,
                 uint64_t *bits) {
    const gram_trie_node *x = in->nodes, *end = x + in->n;
    const size_t classes = g->pool.n_classes;
    const uint32_t *place_to = g->place_to.p;
    path[0] = place;
    for (uint32_t turns = 1; x < end; turns++) {
        const uint32_t from = path[x->depth - 1], cls = g->pool.class_of[x->byte];
        uint32_t to = place_to[from * classes + cls];
        if (to == GRAM_UNKNOWN || turns % WALK_TURN == 0) {
            if (g->waiting) let_in(g);
            to = gram_place_step(g, from, cls);
            place_to = g->place_to.p; /* others may have moved it, too */
        }
        if (to == 0) {
            x = in->nodes + x->end;
            continue;
        }
        path[x->depth] = to;
        put(t, x->token, true, bits);
        x++;
    }
}

/* The bits of all plain tokens are set: clear those that do not go on. A branch behind `back` stays as it is.
 */
static void take_away(sq_gram *g, const sq_gram_trie *t, uint32_t place, uint32_t back, uint32_t *path,
                      uint64_t *bits) {
    const gram_nodes *in = &t->all;
    uint32_t wide = back;
    const bool skip_wide = wide_lead(g, place, &wide);
    path[0] = place;
    for (uint32_t i = 0; i < in->n;) {
        const gram_trie_node x = in->nodes[i];
        if (x.depth == 1 && x.byte >= 0x80 && skip_wide) {
            i = x.end;
            continue;
        }
        const uint32_t to = gram_place_step(g, path[x.depth - 1], g->pool.class_of[x.byte]);
        path[x.depth] = to;
        if (to != 0 && to != back) {
            i++;
            continue;
        }
        for (; i < x.end && to == 0; i++) put(t, in->nodes[i].token, false, bits);
        i = x.end;
    }
}

/* By hand: without an instruction for it the compilers call a function for each word. */
static uint32_t count(const uint64_t *bits, size_t words) {
    uint64_t n = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t x = bits[i];
        x -= x >> 1 & 0x5555555555555555u;
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        n += ((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u >> 56;
    }
    return (uint32_t)n;
}

/* Keep the set in its smallest form. */
static bool keep(sq_gram *g, const sq_gram_trie *t, const uint64_t *bits, gram_mask *m) {
    m->trie = t->id;
    m->n_allowed = count(bits, t->words);
    const uint32_t refused = (uint32_t)t->n_vocab - m->n_allowed;
    m->kind = m->n_allowed <= FEW ? MASK_LISTED : refused <= FEW ? MASK_EXCEPT : MASK_BITS;
    m->n_ids = m->kind == MASK_LISTED ? m->n_allowed : m->kind == MASK_EXCEPT ? refused : 0;
    m->bytes = m->kind == MASK_BITS ? t->words * sizeof *bits : (m->n_ids ? m->n_ids : 1) * sizeof(uint32_t);
    m->data = sq_alloc_new(&g->alloc, m->bytes);
    if (!m->data) {
        gram_fail(&g->pool, SQUISH_NO_MEMORY, "grammar: out of memory for a mask");
        return false;
    }
    if (m->kind == MASK_BITS) {
        memcpy(m->data, bits, m->bytes);
        return true;
    }
    uint32_t *ids = m->data, n = 0;
    const uint64_t flip = m->kind == MASK_EXCEPT ? ~0ull : 0;
    for (size_t w = 0; w < t->words; w++)
        for (uint64_t x = bits[w] ^ flip; x && n < m->n_ids; x &= x - 1)
            ids[n++] = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(x);
    return true;
}

static void forget_masks(sq_gram *g) {
    for (size_t i = 0; i < g->masks.n; i++) {
        gram_mask *m = &GRAM_AT(g->masks, gram_mask, i);
        sq_alloc_free(&g->alloc, m->data, m->bytes);
    }
    for (size_t i = 0; i < g->places.n; i++) GRAM_AT(g->places, gram_place, i).mask = 0;
    g->masks.n = 0;
    g->mask_bytes = 0;
}

static void find(sq_gram *g, const sq_gram_trie *t, uint32_t place, uint32_t *path, uint64_t *bits) {
    slice s = slice_for(g, t, place);
    const uint32_t back = s.in ? 0 : plain_loop(g, place);
    if (back) s = (slice){t->plain[0], &t->not_plain};
    if (s.in) memcpy(bits, s.in, t->words * sizeof *bits);
    if (back) take_away(g, t, place, back, path, bits);
    walk(g, t, s.rest, place, path, bits);
    if (GRAM_AT(g->places, gram_place, place).accept)
        for (size_t w = 0; w < t->words; w++) bits[w] |= t->ends[w];
}

static bool make(sq_gram *g, const sq_gram_trie *t, uint32_t place, gram_mask *m) {
    const size_t n_bits = t->words * sizeof(uint64_t), n_path = ((size_t)t->depth_max + 1) * sizeof(uint32_t);
    uint64_t *bits = sq_alloc_zero(&g->alloc, n_bits);
    uint32_t *path = sq_alloc_new(&g->alloc, n_path);
    bool ok = bits && path;
    if (ok) {
        find(g, t, place, path, bits);
        ok = !gram_failed(&g->pool) && keep(g, t, bits, m);
    } else {
        gram_fail(&g->pool, SQUISH_NO_MEMORY, "grammar: out of memory for a mask");
    }
    sq_alloc_free(&g->alloc, bits, bits ? n_bits : 0);
    sq_alloc_free(&g->alloc, path, path ? n_path : 0);
    return ok;
}

const gram_mask *gram_mask_of(sq_gram *g, const sq_gram_trie *t, uint32_t place) {
    const uint32_t at = GRAM_AT(g->places, gram_place, place).mask;
    if (at && GRAM_AT(g->masks, gram_mask, at - 1).trie == t->id)
        return &GRAM_AT(g->masks, gram_mask, at - 1);
    gram_mask m = {0};
    if (gram_failed(&g->pool) || !make(g, t, place, &m)) return NULL;
    if (g->mask_bytes + m.bytes > SQ_GRAM_MASK_BYTES_MAX) forget_masks(g);
    const uint32_t again = GRAM_AT(g->places, gram_place, place).mask; /* of another vocabulary */
    gram_mask *to =
        again ? &GRAM_AT(g->masks, gram_mask, again - 1) : gram_vec_room(&g->pool, &g->masks, 1, sizeof *to);
    if (!to) {
        sq_alloc_free(&g->alloc, m.data, m.bytes);
        return NULL;
    }
    if (again) {
        g->mask_bytes -= to->bytes;
        sq_alloc_free(&g->alloc, to->data, to->bytes);
    } else {
        GRAM_AT(g->places, gram_place, place).mask = (uint32_t)++g->masks.n;
    }
    g->mask_bytes += m.bytes;
    *to = m;
    return to;
}
