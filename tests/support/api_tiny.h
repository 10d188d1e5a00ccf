/* SPDX-License-Identifier: Apache-2.0
 *
 * api_tiny.h - a model of two layers of random weights behind squish-tiny's tokenizer, for tests of the
 * server: its answers mean nothing, and cost next to nothing. Everything is static inline. */
#ifndef SQ_TEST_API_TINY_H
#define SQ_TEST_API_TINY_H

#include "support/tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const api_tiny_borrowed[] = {"tokenizer.json", "tokenizer_config.json",
                                                "generation_config.json"};

/* In a new folder: folder is a template of mkdtemp. shipped: squish-tiny's. */
static inline bool api_tiny_make(char *folder, const char *shipped) {
    char from[4200], to[256], *real = realpath(shipped, NULL);
    tiny_spec spec = tiny_default();
    spec.layers = 2;
    spec.hidden = 64;
    spec.head_dim = 16;
    spec.vocab = 12288;
    spec.tied = true;
    spec.ctx = 4096;
    bool ok = real && mkdtemp(folder);
    if (ok) tiny_write(&spec, folder);
    for (size_t i = 0; ok && i < 3; i++) {
        snprintf(from, sizeof from, "%s/%s", real, api_tiny_borrowed[i]);
        snprintf(to, sizeof to, "%s/%s", folder, api_tiny_borrowed[i]);
        ok = symlink(from, to) == 0;
    }
    free(real);
    return ok;
}

/* 0: it is gone. */
static inline int api_tiny_remove(const char *folder) {
    static const char *const made[] = {"config.json", "model.safetensors"};
    char path[256];
    for (size_t i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, i < 2 ? made[i] : api_tiny_borrowed[i - 2]);
        unlink(path);
    }
    return rmdir(folder);
}

#endif
