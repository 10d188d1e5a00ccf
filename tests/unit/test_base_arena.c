/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_arena.c - alignment, zeroing, ceilings, reset and failing allocations of the arena. */
#include "base/base.h"
#include "support/faults.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#define IS_POISONED(p) __asan_address_is_poisoned(p)
#else
#define IS_POISONED(p) ((void)(p), true) /* gaps exist under ASan only */
#endif

static bool all_zero(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static void pieces_are_aligned_zeroed_and_disjoint(void **state) {
    (void)state;
    struct sq_test_alloc_state s = {0};
    squish_alloc a = sq_test_alloc(&s);
    sq_arena ar;
    sq_arena_init(&ar, &a, 1024, 0);
    unsigned char *pieces[400];
    size_t sizes[400];
    for (size_t i = 0; i < 400; i++) {
        size_t align = (size_t)1 << (i % 9); /* 1..256 */
        sizes[i] = 1 + (i * 37) % 700;
        pieces[i] = sq_arena_alloc(&ar, sizes[i], align);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % align, 0);
        assert_true(all_zero(pieces[i], sizes[i]));
        memset(pieces[i], (int)(i & 0xFF), sizes[i]);
    }
    for (size_t i = 0; i < 400; i++)
        for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(pieces[i][j], i & 0xFF);
    assert_int_equal((int64_t)ar.bytes_used, s.live_bytes);
    sq_arena_deinit(&ar);
    assert_int_equal(ar.bytes_used, 0);
    assert_int_equal(s.live_blocks, 0);
    assert_int_equal(s.wrong_sizes, 0);
}

static void no_bytes_are_a_valid_piece(void **state) {
    (void)state;
    sq_arena ar;
    sq_arena_init(&ar, NULL, 0, 0);
    assert_non_null(sq_arena_alloc(&ar, 0, 8));
    assert_non_null(SQ_ARENA_ARRAY(&ar, uint64_t, 0));
    assert_string_equal(sq_arena_strndup(&ar, NULL, 0), "");
    assert_string_equal(sq_arena_strndup(&ar, "abcdef", 3), "abc");
    sq_arena_deinit(&ar);
    sq_arena_deinit(&ar);
}

static void a_large_piece_leaves_the_room_of_the_head(void **state) {
    (void)state;
    struct sq_test_alloc_state s = {0};
    squish_alloc a = sq_test_alloc(&s);
    sq_arena ar;
    sq_arena_init(&ar, &a, 4096, 0);
    char *first = sq_arena_alloc(&ar, 10, 1);
    assert_non_null(sq_arena_alloc(&ar, 100000, 64));
    char *second = sq_arena_alloc(&ar, 10, 1);
    assert_int_equal(s.live_blocks, 2);
    assert_true(second > first && second - first < 64);
    sq_arena_deinit(&ar);
}

static void the_ceiling_bounds_what_is_taken(void **state) {
    (void)state;
    for (size_t max = 1; max < 5000; max += 97) {
        struct sq_test_alloc_state s = {0};
        squish_alloc a = sq_test_alloc(&s);
        sq_arena ar;
        sq_arena_init(&ar, &a, 512, max);
        size_t got = 0;
        while (sq_arena_alloc(&ar, 40, 8)) got++;
        assert_true(s.peak_bytes <= (int64_t)max);
        assert_true(got * 40 <= max);
        if (max > 1000) assert_true(got * 40 > max / 4);
        assert_null(sq_arena_alloc(&ar, max, 1));
        sq_arena_deinit(&ar);
        assert_int_equal(s.live_blocks, 0);
    }
}

static void absurd_sizes_are_refused(void **state) {
    (void)state;
    sq_arena ar;
    sq_arena_init(&ar, NULL, 1024, 0);
    assert_null(sq_arena_alloc(&ar, SIZE_MAX, 16));
    assert_null(sq_arena_alloc(&ar, SIZE_MAX / 2 + 1, 16));
    assert_null(SQ_ARENA_ARRAY(&ar, uint64_t, SIZE_MAX / 4));
    assert_null(sq_arena_array(&ar, SIZE_MAX, SIZE_MAX, 8));
    assert_null(sq_arena_strndup(&ar, "x", SIZE_MAX));
    sq_arena_deinit(&ar);
}

static void reset_keeps_one_block_and_zeroes_again(void **state) {
    (void)state;
    struct sq_test_alloc_state s = {0};
    squish_alloc a = sq_test_alloc(&s);
    sq_arena ar;
    sq_arena_init(&ar, &a, 1024, 0);
    sq_arena_reset(&ar); /* of an empty arena: nothing */
    for (int round = 0; round < 5; round++) {
        unsigned char *p = sq_arena_alloc(&ar, 300, 16);
        assert_true(all_zero(p, 300));
        memset(p, 0xEE, 300);
        if (round == 0)
            for (int i = 0; i < 20; i++) assert_non_null(sq_arena_alloc(&ar, 400, 16));
        sq_arena_reset(&ar);
        assert_int_equal(s.live_blocks, 1);
        assert_int_equal((int64_t)ar.bytes_used, s.live_bytes);
    }
    int64_t before = s.count;
    for (int i = 0; i < 100; i++) {
        assert_non_null(sq_arena_alloc(&ar, 500, 64));
        sq_arena_reset(&ar);
    }
    assert_int_equal(s.count, before);
    sq_arena_deinit(&ar);
}

static void a_step_past_a_piece_is_seen_under_asan(void **state) {
    (void)state;
    sq_arena ar;
    sq_arena_init(&ar, NULL, 1024, 0);
    for (size_t n = 1; n < 50; n++) {
        char *p = sq_arena_alloc(&ar, n, n % 2 ? 1 : 8);
        char *next = sq_arena_alloc(&ar, 8, 8);
        memset(p, 1, n);
        memset(next, 1, 8);
        assert_true(IS_POISONED(p + n));
        sq_arena_reset(&ar);
        assert_true(IS_POISONED(p) && IS_POISONED(next));
    }
    sq_arena_deinit(&ar);
}

static void a_failed_allocation_leaves_the_arena_usable(void **state) {
    (void)state;
    for (int64_t n = 1; n < 100; n++) {
        struct sq_test_alloc_state s = {.fail_at = n};
        squish_alloc a = sq_test_alloc(&s);
        sq_arena ar;
        sq_arena_init(&ar, &a, 256, 0);
        int failures = 0;
        for (size_t i = 0; i < 60; i++) {
            size_t bytes = i % 7 == 0 ? 1000 : 60;
            void *p = sq_arena_alloc(&ar, bytes, 8);
            failures += !p;
            if (!p) assert_non_null(sq_arena_alloc(&ar, bytes, 8));
        }
        bool reached = s.count >= n;
        assert_int_equal(failures, reached);
        sq_arena_deinit(&ar);
        assert_int_equal(s.live_blocks, 0);
        if (!reached) return;
    }
    fail_msg("the loop never succeeded");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_zeroed_and_disjoint),
        cmocka_unit_test(no_bytes_are_a_valid_piece),
        cmocka_unit_test(a_large_piece_leaves_the_room_of_the_head),
        cmocka_unit_test(the_ceiling_bounds_what_is_taken),
        cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(reset_keeps_one_block_and_zeroes_again),
        cmocka_unit_test(a_step_past_a_piece_is_seen_under_asan),
        cmocka_unit_test(a_failed_allocation_leaves_the_arena_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
