/* SPDX-License-Identifier: Apache-2.0
 *
 * naive_llama.h - the transformer once more, in double and without a single trick: the independent oracle.
 *
 * Reads config.json and model.safetensors (F32) itself and shares nothing with the engine but the safetensors
 * reader. Llama, Mistral, Qwen2 and Qwen3 without rope scaling; every position is computed from all earlier
 * ones, with no cache. */
#ifndef SQ_TEST_NAIVE_LLAMA_H
#define SQ_TEST_NAIVE_LLAMA_H

#include <stdint.h>

/* Logits of all n positions, [n][vocab], from malloc. Aborts the test if the checkpoint cannot be read. */
double *naive_logits(const char *dir, const int32_t *ids, int32_t n);

#endif
