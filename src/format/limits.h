/* SPDX-License-Identifier: Apache-2.0
 *
 * limits.h - ceilings on every size that comes from outside. A refusal names its ceiling. */
#ifndef SQ_LIMITS_H
#define SQ_LIMITS_H

enum {
    SQ_MAX_ST_HEADER = 100000000, /* safetensors header bytes */
    SQ_MAX_TENSORS = 1000000,     /* tensors of one checkpoint */
    SQ_MAX_SHARDS = 10000,
    SQ_MAX_DIMS = 8,
    SQ_MAX_NAME = 255,             /* bytes of a tensor name */
    SQ_MAX_JSON = 256 << 20,       /* bytes of one JSON file */
    SQ_MAX_CONFIG_JSON = 16 << 20, /* config.json, generation_config.json, tokenizer_config.json */
    SQ_MAX_GGUF_STRING = 64 << 20,
    SQ_MAX_GGUF_ARRAY = 1 << 27,
    SQ_MAX_GGUF_KV = 65536,
    SQ_MAX_SECTIONS = 64, /* of a .sqw */
    SQ_MAX_RANK = 4096,   /* of a low-rank compensator in a .sqw */
    SQ_MAX_LORAS = 16,    /* adapters of one open model */
    SQ_MAX_NOTE = 512,    /* bytes of a caller's note in the journal of a .sqw */
    SQ_MAX_VOCAB = 1 << 22,
    SQ_MAX_LAYERS = 1024,
    SQ_MAX_HIDDEN = 1 << 17,
    SQ_MAX_FFN = 1 << 19,
    SQ_MAX_HEADS = 1024,
    SQ_MAX_HEAD_DIM = 512,
    SQ_MAX_CTX = 1 << 24,
    SQ_MAX_EXPERTS = 4096,
    SQ_MAX_EXPERTS_USED = 64, /* by one token */
    SQ_MAX_TEMPLATE = 1 << 20 /* bytes of chat template source */
};
#endif
