/* SPDX-License-Identifier: Apache-2.0
 *
 * fmt_st_index.c - a checkpoint: which safetensors files belong to it, all their tensors under one roof.
 *
 * Precedence in a directory: model.safetensors.index.json with its shards, else model.safetensors, else all
 * *.safetensors (whose names must not clash). What people have instead of safetensors (pickled .bin and .pt
 * files, half a download, git-lfs pointers) is recognised and named together with the way out. Nothing here
 * is ever executed. */
#include "format/format.h"

#include "format/fmt_int.h"
#include "format/json.h"
#include "format/limits.h"

#include <stdio.h>
#include <string.h>

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

enum { PATH_BYTES = 4096 };

struct sq_safetensors {
    squish_alloc alloc;
    sq_arena arena;
    sq_map *maps;
    size_t n_maps, n_files;
    sq_ftensor *tensors; /* sorted by name */
    size_t n;
    uint64_t bytes;
};

/* What opening carries around. */
typedef struct {
    sq_safetensors *s;
    const char *dir;       /* "" for a single file */
    const char **files;    /* base names, unique */
    sq_ftensor **per_file; /* tensors of each file */
    size_t *n_per_file;
    squish_warn_fn warn;
    void *warn_user;
    squish_error *err;
} opener;

static bool ends_with(const char *s, const char *suffix) {
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

static bool is_pickle(const char *name) {
    return ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth") ||
           ends_with(name, ".ckpt");
}

static squish_status join(const char *dir, const char *name, char out[PATH_BYTES], squish_error *err) {
    int n = snprintf(out, PATH_BYTES, "%s%s%s", dir, *dir ? "/" : "", name);
    if (n < 0 || n >= PATH_BYTES) {
        return sq_fail(err, SQUISH_INVALID, "'%s': a path of more than %d bytes", dir, PATH_BYTES - 1);
    }
    return SQUISH_OK;
}

static squish_status no_memory(opener *o) {
    return sq_fail(o->err, SQUISH_NO_MEMORY, "'%s': no memory for the list of its tensors", o->dir);
}

/* ---- files ----------------------------------------------------------------------------------- */

/* Map and parse file i. */
static squish_status open_file(opener *o, size_t i) {
    sq_safetensors *s = o->s;
    char path[PATH_BYTES];
    SQ_TRY(join(o->dir, o->files[i], path, o->err));
    if (*o->dir && !sq_os_exists(path)) {
        char partial[PATH_BYTES];
        bool half =
            snprintf(partial, sizeof partial, "%s.incomplete", path) < PATH_BYTES && sq_os_exists(partial);
        sq_shown shown;
        const char *name = sq_fmt_show(&shown, o->files[i], strlen(o->files[i]));
        return sq_fail(o->err, SQUISH_NOT_FOUND, "'%s': shard '%s' is missing%s; fetch the model again",
                       o->dir, name, half ? ", its download stopped half way" : "");
    }
    SQ_TRY(sq_os_map_open(&s->maps[i], path, o->err));
    s->n_maps = i + 1;
    s->bytes += s->maps[i].bytes;
    sq_span span = {s->maps[i].data, s->maps[i].bytes};
    const char *slash = strrchr(o->files[i], '/');
    const char *base = slash ? slash + 1 : o->files[i];
    SQ_TRY(sq_st_parse(span, base, &s->arena, &o->per_file[i], &o->n_per_file[i], o->err));
    if (o->n_per_file[i] > SQ_MAX_TENSORS - s->n) {
        return sq_fail(o->err, SQUISH_CORRUPT, "'%s': more than %d tensors", o->dir, SQ_MAX_TENSORS);
    }
    s->n += o->n_per_file[i];
    return SQUISH_OK;
}

static squish_status open_files(opener *o, size_t n_files) {
    sq_safetensors *s = o->s;
    s->maps = sq_alloc_zero(&s->alloc, n_files * sizeof *s->maps);
    o->per_file = SQ_ARENA_ARRAY(&s->arena, sq_ftensor *, n_files);
    o->n_per_file = SQ_ARENA_ARRAY(&s->arena, size_t, n_files);
    s->n_files = s->maps ? n_files : 0;
    if (!s->maps || !o->per_file || !o->n_per_file) return no_memory(o);
    for (size_t i = 0; i < n_files; i++) SQ_TRY(open_file(o, i));
    return SQUISH_OK;
}

static bool name_less(const void *ctx, uint32_t a, uint32_t b) {
    const sq_ftensor *t = ctx;
    return strcmp(t[a].name, t[b].name) < 0;
}

/* All tensors of all files, sorted by name; a name in two files is an error. */
static squish_status merge(opener *o) {
    sq_safetensors *s = o->s;
    sq_ftensor *all = SQ_ARENA_ARRAY(&s->arena, sq_ftensor, s->n);
    uint32_t *order = SQ_ARENA_ARRAY(&s->arena, uint32_t, s->n);
    s->tensors = SQ_ARENA_ARRAY(&s->arena, sq_ftensor, s->n);
    if (s->n && (!all || !order || !s->tensors)) return no_memory(o);
    size_t at = 0;
    for (size_t f = 0; f < s->n_maps; f++) {
        for (size_t i = 0; i < o->n_per_file[f]; i++) all[at++] = o->per_file[f][i];
    }
    for (size_t i = 0; i < s->n; i++) order[i] = (uint32_t)i;
    sq_fmt_sort(order, s->n, name_less, all);
    for (size_t i = 0; i < s->n; i++) {
        s->tensors[i] = all[order[i]];
        if (i > 0 && strcmp(s->tensors[i].name, s->tensors[i - 1].name) == 0) {
            sq_shown shown;
            return sq_fail(o->err, SQUISH_CORRUPT, "tensor '%s' stands in two files, %s and %s",
                           sq_fmt_show(&shown, s->tensors[i].name, strlen(s->tensors[i].name)),
                           s->tensors[i - 1].file, s->tensors[i].file);
        }
    }
    return SQUISH_OK;
}

/* ---- index ----------------------------------------------------------------------------------- */

/* A shard is a plain file name in the same directory: nothing that leads elsewhere. */
static squish_status check_shard_name(const char *tensor, const json_t *v, squish_error *err) {
    sq_shown a, b;
    sq_fmt_show(&a, tensor, strlen(tensor));
    if (!json_is_string(v)) {
        return sq_fail(err, SQUISH_CORRUPT,
                       INDEX_NAME ": 'weight_map' entry '%s' is no string, wanted a file name", a.text);
    }
    const char *name = json_string_value(v);
    sq_fmt_show(&b, name, json_string_length(v));
    if (strchr(name, '/') || strchr(name, '\\') || strstr(name, "..") || name[0] == '.' || name[0] == 0 ||
        strlen(name) > SQ_MAX_NAME) {
        return sq_fail(err, SQUISH_CORRUPT,
                       INDEX_NAME
                       ": 'weight_map' entry '%s' is '%s', wanted a plain file name of at most %d bytes",
                       a.text, b.text, SQ_MAX_NAME);
    }
    if (!ends_with(name, ".safetensors")) {
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       INDEX_NAME ": 'weight_map' entry '%s' is '%s', wanted *.safetensors", a.text, b.text);
    }
    return SQUISH_OK;
}

