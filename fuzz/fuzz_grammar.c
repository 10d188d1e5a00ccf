/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_grammar.c - all front ends of grammars, and a text read with what they compile.
 *
 *   input: kind byte (mod 9), source up to a NUL, text. Reading byte by byte must say what reading at once
 * says, and undoing must lead back. */
#include "grammar/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 8192) return 0;
    const uint8_t *source = data + 1, *nul = memchr(source, 0, size - 1);
    const size_t n_source = nul ? (size_t)(nul - source) : size - 1;
    const uint8_t *text = nul ? nul + 1 : data + size;
    size_t n_text = (size_t)(data + size - text);
    if (n_text > 256) n_text = 256;
    sq_gram *g;
    sq_matcher *m;
    if (sq_gram_new(&g, (sq_gram_kind)(data[0] % 9), (const char *)source, n_source, NULL, NULL) != SQUISH_OK)
        return 0;
    check(sq_matcher_new(&m, g, NULL, NULL, NULL) == SQUISH_OK);
    size_t n = 0;
    bool ok = true, whole;
    squish_status st = SQUISH_OK;
    for (; n < n_text && ok && st == SQUISH_OK; n += ok) st = sq_matcher_bytes(m, text + n, 1, &ok, NULL);
    const bool end = sq_matcher_may_end(m);
    check(sq_matcher_steps(m) == n);
    sq_matcher_rollback(m, n);
    if (st == SQUISH_OK) {
        check(sq_matcher_bytes(m, text, n, &whole, NULL) == SQUISH_OK);
        check(whole && sq_matcher_may_end(m) == end);
        sq_buf b;
        sq_buf_init(&b, NULL, 64);
        if (sq_matcher_forced(m, 64, &b, NULL) == SQUISH_OK && b.len) {
            check(sq_matcher_bytes(m, b.data, b.len, &ok, NULL) == SQUISH_OK);
            check(ok);
        }
        sq_buf_deinit(&b);
    }
    sq_matcher_free(m);
    sq_gram_free(g);
    return 0;
}
