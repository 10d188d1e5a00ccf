/* SPDX-License-Identifier: Apache-2.0
 *
 * model_lora.c - LoRA adapters (Hu et al., arXiv:2106.09685) beside the matrices of an open model.
 *
 *   PEFT folder   adapter_config.json, adapter_model.safetensors with
 *                 base_model.model.MODULE.lora_A.weight [r, in] and .lora_B.weight [out, r]
 *   GGUF file     general.type "adapter", adapter.type "lora", tensors NAME.lora_a and NAME.lora_b
 *
 * The factors stay in the mapping of their file. Only rows of q and k whose order is not the model's are
 * copied, in the model's order. Every tensor of an adapter must find its matrix: one that is left over would
 * silently give another model than the one that was trained. */
#include "model/model_int.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_ROOM = 4096, NAME_ROOM = 192, PLACES = 2 };

/* ---- adapter_config.json --------------------------------------------------------------------- */

/* Present, and neither null, false, empty nor zero. */
static bool is_set(const json_t *v) {
    if (json_is_array(v)) return json_array_size(v) > 0;
    if (json_is_object(v)) return json_object_size(v) > 0;
    return v && !json_is_null(v) && !json_is_false(v);
}

/* Fields that change the arithmetic in ways that are not run here. */
static squish_status check_fields(const json_t *o, const char *what, squish_error *err) {
    static const char *const refused[] = {
        "use_dora",  "modules_to_save",   "rank_pattern", "alpha_pattern",
        "lora_bias", "layer_replication", "use_qalora",   "alora_invocation_tokens"};
    static const char *const residual[] = {"pissa", "olora", "corda", "loftq"};
    for (size_t i = 0; i < SQ_COUNT(refused); i++)
        if (is_set(json_object_get(o, refused[i])))
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: '%s' is set, only plain LoRA is run", what,
                           refused[i]);
    const char *type = "LORA", *bias = "none";
    SQ_TRY(sq_json_str(o, "peft_type", false, &type, what, err));
    SQ_TRY(sq_json_str(o, "bias", false, &bias, what, err));
    if (strcmp(type, "LORA") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: peft_type '%.40s', only LORA is run", what, type);
    if (strcmp(bias, "none") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: bias '%.40s', wanted 'none'", what, bias);
    /* These change the base weights, too, when the adapter is begun. */
    const char *init = json_string_value(json_object_get(o, "init_lora_weights"));
    for (size_t i = 0; init && i < SQ_COUNT(residual); i++)
        if (strncmp(init, residual[i], strlen(residual[i])) == 0)
            return sq_fail(err, SQUISH_UNSUPPORTED,
                           "%s: init_lora_weights '%.40s' needs changed base weights (save the adapter as "
                           "plain LoRA)",
                           what, init);
    return SQUISH_OK;
}

static squish_status read_fields(const json_t *o, const char *what, sq_lora_config *out, squish_error *err) {
    int64_t rank = 0;
    if (!json_is_object(o)) return sq_fail(err, SQUISH_CORRUPT, "%s: not an object", what);
    SQ_TRY(check_fields(o, what, err));
    SQ_TRY(sq_json_i64(o, "r", true, 1, SQ_MAX_RANK, &rank, what, err));
    SQ_TRY(sq_json_f64(o, "lora_alpha", true, -1e6, 1e6, &out->alpha, what, err));
    SQ_TRY(sq_json_bool(o, "use_rslora", false, &out->rslora, what, err));
    out->rank = (int32_t)rank;
    return SQUISH_OK;
}

squish_status sq_lora_config_parse(const char *json, size_t n, const char *what, sq_lora_config *out,
                                   squish_error *err) {
    json_t *o = NULL;
    *out = (sq_lora_config){0};
    SQ_TRY(sq_json_parse(json, n, SQ_JSON_DEPTH, what, &o, err));
    const squish_status st = read_fields(o, what, out, err);
    json_decref(o);
    return st;
}

/* ---- tensors of an adapter ------------------------------------------------------------------- */

typedef struct {
    sq_model *m;
    const char *path;
    float scale;        /* the caller's */
    sq_safetensors *st; /* one of these is open */
    sq_gguf *gguf;
    sq_lora_config cfg;      /* rank 0: as the tensors say */
    bool pairs;              /* rows of q and k are ordered for neighbouring pairs */
    const sq_ftensor **used; /* tensors that found a matrix */
    size_t n_used, used_max;
} adapter;

/* What an adapter may call a matrix, and where the matrix lies in what is called so. */
typedef struct {
    const char *name; /* with ".weight" */
    int32_t row0, parent_rows;
} place;

static size_t places_of(const adapter *a, const sq_want *w, place p[PLACES]) {
    size_t n = 0;
    if (a->gguf) {
        p[n++] = (place){w->gguf_name, 0, w->rows};
        return n;
    }
    p[n++] = (place){w->hf_name, w->row0, w->parent_rows};
    if (strcmp(w->hf_name, w->name) != 0) p[n++] = (place){w->name, 0, w->rows};
    return n;
}

/* The factor V (A) or U (B) of a matrix; NULL: none. */
static const sq_ftensor *find(const adapter *a, const char *matrix, bool up) {
    char name[NAME_ROOM];
    assert(matrix);
    if (a->gguf) {
        snprintf(name, sizeof name, "%s.lora_%c", matrix, up ? 'b' : 'a');
        return sq_gguf_find(a->gguf, name);
    }
    const int stem = (int)(strlen(matrix) - strlen(".weight"));
    snprintf(name, sizeof name, "base_model.model.%.*s.lora_%c.weight", stem, matrix, up ? 'B' : 'A');
    const sq_ftensor *t = sq_st_find(a->st, name);
    if (t || strncmp(matrix, "model.", 6) != 0) return t;
    /* Trained on the bare model, without its head. */
    snprintf(name, sizeof name, "base_model.model.%.*s.lora_%c.weight", stem - 6, matrix + 6, up ? 'B' : 'A');
    return sq_st_find(a->st, name);
}

static bool wtype_of(sq_dtype t, sq_wtype *out) {
    *out = t == SQ_DT_F16 ? SQ_W_F16 : t == SQ_DT_BF16 ? SQ_W_BF16 : SQ_W_F32;
    return t == SQ_DT_F32 || t == SQ_DT_F16 || t == SQ_DT_BF16;
}

static squish_status check_factor(const adapter *a, const sq_ftensor *t, uint64_t rows, uint64_t cols,
                                  sq_wtype *type, squish_error *err) {
    if (!wtype_of(t->dtype, type))
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tensor '%s' is %s, wanted F32, F16 or BF16", a->path,
                       t->name, sq_dtype_name(t->dtype));
    if (t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "%s: tensor '%s' is %llu x %llu (%d dims), the model wants %llu x %llu", a->path, t->name,
                   (unsigned long long)(t->n_dims > 0 ? t->dims[0] : 0),
                   (unsigned long long)(t->n_dims > 1 ? t->dims[1] : 1), t->n_dims, (unsigned long long)rows,
                   (unsigned long long)cols);
}

