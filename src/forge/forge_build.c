/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_build.c - one .sqw from one open model, streaming: 16 rows at a time and thread, whatever the size of
 * a tensor.
 *
 *   plan: recipe and place of every tensor, from shapes alone -> per tensor, row tiles in parallel:
 *   make the tile (new codes, the source's codes, or its bytes), decode it, compare, write -> note in the
 * journal
 *   -> report -> seal -> publish
 *
 * The file is the same bytes for any number of threads and of interruptions: tiles do not depend on each
 * other, the measures are added up in tile order, and what the report says of a tensor travels in the
 * journal.
 *
 * A scale beyond f16 is seen only when its tile is made. Then the other tensors are looked through, those
 * that need it become 8-bit (reason P_RANGE), and the build starts over with the new layout. */
#include "forge/forge_int.h"
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { NOTE_MAX = 512, REPORT_BYTES_PER_TENSOR = NOTE_MAX + 1 };

typedef struct {
    sq_forge_job *j;
    sq_sqw_writer *w;
    sq_kernels kernels;
    sq_recipe *recipes; /* [n] */
    float *widest;      /* [n] largest |w| of matrices that are too wide for f16 scales, else 0 */
    size_t n;
    bool again;     /* widest has changed: the layout is no longer right */
    json_t *report; /* per tensor */
    double cos_sum;
} build;

/* ---- one matrix ------------------------------------------------------------------------------ */

typedef struct {
    build *b;
    const sq_weight *src;
    sq_recipe r;
    sq_encoding enc;
    size_t index;  /* in the writer */
    sq_weight dst; /* shape and type; data unused */
    char *scratch; /* per thread: f32 [16][cols], f32 [cols], repacking, tile bytes */
    size_t repack_off, tile_off, scratch_bytes;
    sq_fidelity *fid; /* [tiles] */
    float *peak;      /* [tiles] largest |w| */
    atomic_int failed;
    squish_error err; /* of the first failing tile */
} matrix_job;

static bool plain(const sq_weight *w) { return sq_wtype_get((sq_wtype)w->wtype)->layout == SQ_LAYOUT_ROWS; }

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
    } else if (plain(k->src)) {
        const size_t row_bytes = k->src->tile_bytes / SQ_TILE_ROWS;
        k->b->kernels.encode(&k->enc, (sq_wtype)k->src->wtype, k->src->data + (size_t)row0 * row_bytes,
                             row_bytes, n_rows, cols, out);
    } else {
        sq_quant_tile(&k->enc, rows, (size_t)cols, n_rows, cols, out);
    }
}

/* Largest |w|: bits of floats without their sign rise as the floats do, which lets this loop be a vector one.
 */
