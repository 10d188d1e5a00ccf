/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_npy.c - opening tiers 2 and 3: a folder of numpy files, each mapped and used where it lies.
 *
 *   tier 2   finalized/NAME.npy       F16 or F32, every tensor of the checkpoint
 *   tier 3   tensors/NAME__q.npy      I8 [N, K], with NAME__s.npy F32 [N] or [N, K / group]
 *            tensors/NAME__pt.npy     F16 or F32: what is not quantised
 *            tensors/manifest.json    which names have which file
 *
 * NAME is the checkpoint's own, percent-encoded, or what the manifest says. */
#include "model/model_int.h"

#include <stdio.h>
#include <string.h>

enum { PATH_ROOM = 4096, MAPS_PER_TENSOR = 2 };

/* What a whole opening shares. */
typedef struct {
    sq_model *m;
    const char *dir;     /* .../finalized or .../tensors */
    const json_t *names; /* of the manifest; NULL: tier 2 */
    size_t room;         /* of m->npy */
} folder;

static squish_status path_of(const folder *f, const char *stem, const char *suffix, char *path,
                             squish_error *err) {
    if (snprintf(path, PATH_ROOM, "%s/%s%s.npy", f->dir, stem, suffix) < PATH_ROOM) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s: path too long", f->dir);
}

/* Map one file and read its header. */
static squish_status map_array(const folder *f, const char *stem, const char *suffix, sq_ftensor *t,
                               squish_error *err) {
    char path[PATH_ROOM];
    SQ_TRY(path_of(f, stem, suffix, path, err));
    if (f->m->n_npy >= f->room) return sq_fail(err, SQUISH_CORRUPT, "%s: too many arrays", f->dir);
    sq_map *map = &f->m->npy[f->m->n_npy];
    SQ_TRY(sq_os_map_open(map, path, err));
    f->m->n_npy++;
    const char *name = sq_arena_strndup(&f->m->load, path, strlen(path));
    if (!name) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", path);
    SQ_TRY(sq_npy_parse((sq_span){map->data, map->bytes}, name, t, err));
    t->file = name;
    return SQUISH_OK;
}

static bool has(const folder *f, const char *stem, const char *suffix) {
    char path[PATH_ROOM];
    return path_of(f, stem, suffix, path, NULL) == SQUISH_OK && sq_os_exists(path);
}

/* File names come from the manifest: plain ones only. */
static bool plain_name(const char *s) { return s && *s && *s != '.' && !strchr(s, '/') && strlen(s) < 1024; }

/* The file's name without suffix; checkpoints of the bare model have no "model." in front. */
static squish_status stem_of(const folder *f, const sq_want *w, char *stem, size_t n, squish_error *err) {
    const bool bare = strncmp(w->hf_name, "model.", 6) == 0;
    const char *names[2] = {w->hf_name, bare ? w->hf_name + 6 : NULL};
    for (size_t i = 0; i < 2 && names[i]; i++) {
        if (f->names) {
            const json_t *o = json_object_get(f->names, names[i]);
            const char *file = json_string_value(json_object_get(o, "file"));
            if (!o) continue;
            if (!plain_name(file) || snprintf(stem, n, "%s", file) >= (int)n)
                return sq_fail(err, SQUISH_CORRUPT,
                               "%s/manifest.json: '%s': file is missing or not a plain name", f->dir,
                               names[i]);
            return SQUISH_OK;
        }
        if (sq_npy_name_encode(names[i], stem, n) && has(f, stem, "")) return SQUISH_OK;
    }
    return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is missing", f->dir, w->hf_name);
}

/* Columns that share a scale: 0 the whole row, -1 not a shape that is read. */
static int32_t group_of(const sq_ftensor *s, const sq_want *w) {
    if (s->n_dims < 1 || s->n_dims > 2 || s->dims[0] != (uint64_t)w->parent_rows) return -1;
    if (s->n_dims == 1 || s->dims[1] == 1) return 0;
    static const int32_t groups[] = {32, 64, 128};
    for (size_t i = 0; i < SQ_COUNT(groups); i++)
        if (w->cols % groups[i] == 0 && s->dims[1] == (uint64_t)(w->cols / groups[i])) return groups[i];
    return -1;
}

