/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_st.c - a model as a Hugging Face checkpoint, or as numpy files.
 *
 *   safetensors   OUT/config.json, tokenizer files, model.safetensors
 *   npy           OUT/finalized/NAME.npy and its sentinel, OUT/assets/: what tier 2 looks like
 *
 * Both have the tensors of the checkpoint under its names; slices that the model keeps apart (Phi-3) go back
 * into their parent. Work goes on in OUT.partial, which takes its name at the end. */
#include "forge/forge_export_int.h"
#include "forge/forge_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HEADER_MAX = 512, NAME_ROOM = 3 * 96 + 8 };

/* One tensor of the file. */
typedef struct {
    char name[96];
    sq_dtype type;
    bool vector;
    uint64_t rows, cols;
    size_t index; /* of the safetensors writer */
} slot;

typedef struct {
    squish_alloc alloc;
    const sq_model *m;
    bool npy;
    char dir[SQ_EXPORT_PATH + 16]; /* where tensors go */
    slot *slots;                   /* [n] */
    size_t n, n_wants;
    sq_st_writer *w;
    sq_newfile f;      /* npy: the array being written */
    uint64_t data_at;  /* where its elements begin */
    sq_export_result *r;
} job;

/* ---- types ----------------------------------------------------------------------------------- */

static bool is_float(const sq_weight *w) {
    return !w->low && (w->wtype == SQ_W_F32 || w->wtype == SQ_W_F16 || w->wtype == SQ_W_BF16);
}

static sq_dtype dtype_of(uint8_t wtype) {
    return wtype == SQ_W_F32 ? SQ_DT_F32 : wtype == SQ_W_F16 ? SQ_DT_F16 : SQ_DT_BF16;
}

/* What is known of values that are looked at. */
typedef struct {
    bool f16, bf16; /* each exactly that */
    bool small;     /* each within f16 */
} range;

static void look(range *g, const float *v, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        g->f16 = g->f16 && sq_f16_to_f32(sq_f32_to_f16(v[i])) == v[i];
        g->bf16 = g->bf16 && sq_bf16_to_f32(sq_f32_to_bf16(v[i])) == v[i];
        g->small = g->small && fabsf(v[i]) < 65520.0f;
    }
}

static squish_status matrix_type(job *j, const sq_weight *w, sq_dtype *type, squish_error *err) {
    range g = {true, true, true};
    if (is_float(w) && !j->npy) return *type = dtype_of(w->wtype), SQUISH_OK;
    const size_t bytes = (size_t)w->cols * sizeof(float);
    float *row = sq_alloc_new(&j->alloc, bytes);
    if (!row) return sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    for (int32_t r = 0; r < w->rows && (j->npy ? g.f16 : g.small); r++) {
        sq_weight_row_whole(w, r, row);
        look(&g, row, w->cols);
    }
    sq_alloc_free(&j->alloc, row, bytes);
    if (j->npy) *type = g.f16 ? SQ_DT_F16 : SQ_DT_F32;
    else *type = g.small ? SQ_DT_F16 : SQ_DT_BF16;
    return SQUISH_OK;
}

/* The tensor of the checkpoint that a vector was read from, if its bytes can go over as they are. */
static const sq_ftensor *source_of(const job *j, const sq_want *w) {
    const sq_ftensor *t = j->m->st ? sq_st_find(j->m->st, w->hf_name) : NULL;
    const bool floats = t && (t->dtype == SQ_DT_F32 || t->dtype == SQ_DT_F16 || t->dtype == SQ_DT_BF16);
    return floats && !j->npy && t->n_dims == 1 && t->dims[0] == (uint64_t)w->parent_rows ? t : NULL;
}

/* Vectors are f32 here: the narrowest type that says the same, for most were trained in one. */
static sq_dtype vector_type(const job *j, const sq_want *w) {
    range g = {true, true, true};
    const sq_ftensor *t = source_of(j, w);
    if (t) return t->dtype;
    for (int32_t i = 0; i < w->rows; i++) {
        const float x = sq_export_element(j->m, w, i);
        look(&g, &x, 1);
    }
    if (!j->npy && g.bf16) return SQ_DT_BF16;
    return g.f16 ? SQ_DT_F16 : SQ_DT_F32;
}