/* The rank both factors have: what the config says, else the rows of V. */
static squish_status rank_of(const adapter *a, const sq_ftensor *v, int32_t *rank, squish_error *err) {
    *rank = a->cfg.rank;
    if (*rank > 0) return SQUISH_OK;
    if (v->n_dims != 2 || v->dims[0] < 1 || v->dims[0] > SQ_MAX_RANK)
        return sq_fail(err, SQUISH_INVALID, "%s: tensor '%s': rank %llu, wanted 1 to %d", a->path, v->name,
                       (unsigned long long)(v->n_dims > 0 ? v->dims[0] : 0), SQ_MAX_RANK);
    *rank = (int32_t)v->dims[0];
    return SQUISH_OK;
}

/* ---- terms ----------------------------------------------------------------------------------- */

/* Row r of a head in the model's order is this row in the adapter's: half-split row p * half + i is
 * neighbouring row 2i + p. */
static int32_t source_row(int32_t r, int32_t head_dim, bool source_pairs) {
    const int32_t half = head_dim / 2, base = r / head_dim * head_dim, i = r - base;
    return base + (source_pairs ? 2 * (i % half) + i / half : i % 2 * half + i / 2);
}

/* U with its rows in the model's order; NULL: out of memory. */
static const uint8_t *reorder_rows(const adapter *a, const sq_want *w, const uint8_t *u, size_t row_bytes) {
    uint8_t *copy = sq_arena_alloc(&a->m->load, (size_t)w->rows * row_bytes, 64);
    for (int32_t r = 0; copy && r < w->rows; r++)
        memcpy(copy + (size_t)r * row_bytes,
               u + (size_t)source_row(r, a->m->cfg.head_dim, a->pairs) * row_bytes, row_bytes);
    return copy;
}

