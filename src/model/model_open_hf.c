/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_hf.c - opening a Hugging Face directory as it lies: matrices stay in the mapped shards, norms
 * and biases become f32 in the load arena, tokenizer and template are compiled in memory. */
#include "model/model_int.h"

#include <stdio.h>
#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

static squish_status read_optional(const char *dir, const char *name, size_t max, sq_arena *ar, sq_span *out,
                                   squish_error *err) {
    char path[4096];
    *out = (sq_span){0};
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", dir);
    if (!sq_os_exists(path)) return SQUISH_OK;
    return sq_os_read_file(path, max, ar, out, err);
}

/* The template's source: chat_template.jinja, else tokenizer_config.json's chat_template, a string or a list
 * of {name, template} of which "default" is taken. */
static squish_status template_source(const char *dir, sq_span tok_config, sq_arena *ar, sq_span *out,
                                     squish_error *err) {
    SQ_TRY(read_optional(dir, "chat_template.jinja", SQ_MAX_TEMPLATE, ar, out, err));
    if (out->n || !tok_config.n) return SQUISH_OK;
    json_t *o = NULL;
    SQ_TRY(sq_json_parse((const char *)tok_config.p, tok_config.n, SQ_JSON_DEPTH, "tokenizer_config.json", &o,
                         err));
    json_t *t = json_object_get(o, "chat_template"), *item;
    size_t i;
    const char *source = json_string_value(t);
    json_array_foreach(t, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0)
            source = json_string_value(json_object_get(item, "template"));
    }
    squish_status st = SQUISH_OK;
    if (source) {
        out->n = strlen(source);
        out->p = (const uint8_t *)sq_arena_strndup(ar, source, out->n);
        if (!out->p) st = sq_fail(err, SQUISH_NO_MEMORY, "chat template: out of memory");
    }
    json_decref(o);
    return st;
}

squish_status sq_model_compile_text(const char *dir, const squish_alloc *a, sq_buf *tok, sq_buf *tmpl,
                                    squish_error *tmpl_error, squish_warn_fn warn, void *warn_user,
                                    squish_error *err) {
    sq_arena ar;
    sq_arena_init(&ar, a, 64 << 10, 0);
    sq_tok_hf_source s = {0};
    sq_span source = {0};
    squish_status st = SQUISH_OK;
    SQ_GUARD(read_optional(dir, "tokenizer.json", SQ_MAX_JSON, &ar, &s.tokenizer_json, err));
    SQ_GUARD(
        read_optional(dir, "tokenizer_config.json", SQ_MAX_CONFIG_JSON, &ar, &s.tokenizer_config_json, err));
    SQ_GUARD(read_optional(dir, "generation_config.json", SQ_MAX_CONFIG_JSON, &ar, &s.generation_config_json,
                           err));
    SQ_GUARD(read_optional(dir, "config.json", SQ_MAX_CONFIG_JSON, &ar, &s.config_json, err));
    if (s.tokenizer_json.n) SQ_GUARD(sq_tok_compile_hf(&s, a, tok, warn, warn_user, err));
    SQ_GUARD(template_source(dir, s.tokenizer_config_json, &ar, &source, err));
    if (source.n) {
        /* A template we cannot read disables chat, not the model. */
        st = sq_tmpl_compile((const char *)source.p, source.n, a, tmpl, tmpl_error);
        if (st == SQUISH_NO_MEMORY) goto fail;
        st = SQUISH_OK;
    }
fail:
    if (st == SQUISH_NO_MEMORY) sq_fail(err, st, "%s: out of memory for its text files", dir);
    sq_arena_deinit(&ar);
    return st;
}

/* ---- weights --------------------------------------------------------------------------------- */

const sq_ftensor *sq_model_st_find(const sq_model *m, const char *name) {
    const sq_ftensor *t = sq_st_find(m->st, name);
    if (!t && strncmp(name, "model.", 6) == 0) t = sq_st_find(m->st, name + 6);
    return t;
}

/* An expert of a checkpoint that has all experts of a layer in one tensor: names[0] as MLX stacks them,
 * names[1] as newer checkpoints do, with gate and up in one. Changes *w to be a slice of what was found;
 * NULL: there is no such tensor, and *w is as it was. */
