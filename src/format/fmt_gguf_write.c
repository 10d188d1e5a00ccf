/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_gguf_write.c - the writer of GGUF version 3, alignment 32.
 *
 * Keys are laid down in their final form as they come; tensor infos follow at the layout, when all offsets
 * are known. No threads but in put (fmt_stream.c). */
#include "format/fmt_stream.h"
#include "format/limits.h"

#include <string.h>

enum { ALIGN = 32, DIMS_MAX = 4, KEY_BYTES_MAX = 65535, HEAD_MAX = 1 << 30 };

typedef struct key_seen {
    struct key_seen *next;
    sq_span key;
} key_seen;

struct sq_gguf_writer {
    sq_fmt_stream s;
    sq_buf kv, head;
    uint64_t n_kv;
    key_seen *keys; /* in the arena */
};

squish_status sq_gguf_writer_new(sq_gguf_writer **out, const char *path, const squish_alloc *a,
                                 squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_gguf_writer *w = sq_alloc_zero(&alloc, sizeof *w);
    if (!w) return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory", path);
    sq_buf_init(&w->kv, &alloc, HEAD_MAX);
    sq_buf_init(&w->head, &alloc, HEAD_MAX);
    squish_status st = sq_fmt_stream_init(&w->s, path, &alloc, err);
    if (st != SQUISH_OK) {
        sq_gguf_writer_free(w);
        return st;
    }
    *out = w;
    return SQUISH_OK;
}

void sq_gguf_writer_free(sq_gguf_writer *w) {
    if (!w) return;
    squish_alloc alloc = w->s.alloc;
    sq_buf_deinit(&w->kv);
    sq_buf_deinit(&w->head);
    sq_fmt_stream_deinit(&w->s);
    sq_alloc_free(&alloc, w, sizeof *w);
}

/* ---- keys ------------------------------------------------------------------------------------ */

static bool add_u32(sq_buf *b, uint32_t v) { return sq_buf_append(b, &v, sizeof v); }
static bool add_u64(sq_buf *b, uint64_t v) { return sq_buf_append(b, &v, sizeof v); }
static bool add_span(sq_buf *b, sq_span s) { return add_u64(b, s.n) && sq_buf_append(b, s.p, s.n); }

static sq_span span_of(const char *text) { return (sq_span){(const uint8_t *)text, strlen(text)}; }

static squish_status no_memory(const sq_gguf_writer *w, squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its keys", w->s.path);
}

/* Key and type; the value follows by the caller, who ends with end_kv. */
static squish_status begin_kv(sq_gguf_writer *w, sq_span key, sq_gguf_type type, squish_error *err) {
    SQ_TRY(sq_fmt_stream_phase(&w->s, SQ_FMT_COLLECTING, "a key", err));
    if (key.n < 1 || key.n > KEY_BYTES_MAX || !sq_utf8_valid((const char *)key.p, key.n) ||
        memchr(key.p, 0, key.n) || w->n_kv == SQ_MAX_GGUF_KV)
        return sq_fail(err, SQUISH_INVALID, "'%s': key %" PRIu64 " of %zu bytes, wanted 1 to %d of UTF-8",
                       w->s.path, w->n_kv, key.n, KEY_BYTES_MAX);
    for (const key_seen *k = w->keys; k; k = k->next) {
        if (k->key.n == key.n && memcmp(k->key.p, key.p, key.n) == 0)
            return sq_fail(err, SQUISH_INVALID, "'%s': key '%s' is given twice", w->s.path,
                           (const char *)k->key.p);
    }
    key_seen *seen = SQ_ARENA_NEW(&w->s.arena, key_seen);
    const char *copy = seen ? sq_arena_strndup(&w->s.arena, (const char *)key.p, key.n) : NULL;
    if (!copy || !add_span(&w->kv, key) || !add_u32(&w->kv, type)) return no_memory(w, err);
    *seen = (key_seen){w->keys, {(const uint8_t *)copy, key.n}};
    w->keys = seen;
    w->n_kv++;
    return SQUISH_OK;
}

static squish_status end_kv(const sq_gguf_writer *w, squish_error *err) {
    return w->kv.failed ? no_memory(w, err) : SQUISH_OK;
}

squish_status sq_gguf_writer_u32(sq_gguf_writer *w, const char *key, uint32_t v, squish_error *err) {
    SQ_TRY(begin_kv(w, span_of(key), SQ_GGUF_U32, err));
    add_u32(&w->kv, v);
    return end_kv(w, err);
}

squish_status sq_gguf_writer_f32(sq_gguf_writer *w, const char *key, float v, squish_error *err) {
    SQ_TRY(begin_kv(w, span_of(key), SQ_GGUF_F32, err));
    sq_buf_append(&w->kv, &v, sizeof v);
    return end_kv(w, err);
}

squish_status sq_gguf_writer_bool(sq_gguf_writer *w, const char *key, bool v, squish_error *err) {
    SQ_TRY(begin_kv(w, span_of(key), SQ_GGUF_BOOL, err));
    sq_buf_putc(&w->kv, v ? 1 : 0);
    return end_kv(w, err);
}

squish_status sq_gguf_writer_str(sq_gguf_writer *w, const char *key, sq_span v, squish_error *err) {
    SQ_TRY(begin_kv(w, span_of(key), SQ_GGUF_STRING, err));
    add_span(&w->kv, v);
    return end_kv(w, err);
}

static squish_status begin_array(sq_gguf_writer *w, sq_span key, sq_gguf_type item, uint64_t n,
                                 squish_error *err) {
    SQ_TRY(begin_kv(w, key, SQ_GGUF_ARRAY, err));
    add_u32(&w->kv, item);
    add_u64(&w->kv, n);
    return end_kv(w, err);
}

