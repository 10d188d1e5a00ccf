/* SPDX-License-Identifier: Apache-2.0
 *
 * model_heads_file.c - the file of heads: read as bytes of anybody, written with its sums. */
#include "model/model_heads.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { HEADER = 128, REST_SUM_AT = 48, SUM_AT = HEADER - 8 };
static const char magic[8] = {'s', 'q', 'u', 'i', 's', 'h', 'H', 'D'};

/* ---- layout ---------------------------------------------------------------------------------- */

static squish_status check_head(const sq_heads_head *h, squish_error *err) {
    if (h->n < 1 || h->n > SQ_HEADS_MAX)
        return sq_fail(err, SQUISH_INVALID, "%d heads, wanted 1 to %d", h->n, SQ_HEADS_MAX);
    if (h->hidden < SQ_GROUP || h->hidden > SQ_MAX_HIDDEN || h->hidden % SQ_GROUP)
        return sq_fail(err, SQUISH_INVALID, "hidden size %d, wanted a multiple of %d up to %d", h->hidden,
                       SQ_GROUP, SQ_MAX_HIDDEN);
    if (h->n_vocab < 1 || h->n_vocab > SQ_MAX_VOCAB)
        return sq_fail(err, SQUISH_INVALID, "a vocabulary of %d, wanted 1 to %d", h->n_vocab, SQ_MAX_VOCAB);
    if (h->n_ids < 1 || h->n_ids > SQ_HEADS_IDS_MAX || h->n_ids > h->n_vocab)
        return sq_fail(err, SQUISH_INVALID, "%d ids of a vocabulary of %d, wanted 1 to %d", h->n_ids,
                       h->n_vocab, h->n_vocab < SQ_HEADS_IDS_MAX ? h->n_vocab : SQ_HEADS_IDS_MAX);
    if (h->type != SQ_W_I4_G64 && h->type != SQ_W_I8_G64)
        return sq_fail(err, SQUISH_INVALID, "weight type %d, wanted %d (int4-g64) or %d (int8-g64)",
                       (int)h->type, SQ_W_I4_G64, SQ_W_I8_G64);
    return SQUISH_OK;
}

static size_t take(size_t *at, uint64_t bytes) {
    const size_t here = *at;
    *at = sq_align_up(here + (size_t)bytes, SQ_HEADS_ALIGN);
    return here;
}

