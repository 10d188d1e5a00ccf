/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_lora.c - adapter_config.json. What is accepted has a rank within the ceiling and a finite alpha; what
 * is not says why. The tensors of an adapter come through the readers of safetensors and GGUF, which have
 * targets of their own. */
#include "model/model_int.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sq_lora_config c;
    squish_error err = {0};
    const squish_status st = sq_lora_config_parse((const char *)data, size, "adapter_config.json", &c, &err);
    if (st == SQUISH_OK) {
        if (c.rank < 1 || c.rank > SQ_MAX_RANK || !isfinite(c.alpha)) abort();
    } else if (err.code != st || !err.text[0]) {
        abort();
    }
    return 0;
}
