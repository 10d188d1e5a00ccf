/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_seq.c - the page tables of sequences, and which tiles they read open or sealed.
 *
 *   tile      0 ..     sink ..           open_from ..        n_tiles
 *             open     sealed            open                          what the next query reads
 *
 * open_from follows the length at the next reserve, not before: until then the last step can be undone. */
#include "kv/kv_int.h"
#include "kv/kv_private.h"

#include <assert.h>
#include <string.h>

enum { TILE = SQ_KV_TILE_TOKENS };

static size_t table_bytes(const sq_kv_seq *s) {
    return (size_t)s->tiles_max * (size_t)s->pool->shape.n_layers * sizeof *s->pages;
}

static size_t weight_bytes(const sq_kv_seq *s) {
    const sq_kv_shape *shape = &s->pool->shape;
    return (size_t)shape->n_layers * (size_t)(shape->n_kv_heads * shape->head_dim) * sizeof *s->weight;
}

squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err) {
    *out = NULL;
    const bool seals = p->policy.seals || p->policy.votes, votes = p->policy.votes;
    sq_kv_seq *s = sq_alloc_zero(&p->alloc, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory");
    *s = (sq_kv_seq){.pool = p,
                     .tokens_max = tokens_max,
                     .tiles_max = sq_div_up(tokens_max, TILE),
                     .sealed_to = p->policy.window.sink,
                     .node = -1};
    const squish_status st = sq_kv_snap_new(&s->snap, p, s->tiles_max, err);
    if (st != SQUISH_OK) {
        sq_kv_seq_free(s);
        return st;
    }
    s->pages = sq_alloc_zero(&p->alloc, table_bytes(s));
    s->sealed_pages = seals ? sq_alloc_zero(&p->alloc, table_bytes(s)) : NULL;
    s->columns = sq_alloc_new(&p->alloc, (size_t)s->tiles_max * sizeof *s->columns);
    s->reads = votes ? sq_alloc_zero(&p->alloc, (size_t)s->tiles_max) : NULL;
    const bool judges = p->policy.cocktail.on, mixes = p->policy.mix;
    s->weight = mixes ? sq_alloc_zero(&p->alloc, weight_bytes(s)) : NULL;
    s->mass = judges ? sq_alloc_zero(&p->alloc, (size_t)s->tiles_max * sizeof *s->mass) : NULL;
    s->rungs = votes ? sq_alloc_zero(&p->alloc, (size_t)s->tiles_max) : NULL;
    s->relevance = votes ? sq_alloc_zero(&p->alloc, (size_t)s->tiles_max) : NULL;
    if (!s->pages || (seals && !s->sealed_pages) || !s->columns ||
        (votes && (!s->reads || !s->rungs || !s->relevance)) || (judges && !s->mass) ||
        (mixes && !s->weight)) {
        sq_kv_seq_free(s);
        return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory for the page table of %d tokens",
                       tokens_max);
    }
    *out = s;
    return SQUISH_OK;
}

void sq_kv_seq_free(sq_kv_seq *s) {
    if (!s) return;
    const squish_alloc *a = &s->pool->alloc;
    sq_kv_seq_truncate(s, 0);
    sq_kv_snap_free(s->snap, s->pool);
    sq_alloc_free(a, s->pages, s->pages ? table_bytes(s) : 0);
    sq_alloc_free(a, s->sealed_pages, s->sealed_pages ? table_bytes(s) : 0);
    sq_alloc_free(a, s->columns, s->columns ? (size_t)s->tiles_max * sizeof *s->columns : 0);
    sq_alloc_free(a, s->weight, s->weight ? weight_bytes(s) : 0);
    sq_alloc_free(a, s->mass, s->mass ? (size_t)s->tiles_max * sizeof *s->mass : 0);
    sq_alloc_free(a, s->reads, s->reads ? (size_t)s->tiles_max : 0);
    sq_alloc_free(a, s->rungs, s->rungs ? (size_t)s->tiles_max : 0);
    sq_alloc_free(a, s->relevance, s->relevance ? (size_t)s->tiles_max : 0);
    sq_alloc_free(a, s, sizeof *s);
}

uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer) {
    return s->pages + (size_t)layer * (size_t)s->tiles_max;
}

uint8_t *const *sq_kv_seq_sealed_pages(const sq_kv_seq *s, int32_t layer) {
    return s->sealed_pages ? s->sealed_pages + (size_t)layer * (size_t)s->tiles_max : NULL;
}

