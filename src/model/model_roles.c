/* SPDX-License-Identifier: Apache-2.0
 *
 * model_roles.c - the tensors a model needs, in execution order: one table for every family.
 *
 * A row says under which condition the tensor exists, what it is called in a Hugging Face checkpoint and in a
 * GGUF file, and what shape it has. Names that a family changes (Gemma's four norms, Phi-3's fused parents)
 * are resolved here and nowhere else. */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

typedef enum {
    DIM_ONE,
    DIM_HIDDEN,
    DIM_FFN,
    DIM_Q,
    DIM_KV,
    DIM_HEAD,
    DIM_HALF_HEAD,
    DIM_VOCAB,
    DIM_EXPERTS,
    DIM_EXPERT_FFN,
    DIM_SHARED_FFN,
    DIM_O_IN,
    DIM_Q_RANK,
    DIM_KV_RANK,
    DIM_KV_A,
    DIM_KV_B,
    DIM_K_B,
    DIM_NOPE
} dim;
typedef enum {
    IF_ALWAYS,
    IF_DENSE,
    IF_MOE,
    IF_SHARED,
    IF_SWITCH,
    IF_Q,
    IF_PLAIN_KV,
    IF_MLA,
    IF_Q_RANK,
    IF_QKV_BIAS,
    IF_O_BIAS,
    IF_MLP_BIAS,
    IF_QK_NORM,
    IF_POST_NORMS,
    IF_SUB_NORMS,
    IF_ROPE_FACTORS,
    IF_UNTIED
} condition;
typedef enum { FUSE_NONE, FUSE_QKV, FUSE_GATE_UP } fuse;

typedef struct {
    sq_role role;
    bool norm;
    condition when;
    fuse fused;        /* slice of this parent where cfg->fused */
    const char *name;  /* after "model.layers.N." for layer tensors */
    dim rows, cols;
    const char *gguf;  /* after "blk.N." for layer tensors */
} row;

static const row before[] = {
    {SQ_ROLE_ROPE_FACTORS, false, IF_ROPE_FACTORS, FUSE_NONE, "rope_freqs.weight", DIM_HALF_HEAD, DIM_ONE,
     "rope_freqs.weight"},
    {SQ_ROLE_EMBED, false, IF_ALWAYS, FUSE_NONE, "model.embed_tokens.weight", DIM_VOCAB, DIM_HIDDEN,
     "token_embd.weight"},
};