/* The chain is copied, not grown: a tied head shares its first terms with the embedding. */
static squish_status append(sq_model *m, sq_weight *mat, const sq_lowrank *term, squish_error *err) {
    const sq_lowrank *old = mat->low, **end = &mat->low;
    for (bool last = false; !last; old = old ? old->next : NULL) {
        last = !old;
        sq_lowrank *l = SQ_ARENA_NEW(&m->load, sq_lowrank);
        if (!l) return sq_fail(err, SQUISH_NO_MEMORY, "adapter: out of memory");
        *l = last ? *term : *old;
        *end = l;
        end = &l->next;
    }
    return SQUISH_OK;
}

static float scale_of(const adapter *a, int32_t rank) {
    if (a->gguf && a->cfg.alpha == 0) return a->scale; /* as the format's own runtime reads it */
    const double r = (double)rank;
    return (float)((double)a->scale * a->cfg.alpha / (a->cfg.rslora ? sqrt(r) : r));
}

static squish_status add_term(adapter *a, const sq_want *w, const place *p, sq_weight *mat,
                              const sq_ftensor *v, const sq_ftensor *u, squish_error *err) {
    int32_t rank = 0;
    sq_wtype v_type, u_type;
    SQ_TRY(rank_of(a, v, &rank, err));
    SQ_TRY(check_factor(a, v, (uint64_t)rank, (uint64_t)w->cols, &v_type, err));
    SQ_TRY(check_factor(a, u, (uint64_t)p->parent_rows, (uint64_t)rank, &u_type, err));
    if (p->row0 == 0 && a->n_used + 2 <= a->used_max) a->used[a->n_used++] = v, a->used[a->n_used++] = u;
    if (a->scale == 0) return SQUISH_OK; /* checked, but nothing to add: the base model bit for bit */
    const size_t row_bytes = (size_t)rank * (u_type == SQ_W_F32 ? 4 : 2);
    const uint8_t *rows = u->data + (size_t)p->row0 * row_bytes;
    if (a->pairs != (a->m->cfg.rope_pairs != 0) && (w->role == SQ_ROLE_Q || w->role == SQ_ROLE_K))
        rows = reorder_rows(a, w, rows, row_bytes);
    if (!rows) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", a->path);
    const sq_lowrank term = {.v = sq_weight_make(v_type, SQ_SCALE_F16, rank, w->cols, v->data),
                             .u = sq_weight_make(u_type, SQ_SCALE_F16, w->rows, rank, rows),
                             .scale = scale_of(a, rank)};
    return append(a->m, mat, &term, err);
}

/* The matrix a term may hang on. The embedding is looked up, not multiplied: its adapters have another form.
 * Experts run without terms. */
static sq_weight *slot_of(sq_model *m, const sq_want *w) {
    if (w->vector || w->role == SQ_ROLE_EMBED || sq_want_is_bare(w)) return NULL;
    return sq_model_place(m, w);
}

