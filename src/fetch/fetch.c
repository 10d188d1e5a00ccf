/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.c - see fetch.h. */
#include "fetch/fetch_int.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#ifdef SQ_HAVE_CURL

enum { SILENCE_S = 60, CONNECT_S = 20, REDIRECTS_MAX = 5 };

typedef struct {
    const fetch_request *r;
    fetch_libcurl l;
    CURL *curl;
    uint64_t bytes;
    bool stopped, too_long;
} running;

static size_t take(char *bytes, size_t one, size_t n, void *user) {
    running *k = user;
    long code = 0;
    k->l.easy_getinfo(k->curl, CURLINFO_RESPONSE_CODE, &code);
    n *= one;
    if (code < 200 || code > 299) return n; /* what an error page says is nobody's data */
    k->bytes += n;
    k->too_long = k->r->bytes_max && k->bytes > k->r->bytes_max;
    if (!k->too_long) k->stopped = !k->r->sink(k->r->user, bytes, n);
    return k->too_long || k->stopped ? 0 : n;
}

static bool prepare(running *k, struct curl_slist **headers, char error[CURL_ERROR_SIZE]) {
    const fetch_libcurl *l = &k->l;
    CURL *c = k->curl;
    const fetch_request *r = k->r;
    bool ok = l->easy_setopt(c, CURLOPT_URL, r->url) == CURLE_OK &&
              l->easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
              l->easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "https") == CURLE_OK;
    l->easy_setopt(c, CURLOPT_ERRORBUFFER, error);
    l->easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    l->easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS_MAX);
    l->easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    l->easy_setopt(c, CURLOPT_USERAGENT, "squish/" SQUISH_VERSION);
    l->easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    l->easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    l->easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)SILENCE_S);
    if (r->timeout_s > 0) l->easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(r->timeout_s * 1000));
    l->easy_setopt(c, CURLOPT_WRITEFUNCTION, take);
    l->easy_setopt(c, CURLOPT_WRITEDATA, k);
    if (strncmp(r->url, "http://127.0.0.1:", 17) == 0 || strncmp(r->url, "http://localhost:", 17) == 0)
        l->easy_setopt(c, CURLOPT_PROXY, ""); /* a proxy would look for it on another machine */
    if (r->key) {
        char line[600];
        snprintf(line, sizeof line, "Authorization: Bearer %.500s", r->key);
        *headers = l->slist_append(NULL, line);
        ok = ok && *headers;
        l->easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    }
    if (r->json) {
        struct curl_slist *more = l->slist_append(*headers, "Content-Type: application/json");
        ok = ok && more && l->easy_setopt(c, CURLOPT_POSTFIELDS, r->json) == CURLE_OK;
        if (more) *headers = more;
    }
    if (*headers) l->easy_setopt(c, CURLOPT_HTTPHEADER, *headers);
    return ok;
}

static squish_status verdict(const running *k, CURLcode done, const char *said, long code,
                             squish_error *err) {
    const char *url = k->r->url;
    if (k->stopped) return sq_fail(err, SQUISH_CANCELLED, "stopped");
    if (k->too_long)
        return sq_fail(err, SQUISH_CORRUPT, "%.200s: more than the %llu bytes it may have", url,
                       (unsigned long long)k->r->bytes_max);
    if (done != CURLE_OK)
        return sq_fail(err, SQUISH_NETWORK, "%.200s: %.160s (is there a network?)", url,
                       *said ? said : k->l.easy_strerror(done));
    if (code < 200 || code > 299) return sq_fail(err, SQUISH_NETWORK, "%.200s: status %ld", url, code);
    return SQUISH_OK;
}

squish_status fetch_run(const fetch_request *r, long *code, squish_error *err) {
    running k = {.r = r};
    if (code) *code = 0;
    if (!fetch_libcurl_open(&k.l))
        return sq_fail(err, SQUISH_UNSUPPORTED, "%.200s: libcurl (libcurl.so.4) is not on this machine",
                       r->url);
    k.curl = k.l.easy_init();
    struct curl_slist *headers = NULL;
    char said[CURL_ERROR_SIZE] = "";
    long answered = 0;
    squish_status st;
    if (k.curl && prepare(&k, &headers, said)) {
        const CURLcode done = k.l.easy_perform(k.curl);
        k.l.easy_getinfo(k.curl, CURLINFO_RESPONSE_CODE, &answered);
        st = verdict(&k, done, said, answered, err);
    } else {
        st = sq_fail(err, SQUISH_NO_MEMORY, "%.200s: libcurl has no memory, or does not know this address",
                     r->url);
    }
    k.l.slist_free_all(headers);
    k.l.easy_cleanup(k.curl);
    if (code) *code = answered;
    return st;
}

