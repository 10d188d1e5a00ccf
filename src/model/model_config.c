/* SPDX-License-Identifier: Apache-2.0
 *
 * model_config.c - config.json to sq_config and back.
 *
 * Both spellings in the wild are read: rope_theta + rope_scaling + torch_dtype, and rope_parameters + dtype;
 * where both stand, rope_parameters wins. What a family implies without saying (Qwen2 has biases on q, k, v)
 * is in one table. */
#include "model/model_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model_type;
    bool qkv_bias, qk_norm, fused;
    bool gemma;            /* four norms meaning 1 + w, scaled embedding, GELU, two ropes */
    bool moe;              /* experts (model_config_moe.c) */
    bool latent;           /* latent attention (model_config_mla.c) */
    bool bitnet;           /* ternary weights, norms before o and before down, squared ReLU */
    bool window_default;   /* sliding_window applies unless use_sliding_window is false */
    int32_t window;        /* where config.json has no sliding_window */
    int32_t from;          /* where it has no max_window_layers; 0: the family does not know that key */
} family;

static const family families[] = {
    {"qwen2", .qkv_bias = true, .window_default = false, .window = 4096, .from = 28},
    {"qwen3", .qk_norm = true, .window_default = false, .window = 4096, .from = 28},
    {"llama", .window_default = false},
    {"mistral", .window_default = true, .window = 4096},
    {"phi3", .fused = true, .window_default = true},
    {"bitnet", .bitnet = true, .window_default = false},
    {"qwen2_moe", .qkv_bias = true, .moe = true, .window_default = false, .window = 4096, .from = 28},
    {"qwen3_moe", .qk_norm = true, .moe = true, .window_default = false, .window = 4096, .from = 28},
    {"deepseek_v2", .moe = true, .latent = true},
    {"gemma3_text", .qk_norm = true, .gemma = true, .window_default = true, .window = 4096},
};

static const family *family_of(const char *model_type, squish_error *err) {
    for (size_t i = 0; i < SQ_COUNT(families); i++)
        if (strcmp(families[i].model_type, model_type) == 0) return &families[i];
    char list[160] = "";
    for (size_t i = 0; i < SQ_COUNT(families); i++) {
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", families[i].model_type);
    }
    sq_fail(err, SQUISH_UNSUPPORTED, "config.json: model_type '%.40s' is not one this version runs (%s)",
            model_type, list);
    return NULL;
}

static const char what[] = "config.json", own_key[] = "squish";

/* ---- rope ------------------------------------------------------------------------------------ */

static squish_status rope_type_of(const char *name, int32_t *type, squish_error *err) {
    if (strcmp(name, "default") == 0) *type = SQ_ROPE_DEFAULT;
    else if (strcmp(name, "linear") == 0) *type = SQ_ROPE_LINEAR;
    else if (strcmp(name, "llama3") == 0) *type = SQ_ROPE_LLAMA3;
    else if (strcmp(name, "yarn") == 0) *type = SQ_ROPE_YARN;
    else
        return sq_fail(
            err, SQUISH_UNSUPPORTED,
            "config.json: rope type '%.40s' is not one this version runs (default, linear, llama3, yarn)",
            name);
    return SQUISH_OK;
}

/* Rotating a part of each head only; stands in rope_parameters or outside. */
static squish_status refuse_partial(const json_t *o, squish_error *err) {
    double partial = 1.0;
    SQ_TRY(sq_json_f64(o, "partial_rotary_factor", false, 0.0, 1.0, &partial, what, err));
    if (partial == 1.0) return SQUISH_OK;
    return sq_fail(err, SQUISH_UNSUPPORTED, "config.json: partial_rotary_factor %g, only 1 is supported",
                   partial);
}

