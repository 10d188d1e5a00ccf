/* SPDX-License-Identifier: Apache-2.0
 *
 * faults.c - the counting and failing allocator of the tests. */
#include "support/faults.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* In front of each block; 16 bytes keep malloc's alignment for what follows. */
typedef struct {
    size_t bytes, magic;
} head;
_Static_assert(sizeof(head) == 16, "the block behind the head stays aligned");

static const size_t magic = (size_t)0x5155495348u;

static void account(struct sq_test_alloc_state *s, int64_t blocks, int64_t bytes) {
    atomic_fetch_add(&s->live_blocks, blocks);
    int64_t now = atomic_fetch_add(&s->live_bytes, bytes) + bytes;
    int64_t peak = atomic_load(&s->peak_bytes);
    while (now > peak && !atomic_compare_exchange_weak(&s->peak_bytes, &peak, now)) {}
}

static bool refuses(struct sq_test_alloc_state *s) {
    int64_t n = atomic_fetch_add(&s->count, 1) + 1;
    return s->fail_at > 0 && (n == s->fail_at || (s->persistent && n > s->fail_at));
}

/* Always moves, so that a pointer kept across a resize is found by ASan. */
static void *resize(void *user, void *ptr, size_t old_bytes, size_t new_bytes) {
    struct sq_test_alloc_state *s = user;
    head *old = ptr ? (head *)ptr - 1 : NULL;
    if (old && old->magic != magic) abort();
    if ((old ? old->bytes : 0) != old_bytes) atomic_fetch_add(&s->wrong_sizes, 1);
    head *fresh = NULL;
    if (new_bytes) {
        if (refuses(s)) return NULL;
        fresh = malloc(sizeof *fresh + new_bytes);
        if (!fresh) return NULL;
        *fresh = (head){new_bytes, magic};
        memset(fresh + 1, 0xA5, new_bytes); /* nobody may count on zeros */
        account(s, 1, (int64_t)new_bytes);
    }
    if (old) {
        if (fresh) memcpy(fresh + 1, old + 1, old->bytes < new_bytes ? old->bytes : new_bytes);
        account(s, -1, -(int64_t)old->bytes);
        old->magic = 0;
        free(old);
    }
    return fresh ? fresh + 1 : NULL;
}

squish_alloc sq_test_alloc(struct sq_test_alloc_state *state) {
    return (squish_alloc){resize, state};
}
