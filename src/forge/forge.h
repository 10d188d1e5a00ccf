/* SPDX-License-Identifier: Apache-2.0
 *
 * forge.h - making models: from a checkpoint to a tier that runs.
 *
 *   SRC/                                    the source, never modified
 *   SRC-compressed/squish_4bit/model.sqw    tier 0      .squish_4bit_ready        sentinel
 *   SRC-compressed/squish_q8/model.sqw      tier q8     .squish_q8_ready
 *   SRC-compressed/squish_weights.safetensors  tier 1   .squish_ready
 *   SRC-compressed/finalized/NAME.npy       tier 2      finalized/.ready
 *   SRC-compressed/tensors/NAME__q.npy ...  tier 3      tensors/.manifest_ready
 *   SRC-compressed/assets/                  config, tokenizer and template, for tiers 1 to 3
 *   SRC-compressed/.build/TIER.{lock,partial,journal}   work in progress, safe to delete when nobody builds
 *
 * A tier is published whole or not at all: made under another name, read back and compared, renamed, and only
 * then announced by its sentinel, one line of JSON with size and checksum. A tier without a matching sentinel
 * does not exist. */
#ifndef SQ_FORGE_H
#define SQ_FORGE_H

#include "model/model.h"
#include "squish_build.h"

/* ---- tiers ----------------------------------------------------------------------------------- */

typedef struct {
    const char *name;     /* "0", "q8", "1", "2", "3" */
    const char *file;     /* "squish_4bit/model.sqw"; tiers 2 and 3: their folder */
    const char *sentinel; /* ".squish_4bit_ready" */
    bool sqw, folder;
} sq_tier_info;
/* NULL for AUTO and SOURCE. */
const sq_tier_info *sq_tier_get(squish_tier t);

/* Was a tier built into this folder, whatever its name? */
bool sq_tier_is_folder(const char *dir);

/* Is a published, intact tier (sentinel, size and checksum agree) in `compressed`? Fills path [n] with the
 * file or folder. why [why_n] (may be NULL): one line that says why it is not. */
bool sq_tier_ready(const char *compressed, squish_tier t, char *path, size_t n, char *why, size_t why_n);

/* ---- recipe ---------------------------------------------------------------------------------- */

typedef enum {
    SQ_MAKE_QUANTISE, /* new codes from the source's values */
    SQ_MAKE_REPACK,   /* the source's own codes and scales in our order */
    SQ_MAKE_COPY      /* the source's bytes */
} sq_make;

/* How codes of a whole matrix are found. PLAIN works tile by tile; the others need the matrix in memory. */
typedef enum { SQ_BY_PLAIN, SQ_BY_GPTQ, SQ_BY_MILO } sq_make_by;

/* What a tensor becomes. */
typedef struct {
    sq_make make;
    sq_wtype type;
    sq_scale_type scale;
    sq_quant_method method;
    const char *reason; /* of the report: "Q", "P_NORM", "P_BIAS", "P_ROUTER", "P_POLICY", "P_RANGE" */
    sq_make_by by;      /* QUANTISE of 2 to 4 bits */
    int32_t rank;       /* of the compensator */
} sq_recipe;
/* The rule, from the wish and the source alone: norms and biases f32; weights that come quantised keep their
 * codes (repacked where that is exact, else as they lie) unless o->requantise; body by o->bits; a tied table
 * 8-bit below 1 G parameters, else 4-bit; untied: embedding 8-bit, head 8-bit below 1 G parameters, else
 * 4-bit. `src` is the matrix (NULL for a vector). o->bits and o->group are settled. */
sq_recipe sq_recipe_for(const squish_compress_options *o, const sq_config *c, uint64_t n_params,
                        const sq_want *w, const sq_weight *src);

/* ---- building -------------------------------------------------------------------------------- */

/* Check the wish and settle what it leaves open (bits). */
squish_status sq_forge_resolve(const squish_compress_options *in, squish_compress_options *out,
                               squish_error *err);
/* (forge_expect.c) Bytes of the .sqw that o asks for, within 1 %; 0: it cannot be made. o is resolved;
 * low-rank compensators are counted by o->rank or o->rank_bpw. */
uint64_t sq_forge_size(const sq_model *m, const squish_compress_options *o);
/* Source bytes a second and thread that plain methods encode and compare, measured on up to `seconds` of row
 * tiles spread over the model; 0 for other methods and without memory. */
double sq_forge_encode_rate(const sq_model *m, const squish_compress_options *o, double seconds);

/* Is tier o->tier there already, made with the same wish? Then out says so (out->reused). INVALID: it is
 * there with another bits, group or method. o is resolved. */
squish_status sq_forge_reuse(const char *compressed, const squish_compress_options *o,
                             squish_compress_result *out, squish_error *err);
/* Measures the sealed, unpublished file of a build against its source: fills *m. The forge judges what comes
 * back (sq_quality_judge), whatever was built. */
struct sq_quality_measure;
typedef squish_status (*sq_measure_fn)(void *user, const char *file, const sq_model *source,
                                       struct sq_quality_measure *m, squish_error *err);
/* Build tier o->tier of the open model src into `compressed`; o is resolved (see squish_compress). measure
 * NULL: the quality is "unverified". */
squish_status sq_forge_compress(const sq_model *src, const char *compressed, const squish_compress_options *o,
                                sq_measure_fn measure, void *measure_user, squish_compress_result *out,
                                squish_error *err);

#endif
