/* SPDX-License-Identifier: Apache-2.0
 *
 * model.h - architectures, the binding of weights, and the forward pass.
 *
 *   config.json         -> sq_config    one flat struct for every architecture
 *   checkpoint or .sqw  -> sq_model     every matrix bound to its role; only vectors of a checkpoint copied
 *   sq_model + backend  -> sq_forward   tokens of one step in, hidden states and logits out
 *
 * The families differ in few places, and those are data, not code paths: biases, head norms, norms after a
 * block, the activation, rope per layer type, windows, norms inside a block (BitNet), experts instead of one
 * feed-forward block. */
#ifndef SQ_MODEL_H
#define SQ_MODEL_H

#include "backend/backend.h"
#include "backend/be_mla.h"
#include "format/format.h"
#include "format/json.h"
#include "format/limits.h"
#include "kv/kv.h"
#include "text/text.h"

#include <stddef.h>

/* ---- configuration --------------------------------------------------------------------------- */

typedef enum { SQ_ROPE_DEFAULT, SQ_ROPE_LINEAR, SQ_ROPE_LLAMA3, SQ_ROPE_YARN } sq_rope_type;

/* Rotary embedding parameters as the checkpoint states them (Su et al., arXiv:2104.09864; YaRN: Peng et al.,
 * arXiv:2309.00071). */
typedef struct {
    int32_t type;             /* sq_rope_type */
    int32_t truncate;         /* yarn: correction range rounded to whole dimensions */
    double theta, factor;
    double low_freq, high_freq; /* llama3 */
    double original_ctx;      /* llama3, yarn */
    double beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim; /* yarn; 0: not given */
} sq_rope_params;

enum { SQ_LAYER_WINDOWED = 1, SQ_LAYER_ROPE1 = 2, SQ_LAYER_MOE = 4 }; /* SQ_LAYER_ROPE1: uses rope[1] */
enum { SQ_CONFIG_VERSION = 2 };

/* A choice among experts in the place of a feed-forward block (Shazeer et al., arXiv:1701.06538), in layers
 * with SQ_LAYER_MOE. Scores are a softmax over all experts. */
typedef struct {
    int32_t n, used;             /* experts, and how many of them a token takes; n = 0: a dense model */
    int32_t ffn;                 /* of one expert */
    int32_t shared_ffn;          /* of the block that every token takes besides; 0: there is none */
    int32_t shared_switch;       /* 1: a sigmoid of the input scales what that block gives (Qwen2-MoE) */
    int32_t norm_topk;           /* 1: weights of the chosen are divided by their sum */
    int32_t n_group, topk_group; /* the chosen are of the topk_group best of n_group groups; 1, 1: of all */
    float scale;                 /* of the weights, where they are not divided */
    int32_t reserved;
} sq_moe_config;

/* Attention over latent rows instead of keys and values (DeepSeek-V2, arXiv:2405.04434). head_dim is then
 * nope + rope. */
typedef struct {
    int32_t kv_rank;       /* of latent rows; 0: ordinary attention */
    int32_t q_rank;        /* queries come from rows of so many; 0: from the hidden state */
    int32_t nope, rope, v; /* channels of a head: without position, rotated, of its value */
    int32_t reserved;
} sq_mla_config;

/* Normalised configuration; also the NCFG section of a .sqw, byte by byte. Everything checked by
 * sq_config_check. */
