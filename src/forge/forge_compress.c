/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_compress.c - one tier from one checkpoint, streaming: 16 rows at a time and thread, whatever the size
 * of a tensor.
 *
 *   map the checkpoint -> fix the layout from shapes alone -> per tensor, row tiles in parallel:
 *   decode to f32, quantise, decode back, measure, write -> report -> publish -> sentinel
 *
 * The file is the same bytes for any number of threads: tiles do not depend on each other and the
 * measures are added up in tile order. */
#include "forge/forge_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <stdatomic.h>
#include <xxhash.h>

typedef struct {
    squish_alloc alloc;
    const squish_compress_options *o;
    sq_model *m;
    sq_sqw_writer *w;
    sq_pool *pool;
    json_t *report;            /* per tensor */
    squish_compress_result *out;
    uint64_t done_bytes, total_bytes;
    double cos_sum;
    XXH3_state_t *identity;
    bool published;            /* the file has its final name */
} job;

/* ---- one matrix ------------------------------------------------------------------------------ */

typedef struct {
    job *j;
    const sq_weight *src;
    sq_recipe r;
    size_t index;              /* in the writer */
    sq_weight dst;             /* shape and type; data unused */
    char *scratch;             /* per thread: f32 [16][cols], f32 [cols], tile bytes */
    size_t scratch_bytes;
    sq_fidelity *fid;          /* [tiles] */
    atomic_int failed;
    squish_error err;          /* of the first failing tile */
} matrix_job;

static void tile_item(void *ctx, int32_t tile, int32_t thread) {
    matrix_job *k = ctx;
    if (atomic_load(&k->failed)) return;
    const int32_t cols = k->src->cols, row0 = tile * SQ_TILE_ROWS;
    const int32_t n_rows = k->src->rows - row0 < SQ_TILE_ROWS ? k->src->rows - row0 : SQ_TILE_ROWS;
    float *rows = (float *)(k->scratch + (size_t)thread * k->scratch_bytes);
    float *back = rows + (size_t)SQ_TILE_ROWS * (size_t)cols;
    uint8_t *out = (uint8_t *)k->scratch + (size_t)thread * k->scratch_bytes +
                   sq_align_up((size_t)(SQ_TILE_ROWS + 1) * (size_t)cols * sizeof(float), 64);
    for (int32_t i = 0; i < n_rows; i++) sq_weight_row(k->src, row0 + i, rows + (size_t)i * (size_t)cols);
    sq_quant_tile(k->r.type, k->r.scale, k->r.method, rows, (size_t)cols, n_rows, cols, out);
    const sq_weight made = sq_weight_make(k->r.type, k->r.scale, n_rows, cols, out);
    for (int32_t i = 0; i < n_rows; i++) {
        sq_weight_row(&made, i, back);
        sq_fidelity_row(&k->fid[tile], rows + (size_t)i * (size_t)cols, back, cols);
    }
    squish_error err = {0};
    if (sq_sqw_writer_put(k->j->w, k->index, (uint64_t)tile * k->dst.tile_bytes, out, k->dst.tile_bytes,
                          &err) == SQUISH_OK)
        return;
    int expected = 0;
    if (atomic_compare_exchange_strong(&k->failed, &expected, 1)) k->err = err;
}

static squish_status report_tensor(job *j, const sq_want *w, const matrix_job *k, const sq_fidelity *f,
                                   squish_error *err) {
    if (f->n_nonfinite)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': %llu of %llu weights are not finite numbers",
                       j->m->info.path, w->hf_name, (unsigned long long)f->n_nonfinite,
                       (unsigned long long)f->n);
    const double cosine = sq_fidelity_cos(f), snr = sq_fidelity_snr_db(f);
    squish_compress_result *out = j->out;
    if (out->n_quantised == 0 || cosine < out->cos_min) {
        out->cos_min = cosine;
        snprintf(out->worst_tensor, sizeof out->worst_tensor, "%s", w->name);
    }
    if (out->n_quantised == 0 || snr < out->snr_db_min) out->snr_db_min = snr;
    out->n_quantised++;
    j->cos_sum += cosine;
    json_t *row = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "name", w->name, "type",
                            sq_wtype_get(k->r.type)->name, "reason", "Q", "cos", cosine, "snr_db", snr,
                            "max_abs", f->max_abs, "worst_row_rel", f->worst_row_rel);
    if (!row || json_array_append_new(j->report, row) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    return SQUISH_OK;
}

