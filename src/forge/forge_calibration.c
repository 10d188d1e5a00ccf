/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_calibration.c - reading what a calibration recorded. The file may come from anywhere: its header goes
 * through the checked reader of safetensors, then every name, shape and number is looked at once, so that
 * the methods may use the views without looking again. No threads. */
#include "forge/forge_calibration.h"
#include "format/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

const char *const sq_tap_names[SQ_TAP_COUNT] = {
    [SQ_TAP_ATTN_IN] = "attn_in",
    [SQ_TAP_ATTN_OUT] = "attn_out",
    [SQ_TAP_FFN_IN] = "ffn_in",
    [SQ_TAP_FFN_MID] = "ffn_mid",
};

enum { META_DEPTH = 8 };

typedef struct {
    const float *mean_abs, *hessian;
    int32_t cols;
} input;

struct sq_calibration {
    squish_alloc alloc;
    sq_arena arena;
    sq_map map;            /* closed if the bytes are somebody else's */
    int32_t n_layers, block;
    uint64_t sum;
    input *inputs;         /* [n_layers][SQ_TAP_COUNT] */
};

/* ---- the header's metadata ------------------------------------------------------------------- */

/* A decimal number in a string of the metadata. */
static squish_status meta_int(const json_t *meta, const char *key, int64_t lo, int64_t hi, int64_t *out,
                              const char *file, squish_error *err) {
    const char *text = json_string_value(json_object_get(meta, key));
    int64_t v = 0;
    if (!text) return sq_fail(err, SQUISH_CORRUPT, "%s: '__metadata__' has no '%s'", file, key);
    size_t n = 0;
    for (; n < 18 && text[n] >= '0' && text[n] <= '9'; n++) v = v * 10 + (text[n] - '0');
    if (n == 0 || text[n] != 0 || v < lo || v > hi)
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%s' is '%.24s', wanted %lld to %lld", file, key, text,
                       (long long)lo, (long long)hi);
    *out = v;
    return SQUISH_OK;
}

static squish_status use_meta(sq_calibration *k, const json_t *meta, const sq_config *c, const char *file,
                              squish_error *err) {
    int64_t layers, block, number;
    const char *version = json_string_value(json_object_get(meta, "squish_calibration"));
    const char *arch = json_string_value(json_object_get(meta, "architecture"));
    if (!version) return sq_fail(err, SQUISH_CORRUPT, "%s: not a calibration of squish", file);
    if (strcmp(version, "1") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: calibration of version '%.16s', wanted 1", file,
                       version);
    if (!arch) return sq_fail(err, SQUISH_CORRUPT, "%s: '__metadata__' has no 'architecture'", file);
    if (strcmp(arch, c->arch) != 0)
        return sq_fail(err, SQUISH_INVALID, "%s: recorded from architecture '%.24s', this model is '%s'",
                       file, arch, c->arch);
    SQ_TRY(meta_int(meta, "layers", 1, SQ_MAX_LAYERS, &layers, file, err));
    if (layers != c->n_layers)
        return sq_fail(err, SQUISH_INVALID, "%s: recorded from %d layers, this model has %d", file,
                       (int)layers, c->n_layers);
    SQ_TRY(meta_int(meta, "tokens", 1, INT32_MAX, &number, file, err));
    SQ_TRY(meta_int(meta, "window", 1, INT32_MAX, &number, file, err));
    SQ_TRY(meta_int(meta, "block", 1, SQ_CALIBRATION_BLOCK_MAX, &block, file, err));
    if (block != 1 && block % SQ_GROUP != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: 'block' is %d, wanted 1 or a multiple of %d", file,
                       (int)block, SQ_GROUP);
    k->n_layers = (int32_t)layers;
    k->block = (int32_t)block;
    return SQUISH_OK;
}

