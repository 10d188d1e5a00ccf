/* SPDX-License-Identifier: Apache-2.0
 *
 * hub_import.c - a folder or file of this machine into the store, with a manifest as a pull writes it. It is
 * copied: a link would change with its source. copy_file_range lets file systems that can share the blocks.
 */
#include "hub/hub_int.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, STEP = 1 << 20 };
static const uint64_t SPARE_BYTES = 64 << 20;

typedef struct {
    const char *src;
    char name[SQ_STORE_NAME_MAX + 1], stage[PATH_BYTES], files[PATH_BYTES], target[PATH_BYTES];
    char main[SQ_STORE_NAME_MAX + 1];
    squish_progress_fn progress;
    void *user;
    uint64_t done, total;
    json_t *list;
    sq_arena ar;
    uint8_t *bytes; /* [STEP], in the arena */
} import;

static squish_status join(char out[PATH_BYTES], const char *a, const char *b, squish_error *err) {
    if (snprintf(out, PATH_BYTES, "%s/%s", a, b) < PATH_BYTES) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "%s/%s: path too long", a, b);
}

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

/* Copy, then sum what was written. */
static squish_status copy_bytes(import *m, int from, int to, EVP_MD_CTX *sum, const char *path,
                                squish_error *err) {
    off_t in = 0, out = 0;
    for (ssize_t k; (k = copy_file_range(from, &in, to, &out, (size_t)64 << 20, 0)) != 0;)
        if (k < 0) break; /* another file system: by hand, from where it stopped */
    for (uint64_t at = 0;;) {
        ssize_t k = pread(from, m->bytes, STEP, (off_t)at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return sq_fail_errno(err, errno, "cannot read '%s'", path);
        if (k == 0) return SQUISH_OK;
        if ((off_t)at + k > out && pwrite(to, m->bytes, (size_t)k, (off_t)at) != k)
            return sq_fail_errno(err, errno ? errno : ENOSPC, "cannot write a copy of '%s'", path);
        if (!EVP_DigestUpdate(sum, m->bytes, (size_t)k))
            return sq_fail(err, SQUISH_NO_MEMORY, "no sum could be taken");
        at += (uint64_t)k;
        m->done += (uint64_t)k;
        if (m->progress && !m->progress(m->user, "importing", m->done, m->total))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
}

static squish_status take_file(import *m, const char *path, const char *as, squish_error *err) {
    char to[PATH_BYTES], hex[65] = "";
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    SQ_TRY(join(to, m->files, as, err));
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    const int in = open(path, O_RDONLY | O_CLOEXEC),
              out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    squish_status st = SQUISH_OK;
    if (in < 0 || out < 0)
        st = sq_fail_errno(err, errno, "'%s'", in < 0 ? path : to);
    else if (!sum || !EVP_DigestInit_ex(sum, EVP_sha256(), NULL))
        st = sq_fail(err, SQUISH_NO_MEMORY, "no sum could be taken");
    const uint64_t before = m->done;
    if (st == SQUISH_OK) st = copy_bytes(m, in, out, sum, path, err);
    if (st == SQUISH_OK && (!EVP_DigestFinal_ex(sum, digest, &n) || n != 32))
        st = sq_fail(err, SQUISH_NO_MEMORY, "no sum could be taken");
    for (unsigned i = 0; st == SQUISH_OK && i < n; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    if (st == SQUISH_OK && fsync(out) != 0) st = sq_fail_errno(err, errno, "cannot flush '%s'", to);
    if (st == SQUISH_OK &&
        json_array_append_new(m->list, json_pack("{s:s, s:I, s:s}", "path", as, "bytes",
                                                 (json_int_t)(m->done - before), "sha256", hex)) != 0)
        st = sq_fail(err, SQUISH_NO_MEMORY, "the manifest found no memory");
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    EVP_MD_CTX_free(sum);
    return st;
}

static squish_status take_folder(import *m, squish_error *err) {
    char path[PATH_BYTES], **names;
    size_t n = 0;
    SQ_TRY(join(path, m->src, "config.json", err));
    if (!sq_os_exists(path))
        return sq_fail(err, SQUISH_INVALID, "%s: no model: it has no config.json", m->src);
    SQ_TRY(sq_os_list_dir(m->src, &m->ar, &names, &n, err));
    squish_status st = SQUISH_OK;
    for (size_t i = 0; i < n && st == SQUISH_OK; i++) {
        SQ_TRY(join(path, m->src, names[i], err));
        if (sq_os_is_dir(path) || !sq_store_file_is_plain(names[i]) ||
            strcmp(names[i], SQ_STORE_MANIFEST) == 0)
            continue;
        st = take_file(m, path, names[i], err);
    }
    return st;
}

static squish_status find_places(import *m, const char *home, const char *name, squish_error *err) {
    char what[2 * SQ_STORE_NAME_MAX + 32], key[2 * SQ_STORE_NAME_MAX], found[PATH_BYTES];
    size_t end = strlen(m->src);
    while (end > 1 && m->src[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && m->src[begin - 1] != '/') begin--;
    if (name)
        snprintf(m->name, sizeof m->name, "%.*s", SQ_STORE_NAME_MAX, name);
    else
        snprintf(m->name, sizeof m->name, "%.*s", (int)(end - begin > SQ_STORE_NAME_MAX ? 0 : end - begin),
                 m->src + begin);
    for (int i = 0; i < 2 && !name; i++) {
        const char *ending = i ? ".sqw" : ".gguf";
        if (ends_with(m->name, ending)) m->name[strlen(m->name) - strlen(ending)] = 0;
    }
    if (!sq_store_name_is_good(m->name) || (name && strlen(name) > SQ_STORE_NAME_MAX) ||
        !sq_store_key(m->name, key, sizeof key))
        return sq_fail(err, SQUISH_INVALID,
                       "'%.100s' is no name for a model: " SQ_STORE_NAME_RULE " (squish import PATH NAME)",
                       name ? name : m->name);
    if (sq_store_locate(home, m->name, found, sizeof found, NULL) == SQUISH_OK && !sq_os_exists(m->name))
        return sq_fail(err, SQUISH_INVALID, "'%s' is a model already (squish rm %s, or give another name)",
                       m->name, m->name);
    snprintf(what, sizeof what, "pulls/%s.import", key);
    SQ_TRY(sq_store_place(home, what, m->stage, sizeof m->stage, err));
    SQ_TRY(join(m->files, m->stage, "files", err));
    SQ_TRY(sq_store_place(home, "models", m->target, sizeof m->target, err));
    SQ_TRY(sq_os_mkdirs(m->target, err));
    snprintf(what, sizeof what, "models/%s", key);
    SQ_TRY(sq_store_place(home, what, m->target, sizeof m->target, err));
    if (sq_os_exists(m->target))
        return sq_fail(err, SQUISH_INVALID, "'%s' is there already (give another name)", m->target);
    return SQUISH_OK;
}

static squish_status run(import *m, const char *home, const char *name, squish_error *err) {
    const bool folder = sq_os_is_dir(m->src);
    if (!sq_os_exists(m->src)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", m->src);
    if (!folder && !ends_with(m->src, ".gguf") && !ends_with(m->src, ".sqw"))
        return sq_fail(err, SQUISH_INVALID, "%s: wanted a folder, a .gguf file or a .sqw file", m->src);
    SQ_TRY(find_places(m, home, name, err));
    m->total = folder ? sq_store_dir_bytes(m->src) : sq_os_file_bytes(m->src);
    SQ_TRY(sq_os_mkdirs(m->files, err));
    if (m->total + SPARE_BYTES > sq_os_disk_free(m->files))
        return sq_fail(err, SQUISH_NO_SPACE, "%s: its %.2f GB do not fit on the disk of %s", m->src,
                       (double)m->total / 1e9, m->files);
    if (folder) {
        SQ_TRY(take_folder(m, err));
    } else {
        snprintf(m->main, sizeof m->main, "%s", ends_with(m->src, ".gguf") ? "model.gguf" : "model.sqw");
        SQ_TRY(take_file(m, m->src, m->main, err));
    }
    const sq_store_manifest x = {.name = m->name,
                                 .source = "this machine",
                                 .repo = m->src,
                                 .file = *m->main ? m->main : NULL,
                                 .files = m->list};
    SQ_TRY(sq_store_manifest_write(m->files, &x, err));
    return hub_publish(m->files, m->target, err);
}

squish_status hub_import(const char *home, const char *src, const char *name, squish_progress_fn progress,
                         void *user, char *path, size_t n, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
import m = {.src = src, .progress = progress, .user = user, .list = json_array() };
    sq_arena_init(&m.ar, &a, 2 << 20, 0);
    m.bytes = sq_arena_alloc(&m.ar, STEP, 64);
    squish_status st =
        m.bytes && m.list ? run(&m, home, name, err) : sq_fail(err, SQUISH_NO_MEMORY, "out of memory");
    if (m.stage[0] && sq_os_is_dir(m.stage)) sq_store_remove_tree(m.stage, NULL);
    if (st == SQUISH_OK) st = sq_store_locate(home, m.name, path, n, err);
    json_decref(m.list);
    sq_arena_deinit(&m.ar);
    return st;
}
