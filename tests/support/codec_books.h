/* SPDX-License-Identifier: Apache-2.0
 *
 * codec_books.h - small codebooks for tests: one or two layers, one head of 16 channels, trained on noise,
 * with a gate that says they passed. */
#ifndef SQ_TEST_CODEC_BOOKS_H
#define SQ_TEST_CODEC_BOOKS_H

#include "kv/kv_codec.h"
#include "support/model_run.h"

#include <math.h>

enum { BOOK_D = 16, BOOK_N = 1500 };

/* Sums of four uniform numbers: bell enough. */
static inline float bell_number(uint64_t *rng) {
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += (float)(sq_splitmix64(rng) >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.7f;
}

/* Vectors of every part; channels have sizes and a middle of their own. */
static inline uint16_t *noise_vectors(int32_t parts, int32_t n, uint64_t seed) {
    uint16_t *x = malloc((size_t)parts * (size_t)n * BOOK_D * sizeof *x);
    for (size_t i = 0; i < (size_t)parts * (size_t)n * BOOK_D; i++)
        x[i] = sq_f32_to_f16(3 + (float)(1 + i % 4) * bell_number(&seed));
    return x;
}

static inline void books_turns(sq_codec *c) {
    c->turns = (sq_codec_turns){.factor = {1.0, 1.25}};
    for (int32_t i = 0; i < c->info.shape.head_dim / 2; i++) {
        c->turns.inv_freq[0][i] = pow(1e4, -2.0 * i / c->info.shape.head_dim);
        c->turns.inv_freq[1][i] = pow(1e3, -2.0 * i / c->info.shape.head_dim);
    }
    c->turns.set[1] = 1;
}

static inline squish_status books_train(sq_codec **out, const sq_kv_shape *s, sq_pool *pool,
                                        const squish_alloc *a, squish_error *err) {
    sq_kernels k;
    SQ_TRY(sq_codec_new(out, s, a, err));
    sq_codec *c = *out;
    sq_kernels_select(&k, sq_cpu_features(), SQ_ISA_COUNT);
    uint16_t *x = noise_vectors(c->n_parts, BOOK_N, 5);
    const squish_status st = sq_codec_train(c, 0, c->n_parts, x, BOOK_N, pool, &k, NULL, NULL, err);
    free(x);
    c->info.identity = 7;
    c->info.tokens = BOOK_N;
    c->info.gate = (sq_codec_gate){.prefix = 2048,
                                   .continued = 200,
                                   .stretches = 2,
                                   .trials = 20,
                                   .found_f16 = 19,
                                   .found = 19,
                                   .kl = 0.01,
                                   .prefill_us = 100,
                                   .decode_us = 1};
    books_turns(c);
    return st;
}

static inline sq_buf books_file(sq_codec *c, const squish_alloc *a) {
    sq_buf b;
    squish_error err = {0};
    sq_buf_init(&b, a, 1 << 22);
    assert_ok(sq_codec_file(c, &b, &err), &err);
    return b;
}

#endif