static squish_status quantise_matrix(job *j, const sq_want *w, const sq_weight *src, size_t index,
                                     squish_error *err) {
    const int32_t tiles = sq_weight_tiles(src), threads = sq_pool_threads(j->pool);
    matrix_job k = {.j = j, .src = src, .index = index};
    k.r = sq_recipe_for(j->o, &j->m->cfg, j->m->info.n_params, w);
    k.dst = sq_weight_make(k.r.type, k.r.scale, src->rows, src->cols, NULL);
    k.scratch_bytes = sq_align_up(
        sq_align_up((size_t)(SQ_TILE_ROWS + 1) * (size_t)src->cols * sizeof(float), 64) + k.dst.tile_bytes,
        64);
    const size_t scratch = k.scratch_bytes * (size_t)threads, fids = (size_t)tiles * sizeof *k.fid;
    k.scratch = sq_alloc_new(&j->alloc, scratch);
    k.fid = sq_alloc_zero(&j->alloc, fids);
    squish_status st = SQUISH_OK;
    if (!k.scratch || !k.fid) {
        st = sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    } else {
        sq_pool_run(j->pool, tile_item, &k, tiles);
        sq_fidelity all = {0};
        for (int32_t t = 0; t < tiles; t++) sq_fidelity_merge(&all, &k.fid[t]);
        st = atomic_load(&k.failed) ? sq_fail(err, k.err.code, "%s", k.err.text)
                                    : report_tensor(j, w, &k, &all, err);
    }
    sq_alloc_free(&j->alloc, k.fid, fids);
    sq_alloc_free(&j->alloc, k.scratch, scratch);
    return st;
}

/* ---- the whole file -------------------------------------------------------------------------- */

static const sq_weight *matrix_of(const sq_model *m, const sq_want *w) {
    return w->role == SQ_ROLE_EMBED  ? &m->embed
           : w->role == SQ_ROLE_HEAD ? &m->head
                                     : &m->layers[w->layer].mat[w->role];
}

static const float *vector_of(const sq_model *m, const sq_want *w) {
    return w->role == SQ_ROLE_FINAL_NORM ? m->final_norm : m->layers[w->layer].vec[w->role];
}

static uint64_t source_bytes(const sq_model *m, const sq_want *w) {
    if (w->vector) return (uint64_t)w->rows * sizeof(float);
    const sq_weight *s = matrix_of(m, w);
    return (uint64_t)s->rows * (uint64_t)s->cols * (s->wtype == SQ_W_F32 ? 4 : 2);
}

static uint64_t hash_source(job *j, const sq_want *w) {
    const void *p = w->vector ? (const void *)vector_of(j->m, w) : (const void *)matrix_of(j->m, w)->data;
    const uint64_t h = XXH3_64bits(p, (size_t)source_bytes(j->m, w));
    XXH3_128bits_update(j->identity, w->name, strlen(w->name));
    XXH3_128bits_update(j->identity, &h, sizeof h);
    return h;
}

static sq_unit_kind unit_of(sq_role r) {
    if (r == SQ_ROLE_EMBED) return SQ_UNIT_EMBED;
    if (r == SQ_ROLE_HEAD || r == SQ_ROLE_FINAL_NORM) return SQ_UNIT_HEAD;
    return r < SQ_ROLE_FFN_NORM ? SQ_UNIT_ATTN : SQ_UNIT_FFN;
}

