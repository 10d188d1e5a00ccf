/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_model.c - what can be asked of an open model, names, and the building of tiers. */
#include "lib/lib_quality.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

squish_model_options squish_model_options_default(void) {
    return (squish_model_options){.tier = SQUISH_TIER_AUTO};
}

void squish_model_close(squish_model *m) { sq_model_close(m); }
void squish_model_get_info(const squish_model *m, squish_model_info *out) { *out = m->info; }

bool squish_model_tensor(const squish_model *m, size_t i, squish_tensor_info *out) {
    if (i >= m->n_tensors) return false;
    *out = m->tensors[i];
    return true;
}

const char *squish_model_config_json(const squish_model *m) { return m->config_json; }
const char *squish_model_generation_json(const squish_model *m) { return m->generation_json; }

/* ---- names and tiers ------------------------------------------------------------------------- */

static squish_status give_text(const char *s, squish_text *out, squish_error *err) {
    sq_buf b;
    const squish_alloc a = sq_alloc_default();
    sq_buf_init(&b, &a, 8 << 20);
    sq_buf_puts(&b, s);
    return sq_buf_take(&b, out, err);
}

squish_status squish_locate(const char *home, const char *name, squish_text *path, squish_error *err) {
    char found[4096];
    *path = (squish_text){0};
    SQ_TRY(sq_store_locate(home, name, found, sizeof found, err));
    return give_text(found, path, err);
}

squish_status squish_made_json(const char *home, const char *name, squish_text *out, squish_error *err) {
    sq_store_made made;
    *out = (squish_text){0};
    SQ_TRY(sq_store_made_read(home, name, &made, err));
    char *text = sq_store_made_text(&made);
    json_decref(made.root);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", name);
    const squish_status st = give_text(text, out, err);
    free(text); /* jansson's */
    return st;
}

typedef struct {
    squish_list_fn fn;
    void *user;
    const char *home;
    bool stopped;
} list_ctx;

static bool list_one(void *user, const char *name, const char *path) {
    list_ctx *c = user;
    char dir[4096] = "", file[4096], tiers[64] = "";
    uint64_t bytes = sq_os_is_dir(path) ? sq_store_dir_bytes(path) : sq_os_file_bytes(path);
    if (sq_os_is_dir(path) &&
        sq_store_compressed_dir(path, NULL, c->home, dir, sizeof dir, NULL) == SQUISH_OK) {
        static const squish_tier all[] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1, SQUISH_TIER_2,
                                          SQUISH_TIER_3};
        for (size_t i = 0; i < SQ_COUNT(all); i++) {
            if (!sq_tier_ready(dir, all[i], file, sizeof file, NULL, 0)) continue;
            const size_t n = strlen(tiers);
            snprintf(tiers + n, sizeof tiers - n, "%s%s", n ? "," : "", sq_tier_get(all[i])->name);
            bytes += sq_tier_get(all[i])->folder ? sq_store_dir_bytes(file) : sq_os_file_bytes(file);
        }
    }
    c->stopped = !c->fn(c->user, name, path, bytes, tiers);
    return !c->stopped;
}

static bool list_made(void *user, const char *name, const char *path, const sq_store_made *made) {
    (void)made;
    const list_ctx *c = user;
    return c->fn(c->user, name, path, sq_os_file_bytes(path), "made");
}

squish_status squish_list(const char *home, squish_list_fn fn, void *user, squish_error *err) {
    list_ctx c = {fn, user, home, false};
    SQ_TRY(sq_store_list(home, list_one, &c, err));
    return c.stopped ? SQUISH_OK : sq_store_made_each(home, list_made, &c, err);
}

void squish_list_model(const char *home, const char *name, const char *path, squish_list_fn fn, void *user) {
    list_ctx c = {fn, user, home, false};
    list_one(&c, name, path);
}

const char *squish_quality_name(squish_quality q) {
    static const char *const names[] = {"unverified", "ok", "degraded", "collapsed"};
    return q >= SQUISH_QUALITY_UNVERIFIED && q <= SQUISH_QUALITY_COLLAPSED ? names[q] : "?";
}

squish_compress_options squish_compress_options_default(void) {
    return (squish_compress_options){.tier = SQUISH_TIER_0, .method = SQUISH_METHOD_LSQ, .group = SQ_GROUP};
}

squish_status squish_compress(const char *src, const squish_compress_options *opt,
                              squish_compress_result *out, squish_error *err) {
    const squish_compress_options wish = opt ? *opt : squish_compress_options_default();
    squish_compress_options o;
    char dir[4096];
    memset(out, 0, sizeof *out);
    if (!sq_os_exists(src)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", src);
    SQ_TRY(sq_forge_resolve(&wish, &o, err));
    SQ_TRY(sq_store_compressed_dir(src, o.out_dir, o.home, dir, sizeof dir, err));
    SQ_TRY(sq_forge_reuse(dir, &o, out, err));
    if (out->reused) return SQUISH_OK;
    squish_model *m = NULL;
    const squish_model_options mo = {.alloc = o.alloc, .tier = SQUISH_TIER_SOURCE};
    SQ_TRY(squish_model_open(&m, src, &mo, err));
    sq_quality_options check = {o.threads, o.progress, o.progress_user};
    const squish_status st = sq_forge_compress(m, dir, &o, sq_quality_measure_file, &check, out, err);
    squish_model_close(m);
    return st;
}

squish_status squish_compress_expect(const char *src, const squish_compress_options *opt,
                                     squish_compress_estimate *out, squish_error *err) {
    static const double SAMPLE_SECONDS = 0.2;
    const squish_compress_options wish = opt ? *opt : squish_compress_options_default();
    squish_compress_options o;
    squish_model *m = NULL;
    *out = (squish_compress_estimate){0};
    if (!sq_os_exists(src)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", src);
    SQ_TRY(sq_forge_resolve(&wish, &o, err));
    const squish_model_options mo = {.alloc = o.alloc, .tier = SQUISH_TIER_SOURCE};
    SQ_TRY(squish_model_open(&m, src, &mo, err));
    out->source_bytes = m->info.weight_bytes;
    out->bytes = m->info.weight_bytes;
    if (sq_tier_get(o.tier)->sqw) {
        const int32_t threads = o.threads ? o.threads : sq_os_cores();
        const double rate = sq_forge_encode_rate(m, &o, SAMPLE_SECONDS) * threads;
        out->bytes = sq_forge_size(m, &o);
        out->gb_per_s = rate / 1e9;
        out->seconds = rate > 0 ? (double)out->source_bytes / rate : 0;
    }
    squish_model_close(m);
    return SQUISH_OK;
}

squish_status squish_tier_path(const char *src, const squish_compress_options *opt, squish_text *file,
                               bool *ready, squish_error *err) {
    const squish_compress_options o = opt ? *opt : squish_compress_options_default();
    char dir[4096], path[4096];
    *file = (squish_text){0};
    SQ_TRY(sq_store_compressed_dir(src, o.out_dir, o.home, dir, sizeof dir, err));
    const sq_tier_info *t = sq_tier_get(o.tier);
    if (!t) return sq_fail(err, SQUISH_INVALID, "only tiers 0, q8, 1, 2 and 3 have a file");
    const bool is_ready = sq_tier_ready(dir, o.tier, path, sizeof path, NULL, 0);
    if (ready) *ready = is_ready;
    return give_text(path, file, err);
}
