/* SPDX-License-Identifier: Apache-2.0
 *
 * model_int.h - what the files of the model room share. */
#ifndef SQ_MODEL_INT_H
#define SQ_MODEL_INT_H

#include "model/model.h"

/* ---- configuration of experts (model_config_moe.c) -------------------------------------------- */

/* What config.json says about experts, into c->moe and the flags of layers. */
squish_status sq_config_moe_read(const json_t *o, sq_config *c, squish_error *err);
void sq_config_moe_json(const sq_config *c, json_t *o); /* the same, back */
squish_status sq_config_moe_check(const sq_config *c, squish_error *err);
/* The same of latent attention (model_config_mla.c), and its softmax scale. */
squish_status sq_config_mla_read(const json_t *o, sq_config *c, squish_error *err);
void sq_config_mla_json(const sq_config *c, json_t *o);
squish_status sq_config_mla_check(const sq_config *c, squish_error *err);
float sq_config_mla_scale(const sq_config *c);

/* ---- opening ---------------------------------------------------------------------------------- */

/* An empty model with its arena and layers not yet made. */
squish_status sq_model_new(sq_model **out, const squish_model_options *opt, squish_error *err);
/* Make layers for m->cfg and the tensor list; both in the load arena. */
squish_status sq_model_make_layers(sq_model *m, squish_error *err);
/* Put a matrix or vector in its place. w is a view that outlives m; vec [rows] f32. */
/* The place of a matrix in m. */
sq_weight *sq_model_place(sq_model *m, const sq_want *want);
void sq_model_bind_matrix(sq_model *m, const sq_want *want, const sq_weight *w);
void sq_model_bind_vector(sq_model *m, const sq_want *want, const float *vec);
/* After binding: flags of layers, tied head, counts and the info struct. */
squish_status sq_model_finish(sq_model *m, const char *path, const char *tier, squish_error *err);
/* Open views on compiled text; an empty template span is fine. */
squish_status sq_model_open_text(sq_model *m, sq_span tok, sq_span tmpl, squish_error *err);
/* The same for blobs compiled into m->tok_blob and m->tmpl_blob. */
squish_status sq_model_open_blobs(sq_model *m, squish_error *err);
/* Largest sum of low-rank ranks over matrices that run together. */
int32_t sq_model_rank_of(const sq_model *m);

/* ---- foreign tensors ------------------------------------------------------------------------- */

/* config.json, generation_config.json, tokenizer and template of a directory into m. */
squish_status sq_model_read_assets(sq_model *m, const char *dir, const squish_model_options *opt,
                                   squish_error *err);
/* Shape as wanted, and a type whose rows can be used as they lie: F32, F16, BF16, for matrices also GGUF
 * blocks. name: what the file calls it. */
squish_status sq_model_check_tensor(const sq_want *w, const sq_ftensor *t, const char *name, sq_wtype *type,
                                    squish_error *err);
/* Bind a tensor that passed the check: a matrix as a view, a vector as f32 in the load arena. */
squish_status sq_model_bind_tensor(sq_model *m, const sq_want *w, const sq_ftensor *t, sq_wtype type,
                                   squish_error *err);
/* The slice of an expert in a tensor that holds all n of its layer [n][rows][cols]; CORRUPT: it is no such.
 */
squish_status sq_model_expert_slice(const sq_ftensor *all, int32_t expert, int32_t n, sq_ftensor *out,
                                    squish_error *err);
/* (model_open_mla.c) Make the projection of keys that no checkpoint has, from KV_B, which is bound. */
squish_status sq_model_make_k_b(sq_model *m, const sq_want *w, squish_error *err);
/* A GGUF file with keys and values of KV_B apart: bind what w wants of them. *bound false: it has them not.
 */
squish_status sq_model_bind_split_kv_b(sq_model *m, const sq_want *w, bool *bound, squish_error *err);
/* A tensor of m->st; checkpoints saved from the bare model have names without "model." in front. */
const sq_ftensor *sq_model_st_find(const sq_model *m, const char *name);

/* Matrices of a checkpoint that come with their own quantisation (model_open_mlx.c). */
typedef struct {
    json_t *root;           /* config.json, to be dropped */
    const json_t *mlx;      /* `quantization`; NULL: no MLX directory */
    bool bitnet, multiply;  /* packed ternary weights; their scale multiplies, or divides */
} sq_source_quant;
/* UNSUPPORTED: a method that is not read, by its name. */
squish_status sq_source_quant_read(const sq_model *m, sq_source_quant *q, squish_error *err);
/* Bind w if it comes quantised: *used is then the number of its tensors; else 0. */
squish_status sq_source_quant_bind(sq_model *m, const sq_source_quant *q, const sq_want *w, size_t *used,
                                   squish_error *err);

/* ---- adapters (model_lora.c) ----------------------------------------------------------------- */

/* What adapter_config.json says about the factors. */
typedef struct {
    int32_t rank;
    double alpha;
    bool rslora; /* scale = alpha / sqrt(rank), else alpha / rank (Kalajdzievski, arXiv:2312.03732) */
} sq_lora_config;
/* what: the file, for messages. UNSUPPORTED names the field; CORRUPT, NO_MEMORY. */
squish_status sq_lora_config_parse(const char *json, size_t n, const char *what, sq_lora_config *out,
                                   squish_error *err);

#endif
