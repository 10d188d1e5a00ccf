/* SPDX-License-Identifier: Apache-2.0
 *
 * model_codec.c - see model_codec.h. */
#include "model/model_codec.h"

#include <stdio.h>
#include <string.h>

squish_status sq_model_codec_path(const sq_model *m, char *out, size_t n, squish_error *err) {
    size_t len = strlen(m->info.path);
    while (len > 1 && m->info.path[len - 1] == '/') len--;
    if (snprintf(out, n, "%.*s.codec", (int)len, m->info.path) < (int)n) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID, "the path of %s is too long", m->info.path);
}

void sq_model_codec_turns(const sq_model *m, sq_codec_turns *out) {
    const sq_config *c = &m->cfg;
    const int32_t half = c->head_dim / 2;
    *out = (sq_codec_turns){.pairs = c->rope_pairs};
    for (int32_t i = 0; i < c->n_rope; i++)
        sq_rope_frequencies(&c->rope[i], half, out->inv_freq[i], &out->factor[i]);
    for (int32_t i = 0; m->rope_factors && i < half; i++) out->inv_freq[0][i] /= (double)m->rope_factors[i];
    for (int32_t l = 0; l < c->n_layers; l++) out->set[l] = (uint8_t)m->layers[l].rope;
}

squish_status sq_model_codec_rules(const sq_model *m, const sq_kv_policy *p, const squish_attention *a,
                                   squish_error *err) {
    const sq_kv_shape shape = sq_model_kv_shape(&m->cfg);
    SQ_TRY(sq_codec_check_shape(&shape, err));
    const char *other = p->seals               ? "--kv of fewer bits"
                        : p->open == SQ_KV_F32 ? "--kv f32"
                        : p->budget            ? "--kv-budget"
                        : p->snap.tiles        ? "--snap-kv"
                        : p->mix               ? "--mix-kvq"
                        : p->cocktail.on       ? "--cocktail-kv"
                        : p->votes             ? "--pm-kvq"
                        : a->sage              ? "--sage-attention"
                        : a->sparge            ? "--sparge-attn"
                                               : NULL;
    if (!other) return SQUISH_OK;
    return sq_fail(err, SQUISH_INVALID,
                   "--snapshot-codec beside %s: what codes cost was measured with --kv f16 alone", other);
}

squish_status sq_model_codec_open(sq_codec **out, const sq_model *m, const char *path, const squish_alloc *a,
                                  squish_error *err) {
    char own[4096];
    uint64_t identity;
    sq_codec *c;
    squish_error inner = {0};
    *out = NULL;
    if (!path) {
        SQ_TRY(sq_model_codec_path(m, own, sizeof own, err));
        path = own;
    }
    squish_status st = sq_codec_open(&c, path, a, &inner);
    if (st == SQUISH_NOT_FOUND)
        return sq_fail(err, st, "%.150s is not there (make it: squish calibrate MODEL --codec)", path);
    if (st != SQUISH_OK) return sq_fail(err, st, "%s", inner.text);
    st = sq_model_fingerprint(m, a, &identity, err);
    if (st == SQUISH_OK && c->info.identity != identity)
        st = sq_fail(err, SQUISH_INVALID,
                     "%.120s: codebooks of another model (make them anew: squish calibrate MODEL --codec)",
                     path);
    if (st == SQUISH_OK) st = sq_codec_gate_check(&c->info.gate, err);
    const sq_kv_shape s = sq_model_kv_shape(&m->cfg), *k = &c->info.shape;
    if (st == SQUISH_OK && (s.n_layers != k->n_layers || s.n_kv_heads != k->n_kv_heads ||
                            s.head_dim != k->head_dim || s.latent))
        st = sq_fail(err, SQUISH_CORRUPT, "%.120s: codebooks of another shape", path);
    if (st != SQUISH_OK) {
        sq_codec_free(c);
        return st;
    }
    sq_model_codec_turns(m, &c->turns);
    *out = c;
    return SQUISH_OK;
}