#else

squish_status fetch_run(const fetch_request *r, long *code, squish_error *err) {
    if (code) *code = 0;
    return sq_fail(err, SQUISH_UNSUPPORTED, "%.200s: this squish was built without libcurl and asks nobody",
                   r->url);
}

#endif

/* ---- into memory ----------------------------------------------------------------------------- */

static bool keep(void *user, const char *bytes, size_t n) { return sq_buf_append(user, bytes, n); }

squish_status fetch_text(const char *url, const char *json, double timeout_s, squish_text *out,
                         squish_error *err) {
    return fetch_text_keyed(url, json, NULL, timeout_s, out, err);
}

squish_status fetch_text_keyed(const char *url, const char *json, const char *key, double timeout_s,
                               squish_text *out, squish_error *err) {
    const squish_alloc a = sq_alloc_default();
    sq_buf b;
    sq_buf_init(&b, &a, FETCH_TEXT_MAX);
    const fetch_request r = {url, json, timeout_s, FETCH_TEXT_MAX, keep, &b, key};
    squish_status st = fetch_run(&r, NULL, err);
    if (st == SQUISH_OK) st = sq_buf_take(&b, out, err);
    sq_buf_deinit(&b);
    return st;
}

/* ---- into a file ----------------------------------------------------------------------------- */

typedef struct {
    sq_newfile file;
    EVP_MD_CTX *sum;
    uint64_t bytes;
    squish_error err;
    const char *name;
    squish_progress_fn progress;
    void *progress_user;
} writing;

static bool write_out(void *user, const char *bytes, size_t n) {
    writing *w = user;
    if (!EVP_DigestUpdate(w->sum, bytes, n)) return false;
    if (sq_os_newfile_write_at(&w->file, w->bytes, bytes, n, &w->err) != SQUISH_OK) return false;
    w->bytes += n;
    return !w->progress || w->progress(w->progress_user, w->name, w->bytes, 0);
}

static squish_status check_sum(writing *w, const char *url, const char *wanted, squish_error *err) {
    uint8_t sum[EVP_MAX_MD_SIZE] = {0};
    char found[65] = "";
    unsigned n = 0;
    if (!EVP_DigestFinal_ex(w->sum, sum, &n) || n != 32)
        return sq_fail(err, SQUISH_NO_MEMORY, "%.200s: no sum could be taken", url);
    for (size_t i = 0; i < n; i++) snprintf(found + 2 * i, 3, "%02x", sum[i]);
    if (strcmp(found, wanted) == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%.160s: SHA-256 is %s, wanted %s (not kept)", url, found, wanted);
}

squish_status fetch_file(const char *url, const char *sha256, const char *path, uint64_t bytes_max,
                         squish_progress_fn progress, void *progress_user, squish_error *err) {
    const char *slash = strrchr(path, '/');
    writing w = {.name = slash ? slash + 1 : path, .progress = progress, .progress_user = progress_user};
    squish_status st = sq_os_newfile_open(&w.file, path, 0, err);
    if (st != SQUISH_OK) return st;
    w.sum = EVP_MD_CTX_new();
    if (!w.sum || !EVP_DigestInit_ex(w.sum, EVP_sha256(), NULL))
        SQ_GUARD(sq_fail(err, SQUISH_NO_MEMORY, "%.200s: no sum could be taken", url));
    const fetch_request r = {url, NULL, 0, bytes_max, write_out, &w, NULL};
    st = fetch_run(&r, NULL, err);
    if (w.err.code != SQUISH_OK && err) *err = w.err; /* what stopped it */
    if (w.err.code != SQUISH_OK) SQ_GUARD(w.err.code);
    if (st == SQUISH_OK) SQ_GUARD(check_sum(&w, url, sha256, err));
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&w.file, err);
fail:
    EVP_MD_CTX_free(w.sum);
    sq_os_newfile_abandon(&w.file);
    return st;
}
