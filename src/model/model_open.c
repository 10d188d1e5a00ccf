/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open.c - what opening has in common whatever the file: the struct, its arena, binding, and the facts
 * about it.
 *
 * A model is written by the thread that opens it and read-only from then on. */
#include "model/model_heads.h"
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
    if (m->trie) m->trie_free(m->trie);
    sq_tok_close(m->tok);
    sq_sqw_close(m->sqw);
    sq_st_close(m->st);
    sq_gguf_close(m->gguf);
    for (size_t i = 0; i < m->n_npy; i++) sq_os_map_close(&m->npy[i]);
    for (int32_t i = 0; i < m->n_loras; i++) {
        sq_st_close(m->loras[i].st);
        sq_gguf_close(m->loras[i].gguf);
    }
    sq_heads_close(m->heads);
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
    bool whole = m->layers && m->tensors;
    for (int32_t l = 0; whole && l < m->cfg.n_layers; l++) {
        if (!sq_config_is_moe(&m->cfg, l)) continue;
        m->layers[l].experts = SQ_ARENA_ARRAY(&m->load, sq_expert, (size_t)m->cfg.moe.n);
        whole = m->layers[l].experts != NULL;
    }
    if (!whole) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory for its layers");
    return SQUISH_OK;
}

static void list_tensor(sq_model *m, const sq_want *w, const char *type, uint64_t bytes) {
    m->tensors[m->n_tensors++] =
        (squish_tensor_info){.name = sq_arena_strndup(&m->load, w->name, strlen(w->name)),
                             .type = type,
                             .layer = w->layer,
                             .rows = (uint64_t)w->rows,
                             .cols = (uint64_t)w->cols,
                             .bytes = bytes};
    m->info.n_params += (uint64_t)w->rows * (uint64_t)w->cols;
    m->info.weight_bytes += bytes;
}

/* Bytes of a matrix with its scales and low-rank factors. */
static uint64_t matrix_bytes(const sq_weight *w) {
    uint64_t bytes = 0;
    if (w->wtype == SQ_W_AFFINE)
        bytes = (uint64_t)w->rows * (w->tile_bytes + w->side_bytes * (w->biases ? 2 : 1)) / SQ_TILE_ROWS;
    else
        sq_weight_bytes((sq_wtype)w->wtype, w->rows, w->cols, &bytes);
    for (const sq_lowrank *l = w->low; l; l = l->next) bytes += matrix_bytes(&l->v) + matrix_bytes(&l->u);
    return bytes;
}

/* "int4-g64"; foreign codes are told from ours: "affine4-g64", "affine8-row". NULL: out of memory. */
static const char *type_name(sq_model *m, const sq_weight *w) {
    if (w->wtype != SQ_W_AFFINE) return sq_wtype_get((sq_wtype)w->wtype)->name;
    char text[32];
    int n = w->group ? snprintf(text, sizeof text, "affine%d-g%d", w->bits, w->group)
                     : snprintf(text, sizeof text, "affine%d-row", w->bits);
    return sq_arena_strndup(&m->load, text, (size_t)n);
}

sq_weight *sq_model_place(sq_model *m, const sq_want *w) {
    if (w->role == SQ_ROLE_EMBED) return &m->embed;
    if (w->role == SQ_ROLE_HEAD) return &m->head;
    if (w->expert < 0) return &m->layers[w->layer].mat[w->role];
    sq_expert *e = &m->layers[w->layer].experts[w->expert];
    return w->role == SQ_ROLE_EXPERT_GATE ? &e->gate : w->role == SQ_ROLE_EXPERT_UP ? &e->up : &e->down;
}

void sq_model_bind_matrix(sq_model *m, const sq_want *w, const sq_weight *view) {
    list_tensor(m, w, type_name(m, view), matrix_bytes(view));
    *sq_model_place(m, w) = *view;
}

void sq_model_bind_vector(sq_model *m, const sq_want *w, const float *vec) {
    list_tensor(m, w, "f32", (uint64_t)w->rows * sizeof(float));
    if (w->role == SQ_ROLE_FINAL_NORM)
        m->final_norm = vec;
    else if (w->role == SQ_ROLE_ROPE_FACTORS)
        m->rope_factors = vec;
    else
        m->layers[w->layer].vec[w->role] = vec;
}

const sq_weight *sq_model_matrix(const sq_model *m, const sq_want *w) {
    if (!m->layers || w->vector) return NULL;
    const sq_weight *found = sq_model_place((sq_model *)(uintptr_t)m, w);
    return found->rows > 0 ? found : NULL;
}

