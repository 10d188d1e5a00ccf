/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_snapshot.c - the form of a snapshot file (see kv_snapshot.h): made in memory, and read with every byte
 * checked before one of them reaches a page. */
#include "kv/kv_snapshot_int.h"

#include "kv/kv_bytes.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { VERSION = 2, TILE = SQ_KV_TILE_TOKENS, HEADS_MAX = 255, DIM_MAX = 1024 };
static const char magic[8] = {'S', 'Q', 'K', 'V', 'S', 'N', 'P', '1'};

uint64_t sq_snapshot_chain(uint64_t identity, uint64_t salt, uint64_t chain, const int32_t *ids) {
    const uint64_t before[3] = {identity, salt, chain};
    const uint64_t h = XXH3_64bits_withSeed(ids, TILE * sizeof *ids, XXH3_64bits(before, sizeof before));
    return h ? h : 1; /* 0 is the beginning */
}

/* ---- where things lie ------------------------------------------------------------------------ */

enum { FORMS = SQ_SNAPSHOT_TILES };

static size_t ids_bytes(int32_t n_tiles) { return (size_t)n_tiles * TILE * sizeof(int32_t); }
static size_t sums_at(int32_t n_tiles) { return SQ_SNAPSHOT_HEADER + ids_bytes(n_tiles) + FORMS; }
static size_t tables_end(int32_t n_tiles) { return sums_at(n_tiles) + (size_t)n_tiles * sizeof(uint64_t); }
static size_t pages_at(int32_t n_tiles) { return sq_align_up(tables_end(n_tiles), 64); }

size_t sq_snapshot_tables(int32_t n_tiles) { return pages_at(n_tiles); }

static size_t form_bytes(const sq_snapshot_view *v, uint32_t form) {
    return form == SQ_KV_FORM_OPEN ? sq_kv_open_bytes(&v->shape, &v->policy)
                                   : sq_kv_sealed_bytes(&v->shape, &v->policy);
}

static size_t tile_bytes(const sq_snapshot_view *v, int32_t tile) {
    size_t n = 0;
    for (uint32_t f = SQ_KV_FORM_OPEN; f <= SQ_KV_FORM_SEALED; f++)
        if (v->forms[tile] & f) n += form_bytes(v, f);
    return n;
}

static size_t tile_at(const sq_snapshot_view *v, int32_t tile) {
    size_t at = 0;
    for (int32_t t = 0; t < tile; t++) at += tile_bytes(v, t);
    return at;
}

uint64_t sq_snapshot_bytes(const sq_snapshot_view *v) {
    return pages_at(v->n_tiles) + tile_at(v, v->n_tiles);
}

uint64_t sq_snapshot_bytes_max(const sq_kv_shape *s, const sq_kv_policy *p) {
    return pages_at(SQ_SNAPSHOT_TILES) +
           (uint64_t)SQ_SNAPSHOT_TILES * (sq_kv_open_bytes(s, p) + sq_kv_sealed_bytes(s, p));
}

