/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_int.h - what the exporters share (forge_export_parts.c). */
#ifndef SQ_FORGE_EXPORT_INT_H
#define SQ_FORGE_EXPORT_INT_H

#include "forge/forge_export.h"

#include <jansson.h>

enum { SQ_EXPORT_PATH = 1200 };

/* Where row r of the model stands in the file; to_pairs: the file has rows of q and k for neighbouring
 * pairs. */
int32_t sq_export_row(const sq_model *m, const sq_want *w, bool to_pairs, int32_t r);
/* The i-th tensor of a Hugging Face checkpoint; false past the last. Rope factors are a matter of config.json
 * there: they are passed over. *at runs from 0. */
bool sq_export_next(const sq_model *m, size_t *at, sq_want *out);
/* Element i of a vector as files have it: norms of families that mean 1 + w were folded on opening. */
float sq_export_element(const sq_model *m, const sq_want *w, int32_t i);
/* config.json of the model with its rows in halves and without quantisation. UNSUPPORTED: rope factors that
 * no known rule gives. */
squish_status sq_export_config(const sq_model *m, json_t **out, squish_error *err);
squish_status sq_export_write_config(const json_t *config, const char *dir, squish_error *err);
/* Tokenizer and template files from a folder (NULL: nothing happens). */
squish_status sq_export_assets(const squish_alloc *a, const char *from, const char *out, squish_error *err);
/* INVALID: out is there, or the path is too long. */
squish_status sq_export_check_out(const sq_model *m, const char *out, squish_error *err);
/* A folder under another name, and its publication: partial [SQ_EXPORT_PATH]. */
squish_status sq_export_folder_begin(const char *out, char *partial, squish_error *err);
squish_status sq_export_folder_end(const char *partial, const char *out, squish_error *err);
void sq_export_folder_drop(const char *partial);

/* (forge_export_vocab.c) The tokenizer.* keys. assets: see sq_export_gguf; *found: there was a vocabulary. */
squish_status sq_export_vocab(const sq_model *m, const char *assets, sq_gguf_writer *w, bool *found,
                              squish_error *err);

#endif
