/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_gguf.c - GGUF: every value and tensor of an accepted file lies inside it, keys are found by name,
 * string arrays have as many strings as they say. */
#include "format/format.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_kv(const sq_gguf *g, const sq_gguf_kv *kv, const uint8_t *data, size_t size) {
    if (kv->value.n && (kv->value.p < data || kv->value.n > (size_t)(data + size - kv->value.p))) abort();
    char *key = malloc(kv->key.n + 1);
    memcpy(key, kv->key.p, kv->key.n);
    key[kv->key.n] = 0;
    if (sq_gguf_get(g, key) != kv) abort();
    int64_t i;
    double d;
    bool b;
    sq_span s, *strings;
    size_t n;
    int kinds = sq_gguf_i64(g, key, &i) + sq_gguf_f64(g, key, &d) + sq_gguf_bool(g, key, &b) +
                sq_gguf_str(g, key, &s);
    if (kinds > 1) abort();
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 0);
    if (sq_gguf_strings(g, key, &ar, &strings, &n, NULL) == SQUISH_OK) {
        if (n != kv->count) abort();
        for (size_t k = 0; k < n; k++) {
            if (strings[k].n > (size_t)(data + size - strings[k].p)) abort();
        }
    }
    sq_arena_deinit(&ar);
    free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_gguf *g;
    squish_error err = {0};
    squish_status st = sq_gguf_parse(&g, (sq_span){data, size}, "fuzz.gguf", NULL, &err);
    if (st != SQUISH_OK) {
        if (g || err.code != st) abort();
        return 0;
    }
    for (size_t i = 0; i < sq_gguf_n_kv(g); i++) check_kv(g, sq_gguf_kv_at(g, i), data, size);
    for (size_t i = 0; i < sq_gguf_n_tensors(g); i++) {
        const sq_ftensor *t = sq_gguf_tensor(g, i);
        if (t->data < data || t->bytes == 0 || t->bytes > (uint64_t)(data + size - t->data)) abort();
    }
    sq_gguf_close(g);
    return 0;
}