/* Distinct shard names in order of first use; the JSON object `seen` maps each to its number. */
static squish_status list_shards(opener *o, json_t *map, json_t *seen, size_t *n_files) {
    const char *tensor;
    json_t *v;
    *n_files = 0;
    json_object_foreach(map, tensor, v) {
        SQ_TRY(check_shard_name(tensor, v, o->err));
        if (json_object_get(seen, json_string_value(v))) continue;
        if (json_object_size(seen) >= SQ_MAX_SHARDS) {
            return sq_fail(o->err, SQUISH_CORRUPT, INDEX_NAME ": more than %d shards", SQ_MAX_SHARDS);
        }
        if (json_object_set_new(seen, json_string_value(v), json_integer((json_int_t)*n_files)))
            return no_memory(o);
        ++*n_files;
    }
    if (*n_files == 0) return sq_fail(o->err, SQUISH_CORRUPT, INDEX_NAME ": 'weight_map' is empty");
    o->files = SQ_ARENA_ARRAY(&o->s->arena, const char *, *n_files);
    if (!o->files) return no_memory(o);
    json_object_foreach(seen, tensor, v) {
        char *copy = sq_arena_strndup(&o->s->arena, tensor, strlen(tensor));
        if (!copy) return no_memory(o);
        o->files[json_integer_value(v)] = copy;
    }
    return SQUISH_OK;
}