static squish_status declare_tensors(job *j, squish_error *err) {
    sq_want w;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        const sq_recipe r = sq_recipe_for(j->o, &j->m->cfg, j->m->info.n_params, &w);
        sq_sqw_tensor t = {.n_dims = w.vector ? 1 : 2,
                           .scale_type = (uint8_t)r.scale,
                           .dims = {(uint64_t)w.rows},
                           .wtype = (uint16_t)r.type,
                           .role = (uint16_t)w.role,
                           .layer = w.layer < 0 ? 0xFFFF : (uint16_t)w.layer};
        if (!w.vector) t.dims[1] = (uint64_t)w.cols;
        t.group = r.type == SQ_W_I4_G64 || r.type == SQ_W_I8_G64 ? SQ_GROUP : 0;
        if (!sq_weight_bytes(r.type, w.rows, w.cols, &t.data_bytes))
            return sq_fail(err, SQUISH_INVALID, "tensor '%s' is too large", w.name);
        size_t index;
        SQ_TRY(sq_sqw_writer_tensor(j->w, w.name, &t, unit_of(w.role), &index, err));
        j->total_bytes += source_bytes(j->m, &w);
    }
    return SQUISH_OK;
}

static squish_status check_vector(const job *j, const sq_want *w, const float *v, squish_error *err) {
    for (int32_t i = 0; i < w->rows; i++)
        if (!isfinite(v[i]))
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': value %d is not a finite number",
                           j->m->info.path, w->hf_name, i);
    return SQUISH_OK;
}

static squish_status write_tensors(job *j, squish_error *err) {
    sq_want w;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        const uint64_t sum = hash_source(j, &w);
        SQ_TRY(sq_sqw_writer_source_sum(j->w, i, sum, err));
        if (w.vector) {
            SQ_TRY(check_vector(j, &w, vector_of(j->m, &w), err));
            SQ_TRY(sq_sqw_writer_put(j->w, i, 0, vector_of(j->m, &w), (size_t)w.rows * sizeof(float), err));
            j->out->n_passthrough++;
            json_t *row = json_pack("{s:s, s:s, s:s}", "name", w.name, "type", "f32", "reason",
                                    w.norm ? "P_NORM" : "P_BIAS");
            if (!row || json_array_append_new(j->report, row) != 0)
                return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
        } else {
            SQ_TRY(quantise_matrix(j, &w, matrix_of(j->m, &w), i, err));
        }
        j->done_bytes += source_bytes(j->m, &w);
        const uint64_t anon = sq_os_rss_anon();
        if ((double)anon / 1e6 > j->out->peak_anon_mb) j->out->peak_anon_mb = (double)anon / 1e6;
        if (j->o->progress && !j->o->progress(j->o->progress_user, "compress", j->done_bytes, j->total_bytes))
            return sq_fail(err, SQUISH_CANCELLED, "stopped; nothing was left behind");
    }
    return SQUISH_OK;
}

static squish_status put_json(job *j, uint32_t fourcc, bool late, json_t *o, squish_error *err) {
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    squish_status st = late ? sq_sqw_writer_late_put(j->w, fourcc, text, strlen(text) + 1, err)
                            : sq_sqw_writer_section(j->w, fourcc, text, strlen(text) + 1, err);
    free(text); /* jansson's */
    return st;
}

enum { REPORT_BYTES_PER_TENSOR = 320 };

