/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export.h - a model in the form of others.
 *
 * Codes and scales that the other form can hold go over bit by bit; what it cannot is decoded to F16 and
 * counted. Low-rank compensators have no place in the formats of others: a matrix that has one is decoded
 * whole. Rows of q and k are put into the order of the other form: neighbouring pairs in GGUF files of the
 * llama family, halves everywhere else.
 *
 * Nothing half-written appears: a file gets its name when it is whole, a folder likewise (an MLX folder: its
 * config.json comes last). Errors of all: INVALID (out is there), UNSUPPORTED (what the other form cannot
 * say, by name), IO, NO_SPACE, NO_MEMORY, CANCELLED. */
#ifndef SQ_FORGE_EXPORT_H
#define SQ_FORGE_EXPORT_H

#include "model/model.h"

typedef struct {
    uint64_t bytes;
    int32_t n_exact;    /* matrices that went over with their codes, or in their own float type */
    int32_t n_decoded;  /* matrices written as floats; npy: never rounded */
    bool has_tokenizer; /* the vocabulary went along */
} sq_export_result;

/* An MLX directory: config.json with `quantization`, model.safetensors, and the tokenizer files found in
 * `assets` (NULL: none). out must not exist or be empty. */
squish_status sq_export_mlx(const sq_model *m, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err);
/* One GGUF file of architecture llama, qwen2 or qwen3. Affine groups of up to 4 bits become Q4_0 or Q4_1 and
 * groups of 8 bits Q8_0 where every scale is exact in f16; blocks and floats are copied; the rest becomes F16
 * (F32 where a value is beyond f16). The keys of a model that came from GGUF are taken over; else the
 * vocabulary comes from assets: a folder with tokenizer.json, or a GGUF file. */
squish_status sq_export_gguf(const sq_model *m, const char *assets, const char *out,
                             squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err);
/* A Hugging Face checkpoint: floats in the type they have, the rest in F16 (BF16 where a value is beyond
 * f16). */
squish_status sq_export_safetensors(const sq_model *m, const char *assets, const char *out,
                                    squish_progress_fn progress, void *user, sq_export_result *r,
                                    squish_error *err);
/* A folder of NAME.npy as in tier 2, config and tokenizer beside them. numpy has no bf16 and the files are
 * there to be compared, so nothing is rounded: a tensor is F16 if that holds every value exactly, else F32.
 */
squish_status sq_export_npy(const sq_model *m, const char *assets, const char *out,
                            squish_progress_fn progress, void *user, sq_export_result *r, squish_error *err);

#endif
