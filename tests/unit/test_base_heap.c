/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_heap.c - pages that hold nothing go back to the system; threads share what is freed. */
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
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
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

#if TRIMS
enum { THREADS = 6 };
static pthread_barrier_t there, go;

static void *use_memory(void *held) {
    void **p = held;
    *p = malloc(5000);
    pthread_barrier_wait(&there);
    pthread_barrier_wait(&go);
    free(*p);
    return NULL;
}

/* Arenas while THREADS threads hold memory. */
static int arenas(void) {
    static void *held[THREADS]; /* seen by others, or the compiler leaves malloc out */
    pthread_t t[THREADS];
    char *text = NULL;
    size_t n = 0;
    int found = 0;
    pthread_barrier_init(&there, NULL, THREADS + 1);
    pthread_barrier_init(&go, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, use_memory, &held[i]), 0);
    pthread_barrier_wait(&there);
    FILE *f = open_memstream(&text, &n);
    malloc_info(0, f);
    fclose(f);
    pthread_barrier_wait(&go);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    pthread_barrier_destroy(&there);
    pthread_barrier_destroy(&go);
    for (const char *p = text; (p = strstr(p, "<heap nr=")); p++) found++;
    free(text);
    return found;
}
#endif

static void threads_share_two_arenas(void **state) {
    (void)state;
#if TRIMS
    sq_heap_share();
    assert_int_equal(arenas(), 2);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_two_arenas), /* first: arenas that are there stay */
        cmocka_unit_test(what_lies_free_between_pieces_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