bool sq_model_populate(const sq_model *m, sq_backend *b, size_t i) {
    sq_want want;
    if (!sq_config_want(&m->cfg, i, &want)) return false;
    const sq_weight *w = sq_model_matrix(m, &want);
    if (w) sq_be_populate(b, w->data, w->tile_bytes * (size_t)w->rows / SQ_TILE_ROWS);
    return true;
}

const float *sq_model_vector(const sq_model *m, const sq_want *w) {
    if (!m->layers || !w->vector) return NULL;
    if (w->role == SQ_ROLE_FINAL_NORM) return m->final_norm;
    if (w->role == SQ_ROLE_ROPE_FACTORS) return m->rope_factors;
    return m->layers[w->layer].vec[w->role];
}

static int32_t rank_of(const sq_weight *w) {
    int32_t rank = 0;
    for (const sq_lowrank *l = w->low; l; l = l->next)
        rank += (int32_t)sq_align_up((size_t)l->v.rows, SQ_GROUP);
    return rank;
}

int32_t sq_model_rank_of(const sq_model *m) {
    static const sq_role together[][3] = {{SQ_ROLE_Q, SQ_ROLE_K, SQ_ROLE_V},
                                          {SQ_ROLE_O, SQ_ROLE_COUNT, SQ_ROLE_COUNT},
                                          {SQ_ROLE_GATE, SQ_ROLE_UP, SQ_ROLE_COUNT},
                                          {SQ_ROLE_DOWN, SQ_ROLE_COUNT, SQ_ROLE_COUNT},
                                          {SQ_ROLE_SHARED_GATE, SQ_ROLE_SHARED_UP, SQ_ROLE_COUNT},
                                          {SQ_ROLE_SHARED_DOWN, SQ_ROLE_COUNT, SQ_ROLE_COUNT}};
    int32_t most = rank_of(&m->head);
    for (int32_t l = 0; l < m->cfg.n_layers; l++)
        for (size_t i = 0; i < SQ_COUNT(together); i++) {
            int32_t sum = 0;
            for (size_t j = 0; j < 3; j++)
                if (together[i][j] != SQ_ROLE_COUNT) sum += rank_of(&m->layers[l].mat[together[i][j]]);
            if (sum > most) most = sum;
        }
    return most;
}

/* "int4-g64, embedding int8-g64, head bf16": the body's type, and others where they differ. */
static const char *weight_types(sq_model *m) {
    const char *body = type_name(m, &m->layers[0].mat[SQ_ROLE_O]);
    const char *embed = type_name(m, &m->embed), *head = type_name(m, &m->head);
    if (!body || !embed || !head) return NULL;
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
        m->rank_max = sq_model_rank_of(m);
        i->weight_types = weight_types(m);
        i->n_layers = c->n_layers, i->hidden = c->hidden, i->ffn = c->ffn;
        i->n_heads = c->n_heads, i->n_kv_heads = c->n_kv_heads, i->head_dim = c->head_dim;
        i->n_vocab = c->n_vocab, i->ctx_train = c->ctx, i->window = c->window, i->tied_head = c->tied;
        i->n_experts = c->moe.n, i->n_experts_used = c->moe.used;
        i->bits_per_weight = 8.0 * (double)i->weight_bytes / (double)i->n_params;
        if (m->tok && i->n_vocab_tokens > c->n_vocab)
            return sq_fail(err, SQUISH_CORRUPT, "%s: the tokenizer has %d ids, the embedding only %d rows",
                           path, i->n_vocab_tokens, c->n_vocab);
    }
    bool named = i->path && (!m->layers || i->weight_types);
    for (size_t t = 0; t < m->n_tensors; t++) named = named && m->tensors[t].name && m->tensors[t].type;
    if (!named) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory for its names");
    return SQUISH_OK;
}

squish_status sq_model_open_text(sq_model *m, sq_span tok, sq_span tmpl, squish_error *err) {
    if (tok.n) SQ_TRY(sq_tok_open(&m->tok_view, tok, &m->alloc, &m->tok, err));
    if (tmpl.n) SQ_TRY(sq_tmpl_open(&m->tmpl_view, tmpl, &m->tmpl, err));
    return SQUISH_OK;
}

squish_status sq_model_open_blobs(sq_model *m, squish_error *err) {
    return sq_model_open_text(m, (sq_span){(uint8_t *)m->tok_blob.data, m->tok_blob.len},
                              (sq_span){(uint8_t *)m->tmpl_blob.data, m->tmpl_blob.len}, err);
}

