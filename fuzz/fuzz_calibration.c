/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_calibration.c - a recording of squish calibrate, read for a model of one small layer: what is accepted
 * gives every matrix its input, finite and with no negative diagonal. */
#include "forge/forge_calibration.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const sq_calibration *k, const sq_config *c) {
    sq_want w;
    for (size_t i = 0; sq_config_want(c, i, &w); i++) {
        sq_hessian h;
        const float *mean_abs;
        float diagonal[64];
        const bool has = sq_calibration_input(k, w.layer, w.role, &h, &mean_abs);
        if (has != (w.layer >= 0 && !w.vector)) abort();
        if (!has) continue;
        if (h.cols != w.cols || h.cols > 64 || h.block != sq_calibration_block(k)) abort();
        sq_hessian_diagonal(&h, diagonal);
        for (int32_t j = 0; j < h.cols; j++)
            if (!isfinite(mean_abs[j]) || mean_abs[j] < 0 || !isfinite(diagonal[j]) || diagonal[j] < 0)
                abort();
        for (size_t j = 0; j < sq_hessian_floats(h.cols, h.block); j++)
            if (!isfinite(h.h[j])) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char config[] = "{\"model_type\":\"qwen2\",\"num_hidden_layers\":1,\"hidden_size\":16,"
                                 "\"intermediate_size\":32,\"num_attention_heads\":2,"
                                 "\"num_key_value_heads\":1,\"vocab_size\":64,"
                                 "\"max_position_embeddings\":64}";
    sq_config c;
    squish_error err = {0};
    sq_calibration *k;
    if (sq_config_from_json(config, sizeof config - 1, &c, NULL) != SQUISH_OK) abort();
    const squish_status st = sq_calibration_parse(&k, (sq_span){data, size}, "fuzz", &c, NULL, &err);
    if (st == SQUISH_OK) {
        if (!k) abort();
        use(k, &c);
    } else if (k || err.code != st || !err.text[0]) {
        abort();
    }
    sq_calibration_close(k);
    return 0;
}
