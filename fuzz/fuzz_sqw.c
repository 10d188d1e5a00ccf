/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_sqw.c - our container. The sums would keep a fuzzer out, so each input is tried as it is and once more
 * with all sums made right; an accepted file keeps every promise of format.h. */
#include "../tests/support/fmt_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const sq_sqw *s, size_t size) {
    size_t n, n_units;
    const sq_sqw_tensor *t = sq_sqw_tensors(s, &n);
    const sq_sqw_unit *u = sq_sqw_units(s, &n_units);
    uint64_t end = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i].data_off < end || t[i].data_off > size || t[i].data_bytes > size - t[i].data_off) abort();
        end = t[i].data_off + t[i].data_bytes;
        if (strlen(sq_sqw_name(s, &t[i])) != t[i].name_len || t[i].unit >= n_units) abort();
        if (t[i].data_off < u[t[i].unit].offset || end > u[t[i].unit].offset + u[t[i].unit].bytes) abort();
    }
    static const uint32_t sections[] = {SQ_SEC_CONF, SQ_SEC_TOKZ, SQ_SEC_NAME, SQ_SEC_DATA};
    for (size_t i = 0; i < SQ_COUNT(sections); i++) {
        sq_span sec = sq_sqw_section_of(s, sections[i]);
        if (sec.n > size) abort();
    }
    (void)sq_sqw_verify(s, NULL, NULL, NULL);
}

static void try(const uint8_t *p, size_t size) {
    sq_sqw *s;
    squish_error err = {0};
    squish_status st = sq_sqw_parse(&s, (sq_span){p, size}, "fuzz.sqw", NULL, &err);
    if (st != SQUISH_OK) {
        if (s || err.code != st) abort();
        return;
    }
    check(s, size);
    sq_sqw_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *p = exact(data, size); /* aligned, and of exactly this size */
    try(p, size);
    sqw_repair(p, size);
    try(p, size);
    free(p);
    return 0;
}
