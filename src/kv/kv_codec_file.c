/* SPDX-License-Identifier: Apache-2.0
 *
 * kv_codec_file.c - codebooks as a file (kv_codec.h), read with every number looked at once. */
#include "kv/kv_codec.h"

#include "kv/kv_bytes.h"

#include <math.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { VERSION = 1, SUMMED = 120, HEADS_MAX = 255, COUNT_MAX = 1 << 24 };
static const char magic[8] = {'S', 'Q', 'K', 'V', 'B', 'K', 'S', '1'};

/* Numbers of a part. */
static size_t part_numbers(const sq_kv_shape *s) {
    return (size_t)s->head_dim * (1 + SQ_CODEC_STAGES * SQ_PQ_ROWS);
}

uint64_t sq_codec_file_bytes(const sq_kv_shape *s) {
    return SQ_CODEC_HEADER + 2 * (uint64_t)s->n_layers * (uint64_t)s->n_kv_heads * part_numbers(s) * 2;
}

static uint64_t sum_of(const uint8_t *body, size_t n) {
    const uint64_t h = XXH3_64bits(body, n);
    return h ? h : 1;
}

void sq_codec_mend(uint8_t *file, size_t n) {
    if (n < SQ_CODEC_HEADER) return;
    sq_kv_put_u64(file, 96, n);
    sq_kv_put_u64(file, 104, sum_of(file + SQ_CODEC_HEADER, n - SQ_CODEC_HEADER));
    sq_kv_put_u64(file, SUMMED, XXH3_64bits(file, SUMMED));
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put_header(const sq_codec_info *i, uint8_t *p) {
    const sq_codec_gate *g = &i->gate;
    const uint32_t words[] = {VERSION, SQ_CODEC_HEADER};
    const uint32_t shape[] = {(uint32_t)i->shape.n_layers, (uint32_t)i->shape.n_kv_heads,
                              (uint32_t)i->shape.head_dim, SQ_CODEC_STAGES,
                              (uint32_t)g->prefix,         (uint32_t)g->continued,
                              (uint32_t)g->stretches,      (uint32_t)g->trials,
                              (uint32_t)g->found_f16,      (uint32_t)g->found};
    memset(p, 0, SQ_CODEC_HEADER);
    memcpy(p, magic, sizeof magic);
    memcpy(p + 8, words, sizeof words);
    sq_kv_put_u64(p, 16, i->identity);
    memcpy(p + 24, shape, sizeof shape);
    memcpy(p + 64, &g->kl, 8);
    memcpy(p + 72, &g->prefill_us, 4);
    memcpy(p + 76, &g->decode_us, 4);
    sq_kv_put_u64(p, 80, i->tokens);
    sq_kv_put_u64(p, 88, i->text);
}

static uint8_t *put_numbers(const float *x, size_t n, uint8_t *p) {
    for (size_t i = 0; i < n; i++, p += 2) {
        const uint16_t h = sq_f32_to_f16(x[i]);
        memcpy(p, &h, sizeof h);
    }
    return p;
}

squish_status sq_codec_file(sq_codec *c, sq_buf *out, squish_error *err) {
    const size_t bytes = (size_t)sq_codec_file_bytes(&c->info.shape), d = (size_t)c->info.shape.head_dim;
    uint8_t *file = sq_alloc_new(&c->alloc, bytes);
    if (!file) return sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory for the file");
    uint8_t *at = file + SQ_CODEC_HEADER;
    put_header(&c->info, file);
    for (int32_t p = 0; p < c->n_parts; p++) {
        at = put_numbers(c->mean + (size_t)p * d, d, at);
        at = put_numbers(sq_codec_rows(c, p, 0, 0), d * SQ_CODEC_STAGES * SQ_PQ_ROWS, at);
    }
    sq_codec_mend(file, bytes);
    c->sum = sq_kv_u64_at(file, 104);
    const bool fits = sq_buf_append(out, file, bytes);
    sq_alloc_free(&c->alloc, file, bytes);
    return fits ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "codebooks: out of memory for the file");
}

