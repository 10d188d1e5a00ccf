/* SPDX-License-Identifier: Apache-2.0
 *
 * kv.h - the paged store of keys and values. One store for every sequence and every format.
 *
 * Unit of everything is the *tile*: 32 consecutive tokens of one KV head in one layer. A *page* holds one
 * layer's tile of 32 token slots for all KV heads; a *column* is the n_layers pages of the same 32 tokens.
 *
 *   page:  | header 64 B | head 0: K tile | V tile | head 1: K tile | V tile | ...      parts 64-byte aligned
 *
 *   F16 tile of a head of d channels, 2 * 64 * d bytes:
 *       K channel-major [d][32]     lanes of a score vector are tokens
 *       V token-major   [32][d]     lanes of an output row are channels
 *   F32 tile: the same order, 4-byte elements.
 *
 * Columns come from one reserved range of address space; memory is touched only as tokens arrive, and a
 * column given back waits in a free list. Slots beyond a sequence's length hold finite numbers (zeros or old
 * values), never NaN: attention multiplies them by zero.
 *
 * Sharing: the unit is the column. Columns count their holders (tables of sequences, and the prefix tree);
 * one with several is read-only, and a sequence that goes on writing in it gets a copy first.
 *
 * Threads: one owner thread calls these functions; kernels read and write pages of running steps meanwhile.
 * sq_kv_pool_bytes_used may be asked from anywhere.
 */
#ifndef SQ_KV_H
#define SQ_KV_H

#include "quant/quant.h"

enum { SQ_KV_TILE_TOKENS = 32, SQ_KV_PAGE_MAGIC = 0x3150564B /* "KVP1" */ };

/* F32 is for verification: the cache then adds no error of its own. */
typedef enum { SQ_KV_F16, SQ_KV_F32 } sq_kv_format;

typedef struct {
    uint32_t magic;
    uint8_t k_fmt, v_fmt, n_kv_heads, flags;
    uint16_t d, layer;
    uint32_t pos0;        /* true position of slot 0 */
    uint8_t reserved[48];
} sq_kv_page_header;
_Static_assert(sizeof(sq_kv_page_header) == 64, "page header is one line");

typedef struct {
    int32_t n_layers, n_kv_heads, head_dim; /* head_dim is padded to 16 inside */
} sq_kv_shape;

/* Where things lie in a page of this shape. */
typedef struct {
    size_t page_bytes, k_off, v_off, head_stride;
} sq_kv_geometry;
sq_kv_geometry sq_kv_geometry_of(const sq_kv_shape *s, sq_kv_format f);
/* Bytes a sequence of n tokens takes. */
uint64_t sq_kv_bytes(const sq_kv_shape *s, sq_kv_format f, int32_t n_tokens);

typedef struct sq_kv_pool sq_kv_pool;
typedef struct sq_kv_seq sq_kv_seq;

/* bytes_max: ceiling on page memory, reserved at once as address space. NO_MEMORY. */
squish_status sq_kv_pool_new(sq_kv_pool **out, const sq_kv_shape *shape, sq_kv_format f, uint64_t bytes_max,
                             const squish_alloc *a, squish_error *err);
void sq_kv_pool_free(sq_kv_pool *p); /* sequences first */
uint64_t sq_kv_pool_bytes_used(const sq_kv_pool *p);
uint64_t sq_kv_pool_bytes_max(const sq_kv_pool *p);
const sq_kv_geometry *sq_kv_pool_geometry(const sq_kv_pool *p);
sq_kv_format sq_kv_pool_format(const sq_kv_pool *p);
void sq_kv_pool_shape(const sq_kv_pool *p, sq_kv_shape *out);
const squish_alloc *sq_kv_pool_alloc(const sq_kv_pool *p);

int32_t sq_kv_pool_columns(const sq_kv_pool *p);
int32_t sq_kv_pool_columns_free(const sq_kv_pool *p);

/* A new column for tokens [32 tile, 32 tile + 32), headers written, held once; -1: the pool is full. */
int32_t sq_kv_column_take(sq_kv_pool *p, int32_t tile);
/* One holder more, one less; the last one gives it back. */
void sq_kv_column_hold(sq_kv_pool *p, int32_t column);
void sq_kv_column_drop(sq_kv_pool *p, int32_t column);
int32_t sq_kv_column_holders(const sq_kv_pool *p, int32_t column);
uint8_t *sq_kv_column_page(const sq_kv_pool *p, int32_t column, int32_t layer);

/* An empty sequence of at most tokens_max tokens. Its page table is allocated here, so that growing never
 * allocates from the heap. */
squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err);
void sq_kv_seq_free(sq_kv_seq *s);
/* Make sure pages exist for positions [0, n). The length is then at least n, and whoever reserved may write
 * the positions behind the length before: if these begin inside a shared column, it is copied. NO_MEMORY: the
 * pool is full; the sequence is unchanged. INVALID: n > tokens_max. */
squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t n, squish_error *err);
/* Columns a reserve of n would take from the pool. */
int32_t sq_kv_seq_missing(const sq_kv_seq *s, int32_t n);
/* Forget positions from n on; columns that hold none of the rest are dropped. */
void sq_kv_seq_truncate(sq_kv_seq *s, int32_t n);
/* pages[t] of a layer; valid until the sequence is freed, entries up to what was reserved. */
uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer);
int32_t sq_kv_seq_length(const sq_kv_seq *s); /* positions reserved and not forgotten */
int32_t sq_kv_seq_column(const sq_kv_seq *s, int32_t tile);

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
} sq_kv_match;
/* The longest beginning of ids[0..n) that is there. Changes nothing. */
sq_kv_match sq_kv_tree_match(const sq_kv_tree *t, uint64_t salt, const int32_t *ids, int32_t n);
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
/* Idle leaves in order of eviction, the first to go first: i-th, or -1. O(i). */
int32_t sq_kv_tree_idle_leaf(const sq_kv_tree *t, int32_t i);

#endif
