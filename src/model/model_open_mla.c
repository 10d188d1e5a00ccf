/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_mla.c - the projections of latent attention that files hold in another form than it is run.
 *
 *   kv_b   [heads][nope | v][rank]   in checkpoints, and older GGUF files
 *   k_b    [heads][rank][nope]       keys of each head transposed: what absorbed queries are multiplied with
 *   v_b    [heads][v][rank]          newer GGUF files have k_b and v_b instead of kv_b
 *
 * What is missing is made in the load arena, in the type of the source if that is a plain one, else in f16.
 */
#include "model/model_int.h"

#include <stdio.h>
#include <string.h>

static sq_wtype plain_type(const sq_weight *w) {
    return sq_wtype_get((sq_wtype)w->wtype)->layout == SQ_LAYOUT_ROWS ? (sq_wtype)w->wtype : SQ_W_F16;
}

static void put(sq_wtype t, void *to, size_t at, float x) {
    if (t == SQ_W_F32)
        ((float *)to)[at] = x;
    else
        ((uint16_t *)to)[at] = t == SQ_W_BF16 ? sq_f32_to_bf16(x) : sq_f32_to_f16(x);
}

/* Memory of a matrix that is made here, and its view. */
static void *make(sq_model *m, const sq_want *w, sq_wtype t, sq_weight *view, squish_error *err) {
    uint64_t bytes = 0;
    void *p =
        sq_weight_bytes(t, w->rows, w->cols, &bytes) ? sq_arena_alloc(&m->load, (size_t)bytes, 64) : NULL;
    if (p)
        *view = sq_weight_make(t, SQ_SCALE_F16, w->rows, w->cols, p);
    else
        sq_fail(err, SQUISH_NO_MEMORY, "tensor '%s': out of memory", w->name);
    return p;
}

squish_status sq_model_make_k_b(sq_model *m, const sq_want *w, squish_error *err) {
    const sq_mla_config *c = &m->cfg.mla;
    const sq_weight *kv_b = &m->layers[w->layer].mat[SQ_ROLE_KV_B];
    const sq_wtype t = plain_type(kv_b);
    sq_weight view;
    void *to = make(m, w, t, &view, err);
    if (!to) return SQUISH_NO_MEMORY;
    float row[SQ_LATENT_D_MAX];
    for (int32_t h = 0; h < m->cfg.n_heads; h++)
        for (int32_t j = 0; j < c->nope; j++) {
            sq_weight_row(kv_b, h * (c->nope + c->v) + j, row);
            for (int32_t r = 0; r < c->kv_rank; r++)
                put(t, to, ((size_t)h * (size_t)c->kv_rank + (size_t)r) * (size_t)c->nope + (size_t)j,
                    row[r]);
        }
    sq_model_bind_matrix(m, w, &view);
    return SQUISH_OK;
}

/* A tensor [heads][rows][cols] as a matrix; an empty one: there is none. */
static squish_status by_head(const sq_model *m, const char *stem, int32_t layer, int32_t rows, int32_t cols,
                             sq_weight *out, squish_error *err) {
    char name[48];
    *out = (sq_weight){0};
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, stem);
    const sq_ftensor *t = sq_gguf_find(m->gguf, name);
    if (!t) return SQUISH_OK;
    const int32_t heads = m->cfg.n_heads;
    const sq_want w = {.expert = -1, .rows = heads * rows, .parent_rows = heads * rows, .cols = cols};
    sq_ftensor flat = *t;
    sq_wtype type = SQ_W_F32;
    if (t->n_dims == 3 && t->dims[0] == (uint64_t)heads && t->dims[1] == (uint64_t)rows) {
        flat.n_dims = 2;
        flat.dims[0] = (uint64_t)heads * (uint64_t)rows;
        flat.dims[1] = t->dims[2];
    }
    SQ_TRY(sq_model_check_tensor(&w, &flat, name, &type, err));
    *out = sq_weight_make(type, SQ_SCALE_F16, w.rows, w.cols, t->data);
    return SQUISH_OK;
}

/* kv_b from k_b and v_b. */
static squish_status join(sq_model *m, const sq_want *w, const sq_weight *k, const sq_weight *v,
                          squish_error *err) {
    const sq_mla_config *c = &m->cfg.mla;
    const sq_wtype t = plain_type(k) == plain_type(v) ? plain_type(k) : SQ_W_F32;
    sq_weight view;
    void *to = make(m, w, t, &view, err);
    if (!to) return SQUISH_NO_MEMORY;
    float row[SQ_LATENT_D_MAX];
    const size_t rank = (size_t)c->kv_rank;
    for (int32_t h = 0; h < m->cfg.n_heads; h++) {
        const size_t first = (size_t)h * (size_t)(c->nope + c->v);
        for (int32_t r = 0; r < c->kv_rank; r++) {
            sq_weight_row(k, h * c->kv_rank + r, row);
            for (int32_t j = 0; j < c->nope; j++) put(t, to, (first + (size_t)j) * rank + (size_t)r, row[j]);
        }
        for (int32_t j = 0; j < c->v; j++) {
            sq_weight_row(v, h * c->v + j, row);
            for (int32_t r = 0; r < c->kv_rank; r++)
                put(t, to, (first + (size_t)(c->nope + j)) * rank + (size_t)r, row[r]);
        }
    }
    sq_model_bind_matrix(m, w, &view);
    return SQUISH_OK;
}

squish_status sq_model_bind_split_kv_b(sq_model *m, const sq_want *w, bool *bound, squish_error *err) {
    const sq_mla_config *c = &m->cfg.mla;
    sq_weight k, v;
    SQ_TRY(by_head(m, "attn_k_b", w->layer, c->kv_rank, c->nope, &k, err));
    SQ_TRY(by_head(m, "attn_v_b", w->layer, c->v, c->kv_rank, &v, err));
    *bound = k.rows > 0 && (w->role == SQ_ROLE_K_B || v.rows > 0);
    if (!*bound) return SQUISH_OK;
    if (w->role == SQ_ROLE_KV_B) return join(m, w, &k, &v, err);
    sq_model_bind_matrix(m, w, &k);
    return SQUISH_OK;
}
