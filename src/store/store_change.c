/* SPDX-License-Identifier: Apache-2.0
 *
 * store_change.c - taking models away and giving them further names. Only $SQUISH_HOME/models is changed, and
 * only what the list of the store names. */
#include "store/store.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, OPEN_FOLDERS = 16 };

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where) {
    (void)st;
    (void)kind;
    (void)where;
    return remove(path);
}

squish_status sq_store_remove_tree(const char *path, squish_error *err) {
    char away[PATH_BYTES + 32];
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (snprintf(away, sizeof away, "%.*s.deleted-%s", (int)(name - path), path, name) >= (int)sizeof away)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", path);
    nftw(away, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS); /* what a kill left of an earlier one */
    if (rename(path, away) != 0) return sq_fail_errno(err, errno, "%s", path);
    if (nftw(away, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0)
        return sq_fail_errno(err, errno, "%s", away);
    return sq_os_sync_parent(path, err);
}

typedef struct {
    const char *name;
    char entry[PATH_BYTES]; /* of the folder models itself: NAME, NAME.gguf, NAME-compressed */
    char dir[PATH_BYTES];
    bool listed;
} search;

/* An entry of the folder models itself, or a file in a folder that is one. */
static bool match(void *user, const char *name, const char *path) {
    static const char *const endings[] = {"", ":latest", ".gguf", ".sqw", "-compressed"};
    search *s = user;
    const size_t n = strlen(s->name), m = strlen(s->dir);
    for (size_t i = 0; i < SQ_COUNT(endings); i++) {
        if (strncmp(name, s->name, n) != 0 || strcmp(name + n, endings[i]) != 0) continue;
        if (s->entry[0] && i > 0) continue;
        s->listed = true;
        if (strncmp(path, s->dir, m) != 0 || path[m] != '/') return i > 0;
        const char *rest = path + m + 1;
        snprintf(s->entry, sizeof s->entry, "%s/%.*s", s->dir, (int)strcspn(rest, "/"), rest);
        return i > 0;
    }
    return true;
}

static squish_status remove_entry(const char *home, const char *name, squish_error *err) {
    char bare[SQ_STORE_NAME_MAX + 1], beside[PATH_BYTES + 16];
    search s = {.name = bare};
    if (strlen(name) > SQ_STORE_NAME_MAX)
        return sq_fail(err, SQUISH_NOT_FOUND, "no model '%.100s' here", name);
    snprintf(bare, sizeof bare, "%.*s", (int)sq_store_bare_length(name), name);
    SQ_TRY(sq_store_place(home, "models", s.dir, sizeof s.dir, err));
    SQ_TRY(sq_store_list(home, match, &s, err));
    if (!s.entry[0] && s.listed)
        return sq_fail(err, SQUISH_INVALID, "'%s' lies outside the store and is not deleted", name);
    if (!s.entry[0])
        return sq_fail(err, SQUISH_NOT_FOUND, "no model '%.100s' in the store (see: squish list)", name);
    /* Its tiers first: without the model they would be listed as one. */
    snprintf(beside, sizeof beside, "%s-compressed", s.entry);
    if (sq_os_is_dir(beside)) SQ_TRY(sq_store_remove_tree(beside, err));
    SQ_TRY(sq_store_remove_tree(s.entry, err));
    /* What run and calibrate left beside a file. The model is gone: one of these that stays is no failure. */
    static const char *const of_file[] = {".heat", ".heat.partial", ".lookahead"};
    for (size_t i = 0; i < SQ_COUNT(of_file); i++) {
        snprintf(beside, sizeof beside, "%s%s", s.entry, of_file[i]);
        unlink(beside);
    }
    return SQUISH_OK;
}

squish_status sq_store_remove(const char *home, const char *name, squish_error *err) {
    sq_store_made m;
    char own[SQ_STORE_NAME_MAX + 8];
    const squish_status st = sq_store_made_read(home, name, &m, err);
    if (st == SQUISH_NO_MEMORY || st == SQUISH_IO) return st;
    if (err) *err = (squish_error){0};
    if (st == SQUISH_NOT_FOUND) return remove_entry(home, name, err);
    if (st != SQUISH_OK) return sq_store_made_remove(home, name, err); /* a damaged one */
    snprintf(own, sizeof own, "%.*s.gguf", (int)sq_store_bare_length(name), name);
    const bool owns = strcmp(m.from, own) == 0; /* made with that file, by create */
    json_decref(m.root);
    SQ_TRY(sq_store_made_remove(home, name, err));
    return owns ? remove_entry(home, own, err) : SQUISH_OK;
}

typedef struct {
    const char *name;
    bool there;
} taken;

static bool is_name(void *user, const char *name, const char *path) {
    (void)path;
    taken *t = user;
    t->there = strcmp(t->name, name) == 0;
    return !t->there;
}

squish_status sq_store_copy(const char *home, const char *from, const char *to, squish_error *err) {
    char path[PATH_BYTES], bare[SQ_STORE_NAME_MAX + 1];
    sq_store_made m;
    if (!sq_store_name_is_good(to))
        return sq_fail(err, SQUISH_INVALID, "'%.100s' is no name for a model: " SQ_STORE_NAME_RULE, to);
    snprintf(bare, sizeof bare, "%.*s", (int)sq_store_bare_length(to), to);
    taken t = {bare, false};
    SQ_TRY(sq_store_list(home, is_name, &t, err));
    squish_status st = sq_store_made_read(home, to, &m, NULL);
    if (st == SQUISH_OK) json_decref(m.root);
    if (t.there || st == SQUISH_OK)
        return sq_fail(err, SQUISH_INVALID, "'%s' is a model already (squish rm %s first)", to, to);
    st = sq_store_made_read(home, from, &m, err);
    if (st != SQUISH_OK && st != SQUISH_NOT_FOUND) return st;
    if (st == SQUISH_NOT_FOUND) {
        if (err) *err = (squish_error){0};
        if (strchr(from, '/') && sq_os_exists(from))
            return sq_fail(err, SQUISH_INVALID, "%s is a path; another name can be given to a name only",
                           from);
        SQ_TRY(sq_store_locate(home, from, path, sizeof path, err));
        m = (sq_store_made){.from = from};
    }
    st = sq_store_made_write(home, to, &m, err);
    json_decref(m.root);
    return st;
}
