/* SPDX-License-Identifier: Apache-2.0
 *
 * model_look_maps.c - the maps that guesses are made with: from the model's own routers, or from a file.
 *
 * A file may come from anywhere: its header goes through the checked reader of safetensors, every name, shape
 * and number is looked at once, and what is bound to a model is bound by what its routers are. */
#include "format/json.h"
#include "model/model_look.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    META_DEPTH = 8,
    BLOCK = 64 << 10,
    FINE_MAX = 64 << 10 /* weights of a map in 8 bits: larger ones come from memory each time, in 4 */
};

static sq_look_maps *make(const sq_model *m, sq_look_kind kind, const squish_alloc *a) {
    sq_look_maps *k = sq_alloc_zero(a, sizeof *k);
    if (!k) return NULL;
    k->alloc = *a;
    k->kind = kind;
    k->n_layers = m->cfg.n_layers;
    sq_arena_init(&k->arena, a, BLOCK, 0);
    if (kind == SQ_LOOK_T0) return k;
    k->map = sq_arena_array(&k->arena, (size_t)k->n_layers, sizeof *k->map, _Alignof(sq_look_map));
    if (k->map) return k;
    sq_look_maps_free(k);
    return NULL;
}

void sq_look_maps_free(sq_look_maps *k) {
    if (!k) return;
    squish_alloc a = k->alloc;
    sq_arena_deinit(&k->arena);
    sq_alloc_free(&a, k, sizeof *k);
}

/* ---- a matrix, row by row -------------------------------------------------------------------- */

typedef void row_fn(const void *user, int32_t r, float *out);

/* A matrix [rows][cols] from rows of f32; false: no memory. */
static bool encode(sq_look_maps *k, int32_t rows, int32_t cols, row_fn *row, const void *user,
                   sq_weight *out) {
    const sq_encoding e = {.type = (int64_t)rows * cols <= FINE_MAX ? SQ_W_I8_G64 : SQ_W_I4_G64,
                           .scale = SQ_SCALE_F16};
    uint64_t bytes;
    if (!sq_weight_bytes(e.type, rows, cols, &bytes)) return false;
    uint8_t *to = sq_arena_alloc(&k->arena, (size_t)bytes, 64);
    const size_t tile_bytes = (size_t)SQ_TILE_ROWS * (size_t)cols * sizeof(float);
    float *tile = to ? sq_alloc_new(&k->alloc, tile_bytes) : NULL;
    if (!tile) return false;
    *out = sq_weight_make(e.type, e.scale, rows, cols, to);
    for (int32_t r = 0; r < rows; r += SQ_TILE_ROWS) {
        const int32_t n = rows - r < SQ_TILE_ROWS ? rows - r : SQ_TILE_ROWS;
        for (int32_t i = 0; i < n; i++) row(user, r + i, tile + (size_t)i * (size_t)cols);
        sq_quant_tile(&e, tile, (size_t)cols, n, cols, to + (size_t)(r / SQ_TILE_ROWS) * out->tile_bytes);
    }
    sq_alloc_free(&k->alloc, tile, tile_bytes);
    return true;
}

/* ---- routers --------------------------------------------------------------------------------- */

/* The router of a layer, for rows that another norm made. */
typedef struct {
    const sq_weight *router;
    const float *norm, *from;
} borrowed;

static void borrowed_row(const void *user, int32_t r, float *out) {
    const borrowed *b = user;
    sq_weight_row(b->router, r, out);
    for (int32_t i = 0; i < b->router->cols; i++) {
        const float x = b->from[i] != 0.0f ? out[i] * (b->norm[i] / b->from[i]) : 0.0f;
        out[i] = isfinite(x) ? x : 0.0f;
    }
}

