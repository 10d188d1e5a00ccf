/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_mlx.c - matrices of a checkpoint that come quantised: MLX directories, whose codes run where
 * they lie, and BitNet's packed ternary weights, which are laid out anew in the load arena.
 *
 *   MLX      PATH.weight U32 [N, K * bits / 32], PATH.scales and PATH.biases [N, K / group]
 *            experts: PATH ends in switch_mlp.gate_proj ..., with [E] in front of each shape
 *   BitNet   PATH.weight U8 [N / 4, K], bits 2i..2i+1 of byte (r, k) = code of row i * N / 4 + r;
 *            PATH.weight_scale [1]
 *
 * A module of an MLX directory is quantised if its scales are there; config.json says how. */
#include "model/model_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char what[] = "config.json: quantization";

static squish_status read_method(const json_t *o, sq_source_quant *q, squish_error *err) {
    const char *method = NULL, *linear = "bitlinear";
    SQ_TRY(sq_json_str(o, "quant_method", false, &method, what, err));
    if (!method) return SQUISH_OK; /* MLX mirrors its `quantization` here */
    if (strcmp(method, "bitnet") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "config.json: quantization_config: method '%.40s' is not read (bitnet and MLX are)",
                       method);
    bool norm = false;
    SQ_TRY(sq_json_str(o, "linear_class", false, &linear, what, err));
    SQ_TRY(sq_json_bool(o, "use_rms_norm", false, &norm, what, err));
    q->multiply = strcmp(linear, "autobitlinear") == 0;
    if (norm || (!q->multiply && strcmp(linear, "bitlinear") != 0))
        return sq_fail(
            err, SQUISH_UNSUPPORTED,
            "config.json: quantization_config: linear_class '%.40s'%s (bitlinear and autobitlinear "
            "without norms are read)",
            linear, norm ? " with use_rms_norm" : "");
    q->bitnet = true;
    return SQUISH_OK;
}

squish_status sq_source_quant_read(const sq_model *m, sq_source_quant *q, squish_error *err) {
    *q = (sq_source_quant){0};
    SQ_TRY(
        sq_json_parse(m->config_json, strlen(m->config_json), SQ_JSON_DEPTH, "config.json", &q->root, err));
    const json_t *mlx = json_object_get(q->root, "quantization");
    const json_t *config = json_object_get(q->root, "quantization_config");
    if (json_is_object(config)) SQ_TRY(read_method(config, q, err));
    if (!json_is_object(mlx) && json_object_get(config, "group_size") && !q->bitnet) mlx = config;
    if (json_is_object(mlx)) q->mlx = mlx;
    return SQUISH_OK;
}

/* The tensor PATH.SUFFIX that belongs to PATH.weight. */
static const sq_ftensor *beside(const sq_model *m, const sq_want *w, const char *suffix) {
    char name[sizeof w->hf_name + 16];
    const size_t n = strlen(w->hf_name), tail = strlen(".weight");
    if (n < tail || strcmp(w->hf_name + n - tail, ".weight") != 0) return NULL;
    snprintf(name, sizeof name, "%.*s.%s", (int)(n - tail), w->hf_name, suffix);
    return sq_model_st_find(m, name);
}

/* ---- MLX ------------------------------------------------------------------------------------- */

/* bits and group of a module: its own entry, or what stands for all. */
static squish_status settings(const sq_source_quant *q, const sq_want *w, int64_t *bits, int64_t *group,
                              squish_error *err) {
    char module[sizeof w->hf_name];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(w->hf_name) - strlen(".weight")), w->hf_name);
    const json_t *own = json_object_get(q->mlx, module);
    if (json_is_false(own))
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is false, but the checkpoint has its scales", what,
                       module);
    const char *mode = "affine";
    const json_t *from[2] = {q->mlx, json_is_object(own) ? own : NULL};
    *bits = 4, *group = 64;
    for (size_t i = 0; i < 2 && from[i]; i++) {
        SQ_TRY(sq_json_i64(from[i], "bits", false, 2, 8, bits, what, err));
        SQ_TRY(sq_json_i64(from[i], "group_size", false, 32, 128, group, what, err));
        SQ_TRY(sq_json_str(from[i], "mode", false, &mode, what, err));
    }
    if (strcmp(mode, "affine") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: mode '%.40s' of '%s' is not read (affine is)", what,
                       mode, module);
    if (*bits == 7 || (*group != 32 && *group != 64 && *group != 128))
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: '%s' has %lld bits in groups of %lld (2, 3, 4, 5, 6 or 8 in "
                       "32, 64 or 128 are read)",
                       what, module, (long long)*bits, (long long)*group);
    return SQUISH_OK;
}

