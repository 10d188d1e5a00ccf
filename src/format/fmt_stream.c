/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_stream.c - what the writers of safetensors and GGUF share: tensors declared one by one, a header in
 * front of them, then data in any order.
 *
 *   collecting --begin--> filling --finish--> finished
 *
 * While filling, several threads may put at once: each put is one positioned write and one atomic count. All
 * else belongs to one thread. The file has a temporary name until finish. */
#include "format/fmt_stream.h"

#include "format/limits.h"

#include <string.h>

static squish_status no_memory(const sq_fmt_stream *s, squish_error *err) {
    return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory for its tables", s->path ? s->path : "?");
}

squish_status sq_fmt_stream_init(sq_fmt_stream *s, const char *path, const squish_alloc *a,
                                 squish_error *err) {
    *s = (sq_fmt_stream){.alloc = *a, .file.fd = -1};
    sq_arena_init(&s->arena, a, 16384, 0);
    s->path = sq_arena_strndup(&s->arena, path, strlen(path));
    return s->path ? SQUISH_OK : no_memory(s, err);
}

void sq_fmt_stream_deinit(sq_fmt_stream *s) {
    sq_os_newfile_abandon(&s->file);
    sq_alloc_free(&s->alloc, (void *)s->put, s->n * sizeof *s->put);
    sq_alloc_free(&s->alloc, s->items, s->cap * sizeof *s->items);
    sq_arena_deinit(&s->arena);
}

squish_status sq_fmt_stream_phase(const sq_fmt_stream *s, sq_fmt_phase wanted, const char *what,
                                  squish_error *err) {
    static const char *const names[] = {"before", "while filling after", "after the end of"};
    if (s->phase == wanted) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "'%s': %s is called %s the layout", s->path, what, names[s->phase]);
}

squish_status sq_fmt_stream_add(sq_fmt_stream *s, const sq_ftensor *t, uint64_t align, size_t *index,
                                squish_error *err) {
    size_t len = strlen(t->name);
    SQ_TRY(sq_fmt_stream_phase(s, SQ_FMT_COLLECTING, "tensor", err));
    if (len < 1 || len > SQ_MAX_NAME || !sq_utf8_valid(t->name, len) || s->n == SQ_MAX_TENSORS)
        return sq_fail(err, SQUISH_INVALID, "tensor %u of '%s': a name of %zu bytes, wanted 1 to %d of UTF-8",
                       s->n, s->path, len, SQ_MAX_NAME);
    if (s->n == s->cap) {
        uint32_t more = s->cap ? 2 * s->cap : 64;
        void *p = sq_alloc_resize(&s->alloc, s->items, s->cap * sizeof *s->items, more * sizeof *s->items);
        if (!p) return no_memory(s, err);
        s->items = p;
        s->cap = more;
    }
    sq_fmt_item *item = &s->items[s->n];
    *item = (sq_fmt_item){.t = *t};
    item->t.name = sq_arena_strndup(&s->arena, t->name, len);
    if (!item->t.name) return no_memory(s, err);
    uint64_t end;
    if (!sq_add_ok(s->data_bytes, align - 1, &item->offset))
        return sq_fail(err, SQUISH_INVALID, "too many bytes");
    item->offset = item->offset / align * align;
    if (!sq_add_ok(item->offset, t->bytes, &end) || end > INT64_MAX - SQ_MAX_ST_HEADER)
        return sq_fail(err, SQUISH_INVALID, "'%s': more bytes than a file can have", s->path);
    s->data_bytes = end;
    *index = s->n++;
    return SQUISH_OK;
}

static bool name_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_fmt_item *items = ctx;
    return strcmp(items[a].t.name, items[b].t.name) < 0;
}

squish_status sq_fmt_stream_check_names(sq_fmt_stream *s, squish_error *err) {
    uint32_t *order = SQ_ARENA_ARRAY(&s->arena, uint32_t, s->n);
    if (s->n && !order) return no_memory(s, err);
    for (uint32_t i = 0; i < s->n; i++) order[i] = i;
    sq_fmt_sort(order, s->n, name_less, s->items);
    for (uint32_t i = 1; i < s->n; i++) {
        if (!name_less(s->items, order[i - 1], order[i]))
            return sq_fail(err, SQUISH_INVALID, "tensor '%s' is given twice", s->items[order[i]].t.name);
    }
    return SQUISH_OK;
}

squish_status sq_fmt_stream_begin(sq_fmt_stream *s, const void *head, size_t n, uint64_t tail,
                                  uint64_t *file_bytes, squish_error *err) {
    if (s->n && !s->put) s->put = sq_alloc_zero(&s->alloc, s->n * sizeof *s->put);
    if (s->n && !s->put) return no_memory(s, err);
    s->phase = SQ_FMT_FILLING;
    s->data_at = n;
    *file_bytes = n + s->data_bytes + tail;
    SQ_TRY(sq_os_newfile_open(&s->file, s->path, *file_bytes, err));
    SQ_TRY(sq_os_newfile_resize(&s->file, *file_bytes, 0, err)); /* padding reads as 0 */
    return sq_os_newfile_write_at(&s->file, 0, head, n, err);
}

squish_status sq_fmt_stream_put(sq_fmt_stream *s, size_t index, uint64_t at, const void *p, size_t n,
                                squish_error *err) {
    SQ_TRY(sq_fmt_stream_phase(s, SQ_FMT_FILLING, "put", err));
    if (index >= s->n)
        return sq_fail(err, SQUISH_INVALID, "'%s': put into tensor %zu of %u", s->path, index, s->n);
    const sq_fmt_item *item = &s->items[index];
    if (at > item->t.bytes || n > item->t.bytes - at)
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': put of %zu bytes at %" PRIu64 " of %" PRIu64,
                       item->t.name, n, at, item->t.bytes);
    SQ_TRY(sq_os_newfile_write_at(&s->file, s->data_at + item->offset + at, p, n, err));
    atomic_fetch_add_explicit(&s->put[index], n, memory_order_relaxed);
    return SQUISH_OK;
}

squish_status sq_fmt_stream_finish(sq_fmt_stream *s, squish_error *err) {
    SQ_TRY(sq_fmt_stream_phase(s, SQ_FMT_FILLING, "finish", err));
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t put = atomic_load_explicit(&s->put[i], memory_order_relaxed);
        if (put != s->items[i].t.bytes)
            return sq_fail(err, SQUISH_INVALID, "tensor '%s': %" PRIu64 " bytes were put, it has %" PRIu64,
                           s->items[i].t.name, put, s->items[i].t.bytes);
    }
    s->phase = SQ_FMT_FINISHED;
    return sq_os_newfile_publish(&s->file, err);
}