static squish_status make_router(sq_look_maps *k, const sq_model *m, squish_error *err) {
    for (int32_t t = 0; t < k->n_layers; t++) {
        const sq_layer *l = &m->layers[t];
        if (!l->experts) continue;
        /* Behind a dense block, which turns the hidden state further than a few experts do, the row before
         * attention says far more. */
        const int32_t moment = t > 0 && m->layers[t - 1].experts ? SQ_LOOK_EARLY : SQ_LOOK_LATE;
        const sq_weight *router = &l->mat[SQ_ROLE_ROUTER];
        const borrowed b = {router, l->vec[SQ_ROLE_FFN_NORM],
                            moment == SQ_LOOK_EARLY ? m->layers[t - 1].vec[SQ_ROLE_FFN_NORM]
                                                    : l->vec[SQ_ROLE_ATTN_NORM]};
        if (!encode(k, router->rows, router->cols, borrowed_row, &b, &k->map[t][moment].now))
            return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    }
    return SQUISH_OK;
}

squish_status sq_look_maps_new(sq_look_maps **out, const sq_model *m, sq_look_kind kind,
                               const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_look_maps *k = make(m, kind, a);
    if (!k) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    const squish_status st = kind == SQ_LOOK_ROUTER ? make_router(k, m, err) : SQUISH_OK;
    if (st == SQUISH_OK)
        *out = k;
    else
        sq_look_maps_free(k);
    return st;
}

/* ---- which model ----------------------------------------------------------------------------- */

squish_status sq_look_model_sum(const sq_model *m, const squish_alloc *a, uint64_t *out, squish_error *err) {
    const sq_config *c = &m->cfg;
    const int32_t shape[] = {c->n_layers, c->hidden, c->moe.n, c->moe.used};
    const size_t bytes = (size_t)c->hidden * sizeof(float);
    float *row = sq_alloc_new(a, bytes);
    if (!row) return sq_fail(err, SQUISH_NO_MEMORY, "lookahead: out of memory");
    uint64_t h = XXH3_64bits(shape, sizeof shape);
    for (int32_t t = 0; t < c->n_layers; t++) {
        if (!m->layers[t].experts) continue;
        const sq_weight *router = &m->layers[t].mat[SQ_ROLE_ROUTER];
        h = XXH3_64bits_withSeed(m->layers[t].vec[SQ_ROLE_FFN_NORM], bytes, h);
        for (int32_t r = 0; r < router->rows; r++) {
            sq_weight_row(router, r, row);
            h = XXH3_64bits_withSeed(row, bytes, h);
        }
    }
    sq_alloc_free(a, row, bytes);
    *out = h;
    return SQUISH_OK;
}

squish_status sq_look_path(const sq_model *m, char *out, size_t n, squish_error *err) {
    static const char suffix[] = ".lookahead";
    size_t len = strlen(m->info.path);
    while (len > 1 && m->info.path[len - 1] == '/') len--;
    if (snprintf(out, n, "%.*s%s", (int)len, m->info.path, suffix) < (int)n) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "the path of %s is too long", m->info.path);
}

/* ---- a file ---------------------------------------------------------------------------------- */

typedef struct {
    sq_look_maps *k;
    const sq_model *m;
    const char *name;
    const sq_ftensor *t; /* the tensor at hand */
    uint64_t sum;        /* of all data, as the file says */
    uint8_t *seen;       /* [n_layers][moments]: bits of now, prev, bias */
} reader;

enum { NOW = 1, PREV = 2, BIAS = 4, ALL = 7 };
static const char *const moments[SQ_LOOK_MOMENTS] = {"early", "late"};

static squish_status meta_hex(const json_t *meta, const char *key, uint64_t *out, const char *name,
                              squish_error *err) {
    const char *text = json_string_value(json_object_get(meta, key));
    uint64_t v = 0;
    int32_t n = 0;
    for (; text && n < 16 && strchr("0123456789abcdef", text[n]) && text[n]; n++)
        v = v << 4 | (uint64_t)(text[n] <= '9' ? text[n] - '0' : text[n] - 'a' + 10);
    if (n != 16 || text[16])
        return sq_fail(err, SQUISH_CORRUPT, "%s: '__metadata__' has no '%s' of 16 hexadecimal digits", name,
                       key);
    *out = v;
    return SQUISH_OK;
}