static float largest(const float *w, int32_t n) {
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

static void compare(matrix_job *k, int32_t tile, int32_t n_rows, const float *rows, float *back,
                    const uint8_t *made) {
    const int32_t cols = k->src->cols;
    const sq_weight view = sq_weight_make(k->r.type, k->r.scale, n_rows, cols, made);
    for (int32_t i = 0; i < n_rows; i++) {
        const float *row = rows + (size_t)i * (size_t)cols;
        sq_weight_row(&view, i, back);
        sq_fidelity_row(&k->fid[tile], row, back, cols);
        k->peak[tile] = fmaxf(k->peak[tile], largest(row, cols));
    }
}

static void tile_item(void *ctx, int32_t tile, int32_t thread) {
    matrix_job *k = ctx;
    if (atomic_load(&k->failed)) return;
    const int32_t cols = k->src->cols, row0 = tile * SQ_TILE_ROWS;
    const int32_t n_rows = k->src->rows - row0 < SQ_TILE_ROWS ? k->src->rows - row0 : SQ_TILE_ROWS;
    char *mine = k->scratch + (size_t)thread * k->scratch_bytes;
    float *rows = (float *)(void *)mine, *back = rows + (size_t)SQ_TILE_ROWS * (size_t)cols;
    uint8_t *tmp = (uint8_t *)mine + k->tile_off;
    const uint8_t *out = tmp;
    size_t bytes = k->dst.tile_bytes;
    for (int32_t i = 0; i < n_rows; i++) sq_weight_row(k->src, row0 + i, rows + (size_t)i * (size_t)cols);
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

/* ---- what the report says of it -------------------------------------------------------------- */

static void count_quantised(build *b, const char *name, double cosine, double snr) {
    squish_compress_result *out = b->j->out;
    if (out->n_quantised == 0 || cosine < out->cos_min) {
        out->cos_min = cosine;
        snprintf(out->worst_tensor, sizeof out->worst_tensor, "%s", name);
    }
    if (out->n_quantised == 0 || snr < out->snr_db_min) out->snr_db_min = snr;
    out->n_quantised++;
    b->cos_sum += cosine;
}

/* Takes the line into the report and the sums; the same for a fresh line and one from the journal. */
static squish_status take_line(build *b, json_t *line, squish_error *err) {
    const char *name = json_string_value(json_object_get(line, "name"));
    const json_t *cosine = json_object_get(line, "cos");
    if (cosine && name)
        count_quantised(b, name, json_real_value(cosine), json_real_value(json_object_get(line, "snr_db")));
    else
        b->j->out->n_passthrough++;
    if (!line || json_array_append_new(b->report, line) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    return SQUISH_OK;
}

static squish_status close_tensor(build *b, size_t index, json_t *line, squish_error *err) {
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (!text) {
        json_decref(line);
        return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    }
    squish_status st = sq_sqw_writer_tensor_done(b->w, index, text, strlen(text), err);
    free(text); /* jansson's */
    if (st == SQUISH_OK) return take_line(b, line, err);
    json_decref(line);
    return st;
}

static squish_status reopen_line(build *b, size_t index, squish_error *err) {
    size_t n = 0;
    const char *note = sq_sqw_writer_note(b->w, index, &n);
    json_t *line = NULL;
    SQ_TRY(sq_json_parse(note, n, SQ_JSON_DEPTH, "journal", &line, err));
    return take_line(b, line, err);
}

/* JSON has no infinity. */
static double bounded(double v) { return fmin(v, DBL_MAX); }

static json_t *quantised_line(const sq_want *w, const sq_recipe *r, const sq_fidelity *f) {
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "name", w->name, "type",
                     sq_wtype_get(r->type)->name, "reason", r->reason, "cos", sq_fidelity_cos(f), "snr_db",
                     sq_fidelity_snr_db(f), "max_abs", bounded(f->max_abs), "worst_row_rel",
                     bounded(f->worst_row_rel));
}

static json_t *kept_line(const sq_want *w, const sq_recipe *r) {
    return json_pack("{s:s, s:s, s:s}", "name", w->name, "type", sq_wtype_get(r->type)->name, "reason",
                     r->reason);
}

/* ---- scales that f16 cannot hold ------------------------------------------------------------- */

static const float F16_MAX = 65504.0f;

/* Largest |w| that type and scale of r can hold whatever the group's other weights are. */
static float reach(const sq_recipe *r) {
    if (r->make != SQ_MAKE_QUANTISE || r->scale != SQ_SCALE_F16) return INFINITY;
    return sq_wtype_get(r->type)->bias ? F16_MAX : F16_MAX * 127;
}

typedef struct {
    const sq_weight *src;
    float *rows, *peak; /* per thread; [tiles] */
} widest_job;

static void widest_item(void *ctx, int32_t tile, int32_t thread) {
    widest_job *k = ctx;
    float *row = k->rows + (size_t)thread * (size_t)k->src->cols;
    const int32_t end = (tile + 1) * SQ_TILE_ROWS < k->src->rows ? (tile + 1) * SQ_TILE_ROWS : k->src->rows;
    for (int32_t r = tile * SQ_TILE_ROWS; r < end; r++) {
        sq_weight_row(k->src, r, row);
        k->peak[tile] = fmaxf(k->peak[tile], largest(row, k->src->cols));
    }
}

/* Find every matrix after the first that is too wide for its recipe, so that one more layout is enough. */
static squish_status find_wide(build *b, size_t first, squish_error *err) {
    sq_forge_job *j = b->j;
    const int32_t threads = sq_pool_threads(j->pool);
    sq_want w;
    for (size_t i = first; sq_config_want(&j->m->cfg, i, &w); i++) {
        if (w.vector || isinf(reach(&b->recipes[i]))) continue;
        widest_job k = {.src = sq_model_matrix(j->m, &w)};
        const int32_t tiles = sq_weight_tiles(k.src);
        const size_t rows = (size_t)threads * (size_t)k.src->cols * sizeof(float);
        const size_t peaks = (size_t)tiles * sizeof(float);
        k.rows = sq_alloc_new(&j->alloc, rows);
        k.peak = sq_alloc_zero(&j->alloc, peaks);
        const bool ok = k.rows && k.peak;
        float most = 0;
        if (ok) sq_pool_run(j->pool, widest_item, &k, tiles);
        for (int32_t t = 0; ok && t < tiles; t++) most = fmaxf(most, k.peak[t]);
        if (most > reach(&b->recipes[i])) b->widest[i] = most;
        sq_alloc_free(&j->alloc, k.rows, rows);
        sq_alloc_free(&j->alloc, k.peak, peaks);
        if (!ok) return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w.name);
    }
    b->again = true;
    return SQUISH_OK;
}

/* 8 bits reach 127 times farther; beyond that bf16 scales have the range of f32. */
static sq_recipe wide_recipe(sq_recipe r, float widest) {
    if (widest == 0) return r;
    return (sq_recipe){SQ_MAKE_QUANTISE, SQ_W_I8_G64, widest > F16_MAX * 127 ? SQ_SCALE_BF16 : SQ_SCALE_F16,
                       SQ_QUANT_RTN, "P_RANGE"};
}

/* ---- tensors --------------------------------------------------------------------------------- */

static squish_status judge(build *b, const sq_want *w, matrix_job *k, squish_error *err) {
    const int32_t tiles = sq_weight_tiles(k->src);
    sq_fidelity all = {0};
    float most = 0;
    if (atomic_load(&k->failed)) return sq_fail(err, k->err.code, "%s", k->err.text);
    for (int32_t t = 0; t < tiles; t++) {
        sq_fidelity_merge(&all, &k->fid[t]);
        most = fmaxf(most, k->peak[t]);
    }
    if (all.n_nonfinite)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': %llu of %llu weights are not finite numbers",
                       b->j->m->info.path, w->hf_name, (unsigned long long)all.n_nonfinite,
                       (unsigned long long)all.n);
    if (most > reach(&k->r)) return find_wide(b, k->index, err);
    return close_tensor(b, k->index,
                        k->r.make == SQ_MAKE_QUANTISE ? quantised_line(w, &k->r, &all) : kept_line(w, &k->r),
                        err);
}

