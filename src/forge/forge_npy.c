/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_npy.c - tiers 2 and 3: a checkpoint as numpy files, for people who want to look at it.
 *
 *   tier 2   finalized/NAME.npy          f16; a tensor with a value beyond f16 stays f32
 *   tier 3   tensors/NAME__q.npy         int8 [N, K]: codes of a matrix, w = s[n] * q
 *            tensors/NAME__s.npy         f32 [N]
 *            tensors/NAME__shape.npy     int64 [2]
 *            tensors/NAME__pt.npy        f32: everything that is not a matrix
 *            tensors/manifest.json       {"tensors": {name: {"file": NAME, "shape": [...], "kind": "q" or
 * "pt"}}}
 *
 * Tensors are the checkpoint's own, under its own names (percent-encoded). Each file streams row by row. */
#include "forge/forge_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HEADER_MAX = 4096, NAME_ROOM = 3 * SQ_MAX_NAME + 1 };

/* One file being written, header first. */
typedef struct {
    sq_newfile f;
    uint64_t at;
} npy_out;

static squish_status npy_open(npy_out *o, const char *dir, const char *stem, const char *suffix,
                              sq_dtype dtype, const uint64_t *dims, int32_t n_dims, squish_error *err) {
    char path[SQ_FORGE_PATH + NAME_ROOM + 16], header[HEADER_MAX];
    sq_ftensor t = {.name = stem, .dtype = dtype, .n_dims = n_dims, .bytes = sq_dtype_bytes(dtype)};
    size_t used = 0;
    for (int32_t d = 0; d < n_dims; d++) t.dims[d] = dims[d], t.bytes *= dims[d];
    SQ_TRY(sq_npy_header(&t, header, sizeof header, &used, err));
    snprintf(path, sizeof path, "%s/%s%s.npy", dir, stem, suffix);
    SQ_TRY(sq_os_newfile_open(&o->f, path, used + t.bytes, err));
    o->at = used;
    return sq_os_newfile_write_at(&o->f, 0, header, used, err);
}

static squish_status npy_put(npy_out *o, const void *p, size_t n, squish_error *err) {
    SQ_TRY(sq_os_newfile_write_at(&o->f, o->at, p, n, err));
    o->at += n;
    return SQUISH_OK;
}

/* ---- rows of the source ---------------------------------------------------------------------- */

/* A tensor as rows of f32: the last dimension is a row. */
typedef struct {
    const sq_ftensor *t;
    sq_wtype type;
    uint64_t rows;
    int32_t cols;
    char stem[NAME_ROOM];
    float *row; /* [cols] */
    void *out;  /* [cols] f16 or s8 */
    size_t row_bytes, out_bytes;
} rows_of;

static squish_status rows_open(rows_of *k, const sq_forge_job *j, const sq_ftensor *t, squish_error *err) {
    const sq_dtype d = t->dtype;
    *k = (rows_of){.t = t, .rows = 1, .cols = 1};
    if (d != SQ_DT_F32 && d != SQ_DT_F16 && d != SQ_DT_BF16)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: tensor '%s' is %s: tier %s is made from F32, F16 and BF16", t->file, t->name,
                       sq_dtype_name(d), j->at->tier->name);
    k->type = d == SQ_DT_F32 ? SQ_W_F32 : d == SQ_DT_F16 ? SQ_W_F16 : SQ_W_BF16;
    if (t->n_dims > 0 && t->dims[t->n_dims - 1] > INT32_MAX)
        return sq_fail(err, SQUISH_INVALID, "tensor '%s' is too large", t->name);
    if (t->n_dims > 0) k->cols = (int32_t)t->dims[t->n_dims - 1];
    for (int32_t i = 0; i + 1 < t->n_dims; i++) k->rows *= t->dims[i];
    if (!sq_npy_name_encode(t->name, k->stem, sizeof k->stem))
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': its name is too long for a file", t->name);
    k->row_bytes = ((size_t)k->cols + 1) * sizeof(float);
    k->out_bytes = ((size_t)k->cols + 1) * sizeof(uint16_t);
    k->row = sq_alloc_new(&j->alloc, k->row_bytes);
    k->out = sq_alloc_new(&j->alloc, k->out_bytes);
    return k->row && k->out ? SQUISH_OK
                            : sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", t->name);
}

static void rows_close(rows_of *k, const sq_forge_job *j) {
    sq_alloc_free(&j->alloc, k->row, k->row_bytes);
    sq_alloc_free(&j->alloc, k->out, k->out_bytes);
}

static squish_status rows_read(rows_of *k, uint64_t r, squish_error *err) {
    const size_t bytes = (size_t)k->cols * sq_dtype_bytes(k->t->dtype);
    sq_row_to_f32(k->type, k->t->data + r * bytes, k->cols, k->row);
    for (int32_t c = 0; c < k->cols; c++)
        if (!isfinite(k->row[c]))
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': a value of row %llu is not a finite number",
                           k->t->file, k->t->name, (unsigned long long)r);
    return SQUISH_OK;
}

static void rows_to_f16(rows_of *k) {
    uint16_t *h = k->out;
    for (int32_t c = 0; c < k->cols; c++) h[c] = sq_f32_to_f16(k->row[c]);
}

/* Does every value stay finite in f16? */
static squish_status rows_fit(rows_of *k, bool *fit, squish_error *err) {
    *fit = true;
    for (uint64_t r = 0; *fit && k->type != SQ_W_F16 && r < k->rows; r++) {
        SQ_TRY(rows_read(k, r, err));
        for (int32_t c = 0; c < k->cols; c++) *fit = *fit && fabsf(k->row[c]) < 65520.0f;
    }
    return SQUISH_OK;
}

/* ---- one tensor ------------------------------------------------------------------------------ */