/* o: rope_parameters, one entry of it, or rope_scaling; may be NULL. theta: what stands outside. */
static squish_status rope_read(const json_t *o, double theta, int64_t ctx, sq_rope_params *p,
                               squish_error *err) {
    *p = (sq_rope_params){.type = SQ_ROPE_DEFAULT,
                          .theta = theta,
                          .factor = 1.0,
                          .low_freq = 1.0,
                          .high_freq = 4.0,
                          .original_ctx = (double)ctx,
                          .beta_fast = 32.0,
                          .beta_slow = 1.0,
                          .truncate = 1};
    if (!o || json_is_null(o)) return SQUISH_OK;
    const char *type = "default";
    SQ_TRY(sq_json_str(o, "type", false, &type, what, err));
    SQ_TRY(sq_json_str(o, "rope_type", false, &type, what, err));
    SQ_TRY(rope_type_of(type, &p->type, err));
    const bool scaled = p->type != SQ_ROPE_DEFAULT;
    SQ_TRY(sq_json_f64(o, "rope_theta", false, 1.0, 1e12, &p->theta, what, err));
    SQ_TRY(sq_json_f64(o, "factor", scaled, 1.0, 1e6, &p->factor, what, err));
    SQ_TRY(sq_json_f64(o, "low_freq_factor", p->type == SQ_ROPE_LLAMA3, 1e-3, 1e6, &p->low_freq, what, err));
    SQ_TRY(
        sq_json_f64(o, "high_freq_factor", p->type == SQ_ROPE_LLAMA3, 1e-3, 1e6, &p->high_freq, what, err));
    SQ_TRY(sq_json_f64(o, "original_max_position_embeddings", p->type == SQ_ROPE_LLAMA3, 1.0, 1e9,
                       &p->original_ctx, what, err));
    SQ_TRY(sq_json_f64(o, "beta_fast", false, 1e-3, 1e6, &p->beta_fast, what, err));
    SQ_TRY(sq_json_f64(o, "beta_slow", false, 1e-3, 1e6, &p->beta_slow, what, err));
    SQ_TRY(sq_json_f64(o, "attention_factor", false, 1e-3, 1e3, &p->attention_factor, what, err));
    SQ_TRY(sq_json_f64(o, "mscale", false, 0.0, 1e3, &p->mscale, what, err));
    SQ_TRY(sq_json_f64(o, "mscale_all_dim", false, 0.0, 1e3, &p->mscale_all_dim, what, err));
    bool truncate = true;
    SQ_TRY(sq_json_bool(o, "truncate", false, &truncate, what, err));
    p->truncate = truncate;
    SQ_TRY(refuse_partial(o, err));
    if (p->type == SQ_ROPE_LLAMA3 && p->high_freq <= p->low_freq)
        return sq_fail(err, SQUISH_CORRUPT,
                       "config.json: high_freq_factor %g is not above low_freq_factor %g", p->high_freq,
                       p->low_freq);
    return SQUISH_OK;
}

static squish_status rope_all(const json_t *o, const family *f, int64_t ctx, sq_config *c,
                              squish_error *err) {
    double theta = f->bitnet ? 500000.0 : 10000.0, local = 10000.0;
    SQ_TRY(sq_json_f64(o, "rope_theta", false, 1.0, 1e12, &theta, what, err));
    const json_t *params = json_object_get(o, "rope_parameters"),
                 *scaling = json_object_get(o, "rope_scaling");
    c->n_rope = 1;
    if (!f->gemma) return rope_read(json_is_object(params) ? params : scaling, theta, ctx, &c->rope[0], err);
    /* Gemma: full-attention layers turn slowly, windowed ones fast. */
    c->n_rope = 2;
    if (json_is_object(params)) {
        if (!json_object_get(params, "full_attention") || !json_object_get(params, "sliding_attention"))
            return sq_fail(err, SQUISH_CORRUPT,
                           "config.json: rope_parameters: wanted full_attention and sliding_attention");
        SQ_TRY(rope_read(json_object_get(params, "full_attention"), 1e6, ctx, &c->rope[0], err));
        return rope_read(json_object_get(params, "sliding_attention"), 1e4, ctx, &c->rope[1], err);
    }
    if (!json_object_get(o, "rope_theta")) theta = 1e6;
    SQ_TRY(sq_json_f64(o, "rope_local_base_freq", false, 1.0, 1e12, &local, what, err));
    SQ_TRY(rope_read(scaling, theta, ctx, &c->rope[0], err));
    return rope_read(NULL, local, ctx, &c->rope[1], err);
}

