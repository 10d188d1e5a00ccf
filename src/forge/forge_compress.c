/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_compress.c - one build from wish to sentinel: what is asked for, is it there already, where
 * everything goes, who may build, and what is left when it fails.
 *
 * One build of a tier runs at a time, told by the lock; builds of different tiers do not meet. */
#include "forge/forge_calibration.h"
#include "forge/forge_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- the wish -------------------------------------------------------------------------------- */

static squish_status check_group(const squish_compress_options *o, squish_error *err) {
    const bool ok = o->group == SQ_GROUP || (o->group == 0 && o->bits == 8) ||
                    (o->group == 32 && (o->bits == 8 || o->bits == 4));
    if (ok) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "group is %d, wanted 64%s", o->group,
                   o->bits == 8   ? ", 32, or 0 (per row)"
                   : o->bits == 4 ? " or 32"
                                  : " with fewer than 4 bits");
}

/* The expensive methods are for 4 to 2 bits in groups of 64. */
static squish_status check_method(const squish_compress_options *o, squish_error *err) {
    const char *name = sq_method_name(o->method);
    if (name[0] == '?')
        return sq_fail(err, SQUISH_INVALID, "method is %d, wanted rtn, lsq, awq, gptq or milo",
                       (int)o->method);
    if (o->method == SQUISH_METHOD_RTN && o->calibration && o->calibration[0])
        return sq_fail(err, SQUISH_INVALID, "method rtn looks at no calibration (%s)", o->calibration);
    if (o->method == SQUISH_METHOD_RTN || o->method == SQUISH_METHOD_LSQ) return SQUISH_OK;
    if (o->tier != SQUISH_TIER_0 || o->bits < 2)
        return sq_fail(err, SQUISH_INVALID, "method %s makes 4, 3 or 2 bits, not %s", name,
                       o->bits == 8 ? "8" : "1.58");
    if (o->group != SQ_GROUP)
        return sq_fail(err, SQUISH_INVALID, "method %s: group is %d, wanted 64", name, o->group);
    if (sq_method_needs_calibration(o->method) && o->calibration && !o->calibration[0])
        return sq_fail(err, SQUISH_INVALID, "method %s needs a calibration", name);
    return SQUISH_OK;
}

static const double RANK_BPW = 0.15, RANK_BPW_MAX = 8;

static squish_status check_rank(squish_compress_options *o, squish_error *err) {
    const bool milo = o->method == SQUISH_METHOD_MILO;
    if (!milo && (o->rank != 0 || o->rank_bpw != 0))
        return sq_fail(err, SQUISH_INVALID, "method %s has no compensators, rank is of milo",
                       sq_method_name(o->method));
    if (o->rank < 0 || o->rank > SQ_MILO_RANK_MAX)
        return sq_fail(err, SQUISH_INVALID, "rank is %d, wanted 1 to %d, or 0 (by gain)", o->rank,
                       SQ_MILO_RANK_MAX);
    if (!(o->rank_bpw >= 0 && o->rank_bpw <= RANK_BPW_MAX))
        return sq_fail(err, SQUISH_INVALID, "rank_bpw is %g, wanted more than 0, at most %g", o->rank_bpw,
                       RANK_BPW_MAX);
    if (milo && o->rank_bpw == 0) o->rank_bpw = RANK_BPW;
    return SQUISH_OK;
}

squish_status sq_forge_resolve(const squish_compress_options *in, squish_compress_options *out,
                               squish_error *err) {
    squish_compress_options *o = out;
    *o = *in;
    const sq_tier_info *tier = sq_tier_get(o->tier);
    if (!tier) return sq_fail(err, SQUISH_INVALID, "only tiers 0, q8, 1, 2 and 3 can be built");
    if (o->threads < 0 || o->threads > 1024)
        return sq_fail(err, SQUISH_INVALID, "threads is %d, wanted 0 (all) to 1024", o->threads);
    if (!tier->sqw) return SQUISH_OK;
    const bool four = o->tier == SQUISH_TIER_0;
    if (o->bits == 0) o->bits = four ? 4 : 8;
    if (four ? o->bits < 1 || o->bits > 4 : o->bits != 8)
        return sq_fail(err, SQUISH_INVALID, "tier %s has %s bits, not %d", tier->name,
                       four ? "4, 3, 2 or 1.58" : "8", o->bits);
    SQ_TRY(check_method(o, err));
    SQ_TRY(check_group(o, err));
    return check_rank(o, err);
}

/* ---- is it there? ---------------------------------------------------------------------------- */

/* What a ready file says of its recipe. */
typedef struct {
    json_t *json;
    long long bits, group;
    const char *method; /* NULL: it does not say */
    bool anew;
} recipe;