static squish_status check_shape(const sq_ftensor *t, const sq_want *w, int64_t cols, squish_error *err) {
    if (t->n_dims == 2 && t->dims[0] == (uint64_t)w->parent_rows && t->dims[1] == (uint64_t)cols)
        return SQUISH_OK;
    return sq_fail(
        err, SQUISH_CORRUPT, "%s: tensor '%s' is %llu x %llu (%d dims), config.json wants %d x %lld", t->file,
        t->name, (unsigned long long)(t->n_dims > 0 ? t->dims[0] : 0),
        (unsigned long long)(t->n_dims > 1 ? t->dims[1] : 1), t->n_dims, w->parent_rows, (long long)cols);
}

static bool scale_type_of(sq_dtype t, sq_scale_type *out) {
    *out = t == SQ_DT_F32 ? SQ_SCALE_F32 : t == SQ_DT_BF16 ? SQ_SCALE_BF16 : SQ_SCALE_F16;
    return t == SQ_DT_F32 || t == SQ_DT_F16 || t == SQ_DT_BF16;
}

/* Of three tensors that hold all experts of a layer, the slices of one: own [3]. */
static squish_status slice_experts(const sq_model *m, const sq_want *w, const sq_ftensor **codes,
                                   const sq_ftensor **scales, const sq_ftensor **biases, sq_ftensor *own,
                                   squish_error *err) {
    const sq_ftensor **all[3] = {codes, scales, biases};
    for (size_t i = 0; i < 3; i++) {
        SQ_TRY(sq_model_expert_slice(*all[i], w->expert, m->cfg.moe.n, &own[i], err));
        *all[i] = &own[i];
    }
    return SQUISH_OK;
}

static squish_status bind_mlx(sq_model *m, const sq_source_quant *q, const sq_want *w,
                              const sq_ftensor *scales, squish_error *err) {
    const sq_ftensor *codes = sq_model_st_find(m, w->hf_name), *biases = beside(m, w, "biases");
    sq_ftensor own[3];
    int64_t bits = 0, group = 0;
    sq_scale_type st = SQ_SCALE_F16;
    if (!codes || !biases)
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' has scales, but no %s", scales->file, w->hf_name,
                       codes ? "biases" : "weight");
    SQ_TRY(settings(q, w, &bits, &group, err));
    if (w->expert >= 0 && scales->n_dims == 3)
        SQ_TRY(slice_experts(m, w, &codes, &scales, &biases, own, err));
    if (codes->dtype != SQ_DT_U32 || !scale_type_of(scales->dtype, &st) || biases->dtype != scales->dtype)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: '%s': weight %s, scales %s, biases %s, wanted U32 and one float type",
                       codes->file, w->hf_name, sq_dtype_name(codes->dtype), sq_dtype_name(scales->dtype),
                       sq_dtype_name(biases->dtype));
    if (w->cols % group != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s': %d columns, not a multiple of group_size %lld", what,
                       w->hf_name, w->cols, (long long)group);
    SQ_TRY(check_shape(codes, w, (int64_t)w->cols / 32 * bits, err));
    SQ_TRY(check_shape(scales, w, w->cols / group, err));
    SQ_TRY(check_shape(biases, w, w->cols / group, err));
    const size_t row0 = (size_t)w->row0, row_bytes = (size_t)w->cols / 8 * (size_t)bits;
    const size_t side = row0 * (size_t)(w->cols / group) * sq_dtype_bytes(scales->dtype);
    const sq_weight view =
        sq_weight_affine(SQ_CODES_UNSIGNED, (int32_t)bits, (int32_t)group, st, w->rows, w->cols,
                         codes->data + row0 * row_bytes, scales->data + side, biases->data + side);
    sq_model_bind_matrix(m, w, &view);
    return SQUISH_OK;
}

/* ---- BitNet ---------------------------------------------------------------------------------- */

static squish_status read_scale(const sq_ftensor *t, bool multiply, float *out, squish_error *err) {
    sq_scale_type st;
    const uint64_t n = t->n_dims == 0 ? 1 : t->dims[0];
    if (!scale_type_of(t->dtype, &st) || t->n_dims > 1 || n != 1)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': wanted one float", t->file, t->name);
    sq_row_to_f32(st == SQ_SCALE_F32 ? SQ_W_F32 : st == SQ_SCALE_F16 ? SQ_W_F16 : SQ_W_BF16, t->data, 1, out);
    if (!multiply) *out = 1.0f / *out;
    if (isfinite(*out) && *out > 0.0f) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' gives a scale of %g", t->file, t->name,
                   (double)*out);
}

