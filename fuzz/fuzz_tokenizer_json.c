/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_tokenizer_json.c - any bytes as tokenizer.json: an error with a text, or a tokenizer whose ids
 * exist and whose streamed text is valid UTF-8. */
#include "text/text.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_text(const sq_tok *t, const char *text, size_t n, unsigned flags) {
    sq_arena ar;
    sq_arena_init(&ar, NULL, 4096, 1 << 24);
    int32_t *ids;
    size_t n_ids;
    if (sq_tok_encode(t, text, n, flags, &ar, &ids, &n_ids, NULL) == SQUISH_OK) {
        sq_buf out;
        sq_buf_init(&out, NULL, 1 << 24);
        sq_detok d;
        sq_detok_init(&d, t, true, true);
        for (size_t i = 0; i < n_ids; i++) {
            if (ids[i] < 0 || ids[i] >= sq_tok_count(t)) abort();
            sq_detok_push(&d, ids[i], &out);
        }
        sq_detok_finish(&d, &out);
        if (out.len && !sq_utf8_valid(out.data, out.len)) abort();
        sq_buf_deinit(&out);
    }
    sq_arena_deinit(&ar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    squish_error err = {0};
    sq_buf blob;
    sq_buf_init(&blob, NULL, 1 << 28);
    sq_tok_hf_source src = {.tokenizer_json = {data, size}};
    squish_status st = sq_tok_compile_hf(&src, NULL, &blob, NULL, NULL, &err);
    if (st != SQUISH_OK && err.text[0] == '\0') abort();
    sq_tok_view view;
    const sq_tok *t;
    if (st == SQUISH_OK &&
        sq_tok_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, NULL, &t, &err) == SQUISH_OK) {
        static const char text[] = "It's <s> caf\xC3\xA9 e\xCC\x81 12\n\n \xE2\x96\x81 \xF0\x9F\x98\x80 ab";
        try_text(t, text, sizeof text - 1, SQ_TOK_SPECIAL | SQ_TOK_BOS_EOS);
        try_text(t, (const char *)data, size < 48 ? size : 48, 0);
        sq_tok_close(t);
    }
    sq_buf_deinit(&blob);
    return 0;
}
