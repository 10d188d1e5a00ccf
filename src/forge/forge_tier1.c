/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_tier1.c - tier 1: every tensor of a checkpoint, byte for byte, in one file; and the text files that
 * tiers 1 to 3 carry beside them.
 *
 * Tensors whose size is a multiple of 64 come first, so that all of those begin on one. */
#include "forge/forge_int.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK = 8 << 20, ASSET_MAX = SQ_MAX_JSON };

static squish_status declare(sq_forge_job *j, sq_st_writer *w, size_t *index, squish_error *err) {
    const sq_safetensors *st = j->m->st;
    for (int rest = 0; rest < 2; rest++)
        for (size_t i = 0; i < sq_st_count(st); i++) {
            const sq_ftensor *t = sq_st_at(st, i);
            if ((t->bytes % 64 != 0) != rest) continue;
            SQ_TRY(sq_st_writer_tensor(w, t, &index[i], err));
            j->total_bytes += t->bytes;
        }
    return SQUISH_OK;
}

static squish_status copy_tensor(sq_forge_job *j, sq_st_writer *w, const sq_ftensor *t, size_t index,
                                 squish_error *err) {
    for (uint64_t at = 0; at < t->bytes; at += CHUNK) {
        const size_t n = (size_t)(t->bytes - at < CHUNK ? t->bytes - at : CHUNK);
        SQ_TRY(sq_st_writer_put(w, index, at, t->data + at, n, err));
        SQ_TRY(sq_forge_advance(j, n, err));
    }
    j->out->n_passthrough++;
    return SQUISH_OK;
}

squish_status sq_forge_build_tier1(sq_forge_job *j, squish_error *err) {
    const size_t n = sq_st_count(j->m->st), bytes = (n + 1) * sizeof(size_t);
    sq_st_writer *w = NULL;
    uint64_t file_bytes = 0;
    squish_status st = SQUISH_OK;
    size_t *index = sq_alloc_zero(&j->alloc, bytes);
    if (!index) return sq_fail(err, SQUISH_NO_MEMORY, "compress: out of memory");
    SQ_GUARD(sq_st_writer_new(&w, j->at->file, &j->alloc, err));
    SQ_GUARD(sq_st_writer_meta(w, "format", "pt", err));
    SQ_GUARD(declare(j, w, index, err));
    SQ_GUARD(sq_st_writer_layout(w, &file_bytes, err));
    for (size_t i = 0; i < n; i++) SQ_GUARD(copy_tensor(j, w, sq_st_at(j->m->st, i), index[i], err));
    SQ_GUARD(sq_forge_copy_assets(j, err));
    SQ_GUARD(sq_st_writer_finish(w, err));
fail:
    sq_st_writer_free(w);
    sq_alloc_free(&j->alloc, index, bytes);
    return st;
}

/* ---- assets ---------------------------------------------------------------------------------- */

static squish_status copy_file(const char *from, const char *to, const squish_alloc *a, squish_error *err) {
    sq_arena ar;
    sq_span text = {0};
    sq_arena_init(&ar, a, 64 << 10, 0);
    squish_status st = sq_os_read_file(from, ASSET_MAX, &ar, &text, err);
    if (st == SQUISH_OK) st = sq_os_write_file(to, text.p, text.n, err);
    sq_arena_deinit(&ar);
    return st;
}

squish_status sq_forge_copy_assets(const sq_forge_job *j, squish_error *err) {
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json", "chat_template.jinja"};
    char from[4096], to[SQ_FORGE_PATH + 64], own[4096];
    /* A folder of ours keeps these files in its own assets/ already. */
    snprintf(own, sizeof own, "%s/assets", j->m->info.path);
    const char *dir = sq_os_is_dir(own) ? own : j->m->info.path;
    if (strcmp(dir, j->at->assets) == 0) return SQUISH_OK;
    SQ_TRY(sq_os_mkdirs(j->at->assets, err));
    for (size_t i = 0; i < SQ_COUNT(names); i++) {
        if (snprintf(from, sizeof from, "%s/%s", dir, names[i]) >= (int)sizeof from)
            return sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
        snprintf(to, sizeof to, "%s/%s", j->at->assets, names[i]);
        if (sq_os_exists(from))
            SQ_TRY(copy_file(from, to, &j->alloc, err));
        else
            remove(to); /* of a source that had one */
    }
    return SQUISH_OK;
}
