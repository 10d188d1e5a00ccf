/* SPDX-License-Identifier: Apache-2.0
 *
 * store_found.c - models that other programs brought to this machine. They are read where they lie and never
 * changed; their tiers go to $SQUISH_HOME/tiers.
 *
 *   Hugging Face  $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub
 *                 models--USER--REPO/refs/main -> snapshots/REVISION/ (links into blobs/)
 *   Ollama        $OLLAMA_MODELS, ~/.ollama/models, /usr/share/ollama/.ollama/models
 *                 manifests/registry.ollama.ai/library/NAME/TAG -> blobs/sha256-HEX, a GGUF file
 *   LM Studio     ~/.lmstudio/models, ~/.cache/lm-studio/models
 *                 PUBLISHER/REPO/ with config.json or FILE.gguf */
#include "format/json.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, PLACES_MAX = 8, REF_BYTES = 4096, MANIFEST_BYTES = 1 << 20 };

typedef struct {
    char path[PATH_BYTES];
    const char *origin;
} place;

typedef struct {
    sq_store_found_fn fn;
    void *user;
    sq_arena ar;
    bool more, no_memory;
} walk;

static void add_place(place *all, int *n, const char *origin, const char *base, const char *rest) {
    if (!base || !*base || *n == PLACES_MAX) return;
    if (snprintf(all[*n].path, PATH_BYTES, "%s%s", base, rest) >= PATH_BYTES || !sq_os_is_dir(all[*n].path))
        return;
    all[(*n)++].origin = origin;
}

static int find_places(place *all) {
    int n = 0;
    const char *home = getenv("HOME"), *hub = getenv("HF_HUB_CACHE"), *hf = getenv("HF_HOME");
    if (hub && *hub)
        add_place(all, &n, "hf", hub, "");
    else if (hf && *hf)
        add_place(all, &n, "hf", hf, "/hub");
    else
        add_place(all, &n, "hf", home, "/.cache/huggingface/hub");
    const char *ollama = getenv("OLLAMA_MODELS");
    if (ollama && *ollama)
        add_place(all, &n, "ollama", ollama, "");
    else
        add_place(all, &n, "ollama", home, "/.ollama/models");
    add_place(all, &n, "ollama", "/usr/share/ollama", "/.ollama/models");
    add_place(all, &n, "lmstudio", home, "/.lmstudio/models");
    add_place(all, &n, "lmstudio", home, "/.cache/lm-studio/models");
    return n;
}

static bool path_of(char out[PATH_BYTES], const char *a, const char *b) {
    return snprintf(out, PATH_BYTES, "%s/%s", a, b) < PATH_BYTES;
}

static size_t list(walk *w, const char *dir, char ***names) {
    size_t n = 0;
    *names = NULL;
    const squish_status st = sq_os_is_dir(dir) ? sq_os_list_dir(dir, &w->ar, names, &n, NULL) : SQUISH_OK;
    if (st == SQUISH_NO_MEMORY) w->no_memory = true, w->more = false;
    return st == SQUISH_OK ? n : 0;
}

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

static void tell(walk *w, const char *name, const char *path, const char *origin) {
    if (w->more && strlen(name) <= SQ_STORE_NAME_MAX) w->more = w->fn(w->user, name, path, origin);
}

/* One folder that may be a checkpoint and may hold GGUF files. Parts of a split file but its first, and
 * projectors of pictures, are no models. */
static void look_into(walk *w, const char *dir, const char *name, const char *origin) {
    char path[PATH_BYTES], full[2 * PATH_BYTES], **names;
    const size_t n = list(w, dir, &names);
    bool weights = false;
    for (size_t i = 0; i < n; i++) weights = weights || ends_with(names[i], ".safetensors");
    if (weights && path_of(path, dir, "config.json") && sq_os_exists(path)) tell(w, name, dir, origin);
    for (size_t i = 0; i < n && w->more; i++) {
        const char *part = strstr(names[i], "-of-");
        if (!ends_with(names[i], ".gguf") || strstr(names[i], "mmproj") || !path_of(path, dir, names[i]))
            continue;
        if (part && part - names[i] >= 6 && strncmp(part - 6, "-00001", 6) != 0) continue;
        snprintf(full, sizeof full, "%s/%s", name, names[i]);
        tell(w, full, path, origin);
    }
}

/* ---- Hugging Face ---------------------------------------------------------------------------- */

/* The snapshot of main; where there is no such branch, the only one. */
static bool snapshot(walk *w, const char *repo, char out[PATH_BYTES]) {
    char path[PATH_BYTES], **names;
    sq_span ref;
    squish_status st = SQUISH_NOT_FOUND;
    if (path_of(path, repo, "refs/main")) st = sq_os_read_file(path, REF_BYTES, &w->ar, &ref, NULL);
    if (st == SQUISH_NO_MEMORY) w->no_memory = true, w->more = false;
    if (st == SQUISH_OK) {
        const char *text = (const char *)ref.p;
        const size_t n = strspn(text, "0123456789abcdef");
        if (n > 0 && (text[n] == 0 || text[n] == '\n'))
            return snprintf(out, PATH_BYTES, "%s/snapshots/%.*s", repo, (int)n, text) < PATH_BYTES &&
                   sq_os_is_dir(out);
    }
    if (!path_of(path, repo, "snapshots") || list(w, path, &names) != 1) return false;
    return path_of(out, path, names[0]);
}

