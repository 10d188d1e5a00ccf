/* SPDX-License-Identifier: Apache-2.0
 *
 * base_alloc.c - the allocator table: the malloc family as default, and thin helpers over anybody's table.
 *
 * This is the only file that names malloc's family. A table that is NULL or empty means the default. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static void *resize_default(void *user, void *ptr, size_t old_bytes, size_t new_bytes) {
    (void)user;
    (void)old_bytes;
    if (new_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_bytes);
}

squish_alloc sq_alloc_default(void) {
    return (squish_alloc){resize_default, NULL};
}

static void *resize(const squish_alloc *a, void *p, size_t old_bytes, size_t new_bytes) {
    if (!a || !a->resize) return resize_default(NULL, p, old_bytes, new_bytes);
    return a->resize(a->user, p, old_bytes, new_bytes);
}

void *sq_alloc_new(const squish_alloc *a, size_t bytes) {
    return bytes == 0 ? NULL : resize(a, NULL, 0, bytes);
}

void *sq_alloc_zero(const squish_alloc *a, size_t bytes) {
    void *p = sq_alloc_new(a, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

void *sq_alloc_resize(const squish_alloc *a, void *p, size_t old_bytes, size_t new_bytes) {
    if (new_bytes == 0) {
        sq_alloc_free(a, p, old_bytes);
        return NULL;
    }
    return resize(a, p, p ? old_bytes : 0, new_bytes);
}

void sq_alloc_free(const squish_alloc *a, void *p, size_t bytes) {
    if (p) resize(a, p, bytes, 0);
}
