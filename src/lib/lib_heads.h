/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_heads.h - where the heads of a model lie. */
#ifndef SQ_LIB_HEADS_H
#define SQ_LIB_HEADS_H

#include "model/model_heads.h"

/* The folder of tiers that .../squish_4bit/model.sqw lies in; false: path is no such file. */
bool sq_heads_dir_of_tier(const char *path, char *out, size_t n);
/* Open the heads of m, which was opened from path: o->heads, or the first there is of: beside the tiers,
 * beside the checkpoint. What cannot be used is told o->warn in one line, and m goes on without. */
void sq_heads_find(sq_model *m, const char *path, const squish_model_options *o);

#endif