/* ---- layers ---------------------------------------------------------------------------------- */

/* Entry i of layer_types: is it windowed? */
static squish_status layer_type(const json_t *types, int32_t i, bool *windowed, squish_error *err) {
    const char *t = json_string_value(json_array_get(types, (size_t)i));
    *windowed = t && strcmp(t, "sliding_attention") == 0;
    if (*windowed || (t && strcmp(t, "full_attention") == 0)) return SQUISH_OK;
    return sq_fail(err, SQUISH_UNSUPPORTED,
                   "config.json: layer_types[%d] is '%.40s', wanted full_attention or sliding_attention", i,
                   t ? t : "not a string");
}

static squish_status windows(const json_t *o, const family *f, sq_config *c, squish_error *err) {
    int64_t window = json_object_get(o, "sliding_window") ? 0 : f->window, from = f->from;
    int64_t pattern = f->gemma ? 6 : 0;
    bool use = f->window_default;
    SQ_TRY(sq_json_i64(o, "sliding_window", false, 0, SQ_MAX_CTX, &window, what, err));
    SQ_TRY(sq_json_bool(o, "use_sliding_window", false, &use, what, err));
    if (f->from > 0) SQ_TRY(sq_json_i64(o, "max_window_layers", false, 0, 1 << 20, &from, what, err));
    SQ_TRY(sq_json_i64(o, "sliding_window_pattern", false, 1, 1 << 20, &pattern, what, err));
    SQ_TRY(sq_json_i64(o, "_sliding_window_pattern", false, 1, 1 << 20, &pattern, what, err));
    if (!use) window = 0;
    c->window = (int32_t)window;
    const json_t *types = json_object_get(o, "layer_types");
    if (json_is_null(types)) types = NULL;
    if (types && !json_is_array(types))
        return sq_fail(err, SQUISH_CORRUPT, "config.json: layer_types is not an array");
    if (types && json_array_size(types) != (size_t)c->n_layers)
        return sq_fail(err, SQUISH_CORRUPT, "config.json: layer_types has %zu entries for %d layers",
                       json_array_size(types), c->n_layers);
    for (int32_t i = 0; i < c->n_layers; i++) {
        bool windowed = pattern ? (i + 1) % pattern != 0 : i >= from;
        if (types) SQ_TRY(layer_type(types, i, &windowed, err));
        if (types && windowed && window == 0)
            return sq_fail(err, SQUISH_CORRUPT,
                           "config.json: layer_types[%d] is sliding_attention, but sliding_window is not set",
                           i);
        if (windowed && window > 0) c->layer_flags[i] |= SQ_LAYER_WINDOWED;
        if (windowed && f->gemma) c->layer_flags[i] |= SQ_LAYER_ROPE1;
    }
    return SQUISH_OK;
}

static squish_status activation_of(const json_t *o, const family *f, sq_config *c, squish_error *err) {
    const char *act = f->gemma ? "gelu_pytorch_tanh" : f->bitnet ? "relu2" : "silu";
    SQ_TRY(sq_json_str(o, "hidden_act", false, &act, what, err));
    SQ_TRY(sq_json_str(o, "hidden_activation", false, &act, what, err));
    if (strcmp(act, "silu") == 0) c->activation = SQ_ACT_SILU;
    else if (strcmp(act, "gelu_pytorch_tanh") == 0) c->activation = SQ_ACT_GELU_TANH;
    else if (strcmp(act, "relu2") == 0) c->activation = SQ_ACT_RELU2;
    else
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "config.json: hidden_act '%.40s' (silu, gelu_pytorch_tanh and relu2 are)", act);
    return SQUISH_OK;
}

