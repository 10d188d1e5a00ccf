/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_safetensors.c - one safetensors file: what is accepted covers the data exactly, byte by byte and in
 * order. */
#include "format/format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    sq_ftensor *t;
    size_t n;
    squish_error err = {0};
    squish_status st = sq_st_parse((sq_span){data, size}, "fuzz.safetensors", &ar, &t, &n, &err);
    if (st == SQUISH_OK) {
        const uint8_t *at = n ? t[0].data : data + size;
        for (size_t i = 0; i < n; i++) {
            uint64_t bytes = sq_dtype_bytes(t[i].dtype);
            for (int32_t d = 0; d < t[i].n_dims; d++) bytes *= t[i].dims[d];
            if (t[i].data != at || t[i].bytes != bytes || strlen(t[i].name) == 0) abort();
            at += t[i].bytes;
        }
        if (at != data + size) abort();
    } else if (err.code != st || n != 0) {
        abort();
    }
    sq_arena_deinit(&ar);
    return 0;
}
