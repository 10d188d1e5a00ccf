/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_int.h - libcurl, as the files of this room share it.
 *
 * It is opened when something is asked of another machine, and not before: with the thirty libraries behind
 * it, it would double the time squish takes to start. */
#ifndef SQ_FETCH_INT_H
#define SQ_FETCH_INT_H

#include "fetch/fetch.h"

#ifdef SQ_HAVE_CURL
#include <curl/curl.h>

#define FETCH_CURL_CALLS(X)                                                                                  \
    X(easy_init)                                                                                             \
    X(easy_setopt)                                                                                           \
    X(easy_getinfo)                                                                                          \
    X(easy_perform)                                                                                          \
    X(easy_strerror)                                                                                         \
    X(easy_cleanup)                                                                                          \
    X(easy_reset)                                                                                            \
    X(slist_append)                                                                                          \
    X(slist_free_all)                                                                                        \
    X(multi_init)                                                                                            \
    X(multi_setopt)                                                                                          \
    X(multi_add_handle)                                                                                      \
    X(multi_remove_handle)                                                                                   \
    X(multi_perform)                                                                                         \
    X(multi_poll)                                                                                            \
    X(multi_info_read)                                                                                       \
    X(multi_cleanup)
#define FETCH_CURL_MEMBER(name) __typeof__(&curl_##name) name;
typedef struct {
    FETCH_CURL_CALLS(FETCH_CURL_MEMBER)
} fetch_libcurl;
/* false: libcurl.so.4 is not on this machine. */
bool fetch_libcurl_open(fetch_libcurl *l);
#endif

#endif
