/* SPDX-License-Identifier: Apache-2.0
 *
 * test_model_latent.c - latent attention: GGUF files with the projection of keys and values whole or split
 * agree with the checkpoint; the absorbed way agrees with the expanded one; configurations that are refused;
 * and the choice among groups of experts. */
#include "backend/backend.h"
#include "model/model.h"
#include "support/model_run.h"

#include <math.h>
#include <stdio.h>

static const char source[] = "tests/fixtures/architectures/deepseek-v2-lite";
enum { LAYERS = 3, EXPERTS = 8, HEADS = 4, RANK = 32, NOPE = 16, V = 16, VOCAB = 512 };

/* ---- GGUF ------------------------------------------------------------------------------------ */

typedef struct {
    sq_gguf_writer *w;
    sq_safetensors *st;
    const void *data[400];
    size_t bytes[400], n;
    uint16_t split[LAYERS][2][HEADS * RANK * (NOPE > V ? NOPE : V)];
    uint8_t stacked[LAYERS][3][EXPERTS * 48 * 64 * 2];
} book;

static void add(book *b, const char *name, int32_t n_dims, const uint64_t *dims, const void *data) {
    sq_ftensor t = {.name = name, .dtype = SQ_DT_BF16, .n_dims = n_dims, .bytes = 2};
    squish_error err = {0};
    size_t index;
    for (int32_t d = 0; d < n_dims; d++) t.dims[d] = dims[d], t.bytes *= dims[d];
    assert_ok(sq_gguf_writer_tensor(b->w, &t, &index, &err), &err);
    b->data[index] = data;
    b->bytes[index] = t.bytes;
    b->n = index + 1;
}

static const sq_ftensor *find(const book *b, const char *format, int layer, int expert) {
    char name[128];
    snprintf(name, sizeof name, format, layer, expert);
    return sq_st_find(b->st, name);
}

static void experts(book *b, int l) {
    static const char *const parts[] = {"gate", "up", "down"};
    for (int p = 0; p < 3; p++) {
        const sq_ftensor *first = NULL;
        for (int e = 0; e < EXPERTS; e++) {
            char format[96], name[64];
            snprintf(format, sizeof format, "model.layers.%%d.mlp.experts.%%d.%s_proj.weight", parts[p]);
            const sq_ftensor *t = find(b, format, l, e);
            if (!t) return; /* a dense layer */
            if (e == 0) first = t;
            memcpy(b->stacked[l][p] + (size_t)e * t->bytes, t->data, t->bytes);
            if (e + 1 < EXPERTS) continue;
            const uint64_t dims[3] = {EXPERTS, first->dims[0], first->dims[1]};
            snprintf(name, sizeof name, "blk.%d.ffn_%s_exps.weight", l, parts[p]);
            add(b, name, 3, dims, b->stacked[l][p]);
        }
    }
}

/* kv_b [heads][nope | v][rank] to k_b [heads][rank][nope] and v_b [heads][v][rank]. */
static void split_kv_b(book *b, int l, const sq_ftensor *t) {
    const uint16_t *from = (const uint16_t *)(const void *)t->data;
    char name[64];
    for (int h = 0; h < HEADS; h++)
        for (int r = 0; r < RANK; r++) {
            for (int j = 0; j < NOPE; j++)
                b->split[l][0][(h * RANK + r) * NOPE + j] = from[(h * (NOPE + V) + j) * RANK + r];
            for (int j = 0; j < V; j++)
                b->split[l][1][(h * V + j) * RANK + r] = from[(h * (NOPE + V) + NOPE + j) * RANK + r];
        }
    const uint64_t k[3] = {HEADS, RANK, NOPE}, v[3] = {HEADS, V, RANK};
    snprintf(name, sizeof name, "blk.%d.attn_k_b.weight", l);
    add(b, name, 3, k, b->split[l][0]);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", l);
    add(b, name, 3, v, b->split[l][1]);
}