squish_status sq_heads_layout_of(const sq_heads_head *h, sq_heads_layout *l, squish_error *err) {
    size_t at = HEADER;
    SQ_TRY(check_head(h, err));
    *l = (sq_heads_layout){.ids = take(&at, (uint64_t)h->n_ids * sizeof(int32_t))};
    for (int32_t i = 0; i < h->n; i++) {
        uint64_t in, mid;
        /* 2^17 squared times 9 is far from an overflow. */
        sq_weight_bytes(h->type, h->hidden, (int64_t)(i + 2) * h->hidden, &in);
        sq_weight_bytes(h->type, h->hidden, h->hidden, &mid);
        l->in_bias[i] = take(&at, (uint64_t)h->hidden * sizeof(float));
        l->mid_bias[i] = take(&at, (uint64_t)h->hidden * sizeof(float));
        l->in[i] = take(&at, in);
        l->mid[i] = take(&at, mid);
    }
    l->bytes = at;
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void put(uint8_t **p, const void *v, size_t n) {
    memcpy(*p, v, n);
    *p += n;
}

void sq_heads_write_header(const sq_heads_head *h, const sq_heads_layout *l, uint8_t *file) {
    uint8_t *p = file;
    const uint32_t words[] = {SQ_HEADS_VERSION,   (uint32_t)h->n,       (uint32_t)h->hidden,
                              (uint32_t)h->n_ids, (uint32_t)h->n_vocab, (uint32_t)h->type};
    const uint32_t zero = 0;
    const uint64_t sum = XXH3_64bits(file + HEADER, l->bytes - HEADER);
    memset(file, 0, HEADER);
    put(&p, magic, sizeof magic);
    put(&p, words, sizeof words);
    put(&p, &h->embed_scale, sizeof h->embed_scale);
    put(&p, &zero, sizeof zero);
    put(&p, &h->model, sizeof h->model);
    put(&p, &sum, sizeof sum);
    put(&p, h->agreement, sizeof h->agreement);
    const uint64_t own = XXH3_64bits(file, SUM_AT);
    memcpy(file + SUM_AT, &own, sizeof own);
}

/* ---- reading --------------------------------------------------------------------------------- */

static squish_status read_header(sq_span file, const char *name, sq_heads_head *h, sq_heads_layout *l,
                                 squish_error *err) {
    sq_cur c = sq_cur_make(file);
    const sq_span m = sq_cur_bytes(&c, sizeof magic);
    if (!sq_cur_ok(&c) || memcmp(m.p, magic, sizeof magic) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: not a file of heads", name);
    const uint32_t version = sq_cur_u32(&c);
    if (sq_cur_ok(&c) && version != SQ_HEADS_VERSION)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: heads of version %u, wanted %d", name, version,
                       SQ_HEADS_VERSION);
    *h = (sq_heads_head){.n = (int32_t)sq_cur_u32(&c)};
    h->hidden = (int32_t)sq_cur_u32(&c);
    h->n_ids = (int32_t)sq_cur_u32(&c);
    h->n_vocab = (int32_t)sq_cur_u32(&c);
    h->type = (sq_wtype)sq_cur_u32(&c);
    h->embed_scale = sq_cur_f32(&c);
    sq_cur_u32(&c);
    h->model = sq_cur_u64(&c);
    sq_cur_u64(&c); /* the sum of the rest: sq_heads_check */
    for (int32_t i = 0; i < SQ_HEADS_MAX; i++) h->agreement[i] = sq_cur_f32(&c);
    if (!sq_cur_ok(&c) || file.n < HEADER)
        return sq_fail(err, SQUISH_CORRUPT, "%s: the header is cut off", name);
    uint64_t own;
    memcpy(&own, file.p + SUM_AT, sizeof own);
    if (own != XXH3_64bits(file.p, SUM_AT))
        return sq_fail(err, SQUISH_CORRUPT, "%s: the sum of the header is wrong", name);
    squish_error why = {0};
    if (sq_heads_layout_of(h, l, &why) != SQUISH_OK)
        return sq_fail(err, SQUISH_CORRUPT, "%s: %s", name, why.text);
    if (file.n != l->bytes)
        return sq_fail(err, SQUISH_CORRUPT, "%s: %zu bytes, wanted %zu", name, file.n, l->bytes);
    return SQUISH_OK;
}

squish_status sq_heads_check(const sq_heads *h, squish_error *err) {
    uint64_t sum;
    memcpy(&sum, h->file.p + REST_SUM_AT, sizeof sum);
    if (sum != XXH3_64bits(h->file.p + HEADER, h->file.n - HEADER))
        return sq_fail(err, SQUISH_CORRUPT, "heads: the sum of the weights is wrong");
    for (int32_t i = 0; i < h->n_ids; i++)
        if (h->ids[i] < 0 || h->ids[i] >= h->n_vocab || (i > 0 && h->ids[i] <= h->ids[i - 1]))
            return sq_fail(err, SQUISH_CORRUPT, "heads: id %d is %d, wanted rising ones below %d", i,
                           h->ids[i], h->n_vocab);
    return SQUISH_OK;
}

squish_status sq_heads_parse(sq_heads **out, sq_span file, const char *name, const squish_alloc *a,
                             squish_error *err) {
    sq_heads_head head;
    sq_heads_layout l;
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    *out = NULL;
    if ((uintptr_t)file.p % _Alignof(float))
        return sq_fail(err, SQUISH_CORRUPT, "%s: does not lie on a multiple of %zu", name, _Alignof(float));
    SQ_TRY(read_header(file, name, &head, &l, err));
    sq_heads *h = sq_alloc_zero(&alloc, sizeof *h);
    if (!h) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    *h = (sq_heads){.alloc = alloc,
                    .n = head.n,
                    .hidden = head.hidden,
                    .n_ids = head.n_ids,
                    .n_vocab = head.n_vocab,
                    .embed_scale = head.embed_scale,
                    .model = head.model,
                    .file = file,
                    .ids = (const int32_t *)(const void *)(file.p + l.ids)};
    memcpy(h->agreement, head.agreement, sizeof h->agreement);
    for (int32_t i = 0; i < h->n; i++)
        h->head[i] = (sq_head){
            sq_weight_make(head.type, SQ_SCALE_F16, h->hidden, (i + 2) * h->hidden, file.p + l.in[i]),
            sq_weight_make(head.type, SQ_SCALE_F16, h->hidden, h->hidden, file.p + l.mid[i]),
            (const float *)(const void *)(file.p + l.in_bias[i]),
            (const float *)(const void *)(file.p + l.mid_bias[i])};
    *out = h;
    return SQUISH_OK;
}

void sq_heads_close(sq_heads *h) {
    if (!h) return;
    const squish_alloc a = h->alloc;
    if (h->map.data) sq_os_map_close(&h->map);
    sq_alloc_free(&a, h, sizeof *h);
}

/* ---- with a base ----------------------------------------------------------------------------- */

uint64_t sq_heads_model(const sq_model *m) {
    const sq_config *c = &m->cfg;
    const int32_t shape[] = {c->n_layers,   c->hidden,   c->ffn,    c->n_heads,
                             c->n_kv_heads, c->head_dim, c->n_vocab};
    uint64_t h = XXH3_64bits(shape, sizeof shape);
    h = XXH3_64bits_withSeed(c->arch, sizeof c->arch, h);
    return XXH3_64bits_withSeed(m->final_norm, (size_t)c->hidden * sizeof *m->final_norm, h);
}

squish_status sq_heads_open(sq_heads **out, const char *path, const sq_model *m, squish_error *err) {
    sq_map map;
    sq_heads *h;
    *out = NULL;
    SQ_TRY(sq_os_map_open(&map, path, err));
    squish_status st = sq_heads_parse(&h, (sq_span){map.data, map.bytes}, path, &m->alloc, err);
    if (st != SQUISH_OK) {
        sq_os_map_close(&map);
        return st;
    }
    h->map = map;
    if (h->model == sq_heads_model(m) && h->hidden == m->cfg.hidden && h->n_vocab == m->cfg.n_vocab) {
        *out = h;
        return SQUISH_OK;
    }
    st = sq_fail(err, SQUISH_INVALID,
                 "%s: heads of another model (hidden size %d, vocabulary %d; this one has %d, %d)", path,
                 h->hidden, h->n_vocab, m->cfg.hidden, m->cfg.n_vocab);
    sq_heads_close(h);
    return st;
}