static squish_status read_recipe(const sq_sqw *s, const char *path, recipe *r, squish_error *err) {
    const sq_span text = sq_sqw_section_of(s, SQ_SEC_RECP);
    *r = (recipe){0};
    if (text.n <= 1) return SQUISH_OK;
    SQ_TRY(sq_json_parse((const char *)text.p, text.n - 1, SQ_JSON_DEPTH, path, &r->json, err));
    r->bits = json_integer_value(json_object_get(r->json, "bits"));
    r->group = json_integer_value(json_object_get(r->json, "group"));
    r->method = json_string_value(json_object_get(r->json, "method"));
    r->anew = json_is_true(json_object_get(r->json, "requantise"));
    return SQUISH_OK;
}

/* The calibration that would be used now against the one that was. One that merely lies beside the tiers is
 * no reason to refuse a file made before it was there, but one to refine it. */
static squish_status same_calibration(const sq_sqw *s, const char *compressed, const recipe *r,
                                      const squish_compress_options *o, bool *same, squish_error *err) {
    const char *sum = json_string_value(json_object_get(r->json, "calibration"));
    const sq_span config = sq_sqw_section_of(s, SQ_SEC_NCFG);
    const squish_alloc alloc = o->alloc ? *o->alloc : sq_alloc_default();
    sq_calibration *k = NULL;
    sq_config c;
    char path[SQ_FORGE_PATH], now[20] = "";
    *same = true;
    if (!o->calibration && !o->refine) return SQUISH_OK;
    if (sq_forge_calibration_path(compressed, o, path, sizeof path)) {
        memcpy(&c, config.p, sizeof c);
        SQ_TRY(sq_calibration_open(&k, path, &c, &alloc, err));
        snprintf(now, sizeof now, "%016" PRIx64, sq_calibration_sum(k));
        sq_calibration_close(k);
    } else if (!o->calibration) {
        return SQUISH_OK; /* it went since */
    }
    *same = strcmp(sum ? sum : "", now) == 0;
    return SQUISH_OK;
}

/* Eight bits are made in one way, whatever the method. */
static bool same_method(const recipe *r, const squish_compress_options *o) {
    if (o->bits == 8 || !r->method) return true;
    if (strcmp(r->method, sq_method_name(o->method)) != 0) return false;
    if (o->method != SQUISH_METHOD_MILO) return true;
    return json_integer_value(json_object_get(r->json, "rank")) == o->rank &&
           (o->rank > 0 || json_number_value(json_object_get(r->json, "rank_bpw")) == o->rank_bpw);
}

static squish_status judge_recipe(const sq_sqw *s, const char *compressed, const char *path, const recipe *r,
                                  const squish_compress_options *o, bool *same, squish_error *err) {
    bool calibration = true;
    const bool kind = r->bits == o->bits && r->group == o->group && r->anew == o->requantise;
    const bool method = same_method(r, o);
    SQ_TRY(same_calibration(s, compressed, r, o, &calibration, err));
    *same = kind && method && calibration;
    if (*same || (kind && o->refine)) return SQUISH_OK;
    const bool named = r->method && strcmp(r->method, sq_method_name(o->method)) != 0;
    return sq_fail(err, SQUISH_INVALID,
                   "%s is there with bits %lld, group %lld, method %s%s; wanted are %d, %d, %s%s%s%s "
                   "(--force builds it again)",
                   path, r->bits, r->group, r->method ? r->method : "?", r->anew ? ", new codes" : "",
                   o->bits, o->group, sq_method_name(o->method), o->requantise ? ", new codes" : "",
                   !method && !named ? ", other ranks" : "", calibration ? "" : ", another calibration");
}

/* Was the file made with the wish of o? Files that do not say were made with it. INVALID: it was not, and is
 * not to be replaced. */
static squish_status same_recipe(const char *compressed, const char *path, const squish_compress_options *o,
                                 bool *same, squish_error *err) {
    sq_sqw *s = NULL;
    recipe r = {0};
    *same = true;
    SQ_TRY(sq_sqw_open(&s, path, o->alloc, err));
    squish_status st = read_recipe(s, path, &r, err);
    if (st == SQUISH_OK && r.json) st = judge_recipe(s, compressed, path, &r, o, same, err);
    json_decref(r.json);
    sq_sqw_close(s);
    return st;
}

