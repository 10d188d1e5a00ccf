/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_heat.c - counts of gets beside a container (FILE.heat) from arbitrary bytes, read for weights of eight
 * units; once more under a sum that is right, so that the numbers decide. */
#include "io/io.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { UNITS = 8, HEAD = 32, BYTES = HEAD + 4 * UNITS + 8 };
static const uint64_t container = 0x7465737473756d31u; /* "1mustset" */

static void check(const uint8_t *p, size_t n) {
    squish_error err = {0};
    sq_io_heat h;
    const squish_status st = sq_io_heat_parse(&h, (sq_span){p, n}, "fuzz", container, UNITS, &err);
    if (st == SQUISH_OK) {
        if (n != BYTES || h.used != p + HEAD) abort();
    } else if (h.used || err.code != st || !err.text[0]) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check(data, size);
    if (size < 8) return 0;
    uint8_t *p = malloc(size);
    memcpy(p, data, size);
    const uint64_t sum = XXH3_64bits(p, size - 8);
    memcpy(p + size - 8, &sum, sizeof sum);
    check(p, size);
    free(p);
    return 0;
}
