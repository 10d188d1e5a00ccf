/* SPDX-License-Identifier: Apache-2.0
 *
 * eval_fetch.c - the public task files: where they lie, what they must be, and the few parts of archives that
 * are kept. An archive is opened only after its sum was right. */
#include "eval/eval_int.h"
#include "fetch/fetch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef SQ_HAVE_ZIP
#include <dlfcn.h>
#include <zip.h>
#endif

enum { PATH_BYTES = 4096, PIECE = 1 << 16 };

/* Sizes and sums are those that the loaders of these data sets have pinned for years. */
static const eval_source sources[] = {
    {"https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
     "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
     12246618,
     {{NULL, "hellaswag/validation.jsonl"}}},
    {"https://storage.googleapis.com/ai2-mosaic/public/physicaliqa/physicaliqa-train-dev.zip",
     "54d32a04f59a7e354396f321723c8d7ec35cc6b08506563d8d1ffcc15ce98ddd",
     1824009,
     {{"physicaliqa-train-dev/dev-labels.lst", "piqa/validation-labels.lst"},
      {"physicaliqa-train-dev/dev.jsonl", "piqa/validation.jsonl"}}},
    {"https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
     "3619ab104d8be2977b25c90ff420cb42d491707dcc75362a1e5d22bc082b7318",
     3395492,
     {{"winogrande_1.1/dev.jsonl", "winogrande/validation.jsonl"}}},
    /* nearly all of it is a collection of texts that no task reads */
    {"https://s3-us-west-2.amazonaws.com/ai2-website/data/ARC-V1-Feb2018.zip",
     "6d2d5ab50b2ceec6ba5f79c921be77cf2de712ea25a2b3f4fff3acc101cecfa0",
     680841265,
     {{"ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl", "arc_easy/test.jsonl"},
      {"ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl", "arc_challenge/test.jsonl"}}},
};

size_t eval_sources(const eval_source **out) {
    *out = sources;
    return SQ_COUNT(sources);
}

static squish_status place_of(const char *dir, const char *name, char out[PATH_BYTES], squish_error *err) {
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, name) < PATH_BYTES) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%.200s: path too long", dir);
}

static squish_status make_folder_of(const char *path, squish_error *err) {
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (!slash) return SQUISH_OK;
    *slash = 0;
    return sq_os_mkdirs(folder, err);
}

bool eval_source_has(const eval_source *s, const eval_task *t) {
    for (size_t i = 0; i < EVAL_PARTS && s->parts[i].place; i++)
        if (strcmp(s->parts[i].place, t->places[0]) == 0) return true;
    return false;
}

/* ---- archives -------------------------------------------------------------------------------- */

#ifdef SQ_HAVE_ZIP

/* libzip is opened when an archive has come, as libcurl is when something is asked for. */
#define ZIP_CALLS(X)                                                                                         \
    X(open)                                                                                                  \
    X(discard)                                                                                               \
    X(fopen)                                                                                                 \
    X(fread)                                                                                                 \
    X(fclose)
#define MEMBER(name) __typeof__(&zip_##name) name;
#define LOOK_UP(name) ok = ok && (*(void **)&z->name = dlsym(library, "zip_" #name));
typedef struct {
    ZIP_CALLS(MEMBER)
} libzip;