static squish_status write_matrix(build *b, const sq_want *w, size_t index, squish_error *err) {
    sq_forge_job *j = b->j;
    matrix_job k = {.b = b, .src = sq_model_matrix(j->m, w), .index = index, .r = b->recipes[index]};
    const int32_t tiles = sq_weight_tiles(k.src), cols = k.src->cols;
    k.enc = (sq_encoding){.type = k.r.type, .scale = k.r.scale, .method = k.r.method};
    k.dst = sq_weight_make(k.r.type, k.r.scale, k.src->rows, cols, NULL);
    k.repack_off = sq_align_up((size_t)(SQ_TILE_ROWS + 1) * (size_t)cols * sizeof(float), 64);
    k.tile_off = sq_align_up(k.repack_off + (k.r.make == SQ_MAKE_REPACK ? sq_repack_scratch(cols) : 0), 64);
    k.scratch_bytes = sq_align_up(k.tile_off + k.dst.tile_bytes, 64);
    const size_t scratch = k.scratch_bytes * (size_t)sq_pool_threads(j->pool);
    const size_t fids = (size_t)tiles * sizeof *k.fid, peaks = (size_t)tiles * sizeof *k.peak;
    k.scratch = sq_alloc_new(&j->alloc, scratch);
    k.fid = sq_alloc_zero(&j->alloc, fids);
    k.peak = sq_alloc_zero(&j->alloc, peaks);
    squish_status st = SQUISH_OK;
    if (!k.scratch || !k.fid || !k.peak)
        st = sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    if (st == SQUISH_OK) st = settle_ternary(&k, w, err);
    if (st == SQUISH_OK) {
        sq_pool_run(j->pool, tile_item, &k, tiles);
        st = judge(b, w, &k, err);
    }
    sq_alloc_free(&j->alloc, k.peak, peaks);
    sq_alloc_free(&j->alloc, k.fid, fids);
    sq_alloc_free(&j->alloc, k.scratch, scratch);
    return st;
}

static squish_status write_vector(build *b, const sq_want *w, size_t index, squish_error *err) {
    const float *v = sq_model_vector(b->j->m, w);
    for (int32_t i = 0; i < w->rows; i++)
        if (!isfinite(v[i]))
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': value %d is not a finite number",
                           b->j->m->info.path, w->hf_name, i);
    SQ_TRY(sq_sqw_writer_put(b->w, index, 0, v, (size_t)w->rows * sizeof(float), err));
    return close_tensor(b, index, kept_line(w, &b->recipes[index]), err);
}

static squish_status write_tensors(build *b, squish_error *err) {
    sq_forge_job *j = b->j;
    sq_want w;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        if (sq_sqw_writer_has(b->w, i)) {
            SQ_TRY(reopen_line(b, i, err));
        } else {
            SQ_TRY(sq_sqw_writer_source_sum(b->w, i, sq_forge_source_sum(j->m, &w), err));
            SQ_TRY(w.vector ? write_vector(b, &w, i, err) : write_matrix(b, &w, i, err));
            if (b->again) return SQUISH_OK;
        }
        SQ_TRY(sq_forge_advance(j, sq_forge_source_bytes(j->m, &w), err));
    }
    return SQUISH_OK;
}