int32_t sq_kv_seq_length(const sq_kv_seq *s) { return s->length + s->dropped; }
int32_t sq_kv_seq_slot(const sq_kv_seq *s, int32_t pos) { return pos - s->dropped; }
int32_t sq_kv_seq_column(const sq_kv_seq *s, int32_t tile) { return s->columns[tile]; }
int32_t sq_kv_seq_node(const sq_kv_seq *s) { return s->node; }

/* ---- the table ------------------------------------------------------------------------------- */

bool sq_kv_seq_reads_open(const sq_kv_seq *s, int32_t tile) {
    if (s->departed) return s->reads[tile] == SQ_KV_READ_OPEN;
    return tile < s->pool->policy.window.sink || tile >= s->open_from;
}

void sq_kv_seq_set(sq_kv_seq *s, int32_t tile, int32_t c) {
    const sq_kv_pool *p = s->pool;
    s->columns[tile] = c;
    for (int32_t l = 0; l < p->shape.n_layers; l++) {
        const size_t at = (size_t)l * (size_t)s->tiles_max + (size_t)tile;
        s->pages[at] = c < 0 ? NULL : sq_kv_column_page(p, c, l);
        if (s->sealed_pages) s->sealed_pages[at] = c < 0 ? NULL : sq_kv_column_sealed_page(p, c, l);
    }
}

void sq_kv_seq_put(sq_kv_seq *s, int32_t tile, int32_t column) {
    const int32_t old = s->columns[tile];
    if (sq_kv_seq_reads_open(s, tile)) {
        sq_kv_column_read_open(s->pool, column);
        sq_kv_column_leave_open(s->pool, old);
    }
    sq_kv_seq_set(s, tile, column);
    sq_kv_column_drop(s->pool, old);
}

/* ---- growing --------------------------------------------------------------------------------- */

/* The column that the next position falls into, if it is there; -1. */
static int32_t tail(const sq_kv_seq *s, int32_t n) {
    const int32_t tile = s->length / TILE;
    return n <= s->length || tile >= s->n_tiles ? -1 : tile;
}

static bool is_shared(const sq_kv_seq *s, int32_t tile) {
    return s->pool->columns[s->columns[tile]].holders > 1;
}

/* One past the last tile that has to be sealed when [0, n) is there. */
static int32_t seal_end(const sq_kv_seq *s, int32_t n) {
    const sq_kv_policy *p = &s->pool->policy;
    return p->seals && n > 0 && !s->departed ? sq_kv_sealed_tiles(p->window, n - 1) : p->window.sink;
}

/* Be done with open tiles that no query from the present end on reads. */
static void leave_open(sq_kv_seq *s) {
    if (s->departed) return; /* it says for itself */
    const int32_t needed = seal_end(s, s->length + 1);
    for (; s->open_from < needed && s->open_from < s->sealed_to; s->open_from++)
        if (s->open_from >= s->pool->policy.window.sink)
            sq_kv_column_leave_open(s->pool, s->columns[s->open_from]);
}

uint64_t sq_kv_seq_missing(sq_kv_seq *s, int32_t pos) {
    const sq_kv_pool *p = s->pool;
    const int32_t n = sq_kv_seq_slot(s, pos);
    leave_open(s);
    const int32_t grow = sq_div_up(n, TILE) - s->n_tiles, at = tail(s, n), end = seal_end(s, n);
    uint64_t open = grow > 0 ? (uint64_t)grow : 0, sealed = 0;
    open += at >= 0 && is_shared(s, at);
    for (int32_t t = s->sealed_to; t < end; t++)
        sealed += t >= s->n_tiles || !p->columns[s->columns[t]].has_sealed;
    return open * p->open_bytes + sealed * p->sealed_bytes;
}

static void copy_open(sq_kv_pool *p, int32_t to, int32_t from) {
    memcpy(sq_kv_column_page(p, to, 0), sq_kv_column_page(p, from, 0), p->open_bytes);
}

/* Position length is about to be written: in a column of one's own, and what was sealed of it is old. */
static void own_tail(sq_kv_seq *s, int32_t tile) {
    if (is_shared(s, tile)) {
        const int32_t own = sq_kv_column_take(s->pool, tile);
        copy_open(s->pool, own, s->columns[tile]);
        sq_kv_seq_put(s, tile, own);
    }
    sq_kv_column_unseal(s->pool, s->columns[tile]);
}

squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t pos, squish_error *err) {
    sq_kv_pool *p = s->pool;
    const int32_t n = sq_kv_seq_slot(s, pos);
    if (pos > s->tokens_max)
        return sq_fail(err, SQUISH_INVALID, "%d tokens do not fit the sequence's %d", pos, s->tokens_max);
    if (sq_kv_seq_missing(s, pos) > sq_kv_pool_bytes_free(p))
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache is full: %llu of %llu bytes used",
                       (unsigned long long)sq_kv_pool_bytes_used(p),
                       (unsigned long long)sq_kv_pool_bytes_max(p));
    const int32_t at = tail(s, n), end = seal_end(s, n);
    if (at >= 0) own_tail(s, at);
    for (const int32_t want = sq_div_up(n, TILE); s->n_tiles < want; s->n_tiles++) {
        sq_kv_seq_set(s, s->n_tiles, sq_kv_column_take(p, s->n_tiles));
        if (s->departed)
            s->reads[s->n_tiles] = SQ_KV_READ_OPEN, s->rungs[s->n_tiles] = SQ_RUNG_F16,
            s->relevance[s->n_tiles] = SQ_KV_UNJUDGED;
        sq_kv_column_read_open(p, s->columns[s->n_tiles]);
    }
    for (int32_t t = s->sealed_to; t < end; t++) sq_kv_column_reserve_sealed(p, s->columns[t], t);
    if (n > s->length) s->length = n;
    return SQUISH_OK;
}

int32_t sq_kv_seq_seal_next(sq_kv_seq *s, int32_t pos) {
    const int32_t end = seal_end(s, sq_kv_seq_slot(s, pos) + 1);
    while (s->sealed_to < end) {
        const int32_t t = s->sealed_to++;
        sq_kv_column *c = &s->pool->columns[s->columns[t]];
        assert(c->has_sealed && (c->is_sealed || c->is_open));
        if (c->is_sealed) continue;
        c->is_sealed = true;
        return t;
    }
    return -1;
}

void sq_kv_seq_append(sq_kv_seq *s, int32_t column) {
    const int32_t t = s->n_tiles++;
    s->open_from = s->n_tiles;
    s->length = s->n_tiles * TILE;
    sq_kv_seq_set(s, t, column);
    if (t < s->pool->policy.window.sink) sq_kv_column_read_open(s->pool, column);
}

/* ---- shrinking ------------------------------------------------------------------------------- */

/* A sequence that departed is cut: empty, it begins anew. */
static void stay_departed(sq_kv_seq *s) {
    for (int i = 0; i < SQ_KV_CURSORS; i++)
        if (s->cursor[i] > s->n_tiles) s->cursor[i] = s->n_tiles;
    if (s->n_judged > s->n_tiles) s->n_judged = s->n_tiles;
    s->event_at = 0;
    s->departed = s->length > 0;
    if (s->departed) return;
    s->dropped = s->cut_from = 0;
    s->open_from = 0;
    s->sealed_to = s->pool->policy.window.sink;
}

/* Of a sequence that has departed: are all tiles from position n on open? */
static bool open_behind(const sq_kv_seq *s, int32_t n) {
    for (int32_t t = n / TILE; t < s->n_tiles; t++)
        if (!sq_kv_seq_reads_open(s, t)) return false;
    return true;
}

int32_t sq_kv_seq_truncate(sq_kv_seq *s, int32_t pos) {
    int32_t n = sq_kv_seq_slot(s, pos);
    if (n < s->cut_from) n = 0;
    if (n >= s->length) return sq_kv_seq_length(s);
    const int32_t sink = s->pool->policy.window.sink;
    if (s->departed && !open_behind(s, n)) n = 0;
    if (!s->departed && s->open_from > sink && s->open_from > seal_end(s, n + 1)) n = 0;
    for (; s->n_in_tree * TILE > n; s->n_in_tree--) s->node = sq_kv_tree_parent(s->pool->tree, s->node);
    for (const int32_t keep = sq_div_up(n, TILE); s->n_tiles > keep;) {
        const int32_t t = --s->n_tiles, c = s->columns[t];
        if (sq_kv_seq_reads_open(s, t)) sq_kv_column_leave_open(s->pool, c);
        sq_kv_seq_set(s, t, -1);
        sq_kv_column_drop(s->pool, c);
    }
    if (s->open_from > s->n_tiles) s->open_from = s->n_tiles;
    if (s->sealed_to > n / TILE) s->sealed_to = n / TILE > sink ? n / TILE : sink;
    s->length = n;
    if (n == 0 && s->weight) memset(s->weight, 0, weight_bytes(s));
    if (n == 0) sq_kv_snap_forget(s->snap);
    if (s->departed) stay_departed(s);
    return sq_kv_seq_length(s);
}

squish_status sq_kv_seq_copy(sq_kv_seq *s, int32_t column, int32_t rows, squish_error *err) {
    assert(s->length == s->n_tiles * TILE);
    const int32_t base = s->length;
    SQ_TRY(sq_kv_seq_reserve(s, base + rows, err));
    copy_open(s->pool, s->columns[base / TILE], column);
    return SQUISH_OK;
}
