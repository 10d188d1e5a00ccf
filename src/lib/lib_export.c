/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_export.c - a model in the form of others, and where the words that belong to it lie. */
#include "forge/forge_export.h"
#include "squish_build.h"

#include <stdio.h>
#include <string.h>

static bool has_tokenizer(const char *dir) {
    char path[1200];
    return snprintf(path, sizeof path, "%s/tokenizer.json", dir) < (int)sizeof path && sq_os_exists(path);
}

/* Cut the last component off. */
static bool parent(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash || slash == path) return false;
    *slash = 0;
    return true;
}

/* A file keeps its vocabulary in its own keys. */
static bool is_gguf(const char *path) {
    const size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0 && sq_os_exists(path);
}

/* A checkpoint is its own folder; NAME-compressed/TIER/model.sqw has NAME-compressed/assets and maybe NAME.
 */
static bool find_assets(const squish_model *m, char *out, size_t n) {
    static const char suffix[] = "-compressed";
    char dir[1100];
    if (snprintf(out, n, "%s", m->info.path) >= (int)n) return false;
    if (has_tokenizer(out)) return true;
    while (parent(out)) {
        const size_t len = strlen(out);
        if (len < sizeof suffix || strcmp(out + len - strlen(suffix), suffix) != 0) continue;
        if (snprintf(dir, sizeof dir, "%s/assets", out) >= (int)sizeof dir) return false;
        if (has_tokenizer(dir)) return snprintf(out, n, "%s", dir) < (int)n;
        out[len - strlen(suffix)] = 0;
        return has_tokenizer(out) || is_gguf(out);
    }
    return false;
}

squish_status squish_export(const squish_model *m, const char *to, const char *out,
                            const squish_export_options *opt, squish_export_result *r, squish_error *err) {
    static const struct {
        const char *name;
        squish_status (*run)(const sq_model *m, const char *assets, const char *out,
                             squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err);
    } forms[] = {{"mlx", sq_export_mlx},
                 {"gguf", sq_export_gguf},
                 {"safetensors", sq_export_safetensors},
                 {"npy", sq_export_npy}};
    const squish_export_options o = opt ? *opt : (squish_export_options){0};
    char assets[1100];
    sq_export_result made;
    *r = (squish_export_result){0};
    const char *from = o.assets ? o.assets : find_assets(m, assets, sizeof assets) ? assets : NULL;
    for (size_t i = 0; to && i < SQ_COUNT(forms); i++) {
        if (strcmp(to, forms[i].name) != 0) continue;
        SQ_TRY(forms[i].run(m, from, out, o.progress, o.progress_user, &made, err));
        *r = (squish_export_result){made.bytes, made.n_exact, made.n_decoded, made.has_tokenizer};
        return SQUISH_OK;
    }
    return sq_fail(err, SQUISH_INVALID, "cannot export to '%.40s' (wanted mlx, gguf, safetensors or npy)",
                   to ? to : "");
}
