/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_build.c - one .sqw from one open model: what is made in which order, and where it lies.
 *
 *   plan: recipe of every tensor, scales to fold in, ranks; place of every tensor, from shapes alone
 *   -> per tensor, row tiles in parallel (forge_matrix.c): make, decode, compare, write
 *   -> note in the journal -> report -> seal -> verdict -> publish
 *
 * The file is the same bytes for any number of threads and of interruptions: tiles do not depend on each
 * other, the measures are added up in tile order, what the report says of a tensor travels in the journal,
 * and what is planned is found again by a resumed build.
 *
 * A scale beyond f16 is seen only when its tile is made. Then the other tensors are looked through, those
 * that need it become 8-bit (reason P_RANGE), and the build starts over with the new layout. */
#include "forge/forge_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_BYTES_PER_TENSOR = SQ_BUILD_NOTE_MAX + 1 };

/* ---- tensors --------------------------------------------------------------------------------- */

static squish_status check_vector(const sq_build *b, const sq_want *w, const float *v,
                                  squish_error *err) {
    for (int32_t i = 0; i < w->rows; i++)
        if (!isfinite(v[i]))
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': value %d is not a finite number",
                           b->j->m->info.path, w->hf_name, i);
    return SQUISH_OK;
}

static squish_status put_divided(sq_build *b, const sq_want *w, size_t index, const float *v,
                                 squish_error *err) {
    const size_t bytes = (size_t)w->rows * sizeof(float);
    float *copy = sq_alloc_new(&b->j->alloc, bytes);
    if (!copy) return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    memcpy(copy, v, bytes);
    sq_awq_divide_rows(copy, w->rows, 1, b->folds[index].rows);
    const squish_status st = sq_sqw_writer_put(b->w, index, 0, copy, bytes, err);
    sq_alloc_free(&b->j->alloc, copy, bytes);
    return st;
}

static squish_status write_vector(sq_build *b, const sq_want *w, size_t index, squish_error *err) {
    const float *v = sq_model_vector(b->j->m, w);
    const bool folded = sq_fold_is(&b->folds[index]);
    SQ_TRY(check_vector(b, w, v, err));
    if (folded)
        SQ_TRY(put_divided(b, w, index, v, err));
    else
        SQ_TRY(sq_sqw_writer_put(b->w, index, 0, v, (size_t)w->rows * sizeof(float), err));
    return sq_build_close(b, index, sq_build_kept_line(w, &b->recipes[index], folded), err);
}

/* The next matrix that is still to be made. */
static size_t matrix_after(const sq_build *b, size_t i) {
    sq_want w;
    for (i++; sq_config_want(&b->j->m->cfg, i, &w); i++)
        if (!w.vector && !sq_sqw_writer_has(b->w, i)) return i;
    return SIZE_MAX;
}

static squish_status write_tensor(sq_build *b, const sq_want *w, size_t i, squish_error *err) {
    const uint64_t sum = b->aside.summed == i ? b->aside.sum : sq_forge_source_sum(b->j->m, w);
    SQ_TRY(sq_sqw_writer_source_sum(b->w, i, sum, err));
    if (w->vector) return write_vector(b, w, i, err);
    b->aside.next = matrix_after(b, i);
    return sq_build_matrix(b, w, i, err);
}

static squish_status write_tensors(sq_build *b, squish_error *err) {
    sq_forge_job *j = b->j;
    sq_want w;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        if (sq_sqw_writer_has(b->w, i)) {
            SQ_TRY(sq_build_settle(b, err));
            SQ_TRY(sq_build_reopen(b, i, err));
        } else {
            SQ_TRY(write_tensor(b, &w, i, err));
            if (b->again) return SQUISH_OK;
        }
        SQ_TRY(sq_forge_advance(j, sq_forge_source_bytes(j->m, &w), err));
    }
    return sq_build_settle(b, err);
}

/* ---- layout ---------------------------------------------------------------------------------- */

