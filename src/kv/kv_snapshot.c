/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snapshot.c - the form of a snapshot file (see kv_snapshot.h): made in memory, and read with every byte
 * checked before one of them reaches a page. */
#include "kv/kv_snapshot_int.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { VERSION = 1, TILE = SQ_KV_TILE_TOKENS, LAYERS_MAX = 1024, HEADS_MAX = 255, DIM_MAX = 1024 };
static const char magic[8] = {'S', 'Q', 'K', 'V', 'S', 'N', 'P', '1'};

uint64_t sq_snapshot_chain(uint64_t identity, uint64_t salt, uint64_t chain, const int32_t *ids) {
    const uint64_t before[3] = {identity, salt, chain};
    const uint64_t h = XXH3_64bits_withSeed(ids, TILE * sizeof *ids, XXH3_64bits(before, sizeof before));
    return h ? h : 1; /* 0 is the beginning */
}

static uint32_t u32_at(const uint8_t *p, size_t at) {
    uint32_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static uint64_t u64_at(const uint8_t *p, size_t at) {
    uint64_t v;
    memcpy(&v, p + at, sizeof v);
    return v;
}

static void put_u32(uint8_t *p, size_t at, uint32_t v) { memcpy(p + at, &v, sizeof v); }
static void put_u64(uint8_t *p, size_t at, uint64_t v) { memcpy(p + at, &v, sizeof v); }

/* ---- where things lie ------------------------------------------------------------------------ */

static size_t ids_bytes(int32_t n_tiles) { return (size_t)n_tiles * TILE * sizeof(int32_t); }
static size_t sums_bytes(int32_t n_tiles, int32_t n_layers) {
    return (size_t)n_tiles * (size_t)n_layers * sizeof(uint64_t);
}
static size_t pages_at(int32_t n_tiles, int32_t n_layers) {
    return sq_align_up(SQ_SNAPSHOT_HEADER + ids_bytes(n_tiles) + sums_bytes(n_tiles, n_layers), 64);
}

uint64_t sq_snapshot_bytes(const sq_kv_shape *s, sq_kv_format f, int32_t n_tiles) {
    return pages_at(n_tiles, s->n_layers) +
           (uint64_t)n_tiles * (uint64_t)s->n_layers * sq_kv_geometry_of(s, f).page_bytes;
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status bad(squish_error *err, const char *field, uint64_t found) {
    return sq_fail(err, SQUISH_CORRUPT, "snapshot: %s is %llu", field, (unsigned long long)found);
}

squish_status sq_snapshot_header(const uint8_t *p, size_t n, sq_snapshot_view *v, squish_error *err) {
    *v = (sq_snapshot_view){0};
    if (n < SQ_SNAPSHOT_HEADER) return bad(err, "file size", n);
    if (memcmp(p, magic, sizeof magic) != 0) return sq_fail(err, SQUISH_CORRUPT, "snapshot: no magic");
    if (u32_at(p, 8) != VERSION) return bad(err, "version", u32_at(p, 8));
    if (u32_at(p, 12) != SQ_SNAPSHOT_HEADER) return bad(err, "header size", u32_at(p, 12));
    if (u64_at(p, 248) != XXH3_64bits(p, 248)) return sq_fail(err, SQUISH_CORRUPT, "snapshot: header sum");
    const uint32_t first = u32_at(p, 48), tiles = u32_at(p, 52), layers = u32_at(p, 56);
    const uint32_t heads = u32_at(p, 60), dim = u32_at(p, 64), format = u32_at(p, 68);
    if (first > INT32_MAX / TILE || first % SQ_SNAPSHOT_TILES) return bad(err, "first tile", first);
    if (tiles < 1 || tiles > SQ_SNAPSHOT_TILES) return bad(err, "tiles", tiles);
    if (layers < 1 || layers > LAYERS_MAX) return bad(err, "layers", layers);
    if (heads < 1 || heads > HEADS_MAX) return bad(err, "heads", heads);
    if (dim < 1 || dim > DIM_MAX) return bad(err, "head dim", dim);
    if (format != SQ_KV_F16 && format != SQ_KV_F32) return bad(err, "format", format);
    *v = (sq_snapshot_view){.identity = u64_at(p, 16),
                            .salt = u64_at(p, 24),
                            .parent = u64_at(p, 32),
                            .chain = u64_at(p, 40),
                            .first_tile = (int32_t)first,
                            .n_tiles = (int32_t)tiles,
                            .shape = {(int32_t)layers, (int32_t)heads, (int32_t)dim},
                            .format = (sq_kv_format)format};
    v->page_bytes = sq_kv_geometry_of(&v->shape, v->format).page_bytes;
    v->file_bytes = sq_snapshot_bytes(&v->shape, v->format, v->n_tiles);
    if (u64_at(p, 72) != v->page_bytes) return bad(err, "page size", u64_at(p, 72));
    if (u64_at(p, 80) != pages_at(v->n_tiles, v->shape.n_layers))
        return bad(err, "pages offset", u64_at(p, 80));
    if (u64_at(p, 88) != v->file_bytes) return bad(err, "file size", u64_at(p, 88));
    return SQUISH_OK;
}

squish_status sq_snapshot_parse(sq_span file, sq_snapshot_view *v, squish_error *err) {
    SQ_TRY(sq_snapshot_header(file.p, file.n, v, err));
    if (file.n != v->file_bytes) return bad(err, "file size", file.n);
    const size_t tables = ids_bytes(v->n_tiles) + sums_bytes(v->n_tiles, v->shape.n_layers);
    if (u64_at(file.p, 240) != XXH3_64bits(file.p + SQ_SNAPSHOT_HEADER, tables))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: sum of ids");
    v->ids = file.p + SQ_SNAPSHOT_HEADER;
    v->sums = v->ids + ids_bytes(v->n_tiles);
    v->pages = file.p + pages_at(v->n_tiles, v->shape.n_layers);
    return SQUISH_OK;
}

/* No exponent is all ones: attention multiplies what it may not see by zero. */
static bool all_finite(const uint8_t *p, size_t n, sq_kv_format f) {
    uint32_t found = 0;
    if (f == SQ_KV_F32)
        for (size_t i = 0; i < n; i += 4) found |= (u32_at(p, i) & 0x7F800000u) == 0x7F800000u;
    else
        for (size_t i = 0; i < n; i += 2) {
            uint16_t h;
            memcpy(&h, p + i, sizeof h);
            found |= (h & 0x7C00u) == 0x7C00u;
        }
    return !found;
}

squish_status sq_snapshot_page(const sq_snapshot_view *v, int32_t i, squish_error *err) {
    const uint8_t *page = v->pages + (size_t)i * v->page_bytes;
    const int32_t tile = v->first_tile + i / v->shape.n_layers, layer = i % v->shape.n_layers;
    if (u64_at(v->sums, (size_t)i * 8) != XXH3_64bits(page, v->page_bytes))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: sum of page %d", i);
    sq_kv_page_header h;
    memcpy(&h, page, sizeof h);
    if (h.magic != SQ_KV_PAGE_MAGIC || h.layer != layer || h.pos0 != (uint32_t)tile * TILE)
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: page %d says it is layer %d, position %u", i, h.layer,
                       h.pos0);
    if (!all_finite(page + sizeof h, v->page_bytes - sizeof h, v->format))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: page %d has values that are not numbers", i);
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

void sq_snapshot_begin(uint8_t *file, const sq_snapshot_view *v) {
    const size_t at = pages_at(v->n_tiles, v->shape.n_layers);
    memset(file, 0, at);
    memcpy(file, magic, sizeof magic);
    put_u32(file, 8, VERSION);
    put_u32(file, 12, SQ_SNAPSHOT_HEADER);
    put_u64(file, 16, v->identity);
    put_u64(file, 24, v->salt);
    put_u64(file, 32, v->parent);
    put_u64(file, 40, v->chain);
    put_u32(file, 48, (uint32_t)v->first_tile);
    put_u32(file, 52, (uint32_t)v->n_tiles);
    put_u32(file, 56, (uint32_t)v->shape.n_layers);
    put_u32(file, 60, (uint32_t)v->shape.n_kv_heads);
    put_u32(file, 64, (uint32_t)v->shape.head_dim);
    put_u32(file, 68, (uint32_t)v->format);
    put_u64(file, 72, sq_kv_geometry_of(&v->shape, v->format).page_bytes);
    put_u64(file, 80, at);
    put_u64(file, 88, sq_snapshot_bytes(&v->shape, v->format, v->n_tiles));
}

void sq_snapshot_put_tile(uint8_t *file, const sq_kv_pool *p, int32_t tile, const int32_t *ids,
                          int32_t column) {
    const size_t n_tiles = u32_at(file, 52), n_layers = u32_at(file, 56), page = u64_at(file, 72);
    memcpy(file + SQ_SNAPSHOT_HEADER + (size_t)tile * TILE * sizeof *ids, ids, TILE * sizeof *ids);
    memcpy(file + pages_at((int32_t)n_tiles, (int32_t)n_layers) + (size_t)tile * n_layers * page,
           sq_kv_column_page(p, column, 0), n_layers * page);
}

void sq_snapshot_seal(uint8_t *file) {
    const int32_t n_tiles = (int32_t)u32_at(file, 52), n_layers = (int32_t)u32_at(file, 56);
    const size_t page = u64_at(file, 72), tables = ids_bytes(n_tiles) + sums_bytes(n_tiles, n_layers);
    uint8_t *sums = file + SQ_SNAPSHOT_HEADER + ids_bytes(n_tiles);
    const uint8_t *pages = file + pages_at(n_tiles, n_layers);
    for (int32_t i = 0; i < n_tiles * n_layers; i++)
        put_u64(sums, (size_t)i * 8, XXH3_64bits(pages + (size_t)i * page, page));
    put_u64(file, 240, XXH3_64bits(file + SQ_SNAPSHOT_HEADER, tables));
    put_u64(file, 248, XXH3_64bits(file, 248));
}
