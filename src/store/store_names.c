/* SPDX-License-Identifier: Apache-2.0
 *
 * store_names.c - finding models by name. */
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, ROOTS_MAX = 4, NEAREST = 3 };

static squish_status join(char *out, size_t n, squish_error *err, const char *a, const char *b) {
    if (snprintf(out, n, "%s/%s", a, b) < (int)n) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", a, b);
}

squish_status sq_store_home(const char *home, char *out, size_t n, squish_error *err) {
    const char *user_home = getenv("HOME");
    if (!home || !*home) home = getenv("SQUISH_HOME");
    if (home && *home) {
        if (snprintf(out, n, "%s", home) < (int)n) return SQUISH_OK;
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", home);
    }
    if (!user_home || !*user_home)
        return sq_fail(err, SQUISH_INVALID,
                       "neither SQUISH_HOME nor HOME is set (set SQUISH_HOME to a folder for models)");
    return join(out, n, err, user_home, ".squish");
}

squish_status sq_store_place(const char *home, const char *what, char *out, size_t n, squish_error *err) {
    char base[PATH_BYTES];
    SQ_TRY(sq_store_home(home, base, sizeof base, err));
    return join(out, n, err, base, what);
}

/* ---- names and keys -------------------------------------------------------------------------- */

static const char *const hubs[] = {"hf.co", "ollama.com"};
enum { PARTS_MAX = 4 }; /* HOST/SPACE/NAME and one more; so a key is a file name on every system */

static bool is_hub(const char *name, const char *behind) {
    for (size_t i = 0; i < SQ_COUNT(hubs); i++) {
        const size_t k = strlen(hubs[i]);
        if (strncmp(name, hubs[i], k) == 0 && strncmp(name + k, behind, strlen(behind)) == 0) return true;
    }
    return false;
}

bool sq_store_key(const char *name, char *out, size_t n) {
    char part[SQ_STORE_NAME_MAX + 1];
    const bool hub = is_hub(name, "/");
    size_t len = 0;
    if (strlen(name) > SQ_STORE_NAME_MAX || n == 0) return false;
    for (int parts = 0; parts < PARTS_MAX; parts++) {
        const size_t k = strcspn(name, "/");
        snprintf(part, sizeof part, "%.*s", (int)k, name);
        if (!sq_store_name_is_plain(part)) return false;
        /* what stands for a slash is in no part, nor can one make it with its last letter */
        if (hub && (strstr(part, "--") || part[k - 1] == '-')) return false;
        const int put = snprintf(out + len, n - len, "%s%s", parts == 0 ? "" : hub ? "--" : "%2F", part);
        if (put < 0 || (size_t)put >= n - len) return false;
        len += (size_t)put;
        name += k;
        if (!*name++) return true;
    }
    return false;
}

void sq_store_name_of_key(const char *key, char *out, size_t n) {
    const char *slash = is_hub(key, "--") ? "--" : "%2F";
    char again[2 * SQ_STORE_NAME_MAX];
    size_t len = 0;
    for (const char *p = key; *p && len + 1 < n; p++) {
        const bool is = strncmp(p, slash, strlen(slash)) == 0;
        out[len++] = is ? '/' : *p;
        if (is) p += strlen(slash) - 1;
    }
    if (n) out[len] = 0;
    /* a file of somebody's that only looks like one of ours keeps its name */
    if (strchr(key, '%') && n && (!sq_store_key(out, again, sizeof again) || strcmp(again, key) != 0))
        snprintf(out, n, "%s", key);
}

bool sq_store_name_is_good(const char *name) {
    char key[2 * SQ_STORE_NAME_MAX], back[2 * SQ_STORE_NAME_MAX];
    if (is_hub(name, "/") || !sq_store_key(name, key, sizeof key)) return false;
    sq_store_name_of_key(key, back, sizeof back);
    return strcmp(back, name) == 0;
}

/* Directories that hold models, first match wins: the store, then where shipped models lie. */
typedef struct {
    char path[ROOTS_MAX][PATH_BYTES];
    int n;
} roots;

/* The folder two names above the program: PREFIX of PREFIX/bin/squish, TREE of TREE/build/squish. */
static bool find_prefix(char *out, size_t n) {
    bool placed = sq_os_exe_path(out, n);
    for (int up = 0; placed && up < 2; up++) {
        char *slash = strrchr(out, '/');
        placed = slash != NULL && slash != out;
        if (placed) *slash = 0;
    }
    return placed;
}

