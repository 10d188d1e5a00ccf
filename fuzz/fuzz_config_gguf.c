/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config_gguf.c - configuration from the keys of a GGUF file: what is accepted passes the check, lists
 * its tensors, and its config.json text reads back. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sq_config *c, const char *pooling) {
    const squish_alloc heap = sq_alloc_default();
    sq_want w;
    sq_config back;
    squish_text text;
    if (sq_config_check(c, NULL) != SQUISH_OK) abort();
    for (size_t i = 0; i < 64 && sq_config_want(c, i, &w); i++)
        if (w.rows < 1 || w.cols < 1 || !w.gguf_name[0]) abort();
    if (sq_config_to_json(c, pooling, &heap, &text, NULL) != SQUISH_OK) abort();
    if (sq_config_from_json(text.data, text.bytes, &back, NULL) != SQUISH_OK) abort();
    if (back.hidden != c->hidden || back.n_vocab != c->n_vocab || back.head_dim != c->head_dim) abort();
    sq_alloc_free(&heap, text.data, text.bytes + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_gguf *g;
    sq_config c;
    squish_error err = {0};
    if (sq_gguf_parse(&g, (sq_span){data, size}, "fuzz.gguf", NULL, NULL) != SQUISH_OK) return 0;
    const char *pooling = NULL;
    squish_status st = sq_config_from_gguf(g, &c, &err);
    if (st == SQUISH_OK) st = sq_config_gguf_pooling(g, &pooling, &err);
    if (st == SQUISH_OK)
        use(&c, pooling);
    else if (err.code != st || !err.text[0])
        abort();
    sq_gguf_close(g);
    return 0;
}
