/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_gc.c - taking away what a model no longer needs: leftovers of builds, tiers that are not kept, and, on
 * request, the weights of the checkpoint.
 *
 * Nothing goes on a guess. A leftover belongs to nobody once its lock can be had, and nothing else goes while
 * a build runs; a tier loses its sentinel before its files, so that an interruption leaves no tier that is
 * half there; tiers and the checkpoint go only after every byte of the tier that stays was read and compared.
 * Links inside the folder of tiers are removed, never followed. */
#include "forge/forge.h"
#include "store/store.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4600, TIERS = 5 };
static const squish_tier tiers[TIERS] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1, SQUISH_TIER_2,
                                         SQUISH_TIER_3};

typedef struct {
    const squish_gc_options *o;
    const char *source; /* folder or .gguf; the tier folder itself where there is none */
    char compressed[4096];
    uint64_t freed;
    bool building; /* the lock of some tier could not be had */
} sweep;

/* ---- one thing ------------------------------------------------------------------------------- */

static uint64_t bytes_of(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

static bool is_link(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

/* Ask, and remove one file or link. */
static squish_status drop(sweep *s, const char *path, const char *why, squish_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return SQUISH_OK;
    const uint64_t bytes = bytes_of(path);
    if (s->o->fn && !s->o->fn(s->o->user, path, bytes, why)) return SQUISH_OK;
    if (!s->o->dry_run && unlink(path) != 0) return sq_fail(err, SQUISH_IO, "%s cannot be removed", path);
    s->freed += bytes;
    return SQUISH_OK;
}

/* The regular files and links of a folder, and the folder if that empties it. */
static squish_status drop_folder(sweep *s, const char *dir, const char *why, squish_error *err) {
    char path[PATH_BYTES];
    uint64_t bytes = 0;
    DIR *d = opendir(dir);
    if (!d) return SQUISH_OK;
    const struct dirent *e;
    while ((e = readdir(d)) != NULL)
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < (int)sizeof path) bytes += bytes_of(path);
    const bool goes = !s->o->fn || s->o->fn(s->o->user, dir, bytes, why);
    bool ok = true;
    for (rewinddir(d); goes && !s->o->dry_run && (e = readdir(d)) != NULL;) {
        struct stat st;
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path) continue;
        if (lstat(path, &st) == 0 && !S_ISDIR(st.st_mode)) ok = unlink(path) == 0 && ok;
    }
    closedir(d);
    if (!goes) return SQUISH_OK;
    if (!ok) return sq_fail(err, SQUISH_IO, "%s cannot be emptied", dir);
    if (!s->o->dry_run) rmdir(dir);
    s->freed += bytes;
    return SQUISH_OK;
}

/* Counts of a tier's experts (io.h), which mean nothing without it. */
static squish_status drop_heat(sweep *s, const char *file, const char *why, squish_error *err) {
    static const char *const ends[] = {"", ".partial"};
    char path[PATH_BYTES];
    for (size_t i = 0; i < SQ_COUNT(ends); i++)
        if (snprintf(path, sizeof path, "%s.heat%s", file, ends[i]) < (int)sizeof path)
            SQ_TRY(drop(s, path, why, err));
    return SQUISH_OK;
}

/* ---- what stays ------------------------------------------------------------------------------ */

/* Every byte of a .sqw that stays is compared; a tier that has no sums of its own is measured. */
static squish_status verify_tier(squish_tier t, const char *path, squish_error *err) {
    if (!sq_tier_get(t)->sqw) return SQUISH_OK; /* sq_tier_ready has measured it */
    squish_model *m = NULL;
    const squish_model_options o = {.tier = t, .verify = true};
    SQ_TRY(sq_model_open_sqw(&m, path, &o, err));
    squish_model_close(m);
    return SQUISH_OK;
}

static squish_status check_kept(const sweep *s, squish_error *err) {
    char path[PATH_BYTES], why[200];
    const sq_tier_info *kept = sq_tier_get(s->o->keep);
    if (s->o->keep == SQUISH_TIER_AUTO) return SQUISH_OK;
    if (!kept) return sq_fail(err, SQUISH_INVALID, "only tiers 0, q8, 1, 2 and 3 can be kept");
    if (!sq_tier_ready(s->compressed, s->o->keep, path, sizeof path, why, sizeof why))
        return sq_fail(err, SQUISH_INVALID, "%s: tier %s is not there to be kept: %s", s->compressed,
                       kept->name, why);
    return verify_tier(s->o->keep, path, err);
}

