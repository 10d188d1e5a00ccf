/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_mlx.c - a directory as mlx-lm writes it.
 *
 *   X.weight  U32 [N, K * bits / 32]   codes, an LSB-first bit stream per row
 *   X.scales, X.biases  [N, K / group] in the scale type        value = scale * code + bias
 *
 * Our affine groups are MLX's. INT8 is symmetric here: code + 128 with bias -128 * scale is the same number,
 * exactly. Ternary is two bits with bias -scale. Rows of q and k in pair order (GGUF) go back to halves. */
#include "forge/forge_export_int.h"

#include <stdio.h>
#include <string.h>

/* How a matrix goes over: bits 0 means as floats of `type`. */
typedef struct {
    int32_t bits, group;
    sq_scale_type scale;
    sq_dtype type;
} form;

/* Already what MLX writes: rows of codes, scales and biases as they are. */
static bool is_mlx(const sq_weight *w) {
    return w->wtype == SQ_W_AFFINE && w->coding == SQ_CODES_UNSIGNED && w->biases && w->group > 0 && !w->low;
}

static form form_of(const sq_weight *w) {
    const sq_scale_type st = (sq_scale_type)w->scale_type;
    const bool whole = w->cols % SQ_GROUP == 0 && !w->low;
    if (whole) switch (w->wtype) {
        case SQ_W_I4_G64: return (form){4, 64, st, SQ_DT_U32};
        case SQ_W_I4_G32: return (form){4, 32, st, SQ_DT_U32};
        case SQ_W_I3_G64: return (form){3, 64, st, SQ_DT_U32};
        case SQ_W_I2_G64: return (form){2, 64, st, SQ_DT_U32};
        case SQ_W_I8_G64: return (form){8, 64, st, SQ_DT_U32};
        case SQ_W_I8_G32: return (form){8, 32, st, SQ_DT_U32};
        case SQ_W_I8_ROW: return (form){8, 64, SQ_SCALE_F32, SQ_DT_U32};
        case SQ_W_T2_ROW: return (form){2, 64, SQ_SCALE_F32, SQ_DT_U32};
        default: break;
        }
    if (is_mlx(w)) return (form){w->bits, w->group, st, SQ_DT_U32};
    if (w->wtype == SQ_W_F32 && !w->low) return (form){.type = SQ_DT_F32};
    if (w->wtype == SQ_W_BF16 && !w->low) return (form){.type = SQ_DT_BF16};
    return (form){.type = SQ_DT_F16};
}

static bool keeps_floats(const sq_weight *w) {
    return !w->low && (w->wtype == SQ_W_F32 || w->wtype == SQ_W_F16 || w->wtype == SQ_W_BF16);
}

static sq_dtype scale_dtype(sq_scale_type t) {
    return t == SQ_SCALE_F32 ? SQ_DT_F32 : t == SQ_SCALE_F16 ? SQ_DT_F16 : SQ_DT_BF16;
}

typedef struct {
    squish_alloc alloc;
    const sq_model *m;
    sq_st_writer *w;
    json_t *config;
    form body; /* the form most of the body has; others are named one by one */
    sq_export_result *r;
} job;

/* "model.layers.0.mlp.up_proj" of "...up_proj.weight". */
static void module_of(const char *name, char *out, size_t n) {
    const size_t len = strlen(name);
    snprintf(out, n, "%.*s", (int)(len > 7 ? len - 7 : len), name);
}

/* ---- declaring ------------------------------------------------------------------------------- */

static squish_status declare(job *j, const char *name, sq_dtype type, int32_t n_dims, uint64_t rows,
                             uint64_t cols, squish_error *err) {
    size_t index;
    sq_ftensor t = {.name = name, .dtype = type, .n_dims = n_dims, .dims = {rows, cols}};
    t.bytes = rows * (n_dims == 2 ? cols : 1) * sq_dtype_bytes(type);
    return sq_st_writer_tensor(j->w, &t, &index, err);
}