typedef struct {
    uint32_t version, bytes;      /* SQ_CONFIG_VERSION, sizeof */
    char arch[24];                /* "qwen2" */
    int32_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, n_vocab, ctx, window;
    int32_t activation;           /* sq_activation */
    int32_t tied;                 /* head = embedding */
    int32_t qkv_bias, o_bias, mlp_bias, qk_norm, post_norms; /* 0 or 1: these tensors exist */
    int32_t fused;                /* 1: the checkpoint has qkv and gate/up fused (Phi-3) */
    int32_t norm_plus_one;        /* 1: the checkpoint's norm weights mean 1 + w */
    int32_t n_rope;               /* 1 or 2 */
    int32_t rope_pairs;           /* 1: rows of q and k are ordered for neighbouring pairs (GGUF) */
    int32_t rope_factors;         /* 1: a tensor [head_dim / 2] divides the frequencies (GGUF, llama 3) */
    int32_t sub_norms;            /* 1: norms before o and before down (BitNet) */
    int32_t ternary;              /* 1: trained with ternary weights (BitNet): matrices become T2_ROW */
    float norm_eps, embed_scale, softmax_scale;
    sq_rope_params rope[2];
    uint8_t layer_flags[SQ_MAX_LAYERS];
    sq_moe_config moe; /* files made before there were experts end before it: all zero */
    sq_mla_config mla;
} sq_config;
/* Bytes of the section before moe was there. */
#define SQ_CONFIG_DENSE_BYTES offsetof(sq_config, moe)
static inline bool sq_config_is_plain(const sq_config *c) { return !c->moe.n && !c->mla.kv_rank; }
/* Channels of a head that are rotated. */
static inline int32_t sq_config_rotated(const sq_config *c) {
    return c->mla.kv_rank ? c->mla.rope : c->head_dim;
}
static inline bool sq_config_is_moe(const sq_config *c, int32_t layer) {
    return c->layer_flags[layer] & SQ_LAYER_MOE;
}

/* From config.json. UNSUPPORTED names the architecture and the list of those we run, or the field we do not;
 * CORRUPT a missing or absurd field with its value. */
squish_status sq_config_from_json(const char *json, size_t n, sq_config *out, squish_error *err);
/* From the keys of a GGUF file (architectures llama, qwen2, qwen3). */
squish_status sq_config_from_gguf(const sq_gguf *g, sq_config *out, squish_error *err);
/* How the makers of a GGUF file mean its hidden states to become one vector (key pooling_type): "mean",
 * "first", "last"; NULL: they do not say, or mean no vector. CORRUPT: not one of the numbers there are. */
squish_status sq_config_gguf_pooling(const sq_gguf *g, const char **out, squish_error *err);
/* config.json text that says the same as c, for files that bring none; pooling, if not NULL, stands in it as
 * squish.pooling. Free with the allocator. */
squish_status sq_config_to_json(const sq_config *c, const char *pooling, const squish_alloc *a,
                                squish_text *out, squish_error *err);
squish_status sq_config_check(const sq_config *c, squish_error *err);

/* inv_freq[half] in double and the factor on cos and sin, half = head_dim / 2. */
void sq_rope_frequencies(const sq_rope_params *p, int32_t half, double *inv_freq, double *attention_factor);

/* ---- roles ----------------------------------------------------------------------------------- */

/* What a tensor does. Numbers are on disk (.sqw): append only. */
typedef enum {
    SQ_ROLE_EMBED,
    SQ_ROLE_HEAD,
    SQ_ROLE_FINAL_NORM,
    SQ_ROLE_ATTN_NORM,
    SQ_ROLE_Q,
    SQ_ROLE_K,
    SQ_ROLE_V,
    SQ_ROLE_O,
    SQ_ROLE_Q_BIAS,
    SQ_ROLE_K_BIAS,
    SQ_ROLE_V_BIAS,
    SQ_ROLE_O_BIAS,
    SQ_ROLE_Q_NORM,
    SQ_ROLE_K_NORM,
    SQ_ROLE_ATTN_POST_NORM,
    SQ_ROLE_FFN_NORM,
    SQ_ROLE_GATE,
    SQ_ROLE_UP,
    SQ_ROLE_DOWN,
    SQ_ROLE_GATE_BIAS,
    SQ_ROLE_UP_BIAS,
    SQ_ROLE_DOWN_BIAS,
    SQ_ROLE_FFN_POST_NORM,
    SQ_ROLE_ATTN_SUB_NORM,
    SQ_ROLE_FFN_SUB_NORM,
    SQ_ROLE_ROPE_FACTORS,
    SQ_ROLE_ROUTER,
    SQ_ROLE_SHARED_SWITCH,
    SQ_ROLE_SHARED_GATE,
    SQ_ROLE_SHARED_UP,
    SQ_ROLE_SHARED_DOWN,
    SQ_ROLE_EXPERT_GATE,
    SQ_ROLE_EXPERT_UP,
    SQ_ROLE_EXPERT_DOWN,
    SQ_ROLE_Q_A,
    SQ_ROLE_Q_A_NORM,
    SQ_ROLE_Q_B,
    SQ_ROLE_KV_A,
    SQ_ROLE_KV_A_NORM,
    SQ_ROLE_KV_B,
    SQ_ROLE_K_B, /* the keys of KV_B, each head transposed: [heads * kv_rank, nope] */
    SQ_ROLE_COUNT
} sq_role;

