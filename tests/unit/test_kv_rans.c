/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_rans.c - bytes through the entropy coder and back, whatever they are; how few they become; and
 * streams that are cut or changed. */
#include "kv/kv_archive.h"
#include "kv/kv_rans.h"
#include "support/model_run.h"

#include <math.h>

enum { MOST = 3 * SQ_RANS_BLOCK + 17 };
static uint8_t in[MOST], back[MOST + 1], scratch[2 * SQ_RANS_BLOCK];
static uint8_t coded[MOST + 1024];

enum { EQUAL, RANDOM, SKEWED, HALVES, RARE, KINDS };

static void make(int kind, size_t n) {
    uint64_t rng = (uint64_t)kind * 31 + n;
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = sq_splitmix64(&rng);
        const uint8_t low = (uint8_t)(r >> 8), few = (uint8_t)__builtin_ctzll(r | 1ull << 20);
        in[i] = kind == EQUAL    ? 7
                : kind == RANDOM ? low
                : kind == SKEWED ? few
                : kind == HALVES ? (i % 2 ? few : low)
                                 : i % 60000 == 59999;
    }
}

static size_t through(size_t n) {
    const size_t bytes = sq_rans_encode(in, n, coded, scratch);
    squish_error err = {0};
    assert_true(bytes <= sq_rans_bound(n) && sq_rans_bound(n) <= sizeof coded);
    memset(back, 0xa5, sizeof back);
    assert_ok(sq_rans_decode((sq_span){coded, bytes}, back, n, &err), &err);
    assert_memory_equal(back, in, n);
    assert_int_equal(back[n], 0xa5);
    return bytes;
}

static void what_went_in_comes_out(void **state) {
    (void)state;
    static const size_t sizes[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   5,
                                   31,
                                   527,
                                   528,
                                   529,
                                   530,
                                   1055,
                                   40000,
                                   SQ_RANS_BLOCK - 1,
                                   SQ_RANS_BLOCK,
                                   SQ_RANS_BLOCK + 1,
                                   MOST};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < SQ_COUNT(sizes); i++) {
            make(kind, sizes[i]);
            through(sizes[i]);
        }
}

/* Bits of every stride-th byte, by how often each occurs. */
static double entropy(size_t n, size_t first, size_t stride) {
    double count[256] = {0}, all = 0, bits = 0;
    for (size_t i = first; i < n; i += stride) count[in[i]]++, all++;
    for (int i = 0; i < 256; i++)
        if (count[i] > 0) bits -= count[i] * log2(count[i] / all);
    return bits;
}

/* Within a hundredth of the entropy, tables aside; and where halves differ each has a table of its own. */
static void few_bytes_are_left_of_what_repeats_itself(void **state) {
    (void)state;
    const size_t n = SQ_RANS_BLOCK;
    make(SKEWED, n);
    assert_true((double)through(n) <= entropy(n, 0, 1) / 8 * 1.01 + 2 * 528 + 16);
    make(HALVES, n);
    assert_true((double)through(n) <= (entropy(n, 0, 2) + entropy(n, 1, 2)) / 8 * 1.01 + 2 * 528 + 16);
    make(EQUAL, n);
    assert_true(through(n) < 600);
    make(RANDOM, n);
    assert_int_equal(through(n), n + 9); /* as it is, behind a head */
}

/* Each cut is found; a changed byte is found, or changes what comes out, or neither the one nor the other
 * reaches past the end. */
static void broken_streams_do_no_harm(void **state) {
    (void)state;
    const size_t n = 3000;
    int32_t found = 0;
    make(HALVES, n);
    const size_t bytes = sq_rans_encode(in, n, coded, scratch);
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(sq_rans_decode((sq_span){coded, cut}, back, n, NULL), SQUISH_CORRUPT);
    assert_int_equal(sq_rans_decode((sq_span){coded, bytes + 1}, back, n, NULL), SQUISH_CORRUPT);
    assert_int_equal(sq_rans_decode((sq_span){coded, bytes}, back, n - 1, NULL), SQUISH_CORRUPT);
    for (size_t i = 0; i < bytes; i++) {
        coded[i] ^= (uint8_t)(1 << i % 8);
        back[n] = 0xa5;
        const squish_status st = sq_rans_decode((sq_span){coded, bytes}, back, n, NULL);
        assert_true(st == SQUISH_OK || st == SQUISH_CORRUPT);
        assert_int_equal(back[n], 0xa5);
        found += st == SQUISH_CORRUPT;
        coded[i] ^= (uint8_t)(1 << i % 8);
    }
    assert_true(found > (int32_t)(bytes * 9 / 10));
}

/* Of an archive every flipped bit is found: it has sums. */
static void every_flipped_bit_of_an_archive_is_found(void **state) {
    (void)state;
    const size_t n = 3000;
    size_t said;
    squish_error err = {0};
    make(HALVES, n);
    uint8_t *file = malloc(sq_archive_bound(n)), *work = malloc(sq_archive_scratch());
    const size_t bytes = sq_archive_make(in, n, file, work);
    const sq_span whole = {file, bytes};
    assert_true(bytes < n && sq_archive_is_one(whole));
    assert_ok(sq_archive_header(whole, n, &said, &err), &err);
    assert_int_equal(said, n);
    assert_ok(sq_archive_open(whole, back, n, &err), &err);
    assert_memory_equal(back, in, n);
    assert_int_equal(sq_archive_header(whole, n - 1, &said, &err), SQUISH_CORRUPT); /* more than may be */
    for (size_t i = 0; i < bytes; i++) {
        file[i] ^= (uint8_t)(1 << i % 8);
        assert_true(sq_archive_header(whole, n, &said, NULL) != SQUISH_OK ||
                    sq_archive_open(whole, back, n, NULL) != SQUISH_OK);
        file[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(sq_archive_header((sq_span){file, cut}, n, &said, NULL), SQUISH_CORRUPT);
    const char *seed = getenv("SQ_ARCHIVE_SEED");
    FILE *f = seed ? fopen(seed, "wb") : NULL;
    if (f) {
        fwrite(file, 1, bytes, f);
        fclose(f);
    }
    free(file);
    free(work);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_went_in_comes_out),
        cmocka_unit_test(few_bytes_are_left_of_what_repeats_itself),
        cmocka_unit_test(broken_streams_do_no_harm),
        cmocka_unit_test(every_flipped_bit_of_an_archive_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
