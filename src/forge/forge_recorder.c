/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_recorder.c - recording what goes into the matrices: sums while the model runs, a file at the end.
 *
 * Every number is summed over the tokens in their order, by one thread, so the file is the same for any
 * number of threads and any cut of the text into chunks. Rows are taken in slices that stay in the second
 * cache level while all rows of a Hessian pass over them. */
#include "forge/forge_calibration.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SLICE_ROWS = 64, TENSORS_OF_INPUT = 2 };

typedef struct {
    int32_t cols;
    size_t floats;
    float *hessian;        /* [floats] */
    double *sum_abs;       /* [cols] */
} sums;

struct sq_calibrator {
    squish_alloc alloc;
    sq_pool *pool;
    sq_config cfg;
    int32_t block;
    int64_t tokens;        /* of the first input; the others see the same */
    size_t floats_bytes, abs_bytes;
    void *floats, *abs;
    sums in[];             /* [n_layers][SQ_TAP_COUNT] */
};

static size_t struct_bytes(const sq_config *c) {
    return sizeof(sq_calibrator) + (size_t)c->n_layers * SQ_TAP_COUNT * sizeof(sums);
}

/* Floats of all Hessians and columns of all inputs. */
static void count(const sq_config *c, int32_t block, size_t *floats, size_t *cols) {
    *floats = *cols = 0;
    for (int32_t t = 0; t < SQ_TAP_COUNT; t++) {
        const int32_t n = sq_tap_cols(c, (sq_tap)t);
        *floats += (size_t)c->n_layers * sq_hessian_floats(n, block);
        *cols += (size_t)c->n_layers * (size_t)n;
    }
}

uint64_t sq_calibrator_bytes(const sq_config *c, int32_t block) {
    size_t floats, cols;
    count(c, block, &floats, &cols);
    return (uint64_t)floats * sizeof(float) + (uint64_t)cols * sizeof(double) + struct_bytes(c);
}

squish_status sq_calibrator_new(sq_calibrator **out, const sq_config *c, int32_t block, sq_pool *pool,
                                const squish_alloc *a, squish_error *err) {
    *out = NULL;
    if (block < 1 || block > SQ_CALIBRATION_BLOCK_MAX || (block > 1 && block % SQ_GROUP != 0))
        return sq_fail(err, SQUISH_INVALID, "block is %d columns, wanted 1 or a multiple of %d up to %d",
                       block, SQ_GROUP, SQ_CALIBRATION_BLOCK_MAX);
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    size_t floats, cols;
    count(c, block, &floats, &cols);
    sq_calibrator *k = sq_alloc_zero(&alloc, struct_bytes(c));
    if (!k) return sq_fail(err, SQUISH_NO_MEMORY, "calibration: out of memory");
    k->alloc = alloc;
    k->pool = pool;
    k->cfg = *c;
    k->block = block;
    k->floats_bytes = floats * sizeof(float);
    k->abs_bytes = cols * sizeof(double);
    k->floats = sq_alloc_zero(&alloc, k->floats_bytes);
    k->abs = k->floats ? sq_alloc_zero(&alloc, k->abs_bytes) : NULL;
    if (!k->abs) {
        const double need = (double)sq_calibrator_bytes(c, block);
        sq_calibrator_free(k);
        return sq_fail(err, SQUISH_NO_MEMORY, "calibration: no memory for sums of %.2f GB", need / 1e9);
    }
    float *h = k->floats;
    double *s = k->abs;
    for (int32_t i = 0; i < c->n_layers * SQ_TAP_COUNT; i++) {
        const int32_t n = sq_tap_cols(c, (sq_tap)(i % SQ_TAP_COUNT));
        k->in[i] = (sums){n, sq_hessian_floats(n, block), h, s};
        h += k->in[i].floats;
        s += n;
    }
    *out = k;
    return SQUISH_OK;
}

void sq_calibrator_free(sq_calibrator *k) {
    if (!k) return;
    squish_alloc a = k->alloc;
    sq_alloc_free(&a, k->abs, k->abs_bytes);
    sq_alloc_free(&a, k->floats, k->floats_bytes);
    sq_alloc_free(&a, k, struct_bytes(&k->cfg));
}

void sq_calibrator_take(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m) {
    sq_calibrator *k = user;
    const sums *s = &k->in[layer * SQ_TAP_COUNT + (int32_t)tap];
    if (layer == 0 && tap == SQ_TAP_ATTN_IN) k->tokens += m;
    for (int32_t at = 0; at < m; at += SLICE_ROWS) {
        const int32_t n = m - at < SLICE_ROWS ? m - at : SLICE_ROWS;
        const float *row = x + (size_t)at * ld;
        sq_hessian_add(k->pool, s->hessian, s->cols, k->block, row, ld, n);
        for (int32_t i = 0; i < n; i++, row += ld)
            for (int32_t j = 0; j < s->cols; j++) s->sum_abs[j] += (double)fabsf(row[j]);
    }
}

