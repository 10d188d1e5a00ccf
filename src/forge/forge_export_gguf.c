/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_gguf.c - a model as one GGUF file.
 *
 *   affine groups, 2 to 4 bits   Q4_1   value = d * q + m; Q4_0 where every m is -8 d
 *   symmetric groups, 8 bits     Q8_0   value = d * q
 *   GGUF blocks, floats          as they lie
 *   the rest                     F16, or F32 where a value is beyond f16
 *
 * Blocks have 32 columns and f16 scales. A group of 64 gives its scale to two blocks; a bf16 scale goes over
 * where f16 holds it exactly, which a first pass over each matrix finds out. Rows of q and k of the llama
 * family are put into the order of neighbouring pairs. */
#include "forge/forge_export_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 32, ID_F32 = 0, ID_Q4_0 = 2, ID_Q4_1 = 3, ID_Q8_0 = 8 };

/* How a matrix goes over. */
typedef struct {
    sq_dtype type;
    size_t row_bytes;
    bool exact, codes; /* codes: made from codes and scales; else copied (exact) or decoded */
} form;

typedef struct {
    squish_alloc alloc;
    const sq_model *m;
    sq_gguf_writer *w;
    const char *arch;
    bool pairs;    /* the family of this file turns neighbouring pairs */
    form *forms;   /* [n] in the order of sq_config_want */
    size_t n;
    sq_export_result *r;
} job;

/* ---- codes of 16 rows ------------------------------------------------------------------------ */

typedef struct {
    uint8_t *codes;     /* [16][cols]; 8 bits: s8 */
    float *scale, *bias; /* [16][cols / 32] */
    uint16_t *raw_scale, *raw_bias;
    float *values;      /* [cols] */
    uint8_t *out;       /* one row of the file */
    void *block;
    size_t bytes;
} buffers;

static squish_status buffers_new(buffers *b, const squish_alloc *a, int32_t cols, squish_error *err) {
    const size_t n = (size_t)cols, blocks = n / BLOCK + 1, side = SQ_TILE_ROWS * blocks;
    const size_t part[] = {SQ_TILE_ROWS * n, 4 * side, 4 * side, 2 * side, 2 * side, 4 * n, 4 * n};
    size_t at[SQ_COUNT(part)];
    b->bytes = 0;
    for (size_t i = 0; i < SQ_COUNT(part); i++) at[i] = b->bytes, b->bytes += sq_align_up(part[i], 64);
    char *p = b->block = sq_alloc_zero(a, b->bytes);
    if (!p) return sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    b->codes = (uint8_t *)(p + at[0]);
    b->scale = (float *)(void *)(p + at[1]);
    b->bias = (float *)(void *)(p + at[2]);
    b->raw_scale = (uint16_t *)(void *)(p + at[3]);
    b->raw_bias = (uint16_t *)(void *)(p + at[4]);
    b->values = (float *)(void *)(p + at[5]);
    b->out = (uint8_t *)(p + at[6]);
    return SQUISH_OK;
}

/* Types whose codes Q4_0, Q4_1 or Q8_0 can have. */
static bool has_codes(const sq_weight *w) {
    if (w->low || w->cols % BLOCK != 0) return false;
    switch (w->wtype) {
    case SQ_W_I4_G64:
    case SQ_W_I4_G32:
    case SQ_W_I3_G64:
    case SQ_W_I2_G64:
    case SQ_W_I8_G64:
    case SQ_W_I8_G32: return true;
    case SQ_W_AFFINE: return w->coding == SQ_CODES_UNSIGNED && w->bits <= 4 && w->biases && w->group > 0;
    default: return false;
    }
}

static bool is_8bit(const sq_weight *w) { return w->wtype == SQ_W_I8_G64 || w->wtype == SQ_W_I8_G32; }

static int32_t rows_of_tile(const sq_weight *w, int32_t tile) {
    const int32_t left = w->rows - tile * SQ_TILE_ROWS;
    return left < SQ_TILE_ROWS ? left : SQ_TILE_ROWS;
}