static squish_status write_float(sq_forge_job *j, rows_of *k, const char *suffix, bool half,
                                 squish_error *err) {
    npy_out o = {.f = {.fd = -1}};
    squish_status st = SQUISH_OK;
    SQ_GUARD(npy_open(&o, j->at->file, k->stem, suffix, half ? SQ_DT_F16 : SQ_DT_F32, k->t->dims,
                      k->t->n_dims, err));
    for (uint64_t r = 0; r < k->rows; r++) {
        SQ_GUARD(rows_read(k, r, err));
        if (half) rows_to_f16(k);
        SQ_GUARD(npy_put(&o, half ? k->out : k->row, (size_t)k->cols * (half ? 2 : 4), err));
    }
    SQ_GUARD(sq_os_newfile_publish(&o.f, err));
fail:
    sq_os_newfile_abandon(&o.f);
    return st;
}

static squish_status write_int8(sq_forge_job *j, rows_of *k, squish_error *err) {
    npy_out q = {.f = {.fd = -1}}, s = q, shape = q;
    squish_status st = SQUISH_OK;
    const uint64_t two = 2;
    const int64_t dims[2] = {(int64_t)k->rows, k->cols};
    SQ_GUARD(npy_open(&q, j->at->file, k->stem, "__q", SQ_DT_I8, k->t->dims, 2, err));
    SQ_GUARD(npy_open(&s, j->at->file, k->stem, "__s", SQ_DT_F32, k->t->dims, 1, err));
    SQ_GUARD(npy_open(&shape, j->at->file, k->stem, "__shape", SQ_DT_I64, &two, 1, err));
    for (uint64_t r = 0; r < k->rows; r++) {
        float scale;
        SQ_GUARD(rows_read(k, r, err));
        sq_quant_i8_row(k->row, k->cols, k->out, &scale);
        SQ_GUARD(npy_put(&q, k->out, (size_t)k->cols, err));
        SQ_GUARD(npy_put(&s, &scale, sizeof scale, err));
    }
    SQ_GUARD(npy_put(&shape, dims, sizeof dims, err));
    SQ_GUARD(sq_os_newfile_publish(&q.f, err));
    SQ_GUARD(sq_os_newfile_publish(&s.f, err));
    SQ_GUARD(sq_os_newfile_publish(&shape.f, err));
fail:
    sq_os_newfile_abandon(&q.f);
    sq_os_newfile_abandon(&s.f);
    sq_os_newfile_abandon(&shape.f);
    return st;
}

static squish_status list_tensor(json_t *tensors, const rows_of *k, const char *kind, squish_error *err) {
    json_t *shape = json_array();
    for (int32_t d = 0; d < k->t->n_dims; d++)
        json_array_append_new(shape, json_integer((json_int_t)k->t->dims[d]));
    json_t *row = json_pack("{s:s, s:o, s:s}", "file", k->stem, "shape", shape, "kind", kind);
    if (!row || json_object_set_new(tensors, k->t->name, row) != 0)
        return sq_fail(err, SQUISH_NO_MEMORY, "manifest: out of memory");
    return SQUISH_OK;
}

static squish_status write_one(sq_forge_job *j, const sq_ftensor *t, json_t *tensors, squish_error *err) {
    rows_of k;
    squish_status st = rows_open(&k, j, t, err);
    const bool matrix = t->n_dims == 2 && j->o->tier == SQUISH_TIER_3;
    bool half = j->o->tier == SQUISH_TIER_2;
    if (st == SQUISH_OK && half) st = rows_fit(&k, &half, err);
    if (st == SQUISH_OK)
        st = matrix ? write_int8(j, &k, err) : write_float(j, &k, tensors ? "__pt" : "", half, err);
    if (st == SQUISH_OK && tensors) st = list_tensor(tensors, &k, matrix ? "q" : "pt", err);
    if (st == SQUISH_OK) {
        if (matrix)
            j->out->n_quantised++;
        else
            j->out->n_passthrough++;
        st = sq_forge_advance(j, t->bytes, err);
    }
    rows_close(&k, j);
    return st;
}

static squish_status write_manifest(sq_forge_job *j, json_t *tensors, squish_error *err) {
    char path[SQ_FORGE_PATH];
    json_t *whole = json_pack("{s:O}", "tensors", tensors);
    char *text = whole ? json_dumps(whole, JSON_INDENT(1)) : NULL;
    json_decref(whole);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "manifest: out of memory");
    snprintf(path, sizeof path, "%s/manifest.json", j->at->file);
    const squish_status st = sq_os_write_file(path, text, strlen(text), err);
    free(text); /* jansson's */
    return st;
}

squish_status sq_forge_build_npy(sq_forge_job *j, squish_error *err) {
    const sq_safetensors *s = j->m->st;
    json_t *tensors = j->o->tier == SQUISH_TIER_3 ? json_object() : NULL;
    squish_status st = SQUISH_OK;
    /* The folder is the tier: without its sentinel it is none, and what lies there is of no use. */
    remove(j->at->sentinel);
    sq_forge_clear_dir(j->at->file);
    SQ_GUARD(sq_os_mkdirs(j->at->file, err));
    for (size_t i = 0; i < sq_st_count(s); i++) j->total_bytes += sq_st_at(s, i)->bytes;
    for (size_t i = 0; i < sq_st_count(s); i++) SQ_GUARD(write_one(j, sq_st_at(s, i), tensors, err));
    if (tensors) SQ_GUARD(write_manifest(j, tensors, err));
    SQ_GUARD(sq_forge_copy_assets(j, err));
fail:
    json_decref(tensors);
    if (st != SQUISH_OK) sq_forge_clear_dir(j->at->file);
    return st;
}
