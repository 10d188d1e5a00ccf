/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_codec.h - what codebooks of a cache cost, measured on a model. */
#ifndef SQ_LIB_CODEC_H
#define SQ_LIB_CODEC_H

#include "model/model_codec.h"
#include "squish_build.h"

enum { SQ_CODEC_PREFIX = 2048, SQ_CODEC_CONTINUED = 200, SQ_CODEC_TRIALS = 20 };

/* Tokens of a prefix that can be measured in contexts of ctx. */
static inline int32_t sq_codec_prefix(int32_t ctx) {
    const int32_t most = (ctx - SQ_CODEC_CONTINUED - 1) / SQ_KV_CELL * SQ_KV_CELL;
    return most < SQ_CODEC_PREFIX ? most : SQ_CODEC_PREFIX;
}

typedef struct {
    const sq_model *m;
    const int32_t *ids;    /* what KL is measured on: `stretches` times prefix + continued tokens and one */
    int32_t prefix, stretches;
    const char *text;      /* whose paragraphs hide pass keys */
    size_t text_bytes;
    int32_t threads;
    squish_progress_fn progress;
    void *progress_user;
} sq_codec_measuring;
/* Into c's gate. The rest of a prefix that queries look at most is computed anew behind the decoded one, as a
 * server does. NO_MEMORY, CANCELLED. */
squish_status sq_codec_measure(const sq_codec_measuring *o, sq_codec *c, squish_error *err);

#endif
