/* SPDX-License-Identifier: Apache-2.0
 *
 * model_fingerprint.c - a number that stands for what a model computes.
 *
 * Reading all weights would take as long as loading them does, so two rows of every matrix are read, as they
 * are used (decoded, adapters included), and every vector. Training changes all of a matrix; a file that
 * differs only between these rows was damaged, which is what checksums are for. */
#include "model/model.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

static void mix(uint64_t *h, const void *p, size_t n) { *h = XXH3_64bits_withSeed(p, n, *h); }

/* The first row and the middle one. */
static void mix_matrix(uint64_t *h, const sq_weight *w, float *row) {
    const int32_t shape[3] = {w->rows, w->cols, (int32_t)w->wtype};
    mix(h, shape, sizeof shape);
    for (int32_t r = 0; r < w->rows; r += w->rows / 2 + 1) {
        sq_weight_row_whole(w, r, row);
        mix(h, row, (size_t)w->cols * sizeof *row);
    }
}

squish_status sq_model_fingerprint(const sq_model *m, const squish_alloc *a, uint64_t *out,
                                   squish_error *err) {
    sq_want w;
    int32_t widest = 1;
    uint64_t h = 0;
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++)
        if (!w.vector && w.cols > widest) widest = w.cols;
    float *row = sq_alloc_new(a, (size_t)widest * sizeof *row);
    if (!row) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory for a row of %d", widest);
    mix(&h, SQUISH_VERSION, sizeof SQUISH_VERSION);
    mix(&h, &m->cfg, sq_config_is_plain(&m->cfg) ? SQ_CONFIG_DENSE_BYTES : sizeof m->cfg);
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++) {
        if (!w.vector)
            mix_matrix(&h, sq_model_matrix(m, &w), row);
        else if (sq_model_vector(m, &w))
            mix(&h, sq_model_vector(m, &w), (size_t)w.rows * sizeof(float));
    }
    sq_alloc_free(a, row, (size_t)widest * sizeof *row);
    *out = h;
    return SQUISH_OK;
}
