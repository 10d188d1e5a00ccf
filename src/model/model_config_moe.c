/* SPDX-License-Identifier: Apache-2.0
 *
 * model_config_moe.c - what a configuration says about experts: how many, how large, which layers have them,
 * and how a token chooses.
 *
 * Qwen2-MoE and Qwen3-MoE name layers by a step and a list of exceptions; what a family leaves out is what
 * its reference code takes for it. */
#include "model/model_int.h"

#include <string.h>

static const char what[] = "config.json";

static squish_status get(const json_t *o, const char *key, bool required, int64_t lo, int64_t hi,
                         int32_t *out, squish_error *err) {
    int64_t v = *out;
    SQ_TRY(sq_json_i64(o, key, required, lo, hi, &v, what, err));
    *out = (int32_t)v;
    return SQUISH_OK;
}

/* ---- Qwen ------------------------------------------------------------------------------------ */

static squish_status dense_layers(const json_t *o, sq_config *c, squish_error *err) {
    const json_t *list = json_object_get(o, "mlp_only_layers"), *item;
    size_t i;
    if (list && !json_is_null(list) && !json_is_array(list))
        return sq_fail(err, SQUISH_CORRUPT, "config.json: mlp_only_layers is not an array");
    json_array_foreach(list, i, item) {
        const json_int_t layer = json_integer_value(item);
        if (!json_is_integer(item) || layer < 0 || layer >= c->n_layers)
            return sq_fail(err, SQUISH_CORRUPT, "config.json: mlp_only_layers[%zu] is not a layer, 0 to %d",
                           i, c->n_layers - 1);
        c->layer_flags[layer] &= (uint8_t)~SQ_LAYER_MOE;
    }
    return SQUISH_OK;
}

static squish_status read_qwen(const json_t *o, sq_config *c, squish_error *err) {
    sq_moe_config *m = &c->moe;
    const char *count = json_object_get(o, "num_experts") ? "num_experts" : "num_local_experts";
    int32_t step = 1;
    bool norm = false;
    SQ_TRY(get(o, count, true, 1, SQ_MAX_EXPERTS, &m->n, err));
    SQ_TRY(get(o, "num_experts_per_tok", true, 1, SQ_MAX_EXPERTS_USED, &m->used, err));
    SQ_TRY(get(o, "moe_intermediate_size", true, 1, SQ_MAX_FFN, &m->ffn, err));
    SQ_TRY(get(o, "decoder_sparse_step", false, 1, SQ_MAX_LAYERS, &step, err));
    SQ_TRY(sq_json_bool(o, "norm_topk_prob", false, &norm, what, err));
    m->norm_topk = norm;
    if (strcmp(c->arch, "qwen2_moe") == 0) {
        SQ_TRY(get(o, "shared_expert_intermediate_size", true, 1, SQ_MAX_FFN, &m->shared_ffn, err));
        m->shared_switch = 1;
    }
    for (int32_t i = 0; i < c->n_layers; i++)
        if ((i + 1) % step == 0) c->layer_flags[i] |= SQ_LAYER_MOE;
    return dense_layers(o, c, err);
}

static void qwen_json(const sq_config *c, json_t *o) {
    const sq_moe_config *m = &c->moe;
    json_t *dense = json_array();
    json_object_set_new(o, "num_experts", json_integer(m->n));
    json_object_set_new(o, "num_experts_per_tok", json_integer(m->used));
    json_object_set_new(o, "moe_intermediate_size", json_integer(m->ffn));
    json_object_set_new(o, "norm_topk_prob", json_boolean(m->norm_topk));
    json_object_set_new(o, "decoder_sparse_step", json_integer(1));
    if (m->shared_ffn) json_object_set_new(o, "shared_expert_intermediate_size", json_integer(m->shared_ffn));
    for (int32_t i = 0; i < c->n_layers; i++)
        if (!sq_config_is_moe(c, i)) json_array_append_new(dense, json_integer(i));
    json_object_set_new(o, "mlp_only_layers", dense);
}

/* ---- DeepSeek -------------------------------------------------------------------------------- */

static squish_status read_groups(const json_t *o, sq_moe_config *m, squish_error *err) {
    const char *scoring = "softmax", *method = "greedy";
    SQ_TRY(sq_json_str(o, "scoring_func", false, &scoring, what, err));
    SQ_TRY(sq_json_str(o, "topk_method", false, &method, what, err));
    if (strcmp(scoring, "softmax") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "config.json: scoring_func '%.40s' is not run (softmax is)",
                       scoring);
    if (strcmp(method, "greedy") == 0) return SQUISH_OK;
    if (strcmp(method, "group_limited_greedy") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "config.json: topk_method '%.40s' is not run (greedy and group_limited_greedy are)",
                       method);
    SQ_TRY(get(o, "n_group", true, 1, SQ_MAX_EXPERTS, &m->n_group, err));
    return get(o, "topk_group", true, 1, SQ_MAX_EXPERTS, &m->topk_group, err);
}