/* A file of a time when the config looked different is of no use, whatever its sentinel says. */
static bool current_config(const char *path, const squish_alloc *a) {
    sq_sqw *s = NULL;
    uint32_t version = 0;
    if (sq_sqw_open(&s, path, a, NULL) != SQUISH_OK) return false;
    const sq_span config = sq_sqw_section_of(s, SQ_SEC_NCFG);
    if (config.n == sizeof(sq_config)) memcpy(&version, config.p, sizeof version);
    sq_sqw_close(s);
    return version == SQ_CONFIG_VERSION;
}

/* What is there was measured when it was made; a collapsed one is no answer to a wish that refuses such. */
static squish_status reuse_quality(const squish_compress_options *o, squish_compress_result *out,
                                   squish_error *err) {
    sq_sqw *s = NULL;
    SQ_TRY(sq_sqw_open(&s, out->file, o->alloc, err));
    out->quality = (squish_quality)sq_sqw_quality(s);
    sq_sqw_close(s);
    if (out->quality != SQUISH_QUALITY_COLLAPSED || o->allow_collapsed) return SQUISH_OK;
    return sq_fail(err, SQUISH_QUALITY,
                   "%s: it is there, and was measured to be useless when it was made (--force builds "
                   "another, --allow-collapsed keeps it)",
                   out->file);
}

squish_status sq_forge_reuse(const char *compressed, const squish_compress_options *o,
                             squish_compress_result *out, squish_error *err) {
    uint64_t sum;
    memset(out, 0, sizeof *out);
    if (o->force || !sq_tier_ready(compressed, o->tier, out->file, sizeof out->file, NULL, 0))
        return SQUISH_OK;
    if (sq_tier_get(o->tier)->sqw) {
        if (!current_config(out->file, o->alloc)) return SQUISH_OK;
        bool same;
        SQ_TRY(same_recipe(compressed, out->file, o, &same, err));
        if (!same) return SQUISH_OK;
        SQ_TRY(reuse_quality(o, out, err));
    }
    out->reused = sq_tier_measure(o->tier, out->file, &out->bytes, &sum);
    return SQUISH_OK;
}

/* ---- places ---------------------------------------------------------------------------------- */

static squish_status find_places(const char *compressed, const sq_tier_info *tier, sq_places *p,
                                 squish_error *err) {
    if (snprintf(p->file, sizeof p->file, "%s/%s", compressed, tier->file) >= (int)sizeof p->file)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", compressed);
    p->tier = tier;
    snprintf(p->compressed, sizeof p->compressed, "%s", compressed);
    snprintf(p->sentinel, sizeof p->sentinel, "%s/%s", compressed, tier->sentinel);
    snprintf(p->assets, sizeof p->assets, "%s/assets", compressed);
    snprintf(p->build, sizeof p->build, "%s/.build", compressed);
    snprintf(p->lock, sizeof p->lock, "%s/.build/%s.lock", compressed, tier->name);
    snprintf(p->partial, sizeof p->partial, "%s/.build/%s.partial", compressed, tier->name);
    snprintf(p->journal, sizeof p->journal, "%s/.build/%s.journal", compressed, tier->name);
    snprintf(p->dir, sizeof p->dir, "%s", p->file);
    *strrchr(p->dir, '/') = '\0';
    return SQUISH_OK;
}

void sq_forge_clear_dir(const char *dir) {
    sq_arena ar;
    char **names = NULL, path[4096];
    size_t n = 0;
    sq_arena_init(&ar, NULL, 4096, 0);
    if (sq_os_list_dir(dir, &ar, &names, &n, NULL) != SQUISH_OK) n = 0;
    for (size_t i = 0; i < n; i++)
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path && !sq_os_is_dir(path))
            remove(path);
    sq_arena_deinit(&ar);
}

/* Assets belong to tiers 1 to 3 together and go with the last. */
static void tidy_assets(const sq_places *p) {
    static const squish_tier users[] = {SQUISH_TIER_1, SQUISH_TIER_2, SQUISH_TIER_3};
    char sentinel[SQ_FORGE_PATH + 64];
    for (size_t i = 0; i < SQ_COUNT(users); i++) {
        snprintf(sentinel, sizeof sentinel, "%s/%s", p->compressed, sq_tier_get(users[i])->sentinel);
        if (sq_os_exists(sentinel)) return;
    }
    sq_forge_clear_dir(p->assets);
    remove(p->assets);
}

/* Take away what the build no longer needs; after a failure also what it made. Folders go only if empty. The
 * lock is still held: who waits for it finds it gone and starts with a new one. */
static void tidy(const sq_places *p, bool failed, bool published, bool was_there) {
    remove(p->lock);
    remove(p->build);
    if (!failed) return;
    if (published && !p->tier->folder) remove(p->file); /* without its sentinel it is not a tier */
    if (p->tier->folder) remove(p->file);
    if (!p->tier->sqw)
        tidy_assets(p);
    else
        remove(p->dir);
    if (!was_there) remove(p->compressed);
}