/* May the checkpoint go? Only where it is one, and a tier that runs without it reads back whole. */
static squish_status check_source(const sweep *s, squish_error *err) {
    char path[PATH_BYTES];
    const size_t n = strlen(s->source);
    if (!s->o->drop_source) return SQUISH_OK;
    if (sq_tier_is_folder(s->source))
        return sq_fail(err, SQUISH_INVALID, "%s: this is a folder of tiers, wanted its checkpoint",
                       s->source);
    if (!sq_os_is_dir(s->source) && (n < 5 || strcmp(s->source + n - 5, ".gguf") != 0))
        return sq_fail(err, SQUISH_INVALID, "%s: no checkpoint, wanted a folder or a .gguf file", s->source);
    for (int i = 0; i < 2; i++) { /* tiers with sums of their own */
        if (s->o->keep != SQUISH_TIER_AUTO && s->o->keep != tiers[i]) continue;
        if (!sq_tier_ready(s->compressed, tiers[i], path, sizeof path, NULL, 0)) continue;
        return s->o->keep == tiers[i] ? SQUISH_OK : verify_tier(tiers[i], path, err);
    }
    return sq_fail(
        err, SQUISH_INVALID,
        "%s: the checkpoint stays, for there is no tier 0 or q8 that could run without it (build one "
        "with: squish compress)",
        s->source);
}

/* ---- leftovers ------------------------------------------------------------------------------- */

/* Of tiers that somebody removed by hand. */
static squish_status drop_old_heat(sweep *s, squish_error *err) {
    char file[PATH_BYTES], folder[PATH_BYTES];
    for (int i = 0; i < TIERS; i++) {
        const sq_tier_info *t = sq_tier_get(tiers[i]);
        snprintf(file, sizeof file, "%s/%s", s->compressed, t->file);
        snprintf(folder, sizeof folder, "%s/%.*s", s->compressed, (int)strcspn(t->file, "/"), t->file);
        if (!t->sqw || sq_os_exists(file) || is_link(folder)) continue;
        SQ_TRY(drop_heat(s, file, "counts of a tier that is gone", err));
        if (!s->o->dry_run) rmdir(folder);
    }
    return SQUISH_OK;
}

static squish_status drop_leftovers(sweep *s, squish_error *err) {
    char lock[PATH_BYTES], path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/.build", s->compressed);
    if (is_link(path)) return SQUISH_OK; /* what lies behind it is not known to be ours */
    for (int i = 0; i < TIERS; i++) {
        const char *name = sq_tier_get(tiers[i])->name;
        static const char *const kinds[] = {"partial", "journal"};
        bool any = false;
        for (size_t k = 0; k < SQ_COUNT(kinds); k++) {
            snprintf(path, sizeof path, "%s/.build/%s.%s", s->compressed, name, kinds[k]);
            any = any || sq_os_exists(path);
        }
        snprintf(lock, sizeof lock, "%s/.build/%s.lock", s->compressed, name);
        int fd = -1;
        if (!any && !sq_os_exists(lock)) continue;
        if (sq_os_lock(&fd, lock, NULL) != SQUISH_OK) {
            s->building = true;
            continue;
        }
        squish_status st = SQUISH_OK;
        for (size_t k = 0; k < SQ_COUNT(kinds) && st == SQUISH_OK; k++) {
            snprintf(path, sizeof path, "%s/.build/%s.%s", s->compressed, name, kinds[k]);
            st = drop(s, path, "left by a build that did not end", err);
        }
        if (!s->o->dry_run) unlink(lock);
        sq_os_unlock(fd);
        SQ_TRY(st);
    }
    snprintf(path, sizeof path, "%s/.build", s->compressed);
    if (!s->o->dry_run) rmdir(path);
    return drop_old_heat(s, err);
}

/* ---- tiers ----------------------------------------------------------------------------------- */

static squish_status drop_linked_tier(sweep *s, const sq_tier_info *t, const char *link, const char *sentinel,
                                      squish_error *err) {
    if (s->o->fn && !s->o->fn(s->o->user, link, 0, "a link to a tier that is not kept")) return SQUISH_OK;
    if (s->o->dry_run) return SQUISH_OK;
    if (!t->folder && unlink(sentinel) != 0 && sq_os_exists(sentinel))
        return sq_fail(err, SQUISH_IO, "%s cannot be removed", sentinel);
    if (unlink(link) != 0) return sq_fail(err, SQUISH_IO, "%s cannot be removed", link);
    return SQUISH_OK;
}