static void tensors(book *b, bool split) {
    static const char *const map[][2] = {{"input_layernorm", "attn_norm"},
                                         {"self_attn.q_proj", "attn_q"},
                                         {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
                                         {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
                                         {"self_attn.kv_b_proj", "attn_kv_b"},
                                         {"self_attn.o_proj", "attn_output"},
                                         {"post_attention_layernorm", "ffn_norm"},
                                         {"mlp.gate_proj", "ffn_gate"},
                                         {"mlp.up_proj", "ffn_up"},
                                         {"mlp.down_proj", "ffn_down"},
                                         {"mlp.gate", "ffn_gate_inp"},
                                         {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
                                         {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
                                         {"mlp.shared_experts.down_proj", "ffn_down_shexp"}};
    static const char *const whole[][2] = {{"model.embed_tokens.weight", "token_embd.weight"},
                                           {"model.norm.weight", "output_norm.weight"},
                                           {"lm_head.weight", "output.weight"}};
    for (size_t i = 0; i < SQ_COUNT(whole); i++) {
        const sq_ftensor *t = sq_st_find(b->st, whole[i][0]);
        add(b, whole[i][1], t->n_dims, t->dims, t->data);
    }
    for (int l = 0; l < LAYERS; l++) {
        for (size_t i = 0; i < SQ_COUNT(map); i++) {
            char format[96], name[64];
            snprintf(format, sizeof format, "model.layers.%%d.%s.weight", map[i][0]);
            snprintf(name, sizeof name, "blk.%d.%s.weight", l, map[i][1]);
            const sq_ftensor *t = find(b, format, l, 0);
            if (t && split && strstr(name, "attn_kv_b."))
                split_kv_b(b, l, t);
            else if (t)
                add(b, name, t->n_dims, t->dims, t->data);
        }
        experts(b, l);
    }
}

static void keys(book *b, bool split) {
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {{"block_count", LAYERS},
                   {"context_length", 512},
                   {"embedding_length", 64},
                   {"feed_forward_length", 128},
                   {"attention.head_count", HEADS},
                   {"attention.head_count_kv", split ? 1 : HEADS},
                   {"attention.key_length", split ? RANK + 8 : NOPE + 8},
                   {"attention.value_length", split ? RANK : V},
                   {"attention.kv_lora_rank", RANK},
                   {"rope.dimension_count", 8},
                   {"expert_count", EXPERTS},
                   {"expert_used_count", 2},
                   {"expert_shared_count", 1},
                   {"expert_feed_forward_length", 48},
                   {"leading_dense_block_count", 1},
                   {"rope.scaling.original_context_length", 128}};
    const struct {
        const char *key;
        float v;
    } reals[] = {{"rope.freq_base", 1e4f},
                 {"attention.layer_norm_rms_epsilon", 1e-6f},
                 {"expert_weights_scale", 1.0f},
                 {"rope.scaling.factor", 4.0f},
                 {"rope.scaling.yarn_log_multiplier", 0.0707f}};
    char name[96];
    squish_error err = {0};
    const sq_span arch = {(const uint8_t *)"deepseek2", 9}, yarn = {(const uint8_t *)"yarn", 4};
    assert_ok(sq_gguf_writer_str(b->w, "general.architecture", arch, &err), &err);
    assert_ok(sq_gguf_writer_str(b->w, "deepseek2.rope.scaling.type", yarn, &err), &err);
    for (size_t i = 0; i < SQ_COUNT(numbers); i++) {
        snprintf(name, sizeof name, "deepseek2.%s", numbers[i].key);
        assert_ok(sq_gguf_writer_u32(b->w, name, numbers[i].v, &err), &err);
    }
    for (size_t i = 0; i < SQ_COUNT(reals); i++) {
        snprintf(name, sizeof name, "deepseek2.%s", reals[i].key);
        assert_ok(sq_gguf_writer_f32(b->w, name, reals[i].v, &err), &err);
    }
    if (!split) return;
    assert_ok(sq_gguf_writer_u32(b->w, "deepseek2.attention.key_length_mla", NOPE + 8, &err), &err);
    assert_ok(sq_gguf_writer_u32(b->w, "deepseek2.attention.value_length_mla", V, &err), &err);
}

static void write_gguf(const char *path, bool split) {
    const squish_alloc a = sq_alloc_default();
    squish_error err = {0};
    char from[128];
    uint64_t bytes;
    book *b = calloc(1, sizeof *b);
    snprintf(from, sizeof from, "%s/model.safetensors", source);
    assert_ok(sq_st_open(&b->st, from, &a, NULL, NULL, &err), &err);
    assert_ok(sq_gguf_writer_new(&b->w, path, &a, &err), &err);
    keys(b, split);
    tensors(b, split);
    assert_ok(sq_gguf_writer_layout(b->w, &bytes, &err), &err);
    for (size_t i = 0; i < b->n; i++)
        assert_ok(sq_gguf_writer_put(b->w, i, 0, b->data[i], b->bytes[i], &err), &err);
    assert_ok(sq_gguf_writer_finish(b->w, &err), &err);
    sq_gguf_writer_free(b->w);
    sq_st_close(b->st);
    free(b);
}

/* Logits after a prompt and after some drawn tokens: expanded, then absorbed. */
static void logits_of(const char *path, float *prompt, float *drawn) {
    int32_t ids[300], next[4];
    squish_error err = {0};
    for (int i = 0; i < 300; i++) ids[i] = i * 37 % VOCAB;
    run x = run_open(path, SQUISH_TIER_SOURCE, NULL);
    assert_ok(squish_seq_sync(x.s, ids, 300, &err), &err);
    memcpy(prompt, squish_seq_logits(x.s), VOCAB * sizeof *prompt);
    run_greedy(&x, ids, 300, next, 4);
    memcpy(drawn, squish_seq_logits(x.s), VOCAB * sizeof *drawn);
    run_close(&x);
}

static void gguf_files_whole_and_split_agree_with_the_checkpoint(void **state) {
    (void)state;
    float want[2][VOCAB], got[2][VOCAB];
    logits_of(source, want[0], want[1]);
    for (int split = 0; split < 2; split++) {
        char path[] = "/tmp/squish-latent-XXXXXX.gguf";
        const int fd = mkstemps(path, 5);
        assert_true(fd >= 0);
        write_gguf(path, split);
        logits_of(path, got[0], got[1]);
        remove(path);
        for (int i = 0; i < VOCAB; i++) /* yarn_log_multiplier is a float in the file */
            assert_true(fabsf(got[0][i] - want[0][i]) < 1e-4f && fabsf(got[1][i] - want[1][i]) < 1e-4f);
    }
}

/* ---- both ways ------------------------------------------------------------------------------- */

static void drawn_tokens_read_their_past_as_prompts_do(void **state) {
    (void)state;
    int32_t ids[310];
    float drawn[VOCAB];
    squish_error err = {0};
    for (int i = 0; i < 300; i++) ids[i] = i * 37 % VOCAB;
    squish_engine_options o = squish_engine_options_default();
    o.kv = SQUISH_KV_F32;
    run x = run_open(source, SQUISH_TIER_SOURCE, &o);
    run_greedy(&x, ids, 300, ids + 300, 10);
    memcpy(drawn, squish_seq_logits(x.s), sizeof drawn); /* absorbed, behind nine drawn tokens */
    const int32_t n = squish_seq_length(x.s);
    squish_seq_truncate(x.s, 0);
    assert_ok(squish_seq_sync(x.s, ids, (size_t)n, &err), &err); /* the same as a prompt: expanded */
    const float *prompt = squish_seq_logits(x.s);
    float most = 0;
    for (int i = 0; i < VOCAB; i++) most = fmaxf(most, fabsf(prompt[i]));
    for (int i = 0; i < VOCAB; i++) assert_true(fabsf(prompt[i] - drawn[i]) <= 1e-4f * most);
    assert_memory_not_equal(prompt, drawn, sizeof drawn); /* two ways indeed */
    run_close(&x);
}

/* ---- choice ---------------------------------------------------------------------------------- */

static void choose(const sq_route_rule *rule, const float *scores, int32_t *expert, float *weight) {
    static float row[64];
    static uint8_t memory[4096];
    const sq_rows rows = {.m = 1, .m_max = 1, .cols = rule->n, .groups = 1, .f = row};
    sq_routes r;
    memcpy(row, scores, (size_t)rule->n * sizeof *row);
    assert_true(sq_routes_bytes(rule, 1) <= sizeof memory);
    sq_routes_carve(&r, rule, 1, memory);
    sq_be_route(NULL, &rows, &r);
    memcpy(expert, r.expert, (size_t)rule->used * sizeof *expert);
    memcpy(weight, r.weight, (size_t)rule->used * sizeof *weight);
}

static void experts_are_chosen_within_the_best_groups(void **state) {
    (void)state;
    const float scores[8] = {1, 5, 4, 4.5f, 0, 3, 6, -1}; /* groups of two: 5, 4.5, 3, 6 */
    sq_route_rule rule = {.n = 8, .used = 3, .n_group = 4, .topk_group = 2, .scale = 2.0f};
    int32_t e[3];
    float w[3];
    choose(&rule, scores, e, w);
    assert_int_equal(e[0], 0); /* of groups 0 and 3: 6, 5, then 1 */
    assert_int_equal(e[1], 1);
    assert_int_equal(e[2], 6);
    assert_true(fabsf(w[2] / w[1] - expf(1)) < 1e-4f);
    rule.topk_group = 4;
    choose(&rule, scores, e, w);
    assert_int_equal(e[0], 1);
    assert_int_equal(e[1], 3);
    assert_int_equal(e[2], 6);
    rule.norm = true;
    choose(&rule, scores, e, w);
    assert_true(fabsf(w[0] + w[1] + w[2] - 1) < 1e-6f);
    const float equal[8] = {0};
    choose(&rule, equal, e, w);
    for (int i = 0; i < 3; i++) assert_int_equal(e[i], i); /* of equal ones the first */
    const float nan[8] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    choose(&rule, nan, e, w);
    for (int i = 0; i < 3; i++) assert_in_range(e[i], 0, 7);
}

/* ---- configurations -------------------------------------------------------------------------- */

static squish_status with(const char *key, json_t *value, squish_error *err) {
    char path[128];
    sq_config c;
    *err = (squish_error){0};
    snprintf(path, sizeof path, "%s/config.json", source);
    json_t *o = json_load_file(path, 0, NULL);
    json_object_set_new(o, key, value);
    char *text = json_dumps(o, 0);
    const squish_status st = sq_config_from_json(text, strlen(text), &c, err);
    free(text);
    json_decref(o);
    return st;
}

static void what_is_not_run_is_named(void **state) {
    (void)state;
    squish_error err;
    assert_int_equal(with("scoring_func", json_string("sigmoid"), &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "scoring_func 'sigmoid' is not run"));
    assert_int_equal(with("topk_method", json_string("noaux_tc"), &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "topk_method 'noaux_tc' is not run"));
    assert_int_equal(with("attention_bias", json_true(), &err), SQUISH_UNSUPPORTED);
    assert_int_equal(with("kv_lora_rank", json_integer(40), &err), SQUISH_UNSUPPORTED);
    assert_non_null(strstr(err.text, "kv_lora_rank 40"));
    assert_int_equal(with("kv_lora_rank", json_integer(4096), &err), SQUISH_CORRUPT);
    assert_int_equal(with("qk_rope_head_dim", json_integer(7), &err), SQUISH_CORRUPT);
    assert_int_equal(with("v_head_dim", json_integer(0), &err), SQUISH_CORRUPT);
    assert_int_equal(with("q_lora_rank", json_integer(-1), &err), SQUISH_CORRUPT);
    assert_int_equal(with("moe_layer_freq", json_integer(2), &err), SQUISH_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_files_whole_and_split_agree_with_the_checkpoint),
        cmocka_unit_test(drawn_tokens_read_their_past_as_prompts_do),
        cmocka_unit_test(experts_are_chosen_within_the_best_groups),
        cmocka_unit_test(what_is_not_run_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