static squish_status use_meta(reader *f, const json_t *meta, squish_error *err) {
    const char *version = json_string_value(json_object_get(meta, "squish_lookahead"));
    uint64_t model, mine;
    if (!version) return sq_fail(err, SQUISH_CORRUPT, "%s: no lookahead maps of squish", f->name);
    if (strcmp(version, "1") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: lookahead maps of version '%.16s', wanted 1", f->name,
                       version);
    SQ_TRY(meta_hex(meta, "model", &model, f->name, err));
    SQ_TRY(meta_hex(meta, "sum", &f->sum, f->name, err));
    SQ_TRY(sq_look_model_sum(f->m, &f->k->alloc, &mine, err));
    if (model == mine) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "%s: fitted to a model with other routers (make it anew: squish calibrate MODEL --moe)",
                   f->name);
}

static squish_status read_meta(reader *f, sq_span file, squish_error *err) {
    sq_cur cur = sq_cur_make(file);
    const uint64_t n = sq_cur_u64(&cur);
    const sq_span head = sq_cur_bytes(&cur, n);
    json_t *o = NULL;
    if (!sq_cur_ok(&cur)) return sq_fail(err, SQUISH_CORRUPT, "%s: the header is cut off", f->name);
    SQ_TRY(sq_json_parse((const char *)head.p, head.n, META_DEPTH, f->name, &o, err));
    const squish_status st = use_meta(f, json_object_get(o, "__metadata__"), err);
    json_decref(o);
    if (st != SQUISH_OK) return st;
    if (XXH3_64bits(file.p + 8 + n, file.n - 8 - (size_t)n) == f->sum) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: the data are damaged (their sum is another)", f->name);
}

/* "12.late.prev"; layers without leading zeros. */
static bool parse_name(const char *name, int32_t n_layers, int32_t *layer, int32_t *moment, uint8_t *part) {
    static const char *const parts[] = {"now", "prev", "bias"};
    int32_t v = 0, digits = 0;
    for (; digits < 6 && name[digits] >= '0' && name[digits] <= '9'; digits++)
        v = v * 10 + (name[digits] - '0');
    if (digits == 0 || (name[0] == '0' && digits > 1) || v >= n_layers || name[digits] != '.') return false;
    const char *p = name + digits + 1;
    for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
        const size_t n = strlen(moments[k]);
        if (strncmp(p, moments[k], n) != 0 || p[n] != '.') continue;
        for (int32_t i = 0; i < 3; i++) {
            if (strcmp(p + n + 1, parts[i]) != 0) continue;
            *layer = v, *moment = k, *part = (uint8_t)(1 << i);
            return true;
        }
    }
    return false;
}

static void bf16_row(const void *user, int32_t r, float *out) {
    const sq_ftensor *t = user;
    const size_t cols = (size_t)t->dims[1];
    sq_row_to_f32(SQ_W_BF16, t->data + (size_t)r * cols * 2, (int32_t)cols, out);
}

/* Numbers of 8 bits stand for what is not too large for a scale of f16. */
static squish_status check_numbers(const sq_ftensor *t, squish_error *err) {
    enum { PART = 256 };
    const uint64_t n = t->dims[0] * t->dims[1];
    const sq_wtype type = t->dtype == SQ_DT_F32 ? SQ_W_F32 : SQ_W_BF16;
    const size_t unit = type == SQ_W_F32 ? 4 : 2;
    float v[PART];
    for (uint64_t at = 0; at < n; at += PART) {
        const int32_t here = n - at < PART ? (int32_t)(n - at) : PART;
        sq_row_to_f32(type, t->data + (size_t)at * unit, here, v);
        for (int32_t i = 0; i < here; i++)
            if (!(fabsf(v[i]) < 1e6f))
                return sq_fail(err, SQUISH_CORRUPT,
                               "%s: tensor '%s': element %llu is %g, wanted less than 1e6", t->file, t->name,
                               (unsigned long long)at + (unsigned)i, (double)v[i]);
    }
    return SQUISH_OK;
}