static squish_status refuse_unknown(const json_t *o, squish_error *err) {
    SQ_TRY(refuse_partial(o, err));
    static const char *const caps[] = {"attn_logit_softcapping", "final_logit_softcapping"};
    for (size_t i = 0; i < SQ_COUNT(caps); i++) {
        const json_t *v = json_object_get(o, caps[i]);
        if (v && !json_is_null(v)) return sq_fail(err, SQUISH_UNSUPPORTED, "config.json: %s is set", caps[i]);
    }
    bool interleaved = false;
    SQ_TRY(sq_json_bool(o, "rope_interleaved", false, &interleaved, what, err));
    if (interleaved) return sq_fail(err, SQUISH_UNSUPPORTED, "config.json: rope_interleaved is true");
    return SQUISH_OK;
}

static squish_status dims(const json_t *o, sq_config *c, squish_error *err) {
    int64_t v = 0;
#define DIM(key, lo, hi, field)                                    \
    SQ_TRY(sq_json_i64(o, key, true, lo, hi, &v, what, err));      \
    c->field = (int32_t)v
    DIM("num_hidden_layers", 1, SQ_MAX_LAYERS, n_layers);
    DIM("hidden_size", 1, SQ_MAX_HIDDEN, hidden);
    DIM("intermediate_size", 1, SQ_MAX_FFN, ffn);
    DIM("num_attention_heads", 1, SQ_MAX_HEADS, n_heads);
    DIM("vocab_size", 1, SQ_MAX_VOCAB, n_vocab);
    DIM("max_position_embeddings", 1, SQ_MAX_CTX, ctx);
#undef DIM
    v = c->n_heads;
    SQ_TRY(sq_json_i64(o, "num_key_value_heads", false, 1, SQ_MAX_HEADS, &v, what, err));
    c->n_kv_heads = (int32_t)v;
    v = c->hidden / c->n_heads;
    SQ_TRY(sq_json_i64(o, "head_dim", false, 1, SQ_MAX_HEAD_DIM, &v, what, err));
    c->head_dim = (int32_t)v;
    return SQUISH_OK;
}

/* What only files of other kinds have: our own words, beside those of the family. */
static squish_status ours(const json_t *o, sq_config *c, squish_error *err) {
    const json_t *own = json_object_get(o, own_key);
    bool pairs = false, factors = false;
    if (!own || json_is_null(own)) return SQUISH_OK;
    if (!json_is_object(own))
        return sq_fail(err, SQUISH_CORRUPT, "config.json: %s is not an object", own_key);
    SQ_TRY(sq_json_bool(own, "rope_pairs", false, &pairs, what, err));
    SQ_TRY(sq_json_bool(own, "rope_factors", false, &factors, what, err));
    c->rope_pairs = pairs;
    c->rope_factors = factors;
    return SQUISH_OK;
}