static sq_unit_kind unit_of(sq_role r) {
    switch (r) {
    case SQ_ROLE_EMBED: return SQ_UNIT_EMBED;
    case SQ_ROLE_HEAD:
    case SQ_ROLE_FINAL_NORM: return SQ_UNIT_HEAD;
    case SQ_ROLE_ROPE_FACTORS: return SQ_UNIT_MISC;
    case SQ_ROLE_ATTN_SUB_NORM: return SQ_UNIT_ATTN;
    case SQ_ROLE_Q_A:
    case SQ_ROLE_Q_A_NORM:
    case SQ_ROLE_Q_B:
    case SQ_ROLE_KV_A:
    case SQ_ROLE_KV_A_NORM:
    case SQ_ROLE_KV_B:
    case SQ_ROLE_K_B: return SQ_UNIT_ATTN;
    case SQ_ROLE_ROUTER:
    case SQ_ROLE_SHARED_SWITCH:
    case SQ_ROLE_SHARED_GATE:
    case SQ_ROLE_SHARED_UP:
    case SQ_ROLE_SHARED_DOWN: return SQ_UNIT_SHARED;
    case SQ_ROLE_EXPERT_GATE:
    case SQ_ROLE_EXPERT_UP:
    case SQ_ROLE_EXPERT_DOWN: return SQ_UNIT_EXPERT;
    default: return r < SQ_ROLE_FFN_NORM ? SQ_UNIT_ATTN : SQ_UNIT_FFN;
    }
}

static squish_status declare_tensors(sq_build *b, squish_error *err) {
    sq_forge_job *j = b->j;
    sq_want w;
    j->total_bytes = 0;
    for (size_t i = 0; sq_config_want(&j->m->cfg, i, &w); i++) {
        const sq_recipe r = b->recipes[i] = sq_build_wide_recipe(b->recipes[i], b->widest[i]);
        sq_sqw_tensor t = {.n_dims = w.vector ? 1 : 2,
                           .scale_type = (uint8_t)r.scale,
                           .dims = {(uint64_t)w.rows, w.vector ? 0 : (uint64_t)w.cols},
                           .wtype = (uint16_t)r.type,
                           .role = (uint16_t)w.role,
                           .layer = w.layer < 0 ? 0xFFFF : (uint16_t)w.layer,
                           .expert = w.expert < 0 ? 0 : (uint32_t)w.expert};
        const sq_wtype_info *info = sq_wtype_get(r.type);
        t.group = info->layout == SQ_LAYOUT_T16X4 ? (uint32_t)info->sub : 0;
        sq_build_parts parts;
        if (!sq_build_parts_of(&r, w.rows, w.vector ? 1 : w.cols, &parts))
            return sq_fail(err, SQUISH_INVALID, "tensor '%s' is too large", w.name);
        t.data_bytes = parts.end;
        t.rank = (uint32_t)r.rank;
        size_t index;
        SQ_TRY(sq_sqw_writer_tensor(b->w, w.name, &t, unit_of(w.role), &index, err));
        j->total_bytes += sq_forge_source_bytes(j->m, &w);
    }
    return SQUISH_OK;
}

static squish_status put_json(sq_build *b, uint32_t fourcc, bool late, json_t *o, squish_error *err) {
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "report: out of memory");
    squish_status st = late ? sq_sqw_writer_late_put(b->w, fourcc, text, strlen(text) + 1, err)
                            : sq_sqw_writer_section(b->w, fourcc, text, strlen(text) + 1, err);
    free(text); /* jansson's */
    return st;
}

/* Files that bring no config.json get one that says the same. */
static squish_status write_config(sq_build *b, squish_error *err) {
    const sq_model *m = b->j->m;
    if (m->config_json)
        return sq_sqw_writer_section(b->w, SQ_SEC_CONF, m->config_json, strlen(m->config_json) + 1, err);
    squish_text text = {0};
    SQ_TRY(sq_config_to_json(&m->cfg, NULL, &b->j->alloc, &text, err));
    squish_status st = sq_sqw_writer_section(b->w, SQ_SEC_CONF, text.data, text.bytes + 1, err);
    squish_text_free(&text);
    return st;
}

static squish_status write_sections(sq_build *b, squish_error *err) {
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
    json_t *recipe = sq_recipe_json(o, b->j->at->tier->name, b->calibration);
    SQ_TRY(put_json(b, SQ_SEC_RECP, false, recipe, err));
    return sq_sqw_writer_late(b->w, SQ_SEC_FIDL, 1024 + b->n * REPORT_BYTES_PER_TENSOR, err);
}

/* Only for tests of what is folded in: nothing but the folds may then change the model. */
static void leave_unquantised(sq_build *b) {
    for (size_t i = 0; i < b->n; i++)
        if (b->recipes[i].make == SQ_MAKE_QUANTISE)
            b->recipes[i] = (sq_recipe){.make = SQ_MAKE_QUANTISE,
                                        .type = SQ_W_F32,
                                        .scale = SQ_SCALE_F32,
                                        .method = SQ_QUANT_RTN,
                                        .reason = "P_POLICY"};
}