static squish_status hang(adapter *a, const sq_want *w, squish_error *err) {
    place p[PLACES];
    sq_weight *mat = slot_of(a->m, w);
    const size_t n = mat ? places_of(a, w, p) : 0;
    for (size_t i = 0; i < n; i++) {
        const sq_ftensor *v = find(a, p[i].name, false), *u = find(a, p[i].name, true);
        if (!v && !u) continue;
        if (!v || !u)
            return sq_fail(err, SQUISH_INVALID, "%s: tensor '%s' has no lora_%s beside it", a->path,
                           (v ? v : u)->name, v ? "B" : "A");
        SQ_TRY(add_term(a, w, &p[i], mat, v, u, err));
    }
    return SQUISH_OK;
}

/* ---- what is left over ----------------------------------------------------------------------- */

static size_t count_of(const adapter *a) { return a->gguf ? sq_gguf_n_tensors(a->gguf) : sq_st_count(a->st); }

static bool is_used(const adapter *a, const sq_ftensor *t) {
    for (size_t i = 0; i < a->n_used; i++)
        if (a->used[i] == t) return true;
    return false;
}

/* The first tensor without a matrix stands at most n_used tensors behind the first. */
static squish_status check_all_used(const adapter *a, squish_error *err) {
    const size_t n = count_of(a);
    if (n == 0) return sq_fail(err, SQUISH_INVALID, "%s: the adapter has no tensors", a->path);
    if (n == a->n_used) return SQUISH_OK;
    for (size_t i = 0; i < n; i++) {
        const sq_ftensor *t = a->gguf ? sq_gguf_tensor(a->gguf, i) : sq_st_at(a->st, i);
        if (is_used(a, t)) continue;
        if (strstr(t->name, "lora_magnitude"))
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tensor '%s': DoRA is not run", a->path, t->name);
        if (strstr(t->name, "lora_embedding_") || strncmp(t->name, "token_embd.", 11) == 0)
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tensor '%s': adapters of the embedding are not run",
                           a->path, t->name);
        return sq_fail(err, SQUISH_INVALID, "%s: tensor '%s' has no matrix in this model (%s)", a->path,
                       t->name, a->m->cfg.arch);
    }
    return SQUISH_OK;
}

/* ---- opening --------------------------------------------------------------------------------- */

