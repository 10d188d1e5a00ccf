/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_pool.c - the arena behind the columns, who holds them, and the page tables of sequences.
 *
 * The arena is one reservation of address space. A column is carved from it once; given back it goes to a
 * free list beside the arena, so that its tiles stay finite numbers.
 *
 * One thread owns a pool and its sequences; only the count of used columns is read from elsewhere. */
#include "kv/kv_int.h"

#include <assert.h>
#include <string.h>

sq_kv_geometry sq_kv_geometry_of(const sq_kv_shape *s, sq_kv_format f) {
    size_t d = sq_align_up((size_t)s->head_dim, 16);
    size_t tile = d * SQ_KV_TILE_TOKENS * (f == SQ_KV_F32 ? sizeof(float) : sizeof(uint16_t));
    sq_kv_geometry g;
    g.k_off = sizeof(sq_kv_page_header);
    g.v_off = g.k_off + tile;
    g.head_stride = 2 * tile;
    g.page_bytes = sq_align_up(g.k_off + (size_t)s->n_kv_heads * g.head_stride, 64);
    return g;
}

uint64_t sq_kv_bytes(const sq_kv_shape *s, sq_kv_format f, int32_t n_tokens) {
    uint64_t tiles = (uint64_t)sq_div_up(n_tokens, SQ_KV_TILE_TOKENS);
    return tiles * (uint64_t)s->n_layers * sq_kv_geometry_of(s, f).page_bytes;
}

/* ---- pool ------------------------------------------------------------------------------------ */

squish_status sq_kv_pool_new(sq_kv_pool **out, const sq_kv_shape *shape, sq_kv_format f, uint64_t bytes_max,
                             const squish_alloc *a, squish_error *err) {
    *out = NULL;
    const sq_kv_geometry geo = sq_kv_geometry_of(shape, f);
    const uint64_t column = geo.page_bytes * (uint64_t)shape->n_layers;
    uint64_t n = bytes_max / column;
    if (n == 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache: %llu bytes hold no page column of %llu bytes",
                       (unsigned long long)bytes_max, (unsigned long long)column);
    if (n > INT32_MAX / 2) n = INT32_MAX / 2;
    sq_kv_pool *p = sq_alloc_zero(a, sizeof *p);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "kv pool: out of memory");
    *p = (sq_kv_pool){.alloc = *a,
                      .shape = *shape,
                      .format = f,
                      .geo = geo,
                      .column_bytes = (size_t)column,
                      .n_columns = (int32_t)n,
                      .free_list = -1};
    p->columns = sq_alloc_new(a, (size_t)n * sizeof *p->columns);
    p->base = sq_os_reserve((size_t)(n * column));
    sq_os_huge_pages(p->base, (size_t)(n * column));
    if (!p->columns || !p->base) {
        sq_fail(err, SQUISH_NO_MEMORY, "kv cache: cannot reserve %llu bytes of address space",
                (unsigned long long)(n * column));
        sq_kv_pool_free(p);
        return SQUISH_NO_MEMORY;
    }
    *out = p;
    return SQUISH_OK;
}

void sq_kv_pool_free(sq_kv_pool *p) {
    if (!p) return;
    if (p->base) sq_os_release(p->base, (size_t)p->n_columns * p->column_bytes);
    squish_alloc a = p->alloc;
    sq_alloc_free(&a, p->columns, p->columns ? (size_t)p->n_columns * sizeof *p->columns : 0);
    sq_alloc_free(&a, p, sizeof *p);
}

uint64_t sq_kv_pool_bytes_used(const sq_kv_pool *p) {
    return (uint64_t)atomic_load_explicit(&p->n_used, memory_order_relaxed) * p->column_bytes;
}
uint64_t sq_kv_pool_bytes_max(const sq_kv_pool *p) { return (uint64_t)p->n_columns * p->column_bytes; }
const sq_kv_geometry *sq_kv_pool_geometry(const sq_kv_pool *p) { return &p->geo; }
sq_kv_format sq_kv_pool_format(const sq_kv_pool *p) { return p->format; }
void sq_kv_pool_shape(const sq_kv_pool *p, sq_kv_shape *out) { *out = p->shape; }
const squish_alloc *sq_kv_pool_alloc(const sq_kv_pool *p) { return &p->alloc; }
int32_t sq_kv_pool_columns(const sq_kv_pool *p) { return p->n_columns; }
int32_t sq_kv_pool_columns_free(const sq_kv_pool *p) { return p->n_columns - p->n_used; }