static const sq_ftensor *stacked(const sq_model *m, sq_want *w) {
    static const char *const parts[] = {"gate", "up", "down"};
    const char *part = parts[w->role - SQ_ROLE_EXPERT_GATE];
    const bool down = w->role == SQ_ROLE_EXPERT_DOWN;
    char name[sizeof w->hf_name];
    snprintf(name, sizeof name, "model.layers.%d.mlp.switch_mlp.%s_proj.weight", w->layer, part);
    const sq_ftensor *t = sq_model_st_find(m, name);
    if (!t) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_proj", w->layer,
                 down ? "down" : "gate_up");
        t = sq_model_st_find(m, name);
        if (t && !down) {
            w->row0 = w->role == SQ_ROLE_EXPERT_UP ? w->rows : 0;
            w->parent_rows = 2 * w->rows;
        }
    }
    if (t) memcpy(w->hf_name, name, sizeof name);
    return t;
}

/* A square parent could as well be the other way round; which it is cannot be told from its shape. */
static squish_status refuse_square(const sq_want *w, const sq_ftensor *t, squish_error *err) {
    if (strstr(w->hf_name, ".switch_mlp.") || w->parent_rows != w->cols) return SQUISH_OK;
    return sq_fail(err, SQUISH_UNSUPPORTED,
                   "%s: tensor '%s': experts of %d x %d in one tensor may be either way round", t->file,
                   w->hf_name, w->cols, w->cols);
}

/* An expert without a tensor of its own. *used: 1 if the slice begins its parent's rows. */
static squish_status bind_expert(sq_model *m, const char *dir, const sq_want *want, size_t *used,
                                 squish_error *err) {
    sq_want w = *want;
    const sq_ftensor *t = stacked(m, &w);
    sq_ftensor own;
    sq_wtype type = SQ_W_F32;
    if (!t) return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is missing", dir, w.hf_name);
    SQ_TRY(refuse_square(&w, t, err));
    SQ_TRY(sq_model_expert_slice(t, w.expert, m->cfg.moe.n, &own, err));
    SQ_TRY(sq_model_check_tensor(&w, &own, w.hf_name, &type, err));
    SQ_TRY(sq_model_bind_tensor(m, &w, &own, type, err));
    *used = w.row0 == 0;
    return SQUISH_OK;
}

/* *used: tensors of the checkpoint that stand for w; of a parent only the first slice counts. */
static squish_status bind_one(sq_model *m, const char *dir, const sq_source_quant *q, const sq_want *w,
                              size_t *used, squish_error *err) {
    *used = 0;
    if (w->role == SQ_ROLE_K_B) return sq_model_make_k_b(m, w, err);
    SQ_TRY(sq_source_quant_bind(m, q, w, used, err));
    if (w->expert >= 0 && !sq_model_st_find(m, w->hf_name)) {
        if (*used == 0) SQ_TRY(bind_expert(m, dir, w, used, err));
        if (w->expert > 0) *used = 0;
        return SQUISH_OK;
    }
    if (*used == 0) {
        const sq_ftensor *t = sq_model_st_find(m, w->hf_name);
        sq_wtype type = SQ_W_F32;
        if (!t) return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is missing", dir, w->hf_name);
        SQ_TRY(sq_model_check_tensor(w, t, w->hf_name, &type, err));
        SQ_TRY(sq_model_bind_tensor(m, w, t, type, err));
        *used = 1;
    }
    if (w->row0 > 0) *used = 0;
    return SQUISH_OK;
}

/* A head of its own in a model that says it is tied: the same bytes are dropped, other bytes are what was
 * trained. */
static void settle_tied_head(sq_model *m, const squish_model_options *opt) {
    const sq_ftensor *head = sq_st_find(m->st, "lm_head.weight"),
                     *embed = sq_model_st_find(m, "model.embed_tokens.weight");
    if (!m->cfg.tied || !head || !embed) return;
    if (head->bytes == embed->bytes && memcmp(head->data, embed->data, head->bytes) == 0) return;
    m->cfg.tied = 0;
    if (opt->warn)
        opt->warn(opt->warn_user, "config.json says the head is tied, but lm_head.weight differs from the "
                                  "embedding: using lm_head.weight");
}

/* Is this tensor of the checkpoint, or the weight that it belongs to as a scale, one that w wants? */
static bool belongs(const char *name, const sq_want *w) {
    static const char *const suffix[] = {".weight", ".scales", ".biases", ".weight_scale"};
    const char *want = w->hf_name;
    if (strcmp(name, want) == 0) return true;
    if (strncmp(want, "model.", 6) == 0 && strncmp(name, "model.", 6) != 0) want += 6;
    if (strcmp(name, want) == 0) return true;
    const char *end = strrchr(name, '.'), *want_end = strrchr(want, '.');
    if (!end || !want_end || strcmp(want_end, ".weight") != 0 || end - name != want_end - want) return false;
    bool known = false;
    for (size_t i = 0; i < SQ_COUNT(suffix); i++) known = known || strcmp(end, suffix[i]) == 0;
    return known && strncmp(name, want, (size_t)(end - name)) == 0;
}

