/* SPDX-License-Identifier: Apache-2.0
 *
 * kv.h - the paged store of keys and values. One store for every sequence and every format.
 *
 * Unit of everything is the *tile*: 32 consecutive tokens of one KV head in one layer. A *page* holds one
 * layer's tile of 32 token slots for all KV heads; a *column* is the n_layers pages of the same 32 tokens.
 *
 *   page:  | header 64 B | head 0: K tile | V tile | head 1: K tile | V tile | ...      parts 64-byte aligned
 *
 * A column has up to two *forms*, each in its own range of address space: open while it is written and read
 * as it was computed, and sealed, in fewer bits (tile formats: quant_kv.h). Which form a query reads depends
 * on its position alone (sq_kv_sealed_tiles), so text does not depend on how it was computed. The open form
 * of a tile goes when nobody reads it any more; prefixes keep theirs while there is room, for sequences that
 * will begin there.
 *
 * Memory is touched only as tokens arrive, and a column given back waits in a free list. Slots beyond a
 * sequence's length hold finite numbers (zeros or old values), never NaN: attention multiplies them by zero.
 *
 * Sharing: the unit is the column. Columns count their holders (tables of sequences, and the prefix tree);
 * one with several is read-only, and a sequence that goes on writing in it gets a copy first. To seal a
 * shared column is no writing: the sealed form is a function of the open one.
 *
 * Threads: one owner thread calls these functions; kernels read and write pages of running steps meanwhile.
 * sq_kv_pool_bytes_used may be asked from anywhere.
 */
#ifndef SQ_KV_H
#define SQ_KV_H

#include "kv/kv_policy.h"

enum { SQ_KV_TILE_TOKENS = SQ_KV_TILE, SQ_KV_PAGE_MAGIC = 0x3150564B /* "KVP1" */ };

typedef struct {
    int32_t n_layers, n_kv_heads, head_dim; /* head_dim is padded to 16 inside */
    bool latent; /* one tile per page, token-major [32][head_dim], keys and values in one (kernels.h, R9) */
} sq_kv_shape;

/* ---- what a policy takes (kv_policy.c; what it is: kv_policy.h) -------------------------------- */

/* Where things lie in a page. */
typedef struct {
    size_t page_bytes, k_off, v_off, head_stride;
} sq_kv_geometry;
sq_kv_geometry sq_kv_geometry_of(const sq_kv_shape *s, sq_kv_format f); /* of an open page */
sq_kv_geometry sq_kv_geometry_sealed(const sq_kv_shape *s, const sq_kv_policy *p, int32_t layer);
/* Of a private page on a rung Q2 to Q8. */
sq_kv_geometry sq_kv_geometry_private(const sq_kv_shape *s, const sq_kv_policy *p, sq_rung r, int32_t layer);
/* The line before the tiles of a page whose keys and values have one format. */
static inline sq_kv_page_header sq_kv_header_of(const sq_kv_shape *s, sq_kv_format f, int32_t layer,
                                                int32_t tile) {
    return (sq_kv_page_header){.magic = SQ_KV_PAGE_MAGIC,
                               .k_fmt = (uint8_t)f,
                               .v_fmt = (uint8_t)f,
                               .n_kv_heads = (uint8_t)s->n_kv_heads,
                               .d = (uint16_t)s->head_dim,
                               .layer = (uint16_t)layer,
                               .pos0 = (uint32_t)tile * SQ_KV_TILE_TOKENS};
}
/* Bytes of a column in either form; sealed: 0 where nothing is sealed, private: 0 without votes. */
size_t sq_kv_private_bytes(const sq_kv_shape *s, const sq_kv_policy *p, sq_rung r);
size_t sq_kv_open_bytes(const sq_kv_shape *s, const sq_kv_policy *p);
size_t sq_kv_sealed_bytes(const sq_kv_shape *s, const sq_kv_policy *p);
/* Tiles between the sink and the window that judges that SnapKV keeps; 0: it is off. */
static inline int32_t sq_kv_snap_tiles(const sq_kv_policy *p) {
    return p->snap.tiles ? p->snap.tiles - p->window.sink - p->snap.window : 0;
}
/* The most bytes a sequence of n tokens takes at any time. */
uint64_t sq_kv_bytes(const sq_kv_shape *s, const sq_kv_policy *p, int32_t n_tokens);

/* ---- pool (kv_pool.c) ------------------------------------------------------------------------ */

typedef struct sq_kv_pool sq_kv_pool;
typedef struct sq_kv_seq sq_kv_seq;

/* bytes_max: ceiling on page memory; address space is reserved at once. NO_MEMORY. */
squish_status sq_kv_pool_new(sq_kv_pool **out, const sq_kv_shape *shape, const sq_kv_policy *policy,
                             uint64_t bytes_max, const squish_alloc *a, squish_error *err);
