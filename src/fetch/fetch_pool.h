/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_pool.h - several GET requests at once, on one thread, through libcurl's multi interface.
 *
 *   fetch_pool_new -> fetch_pool_ask ... -> fetch_pool_wait, again and again -> fetch_pool_free
 *
 * An ask is one request with its redirects, which are followed here and not by libcurl: https never leads to
 * http, and the token goes to the origin (scheme, host and port) it belongs to and to no other, nor over http
 * to another machine. Bodies come to `sink` as they arrive; `begin` sees the head of the answer first and may
 * refuse it. `done` comes once for each ask, out of fetch_pool_wait, and may ask again.
 *
 * What went wrong is sorted: worth another try (a cut, a stall, 429, 5xx), or not (no such name, a
 * certificate, 401, 403, 404, 407). Each has one line that says what to do. Proxies are taken from the
 * environment as curl does (HTTPS_PROXY, NO_PROXY). Threads: a pool belongs to one thread. */
#ifndef SQ_FETCH_POOL_H
#define SQ_FETCH_POOL_H

#include "fetch/fetch.h"

enum { FETCH_URL_MAX = 4096, FETCH_REDIRECTS_MAX = 8, FETCH_POOL_MAX = 64 };

/* The head of an answer. What is not said is 0, false or "". */
typedef struct {
    long status;
    bool has_range, has_length;
    uint64_t from, to, total; /* Content-Range: bytes [from, to) of total (0: unknown) */
    uint64_t length;
    bool packed;          /* Content-Encoding is something else than identity */
    double retry_after_s; /* Retry-After in seconds; dates count as none */
    char etag[160];       /* without W/ and quotes */
    /* Said by any answer on the way, redirects included: */
    char linked_etag[160]; /* X-Linked-Etag: the sum of the file a hub redirects to */
    uint64_t linked_size;
    char error_code[64];      /* X-Error-Code of Hugging Face: GatedRepo, RepoNotFound, ... */
    char next[FETCH_URL_MAX]; /* Link: <..>; rel="next" */
} fetch_head;

typedef struct {
    squish_status st; /* OK: status 2xx and the whole body; CANCELLED: begin or sink refused */
    bool again;       /* worth another try */
    squish_error err;
    const fetch_head *head;
    const char *url; /* where the last redirect led */
} fetch_end;

typedef struct {
    const char *url;
    const char *token, *token_origin; /* Authorization: Bearer, for URLs of the same origin; NULL: none */
    const char *accept;               /* NULL: anything */
    uint64_t from, to;                /* Range; to 0: all of it, without a Range */
    bool unpack;                      /* let the other side compress, and undo it */
    uint64_t bytes_max;               /* of the body; 0: no bound */
    bool (*begin)(void *user, const fetch_head *head); /* of a 2xx; NULL: any will do */
    fetch_sink sink;                                   /* NULL: only the head matters */
    void (*done)(void *user, const fetch_end *end);
    void *user;
} fetch_ask; /* texts are copied */

typedef struct fetch_pool fetch_pool;
/* stall_s: a connection over which nothing came for so long is over. UNSUPPORTED: there is no libcurl. */
squish_status fetch_pool_new(fetch_pool **out, double stall_s, squish_error *err);
void fetch_pool_free(fetch_pool *p); /* what runs is dropped, without done */
/* Bytes a second of all connections together; 0: no bound. */
void fetch_pool_rate(fetch_pool *p, uint64_t bytes_s);
squish_status fetch_pool_ask(fetch_pool *p, const fetch_ask *ask, squish_error *err);
/* Run what was asked, for at most `seconds` or until something was done. Returns how many asks are running.
 */
int32_t fetch_pool_wait(fetch_pool *p, double seconds);

/* scheme://host[:port] of a URL into out [n]; a port that the scheme implies is left out. false: no http or
 * https URL, or one with a user in it, or too long. */
bool fetch_origin(const char *url, char *out, size_t n);
/* Bytes of "Content-Range: bytes 0-99/1000" (the value alone). false: not of that form. */
bool fetch_read_range(const char *value, uint64_t *from, uint64_t *to, uint64_t *total);
/* One line of a head, without its end, into h. */
void fetch_read_header(fetch_head *h, const char *line, size_t n);

#endif