/* ---- the list -------------------------------------------------------------------------------- */

static slot *slot_of(job *j, const char *name) {
    for (size_t i = j->n; i-- > 0;)
        if (strcmp(j->slots[i].name, name) == 0) return &j->slots[i];
    return NULL;
}

static squish_status list_one(job *j, const sq_want *w, squish_error *err) {
    sq_dtype type = SQ_DT_F32;
    slot *s = w->parent_rows > w->rows ? slot_of(j, w->hf_name) : NULL;
    if (w->vector) type = vector_type(j, w);
    else SQ_TRY(matrix_type(j, sq_model_matrix(j->m, w), &type, err));
    if (s) { /* one more slice: a type that holds all */
        if (s->type != type) s->type = SQ_DT_F32;
        return SQUISH_OK;
    }
    s = &j->slots[j->n++];
    *s = (slot){.type = type, .vector = w->vector};
    memcpy(s->name, w->hf_name, sizeof s->name);
    s->rows = (uint64_t)w->parent_rows;
    s->cols = w->vector ? 1 : (uint64_t)w->cols;
    return SQUISH_OK;
}

static sq_ftensor tensor_of(const slot *s) {
    sq_ftensor t = {.name = s->name, .dtype = s->type, .n_dims = s->vector ? 1 : 2};
    t.dims[0] = s->rows, t.dims[1] = s->vector ? 0 : s->cols;
    t.bytes = s->rows * s->cols * sq_dtype_bytes(s->type);
    return t;
}

static squish_status declare(job *j, squish_error *err) {
    char path[SQ_EXPORT_PATH + 64];
    if (j->npy) return SQUISH_OK;
    snprintf(path, sizeof path, "%s/model.safetensors", j->dir);
    SQ_TRY(sq_st_writer_new(&j->w, path, &j->alloc, err));
    SQ_TRY(sq_st_writer_meta(j->w, "format", "pt", err));
    for (size_t i = 0; i < j->n; i++) {
        const sq_ftensor t = tensor_of(&j->slots[i]);
        SQ_TRY(sq_st_writer_tensor(j->w, &t, &j->slots[i].index, err));
    }
    return sq_st_writer_layout(j->w, &j->r->bytes, err);
}

/* ---- where bytes go -------------------------------------------------------------------------- */

static squish_status begin(job *j, const slot *s, squish_error *err) {
    char stem[NAME_ROOM], path[SQ_EXPORT_PATH + NAME_ROOM + 32], header[HEADER_MAX];
    const sq_ftensor t = tensor_of(s);
    size_t used;
    if (!j->npy) return SQUISH_OK;
    if (!sq_npy_name_encode(s->name, stem, sizeof stem))
        return sq_fail(err, SQUISH_INVALID, "tensor '%s': its name is too long for a file", s->name);
    SQ_TRY(sq_npy_header(&t, header, sizeof header, &used, err));
    snprintf(path, sizeof path, "%s/%s.npy", j->dir, stem);
    SQ_TRY(sq_os_newfile_open(&j->f, path, used + t.bytes, err));
    j->data_at = used;
    j->r->bytes += used + t.bytes;
    return sq_os_newfile_write_at(&j->f, 0, header, used, err);
}

static squish_status put(job *j, const slot *s, uint64_t at, const void *p, size_t n, squish_error *err) {
    return j->npy ? sq_os_newfile_write_at(&j->f, j->data_at + at, p, n, err)
                  : sq_st_writer_put(j->w, s->index, at, p, n, err);
}