/* ---- building -------------------------------------------------------------------------------- */

squish_status sq_forge_advance(sq_forge_job *j, uint64_t bytes, squish_error *err) {
    const double anon = (double)sq_os_rss_anon() / 1e6;
    j->done_bytes += bytes;
    if (anon > j->out->peak_anon_mb) j->out->peak_anon_mb = anon;
    if (j->o->progress && !j->o->progress(j->o->progress_user, "compress", j->done_bytes, j->total_bytes))
        return sq_fail(err, SQUISH_CANCELLED, "stopped");
    return SQUISH_OK;
}

/* Numpy tiers of large models are many gigabytes that nothing runs. */
static const uint64_t NPY_BYTES_MAX = 14000000000;

static bool skipped(sq_forge_job *j) {
    const uint64_t bytes = 2 * j->m->info.n_params;
    if (!j->at->tier->folder || bytes <= NPY_BYTES_MAX) return false;
    snprintf(j->out->skipped, sizeof j->out->skipped,
             "tier %s is not made above 14 GB of weights; these have %.1f GB", j->at->tier->name,
             (double)bytes / 1e9);
    return true;
}

static squish_status check_source(const sq_forge_job *j, squish_error *err) {
    const sq_model *m = j->m;
    if (m->sqw)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s is a tier already; compress takes its source",
                       m->info.path);
    if (j->at->tier->sqw) return SQUISH_OK;
    if (!m->st)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tier %s is made from safetensors checkpoints only",
                       m->info.path, j->at->tier->name);
    if (j->o->tier == SQUISH_TIER_1 && strcmp(m->info.tier, "1") == 0)
        return sq_fail(err, SQUISH_INVALID, "%s is tier 1 itself", m->info.path);
    return SQUISH_OK;
}

static squish_status build(sq_forge_job *j, bool *published, squish_error *err) {
    uint64_t bytes = 0, sum = 0;
    if (j->at->tier->sqw) {
        SQ_TRY(sq_pool_new(&j->pool, &j->alloc, j->o->threads ? j->o->threads : sq_os_cores(), err));
        SQ_TRY(sq_forge_build_sqw(j, &sum, err));
    } else {
        SQ_TRY(j->o->tier == SQUISH_TIER_1 ? sq_forge_build_tier1(j, err) : sq_forge_build_npy(j, err));
    }
    *published = true;
    if (!sq_tier_measure(j->o->tier, j->at->file, &bytes, &sum))
        return sq_fail(err, SQUISH_IO, "%s cannot be read back", j->at->file);
    j->out->bytes = bytes;
    j->out->bits_per_weight = 8.0 * (double)bytes / (double)j->m->info.n_params;
    return sq_sentinel_write(j->at->sentinel, j->at->file, bytes, sum, err);
}

static uint64_t source_bytes(const sq_model *m) {
    return m->st ? sq_st_bytes(m->st) : m->gguf ? sq_gguf_bytes(m->gguf) : m->info.weight_bytes;
}

squish_status sq_forge_compress(const sq_model *src, const char *compressed, const squish_compress_options *o,
                                sq_measure_fn measure, void *measure_user, squish_compress_result *out,
                                squish_error *err) {
    sq_places p;
    memset(out, 0, sizeof *out);
    SQ_TRY(find_places(compressed, sq_tier_get(o->tier), &p, err));
    sq_forge_job j = {
        .alloc = o->alloc ? *o->alloc : sq_alloc_default(), .o = o, .m = src, .at = &p, .out = out,
        .measure = measure, .measure_user = measure_user};
    snprintf(out->file, sizeof out->file, "%s", p.file);
    out->source_bytes = source_bytes(src);
    SQ_TRY(check_source(&j, err));
    if (skipped(&j)) return SQUISH_OK;
    const bool was_there = sq_os_is_dir(p.compressed);
    const uint64_t begin = sq_os_now_ns();
    bool published = false;
    int lock_fd = -1;
    SQ_TRY(sq_os_mkdirs(p.build, err));
    SQ_TRY(sq_os_lock(&lock_fd, p.lock, err));
    const squish_status st = build(&j, &published, err);
    out->seconds = (double)(sq_os_now_ns() - begin) / 1e9 - out->check_seconds;
    out->gb_per_s = (double)out->source_bytes / 1e9 / out->seconds;
    sq_pool_free(j.pool);
    tidy(&p, st != SQUISH_OK, published, was_there);
    sq_os_unlock(lock_fd);
    return st;
}
