/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_snapshot.c - one snapshot of prefixes from arbitrary bytes: an accepted one lies inside the file, and
 * its pages are looked at. Header and sums are also mended, so that the checks behind them are reached. */
#include "kv/kv_snapshot_int.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *p, size_t n) {
    sq_snapshot_view v;
    squish_error err = {0};
    const squish_status st = sq_snapshot_parse((sq_span){p, n}, &v, &err);
    if (st != SQUISH_OK) {
        if (st != SQUISH_CORRUPT || err.code != st || err.text[0] == 0) abort();
        return;
    }
    const size_t pages = (size_t)v.n_tiles * (size_t)v.shape.n_layers;
    if (v.pages + pages * v.page_bytes != p + n || v.ids < p || v.sums > v.pages) abort();
    for (size_t i = 0; i < pages; i++) sq_snapshot_page(&v, (int32_t)i, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *p = calloc(size ? size : 1, 1);
    if (size) memcpy(p, data, size);
    check(p, size);
    sq_snapshot_view v;
    if (size >= SQ_SNAPSHOT_HEADER) {
        /* With the sum of the header made right its numbers decide; with the right size, so do the pages. */
        sq_snapshot_mend_header(p);
        if (sq_snapshot_header(p, size, &v, NULL) == SQUISH_OK && v.file_bytes == size) sq_snapshot_seal(p);
        check(p, size);
    }
    free(p);
    return 0;
}