static const row in_layer[] = {
    {SQ_ROLE_ATTN_NORM, true, IF_ALWAYS, FUSE_NONE, "input_layernorm.weight", DIM_HIDDEN, DIM_ONE,
     "attn_norm.weight"},
    {SQ_ROLE_Q, false, IF_Q, FUSE_QKV, "self_attn.q_proj.weight", DIM_Q, DIM_HIDDEN, "attn_q.weight"},
    {SQ_ROLE_K, false, IF_PLAIN_KV, FUSE_QKV, "self_attn.k_proj.weight", DIM_KV, DIM_HIDDEN, "attn_k.weight"},
    {SQ_ROLE_V, false, IF_PLAIN_KV, FUSE_QKV, "self_attn.v_proj.weight", DIM_KV, DIM_HIDDEN, "attn_v.weight"},
    {SQ_ROLE_Q_BIAS, false, IF_QKV_BIAS, FUSE_QKV, "self_attn.q_proj.bias", DIM_Q, DIM_ONE, "attn_q.bias"},
    {SQ_ROLE_K_BIAS, false, IF_QKV_BIAS, FUSE_QKV, "self_attn.k_proj.bias", DIM_KV, DIM_ONE, "attn_k.bias"},
    {SQ_ROLE_V_BIAS, false, IF_QKV_BIAS, FUSE_QKV, "self_attn.v_proj.bias", DIM_KV, DIM_ONE, "attn_v.bias"},
    {SQ_ROLE_Q_NORM, true, IF_QK_NORM, FUSE_NONE, "self_attn.q_norm.weight", DIM_HEAD, DIM_ONE,
     "attn_q_norm.weight"},
    {SQ_ROLE_K_NORM, true, IF_QK_NORM, FUSE_NONE, "self_attn.k_norm.weight", DIM_HEAD, DIM_ONE,
     "attn_k_norm.weight"},
    {SQ_ROLE_ATTN_SUB_NORM, true, IF_SUB_NORMS, FUSE_NONE, "self_attn.attn_sub_norm.weight", DIM_Q, DIM_ONE,
     "attn_sub_norm.weight"},
    {SQ_ROLE_Q_A, false, IF_Q_RANK, FUSE_NONE, "self_attn.q_a_proj.weight", DIM_Q_RANK, DIM_HIDDEN,
     "attn_q_a.weight"},
    {SQ_ROLE_Q_A_NORM, true, IF_Q_RANK, FUSE_NONE, "self_attn.q_a_layernorm.weight", DIM_Q_RANK, DIM_ONE,
     "attn_q_a_norm.weight"},
    {SQ_ROLE_Q_B, false, IF_Q_RANK, FUSE_NONE, "self_attn.q_b_proj.weight", DIM_Q, DIM_Q_RANK,
     "attn_q_b.weight"},
    {SQ_ROLE_KV_A, false, IF_MLA, FUSE_NONE, "self_attn.kv_a_proj_with_mqa.weight", DIM_KV_A, DIM_HIDDEN,
     "attn_kv_a_mqa.weight"},
    {SQ_ROLE_KV_A_NORM, true, IF_MLA, FUSE_NONE, "self_attn.kv_a_layernorm.weight", DIM_KV_RANK, DIM_ONE,
     "attn_kv_a_norm.weight"},
    {SQ_ROLE_KV_B, false, IF_MLA, FUSE_NONE, "self_attn.kv_b_proj.weight", DIM_KV_B, DIM_KV_RANK,
     "attn_kv_b.weight"},
    {SQ_ROLE_K_B, false, IF_MLA, FUSE_NONE, "self_attn.k_b_transposed.weight", DIM_K_B, DIM_NOPE,
     "attn_k_b.weight"},
    {SQ_ROLE_O, false, IF_ALWAYS, FUSE_NONE, "self_attn.o_proj.weight", DIM_HIDDEN, DIM_O_IN,
     "attn_output.weight"},
    {SQ_ROLE_O_BIAS, false, IF_O_BIAS, FUSE_NONE, "self_attn.o_proj.bias", DIM_HIDDEN, DIM_ONE,
     "attn_output.bias"},
    {SQ_ROLE_ATTN_POST_NORM, true, IF_POST_NORMS, FUSE_NONE, "post_attention_layernorm.weight", DIM_HIDDEN,
     DIM_ONE, "post_attention_norm.weight"},
    {SQ_ROLE_FFN_NORM, true, IF_ALWAYS, FUSE_NONE, "post_attention_layernorm.weight", DIM_HIDDEN, DIM_ONE,
     "ffn_norm.weight"},
    {SQ_ROLE_GATE, false, IF_DENSE, FUSE_GATE_UP, "mlp.gate_proj.weight", DIM_FFN, DIM_HIDDEN,
     "ffn_gate.weight"},
    {SQ_ROLE_UP, false, IF_DENSE, FUSE_GATE_UP, "mlp.up_proj.weight", DIM_FFN, DIM_HIDDEN, "ffn_up.weight"},
    {SQ_ROLE_GATE_BIAS, false, IF_MLP_BIAS, FUSE_NONE, "mlp.gate_proj.bias", DIM_FFN, DIM_ONE,
     "ffn_gate.bias"},
    {SQ_ROLE_UP_BIAS, false, IF_MLP_BIAS, FUSE_NONE, "mlp.up_proj.bias", DIM_FFN, DIM_ONE, "ffn_up.bias"},
    {SQ_ROLE_FFN_SUB_NORM, true, IF_SUB_NORMS, FUSE_NONE, "mlp.ffn_sub_norm.weight", DIM_FFN, DIM_ONE,
     "ffn_sub_norm.weight"},
    {SQ_ROLE_DOWN, false, IF_DENSE, FUSE_NONE, "mlp.down_proj.weight", DIM_HIDDEN, DIM_FFN,
     "ffn_down.weight"},
    {SQ_ROLE_DOWN_BIAS, false, IF_MLP_BIAS, FUSE_NONE, "mlp.down_proj.bias", DIM_HIDDEN, DIM_ONE,
     "ffn_down.bias"},
    {SQ_ROLE_FFN_POST_NORM, true, IF_POST_NORMS, FUSE_NONE, "post_feedforward_layernorm.weight", DIM_HIDDEN,
     DIM_ONE, "post_ffw_norm.weight"},
    {SQ_ROLE_ROUTER, false, IF_MOE, FUSE_NONE, "mlp.gate.weight", DIM_EXPERTS, DIM_HIDDEN,
     "ffn_gate_inp.weight"},
    {SQ_ROLE_SHARED_SWITCH, false, IF_SWITCH, FUSE_NONE, "mlp.shared_expert_gate.weight", DIM_ONE, DIM_HIDDEN,
     "ffn_gate_inp_shexp.weight"},
    {SQ_ROLE_SHARED_GATE, false, IF_SHARED, FUSE_NONE, "mlp.shared_expert.gate_proj.weight", DIM_SHARED_FFN,
     DIM_HIDDEN, "ffn_gate_shexp.weight"},
    {SQ_ROLE_SHARED_UP, false, IF_SHARED, FUSE_NONE, "mlp.shared_expert.up_proj.weight", DIM_SHARED_FFN,
     DIM_HIDDEN, "ffn_up_shexp.weight"},
    {SQ_ROLE_SHARED_DOWN, false, IF_SHARED, FUSE_NONE, "mlp.shared_expert.down_proj.weight", DIM_HIDDEN,
     DIM_SHARED_FFN, "ffn_down_shexp.weight"},
};

