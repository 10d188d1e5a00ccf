/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_coded.c - a snapshot file whose pages are codes (see kv_archive.h), and back.
 *
 * What comes back is a snapshot like any other, sums included, so that one way leads into the tree. Sums of
 * the pages that were coded are worth nothing afterwards and are not kept. */
#include "kv/kv_archive.h"
#include "kv/kv_snapshot_int.h"

#include <string.h>

enum { TILE = SQ_KV_TILE_TOKENS };

static size_t gains_of(const sq_codec *c, int32_t n_tiles) {
    return (size_t)c->n_parts * (size_t)n_tiles * TILE;
}

static size_t forms_at(int32_t n_tiles) { return SQ_SNAPSHOT_HEADER + (size_t)n_tiles * TILE * 4; }

size_t sq_coded_bytes(const sq_codec *c, int32_t n_tiles) {
    return sq_snapshot_tables(n_tiles) + gains_of(c, n_tiles) * sq_codec_vector_bytes(c);
}

size_t sq_coded_scratch(const sq_codec *c, int32_t n_tiles) {
    return sq_codec_work_floats(c, n_tiles) * sizeof(float);
}

/* Where a layer's codes lie, and its pages. */
typedef struct {
    size_t gain_at, code_at;
    uint8_t *pages[SQ_SNAPSHOT_TILES];
} layer_view;

static layer_view layer_of(const sq_codec *c, int32_t n_tiles, int32_t layer, uint8_t *snapshot) {
    const size_t page = sq_kv_geometry_of(&c->info.shape, SQ_KV_F16).page_bytes, n = gains_of(c, n_tiles);
    const size_t layers = (size_t)c->info.shape.n_layers, tables = sq_snapshot_tables(n_tiles);
    const size_t before = n / layers * (size_t)layer;
    layer_view l = {.gain_at = tables + before * 2,
                    .code_at = tables + n * 2 + before * (sq_codec_vector_bytes(c) - 2)};
    for (size_t t = 0; t < (size_t)n_tiles; t++)
        l.pages[t] = snapshot + tables + (t * layers + (size_t)layer) * page;
    return l;
}

void sq_coded_make(const sq_codec *c, const sq_kernels *k, const uint8_t *snapshot, const sq_snapshot_view *v,
                   uint8_t *image, uint8_t *scratch) {
    const sq_codec_run r = {c, k, v->first_tile, v->n_tiles, (float *)(void *)scratch};
    const size_t tables = sq_snapshot_tables(v->n_tiles);
    memcpy(image, snapshot, tables);
    memset(image + forms_at(v->n_tiles) + SQ_SNAPSHOT_TILES, 0, (size_t)v->n_tiles * sizeof(uint64_t));
    sq_snapshot_mend(image, tables);
    sq_codec_begin(&r, true);
    for (int32_t i = 0; i < c->info.shape.n_layers; i++) {
        /* Pages are read alone, through the pointers that writing needs. */
        const layer_view l = layer_of(c, v->n_tiles, i, (uint8_t *)(uintptr_t)snapshot);
        sq_codec_put(&r, i, (const uint8_t *const *)l.pages, (uint16_t *)(void *)(image + l.gain_at),
                     image + l.code_at);
    }
}

static bool gains_finite(const uint8_t *p, size_t n) {
    uint16_t found = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, p + 2 * i, sizeof h);
        found |= (uint16_t)((h & 0x7c00) + 0x0400) & 0x8000;
    }
    return found == 0;
}

squish_status sq_coded_header(const sq_codec *c, sq_span image, const sq_kv_policy *p, sq_snapshot_view *v,
                              squish_error *err) {
    const sq_kv_shape *s = &c->info.shape;
    SQ_TRY(sq_snapshot_header(image.p, image.n, p, v, err));
    if (v->shape.n_layers != s->n_layers || v->shape.n_kv_heads != s->n_kv_heads ||
        v->shape.head_dim != s->head_dim || v->shape.latent || p->open != SQ_KV_F16 || p->seals)
        return sq_fail(err, SQUISH_CORRUPT, "archive: codes of another shape");
    if (image.n != sq_coded_bytes(c, v->n_tiles))
        return sq_fail(err, SQUISH_CORRUPT, "archive: %zu bytes of codes for %d tiles", image.n, v->n_tiles);
    const uint64_t pages = (uint64_t)v->n_tiles * sq_kv_open_bytes(&v->shape, p);
    if (v->file_bytes != sq_snapshot_tables(v->n_tiles) + pages)
        return sq_fail(err, SQUISH_CORRUPT, "archive: a snapshot of %llu bytes for %d tiles",
                       (unsigned long long)v->file_bytes, v->n_tiles);
    memcpy(v->forms, image.p + forms_at(v->n_tiles), sizeof v->forms);
    for (int32_t t = 0; t < SQ_SNAPSHOT_TILES; t++)
        if (v->forms[t] != (t < v->n_tiles ? SQ_KV_FORM_OPEN : 0))
            return sq_fail(err, SQUISH_CORRUPT, "archive: codes of a tile in form %d", v->forms[t]);
    if (!gains_finite(image.p + sq_snapshot_tables(v->n_tiles), gains_of(c, v->n_tiles)))
        return sq_fail(err, SQUISH_CORRUPT, "archive: gains that are not numbers");
    return SQUISH_OK;
}

void sq_coded_open(const sq_codec *c, const sq_kernels *k, sq_span image, const sq_snapshot_view *v,
                   uint8_t *snapshot, uint8_t *scratch) {
    const sq_codec_run r = {c, k, v->first_tile, v->n_tiles, (float *)(void *)scratch};
    memcpy(snapshot, image.p, sq_snapshot_tables(v->n_tiles));
    sq_codec_begin(&r, false);
    for (int32_t i = 0; i < c->info.shape.n_layers; i++) {
        const layer_view l = layer_of(c, v->n_tiles, i, snapshot);
        sq_codec_get(&r, i, (const uint16_t *)(const void *)(image.p + l.gain_at), image.p + l.code_at,
                     l.pages);
        for (int32_t t = 0; t < v->n_tiles; t++) {
            const sq_kv_page_header h = sq_kv_header_of(&v->shape, v->policy.open, i, v->first_tile + t);
            memcpy(l.pages[t], &h, sizeof h);
        }
    }
    sq_snapshot_seal(snapshot, v);
}