static squish_status from_object(const json_t *o, sq_config *c, squish_error *err) {
    const char *type = NULL;
    SQ_TRY(sq_json_str(o, "model_type", true, &type, what, err));
    const family *f = family_of(type, err);
    if (!f) return SQUISH_UNSUPPORTED;
    c->version = SQ_CONFIG_VERSION;
    c->bytes = sizeof *c;
    snprintf(c->arch, sizeof c->arch, "%s", type);
    SQ_TRY(refuse_unknown(o, err));
    SQ_TRY(dims(o, c, err));
    SQ_TRY(activation_of(o, f, c, err));
    SQ_TRY(rope_all(o, f, c->ctx, c, err));
    SQ_TRY(windows(o, f, c, err));
    SQ_TRY(ours(o, c, err));
    if (f->moe) SQ_TRY(sq_config_moe_read(o, c, err));
    if (f->latent) SQ_TRY(sq_config_mla_read(o, c, err));
    bool tied = f->gemma, bias = f->qkv_bias, mlp_bias = false;
    SQ_TRY(sq_json_bool(o, "tie_word_embeddings", false, &tied, what, err));
    if (!f->qkv_bias) SQ_TRY(sq_json_bool(o, "attention_bias", false, &bias, what, err));
    SQ_TRY(sq_json_bool(o, "mlp_bias", false, &mlp_bias, what, err));
    c->tied = tied;
    c->qkv_bias = bias;
    c->o_bias = bias && !f->qkv_bias; /* Qwen2 has none on o; attention_bias of the others covers all four */
    c->mlp_bias = mlp_bias;
    c->qk_norm = f->qk_norm;
    c->post_norms = c->norm_plus_one = f->gemma;
    c->fused = f->fused;
    c->sub_norms = c->ternary = f->bitnet;
    double eps = f->bitnet ? 1e-5 : 1e-6, scalar = f->gemma ? 256.0 : c->head_dim;
    SQ_TRY(sq_json_f64(o, "rms_norm_eps", false, 1e-12, 1.0, &eps, what, err));
    if (f->gemma) SQ_TRY(sq_json_f64(o, "query_pre_attn_scalar", false, 1e-3, 1e6, &scalar, what, err));
    c->norm_eps = (float)eps;
    c->softmax_scale = (float)(1.0 / sqrt(scalar));
    if (f->latent) c->softmax_scale = sq_config_mla_scale(c);
    /* Gemma rounds sqrt(hidden) to the weights' dtype, bf16, before it multiplies. */
    c->embed_scale = f->gemma ? sq_bf16_to_f32(sq_f32_to_bf16((float)sqrt((double)c->hidden))) : 1.0f;
    return sq_config_check(c, err);
}

squish_status sq_config_from_json(const char *json, size_t n, sq_config *out, squish_error *err) {
    json_t *o = NULL;
    memset(out, 0, sizeof *out);
    SQ_TRY(sq_json_parse(json, n, SQ_JSON_DEPTH, what, &o, err));
    squish_status st = json_is_object(o) ? from_object(o, out, err)
                                         : sq_fail(err, SQUISH_CORRUPT, "config.json: not an object");
    json_decref(o);
    return st;
}

/* ---- and back -------------------------------------------------------------------------------- */

static json_t *rope_json(const sq_rope_params *p) {
    static const char *const names[] = {"default", "linear", "llama3", "yarn"};
    json_t *o = json_pack("{s:s, s:f}", "rope_type", names[p->type], "rope_theta", p->theta);
    if (p->type == SQ_ROPE_DEFAULT) return o;
    json_object_set_new(o, "factor", json_real(p->factor));
    if (p->type == SQ_ROPE_LINEAR) return o;
    json_object_set_new(o, "original_max_position_embeddings", json_real(p->original_ctx));
    if (p->type == SQ_ROPE_LLAMA3) {
        json_object_set_new(o, "low_freq_factor", json_real(p->low_freq));
        json_object_set_new(o, "high_freq_factor", json_real(p->high_freq));
        return o;
    }
    json_object_set_new(o, "beta_fast", json_real(p->beta_fast));
    json_object_set_new(o, "beta_slow", json_real(p->beta_slow));
    json_object_set_new(o, "truncate", json_boolean(p->truncate));
    if (p->attention_factor > 0.0)
        json_object_set_new(o, "attention_factor", json_real(p->attention_factor));
    if (p->mscale > 0.0) json_object_set_new(o, "mscale", json_real(p->mscale));
    if (p->mscale_all_dim > 0.0) json_object_set_new(o, "mscale_all_dim", json_real(p->mscale_all_dim));
    return o;
}