static squish_status take_tensor(reader *f, const sq_ftensor *t, squish_error *err) {
    const sq_config *c = &f->m->cfg;
    int32_t layer, moment;
    uint8_t part;
    if (!parse_name(t->name, c->n_layers, &layer, &moment, &part) || !f->m->layers[layer].experts ||
        (layer == 0 && moment == SQ_LOOK_EARLY))
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%.80s' is no lookahead map of this model", f->name,
                       t->name);
    const uint64_t rows = part == BIAS ? 2 : (uint64_t)c->moe.n;
    const uint64_t cols = (uint64_t)(part == BIAS ? c->moe.n : c->hidden);
    const sq_dtype type = part == BIAS ? SQ_DT_F32 : SQ_DT_BF16;
    if (t->dtype != type || t->n_dims != 2 || t->dims[0] != rows || t->dims[1] != cols)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is %s of %d dimensions, wanted %s [%llu, %llu]",
                       f->name, t->name, sq_dtype_name(t->dtype), t->n_dims, sq_dtype_name(type),
                       (unsigned long long)rows, (unsigned long long)cols);
    SQ_TRY(check_numbers(t, err));
    sq_look_map *map = &f->k->map[layer][moment];
    f->seen[layer * SQ_LOOK_MOMENTS + moment] |= part;
    bool made;
    if (part == BIAS) {
        float *bias = sq_arena_alloc(&f->k->arena, (size_t)t->bytes, 64);
        made = bias != NULL;
        if (made) memcpy(bias, t->data, (size_t)t->bytes);
        map->bias = bias;
    } else {
        made = encode(f->k, c->moe.n, c->hidden, bf16_row, t, part == NOW ? &map->now : &map->prev);
    }
    return made ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", f->name);
}

static squish_status check_complete(const reader *f, squish_error *err) {
    for (int32_t t = 0; t < f->k->n_layers; t++) {
        for (int32_t k = 0; k < SQ_LOOK_MOMENTS; k++) {
            const bool wanted = f->m->layers[t].experts && (t > 0 || k == SQ_LOOK_LATE);
            if (wanted && f->seen[t * SQ_LOOK_MOMENTS + k] != ALL)
                return sq_fail(err, SQUISH_CORRUPT, "%s: a tensor of '%d.%s' is missing", f->name, t,
                               moments[k]);
        }
    }
    return SQUISH_OK;
}

static squish_status read_all(reader *f, sq_span file, sq_arena *tmp, squish_error *err) {
    sq_ftensor *tensors;
    size_t n;
    SQ_TRY(sq_st_parse(file, f->name, tmp, &tensors, &n, err));
    SQ_TRY(read_meta(f, file, err));
    f->seen = SQ_ARENA_ARRAY(tmp, uint8_t, (size_t)f->k->n_layers * SQ_LOOK_MOMENTS);
    if (!f->seen) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", f->name);
    for (size_t i = 0; i < n; i++) SQ_TRY(take_tensor(f, &tensors[i], err));
    return check_complete(f, err);
}

squish_status sq_look_maps_parse(sq_look_maps **out, sq_span file, const char *name, const sq_model *m,
                                 const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_arena tmp;
    reader f = {.k = make(m, SQ_LOOK_CALIBRATED, a), .m = m, .name = name};
    if (!f.k) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    sq_arena_init(&tmp, a, BLOCK, 0);
    const squish_status st = read_all(&f, file, &tmp, err);
    sq_arena_deinit(&tmp);
    if (st == SQUISH_OK)
        *out = f.k;
    else
        sq_look_maps_free(f.k);
    return st;
}

squish_status sq_look_maps_open(sq_look_maps **out, const char *path, const sq_model *m,
                                const squish_alloc *a, squish_error *err) {
    sq_map map;
    *out = NULL;
    SQ_TRY(sq_os_map_open(&map, path, err));
    const squish_status st = sq_look_maps_parse(out, (sq_span){map.data, map.bytes}, path, m, a, err);
    sq_os_map_close(&map);
    return st;
}
