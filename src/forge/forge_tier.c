/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_tier.c - names of tiers and their sentinels: what makes a tier exist.
 *
 * A sentinel states size and checksum of what it stands for: the superblock of a .sqw, the header of a
 * safetensors file, the list of names and sizes of a folder. These tell a whole tier from a torn one in
 * constant time; the bytes behind them have sums of their own, or are compared on demand. */
#include "forge/forge_int.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

const sq_tier_info *sq_tier_get(squish_tier t) {
    static const sq_tier_info zero = {"0", "squish_4bit/model.sqw", ".squish_4bit_ready", true, false};
    static const sq_tier_info q8 = {"q8", "squish_q8/model.sqw", ".squish_q8_ready", true, false};
    static const sq_tier_info one = {"1", "squish_weights.safetensors", ".squish_ready", false, false};
    static const sq_tier_info two = {"2", "finalized", "finalized/.ready", false, true};
    static const sq_tier_info three = {"3", "tensors", "tensors/.manifest_ready", false, true};
    switch (t) {
    case SQUISH_TIER_0: return &zero;
    case SQUISH_TIER_Q8: return &q8;
    case SQUISH_TIER_1: return &one;
    case SQUISH_TIER_2: return &two;
    case SQUISH_TIER_3: return &three;
    default: return NULL;
    }
}

bool sq_tier_is_folder(const char *dir) {
    static const squish_tier all[] = {SQUISH_TIER_0, SQUISH_TIER_Q8, SQUISH_TIER_1, SQUISH_TIER_2,
                                      SQUISH_TIER_3};
    char path[4500];
    for (size_t i = 0; i < SQ_COUNT(all); i++)
        if (snprintf(path, sizeof path, "%s/%s", dir, sq_tier_get(all[i])->sentinel) < (int)sizeof path &&
            sq_os_exists(path))
            return true;
    return false;
}

/* ---- what a sentinel stands for -------------------------------------------------------------- */

static bool measure_sqw(const char *path, uint64_t *sum) {
    squish_alloc a = sq_alloc_default();
    sq_sqw *s = NULL;
    const bool ok = sq_sqw_open(&s, path, &a, NULL) == SQUISH_OK;
    if (ok) *sum = sq_sqw_super_sum(s);
    sq_sqw_close(s);
    return ok;
}

static bool measure_safetensors(const char *path, uint64_t *sum) {
    sq_map map;
    if (sq_os_map_open(&map, path, NULL) != SQUISH_OK) return false;
    sq_cur c = sq_cur_make((sq_span){map.data, map.bytes});
    const uint64_t header = sq_cur_u64(&c);
    const sq_span text = sq_cur_bytes(&c, header);
    const bool ok = sq_cur_ok(&c);
    if (ok) *sum = XXH3_64bits(text.p, text.n);
    sq_os_map_close(&map);
    return ok;
}

/* Names and sizes of the visible files; the sentinel itself begins with a dot. */
static bool measure_folder(const char *path, uint64_t *bytes, uint64_t *sum) {
    squish_alloc a = sq_alloc_default();
    sq_arena ar;
    char **names = NULL;
    size_t n = 0;
    sq_buf list;
    sq_arena_init(&ar, &a, 4096, 0);
    sq_buf_init(&list, &a, (size_t)1 << 30);
    bool ok = sq_os_list_dir(path, &ar, &names, &n, NULL) == SQUISH_OK;
    *bytes = 0;
    for (size_t i = 0; ok && i < n; i++) {
        char file[4096];
        if (names[i][0] == '.') continue;
        ok = snprintf(file, sizeof file, "%s/%s", path, names[i]) < (int)sizeof file;
        const uint64_t size = ok ? sq_os_file_bytes(file) : 0;
        *bytes += size;
        ok = ok && sq_buf_printf(&list, "%s %llu\n", names[i], (unsigned long long)size);
    }
    *sum = XXH3_64bits(list.data, list.len);
    sq_buf_deinit(&list);
    sq_arena_deinit(&ar);
    return ok;
}

bool sq_tier_measure(squish_tier t, const char *path, uint64_t *bytes, uint64_t *sum) {
    const sq_tier_info *info = sq_tier_get(t);
    if (info->folder) return measure_folder(path, bytes, sum);
    *bytes = sq_os_file_bytes(path);
    return info->sqw ? measure_sqw(path, sum) : measure_safetensors(path, sum);
}

/* ---- sentinels ------------------------------------------------------------------------------- */

enum { SENTINEL_MAX = 4096 };

/* Size and checksum as the sentinel states them. */
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
    json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:s, s:I}", "format", "squish-tier", "file", file, "size",
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

static bool not_ready(char *why, size_t n, const char *text) {
    if (why && n) snprintf(why, n, "%s", text);
    return false;
}

bool sq_tier_ready(const char *compressed, squish_tier t, char *path, size_t n, char *why, size_t why_n) {
    const sq_tier_info *info = sq_tier_get(t);
    char sentinel[4096], text[160];
    uint64_t bytes = 0, sum = 0, have = 0, have_sum = 0;
    if (why && why_n) why[0] = '\0';
    if (!info) return not_ready(why, why_n, "it is no tier that is built");
    if (snprintf(path, n, "%s/%s", compressed, info->file) >= (int)n ||
        snprintf(sentinel, sizeof sentinel, "%s/%s", compressed, info->sentinel) >= (int)sizeof sentinel)
        return not_ready(why, why_n, "its path is too long");
    if (!sq_os_exists(sentinel)) return not_ready(why, why_n, "it has no sentinel: it was never finished");
    if (!sentinel_read(sentinel, &bytes, &sum)) return not_ready(why, why_n, "its sentinel cannot be read");
    if (!sq_os_exists(path)) return not_ready(why, why_n, "its file is missing");
    const bool measured = sq_tier_measure(t, path, &have, &have_sum);
    if (have != bytes) {
        snprintf(text, sizeof text, "it has %llu bytes, its sentinel says %llu", (unsigned long long)have,
                 (unsigned long long)bytes);
        return not_ready(why, why_n, text);
    }
    if (!measured) return not_ready(why, why_n, "it is damaged and cannot be opened");
    if (have_sum != sum) return not_ready(why, why_n, "its checksum differs from its sentinel's");
    return true;
}
