/* SPDX-License-Identifier: Apache-2.0
 *
 * model_config_gguf.c - the keys of a GGUF file to sq_config.
 *
 * Which biases and norms there are is not said by keys: the tensors of the first layer tell. The llama family
 * has its rows of q and k ordered for rotation of neighbouring pairs; the others turn halves. */
#include "model/model_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What every reader below needs. */
typedef struct {
    const sq_gguf *g;
    char arch[24], ours[24]; /* as the file calls it; sq_config.arch */
    squish_error *err;
} keys;

static const struct {
    const char *gguf, *ours;
} archs[] = {{"llama", "llama"},        {"qwen2", "qwen2"},        {"qwen3", "qwen3"},
             {"qwen2moe", "qwen2_moe"}, {"qwen3moe", "qwen3_moe"}, {"deepseek2", "deepseek_v2"}};

/* The full key, "qwen2.block_count", in text of the caller. */
typedef struct {
    char text[80];
} key_text;
static const char *full(const keys *k, const char *name, key_text *out) {
    snprintf(out->text, sizeof out->text, "%s.%s", k->arch, name);
    return out->text;
}

static squish_status read_arch(keys *k) {
    sq_span s = {0};
    if (!sq_gguf_str(k->g, "general.architecture", &s))
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key 'general.architecture' is missing");
    for (size_t i = 0; i < SQ_COUNT(archs); i++) {
        if (strlen(archs[i].gguf) != s.n || memcmp(archs[i].gguf, s.p, s.n) != 0) continue;
        snprintf(k->arch, sizeof k->arch, "%s", archs[i].gguf);
        snprintf(k->ours, sizeof k->ours, "%s", archs[i].ours);
        return SQUISH_OK;
    }
    char shown[41] = "";
    for (size_t i = 0; i < s.n && i < sizeof shown - 1; i++)
        shown[i] = s.p[i] > ' ' && s.p[i] < 127 ? (char)s.p[i] : '?';
    return sq_fail(
        k->err, SQUISH_UNSUPPORTED,
        "gguf: architecture '%s' is not one this version runs from such a file (llama, qwen2, qwen3, "
        "qwen2moe, qwen3moe, deepseek2)",
        shown);
}

/* An integer in [lo, hi]. Absent: *out stays, or an error if required. */
static squish_status get_int(const keys *k, const char *name, bool required, int64_t lo, int64_t hi,
                             int32_t *out) {
    key_text t;
    int64_t v = 0;
    if (!sq_gguf_get(k->g, full(k, name, &t)))
        return required ? sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is missing", t.text) : SQUISH_OK;
    if (!sq_gguf_i64(k->g, t.text, &v))
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is not an integer", t.text);
    if (v < lo || v > hi)
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is %lld, wanted %lld to %lld", t.text,
                       (long long)v, (long long)lo, (long long)hi);
    *out = (int32_t)v;
    return SQUISH_OK;
}

/* The same for real numbers, never required. */
static squish_status get_real(const keys *k, const char *name, double lo, double hi, double *out) {
    key_text t;
    double v = 0.0;
    if (!sq_gguf_get(k->g, full(k, name, &t))) return SQUISH_OK;
    if (!sq_gguf_f64(k->g, t.text, &v))
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is not a real number", t.text);
    if (!(v >= lo && v <= hi))
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is %g, wanted %g to %g", t.text, v, lo, hi);
    *out = v;
    return SQUISH_OK;
}

/* head_count_kv is a number, or an array with one per layer; ours are the same in all layers. */
static squish_status kv_heads(const keys *k, sq_config *c) {
    key_text t;
    const sq_gguf_kv *kv = sq_gguf_get(k->g, full(k, "attention.head_count_kv", &t));
    c->n_kv_heads = c->n_heads;
    if (!kv || kv->type != SQ_GGUF_ARRAY)
        return get_int(k, "attention.head_count_kv", false, 1, SQ_MAX_HEADS, &c->n_kv_heads);
    if ((kv->item_type != SQ_GGUF_I32 && kv->item_type != SQ_GGUF_U32) || kv->count != (uint64_t)c->n_layers)
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s': wanted %d integers, one per layer", t.text,
                       c->n_layers);
    uint32_t first = 0;
    memcpy(&first, kv->value.p, sizeof first);
    for (uint64_t i = 1; i < kv->count; i++)
        if (memcmp(kv->value.p + 4 * i, &first, sizeof first) != 0)
            return sq_fail(k->err, SQUISH_UNSUPPORTED, "gguf: key '%s' differs from layer to layer", t.text);
    if (first < 1 || first > SQ_MAX_HEADS)
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: key '%s' is %u, wanted 1 to %d", t.text, first,
                       SQ_MAX_HEADS);
    c->n_kv_heads = (int32_t)first;
    return SQUISH_OK;
}

