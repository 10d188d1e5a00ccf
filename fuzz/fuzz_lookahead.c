/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_lookahead.c - maps of squish calibrate --moe, read for a model of two small layers: what is accepted
 * gives every layer its maps, of the model's shape. */
#include "model/model_look.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HIDDEN = 16, EXPERTS = 4, LAYERS = 2 };

static float router[EXPERTS * HIDDEN], norm[HIDDEN];
static sq_expert experts[EXPERTS];
static sq_layer layers[LAYERS];
static sq_model model;

static const sq_model *the_model(void) {
    for (int32_t i = 0; i < EXPERTS * HIDDEN; i++) router[i] = (float)(i % 7) / 8 - 0.25f;
    for (int32_t i = 0; i < HIDDEN; i++) norm[i] = 1 + (float)i / 16;
    for (int32_t t = 0; t < LAYERS; t++) {
        layers[t].experts = experts;
        layers[t].mat[SQ_ROLE_ROUTER] =
            sq_weight_make(SQ_W_F32, SQ_SCALE_F16, EXPERTS, HIDDEN, (const uint8_t *)router);
        layers[t].vec[SQ_ROLE_FFN_NORM] = layers[t].vec[SQ_ROLE_ATTN_NORM] = norm;
    }
    model.cfg.n_layers = LAYERS;
    model.cfg.hidden = HIDDEN;
    model.cfg.moe = (sq_moe_config){.n = EXPERTS, .used = 2, .n_group = 1, .topk_group = 1};
    model.layers = layers;
    model.info.path = "model";
    return &model;
}

static void use(const sq_look_maps *k) {
    float row[HIDDEN];
    for (int32_t t = 0; t < LAYERS; t++) {
        for (int32_t i = 0; i < SQ_LOOK_MOMENTS; i++) {
            const sq_look_map *m = &k->map[t][i];
            const bool wanted = t > 0 || i == SQ_LOOK_LATE;
            if (wanted != (m->now.rows == EXPERTS && m->prev.cols == HIDDEN && m->bias)) abort();
            for (int32_t e = 0; wanted && e < EXPERTS; e++) {
                sq_weight_row(&m->now, e, row);
                for (int32_t c = 0; c < HIDDEN; c++)
                    if (!isfinite(row[c])) abort();
                if (!isfinite(m->bias[e]) || !isfinite(m->bias[EXPERTS + e])) abort();
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const squish_alloc a = {0};
    squish_error err = {0};
    sq_look_maps *k;
    const squish_status st = sq_look_maps_parse(&k, (sq_span){data, size}, "fuzz", the_model(), &a, &err);
    if (st == SQUISH_OK) {
        if (!k) abort();
        use(k);
    } else if (k || err.code != st || !err.text[0]) {
        abort();
    }
    sq_look_maps_free(k);
    return 0;
}