static squish_status write_sections(job *j, squish_error *err) {
    const sq_model *m = j->m;
    size_t n = 0;
    sq_want w;
    while (sq_config_want(&m->cfg, n, &w)) n++;
    SQ_TRY(sq_sqw_writer_section(j->w, SQ_SEC_NCFG, &m->cfg, sizeof m->cfg, err));
    SQ_TRY(sq_sqw_writer_section(j->w, SQ_SEC_CONF, m->config_json, strlen(m->config_json) + 1, err));
    if (m->generation_json)
        SQ_TRY(sq_sqw_writer_section(j->w, SQ_SEC_GENC, m->generation_json, strlen(m->generation_json) + 1,
                                     err));
    if (m->tok_blob.len)
        SQ_TRY(sq_sqw_writer_section(j->w, SQ_SEC_TOKZ, m->tok_blob.data, m->tok_blob.len, err));
    if (m->tmpl_blob.len)
        SQ_TRY(sq_sqw_writer_section(j->w, SQ_SEC_TMPL, m->tmpl_blob.data, m->tmpl_blob.len, err));
    json_t *recipe =
        json_pack("{s:s, s:i, s:i, s:s}", "tier", sq_tier_get(j->o->tier)->name, "bits", j->o->bits, "group",
                  j->o->group, "method", j->o->method == SQUISH_METHOD_LSQ ? "lsq" : "rtn");
    SQ_TRY(put_json(j, SQ_SEC_RECP, false, recipe, err));
    return sq_sqw_writer_late(j->w, SQ_SEC_FIDL, 1024 + n * REPORT_BYTES_PER_TENSOR, err);
}

static squish_status finish(job *j, const char *path, const char *sentinel, squish_error *err) {
    squish_compress_result *out = j->out;
    out->cos_mean = out->n_quantised ? j->cos_sum / out->n_quantised : 1.0;
    json_t *report = json_pack("{s:f, s:f, s:f, s:O}", "cos_mean", out->cos_mean, "cos_min", out->cos_min,
                               "snr_db_min", out->snr_db_min, "tensors", j->report);
    SQ_TRY(put_json(j, SQ_SEC_FIDL, true, report, err));
    XXH128_canonical_t id;
    XXH128_canonicalFromHash(&id, XXH3_128bits_digest(j->identity));
    uint64_t sum = 0;
    SQ_TRY(sq_sqw_writer_finish(j->w, id.digest, &sum, err));
    j->published = true;
    out->bytes = sq_os_file_bytes(path);
    return sq_sentinel_write(sentinel, path, out->bytes, sum, err);
}

static squish_status build(job *j, const char *src, const char *path, const char *sentinel,
                           squish_error *err) {
    squish_model_options mo = {.alloc = &j->alloc, .tier = SQUISH_TIER_SOURCE};
    SQ_TRY(sq_model_open_hf(&j->m, src, &mo, err));
    if (j->m->tmpl_error.code != SQUISH_OK) sq_buf_deinit(&j->m->tmpl_blob);
    j->out->source_bytes = sq_st_bytes(j->m->st);
    SQ_TRY(sq_pool_new(&j->pool, &j->alloc, j->o->threads ? j->o->threads : sq_os_cores(), err));
    SQ_TRY(sq_sqw_writer_new(&j->w, path, &j->alloc, err));
    SQ_TRY(write_sections(j, err));
    SQ_TRY(declare_tensors(j, err));
    uint64_t file_bytes = 0;
    SQ_TRY(sq_sqw_writer_layout(j->w, &file_bytes, err));
    SQ_TRY(write_tensors(j, err));
    SQ_TRY(finish(j, path, sentinel, err));
    j->out->bits_per_weight = 8.0 * (double)j->out->bytes / (double)j->m->info.n_params;
    return SQUISH_OK;
}

static squish_status resolve(const squish_compress_options *in, squish_compress_options *o,
                             squish_error *err) {
    *o = *in;
    if (!sq_tier_get(o->tier)) return sq_fail(err, SQUISH_INVALID, "only tiers 0 and q8 can be built");
    const int32_t bits = o->tier == SQUISH_TIER_0 ? 4 : 8;
    if (o->bits == 0) o->bits = bits;
    if (o->bits != bits)
        return sq_fail(err, SQUISH_INVALID, "tier %s has %d bits, not %d", sq_tier_get(o->tier)->name, bits,
                       o->bits);
    if (o->group != SQ_GROUP && !(o->group == 0 && bits == 8))
        return sq_fail(err, SQUISH_INVALID, "group is %d, wanted 64%s", o->group,
                       bits == 8 ? " or 0 (per row)" : "");
    if (o->method != SQUISH_METHOD_RTN && o->method != SQUISH_METHOD_LSQ)
        return sq_fail(err, SQUISH_INVALID, "method is %d, wanted rtn or lsq", (int)o->method);
    if (o->threads < 0 || o->threads > 1024)
        return sq_fail(err, SQUISH_INVALID, "threads is %d, wanted 0 (all) to 1024", o->threads);
    return SQUISH_OK;
}