static void find_roots(const char *home, roots *r) {
    char base[PATH_BYTES], prefix[PATH_BYTES];
    r->n = 0;
    if (sq_store_home(home, base, sizeof base, NULL) == SQUISH_OK &&
        join(r->path[r->n], PATH_BYTES, NULL, base, "models") == SQUISH_OK)
        r->n++;
    if (find_prefix(prefix, sizeof prefix)) {
        if (join(r->path[r->n], PATH_BYTES, NULL, prefix, "models") == SQUISH_OK) r->n++;
        if (join(r->path[r->n], PATH_BYTES, NULL, prefix, "share/squish/models") == SQUISH_OK) r->n++;
    }
    snprintf(r->path[r->n++], PATH_BYTES, "models");
}

/* Part of an installation, whose folders are a package's also where we may write to them. */
static bool is_installed(const char *path) {
    char prefix[PATH_BYTES], share[PATH_BYTES];
    return find_prefix(prefix, sizeof prefix) &&
           join(share, sizeof share, NULL, prefix, "share/squish/") == SQUISH_OK &&
           strncmp(path, share, strlen(share)) == 0;
}

static bool has_suffix(const char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* A model directory: a checkpoint, or tiers whose checkpoint is gone. */
static bool is_model_dir(const char *path) {
    char file[PATH_BYTES];
    static const char *const marks[] = {"config.json", ".squish_4bit_ready", ".squish_q8_ready",
                                        SQ_STORE_MANIFEST};
    for (size_t i = 0; i < SQ_COUNT(marks); i++)
        if (join(file, sizeof file, NULL, path, marks[i]) == SQUISH_OK && sq_os_exists(file)) return true;
    return false;
}

typedef struct seen {
    struct seen *next;
    const char *name;
} seen;

/* A folder whose manifest says which of its files is the model becomes that file. A damaged manifest says
 * nothing; NO_MEMORY. */
static squish_status enter(char *path, size_t n, squish_error *err) {
    sq_store_manifest m;
    const squish_status st = sq_store_manifest_read(path, &m, NULL);
    if (st == SQUISH_NO_MEMORY) return sq_fail(err, st, "%s: out of memory", path);
    if (st != SQUISH_OK) return SQUISH_OK;
    const size_t len = strlen(path);
    if (m.file) snprintf(path + len, n - len, "/%s", m.file);
    json_decref(m.root);
    return SQUISH_OK;
}

typedef struct {
    bool (*fn)(void *user, const char *name, const char *path);
    void *user;
    seen *list;
    sq_arena ar;
    bool more, no_memory;
} listing;

/* Tell of a model. The first root that has a name hides it in later ones, as it does when it is looked up. */
static void tell(listing *k, const char *name, const char *path) {
    for (const seen *s = k->list; s; s = s->next)
        if (strcmp(s->name, name) == 0) return;
    seen *one = SQ_ARENA_NEW(&k->ar, seen);
    const char *kept = sq_arena_strndup(&k->ar, name, strlen(name));
    if (!one || !kept) {
        k->no_memory = true;
        return;
    }
    *one = (seen){k->list, kept};
    k->list = one;
    k->more = k->fn(k->user, kept, path);
}

static void list_root(listing *k, const char *root) {
    char **names = NULL;
    size_t n = 0;
    const squish_status st = sq_os_is_dir(root) ? sq_os_list_dir(root, &k->ar, &names, &n, NULL) : SQUISH_OK;
    if (st == SQUISH_NO_MEMORY) k->no_memory = true;
    for (size_t i = 0; st == SQUISH_OK && k->more && !k->no_memory && i < n; i++) {
        char path[PATH_BYTES], name[2 * SQ_STORE_NAME_MAX];
        if (names[i][0] == '.' || join(path, sizeof path, NULL, root, names[i]) != SQUISH_OK) continue;
        if (has_suffix(names[i], "-compressed")) {
            /* Listed under the checkpoint's name, unless that is there as well. */
            char source[PATH_BYTES];
            snprintf(source, sizeof source, "%.*s", (int)(strlen(path) - strlen("-compressed")), path);
            if (sq_os_is_dir(source) || !is_model_dir(path)) continue;
        } else if (!is_model_dir(path) && !has_suffix(names[i], ".sqw") && !has_suffix(names[i], ".gguf")) {
            continue;
        }
        k->no_memory = enter(path, sizeof path, NULL) != SQUISH_OK;
        sq_store_name_of_key(names[i], name, sizeof name);
        if (!k->no_memory) tell(k, strlen(names[i]) < sizeof name ? name : names[i], path);
    }
}

static bool list_found(void *user, const char *name, const char *path, const char *origin) {
    (void)origin;
    listing *k = user;
    tell(k, name, path);
    return k->more && !k->no_memory;
}

squish_status sq_store_list(const char *home, bool (*fn)(void *user, const char *name, const char *path),
                            void *user, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    listing k = {.fn = fn, .user = user, .more = true};
    roots r;
    sq_arena_init(&k.ar, &a, 16 << 10, 0);
    find_roots(home, &r);
    for (int i = 0; k.more && !k.no_memory && i < r.n; i++) list_root(&k, r.path[i]);
    if (k.more && !k.no_memory)
        k.no_memory = sq_store_found_each(list_found, &k, NULL) != SQUISH_OK || k.no_memory;
    sq_arena_deinit(&k.ar);
    return k.no_memory ? sq_fail(err, SQUISH_NO_MEMORY, "the list of models: out of memory") : SQUISH_OK;
}

/* ---- unknown names --------------------------------------------------------------------------- */

typedef struct {
    const char *wanted;
    struct {
        char name[128];
        int distance;
    } best[NEAREST];
    int n;
} nearest;

static void weigh(nearest *k, const char *name) {
    const int distance = sq_edit_distance(k->wanted, name);
    for (int i = 0; i < k->n; i++)
        if (strcmp(k->best[i].name, name) == 0) return;
    int at = k->n < NEAREST ? k->n++ : NEAREST;
    while (at > 0 && k->best[at - 1].distance > distance) {
        if (at < NEAREST) k->best[at] = k->best[at - 1];
        at--;
    }
    if (at < NEAREST) {
        snprintf(k->best[at].name, sizeof k->best[at].name, "%.120s", name);
        k->best[at].distance = distance;
    }
}

static bool consider(void *user, const char *name, const char *path) {
    (void)path;
    weigh(user, name);
    return true;
}

static bool consider_made(void *user, const char *name, const char *path, const sq_store_made *made) {
    (void)path;
    (void)made;
    weigh(user, name);
    return true;
}

static squish_status not_found(const char *home, const char *name, squish_error *err) {
    nearest k = {.wanted = name};
    sq_store_list(home, consider, &k, NULL);
    sq_store_made_each(home, consider_made, &k, NULL);
    if (k.n == 0)
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "no model '%.100s' (give a folder or a .sqw file, or see: squish list)", name);
    char list[300] = "";
    for (int i = 0; i < k.n; i++) {
        const size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", k.best[i].name);
    }
    return sq_fail(err, SQUISH_NOT_FOUND,
                   "no model '%.100s' (the nearest: %s; all of them: squish list; "
                   "to fetch: squish catalog)",
                   name, list);
}

