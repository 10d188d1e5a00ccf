/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_snapshot.c - one snapshot of prefixes from arbitrary bytes: an accepted one lies inside the file, and
 * its pages are looked at. Header and sums are also mended, so that the checks behind them are reached. */
#include "kv/kv_snapshot_int.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *p, size_t n, const sq_kv_policy *policy) {
    sq_snapshot_view v;
    squish_error err = {0};
    const squish_status st = sq_snapshot_parse((sq_span){p, n}, policy, &v, &err);
    if (st != SQUISH_OK) {
        if (st != SQUISH_CORRUPT || err.code != st || err.text[0] == 0) abort();
        return;
    }
    if (v.ids < p || v.sums > v.pages) abort();
    for (int32_t t = 0; t < v.n_tiles; t++) {
        const uint8_t *open = sq_snapshot_form(&v, t, SQ_KV_FORM_OPEN);
        const uint8_t *sealed = sq_snapshot_form(&v, t, SQ_KV_FORM_SEALED);
        if (open && (open < v.pages || open + sq_kv_open_bytes(&v.shape, policy) > p + n)) abort();
        if (sealed && (sealed < v.pages || sealed + sq_kv_sealed_bytes(&v.shape, policy) > p + n)) abort();
        sq_snapshot_tile(&v, t, NULL);
    }
}

/* With the sums of header and tables made right their numbers decide; with all sums right, so do the pages.
 */
static void check_mended(uint8_t *p, size_t n, const sq_kv_policy *policy) {
    sq_snapshot_view v;
    check(p, n, policy);
    if (n < SQ_SNAPSHOT_HEADER) return;
    sq_snapshot_mend(p, n);
    if (sq_snapshot_parse((sq_span){p, n}, policy, &v, NULL) == SQUISH_OK) sq_snapshot_seal(p, &v);
    check(p, n, policy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const sq_kv_policy policies[] = {sq_kv_policy_of(SQUISH_KV_F16), sq_kv_policy_of(SQUISH_KV_K8V4)};
    for (size_t i = 0; i < 2; i++) {
        uint8_t *p = calloc(size ? size : 1, 1);
        if (size) memcpy(p, data, size);
        check_mended(p, size, &policies[i]);
        free(p);
    }
    return 0;
}
