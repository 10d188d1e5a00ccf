/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open.c - what opening has in common whatever the file: the struct, its arena, binding, and the facts
 * about it.
 *
 * A model is written by the thread that opens it and read-only from then on. */
#include "model/model_int.h"

#include <stdio.h>
#include <string.h>

enum { LOAD_BLOCK = 64 << 10 };

squish_status sq_model_new(sq_model **out, const squish_model_options *opt, squish_error *err) {
    squish_alloc a = opt->alloc ? *opt->alloc : sq_alloc_default();
    sq_model *m = sq_alloc_zero(&a, sizeof *m);
    if (!m) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory");
    m->alloc = a;
    sq_arena_init(&m->load, &a, LOAD_BLOCK, 0);
    sq_buf_init(&m->tok_blob, &a, (size_t)1 << 30);
    sq_buf_init(&m->tmpl_blob, &a, (size_t)64 << 20);
    *out = m;
    return SQUISH_OK;
}

void sq_model_close(sq_model *m) {
    if (!m) return;
    sq_tok_close(m->tok);
    sq_sqw_close(m->sqw);
    sq_st_close(m->st);
    sq_gguf_close(m->gguf);
    sq_buf_deinit(&m->tok_blob);
    sq_buf_deinit(&m->tmpl_blob);
    sq_arena_deinit(&m->load);
    squish_alloc a = m->alloc;
    sq_alloc_free(&a, m, sizeof *m);
}

squish_status sq_model_make_layers(sq_model *m, squish_error *err) {
    sq_want w;
    size_t n = 0;
    while (sq_config_want(&m->cfg, n, &w)) n++;
    m->layers = SQ_ARENA_ARRAY(&m->load, sq_layer, (size_t)m->cfg.n_layers);
    m->tensors = SQ_ARENA_ARRAY(&m->load, squish_tensor_info, n);
    if (!m->layers || !m->tensors)
        return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory for its layers");
    return SQUISH_OK;
}

static void list_tensor(sq_model *m, const sq_want *w, const char *type, uint64_t bytes) {
    m->tensors[m->n_tensors++] = (squish_tensor_info){
        .name = sq_arena_strndup(&m->load, w->name, strlen(w->name)), .type = type, .layer = w->layer,
        .rows = (uint64_t)w->rows, .cols = (uint64_t)w->cols, .bytes = bytes};
    m->info.n_params += (uint64_t)w->rows * (uint64_t)w->cols;
    m->info.weight_bytes += bytes;
}

void sq_model_bind_matrix(sq_model *m, const sq_want *w, const sq_weight *view) {
    uint64_t bytes = 0;
    sq_weight_bytes((sq_wtype)view->wtype, view->rows, view->cols, &bytes);
    list_tensor(m, w, sq_wtype_get((sq_wtype)view->wtype)->name, bytes);
    if (w->role == SQ_ROLE_EMBED) m->embed = *view;
    else if (w->role == SQ_ROLE_HEAD) m->head = *view;
    else m->layers[w->layer].mat[w->role] = *view;
}

void sq_model_bind_vector(sq_model *m, const sq_want *w, const float *vec) {
    list_tensor(m, w, "f32", (uint64_t)w->rows * sizeof(float));
    if (w->role == SQ_ROLE_FINAL_NORM) m->final_norm = vec;
    else m->layers[w->layer].vec[w->role] = vec;
}

/* "int4-g64, embedding int8-g64, head bf16": the body's type, and others where they differ. */
static const char *weight_types(sq_model *m) {
    const char *body = sq_wtype_get((sq_wtype)m->layers[0].mat[SQ_ROLE_Q].wtype)->name;
    const char *embed = sq_wtype_get((sq_wtype)m->embed.wtype)->name;
    const char *head = sq_wtype_get((sq_wtype)m->head.wtype)->name;
    char text[96];
    int n = snprintf(text, sizeof text, "%s", body);
    if (strcmp(embed, body) != 0) n += snprintf(text + n, sizeof text - (size_t)n, ", embedding %s", embed);
    if (!m->cfg.tied && strcmp(head, body) != 0)
        n += snprintf(text + n, sizeof text - (size_t)n, ", head %s", head);
    return sq_arena_strndup(&m->load, text, (size_t)n);
}

squish_status sq_model_finish(sq_model *m, const char *path, const char *tier, squish_error *err) {
    const sq_config *c = &m->cfg;
    squish_model_info *i = &m->info;
    i->path = sq_arena_strndup(&m->load, path, strlen(path));
    i->tier = tier;
    i->architecture = c->arch;
    i->has_tokenizer = m->tok != NULL;
    i->has_template = m->tmpl != NULL;
    i->n_vocab_tokens = m->tok ? sq_tok_count(m->tok) : c->n_vocab;
    if (m->layers) {
        if (c->tied) m->head = m->embed;
        for (int32_t l = 0; l < c->n_layers; l++) {
            m->layers[l].windowed = c->layer_flags[l] & SQ_LAYER_WINDOWED;
            m->layers[l].rope = c->n_rope > 1 && (c->layer_flags[l] & SQ_LAYER_ROPE1);
        }
        m->has_weights = true;
        i->weight_types = weight_types(m);
        i->n_layers = c->n_layers, i->hidden = c->hidden, i->ffn = c->ffn;
        i->n_heads = c->n_heads, i->n_kv_heads = c->n_kv_heads, i->head_dim = c->head_dim;
        i->n_vocab = c->n_vocab, i->ctx_train = c->ctx, i->window = c->window, i->tied_head = c->tied;
        i->bits_per_weight = 8.0 * (double)i->weight_bytes / (double)i->n_params;
        if (m->tok && i->n_vocab_tokens > c->n_vocab)
            return sq_fail(err, SQUISH_CORRUPT, "%s: the tokenizer has %d ids, the embedding only %d rows",
                           path, i->n_vocab_tokens, c->n_vocab);
    }
    bool named = i->path && (!m->layers || i->weight_types);
    for (size_t t = 0; t < m->n_tensors; t++) named = named && m->tensors[t].name;
    if (!named) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory for its names");
    return SQUISH_OK;
}

squish_status sq_model_open_text(sq_model *m, sq_span tok, sq_span tmpl, squish_error *err) {
    if (tok.n) SQ_TRY(sq_tok_open(&m->tok_view, tok, &m->alloc, &m->tok, err));
    if (tmpl.n) SQ_TRY(sq_tmpl_open(&m->tmpl_view, tmpl, &m->tmpl, err));
    return SQUISH_OK;
}