typedef struct {
    const char *name;
    char *out;
    size_t n;
    bool there;
} wanted;

static bool is_wanted(void *user, const char *name, const char *path, const char *origin) {
    (void)origin;
    wanted *w = user;
    const size_t n = sq_store_bare_length(name);
    w->there = n == sq_store_bare_length(w->name) && memcmp(name, w->name, n) == 0 &&
               snprintf(w->out, w->n, "%s", path) < (int)w->n;
    return !w->there;
}

static bool find_entry(const roots *r, const char *key, size_t len, char *out, size_t n) {
    static const char *const forms[] = {"", "-compressed", ".sqw", ".gguf"};
    for (int i = 0; i < r->n; i++)
        for (size_t j = 0; j < SQ_COUNT(forms); j++)
            if (snprintf(out, n, "%s/%.*s%s", r->path[i], (int)len, key, forms[j]) < (int)n &&
                sq_os_exists(out))
                return true;
    return false;
}

/* A name in its place, or one of its forms, with ":latest" or without; NOT_FOUND. */
static squish_status locate_plain(const char *home, const char *name, char *out, size_t n,
                                  squish_error *err) {
    roots r;
    char key[2 * SQ_STORE_NAME_MAX];
    const bool slashed = strchr(name, '/') != NULL;
    if (slashed && !sq_store_key(name, key, sizeof key)) key[0] = 0;
    if (!slashed) snprintf(key, sizeof key, "%.*s", SQ_STORE_NAME_MAX, name);
    find_roots(home, &r);
    const size_t len = strlen(key), bare = sq_store_bare_length(key);
    if (*key && *key != '.' &&
        (find_entry(&r, key, len, out, n) || (bare < len && find_entry(&r, key, bare, out, n))))
        return enter(out, n, err);
    wanted w = {name, out, n, false};
    if (*name != '.' && *name != '/') SQ_TRY(sq_store_found_each(is_wanted, &w, err));
    if (w.there) return SQUISH_OK;
    if (slashed) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", name);
    return not_found(home, name, err);
}