/* The header was parsed before, so its length is known to fit. */
static squish_status read_meta(sq_calibration *k, sq_span file, const sq_config *c, const char *name,
                               squish_error *err) {
    sq_cur cur = sq_cur_make(file);
    const uint64_t n = sq_cur_u64(&cur);
    const sq_span head = sq_cur_bytes(&cur, n);
    json_t *o = NULL;
    if (!sq_cur_ok(&cur)) return sq_fail(err, SQUISH_CORRUPT, "%s: the header is cut off", name);
    SQ_TRY(sq_json_parse((const char *)head.p, head.n, META_DEPTH, name, &o, err));
    const squish_status st = use_meta(k, json_object_get(o, "__metadata__"), c, name, err);
    json_decref(o);
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* "12.ffn_in.hessian": which input, and which of its two tensors. Layers are written without leading zeros,
 * so every name says one thing. */
static bool parse_name(const char *name, int32_t n_layers, int32_t *layer, int32_t *tap, bool *hessian) {
    int32_t v = 0, digits = 0;
    for (; digits < 6 && name[digits] >= '0' && name[digits] <= '9'; digits++)
        v = v * 10 + (name[digits] - '0');
    if (digits == 0 || (name[0] == '0' && digits > 1) || v >= n_layers || name[digits] != '.') return false;
    const char *p = name + digits + 1;
    for (int32_t t = 0; t < SQ_TAP_COUNT; t++) {
        const size_t n = strlen(sq_tap_names[t]);
        if (strncmp(p, sq_tap_names[t], n) != 0 || p[n] != '.') continue;
        *layer = v;
        *tap = t;
        *hessian = strcmp(p + n + 1, "hessian") == 0;
        return *hessian || strcmp(p + n + 1, "mean_abs") == 0;
    }
    return false;
}

static squish_status check_mean(const sq_ftensor *t, const float *v, int32_t cols, squish_error *err) {
    for (int32_t i = 0; i < cols; i++)
        if (!isfinite(v[i]) || v[i] < 0)
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s': element %d is %g, wanted a number >= 0",
                           t->file, t->name, i, (double)v[i]);
    return SQUISH_OK;
}

static squish_status check_hessian(const sq_ftensor *t, const float *v, int32_t cols, int32_t block,
                                   squish_error *err) {
    for (int32_t first = 0; first < cols; first += block) {
        const int32_t n = cols - first < block ? cols - first : block;
        for (int32_t i = 0; i < n; i++, v += n) {
            for (int32_t j = 0; j < n; j++)
                if (!isfinite(v[j]))
                    return sq_fail(err, SQUISH_CORRUPT,
                                   "%s: tensor '%s': columns %d and %d give %g, wanted a finite number",
                                   t->file, t->name, first + i, first + j, (double)v[j]);
            if (v[i] < 0)
                return sq_fail(err, SQUISH_CORRUPT,
                               "%s: tensor '%s': the diagonal is %g at column %d, wanted >= 0", t->file,
                               t->name, (double)v[i], first + i);
        }
    }
    return SQUISH_OK;
}

static squish_status take_tensor(sq_calibration *k, const sq_ftensor *t, const sq_config *c,
                                 squish_error *err) {
    int32_t layer, tap;
    bool hessian;
    if (!parse_name(t->name, k->n_layers, &layer, &tap, &hessian))
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%.80s' is no part of a calibration of %d layers",
                       t->file, t->name, k->n_layers);
    const int32_t cols = sq_tap_cols(c, (sq_tap)tap);
    const uint64_t want = hessian ? sq_hessian_floats(cols, k->block) : (uint64_t)cols;
    if (t->dtype != SQ_DT_F32 || t->n_dims != 1)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is %s of %d dimensions, wanted F32 of 1",
                       t->file, t->name, sq_dtype_name(t->dtype), t->n_dims);
    if (t->dims[0] != want)
        return sq_fail(err, SQUISH_INVALID, "%s: tensor '%s' holds %llu numbers, this model wants %llu",
                       t->file, t->name, (unsigned long long)t->dims[0], (unsigned long long)want);
    if ((uintptr_t)t->data % _Alignof(float) != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' does not lie on a multiple of %zu", t->file,
                       t->name, _Alignof(float));
    const float *v = (const float *)(const void *)t->data;
    input *in = &k->inputs[layer * SQ_TAP_COUNT + tap];
    in->cols = cols;
    if (hessian) in->hessian = v;
    else in->mean_abs = v;
    return hessian ? check_hessian(t, v, cols, k->block, err) : check_mean(t, v, cols, err);
}