static bool is_latent(const keys *k) { return strcmp(k->ours, "deepseek_v2") == 0; }

/* Heads of latent attention. Newer files call those of the cached rows key_length, and the heads' own
 * key_length_mla. */
static squish_status latent_sizes(const keys *k, sq_config *c) {
    sq_mla_config *m = &c->mla;
    key_text t;
    const bool newer = sq_gguf_get(k->g, full(k, "attention.key_length_mla", &t)) != NULL;
    SQ_TRY(get_int(k, "attention.kv_lora_rank", true, 1, SQ_MAX_HIDDEN, &m->kv_rank));
    SQ_TRY(get_int(k, "attention.q_lora_rank", false, 0, SQ_MAX_HIDDEN, &m->q_rank));
    SQ_TRY(get_int(k, "rope.dimension_count", true, 2, SQ_MAX_HEAD_DIM, &m->rope));
    SQ_TRY(get_int(k, newer ? "attention.key_length_mla" : "attention.key_length", true, 1, SQ_MAX_HEAD_DIM,
                   &c->head_dim));
    SQ_TRY(get_int(k, newer ? "attention.value_length_mla" : "attention.value_length", true, 1,
                   SQ_MAX_HEAD_DIM, &m->v));
    if (m->rope >= c->head_dim)
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: %d of %d channels of a head are rotated", m->rope,
                       c->head_dim);
    m->nope = c->head_dim - m->rope;
    c->n_kv_heads = c->n_heads;
    return SQUISH_OK;
}

static squish_status head_sizes(const keys *k, sq_config *c) {
    SQ_TRY(kv_heads(k, c));
    c->head_dim = c->hidden / c->n_heads;
    SQ_TRY(get_int(k, "attention.key_length", false, 1, SQ_MAX_HEAD_DIM, &c->head_dim));
    int32_t value = c->head_dim, rotated = c->head_dim;
    SQ_TRY(get_int(k, "attention.value_length", false, 1, SQ_MAX_HEAD_DIM, &value));
    SQ_TRY(get_int(k, "rope.dimension_count", false, 1, SQ_MAX_HEAD_DIM, &rotated));
    if (value == c->head_dim && rotated == c->head_dim) return SQUISH_OK;
    return sq_fail(
        k->err, SQUISH_UNSUPPORTED,
        "gguf: heads of %d for keys, %d for values and %d of them rotated: all three must be equal",
        c->head_dim, value, rotated);
}

static squish_status sizes(const keys *k, sq_config *c) {
    SQ_TRY(get_int(k, "block_count", true, 1, SQ_MAX_LAYERS, &c->n_layers));
    SQ_TRY(get_int(k, "embedding_length", true, 1, SQ_MAX_HIDDEN, &c->hidden));
    SQ_TRY(get_int(k, "feed_forward_length", true, 1, SQ_MAX_FFN, &c->ffn));
    SQ_TRY(get_int(k, "attention.head_count", true, 1, SQ_MAX_HEADS, &c->n_heads));
    SQ_TRY(get_int(k, "context_length", true, 1, SQ_MAX_CTX, &c->ctx));
    SQ_TRY(is_latent(k) ? latent_sizes(k, c) : head_sizes(k, c));
    return SQUISH_OK;
}

static squish_status vocabulary(const keys *k, sq_config *c) {
    /* The rows of the embedding are what counts; files without weights still name their tokens. */
    int64_t vocab = 0;
    key_text t;
    const sq_ftensor *embed = sq_gguf_find(k->g, "token_embd.weight");
    const sq_gguf_kv *tokens = sq_gguf_get(k->g, "tokenizer.ggml.tokens");
    if (embed && embed->n_dims == 2)
        vocab = embed->dims[0] <= SQ_MAX_VOCAB ? (int64_t)embed->dims[0] : -1;
    else if (!sq_gguf_i64(k->g, full(k, "vocab_size", &t), &vocab) && tokens)
        vocab = (int64_t)tokens->count;
    if (vocab < 1 || vocab > SQ_MAX_VOCAB)
        return sq_fail(k->err, SQUISH_CORRUPT, "gguf: token_embd.weight: rows missing or not 1 to %d",
                       SQ_MAX_VOCAB);
    c->n_vocab = (int32_t)vocab;
    return SQUISH_OK;
}

