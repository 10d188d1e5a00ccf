/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_codec.c - codebooks of a cache from arbitrary bytes, sums also made right: what is accepted is written
 * again to the same bytes, and decodes any codes to finite numbers. A coded image, likewise, against books of
 * its own: what is accepted becomes a snapshot that every check of one lets pass. */
#include "kv/kv_archive.h"
#include "kv/kv_snapshot_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VECTORS = 4 };
static const sq_kv_shape shape = {.n_layers = 1, .n_kv_heads = 1, .head_dim = 16};

static void decode_some(const sq_codec *c, const uint8_t *p, size_t n) {
    const size_t d = (size_t)c->info.shape.head_dim;
    const size_t bytes = VECTORS * (sq_codec_vector_bytes(c) - 2);
    float *x = malloc(VECTORS * d * sizeof *x);
    uint8_t *code = malloc(bytes);
    const uint16_t gain[VECTORS] = {0, 0x7bff, 0xfbff, 0x3c00};
    for (size_t i = 0; i < bytes; i++) code[i] = p[i % n];
    for (int32_t part = 0; part < c->n_parts; part++) {
        sq_codec_decode(c, part, gain, code, VECTORS, x);
        for (size_t i = 0; i < VECTORS * d; i++)
            if (!isfinite(x[i])) abort();
    }
    free(code);
    free(x);
}

static void check(const uint8_t *p, size_t n) {
    const squish_alloc a = sq_alloc_default();
    sq_codec *c;
    sq_buf again;
    squish_error err = {0};
    const squish_status st = sq_codec_parse(&c, (sq_span){p, n}, &a, &err);
    if (st != SQUISH_OK) {
        if (st != SQUISH_CORRUPT || err.code != st || err.text[0] == 0) abort();
        return;
    }
    sq_buf_init(&again, &a, n);
    if (sq_codec_file(c, &again, NULL) != SQUISH_OK || again.len != n || memcmp(again.data, p, n) != 0)
        abort();
    sq_buf_deinit(&again);
    decode_some(c, p, n);
    sq_codec_free(c);
}

static sq_codec *books(const squish_alloc *a) {
    sq_codec *c;
    uint64_t rng = 1;
    if (sq_codec_new(&c, &shape, a, NULL) != SQUISH_OK) abort();
    const size_t n = (size_t)c->n_parts * SQ_CODEC_STAGES * SQ_PQ_ROWS * 16;
    for (size_t i = 0; i < n; i++) c->rows[i] = (float)(int32_t)(sq_splitmix64(&rng) % 64) / 32 - 1;
    for (int32_t i = 0; i < 8; i++) c->turns.inv_freq[0][i] = 1.0 / (1 + i);
    c->turns.factor[0] = 1;
    return c;
}

static void check_image(const uint8_t *p, size_t n) {
    const squish_alloc a = sq_alloc_default();
    const sq_kv_policy policy = {.open = SQ_KV_F16};
    sq_codec *c = books(&a);
    sq_snapshot_view v;
    sq_kernels k;
    sq_kernels_select(&k, sq_cpu_features(), SQ_ISA_COUNT);
    const sq_span image = {p, n};
    if (sq_coded_header(c, image, &policy, &v, NULL) == SQUISH_OK) {
        uint8_t *out = aligned_alloc(64, sq_align_up((size_t)v.file_bytes, 64));
        uint8_t *work = aligned_alloc(64, sq_align_up(sq_coded_scratch(c, v.n_tiles), 64));
        sq_coded_open(c, &k, image, &v, out, work);
        const sq_span file = {out, (size_t)v.file_bytes};
        if (sq_snapshot_parse(file, &policy, &v, NULL) != SQUISH_OK) abort();
        for (int32_t t = 0; t < v.n_tiles; t++)
            if (sq_snapshot_tile(&v, t, NULL) != SQUISH_OK) abort();
        free(work);
        free(out);
    }
    sq_codec_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > 1 << 20) return 0;
    uint8_t *p = aligned_alloc(64, sq_align_up(size, 64));
    memcpy(p, data, size);
    check(p, size);
    check_image(p, size);
    if (size >= SQ_SNAPSHOT_HEADER) {
        sq_snapshot_mend(p, size);
        check_image(p, size);
        memcpy(p, data, size);
    }
    sq_codec_mend(p, size);
    check(p, size);
    free(p);
    return 0;
}