/* ---- columns --------------------------------------------------------------------------------- */

uint8_t *sq_kv_column_page(const sq_kv_pool *p, int32_t column, int32_t layer) {
    return p->base + (size_t)column * p->column_bytes + (size_t)layer * p->geo.page_bytes;
}

static void write_headers(sq_kv_pool *p, int32_t column, int32_t tile) {
    for (int32_t l = 0; l < p->shape.n_layers; l++) {
        const sq_kv_page_header h = {.magic = SQ_KV_PAGE_MAGIC,
                                     .k_fmt = (uint8_t)p->format,
                                     .v_fmt = (uint8_t)p->format,
                                     .n_kv_heads = (uint8_t)p->shape.n_kv_heads,
                                     .d = (uint16_t)p->shape.head_dim,
                                     .layer = (uint16_t)l,
                                     .pos0 = (uint32_t)tile * SQ_KV_TILE_TOKENS};
        memcpy(sq_kv_column_page(p, column, l), &h, sizeof h);
    }
}

int32_t sq_kv_column_take(sq_kv_pool *p, int32_t tile) {
    int32_t c = p->free_list;
    if (c >= 0)
        p->free_list = p->columns[c].next_free;
    else if (p->carved < p->n_columns)
        c = p->carved++;
    else
        return -1;
    p->columns[c] = (sq_kv_column){.holders = 1, .next_free = -1, .node = -1};
    atomic_fetch_add_explicit(&p->n_used, 1, memory_order_relaxed);
    write_headers(p, c, tile);
    return c;
}

void sq_kv_column_hold(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    assert(c->holders > 0);
    if (c->holders++ == 1 && c->node >= 0) sq_kv_tree_wakes(p->tree, c->node);
}

void sq_kv_column_drop(sq_kv_pool *p, int32_t column) {
    sq_kv_column *c = &p->columns[column];
    assert(c->holders > 0);
    if (--c->holders == 1 && c->node >= 0) sq_kv_tree_rests(p->tree, c->node);
    if (c->holders > 0) return;
    c->next_free = p->free_list;
    p->free_list = column;
    atomic_fetch_sub_explicit(&p->n_used, 1, memory_order_relaxed);
}

int32_t sq_kv_column_holders(const sq_kv_pool *p, int32_t column) { return p->columns[column].holders; }

/* ---- sequences ------------------------------------------------------------------------------- */

static size_t table_bytes(const sq_kv_seq *s) {
    return (size_t)s->tiles_max * (size_t)s->pool->shape.n_layers * sizeof *s->pages;
}

squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err) {
    *out = NULL;
    sq_kv_seq *s = sq_alloc_zero(&p->alloc, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory");
    s->pool = p;
    s->tokens_max = tokens_max;
    s->tiles_max = sq_div_up(tokens_max, SQ_KV_TILE_TOKENS);
    s->node = -1;
    s->pages = sq_alloc_zero(&p->alloc, table_bytes(s));
    s->columns = sq_alloc_new(&p->alloc, (size_t)s->tiles_max * sizeof *s->columns);
    if (!s->pages || !s->columns) {
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
    sq_alloc_free(a, s->pages, s->pages ? table_bytes(s) : 0);
    sq_alloc_free(a, s->columns, s->columns ? (size_t)s->tiles_max * sizeof *s->columns : 0);
    sq_alloc_free(a, s, sizeof *s);
}

void sq_kv_seq_set(sq_kv_seq *s, int32_t tile, int32_t c) {
    s->columns[tile] = c;
    for (int32_t l = 0; l < s->pool->shape.n_layers; l++)
        s->pages[(size_t)l * (size_t)s->tiles_max + (size_t)tile] =
            c < 0 ? NULL : sq_kv_column_page(s->pool, c, l);
}

void sq_kv_seq_put(sq_kv_seq *s, int32_t tile, int32_t column) {
    const int32_t old = s->columns[tile];
    sq_kv_seq_set(s, tile, column);
    sq_kv_column_drop(s->pool, old);
}

/* The column that the next position falls into, if it is there and others hold it too; -1. */
static int32_t shared_tail(const sq_kv_seq *s, int32_t n) {
    const int32_t tile = s->length / SQ_KV_TILE_TOKENS;
    if (n <= s->length || tile >= s->n_tiles) return -1;
    return s->pool->columns[s->columns[tile]].holders > 1 ? tile : -1;
}

int32_t sq_kv_seq_missing(const sq_kv_seq *s, int32_t n) {
    const int32_t grow = sq_div_up(n, SQ_KV_TILE_TOKENS) - s->n_tiles;
    return (grow > 0 ? grow : 0) + (shared_tail(s, n) >= 0);
}

static void copy_column(sq_kv_pool *p, int32_t to, int32_t from) {
    memcpy(sq_kv_column_page(p, to, 0), sq_kv_column_page(p, from, 0), p->column_bytes);
}

squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t n, squish_error *err) {
    sq_kv_pool *p = s->pool;
    if (n > s->tokens_max)
        return sq_fail(err, SQUISH_INVALID, "%d tokens do not fit the sequence's %d", n, s->tokens_max);
    if (sq_kv_seq_missing(s, n) > sq_kv_pool_columns_free(p))
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache is full: %llu of %llu bytes used",
                       (unsigned long long)sq_kv_pool_bytes_used(p),
                       (unsigned long long)sq_kv_pool_bytes_max(p));
    const int32_t tail = shared_tail(s, n);
    if (tail >= 0) {
        const int32_t own = sq_kv_column_take(p, tail);
        copy_column(p, own, s->columns[tail]);
        sq_kv_seq_put(s, tail, own);
    }
    for (const int32_t want = sq_div_up(n, SQ_KV_TILE_TOKENS); s->n_tiles < want; s->n_tiles++)
        sq_kv_seq_set(s, s->n_tiles, sq_kv_column_take(p, s->n_tiles));
    if (n > s->length) s->length = n;
    return SQUISH_OK;
}

void sq_kv_seq_truncate(sq_kv_seq *s, int32_t n) {
    if (n < 0) n = 0;
    for (; s->n_in_tree * SQ_KV_TILE_TOKENS > n; s->n_in_tree--)
        s->node = sq_kv_tree_parent(s->pool->tree, s->node);
    for (const int32_t keep = sq_div_up(n, SQ_KV_TILE_TOKENS); s->n_tiles > keep;) {
        const int32_t c = s->columns[--s->n_tiles];
        sq_kv_seq_set(s, s->n_tiles, -1);
        sq_kv_column_drop(s->pool, c);
    }
    if (n < s->length) s->length = n;
}

uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer) {
    return s->pages + (size_t)layer * (size_t)s->tiles_max;
}

int32_t sq_kv_seq_length(const sq_kv_seq *s) { return s->length; }
int32_t sq_kv_seq_column(const sq_kv_seq *s, int32_t tile) { return s->columns[tile]; }
int32_t sq_kv_seq_node(const sq_kv_seq *s) { return s->node; }

squish_status sq_kv_seq_copy(sq_kv_seq *s, int32_t column, int32_t rows, squish_error *err) {
    assert(s->length == s->n_tiles * SQ_KV_TILE_TOKENS);
    const int32_t base = s->length;
    SQ_TRY(sq_kv_seq_reserve(s, base + rows, err));
    copy_column(s->pool, s->columns[base / SQ_KV_TILE_TOKENS], column);
    return SQUISH_OK;
}
