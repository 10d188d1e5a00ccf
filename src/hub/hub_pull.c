/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_pull.c - a model from a hub into the store, whole and verified or not at all.
 *
 *   $SQUISH_HOME/pulls/KEY/lock       held while a pull runs
 *                          files/     as they will lie in the store; long ones sparse until they are whole
 *                          maps/      which blocks of each are there (fetch/fetch_files.h)
 *   $SQUISH_HOME/models/KEY/          appears by one rename of files/, with its manifest inside
 *
 * The folder `models` is what lists read, and nothing but whole models is ever moved there: a kill at any
 * moment leaves the list as it was. Where a model of that name is there already, the two folders change
 * places in one step, files that did not change are linked instead of fetched, and its tiers go: they were
 * made of the other weights. */
#include "hub/hub_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, SMALL = 8 << 20, LEAD = 1 << 20, LEAD_GGUF = 16 << 20 };
static const uint64_t SPARE_BYTES = 64 << 20; /* that a pull leaves free */

typedef struct {
    const hub_settings *s;
    const hub_ref *ref;
    hub_news_fn fn;
    void *user;
    squish_error *err;
    hub_listing l;
    char key[2 * SQ_STORE_NAME_MAX], stage[PATH_BYTES], target[PATH_BYTES];
    int lock;
    fetch_file_item *items; /* of wanted files */
    const hub_file **of;    /* their entries */
    size_t n;
    bool stopped; /* the callee has said why */
} pull;

static squish_status join(char out[PATH_BYTES], const char *a, const char *b, squish_error *err) {
    if (snprintf(out, PATH_BYTES, "%s/%s", a, b) < PATH_BYTES) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", a, b);
}

static squish_status tell(pull *p, hub_news n) {
    n.ref = p->ref;
    if (!p->fn || p->fn(p->user, &n, p->err)) return SQUISH_OK;
    p->stopped = true;
    return p->err && p->err->code != SQUISH_OK ? p->err->code : sq_fail(p->err, SQUISH_CANCELLED, "stopped");
}

/* ---- the place -------------------------------------------------------------------------------- */

static squish_status find_places(pull *p) {
    char what[2 * SQ_STORE_NAME_MAX + 16], dir[PATH_BYTES];
    if (!sq_store_key(p->ref->name, p->key, sizeof p->key))
        return sq_fail(p->err, SQUISH_INVALID, "'%.100s' is no name the store could keep", p->ref->name);
    snprintf(what, sizeof what, "models/%s", p->key);
    SQ_TRY(sq_store_place(p->s->home, what, p->target, sizeof p->target, p->err));
    snprintf(what, sizeof what, "pulls/%s", p->key);
    SQ_TRY(sq_store_place(p->s->home, what, p->stage, sizeof p->stage, p->err));
    SQ_TRY(sq_store_place(p->s->home, "models", dir, sizeof dir, p->err));
    return sq_os_mkdirs(dir, p->err);
}

