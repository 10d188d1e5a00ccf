/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_look_file.c - fitted maps as a file: a safetensors header and the numbers behind it. */
#include "forge/forge_look.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static const char *const moments[SQ_LOOK_MOMENTS] = {"early", "late"};

squish_status sq_look_fit_new(sq_look_fit **out, const sq_model *m, const squish_alloc *a,
                              squish_error *err) {
    const sq_config *c = &m->cfg;
    const size_t n = (size_t)c->moe.n, h = (size_t)c->hidden, each = 2 * n * h + 2 * n;
    const size_t head = sizeof(sq_look_fit) + (size_t)c->n_layers * SQ_LOOK_MOMENTS * sizeof(sq_look_fit_map);
    size_t maps = 0;
    *out = NULL;
    for (int32_t t = 0; t < c->n_layers; t++) maps += m->layers[t].experts ? t > 0 ? 2 : 1 : 0;
    if (maps == 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no experts to look ahead for", m->info.path);
    sq_look_fit *f = sq_alloc_zero(a, head);
    if (!f) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    f->alloc = *a;
    f->m = m;
    f->bytes = maps * each * sizeof(float);
    f->floats = sq_alloc_zero(a, f->bytes);
    if (!f->floats) {
        sq_look_fit_free(f);
        return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    }
    float *p = f->floats;
    for (int32_t t = 0; t < c->n_layers; t++) {
        for (int32_t k = 0; m->layers[t].experts && k < SQ_LOOK_MOMENTS; k++) {
            if (t == 0 && k == SQ_LOOK_EARLY) continue;
            f->map[t][k] = (sq_look_fit_map){p, p + n * h, p + 2 * n * h};
            p += each;
        }
    }
    *out = f;
    return SQUISH_OK;
}

void sq_look_fit_free(sq_look_fit *f) {
    if (!f) return;
    squish_alloc a = f->alloc;
    const size_t n = (size_t)f->m->cfg.n_layers;
    sq_alloc_free(&a, f->floats, f->bytes);
    sq_alloc_free(&a, f, sizeof *f + n * SQ_LOOK_MOMENTS * sizeof(sq_look_fit_map));
}

/* ---- the file -------------------------------------------------------------------------------- */

typedef struct {
    sq_buf *head, *data;
    const sq_config *c;
} writer;

static void declare(const writer *w, int32_t t, int32_t k, const char *part, const char *type, int32_t rows,
                    int32_t cols, size_t bytes) {
    sq_buf_printf(w->head, ",\"%d.%s.%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}", t,
                  moments[k], part, type, rows, cols, w->data->len, w->data->len + bytes);
}

static void put_matrix(const writer *w, int32_t t, int32_t k, const char *part, const float *x) {
    const size_t n = (size_t)w->c->moe.n * (size_t)w->c->hidden;
    declare(w, t, k, part, "BF16", w->c->moe.n, w->c->hidden, n * 2);
    for (size_t i = 0; i < n; i++) {
        const uint16_t b = sq_f32_to_bf16(x[i]);
        const uint8_t le[2] = {(uint8_t)b, (uint8_t)(b >> 8)};
        sq_buf_append(w->data, le, sizeof le);
    }
}

static void put_bias(const writer *w, int32_t t, int32_t k, const float *x) {
    const size_t bytes = 2 * (size_t)w->c->moe.n * sizeof *x;
    declare(w, t, k, "bias", "F32", 2, w->c->moe.n, bytes);
    sq_buf_append(w->data, x, bytes);
}

static void put_maps(const writer *w, const sq_look_fit *f) {
    for (int32_t t = 0; t < w->c->n_layers; t++) {
        for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
            const sq_look_fit_map *m = &f->map[t][k];
            if (!m->now) continue;
            put_matrix(w, t, k, "now", m->now);
            put_matrix(w, t, k, "prev", m->prev);
            put_bias(w, t, k, m->bias);
        }
    }
}

/* Length of the header, the header, the data. */
static squish_status join(sq_buf *out, sq_buf *head, const sq_buf *data, squish_error *err) {
    while (head->len % 8) sq_buf_putc(head, ' ');
    uint8_t le[8];
    for (int32_t i = 0; i < 8; i++) le[i] = (uint8_t)((uint64_t)head->len >> (8 * i));
    sq_buf_append(out, le, sizeof le);
    sq_buf_append(out, head->data, head->len);
    sq_buf_append(out, data->data, data->len);
    if (head->failed || data->failed || out->failed)
        return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory for its file");
    return SQUISH_OK;
}

squish_status sq_look_fit_file(const sq_look_fit *f, sq_buf *out, squish_error *err) {
    enum { HEAD_MAX = 4 << 20 };
    sq_buf tensors, head, data;
    uint64_t model;
    SQ_TRY(sq_look_model_sum(f->m, &f->alloc, &model, err));
    sq_buf_init(&tensors, &f->alloc, HEAD_MAX);
    sq_buf_init(&head, &f->alloc, HEAD_MAX);
    sq_buf_init(&data, &f->alloc, (size_t)1 << 34);
    const writer w = {&tensors, &data, &f->m->cfg};
    put_maps(&w, f);
    const uint64_t sum = data.failed ? 0 : XXH3_64bits(data.data, data.len);
    sq_buf_printf(&head,
                  "{\"__metadata__\":{\"squish_lookahead\":\"1\",\"architecture\":\"%s\",\"tokens\":\"%lld\","
                  "\"model\":\"%016llx\",\"sum\":\"%016llx\"}%s}",
                  f->m->cfg.arch, (long long)f->tokens, (unsigned long long)model, (unsigned long long)sum,
                  tensors.data ? tensors.data : "");
    head.failed |= tensors.failed;
    const squish_status st = join(out, &head, &data, err);
    sq_buf_deinit(&tensors);
    sq_buf_deinit(&head);
    sq_buf_deinit(&data);
    return st;
}

squish_status sq_look_fit_publish(const sq_buf *file, const char *path, squish_error *err) {
    return sq_os_write_file(path, file->data, file->len, err);
}