static void mark_layers(const keys *k, sq_config *c) {
    for (int32_t i = 0; i < c->n_layers; i++) {
        char name[48];
        snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", i);
        if (sq_gguf_find(k->g, name)) c->layer_flags[i] |= SQ_LAYER_MOE;
    }
}

static squish_status deepseek_experts(const keys *k, sq_config *c) {
    sq_moe_config *m = &c->moe;
    int32_t shared = 0, scoring = 1;
    double scale = 1.0;
    key_text t;
    bool norm = false;
    *m = (sq_moe_config){.n_group = 1, .topk_group = 1};
    SQ_TRY(get_int(k, "expert_count", true, 1, SQ_MAX_EXPERTS, &m->n));
    SQ_TRY(get_int(k, "expert_used_count", true, 1, SQ_MAX_EXPERTS_USED, &m->used));
    SQ_TRY(get_int(k, "expert_feed_forward_length", true, 1, SQ_MAX_FFN / 16, &m->ffn));
    SQ_TRY(get_int(k, "expert_shared_count", false, 0, 16, &shared));
    SQ_TRY(get_int(k, "expert_group_count", false, 1, SQ_MAX_EXPERTS, &m->n_group));
    SQ_TRY(get_int(k, "expert_group_used_count", false, 1, SQ_MAX_EXPERTS, &m->topk_group));
    SQ_TRY(get_int(k, "expert_gating_func", false, 0, 16, &scoring));
    if (scoring > 1)
        return sq_fail(k->err, SQUISH_UNSUPPORTED, "gguf: expert_gating_func is %d, softmax (1) is run",
                       scoring);
    SQ_TRY(get_real(k, "expert_weights_scale", 0.0, 1e3, &scale));
    if (sq_gguf_bool(k->g, full(k, "expert_weights_norm", &t), &norm)) m->norm_topk = norm && m->used > 1;
    m->scale = scale > 0.0 ? (float)scale : 1.0f;
    m->shared_ffn = shared * m->ffn;
    mark_layers(k, c);
    return SQUISH_OK;
}

/* Layers with a router have experts. The weights of the chosen are divided by their sum where the file says
 * so, or says nothing and the family does. */
static squish_status experts(const keys *k, sq_config *c) {
    sq_moe_config *m = &c->moe;
    int32_t n = 0;
    SQ_TRY(get_int(k, "expert_count", false, 0, SQ_MAX_EXPERTS, &n));
    const bool qwen2 = strcmp(k->ours, "qwen2_moe") == 0, qwen3 = strcmp(k->ours, "qwen3_moe") == 0;
    if (is_latent(k)) return n > 0 ? deepseek_experts(k, c) : SQUISH_OK;
    if (n > 0 && !qwen2 && !qwen3)
        return sq_fail(k->err, SQUISH_UNSUPPORTED, "gguf: %d experts in architecture '%s' are not run", n,
                       k->arch);
    if (!qwen2 && !qwen3) return SQUISH_OK;
    *m = (sq_moe_config){.n_group = 1, .topk_group = 1, .scale = 1.0f, .norm_topk = qwen3};
    SQ_TRY(get_int(k, "expert_count", true, 1, SQ_MAX_EXPERTS, &m->n));
    SQ_TRY(get_int(k, "expert_used_count", true, 1, SQ_MAX_EXPERTS_USED, &m->used));
    m->ffn = c->ffn;
    SQ_TRY(get_int(k, "expert_feed_forward_length", false, 1, SQ_MAX_FFN, &m->ffn));
    key_text t;
    bool norm;
    if (sq_gguf_bool(k->g, full(k, "expert_weights_norm", &t), &norm)) m->norm_topk = norm;
    if (qwen2) {
        SQ_TRY(get_int(k, "expert_shared_feed_forward_length", true, 1, SQ_MAX_FFN, &m->shared_ffn));
        m->shared_switch = 1;
    }
    mark_layers(k, c);
    return SQUISH_OK;
}

static squish_status rope_type(const keys *k, sq_rope_params *p) {
    key_text t;
    sq_span s = {0};
    if (!sq_gguf_str(k->g, full(k, "rope.scaling.type", &t), &s)) return SQUISH_OK;
    static const struct {
        const char *name;
        sq_rope_type type;
    } types[] = {{"none", SQ_ROPE_DEFAULT}, {"linear", SQ_ROPE_LINEAR}, {"yarn", SQ_ROPE_YARN}};
    for (size_t i = 0; i < SQ_COUNT(types); i++) {
        if (strlen(types[i].name) != s.n || memcmp(types[i].name, s.p, s.n) != 0) continue;
        p->type = types[i].type;
        return SQUISH_OK;
    }
    return sq_fail(k->err, SQUISH_UNSUPPORTED,
                   "gguf: key '%s' is not one this version runs (none, linear, yarn)", t.text);
}