/* Of every expert, after the rows above; %d is its number. Other files have all experts of a layer in one
 * tensor, whose slices they then are. */
static const row in_expert[] = {
    {SQ_ROLE_EXPERT_GATE, false, IF_MOE, FUSE_NONE, "mlp.experts.%d.gate_proj.weight", DIM_EXPERT_FFN,
     DIM_HIDDEN, "ffn_gate_exps.weight"},
    {SQ_ROLE_EXPERT_UP, false, IF_MOE, FUSE_NONE, "mlp.experts.%d.up_proj.weight", DIM_EXPERT_FFN, DIM_HIDDEN,
     "ffn_up_exps.weight"},
    {SQ_ROLE_EXPERT_DOWN, false, IF_MOE, FUSE_NONE, "mlp.experts.%d.down_proj.weight", DIM_HIDDEN,
     DIM_EXPERT_FFN, "ffn_down_exps.weight"},
};

static const row after[] = {
    {SQ_ROLE_FINAL_NORM, true, IF_ALWAYS, FUSE_NONE, "model.norm.weight", DIM_HIDDEN, DIM_ONE,
     "output_norm.weight"},
    {SQ_ROLE_HEAD, false, IF_UNTIED, FUSE_NONE, "lm_head.weight", DIM_VOCAB, DIM_HIDDEN,
     "output.weight"},
};

/* layer: -1 for what is in none. */
static bool exists(const sq_config *c, condition when, int32_t layer) {
    const bool moe = layer >= 0 && sq_config_is_moe(c, layer);
    switch (when) {
    case IF_DENSE: return !moe;
    case IF_MOE: return moe;
    case IF_SHARED: return moe && c->moe.shared_ffn > 0;
    case IF_SWITCH: return moe && c->moe.shared_switch;
    case IF_Q: return c->mla.q_rank == 0;
    case IF_PLAIN_KV: return c->mla.kv_rank == 0;
    case IF_MLA: return c->mla.kv_rank > 0;
    case IF_Q_RANK: return c->mla.q_rank > 0;
    case IF_QKV_BIAS: return c->qkv_bias;
    case IF_O_BIAS: return c->o_bias;
    case IF_MLP_BIAS: return c->mlp_bias && !moe;
    case IF_QK_NORM: return c->qk_norm;
    case IF_POST_NORMS: return c->post_norms;
    case IF_SUB_NORMS: return c->sub_norms;
    case IF_ROPE_FACTORS: return c->rope_factors;
    case IF_UNTIED: return !c->tied;
    default: return true;
    }
}

