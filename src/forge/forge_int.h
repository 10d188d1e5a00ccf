/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_int.h - what the files of the forge share. */
#ifndef SQ_FORGE_INT_H
#define SQ_FORGE_INT_H

#include "forge/forge.h"

#include <stdlib.h>

enum { SQ_FORGE_PATH = 1200 };

/* Folders and names of one build. */
typedef struct {
    const sq_tier_info *tier;
    char compressed[1024], file[1024];
    char dir[SQ_FORGE_PATH], sentinel[SQ_FORGE_PATH], build[SQ_FORGE_PATH], lock[SQ_FORGE_PATH];
    char partial[SQ_FORGE_PATH], journal[SQ_FORGE_PATH], assets[SQ_FORGE_PATH];
} sq_places;

/* One build in progress. */
typedef struct {
    squish_alloc alloc;
    const squish_compress_options *o;
    const sq_model *m;
    const sq_places *at;
    squish_compress_result *out;
    sq_pool *pool;
    sq_measure_fn measure;
    void *measure_user;
    uint64_t done_bytes, total_bytes; /* of the source */
    bool unquantised;      /* matrices stay f32, whatever the recipe says: for tests of what is folded in */
} sq_forge_job;

/* Count bytes of the source as done and tell the caller. CANCELLED if they want to stop. */
squish_status sq_forge_advance(sq_forge_job *j, uint64_t bytes, squish_error *err);

/* Identity of what a model was opened from: names, sizes and times of its files, and the shape of every
 * tensor in them. Reads no weight. */
squish_status sq_forge_source_id(const sq_model *m, uint8_t out[16], squish_error *err);
/* Bytes of a wanted tensor in the source, and their XXH3-64. */
uint64_t sq_forge_source_bytes(const sq_model *m, const sq_want *w);
uint64_t sq_forge_source_sum(const sq_model *m, const sq_want *w);

/* (forge_verdict.c) Measure and judge the sealed file; fills the quality fields of j->out. Builds of more
 * than 4 bits, copies, and jobs without a measure are UNVERIFIED. QUALITY: it collapsed and may not be
 * published. */
squish_status sq_forge_verdict(sq_forge_job *j, const char *file, sq_quality_flag *quality,
                               squish_error *err);

/* (forge_recipe.c) "rtn", "lsq", "awq", "gptq", "milo". */
const char *sq_method_name(squish_method m);
bool sq_method_needs_calibration(squish_method m);
/* The calibration a build of o into `compressed` goes by: the file named, or the one beside the tiers for
 * methods that look at one by themselves. False: none; path [n] then says where it was looked for. */
bool sq_forge_calibration_path(const char *compressed, const squish_compress_options *o, char *path,
                               size_t n);
/* What section RECP says of a build; NULL: out of memory. The calibration may be NULL. */
struct sq_calibration;
json_t *sq_recipe_json(const squish_compress_options *o, const char *tier, const struct sq_calibration *k);

/* Build what the job says, up to and without the sentinel; *sum is for it. */
squish_status sq_forge_build_sqw(sq_forge_job *j, uint64_t *sum, squish_error *err);
squish_status sq_forge_build_tier1(sq_forge_job *j, squish_error *err);
squish_status sq_forge_build_npy(sq_forge_job *j, squish_error *err);
/* Config, tokenizer and template files of the source into assets/. */
squish_status sq_forge_copy_assets(const sq_forge_job *j, squish_error *err);
/* Regular files of a folder, not below. */
void sq_forge_clear_dir(const char *dir);

/* Size and checksum that a sentinel states for what lies at path. */
bool sq_tier_measure(squish_tier t, const char *path, uint64_t *bytes, uint64_t *sum);
squish_status sq_sentinel_write(const char *path, const char *file, uint64_t bytes, uint64_t sum,
                                squish_error *err);

/* Codes and scales of 16 rows of `src` from row0 on, exactly, as one row tile of type t. scratch: bytes of
 * sq_repack_scratch(cols). */
void sq_repack_tile(const sq_weight *src, int32_t row0, int32_t n_rows, sq_wtype t, sq_scale_type st,
                    void *scratch, uint8_t *out);
size_t sq_repack_scratch(int32_t cols);
/* The type whose codes and scales can hold those of src exactly. */
bool sq_repack_type(const sq_weight *src, sq_wtype *t, sq_scale_type *st);

#endif
