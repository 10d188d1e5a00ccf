/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_heads_find.c - where the heads of a model lie. A file that is damaged or belongs to another model is
 * named with the reason; answers are the same without. */
#include "lib/lib_heads.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>

static const char compressed[] = "-compressed";

static bool cut_last(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) return false;
    *slash = 0;
    return true;
}

bool sq_heads_dir_of_tier(const char *path, char *out, size_t n) {
    const size_t len = strlen(path);
    if (len < 4 || strcmp(path + len - 4, ".sqw") != 0) return false;
    if (strchr(path, '/')) return snprintf(out, n, "%s", path) < (int)n && cut_last(out) && cut_last(out);
    return false;
}

static bool is_there(char *out, size_t n, const char *dir) {
    return snprintf(out, n, "%s/%s", dir, SQ_HEADS_FILE) < (int)n && sq_os_exists(out);
}

/* Beside the tiers, then beside the checkpoint they were made of. */
static bool find(const sq_model *m, const char *path, char *out, size_t n) {
    char dir[4096];
    if (sq_os_is_dir(path)) {
        if (sq_store_compressed_dir(path, NULL, NULL, dir, sizeof dir, NULL) == SQUISH_OK &&
            is_there(out, n, dir))
            return true;
        if (is_there(out, n, path)) return true;
    }
    if (!sq_heads_dir_of_tier(m->info.path, dir, sizeof dir)) return false;
    if (is_there(out, n, dir)) return true;
    const size_t len = strlen(dir), tail = sizeof compressed - 1;
    if (len <= tail || strcmp(dir + len - tail, compressed) != 0) return false;
    dir[len - tail] = 0;
    return is_there(out, n, dir);
}

void sq_heads_find(sq_model *m, const char *path, const squish_model_options *o) {
    char file[4500];
    squish_error err = {0};
    m->warn = o->warn;
    m->warn_user = o->warn_user;
    if (o->text_only || (o->heads && (!*o->heads || strcmp(o->heads, "none") == 0))) return;
    if (o->heads)
        snprintf(file, sizeof file, "%s", o->heads);
    else if (!find(m, path, file, sizeof file))
        return;
    if (sq_heads_open(&m->heads, file, m, &err) == SQUISH_OK)
        m->info.guess_heads = m->heads->n;
    else if (o->warn) {
        char line[sizeof err.text + 64];
        snprintf(line, sizeof line, "heads are not used: %s", err.text);
        o->warn(o->warn_user, line);
    }
}