/* One tensor the model needs: its role and place, its name in a Hugging Face checkpoint, and its shape. A
 * slice of a fused parent has row0 > 0 or parent_rows > rows. */
typedef struct {
    sq_role role;
    int32_t layer;            /* -1: not in a layer */
    int32_t expert;           /* -1: not of an expert */
    bool vector, norm;        /* vector: [rows]; norm: norm_plus_one applies */
    int32_t rows, cols;       /* vector: cols = 1 */
    int32_t row0, parent_rows;
    char hf_name[96];         /* of the tensor or its fused parent */
    char name[96];            /* its own name, unique: what messages and reports say */
    char gguf_name[48];       /* "blk.3.attn_q.weight"; of an expert: all of the layer */
} sq_want;
/* The i-th tensor of the model in execution order; false past the last. A tied model
 * has no tensor of role HEAD. */
bool sq_config_want(const sq_config *c, size_t i, sq_want *out);

/* ---- a bound model --------------------------------------------------------------------------- */

typedef struct {
    sq_weight mat[SQ_ROLE_COUNT];       /* indexed by role; rows = 0: absent */
    const float *vec[SQ_ROLE_COUNT];    /* f32, norm offset folded in; NULL: absent */
    bool windowed;
    int32_t rope;
    sq_expert *experts; /* [moe.n] or NULL: a dense layer */
} sq_layer;

typedef struct squish_model sq_model; /* the public handle is this struct */
struct squish_model {
    squish_alloc alloc;
    sq_arena load;                      /* everything below that is not in a mapping */
    sq_config cfg;
    sq_weight embed, head;              /* head.data == embed.data if tied */
    const float *final_norm;
    const float *rope_factors;          /* [head_dim / 2] or NULL */
    sq_layer *layers;                   /* [n_layers] */
    bool has_weights;
    sq_sqw *sqw;                        /* one of these is open */
    sq_safetensors *st;
    sq_gguf *gguf;
    sq_map *npy;                        /* [n_npy] */
    size_t n_npy;
    struct {
        sq_safetensors *st;             /* one of these is open */
        sq_gguf *gguf;
    } loras[SQ_MAX_LORAS];              /* [n_loras]: the factors are views into them */
    int32_t n_loras;
    int32_t rank_max;                   /* largest sum of low-rank ranks, each rounded up to 64, over matrices
                                           that run together */
    sq_buf tok_blob, tmpl_blob;         /* compiled here, when the file had no compiled form */
    sq_tok_view tok_view;
    sq_tmpl_view tmpl_view;
    const sq_tok *tok;                  /* NULL: no tokenizer */
    const sq_tmpl *tmpl;                /* NULL: no template, tmpl_error says why if one was there */
    squish_error tmpl_error;
    _Atomic(void *) trie;               /* of the vocabulary, made with the first grammar and let go of by */
    void (*trie_free)(void *trie);      /* this; the model knows nothing of grammars */
    struct sq_heads *heads;             /* that guess (model_heads.h); NULL: none */
    squish_warn_fn warn;                /* of who opened it, or NULL */
    void *warn_user;
    const char *config_json, *generation_json; /* NUL-terminated or NULL */
    squish_model_info info;
    squish_tensor_info *tensors;        /* what squish_model_tensor lists */
    size_t n_tensors;
};

/* What runs without low-rank terms: experts, and the projections that latent attention takes head by head. */
static inline bool sq_want_is_bare(const sq_want *w) {
    return w->expert >= 0 || w->role == SQ_ROLE_KV_B || w->role == SQ_ROLE_K_B;
}
/* Matrix or vector of a wanted tensor; NULL: absent. */
const sq_weight *sq_model_matrix(const sq_model *m, const sq_want *w);
const float *sq_model_vector(const sq_model *m, const sq_want *w);

