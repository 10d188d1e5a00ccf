/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny_model.h - checkpoints made by the test itself: config.json and model.safetensors from a seed, in any
 * shape, whole or with one tensor spoilt. */
#ifndef SQ_TEST_TINY_MODEL_H
#define SQ_TEST_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    TINY_WHOLE,
    TINY_NAN,     /* one weight is NaN */
    TINY_MISSING, /* the tensor is not there */
    TINY_SHAPE,   /* one row less */
    TINY_DTYPE    /* stored as I32 */
} tiny_fault;

typedef struct {
    const char *model_type; /* "llama", "qwen2", "qwen3", "mistral" */
    int32_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab, ctx;
    int32_t window;            /* 0: none */
    bool tied, bias, mlp_bias; /* bias: attention_bias of llama and qwen3 */
    bool bf16;                 /* else f32 */
    uint64_t seed;
    tiny_fault fault;
    const char *spoilt; /* name of the tensor the fault is in */
} tiny_spec;

/* A llama of the given shape: 3 layers, 4 heads over 2, vocabulary 96, context 512. */
tiny_spec tiny_default(void);
/* Write into an existing directory; aborts the test on failure. */
void tiny_write(const tiny_spec *s, const char *dir);

#endif