static squish_status bind_codes(const folder *f, const sq_want *w, const char *stem, squish_error *err) {
    sq_ftensor q, s;
    SQ_TRY(map_array(f, stem, "__q", &q, err));
    SQ_TRY(map_array(f, stem, "__s", &s, err));
    if (q.dtype != SQ_DT_I8 || q.n_dims != 2 || q.dims[0] != (uint64_t)w->parent_rows ||
        q.dims[1] != (uint64_t)w->cols)
        return sq_fail(err, SQUISH_CORRUPT, "%s: wanted int8 %d x %d", q.file, w->parent_rows, w->cols);
    const int32_t group = group_of(&s, w);
    if (s.dtype != SQ_DT_F32 || group < 0)
        return sq_fail(err, SQUISH_CORRUPT,
                       "%s: wanted float32 scales of %d rows, or of groups of 32, 64 or 128", s.file,
                       w->parent_rows);
    if (w->cols % 32 != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: %d columns, not a multiple of 32", q.file, w->cols);
    const size_t row0 = (size_t)w->row0, per_row = group ? (size_t)(w->cols / group) : 1;
    const sq_weight view =
        sq_weight_affine(SQ_CODES_SIGNED, 8, group, SQ_SCALE_F32, w->rows, w->cols,
                         q.data + row0 * (size_t)w->cols, s.data + row0 * per_row * sizeof(float), NULL);
    sq_model_bind_matrix(f->m, w, &view);
    return SQUISH_OK;
}

static squish_status bind_one(const folder *f, const sq_want *w, squish_error *err) {
    char stem[1024];
    if (w->role == SQ_ROLE_K_B) return sq_model_make_k_b(f->m, w, err);
    SQ_TRY(stem_of(f, w, stem, sizeof stem, err));
    if (f->names && !w->vector && has(f, stem, "__q")) return bind_codes(f, w, stem, err);
    sq_ftensor t;
    sq_wtype type = SQ_W_F32;
    SQ_TRY(map_array(f, stem, f->names ? "__pt" : "", &t, err));
    SQ_TRY(sq_model_check_tensor(w, &t, w->hf_name, &type, err));
    return sq_model_bind_tensor(f->m, w, &t, type, err);
}

static squish_status bind_folder(folder *f, squish_error *err) {
    sq_model *m = f->m;
    sq_want w;
    size_t n = 0;
    SQ_TRY(sq_model_make_layers(m, err));
    while (sq_config_want(&m->cfg, n, &w)) n++;
    f->room = n * MAPS_PER_TENSOR;
    m->npy = SQ_ARENA_ARRAY(&m->load, sq_map, f->room);
    if (!m->npy) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", f->dir);
    for (size_t i = 0; i < n && sq_config_want(&m->cfg, i, &w); i++) SQ_TRY(bind_one(f, &w, err));
    return SQUISH_OK;
}

static squish_status read_manifest(sq_model *m, const char *dir, json_t **root, squish_error *err) {
    char path[PATH_ROOM];
    sq_span text = {0};
    if (snprintf(path, sizeof path, "%s/manifest.json", dir) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
    SQ_TRY(sq_os_read_file(path, SQ_MAX_CONFIG_JSON, &m->load, &text, err));
    SQ_TRY(sq_json_parse((const char *)text.p, text.n, SQ_JSON_DEPTH, path, root, err));
    if (json_is_object(json_object_get(*root, "tensors"))) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: no object 'tensors'", path);
}

squish_status sq_model_open_npy(sq_model **out, const char *compressed, squish_tier tier,
                                const squish_model_options *opt, squish_error *err) {
    *out = NULL;
    const bool three = tier == SQUISH_TIER_3;
    char assets[PATH_ROOM], dir[PATH_ROOM];
    if (snprintf(assets, sizeof assets, "%s/assets", compressed) >= PATH_ROOM ||
        snprintf(dir, sizeof dir, "%s/%s", compressed, three ? "tensors" : "finalized") >= PATH_ROOM)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", compressed);
    sq_model *m = NULL;
    json_t *root = NULL;
    SQ_TRY(sq_model_new(&m, opt, err));
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_model_read_assets(m, assets, opt, err));
    if (!opt->text_only) {
        if (three) SQ_GUARD(read_manifest(m, dir, &root, err));
        folder f = {.m = m, .dir = dir, .names = json_object_get(root, "tensors")};
        SQ_GUARD(bind_folder(&f, err));
    }
    SQ_GUARD(sq_model_finish(m, dir, three ? "3" : "2", err));
    json_decref(root);
    *out = m;
    return SQUISH_OK;
fail:
    json_decref(root);
    sq_model_close(m);
    return st;
}
