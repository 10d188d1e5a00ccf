/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_matrix.c - one matrix on its way into the file: 16 rows at a time and thread, whatever its size.
 *
 * Row tiles do not depend on each other and their measures are added up in tile order, so the file and its
 * report are the same for any number of threads. Methods that look at the whole matrix find its codes first
 * (forge_whole.c); the tiles are then packed, compared and written as any others. */
#include "forge/forge_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    sq_build *b;
    const sq_weight *src;
    sq_recipe r;
    sq_encoding enc;
    size_t index; /* in the writer */
    bool folded;
    sq_weight dst;     /* shape and type; data unused */
    sq_whole whole;    /* in memory, for methods that need it; w NULL: not */
    sq_coded coded;    /* their result; codes NULL: none */
    float *importance; /* [cols] or NULL */
    char *scratch;     /* per thread: f32 [16][cols], f32 [cols], repacking, tile bytes */
    size_t repack_off, tile_off, scratch_bytes;
    sq_fidelity *fid; /* [tiles] */
    char why[160];    /* the method could not make it; "" */
    atomic_int failed;
    squish_error err; /* of the first failing tile */
} matrix_job;

static bool plain(const sq_weight *w) { return sq_wtype_get((sq_wtype)w->wtype)->layout == SQ_LAYOUT_ROWS; }

/* ---- rows of the source ---------------------------------------------------------------------- */

void sq_build_row(const sq_build *b, size_t index, const sq_weight *src, int32_t r, float *out) {
    const sq_fold f = b->folds[index];
    sq_weight_row(src, r, out);
    if (f.rows)
        for (int32_t c = 0; c < src->cols; c++) out[c] /= f.rows[r];
    if (f.cols)
        for (int32_t c = 0; c < src->cols; c++) out[c] *= f.cols[c];
}

/* Bits of floats without their sign rise as the floats do, which lets this loop be a vector one. */
float sq_build_largest(const float *w, int32_t n) {
    union {
        uint32_t u;
        float f;
    } most = {0};
    for (int32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &w[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        most.u = bits > most.u ? bits : most.u;
    }
    return most.f;
}

/* Inputs that were never seen count a little: what is 0 now need not be 0 for ever. */
bool sq_build_importance(const sq_build *b, const sq_want *w, size_t index, float *out) {
    static const double LEAST = 1e-4;
    sq_hessian h;
    const float *mean_abs, *s = b->folds[index].cols;
    if (!b->calibration || !sq_calibration_input(b->calibration, w->layer, w->role, &h, &mean_abs) ||
        h.cols != w->cols)
        return false;
    sq_hessian_diagonal(&h, out);
    double mean = 0;
    for (int32_t k = 0; k < w->cols; k++) {
        if (s) out[k] /= s[k] * s[k];
        mean += (double)out[k] / w->cols;
    }
    if (!(mean > 0) || !isfinite(mean)) return false;
    for (int32_t k = 0; k < w->cols; k++) {
        const double share = (double)out[k] / mean;
        out[k] = (float)(share > LEAST ? share : LEAST);
    }
    return true;
}

/* ---- one tile -------------------------------------------------------------------------------- */

/* Bytes of rows [row0, row0 + n) as they lie; whole row tiles of packed types. */
static size_t source_tile(const sq_weight *w, int32_t tile, int32_t n_rows, const uint8_t **at) {
    *at = w->data + (size_t)tile * w->tile_bytes;
    return sq_wtype_packed((sq_wtype)w->wtype) ? w->tile_bytes
                                               : w->tile_bytes / SQ_TILE_ROWS * (size_t)n_rows;
}

static void make_tile(matrix_job *k, int32_t tile, int32_t n_rows, const float *rows, void *tmp,
                      uint8_t *out) {
    const int32_t cols = k->src->cols, row0 = tile * SQ_TILE_ROWS;
    if (k->r.make == SQ_MAKE_REPACK) {
        sq_repack_tile(k->src, row0, n_rows, k->r.type, k->r.scale, tmp, out);
    } else if (k->coded.codes) {
        const size_t side = (size_t)row0 * (size_t)k->coded.groups;
        sq_tile_pack(k->r.type, n_rows, cols, k->coded.codes + (size_t)row0 * (size_t)cols,
                     k->coded.scale + side, k->coded.bias + side, out);
    } else if (plain(k->src) && !k->folded) {
        const size_t row_bytes = k->src->tile_bytes / SQ_TILE_ROWS;
        k->b->kernels.encode(&k->enc, (sq_wtype)k->src->wtype, k->src->data + (size_t)row0 * row_bytes,
                             row_bytes, n_rows, cols, out);
    } else {
        k->b->kernels.encode(&k->enc, SQ_W_F32, (const uint8_t *)rows, (size_t)cols * sizeof *rows, n_rows,
                             cols, out);
    }
}

/* A reader's view of the tile against the rows it was made from. */
static void compare(matrix_job *k, int32_t tile, int32_t n_rows, const float *rows, float *back,
                    const uint8_t *made) {
    const int32_t cols = k->src->cols, rank = k->coded.rank;
    sq_weight view = sq_weight_make(k->r.type, k->r.scale, n_rows, cols, made);
    sq_lowrank low;
    if (rank > 0) {
        const uint16_t *u = k->coded.u + (size_t)tile * SQ_TILE_ROWS * (size_t)rank;
        low.v = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, rank, cols, (const uint8_t *)k->coded.v);
        low.u = sq_weight_make(SQ_W_F16, SQ_SCALE_F16, n_rows, rank, (const uint8_t *)u);
        low.scale = 1;
        low.next = NULL;
        view.low = &low;
    }
    const bool alone = !view.low && sq_wtype_get(k->r.type)->layout == SQ_LAYOUT_T16X4;
    for (int32_t i = 0; i < n_rows; i++) {
        const float *row = rows + (size_t)i * (size_t)cols;
        if (alone) {
            k->b->kernels.compare(&view, i, row, back, &k->fid[tile]);
        } else {
            sq_weight_row_whole(&view, i, back);
            sq_fidelity_row(&k->fid[tile], row, back, cols);
        }
    }
}