/* The lock of this name; whoever has it is waited for. */
static squish_status take_lock(pull *p) {
    const struct timespec pause = {.tv_nsec = 100000000};
    char path[PATH_BYTES];
    for (;;) {
        squish_error now = {0};
        SQ_TRY(sq_os_mkdirs(p->stage, p->err));
        SQ_TRY(join(path, p->stage, "lock", p->err));
        const squish_status st = sq_os_lock(&p->lock, path, &now);
        struct stat ours, named;
        if (st == SQUISH_OK) { /* its folder may have been moved away while we waited for it */
            if (fstat(p->lock, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino)
                return SQUISH_OK;
            sq_os_unlock(p->lock);
            p->lock = -1;
            continue;
        }
        if (st != SQUISH_NOT_FOUND && st != SQUISH_BUSY) {
            if (p->err) *p->err = now;
            return st;
        }
        SQ_TRY(tell(p, (hub_news){.stage = HUB_WAITING}));
        nanosleep(&pause, NULL);
    }
}

/* Is the model there, of this revision? */
static bool is_here(const pull *p, const char *revision) {
    sq_store_manifest m;
    if (sq_store_manifest_read(p->target, &m, NULL) != SQUISH_OK) return false;
    const bool same = !revision || (m.revision && strcmp(m.revision, revision) == 0);
    json_decref(m.root);
    return same;
}

static squish_status tell_done(pull *p, bool was_here) {
    char path[PATH_BYTES];
    SQ_TRY(sq_store_locate(p->s->home, p->ref->name, path, sizeof path, p->err));
    return tell(
        p,
        (hub_news){.stage = HUB_DONE, .path = path, .was_here = was_here, .listing = p->l.n ? &p->l : NULL});
}

/* ---- files ------------------------------------------------------------------------------------ */

static squish_status make_items(pull *p) {
    size_t wanted = 0;
    for (size_t i = 0; i < p->l.n; i++) wanted += p->l.files[i].wanted;
    p->items = SQ_ARENA_ARRAY(&p->l.arena, fetch_file_item, wanted + 1);
    p->of = SQ_ARENA_ARRAY(&p->l.arena, const hub_file *, wanted + 1);
    if (!p->items || !p->of) return sq_fail(p->err, SQUISH_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < p->l.n; i++) {
        const hub_file *f = &p->l.files[i];
        char path[PATH_BYTES + 2 * SQ_STORE_NAME_MAX], map[PATH_BYTES + 2 * SQ_STORE_NAME_MAX];
        if (!f->wanted) continue;
        snprintf(path, sizeof path, "%s/files/%s", p->stage, f->as);
        snprintf(map, sizeof map, "%s/maps/%s", p->stage, f->as);
        const size_t len = strlen(f->path);
        const bool gguf = len > 5 && strcmp(f->as + strlen(f->as) - 5, ".gguf") == 0;
        p->of[p->n] = f;
        p->items[p->n++] = (fetch_file_item){.url = f->url,
                                             .path = sq_arena_strndup(&p->l.arena, path, strlen(path)),
                                             .map = sq_arena_strndup(&p->l.arena, map, strlen(map)),
                                             .bytes = f->bytes,
                                             .kind = f->kind,
                                             .sum = f->kind == FETCH_SUM_NONE ? NULL : f->sum,
                                             .lead = f->bytes <= SMALL ? f->bytes
                                                     : gguf            ? LEAD_GGUF
                                                                       : LEAD};
        if (!p->items[p->n - 1].path || !p->items[p->n - 1].map)
            return sq_fail(p->err, SQUISH_NO_MEMORY, "out of memory");
    }
    return SQUISH_OK;
}

/* What an earlier pull of other files left goes; whole files without a map stay only if they are wanted. */
static squish_status sweep(const pull *p) {
    static const char *const folders[] = {"files", "maps"};
    const squish_alloc a = sq_alloc_default();
    squish_status st = SQUISH_OK;
    for (size_t k = 0; st == SQUISH_OK && k < SQ_COUNT(folders); k++) {
        char dir[PATH_BYTES], path[PATH_BYTES + SQ_STORE_NAME_MAX], **names;
        size_t n = 0;
        sq_arena ar;
        sq_arena_init(&ar, &a, 4096, 0);
        st = join(dir, p->stage, folders[k], p->err);
        if (st == SQUISH_OK) st = sq_os_list_dir(dir, &ar, &names, &n, p->err);
        for (size_t i = 0; st == SQUISH_OK && i < n; i++) {
            bool wanted = false;
            for (size_t j = 0; j < p->n; j++) wanted = wanted || strcmp(p->of[j]->as, names[i]) == 0;
            if (!wanted && snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path &&
                unlink(path) != 0)
                st = sq_fail_errno(p->err, errno, "cannot remove '%s'", path);
        }
        sq_arena_deinit(&ar);
    }
    return st;
}

/* A map that says all of the file is there. */
static bool write_full_map(const fetch_file_item *it) {
    char head[160];
    FILE *map = fopen(it->map, "wb");
    if (!map) return false;
    const size_t n = fetch_map_header(it->bytes, it->sum, head, sizeof head);
    fwrite(head, 1, n, map);
    for (uint64_t b = 0; b * FETCH_BLOCK < it->bytes; b++) fputc('#', map);
    const bool bad = ferror(map) != 0;
    return fclose(map) == 0 && !bad;
}

/* A file of the model that is there already, of the same sum: one more link to it and no fetch. */
static void link_known(pull *p, const sq_store_manifest *old, size_t i) {
    const fetch_file_item *it = &p->items[i];
    char path[PATH_BYTES];
    const json_t *f;
    size_t k;
    if (it->kind != FETCH_SUM_SHA256 || sq_os_exists(it->path)) return;
    json_array_foreach(old->files, k, f) {
        const char *name = json_string_value(json_object_get(f, "path"));
        const char *sum = json_string_value(json_object_get(f, "sha256"));
        if (!name || !sum || strcmp(sum, it->sum) != 0 || join(path, p->target, name, NULL) != SQUISH_OK)
            continue;
        if (sq_os_file_bytes(path) != it->bytes || link(path, it->path) != 0) continue;
        /* Its sum is taken all the same. Without a map it would be written over, and the model with it. */
        if (!write_full_map(it)) unlink(it->path), unlink(it->map);
        return;
    }
}

static void link_all_known(pull *p) {
    sq_store_manifest old;
    if (sq_store_manifest_read(p->target, &old, NULL) != SQUISH_OK) return;
    for (size_t i = 0; i < p->n; i++) link_known(p, &old, i);
    json_decref(old.root);
}

static squish_status check_space(const pull *p) {
    uint64_t missing = 0;
    for (size_t i = 0; i < p->n; i++) missing += p->items[i].bytes - fetch_files_there(&p->items[i]);
    const uint64_t free_bytes = sq_os_disk_free(p->stage);
    if (missing + SPARE_BYTES <= free_bytes || missing == 0) return SQUISH_OK;
    return sq_fail(
        p->err, SQUISH_NO_SPACE,
        "%s: %.2f GB are to be fetched and %.2f GB are free at %.120s (make room, or name another place: "
        "--home DIR)",
        p->ref->name, (double)missing / 1e9, (double)free_bytes / 1e9, p->stage);
}

static bool on_progress(void *user, const fetch_files_progress *f) {
    pull *p = user;
    const hub_news n = {.stage = f->verifying ? HUB_VERIFYING : HUB_FETCHING,
                        .listing = &p->l,
                        .files = f,
                        .file = p->n ? p->of[f->file] : NULL};
    return tell(p, n) == SQUISH_OK;
}

static squish_status fetch(pull *p) {
    const fetch_files_options o = {.token = p->s->token,
                                   .token_origin = p->s->endpoint ? p->s->endpoint : "https://huggingface.co",
                                   .connections = p->s->connections,
                                   .retries = p->s->retries,
                                   .stall_s = p->s->stall_s,
                                   .rate = p->s->rate,
                                   .progress = on_progress,
                                   .user = p};
    char dir[PATH_BYTES];
    squish_error err = {0};
    SQ_TRY(join(dir, p->stage, "files", p->err));
    squish_status st = fetch_files_lead(p->items, p->n, &o, &err);
    if (st == SQUISH_OK) SQ_TRY(tell(p, (hub_news){.stage = HUB_HEADERS, .listing = &p->l, .dir = dir}));
    if (st == SQUISH_OK) st = fetch_files(p->items, p->n, &o, &err);
    if (st == SQUISH_OK || p->stopped) return p->stopped ? p->err ? p->err->code : st : st;
    if (st == SQUISH_NO_SPACE || st == SQUISH_NETWORK || st == SQUISH_CORRUPT)
        sq_err_prefix(&err, "%.100s", p->ref->name);
    if (p->err && p->err->code == SQUISH_OK) *p->err = err;
    return st;
}

/* ---- publication ------------------------------------------------------------------------------ */

static squish_status write_manifest(pull *p, const char *dir) {
    json_t *files = json_array();
    bool ok = files != NULL;
    for (size_t i = 0; ok && i < p->n; i++)
        ok = json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "path", p->of[i]->as, "bytes",
                                                    (json_int_t)p->items[i].bytes, "sha256",
                                                    p->items[i].sha256)) == 0;
    const sq_store_manifest m = {.name = p->ref->name,
                                 .source = p->l.source,
                                 .repo = p->l.repo,
                                 .revision = p->l.revision,
                                 .license = *p->l.license ? p->l.license : NULL,
                                 .file = *p->l.main ? p->l.main : NULL,
                                 .files = files};
    const squish_status st = ok ? sq_store_manifest_write(dir, &m, p->err)
                                : sq_fail(p->err, SQUISH_NO_MEMORY, "the manifest found no memory");
    json_decref(files);
    return st;
}