static int32_t size_of(const sq_config *c, dim d) {
    switch (d) {
    case DIM_HIDDEN: return c->hidden;
    case DIM_FFN: return c->ffn;
    case DIM_Q: return c->n_heads * c->head_dim;
    case DIM_KV: return c->n_kv_heads * c->head_dim;
    case DIM_HEAD: return c->head_dim;
    case DIM_HALF_HEAD: return c->head_dim / 2;
    case DIM_VOCAB: return c->n_vocab;
    case DIM_EXPERTS: return c->moe.n;
    case DIM_EXPERT_FFN: return c->moe.ffn;
    case DIM_SHARED_FFN: return c->moe.shared_ffn;
    case DIM_O_IN: return c->n_heads * (c->mla.kv_rank ? c->mla.v : c->head_dim);
    case DIM_Q_RANK: return c->mla.q_rank;
    case DIM_KV_RANK: return c->mla.kv_rank;
    case DIM_KV_A: return c->mla.kv_rank + c->mla.rope;
    case DIM_KV_B: return c->n_heads * (c->mla.nope + c->mla.v);
    case DIM_K_B: return c->n_heads * c->mla.kv_rank;
    case DIM_NOPE: return c->mla.nope;
    default: return 1;
    }
}

/* Where a slice lies in its fused parent: q | k | v and gate | up, by rows. */
static void place_fused(const sq_config *c, const row *r, sq_want *w) {
    const int32_t q = size_of(c, DIM_Q), kv = size_of(c, DIM_KV);
    const bool bias = r->cols == DIM_ONE;
    if (r->fused == FUSE_QKV) {
        w->parent_rows = q + 2 * kv;
        w->row0 = r->role == SQ_ROLE_Q || r->role == SQ_ROLE_Q_BIAS ? 0
                : r->role == SQ_ROLE_K || r->role == SQ_ROLE_K_BIAS ? q : q + kv;
        snprintf(w->hf_name, sizeof w->hf_name, "model.layers.%d.self_attn.qkv_proj.%s", w->layer,
                 bias ? "bias" : "weight");
    } else {
        w->parent_rows = 2 * c->ffn;
        w->row0 = r->role == SQ_ROLE_UP ? c->ffn : 0;
        snprintf(w->hf_name, sizeof w->hf_name, "model.layers.%d.mlp.gate_up_proj.weight", w->layer);
    }
}

static void fill(const sq_config *c, const row *r, int32_t layer, int32_t expert, sq_want *w) {
    *w = (sq_want){.role = r->role, .layer = layer, .expert = expert, .norm = r->norm};
    w->vector = r->cols == DIM_ONE;
    w->rows = w->parent_rows = size_of(c, r->rows);
    w->cols = size_of(c, r->cols);
    char name[64];
    snprintf(name, sizeof name, "%s", r->name);
    /* DeepSeek's block has no switch, and a name of its own. */
    static const char shared[] = "mlp.shared_expert.";
    if (!c->moe.shared_switch && strncmp(r->name, shared, sizeof shared - 1) == 0)
        snprintf(name, sizeof name, "mlp.shared_experts.%s", r->name + sizeof shared - 1);
    if (expert >= 0) {
        const char *tail = strchr(r->name, '%');
        snprintf(name, sizeof name, "%.*s%d%s", (int)(tail - r->name), r->name, expert, tail + 2);
    }
    /* With norms after the blocks the one before the feed-forward block has a name of its own. */
    if (r->role == SQ_ROLE_FFN_NORM && c->post_norms)
        snprintf(name, sizeof name, "pre_feedforward_layernorm.weight");
    if (layer < 0) {
        snprintf(w->name, sizeof w->name, "%s", name);
        snprintf(w->gguf_name, sizeof w->gguf_name, "%s", r->gguf);
    } else {
        snprintf(w->name, sizeof w->name, "model.layers.%d.%s", layer, name);
        snprintf(w->gguf_name, sizeof w->gguf_name, "blk.%d.%s", layer, r->gguf);
    }
    memcpy(w->hf_name, w->name, sizeof w->name);
    if (c->fused && r->fused != FUSE_NONE) place_fused(c, r, w);
}

