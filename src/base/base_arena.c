/* SPDX-License-Identifier: Apache-2.0
 *
 * base_arena.c - many small blocks with one lifetime.
 *
 *   head -> block -> block          each: | header | used ........ | free |
 *
 * New pieces are cut from the head. A piece larger than half a block gets a block of its own *behind* the
 * head, so the room left in the head is not thrown away. bytes_used counts what was taken from the allocator,
 * headers included: that is the number a ceiling has to bound when sizes come from a file. */
#include "base/base.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
enum { GAP_BYTES = 16 };
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
enum { GAP_BYTES = 0 };
#endif

enum { BLOCK_BYTES_MIN = 256 };

struct sq_arena_block {
    sq_arena_block *next;
    size_t bytes; /* of the whole block, this header included */
    size_t used;  /* header included */
};

static char *base_of(sq_arena_block *b) {
    return (char *)b;
}

void sq_arena_init(sq_arena *ar, const squish_alloc *a, size_t block_bytes, size_t bytes_max) {
    *ar = (sq_arena){.alloc = a && a->resize ? *a : sq_alloc_default(),
                     .block_bytes = block_bytes < BLOCK_BYTES_MIN ? BLOCK_BYTES_MIN : block_bytes,
                     .bytes_max = bytes_max};
}

static void free_chain(sq_arena *ar, sq_arena_block *b) {
    while (b) {
        sq_arena_block *next = b->next;
        ar->bytes_used -= b->bytes;
        UNPOISON(b, b->bytes);
        sq_alloc_free(&ar->alloc, b, b->bytes);
        b = next;
    }
}

void sq_arena_deinit(sq_arena *ar) {
    free_chain(ar, ar->head);
    ar->head = NULL;
}

void sq_arena_reset(sq_arena *ar) {
    if (!ar->head) return;
    free_chain(ar, ar->head->next);
    ar->head->next = NULL;
    ar->head->used = sizeof(sq_arena_block);
    POISON(base_of(ar->head) + ar->head->used, ar->head->bytes - ar->head->used);
}

/* A block with at least `room` bytes after its header, within bytes_max; not linked yet. NULL: no memory. */
static sq_arena_block *block_new(sq_arena *ar, size_t room, size_t wish) {
    size_t bytes = room + sizeof(sq_arena_block);
    size_t left = ar->bytes_max ? ar->bytes_max - ar->bytes_used : SIZE_MAX;
    if (bytes < room || bytes > left) return NULL;
    if (bytes < wish) bytes = wish < left ? wish : left;
    sq_arena_block *b = sq_alloc_new(&ar->alloc, bytes);
    if (!b) return NULL;
    *b = (sq_arena_block){.bytes = bytes, .used = sizeof(sq_arena_block)};
    ar->bytes_used += bytes;
    POISON(base_of(b) + b->used, b->bytes - b->used);
    return b;
}

/* Cut an aligned, zeroed piece out of b; NULL if it does not fit. bytes + align + gap does not wrap. */
static void *cut(sq_arena_block *b, size_t bytes, size_t align) {
    uintptr_t at = (uintptr_t)(base_of(b) + b->used);
    size_t skip = (size_t)(-at & (align - 1));
    if (skip + bytes + GAP_BYTES > b->bytes - b->used) return NULL;
    char *p = base_of(b) + b->used + skip;
    b->used += skip + bytes + GAP_BYTES;
    UNPOISON(p, bytes);
    return memset(p, 0, bytes);
}

void *sq_arena_alloc(sq_arena *ar, size_t bytes, size_t align) {
    if (bytes == 0) bytes = 1; /* NULL must mean failure only */
    if (bytes > SIZE_MAX / 2 || align > SIZE_MAX / 4) return NULL;
    void *p = ar->head ? cut(ar->head, bytes, align) : NULL;
    if (p) return p;
    size_t room = bytes + align + GAP_BYTES;
    if (ar->head && room > ar->block_bytes / 2) { /* own block behind the head */
        sq_arena_block *b = block_new(ar, room, 0);
        if (!b) return NULL;
        b->next = ar->head->next;
        ar->head->next = b;
        return cut(b, bytes, align);
    }
    sq_arena_block *b = block_new(ar, room, ar->block_bytes);
    if (!b) return NULL;
    b->next = ar->head;
    ar->head = b;
    return cut(b, bytes, align);
}

void *sq_arena_array(sq_arena *ar, size_t n, size_t size, size_t align) {
    uint64_t bytes;
    if (!sq_mul_ok(n, size, &bytes) || bytes > SIZE_MAX) return NULL;
    return sq_arena_alloc(ar, (size_t)bytes, align);
}

char *sq_arena_strndup(sq_arena *ar, const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = sq_arena_alloc(ar, n + 1, 1);
    if (p && n) memcpy(p, s, n);
    return p;
}
