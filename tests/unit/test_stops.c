/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stops.c - stop strings: what is handed out, when, and that nothing is ever taken back. Random
 * texts are compared with a plain substring search. */
#include "sample/sample.h"
#include "support/faults.h"
#include "support/sample_oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static sq_stops *make(const char *const *strings, int32_t n) {
    sq_stops *s;
    squish_error err = {0};
    if (sq_stops_new(&s, strings, n, NULL, &err) != SQUISH_OK) fail_msg("%s", err.text);
    return s;
}

/* Push pieces until one fires; returns the index that fired. */
static int32_t push_all(sq_stops *s, const char *const *pieces, bool include, sq_buf *out) {
    for (; *pieces; pieces++) {
        int32_t hit = sq_stops_push(s, *pieces, strlen(*pieces), include, out);
        if (hit >= 0) return hit;
    }
    return -1;
}

typedef struct {
    const char *stops[4];
    const char *pieces[6];
    int32_t hit;
    const char *text, *text_included, *rest; /* handed out by push; with include; by finish */
} story;

static const story stories[] = {
    {{"END"}, {"hello E", "ND world"}, 0, "hello ", "hello END", ""},
    {{"END"}, {"hello E", "N", "X"}, -1, "hello ENX", "hello ENX", ""},
    {{"END"}, {"hello EN"}, -1, "hello ", "hello ", "EN"},
    {{"abcd", "bc"}, {"a", "b", "c", "d"}, 1, "a", "abc", ""}, /* the earliest end wins */
    {{"c", "abc", "bc"}, {"xa", "bc"}, 1, "x", "xabc", ""},    /* of those the longest */
    {{"aab"}, {"aaaaaa", "b"}, 0, "aaaa", "aaaaaab", ""},      /* the match begins inside held text */
    {{"abab!", "baba?"}, {"ababa", "b!"}, 0, "ab", "ababab!", ""},
    {{"abab!", "baba?"}, {"ababa", "?"}, 1, "a", "ababa?", ""},
    {{"same", "same"}, {"the same"}, 0, "the ", "the same", ""}, /* the first of two equal ones */
    {{"\n\n"}, {"one\ntwo\n", "\nthree"}, 0, "one\ntwo", "one\ntwo\n\n", ""},
    /* bytes, not code points */
    {{"\xE2\x82\xAC"}, {"5 \xE2", "\x82", "\xAC"}, 0, "5 ", "5 \xE2\x82\xAC", ""},
    {{"x"}, {"", "x", "y"}, 0, "", "x", ""},
    {{NULL}, {"nothing ", "stops"}, -1, "nothing stops", "nothing stops", ""},
};

static void a_stop_string_cuts_the_text_where_it_begins(void **state) {
    (void)state;
    for (size_t i = 0; i < SQ_COUNT(stories); i++) {
        const story *t = &stories[i];
        int32_t n = 0;
        while (n < 4 && t->stops[n]) n++;
        for (int include = 0; include < 2; include++) {
            sq_stops *s = make(t->stops, n);
            sq_buf out;
            sq_buf_init(&out, NULL, 1000);
            assert_int_equal(push_all(s, t->pieces, include, &out), t->hit);
            assert_true(sq_buf_putc(&out, '|'));
            assert_true(sq_stops_finish(s, &out));
            char want[100];
            snprintf(want, sizeof want, "%s|%s", include ? t->text_included : t->text, t->rest);
            assert_string_equal(out.data, want);
            sq_buf_deinit(&out);
            sq_stops_free(s);
        }
    }
}

static void exactly_the_bytes_that_could_begin_a_stop_string_are_held(void **state) {
    (void)state;
    const char *stops[] = {"abcabd", "bcx"};
    sq_stops *s = make(stops, 2);
    const char text[] = "aabcabcabcx";
    const size_t handed[] = {0, 1, 1, 1, 1, 1, 4, 4, 4, 7};
    sq_buf out;
    sq_buf_init(&out, NULL, 100);
    for (size_t i = 0; i < SQ_COUNT(handed); i++) {
        assert_int_equal(sq_stops_push(s, text + i, 1, false, &out), -1);
        assert_int_equal(out.len, handed[i]);
    }
    assert_int_equal(sq_stops_push(s, "x", 1, false, &out), 1);
    assert_string_equal(out.data, "aabcabca");
    sq_buf_deinit(&out);
    sq_stops_free(s);
}

