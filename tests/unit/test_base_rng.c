/* SPDX-License-Identifier: Apache-2.0
 *
 * test_base_rng.c - known answers of splitmix64 and Philox4x32-10. */
#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* The sequence of the reference code from seed 1234567. */
static void splitmix64_gives_the_known_sequence(void **state) {
    (void)state;
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                    4593380528125082431u, 16408922859458223821u};
    uint64_t s = 1234567;
    for (size_t i = 0; i < SQ_COUNT(want); i++) assert_true(sq_splitmix64(&s) == want[i]);
    s = 0;
    assert_true(sq_splitmix64(&s) == 0xE220A8397B1DCDAFu);
}

/* Random123, kat_vectors: philox4x32, 10 rounds; the third input is the digits of pi. */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
        {{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF},
         {0xFFFFFFFF, 0xFFFFFFFF},
         {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
        {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344},
         {0xA4093822, 0x299F31D0},
         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
    };
    for (size_t i = 0; i < SQ_COUNT(rows); i++) {
        uint32_t got[4];
        sq_philox(rows[i].counter, rows[i].key, got);
        assert_memory_equal(got, rows[i].want, sizeof got);
    }
}

static void philox_may_write_over_its_counter(void **state) {
    (void)state;
    uint32_t block[4] = {0, 0, 0, 0};
    const uint32_t key[2] = {0, 0};
    sq_philox(block, key, block);
    assert_int_equal(block[0], 0x6627E8D5);
    assert_int_equal(block[3], 0x9B00DBD8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splitmix64_gives_the_known_sequence),
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(philox_may_write_over_its_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
