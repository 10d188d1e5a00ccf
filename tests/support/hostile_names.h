/* SPDX-License-Identifier: Apache-2.0
 *
 * hostile_names.h - 500 names that want out of the store, and a folder outside of it where each open is seen:
 *
 *     TOP/home/models/link -> TOP/outside/models/secret        TOP/outside/models/secret/config.json */
#ifndef SQ_TEST_HOSTILE_NAMES_H
#define SQ_TEST_HOSTILE_NAMES_H

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { HOSTILE_NAMES = 500 };

typedef struct {
    char top[64], home[80], outside[80];
    int fd; /* of inotify */
} hostile_place;

/* The i-th of 500: ways out, in forms that some decoder somewhere takes for a way out. */
static inline void hostile_name(int i, const char *outside, char *out, size_t n) {
    static const char *const ways[] = {"../",
                                       "..\\",
                                       "%2e%2e/",
                                       "..%2f",
                                       "%2e%2e%2f",
                                       "....//",
                                       "..;/",
                                       "/",
                                       "//",
                                       "~/",
                                       "file:///",
                                       "./../",
                                       "a/../../",
                                       "hf.co/../",
                                       "hf.co/a/../",
                                       "hf.co/a/..",
                                       "hf.co//",
                                       "ollama.com/../",
                                       "\xc0\xae\xc0\xae/",
                                       "models/../../"};
    static const char *const ends[] = {"secret",
                                       "outside/models/secret",
                                       "secret:latest",
                                       "secret\n",
                                       "secret .",
                                       "secret/.",
                                       "secret\\..",
                                       "CON",
                                       ".secret",
                                       "secret.made.json",
                                       "secret:../x",
                                       "sha256-../secret",
                                       "secret@../x",
                                       "secret%00",
                                       "secret\x7f",
                                       "-rf",
                                       "..",
                                       "secret/../../..",
                                       "\xff\xfe",
                                       "secret?x#y",
                                       "outside",
                                       "link",
                                       "link/secret",
                                       "LINK/secret",
                                       "models/link/secret"};
    const int way = i % (int)SQ_COUNT(ways), end = i / (int)SQ_COUNT(ways) % (int)SQ_COUNT(ends);
    if (way == 7)
        snprintf(out, n, "%s/%s", outside, ends[end]); /* absolute */
    else
        snprintf(out, n, "%s%s", ways[way], ends[end]);
}

static inline int hostile_events(int fd) {
    char bytes[16384];
    int n = 0;
    for (ssize_t got; (got = read(fd, bytes, sizeof bytes)) > 0;)
        for (ssize_t at = 0; at < got; n++)
            at +=
                (ssize_t)(sizeof(struct inotify_event) + ((struct inotify_event *)(void *)(bytes + at))->len);
    return n;
}

static inline bool hostile_begin(hostile_place *h) {
    static const char *const watched[] = {"", "/models", "/models/secret"};
    char path[256], link_to[256];
    snprintf(h->top, sizeof h->top, "/tmp/squish-names-XXXXXX");
    if (!mkdtemp(h->top)) return false;
    snprintf(h->home, sizeof h->home, "%s/home", h->top);
    snprintf(h->outside, sizeof h->outside, "%s/outside", h->top);
    snprintf(link_to, sizeof link_to, "%s/models/secret", h->outside);
    snprintf(path, sizeof path, "%s/models", h->home);
    if (sq_os_mkdirs(link_to, NULL) != SQUISH_OK || sq_os_mkdirs(path, NULL) != SQUISH_OK) return false;
    snprintf(path, sizeof path, "%s/models/link", h->home);
    if (symlink(link_to, path) != 0) return false;
    snprintf(path, sizeof path, "%s/models/secret/config.json", h->outside);
    FILE *f = fopen(path, "wb");
    if (!f || fputs("{}", f) < 0 || fclose(f) != 0) return false;
    h->fd = inotify_init1(IN_NONBLOCK);
    for (size_t i = 0; i < SQ_COUNT(watched); i++) {
        snprintf(path, sizeof path, "%s%s", h->outside, watched[i]);
        if (inotify_add_watch(h->fd, path, IN_ALL_EVENTS) < 0) return false;
    }
    return true;
}

/* Has nothing outside been touched, and would it have been seen? */
static inline bool hostile_end(hostile_place *h) {
    char path[256];
    const int n = hostile_events(h->fd);
    snprintf(path, sizeof path, "%s/models/secret/config.json", h->outside);
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    const bool seen = hostile_events(h->fd) > 0;
    close(h->fd);
    if (n) printf("%d events outside\n", n);
    return f && n == 0 && seen;
}

#endif
