/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.h - asking other machines over HTTP: one request at a time, through libcurl.
 *
 * Nothing in the library uses it, and no command that was not told to. Certificates are always checked. A
 * redirect may only lead to https. Threads: each call stands alone. */
#ifndef SQ_FETCH_H
#define SQ_FETCH_H

#include "base/base.h"

enum { FETCH_TEXT_MAX = 64 << 20 }; /* bytes of an answer that is kept in memory */

/* Bytes of the answer as they come; false stops (CANCELLED). */
typedef bool (*fetch_sink)(void *user, const char *bytes, size_t n);
typedef struct {
    const char *url;    /* http or https */
    const char *json;   /* POST this; NULL: GET */
    double timeout_s;   /* of the whole; 0: none, but a connection that says nothing for 60 s is over */
    uint64_t bytes_max; /* 0: no bound */
    fetch_sink sink;
    void *user;
    const char *key; /* Authorization: Bearer; redirects are not followed then. NULL: none */
} fetch_request;
/* Run it. *code: the status of HTTP, 200 to 299 for OK; bodies of other answers do not go to the sink.
 * Errors: NETWORK (one line: the address, what happened), CORRUPT (over bytes_max), CANCELLED. */
squish_status fetch_run(const fetch_request *r, long *code, squish_error *err);

/* The same into memory: out is NUL-terminated and the caller's (squish_text_free). */
squish_status fetch_text(const char *url, const char *json, double timeout_s, squish_text *out,
                         squish_error *err);
/* Of a server that may want a key (NULL: none). */
squish_status fetch_text_keyed(const char *url, const char *json, const char *key, double timeout_s,
                               squish_text *out, squish_error *err);

/* Fetch url into the file at path, which appears whole or not at all, and only if its SHA-256 is `sha256`
 * (64 hex digits, lower case). progress may be NULL. Errors: as above, CORRUPT (another sum, both named), IO,
 * NO_SPACE. */
squish_status fetch_file(const char *url, const char *sha256, const char *path, uint64_t bytes_max,
                         squish_progress_fn progress, void *progress_user, squish_error *err);

#endif