static void load_foreign(const sq_weight *w, int32_t tile, buffers *b) {
    const int32_t blocks = w->cols / BLOCK;
    for (int32_t i = 0; i < rows_of_tile(w, tile); i++) {
        for (int32_t k0 = 0; k0 < w->cols; k0 += SQ_PANEL) {
            int8_t codes[SQ_PANEL];
            float s[SQ_PANEL / 16], m[SQ_PANEL / 16];
            const int32_t n = w->cols - k0 < SQ_PANEL ? w->cols - k0 : SQ_PANEL;
            sq_row_unpack(w, tile * SQ_TILE_ROWS + i, k0, codes, s, m);
            memcpy(b->codes + (size_t)i * (size_t)w->cols + (size_t)k0, codes, (size_t)n);
            memcpy(b->scale + i * blocks + k0 / BLOCK, s, (size_t)(n / BLOCK) * sizeof *s);
            memcpy(b->bias + i * blocks + k0 / BLOCK, m, (size_t)(n / BLOCK) * sizeof *m);
        }
    }
}

static void load_tile(const sq_weight *w, int32_t tile, buffers *b) {
    const sq_wtype_info *info = sq_wtype_get((sq_wtype)w->wtype);
    if (w->wtype == SQ_W_AFFINE) {
        load_foreign(w, tile, b);
        return;
    }
    const int32_t blocks = w->cols / BLOCK, groups = sq_div_up(w->cols, info->sub);
    const sq_scale_type st = (sq_scale_type)w->scale_type;
    sq_tile_unpack(w, tile, b->codes, b->raw_scale, info->bias ? b->raw_bias : NULL);
    for (int32_t i = 0; i < rows_of_tile(w, tile); i++) {
        for (int32_t g = 0; g < blocks; g++) {
            const int32_t from = i * groups + g * BLOCK / info->sub;
            b->scale[i * blocks + g] = sq_scale_to_f32(st, b->raw_scale[from]);
            if (info->bias) b->bias[i * blocks + g] = sq_scale_to_f32(st, b->raw_bias[from]);
        }
    }
}

/* ---- choosing -------------------------------------------------------------------------------- */

static bool is_f16(float x) { return isfinite(x) && sq_f16_to_f32(sq_f32_to_f16(x)) == x; }

/* The block type that says the same, or F32 for none. */
static uint32_t choose_block(const sq_weight *w, buffers *b) {
    const bool wide = is_8bit(w);
    bool centred = true;
    for (int32_t tile = 0; tile < sq_weight_tiles(w); tile++) {
        load_tile(w, tile, b);
        const int32_t n = rows_of_tile(w, tile) * (w->cols / BLOCK);
        for (int32_t i = 0; i < n; i++) {
            if (!is_f16(b->scale[i]) || (!wide && !is_f16(b->bias[i]))) return ID_F32;
            centred = centred && b->bias[i] == -8.0f * b->scale[i];
        }
    }
    return wide ? ID_Q8_0 : centred ? ID_Q4_0 : ID_Q4_1;
}

static bool fits_f16(const sq_weight *w, float *values) {
    for (int32_t r = 0; r < w->rows; r++) {
        sq_weight_row_whole(w, r, values);
        for (int32_t k = 0; k < w->cols; k++)
            if (!(fabsf(values[k]) < 65520.0f)) return false;
    }
    return true;
}

/* The type of bytes that can be copied; false: none. */
static bool copied(const sq_weight *w, sq_dtype *type) {
    static const struct {
        uint8_t wtype, id;
    } blocks[] = {{SQ_W_Q4_0, 2},  {SQ_W_Q4_1, 3},  {SQ_W_Q5_0, 6},   {SQ_W_Q5_1, 7},
                  {SQ_W_Q8_0, 8},  {SQ_W_Q2_K, 10}, {SQ_W_Q3_K, 11},  {SQ_W_Q4_K, 12},
                  {SQ_W_Q5_K, 13}, {SQ_W_Q6_K, 14}, {SQ_W_TQ1_0, 34}, {SQ_W_TQ2_0, 35}};
    if (w->low) return false;
    if (w->wtype == SQ_W_F32) return *type = SQ_DT_F32, true;
    if (w->wtype == SQ_W_F16) return *type = SQ_DT_F16, true;
    if (w->wtype == SQ_W_BF16) return *type = SQ_DT_BF16, true;
    for (size_t i = 0; i < SQ_COUNT(blocks); i++)
        if (blocks[i].wtype == w->wtype) return *type = (sq_dtype)(SQ_DT_GGUF + blocks[i].id), true;
    return false;
}

