/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config.c - config.json. What is accepted passes the check, lists its tensors and gives finite
 * frequencies; the same bytes are also tried as the binary form that lies in a .sqw. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sq_config *c) {
    sq_want w;
    uint64_t bytes;
    for (size_t i = 0; i < 64 && sq_config_want(c, i, &w); i++)
        if (w.rows < 1 || w.cols < 1 || w.row0 + w.rows > w.parent_rows || !w.hf_name[0] ||
            !sq_weight_bytes(SQ_W_F32, w.rows, w.cols, &bytes))
            abort();
    double f[SQ_MAX_HEAD_DIM], factor;
    for (int32_t r = 0; r < c->n_rope; r++) {
        sq_rope_frequencies(&c->rope[r], c->head_dim / 2, f, &factor);
        if (!isfinite(factor)) abort();
        for (int32_t i = 0; i < c->head_dim / 2; i++)
            if (!isfinite(f[i])) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_config c;
    squish_error err = {0};
    const squish_status st = sq_config_from_json((const char *)data, size, &c, &err);
    if (st == SQUISH_OK) {
        if (sq_config_check(&c, NULL) != SQUISH_OK) abort();
        use(&c);
    } else if (err.code != st || !err.text[0]) {
        abort();
    }
    /* The binary form: a good one with the input laid over it. */
    static const char good[] = "{\"model_type\":\"qwen3\",\"num_hidden_layers\":2,\"hidden_size\":64,"
                               "\"intermediate_size\":96,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                               "\"vocab_size\":512,\"max_position_embeddings\":256,\"rope_scaling\":"
                               "{\"type\":\"yarn\",\"factor\":2.0}}";
    if (sq_config_from_json(good, sizeof good - 1, &c, NULL) != SQUISH_OK) abort();
    for (size_t i = 0; i < size && i < sizeof c; i++) ((uint8_t *)&c)[i] ^= data[i];
    if (sq_config_check(&c, NULL) == SQUISH_OK) use(&c);
    return 0;
}
