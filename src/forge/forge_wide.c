/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_wide.c - matrices whose scales f16 cannot hold: found when the first of them is met, then all at
 * once, so that the build starts over at most once. */
#include "forge/forge_build.h"

#include <math.h>

static const float F16_MAX = 65504.0f;

float sq_build_reach(const sq_recipe *r) {
    if (r->make != SQ_MAKE_QUANTISE || r->scale != SQ_SCALE_F16) return INFINITY;
    return sq_wtype_get(r->type)->bias ? F16_MAX : F16_MAX * 127;
}

typedef struct {
    const sq_build *b;
    size_t index;
    const sq_weight *src;
    float *rows, *peak; /* per thread; [tiles] */
} widest_job;

static void widest_item(void *ctx, int32_t tile, int32_t thread) {
    widest_job *k = ctx;
    float *row = k->rows + (size_t)thread * (size_t)k->src->cols;
    const int32_t end = (tile + 1) * SQ_TILE_ROWS < k->src->rows ? (tile + 1) * SQ_TILE_ROWS : k->src->rows;
    for (int32_t r = tile * SQ_TILE_ROWS; r < end; r++) {
        sq_build_row(k->b, k->index, k->src, r, row);
        k->peak[tile] = fmaxf(k->peak[tile], sq_build_largest(row, k->src->cols));
    }
}

static squish_status look_through(sq_build *b, const sq_want *w, size_t index, squish_error *err) {
    const sq_forge_job *j = b->j;
    widest_job k = {.b = b, .index = index, .src = sq_model_matrix(j->m, w)};
    const int32_t tiles = sq_weight_tiles(k.src);
    const size_t rows = (size_t)sq_pool_threads(j->pool) * (size_t)k.src->cols * sizeof(float);
    const size_t peaks = (size_t)tiles * sizeof(float);
    k.rows = sq_alloc_new(&j->alloc, rows);
    k.peak = sq_alloc_zero(&j->alloc, peaks);
    const bool ok = k.rows && k.peak;
    float most = 0;
    if (ok) sq_pool_run(j->pool, widest_item, &k, tiles);
    for (int32_t t = 0; ok && t < tiles; t++) most = fmaxf(most, k.peak[t]);
    if (most > sq_build_reach(&b->recipes[index])) b->widest[index] = most;
    sq_alloc_free(&j->alloc, k.rows, rows);
    sq_alloc_free(&j->alloc, k.peak, peaks);
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
}

squish_status sq_build_find_wide(sq_build *b, size_t first, squish_error *err) {
    sq_want w;
    for (size_t i = first; sq_config_want(&b->j->m->cfg, i, &w); i++)
        if (!w.vector && !isinf(sq_build_reach(&b->recipes[i]))) SQ_TRY(look_through(b, &w, i, err));
    b->again = true;
    return SQUISH_OK;
}

/* 8 bits reach 127 times farther; beyond that bf16 scales have the range of f32. */
sq_recipe sq_build_wide_recipe(sq_recipe r, float widest) {
    if (widest == 0) return r;
    return (sq_recipe){.make = SQ_MAKE_QUANTISE,
                       .type = SQ_W_I8_G64,
                       .scale = widest > F16_MAX * 127 ? SQ_SCALE_BF16 : SQ_SCALE_F16,
                       .method = SQ_QUANT_RTN,
                       .reason = "P_RANGE"};
}