squish_status sq_codec_publish(const sq_buf *file, const char *path, squish_error *err) {
    return sq_os_write_file(path, file->data, file->len, err);
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status bad(squish_error *err, const char *field, uint64_t found) {
    return sq_fail(err, SQUISH_CORRUPT, "codebooks: %s is %llu", field, (unsigned long long)found);
}

static squish_status read_gate(const uint8_t *p, sq_codec_gate *g, squish_error *err) {
    static const char *const names[] = {"tokens of a prefix",    "tokens behind it", "stretches",
                                        "pass keys asked for", "pass keys of f16", "pass keys found"};
    int32_t *const to[] = {&g->prefix, &g->continued, &g->stretches, &g->trials, &g->found_f16, &g->found};
    for (size_t i = 0; i < SQ_COUNT(to); i++) {
        const uint32_t v = sq_kv_u32_at(p, 40 + 4 * i);
        if (v > COUNT_MAX) return bad(err, names[i], v);
        *to[i] = (int32_t)v;
    }
    memcpy(&g->kl, p + 64, 8);
    memcpy(&g->prefill_us, p + 72, 4);
    memcpy(&g->decode_us, p + 76, 4);
    if (g->prefix == 0 || g->continued == 0 || g->stretches == 0) return bad(err, "measured prefix", 0);
    if (g->found_f16 > g->trials) return bad(err, names[4], (uint64_t)g->found_f16);
    if (g->found > g->trials) return bad(err, names[5], (uint64_t)g->found);
    if (!(g->kl >= 0 && g->kl < 1e3)) return sq_fail(err, SQUISH_CORRUPT, "codebooks: KL is %g", g->kl);
    if (!(g->prefill_us >= 0 && g->prefill_us < 1e9f && g->decode_us >= 0 && g->decode_us < 1e9f))
        return sq_fail(err, SQUISH_CORRUPT, "codebooks: times of a token are %g and %g us",
                       (double)g->prefill_us, (double)g->decode_us);
    return SQUISH_OK;
}

static squish_status read_header(sq_span file, sq_codec_info *i, squish_error *err) {
    const uint8_t *p = file.p;
    if (file.n < SQ_CODEC_HEADER) return bad(err, "file size", file.n);
    if (memcmp(p, magic, sizeof magic) != 0) return sq_fail(err, SQUISH_CORRUPT, "codebooks: no magic");
    if (sq_kv_u64_at(p, SUMMED) != XXH3_64bits(p, SUMMED))
        return sq_fail(err, SQUISH_CORRUPT, "codebooks: header sum");
    if (sq_kv_u32_at(p, 8) != VERSION) return bad(err, "version", sq_kv_u32_at(p, 8));
    if (sq_kv_u32_at(p, 12) != SQ_CODEC_HEADER) return bad(err, "header size", sq_kv_u32_at(p, 12));
    const uint32_t layers = sq_kv_u32_at(p, 24), heads = sq_kv_u32_at(p, 28), dim = sq_kv_u32_at(p, 32);
    if (layers < 1 || layers > SQ_KV_LAYERS_MAX) return bad(err, "layers", layers);
    if (heads < 1 || heads > HEADS_MAX) return bad(err, "heads", heads);
    if (dim < 16 || dim % 16 || dim > SQ_CODEC_DIM_MAX) return bad(err, "head dim", dim);
    if (sq_kv_u32_at(p, 36) != SQ_CODEC_STAGES) return bad(err, "stages", sq_kv_u32_at(p, 36));
    *i = (sq_codec_info){.shape = {(int32_t)layers, (int32_t)heads, (int32_t)dim, false},
                         .identity = sq_kv_u64_at(p, 16),
                         .tokens = sq_kv_u64_at(p, 80),
                         .text = sq_kv_u64_at(p, 88)};
    SQ_TRY(read_gate(p, &i->gate, err));
    if (sq_kv_u64_at(p, 112) != 0) return bad(err, "padding", sq_kv_u64_at(p, 112));
    if (sq_kv_u64_at(p, 96) != file.n || file.n != sq_codec_file_bytes(&i->shape))
        return bad(err, "file size", file.n);
    if (sq_kv_u64_at(p, 104) != sum_of(p + SQ_CODEC_HEADER, file.n - SQ_CODEC_HEADER))
        return sq_fail(err, SQUISH_CORRUPT, "codebooks: sum");
    return SQUISH_OK;
}

static const uint8_t *read_numbers(const uint8_t *p, float *x, size_t n, bool *finite) {
    for (size_t i = 0; i < n; i++, p += 2) {
        uint16_t h;
        memcpy(&h, p, sizeof h);
        *finite &= (h & 0x7c00) != 0x7c00;
        x[i] = sq_f16_to_f32(h);
    }
    return p;
}

squish_status sq_codec_parse(sq_codec **out, sq_span file, const squish_alloc *a, squish_error *err) {
    sq_codec_info info;
    sq_codec *c;
    *out = NULL;
    SQ_TRY(read_header(file, &info, err));
    SQ_TRY(sq_codec_new(&c, &info.shape, a, err));
    c->info = info;
    c->sum = sq_kv_u64_at(file.p, 104);
    const size_t d = (size_t)info.shape.head_dim;
    const uint8_t *at = file.p + SQ_CODEC_HEADER;
    bool finite = true;
    for (int32_t p = 0; p < c->n_parts && finite; p++) {
        at = read_numbers(at, c->mean + (size_t)p * d, d, &finite);
        at = read_numbers(at, sq_codec_rows(c, p, 0, 0), d * SQ_CODEC_STAGES * SQ_PQ_ROWS, &finite);
    }
    if (!finite) {
        sq_codec_free(c);
        return sq_fail(err, SQUISH_CORRUPT, "codebooks: values that are not numbers");
    }
    *out = c;
    return SQUISH_OK;
}

squish_status sq_codec_open(sq_codec **out, const char *path, const squish_alloc *a, squish_error *err) {
    sq_map map;
    *out = NULL;
    SQ_TRY(sq_os_map_open(&map, path, err));
    squish_error inner = {0};
    const squish_status st = sq_codec_parse(out, (sq_span){map.data, map.bytes}, a, &inner);
    sq_os_map_close(&map);
    return st == SQUISH_OK ? st : sq_fail(err, st, "%.100s: %.130s", path, inner.text);
}