static void after_a_hit_or_a_finish_the_automaton_is_as_new(void **state) {
    (void)state;
    const char *stops[] = {"stop"};
    sq_stops *s = make(stops, 1);
    sq_buf out;
    sq_buf_init(&out, NULL, 100);
    assert_int_equal(sq_stops_push(s, "a stop", 6, false, &out), 0);
    assert_int_equal(sq_stops_push(s, "b st", 4, false, &out), -1);
    assert_true(sq_stops_finish(s, &out));
    /* not the end of "stop": that text is over */
    assert_int_equal(sq_stops_push(s, "op", 2, false, &out), -1);
    assert_string_equal(out.data, "a b stop");
    sq_buf_deinit(&out);
    sq_stops_free(s);
}

static void counts_and_lengths_out_of_range_are_named(void **state) {
    (void)state;
    static char longest[258];
    const char *many[17];
    memset(longest, 'x', 256);
    for (int i = 0; i < 17; i++) many[i] = longest;
    sq_stops *s;
    squish_error err = {0};
    assert_int_equal(sq_stops_new(&s, many, 17, NULL, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "stop: 17 strings are outside 0..16");
    assert_null(s);
    sq_stops_free(make(many, 16));
    err = (squish_error){0};
    longest[256] = 'x';
    assert_int_equal(sq_stops_new(&s, many, 1, NULL, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "stop[0]: a longer string, wanted 1..256 bytes");
    const char *empty[] = {"a", ""}, *null[] = {NULL};
    err = (squish_error){0};
    assert_int_equal(sq_stops_new(&s, empty, 2, NULL, &err), SQUISH_INVALID);
    assert_string_equal(err.text, "stop[1]: an empty string, wanted 1..256 bytes");
    assert_int_equal(sq_stops_new(&s, null, 1, NULL, NULL), SQUISH_INVALID);
    assert_int_equal(sq_stops_new(&s, NULL, 1, NULL, NULL), SQUISH_INVALID);
    assert_int_equal(sq_stops_new(&s, NULL, -1, NULL, NULL), SQUISH_INVALID);
    sq_stops_free(NULL);
}

static void the_largest_automaton_works(void **state) {
    (void)state;
    /* 16 strings of 256 bytes that use every byte value but NUL and share no prefix. */
    static char text[16][257];
    const char *strings[16];
    for (int i = 0; i < 16; i++) {
        for (int j = 0; j < 256; j++) text[i][j] = (char)(1 + (i * 16 + j) % 255);
        strings[i] = text[i];
    }
    sq_stops *s = make(strings, 16);
    sq_buf out;
    sq_buf_init(&out, NULL, 1000);
    assert_int_equal(sq_stops_push(s, text[9], 255, false, &out), -1);
    assert_int_equal(out.len, 0);
    assert_int_equal(sq_stops_push(s, text[9] + 255, 1, true, &out), 9);
    assert_int_equal(out.len, 256);
    assert_memory_equal(out.data, text[9], 256);
    sq_buf_deinit(&out);
    sq_stops_free(s);
}

/* ---- against a substring search -------------------------------------------------------------- */

/* Earliest end, then longest, then first index; *begin: where it starts. */
static int32_t search(const char *const *stops, int32_t n_stops, const char *text, size_t n, size_t *begin) {
    for (size_t end = 1; end <= n; end++) {
        int32_t best = -1;
        size_t best_length = 0;
        for (int32_t i = 0; i < n_stops; i++) {
            size_t length = strlen(stops[i]);
            if (length > end || length <= best_length || memcmp(text + end - length, stops[i], length) != 0)
                continue;
            best = i;
            best_length = length;
        }
        *begin = end - best_length;
        if (best >= 0) return best;
    }
    return -1;
}

/* Longest end of text[0..n) that is a proper beginning of some stop string. */
static size_t must_hold(const char *const *stops, int32_t n_stops, const char *text, size_t n) {
    size_t held = 0;
    for (int32_t i = 0; i < n_stops; i++)
        for (size_t k = strlen(stops[i]) - 1; k > held; k--)
            if (k <= n && memcmp(text + n - k, stops[i], k) == 0) held = k;
    return held;
}

static void run_random(oracle_rng *g) {
    char strings[16][9], text[64];
    const char *stops[16];
    int32_t n_stops = 1 + oracle_below(g, oracle_below(g, 4) ? 3 : 16), letters = 2 + oracle_below(g, 3);
    size_t n = (size_t)oracle_below(g, 64), begin, fed = 0;
    for (int32_t i = 0; i < n_stops; i++) {
        int32_t length = 1 + oracle_below(g, 8);
        for (int32_t j = 0; j < length; j++) strings[i][j] = (char)('a' + oracle_below(g, letters));
        strings[i][length] = 0;
        stops[i] = strings[i];
    }
    for (size_t i = 0; i < n; i++) text[i] = (char)('a' + oracle_below(g, letters));
    int32_t want = search(stops, n_stops, text, n, &begin), hit = -1;
    bool include = oracle_below(g, 2);
    sq_stops *s = make(stops, n_stops);
    sq_buf out;
    sq_buf_init(&out, NULL, 100);
    while (hit < 0 && fed < n) {
        size_t piece = (size_t)oracle_below(g, 6);
        if (piece > n - fed) piece = n - fed;
        hit = sq_stops_push(s, text + fed, piece, include, &out);
        fed += piece;
        /* what has been handed out is a beginning of the text, and as long as it may be */
        assert_true(out.len == 0 || memcmp(out.data, text, out.len) == 0);
        if (hit < 0) assert_int_equal(out.len, fed - must_hold(stops, n_stops, text, fed));
    }
    assert_int_equal(hit, want);
    assert_true(sq_stops_finish(s, &out));
    size_t length = hit < 0 ? n : begin + (include ? strlen(stops[hit]) : 0);
    assert_int_equal(out.len, length);
    assert_true(length == 0 || memcmp(out.data, text, length) == 0);
    sq_buf_deinit(&out);
    sq_stops_free(s);
}

static void a_hundred_thousand_random_texts_equal_a_substring_search(void **state) {
    (void)state;
    oracle_rng g = {81};
    for (int i = 0; i < 100000; i++) run_random(&g);
}

/* ---- faults ---------------------------------------------------------------------------------- */

static void a_failed_allocation_leaves_nothing(void **state) {
    (void)state;
    const char *stops[] = {"one", "two"};
    for (int64_t n = 1;; n++) {
        struct sq_test_alloc_state mem = {.fail_at = n};
        squish_alloc a = sq_test_alloc(&mem);
        sq_stops *s;
        squish_status st = sq_stops_new(&s, stops, 2, &a, NULL);
        if (st != SQUISH_OK) assert_null(s);
        sq_stops_free(s);
        assert_int_equal(mem.live_blocks, 0);
        assert_int_equal(mem.wrong_sizes, 0);
        if (st == SQUISH_OK) break;
        assert_int_equal(st, SQUISH_NO_MEMORY);
        assert_true(n < 10);
    }
}

static void a_full_buffer_says_so(void **state) {
    (void)state;
    const char *stops[] = {"xyz"};
    sq_stops *s = make(stops, 1);
    sq_buf out;
    sq_buf_init(&out, NULL, 4);
    assert_int_equal(sq_stops_push(s, "abcdxy", 6, false, &out), -1);
    assert_false(out.failed);
    assert_false(sq_stops_finish(s, &out));
    assert_true(out.failed);
    sq_buf_deinit(&out);
    sq_stops_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_string_cuts_the_text_where_it_begins),
        cmocka_unit_test(exactly_the_bytes_that_could_begin_a_stop_string_are_held),
        cmocka_unit_test(after_a_hit_or_a_finish_the_automaton_is_as_new),
        cmocka_unit_test(counts_and_lengths_out_of_range_are_named),
        cmocka_unit_test(the_largest_automaton_works),
        cmocka_unit_test(a_hundred_thousand_random_texts_equal_a_substring_search),
        cmocka_unit_test(a_failed_allocation_leaves_nothing),
        cmocka_unit_test(a_full_buffer_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
