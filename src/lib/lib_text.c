/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_text.c - tokens and templates of a model. */
#include "model/model.h"

#include <string.h>

static squish_status need_tokenizer(const squish_model *m, squish_error *err) {
    if (m->tok) return SQUISH_OK;
    return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no tokenizer (only token ids can be used with it)",
                   m->info.path);
}

squish_status squish_tokenize(const squish_model *m, const char *text, size_t bytes, unsigned flags,
                              squish_tokens *out, squish_error *err) {
    *out = (squish_tokens){0};
    SQ_TRY(need_tokenizer(m, err));
    sq_arena ar;
    sq_arena_init(&ar, &m->alloc, 64 << 10, 0);
    int32_t *ids = NULL;
    size_t n = 0;
    squish_status st = sq_tok_encode(m->tok, text, bytes, flags, &ar, &ids, &n, err);
    if (st == SQUISH_OK && n) {
        out->alloc = m->alloc;
        out->ids = sq_alloc_new(&m->alloc, n * sizeof *ids);
        if (out->ids) {
            memcpy(out->ids, ids, n * sizeof *ids);
            out->count = n;
        } else {
            st = sq_fail(err, SQUISH_NO_MEMORY, "tokenize: out of memory for %zu ids", n);
        }
    }
    sq_arena_deinit(&ar);
    return st;
}

squish_status squish_detokenize(const squish_model *m, const int32_t *ids, size_t n, bool with_special,
                                squish_text *out, squish_error *err) {
    *out = (squish_text){0};
    SQ_TRY(need_tokenizer(m, err));
    sq_buf b;
    sq_buf_init(&b, &m->alloc, (size_t)1 << 32);
    sq_detok d;
    sq_detok_init(&d, m->tok, with_special, true);
    squish_status st = SQUISH_OK;
    for (size_t i = 0; i < n && st == SQUISH_OK; i++) {
        if (ids[i] < 0 || ids[i] >= sq_tok_count(m->tok))
            st = sq_fail(err, SQUISH_INVALID, "token %zu is %d, wanted 0 to %d", i, ids[i],
                         sq_tok_count(m->tok) - 1);
        else
            sq_detok_push(&d, ids[i], &b);
    }
    if (st == SQUISH_OK) {
        sq_detok_finish(&d, &b);
        st = sq_buf_take(&b, out, err);
    }
    sq_buf_deinit(&b);
    return st;
}

bool squish_token_bytes(const squish_model *m, int32_t id, const char **bytes, size_t *n) {
    sq_span s;
    if (!m->tok || !sq_tok_bytes(m->tok, id, &s)) return false;
    *bytes = (const char *)s.p;
    *n = s.n;
    return true;
}

int32_t squish_token_bos(const squish_model *m) { return m->tok ? sq_tok_bos(m->tok) : -1; }
bool squish_token_is_eos(const squish_model *m, int32_t id) { return m->tok && sq_tok_is_eos(m->tok, id); }
bool squish_token_is_control(const squish_model *m, int32_t id) {
    return m->tok && sq_tok_is_control(m->tok, id);
}

/* ---- templates ------------------------------------------------------------------------------- */

squish_template_options squish_template_options_default(void) {
    return (squish_template_options){.add_generation_prompt = true};
}

const char *squish_model_template(const squish_model *m) { return m->tmpl ? sq_tmpl_source(m->tmpl) : NULL; }

static squish_status set(json_t *vars, const char *key, json_t *value, squish_error *err) {
    if (value && json_object_set_new(vars, key, value) == 0) return SQUISH_OK;
    return sq_fail(err, SQUISH_NO_MEMORY, "template: out of memory");
}

static squish_status set_token(json_t *vars, const char *key, const squish_model *m, int32_t id,
                               squish_error *err) {
    sq_span s;
    if (json_object_get(vars, key) || id < 0 || !sq_tok_bytes(m->tok, id, &s)) return SQUISH_OK;
    return set(vars, key, json_stringn((const char *)s.p, s.n), err);
}