static void tile_item(void *ctx, int32_t item, int32_t thread) {
    matrix_job *k = ctx;
    const int32_t tile = item - 1;
    if (item == 0) sq_build_work_aside(k->b);
    if (item == 0 || atomic_load(&k->failed)) return;
    const int32_t cols = k->src->cols, row0 = tile * SQ_TILE_ROWS;
    const int32_t n_rows = k->src->rows - row0 < SQ_TILE_ROWS ? k->src->rows - row0 : SQ_TILE_ROWS;
    char *mine = k->scratch + (size_t)thread * k->scratch_bytes;
    float *loaded = (float *)(void *)mine, *back = loaded + (size_t)SQ_TILE_ROWS * (size_t)cols;
    const float *rows = k->whole.w ? k->whole.w + (size_t)row0 * (size_t)cols : loaded;
    uint8_t *tmp = (uint8_t *)mine + k->tile_off;
    const uint8_t *out = tmp;
    size_t bytes = plain(&k->dst) ? k->dst.tile_bytes / SQ_TILE_ROWS * (size_t)n_rows : k->dst.tile_bytes;
    for (int32_t i = 0; !k->whole.w && i < n_rows; i++)
        sq_build_row(k->b, k->index, k->src, row0 + i, loaded + (size_t)i * (size_t)cols);
    if (k->r.make == SQ_MAKE_COPY)
        bytes = source_tile(k->src, tile, n_rows, &out);
    else
        make_tile(k, tile, n_rows, rows, mine + k->repack_off, tmp);
    compare(k, tile, n_rows, rows, back, out);
    squish_error err = {0};
    if (sq_sqw_writer_put(k->b->w, k->index, (uint64_t)tile * k->dst.tile_bytes, out, bytes, &err) ==
        SQUISH_OK)
        return;
    int expected = 0;
    if (atomic_compare_exchange_strong(&k->failed, &expected, 1)) k->err = err;
}

/* ---- before the tiles ------------------------------------------------------------------------ */

/* BitNet's scale of a whole tensor: mean |w|, or the one magnitude of weights that are ternary already (zeros
 * would pull the mean below it). exact: are they? Sums run row by row. */
