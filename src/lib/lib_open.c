/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_open.c - from a path to an open model: what the path is, which tier of it runs here, and what is tried
 * next where that one is gone or damaged.
 *
 * Tiers are looked at in the order 0, q8, 1, 2, 3 and last the checkpoint itself. One that is there but
 * cannot be used is named with the reason, and the next is taken; nothing is ever rebuilt or removed here.
 * Where several are ready and none was asked for, forge_plan.h chooses among the first three by memory and
 * speed; tiers 2 and 3 are for exchange and only stand in where nothing else is left. */
#include "forge/forge.h"
#include "forge/forge_plan.h"
#include "lib/lib_heads.h"
#include "store/store.h"

#include <stdio.h>
#include <string.h>

enum { LADDER = 5, PLANNED = 3, WHY = 200 };
static const squish_tier ladder[LADDER] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1, SQUISH_TIER_2,
                                           SQUISH_TIER_3};

/* What memory of an ordinary machine gives to reading; only the choice between ready tiers hangs on it. */
static const double ASSUMED_READ_GB_S = 10;

typedef struct {
    const char *dir;
    const squish_model_options *o;
    char compressed[4096];
    char path[LADDER][4096], why[LADDER][WHY];
    bool ready[LADDER], failed[LADDER];
} rungs;

static void say(const squish_model_options *o, const char *line) {
    if (o->warn) o->warn(o->warn_user, line);
}

static bool exists_in(const char *dir, const char *name) {
    char path[4500];
    return snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path && sq_os_exists(path);
}

/* A tier of which something is there: worth a word when it cannot be used. */
static bool has_traces(const rungs *r, int32_t i) {
    const sq_tier_info *t = sq_tier_get(ladder[i]);
    return exists_in(r->compressed, t->file) || exists_in(r->compressed, t->sentinel);
}

static void look(rungs *r) {
    for (int32_t i = 0; i < LADDER; i++) {
        char line[WHY + 200];
        r->ready[i] = sq_tier_ready(r->compressed, ladder[i], r->path[i], sizeof r->path[i], r->why[i],
                                    sizeof r->why[i]);
        if (r->ready[i] || !has_traces(r, i)) continue;
        if (r->o->tier != SQUISH_TIER_AUTO && r->o->tier != ladder[i]) continue;
        snprintf(line, sizeof line, "tier %s is not used: %s", sq_tier_get(ladder[i])->name, r->why[i]);
        say(r->o, line);
    }
}

static uint64_t tier_bytes(const rungs *r, int32_t i) {
    return sq_tier_get(ladder[i])->folder ? sq_store_dir_bytes(r->path[i]) : sq_os_file_bytes(r->path[i]);
}

/* Index into the ladder of the tier to try now; -1: none is left. */
static int32_t choose(const rungs *r) {
    sq_plan_input in = {.available = sq_os_memory_available(), .read_gb_s = ASSUMED_READ_GB_S};
    int32_t first = -1, n_ready = 0;
    for (int32_t i = LADDER - 1; i >= 0; i--)
        if (r->ready[i] && !r->failed[i]) first = i;
    for (int32_t i = 0; i < PLANNED; i++) {
        const uint64_t bytes = r->ready[i] ? tier_bytes(r, i) : 0;
        const bool usable = r->ready[i] && !r->failed[i];
        in.tiers[in.n++] = (sq_plan_tier){ladder[i], sq_tier_get(ladder[i])->name, usable, bytes, bytes, i};
        n_ready += usable;
    }
    if (n_ready < 2) return first;
    sq_plan p;
    sq_plan_decide(&in, &p);
    return p.index >= 0 ? p.index
                        : first; /* nothing fits: the smallest, and the engine says what is missing */
}

static squish_status open_rung(sq_model **out, const rungs *r, int32_t i, squish_error *err) {
    switch (ladder[i]) {
    case SQUISH_TIER_1: return sq_model_open_tier1(out, r->compressed, r->o, err);
    case SQUISH_TIER_2:
    case SQUISH_TIER_3: return sq_model_open_npy(out, r->compressed, ladder[i], r->o, err);
    default: return sq_model_open_sqw(out, r->path[i], r->o, err);
    }
}

/* The tier that was asked for, and no other. */
static squish_status open_wanted(sq_model **out, const rungs *r, squish_error *err) {
    for (int32_t i = 0; i < LADDER; i++) {
        if (ladder[i] != r->o->tier) continue;
        if (r->ready[i]) return open_rung(out, r, i, err);
        const char *name = sq_tier_get(ladder[i])->name;
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "%s: tier %s is not built (build it with: squish compress %s --tier %s)", r->dir, name,
                       r->dir, name);
    }
    return sq_fail(err, SQUISH_INVALID, "tier %d is none", (int)r->o->tier);
}

