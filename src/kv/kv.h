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
 * Pages come from one reserved range of address space; memory is touched only as tokens arrive, and a page
 * given back waits in a free list. Slots beyond a sequence's length hold finite numbers (zeros or old
 * values), never NaN: attention multiplies them by zero.
 *
 * Threads: one owner thread calls these functions; kernels read and write pages of running steps meanwhile.
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

/* An empty sequence of at most tokens_max tokens. Its page table is allocated here, so that growing never
 * allocates from the heap. */
squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err);
void sq_kv_seq_free(sq_kv_seq *s);
/* Make sure pages exist for positions [0, n). NO_MEMORY: the pool is full; the sequence is unchanged.
 * INVALID: n > tokens_max. */
squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t n, squish_error *err);
/* Forget positions from n on; pages that hold none of the rest go back to the pool. */
void sq_kv_seq_truncate(sq_kv_seq *s, int32_t n);
/* pages[t] of a layer; valid until the sequence is freed, entries up to what was reserved. */
uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer);

#endif
