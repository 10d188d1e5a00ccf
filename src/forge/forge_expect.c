/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_expect.c - what a build will take before it begins: bytes by the layout, time by a sample. */
#include "forge/forge_int.h"
#include "kernels/kernels.h"

#include <string.h>

/* ---- bytes ----------------------------------------------------------------------------------- */

/* What goes into a .sqw beside n tensors: text parts, records, the report's place, and half a unit's
 * alignment for each of the two units of a layer. */
static uint64_t beside_tensors(const sq_model *m, size_t n) {
    enum { RECORD_AND_NAME = 180, REPORT_LINE = 513 };
    return m->tok_blob.len + m->tmpl_blob.len + (m->config_json ? strlen(m->config_json) : 0) +
           n * (RECORD_AND_NAME + REPORT_LINE) + (uint64_t)(m->cfg.n_layers + 1) * SQ_SQW_UNIT_ALIGN;
}

static uint64_t compensators(const sq_model *m, const squish_compress_options *o, const sq_want *w) {
    const bool table = w->role == SQ_ROLE_EMBED || w->role == SQ_ROLE_HEAD;
    if (o->method != SQUISH_METHOD_MILO || w->vector || table || sq_want_is_bare(w)) return 0;
    if (o->rank > 0) return 2 * (uint64_t)o->rank * ((uint64_t)w->rows + (uint64_t)w->cols);
    (void)m;
    return (uint64_t)((double)w->rows * (double)w->cols * (o->rank_bpw > 0 ? o->rank_bpw : 0.15) / 8);
}

uint64_t sq_forge_size(const sq_model *m, const squish_compress_options *o) {
    uint64_t sum = 0, bytes;
    sq_want w;
    size_t n = 0;
    for (; sq_config_want(&m->cfg, n, &w); n++) {
        const sq_recipe r =
            sq_recipe_for(o, &m->cfg, m->info.n_params, &w, w.vector ? NULL : sq_model_matrix(m, &w));
        if (!sq_weight_bytes(r.type, w.rows, w.vector ? 1 : w.cols, &bytes)) return 0;
        sum += bytes + compensators(m, o, &w);
    }
    return sum + beside_tensors(m, n);
}

/* ---- time ------------------------------------------------------------------------------------ */

typedef struct {
    const sq_weight *src;
    sq_encoding enc;
    sq_kernels k;
    float *rows, *back; /* [16][cols], [cols] */
    uint8_t *out;
} sample;

/* One row tile as the builder makes it: encoded, decoded again and compared. */
static void one_tile(const sample *s, int32_t tile) {
    const int32_t cols = s->src->cols, row0 = tile * SQ_TILE_ROWS;
    const size_t row_bytes = s->src->tile_bytes / SQ_TILE_ROWS;
    const sq_weight made = sq_weight_make(s->enc.type, s->enc.scale, SQ_TILE_ROWS, cols, s->out);
    sq_fidelity f = {0};
    for (int32_t i = 0; i < SQ_TILE_ROWS; i++)
        sq_weight_row(s->src, row0 + i, s->rows + (size_t)i * (size_t)cols);
    if (sq_wtype_get((sq_wtype)s->src->wtype)->layout == SQ_LAYOUT_ROWS)
        s->k.encode(&s->enc, (sq_wtype)s->src->wtype, s->src->data + (size_t)row0 * row_bytes, row_bytes,
                    SQ_TILE_ROWS, cols, s->out);
    else
        sq_quant_tile(&s->enc, s->rows, (size_t)cols, SQ_TILE_ROWS, cols, s->out);
    for (int32_t i = 0; i < SQ_TILE_ROWS; i++) {
        sq_weight_row(&made, i, s->back);
        sq_fidelity_row(&f, s->rows + (size_t)i * (size_t)cols, s->back, cols);
    }
}

/* A few tiles of one matrix; false without memory. */
static bool sample_matrix(const sq_model *m, const sq_weight *src, const sq_recipe *r, uint64_t *bytes,
                          uint64_t *ns) {
    enum { TILES = 2 };
    const squish_alloc a = sq_alloc_default();
    const size_t cols = (size_t)src->cols, rows_bytes = (SQ_TILE_ROWS + 1) * cols * sizeof(float);
    sample s = {.src = src, .enc = {.type = r->type, .scale = r->scale, .method = r->method, .gamma = 1}};
    const size_t tile_bytes = sq_weight_make(r->type, r->scale, src->rows, src->cols, NULL).tile_bytes;
    const int32_t tiles = src->rows / SQ_TILE_ROWS;
    (void)m;
    s.rows = sq_alloc_new(&a, rows_bytes);
    s.out = sq_alloc_new(&a, tile_bytes);
    const bool ok = s.rows && s.out;
    if (ok) {
        sq_kernels_select(&s.k, sq_cpu_features(), SQ_ISA_COUNT);
        s.back = s.rows + SQ_TILE_ROWS * cols;
        one_tile(&s, 0); /* pages come in, caches warm */
        const uint64_t begin = sq_os_now_ns();
        for (int32_t t = 0; t < TILES && t < tiles; t++) {
            one_tile(&s, t);
            *bytes += src->tile_bytes;
        }
        *ns += sq_os_now_ns() - begin;
    }
    sq_alloc_free(&a, s.rows, rows_bytes);
    sq_alloc_free(&a, s.out, tile_bytes);
    return ok;
}

double sq_forge_encode_rate(const sq_model *m, const squish_compress_options *o, double seconds) {
    uint64_t bytes = 0, ns = 0;
    sq_want w;
    if (o->method != SQUISH_METHOD_RTN && o->method != SQUISH_METHOD_LSQ) return 0;
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w) && (double)ns < seconds * 1e9; i++) {
        if (w.vector || w.role == SQ_ROLE_EMBED || w.rows < SQ_TILE_ROWS) continue;
        const sq_weight *src = sq_model_matrix(m, &w);
        const sq_recipe r = sq_recipe_for(o, &m->cfg, m->info.n_params, &w, src);
        if (r.make != SQ_MAKE_QUANTISE || r.by != SQ_BY_PLAIN) continue;
        if (!sample_matrix(m, src, &r, &bytes, &ns)) return 0;
    }
    return ns ? (double)bytes * 1e9 / (double)ns : 0;
}