/* Have tensor i of sq_config_want in memory before the first step asks for it; false: past the last. */
bool sq_model_populate(const sq_model *m, sq_backend *b, size_t i);

/* What its cache does: o->kv and o->kv_options, but with keys of 8 bits in layers whose key bias asks for it.
 * step_tokens: most tokens of a step. Options have passed the check: INVALID, UNSUPPORTED (kv_rules.c). */
squish_status sq_model_kv_check(const sq_model *m, const squish_engine_options *o, squish_error *err);
void sq_model_kv_policy(const sq_model *m, const squish_engine_options *o, int32_t step_tokens,
                        sq_kv_policy *out);

/* The shape of its cache. */
sq_kv_shape sq_model_kv_shape(const sq_config *c);

/* A number that stands for what this model computes: configuration, adapters, and rows of every matrix and
 * vector, with the library's version. For keys of what is kept on disk. NO_MEMORY. */
squish_status sq_model_fingerprint(const sq_model *m, const squish_alloc *a, uint64_t *out,
                                   squish_error *err);

/* Which file to open is the caller's decision; these open exactly what they are given. sq_model_open_hf takes
 * checkpoints and MLX directories (config.json has `quantization`). */
squish_status sq_model_open_sqw(sq_model **out, const char *path, const squish_model_options *opt,
                                squish_error *err);
squish_status sq_model_open_hf(sq_model **out, const char *dir, const squish_model_options *opt,
                               squish_error *err);
squish_status sq_model_open_gguf(sq_model **out, const char *path, const squish_model_options *opt,
                                 squish_error *err);
/* Tier 1: NAME-compressed/squish_weights.safetensors with assets/ beside it. */
squish_status sq_model_open_tier1(sq_model **out, const char *compressed, const squish_model_options *opt,
                                  squish_error *err);
/* Tier 2 (finalized/: NAME.npy) and tier 3 (tensors/: NAME__q.npy, NAME__s.npy, NAME__pt.npy, by
 * manifest.json), assets/ beside them. */
squish_status sq_model_open_npy(sq_model **out, const char *compressed, squish_tier tier,
                                const squish_model_options *opt, squish_error *err);
void sq_model_close(sq_model *m);
/* (model_lora.c) Hang adapters on the matrices of an open model, in order, before any engine is made on it:
 * terms are appended to each sq_weight.low. Rows of q and k are ordered as the model's (cfg.rope_pairs).
 * INVALID names the tensor that does not fit, or one that has no matrix here; UNSUPPORTED: DoRA, or
 * modules_to_save; CORRUPT, NOT_FOUND, NO_MEMORY. After an error some terms may hang already: close the
 * model. */
squish_status sq_model_add_loras(sq_model *m, const squish_lora *l, int32_t n, squish_error *err);

/* Text parts of a Hugging Face directory, compiled (for opening one and for building a .sqw). A missing
 * template leaves tmpl empty; a broken one does too, with the reason in *tmpl_error (the model still
 * completes text). */
squish_status sq_model_compile_text(const char *dir, const squish_alloc *a, sq_buf *tok, sq_buf *tmpl,
                                    squish_error *tmpl_error, squish_warn_fn warn, void *warn_user,
                                    squish_error *err);

/* ---- the forward pass ------------------------------------------------------------------------ */

typedef struct sq_forward sq_forward;
struct sq_stream; /* model_stream.h: weights on their way from the file */

/* Rows of one step that belong to one sequence. */
typedef struct {
    sq_kv_seq *kv;         /* pages for [0, pos0 + n_rows) are reserved */
    int32_t row0, n_rows, pos0;
    bool prompt;           /* none of the rows was drawn: see sq_attn_prompt */
    int32_t observe;       /* rows that end a prompt: what they look at is kept (sq_kv_seq_mass, _looks) */
    int32_t observe_from;  /* position from which on rows of that prompt are looked at */
    int32_t lead, lead_row0; /* a side branch: keys and values of rows [lead_row0, lead_row0 + lead) of the
                              step are stored at the positions before pos0 here too */
} sq_step_seg;

/* Plan and allocate everything for steps of at most m_max rows, n_seg_max sequences and out_max rows of
 * logits. scratch is touched only as far as used. */
