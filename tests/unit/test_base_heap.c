/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_heap.c - pages that hold nothing go back to the system. */
#include "base/base.h"
#include "base/base_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 1
#elif defined(__has_feature)
#define OWN_MALLOC (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define OWN_MALLOC 0
#endif
#if defined(__GLIBC__) && !OWN_MALLOC
#define TRIMS 1
#else
#define TRIMS 0
#endif

/* 64 MB in pieces of 1 kB, of which every 64th stays: nothing but a trim gives the rest back. */
enum { PIECES = 1 << 16, PIECE = 1000, STAYS = 64 };

static void what_lies_free_between_pieces_is_given_back(void **state) {
    (void)state;
    if (!TRIMS) skip();
    static char *piece[PIECES];
    for (size_t i = 0; i < PIECES; i++) {
        piece[i] = malloc(PIECE);
        assert_non_null(piece[i]);
        memset(piece[i], (int)(i % 251), PIECE);
    }
    for (size_t i = 0; i < PIECES; i++)
        if (i % STAYS) free(piece[i]);
    const uint64_t before = sq_os_rss_anon();
    sq_heap_trim();
    const uint64_t after = sq_os_rss_anon();
    print_message("%.1f MB, after a trim %.1f MB\n", (double)before / 1e6, (double)after / 1e6);
    assert_true(after + 40000000 < before);
    for (size_t i = 0; i < PIECES; i += STAYS) {
        for (size_t k = 0; k < PIECE; k++) assert_int_equal(piece[i][k], (char)(i % 251));
        free(piece[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lies_free_between_pieces_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