static squish_status open_calibration(sq_build *b, squish_error *err) {
    const sq_forge_job *j = b->j;
    const squish_compress_options *o = j->o;
    char path[SQ_FORGE_PATH];
    if (!sq_forge_calibration_path(j->at->compressed, o, path, sizeof path)) {
        if (!sq_method_needs_calibration(o->method)) return SQUISH_OK;
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "method %s needs a calibration, and there is no %s: run squish calibrate %s first",
                       sq_method_name(o->method), path, j->m->info.path);
    }
    SQ_TRY(sq_calibration_open(&b->calibration, path, &j->m->cfg, &j->alloc, err));
    if (o->method != SQUISH_METHOD_GPTQ || sq_calibration_block(b->calibration) > 1) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "%s: holds diagonals only, method gptq needs Hessians (squish calibrate --block 1024)",
                   path);
}

static squish_status plan(sq_build *b, squish_error *err) {
    const sq_model *m = b->j->m;
    sq_want w;
    while (sq_config_want(&m->cfg, b->n, &w)) b->n++;
    b->recipes = sq_alloc_zero(&b->j->alloc, b->n * sizeof *b->recipes);
    b->folds = sq_alloc_zero(&b->j->alloc, b->n * sizeof *b->folds);
    b->widest = sq_alloc_zero(&b->j->alloc, b->n * sizeof *b->widest);
    if (!b->recipes || !b->folds || !b->widest)
        return sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    for (size_t i = 0; i < b->n && sq_config_want(&m->cfg, i, &w); i++)
        b->recipes[i] =
            sq_recipe_for(b->j->o, &m->cfg, m->info.n_params, &w, w.vector ? NULL : sq_model_matrix(m, &w));
    SQ_TRY(open_calibration(b, err));
    if (b->j->o->method == SQUISH_METHOD_AWQ) SQ_TRY(sq_build_folds(b, err));
    if (b->j->o->method == SQUISH_METHOD_MILO) SQ_TRY(sq_build_ranks(b, err));
    if (b->j->unquantised) leave_unquantised(b);
    return SQUISH_OK;
}

static squish_status finish(sq_build *b, const uint8_t id[16], uint64_t *sum, squish_error *err) {
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
    sq_quality_flag quality = SQ_QUALITY_UNVERIFIED;
    SQ_TRY(sq_forge_verdict(b->j, b->j->at->partial, &quality, err));
    return sq_sqw_writer_publish(b->w, b->j->at->file, quality, sum, err);
}

/* What was stopped on request or for want of room can go on later; everything else would fail again. */
static bool can_resume(squish_status st) { return st == SQUISH_CANCELLED || st == SQUISH_NO_SPACE; }

static squish_status attempt(sq_build *b, uint64_t *sum, squish_error *err) {
    sq_forge_job *j = b->j;
    uint8_t id[16];
    uint64_t file_bytes = 0;
    squish_status st = SQUISH_OK;
    b->again = false, b->cos_sum = 0, j->done_bytes = 0;
    sq_build_aside_clear(b);
    j->out->n_quantised = j->out->n_passthrough = j->out->n_fallback = 0;
    json_array_clear(b->report);
    SQ_GUARD(sq_forge_source_id(j->m, id, err));
    SQ_GUARD(sq_sqw_writer_new(&b->w, j->at->partial, j->at->journal, &j->alloc, err));
    SQ_GUARD(write_sections(b, err));
    SQ_GUARD(declare_tensors(b, err));
    SQ_GUARD(sq_sqw_writer_layout(b->w, id, j->o->resume, &file_bytes, &j->out->resumed_bytes, err));
    SQ_GUARD(write_tensors(b, err));
    if (!b->again) SQ_GUARD(finish(b, id, sum, err));
fail:
    if (can_resume(st)) (void)sq_build_settle(b, NULL);
    sq_build_aside_clear(b);
    sq_sqw_writer_free(b->w, can_resume(st));
    b->w = NULL;
    if (can_resume(st)) sq_err_prefix(err, "what is done is kept, --resume goes on");
    return st;
}

squish_status sq_forge_build_sqw(sq_forge_job *j, uint64_t *sum, squish_error *err) {
    sq_build b = {.j = j, .report = json_array()};
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
    sq_calibration_close(b.calibration);
    sq_alloc_free(&j->alloc, b.scales, b.n_scales * sizeof *b.scales);
    sq_alloc_free(&j->alloc, b.widest, b.n * sizeof *b.widest);
    sq_alloc_free(&j->alloc, b.folds, b.n * sizeof *b.folds);
    sq_alloc_free(&j->alloc, b.recipes, b.n * sizeof *b.recipes);
    json_decref(b.report);
    return st;
}
