/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.c - see kernel_cases.h. Needs nothing but base, since every test program links it. */
#include "support/kernel_cases.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const int32_t sq_test_sizes[16] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 1023};

uint64_t sq_test_seed(void) {
    const char *env = getenv("SQUISH_TEST_SEED");
    const uint64_t seed = env ? strtoull(env, NULL, 0) : 20240917;
    printf("SQUISH_TEST_SEED=%" PRIu64 "\n", seed);
    return seed;
}

uint32_t sq_test_u32(uint64_t *rng) { return (uint32_t)(sq_splitmix64(rng) >> 32); }

int32_t sq_test_below(uint64_t *rng, int32_t n) { return (int32_t)(sq_test_u32(rng) % (uint32_t)n); }

float sq_test_float(uint64_t *rng) {
    double sum = 0; /* of four uniform numbers: variance 4/12 */
    for (int i = 0; i < 4; i++) sum += (double)sq_test_u32(rng) * 0x1p-32 - 0.5;
    return (float)(sum * 1.7320508);
}

enum { MOAT = 256 };

void *sq_test_moat_new(sq_test_moat *m, size_t bytes, size_t misalign) {
    m->bytes = bytes;
    m->misalign = misalign;
    const size_t total = sq_align_up(MOAT + misalign + bytes + MOAT, 64);
    m->raw = aligned_alloc(64, total);
    assert(m->raw);
    memset(m->raw, 0xff, total);
    return m->raw + MOAT + misalign;
}

bool sq_test_moat_ok(const sq_test_moat *m) {
    const uint8_t *after = m->raw + MOAT + m->misalign + m->bytes;
    for (size_t i = 0; i < MOAT; i++)
        if (m->raw[m->misalign + i] != 0xff || after[i] != 0xff) return false;
    return true;
}

void sq_test_moat_free(sq_test_moat *m) {
    const bool ok = sq_test_moat_ok(m);
    assert(ok && "a kernel wrote past its output");
    (void)ok;
    free(m->raw);
    m->raw = NULL;
}

bool sq_test_same(const char *what, const char *isa, const float *want, const float *got, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!memcmp(&want[i], &got[i], sizeof want[i]) || (isnan(want[i]) && isnan(got[i]))) continue;
        printf("%s, %s: element %zu of %zu is %a, scalar has %a\n", what, isa, i, n, (double)got[i],
               (double)want[i]);
        return false;
    }
    return true;
}

bool sq_test_left_out(void) {
    static int seen;
    const char *n = getenv("SQUISH_SAMPLE");
    return n && seen++ % (int)strtol(n, NULL, 10);
}