const uint8_t *sq_snapshot_form(const sq_snapshot_view *v, int32_t tile, uint32_t form) {
    if (!(v->forms[tile] & form)) return NULL;
    const bool behind = form == SQ_KV_FORM_SEALED && v->forms[tile] & SQ_KV_FORM_OPEN;
    return v->pages + tile_at(v, tile) + (behind ? form_bytes(v, SQ_KV_FORM_OPEN) : 0);
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status bad(squish_error *err, const char *field, uint64_t found) {
    return sq_fail(err, SQUISH_CORRUPT, "snapshot: %s is %llu", field, (unsigned long long)found);
}

squish_status sq_snapshot_header(const uint8_t *p, size_t n, const sq_kv_policy *policy, sq_snapshot_view *v,
                                 squish_error *err) {
    *v = (sq_snapshot_view){0};
    if (n < SQ_SNAPSHOT_HEADER) return bad(err, "file size", n);
    if (memcmp(p, magic, sizeof magic) != 0) return sq_fail(err, SQUISH_CORRUPT, "snapshot: no magic");
    if (sq_kv_u32_at(p, 8) != VERSION) return bad(err, "version", sq_kv_u32_at(p, 8));
    if (sq_kv_u32_at(p, 12) != SQ_SNAPSHOT_HEADER) return bad(err, "header size", sq_kv_u32_at(p, 12));
    if (sq_kv_u64_at(p, 248) != XXH3_64bits(p, 248))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: header sum");
    const uint32_t first = sq_kv_u32_at(p, 48), tiles = sq_kv_u32_at(p, 52), layers = sq_kv_u32_at(p, 56);
    const uint32_t heads = sq_kv_u32_at(p, 60), dim = sq_kv_u32_at(p, 64), latent = sq_kv_u32_at(p, 68);
    if (first > INT32_MAX / TILE || first % SQ_SNAPSHOT_TILES) return bad(err, "first tile", first);
    if (tiles < 1 || tiles > SQ_SNAPSHOT_TILES) return bad(err, "tiles", tiles);
    if (layers < 1 || layers > SQ_KV_LAYERS_MAX) return bad(err, "layers", layers);
    if (heads < 1 || heads > HEADS_MAX) return bad(err, "heads", heads);
    if (latent > 1) return bad(err, "mark of latent rows", latent);
    if (dim < 1 || dim > (latent ? 2 * DIM_MAX : DIM_MAX)) return bad(err, "head dim", dim);
    if (sq_kv_u64_at(p, 72) != sq_kv_policy_hash(policy))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: of another cache format");
    *v = (sq_snapshot_view){.identity = sq_kv_u64_at(p, 16),
                            .salt = sq_kv_u64_at(p, 24),
                            .parent = sq_kv_u64_at(p, 32),
                            .chain = sq_kv_u64_at(p, 40),
                            .first_tile = (int32_t)first,
                            .n_tiles = (int32_t)tiles,
                            .shape = {(int32_t)layers, (int32_t)heads, (int32_t)dim, latent == 1},
                            .policy = *policy,
                            .file_bytes = sq_kv_u64_at(p, 88)};
    if (sq_kv_u64_at(p, 80) != pages_at(v->n_tiles)) return bad(err, "pages offset", sq_kv_u64_at(p, 80));
    if (v->file_bytes < pages_at(v->n_tiles)) return bad(err, "file size", v->file_bytes);
    return SQUISH_OK;
}

/* The forms a tile may have: one at least, sealed only where tiles are, and the first one open. */
static squish_status check_forms(const sq_snapshot_view *v, squish_error *err) {
    for (int32_t t = 0; t < FORMS; t++) {
        const uint32_t f = v->forms[t];
        const bool beyond = t >= v->n_tiles, first = v->first_tile + t < v->policy.window.sink;
        const bool ok = beyond ? f == 0 : first || !v->policy.seals ? f == SQ_KV_FORM_OPEN : f >= 1 && f <= 3;
        if (!ok) return bad(err, "form of a tile", f);
    }
    return SQUISH_OK;
}

squish_status sq_snapshot_parse(sq_span file, const sq_kv_policy *policy, sq_snapshot_view *v,
                                squish_error *err) {
    SQ_TRY(sq_snapshot_header(file.p, file.n, policy, v, err));
    if (file.n != v->file_bytes) return bad(err, "file size", file.n);
    const size_t tables = tables_end(v->n_tiles) - SQ_SNAPSHOT_HEADER;
    if (sq_kv_u64_at(file.p, 240) != XXH3_64bits(file.p + SQ_SNAPSHOT_HEADER, tables))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: sum of ids");
    v->ids = file.p + SQ_SNAPSHOT_HEADER;
    memcpy(v->forms, v->ids + ids_bytes(v->n_tiles), FORMS);
    SQ_TRY(check_forms(v, err));
    v->sums = file.p + sums_at(v->n_tiles);
    v->pages = file.p + pages_at(v->n_tiles);
    return file.n == sq_snapshot_bytes(v) ? SQUISH_OK : bad(err, "file size", file.n);
}

/* No exponent is all ones: attention multiplies what it may not see by zero. Eight bytes at a time: one added
 * to an exponent of ones carries into the place of the sign, and no further. */
static bool finite(const uint8_t *p, size_t n, uint64_t exponents, uint64_t ones, uint64_t signs) {
    uint64_t found = 0, rest = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) found |= (sq_kv_u64_at(p, i) & exponents) + ones;
    memcpy(&rest, p + i, n - i);
    return !((found | ((rest & exponents) + ones)) & signs);
}

