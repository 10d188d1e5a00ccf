/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_pool.c - the arena behind the pages and the page tables of sequences.
 *
 * The arena is one reservation of address space. A page is carved from it once; given back it goes to the
 * free list, whose link lies in the reserved bytes of the page's header, so that its tiles stay finite
 * numbers.
 *
 * One thread owns a pool and its sequences. */
#include "kv/kv.h"

#include <string.h>

struct sq_kv_pool {
    squish_alloc alloc;
    sq_kv_shape shape;
    sq_kv_format format;
    sq_kv_geometry geo;
    uint8_t *base;
    size_t bytes_max;   /* reservation */
    size_t carved;      /* bytes handed out at least once: [base, base + carved) */
    uint8_t *free_list; /* pages given back; the next one's address is in the header's reserved bytes */
    size_t used;
};

struct sq_kv_seq {
    sq_kv_pool *pool;
    int32_t tokens_max, tiles_max, n_tiles;
    uint8_t **pages; /* [n_layers][tiles_max] */
};

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

squish_status sq_kv_pool_new(sq_kv_pool **out, const sq_kv_shape *shape, sq_kv_format f, uint64_t bytes_max,
                             const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_kv_pool *p = sq_alloc_zero(a, sizeof *p);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "kv pool: out of memory");
    p->alloc = *a;
    p->shape = *shape;
    p->format = f;
    p->geo = sq_kv_geometry_of(shape, f);
    uint64_t column = p->geo.page_bytes * (uint64_t)shape->n_layers;
    p->bytes_max = (size_t)(bytes_max / column * column);
    if (p->bytes_max == 0) {
        sq_alloc_free(a, p, sizeof *p);
        return sq_fail(err, SQUISH_NO_MEMORY, "kv cache: %llu bytes hold no page column of %llu bytes",
                       (unsigned long long)bytes_max, (unsigned long long)column);
    }
    p->base = sq_os_reserve(p->bytes_max);
    if (!p->base) {
        sq_fail(err, SQUISH_NO_MEMORY, "kv cache: cannot reserve %zu bytes of address space", p->bytes_max);
        sq_alloc_free(a, p, sizeof *p);
        return SQUISH_NO_MEMORY;
    }
    *out = p;
    return SQUISH_OK;
}

void sq_kv_pool_free(sq_kv_pool *p) {
    if (!p) return;
    sq_os_release(p->base, p->bytes_max);
    squish_alloc a = p->alloc;
    sq_alloc_free(&a, p, sizeof *p);
}

uint64_t sq_kv_pool_bytes_used(const sq_kv_pool *p) { return p->used; }
uint64_t sq_kv_pool_bytes_max(const sq_kv_pool *p) { return p->bytes_max; }
const sq_kv_geometry *sq_kv_pool_geometry(const sq_kv_pool *p) { return &p->geo; }
sq_kv_format sq_kv_pool_format(const sq_kv_pool *p) { return p->format; }

static uint8_t *page_take(sq_kv_pool *p, int32_t layer, int32_t tile) {
    uint8_t *page = p->free_list;
    if (page) {
        memcpy(&p->free_list, page + offsetof(sq_kv_page_header, reserved), sizeof p->free_list);
    } else {
        if (p->bytes_max - p->carved < p->geo.page_bytes) return NULL;
        page = p->base + p->carved;
        p->carved += p->geo.page_bytes;
    }
    p->used += p->geo.page_bytes;
    sq_kv_page_header h = {.magic = SQ_KV_PAGE_MAGIC,
                           .k_fmt = (uint8_t)p->format,
                           .v_fmt = (uint8_t)p->format,
                           .n_kv_heads = (uint8_t)p->shape.n_kv_heads,
                           .d = (uint16_t)p->shape.head_dim,
                           .layer = (uint16_t)layer,
                           .pos0 = (uint32_t)tile * SQ_KV_TILE_TOKENS};
    memcpy(page, &h, sizeof h);
    return page;
}

static void page_give(sq_kv_pool *p, uint8_t *page) {
    memcpy(page + offsetof(sq_kv_page_header, reserved), &p->free_list, sizeof p->free_list);
    p->free_list = page;
    p->used -= p->geo.page_bytes;
}

squish_status sq_kv_seq_new(sq_kv_seq **out, sq_kv_pool *p, int32_t tokens_max, squish_error *err) {
    *out = NULL;
    sq_kv_seq *s = sq_alloc_zero(&p->alloc, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory");
    s->pool = p;
    s->tokens_max = tokens_max;
    s->tiles_max = sq_div_up(tokens_max, SQ_KV_TILE_TOKENS);
    s->pages = sq_alloc_zero(&p->alloc, (size_t)s->tiles_max * (size_t)p->shape.n_layers * sizeof *s->pages);
    if (!s->pages) {
        sq_alloc_free(&p->alloc, s, sizeof *s);
        return sq_fail(err, SQUISH_NO_MEMORY, "kv sequence: out of memory for the page table of %d tokens",
                       tokens_max);
    }
    *out = s;
    return SQUISH_OK;
}

static void column_give(sq_kv_seq *s, int32_t tile, int32_t n_layers) {
    for (int32_t l = 0; l < n_layers; l++) {
        uint8_t **slot = &s->pages[(size_t)l * (size_t)s->tiles_max + (size_t)tile];
        page_give(s->pool, *slot);
        *slot = NULL;
    }
}

void sq_kv_seq_free(sq_kv_seq *s) {
    if (!s) return;
    sq_kv_pool *p = s->pool;
    sq_kv_seq_truncate(s, 0);
    sq_alloc_free(&p->alloc, s->pages, (size_t)s->tiles_max * (size_t)p->shape.n_layers * sizeof *s->pages);
    sq_alloc_free(&p->alloc, s, sizeof *s);
}

squish_status sq_kv_seq_reserve(sq_kv_seq *s, int32_t n, squish_error *err) {
    if (n > s->tokens_max)
        return sq_fail(err, SQUISH_INVALID, "%d tokens do not fit the sequence's %d", n, s->tokens_max);
    const int32_t had = s->n_tiles, want = sq_div_up(n, SQ_KV_TILE_TOKENS);
    for (int32_t t = had; t < want; t++) {
        for (int32_t l = 0; l < s->pool->shape.n_layers; l++) {
            uint8_t *page = page_take(s->pool, l, t);
            if (!page) {
                column_give(s, t, l);
                sq_kv_seq_truncate(s, had * SQ_KV_TILE_TOKENS);
                return sq_fail(err, SQUISH_NO_MEMORY, "kv cache is full: %zu of %zu bytes used",
                               s->pool->used, s->pool->bytes_max);
            }
            s->pages[(size_t)l * (size_t)s->tiles_max + (size_t)t] = page;
        }
        s->n_tiles = t + 1;
    }
    return SQUISH_OK;
}

void sq_kv_seq_truncate(sq_kv_seq *s, int32_t n) {
    const int32_t keep = sq_div_up(n, SQ_KV_TILE_TOKENS);
    while (s->n_tiles > keep) column_give(s, --s->n_tiles, s->pool->shape.n_layers);
}

uint8_t *const *sq_kv_seq_pages(const sq_kv_seq *s, int32_t layer) {
    return s->pages + (size_t)layer * (size_t)s->tiles_max;
}