static void warn_unused(const sq_model *m, size_t n_bound, const squish_model_options *opt) {
    size_t extra = 0;
    const char *first = NULL;
    for (size_t i = 0; i < sq_st_count(m->st); i++) {
        const char *name = sq_st_at(m->st, i)->name;
        bool used = strstr(name, "rotary_emb") || strcmp(name, "lm_head.weight") == 0 ||
                    strstr(name, ".switch_mlp.") || strstr(name, ".experts.");
        sq_want w;
        for (size_t j = 0; !used && j < n_bound && sq_config_want(&m->cfg, j, &w); j++)
            used = belongs(name, &w);
        if (!used && extra++ == 0) first = name;
    }
    if (!extra || !opt->warn) return;
    char line[300];
    snprintf(line, sizeof line, "%zu tensors of the checkpoint are not used, the first is '%.200s'", extra,
             first);
    opt->warn(opt->warn_user, line);
}

static squish_status bind_wants(sq_model *m, const char *path, const sq_source_quant *q,
                                const squish_model_options *opt, squish_error *err) {
    sq_want w;
    size_t n = 0, n_used = 0, used = 0;
    for (; sq_config_want(&m->cfg, n, &w); n++) {
        SQ_TRY(bind_one(m, path, q, &w, &used, err));
        n_used += used;
    }
    if (sq_st_count(m->st) > n_used) warn_unused(m, n, opt);
    return SQUISH_OK;
}

/* path: a directory with shards, or one file. */
static squish_status bind_all(sq_model *m, const char *path, const squish_model_options *opt,
                              squish_error *err) {
    sq_source_quant q = {0};
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_st_open(&m->st, path, &m->alloc, opt->warn, opt->warn_user, err));
    SQ_GUARD(sq_source_quant_read(m, &q, err));
    settle_tied_head(m, opt);
    SQ_GUARD(sq_model_make_layers(m, err));
    SQ_GUARD(bind_wants(m, path, &q, opt, err));
fail:
    json_decref(q.root);
    return st;
}

squish_status sq_model_read_assets(sq_model *m, const char *dir, const squish_model_options *opt,
                                   squish_error *err) {
    sq_span config = {0}, generation = {0};
    SQ_TRY(read_optional(dir, "config.json", SQ_MAX_CONFIG_JSON, &m->load, &config, err));
    if (!config.n)
        return sq_fail(err, SQUISH_NOT_FOUND,
                       "%s: no config.json (a model is a Hugging Face directory, a .sqw or a .gguf file)",
                       dir);
    SQ_TRY(sq_config_from_json((const char *)config.p, config.n, &m->cfg, err));
    SQ_TRY(read_optional(dir, "generation_config.json", SQ_MAX_CONFIG_JSON, &m->load, &generation, err));
    m->config_json = (const char *)config.p;
    m->generation_json = (const char *)generation.p;
    SQ_TRY(sq_model_compile_text(dir, &m->alloc, &m->tok_blob, &m->tmpl_blob, &m->tmpl_error, opt->warn,
                                 opt->warn_user, err));
    return sq_model_open_blobs(m, err);
}

/* assets: where the text lies; weights: directory or file; shown: what the caller gave. */
static squish_status open_checkpoint(sq_model **out, const char *assets, const char *weights,
                                     const char *shown, const char *tier, const squish_model_options *opt,
                                     squish_error *err) {
    *out = NULL;
    sq_model *m = NULL;
    SQ_TRY(sq_model_new(&m, opt, err));
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_model_read_assets(m, assets, opt, err));
    if (!opt->text_only) SQ_GUARD(bind_all(m, weights, opt, err));
    SQ_GUARD(sq_model_finish(m, shown, tier, err));
    *out = m;
    return SQUISH_OK;
fail:
    sq_err_prefix(err, "%s", shown);
    sq_model_close(m);
    return st;
}

squish_status sq_model_open_hf(sq_model **out, const char *dir, const squish_model_options *opt,
                               squish_error *err) {
    return open_checkpoint(out, dir, dir, dir, "source", opt, err);
}

squish_status sq_model_open_tier1(sq_model **out, const char *compressed, const squish_model_options *opt,
                                  squish_error *err) {
    char assets[4096], file[4096];
    *out = NULL;
    if (snprintf(assets, sizeof assets, "%s/assets", compressed) >= (int)sizeof assets ||
        snprintf(file, sizeof file, "%s/squish_weights.safetensors", compressed) >= (int)sizeof file)
        return sq_fail(err, SQUISH_INVALID, "%s: path too long", compressed);
    return open_checkpoint(out, assets, file, file, "1", opt, err);
}