static bool f16_finite(const uint8_t *p, size_t n) {
    return finite(p, n, 0x7C007C007C007C00u, 0x0400040004000400u, 0x8000800080008000u);
}

static bool f32_finite(const uint8_t *p, size_t n) {
    return finite(p, n, 0x7F8000007F800000u, 0x0080000000800000u, 0x8000000080000000u);
}

/* Of a sealed page: the parameters of every head; codes are numbers whatever they are. */
static bool params_finite(const uint8_t *page, const sq_snapshot_view *v, int32_t layer) {
    const sq_kv_geometry g = sq_kv_geometry_sealed(&v->shape, &v->policy, layer);
    const int32_t d = (int32_t)sq_align_up((size_t)v->shape.head_dim, 16);
    const size_t k_z = sq_kv_code_bytes(sq_kv_policy_k(&v->policy, layer), d) + sq_kv_k_z(d);
    const size_t v_s = sq_kv_code_bytes(sq_kv_policy_v(&v->policy, layer), d);
    for (int32_t h = 0; h < v->shape.n_kv_heads; h++) {
        const uint8_t *head = page + (size_t)h * g.head_stride;
        if (!f16_finite(head + g.k_off + k_z, (size_t)d * 2)) return false;
        if (!f16_finite(head + g.v_off + v_s, 2 * sq_kv_v_z(d))) return false;
    }
    return true;
}

static squish_status check_page(const sq_snapshot_view *v, const uint8_t *page, size_t bytes, int32_t tile,
                                int32_t layer, uint32_t form, squish_error *err) {
    sq_kv_page_header h;
    memcpy(&h, page, sizeof h);
    if (h.magic != SQ_KV_PAGE_MAGIC || h.layer != layer || h.pos0 != (uint32_t)tile * TILE)
        return sq_fail(err, SQUISH_CORRUPT,
                       "snapshot: a page of layer %d, position %d says layer %d, position %u", layer,
                       tile * TILE, h.layer, h.pos0);
    const uint8_t *at = page + sizeof h;
    const size_t n = bytes - sizeof h;
    const bool finite = form == SQ_KV_FORM_SEALED     ? params_finite(page, v, layer)
                        : v->policy.open == SQ_KV_F32 ? f32_finite(at, n)
                                                      : f16_finite(at, n);
    if (!finite)
        return sq_fail(err, SQUISH_CORRUPT,
                       "snapshot: page of layer %d, position %d has values that are not numbers", layer,
                       tile * TILE);
    return SQUISH_OK;
}