squish_status hub_publish(const char *dir, const char *target, squish_error *err) {
    char inside[PATH_BYTES], tiers[PATH_BYTES + 16];
    SQ_TRY(join(inside, dir, SQ_STORE_MANIFEST, err));
    SQ_TRY(sq_os_sync_parent(inside, err));
    const bool replaces = sq_os_exists(target);
    /* Tiers of the old weights go first: left behind by a kill they would be taken for tiers of the new. */
    snprintf(tiers, sizeof tiers, "%s-compressed", target);
    if (replaces && sq_os_is_dir(tiers)) SQ_TRY(sq_store_remove_tree(tiers, err));
    if (renameat2(AT_FDCWD, dir, AT_FDCWD, target, replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0)
        return sq_fail_errno(err, errno, "cannot publish '%s'", target);
    return sq_os_sync_parent(target, err);
}

static squish_status publish(pull *p) {
    char dir[PATH_BYTES];
    SQ_TRY(tell(p, (hub_news){.stage = HUB_WRITING, .listing = &p->l}));
    SQ_TRY(join(dir, p->stage, "files", p->err));
    SQ_TRY(write_manifest(p, dir));
    return hub_publish(dir, p->target, p->err);
}

/* The folder of the pull goes, the lock last. */
static void clean(const pull *p) { sq_store_remove_tree(p->stage, NULL); }

/* The hub was not reached, or had no such model: there is nothing to go on with. */
static bool nothing_has_come(const pull *p) {
    char dir[PATH_BYTES];
    return join(dir, p->stage, "files", NULL) == SQUISH_OK && !sq_os_is_dir(dir);
}

/* ---- the whole -------------------------------------------------------------------------------- */

static squish_status run(pull *p) {
    char dir[PATH_BYTES];
    SQ_TRY(find_places(p));
    if (p->s->offline && is_here(p, NULL)) return tell_done(p, true);
    if (p->s->offline) return hub_look(p->s, p->ref, &p->l, p->err); /* says why not */
    SQ_TRY(take_lock(p));
    SQ_TRY(tell(p, (hub_news){.stage = HUB_LOOKING}));
    SQ_TRY(hub_look(p->s, p->ref, &p->l, p->err));
    if (is_here(p, p->l.revision)) {
        clean(p);
        return tell_done(p, true);
    }
    SQ_TRY(tell(p, (hub_news){.stage = HUB_FOUND, .listing = &p->l}));
    SQ_TRY(make_items(p));
    SQ_TRY(join(dir, p->stage, "files", p->err));
    SQ_TRY(sq_os_mkdirs(dir, p->err));
    SQ_TRY(join(dir, p->stage, "maps", p->err));
    SQ_TRY(sq_os_mkdirs(dir, p->err));
    SQ_TRY(sweep(p));
    link_all_known(p);
    SQ_TRY(check_space(p));
    SQ_TRY(fetch(p));
    SQ_TRY(publish(p));
    clean(p);
    return tell_done(p, false);
}

squish_status hub_pull(const hub_settings *s, const hub_ref *r, hub_news_fn fn, void *user,
                       squish_error *err) {
    squish_error own = {0};
    pull p = {.s = s, .ref = r, .fn = fn, .user = user, .err = err ? err : &own, .lock = -1};
    hub_listing_init(&p.l);
    const squish_status st = run(&p);
    if (st != SQUISH_OK && p.lock >= 0 && nothing_has_come(&p)) clean(&p);
    if (p.lock >= 0) sq_os_unlock(p.lock);
    hub_listing_free(&p.l);
    return st;
}

/* ---- pulls that were stopped ------------------------------------------------------------------- */

void hub_unfinished(const char *home, bool (*fn)(void *user, const char *key, uint64_t bytes), void *user) {
    const squish_alloc a = sq_alloc_default();
    char dir[PATH_BYTES], path[PATH_BYTES], **names;
    size_t n = 0;
    sq_arena ar;
    sq_arena_init(&ar, &a, 4096, 0);
    bool more = sq_store_place(home, "pulls", dir, sizeof dir, NULL) == SQUISH_OK && sq_os_is_dir(dir) &&
                sq_os_list_dir(dir, &ar, &names, &n, NULL) == SQUISH_OK;
    for (size_t i = 0; more && i < n; i++) {
        char files[PATH_BYTES], one[PATH_BYTES], **parts;
        size_t n_parts = 0;
        uint64_t bytes = 0;
        struct stat st;
        if (join(path, dir, names[i], NULL) != SQUISH_OK || join(files, path, "files", NULL) != SQUISH_OK)
            continue;
        if (sq_os_list_dir(files, &ar, &parts, &n_parts, NULL) == SQUISH_OK)
            for (size_t k = 0; k < n_parts; k++)
                if (join(one, files, parts[k], NULL) == SQUISH_OK && stat(one, &st) == 0)
                    bytes += (uint64_t)st.st_blocks * 512;
        more = fn(user, names[i], bytes);
    }
    sq_arena_deinit(&ar);
}

squish_status hub_unfinished_remove(const char *home, const char *key, squish_error *err) {
    char what[2 * SQ_STORE_NAME_MAX + 16], path[PATH_BYTES], lock[PATH_BYTES];
    int fd = -1;
    const char *bare = *key == '.' ? key + 1 : key; /* .deleted-NAME: what a kill left */
    sq_store_name_of_key(bare, what, sizeof what);
    if (!sq_store_name_is_plain(bare) && !sq_store_key(what, path, sizeof path))
        return sq_fail(err, SQUISH_NOT_FOUND, "no pull is called '%.100s'", key);
    snprintf(what, sizeof what, "pulls/%.300s", key);
    SQ_TRY(sq_store_place(home, what, path, sizeof path, err));
    if (!sq_os_is_dir(path)) return sq_fail(err, SQUISH_NOT_FOUND, "no pull is called '%.100s'", key);
    SQ_TRY(join(lock, path, "lock", err));
    SQ_TRY(sq_os_lock(&fd, lock, err));
    const squish_status st = sq_store_remove_tree(path, err);
    sq_os_unlock(fd);
    return st;
}