/* ---- layout ---------------------------------------------------------------------------------- */

static sq_unit_kind unit_of(sq_role r) {
    switch (r) {
    case SQ_ROLE_EMBED: return SQ_UNIT_EMBED;
    case SQ_ROLE_HEAD:
    case SQ_ROLE_FINAL_NORM: return SQ_UNIT_HEAD;
    case SQ_ROLE_ROPE_FACTORS: return SQ_UNIT_MISC;
    case SQ_ROLE_ATTN_SUB_NORM: return SQ_UNIT_ATTN;
    default: return r < SQ_ROLE_FFN_NORM ? SQ_UNIT_ATTN : SQ_UNIT_FFN;
    }
}

static squish_status declare_tensors(build *b, squish_error *err) {
    sq_forge_job *j = b->j;
    sq_want w;
    j->total_bytes = 0;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        const sq_recipe r = b->recipes[i] = wide_recipe(b->recipes[i], b->widest[i]);
        sq_sqw_tensor t = {.n_dims = w.vector ? 1 : 2,
                           .scale_type = (uint8_t)r.scale,
                           .dims = {(uint64_t)w.rows, w.vector ? 0 : (uint64_t)w.cols},
                           .wtype = (uint16_t)r.type,
                           .role = (uint16_t)w.role,
                           .layer = w.layer < 0 ? 0xFFFF : (uint16_t)w.layer};
        const sq_wtype_info *info = sq_wtype_get(r.type);
        t.group = info->layout == SQ_LAYOUT_T16X4 ? (uint32_t)info->sub : 0;
        if (!sq_weight_bytes(r.type, w.rows, w.vector ? 1 : w.cols, &t.data_bytes))
            return sq_fail(err, SQUISH_INVALID, "tensor '%s' is too large", w.name);
        size_t index;
        SQ_TRY(sq_sqw_writer_tensor(b->w, w.name, &t, unit_of(w.role), &index, err));
        j->total_bytes += sq_forge_source_bytes(j->m, &w);
    }
    return SQUISH_OK;
}

static squish_status put_json(build *b, uint32_t fourcc, bool late, json_t *o, squish_error *err) {
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    squish_status st = late ? sq_sqw_writer_late_put(b->w, fourcc, text, strlen(text) + 1, err)
                            : sq_sqw_writer_section(b->w, fourcc, text, strlen(text) + 1, err);
    free(text); /* jansson's */
    return st;
}

/* Files that bring no config.json get one that says the same. */
static squish_status write_config(build *b, squish_error *err) {
    const sq_model *m = b->j->m;
    if (m->config_json)
        return sq_sqw_writer_section(b->w, SQ_SEC_CONF, m->config_json, strlen(m->config_json) + 1, err);
    squish_text text = {0};
    SQ_TRY(sq_config_to_json(&m->cfg, &b->j->alloc, &text, err));
    squish_status st = sq_sqw_writer_section(b->w, SQ_SEC_CONF, text.data, text.bytes + 1, err);
    squish_text_free(&text);
    return st;
}

static squish_status write_sections(build *b, squish_error *err) {
    const sq_model *m = b->j->m;
    const squish_compress_options *o = b->j->o;
    SQ_TRY(sq_sqw_writer_section(b->w, SQ_SEC_NCFG, &m->cfg, sizeof m->cfg, err));
    SQ_TRY(write_config(b, err));
    if (m->generation_json)
        SQ_TRY(sq_sqw_writer_section(b->w, SQ_SEC_GENC, m->generation_json, strlen(m->generation_json) + 1,
                                     err));
    if (m->tok_blob.len)
        SQ_TRY(sq_sqw_writer_section(b->w, SQ_SEC_TOKZ, m->tok_blob.data, m->tok_blob.len, err));
    if (m->tmpl_blob.len && m->tmpl_error.code == SQUISH_OK)
        SQ_TRY(sq_sqw_writer_section(b->w, SQ_SEC_TMPL, m->tmpl_blob.data, m->tmpl_blob.len, err));
    json_t *recipe = json_pack("{s:s, s:i, s:i, s:s, s:b}", "tier", b->j->at->tier->name, "bits", o->bits,
                               "group", o->group, "method", o->method == SQUISH_METHOD_LSQ ? "lsq" : "rtn",
                               "requantise", o->requantise);
    SQ_TRY(put_json(b, SQ_SEC_RECP, false, recipe, err));
    return sq_sqw_writer_late(b->w, SQ_SEC_FIDL, 1024 + b->n * REPORT_BYTES_PER_TENSOR, err);
}

