/* SPDX-License-Identifier: Apache-2.0
 *
 * naive_llama.c - see naive_llama.h.
 *
 *   for each layer:   x += Wo attention(rope(norm(Wq h)), rope(norm(Wk h)), Wv h)      h = rmsnorm(x)
 *                     x += Wdown (silu(Wgate h) * Wup h)                               h = rmsnorm(x)
 *   logits = Whead rmsnorm(x) */
#include "support/naive_llama.h"

#include "format/format.h"
#include "format/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    sq_safetensors *st;
    int32_t layers, hidden, ffn, heads, kv_heads, d, vocab, window, first_windowed;
    double eps, theta;
    bool tied;
} naive;

static const float *tensor(const naive *m, const char *name) {
    const sq_ftensor *t = sq_st_find(m->st, name);
    return t ? (const float *)(const void *)t->data : NULL;
}

static const float *in_layer(const naive *m, int32_t layer, const char *name) {
    char full[128];
    snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    return tensor(m, full);
}

/* y [rows] = W [rows][cols] x (+ b) */
static void apply(const float *w, const float *b, const double *x, int32_t rows, int32_t cols, double *y) {
    if (!w) abort(); /* a tensor is not called what it should be */
    for (int32_t r = 0; r < rows; r++) {
        double sum = b ? (double)b[r] : 0.0;
        for (int32_t c = 0; c < cols; c++) sum += (double)w[(size_t)r * (size_t)cols + (size_t)c] * x[c];
        y[r] = sum;
    }
}

static void rmsnorm(const double *x, const float *w, int32_t n, double eps, double *y) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += x[i] * x[i];
    const double scale = 1.0 / sqrt(sum / n + eps);
    for (int32_t i = 0; i < n; i++) y[i] = x[i] * scale * (double)w[i];
}

/* Channel j turns with channel j + d/2. */
static void rotate(const naive *m, double *x, int32_t pos) {
    const int32_t half = m->d / 2;
    for (int32_t j = 0; j < half; j++) {
        const double angle = pos * pow(m->theta, -2.0 * j / m->d), a = x[j], b = x[j + half];
        x[j] = a * cos(angle) - b * sin(angle);
        x[j + half] = b * cos(angle) + a * sin(angle);
    }
}

/* All heads of one position: normalised where the family does so, and turned. */
static void heads(const naive *m, double *x, int32_t n_heads, const float *norm, int32_t pos) {
    for (int32_t h = 0; h < n_heads; h++) {
        if (norm) rmsnorm(x + h * m->d, norm, m->d, m->eps, x + h * m->d);
        rotate(m, x + h * m->d, pos);
    }
}

/* out [d]: softmax(q . k / sqrt d) v over positions [lo, hi] */
static void attend(const naive *m, const double *q, const double *k, const double *v, size_t stride,
                   int32_t lo, int32_t hi, double *out) {
    double p[1024], top = -INFINITY, sum = 0;
    for (int32_t t = lo; t <= hi; t++) {
        p[t - lo] = 0;
        for (int32_t j = 0; j < m->d; j++) p[t - lo] += q[j] * k[(size_t)t * stride + (size_t)j];
        p[t - lo] /= sqrt(m->d);
        top = fmax(top, p[t - lo]);
    }
    for (int32_t t = lo; t <= hi; t++) sum += p[t - lo] = exp(p[t - lo] - top);
    for (int32_t j = 0; j < m->d; j++) {
        out[j] = 0;
        for (int32_t t = lo; t <= hi; t++) out[j] += p[t - lo] / sum * v[(size_t)t * stride + (size_t)j];
    }
}

static void attention_block(const naive *m, int32_t layer, double *x, int32_t n) {
    const int32_t wide = m->heads * m->d, kv = m->kv_heads * m->d, group = m->heads / m->kv_heads;
    double *h = malloc((size_t)m->hidden * sizeof *h), *q = malloc((size_t)(n * wide) * sizeof *q);
    double *k = malloc((size_t)(n * kv) * sizeof *k), *v = malloc((size_t)(n * kv) * sizeof *v);
    double *a = malloc((size_t)wide * sizeof *a);
    for (int32_t t = 0; t < n; t++) {
        rmsnorm(x + t * m->hidden, in_layer(m, layer, "input_layernorm.weight"), m->hidden, m->eps, h);
        apply(in_layer(m, layer, "self_attn.q_proj.weight"), in_layer(m, layer, "self_attn.q_proj.bias"), h,
              wide, m->hidden, q + t * wide);
        apply(in_layer(m, layer, "self_attn.k_proj.weight"), in_layer(m, layer, "self_attn.k_proj.bias"), h,
              kv, m->hidden, k + t * kv);
        apply(in_layer(m, layer, "self_attn.v_proj.weight"), in_layer(m, layer, "self_attn.v_proj.bias"), h,
              kv, m->hidden, v + t * kv);
        heads(m, q + t * wide, m->heads, in_layer(m, layer, "self_attn.q_norm.weight"), t);
        heads(m, k + t * kv, m->kv_heads, in_layer(m, layer, "self_attn.k_norm.weight"), t);
    }
    const bool windowed = m->window > 0 && layer >= m->first_windowed;
    for (int32_t t = 0; t < n; t++) {
        const int32_t lo = windowed && t - m->window + 1 > 0 ? t - m->window + 1 : 0;
        for (int32_t i = 0; i < m->heads; i++)
            attend(m, q + t * wide + i * m->d, k + i / group * m->d, v + i / group * m->d, (size_t)kv, lo, t,
                   a + i * m->d);
        apply(in_layer(m, layer, "self_attn.o_proj.weight"), in_layer(m, layer, "self_attn.o_proj.bias"), a,
              m->hidden, wide, h);
        for (int32_t i = 0; i < m->hidden; i++) x[t * m->hidden + i] += h[i];
    }
    free(h), free(q), free(k), free(v), free(a);
}