squish_status sq_store_locate(const char *home, const char *name, char *out, size_t n, squish_error *err) {
    if (!name || !*name) name = SQ_SHIPPED_MODEL;
    if (sq_os_exists(name)) {
        if (snprintf(out, n, "%s", name) < (int)n) return SQUISH_OK;
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", name);
    }
    sq_store_made made;
    const squish_status st = sq_store_made_read(home, name, &made, err);
    if (st == SQUISH_OK) {
        const squish_status found = locate_plain(home, made.from, out, n, err);
        json_decref(made.root);
        return found;
    }
    if (st != SQUISH_NOT_FOUND) return st;
    if (err) *err = (squish_error){0};
    return locate_plain(home, name, out, n, err);
}

squish_status sq_store_compressed_dir(const char *src, const char *out_dir, const char *home, char *out,
                                      size_t n, squish_error *err) {
    char whole[PATH_BYTES];
    size_t len = strlen(src);
    while (len > 1 && src[len - 1] == '/') len--;
    if (src[len - 1] == '.' && realpath(src, whole)) { /* "." and ".." have no name to add to */
        src = whole;
        len = strlen(src);
    }
    if (out_dir) {
        if (snprintf(out, n, "%s", out_dir) < (int)n) return SQUISH_OK;
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", out_dir);
    }
    static const char suffix[] = "-compressed";
    char key[PATH_BYTES], tiers[PATH_BYTES];
    if (sq_store_found_key(src, key, sizeof key)) { /* nothing is written where others keep their models */
        SQ_TRY(sq_store_place(home, "tiers", tiers, sizeof tiers, err));
        if (snprintf(out, n, "%s/%s-compressed", tiers, key) < (int)n) return SQUISH_OK;
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", tiers);
    }
    if (len >= sizeof suffix - 1 && memcmp(src + len - (sizeof suffix - 1), suffix, sizeof suffix - 1) == 0) {
        if (snprintf(out, n, "%.*s", (int)len, src) < (int)n) return SQUISH_OK;
    } else if (snprintf(out, n, "%.*s-compressed", (int)len, src) < (int)n) {
        if ((!is_installed(src) && sq_os_writable_dir(out)) || sq_os_is_dir(out)) return SQUISH_OK;
    }
    const char *base = src + len;
    while (base > src && base[-1] != '/') base--;
    char store[PATH_BYTES];
    SQ_TRY(sq_store_home(home, store, sizeof store, err));
    if (snprintf(out, n, "%s/models/%.*s-compressed", store, (int)(src + len - base), base) >= (int)n)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", store);
    if (sq_os_writable_dir(out)) return SQUISH_OK;
    return sq_fail(err, SQUISH_IO,
                   "neither %s-compressed nor %s can be written (set SQUISH_HOME or give -o DIR)", src, out);
}

uint64_t sq_store_dir_bytes(const char *dir) {
    squish_alloc a = sq_alloc_default();
    sq_arena ar;
    sq_arena_init(&ar, &a, 16 << 10, 0);
    char **names = NULL;
    size_t n = 0;
    uint64_t total = 0;
    if (sq_os_list_dir(dir, &ar, &names, &n, NULL) == SQUISH_OK)
        for (size_t i = 0; i < n; i++) {
            char path[PATH_BYTES];
            if (join(path, sizeof path, NULL, dir, names[i]) == SQUISH_OK && !sq_os_is_dir(path))
                total += sq_os_file_bytes(path);
        }
    sq_arena_deinit(&ar);
    return total;
}