squish_status sq_gguf_writer_strings(sq_gguf_writer *w, const char *key, const sq_span *v, size_t n,
                                     squish_error *err) {
    SQ_TRY(begin_array(w, span_of(key), SQ_GGUF_STRING, n, err));
    for (size_t i = 0; i < n; i++) add_span(&w->kv, v[i]);
    return end_kv(w, err);
}

squish_status sq_gguf_writer_array(sq_gguf_writer *w, const char *key, sq_gguf_type item, const void *v,
                                   size_t n, squish_error *err) {
    if (item != SQ_GGUF_I32 && item != SQ_GGUF_U32 && item != SQ_GGUF_F32)
        return sq_fail(err, SQUISH_INVALID, "'%s': an array of items of type %d, wanted i32, u32 or f32",
                       w->s.path, (int)item);
    SQ_TRY(begin_array(w, span_of(key), item, n, err));
    sq_buf_append(&w->kv, v, n * sizeof(uint32_t));
    return end_kv(w, err);
}

/* Keys that speak of the file they stood in. */
static bool is_of_the_file(sq_span key) {
    static const char split[] = "split.", align[] = "general.alignment";
    return (key.n >= sizeof split - 1 && memcmp(key.p, split, sizeof split - 1) == 0) ||
           (key.n == sizeof align - 1 && memcmp(key.p, align, sizeof align - 1) == 0);
}

squish_status sq_gguf_writer_kv(sq_gguf_writer *w, const sq_gguf_kv *kv, squish_error *err) {
    if (is_of_the_file(kv->key)) return SQUISH_OK;
    if (kv->type == SQ_GGUF_ARRAY) {
        SQ_TRY(begin_array(w, kv->key, kv->item_type, kv->count, err));
    } else {
        SQ_TRY(begin_kv(w, kv->key, kv->type, err));
        if (kv->type == SQ_GGUF_STRING) add_u64(&w->kv, kv->value.n);
    }
    sq_buf_append(&w->kv, kv->value.p, kv->value.n); /* a string array's items carry their lengths already */
    return end_kv(w, err);
}

/* ---- tensors --------------------------------------------------------------------------------- */

squish_status sq_gguf_writer_tensor(sq_gguf_writer *w, const sq_ftensor *t, size_t *index,
                                    squish_error *err) {
    const char *type_name = "?";
    uint32_t type, items = 0, block_bytes = 0;
    uint64_t bytes = 1;
    bool ok = sq_fmt_gguf_id(t->dtype, &type) && sq_fmt_gguf_type(type, &type_name, &items, &block_bytes) &&
              t->n_dims >= 1 && t->n_dims <= DIMS_MAX;
    for (int32_t d = 0; ok && d < t->n_dims; d++) ok = t->dims[d] > 0 && sq_mul_ok(bytes, t->dims[d], &bytes);
    ok = ok && t->dims[t->n_dims - 1] % items == 0 && sq_mul_ok(bytes / items, block_bytes, &bytes);
    if (!ok || bytes != t->bytes)
        return sq_fail(err, SQUISH_INVALID,
                       "tensor '%s': %s with %d dimensions and %" PRIu64 " bytes, its shape wants %" PRIu64,
                       t->name, type_name, (int)t->n_dims, t->bytes, ok ? bytes : 0);
    return sq_fmt_stream_add(&w->s, t, ALIGN, index, err);
}

static void add_info(sq_buf *b, const sq_fmt_item *item) {
    const sq_ftensor *t = &item->t;
    uint32_t type = 0;
    add_span(b, span_of(t->name));
    add_u32(b, (uint32_t)t->n_dims);
    for (int32_t d = t->n_dims - 1; d >= 0; d--) add_u64(b, t->dims[d]); /* innermost first */
    (void)sq_fmt_gguf_id(t->dtype, &type); /* was asked when the tensor was declared */
    add_u32(b, type);
    add_u64(b, item->offset);
}

squish_status sq_gguf_writer_layout(sq_gguf_writer *w, uint64_t *file_bytes, squish_error *err) {
    static const uint8_t zero[ALIGN];
    sq_buf *b = &w->head;
    SQ_TRY(sq_fmt_stream_phase(&w->s, SQ_FMT_COLLECTING, "layout", err));
    SQ_TRY(end_kv(w, err));
    SQ_TRY(sq_fmt_stream_check_names(&w->s, err));
    b->len = 0;
    sq_buf_append(b, "GGUF", 4);
    add_u32(b, 3);
    add_u64(b, w->s.n);
    add_u64(b, w->n_kv);
    sq_buf_append(b, w->kv.data, w->kv.len);
    for (uint32_t i = 0; i < w->s.n; i++) add_info(b, &w->s.items[i]);
    sq_buf_append(b, zero, sq_align_up(b->len, ALIGN) - b->len);
    if (b->failed) return no_memory(w, err);
    uint64_t tail = (ALIGN - w->s.data_bytes % ALIGN) % ALIGN; /* the last tensor is padded like the others */
    return sq_fmt_stream_begin(&w->s, b->data, b->len, tail, file_bytes, err);
}

squish_status sq_gguf_writer_put(sq_gguf_writer *w, size_t index, uint64_t at, const void *p, size_t n,
                                 squish_error *err) {
    return sq_fmt_stream_put(&w->s, index, at, p, n, err);
}

squish_status sq_gguf_writer_finish(sq_gguf_writer *w, squish_error *err) {
    return sq_fmt_stream_finish(&w->s, err);
}
