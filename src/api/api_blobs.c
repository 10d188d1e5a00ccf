/* SPDX-License-Identifier: Apache-2.0
 *
 * api_blobs.c - HEAD and POST /api/blobs/sha256:HEX: GGUF files on their way into the store, for POST
 * /api/create.
 *
 *   $SQUISH_HOME/blobs/sha256-HEX
 *
 * A blob is stored only if its bytes have the digest of its name and begin like a GGUF file. It is written
 * beside its place, synced and renamed, so a blob that is there is whole. Hashing and copying run on a worker
 * of http. */
#include "api/api_int.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, PIECE = 1 << 20, HEX = 64 };
#define BLOB_MAX ((uint64_t)1 << 40)

typedef struct {
    sq_api *api;
    sq_http_req *req;
    char hex[HEX + 1];
    char path[PATH_BYTES];
    char dir[PATH_BYTES];
    const char *file; /* NULL: `body` */
    sq_span body;
    sq_api_error error;
    sq_newfile out;
    EVP_MD_CTX *md;
    unsigned char piece[PIECE];
} upload;

static bool read_digest(const char *rest, char hex[HEX + 1]) {
    if (strncmp(rest, "sha256:", 7) != 0 && strncmp(rest, "sha256-", 7) != 0) return false;
    if (strlen(rest + 7) != HEX || strspn(rest + 7, "0123456789abcdef") != HEX) return false;
    memcpy(hex, rest + 7, HEX + 1);
    return true;
}

static bool lib_error(upload *u, const squish_error *err) { return sq_api_refuse_lib(&u->error, err); }

/* ---- on a worker ----------------------------------------------------------------------------- */

static bool add_piece(upload *u, uint64_t at, const void *p, size_t n) {
    squish_error err = {0};
    if (at == 0 && (n < 4 || memcmp(p, "GGUF", 4) != 0))
        return sq_api_refuse(&u->error, 400, "invalid_value", NULL, "the blob is no GGUF file");
    EVP_DigestUpdate(u->md, p, n);
    return sq_os_newfile_write_at(&u->out, at, p, n, &err) == SQUISH_OK || lib_error(u, &err);
}

static bool add_file(upload *u) {
    const int fd = open(u->file, O_RDONLY | O_CLOEXEC);
    uint64_t at = 0;
    ssize_t n = fd < 0 ? -1 : 0;
    bool ok = fd >= 0;
    while (ok && (n = read(fd, u->piece, PIECE)) > 0) {
        ok = add_piece(u, at, u->piece, (size_t)n);
        at += (uint64_t)n;
    }
    if (n < 0) {
        squish_error err = {0};
        sq_fail_errno(&err, errno, "the body that was received");
        lib_error(u, &err);
    }
    if (fd >= 0) close(fd);
    return u->error.status == 0;
}

static bool has_digest(upload *u) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    EVP_DigestFinal_ex(u->md, sum, NULL);
    sq_api_hex(sum, 32, hex);
    return strcmp(hex, u->hex) == 0 ||
           sq_api_refuse(&u->error, 400, "digest_mismatch", NULL,
                         "the body has the digest sha256:%s, wanted sha256:%s", hex, u->hex);
}

static void store(void *user) {
    upload *u = user;
    squish_error err = {0};
    const uint64_t bytes = u->file ? sq_os_file_bytes(u->file) : u->body.n;
    u->md = EVP_MD_CTX_new();
    if (!u->md || !EVP_DigestInit_ex(u->md, EVP_sha256(), NULL)) {
        sq_api_refuse(&u->error, 503, "insufficient_memory", NULL, "the request found no memory");
    } else if (sq_os_mkdirs(u->dir, &err) != SQUISH_OK ||
               sq_os_newfile_open(&u->out, u->path, bytes, &err) != SQUISH_OK) {
        lib_error(u, &err);
    } else {
        const bool ok = (u->file ? add_file(u) : add_piece(u, 0, u->body.p, u->body.n)) && has_digest(u);
        if (ok && sq_os_newfile_publish(&u->out, &err) != SQUISH_OK) lib_error(u, &err);
        sq_os_newfile_abandon(&u->out);
    }
    EVP_MD_CTX_free(u->md);
}

static void stored(void *user) {
    upload *u = user;
    const squish_alloc a = u->api->alloc;
    if (u->error.status)
        sq_api_reply_error(u->req, &u->error);
    else
        sq_http_reply(u->req, 201, NULL, "", 0);
    sq_alloc_free(&a, u, sizeof *u);
}

/* ---- routes ---------------------------------------------------------------------------------- */

static void post(sq_api *api, sq_http_req *r, const char *hex, const char *dir, const char *path) {
    sq_api_error e = {0};
    upload *u = sq_alloc_zero(&api->alloc, sizeof *u);
    if (u) {
        u->api = api;
        u->req = r;
        memcpy(u->hex, hex, sizeof u->hex);
        snprintf(u->path, sizeof u->path, "%s", path);
        snprintf(u->dir, sizeof u->dir, "%s", dir);
        u->file = sq_http_body_file(r);
        u->body = sq_http_body(r);
        if (sq_http_work(api->http, store, stored, u) == SQUISH_OK) return;
    }
    sq_alloc_free(&api->alloc, u, sizeof *u);
    sq_api_refuse(&e, 503, "insufficient_memory", NULL, "the request found no memory");
    sq_api_reply_error(r, &e);
}

static void blobs(void *user, sq_http_req *r) {
    sq_api *api = user;
    sq_api_error e = {0};
    squish_error err = {0};
    char hex[HEX + 1], what[HEX + 32], path[PATH_BYTES], dir[PATH_BYTES];
    if (!read_digest(sq_http_rest(r), hex)) {
        sq_api_refuse(&e, 400, "invalid_value", NULL, "wanted /api/blobs/sha256:64 hex digits");
        sq_api_reply_error(r, &e);
        return;
    }
    snprintf(what, sizeof what, "blobs/sha256-%s", hex);
    if (sq_api_home(api, what, path, sizeof path, &err) != SQUISH_OK ||
        sq_api_home(api, "blobs", dir, sizeof dir, &err) != SQUISH_OK) {
        sq_api_refuse_lib(&e, &err);
        sq_api_reply_error(r, &e);
        return;
    }
    if (sq_http_method_of(r) == SQ_HTTP_HEAD)
        sq_http_reply(r, sq_os_exists(path) ? 200 : 404, NULL, "", 0);
    else
        post(api, r, hex, dir, path);
}

static const sq_http_route routes[] = {
    {SQ_HTTP_HEAD | SQ_HTTP_POST, "/api/blobs/*", SQ_HTTP_RAW_BODY, BLOB_MAX, blobs},
};
const sq_api_routes sq_api_routes_blobs = {routes, SQ_COUNT(routes)};