/* What the index promises is there, in the shard it names. Tensors it does not know are kept, with one
 * warning. */
static squish_status compare_with_index(opener *o, json_t *map) {
    const char *tensor;
    json_t *v;
    sq_shown a, b;
    json_object_foreach(map, tensor, v) {
        const sq_ftensor *t = sq_st_find(o->s, tensor);
        if (!t || strcmp(t->file, json_string_value(v)) != 0) {
            return sq_fail(o->err, SQUISH_CORRUPT, INDEX_NAME ": tensor '%s' should be in '%s', it is in %s",
                           sq_fmt_show(&a, tensor, strlen(tensor)),
                           sq_fmt_show(&b, json_string_value(v), json_string_length(v)),
                           t ? t->file : "no shard");
        }
    }
    size_t extra = o->s->n - json_object_size(map);
    for (size_t i = 0; extra && i < o->s->n; i++) {
        if (json_object_get(map, o->s->tensors[i].name)) continue;
        char line[2 * SQ_SHOW_BYTES + 96];
        snprintf(line, sizeof line, "%zu tensors are not in " INDEX_NAME ", the first is '%s' in %s", extra,
                 sq_fmt_show(&a, o->s->tensors[i].name, strlen(o->s->tensors[i].name)),
                 sq_fmt_show(&b, o->s->tensors[i].file, strlen(o->s->tensors[i].file)));
        if (o->warn) o->warn(o->warn_user, line);
        break;
    }
    return SQUISH_OK;
}

static squish_status open_by_index(opener *o, const char *index_path) {
    squish_status st;
    json_t *root = NULL, *seen = NULL;
    sq_arena text;
    sq_arena_init(&text, &o->s->alloc, 65536, 0);
    sq_span json;
    size_t n_files;
    SQ_GUARD(sq_os_read_file(index_path, SQ_MAX_JSON, &text, &json, o->err));
    SQ_GUARD(sq_json_parse((const char *)json.p, json.n, SQ_JSON_DEPTH, INDEX_NAME, &root, o->err));
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        st = sq_fail(o->err, SQUISH_CORRUPT, INDEX_NAME ": 'weight_map' is %s, wanted an object",
                     map ? "something else" : "missing");
        goto fail;
    }
    seen = json_object();
    if (!seen) {
        st = no_memory(o);
        goto fail;
    }
    SQ_GUARD(list_shards(o, map, seen, &n_files));
    SQ_GUARD(open_files(o, n_files));
    SQ_GUARD(merge(o));
    SQ_GUARD(compare_with_index(o, map));
fail:
    json_decref(seen);
    json_decref(root);
    sq_arena_deinit(&text);
    return st;
}

/* ---- directories and single files ------------------------------------------------------------ */

/* There is no safetensors file here: say what there is instead. */
static squish_status nothing_here(opener *o, char **names, size_t n) {
    const char *pickle = NULL, *gguf = NULL, *half = NULL;
    for (size_t i = 0; i < n; i++) {
        if (is_pickle(names[i])) pickle = pickle ? pickle : names[i];
        if (ends_with(names[i], ".gguf")) gguf = gguf ? gguf : names[i];
        if (ends_with(names[i], ".incomplete")) half = half ? half : names[i];
    }
    sq_shown shown;
    if (half) {
        return sq_fail(o->err, SQUISH_NOT_FOUND, "'%s': '%s' is half a download; fetch the model again",
                       o->dir, sq_fmt_show(&shown, half, strlen(half)));
    }
    if (gguf) {
        sq_fmt_show(&shown, gguf, strlen(gguf));
        return sq_fail(o->err, SQUISH_NOT_FOUND,
                       "'%s' holds no safetensors but a GGUF file; give its path: %s/%s", o->dir, o->dir,
                       shown.text);
    }
    if (pickle) {
        return sq_fail(
            o->err, SQUISH_NOT_FOUND,
            "'%s' holds only pickled PyTorch weights ('%s'), which can run code and are never read; get the "
            "model's safetensors files or convert it with transformers: "
            "model.save_pretrained(dir, safe_serialization=True)",
            o->dir, sq_fmt_show(&shown, pickle, strlen(pickle)));
    }
    return sq_fail(o->err, SQUISH_NOT_FOUND, "'%s' holds no *.safetensors file", o->dir);
}

