/* SPDX-License-Identifier: Apache-2.0
 *
 * model_config_mla.c - what a configuration says about latent attention. */
#include "model/model_int.h"

#include <math.h>
#include <string.h>

static const char what[] = "config.json";

squish_status sq_config_mla_read(const json_t *o, sq_config *c, squish_error *err) {
    sq_mla_config *m = &c->mla;
    const struct {
        const char *key;
        int64_t hi;
        int32_t *to;
    } dims[] = {{"kv_lora_rank", SQ_MAX_HIDDEN, &m->kv_rank},
                {"qk_nope_head_dim", SQ_MAX_HEAD_DIM, &m->nope},
                {"qk_rope_head_dim", SQ_MAX_HEAD_DIM, &m->rope},
                {"v_head_dim", SQ_MAX_HEAD_DIM, &m->v}};
    int64_t v = 0;
    bool bias = false;
    for (size_t i = 0; i < SQ_COUNT(dims); i++) {
        SQ_TRY(sq_json_i64(o, dims[i].key, true, 1, dims[i].hi, &v, what, err));
        *dims[i].to = (int32_t)v;
    }
    v = 0;
    const json_t *q = json_object_get(o, "q_lora_rank");
    if (q && !json_is_null(q)) SQ_TRY(sq_json_i64(o, "q_lora_rank", true, 1, SQ_MAX_HIDDEN, &v, what, err));
    m->q_rank = (int32_t)v;
    SQ_TRY(sq_json_bool(o, "attention_bias", false, &bias, what, err));
    if (bias) return sq_fail(err, SQUISH_UNSUPPORTED, "config.json: attention_bias beside kv_lora_rank");
    c->n_kv_heads = c->n_heads;
    c->head_dim = m->nope + m->rope;
    c->rope_pairs = 1;
    return SQUISH_OK;
}

void sq_config_mla_json(const sq_config *c, json_t *o) {
    const sq_mla_config *m = &c->mla;
    json_object_set_new(o, "kv_lora_rank", json_integer(m->kv_rank));
    json_object_set_new(o, "q_lora_rank", m->q_rank ? json_integer(m->q_rank) : json_null());
    json_object_set_new(o, "qk_nope_head_dim", json_integer(m->nope));
    json_object_set_new(o, "qk_rope_head_dim", json_integer(m->rope));
    json_object_set_new(o, "v_head_dim", json_integer(m->v));
    json_object_set_new(o, "head_dim", json_integer(m->rope)); /* as the family writes it */
}

/* YaRN stretches attention as well: the square of its factor for all dimensions is in the scale. */
float sq_config_mla_scale(const sq_config *c) {
    const sq_rope_params *p = &c->rope[0];
    double scale = 1.0 / sqrt((double)c->head_dim);
    if (p->type == SQ_ROPE_YARN && p->mscale_all_dim > 0.0 && p->factor > 1.0) {
        const double m = 0.1 * p->mscale_all_dim * log(p->factor) + 1.0;
        scale *= m * m;
    }
    return (float)scale;
}

squish_status sq_config_mla_check(const sq_config *c, squish_error *err) {
    const sq_mla_config *m = &c->mla;
    const sq_mla_config none = {0};
    if (memcmp(m, &none, sizeof none) == 0) return SQUISH_OK;
    const struct {
        const char *name;
        int64_t value, lo, hi;
    } range[] = {{"kv_lora_rank", m->kv_rank, 16, SQ_LATENT_D_MAX - 16},
                 {"q_lora_rank", m->q_rank, 0, SQ_MAX_HIDDEN},
                 {"qk_nope_head_dim", m->nope, 16, SQ_ATTN_D_MAX},
                 {"qk_rope_head_dim", m->rope, 2, SQ_ATTN_D_MAX},
                 {"v_head_dim", m->v, 16, SQ_ATTN_D_MAX},
                 {"reserved", m->reserved, 0, 0}};
    for (size_t i = 0; i < SQ_COUNT(range); i++)
        if (range[i].value < range[i].lo || range[i].value > range[i].hi)
            return sq_fail(err, SQUISH_CORRUPT, "config: %s is %lld, wanted %lld to %lld", range[i].name,
                           (long long)range[i].value, (long long)range[i].lo, (long long)range[i].hi);
    if (m->kv_rank % 16 != 0 || m->nope % 16 != 0 || m->v % 16 != 0 || m->rope % 2 != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "config: kv_lora_rank %d, qk_nope_head_dim %d and v_head_dim %d are multiples of 16, "
                       "qk_rope_head_dim %d is even: others are not run",
                       m->kv_rank, m->nope, m->v, m->rope);
    if (sq_mla_width(m->kv_rank, m->rope) > SQ_LATENT_D_MAX || c->head_dim != m->nope + m->rope ||
        c->head_dim > SQ_ATTN_D_MAX)
        return sq_fail(err, SQUISH_CORRUPT, "config: latent rows of %d and %d, heads of %d", m->kv_rank,
                       m->rope, c->head_dim);
    if (c->n_kv_heads != c->n_heads || c->n_rope != 1 || !c->rope_pairs || c->qkv_bias || c->o_bias ||
        c->qk_norm || c->fused || c->sub_norms || c->post_norms || c->window || c->rope_factors)
        return sq_fail(err, SQUISH_CORRUPT,
                       "config: latent attention beside biases, windows or further norms");
    return SQUISH_OK;
}
