/* SPDX-License-Identifier: Apache-2.0
 *
 * lib_engine.c - engines, timelines and answers: defaults in front of src/sched. */
#include "kv/kv_private.h"
#include "sched/sched.h"

#include <string.h>

squish_engine_options squish_engine_options_default(void) {
    return (squish_engine_options){.chunk_tokens = 256,
                                   .kv_options = squish_kv_options_default(),
                                   .attention = {.sparge_min = 8192, .sparge_mass = 0.95f, .sage_bits = 8}};
}

squish_kv_options squish_kv_options_default(void) {
    return (squish_kv_options){.residual = 128,
                               .sink = 32,
                               .pm_age = {256, 1024, 4096},
                               .pm_floor = 2,
                               .cocktail_high = 0.15f,
                               .cocktail_low = 0.5f,
                               .cocktail_chunk = 32,
                               .snap_window = 32};
}

squish_status squish_engine_estimate(const squish_model *m, const squish_engine_options *opt,
                                     squish_mem_estimate *out, squish_error *err) {
    const squish_engine_options o = opt ? *opt : squish_engine_options_default();
    squish_engine_options resolved;
    return sq_engine_plan(m, &o, &resolved, out, err);
}

squish_status squish_engine_new(squish_engine **out, const squish_model *m, const squish_engine_options *opt,
                                squish_error *err) {
    const squish_engine_options o = opt ? *opt : squish_engine_options_default();
    return sq_engine_new(out, m, &o, err);
}

void squish_engine_free(squish_engine *e) { sq_engine_free(e); }

void squish_engine_get_info(const squish_engine *e, squish_engine_info *out) {
    *out = (squish_engine_info){.threads = e->threads,
                                .ctx_tokens = e->ctx,
                                .chunk_tokens = e->chunk,
                                .isa = sq_backend_isa(e->b),
                                .scratch_bytes = e->scratch_bytes,
                                .kv_bytes_now = sq_kv_pool_bytes_used(e->kv),
                                .kv_bytes_max = sq_kv_pool_bytes_max(e->kv),
                                .attn_density = sq_be_attn_density(e->b),
                                .attn_sage_tiles = sq_be_attn_sage_tiles(e->b)};
    sq_engine_agile_info(e, &out->agile);
    sq_engine_look_info(e, &out->lookahead);
}

void squish_engine_get_lookahead(const squish_engine *e, squish_lookahead_info *out) {
    sq_engine_look_info(e, out);
}

const char *squish_kv_name(squish_kv kv) { return sq_kv_name(kv); }
bool squish_kv_from_name(const char *name, squish_kv *out) { return sq_kv_from_name(name, out); }

squish_status squish_seq_new(squish_seq **out, squish_engine *e, squish_error *err) {
    return sq_seq_new(out, e, err);
}
void squish_seq_free(squish_seq *s) { sq_seq_free(s); }

void squish_seq_get_census(const squish_seq *s, squish_kv_census *out) {
    sq_kv_census c;
    sq_kv_seq_census(s->kv, &c);
    *out = (squish_kv_census){.bytes_f16 = c.bytes_f16, .dropped = c.dropped};
    for (int i = 0; i < 4; i++)
        out->tokens[i] = c.tokens[SQ_RUNG_F16 - i], out->bytes[i] = c.bytes[SQ_RUNG_F16 - i];
    for (int i = 0; i < 3; i++) out->chunks[i] = c.judged[i];
}

squish_status squish_seq_sync(squish_seq *s, const int32_t *tokens, size_t n, squish_error *err) {
    return sq_seq_sync(s, tokens, n, err);
}

int32_t squish_seq_length(const squish_seq *s) { return s->n; }
int32_t squish_seq_reused(const squish_seq *s) { return s->reused; }
const float *squish_seq_logits(const squish_seq *s) { return sq_seq_logits(s); }
void squish_seq_truncate(squish_seq *s, int32_t n) { sq_seq_truncate(s, n); }
void squish_seq_cancel(squish_seq *s) { atomic_store_explicit(&s->cancel, 1, memory_order_relaxed); }
void squish_seq_cancel_clear(squish_seq *s) { atomic_store_explicit(&s->cancel, 0, memory_order_relaxed); }