static void feed_forward_block(const naive *m, int32_t layer, double *x, int32_t n) {
    double *h = malloc((size_t)m->hidden * sizeof *h), *g = malloc((size_t)m->ffn * sizeof *g);
    double *u = malloc((size_t)m->ffn * sizeof *u);
    for (int32_t t = 0; t < n; t++) {
        rmsnorm(x + t * m->hidden, in_layer(m, layer, "post_attention_layernorm.weight"), m->hidden, m->eps,
                h);
        apply(in_layer(m, layer, "mlp.gate_proj.weight"), in_layer(m, layer, "mlp.gate_proj.bias"), h, m->ffn,
              m->hidden, g);
        apply(in_layer(m, layer, "mlp.up_proj.weight"), in_layer(m, layer, "mlp.up_proj.bias"), h, m->ffn,
              m->hidden, u);
        for (int32_t i = 0; i < m->ffn; i++) u[i] *= g[i] / (1.0 + exp(-g[i]));
        apply(in_layer(m, layer, "mlp.down_proj.weight"), in_layer(m, layer, "mlp.down_proj.bias"), u,
              m->hidden, m->ffn, h);
        for (int32_t i = 0; i < m->hidden; i++) x[t * m->hidden + i] += h[i];
    }
    free(h), free(g), free(u);
}

static naive open_dir(const char *dir) {
    char path[1024];
    naive m = {0};
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *o = json_load_file(path, 0, NULL);
    if (!o || sq_st_open(&m.st, dir, NULL, NULL, NULL, NULL) != SQUISH_OK) abort();
#define INT(key) (int32_t) json_integer_value(json_object_get(o, key))
    m.layers = INT("num_hidden_layers"), m.hidden = INT("hidden_size"), m.ffn = INT("intermediate_size");
    m.heads = INT("num_attention_heads"), m.kv_heads = INT("num_key_value_heads"), m.d = INT("head_dim");
    m.vocab = INT("vocab_size"), m.window = INT("sliding_window"),
    m.first_windowed = INT("max_window_layers");
#undef INT
    const char *type = json_string_value(json_object_get(o, "model_type"));
    if (strcmp(type, "mistral") == 0) m.first_windowed = 0; /* every layer */
    if (strcmp(type, "llama") == 0) m.window = 0;
    m.eps = json_number_value(json_object_get(o, "rms_norm_eps"));
    m.theta = json_number_value(json_object_get(o, "rope_theta"));
    m.tied = json_is_true(json_object_get(o, "tie_word_embeddings"));
    json_decref(o);
    return m;
}

double *naive_logits(const char *dir, const int32_t *ids, int32_t n) {
    naive m = open_dir(dir);
    if (n > 1024) abort();
    const float *embed = tensor(&m, "model.embed_tokens.weight");
    const float *head = m.tied ? embed : tensor(&m, "lm_head.weight");
    double *x = malloc((size_t)n * (size_t)m.hidden * sizeof *x),
           *out = malloc((size_t)n * (size_t)m.vocab * sizeof *out);
    double *h = malloc((size_t)m.hidden * sizeof *h);
    for (int32_t t = 0; t < n; t++)
        for (int32_t i = 0; i < m.hidden; i++) x[t * m.hidden + i] = (double)embed[ids[t] * m.hidden + i];
    for (int32_t l = 0; l < m.layers; l++) {
        attention_block(&m, l, x, n);
        feed_forward_block(&m, l, x, n);
    }
    for (int32_t t = 0; t < n; t++) {
        rmsnorm(x + t * m.hidden, tensor(&m, "model.norm.weight"), m.hidden, m.eps, h);
        apply(head, NULL, h, m.vocab, m.hidden, out + (size_t)t * (size_t)m.vocab);
    }
    free(x), free(h);
    sq_st_close(m.st);
    return out;
}