squish_status sq_forward_new(sq_forward **out, const sq_model *m, sq_backend *b, const sq_kv_pool *kv,
                             int32_t m_max, int32_t n_seg_max, int32_t out_max, const squish_alloc *a,
                             squish_error *err);
void sq_forward_free(sq_forward *f);
uint64_t sq_forward_bytes(const sq_model *m, int32_t m_max, int32_t out_max); /* what new would reserve */

/* What goes into a matrix. Matrices with the same input share one: q, k, v; gate, up. */
typedef enum { SQ_TAP_ATTN_IN, SQ_TAP_ATTN_OUT, SQ_TAP_FFN_IN, SQ_TAP_FFN_MID, SQ_TAP_COUNT } sq_tap;
/* The input of a matrix role; SQ_TAP_COUNT for roles that are no matrix of a layer. */
sq_tap sq_tap_of(sq_role r);
/* Columns of an input. */
int32_t sq_tap_cols(const sq_config *c, sq_tap t);
/* Called with every input of every layer in the order they are made, x [m][ld] f32 on the host, before the
 * matrices run. NULL: off, which costs nothing. */
typedef void (*sq_tap_fn)(void *user, int32_t layer, sq_tap tap, const float *x, size_t ld, int32_t m);
void sq_forward_set_tap(sq_forward *f, sq_tap_fn fn, void *user);

/* How a layer attends; cos and sin are those of the last run. */
sq_attn_shape sq_forward_attn_shape(const sq_forward *f, int32_t i_layer);

/* Take weights from a stream, which outlives f, in place of the mapping; before the first run. */
void sq_forward_set_stream(sq_forward *f, struct sq_stream *s);

/* Run ids [m] (host; each < n_vocab) through all layers and store keys and values. Segments cover the rows in
 * order. Cannot fail but where weights are streamed and cannot be read: then what the rows would have become
 * is not there, every other tile of the cache is as it should be, and nothing may be asked of the rows. */
squish_status sq_forward_run(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *segs,
                             int32_t n_segs, squish_error *err);
/* The same, but the rows of the last segment, at most SQ_PART_ROWS and of one tile, go through layers
 * [from, to) only. What comes out is kept; the next part takes the same rows from there on, its `from` the
 * `to` of this one. Other parts than the next are not begun meanwhile (or they end this one), other rows may
 * run, and the sequence stays as it is. After the last layer these rows are like all others, before it only
 * logits of the others can be had. Bits do not show it: of other rows a row needs what lies in the cache of
 * its own layer. Not where tiles are voted on (sq_kv_policy.votes): those look at whole prompts. */
enum { SQ_PART_ROWS = 32 };
squish_status sq_forward_run_part(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *segs,
                                  int32_t n_segs, int32_t from, int32_t to, squish_error *err);
/* m rows of one sequence through the first layers alone, for a guess: keys and values of these layers become
 * what a whole run would store, those of later layers stay, so these positions have to be run again before
 * anybody attends to them there. Where tiles are sealed no multiple of 128 may lie between the rows. Weights
 * are not streamed. */
void sq_forward_run_first(sq_forward *f, const int32_t *ids, int32_t m, const sq_step_seg *seg,
                          int32_t layers);
/* Logits of n <= out_max rows of the last run: host memory, row i at sq_forward_logits_ld(f) * i, valid until
 * the next call. */
const float *sq_forward_logits(sq_forward *f, const int32_t *rows, int32_t n);
size_t sq_forward_logits_ld(const sq_forward *f);
/* The same of one row for ids [0, n_ids) and a few behind them, which costs less: vocabularies made by
 * merging have what is common in front. Weights are not streamed. */
const float *sq_forward_logits_first(sq_forward *f, int32_t row, int32_t n_ids);
/* The hidden states behind the final norm that these logits came from: host, f32, row i at
 * sq_forward_hidden_ld(f) * i, valid as long. */
const float *sq_forward_behind_logits(sq_forward *f);
/* Likewise the hidden states after the final norm, f32, row i at sq_forward_hidden_ld(f) * i: what embeddings
 * are made of. Ends what sq_forward_logits gave. */
const float *sq_forward_hidden(sq_forward *f, const int32_t *rows, int32_t n);
size_t sq_forward_hidden_ld(const sq_forward *f);

#endif
