/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tok_blob.c - any bytes as a compiled tokenizer. Size and checksum are put right first, so that the
 * checks behind them are reached. Whatever is accepted must encode and decode without a step outside the
 * blob. */
#include "text/tok_int.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sq_tok *t) {
    static const char text[] = "It's <s> caf\xC3\xA9 e\xCC\x81 12\n\n \xE2\x96\x81 \xF0\x9F\x98\x80 abcabc "
                               "\xFF";
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 1 << 24);
    int32_t *ids;
    size_t n_ids;
    sq_tok_encode(t, text, sizeof text - 1, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS, &ar, &ids, &n_ids, NULL);
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= sq_tok_count(t)) abort();
    sq_buf out;
    sq_buf_init(&out, NULL, 1 << 24);
    sq_detok d;
    sq_detok_init(&d, t, true, true);
    for (int32_t id = -1; id < 600; id++) sq_detok_push(&d, id, &out);
    sq_detok_finish(&d, &out);
    if (out.len && !sq_utf8_valid(out.data, out.len)) abort();
    sq_tok_find(t, "ab", 2);
    sq_buf_deinit(&out);
    sq_arena_deinit(&ar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *blob = malloc(size ? size : 1); /* aligned, and exact for ASan */
    if (!blob) return 0;
    if (size) memcpy(blob, data, size);
    if (size >= sizeof(tok_header)) {
        uint64_t bytes = size;
        memcpy(blob + offsetof(tok_header, bytes), &bytes, sizeof bytes);
        tok_blob_seal(blob, size);
    }
    sq_tok_view view;
    const sq_tok *t;
    squish_error err = {0};
    squish_status st = sq_tok_open(&view, (sq_span){blob, size}, NULL, &t, &err);
    if (st != SQUISH_OK && err.text[0] == '\0') abort();
    if (st == SQUISH_OK) {
        use(t);
        sq_tok_close(t);
    }
    free(blob);
    return 0;
}