/* ---- tensors as they lie --------------------------------------------------------------------- */

static bool wtype_of(sq_dtype t, sq_wtype *out) {
    static const struct {
        uint8_t id, wtype;
    } blocks[] = {{2, SQ_W_Q4_0},  {3, SQ_W_Q4_1},  {6, SQ_W_Q5_0},   {7, SQ_W_Q5_1},
                  {8, SQ_W_Q8_0},  {10, SQ_W_Q2_K}, {11, SQ_W_Q3_K},  {12, SQ_W_Q4_K},
                  {13, SQ_W_Q5_K}, {14, SQ_W_Q6_K}, {34, SQ_W_TQ1_0}, {35, SQ_W_TQ2_0}};
    switch (t) {
    case SQ_DT_F32: *out = SQ_W_F32; return true;
    case SQ_DT_F16: *out = SQ_W_F16; return true;
    case SQ_DT_BF16: *out = SQ_W_BF16; return true;
    default: break;
    }
    for (size_t i = 0; i < SQ_COUNT(blocks); i++)
        if ((int)t == SQ_DT_GGUF + blocks[i].id) {
            *out = (sq_wtype)blocks[i].wtype;
            return true;
        }
    return false;
}

squish_status sq_model_check_tensor(const sq_want *w, const sq_ftensor *t, const char *name, sq_wtype *type,
                                    squish_error *err) {
    if (!wtype_of(t->dtype, type) || (w->vector && t->dtype >= SQ_DT_GGUF))
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: tensor '%s' is %s, wanted F32, F16 or BF16%s", t->file,
                       name, sq_dtype_name(t->dtype),
                       w->vector || t->dtype < SQ_DT_GGUF ? "" : " or known blocks");
    const bool ok = w->vector ? t->n_dims == 1 && t->dims[0] == (uint64_t)w->parent_rows
                              : t->n_dims == 2 && t->dims[0] == (uint64_t)w->parent_rows &&
                                    t->dims[1] == (uint64_t)w->cols;
    uint64_t bytes = 0;
    if (ok &&
        sq_weight_bytes(*type, w->vector ? 1 : w->parent_rows, w->vector ? w->parent_rows : w->cols,
                        &bytes) &&
        bytes == t->bytes)
        return SQUISH_OK;
    return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is %llu x %llu (%d dims), config.json wants %d x %d",
                   t->file, name, (unsigned long long)(t->n_dims > 0 ? t->dims[0] : 0),
                   (unsigned long long)(t->n_dims > 1 ? t->dims[1] : 1), t->n_dims, w->parent_rows, w->cols);
}

squish_status sq_model_expert_slice(const sq_ftensor *all, int32_t expert, int32_t n, sq_ftensor *out,
                                    squish_error *err) {
    if (all->n_dims != 3 || all->dims[0] != (uint64_t)n || all->bytes % (uint64_t)n != 0)
        return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' has %d dims, the first %llu: wanted %d experts",
                       all->file, all->name, all->n_dims, (unsigned long long)all->dims[0], n);
    *out = *all;
    out->n_dims = 2;
    out->dims[0] = all->dims[1];
    out->dims[1] = all->dims[2];
    out->bytes = all->bytes / (uint64_t)n;
    out->data = all->data + (size_t)expert * (size_t)out->bytes;
    return SQUISH_OK;
}

squish_status sq_model_bind_tensor(sq_model *m, const sq_want *w, const sq_ftensor *t, sq_wtype type,
                                   squish_error *err) {
    if (!w->vector) {
        uint64_t skip = 0;
        if (w->row0 > 0) sq_weight_bytes(type, w->row0, w->cols, &skip);
        const sq_weight view = sq_weight_make(type, SQ_SCALE_F16, w->rows, w->cols, t->data + skip);
        sq_model_bind_matrix(m, w, &view);
        return SQUISH_OK;
    }
    float *vec = sq_arena_alloc(&m->load, (size_t)w->rows * sizeof(float), 64);
    if (!vec) return sq_fail(err, SQUISH_NO_MEMORY, "model: out of memory");
    sq_row_to_f32(type, t->data + (size_t)w->row0 * (type == SQ_W_F32 ? 4 : 2), w->rows, vec);
    if (w->norm && m->cfg.norm_plus_one)
        for (int32_t i = 0; i < w->rows; i++) vec[i] += 1.0f;
    sq_model_bind_vector(m, w, vec);
    return SQUISH_OK;
}