static squish_status open_peft(adapter *a, sq_arena *ar, squish_error *err) {
    char path[PATH_ROOM];
    sq_span json;
    if (snprintf(path, sizeof path, "%s/adapter_model.safetensors", a->path) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", a->path);
    if (!sq_os_exists(path))
        return sq_fail(err, SQUISH_NOT_FOUND, "%s: no adapter_model.safetensors in it", a->path);
    SQ_TRY(sq_st_open(&a->st, path, &a->m->alloc, NULL, NULL, err));
    a->m->loras[a->m->n_loras++].st = a->st;
    snprintf(path, sizeof path, "%s/adapter_config.json", a->path);
    SQ_TRY(sq_os_read_file(path, SQ_MAX_CONFIG_JSON, ar, &json, err));
    return sq_lora_config_parse((const char *)json.p, json.n, path, &a->cfg, err);
}

static bool says(const sq_gguf *g, const char *key, const char *wanted) {
    sq_span s;
    return sq_gguf_str(g, key, &s) && s.n == strlen(wanted) && memcmp(s.p, wanted, s.n) == 0;
}

static squish_status open_gguf(adapter *a, squish_error *err) {
    SQ_TRY(sq_gguf_open(&a->gguf, a->path, &a->m->alloc, err));
    a->m->loras[a->m->n_loras++].gguf = a->gguf;
    if (!says(a->gguf, "general.type", "adapter") || !says(a->gguf, "adapter.type", "lora"))
        return sq_fail(err, SQUISH_INVALID,
                       "%s: not a LoRA adapter (general.type 'adapter' and adapter.type 'lora' are wanted)",
                       a->path);
    if (!sq_gguf_f64(a->gguf, "adapter.lora.alpha", &a->cfg.alpha) || !isfinite(a->cfg.alpha))
        return sq_fail(err, SQUISH_CORRUPT, "%s: no finite number adapter.lora.alpha", a->path);
    a->pairs = says(a->gguf, "general.architecture", "llama"); /* the converter turns q and k of these */
    return SQUISH_OK;
}

/* A tied model has no tensor of its head, but an adapter may have a term for it alone. */
static sq_want tied_head(const sq_config *c) {
    return (sq_want){.role = SQ_ROLE_HEAD,
                     .layer = -1,
                     .expert = -1,
                     .rows = c->n_vocab,
                     .parent_rows = c->n_vocab,
                     .cols = c->hidden,
                     .hf_name = "lm_head.weight",
                     .name = "lm_head.weight",
                     .gguf_name = "output.weight"};
}

static squish_status add_one(adapter *a, sq_arena *ar, squish_error *err) {
    sq_model *m = a->m;
    sq_want w;
    SQ_TRY(sq_os_is_dir(a->path) ? open_peft(a, ar, err) : open_gguf(a, err));
    a->used_max = 2 * PLACES * (m->n_tensors + 1);
    a->used = SQ_ARENA_ARRAY(ar, const sq_ftensor *, a->used_max);
    if (!a->used) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", a->path);
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++) SQ_TRY(hang(a, &w, err));
    if (m->cfg.tied) {
        w = tied_head(&m->cfg);
        SQ_TRY(hang(a, &w, err));
    }
    return check_all_used(a, err);
}

/* Activation-aware builds keep their columns scaled and their inputs divided; an adapter was trained on the
 * inputs as they were. */
static bool has_scaled_inputs(const sq_model *m) {
    const sq_span recipe = m->sqw ? sq_sqw_section_of(m->sqw, SQ_SEC_RECP) : (sq_span){0};
    json_t *o = NULL;
    if (recipe.n < 2 ||
        sq_json_parse((const char *)recipe.p, recipe.n - 1, SQ_JSON_DEPTH, "recipe", &o, NULL) != SQUISH_OK)
        return false;
    const char *method = json_string_value(json_object_get(o, "method"));
    const bool scaled = method && strcmp(method, "awq") == 0;
    json_decref(o);
    return scaled;
}

squish_status sq_model_add_loras(sq_model *m, const squish_lora *l, int32_t n, squish_error *err) {
    if (n < 0 || n > SQ_MAX_LORAS - m->n_loras)
        return sq_fail(err, SQUISH_INVALID, "%d adapters, at most %d are run", n, SQ_MAX_LORAS);
    if (n > 0 && !m->layers)
        return sq_fail(err, SQUISH_INVALID, "adapters need weights, but only the text parts are open");
    if (n > 0 && has_scaled_inputs(m))
        return sq_fail(
            err, SQUISH_UNSUPPORTED,
            "%s was made with method awq, whose inputs are scaled: adapters run on tiers of the other "
            "methods",
            m->info.path);
    squish_status st = SQUISH_OK;
    sq_arena ar;
    sq_arena_init(&ar, &m->alloc, 16 << 10, 0);
    for (int32_t i = 0; i < n && st == SQUISH_OK; i++) {
        adapter a = {.m = m, .path = l[i].path, .scale = l[i].scale};
        if (!a.path || !sq_os_exists(a.path))
            st = sq_fail(err, SQUISH_NOT_FOUND, "%s: no such adapter", a.path ? a.path : "(no path)");
        else if (!isfinite(a.scale))
            st = sq_fail(err, SQUISH_INVALID, "%s: the scale is not a finite number", a.path);
        else
            st = add_one(&a, &ar, err);
    }
    sq_arena_deinit(&ar);
    m->rank_max = sq_model_rank_of(m);
    return st;
}