static squish_status plan(build *b, squish_error *err) {
    const sq_model *m = b->j->m;
    sq_want w;
    while (sq_config_want(&m->cfg, b->n, &w)) b->n++;
    b->recipes = sq_alloc_zero(&b->j->alloc, b->n * sizeof *b->recipes);
    b->widest = sq_alloc_zero(&b->j->alloc, b->n * sizeof *b->widest);
    if (!b->recipes || !b->widest) return sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    for (size_t i = 0; i < b->n && sq_config_want(&m->cfg, i, &w); i++)
        b->recipes[i] =
            sq_recipe_for(b->j->o, &m->cfg, m->info.n_params, &w, w.vector ? NULL : sq_model_matrix(m, &w));
    return SQUISH_OK;
}

static squish_status finish(build *b, const uint8_t id[16], uint64_t *sum, squish_error *err) {
    squish_compress_result *out = b->j->out;
    out->cos_mean = out->n_quantised ? b->cos_sum / out->n_quantised : 1.0;
    if (!out->n_quantised) out->cos_min = 1.0;
    json_t *report = json_pack("{s:f, s:f, s:f, s:O}", "cos_mean", out->cos_mean, "cos_min", out->cos_min,
                               "snr_db_min", out->snr_db_min, "tensors", b->report);
    SQ_TRY(put_json(b, SQ_SEC_FIDL, true, report, err));
    uint8_t now[16];
    SQ_TRY(sq_forge_source_id(b->j->m, now, err));
    if (memcmp(now, id, sizeof now) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: it was changed while it was being compressed",
                       b->j->m->info.path);
    SQ_TRY(sq_sqw_writer_seal(b->w, err));
    SQ_TRY(sq_os_mkdirs(b->j->at->dir, err));
    return sq_sqw_writer_publish(b->w, b->j->at->file, SQ_QUALITY_UNVERIFIED, sum, err);
}

/* What was stopped on request or for want of room can go on later; everything else would fail again. */
static bool can_resume(squish_status st) { return st == SQUISH_CANCELLED || st == SQUISH_NO_SPACE; }

static squish_status attempt(build *b, uint64_t *sum, squish_error *err) {
    sq_forge_job *j = b->j;
    uint8_t id[16];
    uint64_t file_bytes = 0;
    squish_status st = SQUISH_OK;
    b->again = false, b->cos_sum = 0, j->done_bytes = 0;
    j->out->n_quantised = j->out->n_passthrough = 0;
    json_array_clear(b->report);
    SQ_GUARD(sq_forge_source_id(j->m, id, err));
    SQ_GUARD(sq_sqw_writer_new(&b->w, j->at->partial, j->at->journal, &j->alloc, err));
    SQ_GUARD(write_sections(b, err));
    SQ_GUARD(declare_tensors(b, err));
    SQ_GUARD(sq_sqw_writer_layout(b->w, id, j->o->resume, &file_bytes, &j->out->resumed_bytes, err));
    SQ_GUARD(write_tensors(b, err));
    if (!b->again) SQ_GUARD(finish(b, id, sum, err));
fail:
    sq_sqw_writer_free(b->w, can_resume(st));
    b->w = NULL;
    if (can_resume(st)) sq_err_prefix(err, "what is done is kept, --resume goes on");
    return st;
}

squish_status sq_forge_build_sqw(sq_forge_job *j, uint64_t *sum, squish_error *err) {
    build b = {.j = j, .report = json_array()};
    sq_kernels_select(&b.kernels, sq_cpu_features(), SQ_ISA_COUNT);
    squish_status st = b.report ? plan(&b, err) : sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    if (st == SQUISH_OK) st = attempt(&b, sum, err);
    if (st == SQUISH_OK && b.again) st = attempt(&b, sum, err);
    if (st == SQUISH_OK && b.again)
        st =
            sq_fail(err, SQUISH_CORRUPT, "%s: it was changed while it was being compressed", j->m->info.path);
    if (st == SQUISH_OK) {
        j->out->bytes = sq_os_file_bytes(j->at->file);
        j->out->bits_per_weight = 8.0 * (double)j->out->bytes / (double)j->m->info.n_params;
    }
    sq_alloc_free(&j->alloc, b.recipes, b.n * sizeof *b.recipes);
    sq_alloc_free(&j->alloc, b.widest, b.n * sizeof *b.widest);
    json_decref(b.report);
    return st;
}
