/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_npy.c - one npy array from arbitrary bytes: an accepted one lies inside the file, and its header
 * written again describes the same array; the input as a file name decodes to a name that encodes to it. */
#include "../tests/support/fmt_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const uint8_t *data, size_t size) {
    char *file = calloc(size + 1, 1), *name = calloc(size + 1, 1), *back = calloc(size + 1, 1);
    if (size) memcpy(file, data, size);
    if (sq_npy_name_decode(file, name, size + 1)) {
        if (!sq_npy_name_encode(name, back, size + 1) || strcmp(back, file) != 0) abort();
    }
    free(file);
    free(name);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_ftensor t, again;
    squish_error err = {0};
    uint8_t *p = exact(data, size);
    squish_status st = sq_npy_parse((sq_span){p, size}, "fuzz.npy", &t, &err);
    if (st != SQUISH_OK && err.code != st) abort();
    if (st == SQUISH_OK) {
        char header[512];
        size_t n;
        if (t.data + t.bytes != p + size) abort();
        if (sq_npy_header(&t, header, sizeof header, &n, NULL) != SQUISH_OK || n % 64) abort();
        bytes b = {0};
        add(&b, header, n);
        add(&b, t.data, (size_t)t.bytes);
        if (sq_npy_parse((sq_span){b.p, b.n}, "again.npy", &again, NULL) != SQUISH_OK) abort();
        if (again.bytes != t.bytes || again.dtype != t.dtype || again.n_dims != t.n_dims ||
            memcmp(again.dims, t.dims, (size_t)t.n_dims * sizeof t.dims[0]) != 0)
            abort();
        drop(&b);
    }
    free(p);
    check_name(data, size);
    return 0;
}
