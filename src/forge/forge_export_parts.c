/* SPDX-License-Identifier: Apache-2.0
 *
 * forge_export_parts.c - what every exporter needs: the order of rows, config.json, and publishing. */
#include "forge/forge_export_int.h"
#include "forge/forge_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- rows and elements ----------------------------------------------------------------------- */

int32_t sq_export_row(const sq_model *m, const sq_want *w, bool to_pairs, int32_t r) {
    const bool turned = w->role == SQ_ROLE_Q || w->role == SQ_ROLE_K || w->role == SQ_ROLE_Q_BIAS ||
                        w->role == SQ_ROLE_K_BIAS;
    if (!turned || (m->cfg.rope_pairs != 0) == to_pairs) return r;
    const int32_t d = m->cfg.head_dim, half = d / 2, base = r / d * d, i = r - base;
    return base + (to_pairs ? i % half * 2 + i / half : i % 2 * half + i / 2);
}

bool sq_export_next(const sq_model *m, size_t *at, sq_want *out) {
    while (sq_config_want(&m->cfg, (*at)++, out))
        if (out->role != SQ_ROLE_ROPE_FACTORS) return true;
    return false;
}

float sq_export_element(const sq_model *m, const sq_want *w, int32_t i) {
    const float v = sq_model_vector(m, w)[i];
    return w->norm && m->cfg.norm_plus_one ? v - 1.0f : v;
}

/* ---- config.json ----------------------------------------------------------------------------- */

/* The rule of Llama 3 gives these factors: found by its own arithmetic, for a file keeps only the result. */
static bool is_llama3(const float *factors, int32_t half, const sq_rope_params *base, sq_rope_params *p) {
    static const double contexts[] = {8192, 4096, 16384, 32768, 131072};
    double plain[SQ_MAX_HEAD_DIM / 2], scaled[SQ_MAX_HEAD_DIM / 2], attention;
    sq_rope_frequencies(base, half, plain, &attention);
    for (size_t c = 0; c < SQ_COUNT(contexts); c++) {
        bool same = true;
        *p = *base;
        p->type = SQ_ROPE_LLAMA3;
        p->factor = (double)factors[half - 1]; /* the slowest frequency is divided whole */
        p->low_freq = 1.0, p->high_freq = 4.0, p->original_ctx = contexts[c];
        if (!(p->factor >= 1.0)) return false;
        sq_rope_frequencies(p, half, scaled, &attention);
        for (int32_t i = 0; same && i < half; i++)
            same = fabs(plain[i] / scaled[i] / (double)factors[i] - 1.0) < 1e-5;
        if (same) return true;
    }
    return false;
}

/* The text of models that came from GGUF is made from their keys: made again for rows in halves. */
static squish_status config_of_keys(const sq_model *m, squish_text *text, squish_error *err) {
    sq_config c = m->cfg;
    c.rope_pairs = c.rope_factors = 0;
    if (m->cfg.rope_factors && !is_llama3(m->rope_factors, c.head_dim / 2, &m->cfg.rope[0], &c.rope[0]))
        return sq_fail(err, SQUISH_UNSUPPORTED,
                       "%s: tensor 'rope_freqs.weight' is not what rope type llama3 gives; config.json "
                       "has no other way to say it",
                       m->info.path);
    return sq_config_to_json(&c, NULL, &m->alloc, text, err);
}

squish_status sq_export_config(const sq_model *m, json_t **out, squish_error *err) {
    squish_text text = {0};
    *out = NULL;
    if (m->cfg.rope_pairs || m->cfg.rope_factors) {
        SQ_TRY(config_of_keys(m, &text, err));
        const squish_status st =
            sq_json_parse(text.data, text.bytes, SQ_JSON_DEPTH, "config.json", out, err);
        sq_alloc_free(&m->alloc, text.data, text.bytes + 1);
        return st;
    }
    if (!m->config_json) return sq_fail(err, SQUISH_UNSUPPORTED, "%s has no config.json text", m->info.path);
    SQ_TRY(sq_json_parse(m->config_json, strlen(m->config_json), SQ_JSON_DEPTH, "config.json", out, err));
    json_object_del(*out, "squish");
    json_object_del(*out, "quantization_config");
    json_object_del(*out, "quantization");
    return SQUISH_OK;
}

/* ---- files beside the weights ---------------------------------------------------------------- */

static squish_status write_text(const char *dir, const char *name, const void *p, size_t n,
                                squish_error *err) {
    char path[SQ_EXPORT_PATH];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return sq_fail(err, SQUISH_INVALID, "%.100s...: path too long", dir);
    return sq_os_write_file(path, p, n, err);
}

squish_status sq_export_write_config(const json_t *config, const char *dir, squish_error *err) {
    char *text = json_dumps(config, JSON_INDENT(4));
    if (!text) return sq_fail(err, SQUISH_NO_MEMORY, "export: out of memory");
    const squish_status st = write_text(dir, "config.json", text, strlen(text), err);
    free(text); /* jansson's */
    return st;
}

squish_status sq_export_assets(const squish_alloc *a, const char *from, const char *out, squish_error *err) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "generation_config.json", "special_tokens_map.json"};
    squish_status st = SQUISH_OK;
    for (size_t i = 0; from && st == SQUISH_OK && i < SQ_COUNT(names); i++) {
        char path[SQ_EXPORT_PATH];
        sq_arena ar;
        sq_span text;
        if (snprintf(path, sizeof path, "%s/%s", from, names[i]) >= (int)sizeof path) continue;
        if (!sq_os_exists(path)) continue;
        sq_arena_init(&ar, a, 1 << 16, 0);
        st = sq_os_read_file(path, SQ_MAX_JSON, &ar, &text, err);
        if (st == SQUISH_OK) st = write_text(out, names[i], text.p, text.n, err);
        sq_arena_deinit(&ar);
    }
    return st;
}

/* ---- publishing ------------------------------------------------------------------------------ */

squish_status sq_export_check_out(const sq_model *m, const char *out, squish_error *err) {
    if (!m->has_weights) return sq_fail(err, SQUISH_INVALID, "%s has no weights", m->info.path);
    if (strlen(out) > 1000) return sq_fail(err, SQUISH_INVALID, "%.100s...: path too long", out);
    /* An empty folder may be there; rename takes its place. */
    if (sq_os_exists(out) && (!sq_os_is_dir(out) || rmdir(out) != 0))
        return sq_fail(err, SQUISH_INVALID, "%s is there already (name another one)", out);
    return SQUISH_OK;
}

squish_status sq_export_folder_begin(const char *out, char *partial, squish_error *err) {
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    snprintf(partial, SQ_EXPORT_PATH, "%.*s.partial", (int)n, out);
    sq_forge_clear_dir(partial); /* what an earlier run left behind */
    return sq_os_mkdirs(partial, err);
}

squish_status sq_export_folder_end(const char *partial, const char *out, squish_error *err) {
    if (rename(partial, out) != 0)
        return sq_fail(err, SQUISH_IO, "%s: cannot be renamed to %s", partial, out);
    return sq_os_sync_parent(out, err);
}

void sq_export_folder_drop(const char *partial) {
    sq_forge_clear_dir(partial);
    rmdir(partial);
}