static float ternary_scale(const sq_weight *w, float *row, bool *exact) {
    double sum = 0;
    float only = 0;
    *exact = true;
    for (int32_t r = 0; r < w->rows; r++) {
        sq_weight_row(w, r, row);
        for (int32_t c = 0; c < w->cols; c++) {
            const float a = fabsf(row[c]);
            sum += (double)a;
            if (a != 0 && only == 0) only = a;
            if (a != 0 && a != only) *exact = false;
        }
    }
    return *exact ? only : (float)(sum / ((double)w->rows * (double)w->cols));
}

static squish_status settle_ternary(matrix_job *k, const sq_want *w, squish_error *err) {
    bool exact = false;
    if (k->r.make != SQ_MAKE_QUANTISE || k->r.type != SQ_W_T2_ROW) return SQUISH_OK;
    k->enc.gamma = ternary_scale(k->src, (float *)(void *)k->scratch, &exact);
    if (exact || k->b->j->m->cfg.ternary) return SQUISH_OK;
    return sq_fail(err, SQUISH_QUALITY,
                   "tensor '%s' is not ternary: 1.58 bits are for models that were trained with them",
                   w->name);
}

static bool weighted(const sq_recipe *r) {
    return r->make == SQ_MAKE_QUANTISE && r->method == SQ_QUANT_LSQ && sq_wtype_get(r->type)->bias;
}

static squish_status settle_importance(matrix_job *k, const sq_want *w, squish_error *err) {
    if (!k->b->calibration || !weighted(&k->r)) return SQUISH_OK;
    const size_t bytes = (size_t)w->cols * sizeof(float);
    k->importance = sq_alloc_new(&k->b->j->alloc, bytes);
    if (!k->importance) return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    if (sq_build_importance(k->b, w, k->index, k->importance)) {
        k->enc.importance = k->importance;
    } else {
        sq_alloc_free(&k->b->j->alloc, k->importance, bytes);
        k->importance = NULL;
    }
    return SQUISH_OK;
}

static squish_status not_finite(const matrix_job *k, const sq_want *w, uint64_t bad, squish_error *err) {
    return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': %llu of %llu weights are not finite numbers",
                   k->b->j->m->info.path, w->hf_name, (unsigned long long)bad,
                   (unsigned long long)w->rows * (unsigned long long)w->cols);
}

/* Codes by a method that needs all of the matrix. It is given finite numbers within reach only. */
static squish_status settle_whole(matrix_job *k, const sq_want *w, squish_error *err) {
    if (k->r.make != SQ_MAKE_QUANTISE || k->r.by == SQ_BY_PLAIN) return SQUISH_OK;
    SQ_TRY(sq_whole_load(k->b, w, k->index, k->importance, &k->whole, err));
    if (k->whole.n_nonfinite) return not_finite(k, w, k->whole.n_nonfinite, err);
    if (k->whole.peak > sq_build_reach(&k->r)) return sq_build_find_wide(k->b, k->index, err);
    return sq_whole_encode(k->b, w, &k->r, &k->whole, k->importance, &k->coded, k->why, sizeof k->why, err);
}

/* ---- behind the tiles ------------------------------------------------------------------------ */

bool sq_build_parts_of(const sq_recipe *r, int32_t rows, int32_t cols, sq_build_parts *p) {
    uint64_t codes = 0;
    if (!sq_weight_bytes(r->type, rows, cols, &codes) || codes > (uint64_t)1 << 60) return false;
    *p = (sq_build_parts){codes, codes, codes, codes};
    if (r->rank == 0) return true;
    p->v = (codes + 63) / 64 * 64;
    p->u = (p->v + (uint64_t)r->rank * (uint64_t)cols * sizeof(uint16_t) + 63) / 64 * 64;
    p->end = p->u + (uint64_t)r->rank * (uint64_t)rows * sizeof(uint16_t);
    return true;
}

/* Bytes [from, to) of a tensor: p, then zeros. */
static squish_status put_padded(matrix_job *k, uint64_t from, uint64_t to, const void *p, size_t n,
                                squish_error *err) {
    static const uint8_t zeros[64];
    if (n > 0) SQ_TRY(sq_sqw_writer_put(k->b->w, k->index, from, p, n, err));
    if (from + n == to) return SQUISH_OK;
    return sq_sqw_writer_put(k->b->w, k->index, from + n, zeros, (size_t)(to - from - n), err);
}

