/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch_curl.c - libcurl, looked up when it is needed. */
#include "fetch/fetch_int.h"

#ifdef SQ_HAVE_CURL
#include <dlfcn.h>

#define LOOK_UP(name) ok = ok && (*(void **)&l->name = dlsym(library, "curl_" #name));

bool fetch_libcurl_open(fetch_libcurl *l) {
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    bool ok = library != NULL;
    FETCH_CURL_CALLS(LOOK_UP)
    return ok;
}
#endif
