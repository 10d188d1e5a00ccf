/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_archive.c - an archive of a snapshot from arbitrary bytes, its sums also made right so that what is
 * behind them is reached; and arbitrary bytes through the coder and back, which must be the same. */
#include "kv/kv_archive.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *p, size_t n) {
    size_t bytes;
    squish_error err = {0};
    squish_status st = sq_archive_header((sq_span){p, n}, MOST, &bytes, &err);
    if (st == SQUISH_OK) {
        uint8_t *out = malloc(bytes);
        st = sq_archive_open((sq_span){p, n}, out, bytes, &err);
        free(out);
    }
    if (st != SQUISH_OK && (st != SQUISH_CORRUPT || err.code != st || err.text[0] == 0)) abort();
}

static void through(const uint8_t *p, size_t n) {
    uint8_t *file = malloc(sq_archive_bound(n)), *work = malloc(sq_archive_scratch()), *back = malloc(n);
    const size_t bytes = sq_archive_make(p, n, file, work);
    size_t said;
    if (bytes > sq_archive_bound(n)) abort();
    if (sq_archive_header((sq_span){file, bytes}, n, &said, NULL) != SQUISH_OK || said != n) abort();
    if (sq_archive_open((sq_span){file, bytes}, back, n, NULL) != SQUISH_OK) abort();
    if (memcmp(back, p, n) != 0) abort();
    free(back);
    free(work);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > MOST) return 0;
    uint8_t *p = malloc(size);
    memcpy(p, data, size);
    check(p, size);
    sq_archive_mend(p, size);
    check(p, size);
    through(p, size);
    free(p);
    return 0;
}
