/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny_model.c - see tiny_model.h. Names and shapes come from the engine's own list; that they are the right
 * ones is for the reader of the checkpoint to find out (naive_llama.c asks for them by their published
 * names). */
#include "support/tiny_model.h"

#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 512 };

tiny_spec tiny_default(void) {
    return (tiny_spec){.model_type = "llama",
                       .layers = 3,
                       .hidden = 96,
                       .ffn = 160,
                       .heads = 4,
                       .kv_heads = 2,
                       .head_dim = 24,
                       .vocab = 96,
                       .ctx = 512,
                       .seed = 7};
}

static void need(bool ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "tiny model: %s\n", what);
    abort();
}

static json_t *config_of(const tiny_spec *s) {
    json_t *o = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:b, s:b}",
                          "model_type", s->model_type, "num_hidden_layers", s->layers, "hidden_size",
                          s->hidden, "intermediate_size", s->ffn, "num_attention_heads", s->heads,
                          "num_key_value_heads", s->kv_heads, "head_dim", s->head_dim, "vocab_size", s->vocab,
                          "max_position_embeddings", s->ctx, "rms_norm_eps", 1e-5, "rope_theta", 10000.0,
                          "tie_word_embeddings", s->tied, "attention_bias", s->bias, "mlp_bias", s->mlp_bias);
    json_object_set_new(o, "sliding_window", s->window ? json_integer(s->window) : json_null());
    if (s->window) {
        json_object_set_new(o, "use_sliding_window", json_true());
        json_object_set_new(o, "max_window_layers", json_integer(1)); /* layer 0 sees everything (Qwen) */
    }
    return o;
}

static double unit(uint64_t *state) { return (double)(sq_splitmix64(state) >> 11) * 0x1p-52 - 1.0; }

/* Values of one tensor: matrices keep the variance of their input, norms are near 1, biases small. */
static float value_of(const sq_want *w, uint64_t *state) {
    const double u = unit(state);
    if (w->norm) return (float)(1.0 + 0.2 * u);
    if (w->vector) return (float)(0.2 * u);
    return (float)(u * sqrt(3.0 / w->cols));
}

static sq_ftensor make(const tiny_spec *s, const sq_want *w, uint64_t *state) {
    const bool spoilt = s->spoilt && strcmp(s->spoilt, w->hf_name) == 0;
    const size_t n = (size_t)w->rows * (size_t)w->cols, element = s->bf16 ? 2 : 4;
    uint8_t *data = malloc(n * element);
    need(data != NULL, "memory");
    for (size_t i = 0; i < n; i++) {
        float v = value_of(w, state);
        if (spoilt && s->fault == TINY_NAN && i == n / 2) v = NAN;
        const uint16_t half = sq_f32_to_bf16(v);
        if (s->bf16)
            memcpy(data + 2 * i, &half, 2);
        else
            memcpy(data + 4 * i, &v, 4);
    }
    sq_ftensor t = {.name = strdup(w->hf_name),
                    .dtype = s->bf16 ? SQ_DT_BF16 : SQ_DT_F32,
                    .n_dims = w->vector ? 1 : 2,
                    .dims = {(uint64_t)w->rows, (uint64_t)w->cols},
                    .data = data,
                    .bytes = n * element};
    if (spoilt && s->fault == TINY_SHAPE) t.dims[0]--, t.bytes -= (size_t)w->cols * element;
    if (spoilt && s->fault == TINY_DTYPE) t.dtype = s->bf16 ? SQ_DT_I16 : SQ_DT_I32;
    return t;
}

void tiny_write(const tiny_spec *s, const char *dir) {
    char path[1024];
    squish_error err = {0};
    json_t *o = config_of(s);
    snprintf(path, sizeof path, "%s/config.json", dir);
    need(json_dump_file(o, path, JSON_INDENT(1)) == 0, "cannot write config.json");
    char *text = json_dumps(o, 0);
    sq_config c;
    const squish_status st = sq_config_from_json(text, strlen(text), &c, &err);
    need(st == SQUISH_OK, err.text);
    free(text);
    json_decref(o);
    static sq_ftensor t[TENSORS_MAX];
    size_t n = 0;
    uint64_t state = s->seed;
    sq_want w;
    for (size_t i = 0; sq_config_want(&c, i, &w); i++) {
        need(n < TENSORS_MAX, "too many tensors");
        const sq_ftensor made = make(s, &w, &state);
        if (s->spoilt && s->fault == TINY_MISSING && strcmp(s->spoilt, made.name) == 0) {
            free((void *)made.data), free((void *)made.name);
            continue;
        }
        t[n++] = made;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    const squish_status written = sq_st_write(path, t, n, &err);
    need(written == SQUISH_OK, err.text);
    for (size_t i = 0; i < n; i++) free((void *)t[i].data), free((void *)t[i].name);
}
