/* SPDX-License-Identifier: Apache-2.0
 *
 * store_manifest.c - squish-manifest.json, beside the files of a model that was pulled or imported: where it
 * came from and what its files are.
 *
 *   {"name": "qwen2.5:1.5b", "source": "https://huggingface.co", "repo": "Qwen/Qwen2.5-1.5B-Instruct",
 *    "revision": "989aa7..", "license": "apache-2.0", "file": null,
 *    "files": [{"path": "config.json", "bytes": 660, "sha256": ".."}], "pulled": 1790000000}
 *
 * It is read as strictly as a request: anybody may have written it. */
#include "format/json.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 4096, BYTES_MAX = 4 << 20 };

bool sq_store_file_is_plain(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = strlen(name);
    if (n == 0 || n > SQ_STORE_NAME_MAX || name[0] == '.' || name[0] == ' ') return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr(letters, name[i]) && !strchr("._-+@= ", name[i])) return false;
    return true;
}

static squish_status check_files(const json_t *files, const char *what, squish_error *err) {
    size_t i;
    const json_t *f;
    if (!json_is_array(files)) return sq_fail(err, SQUISH_CORRUPT, "%s: 'files' is no array", what);
    if (json_array_size(files) > SQ_STORE_FILES_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "%s: more than %d files", what, SQ_STORE_FILES_MAX);
    json_array_foreach((json_t *)(uintptr_t)files, i, f) {
        const char *path = NULL, *sum = NULL;
        int64_t bytes = 0;
        if (!json_is_object(f)) return sq_fail(err, SQUISH_CORRUPT, "%s: files[%zu] is no object", what, i);
        SQ_TRY(sq_json_str(f, "path", true, &path, what, err));
        SQ_TRY(sq_json_i64(f, "bytes", true, 0, INT64_MAX, &bytes, what, err));
        SQ_TRY(sq_json_str(f, "sha256", false, &sum, what, err));
        if (!sq_store_file_is_plain(path))
            return sq_fail(err, SQUISH_CORRUPT, "%s: '%.80s' is no name for a file of a model", what, path);
    }
    return SQUISH_OK;
}

static squish_status take(sq_store_manifest *m, const char *what, squish_error *err) {
    SQ_TRY(sq_json_str(m->root, "name", true, &m->name, what, err));
    SQ_TRY(sq_json_str(m->root, "source", false, &m->source, what, err));
    SQ_TRY(sq_json_str(m->root, "repo", false, &m->repo, what, err));
    SQ_TRY(sq_json_str(m->root, "revision", false, &m->revision, what, err));
    SQ_TRY(sq_json_str(m->root, "license", false, &m->license, what, err));
    SQ_TRY(sq_json_str(m->root, "file", false, &m->file, what, err));
    if (m->file && !sq_store_file_is_plain(m->file))
        return sq_fail(err, SQUISH_CORRUPT, "%s: '%.80s' is no name for a file of a model", what, m->file);
    SQ_TRY(sq_json_i64(m->root, "pulled", false, 0, INT64_MAX / 2, &m->pulled, what, err));
    m->files = json_object_get(m->root, "files");
    return check_files(m->files, what, err);
}

squish_status sq_store_manifest_parse(const char *text, size_t n, const char *what, sq_store_manifest *out,
                                      squish_error *err) {
    *out = (sq_store_manifest){0};
    SQ_TRY(sq_json_parse(text, n, SQ_JSON_DEPTH, what, &out->root, err));
    squish_status st = json_is_object(out->root) ? take(out, what, err)
                                                 : sq_fail(err, SQUISH_CORRUPT, "%s: wanted an object", what);
    if (st == SQUISH_OK) return st;
    json_decref(out->root);
    *out = (sq_store_manifest){0};
    return st;
}

squish_status sq_store_manifest_read(const char *dir, sq_store_manifest *out, squish_error *err) {
    char path[PATH_BYTES];
    const squish_alloc a = sq_alloc_default();
    sq_arena ar;
    sq_span text;
    *out = (sq_store_manifest){0};
    if (snprintf(path, sizeof path, "%s/%s", dir, SQ_STORE_MANIFEST) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
    sq_arena_init(&ar, &a, 4096, 0);
    squish_status st = sq_os_read_file(path, BYTES_MAX, &ar, &text, err);
    if (st == SQUISH_OK) st = sq_store_manifest_parse((const char *)text.p, text.n, path, out, err);
    sq_arena_deinit(&ar);
    return st;
}

squish_status sq_store_manifest_write(const char *dir, const sq_store_manifest *m, squish_error *err) {
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", dir, SQ_STORE_MANIFEST) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
    json_t *o = json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:O, s:I}", "name", m->name, "source",
                          m->source, "repo", m->repo, "revision", m->revision, "license", m->license, "file",
                          m->file, "files", m->files, "pulled", (json_int_t)sq_os_unix_time());
    char *text = sq_json_dump(o, JSON_INDENT(1));
    json_decref(o);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", m->name);
    const squish_status st = sq_os_write_file(path, text, strlen(text), err);
    free(text);
    return st;
}