static squish_status form_of(job *j, const sq_weight *w, form *f, squish_error *err) {
    static const uint8_t block_bytes[] = {[ID_Q4_0] = 18, [ID_Q4_1] = 20, [ID_Q8_0] = 34};
    buffers b;
    *f = (form){.exact = true};
    if (copied(w, &f->type)) {
        f->row_bytes = w->tile_bytes / SQ_TILE_ROWS;
        return SQUISH_OK;
    }
    SQ_TRY(buffers_new(&b, &j->alloc, w->cols, err));
    const uint32_t id = has_codes(w) ? choose_block(w, &b) : ID_F32;
    if (id != ID_F32) {
        f->codes = true;
        f->type = (sq_dtype)(SQ_DT_GGUF + id);
        f->row_bytes = (size_t)(w->cols / BLOCK) * block_bytes[id];
    } else {
        f->exact = false;
        f->type = fits_f16(w, b.values) ? SQ_DT_F16 : SQ_DT_F32;
        f->row_bytes = (size_t)w->cols * sq_dtype_bytes(f->type);
    }
    sq_alloc_free(&j->alloc, b.block, b.bytes);
    return SQUISH_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Row i of the loaded tile as blocks: d [, m], then 32 codes; the low nibbles are the first 16. */
static void encode_row(const buffers *b, int32_t i, int32_t cols, uint32_t id) {
    const int32_t blocks = cols / BLOCK;
    uint8_t *o = b->out;
    for (int32_t g = 0; g < blocks; g++) {
        const uint8_t *q = b->codes + (size_t)i * (size_t)cols + (size_t)g * BLOCK;
        const uint16_t d = sq_f32_to_f16(b->scale[i * blocks + g]);
        const uint16_t m = sq_f32_to_f16(b->bias[i * blocks + g]);
        memcpy(o, &d, sizeof d), o += sizeof d;
        if (id == ID_Q8_0) {
            memcpy(o, q, BLOCK), o += BLOCK;
            continue;
        }
        if (id == ID_Q4_1) memcpy(o, &m, sizeof m), o += sizeof m;
        for (int32_t k = 0; k < BLOCK / 2; k++) *o++ = (uint8_t)(q[k] | q[k + BLOCK / 2] << 4);
    }
}

static void decode_row(const sq_weight *w, int32_t r, const form *f, const buffers *b) {
    sq_weight_row_whole(w, r, b->values);
    if (f->type == SQ_DT_F32) {
        memcpy(b->out, b->values, f->row_bytes);
        return;
    }
    for (int32_t k = 0; k < w->cols; k++) {
        const uint16_t h = sq_f32_to_f16(b->values[k]);
        memcpy(b->out + 2 * (size_t)k, &h, sizeof h);
    }
}

static squish_status put_rows(job *j, const sq_want *want, const sq_weight *w, const form *f, size_t index,
                              buffers *b, squish_error *err) {
    for (int32_t r = 0; r < w->rows; r++) {
        const uint64_t at = (uint64_t)sq_export_row(j->m, want, j->pairs, r) * f->row_bytes;
        const uint8_t *row = b->out;
        if (f->codes) {
            if (r % SQ_TILE_ROWS == 0) load_tile(w, r / SQ_TILE_ROWS, b);
            encode_row(b, r % SQ_TILE_ROWS, w->cols, (uint32_t)f->type - SQ_DT_GGUF);
        } else if (f->exact) {
            row = w->data + (size_t)r * f->row_bytes;
        } else {
            decode_row(w, r, f, b);
        }
        SQ_TRY(sq_gguf_writer_put(j->w, index, at, row, f->row_bytes, err));
    }
    return SQUISH_OK;
}

static squish_status put_matrix(job *j, const sq_want *want, const form *f, size_t index, squish_error *err) {
    const sq_weight *w = sq_model_matrix(j->m, want);
    buffers b;
    SQ_TRY(buffers_new(&b, &j->alloc, w->cols, err));
    const squish_status st = put_rows(j, want, w, f, index, &b, err);
    sq_alloc_free(&j->alloc, b.block, b.bytes);
    if (f->exact) j->r->n_exact++;
    else j->r->n_decoded++;
    return st;
}

static squish_status put_vector(job *j, const sq_want *want, size_t index, squish_error *err) {
    for (int32_t i = 0; i < want->rows; i++) {
        const float x = sq_export_element(j->m, want, i);
        const uint64_t at = (uint64_t)sq_export_row(j->m, want, j->pairs, i) * sizeof x;
        SQ_TRY(sq_gguf_writer_put(j->w, index, at, &x, sizeof x, err));
    }
    return SQUISH_OK;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static sq_span span_of(const char *s) { return (sq_span){(const uint8_t *)s, strlen(s)}; }

static squish_status put_u32(job *j, const char *name, int32_t v, squish_error *err) {
    char key[80];
    snprintf(key, sizeof key, "%s.%s", j->arch, name);
    return sq_gguf_writer_u32(j->w, key, (uint32_t)v, err);
}

static squish_status put_f32(job *j, const char *name, double v, squish_error *err) {
    char key[80];
    snprintf(key, sizeof key, "%s.%s", j->arch, name);
    return sq_gguf_writer_f32(j->w, key, (float)v, err);
}

static squish_status put_rope(job *j, squish_error *err) {
    const sq_rope_params *p = &j->m->cfg.rope[0];
    char key[80];
    SQ_TRY(put_f32(j, "rope.freq_base", p->theta, err));
    if (p->type != SQ_ROPE_LINEAR && p->type != SQ_ROPE_YARN) return SQUISH_OK; /* llama3: a tensor */
    snprintf(key, sizeof key, "%s.rope.scaling.type", j->arch);
    SQ_TRY(sq_gguf_writer_str(j->w, key, span_of(p->type == SQ_ROPE_LINEAR ? "linear" : "yarn"), err));
    SQ_TRY(put_f32(j, "rope.scaling.factor", p->factor, err));
    if (p->type == SQ_ROPE_LINEAR) return SQUISH_OK;
    if (!p->truncate || p->mscale > 0.0 || p->mscale_all_dim > 0.0)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "GGUF has no keys for rope type yarn with mscale or without truncation");
    SQ_TRY(put_u32(j, "rope.scaling.original_context_length", (int32_t)p->original_ctx, err));
    SQ_TRY(put_f32(j, "rope.scaling.yarn_beta_fast", p->beta_fast, err));
    SQ_TRY(put_f32(j, "rope.scaling.yarn_beta_slow", p->beta_slow, err));
    /* The key stands beside the factor that follows from the scale. */
    if (p->attention_factor <= 0.0) return SQUISH_OK;
    return put_f32(j, "rope.scaling.attn_factor", p->attention_factor / (0.1 * log(p->factor) + 1.0), err);
}

/* general.file_type is for people: what most of the body is. */
static uint32_t file_type(const job *j) {
    static const struct {
        uint32_t type, number;
    } types[] = {{SQ_DT_F32, 0},       {SQ_DT_F16, 1},       {SQ_DT_BF16, 32},     {SQ_DT_GGUF + 2, 2},
                 {SQ_DT_GGUF + 3, 3},  {SQ_DT_GGUF + 8, 7},  {SQ_DT_GGUF + 6, 8},  {SQ_DT_GGUF + 7, 9},
                 {SQ_DT_GGUF + 10, 10}, {SQ_DT_GGUF + 11, 12}, {SQ_DT_GGUF + 12, 15}, {SQ_DT_GGUF + 13, 17},
                 {SQ_DT_GGUF + 14, 18}, {SQ_DT_GGUF + 34, 36}, {SQ_DT_GGUF + 35, 37}};
    sq_want w;
    for (size_t i = 0; i < j->n && sq_config_want(&j->m->cfg, i, &w); i++)
        for (size_t k = 0; w.role == SQ_ROLE_GATE && k < SQ_COUNT(types); k++)
            if (types[k].type == (uint32_t)j->forms[i].type) return types[k].number;
    return 1;
}

static squish_status put_config(job *j, squish_error *err) {
    const sq_config *c = &j->m->cfg;
    SQ_TRY(sq_gguf_writer_str(j->w, "general.architecture", span_of(j->arch), err));
    SQ_TRY(sq_gguf_writer_u32(j->w, "general.file_type", file_type(j), err));
    SQ_TRY(sq_gguf_writer_u32(j->w, "general.quantization_version", 2, err));
    SQ_TRY(put_u32(j, "block_count", c->n_layers, err));
    SQ_TRY(put_u32(j, "context_length", c->ctx, err));
    SQ_TRY(put_u32(j, "embedding_length", c->hidden, err));
    SQ_TRY(put_u32(j, "feed_forward_length", c->ffn, err));
    SQ_TRY(put_u32(j, "attention.head_count", c->n_heads, err));
    SQ_TRY(put_u32(j, "attention.head_count_kv", c->n_kv_heads, err));
    SQ_TRY(put_u32(j, "vocab_size", c->n_vocab, err));
    SQ_TRY(put_u32(j, "rope.dimension_count", c->head_dim, err));
    if (c->head_dim * c->n_heads != c->hidden) {
        SQ_TRY(put_u32(j, "attention.key_length", c->head_dim, err));
        SQ_TRY(put_u32(j, "attention.value_length", c->head_dim, err));
    }
    SQ_TRY(put_f32(j, "attention.layer_norm_rms_epsilon", (double)c->norm_eps, err));
    return put_rope(j, err);
}

/* A model that came from GGUF says what its file said; only the types may have become others. */
static squish_status put_keys(job *j, const char *assets, squish_error *err) {
    const sq_gguf *g = j->m->gguf;
    if (!g) {
        SQ_TRY(put_config(j, err));
        return sq_export_vocab(j->m, assets, j->w, &j->r->has_tokenizer, err);
    }
    for (size_t i = 0; i < sq_gguf_n_kv(g); i++) {
        const sq_gguf_kv *kv = sq_gguf_kv_at(g, i);
        if (kv->key.n == 21 && memcmp(kv->key.p, "tokenizer.ggml.tokens", 21) == 0)
            j->r->has_tokenizer = true;
        SQ_TRY(sq_gguf_writer_kv(j->w, kv, err));
    }
    return SQUISH_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* What the three families of GGUF cannot say is refused by name. */
static squish_status choose_arch(job *j, squish_error *err) {
    const sq_config *c = &j->m->cfg;
    const bool llama = strcmp(c->arch, "llama") == 0 || strcmp(c->arch, "mistral") == 0;
    j->arch = llama ? "llama" : c->arch;
    j->pairs = llama;
    if (!llama && strcmp(c->arch, "qwen2") != 0 && strcmp(c->arch, "qwen3") != 0)
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "architecture '%s' is not one that goes to GGUF (llama, mistral, qwen2, qwen3)",
                       c->arch);
    for (int32_t i = 0; i < c->n_layers; i++)
        if ((c->layer_flags[i] & SQ_LAYER_WINDOWED) && c->window < c->ctx)
            return sq_fail(err, SQUISH_UNSUPPORTED,
                           "layer %d sees a window of %d positions: architecture '%s' of GGUF has none", i,
                           c->window, j->arch);
    return SQUISH_OK;
}

static squish_status declare(job *j, const sq_want *w, const form *f, squish_error *err) {
    size_t index;
    sq_ftensor t = {.name = w->gguf_name, .n_dims = w->vector ? 1 : 2};
    t.dims[0] = (uint64_t)w->rows;
    t.dims[1] = w->vector ? 0 : (uint64_t)w->cols;
    t.dtype = w->vector ? SQ_DT_F32 : f->type;
    t.bytes = (uint64_t)w->rows * (w->vector ? sizeof(float) : f->row_bytes);
    return sq_gguf_writer_tensor(j->w, &t, &index, err);
}

/* The divisors of frequencies that rope type llama3 means. */
static squish_status put_factors(job *j, size_t index, squish_error *err) {
    double plain[SQ_MAX_HEAD_DIM / 2], scaled[SQ_MAX_HEAD_DIM / 2], attention;
    sq_rope_params base = j->m->cfg.rope[0];
    const int32_t half = j->m->cfg.head_dim / 2;
    sq_rope_frequencies(&base, half, scaled, &attention);
    base.type = SQ_ROPE_DEFAULT;
    sq_rope_frequencies(&base, half, plain, &attention);
    for (int32_t i = 0; i < half; i++) {
        const float f = (float)(plain[i] / scaled[i]);
        SQ_TRY(sq_gguf_writer_put(j->w, index, (uint64_t)i * sizeof f, &f, sizeof f, err));
    }
    return SQUISH_OK;
}

static squish_status write_all(job *j, const char *assets, squish_progress_fn progress, void *user,
                               squish_error *err) {
    const sq_want factors = {
        .vector = true, .expert = -1, .rows = j->m->cfg.head_dim / 2, .gguf_name = "rope_freqs.weight"};
    const bool llama3 = j->m->cfg.rope[0].type == SQ_ROPE_LLAMA3;
    sq_want w;
    for (size_t i = 0; i < j->n && sq_config_want(&j->m->cfg, i, &w); i++)
        if (!w.vector) SQ_TRY(form_of(j, sq_model_matrix(j->m, &w), &j->forms[i], err));
    SQ_TRY(put_keys(j, assets, err));
    for (size_t i = 0; i < j->n && sq_config_want(&j->m->cfg, i, &w); i++)
        SQ_TRY(declare(j, &w, &j->forms[i], err));
    if (llama3) SQ_TRY(declare(j, &factors, NULL, err));
    SQ_TRY(sq_gguf_writer_layout(j->w, &j->r->bytes, err));
    for (size_t i = 0; i < j->n && sq_config_want(&j->m->cfg, i, &w); i++) {
        SQ_TRY(w.vector ? put_vector(j, &w, i, err) : put_matrix(j, &w, &j->forms[i], i, err));
        if (progress && !progress(user, "export", i + 1, j->n))
            return sq_fail(err, SQUISH_CANCELLED, "stopped");
    }
    if (llama3) SQ_TRY(put_factors(j, j->n, err));
    return sq_gguf_writer_finish(j->w, err);
}

squish_status sq_export_gguf(const sq_model *m, const char *assets, const char *out,
                             squish_progress_fn progress, void *user, sq_export_result *r,
                             squish_error *err) {
    *r = (sq_export_result){0};
    if (!m->has_weights) return sq_fail(err, SQUISH_INVALID, "%s has no weights", m->info.path);
    if (!sq_config_is_plain(&m->cfg))
        return sq_fail(
            err, SQUISH_UNSUPPORTED,
            "%s has experts or latent attention: these are exported as safetensors only, not as GGUF",
            m->info.path);
    if (sq_os_exists(out))
        return sq_fail(err, SQUISH_INVALID, "%s is there already (name another file)", out);
    job j = {.alloc = m->alloc, .m = m, .r = r};
    sq_want w;
    while (sq_config_want(&m->cfg, j.n, &w)) j.n++;
    SQ_TRY(choose_arch(&j, err));
    j.forms = sq_alloc_zero(&j.alloc, j.n * sizeof *j.forms);
    squish_status st =
        j.forms ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    if (st == SQUISH_OK) st = sq_gguf_writer_new(&j.w, out, &j.alloc, err);
    if (st == SQUISH_OK) st = write_all(&j, assets, progress, user, err);
    sq_gguf_writer_free(j.w);
    sq_alloc_free(&j.alloc, j.forms, j.n * sizeof *j.forms);
    return st;
}