static bool libzip_open(libzip *z) {
    void *library = dlopen("libzip.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library) library = dlopen("libzip.so.5", RTLD_NOW | RTLD_LOCAL);
    bool ok = library != NULL;
    ZIP_CALLS(LOOK_UP)
    return ok;
}

static squish_status take_part(const libzip *z, zip_t *archive, const char *name, const char *path,
                               squish_error *err) {
    static const char broken[] = "%.200s: cannot be read out of its archive";
    sq_newfile f;
    uint64_t at = 0;
    char piece[PIECE];
    zip_file_t *part = z->fopen(archive, name, 0);
    if (!part) return sq_fail(err, SQUISH_CORRUPT, broken, name);
    squish_status st = make_folder_of(path, err);
    if (st == SQUISH_OK) st = sq_os_newfile_open(&f, path, 0, err);
    if (st != SQUISH_OK) {
        z->fclose(part);
        return st;
    }
    for (zip_int64_t n = 1; st == SQUISH_OK && n > 0;) {
        n = z->fread(part, piece, sizeof piece);
        if (n < 0 || at + (uint64_t)n > EVAL_FILE_MAX)
            st = sq_fail(err, SQUISH_CORRUPT, broken, name);
        else if (n > 0)
            st = sq_os_newfile_write_at(&f, at, piece, (size_t)n, err);
        at += (uint64_t)n;
    }
    z->fclose(part);
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
    sq_os_newfile_abandon(&f);
    return st;
}

static squish_status take_parts(const eval_source *s, const char *archive, const char *dir,
                                squish_error *err) {
    libzip z;
    int why = 0;
    char path[PATH_BYTES];
    if (!libzip_open(&z))
        return sq_fail(err, SQUISH_UNSUPPORTED, "%.200s is an archive, and libzip is not on this machine",
                       archive);
    zip_t *opened = z.open(archive, ZIP_RDONLY, &why);
    if (!opened) return sq_fail(err, SQUISH_CORRUPT, "%.200s: no archive (libzip's error %d)", archive, why);
    squish_status st = SQUISH_OK;
    for (size_t i = 0; st == SQUISH_OK && i < EVAL_PARTS && s->parts[i].place; i++) {
        st = place_of(dir, s->parts[i].place, path, err);
        if (st == SQUISH_OK) st = take_part(&z, opened, s->parts[i].name, path, err);
    }
    z.discard(opened);
    return st;
}

static bool can_open(squish_error *err) {
    libzip z;
    if (libzip_open(&z)) return true;
    sq_fail(err, SQUISH_UNSUPPORTED,
            "these task files come in archives, and libzip is not on this machine (Debian: libzip4)");
    return false;
}

#else

static squish_status take_parts(const eval_source *s, const char *archive, const char *dir,
                                squish_error *err) {
    (void)s;
    (void)dir;
    return sq_fail(err, SQUISH_UNSUPPORTED, "%.200s is an archive, and this squish was built without libzip",
                   archive);
}
static bool can_open(squish_error *err) {
    sq_fail(err, SQUISH_UNSUPPORTED,
            "these task files come in archives, and this squish was built without libzip");
    return false;
}

#endif

/* ---- fetching -------------------------------------------------------------------------------- */

typedef struct {
    const eval_source *s;
    squish_progress_fn progress;
    void *user;
} watching;

/* What is fetched has a known size, also where a server does not say it. */
static bool with_total(void *user, const char *what, uint64_t done, uint64_t total) {
    (void)total;
    const watching *w = user;
    return !w->progress || w->progress(w->user, what, done, w->s->bytes);
}

squish_status eval_fetch(const eval_source *s, const char *dir, squish_progress_fn progress, void *user,
                         squish_error *err) {
    char path[PATH_BYTES], archive[64];
    watching w = {s, progress, user};
    const bool packed = s->parts[0].name != NULL;
    if (packed && !can_open(err)) return SQUISH_UNSUPPORTED;
    snprintf(archive, sizeof archive, "%.12s.zip", s->sha256);
    SQ_TRY(place_of(dir, packed ? archive : s->parts[0].place, path, err));
    SQ_TRY(make_folder_of(path, err));
    if (sq_os_disk_free(dir) < s->bytes + s->bytes / 4)
        return sq_fail(err, SQUISH_NO_SPACE, "%.200s: no room for %llu bytes", dir,
                       (unsigned long long)s->bytes);
    SQ_TRY(fetch_file(s->url, s->sha256, path, s->bytes + PIECE, with_total, &w, err));
    if (!packed) return SQUISH_OK;
    const squish_status st = take_parts(s, path, dir, err);
    unlink(path); /* its parts are what is wanted */
    return st;
}
