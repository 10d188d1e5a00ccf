/* SPDX-License-Identifier: Apache-2.0
 *
 * base_buf.c - growing byte buffer with a maximum at birth.
 *
 * Invariant: data is NULL and cap 0, or len < cap and data[len] is NUL. Once `failed` is set every append is
 * refused, so a sequence of appends never has a hole in the middle. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

enum { CAP_FIRST = 64 };

void sq_buf_init(sq_buf *b, const squish_alloc *a, size_t max) {
    *b = (sq_buf){.alloc = a && a->resize ? *a : sq_alloc_default(),
                  .max = max < SIZE_MAX / 4 ? max : SIZE_MAX / 4};
}

void sq_buf_deinit(sq_buf *b) {
    sq_alloc_free(&b->alloc, b->data, b->cap);
    b->data = NULL;
    b->len = b->cap = 0;
}

bool sq_buf_reserve(sq_buf *b, size_t extra) {
    if (b->failed) return false;
    if (extra > b->max - b->len) {
        b->failed = true;
        return false;
    }
    size_t need = b->len + extra + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? 2 * b->cap : CAP_FIRST;
    if (cap > b->max + 1) cap = b->max + 1;
    if (cap < need) cap = need;
    char *data = sq_alloc_resize(&b->alloc, b->data, b->cap, cap);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    b->data[b->len] = '\0';
    return true;
}

bool sq_buf_append(sq_buf *b, const void *bytes, size_t n) {
    if (!sq_buf_reserve(b, n)) return false;
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
    return true;
}

bool sq_buf_puts(sq_buf *b, const char *s) {
    return sq_buf_append(b, s, strlen(s));
}

bool sq_buf_putc(sq_buf *b, char c) {
    return sq_buf_append(b, &c, 1);
}

bool sq_buf_printf(sq_buf *b, const char *fmt, ...) {
    if (b->failed) return false;
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    bool ok = n >= 0 && sq_buf_reserve(b, (size_t)n);
    if (ok) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    if (n < 0) b->failed = true;
    return ok;
}

squish_status sq_buf_take(sq_buf *b, squish_text *out, squish_error *err) {
    *out = (squish_text){0};
    if (!sq_buf_reserve(b, 0))
        return sq_fail(err, SQUISH_NO_MEMORY, "a text of more than %zu bytes (limit %zu)", b->len, b->max);
    /* Exactly bytes + 1, so that squish_text_free can tell the allocator the size of the block. */
    char *data = sq_alloc_resize(&b->alloc, b->data, b->cap, b->len + 1);
    if (!data) return sq_fail(err, SQUISH_NO_MEMORY, "a text of %zu bytes", b->len);
    *out = (squish_text){data, b->len, b->alloc};
    b->data = NULL;
    b->len = b->cap = 0;
    return SQUISH_OK;
}