static squish_status end(job *j, squish_error *err) {
    return j->npy ? sq_os_newfile_publish(&j->f, err) : SQUISH_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void to_type(const float *v, int32_t n, sq_dtype type, uint8_t *out) {
    if (type == SQ_DT_F32) {
        memcpy(out, v, (size_t)n * sizeof *v);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        const uint16_t h = type == SQ_DT_F16 ? sq_f32_to_f16(v[i]) : sq_f32_to_bf16(v[i]);
        memcpy(out + 2 * (size_t)i, &h, sizeof h);
    }
}

static squish_status put_matrix(job *j, const sq_want *want, const slot *s, squish_error *err) {
    const sq_weight *w = sq_model_matrix(j->m, want);
    const size_t bytes = (size_t)w->cols * sq_dtype_bytes(s->type), room = (size_t)w->cols * 8;
    float *row = sq_alloc_new(&j->alloc, room);
    if (!row) return sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    const bool whole = is_float(w) && dtype_of(w->wtype) == s->type;
    squish_status st = SQUISH_OK;
    for (int32_t r = 0; st == SQUISH_OK && r < w->rows; r++) {
        const uint64_t at = (uint64_t)(want->row0 + sq_export_row(j->m, want, false, r)) * bytes;
        uint8_t *out = (uint8_t *)(row + w->cols);
        if (whole) {
            memcpy(out, w->data + (size_t)r * bytes, bytes);
        } else {
            sq_weight_row_whole(w, r, row);
            to_type(row, w->cols, s->type, out);
        }
        st = put(j, s, at, out, bytes, err);
    }
    sq_alloc_free(&j->alloc, row, room);
    if (is_float(w)) j->r->n_exact++;
    else j->r->n_decoded++;
    return st;
}

static squish_status put_vector(job *j, const sq_want *want, const slot *s, squish_error *err) {
    const size_t bytes = sq_dtype_bytes(s->type);
    const sq_ftensor *t = source_of(j, want);
    for (int32_t i = 0; i < want->rows; i++) {
        const float x = sq_export_element(j->m, want, i);
        const uint64_t at = (uint64_t)(want->row0 + sq_export_row(j->m, want, false, i)) * bytes;
        uint8_t out[sizeof x];
        if (t && t->dtype == s->type) memcpy(out, t->data + at, bytes);
        else to_type(&x, 1, s->type, out);
        SQ_TRY(put(j, s, at, out, bytes, err));
    }
    return SQUISH_OK;
}

static squish_status write_tensors(job *j, squish_progress_fn progress, void *user, squish_error *err) {
    sq_want w;
    size_t at = 0, done = 0;
    while (sq_export_next(j->m, &at, &w)) {
        const slot *s = slot_of(j, w.hf_name);
        if (w.row0 == 0) SQ_TRY(begin(j, s, err));
        SQ_TRY(w.vector ? put_vector(j, &w, s, err) : put_matrix(j, &w, s, err));
        if (w.row0 + w.rows == w.parent_rows) SQ_TRY(end(j, err));
        if (progress && !progress(user, "export", ++done, j->n_wants))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    return j->w ? sq_st_writer_finish(j->w, err) : SQUISH_OK;
}

/* ---- config.json ----------------------------------------------------------------------------- */

static const char *class_of(const char *arch) {
    static const char *const classes[][2] = {
        {"qwen2", "Qwen2ForCausalLM"},   {"qwen3", "Qwen3ForCausalLM"},      {"llama", "LlamaForCausalLM"},
        {"mistral", "MistralForCausalLM"}, {"phi3", "Phi3ForCausalLM"},      {"bitnet", "BitNetForCausalLM"},
        {"gemma3_text", "Gemma3ForCausalLM"}};
    for (size_t i = 0; i < SQ_COUNT(classes); i++)
        if (strcmp(classes[i][0], arch) == 0) return classes[i][1];
    return NULL;
}

/* What loaders of checkpoints ask for and a config made from keys does not say. */
static squish_status complete_config(const job *j, json_t *config, squish_error *err) {
    static const char *const names[] = {
        [SQ_DT_F32] = "float32", [SQ_DT_F16] = "float16", [SQ_DT_BF16] = "bfloat16"};
    const char *class = class_of(j->m->cfg.arch);
    const char *key = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";
    const sq_dtype type = j->slots[0].type;
    const int32_t eos = j->m->tok ? sq_tok_eos(j->m->tok) : -1;
    bool ok = j->npy || json_object_set_new(config, key, json_string(names[type])) == 0;
    if (class && !json_object_get(config, "architectures"))
        ok = ok && json_object_set_new(config, "architectures", json_pack("[s]", class)) == 0;
    if (eos >= 0 && !json_object_get(config, "eos_token_id"))
        ok = ok && json_object_set_new(config, "eos_token_id", json_integer(eos)) == 0;
    return ok ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
}

static squish_status write_config(job *j, const char *dir, squish_error *err) {
    json_t *config = NULL;
    squish_status st = sq_export_config(j->m, &config, err);
    if (st == SQUISH_OK) st = complete_config(j, config, err);
    if (st == SQUISH_OK) st = sq_export_write_config(config, dir, err);
    json_decref(config);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The sentinel that makes a folder of arrays a tier. */
static squish_status announce(const char *partial, squish_error *err) {
    char dir[SQ_EXPORT_PATH + 64], sentinel[SQ_EXPORT_PATH + 64];
    uint64_t bytes, sum;
    const sq_tier_info *t = sq_tier_get(SQUISH_TIER_2);
    snprintf(dir, sizeof dir, "%s/%s", partial, t->file);
    snprintf(sentinel, sizeof sentinel, "%s/%s", partial, t->sentinel);
    if (!sq_tier_measure(SQUISH_TIER_2, dir, &bytes, &sum))
        return sq_fail(err, SQUISH_IO, "%s cannot be read back", dir);
    return sq_sentinel_write(sentinel, t->file, bytes, sum, err);
}

static squish_status write_all(job *j, const char *assets, const char *partial, squish_progress_fn progress,
                               void *user, squish_error *err) {
    char beside[SQ_EXPORT_PATH + 16];
    sq_want w;
    size_t at = 0;
    snprintf(beside, sizeof beside, "%s%s", partial, j->npy ? "/assets" : "");
    snprintf(j->dir, sizeof j->dir, "%s%s", partial, j->npy ? "/finalized" : "");
    SQ_TRY(sq_os_mkdirs(beside, err));
    SQ_TRY(sq_os_mkdirs(j->dir, err));
    while (sq_export_next(j->m, &at, &w)) SQ_TRY(list_one(j, &w, err));
    SQ_TRY(declare(j, err));
    SQ_TRY(write_tensors(j, progress, user, err));
    SQ_TRY(sq_export_assets(&j->alloc, assets, beside, err));
    SQ_TRY(write_config(j, beside, err));
    char path[SQ_EXPORT_PATH + 64];
    snprintf(path, sizeof path, "%s/tokenizer.json", beside);
    j->r->has_tokenizer = sq_os_exists(path);
    return j->npy ? announce(partial, err) : SQUISH_OK;
}

static void drop(const job *j, const char *partial) {
    static const char *const below[] = {"finalized", "assets"};
    for (size_t i = 0; j->npy && i < SQ_COUNT(below); i++) {
        char dir[SQ_EXPORT_PATH + 16];
        snprintf(dir, sizeof dir, "%s/%s", partial, below[i]);
        sq_export_folder_drop(dir);
    }
    sq_export_folder_drop(partial);
}

static squish_status export(const sq_model *m, bool npy, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err) {
    char partial[SQ_EXPORT_PATH];
    job j = {.alloc = m->alloc, .m = m, .npy = npy, .f = {.fd = -1}, .r = r};
    sq_want w;
    size_t at = 0;
    *r = (sq_export_result){0};
    SQ_TRY(sq_export_check_out(m, out, err));
    while (sq_export_next(m, &at, &w)) j.n_wants++;
    SQ_TRY(sq_export_folder_begin(out, partial, err));
    j.slots = sq_alloc_zero(&j.alloc, j.n_wants * sizeof *j.slots);
    squish_status st = j.slots ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    if (st == SQUISH_OK) st = write_all(&j, assets, partial, progress, user, err);
    sq_st_writer_free(j.w);
    sq_os_newfile_abandon(&j.f);
    if (st == SQUISH_OK) st = sq_export_folder_end(partial, out, err);
    if (st != SQUISH_OK) drop(&j, partial);
    sq_alloc_free(&j.alloc, j.slots, j.n_wants * sizeof *j.slots);
    return st;
}

squish_status sq_export_safetensors(const sq_model *m, const char *assets, const char *out,
                                    squish_progress_fn progress, void *user, sq_export_result *r,
                                    squish_error *err) {
    return export(m, false, assets, out, progress, user, r, err);
}

squish_status sq_export_npy(const sq_model *m, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err) {
    return export(m, true, assets, out, progress, user, r, err);
}