/* A checkpoint, or one rung after the other. */
static squish_status open_best(sq_model **out, rungs *r, squish_error *err) {
    squish_error refused = {0}, last = {0};
    for (int32_t i = choose(r); i >= 0; i = choose(r)) {
        squish_error now = {0};
        const squish_status st = open_rung(out, r, i, &now);
        if (st == SQUISH_OK) return st;
        if (st == SQUISH_NO_MEMORY || st == SQUISH_CANCELLED) return sq_fail(err, st, "%s", now.text);
        char line[sizeof now.text + 40];
        snprintf(line, sizeof line, "tier %s is not used: %s", sq_tier_get(ladder[i])->name, now.text);
        say(r->o, line);
        r->failed[i] = true;
        if (st == SQUISH_QUALITY && !refused.code) refused = now;
    }
    const squish_status st = sq_model_open_hf(out, r->dir, r->o, &last);
    if (st == SQUISH_OK) return st;
    /* A folder of tiers only: that one was refused says more than that there is no checkpoint. */
    return refused.code && st != SQUISH_NO_MEMORY ? sq_fail(err, SQUISH_QUALITY, "%s", refused.text)
                                                  : sq_fail(err, st, "%s", last.text);
}

static squish_status open_dir(sq_model **out, const char *dir, const squish_model_options *o,
                              squish_error *err) {
    if (o->tier == SQUISH_TIER_SOURCE) return sq_model_open_hf(out, dir, o, err);
    const squish_alloc a = o->alloc ? *o->alloc : sq_alloc_default();
    rungs *r = sq_alloc_zero(&a, sizeof *r);
    if (!r) return sq_fail(err, SQUISH_NO_MEMORY, "%s: out of memory", dir);
    r->dir = dir;
    r->o = o;
    /* Without a place for tiers there are none, and the checkpoint runs as it lies. */
    const bool placed =
        sq_tier_is_folder(dir)
            ? snprintf(r->compressed, sizeof r->compressed, "%s", dir) < (int)sizeof r->compressed
            : sq_store_compressed_dir(dir, NULL, NULL, r->compressed, sizeof r->compressed, NULL) ==
                  SQUISH_OK;
    if (placed) look(r);
    const squish_status st = o->tier == SQUISH_TIER_AUTO ? open_best(out, r, err) : open_wanted(out, r, err);
    sq_alloc_free(&a, r, sizeof *r);
    return st;
}

static bool has_suffix(const char *s, const char *suffix) {
    const size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* By its name, or by its first bytes: Ollama calls files by their sums alone. */
static bool is_gguf(const char *path) {
    char magic[4] = "";
    if (has_suffix(path, ".gguf")) return true;
    if (has_suffix(path, ".sqw")) return false;
    FILE *f = fopen(path, "rb");
    const bool is = f && fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
    if (f) fclose(f);
    return is;
}

squish_status squish_model_open(squish_model **out, const char *path, const squish_model_options *opt,
                                squish_error *err) {
    const squish_model_options o = opt ? *opt : squish_model_options_default();
    *out = NULL;
    if (!path || !*path) return sq_fail(err, SQUISH_INVALID, "no path given");
    const uint64_t begin = sq_os_now_ns();
    if (!sq_os_exists(path)) return sq_fail(err, SQUISH_NOT_FOUND, "%s: no such file or folder", path);
    squish_status st;
    const bool as_it_lies = o.tier == SQUISH_TIER_AUTO || o.tier == SQUISH_TIER_SOURCE;
    if (sq_os_is_dir(path))
        st = open_dir(out, path, &o, err);
    else if (is_gguf(path))
        st = as_it_lies ? sq_model_open_gguf(out, path, &o, err) : open_dir(out, path, &o, err);
    else
        st = sq_model_open_sqw(out, path, &o, err);
    if (st == SQUISH_OK && !o.text_only && o.n_loras) {
        st = sq_model_add_loras(*out, o.loras, o.n_loras, err);
        if (st != SQUISH_OK) {
            sq_model_close(*out);
            *out = NULL;
        }
    }
    if (st == SQUISH_OK) sq_heads_find(*out, path, &o);
    if (st == SQUISH_OK) (*out)->info.load_ms = (double)(sq_os_now_ns() - begin) / 1e6;
    return st;
}