static squish_status rope(const keys *k, sq_config *c) {
    sq_rope_params *p = &c->rope[0];
    *p = (sq_rope_params){.theta = 10000.0,
                          .factor = 1.0,
                          .low_freq = 1.0,
                          .high_freq = 4.0,
                          .original_ctx = c->ctx,
                          .beta_fast = 32.0,
                          .beta_slow = 1.0,
                          .truncate = 1};
    c->n_rope = 1;
    SQ_TRY(rope_type(k, p));
    SQ_TRY(get_real(k, "rope.freq_base", 1.0, 1e12, &p->theta));
    double linear = 0.0, attn = 0.0;
    SQ_TRY(get_real(k, "rope.scale_linear", 0.0, 1e6, &linear)); /* older files say only this */
    if (p->type == SQ_ROPE_DEFAULT && linear > 1.0) p->type = SQ_ROPE_LINEAR, p->factor = linear;
    if (p->type == SQ_ROPE_DEFAULT) return SQUISH_OK;
    SQ_TRY(get_real(k, "rope.scaling.factor", 1.0, 1e6, &p->factor));
    if (p->type == SQ_ROPE_LINEAR) return SQUISH_OK;
    int32_t original = c->ctx;
    SQ_TRY(get_int(k, "rope.scaling.original_context_length", false, 1, SQ_MAX_CTX, &original));
    SQ_TRY(get_real(k, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &p->beta_fast));
    SQ_TRY(get_real(k, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &p->beta_slow));
    SQ_TRY(get_real(k, "rope.scaling.attn_factor", 1e-3, 1e2, &attn));
    p->original_ctx = original;
    if (is_latent(k)) {
        double log_factor = 0.0;
        SQ_TRY(get_real(k, "rope.scaling.yarn_log_multiplier", 0.0, 1e2, &log_factor));
        p->original_ctx = original;
        p->mscale = p->mscale_all_dim = log_factor * 10.0; /* it is a tenth of the checkpoint's */
        return SQUISH_OK;
    }
    /* The file's factor stands beside the one that follows from the scale; ours replaces that one. */
    if (attn > 0.0) p->attention_factor = attn * (0.1 * log(p->factor) + 1.0);
    return SQUISH_OK;
}

static void presence(const sq_gguf *g, sq_config *c) {
    c->tied = !sq_gguf_find(g, "output.weight");
    c->qkv_bias = sq_gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->o_bias = sq_gguf_find(g, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = sq_gguf_find(g, "blk.0.ffn_down.bias") != NULL;
    c->qk_norm = sq_gguf_find(g, "blk.0.attn_q_norm.weight") != NULL;
    c->rope_factors = sq_gguf_find(g, "rope_freqs.weight") != NULL;
}

squish_status sq_config_gguf_pooling(const sq_gguf *g, const char **out, squish_error *err) {
    static const char *const words[] = {NULL, "mean", "first", "last", NULL}; /* NULL: none; ranks pairs */
    keys k = {.g = g, .err = err};
    int32_t type = 0;
    *out = NULL;
    SQ_TRY(read_arch(&k));
    SQ_TRY(get_int(&k, "pooling_type", false, 0, SQ_COUNT(words) - 1, &type));
    *out = words[type];
    return SQUISH_OK;
}

squish_status sq_config_from_gguf(const sq_gguf *g, sq_config *out, squish_error *err) {
    keys k = {.g = g, .err = err};
    memset(out, 0, sizeof *out);
    SQ_TRY(read_arch(&k));
    out->version = SQ_CONFIG_VERSION;
    out->bytes = sizeof *out;
    memcpy(out->arch, k.ours, sizeof out->arch);
    SQ_TRY(sizes(&k, out));
    SQ_TRY(experts(&k, out));
    SQ_TRY(vocabulary(&k, out));
    SQ_TRY(rope(&k, out));
    presence(g, out);
    out->rope_pairs = strcmp(k.arch, "llama") == 0 || is_latent(&k);
    double eps = 1e-6;
    SQ_TRY(get_real(&k, "attention.layer_norm_rms_epsilon", 1e-12, 1.0, &eps));
    out->norm_eps = (float)eps;
    out->activation = SQ_ACT_SILU;
    out->embed_scale = 1.0f;
    out->softmax_scale = (float)(1.0 / sqrt((double)out->head_dim));
    if (is_latent(&k)) out->softmax_scale = sq_config_mla_scale(out);
    return sq_config_check(out, err);
}