static squish_status open_listed(opener *o) {
    char **names;
    size_t n, n_files = 0;
    SQ_TRY(sq_os_list_dir(o->dir, &o->s->arena, &names, &n, o->err));
    o->files = SQ_ARENA_ARRAY(&o->s->arena, const char *, n);
    if (n && !o->files) return no_memory(o);
    for (size_t i = 0; i < n; i++) {
        if (ends_with(names[i], ".safetensors")) o->files[n_files++] = names[i];
    }
    if (n_files == 0) return nothing_here(o, names, n);
    if (n_files > SQ_MAX_SHARDS) {
        return sq_fail(o->err, SQUISH_CORRUPT, "'%s': %zu *.safetensors files, at most %d are read", o->dir,
                       n_files, SQ_MAX_SHARDS);
    }
    SQ_TRY(open_files(o, n_files));
    return merge(o);
}

static squish_status open_single(opener *o, const char *name) {
    o->files = SQ_ARENA_ARRAY(&o->s->arena, const char *, 1);
    if (!o->files) return no_memory(o);
    o->files[0] = name;
    SQ_TRY(open_files(o, 1));
    return merge(o);
}

static squish_status open_any(opener *o, const char *path) {
    if (!sq_os_is_dir(path)) {
        if (is_pickle(path)) {
            return sq_fail(
                o->err, SQUISH_NOT_FOUND,
                "'%s' is a pickled PyTorch file, which can run code and is never read; get the model's "
                "safetensors files or convert it with transformers: "
                "model.save_pretrained(dir, safe_serialization=True)",
                path);
        }
        o->dir = "";
        return open_single(o, path);
    }
    o->dir = path;
    char file[PATH_BYTES];
    SQ_TRY(join(path, INDEX_NAME, file, o->err));
    if (sq_os_exists(file)) return open_by_index(o, file);
    SQ_TRY(join(path, SINGLE_NAME, file, o->err));
    if (sq_os_exists(file)) return open_single(o, SINGLE_NAME);
    return open_listed(o);
}

squish_status sq_st_open(sq_safetensors **out, const char *path, const squish_alloc *a, squish_warn_fn warn,
                         void *warn_user, squish_error *err) {
    *out = NULL;
    squish_alloc alloc = a ? *a : sq_alloc_default();
    sq_safetensors *s = sq_alloc_zero(&alloc, sizeof *s);
    if (!s) return sq_fail(err, SQUISH_NO_MEMORY, "'%s': no memory", path);
    s->alloc = alloc;
    sq_arena_init(&s->arena, &alloc, 65536, 0);
    opener o = {.s = s, .dir = path, .warn = warn, .warn_user = warn_user, .err = err};
    squish_status st = open_any(&o, path);
    if (st != SQUISH_OK) {
        sq_st_close(s);
        return st;
    }
    *out = s;
    return SQUISH_OK;
}

void sq_st_close(sq_safetensors *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_maps; i++) sq_os_map_close(&s->maps[i]);
    squish_alloc alloc = s->alloc;
    sq_alloc_free(&alloc, s->maps, s->n_files * sizeof *s->maps);
    sq_arena_deinit(&s->arena);
    sq_alloc_free(&alloc, s, sizeof *s);
}

size_t sq_st_count(const sq_safetensors *s) {
    return s->n;
}

const sq_ftensor *sq_st_at(const sq_safetensors *s, size_t i) {
    return i < s->n ? &s->tensors[i] : NULL;
}

const sq_ftensor *sq_st_find(const sq_safetensors *s, const char *name) {
    for (size_t lo = 0, hi = s->n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        int d = strcmp(name, s->tensors[mid].name);
        if (d == 0) return &s->tensors[mid];
        if (d < 0) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return NULL;
}

uint64_t sq_st_bytes(const sq_safetensors *s) {
    return s->bytes;
}