/* ---- the file -------------------------------------------------------------------------------- */

static squish_status put_meta(sq_st_writer *w, const sq_calibrator *k, int32_t tokens, int32_t window,
                              uint64_t text_sum, squish_error *err) {
    const struct {
        const char *key;
        long long value;
    } numbers[] = {
        {"layers", k->cfg.n_layers}, {"tokens", tokens}, {"window", window}, {"block", k->block}};
    char text[32];
    SQ_TRY(sq_st_writer_meta(w, "squish_calibration", "1", err));
    SQ_TRY(sq_st_writer_meta(w, "architecture", k->cfg.arch, err));
    for (size_t i = 0; i < SQ_COUNT(numbers); i++) {
        snprintf(text, sizeof text, "%lld", numbers[i].value);
        SQ_TRY(sq_st_writer_meta(w, numbers[i].key, text, err));
    }
    snprintf(text, sizeof text, "%016llx", (unsigned long long)text_sum);
    return sq_st_writer_meta(w, "text", text, err);
}

static squish_status declare(sq_st_writer *w, int32_t input, const char *what, size_t floats,
                             squish_error *err) {
    char name[48];
    size_t index;
    snprintf(name, sizeof name, "%d.%s.%s", input / SQ_TAP_COUNT, sq_tap_names[input % SQ_TAP_COUNT], what);
    const sq_ftensor t = {.name = name,
                          .dtype = SQ_DT_F32,
                          .n_dims = 1,
                          .dims = {floats},
                          .bytes = (uint64_t)floats * sizeof(float)};
    return sq_st_writer_tensor(w, &t, &index, err);
}

/* Tensors were declared as mean_abs, hessian of every input, so their indexes are 2 i and 2 i + 1. A sum
 * that is no number would spoil every build made with it. */
static squish_status put_input(sq_st_writer *w, const sq_calibrator *k, int32_t i, int32_t tokens,
                               squish_error *err) {
    enum { PART = 1024 };
    const sums *s = &k->in[i];
    const size_t index = (size_t)i * TENSORS_OF_INPUT;
    float mean[PART];
    for (size_t j = 0; j < s->floats; j++)
        if (!isfinite(s->hessian[j]))
            return sq_fail(err, SQUISH_NUMERIC, "layer %d, %s: the sums of its inputs are not finite",
                           i / SQ_TAP_COUNT, sq_tap_names[i % SQ_TAP_COUNT]);
    for (int32_t at = 0; at < s->cols; at += PART) {
        const int32_t n = s->cols - at < PART ? s->cols - at : PART;
        for (int32_t j = 0; j < n; j++) mean[j] = (float)(s->sum_abs[at + j] / tokens);
        SQ_TRY(sq_st_writer_put(w, index, (uint64_t)at * sizeof *mean, mean, (size_t)n * sizeof *mean, err));
    }
    return sq_st_writer_put(w, index + 1, 0, s->hessian, s->floats * sizeof *s->hessian, err);
}

static squish_status put_all(sq_st_writer *w, const sq_calibrator *k, int32_t tokens, int32_t window,
                             uint64_t text_sum, squish_error *err) {
    const int32_t n = k->cfg.n_layers * SQ_TAP_COUNT;
    uint64_t bytes;
    SQ_TRY(put_meta(w, k, tokens, window, text_sum, err));
    for (int32_t i = 0; i < n; i++) {
        SQ_TRY(declare(w, i, "mean_abs", (size_t)k->in[i].cols, err));
        SQ_TRY(declare(w, i, "hessian", k->in[i].floats, err));
    }
    SQ_TRY(sq_st_writer_layout(w, &bytes, err));
    for (int32_t i = 0; i < n; i++) SQ_TRY(put_input(w, k, i, tokens, err));
    return sq_st_writer_finish(w, err);
}

squish_status sq_calibrator_write(const sq_calibrator *k, const char *path, int32_t tokens, int32_t window,
                                  uint64_t text_sum, squish_error *err) {
    if (tokens < 1 || tokens != k->tokens)
        return sq_fail(err, SQUISH_INVALID, "calibration of %d tokens, %lld were taken", tokens,
                       (long long)k->tokens);
    sq_st_writer *w;
    SQ_TRY(sq_st_writer_new(&w, path, &k->alloc, err));
    const squish_status st = put_all(w, k, tokens, window, text_sum, err);
    sq_st_writer_free(w);
    return st;
}