static squish_status declare_one(job *j, const sq_want *w, squish_error *err) {
    char module[128], name[160];
    if (w->vector) return declare(j, w->name, SQ_DT_F32, 1, (uint64_t)w->rows, 1, err);
    const form f = form_of(sq_model_matrix(j->m, w));
    const uint64_t rows = (uint64_t)w->rows, cols = (uint64_t)w->cols;
    if (f.bits == 0) return declare(j, w->name, f.type, 2, rows, cols, err);
    SQ_TRY(declare(j, w->name, SQ_DT_U32, 2, rows, cols * (uint64_t)f.bits / 32, err));
    module_of(w->name, module, sizeof module);
    snprintf(name, sizeof name, "%s.scales", module);
    SQ_TRY(declare(j, name, scale_dtype(f.scale), 2, rows, cols / (uint64_t)f.group, err));
    snprintf(name, sizeof name, "%s.biases", module);
    return declare(j, name, scale_dtype(f.scale), 2, rows, cols / (uint64_t)f.group, err);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Codes [cols] of `bits` each into an LSB-first stream. */
static void pack_bits(const uint8_t *codes, int32_t cols, int32_t bits, uint8_t *out) {
    uint32_t held = 0, n = 0;
    for (int32_t k = 0; k < cols; k++) {
        held |= (uint32_t)codes[k] << n;
        for (n += (uint32_t)bits; n >= 8; n -= 8, held >>= 8) *out++ = (uint8_t)held;
    }
}

typedef struct {
    uint8_t *codes;         /* [16][cols] */
    uint8_t *stream;        /* [cols] bytes of one row */
    float *scale32;         /* [16][groups], or one a row */
    uint16_t *scale, *bias; /* [16][groups] */
    float *values;          /* [cols] */
    void *block;
    size_t bytes;
} buffers;

static squish_status buffers_new(buffers *b, const squish_alloc *a, int32_t cols, squish_error *err) {
    const size_t n = (size_t)cols, groups = (n + 31) / 32 + 1;
    const size_t part[] = {16 * n, 4 * n, 16 * groups * 4, 16 * groups * 2, 16 * groups * 2, 4 * n};
    size_t at[6];
    b->bytes = 0;
    for (size_t i = 0; i < SQ_COUNT(part); i++) at[i] = b->bytes, b->bytes += sq_align_up(part[i], 64);
    char *p = b->block = sq_alloc_zero(a, b->bytes);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    b->codes = (uint8_t *)(p + at[0]);
    b->stream = (uint8_t *)(p + at[1]);
    b->scale32 = (float *)(void *)(p + at[2]);
    b->scale = (uint16_t *)(void *)(p + at[3]);
    b->bias = (uint16_t *)(void *)(p + at[4]);
    b->values = (float *)(void *)(p + at[5]);
    return SQUISH_OK;
}

/* Scales and biases of one row as MLX has them: [groups] in the scale type, into two byte strings. */
static void side_row(const sq_weight *w, const form *f, const buffers *b, int32_t i, uint8_t *scales,
                     uint8_t *biases) {
    const int32_t groups = w->cols / f->group;
    for (int32_t g = 0; g < groups; g++) {
        const size_t at = (size_t)i * (size_t)groups + (size_t)g;
        if (f->scale == SQ_SCALE_F32) { /* one scale a row */
            const float s = b->scale32[i], bias = f->bits == 8 ? -128.0f * s : -s;
            memcpy(scales + 4 * g, &s, 4);
            memcpy(biases + 4 * g, &bias, 4);
            continue;
        }
        const uint16_t s = b->scale[at];
        const uint16_t bias =
            f->bits == 8 ? sq_scale_from_f32(f->scale, -128.0f * sq_scale_to_f32(f->scale, s)) : b->bias[at];
        memcpy(scales + 2 * g, &s, 2);
        memcpy(biases + 2 * g, &bias, 2);
    }
}

static squish_status put_codes(job *j, const sq_want *want, const sq_weight *w, const form *f, size_t index,
                               buffers *b, squish_error *err) {
    const size_t row_bytes = (size_t)w->cols * (size_t)f->bits / 8;
    const size_t side = (size_t)(w->cols / f->group) * (f->scale == SQ_SCALE_F32 ? 4 : 2);
    uint8_t *scales = (uint8_t *)b->values, *biases = scales + side; /* fits: group >= 32 */
    for (int32_t tile = 0; tile < sq_weight_tiles(w); tile++) {
        void *scale = f->scale == SQ_SCALE_F32 ? (void *)b->scale32 : (void *)b->scale;
        sq_tile_unpack(w, tile, b->codes, scale, sq_wtype_get((sq_wtype)w->wtype)->bias ? b->bias : NULL);
        const int32_t row0 = tile * SQ_TILE_ROWS, n = w->rows - row0 < 16 ? w->rows - row0 : 16;
        for (int32_t i = 0; i < n; i++) {
            uint8_t *codes = b->codes + (size_t)i * (size_t)w->cols;
            if (f->bits == 8)
                for (int32_t k = 0; k < w->cols; k++) codes[k] ^= 0x80;
            const uint64_t r = (uint64_t)sq_export_row(j->m, want, false, row0 + i);
            pack_bits(codes, w->cols, f->bits, b->stream);
            side_row(w, f, b, i, scales, biases);
            SQ_TRY(sq_st_writer_put(j->w, index, r * row_bytes, b->stream, row_bytes, err));
            SQ_TRY(sq_st_writer_put(j->w, index + 1, r * side, scales, side, err));
            SQ_TRY(sq_st_writer_put(j->w, index + 2, r * side, biases, side, err));
        }
    }
    return SQUISH_OK;
}

static squish_status put_mlx(job *j, const sq_want *want, const sq_weight *w, size_t index,
                             squish_error *err) {
    const size_t row = w->tile_bytes / SQ_TILE_ROWS, side = w->side_bytes / SQ_TILE_ROWS;
    for (int32_t r = 0; r < w->rows; r++) {
        const uint64_t at = (uint64_t)sq_export_row(j->m, want, false, r);
        SQ_TRY(sq_st_writer_put(j->w, index, at * row, w->data + (size_t)r * row, row, err));
        SQ_TRY(sq_st_writer_put(j->w, index + 1, at * side, w->scales + (size_t)r * side, side, err));
        SQ_TRY(sq_st_writer_put(j->w, index + 2, at * side, w->biases + (size_t)r * side, side, err));
    }
    return SQUISH_OK;
}

static squish_status put_floats(job *j, const sq_want *want, const sq_weight *w, const form *f, size_t index,
                                buffers *b, squish_error *err) {
    const size_t bytes = (size_t)w->cols * sq_dtype_bytes(f->type);
    for (int32_t r = 0; r < w->rows; r++) {
        const uint64_t at = (uint64_t)sq_export_row(j->m, want, false, r) * bytes;
        if (keeps_floats(w)) {
            const uint8_t *row = w->data + (size_t)r * (w->tile_bytes / SQ_TILE_ROWS);
            SQ_TRY(sq_st_writer_put(j->w, index, at, row, bytes, err));
            continue;
        }
        sq_weight_row_whole(w, r, b->values);
        for (int32_t k = 0; k < w->cols; k++) {
            const uint16_t h = sq_f32_to_f16(b->values[k]);
            memcpy(b->stream + 2 * (size_t)k, &h, sizeof h);
        }
        SQ_TRY(sq_st_writer_put(j->w, index, at, b->stream, bytes, err));
    }
    return SQUISH_OK;
}

static squish_status put_vector(job *j, const sq_want *want, size_t index, squish_error *err) {
    for (int32_t i = 0; i < want->rows; i++) {
        const float x = sq_export_element(j->m, want, i);
        const uint64_t at = (uint64_t)sq_export_row(j->m, want, false, i) * sizeof x;
        SQ_TRY(sq_st_writer_put(j->w, index, at, &x, sizeof x, err));
    }
    return SQUISH_OK;
}

/* ---- config.json ----------------------------------------------------------------------------- */

static json_t *group_json(const form *f) {
    return json_pack("{s:i, s:i}", "group_size", f->group, "bits", f->bits);
}

static squish_status finish_config(job *j, squish_error *err) {
    json_t *q = j->body.bits ? group_json(&j->body) : NULL;
    sq_want w;
    size_t at = 0;
    while (q && sq_export_next(j->m, &at, &w)) {
        char module[128];
        if (w.vector) continue;
        const form f = form_of(sq_model_matrix(j->m, &w));
        if (f.bits == j->body.bits && f.group == j->body.group) continue;
        module_of(w.name, module, sizeof module);
        json_object_set_new(q, module, f.bits ? group_json(&f) : json_false());
    }
    bool ok = q || !j->body.bits;
    if (q) {
        ok = json_object_set(j->config, "quantization", q) == 0 &&
             json_object_set(j->config, "quantization_config", q) == 0;
        json_decref(q);
    }
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
}

/* ---- the whole ------------------------------------------------------------------------------- */

static squish_status write_tensors(job *j, squish_progress_fn progress, void *user, squish_error *err) {
    sq_want w;
    size_t index = 0, total = 0, done = 0, at = 0;
    while (sq_export_next(j->m, &at, &w)) total++;
    for (at = 0; sq_export_next(j->m, &at, &w);) {
        if (w.vector) {
            SQ_TRY(put_vector(j, &w, index++, err));
            continue;
        }
        buffers b = {0};
        const sq_weight *m = sq_model_matrix(j->m, &w);
        const form f = form_of(m);
        SQ_TRY(buffers_new(&b, &j->alloc, m->cols, err));
        const squish_status st = f.bits && is_mlx(m) ? put_mlx(j, &w, m, index, err)
                                 : f.bits            ? put_codes(j, &w, m, &f, index, &b, err)
                                                     : put_floats(j, &w, m, &f, index, &b, err);
        sq_alloc_free(&j->alloc, b.block, b.bytes);
        SQ_TRY(st);
        index += f.bits ? 3 : 1;
        if (f.bits || keeps_floats(m))
            j->r->n_exact++;
        else
            j->r->n_decoded++;
        if (progress && !progress(user, "export", ++done, total))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    return SQUISH_OK;
}

static squish_status run(job *j, const char *assets, const char *out, squish_progress_fn progress, void *user,
                         squish_error *err) {
    char path[SQ_EXPORT_PATH];
    sq_want w;
    size_t at = 0;
    SQ_TRY(sq_export_config(j->m, &j->config, err));
    SQ_TRY(sq_os_mkdirs(out, err));
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    SQ_TRY(sq_st_writer_new(&j->w, path, &j->alloc, err));
    SQ_TRY(sq_st_writer_meta(j->w, "format", "mlx", err));
    j->body = form_of(&j->m->layers[0].mat[SQ_ROLE_O]);
    while (sq_export_next(j->m, &at, &w)) SQ_TRY(declare_one(j, &w, err));
    SQ_TRY(sq_st_writer_layout(j->w, &j->r->bytes, err));
    SQ_TRY(write_tensors(j, progress, user, err));
    SQ_TRY(sq_st_writer_finish(j->w, err));
    SQ_TRY(finish_config(j, err));
    SQ_TRY(sq_export_assets(&j->alloc, assets, out, err));
    snprintf(path, sizeof path, "%s/tokenizer.json", out);
    j->r->has_tokenizer = sq_os_exists(path);
    return sq_export_write_config(j->config, out, err);
}

squish_status sq_export_mlx(const sq_model *m, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err) {
    char config[1200];
    *r = (sq_export_result){0};
    if (!m->has_weights) return sq_fail(err, SQUISH_INVALID, "%s has no weights", m->info.path);
    if (!sq_config_is_plain(&m->cfg))
        return sq_fail(
            err, SQUISH_UNSUPPORTED,
            "%s has experts or latent attention: these are exported as safetensors only, not as MLX",
            m->info.path);
    if (strlen(out) > 1000 || snprintf(config, sizeof config, "%s/config.json", out) >= (int)sizeof config)
        return sq_fail(err, SQUISH_INVALID, "%.100s...: path too long", out);
    if (sq_os_exists(config))
        return sq_fail(err, SQUISH_INVALID, "%s is there already (name another folder)", config);
    job j = {.alloc = m->alloc, .m = m, .r = r};
    const squish_status st = run(&j, assets, out, progress, user, err);
    sq_st_writer_free(j.w);
    json_decref(j.config);
    return st;
}