void sq_kv_pool_free(sq_kv_pool *p); /* sequences first */
uint64_t sq_kv_pool_bytes_used(const sq_kv_pool *p);
uint64_t sq_kv_pool_bytes_max(const sq_kv_pool *p);
uint64_t sq_kv_pool_bytes_free(const sq_kv_pool *p);
/* Bytes that make_room could free: what only prefixes hold, and open forms kept for them. */
uint64_t sq_kv_pool_bytes_evictable(const sq_kv_pool *p);
const sq_kv_geometry *sq_kv_pool_geometry(const sq_kv_pool *p);
const sq_kv_policy *sq_kv_pool_policy(const sq_kv_pool *p);
void sq_kv_pool_shape(const sq_kv_pool *p, sq_kv_shape *out);
const squish_alloc *sq_kv_pool_alloc(const sq_kv_pool *p);

/* Columns there can be, and new ones, open, that there is room for. */
int32_t sq_kv_pool_columns(const sq_kv_pool *p);
int32_t sq_kv_pool_columns_free(const sq_kv_pool *p);
/* Bytes that a sequence of n tokens needs beside the first `tiles` tiles, which it shares, and one open
 * column for each of `others`. */
uint64_t sq_kv_pool_needs(const sq_kv_pool *p, int32_t n, int32_t tiles, int32_t others);
/* Bytes that are to stay free under a budget, so that a tile can be copied into fewer bits: into 8, or at
 * least into as few as it may have. Without a budget 0. */
uint64_t sq_kv_pool_slack(const sq_kv_pool *p, bool least);
/* See to it that so many bytes are free: open forms kept for prefixes go first, then prefixes. False: it
 * could not be done. */
bool sq_kv_pool_make_room(sq_kv_pool *p, uint64_t bytes);

/* A new column, open, for tokens [32 tile, 32 tile + 32), headers written, held once; -1: the pool is full.
 */
int32_t sq_kv_column_take(sq_kv_pool *p, int32_t tile);
/* One holder more, one less; the last one gives it back. */
void sq_kv_column_hold(sq_kv_pool *p, int32_t column);
void sq_kv_column_drop(sq_kv_pool *p, int32_t column);
int32_t sq_kv_column_holders(const sq_kv_pool *p, int32_t column);
uint8_t *sq_kv_column_page(const sq_kv_pool *p, int32_t column, int32_t layer); /* open */
uint8_t *sq_kv_column_sealed_page(const sq_kv_pool *p, int32_t column, int32_t layer);
bool sq_kv_column_is_open(const sq_kv_pool *p, int32_t column);
bool sq_kv_column_is_sealed(const sq_kv_pool *p, int32_t column);
/* A column in the forms wished, whose memory must be there; the caller writes the pages, all but their
 * headers.
 */
enum { SQ_KV_FORM_OPEN = 1, SQ_KV_FORM_SEALED = 2 };
int32_t sq_kv_column_new(sq_kv_pool *p, int32_t tile, uint32_t forms);

/* ---- sequences (kv_seq.c) -------------------------------------------------------------------- */

/* All of these functions speak of positions. Where tokens were dropped from within (kv_snap.h) those behind
 * stand in lower *slots* of the table than their positions say; sq_kv_seq_slot tells. */

/* An empty sequence of at most tokens_max tokens. Its page table is allocated here, so that growing never
 * allocates from the heap. */
squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err);
void sq_kv_seq_free(sq_kv_seq *s);
/* Make sure pages exist for positions [0, n). The length is then at least n, and whoever reserved may write
 * the positions behind the length before: if these begin inside a shared column, it is copied. NO_MEMORY: the
 * pool is full; the sequence is unchanged. INVALID: n > tokens_max. */
squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t n, squish_error *err);
/* Bytes a reserve of n would take from the pool. It is the beginning of a reserve: open tiles that only
 * queries before the length read are let go of. */
uint64_t sq_kv_seq_missing(sq_kv_seq *s, int32_t n);
/* Forget positions from n on; columns that hold none of the rest are dropped. Returns the new length: n, or 0
 * where the open tiles that a query at n reads are gone. That is never so for an n that was the length before
 * the last reserve, or lies in the same cell of 128. */
int32_t sq_kv_seq_truncate(sq_kv_seq *s, int32_t n);
/* Append a column that is held for the table: it holds the next tile, all computed. It is read in no form,
 * but for the sink, which must be open: such a sequence carries columns to the tree. */
void sq_kv_seq_append(sq_kv_seq *s, int32_t column);
/* pages[t] of a layer; valid until the sequence is freed, entries up to what was reserved. Open pages stay
 * where they are after their memory was given back; sealed: NULL where nothing is sealed. */
uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer);
uint8_t *const *sq_kv_seq_sealed_pages(const sq_kv_seq *s, int32_t layer);
/* Tiles that have to be sealed before a query at position p, which was reserved for, attends: the first one
 * counts as sealed now, and is returned; -1: no more. At most SQ_KV_SEAL_MAX, and one for each whole tile
 * between the length before the reserve and p. */
enum { SQ_KV_SEAL_MAX = 16 };
int32_t sq_kv_seq_seal_next(sq_kv_seq *s, int32_t p);
int32_t sq_kv_seq_length(const sq_kv_seq *s); /* positions reserved and not forgotten */
int32_t sq_kv_seq_slot(const sq_kv_seq *s, int32_t pos); /* of a position behind what was dropped */
int32_t sq_kv_seq_column(const sq_kv_seq *s, int32_t tile);