squish_status sq_snapshot_tile(const sq_snapshot_view *v, int32_t tile, squish_error *err) {
    const uint8_t *page = v->pages + tile_at(v, tile);
    if (sq_kv_u64_at(v->sums, (size_t)tile * 8) != XXH3_64bits(page, tile_bytes(v, tile)))
        return sq_fail(err, SQUISH_CORRUPT, "snapshot: sum of tile %d", tile);
    for (uint32_t f = SQ_KV_FORM_OPEN; f <= SQ_KV_FORM_SEALED; f++)
        for (int32_t l = 0; v->forms[tile] & f && l < v->shape.n_layers; l++) {
            const sq_kv_geometry g = f == SQ_KV_FORM_OPEN ? sq_kv_geometry_of(&v->shape, v->policy.open)
                                                          : sq_kv_geometry_sealed(&v->shape, &v->policy, l);
            SQ_TRY(check_page(v, page, g.page_bytes, v->first_tile + tile, l, f, err));
            page += g.page_bytes;
        }
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

void sq_snapshot_begin(uint8_t *file, const sq_snapshot_view *v) {
    const size_t at = pages_at(v->n_tiles);
    memset(file, 0, at);
    memcpy(file, magic, sizeof magic);
    sq_kv_put_u32(file, 8, VERSION);
    sq_kv_put_u32(file, 12, SQ_SNAPSHOT_HEADER);
    sq_kv_put_u64(file, 16, v->identity);
    sq_kv_put_u64(file, 24, v->salt);
    sq_kv_put_u64(file, 32, v->parent);
    sq_kv_put_u64(file, 40, v->chain);
    sq_kv_put_u32(file, 48, (uint32_t)v->first_tile);
    sq_kv_put_u32(file, 52, (uint32_t)v->n_tiles);
    sq_kv_put_u32(file, 56, (uint32_t)v->shape.n_layers);
    sq_kv_put_u32(file, 60, (uint32_t)v->shape.n_kv_heads);
    sq_kv_put_u32(file, 64, (uint32_t)v->shape.head_dim);
    sq_kv_put_u32(file, 68, v->shape.latent);
    sq_kv_put_u64(file, 72, sq_kv_policy_hash(&v->policy));
    sq_kv_put_u64(file, 80, at);
    sq_kv_put_u64(file, 88, sq_snapshot_bytes(v));
    memcpy(file + SQ_SNAPSHOT_HEADER + ids_bytes(v->n_tiles), v->forms, FORMS);
}

void sq_snapshot_put_tile(uint8_t *file, const sq_snapshot_view *v, const sq_kv_pool *p, int32_t tile,
                          const int32_t *ids, int32_t column) {
    uint8_t *at = file + pages_at(v->n_tiles) + tile_at(v, tile);
    memcpy(file + SQ_SNAPSHOT_HEADER + ids_bytes(tile), ids, ids_bytes(1));
    if (v->forms[tile] & SQ_KV_FORM_OPEN) {
        memcpy(at, sq_kv_column_page(p, column, 0), form_bytes(v, SQ_KV_FORM_OPEN));
        at += form_bytes(v, SQ_KV_FORM_OPEN);
    }
    if (v->forms[tile] & SQ_KV_FORM_SEALED)
        memcpy(at, sq_kv_column_sealed_page(p, column, 0), form_bytes(v, SQ_KV_FORM_SEALED));
}

void sq_snapshot_mend(uint8_t *file, size_t n) {
    const uint32_t tiles = sq_kv_u32_at(file, 52);
    if (tiles >= 1 && tiles <= SQ_SNAPSHOT_TILES && tables_end((int32_t)tiles) <= n)
        sq_kv_put_u64(file, 240,
                XXH3_64bits(file + SQ_SNAPSHOT_HEADER, tables_end((int32_t)tiles) - SQ_SNAPSHOT_HEADER));
    sq_kv_put_u64(file, 248, XXH3_64bits(file, 248));
}

void sq_snapshot_seal(uint8_t *file, const sq_snapshot_view *v) {
    const uint8_t *pages = file + pages_at(v->n_tiles);
    for (int32_t t = 0; t < v->n_tiles; t++)
        sq_kv_put_u64(file, sums_at(v->n_tiles) + (size_t)t * 8,
                XXH3_64bits(pages + tile_at(v, t), tile_bytes(v, t)));
    sq_snapshot_mend(file, tables_end(v->n_tiles));
}