static void windows_json(const sq_config *c, const family *f, json_t *o) {
    json_object_set_new(o, "sliding_window", c->window ? json_integer(c->window) : json_null());
    json_object_set_new(o, "use_sliding_window", json_boolean(c->window > 0));
    if (c->window == 0 && !f->gemma) return;
    json_t *types = json_array();
    for (int32_t i = 0; i < c->n_layers; i++)
        json_array_append_new(types, json_string(c->layer_flags[i] & SQ_LAYER_WINDOWED ? "sliding_attention"
                                                                                       : "full_attention"));
    json_object_set_new(o, "layer_types", types);
}

/* Our own words, beside those of the family. */
static json_t *own_json(const sq_config *c, const char *pooling) {
    json_t *o = json_object();
    if (c->rope_pairs || c->rope_factors) {
        json_object_set_new(o, "rope_pairs", json_boolean(c->rope_pairs));
        json_object_set_new(o, "rope_factors", json_boolean(c->rope_factors));
    }
    if (pooling) json_object_set_new(o, "pooling", json_string(pooling));
    return o;
}

static json_t *config_object(const sq_config *c, const family *f, const char *pooling) {
    static const char *const acts[] = {"silu", "gelu_pytorch_tanh", "relu2"};
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:b, s:b}",
                          "model_type", c->arch, "num_hidden_layers", c->n_layers, "hidden_size", c->hidden,
                          "intermediate_size", c->ffn, "num_attention_heads", c->n_heads,
                          "num_key_value_heads", c->n_kv_heads, "head_dim", c->head_dim, "vocab_size",
                          c->n_vocab, "max_position_embeddings", c->ctx, "hidden_act", acts[c->activation],
                          "rms_norm_eps", (double)c->norm_eps, "tie_word_embeddings", c->tied,
                          "attention_bias", c->qkv_bias, "mlp_bias", c->mlp_bias);
    if (!o) return NULL;
    windows_json(c, f, o);
    if (f->moe) sq_config_moe_json(c, o);
    if (f->latent) sq_config_mla_json(c, o);
    json_t *rope = rope_json(&c->rope[0]);
    if (f->gemma) {
        rope = json_pack("{s:o, s:o}", "full_attention", rope, "sliding_attention", rope_json(&c->rope[1]));
        const double scale = c->softmax_scale;
        json_object_set_new(o, "query_pre_attn_scalar", json_real(round(1e3 / (scale * scale)) / 1e3));
    }
    json_object_set_new(o, "rope_parameters", rope);
    if (!f->gemma) { /* the older spelling, for programs that know no other */
        json_object_set_new(o, "rope_theta", json_real(c->rope[0].theta));
        json_object_set(o, "rope_scaling", c->rope[0].type == SQ_ROPE_DEFAULT ? json_null() : rope);
    }
    json_t *own = own_json(c, pooling);
    if (json_object_size(own) > 0) json_object_set(o, own_key, own);
    json_decref(own);
    return o;
}

