/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_source.c - what a model was opened from: its identity, and the bytes of each tensor in it.
 *
 * The identity is known before any weight is read: names, sizes and times of the files, and name, type and
 * shape of every tensor in their headers. It tells a resumed build whether the source is still the same; what
 * was really read is in the sums of the tensors. */
#include "forge/forge_int.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* ---- identity -------------------------------------------------------------------------------- */

static void add_number(XXH3_state_t *h, uint64_t v) { XXH3_128bits_update(h, &v, sizeof v); }
static void add_text(XXH3_state_t *h, const char *s) { XXH3_128bits_update(h, s, strlen(s) + 1); }

static squish_status add_file(XXH3_state_t *h, const char *path, const char *name, squish_error *err) {
    sq_map map;
    SQ_TRY(sq_os_map_open(&map, path, err));
    add_text(h, name);
    add_number(h, map.bytes);
    add_number(h, map.mtime_ns);
    sq_os_map_close(&map);
    return SQUISH_OK;
}

static bool holds_weights(const char *name) {
    static const char *const suffixes[] = {".safetensors", ".gguf", ".npy", ".json"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < SQ_COUNT(suffixes); i++) {
        const size_t m = strlen(suffixes[i]);
        if (n >= m && strcmp(name + n - m, suffixes[i]) == 0) return true;
    }
    return false;
}

static squish_status add_folder(XXH3_state_t *h, const char *dir, const squish_alloc *a, squish_error *err) {
    sq_arena ar;
    char **names = NULL, path[4096];
    size_t n = 0;
    sq_arena_init(&ar, a, 4096, 0);
    squish_status st = sq_os_list_dir(dir, &ar, &names, &n, err);
    for (size_t i = 0; st == SQUISH_OK && i < n; i++) {
        if (!holds_weights(names[i])) continue;
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) >= (int)sizeof path)
            st = sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
        else if (sq_os_file_bytes(path) > 0 && !sq_os_is_dir(path))
            st = add_file(h, path, names[i], err);
    }
    sq_arena_deinit(&ar);
    return st;
}

static void add_tensor(XXH3_state_t *h, const sq_ftensor *t) {
    add_text(h, t->name);
    add_number(h, (uint64_t)t->dtype);
    for (int32_t d = 0; d < t->n_dims; d++) add_number(h, t->dims[d]);
    add_number(h, t->bytes);
}

squish_status sq_forge_source_id(const sq_model *m, uint8_t out[16], squish_error *err) {
    XXH3_state_t *h = XXH3_createState();
    if (!h) return sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    XXH3_128bits_reset(h);
    const char *path = m->info.path, *name = strrchr(path, '/');
    squish_status st = sq_os_is_dir(path) ? add_folder(h, path, &m->alloc, err)
                                          : add_file(h, path, name ? name + 1 : path, err);
    for (size_t i = 0; m->st && i < sq_st_count(m->st); i++) add_tensor(h, sq_st_at(m->st, i));
    for (size_t i = 0; m->gguf && i < sq_gguf_n_tensors(m->gguf); i++)
        add_tensor(h, sq_gguf_tensor(m->gguf, i));
    XXH128_canonical_t id;
    XXH128_canonicalFromHash(&id, XXH3_128bits_digest(h));
    memcpy(out, id.digest, 16);
    XXH3_freeState(h);
    return st;
}

/* ---- bytes of a tensor ----------------------------------------------------------------------- */

/* The up to three runs of bytes a matrix is made of: codes, scales, biases. */
static int spans_of(const sq_weight *w, sq_span out[3]) {
    uint64_t bytes = 0;
    if (w->wtype != SQ_W_AFFINE) {
        sq_weight_bytes((sq_wtype)w->wtype, w->rows, w->cols, &bytes);
        out[0] = (sq_span){w->data, (size_t)bytes};
        return 1;
    }
    const size_t rows = (size_t)w->rows, cols = (size_t)w->cols;
    const size_t side =
        rows * (w->group ? cols / (size_t)w->group : 1) * (w->scale_type == SQ_SCALE_F32 ? 4 : 2);
    out[0] = (sq_span){w->data, rows * (cols * w->bits / 8)};
    out[1] = (sq_span){w->scales, side};
    out[2] = (sq_span){w->biases, side};
    return w->biases ? 3 : 2;
}

uint64_t sq_forge_source_bytes(const sq_model *m, const sq_want *w) {
    if (w->vector) return (uint64_t)w->rows * sizeof(float);
    sq_span s[3];
    uint64_t bytes = 0;
    for (int i = 0, n = spans_of(sq_model_matrix(m, w), s); i < n; i++) bytes += s[i].n;
    return bytes;
}

/* Of one run the plain hash; of several the hash of theirs. */
uint64_t sq_forge_source_sum(const sq_model *m, const sq_want *w) {
    if (w->vector) return XXH3_64bits(sq_model_vector(m, w), (size_t)w->rows * sizeof(float));
    sq_span s[3];
    uint64_t sums[3];
    const int n = spans_of(sq_model_matrix(m, w), s);
    for (int i = 0; i < n; i++) sums[i] = XXH3_64bits(s[i].p, s[i].n);
    return n == 1 ? sums[0] : XXH3_64bits(sums, (size_t)n * sizeof *sums);
}