static squish_status build_vars(const squish_model *m, const squish_template_options *o, json_t **out,
                                squish_error *err) {
    json_t *v = NULL;
    *out = NULL;
    if (o->vars_json) {
        SQ_TRY(
            sq_json_parse(o->vars_json, strlen(o->vars_json), SQ_JSON_DEPTH, "template variables", out, err));
        if (!json_is_object(*out)) return sq_fail(err, SQUISH_INVALID, "template variables: not an object");
    } else if (!(*out = json_object())) {
        return sq_fail(err, SQUISH_NO_MEMORY, "template: out of memory");
    }
    SQ_TRY(sq_json_parse(o->messages_json, strlen(o->messages_json), SQ_JSON_DEPTH, "messages", &v, err));
    const bool is_array = json_is_array(v);
    SQ_TRY(set(*out, "messages", v, err));
    if (!is_array) return sq_fail(err, SQUISH_INVALID, "messages: not an array");
    if (o->tools_json) {
        SQ_TRY(sq_json_parse(o->tools_json, strlen(o->tools_json), SQ_JSON_DEPTH_SCHEMA, "tools", &v, err));
        const bool tools_ok = json_is_array(v);
        SQ_TRY(set(*out, "tools", v, err));
        if (!tools_ok) return sq_fail(err, SQUISH_INVALID, "tools: not an array");
    }
    SQ_TRY(set(*out, "add_generation_prompt", json_boolean(o->add_generation_prompt), err));
    if (!m || !m->tok) return SQUISH_OK;
    SQ_TRY(set_token(*out, "bos_token", m, sq_tok_bos(m->tok), err));
    return set_token(*out, "eos_token", m, sq_tok_eos(m->tok), err);
}

static squish_status render(const sq_tmpl *t, const squish_model *m, const squish_template_options *o,
                            const squish_alloc *a, squish_text *out, squish_error *err) {
    json_t *vars = NULL;
    sq_buf b;
    sq_buf_init(&b, a, (size_t)64 << 20);
    squish_status st = build_vars(m, o, &vars, err);
    const sq_tmpl_limits limits = {.now_unix = o->now_unix ? o->now_unix : sq_os_unix_time()};
    if (st == SQUISH_OK) st = sq_tmpl_render(t, vars, &limits, a, &b, err);
    if (st == SQUISH_OK) st = sq_buf_take(&b, out, err);
    sq_buf_deinit(&b);
    json_decref(vars);
    return st;
}

squish_status squish_template_render(const squish_model *m, const squish_template_options *opt,
                                     squish_text *out, squish_error *err) {
    *out = (squish_text){0};
    if (!opt || !opt->messages_json) return sq_fail(err, SQUISH_INVALID, "no messages given");
    const squish_alloc a = m ? m->alloc : sq_alloc_default();
    if (!opt->template_source) {
        if (!m) return sq_fail(err, SQUISH_INVALID, "neither a model nor a template given");
        if (!m->tmpl && m->tmpl_error.code != SQUISH_OK)
            return sq_fail(err, SQUISH_UNSUPPORTED, "%s: its chat template cannot be used: %s", m->info.path,
                           m->tmpl_error.text);
        if (!m->tmpl)
            return sq_fail(err, SQUISH_UNSUPPORTED,
                           "%s has no chat template (use --raw, or give one with --template)", m->info.path);
        return render(m->tmpl, m, opt, &a, out, err);
    }
    sq_buf blob;
    sq_buf_init(&blob, &a, (size_t)64 << 20);
    sq_tmpl_view view;
    const sq_tmpl *t = NULL;
    squish_status st = sq_tmpl_compile(opt->template_source, strlen(opt->template_source), &a, &blob, err);
    if (st == SQUISH_OK) st = sq_tmpl_open(&view, (sq_span){(const uint8_t *)blob.data, blob.len}, &t, err);
    if (st == SQUISH_OK) st = render(t, m, opt, &a, out, err);
    sq_buf_deinit(&blob);
    return st;
}
