/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_st_write.c - the streaming writer of safetensors.
 *
 *   | length | {"__metadata__":{..},"name":{..},..} and spaces | data, from a multiple of 4096 on, no holes |
 *
 * The format knows no padding between tensors, so their alignment follows from the order of declaration. No
 * threads but in put (fmt_stream.c). */
#include "format/fmt_stream.h"
#include "format/limits.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, DATA_ALIGN = 4096 };

struct sq_st_writer {
    sq_fmt_stream s;
    sq_buf meta, head; /* the metadata object without its end; the whole header */
};

squish_status sq_st_writer_new(sq_st_writer **out, const char *path, const squish_alloc *a,
                               squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_st_writer *w = sq_alloc_zero(&alloc, sizeof *w);
    if (!w) return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory", path);
    sq_buf_init(&w->meta, &alloc, SQ_MAX_ST_HEADER);
    sq_buf_init(&w->head, &alloc, SQ_MAX_ST_HEADER + LENGTH_BYTES);
    squish_status st = sq_fmt_stream_init(&w->s, path, &alloc, err);
    if (st != SQUISH_OK) {
        sq_st_writer_free(w);
        return st;
    }
    *out = w;
    return SQUISH_OK;
}

void sq_st_writer_free(sq_st_writer *w) {
    if (!w) return;
    squish_alloc alloc = w->s.alloc;
    sq_buf_deinit(&w->meta);
    sq_buf_deinit(&w->head);
    sq_fmt_stream_deinit(&w->s);
    sq_alloc_free(&alloc, w, sizeof *w);
}

/* Text as a JSON string; false: no memory, or not UTF-8. */
static bool add_string(sq_buf *b, const char *text) {
    json_t *s = json_string(text);
    char *quoted = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;
    bool ok = quoted && sq_buf_puts(b, quoted);
    free(quoted);
    json_decref(s);
    return ok;
}

squish_status sq_st_writer_meta(sq_st_writer *w, const char *key, const char *value, squish_error *err) {
    SQ_TRY(sq_fmt_stream_phase(&w->s, SQ_FMT_COLLECTING, "meta", err));
    if (!sq_utf8_valid(key, strlen(key)) || !sq_utf8_valid(value, strlen(value)))
        return sq_fail(err, SQUISH_INVALID, "'%s': metadata that are not UTF-8", w->s.path);
    bool ok = sq_buf_putc(&w->meta, w->meta.len ? ',' : '{');
    ok = ok && add_string(&w->meta, key) && sq_buf_putc(&w->meta, ':') && add_string(&w->meta, value);
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its metadata", w->s.path);
}

squish_status sq_st_writer_tensor(sq_st_writer *w, const sq_ftensor *t, size_t *index, squish_error *err) {
    uint64_t bytes = sq_dtype_bytes(t->dtype);
    bool ok = bytes > 0 && t->n_dims >= 0 && t->n_dims <= SQ_MAX_DIMS && strcmp(t->name, "__metadata__") != 0;
    for (int32_t d = 0; ok && d < t->n_dims; d++) ok = sq_mul_ok(bytes, t->dims[d], &bytes);
    if (!ok || bytes != t->bytes)
        return sq_fail(err, SQUISH_INVALID,
                       "tensor '%s': %s with %d dimensions and %" PRIu64 " bytes, its shape wants %" PRIu64,
                       t->name, sq_dtype_name(t->dtype), (int)t->n_dims, t->bytes, bytes);
    return sq_fmt_stream_add(&w->s, t, 1, index, err);
}

static void add_entry(sq_buf *b, const sq_fmt_item *item) {
    const sq_ftensor *t = &item->t;
    if (!add_string(b, t->name)) b->failed = true;
    sq_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", sq_dtype_name(t->dtype));
    for (int32_t d = 0; d < t->n_dims; d++) sq_buf_printf(b, "%s%" PRIu64, d ? "," : "", t->dims[d]);
    sq_buf_printf(b, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", item->offset, item->offset + t->bytes);
}

squish_status sq_st_writer_layout(sq_st_writer *w, uint64_t *file_bytes, squish_error *err) {
    SQ_TRY(sq_fmt_stream_phase(&w->s, SQ_FMT_COLLECTING, "layout", err));
    SQ_TRY(sq_fmt_stream_check_names(&w->s, err));
    sq_buf *b = &w->head;
    uint64_t length = 0;
    b->len = 0;
    sq_buf_append(b, &length, sizeof length);
    sq_buf_putc(b, '{');
    if (w->meta.len) sq_buf_printf(b, "\"__metadata__\":%s}%s", w->meta.data, w->s.n ? "," : "");
    for (uint32_t i = 0; i < w->s.n && !b->failed; i++) {
        if (i) sq_buf_putc(b, ',');
        add_entry(b, &w->s.items[i]);
    }
    sq_buf_putc(b, '}');
    size_t padding = sq_align_up(b->len, DATA_ALIGN) - b->len;
    for (size_t i = 0; i < padding && sq_buf_putc(b, ' '); i++) {}
    if (b->failed || w->meta.failed)
        return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its header, or more than %d bytes of it",
                       w->s.path, SQ_MAX_ST_HEADER);
    length = b->len - LENGTH_BYTES;
    memcpy(b->data, &length, sizeof length);
    return sq_fmt_stream_begin(&w->s, b->data, b->len, 0, file_bytes, err);
}

squish_status sq_st_writer_put(sq_st_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                               squish_error *err) {
    return sq_fmt_stream_put(&w->s, index, at, p, n, err);
}

squish_status sq_st_writer_finish(sq_st_writer *w, squish_error *err) {
    return sq_fmt_stream_finish(&w->s, err);
}