static squish_status check_complete(const sq_calibration *k, const char *file, squish_error *err) {
    for (int32_t i = 0; i < k->n_layers * SQ_TAP_COUNT; i++) {
        const input *in = &k->inputs[i];
        if (!in->mean_abs || !in->hessian)
            return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%d.%s.%s' is missing", file, i / SQ_TAP_COUNT,
                           sq_tap_names[i % SQ_TAP_COUNT], in->mean_abs ? "hessian" : "mean_abs");
    }
    return SQUISH_OK;
}

static squish_status parse(sq_calibration *k, sq_span file, const char *name, const sq_config *c,
                           squish_error *err) {
    sq_ftensor *tensors;
    size_t n;
    SQ_TRY(sq_st_parse(file, name, &k->arena, &tensors, &n, err));
    SQ_TRY(read_meta(k, file, c, name, err));
    k->inputs = SQ_ARENA_ARRAY(&k->arena, input, (size_t)k->n_layers * SQ_TAP_COUNT);
    if (!k->inputs) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    for (size_t i = 0; i < n; i++) SQ_TRY(take_tensor(k, &tensors[i], c, err));
    SQ_TRY(check_complete(k, name, err));
    k->sum = XXH3_64bits(file.p, file.n);
    return SQUISH_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

static sq_calibration *make(const squish_alloc *a) {
    const squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_calibration *k = sq_alloc_zero(&alloc, sizeof *k);
    if (!k) return NULL;
    k->alloc = alloc;
    sq_arena_init(&k->arena, &alloc, 16384, 0);
    return k;
}

squish_status sq_calibration_parse(sq_calibration **out, sq_span file, const char *name, const sq_config *c,
                                   const squish_alloc *a, squish_error *err) {
    *out = NULL;
    sq_calibration *k = make(a);
    if (!k) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    const squish_status st = parse(k, file, name, c, err);
    if (st == SQUISH_OK) *out = k;
    else sq_calibration_close(k);
    return st;
}

squish_status sq_calibration_open(sq_calibration **out, const char *path, const sq_config *c,
                                  const squish_alloc *a, squish_error *err) {
    sq_map map;
    *out = NULL;
    SQ_TRY(sq_os_map_open(&map, path, err));
    const squish_status st =
        sq_calibration_parse(out, (sq_span){map.data, map.bytes}, path, c, a, err);
    if (st == SQUISH_OK) (*out)->map = map;
    else sq_os_map_close(&map);
    return st;
}

void sq_calibration_close(sq_calibration *k) {
    if (!k) return;
    squish_alloc a = k->alloc;
    sq_arena_deinit(&k->arena);
    if (k->map.data) sq_os_map_close(&k->map);
    sq_alloc_free(&a, k, sizeof *k);
}

int32_t sq_calibration_block(const sq_calibration *k) { return k->block; }
uint64_t sq_calibration_sum(const sq_calibration *k) { return k->sum; }

bool sq_calibration_input(const sq_calibration *k, int32_t layer, sq_role r, sq_hessian *h,
                          const float **mean_abs) {
    const sq_tap t = sq_tap_of(r);
    if (t == SQ_TAP_COUNT || layer < 0 || layer >= k->n_layers) return false;
    const input *in = &k->inputs[layer * SQ_TAP_COUNT + (int32_t)t];
    *h = (sq_hessian){in->hessian, in->cols, k->block};
    *mean_abs = in->mean_abs;
    return true;
}