static squish_status drop_tier(sweep *s, const sq_tier_info *t, squish_error *err) {
    char sentinel[PATH_BYTES], file[PATH_BYTES];
    snprintf(sentinel, sizeof sentinel, "%s/%s", s->compressed, t->sentinel);
    snprintf(file, sizeof file, "%s/%s", s->compressed, t->file);
    if (!sq_os_exists(sentinel) && !sq_os_exists(file)) return SQUISH_OK;
    /* The folder of a tier, where it is a link: its files belong to another place, and its sentinel may. */
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/%.*s", s->compressed, (int)strcspn(t->file, "/"), t->file);
    if (is_link(folder)) return drop_linked_tier(s, t, folder, sentinel, err);
    const uint64_t bytes = t->folder ? sq_store_dir_bytes(file) : bytes_of(file);
    if (s->o->fn && !s->o->fn(s->o->user, file, bytes, "a tier that is not kept")) return SQUISH_OK;
    const squish_gc_options *asked = s->o;
    squish_gc_options agreed = *asked;
    agreed.fn = NULL;
    s->o = &agreed;
    const uint64_t before = s->freed;
    squish_status st = drop(s, sentinel, "", err);
    if (st == SQUISH_OK) st = t->folder ? drop_folder(s, file, "", err) : drop(s, file, "", err);
    if (st == SQUISH_OK && t->sqw) st = drop_heat(s, file, "", err);
    s->o = asked;
    s->freed = before + (st == SQUISH_OK ? bytes : 0);
    if (st == SQUISH_OK && !t->folder && strchr(t->file, '/') && !asked->dry_run) {
        *strrchr(file, '/') = '\0';
        rmdir(file);
    }
    return st;
}

static squish_status drop_other_tiers(sweep *s, squish_error *err) {
    if (s->o->keep == SQUISH_TIER_AUTO) return SQUISH_OK;
    for (int i = 0; i < TIERS; i++)
        if (tiers[i] != s->o->keep) SQ_TRY(drop_tier(s, sq_tier_get(tiers[i]), err));
    return SQUISH_OK;
}

/* ---- the checkpoint -------------------------------------------------------------------------- */

/* An adapter is no part of the checkpoint, and no tier holds it. */
static bool is_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".safetensors.index.json"};
    if (strncmp(name, "adapter", 7) == 0) return false;
    for (size_t i = 0; i < SQ_COUNT(ends); i++) {
        const size_t n = strlen(name), m = strlen(ends[i]);
        if (n > m && strcmp(name + n - m, ends[i]) == 0) return true;
    }
    return false;
}

static squish_status drop_source(sweep *s, squish_error *err) {
    char path[PATH_BYTES];
    if (!s->o->drop_source) return SQUISH_OK;
    static const char why[] = "weights of the checkpoint; a tier was read back whole";
    if (!sq_os_is_dir(s->source)) return drop(s, s->source, why, err);
    DIR *d = opendir(s->source);
    if (!d) return sq_fail(err, SQUISH_IO, "%s cannot be listed", s->source);
    squish_status st = SQUISH_OK;
    const struct dirent *e;
    while (st == SQUISH_OK && (e = readdir(d)) != NULL)
        if (is_weights(e->d_name) &&
            snprintf(path, sizeof path, "%s/%s", s->source, e->d_name) < (int)sizeof path)
            st = drop(s, path, why, err);
    closedir(d);
    return st;
}

squish_status squish_gc(const char *path, const char *home, const squish_gc_options *opt, uint64_t *freed,
                        squish_error *err) {
    static const squish_gc_options all = {.keep = SQUISH_TIER_AUTO};
    sweep s = {.o = opt ? opt : &all, .source = path};
    if (freed) *freed = 0;
    if (!sq_os_exists(path)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", path);
    SQ_TRY(sq_store_compressed_dir(path, sq_tier_is_folder(path) ? path : NULL, home, s.compressed,
                                   sizeof s.compressed, err));
    SQ_TRY(check_kept(&s, err));
    SQ_TRY(check_source(&s, err));
    squish_status st = drop_leftovers(&s, err);
    if (st == SQUISH_OK && s.building && (s.o->keep != SQUISH_TIER_AUTO || s.o->drop_source))
        st = sq_fail(err, SQUISH_INVALID, "%s: a build is running there, nothing else was removed",
                     s.compressed);
    if (st == SQUISH_OK) st = drop_other_tiers(&s, err);
    if (st == SQUISH_OK) st = drop_source(&s, err);
    if (freed) *freed = s.freed;
    return st;
}