static squish_status read_deepseek(const json_t *o, sq_config *c, squish_error *err) {
    sq_moe_config *m = &c->moe;
    int32_t shared = 0, dense = 0, every = 1;
    double scale = 1.0;
    bool norm = false;
    const json_t *experts = json_object_get(o, "n_routed_experts");
    const json_t *n_shared = json_object_get(o, "n_shared_experts");
    if (!experts || json_is_null(experts)) {
        *m = (sq_moe_config){0};
        return SQUISH_OK;
    }
    SQ_TRY(get(o, "n_routed_experts", true, 1, SQ_MAX_EXPERTS, &m->n, err));
    SQ_TRY(get(o, "num_experts_per_tok", true, 1, SQ_MAX_EXPERTS_USED, &m->used, err));
    SQ_TRY(get(o, "moe_intermediate_size", true, 1, SQ_MAX_FFN / 16, &m->ffn, err));
    if (!json_is_null(n_shared)) SQ_TRY(get(o, "n_shared_experts", false, 0, 16, &shared, err));
    SQ_TRY(get(o, "first_k_dense_replace", false, 0, SQ_MAX_LAYERS, &dense, err));
    SQ_TRY(get(o, "moe_layer_freq", false, 1, SQ_MAX_LAYERS, &every, err));
    SQ_TRY(sq_json_bool(o, "norm_topk_prob", false, &norm, what, err));
    SQ_TRY(sq_json_f64(o, "routed_scaling_factor", false, 1e-3, 1e3, &scale, what, err));
    SQ_TRY(read_groups(o, m, err));
    m->shared_ffn = shared * m->ffn;
    m->norm_topk = norm && m->used > 1;
    m->scale = (float)scale;
    for (int32_t i = dense; i < c->n_layers; i++)
        if (i % every == 0) c->layer_flags[i] |= SQ_LAYER_MOE;
    return SQUISH_OK;
}

static void deepseek_json(const sq_config *c, json_t *o) {
    const sq_moe_config *m = &c->moe;
    int32_t dense = 0, every = 1;
    while (dense < c->n_layers && !sq_config_is_moe(c, dense)) dense++;
    for (int32_t i = dense + 1; i < c->n_layers && !sq_config_is_moe(c, i); i++) every++;
    if (m->n == 0) return;
    json_object_set_new(o, "n_routed_experts", json_integer(m->n));
    json_object_set_new(o, "num_experts_per_tok", json_integer(m->used));
    json_object_set_new(o, "moe_intermediate_size", json_integer(m->ffn));
    json_object_set_new(o, "n_shared_experts", json_integer(m->shared_ffn / m->ffn));
    json_object_set_new(o, "first_k_dense_replace", json_integer(dense));
    json_object_set_new(o, "moe_layer_freq", json_integer(every));
    json_object_set_new(o, "norm_topk_prob", json_boolean(m->norm_topk));
    json_object_set_new(o, "routed_scaling_factor", json_real((double)m->scale));
    json_object_set_new(o, "scoring_func", json_string("softmax"));
    json_object_set_new(o, "topk_method", json_string(m->n_group > 1 ? "group_limited_greedy" : "greedy"));
    json_object_set_new(o, "n_group", json_integer(m->n_group));
    json_object_set_new(o, "topk_group", json_integer(m->topk_group));
}

/* ---- all ------------------------------------------------------------------------------------- */

squish_status sq_config_moe_read(const json_t *o, sq_config *c, squish_error *err) {
    c->moe = (sq_moe_config){.n_group = 1, .topk_group = 1, .scale = 1.0f};
    return strcmp(c->arch, "deepseek_v2") == 0 ? read_deepseek(o, c, err) : read_qwen(o, c, err);
}

void sq_config_moe_json(const sq_config *c, json_t *o) {
    if (strcmp(c->arch, "deepseek_v2") == 0)
        deepseek_json(c, o);
    else
        qwen_json(c, o);
}

squish_status sq_config_moe_check(const sq_config *c, squish_error *err) {
    const sq_moe_config *m = &c->moe;
    const sq_moe_config none = {0};
    int32_t layers = 0;
    for (int32_t i = 0; i < c->n_layers; i++) layers += sq_config_is_moe(c, i);
    if (m->n == 0 && layers == 0 && memcmp(m, &none, sizeof none) == 0) return SQUISH_OK;
    const struct {
        const char *name;
        int64_t value, lo, hi;
    } range[] = {
        {"num_experts", m->n, 1, SQ_MAX_EXPERTS},
        {"num_experts_per_tok", m->used, 1, m->n < SQ_MAX_EXPERTS_USED ? m->n : SQ_MAX_EXPERTS_USED},
        {"moe_intermediate_size", m->ffn, 1, SQ_MAX_FFN},
        {"size of the shared expert", m->shared_ffn, 0, SQ_MAX_FFN},
        {"switch of the shared expert", m->shared_switch, 0, m->shared_ffn > 0},
        {"norm_topk_prob", m->norm_topk, 0, 1},
        {"n_group", m->n_group, 1, m->n},
        {"topk_group", m->topk_group, 1, m->n_group},
        {"reserved", m->reserved, 0, 0},
    };
    for (size_t i = 0; i < SQ_COUNT(range); i++)
        if (range[i].value < range[i].lo || range[i].value > range[i].hi)
            return sq_fail(err, SQUISH_CORRUPT, "config: %s is %lld, wanted %lld to %lld", range[i].name,
                           (long long)range[i].value, (long long)range[i].lo, (long long)range[i].hi);
    if (m->n % m->n_group != 0 || m->used > m->n / m->n_group * m->topk_group)
        return sq_fail(err, SQUISH_CORRUPT, "config: %d of %d experts in %d of %d groups", m->used, m->n,
                       m->topk_group, m->n_group);
    if (!(m->scale > 0.0f && m->scale <= 1e3f))
        return sq_fail(err, SQUISH_CORRUPT, "config: routed_scaling_factor %g out of range",
                       (double)m->scale);
    if (c->fused || c->sub_norms || c->post_norms || c->mlp_bias)
        return sq_fail(err, SQUISH_CORRUPT, "config: experts beside fused matrices, biases or further norms");
    return SQUISH_OK;
}