static size_t count(const sq_config *c, const row *rows, size_t n, int32_t layer) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) k += exists(c, rows[i].when, layer);
    return k;
}

static const row *nth(const sq_config *c, const row *rows, size_t n, int32_t layer, size_t i) {
    for (size_t j = 0; j < n; j++)
        if (exists(c, rows[j].when, layer) && i-- == 0) return &rows[j];
    return NULL;
}

/* The i-th tensor of a layer of which n_rows do not belong to experts. */
static void fill_layer(const sq_config *c, int32_t layer, size_t n_rows, size_t i, sq_want *w) {
    if (i < n_rows) {
        fill(c, nth(c, in_layer, SQ_COUNT(in_layer), layer, i), layer, -1, w);
        return;
    }
    i -= n_rows;
    fill(c, &in_expert[i % SQ_COUNT(in_expert)], layer, (int32_t)(i / SQ_COUNT(in_expert)), w);
}

bool sq_config_want(const sq_config *c, size_t i, sq_want *out) {
    const size_t n_before = count(c, before, SQ_COUNT(before), -1);
    if (i < n_before) {
        fill(c, nth(c, before, SQ_COUNT(before), -1, i), -1, -1, out);
        return true;
    }
    i -= n_before;
    /* Layers are of two kinds. */
    size_t rows[2] = {0};
    for (int32_t l = 0; l < c->n_layers; l++) {
        const bool moe = sq_config_is_moe(c, l);
        if (rows[moe] == 0) rows[moe] = count(c, in_layer, SQ_COUNT(in_layer), l);
        const size_t all = rows[moe] + (moe ? (size_t)c->moe.n * SQ_COUNT(in_expert) : 0);
        if (i < all) {
            fill_layer(c, l, rows[moe], i, out);
            return true;
        }
        i -= all;
    }
    const row *r = nth(c, after, SQ_COUNT(after), -1, i);
    if (!r) return false;
    fill(c, r, -1, -1, out);
    return true;
}

/* ---- what goes into a matrix ------------------------------------------------------------------- */

sq_tap sq_tap_of(sq_role r) {
    switch (r) {
    case SQ_ROLE_Q:
    case SQ_ROLE_K:
    case SQ_ROLE_V:
    case SQ_ROLE_Q_A:
    case SQ_ROLE_KV_A: return SQ_TAP_ATTN_IN;
    case SQ_ROLE_O: return SQ_TAP_ATTN_OUT;
    case SQ_ROLE_GATE:
    case SQ_ROLE_UP:
    case SQ_ROLE_ROUTER:
    case SQ_ROLE_SHARED_SWITCH:
    case SQ_ROLE_SHARED_GATE:
    case SQ_ROLE_SHARED_UP:
    case SQ_ROLE_EXPERT_GATE:
    case SQ_ROLE_EXPERT_UP: return SQ_TAP_FFN_IN;
    case SQ_ROLE_DOWN: return SQ_TAP_FFN_MID;
    default: return SQ_TAP_COUNT;
    }
}

int32_t sq_tap_cols(const sq_config *c, sq_tap t) {
    switch (t) {
    case SQ_TAP_ATTN_OUT: return size_of(c, DIM_O_IN);
    case SQ_TAP_FFN_MID: return c->ffn;
    default: return c->hidden;
    }
}