squish_status squish_seq_score(squish_seq *s, const int32_t *tokens, size_t n, int32_t first,
                               squish_logits_fn fn, void *user, squish_error *err) {
    return sq_seq_score(s, tokens, n, first, fn, user, err);
}

/* ---- answers --------------------------------------------------------------------------------- */

static const char *const spec_names[] = {"auto", "off", "ngram", "heads", "draft", "skip"};
_Static_assert(SQ_COUNT(spec_names) == SQUISH_SPEC_COUNT, "every mode has a name");

const char *squish_spec_name(squish_spec_mode m) {
    return m >= 0 && m < SQUISH_SPEC_COUNT ? spec_names[m] : NULL;
}

bool squish_spec_from_name(const char *name, squish_spec_mode *out) {
    for (int i = 0; i < SQUISH_SPEC_COUNT; i++)
        if (strcmp(name, spec_names[i]) == 0) {
            *out = (squish_spec_mode)i;
            return true;
        }
    return false;
}

static const char *const accept_names[SQUISH_ACCEPT_COUNT] = {"match", "ratio"};

const char *squish_spec_accept_name(squish_spec_accept a) {
    return a >= 0 && a < SQUISH_ACCEPT_COUNT ? accept_names[a] : NULL;
}

bool squish_spec_accept_from_name(const char *name, squish_spec_accept *out) {
    for (int i = 0; name && i < SQUISH_ACCEPT_COUNT; i++)
        if (strcmp(name, accept_names[i]) == 0) {
            *out = (squish_spec_accept)i;
            return true;
        }
    return false;
}

squish_sampling squish_sampling_default(void) {
    return (squish_sampling){.temperature = 0.7f,
                             .top_p = 0.9f,
                             .typical_p = 1.0f,
                             .repetition_penalty = 1.0f,
                             .repeat_last_n = -1,
                             .dry_base = 1.75f,
                             .dry_allowed_length = 2,
                             .dry_last_n = -1,
                             .seed = -1};
}

static void override(const json_t *o, const char *key, float *field) {
    const json_t *v = json_object_get(o, key);
    if (json_is_number(v)) *field = (float)json_number_value(v);
}

squish_sampling squish_sampling_for(const squish_model *m) {
    squish_sampling s = squish_sampling_default();
    json_t *o = NULL;
    if (!m->generation_json || sq_json_parse(m->generation_json, strlen(m->generation_json), SQ_JSON_DEPTH,
                                             "generation_config.json", &o, NULL) != SQUISH_OK)
        return s;
    float top_k = 0.0f;
    override(o, "temperature", &s.temperature);
    override(o, "top_p", &s.top_p);
    override(o, "top_k", &top_k);
    override(o, "min_p", &s.min_p);
    override(o, "typical_p", &s.typical_p);
    override(o, "repetition_penalty", &s.repetition_penalty);
    s.top_k = top_k >= 0.0f && top_k <= 0x1p24f ? (int32_t)top_k : 0; /* beyond any vocabulary: off */
    if (json_is_false(json_object_get(o, "do_sample"))) s.temperature = 0.0f;
    json_decref(o);
    return s;
}

squish_gen_options squish_gen_options_default(void) {
    return (squish_gen_options){.sampling = squish_sampling_default(), .max_tokens = -1, .logprobs = -1};
}

squish_status squish_gen_new(squish_gen **out, squish_seq *s, const int32_t *prompt, size_t n,
                             const squish_gen_options *opt, squish_error *err) {
    squish_gen_options o = opt ? *opt : squish_gen_options_default();
    if (!opt) o.sampling = squish_sampling_for(s->e->m);
    return sq_gen_new(out, s, prompt, n, &o, err);
}

squish_status squish_gen_next(squish_gen *g, squish_gen_event *ev, squish_error *err) {
    return sq_gen_next(g, ev, err);
}
void squish_gen_get_stats(const squish_gen *g, squish_gen_stats *out) { sq_gen_stats(g, out); }
void squish_gen_free(squish_gen *g) { sq_gen_free(g); }