/* Codes of model row r: a quarter of the rows shares each byte. False: a code of 3. */
static bool unpack_row(const sq_ftensor *t, const sq_want *w, int32_t r, uint8_t *out) {
    const int32_t quarter = w->parent_rows / 4, row = w->row0 + r, shift = 2 * (row / quarter);
    const uint8_t *p = t->data + (size_t)(row % quarter) * (size_t)w->cols;
    bool ok = true;
    for (int32_t k = 0; k < w->cols; k++) {
        out[k] = (p[k] >> shift) & 3;
        ok = ok && out[k] != 3;
    }
    return ok;
}

static squish_status lay_out(const sq_ftensor *t, const sq_want *w, float gamma, uint8_t *codes, uint8_t *out,
                             squish_error *err) {
    const size_t tile_bytes = sq_weight_make(SQ_W_T2_ROW, SQ_SCALE_F32, w->rows, w->cols, out).tile_bytes;
    float scale[SQ_TILE_ROWS];
    for (int32_t i = 0; i < SQ_TILE_ROWS; i++) scale[i] = gamma;
    for (int32_t r0 = 0; r0 < w->rows; r0 += SQ_TILE_ROWS) {
        const int32_t n = w->rows - r0 < SQ_TILE_ROWS ? w->rows - r0 : SQ_TILE_ROWS;
        for (int32_t r = 0; r < n; r++)
            if (!unpack_row(t, w, r0 + r, codes + (size_t)r * (size_t)w->cols))
                return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': row %d has a code of 3, wanted 0 to 2",
                               t->file, t->name, r0 + r);
        sq_tile_pack(SQ_W_T2_ROW, n, w->cols, codes, scale, NULL,
                     out + (size_t)(r0 / SQ_TILE_ROWS) * tile_bytes);
    }
    return SQUISH_OK;
}

static squish_status bind_ternary(sq_model *m, const sq_source_quant *q, const sq_want *w,
                                  const sq_ftensor *t, squish_error *err) {
    const sq_ftensor *scale = beside(m, w, "weight_scale");
    float gamma = 0.0f;
    if (!scale) return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' has no weight_scale", t->file, w->hf_name);
    SQ_TRY(read_scale(scale, q->multiply, &gamma, err));
    if (t->n_dims != 2 || w->parent_rows % 4 != 0 || t->dims[0] != (uint64_t)w->parent_rows / 4 ||
        t->dims[1] != (uint64_t)w->cols)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': config.json wants %d / 4 x %d packed codes",
                       t->file, t->name, w->parent_rows, w->cols);
    uint64_t bytes = 0;
    const size_t room = (size_t)SQ_TILE_ROWS * (size_t)w->cols;
    uint8_t *out = sq_weight_bytes(SQ_W_T2_ROW, w->rows, w->cols, &bytes)
                       ? sq_arena_alloc(&m->load, (size_t)bytes, 64)
                       : NULL;
    uint8_t *codes = out ? sq_alloc_new(&m->alloc, room) : NULL;
    if (!codes) return sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    const squish_status st = lay_out(t, w, gamma, codes, out, err);
    sq_alloc_free(&m->alloc, codes, room);
    if (st != SQUISH_OK) return st;
    const sq_weight view = sq_weight_make(SQ_W_T2_ROW, SQ_SCALE_F32, w->rows, w->cols, out);
    sq_model_bind_matrix(m, w, &view);
    return SQUISH_OK;
}

squish_status sq_source_quant_bind(sq_model *m, const sq_source_quant *q, const sq_want *w, size_t *used,
                                   squish_error *err) {
    *used = 0;
    if (w->vector) return SQUISH_OK;
    if (q->mlx) {
        sq_want stacked = *w;
        const sq_ftensor *scales = beside(m, w, "scales");
        if (!scales && w->expert >= 0) {
            static const char *const parts[] = {"gate", "up", "down"};
            snprintf(stacked.hf_name, sizeof stacked.hf_name, "model.layers.%d.mlp.switch_mlp.%s_proj.weight",
                     w->layer, parts[w->role - SQ_ROLE_EXPERT_GATE]);
            scales = beside(m, &stacked, "scales");
        }
        if (!scales) return SQUISH_OK;
        SQ_TRY(bind_mlx(m, q, &stacked, scales, err));
        *used = 3;
        return SQUISH_OK;
    }
    const sq_ftensor *t = q->bitnet ? sq_model_st_find(m, w->hf_name) : NULL;
    if (!t || t->dtype != SQ_DT_U8) return SQUISH_OK;
    SQ_TRY(bind_ternary(m, q, w, t, err));
    *used = 2;
    return SQUISH_OK;
}