squish_status sq_config_to_json(const sq_config *c, const char *pooling, const squish_alloc *a,
                                squish_text *out, squish_error *err) {
    *out = (squish_text){0};
    SQ_TRY(sq_config_check(c, err));
    const family *f = family_of(c->arch, err);
    if (!f) return SQUISH_UNSUPPORTED;
    json_t *o = config_object(c, f, pooling);
    char *text = o ? json_dumps(o, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    sq_buf b;
    sq_buf_init(&b, a, SQ_MAX_CONFIG_JSON);
    if (text) sq_buf_puts(&b, text);
    else b.failed = true;
    free(text);
    const squish_status st = sq_buf_take(&b, out, err);
    sq_buf_deinit(&b);
    return st;
}

/* ---- check: also for what comes from a .sqw -------------------------------------------------- */

static bool rope_ok(const sq_rope_params *p) {
    const double v[] = {p->theta,        p->factor,    p->low_freq, p->high_freq,
                        p->original_ctx, p->beta_fast, p->beta_slow};
    for (size_t i = 0; i < SQ_COUNT(v); i++)
        if (!(v[i] > 0.0 && v[i] <= 1e12)) return false;
    const double scales[] = {p->attention_factor, p->mscale, p->mscale_all_dim};
    for (size_t i = 0; i < SQ_COUNT(scales); i++)
        if (!(scales[i] >= 0.0 && scales[i] <= 1e3)) return false;
    if (p->type == SQ_ROPE_LLAMA3 && p->high_freq <= p->low_freq) return false;
    return p->type >= SQ_ROPE_DEFAULT && p->type <= SQ_ROPE_YARN && p->theta >= 1.0 && p->factor >= 1.0;
}

squish_status sq_config_check(const sq_config *c, squish_error *err) {
    const struct { const char *name; int64_t value, lo, hi; } range[] = {
        {"version", c->version, SQ_CONFIG_VERSION, SQ_CONFIG_VERSION},
        {"bytes", c->bytes, sizeof *c, sizeof *c},
        {"num_hidden_layers", c->n_layers, 1, SQ_MAX_LAYERS},
        {"hidden_size", c->hidden, 1, SQ_MAX_HIDDEN},
        {"intermediate_size", c->ffn, 1, SQ_MAX_FFN},
        {"num_attention_heads", c->n_heads, 1, SQ_MAX_HEADS},
        {"num_key_value_heads", c->n_kv_heads, 1, c->n_heads < 255 ? c->n_heads : 255},
        {"head_dim", c->head_dim, 2, SQ_MAX_HEAD_DIM},
        {"vocab_size", c->n_vocab, 1, SQ_MAX_VOCAB},
        {"max_position_embeddings", c->ctx, 1, SQ_MAX_CTX},
        {"sliding_window", c->window, 0, SQ_MAX_CTX},
        {"hidden_act", c->activation, SQ_ACT_SILU, SQ_ACT_RELU2},
        {"rope sets", c->n_rope, 1, 2},
        {"rope pairs", c->rope_pairs, 0, 1},
        {"rope factors", c->rope_factors, 0, 1},
        {"norms inside a block", c->sub_norms, 0, 1},
        {"ternary", c->ternary, 0, 1},
    };
    for (size_t i = 0; i < SQ_COUNT(range); i++)
        if (range[i].value < range[i].lo || range[i].value > range[i].hi)
            return sq_fail(err, SQUISH_CORRUPT, "config: %s is %lld, wanted %lld to %lld", range[i].name,
                           (long long)range[i].value, (long long)range[i].lo, (long long)range[i].hi);
    if (memchr(c->arch, 0, sizeof c->arch) == NULL)
        return sq_fail(err, SQUISH_CORRUPT, "config: unnamed architecture");
    if (c->n_heads % c->n_kv_heads != 0 || c->n_heads / c->n_kv_heads > 64)
        return sq_fail(err, SQUISH_CORRUPT, "config: %d attention heads over %d key/value heads", c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim % 2 != 0) return sq_fail(err, SQUISH_CORRUPT, "config: head_dim %d is odd", c->head_dim);
    SQ_TRY(sq_config_moe_check(c, err));
    SQ_TRY(sq_config_mla_check(c, err));
    for (int32_t i = 0; i < c->n_rope; i++)
        if (!rope_ok(&c->rope[i]))
            return sq_fail(err, SQUISH_CORRUPT, "config: rope parameters out of range");
    if (!(c->norm_eps > 0.0f && c->norm_eps <= 1.0f) ||
        !(c->softmax_scale > 0.0f && c->softmax_scale <= 1e3f) ||
        !(c->embed_scale > 0.0f && c->embed_scale <= 1e6f))
        return sq_fail(err, SQUISH_CORRUPT,
                       "config: norm_eps %g, softmax scale %g or embedding scale %g out of range",
                       (double)c->norm_eps, (double)c->softmax_scale, (double)c->embed_scale);
    return SQUISH_OK;
}
