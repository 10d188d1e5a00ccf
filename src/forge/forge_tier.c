/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_tier.c - names of tiers, their sentinels, and the recipe that says what each tensor becomes. */
#include "forge/forge_int.h"

#include <stdio.h>
#include <string.h>

const sq_tier_info *sq_tier_get(squish_tier t) {
    static const sq_tier_info zero = {"0", "squish_4bit", ".squish_4bit_ready"};
    static const sq_tier_info q8 = {"q8", "squish_q8", ".squish_q8_ready"};
    return t == SQUISH_TIER_0 ? &zero : t == SQUISH_TIER_Q8 ? &q8 : NULL;
}

/* ---- sentinel -------------------------------------------------------------------------------- */

enum { SENTINEL_MAX = 4096 };

/* The file's size and the checksum of its superblock as the sentinel states them. */
static bool sentinel_read(const char *path, uint64_t *bytes, uint64_t *sum) {
    squish_alloc a = sq_alloc_default();
    sq_arena ar;
    sq_arena_init(&ar, &a, SENTINEL_MAX, 0);
    sq_span text;
    json_t *o = NULL;
    const char *hex = NULL;
    int64_t size = 0;
    bool ok = sq_os_read_file(path, SENTINEL_MAX, &ar, &text, NULL) == SQUISH_OK &&
              sq_json_parse((const char *)text.p, text.n, SQ_JSON_DEPTH, path, &o, NULL) == SQUISH_OK &&
              sq_json_i64(o, "size", true, 1, INT64_MAX, &size, path, NULL) == SQUISH_OK &&
              sq_json_str(o, "superblock", true, &hex, path, NULL) == SQUISH_OK;
    unsigned long long value = 0;
    ok = ok && sscanf(hex, "%16llx", &value) == 1;
    *bytes = (uint64_t)size;
    *sum = value;
    json_decref(o);
    sq_arena_deinit(&ar);
    return ok;
}

squish_status sq_sentinel_write(const char *path, const char *file, uint64_t bytes, uint64_t sum,
                                squish_error *err) {
    char hex[17];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)sum);
    json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:s, s:I}", "format", "sqw", "file", file, "size",
                          (json_int_t)bytes, "superblock", hex, "builder", "squish " SQUISH_VERSION, "time",
                          (json_int_t)sq_os_unix_time());
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "sentinel: out of memory");
    sq_newfile f;
    squish_status st = sq_os_newfile_open(&f, path, 0, err);
    if (st == SQUISH_OK) st = sq_os_newfile_write_at(&f, 0, text, strlen(text), err);
    if (st == SQUISH_OK) st = sq_os_newfile_write_at(&f, strlen(text), "\n", 1, err);
    if (st == SQUISH_OK) st = sq_os_newfile_publish(&f, err);
    sq_os_newfile_abandon(&f);
    free(text); /* jansson's */
    return st;
}

bool sq_tier_ready(const char *compressed, squish_tier t, char *path, size_t n) {
    const sq_tier_info *info = sq_tier_get(t);
    char sentinel[4096];
    uint64_t bytes = 0, sum = 0;
    if (!info || snprintf(path, n, "%s/%s/model.sqw", compressed, info->dir) >= (int)n ||
        snprintf(sentinel, sizeof sentinel, "%s/%s", compressed, info->sentinel) >= (int)sizeof sentinel)
        return false;
    if (!sq_os_exists(sentinel) || !sentinel_read(sentinel, &bytes, &sum) || sq_os_file_bytes(path) != bytes)
        return false;
    squish_alloc a = sq_alloc_default();
    sq_sqw *s = NULL;
    const bool ok = sq_sqw_open(&s, path, &a, NULL) == SQUISH_OK && sq_sqw_super_sum(s) == sum;
    sq_sqw_close(s);
    return ok;
}

/* ---- recipe ---------------------------------------------------------------------------------- */

static const uint64_t SMALL_MODEL =
    1000000000; /* parameters below which tables that feed logits stay at 8 bits */

static sq_recipe eight(const squish_compress_options *o) {
    if (o->group == 0) return (sq_recipe){SQ_W_I8_ROW, SQ_SCALE_F32, SQ_QUANT_RTN};
    return (sq_recipe){SQ_W_I8_G64, SQ_SCALE_F16, SQ_QUANT_RTN};
}

sq_recipe sq_recipe_for(const squish_compress_options *o, const sq_config *c, uint64_t n_params,
                        const sq_want *w) {
    if (w->vector) return (sq_recipe){SQ_W_F32, SQ_SCALE_F32, SQ_QUANT_RTN};
    if (o->bits == 8) return eight(o);
    const bool table = w->role == SQ_ROLE_EMBED || w->role == SQ_ROLE_HEAD;
    const bool stays_8 = w->role == SQ_ROLE_EMBED && !c->tied;
    if (table && (stays_8 || n_params < SMALL_MODEL))
        return (sq_recipe){SQ_W_I8_G64, SQ_SCALE_F16, SQ_QUANT_RTN};
    /* bf16 scales are what MLX stores for bf16 checkpoints, so rtn matches it to the bit; lsq uses f16's
     * finer step. */
    if (o->method == SQUISH_METHOD_RTN) return (sq_recipe){SQ_W_I4_G64, SQ_SCALE_BF16, SQ_QUANT_RTN};
    return (sq_recipe){SQ_W_I4_G64, SQ_SCALE_F16, SQ_QUANT_LSQ};
}