static squish_status put_factors(matrix_job *k, squish_error *err) {
    sq_build_parts p;
    const sq_coded *c = &k->coded;
    if (c->rank == 0) return SQUISH_OK;
    if (!sq_build_parts_of(&k->r, c->rows, c->cols, &p))
        return sq_fail(err, SQUISH_INVALID, "matrix of %d x %d is too large", c->rows, c->cols);
    const size_t rank = (size_t)c->rank, v = rank * (size_t)c->cols * 2, u = rank * (size_t)c->rows * 2;
    SQ_TRY(put_padded(k, p.codes, p.v, NULL, 0, err));
    SQ_TRY(put_padded(k, p.v, p.u, c->v, v, err));
    return put_padded(k, p.u, p.end, c->u, u, err);
}

static const char *method_of(const matrix_job *k) {
    if (k->r.type == SQ_W_T2_ROW) return "ternary";
    if (!sq_wtype_get(k->r.type)->bias || k->r.method == SQ_QUANT_RTN) return "rtn";
    if (k->coded.codes) return k->r.by == SQ_BY_GPTQ ? "gptq" : "milo";
    return k->enc.importance ? "lsq-imp" : "lsq";
}

static squish_status judge(matrix_job *k, const sq_want *w, squish_error *err) {
    const int32_t tiles = sq_weight_tiles(k->src);
    sq_fidelity all = {0};
    if (atomic_load(&k->failed)) return sq_fail(err, k->err.code, "%s", k->err.text);
    for (int32_t t = 0; t < tiles; t++) sq_fidelity_merge(&all, &k->fid[t]);
    if (all.n_nonfinite) return not_finite(k, w, all.n_nonfinite, err);
    if (all.peak > (double)sq_build_reach(&k->r)) return sq_build_find_wide(k->b, k->index, err);
    SQ_TRY(put_factors(k, err));
    const sq_build_made made = {method_of(k), k->why, k->folded};
    return sq_build_close(k->b, k->index,
                          k->r.make == SQ_MAKE_QUANTISE ? sq_build_quantised_line(w, &k->r, &made, &all)
                                                        : sq_build_kept_line(w, &k->r, k->folded),
                          err);
}

/* ---- all of it ------------------------------------------------------------------------------- */

squish_status sq_build_matrix(sq_build *b, const sq_want *w, size_t index, squish_error *err) {
    const squish_alloc *a = &b->j->alloc;
    matrix_job k = {.b = b, .src = sq_model_matrix(b->j->m, w), .index = index, .r = b->recipes[index]};
    const int32_t tiles = sq_weight_tiles(k.src), cols = k.src->cols;
    k.folded = sq_fold_is(&b->folds[index]);
    k.enc = (sq_encoding){.type = k.r.type, .scale = k.r.scale, .method = k.r.method};
    k.dst = sq_weight_make(k.r.type, k.r.scale, k.src->rows, cols, NULL);
    k.repack_off = sq_align_up((size_t)(SQ_TILE_ROWS + 1) * (size_t)cols * sizeof(float), 64);
    k.tile_off = sq_align_up(k.repack_off + (k.r.make == SQ_MAKE_REPACK ? sq_repack_scratch(cols) : 0), 64);
    k.scratch_bytes = sq_align_up(k.tile_off + k.dst.tile_bytes, 64);
    const size_t scratch = k.scratch_bytes * (size_t)sq_pool_threads(b->j->pool);
    const size_t fids = (size_t)tiles * sizeof *k.fid;
    k.scratch = sq_alloc_new(a, scratch);
    k.fid = sq_alloc_zero(a, fids);
    squish_status st = SQUISH_OK;
    if (!k.scratch || !k.fid)
        st = sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    if (st == SQUISH_OK) st = settle_ternary(&k, w, err);
    if (st == SQUISH_OK) st = settle_importance(&k, w, err);
    if (st == SQUISH_OK) st = settle_whole(&k, w, err);
    if (st == SQUISH_OK && !b->again) {
        sq_pool_run(b->j->pool, tile_item, &k, 1 + tiles);
        st = judge(&k, w, err);
    }
    sq_coded_free(&k.coded);
    sq_whole_free(b, &k.whole);
    sq_alloc_free(a, k.importance, (size_t)cols * sizeof *k.importance);
    sq_alloc_free(a, k.fid, fids);
    sq_alloc_free(a, k.scratch, scratch);
    return st;
}