static void walk_hf(walk *w, const char *root) {
    char repo[PATH_BYTES], dir[PATH_BYTES], name[PATH_BYTES], **names;
    const size_t n = list(w, root, &names);
    for (size_t i = 0; i < n && w->more; i++) {
        const char *from = names[i] + 8,
                   *cut = strncmp(names[i], "models--", 8) == 0 ? strstr(from, "--") : NULL;
        if (!cut || strstr(cut + 2, "--") || !path_of(repo, root, names[i]) || !snapshot(w, repo, dir))
            continue;
        snprintf(name, sizeof name, "%.*s/%s", (int)(cut - from), from, cut + 2);
        look_into(w, dir, name, "hf");
    }
}

/* ---- Ollama ---------------------------------------------------------------------------------- */

bool sq_store_model_layer(const char *text, size_t n, char digest[72], uint64_t *bytes) {
    json_t *root = NULL, *layer;
    size_t i;
    bool found = false;
    if (sq_json_parse(text, n, SQ_JSON_DEPTH, "manifest", &root, NULL) != SQUISH_OK) return false;
    json_array_foreach(json_object_get(root, "layers"), i, layer) {
        const char *type = json_string_value(json_object_get(layer, "mediaType"));
        const char *sum = json_string_value(json_object_get(layer, "digest"));
        const json_int_t size = json_integer_value(json_object_get(layer, "size"));
        if (found || !type || !sum || size <= 0 || strcmp(type, "application/vnd.ollama.image.model") != 0)
            continue;
        if (strlen(sum) != 71 || strncmp(sum, "sha256:", 7) != 0 || strspn(sum + 7, "0123456789abcdef") != 64)
            continue;
        snprintf(digest, 72, "%s", sum);
        *bytes = (uint64_t)size;
        found = true;
    }
    json_decref(root);
    return found;
}

static void look_at_tag(walk *w, const char *root, const char *file, const char *name) {
    char digest[72], path[PATH_BYTES];
    uint64_t bytes = 0;
    sq_span text;
    const squish_status st = sq_os_read_file(file, MANIFEST_BYTES, &w->ar, &text, NULL);
    if (st == SQUISH_NO_MEMORY) w->no_memory = true, w->more = false;
    if (st != SQUISH_OK || !sq_store_model_layer((const char *)text.p, text.n, digest, &bytes)) return;
    if (snprintf(path, sizeof path, "%s/blobs/sha256-%s", root, digest + 7) < (int)sizeof path &&
        sq_os_file_bytes(path) == bytes)
        tell(w, name, path, "ollama");
}

/* manifests/HOST/SPACE/NAME/TAG, three levels of names in front of the tag. */
static void walk_tags(walk *w, const char *root, const char *dir, const char *name, int level) {
    char path[PATH_BYTES], full[PATH_BYTES], **names;
    const size_t n = list(w, dir, &names);
    for (size_t i = 0; i < n && w->more; i++) {
        if (names[i][0] == '.' || !path_of(path, dir, names[i])) continue;
        const bool silent = (level == 0 && strcmp(names[i], "registry.ollama.ai") == 0) ||
                            (level == 1 && !*name && strcmp(names[i], "library") == 0);
        if (snprintf(full, sizeof full, "%s%s%s", name,
                     !*name || silent ? ""
                     : level == 3     ? ":"
                                      : "/",
                     silent ? "" : names[i]) >= (int)sizeof full)
            continue;
        if (level < 3)
            walk_tags(w, root, path, full, level + 1);
        else
            look_at_tag(w, root, path, full);
    }
}

static void walk_ollama(walk *w, const char *root) {
    char path[PATH_BYTES];
    if (path_of(path, root, "manifests")) walk_tags(w, root, path, "", 0);
}

/* ---- LM Studio ------------------------------------------------------------------------------- */

static void walk_lmstudio(walk *w, const char *root) {
    char path[PATH_BYTES], dir[PATH_BYTES], name[PATH_BYTES], **publishers, **repos;
    const size_t n = list(w, root, &publishers);
    for (size_t i = 0; i < n && w->more; i++) {
        if (publishers[i][0] == '.' || !path_of(path, root, publishers[i])) continue;
        const size_t m = list(w, path, &repos);
        for (size_t j = 0; j < m && w->more; j++) {
            if (repos[j][0] == '.' || !path_of(dir, path, repos[j])) continue;
            if (snprintf(name, sizeof name, "%s/%s", publishers[i], repos[j]) < (int)sizeof name)
                look_into(w, dir, name, "lmstudio");
        }
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

squish_status sq_store_found_each(sq_store_found_fn fn, void *user, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    walk w = {.fn = fn, .user = user, .more = true};
    place all[PLACES_MAX];
    sq_arena_init(&w.ar, &a, 64 << 10, 0);
    const int n = find_places(all);
    for (int i = 0; i < n && w.more; i++) {
        if (strcmp(all[i].origin, "hf") == 0)
            walk_hf(&w, all[i].path);
        else if (strcmp(all[i].origin, "ollama") == 0)
            walk_ollama(&w, all[i].path);
        else
            walk_lmstudio(&w, all[i].path);
    }
    sq_arena_deinit(&w.ar);
    return w.no_memory ? sq_fail(err, SQUISH_NO_MEMORY, "models of other programs: out of memory")
                       : SQUISH_OK;
}

bool sq_store_found_key(const char *path, char *key, size_t n) {
    place all[PLACES_MAX];
    const int n_places = find_places(all);
    bool found = false;
    for (int i = 0; i < n_places && !found; i++) {
        const size_t len = strlen(all[i].path);
        if (strncmp(path, all[i].path, len) != 0 || path[len] != '/' || !path[len + 1]) continue;
        size_t k = (size_t)snprintf(key, n, "%s", all[i].origin);
        for (const char *p = path + len; *p && k + 3 < n; p++) {
            if (*p != '/')
                key[k++] = *p;
            else if (p[1])
                key[k++] = '-', key[k++] = '-';
        }
        key[k < n ? k : n - 1] = 0;
        found = true;
    }
    return found;
}