/* Folders and names of one build. */
typedef struct {
    char compressed[1024], build[1100], lock[1200], dir[1100], file[1024], sentinel[1100];
    bool compressed_was_there;
} places;

static squish_status find_places(const char *compressed, const sq_tier_info *tier, places *p,
                                 squish_error *err) {
    if (snprintf(p->file, sizeof p->file, "%s/%s/model.sqw", compressed, tier->dir) >= (int)sizeof p->file)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", compressed);
    snprintf(p->compressed, sizeof p->compressed, "%s", compressed);
    snprintf(p->dir, sizeof p->dir, "%s/%s", p->compressed, tier->dir);
    snprintf(p->sentinel, sizeof p->sentinel, "%s/%s", p->compressed, tier->sentinel);
    snprintf(p->build, sizeof p->build, "%s/.build", p->compressed);
    snprintf(p->lock, sizeof p->lock, "%s/%s.lock", p->build, tier->name);
    p->compressed_was_there = sq_os_is_dir(p->compressed);
    return SQUISH_OK;
}

/* Take away what the build no longer needs; after a failure also what it made. Folders go only if empty. The
 * lock is still held: who waits for it finds it gone and starts with a new one. */
static void tidy(const places *p, bool failed, bool published) {
    remove(p->lock);
    remove(p->build);
    if (!failed) return;
    if (published) remove(p->file); /* without its sentinel it is not a tier */
    remove(p->dir);
    if (!p->compressed_was_there) remove(p->compressed);
}

squish_status sq_forge_compress(const char *src, const char *compressed, const squish_compress_options *in,
                                squish_compress_result *out, squish_error *err) {
    memset(out, 0, sizeof *out);
    squish_compress_options o;
    SQ_TRY(resolve(in, &o, err));
    places p;
    SQ_TRY(find_places(compressed, sq_tier_get(o.tier), &p, err));
    snprintf(out->file, sizeof out->file, "%s", p.file);
    if (!o.force && sq_tier_ready(compressed, o.tier, p.file, sizeof p.file)) {
        out->reused = true;
        out->bytes = sq_os_file_bytes(p.file);
        return SQUISH_OK;
    }
    int lock_fd = -1;
    SQ_TRY(sq_os_mkdirs(p.build, err));
    SQ_TRY(sq_os_mkdirs(p.dir, err));
    SQ_TRY(sq_os_lock(&lock_fd, p.lock, err));
    job j = {.alloc = in->alloc ? *in->alloc : sq_alloc_default(), .o = &o, .out = out};
    squish_status st = SQUISH_OK;
    const uint64_t begin = sq_os_now_ns();
    j.report = json_array();
    j.identity = XXH3_createState();
    if (!j.report || !j.identity) st = sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    if (st == SQUISH_OK) {
        XXH3_128bits_reset(j.identity);
        st = build(&j, src, p.file, p.sentinel, err);
    }
    out->seconds = (double)(sq_os_now_ns() - begin) / 1e9;
    out->gb_per_s = (double)out->source_bytes / 1e9 / out->seconds;
    XXH3_freeState(j.identity);
    json_decref(j.report);
    sq_sqw_writer_free(j.w);
    sq_pool_free(j.pool);
    sq_model_close(j.m);
    tidy(&p, st != SQUISH_OK, j.published);
    sq_os_unlock(lock_fd);
    return st;
}
