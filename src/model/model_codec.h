/* SPDX-License-Identifier: Apache-2.0
 *
 * model_codec.h - the codebooks of a model's keys and values (kv_codec.h): where they lie, and whether they
 * are its own. */
#ifndef SQ_MODEL_CODEC_H
#define SQ_MODEL_CODEC_H

#include "kv/kv_codec.h"
#include "model/model.h"

/* MODEL.codec beside what was opened. INVALID: too long a path. */
squish_status sq_model_codec_path(const sq_model *m, char *out, size_t n, squish_error *err);
/* How its layers rotate keys. */
void sq_model_codec_turns(const sq_model *m, sq_codec_turns *out);
/* Whether codes go with the rest of an engine's options: wanted is a cache of f16 that every token reads as
 * it was computed. INVALID, UNSUPPORTED name both options. */
squish_status sq_model_codec_rules(const sq_model *m, const sq_kv_policy *p, const squish_attention *a,
                                   squish_error *err);
/* Books that are m's and passed, ready for use; path NULL: where they lie. NOT_FOUND, CORRUPT; INVALID: of
 * another model; QUALITY: they failed. */
squish_status sq_model_codec_open(sq_codec **out, const sq_model *m, const char *path, const squish_alloc *a,
                                  squish_error *err);

#endif
