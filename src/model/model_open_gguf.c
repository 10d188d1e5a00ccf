/* SPDX-License-Identifier: Apache-2.0
 *
 * model_open_gguf.c - opening a GGUF file: its blocks run where they lie in the mapping, vectors become f32
 * in the load arena, vocabulary and chat template are compiled in memory. */
#include "model/model_int.h"
#include "model/model_text.h"

static squish_status compile_text(sq_model *m, const squish_model_options *opt, squish_error *err) {
    sq_span source;
    const squish_status st =
        sq_model_tok_from_gguf(m->gguf, &m->alloc, &m->tok_blob, opt->warn, opt->warn_user, err);
    /* Weights without a vocabulary can still be given token ids. */
    if (st == SQUISH_NOT_FOUND && !opt->text_only) {
        if (err) *err = (squish_error){0};
    } else if (st != SQUISH_OK) {
        return st;
    }
    if (sq_gguf_str(m->gguf, "tokenizer.chat_template", &source) && source.n) {
        /* A template we cannot read disables chat, not the vocabulary. */
        if (sq_tmpl_compile((const char *)source.p, source.n, &m->alloc, &m->tmpl_blob, &m->tmpl_error) ==
            SQUISH_NO_MEMORY)
            return sq_fail(err, SQUISH_NO_MEMORY, "chat template: out of memory");
    }
    return sq_model_open_blobs(m, err);
}

/* The file's keys as a config.json, for those who ask the model for one. */
static squish_status make_config_json(sq_model *m, squish_error *err) {
    squish_text text;
    const char *pooling;
    SQ_TRY(sq_config_gguf_pooling(m->gguf, &pooling, err));
    SQ_TRY(sq_config_to_json(&m->cfg, pooling, &m->alloc, &text, err));
    m->config_json = sq_arena_strndup(&m->load, text.data, text.bytes);
    sq_alloc_free(&m->alloc, text.data, text.bytes + 1);
    return m->config_json ? SQUISH_OK : sq_fail(err, SQUISH_NO_MEMORY, "config: out of memory");
}

/* The file's own word for its architecture, known to us or not. */
static void name_architecture(sq_model *m) {
    sq_span s;
    if (!sq_gguf_str(m->gguf, "general.architecture", &s)) return;
    size_t n = 0;
    for (; n < s.n && n < sizeof m->cfg.arch - 1; n++)
        m->cfg.arch[n] = s.p[n] > ' ' && s.p[n] < 127 ? (char)s.p[n] : '?';
    m->cfg.arch[n] = 0;
}

static squish_status bind_all(sq_model *m, const char *path, squish_error *err) {
    if (sq_gguf_n_tensors(m->gguf) == 0)
        return sq_fail(err, SQUISH_UNSUPPORTED, "%s: a vocabulary without weights", path);
    SQ_TRY(sq_config_from_gguf(m->gguf, &m->cfg, err));
    SQ_TRY(make_config_json(m, err));
    SQ_TRY(sq_model_make_layers(m, err));
    sq_want w;
    for (size_t i = 0; sq_config_want(&m->cfg, i, &w); i++) {
        bool bound = false;
        if (w.role == SQ_ROLE_K_B || (w.role == SQ_ROLE_KV_B && !sq_gguf_find(m->gguf, w.gguf_name)))
            SQ_TRY(sq_model_bind_split_kv_b(m, &w, &bound, err));
        if (!bound && w.role == SQ_ROLE_K_B) {
            SQ_TRY(sq_model_make_k_b(m, &w, err));
            bound = true;
        }
        if (bound) continue;
        const sq_ftensor *t = sq_gguf_find(m->gguf, w.gguf_name);
        sq_wtype type = SQ_W_F32;
        if (!t) return sq_fail(err, SQUISH_CORRUPT, "%s: tensor '%s' is missing", path, w.gguf_name);
        sq_ftensor own = *t;
        if (w.expert >= 0) SQ_TRY(sq_model_expert_slice(t, w.expert, m->cfg.moe.n, &own, err));
        if (w.role == SQ_ROLE_SHARED_SWITCH && t->n_dims == 1) { /* one row may come without its dimension */
            own.n_dims = 2;
            own.dims[1] = t->dims[0];
            own.dims[0] = 1;
        }
        SQ_TRY(sq_model_check_tensor(&w, &own, w.gguf_name, &type, err));
        SQ_TRY(sq_model_bind_tensor(m, &w, &own, type, err));
    }
    return SQUISH_OK;
}

squish_status sq_model_open_gguf(sq_model **out, const char *path, const squish_model_options *opt,
                                 squish_error *err) {
    *out = NULL;
    sq_model *m = NULL;
    SQ_TRY(sq_model_new(&m, opt, err));
    squish_status st = SQUISH_OK;
    SQ_GUARD(sq_gguf_open(&m->gguf, path, &m->alloc, err));
    if (opt->text_only) name_architecture(m);
    else SQ_GUARD(bind_all(m, path, err));
    SQ_GUARD(compile_text(m, opt, err));
    SQ_GUARD(sq_model_finish(m, path, "gguf", err));
    *out = m;
    return SQUISH_OK;
fail:
    if (st == SQUISH_NO_MEMORY) sq_fail(err, st, "%s: out of memory", path);
    sq_model_close(m);
    return st;
}
