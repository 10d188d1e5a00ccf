/* SPDX-License-Identifier: Apache-2.0
 *
 * forge.h - making models: from a checkpoint to a tier that runs.
 *
 *   SRC/                                    a Hugging Face directory, never modified
 *   SRC-compressed/squish_4bit/model.sqw    tier 0      .squish_4bit_ready   sentinel
 *   SRC-compressed/squish_q8/model.sqw      tier 0'     .squish_q8_ready     sentinel
 *   SRC-compressed/.build/TIER.lock         held while a tier is being built
 *
 * A tier is published whole or not at all: written under a temporary name, read back and compared, renamed,
 * and only then announced by its sentinel, one line of JSON with the file's size and checksum. A tier without
 * a matching sentinel does not exist. */
#ifndef SQ_FORGE_H
#define SQ_FORGE_H

#include "model/model.h"

typedef struct {
    const char *name;     /* "0", "q8" */
    const char *dir;      /* "squish_4bit" */
    const char *sentinel; /* ".squish_4bit_ready" */
} sq_tier_info;
/* NULL for AUTO and SOURCE. */
const sq_tier_info *sq_tier_get(squish_tier t);

/* Is a published, intact tier (sentinel and superblock agree) in `compressed`? Fills path [n] with the file.
 */
bool sq_tier_ready(const char *compressed, squish_tier t, char *path, size_t n);

/* What a tensor becomes. */
typedef struct {
    sq_wtype type;
    sq_scale_type scale;
    sq_quant_method method;
} sq_recipe;
/* Norms and biases f32; body by bits; a tied table 8-bit below 1 G parameters, else 4-bit;
 * untied: embedding 8-bit, head 8-bit below 1 G parameters, else 4-bit. */
sq_recipe sq_recipe_for(const squish_compress_options *o, const sq_config *c, uint64_t n_params,
                        const sq_want *w);

/* Build tier o->tier of src into `compressed` (see squish_compress). */
squish_status sq_forge_compress(const char *src, const char *compressed, const squish_compress_options *o,
                                squish_compress_result *out, squish_error *err);

#endif