/* A side branch (kv_fork.c): an empty sequence becomes [0, pos) of another, and room for [pos, n). `from` has
 * reserved for a step that was not run yet, and has written [0, written), written <= pos. Tiles before that
 * of pos are shared; positions [pos - sq_kv_fork_lead(written, pos), pos) are the step's to write here
 * too. Nothing is evicted for it. False: there is no room, and `to` is empty still. Not where tiles are voted
 * on. */
bool sq_kv_seq_fork(sq_kv_seq *to, const sq_kv_seq *from, int32_t written, int32_t pos, int32_t n);
int32_t sq_kv_fork_lead(int32_t written, int32_t pos);
/* Each becomes the other; of one pool, and made for as many tokens. */
void sq_kv_seq_swap(sq_kv_seq *a, sq_kv_seq *b);

/* ---- prefix tree (kv_tree.c) ----------------------------------------------------------------- */

/* What has been computed, by the tokens it was computed from: one node per full tile, its parent the tile
 * before. A node holds its column. Nodes that nobody else uses are *idle* and may go, leaves first. Prompts
 * of different salts share nothing. */
typedef struct sq_kv_tree sq_kv_tree;

/* One tree per pool; all memory is taken here. Freed before the pool, after the sequences. NO_MEMORY. */
squish_status sq_kv_tree_new(sq_kv_tree **out, sq_kv_pool *p, squish_error *err);
void sq_kv_tree_free(sq_kv_tree *t);

typedef struct {
    int32_t tokens; /* found in all */
    int32_t tiles;  /* whole tiles among them; the rest is copied */
    int32_t idle;   /* of these tiles, those nobody uses now */
    int32_t node;   /* of the last whole tile; -1: none */
    int32_t part;   /* node whose first tokens - 32 tiles tokens are the rest; -1: none */
    int32_t open_from;   /* tiles from here on, and the sink, are open */
    uint64_t idle_bytes; /* that would no longer be evictable */
} sq_kv_match;
/* The longest beginning of ids[0..n) that is there with all that its continuation reads. Changes nothing. */
sq_kv_match sq_kv_tree_match(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n);
/* The same, whether or not one can go on there: nothing but the sink is taken to be open. */
sq_kv_match sq_kv_tree_path(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n);
/* Give an empty sequence what was found; returns its length, less than m->tokens if the pool had no column
 * left to copy the rest into. Nothing may have changed since the match. */
int32_t sq_kv_tree_acquire(sq_kv_tree *t, const sq_kv_match *m, sq_kv_seq *s);
/* Add the full tiles of ids[0..n), which s holds and has computed. Where an equal node is there already the
 * sequence takes its column and drops its own. Tiles added before are not looked at again. */
void sq_kv_tree_insert(sq_kv_tree *t, uint64_t salt, sq_kv_seq *s, const int32_t *ids, int32_t n);
/* Remove up to n idle nodes, the longest unused first, those used once before those used again; returns how
 * many went. O(1) each. */
int32_t sq_kv_tree_evict(sq_kv_tree *t, int32_t n);
int32_t sq_kv_tree_nodes(const sq_kv_tree *t);
int32_t sq_kv_tree_idle(const sq_kv_tree *t);

/* What there is to know about a node, for whoever writes it down. */
typedef struct {
    const int32_t *ids; /* [32] */
    int32_t parent;     /* -1: first tile */
    int32_t tile, column;
    uint64_t salt;
    uint32_t uses;      /* times it was found after it was made */
} sq_kv_node_info;
void sq_kv_tree_node(const sq_kv_tree *t, int32_t node, sq_kv_node_info *out);
int32_t sq_kv_seq_node(const sq_kv_seq *s); /* of the last tile that was added or found; -1 */
/* Called with a leaf that is about to go, while everything is still there. */
typedef void (*sq_kv_evict_fn)(void *user, int32_t node);
void sq_kv_tree_on_evict(sq_kv_tree *t, sq_kv_evict_fn fn, void *user);
/* A mark for the caller's use on a node, false when the node is made. */
bool sq_kv_tree_marked(const sq_kv_tree *t, int32_t node);
void sq_kv_tree_mark(sq_kv_tree *t, int32_t node);
/* Whether a tile is what a model computed: it came from codes, or was computed behind such a tile. What is
 * added behind a lossy tile is BEHIND by itself. */
enum { SQ_KV_LOSSY_BEHIND = 1, SQ_KV_LOSSY_CODED = 2 };
int32_t sq_kv_tree_lossy(const sq_kv_tree *t, int32_t node);
void sq_kv_tree_set_coded(sq_kv_tree *t, int32_t node);
/* Idle leaves in order of eviction: the first for -1, the one after an idle leaf, -1 behind the last. */
int32_t sq_kv_tree_idle_leaf(const sq_kv_tree *t, int32_t after);

#endif
